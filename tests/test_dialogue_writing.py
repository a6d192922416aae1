"""Writing a conversation down in the dialogue notation, and putting it into messages."""

from __future__ import annotations

import re
import ssl
from typing import Any

import pytest

from pytest_sockserver import ANY, StreamTestServer
from pytest_sockserver.connection.transcript import datagram_lines, head, lines, of_connection, so_far
from pytest_sockserver.faults.modifiers import Cut, Drip
from pytest_sockserver.recording.recorder import Recorder, Tape
from pytest_sockserver.scripting.dialogue_writer import format_datagrams, format_lines, line_ending
from pytest_sockserver.scripting.effects import Close, Delay, Gate, OpenGate, Reset, SendEof, Stall
from pytest_sockserver.scripting.matching import Hex, Text
from pytest_sockserver.scripting.parts import Part
from pytest_sockserver.scripting.script import Script
from pytest_sockserver.scripting.tls_effects import StartTLS

from . import insides
from .peers import connect, place

Said = tuple[str, bytes]


def written(*said: Said, **options: Any) -> list[str]:
    """Return the lines for what was said, a millisecond between two events, without their times."""
    events = [(index / 1000, 0, kind, data) for index, (kind, data) in enumerate(said)]
    return [line.partition("] ")[2] if line.startswith("[") else line for line in format_lines(events, **options)]


def datagrams(*said: Said, **options: Any) -> list[str]:
    events = [(index / 1000, 0, kind, data) for index, (kind, data) in enumerate(said)]
    return [line.partition("] ")[2] if line.startswith("[") else line for line in format_datagrams(events, **options)]


# Text


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"PING\r\n", "C: PING"),
        (b"PING", "C- PING"),
        (b"PING\n", r"C- PING\n"),
        (b"\r\n", "C:"),
        (b"a b\r\n", "C: a b"),
        (b" a\r\n", "C:  a"),
        (b"a \r\n", r"C: a\x20"),
        (b"a  \r\n", r"C: a \x20"),
        (b" \r\n", r"C: \x20"),
        (b" ", r"C- \x20"),
        (b"a\tb\r\n", r"C: a\tb"),
        (b"a\\b\r\n", r"C: a\\b"),
        (b"a\x00bcdefghijklmnop\r\n", r"C: a\0bcdefghijklmnop"),
        (b"a\x1bbcdefghijklmnop\r\n", r"C: a\x1bbcdefghijklmnop"),
        ("naïve ☃\r\n".encode(), "C: naïve ☃"),
        ("a\u2028b\x85c\r\n".encode(), r"C: a\xe2\x80\xa8b\xc2\x85c"),
        (b"a\rb\r\n", r"C: a\rb"),
    ],
)
def test_text_is_written_so_that_it_reads_back(data: bytes, line: str) -> None:
    assert written(("received", data)) == [line]


def test_what_one_side_says_in_a_row_is_joined_before_it_is_cut_into_lines() -> None:
    """How the network cut the bytes says nothing."""
    assert written(("received", b"PI"), ("received", b"NG\r"), ("received", b"\nQU"), ("received", b"IT\r\n")) == [
        "C: PING",
        "C: QUIT",
    ]


def test_a_line_has_the_time_of_its_first_byte() -> None:
    events = [(0.0, 0, "received", b"PING\r\nQ"), (0.5, 0, "received", b"UIT\r\nX"), (0.75, 0, "received", b"\r\n")]

    assert list(format_lines(events)) == ["[0.000] C: PING", "[0.000] C: QUIT", "[0.500] C: X"]


def test_both_sides_take_turns() -> None:
    assert written(("sent", b"+OK\r\n"), ("received", b"PING\r\n"), ("sent", b"+PO"), ("sent", b"NG\r\n")) == [
        "S: +OK",
        "C: PING",
        "S: +PONG",
    ]


def test_a_bare_lf_is_the_ending_if_it_is_the_only_one() -> None:
    said = [(0.0, 0, "received", b"PING\n"), (0.1, 0, "sent", b"PONG\n"), (0.2, 0, "received", b"x")]

    assert line_ending(said) == b"\n"
    assert [line[8:] for line in format_lines(said, ending=b"\n")] == ["C: PING", "S: PONG", "C- x"]


@pytest.mark.parametrize("data", [b"", b"none", b"a\r\n", b"a\nb\r\n"])
def test_crlf_is_the_ending_otherwise(data: bytes) -> None:
    assert line_ending([(0.0, 0, "received", data)]) == b"\r\n"


def test_lf_lines_are_cut_at_lf_alone() -> None:
    assert written(("received", b"a\rb\n"), ending=b"\n") == [r"C: a\rb"]


# Bytes that are no text


def test_binary_is_written_in_hex_sixteen_bytes_a_line() -> None:
    assert written(("sent", bytes(range(18)))) == [
        "Sx 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f",
        "Sx 10 11",
    ]


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"caf\xe9 au lait\r\n", r"C: caf\xe9 au lait"),
        (b"\x1b[1mhello\x1b[0m\r\n", r"C: \x1b[1mhello\x1b[0m"),
        (b"abc\xff", r"C- abc\xff"),
        (b"ab\xff\xfe", "Cx 61 62 ff fe"),
    ],
    ids=["latin-1", "escape sequences", "a quarter", "half"],
)
def test_hex_is_for_what_is_over_a_quarter_no_text(data: bytes, line: str) -> None:
    r"""The notation's rule: printable text as it is, the rest \xNN, hex if over a quarter is not text."""
    assert written(("received", data)) == [line]


# Events and remarks


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("client-eof", "C! eof"),
        ("client-reset", "C! reset"),
        ("close", "S! close"),
        ("reset", "S! reset"),
        ("send-eof", "S! send-eof"),
        ("start-tls", "S! start-tls"),
    ],
)
def test_what_a_socket_did_is_an_event(kind: str, line: str) -> None:
    assert written((kind, b"")) == [line]


def test_an_event_parts_what_was_said_before_it_from_what_came_after() -> None:
    assert written(("sent", b"a\r"), ("start-tls", b""), ("sent", b"\nb")) == [r"S- a\r", "S! start-tls", r"S- \nb"]


def test_each_line_of_a_remark_is_a_remark() -> None:
    assert written(("note", b"ValueError: one\ntwo")) == ["# ValueError: one\n# two"]


# What was recorded as sent before it was, and could not be


def test_unsent_bytes_are_not_written() -> None:
    assert written(("sent", b"abc\r\nde"), ("unsent", b"4")) == ["S- abc"]


def test_unsent_bytes_over_several_sends_are_not_written() -> None:
    assert written(("sent", b"ab"), ("sent", b"cd"), ("sent", b"ef"), ("unsent", b"5")) == ["S- a"]


def test_a_send_that_failed_as_a_whole_is_not_written() -> None:
    assert written(("received", b"hi\r\n"), ("sent", b"abc"), ("unsent", b"3"), ("client-reset", b"")) == [
        "C: hi",
        "C! reset",
    ]


def test_unsent_bytes_are_those_of_the_server_though_the_client_spoke_meanwhile() -> None:
    """A blocking send is noted, then blocks; another thread receives; then the server stops, and it was not sent."""
    assert written(("sent", b"abcde"), ("received", b"xyz\r\n"), ("unsent", b"5")) == ["C: xyz"]


# Limits


def test_what_is_over_the_limit_is_counted_and_its_beginning_and_end_are_shown() -> None:
    assert written(("received", b"x" * 3000 + b"end\r\n"), limit=10) == [
        "C- xxxxx",
        "#! ... 2,995 bytes left out, 3,005 in all",
        "C: end",
    ]


def test_a_limit_cuts_between_lines_where_there_are_any() -> None:
    """A line that was cut would look like one that was sent without its ending."""
    said = b"".join(b"line %d\r\n" % number for number in range(10, 99))

    assert written(("received", said), limit=40) == [
        "C: line 10",
        "C: line 11",
        f"#! ... {len(said) - 36} bytes left out, {len(said)} in all",
        "C: line 97",
        "C: line 98",
    ]


def test_a_limit_within_a_character_does_not_make_text_binary() -> None:
    shown, counted, _ = written(("received", "é".encode() * 5 + b"\r\n"), limit=6)

    assert shown.startswith("C- é")
    assert counted == "#! ... 6 bytes left out, 12 in all"


def test_a_datagram_over_the_limit_is_shown_in_part_and_cannot_be_read_back() -> None:
    assert datagrams(("received", b"x" * 3000), limit=5) == ["C: xxxxx", "#! ... 2,995 bytes left out, 3,000 in all"]


def test_datagrams_are_neither_joined_nor_cut() -> None:
    assert datagrams(("received", b"a\nb"), ("received", b""), ("sent", b"c\r\n"), ("sent", b"\xff\xfe")) == [
        r"C: a\nb",
        "C:",
        r"S: c\r\n",
        "Sx ff fe",
    ]


def test_a_datagram_that_could_not_be_sent_is_said_to_be_so() -> None:
    assert datagrams(("sent", b"abc"), ("unsent", b"3")) == ["S: abc", "# not sent"]


def tape_of(recorder: Recorder, peer: object = ("127.0.0.1", 50914)) -> Tape:
    return recorder.add_tape(peer)


def test_datagrams_of_one_peer_have_no_head() -> None:
    tape = tape_of(Recorder(10_000))
    tape.received(b"a")
    tape.sending(b"b")

    assert [line[8:] for line in datagram_lines([tape])] == ["C: a", "S: b"]


def test_datagrams_of_several_peers_stand_under_their_heads_in_the_order_they_passed() -> None:
    recorder = Recorder(10_000)
    first, second = tape_of(recorder), tape_of(recorder, None)
    first.received(b"1")
    second.received(b"2")
    second.received(b"3")
    first.sending(b"4")

    text = [line[8:] if line.startswith("[") else line for line in datagram_lines([first, second])]

    assert text == [
        "== 0  127.0.0.1:50914",
        "C: 1",
        "== 1  an unbound socket",
        "C: 2",
        "C: 3",
        "== 0  127.0.0.1:50914",
        "S: 4",
    ]


def test_what_happened_at_one_tick_of_the_clock_keeps_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """monotonic() moves every 15 ms on Windows."""
    monkeypatch.setattr("pytest_sockserver.originals.original.monotonic", lambda: 7.0)
    tape = tape_of(Recorder(10_000))
    for data in (b"c", b"a", b"b"):
        tape.received(data)

    assert [line[8:] for line in datagram_lines([tape])] == ["C: c", "C: a", "C: b"]


# In messages


def test_the_head_says_who_ended_a_connection_and_how() -> None:
    recorder = Recorder(10_000)
    opened, closed, was_reset = (tape_of(recorder) for _ in range(3))
    closed.note("client-eof")
    closed.note("close")
    was_reset.note("reset")
    closed.began = was_reset.began = closed.ended_at = was_reset.ended_at = 0.0

    assert head(opened) == "== 0  from 127.0.0.1:50914, still open"
    assert head(closed) == "== 1  from 127.0.0.1:50914, closed by the client after 0.000 s"
    assert head(was_reset) == "== 2  from 127.0.0.1:50914, reset by the server after 0.000 s"


@pytest.mark.parametrize(
    ("peer", "shown"),
    [
        (("::1", 7, 0, 0), "[::1]:7"),
        ("", "an unbound socket"),
        (None, "an unbound socket"),
        ("/tmp/client", "/tmp/client"),
        (b"\x00name", "@name"),
    ],
)
def test_peers_of_all_families_are_named(peer: object, shown: str) -> None:
    assert head(tape_of(Recorder(10_000), peer)) == f"== 0  from {shown}, still open"


def test_a_message_holds_the_last_lines_and_counts_those_before() -> None:
    tape = tape_of(Recorder(100_000))
    for number in range(20):
        tape.received(b"%d\r\n" % number)
        tape.sending(b"ok\r\n")

    text = so_far(tape).splitlines()

    assert text[0] == "#! ... 28 lines before"
    assert [line[8:] for line in text[1:]] == [each for n in range(14, 20) for each in (f"C: {n}", "S: ok")]


def test_silence_is_said_to_be_silence() -> None:
    assert so_far(tape_of(Recorder(10_000))) == "nothing was said so far"


def test_lf_conversations_say_so_first() -> None:
    tape = tape_of(Recorder(10_000))
    tape.received(b"hi\n")

    assert [line[-5:] for line in lines(tape)] == ["ol lf", "C: hi"]
    assert next(iter(lines(tape))) == "% eol lf"


def test_a_recording_with_a_gap_says_so_last() -> None:
    tape = tape_of(Recorder(200))
    tape.received(b"hi\r\n")
    tape.received(b"more\r\n")

    last = "#! the recording reached its record_limit: what came later was counted and not kept"
    assert list(lines(tape))[1:] == [last]


def test_a_connection_prints_as_its_conversation_whole(tcp_server: StreamTestServer) -> None:
    tcp_server.handler(lambda conn: conn.send(b"hello " + conn.recv_line()))

    with connect(tcp_server) as client:
        client.sendall(b"x" * 5000 + b"\r\n")
        peer = place(client)
        while client.recv(65536):
            pass
    conn = tcp_server.connections[0]
    conn.wait_closed()

    first, client_says, server_says, end = str(conn).splitlines()
    assert first.startswith(f"== 0  from {peer}, closed by the server after ")
    assert client_says.endswith("] C: " + "x" * 5000)
    assert server_says.endswith("] S: hello " + "x" * 5000)
    assert end.endswith("] S! close")
    assert of_connection(insides.tape(conn)).splitlines()[2].startswith("#! ... ")


# Scripts


def printed(script: Script) -> list[str]:
    return str(script).splitlines()


def test_a_script_prints_as_its_dialogue() -> None:
    script = Script(transport="tcp", names=tuple).send(b"220 mx\r\n")
    script.expect_line(re.compile(rb"(?i)ehlo (?P<me>\S+)")).send(Text(r"250-hello \g<me>\r\n"), b"250 ok\r\n")
    script.expect(b"data\r\n").recv_until(b"\r\n.\r\n").maybe(b"RSET\r\n", b"250 ok\r\n")
    script.repeat(2, Script().expect(b"NOOP\r\n").send(b"250 ", b"ok\r\n")).expect_eof().close()

    assert printed(script) == [
        "S: 220 mx",
        r"C~ (?i)ehlo (?P<me>\S+)",
        r"S: 250-hello \g<me>",
        "S: 250 ok",
        "C: data",
        r"C> \r\n.\r\n",
        "% optional",
        "C: RSET",
        "S: 250 ok",
        "% end",
        "% repeat 2",
        "C: NOOP",
        "S: 250 ok",
        "% end",
        "C! eof",
        "S! close",
    ]


def test_an_empty_script_prints_as_nothing() -> None:
    assert str(Script()) == ""


@pytest.mark.parametrize(
    ("part", "lines"),
    [
        (b"a\r\nb\r\nc", ["S: a", "S: b", "S- c"]),
        (b"", []),
        (bytes(range(18)), ["Sx 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f", "Sx 10 11"]),
        (Text(r"a\r\nb\x20"), ["S: a", r"S- b\x20"]),
        (Text(r"a \g<x> b\r\n"), [r"S: a \g<x> b"]),
        (Text(r"\g<x> "), [r"S- \g<x>\x20"]),
        (Text(r"a\r\n\g<x>"), [r"S- a\r\n\g<x>"]),
        (Hex("48 49"), ["Sx 48 49"]),
        (Hex(r"00 \g<x>" + "ff" * 20), [r"Sx 00 \g<x> " + " ".join(["ff"] * 20)]),
        (Delay(0.5), ["S! delay 0.5s"]),
        (Delay(2), ["S! delay 2s"]),
        (Delay(1e-6), ["S! delay 0.000001s"]),
        (Gate("go"), ["S! wait go"]),
        (OpenGate("go"), ["S! open go"]),
        (Close(), ["S! close"]),
        (Reset(), ["S! reset"]),
        (SendEof(), ["S! send-eof"]),
        (StartTLS(), ["S! start-tls"]),
        (Stall(), ["S! stall"]),
    ],
)
def test_each_part_has_its_line(part: Part, lines: list[str]) -> None:
    assert printed(Script().send(part)) == lines


def test_bytes_that_follow_one_another_are_joined_and_what_stands_between_parts_them() -> None:
    assert printed(Script().send(b"a", b"b\r\n", Text(r"c\r\n"), Delay(1), b"d", Text(r"\g<x>"), b"e", Hex("00"))) == [
        "S: ab",
        "S: c",
        "S! delay 1s",
        "S- d",
        r"S- \g<x>",
        "S- e",
        "Sx 00",
    ]


def test_the_verbs_that_are_events_are_printed_as_such() -> None:
    script = Script().start_tls().open_gate("go").send_eof().expect_reset().reset()

    assert printed(script) == ["S! start-tls", "S! open go", "S! send-eof", "C! reset", "S! reset"]


@pytest.mark.parametrize(
    ("match", "line"),
    [
        (b"a\r\n", "C: a"),
        (b"a", "C- a"),
        (b"a\r\nb\r\n", r"C: a\r\nb"),
        (b"\x00\x01\xff", "Cx 00 01 ff"),
        (Text(r"\g<x>\r\n"), r"C: \g<x>"),
        (Text(r"a"), "C- a"),
        (Hex("<id:2>??61"), "Cx <id:2> ?? 61"),
    ],
)
def test_what_is_demanded_is_one_line_however_long(match: Any, line: str) -> None:
    """Two lines would be two steps, and two requests."""
    assert printed(Script().expect(match)) == [line]


@pytest.mark.parametrize(
    ("match", "line"),
    [
        (re.compile(rb"USER (?P<who>\w+)"), r"C~ USER (?P<who>\w+)"),
        (re.compile("é+".encode()), "C~ é+"),
        (re.compile(rb"(?i)a"), "C~ (?i)a"),
        (re.compile(rb"a", re.IGNORECASE), "C~ (?i)a"),
        (re.compile(rb"(?i)a", re.VERBOSE), "C~ (?ix)a"),
        (re.compile(rb"(?m)^a", re.IGNORECASE | re.ASCII | re.DOTALL), "C~ (?im)^a"),
        (re.compile(rb"a."), "C~ a."),
        (re.compile(rb"a.", re.DOTALL), "C~ a."),
        (re.compile(b"\xffa"), r"C~ \xffa"),
        (re.compile(b"a\rb\nc"), r"C~ a\x0db\x0ac"),
        (re.compile(re.escape(b"a\n\\\n\t ")), "C~ a\\x0a\\\\\\x0a\\\t\\x20"),
        (re.compile(b"a "), r"C~ a\x20"),
        (re.compile(rb"a\\ "), r"C~ a\\\x20"),
        (re.compile(b"  a"), "C~   a"),
        (re.compile(b""), "C~ (?:)"),
        (b"PING", "C: PING"),
        (b"", "C:"),
        (b"\x00\xff", "Cx 00 ff 0d 0a"),
        (Text(r"\g<x>"), r"C: \g<x>"),
        (Hex("00 ??"), "Cx 00 ?? 0d 0a"),
        (ANY, "C~ .*"),
    ],
)
def test_a_line_that_is_demanded_is_printed_as_one(match: Any, line: str) -> None:
    assert printed(Script().expect_line(match)) == [line]


def test_a_dot_that_is_no_newline_stays_none_where_a_newline_may_come() -> None:
    script = Script(transport="tcp", names=tuple)
    script.expect_line(re.compile(rb"(?i)a.b"), ending=b"\r\n").expect_line(re.compile(rb"a\.b"), ending=b"\r\n")

    assert printed(script) == ["C~ (?i)(?-s:a.b)", r"C~ a\.b"]


def test_whatever_comes_is_printed_as_such() -> None:
    assert printed(Script().recv_line().recv_exactly(3).recv_exactly(64)) == [
        "C~ .*",
        "Cx ?? ?? ??",
        "Cx " + " ".join(["??"] * 64),
    ]


def test_lf_scripts_say_so_first() -> None:
    assert printed(Script().send(b"a\n").expect(b"b\n").expect_line(b"c")) == ["% eol lf", "S: a", "C: b", "C: c"]
    assert printed(Script().send(b"a\n").expect(b"b\r\n")) == [r"S- a\n", "C: b"]
    assert printed(Script().expect_line(b"c", ending=b"\n")) == ["% eol lf", "C: c"]
    assert printed(Script().send(Text(r"a\n"))) == ["% eol lf", "S: a"]
    assert printed(Script().repeat(2, Script().send(b"a\n"))) == ["% eol lf", "% repeat 2", "S: a", "% end"]
    assert printed(Script().send(b"\0\n").send(Hex("0a"))) == ["Sx 00 0a", "Sx 0a"]
    assert printed(Script().send(b"a\r").send(b"\nb")) == ["% eol lf", r"S- a\r", "S:", "S- b"]


def test_a_line_with_another_ending_says_so_before() -> None:
    script = Script().expect_line(b"a", ending=b"\r\n").expect_line(b"b", ending=b"\n").send(b"c\n").expect_line(b"d")

    assert printed(script) == ["C: a", "% eol lf", "C: b", "S: c", "C: d"]


def test_each_part_for_a_datagram_server_is_a_line() -> None:
    script = Script(transport="udp", names=tuple).expect(b"a\nb").expect(b"").expect(re.compile(b"c.*")).expect(ANY)
    script.send(b"d\r\ne", b"", b"\x00\xff", Text(r"f"), Hex("00"), Delay(1)).maybe(b"g", b"h")

    assert printed(script) == [
        r"C: a\nb",
        "C:",
        "C~ (?-s:c.*)",
        "C~ .*",
        r"S: d\r\ne",
        "S:",
        "Sx 00 ff",
        "S: f",
        "Sx 00",
        "S! delay 1s",
        "% optional",
        "C: g",
        "S: h",
        "% end",
    ]


def answer(request: bytes) -> bytes:
    return request


@pytest.mark.parametrize(
    ("script", "line"),
    [
        (Script().recv(10), "#! recv(10)"),
        (Script().recv_all(), "#! recv_all()"),
        (Script().recv_exactly(65), "#! recv_exactly(65)"),
        (Script().recv_exactly(0), "#! recv_exactly(0)"),
        (Script().rules(), "#! rules()"),
        (Script().close(notify=False), "#! close(notify=False)"),
        (Script().send(Close(notify=False)), "#! send(Close(notify=False))"),
        (Script().send(b"a", Cut(b"bc", 1)), "#! send(b'a', Cut(b'bc', 1))"),
        (Script().send(Drip(b"bc", 0.5)), "#! send(Drip(b'bc', 0.5))"),
        (Script().expect(b"a", timeout=2), "#! expect(b'a', timeout=2)"),
        (Script().recv_line(max_bytes=9), "#! recv_line(max_bytes=9)"),
        (Script().expect(re.compile(b"a")), "#! expect(re.compile(b'a'))"),
        (Script().expect_line(b"a", ending=b";"), "#! expect_line(b'a', ending=b';')"),
        (Script().expect_line(re.compile(b"a #\n b", re.X)), "#! expect_line(re.compile(b'a #\\n b', re.VERBOSE))"),
        (
            Script().expect_line(re.compile(rb"a. # b", re.X), ending=b"\r\n"),
            r"#! expect_line(re.compile(b'a. # b', re.VERBOSE), ending=b'\r\n')",
        ),
    ],
)
def test_what_the_notation_cannot_say_is_printed_as_its_call(script: Script, line: str) -> None:
    assert printed(script) == [line]


def test_a_call_is_printed_in_one_line() -> None:
    (line,) = printed(Script().send(Hex("00\n01"), Cut(b"", 0)))

    assert line.startswith("#! send(Hex(")


def test_functions_and_contexts_are_printed_by_name() -> None:
    first, second, third = printed(
        Script().send(b"a", answer).expect_line(answer).start_tls(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    )

    assert first.startswith("#! send(b'a', <answer (")
    assert second.startswith("#! expect_line(<answer (")
    assert third.startswith("#! start_tls(<ssl.SSLContext object at ")


def test_within_a_block_only_what_cannot_be_said_is_printed_so() -> None:
    assert printed(Script().repeat(2, Script().expect(b"a").recv(3))) == ["% repeat 2", "C- a", "#! recv(3)", "% end"]
