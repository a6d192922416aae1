"""Serve TLS: certificates, handshakes, and what goes wrong with them."""

import http.client
import socket
import ssl
import urllib.request

import pytest
import requests

from pytest_sockserver import (
    ANY,
    CONNECT,
    HANDSHAKE,
    TLS,
    Certificate,
    Close,
    Cut,
    Reset,
    ServerFailed,
    Stall,
    StartTLS,
    http1,
)
from pytest_sockserver.faults import Alert, Raw

PAGE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


@pytest.fixture
def web_server(tls_server):
    tls_server.framing = http1
    tls_server.on(ANY).reply(PAGE)
    return tls_server


def test_page_over_tls(web_server):
    with urllib.request.urlopen(web_server.url("https"), context=web_server.client_context()) as page:
        assert page.read() == b"hello"

    assert web_server.connections[0].tls.version == "TLSv1.3"
    assert web_server.requests[0].startswith(b"GET / HTTP/1.1\r\n")


def test_client_that_wants_a_file(web_server):
    page = requests.get(web_server.url("https"), verify=web_server.ca_path, timeout=5)

    assert page.text == "hello"


def connect(server, context=None, name="localhost", timeout=5, **options):
    """Connect and do the client's side of a handshake."""
    context = context or server.client_context()
    sock = socket.create_connection(server.address, timeout=timeout)
    try:
        return context.wrap_socket(sock, server_hostname=name, **options)
    except OSError:
        sock.close()
        raise


# Certificates


@pytest.mark.parametrize(
    ("certificate", "text"),
    [
        (Certificate.expired(), "certificate has expired"),
        (Certificate.not_yet_valid(), "certificate is not yet valid"),
        (Certificate.wrong_host(), "Hostname mismatch, certificate is not valid for 'localhost'"),
        (Certificate.self_signed(), "self-signed certificate"),
        (Certificate.of_unknown_root(), "self-signed certificate in certificate chain"),
        (Certificate.without_intermediate(), "unable to get local issuer certificate"),
        (Certificate.weak_key(), "EE certificate key too weak"),
    ],
    ids=lambda value: getattr(value, "fault", None),
)
def test_client_refuses_the_certificate(sockserver, certificate, text):
    server = sockserver.tls(tls=certificate)

    with pytest.raises(ssl.SSLCertVerificationError) as refused:
        connect(server)

    assert refused.value.verify_message.replace("self signed", "self-signed").startswith(text)


def test_reason_is_recorded(sockserver):
    server = sockserver.tls(tls=Certificate.expired())

    with pytest.raises(ssl.SSLCertVerificationError):
        connect(server)

    connection = server.wait_connection()
    connection.wait_closed()
    assert "certificate expired" in str(connection.tls.error)


def test_certificate_is_renewed_between_two_connections(tls_server):
    tls_server.on(HANDSHAKE).reply(StartTLS(Certificate.expired())).then(StartTLS(Certificate()))

    with pytest.raises(ssl.SSLCertVerificationError):
        connect(tls_server)
    connect(tls_server).close()


# What both sides agree on


def test_protocols_and_versions(sockserver):
    server = sockserver.tls(tls=TLS(alpn=["h2", "http/1.1"], maximum="1.2"))

    with connect(server, server.client_context(alpn=["http/1.1"])) as client:
        assert client.selected_alpn_protocol() == "http/1.1"
        assert client.version() == "TLSv1.2"

    assert server.accept().tls.alpn == "http/1.1"


def test_server_without_the_clients_version(sockserver):
    server = sockserver.tls(tls=TLS(minimum="1.3"))
    context = server.client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    with pytest.raises(ssl.SSLError, match="TLSV1_ALERT_PROTOCOL_VERSION"):
        connect(server, context)


def test_name_that_the_client_asks_for(sockserver):
    blog = Certificate("blog.example")
    server = sockserver.tls(tls=TLS(names={"blog.example": blog}, refuse_unknown_names=True))

    with connect(server, name="blog.example"):
        assert server.accept().tls.server_name == "blog.example"
    with pytest.raises(ssl.SSLError, match="TLSV1_UNRECOGNIZED_NAME"):
        connect(server, name="shop.example")


def test_client_shows_a_certificate(sockserver):
    server = sockserver.tls(tls=TLS(client_certificate="required"))
    server.on(CONNECT).reply(b"welcome\n")

    with connect(server, server.client_context(certificate=Certificate.for_client("alice"))) as client:
        assert client.recv(1024) == b"welcome\n"

    assert server.connections[0].tls.certificate["subject"] == ((("commonName", "alice"),),)


def test_client_shows_none(sockserver):
    server = sockserver.tls(tls=TLS(client_certificate="required"))
    server.on(CONNECT).reply(b"welcome\n")

    with connect(server) as client:  # with TLS 1.3 a client is told at its first read
        with pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"):
            client.recv(1024)


# Handshakes


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ((b"220 welcome\r\n", Close()), "WRONG_VERSION_NUMBER"),
        ((Alert("handshake_failure"), Close()), "HANDSHAKE_FAILURE"),
        ((Alert("internal_error"), Close()), "INTERNAL_ERROR"),
        ((Close(),), "EOF"),
    ],
)
def test_handshake_is_not_done(tls_server, parts, text):
    tls_server.on(HANDSHAKE).reply(*parts)

    with pytest.raises(ssl.SSLError, match=text):
        connect(tls_server)


def test_handshake_is_never_answered(tls_server):
    tls_server.on(HANDSHAKE).reply(Stall())

    with pytest.raises(TimeoutError):
        connect(tls_server, timeout=0.1)


def test_first_two_handshakes_fail(web_server):
    web_server.on(HANDSHAKE).reply(Reset(), uses=2).then(StartTLS())
    session = requests.Session()
    session.mount("https://", requests.adapters.HTTPAdapter(max_retries=2))

    with session:
        assert session.get(web_server.url("https"), verify=web_server.ca_path, timeout=5).text == "hello"

    assert len(web_server.connections) == 3


# The end of what is said, and what does not decrypt


def test_truncated_body_is_noticed(web_server):
    web_server.on(ANY).reply(Cut(PAGE, len(PAGE) - 1), Close(notify=False))
    client = http.client.HTTPSConnection(*web_server.address, context=web_server.client_context(), timeout=5)

    client.request("GET", "/")
    with pytest.raises(http.client.IncompleteRead):
        client.getresponse().read()

    client.close()


def test_end_without_close_notify_is_an_end_unless_the_client_asks(tls_server):
    tls_server.on(CONNECT).reply(b"hello", Close(notify=False))

    with connect(tls_server) as client:
        assert [client.recv(1024), client.recv(1024)] == [b"hello", b""]
    with connect(tls_server, suppress_ragged_eofs=False) as client:
        assert client.recv(1024) == b"hello"
        with pytest.raises(ssl.SSLEOFError):
            client.recv(1024)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (Raw.bad_record(), "DECRYPTION_FAILED_OR_BAD_RECORD_MAC"),
        (Raw(b"220 welcome\r\n"), "WRONG_VERSION_NUMBER"),
    ],
)
def test_what_comes_does_not_decrypt(tls_server, raw, text):
    tls_server.on(CONNECT).reply(b"hello", raw)

    with connect(tls_server) as client:
        assert client.recv(1024) == b"hello"
        with pytest.raises(ssl.SSLError, match=text):
            client.recv(1024)


# Driven by the test, and with a context of one's own


def test_the_test_itself_answers(tls_server):
    page = tls_server.in_thread(get, tls_server)

    conn = tls_server.accept()  # a connection whose handshake is done
    assert conn.recv_until(b"\r\n\r\n").startswith(b"GET / HTTP/1.1\r\n")
    conn.send(PAGE)

    assert page.result() == b"hello"


def test_accept_tells_that_the_handshake_failed(tls_server):
    page = tls_server.in_thread(get, tls_server, tls_server.client_context(trust=False))

    with pytest.raises(ServerFailed, match="UNKNOWN_CA|unknown ca"):
        tls_server.accept()
    with pytest.raises(ssl.SSLCertVerificationError):
        page.result()


def get(server, context=None):
    client = http.client.HTTPSConnection(*server.address, context=context or server.client_context(), timeout=5)
    try:
        client.request("GET", "/")
        return client.getresponse().read()
    finally:
        client.close()


def test_context_of_your_own(sockserver):
    context = Certificate().server_context()  # or an ssl.SSLContext with the certificate of your files
    server = sockserver.tls(tls=context)

    trust = sockserver.tls().client_context()
    connect(server, trust).close()
