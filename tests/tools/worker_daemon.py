"""Starts the real `muster worker` in a folder of its own, with a scripted agent of the kind `direct`."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import textwrap
import threading
import time

import harness

AGENT = """\
    #!/bin/sh
    # Plays the runner: what it does is the prompt, a script.
    ws=$PWD
    mkdir -p "$ws/.oz"
    if [ -n "$OZ_TASK_PROMPT" ]; then printf '%s' "$OZ_TASK_PROMPT" >"$ws/.oz/script"
    else cp "$ws/.oz/prompt.txt" "$ws/.oz/script"; fi
    exec /bin/sh "$ws/.oz/script"
    """


class Daemon:
    def __init__(self, server, *flags, kind="direct", config=None, env=None, worker_id="w1", program=None, prefix=()):
        self.server, self.program = server, program or harness.BINARY
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="muster-worker-", dir="/tmp"))
        self.state = self.dir / "state"
        self.agent = self.dir / "agent.sh"
        self.agent.write_text(textwrap.dedent(AGENT))
        self.agent.chmod(0o755)
        self.config = self.dir / "worker.yaml"
        if config is None:
            config = f"backend:\n  direct:\n    oz_path: {self.agent}\n" if kind == "direct" else ""
        self.config.write_text(config.replace("AGENT", str(self.agent)).replace("DIR", str(self.dir)))
        self.args = ["worker", "--config-file", str(self.config), "--worker-id", worker_id, "--state-dir", str(self.state),
                     "--web-socket-url", server.url.replace("http", "ws", 1) + "/api/v1/selfhosted/worker/ws",
                     "--server-root-url", server.url, "--metrics-listen", "none", *flags]
        self.env = {"PATH": os.environ["PATH"], "HOME": str(self.dir), "OZ_DATA_DIR": str(self.dir / "data"),
                    "OZ_API_KEY": server.key, "ALLOW_UNSAFE_PROCESS_DRIVER": "1",
                    "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", ""), **(env or {})}
        self.prefix = list(prefix)  # of the command; it execs what follows
        self.process, self.log, self.err = None, [], ""
        self.changed = threading.Condition()

    def start(self):
        self.process = subprocess.Popen([*self.prefix, str(self.program), *self.args], env=self.env, cwd=self.dir,
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        preexec_fn=harness.die_with_parent)
        self.threads = [threading.Thread(target=self._read_log, args=(self.process.stdout,), daemon=True),
                        threading.Thread(target=self._read_err, args=(self.process.stderr,), daemon=True)]
        for t in self.threads:
            t.start()
        return self

    def _read_log(self, stream):
        for raw in stream:
            with self.changed:
                try:
                    self.log.append(json.loads(raw))
                except ValueError:
                    self.err += "not JSON: " + raw.decode("utf-8", "replace")
                self.changed.notify_all()
        stream.close()

    def _read_err(self, stream):
        for raw in stream:
            self.err += raw.decode("utf-8", "replace")
        stream.close()

    def wait_log(self, msg, timeout=15.0, **fields):
        end = time.monotonic() + timeout
        with self.changed:
            while True:
                for line in self.log:
                    if line.get("msg") == msg and all(line.get(k) == v for k, v in fields.items()):
                        return line
                left = end - time.monotonic()
                assert left > 0, f"no log line {msg} {fields}\n{self.tail()}"
                self.changed.wait(min(left, 0.5))

    def tail(self):
        code = self.process.poll() if self.process else None
        return f"exit code {code}\n" + "\n".join(map(json.dumps, self.log[-60:])) + "\n" + self.err[-8000:]

    def signal(self, number):
        os.kill(self.process.pid, number)

    def kill9(self):
        self.process.kill()
        self.process.wait()
        for t in self.threads:
            t.join(5)

    def wait_exit(self, timeout=30.0):
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError("the worker does not end\n" + self.tail()) from None
        for t in self.threads:
            t.join(5)
        return code

    def stop(self, code=0):
        """Ends it and checks that it was well."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
            try:
                self.wait_exit()
            except AssertionError:
                self.process.send_signal(signal.SIGABRT)
                self.process.wait(10)
                raise
        assert not harness.SANITIZER.search(self.err), self.tail()
        assert "not JSON" not in self.err, self.tail()
        if code is not None and self.process.returncode != -9:
            assert self.process.returncode == code, self.tail()
        assert self.server.key not in self.err + json.dumps(self.log), "the key is in the log"

    def remove(self):
        shutil.rmtree(self.dir, ignore_errors=True)

    def leftovers(self):
        """Folders of tasks that are still there."""
        found = []
        for part in ("direct", "workspaces"):
            if (self.state / part).exists():
                found += list((self.state / part).iterdir())
        return found
