"""Sessions whose worker is killed go on at another one where they were, and forks begin where they say: with real `muster worker`
processes, sandboxes and runners. The agents are a shell and a scripted one (tests/tools/fake_acp.py)."""
import hashlib
import secrets

import git_remote
import harness
import pytest
import worker_daemon
from village import data

KEYS = {f"w-{i}": secrets.token_hex(16) for i in (1, 2)}
SETTINGS = {"OZ_ALLOW_LOCAL_REPOS": "on", "OZ_MAX_SESSIONS_PER_ORG": "0", "OZ_WORKER_RECONNECT_GRACE_MS": "6000",
            "OZ_WS_HEARTBEAT_INTERVAL_MS": "1000",  # what a worker hears of its server keeps its leases
            "OZ_WORKER_KEYS": ",".join(f"{name}={hashlib.sha256(key.encode()).hexdigest()}" for name, key in KEYS.items())}
AGENT = (harness.ROOT / "tests/tools/fake_acp.py").read_text()


class Hand:
    def __init__(self, server, key):
        self.url, self.key = server.url, key


@pytest.fixture(scope="module")
def shared(postgres, tmp_path_factory):
    harness.need_sandbox(tmp_path_factory.mktemp("check"))
    with harness.serving(SETTINGS, postgres=postgres, name="goes-on") as server:
        yield server


@pytest.fixture
def workers(shared, village):
    """Two of them: {name: Daemon}."""
    made = {}

    def connected():
        there = harness.ok(shared.client().api("GET", "/workers"))["workers"]
        return {w["id"] for w in there if w["connected"] and w["version"]} >= set(KEYS)
    try:
        for name, key in KEYS.items():
            made[name] = worker_daemon.Daemon(Hand(shared, key), "--sandbox", "namespace", kind="namespace", worker_id=name).start()
        harness.eventually(connected, timeout=30, what="both workers")
        yield made
        for one in village.list(state="active")["items"]:
            village.stop(one["sessionId"])
        for one in made.values():
            one.stop()
            harness.eventually(lambda: not list((one.state / "s").iterdir()), what="the end of the sandbox's folder")
    finally:
        for one in made.values():
            if one.process.poll() is None:
                one.process.kill()
            one.remove()


@pytest.fixture(scope="module")
def repository():
    with git_remote.serving("work", **{"README": "read me\n", "agent.py": AGENT, ".gitignore": "*.o\n"}) as url:
        yield {"url": url}


class Session:
    def __init__(self, village, session):
        self.village, self.id, self.terminal = village, session, None

    def __call__(self, method, suffix, **options):
        return self.village(method, f"/sessions/{self.id}{suffix}", **options)

    def get(self):
        return self.village.get(self.id)

    def until(self, state, timeout=60, after=0):
        def there():
            found = self.get()
            assert found["state"] == state or "completedAt" not in found, found
            return found if found["state"] == state and found["attempt"] > after else None
        return harness.eventually(there, timeout=timeout, what=f"{state}")

    def prompt(self, text):
        return data(self("POST", "/prompts", json={"prompt": text}), 201)["promptId"]

    def checkpoints(self):
        return data(self("GET", "/checkpoints"))["items"]

    def checkpoint_of(self, turn, timeout=60):
        def there():
            return next((c for c in self.checkpoints() if c.get("turnId") == turn), None)
        return harness.eventually(there, timeout=timeout, what=f"the checkpoint of {turn}: {self.checkpoints()}")

    def run(self, command):
        """What a command in another terminal of the sandbox says."""
        mark = secrets.token_hex(8)
        if self.terminal is None:
            self.terminal = data(self("POST", "/terminals", json={"cols": 200, "rows": 50}), 201)["terminal"]
        line = f"stty -echo; printf '\\n{mark[:8]}''{mark[8:]}\\n'; {command}; printf '\\n{mark[8:]}''{mark[:8]}\\n'\n"
        data(self("POST", "/input", json={"data": line, "terminal": self.terminal}), 202)

        def said():
            text = self("GET", "/terminal", params={"terminal": self.terminal}).text.replace("\r", "")
            _, begun, rest = text.partition(f"\n{mark}\n")
            rest, ended, _ = rest.partition(f"\n{mark[8:]}{mark[:8]}\n")
            return (rest,) if begun and ended else None
        return harness.eventually(said, timeout=30, what=f"{command}")[0]

    def events(self, *types):
        return self.village.events(self.id, types=",".join(types), limit=500)["events"]


def agent_of(kind, client):
    """(options, provider, how a file is written and with which words)."""
    if kind == "shell":
        return {}, "shell", lambda name, text: f"printf %s {text} >{name}"
    made = client.environment(name="scripted " + secrets.token_hex(4), setup_commands=[
        "install -D -m 755 $(find /workspace -name agent.py | head -n 1) /home/agent/.local/bin/claude-agent-acp"])
    return {"environmentId": made["environment_id"]}, "claude_code", lambda name, text: f"write {name} {text}\nsay done"


TREE = "cat one two three README 2>/dev/null; echo; git status --porcelain; git --no-pager log --format=%s"


@pytest.mark.parametrize("kind", ["shell", "agent"])
def test_it_goes_on_at_another_worker_and_is_forked(village, tenant, workers, repository, kind):
    options, provider, write = agent_of(kind, tenant)
    made = village.create(providerId=provider, repo=repository, task=None, options={"mode": "interactive", **options})
    session = Session(village, made["sessionId"])
    first_worker = session.until("RUNNING")["runnerName"]
    first = session.prompt(write("one", "first"))
    assert session.checkpoint_of(first)["number"] == 1
    session.run("printf 'changed\\n' >>README; git add README; printf x >x.o; git -c user.name=a -c user.email=a@b.c commit -qm mine; "
                "printf 'again\\n' >>README")
    second = session.prompt(write("two", "second"))
    taken = session.checkpoint_of(second)
    assert taken["number"] == 2 and taken["bytes"] > 0
    before = session.run(TREE)
    assert before.startswith("firstsecondread me\nchanged\nagain\n"), before
    assert " M README" in before and "?? one" in before and "?? two" in before and before.endswith("mine\none\n"), before
    assert session.run("cat x.o") == "x"
    if kind == "agent":  # it is in the middle of a turn
        third = session.prompt("say begun\nsleep 4\n" + write("three", "third"))
        harness.eventually(lambda: [p for p in data(session("GET", "/prompts"))["items"] if p["promptId"] == third
                                    and p["state"] == "running"], what="the third turn")
    attempt = session.get()["attempt"]
    workers[first_worker].kill9()
    running = session.until("RUNNING", after=attempt)
    assert running["runnerName"] != first_worker
    session.terminal = None
    if kind == "agent":
        session.checkpoint_of(third)
        moved = session.run(TREE)
        assert moved.startswith("firstsecondthirdread me"), moved
        moved = moved.replace("third", "", 1).replace("?? three\n", "")
        said = session.run("cat ~/fake-acp-history | tr '\\0' '\\n'")  # its memory is in its home
        assert said.index("write one first") < said.index("write two second") < said.index("say begun"), said
        assert [p["state"] for p in data(session("GET", "/prompts"))["items"]] == ["done"] * 3
    else:
        moved = session.run(TREE)
        turn = session.prompt(write("three", "third"))
        session.checkpoint_of(turn)
        assert session.run("cat three") == "third"
    assert moved == before
    assert session.run("test -e x.o || echo gone") == "gone\n"  # what git ignores is not kept
    assert [c["number"] for c in session.checkpoints()][-2:] == [2, 1]

    forked = Session(village, data(session("POST", "/fork", json={"checkpoint": 1, "title": "from the first"}), 201)["sessionId"])
    forked.until("RUNNING")
    assert forked.run(TREE) == "firstread me\n\n?? one\none\n"
    turn = forked.prompt(write("two", "otherwise"))
    forked.checkpoint_of(turn)
    assert forked.run("cat one two") == "firstotherwise" and session.run("cat two") == "second"

    again = workers[first_worker].start()  # it comes back with what it had: that is over
    again.wait_log("task.not_wanted", timeout=30)
    assert session.get()["state"] == "RUNNING" and session.get()["attempt"] == running["attempt"]
    for one in (session, forked):
        data(one("POST", "/end"))
        assert one.until("COMPLETED")["endReason"] == "finished"
