"""What is done beside what is said: time passes, a gate opens, the connection ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from ..errors.location import hide_frame
from .frozen import frozen
from .parts import STREAMS, TCP, Effect, check_count, check_seconds
from .seeds import fraction

__tracebackhide__ = hide_frame


_NO_RESET = "its client would see a plain end of stream; write Close()"
_NOT_OVER_TLS = "TLS has no urgent data"


# Endings


@frozen(repr=False)
class Close(Effect):
    """End the connection cleanly; over TLS without ``close_notify`` if ``notify`` is false."""

    notify: bool = True

    fits = STREAMS
    is_last = True


@frozen(repr=False)
class Reset(Effect):
    """Reset the connection, once the client's kernel has what was sent before.  TCP alone has a reset."""

    fits = TCP
    why_not: ClassVar[Mapping[str, str]] = {"unix": _NO_RESET}
    is_last = True


@frozen(repr=False)
class SendEof(Effect):
    """End the server's half of the stream."""

    fits = STREAMS
    ends_saying = True


@frozen(repr=False)
class Stall(Effect):
    """Say and read nothing any more until the server stops; that the client is gone is not noticed either."""

    is_last = True
    takes_time = True


#: The usual end.
_CLOSE: Final = Close()


@frozen(init=False, repr=False)
class EndAfter(Effect):
    """End the connection so many seconds from now, whatever is being said then; over TLS without ``close_notify``."""

    seconds: float
    end: Close | Reset = _CLOSE

    fits = STREAMS
    why_not: ClassVar[Mapping[str, str]] = {"unix": _NO_RESET}

    def __init__(self, seconds: float, end: Close | Reset = _CLOSE) -> None:
        check_seconds("EndAfter()", seconds)
        if not isinstance(end, (Close, Reset)):
            raise TypeError(f"EndAfter() expected Close() or Reset(), not {end!r}")
        _set(self, seconds=seconds, end=end, fits=end.fits)


# Time


@frozen(init=False, repr=False)
class Delay(Effect):
    """Say nothing for ``seconds``."""

    seconds: float

    takes_time = True

    def __init__(self, seconds: float) -> None:
        check_seconds("Delay()", seconds)
        _set(self, seconds=seconds)


@frozen(init=False, repr=False)
class Jitter(Effect):
    """Say nothing for a time between ``least`` and ``most`` seconds, drawn from ``seed``.

    The draw depends on the seed, the connection's index and how often the connection drew before.
    """

    least: float
    most: float
    seed: int = 0

    takes_time = True

    def __init__(self, least: float, most: float, *, seed: int = 0) -> None:
        check_seconds("Jitter()", least)
        check_seconds("Jitter()", most)
        if most < least:
            raise ValueError(f"Jitter() expected the shorter time first, not {least!r}, {most!r}")
        check_seed("Jitter()", seed)
        _set(self, least=least, most=most, seed=seed)

    def drawn(self, connection: int, count: int) -> float:
        """Return the seconds for the ``count``-th draw of a connection."""
        return self.least + (self.most - self.least) * fraction(self.seed, connection, count)


@frozen(init=False, repr=False)
class Gate(Effect):
    """Wait until somebody opens the gate of this name: ``server.open_gate(name)``, or a step of another script."""

    name: str

    takes_time = True

    def __init__(self, name: str) -> None:
        _set(self, name=checked_gate(name, "Gate()"))


@frozen(init=False, repr=False)
class OpenGate(Effect):
    """Open the gate of this name: whoever waits for it, in this or another conversation, goes on."""

    name: str

    def __init__(self, name: str) -> None:
        _set(self, name=checked_gate(name, "OpenGate()"))


# The socket


@frozen(init=False, repr=False)
class ReadSlowly(Effect):
    """From now on take at most ``size`` bytes from the kernel at once, and wait ``pause`` seconds after each.

    The client's writes are held up once both kernels' buffers are full: with ``rcvbuf=`` on the server that is soon.
    """

    size: int
    pause: float

    fits = STREAMS
    takes_time = True
    why_not: ClassVar[Mapping[str, str]] = {"": "a datagram is taken whole"}

    def __init__(self, size: int, pause: float) -> None:
        check_count("ReadSlowly()", "a number of bytes", size, 1)
        check_seconds("ReadSlowly()", pause)
        _set(self, size=size, pause=pause)


@frozen(init=False, repr=False)
class Urgent(Effect):
    """Send one byte of urgent data (``MSG_OOB``), beside the stream (RFC 9293 section 3.8.5)."""

    byte: bytes

    fits = frozenset({"tcp"})
    why_not: ClassVar[Mapping[str, str]] = {"": "TCP alone has urgent data", "tls": _NOT_OVER_TLS}

    def __init__(self, byte: bytes) -> None:
        if not isinstance(byte, bytes) or len(byte) != 1:  # type: ignore[redundant-expr]
            raise ValueError(f"Urgent() expected one byte, b'!' for example, not {byte!r}")
        _set(self, byte=byte)


@frozen(init=False, repr=False)
class Descriptors(Effect):
    """Say ``data`` with open files attached (``SCM_RIGHTS``, unix(7)): the client gets descriptors of its own."""

    data: bytes
    files: tuple[Any, ...]

    fits = frozenset({"unix"})
    why_not: ClassVar[Mapping[str, str]] = {"": "unix streams alone carry descriptors"}

    def __init__(self, data: bytes, *files: Any) -> None:
        if not isinstance(data, bytes) or not data:  # type: ignore[redundant-expr]
            raise ValueError(f"Descriptors() expected at least one byte to carry them, not {data!r}")
        for each in files:
            if type(each) is not int and not hasattr(each, "fileno"):
                raise TypeError(f"Descriptors() expected open files, sockets or descriptors, not {each!r}")
        if not files:
            raise ValueError("Descriptors() expected at least one file")
        _set(self, data=data, files=files)


def _set(part: Effect, **values: Any) -> None:
    for name, value in values.items():
        object.__setattr__(part, name, value)


def checked_gate(name: object, verb: str) -> str:
    """Return the name of a gate, or raise the error that says what it must be."""
    if not isinstance(name, str):
        raise TypeError(f"{verb} expected the name of a gate, a str, not {name!r}")
    if not name or any(each.isspace() or not each.isprintable() for each in name):
        raise ValueError(f"{verb} expected the name of a gate, without blanks, not {name!r}")
    return name


def check_seed(verb: str, seed: object) -> None:
    """Refuse a seed that is no int."""
    if type(seed) is not int:
        raise TypeError(f"{verb} expected an int as its seed, not {seed!r}")
