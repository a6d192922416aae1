"""logging.handlers: SysLogHandler, SocketHandler, DatagramHandler and HTTPHandler, over all four transports."""

from __future__ import annotations

import logging
import pickle
import re
import select
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import DatagramHandler, HTTPHandler, SocketHandler, SysLogHandler
from socket import SOCK_STREAM
from typing import Any
from urllib.parse import parse_qs

import pytest

from pytest_sockserver import Connection, DatagramTestServer, Request, SockServer, StreamTestServer


@contextmanager
def logging_to(handler: logging.Handler) -> Iterator[logging.Logger]:
    logger = logging.Logger("app")
    logger.addHandler(handler)
    try:
        yield logger
    finally:
        handler.close()


def recv_record(conn: Connection) -> Request:
    """Read what SocketHandler sends: four bytes of length, and a pickled dictionary."""
    return conn.recv_exactly(int.from_bytes(conn.recv_exactly(4), "big"))


def text(pickled: bytes) -> Any:
    return pickle.loads(pickled)["msg"]


def test_syslog_over_udp(udp_server: DatagramTestServer) -> None:
    with logging_to(SysLogHandler(udp_server.address)) as logger:
        logger.info("hello")
        logger.critical("fire")

    # The facility is "user", 1, eight times that and the severity (RFC 5424 section 6.2.1).
    assert [udp_server.next_request(), udp_server.next_request()] == [b"<14>hello\0", b"<10>fire\0"]


def test_syslog_over_tcp_has_only_its_nul_between_records(tcp_server: StreamTestServer) -> None:
    @tcp_server.handler
    def read_records(conn: Connection) -> None:
        while True:
            conn.recv_until(b"\0")

    with logging_to(SysLogHandler(tcp_server.address, socktype=SOCK_STREAM)) as logger:
        logger.info("one")
        logger.info("two")

    tcp_server.wait_for(b"<14>two\0")
    assert tcp_server.requests == [b"<14>one\0", b"<14>two\0"]


def test_syslog_over_a_unix_datagram_socket(unix_datagram_server: DatagramTestServer) -> None:
    with logging_to(SysLogHandler(str(unix_datagram_server.path))) as logger:
        logger.info("hello")

    assert unix_datagram_server.next_request() == b"<14>hello\0"


def test_syslog_falls_back_to_a_stream_where_the_path_is_one(unix_server: StreamTestServer) -> None:
    with logging_to(SysLogHandler(str(unix_server.path))) as logger:
        logger.info("hello")

    assert unix_server.wait_for() == b"<14>hello\0"
    assert unix_server.connections[0].closed_by == "client"


@pytest.mark.parametrize("transport", ["tcp", "unix"])
def test_socket_handler_sends_pickled_records_on_one_connection(sockserver: SockServer, transport: str) -> None:
    server = getattr(sockserver, transport)()
    records: list[bytes] = []

    @server.handler
    def read_records(conn: Connection) -> None:
        while True:
            records.append(recv_record(conn))

    where = server.address if transport == "tcp" else (str(server.path), None)
    with logging_to(SocketHandler(*where)) as logger:
        logger.info("one")
        logger.info("two")

    server.wait_connection().wait_closed()
    assert [text(record) for record in records] == ["one", "two"]
    assert len(server.connections) == 1


def test_socket_handler_loses_the_record_after_a_reset_in_silence(tcp_server: StreamTestServer) -> None:
    @tcp_server.handler
    def reset_after_the_first_record(conn: Connection) -> None:
        while True:
            recv_record(conn)
            if conn.index == 0:
                conn.reset()
                return

    handler = SocketHandler(*tcp_server.address)
    with logging_to(handler) as logger:
        logger.info("one")
        assert select.select([handler.sock], [], [], 5)[0]  # the reset has reached the client
        logger.info("two")
        logger.info("three")
        logger.info("four")

    tcp_server.wait_connection(1).wait_closed()
    assert [text(record) for record in tcp_server.requests if len(record) > 4] == ["one", "three", "four"]
    assert len(tcp_server.connections) == 2


@pytest.mark.parametrize("transport", ["udp", "unix_datagram"])
def test_datagram_handler_sends_a_pickled_record_with_its_length(sockserver: SockServer, transport: str) -> None:
    server = getattr(sockserver, transport)()

    where = server.address if transport == "udp" else (str(server.path), None)
    with logging_to(DatagramHandler(*where)) as logger:
        logger.info("hello")

    datagram = server.next_request()
    assert int.from_bytes(datagram[:4], "big") == len(datagram) - 4
    assert text(datagram[4:]) == "hello"


def test_http_handler_posts_a_form_per_record_and_connection(tcp_server: StreamTestServer) -> None:
    @tcp_server.handler
    def take_a_form(conn: Connection) -> None:
        head = conn.recv_until(b"\r\n\r\n")
        conn.recv_exactly(int(re.search(rb"(?i)content-length: (\d+)", head)[1]))
        conn.send(b"HTTP/1.0 200 OK\r\n\r\n")

    with logging_to(HTTPHandler(f"{tcp_server.host}:{tcp_server.port}", "/log", method="POST")) as logger:
        logger.info("one")
        logger.info("two")

    forms = [parse_qs(body.decode()) for body in tcp_server.requests[1::2]]
    assert [form["msg"] for form in forms] == [["one"], ["two"]]
    assert len(tcp_server.connections) == 2
