"""The command line client: against a scripted peer that misbehaves on purpose, and against the real server."""
import http.server
import json
import os
import pathlib
import pty
import signal
import sqlite3
import subprocess
import tarfile
import tempfile
import threading
import time

import harness
import pytest
from harness import BINARY

RUN = "run_0199a000-0000-7000-8000-000000000001"
pytestmark = pytest.mark.engine_free


def cli(*args, env=None, cwd=None, stdin="", timeout=60):
    base = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "OZ_DATA_DIR": "/nonexistent/data",
            "ASAN_OPTIONS": "exitcode=97"}
    return subprocess.run([str(BINARY), *args], env={**base, **(env or {})}, cwd=cwd, input=stdin, capture_output=True,
                          text=True, timeout=timeout)


class Peer:
    """Answers each request with what `script(method, path, headers, body, n)` says: (status, headers, pieces)."""

    def __init__(self, script):
        self.calls = []
        peer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
                peer.calls.append((self.command, self.path, dict(self.headers), body))
                status, headers, pieces = script(self.command, self.path, self.headers, body, len(peer.calls))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if isinstance(pieces, str):
                    pieces = [pieces]
                self.send_header("Connection", "close")
                self.end_headers()
                for piece in pieces:
                    if isinstance(piece, str):
                        self.wfile.write(piece.encode())
                        self.wfile.flush()
                    else:
                        piece()
                self.close_connection = True

            do_GET = do_POST = do_PUT = do_DELETE = answer

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.env = {"OZ_API_BASE_URL": self.url, "OZ_API_KEY": "the-key"}

    def cli(self, *args, env=None, **options):
        return cli(*args, env={**self.env, **(env or {})}, **options)


@pytest.fixture
def peer():
    made = []

    def make(script):
        made.append(Peer(script))
        return made[-1]

    yield make
    for one in made:
        one.server.shutdown()
        one.server.server_close()


JSON = {"Content-Type": "application/json"}
SSE = {"Content-Type": "text/event-stream"}


def event(name, data, number=None):
    return (f"id: {number}\n" if number is not None else "") + f"event: {name}\ndata: {json.dumps(data)}\n\n"


def run_object(state="SUCCEEDED", **more):
    return json.dumps({"run_id": RUN, "task_id": RUN, "state": state, "title": "a title", "prompt": "a prompt", "output": "the answer",
                       "created_at": "2026-01-31T09:08:16.986Z", "artifacts": [], **more})


# --- usage ---

@pytest.mark.parametrize("args,words", [
    ((), ""), (("rnu",), 'did you mean "run"'), (("env", "crate"), 'did you mean "env create"'), (("env",), "create"),
    (("ps", "--limt", "3"), "did you mean --limit"), (("ps", "--limit", "x"), "--limit"), (("ps", "--limit"), "--limit"),
    (("ps", "--state", "DONE"), "--state"), (("show",), "ID"), (("show", "a", "b"), "too many"), (("run",), "prompt"),
    (("run", "--wait", "-1", "x"), "--wait"), (("run", "--file", "/no/such/file"), "/no/such/file"),
    (("run", "--title", "a", "--title", "b", "x"), "twice"), (("ps", "-z"), "-z"), (("completion", "csh"), "csh"),
    (("schedule", "create", "--cron", "* * * * *"), "--name"), (("env", "create", "x"), "--docker-image"),
    (("config", "--json", "--markdown"), "not both"), (("config", "--set", "OZ_THREADS=x"), "OZ_THREADS")])
def test_wrong_usage_is_exit_2_and_says_what(args, words):
    done = cli(*args)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_help_and_version():
    assert cli("--version").stdout.startswith("muster ")
    everything = cli("help").stdout
    for name in ("serve", "run", "ps", "env create", "schedule pause", "keys rotate-admin", "backup", "doctor"):
        assert f"  {name}" in everything
    one = cli("run", "--help")
    assert one.returncode == 0 and "--follow" in one.stdout and "--json" in one.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completions_name_every_command(shell):
    text = cli("completion", shell).stdout
    for word in ("providers", "rotate-admin", "idempotency-key", "markdown"):
        assert word in text


def test_bash_completion_works():
    script = cli("completion", "bash").stdout + '\nCOMP_WORDS=(muster env ""); COMP_CWORD=2; _muster; echo "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["create", "list", "get", "update", "delete"]


# --- finding the server ---

def test_no_server_is_exit_3(tmp_path):
    done = cli("ps", env={"OZ_DATA_DIR": str(tmp_path)})
    assert done.returncode == 3 and "muster serve" in done.stderr
    assert cli("ps", env={"OZ_API_BASE_URL": "http://127.0.0.1:1", "OZ_API_KEY": "k"}).returncode == 3


def test_the_data_folder_leads_to_the_server(peer, tmp_path):
    p = peer(lambda *a: (200, JSON, '{"runs":[]}'))
    (tmp_path / "admin.key").write_text("the-admins\n")
    (tmp_path / "server.json").write_text(json.dumps({"url": p.url, "pid": os.getpid()}))
    assert cli("ps", env={"OZ_DATA_DIR": str(tmp_path)}).returncode == 0
    assert p.calls[0][2]["Authorization"] == "Bearer the-admins"
    assert p.calls[0][1].startswith("/api/v1/agent/runs?")


def test_the_admin_key_goes_to_no_other_server(peer, tmp_path):
    p = peer(lambda *a: (200, JSON, '{"runs":[]}'))
    (tmp_path / "admin.key").write_text("the-admins\n")
    (tmp_path / "server.json").write_text(json.dumps({"url": "http://127.0.0.1:1", "pid": os.getpid()}))
    done = cli("ps", env={"OZ_DATA_DIR": str(tmp_path), "OZ_API_BASE_URL": p.url})
    assert done.returncode == 4 and "OZ_API_KEY" in done.stderr
    assert not p.calls


def test_a_server_that_died_is_not_asked(peer, tmp_path):
    p = peer(lambda *a: (200, JSON, '{"runs":[]}'))
    dead = subprocess.Popen(["true"])
    dead.wait()
    (tmp_path / "admin.key").write_text("the-admins\n")
    (tmp_path / "server.json").write_text(json.dumps({"url": p.url, "pid": dead.pid}))
    assert cli("ps", env={"OZ_DATA_DIR": str(tmp_path)}).returncode == 3
    assert not p.calls


def test_warp_api_key_is_read_too(peer):
    p = peer(lambda *a: (200, JSON, '{"runs":[]}'))
    assert cli("ps", env={"OZ_API_BASE_URL": p.url + "/api/v1/", "WARP_API_KEY": "w"}).returncode == 0
    assert p.calls[0][2]["Authorization"] == "Bearer w"
    assert p.calls[0][1].startswith("/api/v1/agent/runs?")


@pytest.mark.parametrize("status,code", [(400, 2), (401, 4), (403, 4), (404, 5), (405, 2), (413, 2), (422, 2), (429, 3), (500, 1),
                                         (502, 3), (503, 3)])
def test_statuses_have_their_exit_code(peer, status, code):
    p = peer(lambda *a: (status, JSON, '{"error":"no","message":"in these words","request_id":"req_1"}'))
    done = p.cli("show", RUN)
    assert done.returncode == code
    assert "in these words" in done.stderr and str(status) in done.stderr


def test_an_answer_that_is_html_is_an_error_in_words(peer):
    p = peer(lambda *a: (502, {"Content-Type": "text/html"}, "<html>\x1b[31m"))
    done = p.cli("show", RUN)
    assert done.returncode == 3 and "\x1b" not in done.stderr + done.stdout


# --- run ---

def test_run_sends_everything(peer, tmp_path):
    p = peer(lambda *a: (200, JSON, json.dumps({"run_id": RUN, "state": "QUEUED"})))
    (tmp_path / "more").write_text("from the file ü")
    done = p.cli("run", "fix", "the tests", "--file", str(tmp_path / "more"), "--model", "m", "--env", "env_1", "--title", "T",
                 "--name", "N", "--base-prompt", "B", "--idempotency-key", "K")
    assert done.returncode == 0 and done.stdout.strip() == RUN
    method, path, headers, body = p.calls[0]
    assert (method, path) == ("POST", "/api/v1/agent/runs")
    assert headers["User-Agent"].startswith("muster-cli/") and headers["Idempotency-Key"] == "K"
    assert json.loads(body) == {"prompt": "fix the tests\n\nfrom the file ü", "title": "T",
                                "config": {"model_id": "m", "environment_id": "env_1", "name": "N", "base_prompt": "B"}}


def test_run_reads_standard_input(peer):
    p = peer(lambda *a: (200, JSON, json.dumps({"run_id": RUN, "state": "QUEUED"})))
    assert p.cli("run", "--file", "-", stdin="piped").returncode == 0
    assert json.loads(p.calls[0][3])["prompt"] == "piped"


def test_a_busy_server_is_asked_again_with_the_same_key(peer):
    def script(method, path, headers, body, n):
        if n == 1:
            return 503, {**JSON, "Retry-After": "1"}, '{"error":"busy"}'
        return 200, JSON, json.dumps({"run_id": RUN, "state": "QUEUED"})

    p = peer(script)
    assert p.cli("run", "x").returncode == 0
    assert len(p.calls) == 2 and p.calls[0][2]["Idempotency-Key"] == p.calls[1][2]["Idempotency-Key"]


def following(pieces_of, final="SUCCEEDED", **more):
    """A script: create, then streams whose n-th connection answers pieces_of(n), then the finished run."""
    connections = []

    def script(method, path, headers, body, n):
        if method == "POST" and path.endswith("/cancel"):
            return 200, JSON, json.dumps(RUN)
        if method == "POST":
            return 200, JSON, json.dumps({"run_id": RUN, "state": "QUEUED"})
        if path.endswith("/events"):
            connections.append(headers.get("Last-Event-ID"))
            return 200, SSE, pieces_of(len(connections))
        return 200, JSON, run_object(final, **more)

    script.connections = connections
    return script


def test_follow_streams_the_text(peer):
    script = following(lambda n: [event("state", {"state": "QUEUED"}, 1), event("state", {"state": "INPROGRESS"}, 2),
                                  event("output", {"offset": 0, "text": "the "}), event("output", {"offset": 4, "text": "answer"}),
                                  event("end", {"state": "SUCCEEDED"}, 3)])
    done = peer(script).cli("run", "--follow", "x")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "the answer\n"
    assert RUN in done.stderr


def test_follow_resumes_where_the_connection_broke(peer):
    def pieces(n):
        if n == 1:
            return [event("state", {"state": "INPROGRESS"}, 7), event("output", {"offset": 0, "text": "the ans"})]
        return [event("output", {"offset": 0, "text": "the answer"}), event("end", {"state": "SUCCEEDED"}, 8)]

    script = following(pieces)
    done = peer(script).cli("run", "--follow", "x")
    assert done.returncode == 0 and done.stdout == "the answer\n"
    assert script.connections == [None, "7"]


def test_follow_says_when_the_answer_begins_again(peer):
    script = following(lambda n: [event("output", {"offset": 0, "text": "wrong"}),
                                  event("output", {"offset": 0, "text": "right", "reset": True}), event("end", {"state": "SUCCEEDED"})])
    done = peer(script).cli("logs", "--follow", RUN)
    assert done.stdout == "wrong\nright\n" and "begins again" in done.stderr


def test_follow_names_a_gap(peer):
    script = following(lambda n: [event("output", {"offset": 0, "text": "ab"}), event("output", {"offset": 10, "text": "kl"}),
                                  event("end", {"state": "SUCCEEDED"})])
    done = peer(script).cli("logs", "-f", RUN)
    assert done.stdout == "ab\nkl\n" and "8 bytes are missing" in done.stderr


def test_follow_without_deltas_prints_the_answer(peer):
    script = following(lambda n: [event("end", {"state": "SUCCEEDED"}, 1)])
    assert peer(script).cli("run", "--follow", "x").stdout == "the answer\n"


@pytest.mark.parametrize("state", ["FAILED", "CANCELLED"])
def test_a_run_that_did_not_succeed_is_exit_1_with_its_error(peer, state):
    script = following(lambda n: [event("end", {"state": state}, 1)], final=state, output="",
                       error={"code": "saturated", "message": "All providers saturated"})
    done = peer(script).cli("run", "--follow", "x")
    assert done.returncode == 1 and "All providers saturated" in done.stderr


def test_follow_gives_up_on_a_server_that_is_gone(peer):
    def script(method, path, headers, body, n):
        if method == "POST":
            return 200, JSON, json.dumps({"run_id": RUN, "state": "QUEUED"})
        return 500, JSON, '{"error":"Internal error"}'

    p = peer(script)
    done = p.cli("run", "--follow", "x")
    assert done.returncode == 1
    assert len(p.calls) <= 12, "it asks for ever"


def interrupted(peer, presses):
    release = threading.Event()
    script = following(lambda n: [event("state", {"state": "INPROGRESS"}, 1), event("output", {"offset": 0, "text": "so far"}),
                                  lambda: release.wait(30)])
    p = peer(script)
    child = subprocess.Popen([str(BINARY), "run", "--follow", "x"], env={"PATH": os.environ["PATH"], **p.env},
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout.read(6) == b"so far"
    for _ in range(presses):
        child.send_signal(signal.SIGINT)
        time.sleep(1.2)
    out, err = child.communicate(timeout=20)
    release.set()
    return p, child.returncode, err.decode()


def test_ctrl_c_detaches(peer):
    p, code, err = interrupted(peer, 1)
    assert code == 130 and "goes on" in err and RUN in err
    assert not [c for c in p.calls if c[1].endswith("/cancel")]


def test_a_second_ctrl_c_cancels(peer):
    p, code, err = interrupted(peer, 2)
    assert code == 1 and "cancelled" in err
    assert [c[:2] for c in p.calls if c[1].endswith("/cancel")] == [("POST", f"/api/v1/agent/runs/{RUN}/cancel")]


def test_wait_ends_with_exit_6(peer):
    p = peer(lambda *a: (200, JSON, run_object("INPROGRESS")))
    started = time.monotonic()
    assert p.cli("wait", "--timeout", "1", RUN).returncode == 6
    assert time.monotonic() - started < 10
    assert len(p.calls) < 12, "it does not wait between its questions"


def test_run_wait_prints_the_answer(peer):
    def script(method, path, headers, body, n):
        if method == "POST":
            return 200, JSON, json.dumps({"run_id": RUN, "state": "QUEUED"})
        return 200, JSON, run_object("INPROGRESS" if n < 3 else "SUCCEEDED")

    p = peer(script)
    done = p.cli("run", "--wait", "20", "x")
    assert done.returncode == 0 and done.stdout == "the answer\n"
    assert "?wait=" in p.calls[1][1]


def test_json_prints_what_the_api_said(peer):
    p = peer(lambda *a: (200, JSON, run_object()))
    assert json.loads(p.cli("show", RUN, "--json").stdout) == json.loads(run_object())


# --- lists ---

def test_ps_is_a_table_and_asks_for_live_runs(peer):
    p = peer(lambda *a: (200, JSON, '{"runs":[%s],"page_info":{"has_next_page":true}}' % run_object("INPROGRESS", title="ü\x07x\ny")))
    done = p.cli("ps")
    head, row = done.stdout.splitlines()
    assert head.split() == ["RUN", "STATE", "CREATED", "TIME", "MODEL", "TITLE"]
    assert RUN in row and "INPROGRESS" in row and "üx y" in row
    assert p.calls[0][1].count("state=") == 4 and "SUCCEEDED" not in p.calls[0][1]
    assert "\x1b" not in done.stdout
    assert "state=" not in p.cli("ps", "--all").args and p.calls[1][1].count("state=") == 0


def on_a_terminal(args, env):
    pid, fd = pty.fork()
    if pid == 0:
        os.execve(str(BINARY), [str(BINARY), *args], {"PATH": os.environ["PATH"], "TERM": "xterm", **env})
    out = b""
    while True:
        try:
            piece = os.read(fd, 65536)
        except OSError:
            break
        if not piece:
            break
        out += piece
    os.waitpid(pid, 0)
    os.close(fd)
    return out.decode()


def test_colour_only_on_a_terminal_and_without_no_color(peer):
    p = peer(lambda *a: (200, JSON, '{"runs":[%s]}' % run_object("FAILED")))
    assert "\x1b[31mFAILED" in on_a_terminal(["ps"], p.env)
    assert "\x1b" not in on_a_terminal(["ps"], {**p.env, "NO_COLOR": "1"})


def test_escape_sequences_of_a_run_do_not_reach_the_terminal(peer):
    p = peer(lambda *a: (200, JSON, run_object(output="a\x1b]0;title\x07b\x9bc", prompt="\x1b[2J")))
    shown = on_a_terminal(["show", RUN], {**p.env, "NO_COLOR": "1"})
    assert "\x1b" not in shown and "\x9b" not in shown and "a]0;titleb" in shown


def test_ids_are_escaped(peer):
    p = peer(lambda *a: (404, JSON, '{"error":"Not found"}'))
    assert p.cli("show", "../environments?x=1#y").returncode == 5
    assert p.calls[0][1] == "/api/v1/agent/runs/..%2Fenvironments%3Fx%3D1%23y"


def test_several_ids_are_all_tried(peer):
    p = peer(lambda m, path, *a: (404, JSON, '{"error":"Not found"}') if "missing" in path else (200, JSON, '"x"'))
    assert p.cli("cancel", "missing", "there").returncode == 5
    assert len(p.calls) == 2


def test_env_update_keeps_what_was_not_given(peer):
    stored = {"environment_id": "env_1", "name": "old", "docker_image": "i", "repos": ["a/b"], "setup_commands": ["make"],
              "env_vars": {"KEEP": "secret", "CHANGE": "x", "DROP": "y"}, "secrets": ["s"]}
    p = peer(lambda *a: (200, JSON, json.dumps(stored)))
    done = p.cli("env", "update", "env_1", "--name", "new", "--var", "CHANGE=z=1", "--var", "OWN", "--unset", "DROP",
                 env={"OWN": "from here"})
    assert done.returncode == 0, done.stderr
    assert p.calls[1][0] == "PUT"
    assert json.loads(p.calls[1][3]) == {"name": "new", "docker_image": "i", "repos": ["a/b"], "setup_commands": ["make"],
                                         "secrets": ["s"],
                                         "env_vars": {"KEEP": "<redacted>", "CHANGE": "z=1", "OWN": "from here"}}


def test_schedule_update_keeps_what_was_not_given(peer):
    stored = {"id": "s1", "name": "n", "cron_schedule": "0 9 * * *", "prompt": "p", "enabled": False,
              "agent_config": {"model_id": "m", "base_prompt": "b"}}
    p = peer(lambda *a: (200, JSON, json.dumps(stored)))
    assert p.cli("schedule", "update", "s1", "--cron", "1 2 * * *", "--model", "other").returncode == 0
    assert json.loads(p.calls[1][3]) == {"name": "n", "cron_schedule": "1 2 * * *", "prompt": "p", "enabled": False,
                                         "agent_config": {"model_id": "other", "base_prompt": "b"}}


def test_keys(peer):
    p = peer(lambda *a: (200, JSON, json.dumps({"id": "k1", "key": "sk_" + "0" * 64, "keys": []})))
    assert p.cli("keys", "create", "ci", "--tenant", "t", "--expires", "7").stdout.strip() == "sk_" + "0" * 64
    assert json.loads(p.calls[0][3]) == {"name": "ci", "tenant": "t", "expires_in_days": 7}
    assert "sk_" not in p.cli("keys", "rotate-admin").stdout, "a key is printed although this is no terminal"


# --- backup and restore ---

def make_database(path):
    db = sqlite3.connect(path)
    db.executescript("PRAGMA journal_mode=WAL; CREATE TABLE schema_migrations(version INTEGER PRIMARY KEY); INSERT INTO "
                     "schema_migrations VALUES (1); CREATE TABLE things(x TEXT); INSERT INTO things VALUES ('kept');")
    return db


@pytest.fixture
def folder(tmp_path):
    data = tmp_path / "data"
    (data / "blobs/ab").mkdir(parents=True)
    data.chmod(0o700)
    for name, text in (("admin.key", "a" * 64), ("encryption.key", "e" * 64), ("blobs/ab/one", "blob")):
        (data / name).write_text(text)
        (data / name).chmod(0o600)
    return data


def test_backup_while_the_database_is_open_and_restore(folder, tmp_path):
    db = make_database(folder / "muster.db")  # stays open: the newest rows are in the WAL
    db.execute("INSERT INTO things VALUES ('late')")
    db.commit()
    file = tmp_path / "saved.tar.gz"
    done = cli("backup", str(file), env={"OZ_DATA_DIR": str(folder)})
    assert done.returncode == 0, done.stderr
    assert file.stat().st_mode & 0o777 == 0o600
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")], "something is left over"
    with tarfile.open(file) as tar:
        assert tar.getnames() == ["manifest.json", "database.sqlite", "admin.key", "encryption.key", "blobs/ab/one"]
        assert json.load(tar.extractfile("manifest.json"))["schema_version"] == 1
    other = tmp_path / "other"
    done = cli("restore", str(file), env={"OZ_DATA_DIR": str(other)})
    assert done.returncode == 0, done.stderr
    assert other.stat().st_mode & 0o777 == 0o700
    assert (other / "blobs/ab/one").read_text() == "blob"
    assert (other / "encryption.key").read_text().strip() == "e" * 64
    assert (other / "admin.key").stat().st_mode & 0o777 == 0o600
    rows = sqlite3.connect(other / "muster.db").execute("SELECT x FROM things").fetchall()
    assert rows == [("kept",), ("late",)]
    assert not [p for p in other.iterdir() if p.name.startswith(".")], "staging is left over"
    again = cli("restore", str(file), env={"OZ_DATA_DIR": str(other)})
    assert again.returncode == 1 and "--force" in again.stderr
    (other / "blobs/ab/stale").write_text("x")
    assert cli("restore", "--force", str(file), env={"OZ_DATA_DIR": str(other)}).returncode == 0
    assert not (other / "blobs/ab/stale").exists()


def test_restore_onto_two_file_systems_changes_nothing(folder, tmp_path):
    file, data = tmp_path / "saved.tar.gz", tmp_path / "there"
    make_database(folder / "muster.db").close()
    assert cli("backup", str(file), env={"OZ_DATA_DIR": str(folder)}).returncode == 0
    with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:
        if os.stat(elsewhere).st_dev == os.stat(tmp_path).st_dev:
            pytest.fail("/dev/shm and the temporary folder are one file system: this shows nothing")
        database = pathlib.Path(elsewhere, "muster.db")
        db = make_database(database)
        db.execute("INSERT INTO things VALUES ('of its own')")
        db.commit()  # in the WAL, which a restore must not take away either
        (data / "blobs").mkdir(parents=True)
        (data / "blobs/mine").write_text("mine")
        (data / "admin.key").write_text("m" * 64)
        done = cli("restore", "--force", str(file), env={"OZ_DATA_DIR": str(data), "DATABASE_URL": f"file:{database}"})
        assert done.returncode == 1 and "another file system" in done.stderr
        assert [p.name for p in (data / "blobs").iterdir()] == ["mine"]
        assert (data / "admin.key").read_text() == "m" * 64 and not (data / "encryption.key").exists()
        assert not [p for p in data.iterdir() if p.name.startswith(".")], "staging is left over"
        assert ("of its own",) in sqlite3.connect(database).execute("SELECT x FROM things").fetchall()
        db.close()


def test_restore_refuses_while_a_server_runs(folder, tmp_path):
    import fcntl
    make_database(folder / "muster.db").close()
    file = tmp_path / "saved.tar.gz"
    assert cli("backup", str(file), env={"OZ_DATA_DIR": str(folder)}).returncode == 0
    with open(folder / "muster.db.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = cli("restore", "--force", str(file), env={"OZ_DATA_DIR": str(folder)})
    assert done.returncode == 1 and "running" in done.stderr


def archive_of(path, entries):
    with tarfile.open(path, "w:gz") as tar:
        for name, text in entries:
            info = tarfile.TarInfo(name)
            if text is None:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
                tar.addfile(info)
            else:
                import io
                data = text.encode()
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


GOOD = ("manifest.json", '{"format":1,"version":"0.1.0","schema_version":1,"engine":"sqlite"}')


@pytest.mark.parametrize("entries", [
    [], [("database.sqlite", "x")], [GOOD], [GOOD, ("../evil", "x")], [GOOD, ("/tmp/evil", "x")], [GOOD, ("blobs/../../evil", "x")],
    [GOOD, ("blobs/.hidden", "x")], [GOOD, ("admin.key", None)], [GOOD, ("other", "x")], [GOOD, GOOD],
    [GOOD, ("database.sqlite", "this is no database")], [("manifest.json", "{")],
    [("manifest.json", '{"format":2}'), ("database.sqlite", "x")],
    [("manifest.json", '{"format":1,"schema_version":999999,"engine":"sqlite"}'), ("database.sqlite", "x")],
    [("manifest.json", '{"format":1,"schema_version":1,"engine":"postgresql"}'), ("database.pgdump", "x")]])
def test_a_bad_archive_changes_nothing(folder, tmp_path, entries):
    make_database(folder / "muster.db").close()
    before = sorted((p.relative_to(folder), p.read_bytes()) for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock")
    file = tmp_path / "bad.tar.gz"
    archive_of(file, entries)
    done = cli("restore", "--force", str(file), env={"OZ_DATA_DIR": str(folder)})
    assert done.returncode == 1, done.stdout
    after = sorted((p.relative_to(folder), p.read_bytes()) for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock")
    assert after == before
    assert not pathlib.Path("/tmp/evil").exists() and not (tmp_path / "evil").exists()


def test_a_truncated_archive_changes_nothing(folder, tmp_path):
    make_database(folder / "muster.db").close()
    file = tmp_path / "saved.tar.gz"
    assert cli("backup", str(file), env={"OZ_DATA_DIR": str(folder)}).returncode == 0
    whole = file.read_bytes()
    other = tmp_path / "other"
    for size in (0, 10, len(whole) // 2, len(whole) - 9):
        file.write_bytes(whole[:size])
        assert cli("restore", str(file), env={"OZ_DATA_DIR": str(other)}).returncode == 1, size
        assert not [p for p in other.iterdir() if p.suffix != ".lock"]


def test_missing_things_are_named(tmp_path):
    done = cli("backup", str(tmp_path / "x"), env={"OZ_DATA_DIR": str(tmp_path / "none")})
    assert done.returncode == 5 and "muster.db" in done.stderr
    assert cli("restore", str(tmp_path / "x"), env={"OZ_DATA_DIR": str(tmp_path / "none")}).returncode == 5
    done = cli("backup", str(tmp_path / "x"), env={"OZ_DATA_DIR": str(tmp_path), "PATH": str(tmp_path),
                                                  "DATABASE_URL": "postgres://u:hunter2@127.0.0.1:1/d"})
    assert done.returncode == 1 and "hunter2" not in done.stderr


def test_backup_and_restore_of_postgresql(tmp_path):
    pg = harness.Postgres()
    try:
        first, second = pg.new_database(), pg.new_database()
        path = {"PATH": f"{pg.bin}:{os.environ['PATH']}"}
        data, other, file = tmp_path / "data", tmp_path / "other", tmp_path / "b.tar.gz"
        data.mkdir()
        (data / "encryption.key").write_text("e" * 64)

        def psql(url, text):
            return subprocess.run([pg.bin / "psql", "-XAtq", url, "-c", text], capture_output=True, text=True, check=True).stdout.strip()

        psql(first, "create table schema_migrations(version int); insert into schema_migrations values (1); "
                    "create table things(x text); insert into things values ('kept')")
        done = cli("backup", str(file), env={"PATH": str(tmp_path), "OZ_DATA_DIR": str(data), "DATABASE_URL": first})
        assert done.returncode == 5 and "pg_dump" in done.stderr and not file.exists()
        done = cli("backup", str(file), env={**path, "OZ_DATA_DIR": str(data), "DATABASE_URL": first})
        assert done.returncode == 0, done.stderr
        target = {**path, "OZ_DATA_DIR": str(other), "DATABASE_URL": second}
        with subprocess.Popen([pg.bin / "psql", "-XAtq", second], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
            holder.stdin.write("select pg_advisory_lock(1, 1), 'held';\n")
            holder.stdin.flush()
            assert "held" in holder.stdout.readline()
            assert cli("restore", str(file), env=target).returncode == 1, "a server holds the lock"
            holder.stdin.close()
        done = cli("restore", str(file), env=target)
        assert done.returncode == 0, done.stderr
        assert psql(second, "select x from things") == "kept"
        assert (other / "encryption.key").read_text().strip() == "e" * 64
        again = cli("restore", str(file), env={**target, "OZ_DATA_DIR": str(tmp_path / "fourth")})
        assert again.returncode == 1 and "--force" in again.stderr
        assert cli("restore", "--force", str(file), env=target).returncode == 0
        (other / "blobs").mkdir(exist_ok=True)
        (other / "blobs/mine").write_text("mine")
        (other / "encryption.key").write_text("m" * 64)
        lost = cli("restore", "--force", str(file), env={**target, "PATH": str(tmp_path)})
        assert lost.returncode == 5 and "pg_restore" in lost.stderr
        assert (other / "blobs/mine").read_text() == "mine", "the database stayed, its blobs did not"
        assert (other / "encryption.key").read_text() == "m" * 64
        wrong = cli("restore", str(file), env={"OZ_DATA_DIR": str(tmp_path / "third")})
        assert wrong.returncode == 1 and "DATABASE_URL" in wrong.stderr
    finally:
        pg.stop()


# --- doctor ---

def test_doctor_says_what_is_there(folder):
    make_database(folder / "muster.db").close()
    done = cli("doctor", "--json", env={"OZ_DATA_DIR": str(folder)})
    report = json.loads(done.stdout)
    names = {f["name"]: f for f in report["findings"]}
    assert done.returncode == 0 and report["ok"], done.stdout
    assert names["database"]["level"] == "ok" and names["SQLite"]["text"]
    for name in ("git", "user namespaces", "seccomp", "disk space", "data folder", "server", "listener"):
        assert name in names
    (folder / "admin.key").chmod(0o644)
    done = cli("doctor", env={"OZ_DATA_DIR": str(folder)})
    assert done.returncode == 1 and "chmod 600" in done.stdout


def test_doctor_finds_a_damaged_database(folder):
    (folder / "muster.db").write_text("no database" * 100)
    done = cli("doctor", "--json", env={"OZ_DATA_DIR": str(folder)})
    assert done.returncode == 1
    assert [f for f in json.loads(done.stdout)["findings"] if f["name"] == "database"][0]["level"] == "broken"


# --- with the real server ---

def test_a_first_run_without_any_setting(make_server):
    server = make_server({"PATH": "/usr/bin:/bin"}, admin_key=None)
    env = {"OZ_DATA_DIR": str(server.data)}
    done = cli("run", "--model", "shell", "--follow", "echo hello", env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "hello\n"
    run = json.loads(cli("ps", "--all", "--json", env=env).stdout)["runs"][0]
    assert run["source"] == "CLI"
    again = cli("rerun", run["run_id"], env=env)
    assert again.returncode == 0, again.stderr
    assert cli("wait", "--timeout", "20", again.stdout.strip(), env=env).returncode == 0
    assert cli("rm", again.stdout.strip(), env=env).returncode == 0
    assert cli("show", again.stdout.strip(), env=env).returncode == 5
    assert cli("run", "--model", "shell", "--wait", "20", "exit 3", env=env).returncode == 1


def test_keys_environments_and_schedules_of_the_real_server(make_server):
    server = make_server(admin_key=None)
    env = {"OZ_DATA_DIR": str(server.data)}
    key = cli("keys", "create", "ci", env=env).stdout.strip()
    assert key.startswith("sk_")
    mine = {"OZ_API_BASE_URL": server.url, "OZ_API_KEY": key}
    made = cli("env", "create", "mine", "--docker-image", "debian:12", "--var", "A=b", env=mine)
    assert made.returncode == 0, made.stderr
    assert "mine" in cli("env", "list", env=mine).stdout
    assert cli("env", "update", made.stdout.strip(), "--var", "C=d", env=mine).returncode == 0
    assert json.loads(cli("env", "get", made.stdout.strip(), "--json", env=mine).stdout)["env_vars"] == {"A": "b", "C": "d"}
    assert cli("schedule", "create", "--cron", "0 9 * * *", "--name", "daily", "--prompt", "p", env=mine).returncode == 0
    (schedule,) = json.loads(cli("schedule", "list", "--json", env=mine).stdout)["schedules"]
    assert cli("schedule", "pause", schedule["id"], env=mine).returncode == 0
    assert "paused" in cli("schedule", "list", env=mine).stdout
    assert cli("schedule", "delete", schedule["id"], env=mine).returncode == 0
    assert cli("env", "delete", made.stdout.strip(), env=mine).returncode == 0
    (listed,) = json.loads(cli("keys", "list", "--json", env=env).stdout)["keys"]
    assert cli("keys", "revoke", listed["id"], env=env).returncode == 0
    assert cli("ps", env=mine).returncode == 4


def test_backup_of_a_running_server(make_server, tmp_path):
    server = make_server(admin_key=None)
    env = {"OZ_DATA_DIR": str(server.data)}
    run = cli("run", "--model", "shell", "--wait", "20", "--json", "echo kept", env=env)
    run_id = json.loads(run.stdout)["run_id"]
    assert cli("backup", str(tmp_path / "b.tar.gz"), env=env).returncode == 0
    other = tmp_path / "other"
    assert cli("restore", str(tmp_path / "b.tar.gz"), env={"OZ_DATA_DIR": str(other)}).returncode == 0
    second = make_server({"OZ_DATA_DIR": str(other)}, admin_key=None)
    assert second.alive()
    shown = cli("show", run_id, "--json", env={"OZ_DATA_DIR": str(other)})
    assert shown.returncode == 0 and json.loads(shown.stdout)["output"] == "kept"
