"""Create -> first output of a sandbox: the driver with everything on, beside bwrap, crun and Podman in the same run.

Times are milliseconds from the start to the first byte. bwrap and crun get a similar tree, without seccomp, limits and
Landlock; Podman the image of its tests. As root every case runs as an ordinary user too."""
import contextlib
import ctypes
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
BUILD = ROOT / "build/bench"
USER = 1500
CLONE_NEWNS, MS_REC_PRIVATE, MNT_DETACH = 0x20000, 0x44000, 2


def text(times):
    if not times:
        return "–"
    times = sorted(times)
    return f"p50 {statistics.median(times):.1f} ms, p99 {times[int((len(times) - 1) * 0.99)]:.1f} ms"


def become(user):
    def change():
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    return change if user else None


def own(user, runs, at_once, warm=0, repository=None):
    """Milliseconds of each; fails when one of them failed."""
    state = tempfile.mkdtemp(prefix="mu-bench-")
    if user:
        os.chown(state, user, user)
    env = {"PATH": os.environ["PATH"], "OUTSIDE_RUNS": str(runs + warm), "OUTSIDE_AT_ONCE": str(at_once)}
    if repository:
        env["OUTSIDE_REPO"] = f"file://{repository}"
    done = subprocess.run([BUILD / "sandbox-outside", state, BUILD / "agent", "echo x", "OZ_HARNESS=shell"], env=env,
                          preexec_fn=become(user), capture_output=True, text=True)
    shutil.rmtree(state)
    failed = [x for x in done.stdout.splitlines() if x.startswith("failed")]
    if failed or done.returncode:
        raise SystemExit(f"{len(failed)} sandboxes failed: {failed[:3]} {done.stderr[:300]}")
    return [float(x) for x in done.stdout.splitlines()][warm:]


def external(command, user, runs, prepare=None):
    times = []
    for _ in range(runs + 3):
        argv = command()
        began = time.perf_counter()
        p = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=prepare or become(user))
        first = p.stdout.read(1)
        took = 1000 * (time.perf_counter() - began)
        error = p.communicate()[1]
        if not first:
            raise SystemExit(f"{argv[0]}: {error.decode(errors='replace')[:300]}")
        times.append(took)
    return times[3:]


def bwrap():
    return ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--ro-bind", "/usr", "/usr", "--symlink",
            "usr/bin", "/bin", "--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64", "--ro-bind", "/etc/ssl",
            "/etc/ssl", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--tmpfs", "/workspace", "--chdir",
            "/workspace", "/bin/sh", "-c", "echo x"]


def without_unified():
    """crun takes cgroups v1 or v2, but no mixture with controllers on both sides: it does not get to see v2 then."""
    libc = ctypes.CDLL(None)
    libc.unshare(CLONE_NEWNS)
    libc.mount(b"none", b"/", None, MS_REC_PRIVATE, None)
    libc.umount2(b"/sys/fs/cgroup/unified", MNT_DETACH)


class Crun:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.n = 0
        (self.folder / "rootfs").mkdir()
        subprocess.run(["crun", "spec"], cwd=self.folder, check=True)
        spec = json.loads((self.folder / "config.json").read_text())
        spec["process"].update(terminal=False, args=["/bin/sh", "-c", "echo x"])
        spec["root"]["readonly"] = False
        for name, flags in (("usr", ["ro"]), ("bin", ["ro"]), ("lib", ["ro"]), ("lib64", ["ro"])):
            spec["mounts"].append({"destination": f"/{name}", "source": f"/{name}", "type": "bind",
                                   "options": ["rbind", *flags]})
        (self.folder / "config.json").write_text(json.dumps(spec))

    def __call__(self):
        self.n += 1
        return ["crun", "run", "--bundle", str(self.folder), f"bench-{os.getpid()}-{self.n}"]


@contextlib.contextmanager
def repository(mib, kib=512, **more):
    """A repository of files that do not compress, mib MiB of them, each of kib KiB; and those given by name and text."""
    folder = tempfile.mkdtemp(prefix="mu-bench-repo-")
    os.chmod(folder, 0o755)
    git = ["git", "-C", folder, "-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "gc.auto=0"]
    try:
        subprocess.run([*git, "init", "-q", "-b", "main"], check=True)
        for name in ("core.compression", "core.looseCompression", "pack.compression", "core.bigFileThreshold"):
            subprocess.run([*git, "config", name, "0"], check=True)  # no deltas are looked for either
        for name, text in more.items():
            pathlib.Path(folder, name).write_text(text)
        for i in range(1024 * mib // kib):
            path = pathlib.Path(folder, f"d{i % 50}", f"f{i}.bin")
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(os.urandom(kib << 10))
        subprocess.run([*git, "add", "-A"], check=True)
        subprocess.run([*git, "commit", "-qm", "all"], check=True)
        yield folder
    finally:
        shutil.rmtree(folder)


def podman(rounds):
    """Three lists of milliseconds: plain `podman run --rm`; a task through the driver (image looked at, volume, create,
    start, end seen, log) and the same with the removal. In turns, the same image on the same engine; the image's own shell
    behind an entrypoint of two lines, so that the runner's work is in none of them."""
    sys.path.insert(0, str(ROOT / "tests/tools"))
    os.environ["SANDBOX_RUN"] = str(BUILD / "tests/unit/sandbox-run")
    import podman as tool
    from sandbox_box import Box
    bundle = pathlib.Path(tempfile.mkdtemp())
    (bundle / "entrypoint.sh").write_text("#!/bin/sh\nexec /bin/echo done\n")
    (bundle / "entrypoint.sh").chmod(0o755)
    engine = tool.Podman()
    plain, ended, released = [], [], []
    try:
        engine.image("localhost/task:1")
        box = Box("--driver", "docker", host=f"unix://{engine.socket}", bundle=bundle, image="localhost/task:1", net="none",
                  execution="exec-bench", env=["PATH=/bin"])
        for number in range(rounds + 1):
            began = time.perf_counter()
            done = engine.inside("run", "--rm", "--network", "none", "--security-opt", "no-new-privileges",
                                 "localhost/task:1", "/bin/echo", "done")
            assert done.stdout == b"done\n", done.stderr
            middle = time.perf_counter()
            box.log, box.first_offset = b"", 0
            box.say("start")
            assert box.until("ended")["exit_code"] == 0 and box.log == b"done\n"
            end = time.perf_counter()
            box.release()
            if number:  # the first one fills the volume
                plain.append(1000 * (middle - began))
                ended.append(1000 * (end - middle))
                released.append(1000 * (time.perf_counter() - middle))
        box.close()
    finally:
        engine.stop()
        shutil.rmtree(bundle)
    return plain, ended, released
