"""A server that is not there for a while: it refuses, is a black hole, restarts; and how it comes back.

Each verb holds the life cycle, ends the loop, lets the listener do what it can, and notes the state.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from ..connection.deadline import Deadline
from ..errors.exceptions import InvalidState, UnsupportedFault
from ..errors.location import hide_frame
from ..transport.listener import FILLERS
from . import life_cycle

if TYPE_CHECKING:
    from .datagram_service import DatagramService
    from .service import Service
    from .stream_service import StreamService

__tracebackhide__ = hide_frame


#: The states in which nobody can connect, and by which verb of ours it came to that.
_SHUT: Final = {
    "refusing": "refuse",
    "a black hole": "blackhole",
    "overflowing": "overflow",
    "unlinked": "unlink",
    "forbidden": "forbid",
}


class Outage(contextlib.AbstractContextManager[None]):
    """What ``refuse()`` and its like return: leaving the ``with`` block listens again."""

    def __init__(self, service: Service, listen: Callable[[], object], state: str = "refusing") -> None:
        self._service, self._listen, self._state = service, listen, state

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        if self._service.context.state == self._state:
            self._listen()


def refuse(service: StreamService, listen: Callable[[], object]) -> Outage:
    """Refuse connections from now on."""

    def shut() -> None:
        life_cycle.end_accepting(service, Deadline(service.stop_timeout))
        service.listener.refuse()

    return _shut(service, "refusing", shut, listen)


def blackhole(service: StreamService, listen: Callable[[], object]) -> Outage:
    """Let connections hang from now on."""
    service.listener.refuse_black_hole()
    return _shut(service, "a black hole", lambda: _fill_queue(service), listen)


def overflow(service: StreamService, listen: Callable[[], object]) -> Outage:
    """Have the queue of connections full."""
    service.listener.refuse_overflow()
    return _shut(service, "overflowing", lambda: _fill_queue(service), listen)


def unlink(service: StreamService, listen: Callable[[], object]) -> Outage:
    """Remove the path."""
    service.listener.refuse_pathless("unlink")
    return _shut(service, "unlinked", service.listener.unlink, listen)


def forbid(service: StreamService, listen: Callable[[], object]) -> Outage:
    """Take the permissions off the path."""
    service.listener.refuse_forbidding()
    return _shut(service, "forbidden", service.listener.forbid, listen)


def listen(service: StreamService) -> None:
    """Accept again."""
    with life_cycle.one_at_a_time(service):
        _check_running(service, "listen", f"{_any_of(_SHUT)} or 'started'")
        life_cycle.listen_again(service)


def restart(service: StreamService, disconnect: Callable[[], object]) -> None:
    """End all connections and listen anew on the same address."""
    with life_cycle.one_at_a_time(service):
        _check_running(service, "restart", "'started'")
        if service.context.state != "started":
            disconnect()
            life_cycle.listen_again(service)
            return
        life_cycle.end_accepting(service, Deadline(service.stop_timeout))
        disconnect()  # who comes back at once finds the queue open, and waits in it
        assert service.connections.framework is not None
        life_cycle.serve_streams(service, service.connections.framework.socket)


def _check_running(service: StreamService, verb: str, expected: str) -> None:
    state = service.context.state
    if state != "started" and state not in _SHUT:
        raise InvalidState(f"cannot {verb}() in state {state!r}: expected {expected}")


def _shut(service: StreamService, state: str, shut: Callable[[], object], listen: Callable[[], object]) -> Outage:
    context = service.context
    with life_cycle.one_at_a_time(service):
        if context.state == "started":
            shut()
            context.state = state
        elif context.state != state:
            also = f", or listen() first: it is {context.state}" if context.state in _SHUT else ""
            raise InvalidState(f"cannot {_SHUT[state]}() in state {context.state!r}: expected 'started'{also}")
    return Outage(service, listen, state)


def _fill_queue(service: StreamService) -> None:
    """End the accept loop, accept what is queued, and fill the queue with connections of our own."""
    life_cycle.end_accepting(service, Deadline(service.stop_timeout))
    if not service.listener.fill_queue():
        life_cycle.drain_queue(service)
        life_cycle.serve_streams(service, service.listener.listen_again())
        raise UnsupportedFault(f"this kernel's queue of connections takes {FILLERS} and more: use refuse()")


def _any_of(states: Any) -> str:
    return ", ".join(repr(each) for each in states)


# Datagrams


def refuse_datagrams(service: DatagramService, listen: Callable[[], object]) -> Outage:
    """Refuse datagrams from now on."""
    context = service.context
    with life_cycle.one_at_a_time(service):
        if context.state == "started":
            life_cycle.end_receiving(service, Deadline(service.stop_timeout))
            _hold_address(service)
            context.state = "refusing"
        elif context.state != "refusing":
            raise InvalidState(f"cannot refuse() in state {context.state!r}: expected 'started'")
    return Outage(service, listen)


def _hold_address(service: DatagramService) -> None:
    """Keep the port, if it can be kept, on the socket that there is, which no client's datagram reaches any more.

    A connected UDP socket receives from its peer alone, which here is itself; for whoever else sends there is
    nobody (ECONNREFUSED by ICMP), whoever holds a copy of it.  SO_REUSEADDR, by which a new one is bound beside it
    to take its place, is set for that moment alone.
    """
    framework = service.peers.framework
    assert framework is not None
    holder: socket.socket = framework.socket
    if service.published.place is None and os.name == "posix":
        holder.connect(service.published.address)
    else:
        holder.close()


def listen_for_datagrams(service: DatagramService) -> None:
    """Receive again, and answer again."""
    with life_cycle.one_at_a_time(service):
        state = service.context.state
        if state not in ("started", "refusing"):
            raise InvalidState(f"cannot listen() in state {state!r}: expected 'refusing' or 'started'")
        if service.black_hole is not None:
            service.black_hole.end()
        life_cycle.listen_again(service)
