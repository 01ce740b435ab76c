"""The judge of the fault run finds what it is there for, and nothing in a sound account."""
import contextlib
import os
import pathlib
import re
import socket
import subprocess
import sys
import time

import judge
import leftovers
import netlab
import pytest
import witness

T0 = 1_800_000_000.0
pytestmark = pytest.mark.engine_free


def at(seconds):
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(T0 + int(seconds)))
    return f"{whole}.{round(seconds % 1 * 1000):03d}Z"


def execution(start=1.0, end=2.0, gone=None, name="1-a", number=1, run_id="run_1"):
    e = witness.Execution("w1", 1, run_id, f"x{number}", name, T0 + start)
    e.ended = None if end is None else T0 + end
    e.gone = T0 + (gone if gone is not None else (end or start) + 0.01)
    return e


def story(state="SUCCEEDED", end=2.1, output="begin 1-a\nend 1-a\n", error=None, **more):
    s = judge.Story("k", "t", 0.0, **more)
    s.run_id = "run_1"
    s.final = {"state": state, "completed_at": at(end), "output": output, "error": error}
    return s


def found(s, executions, killed=(), impaired=None):
    return judge.Judge([s], executions, killed, impaired or {}).all()


LOST = {"code": "worker_lost", "message": "Worker disconnected"}
SOUND = (
    (story(), [execution()], ()),
    (story(lines=1, output="begin 1-a\nline 1 of 1-a\nend 1-a\n"), [execution()], ()),
    (story("FAILED", error={"code": "exit_code"}, status=3), [execution()], ()),
    (story("FAILED", error=LOST), [execution(end=None)], ("x1",)),
    (story(end=4.1, output="begin 2-b\nend 2-b\n"), [execution(end=None), execution(3, 4, name="2-b", number=2)], ("x1",)),
    (story("CANCELLED", cancel_after=1.0), [execution(start=3.0, end=None)], ()),
    (story("CANCELLED", cancel_after=1.0), [], ()),
)
WRONG = (
    ("has not ended", story("INPROGRESS"), [execution()], ()),
    ("never executed", story(), [], ()),
    ("never executed to its end", story(), [execution(end=None)], ()),
    ("not the output", story(output="begin 1-a\n"), [execution()], ()),
    ("executed to its end 2 times", story(end=4.1), [execution(), execution(3, 4, name="2-b", number=2)], ("x1",)),
    ("which nobody killed", story(end=4.1, output="begin 2-b\nend 2-b\n"),
     [execution(end=None), execution(3, 4, name="2-b", number=2)], ()),
    ("started while 1-a lived", story(output="begin 2-b\nend 2-b\n"),
     [execution(end=None, gone=1.6), execution(1.5, 2, name="2-b", number=2)], ("x1",)),
    ("s after the end", story(end=0.5), [execution()], ()),
    ("s after the end", story("CANCELLED", end=0.5), [execution(start=3.0, end=None)], ()),
    ("for no reason of ours", story("FAILED", error=LOST), [execution(end=None)], ()),
    ("nobody cancelled it", story("CANCELLED"), [], ()),
    ("ended with 3", story(status=3), [execution()], ()),
)


@pytest.mark.parametrize("s, executions, killed", SOUND)
def test_nothing_is_found_in_a_sound_account(s, executions, killed):
    s.cancel_tried = s.cancel_after is not None
    assert found(s, executions, killed) == []


@pytest.mark.parametrize("words, s, executions, killed", WRONG)
def test_each_wrong_account_is_found(words, s, executions, killed):
    s.cancel_tried = s.final["state"] == "CANCELLED" and words != "nobody cancelled it"
    errors = found(s, executions, killed)
    assert errors and re.search(words, errors[0]), errors


def test_runs_that_vanish_change_or_come_from_nowhere_are_found():
    gone = story()
    gone.final = None
    assert "not there" in found(gone, [])[0]
    changed = story()
    changed.ended = ("FAILED", changed.final["completed_at"])
    assert "before" in found(changed, [execution()])[0]
    late = story("SUCCEEDED", end=2.1)
    late.cancel_tried, late.cancelled_at = True, T0 + 1.0
    assert "cancel acknowledged" in found(late, [execution()])[0]
    assert "nobody asked" in found(story(), [execution(), execution(run_id="run_2")])[0]
    never = story("FAILED", error=LOST)
    assert found(never, []) and not judge.Judge([never], [], (), {}, {"run_1"}).all()
    assert "two requests" in judge.Judge([story(), story()], [execution()], (), {}).all()[0]


def test_a_cancel_may_be_late_while_its_worker_cannot_hear_it():
    s, late = story("CANCELLED", end=0.5), [execution(start=9.0, end=None)]
    s.cancel_tried = True
    assert found(s, late)
    assert not found(s, late, impaired={"w1": [(T0, T0 + 5), (T0 + 4, T0 + 8)]})
    assert found(s, late, impaired={"w2": [(T0, T0 + 8)]})


def test_the_witness_sees_start_end_and_death(tmp_path):
    seen = witness.Witness(tmp_path / "w", ["w1"])
    env = {"PATH": os.environ["PATH"], "OZ_RUN_ID": "run_1", "OZ_EXECUTION_ID": "x1"}
    done = subprocess.run(seen.prompt(0.0, 2, status=3), shell=True, env=env, capture_output=True, text=True)
    (first,) = seen.executions
    assert done.returncode == 3 and done.stdout == witness.Witness.output(first.name, 2) and first.ended
    killed = subprocess.Popen(seen.prompt(60.0), shell=True, env=env, stdout=subprocess.DEVNULL)
    while len(seen.executions) < 2:
        time.sleep(0.01)
    second = seen.executions[1]
    assert second.gone is None and second.worker == "w1" and (second.pid, second.execution_id) == (killed.pid, "x1")
    killed.kill()
    killed.wait()
    end = time.monotonic() + 5
    while seen.live():
        assert time.monotonic() < end
        time.sleep(0.01)
    assert second.ended is None
    seen.stop()


def test_left_over_processes_are_found(tmp_path):
    sleeper = subprocess.Popen(["sleep", "60"], env={"X": str(tmp_path)})
    try:
        # Popen is back a moment before the kernel shows the new program's environment.
        end = time.monotonic() + 5
        while not (found := leftovers.processes(tmp_path)) and time.monotonic() < end:
            time.sleep(0.01)
        assert found == [sleeper.pid]
    finally:
        sleeper.kill()
        sleeper.wait()
    assert leftovers.processes(tmp_path) == []


CABLE = """
import os, signal, socket, sys, threading, time
sys.path[:0] = %r
import netlab
netlab.leave_host_network()
m = netlab.Machine()
cables = netlab.Cables([m])
server = socket.create_server((cables.address, 4000))
with m.inside():
    near = socket.create_connection((cables.address, 4000), 5)
far, peer = server.accept()
assert peer[0] == m.address
near.settimeout(20)
far.settimeout(20)
def turn():
    start = time.monotonic()
    near.sendall(b"x"); far.recv(1); far.sendall(b"y"); near.recv(1)
    return time.monotonic() - start
assert turn() < 0.2
cables.set(0, delay_ms=150)
assert 0.3 <= turn() < 2
cables.set(0, delay_ms=0, cut=True)
threading.Timer(1, lambda: cables.set(0, cut=False)).start()
assert 1 <= turn() < 10
cables.set(0, duplicate=1.0, reorder=0.5)
data = bytes(range(256)) * 400
threading.Thread(target=far.sendall, args=(data,)).start()
got = b""
while len(got) < len(data):
    got += near.recv(65536)
counts = cables.set(0)
assert got == data and counts["duplicated"] and counts["reordered"] and counts["dropped"], counts
cables.set(0, duplicate=0, reorder=0)
cables.unplug(0)
with m.inside():
    try:
        socket.create_connection((cables.address, 4000), 1)
        sys.exit("unplugged, and yet connected")
    except OSError:
        pass
cables.plug(0)
assert turn() < 10
cables.remove(); m.remove()
print("sound")
"""


@pytest.mark.skipif(netlab.unusable() is not None, reason=str(netlab.unusable()))
def test_cables_delay_cut_duplicate_and_reorder():
    path = [str(pathlib.Path(netlab.__file__).parent)]
    before = set(socket.if_nameindex())
    done = subprocess.run([sys.executable, "-c", CABLE % (path,)], capture_output=True, text=True, timeout=60)
    assert done.stdout == "sound\n", done.stdout + done.stderr
    with contextlib.suppress(OSError):
        assert set(socket.if_nameindex()) == before
