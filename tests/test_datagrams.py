"""Servers of datagrams: replies of functions and classes, what is recorded, what cannot be sent."""

from __future__ import annotations

import os
import socket
import socketserver as standard
import threading
from time import monotonic
from typing import Any

import pytest

from pytest_sockserver import DatagramTestServer, DeadlineExceeded, InvalidState, Request, SockServer, socketserver

from . import insides
from .peers import PATIENCE, datagram_client, place, until


@pytest.fixture(params=["udp", "unix_datagram"])
def server(request: pytest.FixtureRequest, sockserver: SockServer) -> DatagramTestServer:
    return getattr(sockserver, request.param)()


def asked(server: DatagramTestServer, data: bytes, replies: int = 1) -> list[bytes]:
    with datagram_client(server) as client:
        client.send(data)
        return [client.recv(65536) for _ in range(replies)]


# Replies


def test_a_function_returns_its_reply(server: DatagramTestServer) -> None:
    server.handler(lambda request: request.upper())

    assert asked(server, b"ping") == [b"PING"]


def test_a_function_returns_several_replies(server: DatagramTestServer) -> None:
    server.handler(lambda request: [b"one", b"", request])

    assert asked(server, b"three", 3) == [b"one", b"", b"three"]


def test_a_function_may_yield_none_for_no_reply(server: DatagramTestServer) -> None:
    server.handler(lambda request: () if request == b"drop" else b"kept")

    with datagram_client(server) as client:
        client.send(b"drop")
        client.send(b"keep")
        assert client.recv(100) == b"kept"
        assert [event.kind for event in server.events] == ["received", "received", "sent"]


def test_an_empty_datagram_is_a_request_and_a_reply(server: DatagramTestServer) -> None:
    server.handler(lambda request: b"")

    assert asked(server, b"") == [b""]
    assert server.requests == [b""]


def test_replies_go_to_whoever_asked(server: DatagramTestServer) -> None:
    server.handler(lambda request: b"re: " + request)

    with datagram_client(server) as first, datagram_client(server) as second:
        first.send(b"1")
        second.send(b"2")
        assert (first.recv(100), second.recv(100)) == (b"re: 1", b"re: 2")


def test_datagrams_are_answered_in_the_order_of_arrival(server: DatagramTestServer) -> None:
    server.handler(lambda request: request)

    with datagram_client(server) as client:
        for number in range(5):
            client.send(b"%d" % number)
        assert [client.recv(100) for _ in range(5)] == [b"%d" % number for number in range(5)]


def test_a_slow_handler_delays_replies_and_not_the_recording(server: DatagramTestServer) -> None:
    go_on = threading.Event()

    @server.handler
    def slow(request: Request) -> bytes:
        go_on.wait(PATIENCE)
        return request

    with datagram_client(server) as client:
        for number in range(3):
            client.send(b"%d" % number)
        server.wait_for(count=3)
        assert "sent" not in [event.kind for event in server.events]
        go_on.set()
        assert [client.recv(100) for _ in range(3)] == [b"0", b"1", b"2"]


@pytest.mark.parametrize("module", [standard, socketserver], ids=["standard", "ours"])
def test_a_handler_class_answers(server: DatagramTestServer, module: Any) -> None:
    class Upper(module.DatagramRequestHandler):
        def handle(self) -> None:
            self.wfile.write(self.rfile.read().upper())

    server.handler(Upper)

    assert asked(server, b"ping") == [b"PING"]
    assert [(event.kind, event.data) for event in server.events] == [("received", b"ping"), ("sent", b"PING")]


def test_a_handler_class_finds_the_data_and_a_socket_that_records(server: DatagramTestServer) -> None:
    class Echo(standard.BaseRequestHandler):
        def handle(self) -> None:
            data, sock = self.request
            assert type(data) is bytes
            sock.sendto(data, self.client_address)
            sock.sendto(b"again", 0, self.client_address)

    server.handler(Echo)

    assert asked(server, b"ping", 2) == [b"ping", b"again"]
    assert [event.data for event in server.events if event.kind == "sent"] == [b"ping", b"again"]


def test_a_request_is_recorded_before_its_reply(server: DatagramTestServer) -> None:
    """G1: whoever has the reply finds the request."""
    missing = []
    server.handler(lambda request: request)

    with datagram_client(server) as client:
        for number in range(300):
            client.send(b"x")
            client.recv(100)
            if len(server.requests) != number + 1:
                missing.append(number)

    assert missing == []


def test_a_request_knows_its_sender(udp_server: DatagramTestServer) -> None:
    with datagram_client(udp_server) as client:
        client.send(b"hi")
        request = udp_server.next_request()

        assert request.peer == client.getsockname()
        assert request.connection is None
        assert isinstance(request, Request)


def test_replies_leave_from_the_address_that_was_asked(sockserver: SockServer) -> None:
    """A connected client never sees what comes from another address."""
    server = sockserver.udp(host="0.0.0.0", allow_remote=True)
    server.handler(lambda request: request)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(PATIENCE)
        client.connect(("127.0.0.7", server.port))
        client.send(b"hi")
        assert client.recv(100) == b"hi"


# Sizes


def test_the_largest_udp_datagram_passes_both_ways(udp_server: DatagramTestServer) -> None:
    udp_server.handler(lambda request: request)

    assert asked(udp_server, b"x" * 65507) == [b"x" * 65507]


def test_a_large_unix_datagram_is_received_whole(unix_datagram_server: DatagramTestServer) -> None:
    """They may be larger than UDP's: 208 KiB by default (unix(7), SO_SNDBUF)."""
    with datagram_client(unix_datagram_server) as client:
        client.send(b"x" * 150_000)

        assert len(unix_datagram_server.wait_for()) == 150_000


def test_a_large_unix_datagram_is_sent_whole(unix_datagram_server: DatagramTestServer) -> None:
    with datagram_client(unix_datagram_server) as client:
        client.send(b"hi")
        unix_datagram_server.next_request().reply(b"x" * 150_000)

        assert len(client.recv(200_000)) == 150_000


def test_a_udp_datagram_that_is_too_large_is_refused(udp_server: DatagramTestServer) -> None:
    with datagram_client(udp_server) as client:
        client.send(b"hi")
        request = udp_server.next_request()

        with pytest.raises(ValueError) as raised:
            request.reply(b"x" * 65508)

        assert str(raised.value) == "a datagram of 65,508 bytes cannot be sent: UDP takes at most 65,507"
        request.reply(b"small")
        assert client.recv(100) == b"small"
    assert [event.kind for event in udp_server.events] == ["received", "sent"]


def test_a_unix_datagram_that_is_too_large_is_refused_and_not_recorded_as_sent(
    unix_datagram_server: DatagramTestServer,
) -> None:
    with datagram_client(unix_datagram_server) as client:
        client.send(b"hi")
        request = unix_datagram_server.next_request()

        with pytest.raises(ValueError) as raised:
            request.reply(b"x" * 5_000_000)

    assert str(raised.value) == "a datagram of 5,000,000 bytes cannot be sent: it is too large for this socket"
    assert [event.kind for event in unix_datagram_server.events] == ["received", "sent", "unsent"]


# What cannot be answered


def test_a_reply_to_a_sender_without_an_address_is_refused(unix_datagram_server: DatagramTestServer) -> None:
    with datagram_client(unix_datagram_server, bound=False) as client:
        client.send(b"hi")
        request = unix_datagram_server.next_request()

        with pytest.raises(ValueError) as raised:
            request.reply(b"a reply")

    assert request.peer is None
    assert str(raised.value) == (
        "the datagram b'a reply' cannot be sent: its client's socket is not bound to a path, so it has no address to "
        "answer to; return () for no reply"
    )


def test_a_handlers_reply_to_a_sender_without_an_address_is_its_failure(
    unix_datagram_server: DatagramTestServer,
) -> None:
    unix_datagram_server.handler(lambda request: b"a reply")

    with datagram_client(unix_datagram_server, bound=False) as client:
        client.send(b"hi")
        until(lambda: insides.failure_of(unix_datagram_server))

    with pytest.raises(ValueError, match="^the datagram b'a reply' cannot be sent: its client's socket is not bound"):
        unix_datagram_server.verify()


def test_a_client_that_is_gone_is_noted_and_no_failure(unix_datagram_server: DatagramTestServer) -> None:
    with datagram_client(unix_datagram_server) as client:
        client.send(b"hi")
        request = unix_datagram_server.next_request()

    request.reply(b"too late")

    kinds = [event.kind for event in unix_datagram_server.events]
    assert kinds == ["received", "sent", "unsent", "note"]
    assert unix_datagram_server.events[-1].data.decode().endswith(" is gone: Connection refused")


def test_a_client_that_does_not_read_has_a_deadline(sockserver: SockServer) -> None:
    server = sockserver.unix_datagram(timeout=0.2)
    with datagram_client(server) as client:
        client.send(b"hi")
        request = server.next_request()
        began = monotonic()

        with pytest.raises(DeadlineExceeded) as raised:
            request.reply(*[b"x" * 1000] * 1000)

        assert 0.2 <= monotonic() - began < 2
        name = client.getsockname().decode().replace("\0", "@")
    assert str(raised.value) == f"unix_datagram: {name} does not read: a datagram waited 0.2 s for room"


def test_a_reply_after_the_stop_names_the_state(server: DatagramTestServer) -> None:
    with datagram_client(server) as client:
        client.send(b"hi")
        request = server.next_request()
        server.stop()

        with pytest.raises(InvalidState):
            request.reply(b"too late")
    assert [event.kind for event in server.events] == ["received"]


def test_a_reply_in_text_is_refused(server: DatagramTestServer) -> None:
    with datagram_client(server) as client:
        client.send(b"hi")

        with pytest.raises(TypeError) as raised:
            server.next_request().reply("text")

    assert str(raised.value) == "reply() expected bytes, not the text 'text': write b'text', or encode it"


def test_a_request_made_by_hand_cannot_be_replied_to() -> None:
    with pytest.raises(ValueError, match="^this request cannot be replied to: it was not taken from a server$"):
        Request(b"hi").reply(b"ho")


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, "returned None: return the bytes of the reply, a list of replies, or () for no reply"),
        ("text", "expected bytes, not the text 'text': write b'text', or encode it"),
        (7, "returned 7: expected bytes, a list of parts, or () for no reply"),
        ([b"ok", 7], "expected bytes, not 7"),
    ],
)
def test_a_function_that_returns_no_replies_fails_by_name(
    server: DatagramTestServer, returned: Any, message: str
) -> None:
    @server.handler
    def answers(request: Request) -> Any:
        return returned

    with datagram_client(server) as client:
        client.send(b"hi")
        until(lambda: insides.failure_of(server))

    with pytest.raises(TypeError) as raised:
        server.verify()
    assert str(raised.value) == f"handler {answers.__qualname__} {message}"


def test_a_failing_handler_sends_nothing_and_goes_on_with_the_next(udp_server: DatagramTestServer) -> None:
    """G6: no text of an error ever reaches the client."""

    @udp_server.handler
    def fail_first(request: Request) -> bytes:
        if request == b"one":
            raise ValueError("boom")
        return b"reply"

    with datagram_client(udp_server) as client:
        peer = place(client)
        client.send(b"one")
        client.send(b"two")
        assert client.recv(100) == b"reply"
        client.settimeout(0.02)
        with pytest.raises(TimeoutError):
            client.recv(100)

    failure = insides.failure_of(udp_server)
    assert failure.where == f"udp_server, datagram from {peer}"
    with pytest.raises(ValueError, match="^boom$"):
        udp_server.verify()


# What is recorded


def test_peers_are_counted_in_the_order_they_appear(udp_server: DatagramTestServer) -> None:
    with datagram_client(udp_server) as first, datagram_client(udp_server) as second:
        for client in (first, second, first):
            client.send(b"x")
            udp_server.next_request()

    assert [event.connection for event in udp_server.events] == [0, 1, 0]


def test_a_datagram_server_has_no_connections(udp_server: DatagramTestServer) -> None:
    assert not hasattr(udp_server, "connections")
    assert not hasattr(udp_server, "accept")


def test_a_burst_is_recorded_whole(unix_datagram_server: DatagramTestServer) -> None:
    """On unix sockets none is ever dropped: the sender waits."""
    with datagram_client(unix_datagram_server, bound=False) as client:
        for number in range(2000):
            client.send(b"%d" % number)

    unix_datagram_server.wait_for(b"1999")
    assert unix_datagram_server.requests == [b"%d" % number for number in range(2000)]


def test_clients_of_another_process_are_heard(udp_server: DatagramTestServer) -> None:
    import subprocess
    import sys

    program = f"import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'hi', {udp_server.address!r})"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=PATIENCE)

    assert udp_server.wait_for(b"hi").peer[1] != os.getpid()


# An abstract sender


def test_a_client_with_an_abstract_name_is_answered(unix_datagram_server: DatagramTestServer) -> None:
    with datagram_client(unix_datagram_server) as client:
        assert client.getsockname().startswith(b"\0")
        client.send(b"hi")
        unix_datagram_server.next_request().reply(b"ho")

        assert client.recv(10) == b"ho"
