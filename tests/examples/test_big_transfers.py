"""Keep big transfers cheap."""

import socket

import pytest

from pytest_sockserver import RecordLimitExceeded


@pytest.mark.sockserver(record_limit=100_000)
def test_upload_is_counted_past_the_limit(tcp_server):
    @tcp_server.handler
    def discard(conn):
        while conn.recv():
            pass

    with socket.create_connection(tcp_server.address) as client:
        for _ in range(100):
            client.sendall(bytes(10_000))

    conn = tcp_server.wait_connection()
    conn.wait_closed()
    assert conn.received_count == 1_000_000
    with pytest.raises(RecordLimitExceeded, match="reached its record_limit of 100,000 bytes"):
        assert conn.received
