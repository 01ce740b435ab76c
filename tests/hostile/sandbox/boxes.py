"""Sandboxes of kind namespace without a worker: the real keeper and the real runner, linked with the probes and with
layers that can be left out (MU_SANDBOX_HOLES)."""
import concurrent.futures
import ctypes
import os
import pathlib
import secrets
import shutil
import socket
import struct
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[3]
HERE = pathlib.Path(__file__).resolve().parent
BUILD = pathlib.Path(os.environ.get("MUSTER", ROOT / "build/asan/muster")).resolve().parent
LAYERS = {name: 1 << i for i, name in enumerate(
    "seccomp landlock netns masks nnp caps limits userns_limit ipcns readonly cgroup ceiling".split())}
USER = 1500  # an ordinary user's id; it needs no entry in passwd
RANGE = 0x70000000
SOL_SOCKET, SCM_RIGHTS = socket.SOL_SOCKET, 1
STOP, FREEZE, THAW, FROZEN = 1, 4, 5, 19


def build(folder):
    """The /agent tree with the probe program in `folder`."""
    src = ROOT / "src"
    files = [ROOT / line for line in (BUILD / "agent-obj/sources").read_text().split()]
    files += [HERE / "probe.c", HERE / "probe_kernel.c", src / "exec/sandbox/copyout.c"]
    specs = pathlib.Path(f"/usr/lib/{os.uname().machine}-linux-musl/musl-gcc.specs")
    flags = ["-std=gnu11", "-O1", "-g1", "-D_GNU_SOURCE", "-DMU_SANDBOX_HOLES", "-DMU_WITH_KEEP", '-DMU_VERSION="test"',
             f"-I{src}", f"-I{HERE}"]
    libc = []
    if specs.exists():
        kernel = folder / "kernel"
        kernel.mkdir(parents=True, exist_ok=True)
        for name in ("linux", "asm-generic", "asm", "mtd"):
            for place in ("/usr/include", f"/usr/include/{os.uname().machine}-linux-gnu"):
                if os.path.exists(f"{place}/{name}") and not (kernel / name).exists():
                    (kernel / name).symlink_to(f"{place}/{name}")
        (kernel / "jsmn.h").unlink(missing_ok=True)
        (kernel / "jsmn.h").symlink_to("/usr/include/jsmn.h")
        libc = [f"-specs={specs}", "-isystem", str(kernel)]
    ccache = [p] if (p := shutil.which("ccache")) else []
    objects = folder / "obj"
    objects.mkdir(parents=True, exist_ok=True)

    def one(path):
        out = objects / (path.name + ".o")
        extra = ["-Dmain=mu_agent_main"] if path.name == "agent_main.c" else []
        subprocess.run([*ccache, "gcc", *libc, *flags, *extra, "-c", str(path), "-o", str(out)], check=True)
        return str(out)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        compiled = list(pool.map(one, files))
    agent = folder / "agent"
    (agent / "bin").mkdir(parents=True, exist_ok=True)
    subprocess.run(["gcc", *libc, "-static", "-no-pie", *compiled, "-o", str(agent / "bin/muster")], check=True)
    shutil.rmtree(objects)
    shutil.copy(ROOT / "packaging/entrypoint.sh", agent / "entrypoint.sh")
    return agent


def own_cgroups():
    """Where control groups of tests are made: root with v1 controllers here; else none."""
    if os.geteuid() != 0:
        return []
    own = {}
    for line in open("/proc/self/cgroup"):
        _, names, path = line.strip().split(":", 2)
        for name in names.split(","):
            own[name] = path if path != "/" else ""
    mounts = {}
    for line in open("/proc/self/mountinfo"):
        head, tail = line.strip().split(" - ")
        kind, _, options = tail.split(" ", 2)
        if kind == "cgroup2":
            mounts["unified"] = head.split()[4] + own.get("", "")
        elif kind == "cgroup":
            for name in options.split(","):
                if name in own:
                    mounts[name] = head.split()[4] + own[name]
    if "memory" not in mounts:
        return []
    found = [("cg.rung", 3)]
    for name in ("unified", "memory", "pids", "cpu", "cpuacct"):
        if name in mounts:
            place = f"{mounts[name]}/muster-hostile"
            os.makedirs(place, exist_ok=True)
            found.append((f"cg.{name}", place))
    return found


class Box:
    """One sandbox: its session folder, its keeper."""

    def __init__(self, agent, user, rung=None, without=(), slot=1, **limits):
        self.user = user
        self.state = pathlib.Path(tempfile.mkdtemp(prefix="mu-hostile-"))
        self.id = "box-" + secrets.token_hex(4)
        self.session = self.state / "s" / self.id
        self.session.mkdir(parents=True)
        self.rung = rung or ("A" if user else "C")
        self.range = RANGE + slot * 65536 if self.rung == "C" else 0
        self.agent = agent
        self.limits = {"pids": 200, "disk": 64 << 20, "shm": 16 << 20, "grace": 500, "timeout": 60000, "memory": 0,
                       "log": 4 << 20, "network": 0, "without": sum(LAYERS[n] for n in without), **limits}
        self.keeper = None

    def start(self, script, env=(), records=()):
        """Begins to run the script (text of /bin/sh) as the task."""
        home = "/home/agent" if self.rung != "D" else str(self.session / "home")
        variables = ["PATH=/usr/bin:/bin", f"HOME={home}", "MUSTER_KEEPER=3", "OZ_HARNESS=shell", "TASK_ID=t", *env]
        if self.rung == "D":
            variables += [f"MUSTER_WORKSPACE={self.session}/workspace", f"TMPDIR={self.session}/tmp"]
        all_records = [("id", self.id), ("worker", "hostile"), ("base", ""), ("bundle", self.agent), ("epoch", 1),
                       ("rung", ord(self.rung)), ("range", self.range), ("cg.rung", 4)]
        all_records += list(self.limits.items()) + ([] if self.user else own_cgroups()) + list(records)
        all_records += [("arg", a) for a in ("muster", "runner")] + [("env", v) for v in variables]
        (self.session / "spec").write_bytes(b"".join(f"{k}={v}".encode() + b"\0" for k, v in all_records))
        (self.session / "prompt").write_text(script)
        os.chmod(self.session, 0o700)
        if self.user:
            for path in (self.state, self.state / "s", self.session, self.session / "spec", self.session / "prompt"):
                os.chown(path, self.user, self.user)
        self.ctl, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        keeper_end = theirs.fileno()

        def become():
            os.dup2(keeper_end, 3, inheritable=True)
            if self.user:
                os.setgroups([])
                os.setgid(self.user)
                os.setuid(self.user)

        self.keeper = subprocess.Popen([f"{self.agent}/bin/muster", "keep", str(self.session)], stdin=subprocess.DEVNULL,
                                       preexec_fn=become, pass_fds=(3, keeper_end) if keeper_end != 3 else (3,))
        theirs.close()
        return self

    def wait(self, timeout=90):
        self.keeper.wait(timeout)
        return self.end()

    def end(self):
        path = self.session / "end"
        if not path.exists():
            return {}
        return dict(r.split("=", 1) for r in path.read_text(errors="replace").split("\0") if "=" in r)

    def log(self):
        try:
            return (self.session / "log").read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def pid(self):
        """The host's number of PID 1."""
        return int((self.session / "pids").read_text().split("\0")[0].removeprefix("pid="))

    def wait_for(self, text, timeout=20):
        until = time.time() + timeout
        while text not in self.log():
            assert time.time() < until, f"not said: {text}\n{self.log()}\n{self.end()}"
            time.sleep(0.01)

    def tell(self, kind, value=0, text=b""):
        self.ctl.send(struct.pack("=BBHIq", kind, 0, 0, 0, value) + text)

    def hear(self, kind, timeout=20):
        """The next message of that kind: its value."""
        self.ctl.settimeout(timeout)
        while True:
            got = self.ctl.recv(1024)
            assert got, "the keeper is gone"
            found, _, _, _, value = struct.unpack("=BBHIq", got[:16])
            if found == kind:
                return value

    def processes(self):
        """The host's numbers of everything inside, PID 1 first."""
        found, queue = [], [self.pid()]
        while queue:
            pid = queue.pop()
            try:
                children = open(f"/proc/{pid}/task/{pid}/children").read().split()
            except OSError:
                continue
            found.append(pid)
            queue += map(int, children)
        return found

    def copyout(self, *paths, max_bytes=1 << 20, times=None):
        env = {"PROBE_TIMES": str(times)} if times else {}

        def become():
            if self.user:
                os.setgroups([])
                os.setgid(self.user)
                os.setuid(self.user)

        done = subprocess.run([f"{self.agent}/bin/muster", "copyout", str(self.session), str(self.range), str(max_bytes),
                               *paths], env=env, preexec_fn=become, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done
        return [line.split("|") for line in done.stdout.splitlines()]

    def remove(self):
        if self.keeper and self.keeper.poll() is None:
            self.keeper.kill()
            self.keeper.wait()
        time.sleep(0.01)
        shutil.rmtree(self.state, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.remove()


def shared_memory(key):
    """A SysV segment of the host with that key, readable by everybody; returns its id."""
    libc = ctypes.CDLL(None, use_errno=True)
    got = libc.shmget(key, 4096, 0o1000 | 0o666)
    assert got >= 0, os.strerror(ctypes.get_errno())
    return got


def remove_shared_memory(number):
    ctypes.CDLL(None).shmctl(number, 0, None)
