"""`muster worker` itself as a runner of an org: enrolment with a token, its credential, the end of it."""
import json
import os
import stat
import types

import harness
import pytest
import worker_daemon
from village import data
from worker_peers import Native


class Program(worker_daemon.Daemon):
    """Without a key of its own."""

    def __init__(self, org, *flags, token=None, env=None, **more):
        super().__init__(types.SimpleNamespace(url=org.server.url, key=token or "en_no-token-at-all"), *flags, env=env, **more)
        del self.env["OZ_API_KEY"]
        self.env.update(env or {})

    @property
    def credential(self):
        return self.state / "credential"


@pytest.fixture
def worker(org):
    made = []

    def make(*flags, **more):
        made.append(Program(org, *flags, **more))
        return made[-1]
    yield make
    for w in made:
        try:
            w.stop(code=None)
        finally:
            w.remove()


def online(org, name):
    return harness.eventually(lambda: next((r for r in data(org.boss("GET", "/runners"))["items"]
                                            if r["hostname"] == name and r["connected"] and r["version"]), None),
                              timeout=30, what=f"the connection of {name}")


def busy(org, prompt):
    """A run that goes on at the org's worker."""
    run = org.boss.client.create(prompt, config={"environment_id": "debian:12", "harness": "shell"})["run_id"]
    harness.eventually(lambda: org.boss.client.run(run)["state"] == "INPROGRESS", timeout=30, what="INPROGRESS")
    return run


def written(worker, text):
    path = worker.dir / "token"
    path.write_text(text + "\n")
    path.chmod(0o600)
    return path


def test_a_token_is_used_once_and_the_credential_from_then_on(org, worker):
    token = org.token()["token"]
    w = worker(token=token)
    file = written(w, token)
    w.args += ["--enrol-token-file", str(file)]
    w.start()
    first = online(org, "w1")
    assert first["orgId"] == org.id
    assert stat.S_IMODE(os.stat(w.credential).st_mode) == 0o600 and w.credential.read_text().startswith("wk_")
    credential = w.credential.read_text()
    w.stop()
    file.unlink()  # it is not needed any more
    w.start()
    assert online(org, "w1")["runnerId"] == first["runnerId"]
    assert w.credential.read_text() == credential
    w.stop()
    w.args = w.args[:-2]  # nor is its name
    w.start()
    assert online(org, "w1")["runnerId"] == first["runnerId"]
    log = json.dumps(w.log) + w.err
    assert token not in log and credential not in log


def test_the_heartbeat_tells_how_full_the_disk_is(org, worker):
    w = worker(env={"OZ_WORKER_ENROL_TOKEN": org.token()["token"]}).start()
    online(org, "w1")
    load = harness.eventually(lambda: (x := online(org, "w1")["load"]).get("diskPercent") is not None and x, timeout=30,
                              what="a heartbeat")
    v = os.statvfs(w.state)
    used = 100 * (v.f_blocks - v.f_bfree) / (v.f_blocks - v.f_bfree + v.f_bavail)
    assert abs(load["diskPercent"] - used) <= 3, (load, used)


def test_a_deregistered_worker_ends_with_what_it_runs(org, worker):
    w = worker(env={"OZ_WORKER_ENROL_TOKEN": org.token()["token"]}).start()
    runner = online(org, "w1")["runnerId"]
    mark = f"sleep 98765.{os.getpid()}"
    run = busy(org, mark)
    harness.eventually(lambda: harness.processes_with(mark), what="its process")
    assert org.boss("DELETE", f"/runners/{runner}", params={"force": "true"}).status_code == 200
    assert w.wait_exit() == 5, w.tail()
    said = w.wait_log("link.deregistered")
    assert said["level"] == "error" and "fresh enrolment token" in said["note"]
    harness.eventually(lambda: not harness.processes_with(mark), what="the end of its process")
    assert not w.leftovers() and not w.credential.exists()
    harness.eventually(lambda: org.boss.client.run(run)["state"] == "FAILED", what="the end of its run")
    w.start()  # the token is used up
    assert w.wait_exit() == 3 and "used up" in w.wait_log("link.refused")["note"]
    w.env["OZ_WORKER_ENROL_TOKEN"] = org.token()["token"]
    w.start()
    assert online(org, "w1")["runnerId"] != runner


def test_one_that_was_away_meanwhile_enrols_anew_or_ends(org, worker):
    w = worker(env={"OZ_WORKER_ENROL_TOKEN": org.token()["token"]}).start()
    runner = online(org, "w1")["runnerId"]
    w.stop()
    assert org.boss("DELETE", f"/runners/{runner}").status_code == 200
    w.env["OZ_WORKER_ENROL_TOKEN"] = org.token()["token"]
    w.start()
    again = online(org, "w1")["runnerId"]
    assert again != runner and w.wait_log("link.credential_dropped")
    w.stop()
    assert org.boss("DELETE", f"/runners/{again}").status_code == 200
    del w.env["OZ_WORKER_ENROL_TOKEN"]
    w.start()
    assert w.wait_exit() == 5 and not w.credential.exists()
    w.start()
    assert w.wait_exit() == 2 and "--enrol-token-file" in w.err


def test_what_is_no_token_is_refused_before_it_connects(org, worker):
    for text, why in (("wk_x", "not an enrolment token"), ("en_a b", "not an enrolment token"), ("", "")):
        w = worker()
        w.args += ["--enrol-token-file", str(written(w, text))]
        w.start()
        assert w.wait_exit() == 2 and why in w.err, w.tail()
    w = worker("--enrol-token-file", "/nonexistent/token").start()
    assert w.wait_exit() == 2 and "--enrol-token-file" in w.err
    w = worker(env={"OZ_WORKER_ENROL_TOKEN": "en_" + "0" * 64}).start()
    assert w.wait_exit() == 3 and "en_000" not in json.dumps(w.log) + w.err


def test_another_name_cannot_use_its_folder(org, worker):
    w = worker(env={"OZ_WORKER_ENROL_TOKEN": org.token()["token"]}).start()
    online(org, "w1")
    w.stop()
    w.args[w.args.index("--worker-id") + 1] = "w2"
    w.start()
    assert w.wait_exit() == 3, w.tail()
    peer = Native(org.server, "w1", key=w.credential.read_text())  # the credential is as good as before
    peer.close()
