"""Starts and stops the scripted model server (model_server.py) as a process of its own, and asks what it saw."""
import json
import pathlib
import subprocess
import sys
import time
import urllib.parse
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent


class Model:
    def __init__(self):
        self.process = subprocess.Popen([sys.executable, str(HERE / "model_server.py"), "--port", "0", "--until-eof"],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        if not line.strip().isdigit():
            self.stop()
            raise RuntimeError("the scripted model server did not start")
        self.port = int(line)
        self.root = f"http://127.0.0.1:{self.port}"

    def base(self, upstream=None, v1=True):
        """The base URL of an upstream; Anthropic's has no /v1."""
        return self.root + (f"/p/{upstream}" if upstream else "") + ("/v1" if v1 else "")

    def _ask(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(urllib.request.Request(self.root + path, data=data), timeout=30) as answer:
            return json.load(answer)

    def calls(self, contains="", upstream=None):
        query = {"contains": contains}
        if upstream is not None:
            query["upstream"] = upstream
        return self._ask("/__calls?" + urllib.parse.urlencode(query))

    def counts(self):
        return self._ask("/__counts")

    def reset(self):
        self._ask("/__reset", {})

    def behave(self, upstream, marker):
        self._ask("/__behave", {"upstream": upstream, "marker": marker})

    def wait_calls(self, n, contains="", upstream=None, timeout=15.0):
        """Waits until at least n such calls were seen and gives them."""
        end = time.monotonic() + timeout
        while True:
            calls = self.calls(contains, upstream)
            if len(calls) >= n:
                return calls
            if time.monotonic() > end:
                raise AssertionError(f"{len(calls)} upstream calls instead of {n} for {contains!r} {upstream!r}")
            time.sleep(0.02)

    def wait_outcome(self, outcome, contains="", upstream=None, timeout=15.0):
        """Waits until the last such call ended with `outcome` and gives it."""
        end = time.monotonic() + timeout
        while True:
            calls = self.calls(contains, upstream)
            if calls and calls[-1]["outcome"] == outcome:
                return calls[-1]
            if time.monotonic() > end:
                raise AssertionError(f"no call {outcome!r}: {[c['outcome'] for c in calls]}")
            time.sleep(0.02)

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
