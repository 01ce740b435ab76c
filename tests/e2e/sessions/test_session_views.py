"""Lists, paging, events, stop, and one record in several views (village-control-plane.md 3.2, 4.4, 13)."""
import base64
import threading
import time

import harness
import pytest
from village import Village, data, issues, refused


def ids(page):
    return [s["sessionId"] for s in page["items"]]


def test_pages_are_newest_first_and_meet_at_their_edges(village):
    made = [village.create(task=f"task {i}")["sessionId"] for i in range(7)][::-1]
    first = village.list(pageSize=3)
    assert ids(first) == made[:3] and (first["total"], first["page"], first["pageSize"]) == (7, 1, 3) and first["hasMore"]
    assert ids(village.list(pageSize=3, page=2)) == made[3:6]
    last = village.list(pageSize=3, page=3)
    assert ids(last) == made[6:] and not last["hasMore"] and "nextCursor" not in last
    beyond = village.list(pageSize=3, page=4)
    assert beyond["items"] == [] and beyond["total"] == 7 and not beyond["hasMore"]
    exact = village.list(pageSize=7)
    assert ids(exact) == made and not exact["hasMore"]
    by_cursor = village.list(pageSize=3, cursor=first["nextCursor"])
    assert ids(by_cursor) == made[3:6] and by_cursor["page"] == 0
    assert ids(village.list(pageSize=3, cursor=by_cursor["nextCursor"], page=9)) == made[6:]


@pytest.mark.parametrize("query, path", [({"page": 0}, "page"), ({"page": -1}, "page"), ({"page": "x"}, "page"),
                                         ({"pageSize": 0}, "pageSize"), ({"pageSize": 101}, "pageSize"),
                                         ({"pageSize": "1.5"}, "pageSize"), ({"page": 101, "pageSize": 100}, "page"),
                                         ({"state": "DONE"}, "state"), ({"providerId": "x"}, "providerId"),
                                         ({"createdAfter": "yesterday"}, "createdAfter"), ({"q": "a b c d e"}, "q"),
                                         ({"view": "all"}, "view"), ({"cursor": "nonsense"}, "cursor"), ({"cursor": ""}, "cursor")])
def test_bad_values_of_a_list(village, query, path):
    assert set(issues(village("GET", "/sessions", params=query))) == {path}


def test_a_cursor_is_bound_to_its_list_and_org(village, stranger):
    for v in (village, stranger):
        for _ in range(3):
            v.create()
    cursor = village.list(pageSize=1)["nextCursor"]
    assert issues(stranger("GET", "/sessions", params={"cursor": cursor})) == {"cursor": "invalid_format"}
    assert issues(village("GET", "/approvals", params={"cursor": cursor})) == {"cursor": "invalid_format"}
    raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    forged = base64.urlsafe_b64encode(raw[:-1] + (b"0" if raw[-1:] != b"0" else b"1")).decode().rstrip("=")
    assert issues(village("GET", "/sessions", params={"cursor": forged})) == {"cursor": "invalid_format"}
    refused(village("GET", "/sessions", params={"orgId": stranger.org}), 403, "FORBIDDEN")


def test_filters(village):
    a = village.create(task="alpha one", providerId="claude_code")["sessionId"]
    b = village.create(task="beta two", repo={"url": "https://example.com/other"})["sessionId"]
    assert village.stop(a).status_code == 200
    assert ids(village.list(state="QUEUED")) == [b] and ids(village.list(state="COMPLETED")) == [a]
    assert ids(village.list(state="active")) == [b] and ids(village.list(state="terminal")) == [a]
    assert ids(village.list(state=["QUEUED", "COMPLETED"])) == [b, a] and village.list(state="CREATED")["items"] == []
    assert ids(village.list(providerId="claude_code")) == [a] and village.list(providerId="omnara")["items"] == []
    assert ids(village.list(repoUrl="https://example.com/other")) == [b]
    assert ids(village.list(q="ALPHA")) == [a] and village.list(q="alpha two")["items"] == []
    when = village.get(b)["createdAt"]
    assert ids(village.list(createdBefore=when)) == [a] or village.get(a)["createdAt"] == when
    assert village.list(createdAfter=when)["items"] == []
    assert village.list(state="RUNNING")["total"] == 0
    assert village.list(state="QUEUED")["total"] == 1


def test_stop_and_stop_again(village):
    session = village.create()["sessionId"]
    stopped = data(village("POST", f"/sessions/{session}/stop", json={"reason": "User requested"}))
    assert stopped["state"] == "COMPLETED" and stopped["endReason"] == "stopped" and "errorMessage" not in stopped
    assert stopped["completedAt"] >= stopped["startedAt"] and "queueReason" not in stopped
    refused(village.stop(session), 409, "SESSION_ALREADY_STOPPED")
    assert issues(village("POST", f"/sessions/{session}/stop", json={"reason": "x" * 1001, "why": 1})) == {
        "reason": "too_big", "why": "unrecognized_key"}
    assert issues(village("POST", f"/sessions/{session}/stop", params={"wait": 36})) == {"wait": "too_big"}
    events = village.events(session)["events"]
    assert [e["type"] for e in events] == ["SESSION_CREATED", "SESSION_STATE_CHANGED", "SESSION_ENDED"]
    assert events[1]["data"]["previousState"] == "QUEUED" and events[1]["data"]["newState"] == "COMPLETED"
    assert events[1]["data"]["note"] == "User requested"
    assert events[2]["data"]["finalState"] == "COMPLETED" and events[1]["actor"]["type"] == "user"


@pytest.mark.parametrize("call, body", [("pause", None), ("resume", None), ("end", None), ("interrupt", None),
                                        ("input", {"data": "x"}), ("resize", {"cols": 80, "rows": 24}), ("terminals", {}),
                                        ("approvals", {"action": "merge", "description": "Merge PR #123",
                                                       "context": {"prNumber": 123}})])
def test_what_only_a_running_session_does(village, call, body):
    session = village.create(options={"mode": "interactive"})["sessionId"]
    refused(village("POST", f"/sessions/{session}/{call}", json=body), 409, "INVALID_STATE")
    assert village.stop(session).status_code == 200
    refused(village("POST", f"/sessions/{session}/{call}", json=body), 409, "INVALID_STATE")


@pytest.mark.parametrize("call, body, path", [
    ("input", {}, "data"), ("input", {"data": "x" * 65537}, "data"), ("input", {"data": "🚀" * 20000}, "data"),
    ("input", {"data": "x", "mode": "cooked"}, "mode"), ("resize", {"cols": 19, "rows": 24}, "cols"),
    ("resize", {"cols": 80, "rows": 201}, "rows"), ("resize", {"cols": 80}, "rows"),
    ("approvals", {"action": "explode", "description": "d"}, "action"), ("approvals", {"action": "merge"}, "description"),
    ("approvals", {"action": "merge", "description": "x" * 2001}, "description"),
    ("approvals", {"action": "merge", "description": "d", "context": {"k": "x" * 17000}}, "context"),
    ("approvals", {"action": "merge", "description": "d", "risk": "none"}, "risk"),
    ("prompts", {}, "prompt"), ("prompts", {"prompt": " "}, "prompt"), ("interrupt", {"promptId": "a b"}, "promptId")])
def test_bodies_that_are_refused(village, call, body, path):
    session = village.create()["sessionId"]
    assert set(issues(village("POST", f"/sessions/{session}/{call}", json=body))) == {path}


def test_prompts_wait_in_order_and_may_be_changed_and_withdrawn(village, stranger):
    session = village.create(task=None)["sessionId"]
    url = f"/sessions/{session}/prompts"
    one = data(village("POST", url, json={"prompt": "one"}), 201)
    two = data(village("POST", url, json={"prompt": "two"}), 201)
    first = data(village("POST", url, json={"prompt": "first", "first": True}), 201)
    assert (one["ahead"], two["ahead"], first["ahead"]) == (0, 1, 0)
    assert [p["prompt"] for p in data(village("GET", url))["items"]] == ["first", "one", "two"]
    data(village("PATCH", f"{url}/{one['promptId']}", json={"prompt": "changed"}))
    assert data(village("DELETE", f"{url}/{two['promptId']}"))["state"] == "cancelled"
    shown = {p["prompt"]: p["state"] for p in data(village("GET", url))["items"]}
    assert shown == {"first": "queued", "changed": "queued", "two": "cancelled"}
    refused(village("DELETE", f"{url}/{two['promptId']}"), 409, "INVALID_STATE")
    refused(village("PATCH", f"{url}/{session[4:]}", json={"prompt": "x"}), 404, "PROMPT_NOT_FOUND")
    refused(stranger("DELETE", f"{url}/{one['promptId']}"), 404, "SESSION_NOT_FOUND")
    types = [e["type"] for e in village.events(session)["events"]]
    assert types.count("TURN_QUEUED") == 3 and "TURN_CHANGED" in types and "TURN_ENDED" in types
    task = village.create()["sessionId"]
    refused(village("POST", f"/sessions/{task}/prompts", json={"prompt": "x"}), 409, "INVALID_STATE")


def test_at_most_fifty_prompts_wait(village):
    session = village.create(task=None)["sessionId"]
    for _ in range(50):
        data(village("POST", f"/sessions/{session}/prompts", json={"prompt": "x"}), 201)
    refused(village("POST", f"/sessions/{session}/prompts", json={"prompt": "x"}), 429, "PROMPT_LIMIT_EXCEEDED")


def test_approvals_of_a_session_that_has_none(village):
    session = village.create()["sessionId"]
    for path in (f"/sessions/{session}/approvals", "/approvals"):
        assert data(village("GET", path))["items"] == []
    refused(village("POST", f"/sessions/{session}/approvals/approval-123", json={"decision": "allow"}), 404, "APPROVAL_NOT_FOUND")
    assert issues(village("POST", f"/sessions/{session}/approvals/apr_1", json={"decision": "perhaps", "approvalId": "apr_2"})) == {
        "decision": "invalid_enum", "approvalId": "invalid_format"}
    assert issues(village("GET", "/approvals", params={"status": "open", "risk": "none"})) == {
        "status": "invalid_enum", "risk": "invalid_enum"}


def test_what_a_session_left_when_nothing_ran(village):
    session = village.create()["sessionId"]
    assert data(village("GET", f"/sessions/{session}/diff")) == {"filesChanged": 0, "linesAdded": 0, "linesRemoved": 0, "files": []}
    assert data(village("GET", f"/sessions/{session}/artifacts")) == {"artifacts": []}
    response = village("GET", f"/sessions/{session}/terminal")
    assert response.status_code == 200 and response.content == b"" and response.headers["x-terminal-end"] == "0"
    assert issues(village("GET", f"/sessions/{session}/terminal", params={"from": -1, "limit": 2 << 20})) == {
        "from": "too_small", "limit": "too_big"}


def test_pages_of_events(village):
    session = village.create(task=None)["sessionId"]
    for i in range(5):
        data(village("POST", f"/sessions/{session}/prompts", json={"prompt": str(i)}), 201)
    village.stop(session)
    everything = village.events(session)
    assert [e["seq"] for e in everything["events"]] == list(range(1, everything["lastSeq"] + 1))
    assert everything["nextSeq"] == everything["lastSeq"] and not everything["hasMore"] and everything["firstSeq"] == 1
    seen, after = [], 0
    while True:
        page = village.events(session, afterSeq=after, limit=2)
        seen += page["events"]
        after = page["nextSeq"]
        if not page["hasMore"]:
            break
    assert seen == everything["events"]
    only = village.events(session, types="TURN_QUEUED,SESSION_ENDED")["events"]
    assert [e["type"] for e in only] == ["TURN_QUEUED"] * 5 + ["SESSION_ENDED"]
    assert village.events(session, afterSeq=10_000)["events"] == []
    assert issues(village("GET", f"/sessions/{session}/events", params={"limit": 1001, "afterSeq": -1, "types": "NOTHING"})) == {
        "limit": "too_big", "afterSeq": "too_small", "types": "invalid_enum"}


def stream(village, session, headers=None, **query):
    """The events of the stream until it ends: (id, event, data text)."""
    found, current = [], {}
    with village.client.stream("GET", f"/api/v1/sessions/{session}/events/stream", headers=headers or {}, params=query) as response:
        assert response.status_code == 200 and response.headers["content-type"] == "text/event-stream"
        for line in response.iter_lines():
            if line == "" and current:
                found.append((int(current["id"]) if "id" in current else None, current.get("event"), current.get("data")))
                current = {}
            elif line and not line.startswith(":"):
                name, _, value = line.partition(": ")
                current[name] = value
    return found


def test_the_stream_is_the_log_and_ends_with_it(village):
    session = village.create()["sessionId"]
    threading.Timer(0.5, lambda: village.stop(session)).start()
    found = stream(village, session)
    assert [(i, t) for i, t, _ in found] == [(1, "SESSION_CREATED"), (2, "SESSION_STATE_CHANGED"), (3, "SESSION_ENDED")]
    import json
    assert [json.loads(d) for _, _, d in found] == village.events(session)["events"]
    assert [i for i, _, _ in stream(village, session, {"Last-Event-ID": "1"})] == [2, 3]
    assert [i for i, _, _ in stream(village, session, afterSeq=2)] == [3]
    assert stream(village, session, afterSeq=3) == []
    assert [t for _, t, _ in stream(village, session, types="SESSION_ENDED")] == ["SESSION_ENDED"]
    over = stream(village, session, {"Last-Event-ID": "77"})
    assert over[0][1] == "reset" and [i for i, _, _ in over[1:]] == [1, 2, 3]
    assert issues(village("GET", f"/sessions/{session}/events/stream", headers={"Last-Event-ID": "x"})) == {
        "Last-Event-ID": "invalid_format"}


def test_both_faces_watch_one_session_each_in_its_words(village, tenant):
    session = village.create()["sessionId"]
    run = session.replace("ses_", "run_")
    found = {}

    def watch_oz():
        with tenant.stream("GET", f"/api/v1/agent/runs/{run}/events") as response:
            found["oz"] = response.read().decode()

    def watch_village():
        found["village"] = stream(village, session)

    threads = [threading.Thread(target=t) for t in (watch_oz, watch_village)]
    for t in threads:
        t.start()
    time.sleep(0.5)
    village.stop(session)
    for t in threads:
        t.join(20)
    assert '"state":"CANCELLED"' in found["oz"] and "event: end" in found["oz"] and "SESSION_" not in found["oz"]
    assert [t for _, t, _ in found["village"]][-1] == "SESSION_ENDED"


def test_a_run_is_a_session_too(village, tenant):
    run = tenant.create("for a worker", config={"environment_id": "debian:12", "harness": "claude-code"})["run_id"]
    session = run.replace("run_", "ses_")
    shown = village.get(session)
    assert shown["state"] == "QUEUED" and shown["taskSummary"] == "for a worker" and shown["repoUrl"] == ""
    assert shown["providerId"] == "claude_code"
    assert village.list()["items"] == [] and ids(village.list(view="native")) == [session]
    assert village.events(session)["events"][0]["type"] == "SESSION_CREATED"
    assert data(village.stop(session))["state"] == "COMPLETED"
    assert tenant.run(run)["state"] == "CANCELLED"


def test_a_session_is_a_run_too(village, tenant):
    session = village.create()["sessionId"]
    run = session.replace("ses_", "run_")
    assert tenant.run(run)["state"] == "PENDING" and tenant.list()["runs"] == []
    harness.assert_error(tenant.api("POST", f"/agent/runs/{run}/rerun"), 400, "invalid_field", "runID")
    harness.ok(tenant.cancel(run))
    assert village.get(session)["state"] == "COMPLETED"
    refused(village.stop(session), 409, "SESSION_ALREADY_STOPPED")


def test_the_administrator_sees_every_org(village, stranger, boss):
    mine, theirs = village.create()["sessionId"], stranger.create()["sessionId"]
    assert {mine, theirs} <= set(ids(boss.list(pageSize=100)))
    assert ids(boss.list(orgId=village.org)) == [mine]
    assert boss.get(theirs)["orgId"] == stranger.org
    assert data(boss.stop(theirs))["state"] == "COMPLETED"


