"""TLS: handshakes that fail or never come, certificates, records, and StartTLS within a conversation."""

from __future__ import annotations

import ssl
from functools import partial
from typing import Any

from pytest_sockserver import HANDSHAKE, TLS, Certificate, Close, Reset, SendEof, Stall, StartTLS
from pytest_sockserver.faults import Alert, Raw
from pytest_sockserver.scripting.tls_effects import ALERTS as NAMES

from .client import END, RAGGED, SILENCE, Client, named, read
from .rows import ASK, BYE, SAID, Row, in_places, reply

RESET = "ECONNRESET"
NO_TIME = 0.1  # seconds that a client waits for a handshake that never comes about
GO = b"220 go\r\n"


# Handshakes


def hands(*parts: Any) -> Any:
    return lambda server: server.on(HANDSHAKE).reply(*parts)


def shaken(client: Client, timeout: float = 20.0) -> object:
    return client.shaken(timeout=timeout)


def refused_then_served(client: Client) -> object:
    """A failed handshake is that of one connection: the server goes on accepting."""
    return [client.shaken(), client.shaken(), client.conversation(ASK, BYE)]


def fails_once(server: Any) -> None:
    server.on(HANDSHAKE).reply(Alert("internal_error"), uses=2).then(StartTLS())
    server.on(ASK).reply(SAID)
    server.on(BYE).reply(Close())


# OpenSSL's words for an alert; to some versions the others have no name.
ALERTS = {
    "unexpected_message": "SSLV3_ALERT_UNEXPECTED_MESSAGE",
    "bad_record_mac": "SSLV3_ALERT_BAD_RECORD_MAC",
    "record_overflow": "TLSV1_ALERT_RECORD_OVERFLOW",
    "decompression_failure": "SSLV3_ALERT_DECOMPRESSION_FAILURE",
    "handshake_failure": "SSLV3_ALERT_HANDSHAKE_FAILURE",
    "bad_certificate": "SSLV3_ALERT_BAD_CERTIFICATE",
    "unsupported_certificate": "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
    "certificate_revoked": "SSLV3_ALERT_CERTIFICATE_REVOKED",
    "certificate_expired": "SSLV3_ALERT_CERTIFICATE_EXPIRED",
    "certificate_unknown": "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
    "illegal_parameter": "SSLV3_ALERT_ILLEGAL_PARAMETER",
    "unknown_ca": "TLSV1_ALERT_UNKNOWN_CA",
    "access_denied": "TLSV1_ALERT_ACCESS_DENIED",
    "decode_error": "TLSV1_ALERT_DECODE_ERROR",
    "decrypt_error": "TLSV1_ALERT_DECRYPT_ERROR",
    "protocol_version": "TLSV1_ALERT_PROTOCOL_VERSION",
    "insufficient_security": "TLSV1_ALERT_INSUFFICIENT_SECURITY",
    "internal_error": "TLSV1_ALERT_INTERNAL_ERROR",
    "inappropriate_fallback": "TLSV1_ALERT_INAPPROPRIATE_FALLBACK",
    "no_renegotiation": "TLSV1_ALERT_NO_RENEGOTIATION",
    "unsupported_extension": "TLSV1_UNSUPPORTED_EXTENSION",
    "unrecognized_name": "TLSV1_UNRECOGNIZED_NAME",
    "bad_certificate_status_response": "TLSV1_BAD_CERTIFICATE_STATUS_RESPONSE",
}


def refused_somehow(client: Client) -> object:
    try:
        client.secured(client.plain())
    except ssl.SSLError:
        return "refused"
    return "secured"


HANDSHAKES = [
    Row("S4", "closed after the ClientHello", ("tls",), hands(Close()), shaken, RAGGED),
    Row("S4", "reset after the ClientHello", ("tls",), hands(Reset()), shaken, RESET),
    Row("S5", "the handshake stalls", ("tls",), hands(Stall()), partial(shaken, timeout=NO_TIME), SILENCE),
    Row("S6", "plain text instead", ("tls",), hands(b"220 hi\r\n", Close()), shaken, "WRONG_VERSION_NUMBER"),
    *[
        Row("S7", f"alert {name}", ("tls",), hands(Alert(name)), shaken, told, shows=(Alert,))
        for name, told in ALERTS.items()
    ],
    *[
        Row("S7", f"alert {name}", ("tls",), hands(Alert(name), Stall()), refused_somehow, "refused", shows=(Alert,))
        for name in sorted({*NAMES} - {*ALERTS})
    ],
    Row("S7", "alert 40", ("tls",), hands(Alert(40)), shaken, "SSLV3_ALERT_HANDSHAKE_FAILURE"),
    Row(
        "S7",
        "two handshakes refused, then none",
        ("tls",),
        fails_once,
        refused_then_served,
        ["TLSV1_ALERT_INTERNAL_ERROR", "TLSV1_ALERT_INTERNAL_ERROR", (SAID, END)],
    ),
]


# What they agree on


def only(version: ssl.TLSVersion, client: Client) -> ssl.SSLContext:
    context: ssl.SSLContext = client.server.client_context()
    context.minimum_version = context.maximum_version = version
    return context


def of_version(client: Client, version: ssl.TLSVersion) -> object:
    return client.shaken(only(version, client))


def of_another_cipher(client: Client) -> object:
    context = only(ssl.TLSVersion.TLSv1_2, client)
    context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256")
    return client.shaken(context)


def protocol(client: Client) -> object:
    """Without a protocol in common none is chosen, and the handshake goes on: the client must look."""
    seen = []
    for offered in (["h2"], ["http/1.1"], ["imap"], []):
        context = client.server.client_context(alpn=offered)
        seen.append(client.secured(client.plain(), context).selected_alpn_protocol())
    return seen


def asked_for(client: Client, *names: str) -> object:
    return [client.shaken(name=name) for name in names]


def with_and_without_certificate(client: Client, version: ssl.TLSVersion) -> object:
    """TLS 1.2 tells in the handshake that the certificate is missing, TLS 1.3 at the first read (RFC 8446 4.4.2.4)."""
    seen = []
    for certificate in (None, Certificate.of_unknown_root(), Certificate.for_client("alice")):
        context = client.server.client_context(certificate=certificate)
        context.minimum_version = context.maximum_version = version
        try:
            sock = client.secured(client.plain(), context)
        except OSError as error:
            seen.append(("handshake", named(error)))
            continue
        try:
            sock.sendall(ASK)
        except OSError:
            pass
        seen.append(client.rest(sock))
    return seen


def certificates_in_turn(client: Client) -> object:
    return [client.shaken(name=name) for name in ("localhost", "localhost", "other.example")]


def rotating(server: Any) -> None:
    server.on(HANDSHAKE).reply(StartTLS(Certificate())).then(StartTLS(Certificate("other.example")))


def resumed(client: Client) -> object:
    """With the session of one connection the next begins anew, where there are no tickets."""
    context = only(ssl.TLSVersion.TLSv1_3, client)
    sock = client.secured(client.plain(), context)
    sock.sendall(ASK)
    read(sock, len(SAID))  # a ticket comes before the first reply
    again = context.wrap_socket(client.plain(), server_hostname="localhost", session=sock.session)
    client.kept(again)
    return again.session_reused


OTHER_NAME = "Hostname mismatch, certificate is not valid for 'localhost'."

AGREEMENTS = [
    Row(
        "S9",
        "no common version",
        ("tls",),
        lambda server: None,
        partial(of_version, version=ssl.TLSVersion.TLSv1_2),
        "TLSV1_ALERT_PROTOCOL_VERSION",
        options={"tls": TLS(minimum="1.3")},
    ),
    Row(
        "S9",
        "too new a version",
        ("tls",),
        lambda server: None,
        partial(of_version, version=ssl.TLSVersion.TLSv1_3),
        "TLSV1_ALERT_PROTOCOL_VERSION",
        options={"tls": TLS(maximum="1.2")},
    ),
    Row(
        "S9",
        "no common cipher",
        ("tls",),
        lambda server: None,
        of_another_cipher,
        "SSLV3_ALERT_HANDSHAKE_FAILURE",
        options={"tls": TLS(ciphers="ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384")},
    ),
    Row(
        "S9",
        "no common protocol",
        ("tls",),
        lambda server: None,
        protocol,
        ["h2", "http/1.1", None, None],
        options={"tls": TLS(alpn=("h2", "http/1.1"))},
    ),
    Row(
        "S10",
        "a name that is refused",
        ("tls",),
        lambda server: None,
        lambda client: asked_for(client, "localhost", "a.example", "b.example"),
        ["secured", "secured", "TLSV1_UNRECOGNIZED_NAME"],
        options={"tls": TLS(names={"a.example": Certificate("a.example")}, refuse_unknown_names=True)},
    ),
    Row(
        "S11",
        "a client certificate is required, 1.2",
        ("tls",),
        lambda server: server.on(ASK).reply(SAID, Close()),
        partial(with_and_without_certificate, version=ssl.TLSVersion.TLSv1_2),
        [("handshake", "SSLV3_ALERT_HANDSHAKE_FAILURE"), ("handshake", "TLSV1_ALERT_UNKNOWN_CA"), (SAID, END)],
        options={"tls": TLS(client_certificate="required")},
    ),
    Row(
        "S11",
        "a client certificate is required, 1.3",
        ("tls",),
        lambda server: server.on(ASK).reply(SAID, Close()),
        partial(with_and_without_certificate, version=ssl.TLSVersion.TLSv1_3),
        [(b"", "TLSV13_ALERT_CERTIFICATE_REQUIRED"), (b"", "TLSV1_ALERT_UNKNOWN_CA"), (SAID, END)],
        options={"tls": TLS(client_certificate="required")},
    ),
    *[
        Row("S12", name, ("tls",), lambda server: None, shaken, told, options={"tls": certificate})
        for name, certificate, told in (
            ("expired", Certificate.expired(), "certificate has expired"),
            ("not yet valid", Certificate.not_yet_valid(), "certificate is not yet valid"),
            ("wrong host", Certificate.wrong_host(), OTHER_NAME),
            ("self-signed", Certificate.self_signed(), "self-signed certificate"),
            ("of an unknown root", Certificate.of_unknown_root(), "self-signed certificate in certificate chain"),
            ("without its intermediate", Certificate.without_intermediate(), "unable to get local issuer certificate"),
            ("weak key", Certificate.weak_key(), "EE certificate key too weak"),
        )
    ],
    Row(
        "S12",
        "wildcard",
        ("tls",),
        lambda server: None,
        lambda client: asked_for(client, "a.example.test", "a.b.example.test"),
        ["secured", OTHER_NAME.replace("localhost", "a.b.example.test")],
        options={"tls": Certificate.wildcard("*.example.test")},
    ),
    Row(
        "S12",
        "common name only",
        ("tls",),
        lambda server: None,
        lambda client: asked_for(client, "127.0.0.1"),
        ["IP address mismatch, certificate is not valid for '127.0.0.1'."],
        options={"tls": Certificate.common_name_only("127.0.0.1")},
    ),
    Row(
        "S12",
        "a client that trusts nobody",
        ("tls",),
        lambda server: None,
        lambda client: client.shaken(client.server.client_context(trust=False)),
        "unable to get local issuer certificate",
    ),
    Row(
        "S14",
        "the certificate changes between connections",
        ("tls",),
        rotating,
        certificates_in_turn,
        ["secured", OTHER_NAME, "secured"],
    ),
    Row(
        "S14",
        "a session is resumed",
        ("tls",),
        lambda server: server.on(ASK).reply(SAID),
        resumed,
        True,
        options={"tls": TLS()},
    ),
    Row(
        "S14",
        "a session is not resumed",
        ("tls",),
        lambda server: server.on(ASK).reply(SAID),
        resumed,
        False,
        options={"tls": TLS(tickets=False)},
    ),
]


# Records, and how they end

BAD_RECORD = "DECRYPTION_FAILED_OR_BAD_RECORD_MAC"

RECORDS = [
    *reply("S1", "close_notify, then the end", lambda data: (data, Close()), SAID, end=END, transports=("tls",)),
    *reply(
        "S2",
        "the end without close_notify",
        lambda data: (data, Close(notify=False)),
        SAID,
        end=RAGGED,
        transports=("tls",),
    ),
    *reply("S3", "reset", lambda data: (data, Reset()), SAID, end=RESET, transports=("tls",)),
    *reply(
        "S8",
        "plain text in between",
        lambda data: (data, Raw(b"220 hi\r\n")),
        SAID,
        end="WRONG_VERSION_NUMBER",
        transports=("tls",),
    ),
    *reply(
        "S8",
        "a record that does not decrypt",
        lambda data: (data, Raw.bad_record()),
        SAID,
        end=BAD_RECORD,
        transports=("tls",),
    ),
    *reply(
        "S8",
        "closed within a record",
        lambda data: (data, Raw.cut_record(), Close(notify=False)),
        SAID,
        end=RAGGED,
        transports=("tls",),
    ),
    *reply(
        "S14",
        "stalled within a record",
        lambda data: (data, Raw.cut_record(), Stall()),
        SAID,
        end=SILENCE,
        transports=("tls",),
    ),
]


# StartTLS


def start(client: Client, context: ssl.SSLContext | None = None) -> object:
    """Ask, read the permission, do the handshake; say BYE under TLS."""
    sock = client.plain()
    sock.sendall(ASK)
    permitted = read(sock, len(GO))
    try:
        secured = client.secured(sock, context)
    except OSError as error:
        return permitted, named(error)
    secured.sendall(BYE)
    return permitted, client.rest(secured)


def refusing_handshakes(server: Any) -> None:
    server.on(HANDSHAKE).reply(Alert("handshake_failure")).then(StartTLS(Certificate.expired())).then(StartTLS())
    server.on(ASK).reply(GO, StartTLS())
    server.on(BYE).reply(Close())


def three_starts(client: Client) -> object:
    return [start(client) for _ in range(3)]


def injected(client: Client) -> object:
    """What stands behind the permission in the same segment is plain text, and must not be taken for protected."""
    sock = client.plain()
    sock.sendall(ASK)
    return sock.recv(100), client.shaken_on(sock)


STARTS = [
    *in_places(
        "S13",
        "StartTLS",
        lambda data: (GO, StartTLS()),
        start,
        (GO, (b"", END)),
        transports=("tcp", "unix"),
        options={"tls": True},
    ),
    *in_places(
        "S13",
        "StartTLS with an expired certificate",
        lambda data: (GO, StartTLS(Certificate.expired())),
        start,
        (GO, "certificate has expired"),
        transports=("tcp", "unix"),
        options={"tls": True},
        open=False,
    ),
    *in_places(
        "S13",
        "StartTLS, refused by an alert",
        lambda data: (GO, Alert("handshake_failure"), Stall()),
        start,
        (GO, "SSLV3_ALERT_HANDSHAKE_FAILURE"),
        transports=("tcp", "unix"),
        options={"tls": True},
        open=False,
    ),
    Row(
        "S13",
        "StartTLS, whose handshakes are answered by a rule",
        ("tcp", "unix"),
        refusing_handshakes,
        three_starts,
        [(GO, "SSLV3_ALERT_HANDSHAKE_FAILURE"), (GO, "certificate has expired"), (GO, (b"", END))],
        options={"tls": True},
    ),
    *in_places(
        "S13",
        "StartTLS, and closed early",
        lambda data: (GO, Close()),
        start,
        (GO, RAGGED),
        transports=("tcp",),
        options={"tls": True},
        open=False,
    ),
    # A unix client whose ClientHello comes after a close cannot even send it, and one that is faster can.
    *in_places(
        "S13",
        "StartTLS, and ended early",
        lambda data: (GO, SendEof(), Stall()),
        start,
        (GO, RAGGED),
        transports=("tcp", "unix"),
        options={"tls": True},
        open=False,
    ),
    *in_places(
        "S13",
        "StartTLS, plain text instead",
        lambda data: (GO, b"250 no TLS here\r\n", Stall()),
        start,
        (GO, "WRONG_VERSION_NUMBER"),
        transports=("tcp", "unix"),
        options={"tls": True},
        open=False,
    ),
    *in_places(
        "S13",
        "plain text injected after the permission",
        lambda data: (GO, b"250 injected\r\n", StartTLS()),
        injected,
        (GO + b"250 injected\r\n", "secured"),
        transports=("tcp", "unix"),
        options={"tls": True},
        open=False,
    ),
]

ROWS = HANDSHAKES + AGREEMENTS + RECORDS + STARTS
