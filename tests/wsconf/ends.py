"""The ends that cases are played against, and how a connection to each is made.

An end is a program that echoes messages on a port that it prints ("port N") and, told "dial URL" on stdin, on a connection that
it makes itself, whose end it prints ("closed CODE"). It ends when its stdin does."""
import base64
import contextlib
import hashlib
import os
import pathlib
import socket
import ssl
import subprocess
import sys

import judge
from harness import BINARY, ROOT

HERE = pathlib.Path(__file__).parent
TOOL = pathlib.Path(os.environ.get("WS_ECHO", BINARY.parent / "tests/unit/ws-echo")).resolve()
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
SECONDS = 15


class Handshake(Exception):
    pass


def answer_to(key):
    return base64.b64encode(hashlib.sha1(key + GUID).digest())


class End:
    def __init__(self, command, env=None, certificate=None):
        self.certificate = certificate  # (file, its key's file): it speaks TLS
        self.process = subprocess.Popen([str(c) for c in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env={**os.environ, **(env or {})})
        word, _, number = self.process.stdout.readline().strip().partition(" ")
        assert word == "port", f"{command} did not start"
        self.port = int(number)

    def dial(self, url):
        self.process.stdin.write(f"dial {url}\n")
        self.process.stdin.flush()

    def stop(self):
        """Its last lines; a sanitizer's findings are an exit code."""
        rest = self.process.communicate(timeout=SECONDS)[0]
        assert self.process.returncode == 0, f"it ended with {self.process.returncode}: {rest[-2000:]}"
        return rest


def muster(certificate=None):
    assert TOOL.exists(), f"{TOOL} does not exist: build it, or name it with WS_ECHO"
    return End([TOOL, *(certificate or ())], certificate=certificate)


def websockets():
    # By itself it takes no more than 4096 fragments; 9.3.1 has 65536.
    return End([sys.executable, HERE / "echo_websockets.py"], {"WEBSOCKETS_MAX_FRAGMENTS": "100000"})


def ws(where):
    return End(["node", HERE / "echo_ws.cjs"], {"NODE_PATH": str(ROOT / where / "node_modules")})


def head_of(sock):
    """(first line, headers, what came behind the block)."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(65536)
        if not piece or len(data) > 65536:
            raise Handshake(f"no header block: {data[:200]!r}")
        data += piece
    block, _, rest = data.partition(b"\r\n\r\n")
    first, *lines = block.split(b"\r\n")
    headers = {}
    for line in lines:
        name, _, value = line.partition(b":")
        headers[name.lower().decode()] = value.strip()
    return first, headers, rest


def secured(sock, certificate, client):
    """A connection that only ends with a close_notify."""
    if not certificate:
        return sock
    if client:
        context = ssl.create_default_context(cafile=certificate[0])
        return context.wrap_socket(sock, server_hostname="127.0.0.1", suppress_ragged_eofs=False)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context.wrap_socket(sock, server_side=True, suppress_ragged_eofs=False)


def attack_server(case, port, certificate=None):
    """The case, with us as the client."""
    with secured(socket.create_connection(("127.0.0.1", port), SECONDS), certificate, client=True) as sock:
        key = base64.b64encode(os.urandom(16))
        sock.sendall(b"GET /%s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     b"Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n\r\n" % (case.number.encode(), port, key))
        first, headers, rest = head_of(sock)
        if not first.startswith(b"HTTP/1.1 101 ") or headers.get("sec-websocket-accept") != answer_to(key):
            raise Handshake(f"{first!r} {headers}")
        if "sec-websocket-extensions" in headers or "sec-websocket-protocol" in headers:
            raise Handshake(f"it agrees to what was not offered: {headers}")
        return judge.play(case, judge.Talk(sock, client=True, early=rest))


def attack_client(case, end):
    """The case, with us as the server that the end is told to dial."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        listener.settimeout(SECONDS)
        end.dial(f"{'wss' if end.certificate else 'ws'}://127.0.0.1:{listener.getsockname()[1]}/{case.number}")
        raw, _ = listener.accept()
        raw.settimeout(SECONDS)
        with secured(raw, end.certificate, client=False) as sock:
            first, headers, rest = head_of(sock)
            wanted = b"GET /%s HTTP/1.1" % case.number.encode()
            if first != wanted or headers.get("sec-websocket-version") != b"13" or "host" not in headers:
                raise Handshake(f"{first!r} {headers}")
            if headers.get("upgrade", b"").lower() != b"websocket" or headers.get("connection", b"").lower() != b"upgrade":
                raise Handshake(f"no upgrade: {headers}")
            if len(base64.b64decode(headers.get("sec-websocket-key", b""), validate=True)) != 16 or rest:
                raise Handshake(f"key {headers.get('sec-websocket-key')}, {len(rest)} bytes behind the request")
            sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                         b"Sec-WebSocket-Accept: %s\r\n\r\n" % answer_to(headers["sec-websocket-key"]))
            return judge.play(case, judge.Talk(sock, client=False))


def play(case, end, side):
    return attack_server(case, end.port, end.certificate) if side == "server" else attack_client(case, end)
