"""Every operation's every error code is provoked: what /openapi.json says of the sessions API is neither more nor less
than what happens (village-control-plane.md 3.1, 3.6 and 15.1)."""
import collections

import contextlib
import socket
import threading

import error_table
import harness
import pytest
from live_peers import Viewer
from village import Village, data, issues, refused
from world import NO_APPROVAL, NO_PROMPT, NO_RUNNER, NO_SESSION, UPGRADE, World, answer_on, break_database, exchange, head, new_id, upgrade

FILLED = {"{sessionId}": NO_SESSION, "{runnerId}": NO_RUNNER, "{approvalId}": NO_APPROVAL, "{promptId}": NO_PROMPT, "{terminal}": "1"}
WITH_A_PASS = ("registerRunner", "runnerHeartbeat")  # an enrolment token or a runner's credential
SOCKETS = ("clientSocket", "runnerLink")
OF_AN_ADMINISTRATOR = ("createRunnerEnrolment", "listRunnerEnrolments", "revokeRunnerEnrolment", "drainRunner", "undrainRunner", "deregisterRunner")

provoked = collections.defaultdict(set)
common = set()  # what the document says of all operations together


@pytest.fixture(scope="module")
def document(shared):
    """{operationId: (method, path, operation)} of everything that answers in the envelope."""
    with shared.client(None) as client:
        whole = client.get("/openapi.json").json()
    found = {}
    for path, item in whole["paths"].items():
        for method, operation in item.items():
            errors = [r["content"]["application/json"]["schema"]["$ref"] for s, r in operation["responses"].items() if s >= "4"]
            if any(ref.endswith("/EnvelopeError") for ref in errors):
                found[operation["operationId"]] = (method.upper(), path, operation)
    assert len(found) > 35
    common.update(whole["x-common-codes"])
    return found


def codes_of(operation):
    """{(status, code)}"""
    return {(int(status), code) for status, r in operation["responses"].items() for code in r.get("x-codes", [])}


def named(row):
    return f"{row.operation}-{row.how}-{row.code}"


@pytest.mark.parametrize("row", error_table.ROWS, ids=named)
def test_an_operation_refuses(world, document, row):
    assert (row.status, row.code) in codes_of(document[row.operation][2]), "openapi.json does not say so"
    response = row.do(world)
    refused(response, row.status, row.code)
    if row.field:
        field, issue = row.field.rsplit(":", 1)
        assert issues(response).get(field) == issue, response.text
    provoked[row.operation].add((row.status, row.code))


# --- what the layers before a handler answer ---

def ask(method, path, token=None, **more):
    """The head of a request to an operation."""
    for name, value in FILLED.items():
        path = path.replace(name, value)
    if token is not None:
        more["Authorization"] = f"Bearer {token}"
    return head(method, path, **more)


class Layers:
    """Sends one request to each operation and looks at what refuses it."""

    def __init__(self, document, server, token, a_pass):
        self.document, self.server, self.token, self.a_pass = document, server, token, a_pass

    def of(self, operation):
        """method, path, the bearer that it takes."""
        method, path, _ = self.document[operation]
        return method, path, self.a_pass if operation in WITH_A_PASS else self.token

    def send(self, operation, status, code, raw):
        try:
            refused(exchange(self.server, raw), status, code)
        except AssertionError as e:
            return f"{operation}: {e}"
        provoked[operation].add((status, code))
        if (status, code) not in codes_of(self.document[operation][2]):
            return f"{operation} answers {code}: openapi.json does not say so"
        return None

    def each(self, status, code, raw, but=(), only=None):
        """`raw(method, path, token)` makes the request."""
        wrong = [self.send(operation, status, code, raw(*self.of(operation)))
                 for operation in only or self.document if operation not in but]
        assert len(wrong) > 1 or only, "nothing was asked"
        assert not any(wrong), "\n".join(w for w in wrong if w)


@pytest.fixture(scope="module", autouse=True)
def stalled(world, document):
    """Requests that never come to their end, begun first: their time passes meanwhile."""
    with contextlib.ExitStack() as closing:
        opened = {}
        for operation, (method, path, _) in document.items():
            opened[operation] = closing.enter_context(socket.create_connection(("127.0.0.1", world.server.port), 30))
            opened[operation].sendall(ask(method, path)[:-2])
        yield opened


@pytest.fixture(scope="module")
def layers(world, document):
    return Layers(document, world.server, world.server.admin_key, world.enroller.client.token)


def test_without_a_bearer(layers):
    layers.each(401, "UNAUTHORIZED", lambda method, path, token: ask(method, path, **UPGRADE) if path.endswith("/link")
                else ask(method, path), but=("clientSocket",))


def test_another_host(layers):
    layers.each(403, "FORBIDDEN", lambda method, path, token: ask(method, path, token, host="evil.example"))


def test_another_origin(layers):
    layers.each(403, "FORBIDDEN", lambda method, path, token: ask(method, path, token, Origin="https://evil.example"))


def test_the_wrong_kind_of_bearer(layers, world):
    tenant, a_pass = world.v.client.token, layers.a_pass
    layers.each(403, "FORBIDDEN", lambda method, path, token: ask(method, path, a_pass), but=SOCKETS + WITH_A_PASS)
    layers.each(403, "FORBIDDEN", lambda method, path, token: ask(method, path, tenant), only=WITH_A_PASS)
    layers.each(403, "FORBIDDEN", lambda method, path, token: ask(method, path, tenant, **UPGRADE), only=("runnerLink",))


def test_a_role_that_is_too_low(layers, world):
    viewer, operator = world.viewer.client.token, world.v.client.token
    reads = [o for o in layers.document if layers.document[o][0] == "GET"] + ["createWsTicket"]
    layers.each(403, "FORBIDDEN", lambda method, path, token: ask(method, path, viewer), but=[*reads, *WITH_A_PASS])
    layers.each(403, "FORBIDDEN", lambda method, path, token: ask(method, path, operator), only=OF_AN_ADMINISTRATOR)


def test_another_method(layers):
    layers.each(405, "METHOD_NOT_ALLOWED", lambda method, path, token: ask("PUT", path, layers.token))


def test_a_body_that_is_too_large(layers):
    layers.each(413, "PAYLOAD_TOO_LARGE", lambda method, path, token: ask(method, path, token, Content_Length="5000000"), but=SOCKETS)


def test_a_head_that_is_too_large(layers):
    layers.each(431, "HEADERS_TOO_LARGE", lambda method, path, token: ask(method, path, token, X="x" * 40000))


def test_what_is_no_http(layers):
    layers.each(400, "VALIDATION_ERROR", lambda method, path, token: ask(method, path, token)[:-2] + b"no colon\r\n\r\n")


def test_no_upgrade(layers):
    layers.each(426, "UPGRADE_REQUIRED", ask, only=SOCKETS)


# --- a server with narrow limits, that then stops, and then has no room on its disk ---

@pytest.fixture(scope="module")
def narrow(postgres):
    with harness.serving({"OZ_TENANT_REQUESTS_PER_MINUTE": "1", "OZ_MAX_SESSIONS_PER_ORG": "1", "OZ_WS_MAX_CONNECTIONS": "1",
                          "OZ_SHUTDOWN_GRACE_MS": "5000"}, postgres=postgres, name="narrow") as server:
        yield server


@pytest.fixture(scope="module")
def narrow_world(narrow):
    made = World(narrow)
    yield made
    made.close()


def test_too_many_requests(document, narrow, narrow_world):
    boss = narrow_world.boss.client.token
    data(narrow_world.boss("GET", "/orgs/me"))
    Layers(document, narrow, boss, None).each(
        429, "RATE_LIMITED", lambda method, path, token: ask(method, path, token, **(UPGRADE if path.endswith("/ws") else {})),
        but=(*WITH_A_PASS, "runnerLink"))


def test_one_session_too_many(document, narrow_world):
    for operation in ("createSession", "forkSession"):
        assert (429, "SESSION_LIMIT_EXCEEDED") in codes_of(document[operation][2])
        provoked[operation].add((429, "SESSION_LIMIT_EXCEEDED"))
    org = "limit-" + new_id()
    kept = narrow_world.keep(narrow_world.admin, orgId=org)
    refused(narrow_world.admin.post(orgId=org), 429, "SESSION_LIMIT_EXCEEDED")
    refused(narrow_world.admin("POST", f"/sessions/{kept}/fork", json={}), 429, "SESSION_LIMIT_EXCEEDED")


def test_one_connection_too_many(document, narrow, narrow_world):
    assert (503, "UNAVAILABLE") in codes_of(document["clientSocket"][2])
    with Viewer(narrow, narrow.admin_key) as first:
        first.expect("event", event="authenticated")
        refused(upgrade(narrow, "/api/v1/ws", narrow.admin_key), 503, "UNAVAILABLE")
    provoked["clientSocket"].add((503, "UNAVAILABLE"))


def test_a_server_that_stops_and_one_without_room(document, narrow, narrow_world):
    a_pass = narrow_world.enrolment("passes")
    layers = Layers(document, narrow, narrow.admin_key, a_pass)
    wrong, opened = [], {}
    with contextlib.ExitStack() as closing:
        for operation in document:
            method, path, token = layers.of(operation)
            raw = ask(method, path, token, **(UPGRADE if operation in SOCKETS else {}))
            sock = closing.enter_context(socket.create_connection(("127.0.0.1", narrow.port), 20))
            sock.sendall(raw[:-2])
            opened[operation] = sock
        data(narrow_world.admin("GET", "/orgs/me"))  # what was sent before has been seen
        stopping = threading.Thread(target=narrow.stop)
        stopping.start()
        narrow.wait_log("shutdown.start")
        for operation, sock in opened.items():
            sock.sendall(b"\r\n")
            try:
                refused(answer_on(sock), 503, "SHUTTING_DOWN")
                provoked[operation].add((503, "SHUTTING_DOWN"))
            except (AssertionError, OSError) as e:
                wrong.append(f"{operation}: {e!r}")
    stopping.join(30)
    assert not wrong, "\n".join(wrong)
    narrow.extra["OZ_DISK_MIN_FREE_MB"] = "1073741824"
    narrow.start()
    writes = [o for o in document if o not in SOCKETS and (503, "UNAVAILABLE") in codes_of(document[o][2])]
    assert {"createSession", "registerRunner", "addPrompt"} <= set(writes)
    layers.each(503, "UNAVAILABLE", ask, only=writes)
    common.discard("UNAVAILABLE")


def test_a_bug_or_a_broken_database_is_an_internal_error_and_says_nothing_else(document, make_server):
    server = make_server()
    with server.client("someone") as client:
        village = Village(client)
        village.list()
        break_database(server)
        for response in (village("GET", f"/sessions/{NO_SESSION}"), village("GET", "/sessions"), village.post()):
            error = refused(response, 500, "INTERNAL_ERROR")
            assert error["message"] == "Internal error" and "details" not in error
    common.discard("INTERNAL_ERROR")


def test_a_request_that_does_not_come_to_its_end(document, stalled):
    wrong = []
    for operation, sock in stalled.items():
        try:
            refused(answer_on(sock), 408, "TIMEOUT")
            provoked[operation].add((408, "TIMEOUT"))
        except (AssertionError, OSError) as e:
            wrong.append(f"{operation}: {e!r}")
    assert not wrong, "\n".join(wrong)


def test_nothing_that_the_document_names_was_left_out(document):
    """The last of this file: a new operation, or a new code of one, needs a row above."""
    missing = {o: sorted(codes_of(x[2]) - provoked[o]) for o, x in document.items() if codes_of(x[2]) - provoked[o]}
    assert not missing, "\n".join(f"{o}: {codes}" for o, codes in missing.items())
    assert not common
    looked_at = {row.operation for row in error_table.ROWS if row.code == "VALIDATION_ERROR"}
    assert not {o for o, (_, _, x) in document.items() if takes_something(x)} - looked_at, "nothing invalid was sent to these"


def takes_something(operation):
    """Whether a request of it can be wrong in itself: not of the socket's ticket, a text like another."""
    queries = [p for p in operation["parameters"] if p["in"] == "query"]
    return "requestBody" in operation or (queries and operation["operationId"] != "runnerLink")
