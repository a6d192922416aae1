"""graypy: log records as JSON; over UDP compressed, and a long one in several datagrams; over TCP ended by a NUL."""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import graypy

from pytest_sockserver import Connection, DatagramTestServer, StreamTestServer


@contextmanager
def logging_to(handler: logging.Handler) -> Iterator[logging.Logger]:
    logger = logging.Logger("app")
    logger.addHandler(handler)
    try:
        yield logger
    finally:
        handler.close()


def test_a_record_is_a_compressed_datagram(udp_server: DatagramTestServer) -> None:
    with logging_to(graypy.GELFUDPHandler(*udp_server.address)) as logger:
        logger.warning("disk %s full", "sda")

    record = json.loads(zlib.decompress(udp_server.next_request()))
    assert record["short_message"] == "disk sda full"
    assert record["level"] == 4


def test_a_long_record_is_cut_into_chunks_of_one_message(udp_server: DatagramTestServer) -> None:
    with logging_to(graypy.GELFUDPHandler(*udp_server.address, compress=False)) as logger:
        logger.warning("B" * 3000)

    chunks = [udp_server.next_request() for _ in range(3)]
    # Two bytes of magic, eight of the message's id, the chunk's number, how many there are.
    assert [chunk[:2] for chunk in chunks] == [b"\x1e\x0f"] * 3
    assert len({chunk[2:10] for chunk in chunks}) == 1
    assert [tuple(chunk[10:12]) for chunk in chunks] == [(0, 3), (1, 3), (2, 3)]
    assert json.loads(b"".join(chunk[12:] for chunk in chunks))["short_message"] == "B" * 3000


def test_records_over_tcp_are_ended_by_a_nul(tcp_server: StreamTestServer) -> None:
    @tcp_server.handler
    def read_records(conn: Connection) -> None:
        while True:
            conn.recv_until(b"\0")

    with logging_to(graypy.GELFTCPHandler(*tcp_server.address)) as logger:
        logger.warning("first")
        logger.error("second")

    tcp_server.wait_for(count=2)
    records = [json.loads(request.removesuffix(b"\0")) for request in tcp_server.requests]
    assert [(record["short_message"], record["level"]) for record in records] == [("first", 4), ("second", 3)]
    assert len(tcp_server.connections) == 1
