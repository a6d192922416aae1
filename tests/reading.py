"""Verbs as generators over a buffer: each yields while its unit is not whole, and returns it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any

from pytest_sockserver.scripting import verbs
from pytest_sockserver.scripting.buffer import NEED_MORE, Buffer, Ended, EndedWithin, Mismatch, NeedMore
from pytest_sockserver.scripting.framing import Framing
from pytest_sockserver.scripting.framing import take_frame as frame_from
from pytest_sockserver.scripting.matching import Shape, nothing_kept

__all__ = ["Ended", "EndedWithin", "Mismatch", "Steps"]

Steps = Generator[bool, None, Any]


class Known:
    """What a verb may ask of the conversation that it is run on."""

    def __init__(self, max_frame: int = 1 << 40, framing: Framing | None = None) -> None:
        self.max_frame, self.framing = max_frame, framing

    def lookup(self, name: str) -> bytes:
        return nothing_kept(name)


def steps(buffer: Buffer, look: Callable[[], bytes | NeedMore]) -> Steps:
    while (unit := look()) is NEED_MORE:
        yield bool(len(buffer))
    return unit


def take(buffer: Buffer, verb: verbs.Verb, known: Known | None = None) -> Steps:
    known = known or Known()
    return steps(buffer, lambda: verb.next_from(buffer, known))


def recv(buffer: Buffer, n: int) -> Steps:
    return take(buffer, verbs.Recv(n))


def recv_exactly(buffer: Buffer, n: int) -> Steps:
    return take(buffer, verbs.RecvExactly(n))


def recv_until(buffer: Buffer, delimiter: bytes, max_bytes: int) -> Steps:
    return take(buffer, verbs.RecvUntil(delimiter, max_bytes))


def recv_all(buffer: Buffer) -> Steps:
    return take(buffer, verbs.RECV_ALL)


def expect(buffer: Buffer, literal: bytes) -> Steps:
    return take(buffer, verbs.Expect(literal))


def expect_line(buffer: Buffer, match: Any, max_bytes: int) -> Steps:
    """Return the line and what its match has found."""

    def line() -> Steps:
        unit = yield from take(buffer, verbs.ExpectLine(match), Known(max_bytes))
        return unit, buffer.found

    return line()


def expect_eof(buffer: Buffer) -> Steps:
    return take(buffer, verbs.EXPECT_EOF)


def take_frame(buffer: Buffer, framing: Framing, max_frame: int) -> Steps:
    return steps(buffer, lambda: frame_from(buffer, framing, max_frame))


def agrees(buffer: Buffer, framing: Framing, max_frame: int, literals: Iterator[Shape]) -> Steps:
    """Return how far the literals and the frame agree."""

    def beyond() -> Steps:
        verb = verbs.WhoseFrame(framing, literals)
        yield from take(buffer, verb, Known(max_frame))
        return verb.beyond

    return beyond()
