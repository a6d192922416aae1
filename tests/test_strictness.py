"""What was declared and did not happen, and what happened undeclared: which test fails, in which phase, when not."""

from __future__ import annotations

import threading

import pytest

from pytest_sockserver import (
    CONNECT,
    DatagramTestServer,
    ScriptMismatch,
    SockServer,
    StreamTestServer,
    UnexpectedRequest,
    UnmetExpectation,
)

from .peers import PATIENCE, connect, datagram_client, read_to_end, reset, until
from .plugin_runs import OURS, Runner


@pytest.fixture
def inner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Runner:
    return Runner(pytester, monkeypatch)


# Through pytest: phases


def test_what_is_missing_fails_the_test_in_its_call(inner: Runner) -> None:
    run = inner(
        """
        import socket
        import pytest
        from client import ask

        @pytest.fixture
        def client():
            with socket.socket() as sock:
                yield sock

        def test_step(client, tcp_server):
            tcp_server.script().expect(b"hi\\n").send(b"ho\\n").expect(b"QUIT\\n").close()
            client.connect(tcp_server.address)
            client.sendall(b"hi\\n")
            assert client.recv(9) == b"ho\\n"

        def test_script(tcp_server):
            tcp_server.script().expect(b"hi\\n")

        def test_times(tcp_server):
            tcp_server.on(b"hi\\n", times=2).reply(b"ho\\n")
            assert ask(tcp_server) == b"ho\\n"

        def test_least(udp_server):
            udp_server.on(b"hi", times=(1, None)).reply(b"ho")
        """
    )

    for name in ("test_step", "test_script", "test_times", "test_least"):
        assert run.phases(name) == ["call failed"], name
    assert run.summary()[-1] == "4 failed"


def test_a_client_of_a_later_fixture_may_say_goodbye_in_its_teardown(inner: Runner) -> None:
    run = inner(
        """
        import pytest
        from client import connect

        @pytest.fixture
        def client(tcp_server):
            tcp_server.script().expect(b"hi\\n").send(b"ho\\n").expect(b"QUIT\\n").send(b"bye\\n").close()
            with connect(tcp_server) as client:
                yield client
                client.sendall(b"QUIT\\n")
                assert client.recv(9) == b"bye\\n"

        def test_it(tcp_server, client):
            client.sendall(b"hi\\n")
            assert client.recv(9) == b"ho\\n"
        """
    )

    assert run.phases("test_it") == ["call passed"]


def test_a_client_of_a_later_fixture_that_says_no_goodbye_fails_the_teardown(inner: Runner) -> None:
    run = inner(
        """
        import pytest
        from client import connect

        @pytest.fixture
        def client(tcp_server):
            tcp_server.script().expect(b"hi\\n").send(b"ho\\n").expect(b"QUIT\\n").close()
            with connect(tcp_server) as client:
                yield client
                client.sendall(b"hi\\n" if client is None else b"")

        def test_it(tcp_server, client):
            client.sendall(b"hi\\n")
            assert client.recv(9) == b"ho\\n"
        """
    )

    assert run.phases("test_it") == ["call passed", "teardown failed"]
    assert "expected b'QUIT\\n'\n" in run.stdout
    assert "got the end of the stream" in run.stdout


def test_without_an_open_connection_a_later_fixture_changes_nothing(inner: Runner) -> None:
    run = inner(
        """
        import pytest

        @pytest.fixture
        def client(tcp_server):
            yield

        def test_it(tcp_server, client):
            tcp_server.script().expect(b"hi\\n")
        """
    )

    assert run.phases("test_it") == ["call failed"]


def test_a_failure_of_the_test_itself_is_the_only_one(inner: Runner) -> None:
    run = inner(
        """
        def test_it(tcp_server):
            tcp_server.script().expect(b"hi\\n")
            tcp_server.on(b"hi\\n", times=1)
            assert 1 == 2
        """
    )

    assert run.phases("test_it") == ["call failed"]
    assert "assert 1 == 2" in run.stdout
    assert run.summary() == ["FAILED test_it.py::test_it - assert 1 == 2", "1 failed"]


def test_what_is_missing_is_not_told_beside_what_went_wrong(inner: Runner) -> None:
    """It is a consequence, most likely."""
    run = inner(
        """
        from client import ask

        def test_it(tcp_server):
            tcp_server.script().expect(b"hi\\n").send(b"ho\\n").expect(b"QUIT\\n")
            tcp_server.script().expect(b"further\\n")
            tcp_server.on(b"x", times=1)
            assert ask(tcp_server, b"ha\\n") == b"(reset)"
        """
    )

    assert run.phases("test_it") == ["call failed"]
    assert "step 1 of 3, test_it.py:4, expected b'hi\\n'" in run.stdout
    assert "UnmetExpectation" not in run.stdout


def test_who_comes_after_the_call_is_no_failure(inner: Runner) -> None:
    run = inner(
        """
        import pytest
        from client import ask

        @pytest.fixture
        def client(tcp_server):
            yield
            assert ask(tcp_server) == b""

        def test_it(tcp_server, client):
            tcp_server.script().send(b"ho\\n").close()
            assert ask(tcp_server) == b"ho\\n"
        """
    )

    assert run.phases("test_it") == ["call passed"]


def test_who_comes_after_the_call_is_no_failure_of_rules_and_datagrams_either(inner: Runner) -> None:
    run = inner(
        """
        import pytest
        from client import ask, tell
        from pytest_sockserver import CONNECT

        @pytest.fixture
        def late(tcp_server, udp_server):
            yield
            assert ask(tcp_server, b"BYE\\n") in (b"", b"(reset)")
            tell(udp_server, b"goodbye")

        def test_it(tcp_server, udp_server, late):
            tcp_server.on(b"HI\\n").reply(b"ho\\n")
            udp_server.on(b"hi").reply(b"ho")
            assert ask(tcp_server, b"HI\\n") == b"ho\\n"
        """,
        *("-W", "default::pytest_sockserver.SockServerWarning"),
    )

    assert run.phases("test_it") == ["call passed"]
    assert run.stdout.count("SockServerWarning: ") == 2  # and in the open


def test_a_client_of_a_wider_scope_puts_nothing_off(inner: Runner) -> None:
    """Its teardown comes after the test's own."""
    run = inner(
        """
        import pytest
        from client import connect

        @pytest.fixture(scope="module")
        def server(sockserver_module):
            return sockserver_module.tcp()

        @pytest.fixture(scope="module")
        def client(server):
            with connect(server) as client:
                yield client

        def test_1(server, client):
            server.script().expect(b"A").send(b"a").expect(b"B")
            client.sendall(b"A")
            assert client.recv(1) == b"a"

        def test_2(server):
            pass
        """,
        "-p",
        "no:randomly",
    )

    assert run.phases("test_1") == ["call failed"]
    assert run.phases("test_2") == ["call passed"]
    assert run.summary()[-1] == "1 failed, 1 passed"


def test_what_a_fixture_of_a_wider_scope_declares_is_for_all_its_tests(inner: Runner) -> None:
    run = inner(
        """
        import pytest
        from client import ask

        @pytest.fixture(scope="module")
        def server(sockserver_module):
            server = sockserver_module.tcp()
            server.on(b"hi\\n", times=2).reply(b"ho\\n")
            server.on(b"never\\n", times=1)
            return server

        def test_1(server):
            assert ask(server) == b"ho\\n"

        def test_2(server):
            assert ask(server) == b"ho\\n"
        """,
        "-p",
        "no:randomly",
    )

    assert run.phases("test_1") == ["call passed"]
    assert run.phases("test_2") == ["call passed", "teardown failed"]
    assert "rule 2 (test_it.py:8), on(b'never\\n'), was to be taken once, and was never" in run.stdout


def test_a_step_that_was_told_missing_does_not_fail_again(tcp_server: StreamTestServer) -> None:
    tcp_server.script().expect(b"A").expect(b"B")

    with connect(tcp_server) as client:
        client.sendall(b"A")
        with pytest.raises(UnmetExpectation):
            tcp_server.verify()
    tcp_server.connections[0].wait_closed()

    tcp_server.verify()


def test_a_server_of_a_wider_scope_counts_for_each_test(inner: Runner) -> None:
    run = inner(
        """
        import pytest
        from client import ask

        @pytest.fixture(scope="module")
        def server(sockserver_module):
            return sockserver_module.tcp(name="shared")

        def test_1_wrong(server):
            server.script().expect(b"hi\\n")
            assert ask(server, b"ha\\n") == b"(reset)"

        def test_2_right(server):
            server.script().expect(b"hi\\n").send(b"ho\\n")
            assert ask(server) == b"ho\\n"

        def test_3_missing(server):
            server.script().expect(b"hi\\n")
        """,
        "-p",
        "no:randomly",
    )

    assert run.phases("test_1_wrong") == ["call failed"]
    assert run.phases("test_2_right") == ["call passed"]
    assert run.phases("test_3_missing") == ["call failed"]


def test_unittest_async_and_xfail_are_no_exception(inner: Runner) -> None:
    run = inner(
        """
        import asyncio
        import unittest
        import pytest
        from pytest_sockserver import UnmetExpectation

        class Test(unittest.TestCase):
            @pytest.fixture(autouse=True)
            def _server(self, tcp_server):
                self.server = tcp_server

            def test_unit(self):
                self.server.script().expect(b"hi\\n")

        @pytest.mark.asyncio
        async def test_async(tcp_server):
            tcp_server.on(b"hi\\n", times=1)

        @pytest.mark.xfail(raises=UnmetExpectation, strict=True)
        def test_expected(tcp_server):
            tcp_server.script().expect(b"hi\\n")
        """,
        loaded=(*OURS, "-p", "pytest_asyncio.plugin", "-o", "asyncio_default_fixture_loop_scope=function"),
    )

    assert run.phases("test_unit") == ["call failed"]
    assert run.phases("test_async") == ["call failed"]
    assert run.phases("test_expected") == ["call xskipped"]


# Without pytest: the end of a block, verify, raises


def test_the_end_of_a_block_says_what_is_missing() -> None:
    with pytest.raises(UnmetExpectation, match="was not taken: no connection came for it"):
        with SockServer() as sockserver:
            sockserver.tcp().script().expect(b"hi\n")


def test_the_end_of_a_servers_own_block_says_what_is_missing() -> None:
    with pytest.raises(UnmetExpectation, match=r"rule 1 .* was to be taken once, and was never"):
        with StreamTestServer() as server:
            server.on(b"hi\n", times=1)


def test_verify_says_once_what_is_missing_now(tcp_server: StreamTestServer) -> None:
    tcp_server.script().expect(b"hi\n")

    with pytest.raises(UnmetExpectation):
        tcp_server.verify()
    tcp_server.verify()


def test_clear_forgets_what_was_declared(tcp_server: StreamTestServer) -> None:
    tcp_server.script().expect(b"hi\n")
    tcp_server.on(b"hi\n", times=1)

    tcp_server.clear()

    tcp_server.verify()


def test_a_mismatch_that_must_happen_is_taken(tcp_server: StreamTestServer) -> None:
    tcp_server.script().expect(b"hi\n").send(b"ho\n")

    with tcp_server.raises(ScriptMismatch, match="differs at byte 1"), connect(tcp_server) as client:
        client.sendall(b"ha\n")
        with pytest.raises(ConnectionResetError):
            client.recv(9)


def test_a_client_that_comes_back_after_the_last_script_is_told_of_times(tcp_server: StreamTestServer) -> None:
    tcp_server.script().send(b"ho\n").close()
    with connect(tcp_server) as client:
        assert read_to_end(client) == b"ho\n"

    with tcp_server.raises(UnexpectedRequest, match=r"times=None"), pytest.raises(ConnectionResetError):
        with connect(tcp_server) as client:  # which may learn of it that early
            client.recv(9)


def test_a_greeting_that_is_used_up_leaves_nothing_for_a_connection(tcp_server: StreamTestServer) -> None:
    tcp_server.on(CONNECT, times=1).reply(b"ho\n")
    with connect(tcp_server) as client:
        assert client.recv(9) == b"ho\n"

    with tcp_server.raises(UnexpectedRequest, match="expected no further connection"):
        with pytest.raises(ConnectionResetError), connect(tcp_server) as client:
            client.recv(9)


def test_what_is_in_flight_is_taken_before_it_is_judged(tcp_server: StreamTestServer) -> None:
    """The client says its last word and is gone: nobody waits for an answer to it."""
    tcp_server.script().expect(b"hi\n").expect(b"QUIT\n")

    with connect(tcp_server) as client:
        client.sendall(b"hi\n")
        client.sendall(b"QUIT\n")

    tcp_server.verify()


def test_leftovers_are_a_failure(tcp_server: StreamTestServer) -> None:
    tcp_server.script().expect(b"hi\n")

    with tcp_server.raises(ScriptMismatch, match="expected the end of the stream\n  got b'more'"):
        with connect(tcp_server) as client:
            client.sendall(b"hi\nmore")
            with pytest.raises(ConnectionResetError):
                client.recv(9)


def test_an_idle_client_after_the_last_step_is_no_failure(tcp_server: StreamTestServer) -> None:
    tcp_server.script().expect(b"hi\n").send(b"ho\n")

    with connect(tcp_server) as client:
        client.sendall(b"hi\n")
        assert client.recv(9) == b"ho\n"
        tcp_server.verify()


def test_a_reset_after_the_last_step_is_no_failure(tcp_server: StreamTestServer) -> None:
    tcp_server.script().expect(b"hi\n").send(b"ho\n")
    client = connect(tcp_server)
    client.sendall(b"hi\n")
    assert client.recv(9) == b"ho\n"

    reset(client)

    tcp_server.connections[0].wait_closed()
    tcp_server.verify()


def test_a_reset_before_the_last_step_names_the_step(tcp_server: StreamTestServer) -> None:
    tcp_server.script().expect(b"hi\n").send(b"ho\n").expect(b"QUIT\n")

    with tcp_server.raises(ScriptMismatch, match=r"step 3 of 3, .*\n  got a reset"):
        client = connect(tcp_server)
        client.sendall(b"hi\n")
        assert client.recv(9) == b"ho\n"
        reset(client)


def test_a_reset_while_the_server_speaks_is_quiet_unless_more_was_demanded(tcp_server: StreamTestServer) -> None:
    tcp_server.script().expect(b"hi\n").send(b"x" * 8_000_000)

    client = connect(tcp_server)
    client.sendall(b"hi\n")
    client.recv(9)
    reset(client)

    tcp_server.connections[0].wait_closed()
    tcp_server.verify()


def test_a_script_for_several_connections_wants_them_all(tcp_server: StreamTestServer) -> None:
    tcp_server.script(times=2).send(b"ho\n").close()
    with connect(tcp_server) as client:
        assert read_to_end(client) == b"ho\n"

    with pytest.raises(UnmetExpectation, match="1 of 2 connections came"):
        tcp_server.verify()


def test_a_script_for_all_connections_wants_none(tcp_server: StreamTestServer) -> None:
    tcp_server.script(times=None).expect(b"hi\n")

    tcp_server.verify()


def test_a_rule_of_which_at_most_some_are_wanted_wants_none(udp_server: DatagramTestServer) -> None:
    udp_server.on(b"hi", times=(0, 2)).reply(b"ho")

    udp_server.verify()


def test_a_datagram_that_nothing_takes_is_a_failure(udp_server: DatagramTestServer) -> None:
    udp_server.on(b"hi").reply(b"ho")

    with udp_server.raises(UnexpectedRequest, match="no rule matches b'ha'"), datagram_client(udp_server) as client:
        client.send(b"ha")


def test_the_steps_of_a_datagram_script_are_demanded(udp_server: DatagramTestServer) -> None:
    udp_server.script().expect(b"hi").send(b"ho").expect(b"QUIT")
    with datagram_client(udp_server) as client:
        client.send(b"hi")
        assert client.recv(9) == b"ho"

    with pytest.raises(UnmetExpectation, match=r"step 3 of 3, .*, was never reached: expected b'QUIT'"):
        udp_server.verify()


def test_a_step_that_waits_for_a_gate_is_missed_where_it_stands(tcp_server: StreamTestServer) -> None:
    from pytest_sockserver import Gate

    tcp_server.script().send(Gate("go"), b"ho\n").expect(b"hi\n")
    with connect(tcp_server):
        until(lambda: tcp_server.connections)
        with pytest.raises(UnmetExpectation, match=r"step 2 of 2, .*, was never reached: expected b'hi"):
            tcp_server.verify()


def test_failures_of_many_connections_at_once_are_all_told(tcp_server: StreamTestServer) -> None:
    tcp_server.script(times=None).expect(b"hi\n")
    barrier = threading.Barrier(5)

    def client() -> None:
        with connect(tcp_server) as sock:
            barrier.wait(PATIENCE)
            sock.sendall(b"ha\n")
            with pytest.raises(ConnectionResetError):
                sock.recv(9)

    clients = [tcp_server.in_thread(client) for _ in range(5)]
    for each in clients:
        each.result()

    with pytest.raises(BaseException, match="5 failures on the server's side"):
        tcp_server.verify()


def test_a_report_says_where_the_server_stands_and_which_rules_were_never_taken(inner: Runner) -> None:
    """A client that waits for a silent server fails by its own time-out, which says nothing."""
    run = inner(
        """
        import pytest
        import socket
        from pytest_sockserver import lines

        @pytest.fixture
        def client():
            with socket.socket() as sock:
                yield sock

        def waits(client, server, said=b""):
            client.settimeout(0.05)
            client.connect(server.address)
            client.sendall(said)
            client.recv(1)
            client.recv(1)

        def test_nothing(client, tcp_server):
            waits(client, tcp_server)

        def test_greeting(client, tcp_server):
            tcp_server.on(b"A").reply(b"1")
            waits(client, tcp_server)

        def test_over(client, tcp_server):
            tcp_server.script().send(b"1")
            waits(client, tcp_server)

        def test_never(client, tcp_server):
            tcp_server.framing = lines(b"\\n")
            tcp_server.on(b"A\\n").reply(b"1")
            tcp_server.on(b"B\\n").reply(b"2")
            waits(client, tcp_server, b"B\\n")
        """
    )

    for name, remark in {
        "test_nothing": "# nothing was declared: it waits for accept() (connection 0)",
        "test_greeting": "# no rule is for CONNECT: the server waits for the client to speak first (connection 0)",
        "test_over": "# the script is over: the server waits for the client to close (connection 0)",
        "test_never": r"# never taken: rule 1 (test_it.py:30), on(b'A\n')",
    }.items():
        assert run.block(name).splitlines()[-1] == remark
