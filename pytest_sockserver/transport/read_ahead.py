"""What a server received before a socket was given away, on its way to the new owner.

The server's reader may have received a client's first bytes before ``accept()``, and a verb may have received more than
it returned.  A kernel takes no bytes back, so they are handed on here.  They were recorded when they came.
"""

from __future__ import annotations

from typing import Any

from ..errors.location import hide_frame
from ..recording.recorder import Tape
from ..scripting.buffer import Buffer

__tracebackhide__ = hide_frame


class ReadAhead:
    """Stands in front of a socket until its owner has received what was read ahead of it.

    Args:
        ahead: The bytes, and whether the stream has ended after them.  Its new owner is this object.
    """

    def __init__(self, tape: Tape, ahead: Buffer) -> None:
        self._tape = tape
        self._ahead = ahead  # guarded by the tape's lock: two threads may receive

    def recv(self, sock: Any, size: int) -> bytes | None:
        """Return at most ``size`` of the bytes; ``None`` once there are none, and the socket itself is to be asked.

        The end of the stream is returned once, as ``b""``: TLS that has ended might wait for more.  The client's reset
        is raised once: the kernel has reported it, and does so once.
        """
        tape, ahead = self._tape, self._ahead
        with tape.lock:
            if size < 0 or sock.fileno() < 0 or tape.interposer is not self:
                return None
            if len(ahead) or not size:
                return ahead.take(size)
            tape.interposer = None
        if not ahead.ended or tape.cut:
            return None
        if ahead.broken and tape.peer_error is not None:
            raise tape.peer_error
        return b""

    def received(self, data: bytes, size: int) -> bytes:
        """Return what the socket itself has received: nothing is changed."""
        return data

    def send(self, data: Any) -> bool:
        """Tell that nothing was sent: the socket itself sends."""
        return False
