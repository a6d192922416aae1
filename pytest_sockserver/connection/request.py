"""What was captured: requests, the bytes that one reading verb took as a unit; and what names stand for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors.location import hide_frame
from ..scripting.matching import NothingKept

#: What a name of a dialogue may stand for: bytes, or a function of the connection (on datagrams, of the request).
Value = bytes | Callable[[Any], bytes]

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..scripting.parts import Part
    from ..server.datagram_peer import DatagramPeer
    from .aio import AsyncRequest
    from .connection import Connection

__tracebackhide__ = hide_frame


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
    _outlet: DatagramPeer | None = None  # where replies to a datagram leave; those on a stream leave by its connection

    def __new__(
        cls,
        data: bytes,
        connection: Connection | None = None,
        peer: Any = None,
        time: float = 0.0,
        match: Any = None,
        outlet: DatagramPeer | None = None,
    ) -> Request:
        self = bytes.__new__(cls, data)
        self.connection, self.peer, self.time = connection, peer, time
        if match is not None:
            self.match = match
        if outlet is not None:
            self._outlet = outlet
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return bytes, (bytes(self),)

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
            outlet.server._reply(outlet, self, parts)

    @property
    def aio(self) -> AsyncRequest:
        """``reply()``, awaitable, for asyncio and trio."""
        from .aio import AsyncRequest

        return AsyncRequest(self)

    def outlet_to_answer(self) -> DatagramPeer:
        if self._outlet is None:
            raise ValueError("this request cannot be replied to: it was not taken from a server")
        return self._outlet


def with_match(request: Request, match: Any) -> Request:
    """Return the same request with the match by which it was found."""
    found = Request(
        request,
        connection=request.connection,
        peer=request.peer,
        time=request.time,
        match=match,
        outlet=request._outlet,
    )
    found.rule = request.rule
    return found


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
