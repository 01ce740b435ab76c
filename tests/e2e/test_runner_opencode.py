"""Live sessions of `muster runner` with OpenCode's own protocol (docs/runner-protocol.md): tests/tools/fake_opencode.py is
`opencode serve`, whose turns are written in their prompts."""
import json
import time

import pytest
import test_runner_live
from harness import ROOT

pytestmark = [pytest.mark.engine_free]
FAKE = (ROOT / "tests/tools/fake_opencode.py").read_text()
SERVE = """#!/bin/sh
case $1 in acp) exec /usr/bin/python3 /fake/bridge ;; *) exec /usr/bin/python3 /fake/server "$@" ;; esac
"""
ASKS = {"requiresApprovalFor": ["shell"]}


class Live(test_runner_live.Live):
    def __init__(self, place, look=None, env=None, args=(), **init):
        super().__init__(place, start=False, agent="bridge", env={"FAKE_OC": json.dumps(look or {}), **(env or {})},
                         **{"harness": "opencode", **init})
        self.box.cli("opencode", SERVE, first="")
        self.box.cli("server", FAKE, first="")
        self.process = self.box.start("agent", "run", *args, env=self.env, pid1=True)

    def calls(self, path, method=None):
        """Bodies of the requests to a path, in order."""
        path_ = self.box.root / "home/fake-oc-log"
        log = [json.loads(line) for line in path_.read_text().splitlines()] if path_.exists() else []
        return [body for m, p, body in log if path in p and method in (None, m)]


make = test_runner_live.maker(Live)


def answer(p, turn, decision, reason=None, seen=(), **more):
    q = p.wait(lambda: next((q for q in p.all("question", turnId=turn) if q["questionId"] not in seen), None), "a question")
    p.answer(q["questionId"], decision, reason, **more)
    return q


# --- turns ---

@pytest.mark.parametrize("program", ["static", "sanitized"])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunks"])
def test_two_turns_with_words_thoughts_and_tools(make, program, chunked):
    live = make({"chunked": chunked}, program=program)
    p = live.peer
    turn, complete = live.turn("think let me see", "say Hello world", "read a.txt", "say bye")
    boot = p.wait_for("boot", step="running")
    assert boot["providerId"] == "opencode" and boot["adapter"] == "opencode" and boot["providerVersion"] == "1.18.99"
    assert boot["conversationId"].startswith("ses_") and not boot["resumed"] and "detail" not in boot
    assert complete["outcome"] == "done" and complete["stopReason"] == "end_turn"
    assert complete["usage"] == {"tokensIn": 122, "tokensOut": 8, "apiCalls": 1}
    assert [(m["kind"], m["content"]) for m in p.all("result")] == [("thought", "let me see"), ("text", "Hello world"), ("text", "bye")]
    assert "".join(m["content"] for m in p.unnumbered if m["type"] == "stream" and m["kind"] == "text") == "Hello worldbye"
    tools = p.all("tool", turnId=turn)
    assert [t["status"] for t in tools] == ["pending", "running", "completed"] and tools[-1]["result"] == "its text"
    assert tools[-1]["args"] == {"filePath": "a.txt"} and tools[-1]["kind"] == "read" and tools[-1]["toolName"] == "read"
    assert p.events("FILE_TOUCHED") == [{"path": "a.txt", "reason": "read"}]
    second, complete = live.turn("say again")
    assert p.words(second) == "again" and complete["usage"]["tokensIn"] == 244
    assert len(live.calls("/session", "POST")) == 3, "one conversation, two prompts"
    p.send("end-session")
    end = live.end()
    assert end.status == 0 and b"Hello world" in end.output


def test_todos_and_what_a_step_cost_are_told_as_acp_tells_them(make):
    live = make()
    live.turn('todo [{"content":"one","status":"pending","priority":"high"}]', "say x")
    events = [e["providerEvent"] for e in live.peer.events("PROVIDER_EVENT_FORWARDED") if "providerEvent" in e]
    plan = next(e for e in events if e["kind"] == "plan")
    assert plan["update"] == {"sessionUpdate": "plan", "entries": [{"content": "one", "status": "pending", "priority": "high"}]}
    usage = next(e for e in events if e["kind"] == "usage_update")
    assert usage["update"]["used"] == 130 and usage["update"]["cost"] == 0.25


def test_a_task_is_one_turn_and_an_error_is_its_end(make):
    live = make(mode="task")
    live.turn("say done")
    assert live.end().status == 0
    live = make(mode="task")
    _, complete = live.turn("error no such model")
    assert complete["outcome"] == "failed" and complete["error"] == "no such model"
    end = live.end()
    assert end.status == 1 and "no such model" in end.result["message"]


def test_a_prompt_that_is_not_taken_and_one_that_is_cut(make):
    live = make()
    _, complete = live.turn("refuse")
    assert complete["outcome"] == "failed" and "this is no prompt" in complete["error"]
    _, complete = live.turn("say x", "length")
    assert complete["outcome"] == "done" and complete["stopReason"] == "max_tokens"


@pytest.mark.parametrize("init,args,want", [
    ({"model": "acme/big/one"}, (), {"providerID": "acme", "modelID": "big/one"}),
    ({}, ("--model", "acme/small"), {"providerID": "acme", "modelID": "small"}), ({"model": "auto"}, (), None)])
def test_the_model_is_chosen_when_it_names_a_provider(make, init, args, want):
    live = make(args=args, **init)
    turn, _ = live.turn("model")
    assert json.loads(live.peer.words(turn)) == want


def test_wild_events_are_no_harm(make):
    live = make()
    turn, complete = live.turn("garbage {not json", "garbage []", "event something.new {}", 'event message.part.delta {"sessionID":5}',
                               'event message.updated {"info":null}', 'event permission.asked {"id":"../../x"}', "say fine")
    assert complete["outcome"] == "done" and live.peer.words(turn) == "fine"


# --- permissions and questions ---

@pytest.mark.parametrize("early", [False, True], ids=["after-its-tool", "before-its-tool"])
def test_a_permission_is_a_question_with_its_arguments(make, early):
    live = make({"early": early}, policy=ASKS)
    p = live.peer
    turn = p.prompt("in /workspace/sub rm -r x\nsay done")
    q = answer(p, turn, "allow", by="user:1")
    assert q["kind"] == "permission" and q["approval"]["action"] == "shell" and q["approval"]["context"]["command"] == "rm -r x"
    exact = json.loads(q["approval"]["exact"])
    assert exact["input"]["workdir"] == "/workspace/sub" and exact["request"]["permission"] == "bash"
    assert p.wait_for("complete", turnId=turn)["outcome"] == "done" and p.words(turn) == "done"
    assert p.find("answered", questionId=q["questionId"])["taken"] is True
    assert live.calls("/reply") == [{"reply": "once"}]
    assert [t["status"] for t in p.all("tool", turnId=turn)][-1] == "completed"
    # the same again has the same key, the same in another folder has not
    for folder, same in (("/workspace/sub", True), ("/workspace/other", False)):
        turn = p.prompt(f"in {folder} rm -r x")
        again = answer(p, turn, "allow", scope="session")
        assert (again["requestKey"] == q["requestKey"]) == same
        p.wait_for("complete", turnId=turn)
    assert live.calls("/reply")[-1] == {"reply": "once"}, "for always is broader in OpenCode than what was asked"


def test_a_refusal_goes_to_the_model_with_its_reason_and_the_turn_goes_on(make):
    live = make(policy=ASKS)
    p = live.peer
    turn = p.prompt("bash npm publish\nsay I see")
    answer(p, turn, "deny", "ask the release team")
    complete = p.wait_for("complete", turnId=turn)
    assert complete["outcome"] == "done" and p.words(turn) == "I see"
    reply = live.calls("/reply")[0]
    assert reply["reply"] == "reject" and "ask the release team" in reply["message"]
    tool = p.all("tool", turnId=turn)[-1]
    assert tool["status"] == "failed" and "ask the release team" in tool["result"]
    assert len(live.calls("prompt_async")) == 1, "it was told within its turn"


def test_on_deny_stop_ends_the_turn(make):
    live = make(policy={**ASKS, "onDeny": "stop"})
    p = live.peer
    turn = p.prompt("bash npm publish\nsay I go on")
    answer(p, turn, "deny", "no")
    p.wait_for("complete", turnId=turn)
    assert live.calls("/reply") == [{"reply": "reject"}] and p.words(turn) == "" and len(live.calls("prompt_async")) == 1


def test_the_policy_decides_before_anybody_is_asked(make):
    live = make(policy={"shellDenylist": ["rm -rf"], "requiresApprovalFor": ["deploy"]})
    p = live.peer
    turn, _ = live.turn("bash ls", "bash rm -rf y", "say end")
    assert not p.all("question") and [r["reply"] for r in live.calls("/reply")] == ["once", "reject"]
    assert "shellDenylist" in live.calls("/reply")[1]["message"] and len(p.events("ALERT_RAISED")) == 1
    assert p.words(turn) == "end"


def test_an_edit_shows_its_change_and_its_path(make):
    live = make()
    p = live.peer
    turn = p.prompt("write a.txt hello\nfetch http://example.test/x")
    q = answer(p, turn, "allow")
    assert q["approval"]["action"] == "tool" and q["approval"]["context"]["paths"] == ["/workspace/a.txt"]
    assert json.loads(q["approval"]["exact"])["request"]["metadata"]["diff"] == "+hello"
    fetch = answer(p, turn, "allow", seen={q["questionId"]})
    assert fetch["approval"]["context"]["url"] == "http://example.test/x"
    p.wait_for("complete", turnId=turn)
    assert {"path": "a.txt", "reason": "write"} in p.events("FILE_TOUCHED")


def test_a_permission_of_a_helper_conversation_is_asked_for_too(make):
    live = make(policy=ASKS)
    p = live.peer
    turn = p.prompt("child make all")
    q = answer(p, turn, "allow")
    assert q["approval"]["context"]["command"] == "make all"
    p.wait_for("complete", turnId=turn)
    assert p.words(turn) == "<once>"


def test_questions_of_the_agent_are_answered_all_or_dismissed(make):
    live = make()
    p = live.peer
    asked = [{"question": "Which one?", "header": "W", "options": [{"label": "A", "description": "the first"}, {"label": "B", "description": ""}]},
             {"question": "Which colours?", "options": [{"label": "red"}], "multiple": True}, {"question": "Your name?", "options": []}]
    turn = p.prompt("question " + json.dumps(asked))
    first, second, third = p.wait(lambda: len(p.all("question", turnId=turn)) == 3 and p.all("question", turnId=turn))
    assert first["kind"] == "question" and first["text"].startswith("Which one?") and "A: the first" in first["text"]
    assert first["options"] == ["A", "B"] and second["multiple"] is True and "options" not in third and "approval" not in first
    p.answer(third["questionId"], "allow", answer={"text": "Grüße"})
    p.answer(first["questionId"], "allow", answer="B")
    assert not live.calls("/question/")
    p.answer(second["questionId"], "allow", answer=["red", "my own"])
    p.wait_for("complete", turnId=turn)
    assert json.loads(p.words(turn)[1:-1]) == [["B"], ["red", "my own"], ["Grüße"]]
    # one that is not answered takes the others with it
    for decision in ("deny", "cancel", "allow"):
        turn = p.prompt("question " + json.dumps(asked[:2]))
        one, two = p.wait(lambda: len(p.all("question", turnId=turn)) == 2 and p.all("question", turnId=turn))
        p.answer(one["questionId"], decision)
        p.wait_for("complete", turnId=turn)
        assert "dismissed" in p.words(turn) and p.find("answered", questionId=two["questionId"])["taken"] is False
        assert p.find("answered", questionId=one["questionId"])["taken"] is True


def test_a_question_that_is_cut_shows_no_half_of_a_secret(make):
    secret = "ghx_0123456789abcdefghijklmnopqrstuvwxyz"
    live = make(env={"OZ_ENV_VARS_JSON": json.dumps({"GH_TOKEN": secret})})
    p = live.peer
    for room in (180, 1480):  # of what is told afterwards, and of the text
        asked = "x" * room + secret
        turn = p.prompt("question " + json.dumps([{"question": asked, "options": []}]))
        q = p.wait_for("question", turnId=turn)
        assert q["text"] == "x" * room + "[redacted:GH_TOKEN]"
        p.answer(q["questionId"], "allow", answer="A")
        p.wait_for("complete", turnId=turn)
        p.wait_screen(b"allowed: " + b"x" * 180)
        assert secret[:8].encode() not in p.screen()


def test_who_allows_it_inside_the_sandbox_is_not_hidden(make):
    live = make(policy=ASKS)
    p = live.peer
    turn = p.prompt("foreign git push\nsay oh")
    q = p.wait_for("question", turnId=turn)
    p.wait_for("complete", turnId=turn)
    alert = p.events("ALERT_RAISED")[0]
    assert alert["category"] == "security" and alert["severity"] == "critical" and alert["context"]["what"] == "git push"
    assert p.find("answered", questionId=q["questionId"])["taken"] is False


# --- abort, restart, a stream that ends ---

def test_an_abort_cancels_and_open_questions_with_it(make):
    live = make(policy=ASKS)
    p = live.peer
    turn = p.prompt("say working\nbash git push")
    q = p.wait_for("question")
    p.send("abort", turnId=turn)
    assert p.wait_for("complete", turnId=turn)["outcome"] == "cancelled"
    assert p.find("answered", questionId=q["questionId"])["taken"] is False
    for i in range(3):  # the late second end of the first one ends none of these
        turn, complete = live.turn(f"sleep 0.1\nsay still {i}")
        assert complete["outcome"] == "done" and p.words(turn) == f"still {i}"


def test_a_turn_that_begins_after_it_was_cancelled_is_cancelled_again(make):
    live = make({"lag": 1.5})
    p = live.peer
    turn = p.prompt("sleep 60\nsay no")
    p.wait(lambda: live.calls("prompt_async"), "the prompt")
    p.send("abort", turnId=turn)
    assert p.wait_for("complete", turnId=turn, timeout=13)["outcome"] == "cancelled"
    assert len(live.calls("/abort")) == 2 and p.words(turn) == "" and len(p.all("boot", step="running")) == 1


@pytest.mark.timeout(90)
def test_an_agent_that_does_not_stop_is_started_again_with_its_conversation(make):
    live = make()
    p = live.peer
    live.turn("say before")
    first = p.find("boot", step="running")
    turn = p.prompt("say a\nstuck")
    p.wait(lambda: "a" in "".join(m["content"] for m in p.unnumbered if m.get("turnId") == turn), "its words")
    p.send("abort")
    assert p.wait_for("complete", turnId=turn)["outcome"] == "cancelled"
    again = p.wait(lambda: len(p.all("boot", step="running")) == 2 and p.all("boot", step="running")[1], "another start", 30)
    assert again["resumed"] and again["conversationId"] == first["conversationId"] and again["adapter"] == "opencode"
    turn, complete = live.turn("say back")
    assert complete["outcome"] == "done" and p.words(turn) == "back"


def test_another_runner_goes_on_with_the_conversation_and_tells_no_history(make, tmp_path):
    live = make()
    live.turn("say one")
    id_ = live.peer.find("boot", step="running")["conversationId"]
    file = live.box.root / f"home/fake-oc-{id_}.json"
    other = make(env={"OZ_ENV_SETUP_COMMANDS": f"cp /repos/{file.name} /home/"}, conversationId=id_)
    (other.box.repos / file.name).write_text(file.read_text())
    boot = other.peer.wait_for("boot", step="running")
    assert boot["resumed"] and boot["conversationId"] == id_
    turn, _ = other.turn("drop 0.5\nsay two\nsleep 1")  # all is read again: what is old stays so
    assert other.peer.words(turn) == "two" and not any("one" in m["content"] for m in other.peer.all("result"))


@pytest.mark.parametrize("load,words", [("ses_gone", "Session not found"), ("../../etc", "not one of OpenCode")])
def test_a_conversation_that_is_not_there_begins_anew_and_says_so(make, load, words):
    live = make(conversationId=load)
    boot = live.peer.wait_for("boot", step="running")
    assert not boot["resumed"] and words in boot["detail"] and boot["conversationId"] != load


def test_what_happens_while_the_events_are_lost_is_read_afterwards(make):
    live = make(policy=ASKS)
    p = live.peer
    turn = p.prompt("say before\ndrop 1\nsay meanwhile\nread x\nbash git push\nsay after")
    answer(p, turn, "allow")
    complete = p.wait_for("complete", turnId=turn)
    assert complete["outcome"] == "done" and p.words(turn) == "beforemeanwhileafter"
    assert {t["toolName"] for t in p.all("tool", turnId=turn)} == {"read", "bash"}
    turn, complete = live.turn("drop 1\nsay alone")  # its end as well
    assert complete["outcome"] == "done" and p.words(turn) == "alone"


@pytest.mark.timeout(60)
def test_a_first_request_that_is_never_answered_is_asked_again(make):
    live = make({"deaf": 2})
    began = time.monotonic()
    assert live.peer.wait_for("boot", step="running")["adapter"] == "opencode" and time.monotonic() - began < 20
    assert live.turn("say x")[1]["outcome"] == "done"


def test_stop_ends_with_143_and_its_own_end_is_told(make):
    live = make()
    turn = live.peer.prompt("say x\nsleep 60")
    live.peer.wait_for("agentStatus", turnId=turn)
    live.peer.send("stop", graceMs=6000)
    assert live.peer.wait_for("complete", turnId=turn)["outcome"] == "cancelled" and live.end().status == 143
    live = make()
    turn, complete = live.turn("say x\nexit 3")
    assert complete["outcome"] == "failed" and "status 3" in complete["error"] and live.end().status == 3


def test_the_password_of_the_server_is_not_in_the_terminals(make):
    live = make()
    p = live.peer
    live.turn("say x")
    p.send("terminal-open", requestId="r1", cols=80, rows=24)
    n = p.wait_for("terminal", requestId="r1")["terminal"]
    p.send("input", terminal=n, data="env | grep -c OPENCODE_SERVER; echo en''d\r", mode="raw")
    p.wait_screen(b"0\r\nend\r\n", n)


# --- ACP instead ---

@pytest.mark.parametrize("look,why", [({"exit": 1}, "status 1"), ({"version": None}, "healthy")], ids=["it-ends", "another-server"])
def test_a_version_that_does_not_serve_is_spoken_with_over_acp(make, look, why):
    live = make(look)
    turn, complete = live.turn("say over the bridge")
    boot = live.peer.find("boot", step="running")
    assert boot["adapter"] == "acp" and why in boot["detail"] and complete["outcome"] == "done"
    assert live.peer.words(turn) == "over the bridge" and len(live.peer.all("boot", step="running")) == 1


@pytest.mark.parametrize("env", [{"OZ_SIDECAR_OPENCODE_SERVE_CMD": ""}, {"OZ_SIDECAR_OPENCODE_ACP_CMD": "/fake/opencode acp"}])
def test_acp_can_be_wanted(make, env):
    live = make(env=env)
    assert live.turn("say x")[1]["outcome"] == "done"
    boot = live.peer.find("boot", step="running")
    assert boot["adapter"] == "acp" and "detail" not in boot


def test_the_command_of_the_server_may_be_another(make):
    live = make({"version": "9.9"}, env={"OZ_SIDECAR_OPENCODE_SERVE_CMD": "/usr/bin/python3 /fake/server serve --print-logs"})
    assert live.peer.wait_for("boot", step="running")["providerVersion"] == "9.9"
