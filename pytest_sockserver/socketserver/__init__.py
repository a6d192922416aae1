"""The standard library's ``socketserver``, written afresh: same names and hooks, a ``shutdown()`` that returns at once.

``from pytest_sockserver import socketserver`` stands in for ``import socketserver``.  Servers, handlers and mix-ins
written for the standard library work unchanged; mix-ins from here also work with servers from there
(``http.server``).  On every Python version the union of names is here: ``ForkingUnixStreamServer`` and
``allow_reuse_port`` are not missing on 3.10.  As in the standard library, what needs ``AF_UNIX`` or ``os.fork``
exists only where the platform has it.

What differs on purpose is said in the docstring of the class that it concerns.  Whatever could surprise a program
that runs on the standard library is a class attribute whose default is the standard library's behaviour:

========================= ============================ ==========================================================
``BaseServer``            ``collect_errors``           keep handlers' exceptions in ``errors``, do not print them
``TCPServer``             ``end_connections_on_close`` ``server_close()`` shuts down the live connections
``TCPServer``             ``infer_address_family``     ``("::1", 0)`` selects AF_INET6
``TCPServer``             ``dual_stack``               an AF_INET6 server takes IPv4 clients too
``TCPServer``             ``linger_on_close``          seconds for which unread input is discarded before close
``UDPServer``             ``reply_from_destination``   replies leave from the address that was asked
``Unix*Server``           ``unlink_on_close``          ``server_close()`` removes the socket file
``ThreadingMixIn``        ``close_timeout``            seconds that ``server_close()`` waits for threads
``ThreadingMixIn``        ``max_threads``              stop accepting while so many threads run
``ThreadingMixIn``        ``join_daemon_threads``      ``server_close()`` waits for daemon threads too
``TLSMixIn``              ``ssl_context``              the handshake runs in the handler's thread
========================= ============================ ==========================================================
"""

from __future__ import annotations

# Old code reaches these modules through this one: socketserver.socket.gethostname() and its like.
import os
import selectors
import socket
import sys  # noqa: F401
import threading  # noqa: F401

from ..originals import original as _original
from .base import BaseServer
from .concurrency import ThreadingMixIn, ThreadingTCPServer, ThreadingUDPServer
from .datagram import UDPServer
from .handlers import BaseRequestHandler, DatagramRequestHandler, StreamRequestHandler
from .stream import TCPServer
from .tls import TLSMixIn

__version__ = "0.4"

__all__ = [
    "BaseRequestHandler",
    "BaseServer",
    "DatagramRequestHandler",
    "StreamRequestHandler",
    "TCPServer",
    "TLSMixIn",
    "ThreadingMixIn",
    "ThreadingTCPServer",
    "ThreadingUDPServer",
    "UDPServer",
]

if hasattr(os, "fork"):
    from .concurrency import ForkingMixIn, ForkingTCPServer, ForkingUDPServer

    __all__ += ["ForkingMixIn", "ForkingTCPServer", "ForkingUDPServer"]

if hasattr(socket, "AF_UNIX"):
    from .concurrency import ThreadingUnixDatagramServer, ThreadingUnixStreamServer
    from .datagram import UnixDatagramServer
    from .stream import UnixStreamServer

    __all__ += [
        "ThreadingUnixDatagramServer",
        "ThreadingUnixStreamServer",
        "UnixDatagramServer",
        "UnixStreamServer",
    ]

    if hasattr(os, "fork"):
        from .concurrency import ForkingUnixDatagramServer, ForkingUnixStreamServer

        __all__ += ["ForkingUnixDatagramServer", "ForkingUnixStreamServer"]

# poll() needs no descriptor of its own (epoll does) and knows no FD_SETSIZE (select does: 1024 on most systems).
# Looked up here whenever a loop starts, so that it can be patched.
_ServerSelector: type[selectors.BaseSelector] = _original.PollSelector
