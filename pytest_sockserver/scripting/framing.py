r"""Cut a stream into frames: where one message ends and the next begins.

A *framing* is a generator function without arguments that yields what it needs and is sent it.  A need is an
int (so many bytes, 0 is allowed), a delimiter (bytes: all through it), or ``EOF`` (the rest of the stream).
The frame is all that it took by the time it returns, at least one byte::

    def memcache():
        line = yield b"\r\n"
        if line.startswith(b"set "):
            yield int(line.split()[4]) + 2

Since a framing says what it waits for instead of looking at what there is, it cannot depend on how the bytes
were cut, it costs O(n) (whoever feeds it remembers how far it searched), and it is composed by
``yield from``.

- All bytes stay in the buffer until the frame is whole: a message can quote them, and a deadline loses none.
- ``max_frame`` is precise, and fails as soon as it is known that the frame will be larger.
- What the client does wrong is a :class:`~.reading.Mismatch`.  What the framing does wrong is thrown into it, so
  that the traceback ends at its line.  What it raises itself is its own.

What is not done: a framing knows nothing of earlier frames.  Where the protocol changes (an upgrade, STARTTLS),
another framing begins; that is the business of who reads.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Generator
from typing import Any, Final, cast

from .buffer import Buffer
from .checks import checked_index
from .matching import Lookup, Match, PatternText, described, matches, shortened
from .reading import Ended, EndedWithin, Mismatch, Steps, and_the_end


class _Wish:
    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name

    def __reduce__(self) -> str:
        return self._name


#: A need: the rest of the stream.
EOF: Final = _Wish("EOF")

# A need of sans_io alone: a look at what has come, at least one byte, taking none of it.
_PEEK: Final = _Wish("_PEEK")

Need = int | bytes | _Wish
Framing = Callable[[], Generator[Need, bytes, object]]
Feed = Callable[[bytes], int | None]

# Bytes of one look.  A burst of small messages is looked at again by each of them: without a bound that would be
# quadratic.  A page, since no parser minds getting a large message in pieces of it.
_LOOK = 4096

# Decimal digits of a length on the wire: as many as 64 bits can need.
_DIGITS = 20


# Reading a frame


def take_frame(buffer: Buffer, framing: Framing, max_frame: int) -> Steps[bytes]:
    """Take one frame, at most ``max_frame`` bytes; nothing is taken before it is whole."""
    __tracebackhide__ = True
    return buffer.take((yield from frame_size(buffer, framing, max_frame)))


def frame_size(buffer: Buffer, framing: Framing, max_frame: int) -> Steps[int]:
    """Return how many bytes the next frame has, once it is whole; take nothing."""
    __tracebackhide__ = True
    steps, taken, got = framing(), 0, None
    while (need := _next_need(steps, got, framing)) is not None:
        while True:
            stop, there = _stop(buffer, need, taken, max_frame)
            if stop > max_frame:
                raise _too_long(buffer, need, taken, max_frame)
            if there:
                break
            if buffer.ended:
                raise _ended(buffer, need, stop, framing)
            yield bool(buffer)
        got = buffer.peek(taken, stop)
        taken = taken if need is _PEEK else stop
    if not taken:
        raise _took_nothing(framing)
    return taken


def expect_frame(
    buffer: Buffer, match: Match | PatternText, framing: Framing, max_frame: int, lookup: Lookup
) -> Steps[tuple[bytes, object]]:
    """Take a frame that ``match`` matches; return it, and the match."""
    __tracebackhide__ = True
    try:
        size = yield from frame_size(buffer, framing, max_frame)
    except (Ended, EndedWithin):
        raise Mismatch(f"expected a frame matching {described(match)}\n  got {and_the_end(buffer)}") from None
    frame = buffer.peek(0, size)
    found = matches(match, frame, lookup)
    if not found:
        raise Mismatch(f"expected a frame matching {described(match)}\n  got {shortened(frame)}")
    return buffer.take(size), found


class Cutter:
    """Cuts bytes that are recorded where no verb reads.  Not thread-safe.

    Attributes:
        broken: The framing failed, so that it is not known where the next frame begins: no more come.
    """

    __slots__ = ("_buffer", "_failure", "_framing", "_max_frame", "_steps", "broken")

    def __init__(self, framing: Framing, max_frame: int) -> None:
        self._framing, self._max_frame = framing, max_frame
        self._buffer = Buffer()
        self._steps: Steps[bytes] | None = take_frame(self._buffer, framing, max_frame)  # None: it is over
        self._failure: Exception | None = None  # still to be raised
        self.broken = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the frames that ``data`` completes.

        Raises:
            Exception: What the framing failed with, once.  It never costs a frame that was whole before: if there
                are any, they are returned, ``broken`` is true, and the next call raises.
        """
        __tracebackhide__ = True
        if self._steps is not None:
            self._buffer.feed(data)
        return self._frames()

    def end(self, *, broken: bool = False) -> list[bytes]:
        """Return the frame that the end of the stream completes, if there is one.

        Args:
            broken: By a reset, after which what a framing takes through the end may be missing some.

        Raises:
            EndedWithin: The stream ended within a frame.
        """
        __tracebackhide__ = True
        self._buffer.ended, self._buffer.broken = True, broken
        return self._frames()

    def _frames(self) -> list[bytes]:
        __tracebackhide__ = True
        frames: list[bytes] = []
        while self._steps is not None:
            try:
                next(self._steps)
                break  # it needs more
            except StopIteration as done:
                frames.append(done.value)
                self._steps = take_frame(self._buffer, self._framing, self._max_frame)
            except Ended:
                self._steps = None
            except Exception as error:
                self._steps, self._failure, self.broken = None, error, True
                self._buffer = Buffer()  # nobody can tell what the rest is
        if self._failure and not frames:
            failure, self._failure = self._failure, None
            raise failure
        return frames


# Checking it where it is declared

_EXPECTED = "expected a framing, a generator function without arguments"


def checked_framing(framing: object, max_frame: int) -> Framing | None:
    """Return ``framing``, or raise what says why it can be none, or none of at most ``max_frame`` bytes.

    Its first step is run, without a byte, and closed again.
    """
    __tracebackhide__ = True
    if framing is None:
        return None
    checked = _checked_function(framing)
    steps = _started(checked)
    need = _next_need(steps, None, checked)
    while need == 0:
        need = _next_need(steps, b"", checked)
    if need is None:
        raise _took_nothing(checked)
    steps.close()
    least = need if isinstance(need, int) else len(need) if isinstance(need, bytes) else 0
    if least > max_frame:
        raise ValueError(f"framing {name_of(checked)} needs {_counted(least)} at once: max_frame is {max_frame:,}")
    return checked


def name_of(framing: object) -> str:
    """Return how a message names a framing: one that is ready-made as the call that makes it."""
    return getattr(framing, "__qualname__", None) or repr(framing)


def _checked_function(framing: object) -> Framing:
    __tracebackhide__ = True
    if isinstance(framing, Generator):
        raise TypeError(
            f"expected a framing, not a generator: write framing={_short_name(framing)}, without calling it"
        )
    for factory, call in _FACTORIES:
        if framing is factory:
            raise TypeError(f"{name_of(framing)} is not a framing yet: call it, {call}")
    if isinstance(framing, type):
        raise TypeError(f"{_EXPECTED}, not the class {name_of(framing)}")
    if not callable(framing):
        raise TypeError(f"{_EXPECTED}, not {framing!r}{_written_instead(framing)}")
    if inspect.iscoroutinefunction(framing) or inspect.isasyncgenfunction(framing):
        raise TypeError(f"{_EXPECTED}, not the async function {name_of(framing)}: write def, without async")
    if (needed := _arguments(framing)) is not None:
        if inspect.isgeneratorfunction(framing):
            raise TypeError(f"{_EXPECTED}, not {name_of(framing)}({needed})")
        raise TypeError(f"{name_of(framing)} is not a framing yet: call it, {_short_name(framing)}({needed})")
    return cast(Framing, framing)


def _started(framing: Framing) -> Generator[Need, bytes, object]:
    __tracebackhide__ = True
    steps: Any = framing()
    if isinstance(steps, Generator):
        return steps
    if inspect.iscoroutine(steps):
        steps.close()  # else Python warns that it was never awaited
    if callable(steps):
        raise TypeError(f"{name_of(framing)} is not a framing yet: call it, {_short_name(framing)}()")
    raise TypeError(f"{_EXPECTED}, not {name_of(framing)}: it returned {steps!r}, it yields nothing")


def _arguments(function: Callable[..., object]) -> str | None:
    """Return the names of the arguments, if it cannot be called without any."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some builtins have none
        return None
    try:
        signature.bind()
    except TypeError:
        return ", ".join(signature.parameters)
    return None


def _short_name(framing: object) -> str:
    return name_of(framing).rpartition("<locals>.")[2]


def _written_instead(value: object) -> str:
    if isinstance(value, bytes):
        return f": write delimited({value!r})"
    if value is EOF:
        return ": write until_eof"
    return f": write fixed({value})" if isinstance(value, int) and not isinstance(value, bool) else ""


# Asking it


def _next_need(steps: Generator[Need, bytes, object], got: bytes | None, framing: Framing) -> Need | None:
    """Return what it needs next, or ``None`` if it has its frame."""
    __tracebackhide__ = True
    try:
        need = next(steps) if got is None else steps.send(got)
    except StopIteration:
        return None
    if refusal := _refusal(need, framing):
        _throw(steps, refusal)
    return need


def _refusal(need: object, framing: Framing) -> Exception | None:
    known = isinstance(need, (int, bytes, _Wish)) and not isinstance(need, bool)
    if known and need != b"" and not (isinstance(need, int) and need < 0):
        return None
    text = f"framing {name_of(framing)} yielded {need!r}: expected a number of bytes, a delimiter (bytes) or EOF"
    return ValueError(text) if known else TypeError(text)


def _throw(steps: Generator[Need, bytes, object], error: Exception) -> None:
    """Raise ``error`` where the framing yielded, so that the traceback shows that line."""
    __tracebackhide__ = True
    try:
        steps.throw(error)
    except StopIteration:
        pass
    raise error  # it was caught there


def _stop(buffer: Buffer, need: Need, start: int, max_frame: int) -> tuple[int, bool]:
    """Return where in the buffer a need is met, and whether that has come; if not, the earliest place that may be."""
    have = len(buffer)
    if isinstance(need, int):
        return start + need, have >= start + need
    if isinstance(need, bytes):
        stop = buffer.find(need, start)
        return (stop, True) if stop >= 0 else (max(start + len(need), have + 1), False)
    if need is _PEEK:
        stop = min(have, start + _LOOK, max_frame)
        return (stop, True) if stop > start else (start + 1, False)
    return have, bool(buffer) and buffer.ended and not buffer.broken


# Messages


def _took_nothing(framing: Framing) -> ValueError:
    return ValueError(f"framing {name_of(framing)} took nothing: a frame has at least one byte")


def _too_long(buffer: Buffer, need: Need, taken: int, max_frame: int) -> Mismatch:
    got = shortened(buffer.peek(0, taken if isinstance(need, int) else max_frame))
    if isinstance(need, int):
        what = f"needs {_counted(need)} more"
    elif isinstance(need, bytes):
        what = f"needs bytes through {need!r}"
    else:
        what = "more" if need is EOF else "needs more"
    return Mismatch(f"expected a frame of at most {_counted(max_frame)} (max_frame)\n  got {got} and {what}")


def _ended(buffer: Buffer, need: Need, stop: int, framing: Framing) -> Exception:
    if not buffer:
        return Ended(f"a frame ({name_of(framing)})")
    if isinstance(need, int):
        return EndedWithin(f"{_counted(stop - len(buffer))} more of a frame ({name_of(framing)})")
    if isinstance(need, bytes):
        return EndedWithin(f"a frame through {need!r}")
    what = "more of a frame" if need is _PEEK else "a frame to the end of the stream"
    return EndedWithin(f"{what} ({name_of(framing)})")


def _counted(count: int) -> str:
    return "1 byte" if count == 1 else f"{count:,} bytes"


# Ready-made: those that take arguments, and return a framing


def lines(ending: bytes = b"\r\n") -> Framing:
    r"""Frames are lines, each through its ``ending``; ``lines(b"\n")`` takes those that end in CRLF as well."""
    __tracebackhide__ = True
    return _through(_checked_delimiter("lines", ending), f"lines({ending!r})")


def delimited(delimiter: bytes) -> Framing:
    """Frames are all bytes through ``delimiter``."""
    __tracebackhide__ = True
    return _through(_checked_delimiter("delimited", delimiter), f"delimited({delimiter!r})")


def fixed(size: int) -> Framing:
    """Frames are ``size`` bytes each."""
    __tracebackhide__ = True
    checked_index(size, "fixed() expected a number of bytes above 0", least=1)

    def framing() -> Generator[Need, bytes, None]:
        yield size

    return _named(framing, f"fixed({size!r})")


def length_prefixed(format: str, offset: int = 0, adjust: int = 0) -> Framing:
    """Frames tell their length: ``offset`` bytes, the length, and as many bytes as it says plus ``adjust``.

    The parameters are those of Netty's LengthFieldBasedFrameDecoder.  Modbus/TCP is
    ``length_prefixed(">H", offset=4)``, MySQL ``length_prefixed("<3", adjust=1)``; a length of four bytes that
    counts itself wants ``adjust=-4``.

    Args:
        format: How the length is written, an unsigned integer: the byte order (``>`` or ``!`` big-endian, ``<``
            little-endian), then a letter of :mod:`struct` (``B H I Q``) or the number of its bytes, 1 to 8.
    """
    __tracebackhide__ = True
    width, little = _checked_format(format)
    checked_index(offset, "length_prefixed() expected an offset of 0 bytes or more", least=0)
    checked_index(adjust, "length_prefixed() expected adjust to be a number of bytes", least=-(1 << 64))

    def framing() -> Generator[Need, bytes, None]:
        head = yield offset + width
        length = int.from_bytes(head[offset:], "little" if little else "big")
        if length + adjust < 0:
            raise Mismatch(f"expected a length of at least {-adjust} (adjust={adjust})\n  got {length} in {head!r}")
        yield length + adjust

    given = "".join(f", {name}={value}" for name, value in (("offset", offset), ("adjust", adjust)) if value)
    return _named(framing, f"length_prefixed({format!r}{given})")


def sans_io(make: Callable[[], Feed]) -> Framing:
    """Frames are what a parser without I/O of its own takes for a message.

    Args:
        make: Called for each frame (and once more where the framing is declared), it returns a function ``feed(data)``.
            That returns ``None`` while the message is incomplete, else how many bytes of ``data`` it has not used;
            with them the next frame begins.  A message comes in pieces of at most 4,096 bytes.
    """
    __tracebackhide__ = True
    if not callable(make):
        raise TypeError(f"sans_io() expected a function that makes the function to feed, not {make!r}")

    def framing() -> Generator[Need, bytes, None]:
        __tracebackhide__ = True
        feed, unused = make(), None
        if not callable(feed):
            raise TypeError(f"{name_of(make)} returned {feed!r}: expected a function feed(data)")
        while unused is None:
            data = yield _PEEK
            unused = _checked_unused(feed(data), len(data), feed)
            yield len(data) - (unused or 0)

    return _named(framing, f"sans_io({name_of(make)})")


def _through(delimiter: bytes, name: str) -> Framing:
    def framing() -> Generator[Need, bytes, None]:
        yield delimiter

    return _named(framing, name)


def _named(framing: Framing, name: str) -> Framing:
    framing.__qualname__ = name  # what name_of() finds, and its repr shows
    return framing


def _checked_delimiter(verb: str, delimiter: object) -> bytes:
    __tracebackhide__ = True
    if isinstance(delimiter, str):
        raise TypeError(f"{verb}() expected bytes, not the text {delimiter!r}: write b{delimiter!r}")
    if not isinstance(delimiter, bytes):
        raise TypeError(f"{verb}() expected bytes, not {delimiter!r}")
    if not delimiter:
        raise ValueError(f"{verb}() expected a delimiter of at least one byte")
    return delimiter


_WIDTHS = {"B": 1, "H": 2, "I": 4, "Q": 8}


def _checked_format(format: object) -> tuple[int, bool]:
    """Return how many bytes the length has, and whether it is little-endian."""
    __tracebackhide__ = True
    text = (
        "length_prefixed() expected a byte order (>, < or !) and B, H, I, Q or a number of bytes from 1 to 8, "
        f"as '>H' or '<3', not {format!r}"
    )
    if not isinstance(format, str):
        raise TypeError(text)
    if not re.fullmatch("[<>!][BHIQ1-8]", format):
        raise ValueError(text)
    return _WIDTHS.get(format[1]) or int(format[1]), format[0] == "<"


def _checked_unused(unused: object, have: int, feed: Feed) -> int | None:
    __tracebackhide__ = True
    if unused is None:
        return None
    text = (
        f"{name_of(feed)} returned {unused!r}: expected None while the message is incomplete, "
        f"else how many of its {_counted(have)} are not used"
    )
    if not isinstance(unused, int) or isinstance(unused, bool):
        raise TypeError(text)
    if not 0 <= unused <= have:
        raise ValueError(text)
    return unused


# What is no framing before it was called, and how that is written.
_FACTORIES: tuple[tuple[object, str], ...] = (
    (lines, r"lines(b'\r\n')"),
    (delimited, r"delimited(b'\0')"),
    (fixed, "fixed(4)"),
    (length_prefixed, "length_prefixed('>H')"),
    (sans_io, "sans_io(make)"),
)


# Ready-made: those that are framings themselves


def until_eof() -> Generator[Need, bytes, None]:
    """Make the one frame all that the client sends until it ends its stream."""
    yield EOF


def netstrings() -> Generator[Need, bytes, None]:
    """Take a netstring: its length, a colon, its bytes, a comma (cr.yp.to/proto/netstrings.txt)."""
    length = yield from _number(b":", "the length of a netstring and b':'", least=0)
    data = yield length + 1
    if not data.endswith(b","):
        raise Mismatch(f"expected b',' after the {_counted(length)} of a netstring\n  got {data[-1:]!r}")


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
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;.*)?\r\n")


def http1() -> Generator[Need, bytes, None]:
    """Take an HTTP/1.x request: its head, and the body that the head announces (RFC 9112 section 6.3).

    A client that waits for ``100 Continue`` before its body waits in vain: its request is not whole before.
    """
    line = yield b"\n"
    while line in (b"\r\n", b"\n"):  # RFC 9112 section 2.2: ignore an empty line before the request
        line = yield b"\n"
    if not _REQUEST_LINE.fullmatch(line):
        raise Mismatch(f"expected a request line, METHOD target HTTP/1.1\n  got {shortened(line)}")
    codings, lengths = yield from _http_fields()
    if codings:  # RFC 9112 section 6.3: it overrides Content-Length
        if codings[-1].lower() != b"chunked":
            raise Mismatch(f"expected chunked as the last transfer coding\n  got {codings[-1]!r}")
        yield from _http_chunks()
    elif lengths:
        yield _http_length(lengths)


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
        raise Mismatch(f"expected b'\\r\\n' after the {_counted(count)} of {what}\n  got {data[-2:]!r}")


def websocket() -> Generator[Need, bytes, None]:
    """Take one frame of a WebSocket, masked or not (RFC 6455 section 5.2).  The handshake is ``http1``'s."""
    _, second = yield 2
    length = second & 0x7F
    if length > 125:
        length = int.from_bytes((yield 2 if length == 126 else 8), "big")
    yield length + (4 if second & 0x80 else 0)
