"""Perform a script on a connection, step by step.

What a step expects and does not get is its failure, at the line where it was declared.  Three things happen beside the
steps.  On a connection with frames, one that a step does not match is offered to the rules first: pings, any order,
chatter.  A script may grow while it is performed, since a client that was faster finds it half declared.  And after its
last step the rules answer, if there are any; else whatever else the client says is an error.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

from ..connection.conversation import Conversation
from ..connection.perform import pause
from ..connection.probes import hint
from ..connection.runners import run_in_thread
from ..errors.exceptions import (
    DeadlineExceeded,
    EndOfStream,
    InvalidState,
    ScriptMismatch,
    ServerStopping,
    SockServerError,
    UnexpectedRequest,
    UnmetExpectation,
)
from ..errors.location import hide_frame, pointing_at
from ..originals import original
from ..recording.demands import Demand, running
from ..recording.recorder import Recorder
from ..scripting.framing import Framing, frames_needed
from ..scripting.matching import Shape, is_literal, names_demanded, shape_of, shortened
from ..scripting.script import Script
from ..scripting.script_cursor import Agenda, Item
from ..scripting.steps import READING, Step, demands, step_needing_frames
from ..scripting.times import Times
from ..scripting.verbs import Frame, Recv, WhoseFrame
from .declaration import UnfinishedDeclaration
from .responder import Rules

__tracebackhide__ = hide_frame

# Who changes what:
#
# - The connection's thread alone changes the agenda, under `_lock`, and reads `passed` and `has_grown` without.
#   Threads that verify read the agenda under `_lock`.
# - `_now`, `over` and `_answering` are single fields of the connection's thread, which others read without a lock.
# - The list of steps grows at its end, in the thread that declares, while this one performs.  `has_grown` compares two
#   lengths, so it needs no lock.
# - `_told` is set by unmet(), and a step that fails after that ends the connection quietly.  A step that fails first
#   makes the run `over`, and unmet() is silent.  So one missing step is one error.
#
# How a step ends: it was taken, and the agenda goes on; it was optional and something else came, so it is passed over;
# the rules took the frame (`_RulesTookIt`), so the same step is tried again; or it fails.
#
# A run is `over` when it came to its end by itself, by a failure, or by an injection that ended the connection.  If it
# was cut from outside, it is not: what it still demands is missing, and is reported as that.
#
# Deadlines: a demand has one from its beginning.  After the last step, and before an optional step with no demand after
# it, the client may stay silent as long as it likes.
#
# Not done: there is no way back.  What a step has taken is never offered to another one; a frame is therefore judged as
# a whole before the first of several literals takes a part of it.


E = TypeVar("E", bound=SockServerError)


class DeclaredScript(Demand):
    """A script and for which connections it is.  Guarded by the recorder's lock.

    Args:
        values: Further names, of a dialogue.
    """

    def __init__(
        self, script: Script, times: Times, rules: Rules, values: Mapping[str, Any], recorder: Recorder
    ) -> None:
        # Not the script itself: when its user lets it go it is known to be whole.
        self.steps, self.captured, self.origin = script.steps, script.captured, script.origin
        self.declaring = UnfinishedDeclaration(recorder, script)
        script.grown = self.declaring.went_on
        self.times, self.rules, self.values = times, rules, values
        self.owner = running()
        self.taken = 0
        self._told = False

    @property
    def left(self) -> bool:
        """Whether it is for a further connection."""
        return self.times.most is None or self.taken < self.times.most

    def check_unframed(self) -> None:
        """Refuse a step that needs frames, pointing at it."""
        step = step_needing_frames(self.steps)
        if step is not None:
            raise frames_needed(step.wants).with_traceback(step.origin.traceback())

    def take(self) -> ScriptRun:
        """Take it for a connection."""
        self.taken += 1
        return ScriptRun(self)

    def unmet(self) -> UnmetExpectation | None:
        """Return the error about too few connections; once."""
        if self.taken >= self.times.least or self._told or not self.steps:
            return None
        self._told = True
        some = f"only {self.taken} of {self.times.least} connections came"
        came = some if self.taken else "no connection came for it"
        first = self.steps[0]
        error = UnmetExpectation(f"the script at {first.origin.short}, of {counted(self.steps)}, was not taken: {came}")
        error.placed = True
        return error.with_traceback(first.origin.traceback())


def counted(steps: Sequence[Step]) -> str:
    """Return how many steps there are, in words."""
    return f"{len(steps)} step{'' if len(steps) == 1 else 's'}"


class _RulesTookIt(Exception):
    """A frame that a step did not match was answered by the rules."""


class ScriptRun(Demand):
    """The driver that performs a script on one connection.

    Attributes:
        over: It has come to its end, good or bad.
    """

    is_raw = False
    is_under_way = True

    def __init__(self, declared: DeclaredScript) -> None:
        self._declared, self.owner = declared, declared.owner
        self._steps = declared.steps
        self._rules = declared.rules
        self._agenda = Agenda(declared.steps)  # changed by the connection's thread, under the lock
        self._lock = original.RLock()  # guards the agenda against who verifies
        self._vouched = 0  # bytes of the frame that is being taken in pieces, and that is the steps' as a whole
        self._now: Item | None = None  # what is being performed
        self._connection: Conversation | None = None
        self._answering = False  # a rule answers what the step did not match
        self._told = False
        self._had_all = False  # nothing more was demanded when it came to its end
        self.over = False

    def run(self, connection: Conversation) -> None:
        """Perform the steps, then answer by the rules, until the client ends its stream."""
        self._connection = connection
        connection.values = self._declared.values
        # Before the first step: from here on the client is expected to speak.
        connection.waits_for_start = False
        if not connection.stream.secured and any(step.verb == "start_tls" for step in self._steps):
            connection.stream.may_begin_tls = True
        if connection.framing is None and (step := step_needing_frames(self._steps)) is not None:
            self.over = True
            raise frames_needed(step.wants).with_traceback(step.origin.traceback())
        try:
            self._run(connection)
        except OSError as error:
            # A reset by the client in the midst of the script: what it has not sent explains more than the reset.
            unmet = self.unmet() if error is connection.tape.peer_error else None
            raise unmet or error from None
        except (ScriptMismatch, DeadlineExceeded) as error:
            if self._told:
                raise ServerStopping(f"told already: {error.summary}") from None
            raise
        finally:
            if not connection.tape.cut or connection.ended_by_fault:
                self._had_all = not self._demanded()
                self.over = True

    def _run(self, connection: Conversation) -> None:
        while True:
            with self._lock:
                item = self._agenda.now
            if item is not None:
                self._perform_item(connection, item)
            elif connection.tape.server_ended or not self._after_the_last(connection):
                return

    def _perform_item(self, connection: Conversation, item: Item) -> None:
        if item.step.verb == "maybe" and not self._demanded():
            connection.await_input_or(partial(self._has_more_than, len(self._steps)))  # nothing demanded: no deadline
        try:
            taken = self._perform(connection, item)
        except _RulesTookIt:
            with self._lock:
                self._agenda.look_again()
            return
        with self._lock:
            if taken:
                self._agenda.took()
            else:
                self._agenda.pass_over()

    def _has_more_than(self, known: int) -> bool:
        return len(self._steps) > known

    def _demanded(self) -> list[Item]:
        with self._lock:
            return self._agenda.demanded()

    def _after_the_last(self, connection: Conversation) -> bool:
        """Answer by the rules, or wait for the client's end; tell whether there is something to be performed again."""
        connection.waits_for_start, self._now = True, None  # a client that stays connected is no error
        agenda = self._agenda
        # In this order: once nobody can add a step, a look that finds none is final.
        if self._declared.declaring.over and not agenda.has_grown() and not agenda.passed:
            return self._to_the_end(connection)  # it can't grow: no need to look out for that
        while connection.await_input_or(agenda.has_grown):
            if not agenda.has_grown():
                if connection.is_at_its_end():
                    if self._rules and self._rules.framing_for(connection) is not None:
                        self._rules.answer_next(connection)  # a stream without a byte may be a request
                    return False
                self._declared.declaring.wait(agenda.has_grown)
            if agenda.has_grown():
                break
            if not self._rules:
                return self._refuse_leftovers(connection)
            if connection.tape.server_ended or not self._rules.answer_next(connection):
                return False
            if agenda.passed:
                with self._lock:
                    agenda.look_again()
                break
        connection.waits_for_start = False
        return True

    def _to_the_end(self, connection: Conversation) -> bool:
        if not self._rules:
            return self._refuse_leftovers(connection)
        self._rules.answer_all(connection)
        return False

    def _refuse_leftovers(self, connection: Conversation) -> bool:
        data = connection.read(Recv(sys.maxsize), name="script", raw=True)
        if not data:
            return False
        where, traceback = "the script is over", self._declared.origin.traceback()
        if self._steps:
            last = self._steps[-1]
            where = f"after step {len(self._steps)} of {len(self._steps)}, {last.origin.short}"
            traceback = last.origin.traceback()
        raise _placed(
            connection, ScriptMismatch, f"{where}, expected the end of the stream\n  got {shortened(data)}", traceback
        )

    # One step

    def _perform(self, connection: Conversation, item: Item) -> bool:
        """Perform a step; tell whether it was, and not skipped."""
        self._now, step = item, item.step
        if step.at:
            self._wait_until(connection, connection.tape.began + step.at)
        try:
            return _VERBS.get(step.verb, ScriptRun._verb)(self, connection, step)
        except (ScriptMismatch, DeadlineExceeded, EndOfStream) as error:
            # `_answering` is not reset where the rules raise, so that their error is known here as theirs.
            if error.placed or self._answering:  # it is a rule's
                raise
            raise _placed_at(connection, error, item) from None
        except (TypeError, ValueError, InvalidState) as error:
            raise pointing_at(error, step.origin) from None

    def _wait_until(self, connection: Conversation, moment: float) -> None:
        left = connection.tape.recorder.began + moment - original.monotonic()
        if left > 0:
            run_in_thread(pause(connection, left), connection)

    def _verb(self, connection: Conversation, step: Step) -> bool:
        if step.verb in READING:
            connection.read(step.taking, step.options.get("timeout"))
        else:  # close, reset, send_eof, start_tls
            getattr(connection.face, step.verb)(*step.args, **step.options)
        return True

    def _send(self, connection: Conversation, step: Step) -> bool:
        connection.send_in_thread(step.args, connection.latest, connection.timeout)
        return True

    def _switch(self, connection: Conversation, step: Step) -> bool:
        connection.framing = step.args[0]
        return True

    def _open(self, connection: Conversation, step: Step) -> bool:
        connection.context.gates.open(step.args[0])
        return True

    def _expect(self, connection: Conversation, step: Step) -> bool:
        """Take what is demanded; what is not is offered to the rules."""
        if self._departs_within_its_frame(connection, step):
            raise _RulesTookIt
        try:
            self._try(connection, step)
        except ScriptMismatch:
            if self._rules_take_what_came(connection):
                raise _RulesTookIt from None
            raise
        return True

    def _try(self, connection: Conversation, step: Step) -> None:
        """Take what a step demands.  A mismatch has no conversation: chatter would write all of it, each time."""
        # Whether a mismatch is reported is known only after the rules were asked.
        connection.probing = True
        try:
            connection.read(step.taking, step.options.get("timeout"))
        finally:
            connection.probing = False

    def _maybe(self, connection: Conversation, step: Step) -> bool:
        """Take the step if it is what comes next; what belongs to it follows."""
        first = step.steps[0]
        try:
            self._try(connection, first)
        except ScriptMismatch:
            return False
        return True

    def _hand_over(self, connection: Conversation, step: Step) -> bool:
        connection.waits_for_start = True
        connection.framing = step.args[0] if step.args else connection.framing
        try:
            self._rules.answer_all(connection)
        except UnexpectedRequest as error:
            raise error if self._rules else error.with_traceback(step.origin.traceback()) from None
        return True

    def _departs_within_its_frame(self, connection: Conversation, step: Step) -> bool:
        """Offer a frame to the rules that begins as a step, and goes on otherwise than those after it.

        Literals that follow one another may say one frame in pieces, as the lines of a dialogue do.  Nothing of it is
        taken before it is known whose it is.
        """
        framing = self._rules.framing_for(connection)
        if framing is None or not self._rules or step.verb != "expect" or not is_literal(step.args[0]):
            return False
        if self._vouched:
            self._vouched = max(0, self._vouched - len(shape_of(step.args[0], connection.lookup)))
            return False
        if len(list(itertools.islice(self._literals_ahead(), 2))) < 2:
            return False
        whose = WhoseFrame(framing, self._literals_ahead())
        try:
            connection.read(whose, raw=True)
            self._vouched = whose.beyond
        except (EndOfStream, DeadlineExceeded, ScriptMismatch):
            return False  # which the step itself will say
        return self._vouched < 0 and self._offer_the_frame(connection, framing)

    def _offer_the_frame(self, connection: Conversation, framing: Framing) -> bool:
        """Offer the frame that has come, all of it, to the rules; it stays where it is if they do not take it."""
        self._vouched = 0
        frame = connection.read(Frame(framing), name="rules", raw=True)
        if self._answered(connection, frame):
            return True
        # No rule takes it: the step itself reads it again, and its error has the place where it differs.
        connection.stream.buffer.put_back(frame)
        return False

    def _answered(self, connection: Conversation, frame: bytes) -> bool:
        """Answer a frame by the rules; what fails there is theirs and not the step's."""
        self._answering = True
        answered = self._rules.answer(connection, frame)
        self._answering = False
        return answered

    def _literals_ahead(self) -> Iterator[Shape]:
        """Yield the literals that are demanded one after the other, from the step that is performed on."""
        at = 0
        while True:
            with self._lock:
                item = self._agenda.item(at)
            match: Any = item.step.args[0] if item is not None and item.step.verb == "expect" else None
            if not is_literal(match) or names_demanded(match):
                return
            yield shape_of(match)
            at += 1

    def _rules_take_what_came(self, connection: Conversation) -> bool:
        """Offer the frame that a step did not match to the rules; tell whether one took it."""
        buffer, framing = connection.stream.buffer, self._rules.framing_for(connection)
        if framing is None or not self._rules or not (len(buffer) or buffer.ended):
            return False
        try:
            frame = connection.read(Frame(framing), name="rules", raw=True)
        except (EndOfStream, DeadlineExceeded, ScriptMismatch):
            return False
        return self._answered(connection, frame)

    def is_whole(self) -> bool:
        """Tell whether it is known what the script demands: it demands something already, or is declared whole."""
        return bool(self._demanded()) or not self._declared.declaring.left()

    def give_back(self) -> bool:
        """Count the script as not taken by this connection, unless it demands nothing; tell whether that was done."""
        if not self._demanded():
            return False
        # The recorder's lock is held by the caller, as for take().
        self._declared.taken -= 1
        return True

    # Verifying

    def standing(self, connection: Conversation) -> str | None:
        """Return where it stands, in words; ``None`` if that was told already, or it has come to a bad end."""
        now = self._now
        if self.over or self._told:
            return None
        if now is None:
            return None if self._rules else "the script is over: the server waits for the client to close"
        what = f"expected {now.step.wants}" if demands(now.step) else repr(now.step)
        return f"the script stands at {now.place}, {now.step.origin.short}: {what}"

    def unmet(self) -> UnmetExpectation | None:
        """Return the error about what was demanded and has not come; once.  Any thread."""
        now, connection = self._now, self._connection
        if self._told or connection is None or (self.over and not self._has_grown_since()):
            return None
        waiting = self._demanded()
        if not waiting:
            return None
        self._told = True
        item = now if now is not None and demands(now.step) and not self.over else waiting[0]
        after = len(waiting) - 1
        text = f"{item.place}, {item.step.origin.short}, was never reached: expected {item.step.wants}"
        nor = "was the one after it that expects" if after == 1 else f"were the {after} after it that expect"
        text += f"\n  nor {nor} something" if after else ""
        text += hint(connection)
        return _placed(connection, UnmetExpectation, text, item.step.origin.traceback())

    def _has_grown_since(self) -> bool:
        """Tell whether the only connection that it is for was served, and steps were declared after that."""
        return self._had_all and self._declared.times.most == 1


_Performing = Callable[[ScriptRun, Conversation, Step], bool]

_VERBS: dict[str, _Performing] = {
    **dict.fromkeys(READING, ScriptRun._verb),
    "expect": ScriptRun._expect,
    "expect_line": ScriptRun._expect,
    "expect_eof": ScriptRun._expect,
    "expect_reset": ScriptRun._expect,
    "send": ScriptRun._send,
    "open_gate": ScriptRun._open,
    "framing": ScriptRun._switch,
    "maybe": ScriptRun._maybe,
    "rules": ScriptRun._hand_over,
}


def _placed_at(connection: Conversation, error: SockServerError, item: Item) -> BaseException:
    """Return an error again, with the step that it is about."""
    kind = ScriptMismatch if type(error) is EndOfStream else type(error)  # a script demands whatever it takes
    said = (error.summary or str(error)) + hint(connection)
    where, origin = item.place, item.step.origin
    return _placed(connection, kind, f"{where}, {origin.short}, {said}", origin.traceback())


def _placed(connection: Conversation, kind: type[E], text: str, traceback: TracebackType | None) -> E:
    error: E = connection.error(kind, text)
    error.placed = True
    error.__traceback__ = traceback
    return error
