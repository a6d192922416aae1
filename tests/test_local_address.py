"""``connection.local_address``: the address that the client connected to, for protocols that tell it (Kafka, FTP)."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

import anyio
import pytest

from pytest_sockserver import Connection, SockServer, StreamTestServer

from .peers import connect, connect_to, read_to_end, reset, until


@pytest.mark.parametrize("transport", ["tcp", "unix", "tls"])
def test_it_is_the_servers_address(sockserver: SockServer, transport: str) -> None:
    server: StreamTestServer = getattr(sockserver, transport)()

    with connect(server) as client:
        conn = server.wait_connection()
        assert conn.local_address == server.address == client.getpeername()
    conn.wait_closed()
    server.stop()

    assert conn.local_address == server.address


def test_it_is_a_pair_on_ipv6_too(sockserver: SockServer) -> None:
    server = sockserver.tcp(host="::1")

    with connect(server):
        assert server.accept().local_address == ("::1", server.port)


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no unix sockets")
@pytest.mark.parametrize("path", ["\0", b"\0of-its-own"])
def test_it_is_an_abstract_name(sockserver: SockServer, path: Any) -> None:
    server = sockserver.unix(path=path)

    with connect(server):
        assert server.accept().local_address == server.address


def test_on_all_addresses_it_is_the_one_that_the_client_chose(sockserver: SockServer) -> None:
    """127.0.0.0/8 is all loopback on Linux: two addresses without a second interface."""
    server = sockserver.tcp(host="0.0.0.0", allow_remote=True)

    for index, host in enumerate(["127.0.0.1", "127.0.0.5"]):
        with connect_to((host, server.port)):
            conn = server.wait_connection(index)
            assert conn.local_address == (host, server.port)
        conn.wait_closed()
        assert conn.local_address == (host, server.port)


@pytest.mark.parametrize("host", ["::", "::0"])
def test_on_a_dual_stack_an_ipv4_client_is_given_an_ipv4_address(sockserver: SockServer, host: str) -> None:
    server = sockserver.tcp(host=host, allow_remote=True)

    for index, each in enumerate(["127.0.0.1", "127.0.0.5", "::1"]):
        with connect_to((each, server.port)):
            assert server.wait_connection(index).local_address == (each, server.port)


def test_a_client_that_has_reset_already(sockserver: SockServer) -> None:
    server = sockserver.tcp(host="0.0.0.0", allow_remote=True)

    reset(connect_to(("127.0.0.1", server.port)))

    assert server.wait_connection().local_address == ("127.0.0.1", server.port)


def test_it_goes_into_a_reply(tcp_server: StreamTestServer) -> None:
    """FTP's PASV (RFC 959 section 4.1.2) and Kafka's metadata tell clients where to connect."""

    @tcp_server.handler
    def passive(conn: Connection) -> None:
        host, port = conn.local_address
        conn.send(f"227 ({host.replace('.', ',')},{port >> 8},{port & 255})".encode())

    with connect(tcp_server) as client:
        said = read_to_end(client)

    host, port = tcp_server.address
    assert said == f"227 ({host.replace('.', ',')},{port >> 8},{port & 255})".encode()


def test_it_stays_over_refuse_and_restart(tcp_server: StreamTestServer) -> None:
    with connect(tcp_server):
        first = tcp_server.wait_connection()
    first.wait_closed()
    with tcp_server.refuse(), contextlib.suppress(ConnectionRefusedError):
        connect(tcp_server)
    with connect(tcp_server):
        second = tcp_server.wait_connection(1)
        assert second.local_address == first.local_address == tcp_server.address
    until(lambda: second.closed_by)


def test_requests_and_coroutines_have_it(tcp_server: StreamTestServer) -> None:
    async def accepted() -> Any:
        conn = await tcp_server.aio.accept()
        line = await conn.recv_line()
        assert line.connection is not None
        return conn.local_address, line.connection.local_address

    with connect(tcp_server) as client:
        client.sendall(b"x\n")
        assert anyio.run(accepted) == (tcp_server.address, tcp_server.address)
