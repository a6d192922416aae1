"""The same program on the standard library's module and on the one under test: the same trace."""

from __future__ import annotations

from types import ModuleType

import pytest

from . import programs
from .harness import PROGRAMS, run

assert programs.__all__  # importing it filled PROGRAMS


@pytest.mark.parametrize("name", PROGRAMS)
def test_trace_is_the_standard_librarys(name: str, module: ModuleType, standard: ModuleType) -> None:
    if missing := PROGRAMS[name].missing():
        pytest.skip(f"this platform has no {', '.join(missing)}")

    expected = run(name, standard)

    assert run(name, module) == expected, PROGRAMS[name].row
