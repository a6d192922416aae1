"""The twenty-two ways to break ``socketserver`` that CPython's own tests do not notice, and two halves of one.

A mutation is a patch of one behaviour: a function that replaces a method of a private copy of a module.  It is
written against the contract only (public methods, and the privates that the contract names), so that the same patch
breaks the standard library's module and ours.  Each names the program that must notice, and a line of the trace that
the broken module, and no sound one, leaves; or one that it fails to leave.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .harness import leave, readable, shadowed


@dataclass(frozen=True)
class Mutation:
    """One broken behaviour."""

    name: str
    patch: Callable[[Any], None]
    program: str
    shows: str | None  # a line that only the broken module's trace has
    hides: str | None  # a line that only the sound module's trace has


MUTATIONS: list[Mutation] = []


def mutation(
    name: str, *, program: str, shows: str | None = None, hides: str | None = None
) -> Callable[[Callable[[Any], None]], None]:
    """Register the decorated patch."""

    def register(patch: Callable[[Any], None]) -> None:
        MUTATIONS.append(Mutation(name, patch, program, shows, hides))

    return register


def around(cls: type, name: str, **attributes: Any) -> None:
    """While the method runs, the instance has these attributes, whatever its class says."""
    method = getattr(cls, name)

    def mutated(self: Any, *args: Any, **kwargs: Any) -> Any:
        with shadowed(self, **attributes):
            return method(self, *args, **kwargs)

    setattr(cls, name, mutated)


def nothing(*args: Any, **kwargs: Any) -> None:
    """Do nothing, whatever is asked."""


# ------------------------------------------------------------------------------------------------- construction


@mutation(
    "the listening socket leaks when bind fails",
    program="bind_failure_closes_the_socket",
    shows="closed: [False]",
)
def leak_on_bind_failure(module: Any) -> None:
    construct = module.TCPServer.__init__

    def mutated(self: Any, server_address: Any, handler: Any, bind_and_activate: bool = True) -> None:
        construct(self, server_address, handler, bind_and_activate=False)
        if bind_and_activate:
            self.server_bind()
            self.server_activate()

    module.TCPServer.__init__ = mutated


@mutation("request_queue_size 0", program="listens_with_request_queue_size", shows="default: listen[0]")
def no_backlog(module: Any) -> None:
    around(module.TCPServer, "server_activate", request_queue_size=0)


@mutation(
    "allow_reuse_address ignored",
    program="reuse_address_follows_the_attribute",
    shows="allow_reuse_address=True: SO_REUSEADDR=False",
)
def no_reuse_address(module: Any) -> None:
    around(module.TCPServer, "server_bind", allow_reuse_address=False)


# ----------------------------------------------------------------------------------------------------- the loop


@mutation("no restart after shutdown", program="loop_runs_again_after_shutdown", shows="open: True, flag: True")
def no_restart(module: Any) -> None:
    serve_forever = module.BaseServer.serve_forever

    def mutated(self: Any, poll_interval: float = 0.5) -> None:
        try:
            serve_forever(self, poll_interval)
        finally:
            leave(self)

    module.BaseServer.serve_forever = mutated


@mutation(
    "a request accepted after shutdown",
    program="client_at_shutdown_is_not_accepted",
    shows="accepted by the loop: 1",
)
def accept_after_shutdown(module: Any) -> None:
    serve_forever = module.BaseServer.serve_forever

    def mutated(self: Any, poll_interval: float = 0.5) -> None:
        serve_forever(self, poll_interval)
        if readable(self):
            self._handle_request_noblock()

    module.BaseServer.serve_forever = mutated


@mutation("service_actions not called", program="service_actions_run_while_idle", shows="three turns: False")
def no_service_actions(module: Any) -> None:
    around(module.BaseServer, "serve_forever", service_actions=nothing)


@mutation(
    "shutdown does not wait",
    program="shutdown_waits_for_the_loop",
    shows="shutdown returned while a handler was busy: True",
)
def shutdown_without_waiting(module: Any) -> None:
    module.BaseServer.shutdown = leave


@mutation(
    "the shutdown flag cleared when the loop starts",
    program="flag_set_before_ends_the_loop_at_once",
    shows="accepted: 1",
)
def flag_cleared_at_start(module: Any) -> None:
    serve_forever = module.BaseServer.serve_forever

    def mutated(self: Any, poll_interval: float = 0.5) -> None:
        self._BaseServer__shutdown_request = False
        serve_forever(self, poll_interval)

    module.BaseServer.serve_forever = mutated


# -------------------------------------------------------------------------------------------------- one request


@mutation(
    "handle_timeout not called",
    program="handle_request_times_out",
    shows="listener None, server 0.02: returned None",
)
def no_handle_timeout(module: Any) -> None:
    around(module.BaseServer, "handle_request", handle_timeout=nothing)


@mutation(
    "timeout ignored: the server's",
    program="handle_request_times_out",
    shows="listener None, server 0.02: still running",
)
def no_server_timeout(module: Any) -> None:
    around(module.BaseServer, "handle_request", timeout=None)


@mutation("verify_request ignored", program="refused_request_is_closed", shows="process_request, 2 arguments")
def no_verify_request(module: Any) -> None:
    around(module.BaseServer, "_handle_request_noblock", verify_request=lambda *args: True)


@mutation(
    "no shutdown_request after a handler's error",
    program="handler_error_then_shutdown_request",
    shows="closed: False",
)
def no_shutdown_request_after_an_error(module: Any) -> None:
    process_request = module.BaseServer.process_request

    def mutated(self: Any, request: Any, client_address: Any) -> None:
        try:
            process_request(self, request, client_address)
        except Exception:
            self.shutdown_request = nothing
            raise

    module.BaseServer.process_request = mutated


@mutation("no SHUT_WR before close", program="end_is_sent_past_a_duplicate", shows="b'', no end")
def no_shut_wr(module: Any) -> None:
    module.TCPServer.shutdown_request = lambda self, request: self.close_request(request)


# ----------------------------------------------------------------------------------------------------- handlers


@mutation("finish skipped after an error in handle", program="finish_runs_after_an_error_in_handle", hides="finish")
def no_finish_after_an_error(module: Any) -> None:
    def mutated(self: Any, request: Any, client_address: Any, server: Any) -> None:
        self.request, self.client_address, self.server = request, client_address, server
        self.setup()
        self.handle()
        self.finish()

    module.BaseRequestHandler.__init__ = mutated


@mutation(
    "disable_nagle_algorithm ignored",
    program="nagle_follows_the_attribute",
    shows="True: TCP_NODELAY=False",
)
def no_nodelay(module: Any) -> None:
    around(module.StreamRequestHandler, "setup", disable_nagle_algorithm=False)


@mutation(
    "timeout ignored: the stream handler's",
    program="handler_timeout_is_the_connections",
    shows="timeout=30.0: None",
)
def no_handler_timeout(module: Any) -> None:
    around(module.StreamRequestHandler, "setup", timeout=None)


@mutation("rfile unbuffered", program="rfile_follows_rbufsize", shows="rbufsize -1: SocketIO rb")
def unbuffered_rfile(module: Any) -> None:
    around(module.StreamRequestHandler, "setup", rbufsize=0)


@mutation("wfile not flushed", program="finish_flushes_and_closes", hides="wfile.flush()")
def unflushed_wfile(module: Any) -> None:
    def mutated(self: Any) -> None:
        self.wfile.close()
        self.rfile.close()

    module.StreamRequestHandler.finish = mutated


@mutation(
    "the datagram handler replies only if there is data",
    program="silent_handler_sends_an_empty_datagram",
    shows="b'the next datagram'",
)
def no_empty_reply(module: Any) -> None:
    finish = module.DatagramRequestHandler.finish

    def mutated(self: Any) -> None:
        if self.wfile.getvalue():
            finish(self)

    module.DatagramRequestHandler.finish = mutated


# --------------------------------------------------------------------------------------------- threads, children


@mutation("daemon_threads ignored", program="daemon_threads_decides", hides="daemon: True")
def no_daemon_threads(module: Any) -> None:
    around(module.ThreadingMixIn, "process_request", daemon_threads=False)


@mutation(
    "threads not joined",
    program="server_close_waits_for_threads",
    shows="server_close returned while a handler was busy: True",
)
def threads_not_joined(module: Any) -> None:
    module.ThreadingMixIn.server_close = lambda self: super(module.ThreadingMixIn, self).server_close()


@mutation(
    "max_children ignored",
    program="max_children_bounds_the_children",
    hides="handled: 2, at work together: b'1 1 '",
)
def unlimited_children(module: Any) -> None:
    for name, method in list(vars(module.ForkingMixIn).items()):
        if callable(method):
            around(module.ForkingMixIn, name, max_children=sys.maxsize)


@mutation(
    "the parent of a fork keeps the request open",
    program="parent_closes_its_copy",
    shows="closed in the parent: False",
)
def parent_keeps_the_request(module: Any) -> None:
    around(module.ForkingMixIn, "process_request", close_request=nothing)
