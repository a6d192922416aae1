"""Real socket servers for tests of network clients: the public names, nothing else.

They are imported when first used: every run of pytest with the plugin installed imports this module.  The rarer faults
are in :mod:`pytest_sockserver.faults`, sweeps in :mod:`pytest_sockserver.sweeps`.
"""

from __future__ import annotations

__version__ = "0.1.0"

TYPE_CHECKING = False  # what type checkers take for typing.TYPE_CHECKING, without importing typing
if TYPE_CHECKING:
    from .connection.connection import Connection as Connection
    from .connection.request import Request as Request
    from .errors.exceptions import AddressUnavailable as AddressUnavailable
    from .errors.exceptions import BlockingCallInCoroutine as BlockingCallInCoroutine
    from .errors.exceptions import DeadlineExceeded as DeadlineExceeded
    from .errors.exceptions import DialogueError as DialogueError
    from .errors.exceptions import EndOfStream as EndOfStream
    from .errors.exceptions import HandlerStuck as HandlerStuck
    from .errors.exceptions import IncompleteRequest as IncompleteRequest
    from .errors.exceptions import InvalidState as InvalidState
    from .errors.exceptions import RecordLimitExceeded as RecordLimitExceeded
    from .errors.exceptions import ScriptMismatch as ScriptMismatch
    from .errors.exceptions import ServerFailed as ServerFailed
    from .errors.exceptions import ServerStopping as ServerStopping
    from .errors.exceptions import SockServerError as SockServerError
    from .errors.exceptions import SockServerWarning as SockServerWarning
    from .errors.exceptions import UnexpectedRequest as UnexpectedRequest
    from .errors.exceptions import UnmetExpectation as UnmetExpectation
    from .errors.exceptions import UnsupportedFault as UnsupportedFault
    from .faults.matrix import fault_matrix as fault_matrix
    from .faults.modifiers import Cut as Cut
    from .faults.modifiers import Drip as Drip
    from .recording.events import Event as Event
    from .scripting.effects import Close as Close
    from .scripting.effects import Delay as Delay
    from .scripting.effects import Gate as Gate
    from .scripting.effects import OpenGate as OpenGate
    from .scripting.effects import Reset as Reset
    from .scripting.effects import SendEof as SendEof
    from .scripting.effects import Stall as Stall
    from .scripting.frame_formats import delimited as delimited
    from .scripting.frame_formats import fixed as fixed
    from .scripting.frame_formats import http1 as http1
    from .scripting.frame_formats import length_prefixed as length_prefixed
    from .scripting.frame_formats import lines as lines
    from .scripting.frame_formats import netstrings as netstrings
    from .scripting.frame_formats import octet_counted as octet_counted
    from .scripting.frame_formats import resp as resp
    from .scripting.frame_formats import sans_io as sans_io
    from .scripting.frame_formats import until_eof as until_eof
    from .scripting.frame_formats import websocket as websocket
    from .scripting.framing import EOF as EOF
    from .scripting.matching import ANY as ANY
    from .scripting.matching import Hex as Hex
    from .scripting.matching import Text as Text
    from .scripting.parts import DATA as DATA
    from .scripting.parts import Part as Part
    from .scripting.rules import CONNECT as CONNECT
    from .scripting.rules import HANDSHAKE as HANDSHAKE
    from .scripting.script import Script as Script
    from .scripting.tls_effects import StartTLS as StartTLS
    from .server.aio import AsyncConnection as AsyncConnection
    from .server.aio import AsyncRequest as AsyncRequest
    from .server.aio import AsyncServer as AsyncServer
    from .server.datagram import DatagramTestServer as DatagramTestServer
    from .server.factory import SockServer as SockServer
    from .server.stream import StreamTestServer as StreamTestServer
    from .transport.certificates import TLS as TLS
    from .transport.certificates import Certificate as Certificate
else:

    def _lazily(namespace, table):
        """Return ``__all__``, ``__getattr__`` and ``__dir__`` of a module whose names are imported when first used.

        Args:
            namespace: The module's ``globals()``.
            table: Its public names, by the module of this package that defines them.
        """
        homes = {name: home for home, names in table.items() for name in names.split()}

        def __getattr__(name):
            home = homes.get(name)
            if home is None:
                if namespace["__name__"] == __name__ and not name.startswith("_") and name not in _MODULES:
                    from .renamed import refuse_old_import

                    refuse_old_import(name)
                raise AttributeError(f"module {namespace['__name__']!r} has no attribute {name!r}")
            from importlib import import_module

            value = namespace[name] = getattr(import_module(f"{__name__}.{home}"), name)
            return value

        return sorted(homes), __getattr__, lambda: sorted({*namespace, *homes})

    # ``from pytest_sockserver import sweeps`` asks for the name before it imports the module.
    _MODULES = ("bound", "faults", "originals", "pytest_plugin", "socketserver", "strategies", "sweeps")

    __all__, __getattr__, __dir__ = _lazily(
        globals(),
        {
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
            "server.aio": "AsyncConnection AsyncRequest AsyncServer",
            "server.datagram": "DatagramTestServer",
            "server.factory": "SockServer",
            "server.stream": "StreamTestServer",
            "transport.certificates": "Certificate TLS",
        },
    )
