"""A machine that is out of reach for longer than OZ_WORKER_RECONNECT_GRACE_MS. What was executed is the witness's word."""
import hashlib
import pathlib
import shutil
import tempfile

import harness
import netlab
import pytest
import witness
import worker_daemon

pytestmark = [pytest.mark.skipif(netlab.unusable() is not None, reason=str(netlab.unusable())), pytest.mark.engine_free]
GRACE_MS = 4000
SETTLED = 30  # seconds


class Site:
    """A server on the host, and machines with a plain cable each."""

    def __init__(self, folder):
        self.dir, self.machines, self.workers = folder, [], {}
        self.names = [f"{folder.name.rpartition('-')[2]}-{i}" for i in range(2)]
        self.witness = witness.Witness(folder / "w", self.names)
        self.gateways = []
        for _ in self.names:
            self.machines.append(netlab.Machine())
            self.gateways.append(netlab.veth(self.machines[-1])[0])
        address = self.address = self.gateways[0]

        class There(harness.Server):
            url = property(lambda self: f"http://{address}:{self.port}")

        self.keys = [hashlib.sha256(n.encode()).hexdigest() for n in self.names]
        keys = ",".join(f"{n}={hashlib.sha256(k.encode()).hexdigest()}" for n, k in zip(self.names, self.keys))
        self.server = There({"OZ_CONTROL_PLANE_HOST": address, "OZ_WORKER_KEYS": keys,
                             "OZ_WORKER_RECONNECT_GRACE_MS": str(GRACE_MS)}, name="partition").start()
        self.client = self.server.client()
        self.environment = self.client.environment()["id"]

    def begin(self, i):
        name = self.names[i]

        class Hand:
            url, key = self.server.url, self.keys[i]

        if i:
            self.machines[i].run("ip", "route", "add", f"{self.address}/32", "via", self.gateways[i])
        env = {"OZ_SANDBOX_RO": str(self.witness.folder(name))}
        self.workers[i] = worker_daemon.Daemon(Hand, "--sandbox", "namespace", "--capacity", "1", kind="namespace", env=env,
                                               worker_id=name, prefix=self.machines[i].prefix).start()
        self.wait_connected(i)

    def wait_connected(self, i, timeout=60):
        def there():
            return [w for w in harness.ok(self.client.api("GET", "/workers"))["workers"] if w["id"] == self.names[i] and w["connected"]]
        harness.eventually(there, timeout=timeout, what="the worker's connection")

    def mute(self, i):
        """What it sends goes to an address that nobody has; what is sent to it arrives."""
        self.machines[i].run("ip", "neigh", "replace", self.gateways[i], "lladdr", "02:00:00:00:de:ad", "dev", "up0", "nud", "permanent")

    def cut(self, i):
        self.machines[i].run("ip", "link", "set", "up0", "down")

    def mend(self, i):
        self.machines[i].run("ip", "link", "set", "up0", "up")
        self.machines[i].run("ip", "neigh", "flush", "dev", "up0", "nud", "permanent")
        if i:
            self.machines[i].run("ip", "route", "replace", f"{self.address}/32", "via", self.gateways[i])

    def forget(self):
        """The server starts again: every attempt is without a connection from now on, not first after 85 s of silence."""
        port = self.server.port
        self.server.kill9()
        self.server.extra["OZ_CONTROL_PLANE_PORT"] = str(port)
        self.server.start()

    def create(self, seconds):
        return self.client.create(self.witness.prompt(seconds),
                                  config={"environment_id": self.environment, "harness": "shell"})["run_id"]

    def executions(self, n, timeout=30):
        harness.eventually(lambda: len(self.witness.executions) >= n, timeout=timeout, what=f"execution {n}")
        return self.witness.executions


@pytest.fixture
def site():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="muster-partition-", dir="/tmp"))
    folder.chmod(0o755)
    s = Site(folder)
    try:
        yield s
        for w in s.workers.values():
            w.stop()
        s.server.stop()
    finally:
        for w in s.workers.values():
            if w.process.poll() is None:
                w.kill9()
            w.remove()
        if s.server.alive():
            s.server.kill9()
        s.server.remove()
        for m in s.machines:
            m.remove()
        s.witness.stop()
        shutil.rmtree(folder)


def test_an_attempt_that_was_never_confirmed_is_over_before_another_begins(site):
    site.begin(0)
    site.mute(0)
    run_id = site.create(120)
    (first,) = site.executions(1)  # it was told; that it began is heard by nobody
    site.cut(0)
    assert site.client.run(run_id)["state"] != "INPROGRESS" and first.worker == site.names[0]
    site.forget()
    site.begin(1)
    second = site.executions(2, SETTLED)[1]
    assert second.worker == site.names[1]
    assert first.gone is not None and first.gone < second.started, "two executions at the same time"
    site.mend(0)
    site.wait_connected(0)
    assert site.client.run(run_id)["state"] == "INPROGRESS" and second.gone is None
    harness.ok(site.client.cancel(run_id))
    site.client.wait(run_id, "CANCELLED")
    harness.eventually(lambda: not site.witness.live(), timeout=20, what="the end of all executions")
    assert len(site.witness.executions) == 2


def test_an_attempt_that_runs_is_lost_after_the_grace_and_not_executed_again(site):
    site.begin(0)
    site.begin(1)
    run_id = site.create(120)
    site.client.wait(run_id, "INPROGRESS")
    (first,) = site.executions(1)
    at = site.names.index(first.worker)
    site.cut(at)
    site.forget()
    run = site.client.wait(run_id, "FAILED", timeout=SETTLED)
    assert run["error"] == {**run["error"], "code": "worker_lost", "message": "Worker disconnected"}
    site.mend(at)
    site.wait_connected(at)
    harness.eventually(lambda: not site.witness.live(), timeout=20, what="the end of the lost execution")
    assert len(site.witness.executions) == 1 and first.ended is None
    assert site.client.run(run_id)["completed_at"] == run["completed_at"]


def test_an_attempt_that_runs_outlives_a_cable_that_comes_back_in_time(site):
    site.begin(0)
    run_id = site.create(6)
    site.client.wait(run_id, "INPROGRESS")
    (only,) = site.executions(1)
    site.cut(0)
    harness.eventually(lambda: only.ended is not None, timeout=20, what="the end of its work")
    assert site.client.run(run_id)["state"] == "INPROGRESS"
    site.mend(0)
    run = site.client.wait(run_id, timeout=40)
    assert run["state"] == "SUCCEEDED" and run["output"] == witness.Witness.output(only.name, 0)
    assert len(site.witness.executions) == 1
