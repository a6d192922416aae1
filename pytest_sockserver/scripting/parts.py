"""What is said in answer: parts, performed from left to right.

``bytes`` are sent as written.  ``Text`` and ``Hex`` are filled with what was captured.  A function of the request
returns parts.  An :class:`Effect` sends nothing: it waits, or changes the connection (``effects``, ``tls_effects``).  A
:class:`Modifier` holds the part that it modifies (``modifiers``).  ``DATA`` stands for what the server would send
anyway, in ``server.inject()``.

Their ``__init__`` are written out: a generated one has no source, and would show as a line of nowhere in the traceback
of what it refuses.

The vocabulary is closed, and this is the one place that judges it: what is not a part is refused here, with a message
that says what to write, and so is a part on a transport that cannot show it.  Each class says itself where it fits.  To
perform parts is to walk through their :func:`actions`, in which functions, templates and modifiers are resolved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING
from itertools import pairwise
from typing import Any, ClassVar, Final

from ..errors.exceptions import UnsupportedFault
from ..errors.location import hide_frame, traceback_at_definition
from .frozen import fields_of, frozen
from .matching import Hex, Lookup, Text, function_shown, is_async, rendered
from .notation import Hole, references

__tracebackhide__ = hide_frame


#: Seconds.  Longer than any test waits: a larger number is milliseconds, by mistake.
LONGEST_DELAY: Final = 60.0

TCP: Final = frozenset({"tcp", "tls"})
STREAMS: Final = TCP | {"unix"}
DATAGRAMS: Final = frozenset({"udp", "unix_datagram"})
EVERYWHERE: Final = STREAMS | DATAGRAMS

_ON: Final = {
    "tcp": "on a TCP connection",
    "tls": "over TLS",
    "unix": "on a unix socket",
    "udp": "with datagrams",
    "unix_datagram": "with datagrams",
}


class _Written:
    """What prints as the call that makes it: what must be given by place, what differs from its default by name."""

    def __repr__(self) -> str:
        given = []
        for name, default in fields_of(self).items():
            given_as = getattr(self, name)
            if default is MISSING:
                several = isinstance(given_as, tuple)  # *args
                given += [shown(one) for one in (given_as if several else [given_as])]
            elif given_as != default:
                given.append(f"{name}={given_as!r}")
        return f"{type(self).__name__}({', '.join(given)})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Print as that for hypothesis and IPython, which would write all attributes out."""
        printer.text(repr(self))


class Effect(_Written):
    """A part that sends no bytes: it waits, ends the connection, or changes how it goes on, as ``Delay`` and ``Close``.

    The set of effects is closed: a test uses those that there are, and the class in annotations.

    Attributes:
        fits: The transports that can show it.
        why_not: Why another transport cannot, by transport; ``""`` for all others.
        is_last: Nothing after it is ever reached.
        ends_saying: No bytes can follow it.
        takes_time: It waits for a time, or for the client: a plain ``send()`` in a coroutine refuses it.
        lacks_context: It needs the server's ``tls=``.
    """

    fits: frozenset[str] = EVERYWHERE
    why_not: ClassVar[Mapping[str, str]] = {}
    is_last: ClassVar[bool] = False
    ends_saying: ClassVar[bool] = False
    takes_time: ClassVar[bool] = False
    lacks_context: bool = False


class Modifier(_Written):
    """A part that holds another part, and changes how that is sent, as ``Cut`` and ``Drip``.

    The set of modifiers is closed: a test uses those that there are, and the class in annotations.

    Attributes:
        data: The part that it holds.
        fits, why_not: As those of :class:`Effect`.
        is_last: It never comes to an end.
        takes_time: As that of :class:`Effect`, without what its part does.
    """

    fits: frozenset[str] = EVERYWHERE
    why_not: ClassVar[Mapping[str, str]] = {}
    is_last: bool = False
    takes_time: ClassVar[bool] = False
    data: Part

    def applied(self, actions: Iterator[Action]) -> Iterator[Action]:
        """Yield what becomes of the actions that its part comes to."""
        raise NotImplementedError


class Data:
    """The type of :data:`DATA`, for annotations."""

    def __repr__(self) -> str:
        return "DATA"

    def __reduce__(self) -> str:
        return "DATA"


#: What the server says, or hears, anyway: in ``server.inject()`` alone.
DATA: Final = Data()


@frozen
class Held(Effect):
    """The action of bytes that are said only after so many further replies."""

    data: bytes
    after: int


@frozen
class Spoofed(Effect):
    """The action of a datagram that comes from elsewhere; ``None`` for the server's own host, from another port."""

    data: bytes
    host: str | None


@frozen
class Remark(Effect):
    """The action that tells the record what was drawn."""

    text: str


class Endless(Effect):
    """The action that says: what follows has no end, and whoever says it is never idle."""

    def __repr__(self) -> str:
        return "ENDLESS"


ENDLESS: Final = Endless()


#: Functions that parts may be returned through.  Nobody nests three; without a bound Python's recursion limit speaks.
_FUNCTIONS_WITHIN: Final = 50

#: Parts in a row without a byte.  Pauses of a millisecond take ten seconds by then, and parts that take no time 0.1 s.
_IDLE: Final = 10_000


class _Flush:
    def __repr__(self) -> str:
        return "FLUSH"


#: The action that lets what was said so far leave: a function that is called next may want an answer to it.
FLUSH: Final = _Flush()

Function = Callable[[Any], Any]
Part = bytes | Text | Hex | Function | Effect | Modifier | Data
Action = bytes | _Flush | Effect
Reply = Part | Iterable[Part]

_SAID = (bytes, Text, Hex, Modifier, Data)


def checked_parts(parts: Iterable[object], verb: str, *, data: bool = False) -> tuple[Part, ...]:
    """Return the parts, or raise the error that names the first that is none, or that can never be reached.

    Args:
        data: ``DATA`` is known here.
    """
    checked: list[Part] = []
    for part in parts:  # no comprehension: before 3.12 it is a frame that a traceback would show
        checked.append(_checked_part(part, verb, data=data))
    for before, after in pairwise(checked):
        if ends([before]):
            raise ValueError(f"{verb} expected nothing after {before!r}: {shown(after)} would never be reached")
    ended = False
    for part in checked:
        if ended and isinstance(part, _SAID):
            raise ValueError(f"{verb} expected no bytes after SendEof(): it ends what the server says")
        ended = ended or (isinstance(part, Effect) and part.ends_saying)
    return tuple(checked)


def _checked_part(part: object, verb: str, *, data: bool = False) -> Part:
    if isinstance(part, bytes):
        return part
    if isinstance(part, (bytearray, memoryview)):
        return bytes(part)
    if isinstance(part, (Text, Hex)):
        if any(isinstance(piece, Hole) for piece in part.pieces):
            raise ValueError(f"{verb} cannot say {part!r}: ?? and <name:n> are for what is received")
        return part
    if isinstance(part, (Effect, Modifier, Data)):
        if not data and holds_data(part):
            raise ValueError(
                f"{verb} cannot say {part!r}: DATA stands for what a server says, in server.inject() alone"
            )
        return part
    if isinstance(part, str):
        raise TypeError(f"{verb} expected bytes, not the text {part!r}: write b{part!r}, or encode it")
    if isinstance(part, (list, tuple)):
        raise TypeError(
            f"{verb} expected parts one after the other, not the {type(part).__name__} {part!r}: no brackets"
        )
    if isinstance(part, type) and issubclass(part, (Effect, Modifier, Text, Hex)):
        raise TypeError(f"{verb} expected a part, not the class {part.__name__}: write {part.__name__}(...)")
    if not callable(part) or isinstance(part, type):
        raise TypeError(f"{verb} expected bytes, not {part!r}")
    if is_async(part):
        raise TypeError(f"{verb} expected a function that returns parts, not the async function {function_shown(part)}")
    return part


def holds_data(part: object) -> bool:
    """Tell whether ``DATA`` is this part, or is held by it."""
    return holds_data(part.data) if isinstance(part, Modifier) else part is DATA


def parts_of(reply: object, verb: str) -> Iterator[Part]:
    """Yield what a reply function returned, part by part: one, several, or none.

    ``None`` is refused: a forgotten ``return`` would be a client that waits in silence.
    """
    if reply is None:
        raise TypeError(f"{verb} returned None: return the bytes of the reply, a list of replies, or () for no reply")
    if isinstance(reply, (bytes, bytearray, memoryview, str, Text, Hex, Effect, Modifier, Data)) or callable(reply):
        yield _checked_part(reply, verb)
        return
    if not isinstance(reply, Iterable):
        raise TypeError(f"{verb} returned {reply!r}: expected bytes, a list of parts, or () for no reply")
    for part in reply:
        yield _checked_part(part, verb)


def no_data() -> Iterator[Action]:
    """Stand in for what ``DATA`` is, where there is none."""
    return iter(())


def actions(
    parts: Iterable[Part],
    call: Callable[[Function], Iterable[Part]],
    lookup: Lookup,
    data: Callable[[], Iterable[Action]] = no_data,
    depth: int = 0,
) -> Iterator[Action]:
    """Yield what is to be done: bytes, and the parts that are more than bytes.

    Args:
        call: Calls a function with the request, and returns the parts that it returned.
        lookup: What was captured under a name.
        data: Returns what ``DATA`` stands for.
        depth: How many functions these parts were returned through.
    """
    for part in parts:
        if isinstance(part, (bytes, Effect)):
            yield part
        elif isinstance(part, (Text, Hex)):
            yield rendered(part, lookup)
        elif isinstance(part, Modifier):
            yield from part.applied(actions([part.data], call, lookup, data, depth))
        elif isinstance(part, Data):
            yield from data()
        else:
            yield FLUSH
            if depth >= _FUNCTIONS_WITHIN:
                text = (
                    f"{shown(part)} was returned through {depth} functions: one that returns itself has no end; "
                    "return bytes, or Repeat(..., times=None)"
                )
                raise ValueError(text).with_traceback(traceback_at_definition(part))
            yield from in_progress(actions(call(part), call, lookup, data, depth + 1), shown(part), part)


def in_progress(acts: Iterable[Action], what: str, function: object = None) -> Iterator[Action]:
    """Yield the actions, as long as they come to a byte now and then: what says nothing for ever has no end.

    Args:
        function: The one that returned them, at which the error points.
    """
    idle = 0
    for action in acts:
        idle = 0 if isinstance(action, bytes) and action else idle + 1
        if idle > _IDLE:
            text = (
                f"{what} makes no progress: it came to {_IDLE:,} parts in a row without a byte; "
                "return, or write Stall() to stay silent"
            )
            raise ValueError(text).with_traceback(traceback_at_definition(function))
        yield action


def check_fit(parts: Iterable[Part], transport: str, verb: str, *, tls: bool = True) -> None:
    """Refuse the parts that a transport cannot show.

    Args:
        transport: ``"tcp"``, ``"tls"``, ``"unix"``, ``"udp"`` or ``"unix_datagram"``.
        tls: The server has a context of its own for ``StartTLS()``.

    Raises:
        UnsupportedFault: The message names what the transport can do.
    """
    for part in parts:
        if isinstance(part, Modifier):
            check_fit([part.data], transport, verb, tls=tls)
        if isinstance(part, (Effect, Modifier)) and transport not in part.fits:
            why = part.why_not.get(transport) or part.why_not.get("")
            if why is None and transport in DATAGRAMS:
                why = "they have no connection that could end or change"
            advice = "" if why is not None and "; " in why else f"; {_what_it_can(transport)}"
            raise UnsupportedFault(f"{verb} cannot do {shown(part)} {_ON[transport]}: {why}{advice}")
        if isinstance(part, Effect) and part.lacks_context and not tls:
            raise ValueError(f"{verb} has no context for StartTLS(): give it one, or give the server tls=")


#: The names of the parts that each kind of transport can show, for messages.  Written out, since most of them are
#: defined above this module, and loaded when a test uses them; a test holds that it is what the classes say.
_CAN_SHOW: Final = {
    "tcp": (
        "Alert Append Close Corrupt Cut Delay Drip EndAfter Gate Hold Jitter OpenGate Overwrite Prepend Raw ReadSlowly "
        "Repeat Replace Reset SendEof Split Stall StartTLS Throttle Urgent"
    ),
    "tls": (
        "Append Close Corrupt Cut Delay Drip EndAfter Gate Hold Jitter OpenGate Overwrite Prepend Raw ReadSlowly "
        "Repeat Replace Reset SendEof Split Stall Throttle"
    ),
    "unix": (
        "Alert Append Close Corrupt Cut Delay Descriptors Drip EndAfter Gate Hold Jitter OpenGate Overwrite Prepend "
        "Raw ReadSlowly Repeat Replace SendEof Split Stall StartTLS Throttle"
    ),
    "udp": "Append Corrupt Cut Delay Gate Hold Jitter OpenGate Overwrite Prepend Repeat Replace Spoof Stall",
    "unix_datagram": "Append Corrupt Cut Delay Gate Hold Jitter OpenGate Overwrite Prepend Repeat Replace Stall",
}


def _what_it_can(transport: str) -> str:
    """Return the words on what a transport can do."""
    names = _CAN_SHOW[transport].split()
    named = f"{', '.join(names[:-1])} and {names[-1]}"
    return f"they have {named}, and no reply is ()" if transport in DATAGRAMS else f"it has {named}"


def ends(parts: Iterable[Part]) -> bool:
    """Tell whether the parts certainly end the connection, or what is said on it."""
    return any(isinstance(part, (Effect, Modifier)) and part.is_last for part in parts)


def takes_time(parts: Iterable[Part]) -> bool:
    """Tell whether the parts may have to wait; what a function returns is not known here."""
    return any(
        isinstance(part, (Effect, Modifier))
        and (part.takes_time or (isinstance(part, Modifier) and (part.is_last or takes_time([part.data]))))
        for part in parts
    )


def names_demanded(parts: Iterable[Part]) -> tuple[str, ...]:
    """Return the names that must have been captured before the parts can be said."""
    names: list[str] = []
    for part in parts:
        if isinstance(part, Modifier):
            names += names_demanded([part.data])
        elif isinstance(part, (Text, Hex)):
            names += references(part.pieces)
    return tuple(names)


def shown(part: Part | Function) -> str:
    """Return how a message names a part."""
    return f"the function {function_shown(part)}" if callable(part) else repr(part)


def check_seconds(verb: str, seconds: object) -> None:
    """Refuse what is no number of seconds that a test could wait for."""
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"{verb} expected seconds, 0 or more, not {seconds!r}")
    if not 0 <= seconds <= LONGEST_DELAY:
        raise ValueError(f"{verb} expected seconds from 0 to {LONGEST_DELAY:.0f}, not {seconds!r}")


def check_count(verb: str, what: str, value: object, least: int) -> None:
    """Refuse what is no whole number of at least ``least``."""
    if type(value) is not int:
        raise TypeError(f"{verb} expected {what}, {least} or more, not {value!r}")
    if value < least:
        raise ValueError(f"{verb} expected {what}, {least} or more, not {value!r}")
