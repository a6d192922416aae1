"""Make requests of the frames of a connection that no verb reads.

A framing is a function of the user's, and runs without any lock.  What was received is queued under the recorder's
lock, with its event and so in order; then it is cut by the thread that has received it: a handler class's own, or the
sink's, after it has released the connection.  One thread cuts at a time.  Another thread leaves what it has received to
that one: no thread waits for a framing that takes its time.

The sink reads all connections with nothing declared, so that a framing which does not come to its end would hold up all
of them.  There one of the user's runs in a thread of its own, of which the sink waits for the end for a moment, so that
requests of several connections stay in the order of their arrival.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from ..originals import Thread, current_thread, original
from ..scripting.buffer import EndedWithin
from ..scripting.framing import Cutter, Framing, is_ready_made

if TYPE_CHECKING:
    from .conversation import Conversation

# States: idle, or busy with one thread that cuts; and from some moment on over, when the framing has failed.
#
#   - Bytes are queued by ``Tape.received`` (``tape.uncut``), under the recorder's lock, in the same step as their
#     event.  Queued later, ``idle`` could say that all is cut while the record has bytes that are not.
#   - ``_begin`` claims: it sets busy and takes the whole queue.  ``_cut`` looks once more, under the same lock, before
#     it sets idle again.  Without that lock, bytes that another thread queues in between would be left lying: that
#     thread found the queue claimed and has left them.
#   - ``_cutter`` and ``_over`` belong to the thread that is busy, and pass to the next one with the claim.
#
# ``_cut`` does its work in three steps, for the sake of locks: cut without one; then, under the recorder's lock, ask
# whether the result is still wanted, and make the requests; then report a failure without one, since its text is the
# user's.  ``accept()`` may have come in between.  It reads all of the buffer anew, and what was cut here is dropped.
#
# A thread of its own is for framings of the user's alone.  The ready-made ones come to an end.
#
# Not done: to stop a framing that does not come to its end.  A thread cannot be ended from outside; the server's stop
# joins it against its deadline and names the line where it stands.
#: Seconds.  So long the sink waits for a framing of the user's, for what has come at once: some microseconds are usual.
PATIENCE: Final = 0.1


class _End:
    """The end of the stream, in the queue.

    Args:
        broken: By a reset.
    """

    def __init__(self, broken: bool) -> None:
        self.broken = broken


class Cutting:
    """The frames of one connection.

    Attributes:
        queue: What was received and not cut yet.  Guarded by the recorder's lock.
    """

    def __init__(self, connection: Conversation, framing: Framing) -> None:
        self.queue: deque[bytes | _End] = deque()
        self._connection = connection
        self._recorder = connection.tape.recorder
        self._cutter = Cutter(framing, connection.max_frame)  # of the thread that cuts
        self._is_users = not is_ready_made(framing)
        self._over = False  # the framing failed, and no more comes of it; of the thread that cuts
        self._busy = False  # a thread cuts.  Guarded by the recorder's lock, as the next one is.
        self._has_ended = False

    @property
    def idle(self) -> bool:
        """Whether all that was received was cut."""
        with self._recorder.lock:
            return not self._busy and not self.queue

    def end(self) -> None:
        """Queue the end of the stream; once."""
        # The end is queued as bytes are, behind them: the cutter must not see it before the last of them.
        with self._recorder.lock:
            if not self._has_ended:
                self._has_ended = True
                self.queue.append(_End(self._connection.tape.peer_error is not None))

    def cut(self) -> None:
        """Cut what was received, in this thread, unless another one is at it.  Without a lock."""
        if (received := self._begin()) is not None:
            self._cut(received)

    def cut_beside(self, seconds: float | None = None) -> None:
        """Cut what was received; by a framing of the user's in a thread of its own, which is waited for so long."""
        received = self._begin()
        if received is None:
            return
        if not self._is_users:
            return self._cut(received)
        context, index = self._connection.context, self._connection.index
        name = f"sockserver {context.label} #{index} frames"
        thread = Thread(target=self._cut, args=(received,), name=name, daemon=True)
        # Listed before it starts, so that a stop at this moment joins it.
        context.keep_framer(thread)
        try:
            thread.start()
        except RuntimeError:  # there are too many
            # Late for other connections, but nothing is lost.
            return self._cut(received)
        thread.join(PATIENCE if seconds is None else seconds)

    def _begin(self) -> list[bytes | _End] | None:
        """Claim what was received; ``None`` if there is nothing, or another thread is at it."""
        with self._recorder.lock:
            if self._busy or not self.queue:
                return None
            self._busy = True
            return self._next()

    def _next(self) -> list[bytes | _End]:
        received = list(self.queue)
        self.queue.clear()
        return received

    def _cut(self, received: list[bytes | _End]) -> None:
        connection, recorder = self._connection, self._recorder
        try:
            while received:
                frames, error = self._frames_of(received)
                with recorder.lock:
                    wanted = connection.cutting is self  # else the test has accepted it, and reads all of it anew
                    if connection.context.probes:
                        frames = [frame for frame in frames if frame]
                    # All frames of one piece in one step: a wait of the test sees either none of them or all.
                    for frame in frames if wanted else ():
                        # A client that connects and closes may be a probe: nothing, unless the test waits for it.
                        connection.make_request(frame, is_unit=connection.tape.client_ended, sure=bool(frame))
                if error is not None and wanted:
                    connection.context.failures.add(error, connection.where())
                with recorder.lock:
                    received = self._next()
                    self._busy = bool(received)
        except BaseException:  # Ctrl-C in the thread of the test
            self._busy = False
            raise

    def _frames_of(self, received: list[bytes | _End]) -> tuple[list[bytes], BaseException | None]:
        """Return the frames that were completed, and what the framing failed with."""
        frames: list[bytes] = []
        for each in received if not self._over else ():
            try:
                frames += self._cutter.end(broken=each.broken) if isinstance(each, _End) else self._cutter.feed(each)
            except EndedWithin:
                pass  # it is recorded, and nothing was declared that would want it whole
            except BaseException as error:  # pytest.fail() is no Exception
                self._over = True
                if isinstance(error, KeyboardInterrupt) and current_thread() is original.main_thread():
                    raise
                return frames, error
        return frames, None
