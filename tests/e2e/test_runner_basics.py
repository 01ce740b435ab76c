"""`muster runner` as workers of both dialects start it: conformance checks 22 to 28 of oz-worker.md 18, by number.
The real static program (and once more a sanitized build of it) in a real /workspace; the agents are small scripts."""
import json
import os
import pathlib
import signal
import subprocess
import time

import pytest
import runner_box
from runner_box import Box

pytestmark = [pytest.mark.engine_free]
V = ("agent", "run", "--share", "team:edit", "--task-id", "run_1", "--sandboxed", "--server-root-url", "http://localhost:1")
PROMPT = {"OZ_TASK_PROMPT": "please do it"}


@pytest.fixture(params=["static", "sanitized"])
def box(request, tmp_path):
    return Box(tmp_path / "box", request.param)


@pytest.fixture
def static(tmp_path):
    return Box(tmp_path / "box")


# --- 22: the exit-code table; result.json is there and right in every case ---

def ended(box, status, phase, *args, env=None, **options):
    end = box.run(*(args or ("agent", "run", "--model", "claude-x")), env=PROMPT if env is None else env, **options)
    assert end.status == status, end
    assert end.result and end.result["exit_code"] == status and end.result["phase"] == phase, end
    assert end.result["duration_ms"] >= 0
    if status and phase != "agent":
        assert end.result["message"] and end.result["message"] in end.text, end
        assert end.result["output_path"] is None and end.output is None
    return end


def test_22_no_prompt_is_2(box):
    ended(box, 2, "args", env={})
    ended(box, 2, "args", env={"OZ_TASK_PROMPT": ""})


def test_22_a_flag_without_its_value_is_2(box):
    for flag in ("--model", "--task-id", "--server-root-url", "--environment", "--profile", "--skill", "--mcp"):
        ended(box, 2, "args", "agent", "run", "--model", "claude", flag)


@pytest.mark.parametrize("model", ["glm-4", "kimi", "pending", ""])
def test_22_a_model_without_harness_is_2_and_nothing_is_cloned(box, model):
    ended(box, 2, "args", "agent", "run", "--model", model, env={**PROMPT, "OZ_ENV_REPOS": box.repo("a")})
    assert not (box.workspace / ".git").exists()


def test_22_an_unknown_harness_is_2(box):
    ended(box, 2, "args", env={**PROMPT, "OZ_HARNESS": "my-shell"})
    ended(box, 2, "agent", env={**PROMPT, "OZ_HARNESS": "custom"})


def test_22_broken_variables_are_2(box):
    ended(box, 2, "env", env={**PROMPT, "OZ_ENV_VARS_JSON": '{"A":1}'})


def test_22_no_git_is_127(static):
    ended(static, 127, "clone", env={**PROMPT, "OZ_ENV_REPOS": "o/r"}, path="/fake")


def test_22_a_failed_clone_is_128(box):
    end = ended(box, 128, "clone", env={**PROMPT, "OZ_ENV_REPOS": "file:///repos/nothing"})
    said = end.text.partition("[clone nothing] fatal: ")[2].splitlines()[0]
    assert said and end.result["message"] == f"git clone ended with status 128: {said}"
    assert not (box.workspace / ".oz/clone").exists()


@pytest.mark.parametrize("line", ["--upload-pack=touch /tmp/hit", "-x/y", "file:///repos/a#--evil", "https://h/..", "a b/c"])
def test_22_what_git_would_take_for_an_option_is_refused(box, line):
    ended(box, 128, "clone", env={**PROMPT, "OZ_ENV_REPOS": line})


def test_22_a_setup_command_ends_with_its_own_status(box):
    end = ended(box, 7, "setup", env={**PROMPT, "OZ_ENV_SETUP_COMMANDS": "echo one\nexit 7\necho three"})
    assert "[setup 1/3] one\n" in end.text and "three" not in end.text


@pytest.mark.parametrize("status", [0, 1, 3, 126, 255])
def test_22_the_agents_status_is_the_runners(box, status):
    box.cli("claude", f"echo hello; exit {status}\n")
    end = ended(box, status, "agent")
    assert end.output == b"hello\n" and end.result["output_path"] == "/workspace/.oz/agent_output.txt"


def test_22_an_agent_that_a_signal_ended_is_128_and_it(box):
    box.cli("claude", "kill -9 $$\n")
    ended(box, 137, "agent")


def test_22_a_missing_agent_is_127_and_says_so_in_the_output(box):
    end = ended(box, 127, "agent")
    assert end.output == b"muster runner: claude: not found\n" and end.output in end.out


def test_22_an_empty_override_is_an_empty_command(box):
    end = ended(box, 127, "agent", env={**PROMPT, "OZ_SIDECAR_CLAUDE_CMD": ""})
    assert b"empty command" in end.output


def test_22_an_agent_without_the_right_to_run_is_126(box):
    box.cli("claude", "echo hello\n", mode=0o644)
    assert b"Permission denied" in ended(box, 126, "agent").output


def test_22_an_agent_whose_interpreter_is_missing_is_127_and_explained(box):
    box.cli("claude", "hello\n", first="#!/opt/no/such/interpreter\n")
    assert b"first line" in ended(box, 127, "agent").output


def test_22_an_agent_without_a_first_line_is_a_shell_script(box):
    box.cli("claude", 'echo "hello $1"\n', first="")
    assert ended(box, 0, "agent").output == b"hello -p\n"


# --- 23: argument lists of V and W, and how the harness is chosen ---

ARGS = 'for a; do printf "<%s>" "$a"; done; echo\n'


def test_23_arguments_of_v(box):
    box.cli("claude", ARGS)
    end = box.run(*V, "--model", "Claude-Sonnet", "--profile", "p", "--skill", "s", "--mcp", '{"a":{"command":"codex"}}',
                  "--computer-use", "--environment", "codex", "--idle-on-complete", env=PROMPT)
    assert end.output.startswith(b"<-p><please do it>"), end


def test_23_arguments_of_w(box):
    box.cli("codex", ARGS)
    box.cli("claude", "echo wrong\n")
    end = box.run("agent", "run", "--task-id", "run_1", "--sandboxed", "--server-root-url", "http://localhost:1", "--mcp", "{}",
                  "--no-computer-use", "--bedrock-inference-role", "claude", "--bedrock-role-region", "r", "--harness", "codex",
                  "--share", "public:view", "--no-snapshot", "--snapshot-upload-timeout", "5s", "--snapshot-script-timeout", "5s",
                  "--environment", "e", "--something-new", "value", "--idle-on-complete", "45m", "--session-sharing-server-url",
                  "wss://localhost", env=PROMPT)
    assert end.output.startswith(b"<exec><please do it>"), end


def test_23_where_the_harness_comes_from_in_order(box):
    for name in ("claude", "codex", "gemini", "opencode"):
        box.cli(name, f"echo {name}\n")
    def ran(*args, **env):
        return box.run(*args, env={**PROMPT, **env}).output
    assert ran("--harness", "gemini", "--model", "claude", OZ_HARNESS="codex") == b"codex\n"
    assert ran("--harness", "gemini-cli", "--model", "claude", OZ_HARNESS="") == b"gemini\n"
    assert ran("--harness", "oz", "--model", "x-CODEX-y", OZ_SIDECAR_DEFAULT_HARNESS="gemini") == b"codex\n"
    assert ran("--model", "codex", OZ_MODEL_ID="claude-1") == b"claude\n"
    assert ran("--model", "pending", OZ_SIDECAR_DEFAULT_HARNESS="opencode") == b"opencode\n"
    assert ran("--harness=claude-code") == b"claude\n"


def test_23_each_agents_call(box):
    for name in ("claude", "codex", "gemini", "opencode"):
        box.cli(name, 'echo "$*"; env\n')
    def ran(harness, **env):
        out = box.run(env={**PROMPT, "OZ_HARNESS": harness, **env}).output.decode().splitlines()
        return out[0], out[1:]
    assert ran("claude")[0] == "-p please do it --permission-mode bypassPermissions" and "IS_SANDBOX=1" in ran("claude")[1]
    assert ran("codex")[0] == "exec please do it --skip-git-repo-check --dangerously-bypass-approvals-and-sandbox"
    assert ran("gemini")[0] == "-p please do it --yolo"
    assert ran("opencode")[0] == "run please do it"
    assert ran("codex", OZ_SIDECAR_CODEX_ARGS="  --json\t-m x ")[0] == "exec please do it --json -m x"
    assert ran("codex", OZ_SIDECAR_CODEX_ARGS="")[0] == "exec please do it"
    assert ran("gemini", OZ_SIDECAR_GEMINI_CMD="/fake/claude")[0] == "-p please do it --yolo"


def test_23_no_secret_of_ours_reaches_the_agent(box):
    box.cli("claude", "env; ls /proc/self/fd | tr '\\n' ' '\n")
    end = box.run("--model", "claude", env={**PROMPT, "OZ_RUN_TOKEN": "word-of-this-run", "OZ_WORKER": "muster"})
    assert b"word-of-this-run" not in end.out and b"OZ_WORKER=muster" in end.output
    assert end.output.splitlines()[-1].split() == [b"0", b"1", b"2", b"3"], "3 is ls reading the folder"


# --- 24: a setup command that reads standard input ---

def test_24_a_setup_command_that_reads_its_input_swallows_nothing(box):
    box.cli("claude", "echo agent\n")
    end = box.run("--model", "claude", env={**PROMPT, "OZ_ENV_SETUP_COMMANDS": "cat\r\n\n  echo second > made  \ncat; pwd"})
    assert end.status == 0 and (box.workspace / "made").read_text() == "second\n", end
    assert "[setup 3/3] /workspace\n" in end.text


def test_24_a_setup_command_has_limited_time(box):
    start = time.monotonic()
    end = box.run("--model", "claude", env={**PROMPT, "OZ_ENV_SETUP_COMMANDS": "sleep 60", "OZ_SETUP_TIMEOUT": "1"})
    assert end.status == 124 and end.result["phase"] == "setup" and time.monotonic() - start < 10, end
    assert "took too long" in end.text


def test_24_a_daemon_of_the_set_up_lives_until_the_agent_ended(box):
    box.cli("claude", "sleep 0.5; test -e beat && rm beat && sleep 0.5 && test -e beat && echo it lives\n")
    setup = "(while sleep 0.1; do echo tick; touch beat; done) &"
    end = box.run("--model", "claude", env={**PROMPT, "OZ_ENV_SETUP_COMMANDS": setup}, pid1=True)
    assert end.output == b"it lives\n" and end.status == 0, end


# --- 25: two repositories ---

def test_25_two_repositories_lie_side_by_side(box):
    box.cli("claude", "ls -a; cat a/README.md b/README.md\n")
    end = box.run("--model", "claude", env={**PROMPT, "OZ_ENV_REPOS": f"{box.repo('a')}\r\n\n{box.repo('b')}\n"})
    assert end.output.split() == b". .. .oz a b this is a this is b".split(), end
    assert not (box.workspace / ".git").exists()


def test_25_one_repository_is_the_workspace(box):
    box.cli("claude", "git status --porcelain; git rev-parse --abbrev-ref '@{u}'; cat README.md; cat .git/info/exclude\n")
    url = box.repo("a")
    end = box.run("--model", "claude", env={**PROMPT, "OZ_ENV_REPOS": url})
    lines = end.output.decode().splitlines()
    assert lines[:2] == ["origin/main", "this is a"] and "/.oz/" in lines, end
    assert not (box.workspace / ".oz/clone").exists()
    assert runner_box.git(box.workspace, "remote", "get-url", "origin").decode().strip() == url


def test_25_two_of_one_name_do_not_hide_each_other(box):
    box.cli("claude", "cat a/README.md a-2/README.md\n")
    first = box.repo("x/a", {"README.md": "first\n"})
    second = box.repo("y/a", {"README.md": "second\n"})
    assert box.run("--model", "claude", env={**PROMPT, "OZ_ENV_REPOS": f"{first}\n{second}"}).output == b"first\nsecond\n"


def test_25_what_is_checked_out_already_stays(box):
    box.cli("claude", "cat mine\n")
    subprocess.run(["git", "init", "-q", box.workspace], check=True)
    (box.workspace / "mine").write_text("mine\n")
    end = box.run("--model", "claude", env={**PROMPT, "OZ_ENV_REPOS": box.repo("a")})
    assert end.output == b"mine\n" and not (box.workspace / "a").exists(), end
    assert "/.oz/" in (box.workspace / ".git/info/exclude").read_text()


def test_25_a_workspace_with_files_gets_the_repository_beside_them(box):
    box.cli("claude", "cat mine a/README.md\n")
    (box.workspace / "mine").write_text("mine\n")
    assert box.run("--model", "claude", env={**PROMPT, "OZ_ENV_REPOS": box.repo("a")}).output == b"mine\nthis is a\n"


@pytest.mark.parametrize("branch", ["feature/x#1", "ünïcode", "a'b\"c", "$(touch hit)", "x;touch hit"])
def test_25_a_branch_of_an_odd_name(box, branch):
    box.cli("claude", "git rev-parse --abbrev-ref HEAD; cat README.md\n")
    if " " in branch:
        pytest.raises(Exception, runner_box.git, box.place, "check-ref-format", "--branch", branch)
        end = box.run("--model", "claude", env={**PROMPT, "OZ_ENV_REPOS": f"{box.repo('a')}#{branch}"})
        assert end.status == 128 and not (box.workspace / "hit").exists()
        return
    end = box.run("--model", "claude", env={**PROMPT, "OZ_ENV_REPOS": f"{box.repo('a', branch=branch)}#{branch}"})
    assert end.output.decode() == f"{branch}\nthis is a\n", end
    assert not (box.workspace / "hit").exists()


def test_25_an_empty_repository_is_no_failure(box):
    box.cli("claude", "git status --short --branch\n")
    (box.repos / "none").mkdir()
    runner_box.git(box.repos / "none", "init", "-q")
    end = box.run("--model", "claude", env={**PROMPT, "OZ_ENV_REPOS": "file:///repos/none"})
    assert end.status == 0 and end.output.startswith(b"## No commits yet"), end


# --- 26: a prompt of 300 KiB ---

LARGE = "".join(f"line {i} of a long prompt\n" for i in range(12000))
READ = 'cat > got; wc -c < got; echo "$#:$*"\n'


@pytest.mark.parametrize("harness,words", [
    ("claude", "-p --permission-mode bypassPermissions"),
    ("codex", "exec - --skip-git-repo-check --dangerously-bypass-approvals-and-sandbox"),
    ("gemini", "--yolo"), ("opencode", "run")])
def test_26_a_long_prompt_comes_on_standard_input(box, harness, words):
    box.cli(harness, READ)
    (box.workspace / ".oz").mkdir()
    (box.workspace / ".oz/prompt.txt").write_text(LARGE)
    assert len(LARGE) > 300 << 10
    end = box.run(env={"OZ_HARNESS": harness})
    assert end.status == 0 and end.output.decode().splitlines()[1].partition(":")[2] == words, end
    assert (box.workspace / "got").read_text() == LARGE


def test_26_the_limit_between_argument_and_input(box):
    box.cli("claude", 'echo "$#"; cat | wc -c; printf %s "$2" | wc -c\n')
    for size, argument in (((96 << 10) - 1, True), (96 << 10, False)):
        end = box.run("--model", "claude", env={"OZ_TASK_PROMPT": "x" * size})
        words, on_input, second = map(int, end.output.split())
        assert (words, on_input) == ((4, 0) if argument else (3, size)), end.output
        assert not argument or second == size


def test_26_a_prompt_that_looks_like_an_option_is_none(box):
    box.cli("claude", 'cat; echo " $*"\n')
    end = box.run("--model", "claude", env={"OZ_TASK_PROMPT": "--help"})
    assert end.output == b"--help -p --permission-mode bypassPermissions\n"


def test_26_shell_and_custom(box):
    script = "#!/bin/sh\n# long\n" + "# x\n" * 40000 + "echo ran $0\nexit 5\n"
    (box.workspace / ".oz").mkdir()
    (box.workspace / ".oz/prompt.txt").write_text(script)
    end = box.run(env={"OZ_HARNESS": "shell"})
    assert end.status == 5 and end.output == b"ran /workspace/.oz/task.sh\n", end
    end = box.run(env={"OZ_HARNESS": "custom", "OZ_SIDECAR_CUSTOM_CMD": "tr a-z A-Z | head -c 8; exit 6", "OZ_TASK_PROMPT": "abc def ghi"})
    assert end.status == 6 and end.output == b"ABC DEF ", end


# --- 27: SIGTERM ---

@pytest.mark.parametrize("pid1", [False, True])
def test_27_term_reaches_the_agents_group_and_the_status_is_143(box, pid1):
    box.cli("claude", "trap 'echo told; exit 0' TERM\n(trap 'echo child told; exit' TERM; echo up; while :; do sleep 0.1; done) &\nwait\nwait\n")
    process = box.start("--model", "claude", env=PROMPT, pid1=pid1)
    box.wait_output(b"up")
    start = time.monotonic()
    os.kill(runner_box.runner_pid(process) if pid1 else process.pid, signal.SIGTERM)
    end = box.end(process)
    assert time.monotonic() - start < 5
    assert end.status == 143 and end.result["exit_code"] == 143 and end.result["phase"] == "agent", end
    assert b"told\n" in end.output and b"child told" in end.output and "stopped" in end.result["message"]


def test_27_who_ignores_term_is_killed_after_8_seconds(static):
    static.cli("claude", "trap '' TERM\necho up\n(setsid sh -c 'trap \"\" TERM; echo deep; sleep 1000') &\nwhile :; do sleep 0.1; done\n")
    process = static.start("--model", "claude", env=PROMPT, pid1=True)
    static.wait_output(b"deep")
    start = time.monotonic()
    os.kill(runner_box.runner_pid(process), signal.SIGTERM)
    end = static.end(process)
    assert 7.5 < time.monotonic() - start < 11
    assert end.status == 143 and end.result["exit_code"] == 143, end


def test_27_term_while_it_is_set_up(box):
    box.cli("claude", "echo never\n")
    process = box.start("--model", "claude", env={**PROMPT, "OZ_ENV_SETUP_COMMANDS": "touch begun; sleep 60"})
    deadline = time.monotonic() + 10
    while not (box.workspace / "begun").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGTERM)
    end = box.end(process)
    assert end.status == 143 and end.result["phase"] == "setup" and end.output is None, end


def test_27_process_1_reaps_orphans_and_leaves_none(box):
    box.cli("claude", "for i in 1 2 3 4 5; do (setsid sleep 0.1 &) ; done; sleep 0.6\n"
            "for s in /proc/[0-9]*/stat; do read -r line < $s; echo \"$line\"; done\n(setsid sleep 1000 &)\n")
    start = time.monotonic()
    end = box.run("--model", "claude", env=PROMPT, pid1=True)
    assert end.status == 0 and time.monotonic() - start < 10
    assert b" Z " not in end.output and b"(muster) " in end.output or b"muster" in end.output, end


def test_27_a_background_process_does_not_hold_the_end_up(static):
    static.cli("claude", "sleep 300 & echo done\n")
    start = time.monotonic()
    end = static.run("--model", "claude", env=PROMPT)
    assert end.status == 0 and end.output == b"done\n" and time.monotonic() - start < 5


# --- 28: any image ---

@pytest.mark.parametrize("shell", ["host", "busybox", "bare"])
@pytest.mark.parametrize("entry", [("/agent/entrypoint.sh",), ("/bin/sh", "/agent/entrypoint.sh"), ("/agent/agent/entrypoint.sh",)],
                         ids=["W", "V", "nested"])
def test_28_dash_busybox_and_an_image_without_env(tmp_path, shell, entry):
    box = Box(tmp_path / "box", "static", shell)
    box.cli("claude", 'echo "quoted \\" and \\\\ back"; echo "$2"; exit 4\n')
    assert shell != "bare" or not (box.root / "usr").exists()
    end = box.run("agent", "run", "--model", "claude", env={"OZ_TASK_PROMPT": "a 'prompt' with \"quotes\"", "OZ_ENV_VARS": "A=1",
                                                            "OZ_ENV_SETUP_COMMANDS": "echo set up"}, entry=entry)
    assert end.status == 4 and end.result["exit_code"] == 4, end
    assert end.output == b"quoted \" and \\ back\na 'prompt' with \"quotes\"\n"
    assert json.loads((box.workspace / ".oz/result.json").read_text())["output_path"] == "/workspace/.oz/agent_output.txt"


def test_28_the_program_is_static_and_small(static):
    program = runner_box.STATIC / "bin/muster"
    assert program.stat().st_size < 450_000
    head = subprocess.run(["readelf", "-lW", program], capture_output=True, text=True, check=True).stdout
    assert "INTERP" not in head and "DYNAMIC" not in head
    for name in ("entrypoint.sh", "agent/entrypoint.sh"):
        script = runner_box.STATIC / name
        assert script.stat().st_mode & 0o777 == 0o755 and script.read_text() == '#!/bin/sh\nexec /agent/bin/muster runner "$@"\n'


def test_28_it_needs_a_megabyte_at_most_while_the_agent_works(static):
    static.cli("claude", "echo up; sleep 30\n")
    process = static.start("--model", "claude", env=PROMPT)
    static.wait_output(b"up")
    time.sleep(0.2)
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    os.kill(process.pid, signal.SIGTERM)
    static.end(process)
    resident = int(status.split("VmRSS:")[1].split()[0])
    assert resident <= 1024, f"{resident} KiB"


def test_the_self_test_names_what_protects(box):
    end = box.run("--self-test", pid1=True)
    lines = {line.split("\t")[0]: line.split("\t")[1:] for line in end.text.splitlines()}
    assert end.status == 0 and all(len(v) == 2 and v[0] in ("yes", "no") for v in lines.values()), end
    assert lines["pid ns"] == ["yes", "pid 1"] and lines["git"][0] == "yes" and lines["keeper"] == ["no", "none"]
    assert {"user ns", "seccomp", "no-new-privs", "capabilities", "network ns", "landlock", "root read-only"} <= set(lines)
