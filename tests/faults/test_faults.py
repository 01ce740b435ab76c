"""The fault run in CI: 150 tasks and 15 faults (5000 and 500 by hand and with script/test --long)."""
import pathlib
import re
import signal
import subprocess
import sys

import leftovers
import netlab
import pytest

RUN = pathlib.Path(__file__).resolve().parent / "run.py"


@pytest.mark.timeout(7200)
@pytest.mark.skipif(netlab.unusable() is not None, reason=str(netlab.unusable()))
def test_faults(request, capsys):
    tasks, faults = request.config.getoption("--faults").split(":")
    words = [sys.executable, "-u", str(RUN), "--tasks", tasks, "--faults", faults, "--engine", request.config.getoption("--engine")]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines = []
    try:
        for line in process.stdout:
            lines.append(line)
            with capsys.disabled():
                print(line, end="", flush=True)
        code = process.wait()
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
    assert code == 0, "".join(lines)


@pytest.mark.engine_free
@pytest.mark.skipif(netlab.unusable() is not None, reason=str(netlab.unusable()))
def test_an_interrupted_fault_run_leaves_nothing():
    process = subprocess.Popen([sys.executable, "-u", str(RUN), "--tasks", "500", "--faults", "50"], stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True)
    word = None
    try:
        for line in process.stdout:
            if " created, " in line:  # in the middle of it
                break
            word = word or re.search("mark ([a-z0-9_]+)", line)
        assert len(leftovers.processes(word[1])) >= 5
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(60) != 0 and "findings" not in rest
    finally:
        process.kill()
        process.wait()
    assert not leftovers.processes(word[1]) and not leftovers.groups([f"fault-{word[1]}-0"])
