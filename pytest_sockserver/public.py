"""The public names of the package and of ``faults``, and the modules that they are in.

Apart from the package's own module, since every run of pytest with the plugin installed reads that one.  Type checkers
read ``__init__.pyi``, which has the same names.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

_PACKAGE: Final = {
    "connection.connection": "Connection",
    "connection.request": "Request",
    "errors.exceptions": (
        "AddressUnavailable BlockingCallInCoroutine DeadlineExceeded DialogueError EndOfStream "
        "HandlerStuck IncompleteRequest InvalidState RecordLimitExceeded ScriptMismatch "
        "ServerFailed ServerStopping SockServerError SockServerWarning UnexpectedRequest "
        "UnmetExpectation UnsupportedFault"
    ),
    "faults.matrix": "fault_matrix",
    "faults.modifiers": "Cut Drip",
    "recording.events": "Event",
    "scripting.effects": "Close Delay Gate OpenGate Reset SendEof Stall",
    "scripting.frame_formats": (
        "delimited fixed http1 length_prefixed lines netstrings octet_counted resp sans_io until_eof websocket"
    ),
    "scripting.framing": "EOF",
    "scripting.matching": "ANY Hex Text",
    "scripting.parts": "DATA Part",
    "scripting.rules": "CONNECT HANDSHAKE",
    "scripting.script": "Script",
    "scripting.tls_effects": "StartTLS",
    "connection.aio": "AsyncConnection AsyncRequest",
    "server.aio": "AsyncServer",
    "server.datagram": "DatagramTestServer",
    "server.factory": "SockServer",
    "server.stream": "StreamTestServer",
    "transport.certificates": "Certificate TLS",
}

_FAULTS: Final = {
    "faults.active": "Injection",
    "faults.matrix": "FaultMatrix FaultResult",
    "faults.modifiers": "Append Corrupt Hold Overwrite Prepend Repeat Replace Split Spoof Throttle",
    "scripting.effects": "Descriptors EndAfter Jitter ReadSlowly Urgent",
    "scripting.seeds": "garbage",
    "scripting.tls_effects": "Alert Raw",
}

#: The modules that ``from pytest_sockserver import ...`` asks for as names, before it imports them.
_MODULES: Final = ("bound", "faults", "originals", "pytest_plugin", "socketserver", "strategies", "sweeps")

#: Of each public name the module that it is in, by where it is public.
HOMES: Final = {
    module: {name: home for home, names in table.items() for name in names.split()}
    for module, table in ((__package__, _PACKAGE), (f"{__package__}.faults", _FAULTS))
}


def value_of(name: str, module: str = __package__) -> Any:
    """Return what a public name of a module stands for; what defines it is imported if need be.

    Raises:
        ImportError: It is an old name; it says the new one.
        AttributeError: It is none.
    """
    homes = HOMES[module]
    if name == "__all__":
        return sorted(homes)
    home = homes.get(name)
    if home is None:
        if module == __package__ and not name.startswith("_") and name not in _MODULES:
            from .renamed import refuse_old_import

            refuse_old_import(name)
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    return getattr(import_module(f"{__package__}.{home}"), name)


def names_of(module: str = __package__) -> list[str]:
    """Return what a module's ``dir()`` adds to what is loaded."""
    return [*HOMES[module], "__all__"]
