"""Programs: ``ThreadingMixIn``."""

from __future__ import annotations

import threading
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
    handle_one,
    is_closed,
    patience,
    program,
    quiet,
    read,
    send,
    serve_one,
    until,
)
from .one_request import fail


def threading_server(module: Any, handler: Any, **attributes: Any) -> Any:
    return type("Server", (module.ThreadingTCPServer,), attributes)(LOCALHOST, handler)


class Gate:
    """A handler that waits to be let go, and says so."""

    def __init__(self, module: Any, count: int = 1) -> None:
        self.waiting = threading.Semaphore(0)
        self.opened = threading.Event()
        self.threads: list[threading.Thread] = []
        self.ended: list[bool] = []
        self.handler = quiet(module, self._wait)

    def _wait(self, handler: Any) -> None:
        self.threads.append(threading.current_thread())
        self.waiting.release()
        self.ended.append(self.opened.wait(patience()))

    def reached(self, count: int = 1) -> bool:
        """Wait until so many handlers, more than before, have come to the gate."""
        return all([self.waiting.acquire(timeout=patience()) for _ in range(count)])

    def open(self) -> None:
        """Let them go, and wait for their threads."""
        self.opened.set()
        for thread in self.threads:
            thread.join(patience())


@program("threads: one for each request, so that a held client holds nobody else")
def requests_run_side_by_side(module: Any) -> Trace:
    trace: Trace = []
    gate = threading.Event()

    def meet(self: Any) -> None:
        if self.rfile.readline() == b"first\n":
            met = gate.wait(patience())
            self.wfile.write(b"met: %r" % met)
        gate.set()

    with threading_server(module, quiet(module, meet, "StreamRequestHandler")) as server, Loop(server):
        with connect(server) as first:
            send(first, b"first\n")
            trace += [ask(server, b"second\n"), read(first)]
    return trace


@program("threads: not the thread of the loop")
def request_has_a_thread_of_its_own(module: Any) -> Trace:
    trace: Trace = []
    here = threading.current_thread()
    handler = quiet(module, lambda self: trace.append(f"its own: {threading.current_thread() is not here}"))
    with threading_server(module, handler) as server:
        trace.append(handle_one(server))
    return trace


@program("threads: daemon as daemon_threads says")
def daemon_threads_decides(module: Any) -> Trace:
    trace: Trace = []
    handler = quiet(module, lambda self: trace.append(f"daemon: {threading.current_thread().daemon}"))
    for attributes in {}, {"daemon_threads": True}, {"daemon_threads": False}:
        with threading_server(module, handler, **attributes) as server:
            trace.append(handle_one(server))
    return trace


@program("threads: those not daemonic are listed in _threads while they run")
def running_threads_are_listed(module: Any) -> Trace:
    trace: Trace = []
    for attributes in {}, {"daemon_threads": True}, {"block_on_close": False}:
        gate = Gate(module)
        with threading_server(module, gate.handler, **attributes) as server:
            listed = vars(server).get("_threads", [])
            trace.append(f"{attributes}: {len(listed)} before")
            with connect(server), connect(server):
                for _ in range(2):
                    serve_one(server)
                gate.reached(2)
                trace.append(f"{len(vars(server).get('_threads', []))} at work")
                gate.open()
    return trace


@program("threads: a handler finds its own thread in _threads, from its first line on")
def thread_is_listed_before_its_handler_runs(module: Any) -> Trace:
    listed: list[bool] = []
    handler = quiet(module, lambda self: listed.append(threading.current_thread() in self.server._threads))
    with threading_server(module, handler) as server:
        for _ in range(20):
            handle_one(server)
    return [f"listed: {listed.count(True)} of 20"]


@program("threads: server_close waits for them")
def server_close_waits_for_threads(module: Any) -> Trace:
    trace: Trace = []
    returned = threading.Event()

    def hold(self: Any) -> None:
        until(lambda: is_closed(self.server.socket))
        trace.append(f"server_close returned while a handler was busy: {returned.wait(GRACE)}")

    def close() -> None:
        server.server_close()
        returned.set()

    with threading_server(module, quiet(module, hold)) as server, connect(server) as client:
        serve_one(server)
        trace += [Call(close).outcome(), read(client)]
    return trace


def _closes_past(module: Any, **attributes: Any) -> Trace:
    gate = Gate(module)
    with threading_server(module, gate.handler, **attributes) as server, connect(server):
        serve_one(server)
        gate.reached()
        trace = [f"{attributes}: {Call(server.server_close).outcome()}"]
        trace.append(f"handlers at work: {sum(thread.is_alive() for thread in gate.threads)}")
        gate.open()
    return [*trace, f"ended well: {gate.ended}"]


@program("threads: block_on_close=False: server_close does not wait")
def server_close_need_not_wait(module: Any) -> Trace:
    return _closes_past(module, block_on_close=False)


@program("defect 30: server_close does not wait for daemonic threads")
def server_close_does_not_wait_for_daemons(module: Any) -> Trace:
    return _closes_past(module, daemon_threads=True)


@program("threads: process_request_thread is what the thread runs, and may be overridden")
def process_request_thread_may_be_overridden(module: Any) -> Trace:
    trace: Trace = []

    class Server(module.ThreadingTCPServer):
        def process_request_thread(self, request: Any, client_address: Any) -> None:
            trace.append(f"before, of a peer's: {client_address == request.getpeername()}")
            super().process_request_thread(request, client_address)
            trace.append(f"after, closed: {is_closed(request)}")

    with Server(LOCALHOST, quiet(module, lambda self: trace.append("handle"))) as server:
        with connect(server) as client:
            serve_one(server)
            answer = read(client)
    return [*trace, answer]


@program("threads: an error goes to handle_error in its own thread, then the request is closed")
def error_is_handled_in_its_thread(module: Any) -> Trace:
    trace: Trace = []
    here = threading.current_thread()

    class Server(module.ThreadingTCPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            trace.append(f"its own: {threading.current_thread() is not here}, closed: {is_closed(request)}")

    with Server(LOCALHOST, fail) as server, accepted(server) as requests:
        answer = handle_one(server)
        server.server_close()
        trace.append(f"closed: {is_closed(requests[0])}, {answer}")
    return trace


@program("threads: what is no Exception, or leaves handle_error, goes to threading.excepthook")
def other_errors_go_to_the_excepthook(module: Any) -> Trace:
    trace: Trace = []

    class Server(module.ThreadingTCPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            trace.append("handle_error")
            raise

    def note(args: Any) -> None:
        trace.append(f"excepthook: {args.exc_type.__name__}")

    def stop(*args: Any) -> None:
        raise KeyboardInterrupt

    for handler in stop, fail:
        with mock.patch.object(threading, "excepthook", note):
            with Server(LOCALHOST, handler) as server, accepted(server) as requests:
                answer = handle_one(server)
                server.server_close()
                trace.append(f"closed: {is_closed(requests[0])}, {answer}")
    return trace


@program("threads: the mix-in has no __init__ and works without one")
def mix_in_needs_no_init(module: Any) -> Trace:
    class Server(module.ThreadingMixIn, module.TCPServer):
        def __init__(self) -> None:
            module.TCPServer.__init__(self, LOCALHOST, echo(module))

    with Server() as server:
        return [f"__init__ defined: {'__init__' in vars(module.ThreadingMixIn)}", handle_one(server, b"served\n")]


@program("threads: unused, the mix-in closes like its server")
def unused_mix_in_closes(module: Any) -> Trace:
    trace: Trace = []
    for attributes in {}, {"block_on_close": False}, {"daemon_threads": True}:
        with threading_server(module, None, **attributes) as server:
            trace.append(f"{server.server_close()} {is_closed(server.socket)} {server.server_close()}")
    return trace


@program("defect 36: the client has its reply before the handler has ended")
def reply_comes_before_the_handler_has_ended(module: Any) -> Trace:
    trace: Trace = []
    had_reply = threading.Event()

    def answer(self: Any) -> None:
        self.request.sendall(b"reply")
        trace.append(f"the client had it: {had_reply.wait(patience())}")

    with threading_server(module, quiet(module, answer)) as server, connect(server) as client:
        serve_one(server)
        trace.append(repr(client.recv(5)))
        had_reply.set()
    return trace
