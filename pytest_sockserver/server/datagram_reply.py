"""Answer one datagram: choose what answers it, and say that.

A reply is an operation.  Where it has to wait, for a time or for a gate, the thread that answers goes on with other
datagrams, and comes back to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import islice
from typing import Any, Final

from ..connection.perform import pause
from ..connection.request import Request, looked_up
from ..connection.waits import Operation, Wait
from ..errors.exceptions import ServerStopping, UnexpectedRequest
from ..errors.location import from_users_frame, hide_frame, traceback_at_definition
from ..errors.messages import format_peer, with_conversation
from ..recording.events import NOTE
from ..recording.failures import said_shortly
from ..responders.rulebook import RuleBook, refusal
from ..scripting.matching import Lookup, names_in
from ..scripting.parts import Part, check_fit, parts_of
from .datagram_declarations import DatagramDeclarations
from .datagram_peer import DatagramPeer
from .datagram_script import DatagramScript

__tracebackhide__ = hide_frame

# Who answers: the script that the peer's datagram belongs to, else the handler, else the rules.  A script that still
# demands something excludes the handler, and not the rules.  One that had only optional steps left is over by this very
# datagram, and the next script is asked.
#
# A reply is a generator that runs in the answering thread, and may stop at any wait.  What it has claimed lasts as
# long: `script.answering` is set under the recorder's lock and undone in a `finally`, so that no second reply of the
# script begins while the first one waits.
#
# `go_on` never raises, whatever the user's code does: the thread answers for all peers.
#
# Not done: no part of a reply is taken back.  What was sent before a failure has left.


#: Parts that a handler may return for one datagram.  All are judged before the first is sent.
_MOST_PARTS: Final = 10_000


class Reply:
    """The answer to one datagram, as far as it has come.

    Args:
        declared: What may answer it.
        put_back: Called when a script has answered, to let what came for it meanwhile be taken.
        heard: It was through the injected faults already.
    """

    def __init__(
        self,
        request: Request,
        outlet: DatagramPeer,
        declared: DatagramDeclarations,
        put_back: Callable[[DatagramScript], None],
        *,
        heard: bool,
    ) -> None:
        self.request = request
        self._outlet, self._tape, self._declared, self._put_back = outlet, outlet.tape, declared, put_back
        self._outbox, self._context = outlet.outbox, outlet.outbox.context
        self._captured = self._outbox.captured_of(request.peer)
        self._steps = self._answer() if heard or not self._context.injections.received else self._hear()

    def go_on(self) -> Wait | None:
        """Answer as far as it goes; return what has to be waited for, ``None`` at the end.  Never raises."""
        try:
            while (wait := next(self._steps, None)) is not None and wait.writable:
                self._outbox.wait_here(wait)  # here, and not later: what is sent to a client keeps its order
            return wait
        except ServerStopping:
            self._steps.close()  # while it waited for a client that does not read
        except BaseException as error:
            where = f"{self._context.name}, datagram from {format_peer(self.request.peer)}"
            self._context.failures.record(error, where, self.request.time)
            self._tape.note(NOTE, said_shortly(from_users_frame(error)).encode("utf-8", "backslashreplace"))
        return None

    def _hear(self) -> Operation[None]:
        """Answer what an injection makes of the datagram: none, one or several."""
        for data in self._outlet.heard(self.request):
            if isinstance(data, Wait):
                yield data
                continue
            request = self.request
            if data != request:
                request = Request(data, peer=request.peer, time=request.time, outlet=request.outlet)
            yield from Reply(request, self._outlet, self._declared, self._put_back, heard=True)._steps

    def _answer(self) -> Operation[None]:
        if not self._declared:
            return  # forgotten meanwhile
        script, declared = self._declared.script_for(self.request)
        while script is not None:
            if self._is_later(script):
                return
            try:
                if (yield from self._by_script(script)):
                    return
            finally:
                self._put_back(script)
            if not script.over:
                break
            script, _ = self._declared.script_for(self.request)  # only optional steps were left of it
        if self._declared.handler is not None and script is None:
            yield from self._by_handler()
            return
        if (yield from self._by_rules(self._declared.book, {})):
            return
        raise self._unexpected(script, declared)

    def _is_later(self, script: DatagramScript) -> bool:
        """Put the datagram off, if its script is still answering the one before; else begin to answer."""
        with self._context.recorder.lock:
            if script.answering:
                script.waiting.append((self.request, self._outlet, True))
                return True
            script.answering = True
            return False

    def _by_script(self, script: DatagramScript) -> Operation[bool]:
        lookup = partial(looked_up, self._captured, script.values, self.request)
        taken = script.take(self.request, lookup)
        if taken is None:
            return script.chatter is not None and (yield from self._by_rules(script.chatter, script.values))
        # Before the first part is sent: its templates may name what this datagram captured.
        self._captured.update(names_in(taken.found))
        for step in taken.answer:
            # Seconds since the peer's first datagram, and not since this one: a dialogue has one clock for each peer.
            if step.at:
                yield from pause(self._outlet, self._tape.began + step.at - self._tape.recorder.elapsed())
            if step.verb == "open_gate":
                self._outbox.open_gate(step.args[0])
            else:
                yield from self._parts(step.args, lookup)
        return True

    def _by_handler(self) -> Operation[None]:
        handler, request = self._declared.handler, self.request
        assert handler is not None
        if handler.is_class:
            handler.target((bytes(request), self._outlet.socket), request.peer, self._outbox.framework)
            return
        result = handler.target(request)
        try:
            parts = list(islice(parts_of(result, f"handler {handler.name}"), _MOST_PARTS + 1))
            if len(parts) > _MOST_PARTS:
                raise ValueError(
                    f"handler {handler.name} returned more than {_MOST_PARTS:,} parts: expected a reply that has an end"
                )
            check_fit(parts, self._context.transport, f"handler {handler.name}")
            yield from self._parts(parts, partial(looked_up, self._captured, {}, request))
        except (TypeError, ValueError) as error:  # about what it returned: it is no longer running, so point at its def
            raise error.with_traceback(traceback_at_definition(handler.target)) from None

    def _by_rules(self, book: RuleBook, values: Mapping[str, Any]) -> Operation[bool]:
        lookup = partial(looked_up, self._captured, values, self.request)
        found = book.find(self.request, lookup)
        if found is None:
            return False
        rule, count, match = found
        self.request.rule = rule
        self.request.match = match if hasattr(match, "groupdict") else None
        self._captured.update(names_in(match))
        yield from self._parts(rule.reply(count), lookup)
        return True

    def _parts(self, parts: Iterable[Part], lookup: Lookup) -> Operation[None]:
        return self._outlet.say(parts, self.request, lookup)

    def _unexpected(self, script: DatagramScript | None, declared: bool) -> BaseException:
        declared_for, request = self._declared, self.request
        if script is not None:
            lookup = partial(looked_up, self._captured, script.values, request)
            return script.refusal(request, lookup, self._error)
        lookup = partial(looked_up, self._captured, {}, request)
        if declared and not declared_for.book:
            return declared_for.all_scripts()[-1].refusal(request, lookup, self._error)
        text, origin = refusal([declared_for.book], request, lookup)
        error = self._error(UnexpectedRequest, text)
        error.placed = True  # it names the rules' lines
        return error.with_traceback(origin.traceback() if origin is not None else None)  # type: ignore[no-any-return]

    def _error(self, kind: Any, text: str) -> Any:
        where = f"{self._context.name}, datagram from {format_peer(self.request.peer)}"
        return with_conversation(kind, where, text, self._outbox.said())
