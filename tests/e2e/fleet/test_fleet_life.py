"""Enrolment, ownership, drain and deregistration of workers (village-control-plane.md 6)."""
import time

import pytest
from village import Village, data, refused
from worker_peers import Native, Refused


def eventually(check, timeout=15.0):
    end = time.monotonic() + timeout
    while not (got := check()):
        assert time.monotonic() < end, "never"
        time.sleep(0.05)
    return got


def state(org, session):
    return org.boss.client.run(run_id(session))["state"]


def session(org):
    """A run: scripted workers cannot drive a live session."""
    made = org.boss.client.create("do it", config={"environment_id": "debian:12"})["run_id"]
    return "ses_" + made.removeprefix("run_")


def run_id(session_id):
    return "run_" + session_id.removeprefix("ses_")


def test_a_worker_gets_a_credential_once_and_uses_it(org):
    token = org.token()["token"]
    peer, credential, runner = org.enrol("w1", token)
    assert token.startswith("en_") and credential.startswith("wk_") and runner.startswith("rnr_")
    info = org.runner(runner)
    assert (info["hostname"], info["orgId"], info["status"], info["connected"]) == ("w1", org.id, "online", True)
    peer.close()
    again = Native(org.server, "w1", key=credential)
    assert again.welcome["worker_uid"] == runner and "credential" not in again.welcome
    again.close()
    with pytest.raises(Refused) as e:
        Native(org.server, "w2", key=credential)
    assert e.value.status == 403
    with pytest.raises(Refused) as e:  # its one use is gone
        Native(org.server, "w3", key=token)
    assert e.value.status == 401
    eventually(lambda: org.events(runner)[:2] == ["runner_registered", "runner_online"])


def test_a_worker_takes_only_its_orgs_sessions(org, another):
    mine, _, _ = org.enrol("same")
    theirs, _, _ = another.enrol("same")
    a, b = session(org), session(another)
    assert mine.assigned(run_id(a))["task_id"] == run_id(a)
    assert theirs.assigned(run_id(b))["task_id"] == run_id(b)
    mine.close()
    theirs.close()


def test_nobody_sees_anothers_runners(org, another):
    peer, _, runner = org.enrol("secret")
    for method, path in (("GET", ""), ("GET", "/events"), ("POST", "/drain"), ("POST", "/undrain"), ("DELETE", "")):
        body = {"json": {}} if method == "POST" else {}
        refused(another.boss(method, f"/runners/{runner}{path}", **body), 404, "RUNNER_NOT_FOUND")
    assert data(another.boss("GET", "/runners"))["items"] == []
    peer.close()


def test_a_drain_outlives_heartbeats_and_connections(org):
    peer, credential, runner = org.enrol("d1")
    task = peer.assigned(run_id(session(org)))
    peer.claim(task)
    eventually(lambda: org.runner(runner)["load"]["activeSessions"] == 1)
    info = data(org.boss("POST", f"/runners/{runner}/drain", json={"reason": "kernel"}))
    assert info["status"] == "draining" and not info["drained"]
    assert peer.expect("command")["command"] == "drain"
    peer.send("heartbeat", {"runnerId": runner, "timestamp": "2026-01-31T12:00:00Z", "activeSessions": [],
                            "load": {"cpuPercent": 7, "memoryPercent": 8}, "runtimeVersions": {"codex": "1.2"}, "sequence": 1})
    info = eventually(lambda: (i := org.runner(runner))["load"].get("cpuPercent") == 7 and i)
    assert info["status"] == "draining" and info["runtimeVersions"] == {"codex": "1.2"}
    waiting = session(org)
    peer.complete(task)
    eventually(lambda: org.runner(runner)["drained"])
    peer.close()
    peer = Native(org.server, "d1", key=credential)
    assert peer.welcome["drain"] is True and state(org, waiting) == "PENDING"
    data(org.boss("POST", f"/runners/{runner}/undrain"))
    assert peer.assigned(run_id(waiting))
    refused(org.boss("POST", f"/runners/{runner}/undrain"), 409, "INVALID_STATE")
    eventually(lambda: [e for e in org.events(runner) if "drain" in e] ==
               ["runner_draining", "runner_drained", "runner_undrained"])
    peer.close()


def test_a_worker_whose_disk_is_full_gets_nothing_and_somebody_hears_of_it(org):
    peer, _, runner = org.enrol("full")
    name = next(w["id"] for w in org.server.client().api("GET", "/workers").json()["workers"] if w["uid"] == runner)

    def beat(sequence, percent):
        peer.send("heartbeat", {"runnerId": runner, "timestamp": "2026-01-31T12:00:00Z", "activeSessions": [],
                                "load": {"cpuPercent": 1, "memoryPercent": 1, "diskPercent": percent}, "sequence": sequence})
        eventually(lambda: org.runner(runner)["load"].get("diskPercent") == percent)
    beat(1, 95)
    assert org.server.wait_log("worker.disk_full", worker_id=name)["percent"] == 95
    waiting = session(org)
    beat(2, 96)
    time.sleep(0.5)
    assert state(org, waiting) == "PENDING"
    assert len([x for x in org.server.log if x["msg"] == "worker.disk_full" and x["worker_id"] == name]) == 1
    beat(3, 94)
    assert peer.assigned(run_id(waiting))
    org.server.wait_log("worker.disk_has_room", worker_id=name)
    peer.close()


def test_deregistration_is_refused_while_it_holds_sessions(org):
    peer, credential, runner = org.enrol("x1")
    held = session(org)
    peer.claim(peer.assigned(run_id(held)))
    eventually(lambda: state(org, held) == "INPROGRESS")
    error = refused(org.boss("DELETE", f"/runners/{runner}"), 409, "RUNNER_HAS_ACTIVE_SESSIONS")
    assert error["details"]["activeSessions"] == [held]
    assert org.boss("DELETE", f"/runners/{runner}", params={"force": "true"}).status_code == 200
    assert peer.wait_closed() == 4411
    eventually(lambda: state(org, held) == "FAILED")
    refused(org.boss("GET", f"/runners/{runner}"), 404, "RUNNER_NOT_FOUND")
    late = Native(org.server, "x1", key=credential, hello=False)
    assert late.wait_closed() == 4411
    fresh, _, other = org.enrol("x1")  # the hostname is free
    assert other != runner
    fresh.close()


def test_limits_and_roles(org):
    token = org.token(uses=9)["token"]
    peers = [org.enrol(f"l{i}", token)[0] for i in range(4)]
    with pytest.raises(Refused) as e:
        Native(org.server, "l5", key=token)
    assert e.value.status == 429
    for path in ("/runner-enrolments", "/runners/rnr_00000000-0000-7000-8000-000000000000/drain"):
        refused(org.worker("POST", path, json={}), 403, "FORBIDDEN")
    refused(org.boss("POST", "/runner-enrolments", json={"shared": True}), 403, "FORBIDDEN")
    assert org.server.client(token).api("GET", "/runners").status_code == 403
    assert [r["hostname"] for r in data(org.boss("GET", "/runners", params={"pageSize": 3}))["items"]] == ["l0", "l1", "l2"]
    assert data(org.boss("GET", "/runners/capacity"))["total"] == 20
    for p in peers:
        p.close()


def test_a_runner_without_a_link(org):
    token = org.token(uses=2)["token"]
    body = {"hostname": "http-1", "capabilities": {"providers": ["codex"]}, "protocolVersion": 2, "metadata": {"region": "x"}}
    c = org.server.client(token)
    made = data(c.api("POST", "/runners", json=body), 201)
    assert made["status"] == "online" and not made["connected"] and made["metadata"] == {"region": "x"}
    own = org.server.client(made["runnerToken"])
    beat = {"runnerId": made["runnerId"], "timestamp": "2026-01-31T12:00:00Z", "activeSessions": [], "load": {"cpuPercent": 1}}
    path = f"/runners/{made['runnerId']}/heartbeat"
    assert data(own.api("POST", path, json=beat))["drain"] is False
    refused(own.api("POST", path, json={**beat, "runnerId": "rnr_00000000-0000-7000-8000-000000000000"}), 403, "FORBIDDEN")
    eventually(lambda: org.runner(made["runnerId"])["status"] == "offline")
    data(own.api("POST", path, json=beat))
    assert org.runner(made["runnerId"])["status"] == "online"
    again = data(c.api("POST", "/runners", json=body))
    assert again["runnerId"] == made["runnerId"] and again["runnerToken"] != made["runnerToken"]
    assert own.api("POST", path, json=beat).status_code == 401  # replaced
    eventually(lambda: org.events(made["runnerId"])[:3] == ["runner_registered", "runner_online", "runner_offline"])


# --- enrolment tokens ---

def test_enrolment_tokens_are_listed_without_their_text(org, another, oz):
    made = org.token(name="build farm")
    mine = data(org.boss("GET", "/runner-enrolments"))["items"]
    row = next(e for e in mine if e["enrolmentId"] == made["enrolmentId"])
    assert (row["name"], row["status"], row["usesLeft"], row["shared"], row["orgId"]) == ("build farm", "active", 1, False, org.id)
    assert made["token"].startswith(row["prefix"]) and made["token"] not in str(mine)
    assert made["enrolmentId"] not in str(data(another.boss("GET", "/runner-enrolments")))
    refused(another.boss("DELETE", f"/runner-enrolments/{made['enrolmentId']}"), 404, "ENROLMENT_NOT_FOUND")
    everything = data(Village(oz.client())("GET", "/runner-enrolments"))["items"]
    assert made["enrolmentId"] in [e["enrolmentId"] for e in everything]
    assert [e["enrolmentId"] for e in data(Village(oz.client())("GET", "/runner-enrolments", params={"orgId": another.id}))["items"]] == \
        [e["enrolmentId"] for e in data(another.boss("GET", "/runner-enrolments"))["items"]]


def test_a_revoked_token_enrols_nobody_and_its_workers_stay(org):
    made = org.token(uses=2)
    peer, credential, runner = org.enrol("r1", made["token"])
    assert data(org.boss("DELETE", f"/runner-enrolments/{made['enrolmentId']}"))["status"] == "revoked"
    with pytest.raises(Refused) as e:
        Native(org.server, "r2", key=made["token"])
    assert e.value.status == 401
    assert org.runner(runner)["connected"]
    peer.close()
    Native(org.server, "r1", key=credential).close()
    assert made["enrolmentId"] not in str(data(org.boss("GET", "/runner-enrolments")))
    over = {e["enrolmentId"]: e for e in data(org.boss("GET", "/runner-enrolments", params={"all": "true"}))["items"]}
    assert over[made["enrolmentId"]]["status"] == "revoked" and over[made["enrolmentId"]]["usesLeft"] == 1
    assert data(org.boss("DELETE", f"/runner-enrolments/{made['enrolmentId']}"))["status"] == "revoked"  # once more
    used = org.token()
    org.enrol("r3", used["token"])[0].close()
    over = {e["enrolmentId"]: e["status"] for e in data(org.boss("GET", "/runner-enrolments", params={"all": "true"}))["items"]}
    assert over[used["enrolmentId"]] == "used"


def test_only_administrators_see_enrolment_tokens(org):
    refused(org.worker("GET", "/runner-enrolments"), 403, "FORBIDDEN")
    refused(org.worker("DELETE", "/runner-enrolments/enr_00000000-0000-7000-8000-000000000000"), 403, "FORBIDDEN")


def test_the_command_line_lists_and_revokes_enrolment_tokens(org, oz):
    from seat import Cli
    cli = Cli(oz, "")
    made = org.token(name="by hand")
    shown = cli("workers", "tokens").stdout
    line = next(x for x in shown.splitlines() if made["enrolmentId"] in x)
    assert "by hand" in line and "active" in line and made["token"] not in shown
    assert made["enrolmentId"] in str(cli.json("workers", "tokens"))
    assert "revoked" in cli("workers", "revoke", made["enrolmentId"]).stdout
    assert made["enrolmentId"] not in cli("workers", "tokens").stdout
    assert made["enrolmentId"] in cli("workers", "tokens", "--all").stdout
    assert "WORKER" in cli("workers").stdout


def test_each_key_of_an_org_is_a_principal_of_its_own(org, oz):
    from live_peers import LiveWorker
    keys = oz.client().api("GET", "/keys").json()["keys"]
    with LiveWorker(oz) as native:
        session = org.worker.create()["sessionId"]
        runner = native.start(session)
        for who, name in ((org.boss, "admin"), (org.worker, "operator")):
            approval = runner.ask(f"May I, {name}?")
            eventually(lambda: approval in str(data(org.boss("GET", f"/sessions/{session}/approvals"))))
            data(who("POST", f"/sessions/{session}/approvals/{approval}", json={"decision": "allow"}))
            own = next("key:" + k["id"].removeprefix("key_") for k in keys if who.client.token.startswith(k["prefix"]))
            shown = next(a for a in data(org.boss("GET", f"/sessions/{session}/approvals", params={"status": "allowed"}))["items"]
                         if a["approvalId"] == approval)
            assert shown["resolvedBy"] == own, shown
            event = next(e for e in org.boss.events(session)["events"]
                         if e["type"] == "APPROVAL_RESOLVED" and e["data"]["approvalId"] == approval)
            assert event["actor"] == {"type": "user", "id": own}, event
        runner.end()
