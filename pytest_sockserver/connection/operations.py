"""The verbs that take something, as steps: driven by a thread in ``connection``, by a coroutine in ``aio``.

A reading verb is a generator that yields when it needs more bytes (``scripting/reading.py``); a request comes of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..errors.exceptions import DeadlineExceeded, ScriptMismatch
from ..errors.location import hide_frame
from ..scripting import readers
from ..scripting.arguments import checked_delimiter, checked_expected, checked_index, checked_line, checked_size
from ..scripting.framing import Framing, checked_framing, expect_frame, frames_needed, may_be_empty, take_frame
from ..scripting.matching import Match, Shape, captured_by, described, is_literal, shape_of
from ..scripting.parts import Part, check_fit, checked_parts
from ..scripting.readers import Steps
from ..scripting.tls_effects import checked_context
from .conversation import Endpoint
from .deadline import Deadline
from .request import Request

if TYPE_CHECKING:
    import ssl

    from ..scripting.tls_effects import Context

__tracebackhide__ = hide_frame


class Verbs(Endpoint):
    """A connection with its verbs as steps."""

    def _recv(self, n: int) -> Steps[bytes]:
        checked_size("recv", n)
        return self._or_end(readers.recv(self._stream.buffer, n))

    def _recv_exactly(self, n: int) -> Steps[Request]:
        checked_index(n, "recv_exactly() expected a number of bytes, 0 or more", least=0)
        return self._unit(readers.recv_exactly(self._stream.buffer, n))

    def _recv_until(self, delimiter: bytes, max_bytes: int | None) -> Steps[Request]:
        most = self._max_frame
        if max_bytes is not None:
            most = checked_index(max_bytes, "max_bytes must be at least 1", least=1)
        return self._unit(readers.recv_until(self._stream.buffer, checked_delimiter(delimiter), most))

    def _recv_all(self) -> Steps[Request]:
        """Take all to the end; nothing is a request as well, where a frame may be nothing and nothing came before."""
        data = yield from self._or_end(readers.recv_all(self._stream.buffer))
        empty = not self._tape.received_count and self._framing is not None and may_be_empty(self._framing)
        return self._request(data, is_unit=empty)

    def _expect(self, match: Match) -> Steps[Request]:
        checked = checked_expected(match)
        if is_literal(checked):
            return self._literal_unit(shape_of(checked, self._lookup))  # type: ignore[arg-type]
        if self._framing is None:
            raise frames_needed(described(checked))
        buffer = self._stream.buffer
        return self._matched_unit(expect_frame(buffer, checked, self._framing, self._max_frame, self._lookup))

    def _expect_line(self, match: Match, ending: bytes | None = None) -> Steps[Request]:
        checked = checked_line(match)
        if ending is not None:
            checked_delimiter(ending, "expect_line")
        buffer = self._stream.buffer
        return self._matched_unit(readers.expect_line(buffer, checked, self._max_frame, self._lookup, ending))

    def _literal_unit(self, shape: Shape) -> Steps[Request]:
        data = yield from readers.expect(self._stream.buffer, shape)
        return self._request(data, captured_by(shape, data))

    def _frame(self, framing: Framing | None) -> Steps[Request]:
        """Take a frame in this framing, else in the connection's own, as it is by now."""
        now = framing or self._checked_framing("frames", None)
        frame = yield from take_frame(self._stream.buffer, now, self._max_frame)
        return self._request(frame, is_unit=True)

    def _checked_framing(self, verb: str, framing: Framing | None) -> Framing:
        checked = checked_framing(framing, self._max_frame) or self._framing
        if checked is None:
            raise TypeError(
                f"{verb}() expected a framing: give one to it, {verb}(lines(b'\\r\\n')) for example, or the server "
                "framing="
            )
        return checked

    def _unit(self, steps: Steps[bytes]) -> Steps[Request]:
        return self._request((yield from steps))

    def _matched_unit(self, steps: Steps[tuple[bytes, object]]) -> Steps[Request]:
        unit, found = yield from steps
        return self._request(unit, found, is_unit=True)

    def _or_end(self, steps: Steps[bytes]) -> Steps[bytes]:
        """Say the end of the stream once; the second time is the quiet end of a handler's loop."""
        data = yield from steps
        if not data:
            if self._told_end:
                raise readers.Ended("more")
            self._told_end = True
        return data

    def _start_tls(self, context: Context | None, deadline: Deadline) -> Iterator[bool]:
        given = checked_context(context, "start_tls()") or self._server.options.tls
        if given is None:
            raise ValueError("start_tls() expected a context: give it one, or give the server tls=")
        at_once = self._server.transport == "tls" and not self._tape.events
        try:
            for writes in self._stream.start_tls(_context_of(given), at_once=at_once):
                yield writes
                if not deadline.left():
                    text = f"start_tls() waited {deadline} for the client's handshake"
                    raise self._stream.handshake_failed(self._error(DeadlineExceeded, text))
        except ScriptMismatch as early:
            raise self._error(ScriptMismatch, str(early)) from None

    def _checked_parts(self, parts: tuple[Part, ...], verb: str) -> tuple[Part, ...]:
        if len(parts) == 1 and isinstance(parts[0], bytes):
            return parts
        checked = checked_parts(parts, verb)
        check_fit(checked, self._server.transport, verb, tls=self._server.options.tls is not None)
        return checked


def _context_of(given: Context) -> ssl.SSLContext:
    if hasattr(given, "wrap_socket"):  # one of the user's: certificates are not needed for it
        return given  # type: ignore[return-value]
    from ..transport.certificates import server_context_of

    return server_context_of(given)
