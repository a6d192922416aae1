"""What is said in answer: parts, performed from left to right.

``bytes`` are sent as written.  ``Text`` and ``Hex`` are filled with what was captured.  A function of the request
returns parts.  The rest says what else happens: ``Delay``, ``Gate``, ``Stall`` wait; ``SendEof``, ``StartTLS``,
``Close`` and ``Reset`` do something to the connection; ``Cut`` and ``Drip`` hold the parts that they modify.

Their ``__init__`` are written out: a generated one has no source, and would show as a line of nowhere in the traceback
of what it refuses.

The vocabulary is closed, and this is the one place that knows it: what is not a part is refused here, with a message
that says what to write, and so is a part on a transport that cannot do it.  To perform parts is to walk through their
:func:`actions`, in which functions, templates and modifiers are resolved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from ..errors import UnsupportedFault
from .matching import Hex, Lookup, Text, function_shown, is_async, rendered
from .notation import Hole, references

if TYPE_CHECKING:
    import ssl

# pytest shows no frame of this module, of the classes' generated __init__ neither: what is wrong is the user's line.
__tracebackhide__ = True

#: Seconds.  Longer than any test waits: a larger number is milliseconds, by mistake.
LONGEST_DELAY: Final = 3600.0


@dataclass(frozen=True)
class Close:
    """End the connection cleanly; over TLS without ``close_notify`` if ``notify`` is false."""

    notify: bool = True

    def __repr__(self) -> str:
        return "Close()" if self.notify else "Close(notify=False)"


@dataclass(frozen=True)
class Reset:
    """Reset the connection, once the client's kernel has what was sent before.  TCP alone has a reset."""


@dataclass(frozen=True)
class SendEof:
    """End the server's half of the stream."""


@dataclass(frozen=True)
class StartTLS:
    """Do the server's side of a TLS handshake: with ``context``, else the server's ``tls=``."""

    context: ssl.SSLContext | None = None

    def __repr__(self) -> str:
        return "StartTLS()" if self.context is None else f"StartTLS({self.context!r})"


@dataclass(frozen=True, init=False)
class Delay:
    """Say nothing for ``seconds``."""

    seconds: float

    def __init__(self, seconds: float) -> None:
        __tracebackhide__ = True
        _check_seconds("Delay()", seconds)
        object.__setattr__(self, "seconds", seconds)


@dataclass(frozen=True, init=False)
class Gate:
    """Wait until somebody opens the gate of this name: ``server.open(name)``, or a step of another script."""

    name: str

    def __init__(self, name: str) -> None:
        __tracebackhide__ = True
        object.__setattr__(self, "name", checked_gate(name, "Gate()"))


@dataclass(frozen=True, init=False)
class Open:
    """Open the gate of this name: whoever waits for it, in this or another conversation, goes on."""

    name: str

    def __init__(self, name: str) -> None:
        __tracebackhide__ = True
        object.__setattr__(self, "name", checked_gate(name, "Open()"))


@dataclass(frozen=True)
class Stall:
    """Say and read nothing any more until the server stops; that the client is gone is not noticed either."""


@dataclass(frozen=True, init=False)
class Cut:
    """Say only the first ``n`` bytes of a part."""

    data: Part
    n: int

    def __init__(self, data: Part, n: int) -> None:
        __tracebackhide__ = True
        (checked,) = checked_parts([data], "Cut()")
        if type(n) is not int:
            raise TypeError(f"Cut() expected a number of bytes, 0 or more, not {n!r}")
        if n < 0:
            raise ValueError(f"Cut() expected a number of bytes, 0 or more, not {n!r}")
        if isinstance(checked, bytes) and n > len(checked):
            raise ValueError(f"Cut() expected at most the {len(checked)} bytes that there are, not {n}")
        object.__setattr__(self, "data", checked)
        object.__setattr__(self, "n", n)

    def applied(self, actions: Iterator[Action]) -> Iterator[Action]:
        """Yield the actions up to the cut."""
        __tracebackhide__ = True
        left = self.n
        for action in actions:
            if not isinstance(action, bytes):
                yield action
                continue
            yield action[:left]
            left -= min(left, len(action))
            if not left:
                return
        if left:
            raise ValueError(f"Cut() was to say {self.n} bytes, and there were only {self.n - left}")


@dataclass(frozen=True, init=False)
class Drip:
    """Say a part in pieces of ``size`` bytes, with a pause of so many seconds between them.

    What is promised are the bytes and the least total time; pieces may still arrive together.
    """

    data: Part
    pause: float
    size: int = 1

    def __init__(self, data: Part, pause: float, size: int = 1) -> None:
        __tracebackhide__ = True
        object.__setattr__(self, "data", checked_parts([data], "Drip()")[0])
        _check_seconds("Drip()", pause)
        if type(size) is not int or size < 1:
            raise ValueError(f"Drip() expected pieces of at least 1 byte, not {size!r}")
        object.__setattr__(self, "pause", pause)
        object.__setattr__(self, "size", size)

    def applied(self, actions: Iterator[Action]) -> Iterator[Action]:
        """Yield the actions in pieces, with pauses between."""
        begun = False
        for action in actions:
            if not isinstance(action, bytes):
                yield action
                continue
            for start in range(0, len(action), self.size):
                if begun:
                    yield Delay(self.pause)
                yield action[start : start + self.size]
                begun = True


class _Flush:
    def __repr__(self) -> str:
        return "FLUSH"


#: The action that lets what was said so far leave: a function that is called next may want an answer to it.
FLUSH: Final = _Flush()

Function = Callable[[Any], Any]
Part = bytes | Text | Hex | Function | Close | Reset | SendEof | StartTLS | Delay | Gate | Open | Stall | Cut | Drip
Action = bytes | _Flush | Close | Reset | SendEof | StartTLS | Delay | Gate | Open | Stall
Reply = Part | Iterable[Part]

_MODIFIERS = (Cut, Drip)
_SAID = (bytes, Text, Hex, *_MODIFIERS)
_DONE = (Close, Reset, SendEof, StartTLS, Delay, Gate, Open, Stall)
_LAST = (Close, Reset, Stall)
_NAMES = {each.__name__: each for each in (Text, Hex, *_MODIFIERS, *_DONE)}


def checked_parts(parts: Iterable[object], verb: str) -> tuple[Part, ...]:
    """Return the parts, or raise the error that names the first that is none, or that can never be reached."""
    __tracebackhide__ = True
    checked: tuple[Part, ...] = ()
    for part in parts:  # no comprehension: before 3.12 it is a frame that a traceback would show
        checked += (_checked_part(part, verb),)
    for before, after in pairwise(checked):
        if isinstance(before, _LAST):
            raise ValueError(f"{verb} expected nothing after {before!r}: {shown(after)} would never be reached")
    for at, part in enumerate(checked):
        if isinstance(part, SendEof) and any(isinstance(each, _SAID) for each in checked[at:]):
            raise ValueError(f"{verb} expected no bytes after SendEof(): it ends what the server says")
    return checked


def _checked_part(part: object, verb: str) -> Part:
    __tracebackhide__ = True
    if isinstance(part, bytes):
        return part
    if isinstance(part, (bytearray, memoryview)):
        return bytes(part)
    if isinstance(part, (Text, Hex)):
        if any(isinstance(piece, Hole) for piece in part.pieces):
            raise ValueError(f"{verb} cannot say {part!r}: ?? and <name:n> are for what is received")
        return part
    if isinstance(part, (*_MODIFIERS, *_DONE)):
        return part
    if isinstance(part, str):
        raise TypeError(f"{verb} expected bytes, not the text {part!r}: write b{part!r}, or encode it")
    if isinstance(part, (list, tuple)):
        raise TypeError(
            f"{verb} expected parts one after the other, not the {type(part).__name__} {part!r}: no brackets"
        )
    if isinstance(part, type) and part in _NAMES.values():
        raise TypeError(f"{verb} expected a part, not the class {part.__name__}: write {part.__name__}(...)")
    if not callable(part) or isinstance(part, type):
        raise TypeError(f"{verb} expected bytes, not {part!r}")
    if is_async(part):
        raise TypeError(f"{verb} expected a function that returns parts, not the async function {function_shown(part)}")
    return part


def parts_of(reply: object, verb: str) -> Iterator[Part]:
    """Yield what a reply function returned, part by part: one, several, or none.

    ``None`` is refused: a forgotten ``return`` would be a client that waits in silence.
    """
    __tracebackhide__ = True
    if reply is None:
        raise TypeError(f"{verb} returned None: return the bytes of the reply, a list of replies, or () for no reply")
    if isinstance(reply, (bytes, bytearray, memoryview, str, Text, Hex, *_MODIFIERS, *_DONE)) or callable(reply):
        yield _checked_part(reply, verb)
        return
    if not isinstance(reply, Iterable):
        raise TypeError(f"{verb} returned {reply!r}: expected bytes, a list of parts, or () for no reply")
    for part in reply:
        yield _checked_part(part, verb)


def actions(parts: Iterable[Part], call: Callable[[Function], Iterable[Part]], lookup: Lookup) -> Iterator[Action]:
    """Yield what is to be done: bytes, and the parts that are more than bytes.

    Args:
        call: Calls a function with the request, and returns the parts that it returned.
        lookup: What was captured under a name.
    """
    __tracebackhide__ = True
    for part in parts:
        if isinstance(part, (bytes, *_DONE)):
            yield part
        elif isinstance(part, (Text, Hex)):
            yield rendered(part, lookup)
        elif isinstance(part, _MODIFIERS):
            yield from part.applied(actions([part.data], call, lookup))
        else:
            yield FLUSH
            yield from actions(call(part), call, lookup)


def check_fit(parts: Iterable[Part], transport: str, verb: str, *, tls: bool = True) -> None:
    """Refuse the parts that a transport cannot do.

    Args:
        transport: ``"tcp"``, ``"unix"``, ``"udp"`` or ``"unix_datagram"``.
        tls: The server has a context of its own for ``StartTLS()``.

    Raises:
        UnsupportedFault: The message names what the transport can do.
    """
    __tracebackhide__ = True
    for part in parts:
        if isinstance(part, _MODIFIERS):
            check_fit([part.data], transport, verb, tls=tls)
        if transport in ("udp", "unix_datagram") and isinstance(part, (Close, Reset, SendEof, StartTLS, Drip)):
            raise UnsupportedFault(
                f"{verb} cannot do {shown(part)} with datagrams: they have no connection that could end or change; "
                "they have Delay, Gate, Stall and Cut, and no reply is ()"
            )
        if transport == "unix" and isinstance(part, Reset):
            raise UnsupportedFault(
                f"{verb} cannot do Reset() on a unix socket: its client would see a plain end of stream; write Close()"
            )
        if isinstance(part, StartTLS) and part.context is None and not tls:
            raise ValueError(f"{verb} has no context for StartTLS(): give it one, or give the server tls=")


def ends(parts: Iterable[Part]) -> bool:
    """Tell whether the parts certainly end the connection, or what is said on it."""
    return any(isinstance(part, _LAST) for part in parts)


def names_demanded(parts: Iterable[Part]) -> tuple[str, ...]:
    """Return the names that must have been captured before the parts can be said."""
    names: list[str] = []
    for part in parts:
        if isinstance(part, _MODIFIERS):
            names += names_demanded([part.data])
        elif isinstance(part, (Text, Hex)):
            names += references(part.pieces)
    return tuple(names)


def shown(part: Part | Function) -> str:
    """Return how a message names a part."""
    return f"the function {function_shown(part)}" if callable(part) else repr(part)


def checked_gate(name: object, verb: str) -> str:
    """Return the name of a gate, or raise the error that says what it must be."""
    __tracebackhide__ = True
    if not isinstance(name, str):
        raise TypeError(f"{verb} expected the name of a gate, a str, not {name!r}")
    if not name or any(each.isspace() or not each.isprintable() for each in name):
        raise ValueError(f"{verb} expected the name of a gate, without blanks, not {name!r}")
    return name


def _check_seconds(verb: str, seconds: object) -> None:
    __tracebackhide__ = True
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"{verb} expected seconds, 0 or more, not {seconds!r}")
    if not 0 <= seconds <= LONGEST_DELAY:
        raise ValueError(f"{verb} expected seconds from 0 to {LONGEST_DELAY:g}, not {seconds!r}")
