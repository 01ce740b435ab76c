"""The ways out of a sandbox: descriptor 3 and the loopback ports (sandbox.md 9, exec/sandbox/fd3.h), the report over HTTP
(oz-worker.md 13.6), the prompt from the server (8.4), and git's questions about github.com (13.5)."""
import array
import base64
import contextlib
import errno
import http.server
import json
import os
import pathlib
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import threading
import time

import pytest
import runner_box
from runner_box import Box

pytestmark = [pytest.mark.engine_free]
PROMPT = {"OZ_TASK_PROMPT": "please do it"}
SETUP, DIALED, REFUSED, STOP, SWEEP, THAW, READY, DIAL, SWEPT = 1, 2, 3, 4, 5, 6, 16, 17, 18
MESSAGE = struct.Struct("=BBHIi")


@pytest.fixture(params=["static", "sanitized"])
def box(request, tmp_path):
    return Box(tmp_path / "box", request.param)


@pytest.fixture
def static(tmp_path):
    return Box(tmp_path / "box")


# --- descriptor 3 ---

class Keeper:
    """The other end of descriptor 3. Every DIAL is answered by `serve(port)`: a socket to hand in, or an errno."""

    def __init__(self, ports, serve):
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.serve, self.seen, self.held = serve, [], []
        self.ours.send(MESSAGE.pack(SETUP, 0, 0, 0, len(ports)) + b"".join(struct.pack("=H", p) for p in ports))
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()

    def send(self, kind, value=0, id_=0, fd=None):
        control = [] if fd is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
        self.ours.sendmsg([MESSAGE.pack(kind, 0, 0, id_, value)], control)

    def work(self):
        while True:
            try:
                data, control, _, _ = self.ours.recvmsg(64 << 10, 1024)
            except OSError:
                return
            if not data:
                return
            kind, _, port, id_, value = MESSAGE.unpack(data)
            self.seen.append((kind, port, id_, value, len(control)))
            if kind == DIAL:
                answer = self.serve(port)
                if isinstance(answer, int):
                    self.send(REFUSED, answer, id_)
                elif answer is not None:
                    self.send(DIALED, 0, id_, answer.fileno())
                    answer.close()

    def wait(self, kind, timeout=10):
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            found = [m for m in self.seen if m[0] == kind]
            if found:
                return found[0]
            time.sleep(0.01)
        raise AssertionError(f"no message {kind}: {self.seen}")

    def close(self):
        self.ours.close()
        self.theirs.close()


def echo_server(transform):
    """Gives serve(): each connection's bytes come back transformed, after it half-closed."""
    def serve(port):
        inner, outer = socket.socketpair()

        def work():
            data = bytearray()
            while chunk := inner.recv(1 << 16):
                data += chunk
            inner.sendall(transform(port, bytes(data)))
            inner.shutdown(socket.SHUT_WR)
            inner.close()
        threading.Thread(target=work, daemon=True).start()
        return outer
    return serve


TALK = """python3 - <<'E'
import socket, sys
def talk(port, data):
    s = socket.create_connection(("127.0.0.1", port)); s.sendall(data); s.shutdown(socket.SHUT_WR)
    out = bytearray()
    while c := s.recv(1 << 16): out += c
    return bytes(out)
%s
E
"""


def up(box, rest=""):
    """A network of its own, with loopback only."""
    box.more = ["-n"]
    box.cli("up", 'ip link set lo up; exec "$@"\n')
    return {"entry": ("/fake/up", "/agent/entrypoint.sh")}


@pytest.mark.parametrize("pid1", [False, True])
def test_a_connection_to_the_proxy_port_goes_to_the_keeper(box, pid1):
    keeper = Keeper([3128, 8081], echo_server(lambda port, data: b"%d:" % port + data[::-1]))
    box.cli("claude", TALK % 'print(talk(3128, b"abc").decode(), talk(8081, b"xyz").decode()); d = b"0123456789" * 300000; '
            'assert talk(3128, d) == b"3128:" + d[::-1]; print("large")')
    end = box.run("--model", "claude", env=PROMPT, keeper=keeper.theirs, pid1=pid1, **up(box))
    assert end.output == b"3128:cba 8081:zyx\nlarge\n", (end, keeper.seen)
    assert keeper.seen[0][:1] == (READY,) and [m[1] for m in keeper.seen[1:]] == [3128, 8081, 3128]
    assert len({m[2] for m in keeper.seen[1:]}) == 3 and not any(m[4] for m in keeper.seen)
    keeper.close()


def test_a_refused_connection_is_closed_and_the_agent_has_no_socket_of_ours(box):
    keeper = Keeper([3128], lambda port: errno.ECONNREFUSED)
    box.cli("claude", TALK % 'try: print(talk(3128, b""))\nexcept OSError: print("b\'\'")' +
            'echo "[$MUSTER_KEEPER]"; ls -l /proc/self/fd | grep -c socket\n')
    end = box.run("--model", "claude", env=PROMPT, keeper=keeper.theirs, **up(box))
    assert end.output.decode().splitlines() == ["b''", "[]", "0"], end
    keeper.close()


def test_two_hundred_connections_at_once(box):
    keeper = Keeper([3128], echo_server(lambda port, data: data.upper()))
    box.cli("claude", TALK % """
import threading
out = []
def one(i):
    out.append(talk(3128, b"x%d" % i) == b"X%d" % i)
ts = [threading.Thread(target=one, args=(i,)) for i in range(200)]
[t.start() for t in ts]; [t.join() for t in ts]; print(len(out), all(out))""")
    end = box.run("--model", "claude", env=PROMPT, keeper=keeper.theirs, **up(box))
    assert end.output == b"200 True\n", end
    keeper.close()


def test_the_keepers_stop_is_a_term_with_its_own_time(static):
    keeper = Keeper([], lambda port: None)
    static.cli("claude", "trap 'echo told' TERM; echo up; while :; do sleep 0.1; done\n")
    process = static.start("--model", "claude", env=PROMPT, keeper=keeper.theirs)
    static.wait_output(b"up")
    start = time.monotonic()
    keeper.send(STOP, 3000)
    end = static.end(process)
    assert end.status == 143 and b"told" in end.output and time.monotonic() - start < 3, end
    keeper.close()


def test_the_keepers_sweep_stops_everybody_and_thaw_lets_them_go(static):
    keeper = Keeper([], lambda port: None)
    static.cli("claude", "i=0; while [ ! -e stop ]; do i=$((i+1)); echo $i > count; done; echo ended\n")
    process = static.start("--model", "claude", env=PROMPT, keeper=keeper.theirs, pid1=True)
    count = static.workspace / "count"
    keeper.wait(READY)
    end = time.monotonic() + 10
    while not count.exists() and time.monotonic() < end:
        time.sleep(0.01)
    keeper.send(SWEEP)
    assert keeper.wait(SWEPT)[3] == 0
    before = count.read_text()
    time.sleep(0.3)
    assert count.read_text() == before
    keeper.send(THAW)
    (static.workspace / "stop").touch()
    assert static.end(process).output == b"ended\n"
    keeper.close()


def test_a_keeper_that_talks_nonsense(static):
    for first in (b"", b"x", MESSAGE.pack(SETUP, 0, 0, 0, 33), MESSAGE.pack(SETUP, 0, 0, 0, -1), MESSAGE.pack(9, 0, 0, 0, 0),
                  MESSAGE.pack(SETUP, 0, 0, 0, 2) + b"ab"):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if first:
            ours.send(first)
        else:
            ours.close()
        end = static.run("--model", "claude", env=PROMPT, keeper=theirs)
        assert end.status == 1 and "network: the keeper" in end.text, (first, end)
        ours.close()
        theirs.close()
    keeper = Keeper([3128], lambda port: None)
    static.cli("claude", "sleep 0.5; echo lives\n")
    for message in (b"x" * 60000, MESSAGE.pack(99, 1, 2, 3, 4), MESSAGE.pack(DIALED, 0, 0, 77, 0), MESSAGE.pack(REFUSED, 0, 0, 77, 5)):
        keeper.ours.send(message)
    end = static.run("--model", "claude", env=PROMPT, keeper=keeper.theirs, **up(static))
    assert end.output == b"lives\n", end
    keeper.close()


# --- the report ---

class Server:
    """Listens in this machine's network and keeps what it was told. `answers`: statuses of the next requests, then 2xx."""

    def __init__(self, answers=(), files=None, tls=None):
        self.requests, self.answers, self.files = [], list(answers), files or {}
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.requests.append((self.path, dict(self.headers), json.loads(body), time.monotonic()))
                status = outer.answers.pop(0) if outer.answers else 204
                self.send_response(status)
                if status != 204:
                    self.send_header("Content-Length", "0")
                self.end_headers()

            def do_GET(self):
                outer.requests.append((self.path, dict(self.headers), None, time.monotonic()))
                data = outer.files.get(self.path)
                status = outer.answers.pop(0) if outer.answers else 200 if data is not None else 404
                self.send_response(status)
                if status != 200:
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for i in range(0, len(data), 7001):
                    piece = data[i:i + 7001]
                    self.wfile.write(b"%X\r\n%s\r\n" % (len(piece), piece))
                self.wfile.write(b"0\r\n\r\n")

            def log_message(self, *args):
                pass
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls:
            self.http.socket = tls.wrap_socket(self.http.socket, server_side=True)
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def of(self, kind):
        return [r[2] for r in self.requests if r[2] and r[2]["kind"] == kind]

    def env(self, **more):
        return {**PROMPT, "OZ_RUN_TOKEN": "the-token-of-this-attempt", "OZ_RUN_ID": "run_7", "OZ_EXECUTION_ID": "e1",
                "OZ_SERVER_ROOT_URL": self.url + "/", **more}


@pytest.fixture
def server():
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


def test_a_task_under_a_foreign_worker_is_reported(box, server):
    box.cli("claude", "echo one; sleep 1.2; printf 'two \\377\\n'; echo https://github.com/o/r/pull/7; exit 3\n")
    end = box.run("--model", "claude", env=server.env(), pid1=True)
    assert end.status == 3, end
    path, headers, _, _ = server.requests[0]
    assert path == "/api/v1/agent/runs/run_7/report" and headers["Authorization"] == "Bearer the-token-of-this-attempt"
    assert all(r[2]["execution_id"] == "e1" for r in server.requests) and server.requests[0][2]["kind"] == "heartbeat"
    seqs = [r[2]["seq"] for r in server.requests]
    assert seqs == sorted(set(seqs)) and seqs[0] == 1
    logs = server.of("log")
    assert logs[0]["chunk"] == "one\n" and logs[0]["offset"] == 0 and logs[0]["stream"] == "stdout"
    [result] = server.of("result")
    assert {k: v for k, v in result.items() if k not in ("execution_id", "seq", "kind", "output")} == end.result
    assert result["output"] == "one\ntwo \ufffd\nhttps://github.com/o/r/pull/7\n" and result["exit_code"] == 3
    assert server.requests[-1][2] is result


def test_log_chunks_are_small_and_at_most_two_a_second(static, server):
    static.cli("claude", "for i in $(seq 60); do head -c 10000 /dev/zero | tr '\\0' a; sleep 0.05; done\n")
    static.run("--model", "claude", env=server.env())
    times = [r[3] for r in server.requests if r[2]["kind"] == "log"]
    logs = server.of("log")
    assert len(logs) >= 3 and all(len(r["chunk"]) <= 64 << 10 for r in logs)
    assert all(b - a > 0.4 for a, b in zip(times, times[1:]))
    end = 0
    for r in logs:
        assert r["offset"] >= end
        end = r["offset"] + len(r["chunk"])
    assert server.of("result")[0]["output"] == "a" * 600000


def test_a_result_is_sent_again_when_the_server_stumbles(box, server):
    server.answers = [204, 503, 429, 500]
    box.cli("claude", "sleep 0.3\n")
    assert box.run("--model", "claude", env=server.env()).status == 0
    assert len(server.of("result")) == 4 and len({r["seq"] for r in server.of("result")}) == 1


def test_a_refusal_is_final(box, server):
    server.answers = [204, 409]
    box.cli("claude", "sleep 0.3\n")
    end = box.run("--model", "claude", env=server.env())
    assert end.status == 0 and len(server.of("result")) == 1 and "was not reported" in end.text


@pytest.mark.parametrize("change", [{"OZ_WORKER": "muster"}, {"OZ_RUN_TOKEN": None}, {"OZ_RUN_ID": None}], ids=lambda c: next(iter(c)))
def test_nothing_is_reported_under_our_own_worker_or_without_a_token(box, server, change):
    box.cli("claude", "exit 0\n")
    assert box.run("--model", "claude", env=server.env(**change)).status == 0 and not server.requests


def test_the_addresses_in_their_order(static, server):
    static.cli("claude", "exit 0\n")
    env = {**server.env(), "OZ_SERVER_ROOT_URL": None, "OZ_RUN_ID": None}
    static.run("--model", "claude", "--server-root-url", "http://127.0.0.1:1", "--task-id", "x",
               env={**env, "WARP_SERVER_ROOT_URL": server.url, "TASK_ID": "run_8"})
    assert server.requests[-1][0] == "/api/v1/agent/runs/run_8/report"
    static.run("--model", "claude", "--server-root-url", server.url, "--task-id", "run_9", env=env)
    assert server.requests[-1][0] == "/api/v1/agent/runs/run_9/report"


def test_a_server_that_is_away_changes_nothing(static, server):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    static.cli("claude", "exit 5\n")
    start = time.monotonic()
    end = static.run("--model", "claude", env=server.env(OZ_SERVER_ROOT_URL=f"http://127.0.0.1:{port}"))
    assert end.status == 5 and end.result["exit_code"] == 5 and time.monotonic() - start < 15


def test_a_server_that_does_not_answer_holds_nobody_who_was_told_to_stop(static, server):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen(50)
        static.cli("claude", "exit 5\n")
        process = static.start("--model", "claude", env=server.env(OZ_SERVER_ROOT_URL=f"http://127.0.0.1:{s.getsockname()[1]}"))
        deadline = time.monotonic() + 10
        while not (static.workspace / ".oz/result.json").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.3)
        os.kill(process.pid, signal.SIGTERM)
        start = time.monotonic()
        end = static.end(process)
        assert end.status == 5 and time.monotonic() - start < 3


# --- the prompt from the server ---

def test_26_a_long_prompt_is_fetched(box, server):
    text = "".join(f"line {i} of it\n" for i in range(20000))
    server.files["/api/v1/agent/runs/run_7/prompt"] = text.encode()
    server.answers = [503]
    box.cli("claude", "cat > got\n")
    env = {**server.env(OZ_WORKER="muster"), "OZ_TASK_PROMPT": None, "OZ_TASK_PROMPT_URL": "/api/v1/agent/runs/run_7/prompt"}
    end = box.run("--model", "claude", env=env)
    assert end.status == 0 and (box.workspace / "got").read_text() == text, end
    assert server.requests[-1][1]["Authorization"] == "Bearer the-token-of-this-attempt"
    env["OZ_TASK_PROMPT_URL"] = "/nothing"
    end = box.run("--model", "claude", env=env)
    assert end.status == 2 and "status 404" in end.result["message"], end


# --- https and github.com ---

@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    place = tmp_path_factory.mktemp("tls")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                    "-keyout", place / "key.pem", "-out", place / "cert.pem", "-subj", "/CN=github.com", "-addext",
                    "subjectAltName=DNS:github.com,DNS:other.test,IP:127.0.0.1"], check=True, capture_output=True)
    return place


def tls(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    return context


def test_https_goes_through_curl(box, certificate):
    server = Server(tls=tls(certificate))
    server.files["/prompt"] = b"x" * 200000
    shutil.copy(certificate / "cert.pem", box.root / "tmp/cert.pem")
    box.cli("claude", "cat | wc -c\n")
    env = {**server.env(CURL_CA_BUNDLE="/tmp/cert.pem"), "OZ_TASK_PROMPT": None, "OZ_TASK_PROMPT_URL": "/prompt"}
    end = box.run("--model", "claude", env=env, pid1=True)
    assert end.output == b"200000\n", end
    [result] = server.of("result")
    assert result["output"] == "200000\n" and server.of("heartbeat")
    assert not (box.workspace / ".oz/.report").exists()
    server.http.shutdown()
    server.http.server_close()


def test_https_without_curl_is_said(static):
    end = static.run("--model", "claude", env={"OZ_RUN_TOKEN": "t", "OZ_RUN_ID": "r", "OZ_SERVER_ROOT_URL": "https://127.0.0.1:1",
                                               "OZ_TASK_PROMPT_URL": "/p"}, path="/fake")
    assert end.status == 2 and "needs curl" in end.result["message"], end


QUESTIONS = [("Username for 'https://github.com': ", b"x-access-token\n"), ("Password for 'https://x-access-token@github.com': ", b"T\n"),
             ("Password for 'https://github.com/o/r': ", b"T\n"), ("Password for 'https://github.com.evil.test': ", None),
             ("Password for 'https://evil.test/github.com': ", None), ("Password for 'https://github.com@evil.test': ", None),
             ("Password for 'http://github.com': ", None), ("Password for 'https://evil.test': ", None), ("Password:", None), ("", None),
             ("Enter passphrase for key 'https://github.com': ", None)]


def test_only_github_over_tls_gets_the_token(box):
    program = box.root / "agent/bin/muster"
    for question, answer in QUESTIONS:
        for name in ("GITHUB_ACCESS_TOKEN", "GH_TOKEN"):
            done = subprocess.run([program, question], env={"MUSTER_ASKPASS": "1", name: "T"}, capture_output=True, timeout=20)
            assert (done.returncode, done.stdout) == ((0, answer) if answer else (1, b"")), question
    assert subprocess.run([program, QUESTIONS[0][0]], env={"MUSTER_ASKPASS": "1"}, capture_output=True, timeout=20).returncode == 1


class GitServer:
    """Repositories over https with a password, under whatever name the client calls it."""

    def __init__(self, repos, context):
        self.asked = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                outer.asked.append((self.headers["Host"], self.headers.get("Authorization")))
                if not self.headers.get("Authorization"):
                    self.send_response(401)
                    self.send_header("WWW-Authenticate", 'Basic realm="x"')
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                path, _, query = self.path.partition("?")
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                env = {"PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": str(repos), "GIT_HTTP_EXPORT_ALL": "1", "PATH_INFO": path,
                       "QUERY_STRING": query, "REQUEST_METHOD": self.command, "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                       "CONTENT_LENGTH": str(len(body)), "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                       "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
                done = subprocess.run(["git", "http-backend"], input=body, capture_output=True, env=env)
                head, _, data = done.stdout.partition(b"\r\n\r\n")
                self.send_response(200)
                for line in head.decode().split("\r\n"):
                    self.send_header(*line.split(": ", 1))
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_POST = do_GET

            def log_message(self, *args):
                pass
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 443), Handler)
        self.http.socket = context.wrap_socket(self.http.socket, server_side=True)


def test_a_private_repository_of_github_is_cloned_with_the_token(static, certificate):
    """github.com is this machine: names and the certificate are the box's own."""
    assert os.getuid() == 0, "this test listens on port 443"
    static.repo("o/r.git")
    server = GitServer(static.repos, tls(certificate))
    threading.Thread(target=server.http.serve_forever, daemon=True).start()
    (static.root / "tmp/hosts").write_text("127.0.0.1 localhost github.com other.test\n")
    shutil.copy(certificate / "cert.pem", static.root / "tmp/cert.pem")
    static.cli("hosts", 'mount --bind /tmp/hosts /etc/hosts && exec "$@"\n')
    static.cli("claude", "cat README.md; cat .git/config; env | grep -c ASKPASS\n")
    env = {**PROMPT, "OZ_ENV_VARS": "GH_TOKEN=word-for-github", "GIT_SSL_CAINFO": "/tmp/cert.pem"}
    entry = ("/fake/hosts", "/agent/entrypoint.sh")
    try:
        end = static.run("--model", "claude", env={**env, "OZ_ENV_REPOS": "o/r"}, entry=entry)
        assert end.output is not None and end.output.startswith(b"this is o/r"), end
        assert b"word-for-github" not in end.out and b"https://github.com/o/r.git" in end.output and end.output.endswith(b"0\n")
        sent = {base64.b64decode(a.split()[1]).decode() for _, a in server.asked if a}
        assert sent == {"x-access-token:word-for-github"}
        server.asked.clear()
        for path in static.workspace.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        end = static.run("--model", "claude", env={**env, "OZ_ENV_REPOS": "https://other.test/o/r.git"}, entry=entry)
        assert end.status == 128 and server.asked and not any(a for _, a in server.asked), (end, server.asked)
    finally:
        server.http.shutdown()
        server.http.server_close()
