"""Every answer of the sessions face has its envelope, whoever refuses (village-control-plane.md 3, 15.1)."""
import harness
import pytest
from village import Village, assert_envelope, data, issues, no_session, refused

SESSION_ROUTES = [("GET", ""), ("POST", "/stop"), ("POST", "/pause"), ("POST", "/resume"), ("POST", "/end"),
                  ("POST", "/interrupt"), ("GET", "/events"), ("GET", "/events/stream"), ("GET", "/terminal"),
                  ("GET", "/diff"), ("GET", "/artifacts"), ("GET", "/approvals"), ("GET", "/prompts"),
                  ("DELETE", "/terminals/1"), ("POST", "/terminals")]
WITH_BODY = [("POST", "/input", {"data": "x"}), ("POST", "/resize", {"cols": 80, "rows": 24}),
             ("POST", "/approvals", {"action": "merge", "description": "d"}),
             ("POST", "/approvals/apr_1", {"decision": "allow"}), ("POST", "/prompts", {"prompt": "p"})]


@pytest.mark.parametrize("path", ["/sessions", "/sessions/x", "/approvals", "/runners", "/runner-enrolments", "/builds/x",
                                  "/rollouts", "/orgs/x/none", "/sweeps", "/updates/status", "/ws/x", "/ws-tickets",
                                  "/providers/codex/versions"])
def test_without_a_bearer_every_path_of_the_face_is_unauthorized(oz, path):
    with oz.client(None) as nobody:
        response = nobody.api("GET", path)
        refused(response, 401, "UNAUTHORIZED")
        assert response.headers["www-authenticate"] == "Bearer"
    with oz.client("sk_" + "0" * 64) as revoked:
        refused(revoked.api("GET", path), 401, "UNAUTHORIZED")


def test_unknown_paths_and_methods_below_the_face(village):
    refused(village("GET", "/orgs/x/none"), 404, "NOT_FOUND")
    refused(village("GET", "/providers/codex/none"), 404, "NOT_FOUND")
    response = village("PUT", "/sessions")
    refused(response, 405, "METHOD_NOT_ALLOWED")
    assert {"GET", "POST"} <= {m.strip() for m in response.headers["allow"].split(",")}
    assert "request_id" in village("GET", "/providers").json()  # the bare list is the Oz API's


@pytest.mark.parametrize("method, path", SESSION_ROUTES)
def test_a_session_that_never_existed_and_one_of_another_tenant_answer_alike(village, stranger, method, path):
    theirs = stranger.create()["sessionId"]
    answers = []
    for session in (no_session(), theirs, "ses_x", "x"):
        error = refused(village(method, f"/sessions/{session}{path}"), 404, "SESSION_NOT_FOUND")
        answers.append(error)
    assert all(a == answers[0] for a in answers)


@pytest.mark.parametrize("method, path, body", WITH_BODY)
def test_the_same_of_what_needs_a_body(village, stranger, method, path, body):
    theirs = stranger.create()["sessionId"]
    mine = refused(village(method, f"/sessions/{no_session()}{path}", json=body), 404, "SESSION_NOT_FOUND")
    assert refused(village(method, f"/sessions/{theirs}{path}", json=body), 404, "SESSION_NOT_FOUND") == mine


def test_the_request_id_is_the_callers(village):
    response = village("GET", "/sessions", headers={"X-Request-Id": "my-own:id=1"})
    assert assert_envelope(response)["meta"]["requestId"] == "my-own:id=1"
    response = village("GET", "/sessions", headers={"X-Request-Id": "not a clean one"})
    assert assert_envelope(response)["meta"]["requestId"].startswith("req_")


def test_a_body_beyond_a_mebibyte_is_refused_before_it_is_read(village):
    refused(village("POST", "/sessions", content=b"x" * ((1 << 20) + 1)), 413, "PAYLOAD_TOO_LARGE")


def test_what_is_no_json_is_told_as_an_issue(village):
    for raw in (b'{"orgId":', b"[]", b'"x"', b'{"orgId":"\xff"}', b'{"a":1,"a":2}', b"[" * 100 + b"]" * 100):
        found = issues(village("POST", "/sessions", content=raw))
        assert "" in found, (raw, found)


def test_all_problems_of_a_request_at_once(village):
    found = issues(village("POST", "/sessions", json={
        "orgId": 5, "providerId": None, "repo": {"url": "https://u:p@example.com/x", "commit": "zzzzzzz", "more": 1},
        "task": "", "options": {"timeoutMinutes": 121, "cols": 10, "rows": 500, "mode": "fast", "env": {"PATH": "", "1A": ""},
                                "policy": {"onDeny": "explode", "unknown": 1}, "features": ["UPPER"]},
        "metadata": {"k": 1}, "other": True}))
    assert found == {
        "orgId": "invalid_type", "providerId": "required", "repo.url": "invalid_url", "repo.commit": "invalid_format",
        "repo.more": "unrecognized_key", "task": "too_small", "options.timeoutMinutes": "too_big", "options.cols": "too_small",
        "options.rows": "too_big", "options.mode": "invalid_enum", "options.env.PATH": "reserved",
        "options.env.1A": "invalid_format", "options.policy.onDeny": "invalid_enum",
        "options.policy.unknown": "unrecognized_key", "options.features[0]": "invalid_format", "metadata.k": "invalid_type",
        "other": "unrecognized_key"}


def test_a_viewer_reads_only_in_every_face(oz, boss):
    key = data_of_key(boss, "viewer")
    with oz.client(key) as client:
        viewer = Village(client)
        assert data(viewer("GET", "/orgs/me"))["role"] == "viewer"
        assert viewer.list()["items"] == []
        refused(viewer.post(), 403, "FORBIDDEN")
        refused(viewer.stop(no_session()), 403, "FORBIDDEN")
        harness.assert_error(client.api("POST", "/agent/run", json={"prompt": "x"}), 403, "forbidden")
    with oz.client(data_of_key(boss, "operator")) as client:
        assert data(Village(client)("GET", "/orgs/me"))["role"] == "operator"
    with oz.client(data_of_key(boss, "admin")) as client:
        assert data(Village(client)("GET", "/orgs/me"))["role"] == "admin"


def data_of_key(boss, role):
    import secrets
    name = f"{role}-{secrets.token_hex(6)}"
    created = harness.ok(boss("POST", "/keys", json={"name": name, "role": role}))
    assert created["role"] == role
    listed = harness.ok(boss("GET", "/keys"))["keys"]
    assert next(k for k in listed if k["id"] == created["id"])["role"] == role
    return created["key"]


def test_limits_of_a_tenant_are_told_in_the_envelope(make_server):
    server = make_server({"OZ_TENANT_REQUESTS_PER_MINUTE": "2"})
    with server.client("busy") as client:
        codes = [client.api("GET", "/sessions") for _ in range(4)]
        refused(codes[-1], 429, "RATE_LIMITED")
