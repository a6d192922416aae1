"""What is said in answer: parts.

A part is ``bytes``, sent as written.  The vocabulary is closed, and this is the one place that knows it:
what is not a part is refused here, with a message that says what to write.
"""

from __future__ import annotations

from collections.abc import Iterable

Part = bytes
Reply = bytes | Iterable[Part]


def checked_parts(parts: Iterable[object], verb: str) -> list[bytes]:
    """Return the parts as bytes, or raise the ``TypeError`` that names the first that is none."""
    __tracebackhide__ = True
    checked = []
    for part in parts:
        if isinstance(part, str):
            raise TypeError(f"{verb} expected bytes, not the text {part!r}: write b{part!r}, or encode it")
        if not isinstance(part, (bytes, bytearray, memoryview)):
            raise TypeError(f"{verb} expected bytes, not {part!r}")
        checked.append(bytes(part))
    return checked


def parts_of(reply: object, verb: str) -> list[bytes]:
    """Return what a reply function returned as a list of parts: one, several, or none.

    ``None`` is refused: a forgotten ``return`` would be a client that waits in silence.
    """
    if reply is None:
        raise TypeError(f"{verb} returned None: return the bytes of the reply, a list of replies, or () for no reply")
    if isinstance(reply, (bytes, bytearray, memoryview, str)):
        return checked_parts([reply], verb)
    if not isinstance(reply, Iterable):
        raise TypeError(f"{verb} returned {reply!r}: expected bytes, a list of bytes, or () for no reply")
    return checked_parts(reply, verb)
