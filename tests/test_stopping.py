"""What a stop does to handlers: it wakes whatever they wait for, misses nothing, and names those that will not end.

Only that a stop is not delayed is asserted here, generously; how long it takes is the benchmarks' business.
"""

from __future__ import annotations

import contextlib
import select
import socket
import socketserver as standard
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import pytest

from pytest_sockserver import (
    Connection,
    DatagramTestServer,
    HandlerStuck,
    InvalidState,
    Request,
    ServerStopping,
    SockServer,
    socketserver,
)
from pytest_sockserver.connection.deadline import Deadline
from pytest_sockserver.errors.messages import format_seconds
from pytest_sockserver.originals import Thread
from pytest_sockserver.server import idle

from . import insides
from .peers import PATIENCE, connect, datagram_client, place, read_to_end, threads_of_servers, tls_contexts, until

# Seconds.  A stop takes a millisecond, and is late when it waits for anything: drains are bounded by a second.
AT_ONCE = 0.7

HALF_A_HELLO = bytes.fromhex("1603010200010001fc0303") + b"\0" * 20

Handler = Any


@pytest.fixture(params=["tcp", "unix"])
def server(request: pytest.FixtureRequest, sockserver: SockServer) -> Any:
    return getattr(sockserver, request.param)()


def stop_at_once(server: Any) -> None:
    """Stop, and assert that it took no time, ended every thread and failed nothing."""
    began = monotonic()
    server.stop()
    took = monotonic() - began

    assert took < AT_ONCE
    until(lambda: threads_of_servers() == [])
    server.verify()


# What a handler may be blocked in.  Each is given what its client has said before.


def in_recv(conn: Connection) -> None:
    conn.recv()


def in_recv_line(conn: Connection) -> None:
    conn.recv_line()


def in_recv_exactly(conn: Connection) -> None:
    conn.recv_exactly(1000)


def in_recv_all(conn: Connection) -> None:
    conn.recv_all()


def in_expect(conn: Connection) -> None:
    conn.expect(b"half a line\n")


def in_expect_line(conn: Connection) -> None:
    conn.expect_line(b"half a line")


def in_expect_eof(conn: Connection) -> None:
    conn.expect_eof()


def in_send(conn: Connection) -> None:
    while True:
        conn.send(b"x" * 100_000)


def in_start_tls(conn: Connection) -> None:
    conn.start_tls(tls_contexts()[0])


def in_recv_of_the_detached_socket(conn: Connection) -> None:
    with conn.detach() as sock:
        while sock.recv(1000):
            pass


class InReadlineOfOurs(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.rfile.readline()


class InReadlineOfTheStandardLibrarys(standard.StreamRequestHandler):
    def handle(self) -> None:
        self.rfile.readline()


class InReadlineWithATimeout(standard.StreamRequestHandler):
    timeout = 30

    def handle(self) -> None:
        self.rfile.readline()


class InRecv(standard.BaseRequestHandler):
    def handle(self) -> None:
        while self.request.recv(1000):
            pass


class InWrite(standard.StreamRequestHandler):
    def handle(self) -> None:
        while True:
            self.wfile.write(b"x" * 100_000)


class InHandshakeOfItsOwn(standard.BaseRequestHandler):
    def handle(self) -> None:
        with tls_contexts()[0].wrap_socket(self.request, server_side=True) as secured:
            secured.recv(1000)


BLOCKED: list[Handler] = [
    in_recv,
    in_recv_line,
    in_recv_exactly,
    in_recv_all,
    in_expect,
    in_expect_line,
    in_recv_of_the_detached_socket,
    InReadlineOfOurs,
    InReadlineOfTheStandardLibrarys,
    InReadlineWithATimeout,
    InRecv,
]


@pytest.mark.parametrize("handler", BLOCKED)
@pytest.mark.parametrize("said", [b"", b"half a line"], ids=["silent client", "half a line"])
def test_a_handler_that_waits_for_its_client_does_not_delay_the_stop(
    server: Any, handler: Handler, said: bytes
) -> None:
    server.handler(handler)
    with connect(server) as client:
        client.sendall(said)
        conn = server.wait_connection()
        # A detached socket still records; recv takes what it gets and ends.
        if handler is not in_recv or not said:
            until(lambda: conn.received_count == len(said) and insides.is_idle(server), "the handler waiting")

        stop_at_once(server)

        assert conn.received == said


def test_a_handler_that_expects_the_end_does_not_delay_the_stop(server: Any) -> None:
    server.handler(in_expect_eof)
    with connect(server):
        server.wait_connection()
        until(lambda: insides.is_idle(server))

        stop_at_once(server)


@pytest.mark.parametrize("handler", [in_send, InWrite])
def test_a_handler_that_sends_to_a_client_that_never_reads_does_not_delay_the_stop(
    server: Any, handler: Handler
) -> None:
    server.handler(handler)
    with connect(server):
        conn = server.wait_connection()
        until(lambda: conn.sent_count and insides.is_idle(server), "the handler waiting")

        stop_at_once(server)


@pytest.mark.parametrize("said", [b"", HALF_A_HELLO], ids=["silent client", "half a hello"])
def test_a_tls_handshake_that_does_not_come_to_its_end_does_not_delay_the_stop(server: Any, said: bytes) -> None:
    server.handler(in_start_tls)
    with connect(server) as client:
        client.sendall(said)
        conn = server.wait_connection()
        until(lambda: conn.tls is not None and insides.is_idle(server), "the handshake waiting")

        stop_at_once(server)

        assert conn.tls.error is None  # nothing is wrong with it


@pytest.mark.parametrize("said", [b"", HALF_A_HELLO], ids=["silent client", "half a hello"])
def test_a_handshake_of_the_users_own_does_not_delay_the_stop(server: Any, said: bytes) -> None:
    server.handler(InHandshakeOfItsOwn)
    with connect(server) as client:
        client.sendall(said)
        conn = server.wait_connection()
        until(lambda: insides.tape(conn).handed_over, "the socket wrapped")

        stop_at_once(server)


def test_a_tls_stream_of_the_users_own_does_not_delay_the_stop(server: Any) -> None:
    server.handler(InHandshakeOfItsOwn)
    with connect(server) as plain, tls_contexts()[1].wrap_socket(plain, server_hostname="localhost") as client:
        assert client.version() is not None

        stop_at_once(server)


def test_a_tls_stream_that_waits_for_its_client_does_not_delay_the_stop(server: Any) -> None:
    @server.handler
    def secure(conn: Connection) -> None:
        conn.start_tls(tls_contexts()[0])
        conn.recv_line()

    with connect(server) as plain, tls_contexts()[1].wrap_socket(plain, server_hostname="localhost"):
        conn = server.wait_connection()
        until(lambda: conn.tls.version and insides.is_idle(server), "the handler waiting")

        stop_at_once(server)


def test_fifty_connections_do_not_delay_the_stop(server: Any) -> None:
    server.handler(in_recv)
    handled = [connect(server) for _ in range(25)]
    server.wait_connection(24)
    server.clear()
    undeclared = [connect(server) for _ in range(25)]
    server.wait_connection(24)

    stop_at_once(server)

    for client in handled + undeclared:
        with client:
            assert client.recv(1) == b""


def test_a_tls_client_that_nobody_accepts_does_not_delay_the_stop_and_is_recorded(server: Any) -> None:
    with connect(server) as client:
        conn = server.wait_connection()
        client.sendall(HALF_A_HELLO)
        until(lambda: conn.received_count or server.events == [])

        stop_at_once(server)

    assert conn.received == HALF_A_HELLO


def test_connections_that_the_test_drives_do_not_delay_the_stop(server: Any) -> None:
    with connect(server) as first, connect(server) as second:
        accepted, detached = server.accept(), server.accept()
        given = detached.detach()

        stop_at_once(server)

        with given:
            assert first.recv(1) == b""
            assert second.recv(1) == b""
        with pytest.raises(ServerStopping, match="^the server stops$"):
            accepted.recv()


def test_a_test_that_reads_in_another_thread_is_woken_by_the_stop(server: Any) -> None:
    with connect(server):
        conn = server.accept()
        reading = server.in_thread(conn.recv)
        until(lambda: insides.is_read(conn))

        stop_at_once(server)

        with pytest.raises(ServerStopping, match="^the server stops$"):
            reading.result(PATIENCE)


# Datagrams


def test_a_datagram_reply_to_a_client_that_never_reads_does_not_delay_the_stop(sockserver: SockServer) -> None:
    """A unix datagram blocks its sender while the receiver's queue is full, unlike UDP, which drops it."""
    server = sockserver.unix_datagram()
    sending = threading.Event()

    @server.handler
    def flood(request: Request) -> tuple[()]:
        while True:
            request.reply(b"x" * 1000)
            sending.set()

    with datagram_client(server) as client:
        client.send(b"go")
        assert sending.wait(PATIENCE)
        counts: list[int] = []

        def full() -> bool:
            counts.append(sum(event.kind == "sent" for event in server.events))
            return len(counts) > 20 and counts[-1] == counts[-20]

        until(full, "the client's queue being full")

        began = monotonic()
        server.stop()

        assert monotonic() - began < AT_ONCE
    insides.take_failures(server)  # what the handler made of it is not the subject


# The end of a connection by others than its reader


def test_close_by_the_test_ends_a_handler_that_reads(server: Any) -> None:
    """A poll() in another thread keeps a closed socket open: its client would never read the end."""
    server.handler(in_recv_line)
    with connect(server) as client:
        conn = server.wait_connection()
        until(lambda: insides.is_idle(server))

        conn.close()

        client.settimeout(1)
        assert client.recv(1) == b""
        assert conn.closed_by == "server"
        stop_at_once(server)


def test_close_by_the_test_ends_a_connection_that_nobody_accepted(server: Any) -> None:
    with connect(server) as client:
        conn = server.wait_connection()
        until(lambda: insides.is_idle(server))

        conn.close()

        client.settimeout(1)
        assert client.recv(1) == b""
        stop_at_once(server)


def test_close_by_the_test_ends_its_own_reading_in_another_thread(server: Any) -> None:
    with connect(server) as client:
        conn = server.accept()
        reading = server.in_thread(conn.recv)
        until(lambda: insides.is_read(conn) and insides.is_idle(server))

        conn.close()

        client.settimeout(1)
        assert client.recv(1) == b""
        assert reading.exception(1) is not None


def test_reset_by_the_test_ends_a_handler_that_reads_and_is_not_its_failure(tcp_server: Any) -> None:
    tcp_server.handler(in_recv_line)
    with connect(tcp_server) as client:
        conn = tcp_server.wait_connection()
        until(lambda: insides.is_idle(tcp_server))

        conn.reset()

        with pytest.raises(ConnectionResetError):
            client.recv(1)
        stop_at_once(tcp_server)
    assert [event.kind for event in conn.events] == ["reset"]


# Nothing is missed


def send_and_go(server: Any, data: bytes) -> None:
    with connect(server) as client:
        client.sendall(data)


def lines_by_function(conn: Connection) -> None:
    while True:
        conn.recv_line()


class LinesByClass(standard.StreamRequestHandler):
    def handle(self) -> None:
        for _ in self.rfile:
            pass


@pytest.mark.parametrize("transport", ["tcp", "unix"])
@pytest.mark.parametrize("handler", [None, lines_by_function, LinesByClass], ids=["undeclared", "function", "class"])
def test_a_client_that_sends_and_ends_at_once_is_not_missed(
    sockserver: SockServer, transport: str, handler: Handler
) -> None:
    missed = []
    for number in range(200):
        server = getattr(sockserver, transport)()
        if handler is not None:
            server.handler(handler)

        send_and_go(server, b"%d\n" % number)
        server.stop()

        if server.requests != [b"%d\n" % number]:
            missed.append((number, server.requests))
    assert missed == []


@pytest.mark.parametrize("transport", ["udp", "unix_datagram"])
@pytest.mark.parametrize("handler", [None, lambda request: ()], ids=["undeclared", "function"])
def test_a_datagram_sent_just_before_the_stop_is_not_missed(
    sockserver: SockServer, transport: str, handler: Handler
) -> None:
    missed = []
    for number in range(200):
        server = getattr(sockserver, transport)()
        if handler is not None:
            server.handler(handler)

        with datagram_client(server, bound=False) as client:
            client.send(b"%d" % number)
        server.stop()

        if server.requests != [b"%d" % number]:
            missed.append((number, server.requests))
    assert missed == []


@pytest.mark.parametrize("handler", [None, LinesByClass], ids=["undeclared", "class"])
def test_what_a_client_said_that_stays_connected_is_a_request_once_the_server_has_stopped(
    server: Any, handler: Handler
) -> None:
    """All that a connection sent is one request once it has ended; the stop is an end as well."""
    if handler is not None:
        server.handler(handler)
    with connect(server) as client:
        client.sendall(b"a metric\n")
        server.stop()

    assert server.requests == [b"a metric\n"]


@pytest.mark.parametrize("transport", ["tcp", "unix"])
def test_what_has_arrived_is_handled_before_the_cut(sockserver: SockServer, transport: str) -> None:
    for _ in range(20):
        handled: list[Request] = []

        def read(conn: Connection, handled: list[Request] = handled) -> None:
            while True:
                handled.append(conn.recv_line())
                conn.send(b"ok\n")

        server = getattr(sockserver, transport)()
        server.handler(read)
        with connect(server) as client:
            client.sendall(b"line\n" * 10)  # few: on a busy machine a drain, which is bounded, gets little done

            server.stop()

            assert len(handled) == 10
            assert read_to_end(client) == b"ok\n" * 10


def test_a_handler_at_work_is_not_idle_though_its_socket_is_not_writable(
    sockserver: SockServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred small replies that the client does not read make poll() report that a unix socket is not writable."""
    handled: list[Request] = []
    at_work, looked = threading.Event(), threading.Event()

    def read(conn: Connection) -> None:
        while True:
            handled.append(conn.recv_line())
            if len(handled) == 101:
                at_work.set()
                looked.wait(PATIENCE)
            conn.send(b"ok\n")

    def look(tape: Any, quiet: Callable[[Any], bool] = idle.quiet) -> bool:
        is_quiet = quiet(tape)
        looked.set()
        return is_quiet

    server = sockserver.unix()
    server.handler(read)
    with connect(server) as client:
        client.sendall(b"line\n" * 110)
        assert at_work.wait(PATIENCE)
        if sys.platform == "linux":
            assert not select.select([], [insides.kernel_socket(server.connections[0])], [], 0)[1]
        monkeypatch.setattr(idle, "quiet", look)

        server.stop()

        assert len(handled) == 110
        assert read_to_end(client) == b"ok\n" * 110


def test_whoever_is_in_the_queue_is_accepted_before_the_stop(server: Any) -> None:
    clients = [connect(server) for _ in range(50)]

    server.stop()

    assert len(server.connections) == 50
    for client in clients:
        client.close()


def test_two_small_writes_after_some_rounds_are_not_missed(sockserver: SockServer) -> None:
    """The second waits in the client's kernel until the first is acknowledged (Nagle, delayed ACK)."""

    def answer(conn: Connection) -> None:
        while True:
            if conn.recv_line() == b"round\n":  # a reply would carry the acknowledgement
                conn.send(b"ok\n")

    for _ in range(20):
        server = sockserver.tcp()
        server.handler(answer)
        with connect(server) as client:
            for _ in range(5):
                client.sendall(b"round\n")
                client.recv(100)
            client.sendall(b"one\n")
            client.sendall(b"two\n")
            server.stop()

        assert server.requests[5:] == [b"one\n", b"two\n"]


# What a handler makes of the stop is no failure


@pytest.mark.parametrize("kind", [ValueError, ssl.SSLError, EOFError, pytest.fail.Exception])
def test_what_a_handler_makes_of_the_stop_is_noted_and_no_failure(server: Any, kind: type[Exception]) -> None:
    @server.handler
    def translate(conn: Connection) -> None:
        try:
            conn.recv_line()
        except ServerStopping:
            raise kind("lost the client") from None

    with connect(server):
        conn = server.wait_connection()
        stop_at_once(server)

    line = translate.__code__.co_firstlineno + 5
    said = "('lost the client',)" if kind is ssl.SSLError else "lost the client"
    assert [event.data.decode() for event in conn.events if event.kind == "note"] == [
        f"after the end: {kind.__name__}: test_stopping.py:{line}, {said}"
    ]


def test_an_error_of_a_handler_before_the_stop_is_its_failure(server: Any) -> None:
    @server.handler
    def fail(conn: Connection) -> None:
        conn.recv_line()
        raise ValueError("boom")

    with connect(server) as client:
        client.sendall(b"hi\n")
        server.stop()

    with pytest.raises(ValueError, match="^boom$"):
        server.verify()


def test_serverstopping_is_a_connection_error() -> None:
    """So that handlers which expect their client to go take the stop for that."""
    assert issubclass(ServerStopping, ConnectionError)


# What will not end


@pytest.fixture
def lock() -> Iterator[Any]:
    """A lock that is held until the test is over: whoever wants it is stuck, in a C function, as in time.sleep()."""
    held = threading.Lock()
    held.acquire()
    yield held
    held.release()
    until(lambda: threads_of_servers() == [])


def stopped_late(server: Any) -> str:
    began = monotonic()
    server.stop()
    took = monotonic() - began

    assert server.stop_timeout <= took < server.stop_timeout + 1
    with pytest.raises(HandlerStuck) as raised:
        server.verify()
    return str(raised.value)


def test_a_stuck_handler_is_named_with_its_thread_its_peer_and_its_line(sockserver: SockServer, lock: Any) -> None:
    server = sockserver.tcp(stop_timeout=0.2)

    @server.handler
    def hang(conn: Connection) -> None:
        lock.acquire()
        lock.release()

    with connect(server) as client:
        server.wait_connection()
        peer = place(client)

        message = stopped_late(server)

    line = hang.__code__.co_firstlineno + 2
    assert message == (
        f"a handler did not end within 0.2 s (stop_timeout): thread 'sockserver tcp 127.0.0.1:{server.port} #0' "
        f"for {peer} stands at test_stopping.py:{line}\n"
        f'  File "{__file__}", line {line}, in hang\n'
        f"    lock.acquire()\n"
        "Stopping a server ends what waits on its own sockets; anything else must end by itself: give it a timeout"
    )


def test_the_stuck_handlers_stack_begins_where_the_users_code_does(sockserver: SockServer, lock: Any) -> None:
    server = sockserver.tcp(stop_timeout=0.2)

    def wait_for_what_never_comes() -> None:
        lock.acquire()
        lock.release()

    class Hangs(standard.BaseRequestHandler):
        def handle(self) -> None:
            wait_for_what_never_comes()

    server.handler(Hangs)
    with connect(server):
        server.wait_connection()

        lines = stopped_late(server).splitlines()

    inner = wait_for_what_never_comes.__code__.co_firstlineno + 1
    assert lines[0].endswith(f" stands at test_stopping.py:{inner}")
    assert lines[-5:-1] == [
        f'  File "{__file__}", line {Hangs.handle.__code__.co_firstlineno + 1}, in handle',
        "    wait_for_what_never_comes()",
        f'  File "{__file__}", line {inner}, in wait_for_what_never_comes',
        "    lock.acquire()",
    ]


def test_a_handler_that_is_stuck_in_a_wait_of_ours_is_named_with_its_own_line(sockserver: SockServer) -> None:
    server, other = sockserver.tcp(stop_timeout=0.2), sockserver.udp(timeout=30)

    @server.handler
    def hang(conn: Connection) -> None:
        try:
            other.wait_for(b"what never comes")
        except InvalidState:
            pass  # it was stopped as well

    with connect(server):
        server.wait_connection()
        until(lambda: insides.waiting(other))

        message = stopped_late(server)

    line = hang.__code__.co_firstlineno + 3
    other.stop()
    until(lambda: threads_of_servers() == [])
    assert message.splitlines()[1:3] == [
        f'  File "{__file__}", line {line}, in hang',
        '    other.wait_for(b"what never comes")',
    ]


def test_a_stuck_handlers_client_is_cut_off_all_the_same(sockserver: SockServer, lock: Any) -> None:
    server = sockserver.tcp(stop_timeout=0.2)

    @server.handler
    def hang(conn: Connection) -> None:
        lock.acquire()
        lock.release()

    with connect(server) as client:
        server.wait_connection()
        stopped_late(server)

        assert client.recv(1) == b""


def test_a_stuck_datagram_handler_is_named_with_its_peer(sockserver: SockServer, lock: Any) -> None:
    server = sockserver.udp(stop_timeout=0.2)
    begun = threading.Event()

    @server.handler
    def hang(request: Request) -> tuple[()]:
        begun.set()
        lock.acquire()
        lock.release()
        return ()

    with datagram_client(server) as client:
        client.send(b"hi")
        assert begun.wait(PATIENCE)
        peer = place(client)

        message = stopped_late(server)

    line = hang.__code__.co_firstlineno + 3
    assert message.splitlines()[0] == (
        f"a handler did not end within 0.2 s (stop_timeout): thread 'sockserver udp 127.0.0.1:{server.port} answers' "
        f"for {peer} stands at test_stopping.py:{line}"
    )


def test_a_stuck_client_is_named(sockserver: SockServer, lock: Any) -> None:
    server = sockserver.tcp(stop_timeout=0.2)

    def hang() -> None:
        lock.acquire()
        lock.release()

    server.in_thread(hang)

    message = stopped_late(server)

    assert message.splitlines()[0] == (
        "a client run by in_thread() did not end within 0.2 s (stop_timeout): "
        f"thread 'sockserver tcp 127.0.0.1:{server.port} client' "
        f"stands at test_stopping.py:{hang.__code__.co_firstlineno + 1}"
    )


def test_several_stuck_handlers_share_one_deadline(sockserver: SockServer, lock: Any) -> None:
    server = sockserver.tcp(stop_timeout=0.3)

    @server.handler
    def hang(conn: Connection) -> None:
        lock.acquire()
        lock.release()

    clients = [connect(server) for _ in range(4)]
    server.wait_connection(3)

    began = monotonic()
    server.stop()
    took = monotonic() - began

    assert took < 1.3
    assert [type(each.error) for each in insides.take_failures(server)] == [HandlerStuck] * 4
    for client in clients:
        client.close()


def test_a_server_with_a_stuck_handler_starts_again(sockserver: SockServer, lock: Any) -> None:
    server = sockserver.tcp(stop_timeout=0.2)

    @server.handler
    def hang(conn: Connection) -> None:
        lock.acquire()
        lock.release()

    with connect(server):
        server.wait_connection()
        stopped_late(server)
    server.start()
    server.handler(lambda conn: conn.send(b"hi"))

    with connect(server) as client:
        assert read_to_end(client) == b"hi"
    server.stop()


def test_a_datagram_server_with_a_stuck_handler_starts_again(sockserver: SockServer, lock: Any) -> None:
    server: DatagramTestServer = sockserver.udp(stop_timeout=0.2)
    begun = threading.Event()

    @server.handler
    def hang(request: Request) -> tuple[()]:
        begun.set()
        lock.acquire()
        lock.release()
        return ()

    with datagram_client(server) as client:
        client.send(b"hi")
        assert begun.wait(PATIENCE)
    stopped_late(server)
    server.start()
    server.handler(lambda request: request.upper())

    with datagram_client(server) as client:
        client.send(b"hi")
        assert client.recv(10) == b"HI"
    server.stop()


# Urgencies of single threads


def test_a_thread_that_cannot_be_started_is_a_failure_and_delays_nothing(
    tcp_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tcp_server.handler(in_recv)
    start: Callable[[threading.Thread], None] = Thread.start

    def fail(thread: threading.Thread) -> None:
        if thread.name.endswith("#0"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(Thread, "start", fail)
    with contextlib.suppress(ConnectionResetError), connect(tcp_server) as client:
        client.recv(1)  # connect() may get the reset as well
    began = monotonic()
    tcp_server.stop()

    assert monotonic() - began < AT_ONCE
    with pytest.raises(RuntimeError, match="^can't start new thread$"):
        tcp_server.verify()


def test_a_descriptor_that_became_another_file_is_not_cut(server: Any) -> None:
    """A handler that wraps its socket by itself and closes it gives its number back to the system."""
    number = []

    class Wraps(standard.BaseRequestHandler):
        def handle(self) -> None:
            number.append(self.request.detach())

    server.handler(Wraps)
    with connect(server):
        until(lambda: number)
        socket.close(number[0])
        here, there = socket.socketpair()
        with here, there:
            until(lambda: insides.is_idle(server))
            server.stop()

            here.sendall(b"still connected")
            assert there.recv(100) == b"still connected"


# A handler that only computes


def test_is_running_is_false_from_the_moment_a_stop_begins_so_that_a_computing_handler_ends(
    sockserver: SockServer,
) -> None:
    """What it sends then still leaves, and is recorded."""
    server = sockserver.tcp()
    begun = threading.Event()

    @server.handler
    def compute(conn: Connection) -> None:
        begun.set()
        while server.is_running:
            pass
        conn.send(b"bye")

    with connect(server) as client:
        assert begun.wait(PATIENCE)
        began = monotonic()
        server.stop()
        took = monotonic() - began

        assert client.recv(10) == b"bye"
    assert took < 1
    assert server.connections[0].sent == b"bye"
    assert not server.is_running
    server.start()
    assert server.is_running


def test_what_a_computing_handler_raises_in_its_last_moments_is_a_failure(sockserver: SockServer) -> None:
    server = sockserver.tcp()
    begun = threading.Event()

    @server.handler
    def compute(conn: Connection) -> None:
        begun.set()
        while server.is_running:
            pass
        raise ValueError("in its last moments")

    with connect(server):
        assert begun.wait(PATIENCE)
        server.stop()

    with pytest.raises(ValueError, match="^in its last moments$"):
        server.verify()


def test_a_computing_datagram_handler_ends_with_its_server_and_still_answers(sockserver: SockServer) -> None:
    server = sockserver.udp()
    begun = threading.Event()

    @server.handler
    def compute(request: Request) -> bytes:
        begun.set()
        while server.is_running:
            pass
        return b"bye"

    with datagram_client(server) as client:
        client.send(b"hi")
        assert begun.wait(PATIENCE)
        server.stop()

        assert client.recv(10) == b"bye"


def test_a_client_in_a_thread_that_asks_is_running_ends_with_its_server(sockserver: SockServer) -> None:
    server = sockserver.unix()

    def poll() -> str:
        while server.is_running:
            pass
        return "ended"

    future = server.in_thread(poll)
    server.stop()

    assert future.result() == "ended"


def test_a_stop_is_bounded_by_its_own_timeout_and_not_by_that_of_the_verbs(sockserver: SockServer) -> None:
    server = sockserver.tcp(timeout=0.05)
    begun, go_on = threading.Event(), threading.Event()

    @server.handler
    def slow(conn: Connection) -> None:
        begun.set()
        go_on.wait(PATIENCE)

    with connect(server):
        assert begun.wait(PATIENCE)
        threading.Timer(0.5, go_on.set).start()
        server.stop()

    server.verify()
    with pytest.raises(ValueError, match="^stop_timeout must be above 0 seconds and finite, not 0$"):
        server.stop_timeout = 0


def test_a_thread_that_has_ended_is_not_taken_for_a_later_one_with_its_number() -> None:
    """The system gives numbers out again: a test that starts threads all the time has such ones at each stop."""
    ended, over, later = Thread(target=bool), threading.Event(), list[threading.Thread]()
    ended.start()
    ended.join()
    try:
        while ended.ident not in [each.ident for each in later] and len(later) < 100:
            later.append(threading.Thread(target=over.wait))
            later[-1].start()
        if later[-1].ident != ended.ident:
            pytest.skip("the system gives other numbers")

        assert idle.join([ended], monotonic() + 0.1) == []
    finally:
        over.set()
        for thread in later:
            thread.join()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(5.0, "5 s"), (0.25, "0.25 s"), (20.0, "20 s"), (1 / 3, "0.3333 s"), (3600, "3,600 s"), (0.00005, "0.00005 s")],
)
def test_seconds_are_numbers_that_one_can_read(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_a_deadline_that_was_shortened_says_why() -> None:
    assert str(Deadline(30, at_most=20.04, why="it is late")) == "20 s (not 30 s: it is late)"
