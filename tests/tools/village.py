"""The sessions API as its tests call it: the envelope is checked at every call."""
import re
import uuid

import httpx
from harness import TIMESTAMP

SESSION_ID = re.compile(r"ses_[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
REPO = {"url": "https://github.com/example/repo", "branch": "main"}
STATES = {"CREATED", "QUEUED", "PREPARING_WORKSPACE", "STARTING_PROVIDER", "RUNNING", "WAITING_FOR_APPROVAL",
          "PAUSED_BY_HUMAN", "STOPPING", "COMPLETED", "FAILED", "TIMED_OUT"}


def no_session():
    return f"ses_{uuid.uuid4()}"


def assert_envelope(response):
    """Every answer of this face (village-control-plane.md 3.1)."""
    assert response.headers["content-type"] == "application/json; charset=utf-8", response.headers
    assert response.headers["cache-control"] == "no-store"
    body = response.json()
    assert set(body) <= {"success", "data", "error", "meta"}, body
    assert body["success"] is (response.status_code < 400), body
    assert ("error" in body) is not body["success"], body
    assert body["success"] or "data" not in body, body
    meta = body["meta"]
    assert set(meta) == {"requestId", "timestamp", "duration"}, meta
    assert meta["requestId"] == response.headers["x-request-id"]
    assert TIMESTAMP.fullmatch(meta["timestamp"]), meta
    assert isinstance(meta["duration"], int) and meta["duration"] >= 0, meta
    return body


def data(response, status=200):
    body = assert_envelope(response)
    assert response.status_code == status, f"{response.status_code} instead of {status}: {body}"
    return body["data"]


def refused(response, status, code):
    """The error object."""
    body = assert_envelope(response)
    assert response.status_code == status, f"{response.status_code} instead of {status}: {body}"
    assert body["error"]["code"] == code, body
    assert isinstance(body["error"]["message"], str) and body["error"]["message"], body
    if status in (429, 503):
        assert int(response.headers["retry-after"]) >= 1, response.headers
    return body["error"]


def issues(response):
    """{path: code} of a VALIDATION_ERROR."""
    error = refused(response, 400, "VALIDATION_ERROR")
    for issue in error["details"]["issues"]:
        assert set(issue) == {"path", "code", "message"} and issue["message"], issue
    return {i["path"]: i["code"] for i in error["details"]["issues"]}


class Village:
    """One caller."""

    def __init__(self, client):
        self.client = client
        self._org = None

    def __call__(self, method, path, **options) -> httpx.Response:
        return self.client.api(method, path, **options)

    @property
    def org(self):
        if self._org is None:
            self._org = data(self("GET", "/orgs/me"))["orgId"]
        return self._org

    def request(self, **more):
        body = {"orgId": self.org, "providerId": "codex", "repo": dict(REPO), "task": "Implement user authentication"}
        body.update(more)
        return {k: v for k, v in body.items() if v is not None}

    def post(self, headers=None, **more):
        return self("POST", "/sessions", json=self.request(**more), headers=headers or {})

    def create(self, **more):
        return data(self.post(**more), 201)

    def get(self, session):
        return data(self("GET", f"/sessions/{session}"))

    def list(self, **query):
        return data(self("GET", "/sessions", params=query))

    def stop(self, session, **query):
        return self("POST", f"/sessions/{session}/stop", params=query)

    def events(self, session, **query):
        return data(self("GET", f"/sessions/{session}/events", params=query))
