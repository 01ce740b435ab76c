"""A runner that vanishes in each state, shorter and longer than the grace (6.7, 15.7), and when it counts as offline (15.6)."""
import time

import harness
import pytest
from harness import eventually
from live_peers import LiveWorker, Runner
from village import data, refused
from world import CAPS, World, new_id

GRACE, SILENT, LOOK = 3.0, 3.0, 0.2  # seconds; a busy machine comes back within two thirds of the grace
LIVE = ("PREPARING_WORKSPACE", "STARTING_PROVIDER", "RUNNING", "WAITING_FOR_APPROVAL", "PAUSED_BY_HUMAN", "STOPPING")


@pytest.fixture(scope="module")
def world(postgres):
    with harness.serving({"OZ_WORKER_RECONNECT_GRACE_MS": str(int(GRACE * 1000)), "OZ_HEARTBEAT_TIMEOUT_MS": str(int(SILENT * 1000)),
                          "OZ_HEALTH_CHECK_INTERVAL_MS": str(int(LOOK * 1000)), "OZ_MAX_SESSIONS_PER_ORG": "500"},
                         postgres=postgres, name="loss") as server:
        made = World(server)
        yield made
        made.close()


def brought_to(world, worker, state, **options):
    """A session of the worker in that state; its task."""
    session = world.waiting(runnerId=worker.worker_id, **options)
    task = worker.assigned("run_" + session.removeprefix("ses_"))
    if state == "QUEUED":
        return session, task, None
    worker.running[task["execution_id"]] = task
    worker.send("task_claimed", worker.ids(task))
    worker.state(task, "preparing" if state == "PREPARING_WORKSPACE" else "starting")
    runner = Runner(worker, task)
    if state not in ("PREPARING_WORKSPACE", "STARTING_PROVIDER"):
        runner.hello(terminals=[0])
        runner.running()
        runner.stored()
        worker.state(task, "running")
        eventually(lambda: world.v.get(session)["state"] == "RUNNING")
    if state == "WAITING_FOR_APPROVAL":
        runner.ask()
        runner.stored()
    elif state == "PAUSED_BY_HUMAN":
        world.paused_by(worker, session)
    elif state == "STOPPING":
        data(world.v.stop(session), 202)
    eventually(lambda: world.v.get(session)["state"] == state, what=state)
    return session, task, runner


def ended_once(world, session):
    log = world.v.events(session, limit=1000)["events"]
    assert [e["seq"] for e in log] == list(range(1, len(log) + 1))
    assert [e["type"] for e in log].count("SESSION_ENDED") == 1 and log[-1]["type"] == "SESSION_ENDED"


def settled(world, session, state):
    seen = {}

    def there():
        seen.update(world.v.get(session))
        return seen if seen["state"] == state else None
    try:
        return eventually(there, timeout=10)
    except AssertionError:
        raise AssertionError(f"{session} is not {state} but {seen}") from None


def test_a_runner_that_does_not_come_back(world):
    """All states at once: the grace is waited for but once."""
    with LiveWorker(world.server, worker_id="lost-" + new_id(), capacity=100) as worker:
        held = {state: brought_to(world, worker, state, **({"mode": "task"} if state in LIVE[2:5] else {}))[0]
                for state in ("QUEUED", *LIVE)}
        lost = time.monotonic()
        worker.abort()
        for state in LIVE[2:5]:
            assert eventually(lambda s=state: world.v.get(held[s]).get("runnerUnreachable"), what="it is told")
        for state in LIVE[2:5]:
            ended = settled(world, held[state], "FAILED")
            assert ended["endReason"] == "runner_lost" and ended["errorMessage"], ended
            ended_once(world, held[state])
        assert GRACE * 0.9 < time.monotonic() - lost < GRACE + SILENT + 5
        assert settled(world, held["STOPPING"], "COMPLETED")["endReason"] == "stopped"
        ended_once(world, held["STOPPING"])
        for session in (held["QUEUED"], held["PREPARING_WORKSPACE"], held["STARTING_PROVIDER"]):
            waiting = settled(world, session, "QUEUED")  # it begins again, elsewhere or here
            assert "endReason" not in waiting
        worker.running.clear()
        worker.reconnect()
        for session in (held["QUEUED"], held["PREPARING_WORKSPACE"], held["STARTING_PROVIDER"]):
            assert worker.assigned("run_" + session.removeprefix("ses_"))["epoch"] >= 1
            world.v.stop(session)


def test_a_runner_that_comes_back_in_time(world):
    with LiveWorker(world.server, worker_id="back-" + new_id(), capacity=100) as worker:
        held = {state: brought_to(world, worker, state) for state in LIVE[2:5]}
        session, _, runner = held["RUNNING"]
        runner.marks(0, 30)
        runner.stored()
        runner.show(b"before ")
        before = {state: x[1]["epoch"] for state, x in held.items()}
        worker.abort()
        time.sleep(GRACE / 3)
        worker.reconnect()
        for state, (session, task, old) in held.items():
            runner = Runner(worker, task)
            runner.seq, runner.offsets = old.seq, old.offsets
            runner.hello("running", terminals=[0])
            runner.marks(100, 10)
            runner.stored()
            shown = world.v.get(session)
            assert shown["state"] == state and shown["attempt"] == 1, shown
            assert not shown.get("runnerUnreachable") and task["epoch"] == before[state]
            if state == "RUNNING":
                runner.show(b"after")
                eventually(lambda: world.v("GET", f"/sessions/{session}/terminal").content == b"before after")
            worker.complete(task)
            settled(world, session, "COMPLETED")
            ended_once(world, session)


def test_one_that_comes_too_late_is_told_to_stop_and_changes_nothing(world):
    with LiveWorker(world.server, worker_id="late-" + new_id(), capacity=10) as worker:
        session, task, runner = brought_to(world, worker, "RUNNING", mode="task")
        worker.abort()
        settled(world, session, "FAILED")
        final = world.v.get(session)
        worker.reconnect()
        assert task["execution_id"] in str(worker.welcome) or worker.order(task["task_id"]), worker.welcome
        worker.complete(task, 0)
        worker.wait_acked()
        assert world.v.get(session)["state"] == "FAILED"
        assert {k: v for k, v in world.v.get(session).items()} == final
        ended_once(world, session)


def test_silence_makes_offline_at_the_timeout(world):
    """On the server's clock, whatever the runner's says; one tick of the health check later at most."""
    org = "beat-" + new_id()
    made = data(world.caller(world.enrolment(org))("POST", "/runners", json={"hostname": "b", **CAPS}), 201)
    own = world.caller(made["runnerToken"])

    def beat(timestamp):
        began = time.monotonic()
        data(own("POST", f"/runners/{made['runnerId']}/heartbeat", json={
            "runnerId": made["runnerId"], "timestamp": timestamp, "activeSessions": [], "load": {}}))
        return began, time.monotonic()

    def status():
        return data(world.admin("GET", f"/runners/{made['runnerId']}"))["status"]
    beat("2001-01-01T00:00:00Z")
    time.sleep(SILENT * 0.6)
    began, answered = beat("2099-01-01T00:00:00Z")
    assert status() == "online"
    while status() == "online":
        assert time.monotonic() < answered + SILENT + LOOK + 3
        time.sleep(0.02)
    assert status() == "offline" and time.monotonic() - began >= SILENT
    data(own("POST", f"/runners/{made['runnerId']}/heartbeat", json={
        "runnerId": made["runnerId"], "timestamp": "2026-01-31T12:00:00Z", "activeSessions": [], "load": {}}))
    assert status() == "online"


def test_a_drain_survives_a_restart_registration_and_heartbeats(make_server):
    server = make_server()
    world = World(server)
    token = world.enrolment("drain-" + new_id(), uses=5)
    body = {"hostname": "d", **CAPS}
    made = data(world.caller(token)("POST", "/runners", json=body), 201)
    runner = made["runnerId"]

    def status():
        return data(world.admin("GET", f"/runners/{runner}"))["status"]
    data(world.admin("POST", f"/runners/{runner}/drain", json={}))
    data(world.admin("POST", f"/runners/{runner}/drain", json={"reason": "twice is the same"}))
    again = data(world.caller(token)("POST", "/runners", json=body))
    assert (again["runnerId"], again["status"]) == (runner, "draining")
    server.kill9()
    server.start()
    world.moved()
    assert status() == "draining"
    own = world.caller(again["runnerToken"])
    assert data(own("POST", f"/runners/{runner}/heartbeat", json={
        "runnerId": runner, "timestamp": "2026-01-31T12:00:00Z", "activeSessions": [], "load": {}}))["drain"] is True
    assert status() == "draining"
    data(world.admin("POST", f"/runners/{runner}/undrain"))
    refused(world.admin("POST", f"/runners/{runner}/undrain"), 409, "INVALID_STATE")


def test_no_worker_ever_holds_more_than_its_capacity(world):
    """Sessions and workers come and go at random; two workers of 3 places."""
    import random
    rng = random.Random(11)
    workers = [world.closing.enter_context(LiveWorker(world.server, worker_id=f"cap{i}-" + new_id(), capacity=3)) for i in range(2)]
    names = {world.worker_id(w): w for w in workers}
    open_sessions, held, most = set(), {w: {} for w in workers}, 0
    for _ in range(120):
        if rng.random() < 0.55 and len(open_sessions) < 12:
            open_sessions.add(world.v.create(task="x", options={"mode": "interactive",
                                                                 "runnerId": rng.choice(workers).worker_id})["sessionId"])
        elif open_sessions:
            session = rng.choice(sorted(open_sessions))
            open_sessions.discard(session)
            world.v.stop(session)
        for worker in workers:
            for task in worker.of("task_assignment"):
                if task["execution_id"] not in held[worker]:
                    held[worker][task["execution_id"]] = True
                    worker.claim(task)
            for order in worker.of("task_cancel"):
                task = worker.running.get(order.get("execution_id"))
                if task:
                    worker.confirm_cancel(task)
            assert len(worker.running) <= 3
        for runner, worker in names.items():
            load = data(world.admin("GET", f"/runners/{runner}"))["load"]
            assert load["activeSessions"] + load.get("reservedSessions", 0) <= 3, load
            most = max(most, load["activeSessions"])
    assert most == 3, "it was never full: that shows nothing"
    for session in open_sessions:
        world.v.stop(session)
