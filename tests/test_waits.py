"""The waits of a server: the past included, a deadline, woken by a failure and by the stop."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any

import pytest

from pytest_sockserver import (
    ANY,
    Connection,
    DatagramTestServer,
    DeadlineExceeded,
    InvalidState,
    ServerFailed,
    SockServer,
    StreamTestServer,
    UnexpectedRequest,
    UnmetExpectation,
)

from . import insides
from .peers import PATIENCE, connect, datagram_client, place, until

# Seconds.  A wait that somebody wakes takes a millisecond; one that nobody wakes takes the timeout, five seconds.
AT_ONCE = 2.0


def untimed(message: str) -> str:
    return re.sub(r"\[\d+\.\d{3}\] |after \d+\.\d{3} s", "", message)


def lines(conn: Connection) -> None:
    while True:
        conn.recv_line()


def wait_in_thread(server: Any, wait: Callable[[], Any]) -> Any:
    """Start a wait in a thread; return its future once it sleeps."""
    future = server.in_thread(wait)
    until(lambda: insides.waiting(server) or future.done())
    return future


@pytest.fixture
def speak(udp_server: DatagramTestServer) -> Any:
    """Send datagrams, and return when they are recorded."""
    with datagram_client(udp_server) as client:

        def say(*said: bytes) -> socket.socket:
            before = len(udp_server.requests)
            for data in said:
                client.send(data)
            until(lambda: len(udp_server.requests) == before + len(said))
            return client

        yield say


# wait_for


def test_a_wait_includes_the_past(udp_server: DatagramTestServer, speak: Any) -> None:
    speak(b"one", b"two")

    assert udp_server.wait_for(b"one") == b"one"
    assert udp_server.wait_for(b"one") == b"one"
    assert udp_server.wait_for() == b"one"


def test_a_wait_is_woken_by_what_comes(udp_server: DatagramTestServer, speak: Any) -> None:
    waiting = wait_in_thread(udp_server, lambda: udp_server.wait_for(b"two"))

    speak(b"one", b"two")

    assert waiting.result(AT_ONCE) == b"two"


def test_the_count_th_that_matches_is_returned(udp_server: DatagramTestServer, speak: Any) -> None:
    speak(b"a1", b"b1", b"a2", b"b2", b"a3")

    assert udp_server.wait_for(re.compile(rb"a\d"), 2) == b"a2"
    assert udp_server.wait_for(re.compile(rb"b\d"), count=2) == b"b2"
    assert udp_server.wait_for(count=5) == b"a3"


def test_a_count_includes_the_past_and_what_comes(udp_server: DatagramTestServer, speak: Any) -> None:
    speak(b"x")
    waiting = wait_in_thread(udp_server, lambda: udp_server.wait_for(b"x", 3))
    speak(b"x")
    assert not waiting.done()
    speak(b"x")

    assert waiting.result(AT_ONCE) == b"x"


def test_a_pattern_matches_the_whole_request_and_leaves_its_match(udp_server: DatagramTestServer, speak: Any) -> None:
    speak(b"hits:12|c|extra", b"hits:34|c")

    request = udp_server.wait_for(re.compile(rb"hits:(\d+)\|c"))

    assert request == b"hits:34|c"
    assert request.match is not None
    assert request.match[1] == b"34"
    assert udp_server.requests[1].match is None


def test_a_predicate_is_asked_once_for_each_request(udp_server: DatagramTestServer, speak: Any) -> None:
    asked = []

    def long(request: bytes) -> bool:
        asked.append(request)
        return len(request) > 3

    speak(b"one", b"two")
    waiting = wait_in_thread(udp_server, lambda: udp_server.wait_for(long))
    speak(b"three", b"four")

    assert waiting.result(AT_ONCE) == b"three"
    assert asked == [b"one", b"two", b"three"]


def test_an_error_of_a_predicate_is_the_callers(udp_server: DatagramTestServer, speak: Any) -> None:
    speak(b"one")

    with pytest.raises(ZeroDivisionError):
        udp_server.wait_for(lambda request: 1 / 0)
    udp_server.verify()


def test_a_wait_that_is_late_says_what_did_come(udp_server: DatagramTestServer, speak: Any) -> None:
    speak(b"PIGN", b"PING")

    with pytest.raises(DeadlineExceeded) as raised:
        udp_server.wait_for(b"PING", 2, timeout=0.05)

    assert untimed(str(raised.value)) == (
        "udp_server: wait_for() waited 0.05 s for b'PING' 2 times (1 so far)\n"
        "  the last of 2 requests so far: b'PING'\n    C: PIGN\n    C: PING"
    )
    assert isinstance(raised.value, TimeoutError)


def test_a_wait_for_a_stream_that_is_late_holds_its_conversation(tcp_server: StreamTestServer) -> None:
    tcp_server.handler(lines)
    with connect(tcp_server) as client:
        client.sendall(b"one\r\n")
        tcp_server.wait_for(b"one\r\n")

        with pytest.raises(DeadlineExceeded) as raised:
            tcp_server.wait_for(b"two\r\n", timeout=0.05)

        assert untimed(str(raised.value)) == (
            "tcp_server: wait_for() waited 0.05 s for b'two\\r\\n'\n"
            "  the request so far: b'one\\r\\n'\n"
            f"    == 0  from {place(client)}, still open\n"
            "    C: one"
        )


def test_a_wait_names_a_client_in_a_thread_that_has_failed(tcp_server: StreamTestServer) -> None:
    def fail() -> None:
        raise ValueError("no such option")

    future = tcp_server.in_thread(fail)
    until(future.done)

    with pytest.raises(DeadlineExceeded) as raised:
        tcp_server.accept(timeout=0.05)

    name = "test_a_wait_names_a_client_in_a_thread_that_has_failed.<locals>.fail"
    assert str(raised.value) == (
        "tcp_server: accept() waited 0.05 s, and nobody connected\n"
        f"  in_thread({name}) has raised ValueError: no such option\n"
        "    nobody has connected so far"
    )
    assert isinstance(future.exception(), ValueError)


def test_the_servers_timeout_is_that_of_its_waits(sockserver: SockServer) -> None:
    with pytest.raises(DeadlineExceeded) as raised:
        sockserver.udp(timeout=0.05).wait_for()

    assert str(raised.value) == "udp: wait_for() waited 0.05 s for ANY\n    no datagram has come so far"


def test_a_timeout_set_later_is_checked_as_well(udp_server: DatagramTestServer) -> None:
    udp_server.timeout = 0.05
    with pytest.raises(DeadlineExceeded, match=r"waited 0.05 s"):
        udp_server.wait_for()

    with pytest.raises(ValueError, match="^timeout must be above 0 seconds and finite, not -1$"):
        udp_server.timeout = -1


def test_a_live_stream_that_no_verb_reads_has_no_requests_to_wait_for(tcp_server: StreamTestServer) -> None:
    with connect(tcp_server) as client:
        client.sendall(b"PING")
        tcp_server.wait_connection().wait_received(b"PING")

        for verb, wait in {"wait_for": tcp_server.wait_for, "next_request": tcp_server.next_request}.items():
            with pytest.raises(TypeError) as raised:
                wait(b"PING", timeout=0.05)

            assert str(raised.value) == (
                f"{verb}() waits for requests, but connection 0 of tcp_server is a stream that is still open and that "
                "no verb reads: where its requests end cannot be told.  Wait for its bytes with "
                "server.connections[0].wait_received(...), or declare a handler"
            )
    assert tcp_server.wait_for(b"PING") == b"PING"


def test_a_handlers_failure_ends_a_wait_at_once(tcp_server: StreamTestServer) -> None:
    @tcp_server.handler
    def fail(conn: Connection) -> None:
        conn.recv_line()
        raise ValueError("boom")

    waiting = wait_in_thread(tcp_server, lambda: tcp_server.wait_for(b"never"))
    with connect(tcp_server) as client:
        client.sendall(b"hi\n")
        error = waiting.exception(AT_ONCE)

    assert isinstance(error, ServerFailed)
    assert str(error) == "wait_for() ended early, since the server's side failed: ValueError: boom"
    assert isinstance(error.__cause__, ValueError)
    with pytest.raises(ValueError, match="^boom$"):
        tcp_server.verify()


def test_what_is_there_already_is_returned_in_spite_of_a_failure(tcp_server: StreamTestServer) -> None:
    @tcp_server.handler
    def fail(conn: Connection) -> None:
        conn.recv_line()
        raise ValueError("boom")

    with connect(tcp_server) as client:
        client.sendall(b"hi\n")
        until(lambda: insides.failure_of(tcp_server))

        assert tcp_server.wait_for(b"hi\n") == b"hi\n"
        assert tcp_server.wait_connection().index == 0
    with pytest.raises(ValueError, match="^boom$"):
        tcp_server.verify()


@pytest.mark.parametrize("verb", ["wait_for", "next_request", "accept", "wait_connection"])
def test_the_stop_ends_a_wait_at_once(tcp_server: StreamTestServer, verb: str) -> None:
    waiting = wait_in_thread(tcp_server, getattr(tcp_server, verb))

    tcp_server.stop()

    with pytest.raises(InvalidState) as raised:
        waiting.result(AT_ONCE)
    assert str(raised.value) == f"{verb}() in state 'stopped': nothing more will come; expected 'started'"


def test_a_wait_on_a_server_that_never_started_says_so() -> None:
    with pytest.raises(InvalidState) as raised:
        StreamTestServer().accept()

    assert str(raised.value) == "accept() in state 'new': nothing more will come; expected 'started'"


def test_a_stopped_server_still_answers_about_the_past(udp_server: DatagramTestServer, speak: Any) -> None:
    speak(b"one")
    udp_server.stop()

    assert udp_server.wait_for(b"one") == b"one"
    assert udp_server.next_request(b"one") == b"one"


def test_clear_during_a_wait_lets_it_count_anew(udp_server: DatagramTestServer, speak: Any) -> None:
    speak(b"x", b"x")
    waiting = wait_in_thread(udp_server, lambda: udp_server.wait_for(b"x", 3))
    udp_server.clear()
    speak(b"x")
    assert not waiting.done()
    speak(b"x", b"x")

    assert waiting.result(AT_ONCE) == b"x"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda s: s.wait_for("PING"), TypeError, "expected bytes, not the text 'PING': write b'PING'"),
        (lambda s: s.next_request("PING"), TypeError, "expected bytes, not the text 'PING': write b'PING'"),
        (lambda s: s.wait_for(ANY, 0), ValueError, "wait_for() expected a count of at least 1, not 0"),
        (lambda s: s.wait_for(ANY, "2"), TypeError, "wait_for() expected a count of at least 1, not '2'"),
        (lambda s: s.wait_for(timeout=-1), ValueError, "timeout must be above 0 seconds, not -1"),
        (lambda s: s.next_request(timeout=0), ValueError, "timeout must be above 0 seconds, not 0"),
        (lambda s: s.accept(timeout="1"), TypeError, "timeout must be above 0 seconds, not '1'"),
        (lambda s: s.wait_connection(-1), ValueError, "wait_connection() expected an index from 0 on, not -1"),
        (lambda s: s.wait_connection(True), TypeError, "wait_connection() expected an index from 0 on, not True"),
        (lambda s: s.assert_no_traffic(0), ValueError, "assert_no_traffic() expected seconds above 0, not 0"),
        (lambda s: s.assert_no_traffic("1"), TypeError, "assert_no_traffic() expected seconds above 0, not '1'"),
        (lambda s: s.raises("ValueError").__enter__(), TypeError,
         "raises() expected an exception class, or a tuple of them, not 'ValueError'"),
        (lambda s: s.raises(()).__enter__(), TypeError,
         "raises() expected an exception class, or a tuple of them, not ()"),
        (
            lambda s: s.in_thread("client"),
            TypeError,
            "in_thread() expected a function, not 'client': pass the function and its arguments, in_thread(fn, arg)",
        ),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_refused_at_once(
    tcp_server: StreamTestServer, call: Callable[[Any], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as raised:
        call(tcp_server)

    assert str(raised.value) == message


# take


def test_next_request_returns_the_earliest_that_matches_once(udp_server: DatagramTestServer, speak: Any) -> None:
    speak(b"a1", b"b1", b"a2", b"b2")

    taken = [
        udp_server.next_request(b"b1"),
        udp_server.next_request(),
        udp_server.next_request(re.compile(rb"(b)\d")),
        udp_server.next_request(),
    ]

    assert taken == [b"b1", b"a1", b"b2", b"a2"]
    assert taken[2].match is not None
    assert udp_server.requests == [b"a1", b"b1", b"a2", b"b2"]
    with pytest.raises(DeadlineExceeded, match=r"next_request\(\) waited 0.02 s for ANY"):
        udp_server.next_request(timeout=0.02)


def test_each_request_is_taken_by_one_of_several_threads(udp_server: DatagramTestServer, speak: Any) -> None:
    takers = [udp_server.in_thread(udp_server.next_request) for _ in range(20)]

    speak(*[b"%d" % number for number in range(20)])

    assert sorted(int(each.result(PATIENCE)) for each in takers) == list(range(20))


def test_what_was_taken_can_be_answered(udp_server: DatagramTestServer, speak: Any) -> None:
    client = speak(b"hi")

    udp_server.next_request(b"hi").reply(b"one", b"two")

    assert [client.recv(10), client.recv(10)] == [b"one", b"two"]


# accept and wait_connection


def test_accept_gives_connections_in_the_order_of_arrival(tcp_server: StreamTestServer) -> None:
    with connect(tcp_server) as first, connect(tcp_server) as second:
        accepted = [tcp_server.accept(), tcp_server.accept()]

        assert [conn.peer for conn in accepted] == [first.getsockname(), second.getsockname()]
        assert tcp_server.connections == accepted


def test_accept_hands_over_what_was_read_ahead(tcp_server: StreamTestServer) -> None:
    with connect(tcp_server) as client:
        client.sendall(b"early\n")
        tcp_server.wait_connection().wait_received(b"early")

        assert tcp_server.accept().recv_line() == b"early\n"


def test_after_accept_nothing_is_read_unless_asked_for(tcp_server: StreamTestServer) -> None:
    with connect(tcp_server) as client:
        conn = tcp_server.accept()
        client.sendall(b"later")
        until(lambda: _peek(conn) == b"later")

        assert conn.received_count == 0
        assert conn.recv() == b"later"


def _peek(conn: Connection) -> bytes:
    try:
        return insides.kernel_socket(conn).recv(100, socket.MSG_PEEK)
    except BlockingIOError:
        return b""


def test_accept_of_a_connection_that_is_over_gives_what_it_said(tcp_server: StreamTestServer) -> None:
    with connect(tcp_server) as client:
        client.sendall(b"bye\n")
    tcp_server.wait_connection().wait_closed()

    conn = tcp_server.accept()

    assert conn.recv_line() == b"bye\n"
    conn.expect_eof()


def test_accept_is_woken_by_a_client(tcp_server: StreamTestServer) -> None:
    waiting = wait_in_thread(tcp_server, tcp_server.accept)

    with connect(tcp_server) as client:
        assert waiting.result(AT_ONCE).peer == client.getsockname()


def test_accept_beside_a_handler_is_refused(tcp_server: StreamTestServer) -> None:
    tcp_server.handler(lines)
    line = test_accept_beside_a_handler_is_refused.__code__.co_firstlineno + 1

    with pytest.raises(InvalidState) as raised:
        tcp_server.accept()

    assert str(raised.value) == (
        f"accept() is for servers with nothing declared: handler lines ({__file__}:{line}) "
        "takes the connections of tcp_server"
    )


def test_wait_connection_takes_nothing(tcp_server: StreamTestServer) -> None:
    with connect(tcp_server), connect(tcp_server):
        second = tcp_server.wait_connection(1)

        assert tcp_server.wait_connection(1) is second
        assert tcp_server.wait_connection() is tcp_server.connections[0]
        assert tcp_server.accept().index == 0


def test_wait_connection_that_is_late_counts_those_that_came(tcp_server: StreamTestServer) -> None:
    with connect(tcp_server) as client:
        tcp_server.wait_connection()

        with pytest.raises(DeadlineExceeded) as raised:
            tcp_server.wait_connection(2, timeout=0.05)

        assert str(raised.value) == (
            "tcp_server: wait_connection() waited 0.05 s for connection 2: there are 1\n"
            f"    == 0  from {place(client)}, still open\n"
            "    nothing was said so far"
        )


# wait_received and wait_closed


def test_wait_received_finds_bytes_over_the_borders_of_reads(tcp_server: StreamTestServer) -> None:
    with connect(tcp_server) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        conn = tcp_server.wait_connection()
        waiting = wait_in_thread(tcp_server, lambda: conn.wait_received(b"needle"))
        for number, letter in enumerate(b"hay needle"):
            assert not waiting.done()
            client.sendall(bytes([letter]))
            until(lambda want=number + 1: conn.received_count == want)

        assert waiting.result(AT_ONCE) is None


def test_wait_received_finds_bytes_that_look_like_tls_in_the_midst_of_a_stream(tcp_server: StreamTestServer) -> None:
    with connect(tcp_server) as client:
        conn = tcp_server.wait_connection()
        client.sendall(b"some bytes, ")
        conn.wait_received(b"some bytes, ")
        client.sendall(b"\x16\x03\x01\x00\x08\x01 and more")

        conn.wait_received(b"more", timeout=1)


def test_wait_received_takes_nothing(tcp_server: StreamTestServer) -> None:
    with connect(tcp_server) as client:
        conn = tcp_server.accept()
        client.sendall(b"one\ntwo\n")
        conn.wait_received(b"two")
        conn.wait_received(b"one")

        assert [conn.recv_line(), conn.recv_line()] == [b"one\n", b"two\n"]


def test_wait_received_that_is_late_holds_the_conversation(tcp_server: StreamTestServer) -> None:
    with connect(tcp_server) as client:
        client.sendall(b"PIGN\r\n")

        with pytest.raises(DeadlineExceeded) as raised:
            tcp_server.wait_connection().wait_received(b"PING", timeout=0.1)

        assert untimed(str(raised.value)) == (
            f"tcp_server, connection 0 ({place(client)}): wait_received() waited 0.1 s for b'PING'\n    C: PIGN"
        )


@pytest.mark.parametrize("declared", [True, False], ids=["handled", "undeclared"])
def test_wait_closed_returns_when_the_client_ends(tcp_server: StreamTestServer, declared: bool) -> None:
    if declared:
        tcp_server.handler(lines)
    client = connect(tcp_server)
    conn = tcp_server.wait_connection()
    waiting = wait_in_thread(tcp_server, conn.wait_closed)

    client.close()

    waiting.result(AT_ONCE)
    assert conn.closed_by == "client"


def test_wait_closed_that_is_late_says_so(tcp_server: StreamTestServer) -> None:
    with connect(tcp_server) as client:
        with pytest.raises(DeadlineExceeded) as raised:
            tcp_server.accept().wait_closed(timeout=0.05)

        assert str(raised.value) == (
            f"tcp_server, connection 0 ({place(client)}): wait_closed() waited 0.05 s: it is still open\n"
            "    nothing was said so far"
        )


# assert_no_traffic


def test_quiet_is_quiet(udp_server: DatagramTestServer) -> None:
    began = monotonic()
    udp_server.assert_no_traffic(0.05)

    assert 0.05 <= monotonic() - began < AT_ONCE


def test_quiet_does_not_mind_the_past(udp_server: DatagramTestServer, speak: Any) -> None:
    speak(b"one")

    udp_server.assert_no_traffic(0.05)


def test_quiet_counts_from_its_call_though_what_was_sent_before_is_still_in_the_kernel(
    udp_server: DatagramTestServer,
) -> None:
    """A datagram is in our kernel when send() has returned, and recorded a moment later."""
    noisy = []
    with datagram_client(udp_server) as client:
        for number in range(30):
            client.send(b"%d" % number)
            try:
                udp_server.assert_no_traffic(0.01)
            except UnexpectedRequest:
                noisy.append(number)

    assert noisy == []


@pytest.mark.parametrize("after", [0.01, 0.045])
def test_a_client_in_a_thread_is_not_waited_for(udp_server: DatagramTestServer, speak: Any, after: float) -> None:
    """What it sends after the call is what the call is about."""
    sending = threading.Event()

    def send_later() -> None:
        sending.wait(5)
        threading.Event().wait(after)
        speak(b"x")

    client = udp_server.in_thread(send_later)
    sending.set()
    with pytest.raises(UnexpectedRequest):
        udp_server.assert_no_traffic(1)
    client.result()


def test_a_datagram_is_not_quiet(udp_server: DatagramTestServer, speak: Any) -> None:
    waiting = wait_in_thread(udp_server, lambda: udp_server.assert_no_traffic(5))
    speak(b"noise")

    with pytest.raises(UnexpectedRequest) as raised:
        waiting.result(AT_ONCE)
    assert untimed(str(raised.value)) == (
        "udp_server: expected nothing for 5 s\n  got something \n    C: noise"
    )  # fmt: skip


def test_a_connection_is_not_quiet(tcp_server: StreamTestServer) -> None:
    waiting = wait_in_thread(tcp_server, lambda: tcp_server.assert_no_traffic(5))

    with connect(tcp_server), pytest.raises(UnexpectedRequest, match="expected nothing for 5 s"):
        waiting.result(AT_ONCE)


@pytest.mark.parametrize("taken", ["handled", "undeclared", "accepted"])
def test_a_byte_is_not_quiet(tcp_server: StreamTestServer, taken: str) -> None:
    if taken == "handled":
        tcp_server.handler(lines)
    with connect(tcp_server) as client:
        tcp_server.accept() if taken == "accepted" else tcp_server.wait_connection()
        waiting = wait_in_thread(tcp_server, lambda: tcp_server.assert_no_traffic(1))
        client.sendall(b"x\n")

        with pytest.raises(UnexpectedRequest, match="expected nothing for 1 s"):
            waiting.result(AT_ONCE)


def test_the_clients_end_is_quiet(tcp_server: StreamTestServer) -> None:
    client = connect(tcp_server)
    tcp_server.wait_connection()
    threading.Timer(0.02, client.close).start()

    tcp_server.assert_no_traffic(0.1)


# raises


def test_raises_waits_for_the_failure_and_takes_it_and_only_it(tcp_server: StreamTestServer) -> None:
    @tcp_server.handler
    def fail(conn: Connection) -> None:
        raise {b"v\n": ValueError, b"k\n": KeyError}[conn.recv_line()]("boom")

    with connect(tcp_server) as client, connect(tcp_server) as other:
        with tcp_server.raises(ValueError) as expected:
            other.sendall(b"k\n")
            client.sendall(b"v\n")

        assert isinstance(expected.failure.error, ValueError)
        until(lambda: insides.failure_of(tcp_server))
    with pytest.raises(KeyError):
        tcp_server.verify()


def test_raises_by_text_and_by_several_types(tcp_server: StreamTestServer) -> None:
    @tcp_server.handler
    def fail(conn: Connection) -> None:
        raise ValueError(conn.recv_line().decode().strip())

    for said, types, match in ((b"no 1\n", ValueError, r"no \d"), (b"no 2\n", (KeyError, ValueError), None)):
        with connect(tcp_server) as client, tcp_server.raises(types, match):
            client.sendall(said)


def test_raises_that_is_unmet_says_what_it_expected(sockserver: SockServer) -> None:
    server = sockserver.tcp(timeout=0.05)

    with pytest.raises(UnmetExpectation) as raised, server.raises((ValueError, KeyError), match="boom"):
        pass

    assert str(raised.value) == (
        "tcp: expected the server's side to raise ValueError or KeyError matching 'boom' within 0.05 s\n"
        "  it did not\n"
        "    nobody has connected so far"
    )
    assert isinstance(raised.value, AssertionError)


def test_raises_finds_what_would_have_ended_the_run(tcp_server: StreamTestServer) -> None:
    """It is another exception then, so that pytest does not take it for its own."""

    @tcp_server.handler
    def leave(conn: Connection) -> None:
        conn.recv_line()
        raise SystemExit(3)

    with connect(tcp_server) as client, tcp_server.raises(RuntimeError, match="^the handler raised SystemExit: 3$"):
        client.sendall(b"hi\n")


def test_an_error_in_the_block_of_raises_is_not_waited_for(tcp_server: StreamTestServer) -> None:
    began = monotonic()

    with pytest.raises(KeyError), tcp_server.raises(ValueError):
        raise KeyError("mine")

    assert monotonic() - began < AT_ONCE


# in_thread


def test_a_client_in_a_thread_returns_its_result(tcp_server: StreamTestServer) -> None:
    assert tcp_server.in_thread(divmod, 7, 2).result(PATIENCE) == (3, 1)


def test_an_exception_that_nobody_asked_for_is_a_failure(tcp_server: StreamTestServer) -> None:
    def fail() -> None:
        raise ValueError("boom")

    future = tcp_server.in_thread(fail)
    until(future.done)

    with pytest.raises(ValueError, match="^boom$"):
        tcp_server.verify()
    tcp_server.verify()


def test_an_exception_that_somebody_asked_for_is_his(tcp_server: StreamTestServer) -> None:
    future = tcp_server.in_thread(int, "seven")

    with pytest.raises(ValueError, match="invalid literal"):
        future.result(PATIENCE)
    tcp_server.verify()


# verify


def test_verify_waits_for_busy_handlers(tcp_server: StreamTestServer) -> None:
    go_on = threading.Event()

    @tcp_server.handler
    def fail(conn: Connection) -> None:
        conn.recv_line()
        go_on.wait(PATIENCE)
        raise ValueError("boom")

    with connect(tcp_server) as client:
        client.sendall(b"hi\n")
        threading.Timer(0.05, go_on.set).start()

        with pytest.raises(ValueError, match="^boom$"):
            tcp_server.verify()


def test_verify_raises_several_failures_as_a_group(tcp_server: StreamTestServer) -> None:
    @tcp_server.handler
    def fail(conn: Connection) -> None:
        raise ValueError(conn.recv_line().decode())

    with connect(tcp_server) as first, connect(tcp_server) as second:
        peers = place(first), place(second)
        first.sendall(b"one\n")
        until(lambda: len(insides.failures_kept(tcp_server)) == 1)
        second.sendall(b"two\n")

        with pytest.raises(Exception) as raised:
            tcp_server.verify()

    assert type(raised.value).__name__ == "ExceptionGroup"
    assert raised.value.args[0] == (
        f"2 failures on the server's side: tcp_server, connection 0 ({peers[0]}); tcp_server, connection 1 ({peers[1]})"
    )
    assert [str(each) for each in raised.value.args[1]] == ["one\n", "two\n"]


def test_verify_of_an_idle_server_takes_no_time(tcp_server: StreamTestServer) -> None:
    tcp_server.handler(lines)
    with connect(tcp_server) as client:
        client.sendall(b"half")
        tcp_server.wait_connection().wait_received(b"half")
        began = monotonic()

        tcp_server.verify()

        assert monotonic() - began < 0.5
        client.sendall(b" a line\n")


def test_a_verb_of_an_accepted_connection_is_ended_by_a_failure_elsewhere(tcp_server: StreamTestServer) -> None:
    with connect(tcp_server):
        conn = tcp_server.accept()
        tcp_server.on(b"A").reply(b"a")
        reading = tcp_server.in_thread(conn.recv_line)
        with connect(tcp_server) as other:
            other.sendall(b"B")
            with pytest.raises(
                ServerFailed, match="recv_line.. ended early, since the server's side failed: Unexpected"
            ):
                reading.result(1)
    with pytest.raises(UnexpectedRequest):
        tcp_server.verify()
