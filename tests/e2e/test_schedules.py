"""Schedules (oz-api.md 15.5)."""
import datetime
import time

import pytest
from harness import TIMESTAMP, assert_error, eventually, ok, provider_env

PLAN = {"cron_schedule": "0 9 * * *", "name": "daily", "prompt": "tidy up"}


def path(ident, more=""):
    return f"/agent/schedules/{ident}{more}"


def test_create_and_get(tenant):
    item = tenant.schedule(agent_config={"name": "cfg", "model_id": "m"})
    assert item["id"] and item["enabled"] is True and item["cron_schedule"] == "0 9 * * *"
    assert TIMESTAMP.fullmatch(item["created_at"]) and TIMESTAMP.fullmatch(item["updated_at"])
    assert item["agent_config"]["name"] == "cfg"
    got = ok(tenant.api("GET", path(item["id"])))
    got.pop("request_id", None), item.pop("request_id", None)
    assert got == item


def test_next_run_is_utc(tenant):
    item = tenant.schedule(cron_schedule="30 9 * * *")
    after = datetime.datetime.fromisoformat(item["history"]["next_run"].replace("Z", "+00:00"))
    now = datetime.datetime.now(datetime.timezone.utc)
    assert (after.hour, after.minute) == (9, 30) and now < after <= now + datetime.timedelta(days=1)
    assert item["history"].get("last_ran") is None


def test_the_environment_is_shown_as_it_is_now(tenant):
    env = ok(tenant.api("POST", "/environments", json={
        "name": "box", "docker_image": "debian:12", "repos": ["me/one", "https://github.com/you/two.git"],
        "setup_commands": ["make"], "env_vars": {"HUSH": "a-value-nobody-sees"}}))
    item = tenant.schedule(agent_config={"environment_id": env["environment_id"]})
    assert item["environment"] == {"name": "box", "docker_image": "debian:12", "setup_commands": ["make"],
                                   "github_repos": [{"owner": "me", "repo": "one"}, {"owner": "you", "repo": "two"}]}
    assert ok(tenant.api("GET", path(item["id"])))["environment"] == item["environment"]
    assert "a-value-nobody-sees" not in tenant.api("GET", path(item["id"])).text
    ok(tenant.api("DELETE", f"/environments/{env['environment_id']}"))
    assert "environment" not in ok(tenant.api("GET", path(item["id"])))
    raw = tenant.schedule(agent_config={"environment_id": "alpine:3"})
    assert raw["environment"] == {"docker_image": "alpine:3"}
    assert "environment" not in tenant.schedule()


def test_list_is_sorted_by_name(tenant):
    for name in ("charlie", "alpha", "bravo", "alpha"):
        tenant.schedule(name=name)
    assert [s["name"] for s in ok(tenant.api("GET", "/agent/schedules"))["schedules"]] == \
        ["alpha", "alpha", "bravo", "charlie"]


@pytest.mark.parametrize("field", ["cron_schedule", "name", "prompt"])
@pytest.mark.parametrize("value", ["missing", None, "", "  ", 5, [], {}])
def test_required_fields(tenant, field, value):
    body = dict(PLAN)
    if value == "missing":
        del body[field]
    else:
        body[field] = value
    assert_error(tenant.api("POST", "/agent/schedules", json=body), 400, ("missing_field", "invalid_field"), field)


@pytest.mark.parametrize("field,value", [("enabled", "yes"), ("enabled", 1), ("agent_config", []), ("team", "x"),
                                         ("agent_config", {"name": 5}), ("name", "x" * 5000)])
def test_wrong_types(tenant, field, value):
    error = assert_error(tenant.api("POST", "/agent/schedules", json={**PLAN, field: value}), 400, "invalid_field")
    assert error["field"].startswith(field)


@pytest.mark.parametrize("cron", [
    "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * 32 * *", "* * * 0 *", "* * * 13 *",
    "* * * * 8", "a * * * *", "*/0 * * * *", "5-1 * * * *", "1,,2 * * * *", "@daily", "@reboot", "@", "-1 * * * *",
    "1- * * * *", "*/ * * * *", "1.5 * * * *", "0 0 30 2 *", "0 0 31 4 *", "x" * 10_000, "* * * * *; rm -rf /",
    "99999999999999999999 * * * *", "0 9 * * MON-", "０ ９ * * *"])
def test_cron_nonsense(tenant, cron):
    error = assert_error(tenant.api("POST", "/agent/schedules", json={**PLAN, "cron_schedule": cron}), 400,
                         "invalid_field", "cron_schedule")
    assert len(error["message"]) < 500


@pytest.mark.parametrize("cron", ["*/5 * * * *", "0 0 29 2 *", "0-30/10,45 1-5 1,15 1-6 1-5", "0 9 * * 0",
                                  "  0   9 * * *  ", "59 23 31 12 6"])
def test_cron_that_is_fine(tenant, cron):
    item = tenant.schedule(cron_schedule=cron)
    assert TIMESTAMP.fullmatch(item["history"]["next_run"])


def test_leap_day_is_found(tenant):
    when = tenant.schedule(cron_schedule="0 0 29 2 *")["history"]["next_run"]
    assert when[5:16] == "02-29T00:00" and int(when[:4]) % 4 == 0


def test_update(tenant):
    ident = tenant.schedule()["id"]
    body = {"cron_schedule": "*/10 * * * *", "enabled": False, "name": "renamed", "prompt": "other"}
    item = ok(tenant.api("PUT", path(ident), json=body))
    assert {k: item[k] for k in body} == body and item["id"] == ident
    assert ok(tenant.api("GET", path(ident)))["name"] == "renamed"


@pytest.mark.parametrize("field", ["cron_schedule", "enabled", "name", "prompt"])
def test_update_needs_everything(tenant, field):
    ident = tenant.schedule()["id"]
    body = {"cron_schedule": "*/10 * * * *", "enabled": False, "name": "renamed", "prompt": "other"}
    del body[field]
    assert_error(tenant.api("PUT", path(ident), json=body), 400, "missing_field", field)
    assert ok(tenant.api("GET", path(ident)))["name"] == "daily", "half done"


@pytest.mark.parametrize("body", [None, b""])
def test_pause_and_resume_with_an_empty_body(tenant, body):
    ident = tenant.schedule()["id"]
    kind = {"Content-Type": "application/json"}
    assert ok(tenant.api("POST", path(ident, "/pause"), content=body, headers=kind))["enabled"] is False
    assert ok(tenant.api("POST", path(ident, "/pause"), content=body, headers=kind))["enabled"] is False
    resumed = ok(tenant.api("POST", path(ident, "/resume"), content=body, headers=kind))
    assert resumed["enabled"] is True and resumed["history"]["next_run"]


def test_delete(tenant):
    ident = tenant.schedule()["id"]
    assert ok(tenant.api("DELETE", path(ident)))["success"] is True
    for method, more in (("GET", ""), ("DELETE", ""), ("POST", "/pause"), ("POST", "/resume")):
        assert_error(tenant.api(method, path(ident, more)), 404, "not_found")
    assert ok(tenant.api("GET", "/agent/schedules"))["schedules"] == []


@pytest.mark.parametrize("ident", ["x", "%00", "a" * 3000, "sch_1"])
def test_ids_that_are_none(tenant, ident):
    assert_error(tenant.api("GET", path(ident)), (400, 404))


@pytest.mark.timeout(150)
def test_a_tick_makes_one_run(tenant, model, word):
    """Every minute: waits for the next full minute, so up to 60 s; both halves share the wait."""
    config = {"name": "from the schedule"}
    item = tenant.schedule(cron_schedule="* * * * *", prompt=f"{word} [[echo:ticked]]", agent_config=config)
    paused = tenant.schedule(cron_schedule="* * * * *", prompt=f"paused-{word}", name="paused", enabled=False)
    (run,) = eventually(lambda: tenant.list(schedule_id=item["id"])["runs"], 75, "a tick")
    run = tenant.wait(run["run_id"])
    assert run["state"] == "SUCCEEDED" and run["source"] == "SCHEDULED_AGENT" and run["output"] == "ticked"
    assert run["schedule"] == {"schedule_id": item["id"], "schedule_name": "daily", "cron_schedule": "* * * * *"}
    after = ok(tenant.api("GET", path(item["id"])))
    assert after["history"]["last_ran"] and after["history"]["next_run"] > after["history"]["last_ran"]
    assert after.get("last_spawn_error") is None
    time.sleep(2)
    assert len(tenant.list(schedule_id=item["id"])["runs"]) == 1 and len(model.calls(f"{word} ")) == 1
    assert tenant.list(schedule_id=paused["id"])["runs"] == []
    assert ok(tenant.api("DELETE", path(item["id"])))["success"] is True
    assert tenant.run(run["run_id"])["schedule"]["schedule_id"] == item["id"], "delete keeps past runs"
    assert tenant.list(source="SCHEDULED_AGENT")["runs"][0]["run_id"] == run["run_id"]


@pytest.mark.timeout(200)
def test_a_tick_missed_while_down_fires_once(make_server, model, word):
    server = make_server(provider_env(model))
    client = server.client("t")
    item = client.schedule(cron_schedule="* * * * *", prompt=word)
    due = datetime.datetime.fromisoformat(item["history"]["next_run"].replace("Z", "+00:00"))
    server.stop()
    time.sleep(max(0.0, (due - datetime.datetime.now(datetime.timezone.utc)).total_seconds()) + 2)
    server.start()
    client = server.client("t")
    eventually(lambda: client.list(schedule_id=item["id"])["runs"], 10, "the missed tick")
    time.sleep(1)
    runs = client.list(schedule_id=item["id"])["runs"]
    assert len(runs) <= 2 and len(model.calls(word)) <= 2
    server.stop()
    server.start()
    client = server.client("t")
    minutes = {r["created_at"][:16] for r in client.list(schedule_id=item["id"])["runs"]}
    assert len(client.list(schedule_id=item["id"])["runs"]) <= len(minutes) + 1, "a tick fired twice"


def test_created_by_is_the_tenant(tenant):
    item = tenant.schedule()
    me = tenant.run(tenant.create()["run_id"])["creator"]["uid"]
    assert item["created_by"]["uid"] == me and item["scope"] == {"type": "User", "uid": me}


def test_images_of_schedules_follow_the_rules_of_runs(make_server):
    def plan(client, image):
        return client.api("POST", "/agent/schedules", json={**PLAN, "agent_config": {"environment_id": image}})

    off = make_server({"OZ_ALLOW_RAW_ENV_IMAGE": "false"}).client("t")
    assert_error(plan(off, "debian:12"), 400, "invalid_field", "agent_config.environment_id")
    listed = make_server({"OZ_IMAGE_ALLOWLIST": "debian:*"}).client("t")
    assert_error(plan(listed, "alpine:3"), 400, "invalid_field", "agent_config.environment_id")
    ok(plan(listed, "debian:12"))


@pytest.mark.timeout(150)
def test_a_tick_over_the_limit_is_told_on_the_schedule(make_server, model):
    client = make_server(provider_env(model, OZ_TENANT_MAX_QUEUED="1")).client("t")
    client.create("[[stall]]")
    item = client.schedule(cron_schedule="* * * * *")
    after = eventually(lambda: (s := ok(client.api("GET", path(item["id"]))))["last_spawn_error"] and s, 75, "the refusal")
    assert after["history"]["next_run"] > item["history"]["next_run"] and len(client.list()["runs"]) == 1


def test_long_schedules_are_cut_in_the_list(tenant):
    long = tenant.schedule(prompt="ü" * 3000, agent_config={"base_prompt": "b" * 50_000})
    (item,) = ok(tenant.api("GET", "/agent/schedules"))["schedules"]
    assert item["prompt"] == "ü" * 2048 and item["prompt_truncated"] is True and "agent_config" not in item
    whole = ok(tenant.api("GET", path(long["id"])))
    assert whole["prompt"] == "ü" * 3000 and len(whole["agent_config"]["base_prompt"]) == 50_000
