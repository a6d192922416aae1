"""The framings that are ready-made: pass ``resp`` as it is, and ``lines(b"\\r\\n")`` as it was called."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from typing import Literal, TypeVar

from ..errors.location import hide_frame
from .arguments import checked_index
from .buffer import Mismatch
from .framing import EOF, LOOK_AHEAD, Framing, Need, counted, name_of
from .matching import shortened

__tracebackhide__ = hide_frame


F = TypeVar("F", bound=Callable[..., object])
Feed = Callable[[bytes], int | None]

# Decimal digits of a length on the wire: as many as 64 bits can need.
_DIGITS = 20


def _written(call: str) -> Callable[[F], F]:
    """Say how a message writes the call that makes a framing."""

    def mark(factory: F) -> F:
        factory.written = call  # type: ignore[attr-defined]
        return factory

    return mark


# Ready-made: those that take arguments, and return a framing


@_written(r"lines(b'\r\n')")
def lines(ending: bytes = b"\r\n") -> Framing:
    r"""Frames are lines, each through its ``ending``; ``lines(b"\n")`` takes those that end in CRLF as well."""
    return _through(_checked_delimiter("lines", ending), f"lines({ending!r})")


@_written(r"delimited(b'\0')")
def delimited(delimiter: bytes) -> Framing:
    """Frames are all bytes through ``delimiter``."""
    return _through(_checked_delimiter("delimited", delimiter), f"delimited({delimiter!r})")


@_written("fixed(4)")
def fixed(size: int) -> Framing:
    """Frames are ``size`` bytes each."""
    checked_index(size, "fixed() expected a number of bytes above 0", least=1)

    def framing() -> Generator[Need, bytes, None]:
        yield size

    return _named(framing, f"fixed({size!r})")


@_written("length_prefixed('>H')")
def length_prefixed(format: str, offset: int = 0, adjust: int = 0) -> Framing:
    """Frames tell their length: ``offset`` bytes, the length, and as many bytes as it says plus ``adjust``.

    The parameters are those of Netty's LengthFieldBasedFrameDecoder.  Modbus/TCP is
    ``length_prefixed(">H", offset=4)``, MySQL ``length_prefixed("<3", adjust=1)``; a length of four bytes that
    counts itself wants ``adjust=-4``.

    Kafka and ZooKeeper write a signed length, ``length_prefixed(">i")``: a negative one is then a mismatch, where
    the unsigned reading would wait for 4 GiB.

    Args:
        format: How the length is written: the byte order (``>`` or ``!`` big-endian, ``<`` little-endian), then a
            letter of :mod:`struct`, unsigned (``B H I L Q``) or signed (``b h i l q``), or the number of its bytes,
            1 to 8, unsigned.
    """
    width, order, signed = _checked_format(format)
    checked_index(offset, "length_prefixed() expected an offset of 0 bytes or more", least=0)
    checked_index(adjust, "length_prefixed() expected adjust to be a number of bytes", least=-(1 << 64))

    def framing() -> Generator[Need, bytes, None]:
        head = yield offset + width
        length = int.from_bytes(head[offset:], order, signed=signed)
        if length < 0:  # whatever adjust would make of it: no frame is meant
            raise Mismatch(f"expected a length of 0 or more\n  got {length} in {head!r}")
        if length + adjust < 0:
            raise Mismatch(f"expected a length of at least {-adjust} (adjust={adjust})\n  got {length} in {head!r}")
        yield length + adjust

    given = "".join(f", {name}={value}" for name, value in (("offset", offset), ("adjust", adjust)) if value)
    return _named(framing, f"length_prefixed({format!r}{given})")


@_written("sans_io(make)")
def sans_io(make: Callable[[], Feed]) -> Framing:
    """Frames are what a parser without I/O of its own takes for a message.

    Args:
        make: Called for each frame (and once more where the framing is declared), it returns a function ``feed(data)``.
            That returns ``None`` while the message is incomplete, else how many bytes of ``data`` it has not used;
            with them the next frame begins.  A message comes in pieces of at most 4,096 bytes.
    """
    if not callable(make):
        raise TypeError(f"sans_io() expected a function that makes the function to feed, not {make!r}")

    def framing() -> Generator[Need, bytes, None]:
        feed, unused = make(), None
        if not callable(feed):
            raise TypeError(f"{name_of(make)} returned {feed!r}: expected a function feed(data)")
        while unused is None:
            data = yield LOOK_AHEAD
            unused = _checked_unused(feed(data), len(data), feed)
            yield len(data) - (unused or 0)

    framing.calls_users_code = True  # type: ignore[attr-defined]
    return _named(framing, f"sans_io({name_of(make)})")


def _through(delimiter: bytes, name: str) -> Framing:
    def framing() -> Generator[Need, bytes, None]:
        yield delimiter

    framing.delimiter = delimiter  # type: ignore[attr-defined]
    return _named(framing, name)


def _named(framing: Framing, name: str) -> Framing:
    framing.__qualname__ = name  # what name_of() finds, and its repr shows
    return framing


def _checked_delimiter(verb: str, delimiter: object) -> bytes:
    if isinstance(delimiter, str):
        raise TypeError(f"{verb}() expected bytes, not the text {delimiter!r}: write b{delimiter!r}")
    if not isinstance(delimiter, bytes):
        raise TypeError(f"{verb}() expected bytes, not {delimiter!r}")
    if not delimiter:
        raise ValueError(f"{verb}() expected a delimiter of at least one byte")
    return delimiter


_WIDTHS = {"b": 1, "h": 2, "i": 4, "l": 4, "q": 8}  # struct's standard sizes, those with a byte order


def _checked_format(format: object) -> tuple[int, Literal["little", "big"], bool]:
    """Return how many bytes the length has, their order, and whether it is signed."""
    text = (
        "length_prefixed() expected a byte order (>, < or !) and B, H, I, L, Q, their signed forms b, h, i, l, q, "
        f"or a number of bytes from 1 to 8, as '>H', '>i' or '<3', not {format!r}"
    )
    if not isinstance(format, str):
        raise TypeError(text)
    if not re.fullmatch("[<>!][BbHhIiLlQq1-8]", format):
        raise ValueError(text)
    kind = format[1]
    return _WIDTHS.get(kind.lower()) or int(kind), "little" if format[0] == "<" else "big", kind.islower()


def _checked_unused(unused: object, have: int, feed: Feed) -> int | None:
    if unused is None:
        return None
    text = (
        f"{name_of(feed)} returned {unused!r}: expected None while the message is incomplete, "
        f"else how many of its {counted(have)} are not used"
    )
    if not isinstance(unused, int) or isinstance(unused, bool):
        raise TypeError(text)
    if not 0 <= unused <= have:
        raise ValueError(text)
    return unused


# Ready-made: those that are framings themselves


def until_eof() -> Generator[Need, bytes, None]:
    """Make the one frame all that the client sends until it ends its stream."""
    yield EOF


def netstrings() -> Generator[Need, bytes, None]:
    """Take a netstring: its length, a colon, its bytes, a comma (cr.yp.to/proto/netstrings.txt)."""
    length = yield from _number(b":", "the length of a netstring and b':'", least=0)
    data = yield length + 1
    if not data.endswith(b","):
        raise Mismatch(f"expected b',' after the {counted(length)} of a netstring\n  got {data[-1:]!r}")


def octet_counted() -> Generator[Need, bytes, None]:
    """Take a syslog message after its length and a space (RFC 6587 section 3.4.1)."""
    # MSG-LEN = NONZERO-DIGIT *DIGIT
    length = yield from _number(b" ", "the length of a syslog message and b' '", least=1)
    yield length


def _number(ending: bytes, what: str, *, least: int) -> Generator[Need, bytes, int]:
    """Take a decimal number through ``ending``.  Byte by byte, so that what is none fails at once."""
    digits = b""
    while (byte := (yield 1)) != ending:
        digits += byte
        if not byte.isdigit() or len(digits) > _DIGITS or (digits[0] == 0x30 and (least or len(digits) > 1)):
            raise Mismatch(f"expected {what}\n  got {digits!r}")
    if not digits:
        raise Mismatch(f"expected {what}\n  got {ending!r}")
    return int(digits)


# The types of RESP3 (redis.io/docs/latest/develop/reference/protocol-spec), by what follows their first line.
_RESP_SIMPLE = b"+-:_,#("
_RESP_BULK = b"$!="
_RESP_AGGREGATE = b"*~>%|"
_RESP_TYPES = _RESP_SIMPLE + _RESP_BULK + _RESP_AGGREGATE


def resp() -> Generator[Need, bytes, None]:
    """Take a value of Redis' RESP2 or RESP3, as an array of bulk strings is; or an inline command: a line.

    The streamed strings and aggregates of RESP3's draft are not known, nor are they to any server.
    """
    kind = yield 1
    if kind not in _RESP_TYPES:
        if kind != b"\n":
            yield b"\n"  # Redis wants no CR before it
        return
    values = yield from _resp_value(kind)
    while values:  # a count instead of recursion: a client may nest as deep as it likes
        values += (yield from _resp_value((yield 1))) - 1


def _resp_value(kind: bytes) -> Generator[Need, bytes, int]:
    """Take the rest of a value but for those within it; return how many these are."""
    if kind not in _RESP_TYPES:
        raise Mismatch(f"expected a RESP type, one of {_RESP_TYPES.decode()}\n  got {kind!r}")
    line = yield b"\r\n"
    if kind in _RESP_SIMPLE:
        return 0
    count = _resp_count(kind, line)
    if kind in _RESP_BULK:
        if count >= 0:
            yield from _with_crlf(count, "a bulk string")
        return 0
    # An attribute stands before the value that it is about.
    return max(count, 0) * (2 if kind in b"%|" else 1) + (kind == b"|")


def _resp_count(kind: bytes, line: bytes) -> int:
    # -1 is the null of RESP2, an array or a bulk string.
    if not re.fullmatch(rb"\d{1,20}\r\n" if kind not in b"$*" else rb"(?:-1|\d{1,20})\r\n", line):
        raise Mismatch(f"expected a length after {kind!r}\n  got {shortened(line)}")
    return int(line)


_TCHAR = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"  # RFC 9110 section 5.6.2
_REQUEST_LINE = re.compile(_TCHAR + rb"+ .+ HTTP/\d\.\d\r?\n")
_FIELD_LINE = re.compile(rb"(" + _TCHAR + rb"+):(.*)\n")
_LINE_START = re.compile(_TCHAR + rb"|[\r\n]")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;.*)?\r\n")


def http1() -> Generator[Need, bytes, None]:
    """Take an HTTP/1.x request: its head, and the body that the head announces (RFC 9112 section 6.3).

    A client that waits for ``100 Continue`` before its body waits in vain: its request is not whole before.
    """
    line = yield from _http_line()
    while line in (b"\r\n", b"\n"):  # RFC 9112 section 2.2: ignore an empty line before the request
        line = yield from _http_line()
    if not _REQUEST_LINE.fullmatch(line):
        raise Mismatch(f"expected a request line, METHOD target HTTP/1.1\n  got {shortened(line)}")
    codings, lengths = yield from _http_fields()
    if codings:  # RFC 9112 section 6.3: it overrides Content-Length
        if codings[-1].lower() != b"chunked":
            raise Mismatch(f"expected chunked as the last transfer coding\n  got {codings[-1]!r}")
        yield from _http_chunks()
    elif lengths:
        yield _http_length(lengths)


def _http_line() -> Generator[Need, bytes, bytes]:
    """Take a line; what is no request at its first byte (TLS, WebSocket's frames) fails there, not at a deadline."""
    first = yield 1
    if not _LINE_START.fullmatch(first):
        raise Mismatch(f"expected a request line, METHOD target HTTP/1.1\n  got {shortened(first)}")
    return first if first == b"\n" else first + (yield b"\n")


def _http_fields() -> Generator[Need, bytes, tuple[list[bytes], list[bytes]]]:
    """Take field lines through the empty one; return the values of Transfer-Encoding and of Content-Length.

    A line may end in a bare LF (RFC 9112 section 2.2); one that is folded, or has a space before its colon, is
    refused (sections 5.1 and 5.2).
    """
    said: dict[bytes, list[bytes]] = {b"transfer-encoding": [], b"content-length": []}
    while (line := (yield b"\n")) not in (b"\r\n", b"\n"):
        if not (field := _FIELD_LINE.fullmatch(line)):
            raise Mismatch(f"expected a field line, name: value\n  got {shortened(line)}")
        if (values := said.get(field[1].lower())) is not None:
            values += [value.strip(b" \t\r") for value in field[2].split(b",")]
    return said[b"transfer-encoding"], said[b"content-length"]


def _http_length(lengths: list[bytes]) -> int:
    # RFC 9112 section 6.3: repeated, it must be the same each time.
    if len(set(lengths)) > 1 or not re.fullmatch(rb"\d{1,20}", lengths[0]):
        raise Mismatch(f"expected a number as Content-Length\n  got {shortened(b', '.join(lengths))}")
    return int(lengths[0])


def _http_chunks() -> Generator[Need, bytes, None]:
    size = 1
    while size:
        line = yield b"\r\n"
        if not (found := _CHUNK_SIZE.fullmatch(line)):
            raise Mismatch(f"expected the size of a chunk in hex\n  got {shortened(line)}")
        if size := int(found[1], 16):
            yield from _with_crlf(size, "a chunk")
    yield from _http_fields()


def _with_crlf(count: int, what: str) -> Generator[Need, bytes, None]:
    data = yield count + 2
    if not data.endswith(b"\r\n"):
        raise Mismatch(f"expected b'\\r\\n' after the {counted(count)} of {what}\n  got {data[-2:]!r}")


def websocket() -> Generator[Need, bytes, None]:
    """Take one frame of a WebSocket, masked or not (RFC 6455 section 5.2).  The handshake is ``http1``'s."""
    _, second = yield 2
    length = second & 0x7F
    if length > 125:
        length = int.from_bytes((yield 2 if length == 126 else 8), "big")
    yield length + (4 if second & 0x80 else 0)
