"""Handlers: what is done with one request.

A handler is made for each request; its constructor does all the work.  ``setup()``, ``handle()``, ``finish()`` are
called in this order, the last one even if ``handle()`` raises.  If ``setup()`` raises, neither of the others is
called.
"""

from __future__ import annotations

import io
import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class BaseRequestHandler:
    """The base of all handlers.  Override ``handle()``.

    ``request`` is the accepted socket, or ``(data, socket)`` for a datagram; ``client_address`` and ``server`` say
    whose it is.  Runs in the thread or process that the server chose for it.
    """

    def __init__(self, request: Any, client_address: Any, server: Any) -> None:
        self.request = request
        self.client_address = client_address
        self.server = server
        try:
            self.setup()
        except BaseException:
            self._abandon()
            raise
        try:
            self.handle()
        finally:
            self.finish()

    def setup(self) -> None:
        """Hook: prepare."""

    def handle(self) -> None:
        """Hook: do what the request asks for."""

    def finish(self) -> None:
        """Hook: clean up."""

    def _abandon(self) -> None:
        """Hook: release what ``setup()`` made before it raised."""


class StreamRequestHandler(BaseRequestHandler):
    """A handler with files: ``rfile`` to read from the connection, ``wfile`` to write to it.

    ``wfile`` is unbuffered, and each ``write()`` sends all that it is given.  With ``wbufsize`` it is buffered; a
    client that has gone by the time it is flushed at the end is no error.

    ``timeout`` is None, as in the standard library: a client that says nothing holds this handler for ever, and with
    it a server that has no threads.  Set it.
    """

    #: Sizes of the buffers in bytes: -1 the default size, 0 none.
    rbufsize = -1
    wbufsize = 0

    #: Seconds that a read or a write may take; None: no limit.
    timeout: float | None = None

    #: True sets TCP_NODELAY.  On connections other than TCP it is ignored.
    disable_nagle_algorithm = False

    connection: Any
    rfile: Any
    wfile: Any

    def setup(self) -> None:
        """Set the timeout and make the files."""
        self.connection = self.request
        if self.timeout is not None:
            self.connection.settimeout(self.timeout)
        if self.disable_nagle_algorithm:
            self._disable_nagle()
        self.rfile = self.connection.makefile("rb", self.rbufsize)
        if self.wbufsize == 0:
            self.wfile = _SocketWriter(self.connection)
        else:
            self.wfile = self.connection.makefile("wb", self.wbufsize)

    def finish(self) -> None:
        """Flush and close the files, whatever has become of the client."""
        try:
            if not self.wfile.closed:
                try:
                    self.wfile.flush()
                except OSError:
                    pass  # the client has gone
            self._close_wfile()
        finally:
            self.rfile.close()

    def _abandon(self) -> None:
        try:
            if getattr(self, "wfile", None) is not None:
                self._close_wfile()
        finally:
            if getattr(self, "rfile", None) is not None:
                self.rfile.close()

    def _close_wfile(self) -> None:
        try:
            self.wfile.close()
        except OSError:
            pass  # close() flushes again what flush() could not; the file is closed nevertheless

    def _disable_nagle(self) -> None:
        try:
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        except OSError:
            # EOPNOTSUPP on unix sockets (Linux), where there is nothing to disable.
            if getattr(self.connection, "family", None) in (socket.AF_INET, socket.AF_INET6):
                raise


class _SocketWriter(io.BufferedIOBase):
    """An unbuffered file for writing to a socket.  Unlike a raw file it never writes less than it was given."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        """Send all of ``data``; return its size in bytes, which is not its length if its items are larger."""
        self._sock.sendall(data)
        with memoryview(data) as view:
            return view.nbytes

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        descriptor: int = self._sock.fileno()
        return descriptor


class DatagramRequestHandler(BaseRequestHandler):
    """A handler of one datagram: ``rfile`` reads it, and what is written to ``wfile`` is sent back as one datagram.

    The reply is sent even if nothing was written, as an empty datagram: that is what the standard library does.
    Override ``finish()`` to send none.  A client without an address (a unix socket that is not bound) gets no reply.
    """

    packet: bytes
    socket: Any
    rfile: io.BytesIO
    wfile: io.BytesIO

    def setup(self) -> None:
        """Make the files."""
        self.packet, self.socket = self.request
        self.rfile = io.BytesIO(self.packet)
        self.wfile = io.BytesIO()

    def finish(self) -> None:
        """Send the reply."""
        if self.client_address:
            self.socket.sendto(self.wfile.getvalue(), self.client_address)
