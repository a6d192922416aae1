"""What is other than usual on one connection: injections that it may meet, and what faults have left behind."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .faulty_io import InboundFault


@dataclass
class Holding:
    """Bytes that are said, or heard, after so many further replies."""

    data: bytes
    after: int


@dataclass
class FaultState:
    """State that a connection has from its first fault on, or from the server's first injection.

    A connection without it says and reads the short way: whether there is any is one look, on each write and each read.

    Attributes:
        held: Replies that are said later.  Guarded by the turn to write, as the next two are.
        drawn: How often a time was drawn.
        endless: What is said has no end: nobody waits for it.
        muted: An injection has ended what is said.
        intake: What an injection makes of what comes.  Its reader's, as the next one is.
        pace: At most so many bytes are received at once, with so many seconds after each.
    """

    held: list[Holding] = field(default_factory=list)
    drawn: int = 0
    endless: bool = False
    muted: bool = False
    intake: InboundFault | None = None
    pace: tuple[int, float] | None = None
