"""An echo server that keeps the rules, but for those that it is told to break: shows that the judge sees each of them."""
import base64
import contextlib
import hashlib
import socket
import threading

import ends
import frames


class Refused(Exception):
    """What the server closes the connection for."""

    def __init__(self, code):
        super().__init__(code)
        self.code = code


class Server:
    def __init__(self, *faults):
        self.faults = faults
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self):
        self.listener.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                sock = self.listener.accept()[0]
                with sock, contextlib.suppress(OSError, ends.Handshake):
                    Connection(sock, self.faults).serve()


class Connection:
    def __init__(self, sock, faults):
        self.sock, self.faults = sock, faults
        self.parts, self.opcode = None, None
        sock.settimeout(10)
        _, headers, self.data = ends.head_of(sock)
        key = hashlib.sha1(headers["sec-websocket-key"] + ends.GUID).digest()
        sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     b"Sec-WebSocket-Accept: %s\r\n\r\n" % base64.b64encode(key))

    def has(self, fault):
        return fault in self.faults

    def say(self, opcode, payload=b"", **options):
        self.sock.sendall(frames.encode(opcode, payload, mask=self.has("masks"), **options))

    def serve(self):
        code, reply = 1000, b""
        try:
            while (reply := self.answer(*self.frame())) is None:
                pass
        except Refused as e:
            code = 1011 if self.has("wrong code") else e.code
            reply = frames.close_payload(code)
        if not self.has("drops"):
            self.say(frames.CLOSE, reply)
        if self.has("talks on"):
            self.say(frames.PONG)
        if self.has("stays"):
            self.sock.settimeout(30)
        else:
            self.sock.shutdown(socket.SHUT_WR)
        while self.sock.recv(65536):
            pass

    def take(self, length):
        while len(self.data) < length:
            piece = self.sock.recv(65536)
            if not piece:
                raise OSError("gone")
            self.data += piece
        out, self.data = self.data[:length], self.data[length:]
        return out

    def frame(self):
        head = self.take(2)
        length = head[1] & 0x7f
        if length > 125:
            length = int.from_bytes(self.take(2 if length == 126 else 8), "big")
        opcode, fin = head[0] & 0x0f, bool(head[0] & 0x80)
        if head[0] & 0x70 and not self.has("reserved bits"):
            raise Refused(1002)
        if opcode not in (0, 1, 2, 8, 9, 10) and not self.has("opcodes"):
            raise Refused(1002)
        if opcode > 7 and (not fin or length > 125) and not self.has("control frames"):
            raise Refused(1002)
        key = self.take(4)
        return opcode, fin, frames.masked(self.take(length), key)

    def answer(self, opcode, fin, payload):
        """The payload of a close frame, to end with."""
        if opcode == frames.CLOSE:
            return self.close_reply(payload)
        if opcode == frames.PING and not self.has("no pongs"):
            self.say(frames.PONG, payload[:-1] if self.has("cuts") else payload)
        if opcode in (frames.CONTINUATION, frames.TEXT, frames.BINARY):
            self.message(opcode, fin, payload)
        return None

    def close_reply(self, payload):
        code = int.from_bytes(payload[:2], "big")
        good = not payload or 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999
        if (len(payload) == 1 or not good) and not self.has("close codes"):
            raise Refused(1002)
        self.utf8(payload[2:])
        return payload[:2]

    def message(self, opcode, fin, payload):
        if (opcode == frames.CONTINUATION) == (self.parts is None):
            if not self.has("fragments"):
                raise Refused(1002)
            self.parts = None
        if self.parts is None:
            self.parts, self.opcode = b"", opcode or frames.TEXT
        self.parts += payload
        if self.opcode == frames.TEXT and not self.has("late"):
            self.utf8(self.parts, fin)
        if not fin:
            return
        whole, self.parts = self.parts, None
        if self.opcode == frames.TEXT:
            self.utf8(whole)
        if self.has("cuts"):
            whole = whole[:-1]
        opcode = frames.BINARY if self.has("binary") else self.opcode
        if not self.has("no echo"):
            self.say(opcode, whole)

    def utf8(self, payload, whole=True):
        try:
            payload.decode()
        except UnicodeDecodeError as e:
            unfinished = e.reason == "unexpected end of data" and not whole
            if not unfinished and not self.has("utf-8"):
                raise Refused(1007) from None
