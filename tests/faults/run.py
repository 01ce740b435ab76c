#!/usr/bin/env python3
"""Servers, workers, sandboxes and cables that fail at random under load. One `muster serve` and N `muster worker`, each worker a
machine of its own (network namespace) that reaches the server by its address only. Tasks are programs in namespace sandboxes
that report to a witness outside (witness.py); judge.py compares its account with the server's.

    tests/faults/run.py --tasks 5000 --faults 500 --workers 4 --seed N [--engine postgres] [--binary PROGRAM]

Faults: the server killed and started at once; a worker, or a worker and all its sandboxes (machine), killed and started 0 to
3 s later; the program, process 1 or the keeper of a sandbox killed; a cable cut, or unplugged, for 0.5 to 20 s; packets delayed by 50 to 800 ms, duplicated and
reordered for 1 to 10 s. Root only. Nothing stays: no interface, process, mount, control group or folder."""
import argparse
import collections
import concurrent.futures
import contextlib
import hashlib
import os
import pathlib
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "e2e"), str(HERE.parent / "tools")]

FEEDERS = 24
TENANTS = 3
CAPACITY = 5
SETTLE = 240      # seconds in which every run has ended after the last fault
STUCK = 300       # seconds without the end of any run in which the load is stuck
SSE_SAMPLE = 300
KINDS = (("server", 16), ("worker", 14), ("machine", 6), ("sandbox", 18), ("cut", 26), ("unplug", 10), ("delay", 16), ("duplicate", 10))
PORT = 8080


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=150)
    parser.add_argument("--faults", type=int, default=15)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--engine", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--binary", type=pathlib.Path, help="default: $MUSTER, else build/asan/muster")
    parser.add_argument("--keep", action="store_true", help="keep the folder with data and logs when something was found")
    return parser.parse_args()


ARGS = parse() if __name__ == "__main__" else None
if ARGS and ARGS.binary:
    os.environ["MUSTER"] = str(ARGS.binary.resolve())

import harness  # noqa: E402
import httpx  # noqa: E402
import judge  # noqa: E402
import leftovers  # noqa: E402
import netlab  # noqa: E402
import witness  # noqa: E402
import worker_daemon  # noqa: E402


class Server(harness.Server):
    address = None

    @property
    def url(self):
        return f"http://{self.address}:{PORT}"


class Hand:
    """What a Daemon needs to know of its server."""

    def __init__(self, server, key):
        self.server, self.key = server, key

    url = property(lambda self: self.server.url)


class Faults:
    def __init__(self, args, out):
        self.args, self.out = args, out
        self.rng = random.Random(args.seed)
        self.lock = threading.Lock()
        self.stories, self.unexpected, self.errors = [], [], []
        self.killed = set()
        self.impaired = collections.defaultdict(list)
        self.happened = collections.Counter()
        self.open_ends = {}  # worker -> since when it has not been seen connected after a fault
        self.ended, self.created = 0, 0
        self.stop = threading.Event()
        self.busy = set()    # cables and processes that a fault has just now
        self.began, self.told = time.monotonic(), 0.0
        # What starts programs must live as long as they: they die with the thread that started them (PR_SET_PDEATHSIG).
        self.starter = concurrent.futures.ThreadPoolExecutor(1)

    # --- set up and down ---
    def set_up(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="muster-faults-", dir="/tmp"))
        self.dir.chmod(0o755)
        word = self.dir.name.rpartition("-")[2]
        self.out(f"mark {word}")  # in the name of every worker, and so on every command line
        self.names = [f"fault-{word}-{i}" for i in range(self.args.workers)]
        self.keys = [hashlib.sha256(f"{word}{i}".encode()).hexdigest() for i in range(self.args.workers)]
        self.witness = witness.Witness(self.dir / "w", self.names)
        netlab.leave_host_network()
        self.machines = [netlab.Machine() for _ in self.names]
        self.cables = netlab.Cables(self.machines)
        self.postgres = harness.Postgres() if self.args.engine == "postgres" else None
        hashes = ",".join(f"{n}={hashlib.sha256(k.encode()).hexdigest()}" for n, k in zip(self.names, self.keys))
        self.server = Server({"OZ_CONTROL_PLANE_HOST": self.cables.address, "OZ_CONTROL_PLANE_PORT": str(PORT),
                              "OZ_WORKER_KEYS": hashes, "OZ_LOG_LEVEL": "info"}, postgres=self.postgres, name="faults")
        self.server.address = self.cables.address
        self.server.start()
        self.workers = [self.new_worker(i) for i in range(self.args.workers)]
        self.admin = harness.Client(self.server, harness.ADMIN_KEY, timeout=20)
        self.environments = {}
        for i in range(TENANTS):
            tenant = f"faults-tenant-{i}"
            with harness.Client(self.server, tenant) as client:
                self.environments[tenant] = client.environment(env_vars={"FAULTS": word})["id"]
        harness.eventually(lambda: len(self.connected()) == len(self.names), timeout=60, what="the workers' connections")
        for name in self.names:
            self.open_ends.pop(name, None)

    def new_worker(self, i):
        env = {"OZ_API_KEY": self.keys[i], "OZ_SANDBOX_RO": str(self.witness.folder(self.names[i])),
               "SANDBOX_MEMORY_MB": "512"}
        d = worker_daemon.Daemon(Hand(self.server, self.keys[i]), "--sandbox", "namespace", "--capacity", str(CAPACITY),
                                 kind="namespace", env=env, worker_id=self.names[i], prefix=self.machines[i].prefix)
        return self.starter.submit(d.start).result()

    def tear_down(self, keep):
        self.stop.set()
        for w in getattr(self, "workers", []):
            if w.process and w.process.poll() is None:
                w.kill9()
        found = leftovers.processes(self.dir, *(w.dir for w in getattr(self, "workers", [])))
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if hasattr(self, "server"):
            if self.server.alive():
                self.server.kill9()
        time.sleep(0.2 if found else 0)
        leftovers.remove_groups(getattr(self, "names", []))
        if hasattr(self, "cables"):
            self.cables.remove()
        for m in getattr(self, "machines", []):
            m.remove()
        if getattr(self, "postgres", None):
            self.postgres.stop()
        if keep:
            (self.dir / "server.log").write_text(self.server.tail(5000))
            for w in self.workers:
                (self.dir / f"{w.args[w.args.index('--worker-id') + 1]}.log").write_text(
                    "\n".join(map(str, w.log)) + "\n" + w.err)
            self.out(f"kept: {self.dir}, {self.server.tmp}, " + ", ".join(str(w.dir) for w in self.workers))
            return
        for w in getattr(self, "workers", []):
            w.remove()
        if hasattr(self, "server"):
            self.server.remove()
        shutil.rmtree(self.dir, ignore_errors=True)

    # --- what is to be seen of the workers ---
    def connected(self):
        listed = harness.ok(self.admin.api("GET", "/workers"))["workers"]
        return {w["id"] for w in listed if w["connected"]}

    def watch(self):
        """A worker that a fault took away is impaired until it is connected again."""
        while not self.stop.wait(0.4):
            try:
                now, there = time.time(), self.connected()
            except (httpx.HTTPError, AssertionError):
                continue
            with self.lock:
                for name in there & set(self.open_ends):
                    since, not_before = self.open_ends[name]
                    if now - 0.4 > not_before:
                        del self.open_ends[name]
                        self.impaired[name].append((since, now + 1))

    def impair(self, name, begin, until):
        with self.lock:
            since = min(begin, self.open_ends.get(name, (begin,))[0])
            self.open_ends[name] = (since, max(until, self.open_ends.get(name, (0, 0))[1]))

    # --- load ---
    def feeder(self, number):
        rng = random.Random(self.args.seed * 1000 + number)
        tenant = f"faults-tenant-{number % TENANTS}"
        while not self.stop.is_set():
            with self.lock:
                if self.created >= self.args.tasks:
                    return
                self.created += 1
                story = self.new_story(rng, tenant, f"{self.args.seed:08x}-{self.created}")
            try:
                self.one(story, rng)
            except Exception as e:  # whatever it is, it is a finding
                with self.lock:
                    self.unexpected.append(f"{story.run_id}: {type(e).__name__}: {e}")

    def new_story(self, rng, tenant, key):
        dice = rng.random()
        story = judge.Story(key, tenant, seconds=rng.choice([0.0, 0.0, rng.uniform(0, 2), rng.uniform(0, 2)]),
                            lines=rng.choice([0, 0, 10, 500, 20000]) if dice < 0.5 else 0, daemon=rng.random() < 0.1,
                            status=3 if rng.random() < 0.05 else 0,
                            cancel_after=rng.uniform(0, 3) if rng.random() < 0.12 else None)
        self.stories.append(story)
        return story

    def call(self, client, method, path, **options):
        """Until it is answered: the server may be away just now."""
        end = time.monotonic() + 60
        while True:
            try:
                r = client.api(method, path, **options)
                if r.status_code != 503:
                    return r
            except httpx.TransportError:
                pass
            assert time.monotonic() < end and not self.stop.is_set(), f"{method} {path}: no answer"
            time.sleep(0.05)

    def one(self, s, rng):
        with harness.Client(self.server, s.tenant, timeout=15.0) as client:
            body = {"prompt": self.witness.prompt(s.seconds, s.lines, s.daemon, s.status),
                    "config": {"environment_id": self.environments[s.tenant], "harness": "shell"}}
            r = self.call(client, "POST", "/agent/run", json=body, headers={"Idempotency-Key": s.key})
            s.run_id = harness.ok(r)["run_id"]
            if s.cancel_after is not None:
                time.sleep(s.cancel_after)
                s.cancel_tried = True
                harness.ok(self.call(client, "POST", f"/agent/runs/{s.run_id}/cancel"))
                s.cancelled_at = time.time()
            end = time.monotonic() + STUCK
            while time.monotonic() < end and not self.stop.is_set():
                run = harness.ok(self.call(client, "GET", f"/agent/runs/{s.run_id}", params={"wait": 3}))
                if run["state"] in judge.TERMINAL:
                    s.ended = (run["state"], run["completed_at"])
                    with self.lock:
                        self.ended += 1
                    return
            raise AssertionError(f"still {run['state']} after {STUCK} s")

    # --- faults ---
    def take(self, what):
        with self.lock:
            if what in self.busy:
                return False
            self.busy.add(what)
            return True

    def give(self, what):
        with self.lock:
            self.busy.discard(what)

    def fault(self, kind):
        """False: not possible just now. Those that last go on in a thread."""
        if kind == "server":
            return self.kill_server()
        if kind == "sandbox":
            return self.kill_sandbox()
        number = self.rng.randrange(self.args.workers)
        what = ("process" if kind in ("worker", "machine") else "cable", number)
        if not self.take(what):
            return False
        body = {"worker": self.kill_worker, "machine": self.kill_machine, "cut": self.cut, "unplug": self.unplug, "delay": self.delay,
                "duplicate": self.duplicate}[kind]
        seconds = self.rng.random()
        threading.Thread(target=self.lasting, args=(what, body, number, seconds), daemon=True).start()
        return True

    def lasting(self, what, body, number, dice):
        try:
            body(number, dice)
        except Exception as e:
            with self.lock:
                self.unexpected.append(f"fault {body.__name__}: {type(e).__name__}: {e}")
        finally:
            self.give(what)

    def kill_server(self):
        now = time.time()
        for name in self.names:
            self.impair(name, now, now + 0.5)
        assert self.server.alive(), "the server died on its own\n" + self.server.tail()
        self.server.kill9()
        assert not harness.SANITIZER.search(self.server.err), self.server.err
        self.server.start()
        return True

    def kill_machine(self, number, dice):
        self.kill_worker(number, dice, sandboxes=True)

    def kill_worker(self, number, dice, sandboxes=False):
        w, now, wait = self.workers[number], time.time(), 3 * dice
        self.impair(self.names[number], now, now + wait + 0.5)
        assert w.process.poll() is None, "the worker died on its own\n" + w.tail()
        w.kill9()
        assert not harness.SANITIZER.search(w.err), w.tail()
        if sandboxes:
            self.killed |= {p.name for p in (w.state / "s").iterdir()}
            for pid in leftovers.processes(w.dir, self.witness.folder(self.names[number])):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(wait)
        self.starter.submit(w.start).result()

    def kill_sandbox(self):
        live = [e for e in self.witness.live() if e.ended is None]
        if not live:
            return False
        e, which = self.rng.choice(live), self.rng.choice(["task", "process 1", "keeper"])
        pid = leftovers.of_sandbox(e, which)
        if not pid:
            return False
        self.killed.add(e.execution_id)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        self.happened["  " + which] += 1
        return True

    def cable(self, number, seconds, after, on, off):
        now = time.time()
        self.impair(self.names[number], now, now + seconds + after)
        on()
        try:
            self.stop.wait(seconds)
        finally:
            off()

    def cut(self, number, dice):
        seconds = 0.5 * 40 ** dice  # 0.5 to 20 s, short ones as often as long ones
        self.cable(number, seconds, max(2.0, 1.5 * seconds), lambda: self.cables.set(number, cut=True),
                   lambda: self.cables.set(number, cut=False))

    def unplug(self, number, dice):
        seconds = 0.5 * 40 ** dice
        self.cable(number, seconds, max(2.0, 1.5 * seconds), lambda: self.cables.unplug(number),
                   lambda: self.cables.plug(number))

    def delay(self, number, dice):
        ms = 50 + 750 * dice
        self.cable(number, 1 + 9 * dice, 4.0, lambda: self.cables.set(number, delay_ms=ms, jitter_ms=ms * 0.4),
                   lambda: self.cables.set(number, delay_ms=0, jitter_ms=0))

    def duplicate(self, number, dice):
        self.cable(number, 1 + 9 * dice, 4.0, lambda: self.cables.set(number, duplicate=0.2, reorder=0.2, delay_ms=5),
                   lambda: self.cables.set(number, duplicate=0, reorder=0, delay_ms=0))

    def inject(self):
        """Spread over the load: the n-th fault when its share of the tasks has been made."""
        kinds, weights = zip(*KINDS)
        done, last = 0, time.monotonic()
        while done < self.args.faults and not self.stop.is_set():
            share = self.args.tasks * (done + 0.5) / self.args.faults
            if self.created < share and time.monotonic() - last < 8:
                time.sleep(0.02)
                self.progress(done)
                continue
            time.sleep(self.rng.uniform(0, 0.4))
            kind = self.rng.choices(kinds, weights)[0]
            if self.fault(kind):
                self.happened[kind] += 1
                done, last = done + 1, time.monotonic()
            else:
                time.sleep(0.05)
            self.progress(done)
        while self.busy and not self.stop.is_set():
            time.sleep(0.1)
            self.progress(done)

    def progress(self, done, now=False):
        at = time.monotonic() - self.began
        if now or at - self.told >= 10:
            self.told = at
            self.out(f"{at:6.0f} s  {self.created} created, {self.ended} ended, {done} faults, "
                     f"{len(self.witness.executions)} executions, {len(self.witness.live())} live")

    # --- judgement ---
    def settle(self, threads):
        end = time.monotonic() + SETTLE
        for t in threads:
            while t.is_alive() and time.monotonic() < end:
                t.join(1)
                self.progress(self.args.faults)
        self.stop.set()
        for t in threads:
            t.join(20)
        try:
            harness.eventually(lambda: not self.witness.live(), timeout=30, what="the end of all sandboxes")
        except AssertionError:
            self.errors += [f"{e.run_id}: {e.name} still lives on {e.worker}" for e in self.witness.live()]

    def fetch(self):
        clients = threading.local()

        def one(s):
            known = clients.__dict__
            if s.tenant not in known:
                known[s.tenant] = harness.Client(self.server, s.tenant)
            r = known[s.tenant].api("GET", f"/agent/runs/{s.run_id}") if s.run_id else None
            s.final = r.json() if r is not None and r.status_code == 200 else None

        def stream(s):
            try:
                with clients.__dict__[s.tenant].events(s.run_id, timeout=10.0) as events:
                    harness.assert_dense(events.until_end())
            except KeyError:
                clients.__dict__[s.tenant] = harness.Client(self.server, s.tenant)
                return stream(s)
            except (AssertionError, httpx.HTTPError, ValueError) as e:
                return [f"{s.run_id}: event log: {type(e).__name__} {e}"]
            return []

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            list(pool.map(one, self.stories))
            ended = [s for s in self.stories if s.final and s.final["state"] in judge.TERMINAL]
            sample = self.rng.sample(ended, min(SSE_SAMPLE, len(ended)))
            self.errors += sum(pool.map(stream, sample), [])
        self.streams = len(sample)
        orphans = [x for x in self.admin.get("/metrics").text.splitlines() if x.startswith("muster_orphans")]
        if not orphans or any(float(x.split()[-1]) for x in orphans):
            self.errors.append(f"orphans metric: {orphans}")

    def sql(self, text):
        if self.postgres:
            database = self.server.database_url.split("///")[1].split("?")[0]
            return [line.split("|") for line in self.postgres.sql(text, database).splitlines()]
        (found,) = [p for p in self.server.data.iterdir() if p.is_file() and p.read_bytes()[:15] == b"SQLite format 3"]
        with contextlib.closing(sqlite3.connect(found, timeout=20)) as db:
            return [[str(x) for x in row] for row in db.execute(text).fetchall()]

    def check_stored(self):
        finds = (("orphan, stored as live", "SELECT id FROM sessions WHERE ended_ms IS NULL"),
                 ("a live attempt of an ended run", "SELECT session_id FROM attempts WHERE ended_ms IS NULL"),
                 ("event log not dense", "SELECT t.id FROM streams t LEFT JOIN (SELECT stream_id, count(*) AS n, min(seq) AS a, "
                  "max(seq) AS b FROM events GROUP BY stream_id) e ON e.stream_id = t.id WHERE t.last_seq <> coalesce(e.b, 0) OR "
                  "coalesce(e.n, 0) <> t.last_seq - t.first_seq + 1 OR coalesce(e.a, t.first_seq) <> t.first_seq"))
        for what, query in finds:
            self.errors += [f"run_{row[0]}: {what}" for row in self.sql(query)[:20]]
        self.killed_runs = {f"run_{s}" for s, e in self.sql("SELECT session_id, execution_id FROM attempts") if e in self.killed}
        ((self.attempts,),) = self.sql("SELECT count(*) FROM attempts")

    def stop_all(self):
        for w in self.workers:
            try:
                assert w.process.poll() is None, "ended by itself\n" + w.tail()
                w.stop()
            except AssertionError as e:
                self.errors.append(f"worker: {e}")
        harness.eventually(lambda: not leftovers.processes(self.dir, *(w.dir for w in self.workers)), timeout=10,
                           what="the end of the sandboxes' processes")
        self.errors += leftovers.find(self)
        self.server.stop()
        self.errors += leftovers.blobs(self.server.data)

    def table(self):
        states = collections.Counter(s.final["state"] if s.final else "lost" for s in self.stories)
        failed = [s for s in self.stories if s.final and s.final["state"] == "FAILED"]
        own = sum(1 for s in failed if s.status and s.final["error"]["code"] == "exit_code")
        again = sum(1 for n in collections.Counter(e.run_id for e in self.witness.executions).values() if n > 1)
        rows = [("seed", self.args.seed), ("engine", self.args.engine), ("program", harness.BINARY),
                ("seconds", f"{time.monotonic() - self.began:.0f}"), ("runs", len(self.stories)),
                *((f"  {k}", v) for k, v in sorted(states.items())),
                ("  FAILED by their own status", own), ("  FAILED by a killed sandbox", len(failed) - own),
                ("executions seen by the witness", len(self.witness.executions)), ("attempts stored", self.attempts),
                ("runs executed more than once", again), ("faults", sum(v for k, v in self.happened.items() if k[0] != " ")),
                *((f"  {k}", self.happened[k]) for k, _ in KINDS), *sorted((f"  {k}", v) for k, v in self.happened.items() if k[0] == " "),
                *((f"  packets, cable {i}", n) for i, n in enumerate(self.packets)),
                ("event logs read over SSE", self.streams), ("findings", len(self.errors))]
        for name, value in rows:
            self.out(f"{name:32} {value}")

    def run(self):
        self.out(f"seed {self.args.seed}, engine {self.args.engine}, {self.args.tasks} tasks, {self.args.faults} faults, "
                 f"{self.args.workers} workers, {harness.BINARY}")
        passed = False
        try:
            self.set_up()
            threading.Thread(target=self.watch, daemon=True).start()
            threads = [threading.Thread(target=self.feeder, args=(i,), daemon=True) for i in range(FEEDERS)]
            for t in threads:
                t.start()
            self.inject()
            self.settle(threads)
            self.errors += self.unexpected[:20] + self.witness.bad[:20]
            self.packets = [", ".join(f"{v} {k}" for k, v in self.cables.set(i).items()) for i in range(self.args.workers)]
            for name, (since, _) in self.open_ends.items():
                self.impaired[name].append((since, time.time()))
            self.fetch()
            self.stop_all()
            self.check_stored()
            self.errors += judge.Judge(self.stories, self.witness.executions, self.killed, self.impaired,
                                       self.killed_runs).all()
            self.table()
            for text in self.errors[:40]:
                self.out("FOUND " + text)
            passed = not self.errors
        finally:
            self.tear_down(self.args.keep and not passed)
        return passed


def main():
    why = netlab.unusable()
    if why:
        print(f"not possible here: {why}", file=sys.stderr)
        return 77
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):  # also where a shell had it ignored
        signal.signal(number, lambda *_: sys.exit(1))
    return 0 if Faults(ARGS, lambda text: print(text, flush=True)).run() else 1


if __name__ == "__main__":
    sys.exit(main())
