"""Who is calling: bearers, tenants, the admin (oz-api.md 2, README 4)."""
import hashlib
import secrets

import httpx
import pytest
from harness import API, assert_error, new_run_id, ok


def ask(oz, authorization):
    """Over a plain socket: httpx refuses to send some of these headers."""
    head = f"GET {API}/agent/runs HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
    if authorization is not None:
        head += f"Authorization: {authorization}\r\n"
    with oz.socket() as s:
        s.sendall(head.encode() + b"\r\n")
        data = b""
        while piece := s.recv(65536):
            data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = [tuple(line.split(": ", 1)) for line in lines[1:]]
    return httpx.Response(int(lines[0].split()[1]), headers=headers, content=body)


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Bearer    ", "Basic dXNlcjpwYXNz", "token",
                                    "Bearertoken", "Token abc"])
def test_no_usable_bearer_is_401(oz, header):
    assert_error(ask(oz, header), 401, "unauthorized")


@pytest.mark.parametrize("form", ["Bearer {}", "bearer {}", "BEARER {}", "Bearer    {}", "bEaReR {}  "])
def test_scheme_is_case_insensitive_and_blanks_are_trimmed(oz, form):
    token = "tok-" + secrets.token_hex(8)
    with oz.client(token) as client:
        run = client.create()["run_id"]
    body = ok(ask(oz, form.format(token)))
    assert [r["run_id"] for r in body["runs"]] == [run]


def test_any_token_is_a_tenant_of_its_hash(tenant):
    run = tenant.finish()
    assert run["creator"]["uid"] == hashlib.sha256(tenant.token.encode()).hexdigest()
    assert run["scope"]["type"] == "User"


@pytest.mark.parametrize("token", ["sk_" + "0" * 64, "sk_" + "a" * 64, "adm_" + "0" * 64])
def test_unknown_token_of_our_own_form_is_401_never_a_tenant(oz, token):
    assert_error(ask(oz, f"Bearer {token}"), 401, "unauthorized")


def test_a_very_long_token_is_a_tenant_or_refused_but_never_a_crash(oz):
    assert ask(oz, "Bearer " + "x" * 4000).status_code == 200
    assert ask(oz, "Bearer " + "x" * 40000).status_code in (400, 401, 431)


@pytest.fixture
def foreign(tenant):
    """What one tenant owns."""
    return {"run": tenant.create("mine")["run_id"], "env": tenant.environment()["id"],
            "schedule": tenant.schedule()["id"]}


def foreign_paths(ids):
    plan = {"cron_schedule": "0 9 * * *", "enabled": True, "name": "n", "prompt": "p"}
    env = {"name": "n", "docker_image": "i"}
    return [("GET", f"/agent/runs/{ids['run']}", None), ("POST", f"/agent/runs/{ids['run']}/cancel", None),
            ("GET", f"/agent/runs/{ids['run']}/events", None), ("GET", f"/agent/runs/{ids['run']}/files", None),
            ("GET", f"/agent/runs/{ids['run']}/files/output", None), ("GET", f"/environments/{ids['env']}", None),
            ("PUT", f"/environments/{ids['env']}", env), ("DELETE", f"/environments/{ids['env']}", None),
            ("GET", f"/agent/schedules/{ids['schedule']}", None),
            ("PUT", f"/agent/schedules/{ids['schedule']}", plan),
            ("POST", f"/agent/schedules/{ids['schedule']}/pause", None),
            ("POST", f"/agent/schedules/{ids['schedule']}/resume", None),
            ("DELETE", f"/agent/schedules/{ids['schedule']}", None), ("DELETE", f"/agent/runs/{ids['run']}", None)]


def test_foreign_ids_answer_exactly_like_ids_that_never_existed(foreign, tenant, other):
    unknown = {"run": new_run_id(), "env": new_run_id().replace("run_", "env_")}
    unknown["schedule"] = foreign["schedule"][:-12] + secrets.token_hex(6)
    for (method, path, body), (_, never, _) in zip(foreign_paths(foreign), foreign_paths(unknown)):
        answers = []
        for p in (path, never):
            r = other.api(method, p, json=body) if body else other.api(method, p)
            assert_error(r, 404, "not_found")
            answers.append({k: v for k, v in r.json().items() if k != "request_id"})
        assert answers[0] == answers[1], path
    assert tenant.run(foreign["run"])["state"] != "CANCELLED"
    assert ok(tenant.api("GET", f"/environments/{foreign['env']}"))["id"] == foreign["env"]
    assert ok(tenant.api("GET", f"/agent/schedules/{foreign['schedule']}"))["enabled"] is True


def test_lists_show_only_the_own(foreign, other):
    assert other.list()["runs"] == []
    assert ok(other.api("GET", "/agent/schedules"))["schedules"] == []
    assert foreign["env"] not in [e["id"] for e in ok(other.api("GET", "/environments"))["items"]]


def test_foreign_environment_cannot_be_used(foreign, other):
    assert_error(other.api("POST", "/agent/run", json={"prompt": "x", "config": {"environment_id": foreign["env"]}}),
                 404, "not_found")


def test_admin_sees_and_cancels_all(foreign, admin, tenant):
    assert admin.run(foreign["run"])["run_id"] == foreign["run"]
    assert ok(admin.api("GET", f"/environments/{foreign['env']}"))["id"] == foreign["env"]
    assert foreign["run"] in [r["run_id"] for r in admin.list(limit=200)["runs"]]
    slow = tenant.create("[[stall]]")["run_id"]
    assert admin.cancel(slow).status_code == 200
    assert tenant.wait(slow)["state"] == "CANCELLED"


def test_runs_of_the_admin_are_not_the_tenants(admin, tenant):
    run = admin.create("admin's own")["run_id"]
    assert tenant.api("GET", f"/agent/runs/{run}").status_code == 404


def test_listed_tenants_only(make_server, tmp_path):
    listed = hashlib.sha256(b"the-listed-token").hexdigest()
    path = tmp_path / "tokens"
    path.write_text(listed + "\n")
    server = make_server({"OZ_TENANT_TOKENS_FILE": str(path)})
    assert server.client("the-listed-token").list()["runs"] == []
    assert_error(server.client("another-token").api("GET", "/agent/runs"), 401, "unauthorized")
    assert server.client().list()["runs"] == []


def test_without_admin_key_nobody_is_admin(make_server):
    server = make_server({"OZ_ALLOW_NO_ADMIN_KEY": "1"}, admin_key=None)
    mine = server.client("a").create()["run_id"]
    assert server.client("b").api("GET", f"/agent/runs/{mine}").status_code == 404
    assert server.client("b").get("/metrics").status_code in (401, 403)


def test_worker_listing_is_for_the_admin(tenant):
    r = tenant.api("GET", "/workers")
    assert r.status_code in (403, 404)


def test_tenant_request_limit_is_429_with_retry_after(make_server):
    server = make_server({"OZ_TENANT_REQUESTS_PER_MINUTE": "30"})
    client, second = server.client("limited"), server.client("unlimited-yet")
    answers = [client.api("GET", "/agent/runs") for _ in range(80)]
    refused = [r for r in answers if r.status_code != 200]
    assert refused and answers[0].status_code == 200
    for r in refused:
        assert_error(r, 429, "too_many_requests")
        assert int(r.headers["retry-after"]) >= 1
    assert second.list()["runs"] == [], "one tenant's limit hit another"
    assert all(server.client().api("GET", "/agent/runs").status_code == 200 for _ in range(5))
