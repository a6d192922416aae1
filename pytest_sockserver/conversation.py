"""Perform what was declared on a connection: this is what runs in a connection's thread.

A handler is a function of a :class:`Connection`, or a ``BaseRequestHandler`` subclass, of this framework or
of the standard library.  However it ends, the same things happen in the same order:

1. A failure is recorded.  Before anything the client can notice: the client's next line, and with it
   the end of the test, may follow at once.
2. The connection ends: cleanly after a return, by a reset after a failure.  Never does a word of the
   failure go to the client.
3. The thread says that it is done.
"""

from __future__ import annotations

import errno
import functools
import inspect
from collections.abc import Callable
from typing import Any

from .captured import Request
from .connection import Connection
from .errors import THE_SERVER_STOPS, ServerStopping
from .failures import Failures, said_shortly
from .messages import format_peer
from .origin import Origin, from_users_frame, traceback_at_definition
from .recording.events import NOTE
from .recording.recorder import Tape
from .scripting.parts import parts_of


class Handler:
    """A declared handler: what to call, and where it was declared.

    Args:
        target: A function of one argument, or a class of three (request, client_address, server).
        argument: What a function is called with, for messages: ``"a Connection"``.

    Raises:
        TypeError: It cannot be called so, or calling it would not run it (a coroutine, a generator).
    """

    def __init__(self, target: Callable[..., Any], argument: str) -> None:
        __tracebackhide__ = True
        self.origin = Origin()
        self.target = target
        unwrapped = target
        while isinstance(unwrapped, functools.partial):  # as http.server's handlers are given their directory
            unwrapped = unwrapped.func
        self.is_class = isinstance(unwrapped, type)
        self.name = getattr(unwrapped, "__qualname__", None) or repr(target)
        if not callable(target):
            raise TypeError(
                f"a handler must be a function of {argument} or a BaseRequestHandler subclass, not {target!r}"
            )
        runs = _what_runs(unwrapped)
        if inspect.iscoroutinefunction(runs):
            raise TypeError(f"handler {self.name} is async: it runs in a thread of its own; write it as a plain def")
        if inspect.isgeneratorfunction(runs) or inspect.isasyncgenfunction(runs):
            raise TypeError(f"handler {self.name} is a generator: calling it would run none of it; remove the yield")
        if self.is_class and not hasattr(unwrapped, "handle"):
            raise TypeError(
                f"handler class {self.name} has no handle(): expected a BaseRequestHandler subclass, "
                f"or a function of {argument}"
            )
        wanted = ("request, client_address, server", 3) if self.is_class else (argument, 1)
        _check_arity(target, self.name, *wanted)


def _what_runs(target: Any) -> Any:
    """Return the function whose body is the handler: a class's handle(), an object's __call__(), or itself."""
    if isinstance(target, type):
        return getattr(target, "handle", None)
    return target if inspect.isroutine(target) else type(target).__call__


def _check_arity(target: Callable[..., Any], name: str, argument: str, count: int) -> None:
    __tracebackhide__ = True
    code = getattr(target, "__code__", None)
    plain = count == 1 and inspect.isfunction(target) and not hasattr(target, "__wrapped__")
    if plain and code is not None and code.co_argcount == 1 and not code.co_kwonlyargcount:
        return  # the usual case, at a thirtieth of the cost
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):
        return  # written in C, and says nothing of its parameters
    try:
        signature.bind(*[None] * count)
    except TypeError as error:
        raise TypeError(
            f"handler {name}{signature} cannot be called with {argument}: {error}; expected a function of {argument}"
            if count == 1
            else f"handler class {name} cannot be called with {argument}: {error}"
        ) from None


def perform(connection: Connection, handler: Handler, server: Any, failures: Failures) -> None:
    """Run a handler on a connection to its end.  Never raises.

    Args:
        server: The framework's server, which a handler class is given as its third argument.
    """
    tape = connection._tape
    try:
        if handler.is_class:
            handler.target(tape.socket, connection.peer, server)
            connection._keep_whole_stream()
        else:
            connection._stream.make_nonblocking()
            result = handler.target(connection)
            if result:  # the b"" of a recv() at the end of the stream is no forgotten reply
                text = (
                    f"handler {handler.name} returned {result!r}: expected None, what is to be said goes to conn.send()"
                )
                raise TypeError(text).with_traceback(traceback_at_definition(handler.target))
        if not connection._stream.detached:
            connection.close()
    except BaseException as error:  # pytest.fail() and skip() are no Exceptions
        from_users_frame(error)
        if handler.is_class:
            connection._keep_whole_stream()
        if blameless(connection, error):
            _note_end(connection, error)
            connection.close()
        else:
            _note(tape, said_shortly(error))
            failures.add(error, connection._where())
            connection._stream.reset_now()


def _returned(handler: Handler, result: object) -> str:
    return f"handler {handler.name} returned {result!r}: expected None, what is to be said goes to conn.send()"


def blameless(connection: Connection, error: BaseException) -> bool:
    """Tell whether an exception is only how a handler learns that its client, or its server, is gone."""
    tape = connection._tape
    return (
        (tape.saw_cut and (tape.cut == THE_SERVER_STOPS or _comes_of_the_cut(error)))
        or isinstance(error, ServerStopping)
        or error is connection._stream.quiet_end
        or (tape.peer_error is not None and error is tape.peer_error)
        # His own socket: we did not see how it ended.  Or ours, which was closed from outside before he used it.
        or (tape.cut != "" and (tape.handed_over is not None or _is_of_a_closed_socket(error)))
    )


def _comes_of_the_cut(error: BaseException) -> bool:
    """Tell whether a handler's exception is what it made of the one by which it learned of the cut."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, ServerStopping):
        seen = seen.__cause__ or seen.__context__
    return seen is not None


def _is_of_a_closed_socket(error: BaseException) -> bool:
    return isinstance(error, ConnectionError) or getattr(error, "errno", None) in (errno.EBADF, errno.ENOTCONN)


def _note_end(connection: Connection, error: BaseException) -> None:
    """Record what ended a handler quietly, if it is not the ordinary end."""
    if error is not connection._stream.quiet_end and not isinstance(error, ServerStopping):
        _note(connection._tape, f"after the end: {said_shortly(error)}")


def _note(tape: Tape, text: str) -> None:
    tape.note(NOTE, text.encode("utf-8", "backslashreplace"))


def answer(
    request: Request, handler: Handler, server: Any, socket: Any, tape: Tape, failures: Failures, name: str
) -> None:
    """Run a datagram handler on one request and send what it returns, each part a datagram.  Never raises.

    Args:
        socket: What a handler class finds as the second half of its request; its ``sendto`` is recorded.
        tape: That of the request's peer.
    """
    try:
        if handler.is_class:
            handler.target((bytes(request), socket), request.peer, server)
        else:
            result = handler.target(request)
            try:
                request.reply(*parts_of(result, f"handler {handler.name}"))
            except ServerStopping:
                raise
            except Exception as error:  # about what it returned: it is no longer running, so point at its def
                raise error.with_traceback(traceback_at_definition(handler.target)) from None
    except ServerStopping:
        pass  # while it waited for a client that does not read
    except BaseException as error:
        _note(tape, said_shortly(from_users_frame(error)))
        failures.add(error, f"{name}, datagram from {format_peer(request.peer)}")
