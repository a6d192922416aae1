"""Answer datagrams."""

import logging.handlers
import re
import socket


def ask(address, question, answers=1):
    """Send a datagram; return the answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        sock.sendto(question, address)
        return [sock.recv(1024) for _ in range(answers)]


def test_nothing_declared_records_and_stays_silent(udp_server):
    handler = logging.handlers.SysLogHandler(udp_server.address)
    handler.handle(logging.LogRecord("app", logging.ERROR, __file__, 1, "disk full", None, None))
    handler.close()

    found = udp_server.wait_for(re.compile(rb"<(\d+)>disk full\0"))

    assert found.match[1] == b"11"


def test_each_datagram_has_one_answer(udp_server):
    @udp_server.handler
    def shout(request):
        return request.upper()

    assert ask(udp_server.address, b"hello") == [b"HELLO"]


def test_request_without_a_byte(udp_server):
    udp_server.on(b"").reply(b"\xe0\0\0\0")  # the Time Protocol, RFC 868

    assert ask(udp_server.address, b"") == [b"\xe0\0\0\0"]


def test_number_of_answers_is_the_handlers_choice(udp_server):
    @udp_server.handler
    def resolver(request):
        if request == b"twice":
            return [b"one", b"two"]
        return ()

    assert ask(udp_server.address, b"lost", answers=0) == []
    assert ask(udp_server.address, b"twice", answers=2) == [b"one", b"two"]
    assert udp_server.requests == [b"lost", b"twice"]


def test_the_test_itself_answers(udp_server):
    answer = udp_server.in_thread(ask, udp_server.address, b"ping")

    request = udp_server.next_request(b"ping")
    request.reply(b"pong")

    assert answer.result() == [b"pong"]
