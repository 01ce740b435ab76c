"""The published Python SDK, unmodified, against the server (oz-api.md 14, 15)."""
import asyncio
import datetime
import secrets
import signal
import time
import uuid

import httpx
import oz_agent_sdk
import pytest
from harness import API, provider_env
from lossy_proxy import LossyProxy
from oz_agent_sdk import AsyncOzAPI, OzAPI


@pytest.fixture
def token():
    return "sdk-" + secrets.token_hex(12)


@pytest.fixture
def sdk(oz, token):
    with OzAPI(api_key=token, base_url=oz.url + API) as client:
        yield client


def wait(sdk, run_id):
    for _ in range(1500):
        run = sdk.agent.runs.retrieve(run_id)
        if run.state in ("SUCCEEDED", "FAILED", "CANCELLED"):
            return run
        time.sleep(0.02)
    raise AssertionError(f"still {run.state}")


def test_create_and_retrieve(sdk):
    made = sdk.agent.run(prompt="hello [[echo:an answer]]", title="from python", config={"name": "cfg", "model_id": "m"})
    assert made.run_id == made.task_id and made.state == "QUEUED"
    run = wait(sdk, made.run_id)
    assert run.state == "SUCCEEDED" and run.status_message.message == "an answer"
    assert run.title == "from python" and run.agent_config.name == "cfg" and run.source == "API"
    assert isinstance(run.created_at, datetime.datetime) and run.started_at >= run.created_at
    assert run.scope.type == "User" and run.creator.uid and run.artifacts == [] and run.session_link is None


def test_skills_list(sdk):
    assert sdk.agent.list().agents == []
    assert sdk.agent.list(refresh=True, repo="owner/repo", sort_by="last_run").agents == []


def test_list_paging(sdk):
    made = [sdk.agent.run(prompt=f"p{i}").run_id for i in range(7)][::-1]
    seen, cursor = [], None
    while True:
        page = sdk.agent.runs.list(limit=3, **({"cursor": cursor} if cursor else {}))
        seen += [r.run_id for r in page.runs]
        if not page.page_info.has_next_page:
            assert page.page_info.next_cursor is None
            break
        cursor = page.page_info.next_cursor
    assert seen == made


def test_every_filter(sdk):
    now = datetime.datetime.now(datetime.timezone.utc)
    first = sdk.agent.run(prompt="alpha needle", config={"name": "night", "model_id": "mm"}).run_id
    second = sdk.agent.run(prompt="beta [[status:400]]", config={"environment_id": "debian:12"}).run_id
    run = wait(sdk, first)
    later, earlier = now + datetime.timedelta(hours=1), now - datetime.timedelta(hours=1)

    def ids(**query):
        return {r.run_id for r in sdk.agent.runs.list(**query).runs}

    both = {first, second}
    for query, expected in [
            ({"state": ["SUCCEEDED"]}, {first}), ({"state": ["SUCCEEDED", "PENDING"]}, both), ({"state": ["FAILED"]}, set()),
            ({"source": "API"}, both), ({"source": "SLACK"}, set()), ({"name": "night"}, {first}),
            ({"model_id": "mm"}, {first}), ({"environment_id": "debian:12"}, {second}), ({"creator": run.creator.uid}, both),
            ({"creator": "0" * 64}, set()), ({"schedule_id": "01a1fe8d-55d1-7039-b28e-c5679de1958e"}, set()), ({"skill": "a/b:c"}, set()),
            ({"skill_spec": "a/b:c"}, set()), ({"artifact_type": "PLAN"}, set()), ({"artifact_type": "PULL_REQUEST"}, set()),
            ({"created_after": earlier}, both), ({"created_after": later}, set()), ({"created_before": later}, both),
            ({"created_before": earlier}, set()), ({"updated_after": earlier}, both), ({"updated_after": later}, set()),
            ({"q": "needle"}, {first}), ({"q": "nothing of the kind"}, set()),
            ({"state": ["SUCCEEDED"], "q": "alpha", "created_after": earlier, "limit": 1}, {first})]:
        assert ids(**query) == expected, query


def test_cancel(sdk):
    made = sdk.agent.run(prompt="[[stall]]")
    answer = sdk.agent.runs.cancel(made.run_id)
    assert answer.strip('"') == made.run_id
    assert wait(sdk, made.run_id).state == "CANCELLED"
    assert sdk.agent.runs.cancel(made.run_id).strip('"') == made.run_id


def test_schedules(sdk):
    item = sdk.agent.schedules.create(cron_schedule="0 9 * * *", name="daily", prompt="p",
                                      agent_config={"environment_id": "debian:12", "name": "n"})
    assert item.enabled is True and item.cron_schedule == "0 9 * * *" and item.history.next_run
    assert sdk.agent.schedules.retrieve(item.id).name == "daily"
    assert [s.id for s in sdk.agent.schedules.list().schedules] == [item.id]
    changed = sdk.agent.schedules.update(item.id, cron_schedule="*/5 * * * *", enabled=True, name="often", prompt="q")
    assert changed.name == "often" and changed.cron_schedule == "*/5 * * * *"
    assert sdk.agent.schedules.pause(item.id).enabled is False
    assert sdk.agent.schedules.resume(item.id).enabled is True
    assert sdk.agent.schedules.delete(item.id).success is True
    with pytest.raises(oz_agent_sdk.NotFoundError):
        sdk.agent.schedules.retrieve(item.id)


def raised(kind, call, status, field=None):
    with pytest.raises(kind) as e:
        call()
    error = e.value
    assert error.status_code == status and isinstance(error.body, dict)
    assert error.body["code"] and error.body["request_id"] == error.response.headers["x-request-id"]
    if field:
        assert error.body["field"] == field
    return error


def test_error_400(sdk):
    raised(oz_agent_sdk.BadRequestError, lambda: sdk.agent.run(prompt=" "), 400, "prompt")
    raised(oz_agent_sdk.BadRequestError, lambda: sdk.agent.runs.list(cursor="nonsense"), 400, "cursor")
    raised(oz_agent_sdk.BadRequestError,
           lambda: sdk.agent.schedules.create(cron_schedule="x", name="n", prompt="p"), 400, "cron_schedule")


def test_error_401(oz):
    with OzAPI(api_key="sk_" + "0" * 64, base_url=oz.url + API) as sdk:
        raised(oz_agent_sdk.AuthenticationError, lambda: sdk.agent.runs.list(), 401)


def test_error_404(sdk):
    raised(oz_agent_sdk.NotFoundError, lambda: sdk.agent.runs.retrieve(f"run_{uuid.uuid4()}"), 404)
    raised(oz_agent_sdk.NotFoundError, lambda: sdk.agent.runs.cancel(f"run_{uuid.uuid4()}"), 404)


def test_error_413_is_not_retried(oz, token):
    seen = []
    hook = httpx.Client(event_hooks={"request": [lambda r: seen.append(r)]})
    with OzAPI(api_key=token, base_url=oz.url + API, http_client=hook) as sdk:
        raised(oz_agent_sdk.APIStatusError, lambda: sdk.agent.schedules.create(
            cron_schedule="0 9 * * *", name="n", prompt="x" * 1_100_000), 413)
        error = raised(oz_agent_sdk.APIStatusError, lambda: sdk.agent.run(prompt="x" * 1_100_000), 413)
    assert len(seen) == 2 and error.body["code"] == "payload_too_large"


def test_error_422(sdk):
    key = {"Idempotency-Key": str(uuid.uuid4())}
    sdk.agent.run(prompt="a", extra_headers=key)
    raised(oz_agent_sdk.UnprocessableEntityError, lambda: sdk.agent.run(prompt="b", extra_headers=key), 422)


def test_error_429_is_retried_when_it_helps(make_server, model):
    server = make_server(provider_env(model, OZ_TENANT_REQUESTS_PER_MINUTE="60"))
    with OzAPI(api_key="limited", base_url=server.url + API, max_retries=0) as sdk:
        with pytest.raises(oz_agent_sdk.RateLimitError) as e:
            for _ in range(300):
                sdk.agent.runs.list()
        assert 0 < float(e.value.response.headers["retry-after"]) <= 60
        assert sdk.with_options(max_retries=5).agent.runs.list().runs == []


def test_error_503_while_stopping_is_an_internal_server_error(make_server, model):
    server = make_server(provider_env(model))
    with OzAPI(api_key="t", base_url=server.url + API, max_retries=0) as sdk:
        made = sdk.agent.run(prompt="[[slow:4:3]]")
        server.client("t").wait(made.run_id, "INPROGRESS")
        server.signal(signal.SIGTERM)
        server.wait_log("shutdown.start")
        error = raised(oz_agent_sdk.InternalServerError, lambda: sdk.agent.runs.list(), 503)
        assert error.body["code"] == "shutting_down" and error.response.headers["retry-after"] == "1"
    assert server.wait_exit() == 0


def test_connection_error(make_server):
    server = make_server()
    url = server.url
    server.stop()
    with OzAPI(api_key="t", base_url=url + API, max_retries=0) as sdk, pytest.raises(oz_agent_sdk.APIConnectionError):
        sdk.agent.runs.list()


@pytest.mark.parametrize("lost", [1, 2])
def test_lost_answer_makes_no_second_run(oz, sdk, token, model, word, lost):
    proxy = LossyProxy(oz.port, lose=lost)
    try:
        with OzAPI(api_key=token, base_url=proxy.url + API) as through:
            made = through.agent.run(prompt=word)
    finally:
        proxy.close()
    assert proxy.lost == lost, "nothing was lost: the test shows nothing"
    wait(sdk, made.run_id)
    assert [r.run_id for r in sdk.agent.runs.list().runs] == [made.run_id] and len(model.calls(word)) == 1


def test_lost_answer_of_a_cancel(oz, sdk, token):
    made = sdk.agent.run(prompt="[[stall]]")
    proxy = LossyProxy(oz.port)
    try:
        with OzAPI(api_key=token, base_url=proxy.url + API) as through:
            assert through.agent.runs.cancel(made.run_id).strip('"') == made.run_id
    finally:
        proxy.close()
    assert proxy.lost == 1 and wait(sdk, made.run_id).state == "CANCELLED"


def test_raw_response_carries_the_request_id(sdk):
    raw = sdk.agent.runs.with_raw_response.list(extra_headers={"X-Request-Id": "mine-1"})
    assert raw.headers["x-request-id"] == "mine-1" and raw.parse().runs == []


def test_async_client(oz, token):

    async def go():
        async with AsyncOzAPI(api_key=token, base_url=oz.url + API) as sdk:
            made = await asyncio.gather(*(sdk.agent.run(prompt=f"async {i}") for i in range(20)))
            page = await sdk.agent.runs.list(limit=200)
            return {m.run_id for m in made}, {r.run_id for r in page.runs}

    made, listed = asyncio.run(go())
    assert len(made) == 20 and made == listed
