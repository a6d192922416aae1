"""Whether code of the user runs while its thread has a lock of ours: asserted wherever it is called, in every test.

The places at which the package calls such code are wrapped: predicates, framings, reply functions, injections, values
of dialogues, handlers, the texts of exceptions.  Each then looks at all locks of recorders, tapes, sinks, clocks, and
servers that there are.  A connection's turn to send is not among them: what replies runs under it, as designed.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest_sockserver.server.datagram
import pytest_sockserver.server.stream  # noqa: F401  so that there is all that is to be wrapped
from pytest_sockserver.connection import perform, request
from pytest_sockserver.recording import failures, recorder
from pytest_sockserver.responders import handler
from pytest_sockserver.scripting import framing, matching
from pytest_sockserver.server import reader, service
from pytest_sockserver.socketserver import stream as framework_stream
from pytest_sockserver.transport import client_trust

# Frames of this module pass for the package's own: a failure still points at the test's line.
__name__ = "pytest_sockserver.lock_guard"

#: What was found, and not told yet.
found: list[str] = []

#: Locks that are looked at, the latest ones: those of servers of earlier tests wait for the garbage collector.
_MOST = 400

_locks: dict[int, tuple[str, weakref.ref[Any]]] = {}  # by id()


def install() -> None:
    """Watch from now on, in this process."""
    for owner, name in _OWNERS:
        _watch(owner, name)
    for original, checked in _CHECKED:
        _replace(original, checked)
    for owner, method, what in ((handler.Handler, "run", "a handler"), (failures.Expected, "met_by", "raises()")):
        _replace_method(owner, method, what)


def check(what: str, *, life: bool = True) -> None:
    """Note, and raise, if this thread has a lock of ours.

    Args:
        life: The locks that guard the life of servers count as well.
    """
    for name, reference in list(_locks.values()):
        lock = reference()
        if lock is not None and lock._is_owned() and (life or not name.endswith(".life")):
            found.append(f"{what} was called in thread {threading.current_thread().name!r}, which has {name}")
            raise AssertionError(found[-1])


_OWNERS: list[tuple[type, str]] = [
    (recorder.Recorder, "lock"),
    (recorder.Tape, "lock"),
    (service.Service, "life"),
    (reader.Sink, "_lock"),
    (client_trust.Trust, "_lock"),
    (framework_stream.LiveRequests, "_lock"),
]


def _watch(owner: type, name: str) -> None:
    begin: Callable[..., None] = owner.__init__  # type: ignore[misc]

    def begun(self: Any, *args: Any, **named: Any) -> None:
        __tracebackhide__ = True
        begin(self, *args, **named)
        lock = getattr(self, name)
        number = id(lock)
        _locks[number] = f"{owner.__name__}.{name}", weakref.ref(lock, lambda _: _locks.pop(number, None))
        for oldest in list(_locks)[:-_MOST]:
            _locks.pop(oldest, None)

    owner.__init__ = begun  # type: ignore[misc]


def _replace(original: Any, checked: Any) -> None:
    """Put a function in the place of another one, wherever a module has it."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "pytest_sockserver":
            for known, value in list(vars(module).items()):
                if value is original:
                    setattr(module, known, checked)


def _replace_method(owner: type, name: str, what: str) -> None:
    original = getattr(owner, name)

    def checked(self: Any, *args: Any) -> Any:
        __tracebackhide__ = True
        check(what)
        return original(self, *args)

    setattr(owner, name, checked)


_matches, _next_need, _called, _made_of = matching.matches, framing._next_need, perform.called, perform.made_of
_text_of, _looked_up = failures.text_of, request.looked_up


def matches(*args: Any, **options: Any) -> object:
    __tracebackhide__ = True
    check("a match")
    return _matches(*args, **options)


def next_need(steps: Any, got: Any, its: Any) -> Any:
    __tracebackhide__ = True
    if got != b"":  # one that makes no progress is asked 65,536 times
        check("a framing", life=not framing.is_ready_made(its))  # ours end what came last within a stop
    return _next_need(steps, got, its)


def called(*args: Any) -> Iterator[Any]:
    __tracebackhide__ = True
    check("a reply function")
    yield from _called(*args)


def made_of(*args: Any) -> Iterator[Any]:
    __tracebackhide__ = True
    check("a function of an injection")
    yield from _made_of(*args)


def text_of(error: BaseException) -> str:
    __tracebackhide__ = True
    check("the text of an exception")
    return _text_of(error)


def looked_up(*args: Any) -> bytes:
    __tracebackhide__ = True
    check("a value of a dialogue")
    return _looked_up(*args)


_CHECKED: list[tuple[Any, Any]] = [
    (_matches, matches),
    (_next_need, next_need),
    (_called, called),
    (_made_of, made_of),
    (_text_of, text_of),
    (_looked_up, looked_up),
]
