"""Workers that vanish, come back, are there twice or speak of what is not theirs, and servers that are killed (oz-worker.md 18,
checks 8, 9, 10 and 13 by their number)."""
import concurrent.futures
import re
import secrets
import time

import pytest
from fleet import DIALECTS, FLEET, GRACE, begin, make, metric, settled, workers
from harness import eventually
from worker_peers import PATH, Native, Refused, V, W, handshake

# --- (8) the second connection ---

@pytest.mark.parametrize("kind", DIALECTS)
def test_8_completion_delivered_on_a_second_connection(oz, client, kind):
    with kind(oz) as peer:
        task = begin(client, peer)
        peer.abort()
        time.sleep(0.5)
        assert client.run(task["task_id"])["state"] == "INPROGRESS"
        peer.reconnect()
        settled(peer)
        assert client.run(task["task_id"])["state"] == "INPROGRESS"
        peer.complete(task, **({} if kind is W else {"output": "late"}))
        run = client.wait(task["task_id"], "SUCCEEDED")
        assert kind is W or run["output"] == "late"
        assert peer.order(task["task_id"]).count("task_assignment") == 1


def test_8_claim_lost_with_the_connection_is_confirmed_after_the_reconnect(oz, client):
    with V(oz) as peer:
        task = peer.assigned(make(client, peer))
        peer.abort()
        time.sleep(0.5)
        assert client.run(task["task_id"])["state"] == "CLAIMED", "it may be running"
        peer.reconnect()
        peer.claim(task)  # the queued one
        client.wait(task["task_id"], "INPROGRESS")
        peer.complete(task)
        client.wait(task["task_id"], "SUCCEEDED")
        assert peer.order(task["task_id"]) == ["task_assignment"]


def test_8_a_claim_that_does_not_come_after_the_reconnect_puts_it_back(oz, client):
    with V(oz) as peer, V(oz) as another:
        run_id = make(client, peer)
        task = peer.assigned(run_id)
        peer.abort()
        peer.reconnect()
        eventually(lambda: client.run(run_id)["state"] == "PENDING", 30, "PENDING again")
        peer.expect(peer.cancel_type, task_id=run_id)
        assert peer.order(run_id).count("task_assignment") == 1, "not while that worker may still run it"
        peer.fail(task, "context canceled")  # it says that it has stopped
        peer.close()
        peer.reconnect()  # never back to the connection that did not confirm it
        second = peer.assigned(run_id, timeout=60)
        assert second["execution_id"] != task["execution_id"]
        peer.claim(second)
        peer.complete(second)
        client.wait(run_id, "SUCCEEDED")
        assert not another.of("task_assignment")


# --- (9) two with one id ---

@pytest.mark.parametrize("kind", (V, Native))
def test_9_duplicate_of_a_live_worker_is_refused(oz, client, kind):
    with kind(oz) as peer:
        task = begin(client, peer)
        conflicts = workers(oz)[peer.worker_id]["conflicts"]
        with pytest.raises(Refused) as e:
            kind(oz, peer.worker_id)
        assert e.value.status == 429 and e.value.headers["retry-after"] == "15"
        peer.ping_pong()
        assert workers(oz)[peer.worker_id]["conflicts"] == conflicts + 1
        peer.complete(task)
        client.wait(task["task_id"], "SUCCEEDED")


def test_9_duplicate_of_a_dead_worker_takes_over_its_runs(oz, client):
    dead = V(oz, pongs=False)
    task = begin(client, dead)
    began = time.monotonic()
    with V(oz, dead.worker_id) as peer:
        assert 3 < time.monotonic() - began < 40
        assert dead.wait_closed() in (1001, None)
        peer.complete(task, output="of the second")
        assert client.wait(task["task_id"], "SUCCEEDED")["output"] == "of the second"
        assert not peer.of("task_assignment")


def test_9_same_native_instance_replaces_itself_at_once(oz, client):
    first = Native(oz)
    task = begin(client, first)
    second = Native(oz, first.worker_id, instance=first.instance, hello=False, connect=False)
    second.running, second.seq, second.says_hello = first.running, first.seq, True
    began = time.monotonic()
    second.connect()
    assert time.monotonic() - began < 4.5, "no probe"
    assert first.wait_closed() == 4410
    assert second.welcome["keep"] == [task["execution_id"]]
    second.complete(task)
    client.wait(task["task_id"], "SUCCEEDED")
    second.close()


def test_9_stranger_that_waits_does_not_drive_out_an_instance_that_came_back(oz):
    """The probe went to the old connection, whose silence says nothing about the new one."""
    old = Native(oz, pongs=False)
    old.ping_pong()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        stranger = pool.submit(Native, oz, old.worker_id)
        time.sleep(1)  # it waits for the probe's answer, up to 5 s
        with Native(oz, old.worker_id, instance=old.instance) as back:
            assert old.wait_closed() == 4410
            with pytest.raises(Refused) as e:
                stranger.result(30)
            assert e.value.status == 429
            time.sleep(8)
            back.ping_pong()
            assert back.open and workers(oz)[back.worker_id]["connected"]


def test_9_ten_at_once_leave_one(oz):
    name = "crowd-" + secrets.token_hex(4)
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        def one(_):
            try:
                return V(oz, name)
            except Refused as e:
                assert e.status == 429, e
                return None
        peers = [p for p in pool.map(one, range(10)) if p]
    assert len(peers) == 1 and peers[0].open
    peers[0].close()


def test_9_workers_without_a_name_are_no_duplicates(oz):
    socks = [handshake(oz.port, PATH + query, oz.admin_key)[0] for query in ("", "?worker_id=", "?worker_id=%20")]
    names = [n for n in eventually(lambda: len([n for n, w in workers(oz).items() if re.fullmatch(
        r"worker_[0-9a-f-]{36}", n) and w["connected"]]) >= 3 and workers(oz), 20, "three of them") if n.startswith("worker_")]
    assert len(set(names)) >= 3
    for s in socks:
        s.close()


# --- (10) what is not theirs ---

@pytest.mark.parametrize("kind", DIALECTS)
def test_10_messages_about_foreign_and_unknown_tasks_are_ignored_and_counted(oz, client, kind):
    with kind(oz) as peer, V(oz) as thief, Native(oz) as native_thief:
        task = begin(client, peer)
        waiting = make(client, peer=None, worker_host="nobody-" + secrets.token_hex(4))
        before = metric(oz, "oz_worker_reports_ignored_total")
        thief.complete(task, output="stolen")
        thief.fail(task, "stolen")
        thief.complete({"task_id": waiting}, output="stolen")
        thief.claim({"task_id": waiting})
        thief.complete({"task_id": "run_00000000-0000-4000-8000-000000000000"})
        for epoch in (0, 1, 2, 99):
            native_thief.complete({**task, "epoch": epoch, "execution_id": task["execution_id"]}, output="stolen")
        settled(thief)
        settled(native_thief)
        assert client.run(task["task_id"])["state"] == "INPROGRESS"
        assert client.run(waiting)["state"] == "PENDING"
        assert metric(oz, "oz_worker_reports_ignored_total") >= before + 9
        peer.complete(task)
        client.wait(task["task_id"], "SUCCEEDED")
        client.cancel(waiting)


@pytest.mark.parametrize("kind", DIALECTS)
def test_10_terminal_runs_never_change(oz, client, kind):
    with kind(oz) as peer:
        task = begin(client, peer)
        peer.complete(task)
        first = client.wait(task["task_id"], "SUCCEEDED")
        peer.complete(task)
        peer.fail(task, "too late")
        peer.claim(task)
        settled(peer)
        run = client.run(task["task_id"])
        assert {k: v for k, v in run.items() if k != "request_id"} == {k: v for k, v in first.items() if k != "request_id"}
        assert client.cancel(task["task_id"]).status_code == 200
        assert client.run(task["task_id"])["state"] == "SUCCEEDED"


def test_10_old_epochs_of_a_native_worker_are_ignored(oz, client):
    with Native(oz) as peer:
        task = peer.assigned(make(client, peer))
        for epoch in (task["epoch"] - 1, task["epoch"] + 1):
            peer.send("task_claimed", {**peer.ids(task), "epoch": epoch})
            peer.send("task_completed", {**peer.ids(task), "epoch": epoch, "exit_code": 0})
        other = "00000000-0000-4000-8000-000000000000"
        peer.send("task_completed", {**peer.ids(task), "execution_id": other, "exit_code": 0})
        settled(peer)
        assert client.run(task["task_id"])["state"] == "CLAIMED"
        peer.claim(task)
        client.wait(task["task_id"], "INPROGRESS")
        peer.complete(task)
        client.wait(task["task_id"], "SUCCEEDED")
        peer.wait_acked()


# --- (13) kill -9 ---

def test_13_kill_and_restart_lose_no_accepted_end_of_native_workers(make_server):
    server = make_server(FLEET | {"OZ_WORKER_RECONNECT_GRACE_MS": "60000"})
    client = server.client()
    peer = Native(server, "n1", capacity=40)
    ids = [make(client) for _ in range(30)]
    tasks = []
    for _ in ids:
        task = peer.assigned()
        peer.claim(task)
        tasks.append(task)
    for task in tasks[:20]:
        peer.complete(task, output=f"of {task['task_id']}")
    peer.wait(lambda: len(peer.unacked) < 12, what="some acks")
    server.kill9()
    peer.wait_closed()
    kept = set(peer.unacked)
    for task in tasks[20:25]:  # ends while nobody is there
        peer.complete(task, output=f"of {task['task_id']}")
    server.start()
    client = server.client()
    peer.server = server
    peer.reconnect()
    peer.wait_acked(60)
    for task in tasks[:25]:
        run = client.wait(task["task_id"], "SUCCEEDED")
        assert run["output"] == f"of {task['task_id']}", (task["execution_id"] in kept, run)
    for task in tasks[25:]:
        assert client.run(task["task_id"])["state"] == "INPROGRESS"
        assert task["execution_id"] in peer.welcome["keep"]
        peer.complete(task)
        client.wait(task["task_id"], "SUCCEEDED")
    assert len(peer.of("task_assignment")) == 30
    peer.wait_acked()
    peer.close()
    peer.well()


@pytest.mark.parametrize("kind", (V, W))
def test_13_go_workers_are_adopted_after_a_kill(make_server, kind):
    server = make_server(FLEET | {"OZ_WORKER_RECONNECT_GRACE_MS": "60000"})
    client = server.client()
    peer = kind(server, "g1")
    running = begin(client, peer)
    peer.assigned(make(client, peer))  # its claim never comes through
    server.kill9()
    peer.wait_closed()
    server.start()
    client = server.client()
    assert client.run(running["task_id"])["state"] == "INPROGRESS"
    peer.reconnect()
    peer.complete(running)
    client.wait(running["task_id"], "SUCCEEDED")
    peer.close()


def test_13_kill_during_assignment_gives_every_run_to_one_worker(make_server):
    server = make_server(FLEET | {"OZ_WORKER_RECONNECT_GRACE_MS": "3000"})
    client = server.client()
    peer = Native(server, "n1", capacity=100)
    ids = [make(client) for _ in range(20)]
    peer.wait(lambda: len(peer.of("task_assignment")) >= 5, what="the first assignments")
    server.kill9()
    peer.wait_closed()
    # what came before the kill was not confirmed: the worker never began it, and says so
    server.start()
    client = server.client()
    peer.reconnect()
    seen = {}

    def all_done():
        for i, m in enumerate(peer.messages):
            if m["type"] == "task_assignment" and i not in peer.taken:
                peer.taken.add(i)
                seen[m["data"]["execution_id"]] = m["data"]
        for task in list(seen.values()):
            if task["execution_id"] not in done:
                done.add(task["execution_id"])
                if task["epoch"] >= client.run(task["task_id"]).get("attempt", 0):
                    peer.claim(task)
                    peer.complete(task)
        return all(client.run(i)["state"] == "SUCCEEDED" for i in ids)
    with peer.changed:  # forget what the dead server said
        peer.taken.update(i for i, m in enumerate(peer.messages) if m["type"] == "task_assignment" and not peer.connections > 1)
    done = set()
    eventually(all_done, 60, "all runs")
    peer.close()
    peer.well()


def test_13_graceful_restart_keeps_runs(make_server):
    server = make_server(FLEET | {"OZ_WORKER_RECONNECT_GRACE_MS": "60000"})
    client = server.client()
    peers = [kind(server, f"g-{kind.dialect}") for kind in DIALECTS]
    tasks = [begin(client, p) for p in peers]
    server.stop()
    for p in peers:
        assert p.wait_closed() == 1001 and p.close_reason == "Server shutting down"
    server.start()
    client = server.client()
    for p, task in zip(peers, tasks):
        assert client.run(task["task_id"])["state"] == "INPROGRESS"
        p.reconnect()
        p.complete(task)
        client.wait(task["task_id"], "SUCCEEDED")
        p.close()


# --- vanishing ---

@pytest.mark.parametrize("kind", DIALECTS)
def test_after_the_grace_a_vanished_worker_has_lost_its_run(oz, client, kind):
    with kind(oz) as peer:
        task = begin(client, peer)
        peer.abort()
        left = time.monotonic()
        run = client.wait(task["task_id"], "FAILED", timeout=40)
        assert run["error"]["message"] == "Worker disconnected"
        assert time.monotonic() - left >= GRACE / 1000 - 1
        peer.reconnect()
        if kind is Native:
            assert task["execution_id"] in peer.welcome["stop"]
        else:
            peer.expect(peer.cancel_type, task_id=task["task_id"])
        peer.complete(task)
        settled(peer)
        assert client.run(task["task_id"])["state"] == "FAILED", "too late"
        if kind is Native:
            peer.wait_acked()


def test_unconfirmed_run_of_a_vanished_worker_goes_to_another(make_server):
    server = make_server(FLEET | {"OZ_WORKER_RECONNECT_GRACE_MS": "1500"})
    client = server.client()
    a = V(server, "a")
    run_id = make(client)
    first = a.assigned(run_id)
    a.abort()
    with V(server, "b") as b:
        second = b.assigned(run_id, timeout=40)
        assert second["execution_id"] != first["execution_id"]
        b.claim(second)
        a.reconnect()
        a.expect("task_cancel", task_id=run_id)
        a.claim(first)
        a.complete(first, output="of the wrong one")
        settled(a)
        assert client.run(run_id)["state"] == "INPROGRESS"
        b.complete(second, output="of the right one")
        run = client.wait(run_id, "SUCCEEDED")
        assert run["output"] == "of the right one" and run["worker_id"] == "b"
    a.close()


def test_claim_timeout_cancels_and_gives_it_to_another(make_server):
    server = make_server(FLEET)
    client = server.client()
    with W(server, "a") as a:
        run_id = make(client)
        first = a.assigned(run_id)  # it could not parse it: silent
        began = time.monotonic()
        a.expect("task_cancellation", timeout=60, task_id=run_id)
        assert time.monotonic() - began > 8
        eventually(lambda: client.run(run_id)["state"] == "PENDING", 10, "PENDING again")
        a.confirm_cancel(first)
        a.nothing("task_assignment", 2.0, run_id)  # never back to the same connection
        with V(server, "b") as b:
            second = b.assigned(run_id)
            b.claim(second)
            b.complete(second)
            assert client.wait(run_id, "SUCCEEDED")["worker_id"] == "b"


def test_native_that_forgot_its_run_says_so_at_once(oz, client):
    peer = Native(oz)
    task = begin(client, peer)
    peer.abort()
    peer.running.clear()
    began = time.monotonic()
    peer.reconnect()
    run = client.wait(task["task_id"], "FAILED", timeout=20)
    assert run["error"]["message"] == "Worker disconnected" and time.monotonic() - began < GRACE / 1000
    peer.close()


def test_clean_close_keeps_the_run_for_the_grace(oz, client):
    with V(oz) as peer:
        task = begin(client, peer)
        peer.close(1000)
        time.sleep(1)
        assert client.run(task["task_id"])["state"] == "INPROGRESS"
        peer.reconnect()
        peer.complete(task)
        client.wait(task["task_id"], "SUCCEEDED")


def test_slow_reader_is_cut_and_its_assignments_go_back(make_server):
    """Assignments that did not leave whole are PENDING again at once; the server's queue is bounded."""
    server = make_server(FLEET | {"OZ_WORKER_DEFAULT_CAPACITY": "0"})
    client = server.client()
    slow = V(server, "slow", reading=False, receive_buffer=4096)
    prompt = "p" * 900_000
    ids = [make(client, prompt=prompt) for _ in range(12)]
    eventually(lambda: not workers(server)["slow"]["connected"], 60, "the slow one is cut")
    with V(server, "quick") as quick:
        done = set()
        end = time.monotonic() + 60
        while len(done) < 8:
            task = quick.assigned(timeout=max(end - time.monotonic(), 1))
            quick.claim(task)
            quick.complete(task)
            done.add(task["task_id"])
        for i in done:
            client.wait(i, "SUCCEEDED")
    assert len(done) >= 8 and done <= set(ids)
    slow.abort()
