"""A push needs an approval, also from inside a script (village 15, check 13): the credential of the repository is process 1's,
and `git` and `gh` ask it. github.com is this machine: names and the certificate are the box's own."""
import base64
import http.server
import json
import os
import shutil
import subprocess
import threading

import pytest
from test_runner_live import make, ran  # noqa: F401
from test_runner_network import certificate, tls  # noqa: F401

pytestmark = [pytest.mark.engine_free]
# one address for each run of these tests: they all want port 443
ADDRESS = f"127.{2 + os.getpid() // 65536 % 250}.{os.getpid() // 256 % 256}.{os.getpid() % 256}"
TOKEN = "ghx_0123456789abcdefghijklmnopqrstuvwxyz"


class Github:
    """Repositories that take pushes of whoever knows the word."""

    def __init__(self, repos, context):
        self.pushes, self.tried = [], []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                path, _, query = self.path.partition("?")
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                sent = self.headers.get("Authorization")
                known = bool(sent) and base64.b64decode(sent.split()[1]).decode() == f"x-access-token:{TOKEN}"
                push = "receive-pack" in path + query
                if push:
                    outer.tried.append(known)
                if push and path.endswith("receive-pack") and known:
                    outer.pushes.append(path)
                if not known:
                    self.send_response(401)
                    self.send_header("WWW-Authenticate", 'Basic realm="x"')
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                env = {"PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": str(repos), "GIT_HTTP_EXPORT_ALL": "1", "PATH_INFO": path,
                       "QUERY_STRING": query, "REQUEST_METHOD": self.command, "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                       "CONTENT_LENGTH": str(len(body)), "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                       "REMOTE_USER": "x", "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
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
        self.http = http.server.ThreadingHTTPServer((ADDRESS, 443), Handler)
        self.http.socket = context.wrap_socket(self.http.socket, server_side=True)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def world(make, certificate):  # noqa: F811
    """make(policy) → a live session on o/r of github.com, with work to be pushed."""
    assert os.getuid() == 0, "this test listens on port 443"
    servers = []

    def start(program="static", **options):
        live = make(start=False, program=program, env={
            "OZ_ENV_REPOS": "o/r", "OZ_ENV_VARS": f"GH_TOKEN={TOKEN}", "OZ_ENV_VARS_JSON": json.dumps({"GH_TOKEN": TOKEN}),
            "GIT_SSL_CAINFO": "/tmp/cert.pem", "SHELL": "/bin/sh", **{f"GIT_{who}_{what}": "a@b.test" for who in ("AUTHOR", "COMMITTER")
                                                                      for what in ("NAME", "EMAIL")}}, **options)
        live.box.repo("o/r.git")
        subprocess.run(["git", "-C", live.box.repos / "o/r.git", "config", "receive.denyCurrentBranch", "ignore"], check=True)
        live.github = Github(live.box.repos, tls(certificate))
        servers.append(live.github)
        (live.box.root / "tmp/hosts").write_text(f"127.0.0.1 localhost\n{ADDRESS} github.com\n")
        shutil.copy(certificate / "cert.pem", live.box.root / "tmp/cert.pem")
        live.box.cli("hosts", 'mount --bind /tmp/hosts /etc/hosts && exec "$@"\n')
        live.box.cli("gh", 'echo "gh $* with ${GH_TOKEN:-nothing}"\n')
        live.start(entry=("/fake/hosts", "/agent/entrypoint.sh"))
        live.peer.wait_for("boot", step="running")
        shell(live, "git checkout -q -b work && echo new >file && git add -A && git commit -qm work")
        return live
    yield start
    for server in servers:
        server.close()


def shell(live, script, timeout=30):
    turn, complete = live.turn("shell " + script, timeout=timeout)
    assert complete["outcome"] == "done"
    return live.peer.words(turn)


def branches(live):
    return subprocess.run(["git", "-C", live.box.repos / "o/r.git", "branch"], capture_output=True, text=True).stdout


AROUND = [
    "/usr/bin/git push origin work",
    "$(command -v /usr/bin/git) push origin work",
    "g='/usr/bin/g''it'; p=pu; ${g} ${p}sh origin work",
    "printf '#!/bin/sh\\n/usr/bin/git push origin work\\n' >/tmp/x.sh; chmod +x /tmp/x.sh; /tmp/x.sh",
    "git -c alias.x=push x origin work",
    "python3 -c 'import subprocess, sys; sys.exit(subprocess.call([\"/usr/bin/git\", \"pu\" + \"sh\", \"origin\", \"work\"]))'",
    "GIT_ASKPASS=/agent/bin/muster MUSTER_ASKPASS=1 /usr/bin/git push origin work",
    "GIT_ASKPASS=/agent/bin/muster MUSTER_ASKPASS=1 PATH=/usr/bin:/bin git push origin work",
    "env -i PATH=$PATH GIT_SSL_CAINFO=/tmp/cert.pem git push origin work",
    "rm -rf .oz/bin .oz/gate; git push origin work",
]


@pytest.mark.parametrize("program", ["static", "sanitized"])
def test_no_way_around_the_question_has_the_credential(world, program):
    live = world(program)
    for script in AROUND:
        said = shell(live, f"cd /workspace; ( {script} ) </dev/null")
        assert not said.startswith("<0>"), (script, said)
    assert "work" not in branches(live) and not live.github.pushes and not any(live.github.tried) and live.github.tried
    assert not live.peer.all("question")
    if program == "static":  # a sanitized one cannot lock its memory
        seek = "env; cat /proc/*/environ /proc/self/environ; cat /proc/1/environ; cat /workspace/.git/config; grep -rs ghx_ /workspace /home /tmp"
        assert "[redacted" not in shell(live, f"( {seek} ) 2>/dev/null | tr '\\0' '\\n'")


def test_a_push_in_a_script_asks_and_waits(world):
    live = world()
    p = live.peer
    turn = p.prompt("shell printf 'set -e\\necho before\\ngit push origin work\\necho after\\n' >/tmp/deploy.sh; sh /tmp/deploy.sh")
    question = p.wait_for("question")
    assert question["approval"]["action"] == "merge" and question["approval"]["description"] == "git push origin work"
    assert json.loads(question["approval"]["exact"]) == {"command": "git push origin work"} and question["turnId"] == turn
    assert not live.github.pushes
    p.answer(question["questionId"], "deny", reason="not today")
    p.wait_for("complete", turnId=turn)
    assert "not today" in p.words(turn) and "before" in p.words(turn) and "after" not in p.words(turn) and not live.github.pushes
    turn = p.prompt("shell sh /tmp/deploy.sh")
    p.wait(lambda: len(p.all("question")) == 2)
    p.answer(p.all("question")[1]["questionId"], "allow")
    p.wait_for("complete", turnId=turn)
    assert "after" in p.words(turn) and "work" in branches(live) and len(live.github.pushes) == 1
    assert TOKEN not in json.dumps(p.messages)
    said = shell(live, "echo more >>file; git commit -qam more; /usr/bin/git push origin work")  # that was once
    assert not said.startswith("<0>") and len(live.github.pushes) == 1


def test_what_a_person_approved_is_not_asked_again(world):
    live = world()
    p = live.peer
    command = "git status && git push origin work"
    turn = p.prompt("ask " + ran(command) + f"\nshell {command}\nshell git push -f origin work")
    p.answer(p.wait_for("question")["questionId"], "allow")
    p.wait(lambda: len(p.all("question")) == 2)
    assert p.all("question")[1]["approval"]["description"] == "git push -f origin work" and "work" in branches(live)
    p.answer(p.all("question")[1]["questionId"], "deny")
    p.wait_for("complete", turnId=turn)
    assert len(live.github.pushes) == 1


def test_gh_gets_its_token_with_an_answer(world):
    live = world()
    p = live.peer
    assert "gh --version with nothing" in shell(live, "gh --version")
    turn = p.prompt("shell gh pr create --title 'a b'")
    question = p.wait_for("question")
    assert question["approval"]["description"] == "gh pr create --title 'a b'" and question["approval"]["action"] == "merge"
    p.answer(question["questionId"], "allow")
    p.wait_for("complete", turnId=turn)
    assert "gh pr create --title a b with [redacted:GH_TOKEN]" in p.words(turn)


def test_who_asked_and_is_gone_takes_the_question_along(world):
    live = world()
    p = live.peer
    turn = p.prompt("shell timeout 1 git push origin work; sleep 1")
    question = p.wait_for("question")
    assert p.wait_for("answered", questionId=question["questionId"])["taken"] is False
    p.wait_for("complete", turnId=turn)
    turn = p.prompt("shell git push origin work")
    p.wait(lambda: len(p.all("question")) == 2)
    p.send("abort", turnId=turn)  # the agent does not hear it while it runs something; its question is gone all the same
    p.wait_for("answered", questionId=p.all("question")[1]["questionId"])
    assert p.wait_for("complete", turnId=turn) and not live.github.pushes


@pytest.mark.parametrize("options", [{"policy": {"requiresApprovalFor": ["deploy"]}}, {"skipPermissions": True}])
def test_where_nobody_wants_to_be_asked_nothing_is_kept_back(world, options):
    live = world(**options)
    said = shell(live, "git push origin work; echo $PATH; echo ${GH_TOKEN:+there}")
    assert "/.oz/bin" not in said and "there\n" in said  # git has no askpass there: as before


def test_a_policy_that_is_loosened_hands_it_out(world):
    live = world()
    live.peer.send("policy", policy={"requiresApprovalFor": []})
    assert "work" in shell(live, "sleep 0.2; git push origin work") and len(live.github.pushes) == 1


def test_nonsense_at_the_gate_is_left(world):
    live = world()
    poke = r"""import socket, struct
for data in (b"", b"\0\0\0\0", struct.pack("=I", 1 << 30), struct.pack("=I", 3) + b"abc", struct.pack("=I", 4) + b"git\0more", b"x" * 100000):
    for _ in range(12):
        s = socket.socket(socket.AF_UNIX); s.connect("/workspace/.oz/gate"); s.settimeout(0.05)
        try: s.sendall(data); assert not s.recv(100).startswith(b"y")
        except OSError: pass
        s.close()
print("poked")"""
    (live.box.workspace / "poke.py").write_text(poke)
    assert "poked" in shell(live, "python3 /workspace/poke.py", timeout=60)
    assert not any(q["approval"]["description"] != "git" for q in live.peer.all("question"))
    turn = live.peer.prompt("shell git push origin work")
    live.peer.wait(lambda: [q for q in live.peer.all("question") if q["turnId"] == turn])
    live.peer.answer([q for q in live.peer.all("question") if q["turnId"] == turn][0]["questionId"], "allow")
    live.peer.wait_for("complete", turnId=turn)
    assert len(live.github.pushes) == 1
