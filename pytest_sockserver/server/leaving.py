"""The way out: what stops and failures do when somebody leaves a test run, or a block.

pytest ends a run that is left (Ctrl-C, ``pytest.exit()``, ``q`` in the debugger) by tearing down what is set up within
its own ending.  An exception from there replaces the report of the whole run, failures of earlier tests included, and
the exit code with it.  So on the way out no failure is raised: it is kept here, and the plugin reports it as a warning.
Nobody wants to wait then either: all stops together have half a second.

The state is the process's, as the run is.  The main thread alone writes it: pytest's hooks and Ctrl-C run there.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import TracebackType
from typing import Final

from ..connection.deadline import Deadline
from ..originals import original
from ..recording.failures import Failure, is_exit

#: Seconds that all stops on the way out take, together.
WAY_OUT: Final = 0.5

#: The part of what is left of it that one server gets, if its threads do not end.
_SHARE: Final = 0.4

#: Seconds that threads which were cut get all the same: they need the processor once.
_LEAST: Final = 0.01


class Haste:
    """The time for all stops on one way out; a block around each counts what it took."""

    def __init__(self) -> None:
        self.left = WAY_OUT
        self._began = 0.0

    def deadline(self, seconds: float) -> Deadline:
        """Return the deadline of the next stop, which would have ``seconds`` otherwise."""
        most = max(self.left * _SHARE, _LEAST)
        return Deadline(seconds, at_most=most, why="the run is being left", last_chance=_LEAST)

    def __enter__(self) -> None:
        self._began = original.monotonic()

    def __exit__(self, kind: object, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.left = max(0.0, self.left - (original.monotonic() - self._began))


class WayOut:
    """A run that is being left.

    Attributes:
        haste: Somebody waits for its end; ``None`` if it was ended by its first failure, say.
    """

    def __init__(self, haste: Haste | None) -> None:
        self.haste = haste


_way_out: WayOut | None = None
_kept: list[tuple[str, Failure]] = []


def is_leaving(error: BaseException | None) -> bool:
    """Tell whether an exception is not about what ran, but leaves it: Ctrl-C, an exit, the end of a debugger."""
    if isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit)):
        return True
    bdb = sys.modules.get("bdb")
    return error is not None and (is_exit(error) or (bdb is not None and isinstance(error, bdb.BdbQuit)))


def haste(error: BaseException | None = None) -> Haste | None:
    """Return the time for stops, if the run is left in haste, or by ``error`` the block whose servers are stopped.

    Blocks around each other that one exception leaves have one time: it is kept on the exception.
    """
    if _way_out is not None and _way_out.haste is not None:
        return _way_out.haste
    if error is None or not is_leaving(error):
        return None
    kept: Haste = error.__dict__.setdefault("_sockserver_haste", Haste())
    return kept


def begin(*, in_haste: bool, error: BaseException | None = None) -> None:
    """Note that the run is being left, by ``error`` perhaps: blocks that it has left before have used of its time."""
    global _way_out
    if _way_out is None:
        _way_out = WayOut(None)
    if in_haste and _way_out.haste is None:
        _way_out.haste = haste(error) or Haste()


def is_under_way() -> bool:
    """Tell whether the run is being left: nothing may be raised any more."""
    return _way_out is not None


def keep(failures: Iterable[Failure], place: str = "") -> None:
    """Keep failures until the end of the run.

    Args:
        place: The test, or the collector, whose servers they are of.
    """
    _kept.extend((place, failure) for failure in failures)


def end() -> list[tuple[str, Failure]]:
    """Note that the run is over; return what was kept, with its places."""
    global _way_out, _kept
    _way_out, kept, _kept = None, _kept, []
    return kept
