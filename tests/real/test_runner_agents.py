"""Real claude, codex and opencode driven by `muster runner` (oz-worker.md 13.5): a prompt as an argument and one that is
too long for it; the tool call edits a file, the edit is in the patch."""
import json
import os
import shutil

import pytest
from harness import ROOT
from runner_box import Box

pytestmark = [pytest.mark.engine_free, pytest.mark.timeout(400)]
EDITED = "agent-was-here.txt"
SHORT = "Please edit the file."
LONG = SHORT + "".join(f"\nBackground, line {i}: nothing to do here." for i in range(3000)) + "\nNow edit it."


def claude(model):
    return {"ANTHROPIC_BASE_URL": model.base("claude", v1=False), "ANTHROPIC_API_KEY": "a-key", "CLAUDE_CONFIG_DIR": "/home/claude",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_TELEMETRY": "1", "DISABLE_ERROR_REPORTING": "1",
            "DISABLE_AUTOUPDATER": "1"}, {}


def codex(model):
    config = f"""model = "fake-model"
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
"""
    return {"CODEX_HOME": "/home/codex", "FAKE_KEY": "a-key"}, {"codex/config.toml": config}


def opencode(model):
    config = {"model": "fake/fake-model", "small_model": "fake/fake-model", "autoupdate": False, "share": "disabled",
              "provider": {"fake": {"npm": "@ai-sdk/openai-compatible", "name": "Fake",
                                    "options": {"baseURL": model.base("opencode"), "apiKey": "x"},
                                    "models": {"fake-model": {"name": "Fake", "limit": {"context": 200000, "output": 8000}}}}}}
    env = {"OPENCODE_CONFIG_CONTENT": json.dumps(config), "OPENCODE_DISABLE_MODELS_FETCH": "1", "OPENCODE_DISABLE_AUTOUPDATE": "1"}
    return {**env, **{f"XDG_{n}_HOME": f"/home/{n.lower()}" for n in ("CONFIG", "DATA", "CACHE", "STATE")}}, {}


@pytest.fixture
def place(tmp_path):
    """Codex refuses a home below /tmp: inside it is /home, and the machine's /tmp is not seen."""
    yield tmp_path
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.mark.parametrize("prompt", [SHORT, LONG], ids=["argument", "standard-input"])
@pytest.mark.parametrize("agent", [claude, codex, opencode], ids=lambda a: a.__name__)
def test_a_real_agent_does_the_task(agent, prompt, request, place, model):
    modules = (ROOT / request.config.getoption("--agents")).resolve() / "node_modules"
    assert modules.is_dir(), f"the agents are not installed in {modules}: script/test installs them"
    box = Box(place / "box")
    box.binds = [modules]
    env, files = agent(model)
    for name, text in files.items():
        (box.root / "home" / name).parent.mkdir(exist_ok=True)
        (box.root / "home" / name).write_text(text)
    (box.workspace / ".oz").mkdir()
    (box.workspace / ".oz/prompt.txt").write_text(prompt)
    env.update({"OZ_HARNESS": agent.__name__, "OZ_ENV_REPOS": box.repo("a")})
    path = f"{modules}/.bin:{modules}/opencode-linux-x64/bin:{os.environ['PATH']}"
    before = len(model.calls(upstream=agent.__name__))
    end = box.run("agent", "run", env=env, pid1=True, path=path, timeout=300)
    assert end.status == 0 and end.result["phase"] == "agent", end
    assert (box.workspace / EDITED).read_text() == "edited-by-the-agent\n", end
    assert b"Done: the file was edited as asked." in end.output, end
    assert b"+edited-by-the-agent" in box.patch() and box.patch().count(b"diff --git") == 1, box.patch()
    calls = model.calls(upstream=agent.__name__)[before:]
    assert any(prompt.strip() in json.dumps(c["body"], ensure_ascii=False).replace("\\n", "\n") for c in calls), "the prompt did not arrive whole"
