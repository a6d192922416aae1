"""What the fixtures do; imported when the first of them is set up."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import pytest

from ..errors.location import hide_frame, traceback_at_definition
from ..server.base import BaseTestServer
from ..server.factory import SockServer
from ..server.options import NAMES, check_options
from . import SETTINGS, hooks

__tracebackhide__ = hide_frame


def one(request: pytest.FixtureRequest, transport: str) -> Iterator[BaseTestServer]:
    """Yield a running server; stop and judge it."""
    factories = factory_of(request)
    factory = next(factories)
    try:
        server = _make(factory, transport)
    except BaseException as error:
        factories.close()
        if not isinstance(error, (TypeError, ValueError, OSError)):
            raise  # Ctrl-C
        # No line of the user's has called us.  The nearest marker wins; without one it is the test that asked for this.
        marks = list(request.node.iter_markers_with_node("sockserver"))
        at = (
            hooks.traceback_of_marker(*marks[0])
            if marks
            else traceback_at_definition(getattr(request.node, "function", None))
        )
        raise error.with_traceback(at or error.__traceback__) from None
    yield server
    next(factories, None)  # its end stops and verifies


def _make(factory: SockServer, transport: str) -> BaseTestServer:
    server: BaseTestServer = getattr(factory, transport)(name=f"{transport}_server")  # the line that a report shows
    return server


def factory_of(request: pytest.FixtureRequest) -> Generator[SockServer, None, None]:
    """Yield a factory; stop and judge its servers."""
    hooks.register_late(request)
    hooks.limit_deadlines(request.node)
    factory = SockServer(**_defaults(request))
    hooks.begin(factory.fleet, request.node, str(request.fixturename))
    try:
        yield factory
    finally:
        hooks.finish(factory.fleet, request.node)


# Options: the nearer wins: keyword, marker, flag, ini file


def _defaults(request: pytest.FixtureRequest) -> dict[str, Any]:
    options = {}
    for name in SETTINGS:
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
    try:
        if mark.args:
            raise TypeError(f"pytest.mark.sockserver takes options by name alone, not {mark.args[0]!r}")
        check_options(mark.kwargs, NAMES, where="pytest.mark.sockserver")
    except (TypeError, ValueError) as error:
        raise error.with_traceback(hooks.traceback_of_marker(node, mark)) from None
