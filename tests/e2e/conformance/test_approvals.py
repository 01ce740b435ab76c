"""What 15.5 asks of approvals beyond what tests/e2e/sessions and tests/e2e/live show: a restart and a lost connection while
one waits, who may not decide, and that a decision reaches the runner exactly once."""
import concurrent.futures

from harness import eventually
from live_peers import Runner
from village import data, refused
from world import World


def gates(v, session):
    return {a["approvalId"]: a["status"] for a in data(v("GET", f"/sessions/{session}/approvals"))["items"]}


def decide(v, session, gate, decision="allow"):
    return data(v("POST", f"/sessions/{session}/approvals/{gate}", json={"decision": decision}))


def told_again(worker, runner):
    """The worker comes back with what it runs, and the runner says hello: it gets what it has not taken."""
    worker.reconnect()
    again = Runner(worker, runner.task)
    again.seq, again.offsets = runner.seq, runner.offsets
    again.hello("running", terminals=[0])
    return again


def test_a_decision_made_while_the_runner_was_away_is_told_until_it_is_taken(world):
    session, runner = world.start()
    worker = runner.worker
    gate = runner.ask()
    question = gate.removeprefix("apr_")
    runner.stored()
    worker.abort()
    eventually(lambda: world.v.get(session).get("runnerUnreachable"), what="the runner is away")
    assert decide(world.v, session, gate)["pendingApprovals"] == []
    back = told_again(worker, runner)
    assert back.told("answer", questionId=question)["decision"] == "allow"
    worker.abort()  # before it said that it has it
    back = told_again(worker, back)
    assert back.told("answer", questionId=question)["decision"] == "allow"
    back.report("answered", questionId=question, taken=True)
    back.stored()
    worker.abort()
    back = told_again(worker, back)
    back.events(("FILE_TOUCHED", {"path": "f", "reason": "write"}))
    back.stored()
    said = [f for f in worker.frames_of(back.task["execution_id"]) if f["type"] == "answer"]
    assert len(said) == 2, said  # now that it has it, never again
    assert gates(world.v, session) == {gate: "allowed"} and world.v.get(session)["state"] == "RUNNING"
    back.end()


def test_two_that_wait_outlive_a_restart(make_server):
    server = make_server()
    world = World(server)
    try:
        worker = world.worker
        session, runner = world.start()
        first, second = runner.ask("One?"), runner.ask("Two?")
        runner.stored()
        worker.abort()
        server.kill9()
        server.start()
        world.moved()
        assert gates(world.v, session) == {first: "pending", second: "pending"}
        assert world.v.get(session)["state"] == "WAITING_FOR_APPROVAL"
        assert {a["approvalId"] for a in data(world.v("GET", "/approvals", params={"status": "pending"}))["items"]} == {first, second}
        assert len(decide(world.v, session, first)["pendingApprovals"]) == 1
        back = told_again(worker, runner)
        assert back.told("answer")["questionId"] == first.removeprefix("apr_")
        decide(world.v, session, second, "deny")
        assert back.told("answer", questionId=second.removeprefix("apr_"))["decision"] == "deny"
        eventually(lambda: world.v.get(session)["state"] == "RUNNING")
        types = [e["type"] for e in world.v.events(session, limit=1000)["events"]]
        assert types.count("APPROVAL_REQUESTED") == 2 and types.count("APPROVAL_RESOLVED") == 2
    finally:
        world.close()


def test_neither_the_session_nor_its_runner_decides(world):
    session, runner = world.start()
    gate = runner.ask()
    runner.stored()
    for token in (runner.task.get("session_token") or runner.task["env_vars"]["OZ_RUN_TOKEN"], world.runner[1].client.token):
        caller = world.caller(token)
        refused(caller("POST", f"/sessions/{session}/approvals/{gate}", json={"decision": "allow"}), 403, "FORBIDDEN")
    refused(world.viewer("POST", f"/sessions/{session}/approvals/{gate}", json={"decision": "allow"}), 403, "FORBIDDEN")
    assert gates(world.v, session) == {gate: "pending"}
    decide(world.v, session, gate)


def test_exactly_one_of_many_decisions_holds(world):
    """Two people decide ten times each, all at once, one so and one so: the first holds, for everybody and the runner."""
    session, runner = world.start()
    gate = runner.ask()
    runner.stored()
    people = [(world.v, "allow"), (world.admin, "deny")] * 10
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda x: x[0]("POST", f"/sessions/{session}/approvals/{gate}", json={"decision": x[1]}), people))
    told = runner.told("answer")["decision"]
    for (_, decision), answer in zip(people, answers):
        if decision == told:  # the same by the same is no conflict
            data(answer)
        else:
            assert refused(answer, 409, "APPROVAL_ALREADY_RESOLVED")["details"]["approval"]["decision"] == told
    runner.report("answered", questionId=gate.removeprefix("apr_"), taken=True)
    runner.stored()
    before = len([f for f in runner.worker.frames_of(runner.task["execution_id"]) if f["type"] == "answer"])
    winner = next(person for person, decision in people if decision == told)
    decide(winner, session, gate, told)  # once more changes nothing
    runner.events(("FILE_TOUCHED", {"path": "f", "reason": "write"}))
    runner.stored()
    said = [f for f in runner.worker.frames_of(runner.task["execution_id"]) if f["type"] == "answer"]
    assert {f["decision"] for f in said} == {told} and len(said) == before  # none once it was taken
    types = [e["type"] for e in world.v.events(session, limit=1000)["events"]]
    assert types.count("APPROVAL_RESOLVED") == 1


def test_the_twenty_first_is_denied_at_once(world):
    session, runner = world.start()
    for i in range(20):
        runner.ask(f"May I {i}?")
    last = runner.ask("And this?")
    runner.stored()
    found = next(a for a in data(world.v("GET", f"/sessions/{session}/approvals", params={"pageSize": 100}))["items"]
                 if a["approvalId"] == last)
    assert found["status"] == "denied" and found["reason"] == "too_many_pending", found
    assert len(world.v.get(session)["pendingApprovals"]) == 20
