"""No test has to ask for it: code of the user that runs under a lock of ours is an error of the test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from . import lock_guard

lock_guard.install()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown() -> Iterator[None]:
    try:
        return (yield)
    finally:
        found, lock_guard.found[:] = lock_guard.found[:], []
        if found:
            pytest.fail("\n".join(found), pytrace=False)
