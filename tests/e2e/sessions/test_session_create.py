"""POST /sessions (village-control-plane.md 4.2, 15.2, 15.3)."""
import concurrent.futures
import json

import harness
import pytest
from village import REPO, SESSION_ID, Village, data, issues, refused


def test_the_readme_call(village):
    response = village.post()
    session = data(response, 201)
    assert response.headers["location"] == f"/api/v1/sessions/{session['sessionId']}"
    assert SESSION_ID.fullmatch(session["sessionId"])
    assert session["state"] == "CREATED"
    assert session["orgId"] == village.org and session["providerId"] == "codex"
    assert session["repo"] == REPO and session["repoUrl"] == REPO["url"]
    assert session["taskSummary"] == "Implement user authentication"
    assert session["usage"] == {"tokensIn": 0, "tokensOut": 0, "apiCalls": 0, "computeSeconds": 0}
    assert session["pendingApprovals"] == [] and session["artifacts"] == []
    assert session["timeoutMinutes"] == 60 and session["mode"] == "task"
    assert session["startedAt"] == session["createdAt"] and "completedAt" not in session
    now = village.get(session["sessionId"])
    assert now["state"] == "QUEUED" and now["queueReason"] == "no_online_runner"
    assert [e["type"] for e in now["recentEvents"]] == ["SESSION_CREATED"]


def test_me_is_the_callers_org(village):
    assert village.create(orgId="me")["orgId"] == village.org


def test_another_org_is_forbidden_and_the_administrators(village, boss):
    refused(village.post(orgId="org-123"), 403, "FORBIDDEN")
    session = boss.create(orgId="org-123")
    assert session["orgId"] == "org-123"
    assert boss.list(orgId="org-123")["items"][0]["sessionId"] == session["sessionId"]
    refused(village("GET", f"/sessions/{session['sessionId']}"), 404, "SESSION_NOT_FOUND")
    assert issues(boss.post(orgId="o" * 40)) == {"orgId": "too_big"}


def test_an_org_that_the_administrator_names_gets_keys_by_that_name(oz, boss):
    for org in ("team-of-one", "team-of-two"):
        session = boss.create(orgId=org)["sessionId"]
        key = boss("POST", "/keys", json={"name": f"key of {org}", "tenant": org}).json()["key"]
        with oz.client(key) as client:
            theirs = Village(client)
            assert theirs.org == org and theirs.list()["items"][0]["sessionId"] == session
            assert theirs.create()["orgId"] == org


@pytest.mark.parametrize("provider, shown", [("codex", "codex"), ("claude_code", "claude_code"), ("gemini_cli", "gemini_cli"),
                                             ("opencode", "opencode"), ("shell", "shell"), ("custom", "custom")])
def test_providers(village, provider, shown):
    assert village.create(providerId=provider)["providerId"] == shown


@pytest.mark.parametrize("provider", ["omnara", "nobody", "CODEX", "claude-code"])
def test_other_providers_are_invalid(village, provider):
    refused(village.post(providerId=provider), 400, "INVALID_PROVIDER")


@pytest.mark.parametrize("value", [None, 5, "", ["codex"]])
def test_a_provider_that_is_no_text_is_a_validation_error(village, value):
    body = village.request()
    body["providerId"] = value
    assert "providerId" in issues(village("POST", "/sessions", json=body))


@pytest.mark.parametrize("url", ["https://github.com/a/b.git", "ssh://git@example.com/a/b", "git+ssh://git@example.com/a/b",
                                 "git@github.com:a/b.git", "https://example.com:8443/deep/er/path"])
def test_repositories(village, url):
    assert village.create(repo={"url": url})["repoUrl"] == url


@pytest.mark.parametrize("url", ["", "x", "owner/name", "/etc/passwd", "../x", "file:///etc/x", "http://example.com/a",
                                 "git://example.com/a", "ext::sh -c x", "https://token@github.com/a/b",
                                 "https://u:p@github.com/a/b", "ssh://u:p@h/p", "--upload-pack=x", "-x@h:p",
                                 "https://github.com/a/b#main", "https://github.com/a/b?x", "https://github.com", "x" * 3000])
def test_what_is_no_repository(village, url):
    assert set(issues(village.post(repo={"url": url}))) == {"repo.url"}


@pytest.mark.parametrize("repo, path", [({"branch": "-x"}, "repo.branch"), ({"branch": "a..b"}, "repo.branch"),
                                        ({"branch": "a b"}, "repo.branch"), ({"branch": "x" * 256}, "repo.branch"),
                                        ({"commit": "abc"}, "repo.commit"), ({"commit": "g" * 40}, "repo.commit"),
                                        ({"tag": "v1", "branch": "main"}, "repo.tag"),
                                        ({"tag": "v1", "commit": "abcdef0"}, "repo.tag")])
def test_what_is_no_ref(village, repo, path):
    assert set(issues(village.post(repo={"url": REPO["url"], **repo}))) == {path}


def test_local_repositories_only_where_the_operator_lets(make_server):
    server = make_server({"OZ_ALLOW_LOCAL_REPOS": "on"})
    with server.client("t") as client:
        village = Village(client)
        for url in ("/srv/repo", "file:///srv/repo", "http://127.0.0.1:8000/r", "git://127.0.0.1/r"):
            assert village.create(repo={"url": url})["repoUrl"] == url
        assert issues(village.post(repo={"url": "ext::x"})) == {"repo.url": "invalid_url"}


def test_the_summary_is_cut_on_a_code_point(village):
    assert village.create(task="🚀" * 150)["taskSummary"] == "🚀" * 100
    assert village.create(task="ä" * 100)["taskSummary"] == "ä" * 100
    assert village.create(task="  short \n")["taskSummary"] == "short"


def test_the_longest_task(village):
    assert village.create(task="🚀" * 100_000)["state"] == "CREATED"
    assert issues(village.post(task="x" * 100_001)) == {"task": "too_big"}


def test_a_structured_task(village, tenant):
    session = village.create(task=None, taskSpec={"title": "Login", "goal": "People sign in", "constraints": ["no new tables"],
                                                  "acceptance": ["tests pass"], "branchName": "login"})
    prompt = tenant.run(session["sessionId"].replace("ses_", "run_"))["prompt"]
    for part in ("Login", "People sign in", "- no new tables", "- tests pass", "branch login"):
        assert part in prompt
    assert issues(village.post(taskSpec={"title": "t", "goal": "g"})) == {"taskSpec": "invalid_format"}
    assert issues(village.post(task=None, taskSpec={"title": "t"})) == {"taskSpec.goal": "required"}


def test_without_a_task_it_is_interactive(village):
    assert village.create(task=None)["mode"] == "interactive"
    assert village.create(options={"mode": "interactive"})["mode"] == "interactive"
    assert issues(village.post(task=None, options={"mode": "task"})) == {"task": "required"}


def test_the_first_task_of_an_interactive_session_is_its_first_prompt(village):
    session = village.create(options={"mode": "interactive"})["sessionId"]
    prompts = data(village("GET", f"/sessions/{session}/prompts"))["items"]
    assert [(p["prompt"], p["state"]) for p in prompts] == [("Implement user authentication", "queued")]
    assert [e["type"] for e in village.events(session)["events"]] == ["SESSION_CREATED", "TURN_QUEUED"]


def test_values_of_variables_are_never_seen_again(village, tenant, oz):
    secret = "hunter2-is-no-secret"
    oz.secrets.append(secret)
    session = village.create(task=f"use {secret} please", options={"env": {"DB_PASSWORD": secret, "EMPTY": ""}})
    run = session["sessionId"].replace("ses_", "run_")
    shown = json.dumps([session, village.get(session["sessionId"]), village.list(), village.events(session["sessionId"])])
    assert secret not in shown and "use *** please" in shown
    assert secret not in json.dumps({k: v for k, v in tenant.run(run).items() if k != "prompt"})
    database = oz.data / "muster.db"
    if database.exists():  # the task itself says it; the variable's value is nowhere in clear
        held = b"".join(p.read_bytes() for p in oz.data.glob("muster.db*"))
        assert held.count(b'"DB_PASSWORD":"') == 0


@pytest.mark.parametrize("env, path", [({"OZ_X": ""}, "options.env.OZ_X"), ({"LD_PRELOAD": ""}, "options.env.LD_PRELOAD"),
                                       ({"GIT_CONFIG_COUNT": ""}, "options.env.GIT_CONFIG_COUNT"),
                                       ({"BASH_ENV": ""}, "options.env.BASH_ENV"), ({"A-B": ""}, "options.env.A-B"),
                                       ({"A": "x" * 32769}, "options.env.A"),
                                       ({f"K{i}": "" for i in range(65)}, "options.env"),
                                       ({f"K{i}": "x" * 32768 for i in range(9)}, "options.env")])
def test_variables_that_are_refused(village, env, path):
    assert set(issues(village.post(options={"env": env}))) == {path}


def test_an_environment_of_ones_own(village, tenant, stranger, other):
    own = tenant.environment(env_vars={"A": "b"})["id"]
    assert village.create(options={"environmentId": own})["environmentId"] == own.removeprefix("env_")
    theirs = other.environment()["id"]
    for wrong in (theirs, "env_x", "debian:12"):
        assert set(issues(village.post(options={"environmentId": wrong}))) == {"options.environmentId"}


def test_the_policy_reaches_the_sandbox(village, tenant):
    env = tenant.environment(sandbox={"limits": {"memory_mb": 512}, "network": {"allow": ["a.example:443"]}})["id"]
    policy = {"memoryMb": 1024, "maxProcesses": 64, "egressAllowlist": ["b.example", "c.example:8443"], "requiresApprovalFor": ["merge"]}
    assert village.create(options={"environmentId": env, "policy": policy})["state"] == "CREATED"
    assert village.create(options={"features": ["network:proxy", "limits"]})["state"] == "CREATED"
    assert issues(village.post(options={"policy": {"egressAllowlist": ["UPPER.example", "10.0.0.1:1", "ok.example"]},
                                        "features": ["limits", "gpu"]})) == {
        "options.policy.egressAllowlist[0]": "invalid_format", "options.policy.egressAllowlist[1]": "invalid_format",
        "options.features[1]": "invalid_enum"}


def test_permissions_are_skipped_only_where_the_operator_lets(village, boss, make_server):
    skip = {"dangerouslySkipPermissions": True}
    refused(village.post(options=skip), 403, "FORBIDDEN")
    assert boss.create(options=skip)["state"] == "CREATED"
    server = make_server({"OZ_ALLOW_SKIP_PERMISSIONS": "on"})
    with server.client("t") as client:
        assert Village(client).create(options=skip)["state"] == "CREATED"


def test_a_key_makes_it_safe_to_try_again(village, stranger):
    key = {"Idempotency-Key": "once"}
    first = village.post(key)
    again = village.post(key)
    assert data(first, 201)["sessionId"] == data(again, 201)["sessionId"]
    assert "idempotent-replay" not in first.headers and again.headers["idempotent-replay"] == "true"
    assert again.headers["location"] == first.headers["location"]
    assert again.json()["data"]["state"] == "QUEUED"  # as it is now
    refused(village.post(key, task="another"), 409, "IDEMPOTENCY_CONFLICT")
    assert data(stranger.post(key), 201)["sessionId"] != first.json()["data"]["sessionId"]
    assert village.list()["total"] == 1
    assert set(issues(village.post({"Idempotency-Key": "x" * 256}))) == {"Idempotency-Key"}


def test_the_limit_of_an_org(make_server):
    server = make_server({"OZ_MAX_SESSIONS_PER_ORG": "3"})
    with server.client("one") as one, server.client("two") as two:
        village = Village(one)
        held = [village.create()["sessionId"] for _ in range(3)]
        refused(village.post(), 429, "SESSION_LIMIT_EXCEEDED")
        assert village.list()["total"] == 3
        Village(two).create()
        one.create("a run of the Oz API is never refused for it", config={"environment_id": "debian:12"})
        assert village.stop(held[0]).status_code == 200
        village.create()
        refused(village.post(), 429, "SESSION_LIMIT_EXCEEDED")


def test_two_at_once_for_the_last_place(make_server):
    server = make_server({"OZ_MAX_SESSIONS_PER_ORG": "5"})
    with server.client("racer") as client:
        village = Village(client)
        for _ in range(4):
            village.create()
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: village.post().status_code, range(8)))
        assert sorted(answers) == [201] + [429] * 7
        assert village.list()["total"] == 5


def test_a_created_session_survives_a_kill(make_server):
    server = make_server()
    with server.client("t") as client:
        session = Village(client).create(metadata={"a": "b"}, options={"env": {"A": "b"}})["sessionId"]
    server.kill9()
    server.start()
    with server.client("t") as client:
        found = Village(client).get(session)
        assert found["state"] == "QUEUED" and found["metadata"] == {"a": "b"}


