"""WebSocket, with websocket-client and websockets; and wsproto on the server's side."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import websocket
import websockets.sync.client
from wsproto import ConnectionType, WSConnection
from wsproto import events as ws

from pytest_sockserver import (
    ANY,
    Close,
    Connection,
    Cut,
    Hex,
    Request,
    ScriptMismatch,
    SockServer,
    StreamTestServer,
    UnexpectedRequest,
    http1,
)
from pytest_sockserver import websocket as websocket_frames

from .relay import byte_by_byte

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


def accept_key(key: bytes) -> bytes:
    """Return what Sec-WebSocket-Accept must be (RFC 6455 section 4.2.2)."""
    return b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())


def upgrade(request: Request) -> bytes:
    """Answer the client's handshake; what follows on this connection are frames."""
    (key,) = re.findall(rb"(?i)\r\nSec-WebSocket-Key: (\S+)\r\n", request)
    request.connection.framing = websocket_frames
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept_key(key) + b"\r\n\r\n"
    )


def frame(opcode: int, data: bytes) -> bytes:
    """Return a frame of less than 126 bytes, as servers send it: without a mask."""
    return bytes([0x80 | opcode, len(data)]) + data


def masked(mask: bytes, data: bytes) -> bytes:
    return bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))


@dataclass(frozen=True)
class Says:
    """Match a frame of the client: 6 bytes of opcode, length and mask, then the masked data."""

    opcode: int
    data: bytes

    def __call__(self, frame: bytes) -> bool:
        return frame[0] == 0x80 | self.opcode and masked(frame[2:6], frame[6:]) == self.data


def opcode(code: int) -> Callable[[bytes], bool]:
    return lambda frame: frame[0] == 0x80 | code


def test_rules(tcp_server: StreamTestServer) -> None:
    tcp_server.framing = http1
    tcp_server.on(re.compile(rb"GET /chat HTTP/1.1\r\n.*", re.DOTALL)).reply(upgrade, frame(TEXT, b"welcome"))
    tcp_server.on(Says(TEXT, b"hello")).reply(frame(PING, b"are you there?"), frame(TEXT, b"hello yourself"))
    tcp_server.on(Says(PONG, b"are you there?"), times=1).reply()
    tcp_server.on(Says(CLOSE, b"\x03\xe8")).reply(frame(CLOSE, b"\x03\xe8"), Close())

    with websockets.sync.client.connect(tcp_server.url("ws") + "/chat", proxy=None) as client:
        assert client.recv(timeout=2) == "welcome"
        client.send("hello")
        assert client.recv(timeout=2) == "hello yourself"
    print(tcp_server.connections[0])


def test_rules_client(tcp_server: StreamTestServer) -> None:
    tcp_server.framing = http1
    tcp_server.on(re.compile(rb"GET /chat HTTP/1.1\r\n.*", re.DOTALL)).reply(upgrade, frame(TEXT, b"welcome"))
    tcp_server.on(Says(TEXT, b"hello")).reply(frame(PING, b"are you there?"), frame(TEXT, b"hello yourself"))
    tcp_server.on(Says(PONG, b"are you there?"), times=1).reply()
    tcp_server.on(Says(CLOSE, b"\x03\xe8")).reply(frame(CLOSE, b"\x03\xe8"), Close())

    client = websocket.create_connection(tcp_server.url("ws") + "/chat", timeout=2)
    assert client.recv() == "welcome"
    client.send("hello")
    assert client.recv() == "hello yourself"
    client.close()
    print(tcp_server.connections[0])


def test_script(tcp_server: StreamTestServer) -> None:
    tcp_server.framing = http1
    (
        tcp_server.script()
        .expect(re.compile(rb"GET /chat HTTP/1.1\r\n.*", re.DOTALL))
        .send(upgrade, frame(TEXT, b"welcome"))
        .expect(Says(TEXT, b"hello"))
        .send(frame(PING, b"are you there?"), frame(TEXT, b"hello yourself"))
        .expect(Says(PONG, b"are you there?"))
        .expect(Says(CLOSE, b"\x03\xe8"))
        .send(frame(CLOSE, b"\x03\xe8"))
        .close()
    )
    with websockets.sync.client.connect(tcp_server.url("ws") + "/chat", proxy=None) as client:
        assert client.recv(timeout=2) == "welcome"
        client.send("hello")
        assert client.recv(timeout=2) == "hello yourself"
    print(tcp_server.connections[0])


def test_dialogue(tcp_server: StreamTestServer) -> None:
    tcp_server.dialogue(
        r"""
        C: GET /chat HTTP/1.1
        C> Sec-WebSocket-Key:\x20
        C~ (?P<key>\S+)
        C> \r\n\r\n
        S: HTTP/1.1 101 Switching Protocols
        S: Upgrade: websocket
        S: Connection: Upgrade
        S: Sec-WebSocket-Accept: \g<accept>
        S:
        # welcome
        Sx 81 07
        S- welcome
        Cx 81 85 <mask:4>
        C- \g<hello>
        Cx 88 82 <mask:4> ?? ??
        Sx 88 02 03 e8
        S! close
        """,
        accept=lambda connection: accept_key(connection.captured["key"]),
        hello=lambda connection: masked(connection.captured["mask"], b"hello"),
    )
    with websockets.sync.client.connect(tcp_server.url("ws") + "/chat", proxy=None) as client:
        assert client.recv(timeout=2) == "welcome"
        client.send("hello")
    print(tcp_server.connections[0])


def test_wsproto(tcp_server: StreamTestServer) -> None:
    tcp_server.framing = http1
    tcp_server.on(ANY).reply(by_wsproto)

    with websockets.sync.client.connect(tcp_server.url("ws") + "/chat", proxy=None) as client:
        client.send("hello")
        assert client.recv(timeout=2) == "HELLO"
    print(tcp_server.connections[0])


def by_wsproto(request: Request) -> Iterator[bytes | Close]:
    state = request.connection.state
    if not hasattr(state, "protocol"):
        state.protocol = WSConnection(ConnectionType.SERVER)
        request.connection.framing = websocket_frames
    state.protocol.receive_data(request)
    for event in state.protocol.events():
        if isinstance(event, ws.Request):
            yield state.protocol.send(ws.AcceptConnection())
        elif isinstance(event, ws.TextMessage):
            yield state.protocol.send(ws.TextMessage(event.data.upper()))
        elif isinstance(event, ws.Ping):
            yield state.protocol.send(event.response())
        elif isinstance(event, ws.CloseConnection):
            yield state.protocol.send(event.response())
            yield Close()
