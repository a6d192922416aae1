"""What is other than usual on one connection: injections that it may meet, and what faults have left behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .conversation import Conversation
    from .faulty_io import InboundFault


class Holding:
    """Bytes that are sent, or handed on, after so many further replies."""

    __slots__ = ("after", "data")

    def __init__(self, data: bytes, after: int) -> None:
        self.data, self.after = data, after


class FaultState:
    """State that a connection has from its first fault on, or from the server's first injection.

    A connection without it sends and receives the short way: whether there is any is one look, on each write and each
    read.

    Attributes:
        held: Replies that are sent later.  Guarded by the turn to write, as the next two are.
        drawn: How often a time was drawn.
        endless: What is sent has no end: no verdict waits for it.
        muted: An injection has ended what is sent.
        inbound: What an injection makes of what comes.  Its reader's, as the next one is.
        pace: At most so many bytes are received at once, with so many seconds after each.
    """

    __slots__ = ("drawn", "endless", "held", "inbound", "muted", "pace")

    def __init__(self) -> None:
        self.held: list[Holding] = []
        self.drawn = 0
        self.endless = self.muted = False
        self.inbound: InboundFault | None = None
        self.pace: tuple[int, float] | None = None

    def begin_inbound(self, conversation: Conversation) -> InboundFault:
        """Return what becomes of all that a connection receives; chosen now, if it was not before."""
        if self.inbound is None:
            from .faulty_io import InboundFault

            self.inbound = InboundFault.chosen(conversation)
        return self.inbound
