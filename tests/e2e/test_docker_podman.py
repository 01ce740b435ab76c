"""The docker driver with a real engine: Podman's service, the real runner in containers of an imported image."""
import json
import os
import pathlib
import time

import pytest

import harness
import podman as podman_tool
from sandbox_box import Box, ROOT

pytestmark = [pytest.mark.engine_free, pytest.mark.timeout(300)]
BUNDLE = pathlib.Path(os.environ.get("MUSTER_AGENT", ROOT / "build/asan/agent")).resolve()


@pytest.fixture(scope="module")
def podman():
    if os.getuid() != 0:
        pytest.skip("a service of our own with private storage needs root")
    engine = podman_tool.Podman()
    engine.image("localhost/task:1")
    engine.image("localhost/user:1", changes=["USER worker"])
    engine.image("localhost/sidecar:1", busybox=False, files={
        "entrypoint.sh": (b"#!/bin/sh\necho the other sidecar: \"$@\"\ncat /agent/data\n", 0o755), "data": (b"from it\n", 0o644)})
    yield engine
    engine.stop()


@pytest.fixture
def box(podman, tmp_path):
    boxes = []

    def make(*options, script=None, env=(), **more):
        prompt = tmp_path / f"prompt-{len(boxes)}"
        prompt.write_text(script or "true")
        settings = {"host": f"unix://{podman.socket}", "bundle": BUNDLE, "image": "localhost/task:1", "net": "none",
                    "execution": f"exec-{tmp_path.name[-40:]}-{len(boxes)}".replace("_", "-"), "task": "run_7",
                    "prompt": prompt, "env": ["OZ_HARNESS=shell", "PATH=/bin", *env], **more}
        boxes.append(Box("--driver", "docker", *options, **settings))
        boxes[-1].options = settings
        return boxes[-1]

    yield make
    for one in boxes:
        one.close()


def run(one):
    one.say("start")
    return one.until("ended", timeout=120)


def test_the_engine_is_told_about(box):
    one = box()
    one.say("check")
    report = one.until("report")
    assert report["usable"] and report["layers"]["seccomp"] and "API 1.41" in report["summary"]


def test_a_task_from_prompt_to_result(box, podman):
    one = box(script="echo out; echo err >&2; pwd; printf abc > x; exit 3")
    end = run(one)
    assert (end["exit_code"], end["reason"]) == (3, None)
    assert one.log == b"out\nerr\n/workspace\n"
    result, text = one.read("/workspace/.oz/result.json")
    assert result == "ok" and json.loads(text)["exit_code"] == 3
    assert one.read("/workspace/.oz/agent_output.txt") == ("ok", b"out\nerr\n/workspace\n")
    assert one.read("/workspace/x") == ("ok", b"abc")
    assert one.read("/workspace/none") == ("not found", b"")
    assert [e["state"] for e in one.seen if e["event"] == "state"] == ["preparing", "starting", "running"]
    one.release()
    assert not [n for n in podman.names() if n.startswith("oz-")]


def test_what_is_inside_is_held_tight(box):
    one = box(script="grep -i -e NoNewPrivs -e Seccomp: /proc/1/status; ls /sys/class/net; touch /agent/x 2>&1; "
                     "cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || "
                     "cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/memory.max; true", memory=64 << 20, pids=50)
    assert run(one)["exit_code"] == 0
    text = one.log.decode()
    assert "NoNewPrivs:\t1" in text and "Seccomp:\t2" in text
    assert "Read-only file system" in text
    assert "\n50\n" in text and f"\n{64 << 20}\n" in text
    assert "eth0" not in text
    one.release()


def test_too_much_memory_is_told(box):
    one = box(script="tail -c 200000000 /dev/zero | wc -c; dd if=/dev/zero of=/dev/null bs=200000000 count=1",
              memory=32 << 20)
    end = run(one)
    assert end["exit_code"] != 0
    # The kernel may take the child rather than PID 1; then it is an ordinary end with a status.
    assert end["reason"] in (None, "container_oom")
    one.release()


def test_cancel_reaches_the_script(box):
    one = box(script="trap 'echo stopping; exit 0' TERM; echo on; while :; do sleep 0.1; done", grace=8000)
    one.say("start")
    one.until_log(b"on")
    began = time.monotonic()
    one.say("stop graceful")
    end = one.until("ended")
    assert (end["reason"], end["exit_code"]) == ("task_cancelled", 143)
    assert b"stopping" in one.log and time.monotonic() - began < 30
    one.release()


def test_the_time_limit_ends_a_task(box):
    one = box(script="sleep 100", timeout=1500, grace=1000)
    assert run(one)["reason"] == "task_timeout"
    one.release()


def test_a_worker_that_was_killed_finds_its_container_again(box, podman):
    one = box(script="echo one; sleep 4; echo two; exit 5")
    one.say("start")
    one.until_log(b"one\n")
    one.kill()
    one.close = lambda: None
    again = box(execution=one.options["execution"])
    again.first_offset = 4
    again.say("adopt 4")
    end = again.until("ended")
    assert (end["exit_code"], end["reason"], again.log) == (5, None, b"two\n")
    assert again.read("/workspace/.oz/agent_output.txt") == ("ok", b"one\ntwo\n")
    again.release()
    assert not [n for n in podman.names() if n.startswith("oz-")]


def test_the_sweep_removes_an_orphan(box, podman):
    one = box(script="sleep 100", worker="worker-sweep")
    one.say("start")
    one.until("state", state="running")
    one.kill()
    one.close = lambda: None
    again = box(worker="worker-sweep")
    again.say("sweep")
    assert again.until("swept")["removed"] == 1
    assert not [n for n in podman.names() if n.startswith("oz-")]


def test_another_sidecar_image(box):
    one = box(sidecar="localhost/sidecar:1")
    assert run(one)["exit_code"] == 0
    assert one.log == b"the other sidecar: agent run\nfrom it\n"
    one.release()


def test_an_image_of_an_ordinary_user(box):
    one = box(image="localhost/user:1", script="id -u; touch /workspace/mine && echo done")
    end = run(one)
    assert (end["exit_code"], one.log.decode()) == (0, "1000\ndone\n"), one.log
    one.release()


def test_secrets_do_not_show_in_the_configuration(box, podman):
    one = box("--secret-files", script="echo $TOKEN_OF_TASK; ls /.oz-start 2>&1; sleep 2", env=["TOKEN_OF_TASK=it's\nhidden"])
    one.say("start")
    one.until_log(b"hidden")
    name = next(n for n in podman.names() if n.startswith("oz-"))
    shown = podman.inside("inspect", name).stdout
    assert shown and b"hidden" not in shown
    assert one.until("ended")["exit_code"] == 0
    assert b"it's hidden" in one.log and b"No such file" in one.log
    one.release()


def test_an_image_that_is_not_there_is_told(box):
    one = box(image="localhost/absent:1", pull="never")
    end = run(one)
    assert end["reason"] == "image_pull" and "may not pull" in end["message"]
    one.release()


def test_a_long_log_arrives_whole(box):
    one = box(script="seq 1 20000", log_bytes=4 << 20)
    assert run(one)["exit_code"] == 0
    assert one.log == b"".join(b"%d\n" % i for i in range(1, 20001))
    one.release()


def test_a_run_of_the_server_goes_through_the_engine(podman, make_server):
    server = make_server(env={"OZ_EMBEDDED_WORKER": "on", "SANDBOX_DRIVER": "docker",
                              "DOCKER_HOST": f"unix://{podman.socket}"})
    client = server.client()
    harness.eventually(lambda: [w for w in harness.ok(client.api("GET", "/workers"))["workers"] if w["connected"]],
                       timeout=60, what="the embedded worker's connection")
    made = client.environment(docker_image="localhost/task:1", env_vars={"GREETING": "hi there", "PATH": "/bin"})
    script = "echo out; echo $GREETING; ls -d /bin/busybox; mkdir -p .oz/artifacts; echo a > .oz/artifacts/a.txt; exit 0"
    run_id = client.create(script, config={"environment_id": made["id"], "harness": "shell"})["run_id"]
    run = client.wait(run_id, timeout=120)
    assert run["state"] == "SUCCEEDED", run
    assert run["status_message"]["message"].splitlines() == ["out", "hi there", "/bin/busybox"], run
    run_id = client.create("echo on; sleep 300", config={"environment_id": made["id"], "harness": "shell"})["run_id"]
    client.wait(run_id, "INPROGRESS", timeout=60)
    time.sleep(1)
    client.cancel(run_id)
    client.wait(run_id, "CANCELLED")
    harness.eventually(lambda: not [n for n in podman.names() if n.startswith("oz-")], timeout=60,
                       what="the removal of the container")
