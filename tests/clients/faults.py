"""The faults that every client meets, each a row: what a server presents or does, and what its client is to make of it.

A file of a client says what it expects of all rows, and of some by name.  So a new row is tried on each client at once;
where what comes of it is another error than the rest, the client's file gets its name.
"""

from __future__ import annotations

from typing import Any

import pytest

from pytest_sockserver import Certificate, Close, Request, Reset, Stall
from pytest_sockserver.faults import Alert

#: What a server presents, and the reason that OpenSSL gives for refusing it.  The host of all clients is 127.0.0.1.
CERTIFICATES: dict[str, tuple[Certificate, str]] = {
    "expired": (Certificate.expired(), "certificate has expired"),
    "not yet valid": (Certificate.not_yet_valid(), "certificate is not yet valid"),
    "of another host": (Certificate.wrong_host(), "IP address mismatch, certificate is not valid for '127.0.0.1'"),
    "of an unknown root": (Certificate.of_unknown_root(), "self-signed certificate in certificate chain"),
    "self-signed": (Certificate.self_signed(), "self-signed certificate"),
    "without an intermediate": (Certificate.without_intermediate(), "unable to get local issuer certificate"),
}


def certificates(**reasons: str) -> pytest.MarkDecorator:
    """Parametrize a test by ``certificate`` and ``reason``.

    Args:
        reasons: Another reason, by the name of a row, with ``_`` for a blank.
    """
    rows = {name: (certificate, reason) for name, (certificate, reason) in CERTIFICATES.items()}
    for name, reason in reasons.items():
        rows[spaced(name)] = rows[spaced(name)][0], reason
    return pytest.mark.parametrize(("certificate", "reason"), rows.values(), ids=rows)


#: What a server does instead of its side of a handshake, once the client's has come.
HANDSHAKES: dict[str, list[object]] = {
    "an alert": [Alert("handshake_failure"), Close()],
    "plain text": [b"400 speak up\r\n\r\n", Close()],
    "an end": [Close()],
    "a reset": [Reset()],
    "silence": [Stall()],
}

#: What ends a reply before it is whole.
ENDS: dict[str, list[object]] = {
    "an end": [Close()],
    "a reset": [Reset()],
    "silence": [Stall()],
}


def handshakes(error: Any, **errors: Any) -> pytest.MarkDecorator:
    """Parametrize a test by ``answer``, the parts of a row, and the ``error`` that the client raises.

    Args:
        error: Of all rows.
        errors: Other ones, by the names of rows, with ``_`` for a blank.
    """
    return answers(HANDSHAKES, error, errors)


def ends(error: Any, **errors: Any) -> pytest.MarkDecorator:
    """Parametrize a test by ``answer``, what comes instead of the rest of a reply, and by ``error``."""
    return answers(ENDS, error, errors)


def answers(rows: dict[str, list[object]], error: Any, errors: dict[str, Any]) -> pytest.MarkDecorator:
    by_name = {**dict.fromkeys(rows, error), **{spaced(name): other for name, other in errors.items()}}
    assert by_name.keys() == rows.keys(), f"no such row: {by_name.keys() - rows.keys()}"
    return pytest.mark.parametrize(
        ("answer", "error"), [(rows[name], each) for name, each in by_name.items()], ids=by_name
    )


def spaced(name: str) -> str:
    return name.replace("_", " ")


def patience(answer: list[object]) -> float:
    """Return the client's time-out in seconds: short if only that ends its wait."""
    return 0.1 if Stall() in answer else 5


def hello(request: Request) -> tuple[()]:
    """Wait for the client's side of a handshake, and say nothing: what goes before a row after a ``STARTTLS``."""
    request.connection.recv_exactly(5)
    return ()
