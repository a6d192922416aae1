"""What large captures and long texts cost: a report what it shows, a dialogue's text a time linear in its length.

What a report looks at is counted: bytes that are judged or written, lines that are made, events that are joined.  Where
only the time tells, the size is such that quadratic code took ten seconds or more, and linear code takes some ten
milliseconds: the bound of two seconds holds on a loaded machine.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pytest_sockserver import ANY, SendEof, lines
from pytest_sockserver.connection import transcript
from pytest_sockserver.recording.recorder import Recorder, Tape
from pytest_sockserver.scripting import dialogue_writer, notation
from pytest_sockserver.scripting.buffer import Buffer
from pytest_sockserver.scripting.dialogue_reader import Dialogue, parse
from pytest_sockserver.scripting.framing import Cutter
from pytest_sockserver.scripting.matching import Hex, Shape, Text, described, shape_difference
from pytest_sockserver.scripting.rules import Rule
from pytest_sockserver.scripting.script import Script

from . import insides
from . import reading as readers
from .plugin_runs import Runner

MIB = 1 << 20


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Runner:
    return Runner(pytester, monkeypatch)


@contextmanager
def in_linear_time(seconds: float = 2.0) -> Iterator[None]:
    began = time.thread_time()  # of the processor: others may load the machine
    yield
    assert time.thread_time() - began < seconds


def tape_of(*chunks: tuple[str, bytes], recorder: Recorder | None = None) -> Tape:
    tape = (recorder or Recorder(1 << 40)).add_tape(("127.0.0.1", 50914))
    for kind, data in chunks:
        (tape.received if kind == "received" else tape.sending)(data)
    return tape


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of what is judged or written."""
    sizes: list[int] = []

    def counting(function: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
        def counted(data: bytes) -> Any:
            sizes.append(len(data))
            return function(data)

        return counted

    monkeypatch.setattr(dialogue_writer, "is_binary", counting(dialogue_writer.is_binary))
    monkeypatch.setattr(dialogue_writer, "escaped", counting(dialogue_writer.escaped))
    return sizes


# Reports


@pytest.mark.parametrize("pieces", [1, 1000])
@pytest.mark.parametrize(
    "data",
    [b"a line of text\r\n" * (MIB // 2), b"no line" * MIB, bytes(8 * MIB), os.urandom(8 * MIB), b"\n" * 8 * MIB],
    ids=["lines", "one line", "zeros", "random", "empty lines"],
)
def test_report_of_8_mib_looks_at_what_it_shows(data: bytes, pieces: int, looked_at: list[int]) -> None:
    size = len(data) // pieces + 1
    tape = tape_of(*(("received", data[at : at + size]) for at in range(0, len(data), size)))

    shown = "\n".join(transcript.lines(tape))

    assert sum(looked_at) <= 4 * transcript.SAID_LIMIT
    assert f"{len(data):,} in all" in shown

    looked_at.clear()
    transcript.so_far(tape)
    assert sum(looked_at) <= 4 * 200


def test_what_is_shown_of_a_large_text_is_its_beginning_and_end() -> None:
    tape = tape_of(("sent", b"first\n"), ("sent", b"0123456789abcde\n" * MIB), ("sent", b"last\n"))

    said = [line.partition("] ")[2] or line for line in transcript.lines(tape)]

    assert said[:3] == ["% eol lf", "S: first", "S: 0123456789abcde"]
    assert said[-2:] == ["S: 0123456789abcde", "S: last"]
    assert "#! ... 16,775,232 bytes left out, 16,777,227 in all" in said


def test_form_is_judged_by_what_is_shown() -> None:
    """A file of text around an image is shown as text: none of the image is shown."""
    tape = tape_of(("received", b"a\r\n" * 1000 + os.urandom(MIB) + b"b\r\n" * 1000))

    said = {line.partition("] ")[2] for line in transcript.lines(tape)}

    assert said == {"C: a", "C: b", ""}


def test_message_of_500_000_events_makes_the_lines_that_it_shows_or_counts(looked_at: list[int]) -> None:
    tape = tape_of(*[("received", b"ping\r\n"), ("sent", b"pong\r\n")] * 250_000)

    said = transcript.so_far(tape).splitlines()

    assert said[0] == "#! ... over 988 lines before"
    assert [line.partition("] ")[2] for line in said[1:]] == ["C: ping", "S: pong"] * 6
    assert len(looked_at) < 5 * transcript.LINES_COUNTED


def test_lines_backwards_are_the_lines() -> None:
    for tape in (
        tape_of(),
        tape_of(("received", b"a\nb\n"), ("sent", b""), ("sent", b"c\n" * 2000), ("received", b"rest")),
        tape_of(("received", os.urandom(5000)), ("sent", b"x"), ("sent", b"y\r\n")),
    ):
        tape.unsent(min(1, tape.sent_count))
        tape.note("client-eof")
        tape.note("note", b"two\nlines")

        assert list(transcript.lines(tape, backwards=True))[::-1] == list(transcript.lines(tape))


def test_lines_of_datagrams_backwards_are_the_lines() -> None:
    recorder = Recorder(1 << 40)
    tapes = [recorder.add_tape(("127.0.0.1", port)) for port in (1, 2, 3)]
    for number in (0, 0, 1, 2, 2, 0):
        tapes[number].received(bytes([number]) * 3000)
        tapes[number].sending(b"answer")

    assert list(transcript.datagram_lines(tapes, backwards=True))[::-1] == list(transcript.datagram_lines(tapes))


def test_message_of_10_000_peers_makes_the_lines_that_it_shows_or_counts(looked_at: list[int]) -> None:
    recorder = Recorder(1 << 40)
    tapes = [tape_of(("received", b"x"), recorder=recorder) for _ in range(10_000)]

    def said(**options: Any) -> Iterator[str]:
        return transcript.datagram_lines(tapes, **options)

    shown = transcript.ends_of(said, 2, 2, "lines more")

    assert [line.partition("] ")[2] or line for line in shown] == [
        "== 0  127.0.0.1:50914",
        "C: x",
        "#! ... over 996 lines more",
        "== 9999  127.0.0.1:50914",
        "C: x",
    ]
    assert len(looked_at) < 3 * transcript.LINES_COUNTED


def test_up_to_1000_lines_are_counted() -> None:
    def said(count: int) -> Callable[..., Iterator[str]]:
        return lambda backwards=False: map(str, range(count)[:: -1 if backwards else 1])

    assert transcript.ends_of(said(4), 2, 2, "more") == ["0", "1", "2", "3"]
    assert transcript.ends_of(said(5), 2, 2, "more") == ["0", "1", "#! ... 1 more", "3", "4"]
    assert transcript.ends_of(said(1000), 2, 2, "more") == ["0", "1", "#! ... 996 more", "998", "999"]
    assert transcript.ends_of(said(1001), 2, 2, "more") == ["0", "1", "#! ... over 996 more", "999", "1000"]
    assert transcript.ends_of(said(1001), 0, 1, "before") == ["#! ... over 999 before", "1000"]


def test_failing_test_with_16_mib_and_many_requests(run: Runner) -> None:
    said = run(
        """
        import socket
        from pytest_sockserver import ANY, lines
        from client import connect

        def test_it(tcp_server):
            tcp_server.framing = lines(b"\\n")
            tcp_server.on(ANY).reply(b"pong\\n")
            with connect(tcp_server) as client:
                for _ in range(2000):
                    client.sendall(b"ping\\n")
                    client.recv(10)
                client.sendall((b"x" * 1023 + b"\\n") * (1 << 14))
                client.shutdown(socket.SHUT_WR)
                while client.recv(1 << 20):
                    pass
            assert False
        """
    )

    assert "(1 connection) ---" in said.stdout
    assert "#! ... over 960 lines more, shown by -vv ..." in said.stdout
    assert len(said.stdout) < 20_000


# Messages


def test_mismatch_at_the_end_of_16_mib() -> None:
    data = b"a" * 16 * MIB
    buffer = Buffer()
    buffer.feed(data[:-1] + b"b")

    with in_linear_time(0.5), pytest.raises(readers.Mismatch, match=r"differs at byte 16,777,215: b'b' is not b'a'"):
        next(readers.expect(buffer, data))


@pytest.mark.parametrize("at", [0, 1, 2, 3, 7, 8, 126, 127])
def test_first_difference(at: int) -> None:
    data = bytes(range(128))
    other = bytearray(data)
    other[at] ^= 0x80
    other[127] ^= 0x80 if at != 127 else 0

    assert Shape(data).differs(bytes(other)) == at
    assert Shape(data).differs(bytes(other[5:]), 5) == (at if at >= 5 else 127)
    assert Shape(data, frozenset([at])).differs(bytes(other)) == (127 if at != 127 else -1)
    assert Shape(data).differs(bytes(other[:at])) == -1
    assert Shape(data[:at]).differs(bytes(other)) == -1


def test_message_shows_the_beginning_of_a_long_template() -> None:
    assert described(Hex("a5 " * 1000)) == f"Hex({'a5 ' * 40!r})... (3,000 characters)".replace("('", "(r'")
    assert described(Text("x" * 1000)) == f"Text(r'{'x' * 120}')... (1,000 characters)"
    assert shape_difference(Shape(b"A"), b"a") == "differs at byte 0: b'a' is not b'A'; equal but for case"


def test_nearest_rules_are_described_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    from pytest_sockserver.errors.location import Location
    from pytest_sockserver.scripting import rules
    from pytest_sockserver.scripting.times import checked_times

    departures: list[Any] = []
    monkeypatch.setattr(rules, "departure", lambda shape, data: departures.append(shape) or "")
    declared = [Rule(n, b"%d" % n, checked_times(None), (), Location()) for n in range(1, 1001)]

    assert len(rules.nearest(declared, b"7")) == len(departures) == rules.NEAREST


# What is recorded


def test_bytes_taken_back_are_removed_in_linear_time() -> None:
    tape = tape_of()
    for _ in range(100_000):
        tape.sending(b"0123456789")
        tape.unsent(3)
    tape.unsent(8)

    with in_linear_time():
        assert tape.joined("sent") == b"0123456" * 99_998 + b"012345"


def test_event_that_was_not_kept_is_not_looked_for_among_all() -> None:
    class Counted(list[Any]):
        reads = 0

        def __getitem__(self, at: Any) -> Any:
            Counted.reads += 1
            return super().__getitem__(at)

    tape = tape_of(*[("sent", b"x")] * 1000)
    tape.recorder.room = -1
    lost = tape.sending(b"lost")
    tape.events = Counted(tape.events)

    tape.sent_less(lost, 1)

    assert Counted.reads <= 4
    assert (tape.sent_count, len(tape.events)) == (1001, 1000)


def test_requests_of_a_connection_are_not_looked_for_among_all(tcp_server: Any) -> None:
    import socket

    tcp_server.framing = lines(b"\n")
    tcp_server.on(ANY).reply(b"ok\n")
    for number in range(3):
        with socket.create_connection(tcp_server.address) as client:
            client.sendall(b"%d\n" % number)
            assert client.recv(10) == b"ok\n"

    assert [each.requests for each in tcp_server.connections] == [[b"0\n"], [b"1\n"], [b"2\n"]]
    recorder = insides.recorder(tcp_server)
    recorder.requests.clear()  # nothing looks there
    assert [each.requests for each in tcp_server.connections] == [[b"0\n"], [b"1\n"], [b"2\n"]]
    tcp_server.clear()
    assert tcp_server.connections == []


# Dialogues


def parsed(text: str, **options: Any) -> Dialogue:
    return parse(text, new_script=lambda: Script(), **options)


LONG = 1 << 20


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("Cx " + "a5 " * LONG, id="Cx"),
        pytest.param("Sx " + "a5" * LONG, id="Sx without blanks"),
        pytest.param("Cx " + "a5 ?? " * (LONG >> 4), id="Cx with holes"),
        pytest.param("S: " + r"\xff" * (LONG >> 2), id="escapes sent"),
        pytest.param("C- " + r"\r\n" * (LONG >> 2), id="escapes demanded"),
        pytest.param("C> " + r"\x00" * (LONG >> 2), id="escapes of a delimiter"),
        pytest.param("C~ " + r"\x00" * (LONG >> 4), id="escapes of a pattern"),
        pytest.param("S: " + "ä" * LONG, id="text"),
        pytest.param("S: a line\n" * (LONG >> 4), id="lines sent"),
        pytest.param("C: a line\n" * (LONG >> 5), id="lines demanded"),
        pytest.param("Cx <a:1>\n" + "C: x\nS: \\g<a>\n" * (LONG >> 7), id="names"),
        pytest.param("% rules\nC: x\n" + "S: a\nS! delay 1ms\n" * (LONG >> 8) + "% end", id="parts of an answer"),
        pytest.param("% rules\n" + "C: x\nS: a\n" * (LONG >> 8) + "% end", id="answers"),
    ],
)
def test_text_is_read_in_linear_time(text: str) -> None:
    with in_linear_time(5.0):
        parsed(text)


def test_hex_and_escapes_are_read_as_before() -> None:
    (section,) = parsed("Cx a5 A5b6\t??<n:2>00 \\g<n> ff").sections
    assert section.script.steps[0].args[0].source == "a5 a5 b6 ?? <n:2> 00 \\g<n> ff"
    assert notation.read_hex(" \t", holes=True) == ()
    assert notation.read_hex("?? ??", holes=True) == (notation.Hole(1), notation.Hole(1))
    assert notation.read_text(r"a\x00\\\g<n>\tb\0") == (b"a\0\\", notation.Name("n"), b"\tb\0")


@pytest.mark.parametrize(
    ("text", "column"),
    [("a5 b", 3), ("a 5", 0), ("a5b5c", 4), ("a5 xx", 3), ("a5 b ??", 3), ("00" * 50_000 + "0", 100_000)],
)
def test_what_is_no_pair_is_refused_with_its_column(text: str, column: int) -> None:
    with pytest.raises(notation.NotationError) as caught:
        notation.read_hex(text, holes=True)
    assert caught.value.column == column


def test_answer_is_judged_part_by_part() -> None:
    with pytest.raises(ValueError, match=r"line 5: send\(\) expected no bytes after SendEof\(\)"):
        parsed("% rules\nC: x\nS! send-eof\nS! delay 1ms\nS: too late\n% end")
    with pytest.raises(ValueError, match=r"line 4: send\(\) expected nothing after Close\(\)"):
        parsed("% rules\nC: x\nS! close\nS! delay 1ms\n% end")
    (section,) = parsed("% rules\nC: x\nS: a\nS: b\nS! send-eof\n% end").sections
    assert section.exchanges[0].parts == (b"a\r\nb\r\n", SendEof())


def test_conversation_is_written_in_linear_time() -> None:
    tape = tape_of(*[("received", b"ask\r\n" * 100), ("sent", os.urandom(1000))] * 2000)
    with in_linear_time(10.0):
        said = list(transcript.lines(tape, limit=None))
    assert len(said) == 2000 * (100 + 63)


def test_script_of_many_parts_is_written_in_linear_time() -> None:
    script = Script().send(*[b"0123456789" * 10] * 50_000, Text("and text"), b"\r\n")
    with in_linear_time():
        assert str(script) == f"S: {'0123456789' * 500_000}and text"


@pytest.mark.parametrize(
    ("data", "binary"),
    [
        (b"", False),
        (b"\0", True),
        (b"abc\0", False),
        (b"abc\0\0", True),
        (b"\r\n\t", False),
        (b"a\x7f", True),
        ("ä".encode() * 3 + b"\0", False),
        ("ä".encode() * 2 + b"\0", True),  # judged by characters: a third is none
        (b"\xff\xfeab", True),
        (b"\xffabc", False),
        (b"\xe4\xb8abcdef", False),
        (b"\xe4\xb8abcde", True),
    ],
)
def test_is_binary(data: bytes, binary: bool) -> None:
    assert notation.is_binary(data) is binary


# Framings


def test_frame_in_tiny_pieces_is_cut_in_linear_time() -> None:
    cutter = Cutter(lines(b"\n"), 1 << 30)
    with in_linear_time(10.0):
        for _ in range(1 << 17):
            assert cutter.feed(b"ab") == []
        assert [len(each) for each in cutter.feed(b"\n")] == [(1 << 18) + 1]
