"""Framing and waits at two sizes, one ten times the other: ten times the work, and not a hundred.

Bytes and requests are put in by hand, one by one, and each wait is asked after each of them: in a real test how often
that happens depends on the scheduler, and the worst case is the one that must be linear.
"""

from __future__ import annotations

from collections.abc import Callable

from measure import Effort, Measured, by_turns, ratio, timed
from pytest_sockserver import ANY, Request, StreamTestServer
from pytest_sockserver.connection.connection import Connection
from pytest_sockserver.connection.waits import PENDING
from pytest_sockserver.recording.recorder import Recorder, Tape
from pytest_sockserver.scripting import readers
from pytest_sockserver.scripting.buffer import Buffer
from pytest_sockserver.scripting.readers import Steps
from pytest_sockserver.server import queries

#: The factor between the sizes.
TIMES = 10

UNLIMITED = 1 << 40


def linear(task: Callable[[int], object], size: int, effort: Effort) -> Measured:
    """Return the time for a unit of work at ``size`` against that at a tenth of it."""
    size = effort.count(size, least=1000)
    large, small = by_turns(
        lambda: timed(lambda: task(size)) / size,
        lambda: timed(lambda: task(size // TIMES)) / (size // TIMES),
        effort.seconds(2),
        least=3,
    )
    return ratio(large, small, f"for one of {size:,} and of {size // TIMES:,}")


def connection() -> Connection:
    server = StreamTestServer(record_limit=UNLIMITED)
    return Connection(Tape(server._recorder, 0, ("127.0.0.1", 1)), server)


def fed_by_bytes(read: Callable[[Buffer], Steps[bytes]], data: bytes) -> None:
    """Drive a verb with one byte whenever it asks for more."""
    buffer, rest = Buffer(), iter(data)
    steps = read(buffer)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            if done.value != data:
                raise AssertionError("something else was taken") from None
            return
        buffer.feed(bytes((next(rest),)))


def until(size: int) -> None:
    fed_by_bytes(lambda buffer: readers.recv_until(buffer, b"\r\n", UNLIMITED), b"\r" * (size - 1) + b"\n")


def exactly(size: int) -> None:
    fed_by_bytes(lambda buffer: readers.recv_exactly(buffer, size), bytes(size))


def expect(size: int) -> None:
    fed_by_bytes(lambda buffer: readers.expect(buffer, bytes(size)), bytes(size))


def expect_line(size: int) -> None:
    fed_by_bytes(expected_line, bytes(size - 1) + b"\n")


def expected_line(buffer: Buffer) -> Steps[bytes]:
    return (yield from readers.expect_line(buffer, ANY, UNLIMITED))[0]


def lines_of_a_burst(size: int) -> None:
    """Cut many lines from bytes that came at once."""
    buffer = Buffer()
    buffer.feed(b"a line\r\n" * size)
    for _ in range(size):
        try:
            next(readers.recv_until(buffer, b"\n", UNLIMITED))
        except StopIteration as done:
            if done.value != b"a line\r\n":
                raise AssertionError(done.value) from None


def wait_received(size: int) -> None:
    """Wait for something short while many short chunks come."""
    conn = connection()
    wait = queries.received(conn, b"the end", 60)
    wait._given_up = _never
    for _ in range(size):
        conn._tape.received(b"chunk")
        if wait.poll() is not PENDING:
            raise AssertionError("found what was not there")


def wait_received_long(size: int) -> None:
    """Wait for something long that comes in many chunks."""
    conn = connection()
    wait = queries.received(conn, bytes(100 * size), 60)
    wait._given_up = _never
    for _ in range(size):
        conn._tape.received(bytes(100))
        answer = wait.poll()
    if answer is PENDING:
        raise AssertionError("did not find what was there")


def wait_for(size: int) -> None:
    """Wait for a request while many others come."""
    conn = connection()
    recorder: Recorder = conn._tape.recorder
    wait = queries.request(conn._server, b"the one", 1, 60)
    wait._given_up = _never
    for _ in range(size):
        recorder.add_request(Request(b"another"))
        if wait.poll() is not PENDING:
            raise AssertionError("found what was not there")


def wait_for_count(size: int) -> None:
    """Wait for all requests of many."""
    conn = connection()
    recorder: Recorder = conn._tape.recorder
    wait = queries.request(conn._server, ANY, size, 60)
    wait._given_up = _never
    for _ in range(size):
        recorder.add_request(Request(b"another"))
        answer = wait.poll()
    if answer is PENDING:
        raise AssertionError("did not find what was there")


def next_request(size: int) -> None:
    """Take many requests one after the other."""
    conn = connection()
    recorder: Recorder = conn._tape.recorder
    for _ in range(size):
        recorder.add_request(Request(b"another"))
    for _ in range(size):
        queries.untaken_request(conn._server, ANY, 60).poll()


def _never(verb: str) -> None:
    """The server of these waits was never started: that is no reason to give up."""
