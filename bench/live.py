"""The cases of script/bench about live sessions: the real server with its embedded worker, real sandboxes, real runners; its
clients are bench/live.c, beside node-pty + ws in the same run."""
import contextlib
import datetime
import json
import os
import pathlib
import re
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import sandbox

ROOT = pathlib.Path(__file__).resolve().parents[1]
BUILD = ROOT / "build/bench"
TOKEN = "a-tenant-of-the-benchmark"
ADMIN = "the-admin-key-of-the-benchmark"
TEXT = "The quick brown fox jumps over the lazy dog and looks for its tail again, 01234"
MARK = "printf 'END-OF-%s\\n' FLOOD"


def server_for(bench, worker, **more):
    server = bench.server()
    server.env.update(OZ_EMBEDDED_WORKER="on" if worker else "off", OZ_MAX_SESSIONS_PER_ORG="0", OZ_MAX_CONNECTIONS="60000",
                      OZ_WS_MAX_CONNECTIONS="60000", OZ_WS_MAX_CONNECTIONS_PER_USER="60000", OZ_ALLOW_LOCAL_REPOS="on",
                      OZ_WS_MAX_MESSAGES_PER_SECOND="1000", **more)
    server.start()
    if worker:
        until(lambda: [w for w in server.call("GET", "/api/v1/workers", token=ADMIN)["workers"] if w["connected"] and w["version"]],
              "the embedded worker")
    return server


def until(find, what, timeout=60):
    end = time.monotonic() + timeout
    while not (found := find()):
        if time.monotonic() > end:
            raise SystemExit(f"{what} did not come")
        time.sleep(0.02)
    return found


def get(server, session):
    return server.call("GET", f"/api/v1/sessions/{session}")["data"]


def create(server, **body):
    org = server.call("GET", "/api/v1/orgs/me")["data"]["orgId"]
    return server.call("POST", "/api/v1/sessions", {"orgId": org, **body})["data"]["sessionId"]


def running(server, session):
    def there():
        found = get(server, session)
        if "completedAt" in found:
            raise SystemExit(f"the session ended: {found}")
        return found["state"] == "RUNNING"
    until(there, "the session")
    return session


def logged(server, session, *types):
    """The events of these types, all pages."""
    found, page = [], {"nextSeq": 0, "hasMore": True}
    while page["hasMore"]:
        page = server.call("GET", f"/api/v1/sessions/{session}/events?types={','.join(types)}&limit=500&afterSeq={page['nextSeq']}")["data"]
        found += page["events"]
    return found


@contextlib.contextmanager
def served(folder):
    """Git's own server for one repository."""
    folder = pathlib.Path(folder)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    daemon = subprocess.Popen(["git", "daemon", "--listen=127.0.0.1", f"--port={port}", f"--base-path={folder.parent}",
                               "--export-all", "--reuseaddr", str(folder)], stderr=subprocess.DEVNULL, start_new_session=True)
    url = f"git://127.0.0.1:{port}/{folder.name}"
    try:
        until(lambda: subprocess.run(["git", "ls-remote", url], capture_output=True).returncode == 0, "git daemon")
        yield url
    finally:
        os.killpg(daemon.pid, 15)
        daemon.wait()


def processes(root):
    """Process ids below that one, itself included, by what they are."""
    parents, names = {}, {}
    for folder in pathlib.Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
                names[int(folder.name)] = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
    found, at = {}, [root]
    while at:
        pid = at.pop()
        words = names.get(pid, [])
        kind = "server" if pid == root else next((w for w in words[1:3] if w in ("worker", "runner")), None)
        if kind:
            found.setdefault(kind, []).append(pid)
        at += [p for p, parent in parents.items() if parent == pid]
    return found


class Watch:
    """Highest resident memory and CPU time of each kind of process over the block."""

    def __init__(self, bench, pids):
        self.bench, self.pids, self.peak, self.over = bench, pids, {}, threading.Event()

    def look(self):
        for kind, pids in self.pids.items():
            with contextlib.suppress(OSError, TypeError):
                self.peak[kind] = max(self.peak.get(kind, 0), sum(self.bench.rss_kib(p) for p in pids))

    def cpu(self):
        return {kind: sum(self.bench.cpu_us(p) for p in pids) for kind, pids in self.pids.items()}

    def __enter__(self):
        def run():
            while not self.over.wait(0.1):
                self.look()
        self.look()
        self.before, self.began = dict(self.peak), self.cpu()
        self.thread = threading.Thread(target=run)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()
        self.look()
        self.used = {k: v - self.began[k] for k, v in self.cpu().items()}

    def memory(self):
        return ", ".join(f"{k} {self.before[k] / 1024:.0f} → {self.peak[k] / 1024:.0f}" for k in self.peak) + " MiB"

    def time(self, n):
        return ", ".join(f"{k} {v / n:.2f}" for k, v in self.used.items())


def live(*args, **options):
    return subprocess.run([BUILD / "live", *map(str, args)], stdout=subprocess.PIPE, text=True, check=True, timeout=300, **options).stdout


# --- a watched terminal ---

def make_file(mib):
    return f"yes '{TEXT}' | head -c {mib}M >flood.txt; {MARK}"


def floods(port, token, session, times, rounds, *hows):
    """The median by rate for each way of reading and typing (bench/live.c)."""
    live("flood", port, token, session, make_file(64), "other")
    command = "cat" + " flood.txt" * times + f"; {MARK}"
    done = []
    for how in hows:
        results = [json.loads(live("flood", port, token, session, command, how)) for _ in range(rounds)]
        for r in results:
            if not r["ended"] or r["wrong"]:
                raise SystemExit(f"the flood: {r}")
            r["rate"] = times * 64 * 1.048576 / r["seconds"]
            r["lost"] = 1 - r["delivered"] / r["shown"]
        done.append(sorted(results, key=lambda r: r["rate"])[len(results) // 2])
    return done


def counter(server, name):
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}/metrics", headers={"Authorization": f"Bearer {ADMIN}"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
        return float(re.search(rf"^{name} ([0-9.e+]+)$", answer.read().decode(), re.M)[1])


def echo(r):
    lost = f", {r['lost_keys']} of {r['keys'] + r['lost_keys']} not within 2 s" if r["lost_keys"] else ""
    return f"p50 {r['p50_us'] / 1000:.2f} ms, p99 {r['p99_us'] / 1000:.1f} ms{lost}"


def pty_limit(folder, times):
    """MB/s of cat in a pseudo-terminal that one process reads and does nothing with."""
    command = "cat" + " flood.txt" * times
    out = subprocess.run([BUILD / "limit", "pty", command], cwd=folder, capture_output=True, text=True, check=True, timeout=120).stdout
    return json.loads(out)["rate"] / 1e6


def terminals(bench):
    times, rounds = (4, 1) if bench.o.quick else (16, 3)
    bytes_mb = times * 64 * 1.048576
    server = server_for(bench, True)
    with sandbox.repository(0, README="read me\n") as folder, served(folder) as url:
        session = running(server, create(server, providerId="shell", repo={"url": url}, options={"mode": "interactive"}))
    server.call("POST", f"/api/v1/sessions/{session}/terminals", {"cols": 120, "rows": 40})
    with Watch(bench, processes(server.pid)) as watch:
        ours = floods(server.port, TOKEN, session, times, rounds, "other", "same")
    unrecorded = counter(server, "muster_terminal_bytes_lost_total") / counter(server, "muster_terminal_bytes_total")
    text, = floods(server.port, TOKEN, session, times, rounds, "text")
    server.call("POST", f"/api/v1/sessions/{session}/stop?wait=30")
    server.stop()
    with tempfile.TemporaryDirectory(dir=bench.tmp) as folder:
        peer = bench.spawn(["node", "terminal.mjs", folder], cwd=ROOT / "bench/peer", text=True, stdout=subprocess.PIPE,
                           env={**os.environ, "NODE_ENV": "production", "HOME": folder})
        port = int(peer.stdout.readline())
        with Watch(bench, {"node": [peer.pid]}) as theirs_watch:
            theirs = floods(port, "-", "-", times, rounds, "other", "same")
        peer.kill()
        peer.wait()
        limit = pty_limit(folder, times)
    total = 2 * rounds * bytes_mb + 67
    bench.value(f"cat of {times * 64 / 1024:g} GiB into a watched terminal", f"{ours[0]['rate']:.0f} MB/s, {100 * ours[0]['lost']:.0f} % as gaps, "
                f"{100 * unrecorded:.0f} % not recorded", "≥ 100 MB/s", f"node-pty + ws {theirs[0]['rate']:.0f} MB/s", f"a pty alone {limit:.0f} MB/s")
    bench.value("the same as text frames (JSON)", f"{text['rate']:.0f} MB/s, {100 * text['lost']:.0f} % as gaps", "")
    bench.value("its CPU, ms a MB", watch.time(1000 * total), "", theirs_watch.time(1000 * total))
    bench.value("its memory, before and most", watch.memory(), "bounded", theirs_watch.memory())
    bench.value("echo of a key in another terminal meanwhile", echo(ours[0]), "p50 ≤ 2 ms, p99 ≤ 20 ms", echo(theirs[0]))
    bench.value("echo of a key in the same terminal meanwhile", f"{echo(ours[1])} ({ours[1]['rate']:.0f} MB/s)", "",
                f"{echo(theirs[1])} ({theirs[1]['rate']:.0f} MB/s)")


# --- many followers ---

class Source:
    """A scripted runner whose events of 256 bytes carry the time they left at."""

    def __init__(self, server):
        sys.path.insert(0, str(ROOT / "tests/tools"))
        import worker_peers
        self.worker = worker_peers.Native(Address(server), capacity=10, features=["live"], harnesses=["codex"]).__enter__()
        self.session = create(server, providerId="codex", repo={"url": "https://example.org/repo", "branch": "main"}, task="x")
        self.task = self.worker.assigned("run_" + self.session.removeprefix("ses_"))
        self.worker.claim(self.task)
        self.seq, self.looked, self.acked = 0, 0, 0
        self.say({"type": "hello", "runnerVersion": "bench", "sessionId": self.session, "epoch": self.task["epoch"], "lastSeq": 0,
                  "phase": "preparing", "terminals": []})
        self.worker.wait(lambda: any(f["type"] == "init" for m in self.worker.messages if m["type"] == "runner"
                                     for f in m["data"]["frames"]), 30, "init")
        self.report("boot", step="running", providerId="codex", providerVersion="1", workspacePath="/workspace", resumed=False)
        self.stored()

    def say(self, frame):
        self.worker.send("runner", {**self.worker.ids(self.task, seq=False), "frames": [frame]})

    def report(self, what, **fields):
        self.seq += 1
        self.say({"type": what, "seq": self.seq, **fields})

    def stored(self, behind=0):
        """All but so many of what it reported is."""
        def there():
            for m in self.worker.messages[self.looked:]:
                self.looked += 1
                for f in m["data"]["frames"] if m["type"] == "runner" else ():
                    self.acked = max(self.acked, f["seq"]) if f["type"] == "ack" else self.acked
            return self.acked >= self.seq - behind
        self.worker.wait(there, 30, "an ack")

    def events(self, n):
        path = f"@{time.monotonic_ns()}@".ljust(256 - 32, "x")
        self.report("events", events=[{"type": "FILE_TOUCHED", "data": {"path": path, "reason": "write"}}] * n)

    def run(self, seconds, rate, batch):
        """Events a second in messages of `batch`; rate 0: as fast as they are stored, with little on its way."""
        began, k = time.monotonic(), 0
        while (now := time.monotonic()) < began + seconds:
            if rate and k * batch >= rate * (now - began):
                time.sleep(0.001)
                continue
            self.events(batch)
            k += 1
            if not rate:
                self.stored(behind=4)

    def close(self):
        self.worker.__exit__(None, None, None)


class Address:
    """What the scripted worker needs of a server."""

    def __init__(self, server):
        self.port, self.admin_key, self.url = server.port, ADMIN, f"http://127.0.0.1:{server.port}"


def followed(bench, n, stalled, rate, batch, seconds):
    server = server_for(bench, False)
    source = Source(server)
    load = bench.spawn([BUILD / "live", "fan", str(server.port), TOKEN, source.session, str(n), str(stalled),
                        str(seconds)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    if load.stdout.readline() != "ready\n":
        raise SystemExit("the followers failed")
    with Watch(bench, {"server": [server.pid]}) as watch:
        load.stdin.write("go\n")
        load.stdin.flush()
        source.run(seconds, rate, batch)
        r = json.loads(load.stdout.readline())
    load.wait(30)
    if r["wrong"] or r["behind"]:
        raise SystemExit(f"followers saw holes, or not the end: {r}")
    source.close()
    server.stop()
    return {**r, "peak": watch.peak["server"] / 1024, "server_us": watch.used["server"] / max(r["n"], 1)}


def text_of(r):
    cut = f", {r['cut']} cut" if r["cut"] else ""
    return f"{r['rate']:,.0f}/s, p50 {r['p50_us'] / 1000:.1f} ms, p99 {r['p99_us'] / 1000:.1f} ms, CPU {r['server_us']:.2f} µs, " \
        f"{r['peak']:.0f} MiB{cut}"


def followers(bench):
    seconds = bench.seconds * (1 if bench.o.quick else 2)
    full = followed(bench, 1000, 0, 0, 50, seconds)
    bench.value("events of 256 bytes to 1,000 followers, full speed", text_of(full), "≥ 200,000/s")
    for stalled in (0, 1):
        r = followed(bench, 1000 + stalled, stalled, 220, 5, seconds)
        bench.value(f"220 events/s to 1,000 followers{', one more that does not read' if stalled else ''}", text_of(r),
                    "≥ 200,000/s, p99 ≤ 50 ms")


# --- idle ones ---

def idle(bench):
    with contextlib.suppress(ValueError):  # what root may
        resource.setrlimit(resource.RLIMIT_NOFILE, (51000, 51000))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    n = min(2000 if bench.o.quick else 50000, hard - 500)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    server = server_for(bench, False)
    before = bench.rss_kib(server.pid)
    began = time.monotonic()
    held = bench.spawn([BUILD / "live", "idle", str(server.port), TOKEN, str(n)], stdin=subprocess.PIPE,
                       stdout=subprocess.PIPE, text=True)
    if held.stdout.readline() != "ready\n":
        raise SystemExit("the idle clients failed")
    took = time.monotonic() - began
    time.sleep(3 if bench.o.quick else 30)  # past a heartbeat
    after = bench.rss_kib(server.pid)
    cpu = bench.cpu_us(server.pid)
    time.sleep(3)
    cpu = (bench.cpu_us(server.pid) - cpu) / 3e6
    held.stdin.close()
    cut = json.loads(held.stdout.readline())["cut"]
    held.wait(30)
    server.stop()
    if cut:
        raise SystemExit(f"{cut} idle clients were cut")
    each = (after - before) / n
    bench.value(f"resident with {n:,} idle authenticated WebSocket clients", f"{after / 1024:.0f} MiB ({each:.2f} KiB each: "
                f"{(before + 50000 * each) / 1024:.0f} MiB with 50,000), {100 * cpu:.0f} % of a core, opened in {took:.1f} s", "≤ 256 MiB with 50,000")


# --- an agent that is told what to do ---

AGENT = {"agent.py": (ROOT / "bench/agent.py").read_text()}


def asked(server, url):
    """A session of bench/agent.py on its repository."""
    made = server.call("POST", "/api/v1/environments", {"name": "bench", "docker_image": "debian:12", "setup_commands": [
        "install -D -m 755 /workspace/agent.py /home/agent/.local/bin/claude-agent-acp"]})
    session = create(server, providerId="claude_code", repo={"url": url}, options={
        "mode": "interactive", "environmentId": made["id"], "policy": {"shellAllowlist": ["ls"]}})
    return running(server, session)


def approvals(bench):
    n = 50 if bench.o.quick else 300
    server = server_for(bench, True)
    with sandbox.repository(0, **AGENT) as folder, served(folder) as url:
        session = asked(server, url)
    allow = bench.spawn([BUILD / "live", "allow", str(server.port), TOKEN, session], stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE, text=True)
    if allow.stdout.readline() != "ready\n":
        raise SystemExit("the client that decides failed")
    took = []
    for _ in range(2 if bench.o.quick else 4):
        server.call("POST", f"/api/v1/sessions/{session}/prompts", {"prompt": str(n)})

        def said():
            found = [e["data"]["text"] for e in logged(server, session, "AGENT_MESSAGE") if "<took" in e["data"].get("text", "")]
            return found[len(took):]
        took.append(json.loads(until(said, "the agent's words", 120)[0].partition("<took ")[2].partition(">")[0]))
    allow.stdin.close()
    if json.loads(allow.stdout.readline())["allowed"] != n * len(took):
        raise SystemExit("not every approval was decided by the client")
    server.call("POST", f"/api/v1/sessions/{session}/stop?wait=30")
    server.stop()
    ms = sorted(x / 1000 for x in sum(took[1:], []))  # the first ones warm up
    bench.value("approval asked, resolved by a client, agent continues", f"p50 {statistics.median(ms):.2f} ms, p99 {ms[int((len(ms) - 1) * 0.99)]:.1f} ms",
                "p50 ≤ 10 ms")


def checkpoints(bench):
    """From the end of a turn that changed files to the checkpoint that has them, by the log's own times: taken in the sandbox,
    stored and synced outside it, in the log."""
    mib, n = (64, 5) if bench.o.quick else (1024, 12)
    server = server_for(bench, True)
    with sandbox.repository(mib, 64, **AGENT) as folder, served(folder) as url:
        session = asked(server, url)
    took = []
    for _ in range(n):
        server.call("POST", f"/api/v1/sessions/{session}/prompts", {"prompt": "change 100"})

        def kept():
            events = logged(server, session, "TURN_ENDED", "CHECKPOINT_TAKEN")
            turns = [e for e in events if e["type"] == "TURN_ENDED"]
            taken = {e["data"].get("turnId"): e for e in events if e["type"] == "CHECKPOINT_TAKEN"}
            done = [(taken[t["data"]["promptId"]], t) for t in turns if t["data"]["promptId"] in taken]
            return done[-1] if len(done) > len(took) else None
        checkpoint, turn = until(kept, "the checkpoint", 120)
        ended, taken = (datetime.datetime.fromisoformat(e["timestamp"]) for e in (turn, checkpoint))
        took.append((taken - ended).total_seconds() * 1000)
    server.call("POST", f"/api/v1/sessions/{session}/stop?wait=30")
    server.stop()
    took = sorted(took[1:])  # the first one meets a cold tree
    bench.value(f"checkpoint of a tree of {mib:,} MiB (files of 64 KiB) with 100 changed files",
                f"p50 {statistics.median(took):.0f} ms, most {took[-1]:.0f} ms, {checkpoint['data']['bytes'] / (1 << 20):.1f} MiB", "≤ 300 ms")


def group(bench, only=None):
    for case in (terminals, followers, idle, approvals, checkpoints):
        if not only or case.__name__ == only:
            case(bench)
