"""Sessions that wait give their worker back and go on where they were: with a real `muster worker` that has one slot, sandboxes and
runners, and a scripted agent (tests/tools/fake_acp.py)."""
import hashlib
import json
import secrets

import git_remote
import harness
import pytest
import worker_daemon
from test_session_goes_on import AGENT, Hand, Session
from village import data

KEY = secrets.token_hex(16)
SETTINGS = {"OZ_ALLOW_LOCAL_REPOS": "on", "OZ_MAX_SESSIONS_PER_ORG": "0", "OZ_WORKER_RECONNECT_GRACE_MS": "6000",
            "OZ_HIBERNATE_PAUSED_MINUTES": "0.03", "OZ_HIBERNATE_IDLE_MINUTES": "0.1", "OZ_HIBERNATE_WAITING_MINUTES": "0.03",
            "OZ_WORKER_KEYS": f"w-1={hashlib.sha256(KEY.encode()).hexdigest()}"}
ASK = "ask " + json.dumps({"toolCallId": "t1", "title": "a push", "kind": "execute", "rawInput": {"command": "git push origin main"}})


@pytest.fixture(scope="module")
def shared(postgres, tmp_path_factory):
    harness.need_sandbox(tmp_path_factory.mktemp("check"))
    with harness.serving(SETTINGS, postgres=postgres, name="sleeps") as server:
        yield server


@pytest.fixture
def worker(shared, village):
    one = worker_daemon.Daemon(Hand(shared, KEY), "--sandbox", "namespace", "--max-concurrent-tasks", "1", kind="namespace",
                               worker_id="w-1").start()
    try:
        harness.eventually(lambda: any(w["connected"] for w in harness.ok(shared.client().api("GET", "/workers"))["workers"]),
                           timeout=30, what="the worker")
        yield one
        for session in village.list(state="active")["items"]:
            village.stop(session["sessionId"])
        one.stop()
    finally:
        if one.process.poll() is None:
            one.process.kill()
        one.remove()


@pytest.fixture(scope="module")
def repository():
    with git_remote.serving("work", **{"README": "read me\n", "agent.py": AGENT}) as url:
        yield {"url": url}


class Sleeper(Session):
    def asleep(self, state="PAUSED_BY_HUMAN", timeout=90):
        found = harness.eventually(lambda: self.get() if self.get().get("hibernated") else None, timeout=timeout,
                                   what=f"its sleep: {self.get()}")
        assert found["state"] == state, found
        self.terminal = None
        return found

    def prompts(self):
        return [p["state"] for p in data(self("GET", "/prompts"))["items"]]

    def said(self):
        return "".join(e["data"].get("text", "") for e in self.events("AGENT_MESSAGE"))


def begin(village, tenant, repository, **options):
    made = tenant.environment(name="scripted " + secrets.token_hex(4), setup_commands=[
        "install -D -m 755 $(find /workspace -name agent.py | head -n 1) /home/agent/.local/bin/claude-agent-acp"])
    session = village.create(providerId="claude_code", repo=repository, task=None,
                             options={"mode": "interactive", "environmentId": made["environment_id"], **options})
    return Sleeper(village, session["sessionId"])


def test_two_sessions_share_the_one_slot(village, tenant, worker, repository):
    first = begin(village, tenant, repository)
    first.until("RUNNING")
    first.prompt("write one first\nsay done")
    second = begin(village, tenant, repository)
    first.asleep()
    second.until("RUNNING")  # in the slot of the first
    second.prompt("write two second\nsay done")
    first.prompt("say again")
    second.asleep()
    awake = first.until("RUNNING")
    assert awake["attempt"] == 2
    harness.eventually(lambda: first.prompts() == ["done", "done"], timeout=60, what="the second turn")
    assert first.run("cat one") == "first"
    said = first.run("cat ~/fake-acp-history | tr '\\0' '\\n'")
    assert said.index("write one first") < said.index("say again"), said


def test_paused_in_the_middle_of_a_turn_it_begins_that_again(village, tenant, worker, repository):
    session = begin(village, tenant, repository)
    session.until("RUNNING")
    session.prompt("write one begun\nsay begun\nsleep 6\nwrite one done\nsay done")
    harness.eventually(lambda: "begun" in session.said() or session.prompts() == ["running"], timeout=30, what="the turn")
    data(session("POST", "/pause"))
    session.asleep()
    assert session.prompts() == ["queued"]
    data(session("POST", "/resume"))
    session.until("RUNNING")
    harness.eventually(lambda: session.prompts() == ["done"], timeout=60, what="the turn's end")
    assert session.run("cat one") == "done"


def test_the_decision_of_a_gate_wakes_it_and_is_applied(village, tenant, worker, repository):
    session = begin(village, tenant, repository, policy={"shellDefault": "ask"})
    session.until("RUNNING")
    session.prompt(ASK + "\nwrite asked yes\nsay over")
    session.until("WAITING_FOR_APPROVAL")
    asleep = session.asleep("WAITING_FOR_APPROVAL")
    (gate,) = asleep["pendingApprovals"]
    data(session("POST", f"/approvals/{gate['approvalId']}", json={"decision": "allow"}))
    harness.eventually(lambda: session.prompts() == ["done"], timeout=90, what="the turn's end")
    assert "<selected allow>" in session.said() and session.run("cat asked") == "yes"
    assert len(session.events("APPROVAL_REQUESTED")) == len(session.events("APPROVAL_RESOLVED")) == 1
    assert session.get()["attempt"] == 2
