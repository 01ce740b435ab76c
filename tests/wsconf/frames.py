"""WebSocket frames in raw bytes, right or wrong: written as a case wants them, read with every rule of RFC 6455 checked."""
import os

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def masked(data, key):
    """XOR with the key repeated; the same again undoes it."""
    if not data:
        return b""
    stream = key * (len(data) // 4 + 1)
    number = int.from_bytes(data, "little") ^ int.from_bytes(stream[:len(data)], "little")
    return number.to_bytes(len(data), "little")


def encode(opcode, payload=b"", fin=True, rsv=0, mask=True):
    """One frame, its length in the shortest form. Nothing is checked: cases send what must not be sent."""
    bit = 0x80 if mask else 0
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    if len(payload) < 126:
        head += bytes([bit | len(payload)])
    elif len(payload) < 1 << 16:
        head += bytes([bit | 126]) + len(payload).to_bytes(2, "big")
    else:
        head += bytes([bit | 127]) + len(payload).to_bytes(8, "big")
    if not mask:
        return head + payload
    key = os.urandom(4)
    return head + key + masked(payload, key)


def close_payload(code=None, reason=b""):
    return b"" if code is None else code.to_bytes(2, "big") + reason


class Broken(Exception):
    """The peer sent what no peer may send."""


class Reader:
    """Takes bytes and gives events: ("message", payload, binary), ("ping", …), ("pong", …), ("close", code or None, reason)."""

    def __init__(self, from_client):
        self.from_client = from_client
        self.data = bytearray()
        self.parts, self.opcode = None, None
        self.closed = False

    def feed(self, data):
        self.data += data
        while (frame := self._frame()) is not None:
            event = self._event(*frame)
            if event:
                yield event

    def _frame(self):
        """(fin, opcode, payload) of the next whole frame, taken off the data."""
        data = self.data
        if len(data) < 2:
            return None
        at, length = 2, data[1] & 0x7f
        if length > 125:
            size = 2 if length == 126 else 8
            if len(data) < 2 + size:
                return None
            at, length = 2 + size, int.from_bytes(data[2:2 + size], "big")
            if length < (126 if size == 2 else 1 << 16):
                raise Broken("a length that is not in its shortest form")
        if data[0] & 0x70:
            raise Broken("a reserved bit is set")
        if bool(data[1] & 0x80) != self.from_client:
            raise Broken("a client does not mask" if self.from_client else "a server masks")
        key = bytes(data[at:at + 4]) if self.from_client else b""
        at += 4 if self.from_client else 0
        if len(data) < at + length:
            return None
        payload = bytes(memoryview(data)[at:at + length])
        fin, opcode = bool(data[0] & 0x80), data[0] & 0x0f
        del data[:at + length]
        return fin, opcode, masked(payload, key) if key else payload

    def _event(self, fin, opcode, payload):
        if self.closed:
            raise Broken("a frame behind the close frame")
        if opcode >= 8:
            if not fin or len(payload) > 125:
                raise Broken("a control frame in parts or too long")
            return self._control(opcode, payload)
        if (opcode == CONTINUATION) == (self.parts is None) or opcode > BINARY:
            raise Broken(f"opcode {opcode} in the wrong place")
        if opcode != CONTINUATION:
            self.parts, self.opcode = [], opcode
        self.parts.append(payload)
        if not fin:
            return None
        whole, self.parts = b"".join(self.parts), None
        if self.opcode == TEXT:
            text(whole)
        return "message", whole, self.opcode == BINARY

    def _control(self, opcode, payload):
        if opcode in (PING, PONG):
            return "ping" if opcode == PING else "pong", payload
        if opcode != CLOSE:
            raise Broken(f"opcode {opcode}")
        self.closed = True
        if not payload:
            return "close", None, b""
        code = int.from_bytes(payload[:2], "big")
        if len(payload) == 1 or not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
            raise Broken(f"a close frame with {payload[:2].hex()}")
        text(payload[2:])
        return "close", code, payload[2:]


def text(payload):
    try:
        payload.decode()
    except UnicodeDecodeError:
        raise Broken("text that is not UTF-8") from None
