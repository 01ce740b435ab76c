"""Sessions that really run, in a sandbox of the embedded worker: shell as the agent, no model."""
import functools
import http.server
import json
import subprocess
import threading
import time

import harness
import pytest
from village import Village, data, issues, refused

COMMIT = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "-q"]


@pytest.fixture(scope="module", autouse=True)
def usable(tmp_path_factory):
    harness.need_sandbox(tmp_path_factory.mktemp("check"))


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A repository over HTTP: {"url"}."""
    folder = tmp_path_factory.mktemp("repo")
    work = folder / "work"
    subprocess.run(["git", "init", "-q", "-b", "main", work], check=True)
    (work / "README").write_text("read me\n")
    subprocess.run(["git", "add", "."], cwd=work, check=True)
    subprocess.run([*COMMIT, "-m", "first"], cwd=work, check=True)
    subprocess.run(["git", "clone", "-q", "--bare", work, folder / "r.git"], check=True)
    subprocess.run(["git", "update-server-info"], cwd=folder / "r.git", check=True)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield {"url": f"http://127.0.0.1:{server.server_port}/r.git"}
    server.shutdown()


@pytest.fixture(scope="module")
def shared(postgres):
    with harness.serving({"OZ_EMBEDDED_WORKER": "on", "OZ_ALLOW_LOCAL_REPOS": "on", "OZ_MAX_SESSIONS_PER_ORG": "0"},
                         postgres=postgres, name="live") as server:
        def connected():
            workers = harness.ok(server.client().api("GET", "/workers"))["workers"]
            return [w for w in workers if w["connected"] and w["version"]]
        harness.eventually(connected, timeout=30, what="the embedded worker")
        yield server


def until(village, session, *states, timeout=30):
    def there():
        found = village.get(session)
        assert found["state"] in states or "completedAt" not in found, found
        return found if found["state"] in states else None
    return harness.eventually(there, timeout=timeout, what=f"{states}")


def begin(village, repository, **more):
    """A running interactive shell; its id."""
    options = {"mode": "interactive", **more.pop("options", {})}
    session = village.create(providerId="shell", repo=repository, options=options, task=more.pop("task", None), **more)["sessionId"]
    until(village, session, "RUNNING")
    return session


def screen(village, session, text, timeout=15):
    """Waits until the terminal shows the text; all of it."""
    def there():
        response = village("GET", f"/sessions/{session}/terminal")
        assert response.status_code in (200, 206)
        return response if text.encode() in response.content else None
    return harness.eventually(there, timeout=timeout, what=text)


def test_a_task_from_its_creation_to_its_end(village, repository, tenant):
    session = village.create(providerId="shell", repo=repository, task="cat README; echo is $GREETING; echo new >file; exit 0",
                             options={"env": {"GREETING": "nothing special"}})["sessionId"]
    ended = until(village, session, "COMPLETED")
    assert ended["endReason"] == "finished" and ended["exitCode"] == 0 and ended["attempt"] == 1
    assert ended["runnerName"].startswith("embedded-") and ended["runnerId"].startswith("rnr_")
    for runner in (ended["runnerId"], ended["runnerName"]):
        assert village.list(runnerId=runner)["items"][0]["sessionId"] == session
    assert village.list(runnerId="somebody")["items"] == []
    assert ended["runStartedAt"] >= ended["startedAt"]
    types = [e["type"] for e in village.events(session)["events"]]
    for expected in ("SESSION_CREATED", "SESSION_STARTED", "WORKSPACE_READY", "DIFF_SUMMARY"):
        assert expected in types
    assert types[-1] == "SESSION_ENDED" and types.count("SESSION_ENDED") == 1
    moves = [(e["data"]["previousState"], e["data"]["newState"]) for e in village.events(session, types="SESSION_STATE_CHANGED")["events"]]
    assert [m for m in moves if m[0] != m[1]] == [("QUEUED", "PREPARING_WORKSPACE"), ("PREPARING_WORKSPACE", "STARTING_PROVIDER"),
                                                 ("STARTING_PROVIDER", "RUNNING"), ("RUNNING", "COMPLETED")]
    shown = screen(village, session, "read me")
    assert b"is nothing special" in shown.content and shown.headers["x-terminal-offset"] == "0"
    assert int(shown.headers["x-terminal-end"]) == len(shown.content)
    diff = data(village("GET", f"/sessions/{session}/diff"))
    assert diff["filesChanged"] == 1 and diff["files"][0]["path"] == "file"
    assert village.get(session)["diff"]["filesChanged"] == 1
    assert tenant.run(session.replace("ses_", "run_"))["state"] == "SUCCEEDED"


def test_a_task_that_fails(village, repository):
    session = village.create(providerId="shell", repo=repository, task="exit 3")["sessionId"]
    failed = until(village, session, "FAILED")
    assert failed["endReason"] == "provider_error" and failed["exitCode"] == 3


def test_a_repository_that_is_not_there(village, repository):
    session = village.create(providerId="shell", repo={"url": repository["url"] + "x"}, task="true")["sessionId"]
    failed = until(village, session, "FAILED")
    assert failed["errorMessage"]


def test_input_resize_and_further_terminals(village, repository):
    session = begin(village, repository)
    sent = data(village("POST", f"/sessions/{session}/input", json={"data": "echo typed-$((40+2))", "mode": "line"}), 202)
    assert sent == {"accepted": True, "bytes": 20}
    screen(village, session, "typed-42")
    assert data(village("POST", f"/sessions/{session}/resize", json={"cols": 99, "rows": 33})) == {
        "accepted": True, "cols": 99, "rows": 33}
    village("POST", f"/sessions/{session}/input", json={"data": "stty size\n"})
    screen(village, session, "33 99")
    opened = data(village("POST", f"/sessions/{session}/terminals", json={"cols": 80, "rows": 24}), 201)
    assert 1 <= opened["terminal"] <= 7
    village("POST", f"/sessions/{session}/input", json={"data": "pwd; echo second\n", "terminal": opened["terminal"]})
    harness.eventually(lambda: b"second" in village("GET", f"/sessions/{session}/terminal",
                                                    params={"terminal": opened["terminal"]}).content, what="the second terminal")
    data(village("DELETE", f"/sessions/{session}/terminals/{opened['terminal']}"))
    part = village("GET", f"/sessions/{session}/terminal", params={"from": 3, "limit": 5})
    assert part.status_code == 206 and len(part.content) == 5 and part.headers["x-terminal-offset"] == "3"
    stopped = village("POST", f"/sessions/{session}/stop", params={"wait": 30})
    assert data(stopped)["endReason"] == "stopped"


def test_pause_and_resume(village, repository):
    session = begin(village, repository)
    paused = data(village("POST", f"/sessions/{session}/pause"))
    assert paused["state"] == "PAUSED_BY_HUMAN" and paused["pausedAt"]
    refused(village("POST", f"/sessions/{session}/pause"), 409, "INVALID_STATE")
    refused(village("POST", f"/sessions/{session}/input", json={"data": "x"}), 409, "INVALID_STATE")
    resumed = data(village("POST", f"/sessions/{session}/resume"))
    assert resumed["state"] == "RUNNING" and "pausedAt" not in resumed
    refused(village("POST", f"/sessions/{session}/resume"), 409, "INVALID_STATE")
    village("POST", f"/sessions/{session}/input", json={"data": "echo again-$((1+1))\n"})
    screen(village, session, "again-2")
    village("POST", f"/sessions/{session}/stop", params={"wait": 30})


def test_two_approvals_and_a_denial(village, repository, stranger):
    session = begin(village, repository)
    url = f"/sessions/{session}/approvals"
    one = data(village("POST", url, json={"action": "merge", "description": "Merge PR #123", "context": {"prNumber": 123}}), 201)
    assert one["status"] == "pending" and one["context"] == {"prNumber": 123} and one["risk"] == "med"
    same = data(village("POST", url, json={"action": "merge", "description": "Merge PR #123", "context": {"prNumber": 123}}))
    assert same["approvalId"] == one["approvalId"]
    two = data(village("POST", url, json={"action": "deploy", "description": "Deploy", "risk": "high"}), 201)
    waiting = village.get(session)
    assert waiting["state"] == "WAITING_FOR_APPROVAL" and len(waiting["pendingApprovals"]) == 2
    assert {a["approvalId"] for a in data(village("GET", "/approvals", params={"status": "pending"}))["items"]} == {
        one["approvalId"], two["approvalId"]}
    assert data(stranger("GET", "/approvals"))["items"] == []
    refused(stranger("POST", f"{url}/{one['approvalId']}", json={"decision": "allow"}), 404, "SESSION_NOT_FOUND")
    page = data(village("GET", url, params={"pageSize": 1}))
    assert page["hasMore"] and len(page["items"]) == 1
    rest = data(village("GET", url, params={"pageSize": 1, "cursor": page["nextCursor"]}))
    assert {page["items"][0]["approvalId"], rest["items"][0]["approvalId"]} == {one["approvalId"], two["approvalId"]}
    after = data(village("POST", f"{url}/{one['approvalId']}", json={"decision": "allow", "reason": "Approved after code review"}))
    assert after["state"] == "WAITING_FOR_APPROVAL" and len(after["pendingApprovals"]) == 1
    after = data(village("POST", f"{url}/{two['approvalId']}", json={"approvalId": two["approvalId"], "decision": "deny"}))
    assert after["state"] == "RUNNING" and after["pendingApprovals"] == []
    again = village("POST", f"{url}/{one['approvalId']}", json={"decision": "allow"})
    assert data(again)["state"] == "RUNNING"  # the same by the same within a minute
    error = refused(village("POST", f"{url}/{one['approvalId']}", json={"decision": "deny"}), 409, "APPROVAL_ALREADY_RESOLVED")
    assert error["details"]["approval"]["decision"] == "allow"
    types = [e["type"] for e in village.events(session)["events"]]
    assert types.count("APPROVAL_REQUESTED") == 2 and types.count("APPROVAL_RESOLVED") == 2
    last = data(village("POST", url, json={"action": "merge", "description": "third"}), 201)
    village("POST", f"/sessions/{session}/stop", params={"wait": 30})
    shown = {a["approvalId"]: a["status"] for a in data(village("GET", url))["items"]}
    assert shown[last["approvalId"]] == "cancelled"


def test_a_denial_may_end_the_session(village, repository):
    session = begin(village, repository, options={"policy": {"onDeny": "stop"}})
    gate = data(village("POST", f"/sessions/{session}/approvals", json={"action": "merge", "description": "d"}), 201)
    data(village("POST", f"/sessions/{session}/approvals/{gate['approvalId']}", json={"decision": "deny"}))
    ended = until(village, session, "COMPLETED")
    assert ended["endReason"] == "denied"


def test_prompts_are_worked_on_in_order(village, repository):
    session = begin(village, repository, task="echo first-$((1+0))")
    screen(village, session, "first-1")
    data(village("POST", f"/sessions/{session}/prompts", json={"prompt": "echo second-$((1+1))"}), 201)
    screen(village, session, "second-2")

    def done():
        states = [p["state"] for p in data(village("GET", f"/sessions/{session}/prompts"))["items"]]
        return states == ["done", "done"]
    harness.eventually(done, timeout=20, what="the prompts' ends")
    prompts = [p["promptId"] for p in data(village("GET", f"/sessions/{session}/prompts"))["items"]]
    ends = [e["data"] for e in village.events(session, types="TURN_ENDED")["events"]]
    assert [(e["promptId"], e["state"], e["outcome"]) for e in ends] == [(p, "done", "done") for p in prompts]
    data(village("POST", f"/sessions/{session}/end"))
    ended = until(village, session, "COMPLETED")
    assert ended["endReason"] == "finished"


def test_the_stream_of_a_session_that_runs(village, repository):
    session = village.create(providerId="shell", repo=repository, task="sleep 1; exit 0")["sessionId"]
    seen = []
    with village.client.stream("GET", f"/api/v1/sessions/{session}/events/stream") as response:
        for line in response.iter_lines():
            if line.startswith("data: "):
                seen.append(json.loads(line[6:]))
    assert seen == village.events(session)["events"]
    assert [e["seq"] for e in seen] == list(range(1, len(seen) + 1))


def test_a_stop_waits_for_the_end(village, repository):
    session = begin(village, repository)
    at_once = village("POST", f"/sessions/{session}/stop")
    assert at_once.status_code in (200, 202)
    if at_once.status_code == 202:
        assert data(at_once, 202)["state"] == "STOPPING"
    started = time.monotonic()
    waited = village("POST", f"/sessions/{session}/stop", params={"wait": 30})
    if waited.status_code == 409:
        refused(waited, 409, "SESSION_ALREADY_STOPPED")
    else:
        assert data(waited)["state"] == "COMPLETED"
    assert time.monotonic() - started < 30 and village.get(session)["state"] == "COMPLETED"


def test_a_second_stop_without_grace_ends_it_at_once(village, repository):
    session = begin(village, repository)
    village("POST", f"/sessions/{session}/input", json={"data": "trap '' TERM HUP INT; echo deaf-$((1+0)); sleep 60 # deaf\n"})
    screen(village, session, "deaf-1")
    data(village("POST", f"/sessions/{session}/stop"), 202)
    started = time.monotonic()
    ended = data(village("POST", f"/sessions/{session}/stop", params={"wait": 30}, json={"graceful": False}))
    assert ended["state"] == "COMPLETED" and ended["endReason"] == "stopped" and time.monotonic() - started < 5


def test_it_waits_for_what_nobody_offers(village, repository):
    session = village.create(providerId="shell", repo=repository, task="true", options={"runnerId": "not-here"})["sessionId"]
    assert village.get(session)["queueReason"] == "pinned_runner_offline"
    refused(village.post(options={"runnerId": "rnr_00000000-0000-4000-8000-000000000000"}), 404, "RUNNER_NOT_FOUND")
    assert issues(village.post(options={"runnerId": " "})) == {"options.runnerId": "too_small"}
    assert village.stop(session).status_code == 200
