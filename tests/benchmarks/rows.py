"""The table: what is promised, and what measures it."""

from __future__ import annotations

from functools import partial

import crowd
import framings
import growth
import life
import loading
import stops
import traffic
from measure import Bound, Row

FLOOR = "a hand-written listener"
STANDARD = "the standard library"
UNRECORDED = "the standard library, unrecorded"
CLOCK = "the clock"
BARE = "a bare loop of recv()"
KEEPS = "a bare loop that keeps all"
TENTH = "itself at a tenth"

MEGABYTE = 1 << 20

ROWS = [
    Row("life-verbs", "start, a request, stop: verbs", FLOOR, Bound(1.25), life.verbs_against_floor),
    Row("life-class", "start, a request, stop: class", FLOOR, Bound(1.25), life.class_against_floor),
    Row(
        "life-standard",
        "start, a request, stop: class, how much faster",
        f"{STANDARD}, defaults",
        Bound(500, at_least=True),
        life.against_standard_library,
    ),
    *(
        Row(f"stop-{name}", f"stop: {what}", CLOCK, Bound(5, "ms"), measure)
        for name, (what, measure) in stops.SITUATIONS.items()
    ),
    *(
        Row(f"stop-{name}", f"stop: {what}", CLOCK, Bound(5 + 0.2 * 50, "ms"), measure)
        for name, (what, measure) in stops.FIFTY.items()
    ),
    Row(
        "echo-class",
        "echo, one class on both",
        UNRECORDED,
        Bound(0.8, at_least=True),
        partial(traffic.echo, traffic.EchoLines),
    ),
    Row(
        "echo-verbs",
        "echo, recv_line() and send()",
        UNRECORDED,
        Bound(0.8, at_least=True),
        partial(traffic.echo, traffic.echo_lines),
    ),
    Row(
        "rules-verbs",
        "lines answered by rules",
        "a handler of verbs",
        Bound(0.6, at_least=True),
        partial(traffic.rules, traffic.echo_lines),
    ),
    Row(
        "rules-class",
        "lines answered by rules",
        "a handler class, recorded",
        Bound(0.6, at_least=True),
        partial(traffic.rules, traffic.EchoLines),
    ),
    *(
        Row(
            f"bulk-{name}",
            f"upload, {what}",
            against,
            Bound(0.8, at_least=True),
            partial(traffic.bulk, handler, bare, limit),
        )
        for name, what, against, handler, bare, limit in (
            ("recv", "1 MB kept: class, recv()", BARE, traffic.Recv, traffic.recv_by_hand, MEGABYTE),
            ("into", "1 MB kept: class, recv_into()", BARE, traffic.RecvInto, traffic.recv_into_by_hand, MEGABYTE),
            ("verb", "1 MB kept: conn.recv()", BARE, traffic.recv_by_verb, traffic.recv_by_hand, MEGABYTE),
            ("kept-recv", "all kept: class, recv()", KEEPS, traffic.Recv, traffic.keep_by_hand, 64 * MEGABYTE),
            ("kept-verb", "all kept: conn.recv()", KEEPS, traffic.recv_by_verb, traffic.keep_by_hand, 64 * MEGABYTE),
        )
    ),
    Row("bulk-memory", "memory of a recording that is full", "record_limit", Bound(1.25), traffic.memory),
    *(
        Row(f"growth-{name}", what, TENTH, Bound(2), partial(growth.linear, task, size))
        for name, what, task, size in (
            ("until", "recv_until() of 1 MB, byte by byte", growth.until, 1_000_000),
            ("exactly", "recv_exactly() of 1 MB, byte by byte", growth.exactly, 1_000_000),
            ("expect", "expect() of 1 MB, byte by byte", growth.expect, 1_000_000),
            ("expect-line", "expect_line() of 1 MB, byte by byte", growth.expect_line, 1_000_000),
            ("lines", "100,000 lines that came at once", growth.lines_of_a_burst, 100_000),
            ("wait-received", "wait_received() while 100,000 chunks come", growth.wait_received, 100_000),
            ("wait-received-long", "wait_received() of 1 MB in chunks of 100 bytes", growth.wait_received_long, 10_000),
            ("wait-for", "wait_for() while 100,000 requests come", growth.wait_for, 100_000),
            ("wait-for-count", "wait_for(ANY, 100,000)", growth.wait_for_count, 100_000),
            ("next_request", "next_request() of 100,000 requests", growth.next_request, 100_000),
            ("line", "a frame: a line of 1 MB", framings.one_long_line, 1_000_000),
            ("body", "a frame: a line and a body of 1 MB", framings.a_line_and_a_long_body, 1_000_000),
            ("line-by-line", "a frame: 100,000 lines", framings.many_lines_in_one_frame, 1_000_000),
            ("sans-io", "a frame: 1 MB for a parser", framings.one_long_parse, 1_000_000),
            ("to-the-end", "a frame: 1 MB to the end of the stream", framings.all_to_the_end, 1_000_000),
            ("field", "a frame: a field of 100 kB of HTTP", framings.one_long_field, 1_000_000),
            ("burst", "10,000 netstrings that came at once", framings.small_frames_in_one_burst, 1_000_000),
            ("literal", "a step: a literal of 1 MB", framings.a_literal, 1_000_000),
            ("steps", "20,000 steps of a script", framings.many_steps, 100_000),
            ("chatter", "15,000 requests to rules beside a step", framings.chatter_beside_a_step, 60_000),
            ("row", "20,000 steps within frames", framings.literals_in_a_row, 50_000),
            ("rules", "20,000 requests to rules without frames", framings.literals, 100_000),
            ("long-rule", "rules of 200 kB", framings.a_long_literal_among_others, 200_000),
            ("frames", "20,000 frames to rules", framings.frames, 100_000),
            ("long-frame", "a rule's frame of 1 MB", framings.one_long_frame, 1_000_000),
        )
    ),
    Row("crowd", "1,000 connections at once, without the stop", STANDARD, Bound(1.25), crowd.without_stop),
    Row("crowd-stop", "1,000 connections at once, with the stop", STANDARD, Bound(1), crowd.with_stop),
    Row("load", "plugin loaded and not used", "an empty plugin", Bound(1, "ms more"), loading.against_empty_plugin),
]
