"""The hostile table: what arrives and the one permitted outcome. Written before the code that it judges
(stack.md 2, oz-api.md 1 and 17, architecture.md G11).

An outcome is a status and whether the connection is closed after it. Framing errors always close: what follows cannot be
trusted to begin where we think. No row may be answered 5xx (but 501, 505) or with silence; none may have an effect.
"""
from typing import NamedTuple

TOKEN = b"hostile-tenant"
HOST = b"Host: 127.0.0.1\r\n"
AUTH = b"Authorization: Bearer " + TOKEN + b"\r\n"
BODY = b'{"prompt":"hostile"}'
RUN = b"POST /api/v1/agent/run HTTP/1.1\r\n"
ENVIRONMENT = b"POST /api/v1/environments HTTP/1.1\r\n"
LIST = b"GET /api/v1/agent/runs HTTP/1.1\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(BODY)


class Row(NamedTuple):
    name: str
    raw: bytes
    status: int
    close: bool = True


def get(target=b"/api/v1/agent/runs", version=b"HTTP/1.1", headers=HOST + AUTH, method=b"GET"):
    return method + b" " + target + b" " + version + b"\r\n" + headers + b"\r\n"


def post(headers, body=BODY, route=RUN):
    return route + HOST + AUTH + headers + b"\r\n" + body


CHUNKED = b"Transfer-Encoding: chunked\r\n"

FRAMING = [
    Row("both lengths", post(LENGTH + CHUNKED, b"0\r\n\r\n"), 400),
    Row("both lengths, chunked first", post(CHUNKED + LENGTH, b"0\r\n\r\n"), 400),
    Row("two different lengths", post(LENGTH + b"Content-Length: 5\r\n"), 400),
    Row("two equal lengths", post(LENGTH + LENGTH), 400),
    Row("length list", post(b"Content-Length: %d, %d\r\n" % (len(BODY), len(BODY))), 400),
    Row("length with plus", post(b"Content-Length: +%d\r\n" % len(BODY)), 400),
    Row("length with minus", post(b"Content-Length: -1\r\n"), 400),
    Row("length in hex", post(b"Content-Length: 0x14\r\n"), 400),
    Row("length with a blank inside", post(b"Content-Length: 2 0\r\n"), 400),
    Row("length empty", post(b"Content-Length:\r\n"), 400),
    Row("length with text", post(b"Content-Length: 20abc\r\n"), 400),
    Row("length beyond 64 bit", post(b"Content-Length: 99999999999999999999999\r\n"), 400),
    Row("length just beyond 64 bit", post(b"Content-Length: 18446744073709551616\r\n"), 400),
    Row("length far beyond the limit", post(b"Content-Length: 1000000000000\r\n", b""), 413),
    Row("blank before the colon", post(b"Content-Length : %d\r\n" % len(BODY)), 400),
    Row("transfer coding unknown", post(b"Transfer-Encoding: gzip\r\n", b""), 501),
    Row("transfer coding not last", post(b"Transfer-Encoding: chunked, gzip\r\n", b""), 400),
    Row("transfer coding twice chunked", post(b"Transfer-Encoding: chunked, chunked\r\n", b"0\r\n\r\n"), 400),
    Row("transfer coding misspelt", post(b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n"), 501),
    Row("transfer coding with a control byte", post(b"Transfer-Encoding: \x0bchunked\r\n", b"0\r\n\r\n"), 400),
    Row("transfer coding in HTTP/1.0", b"POST /api/v1/agent/run HTTP/1.0\r\n" + HOST + AUTH + CHUNKED + b"\r\n0\r\n\r\n", 400),
    Row("chunk size negative", post(CHUNKED, b"-1\r\n\r\n"), 400),
    Row("chunk size with 0x", post(CHUNKED, b"0x14\r\n" + BODY + b"\r\n0\r\n\r\n"), 400),
    Row("chunk size not hex", post(CHUNKED, b"zz\r\n"), 400),
    Row("chunk size empty", post(CHUNKED, b"\r\n"), 400),
    Row("chunk size beyond 64 bit", post(CHUNKED, b"fffffffffffffffff\r\n"), 400),
    Row("chunk size with a leading blank", post(CHUNKED, b" 14\r\n" + BODY + b"\r\n0\r\n\r\n"), 400),
    Row("chunk data without CRLF", post(CHUNKED, b"14\r\n" + BODY + b"0\r\n\r\n"), 400),
    Row("chunk data longer than said", post(CHUNKED, b"5\r\n" + BODY + b"\r\n0\r\n\r\n"), 400),
    Row("chunk line ended by LF", post(CHUNKED, b"14\n" + BODY + b"\r\n0\r\n\r\n"), 400),
    Row("chunk line ended by CR", post(CHUNKED, b"14\r" + BODY + b"\r\n0\r\n\r\n"), 400),
    Row("chunk extension endless", post(CHUNKED, b"14;" + b"x" * 100_000 + b"\r\n" + BODY + b"\r\n0\r\n\r\n"), 400),
    Row("bare CR in a header", get(headers=HOST + AUTH + b"X: a\rb\r\n"), 400),
    Row("bare LF ends a header", get(headers=HOST + AUTH + b"X: a\nY: b\r\n"), 400),
    Row("CR ends the header block", LIST + HOST + AUTH + b"\r\r\n", 400),
    Row("folded header", get(headers=HOST + AUTH + b"X: a\r\n b\r\n"), 400),
    Row("first header folded", LIST + b" " + HOST + AUTH + b"\r\n", 400),
    Row("NUL in a header value", get(headers=HOST + AUTH + b"X: a\0b\r\n"), 400),
    Row("NUL in a header name", get(headers=HOST + AUTH + b"X\0: a\r\n"), 400),
    Row("control byte in a value", get(headers=HOST + AUTH + b"X: a\x01b\r\n"), 400),
    Row("header without a colon", get(headers=HOST + AUTH + b"nothing here\r\n"), 400),
    Row("header without a name", get(headers=HOST + AUTH + b": value\r\n"), 400),
    Row("blank in a header name", get(headers=HOST + AUTH + b"X Y: a\r\n"), 400),
    Row("header name not ASCII", get(headers=HOST + AUTH + "Ü: a\r\n".encode()), 400),
]

START_LINE = [
    Row("not HTTP at all", b"hello there\r\n\r\n", 400),
    Row("TLS hello on the plain port", bytes.fromhex("16030100a5010000a10303") + b"\0" * 60 + b"\r\n\r\n", 400),
    Row("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    Row("version 0.9", b"GET /health\r\n\r\n", 400),
    Row("version 2.0", get(version=b"HTTP/2.0"), 505),
    Row("version 1.2", get(version=b"HTTP/1.2"), 505),
    Row("version in lower case", get(version=b"http/1.1"), 400),
    Row("version with a blank", get(version=b"HTTP/ 1.1"), 400),
    Row("version of three parts", get(version=b"HTTP/1.1.1"), 400),
    Row("version with plus", get(version=b"HTTP/+1.1"), 400),
    Row("method in lower case", get(method=b"get"), 400),
    Row("method unknown", get(method=b"FROBNICATE"), 400),
    Row("method empty", b" /health HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    Row("method with a control byte", get(method=b"G\x01T"), 400),
    Row("tab instead of blank", b"GET\t/health\tHTTP/1.1\r\n" + HOST + b"\r\n", 400),
    Row("CONNECT", b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n", 400),
    Row("bare LF after the start line", b"GET /health HTTP/1.1\n" + HOST + b"\r\n", 400),
    Row("bare CR in the start line", b"GET /hea\rlth HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    Row("start line of 9 KiB", get(b"/" + b"a" * 9000), 414),
    Row("start line of 1 MiB", get(b"/" + b"a" * (1 << 20)), 414),
]

TARGET = [
    Row("absolute form of another host", get(b"http://evil.example/health"), 400),
    Row("authority form", get(b"evil.example:80"), 400),
    Row("asterisk form of GET", get(b"*"), 400),
    Row("target empty", b"GET  HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    Row("target without a slash", get(b"health"), 400),
    Row("blank in the target", get(b"/a b"), 400),
    Row("NUL in the target", get(b"/a\0b"), 400),
    Row("encoded NUL", get(b"/api/v1/agent/runs/%00"), 400),
    Row("encoded CR LF", get(b"/api/v1/agent/runs/%0d%0aX:1"), 400),
    Row("control byte in the target", get(b"/a\x7fb"), 400),
    Row("raw non-ASCII", get("/ü".encode()), 400),
    Row("broken percent code", get(b"/api/v1/agent/runs/%zz"), 400),
    Row("percent at the end", get(b"/api/v1/agent/runs/%"), 400),
    Row("invalid UTF-8 after decoding", get(b"/api/v1/agent/runs/%ff%fe"), 400),
    Row("overlong UTF-8 dot", get(b"/api/v1/%c0%ae%c0%ae/health"), 400),
    Row("climbs out of the root", get(b"/../../../../etc/passwd"), 400),
    Row("climbs out of the root, encoded", get(b"/%2e%2e/%2e%2e/etc/passwd"), 400),
    Row("encoded slash", get(b"/api%2fv1%2fagent%2fruns"), 400),
    Row("skills of an option", get(b"/api/v1/agent?repo=--upload-pack=x/y"), 400, close=False),
    Row("skills of a transport", get(b"/api/v1/agent?repo=ext::sh%20-c%20x/y"), 400, close=False),
    Row("skills of a folder", get(b"/api/v1/agent?repo=../../etc"), 400, close=False),
    Row("skills of a file", get(b"/api/v1/agent?repo=file:///etc/x"), 400, close=False),
    Row("skills of a ref with an option", get(b"/api/v1/agent?repo=a/b%23--x"), 400, close=False),
    Row("skills with a NUL", get(b"/api/v1/agent?repo=a/b%00"), 400, close=False),
    Row("skills twice", get(b"/api/v1/agent?sort_by=name&sort_by=size"), 400, close=False),
    Row("double encoding is decoded once", get(b"/api/v1/agent/runs/%252e%252e"), 404, close=False),
    Row("double dots inside the root", get(b"/api/v1/x/../agent/runs"), 400),
    Row("single dots are removed", get(b"/api/v1/./agent/runs"), 200, close=False),
    Row("backslash", get(b"/api\\v1\\agent\\runs"), 400),
    Row("fragment", get(b"/health#top"), 400),
]

HOSTS = [
    Row("no Host", LIST + AUTH + b"\r\n", 400),
    Row("two Hosts", get(headers=HOST + HOST + AUTH), 400),
    Row("two different Hosts", get(headers=HOST + b"Host: evil.example\r\n" + AUTH), 400),
    Row("Host empty", get(headers=b"Host:\r\n" + AUTH), 400),
    Row("Host with a path", get(headers=b"Host: 127.0.0.1/x\r\n" + AUTH), 400),
    Row("Host with user info", get(headers=b"Host: me@127.0.0.1\r\n" + AUTH), 400),
    Row("Host with a blank", get(headers=b"Host: 127.0.0.1 x\r\n" + AUTH), 400),
    Row("Host with a comma", get(headers=b"Host: 127.0.0.1, evil\r\n" + AUTH), 400),
    Row("Host with a bad port", get(headers=b"Host: 127.0.0.1:99999\r\n" + AUTH), 400),
    Row("Host with text as port", get(headers=b"Host: 127.0.0.1:http\r\n" + AUTH), 400),
    Row("Host unclosed bracket", get(headers=b"Host: [::1\r\n" + AUTH), 400),
    Row("Host of the loopback name", get(headers=b"Host: localhost\r\n" + AUTH), 200, close=False),
    Row("malformed Host on an upgrade", b"GET /api/v1/selfhosted/worker/ws HTTP/1.1\r\nHost: [\r\nConnection: Upgrade\r\n"
        b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", 400),
]

SIZES = [
    Row("101 headers", get(headers=HOST + AUTH + b"".join(b"X-%d: y\r\n" % i for i in range(101))), 431),
    Row("10,000 headers", get(headers=HOST + AUTH + b"X: y\r\n" * 10_000), 431),
    Row("header block of 33 KiB", get(headers=HOST + AUTH + b"X: " + b"y" * 33_800 + b"\r\n"), 431),
    Row("header of 1 MiB", get(headers=HOST + AUTH + b"X: " + b"y" * (1 << 20) + b"\r\n"), 431),
    Row("header name of 40 KiB", get(headers=HOST + AUTH + b"X" * 40_000 + b": y\r\n"), 431),
    Row("95 headers", get(headers=HOST + AUTH + b"".join(b"X-%d: y\r\n" % i for i in range(95))), 200, close=False),
    Row("header of 30 KiB", get(headers=HOST + AUTH + b"X: " + b"y" * 30_000 + b"\r\n"), 200, close=False),
    Row("start line of 7 KiB", get(b"/api/v1/agent/runs?q=" + b"a" * 150 + b"&z=" + b"b" * 7000), 200, close=False),
    Row("body one byte too long", post(b"Content-Length: 1000001\r\n", b"x" * 1_000_001, ENVIRONMENT), 413),
    Row("body of 3 MB", post(b"Content-Length: 3000000\r\n", b"x" * 3_000_000, ENVIRONMENT), 413),
    Row("chunked body too long", post(CHUNKED, b"f4241\r\n" + b"x" * 1_000_001 + b"\r\n0\r\n\r\n", ENVIRONMENT), 413),
    Row("too long, asked before", post(b"Content-Length: 2000000\r\nExpect: 100-continue\r\n", b"", ENVIRONMENT), 413),
    Row("run with images beyond 32 MiB", post(b"Content-Length: 33554433\r\nExpect: 100-continue\r\n", b""), 413),
    Row("too long, without key", RUN + HOST + b"Content-Length: 2000000\r\n\r\n", 401),
]



def sandbox(text):
    body = b'{"name":"n","docker_image":"d","sandbox":' + text + b"}"
    return post(b"Content-Length: %d\r\n" % len(body), body, ENVIRONMENT)


SANDBOXES = [
    Row("sandbox is text", sandbox(b'"proxy"'), 400, close=False),
    Row("sandbox with an unknown member", sandbox(b'{"privileged":true}'), 400, close=False),
    Row("sandbox with a folder of the worker", sandbox(b'{"base":"/"}'), 400, close=False),
    Row("sandbox: a member of another case", sandbox(b'{"Nested":true}'), 400, close=False),
    Row("sandbox: rights that the tenant has not", sandbox(b'{"nested":true}'), 403, close=False),
    Row("sandbox: the worker's network", sandbox(b'{"network":{"mode":"host"}}'), 403, close=False),
    Row("sandbox: a right behind one that it has", sandbox(b'{"nested":false,"nested":true}'), 400, close=False),
    Row("sandbox: an unknown mode", sandbox(b'{"network":{"mode":"HOST"}}'), 400, close=False),
    Row("sandbox: hosts without the proxy", sandbox(b'{"network":{"mode":"none","allow":["a.example:1"]}}'), 400, close=False),
    Row("sandbox: an address", sandbox(b'{"network":{"allow":["169.254.169.254:80"]}}'), 400, close=False),
    Row("sandbox: an address in hex", sandbox(b'{"network":{"allow":["0xa9fea9fe:80"]}}'), 400, close=False),
    Row("sandbox: an address in brackets", sandbox(b'{"network":{"allow":["[::ffff:127.0.0.1]:80"]}}'), 400, close=False),
    Row("sandbox: everything", sandbox(b'{"network":{"allow":["*:443"]}}'), 400, close=False),
    Row("sandbox: two hosts in one", sandbox(b'{"network":{"allow":["a.example:1,*.b.example:1"]}}'), 400, close=False),
    Row("sandbox: a zero byte in a host", sandbox(b'{"network":{"allow":["a.example\\u0000.b.example:443"]}}'), 400, close=False),
    Row("sandbox: 257 hosts", sandbox(b'{"network":{"allow":[' + b",".join([b'"a.example:1"'] * 257) + b"]}}"), 400, close=False),
    Row("sandbox: memory beyond 64 bit", sandbox(b'{"limits":{"memory_mb":99999999999999999999}}'), 400, close=False),
    Row("sandbox: less than no processor", sandbox(b'{"limits":{"cpus":-0.5}}'), 400, close=False),
    Row("sandbox: processors without an end", sandbox(b'{"limits":{"cpus":1e999}}'), 400, close=False),
]

ODD_BUT_FINE = [
    Row("chunked", post(CHUNKED, b"14\r\n" + BODY + b"\r\n0\r\n\r\n"), 200, close=False),
    Row("chunked in single bytes", post(CHUNKED, b"".join(b"1\r\n%c\r\n" % b for b in BODY) + b"0\r\n\r\n"), 200, close=False),
    Row("chunked with trailers", post(CHUNKED, b"14\r\n" + BODY + b"\r\n0\r\nX-Trailer: 1\r\n\r\n"), 200, close=False),
    Row("chunk extension", post(CHUNKED, b"14;a=b\r\n" + BODY + b"\r\n0\r\n\r\n"), 200, close=False),
    Row("upper case hex", post(CHUNKED, b"00000014\r\n" + BODY + b"\r\n0\r\n\r\n"), 200, close=False),
    Row("CHUNKED in upper case", post(b"Transfer-Encoding: CHUNKED\r\n", b"14\r\n" + BODY + b"\r\n0\r\n\r\n"), 200, close=False),
    Row("empty line first", b"\r\n" + get(), 200, close=False),
    Row("tabs around a value", get(headers=HOST + AUTH + b"X:\t a \t\r\n"), 200, close=False),
    Row("header names in any case", get(headers=b"hOsT: 127.0.0.1\r\n" + AUTH), 200, close=False),
    Row("HTTP/1.0", get(version=b"HTTP/1.0"), 200),
    Row("HTTP/1.0 kept alive", get(version=b"HTTP/1.0", headers=HOST + AUTH + b"Connection: keep-alive\r\n"), 200, close=False),
    Row("Connection: close", get(headers=HOST + AUTH + b"Connection: close\r\n"), 200),
    Row("GET with a body", LIST + HOST + AUTH + b"Content-Length: 5\r\n\r\nhello", 200, close=False),
    Row("unknown Expect", post(LENGTH + b"Expect: a-miracle\r\n"), 417),
    Row("upgrade to h2c is not taken", get(headers=HOST + AUTH + b"Connection: Upgrade\r\nUpgrade: h2c\r\n"), 200, close=False),
    Row("upgrade elsewhere", get(b"/nothing", headers=HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n"), 404),
    Row("unknown header of odd bytes", get(headers=HOST + AUTH + "X: ünïcödé\r\n".encode()), 200, close=False),
]

SESSION = b"01a20099-a806-705f-8368-7e7c95432e99"
SESSIONS = [
    Row("session of no form", get(b"/api/v1/sessions/x"), 404, close=False),
    Row("session with another prefix", get(b"/api/v1/sessions/env_" + SESSION), 404, close=False),
    Row("session in upper case", get(b"/api/v1/sessions/SES_" + SESSION), 404, close=False),
    Row("session of 4,000 characters", get(b"/api/v1/sessions/" + b"a" * 4000), 404, close=False),
    Row("session with an encoded NUL", get(b"/api/v1/sessions/ses_%00"), 400),
    Row("session that climbs", get(b"/api/v1/sessions/../keys"), 400),
    Row("approval of no form", post(b"Content-Length: 20\r\n", b'{"decision":"allow"}', b"POST /api/v1/sessions/ses_" + SESSION +
        b"/approvals/' HTTP/1.1\r\n"), 404, close=False),
    Row("page of another kind", get(b"/api/v1/sessions?page=1e3"), 400, close=False),
    Row("page beyond 64 bit", get(b"/api/v1/sessions?page=99999999999999999999999"), 400, close=False),
    Row("page twice", get(b"/api/v1/sessions?page=1&page=2"), 400, close=False),
    Row("pages of nothing", get(b"/api/v1/sessions?pageSize=0"), 400, close=False),
    Row("cursor of nothing", get(b"/api/v1/sessions?cursor=%3d%3d"), 400, close=False),
    Row("cursor of 500 letters", get(b"/api/v1/sessions?cursor=" + b"A" * 500), 400, close=False),
    Row("cursor with a NUL", get(b"/api/v1/sessions?cursor=%00"), 400, close=False),
    Row("org with a quote", get(b"/api/v1/sessions?orgId='%20OR%201=1"), 400, close=False),
    Row("another org", get(b"/api/v1/sessions?orgId=org-123"), 403, close=False),
    Row("query that does not decode", get(b"/api/v1/sessions?q=%zz"), 400, close=False),
    Row("words that are patterns", get(b"/api/v1/sessions?q=%25_%27"), 200, close=False),
    Row("70 states", get(b"/api/v1/sessions?" + b"&".join([b"state=QUEUED"] * 70)), 400, close=False),
    Row("last event of no number", get(b"/api/v1/sessions/ses_" + SESSION + b"/events/stream",
        headers=HOST + AUTH + b"Last-Event-ID: -1\r\n"), 400, close=False),
    Row("upgrade of a session", get(b"/api/v1/sessions", headers=HOST + AUTH + b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"), 404),
    Row("body of a session too long", post(b"Content-Length: 1048577\r\n", b"", b"POST /api/v1/sessions HTTP/1.1\r\n"), 413),
    Row("no such method of sessions", get(b"/api/v1/sessions", method=b"PUT"), 405, close=False),
]

RUNNERS = [
    Row("runner of no form", get(b"/api/v1/runners/x"), 404, close=False),
    Row("runner with another prefix", get(b"/api/v1/runners/ses_" + SESSION), 404, close=False),
    Row("runner with an encoded NUL", get(b"/api/v1/runners/rnr_%00"), 400),
    Row("events of a runner of no form", get(b"/api/v1/runners/'/events"), 404, close=False),
    Row("status of no kind", get(b"/api/v1/runners?status=busy"), 400, close=False),
    Row("label with a quote", get(b"/api/v1/runners?label='"), 400, close=False),
    Row("runners of another org", get(b"/api/v1/runners?orgId=org-123"), 403, close=False),
    Row("cursor of runners of 500 letters", get(b"/api/v1/runners?cursor=" + b"A" * 500), 400, close=False),
    Row("register with a tenant's token", post(b"Content-Length: 2\r\n", b"{}", b"POST /api/v1/runners HTTP/1.1\r\n"), 403,
        close=False),
    Row("enrolment by an operator", post(b"Content-Length: 2\r\n", b"{}", b"POST /api/v1/runner-enrolments HTTP/1.1\r\n"), 403,
        close=False),
    Row("unknown enrolment token", get(b"/api/v1/runners", headers=HOST + b"Authorization: Bearer en_" + b"0" * 64 + b"\r\n"), 401,
        close=False),
    Row("unknown credential of a worker", get(b"/api/v1/runners", headers=HOST + b"Authorization: Bearer wk_" + b"0" * 64 + b"\r\n"),
        401, close=False),
    Row("link of a runner without an upgrade", get(b"/api/v1/runners/rnr_" + SESSION + b"/link"), 403, close=False),
]

HTTP = RUNNERS + SESSIONS + FRAMING + START_LINE + TARGET + HOSTS + SIZES + SANDBOXES + ODD_BUT_FINE


class Json(NamedTuple):
    name: str
    body: bytes
    status: int = 400
    code: str = "invalid_json"


def deep(n, opening=b"[", closing=b"]"):
    return b'{"prompt":"x","extra":' + opening * n + (b"0" if opening != b"[" else b"") + closing * n + b"}"


JSON = [
    Json("empty object", b"{}", code="missing_field"),
    Json("cut short", b'{"prompt":"x"'),
    Json("cut inside a text", b'{"prompt":"x'),
    Json("cut inside an escape", b'{"prompt":"\\'),
    Json("cut inside a unicode escape", b'{"prompt":"\\u00'),
    Json("text after the end", b'{"prompt":"x"} trailing'),
    Json("two documents", b'{"prompt":"x"}{"prompt":"y"}'),
    Json("trailing comma", b'{"prompt":"x",}'),
    Json("comment", b'{"prompt":"x"/* no */}'),
    Json("single quotes", b"{'prompt':'x'}"),
    Json("key without quotes", b'{prompt:"x"}'),
    Json("byte-order mark", b'\xef\xbb\xbf{"prompt":"x"}'),
    Json("UTF-16", '{"prompt":"x"}'.encode("utf-16")),
    Json("NaN", b'{"prompt":"x","a":NaN}'),
    Json("Infinity", b'{"prompt":"x","a":Infinity}'),
    Json("leading zero", b'{"prompt":"x","a":01}'),
    Json("leading plus", b'{"prompt":"x","a":+1}'),
    Json("hex number", b'{"prompt":"x","a":0x10}'),
    Json("number ends with a dot", b'{"prompt":"x","a":1.}'),
    Json("number beyond a double", b'{"prompt":"x","a":1e400}'),
    Json("number of 100,000 digits", b'{"prompt":"x","a":' + b"9" * 100_000 + b"}"),
    Json("exponent of 100,000 digits", b'{"prompt":"x","a":1e' + b"9" * 100_000 + b"}"),
    Json("duplicate key", b'{"prompt":"x","prompt":"y"}'),
    Json("duplicate key, escaped", b'{"prompt":"x","\\u0070rompt":"y"}'),
    Json("duplicate key inside", b'{"prompt":"x","config":{"name":"a","name":"b"}}'),
    Json("raw control byte in a text", b'{"prompt":"a\x01b"}'),
    Json("raw newline in a text", b'{"prompt":"a\nb"}'),
    Json("raw NUL in a text", b'{"prompt":"a\0b"}'),
    Json("NUL after the end", b'{"prompt":"x"}\0'),
    Json("invalid UTF-8", b'{"prompt":"\xff\xfe"}'),
    Json("invalid UTF-8 in a key", b'{"prompt":"x","\xff":1}'),
    Json("overlong UTF-8", b'{"prompt":"\xc0\xaf"}'),
    Json("surrogate in UTF-8", b'{"prompt":"\xed\xa0\x80"}'),
    Json("beyond Unicode", b'{"prompt":"\xf5\x80\x80\x80"}'),
    Json("cut UTF-8", b'{"prompt":"\xf0\x9f\x9a"}'),
    Json("lone surrogate escape", b'{"prompt":"\\ud800"}'),
    Json("low surrogate first", b'{"prompt":"\\udc00\\ud800"}'),
    Json("bad escape", b'{"prompt":"\\x41"}'),
    Json("depth of 1,000", deep(1000)),
    Json("depth of 400,000", deep(400_000)),
    Json("depth of 100,000 objects", deep(100_000, b'{"a":', b"}")),
    Json("only opening brackets", b"[" * 900_000),
    Json("array instead of an object", b'["prompt"]', code="invalid_field"),
    Json("text instead of an object", b'"prompt"', code="invalid_field"),
    Json("number instead of an object", b"5", code="invalid_field"),
    Json("null", b"null", code="missing_field"),
    Json("nothing", b"", code="missing_field"),
    Json("blanks", b"  \r\n\t ", code="missing_field"),
    Json("NUL in the prompt", b'{"prompt":"a\\u0000b"}', code="invalid_field"),
    Json("NUL in a name", b'{"prompt":"x","config":{"name":"a\\u0000b"}}', code="invalid_field"),
    Json("surrogate pair", b'{"prompt":"\\ud83d\\ude80"}', 200, ""),
    Json("escaped key", b'{"\\u0070rompt":"x"}', 200, ""),
    Json("blanks around", b' \r\n\t{ "prompt" : "x" }\r\n ', 200, ""),
    Json("depth of 20", deep(20), 200, ""),
    Json("big integers", b'{"prompt":"x","a":[9223372036854775807,18446744073709551615,-9223372036854775808]}', 200, ""),
    Json("100,000 unknown members", b'{"prompt":"x",' + b",".join(b'"k%d":0' % i for i in range(60_000)) + b"}", 200, ""),
    Json("a million commas", b"[" + b"," * 900_000),
    Json("empty key", b'{"prompt":"x","":1}', 200, ""),
]
