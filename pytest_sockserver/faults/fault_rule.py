"""What a network does to a server whose handler is not touched: which of what it says or hears, and what becomes of it.

A :class:`FaultRule` is an immutable declaration.  ``DATA`` among its parts is what was to be said: one write of the
server on a stream, one datagram; or what came: a datagram, or, on a stream, all that the client sends.  There its parts
are performed once, while the bytes come in: how they were cut on their way has no meaning, so no part may depend on it.
"""

from __future__ import annotations

from dataclasses import field

from ..errors.location import Location, hide_frame
from ..scripting.frozen import frozen
from ..scripting.parts import Part, shown
from ..scripting.seeds import fraction
from ..scripting.times import Times

__tracebackhide__ = hide_frame


SENT = "sent"
RECEIVED = "received"


@frozen
class FaultRule:
    """Parts, and when they take the place of what is said or heard.

    Attributes:
        direction: ``"sent"`` or ``"received"``, from the server's side.
        connections: The indices of the connections; on datagrams of the peers, in order of appearance.
        at: The indices of the writes of a connection, or of the server's datagrams, since the declaration.
        probability, seed: How likely it is, for each of those; and what it is drawn from.
        times: How often at most, and how often at least where that is demanded.
    """

    parts: tuple[Part, ...]
    direction: str
    connections: frozenset[int] | None
    at: frozenset[int] | None
    probability: float | None
    seed: int
    times: Times
    origin: Location = field(default_factory=Location, compare=False)

    def __repr__(self) -> str:
        said = [shown(part) for part in self.parts]
        if self.direction != SENT:
            said.append(f"direction={self.direction!r}")
        for name, indices in (("connections", self.connections), ("at", self.at)):
            if indices is not None:
                said.append(f"{name}={sorted(indices)}")
        if self.times.least != (self.probability is None):
            said.append(f"times={(self.times.least, self.times.most)}")
        elif self.times.most is not None:
            said.append(f"times={self.times.most}")
        if self.probability is not None:
            said += [f"probability={self.probability!r}", f"seed={self.seed}"]
        return f"inject({', '.join(said)})"

    def hits(self, connection: int, unit: int, count: int) -> bool:
        """Tell whether it takes this unit of this connection, having taken ``count`` before."""
        return (
            (self.times.most is None or count < self.times.most)
            and (self.connections is None or connection in self.connections)
            and (self.at is None or unit in self.at)
            and (self.probability is None or fraction(self.seed, connection, unit) < self.probability)
        )
