"""Real socket servers for tests of network clients: the public names, nothing else.

They are imported when first used: every run of pytest with the plugin installed imports this module.
"""

from __future__ import annotations

__version__ = "0.1.0"

__all__ = [
    "ANY",
    "CONNECT",
    "DATA",
    "EOF",
    "HANDSHAKE",
    "TLS",
    "AddressUnavailable",
    "Alert",
    "Append",
    "AsyncConnection",
    "AsyncRequest",
    "AsyncServer",
    "BlockingCallInCoroutine",
    "Certificate",
    "Close",
    "Connection",
    "Corrupt",
    "Cut",
    "DatagramTestServer",
    "DeadlineExceeded",
    "Delay",
    "Descriptors",
    "DialogueError",
    "Drip",
    "EndAfter",
    "EndOfStream",
    "Event",
    "FaultMatrix",
    "FaultResult",
    "Gate",
    "HandlerStuck",
    "Hex",
    "Hold",
    "IncompleteRequest",
    "Injection",
    "InvalidState",
    "Jitter",
    "OpenGate",
    "Overwrite",
    "Part",
    "Prepend",
    "Raw",
    "ReadSlowly",
    "RecordLimitExceeded",
    "Repeat",
    "Replace",
    "Request",
    "Reset",
    "Script",
    "ScriptMismatch",
    "SendEof",
    "ServerFailed",
    "ServerStopping",
    "SockServer",
    "SockServerError",
    "SockServerWarning",
    "Split",
    "Spoof",
    "Stall",
    "StartTLS",
    "StreamTestServer",
    "Text",
    "Throttle",
    "UnexpectedRequest",
    "UnmetExpectation",
    "UnsupportedFault",
    "Urgent",
    "breaks",
    "closes",
    "cuts",
    "delimited",
    "fault_matrix",
    "fixed",
    "garbage",
    "http1",
    "length_prefixed",
    "lines",
    "netstrings",
    "octet_counted",
    "resets",
    "resp",
    "sans_io",
    "splits",
    "until_eof",
    "websocket",
]

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
    from .faults.active import Injection as Injection
    from .faults.matrix import FaultMatrix as FaultMatrix
    from .faults.matrix import FaultResult as FaultResult
    from .faults.matrix import fault_matrix as fault_matrix
    from .faults.modifiers import Append as Append
    from .faults.modifiers import Corrupt as Corrupt
    from .faults.modifiers import Cut as Cut
    from .faults.modifiers import Drip as Drip
    from .faults.modifiers import Hold as Hold
    from .faults.modifiers import Overwrite as Overwrite
    from .faults.modifiers import Prepend as Prepend
    from .faults.modifiers import Repeat as Repeat
    from .faults.modifiers import Replace as Replace
    from .faults.modifiers import Split as Split
    from .faults.modifiers import Spoof as Spoof
    from .faults.modifiers import Throttle as Throttle
    from .recording.events import Event as Event
    from .scripting.effects import Close as Close
    from .scripting.effects import Delay as Delay
    from .scripting.effects import Descriptors as Descriptors
    from .scripting.effects import EndAfter as EndAfter
    from .scripting.effects import Gate as Gate
    from .scripting.effects import Jitter as Jitter
    from .scripting.effects import OpenGate as OpenGate
    from .scripting.effects import ReadSlowly as ReadSlowly
    from .scripting.effects import Reset as Reset
    from .scripting.effects import SendEof as SendEof
    from .scripting.effects import Stall as Stall
    from .scripting.effects import Urgent as Urgent
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
    from .scripting.seeds import garbage as garbage
    from .scripting.tls_effects import Alert as Alert
    from .scripting.tls_effects import Raw as Raw
    from .scripting.tls_effects import StartTLS as StartTLS
    from .server.aio import AsyncConnection as AsyncConnection
    from .server.aio import AsyncRequest as AsyncRequest
    from .server.aio import AsyncServer as AsyncServer
    from .server.datagram import DatagramTestServer as DatagramTestServer
    from .server.factory import SockServer as SockServer
    from .server.stream import StreamTestServer as StreamTestServer
    from .sweeps import breaks as breaks
    from .sweeps import closes as closes
    from .sweeps import cuts as cuts
    from .sweeps import resets as resets
    from .sweeps import splits as splits
    from .transport.certificates import TLS as TLS
    from .transport.certificates import Certificate as Certificate
else:
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
    _HOMES = {name: home for home, names in _NAMES.items() for name in names.split()}

    def __getattr__(name):
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
        return value

    def __dir__():
        return sorted({*globals(), *_HOMES})
