"""Tell when a server is idle, wait for it, and name what will not end.

Idle means that everything which has reached this machine's kernel was taken and handled: the accept queue
is empty, nothing was taken from it that is not listed yet, and each connection is done or its handler
waits for more.  Each part is looked at in that order, the kernel before our own state, because things
move in that order: what is not in the queue and not listed must be in between, and then ``taking`` says so.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from pathlib import PurePath
from types import FrameType

from ..connection.conversation import Conversation
from ..connection.deadline import Deadline
from ..errors.exceptions import HandlerStuck
from ..errors.location import is_users, traceback_at
from ..errors.messages import format_peer
from ..originals import current_thread, original, running
from ..recording.recorder import PARKED
from ..transport.kernel import acknowledge_now, quiet
from ..transport.tapped_socket import ready

# Rules of a look, which is a poll since no system call tells that nothing is on its way:
#
# - The kernel is asked first and our own state afterwards.  In the other order a byte may arrive and be taken between
#   the two looks, and a handler that works on it passes for idle.
# - A positive answer is about the past: what had arrived before the look was handled.  The client may send more at
#   once.
# - A connection's socket is looked at under its tape's lock.  Without it another thread may close it, and its number
#   may be another file's.
# - No lock is held between two looks, or while one sleeps: the threads that are waited for need them.
#
# A connection that the test drives is always idle, since its reader is the thread that waits here.  A handler that
# polls its own socket passes for busy, and costs the whole bound.  An endless fault passes for idle: it would never be
# done.
#
# Not done: nothing here ends a thread.  What does not end in time is named, with its stack, and left to the process.

#: Seconds.  So long the end of a call, and a stop, let handlers that are busy finish.
DRAIN_BOUND = 1.0

#: Seconds between looks while a server drains; what is waited for is a thread that has to get the processor.
_FIRST_PAUSE, _LONGEST_PAUSE = 50e-6, 2e-3


def wait_idle(idle: Callable[[], bool], seconds: float) -> bool:
    """Wait until ``idle()``, at most so long; tell whether it came to that."""
    until, pause = original.monotonic() + seconds, _FIRST_PAUSE
    while not idle():
        if original.monotonic() >= until:
            return False
        original.sleep(pause)  # other threads run meanwhile
        pause = min(pause * 2, _LONGEST_PAUSE)
    return True


def connection_idle(connection: Conversation) -> bool:
    """Tell whether all that a connection's client has sent was taken and handled."""
    if connection.done or connection.mode == "live":  # the test itself is the reader, and it is not reading now
        return True
    tape = connection.tape
    if connection.mode == "handled":
        return quiet(tape) or (connection.fault_state is not None and connection.fault_state.endless)
    # The sink receives under this lock: no byte is on its way from the kernel to the buffer while this looks.
    with tape.lock:  # read by the sink
        sock = tape.socket
        stream = connection.stream
        over = sock is None or sock.fileno() < 0 or stream.buffer.ended or stream.left
        unread = False
        if sock is not None and not over:
            acknowledge_now(sock)
            unread = ready(sock, False, 0)
    cutting = connection.cutting
    return not unread and tape.state is PARKED and (cutting is None or cutting.idle)


def drain_bound(deadline: Deadline) -> float:
    """Return the seconds that busy handlers get to finish; the rest of the deadline is for those that are cut."""
    left = deadline.left()
    return DRAIN_BOUND if left is None else min(DRAIN_BOUND, left / 4)


def join(threads: Iterable[threading.Thread | None], until: float) -> list[threading.Thread]:
    """Join all threads, to a time of ``monotonic()``; return those that still live.  A thread does not join itself."""
    own = current_thread()
    others = [each for each in threads if each is not None and each is not own and each.ident is not None]
    for thread in others:
        # One deadline for all: after a thread that used it up, the others are only asked whether they have ended.
        thread.join(max(0.0, until - original.monotonic()))
    if sys.version_info >= (3, 13):
        return [thread for thread in others if thread.is_alive()]
    # Before, a thread whose join() Ctrl-C has interrupted passes for ended: see bpo-45274 in threading.py.
    if running(others):
        wait_idle(lambda: not running(others), until - original.monotonic())
    return running(others)


def end_of_patience(deadline: Deadline) -> float:
    """Return the time of ``monotonic()`` to which threads that are cut now get to end, all of them together."""
    return original.monotonic() + max(deadline.left() or 0.0, deadline.last_chance)


def stuck(thread: threading.Thread, what: str, peer: object, deadline: Deadline) -> HandlerStuck:
    """Return the error about a thread that did not end: its name, its peer, and the line where it stands.

    Its traceback points at that line, and its text has the stack from the first line that is the user's.
    """
    frames: list[FrameType] = []
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None:
        frames.insert(0, frame)
        frame = frame.f_back
    first = next((index for index, each in enumerate(frames) if is_users(each)), 0)
    theirs = frames[first:]  # from the first frame that the user can change, whatever it calls
    own = next((each for each in reversed(theirs) if is_users(each)), None)
    where = f" at {PurePath(own.f_code.co_filename).name}:{own.f_lineno}" if own is not None else ""
    client = f" for {format_peer(peer)}" if peer is not None else ""
    stack = traceback.StackSummary.extract((each, each.f_lineno) for each in theirs)
    option = " (stop_timeout)" if deadline.seconds == deadline.asked else ""
    error = HandlerStuck(
        f"{what} did not end within {deadline}{option}: thread {thread.name!r}{client} stands{where}\n"
        + "".join(stack.format())
        + "Stopping a server ends what waits on its own sockets; anything else must end by itself: give it a timeout"
    )
    return error.with_traceback(traceback_at(theirs[0].f_code, theirs[0].f_lineno)) if theirs else error
