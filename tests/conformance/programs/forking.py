"""Programs: ``ForkingMixIn``.  The server runs in the program's own thread: fork and threads do not mix (defect 35)."""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any

from ..harness import (
    GRACE,
    LOCALHOST,
    Pipe,
    Trace,
    accepted,
    connect,
    datagram_client,
    directory,
    expire,
    handle_one,
    is_closed,
    leave,
    patience,
    program,
    quiet,
    read,
    receive,
    serve_here,
    serve_one,
    until,
)
from .one_request import fail


def forking_server(module: Any, handler: Any, **attributes: Any) -> Any:
    return type("Server", (module.ForkingTCPServer,), attributes)(LOCALHOST, handler)


def loiter(self: Any) -> None:
    """Handle until the visitor has gone."""
    self.request.recv(1)


@contextlib.contextmanager
def visitor(server: Any) -> Iterator[socket.socket]:
    """A client that ends its stream when it goes: the children have copies of its socket, so close() would not."""
    with connect(server) as client:
        yield client
        client.shutdown(socket.SHUT_WR)


def is_child(pid: int) -> bool:
    """Whether the process is a child of ours that nobody has waited for."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def wait_for_exit(pid: int) -> None:
    """Wait until the child is a zombie, and leave it one."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


@program("fork: the request is handled by a child", needs=("fork",))
def child_handles_the_request(module: Any) -> Trace:
    trace: Trace = []
    parent = os.getpid()
    handler = quiet(module, lambda self: self.request.sendall(b"parent" if os.getpid() == parent else b"child"))
    with forking_server(module, handler) as server:
        trace.append(f"children before: {server.active_children}")
        trace.append(handle_one(server))
    trace.append(f"children after: {server.active_children or 'none'}")
    return trace


@program("fork: active_children is a set of pids, empty after server_close", needs=("fork",))
def children_are_in_active_children(module: Any) -> Trace:
    with forking_server(module, quiet(module, loiter)) as server:
        with visitor(server), visitor(server):
            for _ in range(2):
                serve_one(server)
            pids = list(server.active_children)
            trace = [f"{type(server.active_children).__name__} of {len(pids)}"]
            trace.append(f"children: {[is_child(pid) for pid in pids]}")
    trace.append(f"{server.active_children or 'none'}, children: {[is_child(pid) for pid in pids]}")
    return trace


@program("fork: the parent closes its copy of the request, without a shutdown", needs=("fork",))
def parent_closes_its_copy(module: Any) -> Trace:
    trace: Trace = []

    class Server(module.ForkingTCPServer):
        def close_request(self, request: Any) -> None:
            trace.append("close_request")
            super().close_request(request)

        def shutdown_request(self, request: Any) -> None:
            trace.append("shutdown_request")
            super().shutdown_request(request)

    def answer(self: Any) -> None:
        self.request.sendall(self.request.recv(10))

    with Server(LOCALHOST, quiet(module, answer)) as server, accepted(server) as requests:
        with connect(server) as client:
            serve_one(server)
            trace.append(f"closed in the parent: {is_closed(requests[0])}")
            client.sendall(b"and served")
            trace.append(read(client))
    return trace


@program("fork: no more than max_children at a time", needs=("fork",))
def max_children_bounds_the_children(module: Any) -> Trace:
    trace: Trace = []

    def company(self: Any) -> None:
        at_work.tell(b"*")
        time.sleep(GRACE)
        answers.tell(b"%d " % len(at_work.receive(0)))

    class Server(module.ForkingTCPServer):
        max_children = 1
        handled = 0

        def process_request(self, *args: Any) -> None:
            self.handled += 1
            super().process_request(*args)

        def service_actions(self) -> None:
            super().service_actions()
            if self.handled == 2 and not self.active_children:
                leave(self)

    with Pipe() as at_work, Pipe() as answers:
        with Server(LOCALHOST, quiet(module, company)) as server, connect(server), connect(server):
            serve_here(module, server)
            server.server_close()
            trace.append(f"handled: {server.handled}, at work together: {answers.receive()!r}")
    return trace


def _exit_codes(module: Any, *handlers: Any) -> Trace:
    """The exit codes of children, which the server's own reaping is kept from."""
    trace: Trace = []
    for handler in handlers:
        with forking_server(module, handler, collect_children=lambda self, **kwargs: None) as server:
            server.handle_error = lambda *args: None
            trace.append(handle_one(server))
            for pid in server.active_children:
                trace.append(f"exit code {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}")
            server.active_children.clear()
    return trace


@program("fork: the child's exit code tells success from failure", needs=("fork",))
def exit_code_tells_of_an_error(module: Any) -> Trace:
    def leave_by_sys_exit(*args: Any) -> None:
        sys.exit(5)

    return _exit_codes(module, quiet(module, lambda self: None), fail, leave_by_sys_exit)


@program("fork: an error goes to handle_error in the child, then the request is closed", needs=("fork",))
def error_is_handled_in_the_child(module: Any) -> Trace:
    trace: Trace = []
    parent = os.getpid()

    class Server(module.ForkingTCPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            told.tell(b"in a child: %r" % (os.getpid() != parent))

    with Pipe() as told, Server(LOCALHOST, fail) as server:
        trace.append(handle_one(server))
        server.server_close()
        trace.append(repr(told.receive()))
    return trace


@program("fork: an idle handle_request collects the children", needs=("fork",))
def handle_timeout_collects(module: Any) -> Trace:
    with forking_server(module, quiet(module, lambda self: None)) as server:
        trace = [f"timeout by default: {server.timeout}", handle_one(server)]
        server.timeout = 0.01
        until(lambda: expire(server) and not server.active_children)
        trace.append(f"children: {server.active_children or 'none'}")
    return trace


@program("fork: the loop collects the children", needs=("fork",))
def loop_collects(module: Any) -> Trace:
    class Server(module.ForkingTCPServer):
        def service_actions(self) -> None:
            super().service_actions()
            if self.active_children == set():
                leave(self)

    with Server(LOCALHOST, quiet(module, lambda self: None)) as server, connect(server) as client:
        serve_here(module, server)
        return [f"children: {server.active_children or 'none'}", read(client)]


@program("fork: server_close waits for the children", needs=("fork",))
def server_close_waits_for_children(module: Any) -> Trace:
    def linger(self: Any) -> None:
        time.sleep(GRACE)
        told.tell(b"handler ended")

    with Pipe() as told:
        with forking_server(module, quiet(module, linger)) as server, connect(server):
            serve_one(server)
            server.server_close()
            return [repr(told.receive(0)), f"children: {server.active_children or 'none'}"]


@program("fork: block_on_close=False: server_close does not wait", needs=("fork",))
def server_close_need_not_wait_for_children(module: Any) -> Trace:
    with forking_server(module, quiet(module, loiter), block_on_close=False) as server:
        with visitor(server):
            serve_one(server)
            pids = list(server.active_children)
            server.server_close()
            trace = [f"children: {[is_child(pid) for pid in pids]}, listed: {len(server.active_children)}"]
        for pid in pids:
            os.waitpid(pid, 0)
        server.server_close()
    return [*trace, f"listed: {len(server.active_children)}"]


@program("fork: a child that somebody else has waited for is forgotten", needs=("fork",))
def child_reaped_by_others_is_forgotten(module: Any) -> Trace:
    trace: Trace = []
    with forking_server(module, quiet(module, lambda self: None)) as server:
        handle_one(server)
        for pid in server.active_children:
            os.waitpid(pid, 0)
        trace.append(f"collected: {server.collect_children()}, children: {server.active_children or 'none'}")
    return trace


@program("fork: collect_children before any request", needs=("fork",))
def nothing_to_collect(module: Any) -> Trace:
    with forking_server(module, None) as server:
        return [f"{server.collect_children()} {server.collect_children(blocking=True)} {server.handle_timeout()}"]


@program("defect 22: a child leaves by os._exit: atexit does not run", needs=("fork",))
def atexit_does_not_run_in_the_child(module: Any) -> Trace:
    def register(self: Any) -> None:
        atexit.register(told.tell, b"atexit ran")
        told.tell(b"handled")

    with Pipe() as told:
        with forking_server(module, quiet(module, register)) as server:
            handle_one(server)
        return [repr(told.receive())]


@program("defect 35: fork with threads about warns on 3.12 and later", needs=("fork",))
def fork_among_threads_warns(module: Any) -> Trace:
    done = threading.Event()
    other = threading.Thread(target=done.wait, args=(patience(),))
    other.start()
    with warnings.catch_warnings(record=True) as caught, forking_server(module, quiet(module, loiter)) as server:
        warnings.simplefilter("always")
        trace = [handle_one(server)]
    done.set()
    other.join()
    return [*trace, *(each.category.__name__ for each in caught if "fork" in str(each.message))]


@program("fork: datagrams", needs=("fork",))
def datagrams_in_children(module: Any) -> Trace:
    parent = os.getpid()

    def answer(self: Any) -> None:
        self.wfile.write(self.rfile.read() + b" %r" % (os.getpid() != parent))

    with module.ForkingUDPServer(LOCALHOST, quiet(module, answer, "DatagramRequestHandler")) as server:
        with datagram_client(server) as client:
            client.sendto(b"in a child:", server.server_address)
            serve_one(server)
            return [receive(client)]


@program("fork: unix servers", needs=("forking unix servers",))
def unix_servers_fork(module: Any) -> Trace:
    trace: Trace = []
    with directory() as folder:
        handler = quiet(module, lambda self: self.wfile.write(b"served"), "StreamRequestHandler")
        with module.ForkingUnixStreamServer(f"{folder}/stream", handler) as server:
            trace.append(handle_one(server))
        handler = quiet(module, lambda self: self.wfile.write(b"served"), "DatagramRequestHandler")
        with module.ForkingUnixDatagramServer(f"{folder}/datagram", handler) as server:
            with datagram_client(server, f"{folder}/client") as client:
                client.sendto(b"data", server.server_address)
                serve_one(server)
                trace.append(receive(client))
    return trace
