"""The WebSocket of clients without a runner (village-control-plane.md 8.1 – 8.5, 8.7)."""
import json
import secrets
import struct
import time

import harness
import pytest
import worker_peers
from live_peers import PATH, Viewer
from village import data, no_session, refused
from worker_peers import frame


def handshake_status(server, path=PATH, **headers):
    with pytest.raises(worker_peers.Refused) as e:
        worker_peers.handshake(server.port, path, drop=("Authorization",) if "Authorization" not in headers else (),
                               **headers)
    return e.value


def greeted(viewer, role="operator"):
    assert viewer.expect("event", event="connected")["data"]["clientId"]
    who = viewer.expect("event", event="authenticated")["data"]
    assert who["role"] == role and who["orgId"] and who["userId"], who
    assert [m["event"] for m in viewer.messages[:2]] == ["connected", "authenticated"]
    return who


# --- who it is (8.2) ---

@pytest.mark.parametrize("path", [PATH, "/ws"])
def test_a_header_says_who_it_is(view, village, path):
    assert greeted(view(path=path))["orgId"] == village.org


def test_the_sub_protocol_carries_a_token_and_is_named_in_the_answer(oz, tenant, village):
    with Viewer(oz, subprotocols=["village.v1", f"bearer.{tenant.token}"]) as viewer:
        assert viewer.ws.subprotocol == "village.v1"
        assert greeted(viewer)["orgId"] == village.org
    with Viewer(oz, tenant.token, subprotocols=["something.else"]) as viewer:
        assert viewer.ws.subprotocol is None  # nothing is answered that was not offered
        greeted(viewer)


def test_a_ticket_opens_one_connection(oz, village):
    ticket = data(village("POST", "/ws-tickets"), 201)
    assert set(ticket) == {"ticket", "expiresAt"}
    with Viewer(oz, path=f"{PATH}?ticket={ticket['ticket']}") as viewer:
        assert greeted(viewer)["orgId"] == village.org
    assert handshake_status(oz, f"{PATH}?ticket={ticket['ticket']}").status == 401
    assert handshake_status(oz, f"{PATH}?ticket=wst_{'0' * 64}").status == 401
    assert handshake_status(oz, f"{PATH}?ticket=").status == 401


def test_tickets_that_nobody_uses_are_limited(oz):
    with oz.client("tickets-" + secrets.token_hex(8)) as client:
        for _ in range(100):
            data(client.api("POST", "/ws-tickets"), 201)
        refused(client.api("POST", "/ws-tickets"), 429, "RATE_LIMITED")


@pytest.mark.parametrize("name", ["token", "access_token"])
def test_a_token_in_the_query_is_refused_by_name(oz, tenant, name):
    answer = handshake_status(oz, f"{PATH}?{name}={tenant.token}")
    assert answer.status == 400
    error = json.loads(answer.body)["error"]
    assert error["code"] == "VALIDATION_ERROR" and error["details"]["issues"][0]["path"] == name, error
    assert tenant.token not in answer.body.decode()


@pytest.mark.parametrize("token", ["sk_" + "0" * 64, "adm_unknown", "rt_" + "0" * 64])
def test_a_credential_of_ours_that_is_unknown_is_401(oz, token):
    answer = handshake_status(oz, Authorization=f"Bearer {token}")
    assert answer.status == 401 and answer.headers["www-authenticate"] == "Bearer"
    assert handshake_status(oz, Sec_WebSocket_Protocol=f"village.v1, bearer.{token}").status == 401
    assert handshake_status(oz, Authorization="Basic abc").status == 401


def test_who_says_it_with_the_first_message(oz, tenant, village):
    with Viewer(oz) as viewer:
        viewer.expect("event", event="connected")
        viewer.refused("UNAUTHORIZED", "subscribe_session", sessionId=no_session())
        assert viewer.ask("ping")["type"] == "pong"
        reply = viewer.ask("authenticate", token=tenant.token)
        assert reply["event"] == "authenticated" and reply["data"]["orgId"] == village.org
        user = reply["data"]["userId"]
        assert viewer.ask("authenticate", token=tenant.token, userId=user)["event"] == "authenticated"
        # Only to renew: never another user.
        viewer.refused("AUTH_FAILED", "authenticate", token="somebody-else-" + secrets.token_hex(8))
        viewer.refused("AUTH_FAILED", "authenticate", token=tenant.token, userId="not-me")
        assert viewer.ask("ping")["type"] == "pong"


@pytest.mark.parametrize("fields", [{"token": "sk_" + "1" * 64}, {"token": " "},
                                    {"token": "some-token-of-mine", "userId": "somebody"}])
def test_a_bad_first_message_ends_it(oz, fields):
    with Viewer(oz) as viewer:
        viewer.send("authenticate", **fields)
        viewer.expect("error", code="AUTH_FAILED")
        assert viewer.wait_closed()[0] == 4401


def test_roles(oz, admin, village):
    with Viewer(oz, oz.admin_key) as viewer:
        greeted(viewer, "platform_admin")
    key = admin.api("POST", "/keys", json={"name": "v" + secrets.token_hex(4), "tenant": "t" + secrets.token_hex(4),
                                           "role": "viewer"}).json()
    with Viewer(oz, key["key"]) as viewer:
        greeted(viewer, "viewer")
        viewer.refused("FORBIDDEN", "resolve_approval", sessionId=no_session(), approvalId="apr_x", decision="allow")


def test_a_worker_or_a_foreign_origin_opens_none(oz):
    assert handshake_status(oz, Authorization="Bearer x", Origin="http://evil.example").status == 403


# --- messages (8.3, 8.4) ---

MALFORMED = ["", "{", "[]", "1", '"x"', "null", '{"type":1,"messageId":"a"}', '{"messageId":"a"}',
             '{"type":"ping","messageId":""}', '{"type":"ping","messageId":7}',
             '{"type":"ping","messageId":"' + "x" * 129 + '"}', '{"type":"subscribe_session","sessionId":"ses_x"}',
             '{"type":"ping","type":"ping"}', "[" * 1000]


@pytest.mark.parametrize("n", range(len(MALFORMED)))
def test_three_malformed_messages_in_a_row_end_it(view, n):
    viewer = view()
    greeted(viewer)
    for _ in range(2):
        viewer.ws.send(MALFORMED[n])
    viewer.sync()  # well-formed: the count begins anew
    for _ in range(3):
        viewer.ws.send(MALFORMED[n])
    code, reason = viewer.wait_closed()
    assert code == 1008 and "malformed" in reason
    assert len(viewer.of("error", code="INVALID_MESSAGE")) == 5


@pytest.mark.parametrize("kind,fields,code", [
    ("nothing_like_it", {}, "UNKNOWN_MESSAGE_TYPE"),
    ("subscribe_runner", {"runnerId": "rnr_1"}, "RUNNER_NOT_FOUND"),
    ("subscribe_org", {"orgId": "*"}, "FORBIDDEN"),
    ("subscribe", {"runnerId": "rnr_1"}, "RUNNER_NOT_FOUND"),
    ("subscribe_session", {}, "INVALID_MESSAGE"),
    ("subscribe_session", {"sessionId": 7}, "INVALID_MESSAGE"),
    ("subscribe_session", {"sessionId": "x" * 200}, "INVALID_MESSAGE"),
    ("subscribe_session", {"sessionId": "ses_1", "sinceSeq": 0}, "SESSION_NOT_FOUND"),
    ("subscribe_session", {"sessionId": no_session(), "sinceSeq": -1}, "INVALID_MESSAGE"),
    ("subscribe_session", {"sessionId": no_session(), "sinceSeq": "0"}, "INVALID_MESSAGE"),
    ("subscribe_session", {"sessionId": no_session(), "sinceSeq": 1e300}, "INVALID_MESSAGE"),
    ("subscribe_session", {"sessionId": no_session(), "terminal": 8}, "INVALID_MESSAGE"),
    ("subscribe_session", {"sessionId": no_session(), "terminal": "0"}, "INVALID_MESSAGE"),
    ("subscribe_session", {"sessionId": no_session(), "terminalOffset": -5}, "INVALID_MESSAGE"),
    ("subscribe_session", {"sessionId": no_session()}, "SESSION_NOT_FOUND"),
    ("unsubscribe_session", {}, "INVALID_MESSAGE"),
    ("terminal_input", {"sessionId": no_session(), "data": "x"}, "NOT_SUBSCRIBED"),
    ("terminal_input", {"sessionId": no_session(), "data": "x", "terminal": 99}, "INVALID_MESSAGE"),
    ("terminal", {"sessionId": no_session(), "action": "resize", "data": "x"}, "INVALID_MESSAGE"),
    ("terminal", {"sessionId": no_session(), "action": "input", "data": "x"}, "NOT_SUBSCRIBED"),
    ("terminal_resize", {"sessionId": no_session(), "cols": 80, "rows": 24}, "NOT_SUBSCRIBED"),
    ("ack", {"sessionId": no_session(), "terminalOffset": 0}, "NOT_SUBSCRIBED"),
    ("ack", {"sessionId": no_session()}, "INVALID_MESSAGE"),
    ("resolve_approval", {"sessionId": no_session()}, "INVALID_MESSAGE"),
    ("resolve_approval", {"sessionId": no_session(), "approvalId": "apr_1", "decision": "maybe"}, "INVALID_MESSAGE"),
    ("resolve_approval", {"sessionId": no_session(), "approvalId": "apr_1", "decision": "allow", "scope": "ever"},
     "INVALID_MESSAGE"),
    ("resolve_approval", {"sessionId": no_session(), "approvalId": "apr_1", "decision": "allow"}, "SESSION_NOT_FOUND"),
    ("authenticate", {}, "INVALID_MESSAGE"),
])
def test_a_bad_message_gets_a_named_error(view, kind, fields, code):
    viewer = view()
    viewer.refused(code, kind, **fields)
    viewer.sync()


def test_unsubscribing_from_nothing_is_no_error(view):
    session = no_session()
    for kind in ("unsubscribe_session", "unsubscribe"):
        reply = view().ask(kind, sessionId=session)
        assert reply["event"] == "unsubscribed" and reply["data"] == {"sessionId": session}


def test_binary_messages_are_no_messages(view):
    viewer = view()
    for _ in range(3):
        viewer.ws.send(b"\x01\x02")
    assert viewer.wait_closed()[0] == 1008


def test_a_message_in_pieces_is_one_message(view):
    viewer = view()
    text = json.dumps({"type": "ping", "messageId": "pieces"})
    viewer.ws.send([text[:5], text[5:9], text[9:]])
    assert viewer.expect("pong")["replyTo"] == "pieces"


# --- sessions that wait for a runner (8.5) ---

def test_a_subscription_shows_the_session_as_rest_does(view, village):
    session = village.create(task="Look at this")["sessionId"]
    viewer = view()
    info = viewer.follow(session)
    assert info["sessionId"] == session and info["lastSeq"] >= 1
    shot = viewer.expect("session", action="state_change")
    assert shot["sessionId"] == session and shot["orgId"] == village.org
    assert shot["data"]["previousState"] == shot["data"]["newState"] == "QUEUED"
    expected = village.get(session)
    shown = shot["data"]["session"]
    for volatile in ("durationSeconds",):
        expected.pop(volatile), shown.pop(volatile)
    assert shown == expected
    assert viewer.seqs(session) == []  # from now on


def test_the_log_is_replayed_from_any_position_and_goes_on(view, village):
    session = village.create()["sessionId"]
    whole, late = view(), view()
    last = whole.follow(session, sinceSeq=0)["lastSeq"]
    whole.wait(lambda: whole.seqs(session) == list(range(1, last + 1)), what="the log")
    late.follow(session, sinceSeq=1)
    data(village.stop(session, wait=10))
    for viewer, since in ((whole, 0), (late, 1)):
        done = viewer.expect("session", action="completed")
        assert done["data"]["finalState"] == "COMPLETED" and done["data"]["endReason"] == "stopped", done
        assert set(done["data"]["usage"]) == {"tokensIn", "tokensOut", "apiCalls", "computeSeconds"}
        seqs = viewer.seqs(session)
        assert seqs == list(range(since + 1, done["seq"] + 1))
        final = viewer.of("session", action="state_change")[-1]
        assert final["data"]["newState"] == "COMPLETED" and final["seq"] == done["seq"] - 1
        ended = viewer.of("session", action="event")[-1]
        assert ended["data"]["eventType"] == "SESSION_ENDED" and ended["seq"] == done["seq"]
    shown = {e["seq"]: e for e in village.events(session)["events"]}
    for m in whole.of("session", action="event"):
        assert shown[m["seq"]]["type"] == m["data"]["eventType"] and shown[m["seq"]]["data"] == m["data"]["payload"]


def test_a_session_that_ended_is_shown_too(view, village):
    session = village.create()["sessionId"]
    data(village.stop(session, wait=10))
    viewer = view()
    viewer.follow(session, sinceSeq=0)
    assert viewer.expect("session", action="completed")["data"]["finalState"] == "COMPLETED"
    now = view()
    now.follow(session)
    assert now.expect("session", action="state_change")["data"]["session"]["state"] == "COMPLETED"
    assert now.expect("session", action="completed")["data"]["finalState"] == "COMPLETED"
    assert now.seqs(session) == []


def test_a_position_that_the_log_does_not_have_is_told(view, village):
    session = village.create()["sessionId"]
    viewer = view()
    viewer.send("subscribe_session", sessionId=session, sinceSeq=1000)
    error = viewer.expect("error", code="REPLAY_UNAVAILABLE")
    assert error["details"]["oldestSeq"] == 1 and error["details"]["sessionId"] == session
    viewer.wait(lambda: viewer.seqs(session)[:1] == [1], what="the log from its oldest")


def test_foreign_sessions_do_not_exist(view, village, stranger):
    session = stranger.create()["sessionId"]
    viewer = view()
    there, none = viewer.refused("SESSION_NOT_FOUND", "subscribe_session", sessionId=session), \
        viewer.refused("SESSION_NOT_FOUND", "subscribe_session", sessionId=no_session())
    assert there["message"] == none["message"]
    viewer.refused("NOT_SUBSCRIBED", "terminal_input", sessionId=session, data="x")
    viewer.refused("SESSION_NOT_FOUND", "resolve_approval", sessionId=session, approvalId="apr_1", decision="allow")
    data(stranger.stop(session, wait=10))
    viewer.sync()
    assert not viewer.of("session")


def test_the_admin_sees_every_org(oz, view, village):
    session = village.create()["sessionId"]
    viewer = view(oz.admin_key)
    viewer.follow(session)
    assert viewer.expect("session")["orgId"] == village.org


def test_the_alias_subscribes_too(view, village):
    session = village.create()["sessionId"]
    viewer = view()
    assert viewer.ask("subscribe", sessionId=session)["event"] == "subscribed"
    viewer.ws.send(json.dumps({"type": "unsubscribe", "sessionId": session}))  # aliases need no messageId
    viewer.expect("event", event="unsubscribed")
    data(village.stop(session, wait=10))
    viewer.sync()
    assert not [m for m in viewer.of("session") if "seq" in m]


def test_a_second_subscription_begins_anew(view, village):
    session = village.create()["sessionId"]
    viewer = view()
    for _ in range(3):
        last = viewer.follow(session, sinceSeq=0)["lastSeq"]
    viewer.sync()
    data(village.stop(session, wait=10))
    viewer.expect("session", action="completed")
    viewer.sync()
    assert len(viewer.of("session", action="completed")) == 1  # one subscription, not three
    assert viewer.seqs(session)[-1] >= last


# --- limits (8.1) ---

@pytest.fixture(scope="module")
def small(postgres):
    with harness.serving({"OZ_WS_MAX_CONNECTIONS_PER_USER": "3", "OZ_WS_MAX_SUBSCRIPTIONS_PER_CONNECTION": "2",
                          "OZ_WS_AUTH_TIMEOUT_MS": "700", "OZ_WS_MAX_MESSAGE_SIZE": "20000",
                          "OZ_WS_MAX_CONNECTIONS": "6", "OZ_WS_MAX_MESSAGES_PER_SECOND": "20",
                          "OZ_WS_HEARTBEAT_INTERVAL_MS": "300", "OZ_WS_CONNECTION_TIMEOUT_MS": "1500"},
                         postgres=postgres, name="small") as server:
        yield server


def test_who_never_says_who_it_is_is_closed(small):
    with Viewer(small) as viewer:
        start = time.monotonic()
        assert viewer.wait_closed()[0] == 4408
        assert 0.5 < time.monotonic() - start < 5


def test_connections_of_one_user_are_counted(small):
    token = "many-" + secrets.token_hex(8)
    three = [Viewer(small, token) for _ in range(3)]
    for viewer in three:
        greeted(viewer)
    with Viewer(small, token) as fourth:
        fourth.expect("error", code="CONNECTION_LIMIT")
        assert fourth.wait_closed()[0] == 4429
    with Viewer(small, "another-" + secrets.token_hex(8)) as someone:
        greeted(someone)
    three[0].close()
    def again():
        with Viewer(small, token) as viewer:
            viewer.expect("event", event="connected")
            viewer.wait(lambda: viewer.of("event", event="authenticated") or viewer.closed)
            return viewer.of("event", event="authenticated")
    end = time.monotonic() + 10
    while not again():
        assert time.monotonic() < end
    for viewer in three:
        viewer.close()


def test_connections_of_all_are_counted(small):
    opened = [Viewer(small, f"all-{i}-" + secrets.token_hex(4)) for i in range(6)]
    answer = handshake_status(small, Authorization="Bearer one-too-many")
    assert answer.status == 503 and int(answer.headers["retry-after"]) >= 1
    for viewer in opened:
        viewer.close()


def test_subscriptions_are_counted(small):
    with small.client("subs-" + secrets.token_hex(8)) as client, Viewer(small, client.token) as viewer:
        from village import Village
        village = Village(client)
        sessions = [village.create()["sessionId"] for _ in range(3)]
        viewer.follow(sessions[0])
        viewer.follow(sessions[1])
        viewer.refused("SUBSCRIPTION_LIMIT", "subscribe_session", sessionId=sessions[2])
        viewer.follow(sessions[1])  # the same one is not a third
        viewer.ask("unsubscribe_session", sessionId=sessions[0])
        viewer.follow(sessions[2])


def test_a_message_that_is_too_large_ends_it(small):
    with Viewer(small, "large-" + secrets.token_hex(8)) as viewer:
        greeted(viewer)
        text = json.dumps({"type": "ping", "messageId": "m", "x": ""})
        viewer.ws.send(text.replace('""', '"' + "x" * (20000 - len(text)) + '"'))
        viewer.expect("pong")
        viewer.ws.send(text.replace('""', '"' + "x" * (20001 - len(text)) + '"'))
        assert viewer.wait_closed()[0] == 1009
    with Viewer(small) as viewer:  # who is not known may say less
        viewer.ws.send(text.replace('""', '"' + "x" * 17000 + '"'))
        assert viewer.wait_closed()[0] == 1009


def test_a_flood_is_answered_and_harmless(small):
    with Viewer(small, "flood-" + secrets.token_hex(8)) as viewer:
        greeted(viewer)
        for _ in range(200):
            viewer.ws.send('{"type":"ping","messageId":"f"}')
        viewer.wait(lambda: len(viewer.of("pong")) + len(viewer.of("error", code="RATE_LIMITED")) == 200)
        assert 40 <= len(viewer.of("pong")) < 100
        time.sleep(0.5)
        assert viewer.ask("ping")["type"] == "pong"


def test_pings_come_and_a_silent_peer_is_dropped(small):
    sock, rest = worker_peers.handshake(small.port, PATH, "silent-" + secrets.token_hex(8), timeout=10)
    with sock:
        got, start, pings = bytearray(rest), time.monotonic(), 0
        while piece := sock.recv(65536):
            got += piece
        took = time.monotonic() - start
        while got:  # it was pinged before it was given up
            n = got[1] & 127
            at = 4 if n == 126 else 2
            n = struct.unpack(">H", got[2:4])[0] if n == 126 else n
            pings += got[0] & 15 == worker_peers.PING
            del got[:at + n]
        assert pings >= 2 and 1.0 < took < 6, (pings, took)
    with Viewer(small, "alive-" + secrets.token_hex(8)) as viewer:  # answers pings, and stays
        time.sleep(3)
        assert viewer.ask("ping")["type"] == "pong"


def test_a_server_that_stops_says_so(postgres):
    with harness.serving(postgres=postgres, name="stopping") as server:
        with Viewer(server, "stop-" + secrets.token_hex(8)) as viewer, Viewer(server) as nobody:
            greeted(viewer)
            nobody.expect("event", event="connected")
            server.stop()
            for one in (viewer, nobody):
                assert one.expect("event", event="server_shutdown")["data"]["reconnectAfterMs"] > 0
                assert one.wait_closed()[0] == 1001
                assert one.messages[-1]["event"] == "server_shutdown"


@pytest.mark.minutes
def test_a_revoked_key_closes_within_a_minute(oz, admin):
    key = admin.api("POST", "/keys", json={"name": "r" + secrets.token_hex(4), "tenant": "t" + secrets.token_hex(4)}).json()
    with Viewer(oz, key["key"]) as viewer:
        greeted(viewer)
        assert admin.api("DELETE", f"/keys/{key['id']}").status_code == 200
        assert viewer.wait_closed(timeout=60)[0] == 4401


# --- hostile peers ---

HOSTILE = [
    ("unmasked", frame(worker_peers.TEXT, b"{}", mask=False), 1002),
    ("reserved bit", bytes([0xC1, 0x80, 0, 0, 0, 0]), 1002),
    ("unknown opcode", frame(3, b""), 1002),
    ("continuation of nothing", frame(worker_peers.CONT, b"x"), 1002),
    ("long ping", frame(worker_peers.PING, b"x" * 126), 1002),
    ("fragmented ping", frame(worker_peers.PING, b"x", fin=False), 1002),
    ("no text", frame(worker_peers.TEXT, b"\xff"), 1007),
    ("huge length", bytes([0x81, 0xFF]) + struct.pack(">Q", 1 << 62) + b"\0\0\0\0", 1009),
    ("close with a bad code", frame(worker_peers.CLOSE, struct.pack(">H", 1005)), 1002),
    ("clean close", frame(worker_peers.CLOSE, struct.pack(">H", 1000)), 1000),
]


@pytest.mark.parametrize("name,raw,code", HOSTILE, ids=[h[0] for h in HOSTILE])
def test_hostile_frames_end_with_the_one_code(oz, name, raw, code):
    sock, rest = worker_peers.handshake(oz.port, PATH, "hostile-" + secrets.token_hex(8), timeout=10)
    with sock:
        sock.sendall(raw)
        got = bytearray(rest)
        while piece := sock.recv(65536):
            got += piece
    closes = []
    while got:
        n, at = got[1] & 127, 2
        if n == 126:
            n, at = struct.unpack(">H", got[2:4])[0], 4
        if got[0] & 15 == worker_peers.CLOSE:
            closes.append(struct.unpack(">H", got[at:at + 2])[0])
        del got[:at + n]
    assert closes == [code]


def test_upgrades_that_are_none(oz, tenant):
    for path in (PATH, "/ws"):
        answer = tenant.get(path)
        assert answer.status_code == 426, answer.text
        assert answer.headers["sec-websocket-version"] == "13"
    assert tenant.post(PATH).status_code == 405
    assert handshake_status(oz, Authorization=f"Bearer {tenant.token}", Sec_WebSocket_Version="12").status == 400


def test_connections_that_vanish_leave_nothing(oz, tenant, village):
    session = village.create()["sessionId"]
    for i in range(30):
        viewer = Viewer(oz, tenant.token)
        viewer.send("subscribe_session", sessionId=session, sinceSeq=0)
        if i % 2:
            viewer.ws.socket.close()
        else:
            viewer.close()
    def left():
        for line in oz.client(oz.admin_key).get("/metrics").text.splitlines():
            if line.startswith("muster_ws_clients "):
                return float(line.split()[1])
        raise AssertionError("no gauge")
    end = time.monotonic() + 20
    while left() > 0:
        assert time.monotonic() < end, left()
        time.sleep(0.1)
