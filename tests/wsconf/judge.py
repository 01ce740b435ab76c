"""Plays a case against an open connection and says what came of it."""
import collections
import functools
import select
import socket
import ssl
import time

import frames
from cases import Fill, Frame, Message, Pause, Pieces, Rounds

OK, NON_STRICT, INFORMATIONAL, FAILED = "OK", "NON-STRICT", "INFORMATIONAL", "FAILED"
CLOSE_WITHIN = 5  # seconds, of the other side's close frame
APART = 0.0005    # between pieces that should arrive apart, where there are few

# code: of the peer's close frame; None: it had none, or there was no close frame (dropped).
Verdict = collections.namedtuple("Verdict", "grade why code dropped")


def plain(payload):
    return payload.bytes() if isinstance(payload, Fill) else payload


def plainly(events):
    return [(e[0], plain(e[1]), *e[2:]) for e in events]


def short(events):
    def part(value):
        return value if not isinstance(value, bytes) or len(value) < 40 else f"{len(value)} bytes, {value[:20]!r}…"
    return [tuple(part(v) for v in e) for e in events]


class Talk:
    """A connection whose handshake is done, and everything that was seen on it."""

    def __init__(self, sock, client, early=b""):
        self.sock, self.client = sock, client
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reader = frames.Reader(from_client=not client)
        self.events = []
        self.closed_by = None         # who was first, "us" or "peer"
        self.we_closed = self.ended = self.deaf = self.shut = False
        self.close_frame = None       # (code, reason) of the peer's
        self.broken = None
        self._take(early)

    @property
    def over(self):
        """The peer has said its last word."""
        return self.ended or self.close_frame is not None or self.broken is not None

    # --- reading ---

    def _take(self, data):
        try:
            for event in self.reader.feed(data):
                if event[0] == "close":
                    self.close_frame = event[1:]
                    self.closed_by = self.closed_by or "peer"
                else:
                    self.events.append(event)
        except frames.Broken as e:
            self.broken = self.broken or str(e)

    def read(self, until, seconds):
        """Reads until it is so, the peer ends its side, or the time is over."""
        deadline = time.monotonic() + seconds
        while not until() and not self.ended and not self.broken:
            left = deadline - time.monotonic()
            if left <= 0 or not (self._decrypted() or select.select([self.sock], [], [], left)[0]):
                return
            try:
                data = self.sock.recv(1 << 20)
            except ConnectionError:
                data = b""
            except ssl.SSLError as e:
                self.broken = f"TLS: {e}"
                return
            if data:
                self._take(data)
            else:
                self.ended = True
                self.closed_by = self.closed_by or "peer"

    def _decrypted(self):
        return isinstance(self.sock, ssl.SSLSocket) and self.sock.pending()

    # --- writing ---

    def write(self, data, chop=0, apart=0.0):
        """A peer that has closed already is no error: what it said is still to be read."""
        for at in range(0, len(data), chop or len(data)):
            if self.deaf:
                return
            if at and apart:
                time.sleep(apart)
            try:
                self.sock.sendall(memoryview(data)[at:at + (chop or len(data))])
            except (ConnectionError, ssl.SSLError):
                self.deaf = True

    def frame(self, opcode, payload=b"", **options):
        return frames.encode(opcode, payload, mask=self.client, **options)

    def close(self, code):
        self.closed_by = self.closed_by or "us"
        self.we_closed = True
        self.write(self.frame(frames.CLOSE, frames.close_payload(code)))

    def shut_down(self):
        if self.shut or self.broken:
            return
        self.shut = True
        try:
            if isinstance(self.sock, ssl.SSLSocket) and not self.ended:
                self.sock = self.sock.unwrap()  # waits for the peer's close_notify
            self.sock.shutdown(socket.SHUT_WR)
        except ssl.SSLError as e:
            self.broken = f"TLS: {e}"
        except OSError:
            self.deaf = True

    # --- the steps of cases ---

    @functools.singledispatchmethod
    def do(self, step, seconds):
        raise TypeError(step)

    @do.register
    def _frame(self, step: Frame, seconds):
        if step.alone:
            time.sleep(APART)
        if step.closes:
            self.closed_by = self.closed_by or "us"
            self.we_closed = True
        data = self.frame(step.opcode, plain(step.payload), fin=step.fin, rsv=step.rsv)
        self.write(data, step.chop, APART if len(data) < 1000 else 0)

    @do.register
    def _message(self, step: Message, seconds):
        body, out = plain(step.payload), []
        for at in range(0, len(body), step.fragment):
            out.append(self.frame(step.opcode if at == 0 else frames.CONTINUATION, body[at:at + step.fragment],
                                  fin=at + step.fragment >= len(body)))
        self.write(b"".join(out))

    @do.register
    def _pieces(self, step: Pieces, seconds):
        body = b"".join(step.parts)
        data, at = self.frame(frames.TEXT, body), 0
        head = len(data) - len(body)
        for i, part in enumerate(step.parts):
            self.write(data[at:head + at + len(part)] if i == 0 else data[head + at:head + at + len(part)])
            at += len(part)
            if i < len(step.pauses):
                self.do(step.pauses[i], seconds)
                if self.over:
                    return

    @do.register
    def _pause(self, step: Pause, seconds):
        self.read(lambda: self.over, step.seconds)
        if step.name and not self.over:
            self.events.append(("quiet", step.name))

    @do.register
    def _rounds(self, step: Rounds, seconds):
        body = plain(step.payload)
        for _ in range(step.count):
            self.write(self.frame(step.opcode, body))
            self.read(lambda: self.events or self.over, seconds)
            if self.over or self.events != [("message", body, step.opcode == frames.BINARY)]:
                return
            self.events.clear()


def play(case, talk):
    for step in case.send:
        if talk.over or talk.deaf:
            break
        talk.do(step, case.seconds)
    expected = plainly(case.ok)
    if case.closes == "us":
        talk.read(lambda: talk.over or len(talk.events) >= len(expected), case.seconds)
        if not talk.over and talk.events == expected:
            talk.close(case.codes[0])
    talk.read(lambda: talk.close_frame is not None, max(CLOSE_WITHIN, case.seconds if case.closes == "sent" else 0))
    left_to_us = finish(talk)
    return judge(case, talk, expected, left_to_us)


def finish(talk):
    """Our part of the end. Of two sides that have both said close the server ends the connection. Returns whether we,
    the client, had to."""
    if talk.close_frame and not talk.we_closed:
        talk.write(talk.frame(frames.CLOSE, frames.close_payload(talk.close_frame[0])))
    if not talk.client:
        talk.shut_down()
    talk.read(lambda: False, CLOSE_WITHIN)
    if talk.client and talk.close_frame and not talk.ended:
        talk.shut_down()
        talk.read(lambda: False, CLOSE_WITHIN)
        return True
    return False


def judge(case, talk, expected, left_to_us):
    code = talk.close_frame[0] if talk.close_frame else None
    dropped = talk.close_frame is None

    def verdict(grade, why=""):
        return Verdict(grade, why, code, dropped)

    if talk.broken:
        return verdict(FAILED, f"it broke the protocol: {talk.broken}")
    if not talk.ended:
        return verdict(FAILED, "it did not end the connection")
    if case.undefined:
        return verdict(INFORMATIONAL, f"{short(talk.events)}, then {'dropped' if dropped else code}")
    if talk.closed_by != ("peer" if case.closes == "peer" else "us"):
        return verdict(FAILED, f"{talk.closed_by or 'nobody'} closed, after {short(talk.events)}")
    if dropped and case.clean:
        return verdict(FAILED, "it dropped the connection without a close frame")
    if code is not None and code not in case.codes:
        return verdict(FAILED, f"its close frame says {code}, not {' or '.join(map(str, case.codes))}")
    if talk.events == expected:
        return verdict(NON_STRICT, "it left the end of the connection to the client") if left_to_us else verdict(OK)
    if case.lenient is not None and talk.events == plainly(case.lenient):
        return verdict(NON_STRICT, f"{short(talk.events)} instead of {short(expected)}")
    return verdict(FAILED, f"{short(talk.events)} instead of {short(expected)}")
