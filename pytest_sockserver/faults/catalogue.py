"""The faults that a fault matrix tries, each with a name and with what a sound client makes of it.

A :class:`Fault` is put on a server whose own behaviour was declared already; that is not touched.  The list is made for
one conversation, from what the server said when nothing was wrong: faults are injected into each reply by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final

from ..scripting.effects import Close, Delay, Reset, SendEof, Stall
from ..scripting.frozen import frozen
from ..scripting.parts import DATA, DATAGRAMS, Part
from ..scripting.rules import HANDSHAKE
from ..scripting.seeds import garbage
from ..scripting.tls_effects import Alert, Raw, StartTLS
from .modifiers import Append, Corrupt, Cut, Drip, Hold, Prepend, Repeat, Split, Spoof

#: Seconds that a late reply is late: enough for the pauses of a test, too short for a sensible time-out.
_LATE: Final = 0.2

#: Bytes of garbage: more than any header, and no text.
_GARBAGE: Final = 64

#: Pieces of a reply that comes in small ones: bytes, if it is short.
_PIECES: Final = 100

#: What a sound client makes of a fault.
SAME: Final = "the same result"
SAME_OR_ERROR: Final = "the same result, or an error"
ERROR: Final = "an error"
#: Anything but to hang: the protocol may have no check that would tell.
ANYTHING: Final = "anything"


@frozen
class Fault:
    """Something that goes wrong.

    Attributes:
        name: In words, as the client's side would tell it.
        put: Puts it on a server.
        sound: What a sound client makes of it.
    """

    name: str
    put: Callable[[Any], object]
    sound: str = SAME_OR_ERROR


def faults_for(transport: str, replies: Sequence[bytes], *, most: int, seed: int) -> Iterator[Fault]:
    """Yield the faults that a transport can show.

    Args:
        replies: What the server said when nothing was wrong: its writes, or its datagrams.
        most: Faults are injected into so many replies at most; if there are more, into the first ones and the last.
        seed: What garbage is drawn from.
    """
    lost = ERROR if replies else SAME_OR_ERROR  # who wants no answer cannot miss it
    if transport in DATAGRAMS:
        yield Fault("nobody there", lambda server: server.refuse(), lost)
        yield Fault("every datagram lost", lambda server: server.blackhole(), lost)
        yield Fault("the first query lost", lambda server: server.inject(direction="received", at=0))
    else:
        yield from _of_listeners(transport)
        yield from _of_connections(transport, lost, seed)
    if transport == "tls":
        yield from _of_handshakes()
        yield from _of_certificates()
    for at in _chosen(len(replies), most):
        of = "" if len(replies) == 1 else f" {at + 1}"
        kinds = (
            _of_datagrams(transport, replies[at], seed)
            if transport in DATAGRAMS
            else _of_replies(transport, replies[at], seed)
        )
        for name, sound, parts in kinds:
            yield Fault(f"reply{of} {name}", partial(_inject, parts=parts, at=at), sound)


def _inject(server: Any, *, parts: tuple[Part, ...], at: int) -> None:
    server.inject(*parts, at=at)


def _chosen(count: int, most: int) -> list[int]:
    """Return the indices of the replies that faults are injected into."""
    return list(range(count)) if count <= most else [*range(most - 1), count - 1]


def _of_listeners(transport: str) -> Iterator[Fault]:
    yield Fault("connection refused", lambda server: server.refuse(), ERROR)
    if transport == "unix":
        yield Fault("no such path", lambda server: server.unlink(), ERROR)
        yield Fault("the queue of connections full", lambda server: server.overflow(), ERROR)
    else:
        yield Fault("connection never made", lambda server: server.blackhole(), ERROR)


def _of_connections(transport: str, lost: str, seed: int) -> Iterator[Fault]:
    def always(*parts: Part) -> Callable[[Any], object]:
        return lambda server: server.limit_connections(0, *parts)

    yield Fault("closed at once", always(Close()), lost)
    if transport != "unix":
        yield Fault("reset at once", always(Reset()), lost)
    yield Fault("connected, then silence", always(Stall()), lost)
    yield Fault("garbage, then closed", always(garbage(_GARBAGE, seed=seed), Close()), lost)
    end: Part = Close() if transport == "unix" else Reset()
    ended = "closed" if transport == "unix" else "reset"
    yield Fault(f"the first connection {ended}, the next served", lambda server: server.inject(end, connections=0))


def _of_replies(transport: str, reply: bytes, seed: int) -> Iterator[tuple[str, str, tuple[Part, ...]]]:
    """Yield what can be done to a reply, in words, what a sound client makes of it, and the parts."""
    noise, half = garbage(_GARBAGE, seed=seed), len(reply) // 2
    yield "in small pieces", SAME, (Drip(DATA, 0.001, max(1, len(reply) // _PIECES)),)
    if half:
        yield "in two halves", SAME, (Split(DATA, half, pause=0.01),)
    yield "late", SAME, (Delay(_LATE), DATA)
    yield "lost, then silence", SAME_OR_ERROR, ()
    yield "not said, closed", SAME_OR_ERROR, (Close(),)
    if transport != "unix":
        yield "not said, reset", SAME_OR_ERROR, (Reset(),)
    if half:
        yield "half said, closed", SAME_OR_ERROR, (Cut(DATA, half), Close())
        yield "half said, then silence", SAME_OR_ERROR, (Cut(DATA, half), Stall())
        if transport != "unix":
            yield "half said, reset", SAME_OR_ERROR, (Cut(DATA, half), Reset())
    if len(reply) > 1:
        yield "said but for its last byte, closed", SAME_OR_ERROR, (Cut(DATA, len(reply) - 1), Close())
        yield "said but for its last byte, then silence", SAME_OR_ERROR, (Cut(DATA, len(reply) - 1), Stall())
    if transport == "tls":
        yield "half said, closed without close_notify", SAME_OR_ERROR, (Cut(DATA, half), Close(notify=False))
        yield "followed by a record that does not decrypt", SAME_OR_ERROR, (DATA, Raw.bad_record(seed=seed))
        yield "followed by half a record, closed", SAME_OR_ERROR, (DATA, Raw.cut_record(seed=seed), Close(notify=False))
    yield "with its first byte corrupt", ANYTHING, (Corrupt(DATA, 0),)
    if len(reply) > 1:
        yield "with its last byte corrupt", ANYTHING, (Corrupt(DATA, len(reply) - 1),)
    yield "garbage instead", SAME_OR_ERROR, (noise,)
    yield "after garbage", SAME_OR_ERROR, (Prepend(DATA, noise),)
    yield "followed by garbage", SAME_OR_ERROR, (Append(DATA, noise),)
    yield "said twice", SAME_OR_ERROR, (Repeat(DATA),)
    yield "said without end", SAME_OR_ERROR, (Repeat(DATA, None),)
    if b"\r\n" in reply:
        yield "with LF for CRLF", SAME_OR_ERROR, (_with_bare_newlines,)
    if transport != "tls":  # whose half-close is an end of what both sides say, to most clients
        yield "followed by the end of the stream", SAME_OR_ERROR, (DATA, SendEof())


def _with_bare_newlines(data: bytes) -> bytes:
    return data.replace(b"\r\n", b"\n")


def _of_datagrams(transport: str, reply: bytes, seed: int) -> Iterator[tuple[str, str, tuple[Part, ...]]]:
    noise = garbage(_GARBAGE, seed=seed)
    yield "lost", SAME_OR_ERROR, ()
    yield "late", SAME, (Delay(_LATE), DATA)
    yield "said twice", SAME, (Repeat(DATA),)
    yield "after the next one", SAME_OR_ERROR, (Hold(DATA),)
    yield "empty", SAME_OR_ERROR, (b"",)
    if len(reply) > 1:
        yield "cut in half", SAME_OR_ERROR, (Cut(DATA, len(reply) // 2),)
        yield "with its last byte corrupt", ANYTHING, (Corrupt(DATA, len(reply) - 1),)
    if reply:
        yield "with its first byte corrupt", ANYTHING, (Corrupt(DATA, 0),)
    yield "garbage instead", SAME_OR_ERROR, (noise,)
    yield "after garbage", SAME_OR_ERROR, (noise, DATA)
    yield "followed by trailing bytes", SAME_OR_ERROR, (Append(DATA, noise),)
    if transport == "udp":
        forged: Part = Corrupt(DATA, len(reply) - 1) if reply else noise
        yield "after a forged one from another port", SAME, (Spoof(forged), DATA)
        yield "after a forged one from another address", SAME, (Spoof(forged, "127.0.0.2"), DATA)


def _of_handshakes() -> Iterator[Fault]:
    kinds: list[tuple[str, tuple[Part, ...]]] = [
        ("never answered", (Stall(),)),
        ("answered by a close", (Close(),)),
        ("answered by a reset", (Reset(),)),
        ("answered in plain text", (b"220 welcome\r\n", Close())),
        ("refused: handshake_failure", (Alert("handshake_failure"), Close())),
        ("refused: internal_error", (Alert("internal_error"), Close())),
    ]
    for name, parts in kinds:
        yield Fault(f"handshake {name}", partial(_shake, parts=parts), ERROR)


def _shake(server: Any, *, parts: tuple[Part, ...]) -> None:
    server.on(HANDSHAKE).reply(*parts)


def _of_certificates() -> Iterator[Fault]:
    from ..transport.certificates import Certificate

    kinds = {
        "expired": Certificate.expired(),
        "not yet valid": Certificate.not_yet_valid(),
        "for another host": Certificate.wrong_host(),
        "self-signed": Certificate.self_signed(),
        "of an unknown root": Certificate.of_unknown_root(),
        "without its intermediate": Certificate.without_intermediate(),
        "with a weak key": Certificate.weak_key(),
    }
    for name, certificate in kinds.items():
        yield Fault(f"certificate {name}", partial(_shake, parts=(StartTLS(certificate),)), ERROR)
