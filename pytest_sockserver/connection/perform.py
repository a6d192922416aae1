"""Perform parts on a connection: what a script, a rule, a handler's ``send`` and a test's all do alike.

A generator walks through the parts and does what needs no waiting.  Where it has to wait it yields a :class:`Need`, and
whoever drives it waits: a thread in ``connection``, a coroutine in ``aio``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

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
from .deadline import Deadline
from .fault_state import FaultState, Holding
from .gates import Gates
from .request import Request

if TYPE_CHECKING:
    from ..scripting.rules import Rule
    from ..scripting.tls_effects import Context
    from .connection import Connection

__tracebackhide__ = hide_frame


ROOM: Final = "room"  # until the kernel takes bytes again
INPUT: Final = "input"  # until something can be received
PAUSE: Final = "pause"  # until ``over()`` says so, which is asked at each change of what was recorded

#: What follows one another leaves in one write, up to so many parts or bytes: a function may say bytes without an end.
#: More than replies have that are no stream, and less than the memory that a test has.
_MOST_GATHERED: Final = 10_000
_LARGEST_WRITE: Final = 16 * 1024 * 1024

Say = Callable[["Connection", bytes, float], "Iterator[Need]"]


@dataclass(frozen=True)
class Need:
    """What a driver has to wait for, and how long at most.

    Attributes:
        left: Returns the seconds that are left, ``None`` for no bound.
    """

    kind: str
    left: Callable[[], float | None]
    over: Callable[[], bool] = bool


def perform_parts(
    connection: Connection, parts: Iterable[Part], request: Request | None, timeout: float
) -> Iterator[Need]:
    """Say and do the parts, from left to right; bytes that follow one another leave in one write.

    Args:
        request: What functions among the parts are called with.
        timeout: Seconds; for each write, for a gate, and for a handshake.
    """
    call = partial(called, connection._server.transport, request)
    saying = _perform(connection, actions(parts, call, connection._lookup), timeout, say)
    return after_held(connection, saying, timeout)


def after_held(connection: Connection, saying: Iterator[Need], timeout: float) -> Iterator[Need]:
    """Say a reply, and after it what replies before it have held back until now; past injections, which it met."""
    fault_state, tape = connection._fault_state, connection._tape
    held, before = list(fault_state.held) if fault_state is not None else [], tape.sent_count
    yield from saying
    for each in held if tape.sent_count > before else ():
        each.after -= 1
        if each.after:
            continue
        fault_state = connection._begin_fault_state()
        fault_state.held.remove(each)
        if not (tape.server_ended or tape.cut or fault_state.muted):
            yield from _send(connection, each.data, timeout)


def _perform(connection: Connection, acts: Iterable[Action], timeout: float, say: Say) -> Iterator[Need]:
    said: list[bytes] = []
    size = 0
    for action in acts:
        if isinstance(action, bytes):
            said.append(action)
            size += len(action)
            if len(said) < _MOST_GATHERED and size < _LARGEST_WRITE:
                continue
        size = 0
        if said:
            yield from say(connection, b"".join(said), timeout)
            said = []
        if isinstance(action, Effect):
            connection._writing.part = action
            yield from do(connection, action, timeout)
            connection._writing.part = None
    if said:
        yield from say(connection, b"".join(said), timeout)


def do(connection: Connection, act: Effect, timeout: float) -> Iterator[Need]:
    """Do what is more than bytes."""
    return _DO[type(act)](connection, act, timeout)


def say(connection: Connection, data: bytes, timeout: float) -> Iterator[Need]:
    """Send bytes, all of them; or what an injection makes of them."""
    if connection._fault_state is not None:
        return _say_uneasily(connection, connection._fault_state, data, timeout)
    return _send(connection, data, timeout)


def _say_uneasily(connection: Connection, fault_state: FaultState, data: bytes, timeout: float) -> Iterator[Need]:
    if fault_state.muted:
        return
    tape = connection._tape
    injection = None
    if data and not tape.server_ended:  # else there is nothing to change: the send raises that it is over
        probes = connection._server._probes
        probes.look(but=connection)
        used = partial(probes.used_unless_known, connection)
        injection = connection._server._injections.hit(SENT, tape, used=used)
    if injection is None:
        yield from _send(connection, data, timeout)
        return
    fault_rule = injection.fault_rule
    made = partial(made_of, connection._server.transport, data)
    acts = actions(fault_rule.parts, made, connection._lookup, lambda: [data])
    try:
        yield from _perform(connection, _muting(acts, fault_state), timeout, _send)
    except ServerStopping:
        raise
    except Exception as error:
        connection._end_by_failed_injection(error, fault_rule.origin)
    connection._stop_if_ended()


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


def _send(connection: Connection, data: bytes, timeout: float) -> Iterator[Need]:
    return _until_taken(connection, connection._stream.send(data), data, timeout)


def _until_taken(connection: Connection, steps: Iterator[bool], data: bytes, timeout: float) -> Iterator[Need]:
    """Wait for room whenever the kernel takes no more of some bytes."""
    deadline = Deadline(timeout)
    for _ in steps:
        yield Need(ROOM, deadline.left)
        if not deadline.left():
            raise connection._unread(data, deadline)


def pause(seconds: float) -> Need:
    """Return the need of so many seconds; a stop ends it early."""
    until = original.monotonic() + seconds
    return Need(PAUSE, lambda: max(0.0, until - original.monotonic()))


def pass_gate(gates: Gates, name: str, timeout: float) -> Iterator[Need]:
    """Wait for a gate.

    Raises:
        TimeoutError: Nobody opened it; the text is a summary.
    """
    deadline = Deadline(timeout)
    before = gates.opened(name)
    if not gates.lets_go(name, before):
        yield Need(PAUSE, deadline.left, lambda: gates.lets_go(name, before))
        if not gates.lets_go(name, before):
            raise TimeoutError(
                f"the gate {name!r} was not opened within {deadline}: server.open_gate({name!r}) opens it"
            )


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


def _close(connection: Connection, part: Close, timeout: float) -> Iterator[Need]:
    connection._stream.refuse_detached("close")
    if connection._driven_elsewhere(writing=True):
        connection._stream.close_from_outside()
        return
    for seconds in connection._stream.close(part.notify):
        yield Need(INPUT, pause(seconds).left)


def _reset(connection: Connection, part: Reset, timeout: float) -> Iterator[Need]:
    connection._stream.refuse_detached("reset")
    if connection._driven_elsewhere(writing=True) and connection._stream.can_reset:
        connection._stream.reset_from_outside()
        return
    for seconds in connection._stream.reset():
        yield Need(INPUT, pause(seconds).left)


def _send_eof(connection: Connection, part: SendEof, timeout: float) -> Iterator[Need]:
    connection._stream.send_eof()
    return iter(())


def _start_tls(connection: Connection, part: StartTLS, timeout: float) -> Iterator[Need]:
    """Do the server's side of a handshake, or what a rule for it says."""
    book, outer = connection._server._handshakes, connection._handshake_part
    if outer is not None:  # among the parts of such a rule
        yield from _shake_hands(connection, part.context or outer.context, timeout)
        return
    if book is not None and book.greets(HANDSHAKE):
        yield from _await_hello(connection, Deadline(timeout))
        probe = connection._server._probes and connection._stream.has_input() and not connection._stream.peeked()
        taken = None if probe else book.greet(HANDSHAKE)
        if taken is not None:
            yield from _shake_by_rule(connection, part, *taken, timeout)
            return
    yield from _shake_hands(connection, part.context, timeout)


def _shake_hands(connection: Connection, context: Context | None, timeout: float) -> Iterator[Need]:
    deadline = Deadline(timeout)
    for writes in connection._start_tls(context, deadline):
        yield Need(ROOM if writes else INPUT, deadline.left)


def _shake_by_rule(connection: Connection, part: StartTLS, rule: Rule, count: int, timeout: float) -> Iterator[Need]:
    """Answer a handshake by a rule's parts; a connection that does not speak TLS then is over, quietly."""
    connection._handshake_part = part
    try:
        yield from perform_parts(connection, rule.reply(count), connection._request(b"", None, rule), timeout)
    except (TypeError, ValueError, DeadlineExceeded, InvalidState) as error:
        raise pointing_at(error, rule.origin) from None
    finally:
        connection._handshake_part = None
    if not connection._stream.secured:
        yield from _close(connection, Close(), timeout)
    connection._stop_if_ended()


def _delay(connection: Connection, part: Delay, timeout: float) -> Iterator[Need]:
    yield pause(part.seconds)


def _jitter(connection: Connection, part: Jitter, timeout: float) -> Iterator[Need]:
    fault_state = connection._begin_fault_state()
    fault_state.drawn += 1
    seconds = part.drawn(connection.index, fault_state.drawn)
    _remark(connection, Remark(f"{part!r} waits {seconds:.6f} s"), timeout)
    yield pause(seconds)


def _gate(connection: Connection, part: Gate, timeout: float) -> Iterator[Need]:
    try:
        yield from pass_gate(connection._server._gates, part.name, timeout)
    except TimeoutError as late:
        raise connection._error(DeadlineExceeded, str(late)) from None


def _open(connection: Connection, part: OpenGate, timeout: float) -> Iterator[Need]:
    connection._server.open_gate(part.name)
    return iter(())


def _stall(connection: Connection, part: Stall, timeout: float) -> Iterator[Need]:
    yield Need(PAUSE, lambda: None)


def _end_after(connection: Connection, part: EndAfter, timeout: float) -> Iterator[Need]:
    connection._server._end_later(connection, part.seconds, reset=isinstance(part.end, Reset))
    return iter(())


def _read_slowly(connection: Connection, part: ReadSlowly, timeout: float) -> Iterator[Need]:
    connection._begin_fault_state().pace = part.size, part.pause
    return iter(())


def _urgent(connection: Connection, part: Urgent, timeout: float) -> Iterator[Need]:
    connection._stream.send_urgent(part.byte)
    return iter(())


def _descriptors(connection: Connection, part: Descriptors, timeout: float) -> Iterator[Need]:
    return _until_taken(connection, connection._stream.send_descriptors(part.data, part.files), part.data, timeout)


def _alert(connection: Connection, part: Alert, timeout: float) -> Iterator[Need]:
    if connection._stream.secured:
        raise UnsupportedFault(
            f"{part!r} cannot be sent once TLS has begun: Python's ssl sends no alert of ours; "
            "Raw.bad_record() makes the client end it"
        )
    # Said before the handshake has begun, it is taken for what was said in plain text.
    deadline = Deadline(timeout)
    yield from _await_hello(connection, deadline)
    if not connection._stream.has_input():
        raise connection._error(DeadlineExceeded, f"an alert waited {deadline} for the client's handshake")
    yield from _send(connection, part.record, timeout)
    yield from _close(connection, Close(), timeout)  # a fatal alert is the end (RFC 8446 section 6.2)


def _await_hello(connection: Connection, deadline: Deadline) -> Iterator[Need]:
    """Wait for the first byte of a handshake, or the end of the stream, for as long as a handshake may take."""
    while not connection._stream.has_input() and deadline.left() != 0.0:
        yield Need(INPUT, deadline.left)


def _raw(connection: Connection, part: Raw, timeout: float) -> Iterator[Need]:
    if not connection._stream.secured:
        return _send(connection, part.data, timeout)
    _remark(connection, Remark(f"past TLS, {len(part.data)} bytes: {shortened(part.data)}"), timeout)
    return _until_taken(connection, connection._stream.send_raw(part.data), part.data, timeout)


def _hold(connection: Connection, part: Held, timeout: float) -> Iterator[Need]:
    connection._begin_fault_state().held.append(Holding(part.data, part.after))
    return iter(())


def _endless(connection: Connection, part: Endless, timeout: float) -> Iterator[Need]:
    connection._begin_fault_state().endless = True
    return iter(())


def _remark(connection: Connection, part: Remark, timeout: float) -> Iterator[Need]:
    connection._tape.note(NOTE, part.text.encode("utf-8", "backslashreplace"))
    return iter(())


_DO: dict[type, Callable[[Connection, Any, float], Iterator[Need]]] = {
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
