"""The catalogue of the Autobahn WebSocket test suite (groups 1 to 7, 9 and 10) as a table of our own: what is sent under each
of its numbers, and what may come back. A case is the same in both directions; the end under test echoes messages.

Groups 12 and 13 are about permessage-deflate, which Muster does not offer; 0, 8 and 11 have no cases."""
import dataclasses
import functools

from frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close_payload

NORMAL, PROTOCOL, BAD_TEXT = 1000, 1002, 1007
KI, MI = 1 << 10, 1 << 20


@functools.lru_cache(maxsize=4)
def filled(pattern, length):
    return (pattern * (length // len(pattern) + 1))[:length]


@dataclasses.dataclass(frozen=True)
class Fill:
    """A long payload, made when it is needed."""
    pattern: bytes
    length: int

    def bytes(self):
        return filled(self.pattern, self.length)


# --- what is sent ---

@dataclasses.dataclass(frozen=True)
class Frame:
    opcode: int
    payload: object = b""
    fin: bool = True
    rsv: int = 0
    chop: int = 0        # written in pieces of so many bytes
    alone: bool = False  # what came before is on its way already
    closes: bool = False  # a close frame: our side is done


@dataclasses.dataclass(frozen=True)
class Message:
    """A message in fragments of so many bytes."""
    opcode: int
    payload: object
    fragment: int


@dataclasses.dataclass(frozen=True)
class Pause:
    """With a name it is an event if the connection lives through it."""
    name: str = ""
    seconds: float = 0.5


# The second is patient: it is over when the peer closes, which it has to do.
FIRST, SECOND = Pause("A"), Pause("B", 3)


@dataclasses.dataclass(frozen=True)
class Pieces:
    """One text frame whose payload comes in parts, with those pauses between."""
    parts: tuple
    pauses: tuple = (FIRST, SECOND)


@dataclasses.dataclass(frozen=True)
class Rounds:
    """A message as often as `count`, each when the echo of the one before is here."""
    opcode: int
    payload: object
    count: int


# --- what may come ---

@dataclasses.dataclass(frozen=True)
class Case:
    number: str
    what: str
    send: tuple
    # The events that must come, in order; and others that the suite lets pass as NON-STRICT.
    ok: tuple = ()
    lenient: tuple = None
    # Who begins to close: "us" when all of `ok` is there, "peer" because of what was sent; "sent": our close frame is in `send`.
    closes: str = "us"
    codes: tuple = (NORMAL,)  # of the peer's close frame; none at all is right too
    clean: bool = True        # it may not just drop the connection
    undefined: bool = False   # INFORMATIONAL: the standard leaves it open; the peer only has to stay within the rules
    seconds: float = 10

    @property
    def group(self):
        return int(self.number.split(".")[0])


def text(payload=b"", **options):
    return Frame(TEXT, payload, **options)


def binary(payload=b"", **options):
    return Frame(BINARY, payload, **options)


def more(payload=b"", fin=True, **options):
    return Frame(CONTINUATION, payload, fin=fin, **options)


def first(payload=b"", **options):
    return Frame(TEXT, payload, fin=False, **options)


def ping(payload=b"", **options):
    return Frame(PING, payload, **options)


def close(code=None, reason=b"", payload=None, **options):
    return Frame(CLOSE, close_payload(code, reason) if payload is None else payload, closes=True, **options)


def echo(payload, is_binary=False):
    return "message", payload, is_binary


def pong(payload=b""):
    return "pong", payload


def quiet(name):
    return "quiet", name


def spread(frames, **options):
    """The same frames with another way of writing them."""
    return tuple(dataclasses.replace(f, **options) for f in frames)


CASES = []


def case(number, what, *send, **options):
    CASES.append(Case(number, what, send, **options))


def refused(number, what, *send, code=PROTOCOL, **options):
    """The peer has to fail the connection."""
    case(number, what, *send, closes="peer", codes=(code,), clean=False, **options)


# --- 1: messages of all length encodings ---

for sub, opcode, byte in ((1, TEXT, b"*"), (2, BINARY, b"\xfe")):
    for i, length in enumerate((0, 125, 126, 127, 128, 65535, 65536, 65536), 1):
        body, chop = Fill(byte, length), 997 if i == 8 else 0
        case(f"1.{sub}.{i}", f"a {'binary' if opcode == BINARY else 'text'} message of {length} bytes" +
             (f", written {chop} at a time" if chop else ""),
             Frame(opcode, body, chop=chop), ok=(echo(body, opcode == BINARY),))

# --- 2: pings and pongs ---

HELLO, ODD, TAIL = b"Hello, world!", b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", b"ping payload"
LONGEST = Fill(b"\xfe", 125)
TEN = tuple(b"payload-%d" % i for i in range(10))
UNASKED = Frame(PONG, b"unsolicited pong payload")
case("2.1", "an empty ping", ping(), ok=(pong(),))
case("2.2", "a ping with text", ping(HELLO), ok=(pong(HELLO),))
case("2.3", "a ping with bytes that are no text", ping(ODD), ok=(pong(ODD),))
case("2.4", "a ping of 125 bytes", ping(LONGEST), ok=(pong(LONGEST),))
refused("2.5", "a ping of 126 bytes", ping(Fill(b"\xfe", 126)))
case("2.6", "a ping of 125 bytes, one at a time", ping(LONGEST, chop=1), ok=(pong(LONGEST),))
case("2.7", "an empty pong that nobody asked for, then close", Frame(PONG), close(NORMAL), closes="sent")
case("2.8", "a pong that nobody asked for, then close", UNASKED, close(NORMAL), closes="sent")
case("2.9", "a pong that nobody asked for, then a ping", UNASKED, ping(TAIL), ok=(pong(TAIL),))
case("2.10", "ten pings at once: all are answered", *(ping(p) for p in TEN), ok=tuple(pong(p) for p in TEN))
case("2.11", "ten pings, one byte at a time", *(ping(p, chop=1) for p in TEN), ok=tuple(pong(p) for p in TEN))

# --- 3: reserved bits; 4: reserved opcodes ---


def after_a_message(number, what, bad, **how):
    """A message, the frame that must not be, a ping. That the message is echoed at all is the strict reading."""
    refused(number, what, *spread((text(HELLO), bad, ping()), **how), ok=(echo(HELLO),), lenient=())


refused("3.1", "a text with reserved bits 1", text(HELLO, rsv=1))
after_a_message("3.2", "a text, one with reserved bits 2, a ping", text(HELLO, rsv=2))
after_a_message("3.3", "a text, one with reserved bits 3, a ping; frame by frame", text(HELLO, rsv=3), alone=True)
after_a_message("3.4", "a text, one with reserved bits 4, a ping; byte by byte", text(HELLO, rsv=4), chop=1)
refused("3.5", "a binary message with reserved bits 5", binary(ODD, rsv=5))
refused("3.6", "a binary message with reserved bits 6", binary(HELLO, rsv=6))
refused("3.7", "a close frame with reserved bits 7", Frame(CLOSE, rsv=7))

for sub, kind, opcodes in ((1, "data", range(3, 8)), (2, "control", range(11, 16))):
    one, two, three, four, five = opcodes
    refused(f"4.{sub}.1", f"unknown {kind} opcode {one}", Frame(one))
    refused(f"4.{sub}.2", f"unknown {kind} opcode {two} with a payload", Frame(two, b"reserved opcode payload"))
    after_a_message(f"4.{sub}.3", f"a text, {kind} opcode {three}, a ping", Frame(three))
    after_a_message(f"4.{sub}.4", f"a text, {kind} opcode {four} with a payload, a ping", Frame(four, HELLO))
    after_a_message(f"4.{sub}.5", f"a text, {kind} opcode {five} with a payload, a ping; byte by byte", Frame(five, HELLO), chop=1)

# --- 5: fragments ---

ONE, TWO, THREE, FOUR, FIVE = (b"fragment%d" % i for i in range(1, 6))
HALVES = (first(ONE), more(TWO))
PINGED = (first(ONE), ping(TAIL), more(TWO))
STRAY, STRAY_OPEN = b"non-continuation payload", (more(b"non-continuation payload", fin=False), text(HELLO))
refused("5.1", "a ping in two fragments", ping(ONE, fin=False), more(TWO))
refused("5.2", "a pong in two fragments", Frame(PONG, ONE, fin=False), more(TWO))
WAYS = (("", {}), ("; frame by frame", {"alone": True}), ("; byte by byte", {"chop": 1}))
for i, (words, how) in enumerate(WAYS):
    case(f"5.{3 + i}", "a text in two fragments" + words, *spread(HALVES, **how), ok=(echo(ONE + TWO),))
for i, (words, how) in enumerate(WAYS):
    case(f"5.{6 + i}", "a text in two fragments with a ping between" + words, *spread(PINGED, **how),
         ok=(pong(TAIL), echo(ONE + TWO)))
for i, (words, how) in enumerate(WAYS):
    refused(f"5.{9 + i}", "a last continuation of nothing, then a text" + words, *spread((more(STRAY), text(HELLO)), **how))
for i, (words, how) in enumerate(WAYS):
    refused(f"5.{12 + i}", "a continuation of nothing, then a text" + words, *spread(STRAY_OPEN, **how))
refused("5.15", "a text in two fragments, a continuation of nothing, a text", *HALVES, more(THREE, fin=False), text(FOUR),
        ok=(echo(ONE + TWO),), lenient=())
for i, fin in enumerate((False, True)):
    refused(f"5.{16 + i}", f"twice: a {'last ' if fin else ''}continuation of nothing, a text in two fragments",
            *(2 * (more(ONE, fin=fin), first(TWO), more(THREE))))
refused("5.18", "a text whose second fragment is a text frame again", first(ONE), text(TWO))
SLOW = (first(ONE), more(TWO, fin=False), ping(b"pongme 1!"), Pause(), more(THREE, fin=False), more(FOUR, fin=False),
        ping(b"pongme 2!"), more(FIVE))
SLOWLY = (pong(b"pongme 1!"), pong(b"pongme 2!"), echo(ONE + TWO + THREE + FOUR + FIVE))
case("5.19", "a text in five fragments with two pings and a pause", *SLOW, ok=SLOWLY)
case("5.20", "the same; frame by frame", *(s if isinstance(s, Pause) else dataclasses.replace(s, alone=True) for s in SLOW), ok=SLOWLY)

# --- 6: UTF-8 ---

UMLAUTS, GREEK = "Hello-µ@ßöäüàá-UTF-8!!".encode(), bytes.fromhex("cebae1bdb9cf83cebcceb5")
SURROGATE, BEYOND, EDITED = bytes.fromhex("eda080"), bytes.fromhex("f4908080"), b"edited"
MIDDLE = b"middle frame payload"


def bad_text(number, what, *send, **options):
    refused(number, what, *send, code=BAD_TEXT, **options)


case("6.1.1", "an empty text", text(), ok=(echo(b""),))
case("6.1.2", "a text of three empty fragments", first(), more(fin=False), more(), ok=(echo(b""),))
case("6.1.3", "a text whose first and last fragment are empty", first(), more(MIDDLE, fin=False), more(), ok=(echo(MIDDLE),))
case("6.2.1", "a text with two-byte characters", text(UMLAUTS), ok=(echo(UMLAUTS),))
case("6.2.2", "the same in two fragments, cut between characters", first("Hello-µ@ßöä".encode()),
     more("üàá-UTF-8!!".encode()), ok=(echo(UMLAUTS),))
case("6.2.3", "the same in fragments of one byte", Message(TEXT, UMLAUTS, 1), ok=(echo(UMLAUTS),))
case("6.2.4", "characters of two and three bytes in fragments of one byte", Message(TEXT, GREEK, 1), ok=(echo(GREEK),))
bad_text("6.3.1", "a text with a surrogate inside", text(GREEK + SURROGATE + EDITED))
bad_text("6.3.2", "the same in fragments of one byte", Message(TEXT, GREEK + SURROGATE + EDITED, 1))

SPOILED = GREEK + BEYOND + EDITED  # decided by its byte 12
SOON = {"ok": (quiet(FIRST.name),), "lenient": (quiet(FIRST.name), quiet(SECOND.name))}
for number, a, b in (("6.4.1", 11, 15), ("6.4.2", 12, 13)):
    bad_text(number, f"a text that goes wrong in the second of three fragments ({b - a} bytes): refused before the third",
             first(SPOILED[:a]), FIRST, more(SPOILED[a:b], fin=False), SECOND, more(SPOILED[b:]), **SOON)
for number, a, b in (("6.4.3", 11, 15), ("6.4.4", 12, 13)):
    bad_text(number, f"the same inside one frame that comes in three parts ({b - a} bytes): refused before the third",
             Pieces((SPOILED[:a], SPOILED[a:b], SPOILED[b:])), **SOON)

CUT = "c0 e080 f08080 f8808080 fc80808080 df efbf f7bfbf fbbfbfbf fdbfbfbfbf"
PLANES = [f"{a}{b}bf{c}" for a in ("f0", "f1", "f2", "f3", "f4") for b in ("8f", "9f", "af", "bf") for c in ("be", "bf")
          if (a, b) != ("f0", "8f") and (a != "f4" or b == "8f")]
LEADS = ((0xc0, 0xdf), (0xe0, 0xef), (0xf0, 0xf7), (0xf8, 0xfb), (0xfc, 0xfd))  # the last of each is left out
# One text message each; it is right or wrong as a whole. Python's decoder says which.
STRINGS = (
    ("some right characters",
     [b"hello" + c.encode() + b"world" for c in ("$", "\xa2", "\u20ac", "\U00024b62")] + [GREEK]),
    ("all beginnings of a right text", [GREEK[:i] for i in range(1, len(GREEK) + 1)]),
    ("the first character of each length", "00 c280 e0a080 f0908080"),
    ("the first of five and six bytes, which do not exist", "f888808080 fc8480808080"),
    ("the last character of each length", "7f dfbf efbfbf f48fbfbf"),
    ("the last of four, five and six bytes, which do not exist", "f7bfbfbf fbbfbfbfbf fdbfbfbfbfbf"),
    ("around the borders", "ed9fbf ee8080 efbfbd f48fbfbf f4908080"),
    ("following bytes that follow nothing", "80 bf 80bf 80bf80 80bf80bf 80bf80bf80 80bf80bf80bf " +
     bytes(range(0x80, 0xbf)).hex()),
    ("first bytes that nothing follows", [b"".join(bytes([c, 0x20]) for c in range(*lead)) for lead in LEADS]),
    ("characters without their last byte", CUT),
    ("all of these together", CUT.replace(" ", "")),
    ("bytes that never occur", "fe ff fefeffff"),
    ("overlong forms of a slash", "c0af e080af f08080af f8808080af fc80808080af"),
    ("the greatest overlong forms", "c1bf e09fbf f08fbfbf f887bfbfbf fc83bfbfbfbf"),
    ("overlong forms of NUL", "c080 e08080 f0808080 f880808080 fc8080808080"),
    ("single surrogates", "eda080 edadbf edae80 edafbf edb080 edbe80 edbfbf"),
    ("pairs of surrogates", " ".join(high + low for high in ("eda080", "edadbf", "edae80", "edafbf")
                                     for low in ("edb080", "edbfbf"))),
    ("code points that are no characters, yet right", "efbfbe efbfbf " + " ".join(PLANES)),
    ("special characters", "efbfb9 efbfba efbfbb efbfbc efbfbd efbfbe efbfbf"),
)


def right(payload):
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


for sub, (title, strings) in enumerate(STRINGS, 5):
    if isinstance(strings, str):
        strings = [bytes.fromhex(s) for s in strings.split(" ")]
    for i, body in enumerate(strings, 1):
        if right(body):
            case(f"6.{sub}.{i}", f"{title}: {body.hex()}", text(body), ok=(echo(body),))
        else:
            bad_text(f"6.{sub}.{i}", f"{title}: {body.hex()}", text(body))

# --- 7: closing ---

WORLD, REASON = b"Hello World!", GREEK + SURROGATE + EDITED


def closing(number, what, *send, codes=(NORMAL,), **options):
    case(number, what, *send, closes="sent", codes=codes, **options)


case("7.1.1", "a text, then close", text(WORLD), ok=(echo(WORLD),))
closing("7.1.2", "two close frames", close(NORMAL), Frame(CLOSE))
closing("7.1.3", "a ping behind the close frame is not answered", close(NORMAL), ping())
closing("7.1.4", "a text behind the close frame is not answered", close(NORMAL), text(WORLD))
closing("7.1.5", "a close frame between two fragments", first(ONE), close(NORMAL), more(TWO))
closing("7.1.6", "256 KiB of text, a text, close, a ping", text(Fill(b"BAsd7&jh23", 256 * KI)), text(WORLD), close(NORMAL), ping(),
        undefined=True)
closing("7.3.1", "a close frame without a code", close())
closing("7.3.2", "a close frame of one byte", close(payload=b"a"), codes=(PROTOCOL,), clean=False)
closing("7.3.3", "a close frame with a code", close(NORMAL))
closing("7.3.4", "a close frame with a reason", close(NORMAL, WORLD))
closing("7.3.5", "a close frame with the longest reason, 123 bytes", close(NORMAL, b"*" * 123))
closing("7.3.6", "a close frame with a reason of 124 bytes", close(NORMAL, b"*" * 124), codes=(PROTOCOL,), clean=False)
closing("7.5.1", "a close frame with a reason that is not UTF-8", close(NORMAL, REASON), codes=(PROTOCOL, BAD_TEXT), clean=False)
for i, code in enumerate((1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999), 1):
    closing(f"7.7.{i}", f"a close frame with code {code}", close(code), codes=(NORMAL, code))
for i, code in enumerate((0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999), 1):
    closing(f"7.9.{i}", f"a close frame with code {code}, which must not be sent", close(code), codes=(PROTOCOL,), clean=False)
for i, code in enumerate((5000, 65535), 1):
    closing(f"7.13.{i}", f"a close frame with code {code}", close(code), codes=(NORMAL, code, PROTOCOL), clean=False, undefined=True)

# --- 9: sizes; 10: fragments of the sender's choice ---

KINDS = ((TEXT, "text", b"BAsd7&jh23", b"*"), (BINARY, "binary", b"\x00\xfe\x23\xfa\xf0", b"\xfe"))
for offset, (opcode, kind, mixed, byte) in enumerate(KINDS):
    for i, size in enumerate((64 * KI, 256 * KI, MI, 4 * MI, 8 * MI, 16 * MI), 1):
        body = Fill(mixed, size)
        case(f"9.{1 + offset}.{i}", f"a {kind} message of {size // KI} KiB", Frame(opcode, body),
             ok=(echo(body, opcode == BINARY),), seconds=100)
    for i in range(1, 10):
        body, size = Fill(byte, 4 * MI), 64 * 4 ** (i - 1)
        case(f"9.{3 + offset}.{i}", f"a {kind} message of 4 MiB in fragments of {size} bytes", Message(opcode, body, size),
             ok=(echo(body, opcode == BINARY),), seconds=100)
    for i in range(1, 7):
        body, size = Fill(mixed, MI), 64 * 2 ** (i - 1)
        case(f"9.{5 + offset}.{i}", f"a {kind} message of 1 MiB, written {size} bytes at a time", Frame(opcode, body, chop=size),
             ok=(echo(body, opcode == BINARY),), seconds=100)
    for i, size in enumerate((0, 16, 64, 256, 1024, 4096), 1):
        case(f"9.{7 + offset}.{i}", f"1000 {kind} messages of {size} bytes, one after the other", Rounds(opcode, Fill(byte, size), 1000),
             ok=(), seconds=100)
STARS = Fill(b"*", 64 * KI)
case("10.1.1", "a text of 64 KiB in fragments of 1300 bytes", Message(TEXT, STARS, 1300), ok=(echo(STARS),))

# As the suite orders them: 9.1, 9.2, 9.3 …
CASES.sort(key=lambda c: [int(n) for n in c.number.split(".")])
BY_NUMBER = {c.number: c for c in CASES}
TITLES = {1: "Framing", 2: "Pings and pongs", 3: "Reserved bits", 4: "Opcodes", 5: "Fragmentation", 6: "UTF-8",
          7: "Closing", 9: "Limits and performance", 10: "Fragments of the sender's choice"}
COMPRESSION = {12: ("Compression, payloads", 90), 13: ("Compression, parameters", 126)}
