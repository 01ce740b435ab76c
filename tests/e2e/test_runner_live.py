"""Live sessions of `muster runner` (docs/runner-protocol.md): the worker's side is tests/tools/runner_peer.py, the agent is
tests/tools/fake_acp.py, whose turns are written in their prompts."""
import base64
import json
import pathlib
import re
import signal
import time
import uuid

import pytest
from harness import ROOT
from runner_box import SANITIZER_WORDS, Box
from runner_peer import KEY, Peer

pytestmark = [pytest.mark.engine_free]
FAKE = (ROOT / "tests/tools/fake_acp.py").read_text()


class Live:
    def __init__(self, place, look=None, env=None, agent="claude-agent-acp", start=True, program="sanitized", **init):
        self.box = Box(place, program)
        self.box.cli(agent, FAKE, first="")
        folder = self.box.root / "link"
        folder.mkdir()
        self.peer = Peer(folder, **init)
        self.env = {"MUSTER_LINK": "/link/runner.sock", "MUSTER_LINK_KEY": KEY, "OZ_WORKER": "muster",
                    "FAKE_ACP": json.dumps(look or {}), **(env or {})}
        self.process = None
        if start:
            self.start()

    def start(self, **options):
        self.process = self.box.start("agent", "run", "--model", "claude", env=self.env, pid1=True, **options)

    def turn(self, *lines, timeout=30):
        turn = self.peer.prompt("\n".join(lines))
        return turn, self.peer.wait_for("complete", turnId=turn, timeout=timeout)

    def end(self, timeout=30):
        end = self.box.end(self.process, timeout)
        self.process = None
        return end

    def close(self):
        self.peer.close()
        if self.process:
            self.process.kill()
            said = self.process.communicate()[0]
            assert not any(w in said for w in SANITIZER_WORDS), said.decode(errors="replace")


def maker(kind):
    """A fixture that makes sessions of that class; what their runners said is looked at in the end."""
    @pytest.fixture
    def make(tmp_path):
        made = []

        def make_one(*args, **options):
            made.append(kind(tmp_path / f"box{len(made)}", *args, **options))
            return made[-1]
        yield make_one
        for live in made:
            live.close()
            assert not live.peer.holes, live.peer.holes
    return make


make = maker(Live)


def call(name="t1", kind="execute", title="a tool", **more):
    return json.dumps({"toolCallId": name, "title": title, "kind": kind, **more})


def ran(command, name="t1"):
    return call(name, rawInput={"command": command})


# --- turns ---

def test_two_turns_with_words_thoughts_and_tools(make):
    live = make({"noise": True})
    p = live.peer
    turn, complete = live.turn("think let me see", "say Hello", "say  world", "tool " + call("t1", "read", rawInput={"path": "/workspace/a"}, status="pending"),
                               "update " + json.dumps({"toolCallId": "t1", "status": "completed", "rawOutput": "42", "locations": [{"path": "/workspace/a"}]}),
                               "say bye")
    boot = p.wait_for("boot", step="running")
    assert boot["providerId"] == "claude" and boot["providerVersion"] == "1.2.3" and not boot["resumed"]
    assert boot["conversationId"].startswith("conv-")
    assert [m["step"] for m in p.all("boot")] == ["clone", "setup", "agent", "running"]
    assert complete["outcome"] == "done" and complete["stopReason"] == "end_turn"
    assert complete["usage"] == {"tokensIn": 10, "tokensOut": 3, "apiCalls": 1}
    assert p.find("agentStatus", turnId=turn, status="thinking")
    assert [(m["kind"], m["content"]) for m in p.all("result")] == [("thought", "let me see"), ("text", "Hello world"), ("text", "bye")]
    assert len({m["messageId"] for m in p.all("result")}) == 3
    tools = p.all("tool", callID="t1")
    assert [t["status"] for t in tools] == ["pending", "completed"]
    assert tools[1]["result"] == "42" and tools[1]["args"] == {"path": "/workspace/a"} and tools[1]["kind"] == "read"
    assert p.events("FILE_TOUCHED") == [{"path": "a", "reason": "read"}]
    assert "".join(m["content"] for m in p.unnumbered if m["type"] == "stream" and m["kind"] == "text") == "Hello worldbye"
    offsets = [m["offset"] for m in p.unnumbered if m["type"] == "stream" and m["kind"] == "text"]
    assert offsets[0] == 0 and offsets == sorted(offsets)
    second, complete = live.turn("say again")
    assert p.words(second) == "again" and complete["usage"] == {"tokensIn": 20, "tokensOut": 6, "apiCalls": 2}
    p.wait_screen(b"again")
    screen = p.screen()
    assert b"Welcome to the agent!" in screen and b"Hello world" in screen and b"> " in screen
    assert screen.count(b"\n") == screen.count(b"\r\n")
    p.send("end-session")
    end = live.end()
    assert end.status == 0 and p.wait_for("exited")["exitCode"] == 0
    assert b"Hello world" in end.output and end.result["exit_code"] == 0


@pytest.mark.parametrize("program", ["static", "sanitized"])
def test_a_task_is_one_turn_and_its_end_is_the_runners(make, program):
    live = make(mode="task", program=program)
    live.turn("say done")
    assert live.end().status == 0
    live = make(mode="task", program=program)
    _, complete = live.turn("error no such model")
    assert complete["outcome"] == "failed" and "no such model" in complete["error"]
    end = live.end()
    assert end.status == 1 and "no such model" in end.result["message"] and live.peer.find("exited")["exitCode"] == 1


@pytest.mark.parametrize("usage,tokens", [("prompt", True), ("meta", True), ("none", False)])
def test_usage_wherever_the_agent_says_it(make, usage, tokens):
    live = make({"usage": usage})
    _, complete = live.turn("say x")
    assert ("tokensIn" in complete["usage"]) == tokens and complete["usage"]["apiCalls"] == 1


def test_a_prompt_that_comes_twice_runs_once(make):
    live = make()
    turn, _ = live.turn("say one")
    live.peer.prompt("say one", turn)
    second, _ = live.turn("say two")
    assert live.peer.words(turn) == "one" and len(live.peer.all("complete")) == 2


def test_set_up_and_clone_are_told_and_seen(make):
    live = make(start=False)
    live.box.repo("one")
    live.env.update({"OZ_ENV_REPOS": "file:///repos/one", "OZ_ENV_SETUP_COMMANDS": "echo setting up\necho more"})
    live.start()
    p = live.peer
    p.wait_for("boot", step="running")
    p.wait_screen(b"more\r\n")
    assert b"[setup 1/2] setting up\r\n" in p.screen()
    ready = p.events("WORKSPACE_READY")
    assert len(ready) == 1 and re.fullmatch("[0-9a-f]{40}", ready[0]["commit"]) and ready[0]["branch"] == "main"


def test_what_ends_the_preparation_is_told(make):
    live = make(env={"OZ_ENV_SETUP_COMMANDS": "echo oh no; exit 7"})
    exited = live.peer.wait_for("exited")
    assert exited["exitCode"] == 7 and "setup command 1 of 1" in exited["message"]
    end = live.end()
    assert end.status == 7 and end.result["phase"] == "setup"


def test_a_missing_bridge_is_127_with_words(make):
    live = make(start=False)
    live.start(path="/nowhere")
    exited = live.peer.wait_for("exited")
    assert exited["exitCode"] == 127 and "claude-agent-acp" in exited["message"]
    assert live.end().status == 127 and "claude-agent-acp" in live.peer.find("error")["error"]


def test_the_command_of_the_bridge_may_be_another(make):
    live = make(agent="my-bridge", env={"OZ_SIDECAR_CLAUDE_ACP_CMD": "my-bridge with words"})
    _, complete = live.turn("say hello")
    assert complete["outcome"] == "done"


# --- permissions ---

LOOKS = [{"options": "claude"}, {"options": "codex", "ids": "uuid"}, {"options": "opencode"}, {"options": "gemini"}]


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: look["options"])
def test_a_question_is_answered_by_kind(make, look):
    live = make(look)
    p = live.peer
    turn = p.prompt("ask " + ran("git push origin main"))
    q = p.wait_for("question", turnId=turn)
    assert q["kind"] == "permission" and q["approval"]["action"] == "merge" and q["approval"]["risk"] == "med"
    assert q["approval"]["context"]["command"] == "git push origin main" and "git push origin main" in q["approval"]["exact"]
    assert q["requestKey"].startswith("merge\n") and "git push origin main" in q["requestKey"]
    assert p.find("tool", callID="t1", status="pending")
    p.answer(q["questionId"], "allow", by="user:1")
    p.wait_for("complete", turnId=turn)
    once = {"claude": "allow", "codex": "approved", "opencode": "once", "gemini": "proceed_once"}[look["options"]]
    assert p.words(turn) == f"<selected {once}>"
    assert p.find("answered", questionId=q["questionId"])["taken"] is True
    turn = p.prompt("ask " + ran("git push origin main", "t2"))
    again = p.wait(lambda: p.all("question", turnId=turn))[0]
    assert again["requestKey"] == q["requestKey"] and again["questionId"] != q["questionId"]
    p.answer(again["questionId"], "deny", "not on a Friday")
    p.wait_for("complete", turnId=turn)
    no = {"claude": "reject", "codex": "abort", "opencode": "reject", "gemini": "cancel"}[look["options"]]
    assert p.words(turn).startswith(f"<selected {no}>")


@pytest.mark.parametrize("look", [{"options": "opencode"}, {"options": "codex", "ids": "uuid"}], ids=lambda look: look["options"])
def test_a_refusal_that_ends_the_turn_is_explained_once(make, look):
    live = make(look)
    p = live.peer
    turn = p.prompt("ask-stop " + ran("npm publish"))
    q = p.wait_for("question")
    p.answer(q["questionId"], "deny", "ask the release team")
    complete = p.wait_for("complete", turnId=turn)
    assert complete["outcome"] == "done"
    history = (live.box.root / "home/fake-acp-history").read_text().split("\x00")
    assert len(history) == 3 and "ask the release team" in history[1] and "npm publish" in history[1]


def test_an_agent_that_goes_on_after_a_refusal_is_not_told_again(make):
    live = make()
    p = live.peer
    for line in ("say I see.", "tool " + call("other", "read", status="completed")):
        turn = p.prompt("ask-quiet " + ran("npm publish", "r" + line[:3]) + "\n" + line)
        p.answer(p.wait_for("question", turnId=turn)["questionId"], "deny")
        assert p.wait_for("complete", turnId=turn)["outcome"] == "done"
    assert len((live.box.root / "home/fake-acp-history").read_text().split("\x00")) == 3


def test_a_refusal_is_explained_although_an_older_tool_ends_after_it(make):
    live = make()
    p = live.peer
    turn = p.prompt("tool " + call("slow", "read", status="in_progress") + "\nask-quiet " + ran("npm publish", "r")
                    + "\nupdate " + json.dumps({"toolCallId": "slow", "status": "completed"}))
    p.answer(p.wait_for("question", turnId=turn)["questionId"], "deny", "because")
    p.wait_for("complete", turnId=turn)
    assert "because" in (live.box.root / "home/fake-acp-history").read_text().split("\x00")[1]


def test_on_deny_stop_explains_nothing(make):
    live = make({"options": "opencode"}, policy={"onDeny": "stop"})
    turn = live.peer.prompt("ask-stop " + ran("npm publish"))
    live.peer.answer(live.peer.wait_for("question")["questionId"], "deny")
    live.peer.wait_for("complete", turnId=turn)
    assert len((live.box.root / "home/fake-acp-history").read_text().split("\x00")) == 2


def test_the_policy_decides_before_anybody_is_asked(make):
    live = make(policy={"shellDenylist": ["rm -rf"], "requiresApprovalFor": ["deploy"]})
    p = live.peer
    turn, _ = live.turn("ask " + ran("ls -la | grep x", "a"), "ask " + ran("cd x && /bin/rm -rf y", "b"), "ask " + ran("git push", "c"))
    assert p.words(turn) == "<selected allow><selected reject><selected allow>"
    assert not p.all("question")
    assert "allowed" in p.all("tool", callID="a")[-1]["note"] and "shellDenylist" in p.all("tool", callID="b")[-1]["note"]
    alert = p.events("ALERT_RAISED")
    assert len(alert) == 1 and alert[0]["category"] == "policy" and "rm -rf" in alert[0]["context"]["what"]
    p.send("policy", policy={"shellAllowlist": ["ls"], "shellDefault": "deny"})
    turn, _ = live.turn("ask " + ran("cat x", "d"))
    assert p.words(turn) == "<selected reject>"


def test_skipped_permissions_are_allowed_once(make):
    live = make(skipPermissions=True, policy={"shellDenylist": ["shutdown"]})
    turn, _ = live.turn("ask " + ran("git push"), "ask " + call("e", "edit", rawInput={"file_path": "/workspace/x"}), "ask " + ran("shutdown now", "s"))
    assert live.peer.words(turn) == "<selected allow><selected allow><selected reject>" and not live.peer.all("question")


def test_an_edit_is_asked_for_and_shown_as_it_is(make):
    live = make()
    p = live.peer
    p.prompt("ask " + call("e", "edit", "Edit a.txt", rawInput={"file_path": "/workspace/a.txt", "new_string": "é\u0000"},
                           content=[{"type": "diff", "path": "/workspace/a.txt", "oldText": "a", "newText": "b"}]))
    q = p.wait_for("question")
    exact = json.loads(q["approval"]["exact"])
    assert exact["rawInput"]["new_string"] == "é\u0000" and exact["content"][0]["newText"] == "b"
    assert q["approval"]["action"] == "tool" and q["approval"]["context"]["paths"] == ["/workspace/a.txt"]


def test_a_permission_without_a_tool_call_is_asked_for(make):
    live = make()
    turn = live.peer.prompt("ask-nothing")
    q = live.peer.wait_for("question")
    live.peer.answer(q["questionId"], "deny")
    live.peer.wait_for("complete", turnId=turn)
    assert live.peer.words(turn) == "<selected>"


def test_what_is_cut_is_said_and_has_no_key(make):
    live = make()
    live.peer.prompt("ask " + ran("git push " + "x" * 20000))
    q = live.peer.wait_for("question")
    assert q["approval"]["exactTruncated"] and len(q["approval"]["exact"]) <= 8192 and "requestKey" not in q


def test_answers_that_nobody_waits_for(make):
    live = make()
    p = live.peer
    p.wait_for("boot", step="running")
    unknown = str(uuid.uuid4())
    p.send("answer", questionId=unknown, decision="allow", scope="once")
    assert p.wait_for("answered", questionId=unknown)["taken"] is False
    turn = p.prompt("ask-leave " + ran("git push"))
    q = p.wait_for("question")
    p.wait_for("complete", turnId=turn)
    assert p.wait_for("answered", questionId=q["questionId"])["taken"] is False


def test_requests_that_were_not_offered_are_refused(make):
    live = make()
    turn, _ = live.turn("request fs/read_text_file", "request terminal/create", "kind something_new {}", "kind plan {\"entries\":[]}")
    assert live.peer.words(turn).count("-32601") == 2
    assert live.peer.events("PROVIDER_EVENT_FORWARDED")[0]["providerEvent"]["kind"] == "plan"


# --- abort, stop ---

def test_an_abort_cancels_and_open_questions_with_it(make):
    live = make()
    p = live.peer
    turn = p.prompt("say working\nask " + ran("git push") + "\nsleep 60")
    q = p.wait_for("question")
    p.send("abort", turnId=turn)
    complete = p.wait_for("complete", turnId=turn)
    assert complete["outcome"] == "cancelled" and p.find("answered", questionId=q["questionId"])["taken"] is False
    assert live.turn("say still here")[1]["outcome"] == "done"


@pytest.mark.timeout(90)
def test_an_agent_that_does_not_stop_is_started_again_with_its_conversation(make):
    live = make()
    p = live.peer
    turn = p.prompt("say a\nstuck")
    p.wait_for("agentStatus", turnId=turn)
    first = p.wait_for("boot", step="running")
    p.wait_screen(b"a")
    began = time.monotonic()
    p.send("abort")
    complete = p.wait_for("complete", turnId=turn)
    assert complete["outcome"] == "cancelled" and 14 < time.monotonic() - began < 25
    again = p.wait(lambda: len(p.all("boot", step="running")) == 2 and p.all("boot", step="running")[1])
    assert again["resumed"] and again["conversationId"] == first["conversationId"]
    turn, complete = live.turn("say back")
    assert complete["outcome"] == "done" and p.words(turn) == "back"


@pytest.mark.parametrize("load,resumed", [("conv-1", True), ("other", False)])
def test_a_conversation_is_loaded_or_a_new_one_says_so(make, load, resumed):
    live = make(conversationId=load)
    boot = live.peer.wait_for("boot", step="running")
    assert boot["resumed"] is resumed and (resumed or "no such conversation" in boot["detail"])
    assert resumed == (boot["conversationId"] == load)
    live.turn("say x")
    assert b"this is history" not in live.peer.screen() and not live.peer.all("tool")


def test_an_agent_that_cannot_load_begins_anew(make):
    live = make({"load": False}, conversationId="conv-1")
    assert "cannot load" in live.peer.wait_for("boot", step="running")["detail"]


def test_stop_ends_with_143(make):
    live = make()
    turn = live.peer.prompt("say x\nsleep 60")
    live.peer.wait_for("agentStatus", turnId=turn)
    live.peer.send("stop", graceMs=6000)
    assert live.peer.wait_for("complete", turnId=turn)["outcome"] == "cancelled"
    assert live.end().status == 143


# --- an agent that misbehaves ---

@pytest.mark.parametrize("line,words", [
    ("line 17825792", "longer than 16 MiB"), ("deep 200", "too many or too deep"),
    ("ask-twice " + ran("git push"), "used the id of a request again")])
def test_nonsense_ends_it_clearly(make, line, words):
    live = make({"ids": "same"})
    turn, complete = live.turn(line)
    assert complete["outcome"] == "failed" and words in complete["error"]
    assert live.end().status == 1 and words in live.peer.find("exited")["message"]


def test_a_line_of_a_hundred_megabytes_costs_no_memory(make):
    live = make()
    p = live.peer
    live.peer.wait_for("boot", step="running")
    p.prompt("line 104857600")
    assert "longer than 16 MiB" in p.wait_for("complete")["error"]
    assert live.end().status == 1


def test_garbage_lines_are_seen_and_forgiven(make):
    live = make()
    turn, complete = live.turn("garbage this is no JSON", "garbage {\"jsonrpc\":", "garbage []", "bytes ff00fe0a", "garbage {\"id\":99,\"result\":{}}", "stderr a log line", "say fine")
    assert complete["outcome"] == "done" and live.peer.words(turn) == "fine"
    live.peer.wait_screen(b"this is no JSON")
    live.peer.wait_screen(b"a log line")


@pytest.mark.parametrize("status,expected", [(0, 1), (3, 3)])
def test_an_agent_that_ends_in_the_middle(make, status, expected):
    live = make()
    turn, complete = live.turn("say half", f"exit {status}")
    assert complete["outcome"] == "failed" and "middle of a turn" in complete["error"] and live.peer.words(turn) == "half"
    assert live.end().status == expected and live.peer.find("exited")["exitCode"] == expected


def test_an_agent_that_closes_its_output_is_not_waited_for(make):
    live = make()
    turn, complete = live.turn("say half", "close", "sleep 60")
    assert complete["outcome"] == "failed" and live.peer.words(turn) == "half"
    assert live.end().status == 137


def test_an_agent_of_another_version_is_refused(make):
    live = make({"version": 2})
    assert "another version" in live.peer.wait_for("exited")["message"]
    assert live.end().status == 1


# --- the connection ---

def test_connections_that_end_at_every_message_lose_and_double_nothing(make):
    live = make()
    p = live.peer
    p.wait_for("boot", step="running")
    for cut in range(1, 12):
        with p.lock:
            p.cut_after = cut
        turn = str(uuid.uuid4())
        lines = "think a\nsay b\ntool " + call(f"t{cut}", "read") + "\nask " + ran("git push", f"q{cut}") + "\nsay c"
        p.prompt(lines, turn)
        p.wait(lambda: p.conn, "the next connection")
        if not p.find("agentStatus", turnId=turn):
            p.prompt(lines, turn)
        q = p.wait_for("question", turnId=turn)
        p.wait(lambda: p.conn)
        p.answer(q["questionId"], "allow")
        p.wait_for("complete", turnId=turn)
        assert p.words(turn) == "b<selected allow>c", cut
        assert len(p.all("complete", turnId=turn)) == len(p.all("question", turnId=turn)) == 1
    assert not p.holes and not p.gaps


def test_an_answer_given_while_it_was_away_is_taken(make):
    live = make()
    p = live.peer
    turn = p.prompt("ask " + ran("git push"))
    q = p.wait_for("question")
    p.accepting = False
    p.drop()
    p.wait(lambda: not p.conn)
    p.answer(q["questionId"], "allow", later=True)
    p.accepting = True
    p.wait_for("complete", turnId=turn)
    assert p.words(turn) == "<selected allow>" and p.find("answered", questionId=q["questionId"])["taken"]
    assert p.hellos[-1]["processing"] == turn and p.hellos[-1]["phase"] == "running"


def test_questions_that_only_the_server_knows_are_nobodys(make):
    live = make(start=False)
    old = str(uuid.uuid4())
    live.peer.pending.add(old)
    live.start()
    assert live.peer.wait_for("answered", questionId=old)["taken"] is False


@pytest.mark.parametrize("nonsense", [
    b"\0\0\0\1\7x", b"\0\0\0\0\0", b"\0\0\0\2\0[]", b"\0\0\0\3\0{x}", b"\xff\xff\xff\xff\0", b"\0\0\0\1\1x",
    b"\0\0\0\x1c\0" + b'{"type":"ack","seq": 9999  }'], ids=range(7))
def test_a_connection_that_says_nonsense_is_ended_and_made_anew(make, nonsense):
    live = make()
    p = live.peer
    p.wait_for("boot", step="running")
    hellos = len(p.hellos)
    p.raw(nonsense)
    p.wait(lambda: len(p.hellos) > hellos and p.conn, "another connection")
    assert live.turn("say fine")[1]["outcome"] == "done"


def test_a_worker_that_comes_late_hears_everything(make):
    live = make(start=False, env={"OZ_ENV_SETUP_COMMANDS": "echo early"})
    live.peer.accepting = False
    live.start()
    time.sleep(1.5)
    assert not live.peer.hellos
    live.peer.accepting = True
    live.peer.wait_for("boot", step="running")
    assert [m["step"] for m in live.peer.all("boot")] == ["clone", "setup", "agent", "running"]
    live.peer.wait_screen(b"early\r\n")
    assert live.peer.hellos[0]["phase"] in ("preparing", "starting") and live.peer.hellos[0]["lastSeq"] == 3


def test_unknown_messages_and_fields_mean_nothing(make):
    live = make(something=[1, {"new": True}])
    live.peer.send("brand-new", turnId=5, x=None)
    live.peer.send("prompt", turnId=7, content="say no")
    live.peer.send("input", terminal=99, data="x")
    live.peer.send("resize", terminal=1, cols=0, rows=-5)
    live.peer.send("terminal-ack", terminal=0, offset=1 << 60)
    live.peer.send("policy", policy="nonsense")
    turn = live.peer.prompt("ask " + ran("ls"))
    assert live.peer.wait_for("question", turnId=turn)["approval"]["action"] == "shell"


def test_an_agent_is_not_read_while_too_much_is_unacknowledged(make):
    live = make()
    p = live.peer
    p.wait_for("boot", step="running")
    p.ack = False
    turn = p.prompt("flood 400 100000\nsay the end")

    def held():
        return sum(len(m.get("content", "")) for m in p.messages)
    p.wait(lambda: held() > 8 << 20, "what may wait", timeout=60)
    time.sleep(3)
    assert held() < 17 << 20
    pid = runner_pid(live)
    assert rss(pid) < 200 << 20
    p.ack = True
    p.send("ack", seq=p.stored)
    p.wait_for("complete", turnId=turn, timeout=60)
    assert p.words(turn).endswith("the end") and len(p.words(turn)) == 400 * 100000 + 7


def test_what_an_agent_said_before_it_ended_waits_too(make):
    live = make()
    p = live.peer
    p.wait_for("boot", step="running")
    p.ack = False
    turn = p.prompt("flood 150 100000\nexit 5")
    time.sleep(5)
    assert not p.find("complete")
    p.ack = True
    p.send("ack", seq=p.stored)
    assert "status 5" in p.wait_for("complete", turnId=turn)["error"]
    assert len(p.words(turn)) == 150 * 100000
    assert live.end().status == 5


def runner_pid(live):
    from runner_box import runner_pid as pid
    return pid(live.process)


def rss(pid):
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) << 10


# --- terminals ---

def open_terminal(live, number=1, **more):
    request = str(uuid.uuid4())
    live.peer.send("terminal-open", requestId=request, terminal=number, cols=100, rows=30, **more)
    answer = live.peer.wait_for("terminal", requestId=request)
    assert answer["ok"], answer
    return answer["terminal"]


@pytest.mark.parametrize("program", ["static", "sanitized"])
def test_a_terminal_is_a_shell_in_the_workspace(make, program):
    live = make(env={"SHELL": "/bin/sh"}, program=program)
    p = live.peer
    p.wait_for("boot", step="running")
    n = open_terminal(live, None)
    assert n == 1
    p.send("input", terminal=1, data="pwd; stty size; echo $TERM; tty\r", mode="raw")
    p.wait_screen(b"/dev/pts/", 1)
    screen = p.screen(1)
    assert b"/workspace\r\n" in screen and b"30 100" in screen and b"xterm-256color" in screen
    p.send("resize", terminal=1, cols=77, rows=11)
    p.send("input", terminal=1, data="stty size", mode="line")
    p.wait_screen(b"11 77", 1)
    p.send("input", terminal=1, data64=base64.b64encode("echo hé€😀\r".encode()).decode())
    p.wait(lambda: p.screen(1).count("hé€😀\r\n".encode()) == 2, "typed, and said by the shell")
    p.send("input", terminal=1, data="sleep 100", mode="line")
    time.sleep(0.3)
    p.send("input", terminal=1, data="\x03")
    p.send("input", terminal=1, data="echo back $((1+1))", mode="line")
    p.wait_screen(b"back 2", 1, timeout=5)
    p.send("input", terminal=1, data="exit 5", mode="line")
    assert p.wait(lambda: p.events("TERMINAL_CLOSED")) == [{"terminal": 1, "exitCode": 5}]
    assert open_terminal(live, None, command="echo again") == 1
    p.wait_screen(b"again", 1)


def test_a_terminal_can_be_closed(make):
    live = make(env={"SHELL": "/bin/sh"})
    live.peer.wait_for("boot", step="running")
    open_terminal(live, 3)
    live.peer.send("terminal-close", terminal=3)
    assert live.peer.wait(lambda: live.peer.events("TERMINAL_CLOSED"))[0]["terminal"] == 3
    live.peer.send("terminal-open", requestId="r", terminal=9)
    assert live.peer.wait_for("terminal", requestId="r")["ok"] is False


def test_a_full_window_makes_the_program_wait(make):
    live = make()
    p = live.peer
    p.wait_for("boot", step="running")
    p.ack_terminals = False
    open_terminal(live, 1, command="i=0; while [ $i -lt 40000 ]; do echo 0123456789012345678901234567890123456789012345678$i; i=$((i+1)); done; echo finished")
    p.wait(lambda: p.terminals.get(1, {"end": 0})["end"] >= 128 << 10)
    time.sleep(1)
    assert p.terminals[1]["end"] == 128 << 10 and not p.events("TERMINAL_CLOSED")
    p.ack_terminals = True
    p.ack_terminal(1)
    p.wait_screen(b"finished", 1)
    assert not p.gaps and p.screen(1).count(b"\n") == 40001


def test_a_flood_while_nobody_listens_loses_the_oldest_bytes_and_says_so(make):
    live = make()
    p = live.peer
    p.wait_for("boot", step="running")
    pid = runner_pid(live)
    before = rss(pid)
    open_terminal(live, 1, command="sleep 0.5; head -c 60000000 /dev/zero | tr '\\0' x; echo; echo finished; sleep 100")
    p.accepting = False
    p.drop()
    time.sleep(5)
    assert rss(pid) - before < 40 << 20, (rss(pid), before)
    p.accepting = True
    p.wait_screen(b"finished", 1, timeout=60)
    assert len(p.gaps) == 1 and p.gaps[0][0] == 1
    n, low, high = p.gaps[0]
    hello = p.hellos[-1]["terminals"]
    assert [t["from"] for t in hello if t["terminal"] == 1][0] <= high and high - low > 1_000_000
    assert live.turn("say fine")[1]["outcome"] == "done"


@pytest.mark.minutes
def test_usage_is_told_every_half_minute_of_work(make):
    live = make()
    turn = live.peer.prompt("tool " + call("r", "read", status="completed", locations=[{"path": "/workspace/a"}]) + "\nsleep 33")
    live.peer.wait_for("complete", turnId=turn, timeout=60)
    ticks = live.peer.events("USAGE_TICK")
    assert len(ticks) == 1 and 28 <= ticks[0]["units"]["agentSeconds"] <= 34 and ticks[0]["units"]["filesTouched"] == 1
    assert 28_000 <= ticks[0]["intervalMs"] <= 34_000


# --- changes ---

def test_changes_are_told_after_each_turn_and_on_request(make):
    live = make(start=False)
    live.box.repo("one", {"a.txt": "1\n2\n3\n", "old.txt": "same\n" * 20, "gone.txt": "x\n", "bin": b"\0\1\2"})
    live.env["OZ_ENV_REPOS"] = "file:///repos/one"
    live.start()
    p = live.peer
    live.turn("write /workspace/a.txt 1 two 3 4", "write /workspace/ü new.txt hello", "say x")
    summary = p.events("DIFF_SUMMARY")[-1]
    files = {f["path"]: f for f in summary["files"]}
    assert files["a.txt"]["status"] == "modified" and files["ü"]["status"] == "added" and summary["filesChanged"] == 2
    (live.box.workspace / "old.txt").rename(live.box.workspace / "renamed.txt")
    (live.box.workspace / "gone.txt").unlink()
    (live.box.workspace / "bin").write_bytes(b"\0\3")
    p.send("diff", requestId="d1", patch=True)
    diff = p.wait_for("diff", requestId="d1")
    files = {f["path"]: f for f in diff["files"]}
    assert files["renamed.txt"]["oldPath"] == "old.txt" and files["renamed.txt"]["status"] == "renamed"
    assert files["gone.txt"]["status"] == "deleted" and files["gone.txt"]["deletions"] == 1 and files["bin"]["additions"] == 0
    assert "rename to renamed.txt" in diff["patch"] and "truncated" not in diff
    p.send("diff", requestId="d2", patch=False)
    assert "patch" not in p.wait_for("diff", requestId="d2")
    order = [m for m in p.messages if m["type"] in ("complete",) or (m["type"] == "events" and m["events"][0]["type"] == "DIFF_SUMMARY")]
    assert order[0]["type"] == "events" and order[1]["type"] == "complete"


def test_commits_are_told_once(make):
    live = make(start=False)
    live.box.repo("one")
    live.env.update({"OZ_ENV_REPOS": "file:///repos/one", "SHELL": "/bin/sh", "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.test",
                     "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@example.test"})
    live.start()
    p = live.peer
    p.wait_for("boot", step="running")
    open_terminal(live, 1, command="git config log.showSignature true; git checkout -q -b work; for i in 1 2 3; do echo $i >f$i; git add -A; git commit -qm \"commit $i\"; done; echo finished")
    p.wait_screen(b"finished", 1)
    live.turn("say x")
    assert [(c["branch"], c["message"]) for c in p.events("GIT_COMMIT")] == [("work", f"commit {i}") for i in (1, 2, 3)]
    assert p.events("DIFF_SUMMARY")[-1]["filesChanged"] == 3
    live.turn("say y")
    assert len(p.events("GIT_COMMIT")) == 3
    open_terminal(live, 1, command="echo more >f4; echo really finished")
    p.wait_screen(b"really finished", 1)
    p.send("end-session")
    assert live.end().status == 0 and p.events("DIFF_SUMMARY")[-1]["filesChanged"] == 4


# --- without ACP ---

def test_a_script_has_terminal_0_for_itself(make):
    live = make(mode="task", harness="shell")
    live.peer.prompt("stty size; echo hello; exit 4")
    live.peer.wait_screen(b"40 120\r\nhello\r\n")
    assert live.peer.wait_for("complete")["outcome"] == "failed"
    end = live.end()
    assert end.status == 4 and b"hello" in end.output


def test_an_interactive_shell_is_typed_into(make):
    live = make(mode="interactive", harness="shell", env={"SHELL": "/bin/sh"})
    _, complete = live.turn("echo $((20+22))")
    assert complete["outcome"] == "done"
    live.peer.wait_screen(b"42")
    live.peer.send("input", terminal=0, data="exit 0", mode="line")
    assert live.end().status == 0


def test_an_interactive_shell_ends_when_it_is_over(make):
    live = make(mode="interactive", harness="shell", env={"SHELL": "/bin/bash"})
    live.turn("echo $((20+22))")
    live.peer.wait_screen(b"42")
    live.peer.send("end-session")
    assert live.end().status == 0
    assert [e["exitCode"] for e in live.peer.events("TERMINAL_CLOSED")] == [128 + signal.SIGHUP]  # it had not to be killed


def test_a_custom_program_reads_its_prompt(make):
    live = make(mode="task", harness="custom", env={"OZ_SIDECAR_CUSTOM_CMD": "cat; echo; test -t 1 && echo on a terminal"})
    live.peer.prompt("the prompt\n" * 2000)
    live.peer.wait_screen(b"on a terminal")
    assert live.peer.wait_for("complete")["outcome"] == "done" and live.end().status == 0


# --- what must not be seen ---

def test_the_key_is_taken_out_of_the_environment(make):
    live = make(env={"SHELL": "/bin/sh"})
    live.peer.wait_for("boot", step="running")
    open_terminal(live, 1, command="env; cat /proc/1/environ | tr '\\0' '\\n' | grep -c LINK; echo end")
    live.peer.wait_screen(b"end\r\n", 1)
    assert b"MUSTER_LINK" not in live.peer.screen(1)


def test_words_of_the_agent_do_not_steer_the_terminal(make):
    live = make()
    live.turn("say " + json.dumps("a\x1b]0;evil\x07\x1b[2Jb\x9bc\u009b31md"), "say end")
    live.peer.wait_screen(b"end")
    assert b"\x1b]" not in live.peer.screen() and b"\x1b[2J" not in live.peer.screen() and b"\xc2\x9b" not in live.peer.screen()
