"""Perform what was declared on a connection: this is what runs in a connection's thread.

A *responder*, or driver, is handed a :class:`Conversation`: a handler (``handler.py``), a script (``script_run.py``),
the rules, or nobody, where something was declared and nothing is left for this connection.  However it ends, the same
things happen in the same order:

1. A failure is recorded.  Before anything the client can notice: the client's next line, and with it
   the end of the test, may follow at once.
2. The connection ends: cleanly after a return, by a reset after a failure.  Never does a word of the
   failure go to the client.
3. The thread says that it is done.
"""

from __future__ import annotations

import errno
from functools import partial

from ..connection.conversation import Conversation, Responder
from ..connection.deadline import Deadline
from ..connection.probes import hint_at, leaves_in_silence, left_in_silence
from ..errors.exceptions import (
    THE_SERVER_STOPS,
    DeadlineExceeded,
    EndOfStream,
    IncompleteRequest,
    InvalidState,
    ScriptMismatch,
    ServerStopping,
    SockServerError,
    UnexpectedRequest,
)
from ..errors.location import Location, from_users_frame, hide_frame, pointing_at
from ..recording.events import NOTE
from ..recording.failures import IN_THE_CLEAN_UP, Failures, said_shortly
from ..recording.recorder import Tape
from ..scripting.buffer import QUOTED
from ..scripting.framing import Framing
from ..scripting.matching import Shape
from ..scripting.parts import Part
from ..scripting.rules import CONNECT, Moment, Rule
from ..scripting.tls_effects import StartTLS
from ..scripting.verbs import NEXT_FRAME, Frame, OneOf, Recv, Verb
from ..transport.stream import CHUNK
from .rulebook import RuleBook, refusal

__tracebackhide__ = hide_frame

# Whether an exception is a failure is decided here, by what the connection knows of its own end:
#
# - The client has ended its stream, or has reset it: the verbs raise an object that the stream keeps.  It is compared
#   by identity.  An exception of the same class may come from another socket of the handler, and is then the handler's
#   failure.
# - This side has cut the connection, and the driver has noticed (`saw_cut`): what it makes of that, by
#   `raise ... from`, is quiet.  What its clean-up fails with is a late failure, and a warning.
# - The driver has not noticed the cut: it failed by itself, and that counts.  Exempt is an error that only an ended
#   stream gives.  Where the socket was handed over nobody knows what the driver noticed, and its failure is a late one.
#
# The failure is recorded before the reset, and the reset is sent before the thread is done: a wait of the test that
# ends by the failure, and a client that notices the reset, both find the record complete.
#
# A reply holds the connection's turn from before the request is recorded to the end of its last part.  A wait of the
# test that sees the request may send at once, and its bytes must come after the reply.
#
# Not done: a driver is not interrupted.  It notices an end at its next use of the socket, or by the error of the call
# in which it blocks.  What it has sent is not taken back.


_RECV = Recv(CHUNK)


def perform(connection: Conversation, driver: Responder, failures: Failures) -> None:
    """Run a driver on a connection to its end.  Never raises."""
    try:
        # A raw driver has the socket itself: nothing here reads or frames for it, and faults stand in front of the
        # socket.
        if driver.is_raw:
            connection.stream.make_blocking()
            connection.interpose()
        else:
            connection.begin_inbound_fault()
        driver.run(connection)
        if driver.is_raw:
            connection.keep_whole_stream()
        if not connection.stream.detached:
            connection.close()
    except BaseException as error:  # pytest.fail() and skip() are no Exceptions
        if driver.is_raw:
            connection.keep_whole_stream()
        _end(connection, error, failures)


def begin_tls(connection: Conversation, failures: Failures) -> bool:
    """Do the server's side of a client's handshake, before anything else.  Never raises.

    Returns:
        Whether the connection speaks TLS now; if not, it is over.
    """
    try:
        connection.send_in_thread((StartTLS(),), None, connection.timeout)
    except BaseException as error:
        _end(connection, error, failures)
        return False
    if connection.stream.secured and not connection.tape.server_ended and not connection.tape.cut:
        return True
    connection.close()
    return False


def _end(connection: Conversation, error: BaseException, failures: Failures) -> None:
    """End a connection whose driver has raised: quietly, if the error only says that the connection has ended."""
    from_users_frame(error)
    if blameless(connection, error):
        _note_end(connection, error)
        if not connection.stream.detached:
            connection.close()
        return
    if _is_of_the_clean_up(connection, error):
        failures.add(error, connection.where(), late=IN_THE_CLEAN_UP)
        _note_end(connection, error)
        connection.close()
        return
    connection.context.failures.record(error, connection.where(), connection.tape.began)
    _note(connection.tape, said_shortly(error))
    connection.stream.reset_now()


class OfVerbs:
    """A responder that uses the verbs, and of which there is nothing to remark while it waits."""

    is_raw = False

    def standing(self, connection: Conversation) -> str | None:
        """Return nothing."""
        return None


class Rules(OfVerbs):
    """The driver that answers by rules.

    Args:
        books: Those that are asked, in this order.
        lines: The framing on a connection that has none, if there is one.
    """

    def __init__(self, *books: RuleBook, lines: Framing | None = None) -> None:
        self._books = books
        self._lines = lines

    def __bool__(self) -> bool:
        return any(self._books)

    def run(self, connection: Conversation) -> None:
        """Greet the client, and answer until it has ended its stream, or a reply has."""
        self.check(self.framing_for(connection))
        if (
            connection.connected_before_declaration and not self._greets()
        ):  # the greeting may be declared a moment later
            connection.await_input_or(self._greets)
        self._greet(connection)
        self._answer_all(connection)

    def answer_all(self, connection: Conversation) -> None:
        """Answer until the client has ended its stream, or a reply has ended the connection."""
        self.check(self.framing_for(connection))
        self._answer_all(connection)

    def _answer_all(self, connection: Conversation) -> None:
        while not connection.tape.server_ended and self.answer_next(connection):
            pass

    def framing_for(self, connection: Conversation) -> Framing | None:
        """Return what cuts this connection now; a reply function may have switched."""
        return connection.framing or self._lines

    def check(self, framing: Framing | None) -> None:
        """Refuse rules that have no meaning without frames, pointing at the declaration."""
        if framing is None:
            for book in self._books:
                book.check_unframed()

    def answer_next(self, connection: Conversation) -> bool:
        """Take the next request and answer it; tell whether there was one."""
        try:
            unit = self._next_unit(connection)
        except (IncompleteRequest, ScriptMismatch, DeadlineExceeded) as error:
            raise self._at_a_rule(error) from None
        except EndOfStream:
            return False
        if unit and self.answer(connection, unit):  # the usual case
            return True
        # A frame without a byte: the client has sent nothing.  If no rule is for that, it was no request.
        empty = not unit and self.framing_for(connection) is not None
        if empty and connection.context.probes and left_in_silence(connection.tape):
            return False  # a probe, which the test wants ignored
        # A client that was faster than the declarations gets a moment for the next rule; on any other connection the
        # first look decides.  A frame without a byte was not offered yet, and is offered first.
        known, is_refused = len(self._books[-1]), bool(unit)
        while is_refused or not (unit or empty) or not self.answer(connection, unit):
            is_refused = False
            if not connection.connected_before_declaration or not self._books[-1].wait_for_more(known):
                if empty and not any(book.spent_for(unit, connection.lookup) for book in self._books):
                    return False
                raise self._unexpected(connection, unit)
            known, unit = len(self._books[-1]), unit if unit or empty else self._next_unit(connection)
        return True

    def answer(self, connection: Conversation, unit: bytes) -> bool:
        """Answer a request, if a rule takes it; tell whether one does."""
        for book in self._books:
            taken = book.find(unit, connection.lookup, unsure=not unit)
            if taken is not None:
                rule, count, found = taken
                _reply(connection, unit, rule, count, found)
                return True
        return False

    def _at_a_rule(self, error: BaseException) -> BaseException:
        """Let the error about what is no whole request point at the first rule: it is about all of them."""
        first = min(self._rules(), key=lambda rule: rule.number, default=None)
        return error if first is None else error.with_traceback(first.origin.traceback())

    def _next_unit(self, connection: Conversation) -> bytes:
        """Take a frame; without framing a literal, or nothing if what came is none."""
        verb: Verb = NEXT_FRAME
        if connection.framing is None:
            verb = OneOf(self._literals) if self._lines is None else Frame(self._lines)
        # Raw, so not recorded yet: the request is to carry the rule that takes it.
        unit: bytes = connection.read(verb, name="rules", raw=True)
        return unit

    def _literals(self) -> list[Shape]:
        self.check(None)
        return [shape for book in self._books for shape in book.literals()]

    def _greets(self) -> bool:
        return any(book.greets() for book in self._books)

    def standing(self, connection: Conversation) -> str | None:
        """Return what this driver waits for, in words, where a client that waits as well would not know it."""
        if self._greets() or connection.tape.sent_count or connection.tape.received_count:
            return None
        return "no rule is for CONNECT: the server waits for the client to speak first"

    def _greet(self, connection: Conversation) -> None:
        greeting = [book for book in self._books if book.greets()]
        if not greeting:
            return
        probes = connection.context.probes
        probes.look()
        taken = probes.next_for(connection, partial(_first_greeting, connection, greeting))
        if taken is None:
            if probes and leaves_in_silence(connection):
                return  # a probe itself
            raise _one_too_many(connection, [rule for book in greeting for rule in book.rules])
        _reply(connection, b"", *taken, None)

    def _rules(self) -> list[Rule]:
        return [rule for book in self._books for rule in book.rules]

    def _unexpected(self, connection: Conversation, unit: bytes) -> BaseException:
        """Return the error about a request that no rule takes, with the rules that come nearest."""
        text, origin = refusal(self._books, unit or connection.stream.buffer.peek(0, QUOTED), connection.lookup)
        error: UnexpectedRequest = connection.error(UnexpectedRequest, text)
        error.placed = origin is not None  # it names the rules' lines
        if unit or connection.stream.buffer.end_taken:
            connection.make_request(unit, is_unit=True)  # recorded all the same: it came
        return error.with_traceback(origin.traceback() if origin is not None else None)


class RefuseConnection(OfVerbs):
    """The driver of a connection that is one too many: says what its parts say, and ends it."""

    def __init__(self, parts: tuple[Part, ...]) -> None:
        self._parts = parts

    def run(self, connection: Conversation) -> None:
        """Say the parts."""
        connection.send_in_thread(self._parts, None, connection.timeout)


class ReadOnly(OfVerbs):
    """The driver of a connection with nothing declared for it but an injection of what it receives: it only reads."""

    def run(self, connection: Conversation) -> None:
        """Read to the end of the stream; what was heard is one request, as of any stream that no verb reads."""
        while connection.read(_RECV):
            pass
        connection.keep_whole_stream()


class AnswerRest(OfVerbs):
    """The driver that answers by rules a connection which another driver has begun."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules

    def run(self, connection: Conversation) -> None:
        """Answer until the client has ended its stream, or a reply has."""
        self._rules.answer_all(connection)


class NoResponderLeft(OfVerbs):
    """The driver of a connection that nothing is left for.

    Args:
        text: What was expected instead; ``None`` if it came after the end of the test, where it is no failure.
        origin: The declaration that it is about.
    """

    def __init__(self, text: str | None, origin: Location) -> None:
        self._text, self._origin = text, origin

    def run(self, connection: Conversation) -> None:
        """Fail; but for a probe, where these are ignored."""
        if self._text is not None and connection.context.probes and leaves_in_silence(connection):
            return
        raise self.error(connection)

    def error(self, connection: Conversation) -> BaseException:
        """Return what to raise."""
        if self._text is None:
            return ServerStopping("the test is over")
        text = self._text + hint_at(connection.context.earlier(connection))
        error: UnexpectedRequest = connection.error(UnexpectedRequest, text)
        error.placed = True  # it names the declaration's line
        return error.with_traceback(self._origin.traceback())


def _first_greeting(connection: Conversation, books: list[RuleBook]) -> tuple[Rule, int] | None:
    """Take the rule that greets a connection; and note in one step with it that a probe would give it back."""
    # In one step: a look for probes in between would miss that this one has used up the rule.
    with connection.tape.recorder.lock:
        for book in books:
            taken = book.greet()
            if taken is not None:
                connection.context.probes.used(connection, partial(book.give_back, taken[0].number))
                return taken
    return None


def _one_too_many(connection: Conversation, rules: list[Rule]) -> BaseException:
    rule = next(rule for rule in rules if rule.match is CONNECT)
    text = f"expected no further connection: {rule}, on(CONNECT), greets only {rule.times.at_most}"
    text += hint_at(connection.context.earlier(connection))
    error: UnexpectedRequest = connection.error(UnexpectedRequest, text)
    error.placed = True
    return error.with_traceback(rule.origin.traceback())


def _reply(connection: Conversation, unit: bytes, rule: Rule, count: int, found: object) -> None:
    """Record a request and say what its rule answers; nobody else says anything meanwhile."""
    patient, turn = connection.waits_for_start, connection.send_lock
    # Tried at once first: nearly always the turn is free, and no deadline has to be made.
    if not turn.own(0.0, rule):
        deadline = Deadline(connection.timeout)
        if not turn.own(deadline.left() or 0.0, rule):
            raise connection.late_turn("a reply", deadline)
    connection.waits_for_start = False  # what a reply function reads is demanded
    try:
        request = connection.make_request(unit, found, rule, is_unit=not isinstance(rule.match, Moment))
        parts = rule.reply(count)
        if len(parts) == 1 and type(data := parts[0]) is bytes and connection.fault_state is None:
            connection.send_bytes(data, connection.timeout, "send")
        else:
            connection.send_in_thread(parts, request, connection.timeout)
    except (TypeError, ValueError, DeadlineExceeded, InvalidState) as error:
        raise pointing_at(error, rule.origin) from None
    finally:
        connection.waits_for_start = patient
        turn.release()


def blameless(connection: Conversation, error: BaseException) -> bool:
    """Tell whether an exception is only how a handler learns that its client, or its server, is gone."""
    tape = connection.tape
    return (
        isinstance(error, ServerStopping)
        or error is connection.stream.quiet_end
        or (bool(connection.context.probes) and left_in_silence(tape))
        or (tape.peer_error is not None and error is tape.peer_error)
        or (tape.saw_cut and (_is_raised_from_the_cut(error) or _is_of_an_ended_stream(error)))
        # The handler's own socket: we did not see how it ended.  Or ours, closed from outside before it was used.
        or (tape.cut != "" and _is_of_an_ended_stream(error, own_socket=tape.handed_over is not None))
    )


def _is_of_the_clean_up(connection: Conversation, error: BaseException) -> bool:
    """Tell whether a handler has failed by itself, and only since this side had ended its connection."""
    tape = connection.tape
    if tape.saw_cut:
        return tape.cut == THE_SERVER_STOPS or _is_raised_after_the_cut(error)
    return tape.cut != "" and tape.handed_over is not None


def _is_raised_from_the_cut(error: BaseException) -> bool:
    """Tell whether a handler's exception is what it made of the one that reported the cut.

    It did so on purpose, by ``raise ... from``, ``from None`` included; what fails in a ``finally`` does not.
    """
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, ServerStopping):
        seen = seen.__cause__ or (seen.__context__ if seen.__suppress_context__ else None)
    return seen is not None


def _is_raised_after_the_cut(error: BaseException) -> bool:
    """Tell whether a handler's exception was raised while the one that reported the cut was handled."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, ServerStopping):
        seen = seen.__cause__ or seen.__context__
    return seen is not None


def _is_of_an_ended_stream(error: BaseException, *, own_socket: bool = True) -> bool:
    """Tell whether an exception says that a stream has ended, and so comes of the cut whatever raised it.

    Not every OSError: a clean-up that does not find its file has a mistake of its own.

    Args:
        own_socket: The handler may read from something else than our socket: TLS of its own, an event loop.
    """
    if isinstance(error, ConnectionError) or getattr(error, "errno", None) in (errno.EBADF, errno.ENOTCONN):
        return True
    return own_socket and (isinstance(error, EOFError) or type(error).__module__ == "ssl")


def _note_end(connection: Conversation, error: BaseException) -> None:
    """Record what ended a handler quietly, if it is not the ordinary end."""
    if isinstance(error, SockServerError) and left_in_silence(connection.tape):
        return  # that it was a probe is noted
    if error is not connection.stream.quiet_end and not isinstance(error, ServerStopping):
        _note(connection.tape, f"after the end: {said_shortly(error)}")


def _note(tape: Tape, text: str) -> None:
    tape.note(NOTE, text.encode("utf-8", "backslashreplace"))
