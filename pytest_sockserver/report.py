"""How a failure on the server's side becomes the test's, and what its report says.

Registered when the first server's fixture is set up.  The place where a failure is raised decides how
pytest counts it: in a wrapper around the *call*, innermost, it is one failed test, whatever the test is
written with (plain, unittest, doctest, asyncio, trio), ``xfail`` means what it says, and what handlers print
while we wait is captured.
"""

from __future__ import annotations

import inspect
import os
import sys
import warnings
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from types import CodeType, TracebackType
from typing import TYPE_CHECKING, Any

import pytest

from . import deadline, leaving, stopping
from .errors import HandlerStuck
from .failures import Failure, add_note, combined, is_skip, text_of
from .messages import printable
from .origin import traceback_at
from .plugin import ends_key
from .sections import said_once, sections, without_surrogates

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup  # which pytest requires on 3.10

if TYPE_CHECKING:
    from .factory import SockServer

#: On the node of a factory's scope: the factories that live.
factories_key = pytest.StashKey["list[SockServer]"]()

#: On the item: the failures beside the test's own, which this phase's report tells; taken by the report.
_told_key = pytest.StashKey["list[Failure]"]()

#: On the node of a factory's scope: what the report of a teardown that failed says; made before the factory goes.
_late_key = pytest.StashKey["list[tuple[str, str]]"]()

#: On the item: its call is under way.
_calling_key = pytest.StashKey[bool]()

#: On the item: its setup or call has raised.
_failed_key = pytest.StashKey[bool]()

#: On the item: what its setup or call has raised leaves it, and is not about it.
_left_key = pytest.StashKey[bool]()

#: On the config: what fixtures of ours have raised in the teardown that runs, and the failures that it is about.
_raised_key = pytest.StashKey["list[tuple[BaseException, list[Failure]]]"]()

#: On the config: the factories that are to be finished, and the nodes whose scopes they have.
_unfinished_key = pytest.StashKey["list[tuple[SockServer, Any]]"]()

_NAME = "sockserver-reports"

#: Whose fixtures are never clients of ours.
_NO_CLIENTS = frozenset(["_pytest", "anyio", "pytest_asyncio", "pytest_sockserver", "pytest_trio"])


def register(config: pytest.Config) -> None:
    """Register the hooks below, once."""
    if not config.pluginmanager.has_plugin(_NAME):
        config.pluginmanager.register(Reports(), _NAME)


def limit_deadlines(node: Any) -> None:
    """Keep deadlines that begin from now on below the time limit of the node's test, if it has one."""
    limit = node.stash.get(ends_key, None) if node is not None else None
    if limit is not None:
        deadline.limit_test(*limit)


def begin(factory: SockServer, node: Any) -> None:
    """List a factory that a fixture of the node's scope has made."""
    node.stash.setdefault(factories_key, []).append(factory)
    node.config.stash.setdefault(_unfinished_key, []).append((factory, node))


def finish(factory: SockServer, node: Any) -> None:
    """Stop a factory's servers, and raise what was not told in the call: a late handler, a thread that is stuck.

    A test that failed already gets no second failure, but for what it leaves behind.  Once the run is being left
    nothing is raised but what leaves it: failures are kept for the end of the run.
    """
    __tracebackhide__ = True
    unfinished = node.config.stash.get(_unfinished_key, [])
    if (factory, node) not in unfinished:
        return  # Ctrl-C in the teardown of another fixture has left this one's to the end of the run, and then to gc
    unfinished.remove((factory, node))
    node.stash[factories_key].remove(factory)
    left = leaving.is_under_way() or node.stash.get(_left_key, False)
    try:
        factory._stop(leaving.haste() or (leaving.Haste() if node.stash.get(_left_key, False) else None))
    except BaseException as own:  # Ctrl-C, or a time limit, in the midst of it: all is stopped nevertheless
        if leaving.is_leaving(own):
            leaving.keep(factory._take_failures(), node.nodeid)
            if leaving.haste() is not None:
                return  # it was for us to be quick; pytest is ending the run already
        else:
            add_note(own, factory._take_failures())
        raise
    if any(server._pid != os.getpid() for server in factory.servers):
        return  # a forked child of the test
    failures = factory._take_failures()
    if left:
        leaving.keep(failures, node.nodeid)
        return
    if node.stash.get(_failed_key, False):
        failures = [failure for failure in failures if isinstance(failure.error, HandlerStuck)]
    if failures:
        node.stash[_late_key] = list(sections(node, [factory], []))
        error = combined(failures)
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
            for factory, node in config.stash.get(_unfinished_key, []):
                rest.callback(finish, factory, node)
            yield
    finally:
        for place, failure in leaving.end():
            _warn(config, place, failure)


def _warn(config: pytest.Config, place: str, failure: Failure) -> None:
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


def factories_of(item: pytest.Item | pytest.Collector) -> list[SockServer]:
    """Return every factory that is alive for this test, of all scopes."""
    return [factory for node in item.listchain() for factory in node.stash.get(factories_key, ())]


class Reports:
    """The hooks."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Note where each server of a wider scope stands: its earlier connections are other tests' business."""
        item.stash[_failed_key] = item.stash[_left_key] = False  # a rerun uses the same item
        for factory in factories_of(item):
            factory._followed = False
            for server in factory.servers:
                server._begin_test()

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Generator[None, Any, Any]:
        """Note which servers another fixture was set up after: a client, perhaps, that takes its leave in teardown."""
        result = yield
        module = getattr(fixturedef.func, "__module__", None) or ""
        if module.partition(".")[0] not in _NO_CLIENTS:
            for factory in factories_of(request.node):
                factory._followed = True
                for server in factory.servers if fixturedef.scope != "function" else ():
                    server._judged_from = server._recorder.elapsed()  # what it declared is for more than this test
        return result

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[Any]:
        __tracebackhide__ = True
        limit_deadlines(item)
        item.stash[_calling_key] = True
        try:
            result = yield
        except (KeyboardInterrupt, GeneratorExit, pytest.exit.Exception):
            raise  # the user wants to leave: wait for nothing
        except BaseException as own:
            failures = _tell_or_leave(item, own)
            if failures and is_skip(own):
                _clear_unittests(item)
                raise _raised(combined(failures, _code_of(item))) from None  # silence would be worse than a lost skip
            raise
        finally:
            item.stash[_calling_key] = False
        if factories_of(item):
            own_excinfo = getattr(item, "_excinfo", None)
            own_error = own_excinfo[0].value if own_excinfo else None
            failures = tell(item, own_error)
            if failures and (own_error is None or is_skip(own_error)):
                _clear_unittests(item)
                raise _raised(combined(failures, _code_of(item)))
        return result

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        deadline.pause(False)  # whatever has left a debugger that was entered meanwhile: the end of its input, say
        if call.excinfo is not None:
            _show_from_users_frame(call)
            item.stash[_failed_key] = True
            item.stash[_left_key] = leaving.is_leaving(call.excinfo.value)
            # A fixture built on ours that fails, and a subtest within the call, want the server's side as well.
            if factories_of(item) and (call.when == "setup" or item.stash.get(_calling_key, False)):
                _tell_or_leave(item, call.excinfo.value, is_over=False)
        texts = _texts(item, call) if call.excinfo is not None else None
        with said_once(call.excinfo.value if call.excinfo is not None else None, texts or []):
            report = yield
        if report.failed or (call.when == "call" and set(item.config.option.reportchars) & set("PA")):
            _add_sections(report, _texts(item, call) if texts is None else texts)
        if call.when != "setup" or report.failed:
            item.stash[_told_key] = []
        if report.failed:
            without_surrogates(report.longrepr)
        return report

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, object, object]:
        """Let an exit that a teardown asks for through: in a group with a failure of ours it would be an error."""
        __tracebackhide__ = True
        ours: list[tuple[BaseException, list[Failure]]] = []
        item.config.stash[_raised_key] = ours
        try:
            return (yield)
        except BaseExceptionGroup as group:
            rest = group.split(lambda each: any(each is error for error, _ in ours))[1]
            while isinstance(rest, BaseExceptionGroup) and len(rest.exceptions) == 1:
                rest = rest.exceptions[0]
            if not leaving.is_leaving(rest):
                raise
        for _, failures in ours:
            leaving.keep(failures, item.nodeid)
        assert rest is not None
        raise rest

    def pytest_enter_pdb(self) -> None:
        deadline.pause(True)

    def pytest_leave_pdb(self) -> None:
        deadline.pause(False)


def _texts(item: pytest.Item, call: pytest.CallInfo[None]) -> list[tuple[str, str]]:
    """Return the sections of a phase's report, titles and texts."""
    if call.when != "teardown":
        return list(sections(item, factories_of(item), item.stash.get(_told_key, [])))
    texts: list[tuple[str, str]] = []
    for node in item.listchain():
        late = node.stash.get(_late_key, None)
        texts += late if late is not None else []
        node.stash[_late_key] = []
    return texts


def tell(item: pytest.Item, own: BaseException | None, *, is_over: bool = True) -> list[Failure]:
    """Wait until the servers are idle, take their failures, and note them on the test's own exception.

    Args:
        is_over: The call is over: what is only missing counts as well, unless somebody may still bring it.
    """
    factories = factories_of(item)
    servers = [server for factory in factories for server in factory.servers]
    limit = deadline.Deadline(stopping.DRAIN_BOUND)
    for server in servers:
        server._settle(limit.left() or 0.0)
    failures = [
        failure for factory in factories for failure in factory._take_failures(is_over=is_over, alone=own is None)
    ]
    if own is not None:
        beside = [failure for failure in failures if failure.error not in _chain_of(own)]
        add_note(own, beside)
        item.stash[_told_key] = [*item.stash.get(_told_key, []), *beside]
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


def _code_of(item: Any) -> CodeType | None:
    function = getattr(item, "function", None)
    return getattr(inspect.unwrap(function), "__code__", None) if function is not None else None


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
