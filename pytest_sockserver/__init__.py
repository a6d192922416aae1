"""Real socket servers for tests of network clients: the public names, nothing else.

They are imported when first used: every run of pytest with the plugin installed imports this module.
"""

from __future__ import annotations

__version__ = "0.1.0"

__all__ = [
    "ANY",
    "AddressUnavailable",
    "AsyncConnection",
    "AsyncServer",
    "BlockedLoop",
    "Connection",
    "DatagramTestServer",
    "DeadlineExceeded",
    "EndOfStream",
    "Event",
    "HandlerStuck",
    "IncompleteRequest",
    "RecordLimitExceeded",
    "Request",
    "ScriptMismatch",
    "ServerFailed",
    "ServerStopping",
    "SockServer",
    "SockServerError",
    "StreamTestServer",
    "UnexpectedRequest",
    "UnmetExpectation",
    "WrongState",
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
    from .errors import WrongState as WrongState
    from .factory import SockServer as SockServer
    from .recording.events import Event as Event
    from .scripting.matching import ANY as ANY
    from .stream_server import StreamTestServer as StreamTestServer
else:
    _HOMES = {
        "AsyncConnection": "aio",
        "AsyncServer": "aio",
        "Request": "captured",
        "Connection": "connection",
        "DatagramTestServer": "datagram_server",
        "SockServer": "factory",
        "Event": "recording.events",
        "ANY": "scripting.matching",
        "StreamTestServer": "stream_server",
    } | dict.fromkeys(
        (
            "AddressUnavailable",
            "BlockedLoop",
            "DeadlineExceeded",
            "EndOfStream",
            "HandlerStuck",
            "IncompleteRequest",
            "RecordLimitExceeded",
            "ScriptMismatch",
            "ServerFailed",
            "ServerStopping",
            "SockServerError",
            "UnexpectedRequest",
            "UnmetExpectation",
            "WrongState",
        ),
        "errors",
    )

    def __getattr__(name):
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
        return value

    def __dir__():
        return sorted({*globals(), *_HOMES})
