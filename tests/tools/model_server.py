#!/usr/bin/env python3
"""A scripted model server for tests: OpenAI chat completions and responses, Anthropic messages, Gemini.

    python3 tests/tools/model_server.py --port 0        prints the port it listens on (127.0.0.1)

Rule: when tools are offered and the last message is not a tool result, it calls the shell tool by the name found in the
request, with a scripted command that edits a file; otherwise it answers with text. Everything below an optional first
segment "/p/NAME" of the path works alike, so that one process plays several upstreams (NAME is the upstream's name).

Markers in the last user message choose what happens. "[[NAME@marker]]" concerns only the upstream NAME, and
POST /__behave {"upstream": NAME, "marker": "status:503"} sets a marker for every call to it ("" removes it).

    [[slow]] [[slow:N:SECONDS]]     N deltas (20) spread over SECONDS (2)
    [[echo:TEXT]]                   answers TEXT
    [[cmd:COMMAND]]                 the command given to the shell tool
    [[status:CODE]]                 answers CODE; further ":retry=S", ":retry-date=S", ":times=N" (only the first N calls)
    [[tool:NAME:BASE64]]            the tool NAME with these arguments (JSON in base64) instead of the shell
    [[stall]] [[stallmid]]          never answers; stops after two deltas
    [[cutbefore]] [[cut]]           closes without a byte; after two deltas
    [[html]] [[badjson]] [[notext]] 200 with a page of HTML, with broken JSON, with an answer that has no text
    [[big:N]] [[big:NMB]]           an answer of N bytes
    [[redirect]] [[redirect:URL]]   302 to /__redirected of this server, or to URL
    [[error-event]] [[error-event:TYPE]]   one delta, then an error inside the stream
    [[length]]                      cut at the token limit (finish_reason length, stop_reason max_tokens)
    [[nomodel]]                     404 "model not found"
    [[http1-garbage]]               bytes that are not HTTP
    [[plainjson]] [[parts]]         plain JSON although a stream was asked for; content as an array of parts
    [[key:WORD]]                    the call is counted under WORD (GET /__counts) and not listed

Control: GET /__calls[?upstream=NAME][&contains=TEXT]  what was asked: upstream, path, headers, body, prompt, times, outcome
         GET /__counts  {WORD: {"started": n, "finished": n, "last_arrived": t}} · POST /__reset · GET /__health
         (last_arrived: when the kernel had the last byte of the request, however late this program came to read it)
"""
import argparse
import asyncio
import base64
import email.utils
import json
import os
import re
import signal
import socket
import struct
import sys
import time
import urllib.parse

HELLO = "Hello from the scripted model. It has nothing more to say."
DONE = "Done: the file was edited as asked."
COMMAND = "echo edited-by-the-agent >> agent-was-here.txt"
SHELL_TOOLS = ("exec_command", "shell_command", "local_shell", "shell", "bash", "Bash", "run_shell_command")
MAX_CALLS = 50_000
MARKER = re.compile(r"\[\[(?:([A-Za-z0-9_-]+)@)?([a-z0-9-]+)(?::((?:[^\]]|\](?!\]))*))?\]\]")


TCP_INFO_LAST_DATA_RECV = 8 + 11 * 4  # struct tcp_info, tcpi_last_data_recv: milliseconds, to a tick of the kernel


def arrival(transport):
    """When the last bytes of a connection reached this machine's kernel: this process may be late to accept and read."""
    now = time.time()
    info = transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return now - struct.unpack_from("=I", info, TCP_INFO_LAST_DATA_RECV)[0] / 1000


class Call:
    """One request that was seen."""

    def __init__(self, number, upstream, method, path, headers, body):
        self.number, self.upstream, self.method, self.path, self.headers = number, upstream, method, path, headers
        self.started, self.ended, self.outcome = time.time(), None, "open"
        try:
            self.body = json.loads(body) if body else None
        except ValueError:
            self.body = None
        self.prompt, self.after_tool, self.tools = "", False, []
        if isinstance(self.body, dict):
            self.prompt, self.after_tool = last_user_text(self.body)
            self.tools = tool_names(self.body)
        self.markers = {m[1]: m[2] for m in MARKER.findall(self.prompt) if m[0] in ("", upstream)}

    def show(self):
        return {"number": self.number, "upstream": self.upstream, "method": self.method, "path": self.path,
                "headers": self.headers, "body": self.body, "prompt": self.prompt, "started": self.started,
                "ended": self.ended, "outcome": self.outcome}


def text_of(content):
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(p.get("text", "") for p in content if isinstance(p, dict) and isinstance(p.get("text"), str))
    return ""


def last_user_text(body):
    """The text of the last user message that has text, and whether the last item is the result of a tool."""
    items = body.get("messages")
    if items is None:
        items = body.get("input", gemini_items(body))
    if isinstance(items, str):
        return items, False
    if not isinstance(items, list) or not items:
        return "", False
    last = items[-1] if isinstance(items[-1], dict) else {}
    after = last.get("role") == "tool" or str(last.get("type", "")).endswith("_call_output")
    if isinstance(last.get("content"), list):
        after = after or any(isinstance(p, dict) and p.get("type") == "tool_result" for p in last["content"])
    said = [i.get("content") for i in items if isinstance(i, dict) and i.get("role") == "user"]
    texts = [t for t in map(text_of, said) if t]
    # Agents put their reminders into further user messages, and prompts that had no answer into one message with the
    # next: the last piece that carries a marker wins.
    pieces = [text_of([p]) for c in said for p in (c if isinstance(c, list) else [{"text": c}])]
    marked = [t for t in pieces if "[[" in t] if body.get("tools") else []
    return (marked or texts or [""])[-1], after


def gemini_items(body):
    """The contents of a request to Gemini as messages."""
    items = body.get("contents")
    return items and [{"role": "user" if c.get("role") == "user" else "assistant", "content": [
        {"type": "tool_result"} if "functionResponse" in p else p for p in c.get("parts") or []]} for c in items]


def tool_names(body):
    names = []
    for tool in body.get("tools") or []:
        if isinstance(tool, dict):
            names += [f.get("name", "") for f in tool.get("functionDeclarations") or []]
    for tool in body.get("tools") or []:
        if not isinstance(tool, dict):
            continue
        f = tool.get("function") if isinstance(tool.get("function"), dict) else tool
        names.append(f.get("name") or tool.get("type") or "")
        for inner in tool.get("tools") or []:  # Codex groups tools into name spaces
            if isinstance(inner, dict) and isinstance(inner.get("name"), str):
                names.append(inner["name"])
    return names


def shell_call(call):
    """(tool name, arguments) if this call has to be answered with a use of the shell tool."""
    if call.after_tool or "echo" in call.markers:
        return None
    wanted, _, arguments = (call.markers.get("tool") or "").partition(":")
    if wanted and wanted in call.tools:
        return wanted, json.loads(base64.b64decode(arguments))
    for name in SHELL_TOOLS:
        if name in call.tools:
            command = call.markers.get("cmd") or COMMAND
            if name == "exec_command":
                return name, {"cmd": command}
            if name in ("shell", "local_shell"):
                return name, {"command": ["bash", "-c", command]}
            return name, {"command": command, "description": "edits a file"}
    return None


class PeerGone(Exception):
    pass


class Connection(asyncio.Protocol):
    def __init__(self, server):
        self.server, self.data, self.transport = server, bytearray(), None
        self.arrived, self.task, self.call, self.gone = asyncio.Event(), None, None, False
        self.can_write, self.last_arrived = asyncio.Event(), 0.0
        self.can_write.set()

    def connection_made(self, transport):
        self.transport = transport
        self.server.connections.add(self)
        self.task = asyncio.get_running_loop().create_task(self.run())

    def data_received(self, data):
        self.data += data
        self.arrived.set()

    def pause_writing(self):
        self.can_write.clear()

    def resume_writing(self):
        self.can_write.set()

    def eof_received(self):
        self.gone = True
        self.finish_call("peer closed")
        return False

    def connection_lost(self, exc):
        self.gone = True
        self.server.connections.discard(self)
        self.finish_call("peer closed")
        self.can_write.set()
        self.task.cancel()

    def finish_call(self, outcome):
        if self.call is not None and self.call.outcome == "open":
            self.call.outcome, self.call.ended = outcome, time.time()

    async def more(self):
        self.arrived.clear()
        await self.arrived.wait()

    async def run(self):
        try:
            while await self.one_request():
                pass
        except (PeerGone, asyncio.CancelledError):
            pass
        except Exception as e:  # a bug of this tool must be seen by the tests
            print(f"model server: {type(e).__name__}: {e}", file=sys.stderr, flush=True)
            self.finish_call(f"tool error: {e}")
        finally:
            if self.transport:
                self.transport.close()

    async def one_request(self):
        while b"\r\n\r\n" not in self.data:
            await self.more()
        head, _, rest = bytes(self.data).partition(b"\r\n\r\n")
        self.data = bytearray(rest)
        lines = head.decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ", 2)
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        if headers.get("expect", "").lower() == "100-continue":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await self.read_body(headers)
        self.last_arrived = arrival(self.transport)
        await self.server.handle(self, method, target, headers, body)
        return headers.get("connection", "").lower() != "close" and not self.transport.is_closing()

    async def read_body(self, headers):
        if "chunked" in headers.get("transfer-encoding", "").lower():
            body = bytearray()
            while True:
                while b"\r\n" not in self.data:
                    await self.more()
                size, _, rest = bytes(self.data).partition(b"\r\n")
                n = int(size.split(b";")[0], 16)
                while len(rest) < n + 2:
                    await self.more()
                    rest = bytes(self.data).partition(b"\r\n")[2]
                body += rest[:n]
                self.data = bytearray(rest[n + 2:])
                if n == 0:
                    return bytes(body)
        n = int(headers.get("content-length", 0))
        while len(self.data) < n:
            await self.more()
        body = bytes(self.data[:n])
        del self.data[:n]
        return body

    async def write(self, data):
        if self.gone or self.transport.is_closing():
            raise PeerGone
        self.transport.write(data)
        await self.can_write.wait()
        if self.gone:
            raise PeerGone

    async def answer(self, status, body, content_type="application/json", extra=()):
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        head = [f"HTTP/1.1 {status} X", f"Content-Type: {content_type}", f"Content-Length: {len(body)}", *extra]
        await self.write("\r\n".join(head).encode() + b"\r\n\r\n" + body)

    async def start_stream(self):
        await self.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
                         b"Transfer-Encoding: chunked\r\n\r\n")

    async def event(self, data, name=None):
        text = data if isinstance(data, str) else json.dumps(data)
        line = (f"event: {name}\n" if name else "") + f"data: {text}\n\n"
        raw = line.encode()
        await self.write(b"%x\r\n%s\r\n" % (len(raw), raw))

    async def end_stream(self):
        await self.write(b"0\r\n\r\n")

    def cut(self):
        self.finish_call("cut")
        self.transport.abort()
        raise PeerGone


class Chat:
    """OpenAI chat completions."""
    error_body = staticmethod(lambda code, text: {"error": {"message": text, "type": "error", "code": code}})

    def __init__(self, conn, call):
        self.conn, self.model = conn, (call.body or {}).get("model", "?")
        self.id = f"chatcmpl-{call.number}"

    def chunk(self, delta, finish=None):
        return {"id": self.id, "object": "chat.completion.chunk", "created": int(time.time()), "model": self.model,
                "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    async def begin(self):
        await self.conn.start_stream()
        await self.conn.event(self.chunk({"role": "assistant", "content": ""}))

    async def delta(self, text):
        await self.conn.event(self.chunk({"content": text}))

    async def end(self, length=False, reason=None):
        await self.conn.event(self.chunk({}, reason or ("length" if length else "stop")))
        await self.conn.event({"id": self.id, "object": "chat.completion.chunk", "created": int(time.time()),
                               "model": self.model, "choices": [], "usage": self.usage()})
        await self.conn.event("[DONE]")
        await self.conn.end_stream()

    @staticmethod
    def usage():
        return {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}

    async def tool(self, name, arguments):
        text = json.dumps(arguments)
        half = len(text) // 2
        await self.begin()
        await self.delta("I will edit the file. ")
        first = {"index": 0, "id": f"call_{self.id}", "type": "function", "function": {"name": name, "arguments": ""}}
        await self.conn.event(self.chunk({"tool_calls": [first]}))
        for piece in (text[:half], text[half:]):
            await self.conn.event(self.chunk({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}))
        await self.end(reason="tool_calls")

    async def error_event(self, kind):
        await self.conn.event({"error": {"message": "the scripted model failed", "type": kind or "server_error"}})
        await self.conn.end_stream()

    def plain(self, text, length=False, parts=False):
        content = [{"type": "text", "text": text[:5]}, {"type": "text", "text": text[5:]}] if parts else text
        return {"id": self.id, "object": "chat.completion", "created": int(time.time()), "model": self.model,
                "usage": self.usage(), "choices": [{"index": 0, "finish_reason": "length" if length else "stop",
                                                    "message": {"role": "assistant", "content": content}}]}

    def plain_notext(self):
        return {"id": self.id, "object": "chat.completion", "choices": []}


class Messages:
    """Anthropic messages."""
    error_body = staticmethod(lambda code, text: {"type": "error", "error": {"type": code, "message": text}})

    def __init__(self, conn, call):
        self.conn, self.model = conn, (call.body or {}).get("model", "?")
        self.id, self.block = f"msg_{call.number}", -1

    async def send(self, data):
        await self.conn.event(data, data["type"])

    async def begin(self, text=True):
        await self.conn.start_stream()
        await self.send({"type": "message_start", "message": {
            "id": self.id, "type": "message", "role": "assistant", "model": self.model, "content": [],
            "stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 11, "output_tokens": 1}}})
        await self.open_block({"type": "text", "text": ""})

    async def open_block(self, block):
        self.block += 1
        await self.send({"type": "content_block_start", "index": self.block, "content_block": block})

    async def close_block(self):
        await self.send({"type": "content_block_stop", "index": self.block})

    async def delta(self, text):
        await self.send({"type": "content_block_delta", "index": self.block,
                         "delta": {"type": "text_delta", "text": text}})

    async def end(self, length=False, reason=None):
        await self.close_block()
        await self.send({"type": "message_delta", "usage": {"output_tokens": 7}, "delta": {
            "stop_reason": reason or ("max_tokens" if length else "end_turn"), "stop_sequence": None}})
        await self.send({"type": "message_stop"})
        await self.conn.end_stream()

    async def tool(self, name, arguments):
        text = json.dumps(arguments)
        half = len(text) // 2
        await self.begin()
        await self.delta("I will edit the file. ")
        await self.close_block()
        await self.open_block({"type": "tool_use", "id": f"toolu_{self.id}", "name": name, "input": {}})
        for piece in (text[:half], text[half:]):
            await self.send({"type": "content_block_delta", "index": self.block,
                             "delta": {"type": "input_json_delta", "partial_json": piece}})
        await self.end(reason="tool_use")

    async def error_event(self, kind):
        await self.send({"type": "error", "error": {"type": kind or "overloaded_error", "message": "scripted"}})
        await self.conn.end_stream()

    def plain(self, text, length=False, parts=False):
        return {"id": self.id, "type": "message", "role": "assistant", "model": self.model,
                "content": [{"type": "text", "text": text[:5]}, {"type": "text", "text": text[5:]}],
                "stop_reason": "max_tokens" if length else "end_turn", "stop_sequence": None,
                "usage": {"input_tokens": 11, "output_tokens": 7}}

    def plain_notext(self):
        return {"id": self.id, "type": "message", "role": "assistant", "content": [], "stop_reason": "end_turn"}


class Gemini:
    """Gemini's generateContent, streamed or not."""
    error_body = staticmethod(lambda code, text: {"error": {"code": 500, "status": str(code).upper(), "message": text}})

    def __init__(self, conn, call):
        self.conn, self.number = conn, call.number
        self.json = "responseJsonSchema" in json.dumps(call.body.get("generationConfig") or {})

    def chunk(self, part, finish=None):
        candidate = {"index": 0, "content": {"role": "model", "parts": [part]}}
        if finish:
            candidate["finishReason"] = finish
        return {"candidates": [candidate], "responseId": f"gemini-{self.number}", "modelVersion": "fake-model",
                "usageMetadata": {"promptTokenCount": 11, "candidatesTokenCount": 7, "totalTokenCount": 18}}

    async def begin(self):
        await self.conn.start_stream()

    async def delta(self, text):
        await self.conn.event(self.chunk({"text": text}))

    async def end(self, length=False, reason=None):
        await self.conn.event(self.chunk({"text": ""}, "MAX_TOKENS" if length else "STOP"))
        await self.conn.end_stream()

    async def tool(self, name, arguments):
        await self.begin()
        await self.delta("I will edit the file. ")
        await self.conn.event(self.chunk({"functionCall": {"name": name, "args": arguments}}, "STOP"))
        await self.conn.end_stream()

    async def error_event(self, kind):
        await self.conn.event(self.error_body(kind or "internal", "the scripted model failed"))
        await self.conn.end_stream()

    def plain(self, text, length=False, parts=False):
        if self.json:  # its questions about how to go on
            text = json.dumps({"reasoning": "scripted", "next_speaker": "user", "model_choice": "flash"})
        return self.chunk({"text": text}, "MAX_TOKENS" if length else "STOP")

    def plain_notext(self):
        return {"candidates": []}


class Responses:
    """OpenAI responses, as Codex speaks them."""
    error_body = Chat.error_body

    def __init__(self, conn, call):
        self.conn, self.model = conn, (call.body or {}).get("model", "?")
        self.id, self.text, self.number = f"resp_{call.number}", "", call.number

    async def send(self, data):
        await self.conn.event(data, data["type"])

    def response(self, status, output=()):
        return {"id": self.id, "object": "response", "created_at": int(time.time()), "status": status,
                "model": self.model, "output": list(output),
                "usage": {"input_tokens": 11, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 7,
                          "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 18}}

    def message(self, status):
        content = [{"type": "output_text", "text": self.text, "annotations": []}] if status == "completed" else []
        return {"type": "message", "id": f"msg_{self.number}", "role": "assistant", "status": status,
                "content": content}

    async def begin(self):
        await self.conn.start_stream()
        await self.send({"type": "response.created", "response": self.response("in_progress")})
        await self.send({"type": "response.output_item.added", "output_index": 0, "item": self.message("in_progress")})

    async def delta(self, text):
        self.text += text
        await self.send({"type": "response.output_text.delta", "item_id": f"msg_{self.number}", "output_index": 0,
                         "content_index": 0, "delta": text})

    async def end(self, length=False, reason=None):
        item = self.message("completed")
        await self.send({"type": "response.output_item.done", "output_index": 0, "item": item})
        await self.send({"type": "response.completed", "response": self.response("completed", [item])})
        await self.conn.end_stream()

    async def tool(self, name, arguments):
        text = json.dumps(arguments)
        half = len(text) // 2
        item = {"type": "function_call", "id": f"fc_{self.number}", "call_id": f"call_{self.number}", "name": name,
                "arguments": "", "status": "in_progress"}
        await self.begin()
        await self.delta("I will edit the file.")
        words = self.message("completed")
        await self.send({"type": "response.output_item.done", "output_index": 0, "item": words})
        await self.send({"type": "response.output_item.added", "output_index": 1, "item": item})
        for piece in (text[:half], text[half:]):
            await self.send({"type": "response.function_call_arguments.delta", "item_id": item["id"],
                             "output_index": 1, "delta": piece})
        done = dict(item, arguments=text, status="completed")
        await self.send({"type": "response.output_item.done", "output_index": 1, "item": done})
        await self.send({"type": "response.completed", "response": self.response("completed", [words, done])})
        await self.conn.end_stream()

    async def error_event(self, kind):
        failed = dict(self.response("failed"), error={"code": kind or "server_error", "message": "scripted"})
        await self.send({"type": "response.failed", "response": failed})
        await self.conn.end_stream()

    def plain(self, text, length=False, parts=False):
        self.text = text
        return self.response("completed", [self.message("completed")])

    def plain_notext(self):
        return self.response("completed")


def size_of(text):
    m = re.fullmatch(r"(\d+)(KB|MB)?", text or "10MB")
    return int(m[1]) * {None: 1, "KB": 1000, "MB": 1_000_000}[m[2]]


def pieces_of(text, n):
    """`text` in n pieces, none empty as long as there are n characters."""
    n = max(1, min(n, len(text) or 1))
    cuts = [len(text) * i // n for i in range(n + 1)]
    return [text[a:b] for a, b in zip(cuts, cuts[1:])]


class ModelServer:
    def __init__(self):
        self.calls, self.connections, self.behave, self.uses, self.number = [], set(), {}, {}, 0
        self.counts, self.port = {}, 0

    async def listen(self, port):
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Connection(self), "127.0.0.1", port, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def handle(self, conn, method, target, headers, body):
        url = urllib.parse.urlsplit(target)
        path, upstream = url.path, ""
        if path.startswith("/__"):
            return await self.control(conn, method, path, urllib.parse.parse_qs(url.query), body)
        m = re.match(r"/p/([^/]+)(/.*)", path)
        if m:
            upstream, path = m[1], m[2]
        self.number += 1
        call = Call(self.number, upstream, method, target, headers, body)
        extra = self.behave.get(upstream)
        if extra:
            call.markers.update({m[1]: m[2] for m in MARKER.findall(f"[[{extra}]]")})
        key = call.markers.get("key")
        if not key and len(self.calls) < MAX_CALLS:
            self.calls.append(call)
        if key:
            count = self.counts.setdefault(key, {"started": 0, "finished": 0})
            count["started"] += 1
            count["last_arrived"] = max(count.get("last_arrived", 0.0), conn.last_arrived)
        conn.call = call
        await self.route(conn, call, path)
        conn.finish_call("answered")
        conn.call = None
        if key:
            self.counts[key]["finished"] += 1

    async def control(self, conn, method, path, query, body):
        if path == "/__calls":
            upstream, contains = query.get("upstream", [None])[0], query.get("contains", [""])[0]
            return await conn.answer(200, [c.show() for c in self.calls if contains in c.prompt and
                                           (upstream is None or c.upstream == upstream)])
        if path == "/__counts":
            return await conn.answer(200, self.counts)
        if path == "/__behave" and method == "POST":
            asked = json.loads(body)
            self.behave[asked["upstream"]] = asked["marker"]
            return await conn.answer(200, {})
        if path == "/__reset" and method == "POST":
            self.calls, self.uses, self.behave, self.counts = [], {}, {}, {}
            return await conn.answer(200, {})
        if path == "/__health":
            return await conn.answer(200, {"ok": True, "connections": len(self.connections)})
        if path == "/__redirected":
            self.number += 1
            self.calls.append(Call(self.number, "redirected", method, path, {}, body))
            return await conn.answer(200, {"choices": [{"message": {"content": "redirected"}}]})
        await conn.answer(404, {"error": "no such control"})

    async def route(self, conn, call, path):
        if call.method in ("HEAD", "GET") and path == "/":
            return await conn.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        if call.method == "GET" and path.endswith("/models"):
            return await conn.answer(200, {"object": "list", "data": [{"id": "fake-model", "object": "model"}]})
        if call.method == "POST" and path.endswith("/count_tokens"):
            return await conn.answer(200, {"input_tokens": 11})
        if call.method == "POST" and path.endswith(":countTokens"):
            return await conn.answer(200, {"totalTokens": 11})
        if call.method == "POST" and path.endswith((":generateContent", ":streamGenerateContent")):
            call.body["stream"] = path.endswith(":streamGenerateContent")
            return await self.complete(conn, call, Gemini(conn, call))
        for end, dialect in (("/chat/completions", Chat), ("/responses", Responses), ("/messages", Messages)):
            if call.method == "POST" and path.endswith(end):
                if not isinstance(call.body, dict):
                    return await conn.answer(400, dialect.error_body("bad_request", "the body is no JSON object"))
                return await self.complete(conn, call, dialect(conn, call))
        await conn.answer(404, {"error": {"message": f"no such path: {call.path}"}})

    async def complete(self, conn, call, dialect):
        if await self.refuse(conn, call, dialect):
            return
        tool = shell_call(call)
        if tool:
            return await dialect.tool(*tool)
        text = call.markers.get("echo") or (DONE if call.after_tool else HELLO)
        if "big" in call.markers:
            text = "0123456789abcde\n" * (size_of(call.markers["big"]) // 16 + 1)
            text = text[:size_of(call.markers["big"])]
        length = "length" in call.markers
        if not call.body.get("stream") or "plainjson" in call.markers or "parts" in call.markers:
            answer = dialect.plain_notext() if "notext" in call.markers else \
                dialect.plain(text, length, "parts" in call.markers)
            return await conn.answer(200, answer)
        await self.stream(conn, call, dialect, text, length)

    async def refuse(self, conn, call, dialect):
        """The markers that leave no ordinary answer; true if one of them was there."""
        marks = call.markers
        if "status" in marks:
            code, *options = marks["status"].split(":")
            options = dict(o.partition("=")[::2] for o in options)
            use = (call.upstream, call.prompt)
            self.uses[use] = self.uses.get(use, 0) + 1
            if "times" not in options or self.uses[use] <= int(options["times"]):
                extra = [f"Retry-After: {options['retry']}"] if "retry" in options else []
                if "retry-date" in options:
                    when = email.utils.formatdate(time.time() + int(options["retry-date"]), usegmt=True)
                    extra.append(f"Retry-After: {when}")
                await conn.answer(int(code), dialect.error_body(f"scripted_{code}", f"scripted status {code}"),
                                  extra=extra)
                return True
        if "stall" in marks:
            await asyncio.sleep(3600)
        if "cutbefore" in marks:
            conn.cut()
        if "http1-garbage" in marks:
            await conn.write(b"\x16\x03\x01\x02this is not HTTP at all\n\n\x00\xff\xfe\r\n\r\n")
            conn.transport.close()
            return True
        if "html" in marks:
            await conn.answer(200, b"<!doctype html><html><body><h1>Welcome to the proxy</h1></body></html>",
                              "text/html; charset=utf-8")
            return True
        if "redirect" in marks:
            where = marks["redirect"] or f"http://127.0.0.1:{self.port}/__redirected"
            await conn.answer(302, b"", "text/plain", [f"Location: {where}"])
            return True
        if "nomodel" in marks:
            await conn.answer(404, dialect.error_body("model_not_found", "The model does not exist: model not found"))
            return True
        if "badjson" in marks and not call.body.get("stream"):
            await conn.answer(200, b'{"choices":[{"message":{"content":"oh')
            return True
        return False

    async def stream(self, conn, call, dialect, text, length):
        marks = call.markers
        if "badjson" in marks:
            await conn.start_stream()
            await conn.event('{"choices":[{"delta":{"content":"oh')
            return await conn.end_stream()
        await dialect.begin()
        if "notext" in marks:
            return await dialect.end(length)
        n, seconds = 4, 0.0
        if "slow" in marks:
            options = [o for o in marks["slow"].split(":") if o]
            n = int(options[0]) if options else 20
            seconds = float(options[1]) if len(options) > 1 else 2.0
            text = text + " " + " ".join(f"word{i}" for i in range(n))
        if "big" in marks:
            n = len(text) // 8192 + 1
        for i, piece in enumerate(pieces_of(text, n)):
            if seconds:
                await asyncio.sleep(seconds / n)
            await dialect.delta(piece)
            if i == 1 and "cut" in marks:
                await asyncio.sleep(0.05)
                conn.cut()
            if i == 1 and "stallmid" in marks:
                await asyncio.sleep(3600)
            if i == 0 and "error-event" in marks:
                return await dialect.error_event(marks["error-event"])
        await dialect.end(length)


async def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--until-eof", action="store_true", help="ends when stdin is closed, with whoever started it")
    args = parser.parse_args()
    model = ModelServer()
    server = await model.listen(args.port)
    print(model.port, flush=True)
    stop = asyncio.Event()
    for sig in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sig, stop.set)
    if args.until_eof:
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), lambda: os.read(0, 4096) or stop.set())
    await stop.wait()
    server.close()
    for conn in list(model.connections):
        conn.transport.abort()


if __name__ == "__main__":
    asyncio.run(main())
