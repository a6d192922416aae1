"""The rules of one server, or of one dialogue: which of them answers, and how often each has.

Rules are immutable; what changes is here, under one lock: the list, and the counts.  A match is tried without the lock,
since a predicate is the user's code and may take its time; a rule is then *taken* under it, so that two connections at
once never share a turn that only one of them can have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import count as counting
from typing import TYPE_CHECKING, Any, Final

from ..errors.exceptions import InvalidState, UnmetExpectation
from ..errors.location import Location, hide_frame
from ..errors.messages import refuse_misspelt, refuses_old_keywords
from ..originals import original
from ..recording.demands import Demand, Demands, running
from ..recording.recorder import Recorder
from ..scripting.arguments import checked_index
from ..scripting.frozen import replaced
from ..scripting.matching import (
    Lookup,
    NothingKept,
    Shape,
    is_literal,
    matches,
    names_captured,
    names_demanded,
    shape_of,
    shortened,
)
from ..scripting.parts import Part, check_fit, checked_parts
from ..scripting.parts import names_demanded as names_said
from ..scripting.rules import CONNECT, Moment, Rule, RuleMatch, checked_rule_match, nearest, rank, why_frames_are_needed
from ..scripting.times import checked_times
from .declaration import UnfinishedDeclaration

__tracebackhide__ = hide_frame

# What is read without the lock, and why that is sound: `_asked` and `_index` are replaced as a whole and never changed,
# so that a thread which has begun to walk through one goes on with it.  It may miss a rule that is declared at that
# moment, as it would have a moment earlier.  `spent` without the lock is a hint that saves a comparison; `_take`
# decides.
#
# The order of one request: find a rule whose match says yes, wait until it is known what that rule answers, count it
# under the lock.  A rule that was used up meanwhile is passed over and the next is asked.  So a predicate may be called
# for a rule that is not taken in the end, and never under the lock.
#
# The wait is outside the lock as well: the test needs it to go on with its declaration.
#
# `clear()` replaces everything at once.  A thread that still has an entry counts on it in vain, and a handle of the
# test can declare no further reply.
#
# Not done: counts are not undone when a reply fails.  A rule that was taken was taken; a probe alone gives one back.


#: Seconds from one rule to the next, where the client came before them.
FURTHER: Final = 0.25


class On:
    """What ``server.on()`` returns: says what its rule answers."""

    __slots__ = ("__weakref__", "_book", "_number")

    def __init__(self, book: RuleBook, number: int) -> None:
        self._book, self._number = book, number

    def __repr__(self) -> str:
        rule = self._book.rule(self._number)
        return f"<{rule}: on({rule.meant}), {'a reply' if len(rule.replies) == 1 else f'{len(rule.replies)} replies'}>"

    if not TYPE_CHECKING:  # which would take any name for a known one

        def __getattr__(self, name: str) -> Any:
            if name == "times":
                raise AttributeError("a rule has no times(): write on(match, times=...)")
            refuse_misspelt("a rule", name, ("reply", "then", "cycle", "count"))
            raise AttributeError(f"a rule has no {name!r}: it has reply(), then(), cycle() and count")

    @property
    def count(self) -> int:
        """How often the rule was taken so far."""
        return self._book.count(self._number)

    @refuses_old_keywords
    def reply(self, *parts: Part, uses: int = 1) -> On:
        """Say what is answered: parts, from left to right; none for no reply.

        Args:
            uses: For so many matches this reply is used, then that of ``then()``:
                ``reply(Reset(), uses=3).then(b"ok")``.  It is not verified; ``on(match, times=...)`` is.

        Raises:
            TypeError, ValueError: A part is none, can never be reached, or names what nothing captures.
            UnsupportedFault: The transport cannot do a part.
            InvalidState: It was said already; ``then()`` gives the next reply.
        """
        if self._book.rule(self._number).replies:
            raise InvalidState("reply() was called already for this rule: the next reply is then(...)")
        self._book.add_reply(self._number, parts, "reply()", uses)
        return self

    @refuses_old_keywords
    def then(self, *parts: Part, uses: int = 1) -> On:
        """Say what is answered the next time, and from then on until a further ``then()`` says otherwise.

        Args:
            uses: For so many matches this reply is used, then that of a further ``then()``.

        Raises:
            InvalidState: No ``reply()`` came before it.
        """
        if not self._book.rule(self._number).replies:
            raise InvalidState("then() follows reply(): write on(...).reply(...).then(...)")
        self._book.add_reply(self._number, parts, "then()", uses)
        return self

    def cycle(self) -> On:
        """Begin anew with the first reply after the last one, instead of staying with the last.

        Raises:
            InvalidState: No ``reply()`` came before it.
        """
        if not self._book.rule(self._number).replies:
            raise InvalidState("cycle() follows reply() and then(): write on(...).reply(...).then(...).cycle()")
        self._book.set_cycle(self._number)
        return self


class _Entry(Demand):
    __slots__ = ("count", "declaring", "owner", "rule", "shape", "told")

    def __init__(self, rule: Rule) -> None:
        self.rule, self.owner = rule, running()
        self.count = 0
        self.told = False  # that it was not taken often enough
        self.declaring: UnfinishedDeclaration | None = None  # while it is not known yet what it answers
        fixed = is_literal(rule.match) and not names_demanded(rule.match)
        self.shape: Shape | None = shape_of(rule.match) if fixed else None  # type: ignore[arg-type]

    @property
    def spent(self) -> bool:
        return self.rule.times.most is not None and self.count >= self.rule.times.most

    def unmet(self) -> UnmetExpectation | None:
        """Return the error about a rule that was not taken as often as it was to be; once."""
        rule, count = self.rule, self.count
        if count >= rule.times.least or self.told:
            return None
        self.told = True
        came = {0: "was never", 1: "was taken only once"}.get(count, f"was taken only {count} times")
        error = UnmetExpectation(f"{rule}, on({rule.meant}), was to be taken {rule.times}, and {came}")
        error.placed = True
        return error.with_traceback(rule.origin.traceback())


class _Index:
    """The rules that a request may match: those of its very bytes, and all that are no plain bytes.

    Literals are asked before all others, so it is a lookup.  Beside one with holes, the latest declared of them counts:
    then all are asked in their order.
    """

    __slots__ = ("literals", "others")

    def __init__(self, asked: Sequence[_Entry]) -> None:
        self.literals: dict[bytes, list[_Entry]] = {}
        self.others = [entry for entry in asked if type(entry.rule.match) is not bytes]
        if any(is_literal(entry.rule.match) for entry in self.others):
            self.others = list(asked)
            return
        for entry in asked:
            if type(entry.rule.match) is bytes:
                self.literals.setdefault(entry.rule.match, []).append(entry)


class RuleBook:
    """Rules and their counts.

    Args:
        recorder: Its lock guards everything here, and it wakes who waits for a rule to be decided.
        transport: Parts that this cannot do are refused.
        demands: Get the rules that must be taken.

    Attributes:
        names: Returns what is captured elsewhere, for the templates in replies.
    """

    def __init__(
        self,
        recorder: Recorder,
        transport: str,
        *,
        tls: bool = False,
        demands: Demands | None = None,
    ) -> None:
        self._recorder, self._transport, self._tls = recorder, transport, tls
        self.names: Callable[[], Iterable[str]] = tuple
        self._demands = demands or Demands(recorder)
        self._entries: dict[int, _Entry] = {}  # by number
        self._asked: list[_Entry] = []  # in the order in which they are asked; replaced, never changed
        self._index = _Index(())  # of them, made anew with them
        self._numbers = counting(1)
        self._declared_at = original.monotonic()
        self._unframed: list[_Entry] = []  # those of which it was seen that they need no frames

    def __len__(self) -> int:
        return len(self._asked)

    @property
    def rules(self) -> list[Rule]:
        """The rules in the order in which they are asked."""
        return [entry.rule for entry in self._asked]

    def captured(self) -> set[str]:
        """Return the names under which the rules capture."""
        return {name for entry in self._asked for name in names_captured(entry.rule.match)}

    def clear(self) -> list[object]:
        """Forget all rules; return what is to be let go without the lock, which must be held."""
        gone: list[object] = [self._entries, self._asked]
        self._entries, self._asked, self._index = {}, [], _Index(())
        return gone

    def check_unframed(self) -> None:
        """Refuse rules that have no meaning on a stream without framing, pointing at the declaration.

        Raises:
            TypeError: The first of them, and why.
        """
        asked = self._asked
        if asked is self._unframed:
            return
        problem = why_frames_are_needed([entry.rule for entry in asked])
        if problem is not None:
            raise TypeError(problem[1]).with_traceback(problem[0].origin.traceback())
        self._unframed = asked

    # Declaring

    def declare(self, match: RuleMatch, times: object, *, empty: bool = False) -> On:
        """Add a rule that answers nothing yet.

        Args:
            empty: A request may have no byte.
        """
        rule = Rule(0, checked_rule_match(match, empty=empty), checked_times(times), (), Location())
        for name in names_demanded(rule.match):
            self._check_name(name, rule, "on()")
        with self._recorder.lock:
            number = next(self._numbers)
            # Made before the entry, which keeps only a weak reference to it: its end is the end of the declaration.
            on = On(self, number)
            entry = _Entry(replaced(rule, number=number))
            entry.declaring = UnfinishedDeclaration(self._recorder, on)
            # The rule is asked from here on, and has no answer yet: a thread that takes it waits for reply().
            self._insert(entry)
            if rule.times.least:
                self._demands.add(entry)
            self._declared_at = original.monotonic()
            self._recorder.tell()
        return on

    def add(self, match: RuleMatch, parts: tuple[Part, ...], origin: Location) -> None:
        """Add a rule that is whole, of a dialogue."""
        with self._recorder.lock:
            number = next(self._numbers)
            rule = Rule(number, match, checked_times(None), (parts,), origin)
            self._insert(_Entry(rule))

    def add_reply(self, number: int, parts: Iterable[object], verb: str, uses: int = 1) -> None:
        """Add a further reply to a rule, for so many matches."""
        checked_index(uses, f"{verb} expected uses= to be a number of matches, 1 or more", least=1)
        checked = checked_parts(parts, verb)
        check_fit(checked, self._transport, verb, tls=self._tls)
        for name in names_said(checked):
            self._check_name(name, self.rule(number), verb)
        with self._recorder.lock:
            self.rule(number)  # not forgotten meanwhile
            entry = self._entries[number]
            entry.rule = replaced(entry.rule, replies=(*entry.rule.replies, *[checked] * uses))
            entry.declaring = None
            self._recorder.changed()

    def set_cycle(self, number: int) -> None:
        """Let a rule begin anew after its last reply."""
        with self._recorder.lock:
            self.rule(number)  # not forgotten meanwhile
            entry = self._entries[number]
            entry.rule = replaced(entry.rule, cycles=True)

    def _check_name(self, name: str, rule: Rule, verb: str) -> None:
        known = {*names_captured(rule.match), *self.captured(), *self.names()}
        if name not in known:
            said = ", ".join(sorted(known)) or "nothing"
            raise ValueError(
                rf"{verb} names the group \g<{name}>, which neither its match nor anything declared before captures: "
                f"known so far: {said}"
            )

    def _insert(self, entry: _Entry) -> None:
        """Put the latest rule before its equals, into a new list: whoever walks through the old one goes on with it."""
        mine, asked = rank(entry.rule.match), self._asked
        at = next((at for at, each in enumerate(asked) if rank(each.rule.match) >= mine), len(asked))
        self._entries[entry.rule.number] = entry
        self._asked = [*asked[:at], entry, *asked[at:]]
        self._index = _Index(self._asked)

    def wait_for_more(self, known: int) -> bool:
        """Wait until there are more rules than are known, if the last was declared just now; tell whether there are.

        For a client that was faster than the test: its rules come one by one.
        """
        with self._recorder.lock:
            while len(self._asked) <= known and (left := self._declared_at + FURTHER - original.monotonic()) > 0:
                self._recorder.sleep(left)
            return len(self._asked) > known

    # Asking

    def rule(self, number: int) -> Rule:
        """Return a rule by its number.

        Raises:
            InvalidState: ``clear()`` has forgotten it.
        """
        entry = self._entries.get(number)
        if entry is None:
            raise InvalidState(f"rule {number} is forgotten: clear() was called; declare it again by on()")
        return entry.rule

    def count(self, number: int) -> int:
        """Return how often a rule was taken."""
        with self._recorder.lock:
            entry = self._entries.get(number)
            return entry.count if entry is not None else 0

    def greets(self, moment: Moment = CONNECT) -> bool:
        """Tell whether a rule says how a connection is greeted, or how its handshake is answered."""
        return any(entry.rule.match is moment for entry in self._asked)

    def find(self, unit: Any, lookup: Lookup, *, unsure: bool = False) -> tuple[Rule, int, object] | None:
        """Take the rule that a frame, or a datagram, matches.

        Args:
            unsure: It is a stream without a byte, and a request only if a rule matches it.

        Returns:
            The rule, how often it was taken with this time, and what it captured; ``None`` if no rule takes it.
        """
        index = self._index
        for entry in index.literals.get(unit, ()):
            most = entry.rule.times.most
            # Nothing can use it up, so the count alone needs the lock.
            if most is None and entry.declaring is None:  # the usual case
                with self._recorder.lock:
                    entry.count = count = entry.count + 1
                return entry.rule, count, True
            if not entry.spent and (count := self._take(entry)):
                return entry.rule, count, True
        for entry in index.others:
            if entry.spent or entry.rule.match is CONNECT:
                continue
            found = _found(entry.rule, unit, lookup, unsure=unsure)
            if found and (count := self._take(entry)):
                return entry.rule, count, found
        return None

    def greet(self, moment: Moment = CONNECT) -> tuple[Rule, int] | None:
        """Take the rule for a new connection, or for its handshake."""
        for entry in self._asked:
            if entry.rule.match is moment and (count := self._take(entry)):
                return entry.rule, count
        return None

    def literals(self) -> list[Shape]:
        """Return what may begin on a stream without frames; one that is used up is known when it comes, too."""
        return [entry.shape for entry in self._asked if entry.shape is not None]

    def _take(self, entry: _Entry) -> int:
        """Count a rule as taken; return the count, 0 if it was used up meanwhile."""
        if (declaring := entry.declaring) is not None:
            # Several threads may wait here, for one rule; each finds the same, so to clear it twice does no harm.
            declaring.wait(lambda: entry.rule.replies)
            entry.declaring = None
        with self._recorder.lock:
            if entry.spent:
                return 0
            entry.count += 1
            return entry.count

    def give_back(self, number: int) -> None:
        """Count a rule as taken once less."""
        with self._recorder.lock:
            entry = self._entries.get(number)
            if entry is not None and entry.count:
                entry.count -= 1

    def spent_for(self, unit: bytes, lookup: Lookup) -> Rule | None:
        """Return a rule that would have taken ``unit`` if it had not been used up."""
        for entry in self._asked:
            if entry.spent and entry.rule.match is not CONNECT and _found(entry.rule, unit, lookup, unsure=not unit):
                return entry.rule
        return None

    # Verifying

    def never_taken(self) -> list[Rule]:
        """Return the rules that no request has taken, where others were, and nothing was said of that yet.

        Rules that an earlier test declared are that test's business.
        """
        asked = [entry for entry in self._asked if entry.owner is None or not entry.owner.whole.is_over]
        unused = [entry.rule for entry in asked if not entry.count and not entry.told]
        return unused if len(unused) < len(self._asked) else []


def _found(rule: Rule, unit: Any, lookup: Lookup, *, unsure: bool) -> object:
    """Return what a rule captures of a unit; nothing as well where it names what was not captured yet."""
    try:
        return matches(rule.match, unit, lookup, unsure=unsure)  # type: ignore[arg-type]
    except NothingKept:
        return None


def refusal(books: Sequence[RuleBook], came: bytes, lookup: Lookup) -> tuple[str, Location | None]:
    """Return what to say of a request that no rule takes, and the declaration that it points at."""
    spent = next((rule for book in books if (rule := book.spent_for(came, lookup)) is not None), None)
    if spent is not None:
        text = f"no rule is left for {shortened(came)}\n  {spent} takes it only {spent.times.at_most}"
        return text, spent.origin
    near = nearest([rule for book in books for rule in book.rules], came, lookup)
    text = f"no rule matches {shortened(came)}" + ("" if near else ": none is declared; on(...) declares one")
    for word, (rule, how) in zip(("nearest:", "then    ", "then    "), near, strict=False):
        text += f"\n  {word} {rule} expects {how}"
    return text, near[0][0].origin if near else None
