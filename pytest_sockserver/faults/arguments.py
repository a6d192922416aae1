"""Check what ``inject()`` is given.  Loaded by the first injection, and with it the modifiers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..errors.exceptions import UnsupportedFault
from ..errors.location import hide_frame
from ..scripting.effects import Close, Delay, EndAfter, Gate, Jitter, OpenGate, ReadSlowly, Reset, Stall, check_seed
from ..scripting.parts import DATA, DATAGRAMS, Modifier, Part, check_fit, checked_parts, shown
from ..scripting.times import Times, checked_times
from .fault_rule import RECEIVED, SENT, FaultRule
from .modifiers import Append, Corrupt, Cut, Drip, Overwrite, Prepend, Split, Spoof, Throttle

__tracebackhide__ = hide_frame

#: What can be done to the bytes of a stream while they come, whichever way they were cut.
_ON_THEIR_WAY = (Append, Corrupt, Cut, Drip, Overwrite, Prepend, Split, Throttle)
_AT_THEIR_SIDE = (Close, Delay, EndAfter, Gate, Jitter, OpenGate, ReadSlowly, Reset, Stall)


def checked_fault_rule(
    parts: Iterable[object],
    transport: str,
    *,
    direction: object,
    connections: object,
    at: object,
    probability: object,
    seed: object,
    times: object,
    tls: bool = True,
) -> FaultRule:
    """Return the injection, or raise the error that says what is wrong with it."""
    checked = checked_parts(parts, "inject()", data=True)
    check_fit(checked, transport, "inject()", tls=tls)
    if direction not in (SENT, RECEIVED):
        raise ValueError(f"inject() expected direction='sent' or 'received', as the server sees it, not {direction!r}")
    if direction == RECEIVED:
        _check_received(checked, transport)
        if at is not None and transport not in DATAGRAMS:
            raise TypeError(
                "inject() expected no at= for what is received on a stream, which has no units: give connections="
            )
    if probability is not None and (
        isinstance(probability, bool) or not isinstance(probability, (int, float)) or not 0 <= probability <= 1
    ):
        raise ValueError(f"inject() expected a probability from 0 to 1, not {probability!r}")
    if seed is not None:
        check_seed("inject()", seed)
        if probability is None:
            raise TypeError("inject() expected probability= beside seed=: nothing else is drawn")
    return FaultRule(
        checked,
        str(direction),
        _indices(connections, "connections"),
        _indices(at, "at"),
        probability,
        seed or 0,  # type: ignore[arg-type]
        _checked_times(times, least=0 if probability is not None else 1),
    )


def _checked_times(times: object, *, least: int) -> Times:
    """Return how often it may hit; ``least`` is how often it must, unless a pair says otherwise."""
    if isinstance(times, tuple):
        return checked_times(times)
    if times is not None and (type(times) is not int or times < 1):
        raise ValueError(
            f"inject() expected times= to be how often at most, 1 or more, or (least, most), not {times!r}"
        )
    return Times(least, times)


def _check_received(parts: tuple[Part, ...], transport: str) -> None:
    for part in parts:
        if transport in DATAGRAMS:
            if isinstance(part, Spoof):
                raise UnsupportedFault(f"inject() cannot do {part!r} to what is received: it came from where it came")
            continue
        inner: Any = part
        while isinstance(inner, _ON_THEIR_WAY) and not (isinstance(inner, Corrupt) and inner.at is None):
            inner = inner.data
        if inner is not DATA and not (inner is part and isinstance(part, _AT_THEIR_SIDE)):
            known = ", ".join(sorted(each.__name__ for each in (*_ON_THEIR_WAY, *_AT_THEIR_SIDE)))
            raise UnsupportedFault(
                f"inject() cannot do {shown(part)} to what is received on a stream: it comes as it comes; "
                f"DATA is all of it, alone or in a modifier, and beside it can stand {known}"
            )
    if transport not in DATAGRAMS and sum(_is_of_data(part) for part in parts) > 1:
        raise ValueError("inject() expected DATA once: what is received on a stream can be heard once")


def _is_of_data(part: Part) -> bool:
    return _is_of_data(part.data) if isinstance(part, Modifier) else part is DATA


def _indices(given: object, name: str) -> frozenset[int] | None:
    if given is None:
        return None
    values: Any = [given] if isinstance(given, int) else given
    expected = f"inject() expected {name}= to be an index, 0 or more, or several: [0, 2], not {given!r}"
    if isinstance(values, (str, bytes)) or not hasattr(values, "__iter__"):
        raise TypeError(expected)
    indices = frozenset(values)
    if any(type(each) is not int for each in indices):
        raise TypeError(expected)
    if not indices or min(indices) < 0:
        raise ValueError(expected)
    return indices
