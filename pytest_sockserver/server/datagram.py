"""A server of datagrams, as a test has it: UDP, and unix datagram sockets."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from ..connection.request import Value
from ..errors.location import hide_frame
from ..faults.active import Injection
from ..scripting.parts import Part, takes_time
from ..scripting.script import Script
from . import outages
from .base import BaseTestServer, H
from .datagram_service import DatagramService

__tracebackhide__ = hide_frame


class DatagramTestServer(BaseTestServer):
    """A server of datagrams: UDP, or unix datagrams with ``transport="unix_datagram"``.

    Args:
        options: Those of the factory, as far as they say something to the transport.
    """

    service: DatagramService

    def __init__(self, *, transport: str = "udp", **options: Any) -> None:
        if transport not in ("udp", "unix_datagram"):
            raise ValueError(f"transport must be 'udp' or 'unix_datagram', not {transport!r}")
        super().__init__(DatagramService(type(self).__name__, transport, options))

    # Declaring

    def handler(self, target: H) -> H:
        """Declare what answers from now on; a decorator, also callable with a function or a class.

        Args:
            target: A function of a :class:`Request`, returning its replies, or a ``BaseRequestHandler`` subclass, of
                ``socketserver`` or of ``pytest_sockserver.socketserver``.  The latest declared counts.

        Raises:
            TypeError: It cannot be called like that, or is async or a generator.
        """
        self.service.declare_handler(target)
        return target

    def script(self, times: int | tuple[int, int | None] | None = 1) -> Script:
        """Return a script, empty so far: each ``expect`` takes one datagram, and what follows it answers its sender.

        It has ``expect send open maybe repeat``.  Each part of a ``send`` is one datagram.

        Args:
            times: How often it is performed: exactly so often, ``(least, most)``, or ``None`` for any number of times.

        Raises:
            TypeError, ValueError: ``times`` is no number of times.
        """
        return self.service.declare_script(times)

    def dialogue(self, text: str | os.PathLike[str], *, timed: bool = False, **values: Value) -> None:
        """Declare the conversation that a text describes; each line is one datagram.

        Without ``==`` there is one order over all peers; with it each section is for one peer, in order of appearance.
        Arguments and errors are those of the stream server's.
        """
        self.service.declare_dialogue(text, values, timed=timed)

    def clear(self) -> None:
        """Forget what was declared and what was recorded; never a failure.

        What a test demanded is not forgotten any more when its call is over.
        """
        self.service.clear()

    # Faults

    def refuse(self) -> contextlib.AbstractContextManager[None]:
        """Refuse datagrams from now on, on the same port, which stays reserved.

        A client whose UDP socket is connected is told (ECONNREFUSED), at its next send or receive; another one hears
        nothing.  A client of a unix socket is told by its send.  Also ``with server.refuse():``.

        Raises:
            InvalidState: The server is not running.
        """
        return outages.refuse_datagrams(self.service, self.listen)

    def blackhole(self) -> Injection:
        """Answer no datagram, until ``listen()``, or the end of a ``with`` block: each is recorded, and lost.

        What is not received cannot be told from what is not answered.
        """
        return self.service.blackhole()

    def listen(self) -> None:
        """Receive again after ``refuse()``, on the same address, and answer again after ``blackhole()``.

        A server that receives goes on.

        Raises:
            InvalidState: The server is not running.
        """
        outages.listen_for_datagrams(self.service)

    def send_to(self, peer: Any, *parts: Part) -> None:
        """Say parts to an address that has not asked: an unsolicited datagram, or one that comes before the query.

        Args:
            peer: The client's address, as its socket's ``getsockname()`` says it.

        Raises:
            TypeError: A part is none; or a function, for which there is no request.
            UnsupportedFault: The transport cannot do a part.
            InvalidState: The server is not running.
            BlockingCallInCoroutine: In a coroutine, where it would wait: ``await server.aio.send_to(...)``.
        """
        peers = self.service.peers
        if takes_time(parts):
            peers.outbox.refuse("send_to")
        peers.outbox.drive(peers.unasked_peer(peer, parts).unasked(parts), "send_to")
