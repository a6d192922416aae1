"""The public names of the package, and the modules that they are in.

Apart from the package's own module, since every run of pytest with the plugin installed reads that one.  Type checkers
read ``__init__.pyi``, which has the same names.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_NAMES = {
    "server.aio": "AsyncConnection AsyncRequest AsyncServer",
    "connection.request": "Request",
    "transport.certificates": "Certificate TLS",
    "faults.matrix": "FaultMatrix FaultResult fault_matrix",
    "connection.connection": "Connection",
    "server.datagram": "DatagramTestServer",
    "faults.active": "Injection",
    "errors.exceptions": (
        "AddressUnavailable BlockingCallInCoroutine DeadlineExceeded DialogueError EndOfStream HandlerStuck "
        "IncompleteRequest RecordLimitExceeded ScriptMismatch ServerFailed ServerStopping "
        "SockServerError SockServerWarning UnexpectedRequest UnmetExpectation UnsupportedFault InvalidState"
    ),
    "server.factory": "SockServer",
    "recording.events": "Event",
    "scripting.effects": (
        "Close Delay Descriptors EndAfter Gate Jitter OpenGate ReadSlowly Reset SendEof Stall Urgent"
    ),
    "scripting.seeds": "garbage",
    "scripting.framing": "EOF",
    "scripting.frame_formats": (
        "delimited fixed http1 length_prefixed lines netstrings octet_counted resp sans_io until_eof websocket"
    ),
    "scripting.matching": "ANY Hex Text",
    "faults.modifiers": "Append Corrupt Cut Drip Hold Overwrite Prepend Repeat Replace Split Spoof Throttle",
    "scripting.parts": "DATA Part",
    "scripting.rules": "CONNECT HANDSHAKE",
    "scripting.script": "Script",
    "scripting.tls_effects": "Alert Raw StartTLS",
    "server.stream": "StreamTestServer",
    "sweeps": "breaks closes cuts resets splits",
}

#: Of each public name the module that it is in.
HOMES = {name: home for home, names in _NAMES.items() for name in names.split()}


def value_of(name: str) -> Any:
    """Return what a public name stands for; its module is imported if need be."""
    if name == "__all__":
        return sorted(HOMES)
    home = HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__package__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__package__}.{home}"), name)
