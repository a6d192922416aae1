"""Which module the suite judges.

By default it is ours; ``SOCKETSERVER_UNDER_TEST=some.module`` names another: the standard library's, which must pass
all but the mended defects (those must fail on it), or a broken one, which must not pass.
"""

from __future__ import annotations

import importlib
import os
from types import ModuleType

import pytest

from .harness import STANDARD

UNDER_TEST = os.environ.get("SOCKETSERVER_UNDER_TEST", "pytest_sockserver.socketserver")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "defect(number, verdict): a defect of the standard library's socketserver")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """On the standard library's module itself, what we mend or add must fail: else its test says nothing."""
    if UNDER_TEST != STANDARD:
        return
    for item in items:
        defect = item.get_closest_marker("defect")
        if defect is not None and defect.args[1] != "documented":
            item.add_marker(pytest.mark.xfail(reason="the standard library has this defect", strict=True))


@pytest.fixture(scope="session")
def standard() -> ModuleType:
    """The standard library's module."""
    return importlib.import_module(STANDARD)


@pytest.fixture(scope="session")
def module() -> ModuleType:
    """The module under test."""
    return importlib.import_module(UNDER_TEST)
