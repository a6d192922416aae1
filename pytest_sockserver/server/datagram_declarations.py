"""What was declared for the datagrams of a server, and which of it answers the next one."""

from __future__ import annotations

from ..connection.request import Request
from ..recording.recorder import Recorder
from ..responders.handler import Handler
from ..responders.rulebook import RuleBook
from .datagram_script import DatagramScript, Sections


class DatagramDeclarations:
    """The declarations of one server of datagrams.

    Attributes:
        book: The rules.
        handler: The latest that was declared.
        scripts: In order of declaration.  Guarded by the recorder's lock.
    """

    def __init__(self, recorder: Recorder, book: RuleBook) -> None:
        self._recorder, self.book = recorder, book
        self.handler: Handler | None = None
        self.scripts: list[DatagramScript | Sections] = []

    def __bool__(self) -> bool:
        """Whether anything was declared."""
        return bool(self.handler is not None or self.book or self.scripts)

    def clear(self) -> list[object]:
        """Forget the handler and the scripts; return what is to be let go without the lock, which must be held."""
        gone: list[object] = [self.handler, self.scripts]
        self.handler, self.scripts = None, []
        return gone

    def script_for(self, request: Request) -> tuple[DatagramScript | None, bool]:
        """Return the script that a datagram belongs to, if there is one, and whether any was declared for its peer."""
        with self._recorder.lock:
            scripts = [
                script
                for each in self.scripts
                if (script := each.script_for(request.peer) if isinstance(each, Sections) else each) is not None
            ]
        return next((script for script in scripts if not script.over), None), bool(scripts)

    def all_scripts(self) -> list[DatagramScript]:
        """Return all scripts, those of sections included."""
        with self._recorder.lock:
            declared = [each.scripts if isinstance(each, Sections) else [each] for each in self.scripts]
        return [script for scripts in declared for script in scripts]

    def captured(self) -> set[str]:
        """Return the names under which the scripts capture."""
        return set().union(*[each.captured for each in self.all_scripts()])
