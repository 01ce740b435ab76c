"""The docker driver against an engine that exists only on a socket (oz-worker.md 9, 18 (15)-(21)); and against a real
Podman where there is one (test_docker_podman.py)."""
import json
import threading
import time

import pytest

from fake_engine import Engine, Program
from sandbox_box import Box

pytestmark = pytest.mark.engine_free


@pytest.fixture
def engine(tmp_path):
    fake = Engine(tmp_path / "engine.sock")
    fake.images["task:1"] = {}
    fake.images["owner/tool:2"] = {"files": {"entrypoint.sh": b"#!/bin/sh\n", "bin/x": b"x" * 300000}, "digest": "a" * 64}
    yield fake
    fake.down()


@pytest.fixture
def bundle(tmp_path):
    (tmp_path / "agent/bin").mkdir(parents=True)
    (tmp_path / "agent/entrypoint.sh").write_text("#!/bin/sh\n")
    (tmp_path / "agent/bin/muster").write_bytes(b"m" * 700000)
    return tmp_path / "agent"


@pytest.fixture
def box(engine, bundle):
    boxes = []

    def make(*options, **more):
        settings = {"host": "unix://" + engine.path, "bundle": bundle, "image": "task:1", "execution": "exec-00000001",
                    "task": "run_7", **more}
        boxes.append(Box("--driver", "docker", *options, **settings))
        return boxes[-1]

    yield make
    for one in boxes:
        one.close()


def calls(engine, *without):
    return [c for c in engine.calls if not c.startswith("GET /_ping") and not any(w in c for w in without)]


def run(one, engine, program=None):
    if program:
        engine.program = program
    one.say("start")
    return one.until("ended")


# --- (15) every call in order ---

def test_calls_of_a_first_run_with_a_sidecar_image(box, engine):
    engine.images.pop("task:1")
    engine.registry["task:1"] = {}
    one = box(sidecar="owner/tool:2", prompt=__file__, env=["A=1", "B=2"])
    end = run(one, engine, Program([(0, 1, b"hello\n")]))
    assert (end["exit_code"], end["reason"], end["message"], end["oom"]) == (0, None, None, False)
    assert one.log == b"hello\n"
    one.release()
    volume = "owner-tool-aaaaaaaaaaaa"
    got = calls(engine)
    assert got[:2] == ["GET /images/task:1/json", "GET /version"]
    assert got[2:19] == [
        "POST /images/create?fromImage=task&tag=1&platform=linux/amd64",
        "GET /images/task:1/json",
        "GET /images/owner/tool:2/json",
        f"GET /volumes/{volume}",
        "POST /volumes/create",
        "POST /containers/create",                                          # <1>: mounts the volume, is never started
        "HEAD /containers/<1>/archive?path=/agent/.oz-ready",
        "POST /containers/create",                                          # <2>: the sidecar image itself
        *got[10:12],                                                        # one piped into the other
        "PUT /containers/<1>/archive?path=/agent",                          # the marker
        "HEAD /containers/<1>/archive?path=/agent/entrypoint.sh",
        *got[14:17],
        "PUT /containers/<3>/archive?path=/",
        "POST /containers/<3>/start"]
    assert sorted(got[10:12]) == ["GET /containers/<2>/export", "PUT /containers/<1>/archive?path=/agent"]
    assert sorted(got[14:17]) == ["DELETE /containers/<1>?force=1&v=1", "DELETE /containers/<2>?force=1&v=1",
                                  "POST /containers/create?name=oz-run_7-00000001"]
    assert sorted(got[19:21]) == ["GET /containers/<3>/logs?stdout=1&stderr=1&follow=1",
                                  "POST /containers/<3>/wait?condition=not-running"]
    assert got[21:] == ["DELETE /containers/<3>?force=1&v=1"]
    assert engine.volumes[volume]["bin/x"] == b"x" * 300000 and ".oz-ready" in engine.volumes[volume]
    assert not engine.containers
    body = engine.bodies[2]
    assert body["HostConfig"]["Binds"] == [volume + ":/agent:ro"]
    assert body["Entrypoint"] == ["/agent/entrypoint.sh"] and body["Cmd"] == ["agent", "run"]
    assert body["Env"] == ["A=1", "B=2"] and body["WorkingDir"] == "/workspace"
    assert body["Labels"]["oz.execution"] == "exec-00000001" and body["Labels"]["oz.run"] == "run_7"
    for helper in engine.bodies[:2]:
        assert helper["HostConfig"]["NetworkMode"] == "none" and "AutoRemove" not in helper["HostConfig"]


def test_a_second_run_needs_six_calls_to_start(box, engine):
    one = box()
    assert run(one, engine)["exit_code"] == 0
    one.release()
    volume = next(v for v in engine.volumes if v.startswith("muster-agent-"))
    assert engine.volumes[volume]["bin/muster"] == b"m" * 700000
    del engine.calls[:]
    one.say("start")
    one.until("ended")
    assert calls(engine, "DELETE", "/wait", "/logs") == [
        "GET /images/task:1/json", f"GET /volumes/{volume}", "POST /containers/create?name=oz-run_7-00000001",
        "POST /containers/<3>/start"]
    one.release()


def test_the_version_is_negotiated(box, engine):
    engine.api = "1.52"
    one = box()
    seen = []
    engine.hooks.append(("GET", "^/images", lambda e, q: seen.append(q.version)))
    run(one, engine)
    assert seen == ["1.47"]
    one.release()


@pytest.mark.parametrize("api,why", [("1.39", "too old"), ("", "no container engine")])
def test_an_engine_that_is_none_is_named(box, engine, api, why):
    engine.api = api
    one = box()
    end = run(one, engine)
    assert end["reason"] == "image_pull" and why in end["message"]
    one.release()


def test_check_tells_what_protects(box, engine):
    one = box()
    one.say("check")
    report = one.until("report")
    assert report["usable"] and report["strength"] == "full"
    assert report["layers"] == {"user ns": True, "seccomp": True, "no-new-privs": True, "limits": True, "network": True}
    engine.down()
    one.say("check")
    report = one.until("report")
    assert not report["usable"] and report["strength"] == "unavailable" and "engine.sock" in report["summary"]
    engine.up()


# --- images ---

def test_a_pull_that_fails_inside_a_200_is_told(box, engine):
    one = box(image="absent:1")
    end = run(one, engine)
    assert end["reason"] == "image_pull" and "manifest unknown" in end["message"]
    assert any(e["event"] == "state" and e["detail"] == "latest: Pulling from absent:1" for e in one.seen)
    one.release()
    assert not any(c.startswith("DELETE") for c in engine.calls)


def test_always_pulls_but_lives_with_what_is_there(box, engine):
    one = box(pull="always")
    assert run(one, engine)["reason"] is None
    assert "POST /images/create?fromImage=task&tag=1&platform=linux/amd64" in engine.calls
    one.release()


def test_never_pulls(box, engine):
    one = box(pull="never", image="absent:1")
    end = run(one, engine)
    assert end["reason"] == "image_pull" and "may not pull" in end["message"]
    assert not any("/images/create" in c for c in engine.calls)
    one.release()


def test_an_image_of_another_machine_is_refused(box, engine):
    engine.images["task:1"] = {"arch": "s390x"}
    one = box()
    one.say("check")
    one.until("report")
    end = run(one, engine)
    assert end["reason"] == "image_pull" and "linux/s390x" in end["message"]
    one.release()


@pytest.mark.parametrize("name", ["../containers/x", "a b", "", "-x", "x?y=1"])
def test_names_that_are_no_images_go_nowhere(box, engine, name):
    one = box(image=name) if name else box(image="x/../y")
    end = run(one, engine)
    assert end["reason"] == "image_pull" and "no image's name" in end["message"]
    assert not engine.calls
    one.release()


def test_credentials_go_to_the_pull_of_the_task_image_only(box, engine, tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"reg.example:5": {"auth": "dTpw"}}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    for ref in ("reg.example:5/t:1", "reg.example:5/s:1"):
        engine.registry[ref] = {"files": {"entrypoint.sh": b"#!/bin/sh\n"}}
    one = box(image="reg.example:5/t:1", sidecar="reg.example:5/s:1")
    assert run(one, engine)["reason"] is None
    pulls = [h for c, h in zip(engine.calls, engine.headers) if "/images/create" in c]
    assert ["x-registry-auth" in h for h in pulls] == [True, False]
    one.release()


# --- sidecars ---

def test_a_sidecar_without_entrypoint_is_told_before_anything_runs(box, engine):
    engine.images["owner/tool:2"]["files"] = {"bin/x": b"x"}
    one = box(sidecar="owner/tool:2")
    end = run(one, engine)
    assert end["reason"] == "sidecar_prep" and "holds no /entrypoint.sh" in end["message"]
    one.release()
    assert not any("/start" in c for c in engine.calls)


def test_the_references_layout_is_found_too(box, engine):
    engine.images["owner/tool:2"]["files"] = {"agent/entrypoint.sh": b"#!/bin/sh\n"}
    one = box(sidecar="owner/tool:2")
    assert run(one, engine)["reason"] is None
    assert engine.bodies[-1]["Entrypoint"] == ["/agent/agent/entrypoint.sh"]
    one.release()


@pytest.mark.parametrize("method,path", [("GET", "/export$"), ("PUT", "/archive$"), ("POST", "/volumes/create$")])
def test_a_volume_that_was_not_filled_is_never_used(box, engine, method, path):
    one = box(sidecar="owner/tool:2")
    engine.hooks.append((method, path, lambda e, q: q.error(500, "no space left")))
    end = run(one, engine)
    assert end["reason"] == "sidecar_prep" and "no space left" in end["message"]
    one.release()
    engine.hooks.clear()
    until(lambda: not engine.containers)
    assert not any(".oz-ready" in v for v in engine.volumes.values())
    assert run(one, engine)["reason"] is None  # and the next one fills it
    one.release()


def test_an_export_that_breaks_off_leaves_no_volume(box, engine):
    def cut(_, q):
        q.begin(200, {})
        q.chunk(b"x" * 512)
        q.conn.shutdown(2)
        return True
    one = box(sidecar="owner/tool:2")
    engine.hooks.append(("GET", "/export$", cut))
    end = run(one, engine)
    assert end["reason"] == "sidecar_prep"
    one.release()
    until(lambda: not engine.containers)


def test_additional_sidecars_are_mounted_in_order(box, engine):
    engine.images["extra:1"] = {"files": {"lib/y": b"y"}, "digest": "b" * 64}
    one = box("--mount-image", "extra:1=/opt/extra", "--mount", "/srv/data=/data", "--volume", "/a:/b:ro")
    assert run(one, engine)["reason"] is None
    binds = engine.bodies[-1]["HostConfig"]["Binds"]
    assert binds[1:] == ["extra-" + "b" * 12 + ":/opt/extra:ro", "/srv/data:/data:ro", "/a:/b:ro"]
    one.release()


# --- (16) output ---

def test_a_hundred_lines_of_both_streams_arrive_in_order(box, engine):
    lines = [(0, 1 + i % 2, b"line %d\n" % i) for i in range(100)]
    one = box()
    run(one, engine, Program(lines))
    assert one.log == b"".join(text for _, _, text in lines)
    one.release()


def test_output_comes_while_it_runs(box, engine):
    one = box()
    engine.program = Program([(0, 1, b"early\n")], hold=True)
    one.say("start")
    one.until_log(b"early")
    one.say("stop now")
    one.until("ended")
    one.release()


def test_no_more_than_log_bytes(box, engine):
    one = box(log_bytes=1000)
    run(one, engine, Program([(0, 1, b"x" * 300)] * 100))
    assert one.log == b"x" * 1000
    one.release()


def test_a_log_that_breaks_goes_on_where_it_was(box, engine):
    broken = []

    def cut(e, q):
        if not broken and "follow" in q.query:
            broken.append(q)
            q.begin(200, {})
            q.chunk(b"\1\0\0\0\0\0\0\6line 0")
            q.conn.shutdown(2)
            return True
        return None
    engine.hooks.append(("GET", "/logs$", cut))
    one = box()
    run(one, engine, Program([(0.2, 1, b"line %d\n" % i) for i in range(10)]))
    assert broken and one.log == b"".join(b"line %d\n" % i for i in range(10))
    one.release()


def test_a_log_stream_that_never_ends_does_not_hold_the_result_up(box, engine):
    def hang(e, q):
        if "follow" not in q.query:
            return None
        q.begin(200, {})
        while not q.gone():
            time.sleep(0.05)
        return True
    engine.hooks.append(("GET", "/logs$", hang))
    one = box()
    began = time.monotonic()
    run(one, engine, Program([(0, 1, b"all of it\n")]))
    assert one.log == b"all of it\n" and time.monotonic() - began < 10
    one.release()


def test_an_engine_without_logs_does_not_hold_the_result_up(box, engine):
    engine.hooks.append(("GET", "/logs$", lambda e, q: q.error(501, "configured logging driver does not support reading")))
    one = box()
    assert run(one, engine, Program([(0.1, 1, b"x")], code=4))["exit_code"] == 4
    one.release()


# --- exit mapping ---

@pytest.mark.parametrize("program,want", [
    (Program(code=0), (0, None, False)), (Program(code=7), (7, None, False)),
    (Program(code=137, oom=True), (137, "container_oom", True)), (Program(code=137), (137, None, False))])
def test_ends_are_told_as_they_were(box, engine, program, want):
    one = box()
    end = run(one, engine, program)
    assert (end["exit_code"], end["reason"], end["oom"]) == want
    one.release()


@pytest.mark.parametrize("method,path,reason", [
    ("POST", "/containers/create$", "container_create"), ("POST", "/start$", "container_start"),
    ("PUT", "/archive$", "workspace_setup")])
def test_refusals_of_the_engine_are_told_in_its_words(box, engine, method, path, reason):
    one = box(prompt=__file__)
    run(one, engine)
    one.release()
    engine.hooks.append((method, path, lambda e, q: q.error(500, "the engine's own words")))
    end = run(one, engine)
    assert (end["reason"], end["exit_code"]) == (reason, -1) and "the engine's own words" in end["message"]
    one.release()
    until(lambda: not engine.containers)


def test_a_leftover_of_the_same_execution_makes_way(box, engine):
    one = box()
    run(one, engine)
    one.say("detach")
    one.until("detached")
    assert run(one, engine)["reason"] is None
    one.release()
    assert not engine.containers


def test_a_stranger_of_the_same_name_stays(box, engine):
    engine.containers["f" * 64] = {"id": "f" * 64, "name": "oz-run_7-00000001", "status": "exited", "code": 0, "oom": False,
                                   "started": "", "body": {"Labels": {}}, "program": Program()}
    one = box()
    end = run(one, engine)
    assert end["reason"] == "container_create" and "already" in end["message"]
    one.release()
    assert list(engine.containers) == ["f" * 64]


# --- (17) files ---

def test_files_are_read_out_of_the_container(box, engine):
    long_name = "n" * 150
    engine.program = Program(files={
        "workspace/.oz/result.json": b"{}", "workspace/.oz/agent_output.txt": b"text " * 1000,
        "workspace/.oz/artifacts/" + long_name: b"long", "workspace/big": b"b" * 3000000,
        "workspace/link": ("/etc/passwd",), "workspace/folder/x": b"x"})
    one = box()
    run(one, engine)
    assert one.read("/workspace/.oz/result.json") == ("ok", b"{}")
    assert one.read("/workspace/.oz/agent_output.txt") == ("ok", b"text " * 1000)
    assert one.read("/workspace/.oz/agent_output.txt", 7) == ("too large", b"text te")
    assert one.read("/workspace/.oz/artifacts/" + long_name) == ("ok", b"long")
    assert one.read("/workspace/.oz/nothing") == ("not found", b"")
    assert len([c for c in engine.calls if "archive?path=/workspace" in c]) == 1  # one archive brought them all
    assert one.read("/workspace/big", 4000000) == ("ok", b"b" * 3000000)
    assert one.read("/workspace/big", 10) == ("too large", b"b" * 10)
    assert one.read("/workspace/link") == ("invalid value", b"")
    assert one.read("/workspace/folder") == ("invalid value", b"")
    assert one.read("/workspace/none") == ("not found", b"")
    one.release()


def test_a_link_in_the_results_is_not_followed(box, engine):
    engine.program = Program(files={"workspace/.oz/result.json": ("/etc/passwd",), "workspace/.oz/z": b"z"})
    one = box()
    run(one, engine)
    assert one.read("/workspace/.oz/result.json") == ("invalid value", b"")
    assert one.read("/workspace/.oz/z") == ("ok", b"z")
    one.release()


def test_secrets_go_into_a_file(box, engine):
    one = box("--secret-files", env=["OZ_RUN_ID=r", "OZ_RUN_TOKEN=it's"])
    run(one, engine)
    body = engine.bodies[-1]
    assert body["Env"] == ["OZ_RUN_ID=r"] and "it's" not in json.dumps(body)
    assert b"export OZ_RUN_TOKEN='it'\\''s'\n" in list(engine.containers.values())[-1]["files"][".oz-start"]
    one.release()


# --- (18) the engine goes away ---

def test_a_container_survives_its_engine(box, engine):
    one = box()
    engine.program = Program([(0, 1, b"one\n"), (2, 1, b"two\n"), (0, 1, b"three\n")], code=5)
    one.say("start")
    one.until_log(b"one")
    engine.down()
    time.sleep(1)
    engine.up()
    end = one.until("ended")
    assert (end["exit_code"], end["reason"]) == (5, None)
    assert one.log == b"one\ntwo\nthree\n"
    one.release()


def test_a_container_that_vanished_is_told(box, engine):
    one = box()
    engine.program = Program(hold=True)
    one.say("start")
    engine.wait_call("/wait")
    engine.down()
    engine.containers.clear()
    engine.up()
    end = one.until("ended")
    assert end["reason"] == "container_wait" and "removed" in end["message"]
    one.release()


def test_a_start_without_an_answer_is_looked_into(box, engine):
    def start_and_cut(e, q):
        real = [f for m, p, f in __import__("fake_engine").ROUTES if p.endswith("/start")][0]
        conn, q.conn = q.conn, type("Nobody", (), {"sendall": lambda *_: None})()
        real(e, q, q.path.split("/")[2])
        conn.shutdown(2)
        return True
    engine.hooks.append(("POST", "/start$", start_and_cut))
    one = box()
    assert run(one, engine, Program([(0.2, 1, b"ran\n")], code=3))["exit_code"] == 3
    assert one.log == b"ran\n"
    one.release()


# --- (19) cancel ---

def hold(release):
    def function(e, q):
        release.wait(20)
        return None
    return function


def test_cancel_before_anything(box, engine):
    one = box()
    one.say("start\nstop graceful")
    end = one.until("ended")
    assert (end["reason"], end["exit_code"]) == ("task_cancelled", -1)
    one.release()
    assert not engine.bodies


def test_cancel_during_the_pull(box, engine):
    one = box(image="slow:1")
    gone = threading.Event()

    def slow(e, q):
        q.begin(200, {})
        q.chunk(b'{"status":"Pulling"}')
        while not q.gone():
            time.sleep(0.02)
        gone.set()
        return True
    engine.hooks.append(("POST", "/images/create", slow))
    one.say("start")
    one.until("state", detail="Pulling")
    one.say("stop graceful")
    assert one.until("ended")["reason"] == "task_cancelled"
    assert gone.wait(5)
    one.release()
    assert not engine.bodies


def test_cancel_while_a_sidecar_is_made_leaves_it_to_the_others(box, engine):
    release = threading.Event()
    engine.hooks.append(("GET", "/export$", hold(release)))
    one = box(sidecar="owner/tool:2")
    one.say("start")
    engine.wait_call("/export")
    one.say("stop now")
    assert one.until("ended")["reason"] == "task_cancelled"
    one.release()
    release.set()
    until(lambda: any(".oz-ready" in v for v in engine.volumes.values()) and not engine.containers)


def test_cancel_while_the_container_is_made_leaves_none(box, engine):
    one = box()
    run(one, engine)
    one.release()
    release = threading.Event()
    engine.hooks.append(("POST", "/containers/create$", hold(release)))
    n = len(engine.calls)
    one.say("start")
    until(lambda: any("/containers/create?name" in c for c in engine.calls[n:]))
    one.say("stop graceful")
    time.sleep(0.2)
    release.set()
    assert one.until("ended")["reason"] == "task_cancelled"
    one.release()
    until(lambda: not engine.containers)
    assert not any("/start" in c for c in engine.calls[n:])


def test_cancel_while_it_starts(box, engine):
    release = threading.Event()
    engine.hooks.append(("POST", "/start$", hold(release)))
    one = box()
    engine.program = Program(hold=True)
    one.say("start")
    engine.wait_call("/start")
    one.say("stop graceful")
    time.sleep(0.2)
    release.set()
    end = one.until("ended")
    assert (end["reason"], end["exit_code"]) == ("task_cancelled", 143)
    one.release()


def test_cancel_during_the_run_gives_it_time(box, engine):
    one = box(grace=4000)
    engine.program = Program([(0, 1, b"on\n")], hold=True)
    one.say("start")
    one.until_log(b"on")
    one.say("stop graceful")
    end = one.until("ended")
    assert (end["reason"], end["exit_code"]) == ("task_cancelled", 143)
    assert "POST /containers/<2>/stop?t=4" in engine.calls
    one.release()


def test_the_deaf_are_killed_after_their_time(box, engine):
    one = box(grace=1000)
    engine.program = Program(hold=True, term=None)
    one.say("start")
    engine.wait_call("/wait")
    one.say("stop graceful")
    end = one.until("ended")
    assert (end["reason"], end["exit_code"]) == ("task_cancelled", 137)
    one.release()


def test_a_second_stop_does_not_wait(box, engine):
    one = box(grace=60000)
    engine.program = Program(hold=True, term=None)
    one.say("start")
    engine.wait_call("/wait")
    one.say("stop graceful")
    engine.wait_call("/stop?t=60")
    one.say("stop now")
    began = time.monotonic()
    assert one.until("ended")["exit_code"] == 137
    assert time.monotonic() - began < 10
    one.release()


def test_an_engine_that_cannot_kill_has_the_container_removed(box, engine):
    engine.hooks.append(("POST", "/kill$", lambda e, q: q.error(500, "cannot kill")))
    one = box()
    engine.program = Program(hold=True)
    one.say("start")
    engine.wait_call("/wait")
    one.say("stop now")
    end = one.until("ended")
    assert end["reason"] == "task_cancelled"
    one.release()
    assert not engine.containers


def test_cancel_after_the_end_changes_nothing(box, engine):
    one = box()
    end = run(one, engine, Program(code=2))
    one.say("stop graceful")
    assert (end["exit_code"], end["reason"]) == (2, None)
    one.release()
    assert not any("/stop" in c or "/kill" in c for c in engine.calls)


def test_time_is_up(box, engine):
    one = box(timeout=500, grace=1000)
    end = run(one, engine, Program(hold=True))
    assert (end["reason"], end["exit_code"]) == ("task_timeout", 143) and "longer than" in end["message"]
    one.release()


# --- (21) another worker ---

def test_a_killed_workers_container_is_adopted(box, engine):
    first = box()
    engine.program = Program([(0, 1, b"one\n"), (2, 1, b"two\n")], code=6)
    first.say("start")
    first.until_log(b"one")
    first.kill()
    first.close = lambda: None
    second = box()
    second.first_offset = 2
    second.say("adopt 2")
    end = second.until("ended")
    assert (end["exit_code"], end["reason"]) == (6, None)
    assert second.log == b"e\ntwo\n"
    second.say("sweep exec-00000001")
    assert second.until("swept")["removed"] == 0
    second.release()
    assert not engine.containers


def test_what_ended_meanwhile_is_adopted_too(box, engine):
    one = box(timeout=60000)
    run(one, engine, Program([(0, 1, b"all\n")], code=9))
    one.say("detach")
    one.until("detached")
    again = box()
    again.say("adopt 0")
    assert again.until("ended")["exit_code"] == 9
    assert again.log == b"all\n"
    again.release()


def test_an_adopted_one_keeps_its_deadline(box, engine):
    one = box(timeout=3000, grace=1000)
    engine.program = Program([(0, 1, b"on\n")], hold=True)
    one.say("start")
    one.until_log(b"on")
    one.say("detach")
    one.until("detached")
    again = box()
    again.say("adopt 3")
    again.first_offset = 3
    assert again.until("ended", timeout=15)["reason"] == "task_timeout"
    again.release()


def test_nothing_left_to_adopt_is_told(box, engine):
    one = box()
    one.say("adopt 0")
    end = one.until("ended")
    assert end["reason"] == "unknown" and end["exit_code"] == -1
    one.release()


def test_the_sweep_takes_only_what_nobody_has(box, engine):
    one = box(execution="exec-kept")
    engine.program = Program(hold=True)
    one.say("start")
    engine.wait_call("/wait")
    for label, labels in {"orphan": {"oz.managed": "1", "oz.worker": "worker-1", "oz.execution": "exec-lost"},
                          "helper": {"oz.managed": "1", "oz.worker": "worker-1", "oz.helper": "0011223344556677"},
                          "other": {"oz.managed": "1", "oz.worker": "worker-2", "oz.execution": "exec-x"},
                          "stranger": {}, "named": {"oz.managed": "1", "oz.worker": "worker-1", "oz.execution": "exec-n"}}.items():
        engine.containers[label] = {"id": label, "name": label, "status": "exited", "code": 0, "oom": False, "started": "",
                                    "body": {"Labels": labels}, "program": Program(), "kill": threading.Event()}
    one.say("sweep exec-n")
    assert one.until("swept")["removed"] == 2
    left = {c["name"] for c in engine.containers.values()}
    assert left == {"other", "stranger", "named", "oz-run_1-xec-kept".replace("run_1", "run_7")}
    one.say("stop now")
    one.until("ended")
    one.release()


def test_keep_leaves_the_container(box, engine):
    one = box("--keep")
    run(one, engine)
    one.release()
    assert len(engine.containers) == 1


def until(condition, timeout=10):
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)
