"""Sweeps: one test for each byte of a reply, and for each step of a script, seen by a plain client."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from pytest_sockserver import (
    Close,
    Cut,
    Delay,
    Reset,
    Script,
    ScriptMismatch,
    SendEof,
    SockServer,
    Stall,
    StreamTestServer,
    Text,
    UnsupportedFault,
)
from pytest_sockserver.faults import Split
from pytest_sockserver.sweeps import breaks, closes, cuts, resets, splits

from .peers import connect, datagram_client, read_exactly
from .plugin_runs import ROOT

REPLY = b"+OK\r\n"


def values(sweep: list[Any]) -> list[Any]:
    return [value for each in sweep for value in each.values]


def ids(sweep: list[Any]) -> list[str]:
    return [each.id for each in sweep]


def steps(sweep: list[Any]) -> list[str]:
    return [", ".join(map(repr, script.steps)) for script in values(sweep)]


# Of a reply


def test_cuts_are_before_each_byte() -> None:
    assert values(cuts(REPLY)) == [Cut(REPLY, n) for n in (0, 1, 2, 3, 4)]
    assert ids(cuts(REPLY)) == ["0-of-5", "1-of-5", "2-of-5", "3-of-5", "4-of-5"]


def test_splits_are_between_each_two_bytes() -> None:
    assert values(splits(REPLY)) == [Split(REPLY, n) for n in (1, 2, 3, 4)]
    assert ids(splits(REPLY)) == ["1+4", "2+3", "3+2", "4+1"]
    assert values(splits(b"ab", pause=0.5)) == [Split(b"ab", 1, pause=0.5)]


def test_a_reply_of_one_byte_is_cut_to_nothing() -> None:
    assert values(cuts(b"!")) == [Cut(b"!", 0)]


@pytest.mark.parametrize("cut", cuts(REPLY))
@pytest.mark.parametrize(("end", "seen"), [(Close(), "end"), (SendEof(), "end"), (Reset(), "reset")], ids=repr)
def test_each_cut_is_what_a_client_gets(tcp_server: StreamTestServer, cut: Cut, end: Any, seen: str) -> None:
    tcp_server.on(b"PING\r\n").reply(cut, end)

    assert said_to_client(tcp_server, b"PING\r\n") == (REPLY[: cut.n], seen)


@pytest.mark.parametrize("cut", cuts(REPLY))
def test_each_cut_is_a_datagram_too_short(udp_server: Any, cut: Cut) -> None:
    udp_server.on(b"PING").reply(cut)

    with datagram_client(udp_server) as client:
        client.send(b"PING")
        assert client.recv(100) == REPLY[: cut.n]


@pytest.mark.parametrize("split", splits(REPLY, pause=0.01))
def test_each_split_is_the_reply_with_a_pause_in_it(tcp_server: StreamTestServer, split: Split) -> None:
    tcp_server.on(b"PING\r\n").reply(split)

    with connect(tcp_server) as client:
        client.sendall(b"PING\r\n")
        begin = read_exactly(client, split.at[0])
        rest = read_exactly(client, len(REPLY) - split.at[0])

    assert begin + rest == REPLY
    # A client that is held up itself sees no pause.  The record does.
    first, second = [each for each in tcp_server.connections[0].events if each.kind == "sent"]
    assert (first.data, second.data) == (begin, rest)
    assert second.time - first.time >= 0.01


def said_to_client(server: StreamTestServer, *said: bytes) -> tuple[bytes, str]:
    """Return what a client reads to the end, having said something, and how that ends."""
    data = b""
    try:
        with connect(server) as client:  # a reset that comes at once may be met here already
            for each in said:
                client.sendall(each)
            while piece := client.recv(100):
                data += piece
    except (ConnectionResetError, BrokenPipeError):
        return data, "reset"
    return data, "end"


# Of a script

POP3 = Script().send(b"+OK\r\n").expect_line(re.compile(rb"USER (?P<user>\w+)")).send(Text(r"+OK \g<user>\r\n"))


def test_a_script_is_broken_before_each_step_and_at_the_end() -> None:
    script = Script().send(b"hi").expect(b"a")

    assert ids(breaks(script, Close())) == ["before-step-1", "before-step-2", "at-the-end"]
    assert steps(breaks(script, Close())) == [
        "send(Close())",
        "send(b'hi'), send(Close())",
        "send(b'hi'), expect(b'a'), send(Close())",
    ]
    assert steps(resets(script)) == steps(breaks(script, Reset()))
    assert steps(closes(script)) == steps(breaks(script, Close()))


def test_a_script_is_broken_with_all_that_is_given() -> None:
    assert steps(breaks(Script().send(b"hi"), b"junk", Delay(0.5), Stall())) == [
        "send(b'junk', Delay(0.5), Stall())",
        "send(b'hi'), send(b'junk', Delay(0.5), Stall())",
    ]


ENDED = [
    Script().send(b"hi").close(),
    Script().send(b"hi").reset(),
    Script().send(b"hi").send(b"bye", Close()),
    Script().send(b"hi").close().open_gate("gate"),
]


@pytest.mark.parametrize("script", ENDED, ids=str)
def test_a_script_that_ends_the_connection_is_not_broken_after_that(script: Script) -> None:
    assert ids(resets(script)) == ["before-step-1", "before-step-2"]
    assert steps(resets(script)) == ["send(Reset())", "send(b'hi'), send(Reset())"]


def test_a_step_that_holds_others_is_one() -> None:
    inner = Script().expect(b"c").send(b"d")
    script = Script().expect(b"a").maybe(b"?", b"!").repeat(2, inner)

    assert ids(resets(script)) == ["before-step-1", "before-step-2", "before-step-3", "at-the-end"]
    assert steps(resets(script))[-1] == (
        r"expect(b'a'), maybe(expect(b'?'), send(b'!')), repeat(2, expect(b'c'), send(b'd')), send(Reset())"
    )


def test_the_script_that_is_swept_stays_as_it_is() -> None:
    script = Script().send(b"hi")
    before = list(script.steps)

    values(resets(script))[0].open_gate("gate")

    assert script.steps == before
    assert steps(resets(script)) == ["send(Reset())", "send(b'hi'), send(Reset())"]


# The client speaks first: what is said to one that is still connecting, a reset may take back.
SPOKEN = Script().expect(b"HELO\r\n").send(b"250 hi\r\n").expect(b"QUIT\r\n").send(b"221 bye\r\n")

#: What the client says up to each break, all that is read, and what it is told.
SHOWN = [
    (b"", b""),
    (b"HELO\r\n", b""),
    (b"HELO\r\n", b"250 hi\r\n"),
    (b"HELO\r\nQUIT\r\n", b"250 hi\r\n"),
    (b"HELO\r\nQUIT\r\n", b"250 hi\r\n221 bye\r\n"),
]


@pytest.mark.parametrize(("make", "end"), [(resets, "reset"), (closes, "end")], ids=["resets", "closes"])
@pytest.mark.parametrize("place", range(5))
def test_each_break_shows_the_steps_before_it_and_the_end(
    tcp_server: StreamTestServer, make: Callable[[Script], list[Any]], end: str, place: int
) -> None:
    tcp_server.script().extend(values(make(SPOKEN))[place])
    said, told = SHOWN[place]

    assert said_to_client(tcp_server, said) == (told, end)
    tcp_server.verify()


@pytest.mark.parametrize("script", closes(POP3))
def test_a_swept_script_is_for_several_tests(tcp_server: StreamTestServer, script: Script) -> None:
    tcp_server.script(times=2).extend(script)

    said = [b"USER bob\r\n"] if len(script.steps) > 2 else []
    assert said_to_client(tcp_server, *said) == said_to_client(tcp_server, *said)


OPTIONAL = Script().expect(b"a").send(b"1").maybe(b"?", b"!").expect(b"b").repeat(2, Script().expect(b"c").send(b"d"))


@pytest.mark.parametrize("asks", [False, True], ids=["plain", "asking"])
@pytest.mark.parametrize(
    ("script", "shown"), [(each.values[0], n) for n, each in enumerate(resets(OPTIONAL))], ids=ids(resets(OPTIONAL))
)
def test_optional_and_repeated_steps_are_taken_up_to_the_break(
    tcp_server: StreamTestServer, script: Script, shown: int, asks: bool
) -> None:
    tcp_server.script().extend(script)
    asked, answered = (b"?", b"!") if asks else (b"", b"")
    said = [b"", b"a", b"a", b"a" + asked + b"b", b"a" + asked + b"b", b"a" + asked + b"bcc"][shown]
    told = [b"", b"", b"1", b"1" + answered, b"1" + answered, b"1" + answered + b"dd"][shown]

    assert said_to_client(tcp_server, said) == (told, "reset")


def test_a_break_with_garbage_leaves_the_connection_to_the_rules(tcp_server: StreamTestServer) -> None:
    tcp_server.on(b"again\n").reply(b"rules", Close())
    tcp_server.script().extend(values(breaks(Script().send(b"hi\n"), b"?!"))[0])

    assert said_to_client(tcp_server, b"again\n") == (b"?!rules", "end")


def test_a_client_that_departs_before_the_break_fails_the_test(tcp_server: StreamTestServer) -> None:
    tcp_server.script().extend(values(closes(Script().expect(b"a\n").send(b"hi")))[1])

    with tcp_server.raises(ScriptMismatch, match=r"step 1 of 2, test_sweeps\.py"):
        said_to_client(tcp_server, b"b\n")


def test_a_break_that_the_transport_cannot_do_is_refused_by_the_test(unix_server: StreamTestServer) -> None:
    with pytest.raises(UnsupportedFault) as caught:
        unix_server.script().extend(values(resets(POP3))[0])

    assert str(caught.value) == (
        "send() cannot do Reset() on a unix socket: its client would see a plain end of stream; write Close()"
    )


def test_the_names_of_later_steps_are_not_known_at_an_earlier_break(sockserver: SockServer) -> None:
    before, *_, after = values(breaks(POP3, Text(r"-ERR \g<user>"), Close()))
    server = sockserver.tcp()

    with pytest.raises(ValueError) as caught:
        server.script().extend(before)
    server.clear()
    server.script().extend(after)

    assert str(caught.value) == (
        r"send() names the group \g<user>, which nothing before it captures: known so far: nothing"
    )
    assert said_to_client(server, b"USER bob\r\n") == (b"+OK\r\n+OK bob\r\n-ERR bob", "end")


def test_the_names_that_later_steps_want_are_not_wanted_by_an_earlier_break(tcp_server: StreamTestServer) -> None:
    fragment = Script().send(b"hi\r\n").send(Text(r"\g<user>"))

    tcp_server.script().extend(values(closes(fragment))[1])

    assert said_to_client(tcp_server) == (b"hi\r\n", "end")


def test_a_name_that_a_step_before_the_break_wants_is_asked_for(tcp_server: StreamTestServer) -> None:
    fragment = Script().repeat(1, Script().send(Text(r"\g<user>"))).send(b"bye")
    broken = values(closes(fragment))[1]

    with pytest.raises(ValueError, match="known so far: nothing$"):
        tcp_server.script().extend(broken)
    tcp_server.clear()
    tcp_server.script().expect_line(re.compile(rb"USER (?P<user>\w+)")).extend(broken)

    assert said_to_client(tcp_server, b"USER bob\r\n") == (b"bob", "end")


# Bad arguments

PLAIN = Script().send(b"hi")

WRONG: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: cuts("PONG"), TypeError, "cuts() expected the bytes of a reply, not 'PONG'"),  # type: ignore[arg-type]
    (lambda: cuts(b""), ValueError, "cuts() expected a reply of at least one byte"),
    (lambda: splits(None), TypeError, "splits() expected the bytes of a reply, not None"),  # type: ignore[arg-type]
    (lambda: splits(b""), ValueError, "splits() expected a reply of at least one byte"),
    (lambda: splits(b"!"), ValueError, "splits() expected a reply of at least two bytes, not b'!'"),
    (lambda: splits(b"ab", pause=-1), ValueError, "splits() expected seconds from 0 to 60, not -1"),
    (lambda: splits(b"ab", pause="1"), TypeError, "splits() expected seconds, 0 or more, not '1'"),  # type: ignore[arg-type]
    (
        lambda: breaks("S: hi", Close()),  # type: ignore[arg-type]
        TypeError,
        "breaks() expected a Script, not 'S: hi': write Script().expect(...).send(...)",
    ),
    (lambda: breaks(Script(), Close()), ValueError, "breaks() expected a script that has steps"),
    (lambda: resets(Script()), ValueError, "resets() expected a script that has steps"),
    (
        lambda: closes(POP3.send),  # type: ignore[arg-type]
        TypeError,
        f"closes() expected a Script, not {POP3.send!r}: write Script().expect(...).send(...)",
    ),
    (
        lambda: breaks(PLAIN),
        ValueError,
        "breaks() expected what breaks the script off: Reset(), Close() or Stall()",
    ),
    (
        lambda: breaks(PLAIN, Close),  # type: ignore[arg-type]
        TypeError,
        "breaks() expected a part, not the class Close: write Close(...)",
    ),
    (
        lambda: breaks(PLAIN, [Close()]),  # type: ignore[arg-type]
        TypeError,
        "breaks() expected parts one after the other, not the list [Close()]: no brackets",
    ),
    (
        lambda: breaks(PLAIN, Close(), b"bye"),
        ValueError,
        "breaks() expected nothing after Close(): b'bye' would never be reached",
    ),
]


@pytest.mark.parametrize(("call", "kind", "text"), WRONG, ids=[f"{at}" for at in range(len(WRONG))])
def test_what_is_wrong_is_an_error_where_it_is_written(
    call: Callable[[], object], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind) as caught:
        call()

    assert str(caught.value) == text
    assert caught.traceback.filter(caught)[-1].frame.code.raw is call.__code__


# Ids

SWEPT = """
import pytest
from pytest_sockserver import Script
from pytest_sockserver.sweeps import cuts, splits, resets

@pytest.mark.parametrize("cut", cuts(b"ab"))
@pytest.mark.parametrize("split", splits(b"abc"))
@pytest.mark.parametrize("script", resets(Script().send(b"hi").expect(b"a")))
def test_it(cut, split, script): pass
"""

SWEPT_IDS = [
    f"test_swept.py::test_it[{script}-{split}-{cut}]"
    for script in ("before-step-1", "before-step-2", "at-the-end")
    for split in ("1+2", "2+1")
    for cut in ("0-of-2", "1-of-2")
]


def run_pytest(path: Any, *options: str, hash_seed: str = "0") -> list[str]:
    path.joinpath("test_swept.py").write_text(SWEPT)
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:randomly", *options],
        capture_output=True,
        text=True,
        timeout=50,
        cwd=path,
        env={**os.environ, "PYTHONPATH": ROOT, "PYTHONHASHSEED": hash_seed},
    )
    return ended.stdout.splitlines()


def test_ids_are_the_same_in_each_process(tmp_path: Any) -> None:
    for hash_seed in ("1", "2"):
        said = run_pytest(tmp_path, "--collect-only", "-q", hash_seed=hash_seed)
        assert [line for line in said if "::" in line] == SWEPT_IDS


def test_workers_of_xdist_agree(tmp_path: Any) -> None:
    said = run_pytest(tmp_path, "-n", "2", "-v")

    passed = sorted(line.split("PASSED ")[1].strip() for line in said if "PASSED " in line)
    assert passed == sorted(SWEPT_IDS)
