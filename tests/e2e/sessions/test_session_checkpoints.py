"""Checkpoints: what a runner leaves after a turn, what a lost session goes on from, and forks. Worker and runner are
scripted (tests/tools/checkpoint_peer.py)."""
import secrets
import threading
import time
import uuid

import harness
import pytest
from checkpoint_peer import Runner, Worker, create, prompt, worker_of
from village import Village, data, issues, no_session, refused

SETTINGS = {"OZ_MAX_SESSIONS_PER_ORG": "500", "OZ_WORKER_RECONNECT_GRACE_MS": "1000", "OZ_CHECKPOINT_MAX_MB": "1"}


@pytest.fixture(scope="module")
def shared(postgres):
    with harness.serving(SETTINGS, postgres=postgres, name="checkpoints") as server:
        yield server


@pytest.fixture
def worker(shared):
    with worker_of(shared) as w:
        yield w


def checkpoints(village, session, **query):
    return data(village("GET", f"/sessions/{session}/checkpoints", params=query))["items"]


def fork(village, session, headers=None, **body):
    return village("POST", f"/sessions/{session}/fork", json=body, headers=headers or {})


def types(village, session):
    return [e["type"] for e in village.events(session, limit=500)["events"]]


def until(village, session, *states, timeout=20):
    return harness.eventually(lambda: village.get(session) if village.get(session)["state"] in states else None,
                              timeout=timeout, what=f"{states}")


def lose(worker):
    """The worker is gone for longer than it may."""
    worker.abort()
    worker.running.clear()


def blobs(server):
    return {p.name for p in (server.data / "blobs").iterdir()}


def test_a_checkpoint_is_stored_listed_and_no_file_of_the_run(village, worker, tenant, stranger, shared):
    session = create(village, worker)
    turn = prompt(village, session, "one")
    runner = worker.begin(session)
    assert runner.init["checkpoints"] is True
    runner.take_turn()
    taken = runner.checkpoint(b"first part", b"second part", turn=turn, conversationId="c-of-one")
    assert taken == {"type": "checkpoint", "number": 1, "ok": True}
    assert runner.checkpoint(prev=1)["ok"]
    second, first = checkpoints(village, session)
    assert first == {"id": first["id"], "number": 1, "turnId": turn, "bytes": 21, "createdAt": first["createdAt"]}
    assert second["number"] == 2 and second["bytes"] == 0 and "turnId" not in second
    assert [c["number"] for c in checkpoints(village, session, beforeNumber=2)] == [1]
    event = next(e for e in village.events(session)["events"] if e["type"] == "CHECKPOINT_TAKEN")
    assert event["data"] == {"checkpointId": first["id"], "turnId": turn, "number": 1, "bytes": 21}
    run = session.replace("ses_", "run_")
    assert harness.ok(tenant.api("GET", f"/agent/runs/{run}/files"))["files"] == []
    assert data(village("GET", f"/sessions/{session}/artifacts"))["artifacts"] == []
    assert tenant.api("GET", f"/agent/runs/{run}/files/{runner.name(0, 1)}").status_code == 404
    refused(stranger("GET", f"/sessions/{session}/checkpoints"), 404, "SESSION_NOT_FOUND")
    refused(village("GET", f"/sessions/{no_session()}/checkpoints"), 404, "SESSION_NOT_FOUND")
    assert issues(village("GET", f"/sessions/{session}/checkpoints", params={"beforeNumber": "x"})) == {"beforeNumber": "invalid_type"}
    assert runner.restored() is None  # it began with nothing
    metrics = shared.client().get("/metrics").text
    assert 'muster_checkpoints_total{result="stored"}' in metrics
    village.stop(session)


@pytest.mark.parametrize("what", ["missing", "sha", "bytes", "more", "foreign", "twice", "prev", "shape"])
def test_what_is_no_checkpoint_is_dropped_with_an_alert(village, worker, what):
    session = create(village, worker)
    runner = worker.begin(session)
    sha = "0" * 64
    if what == "missing":
        said = runner.checkpoint(b"x", stored=False)
    elif what == "sha":
        said = runner.checkpoint(b"x", parts=[{"name": f"ckpt-{runner.epoch}-1-0.pack", "bytes": 1, "sha256": sha}])
    elif what == "bytes":
        said = runner.checkpoint(b"x", parts=[{"name": f"ckpt-{runner.epoch}-1-0.pack", "bytes": 2, "sha256": sha}])
    elif what == "more":
        said = runner.checkpoint(b"x", parts=[])
    elif what == "foreign":
        said = runner.checkpoint(parts=[{"name": f"ckpt-{runner.epoch + 1}-1-0.pack", "bytes": 1, "sha256": sha}])
    elif what == "twice":
        said = runner.checkpoint(parts=[{"name": f"ckpt-{runner.epoch}-1-0.pack", "bytes": 1, "sha256": sha}] * 2)
    elif what == "prev":
        runner.checkpoints = 4
        said = runner.checkpoint(prev=4)
    else:
        said = runner.checkpoint(parts="many")
    assert said["ok"] is False and said["error"]
    assert checkpoints(village, session) == []
    alert = [e for e in village.events(session)["events"] if e["type"] == "ALERT_RAISED"]
    assert len(alert) == 1 and alert[0]["data"]["kind"] == "checkpoint" and alert[0]["data"]["severity"] == "warn"
    assert said["error"] in alert[0]["data"]["description"]
    runner.checkpoints = 7
    assert runner.checkpoint(b"a whole one")["ok"]  # what was dropped spoils nothing
    assert [c["number"] for c in checkpoints(village, session)] == [1]
    village.stop(session)


def test_a_lost_session_goes_on_from_its_newest_checkpoint(village, shared):
    with worker_of(shared) as w:
        session = create(village, w)
        first = prompt(village, session, "one")
        runner = w.begin(session)
        assert runner.take_turn()["content"] == "one"
        assert runner.checkpoint(b"base", turn=first, conversationId="talk-1")["ok"]
        second = prompt(village, session, "two")
        runner.take_turn()
        assert runner.checkpoint(b"delta", prev=1, turn=second, conversationId="talk-2")["ok"]
        third = prompt(village, session, "three")
        assert runner.take_turn(done=False)["turnId"] == third
        lose(w)
        waiting = until(village, session, "QUEUED")
        assert waiting["attempt"] == 1
        assert [p["state"] for p in data(village("GET", f"/sessions/{session}/prompts"))["items"]] == ["done", "done", "queued"]
        with worker_of(shared) as other:
            assert other.worker_id != w.worker_id
            other.nothing("task_assignment", 0.5)  # it is for the first one
        w.reconnect()
        task = w.assigned(session.replace("ses_", "run_"))
        newest = checkpoints(village, session)[0]
        assert task["checkpoint"] == {"id": newest["id"], "parts": [runner.name(0, 1), runner.name(0, 2)]}
        again = Runner(w, task)
        chain = again.restored()
        assert [parts for _, parts in chain] == [[b"base"], [b"delta"]]
        assert [(c["number"], c.get("prev"), c["conversationId"]) for c, _ in chain] == [(1, None, "talk-1"), (2, 1, "talk-2")]
        assert chain[0][0]["roots"][0]["kind"] == "workspace"
        assert runner.http.get(runner.url("checkpoint")).status_code == 401  # the token of the attempt that is over
        again.begin()
        assert again.init["conversationId"] == "talk-2" and again.init["lastAckedSeq"] == 0
        told = again.take_turn()
        assert told["turnId"] == third and told["attempt"] == 2
        assert again.checkpoint(b"on the other side")["ok"]
        assert [c["number"] for c in checkpoints(village, session)] == [3, 2, 1]
        moves = [e["data"] for e in village.events(session, types="SESSION_STATE_CHANGED")["events"]]
        assert any("checkpoint 2" in m.get("message", "") for m in moves), moves
        village.stop(session)


def test_without_a_checkpoint_it_ends_as_lost(village, shared):
    with worker_of(shared) as w:
        session = create(village, w)
        w.begin(session)
        lose(w)
        lost = until(village, session, "FAILED")
        assert lost["endReason"] == "runner_lost"
        w.reconnect()


def test_a_turn_that_was_done_forgives_losses(village, shared):
    with worker_of(shared) as w:
        session = create(village, w)
        runner = w.begin(session)
        assert runner.checkpoint(b"x")["ok"]
        for _ in range(4):
            lose(w)
            until(village, session, "QUEUED")
            w.reconnect()
            runner = w.begin(session)
            prompt(village, session, "on")
            runner.take_turn()
        village.stop(session)


@pytest.mark.parametrize("reason", ["graceful_shutdown", "container_oom", "runner_lost", "restore_failed"])
def test_an_end_that_is_a_loss_is_no_end(village, worker, reason):
    session = create(village, worker)
    runner = worker.begin(session)
    assert runner.checkpoint(b"x")["ok"]
    worker.fail(runner.task, "gone", failure_reason=reason)
    again = worker.begin(session)
    assert again.restored()[0][1] == [b"x"] and again.epoch > runner.epoch
    worker.wait_acked()
    worker.fail(again.task, "the agent ended", failure_reason="container_exit", exit_code=3)
    assert until(village, session, "FAILED")["endReason"] == "provider_error"


def test_a_worker_that_forgot_it(village, shared):
    with worker_of(shared) as w:
        session = create(village, w)
        runner = w.begin(session)
        assert runner.checkpoint(b"x")["ok"]
        w.running.clear()
        w.abort()
        w.reconnect()  # at once: its hello says that it runs nothing
        assert w.begin(session).restored()[0][1] == [b"x"]
        village.stop(session)


def test_a_task_begins_again_only_if_it_asked_for_it(village, shared):
    with worker_of(shared) as w:
        plain = create(village, w, task="work", options={"mode": "task"})
        again = create(village, w, task="work", options={"mode": "task", "retryOnRunnerLoss": True})
        for session in (plain, again):
            assert w.begin(session).told("prompt")["content"] == "work"
        lose(w)
        assert until(village, plain, "FAILED")["endReason"] == "runner_lost"
        until(village, again, "QUEUED")
        w.reconnect()
        runner = w.begin(again)
        assert runner.restored() is None and "checkpoint" not in runner.task
        assert "conversationId" not in runner.init and runner.told("prompt")["content"] == "work"
        assert runner.checkpoint(b"half")["ok"]
        lose(w)
        until(village, again, "QUEUED")
        w.reconnect()
        assert w.begin(again).restored()[0][1] == [b"half"]
        village.stop(again)


def test_what_an_attempt_that_is_over_says_is_dropped(village, shared):
    with worker_of(shared) as w:
        session = create(village, w)
        old = w.begin(session)
        assert old.checkpoint(b"x")["ok"]
        lose(w)
        until(village, session, "QUEUED")
        w.reconnect()
        new = w.begin(session)
        assert old.put("ckpt-1-2-0.pack", b"late").status_code == 401
        old.frame(type="checkpoint", seq=old.seq + 1, number=2, roots=[], parts=[], bytes=0)
        assert new.put(f"ckpt-{old.epoch}-2-0.pack", b"of another epoch: a file").status_code == 200
        new.checkpoint(b"y")
        assert [c["number"] for c in checkpoints(village, session)] == [2, 1]
        village.stop(session)


def test_the_oldest_chains_go_when_there_is_no_room(village, worker, shared):
    session = create(village, worker)
    runner = worker.begin(session)
    big = [secrets.token_bytes(400_000) for _ in range(4)]
    for content in big[:2]:
        assert runner.checkpoint(content)["ok"]
    before = blobs(shared)
    assert runner.checkpoint(big[2])["ok"]  # the first chain has to go: 1 MiB
    assert [c["number"] for c in checkpoints(village, session)] == [3, 2]
    harness.eventually(lambda: not before <= blobs(shared), timeout=90, what="the removal of an object")
    runner.checkpoints += 1
    for part in range(2):  # the newest chain stays, whatever comes
        last = runner.put(runner.name(part), big[3])
    assert last.status_code == 413
    assert [c["number"] for c in checkpoints(village, session)] == [3]
    assert runner.put(runner.name(5), b"x" * (16 * 1024 * 1024 + 1)).status_code == 413
    village.stop(session)


def test_a_fork_begins_where_its_source_was(village, worker, stranger, boss):
    session = create(village, worker, options={"env": {"TOKEN": "a value of its own"}, "policy": {"shellDefault": "ask"}},
                     metadata={"a": "b"})
    runner = worker.begin(session)
    assert runner.task["env_vars"]["OZ_ENV_VARS"] == "TOKEN=a value of its own"
    runner.checkpoint(b"one", conversationId="talk-1")
    runner.checkpoint(b"two", prev=1, conversationId="talk-2")
    runner.checkpoint(b"three", conversationId="talk-3")
    for who, code in ((stranger, "SESSION_NOT_FOUND"), (village, "CHECKPOINT_NOT_FOUND")):
        refused(fork(who, session, checkpoint=9), 404, code)
    refused(fork(village, session, checkpoint=str(uuid.uuid4())), 404, "CHECKPOINT_NOT_FOUND")
    refused(fork(village, no_session()), 404, "SESSION_NOT_FOUND")
    assert issues(fork(village, session, checkpoint=0)) == {"checkpoint": "invalid_format"}
    assert issues(fork(village, session, checkpoint="x", other=1)) == {"checkpoint": "invalid_format", "other": "unrecognized_key"}
    assert issues(fork(village, session, mode="task")) == {"prompt": "required"}
    response = fork(village, session, checkpoint=2, title="another way", prompt="try it")
    made = data(response, 201)
    assert response.headers["location"] == f"/api/v1/sessions/{made['sessionId']}"
    assert made["state"] == "CREATED" and made["parentSessionId"] == session and made["taskSummary"] == "another way"
    assert made["mode"] == "interactive" and made["providerId"] == "codex" and made["metadata"] == {"a": "b"}
    forked = worker.begin(made["sessionId"])
    assert [parts for _, parts in forked.restored()] == [[b"one"], [b"two"]]
    assert forked.init["conversationId"] == "talk-2" and forked.init["policy"]["shellDefault"] == "ask"
    assert forked.task["env_vars"]["OZ_ENV_VARS"] == "TOKEN=a value of its own"
    assert forked.take_turn()["content"] == "try it"
    assert [(c["number"], c["inherited"]) for c in checkpoints(village, made["sessionId"])] == [(2, True), (1, True)]
    newest = fork(village, session, checkpoint=checkpoints(village, session)[0]["id"])
    task = worker.begin(data(newest, 201)["sessionId"])
    assert [parts for _, parts in task.restored()] == [[b"three"]]
    by_boss = data(fork(boss, session), 201)
    assert by_boss["orgId"] == village.org
    of_fork = data(fork(village, made["sessionId"], mode="task", prompt="once"), 201)
    once = worker.begin(of_fork["sessionId"])
    assert once.init["mode"] == "task" and [parts for _, parts in once.restored()] == [[b"one"], [b"two"]]
    assert once.told("prompt")["content"] == "once"
    refused(fork(village, create(village, worker)), 404, "CHECKPOINT_NOT_FOUND")


def test_what_only_the_administrator_may_is_not_forked_by_others(village, worker, boss):
    made = boss.create(orgId=village.org, task=None, options={"mode": "interactive", "runnerId": worker.worker_id,
                                                              "dangerouslySkipPermissions": True})["sessionId"]
    worker.begin(made).checkpoint(b"x")
    refused(fork(village, made), 403, "FORBIDDEN")
    again = data(fork(boss, made), 201)["sessionId"]
    assert worker.begin(again).init["skipPermissions"] is True
    for one in (made, again):
        village.stop(one)


def test_a_fork_is_made_once_for_a_key(village, worker):
    session = create(village, worker)
    worker.begin(session).checkpoint(b"x")
    key = {"Idempotency-Key": secrets.token_hex(8)}
    one = fork(village, session, headers=key, title="t")
    two = fork(village, session, headers=key, title="t")
    assert data(one, 201)["sessionId"] == data(two, 201)["sessionId"] and two.headers["idempotent-replay"] == "true"
    refused(fork(village, session, headers=key, title="other"), 409, "IDEMPOTENCY_CONFLICT")
    refused(village.post(headers=key), 409, "IDEMPOTENCY_CONFLICT")


def test_a_session_that_ended_is_forked_and_its_removal_takes_nothing_from_the_fork(village, worker, tenant):
    session = create(village, worker)
    runner = worker.begin(session)
    runner.checkpoint(b"shared")
    worker.complete(runner.task)
    until(village, session, "COMPLETED")
    made = data(fork(village, session), 201)["sessionId"]
    assert tenant.api("DELETE", f"/agent/runs/{session.replace('ses_', 'run_')}").status_code == 200
    refused(village("GET", f"/sessions/{session}"), 404, "SESSION_NOT_FOUND")
    refused(fork(village, session), 404, "SESSION_NOT_FOUND")
    time.sleep(1)
    assert worker.begin(made).restored()[0][1] == [b"shared"]


def test_forks_while_their_source_is_removed(village, worker, tenant):
    session = create(village, worker)
    runner = worker.begin(session)
    runner.checkpoint(b"all or nothing")
    worker.complete(runner.task)
    until(village, session, "COMPLETED")
    answers = []

    def many():
        for _ in range(6):
            answers.append(fork(Village(tenant), session))
    threads = [threading.Thread(target=many) for _ in range(4)]
    for t in threads:
        t.start()
    time.sleep(0.05)
    assert tenant.api("DELETE", f"/agent/runs/{session.replace('ses_', 'run_')}").status_code == 200
    for t in threads:
        t.join()
    made = [a.json()["data"]["sessionId"] for a in answers if a.status_code == 201]
    for a in answers:
        if a.status_code != 201:
            refused(a, 404, "SESSION_NOT_FOUND")
    for one in made[:10]:
        assert worker.begin(one).restored()[0][1] == [b"all or nothing"]


def test_the_server_is_killed_in_between(village, postgres):
    with harness.serving(SETTINGS, postgres=postgres, name="killed") as server:
        caller = Village(server.client(secrets.token_hex(16)))
        w = Worker(server, "w-killed", capacity=5)
        session = create(caller, w)
        turn = prompt(caller, session, "one")
        runner = w.begin(session)
        runner.take_turn(done=False)
        assert runner.checkpoint(b"before")["ok"]
        token = caller.client.token
        server.kill9()
        w.abort()
        server.start()
        caller = Village(server.client(token))
        lost = until(caller, session, "QUEUED")
        assert lost["attempt"] == 1  # it was executed once
        server.stop()
        server.start()
        caller = Village(server.client(token))
        w = Worker(server, "w-killed", capacity=5)
        again = w.begin(session)
        assert again.restored()[0][1] == [b"before"] and again.told("prompt")["turnId"] == turn
        w.close()


def test_none_are_taken_where_there_is_no_room_for_any(postgres):
    with harness.serving({**SETTINGS, "OZ_CHECKPOINT_MAX_MB": "0"}, postgres=postgres, name="off") as server:
        caller = Village(server.client(secrets.token_hex(16)))
        with worker_of(server) as w:
            session = create(caller, w)
            runner = w.begin(session)
            assert runner.init["checkpoints"] is False
            assert runner.put("ckpt-1-1-0.pack", b"x").status_code == 413
            assert runner.checkpoint()["ok"] is False
            caller.stop(session)
