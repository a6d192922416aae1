"""Make the keys and certificates that a :class:`Certificate` describes, under one root for the whole process.

trustme makes what it can; a weak key, a self-signed certificate, and one without alternative names (trustme's have
an empty list of them, which is another fault) are built by hand.  Keys are made when somebody first needs them, and
kept; nothing stays on disk.
"""

from __future__ import annotations

import datetime as datetimes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from functools import lru_cache, wraps
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Protocol, TypeVar

from ..errors.location import hide_frame
from ..originals import original

if TYPE_CHECKING:
    import os

    import trustme
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    _Key = EllipticCurvePrivateKey | RSAPrivateKey

__tracebackhide__ = hide_frame


#: When certificates end, unless their fault says otherwise: trustme's date.  OpenSSL on Windows fails at dates after
#: January of 3001 (cryptography issue 3194).
ENDS: Final = datetime(3000, 1, 1, tzinfo=timezone.utc)

# When certificates begin to be valid, unless their fault says otherwise: trustme's date.
_BEGINS: Final = datetime(2000, 1, 1, tzinfo=timezone.utc)

# Bits.  Half of what OpenSSL's security level 2 demands, which is Python's; cryptography makes no shorter one.
_WEAK_BITS: Final = 1024

_EXPIRED_ON: Final = datetime(2020, 1, 1, tzinfo=timezone.utc)

_VALID_FROM: Final = datetime(2100, 1, 1, tzinfo=timezone.utc)

# Values whose keys, and contexts, are kept.  A sweep over a thousand hosts shall not be a heap of a thousand contexts.
_KEPT: Final = 128


class Certificate(Protocol):
    """What is asked of a certificate's description."""

    @property
    def hosts(self) -> tuple[str, ...]:
        """Whom it is for."""

    @property
    def fault(self) -> str | None:
        """What is wrong with it."""

    @property
    def when(self) -> datetime | None:
        """When it expires, or begins to be valid, if that is its fault."""


_making = original.RLock()  # guards what is kept: the root, keys and contexts are made once

_P = ParamSpec("_P")
_R = TypeVar("_R")


def kept(make: Callable[_P, _R]) -> Callable[_P, _R]:
    """Have ``make`` called once for each value, whichever threads ask."""
    kept: Callable[..., _R] = lru_cache(_KEPT)(make)

    @wraps(make)
    def made(*args: _P.args, **named: _P.kwargs) -> _R:
        with _making, _real_dates():
            return kept(*args, **named)

    return made


@contextmanager
def _real_dates() -> Iterator[None]:
    """Have ``datetime`` mean what it is: cryptography looks once what a date is, and keeps freezegun's for the run."""
    replaced = datetimes.datetime, datetimes.date
    datetimes.datetime, datetimes.date = (  # type: ignore[assignment, misc]
        next(each for each in found.__mro__ if each.__module__ == "datetime") for found in replaced
    )
    try:
        yield
    finally:
        datetimes.datetime, datetimes.date = replaced  # type: ignore[misc]


def ca_pem() -> bytes:
    """Return the root of this process, as PEM."""
    return _root().cert_pem.bytes()


def write_ca(directory: str | os.PathLike[str]) -> str:
    """Write the root as ``ca.pem`` into a directory, for clients that want a file; return its path."""
    import os

    path = os.path.join(directory, "ca.pem")
    with open(path, "wb") as file:
        file.write(ca_pem())
    return path


def check_installed() -> None:
    """Raise the error that says what to install, if trustme is not there."""
    from importlib.util import find_spec

    # Not imported: that takes a tenth of a second, and a declaration may never be used.
    if sys.modules.get("trustme") is None and find_spec("trustme") is None:
        raise ModuleNotFoundError(
            'a certificate is made by trustme, which is not installed: pip install "pytest-sockserver[tls]", '
            "or give an ssl.SSLContext of your own",
            name="trustme",
        )


def address_of(host: str) -> Any:
    """Return the address that a host is written as; ``None`` for a name."""
    import ipaddress

    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


# Keys and certificates: each function returns the PEM of the key, then of what is sent, the certificate first


@kept
def issued(certificate: Certificate) -> bytes:
    """Return the PEM of a key, and of the certificates that a server sends with it."""
    return _MAKERS.get(certificate.fault, _signed)(certificate)


@kept
def _root() -> trustme.CA:
    check_installed()
    import trustme

    return trustme.CA(organization_name="pytest-sockserver")


def _signed(certificate: Certificate, begins: datetime = _BEGINS, ends: datetime = ENDS) -> bytes:
    leaf = _root().issue_cert(*certificate.hosts, not_before=begins, not_after=ends)
    return leaf.private_key_and_cert_chain_pem.bytes()


def _expired(certificate: Certificate) -> bytes:
    ends = certificate.when or _EXPIRED_ON
    return _signed(certificate, begins=min(_BEGINS, ends - timedelta(days=365)), ends=ends)


def _not_yet_valid(certificate: Certificate) -> bytes:
    return _signed(certificate, begins=certificate.when or _VALID_FROM)


def _of_unknown_root(certificate: Certificate) -> bytes:
    import trustme

    unknown = trustme.CA(organization_name="unknown to everybody")
    return unknown.issue_cert(*certificate.hosts).private_key_and_cert_chain_pem.bytes() + unknown.cert_pem.bytes()


def _without_intermediate(certificate: Certificate) -> bytes:
    leaf = _root().create_child_ca().issue_cert(*certificate.hosts)
    return leaf.private_key_pem.bytes() + leaf.cert_chain_pems[0].bytes()


def _self_signed(certificate: Certificate) -> bytes:
    return _built(certificate.hosts, by_root=False)


def _of_weak_key(certificate: Certificate) -> bytes:
    from cryptography.hazmat.primitives.asymmetric import rsa

    return _built(certificate.hosts, key=rsa.generate_private_key(public_exponent=65537, key_size=_WEAK_BITS))


def _of_common_name(certificate: Certificate) -> bytes:
    return _built(common_name=certificate.hosts[0])


def _for_client(certificate: Certificate) -> bytes:
    return _built(common_name=certificate.hosts[0], for_client=True)


_MAKERS: Final[dict[str | None, Callable[[Certificate], bytes]]] = {
    "expired": _expired,
    "not_yet_valid": _not_yet_valid,
    "of_unknown_root": _of_unknown_root,
    "without_intermediate": _without_intermediate,
    "self_signed": _self_signed,
    "weak_key": _of_weak_key,
    "common_name_only": _of_common_name,
    "for_client": _for_client,
}


def _built(
    hosts: tuple[str, ...] = (),
    *,
    common_name: str | None = None,
    key: _Key | None = None,
    by_root: bool = True,
    for_client: bool = False,
) -> bytes:
    """Build what trustme does not make; by RFC 5280 in all else, for 3.13 looks at it (``VERIFY_X509_STRICT``)."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = key or ec.generate_private_key(ec.SECP256R1())
    named = (NameOID.COMMON_NAME, common_name) if common_name else (NameOID.ORGANIZATION_NAME, "pytest-sockserver")
    subject = x509.Name([x509.NameAttribute(*named)])
    issuer = x509.load_pem_x509_certificate(ca_pem()).subject if by_root else subject
    signer: Any = serialization.load_pem_private_key(_root().private_key_pem.bytes(), None) if by_root else key
    purpose = ExtendedKeyUsageOID.CLIENT_AUTH if for_client else ExtendedKeyUsageOID.SERVER_AUTH

    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(_BEGINS).not_valid_after(ENDS)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    issued_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    builder = builder.add_extension(issued_by, critical=False)
    builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    if hosts:
        names = [_alternative_name(host) for host in hosts]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)

    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return private + builder.sign(signer, hashes.SHA256()).public_bytes(pem)


def _alternative_name(host: str) -> x509.GeneralName:
    from cryptography import x509

    address = address_of(host)
    return x509.DNSName(host) if address is None else x509.IPAddress(address)
