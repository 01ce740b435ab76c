"""What an environment says about the sandbox of its runs: checked, kept with the run, sent to native workers, honoured by
a real one; and where no worker can, the run says so."""
import contextlib
import datetime
import http.server
import os
import re
import secrets
import socketserver
import sqlite3
import subprocess
import threading
import time

import harness
import pytest
from harness import assert_error, eventually, ok
from worker_peers import Native, V

FULL = {"network": {"mode": "proxy", "allow": ["api.example.org:443", "*.example.org:8443"]}, "nested": True, "root": "fake",
        "limits": {"memory_mb": 512, "cpus": 0.5, "pids": 100, "disk_mb": 200, "timeout_seconds": 60}}
ALL = ["network:none", "network:proxy", "network:host", "nested", "root:fake", "limits", "limits:disk", "limits:time"]


@pytest.fixture
def tenant(oz):
    with oz.client("tenant-" + secrets.token_hex(12)) as c:
        yield c


def create(client, sandbox, **body):
    return client.api("POST", "/environments", json={"name": "n", "docker_image": "debian:12", "sandbox": sandbox, **body})


# --- the API ---

def test_it_is_shown_as_it_was_given(oz):
    client = oz.client()
    made = ok(create(client, FULL))
    assert made["sandbox"] == FULL
    path = f"/environments/{made['id']}"
    assert ok(client.api("GET", path))["sandbox"] == FULL
    assert next(e for e in ok(client.api("GET", "/environments"))["items"] if e["id"] == made["id"])["sandbox"] == FULL
    changed = {"network": {"allow": ["git.example.org:443"]}, "nested": False, "root": None, "limits": {"pids": None}}
    put = ok(client.api("PUT", path, json={"name": "n", "docker_image": "debian:12", "sandbox": changed}))
    assert put["sandbox"] == {"network": {"mode": "proxy", "allow": ["git.example.org:443"]}}
    put = ok(client.api("PUT", path, json={"name": "n", "docker_image": "debian:12"}))
    assert "sandbox" not in put and "sandbox" not in ok(client.api("GET", path))


@pytest.mark.parametrize("nothing", [None, {}, {"network": None}, {"network": {}, "limits": {}}, {"nested": False}])
def test_one_that_says_nothing_is_none(tenant, nothing):
    assert "sandbox" not in ok(create(tenant, nothing))


@pytest.mark.parametrize("sandbox, field", [
    ("proxy", "sandbox"),
    ({"net": {}}, "sandbox.net"),
    ({"base": "/"}, "sandbox.base"),
    ({"network": {"mode": "open"}}, "sandbox.network.mode"),
    ({"network": {"hosts": []}}, "sandbox.network.hosts"),
    ({"network": {"allow": "api.example.org:443"}}, "sandbox.network.allow"),
    ({"network": {"allow": [5]}}, "sandbox.network.allow[0]"),
    ({"network": {"allow": ["a.example:1"] * 257}}, "sandbox.network.allow"),
    ({"network": {"mode": "none", "allow": ["api.example.org:443"]}}, "sandbox.network.allow"),
    ({"nested": "yes"}, "sandbox.nested"),
    ({"root": "real"}, "sandbox.root"),
    ({"limits": {"memory": 5}}, "sandbox.limits.memory"),
    ({"limits": {"memory_mb": 1}}, "sandbox.limits.memory_mb"),
    ({"limits": {"pids": 1.5}}, "sandbox.limits.pids"),
    ({"limits": {"cpus": -1}}, "sandbox.limits.cpus"),
    ({"limits": {"timeout_seconds": 0}}, "sandbox.limits.timeout_seconds"),
])
def test_what_is_wrong_is_named(tenant, sandbox, field):
    assert_error(create(tenant, sandbox), 400, field=field)


@pytest.mark.parametrize("entry", [
    "api.example.org", "api.example.org:0", "api.example.org:65536", "api.example.org:0443", "api.example.org:", ":443",
    "API.example.org:443", "10.0.0.1:80", "0x7f000001:80", "[::1]:443", "2130706433:80", "*:443", "*.*.example:443",
    "a..example:443", "-a.example:443", "example.:443", "a.example:443,b.example:443", "a.example:443 b.example:443",
    "a.example:443\n", "https://a.example:443", "a.example%2e:443", "a.example\0.b.example:443", "é.example:443", "",
    "a" * 64 + ".example:443", "x" * 300])
def test_hosts_are_held_to_one_grammar(tenant, entry):
    good = {"network": {"allow": ["fine.example:443", entry]}}
    assert_error(create(tenant, good), 400, field="sandbox.network.allow[1]")


def test_more_than_usual_needs_a_right(oz, tenant, make_server):
    for sandbox, field in (({"network": {"mode": "host"}}, "sandbox.network.mode"), ({"nested": True}, "sandbox.nested")):
        assert_error(create(tenant, sandbox), 403, field=field)
        mine = ok(create(tenant, None))
        changed = {"name": "n", "docker_image": "debian:12", "sandbox": sandbox}
        assert_error(tenant.api("PUT", f"/environments/{mine['id']}", json=changed), 403, field=field)
        ok(create(oz.client(), sandbox))
    free = make_server(env={"OZ_TENANT_HOST_NETWORK": "on", "OZ_TENANT_NESTED": "on"})
    ok(create(free.client("another-tenant"), {"network": {"mode": "host"}, "nested": True}))
    everybodys = ok(create(free.client(), {"nested": True}, **{"global": True}))
    assert ok(free.client("another-tenant").api("GET", f"/environments/{everybodys['id']}"))["sandbox"] == {"nested": True}


def test_the_command_line_does_it_too(oz, tmp_path):
    def muster(*args):
        done = subprocess.run([str(harness.BINARY), "env", *args], capture_output=True, text=True, timeout=60,
                              env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "OZ_API_KEY": harness.ADMIN_KEY,
                                   "OZ_API_BASE_URL": oz.url})
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    made = muster("create", "cli", "--docker-image", "debian:12", "--network", "proxy", "--allow", "a.example:443", "--allow",
                  "b.example:443", "--fake-root", "--limit", "memory_mb=256", "--limit", "timeout_seconds=90")
    client = oz.client()
    want = {"network": {"mode": "proxy", "allow": ["a.example:443", "b.example:443"]}, "root": "fake",
            "limits": {"memory_mb": 256, "timeout_seconds": 90}}
    assert ok(client.api("GET", f"/environments/{made}"))["sandbox"] == want
    muster("update", made, "--name", "renamed")
    assert ok(client.api("GET", f"/environments/{made}"))["sandbox"] == want
    muster("update", made, "--allow", "c.example:443", "--limit", "memory_mb=512")
    want["network"]["allow"], want["limits"]["memory_mb"] = ["c.example:443"], 512
    assert ok(client.api("GET", f"/environments/{made}"))["sandbox"] == want
    shown = muster("get", made)
    assert "c.example:443" in shown and "memory_mb=512" in shown
    muster("update", made, "--no-sandbox", "--nested")
    assert ok(client.api("GET", f"/environments/{made}"))["sandbox"] == {"nested": True}
    muster("update", made, "--no-sandbox")
    assert "sandbox" not in ok(client.api("GET", f"/environments/{made}"))


# --- what workers get, and which ---

@pytest.fixture
def fleet(make_server):
    server = make_server(env={"OZ_WORKER_SIDECAR_IMAGE": "registry.test/sidecar:1"})
    yield server, server.client()


def run_in(client, sandbox, **config):
    made = ok(create(client, sandbox))
    return made["id"], client.create("do it", config={"environment_id": made["id"], **config})["run_id"]


def message(client, run_id):
    run = client.run(run_id)
    return run["state"], (run["status_message"] or {}).get("message", "")


def test_the_assignment_carries_what_was_said_when_the_run_was_made(fleet):
    server, client = fleet
    env, run_id = run_in(client, FULL)
    other = {"name": "n", "docker_image": "debian:12", "sandbox": {"network": {"mode": "none"}}}
    ok(client.api("PUT", f"/environments/{env}", json=other))
    before = time.time()
    with Native(server, features=ALL) as peer:
        task = peer.assigned(run_id)
        assert task["policy"] == {k: FULL[k] for k in ("network", "nested", "root")}
        assert task["resources"] == {k: v for k, v in FULL["limits"].items() if k != "timeout_seconds"}
        deadline = datetime.datetime.fromisoformat(task["deadline_at"].replace("Z", "+00:00")).timestamp()
        assert before + 55 < deadline < time.time() + 61, task["deadline_at"]
        peer.claim(task)
        peer.complete(task, output="x")
        client.wait(run_id)
        plain = peer.assigned(client.create("do it", config={"environment_id": client.environment()["id"]})["run_id"])
        assert "policy" not in plain and "resources" not in plain


def test_a_run_waits_for_a_worker_that_can_and_says_so(fleet):
    server, client = fleet
    with Native(server, "weak", features=["network:none", "limits", "limits:time"]) as weak, V(server, "go") as go:
        _, run_id = run_in(client, FULL)
        state, text = eventually(lambda: message(client, run_id)[1].startswith("No connected") and message(client, run_id))
        assert state == "PENDING"
        for word in ("network:proxy", "nested", "root:fake", "limits:disk"):
            assert word in text, text
        _, easy = run_in(client, {"network": {"mode": "none"}, "limits": {"pids": 50}})
        weak.assigned(easy)
        weak.nothing("task_assignment", 2, run_id)
        go.nothing("task_assignment", 0, run_id)
        go.nothing("task_assignment", 0, easy)
        with Native(server, "strong", features=ALL) as strong:
            task = strong.assigned(run_id, timeout=5)
            strong.claim(task)
            client.wait(run_id, "INPROGRESS")
            assert "No connected" not in message(client, run_id)[1]


def test_the_one_that_can_is_found_among_many(fleet):
    server, client = fleet
    with contextlib.ExitStack() as stack:
        for i in range(80):
            stack.enter_context(Native(server, f"weak-{i}", features=[]))
        strong = stack.enter_context(Native(server, "strong", features=ALL))
        for _ in range(3):
            task = strong.assigned(run_in(client, {"root": "fake"})[1], timeout=5)
            strong.claim(task)
            strong.complete(task, output="x")
            client.wait(task["task_id"])


def test_a_run_tied_to_a_worker_that_cannot_says_so(fleet):
    server, client = fleet
    with Native(server, "weak", features=[]) as weak:
        _, run_id = run_in(client, {"network": {"mode": "none"}}, worker_host="weak")
        eventually(lambda: "config.worker_host" in message(client, run_id)[1] and "network:none" in message(client, run_id)[1])
        weak.nothing("task_assignment", 1, run_id)


@pytest.mark.engine_free
def test_the_reason_outlives_a_restart_and_the_wait(make_server):
    server = make_server()
    client = server.client()
    with Native(server, "weak", features=[]):
        _, run_id = run_in(client, {"root": "fake"})
        eventually(lambda: "root:fake" in message(client, run_id)[1])
    server.kill9()
    with contextlib.closing(sqlite3.connect(server.data / "muster.db")) as db, db:  # the wait is an hour and more
        assert db.execute("UPDATE sessions SET deadline_ms = ? WHERE id = ?",
                          (int(time.time() * 1000) + 4000, run_id.removeprefix("run_"))).rowcount == 1
    server.start()
    client = server.client()
    assert "root:fake" in message(client, run_id)[1]
    run = client.wait(run_id, timeout=30)
    assert run["state"] == "FAILED" and run["error"]["code"] == "timeout"
    assert run["error"]["message"].startswith("No worker took the run in time. ") and "root:fake" in run["error"]["message"]


def test_needs_survive_a_restart(make_server):
    server = make_server()
    client = server.client()
    _, run_id = run_in(client, {"root": "fake"})
    server.kill9()
    server.start()
    client = server.client()
    with Native(server, "weak", features=[]) as weak:
        eventually(lambda: "root:fake" in message(client, run_id)[1])
        weak.nothing("task_assignment", 1, run_id)
        with Native(server, "strong", features=ALL) as strong:
            strong.assigned(run_id)


@pytest.mark.parametrize("harness_, word", [("claude-code", "claude"), ("codex", "codex"), ("gemini-cli", "gemini"),
                                            ("opencode", "opencode")])
def test_a_run_goes_to_a_worker_that_has_its_harness(fleet, harness_, word):
    server, client = fleet
    with Native(server, "bare", harnesses=["shell"]) as bare:
        run_id = client.create("do it", config={"environment_id": "debian:12", "harness": harness_})["run_id"]
        eventually(lambda: f"harness {word}" in message(client, run_id)[1])
        for brings in ({"env_vars": {f"OZ_SIDECAR_{word.upper()}_CMD": "/opt/agent"}}, {"setup_commands": ["./install"]}):
            env = client.environment(**brings)["id"]
            bare.assigned(client.create("do it", config={"environment_id": env, "harness": harness_})["run_id"])
        bare.assigned(client.create("do it", config={"environment_id": "debian:12", "harness": "shell"})["run_id"])
        bare.nothing("task_assignment", 0, run_id)
        with Native(server, "has", harnesses=["shell", word]) as has:
            has.assigned(run_id, timeout=5)
        rest = client.create("do it", config={"environment_id": "debian:12", "harness": harness_})["run_id"]
        with Native(server, "images", harnesses=["shell"], features=["harness:any"]) as images:
            images.assigned(rest, timeout=5)


# --- honoured by a real worker ---

REACH = """\
import socket, sys
for port in sys.argv[1:]:
    try:
        s = socket.create_connection(("127.0.0.1", 3128), 10)
    except OSError as e:
        print("way", port, "closed", e.errno)
        continue
    s.sendall(b"CONNECT localhost:%d HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n" % int(port))
    head = s.recv(4096).decode()
    print("way", port, head.split()[1], [l for l in head.splitlines() if l.startswith("X-Muster-Reason")])
    if head.split()[1] == "200":
        s.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
        body = b""
        while piece := s.recv(4096):
            body += piece
        print("got", body.decode().split("\\r\\n\\r\\n")[1])
try:
    socket.create_connection(("127.0.0.1", int(sys.argv[1])), 2)
    print("direct open")
except OSError as e:
    print("direct closed")
"""


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"the page")

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def page():
    class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
        daemon_threads = True
    with Server(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.fixture(scope="module")
def usable(tmp_path_factory):
    harness.need_sandbox(tmp_path_factory.mktemp("check"), "--sandbox", "namespace")


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A host of repositories: the port, where /one.git is one, over plain HTTP."""
    d = tmp_path_factory.mktemp("hub")
    work, who = d / "work", ["-c", "user.name=n", "-c", "user.email=n@example.org"]
    for args in (["init", "-q", str(work)], ["-C", str(work), *who, "commit", "-q", "--allow-empty", "-m", "first"],
                 ["clone", "-q", "--bare", str(work), str(d / "one.git")], ["-C", str(d / "one.git"), "update-server-info"]):
        subprocess.run(["git", *args], check=True)

    class Files(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(d))

        def log_message(self, *args):
            pass
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.fixture
def real(make_server, usable, page, hub):
    server = make_server(env={"OZ_EMBEDDED_WORKER": "on", "SANDBOX_DRIVER": "namespace", "SANDBOX_PIDS": "300",
                              "OZ_SANDBOX_ALLOW": "none", "OZ_SANDBOX_ALLOW_ADDR": f"127.0.0.1:{page},127.0.0.1:{hub}"})
    client = server.client()
    worker = eventually(lambda: [w for w in ok(client.api("GET", "/workers"))["workers"] if w["connected"] and "features" in w.get("capabilities", {})], timeout=30)[0]
    return client, worker


def do(client, sandbox, script, **body):
    made = ok(create(client, sandbox, **body))
    run_id = client.create(script, config={"environment_id": made["id"], "harness": "shell"})["run_id"]
    return client.wait(run_id, timeout=90)


def reach(client, sandbox, *ports, **body):
    run = do(client, sandbox, f"cat >/tmp/reach.py <<'END'\n{REACH}\nEND\npython3 /tmp/reach.py {' '.join(map(str, ports))}", **body)
    assert run["state"] == "SUCCEEDED", run
    return run["output"]


def test_a_listed_host_is_reached_and_no_other(real, page):
    client, worker = real
    assert {"network:proxy", "network:none", "root:fake", "limits"} <= set(worker["capabilities"]["features"])
    assert not {"nested", "network:host"} & set(worker["capabilities"]["features"])
    other = page + 1 if page < 65535 else page - 1
    out = reach(client, {"network": {"allow": [f"localhost:{page}"]}}, page, other)
    assert f"way {page} 200" in out and "got the page" in out and f"way {other} 403" in out and "direct closed" in out, out
    assert f"way {page} 403" in reach(client, {"network": {"mode": "proxy"}}, page)
    assert f"way {page} 403" in reach(client, None, page), "the environment that says nothing has the worker's list"


def test_the_host_of_a_repository_is_reached(real, page, hub):
    out = reach(real[0], None, hub, page, repos=[f"http://localhost:{hub}/one.git"])
    assert f"way {hub} 200" in out and f"way {page} 403" in out, out


def test_none_reaches_nothing(real, page):
    out = reach(real[0], {"network": {"mode": "none"}}, page)
    assert f"way {page} closed" in out and "direct closed" in out, out


def test_limits_are_those_of_the_environment_within_those_of_the_worker(real):
    client, _ = real
    asks = "sed -n 's/^Max processes *//p' /proc/self/limits | cut -d' ' -f1"
    run = do(client, {"limits": {"pids": 120}}, asks)
    assert run["output"].split()[-1] == "120", run
    run = do(client, {"limits": {"pids": 4000}}, asks)
    assert run["output"].split()[-1] == "300", run
    run = do(client, {"limits": {"timeout_seconds": 2}}, "sleep 60")
    assert run["state"] == "FAILED" and "time" in run["error"]["message"].lower(), run


def test_fake_root_is_user_0(real):
    run = do(real[0], {"root": "fake"}, "id -u; chown 1:1 /tmp && echo changed")
    assert run["output"].split()[-2:] == ["0", "changed"], run


def test_what_the_worker_forbids_is_not_begun(real):
    client, _ = real
    _, run_id = run_in(client, {"nested": True}, harness="shell")
    state, text = eventually(lambda: "nested" in message(client, run_id)[1] and message(client, run_id))
    assert state == "PENDING" and re.search(r"it needs nested\b", text), text
