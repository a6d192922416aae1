"""Servers that the user's own fixtures make: what a test demanded of them is judged for that test."""

from __future__ import annotations

import pytest
import trustme  # noqa: F401 - a run within this process would load it, and what it loads, again and again

from .plugin_runs import Runner

HEAD = """
import socket
import unittest
import pytest
from client import ask, connect, tell
from pytest_sockserver import DatagramTestServer, Delay, SockServer, StreamTestServer, UnmetExpectation, lines

LF = lines(b"\\n")
"""

IN_ORDER = ("-p", "no:randomly")
LATER = "raise AssertionError('not reached')"


@pytest.fixture
def inner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Runner:
    return Runner(pytester, monkeypatch)


SHARED = """
@pytest.fixture(scope="{scope}")
def shared():
    with {block} as owner:
        yield {server}

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
"""


@pytest.mark.parametrize(
    ("block", "server", "demand"),
    [
        ("StreamTestServer()", "owner", "on(b'a', times=1).reply(b'A')"),
        ("StreamTestServer()", "owner", "script().expect(b'a')"),
        ("StreamTestServer()", "owner", "dialogue('C- a')"),
        ("StreamTestServer()", "owner", "inject(b'x')"),
        ("StreamTestServer(transport='unix')", "owner", "on(b'a', times=(1, None)).reply(b'A')"),
        ("DatagramTestServer()", "owner", "on(b'a', times=1).reply(b'A')"),
        ("DatagramTestServer()", "owner", "script().expect(b'a')"),
        ("DatagramTestServer()", "owner", "dialogue('== 0\\nC- a')"),
        ("SockServer()", "owner.tcp()", "script().expect(b'a')"),
        ("SockServer()", "owner.udp()", "on(b'a', times=1).reply(b'A')"),
    ],
)
@pytest.mark.parametrize("scope", ["class", "module", "package", "session"])
def test_a_later_clear_does_not_forget_what_a_test_demanded(
    inner: Runner, scope: str, block: str, server: str, demand: str
) -> None:
    run = inner(
        HEAD
        + SHARED.format(scope=scope, block=block, server=server)
        + f"""
class Test:
    def test_one(self, server, client):
        server.{demand}

    def test_two(self, server, client):
        pass
""",
        *IN_ORDER,
    )

    assert run.phases("test_one") in (["call failed"], ["call passed", "teardown failed"])
    assert run.phases("test_two") == ["call passed"]  # it is told once, and not at the end of the block again
    assert "UnmetExpectation" in run.stdout


def test_the_same_in_a_process_of_its_own_that_uses_none_of_our_fixtures(inner: Runner) -> None:
    run = inner.outside(
        HEAD
        + SHARED.format(scope="module", block="StreamTestServer()", server="owner")
        + """
def test_one(server):
    server.on(b"a", times=1).reply(b"A")

def test_two(server, request):
    assert request.config.pluginmanager.has_plugin("sockserver-reports")
""",
        *IN_ORDER,
    )

    run.result.assert_outcomes(failed=1, passed=1)


@pytest.mark.parametrize("make", ["tcp(framing=LF)", "udp()"])
def test_a_server_that_a_test_makes_by_a_factory_of_a_wider_fixture(inner: Runner, make: str) -> None:
    run = inner(
        HEAD
        + f"""
@pytest.fixture(scope="module")
def factory():
    with SockServer() as factory:
        yield factory

def test_one(factory):
    factory.{make}.on(b"a", times=1).reply(b"A")

def test_two(factory):
    for server in factory.servers:
        server.clear()
""",
        *IN_ORDER,
    )

    assert run.phases("test_one") == ["call failed"]
    assert run.phases("test_two") == ["call passed"]


def test_a_server_that_a_class_starts_by_hand(inner: Runner) -> None:
    run = inner(
        HEAD
        + """
class Test:
    @classmethod
    def setup_class(cls):
        cls.server = StreamTestServer()
        cls.server.start()

    @classmethod
    def teardown_class(cls):
        cls.server.stop()

    def test_one(self):
        self.server.on(b"a", times=1).reply(b"A")

    def test_two(self):
        self.server.clear()

class TestOfUnittest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = cls.enterClassContext(StreamTestServer()) if hasattr(cls, "enterClassContext") else None
        if cls.server is None:
            cls.server = StreamTestServer()
            cls.server.start()
            cls.addClassCleanup(cls.server.stop)

    def test_three(self):
        self.server.on(b"a", times=1).reply(b"A")

    def test_two_more(self):
        self.server.clear()
""",
        *IN_ORDER,
    )

    assert run.phases("test_one") == run.phases("test_three") == ["call failed"]
    assert run.phases("test_two") == run.phases("test_two_more") == ["call passed"]


def test_a_clear_in_a_teardown_forgets_nothing_and_one_in_the_call_does(inner: Runner) -> None:
    run = inner(
        HEAD
        + SHARED.format(scope="module", block="StreamTestServer(framing=LF)", server="owner")
        + """
@pytest.fixture
def cleared(shared):
    yield shared
    shared.clear()

def test_one(cleared):
    cleared.on(b"a\\n", times=1).reply(b"A")

def test_two(cleared):
    cleared.on(b"b\\n", times=1).reply(b"B")
    cleared.clear()

def test_three(cleared):
    cleared.on(b"c\\n", times=1).reply(b"C\\n")
    assert ask(cleared, b"c\\n") == b"C\\n"
""",
        *IN_ORDER,
    )

    assert run.phases("test_one")[-1].endswith("failed")
    assert run.phases("test_two") == run.phases("test_three") == ["call passed"]


def test_what_the_fixture_demands_is_for_all_its_tests_and_its_block_raises_it_once(inner: Runner) -> None:
    run = inner(
        HEAD
        + """
@pytest.fixture(scope="module")
def met():
    with StreamTestServer(framing=LF) as server:
        server.on(b"a\\n", times=2).reply(b"A\\n")
        yield server

@pytest.fixture(scope="module")
def missed():
    with pytest.raises(UnmetExpectation):
        with SockServer() as factory:
            server = factory.udp()
            server.on(b"a", times=2).reply(b"A")
            yield server

@pytest.fixture(scope="module")
def missed_as_well():
    with StreamTestServer() as server:
        server.script().expect(b"a")
        yield server

def test_one(met, missed, missed_as_well):
    assert ask(met, b"a\\n") == b"A\\n"
    tell(missed, b"a")

def test_two(met, missed, missed_as_well):
    assert ask(met, b"a\\n") == b"A\\n"
""",
        *IN_ORDER,
    )

    assert run.phases("test_one") == ["call passed"]
    assert run.phases("test_two") == ["call passed", "teardown failed"]
    assert run.stdout.count("  pytest_sockserver.UnmetExpectation: ") == 1


def test_a_failing_handler_fails_the_test_that_runs_and_not_the_end_of_the_block(inner: Runner) -> None:
    run = inner(
        HEAD
        + SHARED.format(scope="module", block="StreamTestServer()", server="owner")
        + """
def test_one(server):
    @server.handler
    def fail(conn):
        conn.recv_line()
        raise ZeroDivisionError("on purpose")
    ask(server, b"a\\n")

def test_two(server):
    pass
""",
        *IN_ORDER,
    )

    assert run.phases("test_one") == ["call failed"]
    assert run.phases("test_two") == ["call passed"]


@pytest.mark.parametrize("block", ["StreamTestServer()", "DatagramTestServer()", "SockServer()"])
def test_a_block_within_a_test_raises_at_its_own_end_and_only_there(inner: Runner, block: str) -> None:
    run = inner(
        HEAD
        + f"""
def declare(owner):
    server = owner.tcp() if isinstance(owner, SockServer) else owner
    server.on(b"a", times=1).reply(b"A")

@pytest.fixture
def own():
    with pytest.raises(UnmetExpectation):
        with {block} as owner:
            yield owner

@pytest.fixture(scope="module")
def wider():
    with pytest.raises(UnmetExpectation):
        with {block} as owner:
            declare(owner)

def test_in_the_test(wider):
    with pytest.raises(UnmetExpectation):
        with {block} as owner:
            declare(owner)

def test_in_its_fixture(own):
    declare(own)

def test_that_does_not_expect_it():
    with {block} as owner:
        declare(owner)
    {LATER}
""",
        *IN_ORDER,
    )

    assert run.phases("test_in_the_test") == run.phases("test_in_its_fixture") == ["call passed"]
    assert run.phases("test_that_does_not_expect_it") == ["call failed"]
    assert "AssertionError: not reached" not in run.stdout
    assert run.stdout.count("  pytest_sockserver.UnmetExpectation: ") == 1


def test_a_server_of_a_wider_fixture_that_ended_is_let_go(inner: Runner) -> None:
    """One object may be started again, by a fixture or in a test: what that makes of it is another matter."""
    run = inner(
        HEAD
        + """
SERVER = StreamTestServer()

@pytest.fixture(scope="class", params=[1, 2])
def shared(request):
    with SERVER:
        yield SERVER

class TestOfAClass:
    def test_one(self, shared):
        shared.script().expect(b"a")

    def test_two(self, shared):
        shared.clear()

def test_three():
    with pytest.raises(UnmetExpectation):
        with SERVER:
            SERVER.on(b"a", times=1).reply(b"A")
""",
        *IN_ORDER,
    )

    for name in ("test_one[1]", "test_one[2]"):
        assert run.phases(name) == ["call failed"]
    for name in ("test_two[1]", "test_two[2]", "test_three"):
        assert run.phases(name) == ["call passed"]


@pytest.mark.parametrize(
    ("block", "server"),
    [("StreamTestServer()", "owner"), ("SockServer()", "owner.tcp()"), ("SockServer()", "owner.udp()")],
)
def test_what_a_parametrized_fixture_missed_is_told_when_the_server_stops(
    inner: Runner, block: str, server: str
) -> None:
    run = inner(
        HEAD
        + SHARED.format(scope="module", block=block, server=server)
        + """
@pytest.fixture(scope="module", params=["one", "two"])
def declared(shared, request):
    if request.param == "one":
        shared.on(b"a", times=1).reply(b"A")

def test_it(shared, declared):
    pass
""",
        *IN_ORDER,
    )

    assert run.phases("test_it[one]") == ["call passed"]
    assert run.phases("test_it[two]") == ["call passed", "teardown failed"]
    assert run.stdout.count("  pytest_sockserver.UnmetExpectation: ") == 1
