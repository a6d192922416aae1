"""A server of streams without its face: TCP, and unix sockets."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..connection.request import Value
from ..errors.exceptions import InvalidState
from ..errors.location import hide_frame
from ..responders.handler import Handler
from ..responders.responder import Rules
from ..responders.rulebook import On, RuleBook
from ..scripting.framing import checked_framing, may_be_empty
from ..scripting.rules import HANDSHAKE, RuleMatch
from ..scripting.times import checked_times
from ..transport.listener import Listener
from .connection_list import ConnectionList
from .service import Service
from .verdict import Verdict

if TYPE_CHECKING:
    import ssl

    from ..responders.script_run import DeclaredScript
    from ..scripting.script import Script
    from ..transport.client_trust import Trust

__tracebackhide__ = hide_frame


class StreamService(Service):
    """A server of streams without its face.

    Attributes:
        listener: What it accepts from.
        connections: Those that were accepted, and what was declared for them.
        trust: What its clients must trust; made when it is asked for.
    """

    has_datagrams = False
    trust: Trust | None = None
    _handshakes: RuleBook | None = None  # the context's, as what it is

    def __init__(self, kind: str, transport: str, given: dict[str, Any]) -> None:
        super().__init__(kind, transport, given)
        options, context = self.options, self.context
        context.framing = checked_framing(options.framing, options.max_frame)
        self.listener = Listener(self.published, rcvbuf=options.rcvbuf, backlog=options.backlog, mss=options.mss)
        self.book = RuleBook(context.recorder, transport, tls=options.tls is not None, demands=context.demands)
        self.traffic = self.connections = ConnectionList(context, self.published, self.listener, self.book)
        self.book.names = self.connections.declarations.captured
        self.verdict = Verdict(context, self.traffic, self.book, self.clients)

    # Declaring

    def declare_handler(self, target: Callable[..., Any]) -> None:
        """Declare what answers from now on; ``handler()``."""
        handler = Handler(target, "a Connection")
        declarations = self.connections.declarations
        with self.context.recorder.lock:
            before, declarations.handler = declarations.handler, handler
        del before  # without the lock, as above
        self.connections.give_waiting()

    def declare_rule(self, match: RuleMatch, times: int | tuple[int, int | None] | None) -> On:
        context = self.context
        if match is HANDSHAKE:
            if self.options.tls is None:
                raise TypeError(
                    "on() expected HANDSHAKE on a server that speaks TLS: tls_server, or one with tls=True, "
                    "whose connections begin it by StartTLS()"
                )
            with context.recorder.lock:
                if self._handshakes is None:
                    plain = "unix" if self.published.place is not None else "tcp"
                    self._handshakes = RuleBook(context.recorder, plain, tls=True, demands=context.demands)
                    context.handshakes = self._handshakes
            return self._handshakes.declare(match, times)
        is_empty = context.framing is not None and may_be_empty(context.framing)
        declared = self.book.declare(match, times, empty=is_empty)
        self.connections.give_waiting()
        return declared

    def declare_script(self, times: int | tuple[int, int | None] | None) -> Script:
        """Return a script, empty so far; ``script()``."""
        from ..responders.script_run import DeclaredScript

        checked, script = checked_times(times), self.new_script()
        self._declare(DeclaredScript(script, checked, self.connections.declarations.rules, {}, self.context.recorder))
        return script

    def declare_dialogue(self, text: str | os.PathLike[str], values: dict[str, Value], *, timed: bool) -> None:
        """Declare the conversation that a text describes; ``dialogue()``."""
        from ..responders.script_run import DeclaredScript

        dialogue = self.parsed(text, values, timed=timed)
        recorder = self.context.recorder
        for section, times in [
            *((each, 1) for each in dialogue.sections),
            *((each, None) for each in (dialogue.rest,)),
        ]:
            if section is None:
                continue
            chatter = RuleBook(recorder, self.transport)
            for each in section.exchanges:
                chatter.add(each.match, each.parts, each.origin)
            own = self.connections.declarations.rules
            rules = Rules(chatter, self.book, lines=section.framing) if section.exchanges else own
            self._declare(DeclaredScript(section.script, checked_times(times), rules, values, recorder))

    def _declare(self, declared: DeclaredScript) -> None:
        with self.context.recorder.lock:
            self.connections.declarations.add(declared)
        self.connections.give_waiting()

    def disturb_all(self) -> None:
        self.connections.disturb_all()

    def clear(self) -> None:
        """Forget what was declared and what was recorded; open connections stay open."""
        with self.context.recorder.lock:
            gone = self.forget()
            forgotten, over, done = self.connections.clear()
            gone += forgotten
            if self._handshakes is not None:
                gone += self._handshakes.clear()
        del gone, forgotten  # without the lock: a __del__ of the user's may come with it
        for connection in over:
            connection.finish()
        for connection in done:
            connection.let_go()

    # TLS

    def client_context(self, options: dict[str, Any]) -> ssl.SSLContext:
        """Return the context of a client that trusts this server."""
        return self._trusted().client_context(self.context.name, options)

    def ca_path(self) -> str:
        """Return the path of a file with the certificate that clients must trust."""
        name, state = self.context.name, self.context.state
        if state in ("new", "stopped"):
            raise InvalidState(f"{name} has no ca_path in state {state!r}: the file is there while it runs")
        return self._trusted().ca_path(name)

    def _trusted(self) -> Trust:
        from ..transport.client_trust import Trust

        with self.context.recorder.lock:
            if self.trust is None:
                self.trust = Trust(self.options.tls)
            return self.trust

    # Threads

    def threads(self) -> list[threading.Thread | None]:
        return [self.loop, *self.connections.threads()]

    def close_descriptors(self) -> None:
        self.connections.close_in_child()
