"""A request: the bytes that one reading verb took as a unit, and where they came from."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from .connection import Connection


class Request(bytes):
    """Captured bytes: a ``bytes`` in every way, that also knows its sender.

    Compare it, slice it, decode it; it prints and pickles as plain bytes.

    Attributes:
        connection: The connection it came on; ``None`` on datagram servers.
        peer: The client's address, as the socket gave it; ``None`` for an unbound unix datagram socket.
        time: Seconds since the server was made.
        match: The ``re.Match`` when it was found by a pattern.
        rule: The rule that answered it, if one did.
    """

    connection: Connection | None
    peer: Any
    time: float
    match: re.Match[bytes] | None
    rule: Any
    _answer: Callable[..., None] | None

    def __new__(
        cls,
        data: bytes,
        *,
        connection: Connection | None = None,
        peer: Any = None,
        time: float = 0.0,
        match: re.Match[bytes] | None = None,
        answer: Callable[..., None] | None = None,
    ) -> Request:
        self = super().__new__(cls, data)
        self.connection, self.peer, self.time, self.match, self.rule = connection, peer, time, match, None
        self._answer = answer
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return bytes, (bytes(self),)

    def matched(self, match: re.Match[bytes]) -> Request:
        """Return the same request with the match by which it was found."""
        found = Request(
            self, connection=self.connection, peer=self.peer, time=self.time, match=match, answer=self._answer
        )
        found.rule = self.rule
        return found

    def reply(self, *parts: bytes) -> None:
        """Send ``parts`` to whoever sent this request: on datagram servers each is one datagram.

        Raises:
            TypeError: A part is not bytes.
            ValueError: The request has no address to answer to, or a datagram is too large to be sent.
        """
        __tracebackhide__ = True
        if self._answer is None:
            raise ValueError("this request cannot be replied to: it was not taken from a server")
        self._answer(self, *parts)
