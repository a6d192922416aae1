"""Point at the line of the test that a failure is about.

A declaration remembers where it was written, as its code object and never as its frame: a kept frame keeps
the test's local variables alive, and with them the client's open socket.  When it turns out wrong,
:func:`traceback_at` makes a traceback of that one line, in which pytest shows the user's own source.
"""

from __future__ import annotations

import itertools
import linecache
import sys
import types
from pathlib import PurePath
from typing import Any

_PACKAGE = __name__.partition(".")[0]

#: Flags of the code of a coroutine, an iterable coroutine, an async generator (inspect.CO_*).
IN_ASYNC = 0x80 | 0x100 | 0x200

#: Where the standard library is: what a handler calls there is not where the user looks first.
STDLIB = str(PurePath(linecache.__file__).parent)


class Location:
    """The line outside this package that called in."""

    __slots__ = ("code", "lasti", "lineno")

    def __init__(self) -> None:
        frame: types.FrameType = sys._getframe(1)
        while frame.f_back is not None and is_ours(frame):
            frame = frame.f_back
        self.code, self.lineno = frame.f_code, frame.f_lineno
        self.lasti: int | None = frame.f_lasti

    def __str__(self) -> str:
        return f"{self.code.co_filename}:{self.lineno}"

    @property
    def short(self) -> str:
        """The place as messages write it: ``test_mail.py:31``."""
        return f"{PurePath(self.code.co_filename).name}:{self.lineno}"

    @property
    def place(self) -> tuple[str, int]:
        """The file and the line."""
        return self.code.co_filename, self.lineno

    @classmethod
    def of(cls, code: types.CodeType, lineno: int) -> Location:
        """Return a line of some code."""
        other = cls.__new__(cls)
        other.code, other.lasti, other.lineno = code, None, lineno
        return other

    def at_line(self, lineno: int) -> Location:
        """Return another line of the same code."""
        return self.of(self.code, lineno)

    def traceback(self) -> types.TracebackType | None:
        """Return a traceback that stands there."""
        return traceback_at(self.code, self.lineno, self.lasti)


def is_ours(frame: types.FrameType) -> bool:
    """Tell whether a frame runs code of this package."""
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] == _PACKAGE


def hide_frame(raised: Any) -> bool:
    """Tell pytest whether to hide a frame of this package; a module's ``__tracebackhide__``.

    A report begins at the user's line, unless the error is a bug of ours: then its traceback is what we need.

    Args:
        raised: pytest's ``ExceptionInfo``; ``None`` where it does not know.
    """
    error = getattr(raised, "value", None)
    return error is None or not _is_bug(error)


def _is_bug(error: BaseException) -> bool:
    """Tell whether an error comes of this package's own code and was not meant: no ``raise`` of ours has raised it."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    if at is None or not is_ours(at.tb_frame) or at.tb_lasti < 0:
        return False
    if type(error) is AssertionError:
        return True
    from opcode import opname

    return opname[at.tb_frame.f_code.co_code[at.tb_lasti]] not in ("RAISE_VARARGS", "RERAISE")


def is_users(frame: types.FrameType) -> bool:
    """Tell whether a frame runs code that is neither this package's nor the standard library's."""
    return not is_ours(frame) and not frame.f_code.co_filename.startswith(STDLIB)


def place_of_thread(ident: int) -> str | None:
    """Return the line of the user's code at which a thread stands, ``test_mail.py:31``; ``None`` if at none."""
    return _users_place(sys._current_frames().get(ident))


def place_of_coroutine() -> str | None:
    """Return the line of the user's coroutine that awaits the caller, a coroutine itself; ``None`` if a task does."""
    return _users_place(sys._getframe(1), IN_ASYNC)


def _users_place(frame: types.FrameType | None, flags: int | None = None) -> str | None:
    while frame is not None and (flags is None or frame.f_code.co_flags & flags):
        if is_users(frame):
            return f"{PurePath(frame.f_code.co_filename).name}:{frame.f_lineno}"
        frame = frame.f_back
    return None


def traceback_at(code: types.CodeType, lineno: int, lasti: int | None = None) -> types.TracebackType | None:
    """Return a traceback of one frame that stands at ``lineno`` of the function ``code``.

    Made by running a function whose only line raises, and whose line table says that it is that line: a bare
    ``types.TracebackType`` takes its line from the table from 3.11 on, and showed another.  Not by compiling a syntax
    tree: this runs in handlers' threads, and on 3.11 two threads that make syntax trees at once, pytest is the other,
    end in a SystemError (CPython issue 106905).
    """
    column = end = -1  # no columns: no carets
    if sys.version_info >= (3, 11) and lasti is not None:
        line, last, start, stop = next(itertools.islice(code.co_positions(), lasti // 2, None))
        if line == last == lineno and start is not None and stop is not None:
            column, end = start, stop
    first = code.co_firstlineno  # from here on pytest prints the function
    table = _line_table(len(_RAISES.co_code), lineno - first, column, end)
    raising = _RAISES.replace(
        co_name=code.co_name, co_filename=code.co_filename, co_firstlineno=first, co_linetable=table
    )
    if sys.version_info >= (3, 11):
        raising = raising.replace(co_qualname=code.co_qualname)
    try:
        types.FunctionType(raising, {})()
    except RuntimeError as error:
        return error.__traceback__.tb_next if error.__traceback__ is not None else None
    return None


def _raises() -> None:
    raise RuntimeError


_RAISES = _raises.__code__


def _line_table(size: int, delta: int, column: int, end: int) -> bytes:
    """Return the line table of ``size`` bytes of code that all stand ``delta`` lines below the first one."""
    if sys.version_info < (3, 11):  # CPython 3.10, Objects/lnotab_notes.txt: pairs of code and line, a line at most 127
        step = 127 if delta > 0 else -127
        far, rest = divmod(abs(delta), 127)
        return bytes([0, step & 0xFF] * far + [size, (rest if delta > 0 else -rest) & 0xFF])
    table = bytearray()  # CPython 3.11, Objects/locations.md: for each 8 code units a form, a line and columns
    for done in range(0, size // 2, 8):
        form = 13 if column < 0 else 14
        table.append(0x80 | form << 3 | min(8, size // 2 - done) - 1)
        table += _varint(abs(delta) << 1 | (delta < 0) if not done else 0)
        if column >= 0:
            table += _varint(0) + _varint(column + 1) + _varint(end + 1)
    return bytes(table)


def _varint(value: int) -> bytes:
    """Return a number in pieces of six bits, the lowest first."""
    pieces = bytearray()
    while value > 63:
        pieces.append(0x40 | value & 63)
        value >>= 6
    return bytes([*pieces, value])


def traceback_at_definition(function: object) -> types.TracebackType | None:
    """Return a traceback that stands at the ``def`` of a function, past its decorators; ``None`` for what is none."""
    code = getattr(function, "__code__", None)
    if not isinstance(code, types.CodeType):
        return None
    lineno = code.co_firstlineno  # of the first decorator, if there are any
    while linecache.getline(code.co_filename, lineno).lstrip().startswith(("@", "#")):
        lineno += 1
    return traceback_at(code, lineno)


def from_users_frame(error: BaseException) -> BaseException:
    """Cut the frames of this package off the front of a traceback: it begins where the user's code does."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None and is_ours(traceback.tb_frame):
        traceback = traceback.tb_next
    error.__traceback__ = traceback  # not with_traceback(), which an exception may define as it likes
    return error


def pointing_at(error: BaseException, origin: Location) -> BaseException:
    """Let an error of ours point at a declaration; one that comes from the user's code keeps its own place."""
    at = error.__traceback__
    while at is not None:
        if not is_ours(at.tb_frame):
            return error
        at = at.tb_next
    return error.with_traceback(origin.traceback())
