"""Every row of table.py over plain TCP and TLS: its one permitted outcome, at once and in single bytes, without effect."""
import concurrent.futures
import json
import random
import socket
import time

import pytest
import table
from harness import API, assert_error
from village import issues


def count_runs(line):
    """How many runs the hostile tenant has, asked over the same kind of connection."""
    connection = line()
    connection.send(table.get(b"/api/v1/agent/runs?limit=200"))
    return len(json.loads(connection.answer()[2])["runs"])


def judge(line, raw, row, slowly=False):
    connection = line()
    if slowly:
        for i in range(len(raw)):
            connection.send(raw[i:i + 1])
    else:
        connection.send(raw)
    status, headers, body = connection.answer()
    assert status == row.status, (status, body[:300])
    assert headers.get("x-request-id"), headers
    if row.page:
        assert headers["content-type"] == "text/html; charset=utf-8" and body.startswith(b"<!doctype html>")
        assert headers["content-security-policy"].startswith("default-src 'none'") and b"apl_" not in body
    elif status >= 400:
        error = json.loads(body)
        told = error["meta"]["requestId"] if "meta" in error else error["request_id"]
        assert error["error"] and told == headers["x-request-id"]
    if row.close:
        assert headers.get("connection", "").lower() == "close" or row.name == "HTTP/1.0", headers
        assert connection.closed(), "the connection stays open, or more came after the answer"
    else:
        assert headers.get("connection", "keep-alive").lower() != "close"
        connection.send(table.get())
        assert connection.answer()[0] == 200, "the connection is no longer in step"


@pytest.mark.parametrize("row", table.HTTP, ids=lambda r: r.name)
def test_http(line, row):
    refused = row.status >= 400
    before = count_runs(line) if refused else 0
    judge(line, row.raw, row)
    if refused:
        assert count_runs(line) == before, "refused, yet done"


@pytest.mark.parametrize("row", [r for r in table.HTTP if len(r.raw) < 2000], ids=lambda r: r.name)
def test_http_byte_by_byte(line, row):
    """The same bytes in other cuts have the same outcome."""
    judge(line, row.raw, row, slowly=True)


@pytest.mark.parametrize("row", [r for r in table.FRAMING if r.close], ids=lambda r: r.name)
def test_nothing_smuggled(line, row):
    """What follows a framing error on the same connection is never executed as a request of its own."""
    before = count_runs(line)
    connection = line()
    connection.send(row.raw + table.post(table.LENGTH))
    assert connection.answer()[0] == row.status
    assert connection.closed()
    time.sleep(0.05)
    assert count_runs(line) == before


@pytest.mark.parametrize("row", table.JSON, ids=lambda r: r.name)
def test_json(line, row):
    connection = line()
    connection.send(table.post(b"Content-Length: %d\r\n" % len(row.body), row.body))
    status, headers, body = connection.answer()
    assert status == row.status, (status, body[:300])
    if row.status != 200:
        error = json.loads(body)
        codes = ("invalid_json",) if row.code == "invalid_json" else ("missing_field", "invalid_field")
        assert error["code"] in codes and error["request_id"] == headers["x-request-id"], error
        assert len(body) < 2000, "the answer repeats what was sent"
    connection.send(table.get())
    assert connection.answer()[0] == 200


@pytest.mark.parametrize("path", ["/environments", "/agent/schedules"])
@pytest.mark.parametrize("row", [r for r in table.JSON if r.code == "invalid_json"][:20], ids=lambda r: r.name)
def test_json_of_other_routes(oz, path, row):
    with oz.client("t") as client:
        assert_error(client.api("POST", path, content=row.body), 400, "invalid_json")


@pytest.mark.parametrize("row", table.JSON, ids=lambda r: r.name)
def test_json_of_the_sessions_face(oz, row):
    """What the Oz API ignores is refused there too: unknown members."""
    with oz.client("t") as client:
        found = issues(client.api("POST", "/sessions", content=row.body))
        assert found and len(json.dumps(found)) < 100_000
        assert oz.alive()


# --- pipelining, halves, slow senders ---

def test_pipelined_requests_are_answered_in_order(line):
    connection = line()
    ids = [f"pipe-{i}" for i in range(20)]
    connection.send(b"".join(table.get(headers=table.HOST + table.AUTH + f"X-Request-Id: {i}\r\n".encode()) for i in ids))
    assert [connection.answer()[1]["x-request-id"] for _ in ids] == ids


def test_pipelined_rubbish_after_a_good_request(line):
    connection = line()
    connection.send(table.get() + b"rubbish\r\n\r\n")
    assert connection.answer()[0] == 200
    assert connection.answer()[0] == 400 and connection.closed()


def test_expect_100_continue(line):
    connection = line()
    connection.send(table.RUN + table.HOST + table.AUTH + table.LENGTH + b"Expect: 100-continue\r\n\r\n")
    time.sleep(0.3)
    while b"\r\n\r\n" not in connection.data:
        assert connection._more()
    assert connection.data.startswith(b"HTTP/1.1 100 ")
    connection.send(table.BODY)
    assert connection.answer()[0] == 200


def test_no_100_before_a_refusal(line):
    connection = line()
    connection.send(table.RUN + table.HOST + b"Content-Length: 20\r\nExpect: 100-continue\r\n\r\n")
    while b"\r\n\r\n" not in connection.data:
        assert connection._more()
    assert connection.data.startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize("raw", [b"", b"GET", b"GET /health HTTP/1.1\r\nHost: 127", table.post(b"Content-Length: 100\r\n", b"half")])
def test_sender_that_closes_in_the_middle(line, raw):
    before = count_runs(line)
    for reset in (False, True):
        connection = line()
        connection.send(raw)
        if reset:
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        connection.close()
    assert count_runs(line) == before


def test_half_closed_sender_still_gets_its_answer(oz):
    with oz.socket() as s:
        s.sendall(table.get())
        s.shutdown(socket.SHUT_WR)
        s.settimeout(10)
        assert s.recv(100).startswith(b"HTTP/1.1 200")


@pytest.mark.timeout(60)
def test_slow_header_is_408_within_its_time(line):
    connection = line(timeout=30.0)
    start = time.monotonic()
    raw = table.get(headers=table.HOST + table.AUTH + b"X: " + b"y" * 500 + b"\r\n")
    connection.sock.settimeout(1.0)
    for i in range(40):
        connection.send(raw[i:i + 1])
        try:
            if not connection._more() or b"\r\n\r\n" in connection.data:
                break
        except TimeoutError:
            pass
    took = time.monotonic() - start
    assert 5 < took < 20, took
    connection.sock.settimeout(5)
    answer = connection.answer(may_close=True)
    assert answer is None or answer[0] == 408


@pytest.mark.timeout(60)
def test_silent_connection_is_closed(line):
    connection = line(timeout=30.0)
    start = time.monotonic()
    answer = connection.answer(may_close=True)
    assert (answer is None or answer[0] == 408) and 5 < time.monotonic() - start < 25


@pytest.mark.timeout(60)
def test_slow_body_is_408_and_closed(line):
    before = count_runs(line)
    connection = line(timeout=40.0)
    connection.send(table.post(b"Content-Length: 100000\r\n", b'{"prompt":"'))
    start = time.monotonic()
    connection.sock.settimeout(0.5)
    while time.monotonic() - start < 35 and b"\r\n\r\n" not in connection.data:
        connection.send(b"x" * 10)
        try:
            if not connection._more():
                break
        except TimeoutError:
            pass
    assert 8 < time.monotonic() - start < 30
    connection.sock.settimeout(5)
    answer = connection.answer(may_close=True)
    assert answer is None or answer[0] == 408
    assert count_runs(line) == before


def test_a_slow_but_steady_body_is_fine(line):
    body = json.dumps({"prompt": "s" * 20_000}).encode()
    connection = line(timeout=30.0)
    connection.send(table.post(b"Content-Length: %d\r\n" % len(body), b""))
    for i in range(0, len(body), 2000):
        connection.send(body[i:i + 2000])
        time.sleep(0.3)
    assert connection.answer()[0] == 200


def test_reader_that_never_reads_its_answers(oz):
    """Pipelines requests and reads nothing: memory stays bounded, others are served."""
    def rss():
        return int(next(x for x in open(f"/proc/{oz.pid}/status") if x.startswith("VmRSS")).split()[1])

    before = rss()
    with oz.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.setblocking(False)
        raw, sent, start = table.get(b"/openapi.json") * 50, 0, time.monotonic()
        while sent < 2000 and time.monotonic() - start < 5:
            try:
                s.send(raw)
                sent += 50
            except BlockingIOError:
                time.sleep(0.02)
            except (ConnectionResetError, BrokenPipeError):
                break
        with oz.client("t") as client:
            assert client.list()["runs"] is not None
        assert rss() - before < 150_000, "KiB"


def test_five_hundred_idle_connections(oz):
    sockets = [oz.socket() for _ in range(500)]
    try:
        with oz.client("t") as client:
            for _ in range(20):
                assert client.api("GET", "/agent/runs").status_code == 200
    finally:
        for s in sockets:
            s.close()


def test_random_bytes(oz):
    rng = random.Random(20260131)
    def one(_):
        with oz.socket(15) as s:
            start = rng.choice([b"", table.LIST + table.HOST, table.RUN + table.HOST + table.AUTH + table.CHUNKED + b"\r\n"])
            try:
                s.sendall(start + rng.randbytes(rng.randrange(1, 3000)) + b"\r\n\r\n")
                s.shutdown(socket.SHUT_WR)
                got = s.recv(4096)
            except (ConnectionResetError, BrokenPipeError):
                return b""
            return got
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for got in pool.map(one, range(400)):
            assert not got or got.startswith((b"HTTP/1.1 4", b"HTTP/1.1 501", b"HTTP/1.1 505")), got[:80]


def test_mutations_of_good_requests(oz):
    """One byte changed, inserted or removed at every place of a good request: never a 500, never silence."""
    good = table.post(table.LENGTH + b"X-Request-Id: m\r\n").replace(table.TOKEN, b"mutant-tenant")
    rng = random.Random(7)
    def one(i):
        raw = bytearray(good)
        if i % 3 == 0:
            raw[i // 3 % len(raw)] = rng.randrange(256)
        elif i % 3 == 1:
            raw.insert(i // 3 % len(raw), rng.randrange(256))
        else:
            del raw[i // 3 % len(raw)]
        with oz.socket(15) as s:
            s.sendall(bytes(raw))
            s.shutdown(socket.SHUT_WR)
            got = b""
            try:
                while b"\r\n\r\n" not in got:
                    piece = s.recv(4096)
                    if not piece:
                        break
                    got += piece
            except ConnectionResetError:
                pass
            return bytes(raw), got
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for raw, got in pool.map(one, range(3 * len(good))):
            # A request that became too short to be complete is closed without an answer: the sender left first.
            assert not got or got.startswith((b"HTTP/1.1 200", b"HTTP/1.1 4", b"HTTP/1.1 501", b"HTTP/1.1 505")), (raw, got[:80])


def test_tls_rubbish(secure):
    for raw in (b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"x" * 5000, b"\x00" * 3000, b"\x16"):
        with secure.socket(20) as s:
            s.sendall(raw)
            s.shutdown(socket.SHUT_WR)
            try:
                while s.recv(4096):
                    pass
            except ConnectionResetError:
                pass
    secure.assert_alive()


def test_unauthenticated_flood_leaves_no_trace(oz):
    with oz.client(None) as client:
        for i in range(300):
            r = client.request(random.choice(["GET", "POST"]), f"{API}/agent/runs/{i}")
            assert r.status_code == 401
    oz.assert_alive()
