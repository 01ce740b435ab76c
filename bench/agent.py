#!/usr/bin/python3
"""The agent of script/bench --only live. A number as its prompt: it asks as often, and says in microseconds how long each answer
took, from the request's last byte to the answer's. `change N`: it adds a line to each of N files of its repository."""
import json
import pathlib
import sys
import time


def say(message):
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def ask(number):
    began = time.monotonic_ns()
    say({"id": number, "method": "session/request_permission", "params": {
        "sessionId": "conv-1", "options": [{"optionId": "yes", "name": "yes", "kind": "allow_once"},
                                           {"optionId": "no", "name": "no", "kind": "reject_once"}],
        "toolCall": {"toolCallId": f"t{number}", "title": "a tool", "kind": "execute",
                     "rawInput": {"command": f"make number-{number}"}}}})
    while (answer := json.loads(sys.stdin.readline())).get("id") != number or "method" in answer:
        pass
    assert answer["result"]["outcome"]["optionId"] == "yes", answer
    return (time.monotonic_ns() - began) // 1000


def change(number):
    files = sorted(p for p in pathlib.Path().glob("d*/*") if p.is_file())
    for path in files[::len(files) // number][:number]:
        with path.open("a") as f:
            f.write("one more line\n")


for line in sys.stdin:
    m = json.loads(line)
    if m.get("method") == "initialize":
        say({"id": m["id"], "result": {"protocolVersion": 1, "agentCapabilities": {}}})
    elif m.get("method") == "session/new":
        say({"id": m["id"], "result": {"sessionId": "conv-1"}})
    elif m.get("method") == "session/prompt":
        words = "".join(p["text"] for p in m["params"]["prompt"]).split()
        if words[0] == "change":
            change(int(words[1]))
        took = [ask(i) for i in range(int(words[0]))] if words[0] != "change" else []
        say({"method": "session/update", "params": {"sessionId": "conv-1", "update": {
            "sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": f"<took {json.dumps(took)}>"}}}})
        say({"id": m["id"], "result": {"stopReason": "end_turn"}})
    elif "method" in m and "id" in m:
        say({"id": m["id"], "error": {"code": -32601, "message": "no"}})
