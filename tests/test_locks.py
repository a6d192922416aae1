"""Code of the user runs under no lock of ours: it may need a lock of its own, take its time, or never end."""

from __future__ import annotations

import asyncio
import re
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

import pytest
import trustme

from pytest_sockserver import (
    ANY,
    DATA,
    EOF,
    Connection,
    DatagramTestServer,
    DeadlineExceeded,
    Gate,
    HandlerStuck,
    InvalidState,
    Request,
    ServerFailed,
    SockServer,
    StreamTestServer,
)
from pytest_sockserver import socketserver as framework
from pytest_sockserver.connection import cutting

from . import insides
from .peers import PATIENCE, connect, datagram_client, read_exactly, read_to_end, until

# Seconds.  What does not wait for anything takes a millisecond.
AT_ONCE = 2.0


class Slow:
    """Code of the user that takes its time: it says that it was called, and waits to be let go."""

    def __init__(self) -> None:
        self.called, self.go = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.called.set()
        assert self.go.wait(PATIENCE), "it was never let go"


class Crossing:
    """Two locks in both orders: code of the user takes its own; a thread that has that one needs the server's.

    If the code were called under a lock of the server's, it would wait for its own in vain.
    """

    def __init__(self, server: Any, *, theirs_first: bool) -> None:
        self._lock, self._theirs_first = threading.Lock(), theirs_first
        self._called, self._held = threading.Event(), threading.Event()
        self._server = server
        self.crossed: list[bool] = []

    def code(self) -> None:
        """Be the code of the user."""
        if self.crossed:
            return  # one crossing is enough
        self._called.set()
        assert self._held.wait(PATIENCE)
        got = self._lock.acquire(timeout=PATIENCE)
        self.crossed.append(got)
        if got:
            self._lock.release()

    def _other(self) -> None:
        if not self._theirs_first:
            assert self._called.wait(PATIENCE)
        with self._lock:
            self._held.set()
            assert self._called.wait(PATIENCE)
            assert isinstance(self._server.requests, list)  # which takes the recorder's lock
            insides.is_idle(self._server)  # and the locks of its connections

    @contextmanager
    def __call__(self) -> Iterator[None]:
        other = threading.Thread(target=self._other)
        other.start()
        if self._theirs_first:
            assert self._held.wait(PATIENCE)
        yield
        other.join(2 * PATIENCE)
        assert not other.is_alive()
        assert self.crossed == [True], "the code of the user could not have its own lock"


@pytest.fixture(params=[True, False], ids=["theirs-first", "ours-first"])
def order(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def echo(conn: Connection) -> None:
    while True:
        conn.send(conn.recv_line())


class EchoClass(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line)


def framing_that(does: Callable[[bytes], object]) -> Any:
    """Return a framing of lines that does something with each of them."""

    def its_lines() -> Any:
        line = yield b"\n"
        does(line)

    return its_lines


# Two locks, in both orders


@pytest.mark.parametrize("verb", ["wait_for", "next_request"])
@pytest.mark.parametrize("fixture", ["tcp_server", "udp_server", "unix_server", "unix_datagram_server", "tls_server"])
def test_a_predicate_and_another_thread_share_a_lock(
    request: pytest.FixtureRequest, fixture: str, verb: str, order: bool
) -> None:
    server = request.getfixturevalue(fixture)
    crossing = Crossing(server, theirs_first=order)

    def known(request: Request) -> bool:
        crossing.code()
        return True

    streams = isinstance(server, StreamTestServer)
    if streams:
        server.handler(echo)
    with connect(server) if streams else datagram_client(server) as plain:
        client = server.client_context().wrap_socket(plain, server_hostname="localhost") if "tls" in fixture else plain
        with client, crossing():
            client.sendall(b"x\n")
            assert getattr(server, verb)(known) == b"x\n"


@pytest.mark.asyncio
async def test_a_predicate_in_a_coroutine_and_another_thread_share_a_lock(
    tcp_server: StreamTestServer, order: bool
) -> None:
    crossing = Crossing(tcp_server, theirs_first=order)
    tcp_server.handler(echo)

    def known(request: Request) -> bool:
        crossing.code()
        return True

    with connect(tcp_server) as client, crossing():
        client.sendall(b"x\n")
        assert await tcp_server.aio.next_request(known) == b"x\n"


def test_the_predicate_of_a_rule_and_another_thread_share_a_lock(tcp_server: StreamTestServer, order: bool) -> None:
    crossing = Crossing(tcp_server, theirs_first=order)
    tcp_server.framing = framing_that(bool)
    tcp_server.on(lambda request: crossing.code() or True, times=1).reply(b"ok\n")

    with connect(tcp_server) as client, crossing():
        client.sendall(b"x\n")
        assert read_exactly(client, 3) == b"ok\n"


def test_a_reply_function_and_another_thread_share_a_lock(tcp_server: StreamTestServer, order: bool) -> None:
    crossing = Crossing(tcp_server, theirs_first=order)
    tcp_server.on(b"x\n").reply(lambda request: crossing.code() or b"ok\n")

    with connect(tcp_server) as client, crossing():
        client.sendall(b"x\n")
        assert read_exactly(client, 3) == b"ok\n"


def test_an_injection_and_another_thread_share_a_lock(tcp_server: StreamTestServer, order: bool) -> None:
    crossing = Crossing(tcp_server, theirs_first=order)
    tcp_server.handler(echo)
    tcp_server.inject(lambda data: crossing.code() or data.upper())

    with connect(tcp_server) as client, crossing():
        client.sendall(b"x\n")
        assert read_exactly(client, 2) == b"X\n"


def test_an_injection_of_datagrams_and_another_thread_share_a_lock(udp_server: DatagramTestServer, order: bool) -> None:
    crossing = Crossing(udp_server, theirs_first=order)
    udp_server.on(ANY).reply(b"ok")
    udp_server.inject(lambda data: crossing.code() or data, direction="received")

    with datagram_client(udp_server) as client, crossing():
        client.send(b"x")
        assert client.recv(10) == b"ok"


@pytest.mark.parametrize("at", ["wrap_socket", "sni_callback"])
def test_a_tls_context_of_the_users_own_and_another_thread_share_a_lock(
    sockserver: SockServer, at: str, order: bool
) -> None:
    class Context(ssl.SSLContext):
        def wrap_socket(self, *args: Any, **options: Any) -> ssl.SSLSocket:
            if at == "wrap_socket":
                crossing.code()
            return super().wrap_socket(*args, **options)

    authority = trustme.CA()
    context = Context(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    if at == "sni_callback":
        context.sni_callback = lambda *asked: crossing.code()
    server = sockserver.tls(tls=context)
    server.handler(echo)
    crossing = Crossing(server, theirs_first=order)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)

    with crossing(), connect(server) as plain, trusting.wrap_socket(plain, server_hostname="localhost") as client:
        client.sendall(b"x\n")
        assert read_exactly(client, 2) == b"x\n"


def test_a_value_of_a_dialogue_and_another_thread_share_a_lock(tcp_server: StreamTestServer, order: bool) -> None:
    crossing = Crossing(tcp_server, theirs_first=order)
    tcp_server.dialogue(r"S: \g<word>", word=lambda conn: crossing.code() or b"ok")

    with crossing(), connect(tcp_server) as client:
        assert read_exactly(client, 4) == b"ok\r\n"


@pytest.mark.parametrize("declared", ["nothing", "class", "handler", "rules"])
@pytest.mark.parametrize("fixture", ["tcp_server", "unix_server"])
def test_a_framing_and_another_thread_share_a_lock(
    request: pytest.FixtureRequest, fixture: str, declared: str, order: bool
) -> None:
    server: StreamTestServer = request.getfixturevalue(fixture)
    crossing = Crossing(server, theirs_first=order)
    server.framing = framing_that(lambda line: crossing.code())
    if declared == "class":
        server.handler(EchoClass)
    elif declared == "handler":
        server.handler(lambda conn: [None for _ in conn.frames()].clear())
    elif declared == "rules":
        server.on(ANY).reply(b"ok\n")

    with connect(server) as client, crossing():
        client.sendall(b"x\n")
        assert server.wait_for() == b"x\n"


def test_the_framing_of_what_ends_with_the_stream_and_another_thread_share_a_lock(
    tcp_server: StreamTestServer, order: bool
) -> None:
    crossing = Crossing(tcp_server, theirs_first=order)

    def rest() -> Any:
        yield EOF
        crossing.code()

    tcp_server.framing = rest
    with crossing():
        with connect(tcp_server) as client:
            client.sendall(b"x")
        assert tcp_server.wait_for() == b"x"


def test_the_framing_of_what_a_stop_ends_and_another_thread_share_a_lock(
    tcp_server: StreamTestServer, order: bool
) -> None:
    crossing = Crossing(tcp_server, theirs_first=order)

    def rest() -> Any:
        yield EOF
        crossing.code()

    tcp_server.framing = rest
    with connect(tcp_server) as client:
        client.sendall(b"x")
        tcp_server.wait_connection().wait_received(b"x")
        with crossing():
            tcp_server.stop()
    assert tcp_server.requests == [b"x"]


class Told(Exception):
    """Its text takes a lock of the user's."""

    def __init__(self, crossing: Crossing) -> None:
        super().__init__()
        self._crossing = crossing

    def __str__(self) -> str:
        self._crossing.code()
        return "told"


def test_the_text_of_an_expected_failure_and_another_thread_share_a_lock(
    tcp_server: StreamTestServer, order: bool
) -> None:
    crossing = Crossing(tcp_server, theirs_first=order)

    @tcp_server.handler
    def fail(conn: Connection) -> None:
        conn.recv_line()
        raise Told(crossing)

    with crossing(), tcp_server.raises(Told, match="told"), connect(tcp_server) as client:
        client.sendall(b"x\n")


def test_the_text_of_a_failure_that_ends_a_wait_and_another_thread_share_a_lock(
    udp_server: DatagramTestServer, order: bool
) -> None:
    crossing = Crossing(udp_server, theirs_first=order)
    insides.add_failure(udp_server, Told(crossing), "here")

    with crossing(), pytest.raises(ServerFailed, match="Told: told"):
        udp_server.wait_for()

    with pytest.raises(Told):
        udp_server.verify()


def test_the_truth_of_what_a_predicate_returns_is_asked_without_a_lock(
    tcp_server: StreamTestServer, order: bool
) -> None:
    crossing = Crossing(tcp_server, theirs_first=order)
    tcp_server.handler(echo)

    class Found:
        def __bool__(self) -> bool:
            crossing.code()
            return True

    with connect(tcp_server) as client, crossing():
        client.sendall(b"x\n")
        assert tcp_server.wait_for(lambda request: Found()) == b"x\n"


class Owned:
    """What the user has given us, and what is done when it goes."""

    def __init__(self, crossing: Crossing) -> None:
        self._crossing = crossing

    def __call__(self, what: Any) -> None:
        """Be a handler, or a predicate."""

    def __del__(self) -> None:
        self._crossing.code()


def test_a_request_that_clear_lets_go_is_finalized_without_a_lock(udp_server: DatagramTestServer, order: bool) -> None:
    crossing = Crossing(udp_server, theirs_first=order)
    with datagram_client(udp_server) as client:
        client.send(b"x")
        udp_server.wait_for().mine = Owned(crossing)  # type: ignore[attr-defined]

    with crossing():
        udp_server.clear()


@pytest.mark.parametrize("declared", ["handler", "rule", "injection"])
def test_what_was_declared_and_clear_lets_go_is_finalized_without_a_lock(
    tcp_server: StreamTestServer, declared: str, order: bool
) -> None:
    crossing = Crossing(tcp_server, theirs_first=order)
    if declared == "handler":
        tcp_server.handler(Owned(crossing))
    elif declared == "rule":
        tcp_server.on(Owned(crossing))
    else:
        tcp_server.inject(Owned(crossing))

    with crossing():
        tcp_server.clear()


def test_a_handler_that_another_one_replaces_is_finalized_without_a_lock(
    tcp_server: StreamTestServer, order: bool
) -> None:
    crossing = Crossing(tcp_server, theirs_first=order)
    tcp_server.handler(Owned(crossing))

    with crossing():
        tcp_server.handler(echo)


# Another client is served meanwhile


@pytest.mark.parametrize("verb", ["wait_for", "next_request"])
def test_a_slow_predicate_holds_up_no_other_client(tcp_server: StreamTestServer, verb: str) -> None:
    slow = Slow()
    tcp_server.handler(echo)
    with connect(tcp_server) as first, connect(tcp_server) as second:
        first.sendall(b"slow\n")
        waiting = tcp_server.in_thread(lambda: getattr(tcp_server, verb)(lambda each: each == b"slow\n" and not slow()))
        assert slow.called.wait(PATIENCE)

        second.sendall(b"quick\n")
        assert read_exactly(second, 6) == b"quick\n"
        assert tcp_server.wait_for(b"quick\n", timeout=AT_ONCE) == b"quick\n"
        with pytest.raises(DeadlineExceeded):
            tcp_server.wait_for(b"never\n", timeout=0.05)
        slow.go.set()

        assert waiting.result() == b"slow\n"


@pytest.mark.parametrize("kind", ["predicate", "reply"])
def test_a_slow_rule_holds_up_no_other_client(tcp_server: StreamTestServer, kind: str) -> None:
    slow = Slow()
    tcp_server.framing = framing_that(bool)
    if kind == "predicate":
        tcp_server.on(lambda each: each == b"slow\n" and not slow()).reply(b"slow\n")
    else:
        tcp_server.on(b"slow\n").reply(lambda each: slow() or each)
    tcp_server.on(b"quick\n").reply(b"quick\n")
    with connect(tcp_server) as first, connect(tcp_server) as second:
        first.sendall(b"slow\n")
        assert slow.called.wait(PATIENCE)
        second.sendall(b"quick\n")
        assert read_exactly(second, 6) == b"quick\n"
        slow.go.set()
        assert read_exactly(first, 5) == b"slow\n"


@pytest.mark.parametrize("declared", ["nothing", "class", "handler"])
def test_a_slow_framing_holds_up_no_other_client(tcp_server: StreamTestServer, declared: str) -> None:
    slow = Slow()
    tcp_server.framing = framing_that(lambda line: slow() if line == b"slow\n" else None)
    if declared == "class":
        tcp_server.handler(EchoClass)
    if declared == "handler":
        tcp_server.handler(lambda conn: [conn.send(each) for each in conn.frames()].clear())
    with connect(tcp_server) as first, connect(tcp_server) as second:
        first.sendall(b"slow\n")
        assert slow.called.wait(PATIENCE)

        second.sendall(b"quick\n")
        assert tcp_server.wait_for(b"quick\n", timeout=AT_ONCE) == b"quick\n"
        if declared != "nothing":
            assert read_exactly(second, 6) == b"quick\n"
        first.sendall(b"more\n")  # which waits for the framing, in order
        if declared == "nothing":
            tcp_server.connections[0].wait_received(b"more\n", timeout=AT_ONCE)
        slow.go.set()

        assert tcp_server.wait_for(b"more\n") == b"more\n"
        assert tcp_server.connections[0].requests == [b"slow\n", b"more\n"]


def test_a_slow_predicate_holds_up_no_other_wait_and_no_stop(tcp_server: StreamTestServer) -> None:
    slow = Slow()
    tcp_server.handler(echo)
    with connect(tcp_server) as client:
        client.sendall(b"slow\n")
        blocked = threading.Thread(target=lambda: tcp_server.wait_for(lambda each: not slow()))
        blocked.start()
        assert slow.called.wait(PATIENCE)
        other = tcp_server.in_thread(lambda: tcp_server.wait_for(b"never\n"))
        until(lambda: insides.waiting(tcp_server) == 2)

        began = monotonic()
        tcp_server.stop()

        assert monotonic() - began < AT_ONCE
        with pytest.raises(InvalidState, match="nothing more will come"):
            other.result()
        slow.go.set()
        blocked.join(PATIENCE)


def test_a_framing_that_never_ends_is_named_by_the_stop_in_time(tcp_server: StreamTestServer) -> None:
    slow = Slow()
    tcp_server.framing = framing_that(lambda line: slow())
    with connect(tcp_server) as client:
        client.sendall(b"x\n")
        assert slow.called.wait(PATIENCE)
        tcp_server.timeout = tcp_server.stop_timeout = 0.2

        tcp_server.stop()

        with pytest.raises(
            HandlerStuck, match=r"a framing did not end within .* #0 frames' .*stands at test_locks\.py:"
        ):
            tcp_server.verify()
        slow.go.set()
        until(lambda: not any("frames" in thread.name for thread in threading.enumerate()))


def test_frames_that_came_before_an_accept_are_not_kept_after_it(tcp_server: StreamTestServer) -> None:
    """The framing is still at work when the test accepts: what it makes of the bytes is the test's to read anew."""
    slow = Slow()
    tcp_server.framing = framing_that(lambda line: slow())
    with connect(tcp_server) as client:
        client.sendall(b"x\n")
        assert slow.called.wait(PATIENCE)
        conn = tcp_server.accept()
        slow.go.set()
        until(lambda: not any("frames" in thread.name for thread in threading.enumerate()))

        assert tcp_server.requests == []
        assert conn.recv_line() == b"x\n"
        assert tcp_server.requests == [b"x\n"]


def test_the_frames_of_several_connections_stay_in_the_order_of_their_arrival(
    tcp_server: StreamTestServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cutting, "PATIENCE", PATIENCE)
    pause = threading.Event()
    tcp_server.framing = framing_that(lambda line: line == b"1\n" and pause.wait(0.05))
    with connect(tcp_server) as first, connect(tcp_server) as second:
        first.sendall(b"1\n")
        tcp_server.wait_connection().wait_received(b"1\n")
        second.sendall(b"2\n")
        tcp_server.wait_for(count=2)
    assert tcp_server.requests == [b"1\n", b"2\n"]


def test_what_pytest_raises_in_a_framing_is_a_failure_and_the_others_are_read_on(tcp_server: StreamTestServer) -> None:
    tcp_server.framing = framing_that(lambda line: pytest.fail("no") if line == b"bad\n" else None)
    with connect(tcp_server) as first, connect(tcp_server) as second:
        with tcp_server.raises(pytest.fail.Exception, match="no"):
            first.sendall(b"bad\n")
        second.sendall(b"good\n")
        assert tcp_server.wait_for() == b"good\n"


# What a wait promises all the same


def test_a_predicate_is_called_once_for_each_request_by_one_wait(tcp_server: StreamTestServer) -> None:
    """Also where requests are forgotten meanwhile, those of a connection that is accepted."""
    tcp_server.framing = framing_that(bool)
    seen: list[bytes] = []

    def third(request: Request) -> bool:
        seen.append(bytes(request))
        return request == b"3\n"

    with connect(tcp_server) as first, connect(tcp_server) as second:
        second.sendall(b"1\n")
        tcp_server.wait_for(b"1\n")
        first.sendall(b"0\n")
        tcp_server.wait_for(b"0\n")
        waiting = tcp_server.in_thread(lambda: tcp_server.wait_for(third))
        until(lambda: len(seen) == 2)
        assert tcp_server.accept() is tcp_server.connections[0]
        second.sendall(b"2\n")
        until(lambda: b"2\n" in seen)
        second.sendall(b"3\n")

        assert waiting.result() == b"3\n"
    assert seen == [b"1\n", b"0\n", b"2\n", b"3\n"]


def test_each_request_is_taken_once_however_slow_the_predicates_are(udp_server: DatagramTestServer) -> None:
    """Both takers choose the first request; the one that is late takes the next, and asks no predicate twice."""
    both = threading.Barrier(2, timeout=PATIENCE)
    seen: list[tuple[int, bytes]] = []

    def taker(number: int) -> Request:
        def wanted(request: Request) -> bool:
            seen.append((number, bytes(request)))
            if request == b"1":
                both.wait()
            return True

        return udp_server.next_request(wanted)

    takers = [udp_server.in_thread(taker, number) for number in range(2)]
    with datagram_client(udp_server) as client:
        client.send(b"1")
        until(lambda: len(seen) == 2)
        client.send(b"2")
        assert sorted(each.result() for each in takers) == [b"1", b"2"]
    assert len(seen) == len(set(seen)) == 3


def test_take_gives_the_earliest_that_matches(udp_server: DatagramTestServer) -> None:
    with datagram_client(udp_server) as client:
        for number in range(6):
            client.send(b"%d" % number)
        udp_server.wait_for(count=6)

        assert udp_server.next_request(lambda each: int(each) % 2 == 1) == b"1"
        assert udp_server.next_request() == b"0"
        assert udp_server.next_request(b"4") == b"4"
        assert [udp_server.next_request() for _ in range(3)] == [b"2", b"3", b"5"]


def test_what_came_within_the_time_is_found_by_a_predicate_that_takes_longer(udp_server: DatagramTestServer) -> None:
    with datagram_client(udp_server) as client:
        client.send(b"1")
        client.send(b"2")
        udp_server.wait_for(count=2)
        pause = threading.Event()

        assert udp_server.wait_for(lambda each: not pause.wait(0.1) and each == b"2", timeout=0.05) == b"2"


def test_what_comes_while_a_predicate_decides_is_not_slept_over(udp_server: DatagramTestServer) -> None:
    slow = Slow()
    with datagram_client(udp_server) as client:
        client.send(b"1")
        waiting = udp_server.in_thread(
            lambda: udp_server.wait_for(lambda each: (each == b"1" and slow()) or each == b"2")
        )
        assert slow.called.wait(PATIENCE)
        client.send(b"2")
        until(lambda: len(udp_server.requests) == 2)
        slow.go.set()
        assert waiting.result(AT_ONCE) == b"2"


def test_what_a_predicate_raises_ends_its_wait_alone(udp_server: DatagramTestServer) -> None:
    def broken(request: Request) -> bool:
        raise LookupError("mine")

    with datagram_client(udp_server) as client:
        client.send(b"1")
        with pytest.raises(LookupError, match="mine"):
            udp_server.next_request(broken)
        assert udp_server.next_request() == b"1"


def test_a_predicate_may_wait_itself(udp_server: DatagramTestServer) -> None:
    with datagram_client(udp_server) as client:
        client.send(b"1")
        assert udp_server.wait_for(lambda each: udp_server.wait_for(b"1") == each) == b"1"


def test_an_expectation_that_ends_leaves_its_equal_alone(tcp_server: StreamTestServer) -> None:
    @tcp_server.handler
    def fail(conn: Connection) -> None:
        conn.recv_line()
        raise ValueError("mine")

    with tcp_server.raises(ValueError) as outer:
        with pytest.raises(LookupError), tcp_server.raises(ValueError):
            raise LookupError
        with connect(tcp_server) as client:
            client.sendall(b"x\n")
    assert str(outer.value) == "mine"


# A turn to send


def test_a_push_that_waits_for_a_reply_says_which_and_where(tcp_server: StreamTestServer) -> None:
    slow = Slow()
    rule = tcp_server.on(b"slow\n")
    rule.reply(lambda request: slow() or b"ok\n")
    with connect(tcp_server) as client:
        client.sendall(b"slow\n")
        assert slow.called.wait(PATIENCE)

        with pytest.raises(DeadlineExceeded) as raised:
            tcp_server.connections[0].send(b"push\n", timeout=0.2)

        slow.go.set()
        assert read_exactly(client, 3) == b"ok\n"
    said = str(raised.value.summary)
    thread = re.escape(f"sockserver tcp 127.0.0.1:{tcp_server.port} #0")
    assert re.fullmatch(
        r"send\(\) waited 0\.2 s for its turn: the reply of rule 1 \(test_locks\.py:\d+\) is under way "
        rf"in thread '{thread}', at test_locks\.py:\d+",
        said,
    ), said


@pytest.mark.parametrize("verb", ["send", "send_eof"])
def test_a_verb_that_waits_for_a_part_says_which_and_where(tcp_server: StreamTestServer, verb: str) -> None:
    with connect(tcp_server) as client:
        conn = tcp_server.accept()
        pushing = tcp_server.in_thread(lambda: conn.send(b"a", Gate("go"), b"b"))
        assert read_exactly(client, 1) == b"a"
        insides.set_timeout(conn, 0.2)

        with pytest.raises(DeadlineExceeded) as raised:
            conn.send(b"c") if verb == "send" else conn.send_eof()

        tcp_server.open_gate("go")
        pushing.result()
    said = str(raised.value.summary)
    assert re.fullmatch(
        rf"{verb}\(\) waited 0\.2 s for its turn: a send is under way in thread '.* client', "
        r"at test_locks\.py:\d+: Gate\('go'\)",
        said,
    ), said


def test_a_reply_that_waits_for_a_push_says_which_and_where(tcp_server: StreamTestServer) -> None:
    tcp_server.on(b"x\n").reply(b"ok\n")
    with connect(tcp_server) as client:
        conn = tcp_server.wait_connection()
        insides.set_timeout(conn, 0.2)
        pushing = tcp_server.in_thread(lambda: conn.send(b"a", Gate("go"), timeout=PATIENCE))
        assert read_exactly(client, 1) == b"a"
        client.sendall(b"x\n")
        with tcp_server.raises(
            DeadlineExceeded, match=r"a reply waited 0\.2 s for its turn: a send .* at test_locks\.py"
        ):
            pass
        tcp_server.open_gate("go")
        pushing.exception()


@pytest.mark.asyncio
async def test_a_coroutine_that_waits_for_another_says_where_that_stands(tcp_server: StreamTestServer) -> None:
    with connect(tcp_server):
        conn = await tcp_server.aio.accept()

        async def push() -> None:
            await conn.send(b"a", Gate("go"), b"b")

        pushing = asyncio.ensure_future(push())
        while not insides.is_written(conn):
            await asyncio.sleep(0)
        with pytest.raises(DeadlineExceeded) as raised:
            await conn.send(b"c", timeout=0.2)
        tcp_server.open_gate("go")
        await pushing
    said = str(raised.value.summary)
    assert re.fullmatch(
        r"send\(\) waited 0\.2 s for its turn: a send is under way in thread 'MainThread', "
        r"awaited at test_locks\.py:\d+: Gate\('go'\)",
        said,
    ), said


def test_a_handler_class_that_waits_for_a_push_says_where_that_stands(tcp_server: StreamTestServer) -> None:
    raised: list[BaseException] = []
    ready = threading.Event()

    class Late(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            assert ready.wait(PATIENCE)
            try:
                self.request.sendall(b"x")
            except TimeoutError as error:
                raised.append(error)

    tcp_server.handler(Late)
    tcp_server.inject(DATA)
    with connect(tcp_server) as client:
        conn = tcp_server.wait_connection()
        pushing = tcp_server.in_thread(lambda: conn.send(b"a", Gate("go")))
        assert read_exactly(client, 1) == b"a"
        insides.set_timeout(conn, 0.2)
        ready.set()
        until(lambda: bool(raised))
        tcp_server.open_gate("go")
        pushing.exception()
    assert re.match(
        r"timed out: a send is under way in thread '.* client', at test_locks\.py:\d+: Gate", str(raised[0])
    )


# The framework


def test_a_request_of_the_applications_own_is_ended_and_closed_without_a_lock() -> None:
    """What ``get_request()`` returns need not be a socket: its methods are the application's."""
    slow = Slow()

    class Wrapped:
        def __init__(self, sock: socket.socket) -> None:
            self.sock = sock

        def __getattr__(self, name: str) -> Any:
            return getattr(self.sock, name)

        def close(self) -> None:
            slow()
            self.sock.close()

    class Server(framework.ThreadingTCPServer):
        end_connections_on_close = True
        daemon_threads = True

        def get_request(self) -> Any:
            sock, address = super().get_request()
            return Wrapped(sock), address

    class Handler(framework.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1)

    with Server(("127.0.0.1", 0), Handler) as server:
        loop = threading.Thread(target=server.serve_forever)
        loop.start()
        first, second = (socket.create_connection(server.server_address, PATIENCE) for _ in range(2))
        with first, second:
            first.sendall(b"x")
            assert slow.called.wait(PATIENCE)
            until(
                lambda: insides.threads_of_requests(server).count_running() == 2
            )  # else the second is still in the queue
            ended = threading.Thread(target=server.server_close)
            ended.start()
            assert read_to_end(second) == b""  # ended, although the first is being closed
            slow.go.set()
            ended.join(PATIENCE)
        loop.join(PATIENCE)
        until(lambda: insides.threads_of_requests(server).count_running() == 0)
