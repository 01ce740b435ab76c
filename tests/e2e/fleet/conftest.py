"""A server with short times, a caller who administers an org, and enrolled workers."""
import secrets

import harness
import pytest
from village import Village, data
from worker_peers import Native

SETTINGS = {"OZ_WORKER_RECONNECT_GRACE_MS": "6000", "OZ_HEARTBEAT_TIMEOUT_MS": "2000",
            "OZ_HEALTH_CHECK_INTERVAL_MS": "200", "OZ_MAX_RUNNERS_PER_ORG": "4", "OZ_MAX_SESSIONS_PER_ORG": "500"}


@pytest.fixture(scope="module")
def shared(postgres):
    with harness.serving(SETTINGS, postgres=postgres, name="fleet-api") as server:
        yield server


class Org:
    """An org of its own: its administrator, and one who only works there."""

    def __init__(self, server):
        self.server = server
        boss, name = server.client(), "org-" + secrets.token_hex(4)
        self.boss = Village(server.client(self.key(boss, name, "admin")))
        self.worker = Village(server.client(self.key(boss, name, "operator")))
        self.id = self.boss.org

    @staticmethod
    def key(boss, name, role):
        answer = boss.api("POST", "/keys", json={"name": f"{name}-{role}", "tenant": name, "role": role})
        assert answer.status_code in (200, 201), answer.text
        return answer.json()["key"]

    def token(self, **more):
        return data(self.boss("POST", "/runner-enrolments", json=more), 201)

    def enrol(self, host, token=None, **more):
        """A native worker whose first connection presents an enrolment token; (peer, its credential)."""
        peer = Native(self.server, host, key=token or self.token()["token"], **more)
        welcome = peer.welcome
        return peer, welcome.get("credential"), welcome["worker_uid"]

    def runner(self, runner_id):
        return data(self.boss("GET", f"/runners/{runner_id}"))

    def events(self, runner_id):
        return [e["event"] for e in data(self.boss("GET", f"/runners/{runner_id}/events"))["events"]]


@pytest.fixture
def org(shared):
    return Org(shared)


@pytest.fixture
def another(shared):
    return Org(shared)
