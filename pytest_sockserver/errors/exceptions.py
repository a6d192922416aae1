"""Who is to blame: the exceptions of this package.

The type carries the blame and the message carries the facts, so that a test can be read without
knowing the library: an ``AssertionError`` says that the client departed from what the test declared,
a ``TimeoutError`` that something did not come, a ``RuntimeError`` that a verb was used in the wrong
state, a ``ValueError`` or ``TypeError`` that a declaration makes no sense.
"""

from __future__ import annotations


class SockServerError(Exception):
    """The base of every exception that this package defines.

    Attributes:
        summary: What is to say without the place before it and the conversation after it, where there are such.
        where: That place: the server, and its connection or the client of a datagram.
    """

    summary: str | None = None
    where: str | None = None
    #: The summary says where in the test it stands.
    placed: bool = False


class ScriptMismatch(SockServerError, AssertionError):
    """The client said something else than what was expected at that point."""


class UnexpectedRequest(SockServerError, AssertionError):
    """The client sent a request, or opened a connection, that nothing was declared for."""


class UnmetExpectation(SockServerError, AssertionError):
    """Something that was declared to happen has not happened."""


class DeadlineExceeded(SockServerError, TimeoutError):
    """Something did not come in time.  The message holds the conversation so far."""


class EndOfStream(SockServerError, EOFError):
    """The client ended its stream where a unit would have begun.

    In a handler this ends the conversation quietly; in a test that drives the connection itself it is an
    ordinary exception.
    """


class IncompleteRequest(EndOfStream):
    """The client ended its stream, or reset it, within a unit: a line without its ending, too few bytes."""


THE_SERVER_STOPS = "the server stops"  # what ServerStopping says then, told from a connection that the test ended


class ServerStopping(SockServerError, ConnectionAbortedError):
    """Raised in a handler, out of whatever its socket was doing, when its server stops.  Never a failure.

    Raised as well when the test closes or resets a connection that another thread drives.
    """


class ServerFailed(SockServerError, RuntimeError):
    """A wait ended early, because the server's side failed meanwhile; that failure is its ``__cause__``."""


class HandlerStuck(SockServerError, RuntimeError):
    """A thread did not end in time.  The message names it, its peer and the line where it stands."""


class InvalidState(SockServerError, RuntimeError):
    """A verb was used in a state that does not allow it; the message lists the states that do."""


class BlockingCallInCoroutine(SockServerError, RuntimeError):
    """A blocking verb was called inside a coroutine, where it would stop the client's own event loop."""


class RecordLimitExceeded(SockServerError, RuntimeError):
    """Bytes were asked for that were not kept, since the recording had reached its ``record_limit``."""


class AddressUnavailable(SockServerError, OSError):
    """The address cannot be bound; ``errno`` is the operating system's, the message names who has it."""


class UnsupportedFault(SockServerError, ValueError):
    """A part was declared for a transport that cannot do what it says."""


class SockServerWarning(UserWarning):
    """Something that is no failure of the test, and that may explain one, or hide one.

    The handler of a connection that came after the test's call has failed, or its clean-up when the server stopped;
    the kernel dropped datagrams; ``accept()`` failed; a stop could not remove its files.
    """


class DialogueError(SockServerError, ValueError):
    """The text of a dialogue cannot be read; the message has the line, its number and what was expected.

    Attributes:
        line: Its number, from 1 on.
    """

    line: int = 0


for _error in list(vars().values()):
    if isinstance(_error, type) and issubclass(_error, (SockServerError, SockServerWarning)):
        _error.__module__ = "pytest_sockserver"  # where users import them from, and what a report should say
