"""What went wrong on the server's side, kept until somebody is told, and told once."""

from __future__ import annotations

import re
import sys
from pathlib import PurePath
from types import CodeType
from typing import Final

from ..errors.exceptions import SockServerError
from ..errors.location import from_users_frame, is_ours, traceback_at
from ..errors.messages import printable
from .recorder import Recorder

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup  # which pytest requires on 3.10


# The life of a failure: kept, then taken once, by the first of those that ask (the end of the call, ``verify``, the end
# of a block, the teardown).  Or it goes to an ``Expected``, or among the late ones, which become warnings.
#
# Order:
#
# - It is kept before the client can notice anything, so before the connection is reset or closed.  The client's next
#   line may be the last one of the test, and the test must not end without the failure.
# - All waits are woken after it is kept; each of them then ends with it as the cause.
# - Whether it is late is decided by when the connection *began*, not by when it failed: what the test's call has begun
#   is the test's.
#
# Locks.  The lists are guarded by the recorder's lock.  To ask an expectation takes the text of the exception, which is
# the user's code, and so is done without the lock.  The expectation may be met or gone by then: so ``add`` asks, takes
# the lock, looks whether the answer still holds, and otherwise goes on with the next one.  ``asked`` makes that end.
#
# ``pending()`` reads without a lock: it is asked at each look of each wait.  The list grows at its end or is replaced.
#
# What keeps memory: a traceback holds the frames of the handler, with its sockets and its data.  So a failure is
# dropped with the first who takes it, and ``let_go`` drops the rest.
#
# Not judged here: whose fault an exception is, and whether it is one at all.  ``responders`` decides that.
#: Why a failure fails no test.
AFTER_THE_CALL: Final = "the server's side failed on what the client began after the test's call"
IN_THE_CLEAN_UP: Final = "the handler failed after this side had ended its connection"

#: How many connections the headline of several failures names; the report below has all of them.
_PLACES = 3

#: Characters of an exception's text in a note or a remark.
_SAID = 600


class Failure:
    """An exception and where it happened.

    Attributes:
        error: With its own traceback, beginning at the user's frame.
        where: ``"tcp_server, connection 0 (127.0.0.1:50914)"``.
    """

    __slots__ = ("error", "where")

    def __init__(self, error: BaseException, where: str) -> None:
        self.error, self.where = error, where


class CallTimes:
    """When the running test began, and when its call ended: who comes from then on is recorded, and fails nothing.

    Attributes:
        began: Seconds of the recorder; what ended before is no business of the running test's report.
        over_since: When its call ended; ``None`` while it runs.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.began = 0.0
        self.over_since: float | None = None
        self._between: list[tuple[float, float]] = []  # from the end of a call to the next test, if something came

    def begin_test(self) -> None:
        """Begin to count for a further test, on a server of a wider scope."""
        self.began = self._recorder.elapsed()
        # Only if something came: without that, a server of a whole session would keep one pair for each of its tests.
        if self.has_gone_on():
            self._between.append((self.over_since or 0.0, self.began))
        self.over_since = None

    def end_call(self) -> None:
        """Note that the test's call is over."""
        if self.over_since is None:
            self.over_since = self._recorder.elapsed()

    def has_gone_on(self) -> bool:
        """Tell whether anything has happened since the call ended."""
        return self.over_since is not None and self._recorder.changed_at >= self.over_since

    def is_after_the_call(self, time: float) -> bool:
        """Tell whether a time lies between the end of a call and the next test."""
        is_between = any(begin <= time < end for begin, end in self._between)
        return is_between or (self.over_since is not None and time >= self.over_since)


class Failures:
    """The failures of one server, each of which is taken once.

    Attributes:
        times: When it was a test's turn to fail.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.times = CallTimes(recorder)
        self._kept: list[Failure] = []  # guarded by the recorder's lock, as are the expectations
        self._expected: list[Expected] = []
        self._late: list[tuple[Failure, str]] = []  # and why each of them fails no test

    def add(self, error: BaseException, where: str, *, late: str = "") -> None:
        """Keep a failure and wake all waits; before the client can see anything of it.  Without a lock.

        Whether it is an expected one is asked without a lock, since that takes the exception's text, which is the
        user's to make; it is given to the expectation only if that is still there, and has got none meanwhile.

        Args:
            late: Why it fails no test; it is a warning then.
        """
        failure = Failure(_harmless(from_users_frame(error)), where)
        asked: list[Expected] = []
        while True:
            with self._recorder.lock:
                expected = next((each for each in self._expected if each.failure is None and each not in asked), None)
                if expected is None:
                    if late:
                        self._late.append((failure, late))
                    else:
                        self._kept.append(failure)
                    return self._recorder.tell()
            asked.append(expected)
            # Both: ``failure.error`` is another object where the first would have ended the whole run.
            if not (expected.met_by(error) or expected.met_by(failure.error)):
                continue
            with self._recorder.lock:
                if expected.failure is None and expected in self._expected:
                    expected.failure = failure
                    return self._recorder.tell()

    def record(self, error: BaseException, where: str, began: float) -> None:
        """Keep what went wrong with something that began at a time; after the test's call it is a warning."""
        self.add(error, where, late=AFTER_THE_CALL if self.times.is_after_the_call(began) else "")

    def pending(self) -> Failure | None:
        """Return the first failure that nobody was told of.  Any thread."""
        kept = self._kept  # grows at its end, or is replaced
        return kept[0] if kept else None

    def take(self) -> list[Failure]:
        """Return the failures that nobody was told of, and forget them."""
        with self._recorder.lock:
            taken, self._kept = self._kept, []
            return taken

    def take_late(self) -> list[tuple[Failure, str]]:
        """Return the failures that fail no test, each with the reason for that, and forget them."""
        with self._recorder.lock:
            taken, self._late = self._late, []
            return taken

    def let_go(self) -> None:
        """Keep none: nobody is left to be told.  Their tracebacks hold the frames of handlers."""
        self._kept, self._late, self._expected = [], [], []

    def expect(self, expected: Expected) -> None:
        """Set aside the next failure that ``expected`` means."""
        with self._recorder.lock:
            self._expected.append(expected)

    def unexpect(self, expected: Expected) -> None:
        """End an expectation."""
        with self._recorder.lock:
            self._expected.remove(expected)


class Expected:
    """What ``raises`` waits for."""

    def __init__(
        self, type: type[BaseException] | tuple[type[BaseException], ...], match: re.Pattern[str] | None
    ) -> None:
        self.type, self.match = type, match
        self.failure: Failure | None = None

    @property
    def value(self) -> BaseException | None:
        """The exception, once it has come."""
        return self.failure.error if self.failure is not None else None

    def met_by(self, error: BaseException) -> bool:
        """Tell whether ``error`` is what is expected.  Without a lock: it may call code of the user."""
        if not isinstance(error, self.type):
            return False
        return self.match is None or self.match.search(text_of(error)) is not None

    def __str__(self) -> str:
        types = self.type if isinstance(self.type, tuple) else (self.type,)
        names = " or ".join(each.__name__ for each in types)
        return names + (f" matching {self.match.pattern!r}" if self.match is not None else "")


def _harmless(error: BaseException) -> BaseException:
    """Wrap what would end the run, not the test: pytest takes these for the user's own Ctrl-C or exit."""
    if not isinstance(error, (KeyboardInterrupt, SystemExit)) and not is_exit(error):
        return error
    said = f": {error}" if str(error) else ""
    return RuntimeError(f"the handler raised {type(error).__name__}{said}").with_traceback(error.__traceback__)


def said_shortly(error: BaseException) -> str:
    """Return what an exception says, without the conversation it quotes, and where in the user's code it stands."""
    said = summary_of(error)
    if len(said) > _SAID:
        said = f"{said[:_SAID]}... ({len(said):,} characters)"
    at = error.__traceback__ if not (isinstance(error, SockServerError) and error.placed) else None
    line = ""
    while at is not None and not is_ours(at.tb_frame):  # as far as the user's own call of one of our verbs
        line = f"{PurePath(at.tb_frame.f_code.co_filename).name}:{at.tb_lineno}, "
        at = at.tb_next
    return f"{type(error).__name__}: {line}{said}"


def summary_of(error: BaseException) -> str:
    """Return what an exception says; of one of ours without the conversation that it quotes."""
    return (error.summary if isinstance(error, SockServerError) else None) or text_of(error)


def text_of(error: BaseException) -> str:
    """Return the text of an exception, whatever a user's ``__str__`` may raise."""
    try:
        return str(error)
    except BaseException:  # whatever it is, it must not hide the failure that it belongs to
        return f"<unprintable {type(error).__name__} object>"


def is_skip(error: BaseException) -> bool:
    """Tell whether an exception is pytest's skip, without importing pytest."""
    return _is_outcome(error, "Skipped")


def is_exit(error: BaseException) -> bool:
    """Tell whether an exception is that of ``pytest.exit()``, without importing pytest."""
    return _is_outcome(error, "Exit")


def _is_outcome(error: BaseException, name: str) -> bool:
    outcomes = sys.modules.get("_pytest.outcomes")
    return outcomes is not None and isinstance(error, getattr(outcomes, name))


def combined(failures: list[Failure], code: CodeType | None = None) -> BaseException:
    """Return what to raise for failures: a single one as itself, several as an exception group.

    A skip beside a real failure is dropped: a group of both would fail and say little.

    Args:
        failures: The list is emptied: the frame that raises them, which their tracebacks hold, must not hold them.
        code: The test's code.  The group points at its ``def``: with no visible frame at all pytest 8.4
            and 9.0 stop with an INTERNALERROR.
    """
    errors = [failure.error for failure in failures]
    errors = [error for error in errors if not is_skip(error)] or errors[:1]
    places = list(dict.fromkeys(failure.where for failure in failures))
    failures.clear()
    if len(errors) == 1:
        return errors[0]
    more = f"; and {len(places) - _PLACES} more" if len(places) > _PLACES else ""
    where = "; ".join(places[:_PLACES]) + more
    group: BaseException = BaseExceptionGroup(f"{len(errors)} failures on the server's side: {where}", errors)
    return group if code is None else group.with_traceback(traceback_at(code, code.co_firstlineno))


def add_note(error: BaseException, failures: list[Failure]) -> None:
    """Say on a test's own exception what went wrong on the server's side meanwhile."""
    if is_skip(error):
        return  # the note would become part of the reason for which the test was skipped
    for failure in failures:
        text = printable(f"on the server's side, {failure.where}:\n  {said_shortly(failure.error)}")
        try:
            if hasattr(error, "add_note"):
                error.add_note(text)
            else:  # 3.10; pytest prints them all the same
                error.__notes__ = [*getattr(error, "__notes__", ()), text]  # type: ignore[attr-defined]
        except (AttributeError, TypeError):
            return  # an exception that takes no attributes; the report's section says it
