"""Programs: ``BaseRequestHandler`` and ``StreamRequestHandler``."""

from __future__ import annotations

import array
import io
import socket
from typing import Any

from ..harness import (
    LOCALHOST,
    Trace,
    accepted,
    connect,
    echo,
    handle_one,
    is_closed,
    program,
    quiet,
    send,
    serve_one,
)
from .one_request import fail


class Silent:
    """For servers of handlers that fail on purpose: nothing is printed."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


def server_of(module: Any, handler: Any) -> Any:
    return type("Server", (Silent, module.TCPServer), {})(LOCALHOST, handler)


def stepping(module: Any, trace: Trace, failing: str = "", base: str = "BaseRequestHandler") -> type:
    """A handler class that tells the trace of its steps, one of which may fail."""

    def step(name: str) -> Any:
        def method(self: Any) -> None:
            trace.append(name)
            getattr(super(cls, self), name)()
            if name == failing:
                fail()

        return method

    cls = type("Stepping", (getattr(module, base),), {name: step(name) for name in ("setup", "handle", "finish")})
    return cls


@program("handler: setup, handle, finish")
def steps_in_order(module: Any) -> Trace:
    trace: Trace = []
    for base in "BaseRequestHandler", "StreamRequestHandler":
        with server_of(module, stepping(module, trace, base=base)) as server:
            trace.append(handle_one(server))
    return trace


@program("handler: finish runs although handle failed")
def finish_runs_after_an_error_in_handle(module: Any) -> Trace:
    trace: Trace = []
    for base in "BaseRequestHandler", "StreamRequestHandler":
        with server_of(module, stepping(module, trace, "handle", base)) as server:
            trace.append(handle_one(server))
    return trace


@program("handler: finish does not run when setup failed (defect 12 is about the files)")
def finish_does_not_run_after_an_error_in_setup(module: Any) -> Trace:
    trace: Trace = []
    with server_of(module, stepping(module, trace, "setup")) as server:
        trace.append(handle_one(server))
    return trace


@program("handler: request, client_address, server")
def handler_attributes(module: Any) -> Trace:
    trace: Trace = []

    def tell(self: Any) -> None:
        trace.append(f"{self.request.getpeername() == self.client_address}, {self.server is server}")

    with module.TCPServer(LOCALHOST, quiet(module, tell)) as server:
        trace.append(handle_one(server))
    with module.TCPServer(LOCALHOST, quiet(module, tell, "StreamRequestHandler")) as server:
        trace.append(handle_one(server))
    return trace


@program("handler: works without a server, on any socket")
def handler_stands_alone(module: Any) -> Trace:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        send(theirs, b"alone\n")
        handler = echo(module)(ours, "peer", None)
        return [
            f"{theirs.recv(100)!r} {handler.client_address} {handler.server}",
            f"connection is request: {handler.connection is handler.request}",
            f"closed: {handler.rfile.closed} {handler.wfile.closed} {is_closed(ours)}",
        ]


@program("stream handler: disable_nagle_algorithm sets TCP_NODELAY")
def nagle_follows_the_attribute(module: Any) -> Trace:
    trace: Trace = []

    def tell(self: Any) -> None:
        nodelay = bool(self.connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        trace.append(f"{self.disable_nagle_algorithm}: TCP_NODELAY={nodelay}")

    for disabled in False, True:
        handler = quiet(module, tell, "StreamRequestHandler", disable_nagle_algorithm=disabled)
        with module.TCPServer(LOCALHOST, handler) as server:
            handle_one(server)
    return trace


@program("stream handler: timeout is the connection's, and ends a silent client's request")
def handler_timeout_is_the_connections(module: Any) -> Trace:
    trace: Trace = []

    def tell(self: Any) -> None:
        trace.append(f"timeout={self.timeout}: {self.connection.gettimeout()}")
        if self.connection.gettimeout() == 0.02:
            try:
                trace.append(f"read {self.rfile.readline()!r}")
            except TimeoutError:
                trace.append("TimeoutError")

    for timeout in None, 30.0, 0.02:
        handler = quiet(module, tell, "StreamRequestHandler", timeout=timeout)
        with module.TCPServer(LOCALHOST, handler) as server, connect(server):
            serve_one(server)
    return trace


@program("stream handler: rfile is buffered unless rbufsize is 0")
def rfile_follows_rbufsize(module: Any) -> Trace:
    trace: Trace = []

    def tell(self: Any) -> None:
        trace.append(f"rbufsize {self.rbufsize}: {type(self.rfile).__name__} {self.rfile.mode}")
        trace.append(f"{self.rfile.readline()!r} {self.rfile.read(3)!r} {self.rfile.read()!r}")

    for attributes in {}, {"rbufsize": 0}, {"rbufsize": 512}:
        with module.TCPServer(LOCALHOST, quiet(module, tell, "StreamRequestHandler", **attributes)) as server:
            handle_one(server, b"line\nthree, rest")
    return trace


@program("stream handler: wfile sends at once, counts bytes and has the connection's descriptor")
def wfile_is_unbuffered(module: Any) -> Trace:
    trace: Trace = []

    def tell(self: Any) -> None:
        trace.append(f"{isinstance(self.wfile, io.BufferedIOBase)} {self.wfile.writable()} {self.wfile.readable()}")
        trace.append(f"descriptor: {self.wfile.fileno() == self.connection.fileno()}")
        for data in b"bytes", bytearray(b"bytearray"), array.array("I", [1, 2]), memoryview(b"view")[1:], b"":
            trace.append(f"{type(data).__name__}: {self.wfile.write(data)}")
        trace.append(f"{self.wfile.flush()} {client.recv(5)!r}")

    with module.TCPServer(LOCALHOST, quiet(module, tell, "StreamRequestHandler")) as server:
        with connect(server) as client:
            serve_one(server)
    return trace


@program("stream handler: wfile is buffered when wbufsize asks for it")
def wfile_follows_wbufsize(module: Any) -> Trace:
    trace: Trace = []

    def tell(self: Any) -> None:
        trace.append(f"wbufsize {self.wbufsize}: {type(self.wfile).__name__} {self.wfile.mode}")
        self.wfile.write(b"held back")

    for wbufsize in -1, 512:
        with module.TCPServer(LOCALHOST, quiet(module, tell, "StreamRequestHandler", wbufsize=wbufsize)) as server:
            trace.append(handle_one(server))
    return trace


class File:
    """A file that notes how it is finished."""

    def __init__(self, name: str, trace: Trace, error: type[Exception] | None = None) -> None:
        self.name, self.trace, self.error, self.closed = name, trace, error, False

    def flush(self) -> None:
        self.trace.append(f"{self.name}.flush()")
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        self.trace.append(f"{self.name}.close()")
        self.closed = True


def finish_with(module: Any, trace: Trace, wfile: File) -> None:
    def swap(self: Any) -> None:
        self.rfile.close()
        self.wfile.close()
        self.rfile, self.wfile = File("rfile", trace), wfile

    with module.TCPServer(LOCALHOST, quiet(module, swap, "StreamRequestHandler")) as server:
        handle_one(server)


@program("stream handler: finish flushes wfile, then closes both files")
def finish_flushes_and_closes(module: Any) -> Trace:
    trace: Trace = []
    finish_with(module, trace, File("wfile", trace))
    return trace


@program("stream handler: an OSError of the flush is nothing")
def failed_flush_is_nothing(module: Any) -> Trace:
    trace: Trace = []
    finish_with(module, trace, File("wfile", trace, BrokenPipeError))
    return trace


@program("stream handler: a wfile closed by the handler is not flushed again")
def closed_wfile_is_not_flushed(module: Any) -> Trace:
    trace: Trace = []
    wfile = File("wfile", trace, BrokenPipeError)
    wfile.closed = True
    finish_with(module, trace, wfile)
    return trace


@program("stream handler: both files are closed after the request, and the handler may close them first")
def files_are_closed_after_the_request(module: Any) -> Trace:
    trace: Trace = []
    handlers: list[Any] = []

    def keep(self: Any) -> None:
        handlers.append(self)
        if len(handlers) == 2:
            self.rfile.close()
            self.wfile.close()

    for wbufsize in 0, -1:
        handlers.clear()
        with module.TCPServer(LOCALHOST, quiet(module, keep, "StreamRequestHandler", wbufsize=wbufsize)) as server:
            with accepted(server) as requests:
                trace += [handle_one(server), handle_one(server)]
                trace.append(f"closed: {[(each.rfile.closed, each.wfile.closed) for each in handlers]}")
                trace.append(f"closed: {[is_closed(request) for request in requests]}")
    return trace


@program("stream handler: a reply and a half-closed client")
def reply_after_the_clients_end(module: Any) -> Trace:
    def count(self: Any) -> None:
        self.wfile.write(b"%d bytes" % len(self.rfile.read()))

    with module.TCPServer(LOCALHOST, quiet(module, count, "StreamRequestHandler")) as server:
        return [handle_one(server, bytes(50_000)), handle_one(server)]


@program("stream handler: lines of one connection, answered one by one")
def lines_are_answered_one_by_one(module: Any) -> Trace:
    def converse(self: Any) -> None:
        for line in self.rfile:
            self.wfile.write(line.upper())
            if line == b"two\n":
                break

    with module.TCPServer(LOCALHOST, quiet(module, converse, "StreamRequestHandler")) as server:
        return [handle_one(server, b"one\ntwo\nthree")]
