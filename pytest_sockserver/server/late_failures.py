"""What fails no test and must not pass in silence: warnings, issued by the thread that ends a server.

A warning is issued in the teardown of the fixture, or in the test's own, and so pytest lists it under the right test;
its place is the user's line.  Where a filter makes it an error, it becomes a failure of that teardown: it is returned
here, and raised only when everything is stopped.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Final

from ..errors.exceptions import SockServerWarning
from ..errors.location import STDLIB, is_ours
from ..errors.messages import printable
from ..recording.failures import AFTER_THE_CALL, IN_THE_CLEAN_UP, Failure
from ..scripting.frozen import frozen

_ADVICE: Final = {
    AFTER_THE_CALL: (
        "The outcome of the test was known by then.  Declare what answers this as well, or let the client finish "
        "within the test"
    ),
    IN_THE_CLEAN_UP: (
        "A stop ends each connection by ServerStopping, a ConnectionError.  What a handler does then, in `finally` or "
        "`except`, must not fail; a new exception that reports the end is written `raise ... from error`"
    ),
}

_ACCEPTED_BY: Final = '@pytest.mark.filterwarnings("ignore::pytest_sockserver.SockServerWarning") accepts it'

#: Characters of a traceback in a warning: its beginning, with the user's line, and its end, with the exception.
_SHOWN: Final = 4000


@frozen
class Late:
    """What is told as a warning."""

    where: str
    text: str
    error: BaseException | None = None

    @classmethod
    def of(cls, failure: Failure, why: str) -> Late:
        """Return the warning about a failure, with its traceback."""
        text = f"{why}\n\n{_traceback_of(failure.error)}\n{_ADVICE[why]}; {_ACCEPTED_BY}"
        return cls(failure.where, text, failure.error)

    def place(self) -> tuple[str, int] | None:
        """Return file and line of the user's code that has failed."""
        at, found = self.error.__traceback__ if self.error is not None else None, None
        while at is not None and not is_ours(at.tb_frame):
            name = at.tb_frame.f_code.co_filename
            # Neither the framework that calls the handler, nor the library that the handler calls.
            if found is None or found[0] == name or found[0].startswith(STDLIB):
                found = name, at.tb_lineno
            at = at.tb_next
        return found


def issue(late: Iterable[Late], place: tuple[str, int], *, raises: bool = True) -> list[Failure]:
    """Issue warnings; return those that a filter makes errors, to be raised.

    Args:
        place: File and line for what is about no line.
        raises: Something is raised already, or nothing may be: what would be an error is a warning nevertheless.
    """
    errors = []
    for each in late:
        warning = SockServerWarning(printable(f"{each.where}: {each.text}"))
        found = each.place() or place
        try:
            warnings.warn_explicit(warning, SockServerWarning, *found)
        except SockServerWarning as error:
            if raises:
                traceback = each.error.__traceback__ if each.error is not None else None
                errors.append(Failure(error.with_traceback(traceback), each.where))
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("always")
                warnings.warn_explicit(warning, SockServerWarning, *found)
    return errors


def _traceback_of(error: BaseException) -> str:
    import traceback  # not at the top: several milliseconds, and a test suite hopes never to need it

    # What an exception was raised during is the end of its connection, which is told already.
    text = "".join(
        traceback.format_exception(type(error), error, error.__traceback__, chain=error.__cause__ is not None)
    )
    if len(text) <= _SHOWN:
        return text
    return f"{text[: _SHOWN // 2]}\n... ({len(text):,} characters) ...\n{text[-_SHOWN // 2 :]}"
