"""The verbs of a connection that send and end, who may use them at once, and what is captured."""

from __future__ import annotations

import re
import socket
import threading
from typing import Any

import pytest

from pytest_sockserver import Connection, InvalidState, Request, SockServer, StreamTestServer

from . import insides
from .peers import (
    PATIENCE,
    Taken,
    Talk,
    connect,
    place,
    read_exactly,
    read_to_end,
    tls_contexts,
    until,
)


@pytest.fixture(params=["tcp", "unix"])
def server(request: pytest.FixtureRequest, sockserver: SockServer) -> StreamTestServer:
    return getattr(sockserver, request.param)()


@pytest.fixture
def talk(tcp_server: StreamTestServer) -> Any:
    with Talk(tcp_server) as talk:
        yield talk


# One reader, many writers


def test_a_second_reader_is_refused(talk: Talk, tcp_server: StreamTestServer) -> None:
    line = tcp_server.in_thread(talk.conn.recv_line)
    until(lambda: insides.is_read(talk.conn))

    with pytest.raises(InvalidState) as raised:
        talk.conn.recv()

    assert str(raised.value) == "cannot recv() on connection 0: another thread is reading it"
    talk.client_says(b"hi\n")
    assert line.result(PATIENCE) == b"hi\n"


def test_reading_a_connection_that_nobody_accepted_is_refused(sockserver: SockServer) -> None:
    """The server's own thread reads it; a test that read as well would wait without a deadline for what that took."""
    server = sockserver.tcp(timeout=0.3)
    with connect(server):
        conn = server.wait_connection()
        reading = server.in_thread(conn.recv_line)

        error = reading.exception(2)

    assert isinstance(error, InvalidState)


def test_sends_of_several_threads_are_not_mixed(server: StreamTestServer) -> None:
    with Taken(server) as (client, conn):
        size = 300_000
        sending = [server.in_thread(conn.send, letter * size) for letter in (b"a", b"b", b"c", b"d")]
        data = read_exactly(client, 4 * size)
        for each in sending:
            each.result(PATIENCE)

    assert len(re.findall(rb"a+|b+|c+|d+", data)) == 4


def test_the_test_may_push_while_a_handler_reads(server: StreamTestServer) -> None:
    server.handler(lambda conn: conn.send(b"reply to " + conn.recv_line()))
    with connect(server) as client:
        server.wait_connection().send(b"push\n")
        assert client.recv(100) == b"push\n"
        client.sendall(b"hi\n")
        assert read_to_end(client) == b"reply to hi\n"


def test_parts_leave_in_one_write(talk: Talk) -> None:
    talk.conn.send(b"one ", bytearray(b"two "), memoryview(b"three"))

    assert talk.client.recv(100) == b"one two three"
    assert [event.data for event in talk.conn.events if event.kind == "sent"] == [b"one two three"]


def test_a_request_is_answered_by_its_reply(talk: Talk) -> None:
    talk.client_says(b"hi\n")

    talk.conn.recv_line().reply(b"a", b"b")

    assert talk.client.recv(100) == b"ab"


def test_half_close_lets_the_client_go_on(talk: Talk) -> None:
    talk.conn.send(b"bye")
    talk.conn.send_eof()

    assert read_to_end(talk.client) == b"bye"
    talk.client_says(b"more\n")
    assert talk.conn.recv_line() == b"more\n"
    assert talk.conn.closed_by is None


# Ending


def test_close_lets_the_client_read_what_was_sent(server: StreamTestServer) -> None:
    with Taken(server) as (client, conn):
        conn.send(b"x" * 100_000)
        conn.close()

        assert read_to_end(client) == b"x" * 100_000
        assert conn.closed_by == "server"


def test_close_twice_is_close_once(talk: Talk) -> None:
    talk.conn.close()
    talk.conn.close()

    assert [event.kind for event in talk.conn.events] == ["close"]


def test_close_over_unread_input_is_no_reset(server: StreamTestServer) -> None:
    """Over unread input the kernel makes a close a reset, which destroys the reply on its way."""
    with Taken(server) as (client, conn):
        client.sendall(b"never read" * 1000)
        conn.send(b"reply")
        conn.close()

        assert read_to_end(client) == b"reply"


def test_a_handler_that_returns_closes_cleanly_over_unread_input(server: StreamTestServer) -> None:
    said = threading.Event()

    @server.handler
    def answer(conn: Connection) -> None:
        said.wait(PATIENCE)
        conn.send(b"reply")

    for _ in range(20):
        said.clear()
        with connect(server) as client:
            client.sendall(b"never read" * 1000)
            said.set()

            assert read_to_end(client) == b"reply"


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        (lambda conn: conn.recv(), "read connection 0"),
        (lambda conn: conn.send(b"x"), "send on connection 0"),
        (lambda conn: conn.send_eof(), "send_eof on connection 0"),
        (lambda conn: conn.detach(), "detach connection 0"),
        (lambda conn: conn.start_tls(tls_contexts()[0]), "start_tls on connection 0"),
    ],
)
def test_a_verb_on_a_closed_connection_says_who_closed_it(talk: Talk, verb: Any, words: str) -> None:
    talk.conn.close()

    with pytest.raises(InvalidState) as raised:
        verb(talk.conn)

    assert str(raised.value) == f"cannot {words}: it is closed (by the server)"


def test_reset_is_a_reset_after_what_was_sent(talk: Talk) -> None:
    talk.conn.send(b"half a repl")
    talk.conn.reset()

    assert talk.client.recv(100) == b"half a repl"
    with pytest.raises(ConnectionResetError):
        talk.client.recv(1)
    assert talk.conn.closed_by == "server"
    assert repr(talk.conn) == f"<Connection 0 from {place(talk.client)}, reset by the server>"


def test_reset_of_a_unix_stream_is_refused(unix_server: StreamTestServer) -> None:
    with Taken(unix_server) as (client, conn):
        with pytest.raises(ValueError) as raised:
            conn.reset()

        assert str(raised.value) == (
            "a unix stream cannot be reset: its client would see a plain end of stream; use close()"
        )
        conn.send(b"still open")
        assert client.recv(100) == b"still open"


def test_a_failing_handler_resets_its_client(tcp_server: StreamTestServer) -> None:
    @tcp_server.handler
    def fail(conn: Connection) -> None:
        conn.recv_line()
        raise ValueError("boom")

    with connect(tcp_server) as client:
        client.sendall(b"hi\nunread")
        with pytest.raises(ConnectionResetError):
            client.recv(1)

    with pytest.raises(ValueError, match="^boom$"):
        tcp_server.verify()


def test_a_failing_handler_ends_a_unix_client_plainly(unix_server: StreamTestServer) -> None:
    """A unix client reads ECONNRESET if there was unread input: whether it does would be a race."""
    read, go_on = [], threading.Event()

    @unix_server.handler
    def fail(conn: Connection) -> None:
        go_on.wait(PATIENCE)
        raise ValueError("boom")

    for _ in range(20):
        go_on.clear()
        with connect(unix_server) as client:
            client.sendall(b"never read")
            go_on.set()
            until(lambda: len(unix_server.connections) > len(read) and insides.is_done(unix_server.connections[-1]))
            try:
                read.append(client.recv(1))
            except ConnectionResetError as error:
                read.append(error)

    insides.take_failures(unix_server)
    assert read == [b""] * 20
    assert [event.data for event in unix_server.connections[0].events if event.data and event.kind == "note"][-1] == (
        b"a unix stream cannot be reset: the client sees a plain end of stream"
    )


def test_no_text_of_an_error_ever_reaches_the_client(server: StreamTestServer) -> None:
    """G6: the wire is the server's alone."""
    received = []

    @server.handler
    def fail(conn: Connection) -> None:
        conn.send(b"half a re")
        conn.recv_line()
        conn.expect(b"SECRET-EXPECTATION")

    for data in (b"one\ntwo\n", b"one\n", b"half"):
        with connect(server) as client:
            client.sendall(data)
            chunks = []
            try:
                client.shutdown(socket.SHUT_WR)
                while chunk := client.recv(65536):
                    chunks.append(chunk)
            except OSError:
                pass  # ENOTCONN: reset before the shutdown
            received.append(b"".join(chunks))

    assert len(insides.take_failures(server)) == 3
    assert [each for each in received if each not in (b"half a re", b"")] == []


# detach


def test_detach_gives_a_blocking_socket_that_records(server: StreamTestServer) -> None:
    with Taken(server) as (client, conn):
        client.sendall(b"one\n")
        assert conn.recv_line() == b"one\n"

        with conn.detach() as sock:
            assert sock.gettimeout() is None
            client.sendall(b"two\n")
            assert sock.recv(100) == b"two\n"
            sock.sendall(b"three\n")

        assert read_to_end(client) == b"three\n"
    assert (conn.received, conn.sent) == (b"one\ntwo\n", b"three\n")
    with pytest.raises(InvalidState, match="^cannot send on connection 0: it was detached$"):
        conn.send(b"x")


def test_detach_hands_on_the_bytes_that_a_verb_has_left(talk: Talk) -> None:
    talk.client_says(b"one\ntwo\n")
    talk.conn.recv_line()

    with talk.conn.detach() as sock:
        assert sock.recv(100) == b"two\n"
        with pytest.raises(InvalidState, match="it was detached"):
            talk.conn.recv()


# What is captured


def test_a_request_is_bytes_in_every_way(talk: Talk) -> None:
    import pickle

    talk.client_says(b"hi\n")

    request = talk.conn.recv_line()

    assert isinstance(request, Request)
    assert request == b"hi\n"
    assert hash(request) == hash(b"hi\n")
    assert repr(request) == "b'hi\\n'"
    assert pickle.loads(pickle.dumps(request)) == b"hi\n"
    assert type(pickle.loads(pickle.dumps(request))) is bytes
    assert (request.connection, request.peer, request.match, request.rule) == (
        talk.conn,
        talk.client.getsockname(),
        None,
        None,
    )
    assert 0 <= request.time < 60


def test_both_directions_are_captured_and_counted(talk: Talk) -> None:
    talk.client_says(b"one\n")
    talk.conn.recv_line().reply(b"two\n")
    talk.client_says(b"three")
    talk.conn.wait_received(b"three")

    assert (talk.conn.received, talk.conn.sent) == (b"one\nthree", b"two\n")
    assert (talk.conn.received_count, talk.conn.sent_count) == (9, 4)
    assert talk.conn.requests == [b"one\n"]


def test_the_state_is_the_users_own(talk: Talk) -> None:
    talk.conn.state.logged_in = True

    assert vars(talk.conn.state) == {"logged_in": True}


def test_a_request_is_recorded_before_any_byte_of_its_reply(tcp_server: StreamTestServer) -> None:
    """G1: whoever has the reply finds the request."""
    missing = []

    @tcp_server.handler
    def answer(conn: Connection) -> None:
        while True:
            conn.send(b"re: " + conn.recv_line())

    with connect(tcp_server) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(300):
            client.sendall(b"%d\n" % number)
            client.recv(100)
            if len(tcp_server.requests) != number + 1:
                missing.append(number)

    assert missing == []


def test_a_reply_is_recorded_before_the_client_has_it(tcp_server: StreamTestServer) -> None:
    missing = []

    @tcp_server.handler
    def answer(conn: Connection) -> None:
        while True:
            conn.send(conn.recv_line())

    with connect(tcp_server) as client:
        for number in range(300):
            client.sendall(b"x\n")
            client.recv(100)
            if tcp_server.connections[0].sent_count != 2 * (number + 1):
                missing.append(number)

    assert missing == []


def test_the_end_is_recorded_before_the_client_can_see_it(server: StreamTestServer) -> None:
    server.handler(lambda conn: None)
    for number in range(100):
        with connect(server) as client:
            assert client.recv(1) == b""

            assert server.connections[number].closed_by == "server"
