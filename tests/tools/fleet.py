"""What the tests of the worker endpoint share: settings of their server, and runs for scripted workers."""
import re
import time

from harness import ok
from worker_peers import Native, V, W

SIDECAR = "registry.test/sidecar:1"
GRACE = 6000
FLEET = {"OZ_WORKER_SIDECAR_IMAGE": SIDECAR, "OZ_WORKER_RECONNECT_GRACE_MS": str(GRACE),
         "OZ_WORKER_CLAIM_TIMEOUT_MS": "10000"}
DIALECTS = (V, W, Native)


def make(client, peer=None, prompt="do it", **config):
    """A run for one worker; its id. Without a worker: for any."""
    if peer is not None:
        config.setdefault("worker_host", peer.worker_id)
    return client.create(prompt, config={"environment_id": "debian:12", **config})["run_id"]


def begin(client, peer, **config):
    """A run that the worker has claimed; its assignment."""
    task = peer.assigned(make(client, peer, **config))
    peer.claim(task)
    client.wait(task["task_id"], "INPROGRESS")
    return task


def metric(server, name):
    text = server.client().get("/metrics").text
    return sum(float(m[1]) for m in re.finditer(rf"^{name}(?:{{[^}}]*}})? ([0-9.e+]+)$", text, re.M))


def workers(server):
    return {w["id"]: w for w in ok(server.client().api("GET", "/workers"))["workers"]}


def memory(server, field="VmRSS"):
    for line in open(f"/proc/{server.pid}/status"):
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise AssertionError(field)


def settled(peer):
    """The server has dealt with everything that the peer sent."""
    peer.ping_pong(b"settled")
    time.sleep(0.1)
