"""GET /agent/runs (oz-api.md 4.4, 5, 15.3): pages, cursors, every filter, what lists cut."""
import datetime
import time
import uuid

import pytest
from harness import TIMESTAMP, assert_error, assert_run, new_run_id, ok, provider_env


def ids(body):
    return [r["run_id"] for r in body["runs"]]


def walk(client, **query):
    """All ids, page by page."""
    seen, cursor, pages = [], None, 0
    while True:
        body = client.list(**query, **({"cursor": cursor} if cursor else {}))
        seen += ids(body)
        pages += 1
        assert pages < 200, "endless pages"
        assert body["page_info"]["has_next_page"] == ("next_cursor" in body["page_info"])
        assert body["next_cursor"] == body["page_info"].get("next_cursor")
        if not body["page_info"]["has_next_page"]:
            return seen
        cursor = body["page_info"]["next_cursor"]


@pytest.fixture(scope="module")
def many(shared):
    """A tenant with 120 runs."""
    with shared.client(f"many-{uuid.uuid4()}") as client:
        made = [client.create(f"run {i}")["run_id"] for i in range(120)]
        for run in made:
            client.wait(run)
        yield client, made[::-1]


def test_empty_list(tenant):
    body = tenant.list()
    assert body["runs"] == [] and body["items"] == [] and body["next_cursor"] is None
    assert body["page_info"] == {"has_next_page": False} and body["request_id"]


def test_default_limit_is_50_newest_first(many):
    client, newest = many
    body = client.list()
    assert ids(body) == newest[:50] and body["items"] == body["runs"]
    assert body["page_info"] == {"has_next_page": True, "next_cursor": newest[49]} and body["next_cursor"] == newest[49]
    for run in body["runs"]:
        assert_run(run, single=False)
        assert "output" not in run


@pytest.mark.parametrize("limit", [1, 7, 50, 119, 120, 121, 200])
def test_pages_give_every_run_once(many, limit):
    client, newest = many
    assert walk(client, limit=limit) == newest


@pytest.mark.parametrize("limit,count", [("0", 1), ("-5", 1), ("201", 120), ("100000", 120)])
def test_limit_is_clamped(many, limit, count):
    client, newest = many
    assert ids(client.list(limit=limit)) == newest[:count]


@pytest.mark.parametrize("limit", ["abc", "1.5", "", "1e2", "0x10", "1 0", "NaN"])
def test_limit_that_is_no_integer(tenant, limit):
    assert_error(tenant.api("GET", "/agent/runs", params={"limit": limit}), 400, "invalid_field", "limit")


@pytest.mark.parametrize("cursor", ["", "x", "run_", "run_123", "run_zzzzzzzz-zzzz-zzzz-zzzz-zzzzzzzzzzzz",
                                    "env_01a1fe54-d629-7f11-a622-99764d56b3dc", "../../etc", "%00", "' OR 1=1 --",
                                    "run_01a1fe54-d629-7f11-a622-99764d56b3dcx"])
def test_malformed_cursor(tenant, cursor):
    assert_error(tenant.api("GET", "/agent/runs", params={"cursor": cursor}), 400, "invalid_field", "cursor")


def test_cursor_with_and_without_prefix(many):
    client, newest = many
    assert ids(client.list(cursor=newest[10], limit=5)) == newest[11:16]
    assert ids(client.list(cursor=newest[10].removeprefix("run_"), limit=5)) == newest[11:16]


def test_unknown_cursor_pages_from_its_place(many):
    client, newest = many
    high, low = "run_ffffffff-ffff-7fff-bfff-ffffffffffff", "run_00000000-0000-7000-8000-000000000000"
    assert ids(client.list(cursor=high, limit=3)) == newest[:3]
    assert ids(client.list(cursor=low)) == []
    between = newest[5][:-12] + ("f" * 12)
    page = ids(client.list(cursor=between, limit=3))
    assert page == [i for i in newest if i < between][:3]


def test_foreign_cursor_shows_nothing_about_it(many, tenant, other):
    client, newest = many
    foreign = other.create()["run_id"]
    mine = tenant.create()["run_id"]
    assert ids(tenant.list(cursor=foreign)) == [i for i in [mine] if i < foreign]
    assert ids(client.list(cursor=foreign, limit=2)) == newest[:2]


def test_deleted_run_still_pages(tenant):
    runs = [tenant.finish(f"r{i}")["run_id"] for i in range(3)]
    assert tenant.api("DELETE", f"/agent/runs/{runs[1]}").status_code in (200, 204)
    assert ids(tenant.list()) == [runs[2], runs[0]]
    assert ids(tenant.list(cursor=runs[1])) == [runs[0]]


def test_paging_is_stable_while_runs_are_created(tenant):
    first = [tenant.create(f"a{i}")["run_id"] for i in range(6)][::-1]
    page = tenant.list(limit=3)
    for i in range(4):
        tenant.create(f"b{i}")
    rest = tenant.list(limit=200, cursor=page["page_info"]["next_cursor"])
    assert ids(page) + ids(rest) == first


def test_legacy_items_can_be_switched_off(make_server):
    client = make_server({"OZ_LIST_LEGACY_ITEMS": "false"}).client("t")
    client.create()
    body = client.list()
    assert len(body["runs"]) == 1 and not body.get("items")


def test_lists_cut_prompt_and_message(tenant):
    long = "ü" * 5000  # 10,000 bytes
    run = tenant.finish(long + " [[big:9000]]")
    assert run["state"] == "SUCCEEDED" and run["prompt"].startswith(long) and len(run["output"]) >= 8999
    item = tenant.list()["runs"][0]
    assert item["prompt_truncated"] is True and item["prompt"] == "ü" * 2048
    assert "output" not in item and len(item["status_message"]["message"].encode()) <= 4096
    assert run["output"].startswith(item["status_message"]["message"][:1000])


def test_prompt_of_4096_bytes_is_whole(tenant):
    tenant.create("p" * 4096)
    item = tenant.list()["runs"][0]
    assert item["prompt"] == "p" * 4096 and not item.get("prompt_truncated")


def test_cut_falls_between_characters(tenant):
    tenant.create("a" + "🚀" * 1100)
    item = tenant.list()["runs"][0]
    assert item["prompt"] == "a" + "🚀" * 1023 and item["prompt_truncated"] is True


def test_message_bytes_setting(make_server, model):
    client = make_server(provider_env(model, OZ_LIST_MESSAGE_BYTES="10")).client("t")
    client.finish("[[echo:0123456789abcdef]]")
    assert client.list()["runs"][0]["status_message"]["message"] == "0123456789"


# --- filters: every one must take something and leave something ---

@pytest.fixture(scope="module")
def mixed(shared):
    """A tenant with runs that differ in everything one can filter by."""
    with shared.client(f"mixed-{uuid.uuid4()}") as client:
        runs = {}
        runs["done"] = client.finish("alpha Bravo charlie", title="Fancy Title", config={"name": "nightly"})["run_id"]
        runs["failed"] = client.finish("delta [[status:400]]", config={"model_id": "model-x"})["run_id"]
        env = client.environment()["id"]
        runs["pending"] = client.create("echo 100%_sure", config={"environment_id": env})["run_id"]
        gone = client.create("foxtrot [[stall]]")["run_id"]
        client.wait(gone, "INPROGRESS")
        assert client.cancel(gone).status_code == 200
        runs["cancelled"] = client.wait(gone)["run_id"]
        pr = "see https://github.com/acme/rocket/pull/7 for it"
        runs["pr"] = client.finish(f"golf [[echo:{pr}]]")["run_id"]
        runs["claude"] = client.finish("hotel", config={"model_id": "claude-x"})["run_id"]
        yield client, runs, env


def only(mixed, expected, **query):
    client, runs, _ = mixed
    got = {name for name, run in runs.items() if run in walk(client, **query)}
    assert got == set(expected)


def test_filter_none(mixed):
    only(mixed, ["done", "failed", "pending", "cancelled", "pr", "claude"])


@pytest.mark.parametrize("states,expected", [
    (["SUCCEEDED"], ["done", "pr", "claude"]), (["FAILED"], ["failed"]), (["PENDING"], ["pending"]),
    (["CANCELLED"], ["cancelled"]), (["FAILED", "CANCELLED"], ["failed", "cancelled"]),
    (["QUEUED", "PENDING", "CLAIMED", "INPROGRESS"], ["pending"]), (["CLAIMED"], []),
    (["SUCCEEDED", "FAILED", "CANCELLED", "PENDING"], ["done", "failed", "pending", "cancelled", "pr", "claude"]),
    (["FAILED", "FAILED"], ["failed"])])
def test_filter_state(mixed, states, expected):
    only(mixed, expected, state=states)


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_filter_states_over_pages_keeps_the_order(mixed, limit):
    client, runs, _ = mixed
    got = walk(client, state=["SUCCEEDED", "FAILED", "CANCELLED"], limit=limit)
    assert got == sorted(got, reverse=True) and len(got) == 5


@pytest.mark.parametrize("query,expected", [
    ({"source": "API"}, ["done", "failed", "pending", "cancelled", "pr", "claude"]), ({"source": "SLACK"}, []),
    ({"name": "nightly"}, ["done"]), ({"name": "night"}, []), ({"model_id": "model-x"}, ["failed"]),
    ({"model_id": "nope"}, []), ({"artifact_type": "PULL_REQUEST"}, ["pr"]), ({"artifact_type": "PLAN"}, []),
    ({"schedule_id": "01a1fe8d-55d1-7039-b28e-c5679de1958e"}, []), ({"skill": "a/b:c"}, []), ({"skill_spec": "a/b:c"}, []),
    ({"q": "bravo"}, ["done"]), ({"q": "CHARLIE alpha"}, ["done"]), ({"q": "fancy"}, ["done"]),
    ({"q": "alpha delta"}, []), ({"q": "0%_s"}, ["pending"]), ({"q": "%"}, ["pending"]), ({"q": "_"}, ["pending"]),
    ({"q": "olf"}, ["pr"]), ({"q": "   "}, ["done", "failed", "pending", "cancelled", "pr", "claude"]),
    ({"q": "hotel", "state": "SUCCEEDED"}, ["claude"]), ({"q": "hotel", "state": "FAILED"}, []),
    ({"name": "nightly", "source": "API", "q": "alpha"}, ["done"])])
def test_filters(mixed, query, expected):
    only(mixed, expected, **query)


def test_filter_environment(mixed):
    only(mixed, ["pending"], environment_id=mixed[2])
    only(mixed, [], environment_id="debian:12")


def test_filter_creator(mixed):
    client, runs, _ = mixed
    me = client.run(runs["done"])["creator"]["uid"]
    only(mixed, list(runs), creator=me)
    only(mixed, [], creator="0" * 64)


def test_filter_times(mixed):
    client, runs, _ = mixed
    at = {name: client.run(run)["created_at"] for name, run in runs.items()}
    order = sorted(runs, key=lambda n: runs[n])
    third = datetime.datetime.fromisoformat(at[order[2]].replace("Z", "+00:00"))
    just_before = (third - datetime.timedelta(milliseconds=1)).isoformat().replace("+00:00", "Z")
    got = walk(client, created_after=just_before)
    assert all(runs[n] in got for n in order[2:])
    assert not any(runs[n] in got for n in order[:2] if at[n] < just_before)
    got = walk(client, created_before=at[order[2]])
    assert all(runs[n] in got for n in order[:2] if at[n] < at[order[2]]) and not any(runs[n] in got for n in order[3:])
    assert walk(client, created_after="2000-01-01T00:00:00Z", created_before="2000-01-02T00:00:00Z") == []
    assert walk(client, updated_after="2100-01-01T00:00:00Z") == []
    assert len(walk(client, updated_after="2000-01-01T00:00:00+02:00")) == 6


def test_updated_after_follows_changes(tenant):
    old = tenant.finish("old")["run_id"]
    slow = tenant.create("[[slow:4:2]]")["run_id"]
    time.sleep(0.5)
    mark = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    tenant.wait(slow)
    got = walk(tenant, updated_after=mark)
    assert slow in got and old not in got


@pytest.mark.parametrize("query", [
    {"state": "NOPE"}, {"state": "succeeded"}, {"state": ""}, {"source": "nope"}, {"artifact_type": "X"},
    {"created_after": "yesterday"}, {"created_before": "2026-13-01T00:00:00Z"}, {"updated_after": "1700000000"},
    {"created_after": "2026-01-01"}, {"updated_after": "2026-01-01T00:00:00"}, {"schedule_id": "nope"}, {"created_after": ""}])
def test_filters_out_of_range_are_named(tenant, query):
    field = next(iter(query))
    assert_error(tenant.api("GET", "/agent/runs", params=query), 400, "invalid_field", field)


@pytest.mark.parametrize("field", ["name", "model_id", "environment_id", "creator", "schedule_id", "skill", "q"])
def test_filter_of_absurd_length(tenant, field):
    r = tenant.api("GET", "/agent/runs", params={field: "x" * 5000})
    assert r.status_code in (200, 400), r.text
    if r.status_code == 400:
        assert_error(r, 400, "invalid_field", field)


def test_unknown_query_keys_are_ignored(tenant):
    tenant.create()
    assert len(ok(tenant.api("GET", "/agent/runs", params={"brand_new": "1", "a[b]": "c"}))["runs"]) == 1


@pytest.mark.parametrize("raw", ["state=%zz", "limit=%", "q=%ff%fe", "cursor=%00", "a=b&&=&c", "q=a+b%20c"])
def test_odd_query_encodings(tenant, raw):
    r = tenant.get(f"/api/v1/agent/runs?{raw}")
    assert r.status_code in (200, 400), r.text
    if r.status_code == 400:
        assert_error(r, 400)


def test_times_are_well_formed_everywhere(mixed):
    client, runs, _ = mixed
    for run in client.list()["runs"]:
        for name in ("created_at", "updated_at"):
            assert TIMESTAMP.fullmatch(run[name])


def test_pull_request_artifact_of_an_in_process_run(mixed):
    client, runs, _ = mixed
    (artifact,) = client.run(runs["pr"])["artifacts"]
    assert artifact["artifact_type"] == "PULL_REQUEST" and TIMESTAMP.fullmatch(artifact["created_at"])
    assert artifact["data"]["url"] == "https://github.com/acme/rocket/pull/7" and artifact["data"]["branch"]


def test_scan_filters_page_through_more_than_a_scan_reads(shared):
    """Filters without an index read a bounded number of rows: short pages with a cursor, nothing lost."""
    with shared.client(f"scan-{uuid.uuid4()}") as client:
        needle = client.create("x", config={"name": "needle", "environment_id": "img:1"})["run_id"]
        for i in range(2100):
            client.create("hay", config={"environment_id": "img:1"})
        assert walk(client, name="needle", limit=200) == [needle]
        assert len(walk(client, limit=200)) == 2101


def test_list_of_a_tenant_without_runs_with_any_cursor(tenant):
    assert ids(tenant.list(cursor=new_run_id())) == []


def test_page_of_large_rows_is_short(tenant):
    """What a row holds is the caller's choice: a page ends by its bytes too, and the cursor goes on."""
    made = [tenant.create(config={"base_prompt": "é" * 99_999})["run_id"] for _ in range(60)][::-1]
    for query in ({}, {"state": ["QUEUED", "INPROGRESS", "SUCCEEDED", "FAILED"]}):
        first = tenant.list(limit=200, **query)
        assert (0 if query else 30) < len(first["runs"]) < 60 and first["page_info"]["has_next_page"] is True
        assert walk(tenant, limit=200, **query) == made
