"""Perform parts on a connection: what a script, a rule, a handler's ``send`` and a test's all do alike.

All of it is operations.  What a part does stands in one function of its own, in the table at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from ..errors.exceptions import DeadlineExceeded, InvalidState, ServerStopping, UnsupportedFault
from ..errors.location import hide_frame, is_ours, pointing_at, traceback_at_definition
from ..faults.fault_rule import SENT
from ..originals import original
from ..recording.events import NOTE
from ..scripting.effects import (
    Close,
    Delay,
    Descriptors,
    EndAfter,
    Gate,
    Jitter,
    OpenGate,
    ReadSlowly,
    Reset,
    SendEof,
    Stall,
    Urgent,
)
from ..scripting.matching import shortened
from ..scripting.parts import Action, Effect, Endless, Function, Held, Part, Remark, actions, check_fit, parts_of, shown
from ..scripting.rules import HANDSHAKE
from ..scripting.tls_effects import Alert, Raw, StartTLS
from ..transport.stream import CHUNK
from .deadline import Deadline
from .fault_state import FaultState, Holding
from .gates import Gates
from .request import Request
from .waits import Operation, Wait

if TYPE_CHECKING:
    from ..faults.active import Injection
    from ..scripting.rules import Rule
    from ..scripting.tls_effects import Context
    from .conversation import Conversation

__tracebackhide__ = hide_frame

# Two kinds of iterator meet here.  *Actions* say what comes next: bytes, or an effect.  They are pulled one by one,
# since a reply function runs, and a template is filled, at its turn.  *Operations* say what is waited for.
#
# Order, and what goes wrong otherwise:
#
# - The caller has the turn to send before ``perform_parts`` begins and keeps it to the end, also through parts that
#   wait.  Without it, a push could come between two parts of one reply.
# - Bytes are gathered before an effect and are sent before it is done.  So ``b"a", Delay(1)`` never delays the ``a``.
# - An injection is chosen for a write, not for a part: after gathering, before the kernel.  Its own bytes go through
#   ``_send``, which asks for no injection, so that no fault is injected into a fault.
# - Injections are looked for again after each wait for room, and what the kernel has not taken yet is then a write of
#   its own.  Chosen once before the loop, a fault that begins while a sender stands in its wait would be missed.
# - A held reply is sent after the reply that makes it due, and past injections: it met them when it was made.
#
# Each effect is one function of the table at the end.  It may be called with the connection ended by another thread at
# any moment, so it takes the socket by ``socket_for``, or through the stream, which raises what the end means.
# An effect that ends the connection takes two ways.  Where this thread is the one that reads, it closes, and waits as
# the stream says.  Where another thread may be inside a call on the descriptor, it only ends the stream from outside.
#
# An operation that has nothing to wait for is ``nothing()``: the work is done when its function returns.
#
# Not done here: checks whether the transport has a part.  That is judged where parts are declared; only what functions
# return has to be judged here.


#: What follows one another leaves in one write, up to so many parts or bytes: a function may say bytes without an end.
#: More than replies have that are no stream, and less than the memory that a test has.
_MOST_GATHERED: Final = 10_000
_LARGEST_WRITE: Final = 16 * 1024 * 1024

Send = Callable[["Conversation", bytes, float], "Operation[None]"]


def perform_parts(
    conversation: Conversation, parts: Iterable[Part], request: Request | None, timeout: float
) -> Operation[None]:
    """Say and do the parts, from left to right; bytes that follow one another leave in one write.

    Args:
        request: What functions among the parts are called with.
        timeout: Seconds; for each write, for a gate, and for a handshake.
    """
    call = partial(called, conversation.context.transport, request)
    sending = _perform(conversation, actions(parts, call, conversation.lookup), timeout, send)
    return after_held(conversation, sending, timeout)


def after_held(conversation: Conversation, sending: Operation[None], timeout: float) -> Operation[None]:
    """Say a reply, and after it what replies before it have held back until now; past injections, which it met."""
    fault_state, tape = conversation.fault_state, conversation.tape
    # Copied before the reply: what this reply itself holds back counts the replies after it.
    held, before = list(fault_state.held) if fault_state is not None else [], tape.sent_count
    yield from sending
    # A reply that sent no byte is none for the client, and is not counted.
    for each in held if tape.sent_count > before else ():
        each.after -= 1
        if each.after:
            continue
        fault_state = conversation.begin_fault_state()
        fault_state.held.remove(each)
        if not (tape.server_ended or tape.cut or fault_state.muted):
            yield from _send(conversation, each.data, timeout)


def _perform(conversation: Conversation, acts: Iterable[Action], timeout: float, send_bytes: Send) -> Operation[None]:
    gathered: list[bytes] = []
    size = 0
    for action in acts:
        if isinstance(action, bytes):
            gathered.append(action)
            size += len(action)
            if len(gathered) < _MOST_GATHERED and size < _LARGEST_WRITE:
                continue
        size = 0
        if gathered:
            yield from send_bytes(conversation, b"".join(gathered), timeout)
            gathered = []
        if isinstance(action, Effect):
            # Shown by the error of a send that waits for this turn in vain.
            conversation.send_lock.part = action
            yield from do(conversation, action, timeout)
            conversation.send_lock.part = None
    if gathered:
        yield from send_bytes(conversation, b"".join(gathered), timeout)


def do(conversation: Conversation, act: Effect, timeout: float) -> Operation[None]:
    """Do what is more than bytes."""
    return _DO[type(act)](conversation, act, timeout)


def send(conversation: Conversation, data: bytes, timeout: float, sent: int = 0) -> Operation[None]:
    """Send bytes, all of them; or what an injection makes of them.  One that begins meanwhile gets what is left.

    Args:
        sent: So many of them the kernel has taken already.
    """
    # The one look that faults cost where there are none.
    if conversation.fault_state is not None:
        return _send_faulty(conversation, conversation.fault_state, data[sent:], timeout)
    return _send(conversation, data, timeout, sent, is_injectable=True)


def _send_faulty(
    conversation: Conversation,
    state: FaultState,
    data: bytes,
    timeout: float,
    known: Sequence[Injection] = (),
) -> Operation[None]:
    # ``known``: those that have met this write already, and for which its rest is no further one.
    if state.muted:
        return
    tape = conversation.tape
    injection = None
    if data and not tape.server_ended:  # else there is nothing to change: the send raises that it is over
        probes = conversation.context.probes
        probes.look(but=conversation)
        used = partial(probes.used_unless_known, conversation)
        injection = conversation.context.injections.hit(SENT, tape, but=known, used=used)
    if injection is None:
        yield from _send(conversation, data, timeout, is_injectable=True)
        return
    fault_rule = injection.fault_rule
    made = partial(made_of, conversation.context.transport, data)
    acts = actions(fault_rule.parts, made, conversation.lookup, lambda: [data])
    try:
        yield from _perform(conversation, _muting(acts, state), timeout, _send)
    # A stop while the fault is performed is no failure of the fault.
    except ServerStopping:
        raise
    except Exception as error:
        conversation.end_by_failed_injection(error, fault_rule.origin)
    conversation.stop_if_ended()


def _muting(acts: Iterable[Action], fault_state: FaultState) -> Iterator[Action]:
    """Yield the actions; once the stream was ended among them, what is said further is dropped."""
    for action in acts:
        yield action
        fault_state.muted |= isinstance(action, SendEof)


def made_of(transport: str, data: bytes, function: Function) -> Iterator[Part]:
    """Yield the parts that a function makes of what was to be said, or was heard; checked."""
    for part in parts_of(function(data), shown(function)):
        check_fit([part], transport, shown(function))
        yield part


def _send(
    conversation: Conversation, data: bytes, timeout: float, sent: int = 0, *, is_injectable: bool = False
) -> Operation[None]:
    # ``known`` is the tuple itself: it is replaced and never changed, so this needs no lock.  Below, only an
    # injection that begins from here on is looked for.
    injections, deadline = conversation.context.injections, None
    known = injections.sent
    if not data:
        conversation.stream.socket_for("send on")
        return
    while True:
        sent += conversation.stream.offer(data[sent : sent + CHUNK] if sent or len(data) > CHUNK else data)
        if sent >= len(data):
            return
        # The deadline begins with the first refusal of the kernel.  Progress does not renew it.
        deadline = deadline or Deadline(timeout)
        if not deadline.left():
            raise conversation.unread(data, deadline)
        yield Wait(writable=True, until=deadline.at)
        if is_injectable and any(each not in known for each in injections.sent):
            yield from _send_faulty(conversation, conversation.begin_fault_state(), data[sent:], timeout, known)
            return


def _until_taken(conversation: Conversation, steps: Iterator[bool], data: bytes, timeout: float) -> Operation[None]:
    """Wait for room whenever the kernel takes no more of some bytes."""
    deadline = Deadline(timeout)
    for _ in steps:
        if not deadline.left():
            raise conversation.unread(data, deadline)
        yield Wait(writable=True, until=deadline.at)


class Stoppable(Protocol):
    """A conversation, or a peer of datagrams, whose server may stop."""

    def check_cut(self) -> None:
        """Raise if this side has ended it, or is about to."""


def pause(waiting: Stoppable, seconds: float) -> Operation[None]:
    """Wait for so many seconds; a stop ends it early."""
    until = original.monotonic() + seconds
    while original.monotonic() < until:
        yield Wait(until=until)
        waiting.check_cut()


def pass_gate(waiting: Stoppable, gates: Gates, name: str, timeout: float) -> Operation[None]:
    """Wait for a gate.

    Raises:
        TimeoutError: It was not opened in time; the text is a summary.
    """
    deadline = Deadline(timeout)
    # The count is taken first: a gate that is opened and cleared again before the next look has let this one go.
    before = gates.opened(name)
    while not gates.lets_go(name, before):
        if not deadline.left():
            raise TimeoutError(
                f"the gate {name!r} was not opened within {deadline}: server.open_gate({name!r}) opens it"
            )
        yield Wait(until=deadline.at)
        waiting.check_cut()


def called(transport: str, request: Request | None, function: Function) -> Iterator[Part]:
    """Call a reply function; yield the parts that it returned, checked."""
    if request is None:
        raise InvalidState(f"{shown(function)} was to be called with a request, and the client has sent none yet")
    try:
        for part in parts_of(function(request), shown(function)):
            check_fit([part], transport, shown(function))
            yield part
    except (TypeError, ValueError) as error:
        last = error.__traceback__
        while last is not None and last.tb_next is not None:
            last = last.tb_next
        if last is None or not is_ours(last.tb_frame):
            raise
        # About what it returned: it is no longer running, so point at its def.
        raise error.with_traceback(traceback_at_definition(function)) from None


def nothing() -> Operation[None]:
    """Return the operation of what is done already."""
    return
    yield


def _close(conversation: Conversation, part: Close, timeout: float) -> Operation[None]:
    conversation.stream.refuse_detached("close")
    if conversation.is_driven_elsewhere(writing=True):
        conversation.stream.close_from_outside()
        return
    for seconds in conversation.stream.close(part.notify):
        yield Wait(readable=True, until=original.monotonic() + seconds)


def _reset(conversation: Conversation, part: Reset, timeout: float) -> Operation[None]:
    conversation.stream.refuse_detached("reset")
    if conversation.is_driven_elsewhere(writing=True) and conversation.stream.can_reset:
        conversation.stream.reset_from_outside()
        return
    for seconds in conversation.stream.reset():
        yield Wait(readable=False, until=original.monotonic() + seconds)


def _send_eof(conversation: Conversation, part: SendEof, timeout: float) -> Operation[None]:
    conversation.stream.send_eof()
    return nothing()


def _start_tls(conversation: Conversation, part: StartTLS, timeout: float) -> Operation[None]:
    """Do the server's side of a handshake, or what a rule for it says."""
    book, outer = conversation.context.handshakes, conversation.handshake_part
    if outer is not None:  # among the parts of such a rule
        yield from _shake_hands(conversation, part.context or outer.context, timeout)
        return
    if book is not None and book.greets(HANDSHAKE):
        yield from _await_hello(conversation, Deadline(timeout))
        # Where probes are ignored, a client that leaves without a byte uses up no rule.
        probe = conversation.context.probes and conversation.stream.has_input() and not conversation.stream.peeked()
        taken = None if probe else book.greet(HANDSHAKE)
        if taken is not None:
            yield from _shake_by_rule(conversation, part, *taken, timeout)
            return
    yield from _shake_hands(conversation, part.context, timeout)


def _shake_hands(conversation: Conversation, context: Context | None, timeout: float) -> Operation[None]:
    return conversation.starting_tls(context, Deadline(timeout))


def _shake_by_rule(
    conversation: Conversation, part: StartTLS, rule: Rule, count: int, timeout: float
) -> Operation[None]:
    """Answer a handshake by a rule's parts; a connection that does not speak TLS then is over, quietly."""
    conversation.handshake_part = part
    try:
        yield from perform_parts(conversation, rule.reply(count), conversation.make_request(b"", None, rule), timeout)
    except (TypeError, ValueError, DeadlineExceeded, InvalidState) as error:
        raise pointing_at(error, rule.origin) from None
    finally:
        conversation.handshake_part = None
    if not conversation.stream.secured:
        yield from _close(conversation, Close(), timeout)
    conversation.stop_if_ended()


def _delay(conversation: Conversation, part: Delay, timeout: float) -> Operation[None]:
    return pause(conversation, part.seconds)


def _jitter(conversation: Conversation, part: Jitter, timeout: float) -> Operation[None]:
    fault_state = conversation.begin_fault_state()
    fault_state.drawn += 1
    seconds = part.drawn(conversation.index, fault_state.drawn)
    _remark(conversation, Remark(f"{part!r} waits {seconds:.6f} s"), timeout)
    yield from pause(conversation, seconds)


def _gate(conversation: Conversation, part: Gate, timeout: float) -> Operation[None]:
    try:
        yield from pass_gate(conversation, conversation.context.gates, part.name, timeout)
    except TimeoutError as late:
        raise conversation.error(DeadlineExceeded, str(late)) from None


def _open(conversation: Conversation, part: OpenGate, timeout: float) -> Operation[None]:
    conversation.context.gates.open(part.name)
    return nothing()


def _stall(conversation: Conversation, part: Stall, timeout: float) -> Operation[None]:
    # No time and no socket: only a ring ends it, and ``kernel.cut`` rings.
    while True:
        yield Wait()
        conversation.check_cut()


def _end_after(conversation: Conversation, part: EndAfter, timeout: float) -> Operation[None]:
    conversation.context.end_later(conversation, part.seconds, reset=isinstance(part.end, Reset))
    return nothing()


def _read_slowly(conversation: Conversation, part: ReadSlowly, timeout: float) -> Operation[None]:
    conversation.begin_fault_state().pace = part.size, part.pause
    return nothing()


def _urgent(conversation: Conversation, part: Urgent, timeout: float) -> Operation[None]:
    conversation.stream.send_urgent(part.byte)
    return nothing()


def _descriptors(conversation: Conversation, part: Descriptors, timeout: float) -> Operation[None]:
    return _until_taken(conversation, conversation.stream.send_descriptors(part.data, part.files), part.data, timeout)


def _alert(conversation: Conversation, part: Alert, timeout: float) -> Operation[None]:
    if conversation.stream.secured:
        raise UnsupportedFault(
            f"{part!r} cannot be sent once TLS has begun: Python's ssl sends no alert of ours; "
            "Raw.bad_record() makes the client end it"
        )
    # Said before the handshake has begun, it is taken for what was said in plain text.
    deadline = Deadline(timeout)
    yield from _await_hello(conversation, deadline)
    if not conversation.stream.has_input():
        raise conversation.error(DeadlineExceeded, f"an alert waited {deadline} for the client's handshake")
    yield from _send(conversation, part.record, timeout)
    yield from _close(conversation, Close(), timeout)  # a fatal alert is the end (RFC 8446 section 6.2)


def _await_hello(conversation: Conversation, deadline: Deadline) -> Operation[None]:
    """Wait for the first byte of a handshake, or the end of the stream, for as long as a handshake may take."""
    while not conversation.stream.has_input() and deadline.left() != 0.0:
        yield Wait(readable=True, until=deadline.at)


def _raw(conversation: Conversation, part: Raw, timeout: float) -> Operation[None]:
    if not conversation.stream.secured:
        return _send(conversation, part.data, timeout)
    _remark(conversation, Remark(f"past TLS, {len(part.data)} bytes: {shortened(part.data)}"), timeout)
    return _until_taken(conversation, conversation.stream.send_raw(part.data), part.data, timeout)


def _hold(conversation: Conversation, part: Held, timeout: float) -> Operation[None]:
    conversation.begin_fault_state().held.append(Holding(part.data, part.after))
    return nothing()


def _endless(conversation: Conversation, part: Endless, timeout: float) -> Operation[None]:
    conversation.begin_fault_state().endless = True
    return nothing()


def _remark(conversation: Conversation, part: Remark, timeout: float) -> Operation[None]:
    conversation.tape.note(NOTE, part.text.encode("utf-8", "backslashreplace"))
    return nothing()


_DO: dict[type, Callable[[Conversation, Any, float], Operation[None]]] = {
    Close: _close,
    Reset: _reset,
    SendEof: _send_eof,
    EndAfter: _end_after,
    StartTLS: _start_tls,
    Alert: _alert,
    Raw: _raw,
    Delay: _delay,
    Jitter: _jitter,
    Gate: _gate,
    OpenGate: _open,
    Stall: _stall,
    ReadSlowly: _read_slowly,
    Urgent: _urgent,
    Descriptors: _descriptors,
    Held: _hold,
    Endless: _endless,
    Remark: _remark,
}
