"""Programs: the privates that the world touches."""

from __future__ import annotations

import select
import socket
import threading
from typing import Any
from unittest import mock

from ..harness import (
    LOCALHOST,
    Call,
    Loop,
    Trace,
    ask,
    connect,
    echo,
    handle_one,
    leave,
    program,
    quiet,
    read,
    send,
    serve_here,
    serve_one,
)


@program("privates: the flag set directly by another thread, without a wake-up, ends the loop")
def flag_set_by_another_thread_ends_the_loop(module: Any) -> Trace:
    with module.TCPServer(LOCALHOST, echo(module)) as server, Loop(server) as loop:
        trace = [ask(server, b"served\n"), f"flag: {server._BaseServer__shutdown_request}"]
        leave(server)
        return [*trace, loop.outcome(), f"flag: {server._BaseServer__shutdown_request}"]


@program("privates: the event is set whenever the loop does not run")
def event_tells_whether_the_loop_runs(module: Any) -> Trace:
    trace: Trace = []
    seen = quiet(module, lambda self: trace.append(f"at work: {self.server._BaseServer__is_shut_down.is_set()}"))
    with module.TCPServer(LOCALHOST, seen) as server, Loop(server) as loop:
        ask(server)
        leave(server)
        loop.outcome()
        return [*trace, f"ended: {server._BaseServer__is_shut_down.wait(0)}"]


def own_loop(self: Any, poll_interval: float = 0.01) -> None:
    """What subclasses write that replace serve_forever wholesale: their own select, the base's flag and event."""
    self._BaseServer__is_shut_down.clear()
    try:
        while not self._BaseServer__shutdown_request:
            if select.select([self], [], [], poll_interval)[0]:
                self._handle_request_noblock()
            self.service_actions()
    finally:
        self._BaseServer__shutdown_request = False
        self._BaseServer__is_shut_down.set()


@program("privates: shutdown ends a loop of the subclass's own, and waits for it")
def shutdown_ends_a_loop_of_ones_own(module: Any) -> Trace:
    trace: Trace = []
    for base in "TCPServer", "ThreadingTCPServer":
        server_class = type("Server", (getattr(module, base),), {"serve_forever": own_loop})
        with server_class(LOCALHOST, echo(module)) as server:
            for word in b"first\n", b"again\n":
                with Loop(server) as loop:
                    trace.append(ask(server, word))
                    trace.append(f"shutdown {Call(server.shutdown).outcome()}, loop {loop.outcome()}")
    return trace


@program("privates: shutdown ends a loop of one's own that lives on handle_request")
def shutdown_ends_a_loop_of_handle_request(module: Any) -> Trace:
    class Server(module.TCPServer):
        timeout = 0.01

        def serve_forever(self, poll_interval: float = 0.5) -> None:
            self._BaseServer__is_shut_down.clear()
            while not self._BaseServer__shutdown_request:
                self.handle_request()
            self._BaseServer__is_shut_down.set()

    with Server(LOCALHOST, echo(module)) as server, Loop(server) as loop:
        trace = [ask(server, b"served\n")]
        return [*trace, f"shutdown {Call(server.shutdown).outcome()}, loop {loop.outcome()}"]


@program("privates: _handle_request_noblock is the loop's way to a request, and handle_request's")
def handle_request_noblock_may_be_overridden(module: Any) -> Trace:
    trace: Trace = []

    class Server(module.TCPServer):
        def _handle_request_noblock(self) -> str:
            trace.append("_handle_request_noblock")
            super()._handle_request_noblock()
            return "its value"

    with Server(LOCALHOST, echo(module)) as server:
        with connect(server) as client:
            send(client, b"by hand\n")
            trace += [f"returned {serve_one(server)}", read(client)]
        with Loop(server):
            trace.append(ask(server, b"by the loop\n"))
    return trace


@program("privates: _handle_request_noblock may be called by a select loop of one's own")
def handle_request_noblock_may_be_called(module: Any) -> Trace:
    with module.TCPServer(LOCALHOST, echo(module)) as server, connect(server) as client:
        send(client, b"served\n")
        select.select([server], [], [])
        return [f"returned {server._handle_request_noblock()}", read(client)]


@program("privates: a class-level stand-in for the event, and no __init__")
def event_may_be_a_mock_of_the_class(module: Any) -> Trace:
    class Server(module.TCPServer):
        _BaseServer__is_shut_down = mock.Mock()
        _BaseServer__shutdown_request = True

        def __init__(self) -> None:
            self.socket = socket.create_server(LOCALHOST)

    with Server() as server:
        trace = [f"returned {serve_here(module, server)}", f"flag: {server._BaseServer__shutdown_request}"]
        calls = {call[0] for call in server._BaseServer__is_shut_down.mock_calls}
        trace.append(f"cleared and set: {calls >= {'clear', 'set'}}")
        return [*trace, Call(server.shutdown).outcome(), f"flag: {server._BaseServer__shutdown_request}"]


@program("privates: the event may be swapped for another on the instance")
def event_may_be_swapped(module: Any) -> Trace:
    with module.TCPServer(LOCALHOST, echo(module)) as server:
        server._BaseServer__is_shut_down = threading.Event()
        with Loop(server) as loop:
            trace = [ask(server, b"served\n"), f"set: {server._BaseServer__is_shut_down.is_set()}"]
            trace += [Call(server.shutdown).outcome(), loop.outcome()]
        return [*trace, f"set: {server._BaseServer__is_shut_down.is_set()}"]


@program("privates: _ServerSelector is looked up on the module, by the loop and by handle_request")
def selector_is_looked_up_on_the_module(module: Any) -> Trace:
    trace: Trace = []

    class Selector(module._ServerSelector):
        def register(self, fileobj: Any, *args: Any, **kwargs: Any) -> Any:
            if fileobj is server:
                trace.append("the server is registered")
            return super().register(fileobj, *args, **kwargs)

    with module.TCPServer(LOCALHOST, echo(module)) as server:
        with mock.patch.object(module, "_ServerSelector", Selector):
            trace.append(handle_one(server, b"by hand\n"))
            with Loop(server):
                trace.append(ask(server, b"by the loop\n"))
        trace.append(handle_one(server, b"without\n"))
    return trace


@program("privates: the modules it imports are its attributes")
def module_attributes_are_the_modules(module: Any) -> Trace:
    import os
    import selectors
    import sys

    used = {"socket": socket, "selectors": selectors, "os": os, "sys": sys, "threading": threading}
    return [f"{name}: {getattr(module, name, None) is value}" for name, value in used.items()]
