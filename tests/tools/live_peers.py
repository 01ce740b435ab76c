"""Both ends of a live session, scripted: a worker whose runner says what a test wants (docs/runner-protocol.md), and a
viewer on the WebSocket of clients (docs/socket.md), on an independent implementation of the protocol."""
import json
import struct
import threading
import time
import uuid

import websockets.exceptions
import websockets.sync.client

import worker_peers

PATH = "/api/v1/ws"


class Runner:
    """One execution's process 1, as the worker would hand its words on."""

    def __init__(self, worker, task):
        self.worker, self.task, self.seq = worker, task, 0
        self.session = "ses_" + task["task_id"].removeprefix("run_")
        self.offsets = {}

    def say(self, *frames):
        self.worker.send("runner", {**self.worker.ids(self.task, seq=False), "frames": list(frames)})

    def report(self, what, **fields):
        """A message that counts."""
        self.seq += 1
        self.say({"type": what, "seq": self.seq, **fields})
        return self.seq

    def hello(self, phase="preparing", terminals=()):
        self.say({"type": "hello", "runnerVersion": "test", "sessionId": self.session, "epoch": self.task["epoch"],
                  "lastSeq": self.seq, "phase": phase,
                  "terminals": [{"terminal": n, "offset": self.offsets.get(n, 0), "from": 0, "open": True, "cols": 120,
                                 "rows": 40} for n in terminals]})
        return self.told("init")

    def running(self):
        self.report("boot", step="running", providerId="codex", providerVersion="1", workspacePath="/workspace",
                    resumed=False)

    def events(self, *events):
        return self.report("events", events=[{"type": t, "data": d} for t, d in events])

    def marks(self, first, n):
        """Facts that can be told apart."""
        for at in range(first, first + n, 50):
            self.events(*[("FILE_TOUCHED", {"path": f"f{i}", "reason": "write"})
                          for i in range(at, min(at + 50, first + n))])

    def ask(self, text="May I?", kind="permission", **more):
        question = str(uuid.uuid4())
        self.report("question", questionId=question, kind=kind, text=text, requestKey=uuid.uuid4().hex * 2,
                    approval={"action": "shell", "description": text, "risk": "high", "context": {"command": "rm"},
                              "exact": text}, **more)
        return "apr_" + question

    def stream(self, content, offset=0, kind="text", turn="t"):
        self.say({"type": "stream", "turnId": turn, "kind": kind, "offset": offset, "content": content})

    def show(self, data, terminal=0, offset=None):
        """Terminal bytes, in frames as large as allowed."""
        at = self.offsets.get(terminal, 0) if offset is None else offset
        raw = uuid.UUID(self.task["task_id"].removeprefix("run_")).bytes
        for i in range(0, len(data), 65536):
            piece = data[i:i + 65536]
            head = bytes([1, terminal, 0, 0]) + raw + struct.pack(">IQ", self.task["epoch"], at)
            self.worker.send_frame(worker_peers.BINARY, head + piece)
            at += len(piece)
        self.offsets[terminal] = at
        return at

    def told(self, kind, timeout=30.0, **fields):
        """A message of the server that was not looked at yet."""
        def find():
            for m in self.worker.frames_of(self.task["execution_id"]):
                if m.get("type") == kind and not m.get("taken") and all(m.get(k) == v for k, v in fields.items()):
                    m["taken"] = True
                    return m
            return None
        return self.worker.wait(find, timeout, f"{kind} {fields}")

    def stored(self, timeout=30.0):
        """Everything it reported is."""
        self.worker.wait(lambda: any(f["type"] == "ack" and f["seq"] >= self.seq
                                     for f in self.worker.frames_of(self.task["execution_id"])), timeout,
                         f"the ack of {self.seq}")

    def end(self, exit_code=0, hang_up=False):
        """At once; hang_up: its connection to the worker ended before."""
        if hang_up:
            self.say({"type": "gone"})
        self.worker.complete(self.task, exit_code)
        self.worker.wait_acked()


class LiveWorker(worker_peers.Native):
    """A worker that takes live sessions."""

    def __init__(self, server, **more):
        more.setdefault("features", ["live"])
        more.setdefault("harnesses", ["codex", "claude", "shell"])
        super().__init__(server, **more)

    def frames_of(self, execution):
        return [f for m in self.messages if m["type"] == "runner" and m["data"]["execution_id"] == execution
                for f in m["data"]["frames"]]

    def start(self, session, running=True):
        """Takes that session up to the point where its agent works."""
        task = self.assigned("run_" + session.removeprefix("ses_"))
        self.claim(task)
        runner = Runner(self, task)
        runner.hello(terminals=[0])
        if running:
            runner.running()
            runner.stored()
        return runner


class Viewer:
    """A client. Reads in a thread, keeps every message; `messages` are objects, binary frames have type "binary"."""

    def __init__(self, server, token=None, path=PATH, reading=True, **options):
        if token:
            options["additional_headers"] = {"Authorization": f"Bearer {token}", **options.pop("headers", {})}
        options.setdefault("ping_interval", None)
        self.ws = websockets.sync.client.connect(f"ws://127.0.0.1:{server.port}{path}", max_size=None, proxy=None,
                                                 compression=None, **options).__enter__()
        self.changed, self.messages, self.taken = threading.Condition(), [], set()
        self.numbers = iter(range(1, 10**9))
        self.closed, self.may_read = None, threading.Event()
        if reading:
            self.may_read.set()
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        try:
            while True:
                self.may_read.wait()
                raw = self.ws.recv()
                if isinstance(raw, bytes):
                    message = {"type": "binary", "terminal": raw[1], "offset": struct.unpack(">Q", raw[8:16])[0],
                               "session": "ses_" + str(uuid.UUID(bytes=raw[16:32])), "bytes": raw[32:], "head": raw[:8]}
                else:
                    message = json.loads(raw)
                message["at"] = time.monotonic()
                with self.changed:
                    self.messages.append(message)
                    self.changed.notify_all()
        except websockets.exceptions.ConnectionClosed as e:
            with self.changed:
                self.closed = (e.rcvd.code, e.rcvd.reason) if e.rcvd else (1006, "")
                self.changed.notify_all()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.may_read.set()
        self.ws.close()

    def wait(self, find, timeout=20.0, what="it"):
        end = time.monotonic() + timeout
        with self.changed:
            while not (value := find()):
                left = end - time.monotonic()
                assert left > 0, f"{what} did not come; closed {self.closed}, came " \
                    f"{[self.brief(m) for m in self.messages][-40:]}"
                self.changed.wait(min(left, 0.25))
        return value

    @staticmethod
    def brief(m):
        return {k: v for k, v in m.items() if k not in ("at", "timestamp", "data", "bytes")} if m["type"] == "terminal" \
            or m["type"] == "binary" else json.dumps({k: v for k, v in m.items() if k != "at"})[:300]

    def expect(self, kind, timeout=20.0, **fields):
        """The first message of that type with these members that was not taken yet."""
        def find():
            for i, m in enumerate(self.messages):
                if i not in self.taken and m["type"] == kind and all(m.get(k) == v for k, v in fields.items()):
                    self.taken.add(i)
                    return m
            return None
        return self.wait(find, timeout, f"{kind} {fields}")

    def of(self, kind, **fields):
        with self.changed:
            return [m for m in self.messages if m["type"] == kind and all(m.get(k) == v for k, v in fields.items())]

    def wait_closed(self, timeout=20.0):
        self.wait(lambda: self.closed, timeout, "the end")
        return self.closed

    def send(self, kind, **fields):
        """Returns the messageId."""
        mid = f"m{next(self.numbers)}"
        self.ws.send(json.dumps({"type": kind, "messageId": mid, "timestamp": "2026-01-31T12:00:00.000Z", **fields}))
        return mid

    def ask(self, kind, **fields):
        """Sends and waits for the one reply, whatever it is."""
        mid = self.send(kind, **fields)
        def find():
            return next((m for m in self.messages if m.get("replyTo") == mid), None)
        return self.wait(find, what=f"the reply to {kind}")

    def refused(self, code, kind, **fields):
        reply = self.ask(kind, **fields)
        assert reply["type"] == "error" and reply["code"] == code, reply
        return reply

    def follow(self, session, **fields):
        reply = self.ask("subscribe_session", sessionId=session, **fields)
        assert reply["type"] == "event" and reply["event"] == "subscribed", reply
        return reply["data"]

    def sync(self):
        """What was said before has been seen."""
        mid = self.send("ping")
        self.wait(lambda: any(m.get("replyTo") == mid for m in self.messages), what="pong")

    # --- what it saw of a session ---
    def seqs(self, session):
        """Numbers of the events in the order they came, each once."""
        out = []
        for m in self.of("session", sessionId=session):
            if "seq" in m and m["action"] != "completed" and (not out or out[-1] != m["seq"]):
                out.append(m["seq"])
        return out

    def terminal(self, session, number=0):
        """(bytes, gaps) of all chunks: offsets must fit together but for the gaps they name."""
        import base64
        data, gaps, at, first = b"", [], None, None
        with self.changed:
            chunks = [m for m in self.messages if m["type"] == "terminal" and m["sessionId"] == session
                      and m["terminal"] == number]
        for m in chunks:
            piece = base64.b64decode(m["data"]) if m.get("encoding") == "base64" else m["data"].encode()
            assert len(piece) <= 32768, len(piece)
            if at is None:
                first = m["offset"]
            elif "gap" in m:
                assert m["gap"] == {"from": at, "to": m["offset"]}, (at, m["gap"], m["offset"])
                gaps.append((at, m["offset"]))
            else:
                assert m["offset"] == at, f"at {at} came {m['offset']}"
            at = m["offset"] + len(piece)
            data += piece
        return first, data, gaps
