"""The examples of the seed's README, call by call: its session and approval calls, its fleet calls, its socket messages
(village-control-plane.md 15.2). What it shows of versions, builds and rollouts comes later."""
import re

import pytest
from harness import TIMESTAMP, eventually
from live_peers import LiveWorker, Viewer
from village import data, refused
from world import NO_SESSION, new_id

HEARTBEAT = {"timestamp": "2026-01-31T12:00:00.000Z", "activeSessions": ["session-1", "session-2"],
             "load": {"cpuPercent": 45, "memoryPercent": 60, "diskPercent": 30},
             "runtimeVersions": {"codex": "1.2.0", "claude_code": "3.5.0", "gemini_cli": "2.0.0", "omnara": "1.0.0"}}


class Linked(LiveWorker):
    """The seed's runner: registered over HTTP, then on its own link."""

    def __init__(self, server, runner, token, host):
        self.runner = runner
        super().__init__(server, worker_id=host, key=token, harnesses=["codex", "claude", "gemini"])

    def claim(self, task, **how):
        """As our own worker does: that it runs is said by its runner."""
        self.running[task["execution_id"]] = task
        self.send("task_claimed", self.ids(task), **how)
        self.state(task, "starting")

    def target(self):
        return f"/api/v1/runners/{self.runner}/link?proto=2&instance={self.instance}"


@pytest.fixture(scope="module")
def fleet(world):
    """const result = await handler.registerRunner({…})"""
    host = f"runner-01-{new_id()}.local"
    made = data(world.caller(world.enrolment())("POST", "/runners", json={
        "hostname": host, "protocolVersion": 2, "metadata": {"region": "us-west-2"},
        "capabilities": {"providers": ["codex", "claude_code", "gemini_cli"], "maxConcurrentSessions": 5,
                         "features": ["gpu", "sandbox"]}}), 201)
    assert made["hostname"] == host and made["status"] == "online" and made["metadata"] == {"region": "us-west-2"}
    assert made["capabilities"]["maxConcurrentSessions"] == 5 and made["capabilities"]["features"] == ["gpu", "sandbox"]
    with Linked(world.server, made["runnerId"], made["runnerToken"], host) as peer:
        yield made, peer


def test_session_handler(world, fleet):
    v, (_, worker) = world.v, fleet
    request = {"orgId": v.org, "providerId": "codex", "repo": {"url": "https://github.com/example/repo", "branch": "main"},
               "task": "Implement user authentication"}
    result = v("POST", "/sessions", json=request)
    created = data(result, 201)
    session = created["sessionId"]
    assert created["state"] == "CREATED" and result.headers["location"] == f"/api/v1/sessions/{session}"
    assert data(v("GET", f"/sessions/{session}"))["providerId"] == "codex"
    page = data(v("GET", "/sessions", params={"orgId": v.org, "page": 1, "pageSize": 20}))
    assert page["items"][0]["sessionId"] == session and (page["page"], page["pageSize"]) == (1, 20) and "hasMore" in page
    runner = worker.start(session)
    eventually(lambda: v.get(session)["state"] == "RUNNING")
    assert world.told(worker, session, "pause") == "PAUSED_BY_HUMAN"
    assert world.told(worker, session, "resume") == "RUNNING"
    approval = data(v("POST", f"/sessions/{session}/approvals", json={
        "action": "merge", "description": "Merge PR #123", "context": {"prNumber": 123}}), 201)
    assert approval["action"] == "merge" and TIMESTAMP.fullmatch(approval["requestedAt"])
    assert v.get(session)["state"] == "WAITING_FOR_APPROVAL"
    after = data(v("POST", f"/sessions/{session}/approvals/{approval['approvalId']}", json={
        "approvalId": approval["approvalId"], "decision": "allow", "reason": "Approved after code review"}))
    assert after["state"] == "RUNNING" and after["pendingApprovals"] == []
    assert data(v("POST", f"/sessions/{session}/stop", json={"reason": "User requested"}), 202)["state"] == "STOPPING"
    worker.confirm_cancel(runner.task)
    assert eventually(lambda: (s := v.get(session))["state"] == "COMPLETED" and s)["endReason"] == "stopped"
    types = [e["type"] for e in v.events(session, limit=1000)["events"]]
    for expected in ("SESSION_CREATED", "SESSION_STARTED", "SESSION_STATE_CHANGED", "APPROVAL_REQUESTED", "APPROVAL_RESOLVED",
                     "SESSION_ENDED"):
        assert expected in types
    by = {e["type"]: e for e in v.events(session, limit=1000)["events"]}
    assert by["APPROVAL_REQUESTED"]["data"]["approval"]["description"] == "Merge PR #123"
    assert by["APPROVAL_RESOLVED"]["data"]["decision"] == "allow"
    assert by["APPROVAL_RESOLVED"]["data"]["reason"] == "Approved after code review"


def test_error_handling(world):
    """The switch of the README; SESSION_LIMIT_EXCEEDED is in test_errors.py."""
    refused(world.v.post(providerId="nobody"), 400, "INVALID_PROVIDER")
    assert refused(world.v.post(repo=None), 400, "VALIDATION_ERROR")["details"]["issues"]


def test_runner_handler(world, fleet):
    made, worker = fleet
    runner, own = made["runnerId"], world.caller(worker.key)
    data(own("POST", f"/runners/{runner}/heartbeat", json={"runnerId": runner, **HEARTBEAT}))
    page = data(world.boss("GET", "/runners", params={"page": 1, "pageSize": 50}))
    assert [r["runnerId"] for r in page["items"]] == [runner]
    info = data(world.boss("GET", f"/runners/{runner}"))
    assert info["runtimeVersions"] == HEARTBEAT["runtimeVersions"] and info["lastHeartbeat"] > HEARTBEAT["timestamp"]
    assert {k: info["load"][k] for k in HEARTBEAT["load"]} == HEARTBEAT["load"]
    assert data(world.boss("POST", f"/runners/{runner}/drain", json={}))["status"] == "draining"
    assert world.boss("DELETE", f"/runners/{runner}").json()["success"] is True
    refused(world.boss("GET", f"/runners/{runner}"), 404, "RUNNER_NOT_FOUND")
    assert worker.wait_closed() == 4411


def test_runner_events(world):
    runner, own = world.registered("events-" + new_id())
    data(world.admin("POST", f"/runners/{runner}/drain", json={}))
    names = eventually(lambda: (n := [e["event"] for e in data(world.admin("GET", f"/runners/{runner}/events"))["events"]])
                       and "runner_draining" in n and n)
    assert names[:2] == ["runner_registered", "runner_online"]


def test_web_socket_messages(world):
    session, runner = world.start()
    with world.socket() as viewer:
        viewer.ws.send('{"type": "subscribe_session", "sessionId": "%s", "messageId": "1", "timestamp": "2026-01-31T12:00:00Z"}'
                       % session)
        viewer.wait(lambda: [m for m in viewer.messages if m.get("replyTo") == "1"])
        viewer.send("terminal_input", sessionId=session, data="ls -la\n")
        assert runner.told("input")["data"] == "ls -la\n"
        runner.show(b"Command output...\n")
        shown = viewer.expect("terminal")
        assert shown["sessionId"] == session and shown["action"] == "output" and shown["data"] == "Command output...\n"
        assert TIMESTAMP.fullmatch(shown["timestamp"])
        gate = runner.ask("Merge PR #456")
        asked = viewer.expect("approval_required")
        assert asked["sessionId"] == session and asked["messageId"] and TIMESTAMP.fullmatch(asked["timestamp"])
        assert asked["approval"]["approvalId"] == gate and asked["approval"]["description"] == "Merge PR #456"
        moved = viewer.wait(lambda: [m for m in viewer.of("session", action="state_change")
                                     if m["data"]["newState"] == "WAITING_FOR_APPROVAL"])[0]
        assert moved["data"]["previousState"] == "RUNNING" and moved["sessionId"] == session
        assert viewer.ask("unsubscribe_session", sessionId=session)["event"] == "unsubscribed"
        world.v("POST", f"/sessions/{session}/approvals/{gate}", json={"decision": "deny"})
        viewer.sync()
        assert not viewer.of("approval_resolved")
    with Viewer(world.server) as nobody:
        error = nobody.refused("UNAUTHORIZED", "subscribe_session", sessionId=NO_SESSION)
        assert set(error) >= {"type", "code", "message", "timestamp"} and re.fullmatch(TIMESTAMP, error["timestamp"])
        nobody.send("authenticate", token=world.v.client.token)
        assert nobody.expect("event", event="authenticated")["data"]["orgId"] == world.v.org
