"""What a test demanded is judged for that test, and what a fixture demanded for that fixture: on shared servers."""

from __future__ import annotations

import pytest
import trustme  # noqa: F401 - a run within this process would load it, and what it loads, again and again

from .plugin_runs import OURS, Runner

SHARED = """
import pytest
from client import ask, connect, tell

@pytest.fixture(scope="module")
def shared(sockserver_module):
    return sockserver_module.tcp(name="shared")

@pytest.fixture(scope="module")
def datagrams(sockserver_module):
    return sockserver_module.udp(name="datagrams")

@pytest.fixture(scope="module")
def client(shared):
    with connect(shared) as sock:
        yield sock
"""

IN_ORDER = ("-p", "no:randomly")
NEVER = "was to be taken once, and was never"


@pytest.fixture
def inner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Runner:
    runner = Runner(pytester, monkeypatch)
    runner.write(SHARED, "conftest")
    return runner


# A test's own


@pytest.mark.parametrize(
    ("made", "demand"),
    [
        ("tcp()", "on(b'a', times=1).reply(b'A')"),
        ("tcp()", "script().expect(b'a')"),
        ("tcp()", "dialogue('C- a')"),
        ("tls()", "on(HANDSHAKE, times=1).reply(Reset())"),
        ("unix()", "on(b'a', times=(1, None)).reply(b'A')"),
        ("unix()", "script(times=2).expect(b'a')"),
        ("udp()", "on(b'a', times=1).reply(b'A')"),
        ("udp()", "script().expect(b'a')"),
        ("udp()", "dialogue('== 0\\nC- a')"),
        ("unix_datagram()", "on(b'a', times=1).reply(b'A')"),
    ],
)
@pytest.mark.parametrize("scope", ["class", "module", "session"])
def test_a_later_clear_does_not_forget_what_a_test_demanded(inner: Runner, scope: str, made: str, demand: str) -> None:
    """As docs/how-to/share-servers.md teaches it, with a client that stays connected."""
    if scope == "class":
        factory = "sockserver_module"
    else:
        factory = f"sockserver_{scope}"
    run = inner(
        f"""
        import socket
        import pytest
        from pytest_sockserver import HANDSHAKE, Reset

        @pytest.fixture(scope="{scope}")
        def shared({factory}):
            return {factory}.{made}

        @pytest.fixture(scope="{scope}")
        def client(shared):
            is_datagram = shared.transport in ("udp", "unix_datagram")
            family = socket.AF_UNIX if shared.transport.startswith("unix") else socket.AF_INET
            with socket.socket(family, socket.SOCK_DGRAM if is_datagram else socket.SOCK_STREAM) as sock:
                sock.connect(shared.address)
                yield sock

        @pytest.fixture
        def server(shared):
            shared.clear()
            return shared

        class Test:
            def test_one(self, server, client):
                server.{demand}

            def test_two(self, server, client):
                pass
        """,
        *IN_ORDER,
    )

    assert run.phases("test_one") in (["call failed"], ["call passed", "teardown failed"])
    assert run.phases("test_two") == ["call passed"]
    assert "UnmetExpectation" in run.stdout


def test_a_clear_in_a_teardown_does_not_forget_what_the_test_demanded(inner: Runner) -> None:
    run = inner(
        """
        import pytest

        @pytest.fixture
        def server(shared):
            yield shared
            shared.clear()

        @pytest.fixture
        def later(server, client):
            yield

        def test_rule(server, later):
            server.on(b"a", times=1).reply(b"A")

        def test_script(server, later):
            server.script().expect(b"a")

        def test_nothing(server, later):
            pass
        """,
        *IN_ORDER,
    )

    assert run.phases("test_rule") == ["call passed", "teardown failed"]
    assert run.phases("test_script") == ["call passed", "teardown failed"]
    assert run.phases("test_nothing") == ["call passed"]


def test_a_clear_in_set_up_or_call_forgets(inner: Runner) -> None:
    run = inner(
        """
        import pytest

        @pytest.fixture
        def declared(shared):
            shared.on(b"a", times=1).reply(b"A")
            return shared

        @pytest.fixture
        def cleared(declared):
            declared.clear()
            return declared

        def test_set_up(cleared, client):
            pass

        def test_call(declared, client):
            declared.script().expect(b"b")
            declared.clear()
        """,
        *IN_ORDER,
    )

    assert run.phases("test_set_up") == run.phases("test_call") == ["call passed"]


def test_the_last_test_of_a_module_is_not_blamed_for_an_earlier_one(inner: Runner) -> None:
    run = inner(
        """
        import pytest

        @pytest.fixture
        def later(client):
            yield

        def test_one(shared, later):
            shared.on(b"a", times=1).reply(b"A")

        def test_two(client):
            pass

        def test_three(client):
            pass
        """,
        *IN_ORDER,
    )

    assert run.phases("test_one") == ["call passed", "teardown failed"]
    assert run.phases("test_two") == run.phases("test_three") == ["call passed"]
    assert run.summary()[-1] == "3 passed, 1 error"


def test_a_goodbye_in_the_tests_own_teardown_is_in_time(inner: Runner) -> None:
    run = inner(
        """
        import pytest
        from client import connect

        @pytest.fixture
        def own(shared):
            shared.clear()
            with connect(shared) as sock:
                yield sock
                sock.sendall(b"QUIT")
                assert sock.recv(9) == b"bye"

        @pytest.mark.parametrize("n", range(2))
        def test_it(shared, own, n):
            shared.script().expect(b"hi").send(b"ho").expect(b"QUIT").send(b"bye").close()
            own.sendall(b"hi")
            assert own.recv(9) == b"ho"
        """,
        *IN_ORDER,
    )

    assert run.summary()[-1] == "2 passed"


@pytest.mark.parametrize("scope", ["function", "class", "module", "session"])
def test_a_fixture_in_the_midst_of_a_test_loses_nothing(inner: Runner, scope: str) -> None:
    run = inner(
        f"""
        import pytest

        @pytest.fixture(scope="{scope}")
        def other():
            return 1

        def test_one(shared, request):
            shared.on(b"a", times=1).reply(b"A")
            request.getfixturevalue("other")

        def test_two(shared):
            shared.clear()
        """,
        *IN_ORDER,
    )

    assert run.phases("test_one") == ["call failed"]
    assert run.phases("test_two") == ["call passed"]


def test_what_a_fixture_declares_in_the_midst_of_a_test_is_its_own(inner: Runner) -> None:
    run = inner(
        """
        import pytest
        from client import ask

        @pytest.fixture(scope="module")
        def declared(shared):
            shared.on(b"a", times=2).reply(b"A")

        def test_one(shared, request):
            shared.on(b"b", times=1).reply(b"B")
            request.getfixturevalue("declared")
            shared.on(b"c", times=1).reply(b"C")
            assert [ask(shared, each) for each in (b"a", b"b", b"c")] == [b"A", b"B", b"C"]

        def test_two(shared, declared):
            assert ask(shared, b"a") == b"A"
        """,
        *IN_ORDER,
    )

    assert run.summary()[-1] == "2 passed"


@pytest.mark.parametrize("fixture", ["sockserver_module", "sockserver_session", "sockserver"])
def test_the_first_server_of_a_run_made_in_the_midst_of_a_test(inner: Runner, fixture: str) -> None:
    run = inner.outside(
        f"""
        def test_one(request):
            request.getfixturevalue("{fixture}").tcp().on(b"a", times=1).reply(b"A")

        def test_two(request):
            for server in request.getfixturevalue("{fixture}").servers:
                server.clear()
        """,
        *IN_ORDER,
    )

    run.result.assert_outcomes(passed=2, errors=1)  # no hook of ours was there for the first one's call
    assert "ERROR at teardown of test_one" in run.stdout


def test_a_test_that_failed_is_not_told_what_is_missing_and_leaves_nothing_behind(inner: Runner) -> None:
    run = inner(
        """
        import pytest

        @pytest.fixture
        def broken(shared):
            shared.on(b"b", times=1).reply(b"B")
            raise RuntimeError("broken")

        @pytest.fixture
        def skipped(shared):
            shared.on(b"c", times=1).reply(b"C")
            pytest.skip("no")

        def test_call(shared, client):
            shared.on(b"a", times=1).reply(b"A")
            assert 1 == 2

        def test_setup(shared, client, broken):
            pass

        def test_skipped_in_setup(shared, client, skipped):
            pass

        def test_skipped(shared, client):
            shared.on(b"d", times=1).reply(b"D")
            pytest.skip("no")

        @pytest.mark.xfail(strict=True)
        def test_expected(shared, client):
            shared.on(b"e", times=1).reply(b"E")

        def test_last(client):
            pass
        """,
        *IN_ORDER,
    )

    assert run.phases("test_call") == ["call failed"]
    assert run.phases("test_setup") == ["setup failed"]
    assert run.phases("test_skipped_in_setup") == ["setup skipped"]
    assert run.phases("test_skipped") == ["call skipped"]
    assert run.phases("test_expected") == ["call xskipped"]
    assert run.phases("test_last") == ["call passed"]


def test_a_report_names_no_rules_of_earlier_tests(inner: Runner) -> None:
    run = inner(
        """
        from client import ask

        def test_one(shared):
            shared.on(b"one").reply(b"1")
            shared.on(b"unused").reply(b"")
            assert ask(shared, b"one") == b"1"

        def test_two(shared):
            shared.on(b"two").reply(b"2")
            shared.on(b"other").reply(b"2")
            assert ask(shared, b"two") == b"3"
        """,
        *IN_ORDER,
    )

    assert run.phases("test_two") == ["call failed"]
    assert "# never taken: rule 4 (test_it.py:10), on(b'other')" in run.stdout
    assert "on(b'unused')" not in run.stdout


# A fixture's own


def test_a_fixtures_demand_is_met_by_all_its_tests_together(inner: Runner) -> None:
    run = inner(
        """
        import pytest
        from client import ask

        @pytest.fixture(scope="module")
        def server(shared):
            shared.on(b"a", times=2).reply(b"A")
            shared.on(b"never", times=1).reply(b"")
            return shared

        def test_1(server):
            assert ask(server, b"a") == b"A"

        def test_2(server):
            assert ask(server, b"a") == b"A"
        """,
        *IN_ORDER,
    )

    assert run.phases("test_1") == ["call passed"]
    assert run.phases("test_2") == ["call passed", "teardown failed"]
    assert f"on(b'never'), {NEVER}" in run.stdout
    assert "on(b'a')," not in run.stdout


def test_a_fixtures_demand_is_judged_when_the_fixture_ends_and_not_its_server(inner: Runner) -> None:
    inner.write(
        "def test_other(sockserver_session):\n    for each in sockserver_session.servers: each.clear()", "test_z"
    )
    run = inner(
        """
        import pytest
        from client import ask

        @pytest.fixture(scope="session")
        def whole(sockserver_session):
            return sockserver_session.tcp()

        @pytest.fixture(scope="class", params=["first", "second"])
        def server(whole, request):
            whole.on(request.param.encode(), times=1).reply(b"yes")
            return whole

        class Test:
            def test_it(self, server):
                pass

            def test_ask(self, server):
                ask(server, b"first")

            def test_after(self, server):
                pass
        """,
        *IN_ORDER,
        "test_it.py",
        "test_z.py",
    )

    assert run.phases("test_after[first]") == ["call passed"]
    assert run.phases("test_after[second]") == ["call passed", "teardown failed"]
    assert run.phases("test_other") == ["call passed"]
    assert f"on(b'second'), {NEVER}" in run.stdout
    assert f"on(b'first'), {NEVER}" not in run.stdout


def test_a_fixtures_own_goodbye_is_in_time_and_its_clear_forgets_nothing(inner: Runner) -> None:
    run = inner(
        """
        import pytest
        from client import ask

        @pytest.fixture(scope="module")
        def polite(shared):
            shared.on(b"bye", times=1).reply(b"BYE")
            yield
            assert ask(shared, b"bye") == b"BYE"
            shared.clear()

        @pytest.fixture(scope="class")
        def rude(shared):
            shared.clear()
            shared.on(b"rude", times=1).reply(b"")
            yield
            shared.clear()

        class Test:
            def test_rude(self, rude):
                pass

        def test_polite(polite):
            pass

        def test_last(shared):
            pass
        """,
        *IN_ORDER,
    )

    assert run.phases("test_rude") == ["call passed", "teardown failed"]
    assert run.phases("test_last") == ["call passed"]
    assert f"on(b'rude'), {NEVER}" in run.stdout


def test_a_clear_in_a_tests_teardown_does_not_forget_what_a_wider_fixture_demanded(inner: Runner) -> None:
    run = inner(
        """
        import pytest

        @pytest.fixture(scope="module")
        def declared(shared):
            shared.on(b"a", times=1).reply(b"A")

        @pytest.fixture
        def tidy(shared, declared):
            yield
            shared.clear()

        def test_one(tidy):
            pass

        def test_two(declared):
            pass
        """,
        *IN_ORDER,
    )

    assert run.phases("test_one") == ["call passed"]
    assert run.phases("test_two") == ["call passed", "teardown failed"]


def test_what_a_parametrized_fixture_missed_is_told_when_the_server_stops(inner: Runner) -> None:
    """pytest ends it in the setup of the first test with another parameter, which is not to blame."""
    run = inner(
        """
        import pytest

        @pytest.fixture(scope="module", params=[b"first", b"second"], ids=["1", "2"])
        def server(shared, request):
            if request.param == b"first":
                shared.on(request.param, times=1).reply(b"yes")
            else:
                shared.clear()

        def test_a(server):
            pass

        def test_b(server):
            pass
        """,
        *IN_ORDER,
    )

    assert run.phases("test_a[2]") == ["call passed"]
    assert run.phases("test_b[2]") == ["call passed", "teardown failed"]
    assert f"on(b'first'), {NEVER}" in run.stdout


def test_a_fixture_that_fails_demands_nothing(inner: Runner) -> None:
    run = inner(
        """
        import pytest

        @pytest.fixture(scope="module")
        def broken(shared):
            shared.on(b"a", times=1).reply(b"A")
            raise RuntimeError("broken")

        def test_one(shared, broken):
            pass

        def test_two(shared):
            pass
        """,
        *IN_ORDER,
    )

    assert run.phases("test_one") == ["setup failed"]
    assert run.phases("test_two") == ["call passed"]


@pytest.mark.parametrize("how", ["by name", "by getfixturevalue"])
def test_the_first_server_of_a_run_made_in_the_midst_of_a_fixture(inner: Runner, how: str) -> None:
    """The fixtures that are being set up, for which there was no hook, own what they declare afterwards."""
    asks, server = (
        ("sockserver_session", "sockserver_session")
        if how == "by name"
        else (
            "request",
            "request.getfixturevalue('sockserver_session')",
        )
    )
    run = inner.outside(
        f"""
        import pytest
        from client import ask

        @pytest.fixture(scope="session")
        def inmost({asks}):
            server = {server}.tcp()
            server.on(b"session", times=1).reply(b"1")
            return server

        @pytest.fixture(scope="module")
        def wide(request):
            server = request.getfixturevalue("inmost")
            server.on(b"module", times=2).reply(b"2")
            return server

        @pytest.fixture
        def narrow(request):
            server = request.getfixturevalue("wide")
            server.on(b"function", times=1).reply(b"3")
            return server

        def test_one(narrow):
            assert ask(narrow, b"module") == b"2"

        def test_two(wide):
            assert ask(wide, b"session") == b"1"
        """,
        *IN_ORDER,
    )

    run.result.assert_outcomes(passed=1, failed=1, errors=1)
    assert "ERROR at teardown of test_two" in run.stdout
    assert f"on(b'function'), {NEVER}" in run.stdout
    assert "on(b'module'), was to be taken 2 times, and was taken only once" in run.stdout
    assert "on(b'session')," not in run.stdout


# What went wrong


def test_what_goes_wrong_in_a_teardown_is_not_the_next_tests(inner: Runner) -> None:
    run = inner(
        """
        import pytest
        from client import connect

        @pytest.fixture
        def rude(shared):
            with connect(shared) as sock:
                yield sock
                sock.sendall(b"rude\\n")
                sock.recv(9) if sock is None else None

        def test_one(shared, rude):
            @shared.handler
            def greet(conn):
                conn.expect(b"hi\\n")
                conn.expect(b"polite\\n")
            rude.sendall(b"hi\\n")

        def test_two(shared):
            pass
        """,
        *IN_ORDER,
    )

    assert run.phases("test_one") == ["call passed", "teardown failed"]
    assert run.phases("test_two") == ["call passed"]
    assert "ScriptMismatch" in run.stdout


def test_what_goes_wrong_in_a_setup_that_is_skipped_is_told(inner: Runner) -> None:
    run = inner(
        """
        import pytest
        from client import ask

        @pytest.fixture
        def skipped(shared):
            shared.on(b"a").reply(b"A")
            assert ask(shared, b"b") == b"(reset)"
            pytest.skip("no")

        def test_one(shared, skipped):
            pass

        def test_two(shared):
            pass
        """,
        *IN_ORDER,
    )

    assert run.phases("test_one") == ["setup skipped", "teardown failed"]
    assert run.phases("test_two") == ["call passed"]
    assert "UnexpectedRequest" in run.stdout


def test_a_client_that_outlives_its_test_is_not_the_next_tests(inner: Runner) -> None:
    run = inner(
        """
        import threading

        let_go, gone = threading.Event(), threading.Event()

        def fetch():
            let_go.wait(9)
            gone.set()
            raise RuntimeError("too late")

        def test_one(shared):
            shared.in_thread(fetch)

        def test_two(shared):
            let_go.set()
            assert gone.wait(9)

        def test_three(shared):
            pass
        """,
        *IN_ORDER,
    )

    assert run.phases("test_one") == run.phases("test_two") == ["call passed"]
    assert run.phases("test_three") == ["call passed", "teardown failed"]
    assert "RuntimeError: too late" in run.stdout


def test_who_came_after_an_earlier_call_fails_no_later_test(inner: Runner) -> None:
    run = inner(
        """
        import pytest
        from client import connect

        clients = []

        @pytest.fixture
        def late(shared):
            yield
            clients.append(connect(shared))
            shared.connections[0] if clients is None else shared.wait_connection()

        def test_one(shared, late):
            shared.on(b"a").reply(b"A")

        def test_two(shared):
            pass

        def test_three(shared):
            with clients[0] as sock:
                sock.sendall(b"b")
                assert sock.recv(9) == b""
        """,
        *IN_ORDER,
        "-W",
        "default::pytest_sockserver.SockServerWarning",
    )

    assert run.phases("test_three") == ["call failed"]
    assert "ConnectionResetError" in run.stdout
    assert "SockServerWarning: shared, connection 0" in run.stdout
    assert "sockserver: raised on the server's side" not in run.stdout


def test_a_run_that_is_cut_short_does_not_fail_for_a_fixtures_demand(inner: Runner) -> None:
    source = """
        import pytest

        @pytest.fixture(scope="module")
        def server(shared):
            shared.on(b"a", times=1).reply(b"A")
            return shared

        def test_one(server):
            assert False

        def test_two(server):
            pass
        """

    run = inner(source, *IN_ORDER, "-x")

    assert run.phases("test_one") == ["call failed"]
    assert "PytestWarning: this was pending when the run was left: UnmetExpectation: " in run.stdout

    assert inner(source, *IN_ORDER).phases("test_two") == ["call passed", "teardown failed"]


# Other kinds of tests, and of runs


def test_other_kinds_of_tests_are_judged_as_well(inner: Runner) -> None:
    run = inner(
        """
        import contextlib
        import unittest
        import pytest

        @pytest.fixture
        def server(shared):
            shared.clear()
            return shared

        class Test(unittest.TestCase):
            @pytest.fixture(autouse=True)
            def _server(self, server, client):
                self.server = server

            def test_1_unit(self):
                self.server.script().expect(b"hi\\n")

            def test_2_next(self):
                pass

        @pytest.mark.asyncio
        async def test_3_asyncio(server, client):
            server.on(b"hi\\n", times=1).reply(b"ho\\n")

        @pytest.mark.asyncio
        async def test_4_next(server, client):
            pass

        @pytest.mark.trio
        async def test_5_trio(server, client):
            server.on(b"hi\\n", times=1).reply(b"ho\\n")

        @pytest.mark.trio
        async def test_6_next(server, client):
            pass

        if pytest.version_tuple < (9,):  # it came with that
            class NoSubtests:
                def test(self):
                    return contextlib.nullcontext()

            @pytest.fixture
            def subtests():
                return NoSubtests()

        @pytest.mark.parametrize("n", range(2))
        def test_7(server, client, n, subtests):
            with subtests.test():
                server.script().expect(b"hi\\n") if not n else None
        """,
        *IN_ORDER,
        loaded=(
            *OURS,
            *("-p", "pytest_asyncio.plugin", "-o", "asyncio_default_fixture_loop_scope=function"),
            *("-p", "pytest_trio.plugin"),
        ),
    )

    for name in ("test_1_unit", "test_3_asyncio", "test_5_trio", "test_7[0]"):
        assert run.phases(name)[-1] == "teardown failed", name
    for name in ("test_2_next", "test_4_next", "test_6_next", "test_7[1]"):
        assert run.phases(name)[-1] == "call passed", name


def test_a_teardown_within_the_call_forgets_no_demand(inner: Runner) -> None:
    run = inner(
        """
        import unittest
        import pytest

        class Methods:
            @pytest.fixture(autouse=True)
            def _server(self, tcp_server):
                self.server = tcp_server

            def setUp(self):
                self.server.on(b"a", times=1).reply(b"b")
                self.server.clear()

        class Test(Methods, unittest.TestCase):
            def tearDown(self):
                self.server.clear()

            def test_1_tear_down(self):
                self.server.on(b"hi", times=1).reply(b"ho")

            def test_2_cleared(self):
                self.server.on(b"hi", times=1).reply(b"ho")
                self.server.clear()

        class TestCleanUp(Methods, unittest.TestCase):
            def test_3_clean_up(self):
                self.addCleanup(self.server.clear)
                self.server.script().expect(b"hi")

        class TestAsync(Methods, unittest.IsolatedAsyncioTestCase):
            async def asyncTearDown(self):
                self.server.clear()

            async def test_4_tear_down(self):
                self.server.on(b"hi", times=1).reply(b"ho")

        @pytest.fixture
        async def clean(tcp_server):
            tcp_server.on(b"a", times=1).reply(b"b")
            tcp_server.clear()
            yield
            tcp_server.clear()

        @pytest.mark.trio
        async def test_5_trio(tcp_server, clean):
            tcp_server.on(b"hi", times=1).reply(b"ho")

        @pytest.mark.trio
        async def test_6_trio(clean):
            pass
        """,
        *IN_ORDER,
        loaded=(*OURS, "-p", "pytest_trio.plugin"),
    )

    for name in ("test_1_tear_down", "test_3_clean_up", "test_4_tear_down", "test_5_trio"):
        assert run.phases(name) == ["call failed"], name
    for name in ("test_2_cleared", "test_6_trio"):
        assert run.phases(name) == ["call passed"], name


def test_a_run_within_a_test_leaves_the_outer_test_its_demands(inner: Runner) -> None:
    run = inner(
        """
        import pytest

        pytest_plugins = ["pytester"]

        @pytest.fixture
        def server(shared):
            shared.clear()
            return shared

        def test_one(server, client, pytester):
            pytester.makepyfile("def test_it(tcp_server): tcp_server.on(b'x').reply(b'y')")
            pytester.runpytest_inprocess("-p", "pytest_sockserver.pytest_plugin.plugin", "-p", "no:cacheprovider")
            server.on(b"a", times=1).reply(b"A")

        def test_two(server, client):
            pass
        """,
        *IN_ORDER,
        "-W",
        "ignore",
    )

    assert run.phases("test_one") == ["call passed", "teardown failed"]
    assert run.phases("test_two") == ["call passed"]


@pytest.mark.parametrize(
    ("fixture", "kind", "wait"),
    [("tcp_server", "SOCK_STREAM", "wait_connection"), ("udp_server", "SOCK_DGRAM", "wait_for")],
)
def test_a_record_that_was_cleared_does_not_look_as_if_no_client_had_come(
    inner: Runner, fixture: str, kind: str, wait: str
) -> None:
    run = inner(
        f"""
        import socket

        def test_it({fixture}):
            client = socket.socket(socket.AF_INET, socket.{kind})
            client.connect({fixture}.address)
            client.sendall(b"a")
            {fixture}.{wait}()
            {fixture}.clear()
            client.close()
            {fixture}.script().expect(b"b")
        """
    )

    assert run.phases("test_it") == ["call failed"]
    assert "# nobody has come since clear()" in run.stdout


def test_a_session_shared_by_the_workers_of_xdist(inner: Runner) -> None:
    inner.write(
        """
        import pytest

        @pytest.fixture(scope="session")
        def whole(sockserver_session):
            return sockserver_session.tcp()

        @pytest.fixture
        def server(whole):
            whole.clear()
            return whole
        """,
        "conftest",
    )
    run = inner.outside(
        """
        import pytest

        @pytest.mark.parametrize("n", range(8))
        def test_it(server, n):
            server.on(b"a", times=1).reply(b"A") if n in (2, 5) else None
        """,
        *("-n", "2", "-v"),
        loaded=(*OURS, "-p", "xdist.plugin"),
    )

    assert run.summary()[-1] == "2 failed, 6 passed"
    assert "FAILED test_it.py::test_it[2]" in run.stdout
    assert "FAILED test_it.py::test_it[5]" in run.stdout
