"""start, stop, clear, refuse and listen: in every state, twice, from every thread, in a forked child."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_sockserver import (
    AddressUnavailable,
    Connection,
    DatagramTestServer,
    InvalidState,
    Request,
    SockServer,
    StreamTestServer,
)

from . import insides
from .peers import PATIENCE, connect, datagram_client, read_to_end, threads_of_servers, until

TRANSPORTS = ["tcp", "unix", "udp", "unix_datagram"]
STREAMS = ["tcp", "unix"]

ROOT = Path(__file__).parent.parent

Server = Any


def made(transport: str, **options: Any) -> Server:
    kind = StreamTestServer if transport in STREAMS else DatagramTestServer
    return kind(transport=transport, **options)


@pytest.fixture(params=TRANSPORTS)
def server(request: pytest.FixtureRequest, sockserver: SockServer) -> Server:
    return getattr(sockserver, request.param)()


@pytest.fixture(params=STREAMS)
def stream_server(request: pytest.FixtureRequest, sockserver: SockServer) -> StreamTestServer:
    return getattr(sockserver, request.param)()


def tell(server: Server, data: bytes) -> None:
    """Be a client that says something and goes."""
    if isinstance(server, DatagramTestServer):
        with datagram_client(server) as client:
            client.send(data)
    else:
        with connect(server) as client:
            client.sendall(data)


def echo(conn: Connection) -> None:
    while True:
        conn.send(conn.recv_line())


def descriptors() -> set[str]:
    """Return the sockets that this process has open."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue
        if target.startswith("socket:"):
            found.add(target)
    return found


def at_once(count: int, do: Callable[[], object]) -> list[BaseException]:
    """Do it in so many threads at the same moment; return what they raised."""
    barrier, errors = threading.Barrier(count), []

    def run() -> None:
        barrier.wait(PATIENCE)
        try:
            do()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    return errors


# Start and stop


def test_start_of_a_running_server_changes_nothing(server: Server) -> None:
    address = server.address

    server.start()

    tell(server, b"hi")
    assert server.wait_for(b"hi") == b"hi"
    assert server.address == address


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_stop_of_a_server_that_never_started_changes_nothing(transport: str) -> None:
    server = made(transport)

    server.stop()
    server.stop()

    assert repr(server) == f"<{type(server).__name__} {transport} no address yet, new>"
    assert not server.is_running


def test_stop_twice_is_stop_once(server: Server) -> None:
    server.stop()
    server.stop()

    assert not server.is_running
    assert threads_of_servers() == []


def test_restart_listens_on_the_same_address(server: Server) -> None:
    address = server.address

    for number in range(3):
        server.stop()
        server.start()

        tell(server, b"%d" % number)
        assert server.wait_for(b"%d" % number)
        assert server.address == address
        assert server.is_running


def test_records_outlive_the_stop(server: Server) -> None:
    tell(server, b"before")
    server.stop()

    assert server.requests == [b"before"]

    server.start()
    tell(server, b"after")
    server.wait_for(b"after")

    assert server.requests == [b"before", b"after"]


def test_a_declared_handler_outlives_the_stop(stream_server: StreamTestServer) -> None:
    stream_server.handler(echo)
    stream_server.stop()
    stream_server.start()

    with connect(stream_server) as client:
        client.sendall(b"hi\n")
        assert client.recv(100) == b"hi\n"


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_stop_gives_every_descriptor_back(transport: str) -> None:
    before = descriptors()

    with made(transport) as server:
        tell(server, b"hi")
        server.wait_for()
        assert descriptors() > before

    assert descriptors() == before


@pytest.mark.parametrize("transport", ["unix", "unix_datagram"])
def test_stop_removes_the_socket_file_and_its_directory(transport: str) -> None:
    with made(transport) as server:
        path = Path(server.path)
        assert path.is_socket()
        assert path.parent.stat().st_mode & 0o777 == 0o700

    assert not path.parent.exists()
    with server:
        assert Path(server.path) == path
        assert path.parent.stat().st_mode & 0o777 == 0o700
    assert not path.parent.exists()


@pytest.mark.parametrize("transport", ["unix", "unix_datagram"])
def test_a_unix_server_that_never_started_leaves_nothing_behind(transport: str) -> None:
    def directories() -> set[Path]:
        return set(Path(tempfile.gettempdir()).glob(f"sockserver-{os.getpid()}-*"))

    before = directories()

    made(transport).stop()

    assert directories() == before


def test_no_thread_outlives_the_stop() -> None:
    """Not even one whose handler is done and that only has to end."""
    left = []
    for _ in range(200):
        with StreamTestServer() as server:
            server.handler(lambda conn: conn.send(conn.recv(1)))
            with connect(server) as client:
                client.sendall(b"x")
                client.recv(1)
                server.stop()
                left += threads_of_servers()

    assert left == []


def test_live_clients_read_the_end_when_the_server_stops(stream_server: StreamTestServer) -> None:
    stream_server.handler(echo)
    clients = [connect(stream_server) for _ in range(20)]
    stream_server.wait_connection(19)

    stream_server.stop()

    for client in clients:
        with client:
            assert read_to_end(client) == b""
    assert [conn.closed_by for conn in stream_server.connections] == ["server"] * 20


def test_address_before_the_first_start_is_an_error() -> None:
    server = StreamTestServer(name="mail")

    with pytest.raises(InvalidState) as raised:
        server.address  # noqa: B018

    assert str(raised.value) == "mail has no address in state 'new': start() it first"


def test_restart_on_an_address_that_somebody_took_names_him_and_can_be_tried_again() -> None:
    server = StreamTestServer()
    server.start()
    server.stop()
    thief = socket.create_server(server.address)
    command = Path("/proc/self/comm").read_text().strip()

    with thief, pytest.raises(AddressUnavailable) as raised:
        server.start()

    assert str(raised.value) == (
        f"[Errno 98] 127.0.0.1:{server.port} is taken by process {os.getpid()} ({command}, this process): "
        "use port=0, and the port the server then has"
    )
    assert not server.is_running
    with server:
        tell(server, b"mine again")
        assert server.wait_for()


# Without pytest


def test_leaving_the_block_raises_what_a_handler_raised() -> None:
    with pytest.raises(ValueError, match="^boom$"):
        with StreamTestServer() as server:

            @server.handler
            def fail(conn: Connection) -> None:
                raise ValueError("boom")

            with contextlib.suppress(ConnectionResetError):
                connect(server).close()


def test_an_error_of_the_block_gets_a_note_of_what_a_handler_raised() -> None:
    with pytest.raises(KeyError) as raised:
        with StreamTestServer(name="mail") as server:

            @server.handler
            def fail(conn: Connection) -> None:
                conn.recv_line()
                raise ValueError("boom")

            with connect(server) as client:
                peer = client.getsockname()[1]
                client.sendall(b"hi\n")
                server.stop()
            raise KeyError("mine")

    line = fail.__code__.co_firstlineno + 3
    assert raised.value.__notes__ == [
        f"on the server's side, mail, connection 0 (127.0.0.1:{peer}):\n  ValueError: test_life_cycle.py:{line}, boom"
    ]


def test_stop_by_hand_raises_nothing_and_verify_each_failure_once(tcp_server: StreamTestServer) -> None:
    @tcp_server.handler
    def fail(conn: Connection) -> None:
        conn.recv_line()
        raise ValueError("boom")

    tell(tcp_server, b"hi\n")
    tcp_server.stop()

    with pytest.raises(ValueError, match="^boom$"):
        tcp_server.verify()
    tcp_server.verify()


def test_leaving_the_factorys_block_stops_every_server_it_made() -> None:
    with SockServer() as sockserver:
        servers = [sockserver.tcp(), sockserver.udp(), sockserver.unix(), *sockserver.tcp_and_udp()]
        assert all([each.is_running for each in servers])

    assert not any(each.is_running for each in servers)
    assert threads_of_servers() == []


# Clear


def test_clear_forgets_what_was_recorded(server: Server) -> None:
    tell(server, b"before")
    server.wait_for(b"before")

    server.clear()

    assert server.requests == []
    assert server.events == []
    tell(server, b"after")
    server.wait_for(b"after")
    assert server.requests == [b"after"]


def test_clear_forgets_connections_and_counts_from_zero(stream_server: StreamTestServer) -> None:
    tell(stream_server, b"before")
    stream_server.wait_for(b"before")

    stream_server.clear()

    assert stream_server.connections == []
    with connect(stream_server):
        assert stream_server.wait_connection().index == 0


def test_clear_forgets_the_handler(stream_server: StreamTestServer) -> None:
    stream_server.handler(echo)

    stream_server.clear()

    with connect(stream_server):
        assert stream_server.accept().index == 0


def test_clear_is_allowed_in_every_state(transport: str = "tcp") -> None:
    server = made(transport)
    server.clear()
    with server:
        server.refuse()
        server.clear()
    server.clear()

    assert not server.is_running


def test_clear_forgets_no_failure(tcp_server: StreamTestServer) -> None:
    @tcp_server.handler
    def fail(conn: Connection) -> None:
        conn.recv_line()
        raise ValueError("boom")

    with pytest.raises(ConnectionResetError), connect(tcp_server) as client:
        client.sendall(b"hi\n")
        client.recv(1)
    tcp_server.clear()

    with pytest.raises(ValueError, match="^boom$"):
        tcp_server.verify()


def test_open_connections_go_on_over_clear(stream_server: StreamTestServer) -> None:
    stream_server.handler(echo)
    with connect(stream_server) as client:
        client.sendall(b"before\n")
        assert client.recv(100) == b"before\n"

        stream_server.clear()

        client.sendall(b"after\n")
        assert client.recv(100) == b"after\n"
    assert stream_server.requests == [b"after\n"]


def test_clear_forgets_the_connections_that_nobody_accepted_and_that_are_over(tcp_server: StreamTestServer) -> None:
    """Else the next accept() is of another test's client, which is long gone."""
    tell(tcp_server, b"before")
    tcp_server.wait_for(b"before")

    tcp_server.clear()

    with connect(tcp_server) as client:
        client.sendall(b"after\n")
        assert tcp_server.accept().recv_line() == b"after\n"


# Refuse and listen


def refused(server: StreamTestServer) -> bool:
    try:
        connect(server).close()
    except ConnectionRefusedError:
        return True
    return False


def test_refuse_and_listen_are_on_the_same_address(tcp_server: StreamTestServer) -> None:
    address = tcp_server.address

    for _ in range(3):
        with tcp_server.refuse():
            assert refused(tcp_server)
            assert not tcp_server.is_running

        assert not refused(tcp_server)
        assert tcp_server.is_running
        assert tcp_server.address == address


def test_refused_and_listening_again_the_server_serves(tcp_server: StreamTestServer) -> None:
    tcp_server.handler(echo)
    tcp_server.refuse()
    tcp_server.listen()

    with connect(tcp_server) as client:
        client.sendall(b"hi\n")
        assert client.recv(100) == b"hi\n"


def test_a_unix_server_refuses_and_listens_again_and_stops() -> None:
    """In a process of its own: a unix listener that was shut down says EINVAL and "readable" for ever (unix(7))."""
    program = """
import socket
from pytest_sockserver import StreamTestServer

def echoed(data):
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(server.address)
        client.sendall(data)
        return client.recv(100)

with StreamTestServer(transport="unix") as server:
    server.handler(lambda conn: conn.send(conn.recv_line()))
    for _ in range(3):
        with server.refuse():
            try:
                echoed(b"refused\\n")
            except ConnectionRefusedError:
                pass
            else:
                raise AssertionError("not refused")
        assert echoed(b"hi\\n") == b"hi\\n"
"""

    subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=10, check=True)


def test_refuse_lets_live_connections_go_on(stream_server: StreamTestServer) -> None:
    stream_server.handler(echo)
    with connect(stream_server) as client:
        stream_server.wait_connection()

        stream_server.refuse()

        client.sendall(b"hi\n")
        assert client.recv(100) == b"hi\n"


def test_refuse_serves_who_is_in_the_queue_already(stream_server: StreamTestServer) -> None:
    clients = [connect(stream_server) for _ in range(10)]

    stream_server.refuse()

    assert len(stream_server.connections) == 10
    for client in clients:
        client.close()


def test_a_refused_port_stays_reserved(tcp_server: StreamTestServer) -> None:
    with tcp_server.refuse(), socket.socket() as thief, pytest.raises(OSError, match="Address already in use"):
        thief.bind(tcp_server.address)


def test_refuse_twice_is_refuse_once(tcp_server: StreamTestServer) -> None:
    tcp_server.refuse()
    with tcp_server.refuse():
        assert refused(tcp_server)

    assert not refused(tcp_server)


def test_listen_while_listening_changes_nothing(tcp_server: StreamTestServer) -> None:
    tcp_server.listen()

    assert not refused(tcp_server)


def test_start_ends_refusing(tcp_server: StreamTestServer) -> None:
    tcp_server.refuse()

    tcp_server.start()

    assert not refused(tcp_server)


def test_stop_while_refusing_ends_everything(stream_server: StreamTestServer) -> None:
    stream_server.handler(echo)
    with connect(stream_server) as client:
        stream_server.wait_connection()
        with stream_server.refuse():
            stream_server.stop()

        assert client.recv(1) == b""
    assert not stream_server.is_running
    assert threads_of_servers() == []


def test_refuse_of_a_server_that_is_not_running_names_the_state() -> None:
    server = StreamTestServer()
    with pytest.raises(InvalidState) as new:
        server.refuse()
    with pytest.raises(InvalidState) as new_listen:
        server.listen()
    with server:
        pass
    with pytest.raises(InvalidState) as stopped:
        server.refuse()

    assert str(new.value) == "cannot refuse() in state 'new': expected 'started'"
    assert str(new_listen.value) == (
        "cannot listen() in state 'new': expected 'refusing', 'a black hole', 'overflowing', 'unlinked', 'forbidden' "
        "or 'started'"
    )
    assert str(stopped.value) == "cannot refuse() in state 'stopped': expected 'started'"


# From other threads


def test_a_handler_may_stop_its_server(stream_server: StreamTestServer) -> None:
    @stream_server.handler
    def quit_all(conn: Connection) -> None:
        conn.expect(b"QUIT\n")
        stream_server.stop()

    with connect(stream_server) as idle, connect(stream_server) as client:
        client.sendall(b"QUIT\n")

        assert read_to_end(client) == b""
        assert read_to_end(idle) == b""
    until(lambda: not stream_server.is_running)


def test_a_datagram_handler_may_stop_its_server(udp_server: DatagramTestServer) -> None:
    @udp_server.handler
    def quit_all(request: Request) -> tuple[()]:
        udp_server.stop()
        return ()

    tell(udp_server, b"QUIT")

    until(lambda: not udp_server.is_running)


def test_a_handler_that_stopped_its_server_is_joined_by_the_next_stop(tcp_server: StreamTestServer) -> None:
    """G4: no thread outlives its server, and one that stops it is a thread of it."""
    stopped, go_on = threading.Event(), threading.Event()

    @tcp_server.handler
    def quit_all(conn: Connection) -> None:
        tcp_server.stop()
        stopped.set()
        go_on.wait(PATIENCE)

    connect(tcp_server).close()
    assert stopped.wait(PATIENCE)
    threading.Timer(0.1, go_on.set).start()

    tcp_server.stop()

    assert threads_of_servers() == []


def test_a_handler_that_stopped_its_server_and_then_fails_is_told() -> None:
    """G3: nothing fails in silence."""
    stopped, go_on = threading.Event(), threading.Event()

    with pytest.raises(ValueError, match="^after the stop$"):
        with StreamTestServer() as server:

            @server.handler
            def quit_all(conn: Connection) -> None:
                server.stop()
                stopped.set()
                go_on.wait(PATIENCE)
                raise ValueError("after the stop")

            connect(server).close()
            assert stopped.wait(PATIENCE)
            threading.Timer(0.1, go_on.set).start()


@pytest.mark.parametrize("transport", STREAMS)
def test_stop_by_the_test_and_by_a_handler_at_once_ends_both(sockserver: SockServer, transport: str) -> None:
    for _ in range(20):
        server = getattr(sockserver, transport)()
        server.handler(lambda conn, server=server: server.stop())

        with connect(server):
            server.stop()
        until(lambda server=server: not server.is_running)
        server.stop()

    until(lambda: threads_of_servers() == [])


@pytest.mark.parametrize("transport", STREAMS)
def test_seven_threads_that_stop_at_once_all_return(sockserver: SockServer, transport: str) -> None:
    for _ in range(20):
        server = getattr(sockserver, transport)()
        server.handler(echo)
        with connect(server) as client:
            client.sendall(b"hi\n")
            client.recv(10)

            assert at_once(7, server.stop) == []

        assert not server.is_running


def test_seven_threads_that_start_at_once_start_it_once(server: Server) -> None:
    server.stop()

    assert at_once(7, server.start) == []

    assert len([name for name in threads_of_servers() if "answers" not in name]) == 1
    tell(server, b"hi")
    server.wait_for(b"hi")


def test_threads_that_start_stop_and_clear_at_once_leave_a_server_that_works(server: Server) -> None:
    turns = iter([server.start, server.stop, server.clear] * 4)

    assert at_once(12, lambda: next(turns)()) == []

    server.start()
    server.clear()
    tell(server, b"hi")
    assert server.wait_for(b"hi")


def test_a_client_in_a_thread_may_stop_the_server(tcp_server: StreamTestServer) -> None:
    done = tcp_server.in_thread(tcp_server.stop)

    assert done.result(PATIENCE) is None
    assert not tcp_server.is_running


# In a forked child


def in_child(do: Callable[[], None]) -> int:
    """Run it in a forked child; return the child's exit status."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: this process has threads
        child = os.fork()
    if child == 0:
        status = 1
        try:
            do()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork()")
@pytest.mark.parametrize("transport", STREAMS)
def test_a_forked_child_that_stops_leaves_alone_the_parents_connections(transport: str, sockserver: SockServer) -> None:
    server = getattr(sockserver, transport)()
    server.handler(echo)
    with connect(server) as client:
        client.sendall(b"one\n")
        assert client.recv(10) == b"one\n"
        events = server.events

        assert in_child(server.stop) == 0

        assert server.events == events
        client.sendall(b"two\n")
        assert client.recv(10) == b"two\n"
    tell(server, b"three\n")
    assert server.wait_for(b"three\n")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork()")
@pytest.mark.parametrize("transport", ["udp", "unix_datagram"])
def test_a_forked_child_that_stops_leaves_alone_the_parents_datagrams(transport: str, sockserver: SockServer) -> None:
    server = getattr(sockserver, transport)()

    assert in_child(server.stop) == 0

    tell(server, b"hi")
    assert server.wait_for(b"hi")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork()")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_stop_in_a_forked_child_closes_its_descriptors(transport: str, sockserver: SockServer) -> None:
    """A child that held the listener would keep the port, and one that held a connection would keep its client."""
    server = getattr(sockserver, transport)()
    if transport in STREAMS:
        server.handler(echo)

    def check() -> None:
        server.stop()
        number = insides.listener(server).fileno()
        assert number == -1
        assert not server.is_running
        assert all(insides.kernel_socket(conn).fileno() == -1 for conn in getattr(server, "connections", ()))

    if transport in STREAMS:
        with connect(server):
            server.wait_connection()
            assert in_child(check) == 0
    else:
        assert in_child(check) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork()")
def test_leaving_a_servers_block_in_a_forked_child_leaves_the_parents_socket_file(
    unix_server: StreamTestServer,
) -> None:
    def leave() -> None:
        unix_server.__exit__(None, None, None)

    assert in_child(leave) == 0

    assert Path(unix_server.path).is_socket()
    tell(unix_server, b"hi")
    assert unix_server.wait_for(b"hi")


def test_stop_refuses_new_clients_although_a_forked_child_holds_the_listener(sockserver: SockServer) -> None:
    """A child that was forked and knows nothing of the server; close() alone would leave its copy listening."""
    server = sockserver.tcp()
    go_on_here, go_on_there = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os.close(go_on_there)
        os.read(go_on_here, 1)
        os._exit(0)

    server.stop()

    try:
        assert refused(server)
    finally:
        os.close(go_on_there)
        os.close(go_on_here)
        os.waitpid(child, 0)


# Clients beside the test


def test_a_client_that_the_stop_cut_off_is_no_failure() -> None:
    """What became of it is our own doing."""

    def read(server: StreamTestServer) -> None:
        with connect(server) as client:
            if not client.recv(1):
                raise EOFError("the server hung up")

    with StreamTestServer() as server:
        server.in_thread(read, server)
        server.wait_connection()
