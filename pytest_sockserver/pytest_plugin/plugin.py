"""The pytest plugin: options, fixtures, and nothing that costs a run which uses none of them.

Everything else is imported when the first of the fixtures is set up; the hooks that watch tests are
registered then as well, and run for that very test's call.
"""

from __future__ import annotations

import sys

import pytest

from ..bound import original

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from typing import Any

    from ..server.base import BaseTestServer
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

_SETTINGS = {  # ini setting and flag: its type, and what it says
    "timeout": ("float", "seconds that each wait and verb of a server may take (default: 5)"),
    "stop_timeout": ("float", "seconds that a stop gives the threads of a server to end (default: 5)"),
    "record_limit": ("int", "bytes of memory that a server's recording may take (default: 64 MiB)"),
    "host": ("string", "address that servers listen on (default: 127.0.0.1)"),
}

#: Seconds: scripting.checks.LONGEST_WAIT, which is not imported before one of the fixtures is used.
LONGEST_WAIT = 86_400

_EXPECTED = {"float": "seconds above 0", "int": "a number of bytes above 0"}

#: When a test's time limit runs out, on the clock of monotonic(), and whether that ends the process; set by
#: pytest-timeout, if it is there.
ends_key = pytest.StashKey["tuple[float, bool]"]()

#: On the config: the number that servers started in this session are above.
_started_key = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("sockserver", "servers for tests of network clients")
    for name, (kind, text) in _SETTINGS.items():
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
    for name, (kind, _) in _SETTINGS.items():
        setting = f"sockserver_{name}"
        _check_setting(config, setting, name, kind)
        host = config.getoption(setting) if name == "host" else None
        if host is not None:
            _check_option(f"--{setting.replace('_', '-')}", name, host)


@pytest.hookimpl(optionalhook=True, wrapper=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> Iterator[Any]:
    """Keep our deadlines below the test's time limit: pytest-timeout's report would name a lock of ours."""
    if settings.timeout:
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
    _tell_forgotten(session)
    return result


def _tell_forgotten(session: pytest.Session) -> None:
    """Tell which servers were started by hand in this session, and never stopped."""
    forgotten = sys.modules.get("pytest_sockserver.server.forgotten")
    if forgotten is None:
        return
    errors = forgotten.tell(since=session.config.stash.get(_started_key, 0))
    if not errors:
        return
    # A filter makes it an error, and no test is left whose it could be: it fails the run, which goes on to its report.
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        for error in errors:
            at = error.__traceback__
            warnings.warn_explicit(error, ResourceWarning, at.tb_frame.f_code.co_filename, at.tb_lineno)
    if session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


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
    yield from _one(request, lambda factory: factory.tcp(name="tcp_server"))


@pytest.fixture
def tls_server(request: pytest.FixtureRequest) -> Iterator[StreamTestServer]:
    """A running server that speaks TLS from the first byte; what clients must trust is .client_context(), .ca_path."""
    yield from _one(request, lambda factory: factory.tls(name="tls_server"))


@pytest.fixture
def udp_server(request: pytest.FixtureRequest) -> Iterator[DatagramTestServer]:
    """A running UDP server on a free port of 127.0.0.1; it records, and answers what .handler says."""
    yield from _one(request, lambda factory: factory.udp(name="udp_server"))


@pytest.fixture
def unix_server(request: pytest.FixtureRequest) -> Iterator[StreamTestServer]:
    """A running server on a unix stream socket with a short path of its own."""
    yield from _one(request, lambda factory: factory.unix(name="unix_server"))


@pytest.fixture
def unix_datagram_server(request: pytest.FixtureRequest) -> Iterator[DatagramTestServer]:
    """A running server on a unix datagram socket with a short path of its own."""
    yield from _one(request, lambda factory: factory.unix_datagram(name="unix_datagram_server"))


def _one(request: pytest.FixtureRequest, make: Callable[[SockServer], BaseTestServer]) -> Iterator[Any]:
    factories = _factory(request)
    factory = next(factories)
    try:
        server = make(factory)
    except BaseException as error:
        factories.close()
        if not isinstance(error, (TypeError, ValueError, OSError)):
            raise  # Ctrl-C
        from ..errors.location import traceback_at_definition
        from .hooks import traceback_of_marker

        # No line of the user's has called us.  The nearest marker wins; without one it is the test that asked for this.
        marks = list(request.node.iter_markers_with_node("sockserver"))
        at = (
            traceback_of_marker(*marks[0])
            if marks
            else traceback_at_definition(getattr(request.node, "function", None))
        )
        raise error.with_traceback(at or error.__traceback__) from None
    yield server
    yield from factories  # its end stops and verifies


def _factory(request: pytest.FixtureRequest) -> Generator[SockServer, None, None]:
    from ..server.factory import SockServer
    from . import hooks

    hooks.register(request)
    hooks.limit_deadlines(request.node)
    factory = SockServer(**_defaults(request))
    factory._fixture = request.fixturename
    hooks.begin(factory, request.node)
    try:
        yield factory
    finally:
        hooks.finish(factory, request.node)


# Options: the nearer wins: keyword, marker, flag, ini file


def _defaults(request: pytest.FixtureRequest) -> dict[str, Any]:
    options = {}
    for name in _SETTINGS:
        value = request.config.getoption(f"sockserver_{name}")
        if value is None:
            value = request.config.getini(f"sockserver_{name}")
        if value not in (None, ""):
            options[name] = value
    if request.node is not None:
        for node, mark in reversed(list(request.node.iter_markers_with_node("sockserver"))):
            _check_marker(node, mark)
            options.update(mark.kwargs)
    return options


def _check_marker(node: pytest.Collector | pytest.Item, mark: pytest.Mark) -> None:
    from ..server.options import NAMES, check_options

    try:
        if mark.args:
            raise TypeError(f"pytest.mark.sockserver takes options by name alone, not {mark.args[0]!r}")
        check_options(mark.kwargs, NAMES, where="pytest.mark.sockserver")
    except (TypeError, ValueError) as error:
        from .hooks import traceback_of_marker

        raise error.with_traceback(traceback_of_marker(node, mark)) from None


def _check_setting(config: pytest.Config, setting: str, name: str, kind: str) -> None:
    try:
        value = config.getini(setting)
    except (ValueError, pytest.UsageError) as error:
        if setting in str(error):
            raise  # else it is "could not convert string to float: 'abc'": the text, and not of which setting
        text = str(error).rpartition(": ")[2]
        raise pytest.UsageError(f"{setting}: expected {_EXPECTED[kind]}, not {text}") from None
    if value not in (None, ""):
        _check_option(setting, name, value)


def _check_option(where: str, name: str, value: Any) -> None:
    from ..server.options import Options, check_option
    from ..transport.address import checked_host

    try:
        check_option(name, value)
        if name == "host":
            checked_host(Options(host=value))
    except (TypeError, ValueError) as error:
        raise pytest.UsageError(f"{where}: {error}") from None


def _seconds(text: str) -> float:
    seconds = float(_number(text, float, _EXPECTED["float"]))
    if seconds > LONGEST_WAIT:
        from argparse import ArgumentTypeError

        raise ArgumentTypeError(f"expected seconds above 0, and at most {LONGEST_WAIT:,} (a day), not {text!r}")
    return seconds


def _bytes(text: str) -> int:
    return int(_number(text, int, _EXPECTED["int"]))


def _number(text: str, kind: type[int] | type[float], expected: str) -> float:
    try:
        value = kind(text)
    except ValueError:
        value = kind(0)
    if not 0 < value < float("inf"):
        from argparse import ArgumentTypeError

        raise ArgumentTypeError(f"expected {expected}, not {text!r}")
    return value
