"""What the flags and the ini settings may be; imported when one of them is given."""

from __future__ import annotations

from argparse import ArgumentTypeError
from typing import Any

import pytest

from . import SETTINGS

#: Seconds: scripting.arguments.LONGEST_WAIT, which is not imported before one of the fixtures is used.
LONGEST_WAIT = 86_400

EXPECTED = {"float": "seconds above 0", "int": "a number of bytes above 0"}


def check_given(config: pytest.Config, name: str) -> None:
    """Raise the UsageError about what is given for a setting, in the ini file or for the host as a flag."""
    setting, kind = f"sockserver_{name}", SETTINGS[name][0]
    try:
        value = config.getini(setting)
    except (ValueError, pytest.UsageError) as error:
        if setting in str(error):
            raise  # else it is "could not convert string to float: 'abc'": the text, and not of which setting
        text = str(error).rpartition(": ")[2]
        raise pytest.UsageError(f"{setting}: expected {EXPECTED[kind]}, not {text}") from None
    if value not in (None, ""):
        _check(setting, name, value)
    host = config.getoption(setting) if name == "host" else None
    if host is not None:
        _check(f"--{setting.replace('_', '-')}", name, host)


def _check(where: str, name: str, value: Any) -> None:
    from ..server.options import check_option
    from ..transport.address import checked_host

    try:
        check_option(name, value)
        if name == "host":
            checked_host(value, allow_remote=False)
    except (TypeError, ValueError) as error:
        raise pytest.UsageError(f"{where}: {error}") from None


def seconds(text: str) -> float:
    """Return the seconds that a flag gives."""
    value = float(_number(text, float, EXPECTED["float"]))
    if value > LONGEST_WAIT:
        raise ArgumentTypeError(f"expected seconds above 0, and at most {LONGEST_WAIT:,} (a day), not {text!r}")
    return value


def bytes_of(text: str) -> int:
    """Return the number of bytes that a flag gives."""
    return int(_number(text, int, EXPECTED["int"]))


def _number(text: str, kind: type[int] | type[float], expected: str) -> float:
    try:
        value = kind(text)
    except ValueError:
        value = kind(0)
    if not 0 < value < float("inf"):
        raise ArgumentTypeError(f"expected {expected}, not {text!r}")
    return value
