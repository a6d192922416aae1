"""A script: the verbs of a connection, deferred.

Each call adds a :class:`Step`, which remembers where in the test it stands.  Whatever can be known to be wrong is
refused by that call.  The steps are performed in order by ``script_run``; a script may grow while it is performed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors.exceptions import UnsupportedFault
from ..errors.location import Location, hide_frame
from ..errors.messages import old_attributes
from .arguments import checked_delimiter, checked_expected, checked_index, checked_line, checked_size, checked_timeout
from .effects import checked_gate
from .framing import Framing, checked_framing
from .matching import ANY, Match, PatternText, Text, described, names_captured
from .matching import names_demanded as names_demanded_by_match
from .parts import Part, check_fit, checked_parts, names_demanded
from .steps import Step, first_literal, last_step, may_start_alike, progresses, walk
from .tls_effects import StartTLS

if TYPE_CHECKING:
    from .tls_effects import Context

    if sys.version_info >= (3, 11):
        from typing import Self
    else:
        from typing_extensions import Self

__tracebackhide__ = hide_frame


#: What a datagram server's script may do.
ON_DATAGRAMS = ("expect", "send", "open_gate", "maybe", "repeat")


class Script:
    r"""An ordered conversation: what the server says, and what its client must say.

    Made by ``server.script()``, and verified without being asked.  ``Script()`` makes a part of one, for ``repeat``.
    Every verb returns the script, and prints as its dialogue.

    Args:
        transport: What it is for; parts that this cannot do are refused.
        names: Returns the names that are known besides those that its own steps capture.
    """

    def __init__(
        self,
        *,
        transport: str | None = None,
        names: Callable[[], Iterable[str]] | None = None,
        max_frame: int = sys.maxsize,
        tls: bool = True,
    ) -> None:
        self.origin = Location()
        self.steps: list[Step] = []  # only ever grows, by its own thread; list.append and indexing need no lock
        self.grown: Callable[[], None] = _nobody_waits
        self.place: Callable[[], Location] = Location  # where the step that is added stands
        self._transport, self._names, self._max_frame, self._tls = transport, names, max_frame, tls
        self.captured: set[str] = set()
        self._asked = False  # of datagrams: somebody who can be answered has spoken before its first step
        self._wanted: list[tuple[str, str]] = []  # names that a part of a script expects of the whole, and by whom

    def __repr__(self) -> str:
        return f"<Script of {len(self.steps)} steps at {self.origin}>"

    def __str__(self) -> str:
        from .dialogue_writer import script_lines

        return "\n".join(script_lines(self.steps, datagrams=self._on_datagrams()))

    if not TYPE_CHECKING:  # which would take any name for a known one
        __getattr__ = old_attributes("script")

    # Saying

    def send(self, *parts: Part) -> Self:
        """Send the parts, from left to right; bytes that follow one another leave in one write.

        Raises:
            TypeError, ValueError: A part is none, can never be reached, or names what was not captured.
            UnsupportedFault: The transport cannot do a part.
        """
        return self._add("send", *checked_said(self, parts))

    def send_eof(self) -> Self:
        """End the server's half of the stream; the client may go on sending."""
        return self._add("send_eof")

    def close(self, notify: bool = True) -> Self:
        """Close cleanly: the client reads what was sent, then the end of the stream."""
        return self._add("close", **({} if notify else {"notify": False}))

    def reset(self) -> Self:
        """Reset the connection: the client gets what was sent so far, then ``ConnectionResetError``."""
        if self._transport == "unix":
            raise UnsupportedFault(
                "a unix stream cannot be reset: its client would see a plain end of stream; use close()"
            )
        return self._add("reset")

    def start_tls(self, context: Context | None = None) -> Self:
        """Do the server's side of a TLS handshake: with ``context``, else the server's ``tls=``."""
        check_fit([StartTLS(context)], self._transport or "tcp", "start_tls()", tls=self._tls)
        return self._add("start_tls", *([] if context is None else [context]))

    def open_gate(self, name: str) -> Self:
        """Open a gate: whoever waits for it, in this or another conversation, goes on."""
        return self._add("open_gate", checked_gate(name, "open_gate()"))

    # Taking

    def recv(self, n: int = 65536, *, timeout: float | None = None) -> Self:
        """Take what has come, at most ``n`` bytes."""
        return self._add("recv", checked_size("recv", n), timeout=checked_timeout(timeout))

    def recv_exactly(self, n: int, *, timeout: float | None = None) -> Self:
        """Take exactly ``n`` bytes."""
        checked_index(n, "recv_exactly() expected a number of bytes, 0 or more", least=0)
        return self._add("recv_exactly", n, timeout=checked_timeout(timeout))

    def recv_until(
        self, delimiter: bytes | Text, *, max_bytes: int | None = None, timeout: float | None = None
    ) -> Self:
        """Take all bytes through ``delimiter``."""
        for name in names_demanded_by_match(delimiter):
            self._check_name(name, "recv_until()")
        checked = _checked_delimiter(delimiter)
        return self._add("recv_until", checked, max_bytes=_checked_most(max_bytes), timeout=checked_timeout(timeout))

    def recv_line(self, *, max_bytes: int | None = None, timeout: float | None = None) -> Self:
        """Take a line, whatever it says."""
        return self._add("recv_line", max_bytes=_checked_most(max_bytes), timeout=checked_timeout(timeout))

    def recv_all(self, *, timeout: float | None = None) -> Self:
        """Take all that the client sends until it ends its stream."""
        return self._add("recv_all", timeout=checked_timeout(timeout))

    # Demanding

    def expect(self, match: Match, *, timeout: float | None = None) -> Self:
        """Demand exactly the bytes of a literal, however segmented; or a frame (a datagram) that ``match`` matches.

        Raises:
            TypeError: ``match`` is no match.  On a stream without ``framing=`` anything but a literal is refused as
                well, when the connection comes and at the test's first wait: a framing may still be given.
        """
        return self._demand("expect", self._checked_expected(match), timeout)

    def expect_line(self, match: Match = ANY, *, ending: bytes | None = None, timeout: float | None = None) -> Self:
        r"""Demand a line, which ``match`` must match whole, without its ending.

        Args:
            ending: What the line must end in; ``b"\n"`` with or without ``b"\r"`` before it, unless given.
        """
        return self._demand("expect_line", checked_line(match), timeout, ending=ending)

    def expect_eof(self, *, timeout: float | None = None) -> Self:
        """Demand that the client ends its stream."""
        return self._add("expect_eof", timeout=checked_timeout(timeout))

    def expect_reset(self, *, timeout: float | None = None) -> Self:
        """Demand that the client resets the connection."""
        return self._add("expect_reset", timeout=checked_timeout(timeout))

    # Steps of steps

    def maybe(self, match: Match, *reply: Part) -> Self:
        """Take ``match`` and say ``reply``, if that is what comes next; else go on with the next step.

        Raises:
            ValueError: ``match`` may start like what follows it (said by the step that follows).
        """
        inner = self._part().expect(match)
        inner.send(*reply)
        return self._nest("maybe", (), inner)

    def repeat(self, n: int, script: Script) -> Self:
        """Perform the steps of ``script`` ``n`` times."""
        checked_index(n, "repeat() expected a number of times, 1 or more", least=1)
        if not isinstance(script, Script):
            raise TypeError(f"repeat() expected a Script, not {script!r}: write repeat({n}, Script().expect(...))")
        if not script.steps:
            raise ValueError("repeat() expected a script that has steps")
        if not any(map(progresses, script.steps)):
            raise ValueError("repeat() expected a script that sends or takes something: this one does nothing")
        if script is self:
            raise ValueError("repeat() expected another script than the one it stands in")
        return self._nest("repeat", (n,), script)

    def extend(self, script: Script) -> Self:
        """Go on with the steps of ``script``, one made by ``Script()``.

        Raises:
            TypeError, ValueError: It is no script, or one of its steps cannot stand here.
            UnsupportedFault: The transport cannot do a step.
        """
        if not isinstance(script, Script) or script is self:  # type: ignore[redundant-expr]
            hint = "its values[0]" if hasattr(script, "values") else "extend(Script().expect(...))"
            raise TypeError(f"extend() expected another Script, not {script!r}: write {hint}")
        for name, where in script._wanted:
            self._check_name(name, where)
        for step in script.steps:
            self._append(step)
        self.captured |= script.captured
        return self

    def first(self, n: int) -> Script:
        """Return a script of its own, of the first ``n`` steps."""
        checked_index(n, "first() expected a number of steps, 0 or more", least=0)
        part = self._part()
        part.steps = self.steps[:n]
        part.captured = {name for step in walk(part.steps) for name in step.captures}
        wanted = {name for step in walk(part.steps) for name in step.names}
        part._wanted = [(name, where) for name, where in self._wanted if name in wanted]
        return part

    def rules(self, framing: Framing | None = None) -> Self:
        """Answer by the server's rules from here on, in another framing than the server's if one is given."""
        return self._add("rules", *([] if framing is None else [checked_framing(framing, self._max_frame)]))

    def framing(self, framing: Framing | None) -> Self:
        """Cut what comes next by another framing; ``None`` for a stream without frames."""
        return self._add("framing", checked_framing(framing, self._max_frame))

    # Building

    def _part(self) -> Script:
        return Script(transport=self._transport, max_frame=self._max_frame, tls=self._tls)

    def _on_datagrams(self) -> bool:
        return self._transport in ("udp", "unix_datagram")

    def _has_asked(self) -> bool:
        asked = self._asked or self._names is None
        return asked or any(step.verb in ("expect", "maybe", "repeat") for step in self.steps)

    def _checked_expected(self, match: Match) -> Match:
        if isinstance(match, PatternText):
            return match
        return checked_expected(match, datagrams=self._transport is None or self._on_datagrams())

    def _demand(self, verb: str, match: Match, timeout: float | None, **options: Any) -> Self:
        for name in names_demanded_by_match(match):
            self._check_name(name, f"{verb}()")
        self._add(verb, match, timeout=checked_timeout(timeout), **options)
        self.captured.update(names_captured(match))
        return self

    def _nest(self, verb: str, args: tuple[Any, ...], script: Script) -> Self:
        inner = tuple(script.steps)
        for name, where in script._wanted:
            self._check_name(name, where)
        for step in inner:
            self._check_transport(step)
        self._append(Step(verb, args, origin=self.place(), steps=inner))
        self.captured |= script.captured
        return self

    def _check_name(self, name: str, where: str) -> None:
        if self._names is None:
            if name not in self.captured:
                self._wanted.append((name, where))
            return
        if name not in self.captured and name not in self._names():
            said = ", ".join(sorted(known_names(self))) or "nothing"
            raise ValueError(
                rf"{where} names the group \g<{name}>, which nothing before it captures: known so far: {said}"
            )

    def _add(self, verb: str, *args: Any, **options: Any) -> Self:
        given = {name: value for name, value in options.items() if value is not None}
        return self._append(Step(verb, args, given, origin=self.place()))

    def _append(self, step: Step) -> Self:
        self._check_transport(step)
        self._check_reachable(step)
        self._check_optional(step)
        self.steps.append(step)
        self.grown()
        return self

    def _check_transport(self, step: Step) -> None:
        if self._transport is None:
            return
        if self._on_datagrams() and step.verb not in ON_DATAGRAMS:
            raise ValueError(
                f"a script of datagrams has no {step.verb}(): each expect() takes one datagram, each part of "
                f"send() is one; it has {', '.join(f'{each}()' for each in ON_DATAGRAMS)}"
            )
        if step.verb == "expect" and not self._on_datagrams() and not isinstance(step.args[0], PatternText):
            checked_expected(step.args[0])  # a part of a script, Script(), does not know yet what it is for
        if step.verb == "send":
            check_fit(step.args, self._transport, "send()", tls=self._tls)
        if step.verb == "start_tls":
            check_fit([StartTLS(*step.args)], self._transport, "start_tls()", tls=self._tls)
        if step.verb == "reset" and self._transport == "unix":
            raise UnsupportedFault(
                "a unix stream cannot be reset: its client would see a plain end of stream; use close()"
            )
        for each in step.steps:
            self._check_transport(each)

    def _check_reachable(self, step: Step) -> None:
        last = None if step.verb == "open_gate" else last_step(self.steps)
        if last is not None:
            raise ValueError(f"{step.verb}() would never be reached: nothing follows {last!r}")

    def _check_optional(self, step: Step) -> None:
        """Refuse what starts like the optional step before it: which of them is meant could not be told."""
        wanted = first_literal(step)
        if wanted is None or step.verb == "maybe" and not self.steps:
            return
        for before in reversed(self.steps):
            if before.verb != "maybe":
                return
            optional = first_literal(before)
            if optional is not None and may_start_alike(optional, wanted, whole=self._on_datagrams()):
                raise ValueError(
                    f"{step.verb}() may start like the optional step before it: "
                    f"{described(optional)} and {described(wanted)} cannot be told apart by their first bytes"
                )


# What the reader of dialogues asks of the script that it writes


def block_of(script: Script) -> Script:
    """Return a script, without steps, for what will stand in this one: it knows the names that are known here."""
    inner = script._part()
    inner._names = None if script._names is None else partial(known_names, script)
    inner._asked = script._has_asked()
    return inner


def known_names(script: Script) -> frozenset[str]:
    """Return the names that the next step of a script may use."""
    return frozenset({*script.captured, *(script._names() if script._names is not None else ())})


def checked_reply(script: Script, parts: Iterable[object]) -> tuple[Part, ...]:
    """Return the parts, or raise the error that says why the script's transport cannot send them."""
    checked = checked_parts(parts, "send()")
    if script._transport is not None:
        check_fit(checked, script._transport, "send()", tls=script._tls)
    return checked


def checked_said(script: Script, parts: Iterable[object]) -> tuple[Part, ...]:
    """Return the parts, or raise the error that says why they cannot follow the script's last step."""
    checked = checked_reply(script, parts)
    if script._on_datagrams() and not script._has_asked():
        raise ValueError("send() expected a datagram before it: its sender is who is answered; expect() one first")
    for name in names_demanded(checked):
        script._check_name(name, "send()")
    return checked


def _checked_delimiter(delimiter: bytes | Text) -> bytes | Text:
    if isinstance(delimiter, Text):
        return delimiter if delimiter.pieces else checked_delimiter(b"")
    return checked_delimiter(delimiter)


def _checked_most(max_bytes: int | None) -> int | None:
    return None if max_bytes is None else checked_index(max_bytes, "max_bytes must be at least 1", least=1)


def _nobody_waits() -> None:
    """Stand in for what is told that a script has grown, while nobody performs it."""


def optional_block(script: Script, inner: Script) -> Script:
    """Add steps that may be left out, however many; ``maybe()`` itself takes one match and one reply."""
    return script._nest("maybe", (), inner)
