"""Disturb what a server says and hears, from outside of what answers.

Handlers, scripts, rules and handler classes are left as they are; what they say passes through here on its way to the
socket, and what they hear on its way from it.  What is recorded is what really passed: ``received`` what the client
sent, ``sent`` what left; each hit is a remark of the record, with the seed of what was drawn.

A connection looks here only if it has met a fault, or its server a disturbance: see ``unrest``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace

from .recording.events import NOTE
from .recording.recorder import Recorder, Tape
from .scripting.disturbance import RECEIVED, SENT, Disturbance


class Disturbing(AbstractContextManager["Disturbing"]):
    """A disturbance that is in force, until ``end()``, or until the ``with`` block ends."""

    def __init__(self, disturbance: Disturbance, recorder: Recorder, end: Callable[[Disturbing], None]) -> None:
        self.disturbance = disturbance
        self.also: Disturbing | None = None  # what ends with it
        self._recorder, self._end = recorder, end
        # Guarded by the recorder's lock.
        self._units: dict[int, int] = {}  # by connection
        self._hits = 0

    def __repr__(self) -> str:
        return f"<{self.disturbance}, hit {'once' if self.count == 1 else f'{self.count} times'}>"

    @property
    def count(self) -> int:
        """How often it has hit so far."""
        with self._recorder.lock:
            return self._hits

    @property
    def seed(self) -> int:
        """What is drawn from."""
        return self.disturbance.seed

    def end(self) -> None:
        """Disturb no more."""
        self._end(self)
        if self.also is not None:
            self.also.end()

    def __exit__(self, *error: object) -> None:
        self.end()

    def meets(self, connection: int, stream: int, *, free: bool) -> int | None:
        """Count a unit; return its index if it is hit.

        Args:
            stream: What numbers the units: a connection's index, or one number for all datagrams.
            free: No other disturbance has taken it.
        """
        with self._recorder.lock:
            unit = self._units.get(stream, 0)
            self._units[stream] = unit + 1
            if not free or not self.disturbance.hits(connection, unit, self._hits):
                return None
            self._hits += 1
            return unit


class Disturbances:
    """Those of one server that are in force, the latest first.

    Attributes:
        sent, received: Tuples, replaced and never changed: who walks through the old one goes on with it.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.sent: tuple[Disturbing, ...] = ()
        self.received: tuple[Disturbing, ...] = ()
        self._begun = False

    def __bool__(self) -> bool:
        """Whether there is any, or ever was: from the first one on connections look for them."""
        return self._begun

    def __iter__(self) -> Iterator[Disturbing]:
        """Yield those that are in force."""
        return iter((*self.sent, *self.received))

    def begin(self, disturbance: Disturbance, *, seeded: bool) -> Disturbing:
        """Put a disturbance in force; one that has no seed gets one, which is recorded with each hit."""
        if disturbance.probability is not None and not seeded:
            disturbance = replace(disturbance, seed=int.from_bytes(os.urandom(4), "big"))
        disturbing = Disturbing(disturbance, self._recorder, self._end)
        with self._recorder.lock:
            self._begun = True
            if disturbance.direction == SENT:
                self.sent = (disturbing, *self.sent)
            else:
                self.received = (disturbing, *self.received)
        return disturbing

    def _end(self, disturbing: Disturbing) -> None:
        with self._recorder.lock:
            self.sent = tuple(each for each in self.sent if each is not disturbing)
            self.received = tuple(each for each in self.received if each is not disturbing)

    def clear(self) -> list[object]:
        """Forget all of them; return what is to be let go without the lock."""
        with self._recorder.lock:
            gone: list[object] = [self.sent, self.received]
            self.sent = self.received = ()
            return gone

    def hit(self, direction: str, tape: Tape, *, by_datagram: bool = False) -> Disturbance | None:
        """Count a unit of a tape, a write or a datagram; return what disturbs it, and note that it does."""
        return _first_hit(
            self.received if direction == RECEIVED else self.sent, tape, -1 if by_datagram else tape.index
        )


def _first_hit(all_of_them: Iterable[Disturbing], tape: Tape, stream: int) -> Disturbance | None:
    hit: tuple[Disturbing, int] | None = None
    for each in all_of_them:  # each counts each unit, whoever takes it
        unit = each.meets(tape.index, stream, free=hit is None)
        if unit is not None:
            hit = each, unit
    if hit is None:
        return None
    disturbance = hit[0].disturbance
    where = "" if disturbance.direction == RECEIVED and stream >= 0 else f", at {hit[1]}"
    tape.note(NOTE, f"{disturbance}{where}".encode("utf-8", "backslashreplace"))
    return disturbance
