"""A worker on another machine: a network namespace with an address of its own, from which the server and the repository are
reached by their addresses only, and no loopback address of this machine at all."""
import hashlib
import http.server
import json
import pathlib
import shutil
import socket
import subprocess
import tempfile
import threading

import harness
import netlab
import pytest
import worker_daemon

pytestmark = pytest.mark.skipif(netlab.unusable() is not None, reason=str(netlab.unusable()))
NAME, KEY = "second-machine", "the-key-of-the-second-machine"
WORK = r"""
set -e
cat README.md
printf 'changed\n' >> README.md
printf 'made\n' > new.txt
git add -A
git -c user.name=a -c user.email=a@example.test commit -qm 'One change'
git log -1 --format=%s
mkdir -p .oz/artifacts
printf 'kept' > .oz/artifacts/kept.bin
echo "interfaces: $(ls /sys/class/net 2>/dev/null || cut -d: -f1 /proc/net/dev | tail -n +3 | tr -d ' ')"
"""


class Git(http.server.ThreadingHTTPServer):
    """Serves repositories below a folder, read-only; who came is kept."""

    def __init__(self, folder, address):
        self.peers = set()
        outer = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *args):
                super().__init__(*args, directory=str(folder))

            def log_message(self, *args):
                outer.peers.add(self.client_address[0])

        super().__init__((address, 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


def git(*words, cwd=None, **options):
    return subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@example.test", "-c", "init.defaultBranch=main", *words],
                          cwd=cwd, check=True, capture_output=True, **options).stdout


@pytest.fixture
def machine():
    m = netlab.Machine()
    yield m
    m.remove()


@pytest.fixture
def repository():
    place = pathlib.Path(tempfile.mkdtemp(prefix="muster-repo-", dir="/tmp"))
    git("init", "-q", "work", cwd=place)
    (place / "work/README.md").write_text("the readme\n")
    git("add", "-A", cwd=place / "work")
    git("commit", "-qm", "Begin", cwd=place / "work")
    git("clone", "-q", "--bare", "work", "www/one.git", cwd=place)
    git("update-server-info", cwd=place / "www/one.git")
    yield place
    shutil.rmtree(place)


class There(harness.Server):
    """Listens on the cable's address."""
    address = None

    @property
    def url(self):
        return f"http://{self.address}:{self.port}"


class Hand:
    def __init__(self, server, key):
        self.url, self.key = server.url, key


@pytest.fixture
def place(machine, postgres):
    """(server, the address of the other machine)."""
    ours, theirs = netlab.veth(machine)
    server = There({"OZ_CONTROL_PLANE_HOST": ours, "OZ_WORKER_KEYS": f"{NAME}={hashlib.sha256(KEY.encode()).hexdigest()}"},
                   postgres=postgres, name="second-machine")
    server.address = ours
    try:
        yield server.start(), theirs
        server.stop()
    finally:
        server.remove()


def daemon(server, machine, key=KEY):
    return worker_daemon.Daemon(Hand(server, key), "--sandbox", "namespace", kind="namespace", worker_id=NAME,
                                prefix=machine.prefix).start()


def test_a_second_machine_works_on_a_repository(place, machine, repository):
    server, theirs = place
    with machine.inside(), pytest.raises(OSError):  # what listens on this machine's loopback is not there
        socket.create_connection(("127.0.0.1", server.port), 1)
    source = Git(repository / "www", server.address)
    worker = daemon(server, machine)
    try:
        client = server.client()
        harness.eventually(lambda: [w for w in harness.ok(client.api("GET", "/workers"))["workers"]
                                    if w["id"] == NAME and w["connected"]], timeout=30, what="the worker's connection")
        made = client.environment(repos=[f"http://{server.address}:{source.server_port}/one.git"])
        run = client.finish(WORK, timeout=60, config={"environment_id": made["id"], "harness": "shell"})
        assert run["state"] == "SUCCEEDED", (run, worker.tail())
        lines = run["output"].splitlines()
        assert lines[:2] == ["the readme", "One change"] and lines[-1] in ("interfaces: lo", "interfaces: "), lines
        assert source.peers == {theirs}
        files = {f["name"] for f in harness.ok(client.api("GET", f"/agent/runs/{run['run_id']}/files"))["files"]}
        assert {"changes.patch", "kept.bin", "output"} <= files, files

        def download(name):
            return client.get(f"{harness.API}/agent/runs/{run['run_id']}/files/{name}").content
        assert download("kept.bin") == b"kept"
        git("apply", "-", cwd=repository / "work", input=download("changes.patch"))
        assert (repository / "work/README.md").read_text() == "the readme\nchanged\n"
        assert (repository / "work/new.txt").read_text() == "made\n"
        harness.eventually(lambda: not list((worker.state / "s").iterdir()), what="the end of the sandbox's folder")
    finally:
        worker.stop()
        worker.remove()
        source.shutdown()
        source.server_close()


def test_a_second_machine_without_its_key_is_refused(place, machine):
    worker = daemon(place[0], machine, key="not-" + KEY)
    try:
        assert worker.wait_exit() == 3
        assert KEY not in worker.err + json.dumps(worker.log)
    finally:
        worker.remove()
