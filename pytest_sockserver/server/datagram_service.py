"""A server of datagrams without its face: UDP, and unix datagram sockets."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from ..connection.request import Value
from ..errors.location import hide_frame
from ..faults.active import Injection
from ..recording.demands import Period, running
from ..responders.handler import Handler
from ..responders.rulebook import On, RuleBook
from ..scripting.dialogue_reader import Section
from ..scripting.rules import CONNECT, HANDSHAKE, RuleMatch
from ..scripting.script import Script
from ..scripting.times import checked_times
from .datagram_declarations import DatagramDeclarations
from .datagram_script import DatagramScript, Sections
from .peer_list import PeerList
from .service import Service
from .verdict import Verdict

__tracebackhide__ = hide_frame


class DatagramService(Service):
    """A server of datagrams without its face.

    Attributes:
        declared: What may answer.
        peers: Whom it has received from, and the thread that answers.
        black_hole: The latest injection that lets each datagram be lost.
    """

    has_datagrams = True
    black_hole: Injection | None = None

    def __init__(self, kind: str, transport: str, given: dict[str, Any]) -> None:
        super().__init__(kind, transport, given)
        context = self.context
        self.book = RuleBook(context.recorder, transport, demands=context.demands)
        self.declared = DatagramDeclarations(context.recorder, self.book)
        self.traffic = self.peers = PeerList(context, self.published, self.declared, self.options.rcvbuf)
        self.book.names = self.declared.captured
        self.verdict = Verdict(context, self.traffic, self.book, self.clients)

    # Declaring

    def declare_handler(self, target: Callable[..., Any]) -> None:
        """Declare what answers from now on; ``handler()``."""
        self.declared.handler = Handler(target, "a Request")

    def declare_rule(self, match: RuleMatch, times: int | tuple[int, int | None] | None) -> On:
        if match is CONNECT or match is HANDSHAKE:
            raise TypeError(f"on() expected what a datagram is to match, not {match}: datagrams have no connections")
        return super().declare_rule(match, times)

    def declare_script(self, times: int | tuple[int, int | None] | None) -> Script:
        """Return a script, empty so far; ``script()``."""
        checked, script = checked_times(times), self.new_script()
        declared = DatagramScript(script, checked, None, {}, self.context.recorder, running())
        with self.context.recorder.lock:
            self.declared.scripts.append(declared)
            self.context.demands.add(declared)
        return script

    def declare_dialogue(self, text: str | os.PathLike[str], values: dict[str, Value], *, timed: bool) -> None:
        """Declare the conversation that a text describes; ``dialogue()``."""
        dialogue = self.parsed(text, values, timed=timed)
        owner = running()
        scripts = [self._of_section(section, values, owner) for section in dialogue.sections]
        rest = dialogue.rest
        with self.context.recorder.lock:
            if dialogue.numbered:
                further = partial(self._of_section, rest, values, owner) if rest is not None else None
                self.declared.scripts.append(Sections(scripts, further))
            else:
                self.declared.scripts += scripts

    def _of_section(self, section: Section, values: dict[str, Any], owner: Period | None) -> DatagramScript:
        context = self.context
        chatter = RuleBook(context.recorder, self.transport)
        for each in section.exchanges:
            chatter.add(each.match, each.parts, each.origin)
        script = DatagramScript(section.script, checked_times(1), chatter, values, context.recorder, owner)
        context.demands.add(script)
        return script

    def open_gate(self, name: str) -> None:
        super().open_gate(name)
        self.peers.outbox.wake_parked()

    def blackhole(self) -> Injection:
        """Answer no datagram, until it ends."""
        self.black_hole = self.inject((), direction="received", is_demanded=False)
        self.black_hole.also = self.inject((), is_demanded=False)
        return self.black_hole

    def clear(self) -> None:
        """Forget what was declared and what was recorded."""
        with self.context.recorder.lock:
            gone = [*self.forget(), *self.peers.clear()]
        del gone  # without the lock: a __del__ of the user's may come with it

    # Threads

    def threads(self) -> list[threading.Thread | None]:
        return [self.loop, self.peers.outbox.answerer]

    def close_descriptors(self) -> None:
        if self.peers.framework is not None:
            with contextlib.suppress(OSError):
                self.peers.framework.close_in_child()
