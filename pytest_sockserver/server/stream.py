"""A server of streams, as a test has it: TCP, and unix sockets."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

from ..connection.connection import Connection
from ..connection.queries import block
from ..connection.request import Value
from ..errors.location import hide_frame
from ..scripting.framing import Framing, checked_framing
from ..scripting.parts import Part
from . import outages, queries
from .base import BaseTestServer, H
from .stream_service import StreamService

if TYPE_CHECKING:
    import ssl

    from ..scripting.script import Script

__tracebackhide__ = hide_frame


class StreamTestServer(BaseTestServer):
    """A server of streams: TCP, a unix socket with ``transport="unix"``, TLS from the first byte with ``"tls"``.

    Args:
        options: Those of the factory, as far as they say something to the transport.
    """

    service: StreamService

    def __init__(self, *, transport: str = "tcp", **options: Any) -> None:
        if transport not in ("tcp", "tls", "unix"):
            raise ValueError(f"transport must be 'tcp', 'tls' or 'unix', not {transport!r}")
        given = {"tls": True, **options} if transport == "tls" else options
        super().__init__(StreamService(type(self).__name__, transport, given))

    @property
    def connections(self) -> list[Connection]:
        """The connections so far, in order of arrival: a snapshot."""
        with self.service.context.recorder.lock:
            return [each.face for each in self.service.connections.conversations]

    @property
    def framing(self) -> Framing | None:
        """Where one frame ends and the next begins; looked at when a connection comes."""
        return self.service.context.framing

    @framing.setter
    def framing(self, framing: Framing | None) -> None:
        self.service.context.framing = checked_framing(framing, self.options.max_frame)

    # Declaring

    def handler(self, target: H) -> H:
        """Declare what answers from now on; a decorator, also callable with a function or a class.

        Connections that are waiting already, because their client was faster, are answered as well.

        Args:
            target: A function of a :class:`Connection`, or a ``BaseRequestHandler`` subclass, of
                ``socketserver`` or of ``pytest_sockserver.socketserver``.  The latest declared counts.

        Raises:
            TypeError: It cannot be called like that, or is async or a generator.
        """
        self.service.declare_handler(target)
        return target

    def script(self, times: int | tuple[int, int | None] | None = 1) -> Script:
        """Return a script, empty so far: an ordered conversation for the next connection that has none yet.

        Its verbs are those of a connection, deferred.  Whatever departs from it fails the test, and so does what it
        demands and never comes.  After its last step the rules answer, if there are any; else the client may but close.

        Args:
            times: For how many connections it is: exactly so many, ``(least, most)``, or ``None`` for all that follow.

        Raises:
            TypeError, ValueError: ``times`` is no number of times.
        """
        return self.service.declare_script(times)

    def dialogue(self, text: str | os.PathLike[str], *, timed: bool = False, **values: Value) -> None:
        """Declare the conversation that a text describes, in the notation of dialogues.

        Args:
            text: The text; or the path of a file that has it, relative to the test's own.
            timed: What the server says leaves no earlier than its line's ``[seconds]``.
            values: Further names for ``\\g<name>``: bytes, or functions of the connection that return bytes.

        Raises:
            DialogueError: A line cannot be read: its number, the line, and what was expected.
        """
        self.service.declare_dialogue(text, values, timed=timed)

    def clear(self) -> None:
        """Forget what was declared and what was recorded; never a failure.  Open connections stay open.

        What a test demanded is not forgotten any more when its call is over.
        """
        self.service.clear()

    def wait_connection(self, index: int = 0, *, timeout: float | None = None) -> Connection:
        """Return the connection with this index; wait for it if need be.

        What is declared has the connection by then; on TLS it gets the connection after the handshake.

        Raises:
            DeadlineExceeded: It did not come in time.
        """
        return block(queries.connection(self.service, index, timeout)).face

    def accept(self, *, timeout: float | None = None) -> Connection:
        """Return the earliest connection not taken yet, to be driven by the test; wait for it if need be.

        For servers with nothing declared.  What its client has sent already is there to be read; from now
        on nothing is read unless asked for.  With ``ignore_probes=True`` a client that leaves within 0.05 seconds
        without sending a byte is skipped, and one that sends nothing is returned after that time.

        Raises:
            InvalidState: A handler is declared: it takes the connections.
            DeadlineExceeded: Nobody connected in time.
        """
        service = self.service
        return service.connections.accepted(block(queries.untaken_connection(service, timeout))).face

    def client_context(self, **options: Any) -> ssl.SSLContext:
        """Return the context of a client that trusts this server, and checks the name that it connects to.

        Args:
            options: ``certificate``, the client's own, as a ``Certificate``; ``alpn``, a sequence of protocol names;
                ``trust=False`` for one that trusts nobody's certificate.

        Raises:
            InvalidState: The server has no TLS, or a context of yours: what its clients are to trust is not known here.
        """
        return self.service.client_context(options)

    @property
    def ca_path(self) -> str:
        """The path of a file with the certificate that clients must trust, in PEM; gone when the server stops.

        Raises:
            InvalidState: The server has no TLS, or a context of yours.
        """
        return self.service.ca_path()

    # Faults

    def refuse(self) -> contextlib.AbstractContextManager[None]:
        """Refuse connections from now on, on the same port, which stays reserved.  Live ones go on.

        Also ``with server.refuse():``, which listens again at its end.

        Raises:
            InvalidState: The server is not running.
        """
        return outages.refuse(self.service, self.listen)

    def blackhole(self) -> contextlib.AbstractContextManager[None]:
        """Let connections hang from now on: a client's ``connect()`` waits until its time is over.  Live ones go on.

        Once the server listens again, a client that still waits gets through when its kernel tries the next time: after
        1, 3 or 7 seconds.  Also ``with server.blackhole():``, which listens again at its end.

        Raises:
            UnsupportedFault: On a unix socket, which says at once that its queue is full: ``overflow()``.
            InvalidState: The server is not running.
        """
        return outages.blackhole(self.service, self.listen)

    def overflow(self) -> contextlib.AbstractContextManager[None]:
        """Have the queue of connections full: a unix client's ``connect()`` fails at once (EAGAIN), or blocks.

        It fails where the client's socket has a timeout or does not block; one that blocks waits (unix(7)).
        Also ``with server.overflow():``.

        Raises:
            UnsupportedFault: Over TCP, where a full queue is silent: ``blackhole()``.
            InvalidState: The server is not running.
        """
        return outages.overflow(self.service, self.listen)

    def unlink(self) -> contextlib.AbstractContextManager[None]:
        """Remove the unix socket's path: whoever comes now finds no such file (ENOENT).  Also a ``with`` block.

        Raises:
            UnsupportedFault: The server has no path.
            InvalidState: The server is not running.
        """
        return outages.unlink(self.service, self.listen)

    def forbid(self) -> contextlib.AbstractContextManager[None]:
        """Take the permissions off the unix socket's path: whoever comes now is not let in (EACCES).

        Also ``with server.forbid():``, which gives them back at its end.

        Raises:
            UnsupportedFault: The server has no path; or this process is root's, whom permissions do not stop.
            InvalidState: The server is not running.
        """
        return outages.forbid(self.service, self.listen)

    def listen(self) -> None:
        """Accept again after ``refuse()``, ``blackhole()`` and their like, on the same address.

        A server that listens goes on.

        Raises:
            InvalidState: The server is not running.
        """
        outages.listen(self.service)

    def restart(self) -> None:
        """End all connections and listen anew on the same address, as a server that was restarted does.

        What was declared stays, and so does the record.  The address is never free meanwhile; for a server that is away
        for a while: ``with server.refuse(): server.disconnect()``.

        Raises:
            InvalidState: The server is not running.
        """
        outages.restart(self.service, self.disconnect)

    def disconnect(self, *, reset: bool = False) -> None:
        """End all connections from outside of what drives them: each client reads an end of stream, or is reset.

        Raises:
            UnsupportedFault: ``reset`` on a unix socket.
        """
        self.service.connections.disconnect(reset=reset)

    def limit_connections(self, most: int | None, *parts: Part) -> None:
        """Let at most so many connections be open at once; whoever comes then is answered by ``parts`` and dropped.

        Args:
            most: ``None`` for any number again.
            parts: ``Reset()`` unless given, on a unix socket ``Close()``.

        Raises:
            TypeError, ValueError: ``most`` is no number of connections, or a part is none.
            UnsupportedFault: The transport cannot do a part.
        """
        self.service.connections.limit(most, parts)
