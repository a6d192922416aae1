"""Give back what a probe of the port has used up: a client that connects, and leaves without sending a byte.

Whether a connection is a probe is known only when it is over: a script that begins with a greeting has to send it at
once.  So each connection gets what was declared, as it would without the option, and what it used up is counted as
unused again when its client has left.  The next client may be there before the thread that drives the probe has run,
so whoever is about to use something up looks first which clients have left by now; the kernel knows.  Where nothing is
left, but a connection has not decided yet, it waits for that.

All of this is for servers with ``ignore_probes=True`` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, TypeVar

from ..recording.events import NOTE
from ..recording.recorder import BUSY, PARKED, Recorder, Tape
from ..transport.kernel import unread
from ..transport.tapped_socket import ready
from .deadline import Deadline

if TYPE_CHECKING:
    from .conversation import Conversation

T = TypeVar("T")

#: Seconds.  A probe leaves within a millisecond after it has connected; later on a loaded machine.
_LEAVING: Final = 0.05

#: Seconds.  A thread that has received something notes it within microseconds; longer on a loaded machine.
_NOTING: Final = 0.1


class Probes:
    """What the connections of one server have used up before their clients have sent anything.

    Args:
        ignored: Whether the server was asked to ignore probes; if not, nothing here does anything.
    """

    def __init__(self, recorder: Recorder, *, ignored: bool) -> None:
        self._recorder = recorder
        self._ignored = ignored
        # How to know what it was, and how to give it back.  Guarded by the recorder's lock.
        self._used: dict[Conversation, list[tuple[Callable[[], bool], Callable[[], object]]]] = {}

    def __bool__(self) -> bool:
        return self._ignored

    def used(
        self, connection: Conversation, give_back: Callable[[], object], is_whole: Callable[[], bool] = lambda: True
    ) -> None:
        """Note that a connection has used something up.  Any thread.

        Args:
            give_back: Called if its client turns out to be a probe, the recorder's lock held.
            is_whole: Tells whether what was used up is declared whole; before that it is not given back.  Called with
                the lock held.
        """
        if self._ignored:
            with self._recorder.lock:
                self._used.setdefault(connection, []).append((is_whole, give_back))

    def look(self, *, but: Conversation | None = None) -> bool:
        """Give back what clients that have left by now had used up; tell whether there was anything.  Any thread.

        Args:
            but: A connection whose own thread asks.
        """
        if not self._used:  # what is noted at this very moment is looked at by who needs it: see next_for()
            return False
        with self._recorder.lock:
            undecided = [each for each, used in self._used.items() if each is not but and _all_whole(used)]
        return any([self._forget(each, probe=True) for each in undecided if has_left_in_silence(each)])

    def used_unless_known(self, connection: Conversation, give_back: Callable[[], object]) -> None:
        """Note the same, unless the client has sent something by now and so is no probe.  Any thread."""
        if not connection.tape.received_count:
            self.used(connection, give_back)

    def over(self, connection: Conversation) -> bool:
        """Give back what a connection that is over has used up, if it was a probe; tell whether there was anything.

        A probe may meet a script between two of its verbs: what that demands is known a moment later.
        """
        if not self._ignored:
            return False
        tape = connection.tape
        probe = left_in_silence(tape)
        if probe:
            tape.state = PARKED  # nothing more is heard or said
            with self._recorder.lock:
                while not (_all_whole(self._used.get(connection, ())) or tape.cut):
                    self._recorder.sleep(_LEAVING)
        return self._forget(connection, probe=probe)

    def _forget(self, connection: Conversation, *, probe: bool) -> bool:
        with self._recorder.lock:
            used = self._used.pop(connection, [])
            for _, give_back in reversed(used) if probe else ():
                give_back()
            self._recorder.changed()
        return probe and bool(used)

    def next_for(self, connection: Conversation, take: Callable[[], T | None]) -> T | None:
        """Return what ``take`` has for a connection; if it has nothing, wait while another may give something back.

        For the connection's own thread.
        """
        taken = take()
        if taken is not None or not self._ignored:
            return taken
        self.look()
        deadline, tape = Deadline(connection.timeout), connection.tape
        try:
            with self._recorder.lock:
                while (taken := take()) is None and self._may_give_back(connection) and not tape.cut:
                    left = deadline.left()
                    if left == 0.0:
                        break
                    # A server whose client has to wait is idle; not for what is over, and gives back in a moment.
                    others = [each for each in self._used if each is not connection]
                    tape.state = PARKED if any(each.tape.ended_by is None for each in others) else BUSY
                    self._recorder.sleep(left)
        finally:
            tape.state = BUSY
        return taken

    def _may_give_back(self, connection: Conversation) -> bool:
        """Tell whether a client of another connection may still turn out to be a probe.  The lock must be held."""
        for each in [each for each in self._used if each.tape.received_count]:
            del self._used[each]
        return any(each is not connection for each in self._used)


def _all_whole(used: Iterable[tuple[Callable[[], bool], Callable[[], object]]]) -> bool:
    """Tell whether all that a connection has used up is declared whole.  The lock must be held."""
    return all(is_whole() for is_whole, _ in used)


def left_in_silence(tape: Tape) -> bool:
    """Tell whether the client has ended the connection, and had not sent a byte."""
    return tape.ended_by == "client" and not tape.received_count


def has_left_in_silence(connection: Conversation) -> bool:
    """Tell the same of what the kernel has, whether or not it was received yet.

    First the kernel, then the state: see ``kernel.quiet``.  The descriptor may be closed by another thread meanwhile;
    nothing is done to it here, and the answer is then what was noted.
    """
    tape = connection.tape
    if tape.received_count or tape.ended_by is not None:
        return left_in_silence(tape)
    sock = tape.socket
    try:
        has_ended = sock is not None and ready(sock, False, 0) and not unread(sock)
    except (OSError, ValueError):
        has_ended = False
    if not has_ended:
        return left_in_silence(tape)  # its thread may have received the end, noted it and closed meanwhile
    deadline = Deadline(_NOTING)
    with tape.recorder.lock:  # whoever has just received something is BUSY until it is noted
        while tape.state is BUSY and _is_silent(tape) and (left := deadline.left()):
            tape.recorder.sleep(left)
        return left_in_silence(tape) or (_is_silent(tape) and tape.state is not BUSY)


def _is_silent(tape: Tape) -> bool:
    """Tell whether neither a byte of the client nor any end was noted."""
    return not tape.received_count and tape.ended_by is None


def leaves_in_silence(connection: Conversation) -> bool:
    """Tell whether a client that nothing is left for is a probe; wait for its first byte, or its end, for a moment.

    For the connection's own thread, which stays BUSY: a verdict waits for it, since it may be about to fail.
    """
    tape, sock = connection.tape, connection.tape.socket
    left = tape.began + _LEAVING - tape.recorder.elapsed()
    if left > 0 and sock is not None and not connection.stream.buffer.ended:
        ready(sock, False, left)
    return connection.is_at_its_end()


def may_be_probe(connection: Conversation) -> float | None:
    """Return the seconds after which a new connection counts as none, where probes are ignored; ``None`` if it is none.

    ``accept()`` hands a connection over although its client says nothing: it may wait for a greeting.
    """
    tape = connection.tape
    if not connection.context.probes or tape.received_count or has_left_in_silence(connection):
        return None
    left = tape.began + _LEAVING - tape.recorder.elapsed()
    return left if left > 0 else None


def note_probe(tape: Tape) -> None:
    """Remark in the record that a connection was ignored."""
    tape.note(NOTE, b"a probe, ignored: the client has left without sending a byte")


def hint(connection: Conversation) -> str:
    """Return the line that names the option, if the client was a probe and the option was not given."""
    if connection.context.probes or not left_in_silence(connection.tape):
        return ""
    return f"\n  {_MEANT}"


def hint_at(connections: Iterable[Conversation]) -> str:
    """Return the line that names the option, if one of the connections was a probe and the option was not given."""
    for connection in connections:
        if hint(connection):
            return f"\n  {_MEANT.replace('the client', f'the client of connection {connection.index}')}"
    return ""


_MEANT: Final = (
    "the client has left without sending a byte: if that is a probe of the port, "
    "the option ignore_probes=True ignores it"
)
