"""What the rows of error_table.py need: callers of every kind, sessions in every condition. All of it is made when the
first row asks for it, on one server; what needs a server with other settings says so."""
import contextlib
import functools
import secrets
import socket
import sqlite3
import threading
from http.client import HTTPResponse

import httpx

import checkpoint_peer
import worker_peers
from harness import eventually, ok
from live_peers import LiveWorker, Viewer
from village import Village, data

NO_SESSION = "ses_00000000-0000-7000-8000-000000000000"
NO_RUNNER = "rnr_00000000-0000-7000-8000-000000000000"
NO_APPROVAL = "apr_00000000-0000-7000-8000-000000000000"
NO_PROMPT = "00000000-0000-7000-8000-000000000000"
CAPS = {"capabilities": {"providers": ["codex"]}, "protocolVersion": 2}
UPGRADE = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
           "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}


def new_id():
    return secrets.token_hex(6)


def head(method, path, host="127.0.0.1", **headers):
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}"] + [f"{k.replace('_', '-')}: {v}" for k, v in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def answer_on(sock):
    """The answer on a socket, as httpx would give it."""
    raw = HTTPResponse(sock)
    raw.begin()
    return httpx.Response(raw.status, headers=raw.getheaders(), content=raw.read())


def exchange(server, raw, timeout=20):
    with socket.create_connection(("127.0.0.1", server.port), timeout) as sock:
        sock.sendall(raw)
        return answer_on(sock)


def upgrade(server, path, token):
    """The answer to an upgrade that is refused."""
    try:
        worker_peers.handshake(server.port, path, token)[0].close()
    except worker_peers.Refused as e:
        return httpx.Response(e.status, headers=e.headers, content=e.body)
    raise AssertionError(f"{path} was opened")


def break_database(server):
    """Takes a table away that all reading of sessions needs."""
    statement = "ALTER TABLE sessions RENAME TO taken_away"
    if server.postgres:
        server.postgres.sql(statement, server.database_url.split("///")[1].split("?")[0])
    else:
        with contextlib.closing(sqlite3.connect(server.data / "muster.db", timeout=20)) as db:
            db.execute(statement)


class World:
    def __init__(self, server):
        self.server, self.closing = server, contextlib.ExitStack()

    def close(self):
        self.closing.close()

    # --- callers ---
    def key(self, role, org):
        return ok(self.admin("POST", "/keys", json={"name": f"{org}-{role}-{new_id()}", "tenant": org, "role": role}))["key"]

    def caller(self, token):
        return Village(self.server.client(token))

    @functools.cached_property
    def admin(self):
        return self.caller(self.server.admin_key)

    def moved(self):
        """The server was started again: it listens elsewhere."""
        for name in ("admin", "v", "viewer", "boss", "stranger"):
            if name in self.__dict__:
                setattr(self, name, self.caller(getattr(self, name).client.token))

    @functools.cached_property
    def org(self):
        return "org-" + new_id()

    @functools.cached_property
    def v(self):
        """An operator."""
        return self.caller(self.key("operator", self.org))

    @functools.cached_property
    def viewer(self):
        return self.caller(self.key("viewer", self.org))

    @functools.cached_property
    def boss(self):
        return self.caller(self.key("admin", self.org))

    @functools.cached_property
    def stranger(self):
        return self.caller("stranger-" + new_id())

    @functools.cached_property
    def nobody(self):
        return Village(self.server.client(None))

    def enrolment(self, org=None, **more):
        return data(self.admin("POST", "/runner-enrolments", json={"orgId": org or self.v.org, **more}), 201)["token"]

    @functools.cached_property
    def enroller(self):
        """Who has an enrolment token of a full org."""
        return self.caller(self.enrolment("full-" + new_id(), uses=100))

    # --- runners ---
    def registered(self, org=None):
        """(runner id, a caller with its credential)."""
        made = data(self.caller(self.enrolment(org))("POST", "/runners", json={"hostname": "h" + new_id(), **CAPS}), 201)
        return made["runnerId"], self.caller(made["runnerToken"])

    @functools.cached_property
    def runner(self):
        return self.registered("own-" + new_id())

    @functools.cached_property
    def worker(self):
        return self.closing.enter_context(LiveWorker(self.server, worker_id="live-" + new_id(), capacity=1000))

    def worker_id(self, worker):
        return next(r["runnerId"] for r in self.admin("GET", "/runners", params={"pageSize": 100}).json()["data"]["items"]
                    if r["hostname"] == worker.worker_id)

    @functools.cached_property
    def busy(self):
        """A worker's id that holds a session."""
        self.running
        return self.worker_id(self.worker)

    # --- sessions ---
    def waiting(self, village=None, task="Do it", **options):
        village = village or self.v
        return village.create(task=task, options={"runnerId": "nobody", "mode": "interactive", **options})["sessionId"]

    @functools.cached_property
    def queued(self):
        return self.waiting()

    @functools.cached_property
    def foreign(self):
        return self.waiting(self.stranger)

    @functools.cached_property
    def ended(self):
        session = self.waiting()
        data(self.v.stop(session))
        return session

    def start(self, **options):
        session = self.waiting(runnerId=self.worker.worker_id, **options)
        return session, self.worker.start(session)

    @functools.cached_property
    def live(self):
        return self.start()

    @property
    def running(self):
        return self.live[0]

    @functools.cached_property
    def away(self):
        """A running session whose worker is gone for now."""
        worker = self.closing.enter_context(LiveWorker(self.server, worker_id="away-" + new_id(), capacity=10))
        session = self.waiting(runnerId=worker.worker_id)
        worker.start(session)
        worker.close()
        eventually(lambda: not next(r for r in self.admin("GET", "/runners", params={"pageSize": 100}).json()["data"]["items"]
                                    if r["hostname"] == worker.worker_id)["connected"], what="the worker is away")
        return session

    @functools.cached_property
    def away_paused(self):
        worker = self.closing.enter_context(LiveWorker(self.server, worker_id="away-" + new_id(), capacity=10))
        session = self.waiting(runnerId=worker.worker_id)
        worker.start(session)
        self.paused_by(worker, session)
        worker.close()
        return session

    def told(self, worker, session, call, whole=False):
        """pause or resume, done by that worker: the state then, or the whole answer."""
        done = []
        thread = threading.Thread(target=lambda: done.append(self.v("POST", f"/sessions/{session}/{call}")))
        thread.start()
        command = worker.expect("command", command=call, task_id="run_" + session.removeprefix("ses_"))
        worker.send("command_result", {"ok": True, **command})
        thread.join(10)
        return done[0] if whole else data(done[0])["state"]

    def paused_by(self, worker, session):
        assert self.told(worker, session, "pause") == "PAUSED_BY_HUMAN"

    def keep(self, village, **more):
        """A session that has a checkpoint."""
        worker = checkpoint_peer.Worker(self.server, "keeps-" + new_id(), capacity=5)
        self.closing.callback(worker.close)
        session = village.create(options={"runnerId": worker.worker_id, "mode": "interactive"}, **more)["sessionId"]
        assert worker.begin(session).checkpoint(b"what changed")["ok"]
        return session

    @functools.cached_property
    def kept(self):
        return self.keep(self.v)

    @functools.cached_property
    def approval(self):
        """(session, an approval that waits)."""
        session, runner = self.start()
        gate = runner.ask()
        runner.stored()
        return session, gate

    @functools.cached_property
    def decided(self):
        session, gate = self.approval
        data(self.v("POST", f"/sessions/{session}/approvals/{gate}", json={"decision": "allow"}))
        return session, gate

    @functools.cached_property
    def prompt(self):
        """A prompt that waits, of the session that does."""
        return data(self.v("POST", f"/sessions/{self.queued}/prompts", json={"prompt": "p"}), 201)["promptId"]

    @functools.cached_property
    def withdrawn(self):
        prompt = data(self.v("POST", f"/sessions/{self.queued}/prompts", json={"prompt": "p"}), 201)["promptId"]
        data(self.v("DELETE", f"/sessions/{self.queued}/prompts/{prompt}"))
        return prompt

    # --- calls ---
    def on(self, session, method, path="", **more):
        return self.v(method, f"/sessions/{session}{path}", **more)

    def socket(self, village=None, **options):
        village = village or self.v
        return Viewer(self.server, village and village.client.token, **options)
