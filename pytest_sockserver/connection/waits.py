"""What takes time: an operation, and what it waits for.

An *operation* is a generator that yields a :class:`Wait` whenever it cannot go on, and returns its result.  A *runner*
waits until the Wait *may* be over: the socket is readable or writable, the time has come, or a bell rang.  It passes
nothing in and throws nothing in: **the operation looks again**.  So

- to return early is always right;
- a stop, an opened gate, an injection, a freed send lock is a change of state and then a ring: no runner knows of it;
- a thread, an event loop and a test that turns the clock by hand run the same operation (``runners``, ``loops``).

An operation ends in one of two ways besides its own: an exception that it raises where it looks, or ``close()``, by
which a runner gives it up (a cancelled task).  What must outlive that lies in the conversation, not in the generator.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from typing import Any, Final, NamedTuple, TypeVar

from ..errors.exceptions import BlockingCallInCoroutine
from ..errors.location import IN_ASYNC, hide_frame

__tracebackhide__ = hide_frame

# Rules for an operation:
#
# - It yields only after a look that found nothing, and it looks again after each yield, whatever woke it.
# - What it waits for must be a socket's readiness, a time, or a change that rings one of the port's bells after the
#   state was changed.  With the ring first, the operation could look before the change and then sleep over it.
# - It asks the clock after the look, so bytes that have come in time are never thrown away by a late thread.
# - Between a look that takes something and the return of it there is no yield.  ``close()`` can only arrive at a yield,
#   so a cancelled operation has taken nothing, or has put it where the next one finds it.
#
# Rules for a runner: it may return early for any reason; it must not sleep over a ring; it closes the operation on each
# way out.  It knows nothing of stops, gates and faults, so these cannot differ between threads and event loops.
#
# Not here: a result of a wait.  A Wait that said which of its conditions came true would be trusted by the operation,
# and would be out of date by the time it runs.


T = TypeVar("T")

#: Seconds.  A plain ``send()`` in a coroutine waits so long for its turn, and for room in the kernel's buffers, before
#: it is refused: longer than any reply takes that does not wait by itself, and no loop notices.
MOMENT: Final = 0.1


class Wait(NamedTuple):
    """What an operation waits for; for a ring as well, always.

    Attributes:
        readable, writable: The socket is, has ended, or failed.
        until: A time of ``monotonic()``; ``None`` for no limit.
        is_idle: A connection that waits for this and nothing else has handled all that has come.
    """

    readable: bool = False
    writable: bool = False
    until: float | None = None
    is_idle: bool = True


Operation = Generator[Wait, None, T]


def loop_blocked_here(*, in_callbacks: bool = True) -> str | None:
    """Return ``"asyncio"`` or ``"trio"`` if the caller runs inside that loop and would block it.

    A running loop alone is no proof: a library may run one in another greenlet.  So a frame of this stack
    must belong to a coroutine, or to a callback that asyncio's own loop calls, a protocol's method for example.
    A callback of a loop that is written in C (uvloop) is not found.

    Args:
        in_callbacks: Whether callbacks count.
    """
    # Looked up and never imported: a module that is not loaded runs no loop.
    asyncio = sys.modules.get("asyncio.events")
    kind, callback = None, None
    if asyncio is not None and asyncio._get_running_loop() is not None:
        kind, callback = "asyncio", asyncio.Handle._run.__code__ if in_callbacks else None
    else:
        trio: Any = sys.modules.get("trio")
        if trio is None or not hasattr(trio, "lowlevel") or not trio.lowlevel.in_trio_run():
            return None
        kind = "trio"
    # A walk up the whole stack.  It is the price of a refusal that is right under greenlets, and it is paid only where
    # a loop runs in this thread.
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_flags & IN_ASYNC or frame.f_code is callback:
            return kind
        frame = frame.f_back  # type: ignore[assignment]
    return None


def refuse_in_coroutine(verb: str, instead: str) -> None:
    """Raise if a verb that may block is called in a coroutine; always, so that the error does not depend on timing.

    Args:
        instead: What to write there.
    """
    kind = loop_blocked_here()
    if kind is not None:
        raise blocking_call(verb, kind, instead)


def blocking_call(verb: str, kind: str, instead: str) -> BlockingCallInCoroutine:
    """Return the error about a verb that would block a loop."""
    return BlockingCallInCoroutine(
        f"{verb}() blocks, and was called inside a coroutine: the {kind} loop, and with it the client, would "
        f"stand still.  Use {instead}, or call it in a thread, by to_thread()"
    )
