"""Exclusive control of a session's terminals over the WebSocket of clients (village-control-plane.md 8.5)."""
import time

import pytest
from village import refused


@pytest.fixture
def running(village, worker):
    """A session whose agent works: (id, runner)."""
    session = village.create()["sessionId"]
    runner = worker.start(session)
    yield session, runner
    worker.well()


def take(viewer, session):
    reply = viewer.ask("take_control", sessionId=session)
    assert reply["type"] == "event" and reply["event"] == "control", reply
    return reply["data"]["userId"]


def told(viewer, session):
    """Who had control, in the order it was told to all."""
    return [m["data"]["userId"] for m in viewer.of("event", event="control")
            if m["data"]["sessionId"] == session and "replyTo" not in m]


def types(viewer, session, text):
    viewer.send("terminal_input", sessionId=session, data=text)
    viewer.sync()
    return viewer


def typed(runner):
    return "".join(m.get("data", "") for m in runner.worker.frames_of(runner.task["execution_id"]) if m["type"] == "input")


def test_one_types_and_the_others_hear_who(village, running, view):
    session, runner = running
    one, two, three = view(), view(), view()
    for viewer in (one, two, three):
        viewer.follow(session)
    me = one.expect("event", event="authenticated")["data"]["userId"]
    assert take(one, session) == me
    for viewer in (one, two, three):
        viewer.wait(lambda v=viewer: told(v, session) == [me], what="who has control")
    one.send("terminal_input", sessionId=session, data="mine ")
    for kind, more in (("terminal_input", {"data": "no"}), ("terminal_resize", {"cols": 80, "rows": 24}), ("take_control", {})):
        error = two.refused("FORBIDDEN", kind, sessionId=session, **more)
        assert error["details"] == {"userId": me} and me in error["message"]
    assert me in refused(village("POST", f"/sessions/{session}/input", json={"data": "no"}), 403, "FORBIDDEN")["message"]
    refused(village("POST", f"/sessions/{session}/resize", json={"cols": 80, "rows": 24}), 403, "FORBIDDEN")
    late = view()
    late.follow(session)
    late.wait(lambda: told(late, session) == [me], what="who has control")
    assert two.ask("release_control", sessionId=session)["data"]["userId"] == me  # not its own to give
    assert take(one, session) == me  # again: it keeps it
    assert one.ask("release_control", sessionId=session)["data"]["userId"] is None
    for viewer in (one, two, three):
        viewer.wait(lambda v=viewer: told(v, session) == [me, None], what="that nobody has control")
    two.send("terminal_input", sessionId=session, data="yours")
    runner.worker.wait(lambda: typed(runner) == "mine yours", what="what was typed")
    assert one.ask("release_control", sessionId=session)["data"]["userId"] is None
    runner.end()


@pytest.mark.parametrize("how", ["close", "abort", "unsubscribe", "follow again"])
def test_it_ends_with_who_had_it(running, view, how):
    session, runner = running
    one, two = view(), view()
    for viewer in (one, two):
        viewer.follow(session)
    me = take(one, session)
    two.wait(lambda: told(two, session) == [me], what="who has control")
    if how == "close":
        one.close()
    elif how == "abort":
        one.ws.socket.shutdown(2)
    elif how == "unsubscribe":
        one.ask("unsubscribe_session", sessionId=session)
    else:
        one.follow(session)
    two.wait(lambda: told(two, session) == [me, None], what="that nobody has control")
    assert take(two, session) == me
    runner.end()


def test_it_is_one_sessions_and_ends_with_its_runner(village, worker, running, view):
    session, runner = running
    other = village.create()["sessionId"]
    another = worker.start(other)
    one, two = view(), view()
    for viewer in (one, two):
        viewer.follow(session)
        viewer.follow(other)
    me = take(one, session)
    two.send("terminal_input", sessionId=other, data="free")
    worker.wait(lambda: typed(another) == "free", what="what was typed")
    runner.say({"type": "gone"})
    two.wait(lambda: told(two, session) == [me, None], what="that nobody has control")
    runner.hello(phase="running", terminals=[0])
    assert take(two, session) == me
    one.refused("FORBIDDEN", "terminal_input", sessionId=session, data="x")
    runner.end()
    another.end()


def test_hands_change_and_every_key_is_somebodys(running, view):
    session, runner = running
    viewers = [view() for _ in range(3)]
    for viewer in viewers:
        viewer.follow(session)
    for n in range(12):
        viewer = viewers[n % 3]
        take(viewer, session)
        viewer.send("terminal_input", sessionId=session, data=f"{n} ")
        for barred in viewers:
            if barred is not viewer:
                barred.refused("FORBIDDEN", "terminal_input", sessionId=session, data="x")
        viewer.ask("release_control", sessionId=session)
    runner.worker.wait(lambda: typed(runner) == "".join(f"{n} " for n in range(12)), what="every key once and in order")
    runner.end()


@pytest.mark.minutes
def test_who_rests_loses_it(running, view):
    session, runner = running
    one, two = view(), view()
    for viewer in (one, two):
        viewer.follow(session)
    start = time.monotonic()
    me = take(one, session)
    time.sleep(20)
    types(one, session, "still here")
    two.wait(lambda: told(two, session) == [me, None], 70, "that nobody has control")
    assert 79 < time.monotonic() - start < 85
    data_of = two.ask("take_control", sessionId=session)["data"]
    assert data_of == {"sessionId": session, "userId": me}
    runner.end()
