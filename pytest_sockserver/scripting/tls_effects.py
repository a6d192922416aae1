"""What is done to TLS: to begin it, to refuse it, to say something past it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

from ..errors.location import hide_frame
from .frozen import frozen
from .parts import STREAMS, Effect
from .seeds import garbage

if TYPE_CHECKING:
    import ssl
    from typing import TypeAlias

    from ..transport.certificates import TLS, Certificate

    Context: TypeAlias = ssl.SSLContext | TLS | Certificate | bool

__tracebackhide__ = hide_frame


#: Alerts by name (RFC 8446 section 6; those of TLS 1.2 in RFC 5246 section 7.2).
ALERTS: Final = {
    "close_notify": 0,
    "unexpected_message": 10,
    "bad_record_mac": 20,
    "record_overflow": 22,
    "decompression_failure": 30,
    "handshake_failure": 40,
    "bad_certificate": 42,
    "unsupported_certificate": 43,
    "certificate_revoked": 44,
    "certificate_expired": 45,
    "certificate_unknown": 46,
    "illegal_parameter": 47,
    "unknown_ca": 48,
    "access_denied": 49,
    "decode_error": 50,
    "decrypt_error": 51,
    "protocol_version": 70,
    "insufficient_security": 71,
    "internal_error": 80,
    "inappropriate_fallback": 86,
    "user_canceled": 90,
    "no_renegotiation": 100,
    "missing_extension": 109,
    "unsupported_extension": 110,
    "unrecognized_name": 112,
    "bad_certificate_status_response": 113,
    "unknown_psk_identity": 115,
    "certificate_required": 116,
    "no_application_protocol": 120,
}

_APPLICATION_DATA = b"\x17\x03\x03"  # how a record of data begins, in TLS 1.3 as well (RFC 8446 section 5.2)
_BEGUN = "its connections speak TLS already"


@frozen
class StartTLS(Effect):
    """Do the server's side of a TLS handshake.

    With ``context``, an ``ssl.SSLContext``, a ``TLS`` or a ``Certificate``; without one, the server's ``tls=``.
    """

    context: Context | None = None

    fits = frozenset({"tcp", "unix"})
    takes_time = True
    why_not: ClassVar[Mapping[str, str]] = {"tls": f"{_BEGUN}; on(HANDSHAKE) says how they begin"}

    def __post_init__(self) -> None:
        checked_context(self.context, "StartTLS()")

    def __repr__(self) -> str:
        return "StartTLS()" if self.context is None else f"StartTLS({self.context!r})"

    @property
    def lacks_context(self) -> bool:  # type: ignore[override]
        """Whether it wants the server's ``tls=``."""
        return self.context is None


@frozen(init=False)
class Alert(Effect):
    """Refuse the client's handshake, once it has begun: a fatal alert, in plain text (RFC 8446 section 6).

    Args:
        description: Its name, ``"handshake_failure"`` for example, or its number.
    """

    description: str | int

    fits = frozenset({"tcp", "unix"})
    takes_time = True
    why_not: ClassVar[Mapping[str, str]] = {
        "tls": f"{_BEGUN}, and Python's ssl sends no alert of ours; on(HANDSHAKE).reply(Alert(...)) refuses them"
    }

    def __init__(self, description: str | int) -> None:
        if isinstance(description, str):
            if description not in ALERTS:
                raise ValueError(_unknown_alert(description))
        elif type(description) is not int:
            raise TypeError(f"Alert() expected the name of an alert, or its number, not {description!r}")
        elif not 0 <= description <= 255:
            raise ValueError(f"Alert() expected a number from 0 to 255, not {description!r}")
        object.__setattr__(self, "description", description)

    def __repr__(self) -> str:
        return f"Alert({self.description!r})"

    @property
    def record(self) -> bytes:
        """The bytes: a record of type 21, version 3.3, two bytes long: level 2, fatal, and the description."""
        number = ALERTS[self.description] if isinstance(self.description, str) else self.description
        return b"\x15\x03\x03\x00\x02\x02" + bytes([number])


@frozen(init=False)
class Raw(Effect):
    """Send bytes past TLS, straight on the connection under it.

    ``Raw.bad_record()`` is a record that does not decrypt; ``Raw.cut_record()`` the beginning of one.
    """

    data: bytes

    fits = STREAMS

    def __init__(self, data: bytes) -> None:
        if not isinstance(data, bytes) or not data:  # type: ignore[redundant-expr]
            raise ValueError(f"Raw() expected at least one byte, not {data!r}")
        object.__setattr__(self, "data", data)

    def __repr__(self) -> str:
        return f"Raw({self.data!r})"

    @classmethod
    def bad_record(cls, *, seed: int = 0) -> Raw:
        """Return a record of data whose bytes were not encrypted with this connection's keys: ``BAD_RECORD_MAC``."""
        return cls(_APPLICATION_DATA + b"\x00\x40" + garbage(64, seed=seed))

    @classmethod
    def cut_record(cls, *, seed: int = 0) -> Raw:
        """Return the first 16 bytes of a record of 64; what follows it ends, or stalls, within the record."""
        return cls(_APPLICATION_DATA + b"\x00\x40" + garbage(11, seed=seed))


def checked_context(context: Any, what: str) -> Any:
    """Return what is a context, or makes one, or raise the error that says what it must be."""
    if context is None or context is True or hasattr(context, "wrap_socket"):
        return context
    if isinstance(context, type) or not hasattr(context, "server_context"):
        raise TypeError(f"{what} expected an ssl.SSLContext, a TLS or a Certificate, not {context!r}")
    return context


def _unknown_alert(name: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name.lower(), ALERTS, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(ALERTS)}"
    return f"Alert() knows no alert {name!r}: {hint}"
