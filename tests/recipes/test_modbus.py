"""Modbus/TCP and Modbus over UDP, with pymodbus."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator

import pytest
from pymodbus.client import ModbusTcpClient, ModbusUdpClient
from pymodbus.exceptions import ConnectionException, ModbusIOException

from pytest_sockserver import (
    ANY,
    Close,
    Cut,
    DatagramTestServer,
    Drip,
    Hex,
    Request,
    ScriptMismatch,
    StreamTestServer,
    UnexpectedRequest,
    length_prefixed,
)

# A frame: the question's id, 00 00, how many bytes follow; then the unit, the function and its data.
MBAP = length_prefixed(">H", offset=4)
READ = Hex("<tid:2> 00 00 00 06 01 03 00 0a 00 03")  # three registers from 10 on
REGISTERS = Hex(r"\g<tid> 00 00 00 09 01 03 06 00 0a 00 0b 00 0c")
WRITE = Hex("<tid:2> 00 00 00 06 01 06 00 05 00 4d")  # 77 into register 5
WRITTEN = Hex(r"\g<tid> 00 00 00 06 01 06 00 05 00 4d")


@pytest.fixture
def client(tcp_server: StreamTestServer) -> Iterator[ModbusTcpClient]:
    client = ModbusTcpClient(tcp_server.host, port=tcp_server.port, timeout=2, retries=0)
    yield client  # it connects with its first question
    client.close()


# The same story three times


def test_a_script_of_two_questions(tcp_server: StreamTestServer, client: ModbusTcpClient) -> None:
    (
        tcp_server.script()
        .expect(Hex("<tid:2> 00 00 00 06 01 03 00 0a 00 03"))
        .send(Hex(r"\g<tid> 00 00 00 09 01 03 06 00 0a 00 0b 00 0c"))
        .expect(Hex("<tid:2> 00 00 00 06 01 06 00 05 00 4d"))
        .send(Hex(r"\g<tid> 00 00 00 06 01 06 00 05 00 4d"))
    )

    assert client.read_holding_registers(10, count=3).registers == [10, 11, 12]
    assert not client.write_register(5, 77).isError()


def test_rules_for_a_device(tcp_server: StreamTestServer, client: ModbusTcpClient) -> None:
    tcp_server.framing = length_prefixed(">H", offset=4)
    tcp_server.on(READ).reply(REGISTERS)
    tcp_server.on(Hex("?? ?? 00 00 00 06 01 06 ?? ?? ?? ??")).reply(lambda request: request)  # a write is echoed
    tcp_server.on(ANY).reply(lambda request: refused(request, 1))

    assert not client.write_register(5, 77).isError()
    assert client.read_holding_registers(10, count=3).registers == [10, 11, 12]
    assert client.read_coils(0).exception_code == 1


def refused(question: Request, code: int) -> bytes:
    """Answer with the question's id and unit, its function with the highest bit set, and why."""
    return question[:4] + b"\x00\x03" + question[6:7] + bytes([question[7] | 0x80, code])


def test_a_dialogue_in_hex(tcp_server: StreamTestServer, client: ModbusTcpClient) -> None:
    tcp_server.dialogue(r"""
        Cx <tid:2> 00 00 00 06 01 03 00 0a 00 03
        Sx \g<tid> 00 00 00 09 01 03 06 00 0a 00 0b 00 0c
        Cx <tid:2> 00 00 00 06 01 06 00 05 00 4d
        Sx \g<tid> 00 00 00 06 01 06 00 05 00 4d
        # register 1000 is none
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


def test_a_reply_that_drips_in(tcp_server: StreamTestServer, client: ModbusTcpClient) -> None:
    tcp_server.script().expect(READ).send(Drip(REGISTERS, pause=0.001))

    assert client.read_holding_registers(10, count=3).registers == [10, 11, 12]


def test_silence_is_asked_again_on_the_same_connection(tcp_server: StreamTestServer) -> None:
    tcp_server.framing = length_prefixed(">H", offset=4)
    tcp_server.on(READ, times=2).reply().then(REGISTERS)

    with ModbusTcpClient(tcp_server.host, port=tcp_server.port, timeout=0.05, retries=1) as client:
        assert client.read_holding_registers(10, count=3).registers == [10, 11, 12]

    assert len(tcp_server.connections) == 1


def test_an_answer_to_another_question_is_passed_over(tcp_server: StreamTestServer) -> None:
    tcp_server.framing = length_prefixed(">H", offset=4)
    tcp_server.on(READ).reply(Hex("ff ff 00 00 00 09 01 03 06 00 00 00 00 00 00"), REGISTERS)

    with ModbusTcpClient(tcp_server.host, port=tcp_server.port, timeout=0.05, retries=0) as client:
        with pytest.raises(ModbusIOException):
            client.read_holding_registers(10, count=3)


def test_the_same_rules_over_udp(udp_server: DatagramTestServer) -> None:
    udp_server.on(READ).reply(REGISTERS)

    with ModbusUdpClient(udp_server.host, port=udp_server.port) as client:
        assert client.read_holding_registers(10, count=3).registers == [10, 11, 12]
