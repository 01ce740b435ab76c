"""The command line of live sessions, against a server with its embedded worker; `attach` sits at a pseudo-terminal."""
import contextlib
import hashlib
import json
import re
import signal
import subprocess
import time

import git_remote
import harness
import lossy_proxy
import pytest
from harness import BINARY, eventually
from seat import SESSION, Cli, Seat
from village import Village

pytestmark = pytest.mark.engine_free


@pytest.fixture(scope="module")
def repo():
    with git_remote.serving("work", **{"README.md": "hello\n"}) as url:
        yield url


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    harness.need_sandbox(tmp_path_factory.mktemp("check"))
    with harness.serving({"OZ_EMBEDDED_WORKER": "on", "OZ_ALLOW_LOCAL_REPOS": "on"}, name="cli-sessions") as server:
        client = server.client()
        eventually(lambda: [w for w in harness.ok(client.api("GET", "/workers"))["workers"] if w["connected"] and w["version"]],
                   timeout=30, what="the embedded worker's connection")
        yield server


@pytest.fixture
def village(server):
    return Village(server.client())


@pytest.fixture
def cli(server, repo):
    return Cli(server, repo)


@pytest.fixture
def sit(cli):
    seats = []

    def make(*args, **options):
        seats.append(Seat(cli, *args, **options))
        return seats[-1]
    yield make
    for seat in seats:
        seat.close()


@pytest.fixture
def shell(cli, village):
    """A session whose program reads from its terminal; stopped at the end."""
    made = []

    def make(script, *args):
        made.append(cli.new(*args, script))
        eventually(lambda: village.get(made[-1])["state"] == "RUNNING", timeout=40, what="RUNNING")
        return made[-1]
    yield make
    for session in made:
        village.stop(session)


# A program that answers lines, tells its size, and ends when it is told to.
ECHO = "echo ready; while read -r l; do case $l in size) stty size;; quit) exit 0;; fail) exit 3;; *) echo \"<$l>\";; esac; done"


# --- without a terminal ---

def test_a_session_is_started_followed_and_shown(cli):
    session = cli.new("echo one; sleep 0.3; echo two > made; echo two")
    done = cli("attach", session, timeout=60)
    assert done.stdout.replace("\r", "").splitlines()[-2:] == ["one", "two"], done
    assert "COMPLETED (finished)" in done.stderr
    again = cli("attach", session[:-4])  # by the beginning of its id
    assert again.stdout == done.stdout
    shown = cli("sessions", "show", session).stdout
    assert session in shown and "COMPLETED" in shown and "shell" in shown and cli.repo in shown
    assert cli.json("sessions", "show", session)["data"]["sessionId"] == session
    assert session not in cli("sessions").stdout
    assert session in cli("sessions", "--all").stdout
    assert session in cli("sessions", "--state", "completed").stdout
    assert session not in cli("sessions", "--state", "failed").stdout
    diff = cli("diff", session).stdout
    assert re.search(r"\b1 +0 +made\n", diff), diff


def test_exit_codes_tell_how_it_ended(cli, village):
    assert "FAILED" in cli("attach", cli.new("exit 3"), code=1, timeout=60).stderr
    session = cli.new("sleep 60")
    eventually(lambda: village.get(session)["state"] == "RUNNING", timeout=40, what="RUNNING")
    follower = subprocess.Popen([str(BINARY), "attach", session], env=cli.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True)
    time.sleep(1)
    cli("sessions", "stop", session)
    out, err = follower.communicate(timeout=40)
    assert follower.returncode == 4 and "stopped" in err, (out, err)


def test_an_interrupted_follower_leaves_the_session_alone(cli, shell, village):
    session = shell(ECHO)
    follower = subprocess.Popen([str(BINARY), "attach", session], env=cli.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True)
    assert follower.stdout.readline().strip() == "ready"
    follower.send_signal(signal.SIGINT)
    out, err = follower.communicate(timeout=20)
    assert follower.returncode == 130 and "detached" in err, (out, err)
    assert village.get(session)["state"] == "RUNNING"


def test_names_that_are_none_or_several(cli, shell):
    nobody = "ses_00000000-0000-7000-8000-000000000000"
    for command in (["attach"], ["sessions", "show"], ["sessions", "stop"], ["sessions", "end"], ["sessions", "interrupt"], ["pause"],
                    ["resume"], ["diff"]):
        assert "muster:" in cli(*command, nobody, code=5).stderr
        assert "no session zzz" in cli(*command, "zzz", code=5).stderr
    assert "no approval zzz" in cli("approve", "zzz", code=5).stderr
    assert "no approval zzz" in cli("deny", "zzz", "--reason", "no", code=5).stderr
    shell(ECHO)
    shell(ECHO)
    assert "sessions begin with ses_0" in cli("attach", "ses_0", code=2).stderr


def test_what_is_refused_is_said(cli, tmp_path):
    assert "--repo is missing" in cli("sessions", "new", "do it", code=2).stderr
    assert "prompt is missing" in cli("sessions", "new", "--repo", cli.repo, code=2).stderr
    assert "expected one of" in cli("sessions", "--state", "dancing", code=2).stderr
    assert "expected a key" in cli("attach", "x", "--detach-key", "F1", code=2).stderr
    done = cli("sessions", "new", "--repo", "ftp://nowhere", "x", code=2)
    assert "repo.url" in done.stderr, done.stderr
    (tmp_path / "policy.json").write_text("[]")
    assert "JSON object" in cli("sessions", "new", "--repo", cli.repo, "--policy", str(tmp_path / "policy.json"), "x", code=2).stderr
    (tmp_path / "policy.json").write_text('{"shellDefault": "perhaps"}')
    done = cli("sessions", "new", "--repo", cli.repo, "--policy", str(tmp_path / "policy.json"), "x", code=2)
    assert "policy.shellDefault" in done.stderr, done.stderr
    assert cli("workers", code=4, env={"OZ_API_KEY": "a-tenant"}).stdout == ""


def test_the_prompt_may_be_standard_input(cli):
    session = cli.new("-", stdin="echo from-standard-input\n")
    assert "from-standard-input" in cli("attach", session).stdout


def test_workers(cli):
    out = cli("workers").stdout
    heading, row = out.splitlines()[:2]
    assert heading.split() == ["WORKER", "STATE", "LOAD", "VERSION", "SINCE", "SEEN", "SANDBOXES"]
    assert row.startswith("embedded-") and " online " in row and re.search(r"\d/8 ", row) and "namespace" in row
    assert cli.json("workers")["workers"][0]["connected"] is True


def test_a_worker_is_drained_and_comes_back(cli, shell, village):
    worker = cli.json("workers")["workers"][0]
    name, runner = worker["id"], worker["uid"]
    session = shell(ECHO)
    waiting = subprocess.Popen([str(BINARY), "drain", name, "--reason", "a new kernel", "--wait"], env=cli.env, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert waiting.stderr.readline() == f"{name} drains: 1 session left\n"
    assert re.search(rf"{name} +draining ", cli("workers").stdout)
    assert cli("drain", name).stdout == f"{name} drains, 1 left\n"  # twice is no error
    assert cli.json("drain", runner[:-4])["data"]["runnerId"] == runner  # by the beginning of its id
    assert waiting.poll() is None
    village.stop(session)
    out, err = waiting.communicate(timeout=40)
    assert (waiting.returncode, out) == (0, f"{name} is drained\n"), (out, err)
    later = cli.new("echo later")
    assert village.get(later)["state"] == "QUEUED"
    assert cli("drain", name, "--wait").stdout == f"{name} is drained\n"
    assert cli("undrain", name).stdout == f"{name} takes sessions again\n"
    eventually(lambda: village.get(later)["state"] == "COMPLETED", timeout=40, what="the session that waited")
    assert re.search(rf"{name} +online ", cli("workers").stdout)
    assert "does not drain" in cli("undrain", name, code=2).stderr
    assert "no worker nobody" in cli("drain", "nobody", code=5).stderr
    assert "--stop-after" in cli("drain", name, "--stop-after", "soon", code=2).stderr
    assert cli("drain", name, code=5, env={"OZ_API_KEY": "a-tenant"}).stdout == ""


def test_who_waits_for_a_drain_is_told_of_its_end(cli, shell):
    name = cli.json("workers")["workers"][0]["id"]
    shell(ECHO)
    waiting = subprocess.Popen([str(BINARY), "drain", "--wait", name], env=cli.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    assert "left" in waiting.stderr.readline()
    cli("undrain", name)
    out, err = waiting.communicate(timeout=20)
    assert (waiting.returncode, out) == (1, "") and "take sessions again" in err, (out, err)


def test_pause_and_resume(cli, shell, village):
    session = shell("i=0; while true; do i=$((i+1)); echo $i; sleep 0.1; done")
    assert "PAUSED_BY_HUMAN" in cli("pause", session).stdout
    assert village.get(session)["state"] == "PAUSED_BY_HUMAN"
    cli("pause", session, code=2)
    assert "RUNNING" in cli("resume", session).stdout


def test_help_and_completion_know_the_commands(cli):
    text = cli("help").stdout
    for command in ("sessions new", "attach ID", "approvals", "approve ID", "deny ID", "pause ID", "resume ID", "diff ID", "workers",
                    "drain WORKER", "undrain WORKER"):
        assert f"\n  {command}" in text, command
    group = cli("sessions", "--help").stdout
    assert "--state" in group and "\n  interrupt " in group
    assert cli("help", "sessions").stdout == group
    for sh in ("bash", "zsh", "fish"):
        text = cli("completion", sh).stdout
        assert "detach-key" in text and "interrupt" in text and "approvals" in text
    asked = "source <($MUSTER completion bash); COMP_WORDS=(muster sessions n); COMP_CWORD=2; _muster; echo ${COMPREPLY[@]};" \
            "COMP_WORDS=(muster sessions new --po); COMP_CWORD=3; _muster; echo ${COMPREPLY[@]};" \
            "COMP_WORDS=(muster attach --de); COMP_CWORD=2; _muster; echo ${COMPREPLY[@]}"
    done = subprocess.run(["bash", "-c", asked], env={**cli.env, "MUSTER": str(BINARY)}, capture_output=True, text=True)
    assert done.stdout.split() == ["new", "--policy", "--detach-key"], done


# --- at a terminal ---

def test_it_is_a_terminal_resizes_and_detaches(sit, shell, village):
    session = shell(ECHO)
    seat = sit("attach", session, cols=101, rows=33)
    seat.expect("ready")  # what was written before is shown
    assert seat.raw()
    seat.type("héllo\r")
    seat.expect("<héllo>")
    eventually(lambda: (seat.type("size\r"), seat.expect("size"), "33 101" in seat.expect("\n") + seat.expect("\n"))[-1], timeout=20, what="its size")
    seat.size(120, 44)
    eventually(lambda: (seat.type("size\r"), seat.expect("size"), "44 120" in seat.expect("\n") + seat.expect("\n"))[-1], timeout=20,
               what="its new size")
    seat.type("\x1d")
    assert seat.wait() == 0
    assert b"detached" in seat.seen and seat.restored()
    assert village.get(session)["state"] == "RUNNING"
    again = sit("attach", session)
    again.expect("<héllo>")
    again.type("quit\r")
    assert again.wait() == 0 and b"COMPLETED" in again.seen and again.restored()


def test_the_detach_key_may_be_another(sit, shell):
    session = shell("stty raw -echo; echo ready; od -An -tx1 -w1")
    seat = sit("attach", session, "--detach-key", "ctrl-a")
    seat.expect("ready")
    seat.type("\x1d\x03\x1a\x04Z")  # neither Ctrl-] nor Ctrl-C are ours
    for byte in ("1d", "03", "1a", "04", "5a"):
        seat.expect(byte)
    seat.type("\x01")
    assert seat.wait() == 0 and seat.restored()
    seat = sit("attach", session, env={"OZ_DETACH_KEY": "^B"})
    seat.expect("ready")
    seat.type("\x02")
    assert seat.wait() == 0


def test_read_only_sends_nothing(sit, shell):
    session = shell(ECHO)
    watcher, typist = sit("attach", session, "--read-only"), sit("attach", session)
    for seat in (watcher, typist):
        seat.expect("ready")
    watcher.type("sneaky\r")
    typist.type("honest\r")
    typist.expect("<honest>")
    assert "sneaky" not in watcher.expect("<honest>")
    watcher.type("\x1d")
    assert watcher.wait() == 0


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGABRT])
def test_a_signal_leaves_the_terminal_as_it_was(sit, shell, sig):
    session = shell("printf '\\033[?1049h\\033[?25l\\033[?2004hready'; sleep 100")
    seat = sit("attach", session)
    seat.expect("ready")
    assert seat.raw()
    seat.process.send_signal(sig)
    assert seat.wait() == -sig
    assert seat.restored()
    for mode in (b"\033[?1049l", b"\033[?25h", b"\033[?2004l"):
        assert mode in seat.seen


def test_stopped_from_outside_it_lends_the_terminal_back(sit, shell):
    session = shell(ECHO)
    seat = sit("attach", session)
    seat.expect("ready")
    seat.process.send_signal(signal.SIGTSTP)
    eventually(lambda: not seat.raw(), what="the terminal")
    seat.process.send_signal(signal.SIGCONT)
    eventually(seat.raw, what="raw mode")
    seat.type("back\r")
    seat.expect("<back>")


def test_a_further_terminal(sit, shell, village):
    session = shell(ECHO)
    made = village("POST", f"/sessions/{session}/terminals", json={"cols": 80, "rows": 24})
    assert made.status_code == 201, made.text
    number = made.json()["data"]["terminal"]
    seat = sit("attach", session, "--terminal", str(number))
    eventually(lambda: (seat.type("echo $((6*7))\r"), seat.read(1), re.search(rb"(?<![0-9])42\r\n", seat.seen))[-1], timeout=20, what="its shell")
    assert b"ready" not in seat.seen
    seat.type("\x1d")
    assert seat.wait() == 0


def test_a_large_paste_arrives_whole(sit, shell):
    session = shell("stty raw -echo; echo ready; head -c 60000 | md5sum")
    seat = sit("attach", session)
    seat.expect("ready")
    text = "".join(f"{i:05d} " for i in range(10000))
    for i in range(0, len(text), 3000):
        seat.type(text[i:i + 3000])
        seat.read(0.01)
    seat.expect(hashlib.md5(text.encode()).hexdigest())


# --- a connection that breaks ---

def test_it_connects_again_where_it_was(sit, cli, server, shell):
    session = shell("echo ready; while read -r l; do echo \"<$l>\"; sleep 1; echo \"[$l]\"; done")
    with contextlib.closing(lossy_proxy.LossyProxy(server.port, lose=0)) as proxy:
        seat = sit("attach", session, env={"OZ_API_BASE_URL": proxy.url})
        seat.expect("ready")
        seat.type("one\r")
        seat.expect("<one>")
        proxy.lose = 1  # the next bytes get lost, and the connection with them
        told = seat.expect("connected again")  # what was written meanwhile comes once, after it
        assert "connection is lost" in told and "[one]" not in told and proxy.lost == 1
        seat.expect("[one]")
        seat.type("two\r")
        between = seat.expect("[two]")
        assert between.count("<two>") == 1 and "[one]" not in between and "missing" not in between
        seat.type("\x1d")
        assert seat.wait() == 0 and seat.restored()


# --- checkpoints ---

def test_checkpoints_are_listed_and_forked(cli, village):
    session = cli.new("--interactive")
    eventually(lambda: village.get(session)["state"] == "RUNNING", timeout=40, what="RUNNING")
    assert cli("sessions", "checkpoints", session).stdout.split() == ["NUMBER", "TAKEN", "BYTES", "TURN", "ID"]
    assert "no such checkpoint" in cli("fork", session, code=5).stderr
    made = []
    for number, text in ((1, "first"), (2, "second")):
        made.append(cli("sessions", "prompt", session, f"echo {text} >>note").stdout.strip())
        eventually(lambda: len(cli.json("sessions", "checkpoints", session)["data"]["items"]) == number, timeout=30, what="a checkpoint")
    rows = cli("sessions", "checkpoints", session).stdout.splitlines()[1:]
    assert [(r.split()[0], r.split()[-2]) for r in rows] == [("2", made[1]), ("1", made[0])]
    assert len(cli("sessions", "checkpoints", session, "--before", "2").stdout.splitlines()) == 2
    for wrong in ("0", "-1", "x", "1.5"):
        assert "expected a number" in cli("fork", session, "--checkpoint", wrong, code=2).stderr
    assert "--task needs a prompt" in cli("fork", session, "--task", code=2).stderr
    assert "no such checkpoint" in cli("sessions", "fork", session, "--checkpoint", "9", code=5).stderr
    task = cli("fork", session[:-3], "cat note; exit 0", "--task", "--checkpoint", rows[1].split()[-1], "--title", "what it was").stdout.strip()
    assert SESSION.fullmatch(task)
    ended = eventually(lambda: village.get(task) if "completedAt" in village.get(task) else None, timeout=60, what="its end")
    assert ended["state"] == "COMPLETED" and ended["parentSessionId"] == session and ended["taskSummary"] == "what it was"
    assert "first" in cli("attach", task).stdout and "second" not in cli("attach", task).stdout
    assert "(inherited)" in cli("sessions", "checkpoints", task).stdout
    more = cli.json("sessions", "fork", session, "-", stdin="cat note")["data"]
    assert more["mode"] == "interactive"
    eventually(lambda: "second" in village("GET", f"/sessions/{more['sessionId']}/terminal").text, timeout=60, what="what the newest has")
    for one in (session, more["sessionId"]):
        cli("sessions", "stop", one)


# --- an agent that asks ---

CALL = {"toolCallId": "t1", "title": "a tool", "kind": "execute", "rawInput": {"command": "make deploy"}}


@pytest.fixture(scope="module")
def agent(server):
    """An environment whose agent of claude_code is the scripted one."""
    code = (harness.ROOT / "tests/tools/fake_acp.py").read_text()
    with git_remote.serving("agent", **{"agent.py": code}) as url:
        made = server.client().environment(name="scripted agent", setup_commands=[
            "install -D -m 755 $(find /workspace -name agent.py | head -n 1) /home/agent/.local/bin/claude-agent-acp"])
        yield ["--repo", url, "--env", made["environment_id"]]


@pytest.fixture
def asking(cli, agent, village, tmp_path):
    """A session whose agent asks that many times, one after the other."""
    (tmp_path / "policy.json").write_text('{"shellAllowlist": ["ls"], "shellDefault": "ask"}')
    made = []

    def make(*calls):
        prompt = "\n".join("ask " + json.dumps(c) for c in calls)
        done = cli("sessions", "new", *agent, "--policy", str(tmp_path / "policy.json"), "-", stdin=prompt)
        made.append(done.stdout.strip())
        end = time.monotonic() + 20
        while not village.get(made[-1])["pendingApprovals"]:
            shown = village("GET", f"/sessions/{made[-1]}/terminal").content
            assert time.monotonic() < end, f"nothing waits: {village.get(made[-1])} {shown}"
            time.sleep(0.1)
        return made[-1]
    yield make
    for session in made:
        village.stop(session)


def call(number, command):
    return {**CALL, "toolCallId": f"t{number}", "rawInput": {"command": command}}


def test_approvals_are_listed_allowed_and_denied(cli, asking):
    session = asking(call(1, "make one"), call(2, "make two"))
    listed = cli.json("approvals")["data"]["items"]
    first = next(a for a in listed if a["sessionId"] == session)
    assert "make one" in first["description"]
    row = next(line for line in cli("approvals").stdout.splitlines() if line.startswith(first["approvalId"]))
    assert "make one" in row and session in row
    assert re.search(rf"{session} +WAITING_FOR_APPROVAL .* approval ", cli("sessions").stdout)
    assert first["approvalId"] in cli("sessions", "show", session).stdout
    assert "allowed" in cli("approve", first["approvalId"]).stdout
    assert "already" in cli("deny", first["approvalId"], code=2).stderr
    second = eventually(lambda: [a for a in cli.json("approvals")["data"]["items"] if a["sessionId"] == session], what="the second")[0]
    assert "make two" in second["description"] and second["approvalId"] != first["approvalId"]
    assert "denied" in cli("deny", second["approvalId"][:-3], "--reason", "not today").stdout
    done = cli("attach", session)
    assert "<selected allow>" in done.stdout and "<selected reject>" in done.stdout, done


def test_allowed_for_the_session_it_asks_once(cli, asking):
    session = asking(call(1, "make same"), call(2, "make same"))
    waiting = next(a for a in cli.json("approvals")["data"]["items"] if a["sessionId"] == session)
    cli("approve", waiting["approvalId"], "--session")
    done = cli("attach", session)
    assert done.stdout.count("<selected allow") == 2, done


def test_gates_are_decided_at_the_terminal(sit, asking, village):
    session = asking(call(1, "make one"), call(2, "make two"), call(3, "make three"))
    seat = sit("attach", session)
    told = seat.expect("ctrl-] d denies")
    assert "approval: " in told and "make one" in told
    seat.type("\x1dx")  # not a decision: nothing is done
    seat.expect("a allows, d denies")
    seat.type("\x1da")
    seat.expect("allowed by ")
    seat.expect("make two")
    seat.expect("ctrl-] d denies")
    seat.type("\x1dd")
    seat.expect("denied by ")
    seat.expect("make three")
    seat.expect("ctrl-] d denies")
    assert len(village.get(session)["pendingApprovals"]) == 1
    seat.type("\x1d\x1d")  # it waits, and one leaves
    assert seat.wait() == 0 and seat.restored() and b"detached" in seat.seen
    assert village.get(session)["state"] == "WAITING_FOR_APPROVAL"


def test_what_others_decide_is_told(sit, cli, asking):
    session = asking(call(1, "make one"))
    seat = sit("attach", session)
    seat.expect("ctrl-] d denies")
    done = cli("approve", next(a["approvalId"] for a in cli.json("approvals")["data"]["items"] if a["sessionId"] == session))
    assert "allowed" in done.stdout
    seat.expect("allowed by ")  # decided elsewhere: it is told here
    assert seat.wait() == 0 and seat.restored()


def test_a_watcher_decides_nothing(sit, asking, village):
    session = asking(call(1, "make one"))
    seat = sit("attach", session, "--read-only")
    seat.expect("muster approve apr_")
    seat.type("\x1d")
    assert seat.wait() == 0
    assert len(village.get(session)["pendingApprovals"]) == 1


def test_prompts_of_an_interactive_session(cli, agent, village):
    session = cli("sessions", "new", *agent, "--interactive", "--model", "claude").stdout.strip()
    assert cli("sessions", "prompt", session, "say", "first").stdout.strip()
    cli("sessions", "prompt", session, "-", stdin="sleep 100")
    prompts = lambda: village("GET", f"/sessions/{session}/prompts").json()["data"]["items"]
    eventually(lambda: [p["state"] for p in prompts()] == ["done", "running"], timeout=40, what="the second prompt")
    assert "interrupted" in cli("sessions", "interrupt", session).stdout
    eventually(lambda: prompts()[1]["state"] != "running", timeout=20, what="its end")
    assert session in cli("sessions", "end", session).stdout
    done = cli("attach", session)
    assert "first" in done.stdout and "finished" in done.stderr
