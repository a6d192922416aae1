"""What a server lost before it could record it: datagrams that the kernel dropped, requests that it could not take.

Nothing here is asked for each datagram: the kernel counts, and is asked when a message or a report is written.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from typing import Final

from ..scripting.frozen import frozen
from ..socketserver.base import BACKOFF, EXHAUSTED

# Linux, since 4.12: nine numbers about a socket's memory (asm-generic/socket.h, linux/sock_diag.h); the last one counts
# what was dropped.  SO_RXQ_OVFL says the same, but only together with a later datagram.
_SO_MEMINFO: Final = 55
_MEMINFO: Final = struct.Struct("=9I")
_DROPS: Final = 8

#: The client was gone before it was accepted: nothing of a living client is lost.
_GONE: Final = frozenset({errno.ECONNABORTED, errno.ECONNRESET, getattr(errno, "EPROTO", errno.ECONNABORTED)})


@frozen
class Loss:
    """What was lost, in words, and whether it is worth a warning where no failure tells of it."""

    text: str
    warns: bool = True


def with_losses(said: str, losses: list[Loss]) -> str:
    """Return a conversation with what is missing in it, as remarks at its end."""
    return "\n".join([said, *(f"# {loss.text}" for loss in losses if loss.text not in said)])


def dropped_by_kernel(sock: socket.socket) -> int | None:
    """Return how many datagrams the kernel has dropped of a socket's queue; ``None`` where that cannot be known."""
    if sys.platform != "linux":
        return None
    try:
        return int(_MEMINFO.unpack(sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))[_DROPS])
    except (OSError, struct.error):  # an older kernel; one that only looks like Linux
        return None


class Drops:
    """How many datagrams the kernel has dropped of one server's sockets.  Guarded by the recorder's lock."""

    def __init__(self) -> None:
        self._closed = 0  # of sockets that are closed
        self._before = 0  # before the test began
        self.noted = 0  # in the record

    def count(self, sock: socket.socket) -> int:
        """Return how many there are since the test began."""
        return self._all(sock) - self._before

    def begin(self, sock: socket.socket) -> None:
        """Begin to count for a further test."""
        self._before, self.noted = self._all(sock), 0

    def closing(self, sock: socket.socket) -> None:
        """Keep the count of a socket that is closed now."""
        self._closed = self._all(sock)

    def _all(self, sock: socket.socket) -> int:
        return self._closed + ((dropped_by_kernel(sock) or 0) if sock.fileno() >= 0 else 0)


def of_drops(count: int, rcvbuf: int | None, granted: int) -> Loss:
    """Return the loss of so many datagrams."""
    some = "1 datagram" if count == 1 else f"{count:,} datagrams"
    if rcvbuf is not None:
        why = f"rcvbuf={rcvbuf} is too small for what came at once; without it the server takes what the system grants"
    else:
        why = (
            "it is the largest that the system grants, and rcvbuf= cannot exceed it: raise net.core.rmem_max, or send "
            "less at once"
        )
    return Loss(f"the kernel dropped {some}: the receive buffer of {granted:,} bytes was full; {why}")


class Untaken:
    """The errors of ``accept()``, or of receiving: how often each came.  Guarded by the recorder's lock.

    Args:
        verb: What failed: ``"accept()"``.
    """

    def __init__(self, verb: str) -> None:
        self._verb = verb
        self._times: dict[tuple[int | None, str], int] = {}

    def note(self, error: OSError) -> bool:
        """Count an error; return whether it is the first of its kind."""
        if isinstance(error, (BlockingIOError, InterruptedError)):
            return False  # there was nothing to take
        key = error.errno, f"{type(error).__name__}: {error}"
        self._times[key] = self._times.get(key, 0) + 1
        return self._times[key] == 1

    def clear(self) -> None:
        """Begin to count for a further test."""
        self._times.clear()

    def losses(self) -> list[Loss]:
        """Return the loss by each error."""
        return [
            Loss(f"{self._verb} failed{_times(count)}: {text}; {self._meaning(number)}", warns=number not in _GONE)
            for (number, text), count in list(self._times.items())
        ]

    def _meaning(self, number: int | None) -> str:
        if number in _GONE:
            return "the client was gone before it was accepted"
        if number in (errno.EMFILE, errno.ENFILE):
            return (
                f"clients wait until one succeeds, it is tried every {BACKOFF:g} s, and a stop resets the others: "
                "close descriptors in the test, or raise the limit (ulimit -n)"
            )
        if number in EXHAUSTED:
            return f"clients wait until one succeeds, it is tried every {BACKOFF:g} s, and a stop resets the others"
        if number in (errno.EPERM, errno.EACCES):
            return "the system forbids this client, which is lost: is there a firewall rule, or a sandbox?"
        return "the client may be lost: does a fixture or a plugin replace socket.socket, or its methods?"


def _times(count: int) -> str:
    return "" if count == 1 else f" {count:,} times"
