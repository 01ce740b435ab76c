"""The worker inside `muster serve`: a task in a namespace sandbox with nothing else installed, restarts, stops."""
import os
import signal
import socket
import subprocess
import time

import harness
import pytest

OPTIONS = {"OZ_EMBEDDED_WORKER": "on"}


@pytest.fixture(scope="module", autouse=True)
def usable(tmp_path_factory):
    harness.need_sandbox(tmp_path_factory.mktemp("check"))


@pytest.fixture
def server(make_server):
    return make_server(env=OPTIONS)


def ready(client):
    def find():
        workers = harness.ok(client.api("GET", "/workers"))["workers"]
        return [w for w in workers if w["connected"] and w["version"]]  # its hello has come too
    return harness.eventually(find, timeout=30, what="the embedded worker's connection")[0]


def task(client, script, **env):
    made = client.environment(**({"env_vars": env} if env else {}))
    config = {"environment_id": made["id"], "harness": "shell"}
    return client.create(script, config=config)["run_id"]


def test_a_task_runs_in_a_sandbox(server):
    client = server.client()
    worker = ready(client)
    assert worker["dialect"] == "native" and worker["capacity"] == 8 and worker["id"].startswith("embedded-")
    run = client.wait(task(client, "echo out; id -un; echo $GREETING; cat /etc/shadow; exit 0", GREETING="hi there"), timeout=60)
    assert run["state"] == "SUCCEEDED", run
    lines = run["status_message"]["message"].splitlines()
    assert lines[0] == "out" and "agent" in lines and "hi there" in lines, lines
    assert "root:" not in run["status_message"]["message"]


def test_failure_and_cancel(server):
    client = server.client()
    ready(client)
    run = client.wait(task(client, "echo no >&2; exit 3"), timeout=60)
    assert run["state"] == "FAILED"
    word = "sleeper-of-this-test"
    run_id = task(client, f"echo started; sleep 300 # {word}")
    client.wait(run_id, "INPROGRESS", timeout=30)
    time.sleep(1)
    client.cancel(run_id)
    client.wait(run_id, "CANCELLED")
    harness.eventually(lambda: not harness.processes_with(run_id), timeout=20, what="the end of the sandbox")


def test_the_worker_is_started_again_and_its_tasks_go_on(server):
    client = server.client()
    ready(client)
    run_id = task(client, "for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 1; done")
    client.wait(run_id, "INPROGRESS", timeout=30)
    time.sleep(1)
    pids = [p for p in harness.processes_with("--with-parent") if f"PPid:\t{server.pid}\n" in open(f"/proc/{p}/status").read()]
    assert len(pids) == 1
    os.kill(pids[0], signal.SIGKILL)
    server.wait_log("worker.embedded_ended")
    run = client.wait(run_id, timeout=60)
    assert run["state"] == "SUCCEEDED" and run["status_message"]["message"].split() == list("12345678"), run


def test_the_worker_ends_with_its_server(server):
    client = server.client()
    ready(client)
    data = str(server.data)
    server.kill9()
    harness.eventually(lambda: not [p for p in harness.processes_with("--with-parent") if p in harness.processes_with(data)],
                       timeout=15, what="the end of the worker")


def test_the_server_may_be_process_1(make_server):
    """The only program of a container: its worker takes that parent for what it is."""
    alone = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if subprocess.run([*alone, "true"], capture_output=True).returncode != 0:
        pytest.skip("no namespaces to be had here")
    server = make_server(env=OPTIONS, start=False)
    server.prefix = alone
    server.start()
    server.wait_log("worker.start", 30)  # a sandbox may not be had in there
    server.kill9()


def connected(server):
    """From the log: the clients of these tests know no other address than 127.0.0.1."""
    return harness.eventually(lambda: [e for e in server.log if e.get("msg") == "worker.connected"], timeout=30,
                              what="the embedded worker's connection")


@pytest.mark.parametrize("host", ["::", "::1", "0.0.0.0", "127.0.0.7"])
def test_it_finds_its_server_wherever_that_listens(make_server, host):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as s:
            s.bind((host, 0))
    except OSError as e:
        pytest.skip(f"{host} cannot be listened on here: {e}")
    server = make_server(env={**OPTIONS, "OZ_CONTROL_PLANE_HOST": host})
    connected(server)


def test_it_finds_its_server_on_an_inherited_socket(make_server):
    """The socket counts, not the setting."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        server = make_server(env={**OPTIONS, "OZ_CONTROL_PLANE_HOST": "127.0.0.9", "LISTEN_FDS": "1"}, start=False)
        server.pass_fds = [listener.fileno()]
        # LISTEN_PID must be the pid after exec: a shell sets it and becomes the server.
        server.prefix = ["/bin/bash", "-c", f'LISTEN_PID=$$ exec "$@" 3<&{listener.fileno()}', "sh"]
        server.start()
        connected(server)


def test_off_is_off(make_server):
    server = make_server(env={"OZ_EMBEDDED_WORKER": "off"})
    time.sleep(1)
    assert harness.ok(server.client().api("GET", "/workers"))["workers"] == []
