"""Start, settings, stop, restart, several servers (oz-api.md 10, 11; README 5; architecture.md G1, G10)."""
import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import signal
import socket
import sqlite3
import ssl
import stat
import subprocess
import time

import httpx
import pytest
from harness import ADMIN_KEY, API, BINARY, assert_dense, assert_error, eventually, ok, provider_env


def all_text(server):
    return server.err + json.dumps(server.log) + "\n".join(server.not_json)


def fails(make_server, env, *words, **options):
    """The server must refuse to start and name the cause."""
    server = make_server(env, start=False, **options)
    server.start(wait=False)
    code = server.wait_exit(20)
    assert code != 0, "it started"
    assert code not in (97, -6, -11), server.tail()
    text = all_text(server)
    for word in words:
        assert word in text, f"{word} is not named\n{server.tail()}"
    return server


# --- first start ---

def test_first_start_in_an_empty_folder_needs_no_setting(make_server, tmp_path):
    server = make_server({"OZ_DATA_DIR": None, "OZ_CONTROL_PLANE_PORT": "0"}, admin_key=None, start=False)
    state = server.home / ".local/state"
    server.as_nobody()  # root's folder is the system's, not one of this test
    server.start()
    (key_file,) = [p for p in state.rglob("*") if p.is_file() and p.name == "admin.key"]
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(key_file.parent.stat().st_mode) == 0o700
    key = key_file.read_text().strip()
    assert len(key) >= 32
    assert key not in all_text(server), "the key is printed although this is no terminal"
    assert str(key_file) in all_text(server), "where the key lies is not said"
    admin = server.client(key)
    assert admin.get("/metrics").status_code == 200
    created = admin.create("hello")
    server.stop()
    server.start()
    admin = server.client(key)
    assert admin.run(created["run_id"])["run_id"] == created["run_id"], "another folder or another key"
    assert key_file.read_text().strip() == key


def test_nothing_is_readable_by_others(make_server):
    server = make_server()
    server.client("t").create()
    for path in [server.data, *server.data.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_listens_on_loopback_only(make_server):
    server = make_server()
    lines = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True).stdout.splitlines() \
        if pathlib.Path("/usr/bin/ss").exists() or pathlib.Path("/bin/ss").exists() else None
    if lines is None:
        port = f"{server.port:04X}"
        listening = [x.split()[1] for x in open("/proc/net/tcp").readlines()[1:] if x.split()[3] == "0A"]
        addresses = {a.split(":")[0] for a in listening if a.endswith(":" + port)}
        assert addresses == {"0100007F"}
    else:
        mine = [x.split()[3] for x in lines if f"pid={server.pid}," in x]
        assert mine and all(a.startswith("127.0.0.1:") for a in mine), mine


def test_startup_log(make_server):
    server = make_server()
    line = server.wait_log("startup.listening")
    assert line["service"] == "muster" and line["level"] == "info" and line["port"] == server.port
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["ts"])


def test_root_is_warned_about(make_server):
    if os.getuid() != 0:
        # The tests do not run as root: nothing to see, and the opposite can be checked.
        assert not [x for x in make_server().log if x["level"] == "warn" and "root" in json.dumps(x)]
        return
    server = make_server()
    eventually(lambda: [x for x in server.log if x["level"] == "warn" and "root" in json.dumps(x)], 5, "the warning")


# --- settings ---

@pytest.mark.parametrize("env,name", [
    ({"OZ_CONTROL_PLANE_PORT": "abc"}, "OZ_CONTROL_PLANE_PORT"), ({"OZ_CONTROL_PLANE_PORT": "70000"}, "OZ_CONTROL_PLANE_PORT"),
    ({"OZ_CONTROL_PLANE_PORT": "-1"}, "OZ_CONTROL_PLANE_PORT"), ({"OZ_CONTROL_PLANE_HOST": "not an address"}, "OZ_CONTROL_PLANE_HOST"),
    ({"OZ_RUN_CONCURRENCY": "0"}, "OZ_RUN_CONCURRENCY"), ({"OZ_RUN_CONCURRENCY": "4097"}, "OZ_RUN_CONCURRENCY"),
    ({"OZ_RUN_CONCURRENCY": "1.5"}, "OZ_RUN_CONCURRENCY"), ({"OZ_RUN_MAX_ATTEMPTS": "11"}, "OZ_RUN_MAX_ATTEMPTS"),
    ({"OZ_SHUTDOWN_GRACE_MS": "25001"}, "OZ_SHUTDOWN_GRACE_MS"), ({"OZ_RETENTION_SWEEP_INTERVAL_MS": "x"}, "OZ_RETENTION_SWEEP_INTERVAL_MS"),
    ({"OZ_RUN_RETENTION_DAYS": "soon"}, "OZ_RUN_RETENTION_DAYS"), ({"ENVIRONMENT": "somewhere"}, "ENVIRONMENT"),
    ({"OZ_RUN_SOURCE_DEFAULT": "NOWHERE"}, "OZ_RUN_SOURCE_DEFAULT"), ({"OZ_ALLOW_NO_ADMIN_KEY": "perhaps"}, "OZ_ALLOW_NO_ADMIN_KEY"),
    ({"OZ_TLS_CERT_FILE": "/no/such/cert"}, "OZ_TLS"), ({"OZ_TENANT_TOKENS_FILE": "/no/such/file"}, "OZ_TENANT_TOKENS_FILE"),
    ({"OZ_LOG_FORMAT": "xml"}, "OZ_LOG_FORMAT"), ({"OZ_METRICS_LISTEN": "nonsense"}, "OZ_METRICS_LISTEN"),
    ({"OZ_NO_SUCH_SETTING_AT_ALL": "1"}, "OZ_NO_SUCH_SETTING_AT_ALL"),
    ({"OZ_CONTROL_PLANE_PROT": "8080"}, "OZ_CONTROL_PLANE_PROT"), ({"OZ_ADMIN_API_KEY_FILE": "/no/such/file"}, "OZ_ADMIN_API_KEY")])
def test_wrong_settings_are_fatal_and_named(make_server, env, name):
    fails(make_server, env, name)


@pytest.mark.parametrize("url", ["mysql://x/y", "postgres://nobody@127.0.0.1:1/none", "file:/no/such/folder/x.db", "://"])
def test_wrong_database_is_fatal(make_server, url):
    fails(make_server, {}, "startup.fatal", postgres=None, database_url=url)


def test_password_of_the_database_is_not_shown(make_server):
    server = fails(make_server, {}, postgres=None, database_url="postgres://u:s3cr3tpass@127.0.0.1:1/none")
    assert "s3cr3tpass" not in all_text(server)


def test_production_needs_its_settings(make_server):
    server = fails(make_server, {"ENVIRONMENT": "production"}, "OZ_ADMIN_API_KEY", admin_key=None)
    assert not list(server.data.glob("admin.key")), "a key was generated in production"
    if not server.postgres:
        fails(make_server, {"ENVIRONMENT": "production", "DATABASE_URL": None}, "DATABASE_URL")


def test_blank_admin_key_counts_as_missing_in_production(make_server):
    fails(make_server, {"ENVIRONMENT": "production", "OZ_ADMIN_API_KEY": "   "}, "OZ_ADMIN_API_KEY", admin_key=None)


def test_env_file_is_read_and_does_not_override(make_server):
    text = "# a comment\n\nOZ_LIST_LEGACY_ITEMS=off\nOZ_RUN_SOURCE_DEFAULT=\"SLACK\"\nOZ_LIST_MESSAGE_BYTES='7'\n"
    server = make_server({"OZ_RUN_SOURCE_DEFAULT": "LINEAR"}, files={".env": text})
    client = server.client("t")
    assert client.run(client.create()["run_id"])["source"] == "LINEAR"
    assert not client.list().get("items")


def test_env_file_with_another_name(make_server, tmp_path):
    path = tmp_path / "settings"
    path.write_text("OZ_RUN_SOURCE_DEFAULT=SLACK\n")
    client = make_server({"OZ_ENV_FILE": str(path)}).client("t")
    assert client.run(client.create()["run_id"])["source"] == "SLACK"


@pytest.mark.parametrize("text,word", [("OZ_RUN_CONCURRENCY=many\n", "OZ_RUN_CONCURRENCY"), ("OZ_TYPO_HERE=1\n", "OZ_TYPO_HERE"),
                                       ("this is no assignment\n", ".env"), ("\x00\x01\x02", ".env")])
def test_bad_env_file_is_fatal(make_server, text, word):
    fails(make_server, {}, word, files={".env": text})


def test_value_from_a_file(make_server, tmp_path):
    path = tmp_path / "key"
    path.write_text("key-from-the-file\n")
    server = make_server({"OZ_ADMIN_API_KEY_FILE": str(path)}, admin_key=None)
    assert server.client("key-from-the-file").get("/metrics").status_code == 200


def test_config_command_masks_secrets(make_server):
    server = make_server(start=False)
    done = subprocess.run([str(BINARY), "config"], env=server.environment(), cwd=server.cwd, capture_output=True, text=True,
                          timeout=20)
    assert done.returncode == 0, done.stderr
    assert "OZ_RUN_CONCURRENCY" in done.stdout and ADMIN_KEY not in done.stdout + done.stderr


def test_busy_port_is_one_line_and_exit_1(make_server):
    first = make_server()
    second = fails(make_server, {"OZ_CONTROL_PLANE_PORT": str(first.port)}, "startup.fatal", str(first.port))
    assert second.process.returncode == 1


def test_second_server_on_the_same_data_refuses(make_server):
    first = make_server()
    second = make_server({"OZ_DATA_DIR": str(first.data)}, start=False, postgres=None, database_url=first.database_url)
    second.start(wait=False)
    assert second.wait_exit(20) != 0, "two servers on one database"
    assert "startup.fatal" in all_text(second)
    assert first.client("t").create()["run_id"]
    first.stop()
    second.start()
    assert second.client("t").list()["runs"]


def test_read_only_folder_is_fatal_in_words(make_server, tmp_path):
    place = tmp_path / "file"
    place.write_text("")
    fails(make_server, {"OZ_DATA_DIR": str(place)}, str(place))


def test_damaged_database_is_fatal_in_words(make_server):
    server = make_server(postgres=None)
    server.client("t").create()
    server.stop()
    (database,) = [p for p in server.data.iterdir() if p.is_file() and p.read_bytes()[:15] == b"SQLite format 3"]
    database.write_bytes(b"this is not a database, whatever the first bytes say" * 100)
    server.start(wait=False)
    assert server.wait_exit(20) not in (0, 97)
    assert "startup.fatal" in all_text(server)


def test_tls(make_server, tmp_path):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"], check=True, capture_output=True)
    server = make_server({"OZ_TLS_CERT_FILE": str(cert), "OZ_TLS_KEY_FILE": str(key)})
    context = ssl.create_default_context(cafile=str(cert))
    with httpx.Client(base_url=f"https://127.0.0.1:{server.port}", verify=context, trust_env=False) as client:
        assert client.get("/health").json()["ok"] is True
        r = client.post(f"{API}/agent/run", json={"prompt": "x" * 300_000}, headers={"Authorization": "Bearer t"})
        run = ok(r)["run_id"]
        got = client.get(f"{API}/agent/runs/{run}", headers={"Authorization": "Bearer t"})
        assert len(ok(got)["prompt"]) == 300_000
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"http://127.0.0.1:{server.port}/health", trust_env=False, timeout=5).raise_for_status()


# --- stop ---

@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_idle_server_stops_at_once(make_server, sig):
    server = make_server()
    server.client("t").list()
    start = time.monotonic()
    server.signal(sig)
    assert server.wait_exit() == 0 and time.monotonic() - start < 5
    assert [line["msg"] for line in server.log if line["msg"].startswith("shutdown.")] == \
        ["shutdown.start", "shutdown.complete"]


def test_drain_waits_for_runs_and_answers_503_meanwhile(make_server, model):
    server = make_server(provider_env(model))
    client = server.client("t")
    run_id = client.create("[[slow:8:3]]")["run_id"]
    client.wait(run_id, "INPROGRESS")
    assert client.get("/health").status_code == 200  # a connection that is kept
    server.signal(signal.SIGTERM)
    server.wait_log("shutdown.start")
    r = client.api("GET", f"/agent/runs/{run_id}")
    assert_error(r, 503, "shutting_down")
    assert r.headers["retry-after"] == "1"
    with pytest.raises(httpx.TransportError):
        while True:
            with server.client(None) as fresh:
                health = fresh.get("/health")
                assert health.status_code == 503 and health.json()["shutting_down"] is True
            time.sleep(0.1)
    assert server.wait_exit() == 0
    server.start()
    run = server.client("t").run(run_id)
    assert run["state"] == "SUCCEEDED" and "word7" in run["output"], "the drain did not wait for the run"
    assert len(model.calls("[[slow:8:3]]")) >= 1


def test_run_that_outlasts_the_grace_is_put_back_and_done_again(make_server, model, word):
    server = make_server(provider_env(model, OZ_SHUTDOWN_GRACE_MS="300"))
    client = server.client("t")
    run_id = client.create(f"{word} [[slow:4:4]]")["run_id"]
    client.wait(run_id, "INPROGRESS")
    model.wait_calls(1, word)
    server.signal(signal.SIGTERM)
    assert server.wait_exit(10) == 0
    model.wait_outcome("peer closed", word)
    server.start()
    client = server.client("t")
    assert client.wait(run_id)["state"] == "SUCCEEDED"
    assert len(model.calls(word)) == 2
    with client.events(run_id) as stream:
        assert_dense(stream.until_end())


def test_second_signal_skips_the_grace(make_server, model):
    server = make_server(provider_env(model, OZ_SHUTDOWN_GRACE_MS="25000"))
    client = server.client("t")
    client.wait(client.create("[[stall]]")["run_id"], "INPROGRESS")
    server.signal(signal.SIGTERM)
    server.wait_log("shutdown.start")
    server.signal(signal.SIGTERM)
    start = time.monotonic()
    assert server.wait_exit(15) == 0 and time.monotonic() - start < 5


def test_stop_while_clients_hammer(make_server, model):
    """Every answer that was given is true after the restart."""
    server = make_server(provider_env(model))
    acknowledged, unexpected = [], []

    def hammer(i):
        with server.client(f"t{i}") as client:
            while True:
                try:
                    r = client.api("POST", "/agent/run", json={"prompt": f"hammer {i}"})
                except httpx.TransportError:
                    return
                if r.status_code == 200:
                    acknowledged.append((i, r.json()["run_id"]))
                elif r.status_code != 503:
                    unexpected.append(r.status_code)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(hammer, i) for i in range(8)]
        time.sleep(1.0)
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0
        for job in jobs:
            job.result(10)
    assert acknowledged and not unexpected, unexpected
    server.start()
    for i, run_id in acknowledged:
        assert server.client(f"t{i}").run(run_id)["run_id"] == run_id
        server.clients.pop().close()


# --- recovery ---

def test_killed_server_takes_its_runs_up_again(make_server, model, word):
    server = make_server(provider_env(model, OZ_RUN_CONCURRENCY="2"))
    client = server.client("t")
    done = client.finish(f"{word}-done")["run_id"]
    live = [client.create(f"{word}-live-{i} [[slow:4:1]]")["run_id"] for i in range(6)]
    pending = client.create(f"{word}-pending", config={"environment_id": "debian:12"})["run_id"]
    model.wait_calls(2, f"{word}-live")
    server.kill9()
    server.start()
    client = server.client("t")
    for run_id in live:
        assert client.wait(run_id)["state"] == "SUCCEEDED"
        with client.events(run_id) as stream:
            assert_dense(stream.until_end())
    assert client.run(pending)["state"] == "PENDING"
    assert client.run(done)["state"] == "SUCCEEDED" and len(model.calls(f"{word}-done")) == 1, "a finished run ran again"
    order = [c["prompt"] for c in model.calls(f"{word}-live")]
    assert len(order) <= 8, "runs that had not begun were executed twice"


def test_attempts_are_bounded(make_server, model, word):
    server = make_server(provider_env(model, OZ_RUN_MAX_ATTEMPTS="2"))
    run_id = server.client("t").create(f"{word} [[stall]]")["run_id"]
    for attempt in (1, 2):
        model.wait_calls(attempt, word)
        server.kill9()
        server.start()
    run = server.client("t").wait(run_id)
    assert run["state"] == "FAILED" and run["error"]["code"] == "interrupted"
    time.sleep(0.5)
    assert len(model.calls(word)) == 2


def test_cancel_is_not_undone_by_a_crash(make_server, model, word):
    server = make_server(provider_env(model))
    client = server.client("t")
    run_id = client.create(f"{word} [[stall]]")["run_id"]
    model.wait_calls(1, word)
    assert client.cancel(run_id).status_code == 200
    server.kill9()
    server.start()
    assert server.client("t").wait(run_id)["state"] == "CANCELLED"
    assert len(model.calls(word)) == 1


def test_retention_removes_old_ended_runs_only(make_server, model):
    """The clock cannot be turned: the stored end of one run is, while the server is down."""
    server = make_server(provider_env(model))
    client = server.client("t")
    old, young = (client.finish(name)["run_id"] for name in ("old", "young"))
    live = client.create("live", config={"environment_id": "debian:12"})["run_id"]
    server.stop()
    days = 40 * 86400 * 1000
    back = f"UPDATE sessions SET ended_ms = ended_ms - {days}, purge_ms = purge_ms - {days} " \
           f"WHERE id = '{old.removeprefix('run_')}'"
    if server.postgres:
        server.postgres.sql(back, server.database_url.split("///")[1].split("?")[0])
    else:
        (path,) = [p for p in server.data.iterdir() if p.is_file() and p.read_bytes()[:15] == b"SQLite format 3"]
        with sqlite3.connect(path) as db:
            assert db.execute(back).rowcount == 1
        db.close()
    server.start()
    client = server.client("t")
    eventually(lambda: client.api("GET", f"/agent/runs/{old}").status_code == 404, 40, "the purge")
    assert client.run(young)["state"] == "SUCCEEDED" and client.run(live)["state"] == "PENDING"
    assert [r["run_id"] for r in client.list()["runs"]] == [live, young]


# --- reload, faults ---

def test_sighup_reloads(make_server, model, word, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text(hashlib.sha256(b"one").hexdigest() + "\n")
    server = make_server(provider_env(model, OZ_TENANT_TOKENS_FILE=str(tokens)))
    assert server.client("one").list()["runs"] == []
    assert server.client("two").api("GET", "/agent/runs").status_code == 401
    tokens.write_text(hashlib.sha256(b"two").hexdigest() + "\n")
    server.signal(signal.SIGHUP)
    eventually(lambda: server.client("two").api("GET", "/agent/runs").status_code == 200, 5, "the new token")
    assert server.client("one").api("GET", "/agent/runs").status_code == 401
    tokens.write_text("this is no hash\n")
    server.signal(signal.SIGHUP)
    time.sleep(0.5)
    server.assert_alive()
    assert server.client("two").api("GET", "/agent/runs").status_code == 200, "a bad reload must keep the old values"


def test_sighup_reads_providers_from_the_env_file_again(make_server, model, word):
    def text(upstream):
        return f"OZ_PROVIDER_CUSTOM_TYPE=openai_compatible\nOZ_PROVIDER_CUSTOM_MODEL=m\n" \
               f"OZ_PROVIDER_CUSTOM_BASE_URL={model.base(upstream)}\n"
    server = make_server(files={".env": text(f"a-{word}")})
    client = server.client("t")
    assert client.finish()["state"] == "SUCCEEDED" and len(model.calls(upstream=f"a-{word}")) == 1
    (server.cwd / ".env").write_text(text(f"b-{word}"))
    server.signal(signal.SIGHUP)
    eventually(lambda: client.finish() and model.calls(upstream=f"b-{word}"), 10, "the new provider")


def test_a_reload_is_taken_over_whole_or_not_at_all(make_server, model, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text(hashlib.sha256(b"one").hexdigest() + "\n")
    first, second = "the-first-admin-key-of-a-reload", "the-second-admin-key-of-a-reload"

    def text(key, level):
        return f"OZ_ADMIN_API_KEY={key}\nOZ_TENANT_TOKENS_FILE={tokens}\nOZ_LOG_LEVEL={level}\n"

    def metrics(key):
        return server.client(key).get("/metrics").status_code
    server = make_server(provider_env(model), admin_key=None, files={".env": text(first, "info")})
    assert metrics(first) == 200
    (server.cwd / ".env").write_text(text(second, "warn"))
    tokens.write_text("this is no hash\n")
    server.signal(signal.SIGHUP)
    failed = server.wait_log("reload.failed")
    assert "OZ_TENANT_TOKENS_FILE" in failed["err_message"] and "line 1" in failed["err_message"]
    assert metrics(first) == 200 and metrics(second) == 401, "half of a refused reload was taken over"
    assert server.client("one").api("GET", "/agent/runs").status_code == 200
    tokens.write_text(hashlib.sha256(b"two").hexdigest() + "\n")
    (server.cwd / ".env").write_text(text(second, "info"))
    for _ in range(5):  # signals that come during a reload are one
        server.signal(signal.SIGHUP)
    server.wait_log("reload.done")
    assert metrics(second) == 200 and metrics(first) == 401
    assert server.client("two").api("GET", "/agent/runs").status_code == 200
    assert server.client("one").api("GET", "/agent/runs").status_code == 401


def test_a_reload_looks_for_servers_off_the_loop(make_server):
    """Without a provider three local ports are asked, up to a second each; requests go on meanwhile."""
    silent = socket.socket()
    silent.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        silent.bind(("127.0.0.1", 11434))
    except OSError:
        pytest.fail("port 11434 is taken: no server that keeps silent can be put there")
    server = make_server()
    silent.listen(8)
    try:
        client = server.client()
        server.signal(signal.SIGHUP)
        worst, asked = 0.0, time.monotonic()
        while not [e for e in server.log if e["msg"] == "reload.done"]:
            before = time.monotonic()
            assert client.get("/livez").status_code == 200
            worst = max(worst, time.monotonic() - before)
            assert before - asked < 20, server.tail()
        assert time.monotonic() - asked > 0.5, "nobody was waited for: this shows nothing"
        assert worst < 0.4, f"a request waited {worst:.2f} s for the reload"
    finally:
        silent.close()


def test_a_rotated_admin_key_survives_reloads(make_server, model):
    server = make_server(provider_env(model), admin_key=None)
    (key_file,) = server.data.glob("admin.key")
    key = key_file.read_text().strip()
    for _ in range(10):
        server.signal(signal.SIGHUP)
        r = server.client(key).api("POST", "/keys/rotate-admin")
        if r.status_code == 503:  # the reload came first
            assert int(r.headers["retry-after"]) >= 1
            continue
        old, key = key, ok(r)["key"]
        assert key_file.read_text().strip() == key
    server.signal(signal.SIGHUP)
    time.sleep(1)
    assert server.client(key).get("/metrics").status_code == 200, "a reload brought an old key back"
    assert server.client(old).get("/metrics").status_code == 401
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: server.client(key).api("POST", "/keys/rotate-admin"), range(8)))
    assert {r.status_code for r in answers} <= {200, 401, 503}
    eventually(lambda: server.client(key_file.read_text().strip()).get("/metrics").status_code == 200, 5, "the key of the file")
    assert key_file.stat().st_mode & 0o777 == 0o600
    server.secrets += [r.json()["key"] for r in answers if r.status_code == 200]


def test_a_start_that_fails_runs_nothing(make_server, model, word):
    """Runs wait in the queue, and the port is taken: they stay where they are."""
    server = make_server(provider_env(model, OZ_RUN_CONCURRENCY="1"))
    client = server.client("t")
    client.create("[[stall]]")
    waiting = [client.create(f"{word} {i}")["run_id"] for i in range(5)]
    server.kill9()
    before = len(model.calls())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        server.extra["OZ_CONTROL_PLANE_PORT"] = str(taken.getsockname()[1])
        server.start(wait=False)
        assert server.wait_exit(20) == 1, server.tail()
    assert len(model.calls()) == before, "a run was started by a server that does not listen"
    server.extra["OZ_CONTROL_PLANE_PORT"] = "0"
    server.start()
    client = server.client("t")
    assert all(client.run(r)["state"] in ("QUEUED", "INPROGRESS") for r in waiting)


def test_vanished_postgres_gives_503_and_recovers(make_server, postgres, model):
    """On SQLite the same is shown by a lock that another process holds."""
    server = make_server(provider_env(model))
    client = server.client("t")
    kept = client.create("before")["run_id"]
    client.wait(kept)
    if postgres:
        postgres.halt("immediate")
        try:
            r = client.api("POST", "/agent/run", json={"prompt": "while it is gone"}, timeout=40)
            assert_error(r, 503, "unavailable")
            assert int(r.headers["retry-after"]) >= 1
            assert client.get("/health").status_code == 503
            assert client.get("/livez").status_code == 200 and client.get("/readyz").status_code == 503
            assert server.wait_log("database.unavailable")["err_message"]
        finally:
            postgres.start()
    else:
        import sqlite3
        (path,) = [p for p in server.data.iterdir() if p.is_file() and p.read_bytes()[:15] == b"SQLite format 3"]
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        try:
            r = client.api("POST", "/agent/run", json={"prompt": "while it is locked"}, timeout=40)
            assert_error(r, 503, "unavailable")
            assert int(r.headers["retry-after"]) >= 1
            assert client.run(kept)["state"] == "SUCCEEDED", "reading does not wait for the writer"
            assert "busy" in server.wait_log("database.unavailable")["err_message"]
        finally:
            other.execute("ROLLBACK")
            other.close()
    server.assert_alive()
    eventually(lambda: client.get("/health").status_code == 200, 20, "the recovery")
    eventually(lambda: client.api("POST", "/agent/run", json={"prompt": "after"}).status_code == 200, 20, "writing again")
    # Each of the read connections comes back by itself, a moment after its last vain attempt.
    eventually(lambda: all(client.api("GET", "/agent/runs").status_code == 200 for _ in range(16)), 20, "reading again")
    time.sleep(1)
    assert client.run(kept)["state"] == "SUCCEEDED"
    assert not [r for r in client.list()["runs"] if r["prompt"].startswith("while it is")], "refused, yet stored"
    server.wait_log("database.recovered")


def test_full_disk_gives_503_and_recovers(make_server, model, tmp_path):
    """The data folder on a file system of 24 MiB that is filled up by somebody else."""
    if os.getuid() != 0:
        pytest.fail("needs root to mount a small file system")
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=0700", "tmpfs", place], capture_output=True)
    if mounted.returncode != 0:
        pytest.fail(f"cannot mount a small file system: {mounted.stderr.decode()}")
    server = None
    try:
        server = make_server(provider_env(model, OZ_DATA_DIR=str(place / "data"), OZ_DISK_MIN_FREE_MB="4"), postgres=None)
        client = server.client("t")
        kept = client.finish("before")["run_id"]
        with open(place / "ballast", "wb") as f:
            try:
                for _ in range(30):
                    f.write(b"\0" * (1 << 20))
                    f.flush()
            except OSError:
                pass
        eventually(lambda: client.api("POST", "/agent/run", json={"prompt": "x" * 200_000}).status_code == 503, 20, "503")
        assert client.run(kept)["state"] == "SUCCEEDED" and client.list()["runs"]
        server.assert_alive()
        (place / "ballast").unlink()
        eventually(lambda: client.api("POST", "/agent/run", json={"prompt": "after"}).status_code == 200, 20, "recovery")
    finally:
        if server:
            server.stop()
        subprocess.run(["umount", "-l", place], check=True)


def test_socket_activation(make_server):
    """LISTEN_FDS: the socket is ours, the server takes it."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(16)
    port = listener.getsockname()[1]
    server = make_server(start=False)
    env = server.environment()
    env["LISTEN_FDS"] = "1"
    env["OZ_CONTROL_PLANE_HOST"] = "127.0.0.9"
    # LISTEN_PID must be the pid after exec: a shell sets it and becomes the server.
    process = subprocess.Popen(["/bin/bash", "-c", f"LISTEN_PID=$$ exec {BINARY} serve 3<&{listener.fileno()}"],
                               env=env, cwd=server.cwd, pass_fds=[listener.fileno()], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    try:
        answer = httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False, timeout=20)
        assert answer.json()["ok"] is True
        # The command line is told of the socket, not of the settings, which do not count here.
        eventually((server.data / "server.json").exists, 5, "the address")
        assert json.loads((server.data / "server.json").read_text())["url"] == f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        assert process.wait(20) == 0
        listener.close()


def test_sd_notify(make_server, tmp_path):
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(path)
        s.settimeout(20)
        server = make_server({"NOTIFY_SOCKET": path})
        assert "READY=1" in s.recv(4096).decode()
        server.stop()
        messages = ""
        s.settimeout(3)
        while "STOPPING=1" not in messages:
            messages += s.recv(4096).decode() + "\n"


def test_backup_of_a_running_server_can_be_restored(make_server, model, tmp_path):
    server = make_server(provider_env(model), postgres=None)
    client = server.client("t")
    run = client.finish("kept")["run_id"]
    env = ok(client.api("POST", "/environments", json={"name": "n", "docker_image": "i", "env_vars": {"A": "1"}}))["id"]
    target = tmp_path / "backup"
    done = subprocess.run([str(BINARY), "backup", str(target)], env=server.environment(), cwd=server.cwd, timeout=60,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    late = client.finish("after the backup")["run_id"]
    server.stop()
    second = make_server(provider_env(model), postgres=None, start=False)
    done = subprocess.run([str(BINARY), "restore", str(target)], env=second.environment(), cwd=second.cwd, timeout=60,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    second.start()
    client = second.client("t")
    assert client.run(run)["output"] and client.api("GET", f"/agent/runs/{late}").status_code == 404
    assert ok(client.api("GET", f"/environments/{env}"))["env_vars"] == {"A": "1"}, "the encryption key is missing"
