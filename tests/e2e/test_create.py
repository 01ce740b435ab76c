"""POST /agent/run (oz-api.md 4.3, 15.2): fields, defaults, limits, idempotency, duplicates of retried requests."""
import base64
import concurrent.futures
import json
import uuid

import pytest
from harness import ENV_ID, RUN_ID, assert_error, assert_run, eventually, new_run_id, ok, provider_env

PNG = base64.b64encode(bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c6360000002000001e221bc330000000049454e44ae426082")).decode()


def post(client, body, path="/agent/run", **headers):
    content = body if isinstance(body, (bytes, str)) else json.dumps(body)
    return client.api("POST", path, content=content, headers=headers)


@pytest.mark.parametrize("path", ["/agent/run", "/agent/runs"])
def test_create_answers_ids_and_state(tenant, path):
    r = post(tenant, {"prompt": "hi"}, path)
    body = ok(r)
    assert RUN_ID.fullmatch(body["run_id"]) and body["task_id"] == body["run_id"]
    assert body["state"] == "QUEUED" and body["request_id"] == r.headers["x-request-id"]


def test_a_run_is_executed_and_its_answer_kept(tenant, model, word):
    created = tenant.create(f"  {word} [[echo:the answer]]\n")
    run = assert_run(tenant.wait(created["run_id"]))
    assert run["state"] == "SUCCEEDED", run
    assert run["prompt"] == f"  {word} [[echo:the answer]]\n", "the prompt is stored untrimmed"
    assert run["status_message"]["message"] == "the answer" and run["output"] == "the answer"
    assert run["error"] is None and run["title"] == "API run" and run["source"] == "API"
    assert run["started_at"] and run["completed_at"] and run["created_at"] <= run["started_at"] <= run["completed_at"]
    assert run["provider"]["key"] == "custom" and run["provider"]["model"] == "fake-model"
    assert len(model.calls(word)) == 1


def test_two_ids_differ_and_sort_by_time(tenant):
    ids = [tenant.create()["run_id"] for _ in range(5)]
    assert len(set(ids)) == 5 and [r["run_id"] for r in tenant.list()["runs"]] == ids[::-1]


@pytest.mark.parametrize("config,title,expected", [
    ({}, None, "API run"), ({"name": "from config"}, None, "from config"),
    ({"name": "from config"}, "from title", "from title"), ({}, "x" * 200, "x" * 200), ({"name": "ü" * 200}, None, "ü" * 200)])
def test_title(tenant, config, title, expected):
    body = {"config": config}
    if title is not None:
        body["title"] = title
    assert tenant.run(tenant.create(**body)["run_id"])["title"] == expected


@pytest.mark.parametrize("model_id,harness", [
    ("claude-sonnet", "claude-code"), ("gpt-CODEX", "codex"), ("glm-4", "glm"), ("kimi-k2", "kimi"),
    ("gemini-2.5", "gemini-cli"), ("something", "custom"), (None, "custom"), ("codex-claude", "claude-code")])
def test_harness_from_model_id(tenant, model_id, harness):
    run = tenant.run(tenant.create(config={"model_id": model_id})["run_id"])
    assert run["harness"] == harness
    if model_id:
        assert run["agent_config"].get("model_id")


def test_config_null_is_no_config(tenant):
    assert tenant.create(config=None)["state"] == "QUEUED"


def test_unknown_fields_are_ignored(tenant):
    assert tenant.create(brand_new={"a": [1]}, config={"also_new": True})["run_id"]


WRONG = [None, 1, 1.5, True, [], {}, ["x"], {"a": 1}]


@pytest.mark.parametrize("value", [v for v in WRONG if v is not None])
def test_prompt_of_a_wrong_type(tenant, value):
    assert_error(post(tenant, {"prompt": value}), 400, ("invalid_field", "missing_field"), "prompt")


@pytest.mark.parametrize("body", [{}, {"prompt": None}, {"prompt": ""}, {"prompt": "   \n\t "}, {"config": {}}])
def test_prompt_missing_or_blank(tenant, body):
    error = assert_error(post(tenant, body), 400, ("missing_field", "invalid_field"), "prompt")
    assert error["error"] == "prompt is required"


@pytest.mark.parametrize("field,kind", [
    ("title", str), ("skill", str), ("conversation_id", str), ("images", list), ("team", bool), ("config", dict),
    ("config.name", str), ("config.model_id", str), ("config.base_prompt", str), ("config.environment_id", str),
    ("config.skill_spec", str), ("config.mcp_servers", dict), ("config.computer_use_enabled", bool),
    ("config.worker_host", str)])
def test_wrong_types_name_their_field(tenant, field, kind):
    for value in ("text", 1, 1.5, True, [1], {"a": 1}):
        if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
            continue
        head, _, tail = field.partition(".")
        body = {"prompt": "x", head: {tail: value} if tail else value}
        error = assert_error(post(tenant, body), 400, "invalid_field")
        assert error["field"].startswith(field), (value, error)


@pytest.mark.parametrize("field,length", [("title", 201), ("config.name", 201), ("config.environment_id", 201),
                                          ("conversation_id", 201)])
def test_too_long_texts(tenant, field, length):
    head, _, tail = field.partition(".")
    value = "x" * length
    assert_error(post(tenant, {"prompt": "x", head: {tail: value} if tail else value}), 400, "invalid_field", field)


def test_lengths_count_characters_not_bytes(tenant):
    assert tenant.create(title="🚀" * 200)["run_id"]
    assert_error(post(tenant, {"prompt": "x", "title": "🚀" * 201}), 400, "invalid_field", "title")


@pytest.mark.parametrize("servers,field", [
    ({"a": {}}, "config.mcp_servers"), ({"a": {"command": "x", "url": "http://h/"}}, "config.mcp_servers"),
    ({"a": {"command": 1}}, "config.mcp_servers"), ({"a": {"command": "x", "args": "y"}}, "config.mcp_servers"),
    ({"a": {"url": "x", "headers": {"k": 1}}}, "config.mcp_servers"), ({"a": "x"}, "config.mcp_servers")])
def test_mcp_servers_shape(tenant, servers, field):
    error = assert_error(post(tenant, {"prompt": "x", "config": {"mcp_servers": servers}}), 400, "invalid_field")
    assert error["field"].startswith(field), error


@pytest.mark.parametrize("images", [
    [{"data": PNG}], [{"mime_type": "image/png"}], [{"data": PNG, "mime_type": "image/svg+xml"}],
    [{"data": "not base64 !!", "mime_type": "image/png"}], [{"data": 5, "mime_type": "image/png"}], ["x"],
    [{"data": PNG, "mime_type": "image/png"}] * 6, [{"data": "", "mime_type": "image/png"}]])
def test_bad_images(tenant, images):
    error = assert_error(post(tenant, {"prompt": "x", "images": images}), 400)
    assert error["field"].startswith("images"), error


def test_images_reach_the_provider(tenant, model, word):
    run = tenant.finish(f"{word} what is this?", images=[{"data": PNG, "mime_type": "image/png"}])
    assert run["state"] == "SUCCEEDED", run
    sent = json.dumps(model.calls(word)[0]["body"])
    assert PNG in sent and "image/png" in sent


def test_images_raise_the_body_limit(tenant, model, word):
    big = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"x" * 3_000_000).decode()
    run = tenant.finish(word, images=[{"data": big, "mime_type": "image/png"}])
    assert run["state"] == "SUCCEEDED", run


def test_base_prompt_replaces_the_system_text(tenant, model, word):
    tenant.finish(word, config={"base_prompt": "You are a parrot."})
    messages = model.calls(word)[0]["body"]["messages"]
    assert [m["content"] for m in messages if m["role"] == "system"] == ["You are a parrot."]


@pytest.mark.parametrize("body,field", [
    ({"config": {"mcp_servers": {"a": {"command": "x"}}}}, "config.mcp_servers"),
    ({"config": {"computer_use_enabled": True}}, "config.computer_use_enabled"),
    ({"config": {"worker_host": "some-worker"}}, "config.worker_host")])
def test_what_the_provider_route_cannot_honour_is_refused(tenant, body, field):
    error = assert_error(post(tenant, {"prompt": "x", **body}), 400, "invalid_field")
    assert error["field"].startswith(field), error


def test_skill_that_cannot_be_resolved_is_refused(tenant):
    assert_error(post(tenant, {"skill": "owner/repo:path/SKILL.md"}), 400, "invalid_field", "skill")


def test_conversation_continues(tenant, model, word):
    first = tenant.finish(f"{word}-one [[echo:answer one]]")
    assert first["conversation_id"]
    second = tenant.finish(f"{word}-two [[echo:answer two]]", conversation_id=first["conversation_id"])
    assert second["conversation_id"] == first["conversation_id"]
    messages = [m for m in model.calls(f"{word}-two")[-1]["body"]["messages"] if m["role"] != "system"]
    assert [m["role"] for m in messages] == ["user", "assistant", "user"], messages
    assert messages[1]["content"] == "answer one" and messages[2]["content"].startswith(f"{word}-two")


def test_conversation_of_another_tenant_is_not_continued(tenant, other, model, word):
    first = tenant.finish(f"{word}-secret")
    r = post(other, {"prompt": f"{word}-spy", "conversation_id": first["conversation_id"]})
    if r.status_code == 200:
        other.wait(r.json()["run_id"])
        sent = json.dumps(model.calls(f"{word}-spy")[-1]["body"])
        assert f"{word}-secret" not in sent
    else:
        assert_error(r, (400, 404))


def test_run_with_environment_waits_for_a_worker(tenant, model, word):
    env = tenant.environment()["id"]
    created = tenant.create(word, config={"environment_id": f"  {env}  "})
    assert created["state"] == "PENDING"
    run = assert_run(tenant.run(created["run_id"]))
    assert run["state"] == "PENDING" and run["agent_config"]["environment_id"] == env
    assert model.calls(word) == []


def test_unknown_environment_id_is_an_image_but_env_ids_are_not(tenant):
    assert tenant.create(config={"environment_id": "debian:12"})["state"] == "PENDING"
    missing = new_run_id().replace("run_", "env_")
    assert ENV_ID.fullmatch(missing)
    assert_error(post(tenant, {"prompt": "x", "config": {"environment_id": missing}}), 404, "not_found")


def test_blank_environment_id_is_none(tenant):
    assert tenant.create(config={"environment_id": "   "})["state"] == "QUEUED"


def test_raw_images_can_be_switched_off_and_listed(make_server, model):
    off = make_server({"OZ_ALLOW_RAW_ENV_IMAGE": "false"})
    assert_error(post(off.client("t"), {"prompt": "x", "config": {"environment_id": "debian:12"}}), 404, "not_found")
    listed = make_server({"OZ_IMAGE_ALLOWLIST": "debian:*,ghcr.io/me/*"})
    client = listed.client("t")
    assert client.create(config={"environment_id": "debian:12"})["state"] == "PENDING"
    for body, path in (({"prompt": "x", "config": {"environment_id": "alpine:3"}}, "/agent/run"),
                       ({"name": "n", "docker_image": "alpine:3"}, "/environments")):
        assert_error(post(client, body, path), 400, "invalid_field")


def test_other_prompt_bytes_survive(tenant):
    text = "tab\t, quote \", back\\slash, NUL-free \u0001\u001f, ünïcödé 🚀, \u2028 line, <script>"
    run = tenant.run(tenant.create(text)["run_id"])
    assert run["prompt"] == text


def test_largest_prompt_and_one_byte_more(tenant, model):
    frame = len(json.dumps({"prompt": ""}))
    exact = json.dumps({"prompt": "p" * (1_000_000 - frame)})
    assert len(exact) == 1_000_000
    run = tenant.run(ok(post(tenant, exact))["run_id"])
    assert len(run["prompt"]) == 1_000_000 - frame
    assert_error(post(tenant, exact + " "), 413, "payload_too_large")
    assert_error(tenant.api("POST", "/environments", content=exact + " "), 413, "payload_too_large")


@pytest.mark.parametrize("more", [{}, {"images": []}, {"images": None}, {"pad": "x" * 200_000}])
def test_only_images_raise_the_body_limit(tenant, more):
    body = {"prompt": "p" * 900_000, "config": {"base_prompt": "b" * 99_000}, "more": "y" * 2000, **more}
    assert_error(post(tenant, body), 413, "payload_too_large")
    assert_error(post(tenant, b"{" + b"x" * 1_000_000), 413, "payload_too_large")


def test_prompt_limit_holds_on_the_route_with_images_too(tenant):
    body = {"prompt": "p" * 1_000_001, "images": [{"data": PNG, "mime_type": "image/png"}]}
    assert_error(post(tenant, body), (400, 413))


@pytest.mark.parametrize("body", [b"", b"   ", b"null", b"[]", b"\"text\"", b"5", b"true"])
def test_body_that_is_no_object(tenant, body):
    assert_error(post(tenant, body), 400)


# --- idempotency ---

def test_same_key_and_body_give_the_first_run(tenant, model, word):
    key = {"Idempotency-Key": f"key-{word}"}
    first, second = (post(tenant, {"prompt": word}, **key) for _ in range(2))
    assert ok(first)["run_id"] == ok(second)["run_id"]
    assert "idempotent-replay" not in first.headers and second.headers["idempotent-replay"] == "true"
    tenant.wait(first.json()["run_id"])
    assert len(tenant.list()["runs"]) == 1 and len(model.calls(word)) == 1


def test_the_key_of_a_deleted_run_says_so(tenant, model, word):
    key = {"Idempotency-Key": f"gone-{word}"}
    run = ok(post(tenant, {"prompt": word}, **key))["run_id"]
    tenant.wait(run)
    ok(tenant.api("DELETE", f"/agent/runs/{run}"))
    error = assert_error(post(tenant, {"prompt": word}, **key), 404, "not_found", "Idempotency-Key")
    assert "deleted" in error["message"] and tenant.list()["runs"] == [] and len(model.calls(word)) == 1


def test_same_key_with_another_body_is_422(tenant):
    key = {"Idempotency-Key": "k"}
    ok(post(tenant, {"prompt": "a"}, **key))
    assert_error(post(tenant, {"prompt": "b"}, **key), 422, "invalid_field")
    assert len(tenant.list()["runs"]) == 1


def test_keys_are_per_tenant(tenant, other):
    key = {"Idempotency-Key": "the-same-key"}
    assert ok(post(tenant, {"prompt": "a"}, **key))["run_id"] != ok(post(other, {"prompt": "b"}, **key))["run_id"]


@pytest.mark.parametrize("key,status", [("k" * 255, 200), ("k" * 256, 400), ("~!@#$", 200), ("with\ttab", 400)])
def test_key_form(tenant, key, status):
    assert post(tenant, {"prompt": "a"}, **{"Idempotency-Key": key}).status_code == status


def test_parallel_requests_with_one_key_make_one_run(tenant, oz):
    key = {"Idempotency-Key": str(uuid.uuid4())}

    def one(_):
        with oz.client(tenant.token) as client:
            return post(client, {"prompt": "parallel"}, **key)

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(one, range(16)))
    assert {r.status_code for r in answers} == {200}
    assert len({r.json()["run_id"] for r in answers}) == 1
    assert len(tenant.list()["runs"]) == 1


def test_refused_request_does_not_use_up_the_key(tenant):
    key = {"Idempotency-Key": "first-bad"}
    assert_error(post(tenant, {"prompt": ""}, **key), 400)
    assert ok(post(tenant, {"prompt": "good"}, **key))["run_id"]


def test_key_survives_a_restart(make_server, model):
    server = make_server(provider_env(model))
    key = {"Idempotency-Key": "over-the-restart"}
    first = ok(post(server.client("t"), {"prompt": "a"}, **key))["run_id"]
    server.stop()
    server.start()
    again = post(server.client("t"), {"prompt": "a"}, **key)
    assert ok(again)["run_id"] == first and again.headers["idempotent-replay"] == "true"


def test_retried_request_of_an_sdk_does_not_double_the_run(tenant):
    body = {"prompt": f"lost answer {uuid.uuid4()}"}
    first = ok(post(tenant, body, **{"X-Stainless-Retry-Count": "0"}))["run_id"]
    assert ok(post(tenant, body, **{"X-Stainless-Retry-Count": "1"}))["run_id"] == first
    assert ok(post(tenant, body, **{"X-Stainless-Retry-Count": "2"}))["run_id"] == first
    assert len(tenant.list()["runs"]) == 1


def test_same_body_without_retry_count_is_another_run(tenant):
    body = {"prompt": f"twice on purpose {uuid.uuid4()}"}
    ids = {ok(post(tenant, body))["run_id"] for _ in range(2)}
    ids.add(ok(post(tenant, body, **{"X-Stainless-Retry-Count": "0"}))["run_id"])
    assert len(ids) == 3


def test_retry_whose_first_try_never_arrived_creates(tenant, other):
    body = {"prompt": f"first try lost {uuid.uuid4()}"}
    first = ok(post(tenant, body, **{"X-Stainless-Retry-Count": "1"}))["run_id"]
    foreign = ok(post(other, body, **{"X-Stainless-Retry-Count": "1"}))["run_id"]
    assert first != foreign, "another tenant's run was taken for the retry"


@pytest.mark.parametrize("count", ["x", "-1", "", "1e9", "99999999999999999999"])
def test_nonsense_retry_count_is_no_error(tenant, count):
    assert post(tenant, {"prompt": "a"}, **{"X-Stainless-Retry-Count": count}).status_code in (200, 400)


def test_queue_limit_of_a_tenant_is_429(make_server, model):
    server = make_server(provider_env(model, OZ_TENANT_MAX_QUEUED="5"))
    client = server.client("busy")
    answers = [post(client, {"prompt": f"[[stall]] {i}"}) for i in range(8)]
    assert [r.status_code for r in answers] == [200] * 5 + [429] * 3
    assert_error(answers[-1], 429, "too_many_requests")
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert post(server.client("another"), {"prompt": "hi"}).status_code == 200
    assert client.cancel(answers[0].json()["run_id"]).status_code == 200
    client.wait(answers[0].json()["run_id"])
    key = {"Idempotency-Key": "the last place"}
    last = post(client, {"prompt": "room [[stall]]"}, **key)
    assert last.status_code == 200
    assert post(client, {"prompt": "full"}, **{"Idempotency-Key": "another"}).status_code == 429
    again = post(client, {"prompt": "room [[stall]]"}, **key)
    assert ok(again)["run_id"] == last.json()["run_id"], "a repetition takes no place"
    for i in range(3):
        run = client.create("over")["run_id"] if i else last.json()["run_id"]
        client.cancel(run)
    assert post(client, {"prompt": "[[stall]]"}).status_code == 200
    assert post(client, {"prompt": "[[stall]]"}).status_code == 429


def test_created_run_is_logged_without_its_prompt(oz, tenant, word):
    run = tenant.create(f"secret-{word}")["run_id"]
    line = oz.wait_log("agent_run.create", run_id=run)
    assert line["prompt_length"] == len(f"secret-{word}") and line["auth_scope"] == "tenant"
    assert line["has_environment"] is False and line["harness"] == "custom"
    tenant.wait(run)
    assert word not in str(oz.log), "the prompt is in the log"
    assert tenant.token not in str(oz.log), "the bearer is in the log"


def test_source_of_our_command_line(tenant):
    r = tenant.api("POST", "/agent/run", json={"prompt": "x"}, headers={"User-Agent": "muster-cli/0.1.0"})
    assert tenant.run(ok(r)["run_id"])["source"] == "CLI"


@pytest.mark.parametrize("source", ["LINEAR", "API", "SLACK", "LOCAL", "SCHEDULED_AGENT", "WEB_APP", "GITHUB_ACTION",
                                    "CLOUD_MODE", "CLI"])
def test_source_default_can_be_set(make_server, source):
    client = make_server({"OZ_RUN_SOURCE_DEFAULT": source}).client("t")
    assert client.run(client.create()["run_id"])["source"] == source
    assert len(client.list(source=source)["runs"]) == 1
