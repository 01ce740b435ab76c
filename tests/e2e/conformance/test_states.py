"""The transitions of village-control-plane.md 4.3 over HTTP, the WebSocket and the Oz API at once (15.4, 15.14): a scripted
worker walks sessions through the table; after every step all views say the same, each in its words, and at the end the log
holds exactly the transitions that were walked and one end."""
import pytest
from harness import eventually
from live_peers import LiveWorker, Runner
from village import data, refused
from world import new_id

OZ = {"CREATED": "QUEUED", "QUEUED": "PENDING", "PREPARING_WORKSPACE": "INPROGRESS", "STARTING_PROVIDER": "INPROGRESS",
      "RUNNING": "INPROGRESS", "WAITING_FOR_APPROVAL": "INPROGRESS", "PAUSED_BY_HUMAN": "INPROGRESS", "STOPPING": "CANCELLED"}
OZ_END = {"finished": "SUCCEEDED", "stopped": "CANCELLED", "denied": "CANCELLED", "provider_error": "FAILED",
          "workspace_error": "FAILED", "runner_lost": "FAILED", "timeout": "FAILED", "internal": "FAILED"}
LIVE = ("PREPARING_WORKSPACE", "STARTING_PROVIDER", "RUNNING", "WAITING_FOR_APPROVAL", "PAUSED_BY_HUMAN")
ENDS = ("COMPLETED", "FAILED", "TIMED_OUT")


class Walk:
    """One session on its way, and all who look at it."""

    def __init__(self, world, worker, **options):
        self.w, self.v, self.worker = world, world.v, worker
        self.id = world.waiting(runnerId=worker.worker_id, **options)
        self.viewer = world.socket()
        self.viewer.follow(self.id, sinceSeq=0, terminal=False)
        self.seen = ["QUEUED"]
        self.task = self.runner = None
        self.gates = []

    def at(self, state, reason=None, oz=None):
        """Every view says so."""
        eventually(lambda: self.v.get(self.id)["state"] == state, what=f"{state} after {self.seen}")
        self.seen.append(state)
        shown = self.v.get(self.id)
        assert shown.get("endReason") == reason, shown
        run = self.v.client.run(self.id.replace("ses_", "run_"))
        assert run["state"] == (oz or OZ_END.get(reason) or OZ[state]), (state, run)
        assert shown["sessionId"] in [s["sessionId"] for s in self.v.list(state=state, pageSize=100)["items"]]
        self.viewer.wait(lambda: [m for m in self.viewer.of("session", action="state_change") if m["data"]["newState"] == state],
                         what=f"{state} on the socket")
        assert ("completedAt" in shown) is (state in ENDS)
        return self

    def to(self, state):
        """On the straight way, up to that state."""
        self.task = self.worker.assigned("run_" + self.id.removeprefix("ses_"))
        self.worker.running[self.task["execution_id"]] = self.task
        self.worker.send("task_claimed", self.worker.ids(self.task))
        self.worker.state(self.task, "preparing")
        self.at("PREPARING_WORKSPACE")
        if state == "PREPARING_WORKSPACE":
            return self
        self.worker.state(self.task, "starting")
        self.at("STARTING_PROVIDER")
        if state == "STARTING_PROVIDER":
            return self
        self.runner = Runner(self.worker, self.task)
        self.runner.hello(terminals=[0])
        self.runner.running()
        self.worker.state(self.task, "running")
        self.at("RUNNING")
        if state == "WAITING_FOR_APPROVAL":
            return self.ask().at("WAITING_FOR_APPROVAL")
        return self.pause() if state == "PAUSED_BY_HUMAN" else self

    def ask(self, text="May I?"):
        self.gates.append(self.runner.ask(text))
        self.viewer.wait(lambda: self.viewer.of("approval_required")[len(self.gates) - 1:], what="approval_required")
        return self

    def decide(self, decision):
        data(self.v("POST", f"/sessions/{self.id}/approvals/{self.gates.pop(0)}", json={"decision": decision}))
        return self

    def pause(self):
        self.w.paused_by(self.worker, self.id)
        return self.at("PAUSED_BY_HUMAN")

    def resume(self):
        self.w.told(self.worker, self.id, "resume")
        return self

    def stop(self):
        shown = data(self.v.stop(self.id), 202)
        assert shown["state"] == "STOPPING"
        self.worker.expect("task_cancel", task_id=self.task["task_id"])
        return self.at("STOPPING")

    def is_over(self):
        """Nothing moves it any more; the log is what was walked."""
        final = self.v.get(self.id)
        for call, code in (("stop", "SESSION_ALREADY_STOPPED"), ("pause", "INVALID_STATE"), ("resume", "INVALID_STATE"),
                           ("end", "INVALID_STATE")):
            refused(self.v("POST", f"/sessions/{self.id}/{call}"), 409, code)
        log = self.v.events(self.id, limit=1000)["events"]
        moves = [(e["data"]["previousState"], e["data"]["newState"]) for e in log if e["type"] == "SESSION_STATE_CHANGED"]
        moves = [m for m in moves if m[0] != m[1]]
        assert [a for a, _ in moves] + [moves[-1][1]] == self.seen, (moves, self.seen)
        assert [e["type"] for e in log].count("SESSION_ENDED") == 1 and log[-1]["type"] == "SESSION_ENDED"
        self.viewer.expect("session", action="completed")
        self.viewer.sync()
        assert len(self.viewer.of("session", action="completed")) == 1
        shown = [(m["data"]["previousState"], m["data"]["newState"]) for m in self.viewer.of("session", action="state_change")
                 if "seq" in m]
        assert [m for m in shown if m[0] != m[1]] == moves
        assert final["pendingApprovals"] == []
        again = self.v.get(self.id)
        assert {k: v for k, v in again.items() if k != "recentEvents"} == {k: v for k, v in final.items() if k != "recentEvents"}
        self.viewer.close()


@pytest.fixture(scope="module")
def worker(world):
    with LiveWorker(world.server, worker_id="states-" + new_id(), capacity=1000) as peer:
        yield peer


@pytest.fixture
def walk(world, worker):
    return lambda **options: Walk(world, worker, **options)


def test_the_straight_way(walk):  # 1 2 3 4 6 18
    x = walk().to("RUNNING")
    x.worker.complete(x.task)
    x.at("COMPLETED", "finished").is_over()


@pytest.mark.parametrize("state", LIVE)
def test_a_stop_with_a_runner_winds_up(walk, state):  # 15 17
    x = walk().to(state).stop()
    assert x.v.stop(x.id).status_code == 202  # once more is the same
    for call in ("pause", "resume", "end"):
        refused(x.v("POST", f"/sessions/{x.id}/{call}"), 409, "INVALID_STATE")
    x.worker.confirm_cancel(x.task)
    x.at("COMPLETED", "stopped").is_over()


def test_a_stop_without_a_runner_ends_it(world):  # 16
    session = world.waiting()
    assert data(world.v.stop(session))["state"] == "COMPLETED"
    types = [e["type"] for e in world.v.events(session)["events"]]
    assert types.count("SESSION_ENDED") == 1


@pytest.mark.parametrize("state", ("RUNNING", "WAITING_FOR_APPROVAL", "PAUSED_BY_HUMAN"))
@pytest.mark.parametrize("code, end, reason", [(0, "COMPLETED", "finished"), (3, "FAILED", "provider_error")])
def test_the_agent_ends_by_itself(walk, state, code, end, reason):  # 18 19
    x = walk().to(state)
    x.worker.complete(x.task, code)
    x.at(end, reason)
    assert x.v.get(x.id)["exitCode"] == code
    x.is_over()


@pytest.mark.parametrize("state, failure, reason", [("PREPARING_WORKSPACE", "workspace_setup", "workspace_error"),
                                                    ("STARTING_PROVIDER", "", "provider_error")])
def test_what_fails_before_it_runs(walk, state, failure, reason):  # 5 7
    x = walk().to(state)
    x.worker.fail(x.task, "It did not work", failure)
    x.at("FAILED", reason)
    assert "It did not work" in x.v.get(x.id)["errorMessage"]
    x.is_over()


def test_two_gates_then_on(walk):  # 8 9
    x = walk().to("WAITING_FOR_APPROVAL").ask("And this?")
    assert len(eventually(lambda: (p := x.v.get(x.id)["pendingApprovals"]) and len(p) == 2 and p)) == 2
    x.decide("allow")
    assert x.v.get(x.id)["state"] == "WAITING_FOR_APPROVAL"
    x.decide("deny").at("RUNNING").stop()
    x.worker.confirm_cancel(x.task)
    x.at("COMPLETED", "stopped").is_over()


def test_a_denial_that_stops(walk):  # 10 17
    x = walk(policy={"onDeny": "stop"}).to("WAITING_FOR_APPROVAL").decide("deny")
    x.at("STOPPING").worker.confirm_cancel(x.task)
    x.at("COMPLETED", "denied").is_over()


def test_pauses(walk):  # 11 12 13 14
    x = walk().to("PAUSED_BY_HUMAN")
    for call in ("pause", "end", "interrupt"):
        refused(x.v("POST", f"/sessions/{x.id}/{call}"), 409, "INVALID_STATE")
    x.resume().at("RUNNING")
    x.ask().at("WAITING_FOR_APPROVAL").pause()
    assert len(x.v.get(x.id)["pendingApprovals"]) == 1
    x.resume().at("WAITING_FOR_APPROVAL").pause().decide("allow")
    assert x.v.get(x.id)["state"] == "PAUSED_BY_HUMAN"  # a decision does not wake it
    x.resume().at("RUNNING")
    x.worker.complete(x.task)
    x.at("COMPLETED", "finished").is_over()


@pytest.mark.parametrize("state", LIVE)
def test_what_no_row_allows_is_refused(walk, state):
    """Of every live state; of those that wait or have ended, error_table.py."""
    x = walk().to(state)
    running = state in ("RUNNING", "WAITING_FOR_APPROVAL")
    calls = {"pause": running, "end": running, "interrupt": running, "resume": state == "PAUSED_BY_HUMAN"}
    for call in (c for c, may in calls.items() if not may):
        refused(x.v("POST", f"/sessions/{x.id}/{call}"), 409, "INVALID_STATE")
    if not running:
        refused(x.v("POST", f"/sessions/{x.id}/input", json={"data": "x"}), 409, "INVALID_STATE")
    if state in ("PREPARING_WORKSPACE", "STARTING_PROVIDER"):
        refused(x.v("POST", f"/sessions/{x.id}/approvals", json={"action": "merge", "description": "d"}), 409, "INVALID_STATE")
    assert x.v.get(x.id)["state"] == state
    x.worker.complete(x.task)
    x.at("COMPLETED", "finished").is_over()


def test_what_was_refused_waits_again(walk):  # 23; the last: its worker gets nothing for a while
    x = walk()
    task = x.worker.assigned("run_" + x.id.removeprefix("ses_"))
    x.worker.reject(task)
    eventually(lambda: x.v.get(x.id)["state"] == "QUEUED")
    assert data(x.v.stop(x.id))["state"] == "COMPLETED"
