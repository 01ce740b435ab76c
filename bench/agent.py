#!/usr/bin/python3
"""The agent of script/bench --only live: asks as often as its prompt says, and says in microseconds how long each answer
took, from the request's last byte to the answer's."""
import json
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


for line in sys.stdin:
    m = json.loads(line)
    if m.get("method") == "initialize":
        say({"id": m["id"], "result": {"protocolVersion": 1, "agentCapabilities": {}}})
    elif m.get("method") == "session/new":
        say({"id": m["id"], "result": {"sessionId": "conv-1"}})
    elif m.get("method") == "session/prompt":
        took = [ask(i) for i in range(int("".join(p["text"] for p in m["params"]["prompt"])))]
        say({"method": "session/update", "params": {"sessionId": "conv-1", "update": {
            "sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": f"<took {json.dumps(took)}>"}}}})
        say({"id": m["id"], "result": {"stopReason": "end_turn"}})
    elif "method" in m and "id" in m:
        say({"id": m["id"], "error": {"code": -32601, "message": "no"}})
