#!/usr/bin/env python3
"""Kill -9 at random moments under load (done-when 4). The ledger of acknowledgements is kept here, upstream calls are
counted by the scripted model server: both outside Muster.

    build/venv/bin/python tests/crash/kill9.py --kills 200 [--engine postgres] [--seed N]

After each kill it prints how many stored runs were in which state. At the end: no acknowledged write lost, no run executed
after it was seen ended, no duplicate of a request repeated with its Idempotency-Key, no orphan, every event log dense. That
the judge sees each of these is shown by test_teeth.py.
"""
import argparse
import collections
import concurrent.futures
import datetime
import pathlib
import random
import shutil
import sqlite3
import sys
import tempfile
import threading
import time

import httpx

HERE = pathlib.Path(__file__).resolve().parent
for folder in ("e2e", "tools"):
    if str(HERE.parent / folder) not in sys.path:
        sys.path.insert(0, str(HERE.parent / folder))

import harness  # noqa: E402
import model as model_tool  # noqa: E402

THREADS = 48
IN_FLIGHT = 32
CALM = 2.6  # seconds
ATTEMPTS = 10
MAX_OPEN = 500  # runs that nobody saw ended: beyond it the load only watches
SSE_SAMPLE = 400  # event logs read over SSE; the stored ones are all judged

# When may an upstream call arrive? The model server gives the moment at which the kernel had the whole request (over the
# loopback that is the moment it was sent, however late the model server came to read it), exact to a tick of the kernel, which
# is 10 ms at most; stored times are cut to 1 ms. So no call may arrive later than TICK after the end of its run.
TICK = 0.012
# A cancel is one write, and only then the work is stopped (oz-api.md 7): of a run that was being executed just then, the call
# may leave between the two. With 48 clients, ASan and two cores that is some 10 ms; a run executed anew after a start would
# call later than this and is also seen by its state. A run cancelled before it was started makes no call at all.
CANCEL_SLACK = 0.25
STATE_NAMES = {20: "QUEUED", 22: "PENDING", 60: "INPROGRESS", 80: "stopping", 90: "ended ok", 92: "ended failed",
               94: "ended by deadline"}


class Entry:
    """What was acknowledged about one run."""

    def __init__(self, key, tenant, prompt, pending):
        self.key, self.tenant, self.prompt, self.pending = key, tenant, prompt, pending
        self.run_id = None     # acknowledged
        self.cancel_tried = False
        self.cancelled_at = None  # cancel acknowledged
        self.deleted = False   # delete acknowledged
        self.delete_tried = False
        self.ended = None      # (state, completed_at, output) as first seen, and when
        self.ended_seen = 0.0
        self.over = False      # as the judge finds it
        self.interrupted = False


class Crash:
    def __init__(self, kills, engine="sqlite", seed=None, out=print):
        self.kills, self.engine, self.out = kills, engine, out
        self.seed = seed if seed is not None else random.SystemRandom().randrange(1 << 32)
        self.rng = random.Random(self.seed)
        self.lock = threading.Lock()
        self.entries, self.environments, self.unexpected = [], [], []
        self.up, self.stop = threading.Event(), threading.Event()
        self.in_flight, self.at_kill, self.requests, self.repeated = 0, [], 0, 0
        self.generation = 0
        self.lost = collections.defaultdict(list)
        self.errors, self.clients = [], threading.local()
        self.settle_seconds = 120

    # --- load ---
    def worker(self, number):
        rng = random.Random(self.seed * 1000 + number)
        tenant = f"crash-tenant-{number % 6}"
        count = 0
        while not self.stop.is_set():
            if not self.up.wait(0.2):
                continue
            generation = self.generation
            try:
                with harness.Client(self.server, tenant, timeout=30.0) as client:
                    while not self.stop.is_set() and self.up.is_set() and generation == self.generation:
                        count += 1
                        self.one_story(client, rng, tenant, f"{self.seed:08x}-{number}-{count}")
            except (httpx.TransportError, TypeError):
                # TypeError: the port is None while the server is down.
                time.sleep(0.01)
            except Exception as e:  # anything else is a finding
                with self.lock:
                    self.unexpected.append(f"{type(e).__name__}: {e}")
                time.sleep(0.1)

    def call(self, client, method, path, **options):
        with self.lock:
            self.in_flight += 1
            self.requests += 1
        try:
            return client.api(method, path, **options)
        finally:
            with self.lock:
                self.in_flight -= 1

    def one_story(self, client, rng, tenant, key):
        with self.lock:
            # A request whose answer was lost is repeated, with its key, before anything new is asked.
            entry = self.lost[tenant].pop() if self.lost[tenant] else None
            self.repeated += entry is not None
            open_runs = sum(1 for e in self.entries[-4 * MAX_OPEN:] if e.run_id and not e.ended and not e.pending)
        if entry is None and open_runs > MAX_OPEN:
            return self.watch(client, tenant)
        if entry is None:
            entry = self.new_entry(rng, tenant, key)
        try:
            self.create(client, entry)
        finally:
            if entry.run_id is None:
                with self.lock:
                    self.lost[tenant].append(entry)
        dice = rng.random()
        if entry.run_id is None:
            return
        if dice < 0.15:
            self.cancel(client, entry)
        elif dice < 0.55:
            self.wait(client, entry)
        elif dice < 0.60:
            self.environment(client, key)
        elif dice < 0.65 and not entry.pending:
            self.wait(client, entry)
            self.delete(client, entry)

    def new_entry(self, rng, tenant, key):
        what = rng.choice(["", "", "[[slow:3:0.2]]", "[[slow:6:0.8]]", "[[slow:10:2]]"])
        entry = Entry(key, tenant, f"[[key:{key}]] {what}", rng.random() < 0.05)
        with self.lock:
            self.entries.append(entry)
        return entry

    def create(self, client, entry):
        body = {"prompt": entry.prompt}
        if entry.pending:
            body["config"] = {"environment_id": "debian:12"}
        r = self.call(client, "POST", "/agent/run", json=body, headers={"Idempotency-Key": entry.key})
        if r.status_code == 200:
            entry.run_id = r.json()["run_id"]
        elif r.status_code != 503:
            raise AssertionError(f"create: {r.status_code} {r.text[:200]}")

    def see(self, entry, run):
        if run["state"] in harness.TERMINAL and entry.ended is None:
            entry.ended = (run["state"], run["completed_at"], run["output"])
            entry.ended_seen = time.time()

    def wait(self, client, entry):
        if entry.pending:
            return
        r = self.call(client, "GET", f"/agent/runs/{entry.run_id}", params={"wait": 5})
        if r.status_code == 200:
            self.see(entry, r.json())
        elif r.status_code == 404 and not entry.delete_tried:
            raise AssertionError(f"acknowledged run {entry.run_id} is gone")

    def cancel(self, client, entry):
        entry.cancel_tried = True
        r = self.call(client, "POST", f"/agent/runs/{entry.run_id}/cancel")
        if r.status_code == 200:
            entry.cancelled_at = time.time()
        elif r.status_code != 503:
            raise AssertionError(f"cancel: {r.status_code} {r.text[:200]}")

    def delete(self, client, entry):
        if entry.ended is None:
            return
        entry.delete_tried = True
        r = self.call(client, "DELETE", f"/agent/runs/{entry.run_id}")
        if r.status_code in (200, 204, 404):
            entry.deleted = True

    def environment(self, client, key):
        r = self.call(client, "POST", "/environments", json={"name": key, "docker_image": "i", "env_vars": {"K": key}})
        if r.status_code == 200:
            with self.lock:
                self.environments.append((client.token, r.json()["id"], key))

    def watch(self, client, tenant):
        with self.lock:
            open_runs = [e for e in self.entries if e.tenant == tenant and e.run_id and not e.ended and not e.pending]
        for entry in open_runs[:20]:
            if self.stop.is_set() or not self.up.is_set():
                return
            self.wait(client, entry)

    # --- the killing ---
    def while_dead(self, number):
        """For test_teeth.py: between a kill and the next start."""

    def when_up(self, number):
        """For test_teeth.py: after the start, before the load goes on."""

    def database(self):
        if self.engine == "postgres":
            return self.server.database_url.split("///")[1].split("?")[0]
        (found,) = [p for p in self.server.data.iterdir() if p.is_file() and p.read_bytes()[:15] == b"SQLite format 3"]
        return found

    def sql(self, text):
        """Rows of text, from or into the server's own database."""
        if self.engine == "postgres":
            return [line.split("|") for line in self.postgres.sql(text, self.database()).splitlines()]
        db = sqlite3.connect(self.database(), timeout=20)
        try:
            rows = [[str(x) for x in row] for row in db.execute(text).fetchall()]
            db.commit()
            return rows
        finally:
            db.close()

    def states_at_rest(self):
        """State -> number of stored runs, read while the server is dead (from a copy: nothing is touched)."""
        query = "SELECT state, count(*) FROM sessions GROUP BY state"
        if self.engine == "postgres":
            rows = self.sql(query)
        else:
            with tempfile.TemporaryDirectory() as copy:
                name = self.database().name
                for p in self.server.data.glob(name + "*"):
                    shutil.copy(p, copy)
                db = sqlite3.connect(pathlib.Path(copy, name))
                rows = db.execute(query).fetchall()
                db.close()
        return {STATE_NAMES.get(int(s), str(s)): int(n) for s, n in rows}

    def kill(self, number):
        deadline = time.monotonic() + 20
        while self.in_flight < IN_FLIGHT:
            assert time.monotonic() < deadline, f"only {self.in_flight} requests in flight\n{self.server.tail()}"
            assert self.server.alive(), "the server died on its own\n" + self.server.tail()
            time.sleep(0.001)
        # Every fifth start is left alone for longer than the longest run lasts: else some would be interrupted so often that
        # they rightly fail (OZ_RUN_MAX_ATTEMPTS).
        time.sleep(CALM if number % 5 == 0 else self.rng.uniform(0.0, 1.5) ** 2)
        assert self.server.alive(), "the server died on its own\n" + self.server.tail()
        flying = self.in_flight
        self.server.kill9()
        self.up.clear()
        report = self.server.err
        assert not harness.SANITIZER.search(report), report
        states = self.states_at_rest()
        self.at_kill.append(states)
        self.while_dead(number)
        start = time.monotonic()
        self.server.start()
        self.when_up(number)
        self.generation += 1
        self.up.set()
        shown = ", ".join(f"{k} {v}" for k, v in sorted(states.items()))
        self.out(f"kill {number}/{self.kills}: {flying} requests in flight; {shown}; up again after "
                 f"{time.monotonic() - start:.2f} s")

    def run(self):
        self.out(f"seed {self.seed}, engine {self.engine}")
        self.model = model_tool.Model()
        self.postgres = harness.Postgres() if self.engine == "postgres" else None
        env = harness.provider_env(self.model, OZ_RUN_MAX_ATTEMPTS=str(ATTEMPTS))
        self.server = harness.Server(env, postgres=self.postgres, name="crash")
        threads = [threading.Thread(target=self.worker, args=(i,), daemon=True) for i in range(THREADS)]
        try:
            self.server.start()
            self.up.set()
            for t in threads:
                t.start()
            for number in range(1, self.kills + 1):
                self.kill(number)
            time.sleep(0.5)
            self.stop.set()
            for t in threads:
                t.join(60)
            self.judge()
            self.server.stop()
            self.check_stored()
            self.verdict()
        finally:
            self.stop.set()
            if self.server.alive():
                self.server.kill9()
            self.server.remove()
            self.model.stop()
            if self.postgres:
                self.postgres.stop()

    # --- judgement ---
    def client(self, token):
        """One client for each thread and token."""
        known = self.clients.__dict__
        if token not in known:
            known[token] = harness.Client(self.server, token)
        return known[token]

    def resolve_unknown(self):
        """Requests whose answer was lost are repeated with their key, as a client would."""
        for entry in self.entries:
            if entry.run_id is None:
                self.repeated += 1
                self.create(self.client(entry.tenant), entry)
                assert entry.run_id, f"{entry.key} cannot be created"

    def settle(self):
        """Every run that is not waiting for a worker ends."""
        end = time.monotonic() + self.settle_seconds
        while True:
            live = self.client(harness.ADMIN_KEY).list(state=["QUEUED", "CLAIMED", "INPROGRESS"], limit=200)["runs"]
            if not live:
                return
            if time.monotonic() > end:
                self.errors += [f"{r['run_id']}: orphan, still {r['state']}" for r in live]
                return
            time.sleep(0.2)

    def judge(self):
        self.errors += self.unexpected[:10]
        self.resolve_unknown()
        self.settle()
        counts = self.model.counts()
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            for found in pool.map(lambda e: self.check_entry(e, counts.get(e.key)), self.entries):
                self.errors += found
        self.errors += self.check_lists() + self.check_environments()
        streamed = self.check_streams()
        orphans = [x for x in self.client(harness.ADMIN_KEY).get("/metrics").text.splitlines()
                   if x.startswith("muster_orphans")]
        if not orphans or any(float(x.split()[-1]) for x in orphans):
            self.errors.append(f"orphans metric: {orphans}")
        again = sum(1 for c in counts.values() if c["started"] > 1)
        self.summary = (f"{self.kills} kills, {self.requests} requests, {len(self.entries)} runs ({self.repeated} "
                        f"creates repeated after a lost answer), {len(self.environments)} environments, {sum(c['started'] for c in counts.values())} "
                        f"upstream calls, {again} runs asked their provider again after a crash, {streamed} event logs read")

    def check_stored(self):
        """What the stopped server has stored, all of it: no orphans, and every log dense."""
        finds = (("orphan, stored as live", "SELECT id FROM sessions WHERE ended_ms IS NULL AND state <> 22"),
                 ("a live attempt of an ended run", "SELECT session_id FROM attempts a WHERE a.ended_ms IS NULL AND NOT EXISTS "
                  "(SELECT 1 FROM sessions s WHERE s.id = a.session_id AND s.ended_ms IS NULL)"),
                 # tries: the interruptions that were followed by another execution
                 (f"interrupted, yet not {ATTEMPTS} times", "SELECT s.id FROM sessions s JOIN session_results r ON "
                  f"r.session_id = s.id WHERE r.error_code = 'interrupted' AND s.tries <> {ATTEMPTS - 1}"),
                 ("no event log", "SELECT id FROM sessions s WHERE NOT EXISTS (SELECT 1 FROM streams t WHERE t.id = s.id)"),
                 ("no spec", "SELECT id FROM sessions s WHERE NOT EXISTS "
                  "(SELECT 1 FROM session_specs t WHERE t.session_id = s.id)"),
                 ("event log not dense", "SELECT t.id FROM streams t LEFT JOIN (SELECT stream_id, count(*) AS n, min(seq) AS a, "
                  "max(seq) AS b FROM events GROUP BY stream_id) e ON e.stream_id = t.id WHERE t.last_seq <> coalesce(e.b, 0) OR "
                  "coalesce(e.n, 0) <> t.last_seq - t.first_seq + 1 OR coalesce(e.a, t.first_seq) <> t.first_seq"))
        interrupted = [e for e in self.entries if e.interrupted]
        if len(interrupted) > len(self.entries) // 500:
            self.errors.append(f"{len(interrupted)} runs failed as interrupted: too many for chance")
        for what, query in finds:
            self.errors += [f"run_{row[0]}: {what}" for row in self.sql(query)[:50]]
        ((streams, events),) = self.sql("SELECT (SELECT count(*) FROM streams), (SELECT count(*) FROM events)")
        if int(streams) < len([e for e in self.entries if not e.delete_tried]) or int(events) < int(streams):
            self.errors.append(f"only {streams} stored event logs with {events} events")
        self.summary += f", {len(interrupted)} interrupted {ATTEMPTS} times, {streams} stored logs with {events} events judged"

    def verdict(self):
        total = collections.Counter()
        for states in self.at_kill:
            total.update(states)
        self.out(f"{self.summary}, {len(self.errors)} errors")
        self.out("states over all kills: " + ", ".join(f"{k} {v}" for k, v in sorted(total.items())))
        assert not self.errors, "\n".join(self.errors[:30])
        for state in ("QUEUED", "INPROGRESS"):
            assert total[state], f"no kill met a run in state {state}: the test shows nothing"

    def check_entry(self, entry, count):
        errors = []
        r = self.client(entry.tenant).api("GET", f"/agent/runs/{entry.run_id}")
        if entry.deleted:
            return [] if r.status_code == 404 else [f"{entry.run_id}: deleted and acknowledged, yet there"]
        if r.status_code == 404 and entry.delete_tried:
            return []
        if r.status_code != 200:
            return [f"{entry.run_id}: acknowledged, now {r.status_code}"]
        run, started = r.json(), count["started"] if count else 0
        entry.over = run["state"] in harness.TERMINAL
        if run["prompt"] != entry.prompt:
            errors.append(f"{entry.run_id}: another prompt")
        if entry.ended and entry.ended != (run["state"], run["completed_at"], run["output"]):
            errors.append(f"{entry.run_id}: was {entry.ended[:2]}, is {run['state']} {run['completed_at']}")
        errors += self.check_calls(entry, run, count)
        if entry.pending:
            if run["state"] not in ("PENDING", "CANCELLED") or started:
                errors.append(f"{entry.run_id}: waits for a worker, yet {run['state']} with {started} calls")
        elif entry.cancelled_at:
            if run["state"] not in ("CANCELLED", "SUCCEEDED"):
                errors.append(f"{entry.run_id}: cancel acknowledged, yet {run['state']} {run['error']}")
        elif entry.cancel_tried and run["state"] == "CANCELLED":
            pass  # done, and only its answer was lost
        elif run["state"] == "FAILED" and run["error"]["code"] == "interrupted":
            entry.interrupted = True  # right after ATTEMPTS executions, see check_stored
        elif run["state"] != "SUCCEEDED":
            errors.append(f"{entry.run_id}: {run['state']} {run['error']} after {started} calls")
        if run["state"] == "SUCCEEDED" and (not started or "scripted model" not in run["output"]):
            errors.append(f"{entry.run_id}: SUCCEEDED with {started} calls and output {run['output'][:40]!r}")
        return errors

    @staticmethod
    def check_calls(entry, run, count):
        """No upstream call is sent after the end; see TICK and CANCEL_SLACK."""
        if not count:
            return []
        if not run["started_at"]:
            return [f"{entry.run_id}: {run['state']} and never started, yet {count['started']} upstream calls"]
        last, cancelled = count["last_arrived"], run["state"] == "CANCELLED"
        for what, when in (("its end", run["completed_at"] and _seconds(run["completed_at"])),
                           ("it was seen ended", entry.ended and entry.ended_seen),
                           ("its cancel was acknowledged", cancelled and entry.cancelled_at)):
            if when and last > when + (CANCEL_SLACK if cancelled else TICK):
                return [f"{entry.run_id}: {run['state']}, upstream call {last - when:.3f} s after {what}"]
        return []

    def check_lists(self):
        """Each key has exactly one run in the tenant's list, and nothing is in the list that nobody asked for."""
        errors, by_tenant = [], collections.defaultdict(dict)
        for entry in self.entries:
            by_tenant[entry.tenant][entry.run_id] = entry
        for tenant, known in by_tenant.items():
            listed, cursor = [], None
            while True:
                page = self.client(tenant).list(limit=200, **({"cursor": cursor} if cursor else {}))
                listed += [r["run_id"] for r in page["runs"]]
                cursor = page["page_info"].get("next_cursor")
                if not cursor:
                    break
            if len(listed) != len(set(listed)):
                errors.append(f"{tenant}: a run is listed twice")
            extra = set(listed) - set(known)
            missing = {r for r, e in known.items() if not e.delete_tried} - set(listed)
            if extra or missing:
                errors.append(f"{tenant}: {len(extra)} runs too many (duplicates), {len(missing)} missing: "
                              f"{', '.join(sorted(extra | missing)[:10])}")
            if len(known) != sum(1 for e in self.entries if e.tenant == tenant):
                errors.append(f"{tenant}: two keys got one run")
        return errors

    def check_environments(self):
        errors = []
        for token, ident, key in self.environments:
            r = self.client(token).api("GET", f"/environments/{ident}")
            if r.status_code != 200 or r.json()["env_vars"] != {"K": key}:
                errors.append(f"{ident}: acknowledged, now {r.status_code} {r.text[:100]}")
        return errors

    def check_streams(self):
        """A sample of the logs as a client reads them: from 1 to `end` without a hole."""
        entries = [e for e in self.entries if not e.delete_tried and e.over]
        entries = self.rng.sample(entries, min(SSE_SAMPLE, len(entries)))

        def one(entry):
            try:
                with self.client(entry.tenant).events(entry.run_id, timeout=5.0) as stream:
                    harness.assert_dense(stream.until_end())
            except (AssertionError, httpx.HTTPError, KeyError, ValueError) as e:
                return f"{entry.run_id}: event log: {type(e).__name__} {e}"
            return None

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            found = [e for e in pool.map(one, entries) if e]
        self.errors += found
        return len(entries) - len(found)


def _seconds(stamp):
    return datetime.datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--engine", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--seed", type=int)
    args = parser.parse_args()
    Crash(args.kills, args.engine, args.seed, out=lambda text: print(text, flush=True)).run()


if __name__ == "__main__":
    main()
