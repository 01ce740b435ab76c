"""Probes 96 to 105: the way out of a sandbox, with PID 1, keeper, driver and broker in between."""
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import threading

import pytest

pytestmark = [pytest.mark.engine_free, pytest.mark.timeout(60)]
ROOT = pathlib.Path(__file__).resolve().parents[3]
ASK = r"""ask() { perl -MIO::Socket::INET -e '
  my $s = IO::Socket::INET->new("127.0.0.1:3128") or die "no proxy: $!"; $SIG{ALRM} = sub { print "$ARGV[0]|silent\n"; exit };
  alarm 12; my $r = eval "qq{$ARGV[1]}"; print $s $r; my $first = <$s>; my $why = "";
  while (defined(my $l = <$s>)) { $why = $1 if $l =~ /^X-Muster-Reason: (.*?)\r/i; last if $l eq "\r\n" }
  $first =~ s/\r?\n//; if ($first =~ / 200/) { print $s "ping\n"; $why = <$s>; chomp $why }
  print "$ARGV[0]|$first|$why\n"' "$1" "$2"; }
"""


def program():
    places = [pathlib.Path(os.environ["MUSTER"]).parent] if "MUSTER" in os.environ else []
    places += [ROOT / "build" / p for p in ("asan", "dev", "release")]
    for place in places:
        if (place / "sandbox-outside").exists():
            return place / "sandbox-outside", place / "agent"
    pytest.fail("sandbox-outside is not built: cmake --build build/asan")


@pytest.fixture
def echo():
    """A server on the host's loopback that answers each line."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                conn, _ = server.accept()
            except OSError:
                return
            with conn:
                if conn.recv(100):
                    conn.sendall(b"pong\n")
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield server.getsockname()[1]
    server.shutdown(socket.SHUT_RDWR)
    server.close()


def run(lines, **settings):
    outside, agent = program()
    state = tempfile.mkdtemp(prefix="mu-outside-")
    script = ASK + "".join(f"ask {number} '{text}'\n" for number, text in lines)
    try:
        done = subprocess.run([outside, state, agent, script, "OZ_HARNESS=shell"], capture_output=True, text=True, timeout=50,
                              env={f"OUTSIDE_{k}": v for k, v in settings.items()})
    finally:
        shutil.rmtree(state)
    assert done.returncode == 0, done
    found = {}
    for line in done.stdout.splitlines():
        parts = line.split("|")
        if len(parts) == 3:
            found[parts[0]] = (parts[1], parts[2])
    return found, done.stdout


CONNECT = r"CONNECT {} HTTP/1.1\r\nHost: {}\r\n\r\n"


def test_96_to_104_only_what_is_listed_by_name_and_leads_outside(echo):
    asked = {
        96: CONNECT.format("not-listed.example:443", "not-listed.example:443"),
        97: CONNECT.format("listed.example:8443", "listed.example:8443"),
        98: r"GET http://listed.example/ HTTP/1.1\r\nHost: listed.example\r\n\r\n",
        99: CONNECT.format("93.184.216.34:443", "93.184.216.34:443"),
        100: CONNECT.format("[::ffff:127.0.0.1]:443", "x"),
        101: CONNECT.format("2130706433:443", "2130706433:443"),
        102: CONNECT.format("169.254.169.254:80", "169.254.169.254:80"),
        103: r"CONNECT not-listed.example\x00.listed.example:443 HTTP/1.1\r\nHost: listed.example\r\n\r\n",
        104: CONNECT.format("inner.example:443", "inner.example:443"),
    }
    found, text = run(asked.items(), ALLOW="listed.example:443,*.listed.example:443,inner.example:443",
                      RESOLVE="inner.example=10.0.0.1 127.0.0.1,listed.example=127.0.0.1,not-listed.example=127.0.0.1")
    print(text)
    for probe in asked:
        assert str(probe) in found, (probe, text)
        status, reason = found[str(probe)]
        # A NUL is no HTTP at all, which may be answered so.
        assert status.split()[1] in (("403", "400") if probe == 103 else ("403",)), (probe, found)
        assert reason or probe == 103, (probe, found)


def test_what_is_listed_is_reached_and_carries_bytes_both_ways(echo):
    found, text = run([("ok", CONNECT.format(f"listed.example:{echo}", f"listed.example:{echo}"))],
                      ALLOW=f"listed.example:{echo}", ALLOW_ADDR=f"127.0.0.1:{echo}", RESOLVE="listed.example=127.0.0.1")
    assert found["ok"][0].split()[1] == "200" and found["ok"][1] == "pong", text


def test_a_forward_leads_to_the_one_address_that_the_operator_named(echo):
    outside, agent = program()
    state = tempfile.mkdtemp(prefix="mu-outside-")
    script = """perl -MIO::Socket::INET -e 'my $s = IO::Socket::INET->new("127.0.0.1:8081") or die $!; print $s "x\\n"; print <$s>'
        perl -MIO::Socket::INET -e 'IO::Socket::INET->new("127.0.0.1:8082") or print "8082: $!\\n"'"""
    try:
        done = subprocess.run([outside, state, agent, script, "OZ_HARNESS=shell"], capture_output=True, text=True, timeout=50,
                              env={"OUTSIDE_ALLOW": "x.example:443", "OUTSIDE_FORWARD": f"8081=127.0.0.1:{echo}"})
    finally:
        shutil.rmtree(state)
    assert "pong\n" in done.stdout and "8082: Connection refused" in done.stdout, done.stdout
