"""Draw numbers from a seed, the same ones on every machine and every Python.

A draw is a function of the seed and of where it is made (which connection, which write), not of how many were made
before it: connections that are served at the same time then cannot change each other's draws.
"""

from __future__ import annotations

from typing import Final

from ..errors.location import hide_frame

__tracebackhide__ = hide_frame


_BITS: Final = 53  # what a float between 0 and 1 holds


def drawn(seed: int, *place: int) -> int:
    """Return a number of 64 bits that looks random, for this seed and place."""
    import hashlib  # half a millisecond, and only for who draws

    text = " ".join(map(str, (seed, *place))).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def fraction(seed: int, *place: int) -> float:
    """Return a number from 0 up to 1, without 1."""
    return (drawn(seed, *place) >> (64 - _BITS)) / (1 << _BITS)


def garbage(n: int, *, seed: int = 0) -> bytes:
    """Return ``n`` bytes that look random: always the same for the same seed."""
    for name, value, least in (("n", n, 0), ("seed", seed, None)):
        if type(value) is not int:
            raise TypeError(f"garbage() expected an int for {name}, not {value!r}")
        if least is not None and value < least:
            raise ValueError(f"garbage() expected a number of bytes, 0 or more, not {value!r}")
    import hashlib

    return hashlib.shake_128(str(seed).encode()).digest(n)
