"""The worker endpoint against scripted workers of all three dialects: every server check of oz-worker.md 18, named by its
number, then workers that lie, vanish, drown the server or come back."""
import concurrent.futures
import contextlib
import random
import re
import secrets
import struct
import threading
import time

import pytest
from harness import assert_error, assert_run, eventually, ok
from worker_peers import PATH, PING, TEXT, Native, Refused, V, W, frame, go_json, handshake

SIDECAR = "registry.test/sidecar:1"
GRACE = 6000
FLEET = {"OZ_WORKER_SIDECAR_IMAGE": SIDECAR, "OZ_WORKER_RECONNECT_GRACE_MS": str(GRACE),
         "OZ_WORKER_CLAIM_TIMEOUT_MS": "10000"}
DIALECTS = (V, W, Native)
PR = "https://github.com/o/r/pull/7"


@pytest.fixture(scope="module")
def fleet_server(postgres):
    from harness import Server
    server = Server(FLEET, postgres=postgres, name="fleet").start()
    yield server
    try:
        server.stop()
    finally:
        server.remove()


@pytest.fixture
def oz(fleet_server):
    fleet_server.assert_alive()
    yield fleet_server
    fleet_server.assert_alive()


@pytest.fixture
def client(oz):
    with oz.client("tenant-" + secrets.token_hex(12)) as c:
        yield c


def make(client, peer=None, prompt="do it", **config):
    """A run for one worker; its id. Without a worker: for any."""
    if peer is not None:
        config.setdefault("worker_host", peer.worker_id)
    return client.create(prompt, config={"environment_id": "debian:12", **config})["run_id"]


def begin(client, peer, **config):
    """A run that the worker has claimed; its assignment."""
    task = peer.assigned(make(client, peer, **config))
    peer.claim(task)
    client.wait(task["task_id"], "INPROGRESS")
    return task


def metric(server, name):
    text = server.client().get("/metrics").text
    return sum(float(m[1]) for m in re.finditer(rf"^{name}(?:{{[^}}]*}})? ([0-9.e+]+)$", text, re.M))


def workers(server):
    return {w["id"]: w for w in ok(server.client().api("GET", "/workers"))["workers"]}


def memory(server, field="VmRSS"):
    for line in open(f"/proc/{server.pid}/status"):
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise AssertionError(field)


def settled(peer):
    """The server has dealt with everything that the peer sent."""
    peer.ping_pong(b"settled")
    time.sleep(0.1)


# --- (4) begins now: it takes 85 s of silence, during which the others run ---

@pytest.fixture(scope="module", autouse=True)
def silent(fleet_server):
    peer = V(fleet_server, "silent-" + secrets.token_hex(4), pongs=False)
    peer.since = time.monotonic()
    yield peer
    peer.close()


@pytest.fixture(scope="module", autouse=True)
def pinging(fleet_server):
    """Says nothing but a ping without payload every 30 s, as V and W do."""
    peer = W(fleet_server, "pinging-" + secrets.token_hex(4))
    peer.since, over = time.monotonic(), threading.Event()

    def loop():
        while not over.wait(30):
            with contextlib.suppress(OSError):
                peer.ping()
                peer.sent_pings = getattr(peer, "sent_pings", 0) + 1
    threading.Thread(target=loop, daemon=True).start()
    yield peer
    over.set()
    peer.close()


# --- (1) fragments ---

@pytest.mark.parametrize("kind", DIALECTS)
def test_1_message_in_4096_byte_fragments_with_a_ping_in_between(oz, client, kind):
    output = "line <&> \u2028 ü " * 3000
    with kind(oz) as peer:
        task = begin(client, peer)
        if kind is W:
            peer.fail(task, output, "container_exit", 3, between=2)
        else:
            peer.complete(task, output=output, between=2)
        peer.wait(lambda: b"" in peer.pongs_seen, what="the pong of the ping between the fragments")
        run = client.wait(task["task_id"])
        if kind is W:
            assert run["state"] == "FAILED" and run["error"]["message"] == output[:len(run["error"]["message"])]
            assert len(run["error"]["message"]) > 4096
        else:
            assert run["state"] == "SUCCEEDED" and run["output"] == output
        assert peer.open


def test_1_fragments_of_one_byte_and_empty_ones(oz, client):
    with V(oz) as peer:
        task = peer.assigned(make(client, peer))
        peer.claim(task, size=1)
        client.wait(task["task_id"], "INPROGRESS")
        text = go_json({"type": "task_completed", "data": {"task_id": task["task_id"], "worker_id": peer.worker_id,
                                                           "exit_code": 0, "output": "a <b> ü 🙂"}}).encode()
        peer.send_frame(TEXT, b"", fin=False)
        for i in range(len(text)):
            peer.raw(frame(0, text[i:i + 1], fin=False) + (frame(PING, b"p%d" % i) if i % 50 == 0 else b""))
        peer.send_frame(0, b"")
        assert client.wait(task["task_id"], "SUCCEEDED")["output"] == "a <b> ü 🙂"


def test_1_binary_frames_and_trailing_newlines_are_json_too(oz, client):
    with V(oz) as peer:
        task = peer.assigned(make(client, peer))
        peer.claim(task, op=2)
        client.wait(task["task_id"], "INPROGRESS")
        peer.send_text(go_json({"type": "task_completed", "data": {
            "task_id": task["task_id"], "worker_id": peer.worker_id, "exit_code": 0, "output": "x" * 9000}}) + "\n")
        assert client.wait(task["task_id"], "SUCCEEDED")["output"] == "x" * 9000


# --- (2) big output ---

def test_2_five_mebibytes_of_output_with_zero_bytes(oz, client):
    block = "\0\x01 text <&> " + "y" * 1000
    output = block * (5 * 1024 * 1024 // len(block) + 1)
    with V(oz) as peer:
        task = begin(client, peer)
        peer.complete(task, output=output, between=700)
        run = client.wait(task["task_id"], "SUCCEEDED", timeout=60)
        kept = client.get(f"/api/v1/agent/runs/{task['task_id']}/files/output")
        assert kept.status_code == 200 and kept.content == output.encode()
        assert run["output"] == output and not run.get("output_truncated")
        assert peer.open


def test_2_more_than_eight_mebibytes_keep_their_beginning_and_end(oz, client):
    output = "".join(f"{i:011d}\n" for i in range(1024 * 1024))  # 12 MiB
    with V(oz) as peer:
        task = begin(client, peer)
        peer.complete(task, output=output, size=1 << 20)
        run = client.wait(task["task_id"], "SUCCEEDED", timeout=60)
        assert run["output_truncated"] is True
        kept = client.get(f"/api/v1/agent/runs/{task['task_id']}/files/output").content
        assert len(kept) <= (8 << 20) + 200
        assert kept[:1 << 19] == output[:1 << 19].encode() and kept[-(6 << 20):] == output[-(6 << 20):].encode()


# --- (5) refusals ---

def refusal(server, status, code=None, path=PATH + "?worker_id=refused", key=None, **options):
    with pytest.raises(Refused) as e:
        handshake(server.port, path, server.admin_key if key is None else key, timeout=20, **options)
    r = e.value
    assert r.status == status, (r.status, r.headers, r.body)
    if options.get("method") != "HEAD":
        assert int(r.headers["content-length"]) == len(r.body)
    return r


def test_5_refusals_of_the_handshake(oz):
    tenant = "tenant-" + secrets.token_hex(12)
    r = refusal(oz, 401, drop=("Authorization",))
    assert b"Unauthorized" in r.body and r.headers["connection"].lower() == "close"
    refusal(oz, 401, authorization="Basic abc")
    refusal(oz, 401, authorization="Bearer ")
    refusal(oz, 403, key=tenant)
    refusal(oz, 405, method="POST", content_length="0")
    refusal(oz, 400, sec_websocket_key="short")
    refusal(oz, 400, drop=("Sec-WebSocket-Key",))
    assert refusal(oz, 400, sec_websocket_version="12").headers["sec-websocket-version"] == "13"
    assert refusal(oz, 426, drop=("Upgrade", "Connection")).status == 426
    refusal(oz, 400, upgrade="h2c")
    for path in (PATH + "/", "/ws", "/api/v1/agent/runs", "/"):
        with pytest.raises(Refused) as e:
            handshake(oz.port, path, oz.admin_key, timeout=20)
        assert e.value.status == 404 or path == "/api/v1/agent/runs", (path, e.value)
    oz.assert_alive()


def test_5_bearer_word_in_any_case_and_lost_blanks(oz):
    for value in (f"bearer {oz.admin_key}", f"BEARER   {oz.admin_key}  "):
        sock, _ = handshake(oz.port, PATH, oz.admin_key, authorization=value)
        sock.close()


def test_5_worker_key_opens_its_own_id_only(make_server):
    import hashlib
    key = "worker-secret-" + secrets.token_hex(8)
    server = make_server(FLEET | {"OZ_WORKER_KEYS": f"w1={hashlib.sha256(key.encode()).hexdigest()}"})
    with V(server, "w1", key=key) as peer:
        peer.ping_pong()
        with pytest.raises(Refused) as e:
            V(server, "w2", key=key)
        assert e.value.status == 403
        with server.client(key) as c:
            assert c.api("GET", "/agent/runs").status_code == 403
            assert c.api("GET", "/workers").status_code == 403


def test_5_while_it_shuts_down_503_or_nothing(make_server):
    server = make_server(FLEET)
    peer = V(server)
    server.signal(15)
    assert peer.wait_closed() == 1001 and peer.close_reason == "Server shutting down"
    with pytest.raises((Refused, OSError)) as e:
        V(server)
    assert not isinstance(e.value, Refused) or e.value.status == 503 and "retry-after" in e.value.headers
    server.wait_exit()


# --- (6) the transcripts of section 6 ---

def transcript(client, kind, server):
    """Success, failure, and cancel as section 6 draws them: the states that REST shows."""
    seen = []
    with kind(server) as peer:
        run_id = make(client, peer)
        task = peer.assigned(run_id)
        states = [client.run(run_id)["state"]]
        peer.claim(task)
        states.append(client.wait(run_id, "INPROGRESS")["state"])
        peer.complete(task)
        run = assert_run(client.wait(run_id))
        seen.append(states + [run["state"], bool(run["started_at"]), bool(run["completed_at"]), run["worker_id"] == peer.worker_id])
        task = begin(client, peer)
        peer.fail(task, "it broke")
        run = assert_run(client.wait(task["task_id"]))
        seen.append([run["state"], run["error"]["message"], run["status_message"]["message"]])
        task = begin(client, peer)
        assert client.cancel(task["task_id"]).json() == task["task_id"]
        first = client.run(task["task_id"])
        peer.expect(peer.cancel_type, task_id=task["task_id"])
        peer.confirm_cancel(task)
        settled(peer)
        run = assert_run(client.wait(task["task_id"]))
        seen.append([first["state"], run["state"], run["completed_at"] == first["completed_at"]])
    return seen


def test_6_v_w_and_native_transcripts_give_identical_rest_states(oz, client):
    v, w, native = (transcript(client, kind, oz) for kind in DIALECTS)
    assert v[0] == ["CLAIMED", "INPROGRESS", "SUCCEEDED", True, True, True]
    assert v[1] == ["FAILED", "it broke", "it broke"]
    assert v[2] == ["CANCELLED", "CANCELLED", True]
    assert v == w == native


def test_6_rejected_and_placed_elsewhere(make_server):
    server = make_server(FLEET)
    client = server.client()
    with W(server, "a") as a:
        run_id = make(client)
        first = a.assigned(run_id)
        a.reject(first)
        eventually(lambda: client.run(run_id)["state"] == "PENDING", 20, "back to PENDING")
        eventually(lambda: workers(server)["a"]["saturated"], 20, "a is known as full")
        with V(server, "b") as b:
            second = b.assigned(run_id)
            assert second["execution_id"] != first["execution_id"]
            assert second["env_vars"]["OZ_RUN_TOKEN"] != first["env_vars"]["OZ_RUN_TOKEN"]
            b.claim(second)
            b.complete(second, output="done by b")
            run = client.wait(run_id, "SUCCEEDED")
            assert run["worker_id"] == "b" and run["output"] == "done by b"
    assert a.order(run_id).count("task_assignment") == 1


# --- (7) what a completion means ---

@pytest.mark.parametrize("kind", (V, Native))
def test_7_meaning_of_a_completion(oz, client, kind):
    def end(**data):
        with kind(oz) as peer:
            task = begin(client, peer)
            ids = {"task_id": task["task_id"]} if kind is V else peer.ids(task)
            peer.send("task_completed", {**ids, **data})
            return client.wait(task["task_id"])
    run = end()
    assert run["state"] == "SUCCEEDED" and run["error"] is None and run["exit_code"] is None
    run = end(exit_code=0, output="fine")
    assert run["state"] == "SUCCEEDED" and run["status_message"]["message"] == "fine" and run["exit_code"] == 0
    run = end(message="Task cancelled", task_state="CANCELLED")
    assert run["state"] == "CANCELLED"
    run = end(exit_code=3, task_state="CANCELLED")
    assert run["state"] == "CANCELLED", "task_state is looked at before anything else"
    run = end(exit_code=3, output="what it said")
    assert run["state"] == "FAILED" and run["error"]["message"] == "Worker exit code 3" and run["exit_code"] == 3
    assert run["output"] == "what it said"
    run = end(exit_code=-1)
    assert run["state"] == "FAILED" and run["error"]["message"] == "Worker exit code -1"


def test_7_failures(oz, client):
    with W(oz) as peer:
        task = begin(client, peer)
        peer.fail(task, "out of memory", "container_oom", 137)
        run = client.wait(task["task_id"], "FAILED")
        assert run["error"]["message"] == "out of memory" and run["exit_code"] == 137
        task = begin(client, peer)
        peer.send("task_failed", {"task_id": task["task_id"]})
        assert client.wait(task["task_id"], "FAILED")["error"]["message"] == "Task failed"
        task = begin(client, peer)
        peer.fail(task, "odd", "a_reason_of_the_future")
        assert client.wait(task["task_id"], "FAILED")["error"]["message"] == "odd"
    with V(oz) as peer:
        task = begin(client, peer)
        peer.fail(task, "pull failed", output="kept output " + PR)
        run = client.wait(task["task_id"], "FAILED")
        assert run["output"].startswith("kept output") and run["error"]["message"] == "pull failed"


def test_7_completion_without_a_claim_and_a_claim_after_it(oz, client):
    with V(oz) as peer:
        task = peer.assigned(make(client, peer))
        peer.complete(task, output="tiny")
        assert client.wait(task["task_id"], "SUCCEEDED")["output"] == "tiny"
        peer.claim(task)
        settled(peer)
        assert client.run(task["task_id"])["state"] == "SUCCEEDED"


def test_7_artifacts_links_and_raw_log_headers(oz, client):
    with V(oz) as peer:
        task = begin(client, peer)
        peer.complete(task, output=f"see {PR} and {PR} and {PR}1", session_link="https://x.test/s/1")
        run = client.wait(task["task_id"], "SUCCEEDED")
        assert [a["data"]["url"] for a in run["artifacts"]] == [PR, PR + "1"] and run["session_link"] == "https://x.test/s/1"
        task = begin(client, peer)
        peer.complete(task, artifacts=[{"artifact_type": "PULL_REQUEST", "created_at": "2026-01-31T12:00:00Z",
                                        "data": {"url": PR, "branch": "fix"}}], output=PR + "9")
        run = client.wait(task["task_id"], "SUCCEEDED")
        assert run["artifacts"] == [{"artifact_type": "PULL_REQUEST", "created_at": "2026-01-31T12:00:00.000Z",
                                     "data": {"url": PR, "branch": "fix"}}]
        task = begin(client, peer)
        peer.complete(task, artifacts="no array", session_link=7, output="x")
        run = client.wait(task["task_id"], "SUCCEEDED")
        assert run["artifacts"] == [] and run["session_link"] is None
        task = begin(client, peer)
        raw = b"".join(struct.pack(">BxxxI", 1 + i % 2, len(t)) + t for i, t in enumerate((b"one\n", b"two\n", b"x" * 200)))
        peer.complete(task, output=raw)
        assert client.wait(task["task_id"], "SUCCEEDED")["output"] == "one\ntwo\n" + "x" * 200


# --- (8) the second connection ---

@pytest.mark.parametrize("kind", DIALECTS)
def test_8_completion_delivered_on_a_second_connection(oz, client, kind):
    with kind(oz) as peer:
        task = begin(client, peer)
        peer.abort()
        time.sleep(0.5)
        assert client.run(task["task_id"])["state"] == "INPROGRESS"
        peer.reconnect()
        settled(peer)
        assert client.run(task["task_id"])["state"] == "INPROGRESS"
        peer.complete(task, **({} if kind is W else {"output": "late"}))
        run = client.wait(task["task_id"], "SUCCEEDED")
        assert kind is W or run["output"] == "late"
        assert peer.order(task["task_id"]).count("task_assignment") == 1


def test_8_claim_lost_with_the_connection_is_confirmed_after_the_reconnect(oz, client):
    with V(oz) as peer:
        task = peer.assigned(make(client, peer))
        peer.abort()
        time.sleep(0.5)
        assert client.run(task["task_id"])["state"] == "CLAIMED", "it may be running"
        peer.reconnect()
        peer.claim(task)  # the queued one
        client.wait(task["task_id"], "INPROGRESS")
        peer.complete(task)
        client.wait(task["task_id"], "SUCCEEDED")
        assert peer.order(task["task_id"]) == ["task_assignment"]


def test_8_a_claim_that_does_not_come_after_the_reconnect_puts_it_back(oz, client):
    with V(oz) as peer, V(oz) as another:
        run_id = make(client, peer)
        task = peer.assigned(run_id)
        peer.abort()
        peer.reconnect()
        eventually(lambda: client.run(run_id)["state"] == "PENDING", 30, "PENDING again")
        peer.expect(peer.cancel_type, task_id=run_id)
        assert peer.order(run_id).count("task_assignment") == 1, "not while that worker may still run it"
        peer.fail(task, "context canceled")  # it says that it has stopped
        peer.close()
        peer.reconnect()  # never back to the connection that did not confirm it
        second = peer.assigned(run_id, timeout=60)
        assert second["execution_id"] != task["execution_id"]
        peer.claim(second)
        peer.complete(second)
        client.wait(run_id, "SUCCEEDED")
        assert not another.of("task_assignment")


# --- (9) two with one id ---

@pytest.mark.parametrize("kind", (V, Native))
def test_9_duplicate_of_a_live_worker_is_refused(oz, client, kind):
    with kind(oz) as peer:
        task = begin(client, peer)
        conflicts = workers(oz)[peer.worker_id]["conflicts"]
        with pytest.raises(Refused) as e:
            kind(oz, peer.worker_id)
        assert e.value.status == 429 and e.value.headers["retry-after"] == "15"
        peer.ping_pong()
        assert workers(oz)[peer.worker_id]["conflicts"] == conflicts + 1
        peer.complete(task)
        client.wait(task["task_id"], "SUCCEEDED")


def test_9_duplicate_of_a_dead_worker_takes_over_its_runs(oz, client):
    dead = V(oz, pongs=False)
    task = begin(client, dead)
    began = time.monotonic()
    with V(oz, dead.worker_id) as peer:
        assert 3 < time.monotonic() - began < 40
        assert dead.wait_closed() in (1001, None)
        peer.complete(task, output="of the second")
        assert client.wait(task["task_id"], "SUCCEEDED")["output"] == "of the second"
        assert not peer.of("task_assignment")


def test_9_same_native_instance_replaces_itself_at_once(oz, client):
    first = Native(oz)
    task = begin(client, first)
    second = Native(oz, first.worker_id, instance=first.instance, hello=False, connect=False)
    second.running, second.seq, second.says_hello = first.running, first.seq, True
    began = time.monotonic()
    second.connect()
    assert time.monotonic() - began < 4.5, "no probe"
    assert first.wait_closed() == 4410
    assert second.welcome["keep"] == [task["execution_id"]]
    second.complete(task)
    client.wait(task["task_id"], "SUCCEEDED")
    second.close()


def test_9_stranger_that_waits_does_not_drive_out_an_instance_that_came_back(oz):
    """The probe went to the old connection, whose silence says nothing about the new one."""
    old = Native(oz, pongs=False)
    old.ping_pong()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        stranger = pool.submit(Native, oz, old.worker_id)
        time.sleep(1)  # it waits for the probe's answer, up to 5 s
        with Native(oz, old.worker_id, instance=old.instance) as back:
            assert old.wait_closed() == 4410
            with pytest.raises(Refused) as e:
                stranger.result(30)
            assert e.value.status == 429
            time.sleep(8)
            back.ping_pong()
            assert back.open and workers(oz)[back.worker_id]["connected"]


def test_9_ten_at_once_leave_one(oz):
    name = "crowd-" + secrets.token_hex(4)
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        def one(_):
            try:
                return V(oz, name)
            except Refused as e:
                assert e.status == 429, e
                return None
        peers = [p for p in pool.map(one, range(10)) if p]
    assert len(peers) == 1 and peers[0].open
    peers[0].close()


def test_9_workers_without_a_name_are_no_duplicates(oz):
    socks = [handshake(oz.port, PATH + query, oz.admin_key)[0] for query in ("", "?worker_id=", "?worker_id=%20")]
    names = [n for n in eventually(lambda: len([n for n, w in workers(oz).items() if re.fullmatch(
        r"worker_[0-9a-f-]{36}", n) and w["connected"]]) >= 3 and workers(oz), 20, "three of them") if n.startswith("worker_")]
    assert len(set(names)) >= 3
    for s in socks:
        s.close()


# --- (10) what is not theirs ---

@pytest.mark.parametrize("kind", DIALECTS)
def test_10_messages_about_foreign_and_unknown_tasks_are_ignored_and_counted(oz, client, kind):
    with kind(oz) as peer, V(oz) as thief, Native(oz) as native_thief:
        task = begin(client, peer)
        waiting = make(client, peer=None, worker_host="nobody-" + secrets.token_hex(4))
        before = metric(oz, "oz_worker_reports_ignored_total")
        thief.complete(task, output="stolen")
        thief.fail(task, "stolen")
        thief.complete({"task_id": waiting}, output="stolen")
        thief.claim({"task_id": waiting})
        thief.complete({"task_id": "run_00000000-0000-4000-8000-000000000000"})
        for epoch in (0, 1, 2, 99):
            native_thief.complete({**task, "epoch": epoch, "execution_id": task["execution_id"]}, output="stolen")
        settled(thief)
        settled(native_thief)
        assert client.run(task["task_id"])["state"] == "INPROGRESS"
        assert client.run(waiting)["state"] == "PENDING"
        assert metric(oz, "oz_worker_reports_ignored_total") >= before + 9
        peer.complete(task)
        client.wait(task["task_id"], "SUCCEEDED")
        client.cancel(waiting)


@pytest.mark.parametrize("kind", DIALECTS)
def test_10_terminal_runs_never_change(oz, client, kind):
    with kind(oz) as peer:
        task = begin(client, peer)
        peer.complete(task)
        first = client.wait(task["task_id"], "SUCCEEDED")
        peer.complete(task)
        peer.fail(task, "too late")
        peer.claim(task)
        settled(peer)
        run = client.run(task["task_id"])
        assert {k: v for k, v in run.items() if k != "request_id"} == {k: v for k, v in first.items() if k != "request_id"}
        assert client.cancel(task["task_id"]).status_code == 200
        assert client.run(task["task_id"])["state"] == "SUCCEEDED"


def test_10_old_epochs_of_a_native_worker_are_ignored(oz, client):
    with Native(oz) as peer:
        task = peer.assigned(make(client, peer))
        for epoch in (task["epoch"] - 1, task["epoch"] + 1):
            peer.send("task_claimed", {**peer.ids(task), "epoch": epoch})
            peer.send("task_completed", {**peer.ids(task), "epoch": epoch, "exit_code": 0})
        other = "00000000-0000-4000-8000-000000000000"
        peer.send("task_completed", {**peer.ids(task), "execution_id": other, "exit_code": 0})
        settled(peer)
        assert client.run(task["task_id"])["state"] == "CLAIMED"
        peer.claim(task)
        client.wait(task["task_id"], "INPROGRESS")
        peer.complete(task)
        client.wait(task["task_id"], "SUCCEEDED")
        peer.wait_acked()


# --- (11) cancel frames ---

def test_11_cancel_frame_of_each_dialect_and_both_when_unknown(oz, client):
    for kind, expected in ((V, ["task_cancel"]), (W, ["task_cancellation"]), (Native, ["task_cancel"])):
        with kind(oz) as peer:
            task = begin(client, peer)
            client.cancel(task["task_id"])
            assert client.run(task["task_id"])["state"] == "CANCELLED"
            if kind is not Native:  # nothing gave the dialect away yet: both, V's first
                peer.expect("task_cancellation", task_id=task["task_id"])
                assert peer.order(task["task_id"]) == ["task_assignment", "task_cancel", "task_cancellation"]
                assert peer.of("task_cancel", task["task_id"]) == [{"task_id": task["task_id"]}]
                assert peer.of("task_cancellation", task["task_id"]) == [{"task_id": task["task_id"]}]
            peer.expect("task_cancel", task_id=task["task_id"]) if kind is not W else None
            peer.confirm_cancel(task)
            task = begin(client, peer)
            peer.complete(task, **({} if kind is W else {"output": "shows the dialect"}))
            client.wait(task["task_id"], "SUCCEEDED")
            assert workers(oz)[peer.worker_id]["dialect"] == peer.dialect
            task = begin(client, peer)
            client.cancel(task["task_id"])
            peer.expect(expected[0], task_id=task["task_id"])
            settled(peer)
            assert peer.order(task["task_id"]) == ["task_assignment", *expected]
            peer.confirm_cancel(task)


def test_11_dialect_is_remembered_across_reconnects(oz, client):
    with W(oz) as peer:
        task = begin(client, peer)
        peer.fail(task, "m", "container_exit", 1)
        client.wait(task["task_id"], "FAILED")
        peer.abort()
        peer.reconnect()
        task = begin(client, peer)
        client.cancel(task["task_id"])
        peer.expect("task_cancellation", task_id=task["task_id"])
        settled(peer)
        assert peer.order(task["task_id"]) == ["task_assignment", "task_cancellation"]


def test_11_cancel_while_waiting_means_no_assignment_ever(oz, client):
    name = "later-" + secrets.token_hex(4)
    run_id = make(client, worker_host=name)
    client.cancel(run_id)
    with V(oz, name) as peer:
        peer.nothing("task_assignment", 1.0)
    assert client.run(run_id)["state"] == "CANCELLED"


@pytest.mark.parametrize("kind", DIALECTS)
def test_11_cancel_for_an_absent_worker_is_sent_when_it_returns(oz, client, kind):
    with kind(oz) as peer:
        task = begin(client, peer)
        peer.abort()
        client.cancel(task["task_id"])
        assert client.run(task["task_id"])["state"] == "CANCELLED"
        peer.reconnect()
        if kind is Native:  # not `stop`: nothing is ever heard of that again, and this one's end is waited for
            assert task["execution_id"] in peer.welcome["keep"] and peer.welcome["stop"] == []
        peer.expect(peer.cancel_type, task_id=task["task_id"])
        peer.confirm_cancel(task)
        eventually(lambda: workers(oz)[peer.worker_id]["in_flight"] == 0, 5, "its slot is free")
        settled(peer)
        assert client.run(task["task_id"])["state"] == "CANCELLED"


# --- (12) many runs ---

def busy_worker(server, name, stop, started, finished, limits, lock, kind):
    """Claims and completes what it gets; is cut off now and then, and comes back with what it ran."""
    rng = random.Random(name)
    peer = kind(server, name)
    done, live = set(), {}
    while not stop.is_set():
        with peer.changed:
            new = [m["data"] for i, m in enumerate(peer.messages)
                   if m["type"] == "task_assignment" and i not in peer.taken]
            for i, m in enumerate(peer.messages):
                if m["type"] == "task_assignment":
                    peer.taken.add(i)
            if not new and not live:
                peer.changed.wait(0.05)
        try:
            for task in new:
                live[task["task_id"]] = task
                with lock:
                    started.setdefault(task["task_id"], []).append((name, task["execution_id"]))
                    limits[name] = max(limits.get(name, 0), len(live))
                peer.claim(task)
            if live and rng.random() < 0.02:
                peer.abort()
                peer.reconnect(60)
                for task in live.values():  # V and W have their claims in the queue, the native one listed them
                    if kind is not Native:
                        peer.claim(task)
            for task in list(live.values()):
                peer.complete(task)
                del live[task["task_id"]]
                with lock:
                    finished.setdefault(task["task_id"], []).append(task["execution_id"])
        except OSError:
            if not peer.open and not stop.is_set():
                peer.reconnect(60)
    peer.close()
    return peer.errors, done


def test_12_a_thousand_runs_on_ten_workers_none_twice(make_server, request):
    total = 1000 if request.config.getoption("--long") else 300
    server = make_server(FLEET | {"OZ_WORKER_RECONNECT_GRACE_MS": "60000", "OZ_WORKER_DEFAULT_CAPACITY": "4"})
    client = server.client()
    stop, lock, started, finished, limits = threading.Event(), threading.Lock(), {}, {}, {}
    with concurrent.futures.ThreadPoolExecutor(18) as pool:
        peers = [pool.submit(busy_worker, server, f"w{i}", stop, started, finished, limits, lock, DIALECTS[i % 3])
                 for i in range(10)]
        try:
            ids = list(pool.map(lambda i: make(client, prompt=f"run {i}"), range(total)))
            end = time.monotonic() + 100
            while True:
                states = [client.run(i)["state"] for i in ids if i not in finished or random.random() < 0.02]
                if len(finished) >= total:
                    break
                assert time.monotonic() < end, (len(started), len(finished), sorted(set(states)))
                time.sleep(0.3)
            for i in ids:
                client.wait(i, "SUCCEEDED", timeout=30)
        finally:
            stop.set()
        for p in peers:
            errors, _ = p.result(30)
            assert not errors, errors[:3]
    twice = {k: v for k, v in started.items() if len({e for _, e in v}) > 1}
    assert not twice, twice
    assert all(len(v) == 1 for v in finished.values()), {k: v for k, v in finished.items() if len(v) > 1}
    assert all(len(v) == len(set(v)) for v in started.values()), "one execution was sent twice"
    # native workers announced 5, the others have the server's default
    assert all(n <= (5 if int(name[1:]) % 3 == 2 else 4) for name, n in limits.items()), limits
    assert len(limits) == 10, limits


# --- (13) kill -9 ---

def test_13_kill_and_restart_lose_no_accepted_end_of_native_workers(make_server):
    server = make_server(FLEET | {"OZ_WORKER_RECONNECT_GRACE_MS": "60000"})
    client = server.client()
    peer = Native(server, "n1", capacity=40)
    ids = [make(client) for _ in range(30)]
    tasks = []
    for _ in ids:
        task = peer.assigned()
        peer.claim(task)
        tasks.append(task)
    for task in tasks[:20]:
        peer.complete(task, output=f"of {task['task_id']}")
    peer.wait(lambda: len(peer.unacked) < 12, what="some acks")
    server.kill9()
    peer.wait_closed()
    kept = set(peer.unacked)
    for task in tasks[20:25]:  # ends while nobody is there
        peer.complete(task, output=f"of {task['task_id']}")
    server.start()
    client = server.client()
    peer.server = server
    peer.reconnect()
    peer.wait_acked(60)
    for task in tasks[:25]:
        run = client.wait(task["task_id"], "SUCCEEDED")
        assert run["output"] == f"of {task['task_id']}", (task["execution_id"] in kept, run)
    for task in tasks[25:]:
        assert client.run(task["task_id"])["state"] == "INPROGRESS"
        assert task["execution_id"] in peer.welcome["keep"]
        peer.complete(task)
        client.wait(task["task_id"], "SUCCEEDED")
    assert len(peer.of("task_assignment")) == 30
    peer.wait_acked()
    peer.close()
    peer.well()


@pytest.mark.parametrize("kind", (V, W))
def test_13_go_workers_are_adopted_after_a_kill(make_server, kind):
    server = make_server(FLEET | {"OZ_WORKER_RECONNECT_GRACE_MS": "60000"})
    client = server.client()
    peer = kind(server, "g1")
    running = begin(client, peer)
    peer.assigned(make(client, peer))  # its claim never comes through
    server.kill9()
    peer.wait_closed()
    server.start()
    client = server.client()
    assert client.run(running["task_id"])["state"] == "INPROGRESS"
    peer.reconnect()
    peer.complete(running)
    client.wait(running["task_id"], "SUCCEEDED")
    peer.close()


def test_13_kill_during_assignment_gives_every_run_to_one_worker(make_server):
    server = make_server(FLEET | {"OZ_WORKER_RECONNECT_GRACE_MS": "3000"})
    client = server.client()
    peer = Native(server, "n1", capacity=100)
    ids = [make(client) for _ in range(20)]
    peer.wait(lambda: len(peer.of("task_assignment")) >= 5, what="the first assignments")
    server.kill9()
    peer.wait_closed()
    # what came before the kill was not confirmed: the worker never began it, and says so
    server.start()
    client = server.client()
    peer.reconnect()
    seen = {}

    def all_done():
        for i, m in enumerate(peer.messages):
            if m["type"] == "task_assignment" and i not in peer.taken:
                peer.taken.add(i)
                seen[m["data"]["execution_id"]] = m["data"]
        for task in list(seen.values()):
            if task["execution_id"] not in done:
                done.add(task["execution_id"])
                if task["epoch"] >= client.run(task["task_id"]).get("attempt", 0):
                    peer.claim(task)
                    peer.complete(task)
        return all(client.run(i)["state"] == "SUCCEEDED" for i in ids)
    with peer.changed:  # forget what the dead server said
        peer.taken.update(i for i, m in enumerate(peer.messages) if m["type"] == "task_assignment" and not peer.connections > 1)
    done = set()
    eventually(all_done, 60, "all runs")
    peer.close()
    peer.well()


def test_13_graceful_restart_keeps_runs(make_server):
    server = make_server(FLEET | {"OZ_WORKER_RECONNECT_GRACE_MS": "60000"})
    client = server.client()
    peers = [kind(server, f"g-{kind.dialect}") for kind in DIALECTS]
    tasks = [begin(client, p) for p in peers]
    server.stop()
    for p in peers:
        assert p.wait_closed() == 1001 and p.close_reason == "Server shutting down"
    server.start()
    client = server.client()
    for p, task in zip(peers, tasks):
        assert client.run(task["task_id"])["state"] == "INPROGRESS"
        p.reconnect()
        p.complete(task)
        client.wait(task["task_id"], "SUCCEEDED")
        p.close()


# --- (14) assignments ---

def test_14_assignments_decode_strictly(oz, client):
    """check_assignment() runs on every assignment of every test; here on one that uses everything."""
    env = client.environment(name="e <&>", docker_image="img:1", repos=["o/a", "o/b"], setup_commands=["make a", "make b"],
                             env_vars={"A": "1", "MULTI": "x\ny", "U": "ü\u2028"})
    prompt = 'Say "hi" <&> \u2028 \x01 🙂'
    with W(oz) as peer:
        run_id = client.create(prompt, title="A title", config={
            "environment_id": env["id"], "worker_host": peer.worker_id, "model_id": "claude-test", "base_prompt": "base",
            "computer_use_enabled": False, "mcp_servers": {"m": {"command": "x", "args": ["1"], "n": 1.5}}})["run_id"]
        data = peer.assigned(run_id)
        assert data["docker_image"] == "img:1" and data["sidecar_image"] == SIDECAR
        task, env_vars = data["task"], data["env_vars"]
        assert task["title"] == "A title" and task["task_definition"]["prompt"] == prompt
        config = task["agent_config_snapshot"]
        assert config["environment_id"] == env["id"] and config["model_id"] == "claude-test"
        assert config["base_prompt"] == "base" and config["computer_use_enabled"] is False
        assert config["mcp_servers"] == {"m": {"command": "x", "args": ["1"], "n": 1.5}}
        assert env_vars["OZ_TASK_PROMPT"] == prompt
        assert env_vars["OZ_ENV_REPOS"] == "o/a\no/b" and env_vars["OZ_ENV_SETUP_COMMANDS"] == "make a\nmake b"
        lines = env_vars["OZ_ENV_VARS"].split("\n")
        assert "A=1" in lines and "y" not in lines, "a value with a newline would be cut"
        assert env_vars["OZ_HARNESS"] and env_vars["OZ_MODEL_ID"] == "claude-test"
        assert len({m["data"]["execution_id"][-8:] for m in peer.messages}) == len(peer.messages)
        peer.complete(data)
        client.wait(run_id, "SUCCEEDED")


def test_14_large_prompts_go_by_url(oz, client):
    with V(oz) as peer:
        for size, by_url in ((96 * 1024, False), (96 * 1024 + 1, True), (900_000, True)):
            prompt = ("ü" * (size // 2) + "x" * size)[:size - size // 2]
            data = peer.assigned(make(client, peer, prompt=prompt), timeout=60)
            assert len(prompt.encode()) == size
            assert ("OZ_TASK_PROMPT_URL" in data["env_vars"]) is by_url
            if by_url:
                url = data["env_vars"]["OZ_TASK_PROMPT_URL"]
                assert url == f"/api/v1/agent/runs/{data['task_id']}/prompt"
                with oz.client(data["env_vars"]["OZ_RUN_TOKEN"]) as runner:
                    assert runner.get(url).text == prompt
            peer.complete(data)
            client.wait(data["task_id"], "SUCCEEDED")


# --- liars ---

def test_garbage_is_dropped_and_the_connection_stays(oz, client):
    with V(oz) as peer:
        task = begin(client, peer)
        before = metric(oz, "oz_ws_protocol_errors_total")
        for junk in ("", "no json", "{", "[]", "7", '{"data":{}}', '{"type":7,"data":{}}', '{"type":null}',
                     '{"type":"task_completed"}', '{"type":"task_completed","data":null}',
                     '{"type":"task_completed","data":{"task_id":7}}', '{"type":"task_completed","data":{"task_id":""}}',
                     '{"type":"task_completed","data":{"task_id":"../../etc/passwd","exit_code":0}}',
                     '{"type":"no_such_type","data":{"task_id":"' + task["task_id"] + '"}}', '{"type":"heartbeat"}',
                     "[" * 5000, '{"type":"task_completed","data":' + '{"a":' * 3000 + "1" + "}" * 3001, "x" * 200_000,
                     '{"type":"heartbeat","data":{"unknown":[1,2,{"x":null}]}}'):
            peer.send_text(junk)
        settled(peer)
        assert peer.open and metric(oz, "oz_ws_protocol_errors_total") >= before + 10
        assert client.run(task["task_id"])["state"] == "INPROGRESS"
        peer.complete(task)
        client.wait(task["task_id"], "SUCCEEDED")


@pytest.mark.parametrize("what,code", [("unmasked", 1002), ("utf8", 1007), ("reserved", 1002), ("opcode", 1002),
                                       ("continuation", 1002), ("ping", 1002), ("half", None)])
def test_broken_frames_end_the_connection_only(oz, client, what, code):
    peer = V(oz)
    task = begin(client, peer)
    text = go_json({"type": "heartbeat"}).encode()
    data = {"unmasked": frame(TEXT, text, mask=False), "utf8": frame(TEXT, b'{"type":"\xff\xfe"}'),
            "reserved": bytes([0xC1]) + frame(TEXT, text)[1:], "opcode": frame(3, text), "continuation": frame(0, text),
            "ping": frame(PING, b"x" * 126), "half": frame(TEXT, text)[:7]}[what]
    peer.raw(data)
    if code:
        assert peer.wait_closed() == code
    else:
        peer.abort()
    peer.reconnect()
    peer.complete(task, output="survived")
    assert client.wait(task["task_id"], "SUCCEEDED")["output"] == "survived"
    peer.close()


def test_hundred_mebibyte_frames_take_bounded_memory(make_server):
    server = make_server(FLEET | {"ASAN_OPTIONS": "detect_leaks=1:exitcode=97:quarantine_size_mb=8"})
    client = server.client()
    with V(server) as peer:
        warm = begin(client, peer)
        peer.complete(warm, output="x" * (9 << 20), size=1 << 20)
        client.wait(warm["task_id"], "SUCCEEDED", timeout=60)
        before = memory(server)
        task = begin(client, peer)
        head = go_json({"type": "task_completed", "data": {"task_id": task["task_id"], "worker_id": peer.worker_id,
                                                           "exit_code": 0, "output": ""}})[:-3].encode()
        total, tail = 100 << 20, b'"}}'
        body = b"z" * (total - len(head) - len(tail))
        peer.raw(bytes([0x81, 0xFF]) + struct.pack(">Q", total) + b"\0\0\0\0" + head)
        peak = 0
        for at in range(0, len(body), 4 << 20):
            peer.raw(body[at:at + (4 << 20)])
            peak = max(peak, memory(server))
        peer.raw(tail)
        run = client.wait(task["task_id"], "SUCCEEDED", timeout=60)
        peak = max(peak, memory(server))
        assert run["output_truncated"] is True
        assert peak - before < 64 << 20, f"{(peak - before) >> 20} MiB for one message of 100 MiB"
        # one byte more is too much
        peer.raw(bytes([0x81, 0xFF]) + struct.pack(">Q", total + 1) + b"\0\0\0\0")
        assert peer.wait_closed() == 1009


def test_messages_beyond_the_limit_in_fragments_are_refused_too(oz):
    with Native(oz) as peer:
        with contextlib.suppress(OSError):
            for i in range(17):
                peer.send_frame(TEXT if i == 0 else 0, b" " * (1 << 20), fin=False, key=b"\0\0\0\0")
        assert peer.wait_closed() == 1009


def test_big_strings_that_are_no_output_do_not_fill_memory(oz, client):
    with V(oz) as peer:
        task = begin(client, peer)
        peer.send("task_failed", {"task_id": task["task_id"], "message": "m" * (20 << 20), "junk": "j" * (10 << 20)}, size=1 << 20)
        run = client.wait(task["task_id"], "FAILED", timeout=60)
        assert run["error"]["message"].startswith("mmm") or run["error"]["message"] == "Task failed"
        assert peer.open


def test_wrong_dialects_are_no_reason_to_fail(oz, client):
    """Native words from a plain worker are unknown types; hello from one makes it native; plain words from a native one
    without epoch count, if the attempt is its own."""
    with V(oz) as peer:
        task = begin(client, peer)
        peer.send("task_state", {"task_id": task["task_id"], "state": "stopping"})
        peer.send("task_log", {"task_id": task["task_id"], "stream": "stdout", "offset": 0, "chunk": "?"})
        peer.send("drain", {"reason": "?"})
        peer.send("welcome", {})
        settled(peer)
        assert workers(oz)[peer.worker_id]["draining"] is False
        assert client.run(task["task_id"])["state"] == "INPROGRESS"
        peer.send("task_completed", {"task_id": task["task_id"], "message": "W's words"})
        assert client.wait(task["task_id"])["state"] == "SUCCEEDED"
    with Native(oz) as peer:
        task = peer.assigned(make(client, peer))
        peer.send("task_claimed", {"task_id": task["task_id"], "worker_id": "somebody-else"})
        client.wait(task["task_id"], "INPROGRESS")
        peer.send("task_completed", {"task_id": task["task_id"], "worker_id": "x", "exit_code": 0, "output": "plain"})
        assert client.wait(task["task_id"], "SUCCEEDED")["output"] == "plain"


def test_native_without_hello_is_not_given_work_and_sent_away(oz, client):
    peer = Native(oz, hello=False)
    run_id = make(client, peer)
    peer.nothing("task_assignment", 1.0)
    assert peer.wait_closed(40) == 1002
    peer.says_hello = True
    peer.reconnect()
    task = peer.assigned(run_id)
    peer.hello()  # a second time: ignored
    peer.complete(task)
    client.wait(run_id, "SUCCEEDED")
    peer.close()


def test_hello_that_claims_foreign_executions_is_told_to_stop_them(oz, client):
    with V(oz) as victim:
        task = begin(client, victim)
        liar = Native(oz, hello=False)
        ghost = "11111111-2222-4333-8444-555555555555"
        liar.hello(running=[{"task_id": task["task_id"], "execution_id": e, "epoch": 1, "state": "running", "last_seq": 3,
                             "terminal_offset": 0, "since": "2026-01-31T12:00:00Z"} for e in (task["execution_id"], ghost)],
                   unacked=[task["execution_id"], "no uuid", 7])
        welcome = liar.expect("welcome")
        assert welcome["keep"] == [] and set(welcome["stop"]) == {task["execution_id"], ghost}
        liar.complete({**task, "epoch": 1}, output="stolen")
        settled(liar)
        assert client.run(task["task_id"])["state"] == "INPROGRESS"
        victim.complete(task)
        client.wait(task["task_id"], "SUCCEEDED")
        liar.close()


def test_odd_worker_ids(oz):
    for name in ("x" * 200, "ü ß/\\\"'<>", "warp-1", "a b"):
        with V(oz, name) as peer:
            peer.ping_pong()
            assert workers(oz)[name]["connected"]
    for name in ("x" * 201, "a\0b", "a\nb"):
        with pytest.raises(Refused) as e:
            V(oz, name)
        assert e.value.status == 400


# --- vanishing ---

@pytest.mark.parametrize("kind", DIALECTS)
def test_after_the_grace_a_vanished_worker_has_lost_its_run(oz, client, kind):
    with kind(oz) as peer:
        task = begin(client, peer)
        peer.abort()
        left = time.monotonic()
        run = client.wait(task["task_id"], "FAILED", timeout=40)
        assert run["error"]["message"] == "Worker disconnected"
        assert time.monotonic() - left >= GRACE / 1000 - 1
        peer.reconnect()
        if kind is Native:
            assert task["execution_id"] in peer.welcome["stop"]
        else:
            peer.expect(peer.cancel_type, task_id=task["task_id"])
        peer.complete(task)
        settled(peer)
        assert client.run(task["task_id"])["state"] == "FAILED", "too late"
        if kind is Native:
            peer.wait_acked()


def test_unconfirmed_run_of_a_vanished_worker_goes_to_another(make_server):
    server = make_server(FLEET | {"OZ_WORKER_RECONNECT_GRACE_MS": "1500"})
    client = server.client()
    a = V(server, "a")
    run_id = make(client)
    first = a.assigned(run_id)
    a.abort()
    with V(server, "b") as b:
        second = b.assigned(run_id, timeout=40)
        assert second["execution_id"] != first["execution_id"]
        b.claim(second)
        a.reconnect()
        a.expect("task_cancel", task_id=run_id)
        a.claim(first)
        a.complete(first, output="of the wrong one")
        settled(a)
        assert client.run(run_id)["state"] == "INPROGRESS"
        b.complete(second, output="of the right one")
        run = client.wait(run_id, "SUCCEEDED")
        assert run["output"] == "of the right one" and run["worker_id"] == "b"
    a.close()


def test_claim_timeout_cancels_and_gives_it_to_another(make_server):
    server = make_server(FLEET)
    client = server.client()
    with W(server, "a") as a:
        run_id = make(client)
        first = a.assigned(run_id)  # it could not parse it: silent
        began = time.monotonic()
        a.expect("task_cancellation", timeout=60, task_id=run_id)
        assert time.monotonic() - began > 8
        eventually(lambda: client.run(run_id)["state"] == "PENDING", 10, "PENDING again")
        a.confirm_cancel(first)
        a.nothing("task_assignment", 2.0, run_id)  # never back to the same connection
        with V(server, "b") as b:
            second = b.assigned(run_id)
            b.claim(second)
            b.complete(second)
            assert client.wait(run_id, "SUCCEEDED")["worker_id"] == "b"


def test_native_that_forgot_its_run_says_so_at_once(oz, client):
    peer = Native(oz)
    task = begin(client, peer)
    peer.abort()
    peer.running.clear()
    began = time.monotonic()
    peer.reconnect()
    run = client.wait(task["task_id"], "FAILED", timeout=20)
    assert run["error"]["message"] == "Worker disconnected" and time.monotonic() - began < GRACE / 1000
    peer.close()


def test_clean_close_keeps_the_run_for_the_grace(oz, client):
    with V(oz) as peer:
        task = begin(client, peer)
        peer.close(1000)
        time.sleep(1)
        assert client.run(task["task_id"])["state"] == "INPROGRESS"
        peer.reconnect()
        peer.complete(task)
        client.wait(task["task_id"], "SUCCEEDED")


def test_slow_reader_is_cut_and_its_assignments_go_back(make_server):
    """Assignments that did not leave whole are PENDING again at once; the server's queue is bounded."""
    server = make_server(FLEET | {"OZ_WORKER_DEFAULT_CAPACITY": "0"})
    client = server.client()
    slow = V(server, "slow", reading=False, receive_buffer=4096)
    prompt = "p" * 900_000
    ids = [make(client, prompt=prompt) for _ in range(12)]
    eventually(lambda: not workers(server)["slow"]["connected"], 60, "the slow one is cut")
    with V(server, "quick") as quick:
        done = set()
        end = time.monotonic() + 60
        while len(done) < 8:
            task = quick.assigned(timeout=max(end - time.monotonic(), 1))
            quick.claim(task)
            quick.complete(task)
            done.add(task["task_id"])
        for i in done:
            client.wait(i, "SUCCEEDED")
    assert len(done) >= 8 and done <= set(ids)
    slow.abort()


# --- placing ---

def test_saturated_worker_gets_work_again_when_one_of_its_runs_ends(make_server):
    server = make_server(FLEET)
    client = server.client()
    with W(server, "a") as a:
        one = a.assigned(make(client))
        a.claim(one)
        second_id = make(client)
        a.reject(a.assigned(second_id))
        eventually(lambda: client.run(second_id)["state"] == "PENDING", 10, "PENDING again")
        a.nothing("task_assignment", 1.5)
        a.complete(one)  # room: at once, not after the back-off
        again = a.assigned(second_id, timeout=20)
        a.claim(again)
        a.complete(again)
        run = client.wait(second_id, "SUCCEEDED")
        assert run["error"] is None


def test_saturated_worker_is_asked_again_after_the_backoff(make_server):
    server = make_server(FLEET)
    client = server.client()
    with W(server, "a") as a:
        run_id = make(client)
        a.reject(a.assigned(run_id))
        rejected = time.monotonic()
        second = a.assigned(run_id, timeout=30)
        assert time.monotonic() - rejected > 4, "the first back-off is 5 s"
        a.reject(second)
        rejected = time.monotonic()
        third = a.assigned(run_id, timeout=60)
        assert time.monotonic() - rejected > 8, "the second one 10 s"
        a.claim(third)
        a.complete(third)
        client.wait(run_id, "SUCCEEDED")


def test_two_tenants_take_turns_oldest_first(make_server):
    server = make_server(FLEET | {"OZ_WORKER_DEFAULT_CAPACITY": "1"})
    a, b = server.client("tenant-a-" + secrets.token_hex(8)), server.client("tenant-b-" + secrets.token_hex(8))
    many = [make(a, prompt=f"a{i}") for i in range(8)]
    few = [make(b, prompt=f"b{i}") for i in range(3)]
    with V(server) as peer:
        order = []
        for _ in range(11):
            task = peer.assigned()
            order.append(task["task_id"])
            peer.claim(task)
            peer.complete(task)
    assert [i for i in order if i in many] == many and [i for i in order if i in few] == few
    assert sum(i in few for i in order[:6]) == 3, ["a" if i in many else "b" for i in order]


def test_capacity_of_each_dialect(make_server):
    server = make_server(FLEET | {"OZ_WORKER_DEFAULT_CAPACITY": "2"})
    client = server.client()
    for peer, limit in ((V(server, "v"), 2), (Native(server, "n", capacity=3), 3)):
        ids = [make(client, peer) for _ in range(limit + 2)]
        peer.wait(lambda: len(peer.of("task_assignment")) == limit, what="as many as it may have")
        peer.nothing("task_assignment", 1.0)
        view = workers(server)[peer.worker_id]
        assert view["capacity"] == limit and view["in_flight"] == limit
        for n, _ in enumerate(ids):
            task = peer.assigned()
            peer.claim(task)
            peer.complete(task)
            client.wait(task["task_id"], "SUCCEEDED")
            assert len(peer.of("task_assignment")) <= limit + n + 1
        peer.close()


def test_worker_host_is_the_only_one(make_server):
    server = make_server(FLEET)
    client = server.client()
    with V(server, "a") as a:
        run_id = make(client, worker_host="b")
        a.nothing("task_assignment", 1.0)
        assert client.run(run_id)["state"] == "PENDING"
        with V(server, "b") as b:
            task = b.assigned(run_id)
            b.claim(task)
            b.complete(task)
            client.wait(run_id, "SUCCEEDED")
            anywhere = [make(client, worker_host="warp"), make(client)]
            got = set()
            for _ in anywhere:
                eventually(lambda: a.of("task_assignment") or b.of("task_assignment"), 20, "one of them gets it")
            eventually(lambda: {m["task_id"] for p in (a, b) for m in p.of("task_assignment")} >= set(anywhere), 20,
                       "both are given out")
            del got
            for p in (a, b):
                for data in p.of("task_assignment"):
                    if data["task_id"] in anywhere:
                        p.claim(data)
                        p.complete(data)
            for i in anywhere:
                client.wait(i, "SUCCEEDED")


def test_drain_stops_assignments_and_lets_running_ones_end(oz, client):
    with Native(oz) as peer:
        task = begin(client, peer)
        peer.drain()
        eventually(lambda: workers(oz)[peer.worker_id]["draining"], 20, "draining")
        run_id = make(client, peer)
        peer.nothing("task_assignment", 1.0)
        peer.complete(task)
        client.wait(task["task_id"], "SUCCEEDED")
        peer.nothing("task_assignment", 0.5)
        assert client.run(run_id)["state"] == "PENDING"
        peer.close()
        peer.reconnect()  # the next process
        again = peer.assigned(run_id)
        peer.complete(again)
        client.wait(run_id, "SUCCEEDED")


def test_assignment_is_event_driven(oz, client):
    with V(oz) as peer:
        took = []
        for _ in range(10):
            began = time.monotonic()
            run_id = make(client, peer)
            task = peer.assigned(run_id)
            took.append(next(m["at"] for m in peer.messages if m["data"].get("task_id") == run_id) - began)
            peer.complete(task)
            client.wait(run_id, "SUCCEEDED")
        assert min(took) < 0.5, took  # the reference polls every 1.5 s; the target of 10 ms is not for a loaded machine


def test_without_a_sidecar_image_go_workers_get_nothing_native_ones_do(make_server):
    server = make_server(FLEET | {"OZ_WORKER_SIDECAR_IMAGE": None})
    client = server.client()
    with V(server, "v") as v:
        run_id = make(client)
        v.nothing("task_assignment", 1.0)
        assert client.run(run_id)["state"] == "PENDING"
        with Native(server, "n") as n:
            n.complete(n.assigned(run_id))
            client.wait(run_id, "SUCCEEDED")


def test_workers_list(oz, client):
    with Native(oz) as peer:
        task = begin(client, peer)
        view = workers(oz)[peer.worker_id]
        assert view["dialect"] == "native" and view["connected"] and view["in_flight"] == 1 and view["capacity"] == 5
        assert view["uid"] == peer.welcome["worker_uid"] and view["since"] and view["last_seen"]
        assert_error(client.api("GET", "/workers"), 403)
        peer.complete(task)
        client.wait(task["task_id"], "SUCCEEDED")
    view = eventually(lambda: not workers(oz)[peer.worker_id]["connected"] and workers(oz)[peer.worker_id], 20, "gone")
    assert view["in_flight"] == 0


def test_live_output_of_a_native_worker(oz, client):
    with Native(oz) as peer:
        task = begin(client, peer)
        peer.log(task, 0, "one ")
        peer.log(task, 0, "one ")  # sent again
        peer.log(task, 4, "two ")
        with client.events(task["task_id"]) as stream:
            peer.log(task, 8, "three")
            peer.complete(task)
            text = ""
            for e in stream:
                if e["event"] == "output":
                    text += next(v for k, v in e["data"].items() if k in ("delta", "text", "output"))
                if e["event"] == "end":
                    break
        assert "three" in text
        assert client.wait(task["task_id"], "SUCCEEDED")["output"] == "one two three"


# --- (3) and (4): they began with the module ---

def test_3_pings_without_data_keep_the_connection(pinging, request):
    wanted = 300 if request.config.getoption("--long") else 35
    if wanted > 100:
        request.node.add_marker(pytest.mark.timeout(400))
    while (left := pinging.since + wanted - time.monotonic()) > 0:
        time.sleep(min(left, 1))
        assert pinging.open
    pinging.ping_pong(b"")
    assert pinging.open and pinging.connections == 1
    assert pinging.pings, "the server pings after 20 s of silence"
    assert all(len(p) == 8 for p in pinging.pings) and len(set(pinging.pings)) == len(pinging.pings)


@pytest.mark.timeout(150)
def test_4_client_without_pongs_is_gone_within_90_seconds(silent):
    silent.wait(lambda: not silent.open, 92 - min(time.monotonic() - silent.since, 91), "the end of the silent connection")
    assert silent.pings, "it was asked first"
    assert not workers(silent.server)[silent.worker_id]["connected"]


@pytest.mark.timeout(150)
def test_runs_have_deadlines(make_server, request):
    """Nothing waits without one (G3); the shortest that can be set are a minute."""
    if not request.config.getoption("--long"):
        pytest.skip("takes a minute: --long")
    server = make_server(FLEET | {"OZ_RUN_MAX_SECONDS": "60", "OZ_PENDING_MAX_SECONDS": "60"})
    client = server.client()
    with V(server) as peer:
        task = begin(client, peer)
        waiting = make(client, worker_host="nobody")
        assert client.wait(waiting, "FAILED", timeout=100)["error"]["message"] == "No worker took the run in time"
        run = client.wait(task["task_id"], "FAILED", timeout=40)
        assert run["error"]["message"] == "Run exceeded maximum duration"
        peer.expect("task_cancel", task_id=task["task_id"])
