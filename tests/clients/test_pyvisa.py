"""PyVISA with pyvisa-py: instruments over a bare socket, with queries, silent commands and binary blocks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import pyvisa
from pyvisa.constants import StatusCode
from pyvisa.resources import MessageBasedResource

from pytest_sockserver import Connection, StreamTestServer


@pytest.fixture(scope="module")
def manager() -> Iterator[pyvisa.ResourceManager]:
    manager = pyvisa.ResourceManager("@py")
    yield manager
    manager.close()


@pytest.fixture
def instrument(tcp_server: StreamTestServer, manager: pyvisa.ResourceManager) -> Iterator[MessageBasedResource]:
    """Measure nothing, but answer to its name and give its curve."""

    @tcp_server.handler
    def measure(conn: Connection) -> None:
        replies = {b"*IDN?\n": b"ACME,1,2,3\n", b"CURV?\n": b"#18\x00\x01\x02\n\x04\x05\x06\x07\n"}
        while True:
            conn.send(replies.get(conn.recv_line(), b""))

    name = f"TCPIP::{tcp_server.host}::{tcp_server.port}::SOCKET"
    with manager.open_resource(name, read_termination="\n", write_termination="\n", timeout=5000) as instrument:
        yield instrument


def test_a_command_without_a_reply_and_a_query(tcp_server: StreamTestServer, instrument: MessageBasedResource) -> None:
    instrument.write("CONF 1")

    assert instrument.query("*IDN?") == "ACME,1,2,3"
    assert tcp_server.requests == [b"CONF 1\n", b"*IDN?\n"]


def test_a_block_with_a_line_ending_in_it_is_read_by_its_length(instrument: MessageBasedResource) -> None:
    curve = instrument.query_binary_values("CURV?", datatype="B")

    assert curve == [0, 1, 2, 10, 4, 5, 6, 7]


def test_a_query_without_a_reply_times_out_and_leaves_the_connection_usable(
    tcp_server: StreamTestServer, instrument: MessageBasedResource
) -> None:
    instrument.timeout = 50  # milliseconds
    with pytest.raises(pyvisa.VisaIOError) as caught:
        instrument.query("HANG?")

    instrument.timeout = 5000
    assert caught.value.error_code is StatusCode.error_timeout
    assert instrument.query("*IDN?") == "ACME,1,2,3"
    assert len(tcp_server.connections) == 1
