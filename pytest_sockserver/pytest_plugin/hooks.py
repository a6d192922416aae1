"""How a failure on the server's side becomes the test's, and what its report says.

Registered when the first server's fixture is set up; or before the first test, if a server's class is imported by then:
the user's own fixtures may make servers.  The place where a failure is raised decides how pytest counts it: in a
wrapper around the *call*, innermost, it is one failed test, whatever the test is written with (plain, unittest,
doctest, asyncio, trio), ``xfail`` means what it says, and what handlers print while we wait is captured.
"""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from types import CodeType, TracebackType
from typing import TYPE_CHECKING, Any

import pytest

from ..connection import deadline
from ..errors.exceptions import HandlerStuck, UnmetExpectation
from ..errors.location import hide_frame, traceback_at
from ..errors.messages import printable
from ..originals import original
from ..recording import demands
from ..recording.demands import Period
from ..recording.failures import Failure, add_note, combined, is_skip, text_of
from ..server import idle, leaving
from ..server.fleet import Fleet
from ..server.late_failures import issue
from . import ends_key
from .sections import said_once, sections, without_surrogates

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup  # which pytest requires on 3.10

if TYPE_CHECKING:
    from ..server.service import Service

__tracebackhide__ = hide_frame

# The course of one test, and what each phase may still change about its outcome:
#
# 1. Setup.  `_begin_test` makes the test's `Period`.  Each fixture that is set up runs in a period of its own, and what
#    it declares belongs to that.
# 2. Call.  The hook is a wrapper that is tried last, so it is the innermost one.  It waits for the servers, takes what
#    went wrong, and raises it as the test's own failure.
# 3. Report.  It shows what was taken.  For a setup that failed, and for a subtest, it is also the first that waits and
#    takes.
# 4. Teardown.  The first finalizer of the node runs last of its own, and judges what the call could not.  What is
#    raised there is an error beside the test's result, so it is raised only where nothing was reported before.
#
# A period goes from running to due (`is_due`: clear() forgets none of its demands any more) to over (`is_over`: they
# were judged).  It never goes back.  A rerun of an item gets a new one.
#
# What is kept where: on the item what belongs to one test (its outcome so far, what was reported), on the node of a
# fixture's scope what lives as long as that (its fleets), on the config what must be found without the node.
#
# Rules:
#
# - Everything here runs in the thread that runs pytest, but for `_adopt`, which runs where a server is started.  Other
#   threads only read which period runs.
# - When the run is being left no failure is raised.  It is kept, and becomes a warning at the end of the run.
# - A test has one failure.  If its own exception is there, ours is a note on it; only what a test leaves behind (a
#   thread that did not end) is raised beside it.
# - A forked child judges nothing: its parent does.
#
# Not done: the outcome of a test is never set by hand.  It follows from the place where something is raised.


#: On the node: all that follows, as far as it is a node's; it goes when the item's last report is made.  Pytest keeps
#: the items of a run to its end, and a key of its own for each of these would make the tables of their stashes grow.
_ours_key = pytest.StashKey[pytest.Stash]()

#: On the node of a fleet's scope: the fleets that live.
fleets_key = pytest.StashKey["list[Fleet]"]()

#: On the item: the failures beside the test's own, which this phase's report tells; taken by the report.
_told_key = pytest.StashKey["list[Failure]"]()

#: On the node of a fixture's scope: the fleets and servers that it has begun by itself, and the fixture's period.
_adopted_key = pytest.StashKey["list[tuple[Period, Fleet]]"]()

#: On the node of a fleet's scope: what the report of a teardown that failed says; made before the fleet goes.
_late_key = pytest.StashKey["list[tuple[str, str]]"]()

#: On the item: the test that is judged when the item's own fixtures are torn down.
_judging_key = pytest.StashKey[Period]()

#: On the item: its call is under way.
_calling_key = pytest.StashKey[bool]()

#: On the item: its setup or call has raised; "skipped" if that was a skip.
_failed_key = pytest.StashKey[str]()

#: On the item: what is declared while it runs, by none of its fixtures, belongs to this.
_test_key = pytest.StashKey[Period]()

#: On the item: what its setup or call has raised leaves it, and is not about it.
_left_key = pytest.StashKey[bool]()

#: On the config: what fixtures of ours have raised in the teardown that runs, and the failures that it is about.
_raised_key = pytest.StashKey["list[tuple[BaseException, list[Failure]]]"]()

#: On the config: the fleets that are to be finished, and the nodes whose scopes they have.
_unfinished_key = pytest.StashKey["list[tuple[Fleet, Any]]"]()

_NAME = "sockserver-reports"

#: Seconds that the end of a teardown waits at least for handlers that are busy, if the end of the call has waited for
#: them: what a client's goodbye in a teardown takes.
_PATIENCE = 0.1

#: Whose fixtures are never clients of ours.
_NO_CLIENTS = frozenset(["_pytest", "anyio", "pytest_asyncio", "pytest_sockserver", "pytest_trio"])


def _stash(node: Any) -> pytest.Stash:
    """Return what is kept of a node."""
    stash: pytest.Stash = node.stash
    return stash.setdefault(_ours_key, pytest.Stash())


def register(config: pytest.Config) -> Reports | None:
    """Register the hooks below, once; return them if they were not there."""
    if config.pluginmanager.has_plugin(_NAME):
        return None
    config.pluginmanager.register(reports := Reports(), _NAME)
    return reports


def register_late(request: Any) -> None:
    """Register the hooks, once, while the fixture of ``request`` is set up, and perhaps one that asks for it."""
    if (reports := register(request.config)) is not None:
        reports.begin_late(request)


def limit_deadlines(node: Any) -> None:
    """Keep deadlines that begin from now on below the time limit of the node's test, if it has one."""
    limit = node.stash.get(ends_key, None) if node is not None else None
    if limit is not None:
        deadline.limit_test(*limit)


def begin(fleet: Fleet, node: Any, name: str) -> None:
    """List a fleet that a fixture of the node's scope is."""
    _list(fleet, node, name)
    node.config.stash.setdefault(_unfinished_key, []).append((fleet, node))


def _list(fleet: Fleet, node: Any, name: str) -> None:
    fleet.belong_to(name)
    _stash(node).setdefault(fleets_key, []).append(fleet)


def _adopt(period: Period, node: Any, name: str, owner: Fleet | Service) -> None:
    """List what the set-up of a fixture of the node's scope begins by itself: tests are judged by it, as by ours.

    Its own end still judges what is left then, and stops it.
    """
    fleet = owner if isinstance(owner, Fleet) else Fleet(owner)
    _list(fleet, node, name)
    _stash(node).setdefault(_adopted_key, []).append((period, fleet))


def _let_go(period: Period, node: Any) -> list[Failure]:
    """Forget what a fixture has begun by itself; return the failures that were put off."""
    adopted = _stash(node).get(_adopted_key, [])
    gone = [fleet for owner, fleet in adopted if owner is period]
    _stash(node)[_adopted_key] = [each for each in adopted if each[0] is not period]
    for fleet in gone:
        _stash(node)[fleets_key].remove(fleet)
    return [failure for fleet in gone for failure in fleet.let_go()]


def finish(fleet: Fleet, node: Any) -> None:
    """Stop a fleet's servers, and raise what was not told in the call: a late handler, a thread that is stuck.

    A test that failed already gets no second failure, but for what it leaves behind.  Once the run is being left
    nothing is raised but what leaves it: failures are kept for the end of the run.
    """
    unfinished = node.config.stash.get(_unfinished_key, [])
    if (fleet, node) not in unfinished:
        return  # Ctrl-C in the teardown of another fixture has left this one's to the end of the run, and then to gc
    # Before the stop: Ctrl-C in it must not bring the same fleet to the end of the run again.
    unfinished.remove((fleet, node))
    _stash(node)[fleets_key].remove(fleet)
    broken: list[Failure] = []
    try:
        fleet.stop(leaving.haste() or (leaving.Haste() if _stash(node).get(_left_key, False) else None))
    except Exception as error:  # what went wrong before must not be lost with it
        broken.append(Failure(error, "the stop of a server"))
    except BaseException as own:  # Ctrl-C, or a time limit, in the midst of it: all is stopped nevertheless
        if leaving.is_leaving(own):
            leaving.keep(fleet.take_failures(), node.nodeid)
            if leaving.haste() is not None:
                return  # it was for us to be quick; pytest is ending the run already
        else:
            add_note(own, fleet.take_failures())
        raise
    if _is_forked([fleet]):
        return
    skipped = _stash(node).get(_failed_key, "") == "skipped"
    failures = fleet.take_wrong() if skipped else fleet.take_failures()
    _raise_late(node, [fleet], failures, [*broken, *_warn(node, [fleet])])


def _settle(fleets: Iterable[Fleet], seconds: float) -> float:
    """Wait until all servers are idle, at most so long; return the seconds that are left."""
    limit = deadline.Deadline(seconds)
    for fleet in fleets:
        for service in fleet.services:
            service.verdict.settle(limit.left() or 0.0)
    return limit.left() or 0.0


def _is_forked(fleets: Iterable[Fleet]) -> bool:
    """Tell whether this is a forked child of the test, which judges nothing."""
    return any(service.pid != original.getpid() for fleet in fleets for service in fleet.services)


def _is_left(node: Any) -> bool:
    """Tell whether the run is being left, or the test by what its setup or call has raised: nothing is raised then."""
    return leaving.is_under_way() or bool(_stash(node).get(_left_key, False))


def _raise_late(node: Any, fleets: list[Fleet], failures: list[Failure], left_behind: Iterable[Failure] = ()) -> None:
    """Raise failures in a teardown.  A test that failed already gets no second one, but for what it leaves behind."""
    if _is_left(node):
        return leaving.keep([*failures, *left_behind], node.nodeid)
    if _stash(node).get(_failed_key, "") == "failed":
        failures = [failure for failure in failures if isinstance(failure.error, HandlerStuck)]
    failures = [*failures, *left_behind]
    if failures:
        _stash(node)[_late_key] = [*_stash(node).get(_late_key, []), *sections(node, fleets, [])]
        error = combined([*failures], _code_of(node, failures))
        node.config.stash.setdefault(_raised_key, []).append((error, failures))
        raise _raised(error)


@contextmanager
def run_ends(session: pytest.Session, exitstatus: int) -> Iterator[None]:
    """For the length of pytest's ending keep failures, if the run did not come to its end by itself; then report them.

    A run that did has torn down everything before.
    """
    config = session.config
    deadline.pause(False)  # a debugger that was left by ``q`` says nothing of it
    if exitstatus != pytest.ExitCode.OK:
        leaving.begin(in_haste=False)
    try:
        with ExitStack() as rest:
            # Ctrl-C in a teardown makes pytest forget those of the same node that it has not come to.
            for fleet, node in config.stash.get(_unfinished_key, []):
                rest.callback(finish, fleet, node)
            yield
    finally:
        for place, failure in leaving.end():
            _warn_of(config, place, failure)


def tell_forgotten(session: pytest.Session, errors: Iterable[Warning]) -> None:
    """Warn of servers that were started by hand and never stopped, where a filter makes errors of such warnings.

    No test is left whose error it could be: it fails the run, which goes on to its report.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        for error in errors:
            assert error.__traceback__ is not None
            at = error.__traceback__
            warnings.warn_explicit(error, ResourceWarning, at.tb_frame.f_code.co_filename, at.tb_lineno)
    if session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _warn_of(config: pytest.Config, place: str, failure: Failure) -> None:
    """Report a failure as a warning.  Not by ``warnings.warn()``, which ``-W error`` would make an exception."""
    path, line = "", 0
    if (at := failure.error.__traceback__) is not None:
        path, line = at.tb_frame.f_code.co_filename, at.tb_lineno
    where = f"{failure.where}: " if getattr(failure.error, "where", None) is None else ""  # else its text has it
    said = printable(f"{type(failure.error).__name__}: {where}{text_of(failure.error)}")
    text = f"this was pending when the run was left: {said}"
    message = warnings.WarningMessage(pytest.PytestWarning(text), pytest.PytestWarning, path, line, line="")
    config.hook.pytest_warning_recorded.call_historic(
        kwargs={"warning_message": message, "nodeid": place, "when": "runtest", "location": None}
    )


def _warn(node: Any, fleets: list[Fleet]) -> list[Failure]:
    """Issue the warnings of these fleets' servers; return those that a filter makes errors.

    A test that failed already gets no second failure, and its report has told what was lost.
    """
    failed = _stash(node).get(_failed_key, "") == "failed"
    late = [each for fleet in fleets for each in fleet.take_late()]
    location = getattr(node, "location", (None, 0))
    place = str(getattr(node, "path", "")), (location[1] or 0) + 1
    return issue([each for each in late if each.error or not failed], place, raises=not failed and not _is_left(node))


def _is_set_up(fixturedef: Any) -> bool:
    return fixturedef.cached_result is not None


def fleets_of(item: pytest.Item | pytest.Collector) -> list[Fleet]:
    """Return every fleet that is alive for this test, of all scopes."""
    return [fleet for node in item.listchain() for fleet in _stash(node).get(fleets_key, ())]


class Reports:
    """The hooks.

    What runs now, and owns what is declared, is set here.  A run of pytest within a test sets it back when it ends.
    """

    def __init__(self) -> None:
        self._outside = demands.running()  # the outer run's test, of a run within a test
        self._item: Any = None  # whose setup, call or teardown it is

    def begin_late(self, request: Any) -> None:
        """Do what the hooks would have done before the fixture of ``request``, if they had been there."""
        item = request._pyfuncitem
        self._begin_test(item)
        self._judge_at_the_end(item)
        requests = [request._parent_request]
        while hasattr(requests[-1], "_parent_request"):
            requests.append(requests[-1]._parent_request)
        for each in reversed(requests[:-1]):  # the last one is the test's own; the others are fixtures, the inner first
            period = self._period_of(each._fixturedef, each.node)
            period.outer, period.has_left = demands.running(), partial(_is_set_up, each._fixturedef)
            if period.whole is period:
                each.node.addfinalizer(partial(self._end_fixture, period, each.node))
            demands.run(period)

    def _begin_test(self, item: Any) -> None:
        self._item = item
        _stash(item)[_failed_key] = ""  # a rerun uses the same item
        _stash(item)[_test_key] = test = Period(item.name, is_body=True)
        test.late_fixtures.update(_methods_of_unittest(item))
        demands.run(test)

    def _period_of(self, fixturedef: Any, node: Any) -> Period:
        is_of_test = fixturedef.scope == "function"
        period = Period(f"fixture {fixturedef.argname}", _stash(self._item)[_test_key] if is_of_test else None)
        if not is_of_test:
            period.adopt = partial(_adopt, period, node, fixturedef.argname)
        return period

    def _judge_at_the_end(self, item: pytest.Item) -> None:
        """Judge the test when its own fixtures are torn down: a node's first finalizer runs last."""
        test = _stash(item)[_test_key]
        if _stash(item).get(_judging_key, None) is not test and not test.is_due:
            _stash(item)[_judging_key] = test
            item.addfinalizer(partial(self._end_period, test, item))

    def _end_fixture(self, period: Period, node: Any) -> None:
        """Judge a fixture of a wider scope, which has ended, and let go of what it has begun by itself."""
        try:
            self._end_period(period, node)
        finally:
            _raise_late(node, [], _let_go(period, node))

    def _end_period(self, period: Period, node: Any) -> None:
        """Raise what a test, or a fixture of a wider scope, has demanded and not got, and what went wrong by now.

        Called when the node's own fixtures are torn down, or the fixture, and the wider ones are not yet.
        """
        fleets = fleets_of(node)
        period.is_due = True
        if not fleets or _is_left(node) or _is_forked(fleets):
            return
        _settle(fleets, period.patience or idle.DRAIN_BOUND)
        is_missing_told = _stash(node).get(_failed_key, "") != "skipped"
        failures: list[Failure] = []
        for fleet in fleets:
            missing = fleet.end_period(period, is_missing_told=is_missing_told)
            if _stash(self._item)[_test_key].is_due:
                failures += missing
            else:  # a parametrized fixture ends in the setup of a test with another parameter, which is not to blame
                fleet.put_off += missing
        period.is_over = True
        if not period.is_body and (node.session.shouldfail or node.session.shouldstop):
            # The tests that would have met a fixture's demand do not run any more: -x, for example.
            leaving.keep([each for each in failures if isinstance(each.error, UnmetExpectation)], node.nodeid)
            failures = [each for each in failures if not isinstance(each.error, UnmetExpectation)]
        _raise_late(node, fleets, failures)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Note where each server of a wider scope stands: its earlier connections are other tests' business."""
        self._begin_test(item)
        _stash(item)[_left_key] = False
        for fleet in fleets_of(item):
            fleet.begin_test()

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Generator[None, Any, Any]:
        """Let the fixture own what it declares; and note which servers it was set up after: it may be a client."""
        period, before = self._period_of(fixturedef, request.node), demands.running()
        self._judge_at_the_end(self._item)
        if period.whole is period:
            request.addfinalizer(partial(self._end_fixture, period, request.node))
        demands.run(period)
        try:
            result = yield
        except BaseException:
            for fleet in fleets_of(request.node):
                fleet.forget(period)
            raise
        finally:
            # Also when it failed: what is declared from here on belongs to what ran before.
            demands.run(before)
        if period.whole is period:
            request.addfinalizer(partial(setattr, period, "is_due", True))  # its teardown comes next
            return result
        if type(result).__module__.startswith("pytest_trio"):  # which sets it up within the test's call
            set_up = getattr(result, "setup_done", None)
            code = inspect.unwrap(fixturedef.func).__code__
            period.whole.late_fixtures[code] = set_up.is_set if set_up is not None else bool
        module = getattr(fixturedef.func, "__module__", None) or ""
        if module.partition(".")[0] not in _NO_CLIENTS:
            for fleet in fleets_of(request.node):
                fleet.is_followed = True
        return result

    def pytest_unconfigure(self) -> None:
        demands.run(self._outside)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[Any]:
        limit_deadlines(item)
        self._judge_at_the_end(item)
        demands.run(_stash(item)[_test_key])
        # A report that is made while this is set is a subtest's, and not the call's.
        _stash(item)[_calling_key] = True
        try:
            result = yield
        except (KeyboardInterrupt, GeneratorExit, pytest.exit.Exception):
            raise  # the user wants to leave: wait for nothing
        except BaseException as own:
            failures = _tell_or_leave(item, own)
            if failures and is_skip(own):
                _clear_unittests(item)
                # Silence would be worse than a lost skip.
                raise _raised(combined(failures, _code_of(item, failures))) from None
            raise
        finally:
            _stash(item)[_calling_key] = False
        if fleets_of(item):
            own_excinfo = getattr(item, "_excinfo", None)
            own_error = own_excinfo[0].value if own_excinfo else None
            failures = tell(item, own_error)
            if failures and (own_error is None or is_skip(own_error)):
                _clear_unittests(item)
                raise _raised(combined(failures, _code_of(item, failures)))
        return result

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Warn of what became of servers of a wider scope in this test, while pytest still knows whose it is."""
        _stash(item)[_test_key].is_due = True
        demands.run(_stash(item)[_test_key])
        ours = item.config.stash[_raised_key] = []
        try:
            result = yield
        except BaseException as raised:
            own = _exit_among(raised, [error for error, _ in ours])
            if own is not raised:
                for _, failures in ours:
                    leaving.keep(failures, item.nodeid)
                raise own from None
            if not leaving.is_leaving(own):
                add_note(own, _warn_of_wider_scopes(item))
            raise
        failures = _warn_of_wider_scopes(item)
        if failures:
            _stash(item)[_late_key] = list(sections(item, fleets_of(item), []))
            raise _raised(combined(failures, _code_of(item, failures)))
        return result

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        deadline.pause(False)  # whatever has left a debugger that was entered meanwhile: the end of its input, say
        if call.excinfo is not None:
            _show_from_users_frame(call)
            skipped = is_skip(call.excinfo.value)
            if not skipped:
                _stash(item)[_failed_key] = "failed"
            elif call.when != "call" or not _stash(item).get(_calling_key, False):  # else it is a subtest's
                _stash(item)[_failed_key] = _stash(item).get(_failed_key, "") or "skipped"
            _stash(item)[_left_key] = leaving.is_leaving(call.excinfo.value)
            # A fixture built on ours that fails, and a subtest within the call, want the server's side as well.
            is_setup = call.when == "setup" and not skipped
            if fleets_of(item) and (is_setup or _stash(item).get(_calling_key, False)):
                _tell_or_leave(item, call.excinfo.value, is_over=False)
        texts = _texts(item, call) if call.excinfo is not None else None
        with said_once(call.excinfo.value if call.excinfo is not None else None, texts or []):
            report = yield
        if report.failed or (call.when == "call" and set(item.config.option.reportchars) & set("PA")):
            _add_sections(report, _texts(item, call) if texts is None else texts)
        if call.when != "setup" or report.failed:
            _stash(item)[_told_key] = []
        if report.failed:
            without_surrogates(report.longrepr)
        if call.when == "teardown":
            item.stash.setdefault(_ours_key, pytest.Stash())
            del item.stash[_ours_key]
        return report

    def pytest_enter_pdb(self) -> None:
        deadline.pause(True)

    def pytest_leave_pdb(self) -> None:
        deadline.pause(False)


def _methods_of_unittest(item: Any) -> dict[CodeType, Callable[[], bool]]:
    """Return what sets up and tears down a test of unittest, within its call: see ``Period.late_fixtures``."""
    unittest, cls = sys.modules.get("unittest"), getattr(item, "cls", None)
    if unittest is None or cls is None or not issubclass(cls, unittest.TestCase):
        return {}
    methods = {
        "_callSetUp": False,
        "_callTearDown": True,
        "_callCleanup": True,
    }  # around the user's, asynchronous or not
    codes = {name: getattr(getattr(cls, name, None), "__code__", None) for name in methods}
    return {code: partial(bool, methods[name]) for name, code in codes.items() if code is not None}


def _exit_among(raised: BaseException, ours: list[BaseException]) -> BaseException:
    """Return the exit that a teardown asks for, beside failures of ours alone: in their group it would be an error."""
    if not isinstance(raised, BaseExceptionGroup):
        return raised
    rest: BaseException | None = raised.split(lambda each: any(each is error for error in ours))[1]
    while isinstance(rest, BaseExceptionGroup) and len(rest.exceptions) == 1:
        rest = rest.exceptions[0]
    return rest if rest is not None and leaving.is_leaving(rest) else raised


def _warn_of_wider_scopes(item: pytest.Item) -> list[Failure]:
    fleets = fleets_of(item)
    for fleet in fleets:
        for service in fleet.services:
            service.verdict.settle_after_the_call()
    return _warn(item, fleets)


def _texts(item: pytest.Item, call: pytest.CallInfo[None]) -> list[tuple[str, str]]:
    """Return the sections of a phase's report, titles and texts."""
    if call.when != "teardown":
        return list(sections(item, fleets_of(item), _stash(item).get(_told_key, [])))
    texts: list[tuple[str, str]] = []
    for node in item.listchain():
        late = _stash(node).get(_late_key, None)
        texts += [each for each in late or () if each not in texts]
        _stash(node)[_late_key] = []
    return texts


def tell(item: pytest.Item, own: BaseException | None, *, is_over: bool = True) -> list[Failure]:
    """Wait until the servers are idle, take their failures, and note them on the test's own exception.

    Args:
        is_over: The call is over: what is only missing counts as well, unless somebody may still bring it.
    """
    fleets = fleets_of(item)
    test = _stash(item)[_test_key]
    test.patience = max(_settle(fleets, idle.DRAIN_BOUND), _PATIENCE)
    # After the wait: a handler that clear()s while it is waited for is still part of the call.
    test.is_due = test.is_due or is_over
    failures = [
        failure
        for fleet in fleets
        for failure in (
            fleet.end_call(test, has_failed=own is not None) if is_over else fleet.take_wrong(is_last=False)
        )
    ]
    if own is not None:
        beside = [failure for failure in failures if failure.error not in _chain_of(own)]
        add_note(own, beside)
        _stash(item)[_told_key] = [*_stash(item).get(_told_key, []), *beside]
    return failures


def _tell_or_leave(item: pytest.Item, own: BaseException, *, is_over: bool = True) -> list[Failure]:
    """Do what ``tell`` does.  Ctrl-C while it waits does not lose the report of ``own``: the run ends after it."""
    try:
        return tell(item, own, is_over=is_over)
    except KeyboardInterrupt:
        leaving.begin(in_haste=True)
        item.session.shouldstop = item.session.shouldstop or "KeyboardInterrupt"
        return []


def _chain_of(error: BaseException) -> list[BaseException]:
    """Return the exceptions that a report of ``error`` shows: itself, its causes, and what it was raised during."""
    chain = [error]
    while (before := chain[-1].__cause__ or chain[-1].__context__) is not None and before not in chain:
        chain.append(before)
    return chain


def _clear_unittests(item: pytest.Item) -> None:
    """Take back the failures, or skips, that unittest keeps for the report: it would put them in our place."""
    kept = getattr(item, "_excinfo", None)
    if kept:
        kept.clear()


_last_raised: tuple[BaseException, TracebackType | None] | None = None  # by a hook or fixture of ours


def _raised(error: BaseException) -> BaseException:
    """Return ``error``, whose report will begin where its traceback does now, and not in the hook that raises it."""
    global _last_raised
    _last_raised = error, error.__traceback__
    return error


def _show_from_users_frame(call: pytest.CallInfo[None]) -> None:
    """Forget the frames through which a hook's exception has come: pytest hides them in plain tests alone."""
    assert call.excinfo is not None
    error = call.excinfo.value
    if _last_raised is not None and _last_raised[0] is error:
        traceback = _last_raised[1]
        if traceback is not None:
            call.excinfo = pytest.ExceptionInfo.from_exc_info((type(error), error.with_traceback(traceback), traceback))


def _add_sections(report: pytest.TestReport, texts: list[tuple[str, str]]) -> None:
    add = getattr(report.longrepr, "addsection", None)
    if add is None:
        report.sections[:0] = texts
        return
    for title, text in texts:
        add(title, text)  # shown whatever --show-capture says, and in junit's XML


# Where a report points


def _code_of(node: Any, failures: Iterable[Failure]) -> CodeType:
    """Return the code at which a group of failures points: the test's, or where a node has none that of a failure."""
    function = getattr(node, "function", None)
    code = getattr(inspect.unwrap(function), "__code__", None) if function is not None else None
    raised = (each.error.__traceback__ for each in failures)
    return code or next((at.tb_frame.f_code for at in raised if at is not None), _code_of.__code__)


def traceback_of_marker(node: Any, mark: pytest.Mark) -> TracebackType | None:
    """Return a traceback of the line that has the marker: above a function or a class, or in a module's pytestmark.

    Decorators are applied from the last to the first, and pytest lists their marks in that order; so the
    lines that name our marker belong to the node's own marks, counted from the end.
    """
    target: Any = getattr(node, "function", None) or getattr(node, "obj", None)
    try:
        target = inspect.unwrap(target)
        lines, first = inspect.getsourcelines(target)
        path = inspect.getsourcefile(target)
    except (OSError, TypeError):
        return None
    first = max(first, 1)  # of a module it is 0
    code = getattr(target, "__code__", None)
    if code is None:
        code = compile("", path or "", "exec").replace(co_name=node.name, co_firstlineno=first)
    marked = [first + index for index, line in enumerate(lines) if "mark.sockserver" in line]
    own = [each for each in node.own_markers if each.name == "sockserver"]
    back = next((index for index, each in enumerate(own) if each is mark), 0)
    return traceback_at(code, marked[-1 - back] if back < len(marked) else first)
