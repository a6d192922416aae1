"""Matching, cutting and holding bytes, without any socket: ``scripting/`` but for the notation."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_sockserver import ANY
from pytest_sockserver.faults import modifiers
from pytest_sockserver.scripting import effects, parts, tls_effects
from pytest_sockserver.scripting.buffer import Buffer
from pytest_sockserver.scripting.matching import checked_match, described, difference, matches, shortened
from pytest_sockserver.scripting.parts import checked_parts, parts_of

from . import reading as readers

# Few letters, so that delimiters, their beginnings and repetitions come about.
LETTERS = st.lists(st.sampled_from([b"a", b"b", b"\r", b"\n"]), max_size=40).map(b"".join)


def segmented(data: bytes, cuts: list[int]) -> list[bytes]:
    """Cut ``data`` at these places, as far as they are places of it."""
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    return [data[start:end] for start, end in pairwise(places)]


CUTS = st.lists(st.integers(0, 40))


# Buffer


@given(LETTERS, st.sampled_from([b"\n", b"\r\n", b"ab", b"aab", b"\r\n\r\n"]), CUTS)
@example(b"\r\n\r\r\n\r\n", b"\r\n\r\n", [1, 2, 3, 4, 5, 6])
def test_find_answers_as_soon_as_the_delimiter_is_there_however_the_bytes_arrive(
    data: bytes, delimiter: bytes, cuts: list[int]
) -> None:
    buffer, seen = Buffer(), b""

    for segment in segmented(data, cuts):
        buffer.feed(segment)
        seen += segment

        at = seen.find(delimiter)
        assert buffer.find(delimiter) == (-1 if at < 0 else at + len(delimiter))


@given(
    st.lists(
        st.one_of(
            LETTERS,
            st.integers(0, 12),
            st.tuples(st.just("find"), st.sampled_from([b"\n", b"ab"])),
        )
    )
)
def test_a_buffer_behaves_as_plain_bytes_that_lose_their_front(steps: list[Any]) -> None:
    """Whatever was asked before, the next answer is about what is there now."""
    buffer, model = Buffer(), b""

    for step in steps:
        if isinstance(step, bytes):
            buffer.feed(step)
            model += step
        elif isinstance(step, int):
            assert buffer.take(step) == model[:step]
            model = model[step:]
        else:
            at = model.find(step[1])
            assert buffer.find(step[1]) == (-1 if at < 0 else at + len(step[1]))
        assert bytes(buffer) == model
        assert len(buffer) == len(model)


def test_taken_bytes_are_bytes_and_stay_what_they_are() -> None:
    buffer = Buffer()
    buffer.feed(b"abcdef")

    taken = buffer.take(3)
    buffer.feed(b"ghi")
    buffer.take(100)

    assert type(taken) is bytes
    assert taken == b"abc"


# The reading verbs, fed by hand

VERBS: dict[str, Callable[[Buffer], Any]] = {
    "recv_exactly": lambda buffer: readers.recv_exactly(buffer, 7),
    "recv_until": lambda buffer: readers.recv_until(buffer, b"\r\n", 100),
    "recv_until max_bytes": lambda buffer: readers.recv_until(buffer, b"ab", 7),
    "recv_all": readers.recv_all,
    "expect": lambda buffer: readers.expect(buffer, b"ab\r\n"),
    "expect_line": lambda buffer: readers.expect_line(buffer, re.compile(rb"[ab]+"), 100),
    "expect_line max_bytes": lambda buffer: readers.expect_line(buffer, ANY, 7),
    "expect_eof": readers.expect_eof,
}


def performed(verb: Callable[[Buffer], Any], segments: list[bytes]) -> tuple[str, object]:
    """Drive a verb with segments and then the end of the stream; return what came of it, and what was left."""
    buffer, waiting = Buffer(), list(segments)
    steps = verb(buffer)
    try:
        while True:
            next(steps)
            if waiting:
                buffer.feed(waiting.pop(0))
            else:
                assert not buffer.ended, "it wants more after the end"
                buffer.ended = True
    except StopIteration as done:
        value = done.value[0] if isinstance(done.value, tuple) else done.value
        return f"returned {value!r}", bytes(buffer) + b"".join(waiting)
    except (readers.Ended, readers.EndedWithin, readers.Mismatch) as error:
        return type(error).__name__, b""


@pytest.mark.parametrize("name", VERBS)
@given(data=LETTERS, cuts=CUTS)
@example(data=b"aaaaaaaaaaaa\r\n", cuts=[])
@example(data=b"aaaaaab\r\n", cuts=[6])
def test_a_reading_verb_says_the_same_however_the_bytes_are_cut(name: str, data: bytes, cuts: list[int]) -> None:
    whole = performed(VERBS[name], [data] if data else [])

    assert performed(VERBS[name], segmented(data, cuts)) == whole
    assert performed(VERBS[name], [data[index : index + 1] for index in range(len(data))]) == whole


def test_a_verb_tells_whether_its_unit_has_begun() -> None:
    """A handler waits for the start of a unit without a deadline, and for the rest of it with one."""
    buffer = Buffer()
    steps = readers.recv_exactly(buffer, 3)

    begun = [next(steps)]
    buffer.feed(b"a")
    begun.append(next(steps))

    assert begun == [False, True]


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (lambda buffer: readers.expect(buffer, b"PING\r\n"), "expected b'PING\\r\\n'\n  got b'PIGN' "
         "(differs at byte 2: b'G' is not b'N')"),
        (lambda buffer: readers.expect(buffer, b"PIGN!"), "expected b'PIGN!'\n  got b'PIGN' and then the end of the "
         "stream"),
        (lambda buffer: readers.recv_until(buffer, b"\n", 4), "expected b'\\n' within 4 bytes\n  got b'PIGN'"),
        (lambda buffer: readers.expect_line(buffer, b"PING", 99), "expected a line matching b'PING'\n  got b'PIGN' and "
         "then the end of the stream"),
        (readers.expect_eof, "expected the end of the stream\n  got b'PIGN'"),
    ],
    ids=["another byte", "too short", "no delimiter", "no line", "not the end"],
)  # fmt: skip
def test_a_mismatch_says_what_was_expected_and_what_came(steps: Callable[[Buffer], Any], message: str) -> None:
    buffer = Buffer()
    buffer.feed(b"PIGN")
    buffer.ended = True

    with pytest.raises(readers.Mismatch) as raised:
        next(steps(buffer))

    assert str(raised.value) == message


# Matching


def long_enough(data: bytes) -> bool:
    return len(data) > 3


@pytest.mark.parametrize(
    ("match", "meant", "not_meant"),
    [
        (b"PING", b"PING", b"PING\r\n"),
        (re.compile(rb"P.NG"), b"PING", b"PINGPONG"),
        (re.compile(rb"a|ab"), b"ab", b"abc"),
        (long_enough, b"PING", b"PIN"),
        (ANY, b"", None),
    ],
    ids=["bytes", "pattern", "alternatives", "predicate", "ANY"],
)
def test_a_match_means_the_whole_of_the_bytes(match: Any, meant: bytes, not_meant: bytes | None) -> None:
    assert matches(checked_match(match), meant)
    assert not_meant is None or not matches(checked_match(match), not_meant)


def test_an_empty_match_of_a_pattern_counts() -> None:
    assert matches(re.compile(rb".*"), b"")


@pytest.mark.parametrize(
    ("match", "message"),
    [
        ("PING", "expected bytes, not the text 'PING': write b'PING'"),
        (re.compile("P.NG"), "expected a pattern of bytes, not of text: write re.compile(rb'P.NG')"),
        (7, "expected bytes, a compiled pattern of bytes, Hex, Text, a predicate or ANY, not 7"),
        (None, "expected bytes, a compiled pattern of bytes, Hex, Text, a predicate or ANY, not None"),
    ],
)
def test_what_cannot_be_a_match_is_refused(match: Any, message: str) -> None:
    with pytest.raises(TypeError) as raised:
        checked_match(match)

    assert str(raised.value) == message


@pytest.mark.parametrize("mutable", [bytearray(b"PING"), memoryview(b"PING")])
def test_mutable_bytes_are_copied_when_declared(mutable: Any) -> None:
    match = checked_match(mutable)

    assert type(match) is bytes
    assert match == b"PING"


def test_any_is_one_thing_through_copies_and_pickles() -> None:
    assert copy.deepcopy(ANY) is ANY
    assert copy.copy(ANY) is ANY
    assert pickle.loads(pickle.dumps(ANY)) is ANY
    assert repr(ANY) == "ANY"


def test_a_match_is_described_as_it_was_written() -> None:
    line = long_enough.__code__.co_firstlineno

    assert described(b"a\n") == r"b'a\n'"
    assert described(ANY) == "ANY"
    assert described(re.compile(rb"\d+")) == r"the pattern rb'\d+'"
    assert described(re.compile(rb"a.b", re.IGNORECASE | re.DOTALL)) == "the pattern rb'(?i)a.b'"
    assert described(long_enough) == f"the predicate long_enough (test_buffer_matching_parts.py:{line})"
    assert described(len) == "the predicate len"


@pytest.mark.parametrize(
    ("expected", "got", "words"),
    [
        (b"PING", b"PIGN", "differs at byte 2: b'G' is not b'N'"),
        (b"PING", b"PI", "ends after 2 of 4 bytes"),
        (b"PING", b"", "ends after 0 of 4 bytes"),
        (b"PING", b"PINGING", "has 3 bytes more"),
        (b"PING", b"PING", "equal"),
    ],
)
def test_a_difference_is_told_in_words(expected: bytes, got: bytes, words: str) -> None:
    assert difference(expected, got) == words


def test_long_bytes_are_shortened_with_their_length_told() -> None:
    assert shortened(b"x" * 120) == repr(b"x" * 120)
    assert shortened(b"x" * 1201) == f"{b'x' * 120!r}... (1,201 bytes)"


# Parts


@pytest.mark.parametrize(
    ("reply", "parts"),
    [
        (b"a", [b"a"]),
        ([b"a", b"b"], [b"a", b"b"]),
        ((), []),
        (b"", [b""]),
        (bytearray(b"a"), [b"a"]),
        ((part for part in [b"a", memoryview(b"b")]), [b"a", b"b"]),
    ],
    ids=["one", "several", "none", "empty", "bytearray", "generator"],
)
def test_a_reply_is_one_part_several_or_none(reply: Any, parts: list[bytes]) -> None:
    assert list(parts_of(reply, "f")) == parts


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (None, "f returned None: return the bytes of the reply, a list of replies, or () for no reply"),
        (7, "f returned 7: expected bytes, a list of parts, or () for no reply"),
        ("a", "f expected bytes, not the text 'a': write b'a', or encode it"),
        ([b"a", 7], "f expected bytes, not 7"),
        ([b"a", "b"], "f expected bytes, not the text 'b': write b'b', or encode it"),
    ],
)
def test_what_is_no_reply_is_refused(reply: Any, message: str) -> None:
    with pytest.raises(TypeError) as raised:
        list(parts_of(reply, "f"))

    assert str(raised.value) == message


def test_parts_that_are_no_bytes_are_named() -> None:
    with pytest.raises(TypeError) as raised:
        checked_parts([b"a", None], "send()")

    assert str(raised.value) == "send() expected bytes, not None"


@pytest.mark.parametrize("transport", sorted(parts.EVERYWHERE))
def test_the_names_in_a_refusal_are_those_of_the_parts_that_fit(transport: str) -> None:
    shown = [
        each.__name__
        for home in (effects, tls_effects, modifiers)
        for each in vars(home).values()
        if isinstance(each, type)
        and each.__module__ == home.__name__
        and issubclass(each, (parts.Effect, parts.Modifier))
        and transport in each.fits
    ]

    assert parts._CAN_SHOW[transport].split() == sorted(shown)
