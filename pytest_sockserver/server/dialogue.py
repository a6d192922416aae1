"""Read a dialogue for a server: where it comes from, and where in the test its lines stand."""

from __future__ import annotations

import linecache
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors.location import Location, hide_frame
from ..scripting.dialogue_reader import Dialogue, parse
from ..scripting.script import Script

__tracebackhide__ = hide_frame


def parsed(
    text: str | os.PathLike[str],
    values: Mapping[str, Any],
    *,
    new_script: Callable[[Iterable[str]], Script],
    datagrams: bool,
    timed: bool,
) -> Dialogue:
    """Return a dialogue, each of whose steps knows its line.

    Args:
        text: The text itself, or the path of a file that has it, relative to the test's own file.
        values: Further names: bytes, or functions of the connection.

    Raises:
        DialogueError: The text cannot be read.
        TypeError: A value is neither bytes nor a function; the text is neither a str nor a path.
    """
    for name, value in values.items():
        if not isinstance(value, bytes) and (not callable(value) or isinstance(value, type)):
            raise TypeError(f"dialogue() expected bytes, or a function of the connection, for {name}=, not {value!r}")
    call = Location()
    if isinstance(text, os.PathLike):
        path = Path(call.code.co_filename).parent / text
        said, place = path.read_text(encoding="utf-8"), _in_file(call, path)
    elif isinstance(text, str):
        said, place = text, _in_test(call, text)
    else:
        raise TypeError(f"dialogue() expected the text of a dialogue, or the path of a file, not {text!r}")
    return parse(said, new_script=lambda: new_script(values), datagrams=datagrams, timed=timed, place=place)


def _in_file(call: Location, path: Path) -> Callable[[int], Location]:
    """Return what places a line of a file."""
    code = compile("", str(path), "exec").replace(co_name=path.name)
    return lambda line: Location.of(code, line)


def _in_test(call: Location, text: str) -> Callable[[int], Location]:
    """Return what places a line of a text that stands in the test's file, where it is declared or elsewhere in it.

    A text that was put together stands nowhere: all its lines are placed at the call.
    """
    lines = [line.strip() for line in text.splitlines()]
    source = [line.strip() for line in linecache.getlines(call.code.co_filename)]
    last = len(source) - len(lines) if any(lines) else -1
    near = range(call.lineno - 1, min(call.lineno + 29, last + 1))
    for start in (*near, *range(last + 1)):
        # A line of the text may stand between quotes.
        if all(line in source[at] for at, line in enumerate(lines, start)):
            if start in near:
                return lambda line: call.at_line(start + line)
            code = compile("", call.code.co_filename, "exec").replace(co_firstlineno=start + 1)
            return lambda line: Location.of(code, start + line)
    return lambda line: call
