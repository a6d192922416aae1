"""Conversations as the RFCs print them, run by ``dialogue``: what has to be changed, and nothing else."""

from __future__ import annotations

import ftplib
import poplib
import re
import smtplib
import socket
import ssl

import pytest
import trustme

from pytest_sockserver import SockServer, StreamTestServer

# RFC 5321, appendix D.1


RFC_5321 = r"""
      S: 220 foo.com Simple Mail Transfer Service Ready
      C: EHLO bar.com
      S: 250-foo.com greets bar.com
      S: 250-8BITMIME
      S: 250-SIZE
      S: 250-DSN
      S: 250 HELP
      C: MAIL FROM:<Smith@bar.com>
      S: 250 OK
      C: RCPT TO:<Jones@foo.com>
      S: 250 OK
      C: RCPT TO:<Green@foo.com>
      S: 550 No such user here
      C: RCPT TO:<Brown@foo.com>
      S: 250 OK
      C: DATA
      S: 354 Start mail input; end with <CRLF>.<CRLF>
      C: Blah blah blah...
      C: ...etc. etc. etc.
      C: .
      S: 250 OK
      C: QUIT
      S: 221 foo.com Service closing transmission channel
"""


def test_smtp_as_printed(tcp_server: StreamTestServer) -> None:
    tcp_server.dialogue(RFC_5321)

    say_the_clients_lines(RFC_5321, tcp_server)


def test_smtp_with_a_client_that_writes_commands_in_its_own_way(tcp_server: StreamTestServer) -> None:
    commands_in_any_case = re.sub(r"C: ([A-Z]{4}.*)", r"C~ (?i)\1", RFC_5321)
    with_the_size = commands_in_any_case.replace("<Smith@bar.com>", r"<Smith@bar.com>( size=\d+)?")
    with_the_dot_doubled = with_the_size.replace("C: ...etc.", "C: ....etc.")  # as section 4.5.2 wants it
    tcp_server.dialogue(with_the_dot_doubled)

    with smtplib.SMTP(*tcp_server.address, local_hostname="bar.com") as client:
        refused = client.sendmail(
            "Smith@bar.com",
            ["Jones@foo.com", "Green@foo.com", "Brown@foo.com"],
            "Blah blah blah...\n...etc. etc. etc.\n",
        )

    assert refused == {"Green@foo.com": (550, b"No such user here")}


# RFC 1939, section 10


RFC_1939 = r"""
      S: <wait for connection on TCP port 110>
      C: <open connection>
      S:    +OK POP3 server ready <1896.697170952@dbc.mtview.ca.us>
      C:    APOP mrose c4c9334bac560ecc979e58001b3e22fb
      S:    +OK mrose's maildrop has 2 messages (320 octets)
      C:    STAT
      S:    +OK 2 320
      C:    LIST
      S:    +OK 2 messages (320 octets)
      S:    1 120
      S:    2 200
      S:    .
      C:    RETR 1
      S:    +OK 120 octets
      S:    <the POP3 server sends message 1>
      S:    .
      C:    DELE 1
      S:    +OK message 1 deleted
      C:    RETR 2
      S:    +OK 200 octets
      S:    <the POP3 server sends message 2>
      S:    .
      C:    DELE 2
      S:    +OK message 2 deleted
      C:    QUIT
      S:    +OK dewey POP3 server signing off (maildrop empty)
      C:  <close connection>
      S:  <wait for next connection>
"""


def with_one_blank(printed: str) -> str:
    """Take away the blanks by which texts are aligned: they would be sent."""
    return re.sub(r"(?m)^( *[SC]:) +", r"\1 ", printed)


def test_pop3_with_a_client_that_knows_the_secret(tcp_server: StreamTestServer) -> None:
    without_directions = re.sub(r"[SC]: +<(wait|open|close) .*>", "", RFC_1939)
    tcp_server.dialogue(with_one_blank(without_directions))

    client = poplib.POP3(*tcp_server.address)
    client.apop("mrose", "tanstaaf")
    assert client.stat() == (2, 320)
    assert client.list()[1] == [b"1 120", b"2 200"]
    for number in (1, 2):
        assert client.retr(number)[1] == [b"<the POP3 server sends message %d>" % number]
        client.dele(number)
    client.quit()


# RFC 9051, section 8: the beginning and the end


RFC_9051 = r"""
   S:   * OK [CAPABILITY STARTTLS AUTH=SCRAM-SHA-256 LOGINDISABLED
           IMAP4rev2] IMAP4rev2 Service Ready
   C:   a000 starttls
   S:   a000 OK Proceed with TLS negotiation
       <TLS negotiation>
   C:   babc ENABLE IMAP4rev2
   S:   * ENABLED IMAP4rev2
   S:   babc OK Some capabilities enabled
   C:   a002 select inbox
   S:   * 18 EXISTS
   S:   * FLAGS (\Answered \Flagged \Deleted \Seen \Draft)
   S:   * OK [UIDVALIDITY 3857529045] UIDs valid
   S:   * LIST () "/" INBOX ("OLDNAME" ("inbox"))
   S:   a002 OK [READ-WRITE] SELECT completed
   C:    a005 store 12 +flags \deleted
   S:    * 12 FETCH (FLAGS (\Seen \Deleted))
   S:    a005 OK +FLAGS completed
   C:    a006 logout
   S:    * BYE IMAP4rev2 server terminating connection
   S:    a006 OK LOGOUT completed
"""


def test_imap_with_its_tls(sockserver: SockServer, contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    server_context, client_context = contexts
    with_the_event = RFC_9051.replace("<TLS negotiation>", "S! start-tls")
    unfolded = re.sub(r"\n +(?![SC][:!] )", " ", with_the_event)
    backslashes_doubled = unfolded.replace("\\", r"\\")
    server = sockserver.tcp(tls=server_context)
    server.dialogue(with_one_blank(backslashes_doubled))

    say_the_clients_lines(with_one_blank(unfolded), server, client_context)


@pytest.fixture(scope="module")
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(client)
    return server, client


# RFC 959, appendix II


RFC_959 = r"""
         CWD /usr/dm
         200 directory changed to /usr/dm
         MKD pathname
         257 "/usr/dm/pathname" directory created
         MKD foo"bar
         257 "/usr/dm/foo""bar" directory created
         CWD /usr/dm/foo"bar
         200 directory changed to /usr/dm/foo"bar
"""


def test_ftp_without_markers(tcp_server: StreamTestServer) -> None:
    with_markers = re.sub(r"(?m)^ +(?=\d{3} )", "S: ", RFC_959)
    with_markers = re.sub(r"(?m)^ +", "C: ", with_markers)
    tcp_server.dialogue("S: 220 Service ready" + with_markers)

    client = ftplib.FTP()
    client.connect(*tcp_server.address)
    client.cwd("/usr/dm")
    assert client.mkd("pathname") == "/usr/dm/pathname"
    assert client.mkd('foo"bar') == '/usr/dm/foo"bar'
    client.cwd('/usr/dm/foo"bar')
    client.close()


# A client that says what is printed


def say_the_clients_lines(printed: str, server: StreamTestServer, trust: ssl.SSLContext | None = None) -> None:
    """Say the lines of the client, and read those of the server."""
    client = socket.create_connection(server.address, timeout=5)
    try:
        for marker, said in re.findall(r"(?m)^ *([SC][:!])(?: (.*))?$", printed):
            line = said.encode() + b"\r\n"
            if marker == "C:":
                client.sendall(line)
            elif marker == "S:":
                assert recv_exactly(client, len(line)) == line
            elif trust is not None:
                client = trust.wrap_socket(client, server_hostname=server.host)
    finally:
        client.close()


def recv_exactly(client: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (chunk := client.recv(count - len(data))):
        data += chunk
    return data
