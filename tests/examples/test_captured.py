"""Assert on what was captured; wait instead of sleep."""

import re
import socket

import pytest


def emit(address, *metrics):
    """Send metrics over one connection, and wait for no answer."""
    with socket.create_connection(address) as sock:
        for metric in metrics:
            sock.sendall(metric + b"\n")


@pytest.fixture
def collector(tcp_server):
    @tcp_server.handler
    def lines(conn):
        while conn.recv_line():
            pass

    return tcp_server


def test_requests_are_bytes(collector):
    emit(collector.address, b"hits:1|c", b"load:0.5|g")

    collector.wait_for(count=2)

    assert collector.requests == [b"hits:1|c\n", b"load:0.5|g\n"]
    assert collector.requests[0].connection is collector.connections[0]


def test_wait_for_the_third_hit(collector):
    emit(collector.address, b"hits:1|c", b"load:0.5|g", b"hits:2|c", b"hits:3|c")

    third = collector.wait_for(re.compile(rb"hits:(\d+)\|c\n"), count=3)

    assert third.match[1] == b"3"


def test_nothing_more_is_sent(collector):
    emit(collector.address, b"hits:1|c")
    collector.wait_for(b"hits:1|c\n")

    collector.assert_no_traffic(0.02)


def test_whole_connection(collector):
    emit(collector.address, b"hits:1|c")

    conn = collector.wait_connection()
    conn.wait_closed()

    assert conn.received == b"hits:1|c\n"
    assert conn.sent == b""
    assert conn.closed_by == "client"
    assert [event.kind for event in conn.events][:2] == ["received", "client-eof"]


def test_bytes_of_a_stream_that_stays_open(tcp_server):  # no verb reads it, so it has no requests yet
    with socket.create_connection(tcp_server.address) as client:
        client.sendall(b"no end of lin")
        tcp_server.wait_connection().wait_received(b"end")
        client.sendall(b"e\n")

    assert tcp_server.wait_for() == b"no end of line\n"
