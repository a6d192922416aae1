"""The words for what can happen on a connection.

While it happens an event is the plain tuple ``(time, connection, kind, data)``: four times cheaper to
make than any class, and made twice for each round trip.  :class:`Event` is what a reader gets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

RawEvent = tuple[float, int, str, bytes]

# What passed through a socket; received and sent are always from the server's side.
RECEIVED: Final = "received"
SENT: Final = "sent"
#: Noted as sent, before it was, and then not taken by the kernel: ``data`` is the number of bytes in decimal.
UNSENT: Final = "unsent"

# What became of the two directions.
CLIENT_EOF: Final = "client-eof"
CLIENT_RESET: Final = "client-reset"
CLOSE: Final = "close"
RESET: Final = "reset"
SEND_EOF: Final = "send-eof"
START_TLS: Final = "start-tls"

#: A remark of the server: a failure, a reply without an address; ``data`` is its text in UTF-8.
NOTE: Final = "note"


@dataclass(frozen=True)
class Event:
    """One thing that happened on a connection.

    Attributes:
        time: Seconds since the server was made.
        connection: The index of the connection; on datagram servers of the peer, in order of appearance.
        kind: ``received``, ``sent``, ``client-eof``, ``client-reset``, ``close``, ``reset``, ``send-eof``,
            ``start-tls``, ``unsent`` or ``note``.
        data: The bytes, where there are any.
    """

    time: float
    connection: int
    kind: str
    data: bytes = b""
