"""What a report says of the server's side: its failures with their source, and what was said, in about a screen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import pytest

from ..connection import transcript
from ..errors.exceptions import SockServerError
from ..errors.messages import format_peer, printable
from ..recording.failures import Failure
from ..server.losses import with_losses

if TYPE_CHECKING:
    from ..recording.recorder import Tape
    from ..server.fleet import Fleet
    from ..server.service import Service

#: Lines of conversation in a section, unless -vv: the first and the last ones of each server.
_HEAD_LINES, _TAIL_LINES = 20, 20

_HIDDEN = "lines more, shown by -vv ..."

#: Characters of a line in a section, unless -vv: two rows of a terminal.
_LINE_WIDTH = 140


def sections(node: Any, fleets: list[Fleet], told: list[Failure]) -> Iterator[tuple[str, str]]:
    """Yield title and text for each failure, and for each server.

    Args:
        node: The test, or the collector whose fixture it is; it knows how failures are shown.
    """
    everything = node.config.get_verbosity() >= 2
    for failure in told:
        raised = pytest.ExceptionInfo.from_exception(_without_conversation(failure.error))
        text = _in_full(node.repr_failure(raised))
        yield f"sockserver: raised on the server's side, {printable(failure.where)}", printable(text).rstrip()
    for fleet in fleets:
        asked_for = fleet.fixture in getattr(node, "fixturenames", (fleet.fixture,))
        for service in fleet.services:
            losses = service.verdict.losses()  # before the lines: it notes them in the record
            lines = list(_lines_of(service, None)) if everything else _in_about_a_screen(service)
            if not lines and not losses and not asked_for:
                continue  # of a wider scope, and no business of this test
            if not service.verdict.went_wrong:
                lines += service.verdict.remarks() if lines else []
            if losses:
                lines = with_losses("\n".join(lines), losses).lstrip("\n").split("\n")
            during = " during this test" if service.context.recorder.tapes else service.context.recorder.since()
            yield printable(_title(service)), printable("\n".join(lines)) or f"# nobody has come{during}"


def _in_full(shown: Any) -> str:
    """Return what pytest made of an exception as text, its first line's indentation included, which ``str()`` drops."""
    traceback = shown.chain[0][0] if getattr(shown, "chain", ()) else getattr(shown, "reprtraceback", None)
    entry = next(iter(getattr(traceback, "reprentries", ())), None)
    lines = getattr(entry, "lines", ()) or [""]
    arguments = getattr(getattr(entry, "reprfuncargs", None), "args", ())  # which stand before the lines
    indentation = "" if arguments else lines[0][: len(lines[0]) - len(lines[0].lstrip())]
    return indentation + str(shown)


@contextmanager
def said_once(error: BaseException | None, texts: Sequence[tuple[str, str]]) -> Iterator[None]:
    """While the block runs, leave out of the text of an exception the conversation that a section has in full.

    What happened comes first then, and where it did last.
    """
    whole = [(each, each.args) for each in _errors_of(error) if _is_in_full(each, texts)]
    try:
        for each, _ in whole:
            each.args = (f"{each.summary}\n  on {each.where}",)
        yield
    finally:
        for each, args in whole:
            each.args = args


def _is_in_full(error: SockServerError, texts: Sequence[tuple[str, str]]) -> bool:
    if error.where is None:
        return False
    title = f"sockserver: {printable(error.where.partition(', ')[0])} "
    return any(each.startswith(title) and _HIDDEN not in text for each, text in texts)


def _errors_of(error: BaseException | None) -> list[SockServerError]:
    """Return the exceptions of ours that a report shows: itself, those of a group, and what came before each."""
    found: dict[int, BaseException] = {}
    ahead = [error]
    while ahead:
        each = ahead.pop()
        if each is not None and id(each) not in found:
            found[id(each)] = each
            ahead += [each.__cause__, each.__context__, *getattr(each, "exceptions", ())]
    return [each for each in found.values() if isinstance(each, SockServerError)]


def _without_conversation(error: BaseException) -> BaseException:
    """Return an exception that says only its summary: the section below it has the whole conversation."""
    if not isinstance(error, SockServerError) or error.summary is None:
        return error
    short = type(error)(error.summary).with_traceback(error.__traceback__)
    short.__cause__ = error.__cause__
    return short


def _in_about_a_screen(service: Service) -> list[str]:
    said = partial(_lines_of, service, transcript.SAID_LIMIT)
    return [_cut(line) for line in transcript.ends_of(said, _HEAD_LINES, _TAIL_LINES, _HIDDEN)]


def _cut(line: str) -> str:
    if len(line) <= _LINE_WIDTH or line.startswith("#"):  # a remark is bounded by itself
        return line
    return f"#! {line[: _LINE_WIDTH - 3]}... ({len(line):,} characters)"  # pasted back it must not pass for the line


def _title(service: Service) -> str:
    where = format_peer(service.published.address) if service.published.address is not None else "never started"
    tapes = service.context.recorder.tapes
    shown = [tape for tape in tapes if _concerns_this_test(service, tape)]
    what = "peer" if service.has_datagrams else "connection"
    count = f"{len(shown)} {what}{'' if len(shown) == 1 else 's'}"
    before = f", {len(tapes) - len(shown)} before this test" if len(shown) < len(tapes) else ""
    return f"sockserver: {service.context.name} {where} ({count}{before})"


def _lines_of(service: Service, limit: int | None, *, backwards: bool = False) -> Iterator[str]:
    with service.context.recorder.lock:
        tapes = [tape for tape in service.context.recorder.tapes if _concerns_this_test(service, tape)]
    if service.has_datagrams:
        yield from transcript.datagram_lines(tapes, limit=limit, since=service.verdict.times.began, backwards=backwards)
        return
    for tape in reversed(tapes) if backwards else tapes:
        head, lines = (transcript.head(tape),), transcript.lines
        said = lines(tape, limit=limit, since=service.verdict.times.began, backwards=backwards)
        yield from chain(said, head) if backwards else chain(head, said)


def _concerns_this_test(service: Service, tape: Tape) -> bool:
    """Tell whether anything has happened on a connection since the test began, or it is still open."""
    if not service.has_datagrams and tape.ended_at is None:
        return True
    return tape.began >= service.verdict.times.began or any(
        event[0] >= service.verdict.times.began for event in tape.events[-1:]
    )


def without_surrogates(shown: Any) -> None:
    """Escape the lone surrogates in what pytest made of an exception: one of them kills a whole xdist run."""
    for name, value in list(getattr(shown, "__dict__", {}).items()):
        setattr(shown, name, _without_surrogates(value))


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, (list, tuple)):
        return type(value)(_without_surrogates(each) for each in value) if type(value) in (list, tuple) else value
    if type(value).__module__ == "_pytest._code.code":
        without_surrogates(value)
    return value
