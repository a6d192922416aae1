"""What may answer: functions, classes of ours and of the standard library; and what is refused where it is declared."""

from __future__ import annotations

import contextlib
import functools
import http.client
import http.server
import socket
import socketserver as standard
import threading
import xmlrpc.client
import xmlrpc.server
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest

from pytest_sockserver import (
    Connection,
    DatagramTestServer,
    Request,
    SockServer,
    StreamTestServer,
    socketserver,
)

from . import insides
from .peers import PATIENCE, connect, connect_to, datagram_client, read_to_end, until


@pytest.fixture(params=["tcp", "unix"])
def server(request: pytest.FixtureRequest, sockserver: SockServer) -> StreamTestServer:
    return getattr(sockserver, request.param)()


def asked(server: StreamTestServer, data: bytes) -> bytes:
    """Say something, end, and return the whole reply."""
    with connect(server) as client:
        with contextlib.suppress(OSError):  # a server that asks for nothing may have closed already
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
        return read_to_end(client)


# Functions


def test_a_function_is_called_for_each_connection_in_a_thread_of_its_own(server: StreamTestServer) -> None:
    threads = []
    together = threading.Barrier(3)

    @server.handler
    def meet(conn: Connection) -> None:
        threads.append(threading.current_thread().name)
        together.wait(PATIENCE)
        conn.send(b"met")

    clients = [connect(server) for _ in range(3)]

    assert [read_to_end(client) for client in clients] == [b"met"] * 3
    assert sorted(threads) == [f"sockserver {insides.label(server)} #{number}" for number in range(3)]
    for client in clients:
        client.close()


def test_the_decorator_leaves_the_function_as_it_was(server: StreamTestServer) -> None:
    def greet(conn: Connection) -> None:
        conn.send(b"hi")

    assert server.handler(greet) is greet


def test_the_latest_declared_takes_new_connections(server: StreamTestServer) -> None:
    server.handler(lambda conn: conn.send(b"first " + conn.recv_all()))
    with connect(server) as early:
        server.wait_connection()
        server.handler(lambda conn: conn.send(b"second"))

        assert asked(server, b"") == b"second"
        early.shutdown(socket.SHUT_WR)
        assert read_to_end(early) == b"first "


def test_a_connection_that_was_waited_for_has_the_handler_of_its_time(
    server: StreamTestServer,
) -> None:
    """It is listed in the same step in which it is given to what is declared."""
    listed = threading.Event()

    def pause() -> None:
        listed.set()
        threading.Event().wait(0.1)  # for which the other thread would have time

    insides.before_deciding(server, pause)
    server.handler(lambda conn: conn.send(b"first"))
    with connect(server) as early:
        assert listed.wait(PATIENCE)
        server.wait_connection()
        server.handler(lambda conn: conn.send(b"second"))

        assert read_to_end(early) == b"first"


def with_default(conn: Connection, greeting: bytes = b"hi") -> None:
    conn.send(greeting)


def with_any(*args: Any, **kwargs: Any) -> None:
    args[0].send(b"hi")


class Callable_:
    def __call__(self, conn: Connection) -> None:
        conn.send(b"hi")

    def method(self, conn: Connection) -> None:
        conn.send(b"hi")

    @classmethod
    def of_class(cls, conn: Connection) -> None:
        conn.send(b"hi")


@pytest.mark.parametrize(
    "handler",
    [
        with_default,
        with_any,
        Callable_(),
        Callable_().method,
        Callable_.of_class,
        functools.partial(with_default, greeting=b"hi"),
        lambda conn: conn.send(b"hi"),
    ],
)
def test_whatever_can_be_called_with_a_connection_is_a_handler(server: StreamTestServer, handler: Any) -> None:
    server.handler(handler)

    assert asked(server, b"") == b"hi"


def test_a_mock_is_a_handler(server: StreamTestServer) -> None:
    handler = mock.Mock(return_value=None)
    server.handler(handler)

    assert asked(server, b"") == b""

    handler.assert_called_once_with(server.connections[0])


def test_a_function_that_returns_something_is_a_failure(tcp_server: StreamTestServer) -> None:
    """As often as not it forgot to send it."""

    @tcp_server.handler
    def forgetful(conn: Connection) -> bytes:
        conn.recv_line()
        return b"reply"

    with pytest.raises(ConnectionResetError), connect(tcp_server) as client:
        client.sendall(b"hi\n")
        client.recv(1)

    with pytest.raises(TypeError) as raised:
        tcp_server.verify()
    assert str(raised.value) == (
        f"handler {forgetful.__qualname__} returned b'reply': expected None, what is to be said goes to conn.send()"
    )


# What is refused


async def asynchronous(conn: Any) -> None: ...


def generator(conn: Any) -> Iterator[bytes]:
    yield b""


async def asynchronous_generator(conn: Any) -> Any:
    yield b""


def without_parameter() -> None: ...


def with_two(conn: Any, other: Any) -> None: ...


def with_keyword(conn: Any, *, other: Any) -> None: ...


class NoHandler:
    def __init__(self, request: Any, client_address: Any, server: Any) -> None: ...


class NeedsMore(standard.BaseRequestHandler):
    def __init__(self, request: Any, client_address: Any, server: Any, more: Any) -> None: ...


class AsyncHandle(standard.BaseRequestHandler):
    async def handle(self) -> None: ...  # type: ignore[override]


class GeneratorHandle(standard.BaseRequestHandler):
    def handle(self) -> Any:
        yield


class AsyncCall:
    async def __call__(self, conn: Any) -> None: ...


REFUSED: list[tuple[Any, str]] = [
    (7, "a handler must be a function of a Connection or a BaseRequestHandler subclass, not 7"),
    (None, "a handler must be a function of a Connection or a BaseRequestHandler subclass, not None"),
    (b"reply", "a handler must be a function of a Connection or a BaseRequestHandler subclass, not b'reply'"),
    (asynchronous, "handler asynchronous is async: it runs in a thread of its own; write it as a plain def"),
    (generator, "handler generator is a generator: calling it would run none of it; remove the yield"),
    (asynchronous_generator,
     "handler asynchronous_generator is a generator: calling it would run none of it; remove the yield"),
    (without_parameter,
     "handler without_parameter() -> 'None' cannot be called with a Connection: too many positional arguments; "
     "expected a function of a Connection"),
    (with_two,
     "handler with_two(conn: 'Any', other: 'Any') -> 'None' cannot be called with a Connection: missing a required "
     "argument: 'other'; expected a function of a Connection"),
    (with_keyword,
     "handler with_keyword(conn: 'Any', *, other: 'Any') -> 'None' cannot be called with a Connection: missing a "
     "required keyword-only argument: 'other'; expected a function of a Connection"),
    (NoHandler,
     "handler class NoHandler has no handle(): expected a BaseRequestHandler subclass, or a function of a Connection"),
    (NeedsMore,
     "handler class NeedsMore cannot be called with request, client_address, server: missing a required argument: "
     "'more'"),
]  # fmt: skip


@pytest.mark.parametrize(("handler", "message"), REFUSED, ids=lambda value: getattr(value, "__name__", None))
def test_a_handler_of_the_wrong_kind_or_arity_is_refused_where_it_is_declared(
    tcp_server: StreamTestServer, handler: Any, message: str
) -> None:
    with pytest.raises(TypeError) as raised:
        tcp_server.handler(handler)

    said = str(raised.value).replace("required keyword-only argument", "required argument")  # until 3.11
    assert said == message.replace("required keyword-only argument", "required argument")
    assert raised.traceback[-1].frame.code.path.name != __file__
    assert not insides.has_handler(tcp_server)


@pytest.mark.parametrize(
    ("handler", "words"),
    [(AsyncHandle, "is async"), (AsyncCall(), "is async"), (functools.partial(asynchronous), "is async"),
     (GeneratorHandle, "is a generator")],
    ids=["async handle", "async call", "partial of async", "generator handle"],
)  # fmt: skip
def test_a_handler_that_calling_would_not_run_is_refused_however_it_is_wrapped(
    tcp_server: StreamTestServer, handler: Any, words: str
) -> None:
    with pytest.raises(TypeError, match=words):
        tcp_server.handler(handler)


def test_a_datagram_handler_of_the_wrong_arity_is_refused_by_name(udp_server: DatagramTestServer) -> None:
    with pytest.raises(TypeError) as raised:
        udp_server.handler(without_parameter)

    assert str(raised.value) == (
        "handler without_parameter() -> 'None' cannot be called with a Request: too many positional arguments; "
        "expected a function of a Request"
    )


# Classes


@pytest.mark.parametrize("module", [standard, socketserver], ids=["standard", "ours"])
def test_a_class_handles_on_the_raw_socket_and_is_recorded(server: StreamTestServer, module: Any) -> None:
    class Upper(module.StreamRequestHandler):
        def handle(self) -> None:
            for line in self.rfile:
                self.wfile.write(line.upper())

    server.handler(Upper)

    assert asked(server, b"one\ntwo\n") == b"ONE\nTWO\n"
    conn = server.wait_connection()
    assert server.wait_for(b"one\ntwo\n").connection is conn
    assert server.requests == [b"one\ntwo\n"]
    assert (conn.received, conn.sent) == (b"one\ntwo\n", b"ONE\nTWO\n")


def test_a_class_is_given_what_socketserver_gives(server: StreamTestServer) -> None:
    given = []

    class Looks(standard.BaseRequestHandler):
        def handle(self) -> None:
            given.append((self.request, self.client_address, self.server))

    server.handler(Looks)
    asked(server, b"")
    until(lambda: given)
    request, client_address, given_server = given[0]

    assert isinstance(request, socket.socket)
    assert client_address == server.connections[0].peer
    assert isinstance(given_server, socketserver.BaseServer)
    assert given_server.server_address == server.address


def test_the_phases_of_a_class_are_called_in_order(server: StreamTestServer) -> None:
    called = []

    class Phases(socketserver.BaseRequestHandler):
        def setup(self) -> None:
            called.append("setup")

        def handle(self) -> None:
            called.append("handle")

        def finish(self) -> None:
            called.append("finish")

    server.handler(Phases)
    asked(server, b"")

    assert called == ["setup", "handle", "finish"]


def test_a_class_that_sends_by_every_way_there_is_is_recorded_once(server: StreamTestServer, tmp_path: Any) -> None:
    (tmp_path / "file").write_bytes(b"file")

    class Sends(standard.StreamRequestHandler):
        def handle(self) -> None:
            self.request.send(b"send ")
            self.request.sendall(b"sendall ")
            self.request.sendmsg([b"send", b"msg "])
            self.wfile.write(b"write ")
            with (tmp_path / "file").open("rb") as file:
                self.request.sendfile(file)

    server.handler(Sends)
    wanted = b"send sendall sendmsg write file"

    assert asked(server, b"") == wanted
    assert server.connections[0].sent == wanted
    assert server.connections[0].sent_count == len(wanted)


def test_a_class_that_receives_by_every_way_there_is_is_recorded_once(server: StreamTestServer) -> None:
    got = []

    class Receives(standard.BaseRequestHandler):
        def handle(self) -> None:
            sock, buffer = self.request, bytearray(2)
            assert sock.recv(100, socket.MSG_PEEK) == b"aabbccddeeffgg"  # a look is no receiving
            got.append(sock.recv(2))
            sock.recv_into(buffer)
            got.append(bytes(buffer))
            got.append(sock.recvfrom(2)[0])
            sock.recvfrom_into(buffer)
            got.append(bytes(buffer))
            got.append(sock.recvmsg(2)[0])
            sock.recvmsg_into([buffer])
            got.append(bytes(buffer))
            with sock.makefile("rb") as file:
                got.append(file.read())

    server.handler(Receives)
    asked(server, b"aabbccddeeffgg")
    until(lambda: len(got) == 7)

    assert got == [b"aa", b"bb", b"cc", b"dd", b"ee", b"ff", b"gg"]
    assert server.connections[0].received == b"aabbccddeeffgg"


def test_a_class_that_fails_resets_its_client_and_keeps_what_it_said(tcp_server: StreamTestServer) -> None:
    class Fails(standard.StreamRequestHandler):
        def handle(self) -> None:
            self.rfile.readline()
            raise ValueError("boom")

    tcp_server.handler(Fails)
    with pytest.raises(ConnectionResetError), connect(tcp_server) as client:
        client.sendall(b"hi\n")
        client.recv(1)

    with pytest.raises(ValueError, match="^boom$"):
        tcp_server.verify()
    assert tcp_server.requests == [b"hi\n"]


def test_a_class_whose_client_resets_ends_quietly(tcp_server: StreamTestServer) -> None:
    """As the standard library's servers print it, and no test would want to fail by it."""

    class Reads(standard.StreamRequestHandler):
        def handle(self) -> None:
            self.rfile.read()

    tcp_server.handler(Reads)
    from .peers import reset

    client = connect(tcp_server)
    client.sendall(b"half")
    conn = tcp_server.wait_connection()
    conn.wait_received(b"half")
    reset(client)
    conn.wait_closed()

    tcp_server.verify()
    assert [event.kind for event in conn.events][:2] == ["received", "client-reset"]


def test_a_class_that_closes_its_socket_has_closed_the_connection(server: StreamTestServer) -> None:
    class Closes(standard.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"bye")
            self.request.close()

    server.handler(Closes)

    assert asked(server, b"") == b"bye"
    conn = server.connections[0]
    conn.wait_closed()
    assert conn.closed_by == "server"


class Hello(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = b"you asked for " + self.path.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[::-1])

    def log_message(self, format: str, *args: Any) -> None: ...


def test_an_http_handler_keeps_its_connection_alive(tcp_server: StreamTestServer) -> None:
    tcp_server.handler(Hello)
    client = http.client.HTTPConnection(*tcp_server.address, timeout=PATIENCE)

    for number in range(5):
        client.request("GET", f"/{number}")
        assert client.getresponse().read() == b"you asked for /%d" % number
    client.request("POST", "/", body=b"x" * 100_000 + b"y")
    assert client.getresponse().read() == b"y" + b"x" * 100_000
    client.close()

    assert len(tcp_server.connections) == 1
    request = tcp_server.wait_for()
    assert request.count(b"GET /") == 5
    assert request.endswith(b"x" * 1000 + b"y")


def test_an_idle_http_connection_delays_no_verification(tcp_server: StreamTestServer) -> None:
    tcp_server.handler(Hello)
    client = http.client.HTTPConnection(*tcp_server.address, timeout=PATIENCE)
    client.request("GET", "/")
    client.getresponse().read()

    until(lambda: insides.is_idle(tcp_server))
    client.close()


def test_a_class_with_options_bound_by_partial_is_a_class(tcp_server: StreamTestServer, tmp_path: Any) -> None:
    """The standard library's own way to say directory= (http.server's documentation)."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None: ...

    (tmp_path / "file").write_bytes(b"content")
    tcp_server.handler(functools.partial(Quiet, directory=str(tmp_path)))
    client = http.client.HTTPConnection(*tcp_server.address, timeout=PATIENCE)

    client.request("GET", "/file")
    assert client.getresponse().read() == b"content"
    client.close()


# Handlers that open further connections


def test_a_handler_may_connect_out(sockserver: SockServer) -> None:
    behind, front = sockserver.tcp(name="behind"), sockserver.tcp(name="front")
    behind.handler(lambda conn: conn.send(conn.recv_all().upper()))

    @front.handler
    def relay(conn: Connection) -> None:
        with connect_to(behind.address) as upstream:
            upstream.sendall(conn.recv_all())
            upstream.shutdown(socket.SHUT_WR)
            conn.send(read_to_end(upstream))

    assert asked(front, b"ping") == b"PING"
    assert behind.requests == front.requests == [b"ping"]


def test_a_handler_may_make_further_servers(sockserver: SockServer) -> None:
    """As passive FTP does."""
    control = sockserver.tcp()

    @control.handler
    def passive(conn: Connection) -> None:
        while True:
            assert conn.recv_line() == b"PASV\n"
            data = sockserver.tcp()
            data.handler(lambda other: other.send(b"listing"))
            conn.send(b"%d\n" % data.port)

    with connect(control) as client:
        for _ in range(2):
            client.sendall(b"PASV\n")
            port = int(client.recv(100))
            with connect_to(("127.0.0.1", port)) as second:
                assert read_to_end(second) == b"listing"


def test_a_handler_may_make_a_server_of_its_own_that_ends_with_it(server: StreamTestServer) -> None:
    @server.handler
    def nested(conn: Connection) -> None:
        with StreamTestServer() as inner:
            inner.handler(lambda other: other.send(b"inner"))
            conn.send(b"%d\n" % inner.port)
            conn.recv_line()
        conn.send(b"done\n")

    with connect(server) as client:
        port = int(client.recv(100))
        with connect_to(("127.0.0.1", port)) as second:
            assert read_to_end(second) == b"inner"
        client.sendall(b"enough\n")
        assert client.recv(100) == b"done\n"
        with pytest.raises(ConnectionRefusedError):
            connect_to(("127.0.0.1", port))


def test_a_failure_of_a_nested_server_is_the_outer_handlers(tcp_server: StreamTestServer) -> None:
    @tcp_server.handler
    def nested(conn: Connection) -> None:
        with StreamTestServer() as inner:

            @inner.handler
            def fail(other: Connection) -> None:
                other.recv_line()
                raise ValueError("inner boom")

            with connect(inner) as client:
                client.sendall(b"hi\n")

    connect(tcp_server).close()
    until(lambda: insides.failure_of(tcp_server))

    with pytest.raises(ValueError, match="^inner boom$"):
        tcp_server.verify()


def test_a_handler_may_drive_another_server(sockserver: SockServer) -> None:
    first, second = sockserver.tcp(), sockserver.udp()

    @first.handler
    def forward(conn: Connection) -> None:
        conn.send(second.next_request())

    with connect(first) as stream, datagram_client(second) as datagrams:
        datagrams.send(b"by datagram")
        assert read_to_end(stream) == b"by datagram"


# What ends a handler


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, pytest.exit.Exception])
def test_what_would_end_the_run_is_a_failure_of_the_test(tcp_server: StreamTestServer, kind: type[Exception]) -> None:
    @tcp_server.handler
    def leave(conn: Connection) -> None:
        conn.recv_line()
        raise kind("leaving")

    with pytest.raises(ConnectionResetError), connect(tcp_server) as client:
        client.sendall(b"hi\n")
        client.recv(1)

    with pytest.raises(RuntimeError) as raised:
        tcp_server.verify()
    assert str(raised.value) == f"the handler raised {kind.__name__}: leaving"


def test_pytests_own_failures_are_failures(tcp_server: StreamTestServer) -> None:
    @tcp_server.handler
    def fail(conn: Connection) -> None:
        conn.recv_line()
        pytest.fail("not what I wanted")

    with pytest.raises(ConnectionResetError), connect(tcp_server) as client:
        client.sendall(b"hi\n")
        client.recv(1)

    with pytest.raises(pytest.fail.Exception, match="^not what I wanted$"):
        tcp_server.verify()


def test_the_traceback_of_a_failure_begins_in_the_handler(tcp_server: StreamTestServer) -> None:
    @tcp_server.handler
    def fail(conn: Connection) -> None:
        conn.recv_line()
        raise ValueError("boom")

    with connect(tcp_server) as client:
        client.sendall(b"hi\n")
        until(lambda: insides.failure_of(tcp_server))

    error = insides.take_failures(tcp_server)[0].error
    assert error.__traceback__ is not None
    assert error.__traceback__.tb_frame.f_code is fail.__code__
    assert error.__traceback__.tb_lineno == fail.__code__.co_firstlineno + 3


def test_asserting_handlers_fail_the_test(udp_server: DatagramTestServer) -> None:
    @udp_server.handler
    def check(request: Request) -> tuple[()]:
        assert request == b"PING", "that is no ping"
        return ()

    with datagram_client(udp_server) as client:
        client.send(b"PONG")
        until(lambda: insides.failure_of(udp_server))

    with pytest.raises(AssertionError, match="that is no ping"):
        udp_server.verify()


def test_the_type_of_a_handler_is_kept_for_the_users_type_checker(tcp_server: StreamTestServer) -> None:
    handler: Callable[[Connection], None] = tcp_server.handler(with_default)

    assert handler is with_default


# self.server of a class


class Asked(standard.StreamRequestHandler):
    """Tells what it knows of its server."""

    def handle(self) -> None:
        server: Any = self.server
        server.count = getattr(server, "count", 0) + 1
        self.wfile.write(f"{server.server_name} {server.server_port} {server.count}".encode())


def test_self_server_has_the_name_and_the_port(server: StreamTestServer) -> None:
    server.handler(Asked)
    name, port = server.address if server.transport == "tcp" else ("localhost", 0)

    assert asked(server, b"") == f"{name} {port} 1".encode()
    assert asked(server, b"") == f"{name} {port} 2".encode()  # what a class sets there stays


@pytest.mark.parametrize(("host", "name"), [("0.0.0.0", "127.0.0.1"), ("::1", "::1"), ("127.0.0.1", "127.0.0.1")])
def test_self_server_has_a_name_that_can_be_connected_to(sockserver: SockServer, host: str, name: str) -> None:
    server = sockserver.tcp(host=host, allow_remote=True)
    server.handler(Asked)

    assert asked(server, b"") == f"{name} {server.port} 1".encode()


def test_self_server_of_datagrams_has_them_too(udp_server: DatagramTestServer) -> None:
    @udp_server.handler
    class Named(standard.DatagramRequestHandler):
        def handle(self) -> None:
            server: Any = self.server
            self.wfile.write(f"{server.server_name} {server.server_port}".encode())

    with datagram_client(udp_server) as client:
        client.send(b"who?")
        assert client.recv(100) == f"127.0.0.1 {udp_server.port}".encode()


class Wants(standard.BaseRequestHandler):
    def handle(self) -> None:
        self.server.db.query()  # type: ignore[attr-defined]


WANTS = (
    "self.server has no 'db': for a handler class it is {}, the test's server.  To host a class that needs a server "
    "of its own, make that one with bind_and_activate=False, as app, and declare a BaseRequestHandler whose handle() "
    "calls app.finish_request(self.request, self.client_address)"
)


@pytest.mark.parametrize("transport", ["tcp", "unix", "tls", "udp"])
def test_a_class_that_wants_more_of_its_server_is_told_how_to_host_it(sockserver: SockServer, transport: str) -> None:
    server = getattr(sockserver, transport)(name="the_server")
    server.handler(Wants)

    with server.raises(AttributeError) as expected:
        if transport == "udp":
            with datagram_client(server) as client:
                client.send(b"x")
        else:
            with contextlib.suppress(OSError), connect(server) as raw, contextlib.ExitStack() as stack:
                if transport == "tls":
                    context = server.client_context()
                    raw = stack.enter_context(context.wrap_socket(raw, server_hostname="localhost"))
                raw.recv(1)

    assert str(expected.failure.error) == WANTS.format("the_server")  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["get_app", "base_environ", "_marshaled_dispatch", "logRequests", "__reversed__"])
def test_what_self_server_has_not_can_be_asked_for(tcp_server: StreamTestServer, name: str) -> None:
    assert not hasattr(insides.framework(tcp_server), name)
    assert getattr(insides.framework(tcp_server), name, 5) == 5


class Adding(standard.BaseServer):
    """A server of its own: it knows what its handlers ask it for."""

    db = 5


class Adds(standard.StreamRequestHandler):
    def handle(self) -> None:
        self.wfile.write(b"%d" % (int(self.rfile.readline()) + self.server.db))  # type: ignore[attr-defined]


def test_a_server_class_is_hosted_by_its_finish_request(sockserver: SockServer) -> None:
    app = Adding(("127.0.0.1", 0), Adds)

    class Hosted(standard.BaseRequestHandler):
        def handle(self) -> None:
            app.finish_request(self.request, self.client_address)

    for transport in ("tcp", "unix"):
        server = getattr(sockserver, transport)()
        server.handler(Hosted)

        assert asked(server, b"37\n") == b"42"
        assert server.wait_for() == b"37\n"
        assert server.connections[0].sent == b"42"


def test_what_a_hosted_class_raises_is_the_tests_failure(tcp_server: StreamTestServer) -> None:
    app = Adding(("127.0.0.1", 0), Adds)

    @tcp_server.handler
    class Hosted(standard.BaseRequestHandler):
        def handle(self) -> None:
            app.finish_request(self.request, self.client_address)

    with tcp_server.raises(ValueError, match="invalid literal"), pytest.raises(ConnectionResetError):
        asked(tcp_server, b"no number\n")


def test_xmlrpc_is_hosted(tcp_server: StreamTestServer) -> None:
    app = xmlrpc.server.SimpleXMLRPCServer(tcp_server.address, bind_and_activate=False, logRequests=False)
    app.register_function(lambda a, b: a + b, "add")

    @tcp_server.handler
    class Hosted(standard.BaseRequestHandler):
        def handle(self) -> None:
            app.finish_request(self.request, self.client_address)

    with app, xmlrpc.client.ServerProxy(tcp_server.url("http")) as proxy:
        assert proxy.add(20, 22) == 42


def test_hosting_by_a_detached_socket(tcp_server: StreamTestServer) -> None:
    app = Adding(("127.0.0.1", 0), Adds)

    @tcp_server.handler
    def host(conn: Connection) -> None:
        with conn.detach() as sock:
            app.finish_request(sock, conn.peer)

    assert asked(tcp_server, b"37\n") == b"42"


def test_hosting_a_datagram_server_class(udp_server: DatagramTestServer) -> None:
    class Doubles(standard.DatagramRequestHandler):
        def handle(self) -> None:
            self.wfile.write(self.packet * self.server.db)  # type: ignore[attr-defined]

    app = Adding(("127.0.0.1", 0), Doubles)

    @udp_server.handler
    class Hosted(standard.BaseRequestHandler):
        def handle(self) -> None:
            app.finish_request(self.request, self.client_address)

    with datagram_client(udp_server) as client:
        client.send(b"x")
        assert client.recv(100) == b"xxxxx"
