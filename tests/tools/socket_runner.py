"""Runners of live sessions in containers of Go workers (agent-ops.md 9.1): a scripted one on the server's WebSocket, and
the real `muster runner`, started as a container of such a worker would start it."""
import json
import pathlib
import struct
import threading
import time
import urllib.parse

import websockets.exceptions
import websockets.sync.client
from live_peers import Runner
from runner_box import SANITIZER_WORDS, Box

FAKE = (pathlib.Path(__file__).parent / "fake_acp.py").read_text()


class SocketRunner(Runner):
    """Process 1 with a socket of its own."""

    def __init__(self, task, token=None, url=None, query="?role=runner", **options):
        super().__init__(None, task)
        env = task["env_vars"]
        options.setdefault("additional_headers", {"Authorization": f"Bearer {token or env['OZ_RUN_TOKEN']}"})
        self.ws = websockets.sync.client.connect((url or env["DO_WS_URL"]) + query, max_size=None, proxy=None, compression=None,
                                                 ping_interval=None, **options)
        self.came, self.changed, self.closed, self.epoch = [], threading.Condition(), None, 0
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        try:
            while True:
                message = json.loads(self.ws.recv())
                with self.changed:
                    self.came.append(message)
                    self.changed.notify_all()
        except websockets.exceptions.ConnectionClosed as e:
            with self.changed:
                self.closed = (e.rcvd.code, e.rcvd.reason) if e.rcvd else (1006, "")
                self.changed.notify_all()

    def wait(self, find, timeout=30.0, what="it"):
        end = time.monotonic() + timeout
        with self.changed:
            while not (value := find()):
                left = end - time.monotonic()
                assert left > 0, f"{what} did not come; closed {self.closed}, came {self.came[-30:]}"
                self.changed.wait(min(left, 0.25))
        return value

    def wait_closed(self, timeout=30.0):
        return self.wait(lambda: self.closed, timeout, "the end of the connection")

    def say(self, *frames):
        for f in frames:
            self.ws.send(json.dumps(f))

    def hello(self, phase="preparing", terminals=(), **changed):
        self.say({"type": "hello", "runnerVersion": "test", "sessionId": self.session, "epoch": self.epoch, "lastSeq": self.seq,
                  "phase": phase, "terminals": [{"terminal": n, "offset": self.offsets.get(n, 0), "from": 0, "open": True,
                                                 "cols": 120, "rows": 40} for n in terminals], **changed})
        init = self.told("init")
        self.epoch = init["epoch"]
        return init

    def show(self, data, terminal=0, offset=None):
        at = self.offsets.get(terminal, 0) if offset is None else offset
        for i in range(0, len(data), 65536):
            piece = data[i:i + 65536]
            self.ws.send(struct.pack(">BB6xQ", 1, terminal, at) + piece)
            at += len(piece)
        self.offsets[terminal] = at
        return at

    def told(self, kind, timeout=30.0, **fields):
        def find():
            for m in self.came:
                if m.get("type") == kind and not m.get("taken") and all(m.get(k) == v for k, v in fields.items()):
                    m["taken"] = True
                    return m
            return None
        return self.wait(find, timeout, f"{kind} {fields}")

    def stored(self, timeout=30.0):
        self.wait(lambda: any(m["type"] == "ack" and m["seq"] >= self.seq for m in self.came), timeout, f"the ack of {self.seq}")

    def close(self):
        self.ws.close()


class Container:
    """What a Go worker starts for an assignment: the real runner, with fake_acp.py as its agent."""

    def __init__(self, place, program="sanitized"):
        self.box = Box(place, program)
        self.box.cli("codex-acp", FAKE, first="")
        self.repo = self.box.repo("project")
        self.process = None

    def start(self, task, port=None, **env):
        """port: of a proxy in front of the server."""
        given = dict(task["env_vars"])
        if port:
            for name in ("DO_WS_URL", "OZ_SERVER_ROOT_URL"):
                parts = urllib.parse.urlsplit(given[name])
                given[name] = parts._replace(netloc=f"127.0.0.1:{port}").geturl()
        self.process = self.box.start("agent", "run", "--task-id", task["task_id"], env={**given, "OZ_WORKER": "go", **env}, pid1=True)

    def ended(self, timeout=60):
        end = self.box.end(self.process, timeout)
        self.process = None
        return end

    def close(self):
        if self.process:
            self.process.kill()
            said = self.process.communicate()[0]
            assert not any(w in said for w in SANITIZER_WORDS), said.decode(errors="replace")
