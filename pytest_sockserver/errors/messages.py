"""How messages write addresses and quote conversations."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, TypeVar

from ..errors.location import hide_frame
from .exceptions import SockServerError

__tracebackhide__ = hide_frame


E = TypeVar("E", bound=SockServerError)
F = TypeVar("F", bound=Callable[..., Any])


def format_peer(peer: Any) -> str:
    """Return an address as messages write it: ``127.0.0.1:50914``, ``[::1]:50914``, a path, ``an unbound socket``."""
    if isinstance(peer, tuple) and len(peer) >= 2:
        return f"[{peer[0]}]:{peer[1]}" if ":" in str(peer[0]) else f"{peer[0]}:{peer[1]}"
    if not peer:
        return "an unbound socket"
    path = peer.decode("utf-8", "surrogateescape") if isinstance(peer, bytes) else str(peer)
    return printable(path.replace("\0", "@"))


def format_seconds(seconds: float) -> str:
    """Return a time as messages write it: ``5 s``, ``0.25 s``, ``20 s``, ``3,600 s``; four digits are enough."""
    if seconds >= 1000:
        return f"{seconds:,.0f} s"
    text = f"{seconds:.4g}" if seconds >= 1e-4 else f"{seconds:.7f}".rstrip("0")
    return f"{text} s"


def printable(text: str) -> str:
    """Return text that every terminal and reporter takes: control characters and lone surrogates are escaped."""
    if text.isprintable():
        return text
    return "\n".join(line if line.isprintable() else _escaped(line) for line in text.split("\n"))


def _escaped(line: str) -> str:
    return "".join(
        each if each.isprintable() or each == "\t" else each.encode("unicode_escape").decode("ascii") for each in line
    )


def indented(text: str) -> str:
    """Return ``text`` moved right, to stand under a message."""
    return "\n".join(f"    {line}" for line in text.splitlines())


def with_conversation(kind: type[E], where: str, text: str, conversation: str) -> E:
    """Return an exception whose message has its place before it and the conversation after it.

    A report, which shows both anyway, takes its ``summary``.
    """
    error = kind(f"{where}: {text}\n{indented(conversation)}")
    error.summary, error.where = text, where
    return error


def refuse_misspelt(owner: str, name: str, known: Iterable[str]) -> None:
    """Raise the ``AttributeError`` that says what was meant, if a name is nearly one of the known ones."""
    import difflib  # a millisecond, and only on the way to an error

    close = difflib.get_close_matches(name, known, n=1)
    if close:
        raise AttributeError(f"{owner} has no attribute {name!r}: did you mean {close[0]!r}?")


# Names that were changed: a class has these two, and the table is loaded when an old name is asked for


def old_attributes(owner: str) -> Callable[[Any, str], Any]:
    """Return the ``__getattr__`` of a class, some of whose attributes had other names.

    Args:
        owner: What a test calls an instance: ``"server"``.
    """

    def __getattr__(self: Any, name: str) -> Any:
        if hasattr(type(self), name):
            return object.__getattribute__(self, name)  # a property, which raised an AttributeError of its own
        if not name.startswith("_"):
            from .renamed import refuse_old_attribute

            refuse_old_attribute(owner, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

    return __getattr__


def refuses_old_keywords(verb: F) -> F:
    """Make a method, whose keywords all have defaults, refuse one that had another name."""
    known = verb.__kwdefaults__ or {}

    @wraps(verb)
    def call(*args: Any, **given: Any) -> Any:
        unknown = next((name for name in given if name not in known), None)
        if unknown is not None:
            from .renamed import refuse_old_keyword

            refuse_old_keyword(verb.__name__, unknown)
            raise TypeError(f"{verb.__name__}() got an unexpected keyword argument {unknown!r}")
        return verb(*args, **given)

    return call  # type: ignore[return-value]
