"""Sessions that wait hold no worker: they hibernate behind a checkpoint and go on when somebody needs them. Worker and runner are
scripted (tests/tools/checkpoint_peer.py)."""
import uuid

import harness
import pytest
from checkpoint_peer import Worker, create, prompt, worker_of
from village import Village, data, refused

SETTINGS = {"OZ_MAX_SESSIONS_PER_ORG": "500", "OZ_WORKER_RECONNECT_GRACE_MS": "1000", "OZ_CHECKPOINT_MAX_MB": "1",
            "OZ_HIBERNATE_PAUSED_MINUTES": "0.01", "OZ_HIBERNATE_IDLE_MINUTES": "0.02", "OZ_HIBERNATE_WAITING_MINUTES": "0.01"}
GATE = {"action": "shell", "description": "rm -r x", "risk": "high", "context": {}}


@pytest.fixture(scope="module")
def shared(postgres):
    with harness.serving(SETTINGS, postgres=postgres, name="hibernates") as server:
        yield server


@pytest.fixture
def worker(shared):
    with worker_of(shared) as w:
        yield w


def prompts(village, session):
    return [(p["prompt"], p["state"], p["attempt"]) for p in data(village("GET", f"/sessions/{session}/prompts"))["items"]]


def until(village, session, timeout=20, **fields):
    def there():
        found = village.get(session)
        return found if all(found.get(k) == v for k, v in fields.items()) else None
    return harness.eventually(there, timeout=timeout, what=f"{fields}: {village.get(session)}")


def falls_asleep(runner, *contents, **said):
    """The runner does as it is asked; the worker is told to stop it."""
    m = runner.told("hibernate")
    assert runner.checkpoint(*contents, **said)["ok"]
    runner.say("hibernate", requestId=m["requestId"], ok=True, number=runner.checkpoints)
    return m["requestId"]


def ends(runner):
    """The worker was told that its execution is over, and it is."""
    runner.worker.order(runner.task["task_id"])
    runner.worker.running.pop(runner.task["execution_id"], None)
    runner.worker.confirm_cancel(runner.task)
    runner.worker.wait_acked()


def moves(village, session):
    return [e["data"].get("newState") for e in village.events(session, types="SESSION_STATE_CHANGED", limit=500)["events"]]


def asks(runner, turn, key="rm", question=None):
    question = question or str(uuid.uuid4())
    runner.seq += 1
    runner.frame(type="question", seq=runner.seq, questionId=question, turnId=turn, kind="permission", text="may I?", requestKey=key, approval=GATE)
    runner.acked()
    return question


def decide(village, session, approval, decision, **more):
    return village("POST", f"/sessions/{session}/approvals/{approval}", json={"decision": decision, **more})


def test_an_idle_session_hibernates_and_a_prompt_wakes_it(village, worker):
    session = create(village, worker)
    prompt(village, session, "one")
    runner = worker.begin(session)
    assert village.get(session)["attempt"] == 1
    runner.take_turn()
    falls_asleep(runner, b"what was made", conversationId="talk-1")
    asleep = until(village, session, hibernated=True)
    assert asleep["state"] == "PAUSED_BY_HUMAN" and asleep["attempt"] == 1 and "errorMessage" not in asleep
    assert session in [s["sessionId"] for s in village.list(state="PAUSED_BY_HUMAN", limit=100)["items"]]
    ends(runner)
    worker.nothing("task_assignment", 0.5)
    refused(village("POST", f"/sessions/{session}/pause"), 409, "INVALID_STATE")
    prompt(village, session, "two")
    again = worker.begin(session)
    assert again.init["conversationId"] == "talk-1" and again.restored()[-1][1] == [b"what was made"]
    assert again.take_turn(content="two")["attempt"] == 1
    awake = village.get(session)
    assert awake["state"] == "RUNNING" and awake["attempt"] == 2 and "hibernated" not in awake and "pausedAt" not in awake
    falls_asleep(again)
    until(village, session, hibernated=True)
    ends(again)
    assert village.stop(session).status_code in (200, 202)
    assert village.get(session)["state"] == "COMPLETED" and village.get(session)["endReason"] == "stopped"


def test_a_paused_session_is_thawed_for_it_and_resume_wakes_it(village, worker):
    session = create(village, worker)
    turn = prompt(village, session, "one")
    runner = worker.begin(session)
    runner.take_turn(done=False)
    data(village("POST", f"/sessions/{session}/pause"))
    falls_asleep(runner, b"in the middle")
    asleep = until(village, session, hibernated=True)
    assert asleep["state"] == "PAUSED_BY_HUMAN" and asleep["pausedAt"]
    assert worker.commands[-2:] == ["pause", "resume"]
    ends(runner)
    assert prompts(village, session) == [("one", "queued", 0)]
    woken = data(village("POST", f"/sessions/{session}/resume"))
    assert woken["state"] == "QUEUED" and "hibernated" not in woken
    again = worker.begin(session)
    assert again.restored()[-1][1] == [b"in the middle"]
    told = again.take_turn()
    assert told["turnId"] == turn and told["attempt"] == 1
    village.stop(session)


@pytest.mark.parametrize("decision", ["allow", "deny"])
def test_the_decision_wakes_it_and_is_applied_once_to_the_same_request(village, worker, decision):
    session = create(village, worker)
    turn = prompt(village, session, "one")
    runner = worker.begin(session)
    runner.take_turn(done=False)
    first = asks(runner, turn)
    falls_asleep(runner)
    asleep = until(village, session, hibernated=True)
    assert asleep["state"] == "WAITING_FOR_APPROVAL" and len(asleep["pendingApprovals"]) == 1
    gate = asleep["pendingApprovals"][0]["approvalId"]
    assert gate == f"apr_{first}"
    ends(runner)
    data(decide(village, session, gate, decision, reason="so be it"))
    again = worker.begin(session)
    assert again.take_turn(done=False)["turnId"] == turn
    other = asks(again, turn, key="another request")  # it is for the same one only
    same = asks(again, turn)
    told = again.told("answer")
    assert told["questionId"] == same and told["decision"] == decision and told["reason"] == "so be it"
    again.say("answered", questionId=same, taken=True)
    again.acked()
    once_more = asks(again, turn)  # it was taken: people are asked again
    pending = {a["approvalId"] for a in village.get(session)["pendingApprovals"]}
    assert pending == {f"apr_{other}", f"apr_{once_more}"}
    resolved = [e for e in village.events(session, limit=500)["events"] if e["type"] == "APPROVAL_RESOLVED"]
    assert len(resolved) == 1
    village.stop(session)


def test_a_decision_is_not_for_another_turn(village, worker):
    session = create(village, worker)
    turn = prompt(village, session, "one")
    runner = worker.begin(session)
    runner.take_turn(done=False)
    gate = asks(runner, turn)
    falls_asleep(runner)
    until(village, session, hibernated=True)
    ends(runner)
    data(decide(village, session, f"apr_{gate}", "allow"))
    again = worker.begin(session)
    again.take_turn()  # and did not ask
    second = prompt(village, session, "two")
    again.take_turn(done=False)
    asked = asks(again, second)
    assert [a["approvalId"] for a in village.get(session)["pendingApprovals"]] == [f"apr_{asked}"]
    village.stop(session)


def test_a_gate_that_is_open_over_the_sleep_stays_the_same(village, worker):
    session = create(village, worker)
    turn = prompt(village, session, "one")
    runner = worker.begin(session)
    runner.take_turn(done=False)
    gate = asks(runner, turn)
    falls_asleep(runner)
    until(village, session, hibernated=True)
    ends(runner)
    data(village("POST", f"/sessions/{session}/resume"))  # nobody decided
    again = worker.begin(session)
    again.take_turn(done=False)
    asked = asks(again, turn)
    waiting = until(village, session, state="WAITING_FOR_APPROVAL")
    assert [a["approvalId"] for a in waiting["pendingApprovals"]] == [f"apr_{gate}"] and "hibernated" not in waiting
    data(decide(village, session, f"apr_{gate}", "allow"))
    assert again.told("answer")["questionId"] == asked
    again.say("answered", questionId=asked, taken=True)
    again.acked()
    village.stop(session)


def test_whoever_needs_it_meanwhile_gets_it(village, worker):
    session = create(village, worker)
    runner = worker.begin(session)
    asked = runner.told("hibernate")
    prompt(village, session, "wait")
    turn = runner.told("prompt")["turnId"]
    runner.checkpoint()
    runner.say("hibernate", requestId=asked["requestId"], ok=True, number=1)
    assert runner.told("hibernate-cancel")["requestId"] == asked["requestId"]
    runner.say("complete", turnId=turn, outcome="done")
    again = runner.told("hibernate")
    assert again["requestId"] != asked["requestId"]
    runner.say("hibernate", requestId=again["requestId"], ok=True, number=7)  # which is not there
    runner.told("hibernate-cancel")
    assert village.get(session)["state"] == "RUNNING"
    village.stop(session)


def test_what_cannot_be_kept_is_not_ended(village, worker):
    session = create(village, worker)
    runner = worker.begin(session)
    asked = runner.told("hibernate")
    runner.say("hibernate", requestId=asked["requestId"], ok=False, error="no git")
    runner.told("hibernate-cancel")
    data(village("POST", f"/sessions/{session}/pause"))
    asked = runner.told("hibernate")
    runner.say("hibernate", requestId=asked["requestId"], ok=False, error="no git")
    runner.told("hibernate-cancel")
    assert worker.commands == ["pause", "resume", "pause"] and village.get(session)["state"] == "PAUSED_BY_HUMAN"
    village.stop(session)


def test_its_slot_is_free_for_others(village, shared):
    with worker_of(shared, capacity=1) as w:
        first = create(village, w)
        runner = w.begin(first)
        second = create(village, w)
        assert village.get(second)["state"] == "QUEUED"
        falls_asleep(runner, b"x")
        until(village, first, hibernated=True)
        ends(runner)
        other = w.begin(second)
        prompt(village, first, "now me")
        w.nothing("task_assignment", 0.5)
        falls_asleep(other)
        until(village, second, hibernated=True)
        ends(other)
        assert w.begin(first).take_turn()["content"] == "now me"
        village.stop(first)
        village.stop(second)


def test_a_restart_of_the_server_keeps_it_asleep(make_server):
    server = make_server({**SETTINGS, "OZ_MAX_SESSIONS_PER_ORG": "1"})
    village = Village(server.client("sleeper"))
    w = Worker(server, "w-restart", capacity=5)
    session = create(village, w)
    runner = w.begin(session)
    falls_asleep(runner, b"kept")
    until(village, session, hibernated=True)
    server.kill9()
    w.running.clear()
    server.start()
    village = Village(server.client("sleeper"))
    w.reconnect()
    assert village.get(session)["hibernated"] is True
    other = create(village, w)  # it does not count
    refused(village.post(options={"mode": "interactive"}, task=None), 429, "SESSION_LIMIT_EXCEEDED")
    village.stop(other)
    village.stop(other)
    prompt(village, session, "go on")
    harness.eventually(lambda: village.get(session)["state"] != "PAUSED_BY_HUMAN", what="its wake")
    again = w.begin(session)
    assert again.restored()[-1][1] == [b"kept"] and again.take_turn()["content"] == "go on"
    village.stop(session)
    w.close()


def test_lost_three_times_it_is_parked_until_it_is_resumed(village, shared):
    with worker_of(shared) as w:
        session = create(village, w)
        runner = w.begin(session)
        assert runner.checkpoint(b"x")["ok"]
        for attempt in (1, 2, 3):
            w.abort()
            w.running.clear()
            if attempt == 3:
                break
            until(village, session, state="QUEUED")
            w.reconnect()
            w.begin(session)
        parked = until(village, session, parked=True)
        assert parked["state"] == "PAUSED_BY_HUMAN" and "SESSION_LOST" in parked["errorMessage"] and parked["attempt"] == 3
        w.reconnect()
        w.nothing("task_assignment", 0.5)
        data(village("POST", f"/sessions/{session}/resume"))
        again = w.begin(session)
        assert again.restored()[-1][1] == [b"x"]
        awake = village.get(session)
        assert awake["state"] == "RUNNING" and "errorMessage" not in awake and "parked" not in awake and awake["attempt"] == 4
        village.stop(session)


@pytest.mark.parametrize("minutes", ["0.01", "0"])
def test_a_paused_session_outlives_a_restart_of_the_server(make_server, minutes):
    """What stands still cannot say hello: it is thawed for its resume, or to hibernate."""
    server = make_server({**SETTINGS, "OZ_HIBERNATE_PAUSED_MINUTES": "0", "OZ_WORKER_RECONNECT_GRACE_MS": "20000"}, start=False)
    server.start()
    village = Village(server.client("sleeper"))
    w = Worker(server, "w-restart", capacity=5)
    session = create(village, w)
    prompt(village, session, "one")
    runner = w.begin(session)
    runner.take_turn(done=False)
    data(village("POST", f"/sessions/{session}/pause"))
    server.kill9()
    server.extra["OZ_HIBERNATE_PAUSED_MINUTES"] = minutes
    server.start()
    village = Village(server.client("sleeper"))
    w.commands.clear()
    w.reconnect()
    if minutes == "0":
        assert data(village("POST", f"/sessions/{session}/resume"))["state"] == "RUNNING"
        assert w.commands[0] == "resume"
        runner.hello(processing=None)
    else:
        harness.eventually(lambda: w.commands == ["resume"], what="its thaw")
        runner.hello()
        falls_asleep(runner)
        assert until(village, session, hibernated=True)["state"] == "PAUSED_BY_HUMAN"
    village.stop(session)
    w.close()
