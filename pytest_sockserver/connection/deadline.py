"""How long a wait may take.

Three things shorten or lengthen a plain "now plus five seconds", and only this module knows of them: a
time limit of the whole test (pytest-timeout), below which our own deadlines must stay, since its report
would name a lock instead of what did not come; a debugger, under which nothing runs out; and nothing
else.
"""

from __future__ import annotations

import sys

from ..errors.messages import format_seconds
from ..originals import original

#: Seconds.  Far above any loopback delay, far below a CI job's patience.
DEFAULT_TIMEOUT = 5.0

#: Seconds that the threads of a server get to end.  A sound one takes milliseconds.
DEFAULT_STOP_TIMEOUT = 5.0

#: Seconds between the last of our own deadlines and the time limit of the test.  The report has to be
#: composed and the servers stopped within them; a stop takes milliseconds, a loaded machine some more.
MARGIN = 0.5

_DEBUGGERS = ("pdb", "bdb", "pydevd", "_pydevd", "debugpy", "ipdb", "IPython")

#: Seconds before the end of a test whose time limit ends the whole process: no report will come, so what was
#: said is written down while it can be.  More than the accept loop's poll, less than what a fast test has.
LAST_WORDS = 0.6

#: Seconds that a stop waits for threads after its deadline: those that were cut need a moment to end, and only one
#: that does not may be called stuck.
LAST_CHANCE = 0.1

_test_ends_at: float | None = None  # on the clock of original.monotonic(); one test runs in a process at a time
_ends_process = False  # the time limit is enforced by os._exit(), without report or teardown
_in_pdb = False


def limit_test(ends_at: float | None, ends_process: bool = False) -> None:
    """Keep each deadline that begins from now on below ``ends_at``, a time of ``monotonic()``; ``None`` lifts it.

    Args:
        ends_process: The process ends then: no report will be written.
    """
    global _test_ends_at, _ends_process
    _test_ends_at, _ends_process = ends_at, ends_process


def process_ends_soon() -> float | None:
    """Return when the process is about to be ended by a time limit, if that is less than a moment away."""
    ends_at = _test_ends_at if _ends_process else None
    return ends_at if ends_at is not None and original.monotonic() > ends_at - LAST_WORDS else None


def pause(in_pdb: bool) -> None:
    """Say that pytest's own debugger was entered or left."""
    global _in_pdb
    _in_pdb = in_pdb


def debugging() -> bool:
    """Tell whether a debugger is at work.  A trace function alone says nothing: coverage sets one as well."""
    if _in_pdb:
        return True
    trace = sys.gettrace()
    if trace is not None:
        owner = getattr(trace, "__self__", None)
        classes = type(owner).__mro__ if owner is not None else ()
        modules = [getattr(trace, "__module__", None) or "", *(each.__module__ for each in classes)]
        if any(module.partition(".")[0].startswith(_DEBUGGERS) for module in modules):
            return True
    monitoring = getattr(sys, "monitoring", None)  # 3.12: debuggers may register there instead
    return monitoring is not None and monitoring.get_tool(monitoring.DEBUGGER_ID) is not None


class Deadline:
    """A point in time, and the seconds that were granted until then.

    Args:
        seconds: ``None`` for no deadline.
        at_most: So many seconds at most, and why so.
        last_chance: Seconds that threads which were cut get to end even if it is over by then.
    """

    __slots__ = ("_why", "asked", "at", "last_chance", "seconds")

    def __init__(
        self,
        seconds: float | None,
        *,
        at_most: float = float("inf"),
        why: str = "the test's time limit is near",
        last_chance: float = LAST_CHANCE,
    ) -> None:
        self.asked = seconds
        self.seconds = seconds = seconds if seconds is None else min(seconds, at_most)
        self.last_chance, self._why = last_chance, why
        if seconds is None:
            self.at: float | None = None
            return
        now = original.monotonic()
        if _test_ends_at is not None:
            # At least a look: a test that is nearly over still gets an answer that is there already.
            self.seconds = seconds = max(0.01, min(seconds, _test_ends_at - MARGIN - now))
        self.at = now + seconds

    def __str__(self) -> str:
        """Return what was granted, as messages write it: ``5 s``, and if it was less than asked for, why."""
        if self.seconds is None or self.asked is None:
            return "for ever"
        if self.seconds == self.asked:
            return format_seconds(self.seconds)
        granted = format_seconds(round(self.seconds, 1 if self.seconds >= 0.1 else 2))
        return f"{granted} (not {format_seconds(self.asked)}: {self._why})"

    def left(self) -> float | None:
        """Return the seconds that are left, 0.0 when it is over, ``None`` when it never will be."""
        if self.at is None or self.seconds is None:
            return None
        left = self.at - original.monotonic()
        if left <= 0 and debugging():
            self.at, left = original.monotonic() + self.seconds, self.seconds
        return max(left, 0.0)
