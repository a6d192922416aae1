"""Programs: one request from the queue to its end, the ``handle_request`` way."""

from __future__ import annotations

import functools
import re
import socket
import sys
from typing import Any

from ..harness import (
    LOCALHOST,
    Call,
    Trace,
    accepted,
    connect,
    echo,
    expire,
    handle_one,
    is_closed,
    patience,
    program,
    quiet,
    read,
    send,
    serve_one,
    stderr,
)


def hooked(module: Any, trace: Trace, base: str = "TCPServer") -> type:
    """A server class whose hooks tell the trace of their calls, arguments checked, and then do as always."""

    def hook(name: str) -> Any:
        def method(self: Any, *args: Any) -> Any:
            trace.append(f"{name}, {len(args)} arguments")
            return getattr(super(cls, self), name)(*args)

        return method

    names = (
        "get_request verify_request process_request finish_request handle_error handle_timeout"
        " shutdown_request close_request"
    )
    cls = type("Hooked", (getattr(module, base),), {name: hook(name) for name in names.split()})
    return cls


def fail(*args: Any) -> None:
    raise LookupError("on purpose")


@program("one request: the hooks, in order")
def hooks_in_order(module: Any) -> Trace:
    trace: Trace = []
    with hooked(module, trace)(LOCALHOST, quiet(module, lambda self: trace.append("handle"))) as server:
        trace.append(handle_one(server))
    return trace


@program("one request: the handler class is called with (request, client_address, server)")
def handler_gets_three_arguments(module: Any) -> Trace:
    trace: Trace = []
    seen: list[Any] = []
    with module.TCPServer(LOCALHOST, lambda *args, **kwargs: seen.append((args, kwargs))) as server:
        with connect(server) as client:
            serve_one(server)
            ((request, client_address, owner), kwargs) = seen[0]
            trace.append(f"peer: {client_address == client.getsockname()}, {owner is server}, {kwargs}")
            trace.append(f"closed: {is_closed(request)}")
    return trace


@program("one request: any callable may stand for the handler class")
def handler_may_be_a_partial(module: Any) -> Trace:
    class Greeting(module.StreamRequestHandler):
        def __init__(self, *args: Any, word: bytes) -> None:
            self.word = word
            super().__init__(*args)

        def handle(self) -> None:
            self.wfile.write(self.word)

    with module.TCPServer(LOCALHOST, functools.partial(Greeting, word=b"hello")) as server:
        return [handle_one(server)]


@program("one request: accepted sockets block, whatever the listener does")
def accepted_sockets_block(module: Any) -> Trace:
    trace: Trace = []
    handler = quiet(module, lambda self: trace.append(f"{self.request.gettimeout()} {self.request.getblocking()}"))
    with module.TCPServer(LOCALHOST, handler) as server:
        handle_one(server)
        trace.append(f"listener: {server.socket.gettimeout()}")
        server.socket.settimeout(30)
        handle_one(server)
        trace.append(f"listener: {server.socket.gettimeout()}")
    return trace


@program("one request: verify_request says no: no handler, and the request is closed")
def refused_request_is_closed(module: Any) -> Trace:
    trace: Trace = []

    class Server(hooked(module, trace)):
        def verify_request(self, request: Any, client_address: Any) -> bool:
            trace.append(f"verify_request of a peer's: {client_address == request.getpeername()}")
            return False

    with Server(LOCALHOST, echo(module)) as server, accepted(server) as requests:
        trace.append(handle_one(server))
        trace.append(f"closed: {is_closed(requests[0])}")
    return trace


@program("one request: an OSError of get_request is dropped")
def oserror_of_get_request_is_dropped(module: Any) -> Trace:
    class Server(module.TCPServer):
        def get_request(self) -> Any:
            raise ConnectionAbortedError

    trace: Trace = []
    with Server(LOCALHOST, echo(module)) as server, connect(server):
        trace.append(f"returned {serve_one(server)}")
    return trace


@program("one request: another exception of get_request leaves handle_request")
def other_error_of_get_request_leaves(module: Any) -> Trace:
    server_class = type("Server", (module.TCPServer,), {"get_request": fail})
    with server_class(LOCALHOST, echo(module)) as server, connect(server):
        try:
            return [f"returned {serve_one(server)}"]
        except LookupError as error:
            return [f"raised {error!r}"]


@program("one request: a handler's error goes to handle_error, then the request is shut down")
def handler_error_then_shutdown_request(module: Any) -> Trace:
    trace: Trace = []

    class Server(hooked(module, trace)):
        def handle_error(self, request: Any, client_address: Any) -> None:
            trace.append(f"handle_error within its except: {sys.exc_info()[1]!r}")
            trace.append(f"closed already: {is_closed(request)}")

    with Server(LOCALHOST, fail) as server, accepted(server) as requests:
        trace.append(handle_one(server))
        trace.append(f"closed: {is_closed(requests[0])}")
    return trace


@program("one request: handle_error may raise again what it is called for")
def bare_raise_in_handle_error_leaves(module: Any) -> Trace:
    class Server(module.TCPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            raise

    with Server(LOCALHOST, fail) as server, accepted(server), connect(server):
        try:
            return [f"returned {serve_one(server)}"]
        except LookupError as error:
            return [f"raised {error!r}"]


@program("one request: handle_error prints the traceback between two rules of dashes")
def handle_error_prints_on_stderr(module: Any) -> Trace:
    with module.TCPServer(LOCALHOST, fail) as server, connect(server), stderr() as text:
        serve_one(server)
    lines = re.sub(r"\('127.0.0.1', \d+\)", "PEER", text.getvalue()).splitlines()
    return [*lines[:3], "...", *lines[-2:]]


@program("one request: what is no Exception passes handle_error by, and the request is closed")
def base_exceptions_leave_and_close(module: Any) -> Trace:
    trace: Trace = []
    for error in KeyboardInterrupt, SystemExit, GeneratorExit:

        def stop(*args: Any, error: type[BaseException] = error) -> None:
            raise error

        with hooked(module, trace)(LOCALHOST, stop) as server, accepted(server) as requests, connect(server) as client:
            try:
                serve_one(server)
            except BaseException as raised:
                trace.append(f"raised {type(raised).__name__}")
            trace.append(f"closed: {is_closed(requests[0])}, {read(client)}")
    return trace


class Fake:
    """A request that notes how it is ended."""

    def __init__(self, trace: Trace, error: type[Exception] | None = None) -> None:
        self.trace, self.error = trace, error

    def shutdown(self, how: int) -> None:
        self.trace.append(f"shutdown(SHUT_WR): {how == socket.SHUT_WR}")
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        self.trace.append("close()")


@program("one request: shutdown_request sends SHUT_WR, whose OSError is nothing, and closes")
def shutdown_request_ends_both_ways(module: Any) -> Trace:
    trace: Trace = []
    with hooked(module, trace)(LOCALHOST, echo(module)) as server:
        server.shutdown_request(Fake(trace))
        server.shutdown_request(Fake(trace, OSError))
        server.close_request(Fake(trace))
    return trace


@program("one request: the client sees the end although the handler's copy of the socket lives on")
def end_is_sent_past_a_duplicate(module: Any) -> Trace:
    copies: list[socket.socket] = []
    with module.TCPServer(LOCALHOST, lambda request, *args: copies.append(request.dup())) as server:
        trace = [handle_one(server)]
    for copy in copies:
        copy.close()
    return trace


def _expired(module: Any, listener: float | None, server_timeout: float | None) -> str:
    """How ``handle_request`` ends when no client comes, or rather: only to end it."""

    class Server(module.TCPServer):
        timeout = server_timeout

        def handle_timeout(self) -> str:
            return "handle_timeout's value"

    with Server(LOCALHOST, echo(module)) as server:
        server.socket.settimeout(listener)
        return f"listener {listener}, server {server_timeout}: {expire(server)}"


@program("handle_request: returns what handle_timeout returns when no client comes in time")
def handle_request_times_out(module: Any) -> Trace:
    return [_expired(module, None, 0.02)]


@program("handle_request: waits at most the lesser of the listener's timeout and the server's")
def lesser_timeout_counts(module: Any) -> Trace:
    far = 600.0
    pairs = [(0.02, None), (0.02, far), (far, 0.02), (None, 0), (0.0, None), (far, 0)]
    return [_expired(module, *pair) for pair in pairs]


@program("handle_request: without a timeout it waits for the client")
def handle_request_waits_without_a_timeout(module: Any) -> Trace:
    with module.TCPServer(LOCALHOST, echo(module)) as server:
        call = Call(server.handle_request)
        with connect(server) as client:
            send(client, b"late\n")
            return [read(client), call.outcome()]


@program("handle_request: a client in the queue is served even with timeout 0")
def timeout_of_zero_polls(module: Any) -> Trace:
    trace: Trace = []
    server_class = type("Server", (hooked(module, trace),), {"timeout": 0})
    with server_class(LOCALHOST, echo(module)) as server:
        trace.append(handle_one(server, b"served\n"))
        trace.append(expire(server))
    return trace


@program("handle_request: serves the earliest client, one a call")
def one_client_a_call(module: Any) -> Trace:
    trace: Trace = []
    with module.TCPServer(LOCALHOST, echo(module)) as server, connect(server) as first, connect(server) as second:
        for client, name in (first, b"first\n"), (second, b"second\n"):
            send(client, name)
        serve_one(server)
        trace.append(read(first))
        second.setblocking(False)
        try:
            trace.append(f"too early: {second.recv(100)!r}")
        except BlockingIOError:
            trace.append("nothing yet")
        second.settimeout(patience())
        serve_one(server)
        trace.append(read(second))
    return trace


@program("handle_request: knows nothing of the shutdown flag")
def handle_request_ignores_the_flag(module: Any) -> Trace:
    with module.TCPServer(LOCALHOST, echo(module)) as server:
        server._BaseServer__shutdown_request = True
        return [handle_one(server, b"served\n"), f"flag: {server._BaseServer__shutdown_request}"]


@program("defect 24: a silent client holds a handler for as long as it likes")
def silent_client_holds_the_server(module: Any) -> Trace:
    trace: Trace = []
    handler = quiet(module, lambda self: trace.append(f"{self.timeout} {self.rfile.read()!r}"), "StreamRequestHandler")
    with module.TCPServer(LOCALHOST, handler) as server, connect(server) as silent, connect(server) as eager:
        send(eager, b"eager")
        call = Call(lambda: [serve_one(server) for _ in range(2)])
        send(silent, b"silent, at last")
        trace += [call.outcome(), read(eager)]
    return trace


@program("defect 33: input that was not read makes the end a reset", needs=("Linux",))
def unread_input_resets_the_client(module: Any) -> Trace:
    with module.TCPServer(LOCALHOST, quiet(module, lambda self: None)) as server, connect(server) as client:
        send(client, b"nobody reads this", end=False)
        serve_one(server)
        return [f"error pending: {client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0}"]
