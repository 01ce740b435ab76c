#!/usr/bin/env python3
"""Create -> first output of a sandbox: the driver with everything on, beside bwrap and crun.

    bench/sandbox.py [--build build/release] [--runs 50] [--at-once 100]

Prints milliseconds (median, 90th, 99th percentile, worst) as the user who runs it and, as root, as an ordinary user too.
bwrap and crun are timed with a similar tree, from their start to the first byte, without seccomp, limits and Landlock.
"""
import argparse
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
USER = 1500


def show(name, times):
    if not times:
        print(f"{name:44} -")
        return
    times = sorted(times)
    at = [times[min(len(times) - 1, int(len(times) * q))] for q in (0.5, 0.9, 0.99)]
    print(f"{name:44} p50 {at[0]:8.1f}  p90 {at[1]:8.1f}  p99 {at[2]:8.1f}  max {times[-1]:8.1f}  n {len(times)}")


def become(user):
    def change():
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    return change if user else None


def own(build, user, runs, at_once):
    state = tempfile.mkdtemp(prefix="mu-bench-")
    if user:
        os.chown(state, user, user)
    done = subprocess.run([build / "sandbox-outside", state, build / "agent", "echo x", "OZ_HARNESS=shell"],
                          env={"OUTSIDE_RUNS": str(runs), "OUTSIDE_AT_ONCE": str(at_once)}, preexec_fn=become(user),
                          capture_output=True, text=True)
    shutil.rmtree(state)
    failed = [x for x in done.stdout.splitlines() if x.startswith("failed")]
    if failed or done.returncode:
        print(f"  {len(failed)} failed: {failed[:3]} {done.stderr[:300]}")
    return [float(x) for x in done.stdout.splitlines() if not x.startswith("failed")]


def external(command, user, runs):
    times = []
    for _ in range(runs + 3):
        began = time.perf_counter()
        p = subprocess.Popen(command(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, preexec_fn=become(user))
        first = p.stdout.read(1)
        took = 1000 * (time.perf_counter() - began)
        p.stdout.read()
        p.wait()
        if not first:
            return []
        times.append(took)
    return times[3:]


def bwrap():
    return ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--ro-bind", "/usr", "/usr", "--symlink",
            "usr/bin", "/bin", "--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64", "--ro-bind", "/etc/ssl",
            "/etc/ssl", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--tmpfs", "/workspace", "--chdir",
            "/workspace", "/bin/sh", "-c", "echo x"]


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


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--build", default="build/release", type=pathlib.Path)
    ap.add_argument("--runs", default=50, type=int)
    ap.add_argument("--at-once", default=100, type=int)
    a = ap.parse_args()
    build = (ROOT / a.build).resolve()
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} processors")
    users = [("root", 0), ("ordinary user", USER)] if os.geteuid() == 0 else [("ordinary user", 0)]
    for name, user in users:
        show(f"own, everything, {name}", own(build, user, a.runs + 3, 1)[3:])
        show(f"own, {a.at_once} at once, {name}", own(build, user, a.at_once, a.at_once))
        if shutil.which("bwrap"):
            show(f"bwrap, {name}", external(bwrap, user, a.runs))
    if shutil.which("crun") and os.geteuid() == 0:
        with tempfile.TemporaryDirectory() as folder:
            show("crun, root", external(Crun(folder), 0, a.runs))


if __name__ == "__main__":
    main()
