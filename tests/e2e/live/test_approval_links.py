"""Links that decide an approval once, without an account (specification README 7.1): made by who may decide, used by
whoever has one."""
import html
import re
import threading
import time

import harness
import httpx
import pytest
from live_peers import LiveWorker
from village import Village, data, refused


@pytest.fixture(scope="module")
def shared(postgres):
    with harness.serving({"OZ_MAX_SESSIONS_PER_ORG": "500", "OZ_APPROVAL_LINK_REQUESTS_PER_MINUTE": "0"}, postgres=postgres,
                         name="links") as server:
        yield server


@pytest.fixture
def asked(village, worker):
    """A session whose agent waits: (session, runner, approval)."""
    session = village.create()["sessionId"]
    runner = worker.start(session)
    approval = runner.ask("rm -rf build")
    harness.eventually(lambda: village.get(session)["state"] == "WAITING_FOR_APPROVAL", what="the approval")
    yield session, runner, approval
    worker.well()


@pytest.fixture
def anyone(oz):
    """Somebody with a browser and no account."""
    with httpx.Client(base_url=oz.url, timeout=30, follow_redirects=False) as client:
        yield client


def make(village, session, approval, **body):
    """The path of a new link."""
    made = data(village("POST", f"/sessions/{session}/approvals/{approval}/links", json=body), 201)
    assert made["approvalId"] == approval and made["url"].startswith("http")
    path = "/approve/" + made["url"].rsplit("/approve/", 1)[1]
    assert re.fullmatch(r"/approve/apl_[0-9a-f-]{36}\.[0-9a-f]{64}", path)
    return path


def api(path):
    return path.replace("/approve/", "/api/v1/approval-links/")


def approval_of(village, session, approval):
    items = data(village("GET", f"/sessions/{session}/approvals"))["items"]
    return next(a for a in items if a["approvalId"] == approval)


def page(response, status=200):
    """The text of a page that keeps what every page promises."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-") and "form-action 'self'" in policy
    assert "frame-ancestors 'none'" in policy and "unsafe" not in policy and "script" not in policy
    assert response.headers["referrer-policy"] == "no-referrer" and response.headers["cache-control"] == "no-store"
    assert response.headers["x-content-type-options"] == "nosniff" and response.headers["x-frame-options"] == "DENY"
    assert "<script" not in response.text and " src=" not in response.text and "http" not in response.text.split("</style>")[1]
    assert "apl_" not in response.text
    return response.text


def post(anyone, path, decision="allow", **more):
    return anyone.post(path, data={"decision": decision, **more}, headers={"Origin": "null"})


def test_a_link_is_looked_at_and_then_decides_once(village, asked, anyone, shared):
    session, runner, approval = asked
    path = make(village, session, approval, label="Ann's phone")
    shared.secrets.append(path.removeprefix("/approve/"))
    before = village.get(session)
    for _ in range(3):
        text = page(anyone.get(path))
        assert anyone.head(path).status_code == 200
    for seen in ("rm -rf build", "high", session, "Ann&#39;s phone", "codex", "command", 'value="allow"', 'value="deny"'):
        assert seen in text, seen
    after = village.get(session)
    assert after["lastEventSeq"] == before["lastEventSeq"] and after["state"] == "WAITING_FOR_APPROVAL"
    assert approval_of(village, session, approval)["status"] == "pending"

    assert "allowed" in page(post(anyone, path, reason="looks\r\nright"))
    decided = approval_of(village, session, approval)
    assert (decided["status"], decided["resolvedBy"], decided["reason"]) == ("allowed", "link:Ann's phone", "looks\nright")
    told = runner.told("answer")
    assert told["decision"] == "allow" and told["questionId"] == approval.removeprefix("apr_")
    seq = village.get(session)["lastEventSeq"]
    for response in (post(anyone, path), post(anyone, path, "deny"), anyone.get(path)):
        assert "used already" in page(response, 410)
    harness.assert_error(anyone.get(api(path)), 410, "link_used")
    assert village.get(session)["lastEventSeq"] == seq
    assert approval_of(village, session, approval)["status"] == "allowed"
    lines = [e for e in shared.log if str(e.get("path", "")).startswith(("/approve", "/api/v1/approval-links"))]
    assert {e["path"] for e in lines} <= {"/approve/{token}", "/api/v1/approval-links/{token}"} and lines


def test_a_denial_with_its_reason_over_the_api(village, asked, anyone):
    session, runner, approval = asked
    path = api(make(village, session, approval))
    seen = harness.ok(anyone.get(path))
    assert seen["status"] == "pending" and seen["decisions"] == ["allow", "deny"] and seen["context"] == {"command": "rm"}
    assert seen["session_id"] == session and seen["action"] == "shell" and "orgId" not in seen
    harness.assert_error(anyone.post(path, json={"decision": "perhaps"}), 400, "invalid_field", "decision")
    harness.assert_error(anyone.post(path, json={}), 400, "missing_field", "decision")
    assert harness.ok(anyone.post(path, json={"decision": "deny", "reason": "not today"}))["status"] == "denied"
    assert runner.told("answer")["reason"] == "not today"
    harness.assert_error(anyone.post(path, json={"decision": "deny"}), 410, "link_used")


def test_of_two_links_and_many_uses_at_once_one_decides(village, asked, anyone, oz):
    session, _, approval = asked
    links = [make(village, session, approval, label=f"n{i}") for i in range(2)]
    found, start = [], threading.Barrier(8)

    def use(i):
        with httpx.Client(base_url=oz.url, timeout=30) as client:
            start.wait()
            found.append((i % 2, post(client, links[i % 2], "allow" if i % 2 else "deny").status_code))
    threads = [threading.Thread(target=use, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    won = [i for i, status in found if status == 200]
    assert len(won) == 1, found
    for i, status in found:
        assert status in ((200, 410) if i == won[0] else (409,)), found
    decided = approval_of(village, session, approval)
    assert decided["status"] == ("allowed" if won[0] else "denied") and decided["resolvedBy"] == f"link:n{won[0]}"
    resolved = [e for e in village.events(session)["events"] if e["type"] == "APPROVAL_RESOLVED"]
    assert len(resolved) == 1
    assert "decided already" in page(anyone.get(links[1 - won[0]]), 409)


def test_resolved_elsewhere_and_ended(village, asked, anyone, worker):
    session, runner, approval = asked
    path = make(village, session, approval)
    village("POST", f"/sessions/{session}/approvals/{approval}", json={"decision": "deny"})
    assert "denied elsewhere" in page(anyone.get(path), 409)
    page(post(anyone, path), 409)
    harness.assert_error(anyone.post(api(path), json={"decision": "allow"}), 409, "already_resolved")
    refused(village("POST", f"/sessions/{session}/approvals/{approval}/links", json={}), 409, "APPROVAL_ALREADY_RESOLVED")
    another = runner.ask("again?")
    harness.eventually(lambda: village.get(session)["state"] == "WAITING_FOR_APPROVAL", what="the second approval")
    path = make(village, session, another)
    village.stop(session)
    harness.eventually(lambda: approval_of(village, session, another)["status"] == "cancelled", what="its end")
    assert "Nobody waits" in page(anyone.get(path), 410)
    page(post(anyone, path), 410)


def test_forged_foreign_and_malformed_links(village, stranger, asked, anyone):
    session, _, approval = asked
    path = make(village, session, approval)
    token = path.removeprefix("/approve/")
    other = make(village, session, approval).removeprefix("/approve/")
    last = "0" if token[-1] != "0" else "1"
    forged = [token[:-1] + last, token[:40] + "." + other[41:], token[:-1], token + "0", "apl_", "x", token.upper(),
              "apl_00000000-0000-4000-8000-000000000000." + token[41:], "%F0%9F%98%80", token.replace("apl_", "sk__")]
    for one in forged:
        assert "no such link" in page(anyone.get("/approve/" + one), 404)
        page(post(anyone, "/approve/" + one), 404)
        harness.assert_error(anyone.get("/api/v1/approval-links/" + one), 404, "not_found")
    assert approval_of(village, session, approval)["status"] == "pending"
    where = f"/sessions/{session}/approvals/{approval}/links"
    refused(stranger("POST", where, json={}), 404, "SESSION_NOT_FOUND")
    refused(village("POST", f"/sessions/{session}/approvals/{session.replace('ses_', 'apr_')}/links", json={}), 404, "APPROVAL_NOT_FOUND")
    for body in ({"decisions": []}, {"decisions": ["perhaps"]}, {"label": ""}, {"label": "x" * 65}, {"label": "a\nb"},
                 {"expiresInSeconds": 0}, {"expiresInSeconds": 86401}, {"unknown": 1}):
        refused(village("POST", where, json=body), 400, "VALIDATION_ERROR")
    for body in (b"", b"decision=perhaps", b"decision=allow&decision=deny", b"decision=allow&x=1", b"reason=%ff&decision=allow",
                 b"decision=allow&reason=" + b"x" * 2001, b"decision=%zz", b"decision=allow&reason=%00"):
        page(anyone.post(path, content=body, headers={"Content-Type": "application/x-www-form-urlencoded"}), 400)
    page(anyone.post(path, json={"decision": "allow"}), 400)
    assert anyone.post(path, data={"decision": "allow"}, headers={"Origin": "https://evil.example"}).status_code == 403
    assert anyone.put(path).status_code == 405
    assert approval_of(village, session, approval)["status"] == "pending"
    only = make(village, session, approval, decisions=["deny"])
    assert 'value="allow"' not in page(anyone.get(only))
    assert "not for that" in page(post(anyone, only), 403)
    assert "denied" in page(post(anyone, only, "deny"))


def test_a_link_is_as_old_as_it_may_be(village, asked, anyone):
    session, _, approval = asked
    ends = approval_of(village, session, approval)["expiresAt"]
    made = data(village("POST", f"/sessions/{session}/approvals/{approval}/links", json={}), 201)
    assert made["expiresAt"] <= ends
    path = make(village, session, approval, expiresInSeconds=3)
    page(anyone.get(path))
    harness.eventually(lambda: anyone.get(path).status_code == 410, what="its end")
    assert "too old" in page(anyone.get(path), 410)
    page(post(anyone, path), 410)
    harness.assert_error(anyone.post(api(path), json={"decision": "allow"}), 410, "link_expired")
    assert approval_of(village, session, approval)["status"] == "pending"
    for _ in range(18):
        make(village, session, approval)
    refused(village("POST", f"/sessions/{session}/approvals/{approval}/links", json={}), 409, "INVALID_STATE")


def test_what_is_asked_is_shown_byte_for_byte(village, running_gate, anyone):
    text = "a<b>&\"'\n  two  blanks\t\u202etxt.exe\u200b\u00a0<script>alert(1)</script> é 漢 \x1b[31m\u0007"
    session, approval = running_gate(text, {"command": text, "<i>": {"x": ["\u202e", 1]}})
    shown = page(anyone.get(make(village, session, approval)))
    assert "<script" not in shown and "\u202e" not in shown and "\x1b" not in shown
    blocks = [html.unescape(re.sub(r"</?b>", "", b)) for b in re.findall(r"<pre>\n(.*?)</pre>", shown, re.S)]
    visible = "".join(f"\\u{{{ord(c):X}}}" if c in "\u202e\u200b\u00a0\x1b\x07" else c for c in text)
    assert blocks[0] == visible and blocks[1] == visible
    assert blocks[2] == '{"x":["\\u{202E}",1]}' and "<h2>&lt;i&gt;</h2>" in shown


@pytest.fixture
def running_gate(village, worker):
    """Asks over the API, which takes any text."""
    def ask(description, context):
        session = village.create()["sessionId"]
        worker.start(session)
        made = data(village("POST", f"/sessions/{session}/approvals",
                            json={"action": "deploy", "description": description, "context": context}), 201)
        return session, made["approvalId"]
    yield ask
    worker.well()


def test_a_viewer_may_not_make_one_and_a_denial_may_stop(village, worker, anyone, boss_key):
    session = village.create(options={"policy": {"onDeny": "stop"}})["sessionId"]
    runner = worker.start(session)
    approval = runner.ask()
    harness.eventually(lambda: village.get(session)["state"] == "WAITING_FOR_APPROVAL", what="the approval")
    path = make(village, session, approval)
    assert "denied" in page(post(anyone, path, "deny"))
    worker.expect(worker.cancel_type, task_id=runner.task["task_id"])
    worker.confirm_cancel(runner.task)
    harness.eventually(lambda: village.get(session)["state"] == "COMPLETED", what="the end")
    assert village.get(session)["endReason"] == "denied"
    worker.well()
    refused(Village(boss_key)("POST", f"/sessions/{session}/approvals/{approval}/links", json={}), 403, "FORBIDDEN")


@pytest.fixture
def boss_key(admin, oz):
    made = harness.ok(admin.api("POST", "/keys", json={"name": f"v{time.time_ns()}", "tenant": "links", "role": "viewer"}))
    with oz.client(made["key"]) as client:
        yield client


def test_a_link_outlives_the_server_and_is_limited_by_address(make_server):
    server = make_server({"PUBLIC_URL": "https://muster.example/base", "OZ_APPROVAL_LINK_REQUESTS_PER_MINUTE": "12"})
    village = Village(server.client("a tenant of this test"))
    with LiveWorker(server) as worker:
        session = village.create()["sessionId"]
        approval = worker.start(session).ask()
        harness.eventually(lambda: village.get(session)["state"] == "WAITING_FOR_APPROVAL", what="the approval")
        made = data(village("POST", f"/sessions/{session}/approvals/{approval}/links", json={}), 201)
        assert made["url"].startswith("https://muster.example/base/approve/apl_")
        path = "/approve/" + made["url"].rsplit("/", 1)[1]
        with httpx.Client(base_url=server.url) as client:
            assert "Run this command?" in page(client.get(path))
        server.kill9()
        server.start()
    village = Village(server.client("a tenant of this test"))
    with httpx.Client(base_url=server.url) as client:
        assert "allowed" in page(post(client, path))
        server.kill9()
        server.start()
    with httpx.Client(base_url=server.url) as client:
        page(post(client, path), 410)
        answered = 1
        while (limited := client.get(path)).status_code == 410:  # every five seconds one more would be
            answered += 1
            assert answered < 20
        page(limited, 429)
        assert answered >= 12
        assert 1 <= int(limited.headers["retry-after"]) <= 60
        harness.assert_error(client.get(api(path)), 429, "too_many_requests")
    assert approval_of(Village(server.client("a tenant of this test")), session, approval)["status"] == "allowed"
