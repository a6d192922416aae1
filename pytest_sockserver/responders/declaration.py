"""Whether a declaration that takes several calls is whole.

``server.on(match)`` declares at once, and ``.reply(...)`` says a moment later what is answered; so does the chain of a
script's verbs.  A client in another thread may come in between.  What it says must not meet half a declaration; so
whoever performs waits until the rest is there, or until nobody can give one any more: when the object that the first
call has returned is gone, which in a statement that does not keep it is the statement's end.  Kept in a variable it
counts as whole after a moment without a further call.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Final

from ..originals import original
from ..recording.recorder import Recorder

#: Seconds between two calls of one declaration, at most.  Some microseconds are usual; a thread that has to wait for
#: its processor on a loaded machine needs more.  What is kept in a variable costs a client so much, once.
PATIENCE: Final = 0.1


class UnfinishedDeclaration:
    """A declaration, while its owner may go on with it.

    Args:
        recorder: Wakes who waits.
        owner: The object by which it goes on.
    """

    __slots__ = ("_owner", "_recorder", "_since")

    def __init__(self, recorder: Recorder, owner: object) -> None:
        self._recorder = recorder
        self._owner = weakref.ref(owner, self._left)
        self._since = original.monotonic()

    def went_on(self) -> None:
        """Say that a further call has come.  Any thread."""
        self._since = original.monotonic()
        self._recorder.tell()

    def _left(self, owner: object) -> None:
        """Wake who waits.  In whichever thread has let the last reference go."""
        self._recorder.tell()

    @property
    def over(self) -> bool:
        """Whether nobody can go on with it any more."""
        return self._owner() is None

    def left(self) -> float:
        """Return the seconds for which a further call is to be waited for, 0.0 if there will be none."""
        return 0.0 if self.over else max(0.0, self._since + PATIENCE - original.monotonic())

    def wait(self, enough: Callable[[], object]) -> None:
        """Wait until there is enough of it, or until no further call will come.  Any thread, without a lock."""
        with self._recorder.lock:
            while not enough() and (left := self.left()):
                self._recorder.sleep(left)
