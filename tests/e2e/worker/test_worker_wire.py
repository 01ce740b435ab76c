"""The worker endpoint against scripted workers of all three dialects (oz-worker.md 18, checks 1 to 5 by their number): the
handshake, frames and keep-alive, then workers that lie and drown the server."""
import contextlib
import secrets
import struct
import threading
import time

import pytest
from fleet import DIALECTS, FLEET, begin, make, memory, metric, settled, workers
from worker_peers import PATH, PING, TEXT, Native, Refused, V, W, frame, go_json, handshake

# --- (4) begins now: it takes 85 s of silence, during which the others run ---

@pytest.fixture(scope="module", autouse=True)
def silent(shared):
    peer = V(shared, "silent-" + secrets.token_hex(4), pongs=False)
    peer.since = time.monotonic()
    yield peer
    peer.close()


@pytest.fixture(scope="module", autouse=True)
def pinging(shared):
    """Says nothing but a ping without payload every 30 s, as V and W do."""
    peer = W(shared, "pinging-" + secrets.token_hex(4))
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
    for path in (PATH + "/", "/wss", "/api/v1/agent/runs", "/"):
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
