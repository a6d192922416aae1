"""Servers that were started and never stopped.

The threads of a server hold it, so that the garbage collector never finds one that its user has let go.  Instead, all
that run are listed here, and the rest is told at the end of pytest's session, or of the process: as a ResourceWarning,
Python's own for what was left open, which names where the server was started.

Nothing waits here, and no lock is taken: each access to the list is one operation of a dict.  The servers themselves
are left alone, but for the files of unix sockets; their threads are daemons, and end with the process.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import warnings
from itertools import count
from typing import TYPE_CHECKING, Final

from ..errors.location import Location
from ..errors.messages import format_peer, printable
from ..originals import original
from ..recording.failures import said_shortly

if TYPE_CHECKING:
    from .service import Service

_numbers: Final = count(1)
_running: Final[dict[Service, tuple[int, Location, str]]] = {}


def note_start(service: Service) -> None:
    """List a server that runs now."""
    _running[service] = next(_numbers), Location(), os.environ.get("PYTEST_CURRENT_TEST", "")


def note_stop(service: Service) -> None:
    """Take a server off the list."""
    _running.pop(service, None)


def running() -> list[tuple[int, str, Location]]:
    """Return the servers that run: a number that no other server has, the name, where it was started.

    In a forked child those of its parent are among them.
    """
    # The items first, as one operation: another thread may start a server meanwhile.
    return [(number, service.context.name, origin) for service, (number, origin, _) in list(_running.items())]


def latest() -> int:
    """Return a number below that of every server that is started from now on."""
    return next(_numbers)


def tell(since: int = 0) -> list[ResourceWarning]:
    """Warn of each server that was started since then, and still runs; return what a filter makes an error."""
    errors = []
    for service, (number, origin, test) in list(_running.items()):
        if number < since or service.pid != original.getpid():
            continue
        note_stop(service)
        where = format_peer(service.published.address)
        within = f" in {test.rpartition(' ')[0]}" if test else ""
        text = printable(
            f"{service.context.name} {where} was started here{within}, and never stopped: use it as `with "
            f"{service.kind}() as server:`, or call stop(); the fixtures, and `with SockServer()`, stop theirs"
            f"{_untold(service)}"
        )
        try:
            warnings.warn_explicit(ResourceWarning(text), ResourceWarning, *origin.place)
        except ResourceWarning as error:
            errors.append(error.with_traceback(origin.traceback()))
    return errors


def _untold(service: Service) -> str:
    """Return what a warning adds about a failure that nothing has raised, and now nothing will."""
    pending = service.context.failures.pending()
    return f"\n  this went wrong in it: {pending.where}: {said_shortly(pending.error)}" if pending is not None else ""


def _at_exit() -> None:
    left = [service for service in list(_running) if service.pid == original.getpid()]
    errors = tell()
    for service in left:
        if service.published.place is not None:
            with contextlib.suppress(OSError):
                service.published.place.release()
    if errors:
        raise errors[0]  # Python prints it


atexit.register(_at_exit)
