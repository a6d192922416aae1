"""What a TLS server shows its client: a certificate, good or with one fault, and the rest of its side of the handshake.

One root signs for the whole process.  trustme makes it when somebody first needs it, and nothing of it stays on disk;
a client trusts it by ``client_context()``, by ``ca_pem()`` or by the file that ``write_ca()`` writes.

One name, one effect.  OpenSSL tells the first thing it dislikes, and looks at the chain, the strength of the keys, the
host, then the dates.  So a faulty certificate is right in all but its fault, and takes the hosts that it is for: an
expired one for another host would be told as one for another host.  Where two faults would be told in the same words,
what is sent differs: an unknown root sends itself along, a missing intermediate leaves its certificate alone.

A value is a description: it is checked when it is written; its keys (``certificate_authority``) and contexts
(``tls_contexts``) are made when a context is first asked for.

What is not done: revocation (CRL, OCSP), certificate transparency, TLS 1.3's choice of ciphers (Python has no call).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime, time, timezone
from typing import TYPE_CHECKING, Any, Final, Literal

from ..errors.location import hide_frame
from ..originals import ssl_module
from ..scripting.frozen import fields_of, frozen
from .certificate_authority import ENDS, address_of, check_installed
from .tls_contexts import VERIFY_MODES, VERSIONS, check_bool, checked_alpn, server_context

if TYPE_CHECKING:
    import ssl

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    _Key = EllipticCurvePrivateKey | RSAPrivateKey

__tracebackhide__ = hide_frame


#: How a client on this machine may call a server.
HOSTS: Final = ("localhost", "127.0.0.1", "::1")

# RFC 5280 section 4.1.2.5: two digits of a year reach back to 1950, and cryptography refuses what is older.  The
# certificate begins a year before it expires.
_EARLIEST: Final = datetime(1951, 1, 1, tzinfo=timezone.utc)

# Bytes.  RFC 5280 appendix A.1: ub-common-name.
_LONGEST_NAME: Final = 64


@frozen(init=False, repr=False)
class Certificate:
    """A certificate of these hosts, signed by the root of this process.

    A client, too, may show one: ``client_context(certificate=Certificate.for_client("alice"))``.  For a client that a
    server must refuse, take ``Certificate.expired()`` or ``Certificate.of_unknown_root()``.

    Args:
        hosts: Names, ``*.`` and a name, or addresses; without any, ``localhost``, ``127.0.0.1`` and ``::1``.

    Attributes:
        fault: The named constructor that made it, if one did.
        when: When it expires, or begins to be valid, if that is its fault; in UTC.

    Raises:
        ModuleNotFoundError: trustme is not installed.
        TypeError, ValueError: A host is none.
    """

    hosts: tuple[str, ...]
    fault: str | None
    when: datetime | None

    def __init__(self, *hosts: str) -> None:
        check_installed()
        _set(self, hosts=_checked_hosts(hosts, "Certificate()"), fault=None, when=None)

    @classmethod
    def expired(cls, *hosts: str, on: date | None = None) -> Certificate:
        """One that was valid once.  OpenSSL's clients say: certificate has expired.

        Args:
            on: A date in the past, UTC if it does not say otherwise; without one, the beginning of 2020.
        """
        made = cls._faulty("expired", hosts, _instant(on, "expired()", "on"))
        if made.when is not None and made.when >= datetime.now(timezone.utc):
            raise ValueError(f"expired() expected a date in the past, not {made.when}: it would be valid until then")
        if made.when is not None and made.when < _EARLIEST:
            raise ValueError(f"expired() expected a date from 1951 on, not {made.when}: certificates know no older one")
        return made

    @classmethod
    def not_yet_valid(cls, *hosts: str, until: date | None = None) -> Certificate:
        """One that will be valid.  OpenSSL's clients say: certificate is not yet valid.

        Args:
            until: A date in the future, UTC if it does not say otherwise; without one, the beginning of 2100.
        """
        made = cls._faulty("not_yet_valid", hosts, _instant(until, "not_yet_valid()", "until"))
        if made.when is not None and made.when <= datetime.now(timezone.utc):
            raise ValueError(f"not_yet_valid() expected a date in the future, not {made.when}: it would be valid now")
        if made.when is not None and made.when >= ENDS:
            raise ValueError(f"not_yet_valid() expected a date before the year 3000, when it ends, not {made.when}")
        return made

    @classmethod
    def wrong_host(cls, host: str = "other.example") -> Certificate:
        """One of another host.  OpenSSL's clients say: Hostname mismatch, or IP address mismatch."""
        made = cls._faulty("wrong_host", (host,))
        if made.hosts[0] in HOSTS:
            raise ValueError(f"wrong_host() expected another host than {', '.join(HOSTS)}: those are right ones")
        return made

    @classmethod
    def self_signed(cls, *hosts: str) -> Certificate:
        """One that vouches for itself.  OpenSSL's clients say: self-signed certificate."""
        return cls._faulty("self_signed", hosts)

    @classmethod
    def of_unknown_root(cls, *hosts: str) -> Certificate:
        """One of a root that nobody trusts, sent along.  OpenSSL: self-signed certificate in certificate chain."""
        return cls._faulty("of_unknown_root", hosts)

    @classmethod
    def without_intermediate(cls, *hosts: str) -> Certificate:
        """One of an intermediate that is not sent.  OpenSSL's clients say: unable to get local issuer certificate."""
        return cls._faulty("without_intermediate", hosts)

    @classmethod
    def weak_key(cls, *hosts: str) -> Certificate:
        """One of an RSA key of 1024 bits.  OpenSSL's clients, at level 2, say: EE certificate key too weak."""
        return cls._faulty("weak_key", hosts)

    @classmethod
    def common_name_only(cls, host: str = "localhost") -> Certificate:
        """One that names its host as its common name and nowhere else, which RFC 9525 (section 2) wants refused.

        OpenSSL refuses addresses (IP address mismatch), and names only of a client that asks for it: Python's ``ssl``
        does not, unless its context has ``hostname_checks_common_name = False``; then it says: Hostname mismatch.
        """
        made = cls._faulty("common_name_only", (host,))
        if len(made.hosts[0]) > _LONGEST_NAME:
            raise ValueError(f"common_name_only() expected a host of at most {_LONGEST_NAME} bytes, not {host!r}")
        return made

    @classmethod
    def wildcard(cls, pattern: str) -> Certificate:
        """One of all hosts of a domain: for ``*.example.test``, ``a.example.test`` but not ``a.b.example.test``.

        OpenSSL's clients want two labels after the star: to them ``*.test`` is nobody's.
        """
        made = cls()
        _set(made, hosts=_checked_hosts((pattern,), "wildcard()"))
        if not made.hosts[0].startswith("*."):
            raise ValueError(f"wildcard() expected a name such as '*.example.test', not {pattern!r}")
        return made

    @classmethod
    def for_client(cls, name: str) -> Certificate:
        """One that a client shows: any ``name``, as the common name, and good for no server."""
        if not isinstance(name, str):
            raise TypeError(f"for_client() expected the client's name, a str, not {name!r}")
        if not 1 <= len(name.encode()) <= _LONGEST_NAME:
            raise ValueError(f"for_client() expected the client's name, 1 to {_LONGEST_NAME} bytes, not {name!r}")
        made = cls()
        _set(made, hosts=(name,), fault="for_client")
        return made

    @classmethod
    def _faulty(cls, fault: str, hosts: tuple[str, ...], when: datetime | None = None) -> Certificate:
        made = cls()
        _set(made, hosts=_checked_hosts(hosts, f"{fault}()"), fault=fault, when=when)
        return made

    def __repr__(self) -> str:
        usual = _USUAL_HOSTS.get(self.fault, HOSTS)
        said = [] if self.hosts == usual else [repr(host) for host in self.hosts]
        if self.when is not None:
            said.append(f"{'on' if self.fault == 'expired' else 'until'}={self.when!r}")
        return f"Certificate{f'.{self.fault}' if self.fault else ''}({', '.join(said)})"

    def server_context(self) -> ssl.SSLContext:
        """Return the context of a server that shows it: that of ``TLS(self)``."""
        return TLS(self).server_context()


_USUAL_HOSTS: Final[dict[str | None, tuple[str, ...]]] = {
    "wrong_host": ("other.example",),
    "common_name_only": ("localhost",),
    "for_client": (),
}


@frozen(init=False, repr=False)
class TLS:
    """A server's side of TLS.

    Args:
        certificate: What it shows, ``Certificate()`` without one.
        alpn: The protocols it speaks, the best first.  If the client knows none of them, none is chosen.
        minimum: The oldest version it speaks: ``"1.2"``, ``"1.3"``, or ``"1.0"`` and ``"1.1"`` where OpenSSL can.
        maximum: The newest one.
        ciphers: Which ones up to TLS 1.2, as OpenSSL writes it: ``"ECDHE-RSA-AES128-GCM-SHA256"``.
        client_certificate: ``"no"``, it asks for none; ``"optional"``, the client may show one that
            our root has signed; ``"required"``, it must.
        names: Other certificates, by the host name that a client asks for (SNI); names may be wildcards.
        refuse_unknown_names: The alert ``unrecognized_name`` for a name that is neither in ``names`` nor a host of
            the certificate.  A client that asks for none is served.
        tickets: Let clients resume their sessions by a ticket.  With TLS 1.2 they may still do so by a session's id.

    Raises:
        ModuleNotFoundError: trustme is not installed.
        TypeError, ValueError: An option is not what it must be, or not what this OpenSSL can do.
    """

    certificate: Certificate
    alpn: tuple[str, ...]
    minimum: str | None
    maximum: str | None
    ciphers: str | None
    client_certificate: str
    names: tuple[tuple[str, Certificate], ...]
    refuse_unknown_names: bool
    tickets: bool

    def __init__(
        self,
        certificate: Certificate | None = None,
        *,
        alpn: Iterable[str] = (),
        minimum: str | None = None,
        maximum: str | None = None,
        ciphers: str | None = None,
        client_certificate: Literal["no", "optional", "required"] = "no",
        names: Mapping[str, Certificate] | None = None,
        refuse_unknown_names: bool = False,
        tickets: bool = True,
    ) -> None:
        _check_versions(minimum, maximum)
        _check_ciphers(ciphers, minimum)
        _check_client_certificate(client_certificate)
        check_bool("refuse_unknown_names", refuse_unknown_names)
        check_bool("tickets", tickets)
        _set(
            self,
            certificate=Certificate() if certificate is None else _checked_certificate(certificate, "TLS()"),
            alpn=checked_alpn(alpn),
            minimum=minimum,
            maximum=maximum,
            ciphers=ciphers,
            client_certificate=client_certificate,
            names=_checked_names(names),
            refuse_unknown_names=refuse_unknown_names,
            tickets=tickets,
        )

    def __repr__(self) -> str:
        usual = TLS()
        said = [repr(self.certificate)] if self.certificate != usual.certificate else []
        for name in list(fields_of(self))[1:]:
            value = getattr(self, name)
            if value != getattr(usual, name):
                said.append(f"{name}={dict(value) if name == 'names' else value!r}")
        return f"TLS({', '.join(said)})"

    def server_context(self) -> ssl.SSLContext:
        """Return the context of a server: always the same one, so change a copy of the value instead of the context.

        On a socket that it wraps, ``server_name`` is the host name that the client has asked for, or ``None``.
        """
        return server_context(self)


# What is asked of this module


def checked_tls(value: Any, what: str) -> Any:
    """Return ``value`` if it is something that a server can speak TLS with; ``ssl`` is not imported for that.

    Args:
        what: What it was given as, for the message: ``"tls"``.

    Raises:
        ModuleNotFoundError: It is ``True``, and trustme is not installed.
        TypeError, ValueError: It is nothing of the kind, or only good for clients.
    """
    if isinstance(value, type) and (value in (TLS, Certificate) or hasattr(value, "wrap_socket")):
        raise TypeError(f"{what} must be a value, not the class {value.__name__}: write {value.__name__}(...)")
    if isinstance(value, Certificate):
        return _checked_certificate(value, what)
    if value is True:
        check_installed()
        return value
    if not isinstance(value, TLS) and not hasattr(value, "wrap_socket"):
        raise TypeError(f"{what} must be True, a TLS, a Certificate or an ssl.SSLContext, not {value!r}")
    if getattr(getattr(value, "protocol", None), "name", None) == "PROTOCOL_TLS_CLIENT":
        raise ValueError(
            f"{what} must be the context of a server, not of a client: ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), "
            "or True for one with a certificate of this process"
        )
    return value


def server_context_of(value: Any) -> ssl.SSLContext:
    """Return the context that a server speaks TLS with.

    Args:
        value: What ``checked_tls`` has let pass; a context is returned as it is.
    """
    if value is True:
        return TLS().server_context()
    if isinstance(value, (TLS, Certificate)):
        return value.server_context()
    context: ssl.SSLContext = value
    return context


# Checks


def _set(value: Certificate | TLS, **attributes: object) -> None:
    for name, each in attributes.items():
        object.__setattr__(value, name, each)


def _checked_hosts(hosts: tuple[object, ...], verb: str) -> tuple[str, ...]:
    checked: tuple[str, ...] = ()
    for host in hosts:  # no comprehension: before 3.12 it is a frame that a traceback would show
        checked += (_checked_host(host, verb),)
    return checked or HOSTS


def _checked_host(host: object, verb: str) -> str:
    """Return a host as it stands in a certificate: an address, or a name in lower case and in ASCII."""
    if isinstance(host, date):
        raise TypeError(f"{verb} expected the name of a host, a str, not {host!r}: dates go by name, on= or until=")
    if not isinstance(host, str):
        raise TypeError(f"{verb} expected the name of a host, a str, not {host!r}")
    if (address := address_of(host)) is not None:
        return str(address)
    import idna  # trustme's

    star = "*." if host.startswith("*.") else ""
    try:
        return star + idna.encode(host[len(star) :], uts46=True).decode()
    except UnicodeError:  # idna's own are such
        raise ValueError(f"{verb} expected the name or the address of a host, not {host!r}") from None


def _instant(day: object, verb: str, name: str) -> datetime | None:
    """Return a date in UTC, to the second: certificates know no fractions."""
    if day is None:
        return None
    if not isinstance(day, date):
        raise TypeError(f"{verb} expected {name}= to be a datetime or a date, not {day!r}")
    instant = day if isinstance(day, datetime) else datetime.combine(day, time())
    if instant.tzinfo is None:
        instant = instant.replace(tzinfo=timezone.utc)
    return instant.astimezone(timezone.utc).replace(microsecond=0)


def _checked_certificate(certificate: object, verb: str) -> Certificate:
    if not isinstance(certificate, Certificate):
        made = isinstance(certificate, str) and isinstance(vars(Certificate).get(certificate), classmethod)
        written = f"Certificate.{certificate}()" if made else f"Certificate({certificate!r})"
        hint = f": write {written}" if isinstance(certificate, str) else ""
        raise TypeError(f"{verb} expected a Certificate, not {certificate!r}{hint}")
    if certificate.fault == "for_client":
        raise ValueError(f"{verb} expected the certificate of a server, not {certificate!r}")
    return certificate


def _check_client_certificate(demand: object) -> None:
    if isinstance(demand, Certificate):
        raise TypeError(
            f"client_certificate must be 'no', 'optional' or 'required', not {demand!r}: "
            "that is for client_context(certificate=...)"
        )
    if not isinstance(demand, str) or demand not in VERIFY_MODES:
        raise ValueError(f"client_certificate must be 'no', 'optional' or 'required', not {demand!r}")


def _checked_names(names: object) -> tuple[tuple[str, Certificate], ...]:
    if names is None:
        return ()
    if not isinstance(names, Mapping):
        raise TypeError(f"names must be a mapping of host names to certificates, not {names!r}")
    checked = {}
    for name, certificate in names.items():
        host = _checked_host(name, "names")
        if address_of(host) is not None:  # RFC 6066 section 3: no literal addresses
            raise ValueError(f"names expected the name of a host, not the address {name!r}: no client asks for one")
        checked[host] = _checked_certificate(certificate, f"names[{name!r}]")
    return tuple(sorted(checked.items(), key=lambda item: item[0]))


def _check_versions(minimum: object, maximum: object) -> None:
    for name, version in (("minimum", minimum), ("maximum", maximum)):
        if version is None:
            continue
        can = _versions_of_openssl()
        if not isinstance(version, str) or version not in can:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, can))}, not {version!r}")
    if isinstance(minimum, str) and isinstance(maximum, str) and minimum > maximum:
        raise ValueError(f"minimum must not be above maximum: {minimum!r} is newer than {maximum!r}")


def _versions_of_openssl() -> list[str]:
    ssl = ssl_module()
    return [version for version, name in VERSIONS.items() if getattr(ssl, f"HAS_{name}")]


def _check_ciphers(ciphers: object, minimum: str | None) -> None:
    if ciphers is None:
        return
    if not isinstance(ciphers, str):
        raise TypeError(f"ciphers must be a str as OpenSSL reads it, names with ':' between them, not {ciphers!r}")
    if minimum == "1.3":
        raise ValueError("ciphers are those up to TLS 1.2, and minimum is '1.3': Python cannot choose among 1.3's")
    ssl = ssl_module()
    scratch = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for name in [each for each in ciphers.split(":") if not each.startswith(("!", "-", "+", "@"))]:
        try:
            scratch.set_ciphers(name)  # each by itself: OpenSSL passes over what it does not know beside what it knows
        except ssl.SSLError:
            openssl = " ".join(ssl.OPENSSL_VERSION.split()[:2])
            raise ValueError(f"ciphers: {openssl} has no {name!r} among those up to TLS 1.2") from None
