"""What goes wrong on purpose: the rarer faults, and what injects them; the usual ones are in ``pytest_sockserver``.

The names are imported when first used.
"""

from __future__ import annotations

TYPE_CHECKING = False  # what type checkers take for typing.TYPE_CHECKING, without importing typing
if TYPE_CHECKING:
    from ..scripting.effects import Descriptors as Descriptors
    from ..scripting.effects import EndAfter as EndAfter
    from ..scripting.effects import Jitter as Jitter
    from ..scripting.effects import ReadSlowly as ReadSlowly
    from ..scripting.effects import Urgent as Urgent
    from ..scripting.seeds import garbage as garbage
    from ..scripting.tls_effects import Alert as Alert
    from ..scripting.tls_effects import Raw as Raw
    from .active import Injection as Injection
    from .matrix import FaultMatrix as FaultMatrix
    from .matrix import FaultResult as FaultResult
    from .modifiers import Append as Append
    from .modifiers import Corrupt as Corrupt
    from .modifiers import Hold as Hold
    from .modifiers import Overwrite as Overwrite
    from .modifiers import Prepend as Prepend
    from .modifiers import Repeat as Repeat
    from .modifiers import Replace as Replace
    from .modifiers import Split as Split
    from .modifiers import Spoof as Spoof
    from .modifiers import Throttle as Throttle
else:
    _PUBLIC = {
        "faults.active": "Injection",
        "faults.matrix": "FaultMatrix FaultResult",
        "faults.modifiers": "Append Corrupt Hold Overwrite Prepend Repeat Replace Split Spoof Throttle",
        "scripting.effects": "Descriptors EndAfter Jitter ReadSlowly Urgent",
        "scripting.seeds": "garbage",
        "scripting.tls_effects": "Alert Raw",
    }

    def __getattr__(name):
        from importlib import import_module

        if name == "__all__":
            return sorted(" ".join(_PUBLIC.values()).split())
        for home, names in _PUBLIC.items():
            if name in names.split():
                value = globals()[name] = getattr(import_module(f"..{home}", __name__), name)
                return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__():
        return sorted({*globals(), *__getattr__("__all__"), "__all__"})
