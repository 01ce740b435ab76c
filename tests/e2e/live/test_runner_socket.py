"""Live sessions in containers of Go workers: the runner has a WebSocket of its own (agent-ops.md 9.1)."""
import json
import os
import signal
import socket
import ssl
import struct
import subprocess
import time
import urllib.parse

import harness
import pytest
import websockets.exceptions
from live_peers import LiveWorker
from lossy_proxy import LossyProxy
from runner_box import runner_pid
from socket_runner import Container, SocketRunner
from village import Village, data
from worker_peers import V, W

SETTINGS = {"OZ_MAX_SESSIONS_PER_ORG": "500", "OZ_WS_MAX_CONNECTIONS_PER_USER": "20", "OZ_ALLOW_LOCAL_REPOS": "on",
            "OZ_WORKER_SIDECAR_IMAGE": "example/agent:1"}


@pytest.fixture(scope="module")
def shared(postgres):
    with harness.serving(SETTINGS, postgres=postgres, name="runner-socket") as server:
        yield server


@pytest.fixture(params=[V, W], ids=["vendored", "warp"])
def go(request, oz):
    with request.param(oz) as peer:
        yield peer


@pytest.fixture
def warp(oz):
    with W(oz) as peer:
        yield peer


@pytest.fixture
def container(tmp_path):
    made = Container(tmp_path / "box")
    yield made
    made.close()


@pytest.fixture
def dial():
    opened = []

    def open_one(task, **options):
        opened.append(SocketRunner(task, **options))
        return opened[-1]
    yield open_one
    for runner in opened:
        runner.close()


def take(worker, session):
    task = worker.assigned("run_" + session.removeprefix("ses_"))
    worker.claim(task)
    return task


def local(container, **more):
    return {"repo": {"url": container.repo, "branch": "main"}, **more}


def wait_state(village, session, state, timeout=30):
    end = time.monotonic() + timeout
    while (found := village.get(session))["state"] != state:
        assert time.monotonic() < end, f"{found['state']} instead of {state}"
        time.sleep(0.05)
    return found


# --- the real runner ---

def test_a_session_in_a_container_of_a_go_worker_is_live(go, village, view, container):
    session = village.create(**local(container, task="say Hello\ntool " + json.dumps(
        {"toolCallId": "t1", "title": "a tool", "kind": "execute", "rawInput": {"command": "true"}, "status": "completed"}) + "\nsay world"))["sessionId"]
    viewer = view()
    viewer.follow(session, sinceSeq=0, terminal=True)
    task = take(go, session)
    assert task["env_vars"]["DO_WS_URL"].endswith(f"/api/sessions/{session.removeprefix('ses_')}/ws")
    container.start(task)
    end = container.ended()
    assert end.status == 0, end
    go.complete(task)
    done = viewer.expect("session", action="completed", timeout=40)
    assert done["data"]["finalState"] == "COMPLETED", done
    assert viewer.seqs(session) == list(range(1, done["seq"] + 1))
    first, shown, gaps = viewer.terminal(session)
    assert first == 0 and not gaps and b"Hello" in shown and b"world" in shown
    words = [m["data"]["payload"] for m in viewer.of("session", action="event") if m["data"]["eventType"] == "AGENT_MESSAGE"]
    assert [w["text"] for w in words] == ["Hello", "world"], words
    assert village.get(session)["state"] == "COMPLETED"


def test_people_answer_and_type_through_it(warp, village, view, container):
    ask = json.dumps({"toolCallId": "t1", "kind": "execute", "title": "rm", "rawInput": {"command": "rm -r build"}})
    session = village.create(**local(container, options={"mode": "interactive", "policy": {"requiresApprovalFor": ["shell"]}}, task=None))["sessionId"]
    viewer = view()
    viewer.follow(session, sinceSeq=0, terminal=True)
    task = take(warp, session)
    container.start(task)
    wait_state(village, session, "RUNNING")
    data(village("POST", f"/sessions/{session}/prompts", json={"prompt": f"ask {ask}\nsay that was it"}), 201)
    approval = viewer.expect("approval_required", timeout=30)["approval"]
    viewer.send("resolve_approval", sessionId=session, approvalId=approval["approvalId"], decision="allow")
    viewer.expect("approval_resolved", timeout=30)
    viewer.wait(lambda: any(m["data"].get("eventType") == "AGENT_MESSAGE" for m in viewer.of("session", action="event")), 30)
    diff = data(village("GET", f"/sessions/{session}/diff"))
    assert diff["files"] == [], diff
    data(village.stop(session), 202)
    warp.expect(warp.cancel_type, task_id=task["task_id"])
    container.ended()
    warp.confirm_cancel(task)
    viewer.expect("session", action="completed", timeout=40)


@pytest.mark.parametrize("program", ["sanitized", "static"])
def test_cuts_lose_nothing_and_repeat_nothing(oz, warp, village, view, tmp_path, program):
    container = Container(tmp_path / "box2", program)
    proxy = LossyProxy(oz.port, lose=0)
    try:
        lines = "\n".join(f"say line {i}\ntool " + json.dumps({"toolCallId": f"t{i}", "title": f"tool {i}", "kind": "read",
                          "rawInput": {"path": f"f{i}"}, "status": "completed"}) + "\nsleep 0.05" for i in range(100))
        session = village.create(**local(container, task=lines))["sessionId"]
        viewer = view()
        viewer.follow(session, sinceSeq=0, terminal=True)
        task = take(warp, session)
        container.start(task, port=proxy.port)
        cuts = 0
        end = time.monotonic() + 90
        while container.process.poll() is None and cuts < 8:
            assert time.monotonic() < end
            time.sleep(0.7)
            cuts += proxy.cut()
        ended = container.ended(90)
        assert ended.status == 0, ended
        assert cuts >= 3, cuts
        warp.complete(task)
        done = viewer.expect("session", action="completed", timeout=40)
        assert done["data"]["finalState"] == "COMPLETED", done
        assert viewer.seqs(session) == list(range(1, done["seq"] + 1))
        words = [m["data"]["payload"]["text"] for m in viewer.of("session", action="event") if m["data"]["eventType"] == "AGENT_MESSAGE"]
        assert words == [f"line {i}" for i in range(100)]
        first, shown, gaps = viewer.terminal(session)
        assert first == 0 and not gaps
        assert [shown.count(f"line {i}\r".encode()) for i in range(100)] == [2] * 100  # in the prompt, and by the agent
    finally:
        container.close()
        proxy.close()


def test_the_server_dies_and_the_session_goes_on(postgres, container):
    with harness.serving(SETTINGS, postgres=postgres, name="runner-socket-dies") as server:
        village = Village(server.client())
        with W(server) as worker:
            lines = "\n".join(f"say line {i}\ntool " + json.dumps({"toolCallId": f"t{i}", "title": "t", "kind": "read",
                              "rawInput": {"path": f"f{i}"}, "status": "completed"}) + "\nsleep 0.1" for i in range(60))
            session = village.create(**local(container, task=lines))["sessionId"]
            task = take(worker, session)
            proxy = LossyProxy(server.port, lose=0)
            container.start(task, port=proxy.port)
            wait_state(village, session, "RUNNING")
            time.sleep(1)
            server.kill9()
            server.start()
            proxy.target = ("127.0.0.1", server.port)
            worker.reconnect()
            assert container.ended(90).status == 0
            worker.complete(task)
            village = Village(server.client())
            assert wait_state(village, session, "COMPLETED")
            events = village.events(session, limit=1000)["events"]
            words = [e["data"]["text"] for e in events if e["type"] == "AGENT_MESSAGE"]
            proxy.close()
            assert words == [f"line {i}" for i in range(60)]


def test_the_worker_s_link_may_go_while_the_runner_stays(warp, village, container):
    session = village.create(**local(container, task="say a\nsleep 3\nsay b"))["sessionId"]
    task = take(warp, session)
    container.start(task)
    wait_state(village, session, "RUNNING")
    warp.abort()
    assert container.ended().status == 0  # all that it said was stored meanwhile
    warp.reconnect()
    warp.complete(task)
    wait_state(village, session, "COMPLETED")


def test_a_runner_whose_attempt_is_over_ends_by_itself(oz, village, container):
    with W(oz) as worker:
        session = village.create(**local(container, task="sleep 60"))["sessionId"]
        task = take(worker, session)
        container.start(task)
        wait_state(village, session, "RUNNING")
        worker.fail(task, "the container was lost", "invalid_image")
        assert wait_state(village, session, "FAILED")
        end = container.ended(30)
        assert end.status == 0, end


@pytest.fixture
def tls(oz, tmp_path):
    """A TLS end in front of the server: (proxy, file of its certificate)."""
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "1", "-subj",
                    "/CN=front", "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    proxy = LossyProxy(oz.port, lose=0, tls=context)
    yield proxy, cert
    proxy.close()


def named(task, host):
    """The same address with a name in it."""
    parts = urllib.parse.urlsplit(task["env_vars"]["DO_WS_URL"])
    return {"DO_WS_URL": parts._replace(netloc=f"{host}:{parts.port}").geturl()}


def test_a_name_is_looked_up(warp, village, container):
    session = village.create(**local(container, task="say Hello"))["sessionId"]
    task = take(warp, session)
    container.start(task, **named(task, "localhost"))
    end = container.ended()
    assert end.status == 0, end
    warp.complete(task)
    wait_state(village, session, "COMPLETED")


def test_a_name_server_that_does_not_answer_holds_no_signal_up(container):
    """While the name is looked up, which takes a resolver 10 s at least."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.53.53", 53))
        silent.settimeout(20)
        etc = container.box.root / "etc"
        etc.mkdir()
        (etc / "resolv.conf").write_text("nameserver 127.0.53.53\n")
        (etc / "nsswitch.conf").write_text("hosts: dns\n")
        container.box.own_etc = True
        container.start({"task_id": "x", "env_vars": {"DO_WS_URL": "ws://nobody.example/api/sessions/x/ws", "OZ_RUN_TOKEN": "t"}})
        silent.recv(4096)
        began = time.monotonic()
        os.kill(runner_pid(container.process), signal.SIGTERM)
        container.ended()
        assert time.monotonic() - began < 8


def secure(task, proxy):
    parts = urllib.parse.urlsplit(task["env_vars"]["DO_WS_URL"])
    return {"DO_WS_URL": parts._replace(scheme="wss", netloc=f"127.0.0.1:{proxy.port}").geturl()}


def test_wss_goes_through_openssl(warp, village, view, container, tls):
    proxy, cert = tls
    (container.box.root / "cert.pem").write_bytes(cert.read_bytes())
    session = village.create(**local(container, task="say Hello\nflood 200 4000\nsay R\nsay Q\nsay bye"))["sessionId"]
    viewer = view()
    viewer.follow(session, sinceSeq=0, terminal=True)
    task = take(warp, session)
    container.start(task, SSL_CERT_FILE="/cert.pem", **secure(task, proxy))
    end = container.ended()
    assert end.status == 0, end
    warp.complete(task)
    viewer.expect("session", action="completed", timeout=40)
    _, shown, gaps = viewer.terminal(session)
    assert not gaps and shown.count(b"y" * 3992) == 200 and b"bye" in shown
    assert proxy.trusted == 1  # it outlived the agent: what is said in the end needs it


def test_a_server_that_is_another_is_not_spoken_to(warp, village, container, tls):
    proxy, _ = tls  # its certificate is nobody's
    session = village.create(**local(container, task="say Hello"))["sessionId"]
    task = take(warp, session)
    container.start(task, **secure(task, proxy))
    harness.eventually(lambda: proxy.mistrusted >= 2, timeout=30, what="its refusal")
    assert village.get(session)["state"] == "PREPARING_WORKSPACE"
    assert container.process.poll() is None
    data(village.stop(session), 202)


def test_without_openssl_wss_is_refused_in_words(container):
    box = container.box
    end = box.run("agent", "run", env={"DO_WS_URL": "wss://127.0.0.1:1/api/sessions/x/ws", "OZ_RUN_TOKEN": "t"}, path="/fake", pid1=True)
    assert end.status == 2 and "openssl" in end.result["message"], end


@pytest.mark.parametrize("url", ["ftp://x/", "ws://", "http://a b/", "", "ws://x:99999/"])
def test_an_address_that_is_none_is_refused_in_words(container, url):
    end = container.box.run("agent", "run", env={"DO_WS_URL": url or " ", "OZ_RUN_TOKEN": "t"}, pid1=True)
    assert end.status == 2 and "address" in end.result["message"], end


# --- the server's end ---

@pytest.fixture
def talking(warp, village, dial):
    """A session with a scripted runner on its own socket: (session, task, runner)."""
    session = village.create()["sessionId"]
    task = take(warp, session)
    runner = dial(task)
    init = runner.hello(terminals=[0])
    assert init["checkpoints"] is False and init["sessionId"] == session.removeprefix("ses_"), init
    runner.running()
    runner.stored()
    return session, task, runner


def test_a_newer_connection_takes_the_place(village, warp, dial, talking, view):
    session, task, old = talking
    viewer = view()
    viewer.follow(session, sinceSeq=0)
    new = dial(task)
    assert old.wait_closed()[0] == 4410
    new.seq, new.epoch = old.seq, old.epoch
    assert new.hello(phase="running")["lastAckedSeq"] == old.seq
    new.events(("FILE_TOUCHED", {"path": "new", "reason": "write"}))
    new.stored()
    new.report("complete", turnId="t", outcome="done")
    new.stored()
    warp.complete(task)
    viewer.expect("session", action="completed")
    touched = [m["data"]["payload"]["path"] for m in viewer.of("session", action="event") if m["data"]["eventType"] == "FILE_TOUCHED"]
    assert touched == ["new"]


def test_what_was_not_acknowledged_is_taken_once(village, warp, dial, talking):
    session, task, old = talking
    old.events(("FILE_TOUCHED", {"path": "a", "reason": "write"}))
    old.stored()
    old.close()
    new = dial(task)
    new.epoch, new.seq = old.epoch, old.seq - 1
    assert new.hello(phase="running")["lastAckedSeq"] == old.seq
    new.events(("FILE_TOUCHED", {"path": "a", "reason": "write"}))  # once more, under its number
    new.events(("FILE_TOUCHED", {"path": "b", "reason": "write"}))
    new.stored()
    paths = [e["data"]["path"] for e in village.events(session, limit=1000)["events"] if e["type"] == "FILE_TOUCHED"]
    assert paths == ["a", "b"]


def test_a_hole_ends_the_connection(dial, talking):
    _, task, runner = talking
    runner.seq += 1
    runner.events(("FILE_TOUCHED", {"path": "a", "reason": "write"}))
    assert runner.wait_closed()[0] == 1008
    again = dial(task)
    again.epoch, again.seq = runner.epoch, runner.seq - 2
    assert again.hello()["lastAckedSeq"] == again.seq


def test_the_attempt_s_end_ends_the_connection(village, warp, talking):
    session, task, runner = talking
    warp.complete(task)
    assert runner.wait_closed()[0] == 4401
    wait_state(village, session, "COMPLETED")
    with pytest.raises(websockets.exceptions.InvalidStatus) as e:
        SocketRunner(task)
    assert e.value.response.status_code in (401, 410)


def hostile():
    deep = '{"type":"hello","x":' + "[" * 100 + "]" * 100 + "}"
    return {
        "no json": ("{", 1008), "no object": ("[1]", 1008), "no type": ('{"a":1}', 1008), "a type that is no text": ('{"type":7}', 1008),
        "too deep": (deep, 1008), "a number first": ('{"type":"ping"}', 1008), "bytes first": (struct.pack(">BB6xQ", 1, 0, 0), 1008),
        "too large": ('{"type":"hello","x":"' + "a" * (1 << 20) + '"}', 1009), "nothing": ("", 1008),
    }


@pytest.mark.parametrize("row", list(hostile()))
def test_what_is_no_message_ends_the_connection(warp, village, dial, row):
    said, code = hostile()[row]
    session = village.create()["sessionId"]
    runner = dial(take(warp, session))
    try:
        runner.ws.send(said)
    except websockets.exceptions.ConnectionClosed:
        pass
    assert runner.wait_closed()[0] == code
    data(village.stop(session), 202)


@pytest.mark.parametrize("frame", [b"", b"\1", b"\2" + bytes(15), struct.pack(">BB6xQ", 1, 0, 1 << 63), b"\1\0" + b"\1" * 6 + bytes(8),
                                   struct.pack(">BB6xQ", 1, 0, 0) + b"x" * (65536 + 1)])
def test_frames_that_are_none_end_the_connection(talking, frame):
    _, _, runner = talking
    runner.ws.send(frame)
    assert runner.wait_closed()[0] == 1008


def test_who_says_nothing_is_cut(warp, village, dial):
    runner = dial(take(warp, village.create()["sessionId"]))
    assert runner.wait_closed(20)[0] == 1008


def test_only_the_session_s_own_token_opens_it(oz, warp, village, tenant, stranger, dial):
    task = take(warp, village.create()["sessionId"])
    other = take(warp, village.create()["sessionId"])
    token = task["env_vars"]["OZ_RUN_TOKEN"]

    def status(**options):
        with pytest.raises(websockets.exceptions.InvalidStatus) as e:
            SocketRunner(task, **options)
        return e.value.response.status_code
    assert status(token=token[:-1] + ("0" if token[-1] != "0" else "1")) == 401
    assert status(token="sk-nobody") == 404
    assert status(token=tenant.token) in (403, 404)
    assert status(token=oz.admin_key) in (403, 404)
    assert status(token=other["env_vars"]["OZ_RUN_TOKEN"]) == 404
    assert status(query="") == 400
    assert status(query="?role=client") == 400
    assert status(url=task["env_vars"]["DO_WS_URL"].replace("/ws", "x/ws")) == 404
    assert status(additional_headers={}) == 401
    assert harness.httpx.get(task["env_vars"]["DO_WS_URL"].replace("ws:", "http:") + "?role=runner",
                             headers={"Authorization": f"Bearer {token}"}).status_code == 426
    by_url = dial(task, query=f"?role=runner&token={token}", additional_headers={})
    by_url.hello()
    assert token not in "".join(oz.tail(10000))


def test_a_native_worker_speaks_for_its_runner(oz, village):
    with LiveWorker(oz) as native:
        session = village.create()["sessionId"]
        runner = native.start(session)
        task = runner.task
        with pytest.raises(websockets.exceptions.InvalidStatus) as e:
            SocketRunner(task, url=f"ws://127.0.0.1:{oz.port}/api/sessions/{session.removeprefix('ses_')}/ws")
        assert e.value.response.status_code == 409
        runner.end()


def test_a_flood_is_taken_as_it_comes(oz, village, talking, warp):
    session, task, runner = talking
    for i in range(400):
        end = runner.show(bytes([65 + i % 26]) * 65536)
        # as far ahead as a runner may be; a connection that sends much more is ended
        runner.wait(lambda: end <= 512 << 10 or any(m["type"] == "terminal-ack" and m["offset"] >= end - (512 << 10) for m in runner.came),
                    what="room")
        if i % 20 == 0:
            runner.marks(i * 50, 1000)
    runner.stored()
    runner.wait(lambda: any(m["type"] == "terminal-ack" and m["offset"] == end for m in runner.came), what="the last byte")
    paths, after = [], 0
    while page := village.events(session, limit=1000, afterSeq=after)["events"]:
        paths += [e["data"]["path"] for e in page if e["type"] == "FILE_TOUCHED"]
        after = page[-1]["seq"]
    assert paths == [f"f{i}" for b in range(0, 400, 20) for i in range(b * 50, b * 50 + 1000)]
    tail = village("GET", f"/sessions/{session}/terminal", params={"from": end - 65536})
    assert set(tail.content) == {65 + 399 % 26}
    warp.complete(task)
    wait_state(village, session, "COMPLETED")
