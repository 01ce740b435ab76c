"""Every operation's success: its documented status, the envelope, and data as openapi.json describes it (15.1)."""
import json
import threading

import jsonschema_rs
import pytest
from village import assert_envelope, data
from world import CAPS, new_id

HEARTBEAT = {"timestamp": "2026-01-31T12:00:00Z", "activeSessions": [], "load": {"cpuPercent": 1}}


def answered(w, kind, answer, call):
    """A call that the runner answers."""
    session, runner = w.live
    done = []
    thread = threading.Thread(target=lambda: done.append(call(session)))
    thread.start()
    request = runner.told(kind)
    runner.report(**answer, requestId=request["requestId"])
    thread.join(20)
    return done[0]


def told(w, call):
    session, runner = w.live
    return w.told(runner.worker, session, call, whole=True)


def fresh_runner(w):
    return w.registered("success-" + new_id())


def registered(w):
    return w.caller(w.enrolment("success-" + new_id()))("POST", "/runners", json={"hostname": "h", **CAPS})


def beat(w):
    runner, own = fresh_runner(w)
    return own("POST", f"/runners/{runner}/heartbeat", json={"runnerId": runner, **HEARTBEAT})


def undrained(w):
    runner, _ = fresh_runner(w)
    w.admin("POST", f"/runners/{runner}/drain", json={})
    return w.admin("POST", f"/runners/{runner}/undrain")


def linked(w):
    session, runner = w.start()
    gate = runner.ask()
    runner.stored()
    return w.v("POST", f"/sessions/{session}/approvals/{gate}/links", json={})


def of(session, method, path="", **more):
    return lambda w: w.v(method, f"/sessions/{getattr(w, session)}{path}", **more)


CALLS = {
    "createSession": lambda w: w.v.post(),
    "listSessions": lambda w: w.v("GET", "/sessions"),
    "getSession": of("running", "GET"),
    "stopSession": lambda w: w.v.stop(w.waiting()),
    "pauseSession": lambda w: told(w, "pause"),
    "resumeSession": lambda w: told(w, "resume"),
    "endSession": lambda w: w.v("POST", f"/sessions/{w.start()[0]}/end"),
    "interruptSession": of("running", "POST", "/interrupt", json={}),
    "sendInput": of("running", "POST", "/input", json={"data": "x"}),
    "resizeTerminal": of("running", "POST", "/resize", json={"cols": 80, "rows": 24}),
    "openTerminal": lambda w: answered(w, "terminal-open", {"what": "terminal", "terminal": 1, "ok": True}, lambda session:
                                       w.v("POST", f"/sessions/{session}/terminals", json={})),
    "closeTerminal": of("running", "DELETE", "/terminals/1"),
    "getSessionEvents": of("running", "GET", "/events"),
    "getDiff": lambda w: answered(w, "diff", {"what": "diff", "files": [{"path": "f", "status": "M", "additions": 1, "deletions": 2}]},
                                  lambda session: w.v("GET", f"/sessions/{session}/diff")),
    "getArtifacts": of("running", "GET", "/artifacts"),
    "listApprovals": lambda w: w.decided and w.v("GET", "/approvals"),
    "listSessionApprovals": lambda w: w.v("GET", f"/sessions/{w.decided[0]}/approvals"),
    "requestApproval": of("running", "POST", "/approvals", json={"action": "merge", "description": "d"}),
    "resolveApproval": lambda w: w.v("POST", f"/sessions/{w.approval[0]}/approvals/{w.approval[1]}", json={"decision": "allow"}),
    "addPrompt": of("queued", "POST", "/prompts", json={"prompt": "p"}),
    "listPrompts": lambda w: w.prompt and w.v("GET", f"/sessions/{w.queued}/prompts"),
    "changePrompt": lambda w: w.v("PATCH", f"/sessions/{w.queued}/prompts/{w.prompt}", json={"prompt": "q"}),
    "withdrawPrompt": lambda w: w.v("DELETE", f"/sessions/{w.queued}/prompts/{w.prompt}"),
    "createApprovalLink": linked,
    "listCheckpoints": of("kept", "GET", "/checkpoints"),
    "forkSession": of("kept", "POST", "/fork", json={}),
    "getOwnOrg": lambda w: w.v("GET", "/orgs/me"),
    "createRunnerEnrolment": lambda w: w.boss("POST", "/runner-enrolments", json={}),
    "listRunnerEnrolments": lambda w: w.boss("POST", "/runner-enrolments", json={}) and w.boss("GET", "/runner-enrolments"),
    "revokeRunnerEnrolment": lambda w: w.boss("DELETE", "/runner-enrolments/" +
                                              data(w.boss("POST", "/runner-enrolments", json={}), 201)["enrolmentId"]),
    "registerRunner": registered,
    "runnerHeartbeat": beat,
    "listRunners": lambda w: w.runner and w.admin("GET", "/runners"),
    "getRunnerCapacity": lambda w: w.admin("GET", "/runners/capacity"),
    "getRunner": lambda w: w.admin("GET", f"/runners/{w.runner[0]}"),
    "listRunnerEvents": lambda w: w.admin("GET", f"/runners/{w.runner[0]}/events"),
    "drainRunner": lambda w: w.admin("POST", f"/runners/{fresh_runner(w)[0]}/drain", json={}),
    "undrainRunner": undrained,
    "deregisterRunner": lambda w: w.admin("DELETE", f"/runners/{fresh_runner(w)[0]}"),
    "createWsTicket": lambda w: w.v("POST", "/ws-tickets"),
}
NOT_IN_AN_ENVELOPE = {"streamSessionEvents", "getTerminal", "clientSocket", "runnerLink"}  # in tests/e2e/sessions, live, fleet


@pytest.fixture(scope="module")
def document(shared):
    with shared.client(None) as client:
        return client.get("/openapi.json").json()


def operations(document):
    for item in document["paths"].values():
        for operation in item.values():
            if '#/components/schemas/EnvelopeError"' in json.dumps(operation):
                yield operation


def test_every_operation_is_here(document):
    assert {o["operationId"] for o in operations(document)} == set(CALLS) | NOT_IN_AN_ENVELOPE


@pytest.mark.parametrize("operation", CALLS)
def test_an_operation_succeeds(world, document, operation):
    response = CALLS[operation](world)
    said = next(o for o in operations(document) if o["operationId"] == operation)["responses"]
    assert str(response.status_code) in [s for s in said if s < "300"], response.text
    body = assert_envelope(response)
    schema = said[str(response.status_code)]["content"]["application/json"]["schema"]
    jsonschema_rs.Draft202012Validator({**schema, "components": document["components"]}).validate(body)
