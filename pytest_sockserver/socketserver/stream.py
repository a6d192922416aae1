"""Servers of streams: TCP and unix sockets.

Rules:

- A listening socket is made non-blocking while something selects it: the connection that ``select()`` has announced
  may be gone by the time of ``accept()``, which would then block the loop, ``shutdown()`` included (Stevens, UNP
  16.6).  Only O_NONBLOCK is set, behind Python's back: ``gettimeout()`` is part of what ``handle_request()``
  promises, and must go on saying None.  A listener with a timeout of its own is non-blocking already, and is left
  alone.  The flag belongs to the socket, not to the process: whoever shares the listener by ``fork()`` sees it too.
- A live connection is ended through its socket object, never by descriptor number, and under the lock that its
  closing takes as well: between two calls a number may come to mean somebody else's file.

Not done: counting connections, limiting them, reading from them.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from ..originals import accept, original
from .base import BaseServer

# BSD and macOS hand out accepted sockets with the listener's O_NONBLOCK; Linux does not (accept(2)).
_ACCEPTED_INHERIT = sys.platform != "linux"

# On Windows (and WASI) sockets have no O_NONBLOCK that os.set_blocking() could reach.
_CAN_UNBLOCK = os.name == "posix"

_INTERNET = (socket.AF_INET, socket.AF_INET6)


class LiveRequests:
    """The accepted sockets that are not closed yet, so that all can be ended at once.

    In a forked child it does nothing but close: the connections are the parent's, and its lock may have been held, by
    a thread that exists only in the parent, when the child was made.
    """

    def __init__(self) -> None:
        self._pid = original.getpid()
        # Guards _requests and _ending, and the descriptors of those that are listed.  Re-entrant: for signal handlers.
        # Only the shutdown(2) of a socket is called under it: what a request of another kind does is the application's.
        self._lock = original.RLock()
        self._requests: dict[int, Any] = {}  # by id(): a request need not be hashable
        self._ending = False

    def add(self, request: Any) -> None:
        """Note a new request; end it at once if all are being ended."""
        with self._lock:
            self._requests[id(request)] = request
            foreign = self._cut([request]) if self._ending else []
        for each in foreign:
            _cut(each)

    def close(self, request: Any) -> None:
        """Close the request and forget it."""
        if original.getpid() != self._pid:
            request.close()
            return
        with self._lock:  # end() is done with it, or will not find it
            self._requests.pop(id(request), None)
        request.close()

    def end(self) -> None:
        """Shut down all that live, and all that come until ``reopen()``.  Who reads from them sees the end."""
        if original.getpid() != self._pid:
            return
        with self._lock:
            self._ending = True
            foreign = self._cut(self._requests.values())
        for each in foreign:
            _cut(each)

    def _cut(self, requests: Iterable[Any]) -> list[Any]:
        """Shut down those that are sockets; return the others, to be cut without the lock, which must be held."""
        foreign = []
        for request in requests:
            if issubclass(type(request), socket.socket):
                _cut(request)
            else:
                foreign.append(request)
        return foreign

    def reopen(self) -> None:
        """Let new requests live again."""
        with self._lock:
            self._ending = False


class SocketFile:
    """The file of a bound unix socket: removed only if it is still the one that this process bound."""

    def __init__(self, path: str) -> None:
        self._path = os.path.abspath(path)  # the working directory may change
        self._inode = _inode(self._path)
        self._pid = original.getpid()

    @classmethod
    def of(cls, address: Any) -> SocketFile | None:
        """Return the file behind what ``getsockname()`` returned; None if that is abstract (``bytes``) or empty."""
        return cls(address) if isinstance(address, str) and address and not address.startswith("\0") else None

    def unlink(self) -> None:
        """Remove the file, unless it is gone, was replaced, or belongs to the parent process.

        To be called while the socket is open: as long as it is, its inode number cannot be given to another file.
        """
        if original.getpid() != self._pid:
            return
        try:
            if _inode(self._path) == self._inode:
                os.unlink(self._path)
        except FileNotFoundError:
            pass


class TCPServer(BaseServer):
    """A server of TCP connections.

    ``allow_reuse_address`` means something else on Windows: there it lets two servers listen on one port, and which
    of them a client reaches is undefined.  Leave it False there.

    Handlers that replace the request (``wrap_socket``, ``detach``) take it out of this server's hands: neither
    ``end_connections_on_close`` nor ``linger_on_close`` reaches the new object.
    """

    address_family: int = socket.AF_INET
    socket_type: int = socket.SOCK_STREAM

    #: How many connections may wait to be accepted.  Five, as in the standard library, loses bursts: a client that
    #: comes when the queue is full waits for its SYN to be sent again, a second or more.  Zero is not "the default"
    #: on Linux, it is next to none.  From Python 3.15 on it is the system's maximum.
    request_queue_size: int = 5 if sys.version_info < (3, 15) else getattr(socket, "SOMAXCONN", 5)

    #: True sets SO_REUSEADDR, SO_REUSEPORT before binding, where the platform has them.
    allow_reuse_address = False
    allow_reuse_port = False

    #: True: ``server_close()`` shuts down, in both directions, the connections that are still being handled: a
    #: handler that is blocked in reading or writing sees the end of the stream or an error, and so does its client.
    #: Connections that are handled by forked children are out of reach.
    end_connections_on_close = False

    #: True: an IPv6 literal, or a host name that has IPv6 addresses only, selects AF_INET6.
    infer_address_family = False

    #: True: a server with AF_INET6 accepts IPv4 clients too; their addresses look like ``::ffff:127.0.0.1``.  False
    #: leaves it to the system's default, which differs.
    dual_stack = False

    #: Seconds.  To close a connection with unread input makes the kernel send RST, which may destroy the reply on its
    #: way to the client.  More than 0: such input is read and discarded, after the end of the stream was sent, until
    #: the client closes or this time is over; in the handler's thread, or in the loop if there are no threads.
    linger_on_close = 0.0

    __live: LiveRequests | None = None

    def __init__(
        self,
        server_address: Any,
        RequestHandlerClass: Callable[[Any, Any, Any], Any],
        bind_and_activate: bool = True,
    ) -> None:
        """Create the socket; bind it and listen, unless ``bind_and_activate`` is False.

        The class attributes above may also be set on the instance before this is called.

        Raises:
            OSError: The address cannot be bound.  The socket is closed then.
        """
        BaseServer.__init__(self, server_address, RequestHandlerClass)
        if self.infer_address_family:
            self.address_family = _inferred_family(server_address, self.address_family, self.socket_type)
        self.socket = socket.socket(self.address_family, self.socket_type)
        if bind_and_activate:
            try:
                self.server_bind()
                self.server_activate()
            except BaseException:
                self.server_close()
                raise

    def server_bind(self) -> None:
        """Set the options, bind, and store the address that was really bound in ``server_address``."""
        if self.allow_reuse_address and hasattr(socket, "SO_REUSEADDR"):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Linux from 6.14 on refuses SO_REUSEPORT on unix sockets (EOPNOTSUPP), where it never had an effect.
        if self.allow_reuse_port and hasattr(socket, "SO_REUSEPORT") and self.address_family in _INTERNET:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if self.dual_stack and self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self._after_bind()

    def server_activate(self) -> None:
        """Listen."""
        self.socket.listen(self.request_queue_size)

    def server_close(self) -> None:
        """End the loop if it runs in another thread, then close the listening socket.

        Waits for the loop, and so for a handler that runs in it; see ``end_connections_on_close``.  Called from the
        loop's own thread it does not wait: the loop ends when the handler has returned.
        """
        self._before_close()
        serving = self._is_serving()
        if serving:
            self._ask_loop_to_end()
        self._end_connections()
        if serving:
            self._wait_for_loop()
        self.socket.close()
        if self.__live is not None:
            self.__live.reopen()

    def fileno(self) -> int:
        """Return the listening socket's descriptor; -1 when it is closed."""
        descriptor: int = self.socket.fileno()
        return descriptor

    def get_request(self) -> tuple[Any, Any]:
        """Accept a connection; return its socket and the client's address."""
        request, client_address = accept(self.socket)
        if _ACCEPTED_INHERIT:
            request.settimeout(request.gettimeout())  # sets or clears O_NONBLOCK to agree with it
        return request, client_address

    def shutdown_request(self, request: Any) -> None:
        """Send the end of the stream, then close the connection."""
        try:
            request.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # ENOTCONN: the client has reset it, or the handler has closed it
        else:
            if self.linger_on_close > 0 and _has_unread_input(request):
                _discard_input(request, self.linger_on_close)
        self.close_request(request)

    def close_request(self, request: Any) -> None:
        """Close the connection."""
        if self.__live is None:
            request.close()
        else:
            self.__live.close(request)

    # Hooks of our own, since the subclasses that need them must not define server_bind() and server_close(): with a
    # second server class beside them, as in class S(UnixStreamServer, HTTPServer), super() would lead into that one.

    def _after_bind(self) -> None:
        """Hook: the socket has been bound, and ``server_address`` is what it was bound to."""

    def _before_close(self) -> None:
        """Hook: the socket is about to be closed; or is closed already, as ``server_close()`` may be called again."""

    def _end_connections(self) -> None:
        if self.end_connections_on_close:
            self._live_requests().end()

    def _request_accepted(self, request: Any) -> None:
        if self.end_connections_on_close:
            self._live_requests().add(request)

    def _live_requests(self) -> LiveRequests:
        # setdefault() is atomic: the loop may accept the first connection just while another thread closes the server.
        live: LiveRequests = vars(self).setdefault("_TCPServer__live", LiveRequests())
        return live

    def _unblocked(self) -> AbstractContextManager[None]:
        return _unblocked(self.socket) if self._may_unblock() else nullcontext()

    def _may_unblock(self) -> bool:
        if not _CAN_UNBLOCK or not isinstance(self.socket, original.socket) or self.socket.type != socket.SOCK_STREAM:
            return False
        # Where accepted sockets inherit O_NONBLOCK, only our own get_request() puts that right in time: another one
        # may read from the new socket, as an accept() that does a TLS handshake.
        if _ACCEPTED_INHERIT and (
            type(self).get_request is not TCPServer.get_request or type(self.socket).accept is not original.accept
        ):
            return False
        return self.socket.gettimeout() is None and self.socket.fileno() >= 0


if hasattr(socket, "AF_UNIX"):

    class UnixStreamServer(TCPServer):
        """A server of stream connections on a unix socket; ``server_address`` is its path.

        Clients rarely bind their sockets: their address is then ``""``.
        """

        address_family = socket.AF_UNIX

        #: True: ``server_close()`` removes the socket's file, if it is still the one that this server made.  False
        #: leaves it, as the standard library does: binding the same path again then fails with EADDRINUSE.
        unlink_on_close = False

        __file: SocketFile | None = None

        def _after_bind(self) -> None:
            self.__file = SocketFile.of(self.server_address)

        def _before_close(self) -> None:
            if self.unlink_on_close and self.__file is not None and self.fileno() >= 0:
                self.__file.unlink()


@contextmanager
def _unblocked(listener: socket.socket) -> Iterator[None]:
    """Set O_NONBLOCK; clear it at the end, unless the socket was closed or given a timeout meanwhile."""
    descriptor = listener.fileno()
    os.set_blocking(descriptor, False)
    try:
        yield
    finally:
        if listener.fileno() == descriptor and listener.gettimeout() is None:
            os.set_blocking(descriptor, True)


def _cut(request: Any) -> None:
    """Shut down both directions; wakes whoever is blocked in reading or writing."""
    try:
        if isinstance(request, original.socket):
            # Not SSLSocket.shutdown(): it drops the TLS state, and the handler would read ciphertext as if it were
            # plain.
            original.socket.shutdown(request, socket.SHUT_RDWR)
        else:
            request.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # ENOTCONN, EBADF: it has ended already


def _has_unread_input(request: Any) -> bool:
    if request.fileno() < 0:
        return False
    try:
        import fcntl
        import termios
    except ImportError:  # Windows
        return _is_readable(request)
    size: int = struct.unpack("i", fcntl.ioctl(request.fileno(), termios.FIONREAD, b"\0" * 4))[0]
    return size > 0


def _is_readable(request: Any) -> bool:
    """Return whether there is input, without FIONREAD: look at one byte."""
    request.settimeout(0)
    try:
        return bool(request.recv(1, socket.MSG_PEEK))
    except OSError:
        return False


def _discard_input(request: Any, limit: float) -> None:
    """Read until the end of the stream, at most for ``limit`` seconds."""
    deadline = original.monotonic() + limit
    try:
        while (remaining := deadline - original.monotonic()) > 0:
            request.settimeout(remaining)
            if not request.recv(65536):
                return
    except OSError:
        pass  # the time is over, or the client has reset the connection


def _inferred_family(server_address: Any, family: int, kind: int) -> int:
    """Return AF_INET6 if the host can only be meant so; else ``family``.  May ask the resolver, and block."""
    if family != socket.AF_INET or not server_address[0]:
        return family
    host, port = server_address[:2]
    try:
        found = {entry[0] for entry in original.getaddrinfo(host, port, type=kind, flags=socket.AI_PASSIVE)}
    except socket.gaierror:
        return family  # bind() will say what is wrong with it
    return socket.AF_INET6 if found == {socket.AF_INET6} else family


def _inode(path: str) -> tuple[int, int]:
    found = os.stat(path, follow_symlinks=False)
    return found.st_dev, found.st_ino
