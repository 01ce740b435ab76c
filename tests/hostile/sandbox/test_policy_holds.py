"""Village 15, check 13: what a task must not read or reach it does not, whoever asks and however it is written: a command, a
script, quoted, by an absolute path, in another language, behind links. The mount tree and the broker hold that, not a list
of words. (The other two parts: tests/e2e/test_runner_secrets.py, tests/e2e/test_runner_push.py.)"""
import contextlib
import os
import pathlib
import secrets
import shutil
import socket
import subprocess
import tempfile
import threading
import time

import pytest
from test_way_out import program

pytestmark = [pytest.mark.engine_free, pytest.mark.timeout(120)]
WAYS = {  # each tries to print the file $F
    "plain": 'cat "$F"',
    "absolute": '/usr/bin/cat "$F"',
    "quoted": "c''at \"$F\"; \\cat $F; 'cat' $F",
    "variable": 'x=ca; y=t; $x$y "$F"; eval "$x$y $F"',
    "script": "printf '#!/bin/sh\\ncat \"%s\"\\n' \"$F\" >s.sh; chmod +x s.sh; ./s.sh; sh s.sh",
    "substitution": 'bash -c \'echo "$(<"$F")"\'; echo "$(cat <"$F")"; while read -r l; do echo "$l"; done <"$F"',
    "perl": "perl -e 'open my $f, \"<\", $ENV{F} or die; print <$f>'",
    "python": "python3 -c 'import os; print(open(os.environ[\"F\"]).read())'",
    "dots": 'cat "/workspace/../../../..$F" "../../../../..$F"',
    "roots": 'cat "/proc/self/root$F" "/proc/1/root$F" "/proc/1/cwd/..$F" "/proc/$PPID/root$F"',
    "link": 'ln -s "$F" l; cat l; ln "$F" h; cat h; cp "$F" c; cat c; tar c "$F" | strings',
    "descriptors": 'for n in 3 4 5 6 7 8 9; do timeout 2 sh -c "cat <&$n"; timeout 2 cat /dev/fd/$n; done',
    "mount": 'mkdir m; mount --bind "$(dirname "$F")" m; cat m/*; unshare -rm cat "$F"; chroot / cat "$F"',
}
REACH = {  # each tries to speak to $H:$P, or to the host by its address
    "curl": 'curl -sm 3 "http://$H:$P/" "https://$H:$P/"; curl -psm 3 "http://$H:$P/"; curl -sm 3 "http://127.0.0.1:$P/"',
    "without the proxy": 'env -u http_proxy -u https_proxy -u HTTP_PROXY -u HTTPS_PROXY -u ALL_PROXY -u all_proxy curl -sm 3 "http://$H:$P/"; '
                         'curl -sm 3 --noproxy "*" "http://$A:$P/"',
    "quoted": "c''url -sm 5 http://\"$H\":$P/; /usr/bin/curl -sm 3 http://$A:$P/",
    "script": "printf 'import socket, os\\nfor h in (os.environ[\"H\"], os.environ[\"A\"], \"127.0.0.1\"):\\n try: socket.create_connection((h, "
              "int(os.environ[\"P\"])), 5).sendall(b\"x\")\\n except OSError as e: print(e)\\n' >s.py; python3 s.py",
    "bash": 'bash -c \'exec 7<>"/dev/tcp/$H/$P" && echo hello >&7\'; bash -c \'exec 8<>"/dev/tcp/$A/$P" && echo hello >&8\'',
    "names": 'timeout 3 getent hosts "$H"; timeout 3 host "$H"',
    "names of the proxy": 'curl -sm 3 -x "http://$H:$P" http://listed.example/; curl -sm 3 -H "Host: listed.example" "http://$H:$P/"; '
                        'curl -sm 3 --connect-to "listed.example:443:$H:$P" https://listed.example/',
    "git": 'export GIT_HTTP_LOW_SPEED_TIME=3 GIT_HTTP_LOW_SPEED_LIMIT=1; timeout 3 git clone "http://$H:$P/o/r" r; timeout 3 git ls-remote "https://$H:$P/o/r"; timeout 3 git ls-remote "git://$A:$P/o/r"',
}


def run(script, env, **settings):
    outside, agent = program()
    state = tempfile.mkdtemp(prefix="mu-outside-")
    try:
        done = subprocess.run([outside, state, agent, script, "OZ_HARNESS=shell", *(f"{k}={v}" for k, v in env.items())], capture_output=True,
                              text=True, errors="replace", timeout=100, env={f"OUTSIDE_{k}": v for k, v in settings.items()})
    finally:
        shutil.rmtree(state)
    assert done.returncode == 0, done
    return done.stdout


def every(ways):
    return "".join(f"echo '== {name}'; mkdir -p /tmp/{i}; cd /tmp/{i}; ( {text} ) 2>&1 </dev/null\n" for i, (name, text) in enumerate(ways.items())) + \
        "echo all tried; exit 0\n"


@pytest.fixture
def secret():
    """A file of the host that everybody there may read."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="mu-secret-"))
    folder.chmod(0o755)
    word = secrets.token_hex(16)
    (folder / "key").write_text(word + "\n")
    (folder / "key").chmod(0o644)
    yield folder / "key", word
    shutil.rmtree(folder)


def test_files_outside_are_not_read(secret):
    path, word = secret
    said = run(every(WAYS), {"F": path})
    assert "all tried" in said and all(f"== {name}" in said for name in WAYS), said
    assert word not in said, said
    for other in ("/etc/shadow", os.path.expanduser("~/.bashrc"), "/var/log/dpkg.log", "/etc/ssh/sshd_config", str(pathlib.Path(__file__))):
        if os.path.exists(other):
            content = [line for line in pathlib.Path(other).read_text(errors="replace").splitlines() if len(line) > 30][:3]
            said = run(every({k: WAYS[k] for k in ("plain", "quoted", "roots")}), {"F": other})
            assert "all tried" in said and not any(line in said for line in content), said


def test_the_test_would_see_it(secret):
    """The same ways find a file that is inside."""
    path, word = secret
    inside = {k: v for k, v in WAYS.items() if k not in ("dots", "descriptors", "mount")}
    said = run(f"printf '%s\\n' {word} >/tmp/key\n" + every(inside), {"F": "/tmp/key"})
    parts = said.split("== ")[1:]
    assert len(parts) == len(inside), said
    for name, part in zip(inside, parts):
        assert word in part, (name, part)


@pytest.fixture
def host():
    """A server of this machine; what reached it."""
    server, reached = socket.create_server(("0.0.0.0", 0)), []

    def serve():
        while True:
            try:
                conn, peer = server.accept()
            except OSError:
                return
            reached.append(peer)
            with conn, contextlib.suppress(OSError):
                conn.settimeout(5)
                conn.recv(100)
    threading.Thread(target=serve, daemon=True).start()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:  # an address of this machine that is not loopback
        try:
            s.connect(("192.0.2.1", 9))
            address = s.getsockname()[0]
        except OSError:
            address = "127.0.0.1"
    yield address, server.getsockname()[1], reached
    server.shutdown(socket.SHUT_RDWR)
    server.close()


def visitors(address, port, reached):
    """Who came before this call: a server accepts in their order."""
    with socket.create_connection((address, port)) as s:
        mine, end = s.getsockname(), time.monotonic() + 30
        while mine not in reached:
            assert time.monotonic() < end
            time.sleep(0.01)
    return [peer for peer in reached if peer != mine]


def test_each_way_reaches_it_from_outside(host, tmp_path):
    address, port, reached = host
    for name, text in REACH.items():
        if name != "names":
            reached.clear()
            subprocess.run(["sh", "-c", text], cwd=tmp_path, capture_output=True, timeout=60, stdin=subprocess.DEVNULL,
                           env={"PATH": os.environ["PATH"], "H": address, "A": address, "P": str(port)})
            assert visitors(address, port, reached), name


def test_hosts_that_are_not_listed_are_not_reached(host):
    address, port, reached = host
    said = run(every(REACH), {"H": "not-listed.example", "A": address, "P": port}, ALLOW="listed.example:443",
               RESOLVE=f"not-listed.example={address},listed.example={address}", ALLOW_ADDR=f"{address}:{port},127.0.0.1:{port}")
    assert "all tried" in said and not visitors(address, port, reached), (reached, said)


def test_a_listed_one_is(host):
    address, port, reached = host
    run(every({"curl": 'curl -psm 3 "http://$H:$P/"', "git": 'timeout 3 git ls-remote "https://$H:$P/o/r"'}), {"H": "listed.example", "P": port},
        ALLOW=f"listed.example:{port}", RESOLVE=f"listed.example={address}", ALLOW_ADDR=f"{address}:{port}")
    assert len(visitors(address, port, reached)) >= 2
