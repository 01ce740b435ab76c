"""The escape suite (sandbox.md 12): every probe as an ordinary user and as root, on every rung this machine gives, and
again with one layer left out at a time, which shows what that layer alone stops. Prints the table."""
import contextlib
import os
import pathlib
import secrets
import socket
import subprocess
import sys
import tempfile
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


# What must and what may become reachable when only these layers are missing (may: depends on sysctls of the machine, on
# its network, on whether there is a control group).
MISSING = {
    ("ipcns",): ({70}, set()),
    ("limits",): ({79}, {57, 76}),  # 57: unless the machine itself admits no core files
    ("masks",): ({31}, set()),
    ("netns",): ({8}, {9, 105}),
    ("seccomp",): ({12, 14, 41, 54, 58, 69}, {38, 40, 42, 44, 45}),
    # What a second lock held until now.
    ("netns", "landlock"): ({7, 8}, {9, 105}),
    ("seccomp", "userns_limit"): ({12, 14, 20, 22, 23, 41, 54, 58, 69}, {38, 40, 42, 44, 45}),
    # Still nothing more: execve as an ordinary id drops every capability, so emptying the sets is a third lock.
    ("seccomp", "caps"): ({12, 14, 41, 54, 58, 69}, {38, 40, 42, 44, 45}),
    ("limits", "cgroup"): ({76, 79}, {57}),
}
for name in boxes.LAYERS:
    MISSING.setdefault((name,), (set(), set()))


@pytest.mark.parametrize("user", WHO)
@pytest.mark.parametrize("layers", sorted(MISSING), ids="+".join)
def test_without_a_layer_only_what_it_stops_is_reached(agent, host, user, layers):
    found = run_probes(agent, host, user, without=layers, env=["PROBE_LOW_CEILING=1"] if layers == ("ceiling",) else [])
    reached = {probe for probe, (yes, _) in found.items() if yes}
    must, may = MISSING[layers]
    for probe in reached:
        note(probe, "reached without", (TABLE.get(probe, {}).get("reached without", "") + " " + "+".join(layers)).strip()
             if user or not ROOT_HERE else TABLE.get(probe, {}).get("reached without", "+".join(layers)))
    print("+".join(layers), user, sorted(reached))
    assert must <= reached, {p: found.get(p) for p in must - reached}
    assert reached <= must | may, {p: found[p] for p in reached - must - may}
    if layers == ("ceiling",):
        assert found[60] == (False, "ENOSYS")  # a call that this kernel has: only the rule answers


# What a task sees of the locks. Some are behind others: no probe gets through where only one of those is missing, so
# that it would go unnoticed (no_new_privs: nothing inside has a set-id bit that counts; capabilities: execve drops them).
LOOK = r"""grep -E '^(NoNewPrivs|Cap[A-Z][a-z]+|Seccomp):' /proc/self/status
while read -r _ _ _ _ at options _; do case $options in rw*) echo "writable $at";; esac; done < /proc/self/mountinfo
echo namespaces: $(cat /proc/sys/user/max_user_namespaces); echo processes: $(ulimit -p)"""
LOCKED = {"NoNewPrivs: 1", "Seccomp: 2", "namespaces: 0", "processes: 200",
          *(f"Cap{name}: 0000000000000000" for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")),
          *(f"writable {at}" for at in ("/tmp", "/var/tmp", "/home/agent", "/workspace", "/run", "/proc", "/dev/pts", "/dev/shm",
                                        "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"))}
SEEN = {"nnp": ["NoNewPrivs: 0"], "seccomp": ["Seccomp: 0"], "caps": ["CapBnd: "], "limits": ["processes: "],
        "userns_limit": ["namespaces: "], "readonly": ["writable /", "writable /dev"]}


@pytest.mark.parametrize("user", WHO)
@pytest.mark.parametrize("layer", ["", *SEEN])
def test_every_lock_is_there_and_is_seen_to_be_missing(agent, user, layer):
    with Box(agent, user, without=[layer] if layer else []) as box:
        assert box.start(LOOK).wait()["exit_code"] == "0", box.log()
        seen = {" ".join(line.split()) for line in box.log().splitlines()}
    more = sorted(seen - LOCKED)
    assert len(more) == len(SEEN.get(layer, [])) and all(m.startswith(s) for m, s in zip(more, SEEN.get(layer, []))), more
    assert len(LOCKED - seen) == (0 if layer in ("", "readonly") else 1), LOCKED - seen


@pytest.mark.parametrize("user", WHO[:1])
def test_through_bubblewrap_every_probe_is_stopped(agent, host, user):
    """Rung B: bubblewrap's namespaces, our second stage inside."""
    assert os.path.exists("/usr/bin/bwrap"), "bubblewrap is not installed: script/bootstrap test"
    found = run_probes(agent, host, user, rung="B")
    wrong = {}
    for probe, permitted in PERMITTED.items():
        reached, detail = found.get(probe, (True, "did not run"))
        note(probe, "bwrap", detail if not reached else f"REACHED: {detail}")
        if reached or (permitted and detail.split()[0] not in permitted.split()):
            wrong[probe] = detail
    assert not wrong


@pytest.mark.parametrize("user", WHO)
def test_landlock_and_the_filter_alone_hold_what_they_can(agent, host, user):
    """Rung D: no namespaces. What it does not hold is known and written down (sandbox.md 3)."""
    found = run_probes(agent, host, user, program=f"{agent}/bin/muster", rung="D")
    reached = {probe for probe, (yes, _) in found.items() if yes}
    for probe in reached:
        note(probe, "rung D", f"reached: {found[probe][1]}")
    print("rung D", user, {p: found[p] for p in sorted(reached)})
    # Named sockets (5, 6), System V memory (70), the list of keys' names (31); the root folder is the host's, which 63
    # cannot even open; with root's id 53 changes nothing, and /proc/1/fd can be listed (62), not followed.
    assert reached <= {5, 6, 31, 63, 70, 76} | ({53, 62} if not user else set()), {p: found[p] for p in reached}


# --- floods, pauses, ends ---


@pytest.mark.parametrize("user", WHO)
def test_77_the_memory_limit_ends_the_task_and_is_told_from_the_counter(agent, user):
    with Box(agent, user, memory=64 << 20) as box:
        end = box.start("exec perl -e '$x = \"a\" x (200 << 20); sleep 30'").wait()
    note(77, "user" if user else "root", end["reason"])
    assert end["reason"] == "container_oom" and end["oom"] == "1", end


def states(pids):
    found = []
    for pid in pids:
        with contextlib.suppress(OSError):
            found.append(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0])
    return found


@pytest.mark.parametrize("user", WHO)
def test_80_a_storm_of_sigcont_does_not_undo_a_pause(agent, user):
    storm = "perl -e 'for (1..20) { fork or do { kill CONT => -1 while 1 } } sleep 60' & echo up; wait"
    with Box(agent, user) as box:
        box.start(storm).wait_for("up")
        inside = []

        def ticks():
            return [open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[11:13] for pid in inside]

        def move(before):  # a busy machine may take its time
            until = time.time() + 20
            while ticks() == before and time.time() < until:
                time.sleep(0.05)
            return ticks() != before
        while len(inside) <= 15:
            inside = box.processes()[1:]
        assert move(ticks()), "there is no storm"

        def frozen():  # a sweep gives up after 50 rounds and says so (EBUSY); on a busy machine it is asked again
            box.tell(boxes.FREEZE)
            return box.hear(boxes.FROZEN) == 0
        assert any(frozen() for _ in range(10))
        inside = box.processes()[1:]
        assert len(inside) > 15
        before = ticks()
        time.sleep(0.5)
        note(80, "user" if user else "root", f"{len(inside)} stand still")
        assert ticks() == before, states(inside)
        box.tell(boxes.THAW)
        assert move(before)
        box.tell(boxes.STOP, 0, b"task_cancelled")
        box.wait()


@pytest.mark.parametrize("user", WHO)
def test_81_nobody_survives_the_end(agent, user):
    with Box(agent, user) as box:
        box.start("for i in 1 2 3 4 5; do (setsid sh -c 'setsid sleep 4711 & sleep 4711' &); done; sleep 0.5; echo up; "
                  "sleep 4711").wait_for("up")
        inside = box.processes()
        assert len(inside) > 8
        box.tell(boxes.STOP, 0, b"task_cancelled")
        box.wait()
        assert states(inside) == []
        note(81, "user" if user else "root", f"{len(inside)} gone")


@pytest.mark.parametrize("user", WHO)
def test_82_a_killed_keeper_takes_its_sandbox_with_it(agent, user):
    with Box(agent, user) as box:
        box.start("for i in 1 2 3 4 5; do perl -e '1 while 1' & done; echo up; wait").wait_for("up")
        inside = box.processes()
        began = time.monotonic()
        box.keeper.kill()
        box.keeper.wait()
        while states(inside) and set(states(inside)) - {"Z"}:
            assert time.monotonic() - began < 5, states(inside)
            time.sleep(0.002)
        note(82, "user" if user else "root", f"gone after {1000 * (time.monotonic() - began):.0f} ms")


@pytest.mark.parametrize("user", WHO)
def test_a_flood_of_garbage_at_the_control_socket_harms_nobody(agent, user):
    with Box(agent, user) as box:
        box.start("echo up; until [ -e go ]; do sleep 0.05; done; exit 9").wait_for("up")
        own = box.ctl
        for round_ in range(2000):
            with contextlib.suppress(OSError):  # full, or closed by the keeper, as it should be
                own.send(os.urandom(1 + round_ % 300).replace(bytes([boxes.STOP]), b"\x77"), socket.MSG_DONTWAIT)
        for _ in range(50):
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
                with contextlib.suppress(OSError):
                    s.connect(str(box.session / "ctl.sock"))
                    s.send(b"\xff" * 400)
        go = box.session / "workspace/go"
        go.touch()
        assert box.wait()["exit_code"] == "9"


@pytest.mark.parametrize("user", WHO)
def test_a_log_flood_is_capped_and_the_keeper_stays_small(agent, user):
    with Box(agent, user, log=1 << 20) as box:
        box.start("yes 0123456789abcdef | head -c 100000000; exit 8")
        largest = 0
        while box.keeper.poll() is None:
            with contextlib.suppress(OSError):
                rss = [x for x in open(f"/proc/{box.keeper.pid}/status") if x.startswith("VmRSS")]
                largest = max(largest, int(rss[0].split()[1]) if rss else 0)
            time.sleep(0.02)
        assert box.end()["exit_code"] == "8"
        assert (box.session / "log").stat().st_size == 1 << 20
        assert largest < 4096, largest


# --- copy-out ---

COPYOUT = {83: "link", 84: "relative", 85: "through/key", 86: "magic", 87: "../journal", 88: "/etc/passwd", 89: "loop",
           90: "folder", 91: "fifo", 92: "socket", 93: "second"}


@pytest.mark.parametrize("user", WHO)
def test_83_to_94_copy_out_is_not_fooled(agent, host, user):
    script = f"""cd /workspace; ln -s {host.home}/key link; ln -s ../journal relative; ln -s {host.home} through
        ln -s /proc/self/root/etc/passwd magic; ln -s loop loop; mkdir folder; mkfifo fifo; echo x > first; ln first second
        perl -MSocket -e 'socket S, AF_UNIX, SOCK_STREAM, 0; bind S, sockaddr_un("socket")'
        truncate -s 30M sparse; echo fine > fine"""
    with Box(agent, user, disk=64 << 20) as box:
        assert box.start(script).wait()["exit_code"] == "0"
        for probe, path in COPYOUT.items():
            (name, code, why, text), = box.copyout(f"/workspace/{path}")
            note(probe, "user" if user else "root", why)
            assert int(code) in (-5004, -5000) and text == "", (probe, path, why, text)
        (_, code, why, text), = box.copyout("/workspace/sparse", max_bytes=1000)
        note(94, "user" if user else "root", why)
        assert int(code) == -5005 and len(text.rstrip("\0")) == 0
        _, code, _, text = box.copyout("/workspace/fine")[0]
        assert (code, text) == ("0", "fine")


@pytest.mark.parametrize("user", WHO)
def test_95_never_the_secret_while_folder_and_link_are_swapped(agent, host, user):
    os.makedirs(host.home / "d", exist_ok=True)
    (host.home / "d/key").write_text("SECRET\n")
    swap = f"""cd /workspace; mkdir real; echo harmless > real/key; ln -s {host.home}/d fake; cp -r real d; echo up
        perl -e 'while (1) {{ rename "d", "t"; symlink "{host.home}/d", "d"; unlink "d"; rename "t", "d" }}'"""
    with Box(agent, user) as box:
        box.start(swap).wait_for("up")
        (reads, secrets_read), = box.copyout("/workspace/d/key", times=30000)
        note(95, "user" if user else "root", f"{secrets_read} of {reads}")
        assert int(reads) > 100 and int(secrets_read) == 0
        box.tell(boxes.STOP, 0, b"task_cancelled")
        box.wait()


# --- what remains of other kinds ---


@pytest.mark.parametrize("user", WHO)
def test_two_sandboxes_do_not_see_each_other(agent, user):
    with Box(agent, user) as one, Box(agent, user, slot=2) as two:
        one.start("echo mine > /tmp/secret; chmod 777 /tmp/secret; echo up; sleep 60").wait_for("up")
        secret = one.session / "tmp/secret"
        two.start(f"cat {secret} {one.session}/log; ls {one.state}; kill -0 {one.processes()[-1]}; "
                  "ls /tmp; cat /proc/net/unix | wc -l; exit 3")
        assert two.wait()["exit_code"] == "3"
        assert "mine" not in two.log() and "secret:" in two.log()
        if not user:
            assert os.stat(secret).st_uid // 65536 != os.stat(two.session / "workspace").st_uid // 65536
        one.tell(boxes.STOP, 0, b"task_cancelled")
        one.wait()


@pytest.mark.parametrize("user", WHO)
def test_nested_sandboxes_end_at_their_limit_and_netfilter_stays_shut(agent, user):
    script = """unshare -Ur true && echo nested works; unshare -Urm mount -t tmpfs none /tmp && echo mount works
        perl -e 'socket S, 16, 3, 12 or print "netfilter: $!\n"'; cat /proc/sys/user/max_user_namespaces
        i=0; cmd='true'; while [ $i -lt 34 ]; do cmd="unshare -U $cmd"; i=$((i+1)); done; $cmd 2>&1 | tail -1; exit 2"""
    with Box(agent, user, nested=1) as box:
        assert box.start(script).wait()["exit_code"] == "2", box.log()
        log = box.log()
    assert "nested works" in log and "mount works" in log, log
    assert "netfilter: Protocol not supported" in log and "\n32\n" in log
    assert "unshare failed" in log, log


@pytest.mark.parametrize("user", WHO)
def test_the_fake_root_installs_what_wants_an_owner(agent, user):
    script = """id -u; touch f; chown 33:33 f && echo chowned; chmod 4755 f && echo set-uid
        perl -e '$) = 33; $> = 33; print "became\n" unless $!'; su root -c true 2>&1 | head -1; echo done"""
    with Box(agent, user, fake_root=1) as box:
        assert box.start(script).wait()["exit_code"] == "0", box.log()
        log = box.log()
    assert log.startswith("0\nchowned\nset-uid\n"), log
