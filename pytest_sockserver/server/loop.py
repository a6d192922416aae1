"""The framework's servers, as test servers run them.

These are ordinary ``socketserver`` servers whose hooks say what happens to the test server that owns them:
a connection was accepted, a datagram has arrived.  They bring the two things that only the place where
bytes leave the kernel's queues can know: a socket that records, and whether something has been taken
out of a queue that its owner does not know of yet (``taking``).
"""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING, Any, Protocol

from .. import socketserver
from ..connection.deadline import process_ends_soon
from ..errors.location import hide_frame
from ..originals import Thread, original
from ..recording.recorder import Tape
from ..socketserver.wakeup import Wakeup
from ..transport.tapped_socket import RecordingSocket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..connection.context import Context
    from ..connection.conversation import Conversation
    from ..transport.listener import Listener
    from ..transport.published import Published

__tracebackhide__ = hide_frame

# Which thread runs which hook:
#
# - The loop's: `get_request`, `process_request`, `service_actions`, and `handle_error` of what could not be begun.
#   After the loop has ended and was joined, the thread that stops runs the first two through `take_one`.  So two
#   threads never take from one queue at the same time.
# - The connection's own: `finish_request`, which runs its driver.
# - That of the thread that starts, or listens again: `__init__` and `prepare_loop`.
#
# `taking` closes the gap between the kernel's queue and the owner's list.  It is set before the queue is touched, and
# cleared after the owner has listed what was taken.  One thread writes it, and a drain reads it without a lock, in the
# order queue, `taking`, list.  In another order a connection between the two would be overlooked, and its request lost.
#
# Sockets come here bound, and listening where they have to: the transport makes them, since an outage and a further
# start need the same one, or its number, again.
#
# Errors of a single accept are counted for the report and never raised: a client that has gone concerns no test.
#
# Not done: no limit of threads, and no verification of requests.  `shutdown_request` does nothing, because the driver
# ends its connection in an order that the framework does not know.


#: Bytes of the largest datagram there is: a UDP header counts 65,535 with itself and the IP header (RFC 768, 791).
MAX_DATAGRAM = 65536

#: Bytes of the largest unix datagram, unless the client has asked for a larger send buffer than it has by default:
#: 212,992 on Linux (socket(7), net.core.wmem_default).
MAX_UNIX_DATAGRAM = 1 << 20


class Owner(Protocol):
    """Whom a loop serves."""

    context: Context
    published: Published

    def label(self) -> str:
        """Return what the names of the server's threads have in common."""

    def last_words(self) -> None:
        """Say what was said so far: a time limit is about to end the process."""

    def could_not_take(self, error: OSError) -> None:
        """Count an error of accepting, or of receiving."""

    def could_not_begin(self, request: Any) -> None:
        """Keep the error of a request that could not be handed on."""


class Accepting(Owner, Protocol):
    """Who has the connections."""

    listener: Listener

    def admit(self, accepted: socket.socket, address: Any) -> Any:
        """Make a connection of an accepted socket."""

    def perform(self, connection: Conversation) -> None:
        """Run the connection's driver, in its thread."""

    def leave_to_accept(self, connection: Conversation) -> None:
        """Read a connection until somebody accepts it, or declares something."""


class Receiving(Owner, Protocol):
    """Who has the datagrams."""

    def arrived(self, data: bytes, sock: Any, peer: Any) -> None:
        """Record a datagram, and hand it to the thread that answers."""


class _Unused(socketserver.BaseRequestHandler):
    """Stands where the framework wants a handler class; a test server's handlers are declared on its owner."""


class PreparedLoop(socketserver.BaseServer):
    """A server whose loop finds its wake-up made.

    All descriptors of a test server are then there when ``start()`` returns, and none appears a moment later,
    when the loop's thread gets to run: whoever counts them, to find leaks, needs that.
    """

    owner: Owner
    taking = False  # something may have left the queue that the owner has not listed yet
    _prepared: Wakeup | None = None

    # A handler class finds this object as ``self.server``; those of http.server ask it for a name and a port.
    server_name: str  # the host of the test server's address; ``localhost`` for a unix socket
    server_port: int  # its port; 0 for a unix socket

    def _belong_to(self, owner: Owner, bound: socket.socket) -> None:
        self.owner, self.socket = owner, bound
        vars(self)["address_family"] = bound.family  # a class attribute in the standard library
        inet = bound.family in (socket.AF_INET, socket.AF_INET6)
        self.server_name, self.server_port = owner.published.address if inet else ("localhost", 0)
        # Past TCPServer's: it would make a socket of its own, and this one is bound already.
        socketserver.BaseServer.__init__(self, bound.getsockname(), _Unused)

    if not TYPE_CHECKING:  # which would take any name for a known one

        def __getattr__(self, name: str) -> Any:
            owner = vars(self).get("owner")
            if owner is None or name.startswith("__"):
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            raise AttributeError(
                f"self.server has no {name!r}: for a handler class it is {owner.context.name}, the test's server.  To "
                "host a class that needs a server of its own, make that one with bind_and_activate=False, as app, and "
                "declare a BaseRequestHandler whose handle() calls "
                "app.finish_request(self.request, self.client_address)"
            )

    def prepare_loop(self) -> None:
        """Make the wake-up of the next loop."""
        self._prepared = Wakeup()

    def take_one(self) -> None:
        """Take what is at the head of the queue, if anything is.  For a server whose loop has ended."""
        self._handle_request_noblock()

    def close_in_child(self) -> None:
        """In a forked child: close the copies of the descriptors, shut nothing down, take no lock."""
        self.socket.close()
        if self._wakeup is not None:
            self._wakeup.close()

    def _request_failed(self, error: OSError) -> None:
        """Count it for the report, instead of writing it to stderr in the midst of a test."""
        self.owner.could_not_take(error)

    def _make_wakeup(self) -> Wakeup:
        wakeup, self._prepared = self._prepared, None
        if wakeup is None:
            return super()._make_wakeup()
        # It was made in the starter's thread, and belongs to the loop's.
        wakeup.thread = original.get_ident()
        return wakeup

    def service_actions(self) -> None:
        """Say what was said, if a time limit is about to end the process without a report."""
        super().service_actions()
        if process_ends_soon() is not None:
            self.owner.last_words()

    def server_close(self) -> None:
        """Close the server, and a wake-up that no loop has used."""
        wakeup, self._prepared = self._prepared, None
        if wakeup is not None:
            wakeup.close()
        super().server_close()


class AcceptingServer(PreparedLoop, socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Accepts for a list of connections, a thread for each connection that something was declared for."""

    owner: Accepting
    daemon_threads = True  # one that never ends must not keep the interpreter; it is joined and named all the same
    join_daemon_threads = True

    def __init__(self, owner: Accepting, listening: socket.socket, backlog: int) -> None:
        self.request_queue_size = backlog
        self._belong_to(owner, listening)

    def request_threads(self) -> Iterable[threading.Thread]:
        """Return the threads of connections."""
        return list(self._request_threads())

    def go_on_from(self, before: AcceptingServer) -> None:
        """Join at the end what another one has started: connections that have gone on meanwhile."""
        # The same list and not a copy: threads of the earlier server leave it when they end.
        self._threads = super(AcceptingServer, before)._request_threads()

    def get_request(self) -> tuple[Any, Any]:
        """Accept a connection, onto a tape of its own."""
        self.taking = True
        try:
            accepted, address = super().get_request()
            listener = self.owner.listener
            # Our own connections, which fill the queue in an outage, must not be recorded as clients.
            if listener.fillers and listener.is_ours(address):
                accepted.close()
                raise BlockingIOError  # as if nobody had come
            return self.owner.admit(accepted, address), address
        finally:
            self.taking = False

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start the handler that was declared, or let the connection wait for ``accept()``."""
        connection = connection_of(request)
        if request.is_driven:
            self.handle(connection)
        else:
            self.owner.leave_to_accept(connection)

    def handle(self, connection: Conversation) -> None:
        """Start the thread of a connection's handler; keep the error if it cannot be started."""
        request: Any = connection.tape.socket
        request.connection = connection  # TLS has put another socket in the place of the one that was accepted
        try:
            super().process_request(request, connection.peer)
        except Exception:
            self.handle_error(request, connection.peer)

    def _request_thread(self, request: Any, client_address: Any) -> threading.Thread:
        connection = connection_of(request)
        name = f"sockserver {self.owner.label()} #{connection.index}"
        thread = Thread(target=self.process_request_thread, args=(request, client_address), name=name, daemon=True)
        connection.thread = thread
        return thread

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Run the handler, in the connection's thread."""
        self.owner.perform(connection_of(request))

    def shutdown_request(self, request: Any) -> None:
        """Do nothing: whoever performs a connection also ends it, since only he knows how."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep the error of a request that could not even be begun."""
        self.owner.could_not_begin(request)


class ReceivingServer(PreparedLoop, socketserver.UDPServer):
    """Receives for a list of peers; nothing is answered in the loop's thread."""

    owner: Receiving
    max_packet_size = MAX_DATAGRAM
    reply_from_destination = True

    def __init__(self, owner: Receiving, bound: socket.socket) -> None:
        self._belong_to(owner, bound)
        if bound.family not in (socket.AF_INET, socket.AF_INET6):
            self.reply_from_destination = False
            self.max_packet_size = MAX_UNIX_DATAGRAM
        self._after_bind()

    def get_request(self) -> tuple[Any, Any]:
        """Receive a datagram."""
        self.taking = True
        try:
            return super().get_request()
        except BaseException:
            self.taking = False  # nothing has left the queue; else process_request() says when it is listed
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """Record the datagram and hand it to whoever answers."""
        try:
            self.owner.arrived(request[0], request[1], client_address)
        finally:
            self.taking = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep the error of a datagram that could not be recorded."""
        self.owner.could_not_begin(request)


def adopt(accepted: socket.socket, connection_for: Callable[[Tape], Conversation], tape: Tape) -> RecordingSocket:
    """Return the recording socket of an accepted connection, which knows its connection."""
    recording = RecordingSocket.adopt(accepted, tape)
    recording.connection = connection_for(tape)  # type: ignore[attr-defined]
    return recording


def connection_of(request: Any) -> Conversation:
    """Return the connection of a socket that ``get_request`` returned."""
    connection: Conversation = request.connection
    return connection
