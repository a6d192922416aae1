"""Test an asyncio or a trio client."""

import asyncio
import socket

import pytest
import trio

from pytest_sockserver import CONNECT, BlockingCallInCoroutine, Close, Delay, Drip


async def fetch(host, port):
    """Ask for a number, with asyncio."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(b"NUMBER\n")
        return int(await reader.readline())
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.mark.asyncio
async def test_asyncio_client_with_a_handler(tcp_server):
    @tcp_server.handler
    def numbers(conn):
        while conn.recv_line():
            conn.send(b"17\n")

    assert await fetch(*tcp_server.address) == 17

    await tcp_server.aio.wait_for(b"NUMBER\n")


@pytest.mark.asyncio
async def test_asyncio_client_driven_live(tcp_server):
    number = asyncio.create_task(fetch(*tcp_server.address))

    conn = await tcp_server.aio.accept()
    await conn.expect_line(b"NUMBER")
    await conn.send(b"17\n")

    assert await number == 17
    await conn.expect_eof()


@pytest.mark.trio
async def test_trio_client(tcp_server):
    @tcp_server.handler
    def numbers(conn):
        while conn.recv_line():
            conn.send(b"17\n")

    async with await trio.open_tcp_stream(*tcp_server.address) as stream:
        await stream.send_all(b"NUMBER\n")
        assert await stream.receive_some() == b"17\n"

    conn = await tcp_server.aio.wait_connection()
    await conn.wait_closed()
    assert conn.received == b"NUMBER\n"


@pytest.mark.asyncio
async def test_blocking_verb_in_a_coroutine_is_refused(tcp_server):
    with pytest.raises(BlockingCallInCoroutine, match=r"Use await server\.aio\.wait_for"):
        tcp_server.wait_for(b"NUMBER\n")


@pytest.mark.asyncio
async def test_pushes_that_take_their_time(tcp_server):
    tcp_server.on(b"SUB\n").reply(b"+OK\n")
    reader, writer = await asyncio.open_connection(*tcp_server.address)
    writer.write(b"SUB\n")
    assert await reader.readline() == b"+OK\n"

    request = await tcp_server.aio.wait_for(b"SUB\n")
    request.reply(b"MSG 1\n")  # plain bytes leave at once
    push = asyncio.create_task(request.connection.aio.send(Drip(b"MSG 2\n", 0.005)))

    assert await reader.readline() == b"MSG 1\n"
    assert await reader.readline() == b"MSG 2\n"
    await push
    writer.close()


@pytest.mark.asyncio
async def test_datagrams_that_take_their_time(udp_server):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(udp_server.address)
        client.settimeout(5)
        client.send(b"TIME?")

        request = await udp_server.aio.next_request()
        await request.aio.reply(Delay(0.01), b"noon")

        assert client.recv(10) == b"noon"


@pytest.mark.asyncio
async def test_blocking_client_awaited(tcp_server):
    tcp_server.on(CONNECT).reply(b"hello", Close())

    def fetch():
        with socket.create_connection(tcp_server.address) as client:
            return client.recv(10)

    assert await asyncio.wrap_future(tcp_server.in_thread(fetch)) == b"hello"
