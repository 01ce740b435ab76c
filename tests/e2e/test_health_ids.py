"""Health, the probes, metrics, request ids, unknown paths and methods (oz-api.md 1, 1.1, 1.2, 4.1)."""
import re
import uuid

import pytest
from harness import ADMIN_KEY, API, assert_error, ok

MINTED = re.compile(r"req_[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@pytest.fixture
def anyone(oz):
    with oz.client(None) as client:
        yield client


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
def test_health_answers_any_method_without_auth(anyone, method):
    body = ok(anyone.request(method, "/health"))
    assert body["ok"] is True and body["db"] == "ok" and body["request_id"]


def test_health_head_has_no_body(anyone):
    r = anyone.head("/health")
    assert r.status_code == 200 and r.content == b"" and int(r.headers["content-length"]) > 0


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_probes_need_no_key(anyone, path):
    assert anyone.get(path).status_code == 200


def test_metrics_need_the_admin_key(oz, anyone, tenant):
    assert_error(anyone.get("/metrics"), 401, "unauthorized")
    assert_error(tenant.get("/metrics"), (401, 403))
    with oz.client(ADMIN_KEY) as admin:
        r = admin.get("/metrics")
    assert r.status_code == 200 and r.headers["content-type"].startswith("text/plain")
    names = {line.split()[2] for line in r.text.splitlines() if line.startswith("# TYPE ")}
    assert names, "no metric"
    for line in r.text.splitlines():
        assert line.startswith("#") or re.fullmatch(r"[a-zA-Z_:][\w:]*(\{.*\})? \S+( \d+)?", line), line
    orphans = [line for line in r.text.splitlines() if line.startswith("muster_orphans")]
    assert orphans and all(float(line.split()[-1]) == 0 for line in orphans), orphans


def test_openapi_is_served_without_key(anyone):
    body = ok(anyone.get("/openapi.json"))
    assert body["openapi"].startswith("3.1")
    for path in ("/api/v1/agent/run", "/api/v1/agent/runs", "/api/v1/environments", "/api/v1/agent/schedules"):
        assert path in body["paths"], path


def test_answers_are_json_and_not_stored(tenant):
    r = tenant.api("GET", "/agent/runs")
    assert r.headers["content-type"].startswith("application/json")
    assert r.headers["cache-control"] == "no-store"
    assert int(r.headers["content-length"]) == len(r.content)


def test_request_id_is_minted(tenant):
    first, second = (tenant.api("GET", "/agent/runs") for _ in range(2))
    assert MINTED.fullmatch(first.headers["x-request-id"])
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    assert first.json()["request_id"] == first.headers["x-request-id"]


@pytest.mark.parametrize("header", ["X-Request-Id", "X-Oz-Request-Id", "x-request-id"])
def test_request_id_of_the_caller_is_kept(tenant, header):
    mine = f"Me.{uuid.uuid4()}:1=_-"
    r = tenant.api("GET", "/agent/runs", headers={header: mine})
    assert r.headers["x-request-id"] == mine and r.json()["request_id"] == mine


def test_x_request_id_wins(tenant):
    r = tenant.api("GET", "/agent/runs", headers={"X-Request-Id": "first", "X-Oz-Request-Id": "second"})
    assert r.headers["x-request-id"] == "first"


@pytest.mark.parametrize("bad", ["has blank", "x" * 129, "a/b", "a\"b", "ä".encode(), "", "a,b", "<script>"])
def test_bad_request_id_is_replaced(tenant, bad):
    r = tenant.api("GET", "/agent/runs", headers={"X-Request-Id": bad})
    assert MINTED.fullmatch(r.headers["x-request-id"])


@pytest.mark.parametrize("length", [1, 128])
def test_request_id_length_limits(tenant, length):
    r = tenant.api("GET", "/agent/runs", headers={"X-Request-Id": "r" * length})
    assert r.headers["x-request-id"] == "r" * length


def test_every_status_carries_a_request_id(anyone, tenant):
    answers = [anyone.get("/health"), anyone.get(f"{API}/agent/runs"), anyone.get("/nothing"),
               tenant.api("GET", "/nothing"), tenant.api("POST", "/agent/run", content=b"{"),
               tenant.api("POST", "/agent/run", content=b"x" * 1_100_000), tenant.api("PATCH", "/agent/runs")]
    assert [r.status_code for r in answers] == [200, 401, 404, 404, 400, 413, 405]
    for r in answers:
        assert MINTED.fullmatch(r.headers["x-request-id"]), r.status_code


def test_unknown_path_outside_the_api_is_404_without_auth(anyone):
    r = anyone.get("/nothing/here")
    assert r.status_code == 404 and r.json()["error"]


def test_unknown_path_inside_the_api_asks_for_auth_first(anyone, tenant):
    assert_error(anyone.get(f"{API}/nothing"), 401, "unauthorized")
    assert_error(tenant.get(f"{API}/nothing"), 404, "not_found")
    assert_error(anyone.get(f"{API}/agent/runs/x/y/z"), 401, "unauthorized")


def test_oz_paths_without_prefix_say_where_the_api_is(anyone):
    r = anyone.get("/agent/runs")
    assert r.status_code == 404 and "/api/v1" in r.text


@pytest.mark.parametrize("method,path,allowed", [
    ("DELETE", "/agent/run", "POST"), ("PATCH", "/agent/runs", "GET"), ("PUT", "/agent/schedules", "POST"),
    ("GET", "/agent/run", "POST"), ("PATCH", "/environments", "GET"), ("GET", "/agent/runs/run_x/cancel", "POST")])
def test_wrong_method_is_405_with_allow(tenant, method, path, allowed):
    r = tenant.api(method, path)
    assert_error(r, 405, "method_not_allowed")
    assert allowed in [m.strip() for m in r.headers["allow"].split(",")]


@pytest.mark.parametrize("path", ["/agent/runs", "/environments", "/agent/schedules", "/agent", "/providers"])
def test_one_trailing_slash_is_tolerated(tenant, path):
    assert tenant.api("GET", path + "/").status_code == 200
    assert tenant.api("GET", path + "//").status_code in (400, 404)


def test_trailing_slash_on_writes(tenant):
    ok(tenant.api("POST", "/agent/runs/", json={"prompt": "hi"}))
    ok(tenant.api("POST", "/environments/", json={"name": "n", "docker_image": "i"}))


@pytest.mark.parametrize("path", ["/agent/runs", "/environments", "/agent/schedules", "/providers"])
def test_head_is_get_without_body(tenant, path):
    got, head = tenant.api("GET", path), tenant.api("HEAD", path)
    assert head.status_code == got.status_code == 200 and head.content == b""
    assert head.headers["content-type"] == got.headers["content-type"]
    # request ids may differ in length only when the server minted other forms
    assert abs(int(head.headers["content-length"]) - len(got.content)) <= 64


def test_path_parameters_are_percent_decoded(tenant):
    run = tenant.create()["run_id"]
    encoded = "".join(f"%{ord(c):02X}" for c in run)
    assert tenant.run(encoded)["run_id"] == run


def test_any_content_type_is_json(tenant):
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/octet-stream"):
        ok(tenant.api("POST", "/agent/run", content=b'{"prompt":"hi"}', headers={"Content-Type": kind}))


def test_options_is_an_ordinary_method_when_cors_is_off(anyone, tenant):
    r = tenant.api("OPTIONS", "/agent/runs", headers={"Origin": "http://a.example"})
    assert r.status_code == 405
    assert tenant.api("OPTIONS", "/agent/runs").status_code == 405
    assert not [h for h in r.headers if h.startswith("access-control")]
    assert "access-control-allow-origin" not in tenant.api("GET", "/agent/runs",
                                                           headers={"Origin": "http://a.example"}).headers


def test_cors_list(make_server):
    server = make_server({"OZ_CORS_ORIGIN": "https://app.example, https://second.example"})
    client = server.client()
    ask = {"Origin": "https://second.example", "Access-Control-Request-Method": "POST"}
    r = client.api("OPTIONS", "/agent/run", headers={**ask, "Authorization": ""})
    assert r.status_code == 204 and r.content == b"" and r.headers["x-request-id"]
    assert r.headers["access-control-allow-origin"] == "https://second.example"
    assert "origin" in r.headers["vary"].lower()
    assert r.headers["access-control-max-age"] == "600"
    methods = {m.strip() for m in r.headers["access-control-allow-methods"].split(",")}
    assert {"GET", "POST", "OPTIONS", "PUT", "DELETE"} <= methods
    headers = {h.strip().lower() for h in r.headers["access-control-allow-headers"].split(",")}
    assert {"authorization", "content-type", "x-request-id", "x-oz-request-id", "idempotency-key", "user-agent",
            "x-stainless-retry-count", "x-stainless-lang"} <= headers
    foreign = client.api("OPTIONS", "/agent/run", headers={"Origin": "https://evil.example"})
    assert foreign.status_code == 204 and "access-control-allow-origin" not in foreign.headers
    for r in (client.get("/health", headers={"Origin": "https://app.example"}),
              client.api("GET", "/agent/runs", headers={"Origin": "https://app.example", "Authorization": ""})):
        assert r.headers["access-control-allow-origin"] == "https://app.example"
        exposed = r.headers["access-control-expose-headers"].lower()
        assert "x-request-id" in exposed and "retry-after" in exposed


def test_cors_star_never_goes_with_credentials(make_server):
    server = make_server({"OZ_CORS_ORIGIN": "*"})
    r = server.client().api("GET", "/agent/runs", headers={"Origin": "https://any.example"})
    assert r.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in r.headers
    assert any(line["level"] == "warn" for line in server.log), "the wildcard is not warned about"


def test_foreign_host_header_is_refused(oz):
    """DNS rebinding (architecture.md G10): a page of another name must not reach the loopback server."""
    with oz.client() as client:
        r = client.api("GET", "/agent/runs", headers={"Host": "evil.example"})
    assert r.status_code in (400, 403, 421), r.text


def test_traceparent_reaches_the_log(oz, tenant):
    trace = uuid.uuid4().hex
    r = tenant.api("GET", "/agent/runs", headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"})
    assert r.status_code == 200
    line = oz.wait_log("http.response", req_id=r.headers["x-request-id"])
    assert trace in str(line), line


def test_health_is_not_in_the_access_log(oz, anyone):
    mine = f"probe-{uuid.uuid4()}"
    anyone.get("/health", headers={"X-Request-Id": mine})
    after = anyone.get(f"{API}/agent/runs", headers={"X-Request-Id": mine + "-after"})
    assert after.status_code == 401
    oz.wait_log("http.response", req_id=mine + "-after")
    assert not [line for line in oz.log if line.get("req_id") == mine]
