"""The four real agents driven by `muster runner` in live sessions, three over ACP, OpenCode by its own protocol and over ACP too
(real-parts.md 1, 5): two turns, a command that is allowed and one that is refused with a reason, a turn that is cancelled, and
the conversation loaded by another runner."""
import base64
import json
import os
import shutil

import pytest
import test_runner_agents as one_shot
from harness import ROOT
from runner_box import SANITIZER_WORDS, Box
from runner_peer import KEY, Peer

pytestmark = [pytest.mark.engine_free, pytest.mark.timeout(400)]
POLICY = {"requiresApprovalFor": ["merge", "deps_add", "secrets", "deploy", "shell"]}


def gemini(model):
    settings = {"security": {"auth": {"selectedType": "gemini-api-key"}}, "privacy": {"usageStatisticsEnabled": False},
                "general": {"enableAutoUpdate": False}}
    return {"GEMINI_API_KEY": "a-key", "GOOGLE_GEMINI_BASE_URL": model.base("gemini", v1=False), "GEMINI_CLI_TRUST_WORKSPACE": "true",
            "GEMINI_MODEL": "gemini-2.5-flash"}, {".gemini/settings.json": json.dumps(settings)}


# Gemini 0.61.0 writes a new history under the id that it is about to load, and then mostly finds nothing to resume: the runner goes on
# with a new conversation and says why. A version that can do it has to be taken out here.
MAY_NOT_LOAD = {"gemini": "No previous sessions found"}


def opencode_acp(model):
    env, files = one_shot.opencode(model)
    return {**env, "OZ_SIDECAR_OPENCODE_SERVE_CMD": ""}, files


AGENTS = {"claude": one_shot.claude, "codex": one_shot.codex, "gemini": gemini, "opencode": one_shot.opencode, "opencode-acp": opencode_acp}


class Session:
    def __init__(self, place, name, modules, model):
        self.box, self.name, self.model, self.modules = Box(place / "box", "sanitized"), name, model, modules
        self.box.binds = [modules]
        self.env, files = AGENTS[name](model)
        self.name = self.name.removesuffix("-acp")
        self.adapter = "opencode" if name == "opencode" else "acp"
        for file, text in files.items():
            (self.box.root / "home" / file).parent.mkdir(exist_ok=True)
            (self.box.root / "home" / file).write_text(text)
        self.env["OZ_ENV_REPOS"] = self.box.repo("a")
        self.runs = []

    def start(self, **init):
        folder = self.box.root / f"link{len(self.runs)}"
        folder.mkdir()
        peer = Peer(folder, harness=self.name, policy=POLICY, **init)
        env = {**self.env, "MUSTER_LINK": f"/{folder.name}/runner.sock", "MUSTER_LINK_KEY": KEY, "OZ_WORKER": "muster"}
        path = f"{self.modules}/.bin:{self.modules}/opencode-linux-x64/bin:{os.environ['PATH']}"
        self.runs.append((peer, self.box.start("agent", "run", env=env, pid1=True, path=path)))
        return peer, peer.wait_for("boot", step="running", timeout=120)

    def end(self):
        peer, process = self.runs[-1]
        peer.send("end-session")
        ended = self.box.end(process, 60)
        assert ended.status == 0, ended

    def close(self):
        for peer, process in self.runs:
            peer.close()
            if process.returncode is None:
                process.kill()
                said = process.communicate()[0]
                assert not any(w in said for w in SANITIZER_WORDS), said.decode(errors="replace")


@pytest.fixture(params=sorted(AGENTS))
def session(request, tmp_path, model):
    modules = (ROOT / request.config.getoption("--agents")).resolve() / "node_modules"
    assert (modules / ".bin/codex-acp").exists(), f"the agents are not installed in {modules}: script/test installs them"
    made = Session(tmp_path, request.param, modules, model)
    yield made
    made.close()
    shutil.rmtree(tmp_path, ignore_errors=True)


def question_or_end(peer, turn, after=()):
    return peer.wait(lambda: next((q for q in peer.all("question", turnId=turn) if q["questionId"] not in after), None)
                     or peer.find("complete", turnId=turn), "a question, or the end of the turn", 120)


def test_a_real_agent_in_a_live_session(session):
    peer, boot = session.start()
    assert boot["conversationId"] and not boot["resumed"]
    assert boot["adapter"] == session.adapter and "detail" not in boot, boot
    # allowed
    turn = peer.prompt("Please edit the file. [[cmd:echo one >> one.txt]]")
    question = question_or_end(peer, turn)
    assert question["type"] == "question" and "echo one >> one.txt" in question["approval"]["exact"], question
    assert not (session.box.workspace / "one.txt").exists()
    peer.answer(question["questionId"], "allow")
    complete = peer.wait_for("complete", turnId=turn, timeout=120)
    assert complete["outcome"] == "done", complete
    assert (session.box.workspace / "one.txt").read_text() == "one\n" and "Done" in peer.words(turn)
    assert peer.events("DIFF_SUMMARY")[-1]["files"][0]["path"] == "one.txt"
    assert [t for t in peer.all("tool", turnId=turn) if t["status"] == "completed"], peer.all("tool")
    # refused: some go on by themselves, some stop and are told why
    turn = peer.prompt("Please edit it again. [[cmd:echo two >> two.txt]]")
    question = question_or_end(peer, turn)
    assert question["type"] == "question", question
    peer.answer(question["questionId"], "deny", "not before the tests are green")
    again = question_or_end(peer, turn, {question["questionId"]})
    if again["type"] == "question":  # the scripted model knows no better
        assert session.model.calls("not before the tests are green", session.name) or \
            any("not before the tests are green" in json.dumps(c["body"]) for c in session.model.calls(upstream=session.name))
        peer.send("abort", turnId=turn)
        again = peer.wait_for("complete", turnId=turn, timeout=120)
        assert again["outcome"] == "cancelled"
    else:
        assert again["outcome"] == "done", again
    assert not (session.box.workspace / "two.txt").exists()
    # cancelled
    before = len(session.model.calls("stall", session.name))
    turn = peer.prompt("Think about it. [[stall]]")
    session.model.wait_calls(before + 1, "stall", session.name, timeout=60)
    peer.send("abort", turnId=turn)
    assert peer.wait_for("complete", turnId=turn, timeout=60)["outcome"] == "cancelled"
    assert len(peer.all("boot", step="running")) == 1, "it had to be started again"
    session.end()
    # loaded
    peer, again = session.start(conversationId=boot["conversationId"])
    why = not again["resumed"] and MAY_NOT_LOAD.get(session.name)
    assert again["resumed"] == (again["conversationId"] == boot["conversationId"]) and bool(why) != again["resumed"], again
    assert not why or why in again["detail"]
    assert not peer.all("tool") and not peer.all("result")
    turn = peer.prompt("And once more. [[cmd:echo three >> three.txt]]")
    peer.answer(question_or_end(peer, turn)["questionId"], "allow")
    assert peer.wait_for("complete", turnId=turn, timeout=120)["outcome"] == "done"
    assert (session.box.workspace / "three.txt").read_text() == "three\n"
    assert why or any("echo one" in json.dumps(c["body"]) and "And once more" in json.dumps(c["body"])
               for c in session.model.calls(upstream=session.name)), "the conversation was not loaded"
    session.end()


def use(tool, **arguments):
    return f"Go on. [[tool:{tool}:{base64.b64encode(json.dumps(arguments).encode()).decode()}]]"


@pytest.mark.parametrize("session", ["opencode"], indirect=True)
def test_what_only_the_own_protocol_of_opencode_has(session):
    """Questions, a refusal that the model hears in the same turn, plans, usage, edits with their change."""
    peer, boot = session.start()
    assert boot["adapter"] == "opencode"
    asked = [{"question": "Which one?", "header": "One", "options": [{"label": "A", "description": "first"}, {"label": "B", "description": "second"}]},
             {"question": "Which colours?", "header": "Two", "multiple": True, "options": [{"label": "red", "description": "r"}, {"label": "blue", "description": "b"}]}]
    turn = peer.prompt(use("question", questions=asked))
    one, two = peer.wait(lambda: len(peer.all("question", turnId=turn)) == 2 and peer.all("question", turnId=turn), "questions", 120)
    assert one["kind"] == two["kind"] == "question" and one["options"] == ["A", "B"] and two["multiple"] is True
    peer.answer(one["questionId"], "allow", answer="B")
    peer.answer(two["questionId"], "allow", answer={"answers": ["red", "something else"]})
    complete = peer.wait_for("complete", turnId=turn, timeout=120)
    assert complete["outcome"] == "done" and complete["usage"]["tokensIn"] > 0 and complete["usage"]["tokensOut"] > 0
    said = json.dumps([c["body"] for c in session.model.calls(upstream="opencode")])
    assert "something else" in said and "red" in said
    turn = peer.prompt(use("question", questions=asked[:1]))
    peer.answer(question_or_end(peer, turn)["questionId"], "deny")
    assert peer.wait_for("complete", turnId=turn, timeout=120)["outcome"] == "done"
    assert peer.all("tool", turnId=turn)[-1]["status"] == "failed"
    # a plan, an edit
    turn = peer.prompt(use("todowrite", todos=[{"content": "one", "status": "pending", "priority": "high"}]))
    assert peer.wait_for("complete", turnId=turn, timeout=120)["outcome"] == "done"
    plans = [e["providerEvent"] for e in peer.events("PROVIDER_EVENT_FORWARDED") if e["providerEvent"]["kind"] == "plan"]
    assert plans[-1]["update"]["entries"][0]["content"] == "one"
    turn = peer.prompt(use("write", filePath="b.txt", content="hello"))
    question = question_or_end(peer, turn)
    assert question["approval"]["context"]["paths"] == ["/workspace/b.txt"] and "+hello" in question["approval"]["exact"]
    assert json.loads(question["approval"]["exact"])["input"]["content"] == "hello" and question["requestKey"]
    peer.answer(question["questionId"], "allow")
    assert peer.wait_for("complete", turnId=turn, timeout=120)["outcome"] == "done"
    assert (session.box.workspace / "b.txt").read_text() == "hello" and {"path": "b.txt", "reason": "write"} in peer.events("FILE_TOUCHED")
    # refused: the model is told in the same turn
    prompts = len(peer.all("complete"))
    turn = peer.prompt("Again. [[cmd:echo no >> no.txt]]")
    peer.answer(question_or_end(peer, turn)["questionId"], "deny", "the release team does that")
    assert peer.wait_for("complete", turnId=turn, timeout=120)["outcome"] == "done" and len(peer.all("complete")) == prompts + 1
    refused = [t for t in peer.all("tool", turnId=turn) if t["status"] == "failed"]
    assert "the release team does that" in refused[0]["result"] and peer.words(turn), peer.all("tool", turnId=turn)
    # a model that is not there
    session.end()
    peer, _ = session.start(conversationId=boot["conversationId"], model="nobody/nothing")
    turn = peer.prompt("Are you there?")
    complete = peer.wait_for("complete", turnId=turn, timeout=120)
    assert complete["outcome"] == "failed" and "nobody/nothing" in complete["error"], complete
    session.end()
