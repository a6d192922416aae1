"""What holds in the whole suite: expected texts, the guard of locks, and what one version of Python is enough for.

See ``expected_texts.py`` and ``lock_guard.py``.  No test has to ask for the guard: code of the user that runs under a
lock of ours is an error of the test.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from . import lock_guard
from .expected_texts import SWITCH, SameText, Texts, stem_of

lock_guard.install()

#: What runs on one version of Python in CI: pure code without a syntax or a library of its own for a version, and what
#: real clients make of the bytes that they get.  Everything that concerns threads, sockets, TLS, tracebacks, pytest's
#: reports, event loops and imports runs on each.
ONE_VERSION = (
    "benchmarks",
    "clients",
    "conformance/test_mutations.py",
    "faults",
    "recipes",
    "test_buffer_matching_parts.py",
    "test_fault_matrix.py",
    "test_dialogue_parsing.py",
    "test_dialogue_writing.py",
    "test_expected_texts.py",
    "test_framing.py",
    "test_no_progress.py",
    "test_seconds.py",
    "test_segmentation.py",
    "test_sizes.py",
    "test_strategies.py",
    "test_sweeps.py",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("this suite")
    group.addoption(
        "--each-version", action="store_true", help="leave out what one version of Python is enough for (conftest.py)"
    )
    group.addoption(SWITCH, action="store_true", help="write the texts that tests compare to their files")
    group.addoption("--list-expected", action="store_true", help="print which tests compare texts, with --collect-only")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("each_version"):
        return
    tests = Path(__file__).parent
    once = [tests / name for name in ONE_VERSION]
    assert all(path.exists() for path in once), once
    left_out = [item for item in items if any(item.path.is_relative_to(path) for path in once)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in set(left_out)]


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
