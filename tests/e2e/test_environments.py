"""Environments (oz-api.md 4.7-4.9, 15.6): fields, scope, redaction, PUT and DELETE."""
import pytest
from harness import ENV_ID, TIMESTAMP, assert_error, new_run_id, ok

BASE = {"name": "build box", "docker_image": "debian:12"}


def post(client, **body):
    return client.api("POST", "/environments", json={**BASE, **body})


def get(client, env):
    return ok(client.api("GET", f"/environments/{env}"))


def test_create_and_get(tenant):
    r = post(tenant, name="  build box ", docker_image=" debian:12\n", repos=[" acme/rocket ", "", "  "],
             setup_commands=["make deps"], env_vars={"A": "1"})
    env = ok(r)
    assert ENV_ID.fullmatch(env["id"]) and env["environment_id"] == env["id"]
    assert env["name"] == "build box" and env["docker_image"] == "debian:12"
    assert env["repos"] == ["acme/rocket"] and env["setup_commands"] == ["make deps"]
    assert env["env_vars"] == {"A": "<redacted>"} and env["scope"] == "OWNER" and env["secrets"] == []
    assert TIMESTAMP.fullmatch(env["created_at"]) and TIMESTAMP.fullmatch(env["updated_at"])
    assert env["request_id"] == r.headers["x-request-id"]
    shown = get(tenant, env["id"])
    assert shown["env_vars"] == {"A": "1"}
    assert get(tenant, env["id"].removeprefix("env_"))["id"] == env["id"]


def test_empty_lists_are_lists(tenant):
    env = ok(post(tenant))
    assert env["repos"] == [] and env["setup_commands"] == [] and env["env_vars"] == {}


def test_text_with_newlines_instead_of_lists(tenant):
    env = ok(post(tenant, repos="acme/a\n\n acme/b \n", setup_commands="one\ntwo"))
    assert env["repos"] == ["acme/a", "acme/b"] and env["setup_commands"] == ["one", "two"]


@pytest.mark.parametrize("field", ["name", "docker_image"])
@pytest.mark.parametrize("value", ["missing", None, "", "   ", 5, [], {}, True])
def test_required_texts(tenant, field, value):
    body = dict(BASE)
    if value == "missing":
        del body[field]
    else:
        body[field] = value
    error = assert_error(tenant.api("POST", "/environments", json=body), 400, ("missing_field", "invalid_field"), field)
    if value in ("missing", None, "", "   "):
        assert error["error"] == f"{field} is required"


@pytest.mark.parametrize("field,value", [
    ("repos", 5), ("repos", {"a": 1}), ("setup_commands", True), ("env_vars", []), ("env_vars", "A=1"),
    ("env_vars", {"A": 1}), ("env_vars", {"A": None}), ("secrets", "x"), ("secrets", [1]), ("name", "x" * 5000),
    ("global", "yes"), ("scope", 5), ("env_vars", {f"K{i}": "v" for i in range(100_000)})])
def test_wrong_types(tenant, field, value):
    r = post(tenant, **{field: value})
    if field == "env_vars" and isinstance(value, dict) and len(value) > 1000:
        assert_error(r, (400, 413))
        return
    error = assert_error(r, 400, "invalid_field")
    assert error["field"].startswith(field)


@pytest.mark.parametrize("key", ["", " ", "1A", "A-B", "A B", "A=B", "Ä", "A\u0000", "A\n"])
def test_variable_names(tenant, key):
    error = assert_error(post(tenant, env_vars={key: "v"}), 400, "invalid_field")
    assert error["field"].startswith("env_vars")


@pytest.mark.parametrize("value", ["x\nB=2", "quote ' \" \\", "", " padded ", "ünïcödé 🚀", "a=b=c", "$HOME `x`", "v" * 30_000])
def test_values_stay_intact(tenant, value):
    env = ok(post(tenant, env_vars={"C": value, "_x1": "y"}))
    assert get(tenant, env["id"])["env_vars"] == {"C": value, "_x1": "y"}


def test_nul_in_a_value_is_refused(tenant):
    assert_error(post(tenant, env_vars={"A": "a\u0000b"}), 400, "invalid_field", "env_vars.A")


@pytest.mark.parametrize("field", ["repos", "setup_commands"])
def test_lists_as_text_have_the_same_limits(tenant, field):
    assert_error(post(tenant, **{field: "a\u0000b"}), 400, "invalid_field", field)
    assert_error(post(tenant, **{field: ["x", "a\u0000b"]}), 400, "invalid_field", f"{field}[1]")
    assert_error(post(tenant, **{field: "x\n" * 101}), 400, "invalid_field", field)
    assert ok(post(tenant, **{field: "x\n\n" * 100}))[field] == ["x"] * 100


def test_commands_with_newlines_stay_whole_in_lists(tenant):
    env = ok(post(tenant, setup_commands=["first\nsecond", "third"]))
    assert env["setup_commands"] in (["first\nsecond", "third"],)


def test_values_are_shown_only_to_the_owner_in_a_single_get(tenant, admin):
    secret = "the-value-that-nobody-sees"
    env = ok(post(tenant, env_vars={"TOKEN": secret}))
    assert secret not in str(env)
    assert secret not in tenant.api("GET", "/environments").text
    assert secret not in admin.api("GET", f"/environments/{env['id']}").text
    updated = tenant.api("PUT", f"/environments/{env['id']}", json={**BASE, "env_vars": {"TOKEN": secret}})
    assert secret not in updated.text and ok(updated)["env_vars"] == {"TOKEN": "<redacted>"}
    run = tenant.create(config={"environment_id": env["id"]})["run_id"]
    assert secret not in tenant.api("GET", f"/agent/runs/{run}").text
    assert get(tenant, env["id"])["env_vars"] == {"TOKEN": secret}


def test_values_are_encrypted_at_rest(make_server):
    server = make_server()
    secret = "plain-text-on-the-disk-would-hold-this"
    client = server.client("t")
    env = ok(post(client, env_vars={"TOKEN": secret}))
    server.stop()
    if server.postgres:
        name = server.database_url.split("///")[1].split("?")[0]
        dump = server.postgres._run("pg_dump", "-h", server.postgres.dir, "-U", "muster", name).stdout
        assert env["id"].removeprefix("env_") in dump and secret not in dump
    files = [p for p in server.data.rglob("*") if p.is_file()]
    assert files and not [p for p in files if secret.encode() in p.read_bytes()]
    server.start()
    assert get(server.client("t"), env["id"])["env_vars"] == {"TOKEN": secret}


def test_redacted_means_as_stored(tenant):
    env = ok(post(tenant, env_vars={"A": "1", "B": "2"}))
    listed = next(e for e in ok(tenant.api("GET", "/environments"))["items"] if e["id"] == env["id"])
    assert listed["env_vars"] == {"A": "<redacted>", "B": "<redacted>"}
    body = {**BASE, "env_vars": {"A": listed["env_vars"]["A"], "C": "3"}}
    ok(tenant.api("PUT", f"/environments/{env['id']}", json=body))
    assert get(tenant, env["id"])["env_vars"] == {"A": "1", "C": "3"}, "B was left out: deleted; A: as stored"


def test_redacted_without_a_stored_value(tenant):
    assert_error(post(tenant, env_vars={"A": "<redacted>"}), 400, "invalid_field")
    env = ok(post(tenant, env_vars={"A": "1"}))
    error = assert_error(tenant.api("PUT", f"/environments/{env['id']}",
                                    json={**BASE, "env_vars": {"Z": "<redacted>"}}), 400, "invalid_field")
    assert error["field"].startswith("env_vars")
    assert get(tenant, env["id"])["env_vars"] == {"A": "1"}, "half done"


def test_put_takes_the_body_whole(tenant):
    env = ok(post(tenant, repos=["a/b"], setup_commands=["x"], env_vars={"A": "1"}))
    put = ok(tenant.api("PUT", f"/environments/{env['id']}", json={"name": "new", "docker_image": "alpine:3"}))
    assert put["id"] == env["id"] and put["name"] == "new" and put["docker_image"] == "alpine:3"
    assert put["repos"] == [] and put["setup_commands"] == [] and put["env_vars"] == {}
    assert put["created_at"] == env["created_at"] and put["updated_at"] >= env["updated_at"]


@pytest.mark.parametrize("body,field", [({"docker_image": "i"}, "name"), ({"name": "n"}, "docker_image"),
                                        ({"name": 1, "docker_image": "i"}, "name")])
def test_put_is_validated_like_create(tenant, body, field):
    env = ok(post(tenant))
    assert_error(tenant.api("PUT", f"/environments/{env['id']}", json=body), 400, None, field)


def test_delete(tenant):
    env = ok(post(tenant))
    assert tenant.api("DELETE", f"/environments/{env['id']}").status_code in (200, 204)
    assert_error(tenant.api("GET", f"/environments/{env['id']}"), 404, "not_found")
    assert_error(tenant.api("DELETE", f"/environments/{env['id']}"), 404, "not_found")
    assert_error(tenant.api("POST", "/agent/run", json={"prompt": "x", "config": {"environment_id": env["id"]}}), 404)


def test_run_keeps_its_environment_after_the_delete(tenant):
    env = ok(post(tenant))["id"]
    run = tenant.create(config={"environment_id": env})["run_id"]
    tenant.api("DELETE", f"/environments/{env}")
    shown = tenant.run(run)
    assert shown["state"] == "PENDING" and shown["agent_config"]["environment_id"] == env


def test_unknown_is_404(tenant):
    for method in ("GET", "PUT", "DELETE"):
        ident = new_run_id().replace("run_", "env_")
        assert_error(tenant.api(method, f"/environments/{ident}", json=BASE), 404, "not_found")


@pytest.mark.parametrize("how", [{"global": True}, {"scope": "GLOBAL"}, {"scope": "global"}])
def test_global_environments(admin, tenant, other, how):
    env = ok(post(admin, **how))
    try:
        assert env["scope"] == "GLOBAL"
        assert get(tenant, env["id"])["scope"] == "GLOBAL"
        assert env["id"] in [e["id"] for e in ok(tenant.api("GET", "/environments", params={"limit": 200}))["items"]]
        assert other.create(config={"environment_id": env["id"]})["state"] == "PENDING"
        for method in ("PUT", "DELETE"):
            r = tenant.api(method, f"/environments/{env['id']}", json=BASE)
            assert r.status_code in (403, 404), f"a tenant may {method} a global environment"
        own = ok(post(tenant, **how))
        assert own["scope"] == "OWNER", "a tenant asking for a global one gets an ordinary one"
        assert other.api("GET", f"/environments/{own['id']}").status_code == 404
    finally:
        assert admin.api("DELETE", f"/environments/{env['id']}").status_code in (200, 204)


def test_global_environment_carries_no_variables(admin):
    assert_error(post(admin, **{"global": True}, env_vars={"A": "1"}), 400)


def test_list_pages_newest_first(tenant):
    made = [ok(post(tenant, name=f"e{i}"))["id"] for i in range(5)]
    ok(tenant.api("PUT", f"/environments/{made[1]}", json={**BASE, "name": "touched"}))
    body = ok(tenant.api("GET", "/environments"))
    assert body["environments"] == body["items"]
    own = [e["id"] for e in body["items"] if e["id"] in made]
    assert own[0] == made[1] and set(own) == set(made)
    seen, cursor = [], None
    for _ in range(200):
        page = ok(tenant.api("GET", "/environments", params={"limit": 2, **({"cursor": cursor} if cursor else {})}))
        assert len(page["items"]) <= 2
        seen += [e["id"] for e in page["items"]]
        cursor = page["next_cursor"]
        if not cursor:
            break
    assert [i for i in seen if i in made] == own and len(seen) == len(set(seen))


@pytest.mark.parametrize("query", [{"limit": "x"}, {"cursor": "nonsense"}])
def test_list_query_errors(tenant, query):
    assert_error(tenant.api("GET", "/environments", params=query), 400, "invalid_field", next(iter(query)))


def test_secret_that_does_not_exist_is_refused(tenant):
    r = post(tenant, secrets=["NO_SUCH_SECRET"])
    assert_error(r, 400, "invalid_field", "secrets")


def test_deleted_environment_keeps_its_place_for_cursors(tenant):
    made = [tenant.environment(name=f"e{i}")["id"] for i in range(3)]
    assert ok(tenant.api("DELETE", f"/environments/{made[1]}"))["success"] is True
    page = ok(tenant.api("GET", "/environments", params={"cursor": made[1]}))
    assert [e["id"] for e in page["items"]] == [made[0]]
