"""What was said, as text: for messages, reports and ``print(connection)``, in the dialogue notation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .messages import format_peer
from .recording.recorder import Tape
from .scripting.writing import format_datagrams, format_lines, line_ending

#: Lines of a conversation in a message: its last ones tell why it ended.  A screen has about fifty.
MESSAGE_LINES = 12

#: Bytes that are written out of what one side says in a row.
SAID_LIMIT = 2000

_NOT_KEPT = "#! the recording reached its record_limit: what came later was counted and not kept"


def of_connection(tape: Tape, *, limit: int | None = SAID_LIMIT) -> str:
    """Return one connection's conversation under its head."""
    return "\n".join([head(tape), *lines(tape, limit=limit)])


def so_far(tape: Tape) -> str:
    """Return the end of one connection's conversation, short enough for a message."""
    said = list(lines(tape, limit=200))
    if not said:
        return "nothing was said so far"
    if len(said) > MESSAGE_LINES:
        said = [f"#! ... {len(said) - MESSAGE_LINES} lines before", *said[-MESSAGE_LINES:]]
    return "\n".join(said)


def lines(tape: Tape, *, limit: int | None = SAID_LIMIT, since: float = 0.0) -> Iterator[str]:
    """Yield the lines of one stream's conversation.

    Args:
        since: What happened before that time is counted, not written.
    """
    with tape.recorder.lock:
        events = [event for event in tape.events if event[0] >= since]
        before = len(tape.events) - len(events)
        dropped = tape.recorder.dropped
    if before:
        yield f"#! {before} event{'' if before == 1 else 's'} before this test"
    ending = line_ending(events)
    if ending != b"\r\n":
        yield "% eol lf"
    yield from format_lines(events, ending=ending, limit=limit)
    if dropped:
        yield _NOT_KEPT


def head(tape: Tape) -> str:
    """Return the line that begins a connection: ``== 0  from 127.0.0.1:50914, closed by the client after 0.004 s``."""
    if tape.ended_by is None:
        end = "still open"
    else:
        end = f"{tape.ended_how} by the {tape.ended_by} after {(tape.ended_at or 0.0) - tape.began:.3f} s"
    return f"== {tape.index}  from {format_peer(tape.peer)}, {end}"


def datagram_lines(tapes: Sequence[Tape], *, limit: int | None = SAID_LIMIT, since: float = 0.0) -> Iterator[str]:
    """Yield the lines of all peers' datagrams in the order they passed; with several peers, each under its head."""
    peers = {tape.index: tape.peer for tape in tapes}
    events = [event for tape in tapes for event in tape.events if event[0] >= since]
    last = None
    for event in sorted(events, key=lambda event: event[0]):
        if len(peers) > 1 and event[1] != last:
            last = event[1]
            yield f"== {last}  {format_peer(peers[last])}"
        yield from format_datagrams([event], limit=limit)
    if tapes and tapes[0].recorder.dropped:
        yield _NOT_KEPT
