"""``detach()``: each claim of its description, by a test."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import anyio
import pytest

from pytest_sockserver import (
    DATA,
    Close,
    Connection,
    Delay,
    InvalidState,
    RecordLimitExceeded,
    Reset,
    ServerStopping,
    SockServer,
    StreamTestServer,
    lines,
)

from . import insides
from .peers import LINGER_ZERO, PATIENCE, Taken, connect, read_to_end, until


@pytest.fixture(params=["tcp", "unix"])
def server(request: pytest.FixtureRequest, sockserver: SockServer) -> StreamTestServer:
    return getattr(sockserver, request.param)()


VERBS = {
    "recv": lambda conn: conn.recv(),
    "recv_line": lambda conn: conn.recv_line(),
    "recv_all": lambda conn: conn.recv_all(),
    "expect": lambda conn: conn.expect(b"x"),
    "expect_eof": lambda conn: conn.expect_eof(),
    "frames": lambda conn: next(conn.frames(lines())),
    "send": lambda conn: conn.send(b"x"),
    "send of Close": lambda conn: conn.send(Close()),
    "send_eof": lambda conn: conn.send_eof(),
    "close": lambda conn: conn.close(),
    "reset": lambda conn: conn.reset(),
    "detach": lambda conn: conn.detach(),
}


@pytest.mark.parametrize("verb", VERBS)
def test_the_verbs_are_over(server: StreamTestServer, verb: str) -> None:
    with Taken(server) as (client, conn), conn.detach() as sock:
        with pytest.raises(InvalidState, match=r"^cannot \w+( on)? connection 0: it was detached"):
            VERBS[verb](conn)

        sock.sendall(b"still open")  # no verb has ended what is another's
        assert client.recv(100) == b"still open"


def test_a_reset_among_the_parts_is_refused(tcp_server: StreamTestServer) -> None:
    with Taken(tcp_server) as (client, conn), conn.detach() as sock:
        with pytest.raises(InvalidState, match="it was detached"):
            conn.send(Reset())

        sock.sendall(b"still open")
        assert client.recv(100) == b"still open"


def test_the_verbs_of_coroutines_are_over(server: StreamTestServer) -> None:
    async def take() -> socket.socket:
        conn = await server.aio.accept()
        sock: socket.socket = conn.detach()
        for ending in (conn.close, conn.reset, conn.recv):
            with pytest.raises(InvalidState, match="it was detached"):
                await ending()
        return sock

    with connect(server) as client:
        with anyio.run(take) as sock:
            sock.sendall(b"still open")
            assert client.recv(100) == b"still open"


def test_what_is_closed_already_may_be_closed_again(server: StreamTestServer) -> None:
    with Taken(server) as (client, conn):
        conn.detach().close()

        conn.close()
        assert client.recv(1) == b""
    assert conn.closed_by == "server"


def test_it_is_recorded_and_is_no_request(server: StreamTestServer) -> None:
    with Taken(server) as (client, conn), conn.detach() as sock:
        client.sendall(b"ping")
        assert sock.recv(100) == b"ping"
        sock.sendall(b"pong")

    assert (conn.received, conn.sent, conn.requests) == (b"ping", b"pong", [])


def test_the_waits_go_on(server: StreamTestServer) -> None:
    with Taken(server) as (client, conn), conn.detach() as sock:
        reading = server.in_thread(lambda: [sock.recv(100), sock.recv(100)])
        client.sendall(b"ping")
        conn.wait_received(b"ping")
        client.close()
        conn.wait_closed()

        assert reading.result() == [b"ping", b""]
        assert conn.closed_by == "client"


def test_it_blocks_and_has_no_time_out(server: StreamTestServer) -> None:
    with Taken(server) as (client, conn), conn.detach() as sock:
        assert sock.gettimeout() is None
        reading = server.in_thread(sock.recv, 100)
        client.sendall(b"late")

        assert reading.result() == b"late"


def test_over_tls_it_is_a_tls_socket(tls_server: StreamTestServer) -> None:
    talking = tls_server.in_thread(talk_tls, tls_server)

    with tls_server.accept().detach() as sock:
        assert isinstance(sock, ssl.SSLSocket)
        assert sock.recv(100) == b"ping"
        sock.sendall(b"pong")

    assert talking.result() == b"pong"
    assert tls_server.connections[0].received == b"ping"


def talk_tls(server: StreamTestServer) -> bytes:
    with connect(server) as raw, server.client_context().wrap_socket(raw, server_hostname="localhost") as client:
        client.sendall(b"ping")
        return client.recv(100)


# What was received before


@pytest.fixture(params=["tcp", "unix", "tls"])
def ahead(request: pytest.FixtureRequest, sockserver: SockServer) -> StreamTestServer:
    return getattr(sockserver, request.param)()


@contextmanager
def read_ahead(server: StreamTestServer, data: bytes, *, ended: bool = False) -> Iterator[tuple[Any, Any]]:
    """Make a client whose bytes, and the end of whose stream, the server receives before ``accept()``."""
    with ExitStack() as stack:
        client = stack.enter_context(connect(server))
        if server.transport == "tls":
            context = server.client_context()
            client = stack.enter_context(context.wrap_socket(client, server_hostname="localhost"))
        client.sendall(data)
        if ended:
            client.shutdown(socket.SHUT_WR)
        conn = server.wait_connection()
        until(lambda: conn.received_count == len(data) and len(insides.unread(conn)) == len(data))
        until(lambda: insides.unread(conn).ended == ended)
        yield client, server.accept()


def into(sock: Any) -> bytes:
    buffer = bytearray(100)
    return bytes(buffer[: sock.recv_into(buffer)])


def message_into(sock: Any) -> bytes:
    one, other = bytearray(1), bytearray(100)
    count = sock.recvmsg_into([one, other])[0]
    return bytes(one + other)[:count]


RECEIVING: dict[str, Any] = {
    "recv": lambda sock: sock.recv(100),
    "recv_into": into,
    "recvfrom": lambda sock: sock.recvfrom(100)[0],
    "recvmsg": lambda sock: sock.recvmsg(100)[0],
    "recvmsg_into": message_into,
    "read": lambda sock: sock.read(100),
    "makefile": lambda sock: sock.makefile("rb", buffering=0).read(100),
}


MISSING = {"tcp": ["read"], "unix": ["read"], "tls": ["recvfrom", "recvmsg", "recvmsg_into"]}


@pytest.mark.parametrize(
    ("ahead", "way"),
    [(transport, way) for transport in MISSING for way in RECEIVING if way not in MISSING[transport]],
    indirect=["ahead"],
)
def test_what_was_read_ahead_is_received_first(ahead: StreamTestServer, way: str) -> None:
    with read_ahead(ahead, b"early") as (client, conn), conn.detach() as sock:
        assert RECEIVING[way](sock) == b"early"
        client.sendall(b"late")
        assert RECEIVING[way](sock) == b"late"
        sock.sendall(b"pong")
        assert client.recv(100) == b"pong"

    assert (conn.received, conn.sent) == (b"earlylate", b"pong")


def test_it_is_received_in_pieces_and_lines(ahead: StreamTestServer) -> None:
    with read_ahead(ahead, b"abcde\nfg") as (client, conn), conn.detach() as sock:
        assert [sock.recv(2), sock.recv(0), sock.recv(1)] == [b"ab", b"", b"c"]
        sock.sendall(b"in between")
        assert client.recv(100) == b"in between"
        client.sendall(b"h\n")
        with sock.makefile("rb") as file:
            assert [file.readline(), file.readline()] == [b"de\n", b"fgh\n"]

    assert conn.received == b"abcde\nfgh\n"


@pytest.mark.parametrize("data", [b"early", b""])
def test_the_end_of_the_stream_that_was_read_ahead_is_received_after_it(ahead: StreamTestServer, data: bytes) -> None:
    with read_ahead(ahead, data, ended=True) as (_client, conn), conn.detach() as sock:
        if data:
            assert sock.recv(100) == data
        assert [sock.recv(100), sock.recv(100)] == [b"", b""]
    assert [event.kind for event in conn.events].count("client-eof") == 1


def test_the_end_of_tls_that_was_read_ahead_is_received_though_tcp_goes_on(tls_server: StreamTestServer) -> None:
    with read_ahead(tls_server, b"early") as (client, conn):
        client.settimeout(0)
        with pytest.raises(ssl.SSLWantReadError):
            client.unwrap()  # sends close_notify, and would wait for the server's
        assert conn.recv() == b"early"
        assert conn.recv() == b""

        with conn.detach() as sock:
            sock.settimeout(PATIENCE)
            assert sock.recv(100) == b""


def test_a_reset_that_was_read_ahead_is_raised_once(tcp_server: StreamTestServer) -> None:
    with connect(tcp_server) as client:
        client.sendall(b"early")
        conn = tcp_server.wait_connection()
        until(lambda: conn.received_count == 5)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
    until(lambda: insides.unread(conn).broken)

    with tcp_server.accept().detach() as sock:
        assert sock.recv(100) == b"early"
        with pytest.raises(ConnectionResetError):
            sock.recv(100)
        assert sock.recv(100) == b""


def test_what_a_injection_has_not_handed_on_is_received(tcp_server: StreamTestServer) -> None:
    given: list[socket.socket] = []
    with connect(tcp_server) as client:
        client.sendall(b"early")
        conn = tcp_server.wait_connection()
        until(lambda: len(insides.unread(conn)) == 5)
        with tcp_server.inject(Delay(0), DATA, direction="received") as injection:
            tcp_server.handler(lambda conn: given.append(conn.detach()))
            until(lambda: given)
            injection.end()
        with given[0] as sock:
            assert sock.recv(100) == b"early"


def test_two_threads_receive_each_byte_once(tcp_server: StreamTestServer) -> None:
    with read_ahead(tcp_server, bytes(range(256)) * 4, ended=True) as (_client, conn), conn.detach() as sock:

        def read() -> list[int]:
            return [byte for piece in iter(lambda: sock.recv(1), b"") for byte in piece]

        readings = [tcp_server.in_thread(read) for _ in range(4)]
        assert sorted(byte for each in readings for byte in each.result()) == sorted([*range(256)] * 4)


def test_once_it_is_closed_nothing_is_received(tcp_server: StreamTestServer) -> None:
    with read_ahead(tcp_server, b"early") as (_client, conn):
        sock = conn.detach()
        sock.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            sock.recv(100)


def test_a_coroutine_detaches_with_what_was_read_ahead(ahead: StreamTestServer) -> None:
    async def take() -> socket.socket:
        sock: socket.socket = (await ahead.aio.accept()).detach()
        return sock

    with ExitStack() as stack:
        client = stack.enter_context(connect(ahead))
        if ahead.transport == "tls":
            context = ahead.client_context()
            client = stack.enter_context(context.wrap_socket(client, server_hostname="localhost"))
        client.sendall(b"early")
        conn = ahead.wait_connection()
        until(lambda: len(insides.unread(conn)) == 5)
        with anyio.run(take) as sock:
            assert sock.recv(100) == b"early"


def test_injections_do_not_reach_it(tcp_server: StreamTestServer) -> None:
    with Taken(tcp_server) as (client, conn):
        with conn.detach() as sock, tcp_server.inject(b"injected") as injection:
            sock.sendall(b"plain")
            assert client.recv(100) == b"plain"
            injection.end()
        assert injection.count == 0


def test_a_handler_may_return_and_leave_it_open(server: StreamTestServer) -> None:
    given: list[socket.socket] = []
    server.handler(lambda conn: given.append(conn.detach()))

    with connect(server) as client:
        until(lambda: server.connections and insides.is_done(server.connections[0]))
        with given[0] as sock:
            sock.sendall(b"after the handler")
            assert client.recv(100) == b"after the handler"
        assert client.recv(100) == b""


def test_a_handler_that_raises_resets_it(tcp_server: StreamTestServer) -> None:
    given: list[socket.socket] = []

    @tcp_server.handler
    def fails(conn: Connection) -> None:
        given.append(conn.detach())
        raise LookupError("it broke")

    with tcp_server.raises(LookupError), pytest.raises(ConnectionResetError), connect(tcp_server) as client:
        client.recv(1)  # connect() itself may find the reset
    assert given[0].fileno() == -1


def test_a_handler_that_ends_quietly_leaves_it_open(server: StreamTestServer) -> None:
    """Its client has ended its half, which ends a handler; the socket is another's by then."""
    given: list[socket.socket] = []

    @server.handler
    def ends(conn: Connection) -> None:
        given.append(conn.detach())
        raise ServerStopping("enough")

    with connect(server) as client:
        until(lambda: server.connections and insides.is_done(server.connections[0]))
        with given[0] as sock:
            sock.sendall(b"still open")
            assert client.recv(100) == b"still open"


def test_disconnect_ends_it(server: StreamTestServer) -> None:
    with Taken(server) as (client, conn), conn.detach() as sock:
        server.disconnect()

        assert client.recv(1) == b""
        with pytest.raises(ServerStopping, match="^the test closed the connection$"):
            sock.recv(1)
        assert conn.closed_by == "server"


@pytest.mark.parametrize("by", ["a handler", "the test"])
def test_a_stop_shuts_it_down_and_leaves_closing_it_to_its_owner(server: StreamTestServer, by: str) -> None:
    given: list[Any] = []
    if by == "a handler":
        server.handler(lambda conn: given.append(conn.detach()))
    with connect(server) as client:
        if by == "the test":
            given.append(server.accept().detach())
        until(lambda: given)

        server.stop()

        assert client.recv(1) == b""
        with given[0] as sock:
            assert sock.fileno() >= 0
            with pytest.raises(ServerStopping, match="^the server stops$"):
                sock.recv(1)
        assert sock.fileno() == -1


def test_one_that_was_not_accepted_is_refused(server: StreamTestServer) -> None:
    """The server's own thread reads it."""
    with connect(server) as client:
        conn = server.wait_connection()
        with pytest.raises(InvalidState) as raised:
            conn.detach()
        assert str(raised.value) == (
            "cannot detach() on connection 0: it is read by its server, which has nothing declared; "
            "take it by accept() first, or look at its received"
        )

        client.sendall(b"x\n")
        assert server.accept().recv_line() == b"x\n"


def test_one_that_another_thread_drives_is_refused(server: StreamTestServer) -> None:
    server.handler(lambda conn: conn.send(conn.recv_line()))

    with connect(server) as client:
        conn = server.wait_connection()
        with pytest.raises(InvalidState) as raised:
            conn.detach()
        assert str(raised.value) == "cannot detach connection 0: another thread drives it"

        client.sendall(b"x\n")
        assert read_to_end(client) == b"x\n"


def test_one_that_another_thread_reads_is_refused(server: StreamTestServer) -> None:
    with Taken(server) as (client, conn):
        reading = server.in_thread(conn.recv_line)
        until(lambda: insides.is_read(conn))
        with pytest.raises(InvalidState, match="another thread drives it$"):
            conn.detach()

        client.sendall(b"x\n")
        assert reading.result() == b"x\n"


def test_one_of_which_bytes_were_lost_is_refused(sockserver: SockServer) -> None:
    server = sockserver.tcp(record_limit=1000)
    with connect(server) as client:
        client.sendall(bytes(5000))
        conn = server.wait_connection()
        until(lambda: conn.received_count == 5000)

        with pytest.raises(RecordLimitExceeded):
            server.accept().detach()


def test_it_does_not_block_a_coroutine(server: StreamTestServer) -> None:
    async def given() -> socket.socket:
        conn = await server.aio.accept()
        sock: socket.socket = conn.detach()
        sock.setblocking(False)
        return sock

    with connect(server) as client, anyio.run(given) as sock:
        with pytest.raises(BlockingIOError):
            sock.recv(1)
        client.sendall(b"x")
        sock.settimeout(PATIENCE)
        assert sock.recv(1) == b"x"


def test_a_thread_of_the_users_own_may_own_it(server: StreamTestServer) -> None:
    """Of a library that wants a socket, for example."""
    done = threading.Event()

    def own(sock: socket.socket) -> None:
        with sock:
            sock.sendall(sock.recv(100).upper())
        done.set()

    server.handler(lambda conn: threading.Thread(target=own, args=(conn.detach(),)).start())

    with connect(server) as client:
        client.sendall(b"hello")
        assert read_to_end(client) == b"HELLO"
    assert done.wait(PATIENCE)
