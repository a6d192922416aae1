"""Programs: ``serve_forever`` and ``shutdown``."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any
from unittest import mock

from ..harness import (
    GRACE,
    LOCALHOST,
    Call,
    Loop,
    Trace,
    accepted,
    ask,
    connect,
    echo,
    leave,
    patience,
    program,
    quiet,
    read,
    readable,
    send,
    serve_here,
    serve_one,
    until,
)
from .one_request import fail, hooked


def ending_after(module: Any, count: int, base: str = "TCPServer", **attributes: Any) -> type:
    """A server class whose loop ends by itself after so many requests: for loops in the program's own thread."""

    class Server(getattr(module, base)):
        handled = 0

        def _handle_request_noblock(self) -> None:
            super()._handle_request_noblock()
            self.handled += 1

        def service_actions(self) -> None:
            super().service_actions()
            if self.handled >= count:
                leave(self)

    return type("Server", (Server,), attributes)


@program("serve_forever: serves one client after another, in its own thread")
def serves_one_after_another(module: Any) -> Trace:
    with module.TCPServer(LOCALHOST, echo(module)) as server, Loop(server) as loop:
        trace = [ask(server, b"first\n"), ask(server, b"second\n")]
        server.shutdown()
        return [*trace, loop.outcome()]


@program("serve_forever: the hooks of a request, then service_actions")
def service_actions_follow_each_request(module: Any) -> Trace:
    trace: Trace = []

    class Server(hooked(module, trace)):
        def service_actions(self) -> None:
            if trace:  # not the idle turns before the request
                trace.append("service_actions")
                leave(self)

    with Server(LOCALHOST, quiet(module, lambda self: trace.append("handle"))) as server, connect(server):
        returned = serve_here(module, server)
    return [*trace, f"returned {returned}"]


@program("serve_forever: service_actions run while no client comes")
def service_actions_run_while_idle(module: Any) -> Trace:
    turns: list[int] = []

    class Server(module.TCPServer):
        def service_actions(self) -> None:
            turns.append(1)
            if len(turns) == 3:
                leave(self)

    with Server(LOCALHOST, echo(module)) as server, Loop(server) as loop:
        return [loop.outcome(), f"three turns: {len(turns) == 3}"]


@program("serve_forever: service_actions keep to poll_interval while no client comes")
def service_actions_keep_to_poll_interval(module: Any) -> Trace:
    turns: list[int] = []
    server_class = type("Server", (module.TCPServer,), {"service_actions": lambda self: turns.append(1)})
    with server_class(LOCALHOST, echo(module)) as server:
        loop = Loop(server, 600)
        trace = [ask(server, b"served\n")]
        until(lambda: turns)
        time.sleep(GRACE)
        trace.append(f"after the request: {len(turns)}")
        leave(server)
        connect(server).close()
        return [*trace, loop.outcome()]


@program("serve_forever: an idle server holds one descriptor, before and after", needs=("Linux",))
def idle_server_holds_one_descriptor(module: Any) -> Trace:
    import os

    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = count()
    with module.TCPServer(LOCALHOST, echo(module)) as server:
        trace = [f"made: {count() - before}"]
        with Loop(server) as loop:
            ask(server, b"served\n")
            server.shutdown()
            loop.outcome()
        trace.append(f"served: {count() - before}")
    return [*trace, f"closed: {count() - before}"]


@program("shutdown: does not return before the loop has ended")
def shutdown_waits_for_the_loop(module: Any) -> Trace:
    trace: Trace = []
    handling, returned = threading.Event(), threading.Event()

    def hold(self: Any) -> None:
        handling.set()
        until(lambda: self.server._BaseServer__shutdown_request)
        trace.append(f"shutdown returned while a handler was busy: {returned.wait(GRACE)}")

    def shut_down() -> None:
        server.shutdown()
        returned.set()

    with module.TCPServer(LOCALHOST, quiet(module, hold)) as server, Loop(server) as loop, connect(server):
        trace.append(f"handling: {handling.wait(patience())}")
        call = Call(shut_down)
        trace += [loop.outcome(), call.outcome()]
    return trace


@program("shutdown: the socket stays open, and the loop may run again")
def loop_runs_again_after_shutdown(module: Any) -> Trace:
    trace: Trace = []
    with module.TCPServer(LOCALHOST, echo(module)) as server:
        for name in b"first\n", b"second\n":
            with Loop(server) as loop, connect(server) as client:
                send(client, name)
                if answered(loop, client):
                    trace.append(read(client))
                    server.shutdown()
                trace.append(loop.outcome())
        trace.append(f"open: {server.fileno() != -1}, flag: {server._BaseServer__shutdown_request}")
    return trace


def answered(loop: Loop, client: socket.socket) -> bool:
    """Wait until the client has something to read: false if the loop ends instead."""
    return until(lambda: not loop.is_alive() or readable(client)) and readable(client)


@program("shutdown: a client that comes while the loop is told to end is not accepted (bpo-35017)")
def client_at_shutdown_is_not_accepted(module: Any) -> Trace:
    class Selector(module._ServerSelector):
        def select(self, *args: Any, **kwargs: Any) -> Any:
            ready = super().select(*args, **kwargs)
            leave(server)
            return ready

    trace: Trace = []
    with mock.patch.object(module, "_ServerSelector", Selector):
        with hooked(module, trace)(LOCALHOST, echo(module)) as server, connect(server) as client:
            send(client, b"waited\n")
            with accepted(server) as requests:
                server.serve_forever(0.01)
                trace.append(f"accepted by the loop: {len(requests)}")
            serve_one(server)
            trace.append(read(client))
    return trace


@program("shutdown: the flag set by a handler ends the loop after its request")
def flag_set_by_a_handler_ends_the_loop(module: Any) -> Trace:
    trace: Trace = []
    handler = quiet(module, lambda self: leave(self.server))
    with module.TCPServer(LOCALHOST, handler) as server, connect(server) as first, connect(server) as second:
        with accepted(server) as requests:
            trace.append(f"returned {serve_here(module, server)}")
            trace.append(f"accepted: {len(requests)}, {read(first)}")
        serve_one(server)
        trace.append(read(second))
    return trace


@program("shutdown: the flag set before serve_forever starts makes it return at once")
def flag_set_before_ends_the_loop_at_once(module: Any) -> Trace:
    with module.TCPServer(LOCALHOST, echo(module)) as server, connect(server), accepted(server) as requests:
        leave(server)
        with Loop(server) as loop:
            trace = [loop.outcome(), f"accepted: {len(requests)}"]
        return [*trace, f"flag: {server._BaseServer__shutdown_request}"]


@program("shutdown: called before serve_forever, it makes the loop return at once")
def shutdown_before_serve_forever_counts(module: Any) -> Trace:
    with module.TCPServer(LOCALHOST, echo(module)) as server:
        call = Call(server.shutdown)
        until(lambda: server._BaseServer__shutdown_request)
        return [f"returned {serve_here(module, server)}", call.outcome()]


@program("shutdown: races the start of the loop and always wins")
def shutdown_races_the_start(module: Any) -> Trace:
    ended = []
    for _ in range(20):
        with module.TCPServer(LOCALHOST, echo(module)) as server:
            loop = Loop(server)
            server.shutdown()
            ended.append(loop.outcome())
    return [f"{ended.count('returned None')} of {len(ended)} ended"]


@program("shutdown: does not wait for the handlers' threads")
def shutdown_leaves_handlers_alone(module: Any) -> Trace:
    trace: Trace = []
    handling, released = threading.Event(), threading.Event()

    def hold(self: Any) -> None:
        handling.set()
        trace.append(f"released: {released.wait(patience())}")

    with module.ThreadingTCPServer(LOCALHOST, quiet(module, hold)) as server, Loop(server) as loop, connect(server):
        handling.wait(patience())
        trace.append(f"shutdown {Call(server.shutdown).outcome()}, loop {loop.outcome()}")
        released.set()
    return trace


@program("serve_forever: does not look at the server's timeout")
def loop_ignores_the_timeout(module: Any) -> Trace:
    trace: Trace = []
    turns: list[int] = []

    class Server(hooked(module, trace)):
        timeout = 0.001

        def service_actions(self) -> None:
            turns.append(1)
            if len(turns) == 3:
                leave(self)

    with Server(LOCALHOST, echo(module)) as server:
        serve_here(module, server)
    return [*trace, "no handle_timeout"]


@program("serve_forever: what is no Exception leaves it, and it may run again")
def base_exceptions_leave_the_loop(module: Any) -> Trace:
    trace: Trace = []
    for error in KeyboardInterrupt, SystemExit:

        def stop(*args: Any, error: type[BaseException] = error) -> None:
            raise error

        with module.TCPServer(LOCALHOST, stop) as server:
            with connect(server), accepted(server):
                try:
                    serve_here(module, server)
                except BaseException as raised:
                    trace.append(f"raised {type(raised).__name__}, flag: {server._BaseServer__shutdown_request}")
            server.RequestHandlerClass = echo(module)
            with Loop(server):
                trace.append(ask(server, b"again\n"))
    return trace


@program("serve_forever: an error of service_actions leaves it, and it may run again")
def service_actions_error_leaves_the_loop(module: Any) -> Trace:
    with module.TCPServer(LOCALHOST, echo(module)) as server:
        server.service_actions = fail
        trace = [Loop(server).outcome()]
        del server.service_actions
        with Loop(server):
            return [*trace, ask(server, b"again\n")]


@program("serve_forever: an error that handle_error raises leaves it")
def handle_error_error_leaves_the_loop(module: Any) -> Trace:
    class Server(module.TCPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            raise

    with Server(LOCALHOST, fail) as server, accepted(server), connect(server):
        return [Loop(server).outcome()]


@program("serve_forever: a handler's error does not end it")
def handler_errors_do_not_end_the_loop(module: Any) -> Trace:
    trace: Trace = []

    class Server(module.TCPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            trace.append("handle_error")

    def first_fails(self: Any) -> None:
        if not trace:
            fail()
        self.request.sendall(b"served")

    with Server(LOCALHOST, quiet(module, first_fails)) as server, Loop(server):
        return [ask(server), ask(server), *trace]


@program("serve_forever: an OSError of get_request does not end it")
def oserror_of_get_request_does_not_end_the_loop(module: Any) -> Trace:
    errors = [ConnectionAbortedError, BlockingIOError, PermissionError]

    class Server(module.TCPServer):
        def get_request(self) -> Any:
            if errors:
                raise errors.pop()
            return super().get_request()

    with Server(LOCALHOST, echo(module)) as server, Loop(server):
        return [ask(server, b"served\n"), f"errors left: {len(errors)}"]


@program("serve_forever: a refused client does not end it")
def refused_client_does_not_end_the_loop(module: Any) -> Trace:
    answers = [True, False]
    server_class = type("Server", (module.TCPServer,), {"verify_request": lambda self, *args: answers.pop()})
    with server_class(LOCALHOST, echo(module)) as server, Loop(server):
        return [ask(server), ask(server, b"served\n")]


@program("serve_forever: the server object is what is waited for, by its fileno()")
def fileno_may_name_another_socket(module: Any) -> Trace:
    class Server(module.TCPServer):
        def fileno(self) -> int:
            return self.other.fileno()

        def get_request(self) -> Any:
            return self.other.accept()

    with module.TCPServer(LOCALHOST, None) as other, Server(LOCALHOST, echo(module)) as server:
        server.other = other.socket
        with connect(other) as client:
            send(client, b"by hand\n")
            serve_one(server)
            trace = [read(client)]
        with Loop(server):
            return [*trace, ask(other, b"by the loop\n")]


@program("serve_forever: on a closed server raises ValueError")
def closed_server_does_not_serve(module: Any) -> Trace:
    server = module.TCPServer(LOCALHOST, echo(module))
    server.server_close()
    return [Call(server.serve_forever).outcome()]
