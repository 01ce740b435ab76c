"""`muster worker` against a plain server: what the original worker does, and what it should (oz-worker.md 2-8, 10)."""
import os
import signal
import time

import harness
import pytest
import worker_server

pytestmark = pytest.mark.engine_free


def test_a_task_runs_and_its_end_has_everything(server, start):
    d = start()
    c = server.connection()
    assert c.query["worker_id"] == "w1"
    c.send("task_assignment", **worker_server.assignment(
        "run_1", prompt='echo "see https://github.com/o/r/pull/7"; echo "session: https://s.example/x"; echo $TASK_ID $*'))
    claimed = c.expect("task_claimed")
    assert claimed == {"task_id": "run_1", "worker_id": "w1"}
    end = c.expect("task_completed")
    assert end["task_id"] == "run_1" and end["worker_id"] == "w1" and end["exit_code"] == 0
    assert end["output"].splitlines()[2].startswith("run_1")
    assert [a["data"]["url"] for a in end["artifacts"]] == ["https://github.com/o/r/pull/7"]
    assert end["artifacts"][0]["artifact_type"] == "PULL_REQUEST"
    assert end["session_link"] == "https://s.example/x"
    assert end["message"]
    harness.eventually(lambda: not d.leftovers(), what="removal")


def test_the_agent_gets_arguments_and_variables(server, start):
    d = start("--env", "EXTRA=1,SHARED=mine", "--idle-on-complete", "45m")
    d.agent.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\nenv | sort\n')
    c = server.connection()
    c.send("task_assignment", **worker_server.assignment("run_1", env={"SHARED": "theirs", "B": "b"}))
    out = c.expect("task_completed")["output"].splitlines()
    args = out[:out.index("45m") + 1]
    assert args[:5] == ["agent", "run", "--task-id", "run_1", "--sandboxed"]
    assert args[args.index("--model") + 1] == "claude-x" and args[args.index("--environment") + 1] == "env-1"
    assert args[-2:] == ["--idle-on-complete", "45m"]
    for line in ("TASK_ID=run_1", "GIT_TERMINAL_PROMPT=0", "GH_PROMPT_DISABLED=1", "EXTRA=1", "SHARED=mine", "B=b",
                 "OZ_WORKER_BACKEND=direct"):
        assert line in out, line
    assert not [x for x in out if x.startswith("OZ_API_KEY")], "the worker's key is in the agent's environment"


def test_a_status_other_than_zero_is_told(server, start):
    start()
    c = server.connection()
    c.send("task_assignment", **worker_server.assignment("run_1", prompt="echo no; exit 7"))
    end = c.expect("task_completed")
    assert end["exit_code"] == 7 and end["output"] == "no\n"


def test_output_with_nul_and_invalid_utf8_arrives(server, start):
    start()
    c = server.connection()
    c.send("task_assignment", **worker_server.assignment("run_1", prompt=r"printf 'a\000b\377c'"))
    assert c.expect("task_completed")["output"] == "a\0b�c"


def test_output_file_wins_over_the_log(server, start):
    start()
    c = server.connection()
    c.send("task_assignment", **worker_server.assignment(
        "run_1", prompt="echo log; printf 'the file' > .oz/agent_output.txt"))
    assert c.expect("task_completed")["output"] == "the file"


def test_a_flood_is_cut_in_the_middle(server, start):
    start("--output-limit", "64KiB")
    c = server.connection()
    c.send("task_assignment", **worker_server.assignment(
        "run_1", prompt="echo first; head -c 3000000 /dev/zero | tr '\\0' x; echo; echo last"))
    out = c.expect("task_completed", 60)["output"]
    assert len(out) < 70000 and out.startswith("first\n") and out.endswith("last\n") and "left out" in out


def test_bad_assignments_are_answered(server, start):
    d = start()
    c = server.connection()
    good = worker_server.assignment("run_1")
    for name, change in {"no task": {"task": None}, "number in env": {"env_vars": {"A": 1}}, "id": {"task": {"id": "x"}},
                         "date": {"task": {**good["task"], "created_at": "yesterday"}},
                         "type": {"docker_image": 5}, "args": {"additional_oz_args": [1]},
                         "mount": {"additional_sidecars": [{"image": "a", "mount_path": ""}]},
                         "shape": {"instance_shape": {"vcpus": 1.5}}, "name": {"env_vars": {"A=B": "c"}}}.items():
        c.send("task_assignment", **{**good, **change})
        failed = c.expect("task_failed")
        assert failed["task_id"] == "run_1" and failed["message"].startswith("invalid assignment"), (name, failed)
    for text in ("", "{", "[]", '{"type":5}', '{"type":"task_assignment"}', '{"type":"task_assignment","data":{"task_id":""}}',
                 '{"type":"nobody knows"}', '{"type":"task_cancel","data":{"task_id":"run_9"}}'):
        c.raw(text)
    c.send("task_assignment", **{**good, "task_id": "../x"})
    c.send("task_assignment", pieces=40, **worker_server.assignment("run_2"))
    c.expect("task_claimed", task_id="run_2")
    assert c.expect("task_completed", task_id="run_2")["exit_code"] == 127
    assert d.process.poll() is None


def test_a_second_assignment_of_a_running_task_starts_nothing(server, start):
    d = start()
    c = server.connection()
    task = worker_server.assignment("run_1", prompt=f"echo x >> {d.dir}/count; sleep 1")
    c.send("task_assignment", **task)
    c.expect("task_claimed")
    c.send("task_assignment", **task)
    c.expect("task_claimed")
    c.expect("task_completed")
    assert (d.dir / "count").read_text() == "x\n"


def test_more_than_the_slots_is_rejected(server, start):
    start("--capacity", "2")
    c = server.connection()
    for i in range(3):
        c.send("task_assignment", **worker_server.assignment(f"run_{i}", prompt="sleep 30"))
    c.expect("task_claimed", task_id="run_0")
    c.expect("task_claimed", task_id="run_1")
    assert c.expect("task_rejected", task_id="run_2")["reason"] == "worker at maximum concurrency"
    c.send("task_cancel", task_id="run_0")
    c.expect("task_completed", task_id="run_0", task_state="CANCELLED")
    c.send("task_assignment", **worker_server.assignment("run_3", prompt="true"))
    c.expect("task_claimed", task_id="run_3")
    c.expect("task_completed", task_id="run_3")


@pytest.mark.parametrize("kind", ["task_cancel", "task_cancellation"])
def test_both_forms_of_cancel_stop_everything(server, start, kind, word):
    d = start()
    c = server.connection()
    c.send("task_assignment", **worker_server.assignment(
        "run_1", prompt=f"setsid sleep 987 {word} & sleep 987; true", env={"WORD": word}))
    c.expect("task_claimed")
    harness.eventually(lambda: len(harness.processes_with(word)) >= 2, what="start")
    c.send(kind, task_id="run_1")
    c.expect("task_completed", task_id="run_1", task_state="CANCELLED")
    assert not harness.processes_with(word), "processes are left"
    harness.eventually(lambda: not d.leftovers(), what="removal")


def test_an_agent_that_ignores_TERM_is_killed(server, start, word):
    start()
    c = server.connection()
    c.send("task_assignment", **worker_server.assignment(
        "run_1", prompt="trap '' TERM; echo up; while :; do sleep 0.1; done", env={"WORD": word}))
    c.expect("task_claimed")
    time.sleep(0.5)
    c.send("task_cancel", task_id="run_1")
    c.send("task_cancel", task_id="run_1", graceful=False)
    c.expect("task_completed", 20, task_state="CANCELLED")
    assert not harness.processes_with(word)


def test_a_task_ends_when_its_time_is_over(server, start, word):
    start("--task-timeout", "1s")
    c = server.connection()
    c.send("task_assignment", **worker_server.assignment("run_1", prompt="sleep 60", env={"WORD": word}))
    failed = c.expect("task_failed")
    assert failed["failure_reason"] == "task_timeout"
    assert not harness.processes_with(word)


def test_setup_and_teardown(server, start):
    d = start(config="backend:\n  direct:\n    oz_path: AGENT\n    setup_command: 'echo MADE=up >> $OZ_ENVIRONMENT_FILE; "
                     "echo from setup'\n    teardown_command: 'echo $OZ_RUN_ID $MADE >> DIR/torn'\n")
    c = server.connection()
    c.send("task_assignment", **worker_server.assignment("run_1", prompt="echo made $MADE"))
    assert "made up" in c.expect("task_completed")["output"]
    harness.eventually(lambda: (d.dir / "torn").exists() and (d.dir / "torn").read_text() == "run_1\n")
    c.send("task_assignment", **worker_server.assignment("run_2", prompt="sleep 60"))
    c.expect("task_claimed")
    c.send("task_cancel", task_id="run_2")
    c.expect("task_completed", task_state="CANCELLED")
    harness.eventually(lambda: "run_2\n" in (d.dir / "torn").read_text(), what="teardown after a cancel")


def test_a_setup_command_that_fails_fails_the_task(server, start):
    start(config="backend:\n  direct:\n    oz_path: AGENT\n    setup_command: 'cat; exit 3'\n")
    c = server.connection()
    c.send("task_assignment", **worker_server.assignment("run_1"))
    failed = c.expect("task_failed")
    assert failed["failure_reason"] == "setup_command" and "status 3" in failed["message"] and failed["exit_code"] == 3


def test_a_long_prompt_travels_by_file(server, start):
    start()
    c = server.connection()
    c.send("task_assignment", **worker_server.assignment("run_1", prompt="echo long #" + "x" * 300_000))
    assert c.expect("task_completed")["output"] == "long\n"


# --- the link ---

def test_after_a_drop_it_comes_back_and_tells_what_ended_meanwhile(server, start):
    d = start()
    c = server.connection()
    c.send("task_assignment", **worker_server.assignment("run_1", prompt=f"while [ ! -e {d.dir}/go ]; do sleep 0.05; done; echo done"))
    c.expect("task_claimed")
    server.refuse = (503, {})
    c.drop()
    d.wait_log("link.not_connected")
    (d.dir / "go").write_text("")
    d.wait_log("task.ended")
    server.refuse = None
    c = server.connection(40)
    end = c.expect("task_completed", task_id="run_1")
    assert end["output"] == "done\n"
    harness.eventually(lambda: not d.leftovers())
    harness.eventually(lambda: c.pings, what="the ping behind it")
    time.sleep(0.5)
    c.drop()
    c = server.connection()
    time.sleep(6)  # long enough for the flush of a plain server
    assert not c.of("task_completed"), "an end that had arrived is told again"


def test_back_off_has_jitter_and_grows(server, start):
    server.refuse = (503, {})
    start()
    harness.eventually(lambda: len(server.attempts) >= 5, timeout=40)
    times = [t for t, _ in server.attempts]
    assert all(b - a < 9 for a, b in zip(times, times[1:]))
    assert times[4] - times[0] < 0.5 + 1 + 2 + 4 + 3


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_for_good_ends_it_with_3(server, start, status):
    server.refuse = (status, {})
    d = start()
    assert d.wait_exit() == 3
    assert len(server.attempts) == 1


def test_later_is_not_never(server, start):
    server.refuse = (429, {"Retry-After": "2"})
    start()
    harness.eventually(lambda: len(server.attempts) >= 2, timeout=20)
    assert server.attempts[1][0] - server.attempts[0][0] >= 1.9
    server.refuse = None
    server.connection()


def test_the_breaker_ends_it_with_4(server, start):
    server.refuse = (503, {})
    d = start(env={"OZ_RECONNECT_MAX_ATTEMPTS": "3"})
    assert d.wait_exit(40) == 4
    assert len(server.attempts) == 3


def test_a_signal_cancels_what_runs(server, start, word):
    d = start()
    c = server.connection()
    c.send("task_assignment", **worker_server.assignment("run_1", prompt="sleep 60", env={"WORD": word}))
    c.expect("task_claimed")
    harness.eventually(lambda: harness.processes_with(word))
    d.signal(signal.SIGTERM)
    failed = c.expect("task_failed")
    assert failed["failure_reason"] == "graceful_shutdown"
    assert d.wait_exit() == 0
    assert c.close_code == 1000
    assert not harness.processes_with(word) and not d.leftovers()


def test_draining_lets_it_finish_and_takes_nothing_new(server, start):
    d = start("--drain-timeout", "30s")
    c = server.connection()
    c.send("task_assignment", **worker_server.assignment("run_1", prompt="sleep 2; echo finished"))
    c.expect("task_claimed")
    d.signal(signal.SIGTERM)
    d.wait_log("worker.stopping")
    c.send("task_assignment", **worker_server.assignment("run_2"))
    assert c.expect("task_rejected", task_id="run_2")["reason"] == "worker is draining"
    assert c.expect("task_completed", task_id="run_1")["output"] == "finished\n"
    assert d.wait_exit() == 0


def test_a_second_signal_does_not_wait(server, start, word):
    d = start("--drain-timeout", "10m")
    c = server.connection()
    c.send("task_assignment", **worker_server.assignment(
        "run_1", prompt="trap '' TERM; while :; do sleep 0.1; done", env={"WORD": word}))
    c.expect("task_claimed")
    harness.eventually(lambda: harness.processes_with(word))
    d.signal(signal.SIGTERM)
    d.wait_log("worker.stopping")
    d.signal(signal.SIGTERM)
    c.expect("task_failed", 10, failure_reason="graceful_shutdown")
    assert d.wait_exit(10) == 0
    assert not harness.processes_with(word)


def test_kill9_and_the_task_goes_on_and_is_told_once(server, start, word):
    d = start()
    c = server.connection()
    c.send("task_assignment", **worker_server.assignment(
        "run_1", prompt=f"echo before; while [ ! -e {d.dir}/go ]; do sleep 0.05; done; echo after; exit 5",
        env={"WORD": word}))
    c.expect("task_claimed")
    harness.eventually(lambda: harness.processes_with(word))
    time.sleep(0.3)
    d.kill9()
    assert harness.processes_with(word), "it died with the worker"
    d.start()
    c = server.connection()
    c.expect("task_claimed", task_id="run_1")
    (d.dir / "go").write_text("")
    end = c.expect("task_completed", task_id="run_1")
    assert end["exit_code"] == 5 and end["output"] == "before\nafter\n"
    harness.eventually(lambda: not d.leftovers())
    time.sleep(1)
    assert len(c.of("task_completed")) == 1


def test_kill9_and_it_ended_meanwhile(server, start, word):
    d = start()
    c = server.connection()
    c.send("task_assignment", **worker_server.assignment("run_1", prompt="sleep 1; echo over; exit 6", env={"WORD": word}))
    c.expect("task_claimed")
    harness.eventually(lambda: harness.processes_with(word))
    d.kill9()
    harness.eventually(lambda: not harness.processes_with(word))
    d.start()
    c = server.connection()
    end = c.expect("task_completed", task_id="run_1")
    assert end["exit_code"] == 6 and end["output"] == "over\n"


def test_kill9_of_both_is_told_too(server, start, word):
    d = start()
    c = server.connection()
    c.send("task_assignment", **worker_server.assignment("run_1", prompt="sleep 60", env={"WORD": word}))
    c.expect("task_claimed")
    harness.eventually(lambda: harness.processes_with(word))
    time.sleep(0.3)
    d.kill9()
    for pid in harness.processes_with(word):
        os.kill(pid, signal.SIGKILL)
    d.start()
    c = server.connection()
    failed = c.expect("task_failed", task_id="run_1")
    assert failed["failure_reason"] == "unknown"
    harness.eventually(lambda: not d.leftovers())


def test_an_end_that_could_not_be_sent_survives_kill9(server, start):
    d = start()
    c = server.connection()
    c.send("task_assignment", **worker_server.assignment("run_1", prompt="sleep 0.5; echo kept"))
    c.expect("task_claimed")
    server.refuse = (503, {})
    c.drop()
    d.wait_log("task.ended")
    time.sleep(0.5)
    d.kill9()
    server.refuse = None
    d.start()
    c = server.connection()
    assert c.expect("task_completed", task_id="run_1")["output"] == "kept\n"


def test_keep_running_leaves_it_to_the_next_start(server, start, word):
    d = start("--keep-running")
    c = server.connection()
    c.send("task_assignment", **worker_server.assignment(
        "run_1", prompt=f"while [ ! -e {d.dir}/go ]; do sleep 0.05; done; echo after", env={"WORD": word}))
    c.expect("task_claimed")
    harness.eventually(lambda: harness.processes_with(word))
    time.sleep(0.3)
    d.signal(signal.SIGTERM)
    assert d.wait_exit() == 0
    assert harness.processes_with(word)
    d.start()
    c = server.connection()
    c.expect("task_claimed")
    (d.dir / "go").write_text("")
    assert c.expect("task_completed", task_id="run_1")["output"] == "after\n"


# --- the kind command ---

COMMAND = "backend:\n  command:\n    dispatch_command: '{}'\n    cancel_command: 'echo $OZ_RUN_ID $OZ_WORKER_BACKEND > DIR/cancelled'\n" \
          "    dispatch_timeout: 2s\n    environment:\n      - name: CONFIGURED\n        value: 'yes'\n"


def test_dispatched_tasks_free_their_slot_and_can_be_cancelled(server, start):
    d = start("--capacity", "1", kind="command",
              config=COMMAND.format("cat > DIR/in.json; env > DIR/env"))
    c = server.connection()
    for i in range(2):
        c.send("task_assignment", **worker_server.assignment(f"run_{i}", f"exec-{i}"))
        c.expect("task_claimed", task_id=f"run_{i}")
        d.wait_log("task.ended", task_id=f"run_{i}")
    given = __import__("json").loads((d.dir / "in.json").read_text())
    assert given["version"] == 1 and given["run_id"] == "run_1" and given["execution_id"] == "exec-1"
    assert given["env"]["OZ_TASK_PROMPT"] == "hello" and given["sidecars"][0]["mount_path"] == "/agent"
    assert given["task"]["id"] == "run_1" and given["base_args"][:2] == ["agent", "run"]
    env = (d.dir / "env").read_text().splitlines()
    assert "CONFIGURED=yes" in env and "OZ_EXECUTION_ID=exec-1" in env and f"OZ_SERVER_ROOT_URL={server.url}" in env
    c.send("task_cancellation", task_id="run_0")
    harness.eventually(lambda: (d.dir / "cancelled").exists() and (d.dir / "cancelled").read_text() == "run_0 command\n")
    d.kill9()
    (d.dir / "cancelled").unlink()
    d.start()
    c = server.connection()
    time.sleep(0.5)
    c.send("task_cancellation", task_id="run_1")
    harness.eventually(lambda: (d.dir / "cancelled").exists() and (d.dir / "cancelled").read_text() == "run_1 command\n")
    assert not c.of("task_completed") and not c.of("task_failed")


def test_a_dispatch_that_fails_or_hangs_is_told(server, start):
    d = start(kind="command", config=COMMAND.format("test -e DIR/hang && sleep 60; exit 9"))
    c = server.connection()
    c.send("task_assignment", **worker_server.assignment("run_1"))
    failed = c.expect("task_failed", task_id="run_1")
    assert failed["failure_reason"] == "dispatch_command" and "status 9" in failed["message"]
    (d.dir / "hang").write_text("")
    c.send("task_assignment", **worker_server.assignment("run_2"))
    assert c.expect("task_failed", task_id="run_2")["failure_reason"] == "dispatch_timeout"


@pytest.mark.parametrize("ms", range(0, 50, 5))
def test_a_signal_while_it_looks_what_protects_ends_it_cleanly(start, tmp_path, ms):
    harness.need_sandbox(tmp_path)
    d = start("--sandbox", "namespace", kind="namespace")
    harness.eventually(lambda: [line for line in d.log if line["msg"] == "worker.start"], what="its start")
    time.sleep(ms / 1000)
    d.stop()  # exit code 0, and nothing but JSON
