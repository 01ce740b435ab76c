"""The command line of live sessions as people use it: as a command, and sitting at a terminal."""
import contextlib
import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time

import harness
from harness import BINARY

SESSION = re.compile(r"ses_[0-9a-f-]{36}")


class Cli:
    def __init__(self, server, repo):
        self.env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "OZ_DATA_DIR": "/nonexistent/data", "TERM": "xterm",
                    "ASAN_OPTIONS": "exitcode=97", "OZ_API_BASE_URL": server.url, "OZ_API_KEY": harness.ADMIN_KEY}
        self.repo = repo

    def __call__(self, *args, code=0, stdin="", timeout=60, env=None):
        done = subprocess.run([str(BINARY), *args], env={**self.env, **(env or {})}, input=stdin, capture_output=True, text=True,
                              timeout=timeout)
        assert done.returncode == code, f"{args}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def json(self, *args, **options):
        return json.loads(self(*args, "--json", **options).stdout)

    def new(self, *args, **options):
        done = self("sessions", "new", "--repo", self.repo, "--provider", "shell", *args, **options)
        assert SESSION.fullmatch(done.stdout.strip()), done
        return done.stdout.strip()


class Seat:
    """A command at a terminal of its own."""

    def __init__(self, cli, *args, cols=90, rows=30, env=None):
        self.master, self.slave = pty.openpty()
        self.size(cols, rows)
        self.before = termios.tcgetattr(self.slave)
        self.seen = b""
        self.process = subprocess.Popen([str(BINARY), *args], env={**cli.env, **(env or {})}, stdin=self.slave, stdout=self.slave,
                                        stderr=self.slave, start_new_session=True,
                                        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))

    def size(self, cols, rows):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def raw(self):
        return not termios.tcgetattr(self.slave)[3] & termios.ICANON

    def read(self, seconds):
        if select.select([self.master], [], [], seconds)[0]:
            with contextlib.suppress(OSError):
                self.seen += os.read(self.master, 65536)

    def expect(self, text, timeout=30):
        """What was written up to that text, which is forgotten."""
        wanted, end = text.encode(), time.monotonic() + timeout
        while wanted not in self.seen:
            assert time.monotonic() < end, f"{text!r} did not come: {self.seen!r}, {self.process.poll()}"
            self.read(0.1)
        before, _, self.seen = self.seen.partition(wanted)
        return before.decode(errors="replace")

    def type(self, text):
        os.write(self.master, text.encode())

    def wait(self, timeout=20):
        end = time.monotonic() + timeout
        while self.process.poll() is None:
            assert time.monotonic() < end, f"does not end: {self.seen!r}"
            self.read(0.1)
        for _ in range(3):
            self.read(0.05)
        assert b"Sanitizer" not in self.seen, self.seen.decode(errors="replace")
        return self.process.returncode

    def restored(self):
        return termios.tcgetattr(self.slave) == self.before

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)
