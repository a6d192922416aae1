"""WebSocket, with websockets and websocket-client; and with wsproto on the server's side."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import websocket
import websockets
from websockets.asyncio.client import connect as connect_in_asyncio
from websockets.sync.client import connect
from wsproto import ConnectionType, WSConnection, events

from pytest_sockserver import (
    ANY,
    Close,
    Cut,
    Request,
    ScriptMismatch,
    SockServer,
    StreamTestServer,
    UnexpectedRequest,
    http1,
)
from pytest_sockserver import websocket as websocket_frames  # websocket-client's module has the same name

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


@dataclass(frozen=True)
class Says:
    """Match a frame of the client; a class, so that a report shows what was expected."""

    opcode: int
    data: bytes

    def __call__(self, frame: bytes) -> bool:
        return frame[0] == 0x80 | self.opcode and data_of(frame) == self.data


def data_of(frame: bytes) -> bytes:
    """Return what a client says in a frame of less than 126 bytes: two bytes of head, the mask, the masked data."""
    mask, data = frame[2:6], frame[6:]
    return bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))


HANDSHAKE = re.compile(rb"GET /chat HTTP/1.1\r\n.*", re.DOTALL)
GOODBYE = b"\x03\xe8"  # 1000, a normal closure


# The same story three times


def test_rules_answer_each_message(tcp_server: StreamTestServer) -> None:
    tcp_server.framing = http1
    tcp_server.on(HANDSHAKE).reply(upgrade, frame(TEXT, b"welcome"))
    tcp_server.on(Says(TEXT, b"hello")).reply(frame(PING, b"still there?"), frame(TEXT, b"hello yourself"))
    tcp_server.on(Says(PONG, b"still there?"), times=1).reply()
    tcp_server.on(Says(CLOSE, GOODBYE)).reply(frame(CLOSE, GOODBYE), Close())

    with connect(tcp_server.url("ws") + "/chat", proxy=None) as client:
        assert client.recv(timeout=2) == "welcome"
        client.send("hello")
        assert client.recv(timeout=2) == "hello yourself"


def test_a_script_converses(tcp_server: StreamTestServer) -> None:
    tcp_server.framing = http1
    (
        tcp_server.script()
        .expect(HANDSHAKE)
        .send(upgrade, frame(TEXT, b"welcome"))
        .expect(Says(TEXT, b"hello"))
        .send(frame(PING, b"still there?"), frame(TEXT, b"hello yourself"))
        .expect(Says(PONG, b"still there?"))
        .expect(Says(CLOSE, GOODBYE))
        .send(frame(CLOSE, GOODBYE))
        .close()
    )

    with connect(tcp_server.url("ws") + "/chat", proxy=None) as client:
        assert client.recv(timeout=2) == "welcome"
        client.send("hello")
        assert client.recv(timeout=2) == "hello yourself"


DIALOGUE = r"""
    C: GET /chat HTTP/1.1
    C> Sec-WebSocket-Key:\x20
    C~ (?P<key>\S+)
    C> \r\n\r\n
    S: HTTP/1.1 101 Switching Protocols
    S: Upgrade: websocket
    S: Connection: Upgrade
    S: Sec-WebSocket-Accept: \g<accept>
    S:
    S- \x81\x07welcome
    # four zeros: this client masks with nothing
    C- \x81\x85\0\0\0\0hello
    S- \x89\x0cstill there?
    S- \x81\x0ehello yourself
    C- \x8a\x8c\0\0\0\0still there?
    Cx 88 82 00 00 00 00 03 e8
    Sx 88 02 03 e8
    S! close
"""


def test_a_dialogue_converses(tcp_server: StreamTestServer) -> None:
    tcp_server.dialogue(DIALOGUE, accept=lambda connection: accept_key(connection.captured["key"]))

    client = websocket.create_connection(tcp_server.url("ws") + "/chat", timeout=2, get_mask_key=bytes)
    assert client.recv() == "welcome"
    client.send("hello")
    assert client.recv() == "hello yourself"
    client.close()


# What a server may do


def test_wsproto_on_the_servers_side(tcp_server: StreamTestServer) -> None:
    tcp_server.framing = http1
    tcp_server.on(ANY).reply(by_wsproto)

    with connect(tcp_server.url("ws") + "/chat", proxy=None) as client:
        client.send("hello")
        assert client.recv(timeout=2) == "HELLO"
        assert client.ping().wait(2)


def by_wsproto(request: Request) -> Iterator[bytes | Close]:
    """Feed a frame to the connection's protocol; say what it says, and each text in capitals."""
    connection = request.connection
    if connection.framing is http1:
        connection.state.protocol = WSConnection(ConnectionType.SERVER)
        connection.framing = websocket_frames
    protocol = connection.state.protocol
    protocol.receive_data(request)
    for event in protocol.events():
        if isinstance(event, events.Request):
            yield protocol.send(events.AcceptConnection())
        elif isinstance(event, events.TextMessage):
            yield protocol.send(events.TextMessage(event.data.upper()))
        elif isinstance(event, events.Ping):
            yield protocol.send(event.response())
        elif isinstance(event, events.CloseConnection):
            yield protocol.send(event.response())
            yield Close()


def test_a_script_for_the_handshake_and_rules_for_the_frames(tcp_server: StreamTestServer) -> None:
    tcp_server.on(Says(TEXT, b"hello")).reply(frame(TEXT, b"hello yourself"))
    tcp_server.on(Says(CLOSE, GOODBYE)).reply(frame(CLOSE, GOODBYE), Close())
    (
        tcp_server.script()
        .expect_line(b"GET /chat HTTP/1.1")
        .recv_until(b"\r\n\r\n")
        .send(upgrade)
        .rules(websocket_frames)
    )

    with connect(tcp_server.url("ws") + "/chat", proxy=None) as client:
        client.send("hello")
        assert client.recv(timeout=2) == "hello yourself"


def test_a_message_that_the_test_itself_pushes(tcp_server: StreamTestServer) -> None:
    tcp_server.framing = http1
    tcp_server.on(HANDSHAKE).reply(upgrade)
    tcp_server.on(Says(CLOSE, GOODBYE)).reply(frame(CLOSE, GOODBYE), Close())

    with connect(tcp_server.url("ws") + "/chat", proxy=None) as client:
        tcp_server.connections[0].send(frame(TEXT, b"news"))
        assert client.recv(timeout=2) == "news"


def test_a_message_in_fragments_with_a_ping_between_them(tcp_server: StreamTestServer) -> None:
    first, rest = bytes([TEXT, 4]) + b"hell", frame(0, b"o")
    tcp_server.framing = http1
    tcp_server.on(HANDSHAKE).reply(upgrade, first, frame(PING, b"?"), rest)
    tcp_server.on(Says(PONG, b"?"), times=1).reply()
    tcp_server.on(Says(CLOSE, GOODBYE)).reply(frame(CLOSE, GOODBYE), Close())

    with connect(tcp_server.url("ws") + "/chat", proxy=None) as client:
        assert client.recv(timeout=2) == "hello"


@pytest.mark.parametrize("n", range(len(frame(TEXT, b"welcome"))))
def test_a_frame_cut_at_every_byte(tcp_server: StreamTestServer, n: int) -> None:
    tcp_server.framing = http1
    tcp_server.on(HANDSHAKE).reply(upgrade, Cut(frame(TEXT, b"welcome"), n), Close())

    with connect(tcp_server.url("ws") + "/chat", proxy=None) as client:
        with pytest.raises(websockets.ConnectionClosedError):
            client.recv(timeout=2)


def test_an_upgrade_that_is_refused(tcp_server: StreamTestServer) -> None:
    tcp_server.framing = http1
    tcp_server.on(HANDSHAKE).reply(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    with pytest.raises(websockets.InvalidStatus):
        connect(tcp_server.url("ws") + "/chat", proxy=None)


def test_a_wrong_accept_key(tcp_server: StreamTestServer) -> None:
    tcp_server.framing = http1
    tcp_server.on(HANDSHAKE).reply(lambda request: upgrade(request).replace(b"-Accept: ", b"-Accept: x"))

    with pytest.raises(websockets.InvalidHandshake):
        connect(tcp_server.url("ws") + "/chat", proxy=None)


@pytest.mark.asyncio
async def test_the_asyncio_client(tcp_server: StreamTestServer) -> None:
    tcp_server.framing = http1
    tcp_server.on(HANDSHAKE).reply(upgrade, frame(TEXT, b"welcome"))
    tcp_server.on(Says(CLOSE, GOODBYE)).reply(frame(CLOSE, GOODBYE), Close())

    async with connect_in_asyncio(tcp_server.url("ws") + "/chat", proxy=None) as client:
        assert await client.recv() == "welcome"


# When the client departs


def test_another_message_than_the_script_expects(tcp_server: StreamTestServer) -> None:
    tcp_server.framing = http1
    tcp_server.script().expect(HANDSHAKE).send(upgrade).expect(Says(TEXT, b"hello"))

    with tcp_server.raises(
        ScriptMismatch, match=r"expected a frame matching the predicate Says\(opcode=1, data=b'hello'"
    ):
        with connect(tcp_server.url("ws") + "/chat", proxy=None) as client:
            client.send("hullo")


def test_a_message_that_no_rule_knows(tcp_server: StreamTestServer) -> None:
    tcp_server.framing = http1
    tcp_server.on(HANDSHAKE).reply(upgrade)
    tcp_server.on(Says(TEXT, b"hello")).reply(frame(TEXT, b"hello yourself"))

    with tcp_server.raises(UnexpectedRequest, match="no rule matches (hex 81 85|b'.x81.x85)"):
        with connect(tcp_server.url("ws") + "/chat", proxy=None) as client:
            client.send("hullo")


# Byte by byte


def declare_script(server: StreamTestServer) -> None:
    server.framing = http1
    (
        server.script()
        .expect(HANDSHAKE)
        .send(upgrade, frame(TEXT, b"welcome"))
        .expect(Says(TEXT, b"hello"))
        .send(frame(PING, b"still there?"), frame(TEXT, b"hello yourself"))
        .expect(Says(PONG, b"still there?"))
        .expect(Says(CLOSE, GOODBYE))
        .send(frame(CLOSE, GOODBYE))
        .close()
    )


def declare_rules(server: StreamTestServer) -> None:
    server.framing = http1
    server.on(HANDSHAKE).reply(upgrade, frame(TEXT, b"welcome"))
    server.on(Says(TEXT, b"hello")).reply(frame(PING, b"still there?"), frame(TEXT, b"hello yourself"))
    server.on(Says(PONG, b"still there?"), times=1).reply()
    server.on(Says(CLOSE, GOODBYE)).reply(frame(CLOSE, GOODBYE), Close())


def declare_dialogue(server: StreamTestServer) -> None:
    server.dialogue(DIALOGUE, accept=lambda connection: accept_key(connection.captured["key"]))


@pytest.mark.parametrize("declare", [declare_script, declare_rules, declare_dialogue])
def test_frames_that_come_byte_by_byte(
    sockserver: SockServer, tcp_server: StreamTestServer, declare: Callable[[StreamTestServer], None]
) -> None:
    declare(tcp_server)
    host, port = byte_by_byte(sockserver, tcp_server)

    client = websocket.create_connection(f"ws://{host}:{port}/chat", timeout=2, get_mask_key=bytes)
    assert client.recv() == "welcome"
    client.send("hello")
    assert client.recv() == "hello yourself"
    client.close()
