r"""The text and the hex of the dialogue notation: how bytes are written down, and read back.

Text is UTF-8 with the escapes ``\\ \r \n \t \0 \xNN`` and ``\g<name>``, which stands for what was captured under that
name.  Hex is pairs of digits, with ``\g<name>`` as well, and where bytes are received also ``??`` (any byte) and
``<name:n>`` (n bytes, captured).  Both are read into *pieces*; what cannot be read is refused with its column.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import groupby
from typing import Any, TypeVar

from ..errors.location import hide_frame
from .frozen import frozen

__tracebackhide__ = hide_frame

_ESCAPES = {"\\": "\\\\", "\r": "\\r", "\n": "\\n", "\t": "\\t", "\0": "\\0"}
_MEANINGS = {"\\": b"\\", "r": b"\r", "n": b"\n", "t": b"\t", "0": b"\0"}
_CONTROL = re.compile("[\0-\x08\n-\x1f\x7f\udc80-\udcff]")  # DEL too, and what surrogateescape makes of odd bytes
_NO_CONTROL = bytes({*range(256)} - {*range(0x20), 0x7F} | {*b"\r\n\t"})
_REFERENCE = re.compile(r"\\g<([^>]*)>")
_NAMED_HOLE = re.compile(r"<([^:>]*):([^>]*)>")
_HEX_PAIR = re.compile(r"[0-9a-fA-F]{2}")
_HEX_PAIRS = re.compile(r"[0-9a-fA-F \t\r\n]+")
_HEX_TOKEN = re.compile(r"[ \t\r\n]+|[0-9a-fA-F]{2}|(.)", re.DOTALL)


class NotationError(ValueError):
    """Text that cannot be read.

    Attributes:
        column: Where, from 0 on.
    """

    def __init__(self, text: str, column: int) -> None:
        super().__init__(text)
        self.column = column


@frozen
class Name:
    r"""What was captured under a name: ``\g<name>``."""

    name: str


@frozen
class Hole:
    """Bytes of which only the number is known: ``??`` and ``<name:n>``."""

    size: int
    name: str | None = None


Piece = bytes | Name | Hole
T = TypeVar("T")


def read_text(text: str) -> tuple[Piece, ...]:
    """Return the pieces of a text.

    Raises:
        NotationError: An unknown escape, an incomplete name, a control character.
    """
    pieces: list[Piece] = []
    at = 0
    while at < len(text):
        piece, at = _read_escape(text, at) if text[at] == "\\" else _read_plain(text, at)
        pieces.append(piece)
    return tuple(joined(pieces))


def _read_plain(text: str, at: int) -> tuple[Piece, int]:
    end = text.find("\\", at)
    end = len(text) if end < 0 else end
    found = _CONTROL.search(text, at, end)
    if found is not None:
        raise NotationError(
            f"expected text, not the control character {found[0]!r}: write r before the string?", found.start()
        )
    return text[at:end].encode("utf-8", "surrogatepass"), end


def _read_escape(text: str, at: int) -> tuple[Piece, int]:
    r"""Read one escape, which begins with the backslash at ``at``."""
    letter = text[at + 1 : at + 2]
    if letter in _MEANINGS and letter:
        return _MEANINGS[letter], at + 2
    if letter == "x" and _HEX_PAIR.fullmatch(text[at + 2 : at + 4]):
        return bytes.fromhex(text[at + 2 : at + 4]), at + 4
    if letter == "g":
        return _read_reference(text, at)
    shown = text[at : at + 4] if letter == "x" else text[at : at + 2]
    raise NotationError(f"unknown escape {shown}: expected \\\\ \\r \\n \\t \\0 \\xNN or \\g<name>", at)


def _read_reference(text: str, at: int) -> tuple[Name, int]:
    found = _REFERENCE.match(text, at)
    if found is None or not found[1].isidentifier():
        raise NotationError(f"expected the name of a group in \\g<...>, not {text[at : at + 12]}", at)
    return Name(found[1]), found.end()


def read_hex(text: str, *, holes: bool) -> tuple[Piece, ...]:
    """Return the pieces of hex.

    Args:
        holes: Whether ``??`` and ``<name:n>`` may stand in it; in what is sent they may not.

    Raises:
        NotationError: Something else than pairs of digits, or a hole where none may be.
    """
    pieces: list[Piece] = []
    at = 0
    while at < len(text):
        run = _HEX_PAIRS.match(text, at)
        if run is not None:
            data, at = _read_hex_run(run)
            pieces += [data] if data else []
            continue
        piece, end = _read_hex_piece(text, at)
        if isinstance(piece, Hole) and not holes:
            raise NotationError(f"{text[at:end]} says what may come, and cannot be sent", at)
        pieces.append(piece)
        at = end
    return tuple(joined(pieces))


def _read_hex_run(run: re.Match[str]) -> tuple[bytes, int]:
    """Read digits and blanks at once; where they are no pairs, find the place."""
    try:
        return bytes.fromhex(run[0]), run.end()
    except ValueError:
        odd = next(found for found in _HEX_TOKEN.finditer(run.string, run.start(), run.end()) if found[1])
        raise _no_hex(run.string, odd.start()) from None


def _read_hex_piece(text: str, at: int) -> tuple[Piece, int]:
    pair = text[at : at + 2]
    if pair == "??":
        return Hole(1), at + 2
    if pair == "\\g":
        return _read_reference(text, at)
    found = _NAMED_HOLE.match(text, at)
    if found is not None and found[1].isidentifier() and found[2].isdigit() and int(found[2]) > 0:
        return Hole(int(found[2]), found[1]), found.end()
    raise _no_hex(text, at)


def _no_hex(text: str, at: int) -> NotationError:
    return NotationError(f"expected pairs of hex digits, ??, <name:n> or \\g<name>, not {text[at : at + 12]!r}", at)


def joined(pieces: Iterable[T]) -> list[T]:
    """Return pieces, or parts, with bytes that follow one another as one; each is copied once."""
    whole: list[Any] = []
    for plain, several in groupby(pieces, lambda piece: isinstance(piece, bytes)):
        in_a_row: list[Any] = list(several)
        whole += [b"".join(in_a_row)] if plain else in_a_row
    return whole


def references(pieces: Iterable[Piece]) -> tuple[str, ...]:
    """Return the names that must have been captured before."""
    return tuple(piece.name for piece in pieces if isinstance(piece, Name))


# Writing


def written_text(pieces: Iterable[Piece]) -> str:
    """Return pieces as text: what ``read_text`` reads as these pieces."""
    return _guarded("".join(_text_piece(piece) for piece in pieces))


def _text_piece(piece: Piece) -> str:
    assert not isinstance(piece, Hole)  # text has none
    return f"\\g<{piece.name}>" if isinstance(piece, Name) else _escaped(piece)


def written_hex(pieces: Iterable[Piece]) -> str:
    """Return pieces as hex: what ``read_hex`` reads as these pieces."""
    return " ".join(_hex_piece(piece) for piece in pieces)


def _hex_piece(piece: Piece) -> str:
    if isinstance(piece, Name):
        return f"\\g<{piece.name}>"
    if isinstance(piece, Hole):
        return f"<{piece.name}:{piece.size}>" if piece.name is not None else " ".join(["??"] * piece.size)
    return piece.hex(" ")


def escaped(data: bytes) -> str:
    """Return bytes as text: printable characters as they are, the rest escaped, a last blank too."""
    return _guarded(_escaped(data))


def _escaped(data: bytes) -> str:
    text = data.decode("utf-8", "surrogateescape")
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(
        _ESCAPES.get(character) or (character if character.isprintable() else _hex_escape(character))
        for character in text
    )


def _guarded(text: str) -> str:
    """Return text whose last blank is escaped: blanks at the end of a line mean nothing."""
    return text[:-1] + "\\x20" if text.endswith(" ") else text


def _hex_escape(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))


def is_binary(data: bytes) -> bool:
    """Tell whether ``data`` is better read as hex: more than a quarter of it is no text."""
    odd = len(data.translate(None, _NO_CONTROL))
    if data.isascii():
        return odd * 4 > len(data)
    characters = len(data.decode("utf-8", "surrogateescape"))  # a byte that is no UTF-8 is one of them
    return (odd + characters - len(data.decode("utf-8", "ignore"))) * 4 > characters
