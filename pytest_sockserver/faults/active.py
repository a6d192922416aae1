"""Inject faults into what a server says and hears, from outside of what answers.

Handlers, scripts, rules and handler classes are left as they are; what they say passes through here on its way to the
socket, and what they hear on its way from it.  What is recorded is what really passed: ``received`` what the client
sent, ``sent`` what left; each hit is a remark of the record, with the seed of what was drawn.

A connection looks here only if it has met a fault, or its server an injection: see ``fault_state``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Final

from ..errors.exceptions import UnmetExpectation
from ..recording.demands import Demand, Demands, running
from ..recording.events import NOTE
from ..recording.recorder import Recorder, Tape
from ..scripting.frozen import replaced
from ..scripting.parts import DATAGRAMS
from ..scripting.times import Times
from .fault_rule import RECEIVED, SENT, FaultRule

#: How many connections the error about an injection that missed names, and how many that missed are remembered.
_NAMED: Final = 3

#: The number under which all datagrams of a server are counted.
_ALL: Final = -1

# An injection counts units for itself: every injection in force sees every unit, also one that a later injection has
# taken.  So `at=` and `times=` mean the same whether or not another injection is declared beside it, and the error
# about one that missed can say where its hits went.
#
# The latest that hits wins.  Those before it note that it took their unit, and do not count a hit.
#
# On a received stream a hit is counted when the connection begins, before anything has come.  It has an effect only
# when something does; until then the connection is in `_silent`, and a client that sends nothing does not pass for a
# hit.
#
# Locks: counts are changed under the recorder's lock, in one step with the choice, so that two connections cannot both
# have the last of `times`.  The tuples in `Injections` are read without it.  The note of a hit is written after the
# lock is let go, and before the faulty bytes leave.
#
# What is drawn is drawn from the seed and the place of the unit, and from no generator: threads that come in another
# order get the same faults.
#
# Not done: no fault is performed here.  A hit only says which parts are, and the connection performs them.


class Injection(Demand, AbstractContextManager["Injection"]):
    """An injection that is in force, until ``end()``, or until the ``with`` block ends.

    Attributes:
        told: That it missed was raised.
    """

    is_of_the_call = True

    def __init__(self, fault_rule: FaultRule, injections: Injections) -> None:
        self.fault_rule = fault_rule
        self.owner = running()
        self.also: Injection | None = None  # what ends with it
        self.told = False
        self._injections, self._recorder = injections, injections.recorder
        # Guarded by the recorder's lock.
        self._units: dict[int, int] = {}  # by connection
        self._hits = 0
        self._silent: set[int] = set()  # streams that it has hit, and nothing has come yet that it is to change
        self._later: Injection | None = None  # one that has taken what this would have hit
        self._taken = 0  # how often
        self._is_left = False  # its ``with`` block has ended

    def __repr__(self) -> str:
        return f"<{self.fault_rule}, hit {'once' if self.count == 1 else f'{self.count} times'}>"

    @property
    def count(self) -> int:
        """How often it has hit so far."""
        with self._recorder.lock:
            return self._hits

    @property
    def seed(self) -> int:
        """What is drawn from."""
        return self.fault_rule.seed

    def end(self) -> None:
        """Inject no more.  That it has hit nothing, if so, fails no test then."""
        self._injections.demands.remove(self)
        self._end()

    def _end(self) -> None:
        self._injections.end(self)
        if self.also is not None:
            self.also.end()

    def __exit__(self, *error: object) -> None:
        # Nothing is raised here, where a coroutine may be: the end of the test's call tells that it has hit nothing.
        self._is_left = True
        self._end()

    def meets(self, connection: int, stream: int, later: Injection | None, *, has_come: bool = True) -> int | None:
        """Count a unit; return its index if it is hit.

        Args:
            stream: What numbers the units: a connection's index, or one number for all datagrams.
            later: The injection that has taken the unit already.
            has_come: There is something to inject a fault into; if not, ``has_effect()`` will say that there is.
        """
        with self._recorder.lock:
            unit = self._units.get(stream, 0)
            # Counted before it is known whether it hits: the next unit has the next index in any case.
            self._units[stream] = unit + 1
            if not self.fault_rule.hits(connection, unit, self._hits):
                return None
            if later is not None:
                self._later, self._taken = later, self._taken + 1
                return None
            self._hits += 1
            if not has_come:
                self._silent.add(connection)
            return unit

    def has_effect(self, connection: int) -> None:
        """Note that there is something to inject a fault into now on a stream that it has hit."""
        with self._recorder.lock:
            self._silent.discard(connection)

    def give_back(self, connection: int) -> None:
        """Count a hit as none: the client was a probe.  The recorder's lock must be held."""
        self._hits -= 1
        self._silent.discard(connection)

    # Verifying

    @property
    def has_missed(self) -> bool:
        """Whether it has had an effect on nothing so far."""
        return self._hits == len(self._silent)

    def unmet(self) -> UnmetExpectation | None:
        """Return the error about an injection that has not hit as often as it was to; once."""
        fault_rule, least = self.fault_rule, self.fault_rule.times.least
        with self._recorder.lock:
            count = self._hits - len(self._silent)
            if count >= least or self.told:
                return None
            self.told = True
            came = {0: "never did", 1: "hit only once"}.get(count, f"hit only {count} times")
            block = "in its with block, " if self._is_left else ""
            text = f"{fault_rule}, {fault_rule.origin.short}, was to hit {Times(least, None)}, {block}and {came}"
            text += f"\n  since then {self._passed()}"
            if self._later is not None:
                text += f"\n  {self._taken} of them went to the later {self._later.fault_rule}, "
                text += self._later.fault_rule.origin.short
        text += self._injections.past()
        text += f"\n  if it may miss, write times=(0, {fault_rule.times.most})"
        error = UnmetExpectation(text)
        error.placed = True
        return error.with_traceback(fault_rule.origin.traceback())

    def _passed(self) -> str:
        """Return how many units have passed by, in words."""
        is_received = self.fault_rule.direction == RECEIVED
        if self._injections.transport in DATAGRAMS:
            count = self._units.get(_ALL, 0)
            return f"{_counted(count, 'datagram')} {'came' if is_received else f'{_were(count)} sent'}"
        if is_received:
            text = f"{_counted(len(self._units), 'connection')} {_were(len(self._units))} read"
            silent = len(self._silent)
            return text + (f", {silent} of which brought nothing" if silent else "")
        total = sum(self._units.values())
        where = [f"{count} on connection {index}" for index, count in sorted(self._units.items())]
        more = f" and {len(where) - _NAMED} more connections" if len(where) > _NAMED else ""
        named = f": {', '.join(where[:_NAMED])}{more}" if where else ""
        return f"{_counted(total, 'write')} {_were(total)} made{named}"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _were(count: int) -> str:
    return "was" if count == 1 else "were"


class Injections:
    """Those of one server that are in force, the latest first.

    Attributes:
        past: Returns what a message adds about bytes that no injection meets.
        sent, received: Tuples, replaced and never changed: who walks through the old one goes on with it.
    """

    def __init__(self, recorder: Recorder, transport: str, demands: Demands) -> None:
        self.recorder, self.transport, self.demands = recorder, transport, demands
        self.past: Callable[[], str] = str
        self.sent: tuple[Injection, ...] = ()
        self.received: tuple[Injection, ...] = ()
        self._missed: tuple[Injection, ...] = ()  # those that have ended without a hit, the latest ones
        self._begun = False

    def __bool__(self) -> bool:
        """Whether there is any, or ever was: from the first one on connections look for them."""
        return self._begun

    def missed(self) -> list[FaultRule]:
        """Return those that have hit nothing, of which nothing was said, and which are no earlier test's."""
        with self.recorder.lock:
            return [
                each.fault_rule
                for each in (*self.sent, *self.received, *self._missed)
                if each.has_missed and not each.told and (each.owner is None or not each.owner.whole.is_over)
            ]

    def begin(self, fault_rule: FaultRule, *, seeded: bool, is_demanded: bool) -> Injection:
        """Put an injection in force; one that has no seed gets one, which is recorded with each hit.

        Args:
            is_demanded: It must hit as often as its ``times`` say.
        """
        if fault_rule.probability is not None and not seeded:
            fault_rule = replaced(fault_rule, seed=int.from_bytes(os.urandom(4), "big"))
        injection = Injection(fault_rule, self)
        with self.recorder.lock:
            # Never taken back: connections that have a fault state keep it, and go on to look.
            self._begun = True
            if fault_rule.direction == SENT:
                self.sent = (injection, *self.sent)
            else:
                self.received = (injection, *self.received)
                self.recorder.is_faulty = True
            if is_demanded and fault_rule.times.least:
                self.demands.add(injection)
        return injection

    def end(self, injection: Injection) -> None:
        """Take one out of force."""
        with self.recorder.lock:
            if injection.has_missed and injection in (*self.sent, *self.received):
                self._missed = (injection, *self._missed)[:_NAMED]
            self.sent = tuple(each for each in self.sent if each is not injection)
            self.received = tuple(each for each in self.received if each is not injection)
            self.recorder.is_faulty = bool(self.received)

    def clear(self) -> list[object]:
        """Forget all of them; return what is to be let go without the lock."""
        with self.recorder.lock:
            gone: list[object] = [self.sent, self.received, self._missed]
            self.sent = self.received = self._missed = ()
            self.recorder.is_faulty = False
            return gone

    def let_go(self) -> None:
        """Undo the circles that it is in: nothing comes any more into which faults could be injected."""
        self.sent = self.received = self._missed = ()
        self.past = str

    def hit(
        self,
        direction: str,
        tape: Tape,
        *,
        but: Sequence[Injection] = (),
        by_datagram: bool = False,
        has_come: bool = True,
        used: Callable[[Callable[[], object]], object] | None = None,
    ) -> Injection | None:
        """Count a unit of a tape, a write or a datagram; return the injection that hits it, and note the hit.

        Args:
            but: Those that have met the unit before.
            used: Called with what gives a hit back, in one step with the hit, the recorder's lock held.
        """
        hit: Injection | None = None
        at, stream = 0, _ALL if by_datagram else tape.index
        with self.recorder.lock:
            for each in self.received if direction == RECEIVED else self.sent:  # each counts each unit that comes
                if each in but:
                    continue
                unit = each.meets(tape.index, stream, hit, has_come=has_come)
                if unit is not None:
                    hit, at = each, unit
            # In one step with the hit: a look for probes in between would not give it back.
            if hit is not None and used is not None:
                used(partial(hit.give_back, tape.index))
        if hit is not None:
            where = "" if direction == RECEIVED and not by_datagram else f", at {at}"
            tape.note(NOTE, f"{hit.fault_rule}{where}".encode("utf-8", "backslashreplace"))
        return hit
