"""What a client sees of each certificate and of each option of TLS: real handshakes, over a pair of sockets."""

from __future__ import annotations

import datetime
import gc
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from pytest_sockserver import Connection, SockServer
from pytest_sockserver.transport.certificate_authority import ca_pem, write_ca
from pytest_sockserver.transport.certificates import TLS, Certificate, checked_tls, server_context_of
from pytest_sockserver.transport.tls_contexts import client_context

from . import insides
from .peers import PATIENCE, connect

VERSIONS = ["1.2", "1.3"]
OPENSSL = " ".join(ssl.OPENSSL_VERSION.split()[:2])


@dataclass
class Shaken:
    """How a handshake went.  ``stage`` is how far the client came: ``handshake``, ``read`` or ``done``."""

    stage: str = "handshake"
    error: OSError | None = None
    version: str | None = None
    alpn: str | None = None
    cipher: str = ""
    certificate: dict[str, Any] | None = None
    reused: bool | None = None
    session: ssl.SSLSession | None = None
    server_error: OSError | None = None
    server_name: Any = "the callback was not called"
    client_certificate: dict[str, Any] | None = None

    @property
    def names(self) -> list[str]:
        """The hosts of the certificate that the client saw."""
        return [value for _, value in (self.certificate or {}).get("subjectAltName", ())]


def shake(
    server: ssl.SSLContext, client: ssl.SSLContext, host: str = "localhost", session: ssl.SSLSession | None = None
) -> Shaken:
    """Do a handshake; then the server says hi, and the client reads it."""
    shaken = Shaken()
    ours, theirs = socket.socketpair()
    ours.settimeout(PATIENCE)
    theirs.settimeout(PATIENCE)
    thread = threading.Thread(target=_serve, args=(ours, server, shaken))
    thread.start()
    try:
        with theirs, client.wrap_socket(theirs, server_hostname=host, session=session) as secured:
            shaken.stage = "read"
            assert secured.recv(2) == b"hi"
            shaken.stage = "done"
            shaken.version, shaken.alpn, shaken.cipher = _facts(secured)
            shaken.certificate = secured.getpeercert()
            shaken.reused, shaken.session = secured.session_reused, secured.session
    except OSError as error:
        shaken.error = error.with_traceback(None)
    thread.join(PATIENCE)
    assert not thread.is_alive()
    return shaken


def _serve(ours: socket.socket, context: ssl.SSLContext, shaken: Shaken) -> None:
    with ours, context.wrap_socket(ours, server_side=True, do_handshake_on_connect=False) as secured:
        try:
            secured.do_handshake()
            shaken.client_certificate = secured.getpeercert()
            secured.sendall(b"hi")
            secured.recv(1)
        except OSError as error:
            shaken.server_error = error.with_traceback(None)
        shaken.server_name = getattr(secured, "server_name", shaken.server_name)


def _facts(secured: ssl.SSLSocket) -> tuple[str | None, str | None, str]:
    return secured.version(), secured.selected_alpn_protocol(), (secured.cipher() or ("", "", 0))[0]


def only(version: str, certificate: Certificate | None = None, **options: Any) -> ssl.SSLContext:
    return TLS(certificate, minimum=version, maximum=version, **options).server_context()


def refusal(shaken: Shaken) -> str:
    """Return why the client did not like the certificate."""
    assert isinstance(shaken.error, ssl.SSLCertVerificationError), shaken
    assert shaken.stage == "handshake"
    return shaken.error.verify_message


def reason(error: OSError | None) -> str:
    assert isinstance(error, ssl.SSLError), error
    return error.reason


# ---------------------------------------------------------------------------------------------------- certificates


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1"])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_client_that_trusts_our_root_accepts_the_usual_certificate(version: str, host: str) -> None:
    shaken = shake(only(version), client_context(), host)

    assert (shaken.error, shaken.server_error, shaken.stage) == (None, None, "done")
    assert shaken.version == f"TLSv{version}"
    assert shaken.names == ["localhost", "127.0.0.1", "0:0:0:0:0:0:0:1"]


def test_a_client_as_strict_as_3_13_accepts_the_usual_certificate() -> None:
    client = client_context()
    client.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT

    for certificate in (Certificate(), Certificate.wildcard("*.a.test"), Certificate.common_name_only("a.test")):
        host = certificate.hosts[0].replace("*", "a")
        assert shake(certificate.server_context(), client, host).error is None


FAULTS = [
    (Certificate.expired(), "certificate has expired"),
    (Certificate.expired(on=datetime.date(2024, 5, 6)), "certificate has expired"),
    (Certificate.expired(on=datetime.date(1951, 1, 1)), "certificate has expired"),
    (Certificate.expired(on=datetime.datetime.now() - timedelta(days=2)), "certificate has expired"),
    (Certificate.not_yet_valid(), "certificate is not yet valid"),
    (Certificate.not_yet_valid(until=datetime.date(2999, 12, 31)), "certificate is not yet valid"),
    (Certificate.not_yet_valid(until=datetime.datetime.now() + timedelta(days=2)), "certificate is not yet valid"),
    (Certificate.wrong_host(), "Hostname mismatch, certificate is not valid for 'localhost'."),
    (Certificate.self_signed(), "self-signed certificate"),
    (Certificate.of_unknown_root(), "self-signed certificate in certificate chain"),
    (Certificate.without_intermediate(), "unable to get local issuer certificate"),
    (Certificate.weak_key(), "EE certificate key too weak"),
]

FAULT_IDS = [
    f"{fault.fault}-{at}" for at, (fault, _) in enumerate(FAULTS)
]  # not their reprs: xdist's workers differ in now()


@pytest.mark.parametrize("strict", [False, True], ids=["lax", "strict"])
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("certificate", "expected"), FAULTS, ids=FAULT_IDS)
def test_a_faulty_certificate_is_refused_for_its_fault(
    certificate: Certificate, expected: str, version: str, strict: bool
) -> None:
    client = client_context()
    client.verify_flags &= ~ssl.VerifyFlags.VERIFY_X509_STRICT
    if strict:
        client.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT

    assert refusal(shake(only(version, certificate), client)).replace("self signed", "self-signed") == expected


@pytest.mark.parametrize(("certificate", "expected"), FAULTS, ids=FAULT_IDS)
def test_a_faulty_certificate_is_right_in_all_else(certificate: Certificate, expected: str) -> None:
    """Who does not look at the certificate is served; who asks for the name it is for, and no more, sees the fault."""
    blind = client_context()
    blind.check_hostname = False
    blind.verify_mode = ssl.CERT_NONE
    if certificate.fault == "weak_key":  # a client that accepts no such key does not look away either
        blind.set_ciphers("DEFAULT:@SECLEVEL=0")

    assert shake(certificate.server_context(), blind).error is None


@pytest.mark.parametrize(
    "make",
    [
        Certificate.expired,
        Certificate.not_yet_valid,
        Certificate.self_signed,
        Certificate.of_unknown_root,
        Certificate.without_intermediate,
        Certificate.weak_key,
    ],
    ids=lambda make: make.__name__,
)
def test_a_faulty_certificate_takes_the_hosts_that_it_is_for(make: Callable[..., Certificate]) -> None:
    usual = refusal(shake(make().server_context(), client_context()))

    assert refusal(shake(make("db.example.test").server_context(), client_context(), "db.example.test")) == usual


@pytest.mark.parametrize(
    ("certificate", "expected"),
    [
        (Certificate.expired("a.test"), "Hostname mismatch, certificate is not valid for 'localhost'."),
        (Certificate.not_yet_valid("a.test"), "Hostname mismatch, certificate is not valid for 'localhost'."),
        (Certificate.weak_key("a.test"), "EE certificate key too weak"),
        (Certificate.without_intermediate("a.test"), "unable to get local issuer certificate"),
    ],
    ids=repr,
)
def test_openssl_looks_at_the_chain_and_the_key_then_the_host_then_the_dates(
    certificate: Certificate, expected: str
) -> None:
    """Which is why faulty certificates take hosts; and it tells if another OpenSSL does otherwise."""
    assert refusal(shake(certificate.server_context(), client_context())) == expected


def test_a_certificate_of_another_host_is_right_for_that_one() -> None:
    context = Certificate.wrong_host().server_context()

    assert refusal(shake(context, client_context(), "127.0.0.1")) == (
        "IP address mismatch, certificate is not valid for '127.0.0.1'."
    )
    assert shake(context, client_context(), "other.example").error is None


def test_an_expired_certificate_says_when_it_was_valid() -> None:
    pytest.importorskip("cryptography")
    certificate = Certificate.expired(on=datetime.datetime(1999, 12, 31, 23, 59, 58, 999))

    assert validity(certificate) == (
        datetime.datetime(1998, 12, 31, 23, 59, 58),
        datetime.datetime(1999, 12, 31, 23, 59, 58),
    )
    assert validity(Certificate.expired()) == (datetime.datetime(2000, 1, 1), datetime.datetime(2020, 1, 1))
    assert validity(Certificate.not_yet_valid()) == (datetime.datetime(2100, 1, 1), datetime.datetime(3000, 1, 1))


def validity(certificate: Certificate) -> tuple[datetime.datetime, datetime.datetime]:
    from cryptography import x509

    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.check_hostname = False
    blind.verify_mode = ssl.CERT_NONE
    ours, theirs = socket.socketpair()
    ours.settimeout(PATIENCE)
    theirs.settimeout(PATIENCE)
    thread = threading.Thread(target=_serve, args=(ours, certificate.server_context(), Shaken()))
    thread.start()
    with theirs, blind.wrap_socket(theirs, server_hostname="localhost") as secured:
        shown = x509.load_der_x509_certificate(secured.getpeercert(binary_form=True) or b"")
    thread.join(PATIENCE)
    return shown.not_valid_before_utc.replace(tzinfo=None), shown.not_valid_after_utc.replace(tzinfo=None)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_common_name_alone_is_for_clients_that_look_at_it(version: str) -> None:
    """Python's do, for names: hostname_checks_common_name.  No client looks for an address there."""
    context = only(version, Certificate.common_name_only())
    modern = client_context()
    modern.hostname_checks_common_name = False

    shaken = shake(context, client_context())

    assert shaken.certificate is not None
    assert shaken.certificate["subject"] == ((("commonName", "localhost"),),)
    assert shaken.names == []
    assert refusal(shake(context, modern)) == "Hostname mismatch, certificate is not valid for 'localhost'."
    assert refusal(shake(context, client_context(), "127.0.0.1")) == (
        "IP address mismatch, certificate is not valid for '127.0.0.1'."
    )


def test_a_wildcard_stands_for_one_label() -> None:
    context = Certificate.wildcard("*.example.test").server_context()

    assert shake(context, client_context(), "a.example.test").error is None
    assert shake(context, client_context(), "b.example.test").error is None
    for host in ("example.test", "a.b.example.test"):
        assert refusal(shake(context, client_context(), host)) == (
            f"Hostname mismatch, certificate is not valid for '{host}'."
        )


def test_a_name_is_asked_for_as_it_is_spelt_and_shown_in_ascii() -> None:
    shaken = shake(Certificate("Bücher.Example").server_context(), client_context(), "bücher.example")

    assert shaken.error is None
    assert shaken.names == [shaken.server_name] == ["xn--bcher-kva.example"]


# --------------------------------------------------------------------------------------------------------- clients


def test_a_client_that_trusts_nobody_refuses_the_usual_certificate() -> None:
    message = refusal(shake(Certificate().server_context(), client_context(trust=False)))

    assert message == "unable to get local issuer certificate"


def test_a_clients_context_checks_as_pythons_usual_one_and_trusts_our_root_alone() -> None:
    client, usual = client_context(), ssl.create_default_context(cadata=ca_pem().decode())

    assert client.verify_mode == ssl.CERT_REQUIRED
    assert client.check_hostname
    assert client.verify_flags == usual.verify_flags
    assert client.get_ca_certs() == usual.get_ca_certs()
    assert len(client.get_ca_certs()) == 1
    assert client is not client_context()


def test_the_written_root_is_one_that_clients_trust(tmp_path: Path) -> None:
    path = write_ca(tmp_path)

    assert path == str(tmp_path / "ca.pem")
    assert Path(path).read_bytes() == ca_pem()
    assert shake(Certificate().server_context(), ssl.create_default_context(cafile=path)).error is None


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("demand", ["optional", "required"])
def test_a_client_may_show_a_certificate(version: str, demand: str) -> None:
    shaken = shake(
        only(version, client_certificate=demand), client_context(certificate=Certificate.for_client("alice O'Neill"))
    )

    assert (shaken.error, shaken.server_error) == (None, None)
    assert shaken.client_certificate is not None
    assert shaken.client_certificate["subject"] == ((("commonName", "alice O'Neill"),),)


def test_any_certificate_of_ours_may_be_a_clients() -> None:
    shaken = shake(only("1.3", client_certificate="required"), client_context(certificate=Certificate("client.test")))

    assert shaken.client_certificate is not None
    assert shaken.client_certificate["subjectAltName"] == (("DNS", "client.test"),)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_client_without_a_certificate_is_served_unless_one_is_required(version: str) -> None:
    """With TLS 1.3 the client's handshake is over before the server has seen what it shows (RFC 8446 figure 1)."""
    optional = shake(only(version, client_certificate="optional"), client_context())
    required = shake(only(version, client_certificate="required"), client_context())

    assert (optional.error, optional.client_certificate) == (None, None)
    assert required.stage == {"1.2": "handshake", "1.3": "read"}[version]
    assert (
        reason(required.error)
        == {
            "1.2": "SSLV3_ALERT_HANDSHAKE_FAILURE",
            "1.3": "TLSV13_ALERT_CERTIFICATE_REQUIRED",
        }[version]
    )
    assert reason(required.server_error) == "PEER_DID_NOT_RETURN_A_CERTIFICATE"


def test_a_clients_certificate_is_not_asked_for_by_default() -> None:
    shaken = shake(only("1.3"), client_context(certificate=Certificate.for_client("alice")))

    assert (shaken.error, shaken.client_certificate) == (None, None)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("demand", ["optional", "required"])
@pytest.mark.parametrize(
    ("certificate", "expected"),
    [
        (Certificate.expired(), ("certificate has expired", "SSLV3_ALERT_CERTIFICATE_EXPIRED")),
        (Certificate.of_unknown_root(), ("self-signed certificate in certificate chain", "TLSV1_ALERT_UNKNOWN_CA")),
        (Certificate.self_signed(), ("self-signed certificate", "TLSV1_ALERT_UNKNOWN_CA")),
        (Certificate.weak_key(), ("EE certificate key too weak", "SSLV3_ALERT_BAD_CERTIFICATE")),
    ],
    ids=repr,
)
def test_a_clients_faulty_certificate_is_refused(
    certificate: Certificate, expected: tuple[str, str], demand: str, version: str
) -> None:
    shaken = shake(only(version, client_certificate=demand), client_context(certificate=certificate))

    assert isinstance(shaken.server_error, ssl.SSLCertVerificationError), shaken
    assert shaken.server_error.verify_message.replace("self signed", "self-signed") == expected[0]
    assert reason(shaken.error) == expected[1]
    assert shaken.stage == {"1.2": "handshake", "1.3": "read"}[version]


# ------------------------------------------------------------------------------------------------------------- TLS


@pytest.mark.parametrize("version", VERSIONS)
def test_the_server_chooses_its_best_protocol_that_the_client_knows(version: str) -> None:
    context = only(version, alpn=["h2", "http/1.1"])

    assert shake(context, client_context(alpn=["http/1.1", "h2"])).alpn == "h2"
    assert shake(context, client_context(alpn=["http/1.1"])).alpn == "http/1.1"
    assert shake(context, client_context(alpn=["imap"])).alpn is None
    assert shake(context, client_context()).alpn is None
    assert shake(only(version), client_context(alpn=["h2"])).alpn is None


def test_a_client_of_another_version_is_refused() -> None:
    old, new = client_context(), client_context()
    old.maximum_version, new.minimum_version = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3

    too_old = shake(TLS(minimum="1.3").server_context(), old)
    too_new = shake(TLS(maximum="1.2").server_context(), new)

    assert reason(too_old.error) == reason(too_new.error) == "TLSV1_ALERT_PROTOCOL_VERSION"
    assert reason(too_old.server_error) == reason(too_new.server_error) == "UNSUPPORTED_PROTOCOL"
    assert shake(TLS(minimum="1.2").server_context(), old).version == "TLSv1.2"
    assert shake(TLS(minimum="1.2").server_context(), new).version == "TLSv1.3"


@pytest.mark.parametrize("options", [{"minimum": "1.0"}, {"maximum": "1.0"}, {"minimum": "1.0", "maximum": "1.0"}])
@pytest.mark.skipif(not ssl.HAS_TLSv1, reason="this OpenSSL has no TLS 1.0")
def test_an_old_version_is_spoken_where_openssl_has_it(options: dict[str, str]) -> None:
    client = client_context()
    client.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        client.minimum_version = client.maximum_version = ssl.TLSVersion.TLSv1

    assert shake(TLS(**options).server_context(), client).version == "TLSv1"
    refused = shake(TLS().server_context(), client)
    assert reason(refused.error) == "TLSV1_ALERT_PROTOCOL_VERSION"


def test_a_client_without_a_cipher_in_common_is_refused() -> None:
    client = client_context()
    client.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")

    shaken = shake(only("1.2", ciphers="ECDHE-ECDSA-AES256-GCM-SHA384"), client)

    assert reason(shaken.error) == "SSLV3_ALERT_HANDSHAKE_FAILURE"
    assert reason(shaken.server_error) == "NO_SHARED_CIPHER"
    assert shake(only("1.2", ciphers="ECDHE-ECDSA-AES128-GCM-SHA256"), client_context()).cipher == (
        "ECDHE-ECDSA-AES128-GCM-SHA256"
    )


def test_a_weak_key_is_accepted_by_a_client_that_accepts_weak_ones_and_has_the_ciphers_asked_for() -> None:
    context = only("1.2", Certificate.weak_key("a.test", "::2"), ciphers="ECDHE-RSA-AES128-GCM-SHA256:!aNULL")
    client = client_context()
    client.set_ciphers("DEFAULT:@SECLEVEL=0")

    shaken = shake(context, client, "a.test")

    assert (shaken.error, shaken.cipher) == (None, "ECDHE-RSA-AES128-GCM-SHA256")
    assert shaken.names == ["a.test", "0:0:0:0:0:0:0:2"]
    assert refusal(shake(context, client_context(), "a.test")) == "EE certificate key too weak"


@pytest.mark.parametrize("version", VERSIONS)
def test_what_name_a_client_asks_for_is_kept_on_the_socket(version: str) -> None:
    blind = client_context()
    blind.check_hostname = False

    assert shake(only(version), blind, "some.name").server_name == "some.name"
    assert shake(only(version), blind, "127.0.0.1").server_name is None


@pytest.mark.parametrize("version", VERSIONS)
def test_the_certificate_is_chosen_by_name(version: str) -> None:
    context = only(
        version,
        Certificate("a.test"),
        names={
            "B.test": Certificate("b.test"),
            "*.c.test": Certificate.wildcard("*.c.test"),
            "old.c.test": Certificate.expired("old.c.test"),
            "weak.test": Certificate.weak_key("weak.test"),
        },
        alpn=["h2"],
    )

    for host, names in (("a.test", ["a.test"]), ("b.test", ["b.test"]), ("x.c.test", ["*.c.test"])):
        shaken = shake(context, client_context(alpn=["h2"]), host)
        assert (shaken.error, shaken.names, shaken.server_name, shaken.alpn) == (None, names, host, "h2")
    assert refusal(shake(context, client_context(), "old.c.test")) == "certificate has expired"
    assert refusal(shake(context, client_context(), "weak.test")) == "EE certificate key too weak"
    assert refusal(shake(context, client_context(), "x.x.c.test")) == (
        "Hostname mismatch, certificate is not valid for 'x.x.c.test'."
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_a_named_certificate_comes_with_the_other_options(version: str) -> None:
    context = only(version, names={"b.test": Certificate("b.test")}, client_certificate="required")

    refused = shake(context, client_context(), "b.test")
    served = shake(context, client_context(certificate=Certificate.for_client("alice")), "b.test")

    assert reason(refused.server_error) == "PEER_DID_NOT_RETURN_A_CERTIFICATE"
    assert (served.error, served.names, served.version) == (None, ["b.test"], f"TLSv{version}")


@pytest.mark.parametrize("version", VERSIONS)
def test_an_unknown_name_is_refused_if_told_so(version: str) -> None:
    tls: dict[str, Any] = {"names": {"b.test": Certificate("b.test")}, "refuse_unknown_names": True}
    context = only(version, Certificate("localhost", "*.a.test"), **tls)
    blind = client_context()
    blind.check_hostname = False

    for host in ("c.test", "a.test", "x.y.a.test"):
        refused = shake(context, blind, host)
        assert reason(refused.error) == "TLSV1_UNRECOGNIZED_NAME"
        assert (refused.stage, refused.server_name) == ("handshake", host)
    for host in ("localhost", "LOCALHOST", "x.a.test", "b.test", "127.0.0.1"):
        assert shake(context, blind, host).error is None
    assert shake(only(version, Certificate("localhost")), blind, "c.test").error is None


def test_tickets_are_given_unless_told_otherwise() -> None:
    for tickets in (True, False):
        for version in VERSIONS:
            context = only(version, tickets=tickets)
            client = client_context()
            first = shake(context, client)
            assert first.session is not None
            assert first.session.has_ticket is tickets
            if tickets or version == "1.3":
                assert shake(context, client, session=first.session).reused is tickets


def test_a_server_speaks_tls_with_a_certificate_of_ours(sockserver: SockServer) -> None:
    server = sockserver.tcp(tls=TLS(alpn=["h2"], names={"a.test": Certificate("a.test")}).server_context())
    asked = []

    @server.handler
    def serve(conn: Connection) -> None:
        conn.start_tls()
        asked.append(insides.kernel_socket(conn).server_name)
        conn.send(b"hi")

    for host in ("localhost", "127.0.0.1", "a.test"):
        with client_context(alpn=["h2"]).wrap_socket(connect(server), server_hostname=host) as client:
            assert client.recv(2) == b"hi"

    assert asked == ["localhost", None, "a.test"]
    assert [conn.tls.alpn for conn in server.connections if conn.tls] == ["h2"] * 3


# ---------------------------------------------------------------------------------------------------------- values

VALUES = [
    "Certificate()",
    "Certificate('a.test', '127.0.0.2', '::2')",
    "Certificate.expired()",
    "Certificate.expired(on=datetime.datetime(2020, 1, 1, 0, 0, tzinfo=datetime.timezone.utc))",
    "Certificate.expired('a.test', on=datetime.datetime(2020, 1, 1, 0, 0, tzinfo=datetime.timezone.utc))",
    "Certificate.not_yet_valid()",
    "Certificate.not_yet_valid(until=datetime.datetime(2200, 1, 1, 0, 0, tzinfo=datetime.timezone.utc))",
    "Certificate.wrong_host()",
    "Certificate.wrong_host('a.test')",
    "Certificate.self_signed()",
    "Certificate.self_signed('a.test')",
    "Certificate.of_unknown_root()",
    "Certificate.without_intermediate()",
    "Certificate.weak_key()",
    "Certificate.common_name_only()",
    "Certificate.common_name_only('a.test')",
    "Certificate('*.a.test')",
    "Certificate.for_client('alice')",
    "Certificate.for_client('localhost')",
    "TLS()",
    "TLS(Certificate.expired())",
    "TLS(Certificate('a.test'), alpn=('h2', 'http/1.1'), minimum='1.2', maximum='1.3', ciphers='HIGH:!aNULL', "
    "client_certificate='required', names={'b.test': Certificate('b.test')}, refuse_unknown_names=True, tickets=False)",
]


@pytest.mark.parametrize("code", VALUES)
def test_a_value_prints_as_the_code_that_builds_it(code: str) -> None:
    value = eval(code)

    assert repr(value) == code
    assert value == eval(repr(value))
    assert hash(value) == hash(eval(code))
    assert [other for other in VALUES if eval(other) == value] == [code]


def test_a_value_of_certificates_cannot_be_changed() -> None:
    with pytest.raises(AttributeError, match="^cannot assign to field 'hosts'$"):
        Certificate().hosts = ("a.test",)
    with pytest.raises(AttributeError, match="^cannot assign to field 'alpn'$"):
        TLS().alpn = ("h2",)


def test_dates_are_in_utc_to_the_second() -> None:
    plain = datetime.datetime(2021, 1, 2, 3, 4, 5, 678)
    in_zone = datetime.datetime(2021, 1, 2, 5, 4, 5, tzinfo=timezone(timedelta(hours=2)))

    assert Certificate.expired(on=plain) == Certificate.expired(on=in_zone)
    assert repr(Certificate.expired(on=plain)) == repr(Certificate.expired(on=in_zone))
    assert Certificate.expired(on=plain).when == datetime.datetime(2021, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    assert Certificate.expired(on=datetime.date(2021, 1, 2)).when == datetime.datetime(2021, 1, 2, tzinfo=timezone.utc)


def test_the_order_of_names_and_the_case_of_hosts_make_no_difference() -> None:
    a, b = Certificate("a.test"), Certificate("B.TEST")

    assert TLS(names={"a.test": a, "b.test": b}) == TLS(names={"B.test": b, "A.test": a})
    assert b == Certificate("b.test")


def test_a_value_has_one_context() -> None:
    assert Certificate("one.test").server_context() is TLS(Certificate("one.test")).server_context()
    assert TLS(alpn=["h2"]).server_context() is TLS(alpn=("h2",)).server_context()
    assert TLS(alpn=["h2"]).server_context() is not TLS().server_context()
    assert Certificate("one.test").server_context() is not Certificate("two.test").server_context()


def test_threads_that_ask_at_once_get_the_same_context() -> None:
    value = TLS(Certificate("threads.test"), names={"b.test": Certificate("threads.b.test")})
    barrier, contexts = threading.Barrier(8), []

    def ask() -> None:
        barrier.wait(PATIENCE)
        contexts.append(value.server_context())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)

    assert len(contexts) == 8
    assert len(set(map(id, contexts))) == 1


def test_a_sweep_over_many_values_is_no_heap_of_contexts() -> None:
    first = weakref.ref(TLS(alpn=["sweep"]).server_context())
    assert first() is TLS(alpn=["sweep"]).server_context()

    for each in range(128):
        TLS(alpn=[f"sweep-{each}"]).server_context()
    gc.collect()

    assert first() is None
    assert TLS(alpn=["sweep-127"]).server_context() is TLS(alpn=["sweep-127"]).server_context()


def test_the_context_of_whatever_a_server_may_be_given() -> None:
    given = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    assert server_context_of(given) is given
    assert server_context_of(True) is TLS().server_context()
    assert server_context_of(TLS(alpn=["h2"])) is TLS(alpn=["h2"]).server_context()
    assert server_context_of(Certificate("a.test")) is Certificate("a.test").server_context()


def test_whatever_a_server_may_be_given_passes_the_check() -> None:
    for value in (True, TLS(), Certificate(), Certificate.expired(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)):
        assert checked_tls(value, "tls") is value


def test_no_file_of_a_key_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    Certificate("files.test").server_context()
    client_context(certificate=Certificate.for_client("files"))

    assert list(tmp_path.iterdir()) == []


def test_no_file_of_a_key_is_left_if_the_context_does_not_take_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pytest_sockserver.transport import tls_contexts

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(tls_contexts, "issued", lambda certificate: b"no key")

    with pytest.raises(ssl.SSLError):
        client_context(certificate=Certificate.for_client("files"))

    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------------------------------------- errors

NAIVE = datetime.datetime(2999, 1, 1)
CLIENT = Certificate.for_client("alice")
HOST = "expected the name of a host, a str, not"

BAD: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: Certificate(5), TypeError, f"Certificate() {HOST} 5"),
    (lambda: Certificate(["a.test"]), TypeError, f"Certificate() {HOST} ['a.test']"),
    (lambda: Certificate(b"a.test"), TypeError, f"Certificate() {HOST} b'a.test'"),
    *[
        (
            lambda host=host: Certificate("a.test", host),
            ValueError,
            f"Certificate() expected the name or the address of a host, not {host!r}",
        )
        for host in ("", "a b", "a.test:80", "https://a.test", "10.0.0.0/8", "a..test", "*", "a*.test", "a@a.test")
    ],
    (lambda: Certificate.self_signed(5), TypeError, f"self_signed() {HOST} 5"),
    (
        lambda: Certificate.expired(datetime.date(2020, 1, 1)),
        TypeError,
        f"expired() {HOST} datetime.date(2020, 1, 1): dates go by name, on= or until=",
    ),
    (
        lambda: Certificate.expired(on="yesterday"),
        TypeError,
        "expired() expected on= to be a datetime or a date, not 'yesterday'",
    ),
    (
        lambda: Certificate.expired(on=NAIVE),
        ValueError,
        "expired() expected a date in the past, not 2999-01-01 00:00:00+00:00: it would be valid until then",
    ),
    (
        lambda: Certificate.expired(on=datetime.date(1950, 12, 31)),
        ValueError,
        "expired() expected a date from 1951 on, not 1950-12-31 00:00:00+00:00: certificates know no older one",
    ),
    (
        lambda: Certificate.not_yet_valid(until=5),
        TypeError,
        "not_yet_valid() expected until= to be a datetime or a date, not 5",
    ),
    (
        lambda: Certificate.not_yet_valid(until=datetime.date(2020, 1, 1)),
        ValueError,
        "not_yet_valid() expected a date in the future, not 2020-01-01 00:00:00+00:00: it would be valid now",
    ),
    (
        lambda: Certificate.not_yet_valid(until=datetime.date(3000, 1, 1)),
        ValueError,
        "not_yet_valid() expected a date before the year 3000, when it ends, not 3000-01-01 00:00:00+00:00",
    ),
    (
        lambda: Certificate.wrong_host("LOCALHOST"),
        ValueError,
        "wrong_host() expected another host than localhost, 127.0.0.1, ::1: those are right ones",
    ),
    (
        lambda: Certificate.wildcard("a.test"),
        ValueError,
        "wildcard() expected a name such as '*.example.test', not 'a.test'",
    ),
    (lambda: Certificate.wildcard(5), TypeError, f"wildcard() {HOST} 5"),
    (
        lambda: Certificate.common_name_only(".".join(["abcdefghi"] * 7)),
        ValueError,
        f"common_name_only() expected a host of at most 64 bytes, not {'.'.join(['abcdefghi'] * 7)!r}",
    ),
    (
        lambda: Certificate.for_client(5),
        TypeError,
        "for_client() expected the client's name, a str, not 5",
    ),
    (
        lambda: Certificate.for_client(""),
        ValueError,
        "for_client() expected the client's name, 1 to 64 bytes, not ''",
    ),
    (
        lambda: Certificate.for_client("ü" * 33),
        ValueError,
        f"for_client() expected the client's name, 1 to 64 bytes, not {'ü' * 33!r}",
    ),
    (
        lambda: TLS("a.test"),
        TypeError,
        "TLS() expected a Certificate, not 'a.test': write Certificate('a.test')",
    ),
    (lambda: TLS(5), TypeError, "TLS() expected a Certificate, not 5"),
    (
        lambda: TLS(CLIENT),
        ValueError,
        "TLS() expected the certificate of a server, not Certificate.for_client('alice')",
    ),
    (lambda: TLS(alpn="h2"), TypeError, "alpn must be a list of protocols such as ['h2', 'http/1.1'], not 'h2'"),
    (
        lambda: TLS(alpn=5),
        TypeError,
        "alpn must be a list of protocols such as ['h2', 'http/1.1'], not 5",
    ),
    (lambda: TLS(alpn=[b"h2"]), TypeError, "alpn must be a list of str, not of b'h2'"),
    (lambda: TLS(alpn=["h2", ""]), ValueError, "alpn must be names of 1 to 255 ASCII characters, not ''"),
    (
        lambda: TLS(alpn=["x" * 256]),
        ValueError,
        f"alpn must be names of 1 to 255 ASCII characters, not {'x' * 256!r}",
    ),
    (lambda: TLS(alpn=["ü"]), ValueError, "alpn must be names of 1 to 255 ASCII characters, not 'ü'"),
    (
        lambda: TLS(minimum="1.3", maximum="1.2"),
        ValueError,
        "minimum must not be above maximum: '1.3' is newer than '1.2'",
    ),
    (
        lambda: TLS(ciphers=5),
        TypeError,
        "ciphers must be a str as OpenSSL reads it, names with ':' between them, not 5",
    ),
    (lambda: TLS(ciphers="HIGH:NOPE"), ValueError, f"ciphers: {OPENSSL} has no 'NOPE' among those up to TLS 1.2"),
    (lambda: TLS(ciphers=""), ValueError, f"ciphers: {OPENSSL} has no '' among those up to TLS 1.2"),
    (
        lambda: TLS(ciphers="TLS_AES_128_GCM_SHA256"),
        ValueError,
        f"ciphers: {OPENSSL} has no 'TLS_AES_128_GCM_SHA256' among those up to TLS 1.2",
    ),
    (
        lambda: TLS(ciphers="HIGH", minimum="1.3"),
        ValueError,
        "ciphers are those up to TLS 1.2, and minimum is '1.3': Python cannot choose among 1.3's",
    ),
    (
        lambda: TLS(client_certificate=True),
        ValueError,
        "client_certificate must be 'no', 'optional' or 'required', not True",
    ),
    (
        lambda: TLS(client_certificate=CLIENT),
        TypeError,
        "client_certificate must be 'no', 'optional' or 'required', not Certificate.for_client('alice'): "
        "that is for client_context(certificate=...)",
    ),
    (
        lambda: TLS(names=["a.test"]),
        TypeError,
        "names must be a mapping of host names to certificates, not ['a.test']",
    ),
    (lambda: TLS(names={5: Certificate()}), TypeError, f"names {HOST} 5"),
    (
        lambda: TLS(names={"a.test": "b.test"}),
        TypeError,
        "names['a.test'] expected a Certificate, not 'b.test': write Certificate('b.test')",
    ),
    (
        lambda: TLS(names={"127.0.0.1": Certificate()}),
        ValueError,
        "names expected the name of a host, not the address '127.0.0.1': no client asks for one",
    ),
    (lambda: TLS(refuse_unknown_names=1), TypeError, "refuse_unknown_names must be True or False, not 1"),
    (lambda: TLS(tickets=None), TypeError, "tickets must be True or False, not None"),
    (lambda: client_context(trust=1), TypeError, "trust must be True or False, not 1"),
    (lambda: client_context(certificate=5), TypeError, "certificate must be a Certificate, not 5"),
    (
        lambda: client_context(alpn="h2"),
        TypeError,
        "alpn must be a list of protocols such as ['h2', 'http/1.1'], not 'h2'",
    ),
    *[
        (
            lambda value=value: checked_tls(value, "tls"),
            TypeError,
            f"tls must be True, a TLS, a Certificate or an ssl.SSLContext, not {value!r}",
        )
        for value in (5, False, None, "cert.pem", object)
    ],
    (lambda: checked_tls(TLS, "tls"), TypeError, "tls must be a value, not the class TLS: write TLS(...)"),
    (
        lambda: checked_tls(ssl.SSLContext, "tls"),
        TypeError,
        "tls must be a value, not the class SSLContext: write SSLContext(...)",
    ),
    (
        lambda: checked_tls(CLIENT, "tls"),
        ValueError,
        "tls expected the certificate of a server, not Certificate.for_client('alice')",
    ),
    (
        lambda: checked_tls(ssl.create_default_context(), "tls"),
        ValueError,
        "tls must be the context of a server, not of a client: ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), "
        "or True for one with a certificate of this process",
    ),
]


@pytest.mark.parametrize(("declare", "kind", "message"), BAD, ids=[message[:60] for *_, message in BAD])
def test_a_declaration_that_makes_no_sense_is_refused_at_its_line(
    declare: Callable[[], object], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind) as raised:
        declare()

    assert type(raised.value) is kind
    assert str(raised.value) == message
    assert line_shown(raised) == __file__


def line_shown(raised: pytest.ExceptionInfo[Any]) -> str:
    """Return the file of the last line that pytest shows."""
    return str([entry.path for entry in raised.traceback if not entry.ishidden(raised)][-1])


@pytest.mark.parametrize("version", ["1.4", "TLSv1.2", "", 1.2, ssl.TLSVersion.TLSv1_2])
@pytest.mark.parametrize("name", ["minimum", "maximum"])
def test_a_version_that_openssl_cannot_do_is_refused_naming_those_it_can(name: str, version: Any) -> None:
    can = [each for each, has in (("1.0", ssl.HAS_TLSv1), ("1.1", ssl.HAS_TLSv1_1)) if has]
    can += VERSIONS

    with pytest.raises(ValueError) as raised:
        TLS(**{name: version})

    assert str(raised.value) == f"{name} must be one of {', '.join(map(repr, can))}, not {version!r}"
    assert line_shown(raised) == __file__


def test_a_version_that_this_openssl_was_built_without_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssl, "HAS_TLSv1", False)
    monkeypatch.setattr(ssl, "HAS_TLSv1_1", False)

    with pytest.raises(ValueError, match="^minimum must be one of '1.2', '1.3', not '1.0'$"):
        TLS(minimum="1.0")


NOT_INSTALLED = (
    'a certificate is made by trustme, which is not installed: pip install "pytest-sockserver[tls]", '
    "or give an ssl.SSLContext of your own"
)


@pytest.mark.parametrize(
    "declare",
    [Certificate, Certificate.expired, TLS, lambda: checked_tls(True, "tls")],
    ids=["Certificate", "expired", "TLS", "True"],
)
def test_without_trustme_a_declaration_says_what_to_install(
    declare: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "trustme", None)

    with pytest.raises(ModuleNotFoundError) as raised:
        declare()

    assert str(raised.value) == NOT_INSTALLED
    assert raised.value.name == "trustme"
    assert line_shown(raised) == __file__


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_trustme_a_context_of_ones_own_is_still_taken() -> None:
    said = run("""
import sys
sys.modules["trustme"] = None
import ssl
from pytest_sockserver.transport.certificates import checked_tls, server_context_of
from pytest_sockserver.transport.certificate_authority import ca_pem
from pytest_sockserver.transport.tls_contexts import client_context
own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
assert server_context_of(checked_tls(own, "tls")) is own
for ask in (ca_pem, client_context):
    try:
        ask()
    except ModuleNotFoundError as error:
        print(error)
""")

    assert said.splitlines() == [NOT_INSTALLED] * 2


def test_nothing_expensive_is_imported_before_a_context_is_made() -> None:
    """Not by the declaration either; and checked_tls() leaves ssl alone."""
    said = run("""
import sys
before = set(sys.modules)
from pytest_sockserver.transport.certificates import TLS, Certificate, checked_tls
tls = TLS(Certificate.expired(), alpn=["h2"], client_certificate="required", names={})
checked_tls(tls, "tls"), checked_tls(True, "tls"), repr(tls), hash(tls)
costly = {"ssl", "trustme", "cryptography", "idna", "tempfile"}
print(*sorted(costly & (set(sys.modules) - before)))
tls.server_context()
print(*sorted(costly & set(sys.modules)))
""")

    assert said == "\ncryptography idna ssl tempfile trustme\n"
