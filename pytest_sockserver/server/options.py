"""The options of a server: what they may be, and what to say when they are not."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping, Set
from typing import TYPE_CHECKING, Any, Final

from ..connection.deadline import DEFAULT_STOP_TIMEOUT, DEFAULT_TIMEOUT
from ..errors.location import hide_frame
from ..recording.recorder import DEFAULT_RECORD_LIMIT
from ..scripting.arguments import checked_seconds
from ..scripting.framing import Framing, checked_framing
from ..scripting.frozen import fields_of, frozen

if TYPE_CHECKING:
    import ssl

    from ..transport.certificates import TLS, Certificate

__tracebackhide__ = hide_frame


#: Bytes.  A longer line or frame is a mistake, or an attack that the test did not announce.
DEFAULT_MAX_FRAME: Final = 16 * 1024 * 1024

#: Connections that wait for accept(): as many as the system allows.  The standard library's 5 drops bursts (CPython
#: issue 80184), and of 1,000 clients at once 128 made some wait seconds for the retransmission of their SYN.
DEFAULT_BACKLOG: Final = int(getattr(socket, "SOMAXCONN", 128))

_COMMON = {"timeout", "stop_timeout", "record_limit", "name"}
_OF_STREAMS = _COMMON | {"rcvbuf", "backlog", "framing", "max_frame", "tls", "ignore_probes"}
_OF_TCP = _OF_STREAMS | {"host", "port", "mss", "allow_remote"}
_OF_TRANSPORT: Final = {
    "tcp": _OF_TCP,
    "tls": _OF_TCP,
    "unix": _OF_STREAMS | {"path"},
    "udp": _COMMON | {"host", "port", "rcvbuf", "allow_remote"},
    "unix_datagram": _COMMON | {"path", "rcvbuf"},
}


@frozen
class Options:
    """What a server was asked to be.  Sizes are bytes, times are seconds."""

    host: str = "127.0.0.1"
    port: int = 0
    path: str | bytes | os.PathLike[str] | None = None
    framing: Framing | None = None
    timeout: float = DEFAULT_TIMEOUT
    stop_timeout: float = DEFAULT_STOP_TIMEOUT
    rcvbuf: int | None = None
    backlog: int = DEFAULT_BACKLOG
    record_limit: int = DEFAULT_RECORD_LIMIT
    max_frame: int = DEFAULT_MAX_FRAME
    mss: int | None = None
    tls: ssl.SSLContext | TLS | Certificate | bool | None = None
    ignore_probes: bool = False
    allow_remote: bool = False
    name: str | None = None


NAMES: Final = frozenset(fields_of(Options))


def options_for(transport: str, given: dict[str, Any], *, where: str) -> Options:
    """Return checked options.

    Args:
        where: What was called, for messages: ``"sockserver.tcp()"``.

    Raises:
        TypeError: An option is unknown, does not belong to this transport or has the wrong type.
        ValueError: An option is out of its range.
    """
    check_options(given, _OF_TRANSPORT[transport], where=where)
    return Options(**given)


def check_options(given: Mapping[str, Any], allowed: Set[str], *, where: str) -> None:
    """Raise the error about the first option that is not among ``allowed``, or is not what it must be."""
    for name, value in given.items():
        if name not in allowed:
            raise TypeError(unknown_option(name, allowed, where=where))
        check_option(name, value)


def fitting(transport: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return those of the options that say something to this transport: a marker speaks to every server of its test."""
    return {name: value for name, value in given.items() if name in _OF_TRANSPORT[transport]}


def unknown_option(name: str, allowed: Set[str], *, where: str) -> str:
    """Return the message about an option that is not among ``allowed``."""
    if name in NAMES:
        return f"{where} has no option {name!r}: expected one of {', '.join(sorted(allowed))}"
    import difflib  # a millisecond, and only on the way to an error

    close = difflib.get_close_matches(name, allowed, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(sorted(allowed))}"
    return f"{where} got an unknown option {name!r}: {hint}"


def check_option(name: str, value: Any) -> None:
    """Raise the error that says what the option ``name`` must be, if ``value`` is not that."""
    if value is None and name in ("path", "rcvbuf", "name", "framing", "mss", "tls"):
        return
    if name == "framing":
        checked_framing(value, sys.maxsize)  # against the server's max_frame it is checked by the server
        return
    if name == "tls":
        from ..transport.certificates import checked_tls

        checked_tls(value, "tls")
        return
    if name in ("timeout", "stop_timeout"):
        _check_number(name, value, (int, float), "a number of seconds")
        checked_seconds(value, f"{name} must be above 0 seconds and finite")
    elif name == "port":
        _check_number(name, value, int, "an int")
        if not 0 <= value <= 65535:
            raise ValueError(f"port must be from 0 to 65535, not {value!r}; 0 lets the system choose")
    elif name in ("backlog", "record_limit", "max_frame", "rcvbuf"):
        _check_number(name, value, int, "an int")
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value!r}")
    elif name == "mss":
        _check_number(name, value, int, "an int")
        if not 88 <= value <= 32767:
            raise ValueError(f"mss must be from 88 to 32767 bytes, not {value!r}")
    elif name == "path":
        if not isinstance(value, (str, bytes, os.PathLike)):
            raise TypeError(f"path must be a str, bytes or os.PathLike, not {value!r}")
    elif name in ("allow_remote", "ignore_probes"):
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be True or False, not {value!r}")
    elif not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {value!r}")


def _check_number(name: str, value: Any, kind: Any, expected: str) -> None:
    if isinstance(value, bool) or not isinstance(value, kind):
        raise TypeError(f"{name} must be {expected}, not {value!r}")
