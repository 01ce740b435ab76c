"""A scripted server for `muster worker`: the worker's WebSocket path in both manners (plain as the original server
speaks, native), file uploads and prompts, on one loopback port. Nothing here knows how the worker is built inside."""
import base64
import hashlib
import json
import queue
import re
import socket
import struct
import threading
import time
import urllib.parse

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
PATH = "/api/v1/selfhosted/worker/ws"


class Gone(Exception):
    """The connection has ended."""


class Connection:
    """One worker's connection, after its handshake."""

    def __init__(self, server, sock, rest, target, headers):
        self.server, self.sock, self.buffer = server, sock, rest
        self.query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(target).query))
        self.headers = headers
        self.messages = []          # everything that came, in order
        self.pings = 0
        self.close_code = None
        self.open = True
        self.answer_pings = True
        self.changed = threading.Condition()
        self.lock = threading.Lock()
        self.taken = 0
        self.native = False
        self.welcomed = threading.Event()

    # --- receiving ---
    def _bytes(self, n):
        while len(self.buffer) < n:
            piece = self.sock.recv(65536)
            if not piece:
                raise Gone
            self.buffer += piece
        out, self.buffer = self.buffer[:n], self.buffer[n:]
        return out

    def _frame(self):
        first, second = self._bytes(2)
        length = second & 127
        if length == 126:
            length, = struct.unpack(">H", self._bytes(2))
        elif length == 127:
            length, = struct.unpack(">Q", self._bytes(8))
        assert second & 128, "a client must mask"
        mask = self._bytes(4)
        payload = self._bytes(length)
        key = (mask * (length // 4 + 1))[:length]
        payload = (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(length, "big") if length else b""
        return first & 128, first & 15, payload

    def read_loop(self):
        parts, kind = b"", 1
        try:
            while True:
                fin, op, payload = self._frame()
                if op == 8:
                    self.close_code = struct.unpack(">H", payload[:2])[0] if len(payload) >= 2 else 1005
                    self._send_frame(8, payload)
                    break
                if op == 9:
                    self.pings += 1
                    if self.answer_pings:
                        self._send_frame(10, payload)
                elif op in (0, 1, 2):
                    parts, kind = parts + payload, op or kind
                    if fin:
                        if kind == 1:  # binary ones are what terminals show
                            self._arrived(json.loads(parts))
                        parts = b""
        except (Gone, OSError):
            pass
        with self.changed:
            self.open = False
            self.changed.notify_all()
        self.sock.close()

    def _arrived(self, message):
        with self.changed:
            self.messages.append(message)
            self.changed.notify_all()
        self.server.on_message(self, message)

    def expect(self, kind, timeout=15.0, **data):
        """The next message of that type with these data members, among those not looked at yet; skips others."""
        def find():
            for i, m in enumerate(self.messages[self.taken:], self.taken):
                if m["type"] == kind and all(m["data"].get(k) == v for k, v in data.items()):
                    return i
            return None
        end = time.monotonic() + timeout
        with self.changed:
            while (i := find()) is None:
                left = end - time.monotonic()
                if left <= 0 or not self.open:
                    types = [m["type"] for m in self.messages]
                    raise AssertionError(f"no {kind} {data}; open {self.open}, came {types}")
                self.changed.wait(min(left, 0.5))
            self.taken = i + 1
            return self.messages[i]["data"]

    def of(self, kind):
        with self.changed:
            return [m["data"] for m in self.messages if m["type"] == kind]

    def wait_closed(self, timeout=15.0):
        end = time.monotonic() + timeout
        with self.changed:
            while self.open:
                left = end - time.monotonic()
                assert left > 0, "the connection stays open"
                self.changed.wait(min(left, 0.5))

    # --- sending ---
    def _send_frame(self, op, payload, fin=True):
        head = bytes([(128 if fin else 0) | op])
        n = len(payload)
        head += bytes([n]) if n < 126 else struct.pack(">BH", 126, n) if n < 65536 else struct.pack(">BQ", 127, n)
        with self.lock:
            try:
                self.sock.sendall(head + payload)
            except OSError:
                pass

    def send(self, kind, pieces=None, **data):
        """One message; `pieces`: as so many fragments."""
        text = json.dumps({"type": kind, "data": data}).encode()
        if not pieces:
            self._send_frame(1, text)
            return
        step = max(len(text) // pieces, 1)
        cuts = [text[i:i + step] for i in range(0, len(text), step)]
        for i, cut in enumerate(cuts):
            self._send_frame(1 if i == 0 else 0, cut, fin=i + 1 == len(cuts))

    def raw(self, text):
        self._send_frame(1, text if isinstance(text, bytes) else text.encode())

    def close(self, code=1000, reason=""):
        self._send_frame(8, struct.pack(">H", code) + reason.encode())

    def drop(self):
        """As if the cable were cut."""
        try:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


class WorkerServer:
    def __init__(self, native=False, key="worker-key-of-these-tests"):
        self.native, self.key = native, key
        self.auto_ack = True
        self.welcome = {}           # more members of the welcome
        self.refuse = None          # (status, {header: value})
        self.attempts = []          # (monotonic time, authorization) of every upgrade request
        self.files = {}             # (run, name) -> (media type, bytes)
        self.file_status = 200
        self.on_put = None          # called with the name: a status, or None
        self.prompts = {}           # run -> text
        self.checkpoints = {}       # run -> {"" or the name of a part: bytes, or a status}
        self.tokens = []            # bearers of uploads and prompt fetches
        self.connections = queue.Queue()
        self.all = []
        self.keep = []              # execution ids that the next welcome keeps
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.closing = False
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def stop(self):
        self.closing = True
        self.socket.close()
        for c in self.all:
            c.drop()

    def _accept(self):
        while not self.closing:
            try:
                sock, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock):
        try:
            self._serve_one(sock)
        except OSError:
            pass

    def _serve_one(self, sock):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        data = b""
        while b"\r\n\r\n" not in data:
            piece = sock.recv(65536)
            if not piece:
                sock.close()
                return
            data += piece
        head, _, rest = data.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        method, target, _ = lines[0].split(" ")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
        if urllib.parse.urlsplit(target).path == PATH:
            self._upgrade(sock, rest, target, headers)
        else:
            self._plain(sock, rest, method, target, headers)

    def _upgrade(self, sock, rest, target, headers):
        self.attempts.append((time.monotonic(), headers.get("authorization")))
        refuse = self.refuse
        if refuse is None and headers.get("authorization") != f"Bearer {self.key}":
            refuse = (401, {})
        if refuse:
            status, more = refuse
            body = b'{"error":"refused"}'
            more = "".join(f"{k}: {v}\r\n" for k, v in more.items())
            sock.sendall(f"HTTP/1.1 {status} Refused\r\nContent-Length: {len(body)}\r\n{more}Connection: close\r\n\r\n"
                         .encode() + body)
            sock.close()
            return
        accept = base64.b64encode(hashlib.sha1((headers["sec-websocket-key"] + GUID).encode()).digest()).decode()
        sock.sendall(f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode())
        c = Connection(self, sock, rest, target, headers)
        self.all.append(c)
        self.connections.put(c)
        c.read_loop()

    def on_message(self, c, m):
        if not self.native:
            return
        if m["type"] == "hello":
            c.native = True
            c.send("welcome", **{"server_time": "2026-01-31T12:00:00Z", "worker_uid": "rnr_1",
                                 "heartbeat_interval_ms": 1000, "keep": self.keep, "stop": [], "acked": [],
                                 "pending_gates": [], **self.welcome})
            c.welcomed.set()
        elif self.auto_ack and c.native and m["type"] in ("task_completed", "task_failed", "task_claimed", "task_state"):
            c.send("ack", execution_id=m["data"]["execution_id"], seq=m["data"]["seq"], terminal_offset=0)

    def _plain(self, sock, rest, method, target, headers):
        length = int(headers.get("content-length", "0"))
        if headers.get("expect"):
            sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        while len(rest) < length:
            rest += sock.recv(65536)
        status, body = 404, b"{}"
        self.tokens.append(headers.get("authorization"))
        if m := re.fullmatch(r"/api/v1/agent/runs/([^/]+)/files/([^/]+)", target):
            if method == "PUT":
                status = (self.on_put(m[2]) if self.on_put else None) or self.file_status
                if status == "cut":
                    sock.close()
                    return
                if status == 200:
                    self.files[(m[1], m[2])] = (headers.get("content-type"), rest)
        elif m := re.fullmatch(r"/api/v1/agent/runs/([^/]+)/prompt", target):
            if m[1] in self.prompts:
                status, body = 200, self.prompts[m[1]].encode()
        elif m := re.fullmatch(r"/api/v1/agent/runs/([^/]+)/checkpoint(?:/([^/]+))?", target):
            found = self.checkpoints.get(m[1], {}).get(m[2] or "", 404)
            found = found.pop(0) if isinstance(found, list) else found
            status, body = (found, b"{}") if isinstance(found, int) else (200, found)
        sock.sendall(f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        sock.close()

    def connection(self, timeout=20.0):
        """The next connection of the worker."""
        try:
            c = self.connections.get(timeout=timeout)
        except queue.Empty:
            raise AssertionError("the worker does not connect") from None
        if self.native:
            assert c.welcomed.wait(timeout), "the worker does not greet"
        return c


def assignment(task_id, execution_id=None, epoch=1, prompt="hello", env=None, **more):
    """A task_assignment as our server sends it (oz-worker.md 3.1, 8.4)."""
    data = {"task_id": task_id, "trace_id": task_id,
            "task": {"id": task_id, "title": "a task", "task_definition": {"prompt": prompt},
                     "created_at": "2026-01-31T12:00:00Z", "updated_at": "2026-01-31T12:00:00Z",
                     "agent_config_snapshot": {"environment_id": "env-1", "model_id": "claude-x"}},
            "docker_image": "", "sidecar_image": "builtin",
            "env_vars": {"OZ_TASK_PROMPT": prompt, "OZ_RUN_ID": task_id, **(env or {})}}
    if execution_id:
        data |= {"execution_id": execution_id, "epoch": epoch, "lease_ms": 30000}
    return {**data, **more}
