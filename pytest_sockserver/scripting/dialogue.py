r"""Write a conversation down, in the dialogue notation.

What each side said becomes lines with ``S:`` and ``C:``, ending in CRLF (``% eol lf`` at the head says
otherwise), ``S-``/``C-`` for text with another ending or none, ``Sx``/``Cx`` for bytes that are no text;
what a socket did becomes ``S! close``, ``C! eof`` and so on.

The events are plain tuples ``(time, connection, kind, data)``.  How the network cut the bytes says
nothing, so what one side said in a row is joined before it is cut into lines; a line keeps the time of
its first byte.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate

Event = tuple[float, int, str, bytes]

_SIDES = {"received": "C", "sent": "S"}
_MARKS = {
    "client-eof": "C! eof",
    "client-reset": "C! reset",
    "close": "S! close",
    "reset": "S! reset",
    "send-eof": "S! send-eof",
    "start-tls": "S! start-tls",
}
_ESCAPES = {0x5C: "\\\\", 0x0D: "\\r", 0x0A: "\\n", 0x09: "\\t", 0x00: "\\0"}
_NO_TEXT = frozenset(["\x7f", *map(chr, range(0xDC80, 0xDD00))])  # DEL, and what surrogateescape makes of odd bytes
_HEX_WIDTH = 16  # bytes in a line of hex, as hexdump(1) and every protocol analyser print them


def line_ending(events: Iterable[Event]) -> bytes:
    r"""Return the ending most lines of a conversation have: CRLF, unless all of them end in a bare LF."""
    said = b"".join(data for _, _, kind, data in events if kind in _SIDES)
    return b"\n" if b"\n" in said and b"\r\n" not in said else b"\r\n"


def format_lines(events: Sequence[Event], *, ending: bytes = b"\r\n", limit: int | None = None) -> Iterator[str]:
    """Yield the lines of one connection's conversation, each with its time.

    Args:
        limit: Bytes that are written out of what one side said in a row, of its beginning and its end; what lies
            between is counted in a remark.
    """
    for kind, chunks in _runs(events):
        if kind not in _SIDES:
            for time, data in chunks:
                yield f"[{time:.3f}] {_MARKS[kind]}" if kind in _MARKS else _remark(data)
            continue
        side, said = _SIDES[kind], b"".join(data for _, data in chunks)
        starts, binary = _starts(chunks), _binary(said)
        head, tail = _head_and_tail(said, ending, limit)
        for offset, text in _said(side, said[:head], ending, binary=binary):
            yield f"[{starts(offset):.3f}] {text}"
        if head < tail:
            yield f"# ... {tail - head:,} bytes left out, {len(said):,} in all"
        for offset, text in _said(side, said[tail:], ending, binary=binary):
            yield f"[{starts(tail + offset):.3f}] {text}"


def _head_and_tail(said: bytes, ending: bytes, limit: int | None) -> tuple[int, int]:
    """Return where the beginning that is shown ends and where the end that is shown begins.

    Between lines, if there are any: a line that was cut would look like one that was sent without its ending.
    """
    if limit is None or len(said) <= limit:
        return len(said), len(said)
    half = limit // 2
    last = said.rfind(ending, 0, half)
    first = said.find(ending, len(said) - half, len(said) - len(ending))
    head = last + len(ending) if last >= 0 else half
    tail = first + len(ending) if first >= 0 else len(said) - half
    return head, tail


def format_datagrams(events: Sequence[Event], *, limit: int | None = None) -> Iterator[str]:
    """Yield the lines of a conversation in datagrams: one line each, none joined, none cut."""
    for time, _, kind, data in events:
        side = _SIDES.get(kind)
        if side is None:
            yield f"[{time:.3f}] # not sent" if kind == "unsent" else _remark(data)
            continue
        shown = data if limit is None else data[:limit]
        line = f"{side}x {shown.hex(' ')}" if _binary(data) else f"{side}: {_escaped(shown)}".rstrip(" ")
        yield f"[{time:.3f}] {line}"
        if len(shown) < len(data):
            yield f"# ... {len(data) - len(shown):,} bytes more, {len(data):,} in all"


def _remark(text: bytes) -> str:
    return "\n".join(f"# {line}" for line in text.decode("utf-8", "backslashreplace").splitlines())


def _runs(events: Sequence[Event]) -> Iterator[tuple[str, list[tuple[float, bytes]]]]:
    """Yield what happened, with what one side said in a row together."""
    kind_now = ""
    chunks: list[tuple[float, bytes]] = []
    for time, _, kind, data in _really_sent(events):
        if kind != kind_now and chunks:
            yield kind_now, chunks
            chunks = []
        kind_now = kind
        chunks.append((time, data))
    if chunks:
        yield kind_now, chunks


def _really_sent(events: Sequence[Event]) -> list[Event]:
    """Return the events without the bytes that were noted before they were sent, and then could not be."""
    kept: list[Event] = []
    for event in events:
        if event[2] != "unsent":
            kept.append(event)
            continue
        count, at = int(event[3]), len(kept)
        while count and at:
            at -= 1
            time, connection, kind, data = kept[at]
            if kind == "sent":  # the client may have spoken since
                rest = data[: max(0, len(data) - count)]
                count -= len(data) - len(rest)
                kept[at : at + 1] = [(time, connection, kind, rest)] if rest else []
    return kept


def _starts(chunks: list[tuple[float, bytes]]) -> Callable[[int], float]:
    """Return the function from an offset in the joined chunks to the time at which that byte passed."""
    ends = list(accumulate(len(data) for _, data in chunks))
    return lambda offset: chunks[min(bisect_right(ends, offset), len(chunks) - 1)][0]


def _said(side: str, data: bytes, ending: bytes, *, binary: bool) -> Iterator[tuple[int, str]]:
    if binary:
        for offset in range(0, len(data), _HEX_WIDTH):
            yield offset, f"{side}x {data[offset : offset + _HEX_WIDTH].hex(' ')}"
        return
    offset = 0
    for line in _split(data, ending):
        if line.endswith(ending):
            yield offset, f"{side}: {_escaped(line[: -len(ending)])}".rstrip(" ")
        else:
            yield offset, f"{side}- {_escaped(line)}".rstrip(" ")
        offset += len(line)


def _split(data: bytes, ending: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(data):
        found = data.find(ending, start)
        end = len(data) if found < 0 else found + len(ending)
        yield data[start:end]
        start = end


def _binary(data: bytes) -> bool:
    """Tell whether ``data`` is better read as hex: more than a quarter of it is no text."""
    text = data.decode("utf-8", "surrogateescape")
    odd = sum((character < " " and character not in "\r\n\t") or character in _NO_TEXT for character in text)
    return odd * 4 > len(text)


def _escaped(data: bytes) -> str:
    text = "".join(
        _ESCAPES.get(ord(character)) or (character if character.isprintable() else _hex_escape(character))
        for character in data.decode("utf-8", "surrogateescape")
    )
    return text[:-1] + "\\x20" if text.endswith(" ") else text


def _hex_escape(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))
