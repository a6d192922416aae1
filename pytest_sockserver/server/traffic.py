"""What passes through a server, as its verdict, its reports and its life cycle ask for it.

:class:`~.connection_list.ConnectionList` is that of streams, :class:`~.peer_list.PeerList` that of datagrams.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..connection.context import Context
from ..connection.deadline import process_ends_soon
from ..errors.location import hide_frame
from ..errors.messages import format_peer
from ..recording.failures import Failure
from ..transport.published import Published
from .losses import Loss, Untaken

__tracebackhide__ = hide_frame


class Traffic:
    """The connections, or the datagrams, of one server.

    Attributes:
        framework: The server of ``socketserver`` that takes what comes; ``None`` before the first start.
        untaken_errors: What went wrong while it took what came.
        left_behind: What the latest stop could not remove.
    """

    framework: Any = None
    left_behind: Loss | None = None
    _said_before: float | None = None  # the time limit before which the last words were said

    def __init__(self, context: Context, published: Published, verb: str) -> None:
        self.context, self.published = context, published
        self.untaken_errors = Untaken(verb)
        context.injections.past = self.past_injections

    # Asked by the verdict

    def is_idle(self) -> bool:
        """Tell whether all that has arrived was handled.  For a server that serves."""
        raise NotImplementedError

    def said(self) -> str:
        """Return what was said so far, for a message."""
        raise NotImplementedError

    def losses(self) -> list[Loss]:
        """Return what never came as far as the record, as far as it can be known; since the test began."""
        with self.context.recorder.lock:
            losses = self.untaken_errors.losses()
        return [*losses, self.left_behind] if self.left_behind is not None else losses

    def begin_test(self) -> None:
        """Begin to count losses for a further test."""
        with self.context.recorder.lock:
            self.untaken_errors.clear()

    def has_open_connection(self) -> bool:
        """Tell whether a client may still say something on a connection that it has."""
        return False

    def left_waiting(self) -> list[Failure]:
        """Return the failures about connections that came before the scripts, and for which there is none; once."""
        return []

    def remarks(self) -> list[str]:
        """Return what a report of a test that failed by itself adds about connections that are open."""
        return []

    def past_injections(self) -> str:
        """Return what a message about an injection that missed adds, about bytes that pass it by."""
        return ""

    # Asked by the service

    def let_go(self) -> None:
        """Undo the circles that it is in: see ``Service.__del__``."""
        self.framework = None

    # Asked by waits

    def check_declarations(self) -> None:
        """Raise the TypeError about what was declared and makes no sense without a framing; streams alone have such."""

    def refuse_unframed(self, verb: str) -> None:
        """Raise the TypeError about a stream that has no requests; datagrams are requests."""

    @contextmanager
    def reading_all(self) -> Iterator[None]:
        """Let the server read, for the length of the block, the connections that the test drives."""
        yield

    # Called by the framework

    def label(self) -> str:
        """Return what the names of the server's threads have in common."""
        return self.published.label

    def last_words(self) -> None:
        """Write the conversation to stderr, which pytest-timeout prints; once a time limit.  In the loop's thread."""
        ends_at = process_ends_soon()
        if ends_at != self._said_before:
            self._said_before = ends_at
            where = format_peer(self.published.address)
            sys.stderr.write(f"sockserver: {self.context.name} {where}, so far:\n{self.said()}\n")

    def could_not_take(self, error: OSError) -> None:
        """Count an error of accepting, or of receiving.  In the loop's thread."""
        with self.context.recorder.lock:
            self.untaken_errors.note(error)

    def could_not_begin(self, request: Any) -> None:
        """Keep the error of a request that could not be handed on; called while it is handled."""
        error = sys.exc_info()[1]
        assert error is not None
        self.context.failures.add(error, self.context.name)
