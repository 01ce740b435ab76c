"""COMMAND_STARTED and COMMAND_FINISHED of an agent's tools, and the model that a session asks for."""
import json

import pytest
from test_runner_live import call, make, ran  # noqa: F401

pytestmark = [pytest.mark.engine_free]


def commands(live):
    """[(started, finished or None)], in the order of the starts; each start is before its end."""
    p, found = live.peer, {}
    for m in p.all("events"):
        for e in m["events"]:
            d = e["data"]
            if e["type"] == "COMMAND_STARTED":
                assert d["commandId"] not in found
                found[d["commandId"]] = (d, None)
            elif e["type"] == "COMMAND_FINISHED":
                assert found[d["commandId"]][1] is None
                found[d["commandId"]] = (found[d["commandId"]][0], d)
    return list(found.values())


def update(name, status, **more):
    return "update " + json.dumps({"toolCallId": name, "status": status, **more})


def test_a_command_begins_and_ends_once(make):  # noqa: F811
    live = make()
    live.turn("tool " + ran("ls -l"), update("t1", "in_progress"), update("t1", "in_progress"), "sleep 0.2",
              update("t1", "completed", rawOutput={"exit_code": 0, "stdout": "x"}), update("t1", "completed"),
              "tool " + call("t2", rawInput={"command": ["bash", "-lc", "make test"], "cwd": "/workspace/sub"}, status="in_progress"),
              update("t2", "completed", rawOutput={"exitCode": 3}),
              "tool " + call("t3", rawInput={"command": "false"}), update("t3", "failed"),
              "tool " + call("t4", "read", rawInput={"path": "/workspace/a", "command": "view"}, status="completed"))
    (a, a_end), (b, b_end), (c, c_end) = commands(live)
    assert (a["command"], a["cwd"], b["command"], b["cwd"], c["command"]) == ("ls -l", "/workspace", "bash -lc 'make test'", "/workspace/sub", "false")
    assert (a_end["exitCode"], a_end["ok"], b_end["exitCode"], b_end["ok"], c_end["exitCode"], c_end["ok"]) == (0, True, 3, False, None, False)
    assert 150 <= a_end["durationMs"] < 5000 and a["turnId"]
    second, _ = live.turn("tool " + ran("ls -l again"), update("t1", "completed"))  # ids begin anew with a turn
    assert [d["turnId"] for d in live.peer.events("COMMAND_STARTED")] == [a["turnId"]] * 3 + [second]


def test_what_is_not_allowed_does_not_begin(make):  # noqa: F811
    live = make(policy={"requiresApprovalFor": ["shell"], "shellDenylist": ["rm"]})
    p = live.peer
    turn = p.prompt("\n".join(["ask " + ran("rm x", "denied"), update("denied", "failed"), "ask " + ran("make", "asked"),
                               update("asked", "completed", rawOutput="done"), "ask " + ran("make no", "refused"), update("refused", "failed")]))
    question = p.wait_for("question")
    assert not p.events("COMMAND_STARTED")
    p.answer(question["questionId"], "allow")
    p.wait(lambda: len(p.all("question")) == 2)
    p.answer(p.all("question")[1]["questionId"], "deny")
    p.wait_for("complete", turnId=turn)
    [(started, finished)] = commands(live)
    assert started["commandId"] == "asked" and started["command"] == "make" and finished["ok"]


def test_what_the_policy_allows_begins_with_that(make):  # noqa: F811
    live = make()
    p = live.peer
    turn = p.prompt("ask " + ran("make") + "\nsleep 30")
    p.wait(lambda: p.events("COMMAND_STARTED"))
    assert not p.events("COMMAND_FINISHED")
    p.send("abort", turnId=turn)
    p.wait_for("complete", turnId=turn)
    [(started, finished)] = commands(live)
    assert finished == {"commandId": "t1", "exitCode": None, "ok": False, "durationMs": finished["durationMs"]}


def test_secrets_are_not_in_commands(make):  # noqa: F811
    live = make(env={"OZ_ENV_VARS": "API_KEY=0123456789abcdef-key"})
    live.turn("tool " + ran("curl -H 'X-Key: 0123456789abcdef-key' localhost"), update("t1", "completed"))
    assert commands(live)[0][0]["command"] == "curl -H 'X-Key: [redacted:API_KEY]' localhost"


@pytest.mark.parametrize("look, wanted, expected", [
    ({"models": ["big", "small"]}, "small", "small"), ({"models": ["big", "small"]}, "big", "big"),
    ({"models": ["big", "small"]}, "Small", "small"),  # by its name
    ({"models": ["big", "small"], "model_option": "model"}, "small", "small"),
    ({"models": ["big", "small"], "model_option": "which", "modes": ["other", "default"]}, "small", "small"),
    ({"models": ["big", "small"], "modes": ["other", "default"]}, "small", "small")])
def test_the_model_of_the_session_is_chosen(make, look, wanted, expected):  # noqa: F811
    live = make(look, model=wanted)
    turn, complete = live.turn("model")
    assert complete["outcome"] == "done" and live.peer.words(turn) == expected
    assert "detail" not in live.peer.wait_for("boot", step="running")


@pytest.mark.parametrize("look, wanted, said", [
    ({"models": ["big", "small"]}, "huge", True), ({"models": ["big", "small"], "refuse_model": True}, "small", True),
    ({"models": ["big"], "model_option": "model"}, "huge", True), ({}, "huge", False)])
def test_a_model_that_is_not_offered_is_told(make, look, wanted, said):  # noqa: F811
    live = make(look, model=wanted)
    turn, complete = live.turn("model")
    assert complete["outcome"] == "done"
    assert ("model" in live.peer.wait_for("boot", step="running").get("detail", "")) is said
