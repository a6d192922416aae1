"""Point at the line of the test that a failure is about.

A declaration remembers where it was written, as its code object and never as its frame: a kept frame keeps
the test's local variables alive, and with them the client's open socket.  When it turns out wrong,
:func:`traceback_at` makes a traceback of that one line, in which pytest shows the user's own source.
"""

from __future__ import annotations

import ast
import itertools
import linecache
import sys
import types
from pathlib import PurePath

_PACKAGE = __name__.partition(".")[0]


class Origin:
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

    @classmethod
    def of(cls, code: types.CodeType, lineno: int) -> Origin:
        """Return a line of some code."""
        other = cls.__new__(cls)
        other.code, other.lasti, other.lineno = code, None, lineno
        return other

    def at_line(self, lineno: int) -> Origin:
        """Return another line of the same code."""
        return self.of(self.code, lineno)

    def traceback(self) -> types.TracebackType | None:
        """Return a traceback that stands there."""
        return traceback_at(self.code, self.lineno, self.lasti)


def is_ours(frame: types.FrameType) -> bool:
    """Tell whether a frame runs code of this package."""
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] == _PACKAGE


def traceback_at(code: types.CodeType, lineno: int, lasti: int | None = None) -> types.TracebackType | None:
    """Return a traceback of one frame that stands at ``lineno`` of the function ``code``.

    Made by running a function whose only line raises, compiled to claim that place: a bare
    ``types.TracebackType`` takes its line from the code's position table from 3.11 on, and showed another.
    """
    column = end = -1  # no columns: no carets
    if sys.version_info >= (3, 11) and lasti is not None:
        line, last, start, stop = next(itertools.islice(code.co_positions(), lasti // 2, None))
        if line == last == lineno and start is not None and stop is not None:
            column, end = start, stop
    tree = ast.parse("def f():\n raise RuntimeError")
    function = tree.body[0]
    assert isinstance(function, ast.FunctionDef)
    for node in ast.walk(function.body[0]):
        if isinstance(node, (ast.stmt, ast.expr)):
            node.lineno = node.end_lineno = lineno
            node.col_offset, node.end_col_offset = column, end
    function.lineno = code.co_firstlineno  # from here on pytest prints the function
    function.end_lineno = max(code.co_firstlineno, lineno)
    module = compile(tree, code.co_filename, "exec")
    raising = next(each for each in module.co_consts if isinstance(each, types.CodeType))
    raising = raising.replace(co_name=code.co_name)
    if sys.version_info >= (3, 11):
        raising = raising.replace(co_qualname=code.co_qualname)
    try:
        types.FunctionType(raising, {})()
    except RuntimeError as error:
        return error.__traceback__.tb_next if error.__traceback__ is not None else None
    return None


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
    return error.with_traceback(traceback)


def pointing_at(error: BaseException, origin: Origin) -> BaseException:
    """Let an error of ours point at a declaration; one that comes from the user's code keeps its own place."""
    at = error.__traceback__
    while at is not None:
        if not is_ours(at.tb_frame):
            return error
        at = at.tb_next
    return error.with_traceback(origin.traceback())
