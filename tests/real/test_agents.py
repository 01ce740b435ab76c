"""Real claude, codex and opencode as CLI providers against the scripted model server (done-when 3; real-parts.md 1-3):
a run with a tool call that edits a file ends SUCCEEDED, and deltas are seen over SSE before the end."""
import json
import os
import pathlib
import shutil
import subprocess
import tempfile

import pytest
from harness import ROOT, delta_text, provider_env

pytestmark = [pytest.mark.engine_free, pytest.mark.timeout(180)]
PROMPT = "Please edit the file. [[slow:8:1.5]]"
EDITED = "agent-was-here.txt"


@pytest.fixture(scope="session")
def modules(request):
    path = ROOT / request.config.getoption("--agents") / "node_modules"
    assert path.is_dir(), f"the agents are not installed in {path}: script/test installs them"
    return path


@pytest.fixture
def place():
    """A working directory that is a git repository, and scratch homes. Not below /tmp: Codex refuses its home there."""
    root = pathlib.Path(tempfile.mkdtemp(prefix="agents-", dir=ROOT / "build"))
    for name in ("work", "home", "codex", "claude"):
        (root / name).mkdir()
    subprocess.run(["git", "init", "-q", root / "work"], check=True)
    yield root
    shutil.rmtree(root, ignore_errors=True)


def claude(modules, place, model):
    env = {"ANTHROPIC_BASE_URL": model.base("claude", v1=False), "ANTHROPIC_API_KEY": "a-key", "HOME": str(place / "home"),
           "CLAUDE_CONFIG_DIR": str(place / "claude"), "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
           "DISABLE_TELEMETRY": "1", "DISABLE_ERROR_REPORTING": "1", "DISABLE_AUTOUPDATER": "1", "IS_SANDBOX": "1"}
    args = ["-p", "{prompt}", "--output-format", "stream-json", "--verbose", "--include-partial-messages",
            "--permission-mode", "bypassPermissions"]
    return "CLAUDE", modules / ".bin/claude", args, "claude-stream-json", env, "claude-sonnet"


def codex(modules, place, model):
    (place / "codex/config.toml").write_text(f"""model = "fake-model"
model_provider = "fake"
check_for_update_on_startup = false
[analytics]
enabled = false
[model_providers.fake]
name = "Fake"
base_url = "{model.base("codex")}"
env_key = "FAKE_KEY"
wire_api = "responses"
request_max_retries = 1
stream_max_retries = 1
""")
    env = {"CODEX_HOME": str(place / "codex"), "FAKE_KEY": "a-key", "HOME": str(place / "home")}
    args = ["exec", "--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", "{prompt}"]
    return "CODEX", modules / ".bin/codex", args, "codex-json", env, "codex-mini"


def opencode(modules, place, model):
    config = {"model": "fake/fake-model", "small_model": "fake/fake-model", "autoupdate": False, "share": "disabled",
              "permission": {"*": "allow"}, "provider": {"fake": {
                  "npm": "@ai-sdk/openai-compatible", "name": "Fake",
                  "options": {"baseURL": model.base("opencode"), "apiKey": "x"},
                  "models": {"fake-model": {"name": "Fake", "limit": {"context": 100000, "output": 8000}}}}}}
    env = {"OPENCODE_CONFIG_CONTENT": json.dumps(config), "OPENCODE_DISABLE_MODELS_FETCH": "1",
           "OPENCODE_DISABLE_AUTOUPDATE": "1", "HOME": str(place / "home")}
    for name in ("CONFIG", "DATA", "CACHE", "STATE"):
        env[f"XDG_{name}_HOME"] = str(place / "home" / name.lower())
    program = modules / "opencode-linux-x64/bin/opencode"
    return "CUSTOM", program, ["run", "--format", "json", "{prompt}"], "opencode-json", env, None


@pytest.mark.parametrize("agent", [claude, codex, opencode], ids=lambda a: a.__name__)
def test_a_real_agent_edits_a_file(agent, modules, place, model, make_server):
    key, program, args, format_, env, model_id = agent(modules, place, model)
    assert os.access(program, os.X_OK), program
    settings = {"TYPE": "cli", "CLI_CMD": str(program), "CLI_ARGS": json.dumps(args), "CLI_PROMPT_MODE": "arg",
                "CLI_FORMAT": format_, "CLI_ENV": ",".join(n for n in env if n != "HOME"), "CLI_CWD": str(place / "work"),
                "CLI_TIMEOUT_MS": "120000"}
    server = make_server({**env, **{f"OZ_PROVIDER_{key}_{k}": v for k, v in settings.items()},
                          "PATH": "/usr/local/bin:/usr/bin:/bin"})
    client = server.client("somebody")
    run_id = client.create(PROMPT, config={"model_id": model_id} if model_id else None)["run_id"]
    with client.events(run_id, timeout=150) as stream:
        events = stream.until_end()
    run = client.wait(run_id)
    assert run["state"] == "SUCCEEDED", (run["error"], server.tail())
    assert (place / "work" / EDITED).read_text() == "edited-by-the-agent\n"
    assert run["output"].startswith("Done: the file was edited as asked.") or \
        run["output"].endswith("word7"), run["output"]
    assert "{" not in run["output"], "JSON lines instead of the agent's words"
    outputs = [e["at"] for e in events if e["event"] == "output"]
    assert outputs and outputs[0] < events[-1]["at"] and "Done" in delta_text(events)
    assert events[-1]["at"] - outputs[0] > 0.3, "the deltas came with the end"
    calls = model.calls(upstream=agent.__name__)
    assert any(c["body"] and "edited" in json.dumps(c["body"]) for c in calls), "the tool's result never went back"


def test_openai_and_anthropic_endpoints_stream(make_server, model):
    """The same promise for the two HTTP dialects."""
    client = make_server(provider_env(model)).client("somebody")
    for model_id, kind in ((None, "openai_compatible"), ("claude-x", "anthropic")):
        run_id = client.create(PROMPT, config={"model_id": model_id})["run_id"]
        with client.events(run_id) as stream:
            events = stream.until_end()
        run = client.wait(run_id)
        assert run["state"] == "SUCCEEDED" and run["provider"]["type"] == kind
        first = next(e["at"] for e in events if e["event"] == "output")
        assert events[-1]["at"] - first > 0.8
