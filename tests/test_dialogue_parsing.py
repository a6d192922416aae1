"""Reading dialogues: what each sentence of the notation's specification says, and what is said of a wrong line.

A step is compared by its repr, which is the call that makes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pytest_sockserver.errors.exceptions import DialogueError
from pytest_sockserver.errors.location import Location
from pytest_sockserver.scripting.dialogue_reader import Dialogue, Section, parse
from pytest_sockserver.scripting.dialogue_writer import Event, format_datagrams, format_lines, line_ending
from pytest_sockserver.scripting.effects import Close, Delay, Gate, OpenGate, Reset, SendEof, Stall
from pytest_sockserver.scripting.matching import Hex, PatternText, Text
from pytest_sockserver.scripting.script import Script
from pytest_sockserver.scripting.steps import Step
from pytest_sockserver.scripting.tls_effects import StartTLS

EXPECTED = "expected a line that begins with S: S- Sx S! C: C- Cx C~ C> C! == % or #"
RELAXED = settings(deadline=None, max_examples=60)


def read(
    text: str, *, transport: str = "tcp", names: Iterable[str] = (), tls: bool = True, timed: bool = False
) -> Dialogue:
    here = Location()
    return parse(
        text,
        new_script=lambda: Script(transport=transport, names=lambda: names, tls=tls),
        datagrams=transport == "udp",
        timed=timed,
        place=here.at_line,
    )


def section(text: str, **options: Any) -> Section:
    """Return the only section of a text."""
    (only,) = read(text, **options).sections
    return only


def script(text: str, **options: Any) -> Script:
    return section(text, **options).script


def steps(text: str, **options: Any) -> list[str]:
    return [repr(step) for step in script(text, **options).steps]


def refusal(text: str, **options: Any) -> str:
    """Return the whole text of the error, which has the line's number as an attribute too."""
    with pytest.raises(DialogueError) as caught:
        read(text, **options)
    assert str(caught.value).startswith(f"line {caught.value.line}") or caught.value.line == 1
    return str(caught.value)


# Lines


def test_blanks_around_a_line_mean_nothing() -> None:
    assert steps("  \tS: a \t \n\t\tC: b\t") == [r"send(b'a\r\n')", r"expect(b'b\r\n')"]


def test_empty_lines_and_remarks_are_skipped() -> None:
    assert steps("\n# S: no\n   # nor this \x1b\n\n  \nS: a\n#\n[0.5] # not sent") == [r"send(b'a\r\n')"]


def test_a_file_with_the_line_endings_of_windows_reads_the_same() -> None:
    assert steps("S: a\r\n\r\nC: b\r\n# c\r\n") == steps("S: a\n\nC: b\n# c\n")


def test_a_byte_order_mark_is_no_text() -> None:
    assert steps("\ufeffS: a") == [r"send(b'a\r\n')"]


def test_a_carriage_return_that_is_no_line_ending_is_refused() -> None:
    assert refusal("S: a\r\nC: b\nS: c") == (
        "line 1, column 5: expected text, not the control character '\\r': write r before the string?\n"
        "  S: a\ufffd\n"
        "      ^"
    )


@pytest.mark.parametrize("line", ["S: a\0b", "C~ a\x08", "Sx 00 \x1b", "== 0 \x7f", "% end\x0c", "S! wait \x85\x01"])
def test_a_control_character_is_refused_in_every_kind_of_line(line: str) -> None:
    assert "expected text, not the control character" in refusal(line)


def test_characters_that_end_lines_elsewhere_are_text_here() -> None:
    assert steps("S: a\u2028b\x85c") == [repr(Step("send", ("a\u2028b\x85c\r\n".encode(),)))]


def test_a_surrogate_is_no_text() -> None:
    assert refusal("C~ \ud800") == (
        "line 1, column 4: expected text, not the control character '\\ud800': write r before the string?\n"
        "  C~ \ufffd\n"
        "     ^"
    )


@pytest.mark.parametrize("text", ["", "\n \n", "# nothing", "% eol lf", "\ufeff"])
def test_a_text_without_a_line_is_refused(text: str) -> None:
    assert refusal(text) == f"the dialogue is empty: {EXPECTED}"


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("c: hello", "C: hello"),
        ("s: hello", "S: hello"),
        ("S:text", "S: text"),
        ("S : text", "S: text"),
        ("C !eof", "C! eof"),
        ("S!close", "S! close"),
        ("C~.*", "C~ .*"),
        ("SX 00 01", "Sx 00 01"),
        ("Cx??", "Cx ??"),
        ("server: hi", "S: hi"),
        ("Client: hi", "C: hi"),
        ("%eol lf", "% eol lf"),
        ("hello", ""),
        ("S~ .*", ""),
        ("220 mx", ""),
        ("sxyz", ""),
        ("---- tcp_server 127.0.0.1:41013 (1 connection) ----", ""),
    ],
)
def test_a_line_that_begins_with_no_marker_is_refused_and_what_was_meant_is_guessed(line: str, meant: str) -> None:
    guess = f"; did you mean {meant}?" if meant else ""

    assert refusal(f"\n  {line}") == f"line 2: {EXPECTED}{guess}\n  {line}"


def test_a_tab_after_a_marker_is_no_blank() -> None:
    assert refusal("S:\ttext") == f"line 1: {EXPECTED}; did you mean S: \ttext?\n  S:\ttext"


def test_an_error_tells_the_column_in_the_source_and_shows_it() -> None:
    assert refusal("S: a\n\n    C: a\\qb") == (
        "line 3, column 9: unknown escape \\q: expected \\\\ \\r \\n \\t \\0 \\xNN or \\g<name>\n  C: a\\qb\n      ^"
    )


def test_the_caret_stands_right_after_tabs_and_a_time() -> None:
    assert refusal("\t[0.5] S: a\tb\\q").splitlines() == [
        r"line 1, column 14: unknown escape \q: expected \\ \r \n \t \0 \xNN or \g<name>",
        "  [0.5] S: a\tb\\q",
        "            \t ^",
    ]


def test_of_a_long_line_what_stands_around_the_column_is_shown() -> None:
    assert refusal(f"C: {'x' * 200}\\q{'y' * 100}").splitlines() == [
        r"line 1, column 204: unknown escape \q: expected \\ \r \n \t \0 \xNN or \g<name>",
        f"  ...{'x' * 60}\\q{'y' * 38}...",
        f"     {' ' * 60}^",
    ]


def test_a_long_line_without_a_column_is_cut() -> None:
    assert refusal("x" * 200) == f"line 1: {EXPECTED}\n  {'x' * 100}..."


# Who


def test_s_sends_and_c_must_send() -> None:
    assert steps("S: hello\nC: hi") == [r"send(b'hello\r\n')", r"expect(b'hi\r\n')"]


def test_a_colon_adds_the_ending_and_a_dash_adds_nothing() -> None:
    assert steps("S- hello\nC- hi") == ["send(b'hello')", "expect(b'hi')"]


def test_a_colon_alone_is_an_empty_line() -> None:
    assert steps("S:\nC:") == [r"send(b'\r\n')", r"expect(b'\r\n')"]


def test_one_blank_after_the_marker_is_no_text_and_further_ones_are() -> None:
    assert steps("S:   a\nC-  b") == [r"send(b'  a\r\n')", "expect(b' b')"]


def test_a_last_blank_is_written_x20() -> None:
    assert steps("S: a \\x20  \nC- \\x20") == [r"send(b'a  \r\n')", "expect(b' ')"]


def test_a_tab_in_a_text_is_text() -> None:
    assert steps("S: a\tb") == [r"send(b'a\tb\r\n')"]


@pytest.mark.parametrize("marker", ["S-", "C-", "Sx", "Cx"])
def test_what_means_no_byte_is_refused(marker: str) -> None:
    assert refusal(marker) == f"line 1: expected something after {marker}: as it stands it means no byte\n  {marker}"


# Line ending


def test_the_ending_is_crlf_unless_eol_says_otherwise() -> None:
    assert steps("% eol lf\nS: a\nC: b\nC~ c") == [
        r"send(b'a\n')",
        r"expect(b'b\n')",
        r"expect_line(re.compile(b'c', re.DOTALL), ending=b'\n')",
    ]
    assert steps("% eol none\nS: a\nC: b") == ["send(b'a')", "expect(b'b')"]


def test_eol_counts_from_its_line_on() -> None:
    assert steps("S: a\n% eol lf\nS: b\n% eol crlf\nC: c") == [r"send(b'a\r\nb\n')", r"expect(b'c\r\n')"]


def test_eol_within_a_section_is_of_that_section_and_kept_for_it() -> None:
    """A report writes it below the head of each connection that needs it."""
    read_ = read("== 0\n% eol lf\nS: a\n== 1\nS: b\n== 0\nC: c").sections

    assert [repr(each.script.steps) for each in read_] == [r"[send(b'a\n'), expect(b'c\n')]", r"[send(b'b\r\n')]"]


def test_eol_before_the_first_section_is_of_all() -> None:
    read_ = read("% eol lf\n== 0\nS: a\n== 1\nS: b").sections

    assert [repr(each.script.steps) for each in read_] == [r"[send(b'a\n')]", r"[send(b'b\n')]"]


@pytest.mark.parametrize("line", ["% eol", "% eol cr", "% eol LF", "% eol lf lf"])
def test_an_unknown_eol_is_refused(line: str) -> None:
    assert refusal(line) == f"line 1: expected % eol crlf, % eol lf or % eol none\n  {line}"


# Text and hex


def test_text_is_utf_8_with_escapes() -> None:
    assert steps(r"S- naïve ☃ \\ \r\n\t\0\x00\xff") == [
        repr(Step("send", ("naïve ☃ ".encode() + b"\\ \r\n\t\0\x00\xff",)))
    ]


@pytest.mark.parametrize(
    ("line", "said", "column"),
    [
        (r"S: \q", r"unknown escape \q: expected \\ \r \n \t \0 \xNN or \g<name>", 4),
        (r"C- a\x4", r"unknown escape \x4: expected \\ \r \n \t \0 \xNN or \g<name>", 5),
        ("C> a\\", "unknown escape \\: expected \\\\ \\r \\n \\t \\0 \\xNN or \\g<name>", 5),
        (r"S: \g<a b>", r"expected the name of a group in \g<...>, not \g<a b>", 4),
        ("Sx 0", "expected pairs of hex digits, ??, <name:n> or \\g<name>, not '0'", 4),
        ("Cx 00 0g", "expected pairs of hex digits, ??, <name:n> or \\g<name>, not '0g'", 7),
        ("Cx <a:0>", "expected pairs of hex digits, ??, <name:n> or \\g<name>, not '<a:0>'", 4),
        ("Sx 00 ??", "?? says what may come, and cannot be sent", 7),
        ("Sx <a:2>", "<a:2> says what may come, and cannot be sent", 4),
    ],
)
def test_anything_else_is_refused_with_its_column(line: str, said: str, column: int) -> None:
    assert refusal(line) == f"line 1, column {column}: {said}\n  {line}\n  {' ' * (column - 1)}^"


def test_hex_is_pairs_with_blanks_as_one_likes() -> None:
    assert steps("Sx 00ff 0D  0a\nCx AbcD") == [
        r"send(b'\x00\xff\r\n')",
        r"expect(b'\xab\xcd')",
    ]


def test_hex_that_is_received_may_have_holes_and_names_for_them() -> None:
    assert steps("Cx ??00<id:2> ??\nSx \\g<id>ff") == [
        r"expect(Hex(r'?? 00 <id:2> ??'))",
        r"send(Hex(r'\g<id> ff'))",
    ]


# What C lines take


def test_each_c_line_is_a_step_so_that_a_message_names_it() -> None:
    assert steps("C: a\nC- b\nCx 63") == [r"expect(b'a\r\n')", "expect(b'b')", "expect(b'c')"]


def test_c_through_takes_bytes_until_its_text() -> None:
    assert steps(r"C> \r\n.\r\n") == [r"recv_until(b'\r\n.\r\n')"]


def test_c_through_nothing_is_refused() -> None:
    assert refusal("C>") == "line 1: expected after C> the text through which bytes are taken\n  C>"


def test_c_pattern_takes_a_line_with_this_ending_and_its_dot_matches_everything() -> None:
    (step,) = script(r"C~ (?P<who>\w+)\.b\\.*").steps

    assert step.args == (re.compile(rb"(?P<who>\w+)\.b\\.*", re.DOTALL),)
    assert step.options == {"ending": b"\r\n"}


def test_a_pattern_is_utf_8() -> None:
    assert script("C~ é☃").steps[0].args == (re.compile("é☃".encode(), re.DOTALL),)


def test_further_blanks_before_a_pattern_are_part_of_it() -> None:
    assert script("C~   a").steps[0].args == (re.compile(b"  a", re.DOTALL),)


def test_a_pattern_that_is_none_is_refused_where_it_goes_wrong() -> None:
    assert refusal("S: a\n  C~ é(a|b") == (
        "line 2, column 7: expected a pattern, but missing ), unterminated subpattern\n  C~ é(a|b\n      ^"
    )


def test_the_column_is_right_behind_a_name() -> None:
    assert refusal("C~ (?P<a>.)\nC~ \\g<a>*(") == (
        "line 2, column 10: expected a pattern, but missing ), unterminated subpattern\n  C~ \\g<a>*(\n           ^"
    )


def test_a_pattern_that_warns_is_refused_where_warnings_are_errors() -> None:
    assert refusal("C~ [[a]").startswith(
        "line 1, column 4: expected a pattern, but Possible nested set at position 1\n"
    )


def test_an_empty_pattern_is_refused() -> None:
    assert refusal("C~") == "line 1: expected a pattern after C~; an empty line is C:\n  C~"


def test_without_line_endings_a_pattern_has_no_line_to_take() -> None:
    assert refusal("% eol none\nC~ a") == (
        "line 2: with % eol none there is no line that C~ could take: expected C: C- Cx or C>\n  C~ a"
    )


def test_a_name_in_any_c_line_demands_what_was_kept() -> None:
    text = "C~ (?P<tag>.*)\nC: \\g<tag> x\nC- \\g<tag>\nCx \\g<tag> 00\nC~ \\g<tag>+\nC> \\g<tag>\\n"

    assert script(text).steps[1:] == [
        Step("expect", (Text(r"\g<tag> x\r\n"),)),
        Step("expect", (Text(r"\g<tag>"),)),
        Step("expect", (Hex(r"\g<tag> 00"),)),
        Step("expect_line", (PatternText(r"\g<tag>+", ending=b"\r\n"),), {"ending": b"\r\n"}),
        Step("recv_until", (Text(r"\g<tag>\n"),)),
    ]


def test_a_name_in_a_pattern_stands_for_all_of_what_was_kept() -> None:
    step = script("C~ (?P<tag>.*)\nC~ \\g<tag>+").steps[1]

    assert step.args[0].compiled(lambda name: b"a.").pattern == rb"(?:a\.)+"


def test_an_escaped_backslash_before_g_is_no_name() -> None:
    assert script(r"C~ \\g<x>").steps[0].args == (re.compile(rb"\\g<x>", re.DOTALL),)
    assert refusal(r"C~ \g") == "line 1, column 4: expected a pattern, but bad escape \\g\n  C~ \\g\n     ^"


# Names


@pytest.mark.parametrize(
    ("line", "who"),
    [
        (r"S: \g<a>", "send"),
        (r"Sx \g<a>", "send"),
        (r"C: \g<a>", "expect"),
        (r"C~ \g<a>", "expect_line"),
        (r"C> \g<a>", "recv_until"),
    ],
)
def test_an_unknown_name_is_refused_at_its_line(line: str, who: str) -> None:
    assert refusal(f"S: x\nC~ (?P<b>.)\nS: y\n{line}", names=["c"]) == (
        f"line 4: {who}() names the group \\g<a>, which nothing before it captures: known so far: b, c\n  {line}"
    )


def test_an_unknown_name_within_a_block_is_refused_at_its_line() -> None:
    assert refusal("% repeat 2\nC: a\n% optional\nC: b\nS: \\g<x>\n% end\n% end").startswith("line 5: send() names")


def test_names_may_come_from_outside_and_from_a_block() -> None:
    text = "S: \\g<given>\n% repeat 2\nC~ (?P<a>.*)\n% optional\nCx <b:2>\nS: \\g<a>\\g<given>\n% end\n% end\nS: \\g<b>"

    assert steps(text, names=["given"])[-1] == r"send(Text(r'\g<b>\r\n'))"


def test_names_belong_to_their_section() -> None:
    assert refusal("== 0\nC~ (?P<a>.)\n== 1\nS: \\g<a>").startswith("line 4: send() names the group \\g<a>")


def test_the_same_name_may_be_captured_again() -> None:
    assert len(steps("C~ (?P<a>.)\nS: \\g<a>\nC~ (?P<a>..)\nS: \\g<a>")) == 4


# Sending


def test_s_lines_that_follow_one_another_are_one_send() -> None:
    assert steps("S: a\n# between\n\nS- b\nSx 00") == [r"send(b'a\r\nb\x00')"]


def test_names_stay_beside_the_bytes_of_one_send() -> None:
    assert steps("C~ (?P<n>.)\nS: a\nS: b\nS: hi \\g<n> \\x41\nS- c\nSx 64\nSx \\g<n>")[1:] == [
        r"send(b'a\r\nb\r\n', Text(r'hi \g<n> A\r\n'), b'cd', Hex(r'\g<n>'))"
    ]


@pytest.mark.parametrize(
    ("line", "step"),
    [
        ("S! send-eof", "send_eof()"),
        ("S! start-tls", "start_tls()"),
        ("S! delay 500ms", "send(Delay(0.5))"),
        ("S! delay 1.5s", "send(Delay(1.5))"),
        ("S! delay .5s", "send(Delay(0.5))"),
        ("S! wait go", "send(Gate('go'))"),
        ("S! open go", "open_gate('go')"),
        ("C! eof", "expect_eof()"),
        ("C! reset", "expect_reset()"),
    ],
)
def test_an_event_parts_the_lines_around_it(line: str, step: str) -> None:
    assert steps(f"S: a\n{line}\nS: b") == [r"send(b'a\r\n')", step, r"send(b'b\r\n')"]


@pytest.mark.parametrize(
    ("line", "step"), [("S! close", "close()"), ("S!  reset", "reset()"), ("S! stall", "send(Stall())")]
)
def test_some_events_are_the_last(line: str, step: str) -> None:
    assert steps(f"S: a\n{line}") == [r"send(b'a\r\n')", step]
    assert refusal(f"{line}\nS: a\nS: b") == f"line 2: send() would never be reached: nothing follows {step}\n  S: a"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "S! sendeof",
            "expected S! with close, reset, send-eof, start-tls, delay, wait, open, stall; did you mean S! send-eof?",
        ),
        ("S!", "expected S! with close, reset, send-eof, start-tls, delay, wait, open, stall"),
        ("S! close now", "expected nothing after S! close, not now"),
        ("S! delay 5", "expected a time with its unit, as in S! delay 500ms or S! delay 0.5s, not '5'"),
        ("S! delay 5 s", "expected a time with its unit, as in S! delay 500ms or S! delay 0.5s, not '5 s'"),
        ("S! delay", "expected a time with its unit, as in S! delay 500ms or S! delay 0.5s, not ''"),
        ("S! delay 5000s", "Delay() expected seconds from 0 to 60, not 5000.0"),
        ("S! wait", "expected the name of a gate after S! wait, without blanks, not ''"),
        ("S! open a b", "expected the name of a gate after S! open, without blanks, not 'a b'"),
        ("C! close", "expected C! eof or C! reset"),
        ("C!", "expected C! eof or C! reset"),
    ],
)
def test_an_event_that_is_none_is_refused(line: str, said: str) -> None:
    assert refusal(line) == f"line 1: {said}\n  {line}"


def test_what_the_transport_cannot_do_is_refused_at_its_line() -> None:
    assert refusal("S: a\nS! reset", transport="unix") == (
        "line 2: a unix stream cannot be reset: its client would see a plain end of stream; use close()\n  S! reset"
    )
    assert refusal("S! start-tls", tls=False) == (
        "line 1: start_tls() has no context for StartTLS(): give it one, or give the server tls=\n  S! start-tls"
    )


def test_a_step_knows_its_line_and_a_send_its_first() -> None:
    found = script("\nS: a\nS: b\n% repeat 2\nC: c\n% end\nS! close").steps

    assert [step.origin.lineno for step in found] == [2, 4, 7]
    assert found[1].steps[0].origin.lineno == 5


def test_without_places_a_step_stands_where_the_text_was_given() -> None:
    (only,) = parse("S: a", new_script=Script).sections

    assert only.script.steps[0].origin.code.co_filename == __file__


# Optional and repeated


def test_an_optional_block_is_one_step_and_may_hold_several() -> None:
    assert steps("% optional\nC: a\nS: b\nC~ c\nS: d\n% end\nC: e") == [
        r"maybe(expect(b'a\r\n'), send(b'b\r\n'), expect_line(re.compile(b'c', re.DOTALL), ending=b'\r\n'), "
        r"send(b'd\r\n'))",
        r"expect(b'e\r\n')",
    ]


@pytest.mark.parametrize("line", ["S: a", "S! close", "C! eof", "C> a", "% repeat 2", "% optional"])
def test_an_optional_block_begins_with_what_tells_whether_it_is_meant(line: str) -> None:
    assert refusal(f"S: x\n% optional\n{line}\nC: b\n% end") == (
        f"line 3: % optional of line 2 expected to begin with C: C- Cx or C~, not with {line}\n  {line}"
    )


def test_an_optional_block_may_not_start_like_what_follows_it() -> None:
    assert refusal("% optional\nC: ab\n% end\nC- a") == (
        "line 4: expect() may start like the optional step before it: b'ab\\r\\n' and b'a' cannot be told apart by "
        "their first bytes\n  C- a"
    )


def test_a_repeated_block_is_one_step() -> None:
    assert steps("% repeat 3\nC: a\nS: b\nS: c\n% end\nS: d") == [
        r"repeat(3, expect(b'a\r\n'), send(b'b\r\nc\r\n'))",
        r"send(b'd\r\n')",
    ]
    assert steps("% repeat 1\nC- a\n% end") == ["repeat(1, expect(b'a'))"]


def test_blocks_may_stand_in_blocks() -> None:
    assert steps("% repeat 2\n  C: a\n  % optional\n    C: b\n  % end\n% end") == [
        r"repeat(2, expect(b'a\r\n'), maybe(expect(b'b\r\n')))"
    ]


@pytest.mark.parametrize("line", ["% repeat", "% repeat 0", "% repeat -1", "% repeat x", "% repeat 2 3", "% repeat ²"])
def test_a_number_of_times_is_one_or_more(line: str) -> None:
    assert refusal(f"{line}\nC: a\n% end") == (
        f"line 1: expected a number of times, 1 or more, as in % repeat 3, not {line}\n  {line}"
    )


@pytest.mark.parametrize("option", ["% optional", "% repeat 2"])
def test_a_block_holds_lines(option: str) -> None:
    assert refusal(f"{option}\n# nothing\n% end") == (
        f"line 1: {option} holds nothing: expected lines before the % end of line 3\n  {option}"
    )


@pytest.mark.parametrize("option", ["% optional", "% repeat 2", "% rules"])
def test_a_block_that_is_not_closed_is_named(option: str) -> None:
    assert refusal(f"S: x\n{option}\nC: a") == f"line 2: {option} is not closed: expected % end\n  {option}"


@pytest.mark.parametrize("option", ["% optional", "% repeat 2", "% rules"])
def test_a_section_does_not_begin_within_a_block(option: str) -> None:
    assert refusal(f"== 0\n{option}\nC: a\n== 1  from 127.0.0.1:50914") == (
        f"line 4: == 1 stands within {option} of line 2: expected % end before it\n  == 1  from 127.0.0.1:50914"
    )


def test_an_end_closes_something() -> None:
    assert refusal("% end") == (
        "line 1: % end closes nothing: expected % optional, % repeat n or % rules before it\n  % end"
    )


@pytest.mark.parametrize(
    ("line", "guess"),
    [("% repaet 2", "; did you mean % repeat?"), ("% foo", ""), ("%", ""), ("% end if", "; did you mean % end?")],
)
def test_an_unknown_option_is_refused(line: str, guess: str) -> None:
    assert refusal(line) == (
        f"line 1: expected % eol crlf|lf|none, % optional, % repeat n, % rules or % end{guess}\n  {line}"
    )


# Rules


def test_rules_are_exchanges_beside_the_steps() -> None:
    text = "C: a\n% rules\nC~ (?i)noop|rset\nS: 250 ok\nC: PING\nCx 00 ??\nS- x\nS! close\n% end\nS: b"
    found = section(text)

    assert [repr(step) for step in found.script.steps] == [r"expect(b'a\r\n')", r"send(b'b\r\n')"]
    assert [(each.match, each.parts, each.line, each.origin.lineno) for each in found.exchanges] == [
        (PatternText("(?i)noop|rset", ending=b"\r\n"), (b"250 ok\r\n",), 3, 3),
        (b"PING\r\n", (), 5, 5),
        (Hex("00 ??"), (b"x", Close()), 6, 6),
    ]


def test_an_exchange_may_do_all_that_a_server_can() -> None:
    text = "% rules\nC: a\nS: b\nS: c\nS! delay 1s\nS! wait x\nS! open y\nS! start-tls\nS! send-eof\nS! stall\n"
    text += "C: d\nS! reset\n% end"

    assert [each.parts for each in section(text).exchanges] == [
        (b"b\r\nc\r\n", Delay(1), Gate("x"), OpenGate("y"), StartTLS(), SendEof(), Stall()),
        (Reset(),),
    ]


def test_rules_take_lines_with_the_ending_of_the_section() -> None:
    assert section("% rules\nC: a\n% end").framing is not None
    assert section("% eol none\n% rules\nC: a\n% end").framing is None
    assert section("C: a").framing is None
    assert section("% eol lf\n% rules\nC~ a\n% end").exchanges[0].match == PatternText("a", ending=b"\n")


def test_s_lines_around_rules_follow_one_another() -> None:
    assert steps("S: a\n% rules\nC: x\nS: y\n% end\nS: b") == [r"send(b'a\r\nb\r\n')"]


def test_several_blocks_of_rules_add_up() -> None:
    found = section("% rules\nC: a\n% end\nS: x\n% rules\nC: b\n% end")

    assert [each.match for each in found.exchanges] == [b"a\r\n", b"b\r\n"]


@pytest.mark.parametrize("line", ["S: a", "S! close"])
@pytest.mark.parametrize("before", ["", "% rules\nC: a\n% end\n"])
def test_an_exchange_begins_with_a_c_line(line: str, before: str) -> None:
    at = len(before.splitlines()) + 1

    assert refusal(f"{before}% rules\n{line}\n% end") == (
        f"line {at + 1}: % rules of line {at} expected to begin with C: C- Cx or C~, not with {line}\n  {line}"
    )


@pytest.mark.parametrize("line", ["C! eof", "C> a"])
def test_what_is_no_request_begins_no_exchange(line: str) -> None:
    assert refusal(f"% rules\n{line}\n% end") == (
        f"line 2: {line[:2]} cannot stand in % rules: expected C: C- Cx or C~, then the answer\n  {line}"
    )


@pytest.mark.parametrize("line", ["% optional", "% repeat 2", "% rules"])
def test_rules_hold_no_block(line: str) -> None:
    assert refusal(f"% rules\n{line}") == (
        f"line 2: {line} stands within % rules of line 1: expected % end before it\n  {line}"
    )


@pytest.mark.parametrize("block", ["% optional", "% repeat 2"])
def test_rules_stand_in_no_block(block: str) -> None:
    assert refusal(f"{block}\nC: a\n% rules") == (
        f"line 3: % rules stands within {block} of line 1: expected % end before it\n  % rules"
    )


def test_an_answer_after_its_end_is_refused_at_its_line() -> None:
    assert refusal("% rules\nC: a\nS! close\nS: b\n% end") == (
        "line 4: send() expected nothing after Close(): b'b\\r\\n' would never be reached\n  S: b"
    )
    assert refusal("% rules\nC: a\nS! reset\n% end", transport="unix").startswith("line 3: send() cannot do Reset()")


def test_an_exchange_may_use_the_names_of_its_whole_section() -> None:
    text = "% rules\nC~ (?P<tag>\\S+) NOOP\nS: \\g<tag> \\g<user> \\g<given>\nC: \\g<user>\n% end\nC~ (?P<user>.*)"

    assert [each.parts for each in section(text, names=["given"]).exchanges] == [
        (Text(r"\g<tag> \g<user> \g<given>\r\n"),),
        (),
    ]


@pytest.mark.parametrize(("line", "at"), [("C: b\nS: \\g<x>", 4), ("C: \\g<x>", 3), ("C~ \\g<x>", 3)])
def test_an_unknown_name_in_an_exchange_is_refused(line: str, at: int) -> None:
    wrong = line.splitlines()[-1]

    assert refusal(f"% rules\nC~ (?P<a>.)\n{line}\n% end", names=["b"]) == (
        f"line {at}: \\g<x> names what nothing in this section captures: it knows a, b\n  {wrong}"
    )


def test_where_nothing_is_captured_no_name_is_known() -> None:
    assert refusal("% rules\nC: a\nS: \\g<x>\n% end") == (
        "line 3: \\g<x> names what nothing in this section captures: it knows nothing\n  S: \\g<x>"
    )


# Connections


def test_without_sections_all_is_the_first_connection() -> None:
    found = read("\nS: a")

    assert (found.numbered, found.rest, len(found.sections)) == (False, None, 1)
    assert (found.sections[0].index, found.sections[0].line) == (0, 2)


def test_sections_are_numbered_and_one_may_be_of_all_further_ones() -> None:
    found = read(
        "== 1\nS: b\n== *  all others\nS: c\n==0 from 127.0.0.1:50914, reset by the server after 0.004 s\nS: a"
    )

    assert found.numbered
    assert [(each.index, each.line, repr(each.script.steps)) for each in found.sections] == [
        (0, 5, r"[send(b'a\r\n')]"),
        (1, 1, r"[send(b'b\r\n')]"),
    ]
    assert found.rest is not None
    assert (found.rest.index, repr(found.rest.script.steps)) == (None, r"[send(b'c\r\n')]")


def test_a_section_for_all_may_stand_alone() -> None:
    found = read("== *\nS: a")

    assert (found.numbered, found.sections) == (True, ())
    assert found.rest is not None


def test_a_section_may_say_nothing() -> None:
    assert [each.script.steps for each in read("== 0\n== 1").sections] == [[], []]


def test_a_section_may_be_taken_up_again() -> None:
    found = read("== 0\nS: a\n== 1\nS: b\n== 0\nS: c\nC: d\n== 1\nC: e").sections

    assert [repr(each.script.steps) for each in found] == [
        r"[send(b'a\r\nc\r\n'), expect(b'd\r\n')]",
        r"[send(b'b\r\n'), expect(b'e\r\n')]",
    ]


@pytest.mark.parametrize(
    ("text", "line", "missing"), [("== 0\n== 2\n== 4", 2, 1), ("== 3", 1, 0), ("== *\n== 1", 2, 0)]
)
def test_a_missing_section_is_named(text: str, line: int, missing: int) -> None:
    alone = "; write == 0 for == 3 if it is the only one" if text == "== 3" else ""
    assert refusal(text) == (
        f"line {line}: == {missing} is missing: connections are counted from 0 on, without a gap{alone}\n"
        f"  {text.splitlines()[line - 1]}"
    )


@pytest.mark.parametrize("line", ["==", "== x", "== -1", "=== 0", "== 0from", "== ²"])
def test_a_section_has_an_index(line: str) -> None:
    assert refusal(line) == (
        f"line 1: expected == and the number of a connection, from 0 on, or == * for all further ones\n  {line}"
    )


def test_lines_before_the_first_section_belong_to_no_connection() -> None:
    assert refusal("\nS: a\n== 0") == "line 3: expected == 0 before line 2: it belongs to no connection\n  == 0"


# Datagrams


def test_each_line_is_a_datagram() -> None:
    assert steps("C: a\nC- b\nCx 00 ??\nS: c\nS- d\nSx 65\nS: \\g<n>", transport="udp", names=["n"]) == [
        "expect(b'a')",
        "expect(b'b')",
        "expect(Hex(r'00 ??'))",
        r"send(b'c', b'd', b'e', Text(r'\g<n>'))",
    ]


def test_a_pattern_matches_a_datagram_whole() -> None:
    found = script("C~ (?P<a>.*)\\n\nC~ \\g<a>", transport="udp").steps

    assert found[0] == Step("expect", (re.compile(rb"(?P<a>.*)\n", re.DOTALL),))
    assert found[1] == Step("expect", (PatternText(r"\g<a>", ending=b""),))


def test_a_datagram_may_be_empty() -> None:
    assert steps("C:\nC-\nCx\nS:\nS-\nSx", transport="udp") == [*["expect(b'')"] * 3, "send(b'', b'', b'')"]


def test_datagrams_have_delays_and_gates() -> None:
    assert steps("C: a\nS! delay 1ms\nS! wait x\nS: b\nS! open y", transport="udp") == [
        "expect(b'a')",
        "send(Delay(0.001))",
        "send(Gate('x'))",
        "send(b'b')",
        "open_gate('y')",
    ]


@pytest.mark.parametrize("word", ["close", "reset", "send-eof", "start-tls", "stall"])
def test_datagrams_have_no_end(word: str) -> None:
    assert refusal(f"C: a\nS! {word}", transport="udp") == (
        f"line 2: S! {word} has no meaning for datagrams: expected delay, wait or open\n  S! {word}"
    )


@pytest.mark.parametrize("line", ["C> a", "C! eof", "C! reset"])
def test_datagrams_have_no_stream(line: str) -> None:
    assert refusal(line, transport="udp") == (
        f"line 1: {line[:2]} has no meaning for datagrams: each C line is a whole one\n  {line}"
    )


def test_datagrams_have_no_line_ending() -> None:
    assert steps("% eol none\nC: a", transport="udp") == ["expect(b'a')"]
    assert refusal("% eol lf\nC: a", transport="udp") == (
        "line 1: datagrams have no line ending: expected no % eol\n  % eol lf"
    )


@pytest.mark.parametrize("before", ["", "% repeat 2\n", "== 0\n"])
def test_before_the_first_datagram_there_is_nobody_to_answer(before: str) -> None:
    at = len(before.splitlines()) + 1

    assert refusal(f"{before}S: a\nC: b", transport="udp") == (
        f"line {at}: send() expected a datagram before it: its sender is who is answered; expect() one first\n  S: a"
    )


def test_a_block_may_answer_the_datagram_before_it() -> None:
    assert steps("C: a\n% repeat 2\nS: b\nC: c\n% end", transport="udp") == [
        "expect(b'a')",
        "repeat(2, send(b'b'), expect(b'c'))",
    ]


def test_datagrams_have_rules() -> None:
    found = section("% rules\nC~ a.*\nS: b\nS: c\nC:\n% end", transport="udp")

    assert [(each.match, each.parts) for each in found.exchanges] == [
        (PatternText("a.*", ending=b""), (b"b", b"c")),
        (b"", ()),
    ]
    assert found.framing is None


# Time


def test_a_time_is_not_compared() -> None:
    assert steps("[0.25] S: a\n  [1]C: b\n[.5]   S: c") == [
        r"send(b'a\r\n')",
        r"expect(b'b\r\n')",
        r"send(b'c\r\n')",
    ]


def test_what_stands_in_brackets_is_a_number() -> None:
    assert refusal("[soon] S: a") == "line 1: expected seconds in brackets, as in [0.250], not [soon]\n  [soon] S: a"
    assert refusal("[-1] S: a") == "line 1: expected seconds in brackets, as in [0.250], not [-1]\n  [-1] S: a"


def test_a_time_alone_says_nothing() -> None:
    assert refusal("[0.5] ") == f"line 1: {EXPECTED} after the time\n  [0.5]"


def test_timed_s_lines_leave_no_earlier() -> None:
    text = "[0.5] S: a\nS: b\n[0.25] S: c\n[1] S: d\n[1] S! close"

    assert [(repr(step), step.at) for step in script(text, timed=True).steps] == [
        (r"send(b'a\r\nb\r\nc\r\n')", 0.5),
        (r"send(b'd\r\n')", 1.0),
        ("close()", 1.0),
    ]
    assert [step.at for step in script(text).steps] == [0.0, 0.0]
    assert [step.at for step in script("S: a\nC: b\nS! close", timed=True).steps] == [0.0, 0.0, 0.0]


def test_a_client_is_not_timed() -> None:
    text = "[0.5] C: a\n[0.6] C! eof\n[1] % repeat 2\n[1] C: b\n[2] S! open x\n% end"
    found = script(text, timed=True).steps

    assert [step.at for step in found] == [0.0, 0.0, 0.0]
    assert [step.at for step in found[2].steps] == [0.0, 2.0]


# What cannot be read back


@pytest.mark.parametrize("line", ["#! recv(100)", "[0.5]  #!recv(100)"])
def test_what_the_notation_cannot_say_is_refused(line: str) -> None:
    assert (
        refusal(f"S: a\n{line}\nS: b")
        == f"line 2: #! marks what the notation cannot express, or a report has left out (-vv): recv(100)\n  {line}"
    )


def test_a_report_with_a_gap_is_not_read_as_a_whole() -> None:
    report = "\n".join(format_lines([(0.0, 0, "received", b"x" * 3000 + b"end\r\n")], limit=10))

    assert refusal(report) == (
        "line 2: #! marks what the notation cannot express, or a report has left out (-vv): "
        "... 2,995 bytes left out, 3,005 in all\n"
        "  #! ... 2,995 bytes left out, 3,005 in all"
    )


# The four conversations of the specification


def smtp_by_hand() -> Script:
    by_hand = Script(transport="tcp", names=tuple)
    by_hand.send(b"220 mx\r\n")
    by_hand.expect_line(re.compile(rb"(?i)ehlo (?P<me>\S+)", re.DOTALL), ending=b"\r\n")
    by_hand.send(Text(r"250-hello \g<me>\r\n"), b"250 8BITMIME\r\n")
    by_hand.expect_line(re.compile(rb"(?i)mail from:<a@x>.*", re.DOTALL), ending=b"\r\n").send(b"250 ok\r\n")
    by_hand.expect_line(re.compile(rb"(?i)rcpt to:<b@x>", re.DOTALL), ending=b"\r\n").send(b"250 ok\r\n")
    by_hand.expect(b"data\r\n").send(b"354 go\r\n").recv_until(b"\r\n.\r\n").send(b"250 queued\r\n")
    by_hand.expect(b"QUIT\r\n").send(b"221 bye\r\n").close()
    return by_hand


def test_smtp_with_chatter_by_rules() -> None:
    found = section(
        r"""
        S: 220 mx
        C~ (?i)ehlo (?P<me>\S+)
        S: 250-hello \g<me>
        S: 250 8BITMIME
        C~ (?i)mail from:<a@x>.*
        S: 250 ok
        C~ (?i)rcpt to:<b@x>
        S: 250 ok
        C: data
        S: 354 go
        C> \r\n.\r\n
        S: 250 queued
        C: QUIT
        S: 221 bye
        S! close
        % rules
        C~ (?i)noop|rset
        S: 250 ok
        % end
        """
    )

    assert found.script.steps == smtp_by_hand().steps
    assert [(each.match, each.parts) for each in found.exchanges] == [
        (PatternText("(?i)noop|rset", ending=b"\r\n"), (b"250 ok\r\n",))
    ]


def imap_by_hand() -> Script:
    by_hand = Script(transport="tcp", names=tuple)
    by_hand.send(b"* PREAUTH ready\r\n")
    by_hand.expect_line(re.compile(rb"(?P<tag>\S+) CAPABILITY", re.DOTALL), ending=b"\r\n")
    by_hand.send(b"* CAPABILITY IMAP4rev1\r\n", Text(r"\g<tag> OK done\r\n"))
    by_hand.expect_line(re.compile(rb"(?P<tag>\S+) APPEND in \{17\}", re.DOTALL), ending=b"\r\n").send(b"+ go\r\n")
    by_hand.expect(b"Subject: t\r\n").expect(b"\r\n").expect(b"hey\r\n")
    by_hand.send(b"* FLAGS (\\Seen)\r\n", Text(r"\g<tag> OK done\r\n"))
    by_hand.expect_line(re.compile(rb"(?P<tag>\S+) LOGOUT", re.DOTALL), ending=b"\r\n")
    by_hand.send(b"* BYE\r\n", Text(r"\g<tag> OK done\r\n")).close()
    return by_hand


def test_imap_with_random_tags() -> None:
    text = r"""
        S: * PREAUTH ready
        C~ (?P<tag>\S+) CAPABILITY
        S: * CAPABILITY IMAP4rev1
        S: \g<tag> OK done
        C~ (?P<tag>\S+) APPEND in \{17\}
        S: + go
        C: Subject: t
        C:
        C: hey
        S: * FLAGS (\\Seen)
        S: \g<tag> OK done
        C~ (?P<tag>\S+) LOGOUT
        S: * BYE
        S: \g<tag> OK done
        S! close
    """

    assert script(text).steps == imap_by_hand().steps


def modbus_by_hand() -> Script:
    by_hand = Script(transport="tcp", names=tuple)
    by_hand.expect(Hex("<tid:2> 00 00 00 06 01 03 00 0a 00 01"))
    by_hand.send(Hex(r"\g<tid> 00 00 00 05 01 03 02 00 0a"))
    by_hand.expect(Hex("?? ?? 00 00 00 06 01 06 ?? ?? ?? ??")).close()
    return by_hand


def test_modbus_in_binary() -> None:
    text = r"""
        Cx <tid:2> 00 00 00 06 01 03 00 0a 00 01
        Sx \g<tid> 00 00 00 05 01 03 02 00 0a
        # a write to any register, hung up on
        Cx ?? ?? 00 00 00 06 01 06 ?? ?? ?? ??
        S! close
    """

    assert script(text).steps == modbus_by_hand().steps


def dns_by_hand() -> Script:
    wrong = bytes.fromhex("00 00 81 00 00 01 00 00 00 00 00 00 01 61 00 00 01 00 01")
    by_hand = Script(transport="udp", names=tuple)
    by_hand.expect(Hex("<id:2> 01 00 00 01 00 00 00 00 00 00 01 61 00 00 01 00 01"))
    by_hand.send(wrong, Hex(r"\g<id> 81 00 00 01 00 00 00 00 00 00 01 61 00 00 01 00 01"))
    by_hand.expect(Hex("<id:2> 01 00 00 01 00 00 00 00 00 00 01 62 00 00 01 00 01"))
    return by_hand


def test_dns_over_udp() -> None:
    text = r"""
        Cx <id:2> 01 00 00 01 00 00 00 00 00 00 01 61 00 00 01 00 01
        # a wrong id, then the right one
        Sx 00 00 81 00 00 01 00 00 00 00 00 00 01 61 00 00 01 00 01
        Sx \g<id> 81 00 00 01 00 00 00 00 00 00 01 61 00 00 01 00 01
        # the next query is dropped
        Cx <id:2> 01 00 00 01 00 00 00 00 00 00 01 62 00 00 01 00 01
    """

    assert script(text, transport="udp").steps == dns_by_hand().steps


def test_the_conversations_of_the_documentation_are_these() -> None:
    page = (Path(__file__).parents[1] / "docs/reference/dialogue.md").read_text(encoding="utf-8")
    sections, conversations = page.partition("## Several")[2], page.partition("## Four conversations")[2]

    (two_and_more,) = re.findall(r"```text\n(.*?)```", sections.partition("## Datagrams")[0], re.DOTALL)
    smtp, imap, modbus, dns = re.findall(r"```text\n(.*?)```", conversations, re.DOTALL)

    assert len(read(two_and_more).sections) == 2
    assert script(smtp).steps == smtp_by_hand().steps
    assert script(imap).steps == imap_by_hand().steps
    assert script(modbus).steps == modbus_by_hand().steps
    assert script(dns, transport="udp").steps == dns_by_hand().steps


# There and back

TEXTS = st.text(st.sampled_from("ab \t\\\r\n\0xg<>é☃\u2028\x85\xa0\ufeff%#=:[]"), min_size=1, max_size=12)
SAID = st.one_of(
    TEXTS.map(str.encode),
    st.builds(bytes.__add__, TEXTS.map(str.encode), st.sampled_from([b"\r\n", b"\n", b"\r"])),
    st.binary(min_size=1, max_size=40),
)
HAPPENED = st.one_of(
    st.tuples(st.sampled_from(["sent", "received"]), SAID),
    st.tuples(st.sampled_from(["send-eof", "start-tls", "client-eof"]), st.just(b"")),
    st.tuples(st.just("note"), st.just(b"a remark\nof two lines")),
)
LAST = st.sampled_from([[], [("close", b"")], [("reset", b"")], [("client-reset", b"")]])
CONVERSATIONS = st.builds(list.__add__, st.lists(HAPPENED, max_size=8), LAST)

VERBS = {
    "send_eof": "send-eof",
    "start_tls": "start-tls",
    "close": "close",
    "reset": "reset",
    "expect_eof": "client-eof",
    "expect_reset": "client-reset",
}


def merged(happened: Iterable[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """Return what happened, with what one side said in a row as one."""
    found: list[tuple[str, bytes]] = []
    for kind, data in happened:
        if data and found and found[-1][0] == kind:
            found[-1] = kind, found[-1][1] + data
        elif kind != "note":
            found.append((kind, data))
    return found


def said_by(steps: Iterable[Step]) -> list[tuple[str, bytes]]:
    """Return what the steps of a script say and demand, as what would be recorded of it."""
    happened = []
    for step in steps:
        if step.verb in ("send", "expect"):
            happened += [("sent" if step.verb == "send" else "received", part) for part in step.args]
        else:
            happened.append((VERBS[step.verb], b""))
    return merged(happened)


def written(index: int, happened: list[tuple[str, bytes]]) -> str:
    events: list[Event] = [(at / 1000, index, kind, data) for at, (kind, data) in enumerate(happened)]
    ending = line_ending(events)
    eol = ["% eol lf"] if ending == b"\n" else []
    return "\n".join([f"== {index}  from 127.0.0.1:50914, still open", *eol, *format_lines(events, ending=ending)])


@RELAXED
@given(st.lists(CONVERSATIONS, min_size=1, max_size=3))
@example([[("received", b"a \n"), ("sent", b"\n")], [("sent", b" \r\n#! x\r\n== 0\r\n")]])
@example([[("sent", b"a"), ("note", b"x"), ("sent", b"\\g<a>\r\n")]])
def test_a_conversation_that_was_written_reads_back(conversations: list[list[tuple[str, bytes]]]) -> None:
    """The same bytes and events in the same order, for each connection."""
    text = "\n".join(written(index, happened) for index, happened in enumerate(conversations))

    assert [said_by(each.script.steps) for each in read(text).sections] == [merged(each) for each in conversations]


@RELAXED
@given(st.lists(st.tuples(st.sampled_from(["sent", "received"]), st.one_of(SAID, st.just(b""))), max_size=8))
def test_datagrams_that_were_written_read_back_each_by_itself(happened: list[tuple[str, bytes]]) -> None:
    happened = [("received", b"first"), *happened]
    events: list[Event] = [(at / 1000, 0, kind, data) for at, (kind, data) in enumerate(happened)]

    found = script("\n".join(format_datagrams(events)), transport="udp").steps

    assert [(step.verb, data) for step in found for data in step.args] == [
        ("send" if kind == "sent" else "expect", data) for kind, data in happened
    ]


NAMED = ["\\g<a>", "\\g<b>"]
WORDS = st.lists(
    st.sampled_from(["x", " ", "\\x20", "\\r\\n", "\\n", "\\\\", "\\0", "\\xff", "é", "\t", "#", *NAMED]), max_size=5
)
TEXT_LINES = st.builds("{} {}.".format, st.sampled_from(["S:", "S-", "C:", "C-", "C>"]), WORDS.map("".join))
PAIRS = st.lists(st.sampled_from(["00", "61", "FF", "0d 0a", "20", *NAMED]), min_size=1, max_size=40).map(" ".join)
HEX_LINES = st.builds("{} {}".format, st.sampled_from(["Sx", "Cx"]), PAIRS)
LINES = st.one_of(
    TEXT_LINES,
    HEX_LINES,
    st.sampled_from(["Cx ?? 00 <a:2>", "C~ a.*", "C~ (?i)é(?P<b>\\w+)\\ ?", "C~ \\g<a>+\\\\g<x>", "C~   [ \t]x"]),
)
EVENTS = st.sampled_from(
    ["S! send-eof", "S! start-tls", "S! delay 20ms", "S! wait x", "S! open x", "C! eof", "C! reset", "% eol lf"]
)
BLOCKS = st.builds(
    "{}\nC: begin\n{}\n% end\nC: after".format,
    st.sampled_from(["% optional", "% repeat 3"]),
    st.lists(st.one_of(LINES, EVENTS), max_size=3).map("\n".join),
)
DIALOGUES = st.lists(st.one_of(LINES, EVENTS, BLOCKS), min_size=1, max_size=8).map("\n".join)


@RELAXED
@given(DIALOGUES, st.sampled_from(["", "\nS! close", "\nS! reset", "\nS! stall"]))
@example("% eol lf\nC~ a\n% eol crlf\nC~ b\nC: c", "")
@example("C~ a\n% optional\n% eol lf\nC~ b\n% end\nC~ c", "")
@example("S- a\\r\\n\\g<a>\nS: \\g<b>\nS- \\nb", "")
@example("C- a\\r\\nb\\r\\n\nC> \\x20", "")
def test_a_script_prints_as_a_dialogue_that_reads_as_the_same_steps(text: str, last: str) -> None:
    found = script(f"{text}{last}\nS! open last", names=["a", "b"])

    again = script(str(found), names=["a", "b"])

    assert again.steps == found.steps


@RELAXED
@given(st.lists(st.one_of(TEXT_LINES.filter(lambda line: line[:2] != "C>"), HEX_LINES), max_size=8))
def test_a_script_of_datagrams_does_so_too(lines: list[str]) -> None:
    text = "\n".join(["C~ first.*", *lines, "S! delay 1s", "C:", "S:", "Sx"])
    found = script(text, transport="udp", names=["a", "b"])

    assert script(str(found), transport="udp", names=["a", "b"]).steps == found.steps


def test_a_timed_script_does_so_too() -> None:
    text = "S: a\n[0.000001] S: b\n[0.25] S: c\n[0.1] S: d\nC: e\n[12.5] S! close"
    found = script(text, timed=True)

    assert str(found).splitlines()[:3] == ["S: a", "[0.000001] S: b", "[0.25] S: c"]
    assert script(str(found), timed=True).steps == found.steps


@RELAXED
@given(
    st.lists(
        st.one_of(
            DIALOGUES,
            st.text(max_size=20),
            st.builds(str.__add__, st.sampled_from(["C~ ", "S! ", "== ", "% ", "[", "Cx ", "C!"]), st.text(max_size=9)),
        ),
        max_size=4,
    ),
    st.sampled_from(["tcp", "unix", "udp"]),
)
def test_any_text_is_read_or_refused_with_its_line(parts: list[str], transport: str) -> None:
    text = "\n".join(parts)

    try:
        read(text, transport=transport)
    except DialogueError as error:
        assert 1 <= error.line <= max(1, len(text.split("\n")))
        assert str(error).startswith(("line ", "the dialogue is empty"))
