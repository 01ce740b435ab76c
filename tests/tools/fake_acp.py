#!/usr/bin/python3
"""An agent of the Agent Client Protocol whose turns are written in their prompts, one action a line. What real agents do
differently (real-parts.md 5) is chosen by the JSON object in FAKE_ACP:
  models [..] (the first is current), model_option (how models are offered: as an option of this name),
  ids int|uuid|same, load bool, modes [..], options claude|codex|opencode|gemini, usage prompt|meta|none, version N."""
import json
import os
import queue
import subprocess
import sys
import threading
import time
import uuid

LOOK = json.loads(os.environ.get("FAKE_ACP", "{}"))
OPTIONS = {
    "claude": [("allow_always", "allow_always"), ("allow", "allow_once"), ("reject", "reject_once")],
    "codex": [("approved", "allow_once"), ("approved-for-session", "allow_always"), ("abort", "reject_once")],
    "opencode": [("once", "allow_once"), ("always", "allow_always"), ("reject", "reject_once")],
    "gemini": [("proceed_always", "allow_always"), ("proceed_once", "allow_once"), ("cancel", "reject_once")],
}
out = threading.Lock()
answers = {}
cancelled = threading.Event()
numbers = iter(range(0, 1 << 30))
HISTORY = os.path.join(os.environ.get("HOME", "/tmp"), "fake-acp-history")


def write(data):
    with out:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def say(message):
    write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")


class Agent:
    session = None
    model = ""

    def update(self, update_, **fields):
        say({"method": "session/update", "params": {"sessionId": self.session, "update": {"sessionUpdate": update_, **fields}}})

    def words(self, text, kind="agent_message_chunk"):
        self.update(kind, content={"type": "text", "text": text})

    def new_id(self):
        style = LOOK.get("ids", "int")
        return str(uuid.uuid4()) if style == "uuid" else 7 if style == "same" else next(numbers)

    def ask(self, call, wait=True, **params):
        number = self.new_id()
        answers[json.dumps(number)] = box = queue.Queue()
        options = [{"optionId": i, "name": i, "kind": k} for i, k in OPTIONS[LOOK.get("options", "claude")]]
        params = {"sessionId": self.session, "options": options, **params}
        if call is not None:
            params["toolCall"] = call
        say({"id": number, "method": "session/request_permission", "params": params})
        return box.get()["outcome"] if wait else None

    def run(self, line):
        word, _, rest = line.partition(" ")
        if word == "say":
            self.words(json.loads(rest) if rest.startswith('"') else rest)
        elif word == "think":
            self.words(rest, "agent_thought_chunk")
        elif word == "tool":
            self.update("tool_call", **json.loads(rest))
        elif word == "update":
            self.update("tool_call_update", **json.loads(rest))
        elif word == "kind":
            kind, _, rest = rest.partition(" ")
            self.update(kind, **json.loads(rest))
        elif word == "ask":
            got = self.ask(json.loads(rest))
            self.words(f"<{got['outcome']} {got.get('optionId', '-')}>")
        elif word == "ask-quiet":
            self.ask(json.loads(rest))
        elif word == "ask-stop":  # OpenCode, Codex: a refusal ends the turn
            got = self.ask(json.loads(rest))
            if "reject" in json.dumps(got) or "abort" in json.dumps(got) or "cancel" in json.dumps(got):
                self.update("tool_call_update", toolCallId=json.loads(rest)["toolCallId"], status="failed")
                return "cancelled" if LOOK.get("options") == "codex" else "end_turn"
            self.words(f"<{got['outcome']} {got.get('optionId', '-')}>")
        elif word == "ask-nothing":
            got = self.ask(None)
            self.words(f"<{got['outcome']}>")
        elif word == "ask-twice":
            self.ask(json.loads(rest), wait=False)
            self.ask(json.loads(rest), wait=False)
        elif word == "ask-leave":
            self.ask(json.loads(rest), wait=False)
        else:
            return self.do(word, rest)
        return None

    def do(self, word, rest):
        """What it does besides words and questions."""
        if word == "request":
            number = self.new_id()
            answers[json.dumps(number)] = box = queue.Queue()
            say({"id": number, "method": rest, "params": {}})
            self.words(json.dumps(box.get()))
        elif word == "sleep":
            end = time.monotonic() + float(rest)
            while time.monotonic() < end:
                if cancelled.is_set():
                    return "cancelled"
                time.sleep(0.01)
        elif word == "stuck":  # whatever comes
            time.sleep(float(rest or 3600))
        elif word == "shell":  # what an agent's tool runs
            done = subprocess.run(["/bin/sh", "-c", rest], stdin=subprocess.DEVNULL, capture_output=True, text=True)
            self.words(f"<{done.returncode}> {done.stdout}{done.stderr}")
        elif word == "model":
            self.words(self.model)
        elif word == "exit":
            os._exit(int(rest))
        elif word == "garbage":
            write(rest.encode() + b"\n")
        elif word == "bytes":
            write(bytes.fromhex(rest))
        elif word == "line":  # one line of so many bytes
            block = b"x" * (1 << 20)
            with out:
                for _ in range(int(rest) >> 20):
                    sys.stdout.buffer.write(block)
                sys.stdout.buffer.flush()
        elif word == "deep":
            write(b'{"jsonrpc":"2.0","method":"session/update","params":' + b"[" * int(rest) + b"]" * int(rest) + b"}\n")
        elif word == "flood":  # N pieces of M bytes
            n, m = rest.split()
            for i in range(int(n)):
                self.words(f"{i:08d}" + "y" * (int(m) - 8))
        elif word == "stderr":
            sys.stderr.write(rest + "\n")
            sys.stderr.flush()
        elif word == "write":
            path, _, text = rest.partition(" ")
            with open(path, "w") as f:
                f.write(text)
        elif word == "close":
            os.close(1)
        elif word == "end":
            return rest
        elif word == "error":
            raise RuntimeError(rest)
        return None

    def turn(self, number, text):
        cancelled.clear()
        stop = "end_turn"
        try:
            with open(HISTORY, "a") as f:
                f.write(text + "\x00")
            for line in text.split("\n"):
                got = self.run(line) if line else None
                if got:
                    stop = got
                    break
        except RuntimeError as e:
            return say({"id": number, "error": {"code": -32603, "message": "Internal error", "data": {"details": str(e)}}})
        result = {"stopReason": stop}
        if LOOK.get("usage", "prompt") == "prompt":
            result["usage"] = {"inputTokens": 10, "outputTokens": 3, "totalTokens": 13}
        elif LOOK["usage"] == "meta":
            result["_meta"] = {"quota": {"token_count": {"input_tokens": 10, "output_tokens": 3}}}
        say({"id": number, "result": result})

    def request(self, m):
        number, method, params = m["id"], m["method"], m.get("params", {})
        if method == "initialize":
            say({"id": number, "result": {"protocolVersion": LOOK.get("version", 1), "agentInfo": {"name": "fake", "version": "1.2.3"},
                                          "agentCapabilities": {"loadSession": LOOK.get("load", True)}}})
        elif method in ("session/new", "session/load"):
            assert params["cwd"].startswith("/") and params["mcpServers"] == []
            result = {}
            if method == "session/load":
                if not params["sessionId"].startswith("conv-"):
                    return say({"id": number, "error": {"code": -32602, "message": "no such conversation"}})
                self.session = params["sessionId"]
                self.words("this is history")
                self.update("tool_call", toolCallId="old", title="old", kind="read", status="completed")
            else:
                self.session = result["sessionId"] = "conv-" + uuid.uuid4().hex
            if LOOK.get("modes"):
                result["modes"] = {"currentModeId": LOOK["modes"][0], "availableModes": [{"id": i, "name": i} for i in LOOK["modes"]]}
            if LOOK.get("models"):
                self.model = LOOK["models"][0]
                option = LOOK.get("model_option")
                if option:
                    result["configOptions"] = [
                        {"id": "effort", "category": "thought_level", "currentValue": "high", "options": [{"value": "high", "name": "High"}]},
                        {"id": option, "category": "model", "type": "select", "currentValue": self.model, "options": [
                            {"group": "g", "name": "A group", "options": [{"value": m, "name": m.title()} for m in LOOK["models"]]}]}]
                else:
                    result["models"] = {"currentModelId": self.model, "availableModels": [{"modelId": m, "name": m.title()} for m in LOOK["models"]]}
            say({"id": number, "result": result})
        elif method == "session/set_model" and not LOOK.get("model_option"):
            if LOOK.get("refuse_model"):
                return say({"id": number, "error": {"code": -32603, "message": "no"}})
            self.model = params["modelId"]
            say({"id": number, "result": {}})
        elif method == "session/set_config_option" and params["configId"] == LOOK.get("model_option"):
            self.model = params["value"]
            say({"id": number, "result": {"configOptions": []}})
        elif method == "session/set_mode":
            self.mode = params["modeId"]
            say({"id": number, "result": {}})
        elif method == "session/prompt":
            text = "".join(p["text"] for p in params["prompt"])
            threading.Thread(target=self.turn, args=(number, text), daemon=True).start()
        else:
            say({"id": number, "error": {"code": -32601, "message": "no"}})

    def main(self):
        if LOOK.get("noise"):
            write(b"Welcome to the agent!\n")
        for line in sys.stdin:
            m = json.loads(line)
            if "method" not in m:
                box = answers.pop(json.dumps(m["id"]), None)
                if box:
                    box.put(m.get("result", m.get("error")))
            elif m["method"] == "session/cancel":
                cancelled.set()
            elif "id" in m:
                self.request(m)


Agent().main()
os._exit(0)
