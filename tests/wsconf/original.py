#!/usr/bin/env python3
"""Runs the Autobahn test suite itself against both ends of a peer and compares its grades with those of our catalogue.

    build/venv/bin/python tests/wsconf/original.py PYTHON2 [muster|websockets|ws]
    PYTHON2: a Python 2.7 with the package autobahntestsuite (and those that it asks for)

Not part of the test run: current distributions have no Python 2.
"""
import json
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "e2e"), str(HERE.parent / "tools")]

import cases  # noqa: E402
import ends  # noqa: E402
import judge  # noqa: E402

WANTED = [f"{group}.*" for group in cases.TITLES]
# It would listen on all addresses.
START = """
from autobahntestsuite.wstest import run
from twisted.internet import reactor
listen = reactor.listenTCP
reactor.listenTCP = lambda port, factory, *more, **options: listen(port, factory, interface="127.0.0.1")
run()
"""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


def suite(python, mode, spec, folder):
    path = folder / f"{mode}.json"
    path.write_text(json.dumps({"outdir": str(folder / mode), "cases": WANTED, "exclude-cases": [], "exclude-agent-cases": {}, **spec}))
    return subprocess.Popen([python, "-c", START, "-m", mode, "-s", str(path), "-u", "0"], cwd=folder, stdout=subprocess.DEVNULL)


def grades(folder, mode):
    """number -> grade, as the suite's own page sums it up."""
    found = {}
    for number, case in json.loads((folder / mode / "index.json").read_text())["muster"].items():
        closing = {"OK": judge.OK, "INFORMATIONAL": judge.INFORMATIONAL, "FAILED BY CLIENT": judge.NON_STRICT}
        both = {case["behavior"], closing.get(case["behaviorClose"], judge.FAILED)}
        found[number] = next(g for g in (judge.FAILED, judge.NON_STRICT, judge.INFORMATIONAL, judge.OK) if g in both)
    return found


def as_client(python, end, folder):
    server = {"servers": [{"agent": "muster", "url": f"ws://127.0.0.1:{end.port}"}]}
    assert suite(python, "fuzzingclient", server, folder).wait(900) == 0
    return grades(folder, "fuzzingclient")


def as_server(python, end, folder):
    """The suite listens, and our client's end dials once for each case."""
    url = f"ws://127.0.0.1:{free_port()}"
    process = suite(python, "fuzzingserver", {"url": url}, folder)
    try:
        time.sleep(3)
        for i in range(1, len(cases.CASES) + 1):
            dial(end, f"{url}/runCase?case={i}&agent=muster")
        dial(end, f"{url}/updateReports?agent=muster")
    finally:
        process.terminate()
        process.wait()
    return grades(folder, "fuzzingserver")


def dial(end, url):
    end.dial(url)
    while (line := end.process.stdout.readline()) and not line.startswith("closed"):
        assert not line.startswith("failed"), line


PEERS = {"muster": ends.muster, "websockets": ends.websockets, "ws": lambda: ends.ws("build/npm-sdk")}


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    start, wrong = PEERS[sys.argv[2] if len(sys.argv) == 3 else "muster"], 0
    with tempfile.TemporaryDirectory() as temp:
        for side, run in (("server", as_client), ("client", as_server)):
            end = start()
            theirs = run(sys.argv[1], end, pathlib.Path(temp))
            end.stop()
            end = start()
            ours = {c.number: ends.play(c, end, side).grade for c in cases.CASES}
            end.stop()
            differ = {n: (theirs.get(n), ours.get(n)) for n in {*theirs, *ours} if theirs.get(n) != ours.get(n)}
            print(f"{side}: {len(theirs)} cases, {len(differ)} graded otherwise {differ or ''}")
            wrong += len(differ)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
