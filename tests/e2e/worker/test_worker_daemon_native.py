"""`muster worker` against a native server (oz-worker.md 16)."""
import signal
import time

import harness
import pytest
import worker_server

pytestmark = pytest.mark.engine_free
E1, E2 = "0197a000-0000-7000-8000-000000000001", "0197a000-0000-7000-8000-000000000002"
NATIVE = True


def task(name="run_1", execution=E1, **more):
    more.setdefault("session_token", "token-of-this-attempt")
    return worker_server.assignment(name, execution, **more)


def test_hello_says_what_it_is(server, start):
    start("--capacity", "3", "--label", "gpu,big", env={"RUNNER_FEATURES": "x"})
    c = server.connection()
    hello = c.of("hello")[0]
    assert c.query["proto"] == "2" and c.query["worker_id"] == "w1" and c.query["instance"] == hello["instance"]
    assert len(hello["instance"]) == 32 and hello["proto"] == 2 and hello["name"] == "w1" and hello["capacity"] == 3
    assert hello["labels"] == ["gpu", "big"] and "x" in hello["features"] and "shell" in hello["harnesses"]
    assert hello["running"] == [] and hello["unacked"] == []
    kinds = {s["kind"]: s for s in hello["sandbox"]}
    assert kinds["direct"]["strength"] == "none" and not any(x["active"] for x in kinds["direct"]["layers"])


def test_instance_stays_over_restarts(server, start):
    d = start()
    first = server.connection().of("hello")[0]["instance"]
    d.stop()
    d.start()
    assert server.connection().of("hello")[0]["instance"] == first


def test_heartbeats_come(server, start):
    start()
    c = server.connection()
    c.send("task_assignment", **task(prompt="sleep 60"))
    c.expect("task_claimed")
    beats = [c.expect("heartbeat") for _ in range(3)]
    assert [b["sequence"] for b in beats][-1] >= 3
    assert beats[-1]["runnerId"] == "rnr_1" and beats[-1]["activeSessions"] == ["run_1"]
    assert harness.TIMESTAMP.fullmatch(beats[-1]["timestamp"])
    assert 0 <= beats[-1]["load"]["cpuPercent"] <= 100


def test_states_log_and_end_in_order(server, start):
    d = start()
    c = server.connection()
    c.send("task_assignment", **task(prompt="echo one; sleep 0.5; printf 'two \\303\\244\\n'; exit 4"))
    claimed = c.expect("task_claimed")
    assert claimed["execution_id"] == E1 and claimed["epoch"] == 1 and claimed["seq"] == 1
    end = c.expect("task_completed")
    assert end["exit_code"] == 4 and end["output"] == "one\ntwo ä\n" and end["usage"]["duration_ms"] > 400
    states = c.of("task_state")
    assert [s["state"] for s in states] == ["preparing", "starting", "running"]
    seqs = [claimed["seq"]] + [s["seq"] for s in states] + [end["seq"]]
    assert seqs == sorted(set(seqs))
    logs = c.of("task_log")
    assert "".join(x["chunk"] for x in logs) == "one\ntwo ä\n"
    assert logs[0]["offset"] == 0 and logs[1]["offset"] == 4 and all(x["execution_id"] == E1 for x in logs)
    harness.eventually(lambda: not d.leftovers())


def test_files_artifacts_and_link_of_the_result(server, start):
    start()
    c = server.connection()
    c.send("task_assignment", **task(prompt=r"""
        mkdir -p .oz/artifacts; printf 'a\000b' > .oz/artifacts/data.bin; echo diff > .oz/changes.patch
        ln -s /etc/passwd .oz/artifacts/link
        cat > .oz/result.json <<'X'
        {"exit_code":0,"phase":"agent","session_link":"https://s.example/1",
         "artifacts":[{"artifact_type":"PULL_REQUEST","created_at":"2026-01-31T12:00:00Z",
                       "data":{"branch":"b","url":"https://github.com/o/r/pull/1"}}],
         "files":[{"path":"/workspace/.oz/artifacts/data.bin","name":"data.bin","media_type":"application/x-test"},
                  {"path":"/workspace/.oz/changes.patch","name":"changes.patch","media_type":"text/x-diff"},
                  {"path":"/workspace/.oz/artifacts/link","name":"link","media_type":"text/plain"},
                  {"path":"/workspace/../../etc/passwd","name":"up","media_type":"text/plain"},
                  {"path":"/etc/passwd","name":"abs","media_type":"text/plain"}]}
X
        echo https://github.com/o/r/pull/1 https://github.com/o/r/pull/2"""))
    end = c.expect("task_completed")
    assert [(a["data"]["url"][-1], a["data"]["branch"]) for a in end["artifacts"]] == [("1", "b"), ("2", "unknown")]
    assert end["session_link"] == "https://s.example/1"
    assert server.files == {("run_1", "data.bin"): ("application/x-test", b"a\0b"),
                            ("run_1", "changes.patch"): ("text/x-diff", b"diff\n")}
    assert set(server.tokens) == {"Bearer token-of-this-attempt"}


def test_odd_names_and_too_many_files_stay_where_they_are(server, start):
    start()
    c = server.connection()
    c.send("task_assignment", **task(prompt="""mkdir -p .oz; echo x > .oz/f
        file() { printf '{"path":"/workspace/.oz/f","name":"%s"},' "$1"; }
        { printf '{"files":['
          for name in '' ../up .hidden a/b 'two words' 'a?b' 'a%2fb' "$(printf %0129d 0)"; do file "$name"; done
          for n in $(seq 200); do file "f$n"; done
          echo '{}]}'; } > .oz/result.json"""))
    assert c.expect("task_completed", 60)["exit_code"] == 0
    assert {name for _, name in server.files} == {f"f{n}" for n in range(1, 65)}


def test_uploads_are_tried_again(server, start):
    start()
    server.file_status = 503
    c = server.connection()
    c.send("task_assignment", **task(prompt="""mkdir -p .oz; echo x > .oz/f
        echo '{"files":[{"path":"/workspace/.oz/f","name":"f"}]}' > .oz/result.json"""))
    harness.eventually(lambda: len(server.tokens) >= 2, what="a second try")
    assert not c.of("task_completed")
    server.file_status = 200
    c.expect("task_completed")
    assert server.files[("run_1", "f")] == ("application/octet-stream", b"x\n")


def test_a_prompt_is_fetched_by_the_worker(server, start):
    start()
    server.prompts["run_1"] = "echo fetched; env | grep -c -e OZ_RUN_TOKEN -e OZ_TASK_PROMPT_URL"
    c = server.connection()
    data = task(env={"OZ_TASK_PROMPT_URL": "/api/v1/agent/runs/run_1/prompt", "OZ_RUN_TOKEN": "token-of-this-attempt"})
    del data["env_vars"]["OZ_TASK_PROMPT"]
    c.send("task_assignment", **data)
    assert c.expect("task_completed")["output"] == "fetched\n0\n"
    data = task("run_2", E2, env={"OZ_TASK_PROMPT_URL": "/api/v1/agent/runs/run_2/prompt"})
    del data["env_vars"]["OZ_TASK_PROMPT"]
    c.send("task_assignment", **data)
    assert c.expect("task_failed")["failure_reason"] == "workspace_setup"


def test_epochs_and_foreign_ids(server, start):
    start()
    c = server.connection()
    c.send("task_assignment", **task(epoch=5, prompt="sleep 30"))
    c.expect("task_claimed", epoch=5)
    c.send("task_cancel", task_id="run_1", execution_id=E1, epoch=4)
    c.send("task_cancel", task_id="run_1", execution_id=E2, epoch=5)
    c.send("task_cancel", task_id="run_2", execution_id=E1, epoch=5)
    c.send("task_assignment", **task(execution=E2, epoch=4))
    time.sleep(1)
    assert [m["type"] for m in c.messages if m["type"].startswith("task_c")] == ["task_claimed"]
    c.send("task_assignment", **task(execution=E2, epoch=6, prompt="echo new"))
    c.expect("task_claimed", execution_id=E2, epoch=6)
    assert c.expect("task_completed")["execution_id"] == E2
    time.sleep(1)
    assert len(c.of("task_completed")) == 1 and not c.of("task_failed"), "the old attempt speaks"


def test_an_assignment_without_execution_is_refused(server, start):
    start()
    c = server.connection()
    c.send("task_assignment", **worker_server.assignment("run_1"))
    assert "execution_id" in c.expect("task_failed")["message"]


def test_reconnect_tells_what_runs_and_sends_unacked_ends(server, start):
    d = start()
    server.auto_ack = False
    c = server.connection()
    c.send("task_assignment", **task(prompt="echo done"))
    c.send("task_assignment", **task("run_2", E2, prompt="sleep 60"))
    end = c.expect("task_completed")
    harness.eventually(lambda: [s for s in c.of("task_state") if s["execution_id"] == E2 and s["state"] == "running"])
    c.drop()
    c = server.connection()
    hello = c.of("hello")[0]
    assert hello["unacked"] == [E1]
    assert [(r["task_id"], r["execution_id"], r["epoch"], r["state"]) for r in hello["running"]] == [("run_2", E2, 1, "running")]
    again = c.expect("task_completed", execution_id=E1)
    assert again == end
    c.send("ack", execution_id=E1, seq=end["seq"] - 1, terminal_offset=0)
    c.drop()
    c = server.connection()
    c.expect("task_completed", execution_id=E1)
    c.send("ack", execution_id=E1, seq=end["seq"], terminal_offset=0)
    time.sleep(0.5)
    d.kill9()
    d.start()
    c = server.connection()
    assert c.of("hello")[0]["unacked"] == []


def test_acked_and_stop_of_the_welcome(server, start, word):
    start()
    server.auto_ack = False
    c = server.connection()
    c.send("task_assignment", **task(prompt="echo done"))
    c.send("task_assignment", **task("run_2", E2, prompt="sleep 30", env={"WORD": word}))
    c.expect("task_completed")
    harness.eventually(lambda: harness.processes_with(word))
    server.welcome = {"acked": [{"execution_id": E1, "seq": 1000, "terminal_offset": 0}], "stop": [E2]}
    c.drop()
    c = server.connection()
    harness.eventually(lambda: not harness.processes_with(word), what="stop")
    time.sleep(1)
    assert not c.of("task_completed") and not c.of("task_failed")


def test_many_ends_wait_for_the_server(server, start):
    d = start()
    c = server.connection()
    ids = [f"0197a000-0000-7000-8000-{i:012d}" for i in range(12)]
    for i, e in enumerate(ids):
        c.send("task_assignment", **task(f"run_{i}", e, prompt="sleep 1; head -c 2000000 /dev/zero | tr '\\0' y"))
    for e in ids:
        c.expect("task_claimed", execution_id=e)
    server.refuse = (503, {})
    c.drop()
    harness.eventually(lambda: len([x for x in d.log if x["msg"] == "task.ended"]) == 12, timeout=60)
    harness.eventually(lambda: not d.leftovers(), timeout=60)  # given back when its end is stored
    d.kill9()
    server.refuse = None
    d.start()
    c = server.connection()
    assert sorted(c.of("hello")[0]["unacked"]) == ids
    harness.eventually(lambda: len(c.of("task_completed")) == 12, timeout=60)
    assert sorted(m["execution_id"] for m in c.of("task_completed")) == ids
    assert all(len(m["output"]) == 2000000 for m in c.of("task_completed"))


def test_kill9_adopts_with_a_higher_seq(server, start, word):
    d = start()
    c = server.connection()
    c.send("task_assignment", **task(prompt=f"echo a; while [ ! -e {d.dir}/go ]; do sleep 0.05; done; echo b", env={"WORD": word}))
    c.expect("task_state", state="running")
    last = c.of("task_state")[-1]["seq"]
    harness.eventually(lambda: c.of("task_log"))
    d.kill9()
    d.start()
    c = server.connection()
    running = c.of("hello")[0]["running"]
    assert [(r["execution_id"], r["state"]) for r in running] == [(E1, "running")] and running[0]["last_seq"] > last
    (d.dir / "go").write_text("")
    end = c.expect("task_completed")
    assert end["output"] == "a\nb\n" and end["seq"] > last
    harness.eventually(lambda: not d.leftovers())


def test_commands_drain_and_undrain(server, start):
    start()
    c = server.connection()
    c.send("command", command_id="1", command="drain")
    assert c.expect("command_result", command_id="1")["ok"] is True
    c.send("task_assignment", **task())
    assert c.expect("task_rejected")["execution_id"] == E1
    c.send("command", command_id="2", command={"type": "undrain"})
    c.expect("command_result", command_id="2")
    c.send("task_assignment", **task("run_2", E2, prompt="true"))
    c.expect("task_completed")
    c.send("command", command_id="3", command="fly")
    assert c.expect("command_result", command_id="3")["ok"] is False


def test_a_signal_announces_the_drain(server, start):
    d = start("--drain-timeout", "20s")
    c = server.connection()
    c.send("task_assignment", **task(prompt="sleep 1"))
    c.expect("task_claimed")
    d.signal(signal.SIGTERM)
    assert c.expect("drain")["reason"] == "SIGTERM"
    c.expect("task_completed")
    assert d.wait_exit() == 0 and c.close_code == 1000


def test_a_late_welcome_still_switches(server, start):
    server.native = False
    start()
    c = server.connection()
    c.expect("hello")
    time.sleep(5.5)
    c.send("task_assignment", **task(prompt="sleep 2"))
    assert "execution_id" not in c.expect("task_claimed")
    server.native = c.native = True
    c.send("welcome", worker_uid="rnr_2", heartbeat_interval_ms=1000, keep=[], stop=[], acked=[])
    assert c.expect("task_claimed")["execution_id"] == E1
    c.expect("task_completed")
    c.expect("heartbeat")


def test_a_credential_is_kept_and_used(server, start):
    d = start()
    server.welcome = {"credential": "credential-of-an-enrolment"}
    server.connection()
    d.wait_log("link.enrolled")
    d.stop()
    key, server.key = server.key, "credential-of-an-enrolment"
    d.start()
    server.connection()
    server.key = key  # revoked: the configured key again
    d.stop()
    d.start()
    server.connection()


def test_hostile_messages_do_no_harm(server, start):
    d = start()
    c = server.connection()
    c.raw(b'{"type":"ack","data":{"execution_id":5,"seq":"x"}}')
    c.raw(b'{"type":"ack"}')
    c.raw(b'{"type":"welcome","data":{"stop":[1,{}],"acked":[[]],"heartbeat_interval_ms":-5}}')
    c.raw(b'{"type":"command","data":{"command_id":{},"command":7}}')
    c.raw(b'[' * 1000)
    c.raw(b'{"type":"task_assignment","data":' + b'[' * 100 + b']' * 100 + b'}')
    c.raw(b'{"type":"task_assignment","data":{"task_id":"run_1","task_id":"run_2"}}')
    c.send("task_assignment", **{**task(), "execution_id": "../../x"})
    c.expect("task_failed")
    c.send("task_assignment", **{**task(), "session_token": "a\r\nX: y"})
    c.expect("task_failed")
    c.send("task_assignment", **task(prompt="echo alive"))
    assert c.expect("task_completed")["output"] == "alive\n"
    c.raw(b"x" * (17 << 20))
    c.wait_closed()
    assert c.close_code == 1009
    server.connection()
    assert d.process.poll() is None


def test_an_idle_worker_is_small(server, start):
    assert harness.RELEASE.exists(), "script/build first: a sanitizer's own memory is no measure"
    d = start(program=harness.RELEASE)
    c = server.connection()
    c.send("task_assignment", **task(prompt="head -c 4000000 /dev/zero | tr '\\0' x"))
    c.expect("task_completed")

    def small():
        status = open(f"/proc/{d.process.pid}/status").read()
        return int(status.partition("VmRSS:")[2].split()[0]) <= 8 * 1024
    harness.eventually(small, timeout=15, what="8 MiB resident")


def running(c):
    return [s for s in c.of("task_state") if s["state"] == "running"]


def test_what_the_server_never_confirmed_ends_with_its_lease(server, start, word):
    d = start()
    server.auto_ack = False
    c = server.connection()
    c.send("task_assignment", **task(prompt="sleep 60", env={"WORD": word}, lease_ms=2000))
    harness.eventually(lambda: running(c) and harness.processes_with(word))
    server.refuse = (503, {})
    c.drop()
    begin = time.monotonic()
    harness.eventually(lambda: not harness.processes_with(word), what="the end of the task")
    assert 0.5 < time.monotonic() - begin < 2.2, "it ends within its lease, not before there is a need"
    d.wait_log("task.lease_expired")
    server.refuse = None
    hello = server.connection().of("hello")[0]
    assert hello["running"] == [] and hello["unacked"] == [], "the server is not told of it: it may be another's now"
    harness.eventually(lambda: not d.leftovers())


def test_a_lease_lasts_while_the_server_is_heard(server, start, word):
    start()
    server.auto_ack = False
    c = server.connection()
    c.send("task_assignment", **task(prompt="sleep 4", env={"WORD": word}, lease_ms=1000))
    end = time.monotonic() + 4
    while time.monotonic() < end and not c.of("task_completed"):
        c.send("ack", execution_id=E2, seq=1, terminal_offset=0)  # of no meaning
        time.sleep(0.2)
    assert c.expect("task_completed")["exit_code"] == 0


def test_what_is_confirmed_needs_no_lease_even_after_a_restart(server, start, word):
    d = start()
    server.auto_ack = False
    c = server.connection()
    c.send("task_assignment", **task(prompt=f"while [ ! -e {d.dir}/go ]; do sleep 0.05; done", env={"WORD": word}, lease_ms=1000))
    harness.eventually(lambda: running(c))
    c.send("ack", execution_id=E1, seq=running(c)[0]["seq"], terminal_offset=0)
    time.sleep(0.5)
    server.refuse = (503, {})
    c.drop()
    time.sleep(2)
    assert harness.processes_with(word)
    d.kill9()
    d.start()
    time.sleep(2)
    assert harness.processes_with(word)
    server.refuse = None
    c = server.connection()
    assert [r["execution_id"] for r in c.of("hello")[0]["running"]] == [E1]
    (d.dir / "go").write_text("")
    c.expect("task_completed")
