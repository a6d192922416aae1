"""paho-mqtt while the network fails: its thread connects again, as long as it is the broker that is away."""

from __future__ import annotations

import gc
import ssl
from collections.abc import Iterator
from queue import Empty, Queue
from threading import Event

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from pytest_sockserver import Certificate, Close, Cut, Hex, Reset, SockServer, StreamTestServer
from pytest_sockserver.faults import Overwrite, Split
from pytest_sockserver.sweeps import cuts, splits

from .faults import certificates

HELLO = Hex("10 0e 00 04 4d 51 54 54 04 02 00 3c 00 02 6d 65")  # CONNECT: clean session, 60 s of keep-alive, "me"
ACCEPTED = Hex("20 02 00 00")  # CONNACK
BUSY = Hex("20 02 00 03")  # CONNACK: server unavailable
GOODBYE = Hex("e0 00")  # DISCONNECT


@pytest.fixture
def heard() -> Queue[str]:
    """What the client is told of its connections: a reason for each that came to stand, or ended."""
    return Queue()


@pytest.fixture
def client(heard: Queue[str]) -> Iterator[Client]:
    client = Client(CallbackAPIVersion.VERSION2, client_id="me")
    client.reconnect_delay_set(min_delay=0.01)  # seconds; 1 unless set
    client.connect_timeout = 0.1
    client.on_connect = lambda client, data, flags, reason, properties: heard.put(f"connected: {reason}")
    client.on_disconnect = lambda client, data, flags, reason, properties: heard.put(f"disconnected: {reason}")
    yield client
    client.disconnect()
    client.loop_stop()
    client._reset_sockets()  # else the pair that wakes its loop is left to the garbage collector


@pytest.fixture
def broker(tcp_server: StreamTestServer) -> StreamTestServer:
    """A broker that accepts whoever comes."""
    tcp_server.on(HELLO).reply(ACCEPTED)
    tcp_server.on(GOODBYE).reply(Close())
    return tcp_server


def start(client: Client, server: StreamTestServer) -> None:
    client.connect_async(*server.address)
    client.loop_start()


def test_a_connection_that_is_reset_once_it_stands(broker: StreamTestServer, client: Client, heard: Queue[str]) -> None:
    start(client, broker)
    assert heard.get(timeout=5) == "connected: Success"
    broker.disconnect(reset=True)

    assert heard.get(timeout=5) == "disconnected: Unspecified error"
    assert heard.get(timeout=5) == "connected: Success"
    assert len(broker.connections) == 2


def test_a_broker_that_is_restarted(broker: StreamTestServer, client: Client, heard: Queue[str]) -> None:
    start(client, broker)
    assert heard.get(timeout=5) == "connected: Success"
    broker.restart()

    assert heard.get(timeout=5) == "disconnected: Unspecified error"
    assert heard.get(timeout=5) == "connected: Success"
    assert len(broker.connections) == 2


def test_a_broker_that_refuses_and_listens_later(broker: StreamTestServer, client: Client, heard: Queue[str]) -> None:
    tried: Queue[bool] = Queue()
    client.on_connect_fail = lambda *ignored: tried.put(True)

    with broker.refuse():
        start(client, broker)
        assert [tried.get(timeout=5), tried.get(timeout=5)] == [True, True]

    assert heard.get(timeout=5) == "connected: Success"
    assert len(broker.connections) == 1


def test_a_black_hole_is_tried_again(broker: StreamTestServer, client: Client, heard: Queue[str]) -> None:
    tried = Event()
    client.on_connect_fail = lambda *ignored: tried.set()

    with broker.blackhole():
        start(client, broker)
        assert tried.wait(5)

    assert heard.get(timeout=5) == "connected: Success"


def test_the_first_connect_is_not_tried_again(broker: StreamTestServer, client: Client) -> None:
    """connect_async() leaves it to the thread, which tries again."""
    with broker.refuse():
        with pytest.raises(ConnectionRefusedError):
            client.connect(*broker.address)


@pytest.mark.parametrize("end", [Close(), Reset()], ids=repr)
@pytest.mark.parametrize("cut", cuts(b"\x20\x02\x00\x00"))
def test_a_connack_that_breaks_off(
    broker: StreamTestServer, client: Client, heard: Queue[str], cut: Cut, end: Close | Reset
) -> None:
    broker.on(HELLO).reply(cut, end, uses=1).then(ACCEPTED)
    start(client, broker)

    assert heard.get(timeout=5) == "disconnected: Unspecified error"
    assert heard.get(timeout=5) == "connected: Success"
    assert len(broker.connections) == 2


@pytest.mark.parametrize("split", splits(b"\x20\x02\x00\x00"))
def test_a_connack_parted_at_every_byte(
    broker: StreamTestServer, client: Client, heard: Queue[str], split: Split
) -> None:
    broker.on(HELLO).reply(split)
    start(client, broker)

    assert heard.get(timeout=5) == "connected: Success"


def test_a_connack_that_never_comes_is_waited_for_as_long_as_the_keepalive(
    tcp_server: StreamTestServer, client: Client, heard: Queue[str]
) -> None:
    """A minute, unless set; the shortest is a second.  There is no other timeout."""
    tcp_server.on(Hex("10 0e 00 04 4d 51 54 54 04 02 00 01 00 02 6d 65")).reply(uses=1).then(ACCEPTED)
    tcp_server.on(GOODBYE).reply(Close())

    client.connect(*tcp_server.address, keepalive=1)
    looping = tcp_server.in_thread(client.loop_forever, timeout=0.05)

    assert heard.get(timeout=5) == "disconnected: Keep alive timeout"
    assert heard.get(timeout=5) == "connected: Success"
    client.disconnect()
    looping.result()
    assert len(tcp_server.connections) == 2


def test_a_broker_that_is_busy_is_asked_again(broker: StreamTestServer, client: Client, heard: Queue[str]) -> None:
    broker.on(HELLO).reply(BUSY, Close(), uses=1).then(ACCEPTED)
    start(client, broker)

    assert heard.get(timeout=5) == "connected: Server unavailable"
    assert heard.get(timeout=5) == "disconnected: Unspecified error"
    assert heard.get(timeout=5) == "connected: Success"


def test_a_packet_of_an_unknown_type_ends_the_connection(
    broker: StreamTestServer, client: Client, heard: Queue[str]
) -> None:
    broker.on(HELLO).reply(Overwrite(ACCEPTED, 0, b"\x00"), uses=1).then(ACCEPTED)
    start(client, broker)

    assert heard.get(timeout=5) == "disconnected: Protocol error"
    assert heard.get(timeout=5) == "connected: Success"
    assert len(broker.connections) == 2


def test_a_packet_shorter_than_it_says_is_waited_for(
    broker: StreamTestServer, client: Client, heard: Queue[str]
) -> None:
    broker.on(HELLO).reply(Overwrite(ACCEPTED, 1, b"\x03"))
    start(client, broker)

    with pytest.raises(Empty):
        heard.get(timeout=0.05)


# TLS


@certificates()
def test_a_bad_certificate_leaves_the_socket_to_the_garbage_collector(
    sockserver: SockServer, client: Client, certificate: Certificate, reason: str
) -> None:
    broker = sockserver.tls(tls=certificate)
    client.tls_set_context(broker.client_context())

    with pytest.warns(ResourceWarning, match="^unclosed <ssl.SSLSocket "):
        with pytest.raises(ssl.SSLCertVerificationError, match=reason):
            client.connect(*broker.address)
        gc.collect()


@pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")
def test_an_expired_certificate_is_tried_again_by_the_thread(sockserver: SockServer, client: Client) -> None:
    broker = sockserver.tls(tls=Certificate.expired())
    client.tls_set_context(broker.client_context())
    tried: Queue[bool] = Queue()
    client.on_connect_fail = lambda *ignored: tried.put(True)

    start(client, broker)

    assert [tried.get(timeout=5), tried.get(timeout=5)] == [True, True]
    assert len(broker.connections) >= 2
