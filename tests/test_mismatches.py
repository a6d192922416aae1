"""What a mismatch says: the whole text, with the step, its line in the test, and the conversation so far.

First as the exception that a program without pytest gets, then as the report that a user of pytest reads.
"""

from __future__ import annotations

import asyncio
import linecache
import re
import socket
import sys
from pathlib import Path

import pytest

from pytest_sockserver import (
    ANY,
    CONNECT,
    DatagramTestServer,
    DeadlineExceeded,
    Gate,
    Hex,
    IncompleteRequest,
    Script,
    ScriptMismatch,
    SockServer,
    StreamTestServer,
    Text,
    UnexpectedRequest,
    UnmetExpectation,
    length_prefixed,
    lines,
    resp,
)

from .expected_texts import SameText, steady
from .peers import connect, datagram_client, read_exactly, read_to_end, reset
from .plugin_runs import Runner

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup  # which pytest requires on 3.10

BLOB = bytes(range(256)) * 400  # 102,400 bytes


@pytest.fixture
def inner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Runner:
    return Runner(pytester, monkeypatch)


def talk(server: StreamTestServer, *said: bytes | int, end: bool = False) -> bytes:
    """Send bytes, read so many where a number stands, and return what comes until the server ends the stream.

    Args:
        end: The client ends its own stream first.
    """
    try:
        with connect(server) as client:
            for each in said:
                if isinstance(each, int):
                    read_exactly(client, each)
                else:
                    client.sendall(each)
            if end:
                client.shutdown(socket.SHUT_WR)
            return read_to_end(client)
    except OSError:
        return b"(reset)"


def told(error: BaseException | None) -> str:
    """Return what an exception says, without ports and times.

    ``LINE`` is the line to which its traceback points, ``LINE-1`` the one before.
    """
    assert error is not None
    here = line_of(error)

    def relative(found: re.Match[str]) -> str:
        away = int(found[1]) - here
        return found[0] if abs(away) > 20 else f"LINE{away:+d}" if away else "LINE"

    return re.sub(rf"{Path(__file__).name}:(\d+)", relative, steady(str(error)))


def line_of(error: BaseException) -> int:
    """Return the number of the innermost line of this file in an exception's traceback, 0 if there is none."""
    line, at = 0, error.__traceback__
    while at is not None:
        line = at.tb_lineno if at.tb_frame.f_code.co_filename == __file__ else line
        at = at.tb_next
    return line


def pointed_at(error: BaseException | None) -> str:
    """Return the line of source to which an exception's traceback points."""
    assert error is not None
    return linecache.getline(__file__, line_of(error)).strip()


# Scripts


def test_a_wrong_byte_in_a_literal(tcp_server: StreamTestServer, same_text: SameText) -> None:
    (
        tcp_server.script()
        .send(b"+OK\r\n")
        .expect(b"USER bob\r\n")
        .send(b"+OK bob\r\n")
        .expect(b"PASS secret\r\n")
        .send(b"+OK\r\n")
    )

    with tcp_server.raises(ScriptMismatch) as caught:
        talk(tcp_server, 5, b"USER bob\r\n", 9, b"PSAS secret\r\n")

    same_text(told(caught.value))
    assert pointed_at(caught.value) == r'.expect(b"PASS secret\r\n")'


def test_a_line_that_does_not_match_a_pattern(tcp_server: StreamTestServer, same_text: SameText) -> None:
    tcp_server.script().expect_line(re.compile(rb"PASS \w+"))

    with tcp_server.raises(ScriptMismatch) as caught:
        talk(tcp_server, b"PSAS secret\r\n")

    same_text(told(caught.value))


@pytest.mark.parametrize(
    ("pattern", "shown"),
    [
        (re.compile(rb"quit", re.IGNORECASE), "rb'(?i)quit'"),
        (re.compile(rb"(?i)quit"), "rb'(?i)quit'"),
        (re.compile(rb"it's"), 'rb"it\'s"'),
        (re.compile(b"caf\xe9"), r"b'caf\xe9'"),
        (re.compile(rb"|".join(b"WORD%d" % n for n in range(1000))), None),
    ],
)
def test_a_pattern_is_shown_as_it_is_written(
    tcp_server: StreamTestServer, pattern: re.Pattern[bytes], shown: str | None
) -> None:
    tcp_server.script().expect_line(pattern)

    with tcp_server.raises(ScriptMismatch) as caught:
        talk(tcp_server, b"PSAS\r\n")

    shown = shown or f"rb'{pattern.pattern[:120].decode()}'... (7,889 characters)"
    assert told(caught.value).splitlines()[0].endswith(f"LINE, expected a line matching {shown}")


def is_login(line: bytes) -> bool:
    return line.startswith(b"LOGIN")


def test_a_line_that_a_predicate_refuses(tcp_server: StreamTestServer, same_text: SameText) -> None:
    tcp_server.script().expect_line(is_login)

    with tcp_server.raises(ScriptMismatch) as caught:
        talk(tcp_server, b"PSAS secret\r\n")

    same_text(told(caught.value))


def test_a_predicate_within_a_test_is_named_without_the_test(tcp_server: StreamTestServer) -> None:
    tcp_server.script().expect_line(lambda line: line == b"QUIT")

    with tcp_server.raises(ScriptMismatch) as caught:
        talk(tcp_server, b"PSAS secret\r\n")

    assert told(caught.value).splitlines()[0] == (
        "tcp_server, connection 0 (127.0.0.1:PORT): step 1 of 1, LINE, "
        "expected a line matching the predicate <lambda> (LINE)"
    )


def test_a_line_that_is_another_literal(tcp_server: StreamTestServer, same_text: SameText) -> None:
    tcp_server.script().expect_line(b"USER bob")

    with tcp_server.raises(ScriptMismatch) as caught:
        talk(tcp_server, b"USER eve\r\n")

    same_text(told(caught.value))


def test_too_little_before_the_end_of_the_stream(tcp_server: StreamTestServer, same_text: SameText) -> None:
    tcp_server.script().expect(b"USER bob\r\n")
    tcp_server.script().expect_line(re.compile(rb"USER .*"))
    tcp_server.script().recv_exactly(12)
    tcp_server.script().recv_until(b".\r\n")

    with tcp_server.raises(ScriptMismatch) as literal:
        talk(tcp_server, b"USER b", end=True)
    with tcp_server.raises(ScriptMismatch) as line:
        talk(tcp_server, b"USER b", end=True)
    with tcp_server.raises(IncompleteRequest) as size:
        talk(tcp_server, b"USER b", end=True)
    with tcp_server.raises(IncompleteRequest) as delimiter:
        talk(tcp_server, b"USER b", end=True)

    same_text(told(literal.value))
    assert told(line.value).splitlines()[:2] == [
        "tcp_server, connection 1 (127.0.0.1:PORT): step 1 of 1, LINE, expected a line matching rb'USER .*'",
        "  got b'USER b' and then the end of the stream",
    ]
    assert told(size.value).splitlines()[:2] == [
        "tcp_server, connection 2 (127.0.0.1:PORT): step 1 of 1, LINE, expected 12 bytes",
        "  got b'USER b', and then the client ended its stream",
    ]
    assert told(delimiter.value).splitlines()[:2] == [
        r"tcp_server, connection 3 (127.0.0.1:PORT): step 1 of 1, LINE, expected bytes through b'.\r\n'",
        "  got b'USER b', and then the client ended its stream",
    ]


def test_nothing_before_the_end_of_the_stream(tcp_server: StreamTestServer, same_text: SameText) -> None:
    tcp_server.script().send(b"hi\r\n").expect(b"USER bob\r\n")
    tcp_server.script().send(b"hi\r\n").recv_line()

    with tcp_server.raises(ScriptMismatch) as literal:
        talk(tcp_server, 4, end=True)
    with tcp_server.raises(ScriptMismatch) as line:
        talk(tcp_server, 4, end=True)

    same_text(told(literal.value))
    same_text(told(line.value))


def test_a_reset_within_a_literal(tcp_server: StreamTestServer, same_text: SameText) -> None:
    tcp_server.script().send(b"hi\r\n").expect(b"USER bob\r\n")

    with tcp_server.raises(ScriptMismatch) as caught:
        client = connect(tcp_server)
        client.sendall(b"USER")
        read_exactly(client, 4)
        tcp_server.wait_connection().wait_received(b"USER")
        reset(client)

    same_text(told(caught.value))


@pytest.mark.parametrize("said", [b"", b"USER"], ids=["nothing", "not_enough"])
def test_nothing_or_not_enough_until_the_deadline(
    tcp_server: StreamTestServer, said: bytes, same_text: SameText
) -> None:
    tcp_server.script().send(b"hi\r\n").expect(b"USER bob\r\n", timeout=0.05)

    with tcp_server.raises(DeadlineExceeded) as caught:
        talk(tcp_server, 4, said)

    same_text(told(caught.value))


def test_a_deadline_names_each_thing_that_was_waited_for(sockserver: SockServer) -> None:
    server = sockserver.tcp(framing=lines(b"\r\n"), timeout=0.02, name="server")
    server.script().expect(re.compile(rb"A.*\r\n"))
    server.script().expect_line(re.compile(rb"A.*"))
    server.script().expect_line()
    server.script().expect(Hex("00 ?? 01"))
    server.script().recv_line()
    server.script().expect_eof()
    server.script().expect_reset()
    server.script().send(Gate("go"))

    said = []
    for _ in range(8):
        with server.raises(DeadlineExceeded) as caught:
            talk(server)
        said.append(told(caught.value).partition("LINE, ")[2])

    assert [each.splitlines() for each in said] == [
        [r"expected a frame matching rb'A.*\r\n' within 0.02 s", "  got nothing", "    nothing was said so far"],
        ["expected a line matching rb'A.*' within 0.02 s", "  got nothing", "    nothing was said so far"],
        ["expected a line within 0.02 s", "  got nothing", "    nothing was said so far"],
        ["expected Hex(r'00 ?? 01') within 0.02 s", "  got nothing", "    nothing was said so far"],
        ["recv_line() waited 0.02 s, and nothing came", "    nothing was said so far"],
        ["expected the end of the stream within 0.02 s", "  got nothing", "    nothing was said so far"],
        ["expected a reset within 0.02 s", "  got nothing", "    nothing was said so far"],
        [
            "the gate 'go' was not opened within 0.02 s: server.open_gate('go') opens it",
            "    nothing was said so far",
        ],
    ]


def test_leftover_bytes(tcp_server: StreamTestServer, same_text: SameText) -> None:
    tcp_server.script().expect(b"QUIT\r\n").send(b"bye\r\n")

    with tcp_server.raises(ScriptMismatch) as caught:
        talk(tcp_server, b"QUIT\r\n", 5, b"QUIT\r\n")

    same_text(told(caught.value))


def test_a_step_never_reached(tcp_server: StreamTestServer, same_text: SameText) -> None:
    tcp_server.script().expect(b"A\r\n").send(b"a\r\n").expect(b"B\r\n").send(b"b\r\n").expect_eof()

    with connect(tcp_server) as client:
        client.sendall(b"A\r\n")
        read_exactly(client, 3)
        with pytest.raises(UnmetExpectation) as caught:
            tcp_server.verify()
        tcp_server.stop()

    same_text(told(caught.value))
    assert pointed_at(caught.value).startswith(r'tcp_server.script().expect(b"A\r\n")')


def test_a_script_that_nobody_came_for_and_one_that_too_few_came_for(
    tcp_server: StreamTestServer, same_text: SameText
) -> None:
    tcp_server.script(times=2).send(b"hi\r\n").close()
    tcp_server.script().send(b"ho\r\n").close()
    talk(tcp_server)

    with pytest.raises(BaseExceptionGroup) as caught:
        tcp_server.verify()

    assert caught.value.message == "2 failures on the server's side: tcp_server"
    assert len(caught.value.exceptions) == 2
    for each in caught.value.exceptions:
        same_text(told(each))
    assert [pointed_at(each) for each in caught.value.exceptions] == [
        r'tcp_server.script(times=2).send(b"hi\r\n").close()',
        r'tcp_server.script().send(b"ho\r\n").close()',
    ]


def test_one_connection_too_many_for_the_scripts(tcp_server: StreamTestServer, same_text: SameText) -> None:
    tcp_server.script().send(b"hi\r\n").close()
    talk(tcp_server)

    with tcp_server.raises(UnexpectedRequest) as caught:
        talk(tcp_server)

    same_text(told(caught.value))
    assert pointed_at(caught.value) == r'tcp_server.script().send(b"hi\r\n").close()'


# Where a step stands


def test_the_place_of_a_step_that_is_repeated(tcp_server: StreamTestServer, same_text: SameText) -> None:
    word = Script().expect(b"a").expect(b"b")
    tcp_server.script().send(b"hi").repeat(3, Script().expect(b"GET\r\n").send(b"got\r\n"))
    tcp_server.script().repeat(3, Script().expect(b"GET\r\n"))
    tcp_server.script().repeat(3, Script().send(b".").repeat(2, word))

    with tcp_server.raises(ScriptMismatch) as several:
        talk(tcp_server, 2, b"GET\r\n", 5, b"GTE\r\n")
    with tcp_server.raises(ScriptMismatch) as single:
        talk(tcp_server, b"GET\r\nGET\r\nGTE\r\n")
    with tcp_server.raises(ScriptMismatch) as nested:
        talk(tcp_server, 1, b"abab", 1, b"ac")

    same_text(told(several.value))
    same_text(told(single.value))
    same_text(told(nested.value))
    assert pointed_at(nested.value) == 'word = Script().expect(b"a").expect(b"b")'


def test_the_place_of_a_step_that_is_optional(tcp_server: StreamTestServer, same_text: SameText) -> None:
    tcp_server.dialogue(
        """
        % optional
        C: STARTTLS
        S: go
        C: EHLO
        S: ok
        % end
        C: QUIT
        """
    )
    tcp_server.script().maybe(b"HELP\r\n", b"help\r\n").maybe(b"NOOP\r\n", b"ok\r\n").expect(b"QUIT\r\n")

    with tcp_server.raises(ScriptMismatch) as within:
        talk(tcp_server, b"STARTTLS\r\n", 4, b"EHOL\r\n")
    with tcp_server.raises(ScriptMismatch) as after:
        talk(tcp_server, b"NOOP\r\n", 4, b"QUTI\r\n")

    same_text(told(within.value))
    assert pointed_at(within.value) == "C: EHLO"
    same_text(told(after.value))


# Frames


def test_a_frame_that_does_not_match(sockserver: SockServer, same_text: SameText) -> None:
    server = sockserver.tcp(framing=lines(b"\r\n"), name="server")
    server.script().expect(re.compile(rb"A\d\r\n"))
    server.script().expect(is_login)
    server.script().expect(ANY)

    with server.raises(ScriptMismatch) as pattern:
        talk(server, b"B1\r\n")
    with server.raises(ScriptMismatch) as predicate:
        talk(server, b"B1\r", end=True)
    with server.raises(ScriptMismatch) as anything:
        talk(server, b"B1\r", end=True)

    same_text(told(pattern.value))
    same_text(told(predicate.value).replace(f"py:{is_login.__code__.co_firstlineno}", "py:DEF"))
    assert told(anything.value).splitlines()[0] == (
        "server, connection 2 (127.0.0.1:PORT): step 1 of 1, LINE, expected a frame"
    )


def test_bytes_that_are_no_frame(sockserver: SockServer, same_text: SameText) -> None:
    server = sockserver.tcp(framing=resp, name="server")
    server.script().expect(ANY)

    with server.raises(ScriptMismatch) as caught:
        talk(server, b"*A\r\n")

    same_text(told(caught.value))


# Rules


def test_a_request_that_no_rule_takes(sockserver: SockServer, same_text: SameText) -> None:
    server = sockserver.tcp(framing=lines(b"\r\n"), name="server")
    server.on(CONNECT).reply(b"hi\r\n")
    server.on(re.compile(rb"GET \w+\r\n")).reply(b"1\r\n")
    server.on(b"PUT\r\n").reply(b"2\r\n")
    server.on(b"QUIT\r\n").reply(b"3\r\n")
    server.on(b"PING\r\n").reply(b"4\r\n")
    server.on(b"PI").reply(b"5\r\n")

    with server.raises(UnexpectedRequest) as caught:
        talk(server, 4, b"PIGN\r\n")

    same_text(told(caught.value))
    assert pointed_at(caught.value) == r'server.on(b"PI").reply(b"5\r\n")'


def test_a_request_that_no_rule_takes_where_there_are_no_literals(sockserver: SockServer, same_text: SameText) -> None:
    server = sockserver.tcp(framing=lines(b"\r\n"), name="server")
    server.on(re.compile(rb"GET \w+\r\n")).reply(b"1\r\n")
    server.on(is_login).reply(b"2\r\n")

    with server.raises(UnexpectedRequest) as caught:
        talk(server, b"PIGN\r\n")

    same_text(told(caught.value).replace(f"py:{is_login.__code__.co_firstlineno}", "py:DEF"))


def test_a_request_that_no_rule_takes_on_a_stream_without_frames(
    tcp_server: StreamTestServer, same_text: SameText
) -> None:
    tcp_server.on(b"PING\r\n").reply(b"+PONG\r\n")
    tcp_server.on(Hex("50 ?? 00 <id:1>")).reply(b"binary")

    with tcp_server.raises(UnexpectedRequest) as caught:
        talk(tcp_server, b"PIGN\r\n")

    same_text(told(caught.value))


def test_a_request_that_no_rule_takes_is_compared_with_what_was_captured(
    sockserver: SockServer, same_text: SameText
) -> None:
    server = sockserver.tcp(framing=lines(b"\r\n"), name="server")
    server.on(re.compile(rb"(?P<tag>\w+) LOGIN\r\n")).reply(Text(r"\g<tag> OK\r\n"))
    server.on(Text(r"\g<tag> LOGOUT\r\n")).reply(b"bye\r\n")

    with server.raises(UnexpectedRequest) as known:
        talk(server, b"a1 LOGIN\r\n", 7, b"a2 LOGOUT\r\n")
    with server.raises(UnexpectedRequest) as unknown:
        talk(server, b"a2 LOGOUT\r\n")

    same_text(told(known.value))
    same_text(told(unknown.value))


def test_a_rule_that_is_used_up(tcp_server: StreamTestServer, same_text: SameText) -> None:
    tcp_server.on(b"PING\r\n", times=1).reply(b"+PONG\r\n")

    with tcp_server.raises(UnexpectedRequest) as caught:
        talk(tcp_server, b"PING\r\n", 7, b"PING\r\n")

    same_text(told(caught.value))


def test_one_connection_too_many_for_the_rules(tcp_server: StreamTestServer, same_text: SameText) -> None:
    tcp_server.on(CONNECT, times=(0, 2)).reply(b"hi\r\n")
    for _ in range(2):
        talk(tcp_server, 4, end=True)

    with tcp_server.raises(UnexpectedRequest) as caught:
        talk(tcp_server)

    same_text(told(caught.value))


def test_times_that_were_not_met(tcp_server: StreamTestServer, same_text: SameText) -> None:
    tcp_server.on(b"A\r\n", times=2).reply(b"a\r\n")
    tcp_server.on(b"B\r\n", times=(1, None)).reply(b"b\r\n")
    tcp_server.on(CONNECT, times=3).reply(b"hi\r\n")
    talk(tcp_server, 4, b"A\r\n", 3, end=True)
    talk(tcp_server, 4, end=True)

    with pytest.raises(BaseExceptionGroup) as caught:
        tcp_server.verify()

    assert [told(each).splitlines()[0] for each in caught.value.exceptions] == [
        r"tcp_server: rule 1 (LINE), on(b'A\r\n'), was to be taken 2 times, and was taken only once",
        r"tcp_server: rule 2 (LINE), on(b'B\r\n'), was to be taken at least once, and was never",
        "tcp_server: rule 3 (LINE), on(CONNECT), was to be taken 3 times, and was taken only 2 times",
    ]
    same_text(told(caught.value.exceptions[0]))


def test_an_end_and_a_deadline_within_a_frame_point_at_the_first_rule(
    sockserver: SockServer, same_text: SameText
) -> None:
    server = sockserver.tcp(framing=length_prefixed(">H"), timeout=0.05, name="server")
    server.on(ANY).reply(b"+OK")
    server.on(b"\0\1A").reply(b"+A")

    with server.raises(IncompleteRequest) as ended:
        talk(server, b"\0\x08abc", end=True)
    with server.raises(DeadlineExceeded) as late:
        talk(server, b"\0\x08abc")

    same_text(told(ended.value))
    same_text(told(late.value))
    assert pointed_at(ended.value) == pointed_at(late.value) == 'server.on(ANY).reply(b"+OK")'


def test_a_script_that_hands_over_to_rules_which_are_not_there(sockserver: SockServer, same_text: SameText) -> None:
    server = sockserver.tcp(framing=lines(b"\r\n"), name="server")
    server.script().send(b"hi").rules()

    with server.raises(UnexpectedRequest) as caught:
        talk(server, 2, b"A\r\n")

    same_text(told(caught.value))
    assert pointed_at(caught.value) == 'server.script().send(b"hi").rules()'


# Long and binary


def test_a_difference_far_inside_a_long_text_is_shown(sockserver: SockServer) -> None:
    other, server = sockserver.tcp(name="other"), sockserver.tcp(framing=lines(b"\r\n"), name="server")
    said = b"A" * 9_000 + b"B" + b"A" * 999
    other.script().expect(b"A" * 10_000)
    other.script().expect_line(b"A" * 10_000)
    server.on(b"A" * 10_000 + b"\r\n").reply(b"1")
    server.on(b"A" * 5_000 + b"\r\n").reply(b"2")

    with other.raises(ScriptMismatch) as literal:
        talk(other, said)
    with other.raises(ScriptMismatch) as line:
        talk(other, said + b"\r\n")
    with server.raises(UnexpectedRequest) as rules:
        talk(server, said + b"\r\n")

    around = f"...b'{'A' * 80}'... (bytes 8,960 to 9,040 of 10,000)"
    there = f"...b'{'A' * 40}B{'A' * 39}'... (bytes 8,960 to 9,040 of"
    assert told(literal.value) == (
        f"other, connection 0 (127.0.0.1:PORT): step 1 of 1, LINE, expected {around}\n"
        f"  got {there} 10,000) (differs at byte 9,000: b'B' is not b'A')\n"
        f"    [T] C- {'A' * 100}\n"
        "    #! ... 9,800 bytes left out, 10,000 in all\n"
        f"    [T] C- {'A' * 100}"
    )
    assert told(line.value).splitlines()[:2] == [
        f"other, connection 1 (127.0.0.1:PORT): step 1 of 1, LINE, expected a line matching {around}",
        f"  got {there} 10,002) (differs at byte 9,000: b'B' is not b'A')",
    ]
    assert told(rules.value).splitlines()[:3] == [
        f"server, connection 0 (127.0.0.1:PORT): no rule matches b'{'A' * 120}'... (10,002 bytes)",
        f"  nearest: rule 1 (LINE) expects ...b'{'A' * 80}'... (bytes 8,960 to 9,040 of 10,002) "
        "(differs at byte 9,000: b'B' is not b'A')",
        rf"  then     rule 2 (LINE+1) expects ...b'{'A' * 40}\r\n' (bytes 4,960 to 5,002 of 5,002) "
        r"(differs at byte 5,000: b'A' is not b'\r')",
    ]


def test_a_long_line_that_does_not_match(tcp_server: StreamTestServer) -> None:
    tcp_server.script().expect_line(re.compile(rb"A+"))

    with tcp_server.raises(ScriptMismatch) as caught:
        talk(tcp_server, b"A" * 10_000 + b"B\r\n")

    assert told(caught.value) == (
        "tcp_server, connection 0 (127.0.0.1:PORT): step 1 of 1, LINE, expected a line matching rb'A+'\n"
        f"  got b'{'A' * 120}'... (10,003 bytes)"
        " (matches the first 10,000 of 10,001 bytes: a pattern is to match the whole)\n"
        f"    [T] C- {'A' * 100}\n"
        "    #! ... 9,803 bytes left out, 10,003 in all\n"
        f"    [T] C: {'A' * 97}B"
    )


def test_a_binary_frame_is_shown_in_hex_with_its_difference(sockserver: SockServer, same_text: SameText) -> None:
    server = sockserver.tcp(framing=length_prefixed(">H", offset=4), name="server")
    read_one = bytes.fromhex("12 34 00 00 00 06 01 03 00 0b 00 01")
    server.script().expect(Hex("<tid:2> 00 00 00 06 01 03 00 0a 00 01"))
    server.script().rules()
    server.on(Hex("<tid:2> 00 00 00 06 01 03 00 0a 00 01")).reply(Hex(r"\g<tid> 00 00 00 03 01 83 02"))
    server.on(Hex("00 01 00 00 00 06 01 03 00 0b 00 01")).reply()

    with server.raises(ScriptMismatch) as script:
        talk(server, read_one)
    with server.raises(UnexpectedRequest) as rules:
        talk(server, read_one)

    same_text(told(script.value))
    same_text(told(rules.value))


def test_a_difference_far_inside_a_blob_is_shown(tcp_server: StreamTestServer) -> None:
    tcp_server.script().expect(BLOB)

    with tcp_server.raises(ScriptMismatch) as caught:
        talk(tcp_server, BLOB[:70_000] + b"\xff\xff" + BLOB[70_002:])

    assert told(caught.value).splitlines()[:2] == [
        "tcp_server, connection 0 (127.0.0.1:PORT): step 1 of 1, LINE, expected "
        f"hex ...{BLOB[69_984:70_016].hex(' ')}... (bytes 69,984 to 70,016 of 102,400)",
        f"  got hex ...{BLOB[69_984:70_000].hex(' ')} ff ff {BLOB[70_002:70_016].hex(' ')}... "
        "(bytes 69,984 to 70,016 of 102,400) (differs at byte 70,000: ff is not 70)",
    ]
    assert len(told(caught.value).splitlines()) == 15


def test_a_blob_that_ends_early_is_shown_where_it_ends(tcp_server: StreamTestServer) -> None:
    tcp_server.script().expect(BLOB)
    tcp_server.script().recv_exactly(len(BLOB))

    with tcp_server.raises(ScriptMismatch) as literal:
        talk(tcp_server, BLOB[:70_000], end=True)
    with tcp_server.raises(IncompleteRequest) as size:
        talk(tcp_server, BLOB[:70_000], end=True)

    assert told(literal.value).splitlines()[:2] == [
        "tcp_server, connection 0 (127.0.0.1:PORT): step 1 of 1, LINE, expected "
        f"hex ...{BLOB[69_984:70_016].hex(' ')}... (bytes 69,984 to 70,016 of 102,400)",
        f"  got hex ...{BLOB[69_984:70_000].hex(' ')} (bytes 69,984 to 70,000 of 70,000) "
        "and then the end of the stream",
    ]
    assert told(size.value).splitlines()[:2] == [
        "tcp_server, connection 1 (127.0.0.1:PORT): step 1 of 1, LINE, expected 102,400 bytes",
        f"  got hex {BLOB[:60].hex(' ')}... (70,000 bytes), and then the client ended its stream",
    ]


def test_leftovers_are_counted_as_far_as_they_have_come(tcp_server: StreamTestServer) -> None:
    tcp_server.script().expect_eof()
    tcp_server.script().send(b"hi")

    with tcp_server.raises(ScriptMismatch) as end:
        talk(tcp_server, b"A" * 5_000, end=True)
    with tcp_server.raises(ScriptMismatch) as over:
        talk(tcp_server, 2, b"A" * 5_000, end=True)

    assert f"expected the end of the stream\n  got b'{'A' * 120}'... (5,000 bytes)\n" in told(end.value)
    assert f"expected the end of the stream\n  got b'{'A' * 120}'... (5,000 bytes)\n" in told(over.value)


# Dialogues


def test_a_mismatch_points_into_a_dialogue(tcp_server: StreamTestServer, same_text: SameText) -> None:
    tcp_server.dialogue(
        r"""
        S: +OK ready
        C~ USER (?P<user>\w+)
        S: +OK \g<user>
        C~ PASS .*
        S: -ERR locked
        """
    )

    with tcp_server.raises(ScriptMismatch) as caught:
        talk(tcp_server, 11, b"USER bob\r\n", 9, b"PSAS secret\r\n")

    same_text(told(caught.value))
    assert pointed_at(caught.value) == "C~ PASS .*"


def test_a_mismatch_points_into_the_file_of_a_dialogue(
    tcp_server: StreamTestServer, tmp_path: Path, same_text: SameText
) -> None:
    file = tmp_path / "login.txt"
    file.write_text("S: +OK ready\n# who\nC: USER bob\nS: +OK\n")
    tcp_server.dialogue(file)

    with tcp_server.raises(ScriptMismatch) as caught:
        talk(tcp_server, 11, b"USER eve\r\n")

    error = caught.value
    same_text(told(error))
    assert error is not None
    assert error.__traceback__ is not None
    assert error.__traceback__.tb_frame.f_code.co_filename == str(file)
    assert error.__traceback__.tb_lineno == 3


def test_what_was_captured_is_said_where_it_is_demanded(tcp_server: StreamTestServer) -> None:
    for line in (r"C~ \g<tag> LOGOUT|\g<tag> QUIT", r"C: \g<tag> LOGOUT", r"C> \g<tag> LOGOUT"):
        tcp_server.dialogue("C~ (?P<tag>.*) LOGIN\nS: go\n" + line)
    said = (b"a1 LOGIN\r\n", 4, b"a2 LOGOUT\r\n")

    with tcp_server.raises(ScriptMismatch) as pattern:
        talk(tcp_server, *said)
    with tcp_server.raises(ScriptMismatch) as text:
        talk(tcp_server, *said)
    with tcp_server.raises(IncompleteRequest) as through:
        talk(tcp_server, *said, end=True)

    assert [told(each.value).splitlines()[:2] for each in (pattern, text, through)] == [
        [
            r"tcp_server, connection 0 (127.0.0.1:PORT): step 3 of 3, LINE, expected a line matching "
            r"rb'\g<tag> LOGOUT|\g<tag> QUIT' (\g<tag> is b'a1')",
            r"  got b'a2 LOGOUT\r\n'",
        ],
        [
            r"tcp_server, connection 1 (127.0.0.1:PORT): step 3 of 3, LINE, expected b'a1 LOGOUT\r\n'",
            r"  got b'a2 LOGOUT\r\n' (differs at byte 1: b'2' is not b'1')",
        ],
        [
            "tcp_server, connection 2 (127.0.0.1:PORT): step 3 of 3, LINE, expected bytes through b'a1 LOGOUT'",
            r"  got b'a2 LOGOUT\r\n', and then the client ended its stream",
        ],
    ]


def test_what_comes_after_a_dialogue_is_compared_with_its_rules(
    tcp_server: StreamTestServer, same_text: SameText
) -> None:
    tcp_server.dialogue(
        """
        S: hi
        C: USER bob
        S: +OK
        % rules
        C~ (?i)noop|rset
        S: 250 ok
        C: HELP
        S: 250 help
        % end
        """
    )

    with tcp_server.raises(UnexpectedRequest) as caught:
        talk(tcp_server, 4, b"USER bob\r\n", 5, b"HLEP\r\n")

    same_text(told(caught.value))
    assert pointed_at(caught.value) == "C: HELP"


def test_a_connection_that_a_dialogue_has_no_section_for(tcp_server: StreamTestServer) -> None:
    tcp_server.dialogue(
        """
        == 0
        S: hi
        S! close
        """
    )
    talk(tcp_server)

    with tcp_server.raises(UnexpectedRequest) as caught:
        talk(tcp_server)

    assert told(caught.value).splitlines()[0] == (
        "tcp_server, connection 1 (127.0.0.1:PORT): expected no further connection: "
        "the script at LINE is the last one, and it was taken"
    )


def test_a_section_that_nobody_came_for(tcp_server: StreamTestServer) -> None:
    tcp_server.dialogue(
        """
        == 0
        S: hi
        S! close
        == 1
        S: ho
        C: QUIT
        """
    )
    talk(tcp_server)

    with pytest.raises(UnmetExpectation) as caught:
        tcp_server.verify()

    assert told(caught.value).splitlines()[0] == (
        "tcp_server: the script at LINE, of 2 steps, was not taken: no connection came for it"
    )
    assert pointed_at(caught.value) == "S: ho"


# Datagrams


def tell(server: DatagramTestServer, *datagrams: bytes) -> None:
    """Send datagrams, each when the one before was answered."""
    with datagram_client(server) as client:
        for datagram in datagrams[:-1]:
            client.sendall(datagram)
            client.recv(100)
        client.sendall(datagrams[-1])


def test_a_datagram_that_is_not_the_one_that_was_expected(udp_server: DatagramTestServer, same_text: SameText) -> None:
    udp_server.script().expect(b"A").send(b"a").expect(Hex("42 ?? 44"))

    with udp_server.raises(ScriptMismatch) as caught:
        tell(udp_server, b"A", b"BCE")

    same_text(told(caught.value))


def test_a_datagram_that_no_pattern_matches(udp_server: DatagramTestServer, same_text: SameText) -> None:
    udp_server.script().expect(re.compile(rb"hits:\d+\|c"))

    with udp_server.raises(ScriptMismatch) as caught:
        tell(udp_server, b"hits:x|c")

    same_text(told(caught.value))


def test_a_datagram_that_is_neither_what_is_optional_nor_what_follows(
    udp_server: DatagramTestServer, same_text: SameText
) -> None:
    udp_server.script().maybe(b"HELP", b"help").repeat(2, Script().expect(b"QUIT").send(b"bye"))

    with udp_server.raises(ScriptMismatch) as first:
        tell(udp_server, b"HLEP")
    with udp_server.raises(ScriptMismatch) as caught:
        tell(udp_server, b"QUIT", b"QUTI")

    assert told(first.value).splitlines()[:2] == [
        "udp_server, datagram from 127.0.0.1:PORT: step 2 of 2, round 1 of 2, step 1 of 2, LINE, expected b'QUIT'",
        "  got b'HLEP' (differs at byte 0: b'H' is not b'Q')",
    ]
    same_text(told(caught.value))


def test_one_datagram_too_many(udp_server: DatagramTestServer, same_text: SameText) -> None:
    udp_server.script().expect(b"A").send(b"a")

    with udp_server.raises(ScriptMismatch) as caught:
        tell(udp_server, b"A", b"B")

    same_text(told(caught.value))


def test_a_datagram_that_no_rule_takes(udp_server: DatagramTestServer, same_text: SameText) -> None:
    udp_server.on(b"PING").reply(b"+PONG")
    udp_server.on(re.compile(rb"GET .*")).reply(b"+GOT")

    with udp_server.raises(UnexpectedRequest) as caught:
        tell(udp_server, b"PIGN")

    same_text(told(caught.value))


def test_a_datagram_that_has_not_come(udp_server: DatagramTestServer, same_text: SameText) -> None:
    udp_server.script().expect(b"A").send(b"a").expect(b"B")
    with datagram_client(udp_server) as client:
        client.sendall(b"A")
        client.recv(100)

    with pytest.raises(UnmetExpectation) as caught:
        udp_server.verify()

    same_text(told(caught.value))


# Driven by the test


def test_a_mismatch_on_an_accepted_connection(tcp_server: StreamTestServer, same_text: SameText) -> None:
    with connect(tcp_server) as client:
        conn = tcp_server.accept()
        client.sendall(b"HELO me\r\n")

        with pytest.raises(ScriptMismatch) as caught:
            conn.expect(b"EHLO me\r\n")

    same_text(told(caught.value))


@pytest.mark.asyncio
async def test_a_mismatch_in_a_coroutine(tcp_server: StreamTestServer, same_text: SameText) -> None:
    _, writer = await asyncio.open_connection(*tcp_server.address)
    conn = await tcp_server.aio.accept()
    writer.write(b"HELO me\r\n")

    with pytest.raises(ScriptMismatch) as line:
        await conn.expect_line(re.compile(rb"EHLO .*"))
    await conn.recv_line()
    with pytest.raises(DeadlineExceeded) as late:
        await conn.expect_line(timeout=0.02)
    writer.close()
    await writer.wait_closed()

    same_text(told(line.value))
    same_text(told(late.value))


@pytest.mark.asyncio
async def test_a_step_never_reached_in_a_coroutine(tcp_server: StreamTestServer, same_text: SameText) -> None:
    tcp_server.script().send(b"hi\r\n").expect(b"A\r\n")
    reader, writer = await asyncio.open_connection(*tcp_server.address)
    await reader.readline()

    with pytest.raises(UnmetExpectation) as caught:
        await tcp_server.aio.verify()

    tcp_server.stop()
    writer.close()
    same_text(told(caught.value))


# Through pytest: the source, what happened, where, and the conversation once


def test_the_report_of_a_script(inner: Runner, same_text: SameText) -> None:
    run = inner(
        r"""
        import re
        from client import connect

        def test_it(tcp_server):
            (tcp_server.script()
                .send(b"+OK ready\r\n")
                .expect_line(re.compile(rb"USER \w+")).send(b"+OK\r\n")
                .expect_line(re.compile(rb"PASS .*")).send(b"+OK\r\n"))
            with connect(tcp_server) as client:
                client.recv(11)
                client.sendall(b"USER bob\r\n")
                client.recv(5)
                client.sendall(b"PSAS secret\r\n")
        """
    )

    assert run.phases("test_it") == ["call failed"]
    same_text(run.block("test_it"))
    assert run.summary() == [
        "FAILED test_it.py::test_it - pytest_sockserver.ScriptMismatch: step 4 of 5, t...",
        "1 failed",
    ]


def test_the_report_of_a_clients_error_shows_the_script_with_its_indentation(
    inner: Runner, same_text: SameText
) -> None:
    run = inner(
        r"""
        from client import connect

        def test_it(tcp_server):
            tcp_server.script().send(b"+OK\r\n").expect(b"USER bob\r\n", timeout=0.02)
            with connect(tcp_server) as client:
                assert client.recv(5) == b"+OK\r\n"
                client.recv(100)
        """
    )

    assert run.phases("test_it") == ["call failed"]
    said = run.block("test_it")
    same_text(said[said.index("E  ") :])


def test_the_report_of_rules(inner: Runner, same_text: SameText) -> None:
    run = inner(
        r"""
        from client import ask
        from pytest_sockserver import lines

        def test_it(tcp_server):
            tcp_server.framing = lines(b"\n")
            tcp_server.on(b"PING\n").reply(b"+PONG\n")
            tcp_server.on(b"QUIT\n").reply(b"+BYE\n")
            ask(tcp_server, b"PIGN\n")
        """
    )

    assert run.phases("test_it") == ["call failed"]
    same_text(run.block("test_it"))


def test_the_report_of_a_dialogue_and_of_the_file_of_one(inner: Runner) -> None:
    inner.pytester.path.joinpath("login.txt").write_text("C: USER bob\nS: +OK\nC: QUIT\n")
    run = inner(
        r'''
        from pathlib import Path
        from client import ask

        def test_text(tcp_server):
            tcp_server.dialogue("""
                C: USER bob
                S: +OK
            """)
            ask(tcp_server, b"USER eve\r\n")

        def test_file(tcp_server):
            tcp_server.dialogue(Path("login.txt"))
            ask(tcp_server, b"USER eve\r\n")
        '''
    )

    assert run.block("test_text").splitlines()[1:9] == [
        '        tcp_server.dialogue("""',
        ">           C: USER bob",
        "            S: +OK",
        '        """)',
        r"E       pytest_sockserver.ScriptMismatch: step 1 of 2, test_it.py:6, expected b'USER bob\r\n'",
        r"E         got b'USER eve\r\n' (differs at byte 5: b'e' is not b'b')",
        "E         on tcp_server, connection 0 (127.0.0.1:PORT)",
        "test_it.py:6: ScriptMismatch",
    ]
    assert run.block("test_file").splitlines()[:5] == [
        ">   C: USER bob",
        r"E   pytest_sockserver.ScriptMismatch: step 1 of 3, login.txt:1, expected b'USER bob\r\n'",
        r"E     got b'USER eve\r\n' (differs at byte 5: b'e' is not b'b')",
        "E     on tcp_server, connection 0 (127.0.0.1:PORT)",
        "login.txt:1: ScriptMismatch",
    ]


def test_the_report_of_several_failures_and_of_what_is_missing(inner: Runner, same_text: SameText) -> None:
    run = inner(
        r"""
        from client import ask

        def test_wrong(tcp_server):
            tcp_server.script().expect(b"A\n")
            tcp_server.script().expect(b"B\n")
            ask(tcp_server, b"B\n")
            ask(tcp_server, b"A\n")

        def test_missing(tcp_server):
            tcp_server.script().expect(b"A\n")
            tcp_server.on(b"PING\n", times=2).reply(b"+PONG\n")

        def test_datagrams(udp_server):
            udp_server.script().expect(b"A")
        """
    )

    wrong = [line.partition("| ")[2] for line in run.block("test_wrong").splitlines() if "| " in line]
    assert [line for line in wrong if not line.startswith("  File")] == [
        "    def test_wrong(tcp_server):",
        "ExceptionGroup: 2 failures on the server's side: tcp_server, connection 0 (127.0.0.1:PORT); "
        "tcp_server, connection 1 (127.0.0.1:PORT) (2 sub-exceptions)",
        "Traceback (most recent call last):",
        r'    tcp_server.script().expect(b"A\n")',
        r"pytest_sockserver.ScriptMismatch: step 1 of 1, test_it.py:4, expected b'A\n'",
        r"  got b'B\n' (differs at byte 0: b'B' is not b'A')",
        "  on tcp_server, connection 0 (127.0.0.1:PORT)",
        "Traceback (most recent call last):",
        r'    tcp_server.script().expect(b"B\n")',
        r"pytest_sockserver.ScriptMismatch: step 1 of 1, test_it.py:5, expected b'B\n'",
        r"  got b'A\n' (differs at byte 0: b'A' is not b'B')",
        "  on tcp_server, connection 1 (127.0.0.1:PORT)",
    ]
    missing = [line.partition("| ")[2] for line in run.block("test_missing").splitlines() if "| " in line]
    assert [line for line in missing if line.startswith(("pytest_sockserver", "  on"))] == [
        "pytest_sockserver.UnmetExpectation: the script at test_it.py:10, of 1 step, was not taken: "
        "no connection came for it",
        "  on tcp_server",
        r"pytest_sockserver.UnmetExpectation: rule 1 (test_it.py:11), on(b'PING\n'), was to be taken 2 times, "
        "and was never",
        "  on tcp_server",
    ]
    same_text(run.block("test_datagrams"))


def test_the_conversation_stays_with_the_error_where_no_section_has_all_of_it(inner: Runner) -> None:
    run = inner(
        r"""
        from client import ask
        from pytest_sockserver import SockServer

        def test_another_server(tcp_server):
            with SockServer() as factory:
                server = factory.tcp(name="other")
                server.script().expect(b"A\n")
                ask(server, b"B\n")

        def test_long(tcp_server):
            tcp_server.script().expect(b"A\n" * 100).expect(b"B\n")
            ask(tcp_server, b"A\n" * 101)
        """
    )

    assert [line for line in run.block("test_another_server").splitlines() if line.startswith("E  ")] == [
        r"E           pytest_sockserver.ScriptMismatch: other, connection 0 (127.0.0.1:PORT): "
        r"step 1 of 1, test_it.py:7, expected b'A\n'",
        r"E             got b'B\n' (differs at byte 0: b'B' is not b'A')",
        "E               % eol lf",
        "E               [T] C: B",
    ]
    said = [line for line in run.block("test_long").splitlines() if line.startswith("E  ")]
    assert said[0] == (
        "E       pytest_sockserver.ScriptMismatch: tcp_server, connection 0 (127.0.0.1:PORT): "
        r"step 2 of 2, test_it.py:11, expected b'B\n'"
    )
    assert said[-1] == "E           [T] C: A"


@pytest.mark.one_version
def test_a_report_has_only_what_every_terminal_takes(inner: Runner) -> None:
    run = inner.outside(
        r"""
        import re
        from client import ask
        from pytest_sockserver import Text, lines

        def test_script(tcp_server):
            tcp_server.script().expect(Text("a\ud800\u202e\u001b[31m".replace("\u001b", r"\x1b")))
            ask(tcp_server, b"\xff\xfe\x1b[31m\x00\n")

        def test_rules(tcp_server):
            tcp_server.framing = lines(b"\n")
            tcp_server.on(re.compile(b"\xff\x1b[31m\n")).reply(b"1")
            tcp_server.on(Text("a\ud800\u202e")).reply(b"1")
            ask(tcp_server, b"\xff\xfe\x1b[31m\x00\n")
        """,
        *("-n", "1"),
        loaded=("-p", "pytest_sockserver.pytest_plugin.plugin", "-p", "xdist.plugin", "-p", "xdist.looponfail"),
    )

    assert "INTERNALERROR" not in run.stdout + run.stderr
    assert run.summary()[-1] == "2 failed"
    assert [each for each in run.stdout if not each.isprintable() and each != "\n"] == []
