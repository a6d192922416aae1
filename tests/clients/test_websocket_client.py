"""websocket-client: HTTP that is upgraded, frames that the client masks, and a ping from the server's side."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode

import pytest
import websocket

from pytest_sockserver import Connection, StreamTestServer

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
LAST = 0x80


def upgrade(conn: Connection) -> None:
    key = re.search(rb"Sec-WebSocket-Key: (\S+)", conn.recv_until(b"\r\n\r\n"))[1]
    accept = b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())  # RFC 6455 section 1.3
    conn.send(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )


def frame(opcode: int, data: bytes) -> bytes:
    return bytes([LAST | opcode, len(data)]) + data


def recv_frame(conn: Connection) -> tuple[int, bytes]:
    """Read a short frame of the client: the opcode, the length, the mask, and the masked data."""
    head = conn.recv_exactly(2)
    mask = conn.recv_exactly(4)
    data = conn.recv_exactly(head[1] & 0x7F)
    return head[0] & 0x0F, bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))


def test_messages_both_ways_and_a_pong(tcp_server: StreamTestServer) -> None:
    received: list[tuple[int, bytes]] = []

    @tcp_server.handler
    def converse(conn: Connection) -> None:
        upgrade(conn)
        conn.send(frame(TEXT, b"hello"))
        received.append(recv_frame(conn))
        conn.send(frame(PING, b"pi"))
        conn.send(bytes([TEXT, 2]), b"ab", frame(0, b"cd"))
        received.append(recv_frame(conn))
        conn.send(frame(CLOSE, b"\x03\xe8"))
        received.append(recv_frame(conn))

    client = websocket.create_connection(tcp_server.url("ws"), timeout=5)
    assert client.recv() == "hello"
    client.send("hi")
    assert client.recv() == "abcd"
    assert client.recv_data() == (CLOSE, b"\x03\xe8")
    client.shutdown()  # close() has no more to say, and leaves the socket open

    tcp_server.connections[0].wait_closed()
    assert received == [(TEXT, b"hi"), (PONG, b"pi"), (CLOSE, b"\x03\xe8")]


def test_an_upgrade_that_is_refused(tcp_server: StreamTestServer) -> None:
    @tcp_server.handler
    def forbid(conn: Connection) -> None:
        conn.recv_until(b"\r\n\r\n")
        conn.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    with pytest.raises(websocket.WebSocketBadStatusException) as caught:
        websocket.create_connection(tcp_server.url("ws"), timeout=5)

    assert caught.value.status_code == 403


def test_an_end_of_stream_within_a_frame(tcp_server: StreamTestServer) -> None:
    @tcp_server.handler
    def stop_short(conn: Connection) -> None:
        upgrade(conn)
        conn.send(frame(TEXT, b"hello")[:4])

    client = websocket.create_connection(tcp_server.url("ws"), timeout=5)
    with pytest.raises(websocket.WebSocketConnectionClosedException):
        client.recv()
    client.close()
