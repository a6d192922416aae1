"""Tell when a server is idle, end it, and name what will not end.

Idle means that everything which has reached this machine's kernel was taken and handled: the accept queue
is empty, nothing was taken from it that is not listed yet, and each connection is done or its handler
waits for more.  Each part is looked at in that order, the kernel before our own state, because things
move in that order: what is not in the queue and not listed must be in between, and then ``taking`` says so.

To stop is, in order: end the accept loop; accept what is queued; let the handlers take what has arrived;
close the listener; cut every live connection; join every thread, all against one deadline; name the rest.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from pathlib import PurePath
from time import monotonic
from types import FrameType

from .connection import Connection
from .deadline import Deadline
from .errors import HandlerStuck
from .messages import format_peer
from .origin import STDLIB, is_ours, traceback_at
from .recording.outside import quiet
from .recording.recorder import PARKED
from .recording.sockets import ready

#: Seconds.  So long the end of a call, and a stop, let handlers that are busy finish.
DRAIN_BOUND = 1.0

#: Seconds between looks while a server drains; what is waited for is a thread that has to get the processor.
_FIRST_PAUSE, _LONGEST_PAUSE = 50e-6, 2e-3

#: Seconds that a stop waits for threads after its deadline ran out during the drain: those that were cut
#: need a moment to end, and only one that does not may be called stuck.
_LAST_CHANCE = 0.1


def wait_idle(idle: Callable[[], bool], seconds: float) -> bool:
    """Wait until ``idle()``, at most so long; tell whether it came to that."""
    until, pause = monotonic() + seconds, _FIRST_PAUSE
    look = threading.Event()  # nobody sets it: a pause in which other threads run
    while not idle():
        if monotonic() >= until:
            return False
        look.wait(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)
    return True


def connection_idle(connection: Connection) -> bool:
    """Tell whether all that a connection's client has sent was taken and handled."""
    if connection._done or connection._mode == "live":  # the test itself is the reader, and it is not reading now
        return True
    tape = connection._tape
    if connection._mode == "handled":
        return quiet(tape) or (connection._unrest is not None and connection._unrest.endless)
    with tape.lock:  # read by the sink
        sock = tape.socket
        stream = connection._stream
        over = sock is None or sock.fileno() < 0 or stream.buffer.ended or stream.left
        unread = not over and sock is not None and ready(sock, False, 0)
    return not unread and tape.state is PARKED


def join(threads: Iterable[threading.Thread | None], deadline: Deadline) -> list[threading.Thread]:
    """Join all threads against one deadline; return those that still live.  Nobody waits for himself."""
    alive = []
    for thread in threads:
        if thread is None or thread is threading.current_thread() or thread.ident is None:
            continue
        thread.join(patience(deadline))
        if thread.is_alive():
            alive.append(thread)
    return alive


def patience(deadline: Deadline) -> float:
    """Return the seconds that threads which were cut get to end."""
    return max(deadline.left() or 0.0, _LAST_CHANCE)


def stuck(thread: threading.Thread, what: str, peer: object, deadline: Deadline) -> HandlerStuck:
    """Return the error about a thread that did not end: its name, its peer, and the line where it stands.

    Its traceback points at that line, and its text has the stack from the first line that is the user's.
    """
    frames: list[FrameType] = []
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None:
        frames.insert(0, frame)
        frame = frame.f_back
    first = next((index for index, each in enumerate(frames) if _is_users(each)), 0)
    theirs = frames[first:]  # from the first frame that the user can change, whatever it calls
    own = next((each for each in reversed(theirs) if _is_users(each)), None)
    where = f" at {PurePath(own.f_code.co_filename).name}:{own.f_lineno}" if own is not None else ""
    client = f" for {format_peer(peer)}" if peer is not None else ""
    stack = traceback.StackSummary.extract((each, each.f_lineno) for each in theirs)
    error = HandlerStuck(
        f"{what} did not end within {deadline}: thread {thread.name!r}{client} stands{where}\n"
        + "".join(stack.format())
        + "Stopping a server ends what waits on its own sockets; anything else must end by itself: give it a timeout"
    )
    return error.with_traceback(traceback_at(theirs[0].f_code, theirs[0].f_lineno)) if theirs else error


def _is_users(frame: FrameType) -> bool:
    return not is_ours(frame) and not frame.f_code.co_filename.startswith(STDLIB)
