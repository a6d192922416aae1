"""The contexts of both sides: what ``ssl`` is told of a :class:`TLS`, and what a client trusts.

Contexts of servers are kept: making one costs a millisecond, and most tests want the same.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from ..errors.location import hide_frame
from ..originals import ssl_module
from ..scripting.frozen import fields_of
from .certificate_authority import ca_pem, issued, kept

if TYPE_CHECKING:
    import ssl

    from .certificate_authority import Certificate

__tracebackhide__ = hide_frame


#: Versions as the options write them, by the names of ``ssl.TLSVersion``; the oldest first.
VERSIONS: Final = {"1.0": "TLSv1", "1.1": "TLSv1_1", "1.2": "TLSv1_2", "1.3": "TLSv1_3"}

OLD: Final = ("1.0", "1.1")  # OpenSSL 3 speaks them at security level 0 only
VERIFY_MODES: Final = {"no": "CERT_NONE", "optional": "CERT_OPTIONAL", "required": "CERT_REQUIRED"}

# RFC 7301 section 3.1: the length of a protocol's name is one byte.
_LONGEST_ALPN: Final = 255


def client_context(
    *, certificate: Certificate | None = None, alpn: Iterable[str] = (), trust: bool = True
) -> ssl.SSLContext:
    """Return a new context of a client that trusts the root of this process, and nobody else.

    Args:
        certificate: What the client shows a server that asks for it.  With a weak key it accepts weak ones as well.
        alpn: The protocols it offers.
        trust: If false it trusts nobody at all, and refuses every server.
    """
    check_bool("trust", trust)
    offered = checked_alpn(alpn)
    if certificate is not None and not hasattr(certificate, "for_client"):
        raise TypeError(f"certificate must be a Certificate, not {certificate!r}")
    ssl_module()  # once it is there, the client's is the one that everybody has, gevent's perhaps
    import ssl

    if trust:
        # Python's own rules, of the version that runs: 3.13 added VERIFY_X509_STRICT.
        context = ssl.create_default_context(cadata=ca_pem().decode())
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if offered:
        context.set_alpn_protocols(list(offered))
    if certificate is not None:
        _set_ciphers(context, None, weak=certificate.fault == "weak_key")
        _show(context, certificate)
    return context


@kept
def server_context(tls: Any) -> ssl.SSLContext:
    """Return the context of a server, always the same one."""
    ssl = ssl_module()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _set_versions(context, tls.minimum, tls.maximum)
    _set_ciphers(context, tls.ciphers, weak=_is_weak(tls))
    _show(context, tls.certificate)
    context.verify_mode = ssl.VerifyMode[VERIFY_MODES[tls.client_certificate]]
    if tls.client_certificate != "no":
        context.load_verify_locations(cadata=ca_pem().decode())
    if tls.alpn:
        context.set_alpn_protocols(list(tls.alpn))
    if not tls.tickets:
        context.options |= ssl.OP_NO_TICKET  # up to TLS 1.2
        context.num_tickets = 0
    context.sni_callback = _when_asked_for_a_name(tls)
    return context  # type: ignore[no-any-return]


def _set_versions(context: ssl.SSLContext, minimum: str | None, maximum: str | None) -> None:
    ssl = ssl_module()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # ssl.TLSVersion.TLSv1: whoever asks for it knows
        if minimum is not None:
            context.minimum_version = ssl.TLSVersion[VERSIONS[minimum]]
        elif maximum in OLD:
            context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED  # Python's own is 1.2
        if maximum is not None:
            context.maximum_version = ssl.TLSVersion[VERSIONS[maximum]]


def _is_weak(tls: Any) -> bool:
    """Whether OpenSSL would refuse on our side already: it has levels of security, from 0 to 5, and Python's is 2."""
    return tls.certificate.fault == "weak_key" or tls.minimum in OLD or tls.maximum in OLD


def _set_ciphers(context: ssl.SSLContext, ciphers: str | None, *, weak: bool) -> None:
    if weak and "@SECLEVEL" not in (ciphers or ""):
        context.set_ciphers(f"{ciphers or 'DEFAULT'}:@SECLEVEL=0")
    elif ciphers is not None:
        context.set_ciphers(ciphers)


def _when_asked_for_a_name(tls: Any) -> Callable[[Any, str | None, ssl.SSLContext], int | None]:
    """Return what a context calls once a client has said hello, whether or not it asks for a name."""
    refused_alert = ssl_module().ALERT_DESCRIPTION_UNRECOGNIZED_NAME
    contexts = {name: _for_name(tls, certificate).server_context() for name, certificate in tls.names}
    known = {*contexts, *tls.certificate.hosts}

    def asked(sock: Any, name: str | None, _: ssl.SSLContext) -> int | None:
        sock.server_name = name
        if name is None:
            return None
        spelt = name.lower()
        forms = spelt, f"*.{spelt.partition('.')[2]}"  # RFC 6125 section 6.4.3: a star stands for one label
        for form in forms:
            if form in contexts:
                sock.context = contexts[form]
                return None
        refused = tls.refuse_unknown_names and known.isdisjoint(forms)
        return refused_alert if refused else None

    return asked


def _for_name(tls: Any, certificate: Certificate) -> Any:
    """Return the same side of TLS with another certificate, and no names of its own."""
    same = {name: getattr(tls, name) for name in fields_of(tls)}
    return type(tls)(**{**same, "certificate": certificate, "names": None, "refuse_unknown_names": False})


def _show(context: ssl.SSLContext, certificate: Certificate) -> None:
    """Have a context show the certificate.  By a file: ``ssl`` reads nothing else (CPython bpo-16487)."""
    import os
    import tempfile

    pem = issued(certificate)
    descriptor, path = tempfile.mkstemp(suffix=".pem")
    try:
        with open(descriptor, "wb") as file:
            file.write(pem)
        context.load_cert_chain(path)
    finally:
        os.unlink(path)


# Checking what is given


def check_bool(name: str, value: object) -> None:
    """Refuse what is no bool."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {value!r}")


def checked_alpn(alpn: object) -> tuple[str, ...]:
    """Return the names of protocols, or raise the error that says what they must be."""
    if isinstance(alpn, (str, bytes)) or not isinstance(alpn, Iterable):
        raise TypeError(f"alpn must be a list of protocols such as ['h2', 'http/1.1'], not {alpn!r}")
    checked = tuple(alpn)
    for name in checked:
        if not isinstance(name, str):
            raise TypeError(f"alpn must be a list of str, not of {name!r}")
        if not name.isascii() or not 1 <= len(name) <= _LONGEST_ALPN:
            raise ValueError(f"alpn must be names of 1 to {_LONGEST_ALPN} ASCII characters, not {name!r}")
    return checked
