"""What holds in the whole suite: expected texts, two guards, and what one version of Python is enough for.

See ``expected_texts.py``, ``leak_guard.py`` and ``lock_guard.py``.  No test has to ask for the guards: what a test
leaves behind, and code of the user that runs under a lock of ours, is an error of the test.
"""

from __future__ import annotations

import gc
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from . import lock_guard
from .expected_texts import SWITCH, SameText, Texts, stem_of
from .leak_guard import LeakGuard

lock_guard.install()

#: What runs on one version of Python in CI: pure code that uses nothing which differs between versions (declaring,
#: matching, framing, dialogues, faults as rows, whom a verdict is of), what other plugins do beside ours, what real
#: clients make of the bytes that they get, and the examples of the documentation.
ONE_VERSION = (
    "benchmarks",
    "clients",
    "conformance/test_mutations.py",
    "examples",
    "faults",
    "recipes",
    "test_addresses_options.py",
    "test_beside_plugins.py",
    "test_buffer_matching_parts.py",
    "test_declarations.py",
    "test_dialogue_parsing.py",
    "test_dialogue_writing.py",
    "test_empty_requests.py",
    "test_expected_texts.py",
    "test_fault_matrix.py",
    "test_framing.py",
    "test_leak_guard.py",
    "test_losses.py",
    "test_missed_injections.py",
    "test_no_progress.py",
    "test_owners.py",
    "test_rules.py",
    "test_scripts.py",
    "test_seconds.py",
    "test_segmentation.py",
    "test_sizes.py",
    "test_strategies.py",
    "test_strictness.py",
    "test_sweeps.py",
)

#: What runs on each all the same, as does everything else: threads, sockets, TLS, tracebacks and their carets, pytest's
#: reports, event loops, imports, debuggers, the standard library's classes, and the end of a process.
EACH_VERSION = (
    "examples/test_coroutines.py",
    "examples/test_framework.py",
    "examples/test_handler_classes.py",
    "examples/test_outputs.py",
    "examples/test_replaced.py",
    "examples/test_replaced_by_gevent.py",
    "examples/test_serve_tls.py",
    "examples/test_starttls.py",
    "examples/test_stopping.py",
    "examples/test_without_pytest.py",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("this suite")
    group.addoption(
        "--each-version", action="store_true", help="leave out what one version of Python is enough for (conftest.py)"
    )
    group.addoption(SWITCH, action="store_true", help="write the texts that tests compare to their files")
    group.addoption("--list-expected", action="store_true", help="print which tests compare texts, with --collect-only")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "one_version: runs on one version of Python in CI, though its file runs on each")
    config.pluginmanager.register(LeakGuard(), "leak-guard")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("each_version"):
        return
    tests = Path(__file__).parent
    once, each = ([tests / name for name in names] for names in (ONE_VERSION, EACH_VERSION))
    assert all(path.exists() for path in once + each), once + each

    def is_left_out(item: pytest.Item) -> bool:
        if item.get_closest_marker("one_version"):
            return True
        return item.path not in each and any(item.path.is_relative_to(path) for path in once)

    config.hook.pytest_deselected(items=[item for item in items if is_left_out(item)])
    items[:] = [item for item in items if not is_left_out(item)]


def pytest_collection_finish(session: pytest.Session) -> None:
    # Ten thousand tests are there from now on to the end.  A run of pytest within this process collects garbage up to
    # five times, and would look at all of them each time, for a tenth of a second and more.
    gc.collect()
    gc.freeze()
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
