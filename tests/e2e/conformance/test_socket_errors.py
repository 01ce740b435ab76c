"""The same of the client WebSocket: what openapi.json says that each message may be answered with is neither more nor less
than what happens (village-control-plane.md 8.3, 8.4)."""
import collections
import json
import sqlite3
from typing import Callable, NamedTuple

import harness
import pytest
from live_peers import Viewer
from village import Village
from world import NO_APPROVAL, NO_RUNNER, NO_SESSION, World, break_database

provoked = collections.defaultdict(set)


class Row(NamedTuple):
    message: str
    how: str
    fields: dict | Callable  # of the message; given a World
    code: str
    who: str = "v"
    before: Callable = None  # (world, viewer)


def on(session, **fields):
    return lambda w: {"sessionId": getattr(w, session, session), **fields}


def follow(session):
    return lambda w, viewer: viewer.follow(getattr(w, session))


def follow_three(w, viewer):
    for _ in range(3):
        viewer.follow(w.waiting())


TYPED = {"terminal_input": {"data": "x"}, "terminal_resize": {"cols": 80, "rows": 24}, "terminal": {"action": "input", "data": "x"},
         "take_control": {}}
DECIDE = {"approvalId": NO_APPROVAL, "decision": "allow"}
BAD_SESSIONS = ({}, {"sessionId": 7}, {"sessionId": "x" * 129})

ROWS = [
    Row("*", "no such message", {}, "UNKNOWN_MESSAGE_TYPE"),
    *[Row(kind, how, {"runnerId": "rnr_1"}, "RUNNER_NOT_FOUND")
      for kind in ("subscribe_runner", "unsubscribe_runner", "subscribe", "unsubscribe") for how in ("no id of a runner",)],
    *[Row(kind, how, fields, "RUNNER_NOT_FOUND") for kind in ("subscribe_runner", "subscribe")
      for how, fields in (("none", {"runnerId": NO_RUNNER}), ("another org's", lambda w: {"runnerId": w.runner[0]}))],
    *[Row(kind, f"no runner {n}", fields, "INVALID_MESSAGE") for kind in ("subscribe_runner", "unsubscribe_runner")
      for n, fields in enumerate(({}, {"runnerId": 7}, {"runnerId": "x" * 129}))],
    Row("subscribe_runner", "the fourth", {"runnerId": NO_RUNNER}, "SUBSCRIPTION_LIMIT", before=follow_three),
    *[Row(kind, f"no org {n}", {"orgId": org}, "INVALID_MESSAGE") for kind in ("subscribe_org", "unsubscribe_org")
      for n, org in enumerate((7, "", "x" * 40))],
    *[Row("subscribe_org", how, org, "FORBIDDEN", who) for who in ("v", "viewer", "boss")
      for how, org in (("all", {"orgId": "*"}), ("none", {"orgId": "org-of-nobody"}), ("another", lambda w: {"orgId": w.stranger.org}))],
    Row("subscribe_org", "the fourth", {}, "SUBSCRIPTION_LIMIT", before=follow_three),
    Row("authenticate", "no token", {}, "INVALID_MESSAGE"),
    Row("authenticate", "a token that is too long", {"token": "x" * 4097}, "INVALID_MESSAGE"),
    Row("authenticate", "a key that there is not", {"token": "sk_" + "0" * 64}, "AUTH_FAILED"),
    Row("authenticate", "another user", lambda w: {"token": w.stranger.client.token}, "AUTH_FAILED"),
    *[Row(kind, f"no session {n}", fields, "INVALID_MESSAGE")
      for kind in ("subscribe_session", "subscribe", "unsubscribe_session", "unsubscribe", "ack", "resolve_approval",
                   "terminal_input", "terminal_resize", "take_control", "release_control") for n, fields in enumerate(BAD_SESSIONS)],
    *[Row("terminal", f"no session {n}", {"action": "input", **fields}, "INVALID_MESSAGE") for n, fields in enumerate(BAD_SESSIONS)],
    Row("terminal", "another action", on("running", action="resize"), "INVALID_MESSAGE"),
    *[Row(kind, how, on("queued", **fields), "INVALID_MESSAGE") for kind in ("subscribe_session", "subscribe")
      for how, fields in (("a number below none", {"sinceSeq": -1}), ("a text", {"sinceSeq": "1"}), ("terminal 8", {"terminal": 8}))],
    *[Row(kind, how, on(session, **more), "SESSION_NOT_FOUND")
      for kind, more in (("subscribe_session", {}), ("subscribe", {}), ("resolve_approval", DECIDE))
      for how, session in (("none", NO_SESSION), ("another org's", "foreign"), ("no id", "ses_1"))],
    *[Row(kind, "no id", on("ses_1", **more), "SESSION_NOT_FOUND")
      for kind, more in (("unsubscribe_session", {}), ("unsubscribe", {}), ("ack", {"terminalOffset": 0}),
                         ("release_control", {}), *TYPED.items())],
    *[Row(kind, "the fourth", on("queued"), "SUBSCRIPTION_LIMIT", before=follow_three) for kind in ("subscribe_session", "subscribe")],
    *[Row(kind, "not subscribed", on("running", **more), "NOT_SUBSCRIBED")
      for kind, more in (*TYPED.items(), ("ack", {"terminalOffset": 0}))],
    *[Row(kind, "a viewer", on("running", **more), "FORBIDDEN", "viewer", follow("running")) for kind, more in TYPED.items()],
    Row("resolve_approval", "a viewer", on("running", **DECIDE), "FORBIDDEN", "viewer"),
    *[Row(kind, "it waits", on("queued", **more), "INVALID_STATE", before=follow("queued")) for kind, more in TYPED.items()],
    *[Row(kind, "its worker is away", on("away", **more), "RUNNER_UNREACHABLE", before=follow("away")) for kind, more in TYPED.items()],
    Row("terminal_input", "too much", on("running", data="x" * 65537), "INVALID_MESSAGE", before=follow("running")),
    *[Row("terminal_resize", str(size), on("running", **size), "INVALID_MESSAGE", before=follow("running"))
      for size in ({"cols": 80}, {"rows": 24}, {"cols": 19, "rows": 24}, {"cols": 501, "rows": 24}, {"cols": 80, "rows": 4},
                   {"cols": 80, "rows": 201})],
    Row("ack", "no offset", on("running"), "INVALID_MESSAGE"),
    Row("resolve_approval", "maybe", on("running", approvalId=NO_APPROVAL, decision="maybe"), "INVALID_MESSAGE"),
    Row("resolve_approval", "for ever", on("running", **DECIDE, scope="ever"), "INVALID_MESSAGE"),
    Row("resolve_approval", "too many words", lambda w: {"sessionId": w.approval[0], "approvalId": w.approval[1], "decision": "deny",
                                                         "reason": "x" * 2001}, "INVALID_MESSAGE"),
    Row("resolve_approval", "none", on("running", **DECIDE), "APPROVAL_NOT_FOUND"),
    Row("resolve_approval", "it is allowed", lambda w: {"sessionId": w.decided[0], "approvalId": w.decided[1], "decision": "deny"},
        "APPROVAL_ALREADY_RESOLVED"),
]


@pytest.fixture(scope="module")
def document(shared):
    with shared.client(None) as client:
        return client.get("/openapi.json").json()["paths"]["/api/v1/ws"]["get"]["x-messages"]


@pytest.mark.parametrize("row", ROWS, ids=lambda r: f"{r.message}-{r.how}-{r.code}")
def test_a_message_is_refused(world, document, row):
    assert row.code in document[row.message], "openapi.json does not say so"
    with world.socket(getattr(world, row.who)) as viewer:
        viewer.expect("event", event="authenticated")
        if row.before:
            row.before(world, viewer)
        fields = row.fields(world) if callable(row.fields) else row.fields
        viewer.refused(row.code, row.message, **fields)
        viewer.sync()  # an error does not end it
    provoked[row.message].add(row.code)


@pytest.mark.parametrize("kind", ["subscribe_session", "subscribe"])
def test_a_position_that_is_not_there(world, kind):
    with world.socket() as viewer:
        viewer.send(kind, sessionId=world.queued, sinceSeq=10**6)
        error = viewer.expect("error", code="REPLAY_UNAVAILABLE")
        assert error["details"]["oldestSeq"] == 1 and error["details"]["latestSeq"] >= 1
    provoked[kind].add("REPLAY_UNAVAILABLE")


def test_before_it_is_known_who_it_is(world, document):
    for kind in set(document) - {"*", "ping", "authenticate"}:
        with Viewer(world.server) as viewer:
            viewer.refused("UNAUTHORIZED", kind)
    provoked["*"].add("UNAUTHORIZED")


def test_what_is_no_message(world):
    with world.socket() as viewer:
        for raw in ("{", "[]", '{"type":1}', '{"type":"ping","messageId":""}', '{"type":"terminal_input"}'):
            viewer.ws.send(raw)
            viewer.expect("error", code="INVALID_MESSAGE")
            viewer.sync()
    provoked["*"].add("INVALID_MESSAGE")


def test_too_many_messages(world):
    with world.socket() as viewer:
        for _ in range(400):
            viewer.ws.send(json.dumps({"type": "ping", "messageId": "p"}))
        viewer.expect("error", code="RATE_LIMITED")
    provoked["*"].add("RATE_LIMITED")


@pytest.fixture(scope="module")
def small(postgres):
    with harness.serving({"OZ_WS_MAX_CONNECTIONS_PER_USER": "1"}, postgres=postgres, name="small") as server:
        made = World(server)
        yield made
        made.close()


def test_one_connection_too_many(small):
    with small.socket() as first, small.socket() as second:
        first.expect("event", event="authenticated")
        second.expect("error", code="CONNECTION_LIMIT")
        assert second.wait_closed()[0] == 4429
    provoked["*"].add("CONNECTION_LIMIT")
    with small.socket() as first, Viewer(small.server) as second:
        first.expect("event", event="authenticated")
        second.refused("CONNECTION_LIMIT", "authenticate", token=small.v.client.token)
    provoked["authenticate"].add("CONNECTION_LIMIT")


@pytest.fixture
def own_database(request):
    """(url or None, what takes the database of a server away, what gives it back)."""
    if request.config.getoption("--engine") == "postgres":
        cluster = harness.Postgres()
        yield cluster.new_database(), lambda server: cluster.halt("immediate"), cluster.start
        cluster.stop()
        return
    held = []

    def hold(server):
        held.append(sqlite3.connect(server.data / "muster.db", timeout=20, isolation_level=None))
        held[0].execute("BEGIN IMMEDIATE")
    yield None, hold, lambda: held[0].close()


def test_a_database_that_is_away(own_database, make_server):
    url, take_away, give_back = own_database
    server = make_server(database_url=url, postgres=None)
    with server.client("someone") as client, Viewer(server, client.token) as viewer:
        session = Village(client).create(options={"runnerId": "nobody", "mode": "interactive"})["sessionId"]
        viewer.follow(session)
        take_away(server)
        viewer.refused("UNAVAILABLE", "resolve_approval", sessionId=session, **DECIDE)
        give_back()
        harness.eventually(lambda: viewer.ask("resolve_approval", sessionId=session, **DECIDE)["code"] == "APPROVAL_NOT_FOUND",
                           what="the database is back")
    provoked["*"].add("UNAVAILABLE")


def test_a_broken_database(make_server):
    server = make_server()
    with server.client("someone") as client, Viewer(server, client.token) as viewer:
        viewer.refused("SESSION_NOT_FOUND", "subscribe_session", sessionId=NO_SESSION)
        break_database(server)
        viewer.refused("INTERNAL_ERROR", "subscribe_session", sessionId=NO_SESSION)
        viewer.refused("INTERNAL_ERROR", "resolve_approval", sessionId=NO_SESSION, **DECIDE)
    provoked["*"].add("INTERNAL_ERROR")


def test_nothing_that_the_document_names_was_left_out(document):
    """The last of this file."""
    missing = {kind: sorted(set(codes) - provoked[kind]) for kind, codes in document.items() if set(codes) - provoked[kind]}
    assert not missing
