"""Every field of every route x {missing, null, wrong type, too long, out of range}, generated from /openapi.json.

The document is generated from the table that also validates, so it is the oracle of what is accepted: what its schema
refuses must be a 400 that names the field; what it allows must not be a 500. That the schemas refuse enough is checked
on its own: a field that has no case that is refused fails, unless any value is meant to be allowed.
"""
import copy
import json
import urllib.parse

import harness
import httpx
import jsonschema_rs
import pytest
from harness import API, assert_error, new_run_id, ok
from village import assert_envelope

# Values that make a valid request where the type alone does not say enough.
SAMPLES = {"cron_schedule": "0 9 * * *", "docker_image": "debian:12", "mime_type": "image/png",
           "data": "iVBORw0KGgo=", "environment_id": "debian:12", "orgId": "me", "providerId": "codex",
           "url": "https://example.com/a/b", "commit": "abcdef0", "branch": "main", "tag": "v1", "hostname": "field-tests"}
WRONG = {"string": [5, True, [], {}], "integer": ["x", 1.5, True, [], {}], "number": ["x", True, []], "boolean": ["yes", 1, [], {}],
         "array": ["x", 5, {}], "object": ["x", 5, [], True]}


@pytest.fixture(scope="module")
def document(shared):
    with shared.client(None) as client:
        return ok(client.get("/openapi.json"))


def resolve(document, schema):
    while isinstance(schema, dict) and "$ref" in schema:
        node = document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            node = node[part.replace("~1", "/").replace("~0", "~")]
        schema = node
    return schema or {}


def types_of(document, schema):
    schema = resolve(document, schema)
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    for branch in schema.get("anyOf", []) + schema.get("oneOf", []):
        kinds += types_of(document, branch)
    if not kinds and "enum" in schema:
        kinds = ["string"]
    return kinds


def body_schema(document, operation):
    content = operation.get("requestBody", {}).get("content", {})
    return resolve(document, content.get("application/json", {}).get("schema", {})) if content else None


def sample(document, schema, name=""):
    schema = resolve(document, schema)
    if name in SAMPLES:
        return SAMPLES[name]
    if "enum" in schema:
        return schema["enum"][0]
    kinds = types_of(document, schema)
    for kind, value in (("string", "some text"), ("boolean", False), ("integer", max(1, int(schema.get("minimum", 1)))),
                        ("number", schema.get("minimum", 1)), ("array", []), ("object", {})):
        if kind in kinds:
            if kind == "string" and schema.get("format") == "date-time":
                return "2026-01-31T09:08:16.986Z"
            if kind == "array":
                return [sample(document, schema.get("items", {}))] * schema.get("minItems", 0)
            if kind == "object":
                return {k: sample(document, v, k) for k, v in schema.get("properties", {}).items()
                        if k in schema.get("required", [])}
            return value
    return "anything"


def fields(document, schema, path=()):
    """(path, schema, required) of every member, also inside objects, lists (index 0) and maps (key "k")."""
    schema = resolve(document, schema)
    for name, member in schema.get("properties", {}).items():
        member = resolve(document, member)
        yield path + (name,), member, name in schema.get("required", [])
        yield from fields(document, member, path + (name,))
        if "items" in member:
            yield path + (name, 0), resolve(document, member["items"]), False
            yield from fields(document, member["items"], path + (name, 0))
        extra = member.get("additionalProperties")
        if isinstance(extra, dict):
            yield path + (name, "k"), resolve(document, extra), False
            yield from fields(document, extra, path + (name, "k"))


def put(document, root_schema, body, path, value):
    """The body with `value` at `path`; what is missing on the way is filled with samples. DELETE removes."""
    body = copy.deepcopy(body)
    node, schema = body, resolve(document, root_schema)
    for i, part in enumerate(path):
        last = i == len(path) - 1
        if isinstance(part, int):
            child = resolve(document, schema.get("items", {}))
            if not node:
                node.append(sample(document, child))
            if last:
                node[:1] = [] if value is DELETE else [value]
                return body
            node, schema = node[0], child
            continue
        child = resolve(document, schema.get("properties", {}).get(part, schema.get("additionalProperties") or {}))
        if last:
            if value is DELETE:
                node.pop(part, None)
            else:
                node[part] = value
            return body
        following = path[i + 1]
        wanted = list if isinstance(following, int) else dict
        if not isinstance(node.get(part), wanted):
            made = sample(document, child, part)
            node[part] = made if isinstance(made, wanted) else wanted()
        node, schema = node[part], child
    return body


DELETE = object()


def is_village(path):
    return path.startswith((API + "/sessions", API + "/approvals", API + "/orgs", API + "/runners", API + "/runner-enrolments"))


def is_public(path):
    return path.startswith(API + "/approval-links/")


def is_sign_in(path):
    return path.startswith("/api/auth/")


def named_fields(path, response):
    """The fields that an error names, in its face's shape."""
    body = response.json()
    if not is_village(path):
        return [body["field"]] if body.get("field") else []
    return [i["path"] for i in body["error"].get("details", {}).get("issues", [])]


def values(document, schema, required):
    """(what, value) for one field."""
    kinds = types_of(document, schema)
    yield "missing", DELETE
    yield "null", None
    for value in (w for kind in kinds for w in WRONG.get(kind, [])):
        name = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}[type(value)]
        if name not in kinds and not (name == "integer" and "number" in kinds):
            yield f"wrong type {name}", value
    if "maxLength" in schema:
        yield "too long", "x" * (schema["maxLength"] + 1)
        yield "too long in characters", "🚀" * (schema["maxLength"] + 1)
    if schema.get("minLength", 0) >= 1:
        yield "empty", ""
    if "pattern" in schema and "string" in kinds:
        yield "blank", "   "
    if "enum" in schema:
        yield "no such word", "no-such-word"
    if schema.get("format") == "date-time":
        yield "no time", "yesterday"
    if "maximum" in schema:
        yield "too large", schema["maximum"] + 1
    if "minimum" in schema:
        yield "too small", schema["minimum"] - 1
    if "integer" in kinds:
        yield "huge", 10 ** 30
    if "maxItems" in schema:
        yield "too many", [sample(document, schema.get("items", {}))] * (schema["maxItems"] + 1)
    if "maxProperties" in schema:
        inner = schema.get("additionalProperties")
        inner = sample(document, inner) if isinstance(inner, dict) else "v"
        yield "too many", {f"K{i}": inner for i in range(schema["maxProperties"] + 1)}


def dotted(path):
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else part)
    return text


def operations(document):
    """What a tenant calls. The link of workers and what a session token opens have tests of their own
    (test_worker_conformance.py, test_worker_files.py)."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            of_others = "101" in operation.get("responses", {}) or "(session token)" in operation.get("summary", "")
            if method in ("get", "post", "put", "patch", "delete") and not of_others:
                yield method.upper(), path, operation, operation.get("parameters", []) + item.get("parameters", [])


class Caller:
    """Fills path parameters with things of the caller's own."""

    def __init__(self, server, client):
        self.server, self.client = server, client
        self.admin = server.client(server.admin_key)
        made = self.admin.api("POST", "/runner-enrolments", json={"shared": True}).json()["data"]
        registered = server.client(made["token"]).api("POST", "/runners", json={
            "hostname": SAMPLES["hostname"], "protocolVersion": 2, "capabilities": {"providers": ["codex"]}}).json()["data"]
        self.runner = SAMPLES["runnerId"] = registered["runnerId"]
        self.callers = (client, self.admin, server.client(registered["runnerToken"]))
        self.at = {}  # who is not refused by a route: the first of the tenant, the administrator, a runner
        self.environment = client.environment()["id"]
        self.schedule = client.schedule()["id"]
        self.run = client.finish("for the field tests")["run_id"]
        self.session = ok(client.api("GET", "/orgs/me")) and client.api("POST", "/sessions", json={
            "orgId": "me", "providerId": "codex", "repo": {"url": "https://example.com/a/b"}}).json()["data"]["sessionId"]

    def path(self, path):
        def value(name):
            if "environments" in path:
                return self.environment
            if is_village(path):
                return {"{sessionId}": self.session, "{runnerId}": self.runner}.get(name, "1")
            return self.schedule if "schedules" in path else self.run if "run" in path else new_run_id()
        parts = [value(p) if p.startswith("{") else p for p in path.split("/")]
        if path.endswith("/files/{name}"):
            parts[-1] = "output"
        return "/".join(parts)

    def base(self, method, path, **options):
        """A request with nothing odd in it: whom the route takes is remembered from here only, the 403 of an odd value is its own."""
        self.at[(method, path)], r = self.first(method, 0, self.path(path), **options)
        return r

    def call(self, method, path, **options):
        return self.ask(method, path, self.path(path), **options)

    def ask(self, method, path, url, **options):
        """As the tenant; as the admin, or a runner, where a tenant gets 403."""
        return self.first(method, self.at.get((method, path), 0), url, **options)[1]

    def first(self, method, at, url, **options):
        if is_sign_in(url):  # only pages of this server may
            options["headers"] = {"Origin": self.server.url}
        for at in range(at, len(self.callers)):
            r = self.callers[at].request(method, url, **options)
            if r.status_code != 403:
                break
        return at, r


@pytest.fixture(scope="module")
def shared(model, postgres):
    with harness.serving({**harness.provider_env(model), "OZ_MAX_SESSIONS_PER_ORG": "500", "OZ_LOGIN_REQUESTS_PER_MINUTE": "0",
                          "OZ_LOGIN_MAX_FAILURES": "0"}, postgres=postgres, name="fields") as server:
        yield server


@pytest.fixture(scope="module")
def caller(shared):
    with shared.client("tenant-of-the-field-tests") as client:
        yield Caller(shared, client)


def test_document_covers_every_route(document):
    known = {(m, p) for m, p, _, _ in operations(document)}
    for route in (("POST", "/agent/run"), ("POST", "/agent/runs"), ("GET", "/agent/runs"), ("GET", "/agent/runs/{runID}"),
                  ("POST", "/agent/runs/{runID}/cancel"), ("GET", "/agent/runs/{runID}/events"), ("POST", "/environments"),
                  ("GET", "/environments"), ("GET", "/environments/{id}"), ("PUT", "/environments/{id}"),
                  ("DELETE", "/environments/{id}"), ("POST", "/agent/schedules"), ("GET", "/agent/schedules"),
                  ("GET", "/agent/schedules/{id}"), ("PUT", "/agent/schedules/{id}"), ("DELETE", "/agent/schedules/{id}"),
                  ("POST", "/agent/schedules/{id}/pause"), ("POST", "/agent/schedules/{id}/resume"), ("GET", "/providers"),
                  ("GET", "/agent")):
        assert (route[0], API + route[1]) in known, f"{route} is not in the document"


def test_every_body_field(document, caller):
    """One table over all routes; every wrong outcome is shown at once."""
    wrong, cases, refused_cases, untested = [], 0, 0, []
    for method, path, operation, _ in operations(document):
        schema = body_schema(document, operation)
        if not schema or "properties" not in schema:
            continue
        base = sample(document, schema)
        if path.endswith(("/agent/run", "/agent/runs")):
            base["prompt"] = "field test"
        if path == "/api/auth/login":
            base["token"] = "tenant-of-the-field-tests"
        r = caller.base(method, path, json=base)
        # a session that waits does not do everything; nobody has made a link
        fine = (200, 201, 202, 404, 409) if is_village(path) else (404,) if is_public(path) else (200,)
        assert r.status_code in fine, f"the base body of {method} {path} is refused: {base} {r.text}"
        judge = jsonschema_rs.validator_for({**schema, "components": document.get("components", {})},
                                            validate_formats=True)
        for field, member, required in fields(document, schema):
            name, some_refused = dotted(field), False
            for what, value in values(document, member, required):
                body = put(document, schema, base, field, value)
                allowed = judge.is_valid(body)
                cases += 1
                where = f"{method} {path} {name} {what}"
                try:
                    r = caller.call(method, path, content=json.dumps(body).encode())
                except httpx.TransportError as e:
                    wrong.append(f"{where}: no answer: {e}")
                    continue
                if is_village(path):
                    assert_envelope(r)
                if r.status_code >= 500 or (r.status_code not in (200, 201, 202, 400, 401 if is_sign_in(path) else 403, 403, 404, 409, 413, 429)):
                    wrong.append(f"{where}: {r.status_code} {r.text[:200]}")
                elif not allowed:
                    some_refused, refused_cases = True, refused_cases + 1
                    if r.status_code == 413 and what.startswith("too long"):
                        continue
                    named = named_fields(path, r) if r.status_code == 400 else []
                    parents = [dotted(field[:i]) for i in range(1, len(field) + 1)]
                    if not any(n in parents or n.startswith(name) for n in named):
                        wrong.append(f"{where}: {r.status_code} names {named!r}: {r.text[:200]}")
                elif r.status_code == 400 and is_sign_in(path):
                    assert r.json()["code"] == "VALIDATION_ERROR" and r.json()["field"], where
                elif r.status_code == 400 and not is_village(path):
                    assert_error(r, 400, ("invalid_field", "missing_field"))
            if not some_refused and types_of(document, member):
                untested.append(f"{method} {path} {name}")
    assert not wrong, f"{len(wrong)} of {cases}:\n" + "\n".join(wrong)
    assert not untested, "fields that accept everything: " + ", ".join(untested)
    assert cases > 300 and refused_cases > 150, (cases, refused_cases)


def test_every_query_key(document, caller):
    wrong, cases = [], 0
    for method, path, operation, parameters in operations(document):
        if method != "GET" or path.endswith(("/events", "/events/stream")):
            continue
        for parameter in parameters:
            parameter = resolve(document, parameter)
            if parameter.get("in") != "query":
                continue
            schema, key = resolve(document, parameter["schema"]), parameter["name"]
            items = resolve(document, schema.get("items", {})) or schema
            kinds = types_of(document, items)
            table = [("", None), ("%00", 400), ("%ff", 400), ("x" * 3000, None)]
            if "integer" in kinds:
                table += [("abc", 400), ("1.5", 400), ("1e3", 400), ("-", 400), ("9" * 40, None), ("1", 200)]
            if "boolean" in kinds:
                table += [("perhaps", 400), ("true", 200), ("false", 200)]
            if "enum" in items:
                table += [("no-such-word", 400), (str(items["enum"][0]), 200)]
            if items.get("format") == "date-time":
                table += [("yesterday", 400), ("2026-02-30T00:00:00Z", 400), ("2026-01-31T09:08:16.986Z", 200),
                          ("2026-01-31T09:08:16%2B02:00", 200), ("2026-01-31", 400)]
            if "maxLength" in items:
                table += [("y" * (items["maxLength"] + 1), 400)]
            for value, status in table:
                cases += 1
                r = caller.ask("GET", path, caller.path(path) + f"?{urllib.parse.quote(key)}={value}")
                fine = r.status_code == status if status else r.status_code in (200, 400)
                if not fine or (r.status_code == 400 and value and not set(named_fields(path, r)) <= {key, ""}):
                    wrong.append(f"GET {path}?{key}={value[:40]}: {r.status_code} instead of {status} {r.text[:150]}")
    assert not wrong, f"{len(wrong)} of {cases}:\n" + "\n".join(wrong)
    assert cases > 50, cases


def test_every_path_parameter(document, caller):
    wrong = []
    for method, path, _, _ in operations(document):
        if "{" not in path or method == "DELETE":
            continue
        for value in ("x", "%00", "%ff", "..%2f..", "a" * 4000, "run_", "%20", "'%22<>", "0", "-1", "null", "undefined"):
            parts = [value if p.startswith("{") else p for p in path.split("/")]
            r = caller.ask(method, path, "/".join(parts), json={"name": "n", "docker_image": "i", "prompt": "p",
                                                               "cron_schedule": "0 9 * * *", "enabled": True}
                           if method in ("POST", "PUT") else None)
            if r.status_code not in (400, 404, 405):
                wrong.append(f"{method} {path} with {value[:20]}: {r.status_code} {r.text[:150]}")
    assert not wrong, "\n".join(wrong)


def test_operations_without_a_bearer_are_refused(document, shared):
    with shared.client(None) as client:
        for method, path, operation, _ in operations(document):
            if path.startswith(API):
                r = client.request(method, path.replace("{", "x").replace("}", "x"))
                # 400: what it lacks is said to everybody
                assert r.status_code in ((400, 404) if is_public(path) else (401,)), (method, path, r.status_code)


def test_answers_match_their_schema(document, caller):
    """GET of everything: the body is what the document promises."""
    checked = 0
    for method, path, operation, _ in operations(document):
        if method != "GET" or path.endswith(("/events/stream", "/metrics")) or "ws" in path or \
                (path.endswith("/events") and not is_village(path)):
            continue
        content = operation["responses"].get("200", {}).get("content", {})
        if "application/json" not in content:
            continue
        schema = resolve(document, content["application/json"]["schema"])
        r = caller.call(method, path)
        if r.status_code != 200:
            continue
        errors = [str(e) for e in jsonschema_rs.validator_for(
            {**schema, "components": document.get("components", {})}).iter_errors(r.json())]
        assert not errors, (path, errors[:3])
        checked += 1
    assert checked >= 6, checked
