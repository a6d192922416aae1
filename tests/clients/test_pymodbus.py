"""pymodbus: binary frames that carry a length and the id of the question, over TCP and over UDP."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest
from pymodbus.client import AsyncModbusTcpClient, ModbusTcpClient, ModbusUdpClient
from pymodbus.exceptions import ModbusIOException

from pytest_sockserver import Connection, DatagramTestServer, Request, StreamTestServer

READ, WRITE = 3, 6


def recv_frame(conn: Connection) -> bytes:
    """Read an id, a protocol number, a length, and as many bytes: the unit, the function and its data."""
    head = conn.recv_exactly(6)
    return head + conn.recv_exactly(int.from_bytes(head[4:], "big"))


def answer_to(frame: bytes, data: bytes) -> bytes:
    """Answer with the question's id, unit and function."""
    return frame[:4] + struct.pack(">H", 2 + len(data)) + frame[6:8] + data


@pytest.fixture
def client(tcp_server: StreamTestServer) -> Iterator[ModbusTcpClient]:
    client = ModbusTcpClient(tcp_server.host, port=tcp_server.port, timeout=5, retries=0)
    yield client  # not connected: what a test declares is for the connections that come after it
    client.close()


def test_registers_are_read_and_written_on_one_connection(
    tcp_server: StreamTestServer, client: ModbusTcpClient
) -> None:
    @tcp_server.handler
    def serve_two(conn: Connection) -> None:
        question = recv_frame(conn)
        assert question[7:] == struct.pack(">BHH", READ, 10, 3)
        conn.send(answer_to(question, bytes([6]) + struct.pack(">3H", 10, 11, 12)))
        question = recv_frame(conn)
        assert question[7:] == struct.pack(">BHH", WRITE, 5, 77)
        conn.send(question)

    assert client.read_holding_registers(10, count=3).registers == [10, 11, 12]
    assert not client.write_register(5, 77).isError()

    assert len(tcp_server.connections) == 1


def test_an_answer_that_comes_byte_by_byte(tcp_server: StreamTestServer, client: ModbusTcpClient) -> None:
    @tcp_server.handler
    def dribble(conn: Connection) -> None:
        question = recv_frame(conn)
        for byte in answer_to(question, b"\x02\x00\x2a"):
            conn.send(bytes([byte]))

    assert client.read_holding_registers(0).registers == [42]


def test_a_refusal_is_an_answer(tcp_server: StreamTestServer, client: ModbusTcpClient) -> None:
    @tcp_server.handler
    def refuse(conn: Connection) -> None:
        question = recv_frame(conn)
        conn.send(question[:4] + b"\x00\x03" + question[6:7] + bytes([READ | 0x80, 2]))

    response = client.read_holding_registers(1000)

    assert response.isError()
    assert response.exception_code == 2


def test_silence_is_asked_again_on_the_same_connection(tcp_server: StreamTestServer) -> None:
    @tcp_server.handler
    def overhear_the_first_two(conn: Connection) -> None:
        recv_frame(conn)
        recv_frame(conn)
        while True:
            conn.send(answer_to(recv_frame(conn), b"\x02\x00\x2a"))

    with ModbusTcpClient(tcp_server.host, port=tcp_server.port, timeout=0.05, retries=50) as client:
        assert client.read_holding_registers(0).registers == [42]

    question = b"\x00\x01" + b"\x00\x00" + b"\x00\x06" + b"\x01" + struct.pack(">BHH", READ, 0, 1)
    assert tcp_server.connections[0].received.startswith(question * 3)
    assert len(tcp_server.connections) == 1


def test_lasting_silence_is_an_error(tcp_server: StreamTestServer) -> None:
    with ModbusTcpClient(tcp_server.host, port=tcp_server.port, timeout=0.05, retries=1) as client:
        with pytest.raises(ModbusIOException, match="No response received after 1 retries"):
            client.read_holding_registers(0)

    assert len(tcp_server.wait_for()) == 2 * 12


def test_registers_are_read_over_udp(udp_server: DatagramTestServer) -> None:
    @udp_server.handler
    def answer(question: Request) -> bytes:
        return answer_to(question, b"\x02\x00\x2a")

    with ModbusUdpClient(udp_server.host, port=udp_server.port) as client:
        assert client.read_holding_registers(7).registers == [42]

    assert udp_server.requests[0][7:] == struct.pack(">BHH", READ, 7, 1)


@pytest.mark.asyncio
async def test_answers_that_come_in_two_halves_to_the_asyncio_client(tcp_server: StreamTestServer) -> None:
    @tcp_server.handler
    def answer_in_halves(conn: Connection) -> None:
        while True:
            answer = answer_to(recv_frame(conn), b"\x02\x00\x2a")
            conn.send(answer[:5])
            conn.send(answer[5:])

    async with AsyncModbusTcpClient(tcp_server.host, port=tcp_server.port) as client:
        assert (await client.read_holding_registers(0)).registers == [42]
