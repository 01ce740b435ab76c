"""Scripted workers for the server's worker endpoint: a WebSocket client of its own on a plain socket, and one class for
each dialect (oz-worker.md 3, 4, 16): V the vendored Go worker, W the current one, Native ours. They say byte for byte
what the originals say, and every assignment that comes is decoded as strictly as Go's decoder would."""
import base64
import contextlib
import hashlib
import json
import os
import re
import secrets
import socket
import struct
import threading
import time
import urllib.parse
import uuid

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
PATH = "/api/v1/selfhosted/worker/ws"
GO_FLUSH = 4096  # payload bytes after which the Go library begins the next fragment
CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


# --- JSON as Go's encoder writes it ---

ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t",
           "\u2028": "\\u2028", "\u2029": "\\u2029"}
SPECIAL = re.compile("[\"\\\\\x00-\x1f<>&\u2028\u2029]")


def go_string(text):
    if isinstance(text, bytes):  # an invalid byte becomes U+FFFD, written as an escape
        text = text.decode("utf-8", "surrogateescape")
        text = re.sub("[\udc80-\udcff]", "\ufffd", text)
    return '"' + SPECIAL.sub(lambda m: ESCAPES.get(m[0]) or f"\\u{ord(m[0]):04x}", text).replace("\ufffd", "\\ufffd") + '"'


def go_json(value):
    if isinstance(value, (str, bytes)):
        return go_string(value)
    if isinstance(value, dict):
        return "{" + ",".join(go_string(k) + ":" + go_json(v) for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(go_json, value)) + "]"
    return json.dumps(value)


# --- what Go's decoder takes ---

RFC3339 = re.compile(r"\d{4}-(0[1-9]|1[0-2])-([0-2]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\d([.,]\d+)?"
                     r"(Z|[+-]([01]\d|2[0-3]):[0-5]\d)")
INT, STR, BOOL, TIME, ANY = "int", "string", "bool", "time", "any"
CONFIG_V = {"environment_id": STR, "base_prompt": STR, "model_id": STR, "profile_id": STR, "skill_spec": STR,
            "mcp_servers": {None: ANY}, "computer_use_enabled": BOOL}
CONFIG_W = CONFIG_V | {"idle_timeout_minutes": INT, "harness": {"type": STR},
                       "harness_auth_secrets": {"claude_auth_secret_name": STR},
                       "inference_providers": {"aws": {"disabled": BOOL, "role_arn": STR, "region": STR}},
                       "session_sharing": {"public_access": STR}, "snapshot_disabled": BOOL,
                       "snapshot_upload_timeout_secs": INT, "snapshot_script_timeout_secs": INT}
TASK_V = {"id": STR, "title": STR, "task_definition": {"prompt": STR}, "created_at": TIME, "updated_at": TIME,
          "agent_config_snapshot": CONFIG_V}
TASK_W = TASK_V | {"owner": {"Type": STR, "Id": INT}, "agent_conversation_id": STR, "agent_config_snapshot": CONFIG_W}
ASSIGNMENT_V = {"task_id": STR, "task": TASK_V, "docker_image": STR, "sidecar_image": STR, "env_vars": {None: STR},
                "additional_sidecars": [{"image": STR, "mount_path": STR, "read_write": BOOL}]}
ASSIGNMENT_W = ASSIGNMENT_V | {"task": TASK_W, "execution_id": STR, "additional_oz_args": [STR],
                               "instance_shape": {"vcpus": INT, "memory_gb": INT}}


def go_decodes(value, shape, where="data"):
    """Fails where encoding/json would: a known field of another type. null leaves a field as it is."""
    if value is None or shape == ANY:
        return
    if isinstance(shape, dict):
        assert isinstance(value, dict), f"{where}: object expected, is {value!r}"
        folded = [k.lower() for k in value]
        assert len(folded) == len(set(folded)) or None in shape, f"{where}: keys that differ only in case: {list(value)}"
        known = {k.lower(): v for k, v in shape.items() if k is not None}
        for k, v in value.items():
            go_decodes(v, shape[None] if None in shape else known.get(k.lower(), ANY), f"{where}.{k}")
    elif isinstance(shape, list):
        assert isinstance(value, list), f"{where}: array expected, is {value!r}"
        for i, v in enumerate(value):
            go_decodes(v, shape[0], f"{where}[{i}]")
    elif shape == INT:
        assert isinstance(value, int) and not isinstance(value, bool), f"{where}: integer expected, is {value!r}"
    elif shape == BOOL:
        assert isinstance(value, bool), f"{where}: boolean expected, is {value!r}"
    else:
        assert isinstance(value, str), f"{where}: string expected, is {value!r}"
        if shape == TIME:
            assert RFC3339.fullmatch(value), f"{where}: no RFC 3339 time: {value!r}"


def check_assignment(data):
    """Section 3.1 and 3.2: what both Go workers need in every assignment."""
    go_decodes(data, ASSIGNMENT_V)
    go_decodes(data, ASSIGNMENT_W)
    assert data["task_id"], "an empty task_id makes V drop the connection"
    assert isinstance(data.get("task"), dict), "without task W crashes"
    assert data["task"]["id"] == data["task_id"]
    assert data["trace_id"] == data["task_id"]
    assert data["sidecar_image"], "without it V fails the task"
    assert len(data["execution_id"]) >= 8
    assert isinstance(data["task"]["task_definition"]["prompt"], str)
    env = data["env_vars"]
    assert env is not None and all(isinstance(v, str) for v in env.values()), env
    assert all("\0" not in v and len(v.encode()) < 131_072 for v in env.values()), "no container starts with that"
    prompts = ("OZ_TASK_PROMPT" in env) + ("OZ_TASK_PROMPT_URL" in env)
    live = data.get("mode") == "live" or "DO_WS_URL" in env
    assert prompts == (not live), sorted(env)  # a live session is prompted by its runner
    assert env["OZ_RUN_ID"] == data["task_id"] and env["OZ_EXECUTION_ID"] == data["execution_id"]
    assert env["OZ_RUN_TOKEN"]
    return data


# --- the socket ---

class Refused(Exception):
    """The handshake was answered with another status than 101."""

    def __init__(self, status, headers, body):
        super().__init__(f"{status} {headers} {body[:300]!r}")
        self.status, self.headers, self.body = status, headers, body


class Gone(Exception):
    """The connection has ended."""


def read_head(sock, rest=b""):
    while b"\r\n\r\n" not in rest:
        piece = sock.recv(65536)
        if not piece:
            raise Gone(f"closed before the answer: {rest!r}")
        rest += piece
        assert len(rest) < 1 << 20
    head, _, rest = rest.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        assert name.lower() not in headers or name.lower() == "set-cookie", f"{name} twice"
        headers[name.lower()] = value.strip()
    return int(lines[0].split(" ")[1]), headers, rest


def handshake(port, path=PATH, key="", method="GET", timeout=45.0, drop=(), receive_buffer=0, **changed):
    """One upgrade request as the Go client sends it; (socket, bytes behind the answer) or Refused. `changed` replaces
    headers (underscores for dashes), `drop` leaves some out."""
    ws_key = base64.b64encode(os.urandom(16)).decode()
    headers = {"Host": f"127.0.0.1:{port}", "User-Agent": "Go-http-client/1.1", "Authorization": f"Bearer {key}",
               "Connection": "Upgrade", "Sec-WebSocket-Key": ws_key, "Sec-WebSocket-Version": "13",
               "Upgrade": "websocket"}
    given = {k.replace("_", "-").lower(): v for k, v in changed.items()}
    headers = {k: given.pop(k.lower(), v) for k, v in headers.items() if k not in drop} | given
    sock = socket.socket()
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.settimeout(timeout)
    try:
        sock.connect(("127.0.0.1", port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in headers.items()) + "\r\n"
        sock.sendall(head.encode())
        status, answer, rest = read_head(sock)
        if status != 101:
            body, size = rest, int(answer.get("content-length", 0))
            while len(body) < size and (piece := sock.recv(65536)):
                body += piece
            raise Refused(status, answer, body)
        expected = base64.b64encode(hashlib.sha1((headers["Sec-WebSocket-Key"] + GUID).encode()).digest()).decode()
        assert answer["sec-websocket-accept"] == expected, answer
        assert answer["upgrade"].lower() == "websocket"
        assert answer["connection"] == "Upgrade", "some releases of the Go library compare the whole value"
        assert "sec-websocket-extensions" not in answer and "sec-websocket-protocol" not in answer, answer
        return sock, rest
    except BaseException:
        sock.close()
        raise


def masked(payload, key=None):
    key = os.urandom(4) if key is None else key
    n = len(payload)
    if n and key != b"\0\0\0\0":
        pad = (key * (n // 4 + 1))[:n]
        payload = (int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")).to_bytes(n, "big")
    return key + payload


def frame(op, payload, fin=True, mask=True, key=None):
    n = len(payload)
    bit = 128 if mask else 0
    head = bytes([(128 if fin else 0) | op])
    head += bytes([bit | n]) if n < 126 else struct.pack(">BH", bit | 126, n) if n < 65536 else \
        struct.pack(">BQ", bit | 127, n)
    return head + (masked(payload, key) if mask else payload)


class Peer:
    """One worker process: connects, reads in a thread, keeps every message. `pongs=False`: answers no ping;
    `reading=False`: reads nothing until resume()."""
    dialect = "unknown"

    def __init__(self, server, worker_id=None, key=None, pongs=True, reading=True, query=None, connect=True,
                 receive_buffer=0):
        self.server, self.key = server, key or server.admin_key
        self.worker_id = worker_id or "worker-" + secrets.token_hex(6)
        self.query = {} if query is None else query
        self.pongs, self.receive_buffer = pongs, receive_buffer
        self.lock = threading.Lock()
        self.changed = threading.Condition()
        self.may_read = threading.Event()
        if reading:
            self.may_read.set()
        self.messages, self.taken = [], set()  # all that came; numbers of those that were looked at
        self.pings, self.pongs_seen, self.errors = [], [], []
        self.connections, self.open, self.sock, self.close_code, self.close_reason = 0, False, None, None, None
        if connect:
            self.connect()

    # --- life ---
    def target(self):
        return PATH + "?" + urllib.parse.urlencode({**self.query, "worker_id": self.worker_id})

    def connect(self, timeout=45.0):
        sock, rest = handshake(self.server.port, self.target(), self.key, timeout=timeout,
                               receive_buffer=self.receive_buffer)
        sock.settimeout(None)
        with self.changed:
            self.sock, self.open, self.close_code, self.close_reason = sock, True, None, None
            self.connections += 1
        self.thread = threading.Thread(target=self._read_loop, args=(sock, rest), daemon=True)
        self.thread.start()
        self.opened()
        return self

    def opened(self):
        """What the dialect says first."""

    def reconnect(self, timeout=30.0):
        """Redials as the originals do: at once, then with a back-off (short here), through 429 and 503."""
        end = time.monotonic() + timeout
        while True:
            try:
                return self.connect()
            except (Refused, OSError, Gone) as e:
                if isinstance(e, Refused) and e.status not in (429, 500, 502, 503):
                    raise
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)

    def abort(self):
        """The connection is cut with a reset, as if the process died."""
        with self.lock, contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.sock.shutdown(socket.SHUT_RD)  # wakes the reader
            self.sock.close()
        self.may_read.set()
        self.thread.join(5)

    def close(self, code=1000):
        """The clean end: a close frame, and the answer to it."""
        if self.open:
            with contextlib.suppress(OSError):
                self.send_frame(CLOSE, struct.pack(">H", code))
            self.may_read.set()
            self.thread.join(10)
        with contextlib.suppress(OSError):
            self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, kind, *rest):
        self.close()
        if kind is None:
            self.well()

    def well(self):
        assert not self.errors, self.errors

    # --- in ---
    def _read_loop(self, sock, rest):
        buffer = bytearray(rest)

        def take(n):
            while len(buffer) < n:
                self.may_read.wait()
                piece = sock.recv(65536)
                if not piece:
                    raise Gone
                buffer.extend(piece)
            out = bytes(buffer[:n])
            del buffer[:n]
            return out
        try:
            while True:
                first, second = take(2)
                n = second & 127
                if n == 126:
                    n, = struct.unpack(">H", take(2))
                elif n == 127:
                    n, = struct.unpack(">Q", take(8))
                if second & 128 or not first & 128 or first & 0x70:
                    self.errors.append(f"a server frame that is masked, fragmented or reserved: {first:02x} {second:02x}")
                payload = take(n)
                if not self._frame(first & 15, payload):
                    break
        except (Gone, OSError):
            pass
        except Exception as e:  # shown by well()
            self.errors.append(repr(e))
        with self.changed:
            if self.sock is sock:
                self.open = False
            self.changed.notify_all()
        with contextlib.suppress(OSError):
            sock.close()

    def _frame(self, op, payload):
        if op == CLOSE:
            with self.changed:
                self.close_code = struct.unpack(">H", payload[:2])[0] if len(payload) >= 2 else 1005
                self.close_reason = payload[2:].decode()
            with contextlib.suppress(OSError):
                self.send_frame(CLOSE, payload)
            return False
        with self.changed:
            if op == PING:
                self.pings.append(payload)
            elif op == PONG:
                self.pongs_seen.append(payload)
            elif op == TEXT:
                message = json.loads(payload.decode("utf-8"))
                message["at"], message["raw"] = time.monotonic(), payload
                self.messages.append(message)
            else:
                self.errors.append(f"a frame of kind {op}")
            self.changed.notify_all()
        if op == PING and self.pongs:
            with contextlib.suppress(OSError):
                self.send_frame(PONG, payload)
        elif op == TEXT:
            if message["type"] == "task_assignment":
                try:
                    check_assignment(message["data"])
                except (AssertionError, KeyError) as e:
                    self.errors.append(f"{e!r} in {payload[:2000]}")
            self.arrived(message)
        return True

    def arrived(self, message):
        """For peers that answer by themselves; on the reader's thread."""

    def wait(self, find, timeout=30.0, what="it"):
        end = time.monotonic() + timeout
        with self.changed:
            while not (value := find()):
                left = end - time.monotonic()
                assert left > 0, f"{self.worker_id}: {what} did not happen; open {self.open} ({self.close_code} " \
                    f"{self.close_reason}), came {[(m['type'], m['data'].get('task_id')) for m in self.messages]}, " \
                    f"errors {self.errors}"
                self.changed.wait(min(left, 0.25))
        return value

    def expect(self, kind, timeout=30.0, **data):
        """The first message of that type with these members that was not taken yet."""
        def find():
            for i, m in enumerate(self.messages):
                if i not in self.taken and m["type"] == kind and all(m["data"].get(k) == v for k, v in data.items()):
                    self.taken.add(i)
                    return m["data"]
            return None
        return self.wait(find, timeout, f"{kind} {data}")

    def assigned(self, task_id=None, timeout=30.0):
        data = self.expect("task_assignment", timeout, **({"task_id": task_id} if task_id else {}))
        self.well()
        return data

    def of(self, kind, task_id=None):
        with self.changed:
            return [m["data"] for m in self.messages
                    if m["type"] == kind and (task_id is None or m["data"].get("task_id") == task_id)]

    def order(self, task_id):
        """The types of what came about that task, in order."""
        with self.changed:
            return [m["type"] for m in self.messages if m["data"].get("task_id") == task_id]

    def nothing(self, kind, seconds, task_id=None):
        """That no (further) message of the type comes."""
        before = len(self.of(kind, task_id))
        end = time.monotonic() + seconds
        with self.changed:
            while (left := end - time.monotonic()) > 0:
                self.changed.wait(left)
        got = self.of(kind, task_id)
        assert len(got) == before, got[before:]

    def wait_closed(self, timeout=30.0):
        self.wait(lambda: not self.open, timeout, "the end of the connection")
        return self.close_code

    def resume(self):
        self.may_read.set()

    # --- out ---
    def raw(self, data):
        with self.lock:
            self.sock.sendall(data)

    def send_frame(self, op, payload, fin=True, mask=True, key=None):
        self.raw(frame(op, payload, fin, mask, key))

    def send_text(self, payload, size=GO_FLUSH, between=None, op=TEXT):
        """A message as the Go client flushes it: fragments of `size`, a ping after fragment number `between`."""
        payload = payload.encode() if isinstance(payload, str) else payload
        pieces = [payload[i:i + size] for i in range(0, len(payload), size)] or [b""]
        for i, piece in enumerate(pieces):
            self.send_frame(op if i == 0 else CONT, piece, fin=i + 1 == len(pieces))
            if between is not None and i == between:
                self.ping(b"")

    def send(self, kind, data, **how):
        self.send_text(go_json({"type": kind, "data": data}), **how)

    def ping(self, payload=b""):
        self.send_frame(PING, payload)

    def ping_pong(self, payload=b"", timeout=30.0):
        """Everything sent before has been read by the server when this returns."""
        seen = len(self.pongs_seen)
        self.ping(payload)
        self.wait(lambda: len(self.pongs_seen) > seen, timeout, "a pong")
        assert self.pongs_seen[-1] == payload


# --- the dialects ---

def without(data, *empty):
    """Go's omitempty for these keys."""
    return {k: v for k, v in data.items() if k not in empty or v not in ("", None, [], 0)}


class V(Peer):
    """The vendored worker."""
    dialect = "vendored"
    cancel_type = "task_cancel"

    def claim(self, task, **how):
        self.send("task_claimed", {"task_id": task["task_id"], "worker_id": self.worker_id}, **how)

    def complete(self, task, exit_code=0, output="", artifacts=None, session_link="", **how):
        self.send("task_completed", without(
            {"task_id": task["task_id"], "worker_id": self.worker_id, "exit_code": exit_code, "output": output,
             "artifacts": artifacts, "session_link": session_link}, "output", "artifacts", "session_link"), **how)

    def fail(self, task, message, output="", artifacts=None, session_link="", **how):
        self.send("task_failed", without(
            {"task_id": task["task_id"], "message": message, "output": output, "artifacts": artifacts,
             "session_link": session_link}, "output", "artifacts", "session_link"), **how)

    def confirm_cancel(self, task):
        self.fail(task, "failed to wait for container: context canceled")


class W(Peer):
    """The current Go worker."""
    dialect = "warp"
    cancel_type = "task_cancellation"

    def claim(self, task, **how):
        self.send("task_claimed", {"task_id": task["task_id"], "worker_id": self.worker_id}, **how)

    def complete(self, task, message="Task completed successfully", task_state="", **how):
        self.send("task_completed", without({"task_id": task["task_id"], "message": message, "task_state": task_state},
                                            "task_state"), **how)

    def fail(self, task, message, failure_reason="", exit_code=0, **how):
        self.send("task_failed", without({"task_id": task["task_id"], "message": message,
                                          "failure_reason": failure_reason, "exit_code": exit_code},
                                         "failure_reason", "exit_code"), **how)

    def reject(self, task, reason="worker at maximum concurrency"):
        self.send("task_rejected", {"task_id": task["task_id"], "reason": reason})

    def confirm_cancel(self, task):
        self.complete(task, "Task cancelled", "CANCELLED")


class Native(Peer):
    """Our worker: says hello, echoes execution and epoch, numbers its reports, keeps ends until they are acked."""
    dialect = "native"
    cancel_type = "task_cancel"

    def __init__(self, server, worker_id=None, capacity=5, instance=None, hello=True, **more):
        self.instance, self.capacity, self.says_hello = instance or str(uuid.uuid4()), capacity, hello
        self.seq, self.running, self.unacked = {}, {}, {}
        self.said = {k: more.pop(k) for k in ("features", "harnesses") if k in more}
        super().__init__(server, worker_id, query={"proto": "2", "instance": self.instance, **more.pop("query", {})}, **more)

    def opened(self):
        if self.says_hello:
            self.hello()
            self.welcome = self.expect("welcome")
            acked = {a["execution_id"] for a in self.welcome["acked"]}
            for execution, (kind, data) in list(self.unacked.items()):
                if execution in acked and execution not in self.running:
                    del self.unacked[execution]
                else:
                    self.send(kind, data)

    def hello(self, **changed):
        self.send("hello", {
            "proto": 2, "instance": self.instance, "name": self.worker_id, "version": "0.0.0-test",
            "build_id": "test", "sandbox": {"kinds": ["direct"], "layers": []}, "capacity": self.capacity,
            "harnesses": ["shell"], "features": [], "labels": [], "runtime_versions": {},
            "running": [{"task_id": t["task_id"], "execution_id": e, "epoch": t["epoch"], "state": "running",
                         "last_seq": self.seq.get(e, 0), "terminal_offset": 0, "since": "2026-01-31T12:00:00Z"}
                        for e, t in self.running.items() if e not in self.unacked],
            "unacked": list(self.unacked), **self.said, **changed})

    def arrived(self, message):
        if message["type"] == "ack":
            kept = self.unacked.get(message["data"]["execution_id"])
            if kept and message["data"]["seq"] >= kept[1]["seq"]:
                del self.unacked[message["data"]["execution_id"]]
                with self.changed:
                    self.changed.notify_all()

    def ids(self, task, seq=True):
        e = task["execution_id"]
        out = {"task_id": task["task_id"], "execution_id": e, "epoch": task["epoch"]}
        if seq:
            self.seq[e] = self.seq.get(e, 0) + 1
            out["seq"] = self.seq[e]
        return out

    def claim(self, task, **how):
        self.running[task["execution_id"]] = task
        self.send("task_claimed", self.ids(task), **how)
        self.state(task, "running")

    def state(self, task, state):
        self.send("task_state", {**self.ids(task), "state": state})

    def log(self, task, offset, chunk, stream="stdout"):
        self.send("task_log", {**self.ids(task, seq=False), "stream": stream, "offset": offset, "chunk": chunk})

    def _end(self, task, kind, data, how):
        self.running.pop(task["execution_id"], None)
        data = {**self.ids(task), **data}
        self.unacked[task["execution_id"]] = (kind, data)
        with contextlib.suppress(OSError) if not self.open else contextlib.nullcontext():
            self.send(kind, data, **how)

    def complete(self, task, exit_code=0, output="", message="", artifacts=None, session_link="", task_state="", **how):
        self._end(task, "task_completed", without(
            {"exit_code": exit_code, "output": output, "message": message, "artifacts": artifacts,
             "session_link": session_link, "task_state": task_state},
            "output", "message", "artifacts", "session_link", "task_state"), how)

    def fail(self, task, message, failure_reason="", exit_code=0, **how):
        self._end(task, "task_failed", without({"message": message, "failure_reason": failure_reason,
                                                "exit_code": exit_code}, "failure_reason", "exit_code"), how)

    def reject(self, task, reason="worker at maximum concurrency"):
        self.send("task_rejected", {**self.ids(task), "reason": reason})

    def confirm_cancel(self, task):
        self.complete(task, message="Task cancelled", task_state="CANCELLED")

    def drain(self, reason="SIGTERM"):
        self.send("drain", {"reason": reason})

    def wait_acked(self, timeout=30.0):
        self.wait(lambda: not self.unacked, timeout, f"the ack of {list(self.unacked)}")
