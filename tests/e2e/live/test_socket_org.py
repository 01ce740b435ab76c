"""What the WebSocket of clients tells of a whole org and of a runner (village-control-plane.md 8.3 – 8.5)."""
import concurrent.futures
import secrets
import socket as sockets
import time

import harness
import pytest
from live_peers import Viewer
from village import Village, data, no_session
from worker_peers import Native


def follow_org(viewer, org=None):
    reply = viewer.ask("subscribe_org", **({"orgId": org} if org else {}))
    assert reply["type"] == "event" and reply["event"] == "subscribed", reply
    return reply["data"]["orgId"]


def moves(viewer, session):
    """(from, to) of that session, as the org's feed told."""
    return [(m["data"]["previousState"], m["data"]["newState"])
            for m in viewer.of("session", feed="org", action="state_change", sessionId=session)]


def reached(viewer, session, state, timeout=20.0):
    return viewer.wait(lambda: next((m for m in viewer.of("session", feed="org", sessionId=session)
                                     if m["data"]["newState"] == state), None), timeout, f"{session} {state}")


def lasting(item):
    """Of a list's item: what does not go on by itself."""
    return {k: v for k, v in item.items() if k != "durationSeconds"}


class Org:
    """An org with an administrator of its own, who may enrol workers."""

    def __init__(self, server, admin):
        self.server, self.name = server, "org-" + secrets.token_hex(4)
        self.boss = Village(server.client(self.key(admin, "admin")))
        self.id = self.boss.org

    def key(self, admin, role):
        return harness.ok(admin.api("POST", "/keys", json={"name": f"{self.name}-{role}", "tenant": self.name,
                                                           "role": role}))["key"]

    def enrol(self, host, **more):
        token = data(self.boss("POST", "/runner-enrolments", json={}), 201)["token"]
        peer = Native(self.server, host, key=token, **more)
        return peer, peer.welcome["credential"], peer.welcome["worker_uid"]


@pytest.fixture
def org(oz, admin):
    return Org(oz, admin)


# --- sessions ---

def test_a_list_follows_without_asking(village, stranger, worker, view):
    mine, theirs = view(), view(stranger.client.token)
    assert follow_org(mine) == village.org and follow_org(theirs) == stranger.org
    session = village.create()["sessionId"]
    made = mine.expect("session", feed="org", sessionId=session)
    assert made["orgId"] == village.org and made["action"] == "state_change" and made["seq"] == 1
    assert made["data"]["previousState"] == "CREATED" and made["data"]["newState"] == "QUEUED"
    assert {"sessionId", "state", "taskSummary", "updatedAt", "rev"} <= set(made["data"]["session"])
    runner = worker.start(session)
    gate = runner.ask("May I?")
    asked = mine.expect("approval_required", feed="org", sessionId=session)
    assert asked["approval"]["approvalId"] == gate and asked["approval"]["description"] == "May I?" and asked["orgId"] == village.org
    reached(mine, session, "WAITING_FOR_APPROVAL")
    data(village("POST", f"/sessions/{session}/approvals/{gate}", json={"decision": "allow", "reason": "fine"}))
    told = mine.expect("approval_resolved", feed="org", sessionId=session)
    assert (told["approvalId"], told["decision"], told["status"], told["reason"]) == (gate, "allow", "allowed", "fine")
    runner.told("answer")
    runner.end()
    last = reached(mine, session, "COMPLETED")
    assert last["data"]["reason"] == "finished"
    # The newest item is what a list shows, and every move was told once and in the log's order.
    assert lasting(last["data"]["session"]) == lasting(village.list()["items"][0])
    seqs = [m["seq"] for m in mine.messages if m.get("feed") == "org" and m["sessionId"] == session]
    assert seqs == sorted(set(seqs))
    logged = [(e["data"]["previousState"], e["data"]["newState"]) for e in village.events(session)["events"]
              if e["type"] == "SESSION_STATE_CHANGED"]
    assert moves(mine, session) == [("CREATED", "QUEUED")] + logged
    revs = [m["data"]["session"]["rev"] for m in mine.of("session", feed="org", sessionId=session)]
    assert revs == sorted(revs)
    # Nothing but that: no facts, no words, nothing of others.
    assert {m["type"] for m in mine.messages} == {"event", "session", "approval_required", "approval_resolved"}
    theirs.sync()
    assert {m["type"] for m in theirs.messages} == {"event", "pong"}
    worker.well()


def test_runs_of_the_other_api_are_told_as_such(tenant, village, view):
    viewer = view()
    follow_org(viewer)
    run = tenant.create("hello", config={"environment_id": "debian:12"})["run_id"]
    session = "ses_" + run.removeprefix("run_")
    made = viewer.expect("session", feed="org", sessionId=session)
    assert made["data"]["native"] is True
    assert session not in [i["sessionId"] for i in village.list()["items"]]

    def shown():
        return [lasting(i) for i in village.list(view="native")["items"] if i["sessionId"] == session]
    viewer.wait(lambda: shown() == [lasting(viewer.of("session", sessionId=session)[-1]["data"]["session"])],
                what="what the list shows")


def test_who_follows_the_session_too_can_tell_the_feeds_apart(village, worker, view):
    viewer = view()
    follow_org(viewer)
    session = village.create()["sessionId"]
    viewer.follow(session, sinceSeq=0)
    runner = worker.start(session)
    runner.events(("FILE_TOUCHED", {"path": "a", "reason": "write"}))
    runner.end()
    viewer.expect("session", action="completed", sessionId=session)
    reached(viewer, session, "COMPLETED")
    own = [m for m in viewer.of("session", sessionId=session) if "feed" not in m and "seq" in m and m["action"] != "completed"]
    assert [m["seq"] for m in own] == list(range(1, len(own) + 1))
    assert all("session" not in m["data"] for m in own)
    worker.well()


def test_the_administrator_follows_any_org_and_all(oz, village, stranger, view):
    every, one = view(oz.admin_key), view(oz.admin_key)
    assert follow_org(every, "*") == "*" and follow_org(one, stranger.org) == stranger.org
    a, b = village.create()["sessionId"], stranger.create()["sessionId"]
    for session, org in ((a, village.org), (b, stranger.org)):
        assert every.expect("session", feed="org", sessionId=session)["orgId"] == org
    one.expect("session", feed="org", sessionId=b)
    assert not one.of("session", sessionId=a)


@pytest.mark.parametrize("org", ["*", "org-of-nobody", "tok_0123456789abcdef0123456789abcdef"])
def test_another_org_is_forbidden_whether_there_is_one_or_not(view, stranger, org):
    viewer = view()
    for name in (org, stranger.org):
        error = viewer.refused("FORBIDDEN", "subscribe_org", orgId=name)
        assert name not in error["message"]
    stranger.create()
    time.sleep(0.3)
    viewer.sync()
    assert not viewer.of("session")


def test_following_again_and_leaving(village, view):
    viewer = view()
    assert follow_org(viewer) == follow_org(viewer, "me") == follow_org(viewer, village.org)
    session = village.create()["sessionId"]
    viewer.expect("session", feed="org", sessionId=session)
    for _ in range(2):  # the second time it follows no more
        reply = viewer.ask("unsubscribe_org")
        assert reply["event"] == "unsubscribed" and reply["data"] == {"orgId": village.org}
    assert moves(viewer, session).count(("CREATED", "QUEUED")) == 1
    session = village.create()["sessionId"]
    time.sleep(0.3)
    viewer.sync()
    assert not viewer.of("session", sessionId=session)
    follow_org(viewer)
    session = village.create()["sessionId"]
    viewer.expect("session", feed="org", sessionId=session)


def test_a_viewer_may_follow_its_org(oz, admin, org):
    with Viewer(oz, org.key(admin, "viewer")) as viewer:
        assert follow_org(viewer) == org.id
        session = org.boss.create()["sessionId"]
        viewer.expect("session", feed="org", sessionId=session)


def test_they_count_as_subscriptions(postgres):
    with harness.serving({"OZ_WS_MAX_SUBSCRIPTIONS_PER_CONNECTION": "2"}, postgres=postgres, name="few") as server, \
            server.client("few-" + secrets.token_hex(8)) as client, Viewer(server, client.token) as viewer:
        village = Village(client)
        session = village.create()["sessionId"]
        follow_org(viewer)
        viewer.follow(session)
        follow_org(viewer)  # again: none more
        viewer.refused("SUBSCRIPTION_LIMIT", "subscribe_session", sessionId=no_session())
        viewer.refused("SUBSCRIPTION_LIMIT", "subscribe_runner", runnerId="rnr_" + no_session()[4:])
        viewer.ask("unsubscribe_session", sessionId=session)
        viewer.refused("RUNNER_NOT_FOUND", "subscribe_runner", runnerId="rnr_" + no_session()[4:])
        viewer.follow(session)
        viewer.ask("unsubscribe_org")
        viewer.refused("RUNNER_NOT_FOUND", "subscribe_runner", runnerId="rnr_" + no_session()[4:])


# --- many at once, and who is slow ---

def test_a_thousand_sessions_in_a_burst(postgres):
    with harness.serving({"OZ_MAX_SESSIONS_PER_ORG": "0"}, postgres=postgres, name="burst") as server, \
            server.client("burst-" + secrets.token_hex(8)) as client, \
            Viewer(server, client.token) as one, Viewer(server, client.token) as two:
        village = Village(client)
        for viewer in (one, two):
            follow_org(viewer)

        def make(n):
            return [village.create(task=f"number {n}-{i}")["sessionId"] for i in range(125)]
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            made = {s for part in pool.map(make, range(8)) for s in part}
        assert len(made) == 1000
        for viewer in (one, two):
            viewer.wait(lambda v=viewer: len(v.of("session", feed="org")) >= 1000, 60, "all of them")
            told = [m["sessionId"] for m in viewer.of("session", feed="org") if m["data"]["previousState"] == "CREATED"]
            assert sorted(told) == sorted(made) and not viewer.of("event", event="org_gap")
            assert all(m["data"]["session"]["sessionId"] == m["sessionId"] for m in viewer.of("session", feed="org"))


def metric(server, name):
    with server.client(server.admin_key) as client:
        return float(next(line.split()[1] for line in client.get("/metrics").text.splitlines() if line.startswith(name + " ")))


def test_a_slow_reader_is_told_once_that_it_missed_something(postgres):
    settings = {"OZ_MAX_SESSIONS_PER_ORG": "0", "OZ_WS_SEND_BUFFER_SOFT_BYTES": "65536", "OZ_WS_SEND_BUFFER_HARD_BYTES": "1048576"}
    with harness.serving(settings, postgres=postgres, name="slow") as server, \
            server.client("slow-" + secrets.token_hex(8)) as client, Viewer(server, client.token) as fast:
        village = Village(client)
        raw = sockets.socket()
        raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
        raw.connect(("127.0.0.1", server.port))
        with Viewer(server, client.token, sock=raw) as slow:
            follow_org(fast)
            follow_org(slow)
            slow.sync()
            slow.may_read.clear()
            time.sleep(0.1)
            n, wide = 0, {"url": "https://github.com/" + "group/" * 300 + "repo", "branch": "main"}
            # Its buffers in the kernel take some megabytes; what counts is what the server then leaves out.
            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                n = sum(pool.map(lambda k: sum(1 for i in range(500) if village.create(task=f"{k}-{i}", repo=wide)), range(4)))
            # Where everything is slow, this one may miss something too.
            fast.wait(lambda: len(fast.of("session", feed="org")) == n or fast.of("event", event="org_gap"), 60, "all of them")
            slow.may_read.set()
            gap = slow.expect("event", 60, event="org_gap")
            assert gap["data"] == {"orgId": village.org}
            slow.sync()
            got = [m["sessionId"] for m in slow.of("session", feed="org")]
            assert 0 < len(got) < n and len(slow.of("event", event="org_gap")) == 1
            seen = [m["sessionId"] for m in fast.of("session", feed="org")]
            both = min(len(got), len(seen))
            assert both and got[:both] == seen[:both]  # dropped whole, from there on
            # From then on it is live again.
            session = village.create()["sessionId"]
            slow.expect("session", feed="org", sessionId=session)
            assert slow.closed is None


# --- runners ---

def statuses(viewer, runner):
    return [m["status"] for m in viewer.of("runner_status", runnerId=runner)]


def test_runners_come_drain_and_go(oz, admin, org, another_org, view):
    boss, stranger = view(org.boss.client.token), view(another_org.boss.client.token)
    every = view(oz.admin_key)
    follow_org(boss)
    follow_org(stranger)
    follow_org(every, "*")
    peer, credential, runner = org.enrol("r1")
    first = boss.expect("runner_status", runnerId=runner, event="runner_registered")
    assert first["orgId"] == org.id
    assert boss.expect("runner_status", runnerId=runner, event="runner_online")["status"] == "online"
    one = view(org.boss.client.token)
    assert one.ask("subscribe_runner", runnerId=runner)["data"] == {"runnerId": runner}
    assert one.expect("runner_status", runnerId=runner)["status"] == "online"
    data(org.boss("POST", f"/runners/{runner}/drain", json={}))
    for viewer in (boss, one, every):
        assert viewer.expect("runner_status", runnerId=runner, event="runner_draining")["status"] == "draining"
        assert viewer.expect("runner_status", runnerId=runner, event="runner_drained")["drained"] is True
    data(org.boss("POST", f"/runners/{runner}/undrain"))
    for viewer in (boss, one, every):
        assert viewer.expect("runner_status", runnerId=runner, event="runner_undrained")["status"] == "online"
    peer.close()
    assert org.boss("DELETE", f"/runners/{runner}").status_code == 200
    for viewer in (boss, one, every):
        assert viewer.expect("runner_status", runnerId=runner, event="runner_deregistered")["status"] == "offline"
    assert one.expect("event", event="unsubscribed")["data"] == {"runnerId": runner}
    one.refused("RUNNER_NOT_FOUND", "subscribe_runner", runnerId=runner)
    stranger.sync()
    assert not stranger.of("runner_status")


@pytest.fixture
def another_org(oz, admin):
    return Org(oz, admin)


def test_a_worker_that_is_lost_is_offline(postgres):
    settings = {"OZ_WORKER_RECONNECT_GRACE_MS": "6000", "OZ_HEARTBEAT_TIMEOUT_MS": "2000", "OZ_HEALTH_CHECK_INTERVAL_MS": "200"}
    with harness.serving(settings, postgres=postgres, name="lost") as server, server.client(server.admin_key) as admin:
        org = Org(server, admin)
        with Viewer(server, org.boss.client.token) as viewer, Viewer(server, admin.token) as boss:
            follow_org(viewer)
            follow_org(boss, "*")
            peer, credential, runner = org.enrol("gone")
            viewer.expect("runner_status", runnerId=runner, event="runner_online")
            assert viewer.ask("subscribe_runner", runnerId=runner)["event"] == "subscribed"
            peer.close()
            for one in (viewer, boss):
                assert one.expect("runner_status", 30, runnerId=runner, event="runner_offline")["status"] == "offline"
            again = Native(server, "gone", key=credential)
            viewer.wait(lambda: statuses(viewer, runner)[-1] == "online", what="online again")
            again.close()
            # A worker for all orgs is the administrator's to see, as in GET /runners.
            shared = Native(server, "for-all")
            uid = next(r["runnerId"] for r in data(Village(admin)("GET", "/runners"))["items"] if r["hostname"] == "for-all")
            boss.expect("runner_status", runnerId=uid)
            viewer.refused("RUNNER_NOT_FOUND", "subscribe_runner", runnerId=uid)
            viewer.sync()
            assert not viewer.of("runner_status", runnerId=uid)
            shared.close()


def test_a_runner_by_the_other_name(oz, org, village, view):
    peer, _, runner = org.enrol("r2")
    viewer = view(org.boss.client.token)
    session = org.boss.create()["sessionId"]
    mid = viewer.send("subscribe", sessionId=session, runnerId=runner)
    viewer.wait(lambda: len([m for m in viewer.messages if m.get("replyTo") == mid]) == 2, what="both")
    assert viewer.expect("runner_status", runnerId=runner)["status"] == "online"
    view().refused("RUNNER_NOT_FOUND", "subscribe_runner", runnerId=runner)  # another org's is none
    assert viewer.ask("unsubscribe", runnerId=runner)["data"] == {"runnerId": runner}
    assert viewer.ask("unsubscribe_runner", runnerId=runner)["event"] == "unsubscribed"  # no error when it does not follow
    data(org.boss("POST", f"/runners/{runner}/drain", json={}))
    time.sleep(0.3)
    viewer.sync()
    assert statuses(viewer, runner) == ["online"]
    peer.close()


# --- rights that end ---

@pytest.mark.minutes
def test_a_revoked_key_hears_no_more(oz, admin, org):
    key = harness.ok(admin.api("POST", "/keys", json={"name": "k" + secrets.token_hex(4), "tenant": org.name, "role": "viewer"}))
    with Viewer(oz, key["key"]) as viewer:
        follow_org(viewer)
        session = org.boss.create()["sessionId"]
        viewer.expect("session", feed="org", sessionId=session)
        assert admin.api("DELETE", f"/keys/{key['id']}").status_code == 200
        assert viewer.wait_closed(timeout=60)[0] == 4401


def test_connections_come_and_go_while_it_happens(oz, tenant, village):
    """Watches, hubs and reads are taken down in any order."""
    def come_and_go(n):
        for i in range(15):
            with Viewer(oz, tenant.token) as viewer:
                follow_org(viewer)
                village.create(task=f"{n}-{i}")
                if i % 3 == 0:
                    viewer.ask("unsubscribe_org")
                elif i % 3 == 1:
                    viewer.ws.socket.close()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(come_and_go, range(4)))
    with Viewer(oz, tenant.token) as viewer:
        follow_org(viewer)
        session = village.create()["sessionId"]
        viewer.expect("session", feed="org", sessionId=session)
