"""Every argument in seconds goes through one check: above 0, a day at most, and never an OverflowError."""

from __future__ import annotations

import decimal
import fractions
import socket
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from pytest_sockserver import (
    Certificate,
    Delay,
    DialogueError,
    Drip,
    SockServer,
    StreamTestServer,
    UnexpectedRequest,
    fault_matrix,
)
from pytest_sockserver.errors.messages import format_seconds
from pytest_sockserver.faults import EndAfter, Jitter, ReadSlowly, Split
from pytest_sockserver.pytest_plugin import settings
from pytest_sockserver.scripting import arguments
from pytest_sockserver.sweeps import splits

from . import insides
from .peers import connect, datagram_client, until
from .plugin_runs import Runner

# The places where seconds are waited for: what is called, and how its message begins.
WAITS: dict[str, Callable[[Any, Any], object]] = {
    "accept": lambda its, seconds: its.tcp.accept(timeout=seconds),
    "next_request": lambda its, seconds: its.udp.next_request(timeout=seconds),
    "wait_for": lambda its, seconds: its.udp.wait_for(timeout=seconds),
    "wait_connection": lambda its, seconds: its.tcp.wait_connection(timeout=seconds),
    "assert_no_traffic": lambda its, seconds: its.udp.assert_no_traffic(seconds),
    "timeout=": lambda its, seconds: its.factory.tcp(timeout=seconds),
    "timeout of all": lambda its, seconds: SockServer(timeout=seconds),
    "server.timeout": lambda its, seconds: setattr(its.tcp, "timeout", seconds),
    "recv": lambda its, seconds: its.conn.recv(timeout=seconds),
    "recv_exactly": lambda its, seconds: its.conn.recv_exactly(1, timeout=seconds),
    "recv_until": lambda its, seconds: its.conn.recv_until(b"x", timeout=seconds),
    "recv_line": lambda its, seconds: its.conn.recv_line(timeout=seconds),
    "recv_all": lambda its, seconds: its.conn.recv_all(timeout=seconds),
    "expect": lambda its, seconds: its.conn.expect(b"x", timeout=seconds),
    "expect_line": lambda its, seconds: its.conn.expect_line(b"x", timeout=seconds),
    "expect_eof": lambda its, seconds: its.conn.expect_eof(timeout=seconds),
    "expect_reset": lambda its, seconds: its.conn.expect_reset(timeout=seconds),
    "send": lambda its, seconds: its.conn.send(b"x", timeout=seconds),
    "start_tls": lambda its, seconds: its.conn.start_tls(Certificate(), timeout=seconds),
    "wait_closed": lambda its, seconds: its.conn.wait_closed(timeout=seconds),
    "wait_received": lambda its, seconds: its.conn.wait_received(b"x", timeout=seconds),
    "script": lambda its, seconds: its.script.expect(b"x", timeout=seconds),
    "future": lambda its, seconds: its.future.result(timeout=seconds),
    "fault_matrix": lambda its, seconds: fault_matrix(print, print, patience=seconds),
}

PARTS: dict[str, Callable[[Any], object]] = {
    "Delay": Delay,
    "Drip": lambda seconds: Drip(b"x", seconds),
    "Split": lambda seconds: Split(b"xy", 1, pause=seconds),
    "Jitter": lambda seconds: Jitter(0, seconds),
    "EndAfter": EndAfter,
    "ReadSlowly": lambda seconds: ReadSlowly(10, seconds),
    "splits": lambda seconds: splits(b"xy", pause=seconds),
}

TOO_LONG = [86_401, 1e12, 10**400, 9_223_372_037]
NO_SECONDS = [-1, float("inf"), float("-inf"), float("nan")]
NO_NUMBERS = [True, "5", b"5", decimal.Decimal(5), fractions.Fraction(1, 2), [5]]


class Its:
    """A server of each kind, a connection that the test has accepted, and a client beside the test."""

    def __init__(self, factory: SockServer) -> None:
        self.factory = factory
        self.tcp, self.udp, accepting, scripted = factory.tcp(), factory.udp(), factory.tcp(), factory.tcp()
        self.client = connect(accepting)
        self.conn = accepting.accept()
        self.script = scripted.script((0, None))
        self.future = self.tcp.in_thread(lambda: 5)

    def __enter__(self) -> Its:
        return self

    def __exit__(self, *error: object) -> None:
        self.client.close()


@pytest.mark.parametrize("seconds", TOO_LONG)
@pytest.mark.parametrize("name", WAITS)
def test_longer_than_a_day_is_refused(sockserver: SockServer, name: str, seconds: Any) -> None:
    with Its(sockserver) as its, pytest.raises(ValueError) as raised:
        WAITS[name](its, seconds)

    assert str(raised.value).endswith(f", and at most 86,400 (a day), not {seconds!r}")


@pytest.mark.parametrize("seconds", NO_SECONDS)
@pytest.mark.parametrize("name", WAITS)
def test_what_is_no_time_is_refused(sockserver: SockServer, name: str, seconds: Any) -> None:
    with Its(sockserver) as its, pytest.raises(ValueError, match="above 0"):
        WAITS[name](its, seconds)


@pytest.mark.parametrize("seconds", NO_NUMBERS)
@pytest.mark.parametrize("name", WAITS)
def test_what_is_no_number_is_refused(sockserver: SockServer, name: str, seconds: Any) -> None:
    with Its(sockserver) as its, pytest.raises(TypeError, match="seconds"):
        WAITS[name](its, seconds)


@pytest.mark.parametrize("seconds", [*TOO_LONG, *NO_SECONDS, 60.1])
@pytest.mark.parametrize("name", PARTS)
def test_a_part_takes_no_longer_than_a_minute(name: str, seconds: Any) -> None:
    with pytest.raises(ValueError) as raised:
        PARTS[name](seconds)

    assert str(raised.value).endswith(f" expected seconds from 0 to 60, not {seconds!r}")


@pytest.mark.parametrize("seconds", NO_NUMBERS)
@pytest.mark.parametrize("name", PARTS)
def test_a_part_takes_a_number(name: str, seconds: Any) -> None:
    with pytest.raises(TypeError, match="expected seconds, 0 or more"):
        PARTS[name](seconds)


def test_a_day_is_not_too_long(sockserver: SockServer) -> None:
    """Whatever waits takes it: a lock, poll(), and the condition under the recorder's lock."""
    server = sockserver.tcp(timeout=86_400)
    with connect(server) as client:
        conn = server.accept(timeout=86_400)
        line = server.in_thread(conn.recv_line, timeout=86_400)
        pushed = server.in_thread(conn.wait_received, b"2\n", timeout=86_400)
        client.sendall(b"1\n2\n")

        assert line.result(timeout=86_400) == b"1\n"
        pushed.result(timeout=86_400)
    with sockserver.udp() as udp, datagram_client(udp) as other:
        other.send(b"x")
        udp.wait_for(timeout=86_400)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_in_a_coroutine(tcp_server: StreamTestServer, backend: str) -> None:
    async def accept() -> None:
        await tcp_server.aio.accept(timeout=1e12)

    with pytest.raises(ValueError, match="and at most 86,400"):
        anyio.run(accept, backend=backend)


def test_a_future_may_be_asked_whether_it_is_over_by_now(tcp_server: StreamTestServer) -> None:
    future = tcp_server.in_thread(tcp_server.wait_connection)

    with pytest.raises(TimeoutError):
        future.result(timeout=0)
    with socket.create_connection(tcp_server.address):
        future.result()


@pytest.mark.parametrize("time", ["86401", "999999999999.5", "9" * 400])
def test_a_time_in_a_dialogue(tcp_server: StreamTestServer, time: str) -> None:
    with pytest.raises(DialogueError) as raised:
        tcp_server.dialogue(f"[{time}] S: hello", timed=True)

    assert str(raised.value).startswith(f"line 1: expected at most 86,400 seconds (a day) in brackets, not [{time}]\n")


def test_the_marker_the_flag_and_the_setting(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Runner(pytester, monkeypatch)
    text = "timeout must be above 0 seconds and finite, and at most 86,400 (a day), not 1000000000000.0"

    marked = run(
        """
        import pytest

        @pytest.mark.sockserver(timeout=1e12)
        def test_marked(tcp_server):
            pass
        """
    )
    assert f"ValueError: {text}" in marked.stdout
    assert "test_it.py:3: ValueError" in marked.stdout

    flagged = run.outside(None, "--sockserver-timeout=1e12")
    said = "--sockserver-timeout: expected seconds above 0, and at most 86,400 (a day), not '1e12'"
    assert said in " ".join(flagged.stderr.split())

    pytester.makeini("[pytest]\nsockserver_timeout = 1e12")
    assert f"sockserver_timeout: {text}" in run.outside().stderr


def test_the_plugin_knows_the_bound_without_an_import() -> None:
    assert settings.LONGEST_WAIT == arguments.LONGEST_WAIT


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(20, "20 s"), (20.0, "20 s"), (0.25, "0.25 s"), (5e-05, "0.00005 s"), (86_400, "86,400 s"), (1e6, "1,000,000 s")],
)
def test_a_time_is_written_without_an_exponent(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_a_quiet_time_is_written_without_an_exponent(udp_server: Any) -> None:
    def speak() -> None:
        until(lambda: insides.waiting(udp_server), "assert_no_traffic()")
        with datagram_client(udp_server) as client:
            client.send(b"x")

    speaking = udp_server.in_thread(speak)

    with pytest.raises(UnexpectedRequest, match=r"expected nothing for 86,000 s\n  got something"):
        udp_server.assert_no_traffic(86_000.0)
    speaking.result()
