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
    "BlockedLoop",
    "Certificate",
    "Checkup",
    "Close",
    "Connection",
    "Corrupt",
    "Cut",
    "DatagramTestServer",
    "DeadlineExceeded",
    "Delay",
    "Descriptors",
    "DialogueError",
    "Disturbing",
    "Drip",
    "EndAfter",
    "EndOfStream",
    "Event",
    "Finding",
    "Gate",
    "HandlerStuck",
    "Hex",
    "Hold",
    "IncompleteRequest",
    "Jitter",
    "Open",
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
    "WrongState",
    "breaks",
    "check_up",
    "closes",
    "cuts",
    "delimited",
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
    from .aio import AsyncConnection as AsyncConnection
    from .aio import AsyncRequest as AsyncRequest
    from .aio import AsyncServer as AsyncServer
    from .captured import Request as Request
    from .certificates import TLS as TLS
    from .certificates import Certificate as Certificate
    from .checkup import Checkup as Checkup
    from .checkup import Finding as Finding
    from .checkup import check_up as check_up
    from .connection import Connection as Connection
    from .datagram_server import DatagramTestServer as DatagramTestServer
    from .disturbing import Disturbing as Disturbing
    from .errors import AddressUnavailable as AddressUnavailable
    from .errors import BlockedLoop as BlockedLoop
    from .errors import DeadlineExceeded as DeadlineExceeded
    from .errors import DialogueError as DialogueError
    from .errors import EndOfStream as EndOfStream
    from .errors import HandlerStuck as HandlerStuck
    from .errors import IncompleteRequest as IncompleteRequest
    from .errors import RecordLimitExceeded as RecordLimitExceeded
    from .errors import ScriptMismatch as ScriptMismatch
    from .errors import ServerFailed as ServerFailed
    from .errors import ServerStopping as ServerStopping
    from .errors import SockServerError as SockServerError
    from .errors import SockServerWarning as SockServerWarning
    from .errors import UnexpectedRequest as UnexpectedRequest
    from .errors import UnmetExpectation as UnmetExpectation
    from .errors import UnsupportedFault as UnsupportedFault
    from .errors import WrongState as WrongState
    from .factory import SockServer as SockServer
    from .recording.events import Event as Event
    from .scripting.acts import Close as Close
    from .scripting.acts import Delay as Delay
    from .scripting.acts import Descriptors as Descriptors
    from .scripting.acts import EndAfter as EndAfter
    from .scripting.acts import Gate as Gate
    from .scripting.acts import Jitter as Jitter
    from .scripting.acts import Open as Open
    from .scripting.acts import ReadSlowly as ReadSlowly
    from .scripting.acts import Reset as Reset
    from .scripting.acts import SendEof as SendEof
    from .scripting.acts import Stall as Stall
    from .scripting.acts import Urgent as Urgent
    from .scripting.chance import garbage as garbage
    from .scripting.framing import EOF as EOF
    from .scripting.framings import delimited as delimited
    from .scripting.framings import fixed as fixed
    from .scripting.framings import http1 as http1
    from .scripting.framings import length_prefixed as length_prefixed
    from .scripting.framings import lines as lines
    from .scripting.framings import netstrings as netstrings
    from .scripting.framings import octet_counted as octet_counted
    from .scripting.framings import resp as resp
    from .scripting.framings import sans_io as sans_io
    from .scripting.framings import until_eof as until_eof
    from .scripting.framings import websocket as websocket
    from .scripting.matching import ANY as ANY
    from .scripting.matching import Hex as Hex
    from .scripting.matching import Text as Text
    from .scripting.modifiers import Append as Append
    from .scripting.modifiers import Corrupt as Corrupt
    from .scripting.modifiers import Cut as Cut
    from .scripting.modifiers import Drip as Drip
    from .scripting.modifiers import Hold as Hold
    from .scripting.modifiers import Overwrite as Overwrite
    from .scripting.modifiers import Prepend as Prepend
    from .scripting.modifiers import Repeat as Repeat
    from .scripting.modifiers import Replace as Replace
    from .scripting.modifiers import Split as Split
    from .scripting.modifiers import Spoof as Spoof
    from .scripting.modifiers import Throttle as Throttle
    from .scripting.parts import DATA as DATA
    from .scripting.parts import Part as Part
    from .scripting.rules import CONNECT as CONNECT
    from .scripting.rules import HANDSHAKE as HANDSHAKE
    from .scripting.script import Script as Script
    from .scripting.tls_acts import Alert as Alert
    from .scripting.tls_acts import Raw as Raw
    from .scripting.tls_acts import StartTLS as StartTLS
    from .stream_server import StreamTestServer as StreamTestServer
    from .sweeps import breaks as breaks
    from .sweeps import closes as closes
    from .sweeps import cuts as cuts
    from .sweeps import resets as resets
    from .sweeps import splits as splits
else:
    _NAMES = {
        "aio": "AsyncConnection AsyncRequest AsyncServer",
        "captured": "Request",
        "certificates": "Certificate TLS",
        "checkup": "Checkup Finding check_up",
        "connection": "Connection",
        "datagram_server": "DatagramTestServer",
        "disturbing": "Disturbing",
        "errors": (
            "AddressUnavailable BlockedLoop DeadlineExceeded DialogueError EndOfStream HandlerStuck "
            "IncompleteRequest RecordLimitExceeded ScriptMismatch ServerFailed ServerStopping "
            "SockServerError SockServerWarning UnexpectedRequest UnmetExpectation UnsupportedFault WrongState"
        ),
        "factory": "SockServer",
        "recording.events": "Event",
        "scripting.acts": "Close Delay Descriptors EndAfter Gate Jitter Open ReadSlowly Reset SendEof Stall Urgent",
        "scripting.chance": "garbage",
        "scripting.framing": "EOF",
        "scripting.framings": (
            "delimited fixed http1 length_prefixed lines netstrings octet_counted resp sans_io until_eof websocket"
        ),
        "scripting.matching": "ANY Hex Text",
        "scripting.modifiers": "Append Corrupt Cut Drip Hold Overwrite Prepend Repeat Replace Split Spoof Throttle",
        "scripting.parts": "DATA Part",
        "scripting.rules": "CONNECT HANDSHAKE",
        "scripting.script": "Script",
        "scripting.tls_acts": "Alert Raw StartTLS",
        "stream_server": "StreamTestServer",
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
