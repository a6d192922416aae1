"""Parts that hold a part, and change how it is said: less of it, more of it, other bytes, other times.

A modifier sees the actions that its part comes to and yields others: bytes are changed, everything else passes.  Each
works on a stream of actions, never on all of them at once, so that what has no end can be modified as well.  What it
cannot do, since there are too few bytes or nothing to replace, is an error and never a weaker fault.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, ClassVar, Final

from ..errors.location import hide_frame
from ..scripting.effects import Delay, Gate, check_seed, checked_gate
from ..scripting.frozen import frozen
from ..scripting.parts import (
    DATAGRAMS,
    ENDLESS,
    FLUSH,
    STREAMS,
    Action,
    Effect,
    Held,
    Modifier,
    Part,
    Remark,
    Spoofed,
    check_count,
    check_seconds,
    checked_parts,
    in_progress,
)
from ..scripting.seeds import drawn

__tracebackhide__ = hide_frame

# Rules for `applied`:
#
# - It is a generator, and runs while what it yields is being sent.  What cannot be known before the bytes come (a reply
#   function makes them, or `DATA` stands for them) is checked at the end, and raised after what was yielded has left.
# - What can be known from the part itself is refused by the constructor, at the test's own line.
# - An action that is no bytes is passed on unchanged and in its place.  A pause or a gate of an inner modifier keeps
#   its position among the bytes.
# - Offsets count over all bytes of the part, however that is cut into pieces.  `Replace`, and `Corrupt` with a seed,
#   look at each piece by itself.
# - Only `Repeat` keeps all bytes, and therefore refuses what has no end.  `Append` keeps the latest piece, since only
#   the next one tells that it was not the last.
#
# `Hold` and `Spoof` stand outermost: they wrap bytes into actions, and a modifier around them would find no bytes to
# change and pass them on, which is a weaker fault in silence.
#
# A part without end is the last of its reply, so `is_last` is handed from the inner part to the outer.  `Cut` alone
# ends it.
#
# Not done: no modifier waits, sends or draws from a generator.  A pause is an action, and a draw is a hash of its
# place.


#: Bytes after which what has no end is handed on: as many as a send offers to the kernel at once.
_BLOCK: Final = 65536

#: Bytes that can be said again: more than any reply, less than a test's machine has.
_LONGEST: Final = 256 * 1024 * 1024

#: Seconds.  How often a throttled stream says something; a shorter step is all system calls, a longer one is bursts.
_STEP: Final = 0.02

_WHOLE = "a datagram arrives whole"


# How much of it


@frozen(init=False, repr=False)
class Cut(Modifier):
    """Say only the first ``n`` bytes of a part."""

    data: Part
    n: int

    def __init__(self, data: Part, n: int) -> None:
        checked = _checked(data, "Cut()")
        check_count("Cut()", "a number of bytes", n, 0)
        if isinstance(checked, bytes) and n > len(checked):
            raise ValueError(f"Cut() expected at most the {len(checked)} bytes that there are, not {n}")
        _set(self, data=checked, n=n)

    def applied(self, actions: Iterator[Action]) -> Iterator[Action]:
        """Yield the actions up to the cut."""
        left = self.n
        for action in actions:
            if not isinstance(action, bytes):
                if action is not ENDLESS:  # it has one now
                    yield action
                continue
            yield action[:left]
            left -= min(left, len(action))
            if not left:
                return
        # Too few came: a cut that cuts nothing is no fault, and the test would pass for the wrong reason.
        if left:
            raise ValueError(f"Cut() was to say {self.n} bytes, and there were only {self.n - left}")


@frozen(init=False, repr=False)
class Repeat(Modifier):
    """Say a part several times; with ``times=None`` without end, until the client is gone or the server stops."""

    data: Part
    times: int | None = 2

    def __init__(self, data: Part, times: int | None = 2) -> None:
        if times is not None:
            check_count("Repeat()", "a number of times", times, 1)
        checked = _checked(data, "Repeat()", endless=False)
        if checked == b"":
            raise ValueError("Repeat() expected at least one byte")
        _set(self, data=checked, times=times)
        if times is None:
            _set(self, fits=STREAMS, is_last=True)

    why_not: ClassVar[Mapping[str, str]] = {"": "a stream alone has no end; give a number of times"}

    def applied(self, actions: Iterator[Action]) -> Iterator[Action]:
        """Yield the actions again and again."""
        # Once, so that a reply function is called once; its bytes are then repeated.
        kept = list(_bounded(actions, "Repeat()"))
        if self.times is not None:
            if kept:  # else the most that times= can be is no time at all
                again = (action for _ in range(self.times) for action in kept)
                yield from in_progress(again, "Repeat()")
            return
        size = sum(len(each) for each in kept if isinstance(each, bytes))
        if not size:
            raise ValueError("Repeat() was to say something without end, and its part said no byte")
        # Small parts are handed on many at a time, up to what one send offers to the kernel.
        block = kept * max(1, _BLOCK // size)
        yield ENDLESS
        while True:
            yield from block
            yield FLUSH


@frozen(init=False, repr=False)
class Prepend(Modifier):
    """Say ``extra`` right before a part: on a datagram, in it."""

    data: Part
    extra: bytes

    def __init__(self, data: Part, extra: bytes) -> None:
        _set(self, data=_checked(data, "Prepend()"), extra=_checked_bytes("Prepend()", extra))

    def applied(self, actions: Iterator[Action]) -> Iterator[Action]:
        """Yield the extra bytes with the first that are said."""
        begun = False
        for action in actions:
            first = isinstance(action, bytes) and not begun
            yield self.extra + action if first else action  # type: ignore[operator]
            begun = begun or first
        if not begun:
            yield self.extra


@frozen(init=False, repr=False)
class Append(Modifier):
    """Say ``extra`` right after a part: on a datagram, in it."""

    data: Part
    extra: bytes

    def __init__(self, data: Part, extra: bytes) -> None:
        _set(self, data=_checked(data, "Append()"), extra=_checked_bytes("Append()", extra))

    def applied(self, actions: Iterator[Action]) -> Iterator[Action]:
        """Yield the extra bytes with the last that are said."""
        last: bytes | None = None
        for action in actions:
            if isinstance(action, bytes):
                if last is not None:
                    yield last
                last = action
                continue
            if last is not None:
                yield last
            last = None
            yield action
        yield (last or b"") + self.extra


# Other bytes


@frozen(init=False, repr=False)
class Corrupt(Modifier):
    """Flip bits of one byte: of the byte ``at``, or, given a ``seed``, of one drawn from each piece that is said.

    Args:
        at: From 0 on, counted over all that the part says.
        flip: The bits, from 1 to 255.
    """

    data: Part
    at: int | None = None
    flip: int = 0xFF
    seed: int | None = None

    def __init__(self, data: Part, at: int | None = None, flip: int = 0xFF, *, seed: int | None = None) -> None:
        checked = _checked(data, "Corrupt()")
        if (at is None) == (seed is None):
            raise TypeError("Corrupt() expected which byte, or a seed to draw it from: Corrupt(data, 3)")
        if type(flip) is not int or not 1 <= flip <= 255:
            raise ValueError(f"Corrupt() expected the bits to flip, from 1 to 255, not {flip!r}")
        if at is None:
            check_seed("Corrupt()", seed)
        else:
            check_count("Corrupt()", "the number of a byte", at, 0)
            _check_within("Corrupt()", checked, at + 1)
        _set(self, data=checked, at=at, flip=flip, seed=seed)

    def applied(self, actions: Iterator[Action]) -> Iterator[Action]:
        """Yield the actions with a byte changed."""
        begin = pieces = 0
        for action in actions:
            if not isinstance(action, bytes) or not action:
                yield action
                continue
            at = self.at - begin if self.at is not None else drawn(self.seed or 0, pieces, len(action)) % len(action)
            if self.seed is not None:
                yield Remark(f"Corrupt(seed={self.seed}) flipped byte {at} of {len(action)}")
            if 0 <= at < len(action):
                action = action[:at] + bytes([action[at] ^ self.flip]) + action[at + 1 :]
            begin, pieces = begin + len(action), pieces + 1
            yield action
        if self.at is not None and begin <= self.at:
            raise ValueError(f"Corrupt() was to flip byte {self.at}, and there were only {begin} bytes")
        if not begin:
            raise ValueError("Corrupt() was to flip a byte, and nothing was said")


@frozen(init=False, repr=False)
class Overwrite(Modifier):
    """Say ``new`` in the place of as many bytes from the byte ``at`` on: a wrong length, another identifier."""

    data: Part
    at: int
    new: bytes

    def __init__(self, data: Part, at: int, new: bytes) -> None:
        checked = _checked(data, "Overwrite()")
        check_count("Overwrite()", "the number of a byte", at, 0)
        _check_within("Overwrite()", checked, at + len(_checked_bytes("Overwrite()", new)))
        _set(self, data=checked, at=at, new=new)

    def applied(self, actions: Iterator[Action]) -> Iterator[Action]:
        """Yield the actions with bytes changed."""
        begin, end = 0, self.at + len(self.new)
        for action in actions:
            if not isinstance(action, bytes):
                yield action
                continue
            low, high = max(self.at - begin, 0), min(end - begin, len(action))
            if low < high:
                action = action[:low] + self.new[begin + low - self.at : begin + high - self.at] + action[high:]
            begin += len(action)
            yield action
        if begin < end:
            raise ValueError(f"Overwrite() was to change bytes {self.at} to {end - 1}, and there were only {begin}")


@frozen(init=False, repr=False)
class Replace(Modifier):
    r"""Say ``new`` wherever the part says ``old``: ``Replace(reply, b"\r\n", b"\n")`` is a wrong line ending."""

    data: Part
    old: bytes
    new: bytes

    def __init__(self, data: Part, old: bytes, new: bytes) -> None:
        checked = _checked(data, "Replace()")
        _checked_bytes("Replace()", old)
        if not isinstance(new, bytes):
            raise TypeError(f"Replace() expected bytes, not {new!r}")
        if isinstance(checked, bytes) and old not in checked:
            raise ValueError(f"Replace() expected a part that says {old!r}, not {checked!r}")
        _set(self, data=checked, old=old, new=new)

    def applied(self, actions: Iterator[Action]) -> Iterator[Action]:
        """Yield the actions, those of them that are bytes with the other bytes; each piece is looked at by itself."""
        found = False
        for action in actions:
            if isinstance(action, bytes):
                found = found or self.old in action
                action = action.replace(self.old, self.new)
            yield action
        if not found:
            raise ValueError(f"Replace() was to replace {self.old!r}, which the part did not say")


# Other times


@frozen(init=False, repr=False)
class Drip(Modifier):
    """Say a part in pieces of ``size`` bytes, with a pause of so many seconds between them.

    What is promised are the bytes and the least total time; pieces may still arrive together.
    """

    data: Part
    pause: float
    size: int = 1

    fits = STREAMS
    takes_time = True
    why_not: ClassVar[Mapping[str, str]] = {"": _WHOLE}

    def __init__(self, data: Part, pause: float, size: int = 1) -> None:
        checked = _checked(data, "Drip()")
        check_seconds("Drip()", pause)
        if type(size) is not int or size < 1:
            raise ValueError(f"Drip() expected pieces of at least 1 byte, not {size!r}")
        _set(self, data=checked, pause=pause, size=size)

    def applied(self, actions: Iterator[Action]) -> Iterator[Action]:
        """Yield the actions in pieces, with pauses between."""
        return _in_pieces(actions, self.size, self.pause)


@frozen(init=False, repr=False)
class Throttle(Modifier):
    """Say a part at no more than ``rate`` bytes per second, a fiftieth of a second's worth at once."""

    data: Part
    rate: float

    fits = STREAMS
    takes_time = True
    why_not: ClassVar[Mapping[str, str]] = {"": _WHOLE}

    def __init__(self, data: Part, rate: float) -> None:
        checked = _checked(data, "Throttle()")
        if isinstance(rate, bool) or not isinstance(rate, (int, float)):
            raise TypeError(f"Throttle() expected bytes per second, not {rate!r}")
        if not 0.001 <= rate < float("inf"):
            raise ValueError(f"Throttle() expected bytes per second, 0.001 or more, not {rate!r}")
        _set(self, data=checked, rate=rate)

    def applied(self, actions: Iterator[Action]) -> Iterator[Action]:
        """Yield the actions in pieces, with pauses between."""
        size = max(1, int(self.rate * _STEP))
        return _in_pieces(actions, size, size / self.rate)


@frozen(init=False, repr=False)
class Split(Modifier):
    """Say a part in pieces, cut at these offsets, with a pause, or a gate, between them.

    Args:
        at: Offsets, in order, each within the part.
        pause: Seconds.  Pieces that follow one another at once arrive together more often than not.
        gate: Instead of a pause: each further piece waits until ``server.open_gate()`` opens the gate of this name.
    """

    data: Part
    at: tuple[int, ...]
    pause: float = 0.002
    gate: str | None = None

    fits = STREAMS
    takes_time = True
    why_not: ClassVar[Mapping[str, str]] = {"": _WHOLE}

    def __init__(self, data: Part, *at: int, pause: float = 0.002, gate: str | None = None) -> None:
        checked = _checked(data, "Split()")
        if not at:
            raise TypeError("Split() expected where to cut: Split(data, 3)")
        for each in at:
            check_count("Split()", "an offset", each, 1)
        if any(one >= other for one, other in pairwise(at)):
            raise ValueError(f"Split() expected offsets in order, each once, not {', '.join(map(str, at))}")
        _check_within("Split()", checked, at[-1] + 1)
        check_seconds("Split()", pause)
        if gate is not None:
            checked_gate(gate, "Split()")
        _set(self, data=checked, at=at, pause=pause, gate=gate)

    def applied(self, actions: Iterator[Action]) -> Iterator[Action]:
        """Yield the actions, bytes parted at the offsets."""
        begin, left = 0, list(self.at)
        for action in actions:
            if not isinstance(action, bytes):
                yield action
                continue
            while left and left[0] < begin + len(action):
                at = left.pop(0) - begin
                yield action[:at]
                yield Delay(self.pause) if self.gate is None else Gate(self.gate)
                begin, action = begin + at, action[at:]
            begin += len(action)
            yield action
        if left:
            raise ValueError(f"Split() was to cut after byte {left[0]}, and there were only {begin} bytes")


@frozen(init=False, repr=False)
class Hold(Modifier):
    """Say a part only after so many further replies on this connection, of datagrams to this peer: out of order.

    Held when the connection ends, or the server stops, it is never said.
    """

    data: Part
    after: int = 1

    takes_time = True

    def __init__(self, data: Part, after: int = 1) -> None:
        check_count("Hold()", "a number of replies", after, 1)
        _set(self, data=_checked(data, "Hold()", endless=False), after=after)

    def applied(self, actions: Iterator[Action]) -> Iterator[Action]:
        """Yield what is to be held."""
        return (
            Held(action, self.after) if isinstance(action, bytes) else action for action in _bounded(actions, "Hold()")
        )


# Elsewhere


@frozen(init=False, repr=False)
class Spoof(Modifier):
    """Say a part from elsewhere: from another port of the server's host, or from ``host``, another local address."""

    data: Part
    host: str | None = None

    fits = DATAGRAMS - {"unix_datagram"}
    why_not: ClassVar[Mapping[str, str]] = {"": "UDP alone lets a reply come from elsewhere"}

    def __init__(self, data: Part, host: str | None = None) -> None:
        if host is not None:
            _check_loopback(host)
        _set(self, data=_checked(data, "Spoof()"), host=host)

    def applied(self, actions: Iterator[Action]) -> Iterator[Action]:
        """Yield the datagrams, each to be said from elsewhere."""
        return (Spoofed(action, self.host) if isinstance(action, bytes) else action for action in actions)


def _bounded(actions: Iterator[Action], verb: str) -> Iterator[Action]:
    """Yield the actions, as long as they may have an end: a function may return what has none."""
    size = 0
    for action in actions:
        size += len(action) if isinstance(action, bytes) else 0
        if size > _LONGEST:
            raise ValueError(f"{verb} was to keep more than {_LONGEST:,} bytes: what has no end is said once")
        yield action


def _in_pieces(actions: Iterator[Action], size: int, pause: float) -> Iterator[Action]:
    begun = False
    for action in actions:
        if not isinstance(action, bytes):
            yield action
            continue
        for start in range(0, len(action), size):
            if begun:
                yield Delay(pause)
            yield action[start : start + size]
            begun = True


def _set(part: Modifier, **values: Any) -> None:
    for name, value in values.items():
        object.__setattr__(part, name, value)
    inner = values.get("data")
    if isinstance(inner, Modifier) and inner.is_last and not isinstance(part, Cut):
        object.__setattr__(part, "is_last", True)


def _checked(data: object, verb: str, *, endless: bool = True) -> Part:
    """Return what a modifier is to hold, or raise the error that says why it cannot."""
    checked = checked_parts([data], verb, data=True)[0]
    if isinstance(checked, Effect):
        raise ValueError(f"{verb} expected something that is said, not {checked!r}: write it beside, not within")
    if isinstance(checked, (Hold, Spoof)):
        name = type(checked).__name__
        raise ValueError(f"{verb} cannot hold {checked!r}: write {name}({verb[:-1]}...)), with {name} outermost")
    if not endless and isinstance(checked, Modifier) and checked.is_last:
        raise ValueError(f"{verb} cannot hold what has no end: {checked!r}")
    return checked


def _checked_bytes(verb: str, data: object) -> bytes:
    if not isinstance(data, bytes):
        raise TypeError(f"{verb} expected bytes, not {data!r}")
    if not data:
        raise ValueError(f"{verb} expected at least one byte")
    return data


def _check_within(verb: str, data: Part, least: int) -> None:
    if isinstance(data, bytes) and len(data) < least:
        raise ValueError(f"{verb} expected a part of at least {least} bytes, not the {len(data)} that there are")


def _check_loopback(host: object) -> None:
    import ipaddress

    if not isinstance(host, str):
        raise TypeError(f"Spoof() expected an address of this machine, '127.0.0.2' for example, not {host!r}")
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    if not local:
        raise ValueError(f"Spoof() expected one of 127.0.0.0/8, '127.0.0.2' for example, not {host!r}")
