"""Which module the suite judges.

By default it is ours; ``SOCKETSERVER_UNDER_TEST=some.module`` names another: the standard library's, which must pass
all but the mended defects (those must fail on it), or a broken one, which must not pass.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from types import ModuleType

import pytest

from .harness import STANDARD, short_patience

UNDER_TEST = os.environ.get("SOCKETSERVER_UNDER_TEST", "pytest_sockserver.socketserver")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "defect(number, verdict): a defect of the standard library's socketserver")


def must_fail(item: pytest.Item) -> bool:
    """Whether it tests, on the standard library's module itself, what we mend or add: passing, it says nothing."""
    defect = item.get_closest_marker("defect")
    return UNDER_TEST == STANDARD and defect is not None and defect.args[1] != "documented"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if must_fail(item):
            item.add_marker(pytest.mark.xfail(reason="the standard library has this defect", strict=True))


@pytest.fixture(autouse=True)
def _little_patience_with_what_must_fail(request: pytest.FixtureRequest) -> Iterator[None]:
    if must_fail(request.node):
        with short_patience(0.5):
            yield
    else:
        yield


@pytest.fixture(scope="session")
def standard() -> ModuleType:
    """The standard library's module."""
    return importlib.import_module(STANDARD)


@pytest.fixture(scope="session")
def module() -> ModuleType:
    """The module under test."""
    return importlib.import_module(UNDER_TEST)
