"""The published TypeScript SDK, unmodified, against the server (oz-api.md 14, 15). The cases are in tests/npm/cases.mjs."""
import json
import pathlib
import secrets
import subprocess

import pytest
from harness import API, ROOT, provider_env
from lossy_proxy import LossyProxy

SCRIPT = pathlib.Path(__file__).resolve().parents[1] / "npm/cases.mjs"


@pytest.fixture
def token():
    return "ts-" + secrets.token_hex(12)


@pytest.fixture
def case(request, oz, token):
    """Runs one case with the SDK and gives what it printed."""
    where = ROOT / request.config.getoption("--sdk")
    assert (where / "node_modules/oz-agent-sdk").is_dir(), f"the SDK is not installed in {where}: script/test installs it"

    def run(name, url=None, **env):
        done = subprocess.run(["node", SCRIPT, name], capture_output=True, text=True, timeout=100,
                              env={"PATH": "/usr/local/bin:/usr/bin:/bin", "SDK_DIR": str(where), "TOKEN": token,
                                   "BASE_URL": (url or oz.url) + API, **env})
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_create_and_retrieve(case):
    out = case("createAndRetrieve")
    made, run = out["made"], out["run"]
    assert made["run_id"] == made["task_id"] and made["state"] == "QUEUED"
    assert run["state"] == "SUCCEEDED" and run["status_message"]["message"] == "an answer" and run["title"] == "from ts"
    assert run["agent_config"]["name"] == "cfg" and run["source"] == "API" and run["started_at"]


def test_skills_list(case):
    assert [answer["agents"] for answer in case("skills")] == [[], []]


def test_list_paging(case):
    out = case("paging")
    assert out["seen"] == out["made"] and len(out["made"]) == 7


def test_every_filter(case):
    out = case("filters")
    assert out["wrong"] == [] and out["asked"] == 24


def test_cancel(case):
    out = case("cancel")
    assert out["answers"] == [out["id"]] * 2 and out["state"] == "CANCELLED"


def test_schedules(case):
    out = case("schedules")
    assert out["item"]["enabled"] is True and out["got"]["id"] == out["item"]["id"]
    assert [s["id"] for s in out["list"]["schedules"]] == [out["item"]["id"]]
    assert out["updated"]["name"] == "often" and out["paused"]["enabled"] is False and out["resumed"]["enabled"] is True
    assert out["deleted"]["success"] is True and out["gone"]["name"] == "NotFoundError"


@pytest.mark.parametrize("name,kind,status,field", [
    ("blank", "BadRequestError", 400, "prompt"), ("cursor", "BadRequestError", 400, "cursor"),
    ("cron", "BadRequestError", 400, "cron_schedule"), ("auth", "AuthenticationError", 401, None),
    ("missing", "NotFoundError", 404, None), ("missingCancel", "NotFoundError", 404, None),
    ("large", "APIError", 413, None), ("mismatch", "UnprocessableEntityError", 422, None)])
def test_error_classes(case, name, kind, status, field):
    error = case("errors")[name]
    assert error["name"] == kind and error["status"] == status and error["body"]["code"]
    assert error["message"] == f"{status} {error['body']['message']}", "the SDK shows our message"
    assert error["requestId"] == error["body"]["request_id"]
    if field:
        assert error["body"]["field"] == field


def test_429_is_retried_when_it_helps(case, make_server, model):
    server = make_server(provider_env(model, OZ_TENANT_REQUESTS_PER_MINUTE="60"))
    out = case("rateLimit", server.url)
    assert out["error"]["name"] == "RateLimitError" and 0 < float(out["error"]["retryAfter"]) <= 60
    assert out["after"]["runs"] == []


def test_connection_error(case, make_server):
    server = make_server()
    url = server.url
    server.stop()
    assert case("connection", url)["name"] == "APIConnectionError"


@pytest.mark.parametrize("lost", [1, 2])
def test_lost_answer_makes_no_second_run(case, oz, token, model, word, lost):
    proxy = LossyProxy(oz.port, lose=lost)
    try:
        made = case("createOnce", proxy.url, PROMPT=word)
    finally:
        proxy.close()
    assert proxy.lost == lost, "nothing was lost: the test shows nothing"
    with oz.client(token) as client:
        client.wait(made["run_id"])
        assert [r["run_id"] for r in client.list()["runs"]] == [made["run_id"]]
    assert len(model.calls(word)) == 1


def test_lost_answer_of_a_cancel(case, oz, token):
    with oz.client(token) as client:
        run_id = client.create("[[stall]]")["run_id"]
        proxy = LossyProxy(oz.port)
        try:
            assert case("cancelOnce", proxy.url, RUN_ID=run_id) == run_id
        finally:
            proxy.close()
        assert proxy.lost == 1 and client.wait(run_id)["state"] == "CANCELLED"


def test_parallel_requests(case):
    out = case("parallel")
    assert len(set(out["made"])) == 20 and out["made"] == out["listed"]
