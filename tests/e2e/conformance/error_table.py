"""Every error that an operation of its own can answer: operation, what is done, status, code, and for VALIDATION_ERROR the
field with its issue. What the layers before a handler answer to any operation (no bearer, another host, a role that is too
low, …) is in test_errors.py. `w` is a World: the callers and sessions that a row needs."""
from typing import Callable, NamedTuple

from harness import ok
from village import REPO, data
from world import CAPS, NO_APPROVAL, NO_PROMPT, NO_RUNNER, NO_SESSION, Viewer, new_id, upgrade

SESSION = "/sessions/"
ASK = {"action": "merge", "description": "d"}
BEAT = {"timestamp": "2026-01-31T12:00:00Z", "activeSessions": [], "load": {}}


class Row(NamedTuple):
    operation: str
    how: str
    do: Callable
    status: int
    code: str
    field: str = None


def body_of(operation):
    return {"requestApproval": ASK, "resolveApproval": {"decision": "allow"}, "addPrompt": {"prompt": "p"},
            "changePrompt": {"prompt": "p"}, "sendInput": {"data": "x"}, "resizeTerminal": {"cols": 80, "rows": 24},
            "openTerminal": {}, "forkSession": {}, "createApprovalLink": {}}.get(operation)


# operation of one session: method, path behind the session's
OF_SESSION = {
    "getSession": ("GET", ""), "stopSession": ("POST", "/stop"), "pauseSession": ("POST", "/pause"),
    "resumeSession": ("POST", "/resume"), "endSession": ("POST", "/end"), "interruptSession": ("POST", "/interrupt"),
    "sendInput": ("POST", "/input"), "resizeTerminal": ("POST", "/resize"), "openTerminal": ("POST", "/terminals"),
    "closeTerminal": ("DELETE", "/terminals/1"), "getSessionEvents": ("GET", "/events"),
    "streamSessionEvents": ("GET", "/events/stream"), "getTerminal": ("GET", "/terminal"), "getDiff": ("GET", "/diff"),
    "getArtifacts": ("GET", "/artifacts"), "listSessionApprovals": ("GET", "/approvals"),
    "requestApproval": ("POST", "/approvals"), "resolveApproval": ("POST", f"/approvals/{NO_APPROVAL}"),
    "listPrompts": ("GET", "/prompts"), "addPrompt": ("POST", "/prompts"),
    "createApprovalLink": ("POST", f"/approvals/{NO_APPROVAL}/links"), "listCheckpoints": ("GET", "/checkpoints"),
    "forkSession": ("POST", "/fork"), "changePrompt": ("PATCH", f"/prompts/{NO_PROMPT}"), "withdrawPrompt": ("DELETE", f"/prompts/{NO_PROMPT}"),
}
OF_RUNNER = {"getRunner": ("GET", ""), "listRunnerEvents": ("GET", "/events"), "drainRunner": ("POST", "/drain"),
             "undrainRunner": ("POST", "/undrain"), "deregisterRunner": ("DELETE", "")}


def call(operation, session, **more):
    """That operation on a session: the name of one of the World's, or an id."""
    method, path = OF_SESSION[operation]
    if body_of(operation) is not None:
        more.setdefault("json", body_of(operation))

    def do(w):
        return w.v(method, f"/sessions/{getattr(w, session, session)}{path}", **more)
    return do


def post(path, body=None, who="v", **more):
    return lambda w: getattr(w, who)("POST", path(w) if callable(path) else path, json=body, **more)


def get(path, who="v", **query):
    return lambda w: getattr(w, who)("GET", path(w) if callable(path) else path, params=query)


def on_runner(operation, runner, who="boss", **more):
    method, path = OF_RUNNER[operation]
    if method == "POST":
        more.setdefault("json", {})
    return lambda w: getattr(w, who)(method, f"/runners/{runner(w) if callable(runner) else runner}{path}", **more)


def of_the_deleted(w):
    key = new_id()
    session = data(w.v.post(headers={"Idempotency-Key": key}), 201)["sessionId"]
    data(w.v.stop(session))
    assert w.v("DELETE", f"/agent/runs/{session.replace('ses_', 'run_')}").status_code == 200
    return w.v.post(headers={"Idempotency-Key": key})


def another_body(w):
    key = new_id()
    data(w.v.post(headers={"Idempotency-Key": key}), 201)
    return w.v.post(headers={"Idempotency-Key": key}, task="Something else")


def one_too_many_runners(w):
    token = w.caller(w.enrolment("many-" + new_id(), uses=10))
    answers = [token("POST", "/runners", json={"hostname": f"h{i}", **CAPS}) for i in range(3)]
    assert [a.status_code for a in answers[:2]] == [201, 201]
    return answers[2]


def used_up(w):
    token = w.caller(w.enrolment("once-" + new_id(), uses=1))
    data(token("POST", "/runners", json={"hostname": "one", **CAPS}), 201)
    return token("POST", "/runners", json={"hostname": "two", **CAPS})


def fifty_first_prompt(w):
    session = w.waiting(task=None)
    for i in range(50):
        data(w.v("POST", f"/sessions/{session}/prompts", json={"prompt": str(i)}), 201)
    return w.v("POST", f"/sessions/{session}/prompts", json={"prompt": "too many"})


def beat(w, runner=None, **more):
    own, caller = w.runner
    return caller("POST", f"/runners/{runner or own}/heartbeat", json={"runnerId": own, **BEAT, **more})


def connected_twice(w):
    w.running
    return upgrade(w.server, f"/api/v1/runners/{w.busy}/link?proto=2&instance={NO_PROMPT}", w.server.admin_key)


def hundred_and_first_ticket(w):
    for _ in range(100):
        data(w.stranger("POST", "/ws-tickets"), 201)
    return w.stranger("POST", "/ws-tickets")


def another_fork(w):
    key = {"Idempotency-Key": new_id()}
    data(w.on(w.kept, "POST", "/fork", json={}, headers=key), 201)
    return w.on(w.kept, "POST", "/fork", json={"title": "another"}, headers=key)


def fork_of_a_run(w):
    run = ok(w.v("POST", "/agent/run", json={"prompt": "p", "config": {"environment_id": "alpine:3", "worker_host": "nobody"}}))["run_id"]
    return w.on("ses_" + run.removeprefix("run_"), "POST", "/fork", json={})


def one_link_too_many(w):
    session, runner = w.start()
    links = f"/approvals/{runner.ask()}/links"
    runner.stored()
    for _ in range(20):
        data(w.on(session, "POST", links, json={}), 201)
    return w.on(session, "POST", links, json={})


def prompt(method, of):
    body = {"json": {"prompt": "other"}} if method == "PATCH" else {}
    return lambda w: w.v(method, f"/sessions/{w.queued}/prompts/{getattr(w, of, of)}", **body)


def invalid(operation, do, *fields):
    """One row for each (query or body, field, issue)."""
    return [Row(operation, f"{field} {issue}", do(given), 400, "VALIDATION_ERROR", f"{field}:{issue}")
            for given, field, issue in fields]


def create_with(given):
    return lambda w: w.v.post(**given)


def body_to(operation, session="queued"):
    return lambda given: call(operation, session, json=given)


def query_to(operation, session="queued"):
    return lambda given: call(operation, session, params=given)


ROWS = [
    # --- sessions (4.2, 4.4) ---
    *invalid("createSession", create_with,
             ({"orgId": "a b"}, "orgId", "invalid_format"), ({"orgId": None, "providerId": None}, "providerId", "required"),
             ({"repo": None}, "repo", "required"), ({"repo": {}}, "repo.url", "required"),
             ({"repo": {"url": "file:///etc"}}, "repo.url", "invalid_url"),
             ({"repo": {**REPO, "branch": "-x"}}, "repo.branch", "invalid_format"),
             ({"repo": {**REPO, "commit": "12"}}, "repo.commit", "too_small"),
             ({"repo": {**REPO, "tag": "v1"}}, "repo.tag", "invalid_format"),
             ({"task": "x" * 100001}, "task", "too_big"), ({"taskSpec": {"title": "t", "goal": "g"}}, "taskSpec", "invalid_format"),
             ({"options": {"timeoutMinutes": 0}}, "options.timeoutMinutes", "too_small"),
             ({"options": {"timeoutMinutes": 121}}, "options.timeoutMinutes", "too_big"),
             ({"options": {"env": {"PATH": "/"}}}, "options.env.PATH", "reserved"),
             ({"options": {"env": {"1A": ""}}}, "options.env.1A", "invalid_format"),
             ({"options": {"env": {f"A{i}": "" for i in range(65)}}}, "options.env", "too_big"),
             ({"options": {"features": ["x"] * 17}}, "options.features", "too_big"),
             ({"options": {"mode": "both"}}, "options.mode", "invalid_enum"),
             ({"options": {"cols": 19}}, "options.cols", "too_small"), ({"options": {"rows": 201}}, "options.rows", "too_big"),
             ({"options": {"environmentId": "none"}}, "options.environmentId", "invalid_format"),
             ({"options": {"other": 1}}, "options.other", "unrecognized_key"),
             ({"metadata": {"k": "v" * 1025}}, "metadata.k", "too_big"),
             ({"metadata": {f"k{i}": "" for i in range(33)}}, "metadata", "too_big"), ({"other": 1}, "other", "unrecognized_key")),
    Row("createSession", "a key that is no text", lambda w: w.v.post(headers={"Idempotency-Key": "x" * 256}), 400,
        "VALIDATION_ERROR", "Idempotency-Key:invalid_format"),
    Row("createSession", "a provider that there is not", lambda w: w.v.post(providerId="nobody"), 400, "INVALID_PROVIDER"),
    Row("createSession", "omnara while nobody offers it", lambda w: w.v.post(providerId="omnara"), 400, "INVALID_PROVIDER"),
    Row("createSession", "another org", lambda w: w.v.post(orgId="someone-else"), 403, "FORBIDDEN"),
    Row("createSession", "permissions skipped", lambda w: w.v.post(options={"dangerouslySkipPermissions": True}), 403, "FORBIDDEN"),
    Row("createSession", "a runner's id that there is not", lambda w: w.v.post(options={"runnerId": NO_RUNNER}), 404,
        "RUNNER_NOT_FOUND"),
    Row("createSession", "the key of a session that was deleted", of_the_deleted, 404, "SESSION_NOT_FOUND"),
    Row("createSession", "a key with another body", another_body, 409, "IDEMPOTENCY_CONFLICT"),
    *invalid("listSessions", lambda given: get("/sessions", **given),
             ({"page": 0}, "page", "too_small"), ({"pageSize": 101}, "pageSize", "too_big"), ({"page": "x"}, "page", "invalid_type"),
             ({"cursor": "x"}, "cursor", "invalid_format"), ({"state": "DONE"}, "state", "invalid_enum"),
             ({"createdAfter": "yesterday"}, "createdAfter", "invalid_format"), ({"providerId": "nobody"}, "providerId", "invalid_enum")),
    Row("listSessions", "another org", get("/sessions", orgId="someone-else"), 403, "FORBIDDEN"),
    *[Row(operation, how, call(operation, session), 404, "SESSION_NOT_FOUND") for operation in OF_SESSION
      for how, session in (("none", NO_SESSION), ("another org's", "foreign"), ("no id of one", "ses_x"))],
    *invalid("stopSession", body_to("stopSession"), ({"reason": "x" * 1001}, "reason", "too_big"),
             ({"graceful": 1}, "graceful", "invalid_type"), ({"now": True}, "now", "unrecognized_key")),
    *invalid("stopSession", query_to("stopSession"), ({"wait": 36}, "wait", "too_big")),
    Row("stopSession", "it has ended", call("stopSession", "ended"), 409, "SESSION_ALREADY_STOPPED"),
    *[Row(operation, f"it is {session}", call(operation, session), 409, "INVALID_STATE") for session in ("queued", "ended")
      for operation in ("pauseSession", "resumeSession", "endSession", "interruptSession", "sendInput", "resizeTerminal",
                        "openTerminal", "closeTerminal", "requestApproval")],
    Row("resumeSession", "it runs", call("resumeSession", "running"), 409, "INVALID_STATE"),
    *[Row(operation, "its worker is away", call(operation, "away"), 503, "RUNNER_UNREACHABLE")
      for operation in ("pauseSession", "endSession", "interruptSession", "sendInput", "resizeTerminal", "openTerminal",
                        "closeTerminal")],
    Row("resumeSession", "its worker is away", call("resumeSession", "away_paused"), 503, "RUNNER_UNREACHABLE"),
    *[row for operation in ("pauseSession", "resumeSession", "endSession", "interruptSession")
      for row in invalid(operation, body_to(operation), ({"x": 1}, "x", "unrecognized_key"))],
    *invalid("interruptSession", body_to("interruptSession"), ({"promptId": "x y"}, "promptId", "invalid_format"),
             ({"promptId": "x"}, "promptId", "invalid_format")),
    *invalid("sendInput", body_to("sendInput"), ({}, "data", "required"), ({"data": "x" * 65537}, "data", "too_big"),
             ({"data": "ü" * 40000}, "data", "too_big"), ({"data": "x", "mode": "block"}, "mode", "invalid_enum"),
             ({"data": "x", "terminal": 8}, "terminal", "too_big")),
    *invalid("resizeTerminal", body_to("resizeTerminal"), ({"rows": 24}, "cols", "required"), ({"cols": 80}, "rows", "required"),
             ({"cols": 19, "rows": 24}, "cols", "too_small"), ({"cols": 501, "rows": 24}, "cols", "too_big"),
             ({"cols": 80, "rows": 4}, "rows", "too_small"), ({"cols": 80, "rows": 201}, "rows", "too_big")),
    *invalid("openTerminal", body_to("openTerminal"), ({"cols": 19}, "cols", "too_small"), ({"rows": 201}, "rows", "too_big"),
             ({"command": "x" * 4097}, "command", "too_big")),
    *[Row("closeTerminal", f"terminal {n}", lambda w, n=n: w.on(w.running, "DELETE", f"/terminals/{n}"), 404, "NOT_FOUND")
      for n in ("0", "8", "-1", "x")],
    # --- what a session leaves ---
    *invalid("getSessionEvents", query_to("getSessionEvents"), ({"limit": 0}, "limit", "too_small"),
             ({"limit": 1001}, "limit", "too_big"), ({"afterSeq": -1}, "afterSeq", "too_small"),
             ({"types": "NO_SUCH_TYPE"}, "types", "invalid_enum")),
    *invalid("streamSessionEvents", query_to("streamSessionEvents"), ({"afterSeq": "x"}, "afterSeq", "invalid_type"),
             ({"types": "NO_SUCH_TYPE"}, "types", "invalid_enum")),
    Row("streamSessionEvents", "a number that is none", lambda w: w.on(w.queued, "GET", "/events/stream",
        headers={"Last-Event-ID": "x"}), 400, "VALIDATION_ERROR", "Last-Event-ID:invalid_format"),
    *invalid("getTerminal", query_to("getTerminal"), ({"from": -1}, "from", "too_small"), ({"limit": 1048577}, "limit", "too_big"),
             ({"terminal": 8}, "terminal", "too_big")),
    *invalid("getDiff", query_to("getDiff"), ({"patch": "maybe"}, "patch", "invalid_type")),
    # --- approvals (5.3, 5.4) ---
    *invalid("listApprovals", lambda given: get("/approvals", **given), ({"status": "open"}, "status", "invalid_enum"),
             ({"pageSize": 0}, "pageSize", "too_small"), ({"cursor": "x"}, "cursor", "invalid_format")),
    Row("listApprovals", "another org", get("/approvals", orgId="someone-else"), 403, "FORBIDDEN"),
    *invalid("listSessionApprovals", query_to("listSessionApprovals"), ({"status": "open"}, "status", "invalid_enum"),
             ({"cursor": "x"}, "cursor", "invalid_format")),
    *invalid("requestApproval", body_to("requestApproval"), ({"description": "d"}, "action", "required"),
             ({"action": "dance", "description": "d"}, "action", "invalid_enum"), ({"action": "merge"}, "description", "required"),
             ({"action": "merge", "description": "x" * 2001}, "description", "too_big"),
             ({**ASK, "context": {"x": "y" * 16384}}, "context", "too_big"), ({**ASK, "risk": "none"}, "risk", "invalid_enum")),
    *invalid("resolveApproval", body_to("resolveApproval"), ({}, "decision", "required"),
             ({"decision": "maybe"}, "decision", "invalid_enum"), ({"decision": "allow", "reason": "x" * 2001}, "reason", "too_big"),
             ({"decision": "allow", "scope": "ever"}, "scope", "invalid_enum"),
             ({"decision": "allow", "approvalId": "apr_1"}, "approvalId", "invalid_format")),
    Row("resolveApproval", "none", call("resolveApproval", "queued"), 404, "APPROVAL_NOT_FOUND"),
    Row("resolveApproval", "another session's", lambda w: w.on(w.queued, "POST", f"/approvals/{w.approval[1]}",
        json={"decision": "allow"}), 404, "APPROVAL_NOT_FOUND"),
    Row("resolveApproval", "it is allowed", lambda w: w.on(w.decided[0], "POST", f"/approvals/{w.decided[1]}",
        json={"decision": "deny"}), 409, "APPROVAL_ALREADY_RESOLVED"),
    *invalid("createApprovalLink", body_to("createApprovalLink"), ({"label": " "}, "label", "too_small"),
             ({"label": "x" * 65}, "label", "too_big"), ({"decisions": []}, "decisions", "too_small"),
             ({"decisions": ["perhaps"]}, "decisions[0]", "invalid_enum"), ({"expiresInSeconds": 0}, "expiresInSeconds", "too_small"),
             ({"expiresInSeconds": 86401}, "expiresInSeconds", "too_big"), ({"other": 1}, "other", "unrecognized_key")),
    Row("createApprovalLink", "none", call("createApprovalLink", "queued"), 404, "APPROVAL_NOT_FOUND"),
    Row("createApprovalLink", "it is allowed", lambda w: w.on(w.decided[0], "POST", f"/approvals/{w.decided[1]}/links", json={}), 409,
        "APPROVAL_ALREADY_RESOLVED"),
    Row("createApprovalLink", "there are 20", one_link_too_many, 409, "INVALID_STATE"),
    # --- checkpoints (ours) ---
    *invalid("listCheckpoints", query_to("listCheckpoints"), ({"beforeNumber": 0}, "beforeNumber", "too_small"),
             ({"beforeNumber": "x"}, "beforeNumber", "invalid_type")),
    *invalid("forkSession", body_to("forkSession"), ({"checkpoint": 0}, "checkpoint", "invalid_format"),
             ({"checkpoint": "x"}, "checkpoint", "invalid_format"), ({"title": " "}, "title", "too_small"),
             ({"prompt": "x" * 100001}, "prompt", "too_big"), ({"mode": "batch"}, "mode", "invalid_enum"),
             ({"mode": "task"}, "prompt", "required"), ({"other": 1}, "other", "unrecognized_key")),
    Row("forkSession", "it has none", call("forkSession", "queued"), 404, "CHECKPOINT_NOT_FOUND"),
    Row("forkSession", "no such number", call("forkSession", "kept", json={"checkpoint": 9}), 404, "CHECKPOINT_NOT_FOUND"),
    Row("forkSession", "a key with another body", another_fork, 409, "IDEMPOTENCY_CONFLICT"),
    Row("forkSession", "a run of the Oz API", fork_of_a_run, 409, "INVALID_STATE"),
    # --- prompts ---
    *invalid("addPrompt", body_to("addPrompt"), ({}, "prompt", "required"), ({"prompt": " "}, "prompt", "required"),
             ({"prompt": "x" * 100001}, "prompt", "too_big"), ({"prompt": "p", "first": 1}, "first", "invalid_type")),
    *invalid("changePrompt", body_to("changePrompt"), ({}, "prompt", "required"), ({"prompt": 1}, "prompt", "invalid_type")),
    *invalid("listPrompts", query_to("listPrompts"), ({"fromPosition": "x"}, "fromPosition", "invalid_type")),
    Row("addPrompt", "it has ended", call("addPrompt", "ended"), 409, "INVALID_STATE"),
    Row("addPrompt", "50 wait", fifty_first_prompt, 429, "PROMPT_LIMIT_EXCEEDED"),
    *[Row(operation, how, prompt(method, of), status, code)
      for operation, method in (("changePrompt", "PATCH"), ("withdrawPrompt", "DELETE"))
      for how, of, status, code in (("none", NO_PROMPT, 404, "PROMPT_NOT_FOUND"), ("no id", "x", 404, "PROMPT_NOT_FOUND"),
                                    ("it is withdrawn", "withdrawn", 409, "INVALID_STATE"))],
    # --- runners (6.3) ---
    *invalid("createRunnerEnrolment", lambda given: post("/runner-enrolments", given, "boss"), ({"uses": 0}, "uses", "too_small"),
             ({"expiresInSeconds": 59}, "expiresInSeconds", "too_small"), ({"name": "x" * 201}, "name", "too_big"),
             ({"orgId": "a b"}, "orgId", "invalid_format"), ({"other": 1}, "other", "unrecognized_key")),
    Row("createRunnerEnrolment", "another org", post("/runner-enrolments", {"orgId": "someone-else"}, "boss"), 403, "FORBIDDEN"),
    Row("createRunnerEnrolment", "for everybody", post("/runner-enrolments", {"shared": True}, "boss"), 403, "FORBIDDEN"),
    *invalid("listRunnerEnrolments", lambda given: get("/runner-enrolments", "boss", **given), ({"all": "yes"}, "all", "invalid_enum"),
             ({"orgId": ""}, "orgId", "too_small")),
    Row("listRunnerEnrolments", "another org", get("/runner-enrolments", "boss", orgId="someone-else"), 403, "FORBIDDEN"),
    *[Row("revokeRunnerEnrolment", how, lambda w, of=of: w.boss("DELETE", f"/runner-enrolments/{of}"), 404, "ENROLMENT_NOT_FOUND")
      for how, of in (("none", "enr_00000000-0000-7000-8000-000000000000"), ("no id of one", "x"))],
    *invalid("registerRunner", lambda given: post("/runners", given, "enroller"), (CAPS, "hostname", "required"),
             ({"hostname": "a b", **CAPS}, "hostname", "invalid_format"), ({"hostname": "h"}, "capabilities", "required"),
             ({"hostname": "h", "protocolVersion": 2, "capabilities": {"providers": []}}, "capabilities.providers", "too_small"),
             ({"hostname": "h", "protocolVersion": 2, "capabilities": {"providers": ["x"]}}, "capabilities.providers[0]",
              "invalid_enum"),
             ({"hostname": "h", "protocolVersion": 2, "capabilities": {"providers": ["codex"], "maxConcurrentSessions": 257}},
              "capabilities.maxConcurrentSessions", "too_big"),
             ({"hostname": "h", "capabilities": {"providers": ["codex"]}}, "protocolVersion", "required")),
    Row("registerRunner", "the token is used up", used_up, 401, "UNAUTHORIZED"),
    Row("registerRunner", "a credential and another hostname",
        lambda w: w.runner[1]("POST", "/runners", json={"hostname": "another", **CAPS}), 409, "RUNNER_CONFLICT"),
    Row("registerRunner", "the org has all it may have", one_too_many_runners, 429, "RUNNER_LIMIT_EXCEEDED"),
    *invalid("runnerHeartbeat", lambda given: lambda w: beat(w, **given), ({"timestamp": "now"}, "timestamp", "invalid_format"),
             ({"load": {"cpuPercent": 101}}, "load.cpuPercent", "too_big"), ({"load": None}, "load", "required"),
             ({"activeSessions": ["x"] * 257}, "activeSessions", "too_big"),
             ({"runtimeVersions": {"codex": ""}}, "runtimeVersions.codex", "too_small")),
    Row("runnerHeartbeat", "no id of one", lambda w: beat(w, "rnr_x"), 404, "RUNNER_NOT_FOUND"),
    Row("runnerHeartbeat", "another runner", lambda w: beat(w, NO_RUNNER), 403, "FORBIDDEN"),
    *invalid("listRunners", lambda given: get("/runners", **given), ({"status": "away"}, "status", "invalid_enum"),
             ({"pageSize": 101}, "pageSize", "too_big"), ({"feature": "UPPER"}, "feature", "invalid_format"),
             ({"cursor": "x"}, "cursor", "invalid_format")),
    Row("listRunners", "another org", get("/runners", orgId="someone-else"), 403, "FORBIDDEN"),
    *invalid("listRunnerEvents", lambda given: get(lambda w: f"/runners/{w.runner[0]}/events", "admin", **given),
             ({"limit": 0}, "limit", "too_small"), ({"afterSeq": "x"}, "afterSeq", "invalid_type")),
    *invalid("drainRunner", lambda given: on_runner("drainRunner", NO_RUNNER, json=given), ({"reason": "x" * 501}, "reason", "too_big"),
             ({"timeoutMinutes": 10081}, "timeoutMinutes", "too_big")),
    *invalid("deregisterRunner", lambda given: on_runner("deregisterRunner", NO_RUNNER, params=given),
             ({"force": "yes"}, "force", "invalid_enum")),
    *[Row(operation, how, on_runner(operation, of), 404, "RUNNER_NOT_FOUND") for operation in OF_RUNNER
      for how, of in (("none", NO_RUNNER), ("another org's", lambda w: w.runner[0]), ("no id of one", "x"))],
    Row("undrainRunner", "it does not drain", on_runner("undrainRunner", lambda w: w.runner[0], "admin"), 409, "INVALID_STATE"),
    Row("deregisterRunner", "it holds a session", on_runner("deregisterRunner", lambda w: w.busy, "admin"), 409,
        "RUNNER_HAS_ACTIVE_SESSIONS"),
    *[Row("runnerLink", how, lambda w, of=of: upgrade(w.server, f"/api/v1/runners/{of}/link", w.server.admin_key), 404,
          "RUNNER_NOT_FOUND") for how, of in (("none", NO_RUNNER), ("no id of one", "x"))],
    Row("runnerLink", "one is connected", connected_twice, 429, "WORKER_CONNECTED"),
    # --- the client socket (8.2) ---
    *[Row("clientSocket", f"{name} in the query", lambda w, name=name: upgrade(w.server, f"/api/v1/ws?{name}=x", "t"), 400,
          "VALIDATION_ERROR", f"{name}:invalid_format") for name in ("token", "access_token")],
    *[Row("clientSocket", how, lambda w, path=path, token=token: upgrade(w.server, "/api/v1/ws" + path, token), 401, "UNAUTHORIZED")
      for how, path, token in (("a key that there is not", "", "sk_" + "0" * 64), ("a ticket that there is not", "?ticket=t", ""))],
    Row("clientSocket", "a runner's credential", lambda w: upgrade(w.server, "/api/v1/ws", w.runner[1].client.token), 403, "FORBIDDEN"),
    Row("createWsTicket", "100 are unused", hundred_and_first_ticket, 429, "RATE_LIMITED"),
]
__all__ = ["ROWS", "Viewer"]
