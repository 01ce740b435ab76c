"""The cases of script/bench about workers and sandboxes; `bench` is its Bench."""
import json
import os
import pathlib
import resource
import statistics
import subprocess
import tempfile
import time

import sandbox

KEY = "the-admin-key-of-the-benchmark"


def life(bench, server, workers, slots, clients, seconds, rate=0):
    out = subprocess.run([sandbox.BUILD / "fleet", "life", *map(str, (server.port, KEY, workers, slots, clients, seconds, rate))],
                         stdout=subprocess.PIPE, text=True, check=True).stdout
    done = json.loads(out)
    if done["refused"] or done["created"] != done["ended"]:
        raise SystemExit(f"lives were lost: {done}")
    return done


def dispatch(bench, database_url=None):
    """From the request to the frame at the worker, and whole lives."""
    name = "PostgreSQL: " if database_url else ""
    server = bench.server(database_url)
    server.start()
    life(bench, server, 64, 5, 16, 1, 500)
    paced = [life(bench, server, 64, 5, 16, 2 * bench.seconds, 500) for _ in range(bench.rounds)]
    p50, p99 = (statistics.median(x[f"frame_{q}_us"] for x in paced) / 1000 for q in ("p50", "p99"))
    bench.value(f"{name}create to assignment frame, 500/s, 64 workers", f"p50 {p50:.2f} ms, p99 {p99:.1f} ms",
                "p50 ≤ 1 ms, p99 ≤ 5 ms")
    full = []
    for _ in range(bench.rounds):
        cpu = bench.cpu_us(server.pid)
        done = life(bench, server, 64, 16, 256, bench.seconds)
        full.append((done["per_second"], (bench.cpu_us(server.pid) - cpu) / done["ended"]))
    rate, cost = sorted(full)[len(full) // 2]
    bench.value(f"{name}create, claim, start, end of a run, each synced, 64 workers", f"{rate:,}/s, CPU {cost:.0f} µs",
                "≥ 3,000/s")
    server.stop()


def idle_workers(bench):
    n = 2000 if bench.o.quick else 10000
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    server = bench.server()
    server.start()
    held = bench.spawn([sandbox.BUILD / "fleet", "idle", str(server.port), KEY, str(n)], stdin=subprocess.PIPE,
                       stdout=subprocess.PIPE, text=True)
    held.stdout.readline()
    time.sleep(6)  # the server gives memory back every 5 s
    bench.value(f"resident with {n:,} idle workers", f"{bench.rss_kib(server.pid) / 1024:.1f} MiB", "≤ 64 MiB with 10,000")
    took = []
    for kill in (False, True):
        began = time.monotonic()
        if kill:
            server.process.kill()
            server.process.wait()
        else:
            server.stop()
        server.start()
        held.stdout.readline()
        took.append(time.monotonic() - began)
    bench.value(f"{n:,} workers back after a restart, after kill -9", f"{took[0]:.1f} s, {took[1]:.1f} s", "≤ 10 s")
    time.sleep(6)
    bench.value("resident afterwards", f"{bench.rss_kib(server.pid) / 1024:.1f} MiB", "≤ 64 MiB with 10,000")
    held.stdin.close()
    held.wait(30)
    server.stop()


def worker(bench):
    server = bench.server()
    server.start()
    state = tempfile.mkdtemp(dir=bench.tmp)
    env = {"PATH": os.environ["PATH"], "HOME": state, "OZ_API_KEY": KEY}
    process = bench.spawn([server.binary, "worker", "--web-socket-url", f"ws://127.0.0.1:{server.port}/api/v1/selfhosted/worker/ws",
                           "--worker-id", "idle", "--sandbox", "namespace", "--state-dir", state, "--metrics-listen", "none"], env=env, stdout=subprocess.DEVNULL,
                          stderr=open(pathlib.Path(state) / "log", "wb"))
    deadline = time.monotonic() + 30
    while not server.call("GET", "/api/v1/workers", token=KEY)["workers"]:
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit("the worker did not connect:\n" + (pathlib.Path(state) / "log").read_text()[-2000:])
        time.sleep(0.1)
    time.sleep(2)
    bench.value("worker, idle", f"{bench.rss_kib(process.pid) / 1024:.1f} MiB", "≤ 8 MiB")
    process.terminate()
    process.wait(30)
    server.stop()


def sandboxes(bench):
    """Everything on, beside what starts less."""
    runs = 20 if bench.o.quick else 100
    root = os.geteuid() == 0
    crun = "–"
    if root:
        with tempfile.TemporaryDirectory() as folder:
            crun = sandbox.text(sandbox.external(sandbox.Crun(folder), 0, runs, sandbox.without_unified))
    users = [("ordinary user", 0)]
    if root:  # another user does not reach a clone in root's own folder
        others = all(folder.stat().st_mode & 1 for folder in sandbox.BUILD.parents)
        users = [("root", 0)] + ([("ordinary user", sandbox.USER)] if others else [])
    for name, user in users:
        bench.value(f"sandbox, create to first output, {name}", sandbox.text(sandbox.own(user, runs, 1, 3)), "p50 ≤ 8 ms, p99 ≤ 30 ms",
                    f"bwrap {sandbox.text(sandbox.external(sandbox.bwrap, user, runs))}", f"crun {crun}" if root and not user else "–")
        bench.value(f"100 sandboxes at once, {name}", sandbox.text(sandbox.own(user, 100, 100)), "p99 ≤ 1,500 ms")
    mib = 64 if bench.o.quick else 1024
    with sandbox.repository(mib) as folder:
        times = sandbox.own(0, runs, 1, 3, folder)
    bench.value(f"sandbox on a checkout of a warm repository of {mib:,} MiB", sandbox.text(times), "≤ 10 ms")
    if root:
        plain, ended, released = sandbox.podman(5 if bench.o.quick else 15)
        over = statistics.median(released) / statistics.median(plain) - 1
        bench.value("container through Podman, create to removed", f"{statistics.median(released):.0f} ms ({over:+.0%}; "
                    f"{statistics.median(ended):.0f} ms to the end)", "≤ +10 %", f"podman run --rm {statistics.median(plain):.0f} ms")
