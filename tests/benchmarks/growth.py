"""Framing and waits at two sizes, one ten times the other: ten times the work, and not a hundred.

Bytes and requests are put in by hand, one by one, and each wait is asked after each of them: in a real test how often
that happens depends on the scheduler, and the worst case is the one that must be linear.
"""

from __future__ import annotations

from collections.abc import Callable

import insides
import reading

from measure import Effort, Measured, by_turns, ratio, spent
from pytest_sockserver import ANY, Request, StreamTestServer
from pytest_sockserver.connection.connection import Connection
from pytest_sockserver.connection.conversation import Conversation
from pytest_sockserver.connection.queries import PENDING, received
from pytest_sockserver.scripting.buffer import NEED_MORE, Buffer
from pytest_sockserver.scripting.verbs import Expect, ExpectLine, RecvExactly, RecvUntil, Verb
from pytest_sockserver.server import queries

#: The factor between the sizes.
TIMES = 10

UNLIMITED = 1 << 40


def linear(task: Callable[[int], object], size: int, effort: Effort) -> Measured:
    """Return the time for a unit of work at ``size`` against that at a tenth of it."""
    size = effort.count(size, least=1000)
    large, small = by_turns(
        lambda: spent(lambda: task(size)) / size,
        lambda: spent(lambda: task(size // TIMES)) / (size // TIMES),
        effort.seconds(2),
        least=3,
    )
    return ratio(large, small, f"for one of {size:,} and of {size // TIMES:,}")


def connection() -> Conversation:
    server = StreamTestServer(record_limit=UNLIMITED)
    return Conversation(insides.new_tape(server), server.service.context, Connection)


def fed_by_bytes(verb: Verb, data: bytes) -> None:
    """Run a verb with one byte whenever it asks for more."""
    buffer, rest, known = Buffer(), iter(data), reading.Known()
    while (unit := verb.next_from(buffer, known)) is NEED_MORE:
        buffer.feed(bytes((next(rest),)))
    if unit != data:
        raise AssertionError("something else was taken")


def until(size: int) -> None:
    fed_by_bytes(RecvUntil(b"\r\n"), b"\r" * (size - 1) + b"\n")


def exactly(size: int) -> None:
    fed_by_bytes(RecvExactly(size), bytes(size))


def expect(size: int) -> None:
    fed_by_bytes(Expect(bytes(size)), bytes(size))


def expect_line(size: int) -> None:
    fed_by_bytes(ExpectLine(ANY), bytes(size - 1) + b"\n")


def lines_of_a_burst(size: int) -> None:
    """Cut many lines from bytes that came at once."""
    buffer = Buffer()
    buffer.feed(b"a line\r\n" * size)
    for _ in range(size):
        unit = RecvUntil(b"\n").next_from(buffer, reading.Known())
        if unit != b"a line\r\n":
            raise AssertionError(unit)


def wait_received(size: int) -> None:
    """Wait for something short while many short chunks come."""
    conn = connection()
    wait = received(conn, b"the end", 60)
    insides.keep_waiting(wait)
    for _ in range(size):
        conn.tape.received(b"chunk")
        if wait.poll() is not PENDING:
            raise AssertionError("found what was not there")


def wait_received_long(size: int) -> None:
    """Wait for something long that comes in many chunks."""
    conn = connection()
    wait = received(conn, bytes(100 * size), 60)
    insides.keep_waiting(wait)
    for _ in range(size):
        conn.tape.received(bytes(100))
        answer = wait.poll()
    if answer is PENDING:
        raise AssertionError("did not find what was there")


def wait_for(size: int) -> None:
    """Wait for a request while many others come."""
    service = StreamTestServer(record_limit=UNLIMITED).service
    recorder = service.context.recorder
    wait = queries.request(service, b"the one", 1, 60)
    insides.keep_waiting(wait)
    for _ in range(size):
        recorder.add_request(Request(b"another"))
        if wait.poll() is not PENDING:
            raise AssertionError("found what was not there")


def wait_for_count(size: int) -> None:
    """Wait for all requests of many."""
    service = StreamTestServer(record_limit=UNLIMITED).service
    recorder = service.context.recorder
    wait = queries.request(service, ANY, size, 60)
    insides.keep_waiting(wait)
    for _ in range(size):
        recorder.add_request(Request(b"another"))
        answer = wait.poll()
    if answer is PENDING:
        raise AssertionError("did not find what was there")


def next_request(size: int) -> None:
    """Take many requests one after the other."""
    service = StreamTestServer(record_limit=UNLIMITED).service
    recorder = service.context.recorder
    for _ in range(size):
        recorder.add_request(Request(b"another"))
    for _ in range(size):
        queries.untaken_request(service, ANY, 60).poll()
