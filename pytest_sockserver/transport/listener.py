"""The listening socket of a server of streams: binding, listening, and every way of not being there.

A listener can refuse, be a black hole, have its queue full, be gone or forbidden; it listens again on the same address,
which nobody else can take meanwhile.  It knows no server: that an accept loop ends before, and begins again after, is
its owner's business, and so is who is accepted.

How each is done (Linux; elsewhere the listener is closed and bound again, and what cannot be shown is refused):

- *Refuse*: the listener is shut down, which keeps its port; the kernel answers each SYN with a reset.  Of a unix socket
  the listener is closed and its path stays: nobody listens behind it.
- *Black hole*: the queue of connections to be accepted is made as short as it can be, and filled by a connection of our
  own.  A further SYN is dropped, and the client's kernel sends it again after 1, 3, 7 seconds.
- *Overflow*: the same of a unix socket, whose clients are told at once that the queue is full (EAGAIN).

Not done: dropping packets of a connection that stands, resets with a wrong number, ICMP messages; they need privileges.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from typing import Any, Final

from ..errors.exceptions import AddressUnavailable, UnsupportedFault
from ..errors.location import hide_frame
from ..originals import original
from .address import bind_stream, explained
from .published import Published
from .tapped_socket import ready

__tracebackhide__ = hide_frame

# States of the socket, with the verb that leads there:
#
#   bound -> listening        ``listen``
#   listening -> shut down    ``refuse``, TCP on Linux: the same socket listens again, and its port was never free
#   listening -> closed       ``refuse`` elsewhere: ``listen_again`` binds a new one at the published address
#   listening -> full         ``fill_queue``; ``close_fillers``, and accepting what is queued, ends that
#
# A path has two states beside these: unlinked, and forbidden, whose permissions are kept to be given back.
#
# There is no lock here.  Each method is called by the thread that holds the life of the server, and the accept loop is
# ended before the socket changes its state: in the midst of that, it would take a filler for a client.
#
# The order for ``refuse``: end the loop, accept what is queued, then shut down.  A shutdown resets what is queued: a
# client that had connected, and perhaps sent, would be lost.
#
# Why the port must be bound by its number: a socket that was bound to port 0 loses its port with the shutdown, and
# listens on another one afterwards.  ``address.bind_stream`` sees to that.
#
# SO_REUSEADDR is set while it listens, so that its port can be bound again over connections that linger, and is taken
# off while it refuses.  With it on both sides, another process could bind the port meanwhile and listen there.
#
# Not done: an emulation where the kernel has no such state.  What cannot be shown is refused when it is asked for.


#: Connections of our own that fill a queue at most: Linux takes one more than the backlog of 0 says.
FILLERS: Final = 8

#: Seconds.  A connection over loopback is made within the call, or its SYN was dropped; longer on a loaded machine.
_SETTLING: Final = 0.02

_KIND: Final = socket.SOCK_STREAM


class Listener:
    """A socket that listens, and its queue.

    Args:
        published: Where it is bound, and what is published of that.

    Attributes:
        socket: The latest; closed while it refuses, where it cannot be kept.
        fillers: Our own connections, which fill the queue.
    """

    def __init__(self, published: Published, *, rcvbuf: int | None, backlog: int, mss: int | None) -> None:
        self._published, self._place = published, published.place
        self._rcvbuf, self._backlog, self._mss = rcvbuf, backlog, mss
        self.fillers: list[socket.socket] = []
        self._mode_before = 0  # of the socket file that was forbidden

    def listen(self, bound: socket.socket | None = None) -> socket.socket:
        """Listen, on a socket that is bound already or on a new one; return it.

        Raises:
            AddressUnavailable: The address is taken, privileged or not this machine's.
        """
        self.socket = sock = bound if bound is not None else self._bind()
        try:
            if os.name == "posix" and self._place is None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if self._mss is not None:
                self._limit_segments(sock, self._mss)
            sock.listen(self._backlog)
        except OSError as error:  # two sockets may be bound to one port by SO_REUSEADDR, and only one may listen
            address = sock.getsockname()
            sock.close()
            raise explained(error, _KIND, address) from None
        self._published.publish(sock)
        return sock

    def listen_again(self) -> socket.socket:
        """Listen on the socket that there is, or if it is closed on a new one at its address; return it."""
        return self.listen(self.socket if self.socket.fileno() >= 0 else None)

    def _bind(self) -> socket.socket:
        if self._place is not None:
            return self._place.bind(_KIND, self._rcvbuf)
        return bind_stream(self._published.family, *self._published.to_bind(), self._rcvbuf)

    def _limit_segments(self, sock: socket.socket, mss: int) -> None:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, mss)
        except (AttributeError, OSError) as error:
            address = sock.getsockname()
            sock.close()
            raise AddressUnavailable(
                getattr(error, "errno", None) or 0, f"{address[0]}:{address[1]} takes no mss={mss} on {sys.platform}"
            ) from None

    # Not being there

    def refuse(self) -> None:
        """Let the kernel refuse whoever comes from now on.  What is queued is to be accepted before."""
        sock = self.socket
        if sys.platform == "linux" and self._place is None:
            # Keeps the port; and refuses even where a forked child holds a copy of the listener.  SO_REUSEADDR on both
            # sides would let somebody else listen there meanwhile.
            sock.shutdown(socket.SHUT_RDWR)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        else:
            # A unix socket that was shut down cannot listen again, and other systems refuse to shut a listener down.
            # Without a socket behind it a path refuses too (unix(7)), and the address is bound anew later.
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # of a forked child's copy as well
            sock.close()

    def fill_queue(self) -> bool:
        """Fill the queue with connections of our own; tell whether it is full."""
        # On a socket that listens already this changes the length of the queue alone.
        self.socket.listen(0)
        for _ in range(FILLERS):
            filler = original.socket(self.socket.family, socket.SOCK_STREAM)
            filler.setblocking(False)
            if self._place is not None:
                filler.bind("")  # to a name that the kernel chooses (unix(7)), by which it is told from a client
            # Over TCP it is in progress at first; a unix socket with a full queue says the same at once (EAGAIN).
            with contextlib.suppress(BlockingIOError):
                filler.connect(self.socket.getsockname())
            if not _is_connected(filler):
                filler.close()  # there was no room: the queue is full
                return True
            self.fillers.append(filler)
        return False

    def is_ours(self, address: Any) -> bool:
        """Tell whether it is one of our own connections that comes from an address."""
        return any(filler.getsockname() == address for filler in self.fillers)

    def close_fillers(self) -> None:
        """Drop our own connections."""
        fillers, self.fillers = self.fillers, []
        for filler in fillers:
            filler.close()

    def unlink(self) -> None:
        """Remove the path."""
        assert self._place is not None
        self._place.unlink()

    def forbid(self) -> None:
        """Take the permissions off the path."""
        assert self._place is not None
        self._mode_before = os.stat(self._place.file).st_mode & 0o777
        os.chmod(self._place.file, 0)

    def permit(self) -> None:
        """Give them back."""
        assert self._place is not None
        os.chmod(self._place.file, self._mode_before)

    # What cannot be shown

    def refuse_black_hole(self) -> None:
        """Raise the UnsupportedFault of a transport that cannot be a black hole."""
        if self._place is not None:
            raise UnsupportedFault(
                "a unix socket cannot be a black hole: its client is told at once that the queue is full, "
                "which is overflow(); a client that connects and hears nothing is on(CONNECT).reply(Stall())"
            )
        if sys.platform == "win32":
            raise UnsupportedFault("Windows refuses a connection that its queue has no room for: use refuse()")

    def refuse_overflow(self) -> None:
        """Raise the UnsupportedFault of a transport whose queue is not said to be full."""
        if self._place is None:
            raise UnsupportedFault("over TCP a full queue is not told to the client: its effect is blackhole()")
        if sys.platform != "linux":
            raise UnsupportedFault(f"overflow() is known of Linux alone, and this is {sys.platform}: use refuse()")

    def refuse_pathless(self, verb: str) -> None:
        """Raise the UnsupportedFault of a transport that has no path."""
        if self._place is None or self._place.abstract:
            what = "a TCP server has no path" if self._place is None else "an abstract name is no file"
            raise UnsupportedFault(f"{verb}() is for the path of a unix socket, and {what}: use refuse()")

    def refuse_forbidding(self) -> None:
        """Raise the UnsupportedFault of a path whose permissions stop nobody here."""
        self.refuse_pathless("forbid")
        if os.geteuid() == 0:
            raise UnsupportedFault("forbid() cannot be shown to a client of this process: root may open any path")


def _is_connected(filler: socket.socket) -> bool:
    """Tell whether a connection of ours got into the queue; over loopback that is known at once, or never."""
    if filler.family == getattr(socket, "AF_UNIX", None):
        return ready(filler, True, 0) and _has_peer(filler)
    return ready(filler, True, _SETTLING) and _has_peer(filler)


def _has_peer(filler: socket.socket) -> bool:
    try:
        filler.getpeername()
    except OSError:
        return False
    return True
