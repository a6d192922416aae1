"""paho-mqtt: packets with a length of one to four bytes, from a client that works in a thread of its own."""

from __future__ import annotations

from collections.abc import Iterator
from queue import Queue
from threading import Event

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from pytest_sockserver import Connection, StreamTestServer

CONNECT, PUBLISH, SUBSCRIBE, DISCONNECT = 1, 3, 8, 14
ACCEPTED = b"\x20\x02\x00\x00"


def recv_packet(conn: Connection) -> tuple[int, bytes]:
    """Read a packet: its type, a length in groups of seven bits (MQTT 3.1.1 section 2.2.3), and the rest."""
    kind = conn.recv_exactly(1)[0] >> 4
    length = shift = 0
    while (byte := conn.recv_exactly(1)[0]) & 0x80:
        length, shift = length | (byte & 0x7F) << shift, shift + 7
    return kind, conn.recv_exactly(length | byte << shift)


@pytest.fixture
def messages() -> Queue[bytes]:
    return Queue()


@pytest.fixture
def client(messages: Queue[bytes]) -> Iterator[Client]:
    client = Client(CallbackAPIVersion.VERSION2, client_id="me")
    client.reconnect_delay_set(min_delay=0.01)
    client.on_message = lambda client, userdata, message: messages.put(message.payload)
    yield client
    client.disconnect()
    client.loop_stop()
    client._reset_sockets()  # else the pair that wakes its loop is left to the garbage collector


def test_a_message_is_subscribed_to_published_and_pushed(
    tcp_server: StreamTestServer, client: Client, messages: Queue[bytes]
) -> None:
    @tcp_server.handler
    def echo(conn: Connection) -> None:
        assert recv_packet(conn)[0] == CONNECT
        conn.send(ACCEPTED)
        kind, packet = recv_packet(conn)
        assert (kind, packet) == (SUBSCRIBE, b"\x00\x01\x00\x03t/#\x00")
        conn.send(b"\x90\x03" + packet[:2] + b"\x00")
        kind, packet = recv_packet(conn)
        assert (kind, packet[:5]) == (PUBLISH, b"\x00\x03t/1")
        conn.send(b"\x30" + bytes([5 + 3]) + b"\x00\x03t/1" + b"got")
        assert recv_packet(conn)[0] == DISCONNECT

    client.on_connect = lambda client, *ignored: client.subscribe("t/#")
    client.on_subscribe = lambda client, *ignored: client.publish("t/1", b"x" * 200)
    client.connect(*tcp_server.address)
    client.loop_start()

    assert messages.get(timeout=5) == b"got"


def test_a_client_that_was_reset_connects_again(tcp_server: StreamTestServer, client: Client) -> None:
    accepted = Event()

    @tcp_server.handler
    def reset_the_first(conn: Connection) -> None:
        assert recv_packet(conn)[0] == CONNECT
        if conn.index == 0:
            conn.reset()
            return
        conn.send(ACCEPTED)
        recv_packet(conn)

    client.on_connect = lambda *ignored: accepted.set()
    client.connect(*tcp_server.address)
    client.loop_start()

    assert accepted.wait(5)
    assert len(tcp_server.connections) == 2
