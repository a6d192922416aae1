"""The listening side of a server of streams: binding, accepting, and every way of not accepting.

A server that listens can be told to refuse, to be a black hole, to have its queue full, to be gone or forbidden;
``listen()`` makes it listen again, on the same address, which nobody else can take meanwhile.  Live connections go on.

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

from ..connection.deadline import Deadline
from ..errors.exceptions import AddressUnavailable, InvalidState, UnsupportedFault
from ..errors.location import hide_frame
from ..originals import original
from ..transport.address import bind_stream, explained
from ..transport.tapped_socket import ready
from . import life_cycle
from .base import BaseTestServer
from .loop import AcceptingServer
from .reader import Sink

__tracebackhide__ = hide_frame


#: Seconds.  A stop accepts what is queued for so long at most: clients that come back at once would never let it end.
_ACCEPTING: Final = 0.25

#: Connections of our own that fill a queue at most: Linux takes one more than the backlog of 0 says.
_FILLERS: Final = 8

#: Seconds.  A connection over loopback is made within the call, or its SYN was dropped; longer on a loaded machine.
_SETTLING: Final = 0.02

STARTED: Final = "started"

#: The states in which nobody can connect, and by which verb of ours it came to that.
SHUT: Final = {
    "refusing": "refuse",
    "a black hole": "blackhole",
    "overflowing": "overflow",
    "unlinked": "unlink",
    "forbidden": "forbid",
}


class Listening(BaseTestServer):
    """The part of a server of streams that listens."""

    _framework: AcceptingServer | None
    _sink: Sink | None
    _admitted: int  # connections ever
    _fillers: list[socket.socket]  # our own connections, which fill the queue
    _mode_before: int  # of the socket file that was forbidden

    # Faults

    def refuse(self) -> contextlib.AbstractContextManager[None]:
        """Refuse connections from now on, on the same port, which stays reserved.  Live ones go on.

        Also ``with server.refuse():``, which listens again at its end.

        Raises:
            InvalidState: The server is not running.
        """
        return self._shut("refusing", self._stop_accepting)

    def blackhole(self) -> contextlib.AbstractContextManager[None]:
        """Let connections hang from now on: a client's ``connect()`` waits until its time is over.  Live ones go on.

        Once the server listens again, a client that still waits gets through when its kernel tries the next time: after
        1, 3 or 7 seconds.  Also ``with server.blackhole():``, which listens again at its end.

        Raises:
            UnsupportedFault: On a unix socket, which says at once that its queue is full: ``overflow()``.
            InvalidState: The server is not running.
        """
        if self._place is not None:
            raise UnsupportedFault(
                "a unix socket cannot be a black hole: its client is told at once that the queue is full, "
                "which is overflow(); a client that connects and hears nothing is on(CONNECT).reply(Stall())"
            )
        if sys.platform == "win32":
            raise UnsupportedFault("Windows refuses a connection that its queue has no room for: use refuse()")
        return self._shut("a black hole", self._fill_queue)

    def overflow(self) -> contextlib.AbstractContextManager[None]:
        """Have the queue of connections full: a unix client's ``connect()`` fails at once (EAGAIN), or blocks.

        It fails where the client's socket has a timeout or does not block; one that blocks waits (unix(7)).
        Also ``with server.overflow():``.

        Raises:
            UnsupportedFault: Over TCP, where a full queue is silent: ``blackhole()``.
            InvalidState: The server is not running.
        """
        if self._place is None:
            raise UnsupportedFault("over TCP a full queue is not told to the client: its effect is blackhole()")
        if sys.platform != "linux":
            raise UnsupportedFault(f"overflow() is known of Linux alone, and this is {sys.platform}: use refuse()")
        return self._shut("overflowing", self._fill_queue)

    def unlink(self) -> contextlib.AbstractContextManager[None]:
        """Remove the unix socket's path: whoever comes now finds no such file (ENOENT).  Also a ``with`` block.

        Raises:
            UnsupportedFault: The server has no path.
            InvalidState: The server is not running.
        """
        self._refuse_pathless("unlink")
        return self._shut("unlinked", self._unlink)

    def forbid(self) -> contextlib.AbstractContextManager[None]:
        """Take the permissions off the unix socket's path: whoever comes now is not let in (EACCES).

        Also ``with server.forbid():``, which gives them back at its end.

        Raises:
            UnsupportedFault: The server has no path; or this process is root's, whom permissions do not stop.
            InvalidState: The server is not running.
        """
        self._refuse_pathless("forbid")
        if os.geteuid() == 0:
            raise UnsupportedFault("forbid() cannot be shown to a client of this process: root may open any path")
        return self._shut("forbidden", self._forbid)

    def listen(self) -> None:
        """Accept again after ``refuse()``, ``blackhole()`` and their like, on the same address.

        A server that listens goes on.

        Raises:
            InvalidState: The server is not running.
        """
        with self._one_at_a_time():
            if self._state != STARTED and self._state not in SHUT:
                raise InvalidState(f"cannot listen() in state {self._state!r}: expected {_any_of(SHUT)} or 'started'")
            self._listen_again()

    def restart(self) -> None:
        """End all connections and listen anew on the same address, as a server that was restarted does.

        What was declared stays, and so does the record.  The address is never free meanwhile; for a server that is away
        for a while: ``with server.refuse(): server.disconnect()``.

        Raises:
            InvalidState: The server is not running.
        """
        with self._one_at_a_time():
            if self._state != STARTED and self._state not in SHUT:
                raise InvalidState(f"cannot restart() in state {self._state!r}: expected 'started'")
            if self._state != STARTED:
                self.disconnect()
                self._listen_again()
                return
            self._end_loop(Deadline(self.stop_timeout))
            self.disconnect()  # who comes back at once finds the queue open, and waits in it
            assert self._framework is not None
            self._serve(self._framework.socket)

    def disconnect(self, *, reset: bool = False) -> None:
        """End all connections from outside of what drives them: each client reads an end of stream, or is reset.

        Raises:
            UnsupportedFault: ``reset`` on a unix socket.
        """
        raise NotImplementedError

    def _refuse_pathless(self, verb: str) -> None:
        if self._place is None or self._place.abstract:
            what = "a TCP server has no path" if self._place is None else "an abstract name is no file"
            raise UnsupportedFault(f"{verb}() is for the path of a unix socket, and {what}: use refuse()")

    def _shut(self, state: str, shut: Any) -> contextlib.AbstractContextManager[None]:
        with self._one_at_a_time():
            if self._state == STARTED:
                shut()
                self._state = state
            elif self._state != state:
                also = f", or listen() first: it is {self._state}" if self._state in SHUT else ""
                raise InvalidState(f"cannot {SHUT[state]}() in state {self._state!r}: expected 'started'{also}")
        return Refusing(self, state)

    # Doing it

    def _stop_accepting(self) -> None:
        """End the accept loop, accept what is queued, and let the kernel refuse whoever comes now."""
        framework = self._framework
        assert framework is not None
        self._end_loop(Deadline(self.stop_timeout))
        if sys.platform == "linux" and self._place is None:
            # Keeps the port; and refuses even where a forked child holds a copy of the listener.  SO_REUSEADDR on both
            # sides would let somebody else listen there meanwhile.
            framework.socket.shutdown(socket.SHUT_RDWR)
            framework.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        else:
            # A unix socket that was shut down cannot listen again, and other systems refuse to shut a listener down.
            # Without a socket behind it a path refuses too (unix(7)), and listen() binds the address anew.
            with contextlib.suppress(OSError):
                framework.socket.shutdown(socket.SHUT_RDWR)  # of a forked child's copy as well
            framework.socket.close()

    def _fill_queue(self) -> None:
        """End the accept loop, accept what is queued, and fill the queue with connections of our own."""
        framework = self._framework
        assert framework is not None
        self._end_loop(Deadline(self.stop_timeout))
        framework.socket.listen(0)
        for _ in range(_FILLERS):
            filler = original.socket(framework.socket.family, socket.SOCK_STREAM)
            filler.setblocking(False)
            if self._place is not None:
                filler.bind("")  # to a name that the kernel chooses (unix(7)), by which it is told from a client
            with contextlib.suppress(BlockingIOError):
                filler.connect(framework.socket.getsockname())
            if not _is_connected(filler):
                filler.close()  # there was no room: the queue is full
                return
            self._fillers.append(filler)
        self._drain_queue()
        self._serve(self._listener(framework.socket))
        raise UnsupportedFault(f"this kernel's queue of connections takes {_FILLERS} and more: use refuse()")

    def _is_ours(self, address: Any) -> bool:
        """Tell whether it is one of our own connections that comes from an address."""
        return any(filler.getsockname() == address for filler in self._fillers)

    def _drain_queue(self) -> None:
        """Accept whoever has come between, and drop our own connections."""
        framework, until = self._framework, original.monotonic() + _ACCEPTING
        assert framework is not None
        while ready(framework.socket, False, 0) and original.monotonic() < until:
            framework._handle_request_noblock()
        self._close_fillers()

    def _close_fillers(self) -> None:
        fillers, self._fillers = self._fillers, []
        for filler in fillers:
            filler.close()

    def _unlink(self) -> None:
        assert self._place is not None
        self._place.unlink()

    def _forbid(self) -> None:
        assert self._place is not None
        self._mode_before = os.stat(self._place.file).st_mode & 0o777
        os.chmod(self._place.file, 0)

    def _listen_again(self) -> None:
        framework = self._framework
        assert framework is not None
        if self._state == STARTED:
            return
        if self._state == "forbidden":
            assert self._place is not None
            os.chmod(self._place.file, self._mode_before)
            self._state = STARTED
            return
        if self._state == "unlinked":
            self._stop_accepting()
        listener = framework.socket
        if self._state in ("a black hole", "overflowing"):
            self._drain_queue()
        self._serve(self._listener(listener if listener.fileno() >= 0 else self._bind()))
        self._state = STARTED

    # Life cycle

    def _begin(self) -> None:
        bound, self._bound = self._bound, None
        self._sink, self._fillers = None, []
        self._serve(self._listener(bound if bound is not None else self._bind()))

    def _bind(self) -> socket.socket:
        if self._place is not None:
            return self._place.bind(self._kind, self.options.rcvbuf)
        return bind_stream(self._family, *self._place_to_bind(), self.options.rcvbuf)

    def _listener(self, sock: socket.socket) -> socket.socket:
        try:
            if os.name == "posix" and self._place is None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if self.options.mss is not None:
                self._limit_segments(sock, self.options.mss)
            sock.listen(self.options.backlog)
        except OSError as error:  # two sockets may be bound to one port by SO_REUSEADDR, and only one may listen
            address = sock.getsockname()
            sock.close()
            raise explained(error, self._kind, address) from None
        return sock

    def _limit_segments(self, sock: socket.socket, mss: int) -> None:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, mss)
        except (AttributeError, OSError) as error:
            address = sock.getsockname()
            sock.close()
            raise AddressUnavailable(
                getattr(error, "errno", None) or 0, f"{address[0]}:{address[1]} takes no mss={mss} on {sys.platform}"
            ) from None

    def _serve(self, listener: socket.socket) -> None:
        self._publish(listener)
        old, self._framework = self._framework, AcceptingServer(self, listener, self.options.backlog)  # type: ignore[arg-type]
        if old is not None and self._state not in ("new", "stopped"):
            self._framework._threads = old._request_threads()  # of connections that have gone on meanwhile
        self._start_loop(self._framework)

    def _end_loop(self, deadline: Deadline) -> None:
        """End the accept loop, and accept what is queued."""
        framework = self._framework
        assert framework is not None
        framework.shutdown()
        life_cycle.join([self._loop], life_cycle.end_of_patience(deadline))
        if framework.socket.fileno() < 0:
            return  # closed by an earlier stop that was interrupted, or by a handler
        framework.socket.setblocking(False)
        before, until = -1, original.monotonic() + min(_ACCEPTING, deadline.left() or 0.0)
        while before < self._admitted and original.monotonic() < until and ready(framework.socket, False, 0):
            before = self._admitted  # an accept that fails (EMFILE) leaves the socket readable
            framework._handle_request_noblock()


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


def _any_of(states: Any) -> str:
    return ", ".join(repr(each) for each in states)


class Refusing(contextlib.AbstractContextManager[None]):
    """What ``refuse()`` and its like return: leaving the ``with`` block listens again."""

    def __init__(self, server: Any, state: str = "refusing") -> None:
        self._server, self._state = server, state

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        if self._server._state == self._state:
            self._server.listen()
