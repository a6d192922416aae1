"""aiosmtplib: SMTP from a coroutine, which the test may answer itself, from the same loop."""

from __future__ import annotations

import asyncio
import re
import ssl
from email.message import EmailMessage

import aiosmtplib
import pytest

from pytest_sockserver import Connection, StreamTestServer

pytestmark = pytest.mark.asyncio

MAIL = re.compile(rb"(?i)mail from:<a@x>.*")
EHLO = re.compile(rb"(?i)ehlo \S+")


@pytest.fixture
def message() -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "a@x", "b@y", "t"
    message.set_content("hi")
    return message


async def test_starttls_is_used_where_it_is_offered(
    tcp_server: StreamTestServer,
    message: EmailMessage,
    server_context: ssl.SSLContext,
    client_context: ssl.SSLContext,
) -> None:
    @tcp_server.handler
    def take_a_mail_over_tls(conn: Connection) -> None:
        conn.send(b"220 mx ESMTP\r\n")
        conn.expect_line(EHLO)
        conn.send(b"250-mx\r\n250 STARTTLS\r\n")
        conn.expect(b"STARTTLS\r\n")
        conn.send(b"220 go\r\n")
        conn.start_tls(server_context)
        conn.expect_line(EHLO)
        conn.send(b"250 mx\r\n")
        for _ in ("mail", "rcpt"):
            conn.recv_line()
            conn.send(b"250 ok\r\n")
        conn.expect(b"DATA\r\n")
        conn.send(b"354 go ahead\r\n")
        conn.recv_until(b"\r\n.\r\n")
        conn.send(b"250 queued\r\n")
        conn.expect(b"QUIT\r\n")
        conn.send(b"221 bye\r\n")

    host, port = tcp_server.address
    errors, reply = await aiosmtplib.send(message, hostname=host, port=port, tls_context=client_context)

    assert (errors, reply) == ({}, "queued")
    assert b"Subject: t\r\n" in tcp_server.requests[-2]
    assert tcp_server.connections[0].tls is not None


async def test_a_mail_that_the_test_refuses_by_itself(tcp_server: StreamTestServer, message: EmailMessage) -> None:
    host, port = tcp_server.address
    sending = asyncio.create_task(aiosmtplib.send(message, hostname=host, port=port, timeout=5))
    conn = await tcp_server.aio.accept()
    await conn.send(b"220 mx\r\n")
    await conn.expect_line(EHLO)
    await conn.send(b"250 mx\r\n")
    await conn.expect_line(MAIL)
    await conn.send(b"552 too much\r\n")
    await conn.expect(b"RSET\r\n")
    await conn.send(b"250 ok\r\n")
    await conn.expect(b"QUIT\r\n")
    await conn.send(b"221 bye\r\n")
    await conn.expect_eof()

    with pytest.raises(aiosmtplib.SMTPSenderRefused, match="too much"):
        await sending
