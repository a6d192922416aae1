"""MQTT 3.1.1, with paho-mqtt."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from queue import Queue
from threading import Event

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from pytest_sockserver import Close, Hex, Request, Reset, ScriptMismatch, SockServer, StreamTestServer

from .relay import byte_by_byte


def mqtt() -> Generator[int, bytes, None]:
    """Frames are packets: a byte, a length in groups of seven bits, and so many bytes (MQTT 3.1.1 section 2.2.3)."""
    yield 1
    length = shift = 0
    while (byte := (yield 1)[0]) & 0x80:
        length, shift = length | (byte & 0x7F) << shift, shift + 7
    yield length | byte << shift


CONNECT = Hex("10 0e 00 04 4d 51 54 54 04 02 00 3c 00 02 6d 65")  # clean session, 60 s of keep-alive, the id "me"
CONNACK = Hex("20 02 00 00")
PUBLISH = Hex("32 0c 00 04 74 65 6d 70 <id:2> 32 31 2e 35")  # QoS 1, "temp", "21.5"
PUBLISH_AGAIN = Hex("3a 0c 00 04 74 65 6d 70 <id:2> 32 31 2e 35")  # the same with DUP
PUBACK = Hex(r"40 02 \g<id>")
DISCONNECT = Hex("e0 00")


def kind(number: int) -> Callable[[Request], bool]:
    """Match the packets of a type, whatever their flags and their content."""
    return lambda packet: packet[0] >> 4 == number


@pytest.fixture
def client() -> Iterator[Client]:
    with closing_client() as client:
        yield client


@contextmanager
def closing_client(**options: bool) -> Iterator[Client]:
    client = Client(CallbackAPIVersion.VERSION2, client_id="me", **options)
    client.reconnect_delay_set(min_delay=0.01)  # seconds; 1 unless set
    yield client
    client.disconnect()
    client.loop_stop()
    client._reset_sockets()  # else the pair that wakes its loop is left to the garbage collector


def publish(client: Client, address: tuple[str, int], temperature: str = "21.5") -> None:
    """Publish a temperature with QoS 1, once the broker has let us in, and wait until it is acknowledged."""
    let_in = Event()
    client.on_connect = lambda *ignored: let_in.set()
    client.connect(*address)
    client.loop_start()
    assert let_in.wait(timeout=5)
    message = client.publish("temp", temperature, qos=1)
    message.wait_for_publish(timeout=5)
    assert message.is_published()
    client.disconnect()
    client.loop_stop()


# The same story three times


def test_a_script_of_a_publication(tcp_server: StreamTestServer, client: Client) -> None:
    tcp_server.script().expect(CONNECT).send(CONNACK).expect(PUBLISH).send(PUBACK).expect(DISCONNECT)

    publish(client, tcp_server.address)


def test_rules_for_a_broker(tcp_server: StreamTestServer, client: Client) -> None:
    tcp_server.framing = mqtt
    tcp_server.on(kind(1)).reply(CONNACK)
    tcp_server.on(PUBLISH).reply(PUBACK)
    tcp_server.on(DISCONNECT).reply(Close())

    publish(client, tcp_server.address)

    assert tcp_server.requests[1].endswith(b"21.5")


def test_a_dialogue_in_hex(tcp_server: StreamTestServer, client: Client) -> None:
    tcp_server.dialogue(r"""
        # CONNECT, CONNACK
        Cx 10 0e 00 04 4d515454 04 02 00 3c 00 02 6d65
        Sx 20 02 00 00
        # PUBLISH with QoS 1: temp, the packet's id, 21.5; PUBACK
        Cx 32 0c 00 04 74656d70 <id:2> 32312e35
        Sx 40 02 \g<id>
        # DISCONNECT
        Cx e0 00
    """)

    publish(client, tcp_server.address)


# What is not acknowledged comes again


def test_a_publication_comes_again_after_a_reset(tcp_server: StreamTestServer, client: Client) -> None:
    tcp_server.script().expect(CONNECT).send(CONNACK).expect(PUBLISH).reset()
    tcp_server.script().expect(CONNECT).send(CONNACK).expect(PUBLISH_AGAIN).send(PUBACK).expect(DISCONNECT)

    publish(client, tcp_server.address)

    first, again = tcp_server.connections
    assert first.captured["id"] == again.captured["id"]


def test_the_reset_in_a_dialogue_of_two_connections(tcp_server: StreamTestServer, client: Client) -> None:
    tcp_server.dialogue(r"""
        == 0
        Cx 10 0e 00 04 4d515454 04 02 00 3c 00 02 6d65
        Sx 20 02 00 00
        Cx 32 0c 00 04 74656d70 <id:2> 32312e35
        S! reset
        == 1
        Cx 10 0e 00 04 4d515454 04 02 00 3c 00 02 6d65
        Sx 20 02 00 00
        Cx 3a 0c 00 04 74656d70 <id:2> 32312e35
        Sx 40 02 \g<id>
        Cx e0 00
    """)

    publish(client, tcp_server.address)


def test_the_reset_by_rules(tcp_server: StreamTestServer, client: Client) -> None:
    tcp_server.framing = mqtt
    tcp_server.on(kind(1), times=2).reply(CONNACK)
    tcp_server.on(PUBLISH, times=1).reply(Reset())
    tcp_server.on(PUBLISH_AGAIN, times=1).reply(PUBACK)
    tcp_server.on(DISCONNECT).reply()

    publish(client, tcp_server.address)


# What the broker begins


def test_a_message_is_pushed_to_a_subscriber_who_acknowledges_it(tcp_server: StreamTestServer, client: Client) -> None:
    messages: Queue[bytes] = Queue()
    client.on_message = lambda client, userdata, message: messages.put(message.payload)
    client.on_connect = lambda client, *ignored: client.subscribe("temp", qos=1)
    tcp_server.framing = mqtt
    tcp_server.on(kind(1)).reply(CONNACK)
    tcp_server.on(Hex("82 09 <id:2> 00 04 74 65 6d 70 01")).reply(Hex(r"90 03 \g<id> 01"))
    tcp_server.on(Hex("40 02 00 07")).reply()
    tcp_server.on(DISCONNECT).reply()

    client.connect(*tcp_server.address)
    client.loop_start()
    tcp_server.wait_for(kind(8)).connection.send(Hex("32 0c 00 04 74 65 6d 70 00 07 32 31 2e 35"))

    assert messages.get(timeout=5) == b"21.5"
    tcp_server.wait_for(Hex("40 02 00 07"))


def test_a_large_packet_has_a_length_of_three_bytes(tcp_server: StreamTestServer, client: Client) -> None:
    tcp_server.framing = mqtt
    tcp_server.on(kind(1)).reply(CONNACK)
    tcp_server.on(re.compile(rb"\x32.{1,4}\x00\x04temp(?P<id>..)x+", re.DOTALL)).reply(PUBACK)
    tcp_server.on(DISCONNECT).reply()

    publish(client, tcp_server.address, "x" * 20_000)

    assert len(tcp_server.requests[1]) == 1 + 3 + 2 + 4 + 2 + 20_000


# When the client departs


def test_another_temperature_than_was_expected(tcp_server: StreamTestServer) -> None:
    tcp_server.script().expect(CONNECT).send(CONNACK).expect(PUBLISH)

    said = "got hex 32 0c 00 04 74 65 6d 70 00 01 32 31 2e 39 (differs at byte 13: 39 is not 35)"
    with closing_client(reconnect_on_failure=False) as client:
        with tcp_server.raises(ScriptMismatch, match=re.escape(said)):
            client.connect(*tcp_server.address)
            client.loop_start()
            client.publish("temp", "21.9", qos=1)


# However the bytes arrive


@pytest.mark.parametrize("told", [test_a_script_of_a_publication, test_rules_for_a_broker, test_a_dialogue_in_hex])
def test_byte_by_byte(
    sockserver: SockServer,
    tcp_server: StreamTestServer,
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    told: Callable[[StreamTestServer, Client], None],
) -> None:
    connect_to_relay = partial(client.connect, *byte_by_byte(sockserver, tcp_server))
    monkeypatch.setattr(client, "connect", lambda *address: connect_to_relay())
    told(tcp_server, client)
