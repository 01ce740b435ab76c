"""GET /agent: the skills of the caller's repositories, asked of a worker (oz-api.md 15.1, oz-worker.md 16)."""
import concurrent.futures
import signal
import socket
import time
import urllib.parse

import git_remote
import oz_agent_sdk
import pytest
import worker_daemon
from fleet import settled
from harness import ADMIN_KEY, assert_error, eventually, ok
from worker_peers import Native, W

REVIEW = """\
---
name: review
description: "Reads a change: carefully"
allowed-tools: [Read, Grep]
---

Read the change. Say what is wrong.
"""
BROKEN = "---\nname: broken front\ndescription: Use this: often\n  - and [badly\n---\nIts text.\n"
FILES = {".agents/skills/review/SKILL.md": REVIEW,
         ".claude/skills/deep/er/deploy/SKILL.md": "No front matter.\r\nTwo lines.\r\n",
         ".codex/skills/odd/SKILL.md": BROKEN,
         ".claude/skills/a/b/c/d/e/SKILL.md": "too deep",
         ".claude/skills/big/SKILL.md": "x" * 65537,
         ".claude/skills/bytes/SKILL.md": b"---\nname: \xff\n---\n",
         ".claude/skills/review/README.md": "no skill",
         "skills/elsewhere/SKILL.md": "elsewhere"}
LINKS = {".claude/skills/linked/SKILL.md": "/etc/passwd", ".codex/skills/folder": "../../skills/elsewhere"}


def agents(client, **query):
    body = ok(client.api("GET", "/agent?" + urllib.parse.urlencode(query)))
    assert body["items"] == body["agents"] and body["truncated"] is False
    return body


def names(body):
    return [a["name"] for a in body["agents"]]


def reader(oz, worker_id, **more):
    return Native(oz, worker_id, features=["skills"], **more)


def asked(peer, repo=None):
    data = peer.expect("command")
    assert data["command"] == "skills" and (repo is None or data["repo"] == repo), data
    return data


def say(peer, question, *skills, **more):
    peer.send("command_result", {"command_id": question["command_id"], "ok": True, "skills": list(skills), **more})


def skill(name="s", path=".agents/skills/s/SKILL.md", **more):
    return {"name": name, "description": "d", "path": path, "base_prompt": "p", **more}


@pytest.fixture
def background():
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        yield pool.submit


@pytest.fixture
def peers():
    made = []
    yield made.append
    for p in made:
        if p.open:
            p.close()


@pytest.mark.engine_free
def test_a_real_worker_reads_a_real_repository(make_server):
    oz = make_server()
    client = oz.client("a-tenant-token")
    oz.key = ADMIN_KEY
    daemon = worker_daemon.Daemon(oz).start()
    try:
        with git_remote.serving("tools", links=LINKS, **FILES) as url:
            env = client.environment(name="tools env", repos=[url])
            eventually(lambda: [w for w in ok(oz.client().api("GET", "/workers"))["workers"] if w["connected"] and w["version"]])
            body = agents(client)
            assert names(body) == ["broken front", "deploy", "review"] and body["unavailable"] == []
            review = body["agents"][2]["variants"]
            port = urllib.parse.urlsplit(url).port
            assert port and review == [{
                "id": "tools:.agents/skills/review/SKILL.md", "description": "Reads a change: carefully",
                "base_prompt": "Read the change. Say what is wrong.",
                "environments": [{"uid": env["environment_id"], "name": "tools env"}],
                "source": {"owner": "", "name": "tools", "skill_path": ".agents/skills/review/SKILL.md"},
                "last_run_timestamp": None}]
            assert body["agents"][0]["variants"][0]["description"] == "Use this: often"
            assert body["agents"][1]["variants"][0]["base_prompt"] == "No front matter.\nTwo lines."

            sdk = oz_agent_sdk.OzAPI(api_key="a-tenant-token", base_url=oz.url + "/api/v1")
            listed = sdk.agent.list().agents
            assert [a.name for a in listed] == names(body)
            assert listed[2].variants[0].source.skill_path == ".agents/skills/review/SKILL.md"
            assert sdk.agent.list(repo="other/one").agents == []

            # what was pushed meanwhile is seen when it is asked for
            git_remote.push(url, **{".agents/skills/new/SKILL.md": "new text"})
            assert names(agents(client)) == names(body)
            time.sleep(5.1)  # a mirror is not fetched more often
            assert "new" in names(agents(client, refresh="true"))

            # another branch is another repository; one that is not there says so
            client.environment(name="side", repos=[url + "#nowhere"])
            body = agents(client)
            assert "review" in names(body)
            assert [u["repo"] for u in body["unavailable"]] == ["tools#nowhere"]
            assert "no branch or tag" in body["unavailable"][0]["message"]
    finally:
        daemon.stop()
        daemon.remove()


def test_without_a_worker_there_are_none(make_server, peers):
    oz = make_server()
    client = oz.client("t" * 20)
    client.environment(repos=["acme/tools"])
    assert agents(client)["agents"] == []
    plain, silent = W(oz, "w-plain"), Native(oz, "w-without")
    peers(plain), peers(silent)
    assert agents(client)["agents"] == [] and agents(client)["unavailable"] == []
    settled(silent)
    assert not [m for m in silent.messages if m["type"] == "command"]


def test_names_group_and_sort(make_server, background, peers):
    oz = make_server()
    client = oz.client("t" * 20)
    env = client.environment(name="one", repos=["acme/tools", "https://github.com/acme/other.git"])
    two = client.environment(name="two", repos="https://github.com/acme/tools")
    worker = reader(oz, "w-1")
    peers(worker)
    ok(client.api("POST", "/agent/run", json={"skill": "tools:zeta", "config": {"environment_id": env["environment_id"]}}))
    answer = background(agents, client)
    for _ in range(2):
        q = asked(worker)
        found = [skill("alpha")] if "other" in q["repo"] else [skill("zeta", ".codex/skills/z/SKILL.md"), skill("alpha")]
        say(worker, q, *found)
    body = answer.result(30)
    assert names(body) == ["alpha", "zeta"]
    alpha, zeta = (a["variants"] for a in body["agents"])
    assert {v["id"] for v in alpha} == {"acme/tools:.agents/skills/s/SKILL.md", "acme/other:.agents/skills/s/SKILL.md"}
    assert {e["uid"] for e in zeta[0]["environments"]} == {env["environment_id"], two["environment_id"]}
    assert zeta[0]["source"] == {"owner": "acme", "name": "tools", "skill_path": ".codex/skills/z/SKILL.md"}
    assert zeta[0]["last_run_timestamp"] and not alpha[0]["last_run_timestamp"]
    assert names(agents(client, sort_by="last_run")) == ["zeta", "alpha"]
    assert names(agents(client, repo="acme/tools")) == ["alpha", "zeta"]
    assert names(agents(client, repo="acme/other")) == ["alpha"] and names(agents(client, repo="acme/none")) == []
    settled(worker)
    assert len([m for m in worker.messages if m["type"] == "command"]) == 2, "what is known is not asked again"


@pytest.mark.parametrize("bad", [
    {"ok": True}, {"ok": True, "skills": "none"}, {"ok": True, "skills": {"name": "x"}}, {"ok": "yes", "skills": []},
    {"ok": False, "code": 7, "message": {"x": 1}}, {"ok": False, "message": "\x1b[31mno\n\x00" * 300}])
def test_garbage_is_an_error_of_that_repository(make_server, background, peers, bad):
    oz = make_server()
    client = oz.client("t" * 20)
    client.environment(repos=["acme/tools"])
    worker = reader(oz, "w-1")
    peers(worker)
    answer = background(agents, client)
    q = asked(worker)
    worker.send("command_result", {"command_id": q["command_id"], **bad})
    body = answer.result(30)
    assert body["agents"] == [] and [u["repo"] for u in body["unavailable"]] == ["acme/tools"]
    message = body["unavailable"][0]["message"]
    assert message and len(message) <= 200 and not any(ord(c) < 32 for c in message)
    assert agents(client)["unavailable"] == body["unavailable"]  # remembered: nobody answers a second question
    worker.ping_pong(b"alive")


def test_only_what_can_be_believed_of_an_answer_is_kept(make_server, background, peers):
    oz = make_server()
    client = oz.client("t" * 20)
    client.environment(repos=["acme/tools"])
    worker = reader(oz, "w-1")
    peers(worker)
    bad = [None, 7, "x", [], {}, skill(""), skill("a\nb"), skill("\x7f"), skill("n" * 201), skill(name=None), skill(path=""),
           skill(path="/etc/passwd"), skill(path="a/../b"), skill(path="a//b"), skill(path="p" * 513), skill(path="a\x00b"),
           skill(base_prompt="x" * 32769), skill(base_prompt="\x1b[2J"), skill(description="d" * 4097)]
    answer = background(agents, client)
    q = asked(worker)
    worker.send("command_result", {"command_id": "0197a000-0000-7000-8000-000000000001", "ok": True, "skills": [skill("foreign")]})
    worker.send("command_result", {"command_id": ["x"], "ok": True, "skills": [skill("foreign")]})
    say(worker, q, *bad, *[skill(f"s{i:03}", f"a/{i}/SKILL.md", description=7, base_prompt="y" * 30000) for i in range(40)])
    body = answer.result(30)
    assert 30 <= len(body["agents"]) < 40 and names(body)[0] == "s000", "a MiB of texts and no more"
    say(worker, q, skill("twice"))
    settled(worker)
    assert names(agents(client)) == names(body)


def test_a_worker_that_leaves_is_replaced_and_one_that_is_silent_costs_its_time(make_server, background, peers):
    oz = make_server()
    client = oz.client("t" * 20)
    client.environment(repos=["acme/tools"])
    first = reader(oz, "w-1")
    peers(first)
    answer = background(agents, client)
    asked(first)
    second = reader(oz, "w-2")
    peers(second)
    first.abort()
    say(second, asked(second), skill("kept"))
    assert names(answer.result(30)) == ["kept"]

    began = time.monotonic()
    answer = background(agents, client, refresh="true")
    late = asked(second)
    body = answer.result(30)
    assert 18 < time.monotonic() - began < 25
    assert body["agents"] == [] and "in time" in body["unavailable"][0]["message"]
    say(second, late, skill("late"))
    eventually(lambda: names(agents(client)) == ["late"], what="the late answer")

    answer = background(agents, client, refresh="true")
    asked(second)
    second.abort()
    assert answer.result(30)["unavailable"] == [{"repo": "acme/tools", "message": "the worker left"}]


def test_one_question_for_many_askers_and_none_of_another_tenants(make_server, background, peers):
    oz = make_server()
    alice, bob = oz.client("alice" * 5), oz.client("bob" * 8)
    for client in (alice, bob):
        client.environment(repos=["acme/tools"])
    worker = reader(oz, "w-1")
    peers(worker)
    answers = [background(agents, alice) for _ in range(5)]
    q = asked(worker, "acme/tools")
    assert "env_vars" not in q
    time.sleep(0.5)
    say(worker, q, skill("of-alice"))
    assert {tuple(names(a.result(30))) for a in answers} == {("of-alice",)}
    answer = background(agents, bob)
    say(worker, asked(worker), skill("of-bob"))
    assert names(answer.result(30)) == ["of-bob"] and names(agents(alice)) == ["of-alice"]


def test_a_token_of_the_environment_goes_along_and_keeps_its_answer_apart(make_server, background, peers):
    oz = make_server()
    client = oz.client("t" * 20)
    vars_ = {"GH_TOKEN": "second-choice", "GITHUB_ACCESS_TOKEN": "word-one", "OTHER": "never-told"}
    env = client.environment(repos=["acme/private", "https://git.example.org/acme/other"], env_vars=vars_)
    worker = reader(oz, "w-1")
    peers(worker)
    answer = background(agents, client)
    questions = {q["repo"]: q for q in (asked(worker), asked(worker))}
    assert questions["acme/private"]["env_vars"] == {"GITHUB_ACCESS_TOKEN": "word-one"}
    assert "env_vars" not in questions["https://git.example.org/acme/other"]
    for q in questions.values():
        say(worker, q, skill("seen-with-one"))
    assert names(answer.result(30)) == ["seen-with-one"]
    changed = {"name": "e", "docker_image": "debian:12", "repos": ["acme/private"], "env_vars": {"GITHUB_ACCESS_TOKEN": "word-two"}}
    ok(client.api("PUT", f"/environments/{env['environment_id']}", json=changed))
    answer = background(agents, client)
    q = asked(worker, "acme/private")
    assert q["env_vars"] == {"GITHUB_ACCESS_TOKEN": "word-two"}
    say(worker, q)
    assert names(answer.result(30)) == []
    assert "word-one" not in str(oz.log) and "word-two" not in str(oz.log)


def test_stop_does_not_wait_for_a_silent_worker(make_server, background, peers):
    oz = make_server()
    client = oz.client("t" * 20)
    client.environment(repos=["acme/tools"])
    worker = reader(oz, "w-1")
    peers(worker)
    answer = background(client.api, "GET", "/agent")
    asked(worker)
    began = time.monotonic()
    oz.signal(signal.SIGTERM)
    assert answer.result(15).status_code == 503
    assert oz.wait_exit() == 0 and time.monotonic() - began < 15


@pytest.mark.engine_free
def test_a_worker_ends_while_it_fetches(make_server, background):
    """A server that takes the connection and never answers: git is ended with the worker."""
    oz = make_server()
    client = oz.client("t" * 20)
    oz.key = ADMIN_KEY
    daemon = worker_daemon.Daemon(oz).start()
    try:
        with socket.socket() as hole:
            hole.bind(("127.0.0.1", 0))
            hole.listen()
            client.environment(repos=[f"git://127.0.0.1:{hole.getsockname()[1]}/acme/tools"])
            daemon.wait_log("link.native")
            answer = background(agents, client)
            hole.settimeout(15)
            peer, _ = hole.accept()
            daemon.stop()
            assert answer.result(30)["agents"] == []
            peer.close()
    finally:
        daemon.stop(code=None)
        daemon.remove()


@pytest.mark.parametrize("query, field", [
    ("sort_by=size", "sort_by"), ("sort_by=", "sort_by"), ("refresh=maybe", "refresh"), ("refresh=1", "refresh"),
    ("repo=", "repo"), ("repo=noslash", "repo"), ("repo=--upload-pack%3Dx/y", "repo"), ("repo=a/b%20c", "repo"),
    ("repo=/etc", "repo"), ("repo=ext::sh/x", "repo"), ("repo=file:///etc/x", "repo"), ("repo=a/b%23..x", "repo"),
    ("repo=" + "a" * 150 + "/" + "b" * 60, "repo"), ("repo=a/b%0Ac", "repo"), ("repo=../..", "repo")])
def test_bad_questions_name_the_field(tenant, query, field):
    assert_error(tenant.api("GET", "/agent?" + query), 400, "invalid_field", field)
