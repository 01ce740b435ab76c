#!/usr/bin/python3
"""`opencode serve` whose turns are written in their prompts, one action a line. What it does differently is chosen by the JSON
object in FAKE_OC: deaf N (so many first requests are never answered), version V (null: it has no /global/health), exit N,
early bool (a permission is asked for before its tool runs), lag S (from the prompt to its beginning), chunked bool (answers come
in chunks)."""
import base64
import json
import os
import queue
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LOOK = json.loads(os.environ.get("FAKE_OC", "{}"))
HOME = os.environ.get("HOME", "/tmp")
PASSWORD = os.environ.get("OPENCODE_SERVER_PASSWORD")
lock = threading.RLock()
ears, sessions, status, waiting, numbers = [], {}, {}, {}, iter(range(1, 1 << 30))
deaf = [LOOK.get("deaf", 0)]


def new(prefix):
    return f"{prefix}_{time.time_ns():x}{next(numbers)}"


def tell(type_, **properties):
    data = f"data: {json.dumps({'id': new('evt'), 'type': type_, 'properties': properties})}\n\n".encode()
    with lock:
        for q in ears:
            q.put(data)


class Turn(threading.Thread):
    def __init__(self, session, body):
        super().__init__(daemon=True)
        self.session, self.id = session, session["id"]
        self.text = "".join(p["text"] for p in body["parts"])
        self.model, self.stop, self.refused = body.get("model"), threading.Event(), False
        self.finish = "stop"

    def save(self):
        with open(f"{HOME}/fake-oc-{self.id}.json", "w") as f:
            json.dump(self.session, f)

    def message(self, **info):
        info = {"id": new("msg"), "sessionID": self.id, "time": {"created": 1}, **info}
        self.session["messages"].append({"info": info, "parts": []})
        tell("message.updated", sessionID=self.id, info=info)
        return info

    def part(self, **part):
        """A new one, or one that is told again."""
        with lock:
            m = self.session["messages"][-1]
            part = {"sessionID": self.id, "messageID": m["info"]["id"], **part}
            part.setdefault("id", new("prt"))
            m["parts"] = [p for p in m["parts"] if p["id"] != part["id"]] + [part]
        tell("message.part.updated", sessionID=self.id, part=part)
        return part

    def words(self, text, type_="text"):
        p = self.part(type=type_, text="")
        for i in range(0, len(text), 4):
            tell("message.part.delta", sessionID=self.id, messageID=p["messageID"], partID=p["id"], field="text", delta=text[i:i + 4])
        self.part(**{**p, "text": text})

    def wait(self, id_):
        while not self.stop.is_set():
            try:
                return waiting[id_].get(timeout=0.02)
            except queue.Empty:
                pass
        return None

    def ask(self, permission, metadata, call, patterns):
        id_ = new("per")
        request = {"id": id_, "sessionID": self.id, "permission": permission, "patterns": patterns, "metadata": metadata, "always": ["*"],
                   "tool": {"messageID": self.session["messages"][-1]["info"]["id"], "callID": call}}
        waiting[id_] = queue.Queue()
        waiting[id_].request = request
        tell("permission.asked", **request)
        return id_

    def tool(self, name, input_, metadata, permission, patterns, output):
        call = new("call")
        p = self.part(type="tool", tool=name, callID=call, state={"status": "pending", "input": {}, "raw": ""})
        early = LOOK.get("early")
        id_ = self.ask(permission, metadata, call, patterns) if permission and early else None
        if early:
            time.sleep(0.05)
        running = {**p, "state": {"status": "running", "input": input_, "time": {"start": 1}}}
        self.part(**running)
        if permission and not early:
            id_ = self.ask(permission, metadata, call, patterns)
        answer = self.wait(id_) if id_ else {"reply": "once"}
        if id_:
            waiting.pop(id_, None)
        if not answer:
            return
        if answer["reply"] == "reject":
            words = answer.get("message")
            error = "The user rejected permission to use this specific tool call" + (f" with the following feedback: {words}" if words else ".")
            self.part(**{**p, "state": {"status": "error", "input": input_, "error": error}})
            self.refused = not words
            return
        for i in range(3):
            self.part(**{**p, "state": {"status": "running", "input": input_, "metadata": {"output": output[:i]}}})
        self.part(**{**p, "state": {"status": "completed", "input": input_, "output": output, "title": input_.get("command", name), "metadata": {}}})

    def line(self, word, rest):
        if word == "say":
            self.words(rest)
        elif word == "think":
            self.words(rest, "reasoning")
        elif word == "bash":
            self.tool("bash", {"command": rest, "description": "d"}, {"command": rest}, "bash", [rest], f"ran {rest}")
        elif word == "in":  # a command in a folder
            folder, _, command = rest.partition(" ")
            self.tool("bash", {"command": command, "workdir": folder}, {"command": command}, "bash", [command], "ran it")
        elif word == "write":
            path, _, text = rest.partition(" ")
            self.tool("write", {"filePath": path, "content": text}, {"filepath": f"/workspace/{path}", "diff": "+" + text}, "edit", [path], "Wrote it.")
        elif word == "read":
            self.tool("read", {"filePath": rest}, {}, None, [], "its text")
        elif word == "fetch":
            self.tool("webfetch", {"url": rest}, {"url": rest, "format": "text"}, "webfetch", [rest], "a page")
        elif word == "child":  # of another conversation
            id_ = new("per")
            waiting[id_] = queue.Queue()
            waiting[id_].request = r = {"id": id_, "sessionID": "ses_child", "permission": "bash", "patterns": [rest], "metadata": {"command": rest},
                                        "tool": {"messageID": "msg_child", "callID": "call_child"}}
            tell("permission.asked", **r)
            self.words(f"<{(self.wait(id_) or {}).get('reply')}>")
        elif word == "question":
            id_ = new("que")
            waiting[id_] = queue.Queue()
            waiting[id_].request = r = {"id": id_, "sessionID": self.id, "questions": json.loads(rest), "tool": {"messageID": "m", "callID": "c"}}
            tell("question.asked", **r)
            self.words("<" + json.dumps((self.wait(id_) or {}).get("answers", "dismissed")) + ">")
        elif word == "foreign":  # somebody in the sandbox answers
            id_ = self.ask("bash", {"command": rest}, "call_foreign", [rest])
            time.sleep(1)
            waiting.pop(id_)
            tell("permission.replied", sessionID=self.id, requestID=id_, reply="once")
        elif word == "model":
            self.words(json.dumps(self.model))
        elif word == "todo":
            tell("todo.updated", sessionID=self.id, todos=json.loads(rest))
        elif word == "event":
            type_, _, properties = rest.partition(" ")
            tell(type_, **json.loads(properties))
        else:
            self.rest(word, rest)

    def rest(self, word, rest):
        if word == "sleep":
            self.stop.wait(float(rest))
        elif word == "stuck":
            time.sleep(3600)
        elif word == "error":
            tell("session.error", sessionID=self.id, error={"name": "UnknownError", "data": {"message": rest}})
            self.finish = None
        elif word == "length":
            self.finish = "length"
        elif word == "drop":  # the events end, and nobody hears what follows for so many seconds
            with lock:
                for q in ears:
                    q.put(None)
                ears.clear()
            LOOK["no_ears_until"] = time.monotonic() + float(rest)
        elif word == "exit":
            os._exit(int(rest))
        elif word == "garbage":
            with lock:
                for q in ears:
                    q.put(f"data: {rest}\n\n: a comment\nevent: x\n\n".encode())

    def idle(self):
        status.pop(self.id, None)
        tell("session.status", sessionID=self.id, status={"type": "idle"})
        tell("session.idle", sessionID=self.id)

    def run(self):
        time.sleep(LOOK.get("lag", 0))
        user = self.message(role="user")
        self.part(type="text", text=self.text)
        status[self.id] = {"type": "busy"}
        tell("session.status", sessionID=self.id, status={"type": "busy"})
        assistant = self.message(role="assistant", parentID=user["id"], cost=0)
        for line in self.text.split("\n"):
            if self.stop.is_set() or self.refused or not self.finish:
                break
            if line:
                self.line(*line.partition(" ")[::2])
        if self.stop.is_set():
            tell("session.error", sessionID=self.id, error={"name": "MessageAbortedError", "data": {"message": "Aborted"}})
            self.idle()
            time.sleep(0.05)
            assistant["time"]["completed"] = 2
            assistant["error"] = {"name": "MessageAbortedError", "data": {"message": "Aborted"}}
            tell("message.updated", sessionID=self.id, info=assistant)
            self.save()
            return self.idle()
        if self.finish:
            self.part(type="step-finish", reason="stop", cost=0.25, tokens={"input": 100, "output": 7, "reasoning": 1, "cache": {"read": 20, "write": 2}})
            assistant["finish"], assistant["time"] = self.finish, {"created": 1, "completed": 2}
            tell("message.updated", sessionID=self.id, info=assistant)
        tell("session.updated", sessionID=self.id, info={})
        self.save()
        self.idle()
        tell("message.updated", sessionID=self.id, info={**user, "summary": {"diffs": []}})
        return None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, code, value=None):
        data = b"" if value is None else json.dumps(value).encode()
        self.send_response(code)
        if LOOK.get("chunked") and data:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for i in range(0, len(data), 7):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data[i:i + 7]), data[i:i + 7]))
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    def hear(self):
        if time.monotonic() < LOOK.get("no_ears_until", 0):
            return self.answer(503)
        q = queue.Queue()
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        q.put(b'data: {"id":"evt_0","type":"server.connected","properties":{}}\n\n')
        with lock:
            ears.append(q)
        while True:
            data = q.get()
            if data is None:
                break
            try:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            except OSError:
                break
        self.close_connection = True
        self.connection.close()
        return None

    def do_GET(self):
        return self.do("GET", None)

    def do_POST(self):
        return self.do("POST", json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}"))

    def do(self, method, body):
        if deaf[0] > 0:
            deaf[0] -= 1
            time.sleep(3600)
        with open(f"{HOME}/fake-oc-log", "a") as f:
            f.write(json.dumps([method, self.path, body]) + "\n")
        want = "Basic " + base64.b64encode(f"opencode:{PASSWORD}".encode()).decode()
        if PASSWORD is None or self.headers["Authorization"] != want:
            return self.answer(401)
        path = self.path.partition("?")[0].strip("/").split("/")
        if path == ["global", "health"]:
            version = LOOK.get("version", "1.18.99")
            return self.answer(200, {"healthy": True, "version": version}) if version else self.answer(404, {"name": "NotFoundError", "data": {"message": "no"}})
        if path == ["event"]:
            return self.hear()
        if path[0] in ("permission", "question"):
            return self.decide(path, body)
        if path == ["session", "status"]:
            return self.answer(200, status)
        return self.session(method, path, body)

    def decide(self, path, body):
        kind = "per_" if path[0] == "permission" else "que_"
        if len(path) == 1:
            return self.answer(200, [q.request for i, q in waiting.items() if i.startswith(kind) and not q.qsize()])
        q = waiting.get(path[1])
        if not q:
            return self.answer(404, {"_tag": "PermissionNotFoundError", "message": "not found"})
        q.put(body)
        word = {"reply": body.get("reply")} if kind == "per_" else {"answers": body.get("answers")}
        tell(f"{path[0]}.{'rejected' if path[2] == 'reject' else 'replied'}", sessionID=q.request["sessionID"], requestID=path[1], **word)
        return self.answer(200, True)

    def session(self, method, path, body):
        if method == "POST" and len(path) == 1:
            id_ = new("ses")
            sessions[id_] = {"id": id_, "title": body.get("title"), "messages": []}
            return self.answer(200, {"id": id_})
        id_ = path[1]
        if id_ not in sessions and os.path.exists(f"{HOME}/fake-oc-{id_}.json"):
            with open(f"{HOME}/fake-oc-{id_}.json") as f:
                sessions[id_] = json.load(f)
        if id_ not in sessions:
            return self.answer(404, {"name": "NotFoundError", "data": {"message": f"Session not found: {id_}"}})
        if path[2:] == ["message"]:
            return self.answer(200, sessions[id_]["messages"][-40:])
        if path[2:] == ["abort"]:
            turn = sessions[id_].get("turn")
            if turn and id_ in status:
                turn.stop.set()
            else:
                tell("session.status", sessionID=id_, status={"type": "idle"})
                tell("session.idle", sessionID=id_)
            return self.answer(200, True)
        if path[2:] == ["prompt_async"]:
            if body["parts"][0]["text"].startswith("refuse"):
                return self.answer(400, {"name": "BadRequest", "data": {"message": "this is no prompt"}})
            turn = Turn(sessions[id_], body)
            sessions[id_] = Live(sessions[id_], turn)
            turn.session = sessions[id_]
            turn.start()
            return self.answer(204)
        return self.answer(200, {"id": id_})


class Live(dict):
    """A session with its turn, which is not stored."""

    def __init__(self, old, turn):
        super().__init__({k: v for k, v in old.items() if k != "turn"})
        self.turn = turn

    def get(self, key, default=None):
        return self.turn if key == "turn" else super().get(key, default)


def main():
    if sys.argv[1:2] != ["serve"]:
        sys.exit(64)
    if "exit" in LOOK:
        print("this version does not know serve", file=sys.stderr)
        sys.exit(LOOK["exit"])
    port = int(sys.argv[sys.argv.index("--port") + 1])
    assert sys.argv[sys.argv.index("--hostname") + 1] == "127.0.0.1"
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    print("Warning: this is a line of a log")
    print(f"opencode server listening on http://127.0.0.1:{port}", flush=True)
    server.serve_forever()


main()
