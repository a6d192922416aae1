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
from ..connection.queries import PENDING, Query, Undecided, failed, failed_early, failed_or_over
from ..connection.request import Request, with_match
from ..errors.exceptions import DeadlineExceeded, InvalidState, UnexpectedRequest, UnmetExpectation
from ..errors.location import hide_frame
from ..errors.messages import format_seconds, with_conversation
from ..recording.failures import Expected, said_shortly, text_of
from ..scripting.arguments import checked_index, checked_seconds, checked_timeout
from ..scripting.matching import HexMatch, Match, checked_match, described, matches, shortened

if TYPE_CHECKING:
    from ..connection.context import Context
    from ..connection.conversation import Conversation
    from .service import Service
    from .stream_service import StreamService

__tracebackhide__ = hide_frame

# A question has up to three functions, and where each runs is the rule of this file:
#
# - `ask` runs under the recorder's lock, at each change.  It only looks at lists and indexes, and for accept() at a
#   socket.
# - `decide` runs without a lock, in the thread or the coroutine that waits, and may call the user's predicate.
# - `late` runs without a lock when the time is over.  It raises, or returns what is accepted as an answer after all.
#
# `decide` walks through `recorder.requests` without the lock.  That is sound since the list grows only at its end or is
# replaced as a whole.  `ask` notices a replaced list by identity, and begins to count anew.
#
# What takes something does so in one step under the lock, and relies on nothing it saw before: `recorder.take()` tells
# whether the request is still there, and `untaken.pop()` is in the very `ask` that looks.
#
# The variables of a question belong to one waiter.  They have no lock, and a question is not asked by two.
#
# Not done: a predicate is not called again for a request that it has judged, though its answer might be another by now.


def request(service: Service, match: Match, count: int, timeout: float | None) -> Query[Request]:
    """Which is the ``count``-th request that matches?"""
    match = checked_match(match)
    checked_index(count, "wait_for() expected a count of at least 1", least=1)
    recorder, matched = service.context.recorder, _Matched(match)
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
        service.traffic.refuse_unframed("wait_for")
        times = "" if count == 1 else f" {count} times ({found} so far)"
        text = f"wait_for() waited {deadline} for {described(match)}{times}"
        raise _late(service, text + _latest(requests))

    return _wait(service, "wait_for", ask, timeout, late)


def untaken_request(service: Service, match: Match, timeout: float | None) -> Query[Request]:
    """Which is the earliest request that matches and was not taken?  Answering takes it."""
    match = checked_match(match)
    recorder, matched = service.context.recorder, _Matched(match)
    requests, seen = recorder.requests, 0

    def ask() -> Any:
        nonlocal requests, seen
        recorder.check_complete("requests")
        if requests is not recorder.requests:
            requests, seen = recorder.requests, 0  # cleared meanwhile, or some of them forgotten
        # Those before are taken for good: a long record is not walked through again by each new wait.
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
        service.traffic.refuse_unframed("next_request")
        raise _late(service, f"next_request() waited {deadline} for {described(match)}")

    return _wait(service, "next_request", ask, timeout, late)


def quiet(service: Service, seconds: float) -> Query[None]:
    """Does nothing arrive for so long from now on?"""
    checked_seconds(seconds, "assert_no_traffic() expected seconds above 0")
    recorder = service.context.recorder
    before, began = recorder.arrivals, recorder.elapsed()

    def ask() -> Any:
        if recorder.arrivals == before:
            return PENDING
        return Undecided(partial(faulty, recorder.elapsed() - began))

    def faulty(after: float) -> Any:
        text = f"expected nothing for {format_seconds(seconds)}\n  got something after {after:.3f} s"
        raise with_conversation(UnexpectedRequest, service.context.name, text, service.traffic.said())

    def late(deadline: Deadline) -> None:
        """Nothing has come: that is the answer."""

    return _wait(service, "assert_no_traffic", ask, seconds, late, given_up=failed)


def failure(service: Service, expected: Expected) -> Query[None]:
    """Has the failure come that ``raises`` expects?  Other failures do not end this wait: they are told by others."""

    def ask() -> Any:
        return None if expected.failure is not None else PENDING

    def late(deadline: Deadline) -> None:
        other = service.context.failures.pending()
        came = "it did not" if other is None else f"it raised {said_shortly(other.error)}"
        text = f"expected the server's side to raise {expected} within {deadline}\n  {came}"
        raise with_conversation(UnmetExpectation, service.context.name, text, service.traffic.said())

    return _wait(service, "raises", ask, None, late, given_up=lambda context, verb: None, checked=False)


def connection(service: StreamService, index: int, timeout: float | None) -> Query[Conversation]:
    """Which is the connection of this index?"""
    checked_index(index, "wait_connection() expected an index from 0 on", least=0)

    def ask() -> Any:
        return service.connections.conversations[index] if index < len(service.connections.conversations) else PENDING

    def late(deadline: Deadline) -> Any:
        have = len(service.connections.conversations)
        text = f"wait_connection() waited {deadline} for connection {index}: there are {have}"
        raise _late(service, text)

    return _wait(service, "wait_connection", ask, timeout, late)


def untaken_connection(service: StreamService, timeout: float | None) -> Query[Conversation]:
    """Which is the earliest connection that nobody drives?  Answering takes it.

    Raises:
        InvalidState: A handler takes the connections.
    """
    context, connections = service.context, service.connections
    declared = connections.declarations.described()
    if declared is not None:
        raise InvalidState(
            f"accept() is for servers with nothing declared: {declared} takes the connections of {context.name}"
        )

    if context.injections.received:
        raise InvalidState(
            f"accept() is for servers with nothing declared: {context.name} reads by itself what inject() is to change"
        )
    before = list(connections.refused)

    def ask() -> Any:
        while connections.untaken:
            earliest = connections.untaken.pop(0)
            # Only time tells whether it is one, and time is no change that wakes a wait: `again` says when to ask next.
            if may_be_probe(earliest):
                connections.untaken.insert(0, earliest)
                return PENDING
            if not context.probes or not has_left_in_silence(earliest):
                return earliest
        refused = [each for each in connections.refused if each not in before]
        # A handshake that failed before this wait ends it too, if no client is left that could still connect.
        if not refused and service.clients and all(client.done() for client in service.clients):
            refused = before  # and nobody else is on his way
        if refused:
            connections.refused.clear()
            return Undecided(partial(refuse, refused[0]))  # whose text is made without the lock
        return PENDING

    def refuse(connection: Conversation) -> Any:
        raise failed_early("accept", connection.stream.tls_error())

    def again() -> float | None:
        return may_be_probe(connections.untaken[0]) if connections.untaken else None

    def late(deadline: Deadline) -> Any:
        with context.recorder.lock:
            if connections.untaken:  # it may be a probe still, and the time is over
                return connections.untaken.pop(0)
        failed = f", and the latest handshake failed: {before[-1].stream.tls_error()}" if before else ""
        raise _late(service, f"accept() waited {deadline}, and nobody connected{failed}")

    return _wait(service, "accept", ask, timeout, late, again=again)


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
    service: Service,
    verb: str,
    ask: Callable[[], Any],
    timeout: float | None,
    late: Callable[[Deadline], Any],
    *,
    given_up: Callable[[Context, str], Callable[[], BaseException] | None] = failed_or_over,
    again: Callable[[], float | None] | None = None,
    checked: bool = True,
) -> Query[Any]:
    if checked:
        service.traffic.check_declarations()
    return Query(
        service.context.recorder,
        verb,
        ask,
        seconds=checked_timeout(timeout) or service.context.timeout,
        late=late,
        given_up=partial(given_up, service.context),
        again=again,
    )


def _late(service: Service, text: str) -> DeadlineExceeded:
    """Return the error about a wait whose time is over; a client that has failed meanwhile is the likely reason."""
    for client in service.clients:
        error = client.failure()
        if error is not None:
            text += f"\n  in_thread({client.name}) has raised {type(error).__name__}: {text_of(error)}"
    return with_conversation(DeadlineExceeded, service.context.name, text, service.traffic.said())
