"""script/bench: the real server, its peers and its limits in one table.

Everything runs on loopback on one machine; rates are medians of several rounds. CPU per operation is what survives a
noisy machine: the server's from /proc/PID/stat, the load generator's from getrusage."""
import argparse
import contextlib
import json
import os
import pathlib
import pwd
import re
import shutil
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

import live
import workers

ROOT = pathlib.Path(__file__).resolve().parents[1]
BUILD = ROOT / "build/bench"
TOKEN = "a-tenant-of-the-benchmark"
PROMPT = ("Please fix the failing test in module alpha. " * 30)[:1024]
TICK_US = 1_000_000 / os.sysconf("SC_CLK_TCK")
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
BATCH = {"sqlite": 256, "postgres": 60}


def say(text):
    print(f"-- {text}", file=sys.stderr, flush=True)


STARTED = []


def spawn(command, **options):
    """A child that does not outlive us, whatever goes wrong."""
    child = subprocess.Popen(command, **options)
    STARTED.append(child)
    return child


def end_children(tmp):
    for child in STARTED:
        if child.poll() is None:
            child.kill()
        child.wait()
    for folder in pathlib.Path("/proc").iterdir():  # a worker that is killed lets its sandboxes run: somebody may come back for them
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                words = (folder / "cmdline").read_bytes().split(b"\0")
                if b"keep" in words and any(w.startswith(bytes(tmp) + b"/") for w in words):
                    os.kill(int(folder.name), signal.SIGKILL)


def http(method, path, body=None):
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n"
    if body is None:
        return (head + "\r\n").encode() + b"\0"
    raw = json.dumps(body).encode()
    return (head + f"Content-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n").encode() + raw + b"\0"


def cpu_us(pid):
    """User and system time of a process in microseconds."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * TICK_US


def rss_kib(pid, key="VmRSS"):
    return int(re.search(rf"^{key}:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text(), re.M)[1])


class Postgres:
    """A private cluster: unix socket only, fsync and synchronous_commit on."""

    def __init__(self, tmp):
        found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
        if not found:
            raise SystemExit("PostgreSQL is not installed: script/bootstrap bench")
        self.bin, self.dir = found[-1].parent, pathlib.Path(tempfile.mkdtemp(prefix="muster-bench-pg-", dir="/tmp"))
        self.prefix = []
        if os.getuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(self.dir, user.pw_uid, user.pw_gid)
            self.prefix = ["runuser", "-u", "postgres", "--"]
        self.run("initdb", "-D", self.dir / "data", "-U", "muster", "--auth=trust", "-E", "UTF8", "--locale=C.UTF-8")
        conf = f"listen_addresses=''\nunix_socket_directories='{self.dir}'\nmax_connections=50\n" \
               "shared_buffers=256MB\nmax_wal_size=4GB\n"
        subprocess.run([*self.prefix, "tee", "-a", str(self.dir / "data/postgresql.conf")], input=conf.encode(),
                       stdout=subprocess.DEVNULL, check=True, cwd="/")
        subprocess.run([*self.prefix, str(self.bin / "pg_ctl"), "-D", str(self.dir / "data"), "-w", "-l",
                        str(self.dir / "log"), "start"], stdout=subprocess.DEVNULL, check=True, cwd="/", timeout=60)

    def run(self, program, *args):
        return subprocess.run([*self.prefix, str(self.bin / program), *map(str, args)], capture_output=True, text=True,
                              check=True, cwd="/", timeout=300, stdin=subprocess.DEVNULL).stdout.strip()

    def sql(self, database, text):
        return self.run("psql", "-h", self.dir, "-U", "muster", "-d", database, "-v", "ON_ERROR_STOP=1", "-Atc", text)

    def new_database(self, name):
        self.sql("postgres", f"CREATE DATABASE {name}")
        return f"postgres:///{name}?host={self.dir}&user=muster"

    def stop(self):
        with contextlib.suppress(subprocess.SubprocessError):
            self.run("pg_ctl", "-D", self.dir / "data", "-w", "-m", "immediate", "stop")
        shutil.rmtree(self.dir, ignore_errors=True)


class Provider:
    def __init__(self, seconds=3.0, rate=0):
        self.process = spawn([BUILD / "provider", str(seconds), str(rate)], stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline())

    def stop(self):
        self.process.kill()
        self.process.wait()


class Muster:
    """The release server with its own data folder and its log in a file."""

    def __init__(self, tmp, binary, provider, database_url=None, data=None):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="server-", dir=tmp))
        self.data = data or self.dir / "data"
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.env = {"PATH": os.environ["PATH"], "HOME": str(self.dir), "OZ_DATA_DIR": str(self.data), "OZ_EMBEDDED_WORKER": "off",
                    "OZ_CONTROL_PLANE_PORT": str(self.port), "OZ_ADMIN_API_KEY": "the-admin-key-of-the-benchmark",
                    "OZ_TENANT_MAX_QUEUED": "100000000", "OZ_MAX_CONNECTIONS": "30000",
                    "OZ_PROVIDER_CUSTOM_TYPE": "openai_compatible", "OZ_PROVIDER_CUSTOM_MODEL": "instant",
                    "OZ_PROVIDER_CUSTOM_BASE_URL": f"http://127.0.0.1:{provider.port}/v1"}
        if database_url:
            self.env["DATABASE_URL"] = database_url
        self.binary, self.process = binary, None

    def start(self):
        """Returns the milliseconds from exec to the first 200 of /health."""
        log = open(self.dir / "log", "ab")
        began = time.monotonic()
        self.process = spawn([self.binary, "serve"], env=self.env, stdin=subprocess.DEVNULL, stdout=log,
                                        stderr=subprocess.STDOUT, cwd=self.dir, start_new_session=True)
        ask = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
        while time.monotonic() < began + 60:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 5) as s:
                s.sendall(ask)
                if s.recv(64).startswith(b"HTTP/1.1 200"):
                    return (time.monotonic() - began) * 1000
            if self.process.poll() is not None:
                break
            time.sleep(0.0005)
        raise SystemExit("the server did not start:\n" + (self.dir / "log").read_text()[-2000:])

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            if self.process.wait(40) != 0:
                raise SystemExit("the server ended badly:\n" + (self.dir / "log").read_text()[-2000:])

    @property
    def pid(self):
        return self.process.pid

    def call(self, method, path, body=None, token=TOKEN):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method,
                                         data=None if body is None else json.dumps(body).encode(),
                                         headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"})
        with OPENER.open(request, timeout=60) as answer:
            return json.load(answer)

    def environment(self):
        made = self.call("POST", "/api/v1/environments", {"name": "bench", "docker_image": "debian:12"})
        return made.get("environment_id") or made["id"]

    def finished_run(self):
        run = self.call("POST", "/api/v1/agent/run", {"prompt": PROMPT, "title": "bench"})["run_id"]
        state = self.call("GET", f"/api/v1/agent/runs/{run}?wait=30")["state"]
        assert state == "SUCCEEDED", state
        return run


class Peer:
    def __init__(self, database):
        self.process = spawn(["node", "server.mjs", str(database)], cwd=ROOT / "bench/peer", text=True,
                                        stdout=subprocess.PIPE, env={**os.environ, "NODE_ENV": "production"})
        self.port = int(self.process.stdout.readline())
        self.pid = self.process.pid

    def stop(self):
        self.process.kill()
        self.process.wait()


class Bench:
    cpu_us, rss_kib, spawn = staticmethod(cpu_us), staticmethod(rss_kib), staticmethod(spawn)

    def __init__(self, options, tmp):
        self.o, self.tmp = options, tmp
        self.seconds, self.rounds = (1.5, 1) if options.quick else (3.0, 3)
        self.rows, self.scale = [], []
        self.provider = Provider(seconds=self.seconds)

    # --- measuring ---
    def load(self, mode, target, conns, requests, rounds=None, warm=None):
        """Median by rate of several rounds: rate, p50 and p99 in ms, CPU of both sides in us an operation."""
        path = self.tmp / "requests"
        path.write_bytes(requests)
        results = []
        for _ in range(rounds or self.rounds):
            p = spawn([BUILD / "load", mode, str(target.port), str(conns), str(self.seconds), path],
                                 stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
            if mode == "sse":
                assert p.stdout.readline() == "ready\n"
                time.sleep(0.3)
                os.kill(warm, signal.SIGUSR1)
                p.stdin.write("go\n")
                p.stdin.flush()
            assert p.stdout.readline() == "begin\n", "the load generator failed"
            cpu = cpu_us(target.pid)
            r = json.loads(p.stdout.readline())
            cpu = cpu_us(target.pid) - cpu
            p.wait(30)
            if r["failures"]:
                say(f"   {r['failures']} failures, the first: {r['first_failure']!r}")
            n = max(r["n"], 1)
            results.append({"rate": r["rate"], "p50": r["p50_us"] / 1000, "p99": r["p99_us"] / 1000, "cpu": cpu / n,
                            "load": r["cpu_us"] / n})
        return sorted(results, key=lambda x: x["rate"])[len(results) // 2]

    def limit(self, *args):
        out = subprocess.run([BUILD / "limit", *map(str, args)], capture_output=True, text=True, check=True, timeout=60)
        return json.loads(out.stdout.splitlines()[-1])

    def row(self, case, ours, peer=None, limit=None, goal="", what=""):
        self.rows.append({"case": case, "ours": ours, "peer": peer, "limit": limit, "goal": goal, "limit_is": what})
        say(f"{case}: {ours}")

    def value(self, case, text, goal, peer="–", limit="–"):
        self.rows.append({"case": case, "text": text, "goal": goal, "peer_text": peer, "limit_text": limit})
        say(f"{case}: {text}")

    def server(self, database_url=None, data=None):
        return Muster(self.tmp, self.o.binary, self.provider, database_url, data)

    # --- databases of the peers ---
    def empty_copy(self, data, name):
        """A database with the schema of the server's, and no rows."""
        path = self.tmp / name
        with contextlib.closing(sqlite3.connect(data / "muster.db")) as src, contextlib.closing(sqlite3.connect(path)) as dst:
            for (sql,) in src.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'"
                                      " ORDER BY type DESC").fetchall():
                dst.execute(sql)
            dst.commit()
        return path

    def clone_rows(self, data, have, want):
        """Copies the newest finished run with older ids until `want` runs are stored."""
        with contextlib.closing(sqlite3.connect(data / "muster.db")) as db:
            (source, ms), = db.execute("SELECT id, created_ms FROM sessions WHERE outcome = 1 ORDER BY id DESC LIMIT 1")
            fresh = "printf('%08x-%04x-7%03x-8%03x-%012x', t >> 16, t & 65535, i & 4095, (i >> 12) & 4095, i)"
            for table, key in (("sessions", "id"), ("session_specs", "session_id"), ("session_results", "session_id"),
                               ("streams", "id"), ("events", "stream_id"), ("attempts", "session_id")):
                columns = [c[1] for c in db.execute(f"PRAGMA table_info({table})")]
                values = ", ".join(fresh if c == key else f"x.{c}" for c in columns)
                db.execute(f"WITH RECURSIVE n(i) AS (SELECT {have + 1} UNION ALL SELECT i + 1 FROM n WHERE i < {want}), "
                           f"k AS MATERIALIZED (SELECT i, {ms} - 2000000 + i AS t FROM n) "
                           f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values} FROM k, {table} x "
                           f"WHERE x.{key} = '{source}'")
            db.commit()
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def clone_rows_pg(self, pg, database, want):
        source, ms = pg.sql(database, "SELECT id, created_ms FROM sessions WHERE outcome = 1 LIMIT 1").split("|")
        fresh = "lpad(to_hex((t >> 16)), 8, '0') || '-' || lpad(to_hex(t & 65535), 4, '0') || '-7' || " \
                "lpad(to_hex(i & 4095), 3, '0') || '-8' || lpad(to_hex((i >> 12) & 4095), 3, '0') || '-' || " \
                "lpad(to_hex(i), 12, '0')"
        for table, key in (("sessions", "id"), ("session_specs", "session_id"), ("session_results", "session_id"),
                           ("streams", "id"), ("events", "stream_id"), ("attempts", "session_id")):
            columns = pg.sql(database, "SELECT string_agg(column_name, ',' ORDER BY ordinal_position) FROM "
                             f"information_schema.columns WHERE table_name = '{table}'").split(",")
            values = ", ".join(fresh if c == key else f"x.{c}" for c in columns)
            pg.sql(database, f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values} FROM (SELECT i::bigint AS i, "
                   f"{ms}::bigint - 2000000 + i AS t FROM generate_series(1, {want}) i) k, {table} x "
                   f"WHERE x.{key} = '{source}'")
        pg.sql(database, "ANALYZE")

    # --- requests ---
    def create_request(self, environment=None):
        body = {"prompt": PROMPT, "title": "bench", "config": {"name": "bench"}}
        if environment:
            body["config"]["environment_id"] = environment
        return http("POST", "/api/v1/agent/run", body)

    def get_requests(self, server):
        runs = server.call("GET", "/api/v1/agent/runs?limit=200")["runs"]
        return b"".join(http("GET", f"/api/v1/agent/runs/{r['run_id']}") for r in runs)

    LIST = http("GET", "/api/v1/agent/runs?limit=50")
    FINISH = http("POST", "/api/v1/agent/run", {"prompt": PROMPT, "title": "bench"}) + \
        http("GET", "/api/v1/agent/runs/%s?wait=30")

    # --- the groups of cases ---
    def sqlite(self):
        server = self.server()
        server.start()
        time.sleep(1)
        idle, anon = rss_kib(server.pid), rss_kib(server.pid, "RssAnon")
        self.value("resident, idle", f"{idle / 1024:.1f} MiB ({anon / 1024:.1f} of it not shared)", "≤ 16 MiB")
        say("creates")
        environment = server.environment()
        ours = self.load("http", server, 256, self.create_request(environment))
        server.finished_run()
        peer = Peer(self.empty_copy(server.data, "peer.db"))
        theirs = self.load("http", peer, 256, self.create_request(environment), rounds=1)
        peer.stop()
        limit = self.limit("create", self.empty_copy(server.data, "limit.db"), self.seconds, BATCH["sqlite"])
        self.row("create, durable, 256 clients", ours, theirs["rate"], limit["rate"], "≥ 6,000/s, p99 < 60 ms",
                 "raw SQLite, 256 units a commit")
        ours = self.load("http", server, 256, self.create_request())
        self.row("create, provider route, 256 clients", ours, theirs["rate"], limit["rate"],
                 what="raw SQLite, 256 units a commit")
        server.stop()
        self.small(server)
        self.streams()

    def small(self, before):
        """POST to finished, on a server without a backlog."""
        server = self.server()
        server.start()
        sync = self.limit("sync", self.tmp / "sync", 1)
        self.row("POST to finished, 1 client", self.load("finish", server, 1, self.FINISH), goal="p50 ≤ 5 ms",
                 limit=sync["rate"] / 3, what="three fdatasync in a row")
        self.row("POST to finished, 16 clients", self.load("finish", server, 16, self.FINISH))
        self.row("/livez, 64 clients (HTTP alone)", self.load("http", server, 64, http("GET", "/livez")))
        server.stop()

    def streams(self):
        server = self.server()
        server.start()
        run = server.call("POST", "/api/v1/agent/run", {"prompt": "flood", "title": "bench"})["run_id"]
        time.sleep(0.3)
        request = http("GET", f"/api/v1/agent/runs/{run}/events")
        ours = self.load("sse", server, 1000, request, rounds=1, warm=self.provider.process.pid)
        server.stop()
        peer = Peer(self.empty_copy(server.data, "peer-sse.db"))
        theirs = self.load("sse", peer, 1000, http("GET", "/events"), rounds=1, warm=peer.pid)
        peer.stop()
        self.row("SSE deliveries, 1,000 viewers, full speed", ours, theirs["rate"], self.sse_limit(), "≥ 90,000/s",
                 "one write() for each event")
        paced = Provider(seconds=self.seconds + 1, rate=90)
        server = Muster(self.tmp, self.o.binary, paced)
        server.start()
        run = server.call("POST", "/api/v1/agent/run", {"prompt": "flood", "title": "bench"})["run_id"]
        time.sleep(0.3)
        request = http("GET", f"/api/v1/agent/runs/{run}/events")
        ours = self.load("sse", server, 1000, request, rounds=1, warm=paced.process.pid)
        self.row("SSE deliveries, 90 deltas/s to 1,000 viewers", ours, what="")
        server.stop()
        paced.stop()
        self.idle_streams()

    def fleet(self):
        workers.dispatch(self)
        workers.idle_workers(self)
        workers.worker(self)

    def sse_limit(self):
        p = spawn([BUILD / "limit", "sse", str(self.seconds)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        port = int(p.stdout.readline())
        path = self.tmp / "requests"
        load = spawn([BUILD / "load", "sse", str(port), "1000", str(self.seconds), path], text=True,
                                stdout=subprocess.PIPE, stdin=subprocess.PIPE)
        assert load.stdout.readline() == "ready\n"
        for pipe in (load.stdin, p.stdin):
            pipe.write("go\n")
            pipe.flush()
        rate = json.loads(p.stdout.readline())["rate"]
        load.kill()
        load.wait()
        p.wait(10)
        return rate

    def idle_streams(self):
        n = 2000 if self.o.quick else 10000
        server = self.server()
        server.start()
        run = server.call("POST", "/api/v1/agent/run",
                          {"prompt": "x", "config": {"environment_id": server.environment()}})["run_id"]
        path = self.tmp / "requests"
        path.write_bytes(http("GET", f"/api/v1/agent/runs/{run}/events"))
        before = rss_kib(server.pid)
        load = spawn([BUILD / "load", "hold", str(server.port), str(n), path], stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, text=True)
        assert load.stdout.readline() == "ready\n"
        time.sleep(2)
        after = rss_kib(server.pid)
        load.stdin.close()
        load.wait(30)
        self.value(f"memory of an idle SSE client, {n:,} of them", f"{(after - before) / n:.2f} KiB", "≤ 2 KiB")
        server.stop()

    def stored(self):
        """Get, list and create with many stored runs; start-up."""
        steps = [1000, 20000] if self.o.quick else [1000, 100000] + ([1000000] if self.o.long else [])
        main = steps[1]
        for want in steps:  # each with a folder of its own: the creates below leave live runs behind
            server = self.server()
            server.start()
            data, environment = server.data, server.environment()
            server.finished_run()
            server.stop()
            say(f"storing {want:,} runs")
            self.clone_rows(data, 0, want)
            server = self.server(data=data)
            started = []
            for _ in range(3):
                started.append(server.start())
                if len(started) < 3:
                    server.stop()
            requests = self.get_requests(server)
            get = self.load("http", server, 64, requests)
            listed = self.load("http", server, 16, self.LIST)
            if want == main:
                server.stop()
                self.row(f"get by id, 64 clients, {want:,} stored", get, self.peer_of(data, 64, requests),
                         self.limit("get", data / "muster.db", 1)["rate"], "≥ 30,000/s", "raw SQLite, one thread")
                self.row(f"list of 50, 16 clients, {want:,} stored", listed, self.peer_of(data, 16, self.LIST),
                         self.limit("list", data / "muster.db", 1)["rate"], "≥ 3,000/s", "raw SQLite, one thread")
                self.value(f"exec to healthy, {want:,} stored", f"{statistics.median(started):.0f} ms", "≤ 50 ms")
                server.start()
            created = self.load("http", server, 256, self.create_request(environment), rounds=1)
            self.scale.append((want, created, get, listed, statistics.median(started)))
            server.stop()
            shutil.rmtree(data)

    def peer_of(self, data, conns, requests):
        peer = Peer(data / "muster.db")
        try:
            return self.load("http", peer, conns, requests, rounds=1)["rate"]
        finally:
            peer.stop()

    def postgres(self):
        pg = Postgres(self.tmp)
        try:
            server = self.server(pg.new_database("bench"))
            server.start()
            environment = server.environment()
            ours = self.load("http", server, 256, self.create_request(environment))
            server.stop()
            conninfo = f"host={pg.dir} user=muster dbname=bench"
            limit = self.limit("create-pg", conninfo, self.seconds, BATCH["postgres"])
            self.row("PostgreSQL: create, durable, 256 clients", ours, None, limit["rate"], "≥ 2,000/s",
                     "libpq pipeline, 60 units a commit")
            server = self.server(pg.new_database("stored"))
            server.start()
            server.finished_run()
            finish = self.load("finish", server, 1, self.FINISH, rounds=1)
            self.clone_rows_pg(pg, "stored", 20000 if self.o.quick else 100000)
            requests = self.get_requests(server)
            self.row("PostgreSQL: get by id, 64 clients, 100,000 stored", self.load("http", server, 64, requests))
            self.row("PostgreSQL: list of 50, 16 clients, 100,000 stored", self.load("http", server, 16, self.LIST))
            self.row("PostgreSQL: POST to finished, 1 client", finish)
            server.stop()
            workers.dispatch(self, pg.new_database("fleet"))
        finally:
            pg.stop()

    # --- the table ---
    def table(self):
        head = ["case", "ours", "p50", "p99", "CPU µs/op", "load CPU", "peer", "× peer", "limit", "of limit", "goal"]
        lines = [head, ["---"] * len(head)]
        for r in self.rows:
            if "text" in r:
                lines.append([r["case"], r["text"], "", "", "", "", r["peer_text"], "", r["limit_text"], "", r["goal"]])
                continue
            o, peer, limit = r["ours"], r["peer"], r["limit"]
            lines.append([r["case"], f"{o['rate']:,.0f}/s", f"{o['p50']:.2f} ms" if o["p50"] else "",
                          f"{o['p99']:.1f} ms" if o["p99"] else "", f"{o['cpu']:.1f}", f"{o['load']:.1f}",
                          f"{peer:,.0f}/s" if peer else "–", f"{o['rate'] / peer:.1f}" if peer else "",
                          f"{limit:,.0f}/s ({r['limit_is']})" if limit else "–",
                          f"{o['rate'] / limit:.0%}" if limit else "", r["goal"]])
        for line in lines:
            print("| " + " | ".join(line) + " |")
        if self.scale:
            print("\n| stored runs | create: rate, CPU µs | get: rate, CPU µs | list of 50: rate, CPU µs | exec to healthy |")
            print("| --- | --- | --- | --- | --- |")
            for n, created, get, listed, started in self.scale:
                cells = " | ".join(f"{x['rate']:,.0f}/s, {x['cpu']:.1f}" for x in (created, get, listed))
                print(f"| {n:,} | {cells} | {started:.0f} ms |")


def main():
    parser = argparse.ArgumentParser(prog="script/bench", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one short round of each case: at most two minutes")
    parser.add_argument("--long", action="store_true", help="also with 1,000,000 stored runs")
    parser.add_argument("--engine", choices=("sqlite", "postgres"), help="only this engine (default: both; --quick: sqlite)")
    parser.add_argument("--only", help="only this group of cases",
                        choices=("sqlite", "streams", "small", "stored", "idle", "fleet", "sandbox", "live"))
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "build/muster", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.binary = options.binary.resolve()
    tmp = pathlib.Path(tempfile.mkdtemp(prefix="muster-bench-"))
    bench = Bench(options, tmp)
    began = time.monotonic()
    try:
        if options.only:
            {"sqlite": bench.sqlite, "streams": bench.streams, "small": lambda: bench.small(None), "stored": bench.stored,
             "idle": bench.idle_streams, "fleet": bench.fleet, "sandbox": lambda: workers.sandboxes(bench),
             "live": lambda: live.group(bench, options.case)}[options.only]()
        else:
            if options.engine != "postgres":
                bench.sqlite()
                bench.stored()
                bench.fleet()
                workers.sandboxes(bench)
                live.group(bench)
            if options.engine == "postgres" or (not options.engine and not options.quick):
                bench.postgres()
        print(f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, load average before the end "
              f"{os.getloadavg()[1]:.1f} (5 min), {time.monotonic() - began:.0f} s\n")
        bench.table()
    finally:
        end_children(tmp)
        shutil.rmtree(tmp, ignore_errors=True)


if __name__ == "__main__":
    main()
