"""The documentation is true: its commands run as written, its settings are accepted, its generated pages are current, its
links lead somewhere, and the tests that it names exist."""
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading

import git_remote
import pytest
from harness import BINARY, ROOT

pytestmark = pytest.mark.engine_free
REPOSITORY = "https://git.example.org/team/app.git"
PAGES = [p for p in sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").glob("*.md"))]


def fenced(path, language):
    """The blocks of a page whose fence says exactly that."""
    return re.findall(rf"^```{re.escape(language)}\n(.*?)^```$", path.read_text(), re.S | re.M)


@pytest.fixture(scope="module")
def first_server(tmp_path_factory):
    """script/server as a stranger starts it, but for the port and the data folder."""
    home = tmp_path_factory.mktemp("home")
    env = {"PATH": f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(home), "LANG": "C.UTF-8",
           "OZ_DATA_DIR": str(home / "data"), "OZ_ENV_FILE": "/dev/null",
           "SANDBOX_DRIVER": "namespace"}  # a machine with an engine would pull the image
    process = subprocess.Popen(["script/server", "--set", "OZ_CONTROL_PLANE_PORT=0"], cwd=ROOT, env=env, text=True,
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    seen, port = [], None
    for line in process.stdout:
        seen.append(line)
        if "startup.listening" in line:
            port = json.loads(line)["port"]
            break
    assert port, "script/server did not start the server:\n" + "".join(seen[-40:])
    threading.Thread(target=lambda: [None for _ in process.stdout], daemon=True).start()
    yield env, f"http://127.0.0.1:{port}"
    process.send_signal(signal.SIGTERM)
    assert process.wait(40) == 0


@pytest.mark.timeout(1200)
def test_readme_commands_run_as_written(first_server):
    env, url = first_server
    shells, pythons = fenced(ROOT / "README.md", "sh test"), fenced(ROOT / "README.md", "python test")
    assert len(shells) >= 4 and len(pythons) == 1
    script = "set -euo pipefail\n"
    for block in shells:
        script += f"echo '=== block'\n{block}\n"
    script += f"echo '=== block'\npython - <<'PYTHON'\n{pythons[0]}PYTHON\n"
    # What is not as written: port 8080 may be somebody else's here, and the repository is one of ours.
    script = script.replace("http://127.0.0.1:8080", url)
    assert REPOSITORY in script, "the page says to put one's own there"
    with git_remote.serving("app.git", Makefile="test:\n\techo made it; echo made > made\n") as own:
        done = subprocess.run(["bash"], input=script.replace(REPOSITORY, own), cwd=ROOT, env=env, capture_output=True,
                              text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    first, _, curl, sandboxed, more, python = done.stdout.split("=== block\n")[1:]
    assert "hello from " + os.uname().nodename in first and "step 1\nstep 2\nstep 3\n" in first
    assert first.count("SUCCEEDED") == 2, first
    run = json.loads(curl)
    assert run.get("state") == "SUCCEEDED" and run["output"] == "hello from curl", curl
    run, end = json.JSONDecoder().raw_decode(sandboxed)
    assert run.get("state") == "SUCCEEDED" and "made it" in run["output"], sandboxed
    assert "+++ b/made\n" in sandboxed[end:] and "\n+made\n" in sandboxed[end:], sandboxed
    assert "sk_" in more and "shell" in more and "morning" in more
    assert python == "SUCCEEDED hello from the SDK\n"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_settings_shown_are_accepted(page, tmp_path):
    for number, block in enumerate(fenced(page, "ini")):
        file = tmp_path / f"{number}.ini"
        file.write_text(block)
        done = subprocess.run([BINARY, "config", "--config", file, "--set", "OZ_ENV_FILE=/dev/null"], capture_output=True,
                              text=True, env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)})
        assert done.returncode == 0 and not done.stderr, block + done.stderr


def test_generated_pages_are_current():
    done = subprocess.run(["script/docs", "--check"], cwd=ROOT, capture_output=True, text=True, timeout=100,
                          env={**os.environ, "MUSTER": str(BINARY)})
    assert done.returncode == 0 and done.stdout.count("ok: ") == 2, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        if not target.startswith(("http:", "https:")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_tests_named_by_the_pages_exist():
    text = "".join(page.read_text() for page in PAGES if page.parent.name == "docs")
    named = re.findall(r"`(tests/[\w/.]+\.(?:py|c))((?:::\w+)?)`", text)
    assert len(named) >= 20
    for file, test in named:
        source = ROOT / file
        assert source.exists(), file
        assert not test or test[2:] in source.read_text(), f"{file} has no {test[2:]}"


def test_every_setting_named_exists():
    """A setting that a page names is one of the table, or of one provider; or a variable of a sandbox (runner.md)."""
    setting = re.compile(r"\bOZ_[A-Z0-9_]*[A-Z0-9]\b")
    known = (ROOT / "docs/configuration.md").read_text()
    endings = tuple(re.findall(r"`OZ_PROVIDER_<KEY>_(\w+)`", known))
    # read by clients and by programs of others
    others = {"OZ_API_BASE_URL", "OZ_API_KEY", "OZ_DETACH_KEY", *setting.findall((ROOT / "docs/runner.md").read_text())}
    for page in PAGES:
        for name in set(setting.findall(page.read_text())) - others:
            base = re.sub(r"_FILE$", "", name)
            found = f"`{name}`" in known or f"`{base}`" in known or base.endswith(endings)
            assert found or name.startswith("OZ_PROVIDER_FALLBACK_ORDER"), f"{page.name} names {name}"
