"""Hypothesis strategies: what a network, or a broken server, makes of a reply.

``@given(parts=faults(REPLY))``, and in the test ``server.on(...).reply(*parts)``.  Each value is one thing gone wrong,
written as the parts that say it, and each can be said on the transport that it was made for.

The order of the alternatives is the product: it decides what the smallest counterexample is.  To hypothesis smaller is
what was drawn by fewer choices, then what was drawn by earlier ones; a number shrinks to the lowest, bytes to the
fewest.  So each alternative stands by itself, and draws no more than it needs: an end at once is no choice but that,
a cut is one more, a wrong byte two.  Among those of as many choices, a client that breaks at several is shown the
first: too little, then other bytes, then the same bytes at other times.

What waits is rare on purpose, for each example is performed, and a failing one many times: pauses are milliseconds, in
a few pieces, and a client is left waiting only if that was asked for (``stalls=True``).

It stands apart from ``sweeps`` since that wants pytest and this wants hypothesis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeVar

from .errors.location import Location, hide_frame
from .faults.modifiers import Append, Corrupt, Cut, Drip, Overwrite, Prepend, Repeat, Replace, Split, Spoof
from .scripting.effects import Close, Reset, SendEof, Stall, Urgent
from .scripting.parts import DATA, DATAGRAMS, EVERYWHERE, STREAMS, Effect, Part, check_count, check_seconds
from .scripting.script import Script
from .scripting.steps import last_step
from .scripting.tls_effects import Raw

__tracebackhide__ = hide_frame


try:
    from hypothesis import strategies as st
except ModuleNotFoundError as missing:
    if missing.name != "hypothesis":
        raise
    raise ModuleNotFoundError(
        'strategies are made of hypothesis, which is not installed: pip install "pytest-sockserver[strategies]"',
        name="hypothesis",
    ) from None


Transport = Literal["tcp", "tls", "unix", "udp", "unix_datagram"]
Parts = tuple[Part, ...]
_Drawn = TypeVar("_Drawn")
_Made = TypeVar("_Made")
_Kind = st.SearchStrategy[tuple[Part, ...]]

#: Seconds.  Where a reader was already waiting, a pause of 1 ms parted pieces in 60 of 60 runs on an idle machine.
_PAUSE: Final = 0.002

#: So that an example takes some milliseconds, however long the reply is.
_MOST_PIECES: Final = 5

#: A drip has no more pieces than that: a reply of more bytes has larger ones.
_MOST_DROPS: Final = 16

#: Bytes.  More garbage finds no more bugs, and shows worse.
_MOST_EXTRA: Final = 8

#: Bytes.  As wide as the lengths, counts and identifiers of most protocols.
_WIDEST_FIELD: Final = 4

_RAGGED: Final = Close(notify=False)
_ENDINGS: Final = (Close(), Reset(), SendEof())


def segmentations(
    data: bytes, *, pause: float = _PAUSE, max_pieces: int | None = _MOST_PIECES
) -> st.SearchStrategy[bytes | Split]:
    """Return a strategy for ``data`` whole, or in pieces: a part each, for streams.

    Shrinks to the whole, then to two pieces, the first of one byte.

    Args:
        pause: Seconds between two pieces.  They may still arrive together, on a busy machine above all; if hypothesis
            calls a test flaky, make it longer.
        max_pieces: ``None`` for as many as there are bytes.

    Raises:
        TypeError, ValueError: An argument is not what it must be.
    """
    _check_reply("segmentations()", data)
    check_seconds("segmentations()", pause)
    if max_pieces is not None:
        check_count("segmentations()", "a number of pieces", max_pieces, 1)
    most = len(data) if max_pieces is None else min(max_pieces, len(data))
    if most == 1:
        return st.just(data)
    offsets = st.sets(st.integers(1, len(data) - 1), max_size=most - 1).map(sorted)
    return _made(offsets, lambda at: Split(data, *at, pause=pause) if at else data)


def truncations(
    reply: bytes, transport: Transport = "tcp", *, stalls: bool = False
) -> st.SearchStrategy[tuple[Part, ...]]:
    """Return a strategy for too little of ``reply``: nothing or its first bytes, then the end of the connection.

    The end is clean, a reset or the end of the server's half; over TLS also one without ``close_notify``.  A datagram
    is lost, empty or cut.  Shrinks to nothing at all and a clean end, then to the earliest cut.

    Args:
        stalls: Ends include that nothing more happens: the client waits for its own time limit.  A lost datagram does
            that anyway.

    Raises:
        TypeError, ValueError: An argument is not what it must be.
    """
    _check("truncations()", reply, transport, stalls)
    return st.one_of(_truncated(reply, transport, stalls))


def corruptions(
    reply: bytes, transport: Transport = "tcp", *, stalls: bool = False
) -> st.SearchStrategy[tuple[Part, ...]]:
    """Return a strategy for ``reply`` with other bytes: said twice, with garbage before, behind or within.

    Where the reply has line endings, those become other ones.  Shrinks to the reply said twice, then to another line
    ending, to one byte too many, to one bit of the first byte.

    Args:
        stalls: Leave the connection open in any case.  Without it, what may have a client wait for bytes that do not
            come, as a wrong length does, is followed by ``Close()``.

    Raises:
        TypeError, ValueError: An argument is not what it must be.
    """
    _check("corruptions()", reply, transport, stalls)
    return st.one_of(_corrupted(reply, transport, stalls))


def faults(
    reply: bytes, transport: Transport = "tcp", *, stalls: bool = False, pause: float = _PAUSE
) -> st.SearchStrategy[tuple[Part, ...]]:
    """Return a strategy for ``reply`` with one fault: what ``truncations`` and ``corruptions`` say, and some more.

    The more: the whole reply and then an end; in two pieces or dripped; over TLS a record that does not decrypt, or
    is cut; behind urgent data on TCP; from another port on UDP.  A client that is right gives the right answer or one
    of its own errors, in time.

    Args:
        stalls: As for those two: let the client wait for its own time limit.
        pause: Seconds between two pieces.

    Raises:
        TypeError, ValueError: An argument is not what it must be.
    """
    _check("faults()", reply, transport, stalls)
    check_seconds("faults()", pause)
    kinds = _truncated(reply, transport, stalls)
    if transport in STREAMS:
        kinds += [st.just((reply, end)) for end in _endings(transport, stalls=False)]
    kinds += _corrupted(reply, transport, stalls)
    if transport in STREAMS:
        kinds += _in_pieces(reply, pause)
    if transport == "tls":
        kinds += _with_broken_record(reply)
    if transport == "tcp":
        kinds.append(st.just((Urgent(b"!"), reply)))
    if transport == "udp":
        kinds.append(st.just((Spoof(reply),)))
    return st.one_of(kinds)


def injections(transport: Transport = "tcp", *, stalls: bool = False) -> st.SearchStrategy[tuple[Part, ...]]:
    """Return a strategy for what becomes of something that a server says: ``server.inject(*parts, at=0, times=1)``.

    For servers whose replies are not written in the test, and so their length is not known: nothing is cut, and the
    place of a wrong byte is drawn when it is said.  Shrinks as ``faults`` does.

    Args:
        stalls: As for ``faults``; what is said on a stream may be lost, too.

    Raises:
        TypeError, ValueError: An argument is not what it must be.
    """
    _check_transport("injections()", transport)
    _check_stalls("injections()", stalls)
    ends = _endings(transport, stalls)
    then = _closed_after(transport, stalls)
    kinds: list[_Kind] = [st.just((end,)) for end in ends] + [st.just((DATA, end)) for end in ends]
    if transport in DATAGRAMS or stalls:
        kinds.insert(0, st.just(()))
    kinds += [
        st.just((Repeat(DATA),)),
        _made(_extra(), lambda extra: (Append(DATA, extra),)),
        _made(_extra(), lambda extra: (Prepend(DATA, extra), *then)),
        _made(st.integers(0, 255), lambda seed: (Corrupt(DATA, seed=seed), *then)),
    ]
    if transport == "udp":
        kinds.append(st.just((Spoof(DATA),)))
    return st.one_of(kinds)


def broken_scripts(
    script: Script, transport: Literal["tcp", "tls", "unix"] = "tcp", *, stalls: bool = False
) -> st.SearchStrategy[Script]:
    """Return a strategy for a script that is broken off before one of its steps, or after the last.

    A server performs one by ``server.script().extend(broken)``.  Shrinks to the earliest step.

    Args:
        script: One made by ``Script()``.
        stalls: As for ``truncations``.

    Raises:
        TypeError, ValueError: An argument is not what it must be.
    """
    if not isinstance(script, Script):
        raise TypeError(f"broken_scripts() expected a Script, not {script!r}: write Script().expect(...).send(...)")
    if not script.steps:
        raise ValueError("broken_scripts() expected a script that has steps")
    _check_transport("broken_scripts()", transport, STREAMS)
    _check_stalls("broken_scripts()", stalls)
    origin = Location()

    def broken_after(steps: int, end: Effect) -> Script:  # hypothesis prints it: broken_after(2, Reset())
        part = script.first(steps)
        part.place = lambda: origin  # the caller's line, and not one of hypothesis
        return part.send(end)

    places = [n for n in range(len(script.steps) + 1) if last_step(script.steps[:n]) is None]
    # Not a half-close, after which the client may go on: what it says then would be no part of the script.
    ends = [end for end in _endings(transport, stalls) if not end.ends_saying]
    return st.builds(broken_after, st.sampled_from(places), st.sampled_from(ends))


# Kinds


@st.composite
def _made(draw: st.DrawFn, drawn: st.SearchStrategy[_Drawn], make: Callable[[_Drawn], _Made]) -> _Made:
    """Do as ``drawn.map(make)`` does; but a counterexample prints as the parts, and not as the body of ``make``."""
    return make(draw(drawn))


def _truncated(reply: bytes, transport: str, stalls: bool) -> list[_Kind]:
    if transport in DATAGRAMS:
        return [st.just(()), st.just((b"",)), *_cut(reply)]
    ends = _endings(transport, stalls)
    return [st.just((end,)) for end in ends] + [kind for end in ends for kind in _cut(reply, end)]


def _cut(reply: bytes, *then: Part) -> list[_Kind]:
    lengths = range(1, len(reply))
    return [_made(st.sampled_from(lengths), lambda n: (Cut(reply, n), *then))] if lengths else []


def _endings(transport: str, stalls: bool) -> list[Effect]:
    ends: list[Effect] = [end for end in _ENDINGS if transport in end.fits]
    if transport == "tls":
        ends.append(_RAGGED)
    return [*ends, Stall()] if stalls and transport in STREAMS else ends


def _closed_after(transport: str, stalls: bool) -> Parts:
    """Return what follows a reply that may have a client wait for more of it."""
    return () if stalls or transport in DATAGRAMS else (Close(),)


def _corrupted(reply: bytes, transport: str, stalls: bool) -> list[_Kind]:
    then = _closed_after(transport, stalls)
    last = len(reply) - 1
    kinds: list[_Kind] = [st.just((Repeat(reply),))]
    if endings := _other_line_endings(reply):
        kinds.append(_made(st.sampled_from(endings), lambda other: (Replace(reply, *other), *then)))
    kinds += [
        _made(_extra(), lambda extra: (Append(reply, extra),)),
        _made(_extra(), lambda extra: (Prepend(reply, extra), *then)),
        _made(st.tuples(st.integers(0, last), st.integers(1, 255)), lambda drawn: (Corrupt(reply, *drawn), *then)),
    ]
    if last:
        kinds.append(_made(_fields(reply), lambda field: (Overwrite(reply, *field), *then)))
    return kinds


def _other_line_endings(reply: bytes) -> Sequence[tuple[bytes, bytes]]:
    if b"\r\n" in reply:
        return [(b"\r\n", b"\n"), (b"\r\n", b"\r"), (b"\r\n", b"")]
    return [(b"\n", b"\r\n"), (b"\n", b"\r"), (b"\n", b"")] if b"\n" in reply else []


def _extra() -> st.SearchStrategy[bytes]:
    return st.binary(min_size=1, max_size=_MOST_EXTRA)


def _fields(reply: bytes) -> st.SearchStrategy[tuple[int, bytes]]:
    """Return a strategy for a place, and what stands there instead: all ones above all, the length that is absurd."""

    def fields(at: int) -> st.SearchStrategy[tuple[int, bytes]]:
        widths = st.integers(2, min(_WIDEST_FIELD, len(reply) - at))
        ones = widths.map(lambda width: b"\xff" * width)
        others = widths.flatmap(lambda width: st.binary(min_size=width, max_size=width))
        return st.tuples(st.just(at), st.one_of(ones, others).filter(lambda new: not reply.startswith(new, at)))

    return st.integers(0, len(reply) - 2).flatmap(fields)


def _in_pieces(reply: bytes, pause: float) -> list[_Kind]:
    last = len(reply) - 1
    kinds: list[_Kind] = []
    if last:
        kinds.append(_made(st.integers(1, last), lambda at: (Split(reply, at, pause=pause),)))
    if last > 1:
        sizes = st.integers(-(-len(reply) // _MOST_DROPS), last)
        kinds.append(_made(sizes, lambda size: (Drip(reply, pause, size),)))
    return kinds


def _with_broken_record(reply: bytes) -> list[_Kind]:
    # Closed behind it: what the client says of it, an alert, would be an error of whoever reads on.
    records: list[Parts] = [(Raw.bad_record(), _RAGGED), (Raw.cut_record(), _RAGGED)]
    return [st.just(record) for record in records] + [kind for record in records for kind in _cut(reply, *record)]


# Checks


def _check(verb: str, reply: object, transport: object, stalls: object) -> None:
    _check_reply(verb, reply)
    _check_transport(verb, transport)
    _check_stalls(verb, stalls)


def _check_reply(verb: str, reply: object) -> None:
    if not isinstance(reply, bytes):
        raise TypeError(f"{verb} expected the bytes of a reply, not {reply!r}")
    if not reply:
        raise ValueError(f"{verb} expected a reply of at least one byte")


def _check_transport(verb: str, transport: object, known: frozenset[str] = EVERYWHERE) -> None:
    if not isinstance(transport, str) or transport not in known:
        names = [repr(name) for name in ("tcp", "tls", "unix", "udp", "unix_datagram") if name in known]
        raise ValueError(f"{verb} expected a transport, {', '.join(names[:-1])} or {names[-1]}, not {transport!r}")


def _check_stalls(verb: str, stalls: object) -> None:
    if not isinstance(stalls, bool):
        raise TypeError(f"{verb} expected stalls= to be True or False, not {stalls!r}")
