"""Checkpoints through the real `muster worker`: what a runner wants stored goes to the server, and what a session is
restored from comes from there (docs/runner-protocol.md)."""
import hashlib
import json
import pathlib
import signal
import threading
import uuid

import harness
import pytest
import worker_server

pytestmark = pytest.mark.engine_free
NATIVE = True
RUN = [f"run_0197a000-0000-7000-8000-00000000000{i}" for i in range(4)]
BUILD = pathlib.Path(harness.BINARY).parent
FAKE = (harness.ROOT / "tests/tools/fake_acp.py").read_text()


class Far:
    """As much of the server as a runner needs: it stores and acknowledges what it says."""

    def __init__(self, server, c, name, **more):
        self.server, self.c, self.run, self.execution = server, c, name, str(uuid.uuid4())
        self.init = {"type": "init", "sessionId": name, "epoch": 1, "mode": "interactive", "harness": "claude", "cols": 120, "rows": 40,
                     "policy": {}, "skipPermissions": True, "checkpoints": True, "answers": [], "pending": [], "terminals": []}
        self.messages, self.at, self.closing, self.hellos = [], 0, False, 0
        task = worker_server.assignment(name, self.execution, prompt="", session_token="token-of-" + name, mode="live", **more)
        c.send("task_assignment", **task)
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def go_on(self, c):
        """Its worker has connected again."""
        self.thread.join()
        self.c, self.at, before = c, 0, self.hellos
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()
        harness.eventually(lambda: self.hellos > before, timeout=30, what="the runner is back")

    def say(self, **m):
        self.c.send("runner", task_id=self.run, execution_id=self.execution, epoch=1, frames=[m])

    def serve(self):
        while not self.closing and self.c.open:
            with self.c.changed:
                new, self.at = self.c.messages[self.at:], len(self.c.messages)
                if not new:
                    self.c.changed.wait(0.2)
            for m in new:
                if m["type"] == "runner" and m["data"]["execution_id"] == self.execution:
                    for f in m["data"]["frames"]:
                        self.take(f)

    def take(self, f):
        if f["type"] == "hello":
            self.say(**self.init, lastAckedSeq=len(self.messages))
            self.hellos += 1
        elif "seq" in f and f["seq"] == len(self.messages) + 1:
            self.messages.append(f)
            self.say(type="ack", seq=f["seq"])

    def wait_for(self, type_, timeout=20, **fields):
        def found():
            return next((m for m in self.messages if m["type"] == type_ and all(m.get(k) == v for k, v in fields.items())), None)
        try:
            return harness.eventually(found, timeout=timeout, what=f"{type_} {fields}")
        except AssertionError as e:
            raise AssertionError(f"{e}; came: {self.messages[-6:]}") from None

    def turn(self, text):
        turn = str(uuid.uuid4())
        self.say(type="prompt", turnId=turn, content=text, attempt=1)
        assert self.wait_for("complete", turnId=turn)["outcome"] == "done"
        return turn

    def events(self, type_):
        return [e["data"] for m in self.messages if m["type"] == "events" for e in m["events"] if e["type"] == type_]

    def chain(self):
        """For another one to begin with."""
        all_ = [m for m in self.messages if m["type"] == "checkpoint"]
        start = max(i for i, m in enumerate(all_) if "prev" not in m)
        answer = {"": json.dumps({"checkpoints": all_[start:]}).encode()}
        for part in (p for m in all_[start:] for p in m["parts"]):
            data = self.server.files[(self.run, part["name"])][1]
            assert hashlib.sha256(data).hexdigest() == part["sha256"] and len(data) == part["bytes"]
            answer[part["name"]] = data
        return answer


@pytest.fixture(params=["direct", "namespace"])
def live(request, server, start, tmp_path):
    """Starts sessions of one worker."""
    kind = request.param
    if kind == "namespace":
        harness.need_sandbox(tmp_path)
        d = start("--sandbox", "namespace", kind="namespace")
        agent = "python3 /workspace/fake_acp.py"
    else:
        program = tmp_path / "runner"
        program.write_text(f'#!/bin/sh\nexec {BUILD / "agent/bin/muster"} runner "$@"\n')
        program.chmod(0o755)
        d = start(config=f"backend:\n  direct:\n    oz_path: {program}\n")
        agent = "python3 fake_acp.py"
    c, made = server.connection(), []

    def begin(name, **more):
        # the agent is part of the workspace, and put there by a set-up command
        setup = "test -e fake_acp.py || printf %s " + __import__("base64").b64encode(FAKE.encode()).decode() + " | base64 -d >fake_acp.py"
        env = {"OZ_ENV_SETUP_COMMANDS": setup, "OZ_SIDECAR_CLAUDE_ACP_CMD": agent, "OZ_HARNESS": "claude"}
        made.append(Far(server, begin.c, name, env=env, **more))
        return made[-1]
    begin.daemon, begin.c = d, c
    yield begin
    for far in made:
        far.closing = True


def test_a_session_goes_on_somewhere_else(server, live):
    far = live(RUN[1])
    far.wait_for("boot", step="running", timeout=60)
    one = far.turn("write kept.txt first\nsay hi")
    m = far.wait_for("checkpoint", turnId=one)
    assert ("workspace", "") in [(r["kind"], r["path"]) for r in m["roots"]]
    far.turn("write more.txt second")
    m = far.wait_for("checkpoint", number=2)
    assert m["prev"] == 1
    conversation = far.wait_for("boot", step="running")["conversationId"]
    assert set(server.tokens) == {"Bearer token-of-" + RUN[1]}
    server.checkpoints[RUN[2]] = far.chain()
    far.say(type="end-session")
    assert far.c.expect("task_completed", execution_id=far.execution)["exit_code"] == 0
    new = live(RUN[2], checkpoint={"id": str(uuid.uuid4()), "parts": [p for p in server.checkpoints[RUN[2]] if p]})
    boot = new.wait_for("boot", step="running", timeout=60)
    assert boot["conversationId"] == conversation and boot["resumed"]
    assert [b["step"] for b in new.messages if b["type"] == "boot"] == ["clone", "restore", "setup", "agent", "running"]
    assert "Bearer token-of-" + RUN[2] in server.tokens
    turn = new.turn("write third.txt " + "x" * 100)
    new.wait_for("checkpoint", turnId=turn)
    new.say(type="terminal-open", requestId="r", terminal=1, cols=80, rows=24, command="cat kept.txt more.txt >both.txt; grep -c MUSTER_RESTORE /proc/self/environ >env.txt")
    new.wait_for("terminal", requestId="r", ok=True)
    harness.eventually(lambda: new.events("TERMINAL_CLOSED"), what="the command's end")
    new.say(type="end-session")
    m = new.wait_for("checkpoint", number=2)
    new.c.expect("task_completed", execution_id=new.execution)
    folder = live.daemon.state / "link"
    harness.eventually(lambda: not any(folder.iterdir()), what="no folder is left")
    server.checkpoints[RUN[3]] = new.chain()
    third = live(RUN[3], checkpoint={"id": str(uuid.uuid4()), "parts": []})
    third.wait_for("boot", step="running", timeout=60)
    third.say(type="terminal-open", requestId="r", terminal=1, cols=80, rows=24,
              command='test "$(cat both.txt)" = firstsecond && test "$(cat env.txt)" = 0 && test -e third.txt && touch all-right')
    harness.eventually(lambda: third.events("TERMINAL_CLOSED"), what="the command's end")
    third.say(type="end-session")
    m = third.wait_for("checkpoint", number=1)
    third.c.expect("task_completed", execution_id=third.execution)
    assert b"all-right" in unpacked(server, third, m)


def test_a_restored_session_outlives_a_restart_of_its_worker(server, live):
    d = live.daemon
    d.stop()
    d.args.append("--keep-running")
    d.start()
    live.c = server.connection()
    far = live(RUN[1])
    far.wait_for("boot", step="running", timeout=60)
    far.wait_for("checkpoint", turnId=far.turn("write a.txt 1"))
    server.checkpoints[RUN[2]] = far.chain()
    far.say(type="end-session")
    far.c.expect("task_completed", execution_id=far.execution)
    new = live(RUN[2], checkpoint={"id": str(uuid.uuid4()), "parts": []})
    new.wait_for("boot", step="running", timeout=60)
    folder = d.state / "link" / new.execution
    d.signal(signal.SIGTERM)
    assert d.wait_exit() == 0
    assert (folder / "restore").is_dir()  # a sandbox has the folder mounted: another of that name is not the same
    d.start()
    new.go_on(server.connection())
    new.wait_for("checkpoint", turnId=new.turn("write b.txt 2"))
    new.say(type="end-session")
    new.c.expect("task_completed", execution_id=new.execution)
    harness.eventually(lambda: not folder.exists(), what="the folder is gone")


def unpacked(server, far, m):
    """All trees of a checkpoint's packs, uncompressed."""
    import subprocess
    import tempfile
    text = b""
    with tempfile.TemporaryDirectory() as d:
        subprocess.run(["git", "init", "-q", "--bare", d], check=True)
        parts = list(m["parts"])
        for root in m["roots"]:
            mine, parts = parts[:root["parts"]], parts[root["parts"]:]
            if mine:
                data = b"".join(server.files[(far.run, p["name"])][1] for p in mine)
                subprocess.run(["git", "-C", d, "index-pack", "--stdin"], input=data, check=True, capture_output=True)
                text += subprocess.run(["git", "-C", d, "ls-tree", "-r", root["commit"]], check=True, capture_output=True).stdout
    return text


@pytest.mark.parametrize("fault", ["refused", "busy", "cut", "link"])
def test_storing_has_troubles(server, live, fault):
    far = live(RUN[1])
    far.wait_for("boot", step="running", timeout=60)
    hits = []

    def trouble(name):
        hits.append(name)
        if fault == "refused":
            return 413
        if len(hits) <= 2:
            return 503 if fault == "busy" else "cut" if fault == "cut" else None
        return None
    server.on_put = trouble
    if fault == "link":
        def cut(name):
            hits.append(name)
            if len(hits) == 1:
                far.c.drop()
            return None
        server.on_put = cut
        turn = str(uuid.uuid4())
        far.say(type="prompt", turnId=turn, content="write a.txt 1", attempt=1)
        far.go_on(server.connection())
    else:
        turn = far.turn("write a.txt 1")
    if fault == "refused":
        harness.eventually(lambda: far.events("ALERT_RAISED"), what="an alert")
        assert "413" in far.events("ALERT_RAISED")[0]["description"] and len(hits) == 1
        server.on_put = None
        far.wait_for("checkpoint", turnId=far.turn("say again"))
    else:
        far.wait_for("checkpoint", turnId=turn)
        assert fault == "link" or len(hits) >= 3
    far.say(type="end-session")
    far.c.expect("task_completed", execution_id=far.execution)


@pytest.mark.parametrize("live", ["direct"], indirect=True)  # the same code for every kind
@pytest.mark.parametrize("fault", ["none", "spoilt", "missing", "nonsense", "once", "evil"])
def test_fetching_has_troubles(server, live, fault):
    far = live(RUN[1])
    far.wait_for("boot", step="running", timeout=60)
    far.wait_for("checkpoint", turnId=far.turn("write a.txt 1"))
    answer = far.chain()
    name = next(n for n in answer if n)
    if fault == "none":
        answer = {}
    elif fault == "spoilt":
        answer[name] = answer[name][:-1] + b"x"
    elif fault == "missing":
        del answer[name]
    elif fault == "nonsense":
        answer[""] = b'{"checkpoints": 7}'
    elif fault == "evil":
        answer[""] = answer[""].replace(name.encode(), b"../../../x")
    elif fault == "once":
        answer[name] = [503, 502, answer[name]]
    server.checkpoints[RUN[2]] = answer
    new = live(RUN[2], checkpoint={"id": str(uuid.uuid4()), "parts": [name]})
    if fault == "once":
        new.wait_for("boot", step="running", timeout=60)
        return
    end = new.c.expect("task_failed", execution_id=new.execution, timeout=60)
    assert end["failure_reason"] == "restore_failed" and "checkpoint could not be fetched" in end["message"], end
    harness.eventually(lambda: not (live.daemon.state / "link" / new.execution).exists(), what="the folder is gone")


@pytest.mark.parametrize("live", ["direct"], indirect=True)  # process 1 of a sandbox is not killed from inside
def test_a_runner_that_dies_is_lost(server, live):
    far = live(RUN[1])
    far.wait_for("boot", step="running", timeout=60)
    far.say(type="terminal-open", requestId="r", terminal=1, cols=80, rows=24, command="kill -9 $PPID; kill -9 1")
    end = far.c.expect("task_failed", execution_id=far.execution, timeout=60)
    assert end["failure_reason"] == "runner_lost", end
