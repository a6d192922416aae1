r"""Cut a stream into frames: where one message ends and the next begins.

A *framing* is a generator function without arguments that yields what it needs and is sent it.  A need is an
int (so many bytes, 0 is allowed), a delimiter (bytes: all through it), or ``EOF`` (the rest of the stream).
The frame is all that it took by the time it returns, at least one byte; or none, where it took the end of a stream
that has no byte left::

    def memcache():
        line = yield b"\r\n"
        if line.startswith(b"set "):
            yield int(line.split()[4]) + 2

Since a framing says what it waits for instead of looking at what there is, it cannot depend on how the bytes
were cut, it costs O(n) (whoever feeds it remembers how far it searched), and it is composed by
``yield from``.

- All bytes stay in the buffer until the frame is whole: a message can quote them, and a deadline loses none.
- ``max_frame`` is precise, and fails as soon as it is known that the frame will be larger.
- What the client does wrong is a :class:`~.buffer.Mismatch`.  What the framing does wrong is thrown into it, so
  that the traceback ends at its line.  What it raises itself is its own.

What is not done: a framing knows nothing of earlier frames.  Where the protocol changes (an upgrade, STARTTLS),
another framing begins; that is the business of who reads.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator
from pathlib import PurePath
from typing import Any, Final, cast

from ..errors.location import hide_frame
from .buffer import NEED_MORE, QUOTED, Buffer, Ended, EndedWithin, Mismatch, NeedMore
from .matching import shortened

__tracebackhide__ = hide_frame

# A walk has no state but where it stands: the generator, its present need, and `_taken`, the bytes before that need.
# It looks into the buffer by `peek` and takes nothing.  The bytes leave the buffer in one step when the generator has
# returned, so a walk can be dropped at any time (another verb reads, a frame is put back) and begun anew from byte 0.
#
# The end of the stream can be taken once.  `buffer.end_taken` says that a frame has gone through it: without that mark
# a framing that yields EOF would find an endless row of empty frames behind the last byte.  After a reset EOF is never
# met, since nobody knows what is missing.
#
# What `Cutter` owes: frames that were whole before a failure.  They are returned first, and the failure is raised by
# the next call.
#
# Not done: no frame is judged here, and no time is measured.  A framing is not stopped when it loops without a yield.


class _Wish:
    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name

    def __reduce__(self) -> str:
        return self._name


#: A need: the rest of the stream.
EOF: Final = _Wish("EOF")

# A need of sans_io alone: a look at what has come, at least one byte, taking none of it.
LOOK_AHEAD: Final = _Wish("LOOK_AHEAD")

Need = int | bytes | _Wish
Framing = Callable[[], Generator[Need, bytes, object]]

#: The module of the ready-made framings.
READY_MADE: Final = f"{__name__}s"

#: Needs that may be met in a row without a byte, within one frame.  A length of 0 is one such; and as many fields as a
#: count of two bytes can announce may all be empty.  Beyond that there is no end: an error after a tenth of a second.
EMPTY_NEEDS: Final = 65_536

# Bytes of one look.  A burst of small messages is looked at again by each of them: without a bound that would be
# quadratic.  A page, since no parser minds getting a large message in pieces of it.
_LOOK = 4096


# Reading a frame


class FrameWalk:
    """One framing on its way through the next frame.

    It looks and takes nothing, so it can be dropped and begun anew.
    """

    __slots__ = ("_empty", "_framing", "_need", "_steps", "_taken", "_through_end")

    def __init__(self, framing: Framing) -> None:
        self._framing, self._steps = framing, framing()
        self._need = _next_need(self._steps, None, framing)
        self._taken = self._empty = 0
        self._through_end = False

    def size_in(self, buffer: Buffer, max_frame: int) -> int | NeedMore:
        """Return how many bytes the frame has, once it is whole.

        A frame of no byte is one that took the end of the stream where no byte was left, and no frame before it had.
        """
        while (need := self._need) is not None:
            stop, there = _stop(buffer, need, self._taken, max_frame)
            if stop > max_frame:
                raise _too_long(buffer, need, self._taken, max_frame)
            if not there:
                if buffer.ended:
                    buffer.begin_anew()
                    raise _ended(buffer, need, stop, self._framing)
                buffer.lacks = need, stop
                return NEED_MORE
            # `_taken` is fixed until the need is met, so that a search for a delimiter goes on where it stopped.
            got = buffer.peek(self._taken, stop)
            self._empty = 0 if got else self._empty + 1
            if self._empty > EMPTY_NEEDS:
                _throw(self._steps, _no_progress(self._steps, need, self._framing))
            self._taken = self._taken if need is LOOK_AHEAD else stop
            self._through_end = self._through_end or need is EOF
            self._need = _next_need(self._steps, got, self._framing)
        if not self._taken and not self._through_end:
            raise _took_nothing(self._framing)
        # With these bytes goes the end, whoever takes them.
        buffer.end_taken = buffer.end_taken or (self._through_end and self._taken > 0)
        return self._taken

    @staticmethod
    def take(buffer: Buffer, size: int) -> bytes:
        """Take a frame of so many bytes; one of none is the end of the stream, of which there is only one."""
        buffer.end_taken = buffer.end_taken or not size
        return buffer.take(size)


def frame_walk(buffer: Buffer, framing: Framing) -> FrameWalk:
    """Return the walk through the next frame, begun now or by an earlier look."""
    return buffer.progress(framing, lambda: FrameWalk(framing))  # type: ignore[no-any-return]


def take_frame(buffer: Buffer, framing: Framing, max_frame: int) -> bytes | NeedMore:
    """Take one frame, at most ``max_frame`` bytes; nothing is taken before it is whole."""
    # Only where the delimiter was found: what is too long, or not whole, goes the long way, which has the messages.
    delimiter: bytes | None = getattr(framing, "delimiter", None)
    if delimiter is not None and 0 < (size := buffer.find(delimiter)) <= max_frame:
        return buffer.take(size)  # the usual case: a ready-made framing, and no generator is made
    walk = frame_walk(buffer, framing)
    found = walk.size_in(buffer, max_frame)
    return NEED_MORE if isinstance(found, NeedMore) else walk.take(buffer, found)


def lack(buffer: Buffer, framing: Framing) -> str:
    """Return what a frame that is being waited for still needs, in words."""
    if buffer.lacks is None:
        return f"a frame ({name_of(framing)})"
    need, stop = buffer.lacks
    return str(_ended(buffer, need, stop, framing))


class Cutter:
    """Cuts bytes that are recorded where no verb reads.  Not thread-safe.

    Attributes:
        broken: The framing failed, so that it is not known where the next frame begins: no more come.
    """

    __slots__ = ("_buffer", "_failure", "_framing", "_is_over", "_max_frame", "broken")

    def __init__(self, framing: Framing, max_frame: int) -> None:
        self._framing, self._max_frame = framing, max_frame
        self._buffer = Buffer()
        self._failure: BaseException | None = None  # still to be raised
        self._is_over = self.broken = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the frames that ``data`` completes.

        Raises:
            Exception: What the framing failed with, once.  It never costs a frame that was whole before: if there
                are any, they are returned, ``broken`` is true, and the next call raises.
        """
        if not self._is_over:
            self._buffer.feed(data)
        return self._frames()

    def end(self, *, broken: bool = False) -> list[bytes]:
        """Return the frame that the end of the stream completes, if there is one.

        Args:
            broken: By a reset, after which what a framing takes through the end may be missing some.

        Raises:
            EndedWithin: The stream ended within a frame.
        """
        self._buffer.ended, self._buffer.broken = True, broken
        return self._frames()

    def _frames(self) -> list[bytes]:
        frames: list[bytes] = []
        while not self._is_over:
            try:
                frame = take_frame(self._buffer, self._framing, self._max_frame)
                if isinstance(frame, NeedMore):
                    break
                frames.append(frame)
            except Ended:
                self._is_over = True
            except BaseException as error:  # a framing may call pytest.fail(), which is no Exception
                self._is_over, self._failure, self.broken = True, error, True
                self._buffer = Buffer()  # nobody can tell what the rest is
        if self._failure and not frames:
            failure, self._failure = self._failure, None
            raise failure
        return frames


# Checking it where it is declared

_EXPECTED = "expected a framing, a generator function without arguments"


def checked_framing(framing: object, max_frame: int) -> Framing | None:
    """Return ``framing``, or raise what says why it can be none, or none of at most ``max_frame`` bytes.

    Its first step is run, without a byte, and closed again.
    """
    if framing is None:
        return None
    checked = _checked_function(framing)
    steps = _started(checked)
    need, empty = _next_need(steps, None, checked), 0
    while need == 0:
        empty += 1
        if empty > EMPTY_NEEDS:
            _throw(steps, _no_progress(steps, need, checked))
        need = _next_need(steps, b"", checked)
    if need is None:
        raise _took_nothing(checked)
    steps.close()
    least = need if isinstance(need, int) else len(need) if isinstance(need, bytes) else 0
    if least > max_frame:
        raise ValueError(f"framing {name_of(checked)} needs {counted(least)} at once: max_frame is {max_frame:,}")
    return checked


def may_be_empty(framing: Framing) -> bool:
    """Tell whether a frame may have no byte: whether the first thing that the framing asks for is the end."""
    steps = framing()
    try:
        need = next(steps)
        while need == 0:
            need = steps.send(b"")
        return need is EOF
    except StopIteration:
        return False
    finally:
        steps.close()


def frames_needed(wanted: str) -> TypeError:
    """Return the error about an expect() that needs frames on a stream that has none."""
    return TypeError(
        f"expect() expected bytes, not {wanted}: on a stream without frames what a pattern or a predicate matches "
        "would depend on how the bytes arrive; give the server a framing=, or use expect_line()"
    )


def is_ready_made(framing: Framing) -> bool:
    """Tell whether a framing is one of ours and runs no code of the user's, which may take its time."""
    return getattr(framing, "__module__", "") == READY_MADE and not getattr(framing, "calls_users_code", False)


def name_of(framing: object) -> str:
    """Return how a message names a framing: one that is ready-made as the call that makes it."""
    return getattr(framing, "__qualname__", None) or repr(framing)


def _checked_function(framing: object) -> Framing:
    if isinstance(framing, Generator):
        raise TypeError(
            f"expected a framing, not a generator: write framing={_short_name(framing)}, without calling it"
        )
    written = getattr(framing, "written", None)  # of one that is ready-made, and makes a framing
    if written is not None:
        raise TypeError(f"{name_of(framing)} is not a framing yet: call it, {written}")
    if isinstance(framing, type):
        raise TypeError(f"{_EXPECTED}, not the class {name_of(framing)}")
    if not callable(framing):
        raise TypeError(f"{_EXPECTED}, not {framing!r}{_written_instead(framing)}")
    if inspect.iscoroutinefunction(framing) or inspect.isasyncgenfunction(framing):
        raise TypeError(f"{_EXPECTED}, not the async function {name_of(framing)}: write def, without async")
    if (needed := _arguments(framing)) is not None:
        if inspect.isgeneratorfunction(framing):
            raise TypeError(f"{_EXPECTED}, not {name_of(framing)}({needed})")
        raise TypeError(f"{name_of(framing)} is not a framing yet: call it, {_short_name(framing)}({needed})")
    return cast(Framing, framing)


def _started(framing: Framing) -> Generator[Need, bytes, object]:
    steps: Any = framing()
    if isinstance(steps, Generator):
        return steps
    if inspect.iscoroutine(steps):
        steps.close()  # else Python warns that it was never awaited
    if callable(steps):
        raise TypeError(f"{name_of(framing)} is not a framing yet: call it, {_short_name(framing)}()")
    raise TypeError(f"{_EXPECTED}, not {name_of(framing)}: it returned {steps!r}, it yields nothing")


def _arguments(function: Callable[..., object]) -> str | None:
    """Return the names of the arguments, if it cannot be called without any."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some builtins have none
        return None
    try:
        signature.bind()
    except TypeError:
        return ", ".join(signature.parameters)
    return None


def _short_name(framing: object) -> str:
    return name_of(framing).rpartition("<locals>.")[2]


def _written_instead(value: object) -> str:
    if isinstance(value, bytes):
        return f": write delimited({value!r})"
    if value is EOF:
        return ": write until_eof"
    return f": write fixed({value})" if isinstance(value, int) and not isinstance(value, bool) else ""


# Asking it


def _next_need(steps: Generator[Need, bytes, object], got: bytes | None, framing: Framing) -> Need | None:
    """Return what it needs next, or ``None`` if it has its frame."""
    try:
        need = next(steps) if got is None else steps.send(got)
    except StopIteration:
        return None
    if refusal := _refusal(need, framing):
        _throw(steps, refusal)
    return need


def _refusal(need: object, framing: Framing) -> Exception | None:
    known = isinstance(need, (int, bytes, _Wish)) and not isinstance(need, bool)
    if known and need != b"" and not (isinstance(need, int) and need < 0):
        return None
    text = f"framing {name_of(framing)} yielded {need!r}: expected a number of bytes, a delimiter (bytes) or EOF"
    return ValueError(text) if known else TypeError(text)


def _no_progress(steps: Generator[Need, bytes, object], need: Need, framing: Framing) -> ValueError:
    return ValueError(
        f"framing {name_of(framing)} makes no progress: its yield{_line_of(steps)} took no byte {EMPTY_NEEDS:,} times "
        f"in a row, the last time it yielded {need!r}; write return where the frame is whole"
    )


def _line_of(steps: object) -> str:
    """Return the line where a generator yields, or one that it yields from: `` (test_mail.py:31)``."""
    while (inner := getattr(steps, "gi_yieldfrom", None)) is not None and hasattr(inner, "gi_frame"):
        steps = inner
    frame = getattr(steps, "gi_frame", None)
    return f" ({PurePath(frame.f_code.co_filename).name}:{frame.f_lineno})" if frame is not None else ""


def _throw(steps: Generator[Need, bytes, object], error: Exception) -> None:
    """Raise ``error`` where the framing yielded, so that the traceback shows that line."""
    try:
        steps.throw(error)
    except StopIteration:
        pass
    raise error  # it was caught there


def _stop(buffer: Buffer, need: Need, start: int, max_frame: int) -> tuple[int, bool]:
    """Return where in the buffer a need is met, and whether that has come; if not, the earliest place that may be."""
    have = len(buffer)
    if isinstance(need, int):
        return start + need, have >= start + need
    if isinstance(need, bytes):
        stop = buffer.find(need, start)
        return (stop, True) if stop >= 0 else (max(start + len(need), have + 1), False)
    if need is LOOK_AHEAD:
        stop = min(have, start + _LOOK, max_frame)
        return (stop, True) if stop > start else (start + 1, False)
    # Without a byte it is met once: the next frame is none, but the quiet end.
    return have, buffer.ended and not buffer.broken and (bool(buffer) or not buffer.end_taken)


# Messages


def _took_nothing(framing: Framing) -> ValueError:
    text = f"framing {name_of(framing)} took nothing: a frame has at least one byte"
    code = getattr(framing, "__code__", None)
    if code is not None and not str(framing.__module__).startswith(__package__ or "."):  # not one that is ready-made
        text += f"; at {PurePath(code.co_filename).name}:{code.co_firstlineno} yield its size, its delimiter, or EOF"
    return ValueError(text)


def _too_long(buffer: Buffer, need: Need, taken: int, max_frame: int) -> Mismatch:
    size = taken if isinstance(need, int) else min(max_frame, len(buffer))
    got = shortened(buffer.peek(0, min(size, QUOTED)), size=size)
    if isinstance(need, int):
        what = f"needs {counted(need)} more"
    elif isinstance(need, bytes):
        what = f"needs bytes through {need!r}"
    else:
        what = "more" if need is EOF else "needs more"
    return Mismatch(f"expected a frame of at most {counted(max_frame)} (max_frame)\n  got {got} and {what}")


def _ended(buffer: Buffer, need: Need, stop: int, framing: Framing) -> Exception:
    if not buffer:
        return Ended(f"a frame ({name_of(framing)})")
    if isinstance(need, int):
        return EndedWithin(f"{counted(stop - len(buffer))} more of a frame ({name_of(framing)})")
    if isinstance(need, bytes):
        return EndedWithin(f"a frame through {need!r}")
    what = "more of a frame" if need is LOOK_AHEAD else "a frame to the end of the stream"
    return EndedWithin(f"{what} ({name_of(framing)})")


def counted(count: int) -> str:
    """Return a number of bytes in words."""
    return "1 byte" if count == 1 else f"{count:,} bytes"
