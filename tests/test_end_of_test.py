"""The end of a test waits for what is under way, and for nothing else: a tenth of a second where nothing is."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from contextlib import ExitStack
from time import monotonic
from typing import Any

import pytest

from pytest_sockserver import CONNECT, Connection, Delay, Drip, SockServer, StreamTestServer, lines

from . import insides
from .peers import connect, datagram_client

#: Seconds.  The bound for what works is one second.
SHORT = 0.1


def took(server: Any) -> float:
    began = monotonic()
    insides.settle(server)
    return monotonic() - began


@pytest.mark.parametrize("message", [b"21.5\n", Drip(b"21.5\n", 0.005), (Delay(0.01), b"21.5\n")], ids=repr)
@pytest.mark.parametrize("transport", ["tcp", "unix", "tls"])
def test_after_a_push_to_a_client_that_stays(sockserver: SockServer, transport: str, message: Any) -> None:
    server = getattr(sockserver, transport)(framing=lines(b"\n"))
    server.on(b"SUB\n").reply()
    with connect(server) as plain:
        client = plain
        if transport == "tls":
            client = server.client_context().wrap_socket(plain, server_hostname="localhost")
        with client:
            client.sendall(b"SUB\n")
            parts = message if isinstance(message, tuple) else (message,)
            server.wait_for(b"SUB\n").connection.send(*parts)

            assert took(server) < SHORT


def waits_for_a_line(server: StreamTestServer) -> None:
    @server.handler
    def serve(conn: Connection) -> None:
        while True:
            conn.send(conn.recv_line())


def waits_for_a_script(server: StreamTestServer) -> None:
    server.script().expect_line(b"a").send(b"a\n").maybe(b"quit\n")


def waits_for_rules(server: StreamTestServer) -> None:
    server.framing = lines(b"\n")
    server.on(b"a\n").reply(b"a\n")


def greets(server: StreamTestServer) -> None:
    server.framing = lines(b"\n")
    server.on(CONNECT).reply(b"hello\n")
    server.on(b"a\n").reply(b"a\n")


def waits_for_a_pattern(server: StreamTestServer) -> None:
    server.framing = lines(b"\n")
    server.on(re.compile(b"a\n")).reply(b"a\n")


WAITING = [waits_for_a_line, waits_for_a_script, waits_for_rules, greets, waits_for_a_pattern]


@pytest.mark.parametrize("face", WAITING, ids=lambda face: face.__name__)
@pytest.mark.parametrize("said", [b"", b"a\n"], ids=["silent", "said"])
def test_while_clients_stay(
    tcp_server: StreamTestServer, face: Callable[[StreamTestServer], None], said: bytes
) -> None:
    face(tcp_server)
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(tcp_server)) for _ in range(10 if face is not waits_for_a_script else 1)]
        for client in clients:
            client.sendall(said or (b"a\n" if face is waits_for_a_script else b""))
        for client in clients if said else []:
            while not client.recv(10).endswith(b"a\n"):
                pass

        assert took(tcp_server) < SHORT


def test_a_handler_that_works_keeps_its_second(tcp_server: StreamTestServer) -> None:
    gate = threading.Event()

    @tcp_server.handler
    def work(conn: Connection) -> None:
        conn.recv_line()
        gate.wait(10)

    with connect(tcp_server) as client:
        client.sendall(b"a\n")
        tcp_server.wait_for(b"a\n")
        assert 0.9 < took(tcp_server) < 2
        gate.set()
        tcp_server.connections[0].wait_closed()


def test_after_datagrams(sockserver: SockServer) -> None:
    server = sockserver.udp()
    server.on(b"a").reply(b"b")
    with datagram_client(server) as client:
        client.send(b"a")
        assert client.recv(10) == b"b"
        assert took(server) < SHORT
