"""The pytest plugin: options, fixtures, and nothing that costs a run which uses none of them.

Everything else is imported when the first of the fixtures is set up; the hooks that watch tests are
registered then as well, and run for that very test's call.

Short, since pytest reads a plugin's compiled file piece by piece, each constant by itself.
"""

from __future__ import annotations

import sys

import pytest

from . import SETTINGS, ends_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ..server.datagram import DatagramTestServer
    from ..server.factory import SockServer
    from ..server.stream import StreamTestServer


def __tracebackhide__(raised: Any) -> bool:  # loaded by a report alone
    from ..errors.location import hide_frame

    return hide_frame(raised)


MARKER = (
    "sockserver(**options): options of every server that the test's fixtures make: "
    "host, port, path, framing, timeout, stop_timeout, tls, rcvbuf, mss, backlog, record_limit, max_frame, "
    "ignore_probes, "
    "allow_remote, name"
)

#: On the config: the number that servers started in this session are above.
_started_key = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("sockserver", "servers for tests of network clients")
    for name, (kind, text) in SETTINGS.items():
        group.addoption(
            f"--sockserver-{name.replace('_', '-')}",
            dest=f"sockserver_{name}",
            metavar={"float": "SECONDS", "int": "BYTES"}.get(kind, "HOST"),
            default=None,  # "not given" is told from "given the default"
            type={"float": _seconds, "int": _bytes}.get(kind, str),
            help=text,
        )
        parser.addini(f"sockserver_{name}", text, type=kind, default=None)  # type: ignore[arg-type]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARKER)
    if (
        "pytest_sockserver.server.forgotten" in sys.modules
    ):  # a run within a run: the outer one's servers are not this one's
        config.stash[_started_key] = sys.modules["pytest_sockserver.server.forgotten"].latest()
    for name in SETTINGS:
        if _is_given(config, name):
            from .settings import check_given

            check_given(config, name)


def _is_given(config: pytest.Config, name: str) -> bool:
    try:
        ini = config.getini(f"sockserver_{name}")
    except (ValueError, pytest.UsageError):
        return True  # it is none of its type
    return ini not in (None, "") or config.getoption(f"sockserver_{name}") is not None


def pytest_collection_finish(session: pytest.Session) -> None:
    """Watch all tests if they may make servers by themselves: something has imported a server's class."""
    if "pytest_sockserver.server.base" in sys.modules and session.items and not session.config.option.collectonly:
        from .hooks import register

        register(session.config)


@pytest.hookimpl(optionalhook=True, wrapper=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> Iterator[Any]:
    """Keep our deadlines below the test's time limit: pytest-timeout's report would name a lock of ours."""
    if settings.timeout:
        from ..bound import original

        item.stash[ends_key] = limit = (original.monotonic() + settings.timeout, settings.method == "thread")
        if "pytest_sockserver.connection.deadline" in sys.modules:
            sys.modules["pytest_sockserver.connection.deadline"].limit_test(*limit)
    return (yield)


@pytest.hookimpl(optionalhook=True, wrapper=True)
def pytest_timeout_cancel_timer(item: pytest.Item) -> Iterator[Any]:
    if "pytest_sockserver.connection.deadline" in sys.modules:
        sys.modules["pytest_sockserver.connection.deadline"].limit_test(None)
    return (yield)


def pytest_keyboard_interrupt(excinfo: pytest.ExceptionInfo[BaseException]) -> None:
    """Note that somebody leaves the run: by Ctrl-C, by ``pytest.exit()``, by ``q`` in the debugger."""
    if "pytest_sockserver.server.leaving" in sys.modules and not isinstance(excinfo.value, pytest.Session.Interrupted):
        sys.modules["pytest_sockserver.server.leaving"].begin(in_haste=True, error=excinfo.value)


@pytest.hookimpl(wrapper=True, trylast=True)  # innermost: what it reports is there before the terminal's summary
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> Iterator[Any]:
    """Report what pytest's own ending tears down: an exception from there would replace the report of the run."""
    if "pytest_sockserver.server.leaving" in sys.modules:
        from .hooks import run_ends

        with run_ends(session, exitstatus):
            result = yield
    else:
        result = yield
    forgotten = sys.modules.get("pytest_sockserver.server.forgotten")
    errors = forgotten.tell(since=session.config.stash.get(_started_key, 0)) if forgotten is not None else ()
    if errors:
        from .hooks import tell_forgotten

        tell_forgotten(session, errors)
    return result


# Fixtures


@pytest.fixture
def sockserver(request: pytest.FixtureRequest) -> Iterator[SockServer]:
    """A factory of servers: .tcp() .tls() .udp() .unix() .unix_datagram() .tcp_and_udp(), any number of them."""
    yield from _factory(request)


@pytest.fixture(scope="module")
def sockserver_module(request: pytest.FixtureRequest) -> Iterator[SockServer]:
    """The factory ``sockserver``, for servers that live as long as the module's tests."""
    yield from _factory(request)


@pytest.fixture(scope="session")
def sockserver_session(request: pytest.FixtureRequest) -> Iterator[SockServer]:
    """The factory ``sockserver``, for servers that live as long as the run."""
    yield from _factory(request)


@pytest.fixture
def tcp_server(request: pytest.FixtureRequest) -> Iterator[StreamTestServer]:
    """A running TCP server on a free port of 127.0.0.1; declare what it does with .handler."""
    yield from _one(request, "tcp")


@pytest.fixture
def tls_server(request: pytest.FixtureRequest) -> Iterator[StreamTestServer]:
    """A running server that speaks TLS from the first byte; what clients must trust is .client_context(), .ca_path."""
    yield from _one(request, "tls")


@pytest.fixture
def udp_server(request: pytest.FixtureRequest) -> Iterator[DatagramTestServer]:
    """A running UDP server on a free port of 127.0.0.1; it records, and answers what .handler says."""
    yield from _one(request, "udp")


@pytest.fixture
def unix_server(request: pytest.FixtureRequest) -> Iterator[StreamTestServer]:
    """A running server on a unix stream socket with a short path of its own."""
    yield from _one(request, "unix")


@pytest.fixture
def unix_datagram_server(request: pytest.FixtureRequest) -> Iterator[DatagramTestServer]:
    """A running server on a unix datagram socket with a short path of its own."""
    yield from _one(request, "unix_datagram")


def _one(request: pytest.FixtureRequest, transport: str) -> Iterator[Any]:
    from .fixtures import one

    yield from one(request, transport)


def _factory(request: pytest.FixtureRequest) -> Iterator[SockServer]:
    from .fixtures import factory_of

    yield from factory_of(request)


def _seconds(text: str) -> float:
    from .settings import seconds

    return seconds(text)


def _bytes(text: str) -> int:
    from .settings import bytes_of

    return bytes_of(text)
