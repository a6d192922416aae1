"""The thirty-eight defects of the standard library's ``socketserver``, one by one.

*Mended*: our behaviour is asserted.  *Opt-in*: the default is the standard library's, and a class attribute changes
it.  *Documented*: it is as the standard library has it, by the same trace.  Run on the standard library's module
itself, the tests of the first two must fail (see conftest.py).
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any
from unittest import mock

import pytest

from . import programs
from .harness import (
    GRACE,
    LOCALHOST,
    PROGRAMS,
    Call,
    Loop,
    Pipe,
    accepted,
    ask,
    connect,
    datagram_client,
    directory,
    echo,
    handle_one,
    is_closed,
    leave,
    patience,
    quiet,
    read,
    reset,
    run,
    send,
    serve_here,
    serve_one,
    stderr,
    until,
)
from .programs.forking import is_child, loiter, visitor, wait_for_exit
from .programs.one_request import fail
from .programs.threads import Gate

assert programs.__all__  # importing it filled PROGRAMS

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
needs_unix = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this platform has no AF_UNIX")
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127/8 and IP_PKTINFO")

# Seconds.  A loop that polls so seldom never notices a flag by itself while a test waits.
NEVER = 600.0


def mended(number: int) -> pytest.MarkDecorator:
    return pytest.mark.defect(number, "mended")


def opt_in(number: int) -> pytest.MarkDecorator:
    return pytest.mark.defect(number, "opt-in")


def served(module: ModuleType, base: str = "TCPServer", handler: Any = None, **attributes: Any) -> Any:
    """A server of a class with these attributes; it echoes lines, or datagrams, unless told otherwise."""
    server_class = type("Server", (getattr(module, base),), attributes)
    default = echo(module, "DatagramRequestHandler" if "UDP" in base else "StreamRequestHandler")
    return server_class(LOCALHOST, default if handler is None else handler)


@contextlib.contextmanager
def rescued(server: Any) -> Iterator[None]:
    """If the loop sleeps on after a failure, a client wakes it up: no thread is left behind."""
    try:
        yield
    finally:
        leave(server)
        with contextlib.suppress(OSError):
            connect(server).close()


# ------------------------------------------------------------------------------------------------------ 1 to 6


@mended(1)
@pytest.mark.parametrize("poll_interval", [NEVER, None])
def test_shutdown_does_not_wait_for_the_poll(module: ModuleType, poll_interval: float | None) -> None:
    with served(module) as server:
        loop = Loop(server, poll_interval)
        with rescued(server):
            ask(server, b"the loop runs\n")
            time.sleep(GRACE)  # it falls asleep; should it not, then this test is only easier to pass

            assert Call(server.shutdown).outcome() == "returned None"
            assert loop.outcome() == "returned None"


@mended(2)
def test_shutdown_of_a_server_never_served_returns_and_is_remembered(module: ModuleType) -> None:
    with served(module) as server:
        shutdown = Call(server.shutdown)
        try:
            assert shutdown.outcome() == "returned None"
        finally:
            first = Loop(server).outcome()

        assert first == "returned None"


@mended(3)
@pytest.mark.parametrize("where", ["handler", "service_actions", "signal handler"])
def test_shutdown_in_the_loops_own_thread_returns(module: ModuleType, where: str) -> None:
    def by_signal(number: int, frame: object) -> None:
        server.shutdown()

    def shut_down(*args: Any) -> None:
        if where != "signal handler":
            server.shutdown()
        else:
            signal.raise_signal(signal.SIGTERM)
        returned.set()

    returned = threading.Event()
    handler = shut_down if where == "handler" else quiet(module, lambda self: None)
    with served(module, handler=handler, handle_error=lambda self, *args: None) as server, connect(server):
        if where != "handler":
            server.service_actions = shut_down
        server._BaseServer__is_shut_down.wait = waits_for_nobody(server)
        with signal_handler(by_signal):
            serve_here(module, server)

    assert returned.is_set()


def waits_for_nobody(server: Any) -> Any:
    """An event's wait() that fails where it could only be a deadlock: in the thread that is to set the event."""
    loop = threading.current_thread()
    wait = server._BaseServer__is_shut_down.wait

    def checked(timeout: float | None = None) -> bool:
        assert threading.current_thread() is not loop, "shutdown() waits for its own thread"
        return wait(timeout)

    return checked


@contextlib.contextmanager
def signal_handler(function: Any) -> Iterator[None]:
    kept = signal.signal(signal.SIGTERM, function)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, kept)


@mended(3)
@needs_fork
def test_shutdown_in_a_forked_child_leaves_the_parent_serving(module: ModuleType) -> None:
    """The child shares the parent's descriptors, those of a wake-up included."""

    class Server(module.ForkingTCPServer):
        handled = 0

        def process_request(self, *args: Any) -> None:
            super().process_request(*args)
            self.handled += 1

        def service_actions(self) -> None:
            if self.handled == 2:
                leave(self)

    def shut_down(self: Any) -> None:
        self.server.shutdown()
        self.request.sendall(b"served")

    with Server(LOCALHOST, quiet(module, shut_down)) as server, visitor(server) as first, visitor(server) as second:
        serve_here(module, server)
        answers = [read(first), read(second)]
        for pid in server.active_children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    assert answers == ["b'served', the end"] * 2


@mended(4)
def test_second_shutdown_leaves_no_flag_for_the_next_loop(module: ModuleType) -> None:
    with served(module) as server:
        with Loop(server):
            ask(server)
            server.shutdown()
            server.shutdown()

        assert not server._BaseServer__shutdown_request
        with Loop(server):
            assert ask(server, b"served\n") == "b'SERVED\\n', the end"


@mended(5)
def test_second_serve_forever_raises_and_the_first_goes_on(module: ModuleType) -> None:
    with served(module) as server, Loop(server) as loop:
        ask(server)
        second = Loop(server)
        with contextlib.ExitStack() as stack:
            stack.callback(second.__exit__)

            assert second.outcome() == "raised RuntimeError"
            assert ask(server, b"served\n") == "b'SERVED\\n', the end"
            assert loop.is_alive()


@mended(6)
@pytest.mark.parametrize("base", ["TCPServer", "ThreadingTCPServer", "UDPServer"])
def test_server_close_while_serving_ends_the_loop(module: ModuleType, base: str) -> None:
    serving = threading.Event()
    server = served(module, base, service_actions=lambda self: serving.set())
    with Loop(server, NEVER) as loop:
        # One turn of the loop, to be sure that it has begun: a server that is closed before that raises ValueError.
        if base == "UDPServer":
            with datagram_client(server) as client:
                client.sendto(b"", server.server_address)
        else:
            ask(server)
        serving.wait(patience())

        assert Call(server.server_close).outcome() == "returned None"
        assert loop.outcome() == "returned None"
        assert is_closed(server.socket)


@mended(6)
def test_server_close_in_a_handler_ends_the_loop(module: ModuleType) -> None:
    server = served(module, handler=quiet(module, lambda self: self.server.server_close()))
    with Loop(server) as loop, connect(server) as client:
        assert loop.outcome() == "returned None"
        assert read(client) == "b'', the end"


def test_shutdown_and_server_close_from_many_threads_all_return(module: ModuleType) -> None:
    for _ in range(20):
        server = served(module)
        loop = Loop(server)
        ask(server)
        calls = [Call(server.shutdown) for _ in range(4)] + [Call(server.server_close) for _ in range(3)]

        assert [call.outcome() for call in [*calls, loop]] == ["returned None"] * 8
        assert is_closed(server.socket)


# ----------------------------------------------------------------------------------------------------- 7 to 13


@opt_in(7)
@pytest.mark.parametrize("base", ["ThreadingTCPServer", "TCPServer"])
def test_end_connections_on_close_ends_an_idle_client(module: ModuleType, base: str) -> None:
    assert module.TCPServer.end_connections_on_close is False
    server = served(module, base, end_connections_on_close=True)
    with Loop(server) as loop, connect(server) as client:
        send(client, b"keep-alive\n", end=False)
        client.recv(1)

        assert Call(server.server_close).outcome() == "returned None"
        assert loop.outcome() == "returned None"
        assert read(client) == "b'EEP-ALIVE\\n', the end"


@opt_in(7)
def test_end_connections_on_close_by_default_waits_for_the_client(module: ModuleType) -> None:
    assert module.TCPServer.end_connections_on_close is False
    with served(module, "ThreadingTCPServer") as server, connect(server) as client:
        serve_one(server)
        closing = Call(server.server_close)
        until(lambda: is_closed(server.socket))
        closing.join(GRACE)

        assert closing.is_alive()
        send(client, b"last words\n")
        assert read(client) == "b'LAST WORDS\\n', the end"
        assert closing.outcome() == "returned None"


@opt_in(7)
def test_close_timeout_bounds_the_wait_and_lists_who_lives_on(module: ModuleType) -> None:
    assert module.ThreadingMixIn.close_timeout is None
    gate = Gate(module)
    server = served(module, "ThreadingTCPServer", gate.handler, close_timeout=0.02)
    with connect(server), connect(server):
        serve_one(server)
        serve_one(server)
        gate.reached(2)
        try:
            assert Call(server.server_close).outcome() == "returned None"
            assert set(server._threads) == set(gate.threads)
            assert len(server._threads) == 2
        finally:
            gate.open()
        server.server_close()

    assert not any(thread.is_alive() for thread in gate.threads)


class Exhausted:
    """A server without descriptors, until it has some again."""

    code = errno.EMFILE
    attempts = 0
    exhausted = True

    def get_request(self) -> Any:
        self.attempts += 1
        if self.exhausted:
            raise OSError(self.code, os.strerror(self.code))
        return super().get_request()  # type: ignore[misc]


@mended(8)
@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_exhausted_accept_backs_off_reports_once_and_recovers(module: ModuleType, code: int) -> None:
    with (
        stderr() as text,
        type("Server", (Exhausted, module.TCPServer), {"code": code})(LOCALHOST, echo(module)) as server,
    ):
        with Loop(server), connect(server) as client:
            send(client, b"served at last\n")
            until(lambda: server.attempts >= 3)
            first, begun = server.attempts, time.monotonic()
            time.sleep(GRACE)
            # A back-off of 50 ms is what was promised; the standard library makes some 150,000 attempts a second.
            assert server.attempts - first <= 2 + (time.monotonic() - begun) / 0.02

            server.exhausted = False
            assert read(client) == "b'SERVED AT LAST\\n', the end"
    assert text.getvalue().count(os.strerror(code)) == 1


def test_shutdown_does_not_wait_for_the_poll_when_accept_is_exhausted(module: ModuleType) -> None:
    """Defect 8: a back-off must not bring back defect 1."""
    with stderr(), type("Server", (Exhausted, module.TCPServer), {})(LOCALHOST, echo(module)) as server:
        loop = Loop(server, NEVER)
        with connect(server):
            until(lambda: server.attempts)

            assert Call(server.shutdown).outcome() == "returned None"
            assert loop.outcome() == "returned None"


@mended(9)
def test_thread_that_cannot_start_is_not_listed_and_its_request_is_closed(module: ModuleType) -> None:
    errors: list[Any] = []
    server = served(module, "ThreadingTCPServer", handle_error=lambda self, *args: errors.append(sys.exc_info()[1]))
    cannot = mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread"))
    with contextlib.ExitStack() as stack:
        stack.callback(server.socket.close)
        with cannot, accepted(server) as requests, connect(server) as client:
            serve_one(server)

            assert [repr(error) for error in errors] == ['RuntimeError("can\'t start new thread")']
            assert is_closed(requests[0])
            assert read(client) == "b'', the end"
        assert len(server._threads) == 0
        server.server_close()


@mended(10)
@pytest.mark.parametrize("error", [LookupError, KeyboardInterrupt])
def test_handle_error_that_raises_still_closes_the_request(module: ModuleType, error: type[BaseException]) -> None:
    def handle_error(self: Any, request: Any, client_address: Any) -> None:
        raise error("of handle_error's own")

    with served(module, handler=fail, handle_error=handle_error) as server, accepted(server) as requests:
        with connect(server) as client:
            assert Loop(server).outcome() == f"raised {error.__name__}"
            assert is_closed(requests[0])
            assert read(client) == "b'', the end"


@mended(11)
def test_verify_request_that_raises_is_an_error_of_the_request(module: ModuleType) -> None:
    errors: list[Any] = []
    once = [fail]
    server = served(
        module,
        verify_request=lambda self, *args: once.pop()() if once else True,
        handle_error=lambda self, *args: errors.append(sys.exc_info()[1]),
    )
    with server, accepted(server) as requests, Loop(server) as loop, connect(server) as client:
        assert read(client) == "b'', the end"
        assert ask(server, b"served\n") == "b'SERVED\\n', the end"
        assert loop.is_alive()
        assert [type(error) for error in errors] == [LookupError]
        assert is_closed(requests[0])


@mended(12)
def test_setup_that_raises_closes_its_files(module: ModuleType) -> None:
    handlers = []

    class Handler(module.StreamRequestHandler):
        def setup(self) -> None:
            super().setup()
            handlers.append(self)
            fail()

        def finish(self) -> None:
            handlers.append("finish")

    with served(module, handler=Handler, handle_error=lambda self, *args: None) as server:
        with accepted(server), connect(server) as client:
            serve_one(server)
            (handler,) = handlers
            closed = handler.rfile.closed, handler.wfile.closed
            handler.rfile.close()

            assert closed == (True, True)
            assert read(client) == "b'', the end"


@mended(13)
def test_buffered_reply_to_a_client_that_has_reset_is_no_error(module: ModuleType) -> None:
    """bpo-14574: close() flushes once more, and raises what flush() was forgiven."""
    handlers, errors = [], []

    def answer_too_late(self: Any) -> None:
        handlers.append(self)
        with contextlib.suppress(ConnectionResetError):
            self.connection.recv(1)
        self.wfile.write(b"too late")

    server = served(
        module,
        handler=quiet(module, answer_too_late, "StreamRequestHandler", wbufsize=-1),
        handle_error=lambda self, *args: errors.append(sys.exc_info()[1]),
    )
    with server, accepted(server) as requests:
        reset(connect(server))
        serve_one(server)
        closed = handlers[0].rfile.closed, handlers[0].wfile.closed, is_closed(requests[0])
        handlers[0].rfile.close()

    assert errors == []
    assert closed == (True, True, True)


# ---------------------------------------------------------------------------------------------------- 14 to 19


def same_trace(name: str, module: ModuleType, standard: ModuleType) -> None:
    if missing := PROGRAMS[name].missing():
        pytest.skip(f"this platform has no {', '.join(missing)}")
    assert run(name, module) == run(name, standard)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.defect(number, "documented"), id=f"{number}-{name}")
        for number, name in [
            (14, "silent_handler_sends_an_empty_datagram"),
            (16, "long_datagram_is_cut"),
            (22, "atexit_does_not_run_in_the_child"),
            (24, "silent_client_holds_the_server"),
            (25, "listens_with_request_queue_size"),
            (32, "second_server_on_a_port_is_refused"),
            (35, "fork_among_threads_warns"),
            (36, "reply_comes_before_the_handler_has_ended"),
            (38, "descriptor_above_fd_setsize_is_served"),
        ]
    ],
)
def test_documented_defect_is_as_the_standard_library_has_it(
    name: str, module: ModuleType, standard: ModuleType
) -> None:
    same_trace(name, module, standard)


@mended(15)
@needs_unix
@pytest.mark.parametrize("reply", [b"", b"to nobody"])
def test_datagram_from_an_unbound_unix_client_is_no_error(module: ModuleType, reply: bytes) -> None:
    errors: list[Any] = []
    handler = quiet(module, lambda self: self.wfile.write(reply), "DatagramRequestHandler")
    server_class = type(
        "Server",
        (module.UnixDatagramServer,),
        {"handle_error": lambda self, *args: errors.append(sys.exc_info()[1])},
    )
    with directory() as folder, server_class(f"{folder}/server", handler) as server:
        with datagram_client(server) as client:
            client.sendto(b"data", server.server_address)
            serve_one(server)

    assert errors == []


@opt_in(17)
@needs_linux
@pytest.mark.parametrize("by_hand", [False, True])
def test_reply_from_destination_answers_from_the_address_that_was_asked(module: ModuleType, by_hand: bool) -> None:
    assert module.UDPServer.reply_from_destination is False
    if by_hand:
        handler = quiet(module, lambda self: self.request[1].sendto(b"reply", self.client_address))
    else:
        handler = quiet(module, lambda self: self.wfile.write(b"reply"), "DatagramRequestHandler")
    sources = {}
    for wanted in False, True:
        server_class = type("Server", (module.UDPServer,), {"reply_from_destination": wanted})
        with server_class(("", 0), handler) as server, datagram_client(server) as client:
            client.sendto(b"data", ("127.0.0.5", server.server_address[1]))
            serve_one(server)
            sources[wanted] = client.recvfrom(100)

    assert {wanted: (data, host) for wanted, (data, (host, _)) in sources.items()} == {
        False: (b"reply", "127.0.0.1"),
        True: (b"reply", "127.0.0.5"),
    }


@opt_in(18)
@needs_unix
@pytest.mark.parametrize("base", ["UnixStreamServer", "UnixDatagramServer"])
def test_unlink_on_close_removes_its_own_file_only(module: ModuleType, base: str) -> None:
    standard_class = getattr(module, base)
    assert standard_class.unlink_on_close is False
    unlinking = type("Server", (standard_class,), {"unlink_on_close": True})
    with directory() as folder:
        path = f"{folder}/socket"
        unlinking(path, None).server_close()
        assert not os.path.exists(path)

        with standard_class(path, None):
            pass
        assert os.path.exists(path)
        os.unlink(path)

        with unlinking(path, None) as server:
            os.unlink(path)
            with standard_class(path, None):
                server.server_close()
                assert os.path.exists(path), "the file of the server that came after"


@opt_in(18)
@needs_unix
def test_unlink_on_close_leaves_alone_what_is_already_gone(module: ModuleType) -> None:
    assert module.UnixStreamServer.unlink_on_close is False
    unlinking = type("Server", (module.UnixStreamServer,), {"unlink_on_close": True})
    with directory() as folder, unlinking(f"{folder}/socket", None) as server:
        os.unlink(f"{folder}/socket")
        server.server_close()
        server.server_close()


needs_ipv6 = pytest.mark.skipif(bool(PROGRAMS["ipv6_by_address_family"].missing()), reason="this machine has no IPv6")


@opt_in(19)
@needs_ipv6
@pytest.mark.parametrize("base", ["TCPServer", "UDPServer"])
def test_infer_address_family_takes_an_ipv6_address(module: ModuleType, base: str) -> None:
    assert module.TCPServer.infer_address_family is False
    with pytest.raises(socket.gaierror):
        getattr(module, base)(("::1", 0), None)
    server_class = type("Server", (getattr(module, base),), {"infer_address_family": True})

    with server_class(("::1", 0), None) as six, server_class(LOCALHOST, None) as four:
        assert (six.address_family, six.socket.family) == (socket.AF_INET6, socket.AF_INET6)
        assert six.server_address[0] == "::1"
        assert four.address_family == socket.AF_INET


@opt_in(19)
@needs_ipv6
def test_dual_stack_serves_ipv4_clients_on_an_ipv6_socket(module: ModuleType) -> None:
    assert module.TCPServer.dual_stack is False

    class Server(module.TCPServer):
        """Of a system whose IPv6 sockets are for IPv6 only, as on some they are."""

        address_family = socket.AF_INET6

        def server_bind(self) -> None:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            super().server_bind()

    with Server(("::", 0), None) as server:
        assert server.socket.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    with type("Server", (Server,), {"dual_stack": True})(("::", 0), echo(module)) as server, Loop(server):
        for host in "127.0.0.1", "::1":
            with socket.create_connection((host, server.server_address[1]), patience()) as client:
                send(client, b"served\n")
                assert read(client) == "b'SERVED\\n', the end"


# ---------------------------------------------------------------------------------------------------- 20 to 29


@mended(20)
@needs_fork
def test_loop_goes_on_while_max_children_are_busy(module: ModuleType) -> None:
    turns: list[bool] = []

    class Server(module.ForkingTCPServer):
        max_children = 1

        def service_actions(self) -> None:
            super().service_actions()
            if self.active_children is not None:
                turns.append(bool(self.active_children))
            if len(turns) == 3:
                leave(self)

    def be_busy(self: Any) -> None:
        release.receive(1.0)  # not for ever, should the loop wait for this child

    with Pipe() as release, Server(LOCALHOST, quiet(module, be_busy)) as server, visitor(server), visitor(server):
        serve_here(module, server)
        release.tell(b"go")

    assert turns == [True, True, True]


@mended(21)
@needs_fork
def test_children_of_the_application_are_left_alone(module: ModuleType) -> None:
    if not (own := os.fork()):
        os._exit(7)
    wait_for_exit(own)

    class Server(module.ForkingTCPServer):
        max_children = 1

        def service_actions(self) -> None:
            super().service_actions()
            if self.active_children == set():
                leave(self)

    try:
        with Server(LOCALHOST, quiet(module, lambda self: None)) as server, visitor(server):
            serve_here(module, server)

        assert is_child(own)
    finally:
        if is_child(own):
            assert os.waitstatus_to_exitcode(os.waitpid(own, 0)[1]) == 7


@mended(23)
@pytest.mark.parametrize("by_hand", [False, True])
def test_client_that_vanishes_before_accept_does_not_block(module: ModuleType, by_hand: bool) -> None:
    """UNP 16.6: the connection that select() announced may be gone by the time of accept()."""
    vanished = threading.Event()

    class Server(module.TCPServer):
        def get_request(self) -> Any:
            if not vanished.is_set():
                self.socket.accept()[0].close()
                vanished.set()
            return super().get_request()

    with Server(LOCALHOST, echo(module)) as server:
        call = Call(server.handle_request) if by_hand else Loop(server)
        with rescued(server), connect(server):
            vanished.wait(patience())
            if not by_hand:
                Call(server.shutdown).outcome()

            assert call.outcome() == "returned None"
            assert server.socket.gettimeout() is None
            assert os.get_blocking(server.fileno())


@mended(23)
def test_accepted_sockets_block_and_the_listener_says_so_too(module: ModuleType) -> None:
    seen: list[Any] = []

    def look(self: Any) -> None:
        request, listener = self.request, self.server.socket
        seen.append((request.gettimeout(), os.get_blocking(request.fileno()), listener.gettimeout()))
        seen.append(os.get_blocking(listener.fileno()))

    with served(module, handler=quiet(module, look)) as server, Loop(server):
        ask(server)

    assert seen == [(None, True, None), False]


@pytest.mark.defect(25, "documented")
def test_request_queue_size_is_the_standard_librarys(module: ModuleType, standard: ModuleType) -> None:
    assert module.TCPServer.request_queue_size == standard.TCPServer.request_queue_size
    assert sys.version_info >= (3, 15) or module.TCPServer.request_queue_size == 5


@opt_in(26)
@pytest.mark.parametrize("base", ["TCPServer", "ThreadingTCPServer"])
def test_collect_errors_keeps_them_instead_of_printing(module: ModuleType, base: str) -> None:
    assert module.BaseServer.collect_errors is False
    with stderr() as text, served(module, base, fail, collect_errors=True) as server:
        assert server.errors == []
        with connect(server) as client:
            serve_one(server)
            read(client)
            ((error, client_address),) = server.errors

            assert (repr(error), client_address) == ("LookupError('on purpose')", client.getsockname())
            assert error.__traceback__ is not None
    assert text.getvalue() == ""


@opt_in(26)
def test_collect_errors_by_default_prints(module: ModuleType, standard: ModuleType) -> None:
    assert module.BaseServer.collect_errors is False
    same_trace("handle_error_prints_on_stderr", module, standard)


@mended(27)
@needs_unix
def test_disable_nagle_on_a_unix_socket_is_no_error(module: ModuleType) -> None:
    handler = echo(module, disable_nagle_algorithm=True)
    with stderr() as text, directory() as folder, module.UnixStreamServer(f"{folder}/socket", handler) as server:
        assert handle_one(server, b"served\n") == "b'SERVED\\n', the end"
    assert text.getvalue() == ""


@opt_in(28)
def test_max_threads_pauses_accepting_at_the_limit(module: ModuleType) -> None:
    assert module.ThreadingMixIn.max_threads is None
    lock, at_work, most, third = threading.Lock(), [0], [0], threading.Event()

    def work(self: Any) -> None:
        with lock:
            at_work[0] += 1
            most[0] = max(most[0], at_work[0])
            if at_work[0] > 2:
                third.set()
        third.wait(GRACE)
        with lock:
            at_work[0] -= 1
        self.request.sendall(b"served")

    with served(module, "ThreadingTCPServer", quiet(module, work), max_threads=2) as server, Loop(server):
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(connect(server)) for _ in range(5)]

            assert [read(client) for client in clients] == ["b'served', the end"] * 5
    assert most == [2]


@opt_in(28)
def test_max_threads_at_the_limit_delays_neither_service_actions_nor_shutdown(module: ModuleType) -> None:
    assert module.ThreadingMixIn.max_threads is None
    gate, turns = Gate(module), threading.Semaphore(0)
    attributes = {"max_threads": 1, "service_actions": lambda self: turns.release()}
    with served(module, "ThreadingTCPServer", gate.handler, **attributes) as server, Loop(server) as loop:
        with connect(server), connect(server):
            gate.reached()
            try:
                assert all([turns.acquire(timeout=patience()) for _ in range(10)])
                assert len(gate.threads) == 1
                assert Call(server.shutdown).outcome() == "returned None"
                assert loop.outcome() == "returned None"
            finally:
                gate.open()


@opt_in(28)
def test_max_threads_by_default_is_no_limit(module: ModuleType) -> None:
    assert module.ThreadingMixIn.max_threads is None
    gate = Gate(module)
    with served(module, "ThreadingTCPServer", gate.handler) as server, Loop(server), contextlib.ExitStack() as stack:
        try:
            for _ in range(50):
                stack.enter_context(connect(server))
                assert gate.reached()
        finally:
            gate.open()


@mended(29)
def test_ended_threads_do_not_stay_listed(module: ModuleType) -> None:
    gate = Gate(module)
    with served(module, "ThreadingTCPServer", gate.handler) as server, contextlib.ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(connect(server))
            serve_one(server)
        gate.reached(5)
        assert len(server._threads) == 5

        gate.open()

        assert len(server._threads) <= 1


# ---------------------------------------------------------------------------------------------------- 30 to 38


@opt_in(30)
def test_join_daemon_threads_waits_for_them_too(module: ModuleType) -> None:
    assert module.ThreadingMixIn.join_daemon_threads is False
    returned = threading.Event()
    seen: list[Any] = []

    def hold(self: Any) -> None:
        until(lambda: is_closed(self.server.socket))
        seen.append((threading.current_thread().daemon, returned.wait(GRACE)))

    server = served(module, "ThreadingTCPServer", quiet(module, hold), daemon_threads=True, join_daemon_threads=True)
    with connect(server):
        serve_one(server)
        server.server_close()
        returned.set()

    assert seen == [(True, False)]


@opt_in(30)
def test_join_daemon_threads_by_default_does_not_wait(module: ModuleType, standard: ModuleType) -> None:
    assert module.ThreadingMixIn.join_daemon_threads is False
    same_trace("server_close_does_not_wait_for_daemons", module, standard)


@opt_in(33)
def test_linger_on_close_lets_the_client_finish(module: ModuleType) -> None:
    """Input unread at close() makes the kernel send RST, on which the client may lose the reply (RFC 2525, 2.17)."""
    assert module.TCPServer.linger_on_close == 0.0
    handler = quiet(module, lambda self: self.request.sendall(b"too long"))
    with served(module, handler=handler, linger_on_close=patience()) as server, connect(server) as client:
        send(client, b"a request that nobody reads", end=False)
        call = Call(server.handle_request)

        assert read(client) == "b'too long', the end"
        client.sendall(b" to its end, which is far")
        client.sendall(b" away")
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        assert call.is_alive()
        client.close()
        assert call.outcome() == "returned None"


@opt_in(33)
def test_linger_on_close_is_bounded(module: ModuleType) -> None:
    assert module.TCPServer.linger_on_close == 0.0
    handler = quiet(module, lambda self: None)
    with served(module, handler=handler, linger_on_close=0.05) as server, connect(server) as client:
        send(client, b"a request that nobody reads", end=False)

        with accepted(server) as requests:
            assert Call(server.handle_request).outcome() == "returned None"
            assert is_closed(requests[0])


@opt_in(33)
def test_linger_on_close_by_default_does_not(module: ModuleType, standard: ModuleType) -> None:
    assert module.TCPServer.linger_on_close == 0.0
    same_trace("unread_input_resets_the_client", module, standard)


@mended(34)
@needs_fork
def test_next_request_collects_the_children_before_it(module: ModuleType) -> None:
    with served(module, "ForkingTCPServer", quiet(module, loiter)) as server:
        with visitor(server):
            serve_one(server)
            (first,) = server.active_children
        wait_for_exit(first)

        with visitor(server):
            serve_one(server)
            zombie = is_child(first)

    assert not zombie


@mended(37)
def test_thread_started_in_the_midst_of_a_sweep_stays_listed(module: ModuleType) -> None:
    """The loop sweeps ended threads from the list while another thread, with a request of its own, adds to it."""
    gate = Gate(module)
    intruders: list[Call] = []

    class Thread(threading.Thread):
        def is_alive(self) -> bool:
            if not intruders:
                intruders.append(Call(server.process_request, None, None))
                intruders[0].join(GRACE)
            return super().is_alive()

    server = served(module, "ThreadingTCPServer", gate.handler, shutdown_request=lambda self, request: None)
    with server:
        try:
            with mock.patch.object(threading, "Thread", Thread):
                for _ in range(40):  # so many that ours sweeps, too
                    server.process_request(None, None)
                assert [intruder.outcome() for intruder in intruders] == ["returned None"]
            assert gate.reached(41)
            assert len(server._threads) == 41
        finally:
            gate.open()
        server.server_close()

    assert gate.ended == [True] * 41


def test_every_defect_has_a_test(request: pytest.FixtureRequest) -> None:
    numbers = {
        mark.args[0]
        for item in request.session.items
        if item.path.parent == request.path.parent  # test_tls.py has defect 31
        for mark in item.iter_markers("defect")
    }
    if len(numbers) < 30:
        pytest.skip("only a part of the suite was collected")

    assert numbers == set(range(1, 39))
