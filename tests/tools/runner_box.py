"""Runs the real `muster runner` with a file system of its own, so that /workspace and /agent are real: a root folder of
bind mounts in a mount namespace, entered by chroot. With pid1 it is process 1 of a pid namespace as well."""
import ctypes
import json
import os
import pathlib
import shutil
import signal
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("MUSTER", ROOT / "build/asan/muster")).resolve().parent
STATIC = BUILD / "agent"
SANITIZED = BUILD / "muster-agent-san"
SANITIZER_WORDS = (b"Sanitizer", b"runtime error:", b"check failed")

ENTER = r"""set -e
root=$1 workspace=$2; shift 2
for d in $BOX_HOST; do
  mkdir -p "$root/$d"; mount --rbind "/$d" "$root/$d"
done
mount --bind "$workspace" "$root/workspace"
[ -z "$BOX_PROC" ] || mount -t proc proc "$root/proc"
[ -z "$BOX_FD" ] || eval "exec 3<&$BOX_FD $BOX_FD<&-"
unset BOX_HOST BOX_PROC BOX_FD
exec chroot "$root" /bin/sh -c 'cd /workspace && exec "$@"' sh "$@"
"""


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


class Ended:
    def __init__(self, box, status, out):
        self.status, self.out = status, out
        path = box.workspace / ".oz/result.json"
        self.result = json.loads(path.read_text()) if path.exists() else None
        path = box.workspace / ".oz/agent_output.txt"
        self.output = path.read_bytes() if path.exists() else None

    @property
    def text(self):
        return self.out.decode(errors="replace")

    def __repr__(self):
        return f"<status {self.status}, result {self.result}, said {self.text[-2000:]!r}>"


class Box:
    """shell: "host" (/bin/sh of this machine), "busybox" (the same files, another /bin/sh), or "bare": nothing but a
    busybox, no /usr at all."""

    def __init__(self, place, program="static", shell="host"):
        self.place = pathlib.Path(place)
        self.program, self.shell = program, shell
        self.more = []  # further options of unshare
        self.binds = []  # further folders of this machine that are there inside
        self.own_etc = False  # /etc is what was put there, not this machine's
        self.root, self.workspace = self.place / "root", self.place / "workspace"
        self.fake, self.repos = self.root / "fake", self.root / "repos"
        for d in (self.root, self.workspace, self.fake, self.repos, self.root / "workspace", self.root / "home"):
            d.mkdir(parents=True)
        (self.root / "tmp").mkdir(mode=0o1777)
        self._agent()
        if shell == "bare":
            self._busybox(applets=("sh", "cat", "echo", "grep", "sleep", "printf", "mkdir", "touch", "env-is-not-here"))
        else:
            if shell == "busybox":
                self._busybox(applets=("sh",))
            for name in ("bin", "sbin", "lib", "lib64", "lib32"):
                host = pathlib.Path("/") / name
                if not (self.root / name).exists() and host.is_symlink():
                    (self.root / name).symlink_to(os.readlink(host))

    def _agent(self):
        target = self.root / "agent"
        shutil.copytree(STATIC, target, symlinks=True)
        if self.program == "sanitized":
            shutil.copy2(SANITIZED, target / "bin/muster")

    def _busybox(self, applets):
        program = shutil.which("busybox", path="/bin:/usr/bin")
        assert program, "busybox-static is not installed: script/bootstrap test"
        (self.root / "bin").mkdir()
        shutil.copy2(os.path.realpath(program), self.root / "bin/busybox")
        for name in applets:
            (self.root / "bin" / name).symlink_to("busybox")

    # --- what lies inside ---
    def cli(self, name, script, mode=0o755, first="#!/bin/sh\n"):
        """A stand-in for an agent program, first on PATH."""
        path = self.fake / name
        path.write_text(first + script)
        path.chmod(mode)
        return path

    def repo(self, name, files=None, branch="main", prepare=None):
        """A repository at /repos/NAME with one commit; its URL inside."""
        path = self.repos / name
        path.mkdir(parents=True)
        git(path, "init", "-q", "-b", branch)
        for file, content in (files or {"README.md": f"this is {name}\n"}).items():
            target = path / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content if isinstance(content, bytes) else content.encode())
        if prepare:
            prepare(path)
        git(path, "add", "-A")
        git(path, "commit", "-q", "-m", "the first one", "--allow-empty")
        return f"file:///repos/{name}"

    # --- running ---
    def command(self, args, pid1):
        user = [] if os.getuid() == 0 else ["-Ur"]
        pid = ["-p", "-f", "--kill-child"] if pid1 else []
        return ["unshare", "-m", *user, *pid, *self.more, "/bin/bash", "-c", ENTER, "box", str(self.root), str(self.workspace), *args]

    def start(self, *args, env=None, pid1=False, entry=("/agent/entrypoint.sh",), path=None, keeper=None, **popen):
        """keeper: a socket that becomes descriptor 3."""
        host = "dev proc" if self.shell == "bare" else "usr dev proc sys" if self.own_etc else "usr etc dev proc sys"
        host = " ".join([host, *(str(b).strip("/") for b in self.binds)])
        inside = {"PATH": path if path is not None else "/fake:/usr/local/bin:/usr/bin:/bin", "HOME": "/home",
                  "GIT_TERMINAL_PROMPT": "0", "BOX_HOST": host, "BOX_PROC": "1" if pid1 else "",
                  "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "protocol.file.allow", "GIT_CONFIG_VALUE_0": "always"}
        if self.program == "sanitized":
            inside["ASAN_OPTIONS"] = "abort_on_error=0:exitcode=99"
            inside["UBSAN_OPTIONS"] = "print_stacktrace=1"
        if keeper is not None:
            inside["BOX_FD"], inside["MUSTER_KEEPER"] = str(keeper.fileno()), "3"
            popen["pass_fds"] = (keeper.fileno(),)
        inside.update({k: v for k, v in (env or {}).items() if v is not None})
        # What enters the box needs a PATH of the machine; the one inside is set last.
        inner = inside.pop("PATH")
        command = self.command(["/agent/path", inner, *entry, *args], pid1)
        (self.root / "agent/path").write_text('#!/bin/sh\nPATH=$1; export PATH; shift\nexec "$@"\n')
        (self.root / "agent/path").chmod(0o755)
        popen.setdefault("stdin", subprocess.DEVNULL)
        popen.setdefault("stdout", subprocess.PIPE)
        popen.setdefault("stderr", subprocess.STDOUT)
        return subprocess.Popen(command, env={**inside, "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
                                preexec_fn=die_with_parent, cwd="/", **popen)

    def end(self, process, timeout=60):
        try:
            out, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            out, _ = process.communicate()
            raise AssertionError(f"the runner did not end: {out[-3000:]!r}") from None
        ended = Ended(self, process.returncode, out or b"")
        assert not any(w in ended.out for w in SANITIZER_WORDS), ended.text
        return ended

    def run(self, *args, timeout=60, **options):
        return self.end(self.start(*args, **options), timeout)

    def wait_output(self, text, timeout=20):
        """Until the agent's output file holds `text`."""
        path = self.workspace / ".oz/agent_output.txt"
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if path.exists() and text in path.read_bytes():
                return
            time.sleep(0.02)
        raise AssertionError(f"{text!r} is not in the output: {path.read_bytes() if path.exists() else None!r}")

    def patch(self):
        path = self.workspace / ".oz/changes.patch"
        return path.read_bytes() if path.exists() else None


def git(path, *args, **options):
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1",
           "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.test", "GIT_COMMITTER_NAME": "a",
           "GIT_COMMITTER_EMAIL": "a@example.test", **options.pop("env", {})}
    return subprocess.run(["git", "-C", str(path), *args], check=True, capture_output=True, env=env, **options).stdout


def runner_pid(process):
    """Of a box that was started with pid1: process 1 inside, as seen from here."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        text = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        if text:
            return int(text[0])
        time.sleep(0.01)
    raise AssertionError("no child")
