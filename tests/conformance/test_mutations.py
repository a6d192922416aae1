"""The programs have teeth: whichever behaviour is broken, in whichever module, one of them leaves another trace.

A broken module may keep a program waiting in vain.  It is therefore given little time at first, and much only if its
trace does not show yet what it should.
"""

from __future__ import annotations

import pytest

from . import programs
from .conftest import UNDER_TEST
from .harness import PROGRAMS, STANDARD, Trace, fresh_copy, patience, run, short_patience
from .mutations import MUTATIONS, Mutation

assert programs.__all__  # importing it filled PROGRAMS

MODULES = [STANDARD] if UNDER_TEST == STANDARD else [STANDARD, UNDER_TEST]


def broken_trace(mutation: Mutation, module: str, seconds: float) -> Trace:
    with fresh_copy(module) as copy, short_patience(seconds):
        mutation.patch(copy)
        return run(mutation.program, copy)


def tells(mutation: Mutation, sound: Trace, broken: Trace) -> bool:
    """Whether the traces differ in the line that the mutation names."""
    if mutation.shows is not None:
        return mutation.shows in broken and mutation.shows not in sound
    return mutation.hides in sound and mutation.hides not in broken


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_mutation_leaves_another_trace(mutation: Mutation, name: str) -> None:
    if missing := PROGRAMS[mutation.program].missing():
        pytest.skip(f"this platform has no {', '.join(missing)}")
    with fresh_copy(STANDARD) as copy:
        sound = run(mutation.program, copy)

    broken = broken_trace(mutation, name, 0.3)
    if not tells(mutation, sound, broken):
        broken = broken_trace(mutation, name, patience())

    assert broken != sound
    assert tells(mutation, sound, broken), broken


def test_mutations_are_the_twenty_two_with_timeout_twice() -> None:
    names = {mutation.name.partition(":")[0] for mutation in MUTATIONS}

    assert (len(names), len(MUTATIONS)) == (22, 23)


def test_fresh_copy_is_another_module_and_leaves_the_first_in_place() -> None:
    import sys

    for name in MODULES:
        before = sys.modules.get(name)

        with fresh_copy(name) as copy:
            assert copy is not before
            assert sys.modules[name] is copy

        assert sys.modules.get(name) is before
