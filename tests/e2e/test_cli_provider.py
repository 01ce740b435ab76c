"""CLI providers (oz-providers.md 7) with small fake programs."""
import json
import os
import time

import pytest
from harness import ADMIN_KEY, delta_text, eventually, processes_with

pytestmark = pytest.mark.engine_free


class Program:
    def __init__(self, make_server, tmp_path):
        self.make_server, self.dir = make_server, tmp_path

    def start(self, body, first="#!/bin/bash", **settings):
        """A server whose provider `custom` is this program."""
        path = self.dir / "agent"
        path.write_text(f"{first}\n{body}\n")
        path.chmod(0o755)
        env = {"OZ_PROVIDER_CUSTOM_TYPE": "cli", "OZ_PROVIDER_CUSTOM_CLI_CMD": str(path)}
        for name, value in settings.items():
            own = name if name.startswith(("OZ_", "EXTRA_")) else f"OZ_PROVIDER_CUSTOM_{name}"
            env[own] = value if isinstance(value, str) else json.dumps(value)
        self.server = self.make_server(env)
        self.client = self.server.client("t")
        return self.client


@pytest.fixture
def program(make_server, tmp_path):
    return Program(make_server, tmp_path)


def test_stdin_carries_system_text_and_prompt(program):
    client = program.start("cat")
    run = client.finish("the prompt\nsecond line", states="SUCCEEDED")
    assert run["output"].endswith("\n\nthe prompt\nsecond line") and not run["output"].startswith("[model:")
    assert run["provider"]["type"] == "cli" and run["exit_code"] == 0


def test_model_line_only_when_a_model_is_configured(program):
    client = program.start("head -n 1", MODEL="big-one")
    assert client.finish(states="SUCCEEDED")["output"] == "[model:big-one]"


def test_prompt_as_an_argument(program):
    client = program.start('printf "%s|" "$@"; cat | wc -c', CLI_PROMPT_MODE="arg", MODEL="m1",
                           CLI_ARGS=["-p", "{prompt}", "--model={model}", "{model}", "x y", "{run_id}"])
    run = client.finish("it's; $(id) \"quoted\" `x`\n--flag", states="SUCCEEDED")
    args = run["output"].split("|")
    assert args[0] == "-p" and args[1] == "it's; $(id) \"quoted\" `x`\n--flag"
    assert args[2] == "--model={model}", "only whole arguments are replaced"
    assert args[3] == "m1" and args[4] == "x y" and args[5] == run["run_id"] and args[6].strip() == "0"


def test_arguments_as_words(program):
    client = program.start('printf "%s|" "$@"', CLI_ARGS="one  two 'three four'")
    assert client.finish(states="SUCCEEDED")["output"] == "one|two|'three|four'|"


def test_program_on_the_path(program):
    server = program.make_server({"OZ_PROVIDER_CUSTOM_TYPE": "cli", "OZ_PROVIDER_CUSTOM_CLI_CMD": "printf",
                                  "OZ_PROVIDER_CUSTOM_CLI_ARGS": "found"})
    assert server.client("t").finish(states="SUCCEEDED")["output"] == "found"


def test_started_by_a_program_that_ignores_its_children(program):
    server = program.make_server({"OZ_PROVIDER_CUSTOM_TYPE": "cli", "OZ_PROVIDER_CUSTOM_CLI_CMD": "printf",
                                  "OZ_PROVIDER_CUSTOM_CLI_ARGS": "found"}, start=False)
    server.prefix = ["env", "--ignore-signal=CHLD"]
    run = server.start().client("t").finish(states="SUCCEEDED")
    assert run["output"] == "found" and run["exit_code"] == 0


def test_missing_program(program):
    server = program.make_server({"OZ_PROVIDER_CUSTOM_TYPE": "cli", "OZ_PROVIDER_CUSTOM_CLI_CMD": "/no/such/program"})
    run = server.client("t").finish(states="FAILED")
    assert run["error"]["code"] in ("config", "cli_failed")


def test_missing_command_names_its_variable(program):
    server = program.make_server({"OZ_PROVIDER_CUSTOM_TYPE": "cli"})
    run = server.client("t").finish(states="FAILED")
    assert run["error"]["code"] == "config" and "OZ_PROVIDER_CUSTOM_CLI_CMD" in run["error"]["message"]


@pytest.mark.parametrize("body", ["exec </dev/null; echo fine", "exec <&-; sleep 0.3; echo fine", "echo fine"])
def test_a_program_that_ignores_stdin_harms_nothing(program, body):
    client = program.start(body)
    run = client.finish("x" * 900_000, states="SUCCEEDED")
    assert run["output"] == "fine"
    program.server.assert_alive()


def test_environment_is_an_allow_list(program):
    client = program.start("env", CLI_ENV="EXTRA_A, NOT_SET", EXTRA_A="passed on", EXTRA_B="held back",
                           OZ_PROVIDER_CUSTOM_API_KEY="a-key-for-nobody")
    run = client.finish(states="SUCCEEDED")
    env = dict(line.split("=", 1) for line in run["output"].splitlines() if "=" in line)
    assert env["EXTRA_A"] == "passed on" and env["OZ_RUN_ID"] == run["run_id"]
    allowed = {"PATH", "HOME", "USER", "LANG", "TERM", "TMPDIR", "OZ_RUN_ID", "EXTRA_A", "PWD", "SHLVL", "_", "OLDPWD"}
    assert {k for k in env if k not in allowed and not k.startswith("LC_")} == set()
    assert ADMIN_KEY not in run["output"] and "held back" not in run["output"]


def test_working_directory_is_private_fresh_and_removed(program):
    client = program.start("pwd; stat -c %a .; ls -A | wc -l; touch left-behind")
    places = set()
    for _ in range(2):
        where, mode, count = client.finish(states="SUCCEEDED")["output"].split("\n")
        assert mode == "700" and count == "0"
        eventually(lambda: not os.path.exists(where), 5, "the removal of the working directory")
        places.add(where)
    assert len(places) == 2


def test_working_directory_given(program, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    client = program.start("pwd; echo kept >file", CLI_CWD=str(work))
    assert client.finish(states="SUCCEEDED")["output"] == str(work)
    assert (work / "file").read_text() == "kept\n"


def test_no_descriptors_are_inherited(program):
    client = program.start("ls -l /proc/self/fd | awk '{print $NF}'", first="#!/bin/bash")
    out = client.finish(states="SUCCEEDED")["output"]
    assert not [line for line in out.splitlines() if "socket:" in line or line.endswith((".db", ".db-wal", ".log"))], out


def test_own_session_and_no_new_privileges(program):
    client = program.start("awk '/^NoNewPrivs/{print $2}' /proc/self/status; ps -o pid=,pgid=,sid= -p $$")
    privileges, ids = client.finish(states="SUCCEEDED")["output"].split("\n")
    pid, group, _ = ids.split()
    assert privileges == "1" and pid == group


@pytest.mark.parametrize("body,code,exit_code", [
    ("echo broken >&2; exit 3", "cli_failed", 3), ("exit 137", "cli_failed", 137), ("kill -9 $$", "cli_failed", 137),
    ("kill -SEGV $$", "cli_failed", 139), ("exit 0", "provider_bad_response", 0),
    ("printf '  \\n\\t\\n'", "provider_bad_response", 0)])
def test_ends_that_are_failures(program, body, code, exit_code):
    run = program.start(body).finish(states="FAILED")
    assert run["error"]["code"] == code and run["exit_code"] == exit_code, run
    program.server.assert_alive()


def test_error_text_is_stderr_else_stdout(program):
    client = program.start('echo "on stdout"; echo "on stderr" >&2; exit 1')
    message = client.finish(states="FAILED")["error"]["message"]
    assert message.startswith("CLI provider failed:") and "on stderr" in message
    client = program.start('echo "only stdout"; exit 1')
    assert "only stdout" in client.finish(states="FAILED")["error"]["message"]


@pytest.mark.parametrize("text,limited", [
    ("Error: Rate limit exceeded", True), ("too many requests", True), ("HTTP 429 from upstream", True),
    ("status=429", True), ("line 14290: oops", False), ("listening on port 4291", False), ("1429 files", False)])
def test_rate_limit_by_text(program, text, limited):
    run = program.start(f"echo '{text}' >&2; exit 1").finish(states="FAILED")
    if limited:
        assert run["error"]["code"] in ("rate_limited", "saturated"), run["error"]
    else:
        assert run["error"]["code"] == "cli_failed", run["error"]


def test_rate_limit_by_exit_code(program):
    client = program.start("exit 75", CLI_RATE_LIMIT_EXIT="75,76")
    assert client.finish(states="FAILED")["error"]["code"] in ("rate_limited", "saturated")


def test_timeout_ends_the_group(program, tmp_path):
    pids = tmp_path / "pids"
    client = program.start(f"echo $$ >>{pids}; (trap '' TERM; echo $BASHPID >>{pids}; while :; do sleep 1; done) & "
                           f"sleep 300", CLI_TIMEOUT_MS="1000")
    start = time.monotonic()
    run = client.finish(states="FAILED", timeout=20)
    assert run["error"]["code"] == "cli_timeout" and time.monotonic() - start < 12
    for pid in pids.read_text().split():
        eventually(lambda: not os.path.exists(f"/proc/{pid}") or
                   open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] == "Z", 10, f"the end of {pid}")


def test_a_timeout_that_is_obeyed_is_quick(program):
    client = program.start("trap 'echo bye; exit 1' TERM; while :; do sleep 0.1; done", CLI_TIMEOUT_MS="500")
    start = time.monotonic()
    assert client.finish(states="FAILED")["error"]["code"] == "cli_timeout" and time.monotonic() - start < 4


@pytest.mark.parametrize("stream", ["", ">&2"])
def test_flood_is_stopped(program, stream):
    client = program.start(f"yes 'a line of a flood of forty characters..' {stream}")
    run = client.finish(states="FAILED", timeout=60)
    assert run["error"]["code"] == "cli_output_limit"
    program.server.assert_alive()
    assert not processes_with("a line of a flood of forty")


def test_large_output_is_cut_and_flagged(program):
    client = program.start("echo START; head -c 12000000 /dev/zero | tr '\\0' x; echo; echo END")
    run = client.finish(states="SUCCEEDED", timeout=60)
    assert run["output_truncated"] is True and len(run["output"]) <= (8 << 20) + 200
    assert run["output"].startswith("START") and run["output"].rstrip().endswith("END")


def test_background_child_that_keeps_the_pipe_open_does_not_hold_the_run(program):
    client = program.start("sleep 60 & echo done")
    start = time.monotonic()
    run = client.finish(timeout=20)
    assert run["state"] == "SUCCEEDED" and run["output"] == "done" and time.monotonic() - start < 10


def test_child_that_leaves_the_group_does_not_hold_the_run(program):
    client = program.start("setsid sleep 20 & echo done")
    start = time.monotonic()
    assert client.finish(timeout=20)["output"] == "done" and time.monotonic() - start < 10


def test_fork_bomb_of_short_children(program):
    client = program.start("for i in $(seq 300); do (exit 0) & done; wait; echo survived")
    assert client.finish(states="SUCCEEDED", timeout=60)["output"] == "survived"


def test_parallel_limit(program, tmp_path):
    log = tmp_path / "log"
    client = program.start(f"echo + >>{log}; sleep 0.4; echo - >>{log}; echo ok", CLI_MAX_PARALLEL="2")
    made = [client.create(str(i))["run_id"] for i in range(8)]
    for run in made:
        assert client.wait(run)["state"] == "SUCCEEDED"
    level = peak = 0
    for mark in log.read_text().split():
        level += 1 if mark == "+" else -1
        peak = max(peak, level)
    assert peak == 2 and level == 0


def test_stdout_streams(program):
    client = program.start("for i in 1 2 3 4; do echo piece $i; sleep 0.4; done")
    run_id = client.create()["run_id"]
    with client.events(run_id) as stream:
        events = stream.until_end()
    outputs = [e for e in events if e["event"] == "output"]
    assert len(outputs) >= 2 and events[-1]["at"] - outputs[0]["at"] > 0.5
    assert delta_text(events).split() == "piece 1 piece 2 piece 3 piece 4".split()


def test_failure_with_output_falls_not_back_without_output_it_does(make_server, tmp_path, model, word):
    for body, falls in (("exit 1", True), ("echo partial; exit 1", False)):
        path = tmp_path / "agent"
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        server = make_server({"OZ_PROVIDER_CUSTOM_TYPE": "cli", "OZ_PROVIDER_CUSTOM_CLI_CMD": str(path),
                              "OZ_PROVIDER_SECOND_BASE_URL": model.base(f"second-{word}"),
                              "OZ_PROVIDER_SECOND_TYPE": "openai_compatible", "OZ_PROVIDER_SECOND_MODEL": "m",
                              "OZ_PROVIDER_FALLBACK_ORDER": "second"})
        run = server.client("t").finish()
        assert run["state"] == ("SUCCEEDED" if falls else "FAILED"), (body, run["error"])


def test_children_die_with_the_server(program):
    client = program.start("echo started; exec -a a-child-of-the-crash-test sleep 300")
    run_id = client.create()["run_id"]
    client.wait(run_id, "INPROGRESS")
    eventually(lambda: processes_with("a-child-of-the-crash-test"), 10, "the child")
    program.server.kill9()
    eventually(lambda: not processes_with("a-child-of-the-crash-test"), 5, "the child's end")


def test_many_runs_leave_no_zombie_and_no_descriptor(program):
    client = program.start("echo ok")
    client.finish(states="SUCCEEDED")
    before = len(os.listdir(f"/proc/{program.server.pid}/fd"))
    made = [client.create(str(i))["run_id"] for i in range(40)]
    for run in made:
        client.wait(run)
    children = open(f"/proc/{program.server.pid}/task/{program.server.pid}/children").read().split()
    assert not children, children
    eventually(lambda: len(os.listdir(f"/proc/{program.server.pid}/fd")) <= before + 8, 5, "closed descriptors")


# --- formats ---

def lines(*items):
    return "\n".join(f"printf '%s\\n' '{json.dumps(i) if not isinstance(i, str) else i}'; sleep 0.05" for i in items)


def claude_delta(text):
    return {"type": "stream_event", "session_id": "s", "event": {
        "type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}}


def claude_text(text):
    return {"type": "assistant", "session_id": "s", "message": {"id": "m", "content": [{"type": "text", "text": text}]}}


INIT = {"type": "system", "subtype": "init", "session_id": "s", "tools": ["Bash"], "model": "m"}
TOOL = {"type": "assistant", "session_id": "s", "message": {"id": "m0", "content": [
    {"type": "tool_use", "id": "t", "name": "Bash", "input": {"command": "ls"}}]}}


def result(text="The answer.", **more):
    return {"type": "result", "subtype": "success", "is_error": False, "result": text, "num_turns": 2,
            "usage": {"input_tokens": 3, "output_tokens": 4}, "permission_denials": [], "session_id": "s", **more}


def codex(kind, **item):
    return {"type": kind, "item": {"id": "item_1", **item}}


FORMATS = [
    ("claude-stream-json", [INIT, claude_delta("The "), claude_delta("answer."), claude_text("The answer."), TOOL, result()]),
    ("claude-stream-json", [INIT, claude_text("The answer."), "this line is no JSON", {"type": "unheard-of"}, result()]),
    ("codex-json", [{"type": "thread.started", "thread_id": "t"}, {"type": "turn.started"},
                    codex("item.started", type="command_execution", command="ls", status="in_progress"),
                    codex("item.completed", type="command_execution", command="ls", exit_code=0, status="completed"),
                    codex("item.completed", type="agent_message", text="The answer."),
                    {"type": "turn.completed", "usage": {"input_tokens": 3, "output_tokens": 4}}]),
    ("opencode-json", [{"type": "step_start", "sessionID": "ses_1", "part": {"type": "step-start"}},
                       {"type": "tool_use", "sessionID": "ses_1", "part": {"type": "tool", "tool": "bash"}},
                       {"type": "text", "sessionID": "ses_1", "part": {"type": "text", "text": "The answer."}},
                       {"type": "step_finish", "sessionID": "ses_1", "part": {"type": "step-finish", "reason": "stop",
                        "tokens": {"input": 3, "output": 4}}}])]


@pytest.mark.parametrize("format_,items", FORMATS)
def test_formats_give_the_text_not_the_json(program, format_, items):
    client = program.start(lines(*items), CLI_FORMAT=format_)
    run_id = client.create()["run_id"]
    with client.events(run_id) as stream:
        events = stream.until_end()
    run = client.wait(run_id)
    assert run["state"] == "SUCCEEDED" and run["output"] == "The answer.", run
    assert delta_text(events).strip() == "The answer."


@pytest.mark.parametrize("format_,items", [
    ("claude-stream-json", [INIT, {"type": "result", "subtype": "error_during_execution", "is_error": True,
                                   "result": "it went wrong", "session_id": "s"}]),
    ("codex-json", [{"type": "thread.started", "thread_id": "t"},
                    {"type": "turn.failed", "error": {"message": "it went wrong"}}]),
    ("opencode-json", [{"type": "error", "sessionID": "ses_1",
                        "error": {"name": "APIError", "data": {"message": "it went wrong"}}}])])
def test_agents_that_say_they_failed(program, format_, items):
    """Exit code 0 does not mean that the work was done."""
    run = program.start(lines(*items), CLI_FORMAT=format_).finish(states="FAILED")
    assert run["error"]["code"] == "cli_failed" and "it went wrong" in run["error"]["message"]


def test_json_lines_cut_anywhere(program):
    text = json.dumps(claude_text("Ünï—cödé 🚀")) + "\n" + json.dumps(result("Ünï—cödé 🚀")) + "\n"
    raw = (program.dir / "raw")
    raw.write_bytes(text.encode())
    client = program.start(f"python3 -c \"import sys,time\nd=open('{raw}','rb').read()\nfor i in range(0,len(d),3):\n"
                           f"  sys.stdout.buffer.write(d[i:i+3]); sys.stdout.flush()\"", CLI_FORMAT="claude-stream-json")
    assert client.finish(states="SUCCEEDED")["output"] == "Ünï—cödé 🚀"


def test_json_line_without_end(program):
    client = program.start("head -c 30000000 /dev/zero | tr '\\0' x", CLI_FORMAT="codex-json")
    run = client.finish(states="FAILED", timeout=60)
    assert run["error"]["code"] in ("cli_output_limit", "provider_bad_response", "cli_failed")
    program.server.assert_alive()
