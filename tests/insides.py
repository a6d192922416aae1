"""What tests look at, or wait for, that has no public name: the only place where they name a private part of a server.

Whoever changes the structure of the package changes this file, and no test.  Everything here takes a server or a
connection that a test has, and gives a value or does one thing.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from pytest_sockserver import Connection, StreamTestServer
from pytest_sockserver.connection.conversation import Conversation
from pytest_sockserver.recording.failures import Failure
from pytest_sockserver.recording.recorder import Recorder, Tape

Server = Any  # a stream server or a datagram server

# Of a server


def is_idle(server: Server) -> bool:
    """Tell whether the server has handled all that has arrived, and waits for more."""
    return server.service.traffic.is_idle()


def has_settled(server: Server) -> bool:
    """Tell whether, besides, no client of ``in_thread()`` is about to send more."""
    return server.service.verdict.is_settled()


def settle(server: Server) -> bool:
    """Wait until that is so, as the end of a test does."""
    return server.service.verdict.settle()


def failure_of(server: Server) -> Failure | None:
    """Return the first failure that was not raised yet."""
    return server.service.context.failures.pending()


def failures_kept(server: Server) -> list[Failure]:
    """Return all of them, and leave them."""
    return list(server.service.context.failures._kept)


def add_failure(server: Server, error: BaseException, where: str) -> None:
    """Let something have gone wrong."""
    server.service.context.failures.add(error, where)


def take_failures(server: Server) -> list[Failure]:
    """Return what went wrong, or else what is missing; the end of the test raises it no more."""
    return server.service.verdict.take_failures()


def told_so_far(server: Server) -> str:
    """Return the conversation so far, as messages have it."""
    return server.service.traffic.said()


def label(server: Server) -> str:
    """Return what the names of the server's threads begin with."""
    return server.service.traffic.label()


def has_handler(server: Server) -> bool:
    """Tell whether a handler is declared."""
    return server.service.connections.declarations.handler is not None


def drive(server: StreamTestServer, conn: Conversation) -> Any:
    """Return what answers a conversation, as declared."""
    return server.service.connections.declarations.drive(conn, call_is_over=False)


def framework(server: Server) -> Any:
    """Return the ``socketserver`` server within."""
    return server.service.traffic.framework


def before_deciding(server: StreamTestServer, act: Callable[[], object]) -> None:
    """Have something done, under the lock, before a new connection is given to what is declared."""
    connections = server.service.connections
    decide = connections._decide

    def late(*args: Any) -> bool:
        act()
        return decide(*args)

    connections._decide = late  # type: ignore[method-assign]


def before_driving(server: StreamTestServer, act: Callable[[], object]) -> None:
    """Have something done by the thread of each connection before it drives that."""
    connections = server.service.connections
    perform = connections.perform

    def late(connection: Any) -> None:
        act()
        perform(connection)

    connections.perform = late  # type: ignore[method-assign]


def listener(server: Server) -> socket.socket:
    """Return the socket that listens, or receives the datagrams."""
    return server.service.traffic.framework.socket


def losses(server: Server) -> list[Any]:
    """Return what never came as far as the record."""
    return server.service.traffic.losses()


def note_drops(server: Server) -> int:
    """Return how many datagrams the kernel has dropped."""
    return server.service.peers.note_drops()


# Of a recording


def recorder(server: Server) -> Recorder:
    """Return the recording of a server."""
    return server.service.context.recorder


def waiting(server: Server) -> int:
    """Return how many waits of tests are under way."""
    return server.service.context.recorder._sleepers


def wakers(server: Server) -> int:
    """Return how many loops are to be woken at a change."""
    return len(server.service.context.recorder._wakers)


def new_tape(server: Server) -> Tape:
    """Return the tape of a connection that there is not."""
    return Tape(server.service.context.recorder, 0, ("127.0.0.1", 1))


# Of a connection


def tape(conn: Connection) -> Tape:
    """Return the recording of a connection."""
    return conn.conversation.tape


def kernel_socket(conn: Connection) -> socket.socket:
    """Return the accepted socket."""
    return conn.conversation.tape.socket


def server_ended(conn: Connection) -> bool:
    """Tell whether the server's side has ended the connection."""
    return conn.conversation.tape.server_ended


def is_done(conn: Connection) -> bool:
    """Tell whether the connection is over, and all that belongs to it."""
    return conn.conversation.done


def is_read(conn: Connection) -> bool:
    """Tell whether a verb reads from the connection now."""
    return conn.conversation.reader_lock.locked()


def is_written(conn: Connection) -> bool:
    """Tell whether a verb writes to the connection now."""
    return conn.conversation.send_lock.locked()


def where(conn: Connection) -> str:
    """Return how messages name the connection."""
    return conn.conversation.where()


def set_timeout(conn: Connection, seconds: float) -> None:
    """Set how long the connection's verbs wait from now on."""
    conn.conversation.timeout = seconds


def unread(conn: Connection) -> Any:
    """Return what was received and not taken: a buffer, with ``ended``."""
    return conn.conversation.stream.buffer


def of_face(conn: Any) -> Connection:
    """Return the connection behind the awaitable face of it."""
    return conn._connection


def arrived(conn: Connection) -> bool:
    """Tell whether something is in our kernel that nobody has received."""
    try:
        return bool(kernel_socket(conn).recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except BlockingIOError:
        return False


def threads_of_requests(server: Any) -> Any:
    """Return the threads that a server of the framework has for its requests."""
    return server._request_threads()


# Of a wait


def keep_waiting(wait: Any) -> None:
    """Have a wait not give up because its server was never started."""
    wait._given_up = lambda verb: None
