"""pymodbus while the network fails: what is no answer is waited past; of an answer not all is compared."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from pymodbus.client import AsyncModbusTcpClient, ModbusTcpClient
from pymodbus.exceptions import ConnectionException, ModbusIOException

from pytest_sockserver import Close, Cut, Hex, Stall, StreamTestServer, length_prefixed
from pytest_sockserver.faults import Overwrite, Repeat, Split, garbage
from pytest_sockserver.sweeps import cuts, splits

from .faults import ends, patience

# An id that the answer repeats, 00 00, how many bytes follow; then the unit, the function and its data.
READ = Hex("<tid:2> 00 00 00 06 01 03 00 0a 00 01")  # one register
ANSWER = Hex(r"\g<tid> 00 00 00 05 01 03 02 00 2a")
FIRST_ANSWER = bytes.fromhex("0001 0000 0005 01 03 02 002a")  # to the first request of a client, whose id is 1

Read = Callable[..., list[int]]


def read(server: StreamTestServer, timeout: float = 5) -> list[int]:
    with ModbusTcpClient(server.host, port=server.port, timeout=timeout, retries=0) as client:
        return client.read_holding_registers(10).registers


def read_with_asyncio(server: StreamTestServer, timeout: float = 5) -> list[int]:
    async def read() -> list[int]:
        async with AsyncModbusTcpClient(server.host, port=server.port, timeout=timeout, retries=0) as client:
            return (await client.read_holding_registers(10)).registers

    return asyncio.run(read())


both = pytest.mark.parametrize("read", [read, read_with_asyncio])


@pytest.fixture
def server(tcp_server: StreamTestServer) -> StreamTestServer:
    tcp_server.framing = length_prefixed(">H", offset=4)
    return tcp_server


# An end within an answer


@pytest.mark.parametrize("cut", cuts(FIRST_ANSWER))
def test_an_answer_cut_at_every_byte(server: StreamTestServer, cut: Cut) -> None:
    server.on(READ).reply(cut, Close())

    with pytest.raises(ConnectionException, match="Connection unexpectedly closed"):
        read(server)


@pytest.mark.parametrize("cut", cuts(FIRST_ANSWER))
def test_an_answer_cut_at_every_byte_is_waited_for_until_the_timeout_by_the_asyncio_client(
    server: StreamTestServer, cut: Cut
) -> None:
    """It is told of the end of the stream, and goes on to wait."""
    server.on(READ).reply(cut, Close())

    with pytest.raises(ModbusIOException, match="No response received"):
        read_with_asyncio(server, timeout=0.1)


@both
@pytest.mark.parametrize("split", splits(FIRST_ANSWER))
def test_an_answer_parted_at_every_byte(server: StreamTestServer, read: Read, split: Split) -> None:
    server.on(READ).reply(split)

    assert read(server) == [42]


@ends(
    ConnectionException,
    a_reset=ConnectionResetError,  # no error of pymodbus
    silence=ModbusIOException,
)
def test_an_answer_that_breaks_off(server: StreamTestServer, answer: list[object], error: type[Exception]) -> None:
    server.on(READ).reply(Cut(ANSWER, 8), *answer)

    with pytest.raises(error):
        read(server, timeout=patience(answer))


# No answer to the request

NO_ANSWER = {
    "another id": Overwrite(ANSWER, 0, b"\x7f\x7f"),
    "another protocol": Overwrite(ANSWER, 2, b"\0\1"),
    "another unit": Overwrite(ANSWER, 6, b"\x02"),
    "a length that is too large": Overwrite(ANSWER, 4, b"\0\6"),
    "the beginning": Cut(ANSWER, 8),
    "garbage": garbage(20),
}


@both
@pytest.mark.parametrize("reply", NO_ANSWER.values(), ids=NO_ANSWER)
def test_what_is_no_answer_is_waited_past_until_the_timeout(
    server: StreamTestServer, read: Read, reply: object
) -> None:
    server.on(READ).reply(reply, Stall())

    with pytest.raises(ModbusIOException, match="No response received"):
        read(server, timeout=0.1)


@both
@pytest.mark.parametrize("reply", [NO_ANSWER["another id"], NO_ANSWER["another unit"]], ids=["id", "unit"])
def test_an_answer_after_somebody_elses(server: StreamTestServer, read: Read, reply: object) -> None:
    server.on(READ).reply(reply, ANSWER)

    assert read(server) == [42]


def test_a_late_answer_is_not_taken_for_the_next(server: StreamTestServer) -> None:
    server.on(READ).reply(Repeat(ANSWER, 2), uses=1).then(Overwrite(ANSWER, 10, b"\x2b"))

    with ModbusTcpClient(server.host, port=server.port, timeout=5, retries=0) as client:
        assert client.read_holding_registers(10).registers == [42]
        assert client.read_holding_registers(10).registers == [43]


# Taken for an answer


@both
def test_an_answer_to_another_function_is_taken(server: StreamTestServer, read: Read) -> None:
    """Input registers, function 4, where holding registers were asked for."""
    server.on(READ).reply(Overwrite(ANSWER, 7, b"\x04"))

    assert read(server) == [42]


@both
def test_more_registers_than_were_asked_for_are_taken(server: StreamTestServer, read: Read) -> None:
    server.on(READ).reply(Hex(r"\g<tid> 00 00 00 07 01 03 04 00 2a 00 2b"))

    assert read(server) == [42, 43]
