r"""The text and the hex of the dialogue notation: how bytes are written down, and read back.

Text is UTF-8 with the escapes ``\\ \r \n \t \0 \xNN`` and ``\g<name>``, which stands for what was captured under that
name.  Hex is pairs of digits, with ``\g<name>`` as well, and where bytes are received also ``??`` (any byte) and
``<name:n>`` (n bytes, captured).  Both are read into *pieces*; what cannot be read is refused with its column.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

# pytest shows no frame of this module: what cannot be read is in the user's line.
__tracebackhide__ = True

_ESCAPES = {0x5C: "\\\\", 0x0D: "\\r", 0x0A: "\\n", 0x09: "\\t", 0x00: "\\0"}
_MEANINGS = {"\\": b"\\", "r": b"\r", "n": b"\n", "t": b"\t", "0": b"\0"}
_NO_TEXT = frozenset(["\x7f", *map(chr, range(0xDC80, 0xDD00))])  # DEL, and what surrogateescape makes of odd bytes
_REFERENCE = re.compile(r"\\g<([^>]*)>")
_NAMED_HOLE = re.compile(r"<([^:>]*):([^>]*)>")
_HEX_PAIR = re.compile(r"[0-9a-fA-F]{2}")


class NotationError(ValueError):
    """Text that cannot be read.

    Attributes:
        column: Where, from 0 on.
    """

    def __init__(self, text: str, column: int) -> None:
        super().__init__(text)
        self.column = column


@dataclass(frozen=True)
class Name:
    r"""What was captured under a name: ``\g<name>``."""

    name: str


@dataclass(frozen=True)
class Hole:
    """Bytes of which only the number is known: ``??`` and ``<name:n>``."""

    size: int
    name: str | None = None


Piece = bytes | Name | Hole


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
    return _joined(pieces)


def _read_plain(text: str, at: int) -> tuple[Piece, int]:
    end = text.find("\\", at)
    end = len(text) if end < 0 else end
    for index in range(at, end):
        if (text[index] < " " and text[index] != "\t") or text[index] in _NO_TEXT:
            raise NotationError(
                f"expected text, not the control character {text[index]!r}: write r before the string?", index
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
        if text[at] in " \t\r\n":
            at += 1
            continue
        piece, end = _read_hex_piece(text, at)
        if isinstance(piece, Hole) and not holes:
            raise NotationError(f"{text[at:end]} says what may come, and cannot be sent", at)
        pieces.append(piece)
        at = end
    return _joined(pieces)


def _read_hex_piece(text: str, at: int) -> tuple[Piece, int]:
    pair = text[at : at + 2]
    if _HEX_PAIR.fullmatch(pair):
        return bytes.fromhex(pair), at + 2
    if pair == "??":
        return Hole(1), at + 2
    if pair == "\\g":
        return _read_reference(text, at)
    found = _NAMED_HOLE.match(text, at)
    if found is not None and found[1].isidentifier() and found[2].isdigit() and int(found[2]) > 0:
        return Hole(int(found[2]), found[1]), found.end()
    raise NotationError(f"expected pairs of hex digits, ??, <name:n> or \\g<name>, not {text[at : at + 12]!r}", at)


def _joined(pieces: Iterable[Piece]) -> tuple[Piece, ...]:
    """Return the pieces with bytes that follow one another as one."""
    joined: list[Piece] = []
    for piece in pieces:
        if joined and isinstance(piece, bytes) and isinstance(last := joined[-1], bytes):
            joined[-1] = last + piece
        else:
            joined.append(piece)
    return tuple(joined)


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
    return "".join(
        _ESCAPES.get(ord(character)) or (character if character.isprintable() else _hex_escape(character))
        for character in data.decode("utf-8", "surrogateescape")
    )


def _guarded(text: str) -> str:
    """Return text whose last blank is escaped: blanks at the end of a line mean nothing."""
    return text[:-1] + "\\x20" if text.endswith(" ") else text


def _hex_escape(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))


def is_binary(data: bytes) -> bool:
    """Tell whether ``data`` is better read as hex: more than a quarter of it is no text."""
    text = data.decode("utf-8", "surrogateescape")
    odd = sum((character < " " and character not in "\r\n\t") or character in _NO_TEXT for character in text)
    return odd * 4 > len(text)
