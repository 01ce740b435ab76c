"""The WebSocket of clients over sessions that run: events, approvals, terminals, input (village-control-plane.md 8.3 –
8.6, 11.2)."""
import os
import random
import secrets
import socket
import struct
import threading
import time
import uuid

import harness
import pytest
import worker_peers
from live_peers import PATH, LiveWorker, Viewer
from village import Village, data, refused


@pytest.fixture
def running(village, worker):
    """A session whose agent works: (id, runner)."""
    session = village.create()["sessionId"]
    runner = worker.start(session)
    yield session, runner
    worker.well()


def caught_up(viewer, session, seq):
    viewer.wait(lambda: viewer.seqs(session)[-1:] and viewer.seqs(session)[-1] >= seq, what=f"event {seq}")


def wait_state(viewer, state):
    return viewer.wait(
        lambda: next((m for m in viewer.of("session", action="state_change") if m["data"]["newState"] == state), None),
        what=state)


def last_seq(village, session):
    return village.get(session)["lastEventSeq"]


def shows(viewer, session, size, number=0):
    """Waits until the terminal was shown up to that offset."""
    def end():
        chunks = [m for m in viewer.messages if m["type"] == "terminal" and m["sessionId"] == session
                  and m["terminal"] == number]
        if not chunks:
            return False
        m = chunks[-1]
        n = len(m["data"]) * 3 // 4 - m["data"].count("=") if m.get("encoding") else len(m["data"].encode())
        return m["offset"] + n >= size
    viewer.wait(end, 40, f"the terminal up to {size}")


# --- events ---

@pytest.mark.parametrize("hang_up", [False, True], ids=["", "hung up"])
def test_two_viewers_see_the_same_dense_log(village, running, view, hang_up):
    session, runner = running
    early, late = view(), view()
    early.follow(session, sinceSeq=0)
    runner.marks(0, 300)
    late.follow(session, sinceSeq=0)  # in the middle of it
    runner.marks(300, 300)
    runner.report("complete", turnId="t", outcome="done")
    runner.end(hang_up=hang_up)  # right behind what it said, which is not stored yet
    for viewer in (early, late):
        done = viewer.expect("session", action="completed", timeout=40)
        assert done["data"]["finalState"] == "COMPLETED"
        assert viewer.seqs(session) == list(range(1, done["seq"] + 1))
        touched = [m["data"]["payload"]["path"] for m in viewer.of("session", action="event")
                   if m["data"]["eventType"] == "FILE_TOUCHED"]
        assert touched == [f"f{i}" for i in range(600)]
    def seen(viewer):
        return [{k: v for k, v in m.items() if k != "at"} for m in viewer.messages
                if m["type"] == "session" and "seq" in m]
    assert seen(early) == seen(late)


def test_what_cannot_be_stored_does_not_hold_up_the_end(village, running, view):
    session, runner = running
    runner.marks(0, 300)
    runner.seq += 3  # a hole: what follows is dropped
    runner.marks(300, 50)
    runner.end()
    viewer = view()
    viewer.follow(session, sinceSeq=0)
    done = viewer.expect("session", action="completed", timeout=40)
    assert done["data"]["finalState"] == "COMPLETED" and viewer.seqs(session) == list(range(1, done["seq"] + 1))


def test_the_border_between_the_past_and_the_present_hides_nothing(village, running, view):
    """Viewers that come at any moment of a running log, from any position."""
    session, runner = running
    over = threading.Event()

    def work():
        for i in range(0, 1500, 5):
            runner.events(*[("FILE_TOUCHED", {"path": f"f{i + j}", "reason": "write"}) for j in range(5)])
            time.sleep(0.005)
        over.set()
    thread = threading.Thread(target=work)
    thread.start()
    viewers, rng = [], random.Random(7)
    while not over.is_set() and len(viewers) < 15:
        since = rng.randrange(max(1, last_seq(village, session)))
        viewers.append((view(), since))
        viewers[-1][0].follow(session, sinceSeq=since)
    thread.join()
    runner.stored()
    last = last_seq(village, session)
    assert len(viewers) >= 3
    for viewer, since in viewers:
        caught_up(viewer, session, last)
        assert viewer.seqs(session) == list(range(since + 1, last + 1))


def test_usage_is_shown_to_who_asks(village, running, view):
    session, runner = running
    asks, does_not = view(), view()
    asks.follow(session, usage=True)
    does_not.follow(session)
    runner.events(("USAGE_TICK", {"providerId": "codex", "units": 1, "intervalMs": 1000}), ("GIT_COMMIT", {"sha": "a"}))
    for viewer in (asks, does_not):
        viewer.wait(lambda: any(m["data"]["eventType"] == "GIT_COMMIT" for m in viewer.of("session", action="event")))
    assert [m["data"]["eventType"] for m in asks.of("session", action="event")] == ["USAGE_TICK", "GIT_COMMIT"]
    assert [m["data"]["eventType"] for m in does_not.of("session", action="event")] == ["GIT_COMMIT"]


def test_words_come_as_they_are_said(running, view):
    session, runner = running
    rich, plain = view(), view()
    rich.follow(session)
    plain.follow(session, terminal=False)
    runner.stream("Hello, ", 0)
    runner.stream("wörld\n", 7)
    runner.stream("hm", 0, kind="thought")
    for viewer in (rich, plain):
        viewer.wait(lambda: len(viewer.of("session", action="delta")) == 3)
        assert [(m["data"]["kind"], m["data"]["offset"], m["data"]["content"])
                for m in viewer.of("session", action="delta")] == [("text", 0, "Hello, "), ("text", 7, "wörld\n"),
                                                                    ("thought", 0, "hm")]
        assert all("seq" not in m for m in viewer.of("session", action="delta"))
    plain.sync()
    assert [m["data"] for m in plain.of("session", action="output")] == [
        {"output": "Hello, ", "stream": "stdout"}, {"output": "wörld\n", "stream": "stdout"}]
    assert not rich.of("session", action="output")  # it has the terminal


# --- approvals ---

def test_an_approval_is_asked_and_given(village, running, view, worker):
    session, runner = running
    reviewer, watcher, old = view(), view(), view()
    for viewer in (reviewer, watcher):
        viewer.follow(session)
    assert old.ask("subscribe", sessionId=session)["event"] == "subscribed"
    approval = runner.ask("Push to main?")
    asked = reviewer.expect("approval_required")
    assert asked["approval"]["approvalId"] == approval and asked["approval"]["status"] == "pending"
    assert asked["approval"]["description"] == "Push to main?" and asked["messageId"] and asked["seq"] > 0
    assert asked["sessionId"] == session
    wait_state(watcher, "WAITING_FOR_APPROVAL")
    request = old.expect("session", action="approval_request")["data"]
    assert request["requestId"] == approval and request["details"]["risk"] == "high"
    assert not watcher.of("session", action="approval_request")
    reply = reviewer.ask("resolve_approval", sessionId=session, approvalId=approval, decision="allow", reason="Fine.")
    assert reply["event"] == "approval_recorded" and reply["data"]["status"] == "allowed", reply
    answer = runner.told("answer")
    assert answer["decision"] == "allow" and "apr_" + answer["questionId"] == approval
    runner.report("answered", questionId=answer["questionId"], taken=True)
    for viewer in (reviewer, watcher, old):
        resolved = viewer.expect("approval_resolved")
        assert resolved["approvalId"] == approval and resolved["decision"] == "allow"
        assert resolved["status"] == "allowed" and resolved["reason"] == "Fine." and resolved["resolvedBy"]
        wait_state(viewer, "RUNNING")
    other = watcher.refused("APPROVAL_ALREADY_RESOLVED", "resolve_approval", sessionId=session, approvalId=approval,
                            decision="deny")
    known = other["details"]["approval"]
    assert known["approvalId"] == approval and known["decision"] == "allow" and known["reason"] == "Fine.", known
    watcher.refused("APPROVAL_NOT_FOUND", "resolve_approval", sessionId=session, approvalId="apr_nothing",
                    decision="deny")


def test_a_question_of_the_agent_is_answered(village, running, view):
    session, runner = running
    viewer = view()
    viewer.follow(session)
    question = str(uuid.uuid4())
    runner.report("question", questionId=question, kind="question", text="Which colours?", options=["red", "blue"], multiple=True)
    asked = viewer.expect("approval_required")["approval"]
    shown = data(village("GET", f"/sessions/{session}/approvals"))["items"]
    assert [(a["approvalId"], a["kind"], a["description"], a["options"], a["context"], a["status"]) for a in shown] == \
        [("apr_" + question, "question", "Which colours?", ["red", "blue"], {"multiple": True}, "pending")]
    assert asked["kind"] == "question" and asked["options"] == ["red", "blue"], asked
    wait_state(viewer, "WAITING_FOR_APPROVAL")
    answer = {"answers": ["red", "something else"]}
    data(village("POST", f"/sessions/{session}/approvals/apr_{question}", json={"decision": "allow", "answer": answer}))
    assert [a["answer"] for a in data(village("GET", f"/sessions/{session}/approvals"))["items"]] == [answer]
    told = runner.told("answer")
    assert told["questionId"] == question and told["decision"] == "allow" and told["answer"] == answer, told
    runner.report("answered", questionId=question, taken=True)
    wait_state(viewer, "RUNNING")
    assert not village.events(session, types="ALERT_RAISED")["events"]


def test_a_denial_that_ends_the_session_reaches_its_worker(village, worker, view):
    session = village.create(options={"policy": {"onDeny": "stop"}})["sessionId"]
    runner, reviewer = worker.start(session), view()
    reviewer.follow(session)
    approval = runner.ask()
    reviewer.expect("approval_required")
    reply = reviewer.ask("resolve_approval", sessionId=session, approvalId=approval, decision="deny")
    assert reply["data"]["status"] == "denied", reply
    worker.expect(worker.cancel_type, task_id=runner.task["task_id"])
    worker.confirm_cancel(runner.task)
    wait_state(reviewer, "COMPLETED")
    assert village.get(session)["endReason"] == "denied"
    worker.well()


def test_a_question_of_the_agent_waits_for_an_answer_in_words(village, running, view):
    session, runner = running
    viewer = view()
    viewer.follow(session)
    question = "00000000-0000-4000-8000-000000000007"
    runner.report("question", questionId=question, turnId="t", kind="question", text="Which one?", options=["left", "right"])
    asked = viewer.expect("approval_required")["approval"]
    assert asked["kind"] == "question" and asked["description"] == "Which one?" and asked["options"] == ["left", "right"], asked
    wait_state(viewer, "WAITING_FOR_APPROVAL")
    data(village("POST", f"/sessions/{session}/approvals/{asked['approvalId']}", json={"decision": "allow", "answer": {"answers": ["right"]}}))
    answer = runner.told("answer", questionId=question)
    assert answer["decision"] == "allow" and answer["answer"] == {"answers": ["right"]}, answer
    runner.report("answered", questionId=question, taken=True)
    wait_state(viewer, "RUNNING")


def test_what_nobody_waits_for_any_more_is_cancelled(village, running, view):
    session, runner = running
    viewer = view()
    viewer.follow(session)
    one, two = runner.ask("First?"), runner.ask("Second?")
    wait_state(viewer, "WAITING_FOR_APPROVAL")
    runner.report("answered", questionId=one.removeprefix("apr_"), taken=False)  # its turn was cancelled
    assert viewer.expect("approval_resolved")["status"] == "cancelled"
    assert village.get(session)["state"] == "WAITING_FOR_APPROVAL"
    runner.report("answered", questionId=two.removeprefix("apr_"), taken=False)
    wait_state(viewer, "RUNNING")
    runner.marks(0, 5)
    runner.stored()
    shown = {a["approvalId"]: a for a in data(village("GET", f"/sessions/{session}/approvals"))["items"]}
    assert {shown[a]["status"] for a in (one, two)} == {"cancelled"} and shown[one]["resolvedBy"] == "runner"
    refused(village("POST", f"/sessions/{session}/approvals/{two}", json={"decision": "allow"}), 409, "APPROVAL_ALREADY_RESOLVED")


def test_a_message_that_can_never_be_stored_is_left_out(village, running, view):
    session, runner = running
    waits = runner.ask("May I?")
    runner.stored()
    runner.marks(0, 3)
    runner.report("answered", questionId=waits.removeprefix("apr_"), taken=True)  # nobody said so
    runner.marks(3, 3)
    runner.stored()
    alerts = village.events(session, types="ALERT_RAISED")["events"]
    assert [a["data"]["message"] for a in alerts] == ["answered"]
    assert len(village.events(session, types="FILE_TOUCHED")["events"]) == 6
    assert village.get(session)["state"] == "WAITING_FOR_APPROVAL"


def test_who_comes_later_is_told_what_waits(village, running, view):
    session, runner = running
    first, second = runner.ask("One?"), runner.ask("Two?")
    runner.stored()
    viewer = view()
    viewer.follow(session)
    asked = [viewer.expect("approval_required")["approval"]["approvalId"] for _ in range(2)]
    assert sorted(asked) == sorted([first, second])
    shot = viewer.of("session", action="state_change")[0]["data"]["session"]
    assert sorted(a["approvalId"] for a in shot["pendingApprovals"]) == sorted(asked)
    kinds = [m["type"] for m in viewer.messages if m["type"] != "event"]
    assert kinds[:3] == ["session", "approval_required", "approval_required"]
    viewer.ask("resolve_approval", sessionId=session, approvalId=first, decision="deny", reason="No.")
    assert runner.told("answer")["decision"] == "deny"
    assert viewer.expect("approval_resolved")["status"] == "denied"
    assert village.get(session)["state"] == "WAITING_FOR_APPROVAL"  # the other one
    viewer.ask("resolve_approval", sessionId=session, approvalId=second, decision="deny")
    wait_state(viewer, "RUNNING")


def test_a_viewer_watches_but_does_not_touch(oz, admin, worker):
    tenant = "t" + secrets.token_hex(4)
    keys = {role: admin.api("POST", "/keys", json={"name": role + secrets.token_hex(4), "tenant": tenant, "role": role})
            .json()["key"] for role in ("viewer", "operator")}
    with oz.client(keys["operator"]) as client, Viewer(oz, keys["viewer"]) as viewer:
        session = Village(client).create()["sessionId"]
        runner = worker.start(session)
        approval = runner.ask()
        viewer.follow(session)
        viewer.expect("approval_required")
        runner.show(b"hello")
        shows(viewer, session, 5)
        for kind, fields in (("terminal_input", {"data": "x"}), ("terminal_resize", {"cols": 80, "rows": 24}),
                             ("resolve_approval", {"approvalId": approval, "decision": "allow"})):
            viewer.refused("FORBIDDEN", kind, sessionId=session, **fields)


# --- terminals ---

def test_a_terminal_is_shown_from_its_past_to_its_present(running, view):
    session, runner = running
    runner.show(b"one\r\n")
    early = view()
    early.follow(session)
    shows(early, session, 5)
    late = view()
    late.follow(session)
    runner.show("zwei äöü €\r\n".encode())
    end = runner.show(b"three\r\n")
    for viewer in (early, late):
        shows(viewer, session, end)
        first, shown, gaps = viewer.terminal(session)
        assert (first, shown, gaps) == (0, "one\r\nzwei äöü €\r\nthree\r\n".encode(), [])
        assert all("encoding" not in m for m in viewer.of("terminal"))


def test_a_burst_is_whole_for_who_reads(running, view):
    """4 MiB in random pieces while viewers come and go: each sees a dense stream to the end."""
    session, runner = running
    rng, total, over = random.Random(3), 4 << 20, threading.Event()
    text = (b"%07d\n" * (total // 8)) % tuple(range(total // 8))

    def work():
        at = 0
        while at < total:
            n = rng.choice((1, 7, 100, 5000, 40000))
            if at - acked() > 480 << 10:
                time.sleep(0.002)
                continue
            runner.show(text[at:at + n])
            at = min(at + n, total)
        over.set()

    def acked():
        return max((f["offset"] for f in runner.worker.frames_of(runner.task["execution_id"])
                    if f["type"] == "terminal-ack"), default=0)
    thread = threading.Thread(target=work)
    thread.start()
    viewers = []
    while not over.is_set():
        viewers.append(view())
        viewers[-1].follow(session, terminalOffset=rng.choice((0, 1000, acked())), binary=len(viewers) % 2 == 0)
        time.sleep(0.15)
        if len(viewers) == 12:
            break
    thread.join()
    for viewer in viewers:
        if viewer.of("binary"):
            viewer.wait(lambda: (m := viewer.of("binary")) and m[-1]["offset"] + len(m[-1]["bytes"]) == total, 60)
            at = viewer.of("binary")[0]["offset"]
            for m in viewer.of("binary"):
                assert m["offset"] == at and m["session"] == session and m["head"] == bytes([1, 0, 0, 0, 0, 0, 0, 0])
                assert m["bytes"] == text[at:at + len(m["bytes"])]
                at += len(m["bytes"])
        else:
            shows(viewer, session, total)
            first, shown, gaps = viewer.terminal(session)
            assert not gaps and shown == text[first:]


def test_only_the_last_of_a_long_past_is_shown_unless_asked(running, view):
    session, runner = running
    text = b"%07d\n" * 50000 % tuple(range(50000))
    runner.show(text)
    short, whole, middle, beyond = view(), view(), view(), view()
    short.follow(session)
    whole.follow(session, terminalOffset=0)
    middle.follow(session, terminalOffset=100_001)
    beyond.follow(session, terminalOffset=10_000_000)  # of another life: goes on where the terminal is
    for viewer, first in ((short, len(text) - (256 << 10)), (whole, 0), (middle, 100_001)):
        shows(viewer, session, len(text))
        assert viewer.terminal(session) == (first, text[first:], [])
    end = len(text)
    while not beyond.of("terminal"):  # from some moment after its subscription on
        end = runner.show(b"!")
        time.sleep(0.05)
    shows(beyond, session, end)
    first, shown, gaps = beyond.terminal(session)
    assert first >= len(text) and shown == b"!" * (end - first) and not gaps


def test_what_the_runner_lost_shows_as_a_gap(running, view):
    session, runner = running
    viewer = view()
    viewer.follow(session)
    runner.show(b"before")
    shows(viewer, session, 6)
    runner.show(b"after", offset=1000)
    shows(viewer, session, 1005)
    assert viewer.terminal(session) == (0, b"beforeafter", [(6, 1000)])


def test_characters_are_never_cut_and_other_bytes_are_marked(running, view):
    session, runner = running
    viewer = view()
    viewer.follow(session)
    text = "aä€😀z".encode()
    for i in range(len(text)):
        runner.show(text[i:i + 1])
        time.sleep(0.03)
    shows(viewer, session, len(text))
    assert viewer.terminal(session) == (0, text, [])
    assert all("encoding" not in m for m in viewer.of("terminal"))
    runner.show(b"\xff\xfe")
    shows(viewer, session, len(text) + 2)
    assert viewer.of("terminal")[-1]["encoding"] == "base64"
    runner.show(b"\xe2\x82")  # half a character, and then nothing
    runner.report("complete", turnId="t", outcome="done")
    runner.end()
    viewer.expect("session", action="completed")
    shows(viewer, session, len(text) + 4)
    assert viewer.terminal(session)[1] == text + b"\xff\xfe\xe2\x82"


def test_small_pieces_are_put_together(running, view):
    session, runner = running
    viewer = view()
    viewer.follow(session)
    viewer.sync()
    for _ in range(500):
        runner.show(b"x" * 10)
    shows(viewer, session, 5000)
    assert len(viewer.of("terminal")) < 250


def test_the_echo_right_behind_another_one_does_not_wait(running, view):
    session, runner = running
    viewer = view()
    viewer.follow(session)
    shows(viewer, session, runner.show(b"!"))  # it is done with the past
    for _ in range(5):
        time.sleep(0.05)
        before = len(viewer.of("terminal"))
        runner.show(b"a")
        runner.show(b"b")
        end = runner.show(b"c")
        shows(viewer, session, end)
        assert [m["data"] for m in viewer.of("terminal")[before:]] == ["a", "b", "c"]


def test_further_terminals(running, view):
    session, runner = running
    viewer = view()
    viewer.follow(session)
    runner.show(b"agent")
    runner.show(b"shell one", terminal=1)
    shows(viewer, session, 5)
    assert not [m for m in viewer.of("terminal") if m["terminal"] != 0]
    assert viewer.ask("subscribe_session", sessionId=session, terminal=1)["data"] == {"sessionId": session, "terminal": 1}
    runner.show(b", two", terminal=1)
    shows(viewer, session, 14, number=1)
    assert viewer.terminal(session, 1) == (0, b"shell one, two", [])
    assert viewer.terminal(session, 0) == (0, b"agent", [])
    only = view()
    only.follow(session, terminal=1)
    shows(only, session, 14, number=1)
    runner.show(b"!")
    only.sync()
    assert not [m for m in only.of("terminal") if m["terminal"] == 0]


def test_no_terminal_for_who_wants_none(running, view):
    session, runner = running
    with_it, without = view(), view()
    with_it.follow(session)
    without.follow(session, terminal=False)
    runner.show(b"bytes")
    shows(with_it, session, 5)
    without.sync()
    assert not without.of("terminal")


# --- input ---

def test_keys_arrive_in_order_with_who_typed_them(village, running, view):
    session, runner = running
    one, two = view(), view()
    for viewer in (one, two):
        viewer.refused("NOT_SUBSCRIBED", "terminal_input", sessionId=session, data="too early")
        viewer.send("subscribe_session", sessionId=session)
    for i in range(60):
        one.send("terminal_input", sessionId=session, data=f"a{i};")
    two.send("terminal", sessionId=session, action="input", data="alias\x03")
    two.send("terminal_input", sessionId=session, data="ls\n", terminal=2)
    one.send("terminal_resize", sessionId=session, cols=133, rows=43)
    got = []
    while len(got) < 62:
        got.append(runner.told("input"))
    assert "".join(m["data"] for m in got if m["data"].startswith("a") and m["terminal"] == 0 and ";" in m["data"]) == \
        "".join(f"a{i};" for i in range(60))
    assert {m["data"]: m["terminal"] for m in got}["alias\x03"] == 0
    assert {m["data"]: m["terminal"] for m in got}["ls\n"] == 2
    size = runner.told("resize")
    assert (size["cols"], size["rows"]) == (133, 43)
    for viewer in (one, two):
        viewer.sync()
        assert not [m for m in viewer.of("error") if m["code"] != "NOT_SUBSCRIBED"]
    for bad in ({"cols": 0, "rows": 1}, {"cols": 1}, {"cols": "80", "rows": 24}, {"cols": 80, "rows": 100000}):
        one.refused("INVALID_MESSAGE", "terminal_resize", sessionId=session, **bad)
    one.refused("INVALID_MESSAGE", "terminal_input", sessionId=session, data="x" * 65537)
    one.send("terminal_input", sessionId=session, data="x" * 65536)
    assert len(runner.told("input")["data"]) == 65536


def test_a_runner_that_is_gone_is_told(village, worker, view):
    session = village.create()["sessionId"]
    viewer = view()
    viewer.follow(session)
    reply = viewer.ask("terminal_input", sessionId=session, data="x")  # nobody runs it
    assert reply["type"] == "error" and reply["code"] in ("INVALID_STATE", "RUNNER_UNREACHABLE"), reply
    worker.start(session)


# --- slow readers (8.6) ---

class Slow:
    """A client that reads only when told, over a small receive buffer."""

    def __init__(self, server, token, session, **fields):
        import json
        self.sock, self.rest = worker_peers.handshake(server.port, PATH, token, receive_buffer=8192, timeout=60)
        self.sock.sendall(worker_peers.frame(worker_peers.TEXT, json.dumps(
            {"type": "subscribe_session", "messageId": "s", "sessionId": session, **fields}).encode()))

    def read_all(self, until, timeout=60):
        """Messages up to the one that `until` accepts."""
        import json
        out, data, end = [], bytearray(self.rest), time.monotonic() + timeout

        def need(n):
            while len(data) < n:
                assert time.monotonic() < end, "no end"
                piece = self.sock.recv(1 << 20)
                assert piece, ("closed", out[-1:])
                data.extend(piece)
        while True:
            need(2)
            op, n, at = data[0] & 15, data[1] & 127, 2
            if n == 126:
                need(4)
                n, at = struct.unpack(">H", data[2:4])[0], 4
            elif n == 127:
                need(10)
                n, at = struct.unpack(">Q", data[2:10])[0], 10
            need(at + n)
            payload = bytes(data[at:at + n])
            del data[:at + n]
            if op == worker_peers.CLOSE:
                raise worker_peers.Gone(struct.unpack(">H", payload[:2])[0])
            if op == worker_peers.TEXT:
                out.append(json.loads(payload))
                if until(out[-1]):
                    self.rest = bytes(data)
                    return out


def acked(runner):
    return max((f["offset"] for f in runner.worker.frames_of(runner.task["execution_id"])
                if f["type"] == "terminal-ack"), default=0)


def flood(runner, size, start=0):
    """As fast as the window lets; numbered lines."""
    block, at = 32768, start
    while at < start + size:
        while at - acked(runner) > 448 << 10:
            time.sleep(0.002)
        runner.show((b"%07d\n" * (block // 8)) % tuple(i % 10**7 for i in range(at // 8, (at + block) // 8)))
        at += block
    return at


def test_a_slow_reader_loses_terminal_bytes_only_and_nobody_waits_for_it(oz, tenant, village, running, view):
    session, runner = running
    fast = view()
    fast.follow(session, sinceSeq=0)
    slow = Slow(oz, tenant.token, session, sinceSeq=0)
    slow.read_all(lambda m: m["type"] == "event" and m["event"] == "subscribed")
    size = 0
    start = time.monotonic()
    for i in range(8):
        size = flood(runner, 2 << 20, size)
        runner.marks(i * 10, 10)
    approval = runner.ask("Still there?")
    took = time.monotonic() - start
    fast.expect("approval_required", timeout=40)
    shows(fast, session, size)
    first, shown, gaps = fast.terminal(session)
    assert not gaps and len(shown) == size - first
    # Now it reads: every event is there, the terminal has gaps that are named.
    seen = slow.read_all(lambda m: m["type"] == "approval_required")
    last = last_seq(village, session)
    fast_seqs = fast.seqs(session)
    runner.show(b"the end")
    seen += slow.read_all(lambda m: m["type"] == "terminal" and m["data"].endswith("the end"))
    seqs = []
    for m in seen:
        if m["type"] == "session" and "seq" in m and (not seqs or seqs[-1] != m["seq"]):
            seqs.append(m["seq"])
    assert seqs[0] == 1 and seqs == list(range(1, seqs[-1] + 1)) and set(fast_seqs) <= set(seqs)
    assert [m["approval"]["approvalId"] for m in seen if m["type"] == "approval_required"] == [approval]
    at, lost = None, 0
    for m in (m for m in seen if m["type"] == "terminal"):
        if at is not None and m["offset"] != at:
            assert m["gap"] == {"from": at, "to": m["offset"]}
            lost += m["offset"] - at
        else:
            assert "gap" not in m
        at = m["offset"] + len(m["data"])
    assert lost > 0, "the reader was not slow enough to lose anything"
    assert took < 60
    slow.sock.close()


def test_a_reader_that_takes_nothing_is_cut_and_its_memory_is_bounded(postgres):
    with harness.serving({"OZ_WS_SEND_BUFFER_HARD_BYTES": "1048576"}, postgres=postgres, name="hard") as server, \
            LiveWorker(server) as worker, server.client("hard-" + secrets.token_hex(8)) as client:
        village = Village(client)
        session = village.create()["sessionId"]
        runner = worker.start(session)
        slow = Slow(server, client.token, session)
        slow.read_all(lambda m: m["type"] == "event" and m["event"] == "subscribed")
        flood(runner, 4 << 20)
        for i in range(60):  # control messages alone: 15 KiB each, never dropped, so in the end it is cut
            runner.events(*[("FILE_TOUCHED", {"path": "x" * 15000, "reason": "write"}) for _ in range(16)])
            runner.stored()
        end = time.monotonic() + 40
        while float(next(line.split()[1] for line in server.client(server.admin_key).get("/metrics").text.splitlines()
                         if line.startswith("muster_ws_clients "))):
            assert time.monotonic() < end
            time.sleep(0.1)
        slow.sock.close()


def test_acknowledgements_hold_the_server_back(oz, tenant, running):
    import json
    session, runner = running
    slow = Slow(oz, tenant.token, session)
    slow.read_all(lambda m: m["type"] == "event" and m["event"] == "subscribed")
    runner.show(b"begin\n")
    slow.read_all(lambda m: m["type"] == "terminal")

    def ack(offset):
        slow.sock.sendall(worker_peers.frame(worker_peers.TEXT, json.dumps(
            {"type": "ack", "sessionId": session, "terminalOffset": offset}).encode()))
    ack(6)
    slow.sock.sendall(worker_peers.frame(worker_peers.TEXT, b'{"type":"ping","messageId":"p"}'))
    slow.read_all(lambda m: m["type"] == "pong")
    size = flood(runner, 4 << 20, 8192)  # (the six bytes make a hole in the numbering, not in the offsets)
    approval = runner.ask()
    seen = slow.read_all(lambda m: m["type"] == "approval_required")
    assert seen[-1]["approval"]["approvalId"] == approval
    slow.sock.settimeout(1.0)
    more = []
    with pytest.raises((TimeoutError, socket.timeout)):
        while True:
            more += slow.read_all(lambda m: m["type"] == "terminal")
    got = [m for m in seen + more if m["type"] == "terminal"]
    ahead = got[-1]["offset"] + len(got[-1]["data"]) - 6
    assert (512 << 10) <= ahead + got[-1].get("gap", {"to": 0})["to"] and sum(len(m["data"]) for m in got) <= (512 << 10) + 32768
    slow.sock.settimeout(60)
    ack(got[-1]["offset"] + len(got[-1]["data"]))
    assert slow.read_all(lambda m: m["type"] == "terminal")[-1]["offset"] > got[-1]["offset"]
    slow.sock.close()


def test_many_sessions_on_one_connection(village, worker, view):
    sessions = [village.create()["sessionId"] for _ in range(20)]
    runners = {s: worker.start(s) for s in sessions}
    viewer = view()
    for s in sessions:
        viewer.send("subscribe_session", sessionId=s, sinceSeq=0)
    for s in sessions:
        runners[s].show(s.encode())
        runners[s].marks(0, 20)
    for s in sessions:
        viewer.wait(lambda: len([m for m in viewer.of("session", action="event", sessionId=s)
                                 if m["data"]["eventType"] == "FILE_TOUCHED"]) == 20, 40)
        shows(viewer, s, len(s))
        assert viewer.terminal(s)[1] == s.encode()
        seqs = viewer.seqs(s)
        assert seqs == list(range(1, seqs[-1] + 1))


def at_random(rng):
    """A message about a session, sensible or not: (type, members)."""
    kinds = {"subscribe_session": {"sinceSeq": rng.choice((0, 1, 50, 10**6)), "binary": rng.random() < 0.3,
                                   "terminal": rng.choice((True, False, 0, 1, 7)),
                                   "terminalOffset": rng.choice((0, 1000, 10**7))},
             "subscribe": {}, "unsubscribe_session": {}, "terminal_input": {"data": "x" * rng.choice((1, 60000))},
             "ack": {"terminalOffset": rng.choice((0, 10**6))}, "terminal_resize": {"cols": 80, "rows": 24},
             "resolve_approval": {"approvalId": "apr_x", "decision": "deny"}}
    kind = rng.choice(("subscribe_session", *kinds))
    return kind, kinds[kind]


def play(oz, token, sessions, over, seed):
    rng = random.Random(seed)
    while not over.is_set():
        viewer = Viewer(oz, token)
        for _ in range(rng.randrange(40)):
            kind, fields = at_random(rng)
            viewer.send(kind, sessionId=rng.choice(sessions), **fields)
            if rng.random() < 0.2:
                time.sleep(rng.random() * 0.05)
        if rng.random() < 0.5:
            viewer.ws.socket.shutdown(socket.SHUT_RDWR)
        viewer.close()


def work_hard(runner, over):
    size = n = 0
    while not over.is_set():
        size = flood(runner, 65536, size)
        runner.marks(n, 10)
        n += 10
        runner.stream("word ", n)
        if n % 200 == 0:
            runner.stored()


def test_nothing_a_client_does_at_once_harms(oz, tenant, village, worker, view):
    """Clients that subscribe, leave, come back, type and vanish at random while sessions run at full speed; one that just
    watches sees everything."""
    runners, over, problems = {}, threading.Event(), []
    for _ in range(4):
        session = village.create()["sessionId"]
        runners[session] = worker.start(session)
    watcher = view()
    for session in runners:
        watcher.follow(session, sinceSeq=0, terminal=False)

    def noting(fn, *args):
        try:
            fn(*args)
        except Exception as e:
            problems.append(repr(e))
    threads = [threading.Thread(target=noting, args=(work_hard, r, over)) for r in runners.values()] + \
        [threading.Thread(target=noting, args=(play, oz, tenant.token, list(runners), over, n)) for n in range(4)]
    for t in threads:
        t.start()
    time.sleep(8)
    over.set()
    for t in threads:
        t.join(60)
    assert not problems, problems
    for session, runner in runners.items():
        runner.stored()
        last = last_seq(village, session)
        caught_up(watcher, session, last)
        assert watcher.seqs(session) == list(range(1, last + 1))


@pytest.mark.parametrize("since", [0, None], ids=["from the beginning", "from now on"])
@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
def test_who_comes_after_the_end_gets_everything_and_completed_last(village, running, view, since, binary):
    session, runner = running
    shown = os.urandom(300_000)
    runner.show(shown)
    runner.show(b"another", terminal=1)
    runner.marks(0, 500)
    runner.report("complete", turnId="t", outcome="done")
    runner.stored()
    runner.end()
    wait_ended = village.get(session)
    while wait_ended["state"] != "COMPLETED":
        time.sleep(0.05)
        wait_ended = village.get(session)
    viewer = view()
    viewer.follow(session, terminalOffset=0, binary=binary, **({} if since is None else {"sinceSeq": since}))
    done = viewer.expect("session", action="completed", timeout=40)
    assert done["data"]["finalState"] == "COMPLETED"
    viewer.sync()
    at = next(i for i, m in enumerate(viewer.messages) if m.get("action") == "completed")
    later = [m for m in viewer.messages[at + 1:] if m["type"] != "pong"]
    assert not later, later
    if binary:
        assert b"".join(m["bytes"] for m in viewer.of("binary")) == shown
    else:
        first, seen, gaps = viewer.terminal(session)
        assert (first, gaps) == (0, []) and seen == shown
    if since == 0:
        assert viewer.seqs(session) == list(range(1, done["seq"] + 1))
    assert len(viewer.of("session", action="completed")) == 1


def test_completed_waits_for_the_terminals_of_a_slow_reader(village, running, view):
    session, runner = running
    viewer = view(reading=False)
    viewer.may_read.set()
    viewer.follow(session, sinceSeq=0, binary=True)
    viewer.may_read.clear()
    shown = os.urandom(3_000_000)
    runner.show(shown)
    runner.report("complete", turnId="t", outcome="done")
    runner.stored()
    runner.end()
    time.sleep(2)
    viewer.may_read.set()
    viewer.expect("session", action="completed", timeout=60)
    viewer.sync()
    kinds = ["completed" if m.get("action") == "completed" else m["type"] for m in viewer.messages]
    assert "binary" not in kinds[kinds.index("completed"):]
    last = viewer.of("binary")[-1]
    assert last["offset"] + len(last["bytes"]) == len(shown)
