"""Every place where a reply can be cut, parted, or a conversation broken: one test for each of them.

@pytest.mark.parametrize("reply", cuts(REPLY))
def test_truncated(tcp_server, reply): ...
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest

from .errors.location import hide_frame
from .faults.modifiers import Cut, Split
from .scripting.effects import Close, Reset
from .scripting.parts import Effect, Part, check_seconds, checked_parts
from .scripting.script import Script
from .scripting.steps import last_step

if TYPE_CHECKING:
    from _pytest.mark.structures import ParameterSet

__all__ = ["breaks", "closes", "cuts", "resets", "splits"]

__tracebackhide__ = hide_frame


def cuts(reply: bytes) -> list[ParameterSet]:
    """Return the reply cut after 0, 1, 2, ... bytes, to all but the last one: each a :class:`Cut`, for ``parametrize``.

    What follows is the test's: ``reply(cut, Close())``, ``Reset()`` or ``Stall()``.

    Raises:
        TypeError, ValueError: ``reply`` is no bytes, or has none.
    """
    size = len(_checked("cuts", reply))
    return [pytest.param(Cut(reply, n), id=f"{n}-of-{size}") for n in range(size)]


def splits(reply: bytes, *, pause: float = 0.002) -> list[ParameterSet]:
    """Return the reply in two pieces, parted at each place: each a :class:`Split`, for ``parametrize``.

    Args:
        pause: Seconds between the pieces; they may still arrive together.

    Raises:
        TypeError, ValueError: ``reply`` is no bytes, or has less than two; ``pause`` is no time.
    """
    size = len(_checked("splits", reply))
    if size == 1:
        raise ValueError(f"splits() expected a reply of at least two bytes, not {reply!r}")
    check_seconds("splits()", pause)
    return [pytest.param(Split(reply, n, pause=pause), id=f"{n}+{size - n}") for n in range(1, size)]


def breaks(script: Script, *parts: Part) -> list[ParameterSet]:
    """Return the script broken off before each of its steps, and after the last: each a script, for ``parametrize``.

    Args:
        script: One made by ``Script()``; a server performs what comes of it by ``server.script().extend(broken)``.
        parts: What is said and done there: ``Close()`` for example, or some garbage.  It is the last of the script, and
            rules go on from there, if the server has any.

    A step that holds others, ``repeat`` or ``maybe``, is one.

    Raises:
        TypeError, ValueError: ``script`` is none, or has no steps; there are no parts, or one of them is none.
    """
    return _broken("breaks()", script, parts)


def resets(script: Script) -> list[ParameterSet]:
    """Return the script with a reset before each of its steps, and after the last: see :func:`breaks`."""
    return _broken("resets()", script, (Reset(),))


def closes(script: Script) -> list[ParameterSet]:
    """Return the script with a clean close before each of its steps, and after the last: see :func:`breaks`."""
    return _broken("closes()", script, (Close(),))


def _broken(verb: str, script: object, parts: tuple[Part, ...]) -> list[ParameterSet]:
    if not isinstance(script, Script):
        raise TypeError(f"{verb} expected a Script, not {script!r}: write Script().expect(...).send(...)")
    if not script.steps:
        raise ValueError(f"{verb} expected a script that has steps")
    checked = checked_parts(parts, verb)
    if not checked:
        raise ValueError(f"{verb} expected what breaks the script off: Reset(), Close() or Stall()")
    steps = len(script.steps)
    places = [n for n in range(steps + 1) if last_step(script.steps[:n]) is None]
    return [
        pytest.param(broken_off(script, n, checked), id=f"before-step-{n + 1}" if n < steps else "at-the-end")
        for n in places
    ]


def _checked(name: str, reply: object) -> Sequence[int]:
    if not isinstance(reply, bytes):
        raise TypeError(f"{name}() expected the bytes of a reply, not {reply!r}")
    if not reply:
        raise ValueError(f"{name}() expected a reply of at least one byte")
    return reply


def broken_off(script: Script, n: int, parts: tuple[Part, ...]) -> Script:
    """Return the first ``n`` steps and then the parts; after a half-close whatever the client still says is taken."""
    broken = script.first(n).send(*parts)
    half_closed = any(isinstance(part, Effect) and part.ends_saying for part in parts)
    return broken.recv_all() if half_closed else broken
