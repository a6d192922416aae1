"""Names that were changed before version 0.1.0, and the errors about those that are asked for.

Nothing imports this module until a test uses a name that is not there.
"""

from __future__ import annotations

from typing import Final

__tracebackhide__ = True


_FAULTS = (
    "Alert Append Corrupt Descriptors EndAfter Hold Jitter Overwrite Prepend Raw ReadSlowly Repeat Replace Split Spoof "
    "Throttle Urgent garbage"
)
_SWEEPS = "breaks closes cuts resets splits"

#: Each old name, as a test writes it, and the new one.
RENAMED: Final = {
    "pytest_sockserver.BlockedLoop": "pytest_sockserver.BlockingCallInCoroutine",
    "pytest_sockserver.Open": "pytest_sockserver.OpenGate",
    "pytest_sockserver.WrongState": "pytest_sockserver.InvalidState",
    "pytest_sockserver.check_up": "pytest_sockserver.fault_matrix",
    "pytest_sockserver.Checkup": "pytest_sockserver.faults.FaultMatrix",
    "pytest_sockserver.Disturbing": "pytest_sockserver.faults.Injection",
    "pytest_sockserver.Finding": "pytest_sockserver.faults.FaultResult",
    **{f"pytest_sockserver.{name}": f"pytest_sockserver.faults.{name}" for name in _FAULTS.split()},
    **{f"pytest_sockserver.{name}": f"pytest_sockserver.sweeps.{name}" for name in _SWEEPS.split()},
    "sockserver.check_up()": "sockserver.fault_matrix()",
    "server.check_up()": "sockserver.fault_matrix()",
    "server.assert_quiet()": "server.assert_no_traffic()",
    "server.disturb()": "server.inject()",
    "server.open()": "server.open_gate()",
    "server.take()": "server.next_request()",
    "server.aio.assert_quiet()": "server.aio.assert_no_traffic()",
    "server.aio.check_up()": "sockserver.fault_matrix()",
    "server.aio.disturb()": "server.inject()",
    "server.aio.open()": "server.open_gate()",
    "server.aio.take()": "server.aio.next_request()",
    "script.open()": "script.open_gate()",
    "reply(times=)": "reply(uses=)",
    "then(times=)": "then(uses=)",
}


def refuse_old_import(name: str) -> None:
    """Raise the ``ImportError`` about a public name of the package that was renamed or moved.

    It is no ``AttributeError``, whose text ``from pytest_sockserver import ...`` replaces by one of its own.
    """
    new = RENAMED.get(f"pytest_sockserver.{name}")
    if new is not None:
        module, _, called = new.rpartition(".")
        what = f"is in {module} now" if called == name else f"is called {called} now"
        raise ImportError(f"{name} {what}: from {module} import {called}", name="pytest_sockserver")


def refuse_old_attribute(owner: str, name: str) -> None:
    """Raise the ``AttributeError`` about an attribute that was renamed."""
    new = RENAMED.get(f"{owner}.{name}()")
    if new is not None:
        raise AttributeError(f"{owner}.{name}() is called {new} now")


def refuse_old_keyword(verb: str, name: str) -> None:
    """Raise the ``TypeError`` about a keyword that was renamed."""
    new = RENAMED.get(f"{verb}({name}=)")
    if new is not None:
        raise TypeError(f"{verb}({name}=) is called {new} now")
