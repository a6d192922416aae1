"""Frames and answers at two sizes, one ten times the other, whose bytes come one by one.

Ten times the bytes are ten times the work, and not a hundred: what is quadratic costs ten times as much for each byte.
Without a socket, whose cost would hide what is asked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator

import insides

from pytest_sockserver import ANY, Script, StreamTestServer, http1, lines, netstrings, sans_io, until_eof
from pytest_sockserver.connection.connection import Connection
from pytest_sockserver.connection.conversation import Conversation
from pytest_sockserver.connection.waits import Operation
from pytest_sockserver.scripting.buffer import NEED_MORE, Buffer, NeedMore
from pytest_sockserver.scripting.framing import Cutter, Framing, take_frame

UNLIMITED = 1 << 40

# Framings


def framed_by_bytes(framing: Framing, data: bytes) -> None:
    """Cut one frame, whose bytes come one by one."""
    buffer = Buffer()
    for byte in data:
        if take_frame(buffer, framing, UNLIMITED) is not NEED_MORE:
            raise AssertionError("the frame has an end too early")
        buffer.feed(bytes((byte,)))
    buffer.ended = True
    if take_frame(buffer, framing, UNLIMITED) != data:
        raise AssertionError("the frame has no end")


def cut(framing: Framing, data: bytes, frames: int) -> None:
    """Cut what comes at once."""
    if len(Cutter(framing, UNLIMITED).feed(data)) != frames:
        raise AssertionError(f"something else than {frames} frames were cut")


def a_line_then_its_length() -> Generator[int | bytes, bytes, None]:
    line = yield b"\r\n"
    yield int(line) + 2


def lines_until_dot() -> Generator[int | bytes, bytes, None]:
    line = b""
    while line != b".\r\n":
        line = yield b"\r\n"


def one_long_line(size: int) -> None:
    framed_by_bytes(lines(), b"\r" * (size - 1) + b"\n")


def a_line_and_a_long_body(size: int) -> None:
    framed_by_bytes(a_line_then_its_length, b"%d\r\n" % size + bytes(size + 2))


def many_lines_in_one_frame(size: int) -> None:
    framed_by_bytes(lines_until_dot, b"abcdefgh\r\n" * (size // 10) + b".\r\n")


def one_long_parse(size: int) -> None:
    def parser() -> Callable[[bytes], int | None]:
        got = 0

        def feed(data: bytes) -> int | None:
            nonlocal got
            got += len(data)
            return got - size if got >= size else None

        return feed

    framed_by_bytes(sans_io(parser), bytes(size))


def all_to_the_end(size: int) -> None:
    framed_by_bytes(until_eof, bytes(size))


def one_long_field(size: int) -> None:
    """Spaces at both its ends, between which a careless pattern would go back and forth."""
    spaces = b" " * (size // 20)  # few, since memory of another size has another price
    cut(http1, b"GET / HTTP/1.1\r\nA:" + spaces + b"x" + spaces + b"x\r\n\r\n", 1)


def small_frames_in_one_burst(size: int) -> None:
    cut(netstrings, b"6:abcdef," * (size // 90), size // 90)


# Scripts and rules

Declare = Callable[[StreamTestServer], object]


class Fed(Conversation):
    """A conversation that receives a byte whenever it wants more, without a socket.

    The end of the stream follows the last byte.  What is sent goes nowhere.
    """

    def __init__(self, server: StreamTestServer, data: bytes) -> None:
        super().__init__(insides.new_tape(server), server.service.context, Connection)
        self._bytes = iter(data)

    def _receive_in_kernel(self) -> bool:
        byte = next(self._bytes, None)
        if byte is None:
            self.stream.buffer.ended = True
        else:
            self.tape.received(bytes((byte,)))
            self.stream.buffer.feed(bytes((byte,)))
        return True

    def _receive(self, verb: object, deadline: object, name: object) -> Operation[NeedMore]:
        self._receive_in_kernel()
        return NEED_MORE
        yield

    def await_input_or(self, happened: Callable[[], bool]) -> bool:
        return True

    def send_in_thread(self, parts: object, request: object, timeout: object, verb: object = None) -> None:
        pass

    def send_bytes(self, data: bytes, timeout: float, verb: str) -> None:
        pass


def answered_by_bytes(declare: Declare, data: bytes, framing: Framing | None = None) -> None:
    """Answer a client whose bytes come one by one, as declared."""
    server = StreamTestServer(framing=framing, record_limit=UNLIMITED, max_frame=UNLIMITED)
    declare(server)
    conn = Fed(server, data)
    insides.drive(server, conn).run(conn)
    if b"".join(conn.face.requests) != data:
        raise AssertionError("not all was taken")


def a_literal(size: int) -> None:
    data = b"0123456789" * (size // 10)
    answered_by_bytes(lambda server: server.script().expect(data), data)


def many_steps(size: int) -> None:
    def declare(server: StreamTestServer) -> None:
        server.script().repeat(size // 10, Script().expect(b"abc\n").maybe(b"?").expect_line(b"efgh"))

    answered_by_bytes(declare, b"abc\nefgh\n" * (size // 10))


def chatter_beside_a_step(size: int) -> None:
    def declare(server: StreamTestServer) -> None:
        server.on(b"abc\n").reply(b"")
        server.script().expect(b"quit\n")

    answered_by_bytes(declare, b"abc\n" * (size // 4) + b"quit\n", lines(b"\n"))


def literals_in_a_row(size: int) -> None:
    def declare(server: StreamTestServer) -> None:
        server.on(b"noop\n").reply(b"")
        script = server.script()
        for _ in range(size // 5):
            script.expect(b"ab").expect(b"cd\n")

    answered_by_bytes(declare, b"abcd\n" * (size // 5), lines(b"\n"))


def literals(size: int) -> None:
    def declare(server: StreamTestServer) -> None:
        for each in (b"abc\n", b"abd\n", b"efgh\n"):
            server.on(each).reply(b"")

    answered_by_bytes(declare, b"abc\nefgh\n" * (size // 9))


def a_long_literal_among_others(size: int) -> None:
    def declare(server: StreamTestServer) -> None:
        server.on(b"a" * size + b"b").reply(b"")
        server.on(b"a" * size + b"c").reply(b"")

    answered_by_bytes(declare, b"a" * size + b"b")


def frames(size: int) -> None:
    def declare(server: StreamTestServer) -> None:
        server.on(ANY).reply(b"")
        server.on(re.compile(rb"a.*\n")).reply(b"")

    answered_by_bytes(declare, b"abc\nefgh\n" * (size // 9), lines(b"\n"))


def one_long_frame(size: int) -> None:
    answered_by_bytes(lambda server: server.on(ANY).reply(b""), b"\r" * (size - 1) + b"\n", lines(b"\n"))
