"""The worker's side of the socket of a live session, and as much of the server behind it as the runner can tell
(docs/runner-protocol.md): it stores numbered messages once, acknowledges them, keeps terminal bytes by offset, and can
drop the connection or refuse it at any moment."""
import hashlib
import json
import os
import socket
import struct
import threading
import time
import uuid

KEY = "0123456789abcdef" * 4


class Peer:
    def __init__(self, folder, **init):
        """folder: where the socket is made, runner.sock."""
        self.init = {"sessionId": str(uuid.uuid4()), "epoch": 1, "mode": "interactive", "harness": "claude", "cols": 120,
                     "rows": 40, "policy": {}, "skipPermissions": False, "checkpoints": False, **init}
        self.lock = threading.RLock()
        self.news = threading.Condition(self.lock)
        self.stored, self.messages, self.unnumbered, self.hellos = 0, [], [], []
        self.repeated, self.holes = 0, []
        self.terminals, self.gaps = {}, []
        self.answers, self.pending = {}, set()
        self.ack, self.ack_terminals, self.accepting = True, True, True
        self.workspace = None  # where /workspace lies: files that the runner wants stored are read there
        self.files, self.puts = {}, []
        self.on_put = None  # called with the name: None = store it, a text = refuse it, False = no answer
        self.cut_after = None  # connections end after so many more messages
        self.conn = None
        self.listener = socket.socket(socket.AF_UNIX)
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)  # its path may be too long for an address
        self.listener.bind(f"/proc/self/fd/{fd}/runner.sock")
        os.close(fd)
        self.listener.listen(4)
        self.closing = False
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    # --- connections ---
    def serve(self):
        while not self.closing:
            try:
                conn, _ = self.listener.accept()
            except OSError:
                return
            if not self.accepting:
                conn.close()
                continue
            try:
                self.speak(conn)
            except (OSError, EOFError):
                pass
            except Exception as e:  # no message of the protocol: whoever made the peer looks there at the end
                self.holes.append(repr(e))
            finally:
                with self.news:
                    self.conn = None
                    self.news.notify_all()
                conn.close()

    def read(self, conn, n):
        data = b""
        while len(data) < n:
            piece = conn.recv(min(n - len(data), 1 << 16))
            if not piece:
                raise EOFError
            data += piece
        return data

    def speak(self, conn):
        first = True
        while True:
            length, kind = struct.unpack(">IB", self.read(conn, 5))
            assert length <= (1 << 20 if kind == 0 else (64 << 10) + 16), (length, kind)
            payload = self.read(conn, length)
            with self.news:
                if first:
                    hello = json.loads(payload)
                    assert hello["type"] == "hello" and hello.pop("key") == KEY
                    self.hellos.append(hello)
                    self.conn = conn
                    self.frame(self.init_message())
                    first = False
                elif kind == 1:
                    self.bytes(payload)
                elif kind == 2:
                    assert length <= 8 << 10
                    self.put(json.loads(payload)["put"])
                else:
                    self.take(json.loads(payload))
                    if self.cut_after is not None:
                        self.cut_after -= 1
                        if self.cut_after <= 0:
                            self.cut_after = None
                            raise EOFError
                self.news.notify_all()

    def put(self, m):
        assert self.workspace, "nobody expects files here"
        assert m["path"].startswith("/workspace/") and (not self.puts or self.puts[-1]["id"] < m["id"])
        self.puts.append(m)
        said = self.on_put(m["name"]) if self.on_put else None
        if said is False:
            return
        if said is not None:
            self.frame({"put": {"id": m["id"], "ok": False, "error": said}}, 2)
            return
        try:
            data = (self.workspace / m["path"].removeprefix("/workspace/")).read_bytes()
        except FileNotFoundError:  # of a checkpoint that was given up meanwhile
            self.frame({"put": {"id": m["id"], "ok": False, "error": "it is not there"}}, 2)
            return
        assert len(data) <= 16 << 20
        self.files[m["name"]] = data
        self.frame({"put": {"id": m["id"], "ok": True, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}}, 2)

    def init_message(self):
        return {"type": "init", **self.init, "lastAckedSeq": self.stored, "answers": list(self.answers.values()),
                "pending": sorted(self.pending),
                "terminals": [{"terminal": n, "offset": t["end"]} for n, t in self.terminals.items()]}

    def bytes(self, payload):
        assert payload[0] == 1 and payload[2:8] == bytes(6)
        number, offset, data = payload[1], struct.unpack(">Q", payload[8:16])[0], payload[16:]
        t = self.terminals.setdefault(number, {"end": 0, "data": bytearray(), "acked": 0})
        assert offset >= t["end"], ("terminal bytes twice", number, offset, t["end"])
        if offset > t["end"]:
            self.gaps.append((number, t["end"], offset))
        t["data"] += data
        t["end"] = offset + len(data)
        if self.ack_terminals:
            self.ack_terminal(number)

    def ack_terminal(self, number):
        with self.lock:
            t = self.terminals[number]
            t["acked"] = t["end"]
            self.frame({"type": "terminal-ack", "terminal": number, "offset": t["end"]})

    def take(self, m):
        seq = m.get("seq")
        if seq is None:
            assert m["type"] in ("stream", "ping"), m
            self.unnumbered.append(m)
            return
        if seq <= self.stored:
            self.repeated += 1
        elif seq != self.stored + 1:
            self.holes.append((self.stored, seq))
            raise EOFError
        else:
            self.stored = seq
            self.messages.append(m)
            if m["type"] == "question":
                self.pending.add(m["questionId"])
            if m["type"] == "answered":
                self.pending.discard(m["questionId"])
                self.answers.pop(m["questionId"], None)
        if self.ack:
            self.frame({"type": "ack", "seq": self.stored})

    def frame(self, message, kind=0):
        data = json.dumps(message).encode()
        with self.lock:
            if self.conn:
                try:
                    self.conn.sendall(struct.pack(">IB", len(data), kind) + data)
                except OSError:
                    pass

    def raw(self, data):
        with self.lock:
            self.conn.sendall(data)

    # --- what tests do ---
    def send(self, type_, **fields):
        self.wait(lambda: self.conn, "a connection")
        self.frame({"type": type_, **fields})

    def prompt(self, content, turn=None):
        turn = turn or str(uuid.uuid4())
        self.send("prompt", turnId=turn, content=content, attempt=1)
        return turn

    def answer(self, question, decision, reason=None, later=False, **more):
        a = {"questionId": question, "decision": decision, "scope": "once", **more}
        if reason:
            a["reason"] = reason
        with self.lock:
            self.answers[question] = a
            if not later:
                self.send("answer", **a)

    def chain(self, number=None):
        """The checkpoints that make up one, oldest first, as the server tells them."""
        all_ = {m["number"]: m for m in self.all("checkpoint")}
        number, chain = number or max(all_), []
        while number:
            m = all_[number]
            for part in m["parts"]:
                assert hashlib.sha256(self.files[part["name"]]).hexdigest() == part["sha256"]
            chain.insert(0, {k: m[k] for k in ("number", "roots", "parts", "conversationId") if k in m})
            number = m.get("prev")
        return chain

    def drop(self):
        """Ends the connection; the runner comes again if it is accepted."""
        with self.lock:
            if self.conn:
                try:
                    self.conn.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def wait(self, test, what="", timeout=30):
        """Until test() gives something, which is returned."""
        end = time.monotonic() + timeout
        with self.news:
            while True:
                found = test()
                if found:
                    return found
                left = end - time.monotonic()
                if left <= 0:
                    raise AssertionError(f"not there: {what() if callable(what) else what}; messages: {self.messages[-12:]}, holes {self.holes}")
                self.news.wait(min(left, 0.2))

    def find(self, type_, **fields):
        for m in self.messages:
            if m["type"] == type_ and all(m.get(k) == v for k, v in fields.items()):
                return m
        return None

    def all(self, type_, **fields):
        return [m for m in self.messages if m["type"] == type_ and all(m.get(k) == v for k, v in fields.items())]

    def wait_for(self, type_, timeout=30, **fields):
        return self.wait(lambda: self.find(type_, **fields), f"{type_} {fields}", timeout)

    def events(self, type_):
        return [e["data"] for m in self.all("events") for e in m["events"] if e["type"] == type_]

    def words(self, turn):
        return "".join(m["content"] for m in self.all("result", turnId=turn, kind="text"))

    def screen(self, number=0):
        with self.lock:
            return bytes(self.terminals.get(number, {"data": b""})["data"])

    def wait_screen(self, text, number=0, timeout=30):
        return self.wait(lambda: text in self.screen(number), lambda: f"{text!r} in terminal {number}: {self.screen(number)[-500:]!r}", timeout)

    def close(self):
        self.closing = True
        self.drop()
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()
