"""httpx: an asynchronous client, with asyncio and with trio, whose requests are on their way at the same time."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from threading import Barrier

import anyio
import httpx
import pytest

from pytest_sockserver import Connection, StreamTestServer

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
async def client(tcp_server: StreamTestServer) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=tcp_server.url("http"), trust_env=False) as client:
        yield client


async def test_five_requests_meet_in_their_handlers(tcp_server: StreamTestServer, client: httpx.AsyncClient) -> None:
    everybody = Barrier(5)
    statuses: list[int] = []

    @tcp_server.handler
    def wait_for_the_others(conn: Connection) -> None:
        conn.recv_until(b"\r\n\r\n")
        everybody.wait(timeout=5)
        conn.send(OK)

    async def get(path: str) -> None:
        statuses.append((await client.get(path)).status_code)

    async with anyio.create_task_group() as group:
        for path in "abcde":
            group.start_soon(get, path)

    assert statuses == [200] * 5
    assert sorted(request.split()[1] for request in tcp_server.requests) == [b"/a", b"/b", b"/c", b"/d", b"/e"]
    assert len(tcp_server.connections) == 5


async def test_a_connection_is_kept_for_the_next_request(
    tcp_server: StreamTestServer, client: httpx.AsyncClient
) -> None:
    @tcp_server.handler
    def serve(conn: Connection) -> None:
        while True:
            conn.recv_until(b"\r\n\r\n")
            conn.send(OK)

    await client.get("/a")
    await client.get("/b")

    assert len(tcp_server.connections) == 1


async def test_a_body_that_breaks_off(tcp_server: StreamTestServer, client: httpx.AsyncClient) -> None:
    @tcp_server.handler
    def stop_short(conn: Connection) -> None:
        conn.recv_until(b"\r\n\r\n")
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")

    with pytest.raises(
        httpx.RemoteProtocolError,
        match=r"^peer closed connection without sending complete message body \(received 2 bytes, expected 5\)$",
    ):
        await client.get("/")


async def test_the_test_answers_while_the_client_waits(tcp_server: StreamTestServer, client: httpx.AsyncClient) -> None:
    responses: list[httpx.Response] = []

    async def get() -> None:
        responses.append(await client.get("/slow"))

    async with anyio.create_task_group() as group:
        group.start_soon(get)
        conn = await tcp_server.aio.accept()
        head = await conn.recv_until(b"\r\n\r\n")
        assert head.startswith(b"GET /slow HTTP/1.1\r\n")
        await conn.send(OK)

    assert responses[0].text == "ok"


async def test_a_cancelled_request_closes_its_connection(
    tcp_server: StreamTestServer, client: httpx.AsyncClient
) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(client.get, "/slow")
        conn = await tcp_server.aio.accept()
        await conn.recv_until(b"\r\n\r\n")
        group.cancel_scope.cancel()

    await conn.wait_closed()
    assert conn.closed_by == "client"


async def test_a_unix_socket(unix_server: StreamTestServer) -> None:
    @unix_server.handler
    def serve(conn: Connection) -> None:
        conn.recv_until(b"\r\n\r\n")
        conn.send(OK)

    transport = httpx.AsyncHTTPTransport(uds=str(unix_server.path))
    async with httpx.AsyncClient(transport=transport) as client:
        response = await client.get("http://anywhere/")

    assert response.text == "ok"
    assert b"\r\nHost: anywhere\r\n" in unix_server.requests[0]


async def test_https(
    tcp_server: StreamTestServer, server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    @tcp_server.handler
    def serve(conn: Connection) -> None:
        conn.start_tls(server_context)
        conn.recv_until(b"\r\n\r\n")
        conn.send(OK)

    async with httpx.AsyncClient(verify=client_context, trust_env=False) as client:
        assert (await client.get(tcp_server.url("https"))).text == "ok"
