"""How messages write addresses, bytes and quoted conversations."""

from __future__ import annotations

from typing import Any


def format_peer(peer: Any) -> str:
    """Return an address as messages write it: ``127.0.0.1:50914``, ``[::1]:50914``, a path, ``an unbound socket``."""
    if isinstance(peer, tuple) and len(peer) >= 2:
        return f"[{peer[0]}]:{peer[1]}" if ":" in str(peer[0]) else f"{peer[0]}:{peer[1]}"
    if not peer:
        return "an unbound socket"
    return peer.decode("utf-8", "backslashreplace").replace("\0", "@") if isinstance(peer, bytes) else str(peer)


def shortened(data: bytes, most: int = 120) -> str:
    """Return the repr of ``data``, cut after ``most`` bytes with the length told."""
    return repr(data) if len(data) <= most else f"{data[:most]!r}... ({len(data):,} bytes)"


def indented(text: str) -> str:
    """Return ``text`` moved right, to stand under a message."""
    return "\n".join(f"    {line}" for line in text.splitlines())
