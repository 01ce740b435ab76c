"""The main story of live sessions: each real agent (scripted model server) in an interactive session, in the sandbox of a
`muster worker`, over the whole stack: two turns, an edit that is allowed and one that is denied with a reason, a turn that is
cancelled, pause and resume, the diff; its worker is killed and it goes on at another one, and a fork begins at its checkpoint; all
of it watched through `muster attach`, REST, server-sent events and WebSocket."""
import hashlib
import json
import subprocess
import threading
import types
import urllib.parse

import git_remote
import harness
import pytest
import test_live_agents
import worker_daemon
from harness import BINARY, ROOT, eventually
from live_peers import Viewer
from seat import Cli
from test_sandbox_agents import INSIDE, base
from village import Village, data

pytestmark = [pytest.mark.engine_free, pytest.mark.timeout(400)]


class Inside:
    """The model server as agents in a sandbox reach it."""

    def __init__(self, model):
        self.model = model

    def base(self, name, v1=True):
        return base(self.model, name, v1)


PROVIDERS = {"claude": "claude_code", "codex": "codex", "gemini": "gemini_cli", "opencode": "opencode"}
POLICY = test_live_agents.POLICY


def settings(name, model):
    """Variables and set-up commands of an environment for that agent."""
    variables, files = test_live_agents.AGENTS[name](Inside(model))
    write = [f"mkdir -p ~/$(dirname {file}) && printf '%s\\n' " + " ".join(f"'{line}'" for line in text.splitlines()) + f" > ~/{file}"
             for file, text in files.items()]
    return {k: v.replace("/home/", "/home/agent/") for k, v in variables.items()}, write


@pytest.fixture(scope="module")
def modules(request):
    path = (ROOT / request.config.getoption("--agents")).resolve() / "node_modules"
    assert (path / ".bin/codex-acp").exists(), f"the agents are not installed in {path}: script/test installs them"
    return path


@pytest.fixture(scope="module")
def remote():
    with git_remote.serving(README="one\n") as url:
        yield url


KEYS = {name: f"the key of {name} ".replace(" ", "-") + "0" * 20 for name in ("one", "two")}


@pytest.fixture(scope="module")
def server():
    keys = ",".join(f"{name}={hashlib.sha256(key.encode()).hexdigest()}" for name, key in KEYS.items())
    settings = {"OZ_ALLOW_LOCAL_REPOS": "on", "OZ_WORKER_KEYS": keys, "OZ_WORKER_RECONNECT_GRACE_MS": "6000",
                "OZ_WS_HEARTBEAT_INTERVAL_MS": "1000"}
    with harness.serving(settings, name="live-agents") as s:
        yield s


class Workers:
    """Two, started again when a test killed one."""

    def __init__(self, server, modules, model):
        self.server, self.running, self.killed = server, {}, {}
        port = urllib.parse.urlsplit(model.base("claude")).port
        self.env = {"OZ_SANDBOX_FORWARD": f"{INSIDE}=127.0.0.1:{port}",
                    "PATH": f"{modules}/.bin:{modules}/opencode-linux-x64/bin:/usr/local/bin:/usr/bin:/bin"}

    def all_there(self):
        for name in KEYS:
            if name not in self.running:
                hand = types.SimpleNamespace(url=self.server.url, key=KEYS[name])
                found = self.killed.pop(name, None) or worker_daemon.Daemon(
                    hand, "--sandbox", "namespace", kind="namespace", env=self.env, worker_id=name)
                found.log.clear()
                self.running[name] = found.start()
        for w in self.running.values():
            w.wait_log("link.native", timeout=60)

    def kill(self, name):
        self.killed[name] = self.running.pop(name)
        self.killed[name].kill9()


@pytest.fixture(scope="module")
def workers(server, modules, model):
    made = Workers(server, modules, model)
    yield made
    made.all_there()  # who comes back ends what ran there
    for w in made.running.values():
        try:
            eventually(lambda: not list((w.state / "s").iterdir()), timeout=30, what="the end of the sandboxes")
            w.stop()
        finally:
            w.remove()


class Watchers:
    """Everybody who may look at a session at once; what they saw must be the same."""

    def __init__(self, server, village, session, cli):
        self.village, self.session = village, session
        self.viewer = Viewer(server, village.client.token)
        self.viewer.follow(session, sinceSeq=0)
        self.streamed, self.ended = [], threading.Event()
        threading.Thread(target=self._stream, daemon=True).start()
        self.attached = subprocess.Popen([str(BINARY), "attach", session, "--json"], env=cli.env, stdin=subprocess.DEVNULL,
                                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                         preexec_fn=harness.die_with_parent)

    def _stream(self):
        with self.village.client.stream("GET", f"/api/v1/sessions/{self.session}/events/stream", timeout=None) as response:
            self.streamed = [json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: ")]
        self.ended.set()

    def log(self):
        events, after = [], 0
        while True:
            page = self.village.events(self.session, afterSeq=after, limit=200)
            events += page["events"]
            if not page["events"]:
                return events
            after = events[-1]["seq"]

    def agree(self):
        """After the end: four views of one log without holes. `attach` begins where it came in."""
        events = self.log()
        assert [e["seq"] for e in events] == list(range(1, len(events) + 1))
        assert self.ended.wait(30) and self.streamed == events
        self.viewer.wait(lambda: self.viewer.of("session", sessionId=self.session, action="completed"), what="the end")
        wanted = [(e["seq"], e["type"], {k: v for k, v in e["data"].items() if k != "sessionId"}) for e in events[:-1]]
        assert facts(self.viewer.of("session")) == wanted
        assert [m["seq"] for m in self.viewer.of("session", action="completed")] == [events[-1]["seq"]]
        out, err = self.attached.communicate(timeout=60)
        seen = facts([m for m in map(json.loads, out.splitlines()) if m["type"] == "session"])
        assert self.attached.returncode == 0 and len(seen) > len(wanted) - 10 and seen == wanted[-len(seen):], err
        self.viewer.close()
        return events


def facts(messages):
    """(number, type, data) of the events in what a WebSocket showed; the session is the message's."""
    last = next(m["seq"] for m in messages if m["action"] == "completed")  # the end is said in two more words
    told = [m for m in messages if "seq" in m and m["seq"] != last]
    return [(m["seq"], m["data"].get("eventType", "SESSION_STATE_CHANGED"),
             {k: v for k, v in m["data"].get("payload", m["data"]).items() if k != "sessionId"}) for m in told]


class Session:
    def __init__(self, village, session):
        self.village, self.id = village, session

    def get(self):
        return self.village.get(self.id)

    def ask(self, path, **body):
        return self.village("POST", f"/sessions/{self.id}/{path}", json=body or None)

    def prompt(self, text):
        return data(self.ask("prompts", prompt=text), 201)["promptId"]

    def prompts(self):
        return {p["promptId"]: p for p in data(self.village("GET", f"/sessions/{self.id}/prompts"))["items"]}

    def until_done(self, prompt, *states, timeout=120):
        def there():
            found = self.prompts()[prompt]
            assert found["state"] in (*states, "queued", "sent", "running"), (found, self.village.get(self.id))
            return found["state"] in states and found
        return eventually(there, timeout=timeout, what=f"{prompt} {states}")

    def gate(self, prompt, after=()):
        """The next approval, or None when the turn ended without one."""
        def there():
            for a in data(self.village("GET", f"/sessions/{self.id}/approvals", params={"status": "pending"}))["items"]:
                if a["approvalId"] not in after:
                    return a
            return self.prompts()[prompt]["state"] in ("done", "cancelled", "failed") and "ended"
        found = eventually(there, timeout=120, what="an approval, or the turn's end")
        return None if found == "ended" else found

    def decide(self, gate, decision, **more):
        return data(self.ask(f"approvals/{gate['approvalId']}", decision=decision, **more))

    def kept_after(self, prompt):
        """The checkpoint that was taken after it."""
        def there():
            found = data(self.village("GET", f"/sessions/{self.id}/checkpoints"))["items"]
            return next((c for c in found if c.get("turnId") == prompt), None)
        return eventually(there, timeout=60, what="the checkpoint")

    def diff(self):
        return {f["path"]: f for f in data(self.village("GET", f"/sessions/{self.id}/diff", params={"patch": "true"}))["files"]}


def edits(session, model, name):
    """Allowed, denied, cancelled."""
    turn = session.prompt("Please edit the file. [[cmd:echo one >> one.txt]]")
    gate = session.gate(turn)
    assert gate and "echo one >> one.txt" in json.dumps(gate), (gate, session.get().get("errorMessage"))
    assert session.get()["state"] == "WAITING_FOR_APPROVAL" and "one.txt" not in session.diff()
    session.decide(gate, "allow")
    session.until_done(turn, "done")
    assert session.diff()["one.txt"]["additions"] == 1
    turn = session.prompt("Please edit it again. [[cmd:echo two >> two.txt]]")
    gate = session.gate(turn)
    session.decide(gate, "deny", reason="not before the tests are green")
    if session.gate(turn, {gate["approvalId"]}):  # it is told why, and the scripted model knows no better
        assert any("not before the tests are green" in json.dumps(c["body"]) for c in model.calls(upstream=name))
        data(session.ask("interrupt"), 202)
        session.until_done(turn, "cancelled")
    else:
        session.until_done(turn, "done")
    assert set(session.diff()) == {"one.txt"}
    before = len(model.calls("stall", name))
    turn = session.prompt("Think about it. [[stall]]")
    model.wait_calls(before + 1, "stall", name, timeout=60)
    data(session.ask("interrupt"), 202)
    session.until_done(turn, "cancelled", timeout=60)


def goes_on_elsewhere(session, workers, model, name):
    """With all that was there, and knowing what it did."""
    workers.kill(session.get()["runnerName"])
    eventually(lambda: session.get()["attempt"] > 1 and session.get()["state"] == "RUNNING", timeout=120, what="another attempt")
    assert session.get()["runnerName"] in workers.running
    turn = session.prompt("And once more. [[cmd:echo three >> three.txt]]")
    session.decide(session.gate(turn), "allow")
    session.until_done(turn, "done")
    assert set(session.diff()) == {"one.txt", "three.txt"}
    seen = [json.dumps(c["body"]) for c in model.calls(upstream=name) if "And once more" in json.dumps(c["body"])]
    assert name in test_live_agents.MAY_NOT_LOAD or any("echo one" in body for body in seen), "the conversation was not loaded"


def is_forked(session, checkpoint):
    """At what it was before."""
    other = Session(session.village, data(session.ask("fork", checkpoint=checkpoint["number"]), 201)["sessionId"])
    eventually(lambda: other.get()["state"] == "RUNNING", timeout=120, what="the fork")
    assert set(other.diff()) == {"one.txt"}
    turn = other.prompt("In the fork. [[cmd:echo fork >> fork.txt]]")
    other.decide(other.gate(turn), "allow")
    other.until_done(turn, "done")
    assert set(other.diff()) == {"one.txt", "fork.txt"} and set(session.diff()) == {"one.txt", "three.txt"}
    data(other.ask("end"))
    eventually(lambda: other.get()["state"] == "COMPLETED", timeout=60, what="the fork's end")


@pytest.mark.parametrize("name", sorted(PROVIDERS))
def test_a_real_agent_is_watched_steered_and_approved(name, server, workers, remote, model):
    workers.all_there()
    client = server.client(f"people-{name}")
    village = Village(client)
    variables, setup = settings(name, model)
    environment = client.environment(repos=[remote], setup_commands=setup, env_vars=variables)
    made = village.create(providerId=PROVIDERS[name], repo={"url": remote}, task=None,
                          options={"mode": "interactive", "environmentId": environment["id"], "policy": POLICY})
    session = Session(village, made["sessionId"])
    watchers = Watchers(server, village, session.id, Cli(server, remote))
    edits(session, model, name)
    assert data(session.ask("pause"))["state"] == "PAUSED_BY_HUMAN"
    assert data(session.ask("resume"))["state"] == "RUNNING"
    turn = session.prompt("[[echo:I was away.]]")
    session.until_done(turn, "done")
    checkpoint = session.kept_after(turn)
    goes_on_elsewhere(session, workers, model, name)
    is_forked(session, checkpoint)
    data(session.ask("end"))
    eventually(lambda: session.get()["state"] == "COMPLETED", timeout=60, what="the end")
    types = [e["type"] for e in watchers.agree()]
    assert types[0] == "SESSION_CREATED" and types[-1] == "SESSION_ENDED", types
    assert types.count("APPROVAL_REQUESTED") == types.count("APPROVAL_RESOLVED") >= 3
    shown = village("GET", f"/sessions/{session.id}/terminal").content
    assert b"I was away." in shown and b"echo one >> one.txt" in shown, shown
