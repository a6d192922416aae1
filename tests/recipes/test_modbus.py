"""Modbus, over TCP and over UDP, with pymodbus."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from pymodbus.client import AsyncModbusTcpClient, ModbusTcpClient, ModbusUdpClient
from pymodbus.exceptions import ConnectionException

from pytest_sockserver import (
    ANY,
    Close,
    Cut,
    DatagramTestServer,
    Drip,
    Hex,
    Request,
    ScriptMismatch,
    SockServer,
    StreamTestServer,
    UnexpectedRequest,
    length_prefixed,
)

from .relay import byte_by_byte

# An id that the reply repeats, 00 00, how many bytes follow; then the unit, the function and its data.
READ = Hex("<tid:2> 00 00 00 06 01 03 00 0a 00 03")  # three registers from 10 on
REGISTERS = Hex(r"\g<tid> 00 00 00 09 01 03 06 00 0a 00 0b 00 0c")
WRITE = Hex("<tid:2> 00 00 00 06 01 06 00 05 00 4d")  # 77 into register 5
WRITTEN = Hex(r"\g<tid> 00 00 00 06 01 06 00 05 00 4d")


@pytest.fixture
def client(tcp_server: StreamTestServer) -> Iterator[ModbusTcpClient]:
    client = ModbusTcpClient(tcp_server.host, port=tcp_server.port, timeout=2, retries=0)
    yield client  # it connects with its first request
    client.close()


# The same story three times


def test_a_script_answers_two_requests(tcp_server: StreamTestServer, client: ModbusTcpClient) -> None:
    (
        tcp_server.script()
        .expect(Hex("<tid:2> 00 00 00 06 01 03 00 0a 00 03"))
        .send(Hex(r"\g<tid> 00 00 00 09 01 03 06 00 0a 00 0b 00 0c"))
        .expect(Hex("<tid:2> 00 00 00 06 01 06 00 05 00 4d"))
        .send(Hex(r"\g<tid> 00 00 00 06 01 06 00 05 00 4d"))
    )

    assert client.read_holding_registers(10, count=3).registers == [10, 11, 12]
    assert not client.write_register(5, 77).isError()


def test_rules_answer_in_any_order(tcp_server: StreamTestServer, client: ModbusTcpClient) -> None:
    tcp_server.framing = length_prefixed(">H", offset=4)
    tcp_server.on(READ).reply(REGISTERS)
    tcp_server.on(Hex("?? ?? 00 00 00 06 01 06 ?? ?? ?? ??")).reply(lambda request: request)  # any write is repeated
    tcp_server.on(ANY).reply(illegal_function)

    assert not client.write_register(5, 77).isError()
    assert client.read_holding_registers(10, count=3).registers == [10, 11, 12]
    assert client.read_coils(0).exception_code == 1


def illegal_function(request: Request) -> bytes:
    """Reply with the request's id, unit and function, the highest bit of which is set."""
    return request[:4] + b"\x00\x03" + request[6:7] + bytes([request[7] | 0x80, 1])


def test_a_dialogue_answers_in_hex(tcp_server: StreamTestServer, client: ModbusTcpClient) -> None:
    tcp_server.dialogue(r"""
        Cx <tid:2> 00 00 00 06 01 03 00 0a 00 03
        Sx \g<tid> 00 00 00 09 01 03 06 00 0a 00 0b 00 0c
        Cx <tid:2> 00 00 00 06 01 06 00 05 00 4d
        Sx \g<tid> 00 00 00 06 01 06 00 05 00 4d
        # there is no register 1000
        Cx <tid:2> 00 00 00 06 01 03 03 e8 00 01
        Sx \g<tid> 00 00 00 03 01 83 02
    """)

    assert client.read_holding_registers(10, count=3).registers == [10, 11, 12]
    assert not client.write_register(5, 77).isError()
    assert client.read_holding_registers(1000).exception_code == 2


# What a device may do


@pytest.mark.parametrize("n", range(15))
def test_a_reply_cut_at_every_byte(tcp_server: StreamTestServer, client: ModbusTcpClient, n: int) -> None:
    tcp_server.framing = length_prefixed(">H", offset=4)
    tcp_server.on(READ).reply(Cut(REGISTERS, n), Close())

    with pytest.raises(ConnectionException, match="Connection unexpectedly closed"):
        client.read_holding_registers(10, count=3)


def test_a_reply_that_comes_in_drops(tcp_server: StreamTestServer, client: ModbusTcpClient) -> None:
    tcp_server.script().expect(READ).send(Drip(REGISTERS, pause=0.001))

    assert client.read_holding_registers(10, count=3).registers == [10, 11, 12]


def test_a_reply_that_is_lost_and_asked_for_again(tcp_server: StreamTestServer) -> None:
    tcp_server.framing = length_prefixed(">H", offset=4)
    tcp_server.on(READ).reply().then(REGISTERS)

    with ModbusTcpClient(tcp_server.host, port=tcp_server.port, timeout=0.05, retries=50) as client:
        assert client.read_holding_registers(10, count=3).registers == [10, 11, 12]

    assert tcp_server.requests[0] == tcp_server.requests[1]  # with the same id, on the same connection
    assert len(tcp_server.connections) == 1


def test_a_reply_to_another_request_comes_first(tcp_server: StreamTestServer, client: ModbusTcpClient) -> None:
    tcp_server.dialogue(r"""
        Cx <tid:2> 00 00 00 06 01 03 00 0a 00 03
        Sx ff ff 00 00 00 09 01 03 06 00 00 00 00 00 00
        Sx \g<tid> 00 00 00 09 01 03 06 00 0a 00 0b 00 0c
    """)

    assert client.read_holding_registers(10, count=3).registers == [10, 11, 12]


def test_a_device_with_state(tcp_server: StreamTestServer, client: ModbusTcpClient) -> None:
    registers = {5: b"\x00\x01"}

    def read(request: Request) -> list[bytes | Hex]:
        return [Hex(r"\g<tid> 00 00 00 05 01 03 02"), registers[int.from_bytes(request.match["register"], "big")]]

    def write(request: Request) -> bytes:
        registers[int.from_bytes(request.match["register"], "big")] = request.match["value"]
        return request

    tcp_server.framing = length_prefixed(">H", offset=4)
    tcp_server.on(Hex("<tid:2> 00 00 00 06 01 03 <register:2> 00 01")).reply(read)
    tcp_server.on(Hex("<tid:2> 00 00 00 06 01 06 <register:2> <value:2>")).reply(write)

    assert client.read_holding_registers(5).registers == [1]
    client.write_register(5, 77)
    assert client.read_holding_registers(5).registers == [77]


def test_the_same_rules_over_udp(udp_server: DatagramTestServer) -> None:
    udp_server.on(READ).reply(REGISTERS)
    udp_server.on(WRITE).reply(WRITTEN)

    with ModbusUdpClient(udp_server.host, port=udp_server.port, timeout=2, retries=0) as client:
        assert client.read_holding_registers(10, count=3).registers == [10, 11, 12]
        assert not client.write_register(5, 77).isError()


@pytest.mark.asyncio
async def test_the_asyncio_client(tcp_server: StreamTestServer) -> None:
    tcp_server.script().expect(READ).send(REGISTERS)

    async with AsyncModbusTcpClient(tcp_server.host, port=tcp_server.port) as client:
        response = await client.read_holding_registers(10, count=3)

    assert response.registers == [10, 11, 12]


# When the client departs


def test_another_value_than_the_script_expects(tcp_server: StreamTestServer, client: ModbusTcpClient) -> None:
    tcp_server.script().expect(WRITE).send(WRITTEN)

    with tcp_server.raises(ScriptMismatch, match="differs at byte 11: 4e is not 4d"):
        with pytest.raises(ConnectionResetError):
            client.write_register(5, 78)


def test_a_request_that_no_rule_knows(tcp_server: StreamTestServer, client: ModbusTcpClient) -> None:
    tcp_server.framing = length_prefixed(">H", offset=4)
    tcp_server.on(READ).reply(REGISTERS)

    with tcp_server.raises(UnexpectedRequest, match="no rule matches hex 00 01 00 00 00 06 01 06 00 05 00 4d"):
        with pytest.raises(ConnectionResetError):
            client.write_register(5, 77)


# Byte by byte


def declare_script(server: StreamTestServer) -> None:
    server.script().expect(READ).send(REGISTERS).expect(WRITE).send(WRITTEN)


def declare_rules(server: StreamTestServer) -> None:
    server.framing = length_prefixed(">H", offset=4)
    server.on(READ).reply(REGISTERS)
    server.on(WRITE).reply(WRITTEN)


def declare_dialogue(server: StreamTestServer) -> None:
    server.dialogue(rf"""
        Cx {READ.source}
        Sx {REGISTERS.source}
        Cx {WRITE.source}
        Sx {WRITTEN.source}
    """)


@pytest.mark.parametrize("declare", [declare_script, declare_rules, declare_dialogue])
def test_requests_that_come_byte_by_byte(
    sockserver: SockServer, tcp_server: StreamTestServer, declare: Callable[[StreamTestServer], None]
) -> None:
    declare(tcp_server)
    host, port = byte_by_byte(sockserver, tcp_server)

    with ModbusTcpClient(host, port=port, timeout=2, retries=0) as client:
        assert client.read_holding_registers(10, count=3).registers == [10, 11, 12]
        assert not client.write_register(5, 77).isError()
