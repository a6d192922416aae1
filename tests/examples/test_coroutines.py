"""Test an asyncio or a trio client."""

import asyncio

import pytest
import trio

from pytest_sockserver import BlockedLoop


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
    with pytest.raises(BlockedLoop, match=r"Use server\.aio, whose waits are awaitable"):
        tcp_server.wait_for(b"NUMBER\n")
