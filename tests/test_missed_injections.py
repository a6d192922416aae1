"""An injection that a test declared, and that has hit nothing, fails the test; one of a fixture is a condition."""

from __future__ import annotations

import asyncio
import re
import socket
from typing import Any

import pytest

from pytest_sockserver import (
    DATA,
    Close,
    Cut,
    DatagramTestServer,
    Delay,
    Drip,
    Reset,
    SockServer,
    StreamTestServer,
    UnmetExpectation,
)

from .peers import connect, datagram_client, read_to_end
from .plugin_runs import OURS, Runner


@pytest.fixture
def inner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Runner:
    return Runner(pytester, monkeypatch)


def echo(conn: Any) -> None:
    while data := conn.recv():
        conn.send(data)


def missed(server: StreamTestServer | DatagramTestServer) -> str:
    """Return what ``verify()`` says of the injection that missed, without its place and the conversation."""
    with pytest.raises(UnmetExpectation) as caught:
        server.verify()
    assert caught.value.summary is not None
    return re.sub(r"\w+\.py:\d+", "here", caught.value.summary)


def exchange(server: StreamTestServer, *data: bytes) -> None:
    with connect(server) as client:
        for each in data:
            client.sendall(each)
            assert client.recv(9) == each


# What the error says


def test_an_index_beyond_all_writes_is_told_with_their_number(tcp_server: StreamTestServer) -> None:
    tcp_server.handler(echo)
    tcp_server.inject(Cut(DATA, 1), at=99)

    exchange(tcp_server, b"a", b"b", b"c")

    assert missed(tcp_server) == (
        "inject(Cut(DATA, 1), at=[99]), here, was to hit at least once, and never did\n"
        "  since then 3 writes were made: 3 on connection 0\n"
        "  if it may miss, write times=(0, None)"
    )


def test_a_connection_that_never_came_is_told(tcp_server: StreamTestServer) -> None:
    tcp_server.handler(echo)
    tcp_server.inject(Reset(), connections=[5], times=2)

    exchange(tcp_server, b"a")
    exchange(tcp_server, b"a")

    assert missed(tcp_server) == (
        "inject(Reset(), connections=[5], times=2), here, was to hit at least once, and never did\n"
        "  since then 2 writes were made: 1 on connection 0, 1 on connection 1\n"
        "  if it may miss, write times=(0, 2)"
    )


def test_a_server_without_a_client_is_told(tcp_server: StreamTestServer) -> None:
    tcp_server.inject(Delay(0.1), DATA)

    assert "\n  since then 0 writes were made\n" in missed(tcp_server)


def test_datagrams_are_counted_over_all_peers(udp_server: DatagramTestServer) -> None:
    udp_server.on(b"a").reply(b"A")
    udp_server.inject(at=2)
    udp_server.inject(direction="received", at=7)

    for _ in range(2):
        with datagram_client(udp_server) as client:
            client.send(b"a")
            assert client.recv(9) == b"A"

    with pytest.raises(BaseException) as caught:
        udp_server.verify()
    one, other = caught.value.exceptions  # type: ignore[attr-defined]
    assert "inject(at=[2])" in str(one) and "\n  since then 2 datagrams were sent\n" in str(one)
    assert "direction='received', at=[7]" in str(other) and "\n  since then 2 datagrams came\n" in str(other)


def test_where_nothing_answers_no_fault_is_injected_into_what_is_received(udp_server: DatagramTestServer) -> None:
    udp_server.inject(direction="received", at=0)

    with datagram_client(udp_server) as client:
        client.send(b"x")
        assert udp_server.next_request() == b"x"

    assert missed(udp_server).endswith(
        "since then 0 datagrams came\n  nothing is declared that answers, and faults are injected into what that would "
        "receive: the record, next_request() and wait_for() have what the client sent\n"
        "  if it may miss, write times=(0, None)"
    )


def test_a_detached_connection_is_told(tcp_server: StreamTestServer) -> None:
    @tcp_server.handler
    def detach(conn: Any) -> None:
        sock = conn.detach()
        with sock:
            sock.sendall(b"hello")

    tcp_server.inject(Cut(DATA, 1))
    with connect(tcp_server) as client:
        assert read_to_end(client) == b"hello"

    assert missed(tcp_server) == (
        "inject(Cut(DATA, 1)), here, was to hit at least once, and never did\n"
        "  since then 0 writes were made\n"
        "  connection 0 was detached: no fault is injected into what its socket sends and receives\n"
        "  if it may miss, write times=(0, None)"
    )


def test_one_in_the_shadow_of_a_later_one_is_told(tcp_server: StreamTestServer) -> None:
    tcp_server.handler(echo)
    tcp_server.inject(Close())
    tcp_server.inject(DATA)

    exchange(tcp_server, b"a", b"b")

    assert missed(tcp_server) == (
        "inject(Close()), here, was to hit at least once, and never did\n"
        "  since then 2 writes were made: 2 on connection 0\n"
        "  2 of them went to the later inject(DATA), here\n"
        "  if it may miss, write times=(0, None)"
    )


def test_what_never_received_a_byte_is_told(tcp_server: StreamTestServer) -> None:
    tcp_server.handler(echo)
    tcp_server.inject(Drip(DATA, 0.01), direction="received")

    with connect(tcp_server) as client:
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(client) == b""

    assert missed(tcp_server) == (
        "inject(Drip(DATA, 0.01), direction='received'), here, was to hit at least once, and never did\n"
        "  since then 1 connection was read, 1 of which brought nothing\n"
        "  if it may miss, write times=(0, None)"
    )


def test_what_is_done_without_a_byte_has_hit(tcp_server: StreamTestServer) -> None:
    tcp_server.handler(echo)
    tcp_server.inject(Reset(), direction="received")

    with pytest.raises(ConnectionResetError), connect(tcp_server) as client:  # which may learn of it that early
        client.recv(9)

    tcp_server.verify()


@pytest.mark.parametrize("declared", ["before", "after the connection"])
def test_a_byte_that_was_received_and_lost_is_a_hit(tcp_server: StreamTestServer, declared: str) -> None:
    tcp_server.handler(echo)
    with connect(tcp_server) as client:
        if declared != "before":
            tcp_server.wait_connection()
        tcp_server.inject(direction="received")
        client.sendall(b"a")
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(client) == b""

    tcp_server.verify()


# How often


def test_one_of_several_indices_is_enough(tcp_server: StreamTestServer) -> None:
    tcp_server.handler(echo)
    tcp_server.inject(DATA, at=[0, 50])

    exchange(tcp_server, b"a")

    tcp_server.verify()


def test_times_are_verified(tcp_server: StreamTestServer) -> None:
    tcp_server.handler(echo)
    tcp_server.inject(DATA, times=(2, 3))
    assert repr(tcp_server.inject(DATA, times=(0, 3), at=9)) == "<inject(DATA, at=[9], times=(0, 3)), hit 0 times>"

    exchange(tcp_server, b"a")

    assert missed(tcp_server).startswith(
        "inject(DATA, times=(2, 3)), here, was to hit at least 2 times, and hit only once\n"
    )


def test_times_of_a_pair_are_an_upper_bound_as_well(tcp_server: StreamTestServer) -> None:
    tcp_server.handler(echo)
    injection = tcp_server.inject(DATA, times=(1, 2))

    exchange(tcp_server, b"a", b"b", b"c")

    assert injection.count == 2


def test_what_may_miss(tcp_server: StreamTestServer) -> None:
    tcp_server.handler(echo)
    tcp_server.inject(Close(), at=9, times=(0, 1))
    tcp_server.inject(Close(), at=9, times=(0, None))
    tcp_server.inject(Close(), probability=0.0)
    tcp_server.inject(Close(), at=9).end()
    with tcp_server.inject(Close(), at=9) as injection:
        injection.end()

    exchange(tcp_server, b"a")

    tcp_server.verify()
    tcp_server.inject(Close(), at=9)
    tcp_server.clear()
    tcp_server.verify()


def test_chance_with_a_least_number_is_verified(tcp_server: StreamTestServer) -> None:
    tcp_server.inject(Close(), probability=0.0, times=(1, None))

    assert "at least once" in missed(tcp_server)


@pytest.mark.parametrize("times", [(3, 2), (0, 0), (-1, 1)])
def test_a_pair_that_is_none_is_refused(tcp_server: StreamTestServer, times: Any) -> None:
    with pytest.raises(ValueError, match="least, most"):
        tcp_server.inject(Close(), times=times)


# When, and where


def test_a_block_raises_nothing_by_itself(tcp_server: StreamTestServer) -> None:
    async def scenario() -> None:
        with tcp_server.inject(Close()):
            pass

    asyncio.run(scenario())

    assert missed(tcp_server).startswith(
        "inject(Close()), here, was to hit at least once, in its with block, and never did\n"
    )


def test_without_pytests_fixtures_the_block_of_the_server_tells() -> None:
    with pytest.raises(UnmetExpectation, match=r"inject\(Close\(\)\)"):
        with SockServer() as sockserver:
            sockserver.tcp().inject(Close())


def test_refusing_and_black_holes_are_conditions(sockserver: SockServer) -> None:
    for server in (sockserver.tcp(), sockserver.udp()):
        with server.refuse(), server.blackhole() if server.transport == "udp" else server.refuse():
            pass
        server.verify()
    datagrams = sockserver.udp()
    datagrams.blackhole()
    datagrams.verify()
    limited = sockserver.tcp()
    limited.limit_connections(1)
    limited.verify()


def test_the_test_fails_in_its_call_at_the_line_of_the_declaration(inner: Runner) -> None:
    run = inner(
        """
        import pytest
        from client import ask, connect
        from pytest_sockserver import Close, CONNECT, DATA

        @pytest.fixture
        def client(tcp_server):
            with connect(tcp_server) as sock:
                yield sock

        def test_index(tcp_server):
            tcp_server.on(b"hi\\n").reply(b"ho\\n")
            tcp_server.inject(Close(), at=99)
            assert ask(tcp_server) == b"ho\\n"

        def test_with(tcp_server):
            tcp_server.on(b"hi\\n").reply(b"ho\\n")
            with tcp_server.inject(Close(), at=99):
                assert ask(tcp_server) == b"ho\\n"

        def test_open_connection(tcp_server, client):
            tcp_server.inject(Close())

        def test_failed(tcp_server):
            tcp_server.on(CONNECT).reply(b"220\\n")
            tcp_server.inject(Close(), at=99)
            assert ask(tcp_server, b"") == b"250\\n"

        @pytest.mark.xfail(strict=True)
        def test_expected(udp_server):
            udp_server.inject(direction="received")

        def test_skipped(tcp_server):
            tcp_server.inject(Close())
            pytest.skip("no")
        """
    )

    for name in ("test_index", "test_with", "test_open_connection", "test_failed"):
        assert run.phases(name) == ["call failed"], name
    assert run.phases("test_expected") == ["call xskipped"]
    assert run.phases("test_skipped") == ["call skipped"]
    assert ">       tcp_server.inject(Close(), at=99)" in run.block("test_index")
    assert "UnmetExpectation" not in run.block("test_failed")
    assert "# never hit: inject(Close(), at=[99]) (test_it.py:25)" in run.block("test_failed")
    assert "# never hit" not in run.block("test_index")  # the error says it


@pytest.mark.parametrize("scope", ["function", "module"])
def test_what_a_fixture_puts_over_its_tests_is_a_condition(inner: Runner, scope: str) -> None:
    run = inner(
        f"""
        import pytest
        from client import ask
        from pytest_sockserver import Close, DATA, Delay

        @pytest.fixture(scope="{scope}")
        def server(sockserver{"_module" if scope == "module" else ""}):
            server = sockserver{"_module" if scope == "module" else ""}.tcp()
            server.on(b"hi\\n").reply(b"ho\\n")
            server.inject(Close(), at=99)
            with server.inject(DATA, at=98):
                pass
            return server

        @pytest.fixture
        def slow(server):
            with server.inject(Delay(0.001), DATA, at=97):
                yield

        class Test:
            def setup_method(self):
                pass

            def test_it(self, server, slow):
                assert ask(server) == b"ho\\n"

        def test_failed(server, slow):
            assert ask(server) == b"hi\\n"

        def test_own(server):
            server.inject(Close(), at=96)
        """,
        *("-p", "no:randomly"),
    )

    assert run.phases("test_it") == ["call passed"]
    assert run.phases("test_failed") == run.phases("test_own") == ["call failed"]
    assert "# never hit: inject(Close(), at=[99])" in run.block("test_failed")
    assert "# never hit: inject(DATA, at=[98])" in run.block("test_failed")
    assert "inject(Close(), at=[96])" in run.block("test_own")
    assert "UnmetExpectation: inject(Close(), at=[99])" not in run.stdout


def test_what_a_setup_of_unittest_puts_over_its_tests_is_a_condition(inner: Runner) -> None:
    run = inner(
        """
        import unittest
        import pytest
        from pytest_sockserver import Reset

        class Methods:
            @pytest.fixture(autouse=True)
            def _server(self, tcp_server):
                self.server = tcp_server

            def test_condition(self):
                pass

            def test_demand(self):
                self.server.inject(Reset(), at=99)

        class TestPlain(Methods, unittest.TestCase):
            def setUp(self):
                self.server.inject(Reset(), at=99)

        class TestAsync(Methods, unittest.IsolatedAsyncioTestCase):
            async def asyncSetUp(self):
                self.server.inject(Reset(), at=99)
        """
    )

    assert run.phases("test_condition") == ["call passed"] * 2
    assert run.phases("test_demand") == ["call failed"] * 2


def test_what_a_fixture_demands_in_so_many_words_is_verified(inner: Runner) -> None:
    run = inner(
        """
        import pytest
        from pytest_sockserver import Close

        @pytest.fixture
        def server(tcp_server):
            tcp_server.inject(Close(), times=(1, None))
            return tcp_server

        def test_it(server):
            pass
        """
    )

    assert run.phases("test_it") == ["call failed"]


def test_a_test_by_hypothesis_and_the_fault_matrix_demand_nothing(inner: Runner) -> None:
    run = inner(
        """
        import hypothesis
        from hypothesis import given, settings
        from client import ask
        from pytest_sockserver import Close, StreamTestServer
        from pytest_sockserver.strategies import injections

        @settings(max_examples=3, database=None, deadline=None)
        @given(injections())
        def test_drawn(parts):
            with StreamTestServer() as server:
                server.inject(*parts, at=0, times=1)

        def test_checked(sockserver):
            def serve(server):
                server.on(b"hi\\n").reply(Close())

            matrix = sockserver.fault_matrix(lambda server: ask(server), serve, only="refused")
            assert matrix
        """,
        loaded=(*OURS, "-p", "_hypothesis_pytestplugin"),
    )

    assert run.phases("test_drawn") == run.phases("test_checked") == ["call passed"]


def test_asyncio_and_trio_tests_are_judged_and_their_fixtures_are_not(inner: Runner) -> None:
    run = inner(
        """
        import pytest
        import pytest_asyncio
        from pytest_sockserver import Close

        @pytest_asyncio.fixture
        async def slow(tcp_server):
            tcp_server.inject(Close(), at=9)
            yield tcp_server

        @pytest.fixture
        async def slow_trio(tcp_server):
            tcp_server.inject(Close(), at=9)
            yield tcp_server

        @pytest.mark.asyncio
        async def test_asyncio(tcp_server):
            with tcp_server.inject(Close()):
                pass

        @pytest.mark.asyncio
        async def test_asyncio_fixture(slow):
            pass

        @pytest.mark.trio
        async def test_trio(tcp_server):
            with tcp_server.inject(Close()):
                pass

        @pytest.mark.trio
        async def test_trio_fixture(slow_trio):
            pass
        """,
        loaded=(
            *OURS,
            *("-p", "pytest_asyncio.plugin", "-o", "asyncio_default_fixture_loop_scope=function"),
            *("-p", "pytest_trio.plugin"),
        ),
    )

    assert run.phases("test_asyncio") == run.phases("test_trio") == ["call failed"]
    assert run.phases("test_asyncio_fixture") == ["call passed"]
    assert run.phases("test_trio_fixture") == ["call passed"]
