"""Real socket servers for tests of network clients: the public names, nothing else.

They are imported when first used: every run of pytest with the plugin installed imports this module, and pays for each
line of it.  Type checkers read ``__init__.pyi``, which has the same names.
"""

import sys

__version__ = "0.1.0"

# What these had before any test could replace it, as far as they are loaded: ``bound`` takes its pick.  In a dict,
# where freezegun looks for no clock.
_as_loaded = {
    name: vars(sys.modules[name]).copy()
    for name in ("time", "threading", "_thread", "select", "selectors", "posix", "nt")
    if name in sys.modules
}
if "threading" in _as_loaded:
    _as_loaded["Thread"] = dict(getattr(sys.modules["threading"].Thread, "__dict__", {}))


# The public names, by the modules that they are in.
_PUBLIC = {
    "connection.connection": "Connection",
    "connection.request": "Request",
    "errors.exceptions": (
        "AddressUnavailable BlockingCallInCoroutine DeadlineExceeded DialogueError EndOfStream HandlerStuck "
        "IncompleteRequest InvalidState RecordLimitExceeded ScriptMismatch ServerFailed ServerStopping "
        "SockServerError SockServerWarning UnexpectedRequest UnmetExpectation UnsupportedFault"
    ),
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
    "server.fault_matrix": "fault_matrix",
    "server.stream": "StreamTestServer",
    "transport.certificates": "Certificate TLS",
}
# What ``from pytest_sockserver import ...`` asks for as names, before it imports them.
_MODULES = ("bound", "faults", "originals", "pytest_plugin", "socketserver", "strategies", "sweeps")


def _home_of(name):
    return next((home for home, names in _PUBLIC.items() if name in names.split()), None)


def __getattr__(name):
    from importlib import import_module

    if name == "__all__":
        return sorted(" ".join(_PUBLIC.values()).split())
    home = _home_of(name)
    if home is None:
        if not name.startswith("_") and name not in _MODULES:
            from .errors.renamed import refuse_old_import

            refuse_old_import(name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return value


def __dir__():
    return sorted({*globals(), *__getattr__("__all__"), "__all__"})
