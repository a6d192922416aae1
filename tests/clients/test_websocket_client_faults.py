"""websocket-client while frames go wrong."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode

import pytest
import websocket

from pytest_sockserver import ANY, Close, Cut, Request, StreamTestServer, http1
from pytest_sockserver.faults import Corrupt, Overwrite, Split
from pytest_sockserver.sweeps import cuts, splits

from .faults import ends, patience

HELLO = b"\x81\x05hello"  # the last frame of a text, and its length


def upgrade(request: Request) -> bytes:
    key = re.search(rb"Sec-WebSocket-Key: (\S+)", request)[1]
    accept = b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())  # RFC 6455 section 1.3
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )


@pytest.fixture
def server(tcp_server: StreamTestServer) -> StreamTestServer:
    tcp_server.framing = http1
    return tcp_server


def receive(server: StreamTestServer, timeout: float = 5) -> str | bytes:
    client = websocket.create_connection(server.url("ws"), timeout=timeout)
    try:
        return client.recv()
    finally:
        client.shutdown()


def test_an_upgrade_with_a_wrong_answer_to_the_key(server: StreamTestServer) -> None:
    server.on(ANY).reply(Corrupt(upgrade, 100, flip=1))

    with pytest.raises(websocket.WebSocketException, match="^Invalid WebSocket Header$"):
        receive(server)


@pytest.mark.parametrize("cut", cuts(HELLO))
def test_a_frame_cut_at_every_byte(server: StreamTestServer, cut: Cut) -> None:
    server.on(ANY).reply(upgrade, cut, Close())

    with pytest.raises(websocket.WebSocketConnectionClosedException, match="Connection to remote host was lost"):
        receive(server)


@pytest.mark.parametrize("split", splits(HELLO))
def test_a_frame_parted_at_every_byte(server: StreamTestServer, split: Split) -> None:
    server.on(ANY).reply(upgrade, split)

    assert receive(server) == "hello"


@ends(
    websocket.WebSocketConnectionClosedException,
    a_reset=ConnectionResetError,  # no error of websocket-client
    silence=websocket.WebSocketTimeoutException,
)
def test_a_frame_that_breaks_off(server: StreamTestServer, answer: list[object], error: type[Exception]) -> None:
    server.on(ANY).reply(upgrade, Cut(HELLO, 3), *answer)

    with pytest.raises(error):
        receive(server, timeout=patience(answer))


WRONG = {
    "reserved bits": (Overwrite(HELLO, 0, b"\xf1"), "rsv is not implemented, yet"),
    "an unknown opcode": (Overwrite(HELLO, 0, b"\x83"), "Invalid opcode 3"),
    "a continuation of nothing": (Overwrite(HELLO, 0, b"\x80"), "Illegal frame"),
    "no UTF-8": (Overwrite(HELLO, 2, b"\xff"), "cannot decode"),
    "a long ping": (b"\x89\x7e\x01\x00" + b"x" * 256, "Ping message is too long"),
}


@pytest.mark.parametrize(("frame", "reason"), WRONG.values(), ids=WRONG)
def test_a_wrong_frame(server: StreamTestServer, frame: object, reason: str) -> None:
    server.on(ANY).reply(upgrade, frame)

    with pytest.raises((websocket.WebSocketProtocolException, websocket.WebSocketPayloadException), match=f"^{reason}"):
        receive(server)


def test_a_frame_of_eight_exabytes_is_waited_for(server: StreamTestServer) -> None:
    server.on(ANY).reply(upgrade, b"\x81\x7f\x7f\xff\xff\xff\xff\xff\xff\xff")

    with pytest.raises(websocket.WebSocketTimeoutException):
        receive(server, timeout=0.05)


def test_a_masked_frame_of_a_server_is_taken(server: StreamTestServer) -> None:
    """RFC 6455 section 5.1: a client must close the connection."""
    server.on(ANY).reply(upgrade, b"\x81\x85\0\0\0\0hello")

    assert receive(server) == "hello"
