"""What a user sees when the server's side failed: which test fails, in which phase, how often, and what it says."""

from __future__ import annotations

import re
import xml.etree.ElementTree

import pytest

from pytest_sockserver.server import idle

from .expected_texts import SameText, steady
from .plugin_runs import Runner


@pytest.fixture
def inner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Runner:
    return Runner(pytester, monkeypatch)


# A handler's failure fails the test, in its call, once


def test_a_handler_that_raises_fails_its_test_though_the_client_ignores_it(inner: Runner, same_text: SameText) -> None:
    run = inner(
        """
        from client import ask

        def test_it(tcp_server):
            @tcp_server.handler
            def greet(conn):
                line = conn.recv_line()
                raise ValueError(f"cannot parse {line!r}")

            ask(tcp_server)
        """
    )

    assert run.phases("test_it") == ["call failed"]
    same_text(run.block("test_it"))
    assert run.summary() == ["FAILED test_it.py::test_it - ValueError: cannot parse b'hi\\n'", "1 failed"]


def test_a_handler_that_raises_after_the_client_was_answered_fails_its_test(inner: Runner, same_text: SameText) -> None:
    run = inner(
        """
        from client import ask

        def test_it(tcp_server):
            @tcp_server.handler
            def greet(conn):
                conn.send(b"hello " + conn.recv_line())
                raise ValueError("cannot log")

            assert ask(tcp_server, b"bob\\n") == b"hello bob\\n"
        """
    )

    assert run.phases("test_it") == ["call failed"]
    same_text(run.block("test_it"))


@pytest.mark.parametrize("fixture", ["sockserver", "sockserver_module", "sockserver_session"])
def test_a_group_in_a_teardown_has_a_line_of_the_users(inner: Runner, fixture: str) -> None:
    run = inner.outside(
        f"""
        import threading
        from client import connect

        kept = []

        def test_it({fixture}):
            for name in ("one", "two"):
                server = {fixture}.tcp(name=name, stop_timeout=0.05)
                server.handler(lambda conn: threading.Event().wait())
                kept.append(connect(server))
                server.wait_connection()
        """
    )

    run.result.assert_outcomes(passed=1, errors=1)
    assert "2 failures on the server's side: one; two" in run.stdout
    assert "All traceback entries are hidden" not in run.stdout  # pytest 8.4 and 9.0 stop with an INTERNALERROR then


def test_two_handlers_that_raise_fail_as_a_group_that_points_at_the_test(inner: Runner, same_text: SameText) -> None:
    run = inner(
        """
        from client import ask

        def test_it(tcp_server):
            @tcp_server.handler
            def greet(conn):
                raise ValueError(f"cannot parse {conn.recv_line()!r}")

            ask(tcp_server, b"one\\n")
            ask(tcp_server, b"two\\n")
        """
    )

    assert run.phases("test_it") == ["call failed"]
    assert "INTERNALERROR" not in run.stdout + run.stderr
    said = re.sub(r'File "\S*?(test_it\.py)"', r'File "\1"', run.block("test_it"))
    same_text(said)


def test_forty_handlers_that_raise_are_told_in_a_headline_that_ends(inner: Runner) -> None:
    run = inner(
        """
        from client import ask

        def test_it(tcp_server):
            @tcp_server.handler
            def greet(conn):
                raise ValueError(f"cannot parse {conn.recv_line()!r}")

            for _ in range(40):
                ask(tcp_server)
        """
    )

    headline = next(line for line in run.stdout.splitlines() if line.startswith("  | ExceptionGroup"))
    assert headline == (
        "  | ExceptionGroup: 40 failures on the server's side: tcp_server, connection 0 (127.0.0.1:PORT); "
        "tcp_server, connection 1 (127.0.0.1:PORT); tcp_server, connection 2 (127.0.0.1:PORT); and 37 more "
        "(40 sub-exceptions)"
    )


def test_a_mismatch_points_at_the_line_that_expected_something_else(inner: Runner, same_text: SameText) -> None:
    run = inner(
        """
        from client import ask

        def test_it(tcp_server):
            @tcp_server.handler
            def log_in(conn):
                conn.expect(b"USER bob\\r\\n")

            ask(tcp_server, b"USER eve\\r\\n")
        """
    )

    assert run.phases("test_it") == ["call failed"]
    same_text(run.block("test_it"))


def test_a_datagram_handler_without_return_points_at_the_handler(inner: Runner, same_text: SameText) -> None:
    run = inner(
        """
        from client import tell

        def test_it(udp_server):
            @udp_server.handler
            def answer(request):
                request.upper()

            tell(udp_server, b"hello")
        """
    )

    assert run.phases("test_it") == ["call failed"]
    same_text(run.block("test_it"))


def test_failures_of_two_servers_and_of_a_client_in_a_thread_are_told_together(inner: Runner) -> None:
    run = inner(
        """
        import asyncio
        from client import ask, tell

        def test_it(tcp_server, udp_server):
            @tcp_server.handler
            def greet(conn):
                conn.recv_line()
                raise asyncio.CancelledError("no Exception, and none of ours")

            @udp_server.handler
            def answer(request):
                raise ValueError("cannot answer")

            def client():
                raise KeyError("nobody asks for this")

            ask(tcp_server)
            tell(udp_server, b"hello")
            tcp_server.in_thread(client).thread.join()
        """
    )

    assert run.phases("test_it") == ["call failed"]
    told = [line for line in run.block("test_it").splitlines() if re.match(r" +\| \w+(\.\w+)*: ", line)]
    assert told[1:] == [
        "    | asyncio.exceptions.CancelledError: no Exception, and none of ours",
        "    | KeyError: 'nobody asks for this'",
        "    | ValueError: cannot answer",
    ]
    assert told[0] == (
        "  | BaseExceptionGroup: 3 failures on the server's side: tcp_server, connection 0 (127.0.0.1:PORT); "
        "tcp_server, in_thread(test_it.<locals>.client); udp_server, datagram from 127.0.0.1:PORT (3 sub-exceptions)"
    )


def test_a_failure_that_the_test_took_itself_is_told_once(inner: Runner) -> None:
    run = inner(
        """
        import pytest
        from client import ask

        @pytest.fixture
        def broken(tcp_server):
            @tcp_server.handler
            def greet(conn):
                raise ValueError(f"cannot parse {conn.recv_line()!r}")
            return tcp_server

        def test_verify(broken):
            ask(broken)
            broken.verify()

        def test_expected(broken):
            with broken.raises(ValueError, match="cannot parse"):
                ask(broken)

        def test_caught(broken):
            ask(broken)
            with pytest.raises(ValueError):
                broken.verify()
        """
    )

    assert run.phases("test_verify") == ["call failed"]
    assert run.phases("test_expected") == ["call passed"]
    assert run.phases("test_caught") == ["call passed"]


@pytest.mark.parametrize("text", ["__str__ that raises", "100 kB of text", "two lines"])
def test_an_exception_is_told_whatever_it_says_of_itself(inner: Runner, text: str) -> None:
    run = inner(
        f"""
        from client import ask

        class Odd(Exception):
            def __str__(self):
                return {{
                    "__str__ that raises": lambda: 1 / 0,
                    "100 kB of text": lambda: "x" * 100_000,
                    "two lines": lambda: "one\\ntwo",
                }}[{text!r}]()

        def test_it(tcp_server):
            @tcp_server.handler
            def greet(conn):
                conn.recv_line()
                raise Odd

            assert ask(tcp_server) == b"(reset)"
        """
    )

    assert run.phases("test_it") == ["call failed"]
    remarks = {
        "__str__ that raises": ["# Odd: test_it.py:15, <unprintable Odd object>"],
        "100 kB of text": ["# Odd: test_it.py:15, " + "x" * 78],  # and so on, to a bound
        "two lines": ["# Odd: test_it.py:15, one", "# two"],
    }
    said = [line for line in run.block("test_it").splitlines() if line.startswith("# ")]
    assert [line[:100] for line in said] == remarks[text]
    assert all(len(line) < 1_000 for line in said)


# The test's own failure gets the server's side, and no second one


def test_a_wait_that_times_out_says_what_did_come(inner: Runner, same_text: SameText) -> None:
    run = inner(
        """
        from client import ask

        def test_it(tcp_server):
            @tcp_server.handler
            def echo(conn):
                conn.send(conn.recv_line())

            ask(tcp_server, b"PIGN\\n")
            tcp_server.wait_for(b"PING\\n", timeout=0.05)
        """
    )

    assert run.phases("test_it") == ["call failed"]
    same_text(run.block("test_it"))


def test_the_clients_own_error_is_told_with_the_handlers_that_caused_it(inner: Runner, same_text: SameText) -> None:
    run = inner(
        """
        from client import connect

        def test_it(tcp_server):
            @tcp_server.handler
            def greet(conn):
                conn.expect_line(b"EHLO me")

            with connect(tcp_server) as client:
                client.sendall(b"EHLO you\\r\\n")
                client.recv(100)
        """
    )

    assert run.phases("test_it") == ["call failed"]
    same_text(run.block("test_it"))
    assert run.summary() == [
        "FAILED test_it.py::test_it - ConnectionResetError: [Errno 104] Connection res...",
        "1 failed",
    ]


def test_a_wait_that_a_failure_ends_has_it_as_its_cause(inner: Runner, same_text: SameText) -> None:
    run = inner(
        """
        from client import tell

        def test_it(udp_server):
            @udp_server.handler
            def answer(request):
                raise ValueError("cannot answer")

            tell(udp_server, b"hello")
            udp_server.wait_for(b"bye")
        """
    )

    assert run.phases("test_it") == ["call failed"]
    same_text(run.block("test_it"))


def test_an_exception_that_takes_no_note_is_told_with_a_section(inner: Runner) -> None:
    run = inner(
        """
        from client import ask

        class Slotted(Exception):
            def __setattr__(self, name, value):
                raise AttributeError(name)
            def add_note(self, note):
                raise TypeError(note)

        def test_it(tcp_server):
            @tcp_server.handler
            def greet(conn):
                raise ValueError(f"cannot parse {conn.recv_line()!r}")

            ask(tcp_server)
            raise Slotted
        """
    )

    assert run.phases("test_it") == ["call failed"]
    assert "on the server's side, tcp_server" not in run.block("test_it").partition("--- sockserver")[0]
    assert "--- sockserver: raised on the server's side, tcp_server, connection 0 (127.0.0.1:PORT) ---\n" in run.block(
        "test_it"
    )


def test_a_fixture_that_is_built_on_ours_and_fails_is_told_the_servers_side(inner: Runner, same_text: SameText) -> None:
    run = inner(
        """
        import pytest
        from client import connect

        @pytest.fixture
        def client(tcp_server):
            @tcp_server.handler
            def greet(conn):
                raise ValueError(f"cannot parse {conn.recv_line()!r}")

            with connect(tcp_server) as client:
                client.sendall(b"EHLO\\n")
                client.recv(100)
                yield client

        def test_it(client):
            pass
        """
    )

    assert run.phases("test_it") == ["setup failed"]
    said = run.block("ERROR at setup of test_it")
    same_text(said[said.index("E  ") :])


def test_a_failing_test_is_told_that_nobody_came(inner: Runner, same_text: SameText) -> None:
    run = inner(
        """
        def test_it(tcp_server, udp_server, unix_server):
            assert not unix_server.path
        """
    )

    said = run.block("test_it")
    path = re.search(r"unix_server (\S+),", said)
    assert path is not None
    same_text(said[said.index("--- sock") :].replace(path[1], "PATH"))


# Every kind of test, every outcome


def test_xfail_means_what_it_says(inner: Runner) -> None:
    run = inner(
        """
        import pytest
        from client import ask

        @pytest.fixture
        def broken(tcp_server):
            @tcp_server.handler
            def greet(conn):
                raise ValueError(f"cannot parse {conn.recv_line()!r}")
            return tcp_server

        @pytest.mark.xfail(strict=True, raises=ValueError)
        def test_that(broken):
            ask(broken)

        @pytest.mark.xfail(strict=True, raises=KeyError)
        def test_another(broken):
            ask(broken)

        @pytest.mark.xfail(strict=True)
        def test_nothing(tcp_server):
            pass

        @pytest.mark.xfail(strict=True, raises=ConnectionResetError)
        def test_own(broken):
            assert ask(broken) == b"(reset)"
            raise ConnectionResetError
        """
    )

    assert run.phases("test_that") == ["call xskipped"]
    assert run.phases("test_another") == ["call failed"]
    assert run.phases("test_nothing") == ["call failed"]
    assert run.phases("test_own") == ["call xskipped"]


def test_sections_keep_their_order_where_a_report_is_mere_text(inner: Runner, same_text: SameText) -> None:
    run = inner(
        """
        import pytest
        from client import tell

        @pytest.mark.xfail(strict=True)
        def test_it(sockserver):
            tell(sockserver.udp(name="one"), b"1")
            sockserver.tcp(name="two")
        """
    )

    assert run.phases("test_it") == ["call failed"]
    same_text(run.block("test_it"))


def test_a_unittest_test_fails_as_every_other(inner: Runner) -> None:
    run = inner(
        """
        import unittest, pytest
        from client import ask

        class Tests(unittest.TestCase):
            @pytest.fixture(autouse=True)
            def serve(self, tcp_server):
                self.server = tcp_server
                @tcp_server.handler
                def greet(conn):
                    raise ValueError(f"cannot parse {conn.recv_line()!r}")

            def test_passing(self):
                pass

            def test_ignoring(self):
                ask(self.server)

            def test_failing(self):
                self.assertEqual(ask(self.server), b"hello")

            def test_skipping(self):
                ask(self.server)
                self.skipTest("no reason")

            @unittest.expectedFailure
            def test_expected(self):
                self.assertEqual(ask(self.server), b"hello")
        """
    )

    assert run.phases("test_passing") == ["call passed"]
    assert run.phases("test_ignoring") == ["call failed"]
    assert run.phases("test_failing") == ["call failed"]
    assert run.phases("test_skipping") == ["call failed"]
    assert run.phases("test_expected") == ["call xskipped"]
    assert run.block("Tests.test_ignoring").splitlines()[-7:-6] == ["test_it.py:10: ValueError"]
    assert [line for line in run.block("Tests.test_failing").splitlines() if line.startswith("E  ")] == [
        "E       AssertionError: b'(reset)' != b'hello'",
        "E       on the server's side, tcp_server, connection 0 (127.0.0.1:PORT):",
        r"E         ValueError: test_it.py:10, cannot parse b'hi\n'",
        r"E       ValueError: cannot parse b'hi\n'",
    ]
    assert r"E       ValueError: cannot parse b'hi\n'" in run.block("Tests.test_skipping").splitlines()


def test_a_doctest_passes_and_fails_as_every_other(inner: Runner, same_text: SameText) -> None:
    run = inner(
        '''
        import pytest
        from client import ask

        @pytest.fixture
        def broken(tcp_server):
            @tcp_server.handler
            def greet(conn):
                raise ValueError(f"cannot parse {conn.recv_line()!r}")
            return tcp_server

        def first():
            """
            >>> getfixture("tcp_server").is_running
            True
            """

        def ignoring():
            """
            >>> ask(getfixture("broken"))
            b'(reset)'
            """

        def wrong():
            """
            >>> ask(getfixture("broken"))
            b'hello'
            """
        ''',
        "--doctest-modules",
    )

    assert run.phases("test_it.first") == ["call passed"]
    assert run.phases("test_it.ignoring") == ["call failed"]
    assert run.phases("test_it.wrong") == ["call failed"]
    same_text(run.block("[doctest] test_it.ignoring"))
    assert [line for line in run.block("[doctest] test_it.wrong").splitlines() if line.startswith("--- ")] == [
        "--- sockserver: raised on the server's side, tcp_server, connection 0 (127.0.0.1:PORT) ---",
        "--- sockserver: tcp_server 127.0.0.1:PORT (1 connection) ---",
    ]


def test_a_doctest_whose_fixture_is_the_runs_first_fails_in_its_teardown(inner: Runner) -> None:
    """Our hooks come with the first fixture, and a call that runs already does not see them."""
    run = inner.outside(
        '''
        import pytest
        from client import ask

        @pytest.fixture
        def broken(tcp_server):
            @tcp_server.handler
            def greet(conn):
                raise ValueError(f"cannot parse {conn.recv_line()!r}")
            return tcp_server

        def ignoring():
            """
            >>> ask(getfixture("broken"))
            b'(reset)'
            """
        ''',
        "--doctest-modules",
    )

    run.result.assert_outcomes(passed=1, errors=1)
    said = run.block("ERROR at teardown of [doctest] test_it.ignoring").splitlines()
    assert said[:6] == [
        "conn = <Connection 0 from 127.0.0.1:PORT, reset by the server>",
        "    @tcp_server.handler",
        "    def greet(conn):",
        '>       raise ValueError(f"cannot parse {conn.recv_line()!r}")',
        r"E       ValueError: cannot parse b'hi\n'",
        "test_it.py:8: ValueError",
    ]


@pytest.mark.skipif(pytest.version_tuple < (9,), reason="subtests came with pytest 9")
def test_a_subtest_that_fails_is_told_the_servers_side_and_its_test_does_not_fail_for_it_again(inner: Runner) -> None:
    run = inner(
        """
        from client import ask

        def test_it(tcp_server, subtests):
            @tcp_server.handler
            def greet(conn):
                raise ValueError(f"cannot parse {conn.recv_line()!r}")

            with subtests.test("greeting"):
                assert ask(tcp_server) == b"hello"
            with subtests.test("nothing"):
                pass
        """
    )

    said = run.block("test_it [greeting]").splitlines()
    assert "E           on the server's side, tcp_server, connection 0 (127.0.0.1:PORT):" in said
    assert r"E             ValueError: test_it.py:6, cannot parse b'hi\n'" in said
    assert run.block("test_it").splitlines() == ["contains 1 failed subtest"]


@pytest.mark.parametrize(
    ("statement", "phase"),
    [
        ("pytest.fail('no such feature')", "call failed"),
        ("pytest.skip('no such feature')", "call skipped"),
        ("pytest.xfail('no such feature')", "call xskipped"),
        ("pytest.exit('no such feature')", "call failed"),
        ("sys.exit(3)", "call failed"),
        ("raise KeyboardInterrupt", "call failed"),
        ("raise GeneratorExit", "call failed"),
    ],
)
def test_what_means_the_whole_run_ends_the_test_alone_when_a_handler_says_it(
    inner: Runner, statement: str, phase: str
) -> None:
    run = inner(
        f"""
        import sys, pytest
        from client import ask

        def test_it(tcp_server):
            @tcp_server.handler
            def greet(conn):
                conn.recv_line()
                {statement}

            assert ask(tcp_server) == b"(reset)"

        def test_next():
            pass
        """,
        "-rs",
    )

    assert run.phases("test_it") == [phase]
    assert run.phases("test_next") == ["call passed"]
    if phase == "call skipped":
        assert run.summary()[0] == "SKIPPED [1] test_it.py:8: no such feature"
    if phase == "call failed":
        assert run.block("test_it").splitlines()[4] == f">       {statement}"


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("pytest.exit('enough')", "E       RuntimeError: the handler raised Exit: enough"),
        ("sys.exit(3)", "E       RuntimeError: the handler raised SystemExit: 3"),
        ("raise KeyboardInterrupt", "E       RuntimeError: the handler raised KeyboardInterrupt"),
    ],
)
def test_an_exit_in_a_handler_is_one_error_with_one_traceback(inner: Runner, statement: str, said: str) -> None:
    run = inner(
        f"""
        import sys, pytest
        from client import ask

        def test_it(tcp_server):
            @tcp_server.handler
            def greet(conn):
                conn.recv_line()
                {statement}

            ask(tcp_server)
        """
    )

    assert [line for line in run.block("test_it").splitlines() if line[0] in ">E"] == [f">       {statement}", said]


def test_a_skip_in_one_handler_does_not_hide_the_failure_of_another(inner: Runner) -> None:
    run = inner(
        """
        import pytest
        from client import ask

        def test_it(tcp_server):
            @tcp_server.handler
            def greet(conn):
                if conn.recv_line() == b"skip\\n":
                    pytest.skip("no such feature")
                raise ValueError("broken")

            ask(tcp_server, b"skip\\n")
            ask(tcp_server, b"fail\\n")
        """
    )

    assert run.phases("test_it") == ["call failed"]
    assert run.block("test_it").splitlines()[6:8] == ["E       ValueError: broken", "test_it.py:9: ValueError"]


def test_a_test_that_skips_itself_fails_if_its_server_failed(inner: Runner) -> None:
    """Silence would be worse than a lost skip."""
    run = inner(
        """
        import pytest
        from client import ask

        def test_it(tcp_server):
            @tcp_server.handler
            def greet(conn):
                raise ValueError(f"cannot parse {conn.recv_line()!r}")

            ask(tcp_server)
            pytest.skip("changed my mind")

        def test_quietly(tcp_server):
            pytest.skip("no such feature")
        """,
        "-rs",
    )

    assert run.phases("test_it") == ["call failed"]
    assert run.phases("test_quietly") == ["call skipped"]
    assert run.summary()[0] == "SKIPPED [1] test_it.py:13: no such feature"
    assert r"E       ValueError: cannot parse b'hi\n'" in run.block("test_it").splitlines()


@pytest.mark.parametrize(
    ("statement", "code"), [("raise KeyboardInterrupt", 2), ("pytest.exit('enough', 7)", 7)], ids=["interrupt", "exit"]
)
def test_a_test_that_the_user_leaves_is_left_at_once_and_the_server_stops(
    inner: Runner, monkeypatch: pytest.MonkeyPatch, statement: str, code: int
) -> None:
    """The handler is busy for as long as the end of a call would wait."""
    monkeypatch.setattr(idle, "DRAIN_BOUND", 20.0)
    run = inner(
        f"""
        import threading, time, pytest
        from client import connect

        began = []
        left = threading.Event()

        @pytest.fixture
        def timed(tcp_server):
            yield tcp_server
            print("left", "at once" if time.monotonic() - began[0] < 5 else "after a wait")
            left.set()

        def test_it(timed):
            @timed.handler
            def wait(conn):
                conn.send(b"!")
                left.wait(20)

            with connect(timed) as client:
                client.recv(1)
                began.append(time.monotonic())
                {statement}
        """,
        "-s",
    )

    assert run.code == code
    assert "test_it.py left at once" in run.stdout.splitlines()


# What is found after the call


def test_a_stuck_handler_is_an_error_at_teardown_that_names_thread_peer_and_line(
    inner: Runner, same_text: SameText
) -> None:
    run = inner(
        """
        import threading, pytest
        from client import connect

        done = threading.Event()

        @pytest.fixture(scope="module", autouse=True)
        def finally_done():
            yield
            done.set()

        @pytest.mark.sockserver(stop_timeout=0.1)
        def test_it(tcp_server):
            @tcp_server.handler
            def wait(conn):
                conn.send(b"!")
                think()

            def think():
                done.wait(10)

            with connect(tcp_server) as client:
                client.recv(1)
        """
    )

    assert run.phases("test_it") == ["call passed", "teardown failed"]
    said = re.sub(r'"\S*/(\w+\.py)"', r'"\1"', run.block("ERROR at teardown of test_it"))
    said = re.sub(r'"threading.py", line \d+', r'"threading.py", line N', said)
    same_text(said)


def test_a_handler_that_fails_in_the_teardown_of_a_client_is_an_error_there(inner: Runner, same_text: SameText) -> None:
    run = inner(
        """
        import pytest
        from client import connect

        @pytest.fixture
        def client(tcp_server):
            with connect(tcp_server) as client:
                yield client
                client.sendall(b"QUIT\\n")

        def test_it(tcp_server, client):
            tcp_server.wait_connection().state

        @pytest.fixture
        def tcp_server(tcp_server):
            @tcp_server.handler
            def greet(conn):
                conn.expect_line(b"BYE")
            return tcp_server
        """
    )

    assert run.phases("test_it") == ["call passed", "teardown failed"]
    same_text(run.block("ERROR at teardown of test_it"))


# Servers that outlive a test


def test_a_failure_of_a_server_of_wider_scope_is_that_of_the_test_that_runs(inner: Runner) -> None:
    run = inner(
        """
        import pytest
        from client import ask

        def greet(conn):
            line = conn.recv_line()
            if line == b"bad\\n":
                raise ValueError(f"cannot parse {line!r}")
            conn.send(line)

        @pytest.fixture(scope="module")
        def of_module(sockserver_module):
            server = sockserver_module.tcp(name="of_module")
            server.handler(greet)
            return server

        @pytest.fixture(scope="session")
        def of_session(sockserver_session):
            server = sockserver_session.tcp(name="of_session")
            server.handler(greet)
            return server

        def test_good(of_module, of_session):
            ask(of_module)

        def test_bad(of_module, of_session):
            ask(of_module, b"bad\\n")

        def test_good_again(of_module, of_session):
            ask(of_session)

        def test_bad_session(of_module, of_session):
            ask(of_session, b"bad\\n")

        def test_last(of_module, of_session):
            pass
        """
    )

    assert run.phases("test_good") == ["call passed"]
    assert run.phases("test_bad") == ["call failed"]
    assert run.phases("test_good_again") == ["call passed"]
    assert run.phases("test_bad_session") == ["call failed"]
    assert run.phases("test_last") == ["call passed"]
    assert run.result.parseoutcomes() == {"passed": 3, "failed": 2}


def test_what_earlier_tests_said_to_a_server_of_wider_scope_is_no_part_of_a_later_report(
    inner: Runner, same_text: SameText
) -> None:
    run = inner(
        """
        import pytest
        from client import ask, connect, tell

        @pytest.fixture(scope="module")
        def tcp(sockserver_module):
            server = sockserver_module.tcp(name="tcp")
            @server.handler
            def echo(conn):
                while True:
                    conn.send(conn.recv_line())
            return server

        @pytest.fixture(scope="session")
        def udp(sockserver_session):
            return sockserver_session.udp(name="udp")

        @pytest.fixture(scope="session")
        def unused(sockserver_session):
            return sockserver_session.tcp(name="unused")

        @pytest.fixture(scope="module")
        def persistent(tcp):
            with connect(tcp) as client:
                yield client

        def test_one(tcp, udp, unused, persistent):
            ask(tcp, b"of one\\n")
            persistent.sendall(b"of one, persistent\\n")
            persistent.recv(100)
            tell(udp, b"of one")
            udp.wait_for(b"of one")

        def test_two(tcp, udp, persistent):
            ask(tcp, b"of two\\n")
            persistent.sendall(b"of two, persistent\\n")
            persistent.recv(100)
            tell(udp, b"of two")
            udp.wait_for(b"of two")
            assert 0

        def test_three(tcp, udp):
            assert 0
        """
    )

    said = run.block("test_two")
    same_text(said[said.index("--- sock") :])
    said = run.block("test_three")
    same_text(said[said.index("--- sock") :])


# The ways to show a report

BROKEN = """
from client import ask

def test_it(tcp_server):
    @tcp_server.handler
    def greet(conn):
        print("printed by the handler")
        raise ValueError(f"cannot parse {conn.recv_line()!r}")

    assert ask(tcp_server) == b"hello"
"""


@pytest.mark.parametrize("style", ["auto", "long", "short", "native"])
def test_a_report_has_the_servers_side_in_every_style_of_traceback(inner: Runner, style: str) -> None:
    run = inner(BROKEN, f"--tb={style}")

    said = run.block("test_it")
    assert [line for line in said.splitlines() if line.startswith("--- ")] == [
        "--- sockserver: raised on the server's side, tcp_server, connection 0 (127.0.0.1:PORT) ---",
        "--- sockserver: tcp_server 127.0.0.1:PORT (1 connection) ---",
        "--- Captured stdout call ---",
    ]
    note = r"ValueError: test_it.py:7, cannot parse b'hi\n'"
    assert next(line.lstrip("E ") for line in said.splitlines() if note in line) == note
    assert said.endswith("--- Captured stdout call ---\nprinted by the handler")
    if style != "native":  # which shows all of pytest's frames as well
        assert "pytest_sockserver/" not in said


def test_a_report_of_one_line_says_the_tests_error_and_the_servers_side_below_it(inner: Runner) -> None:
    run = inner(BROKEN, "--tb=line")

    lines = run.stdout.splitlines()
    assert lines[-3:-1] == ["printed by the handler", "=== short test summary info ==="] or lines  # order of sections
    assert any(re.search(r"test_it\.py:9: AssertionError: assert b'\(reset\)' == b'hello'", line) for line in lines)


def test_a_report_without_tracebacks_is_silent(inner: Runner) -> None:
    run = inner(BROKEN, "--tb=no")

    assert "sockserver: tcp_server" not in run.stdout
    assert run.summary()[0].startswith("FAILED test_it.py::test_it - AssertionError: assert b'(reset)' == b'hello'")


def test_the_servers_side_is_shown_though_captured_output_is_not(inner: Runner) -> None:
    run = inner(BROKEN, "--show-capture=no")

    said = run.block("test_it")
    assert "--- sockserver: tcp_server 127.0.0.1:PORT (1 connection) ---" in said.splitlines()
    assert "printed by the handler" not in said.splitlines()


def test_what_a_handler_prints_while_the_end_of_the_call_waits_is_captured(inner: Runner, same_text: SameText) -> None:
    run = inner(
        """
        import logging, sys, threading
        from client import connect

        def test_it(tcp_server):
            @tcp_server.handler
            def greet(conn):
                conn.recv_line()
                threading.Event().wait(0.05)
                print("printed late")
                print("and to stderr", file=sys.stderr)
                logging.warning("logged late")
                raise ValueError

            connect(tcp_server).sendall(b"hi\\n")
        """,
        "-W",
        "ignore::ResourceWarning",
        "-W",
        "ignore::pytest.PytestUnraisableExceptionWarning",
    )

    said = run.block("test_it")
    same_text(said[said.index("--- Captured") :])
    assert run.stdout.count("printed late") == 2  # in the source line, and as output


def test_nothing_is_said_of_a_test_that_passes(inner: Runner, same_text: SameText) -> None:
    source = """
        from client import ask

        def test_it(tcp_server):
            @tcp_server.handler
            def echo(conn):
                conn.send(conn.recv_line())

            assert ask(tcp_server) == b"hi\\n"
        """

    quiet = inner(source)
    asked = inner(source, "-rP")

    assert quiet.stdout.splitlines()[-2:] == [
        "test_it.py .                                                             [100%]",
        quiet.stdout.splitlines()[-1],
    ]
    assert "sockserver" not in quiet.stdout.partition("collected")[2] + quiet.stderr
    same_text(asked.block("test_it"))


def test_junits_xml_has_the_servers_side(inner: Runner) -> None:
    run = inner(BROKEN, "--junitxml=out.xml")

    assert run.code == 1
    tree = xml.etree.ElementTree.parse(inner.pytester.path / "out.xml")
    (failure,) = tree.iter("failure")
    lines = steady(failure.text or "").splitlines()
    assert "--- sockserver: tcp_server 127.0.0.1:PORT (1 connection) ---" in lines
    assert r"# ValueError: test_it.py:7, cannot parse b'hi\n'" in lines


# Text that terminals and workers must survive

HOSTILE = r"""
import os, socket, pytest
from client import ask, connect, tell

def test_note(tcp_server):
    @tcp_server.handler
    def greet(conn):
        raise ValueError("\udc80 \x1b[31mred\x07 " + conn.recv_line().decode("utf-8", "surrogateescape"))

    assert ask(tcp_server, b"\xff\x1b\n") == b"hello"

def test_conversation(tcp_server, udp_server):
    with connect(tcp_server) as client:
        client.sendall(b"\x1b[31mred\r\n\xff\xfe\r\n")
    tell(udp_server, b"\x1b[31mred\xff")
    tell(udp_server, "\u202e\u2028\x85".encode())
    udp_server.wait_for(count=2)
    assert 0

def test_names(sockserver, tmp_path):
    server = sockserver.unix(path=os.fsencode(tmp_path) + b"/\xff\x1b[31m", name="\x1b[31m\udc80")
    with socket.socket(socket.AF_UNIX) as client:
        client.bind(os.fsencode(tmp_path) + b"/\xfe\x1b")
        client.connect(server.path)
        client.sendall(b"hi\n")
        server.wait_connection().wait_received(b"hi\n")
        assert 0

def test_wait(unix_server):
    unix_server.wait_for(b"\xff\x1b", timeout=0.01)
"""


@pytest.mark.one_version
@pytest.mark.parametrize("workers", [0, 2])
def test_hostile_text_reaches_neither_the_terminal_nor_kills_a_worker(inner: Runner, workers: int) -> None:
    run = inner.outside(
        HOSTILE,
        f"-n{workers}",
        "--tb=short",
        loaded=("-p", "pytest_sockserver.pytest_plugin.plugin", "-p", "xdist.plugin", "-p", "xdist.looponfail"),
    )

    assert "INTERNALERROR" not in run.result.stdout.str() + run.result.stderr.str()
    assert run.result.parseoutcomes() == {"failed": 4}
    out = run.result.stdout.str()
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202e\u2028]", out)


@pytest.mark.one_version
def test_a_handlers_lone_surrogate_does_not_kill_a_worker_when_it_is_the_tests_failure(inner: Runner) -> None:
    run = inner.outside(
        r"""
        from client import ask

        def test_it(tcp_server):
            @tcp_server.handler
            def greet(conn):
                raise ValueError(conn.recv_line().decode("utf-8", "surrogateescape"))

            ask(tcp_server, b"\xff\n")
        """,
        "-n1",
        loaded=("-p", "pytest_sockserver.pytest_plugin.plugin", "-p", "xdist.plugin", "-p", "xdist.looponfail"),
    )

    assert "INTERNALERROR" not in run.result.stdout.str()
    assert run.result.parseoutcomes() == {"failed": 1}


# Bounds

BIG = """
import pytest
from client import connect, tell

BINARY, TEXT = bytes(range(256)) * 400, b"x" * 100_000

@pytest.mark.parametrize("data", [BINARY, TEXT], ids=["binary", "text"])
def test_payload(tcp_server, data):
    @tcp_server.handler
    def echo(conn):
        conn.send(conn.recv_exactly(len(data)))

    with connect(tcp_server) as client:
        client.sendall(data)
        while client.recv(65536):
            pass
    assert 0

def test_exchanges(tcp_server):
    @tcp_server.handler
    def echo(conn):
        while True:
            conn.send(conn.recv_line())

    with connect(tcp_server) as client, client.makefile("rb") as replies:
        for _ in range(100):
            client.sendall(b"x" * 1_500 + b"\\n")
            replies.readline()
    assert 0

@pytest.mark.parametrize("data", [BINARY[:50_000], TEXT[:50_000]], ids=["binary", "text"])
def test_datagrams(udp_server, data):
    for _ in range(2):
        tell(udp_server, data)
    udp_server.wait_for(count=2)
    assert 0

@pytest.mark.parametrize("verb", ["expect", "expect_line"])
def test_mismatch(tcp_server, verb):
    @tcp_server.handler
    def log_in(conn):
        getattr(conn, verb)(TEXT)

    with connect(tcp_server) as client:
        client.sendall(TEXT[:-1] + b"y\\n")
        client.recv(1)

def test_wait(udp_server):
    udp_server.wait_for(TEXT, timeout=0.01)
"""

SCREEN = 80 * 60  # characters


def rows(text: str) -> int:
    return sum(1 + len(line) // 80 for line in text.splitlines())


def test_a_large_conversation_is_shown_in_about_a_screen(inner: Runner) -> None:
    run = inner(BIG, "--tb=short")

    assert run.result.parseoutcomes() == {"failed": 8}
    for title in [
        "test_payload[binary]",
        "test_payload[text]",
        "test_exchanges",
        "test_datagrams[binary]",
        "test_datagrams[text]",
        "test_mismatch[expect]",
        "test_mismatch[expect_line]",
        "test_wait",
    ]:
        said = run.block(title)
        assert rows(said) < 100, f"{title} takes {rows(said)} rows"


def test_a_large_conversation_is_shown_whole_if_asked_for(inner: Runner) -> None:
    run = inner(BIG, "--tb=short", "-vv", "-k", "test_payload or test_exchanges")

    assert run.result.parseoutcomes()["failed"] == 3
    assert "more" not in run.block("test_payload[text]")
    assert [line for line in run.block("test_payload[text]").splitlines() if line.startswith("[")] == [
        "[T] C- " + "x" * 100_000,
        "[T] S- " + "x" * 100_000,
        "[T] S! close",
    ]
    hexes = [line for line in run.block("test_payload[binary]").splitlines() if line.startswith("[T] Cx")]
    assert len(hexes) == 100 * 1024 // 16
    assert len([line for line in run.block("test_exchanges").splitlines() if line == "[T] C: " + "x" * 1_500]) == 100


def test_a_report_names_an_injection_that_never_hit(inner: Runner) -> None:
    run = inner(
        """
        import socket
        from pytest_sockserver import Reset

        def test_it(tcp_server):
            tcp_server.on(b"x").reply(b"y")
            tcp_server.inject(Reset(), at=4)
            with socket.create_connection(tcp_server.address) as client:
                client.send(b"x")
                assert client.recv(1) == b"z"
        """
    )

    assert "# never hit: inject(Reset(), at=[4]) (test_it.py:6)" in run.stdout
