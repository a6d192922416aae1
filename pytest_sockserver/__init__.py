"""Real socket servers for tests of network clients: the public names, nothing else.

They are imported when first used: every run of pytest with the plugin installed imports this module.
"""

from __future__ import annotations

__version__ = "0.1.0"

__all__ = [
    "ANY",
    "CONNECT",
    "EOF",
    "AddressUnavailable",
    "AsyncConnection",
    "AsyncServer",
    "BlockedLoop",
    "Close",
    "Connection",
    "Cut",
    "DatagramTestServer",
    "DeadlineExceeded",
    "Delay",
    "DialogueError",
    "Drip",
    "EndOfStream",
    "Event",
    "Gate",
    "HandlerStuck",
    "Hex",
    "IncompleteRequest",
    "RecordLimitExceeded",
    "Request",
    "Reset",
    "Script",
    "ScriptMismatch",
    "SendEof",
    "ServerFailed",
    "ServerStopping",
    "SockServer",
    "SockServerError",
    "Stall",
    "StartTLS",
    "StreamTestServer",
    "Text",
    "UnexpectedRequest",
    "UnmetExpectation",
    "UnsupportedFault",
    "WrongState",
    "delimited",
    "fixed",
    "http1",
    "length_prefixed",
    "lines",
    "netstrings",
    "octet_counted",
    "resp",
    "sans_io",
    "until_eof",
    "websocket",
]

TYPE_CHECKING = False  # what type checkers take for typing.TYPE_CHECKING, without importing typing
if TYPE_CHECKING:
    from .aio import AsyncConnection as AsyncConnection
    from .aio import AsyncServer as AsyncServer
    from .captured import Request as Request
    from .connection import Connection as Connection
    from .datagram_server import DatagramTestServer as DatagramTestServer
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
    from .errors import UnexpectedRequest as UnexpectedRequest
    from .errors import UnmetExpectation as UnmetExpectation
    from .errors import UnsupportedFault as UnsupportedFault
    from .errors import WrongState as WrongState
    from .factory import SockServer as SockServer
    from .recording.events import Event as Event
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
    from .scripting.parts import Close as Close
    from .scripting.parts import Cut as Cut
    from .scripting.parts import Delay as Delay
    from .scripting.parts import Drip as Drip
    from .scripting.parts import Gate as Gate
    from .scripting.parts import Reset as Reset
    from .scripting.parts import SendEof as SendEof
    from .scripting.parts import Stall as Stall
    from .scripting.parts import StartTLS as StartTLS
    from .scripting.rules import CONNECT as CONNECT
    from .scripting.script import Script as Script
    from .stream_server import StreamTestServer as StreamTestServer
else:
    _NAMES = {
        "aio": "AsyncConnection AsyncServer",
        "captured": "Request",
        "connection": "Connection",
        "datagram_server": "DatagramTestServer",
        "errors": (
            "AddressUnavailable BlockedLoop DeadlineExceeded DialogueError EndOfStream HandlerStuck "
            "IncompleteRequest RecordLimitExceeded ScriptMismatch ServerFailed ServerStopping "
            "SockServerError UnexpectedRequest UnmetExpectation UnsupportedFault WrongState"
        ),
        "factory": "SockServer",
        "recording.events": "Event",
        "scripting.framing": "EOF",
        "scripting.framings": (
            "delimited fixed http1 length_prefixed lines netstrings octet_counted resp sans_io until_eof websocket"
        ),
        "scripting.matching": "ANY Hex Text",
        "scripting.parts": "Close Cut Delay Drip Gate Reset SendEof Stall StartTLS",
        "scripting.rules": "CONNECT",
        "scripting.script": "Script",
        "stream_server": "StreamTestServer",
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
