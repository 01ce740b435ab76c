"""The main story of the worker (done-when 1): an environment over the API, a run in it with the embedded worker in the
namespace sandbox, with the shell and the real claude, codex and opencode: each edits a file in a cloned repository and
commits it; output and patch come back. The model server is reached through a forward of the broker."""
import json
import urllib.parse

import git_remote
import harness
import pytest
from harness import ROOT, eventually, ok

pytestmark = [pytest.mark.engine_free, pytest.mark.timeout(300)]
EDITED = "agent-was-here.txt"
INSIDE = 18081  # loopback port inside, forwarded to the model server


@pytest.fixture(scope="module")
def modules(request):
    path = ROOT / request.config.getoption("--agents") / "node_modules"
    assert path.is_dir(), f"the agents are not installed in {path}: script/test installs them"
    return path


@pytest.fixture(scope="module")
def remote():
    with git_remote.serving(README="one\n") as url:
        yield url


def base(model, name, v1=True):
    """The model server's address as it is inside."""
    url = urllib.parse.urlsplit(model.base(name, v1=v1))
    return url._replace(netloc=f"127.0.0.1:{INSIDE}").geturl()


def claude(model):
    return "claude-code", {"ANTHROPIC_BASE_URL": base(model, "claude", v1=False), "ANTHROPIC_API_KEY": "a-key",
                           "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_AUTOUPDATER": "1"}, []


def codex(model):
    lines = ['model = "fake-model"', 'model_provider = "fake"', "check_for_update_on_startup = false", "[analytics]",
             "enabled = false", "[model_providers.fake]", 'name = "Fake"', f'base_url = "{base(model, "codex")}"',
             'env_key = "FAKE_KEY"', 'wire_api = "responses"', "request_max_retries = 1", "stream_max_retries = 1"]
    write = "mkdir -p ~/.codex && printf '%s\\n' " + " ".join(f"'{line}'" for line in lines) + " > ~/.codex/config.toml"
    return "codex", {"FAKE_KEY": "a-key"}, [write]


def opencode(model):
    config = {"model": "fake/fake-model", "small_model": "fake/fake-model", "autoupdate": False, "share": "disabled",
              "permission": {"*": "allow"}, "provider": {"fake": {
                  "npm": "@ai-sdk/openai-compatible", "name": "Fake",
                  "options": {"baseURL": base(model, "opencode"), "apiKey": "x"},
                  "models": {"fake-model": {"name": "Fake", "limit": {"context": 100000, "output": 8000}}}}}}
    return "opencode", {"OPENCODE_CONFIG_CONTENT": json.dumps(config), "OPENCODE_DISABLE_MODELS_FETCH": "1",
                        "OPENCODE_DISABLE_AUTOUPDATE": "1"}, []


@pytest.fixture(scope="module")
def server(model, modules, postgres):
    port = urllib.parse.urlsplit(model.base("claude")).port
    env = {"OZ_EMBEDDED_WORKER": "on", "OZ_SANDBOX_FORWARD": f"{INSIDE}=127.0.0.1:{port}",
           "PATH": f"{modules}/.bin:{modules}/opencode-linux-x64/bin:/usr/local/bin:/usr/bin:/bin"}
    with harness.serving(env, postgres=postgres, name="sandboxes") as s:
        admin = s.client()
        eventually(lambda: admin.get("/api/v1/workers").json()["connected"] == 1, timeout=60, what="the embedded worker")
        yield s


def test_a_script_works_in_a_cloned_repository(server, remote):
    client = server.client("somebody")
    environment = client.environment(repos=[remote], setup_commands=["echo prepared > prepared"], env_vars={"WORD": "a word"})
    script = ("set -e; cat README prepared; echo \"$WORD\"; id -un; echo two >> README; git add README prepared; "
              "git commit -qm two; printf 'x\\0y' > zero; "
              "mkdir -p .oz/artifacts; echo kept > .oz/artifacts/note.txt; echo https://github.com/o/r/pull/7")
    run_id = client.create(script, config={"environment_id": environment["id"], "harness": "shell"})["run_id"]
    run = client.wait(run_id, timeout=120)
    assert run["state"] == "SUCCEEDED", (run["output"], run["error"], server.tail())
    assert "one\nprepared\na word\nagent\n" in run["output"] and run["exit_code"] == 0
    assert run["artifacts"][0]["data"]["url"] == "https://github.com/o/r/pull/7"
    files = {f["name"]: f for f in ok(client.get(f"/api/v1/agent/runs/{run_id}/files"))["files"]}
    patch = client.get(f"/api/v1/agent/runs/{run_id}/files/changes.patch").content
    assert b"+two" in patch and b"prepared" in patch and b"zero" in patch, patch
    assert "note.txt" in files, files
    assert client.get(f"/api/v1/agent/runs/{run_id}/files/note.txt").content == b"kept\n"
    part = client.get(f"/api/v1/agent/runs/{run_id}/files/note.txt", headers={"Range": "bytes=1-2"})
    assert part.status_code == 206 and part.content == b"ep"


@pytest.mark.parametrize("agent", [claude, codex, opencode], ids=lambda a: a.__name__)
def test_a_real_agent_edits_and_the_patch_comes_back(agent, server, remote, model):
    client = server.client("somebody")
    harness_word, variables, setup = agent(model)
    environment = client.environment(repos=[remote], setup_commands=setup, env_vars=variables)
    run_id = client.create("Please edit the file.",
                           config={"environment_id": environment["id"], "harness": harness_word})["run_id"]
    run = client.wait(run_id, timeout=240)
    assert run["state"] == "SUCCEEDED", (run["output"], run["error"], server.tail())
    assert "Done: the file was edited as asked." in run["output"], run["output"]
    patch = client.get(f"/api/v1/agent/runs/{run_id}/files/changes.patch").content
    assert b"+edited-by-the-agent" in patch and EDITED.encode() in patch, patch
    calls = model.calls(upstream=agent.__name__)
    assert any(c["body"] and "edited" in json.dumps(c["body"]) for c in calls), "the tool's result never went back"


def test_nothing_is_left_when_the_server_stops(server):
    admin = server.client()
    assert all(w["in_flight"] == 0 for w in admin.get("/api/v1/workers").json()["workers"])
    left = server.data / "worker/s"
    eventually(lambda: not any(left.iterdir()), timeout=30, what="no session folder")
