"""Drives tests/tools/sandbox_run.c: one sandbox of any driver, its events as they come."""
import base64
import json
import os
import pathlib
import queue
import subprocess
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOL = pathlib.Path(os.environ.get("SANDBOX_RUN", ROOT / "build/asan/tests/unit/sandbox-run")).resolve()


class Box:
    def __init__(self, *options, argv=("agent", "run"), **more):
        words = []
        for name, value in more.items():
            for one in value if isinstance(value, (list, tuple)) else [value]:
                words += [f"--{name.replace('_', '-')}"] + ([] if one is True else [str(one)])
        self.process = subprocess.Popen([TOOL, *options, *words, "--", *argv], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.events, self.seen, self.log = queue.Queue(), [], b""
        self.stderr = []
        threading.Thread(target=self._read, daemon=True).start()
        threading.Thread(target=lambda: self.stderr.extend(self.process.stderr), daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.events.put(json.loads(line))
        self.events.put(None)

    def say(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def next(self, timeout=60):
        event = self.events.get(timeout=timeout)
        assert event is not None, "the tool ended: " + "".join(self.stderr)
        if "data" in event:
            event["data"] = base64.b64decode(event["data"])
        if event["event"] == "log":
            assert event["offset"] == self.offset_of_next(), (event, len(self.log))
            self.log += event["data"]
        self.seen.append(event)
        return event

    first_offset = 0

    def offset_of_next(self):
        return self.first_offset + len(self.log)

    def until(self, name, timeout=60, **fields):
        """The next event of that name (and these fields); those before it are in .seen."""
        end = time.monotonic() + timeout
        while True:
            event = self.next(max(0.1, end - time.monotonic()))
            if event["event"] == name and all(event.get(k) == v for k, v in fields.items()):
                return event

    def until_log(self, text, timeout=60):
        end = time.monotonic() + timeout
        while text not in self.log:
            self.next(max(0.1, end - time.monotonic()))

    def read(self, path, maximum=1 << 20):
        self.say(f"read {path} {maximum}")
        event = self.until("file")
        return event["result"], event["data"]

    def release(self):
        self.say("release")
        self.until("released")

    def close(self):
        """Sees to it that the tool ends by itself and well: nothing leaked, no assumption broken."""
        if self.process.poll() is None:
            self.process.stdin.close()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                raise AssertionError("the tool did not end by itself") from None
        assert self.process.returncode == 0, "".join(self.stderr)

    def kill(self):
        self.process.kill()
        self.process.wait()
