"""What holds in the whole suite: the switch and the fixture of expected texts, and the guard of locks.

See ``expected_texts.py`` and ``lock_guard.py``.  No test has to ask for the guard: code of the user that runs under a
lock of ours is an error of the test.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import pytest

from . import lock_guard
from .expected_texts import SWITCH, SameText, Texts, stem_of

lock_guard.install()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("expected texts of this suite")
    group.addoption(SWITCH, action="store_true", help="write the texts that tests compare to their files")
    group.addoption("--list-expected", action="store_true", help="print which tests compare texts, with --collect-only")


def pytest_collection_finish(session: pytest.Session) -> None:
    if session.config.getoption("list_expected"):
        for item in session.items:
            if "same_text" in getattr(item, "fixturenames", ()):
                print(f"compares texts: {stem_of(item.nodeid)}")


@pytest.fixture
def update_expected(request: pytest.FixtureRequest) -> bool:
    """Whether the switch was given."""
    return bool(request.config.getoption("update_expected"))


_passed_key = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    if call.when == "call":
        item.stash[_passed_key] = call.excinfo is None
    return (yield)


@pytest.fixture
def same_text(request: pytest.FixtureRequest, update_expected: bool) -> Iterator[SameText]:
    """Compare the texts of this test, one after the other, each with its file."""
    texts = Texts(stem_of(request.node.nodeid), update=update_expected)
    yield texts
    if not request.node.stash.get(_passed_key, False):
        return  # it may not have come to all of them
    for path in texts.further():
        if not update_expected:
            pytest.fail(f"no text was compared with {path.name}: pytest {SWITCH} removes it", pytrace=False)
        path.unlink()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown() -> Iterator[None]:
    try:
        return (yield)
    finally:
        found, lock_guard.found[:] = lock_guard.found[:], []
        if found:
            pytest.fail("\n".join(found), pytrace=False)
