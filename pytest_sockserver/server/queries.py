"""What can be waited for: each question about a server or a connection, ready to be asked.

A question is asked under the recorder's lock, at each change, by a thread or by a coroutine; see
``waits``.  It takes something (``accept``, ``next_request``) in the very moment in which it is answered.

A predicate is called without the lock, once for each request, in the thread or the coroutine that waits.
``next_request`` then takes what it has chosen only if nobody else has taken it meanwhile; else it goes on to the next.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from ..connection.deadline import Deadline
from ..connection.probes import has_left_in_silence, may_be_probe
from ..connection.queries import PENDING, Query, Undecided, failed_early
from ..connection.request import Request, with_match
from ..errors.exceptions import DeadlineExceeded, InvalidState, UnexpectedRequest, UnmetExpectation
from ..errors.location import hide_frame
from ..errors.messages import format_seconds, with_conversation
from ..recording.events import RECEIVED
from ..recording.failures import Expected, said_shortly, text_of
from ..scripting.arguments import LONGEST_WAIT, checked_index, checked_literal, checked_seconds, checked_timeout
from ..scripting.matching import HexMatch, Match, checked_match, described, matches, shortened

if TYPE_CHECKING:
    from ..connection.conversation import Conversation
    from .base import BaseTestServer
    from .stream import StreamTestServer

__tracebackhide__ = hide_frame


#: Seconds.  For a wait that ends by itself.
_FOR_EVER = LONGEST_WAIT


def request(server: BaseTestServer, match: Match, count: int, timeout: float | None) -> Query[Request]:
    """Which is the ``count``-th request that matches?"""
    match = checked_match(match)
    checked_index(count, "wait_for() expected a count of at least 1", least=1)
    recorder, matched = server._recorder, _Matched(match)
    requests, seen, found = recorder.requests, 0, 0

    def ask() -> Any:
        nonlocal requests, seen, found
        recorder.check_complete("requests")
        if requests is not recorder.requests:
            requests, seen, found = recorder.requests, 0, 0  # cleared meanwhile
        end = len(requests)
        return Undecided(partial(decide, end)) if seen < end else PENDING

    def decide(end: int) -> Any:
        nonlocal seen, found
        while seen < end:
            seen += 1
            answer = matched(requests[seen - 1])
            if answer is not None:
                found += 1
                if found == count:
                    return answer
        return PENDING

    def late(deadline: Deadline) -> Any:
        server._refuse_unframed("wait_for")
        times = "" if count == 1 else f" {count} times ({found} so far)"
        text = f"wait_for() waited {deadline} for {described(match)}{times}"
        raise _late(server, text + _latest(requests))

    return _wait(server, "wait_for", ask, timeout, late)


def untaken_request(server: BaseTestServer, match: Match, timeout: float | None) -> Query[Request]:
    """Which is the earliest request that matches and was not taken?  Answering takes it."""
    match = checked_match(match)
    recorder, matched = server._recorder, _Matched(match)
    requests, seen = recorder.requests, 0

    def ask() -> Any:
        nonlocal requests, seen
        recorder.check_complete("requests")
        if requests is not recorder.requests:
            requests, seen = recorder.requests, 0  # cleared meanwhile, or some of them forgotten
        seen, end = max(seen, recorder.first_untaken), len(requests)
        return Undecided(partial(decide, end)) if seen < end else PENDING

    def decide(end: int) -> Any:
        nonlocal seen
        while seen < end:
            seen += 1
            each = requests[seen - 1]
            if not each.is_taken and (answer := matched(each)) is not None and recorder.take(each):
                return answer
        return PENDING

    def late(deadline: Deadline) -> Any:
        server._refuse_unframed("next_request")
        raise _late(server, f"next_request() waited {deadline} for {described(match)}")

    return _wait(server, "next_request", ask, timeout, late)


def quiet(server: BaseTestServer, seconds: float) -> Query[None]:
    """Does nothing arrive for so long from now on?"""
    checked_seconds(seconds, "assert_no_traffic() expected seconds above 0")
    recorder = server._recorder
    before, began = recorder.arrivals, recorder.elapsed()

    def ask() -> Any:
        if recorder.arrivals == before:
            return PENDING
        return Undecided(partial(faulty, recorder.elapsed() - began))

    def faulty(after: float) -> Any:
        text = f"expected nothing for {format_seconds(seconds)}\n  got something after {after:.3f} s"
        raise with_conversation(UnexpectedRequest, server.name, text, server._said())

    def late(deadline: Deadline) -> None:
        """Nothing has come: that is the answer."""

    return _wait(server, "assert_no_traffic", ask, seconds, late, given_up=_failed)


def failure(server: BaseTestServer, expected: Expected) -> Query[None]:
    """Has the failure come that ``raises`` expects?  Other failures do not end this wait: they are told by others."""

    def ask() -> Any:
        return None if expected.failure is not None else PENDING

    def late(deadline: Deadline) -> None:
        other = server._failures.pending()
        came = "it did not" if other is None else f"it raised {said_shortly(other.error)}"
        text = f"expected the server's side to raise {expected} within {deadline}\n  {came}"
        raise with_conversation(UnmetExpectation, server.name, text, server._said())

    return _wait(server, "raises", ask, None, late, given_up=lambda server, verb: None, checked=False)


def connection(server: StreamTestServer, index: int, timeout: float | None) -> Query[Conversation]:
    """Which is the connection of this index?"""
    checked_index(index, "wait_connection() expected an index from 0 on", least=0)

    def ask() -> Any:
        return server._connections[index] if index < len(server._connections) else PENDING

    def late(deadline: Deadline) -> Any:
        have = len(server._connections)
        text = f"wait_connection() waited {deadline} for connection {index}: there are {have}"
        raise _late(server, text)

    return _wait(server, "wait_connection", ask, timeout, late)


def untaken_connection(server: StreamTestServer, timeout: float | None) -> Query[Conversation]:
    """Which is the earliest connection that nobody drives?  Answering takes it.

    Raises:
        InvalidState: A handler takes the connections.
    """
    declared = server._declarations.described()
    if declared is not None:
        raise InvalidState(
            f"accept() is for servers with nothing declared: {declared} takes the connections of {server.name}"
        )

    if server._injections.received:
        raise InvalidState(
            f"accept() is for servers with nothing declared: {server.name} reads by itself what inject() is to change"
        )
    before = list(server._refused)

    def ask() -> Any:
        while server._untaken:
            earliest = server._untaken.pop(0)
            if may_be_probe(earliest):
                server._untaken.insert(0, earliest)
                return PENDING
            if not server._probes or not has_left_in_silence(earliest):
                return earliest
        refused = [each for each in server._refused if each not in before]
        if not refused and server._clients and all(client.done() for client in server._clients):
            refused = before  # and nobody else is on his way
        if refused:
            server._refused.clear()
            return Undecided(partial(refuse, refused[0]))  # whose text is made without the lock
        return PENDING

    def refuse(connection: Conversation) -> Any:
        raise failed_early("accept", connection.stream.tls_error())

    def again() -> float | None:
        return may_be_probe(server._untaken[0]) if server._untaken else None

    def late(deadline: Deadline) -> Any:
        with server._recorder.lock:
            if server._untaken:  # it may be a probe still, and the time is over
                return server._untaken.pop(0)
        failed = f", and the latest handshake failed: {before[-1].stream.tls_error()}" if before else ""
        raise _late(server, f"accept() waited {deadline}, and nobody connected{failed}")

    return _wait(server, "accept", ask, timeout, late, again=again)


def closed(connection: Conversation, timeout: float | None) -> Query[None]:
    """Has either side ended the connection?"""

    def ask() -> Any:
        tape = connection.tape
        return None if tape.ended_by == "client" or tape.gone else PENDING

    def late(deadline: Deadline) -> None:
        raise connection.error(DeadlineExceeded, f"wait_closed() waited {deadline}: it is still open")

    return _wait(connection.server, "wait_closed", ask, timeout, late)


def done(connection: Conversation) -> Query[None]:
    """Has the thread that answers a connection come to its end?  There is no deadline for that: a stop ends it."""

    def ask() -> Any:
        return None if connection.done else PENDING

    return _wait(connection.server, "rules", ask, _FOR_EVER, late=lambda deadline: None)


def received(connection: Conversation, data: bytes, timeout: float | None) -> Query[None]:
    """Does ``data`` stand in what was received?"""
    wanted, seen, start = checked_literal(data, "wait_received"), 0, 0
    tape, kept = connection.tape, bytearray()

    def ask() -> Any:
        nonlocal seen, start  # each byte is looked at once, however often this is asked
        tape.recorder.check_complete("what was received")
        for at in range(seen, len(tape.events)):
            if tape.events[at][2] == RECEIVED:
                kept.extend(tape.events[at][3])
        seen = len(tape.events)
        if kept.find(wanted, start) >= 0:
            return None
        start = max(0, len(kept) - len(wanted) + 1)
        if start > 65536:  # what was searched is dropped now and then: each time would copy the rest each time
            del kept[:start]
            start = 0
        return PENDING

    def late(deadline: Deadline) -> None:
        text = f"wait_received() waited {deadline} for {shortened(wanted)}"
        raise connection.error(DeadlineExceeded, text)

    return _wait(connection.server, "wait_received", ask, timeout, late)


class _Matched:
    """Tells what a match makes of a request, ``None`` if it does not match; asked once for each.  Without a lock.

    What was answered is kept: where the requests of a connection are forgotten, those that stay are looked at again.
    """

    __slots__ = ("_known", "_match")

    def __init__(self, match: Match) -> None:
        self._match = match
        self._known: dict[int, tuple[Request, Request | None]] = {}  # by id(), which is the request's while it is here

    def __call__(self, each: Request) -> Request | None:
        known = self._known.get(id(each))
        if known is not None:
            return known[1]
        found = matches(self._match, each, unsure=not each.is_sure)
        answer = None
        if found:
            each.is_sure = True
            answer = with_match(each, found) if isinstance(found, (re.Match, HexMatch)) else each
        self._known[id(each)] = each, answer
        return answer


def _latest(requests: list[Request]) -> str:
    """Return what did come, as bytes: a conversation does not show line endings, and they count."""
    if not requests:
        return ""
    these = "the request" if len(requests) == 1 else f"the last of {len(requests)} requests"
    return f"\n  {these} so far: {shortened(requests[-1])}"


def _wait(
    server: BaseTestServer,
    verb: str,
    ask: Callable[[], Any],
    timeout: float | None,
    late: Callable[[Deadline], Any],
    *,
    given_up: Callable[[BaseTestServer, str], Callable[[], BaseException] | None] | None = None,
    again: Callable[[], float | None] | None = None,
    checked: bool = True,
) -> Query[Any]:
    if checked:
        server._check_declarations()
    ends_early = given_up or _failed_or_over
    return Query(
        server._recorder,
        verb,
        ask,
        seconds=checked_timeout(timeout) or server.timeout,
        late=late,
        given_up=lambda verb: ends_early(server, verb),
        again=again,
    )


def _failed(server: BaseTestServer, verb: str) -> Callable[[], BaseException] | None:
    pending = server._failures.pending()
    return partial(failed_early, verb, pending.error) if pending is not None else None


def _failed_or_over(server: BaseTestServer, verb: str) -> Callable[[], BaseException] | None:
    cause = _failed(server, verb)
    if cause is None and (server._over or server._state in ("new", "stopped")):
        state = "stopped" if server._over else server._state
        return partial(InvalidState, f"{verb}() in state {state!r}: nothing more will come; expected 'started'")
    return cause


def _late(server: BaseTestServer, text: str) -> DeadlineExceeded:
    """Return the error about a wait whose time is over; a client that has failed meanwhile is the likely reason."""
    for client in server._clients:
        error = client.failure()
        if error is not None:
            text += f"\n  in_thread({client.name}) has raised {type(error).__name__}: {text_of(error)}"
    return with_conversation(DeadlineExceeded, server.name, text, server._said())
