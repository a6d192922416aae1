"""Faults where they meet the rest: handlers that catch what they like, clients that come back at once, what is held."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any

import pytest

from pytest_sockserver import (
    ANY,
    CONNECT,
    DATA,
    HANDSHAKE,
    TLS,
    Close,
    Connection,
    Cut,
    DatagramTestServer,
    Delay,
    Drip,
    Gate,
    InvalidState,
    Request,
    Reset,
    Script,
    SendEof,
    SockServer,
    Stall,
    StartTLS,
    StreamTestServer,
    http1,
    lines,
)
from pytest_sockserver.faults import Alert, Corrupt, EndAfter, Hold, Jitter, ReadSlowly, Repeat, Split, Spoof
from pytest_sockserver.sweeps import breaks

from .peers import PATIENCE, connect, datagram_client, read_to_end, until


def seen_at_the_end(client: socket.socket) -> tuple[bytes, str]:
    """Return what comes, and how it ends."""
    came = b""
    try:
        while data := client.recv(65536):
            came += data
    except ConnectionResetError:
        return came, "reset"
    except TimeoutError:
        return came, "silence"
    return came, "end"


def ask(server: Any, data: bytes = b"x\n") -> tuple[bytes, str]:
    with connect(server) as client:
        client.sendall(data)
        return seen_at_the_end(client)


class Upper(socketserver.StreamRequestHandler):
    """A handler class that knows nothing of faults."""

    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line.upper())


# An injection that cannot be performed is a failure of the test, and no business of the handler's


def test_an_injection_that_fails_is_told_though_the_handler_catches_everything(tcp_server: StreamTestServer) -> None:
    @tcp_server.handler
    def careful(conn: Connection) -> None:
        conn.recv_line()
        try:
            conn.send(b"hello\n")
        except Exception as error:
            conn.send(str(error).encode())

    tcp_server.inject(Cut(DATA, 100))

    with tcp_server.raises(ValueError, match=r"^Cut\(\) was to say 100 bytes, and there were only 6$") as caught:
        assert ask(tcp_server) == (b"", "reset")

    assert caught.failure is not None


def test_a_function_of_an_injection_that_raises_says_nothing_to_the_client(tcp_server: StreamTestServer) -> None:
    class Careful(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(10)
            try:
                self.request.sendall(b"hello\n")
            except Exception as error:
                self.request.sendall(repr(error).encode())

    def broken(data: bytes) -> bytes:
        raise LookupError("nothing here")

    tcp_server.handler(Careful)
    tcp_server.inject(broken)

    with tcp_server.raises(LookupError, match="nothing here"):
        assert ask(tcp_server) == (b"", "reset")


def test_an_injection_of_datagrams_that_fails_is_told_as_well(udp_server: DatagramTestServer) -> None:
    udp_server.on(ANY).reply(b"abc")
    udp_server.inject(Cut(DATA, 100))

    with udp_server.raises(ValueError, match="there were only 3"), datagram_client(udp_server) as client:
        client.send(b"x")


# The listener


def test_a_client_that_comes_back_at_once_after_a_restart_is_served(tcp_server: StreamTestServer) -> None:
    @tcp_server.handler
    def echo(conn: Connection) -> None:
        while True:
            conn.send(conn.recv_line())

    def comes_back() -> None:
        with connect(tcp_server) as client:
            first.set()
            assert seen_at_the_end(client) == (b"", "end")
        with connect(tcp_server) as client:
            client.sendall(b"again\n")
            assert client.recv(10) == b"again\n"

    for _ in range(30):
        first = threading.Event()
        future = tcp_server.in_thread(comes_back)
        assert first.wait(PATIENCE)
        until(lambda: tcp_server.connections and tcp_server.connections[-1].closed_by is None)
        tcp_server.restart()
        future.result()


STEAL = """
import socket, sys
kind, port = (socket.SOCK_STREAM if sys.argv[1] == "tcp" else socket.SOCK_DGRAM), int(sys.argv[2])
thief = socket.socket(socket.AF_INET, kind)
thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
try:
    thief.bind(("127.0.0.1", port))
    if kind == socket.SOCK_STREAM: thief.listen()
    print("stolen")
except OSError as error:
    print(type(error).__name__)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the port is free while the server refuses")
@pytest.mark.parametrize("kind", ["tcp", "udp"])
@pytest.mark.parametrize("state", ["refusing", "listening again"])
def test_nobody_takes_the_port_of_a_server_that_refuses(sockserver: SockServer, kind: str, state: str) -> None:
    server = sockserver.tcp() if kind == "tcp" else sockserver.udp()
    server.on(ANY if kind == "udp" else b"x").reply(b"y")
    server.refuse()
    if state == "listening again":
        server.listen()

    thief = subprocess.run(
        [sys.executable, "-c", STEAL, kind, str(server.port)], capture_output=True, text=True, timeout=20, check=True
    )

    assert thief.stdout.split() == ["OSError"]
    server.listen()
    client = connect(server) if kind == "tcp" else datagram_client(server)
    with client:
        client.send(b"x")
        assert client.recv(10) == b"y"


def test_replies_under_way_when_a_datagram_server_refuses_are_lost_and_no_failure(
    udp_server: DatagramTestServer,
) -> None:
    udp_server.on(b"late").reply(Gate("now"), b"too late")
    udp_server.on(b"x").reply(b"y")

    with datagram_client(udp_server) as client:
        client.send(b"late")
        udp_server.wait_for(b"late")
        with udp_server.refuse():
            udp_server.open_gate("now")
            until(lambda: [each.kind for each in udp_server.events][-1] == "note")
            assert b"a reply of 8 bytes is lost: the server refuses" in udp_server.events[-1].data
        client.send(b"x")
        assert client.recv(10) == b"y"


def test_a_request_that_came_before_a_refusal_can_be_answered_after_it(udp_server: DatagramTestServer) -> None:
    with datagram_client(udp_server) as client:
        client.send(b"x")
        request = udp_server.next_request()
        with udp_server.refuse():
            pass
        request.reply(b"y")
        assert client.recv(10) == b"y"


def test_a_datagram_server_that_is_a_black_hole_answers_nothing_that_was_taken(udp_server: DatagramTestServer) -> None:
    with datagram_client(udp_server) as client:
        client.settimeout(0.05)
        udp_server.blackhole()
        client.send(b"x")
        udp_server.next_request().reply(b"y")
        with pytest.raises(TimeoutError):
            client.recv(10)
        udp_server.listen()
        client.send(b"z")
        udp_server.next_request(b"z").reply(b"y")
        assert client.recv(10) == b"y"


def test_who_is_refused_for_a_limit_takes_no_place(tcp_server: StreamTestServer) -> None:
    tcp_server.on(CONNECT).reply(b"welcome\n")
    tcp_server.limit_connections(1, b"busy\n", Gate("now"), Close())

    with connect(tcp_server) as first:
        assert first.recv(20) == b"welcome\n"
        refused = connect(tcp_server)
        assert refused.recv(20) == b"busy\n"
    tcp_server.connections[0].wait_closed()
    with connect(tcp_server) as next_one:
        assert next_one.recv(20) == b"welcome\n"
    tcp_server.open_gate("now")
    with refused:
        assert read_to_end(refused) == b""


# What is held


def test_what_a_handler_class_says_can_be_held(tcp_server: StreamTestServer) -> None:
    tcp_server.handler(Upper)
    tcp_server.inject(Hold(DATA), at=0)

    with connect(tcp_server) as client:
        client.sendall(b"a\nb\n")
        client.shutdown(socket.SHUT_WR)
        assert seen_at_the_end(client) == (b"B\nA\n", "end")


def test_what_was_held_meets_no_injection_again(tcp_server: StreamTestServer) -> None:
    @tcp_server.handler
    def echo(conn: Connection) -> None:
        while True:
            conn.send(conn.recv_line())

    tcp_server.inject(Hold(DATA), at=[0, 1])

    with connect(tcp_server) as client:
        client.sendall(b"a\nb\nc\n")
        client.shutdown(socket.SHUT_WR)
        assert seen_at_the_end(client) == (b"c\na\nb\n", "end")


def test_what_is_due_when_the_connection_ends_is_never_said_and_fails_nothing(tcp_server: StreamTestServer) -> None:
    tcp_server.on(b"a\n").reply(Hold(b"A"))
    tcp_server.on(b"b\n").reply(b"B", Close())

    assert ask(tcp_server, b"a\nb\n") == (b"B", "end")


def test_no_reply_lets_nothing_go(tcp_server: StreamTestServer) -> None:
    tcp_server.on(b"a\n").reply(Hold(b"A"))
    tcp_server.on(b"b\n").reply()
    tcp_server.on(b"c\n").reply(b"C", SendEof())

    with connect(tcp_server) as client:
        client.sendall(b"a\nb\n")
        tcp_server.wait_for(b"b\n")
        tcp_server.on(b"d\n").reply(b"D")
        client.sendall(b"d\n")
        assert client.recv(1) + client.recv(1) == b"DA"


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: Drip(Close(), 0.1),
            "Drip() expected something that is said, not Close(): write it beside, not within",
        ),
        (lambda: Hold(Stall()), "Hold() expected something that is said, not Stall(): write it beside, not within"),
        (
            lambda: Spoof(Hold(b"x")),
            "Spoof() cannot hold Hold(b'x'): write Hold(Spoof(...)), with Hold outermost",
        ),
        (lambda: Repeat(Repeat(b"x", None)), "Repeat() cannot hold what has no end: Repeat(b'x', times=None)"),
        (
            lambda: Hold(Drip(Repeat(b"x", None), 0)),
            "Hold() cannot hold what has no end: Drip(Repeat(b'x', times=None), 0)",
        ),
    ],
)
def test_what_a_modifier_cannot_hold_is_an_error_where_it_is_written(make: Callable[[], object], text: str) -> None:
    with pytest.raises(ValueError) as raised:
        make()

    assert str(raised.value) == text


def test_nothing_follows_what_has_no_end_however_it_is_modified(tcp_server: StreamTestServer) -> None:
    with pytest.raises(ValueError, match="would never be reached"):
        tcp_server.on(b"x").reply(Drip(Repeat(b"x", None), 1), b"never")


def test_a_function_that_returns_what_has_no_end_cannot_be_repeated(tcp_server: StreamTestServer) -> None:
    tcp_server.on(b"x\n").reply(Repeat(lambda request: Repeat(b"x" * 1_000_000, None)))

    with tcp_server.raises(ValueError, match="what has no end is said once"):
        assert ask(tcp_server)[1] == "reset"


# What is received


def test_the_last_optional_step_of_a_script_is_heard_in_pieces(tcp_server: StreamTestServer) -> None:
    tcp_server.inject(Split(DATA, 3), direction="received")
    tcp_server.script().expect(b"abcd").maybe(b"noop", b"ok").send(b"")

    with connect(tcp_server) as client:
        client.sendall(b"abcdnoop")
        assert client.recv(10) == b"ok"


def test_what_is_left_over_after_a_script_is_told_though_it_is_heard_in_pieces(tcp_server: StreamTestServer) -> None:
    tcp_server.inject(Split(DATA, 2, 5), direction="received")
    tcp_server.script().expect(b"abcd")

    with tcp_server.raises(AssertionError, match="expected the end of the stream"), connect(tcp_server) as client:
        client.sendall(b"abcdefgh")
        seen_at_the_end(client)


def test_faults_are_injected_into_bytes_that_came_before_the_handler_as_well(tcp_server: StreamTestServer) -> None:
    with connect(tcp_server) as client:
        client.sendall(b"abcd")
        tcp_server.wait_connection().wait_received(b"abcd")
        tcp_server.inject(Cut(DATA, 2), Close(), direction="received")
        heard = []

        @tcp_server.handler
        def listen(conn: Connection) -> None:
            heard.append(conn.recv())
            conn.recv()

        assert seen_at_the_end(client) == (b"", "end")

    assert heard == [b"ab"]


def test_a_fault_is_injected_into_what_a_server_with_nothing_declared_receives(tcp_server: StreamTestServer) -> None:
    limit = tcp_server.inject(Cut(DATA, 5), Reset(), direction="received")

    assert ask(tcp_server, b"0123456789") == (b"", "reset")
    assert limit.count == 1
    with pytest.raises(InvalidState, match=r"reads by itself what inject\(\) is to change"):
        tcp_server.accept()


def test_a_server_with_nothing_declared_reads_slowly(sockserver: SockServer) -> None:
    server = sockserver.tcp(rcvbuf=1)
    server.inject(ReadSlowly(1000, 0.01), DATA, direction="received")
    began = monotonic()

    with connect(server) as client:
        client.sendall(bytes(20_000))
        client.shutdown(socket.SHUT_WR)
        read_to_end(client)

    assert monotonic() - began >= 0.19
    assert server.requests == [bytes(20_000)]


@pytest.mark.parametrize("_", range(5))
def test_a_fault_is_injected_into_an_existing_connection_from_the_next_byte_on(
    tcp_server: StreamTestServer, _: int
) -> None:
    @tcp_server.handler
    def echo(conn: Connection) -> None:
        while True:
            conn.send(conn.recv())

    with connect(tcp_server) as client:
        client.sendall(b"abc")
        assert client.recv(10) == b"abc"
        tcp_server.inject(Corrupt(DATA, 0, 1), direction="received")
        client.sendall(b"abc")
        assert client.recv(10) == b"`bc"


# What is sent


def test_two_threads_that_write_on_one_connection_of_a_handler_class_take_turns(tcp_server: StreamTestServer) -> None:
    class Two(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            other = threading.Thread(target=self.request.sendall, args=(b"b" * 20,))
            other.start()
            self.request.sendall(b"a" * 20)
            other.join()

    tcp_server.handler(Two)
    drip = tcp_server.inject(Drip(DATA, 0.001))

    came, end = ask(tcp_server)

    assert came in (b"a" * 20 + b"b" * 20, b"b" * 20 + b"a" * 20)
    assert (end, drip.count) == ("end", 2)


def test_what_is_said_after_a_half_close_of_an_injection_is_dropped_whatever_stood_between(
    tcp_server: StreamTestServer,
) -> None:
    jitters = [Jitter(0, 0.001)] * 4

    @tcp_server.handler
    def talk(conn: Connection) -> None:
        conn.send(b"one")
        conn.send(b"two")
        assert conn.recv_all() == b"still here"

    tcp_server.inject(DATA, SendEof(), *jitters, times=1)

    with connect(tcp_server) as client:
        assert seen_at_the_end(client) == (b"one", "end")
        client.sendall(b"still here")
        client.shutdown(socket.SHUT_WR)
    tcp_server.connections[0].wait_closed()
    tcp_server.verify()
    assert tcp_server.connections[0].closed_by == "client"


def test_an_injection_that_stalls_a_datagram_stalls_the_rest_of_its_reply(udp_server: DatagramTestServer) -> None:
    udp_server.on(b"x").reply(b"one", b"two")
    udp_server.on(b"y").reply(b"three")
    udp_server.inject(Stall(), at=0)

    with datagram_client(udp_server) as client:
        client.send(b"x")
        client.send(b"y")
        assert client.recv(10) == b"three"


def test_a_stop_does_not_wait_for_what_has_no_end() -> None:
    with StreamTestServer() as server, connect(server) as client:
        server.on(b"x").reply(Repeat(b"y" * 1000, None))
        client.sendall(b"x")
        assert client.recv(1) == b"y"
        reader = server.in_thread(lambda: contextlib.suppress(OSError).__enter__() or seen_at_the_end(client))
        began = monotonic()
        server.stop()
        took = monotonic() - began
        reader.exception()

    assert took < 0.5  # the bound of handlers that are busy is 1


def test_time_limits_of_many_replies_share_one_thread(tcp_server: StreamTestServer) -> None:
    tcp_server.framing = lines(b"\n")
    tcp_server.on(ANY).reply(b"y\n", EndAfter(60))
    before = threading.active_count()

    with connect(tcp_server) as client:
        for _ in range(20):
            client.sendall(b"x\n")
            assert client.recv(10) == b"y\n"
        assert threading.active_count() <= before + 2  # the connection's own, and the clock


# TLS


def test_a_client_that_speaks_before_it_is_refused_reads_the_alert(sockserver: SockServer) -> None:
    server = sockserver.tls(tls=TLS(client_certificate="required"))
    server.framing = http1
    server.on(ANY).reply(b"HTTP/1.1 204 No Content\r\n\r\n")

    for _ in range(20):
        with (
            connect(server) as plain,
            server.client_context().wrap_socket(plain, server_hostname="localhost") as client,
        ):
            with pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"):
                client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                client.recv(100)


@pytest.mark.parametrize("_", range(10))
def test_plain_text_to_a_tls_server_is_a_failed_handshake_and_no_failure(tls_server: StreamTestServer, _: int) -> None:
    tls_server.on(b"hi\n").reply(b"x")

    with connect(tls_server) as client:
        client.sendall(b"hi\n")
        seen_at_the_end(client)

    tls_server.wait_connection().wait_closed()
    tls_server.verify()
    assert isinstance(tls_server.connections[0].tls.error, ssl.SSLError)


def begin(server: StreamTestServer) -> socket.socket:
    """Come to where the handshake begins."""
    client = connect(server)
    client.sendall(b"STARTTLS\n")
    assert client.recv(10) == b"go\n"
    return client


@pytest.mark.parametrize("how", ["rule", "script", "handler"])
def test_a_rule_answers_a_handshake_in_mid_stream(sockserver: SockServer, how: str) -> None:
    server = sockserver.tcp(tls=True)
    server.on(HANDSHAKE).reply(Alert("handshake_failure")).then(b"what?\n").then(StartTLS())
    if how == "rule":
        server.on(b"STARTTLS\n").reply(b"go\n", StartTLS())
        server.on(b"x\n").reply(b"y", Close())
    elif how == "script":
        server.script(times=None).expect(b"STARTTLS\n").send(b"go\n").start_tls().expect(b"x\n").send(b"y").close()
    else:

        @server.handler
        def secure(conn: Connection) -> None:
            conn.expect(b"STARTTLS\n")
            conn.send(b"go\n")
            conn.start_tls()
            conn.expect(b"x\n")
            conn.send(b"y")

    for text in ("HANDSHAKE_FAILURE", "WRONG_VERSION_NUMBER"):
        with begin(server) as plain, pytest.raises(ssl.SSLError, match=text):
            server.client_context().wrap_socket(plain, server_hostname="localhost")
    with begin(server) as plain, server.client_context().wrap_socket(plain, server_hostname="localhost") as client:
        client.sendall(b"x\n")
        assert seen_at_the_end(client) == (b"y", "end")  # type: ignore[arg-type]


def test_the_path_of_the_root_is_there_while_the_server_runs() -> None:
    server = StreamTestServer(transport="tls")

    for state in ("new", "stopped"):
        with pytest.raises(InvalidState) as raised:
            server.ca_path  # noqa: B018
        assert str(raised.value) == f"tls has no ca_path in state {state!r}: the file is there while it runs"
        server.start()
        server.stop()


# Sweeps


def test_what_a_client_says_after_a_half_close_is_no_mismatch(tcp_server: StreamTestServer) -> None:
    script = breaks(Script().expect(b"GET a\n").send(b"VAL x\n"), SendEof())[0].values[0]
    assert isinstance(script, Script)
    tcp_server.script().extend(script)

    with connect(tcp_server) as client:
        client.sendall(b"GET a\n")
        assert seen_at_the_end(client) == (b"", "end")


def test_a_reply_function_that_stops_its_datagram_server_is_no_failure(sockserver: SockServer) -> None:
    server = sockserver.udp()

    def stop(request: Request) -> bytes:
        server.stop()
        return b"never"

    server.on(ANY).reply(Delay(0), stop)
    with datagram_client(server) as client:
        client.send(b"x")
        until(lambda: not server.is_running)
    server.verify()
