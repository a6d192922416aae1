r"""Cutting a stream into frames, without any socket.

``CORPUS`` holds frames of each framing as its protocol's own documents and clients write them; whatever is promised of
framings in general is asked of all of them.
"""

from __future__ import annotations

import copy
import functools
import pickle
import struct
import sys
import traceback
from collections.abc import Callable, Generator
from itertools import pairwise
from typing import Any

import h11
import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, TextMessage

from pytest_sockserver.scripting.buffer import Buffer
from pytest_sockserver.scripting.frame_formats import (
    delimited,
    fixed,
    http1,
    length_prefixed,
    lines,
    netstrings,
    octet_counted,
    resp,
    sans_io,
    until_eof,
    websocket,
)
from pytest_sockserver.scripting.framing import EOF, Cutter, Framing, Need, checked_framing, name_of

from .reading import Ended, EndedWithin, Mismatch, take_frame

UNLIMITED = 1 << 40

Steps = Generator[Need, bytes, None]
LITTLE = settings(deadline=None, max_examples=25)


# Framings of one's own


def memcache() -> Steps:
    line = yield b"\r\n"
    if line.startswith(b"set "):
        yield int(line.split()[4]) + 2


def ber() -> Steps:
    """BER with definite lengths, as LDAP and SNMP have it (X.690 section 8.1.3)."""
    _, length = yield 2
    if length > 127:
        length = int.from_bytes((yield length & 127), "big")
    yield length


def mqtt() -> Steps:
    """MQTT's fixed header: seven bits of the length in each byte, the lowest first (MQTT 5.0 section 1.5.5)."""
    yield 1
    length = shift = 0
    more = True
    while more:
        byte = (yield 1)[0]
        length |= (byte & 127) << shift
        shift, more = shift + 7, byte > 127
    yield length


def until_dot() -> Steps:
    """The text after SMTP's DATA: lines, composed."""
    line = b""
    while line != b".\r\n":
        line = yield b"\r\n"


def command_and_text() -> Steps:
    yield from memcache()
    yield from until_dot()


def head_and_rest() -> Steps:
    yield b"\n\n"
    yield EOF


# Sans-IO parsers


def h11_request() -> Callable[[bytes], int | None]:
    parser = h11.Connection(h11.SERVER)

    def feed(data: bytes) -> int | None:
        parser.receive_data(data)
        while (event := parser.next_event()) is not h11.NEED_DATA:
            if isinstance(event, h11.EndOfMessage):
                return len(parser.trailing_data[0])
        return None

    return feed


def msgpack_value() -> Callable[[bytes], int | None]:
    unpacker, fed = msgpack.Unpacker(), 0

    def feed(data: bytes) -> int | None:
        nonlocal fed
        unpacker.feed(data)
        fed += len(data)
        try:
            unpacker.skip()
        except msgpack.OutOfData:
            return None
        return fed - unpacker.tell()

    return feed


def websocket_message() -> Callable[[bytes], int | None]:
    """For wsproto, which does not tell what it has not used: it gets its bytes one by one."""
    connection = Connection(ConnectionType.SERVER)

    def feed(data: bytes) -> int | None:
        for used in range(1, len(data) + 1):
            connection.receive_data(data[used - 1 : used])
            for event in connection.events():
                if not isinstance(event, (TextMessage, BytesMessage)) or event.message_finished:
                    return len(data) - used
        return None

    return feed


def masked(first: int, payload: bytes) -> bytes:
    """Return a client's frame."""
    key = b"\x01\x02\x03\x04"
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    else:
        length = struct.pack(">BH", 0xFE, size) if size < 1 << 16 else struct.pack(">BQ", 0xFF, size)
    return bytes([first]) + length + key + bytes(byte ^ key[index % 4] for index, byte in enumerate(payload))


HTTP = [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /a HTTP/1.1\r\nHost: x\r\ncontent-length:  5 \r\n\r\nGET /",
    b"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\nContent-Length: 3\r\n\r\n"
    b'A;name="v"\r\n0123\r\n\r\n89\r\n1 \r\n.\r\n000\r\nDigest: x\r\nB: c\r\n\r\n',
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
]

CORPUS: dict[str, tuple[Framing, list[bytes]]] = {
    "lines": (lines(), [b"USER a\r\n", b"\r\n", b"a\rb\nc\r\r\n"]),
    "lines LF": (lines(b"\n"), [b"USER a\r\n", b"\n", b"x\n"]),
    "delimited": (delimited(b"--end--"), [b"--end--", b"a--end-\n--end--", b"--en--end--"]),
    "fixed": (fixed(3), [b"abc", b"\0\0\0", b"\r\n\r"]),
    "length_prefixed": (length_prefixed(">H"), [b"\0\0", b"\0\3abc", b"\1\4" + bytes(260)]),
    "Modbus/TCP": (
        length_prefixed(">H", offset=4),
        [bytes.fromhex("0001 0000 0006 01 03 0000 000A"), bytes.fromhex("0002 0000 0002 01 07")],
    ),
    "MySQL": (length_prefixed("<3", adjust=1), [b"\1\0\0\0\x0e", b"\0\0\0\1", b"\0\1\0\2" + bytes(256)]),
    "inclusive": (length_prefixed("!I", adjust=-4), [b"\0\0\0\x08abcd", b"\0\0\0\4"]),
    "until_eof": (until_eof, [b"all\r\nof it"]),
    "netstrings": (netstrings, [b"5:hello,", b"0:,", b"12:0123456789,\n,"]),
    "octet_counted": (octet_counted, [b"1 a", b"16 <34>1 - - - - - ", b"10 0123 56789"]),
    "resp": (
        resp,
        [
            b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n",
            b"*0\r\n",
            b"*2\r\n*1\r\n$0\r\n\r\n*1\r\n*1\r\n$2\r\n\r\n\r\n",
            b"*-1\r\n",
            b"PING\r\n",
            b"get k\n",
            b"\r\n",
            b"\n",
            b"%2\r\n+a\r\n:1\r\n$1\r\nb\r\n_\r\n",
            b"~3\r\n#t\r\n,1.5\r\n(3492890328409238509324850943850943825024385\r\n",
            b">2\r\n=7\r\ntxt:a\r\n\r\n!5\r\nERR x\r\n",
            b"|1\r\n+ttl\r\n:9\r\n*1\r\n|1\r\n+a\r\n+b\r\n$-1\r\n",
            b"-ERR\r\n",
        ],
    ),
    "http1": (
        http1,
        [
            *HTTP,
            b"\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"\n\r\nGET /with a space HTTP/1.0\n\n",
            b"PUT / HTTP/1.1\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: deflate, chunked\r\n\r\n"
            b"2\r\nok\r\n0\r\n\r\n",
            b"POST / HTTP/1.1\nContent-Length: 2, 2\nContent-Length: 2\n\nok",
        ],
    ),
    "websocket": (
        websocket,
        [
            bytes.fromhex("81 85 37fa213d 7f9f4d5158"),  # RFC 6455 section 5.7: a masked "Hello"
            b"\x81\x05Hello",
            b"\x89\x00",
            masked(0x82, bytes(125)),
            masked(0x82, bytes(126)),
            b"\x82\x7e\0\x80" + bytes(128),
            b"\x82\x7f" + struct.pack(">Q", 300) + bytes(300),
        ],
    ),
    "memcache": (memcache, [b"get k\r\n", b"set k 0 0 4\r\n\r\n\r\n\r\n", b"set k 0 0 0\r\n\r\n"]),
    "BER": (
        ber,
        [
            bytes.fromhex("30 0c 02 01 01 60 07 02 01 03 04 00 80 00"),
            b"\x30\x81\x80" + bytes(128),
            b"\x05\x00",
        ],
    ),
    "MQTT": (
        mqtt,
        [bytes.fromhex("10 0d 0004 4d515454 04 02 003c 0001 61"), b"\xc0\x00", b"\x30\x80\x01" + bytes(128)],
    ),
    "composed": (command_and_text, [b"set a 0 0 1\r\nx\r\na\r\n..\r\n.\r\n", b"get\r\n.\r\n"]),
    "head_and_rest": (head_and_rest, [b"a\n\nb\n\nc"]),
    "h11": (sans_io(h11_request), HTTP),
    "msgpack": (sans_io(msgpack_value), [msgpack.packb(each) for each in [1, {"a": [None, 2.5]}, b"x" * 5000, []]]),
    "wsproto": (
        sans_io(websocket_message),
        [masked(0x81, b"hi"), masked(0x01, b"frag") + masked(0x80, b"ment"), masked(0x89, b"")],
    ),
}
THROUGH_EOF = ("until_eof", "head_and_rest")

FRAMES = [(name, index) for name, (_, frames) in CORPUS.items() for index in range(len(frames))]
each_framing = pytest.mark.parametrize("name", CORPUS)
each_frame = pytest.mark.parametrize(("name", "index"), FRAMES)


def segmented(data: bytes, cuts: list[int]) -> list[bytes]:
    """Cut ``data`` at these places, modulo its length."""
    places = sorted({0, len(data), *(cut % len(data) for cut in cuts)}) if data else []
    return [data[start:stop] for start, stop in pairwise(places)]


def one_by_one(data: bytes) -> list[bytes]:
    return [data[index : index + 1] for index in range(len(data))]


def cut(framing: Framing, segments: list[bytes], max_frame: int = UNLIMITED) -> tuple[list[bytes], Exception | None]:
    """Take frames until the stream ends or the framing fails, feeding a segment whenever more is wanted.

    Everything is in the buffer as long as a frame is not whole: that is looked at here, for all the tests.
    """
    buffer, waiting, frames, fed = Buffer(), list(segments), [], b""
    try:
        while True:
            steps = take_frame(buffer, framing, max_frame)
            try:
                while True:
                    assert next(steps) is bool(buffer)
                    assert bytes(buffer) == fed
                    if waiting:
                        buffer.feed(waiting[0])
                        fed += waiting.pop(0)
                    else:
                        assert not buffer.ended, "it wants more after the end"
                        buffer.ended = True
            except StopIteration as done:
                frames.append(done.value)
                fed = fed[len(done.value) :]
                assert bytes(buffer) == fed
    except Ended:
        return frames, None
    except Exception as error:
        assert bytes(buffer) == fed
        return frames, error


def failure(framing: Framing, data: bytes, max_frame: int = UNLIMITED) -> Exception:
    """Return what a framing fails with, which is the same however the bytes come."""
    frames, error = cut(framing, [data], max_frame)
    again = cut(framing, one_by_one(data), max_frame)
    assert (frames, type(error), str(error)) == (again[0], type(again[1]), str(again[1]))
    assert error is not None, f"it took {frames}"
    return error


# The bytes that come


@each_framing
def test_a_framing_cuts_what_comes_at_once(name: str) -> None:
    framing, frames = CORPUS[name]

    assert cut(framing, [b"".join(frames)]) == (frames, None)


@each_framing
def test_a_framing_cuts_what_comes_byte_by_byte(name: str) -> None:
    framing, frames = CORPUS[name]

    assert cut(framing, one_by_one(b"".join(frames))) == (frames, None)


@each_framing
@LITTLE
@given(cuts=st.lists(st.integers(0, 10_000), max_size=12), turns=st.integers(0, 20))
def test_a_framing_cuts_what_comes_in_any_pieces(name: str, cuts: list[int], turns: int) -> None:
    framing, frames = CORPUS[name]
    frames = frames[turns % len(frames) :] + frames[: turns % len(frames)]

    assert cut(framing, segmented(b"".join(frames), cuts)) == (frames, None)


@each_frame
def test_a_frame_is_taken_with_its_last_byte_and_not_before(name: str, index: int) -> None:
    """Nothing more is waited for, which the client might never send."""
    framing, frames = CORPUS[name]
    buffer = Buffer()
    steps = take_frame(buffer, framing, UNLIMITED)

    for byte in one_by_one(frames[index]):
        next(steps)
        buffer.feed(byte)
    if name in THROUGH_EOF:
        next(steps)
        buffer.ended = True

    with pytest.raises(StopIteration) as done:
        next(steps)
    assert done.value.value == frames[index]


@each_framing
def test_a_stream_that_ends_between_frames_has_ended(name: str) -> None:
    framing = CORPUS[name][0]
    buffer = Buffer()
    buffer.ended = True
    buffer.end_taken = True  # else that of until_eof, without a byte, would be a frame (test_empty_requests)

    with pytest.raises(Ended) as raised:
        next(take_frame(buffer, framing, UNLIMITED))

    assert str(raised.value) == f"a frame ({name_of(framing)})"


@pytest.mark.parametrize(("name", "index"), [each for each in FRAMES if each[0] not in THROUGH_EOF])
def test_a_stream_that_ends_within_a_frame_has_not(name: str, index: int) -> None:
    framing, frames = CORPUS[name]

    for size in range(1, min(len(frames[index]), 200)):
        assert isinstance(failure(framing, frames[index][:size]), EndedWithin), frames[index][:size]


def chunked(data: bytes) -> bytes:
    body = b"".join(b"%X\r\n%b\r\n" % (len(each), each) for each in (data[:7], data[7:]) if each)
    return b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n"


def mqtt_packet(data: bytes) -> bytes:
    size, length = len(data), b""
    while size > 127:
        length += bytes([size & 127 | 128])
        size >>= 7
    return b"\x30" + length + bytes([size]) + data


WRITERS: dict[str, tuple[Framing, Callable[[bytes], bytes]]] = {
    ">B": (length_prefixed(">B", offset=1), lambda data: b"\r" + struct.pack(">B", len(data)) + data),
    "<I": (length_prefixed("<I"), lambda data: struct.pack("<I", len(data)) + data),
    "!Q": (length_prefixed("!Q", adjust=-8), lambda data: struct.pack("!Q", len(data) + 8) + data),
    ">3": (length_prefixed(">3", offset=2), lambda data: b"ab" + len(data).to_bytes(3, "big") + data),
    "<5": (length_prefixed("<5", adjust=2), lambda data: len(data).to_bytes(5, "little") + b"ab" + data),
    "netstrings": (netstrings, lambda data: b"%d:%b," % (len(data), data)),
    "octet_counted": (octet_counted, lambda data: b"%d %b" % (len(data) + 1, b"<" + data)),
    "resp": (resp, lambda data: b"*2\r\n$1\r\nk\r\n$%d\r\n%b\r\n" % (len(data), data)),
    "chunked": (http1, chunked),
    "websocket": (websocket, lambda data: masked(0x82, data)),
    "MQTT": (mqtt, mqtt_packet),
}


@pytest.mark.parametrize("name", WRITERS)
@LITTLE
@given(
    said=st.lists(st.one_of(st.binary(max_size=255), st.integers(100, 255).map(bytes)), max_size=4),
    cuts=st.lists(st.integers(0, 10_000), max_size=12),
)
def test_whatever_is_said_is_cut_as_it_was_written(name: str, said: list[bytes], cuts: list[int]) -> None:
    framing, written = WRITERS[name]
    frames = [written(each) for each in said]

    assert cut(framing, segmented(b"".join(frames), cuts)) == (frames, None)


def test_a_reset_makes_no_frame_of_what_is_taken_to_the_end() -> None:
    buffer = Buffer()
    buffer.feed(b"all of")
    buffer.ended = buffer.broken = True

    with pytest.raises(EndedWithin) as raised:
        next(take_frame(buffer, until_eof, UNLIMITED))

    assert str(raised.value) == "a frame to the end of the stream (until_eof)"


def test_a_frame_that_waits_tells_whether_it_has_begun() -> None:
    buffer = Buffer()
    steps = take_frame(buffer, lines(), UNLIMITED)

    begun = [next(steps)]
    buffer.feed(b"a")
    begun.append(next(steps))

    assert begun == [False, True]


def test_after_a_deadline_the_frame_is_read_again_from_its_beginning() -> None:
    buffer = Buffer()
    given_up = take_frame(buffer, memcache, UNLIMITED)
    buffer.feed(b"set k 0 0 2\r\nx")
    next(given_up)
    given_up.close()

    buffer.feed(b"y\r\nget")

    with pytest.raises(StopIteration) as done:
        next(take_frame(buffer, memcache, UNLIMITED))
    assert done.value.value == b"set k 0 0 2\r\nxy\r\n"
    assert bytes(buffer) == b"get"


@pytest.mark.parametrize(
    ("framing", "data", "message"),
    [
        (length_prefixed(">H"), b"\0", "1 byte more of a frame (length_prefixed('>H'))"),
        (length_prefixed(">H"), b"\0\6ab", "4 bytes more of a frame (length_prefixed('>H'))"),
        (lines(), b"QUIT\r", r"a frame through b'\r\n'"),
        (memcache, b"set k 0 0 9999\r\n", "10,001 bytes more of a frame (memcache)"),
        (sans_io(msgpack_value), b"\x92\1", "more of a frame (sans_io(msgpack_value))"),
    ],
)
def test_what_is_missing_at_the_end_is_said(framing: Framing, data: bytes, message: str) -> None:
    error = failure(framing, data)

    assert (type(error), str(error)) == (EndedWithin, message)


# max_frame


@each_frame
def test_a_frame_of_exactly_max_frame_bytes_is_allowed(name: str, index: int) -> None:
    framing, frames = CORPUS[name]
    frame = frames[index]

    assert cut(framing, [frame], len(frame)) == ([frame], None)
    assert cut(framing, one_by_one(frame), len(frame)) == ([frame], None)
    if name not in THROUGH_EOF:
        assert cut(framing, [frame + frame], len(frame)) == ([frame, frame], None)


@each_frame
def test_a_frame_of_one_byte_more_is_refused(name: str, index: int) -> None:
    framing, frames = CORPUS[name]
    frame = frames[index]

    for segments in ([frame], one_by_one(frame), [frame + frame]):
        taken, error = cut(framing, segments, len(frame) - 1)

        assert taken == []
        assert isinstance(error, Mismatch)
        assert str(error).startswith("expected a frame of at most ")


def fed_until_it_fails(framing: Framing, data: bytes, max_frame: int) -> int:
    """Return how many bytes had come when it failed."""
    buffer = Buffer()
    steps = take_frame(buffer, framing, max_frame)
    with pytest.raises(Mismatch):
        for byte in one_by_one(data):
            next(steps)
            buffer.feed(byte)
        next(steps)
    return len(buffer)


@pytest.mark.parametrize(
    ("framing", "data", "max_frame", "come"),
    [
        (length_prefixed(">H"), b"\0\x63" + bytes(99), 100, 2),
        (fixed(101), bytes(101), 100, 0),
        (lines(), b"abcdefgh\r\n", 5, 5),
        (memcache, b"set k 0 0 2\r\nxy\r\n", 15, 13),
        (until_dot, b"a\r\n.\r\n", 4, 3),  # no room for another line
        (until_eof, b"abcdef", 5, 6),
        (sans_io(msgpack_value), b"\x95\1\2\3\4\5", 5, 5),
    ],
    ids=["length", "fixed", "lines", "memcache", "no room", "until_eof", "sans_io"],
)
def test_a_frame_that_will_be_too_long_fails_before_its_bytes_come(
    framing: Framing, data: bytes, max_frame: int, come: int
) -> None:
    assert fed_until_it_fails(framing, data, max_frame) == come


@pytest.mark.parametrize(
    ("framing", "data", "got"),
    [
        (length_prefixed(">H"), b"\x10\x00abc", r"b'\x10\x00' and needs 4,096 bytes more"),
        (length_prefixed(">H"), b"\0\3abc", r"b'\x00\x03' and needs 3 bytes more"),
        (lines(), b"abcdef\r\n", r"b'abcd' and needs bytes through b'\r\n'"),
        (lines(), b"abc\r\n", r"b'abc\r' and needs bytes through b'\r\n'"),
        (until_eof, b"abcde", "b'abcd' and more"),
        (sans_io(msgpack_value), b"\x95\1\2\3", r"b'\x95\x01\x02\x03' and needs more"),
    ],
)
def test_what_is_too_long_is_quoted(framing: Framing, data: bytes, got: str) -> None:
    error = failure(framing, data, 4)

    assert str(error) == f"expected a frame of at most 4 bytes (max_frame)\n  got {got}"


def test_what_is_too_long_is_quoted_shortened() -> None:
    error = failure(lines(), b"x" * 2000, 1000)

    quoted = f"{b'x' * 120!r}... (1,000 bytes) and needs bytes through b'\\r\\n'"
    assert str(error) == f"expected a frame of at most 1,000 bytes (max_frame)\n  got {quoted}"


# What clients do wrong


@pytest.mark.parametrize(
    ("framing", "data", "message"),
    [
        (length_prefixed(">I", adjust=-4), b"\0\0\0\3",
         "expected a length of at least 4 (adjust=-4)\n  got 3 in b'\\x00\\x00\\x00\\x03'"),
        (netstrings, b"GET /", "expected the length of a netstring and b':'\n  got b'G'"),
        (netstrings, b"1x", "expected the length of a netstring and b':'\n  got b'1x'"),
        (netstrings, b":", "expected the length of a netstring and b':'\n  got b':'"),
        (netstrings, b"03:", "expected the length of a netstring and b':'\n  got b'03'"),
        (netstrings, b"1" * 99, "expected the length of a netstring and b':'\n  got b'111111111111111111111'"),
        (netstrings, b"3:abcd,", "expected b',' after the 3 bytes of a netstring\n  got b'd'"),
        (octet_counted, b"<34>1 ", "expected the length of a syslog message and b' '\n  got b'<'"),
        (octet_counted, b"0 ", "expected the length of a syslog message and b' '\n  got b'0'"),
        (octet_counted, b"-1 ", "expected the length of a syslog message and b' '\n  got b'-'"),
        (resp, b"*x\r\n", "expected a length after b'*'\n  got b'x\\r\\n'"),
        (resp, b"*-2\r\n", "expected a length after b'*'\n  got b'-2\\r\\n'"),
        (resp, b"*1\r\n%-1\r\n", "expected a length after b'%'\n  got b'-1\\r\\n'"),
        (resp, b"*1\r\n$+1\r\n", "expected a length after b'$'\n  got b'+1\\r\\n'"),
        (resp, b"*1\r\nGET\r\n", "expected a RESP type, one of +-:_,#($!=*~>%|\n  got b'G'"),
        (resp, b"*1\r\n$1\r\nab\r\n", "expected b'\\r\\n' after the 1 byte of a bulk string\n  got b'b\\r'"),
        (http1, b"hello\r\n", "expected a request line, METHOD target HTTP/1.1\n  got b'hello\\r\\n'"),
        (http1, b"\r\nGET /\r\n", "expected a request line, METHOD target HTTP/1.1\n  got b'GET /\\r\\n'"),
        (http1, b"GET / HTTP/1.1\r\nHost : x\r\n", "expected a field line, name: value\n  got b'Host : x\\r\\n'"),
        (http1, b"GET / HTTP/1.1\r\nA: x\r\n b: c\r\n", "expected a field line, name: value\n  got b' b: c\\r\\n'"),
        (http1, b"PUT / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", "expected a number as Content-Length\n  got b'-1'"),
        (http1, b"PUT / HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n",
         "expected a number as Content-Length\n  got b'2, 3'"),
        (http1, b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
         "expected chunked as the last transfer coding\n  got b'gzip'"),
        (http1, b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\n",
         "expected the size of a chunk in hex\n  got b'0x1\\r\\n'"),
        (http1, b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n",
         "expected b'\\r\\n' after the 2 bytes of a chunk\n  got b'c\\r'"),
    ],
)  # fmt: skip
def test_bad_input_is_a_mismatch_that_says_what_was_expected(framing: Framing, data: bytes, message: str) -> None:
    error = failure(framing, data)

    assert (type(error), str(error)) == (Mismatch, message)


def test_a_deeply_nested_value_is_no_recursion() -> None:
    value = b"*1\r\n" * 3 * sys.getrecursionlimit() + b"_\r\n"

    assert cut(resp, [value]) == ([value], None)


# What framings do wrong, while they run


def misbehaving(need: Any) -> Framing:
    def framing() -> Steps:
        yield b"\n"
        yield need  # where the traceback must end

    return framing


@pytest.mark.parametrize(
    ("need", "kind"),
    [
        (-1, ValueError),
        (b"", ValueError),
        ("\n", TypeError),
        (True, TypeError),
        (None, TypeError),
        (1.0, TypeError),
        (bytearray(b"\n"), TypeError),
        (lines, TypeError),
    ],
    ids=["negative", "empty", "str", "bool", "None", "float", "bytearray", "function"],
)
def test_what_is_no_need_is_refused_at_the_line_that_yields_it(need: Any, kind: type[Exception]) -> None:
    error = failure(misbehaving(need), b"a\n")

    assert type(error) is kind
    assert str(error) == (
        f"framing misbehaving.<locals>.framing yielded {need!r}: expected a number of bytes, a delimiter (bytes) or EOF"
    )
    last = traceback.extract_tb(error.__traceback__)[-1]
    assert last.filename == __file__
    assert last.line == "yield need  # where the traceback must end"


def swallowing() -> Steps:
    yield 1
    try:
        yield -1
    except ValueError:
        pass


def swallowing_twice() -> Steps:
    yield 1
    for _ in range(2):
        try:
            yield -1
        except ValueError:
            pass


@pytest.mark.parametrize("framing", [swallowing, swallowing_twice])
def test_a_refusal_that_a_framing_swallows_is_raised_all_the_same(framing: Framing) -> None:
    assert str(failure(framing, b"a")) == (
        f"framing {name_of(framing)} yielded -1: expected a number of bytes, a delimiter (bytes) or EOF"
    )


def test_a_framing_that_takes_nothing_is_refused_instead_of_running_for_ever() -> None:
    taking = iter([1, 0])

    def sometimes() -> Steps:
        yield next(taking)

    with pytest.raises(ValueError) as raised:
        cutter = Cutter(sometimes, UNLIMITED)
        assert cutter.feed(b"abc") == [b"a"]
        cutter.feed(b"")

    assert str(raised.value) == took_nothing(sometimes)


def test_what_a_framing_raises_is_left_as_it_is() -> None:
    error = failure(memcache, b"set k 0 0 many\r\n")

    assert type(error) is ValueError
    assert str(error) == "invalid literal for int() with base 10: b'many'"
    last = traceback.extract_tb(error.__traceback__)[-1]
    assert last.line == "yield int(line.split()[4]) + 2"


# Sans-IO parsers


def returning(unused: Any) -> Callable[[], Callable[[bytes], Any]]:
    def make() -> Callable[[bytes], Any]:
        def feed(data: bytes) -> Any:
            return unused

        return feed

    return make


NAMED = "returning.<locals>.make.<locals>.feed"


@pytest.mark.parametrize(
    ("unused", "kind"), [(-1, ValueError), (4, ValueError), (b"c", TypeError), (True, TypeError), (1.0, TypeError)]
)
def test_a_parser_that_says_it_has_not_used_what_it_was_not_given_is_refused(
    unused: Any, kind: type[Exception]
) -> None:
    taken, error = cut(sans_io(returning(unused)), [b"abc"])

    assert (taken, type(error)) == ([], kind)
    assert str(error) == (
        f"{NAMED} returned {unused!r}: expected None while the message is incomplete, "
        "else how many of its 3 bytes are not used"
    )


def test_a_parser_that_uses_nothing_is_refused() -> None:
    _, error = cut(sans_io(returning(3)), [b"abc"])

    assert str(error) == "framing sans_io(returning.<locals>.make) took nothing: a frame has at least one byte"


def test_a_parser_is_made_for_each_frame_and_gets_each_byte_once() -> None:
    made: list[list[bytes]] = []

    def through_semicolon() -> Callable[[bytes], int | None]:
        fed: list[bytes] = []
        made.append(fed)

        def feed(data: bytes) -> int | None:
            fed.append(data)
            return len(data) - data.index(b";") - 1 if b";" in data else None

        return feed

    taken, _ = cut(sans_io(through_semicolon), [b"a", b"b;c", b"d;"])

    assert taken == [b"ab;", b"cd;"]
    assert made == [[b"a", b"b;c"], [b"c", b"d;"], []]


def test_a_parser_gets_no_more_of_a_burst_than_4096_bytes_at_once() -> None:
    """Each message would be given all those that come after it: quadratic."""
    fed = []

    def one_byte() -> Callable[[bytes], int | None]:
        def feed(data: bytes) -> int | None:
            fed.append(len(data))
            return len(data) - 1

        return feed

    taken, _ = cut(sans_io(one_byte), [bytes(5000)])

    assert len(taken) == 5000
    assert fed == [*[4096] * 905, *range(4095, 0, -1)]


def test_a_parser_composes_with_what_stands_before_and_after_its_message() -> None:
    def between_lines() -> Steps:
        yield b"\n"
        yield from sans_io(msgpack_value)()
        yield b"\n"

    frame = b"a\n" + msgpack.packb([1, 2, 3]) + b"\n"

    assert cut(between_lines, one_by_one(frame * 2)) == ([frame, frame], None)
    assert cut(between_lines, [frame * 2]) == ([frame, frame], None)


# Cutting what is recorded


@each_framing
@LITTLE
@given(cuts=st.lists(st.integers(0, 10_000), max_size=12))
def test_a_cutter_says_what_a_reader_would(name: str, cuts: list[int]) -> None:
    framing, frames = CORPUS[name]
    cutter = Cutter(framing, UNLIMITED)

    fed = [frame for segment in segmented(b"".join(frames), cuts) for frame in cutter.feed(segment)]

    assert fed == ([] if name in THROUGH_EOF else frames)
    assert cutter.end() == (frames if name in THROUGH_EOF else [])
    assert cutter.end() == []
    assert cutter.feed(b"late") == []
    assert not cutter.broken


def test_a_cutter_fails_once_and_has_no_frames_from_then_on() -> None:
    cutter = Cutter(netstrings, UNLIMITED)

    assert cutter.feed(b"1:a,") == [b"1:a,"]
    with pytest.raises(Mismatch) as raised:
        cutter.feed(b"junk")

    assert str(raised.value) == "expected the length of a netstring and b':'\n  got b'j'"
    assert cutter.broken
    assert cutter.feed(b"1:a,") == []
    assert cutter.end() == []


def test_a_cutter_that_fails_loses_none_of_the_frames_before() -> None:
    cutter = Cutter(netstrings, UNLIMITED)

    assert cutter.feed(b"1:a,2:bc,junk") == [b"1:a,", b"2:bc,"]
    assert cutter.broken
    with pytest.raises(Mismatch):
        cutter.end()

    assert cutter.end() == []


def test_a_cutter_whose_stream_ends_within_a_frame_says_what_is_missing() -> None:
    cutter = Cutter(netstrings, UNLIMITED)
    cutter.feed(b"4:ab")

    with pytest.raises(EndedWithin) as raised:
        cutter.end()

    assert str(raised.value) == "3 bytes more of a frame (netstrings)"
    assert cutter.end() == []


def test_a_cutter_whose_stream_was_reset_makes_no_frame_of_what_came_last() -> None:
    cutter = Cutter(until_eof, UNLIMITED)
    cutter.feed(b"all of")

    with pytest.raises(EndedWithin):
        cutter.end(broken=True)


def test_a_cutter_keeps_to_max_frame() -> None:
    cutter = Cutter(lines(), 4)

    assert cutter.feed(b"ab\r\n") == [b"ab\r\n"]
    with pytest.raises(Mismatch):
        cutter.feed(b"abc\r\n")


# Declaring


def with_arguments(size: int, more: int) -> Steps:
    yield size + more


def own_factory(size: int) -> Framing:
    return functools.partial(with_arguments, size, 1)


def factory_without_arguments() -> Framing:
    return lines(b"\n")


def yielding_nothing() -> None:
    return


async def asynchronous() -> None:
    return


async def asynchronous_generator() -> Any:
    yield 1


class Parser:
    def framing(self) -> Steps:
        yield 1

    async def asynchronous(self) -> None:
        return

    async def __call__(self) -> None:
        return

    def __repr__(self) -> str:
        return "Parser()"


def took_nothing(framing: Any) -> str:
    line = framing.__code__.co_firstlineno
    return (
        f"framing {framing.__qualname__} took nothing: a frame has at least one byte; "
        f"at test_framing.py:{line} yield its size, its delimiter, or EOF"
    )


def returning_at_once() -> Steps:
    if False:
        yield 1


def taking_nothing() -> Steps:
    yield 0
    yield 0


def yielding_text() -> Any:
    yield "\n"


def yielding_less_than_nothing() -> Steps:
    yield 0
    yield -1


def raising_at_once() -> Steps:
    raise LookupError("its own")
    yield 1


@pytest.mark.parametrize(
    "framing",
    [None, *(framing for framing, _ in CORPUS.values()), Parser().framing, functools.partial(with_arguments, 2, 3),
     own_factory(3), lambda: (yield 1), functools.partial(lines(b"\n"))],
    ids=lambda framing: getattr(framing, "__qualname__", type(framing).__name__),
)  # fmt: skip
def test_a_framing_is_returned_as_it_was_declared(framing: Any) -> None:
    assert checked_framing(framing, 1000) is framing


EXPECTED = "expected a framing, a generator function without arguments"


@pytest.mark.parametrize(
    ("framing", "message"),
    [
        (resp(), "expected a framing, not a generator: write framing=resp, without calling it"),
        (lines(b"\n")(), r"expected a framing, not a generator: write framing=lines(b'\n'), without calling it"),
        (misbehaving(1)(), "expected a framing, not a generator: write framing=framing, without calling it"),
        (lines, r"lines is not a framing yet: call it, lines(b'\r\n')"),
        (delimited, r"delimited is not a framing yet: call it, delimited(b'\0')"),
        (fixed, "fixed is not a framing yet: call it, fixed(4)"),
        (length_prefixed, "length_prefixed is not a framing yet: call it, length_prefixed('>H')"),
        (sans_io, "sans_io is not a framing yet: call it, sans_io(make)"),
        (own_factory, "own_factory is not a framing yet: call it, own_factory(size)"),
        (factory_without_arguments, "factory_without_arguments is not a framing yet: call it, "
         "factory_without_arguments()"),
        (with_arguments, f"{EXPECTED}, not with_arguments(size, more)"),
        (Parser, f"{EXPECTED}, not the class Parser"),
        (Parser.framing, f"{EXPECTED}, not Parser.framing(self)"),
        (asynchronous, f"{EXPECTED}, not the async function asynchronous: write def, without async"),
        (asynchronous_generator, f"{EXPECTED}, not the async function asynchronous_generator: write def, without "
         "async"),
        (Parser().asynchronous, f"{EXPECTED}, not the async function Parser.asynchronous: write def, without async"),
        (yielding_nothing, f"{EXPECTED}, not yielding_nothing: it returned None, it yields nothing"),
        (b"\n", f"{EXPECTED}, not b'\\n': write delimited(b'\\n')"),
        (4, f"{EXPECTED}, not 4: write fixed(4)"),
        (EOF, f"{EXPECTED}, not EOF: write until_eof"),
        (True, f"{EXPECTED}, not True"),
        ("lines", f"{EXPECTED}, not 'lines'"),
    ],
)  # fmt: skip
def test_what_can_be_no_framing_is_refused_where_it_is_declared(framing: Any, message: str) -> None:
    with pytest.raises(TypeError) as raised:
        checked_framing(framing, 1000)

    assert str(raised.value) == message


def test_an_object_whose_call_is_a_coroutine_is_refused_without_a_warning() -> None:
    with pytest.raises(TypeError) as raised:
        checked_framing(Parser(), 1000)

    assert str(raised.value).startswith(f"{EXPECTED}, not Parser(): it returned <coroutine object Parser.__call__ at ")


NEEDS = "expected a number of bytes, a delimiter (bytes) or EOF"


@pytest.mark.parametrize(
    ("framing", "kind", "message"),
    [
        (returning_at_once, ValueError, took_nothing(returning_at_once)),
        (taking_nothing, ValueError, took_nothing(taking_nothing)),
        (yielding_text, TypeError, f"framing yielding_text yielded '\\n': {NEEDS}"),
        (yielding_less_than_nothing, ValueError, f"framing yielding_less_than_nothing yielded -1: {NEEDS}"),
        (fixed(1001), ValueError, "framing fixed(1001) needs 1,001 bytes at once: max_frame is 1,000"),
        (delimited(b"x" * 1001), ValueError, f"framing delimited({b'x' * 1001!r}) needs 1,001 bytes at once: "
         "max_frame is 1,000"),
        (sans_io(lambda: None), TypeError, "<lambda> returned None: expected a function feed(data)"),
        (raising_at_once, LookupError, "its own"),
    ],
    ids=lambda value: value.__qualname__ if callable(value) else "",
)  # fmt: skip
def test_a_framing_whose_first_step_goes_wrong_is_refused_where_it_is_declared(
    framing: Any, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind) as raised:
        checked_framing(framing, 1000)

    assert str(raised.value) == message


def test_a_first_need_of_max_frame_bytes_is_allowed() -> None:
    assert checked_framing(fixed(1000), 1000)


def test_what_the_dry_run_started_is_closed() -> None:
    steps = misbehaving(1)()

    checked_framing(lambda: steps, 1000)

    with pytest.raises(StopIteration):
        next(steps)


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: lines("\n"), TypeError, r"lines() expected bytes, not the text '\n': write b'\n'"),
        (lambda: lines(10), TypeError, "lines() expected bytes, not 10"),
        (lambda: lines(b""), ValueError, "lines() expected a delimiter of at least one byte"),
        (lambda: delimited(""), TypeError, "delimited() expected bytes, not the text '': write b''"),
        (lambda: delimited(b""), ValueError, "delimited() expected a delimiter of at least one byte"),
        (lambda: fixed(0), ValueError, "fixed() expected a number of bytes above 0, not 0"),
        (lambda: fixed("4"), TypeError, "fixed() expected a number of bytes above 0, not '4'"),
        (lambda: fixed(True), TypeError, "fixed() expected a number of bytes above 0, not True"),
        (lambda: length_prefixed(">H", offset=-1), ValueError,
         "length_prefixed() expected an offset of 0 bytes or more, not -1"),
        (lambda: length_prefixed(">H", adjust="1"), TypeError,
         "length_prefixed() expected adjust to be a number of bytes, not '1'"),
        (lambda: sans_io(4), TypeError, "sans_io() expected a function that makes the function to feed, not 4"),
    ],
)  # fmt: skip
def test_arguments_that_make_no_framing_are_refused(
    make: Callable[[], Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind) as raised:
        make()

    assert str(raised.value) == message


FORMATS = [order + kind for order in "><!" for kind in "bBhHiIlLqQ"]


@pytest.mark.parametrize("format", FORMATS)
def test_a_length_may_have_any_of_structs_integer_formats(format: str) -> None:
    stream = struct.pack(format, 3) + b"abc" + struct.pack(format, 0)
    cutter = Cutter(length_prefixed(format), UNLIMITED)

    assert cutter.feed(stream) == [stream[: -struct.calcsize(format)], stream[-struct.calcsize(format) :]]


@pytest.mark.parametrize("format", [each for each in FORMATS if each[1].islower()])
@pytest.mark.parametrize("length", [-1, "least"])
@pytest.mark.parametrize("adjust", [0, 8, 1 << 63, -4])
def test_a_negative_length_is_a_mismatch(format: str, length: Any, adjust: int) -> None:
    """Kafka and ZooKeeper write -1 for null, and no frame is that; unsigned it would be a wait for 4 GiB."""
    bits = 8 * struct.calcsize(format)
    value = -(1 << (bits - 1)) if length == "least" else length
    head = b"ab" + struct.pack(format, value)

    error = failure(length_prefixed(format, offset=2, adjust=adjust), head)

    assert isinstance(error, Mismatch)
    assert str(error) == f"expected a length of 0 or more\n  got {value} in {head!r}"


def test_the_largest_signed_length_is_one() -> None:
    error = failure(length_prefixed(">b"), b"\x7f" + bytes(126))

    assert str(error) == "1 byte more of a frame (length_prefixed('>b'))"


@pytest.mark.parametrize("format", ["H", "@H", "=H", ">n", ">HH", ">2H", ">9", ">0", ">", "", ">3s", b">H", None])
def test_a_format_that_is_no_integer_with_a_byte_order_is_refused(format: Any) -> None:
    with pytest.raises(ValueError if isinstance(format, str) else TypeError) as raised:
        length_prefixed(format)

    assert str(raised.value) == (
        "length_prefixed() expected a byte order (>, < or !) and B, H, I, L, Q, their signed forms b, h, i, l, q, "
        f"or a number of bytes from 1 to 8, as '>H', '>i' or '<3', not {format!r}"
    )


@pytest.mark.parametrize(
    ("framing", "name"),
    [
        (lines(), r"lines(b'\r\n')"),
        (lines(b"\n"), r"lines(b'\n')"),
        (delimited(b"\0"), r"delimited(b'\x00')"),
        (fixed(4), "fixed(4)"),
        (length_prefixed(">H"), "length_prefixed('>H')"),
        (length_prefixed(">H", 4), "length_prefixed('>H', offset=4)"),
        (length_prefixed("<3", adjust=-1), "length_prefixed('<3', adjust=-1)"),
        (resp, "resp"),
        (memcache, "memcache"),
        (misbehaving(1), "misbehaving.<locals>.framing"),
        (Parser().framing, "Parser.framing"),
        (sans_io(h11_request), "sans_io(h11_request)"),
        (functools.partial(int), "functools.partial(<class 'int'>)"),
    ],
)
def test_a_framing_is_named_as_it_is_written(framing: Any, name: str) -> None:
    assert name_of(framing) == name


def test_eof_is_one_thing_through_copies_and_pickles() -> None:
    assert copy.deepcopy(EOF) is EOF
    assert pickle.loads(pickle.dumps(EOF)) is EOF
    assert repr(EOF) == "EOF"


# The buffer under it


def test_a_search_from_an_offset_finds_nothing_before_it() -> None:
    buffer = Buffer()
    buffer.feed(b"a\r\nb\r")

    assert buffer.find(b"\r\n") == 3
    assert buffer.find(b"\r\n", 1) == 3
    assert buffer.find(b"\r\n", 2) == -1
    buffer.feed(b"\n")
    assert buffer.find(b"\r\n", 2) == 6
    assert buffer.find(b"\r\n", 0) == 3
    assert buffer.find(b"\r\n", 100) == -1


def test_a_look_takes_nothing_and_returns_what_there_is() -> None:
    buffer = Buffer()
    buffer.feed(b"abcdef")

    looks = [buffer.peek(0, 2), buffer.peek(2, 4), buffer.peek(4, 9), buffer.peek(9, 12), buffer.peek(3, 3)]
    buffer.feed(b"g")  # no view of it is left, which would forbid it to grow

    assert looks == [b"ab", b"cd", b"ef", b"", b""]
    assert all(type(look) is bytes for look in looks)
    assert bytes(buffer) == b"abcdefg"
