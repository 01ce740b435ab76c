"""Starts the real server and talks to it. Nothing here knows how it is built inside."""
import contextlib
import ctypes
import itertools
import json
import os
import pathlib
import pwd
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import uuid

import httpx
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("MUSTER", ROOT / "build/asan/muster")).resolve()
RELEASE = ROOT / "build/muster"  # what script/build makes; only where a sanitizer would be in the way
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
LIBC = ctypes.CDLL(None, use_errno=True)
API = "/api/v1"
TERMINAL = ("SUCCEEDED", "FAILED", "CANCELLED")
STATES = ("QUEUED", "PENDING", "CLAIMED", "INPROGRESS") + TERMINAL
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
RUN_ID = re.compile(r"run_[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
ENV_ID = re.compile(RUN_ID.pattern.replace("run_", "env_"))
SANITIZER = re.compile(r"(Address|Leak|Thread|Memory|UndefinedBehavior)Sanitizer|runtime error:|MU_CHECK")
ADMIN_KEY = "the-admin-key-of-these-tests"
UPSTREAM_KEY = "the-upstream-key-of-these-tests"


def plain_user():
    """Prefix of a command that must not run as root."""
    if os.getuid() != 0:
        return [], os.getuid(), os.getgid()
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            user = pwd.getpwnam(name)
            return ["runuser", "-u", name, "--"], user.pw_uid, user.pw_gid
    raise AssertionError("no unprivileged user to run PostgreSQL as")


def need_sandbox(folder, *options):
    """Skips where the kernel gives ordinary users nothing to make a sandbox of; any other reason is a failure."""
    done = subprocess.run([str(BINARY), "worker", "--check", *options, "--state-dir", str(folder / "state")], text=True,
                          capture_output=True, env={"PATH": os.environ["PATH"], "HOME": str(folder),
                                                    "OZ_DATA_DIR": str(folder / "data")})
    if done.returncode != 0 and os.getuid() != 0:
        own = subprocess.run(["unshare", "--user", "--map-root-user", "true"], capture_output=True, text=True)
        if own.returncode != 0:
            pytest.skip("this kernel gives no namespaces to ordinary users: " + own.stderr)
    assert done.returncode == 0, "no sandbox is usable here: " + done.stdout + done.stderr


def die_with_parent():
    """In the child, before exec: a test run that is cut off leaves no server behind."""
    LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Postgres:
    """A PostgreSQL cluster of our own: private folder, unix socket only, fsync on."""

    def __init__(self):
        versions = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb"),
                          key=lambda p: int(p.parts[-3]))
        found = versions[-1] if versions else shutil.which("initdb")
        assert found, "PostgreSQL is not installed: script/bootstrap test"
        self.bin = pathlib.Path(found).parent
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="muster-pg-", dir="/tmp"))
        self.prefix, uid, gid = plain_user()
        os.chown(self.dir, uid, gid)
        self.dir.chmod(0o755)  # servers of other users reach its socket; the data folder below stays closed
        self.numbers = itertools.count(1)
        self._run("initdb", "-D", self.dir / "data", "-U", "muster", "--auth=trust", "-E", "UTF8", "--locale=C.UTF-8",
                  "--no-sync")
        settings = f"listen_addresses=''\nunix_socket_directories='{self.dir}'\nport=5432\nmax_connections=200\n" \
                   "fsync=on\nsynchronous_commit=on\nlogging_collector=off\nshared_buffers=64MB\n"
        # Written by the cluster's user: the folder is not ours.
        subprocess.run([*self.prefix, "tee", "-a", str(self.dir / "data/postgresql.conf")], input=settings.encode(),
                       stdout=subprocess.DEVNULL, check=True, cwd="/")
        self.start()

    def _run(self, program, *args, check=True):
        done = subprocess.run([*self.prefix, str(self.bin / program), *map(str, args)], capture_output=True, text=True,
                              cwd="/", timeout=120, stdin=subprocess.DEVNULL)
        assert not check or done.returncode == 0, f"{program} failed: {done.stdout}{done.stderr}"
        return done

    def start(self):
        # What is left of one that was stopped at once may hold its shared memory for a moment; and pg_ctl gives up on one that
        # is busy recovering while others knock.
        for _ in range(40):
            # pg_ctl's child keeps the pipes open: no capture here.
            done = subprocess.run([*self.prefix, str(self.bin / "pg_ctl"), "-D", str(self.dir / "data"), "-w", "-t", "60", "-l",
                                   str(self.dir / "log"), "start"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                  cwd="/", timeout=90)
            if done.returncode == 0 or self._run("pg_isready", "-q", "-h", self.dir, "-p", 5432, check=False).returncode == 0:
                return
            time.sleep(1)
        raise AssertionError("PostgreSQL does not start: " + (self.dir / "log").read_text(errors="replace")[-3000:])

    def halt(self, mode="fast"):
        self._run("pg_ctl", "-D", self.dir / "data", "-w", "-m", mode, "stop", check=False)

    def stop(self):
        self.halt("immediate")
        shutil.rmtree(self.dir, ignore_errors=True)

    def sql(self, text, database="postgres"):
        return self._run("psql", "-h", self.dir, "-U", "muster", "-d", database, "-v", "ON_ERROR_STOP=1", "-Atc",
                         text).stdout.strip()

    def new_database(self):
        name = f"m{os.getpid()}_{next(self.numbers)}"
        self.sql(f"CREATE DATABASE {name}")
        return f"postgres:///{name}?host={self.dir}&user=muster"


def provider_env(model, **more):
    """custom: OpenAI-compatible; claude: Anthropic; both played by the scripted model server."""
    env = {"OZ_PROVIDER_CUSTOM_TYPE": "openai_compatible", "OZ_PROVIDER_CUSTOM_BASE_URL": model.base("custom"),
           "OZ_PROVIDER_CUSTOM_MODEL": "fake-model", "OZ_PROVIDER_CUSTOM_API_KEY": UPSTREAM_KEY,
           "OZ_PROVIDER_CLAUDE_TYPE": "anthropic", "OZ_PROVIDER_CLAUDE_BASE_URL": model.base("claude", v1=False),
           "OZ_PROVIDER_CLAUDE_MODEL": "fake-claude", "OZ_PROVIDER_CLAUDE_API_KEY": UPSTREAM_KEY}
    env.update(more)
    return env


def openai_env(model, key, **more):
    """One OpenAI-compatible provider KEY whose upstream at the model server has the same name."""
    up = key.upper()
    env = {f"OZ_PROVIDER_{up}_TYPE": "openai_compatible", f"OZ_PROVIDER_{up}_BASE_URL": model.base(key.lower()),
           f"OZ_PROVIDER_{up}_MODEL": f"{key.lower()}-model"}
    env.update({f"OZ_PROVIDER_{up}_{name}": str(value) for name, value in more.items()})
    return env


class Server:
    """One `muster serve` with its own folders. start() may be called again after stop(), kill9() or a death."""
    current_test = ""
    _all = []

    def __init__(self, env=None, data=None, admin_key=ADMIN_KEY, postgres=None, database_url=None, args=(),
                 name="server", files=None, unprivileged=False):
        self.tmp = pathlib.Path(tempfile.mkdtemp(prefix="muster-e2e-"))
        self.cwd, self.home = self.tmp / "cwd", self.tmp / "home"
        self.cwd.mkdir()
        self.home.mkdir()
        for path, text in (files or {}).items():
            (self.cwd / path).write_text(text)
        self.data = pathlib.Path(data) if data else self.tmp / "data"
        self.admin_key, self.args, self.name, self.postgres = admin_key, list(args), name, postgres
        self.database_url = database_url or (postgres.new_database() if postgres else None)
        self.extra = dict(env or {})
        self.user = {}
        if unprivileged and os.getuid() == 0:
            _, uid, gid = plain_user()
            self.user = {"user": uid, "group": gid, "extra_groups": []}
            for path in (self.tmp, *self.tmp.rglob("*")):
                os.chown(path, uid, gid)
        self.process = self.port = None
        self.prefix, self.pass_fds = [], ()
        self.log, self.not_json, self.err = [], [], ""
        self.changed = threading.Condition()
        self.expected_death = False
        self.created_in = Server.current_test
        self.secrets = [s for s in (admin_key, UPSTREAM_KEY) if s]
        self.clients = []
        self.threads = []
        Server._all.append(self)

    # --- the process ---
    def as_nobody(self):
        """Where the tests run as root: the server as an ordinary user, in its own temporary folder."""
        if os.getuid() == 0:
            for path in (self.tmp, *self.tmp.rglob("*")):
                os.chown(path, 65534, 65534)
            self.prefix = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]

    def environment(self):
        env = {"PATH": os.environ["PATH"], "HOME": str(self.home), "LANG": "C.UTF-8", "USER": "tester",
               "OZ_DATA_DIR": str(self.data), "OZ_CONTROL_PLANE_PORT": "0", "OZ_EMBEDDED_WORKER": "off",
               "ASAN_OPTIONS": "detect_leaks=1:exitcode=97:abort_on_error=0:detect_stack_use_after_return=1",
               "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1:exitcode=97",
               "TSAN_OPTIONS": "exitcode=97:halt_on_error=0"}
        if self.admin_key:
            env["OZ_ADMIN_API_KEY"] = self.admin_key
        if self.database_url:
            env["DATABASE_URL"] = self.database_url
        env.update(self.extra)
        return {k: v for k, v in env.items() if v is not None}

    def start(self, wait=True):
        assert self.process is None or self.process.poll() is not None, "already running"
        assert BINARY.exists(), f"{BINARY} does not exist: build it, or name it with MUSTER"
        self.expected_death, self.port = False, None
        with self.changed:
            self.log, self.not_json, self.err = [], [], ""
        self.process = subprocess.Popen([*self.prefix, str(BINARY), "serve", *self.args], env=self.environment(), cwd=self.cwd,
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        start_new_session=True, preexec_fn=die_with_parent, pass_fds=self.pass_fds, **self.user)
        self.threads = [threading.Thread(target=self._read_log, args=(self.process.stdout,), daemon=True),
                        threading.Thread(target=self._read_err, args=(self.process.stderr,), daemon=True)]
        for t in self.threads:
            t.start()
        if wait:
            self.port = self.wait_log("startup.listening", 30)["port"]
        return self

    def _read_log(self, stream):
        for raw in stream:
            line = raw.decode("utf-8", "replace").rstrip("\n")
            with self.changed:
                try:
                    parsed = json.loads(line)
                    self.log.append(parsed if isinstance(parsed, dict) else {"msg": line})
                except ValueError:
                    self.not_json.append(line)
                self.changed.notify_all()
        with self.changed:
            self.changed.notify_all()
        stream.close()

    def _read_err(self, stream):
        for raw in stream:
            with self.changed:
                self.err = (self.err + raw.decode("utf-8", "replace"))[-200_000:]
        stream.close()

    def wait_log(self, msg, timeout=10.0, **fields):
        """The first log line with that msg and these fields."""
        def find():
            for line in self.log:
                if line.get("msg") == msg and all(line.get(k) == v for k, v in fields.items()):
                    return line
            return None
        end = time.monotonic() + timeout
        with self.changed:
            while (line := find()) is None:
                dead = self.process.poll() is not None and not any(t.is_alive() for t in self.threads)
                left = end - time.monotonic()
                if dead or left <= 0:
                    raise AssertionError(f"no log line {msg!r} {fields} ({'ended' if dead else 'still running'})\n"
                                         + self.tail())
                self.changed.wait(min(left, 0.5))
        return line

    def tail(self, n=40):
        """The end of the log, without the requests that went well."""
        told = [x for x in self.log if x.get("msg") != "http.response" or x.get("status", 0) >= 500]
        lines = [json.dumps(line) for line in told[-n:]] + self.not_json[-20:]
        code = self.process.poll() if self.process else None
        return f"exit code {code}, data {self.data}\n" + "\n".join(lines) + "\n--- stderr ---\n" + self.err[-12_000:]

    @classmethod
    def running_or_ended_in(cls, test):
        return [s for s in cls._all if s.process and (s.created_in == test or s.process.poll() is None)]

    @property
    def pid(self):
        return self.process.pid

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def assert_alive(self):
        assert self.alive(), "the server ended by itself\n" + self.tail()

    def signal(self, sig):
        os.kill(self.process.pid, sig)

    def wait_exit(self, timeout=30.0):
        """Waits for the end and gives the exit code."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError("the server does not end\n" + self.tail()) from None
        for t in self.threads:
            t.join(5)
        self.expected_death = True
        return code

    def stop(self, timeout=35.0):
        """Ends the server (SIGTERM) and checks that it was well until the end."""
        for client in self.clients:
            client.close()
        self.clients = []
        if self.process is None:
            return
        if self.expected_death:
            self._check_reports()
            return
        died = not self.alive()
        if not died:
            self.signal(signal.SIGTERM)
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.process.send_signal(signal.SIGABRT)
                self.process.wait(10)
                raise AssertionError(f"{self.name}: does not end after SIGTERM\n" + self.tail()) from None
        for t in self.threads:
            t.join(5)
        self.expected_death = True
        self._check_reports()
        assert not died, f"{self.name}: ended by itself\n" + self.tail()
        assert self.process.returncode == 0, f"{self.name}: exit code {self.process.returncode}\n" + self.tail()

    def _check_reports(self):
        assert not SANITIZER.search(self.err), f"{self.name}: sanitizer or check report\n" + self.tail()
        assert not self.not_json, f"{self.name}: log lines that are not JSON\n" + "\n".join(self.not_json[:5])
        text = self.err + json.dumps(self.log)
        for secret in self.secrets:
            assert secret not in text, f"{self.name}: a secret is in the log"

    def kill9(self):
        self.expected_death = True
        self.process.kill()
        self.process.wait()
        for t in self.threads:
            t.join(5)

    def remove(self):
        with contextlib.suppress(ValueError):
            Server._all.remove(self)
        shutil.rmtree(self.tmp, ignore_errors=True)

    # --- clients ---
    def client(self, token=ADMIN_KEY, **options):
        client = Client(self, token, **options)
        self.clients.append(client)
        return client

    def socket(self, timeout=10.0):
        return socket.create_connection(("127.0.0.1", self.port), timeout)


@contextlib.contextmanager
def serving(env=None, **options):
    """A server for as long as the block; how it ended is checked."""
    server = Server(env, **options)
    try:
        yield server.start()
    finally:
        try:
            server.stop()
        finally:
            server.remove()


class Client(httpx.Client):
    """httpx with the bearer, and the calls that most tests make. Paths are below /api/v1 unless they start at root."""

    def __init__(self, server, token, **options):
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        headers.update(options.pop("headers", {}))
        options.setdefault("timeout", 65.0)
        options.setdefault("verify", NO_TLS)  # one for all: making a context reads all roots of the machine
        super().__init__(base_url=server.url, headers=headers, trust_env=False, **options)
        self.server, self.token = server, token

    def api(self, method, path, **options):
        return self.request(method, API + path, **options)

    def create(self, prompt="hello", **body):
        """POST /agent/run; the answer's body."""
        return ok(self.api("POST", "/agent/run", json={"prompt": prompt, **body}))

    def run(self, run_id):
        return ok(self.api("GET", f"/agent/runs/{run_id}"))

    def wait(self, run_id, states=TERMINAL, timeout=30.0):
        """Polls until the run is in one of the states; fails when it ended in another one."""
        states = (states,) if isinstance(states, str) else states
        end = time.monotonic() + timeout
        while True:
            run = self.run(run_id)
            if run["state"] in states:
                return run
            assert run["state"] not in TERMINAL, f"ended {run['state']} instead of {states}: {run.get('error')}"
            assert time.monotonic() < end, f"still {run['state']} after {timeout} s instead of {states}: {run}"
            time.sleep(0.02)

    def finish(self, prompt="hello", states=TERMINAL, timeout=30.0, **body):
        """Creates a run and waits for its end."""
        return self.wait(self.create(prompt, **body)["run_id"], states, timeout)

    def list(self, **query):
        return ok(self.api("GET", "/agent/runs", params=query))

    def cancel(self, run_id):
        return self.api("POST", f"/agent/runs/{run_id}/cancel")

    def environment(self, name="an environment", docker_image="debian:12", **body):
        return ok(self.api("POST", "/environments", json={"name": name, "docker_image": docker_image, **body}))

    def schedule(self, **body):
        body = {"cron_schedule": "0 9 * * *", "name": "daily", "prompt": "hello", **body}
        return ok(self.api("POST", "/agent/schedules", json=body))

    def events(self, run_id, **query):
        return Events(self, run_id, **query)


class Events:
    """The server-sent events of a run: `with client.events(id) as stream: for e in stream: …`."""

    def __init__(self, client, run_id, headers=None, timeout=30.0, **query):
        self.client, self.path, self.query = client, f"{API}/agent/runs/{run_id}/events", query
        self.headers, self.timeout, self.comments, self.response = headers or {}, timeout, 0, None
        self.lines = None
        self.generator = self._events()

    def __enter__(self):
        self.context = self.client.stream("GET", self.path, params=self.query, timeout=self.timeout,
                                          headers={"Accept": "text/event-stream", **self.headers})
        self.response = self.context.__enter__()
        return self

    def __exit__(self, *exc):
        return self.context.__exit__(*exc)

    def __iter__(self):
        """Dicts with event, id (int or None) and data, until the server ends the stream; goes on where it was left."""
        return self.generator

    def _events(self):
        event, ident, data = None, None, []
        self.lines = self.lines or self.response.iter_lines()  # a second loop goes on where the first ended
        for line in self.lines:
            if line == "":
                if data:
                    yield {"event": event or "message", "id": ident, "data": json.loads("\n".join(data)),
                           "at": time.monotonic()}
                event, ident, data = None, None, []
            elif line.startswith(":"):
                self.comments += 1
            else:
                name, _, value = line.partition(":")
                value = value[1:] if value.startswith(" ") else value
                if name == "event":
                    event = value
                elif name == "id":
                    ident = int(value)
                elif name == "data":
                    data.append(value)

    def until_end(self):
        """All events up to and including `end`."""
        seen = []
        for e in self:
            seen.append(e)
            if e["event"] == "end":
                return seen
        raise AssertionError(f"the stream ended without `end`: {seen}")


def delta_text(events):
    """The text of the output deltas, in order."""
    parts = []
    for e in events:
        if e["event"] == "output":
            texts = [v for k, v in e["data"].items() if k in ("delta", "text", "output")]
            assert texts, f"an output event without text: {e}"
            parts.append(texts[0])
    return "".join(parts)


def logged(events):
    """The events that are rows of the log: those with a number."""
    return [e for e in events if e["id"] is not None]


def assert_dense(events, first=1):
    numbers = [e["id"] for e in logged(events)]
    assert numbers == list(range(first, first + len(numbers))), numbers


def ok(response):
    assert response.status_code == 200, f"{response.status_code} {response.text[:2000]}"
    assert response.headers["content-type"].startswith("application/json"), response.headers
    return response.json()


def assert_error(response, status, code=None, field=None):
    """An error in the face's shape (oz-api.md 3)."""
    statuses = status if isinstance(status, tuple) else (status,)
    assert response.status_code in statuses, f"{response.status_code} instead of {status}: {response.text[:1000]}"
    assert response.headers["content-type"].startswith("application/json"), response.headers
    body = response.json()
    assert isinstance(body["error"], str) and body["error"], body
    assert isinstance(body["message"], str) and body["message"], body
    assert body["request_id"] == response.headers["x-request-id"], body
    if code:
        codes = code if isinstance(code, tuple) else (code,)
        assert body["code"] in codes, f"{body} instead of {code}"
    if field is not None:
        assert body.get("field") == field, f"{body} does not name {field}"
        assert field.split(".")[-1].split("[")[0] in body["message"], f"the text does not name {field}: {body}"
    return body


def assert_run(run, single=True):
    """A run object with everything that must be there (oz-api.md 5)."""
    assert RUN_ID.fullmatch(run["run_id"]), run["run_id"]
    assert run["task_id"] == run["run_id"]
    for name in ("created_at", "updated_at"):
        assert TIMESTAMP.fullmatch(run[name]), (name, run[name])
    for name in ("started_at", "completed_at"):
        assert run[name] is None or TIMESTAMP.fullmatch(run[name]), (name, run[name])
    assert isinstance(run["prompt"], str) and isinstance(run["title"], str)
    assert run["state"] in STATES
    assert "session_link" in run and "status_message" in run and "conversation_id" in run
    assert isinstance(run["artifacts"], list) and isinstance(run["agent_config"], dict)
    assert "environment_id" in run["agent_config"] and isinstance(run["agent_config"]["model_id"], str)
    assert run["updated_at"] >= run["created_at"], run["updated_at"]
    if run["status_message"] is not None:
        assert isinstance(run["status_message"]["message"], str)
    if single:
        assert run["request_id"]
    return run


def new_run_id():
    return f"run_{uuid.uuid4()}"


def processes_with(text):
    """Pids of live processes whose command line or environment holds `text` (never our own)."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if (entry / "stat").read_text().rpartition(")")[2].split()[0] == "Z":
                continue
            if text.encode() in (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return found


def eventually(check, timeout=10.0, what="it"):
    """Calls check() until it gives something true."""
    end = time.monotonic() + timeout
    while True:
        value = check()
        if value:
            return value
        assert time.monotonic() < end, f"{what} did not happen within {timeout} s"
        time.sleep(0.02)
