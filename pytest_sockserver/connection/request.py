"""What was captured: requests, the bytes that one reading verb took as a unit; and what names stand for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from ..errors.location import hide_frame
from ..scripting.matching import NothingKept

#: What a name of a dialogue may stand for: bytes, or a function of the connection (on datagrams, of the request).
Value = bytes | Callable[[Any], bytes]

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..scripting.parts import Part
    from .aio import AsyncRequest
    from .connection import Connection
    from .waits import Operation

__tracebackhide__ = hide_frame


class Outlet(Protocol):
    """Where replies to a datagram leave; operations wait on it."""

    @property
    def bells(self) -> Sequence[Any]:
        """What is rung when an operation is to look again."""

    def watch(self, writes: bool, ring: Callable[[], None]) -> None:
        """Ring once when the socket is readable, or writable."""

    def unwatch(self, ring: Callable[[], None]) -> None:
        """Ring no more."""

    def reply(self, request: Request, parts: tuple[Part, ...]) -> None:
        """Say parts to whoever sent a request, in the caller's thread."""

    def replying(self, request: Request, parts: tuple[Part, ...]) -> Operation[None]:
        """Do the same as an operation."""


class Request(bytes):
    """Captured bytes: a ``bytes`` in every way, that also knows its sender.

    Compare it, slice it, decode it; it prints and pickles as plain bytes.

    Attributes:
        connection: The connection it came on; ``None`` on datagram servers.
        peer: The client's address, as the socket gave it; ``None`` for an unbound unix datagram socket.
        time: Seconds since the server was made.
        match: The ``re.Match`` when it was found by a pattern; what ``Hex`` captured, by name, as well.
        rule: The rule that answered it, if one did.
    """

    # Most requests set the first three alone: each attribute of an object costs, and one is made for each unit.
    connection: Connection | None
    peer: Any
    time: float
    match: Any = None
    rule: Any = None
    is_sure: bool = True  # else it is a request once a wait has matched it: nothing read it, and it has no byte
    is_taken: bool = False  # next_request() has returned it, or clear() has forgotten it; under the recorder's lock
    outlet: Any = None  # where replies to a datagram leave; those on a stream leave by its connection

    def __new__(
        cls,
        data: bytes,
        connection: Connection | None = None,
        peer: Any = None,
        time: float = 0.0,
        match: Any = None,
        outlet: Outlet | None = None,
    ) -> Request:
        self = bytes.__new__(cls, data)
        self.connection, self.peer, self.time = connection, peer, time
        if match is not None:
            self.match = match
        if outlet is not None:
            self.outlet = outlet
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return bytes, (bytes(self),)

    def alone(self) -> Request:
        """Return the same request without its connection; ``of`` gives it that back."""
        return self if self.connection is None else self.of(None)

    def of(self, connection: Connection | None, match: Any = None) -> Request:
        """Return the same request as one of a connection.

        Args:
            match: By which it was found, if not by the one that it has.
        """
        again = Request(self, connection, self.peer, self.time, match or self.match, self.outlet)
        again.rule, again.is_sure = self.rule, self.is_sure
        return again

    def reply(self, *parts: Part) -> None:
        """Say ``parts`` to whoever sent this request: on datagram servers bytes are one datagram each.

        Functions among the parts are called with this request.

        Raises:
            TypeError: A part is none.
            ValueError: The request has no address to answer to, or a datagram is too large to be sent.
            BlockingCallInCoroutine: In a coroutine, where it would wait: ``await request.aio.reply(...)``.
        """
        if self.connection is not None:
            self.connection.conversation.answer(self, parts)
        else:
            outlet = self.outlet_to_answer()
            outlet.reply(self, parts)

    @property
    def aio(self) -> AsyncRequest:
        """``reply()``, awaitable, for asyncio and trio."""
        from .aio import AsyncRequest

        return AsyncRequest(self)

    def outlet_to_answer(self) -> Outlet:
        if self.outlet is None:
            raise ValueError("this request cannot be replied to: it was not taken from a server")
        return self.outlet  # type: ignore[no-any-return]


def with_match(request: Request, match: Any) -> Request:
    """Return the same request with the match by which it was found."""
    return request.of(request.connection, match)


def looked_up(captured: Mapping[str, bytes], values: Mapping[str, Any], conversation: object, name: str) -> bytes:
    """Return what a name stands for.

    Args:
        values: Further names: bytes, or functions of the connection.
        conversation: What these are called with.

    Raises:
        ValueError: For nothing.
    """
    value = captured.get(name, values.get(name))
    if callable(value):
        value = value(conversation)
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    if value is None:
        known = ", ".join(sorted({*captured, *values})) or "nothing"
        raise NothingKept(rf"\g<{name}> stands for nothing: captured so far: {known}")
    raise ValueError(
        rf"\g<{name}> stands for {value!r}: expected bytes, or a function of the connection that returns them"
    )
