"""The escape suite (sandbox.md 12): every probe as an ordinary user and as root, on every rung this machine gives, and
again with one layer left out at a time, which shows what that layer alone stops. Prints the table."""
import contextlib
import os
import pathlib
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import boxes  # noqa: E402
from boxes import USER, Box  # noqa: E402

pytestmark = [pytest.mark.engine_free, pytest.mark.timeout(300)]
ROOT_HERE = os.geteuid() == 0
WHO = [pytest.param(USER, id="user"), pytest.param(0, id="root")] if ROOT_HERE else [pytest.param(0, id="user")]

# What each probe may answer. Several words: which lock comes first differs between user and root, or between kernels.
PERMITTED = {
    1: "ENOENT", 2: "ENOENT empty", 3: "ENOENT", 4: "EACCES", 5: "ENOENT", 6: "ENOENT", 7: "ECONNREFUSED",
    8: "ECONNREFUSED", 9: "ENETUNREACH", 10: "status", 11: "EAFNOSUPPORT", 12: "EAFNOSUPPORT", 13: "EAFNOSUPPORT",
    14: "EPROTONOSUPPORT", 15: "EPROTONOSUPPORT", 16: "EPERM", 17: "ENOSYS", 18: "ENOSYS", 19: "ENOSYS", 20: "EPERM",
    21: "EPERM", 22: "ENOSYS", 23: "EPERM", 24: "EACCES", 25: "EPERM", 26: "EPERM", 27: "EPERM", 28: "EROFS EACCES",
    29: "ENOENT EACCES", 30: "ENOENT EACCES empty", 31: "EACCES ENOENT", 32: "EACCES", 33: "EACCES", 34: "EACCES",
    35: "EPERM", 36: "ESRCH", 37: "ENOENT", 38: "EPERM", 39: "EPERM", 40: "EPERM", 41: "ENOSYS", 42: "ENOSYS",
    43: "EPERM", 44: "EPERM", 45: "EPERM", 46: "EPERM", 47: "EACCES EPERM", 48: "ENOENT", 49: "ENOENT",
    50: "EROFS EACCES", 51: "EROFS EACCES", 52: "EROFS", 53: "EINVAL EPERM", 54: "EPERM", 55: "status", 56: "EPERM",
    57: "EPERM", 58: "EPERM", 59: "killed", 60: "ENOSYS", 61: "0", 62: "EACCES", 63: "own", 64: "ENOENT EROFS EACCES",
    65: "ENOENT", 66: "ENOENT", 67: "EPERM", 68: "EPERM", 69: "EPERM", 70: "ENOENT", 71: "ENOENT", 72: "ENOENT",
    73: "EXDEV", 74: "PID", 75: "EROFS EACCES", 76: "", 78: "", 79: "EFBIG", 105: "ENETUNREACH",
}
TABLE = {}


def note(probe, who, text):
    TABLE.setdefault(probe, {})[who] = text


@pytest.fixture(scope="module")
def agent():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="mu-probe-"))
    os.chmod(folder, 0o755)
    yield boxes.build(folder)
    subprocess.run(["rm", "-rf", str(folder)], check=True)


@pytest.fixture(scope="module", autouse=True)
def table():
    yield
    columns = sorted({who for row in TABLE.values() for who in row})
    print("\n\nprobe  " + "  ".join(f"{c:24}" for c in columns))
    for probe in sorted(TABLE):
        print(f"{probe:5}  " + "  ".join(f"{TABLE[probe].get(c, ''):24}" for c in columns))


class Host:
    """What the host has that a sandbox must not reach."""

    def __init__(self, user, stack):
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="mu-home-"))
        stack.callback(subprocess.run, ["rm", "-rf", str(self.home)])
        os.chmod(self.home, 0o755)
        (self.home / "key").write_text("SECRET key of the worker's user\n")
        self.named = stack.enter_context(socket.socket(socket.AF_UNIX))
        self.named.bind(str(self.home / "sock"))
        self.named.listen()
        os.chmod(self.home / "sock", 0o777)
        self.word = secrets.token_hex(8)
        self.abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
        self.abstract.bind("\0" + self.word)
        self.abstract.listen()
        self.tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.key = secrets.randbelow(1 << 30) + 1
        number = boxes.shared_memory(self.key)
        stack.callback(boxes.remove_shared_memory, number)
        self.process = subprocess.Popen(["sleep", "1000"], env={"PROBE_MARK": "1"},
                                        preexec_fn=(lambda: os.setuid(user)) if user else None)
        stack.callback(self.process.wait)
        stack.callback(self.process.kill)

    def env(self):
        return [f"PROBE_KEY={self.home}/key", f"PROBE_SOCK={self.home}/sock", f"PROBE_ABSTRACT={self.word}",
                f"PROBE_TCP={self.tcp.getsockname()[1]}", f"PROBE_SHM={self.key}", f"PROBE_PID={self.process.pid}"]


@pytest.fixture
def host(request):
    with contextlib.ExitStack() as stack:
        yield Host(request.node.callspec.params.get("user", 0), stack)


def run_probes(agent, host, user, program="/agent/bin/muster", env=(), **options):
    with Box(agent, user, **options) as box:
        box.start(f"exec {program} probe", env=[*host.env(), *env])
        end = box.wait()
        assert end["exit_code"] == "0", (end, box.log())
        found = {}
        for line in box.log().splitlines():
            number, _, rest = line.partition("|")
            if number.isdigit():
                reached, _, detail = rest.partition("|")
                found[int(number)] = (reached == "yes", detail)
        return found


@pytest.mark.parametrize("user", WHO)
def test_with_all_layers_every_probe_is_stopped_by_the_right_one(agent, host, user):
    found = run_probes(agent, host, user)
    wrong = []
    for probe, permitted in PERMITTED.items():
        reached, detail = found.get(probe, (True, "did not run"))
        ok = not reached and (not permitted or detail.split()[0] in permitted.split())
        note(probe, "user" if user or not ROOT_HERE else "root", detail if ok else f"WRONG: {detail}")
        if not ok:
            wrong.append((probe, detail))
    assert not wrong


# What becomes reachable when that layer alone is missing. Nothing else may.
ALONE = {}


@pytest.mark.parametrize("user", WHO)
@pytest.mark.parametrize("layer", sorted(boxes.LAYERS))
def test_without_one_layer_only_what_it_alone_stops_is_reached(agent, host, user, layer):
    found = run_probes(agent, host, user, without=(layer,), env=["PROBE_LOW_CEILING=1"] if layer == "ceiling" else [])
    reached = {probe: detail for probe, (yes, detail) in found.items() if yes}
    print(layer, user, reached)
