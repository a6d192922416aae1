"""What was declared for the connections of a server, and which of it the next one takes.

The earliest script that is not taken yet, else the handler, else the rules.  Where something was declared and nothing
is left, nobody drives: that is the test's failure.  Everything here is guarded by the recorder's lock, which whoever
changes something holds.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ..connection.conversation import Conversation, Responder
from ..connection.probes import Probes
from ..errors.location import hide_frame
from ..recording.demands import Demands
from .handler import Handler
from .responder import NoResponderLeft, Rules
from .rulebook import RuleBook

if TYPE_CHECKING:
    from .script_run import DeclaredScript, ScriptRun

__tracebackhide__ = hide_frame

# A connection gets its driver under the lock: in the step that lists it, after its TLS handshake, or when something is
# declared while it waits.  So scripts go to connections in that order, and no two connections take one turn of a
# script.
#
# A script that was taken stays in the list.  That it is there, and not left, is what makes a further connection
# unexpected; where there is a handler, or a rule, that drives the further ones instead.
#
# A probe gives its script back under the same lock (`_give_back`), and its run leaves the demands: else that run would
# be reported as unmet, though the next client performs the script.
#
# Not done: a handler that is declared later does not take over connections that have a driver.  Nothing here starts a
# thread or touches a socket.


class Declarations:
    """The declarations of one server of streams.

    Args:
        demands: Get each script, and each run of one.

    Attributes:
        rules: The driver that answers by the server's rules.
        handler: The latest one declared.
    """

    def __init__(self, book: RuleBook, probes: Probes, demands: Demands) -> None:
        self.rules = Rules(book)
        self._probes = probes
        self.handler: Handler | None = None
        self._book, self._demands = book, demands
        self._scripts: list[DeclaredScript] = []  # in order of declaration

    def clear(self) -> list[object]:
        """Forget the handler and the scripts; return what is to be let go without the lock, which must be held.

        The rules are forgotten by their book.
        """
        gone: list[object] = [self.handler, self._scripts]
        self.handler, self._scripts = None, []
        return gone

    def add(self, declared: DeclaredScript) -> None:
        """Declare a further script."""
        self._scripts.append(declared)
        self._demands.add(declared)

    def described(self) -> str | None:
        """Return what takes the connections, in words; ``None`` if nothing was declared."""
        if self._scripts:
            return f"a script ({self._scripts[0].origin})"
        if self.handler is not None:
            return f"handler {self.handler.name} ({self.handler.origin})"
        return f"{self._book.rules[0]}" if self._book else None

    def captured(self) -> set[str]:
        """Return the names under which the scripts capture."""
        return set().union(*[declared.captured for declared in list(self._scripts)])

    # Driving

    @property
    def is_used_up(self) -> bool:
        """Whether something was declared, and nothing is left for a further connection."""
        return bool(self._scripts) and self.handler is None and not self._book and not self._left()

    def _left(self) -> list[DeclaredScript]:
        return [declared for declared in self._scripts if declared.left]

    def drive(self, connection: Conversation, *, call_is_over: bool) -> Responder | None:
        """Give a connection its driver, and return it; ``None`` if nothing was declared."""
        left = self._left()
        # Noted for probes in the same step: a look in between would find a connection that has used up nothing.
        if left:
            run = left[0].take()
            self._demands.add(run)
            self._probes.used(connection, partial(self._give_back, run), run.is_whole)
            connection.responder = run
        elif self.handler is not None:
            connection.responder = self.handler
        elif self._book:
            connection.responder = self.rules
        elif self._scripts:
            connection.responder = self.unexpected(call_is_over=call_is_over)
        return connection.responder

    def _give_back(self, run: ScriptRun) -> None:
        """Let a script that a probe was driven by drive the next connection."""
        if run.give_back():
            self._demands.remove(run)

    def unexpected(self, *, call_is_over: bool) -> NoResponderLeft:
        """Return the driver of a connection that nothing is left for."""
        last = self._scripts[-1].origin
        if call_is_over:
            return NoResponderLeft(None, last)
        return NoResponderLeft(
            f"expected no further connection: the script at {last.short} is the last one, and it was taken\n"
            "  if the client may come back, declare script(times=None), or one more script",
            last,
        )

    # Verifying

    def standing(self, connection: Conversation) -> str | None:
        """Return what an open connection waits for, in words, if it is worth a remark."""
        if connection.responder is not None:
            return connection.responder.standing(connection)
        return "nothing was declared: it waits for accept()" if connection.mode == "sunk" else None

    def check_unframed(self) -> None:
        """Refuse what makes no sense on a stream without framing, pointing at the declaration."""
        if self.handler is None and not self._scripts:  # either may give the rules a framing: rules(framing)
            self.rules.check(None)
        # A copy, since this walks without the lock and the test may declare meanwhile.
        for declared in list(self._scripts):
            declared.check_unframed()
