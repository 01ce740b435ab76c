"""A scripted worker with scripted runners: what a live session's runner says and is told (docs/runner-protocol.md), over
the worker link, and its parts over HTTP."""
import contextlib
import hashlib
import secrets

import httpx
from harness import NO_TLS
from village import data
from worker_peers import Native


class Worker(Native):
    """Ours, able to hold live sessions; messages for runners are kept by execution."""

    def __init__(self, server, worker_id=None, **more):
        self.frames, self.commands = {}, []
        more.setdefault("features", ["live"])
        more.setdefault("harnesses", ["shell", "codex", "claude", "any"])
        super().__init__(server, worker_id, **more)

    def arrived(self, message):
        super().arrived(message)
        if message["type"] == "runner":
            with self.changed:
                self.frames.setdefault(message["data"]["execution_id"], []).extend(message["data"]["frames"])
                self.changed.notify_all()
        if message["type"] == "command" and message["data"].get("command") in ("pause", "resume"):
            self.commands.append(message["data"]["command"])
            self.send("command_result", {k: message["data"][k] for k in ("task_id", "execution_id", "epoch", "command_id")
                                         if k in message["data"]} | {"ok": True})

    def begin(self, session, **how):
        """Takes the session's next assignment and runs it; its runner."""
        task = self.assigned(session.replace("ses_", "run_"), **how)
        return Runner(self, task).begin()


@contextlib.contextmanager
def worker_of(server, capacity=50, **more):
    """One that comes for a test; nothing of it may have gone wrong at its end."""
    w = Worker(server, f"w-{secrets.token_hex(4)}", capacity=capacity, **more)
    try:
        yield w
    finally:
        w.close()
    w.well()


def create(village, worker, **more):
    """An interactive session for that worker; its id."""
    options = {"mode": "interactive", "runnerId": worker.worker_id, **more.pop("options", {})}
    return village.create(options=options, task=more.pop("task", None), **more)["sessionId"]


def prompt(village, session, text):
    return data(village("POST", f"/sessions/{session}/prompts", json={"prompt": text}), 201)["promptId"]


class Runner:
    def __init__(self, worker, task):
        self.worker, self.task, self.seq, self.seen, self.checkpoints = worker, task, 0, 0, 0
        self.epoch = task["epoch"]
        self.http = httpx.Client(base_url=worker.server.url, headers={"Authorization": f"Bearer {task['session_token']}"},
                                 trust_env=False, verify=NO_TLS, timeout=30)

    def frame(self, **message):
        self.worker.send("runner", {**self.worker.ids(self.task, seq=False), "frames": [message]})

    def say(self, kind, **fields):
        self.seq += 1
        self.frame(type=kind, seq=self.seq, **fields)

    def told(self, kind, timeout=20, **fields):
        """The next message of the type; others are passed over."""
        def find():
            came = self.worker.frames.get(self.task["execution_id"], [])
            while self.seen < len(came):
                self.seen += 1
                m = came[self.seen - 1]
                if m["type"] == kind and all(m.get(k) == v for k, v in fields.items()):
                    return m
            return None
        return self.worker.wait(find, timeout, f"{kind} {fields}")

    def hello(self, **more):
        self.frame(type="hello", epoch=self.epoch, lastSeq=self.seq, **more)
        return self.told("init")

    def begin(self):
        self.worker.running[self.task["execution_id"]] = self.task
        self.worker.send("task_claimed", self.worker.ids(self.task))
        self.worker.state(self.task, "preparing")
        self.init = self.hello()
        self.say("boot", step="running", providerId="codex", workspacePath="/workspace", conversationId=f"c-{self.epoch}",
                 resumed=False)
        self.acked()
        return self

    def acked(self):
        return self.told("ack", seq=self.seq)

    def take_turn(self, done=True, **prompt):
        """The next prompt, accepted and (`done`) answered; its message."""
        m = self.told("prompt", **prompt)
        self.say("agentStatus", turnId=m["turnId"], status="thinking")
        if done:
            self.say("complete", turnId=m["turnId"], outcome="done")
        self.acked()
        return m

    def url(self, rest):
        return f"/api/v1/agent/runs/{self.task['task_id']}/{rest}"

    def put(self, name, content):
        return self.http.put(self.url(f"files/{name}"), content=content)

    def name(self, part, number=None):
        return f"ckpt-{self.epoch}-{number or self.checkpoints}-{part}.pack"

    def checkpoint(self, *contents, prev=None, turn=None, parts=None, stored=True, **more):
        """Takes one with these parts; what the server says of it. `parts`: said instead of what is true."""
        self.checkpoints += 1
        true = []
        for i, content in enumerate(contents):
            if stored:
                answer = self.put(self.name(i), content)
                assert answer.status_code == 200, answer.text
                assert answer.json()["sha256"] == hashlib.sha256(content).hexdigest()
            true.append({"name": self.name(i), "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()})
        fields = {"number": self.checkpoints, "roots": [{"kind": "workspace", "path": "/workspace", "commit": "a" * 40}],
                  "parts": true if parts is None else parts, "bytes": sum(map(len, contents)), "durationMs": 5, **more}
        if prev:
            fields["prev"] = prev
        if turn:
            fields["turnId"] = turn
        self.say("checkpoint", **fields)
        return self.told("checkpoint", number=self.checkpoints)

    def restored(self):
        """What it is to begin with: [(checkpoint, [bytes of its parts])], oldest first; None = with nothing."""
        chain = self.http.get(self.url("checkpoint"))
        if chain.status_code == 404:
            return None
        assert chain.status_code == 200, chain.text
        out = []
        for c in chain.json()["checkpoints"]:
            parts = []
            for p in c["parts"]:
                got = self.http.get(self.url(f"checkpoint/{p['name']}"))
                assert got.status_code == 200 and got.headers["content-type"] == "application/octet-stream", got.text
                assert len(got.content) == p["bytes"] and hashlib.sha256(got.content).hexdigest() == p["sha256"]
                parts.append(got.content)
            out.append((c, parts))
        return out
