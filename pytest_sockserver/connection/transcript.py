"""What was said, as text: for messages, reports and ``print(connection)``, in the dialogue notation."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from heapq import merge
from itertools import chain, groupby, islice
from operator import itemgetter

from ..errors.messages import format_peer
from ..recording.events import RawEvent
from ..recording.recorder import Tape

#: Lines of a conversation in a message: its last ones tell why it ended.  A screen has about fifty.
MESSAGE_LINES = 12

#: Lines that are counted of those that are not shown.  To count all of 500,000 took three seconds.
LINES_COUNTED = 1000

#: Bytes that are written out of what one side says in a row.
SAID_LIMIT = 2000

_NOT_KEPT = "#! the recording reached its record_limit: what came later was counted and not kept"


def of_connection(tape: Tape, *, limit: int | None = SAID_LIMIT) -> str:
    """Return one connection's conversation under its head."""
    return "\n".join([head(tape), *lines(tape, limit=limit)])


def so_far(tape: Tape) -> str:
    """Return the end of one connection's conversation, short enough for a message."""
    said = ends_of(partial(lines, tape, limit=200), 0, MESSAGE_LINES, "lines before")
    return "\n".join(said) if said else "nothing was said so far"


def ends_of(said: Callable[..., Iterator[str]], first: int, last: int, what: str) -> list[str]:
    """Return the first and the last lines of a conversation, and between them a remark: how many others there are.

    Args:
        said: Yields its lines, with ``backwards=True`` from the last one on.  It is asked for no more of them than are
            shown, or counted.
        what: What the remark calls them: ``lines before``.
    """
    counted = list(islice(said(), LINES_COUNTED + 1))
    if len(counted) <= first + last:
        return counted
    if len(counted) <= LINES_COUNTED:
        hidden, tail = f"{len(counted) - first - last}", counted[len(counted) - last :]
    else:
        hidden, tail = f"over {LINES_COUNTED - first - last}", list(islice(said(backwards=True), last))[::-1]
    return [*counted[:first], f"#! ... {hidden} {what}", *tail]


def lines(tape: Tape, *, limit: int | None = SAID_LIMIT, since: float = 0.0, backwards: bool = False) -> Iterator[str]:
    """Yield the lines of one stream's conversation.

    Args:
        since: What happened before that time is counted, not written.
        backwards: From the last line to the first.
    """
    with tape.recorder.lock:
        before = _before(tape, since)
        events = tape.events[before:]
        dropped = tape.recorder.dropped
    from ..scripting.dialogue_writer import format_lines, line_ending

    ending = line_ending(events, limit=limit)
    opening = [f"#! {before} event{'' if before == 1 else 's'} before this test"] if before else []
    opening += ["% eol lf"] if ending != b"\r\n" else []
    closing = [_NOT_KEPT] if dropped else []
    said = format_lines(events, ending=ending, limit=limit, backwards=backwards)
    return chain(closing, said, reversed(opening)) if backwards else chain(opening, said, closing)


def _before(tape: Tape, since: float) -> int:
    """Return how many events happened before that time.  The recorder's lock must be held."""
    return bisect_left(tape.events, since, key=itemgetter(0))


def head(tape: Tape) -> str:
    """Return the line that begins a connection: ``== 0  from 127.0.0.1:50914, closed by the client after 0.004 s``."""
    if tape.ended_by is None:
        end = "still open"
    else:
        end = f"{tape.ended_how} by the {tape.ended_by} after {(tape.ended_at or 0.0) - tape.began:.3f} s"
    return f"== {tape.index}  from {format_peer(tape.peer)}, {end}"


def datagram_lines(
    tapes: Sequence[Tape], *, limit: int | None = SAID_LIMIT, since: float = 0.0, backwards: bool = False
) -> Iterator[str]:
    """Yield the lines of all peers' datagrams in the order they passed; with several peers, each under its head."""
    from ..scripting.dialogue_writer import format_datagrams

    peers = {tape.index: tape.peer for tape in tapes}
    several = [_datagrams(tape, since, backwards) for tape in tapes]
    closing = [_NOT_KEPT] if tapes and tapes[0].recorder.dropped else []
    yield from closing if backwards else ()
    events = merge(*several, key=itemgetter(0), reverse=backwards)  # one after the other, as they are asked for
    for index, in_a_row in groupby(events, itemgetter(1)):
        title = [f"== {index}  {format_peer(peers[index])}"] if len(peers) > 1 else []
        yield from title if not backwards else ()
        for event in in_a_row:
            said = list(format_datagrams([event], limit=limit))
            yield from reversed(said) if backwards else said
        yield from title if backwards else ()
    yield from () if backwards else closing


def _datagrams(tape: Tape, since: float, backwards: bool) -> Iterator[RawEvent]:
    with tape.recorder.lock:
        events = tape.events[_before(tape, since) :]
    return reversed(events) if backwards else iter(events)
