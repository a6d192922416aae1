"""A declared handler: a function of a connection or of a datagram, or a ``BaseRequestHandler`` subclass."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors.location import Location, hide_frame, traceback_at_definition

if TYPE_CHECKING:
    from ..connection.conversation import Conversation

__tracebackhide__ = hide_frame


class Handler:
    """A declared handler: what to call, and where it was declared.

    Args:
        target: A function of one argument, or a class of three (request, client_address, server).
        argument: What a function is called with, for messages: ``"a Connection"``.

    Raises:
        TypeError: It cannot be called so, or calling it would not run it (a coroutine, a generator).
    """

    def __init__(self, target: Callable[..., Any], argument: str) -> None:
        self.origin = Location()
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

    @property
    def is_raw(self) -> bool:
        """Whether it has the socket itself, past the verbs."""
        return self.is_class

    def run(self, connection: Conversation) -> None:
        """Converse with one client, to the end of the handler."""
        if self.is_class:
            self.target(connection.tape.socket, connection.peer, connection.context.framework)
            return
        result = self.target(connection.face)
        if result:  # the b"" of a recv() at the end of the stream is no forgotten reply
            text = f"handler {self.name} returned {result!r}: expected None, what is to be said goes to conn.send()"
            raise TypeError(text).with_traceback(traceback_at_definition(self.target))

    def standing(self, connection: Conversation) -> None:
        """Return nothing: what the user's code waits for is not known."""


def _what_runs(target: Any) -> Any:
    """Return the function whose body is the handler: a class's handle(), an object's __call__(), or itself."""
    if isinstance(target, type):
        return getattr(target, "handle", None)
    return target if inspect.isroutine(target) else type(target).__call__


def _check_arity(target: Callable[..., Any], name: str, argument: str, count: int) -> None:
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
