"""Run a client under every fault there is, and tell what it made of each: a table for its author to read.

The conversation is run once as it should be.  Then, for each fault of the catalogue that the transport can show, a new
server is made, the same behaviour declared, the fault put on it, and the client run again.  What comes of it is
compared with what came of it when nothing was wrong: a client may recover, and it may raise; it must not return
something else as if nothing had happened, and it must not hang.

Faults are tried several at a time, each with a server and a thread of its own: most of the time somebody waits.
"""

from __future__ import annotations

import contextlib
import inspect
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from traceback import format_exception
from typing import Any, Final

from ..connection.waits import refuse_in_coroutine
from ..errors.location import hide_frame
from ..faults.catalogue import Fault, faults_for
from ..faults.matrix import HUNG, RAISED, RETURNED, FaultMatrix, FaultResult
from ..originals import Thread, original
from ..scripting.arguments import checked_index, checked_seconds
from ..scripting.frozen import frozen
from ..scripting.parts import DATAGRAMS
from .datagram import DatagramTestServer
from .options import options_for
from .stream import StreamTestServer

__tracebackhide__ = hide_frame


#: Seconds after which a client hangs, unless told otherwise: above the time-outs that a test sets, below its patience.
PATIENCE: Final = 2.0

#: How many faults are tried at a time.
WORKERS: Final = 8

#: Seconds that a client which hangs is given to end, once its server is gone: a connection that is never made is given
#: up when the kernel asks again, after 1 and 3 seconds.
_GRACE: Final = 4.0

#: Replies that faults are injected into each by itself, unless told otherwise.
_REPLIES: Final = 3

_TRANSPORTS: Final = ("tcp", "tls", "unix", "udp", "unix_datagram")


def fault_matrix(
    client: Callable[[Any], Any],
    serve: Callable[[Any], object],
    *,
    transport: str = "tcp",
    patience: float = PATIENCE,
    replies: int = _REPLIES,
    only: str | None = None,
    workers: int = WORKERS,
    seed: int = 0,
    **options: Any,
) -> FaultMatrix:
    """Run ``client`` under every fault that the transport can show; return what it made of each.

    Args:
        client: Called with a server, in a thread: connects to its ``address``, converses, and returns what it found.
            An async function is run by asyncio.
        serve: Called with each server before: declares what it answers when nothing is wrong.
        transport: ``"tcp"``, ``"tls"``, ``"unix"``, ``"udp"`` or ``"unix_datagram"``.
        patience: Seconds after which a client that has not ended hangs; its server is gone then.
        replies: Faults are injected into so many replies, each by itself; if there are more, into the first ones and
            the last.
        only: Try the faults alone whose name has this in it.
        workers: How many are tried at a time; 1 for a client that cannot be run beside itself.
        seed: What garbage is drawn from.
        options: Those of the servers.

    Raises:
        TypeError, ValueError: An argument is not what it must be, or no fault's name has ``only`` in it.
        BlockingCallInCoroutine: It was called in a coroutine.
        RuntimeError: The client fails, or hangs, when nothing is wrong; its exception is the cause.
    """
    refuse_in_coroutine("fault_matrix", "a plain test function")
    if transport not in _TRANSPORTS:
        raise ValueError(f"fault_matrix() expected a transport, one of {', '.join(_TRANSPORTS)}, not {transport!r}")
    for name, function in (("client", client), ("serve", serve)):
        if not callable(function):
            raise TypeError(f"fault_matrix() expected {name} to be a function of a server, not {function!r}")
    checked_seconds(patience, "fault_matrix() expected patience above 0 seconds")
    for name, number in (("replies", replies), ("workers", workers)):
        checked_index(number, f"fault_matrix() expected {name} to be 1 or more", least=1)
    options_for(transport, options, where="fault_matrix()")
    ward = _Ward(client, serve, transport, patience, options)
    result, said = ward.unharmed()
    faults = [each for each in faults_for(transport, said, most=replies, seed=seed) if (only or "") in each.name]
    if not faults:
        names = ", ".join(each.name for each in faults_for(transport, said, most=1, seed=seed))
        raise ValueError(f"fault_matrix() expected only= to be part of a fault's name, not {only!r}: {names}")
    fault_results = _each(faults, lambda fault: ward.examined(fault, result), workers)
    return FaultMatrix(f"{getattr(client, '__name__', client)} over {transport}", result, fault_results)


def _each(faults: Sequence[Fault], examine: Callable[[Fault], FaultResult], workers: int) -> list[FaultResult]:
    """Examine all faults, some at a time; return the results in their order, or raise the first error.

    The threads are daemons, so that Ctrl-C in the midst of it ends it: an executor would go on to the last fault.
    """
    waiting = deque(enumerate(faults))
    found: dict[int, FaultResult] = {}
    errors: list[BaseException] = []

    def work() -> None:
        while waiting and not errors:
            try:
                at, fault = waiting.popleft()
            except IndexError:
                return  # another thread was faster
            try:
                found[at] = examine(fault)
            except BaseException as error:
                errors.append(error)

    threads = [Thread(target=work, name="sockserver fault matrix", daemon=True) for _ in range(workers)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        waiting.clear()
    if errors:
        raise errors[0]
    return [found[at] for at in range(len(faults))]


@frozen
class _Ward:
    """Where a client is run: each time with a server of its own."""

    client: Callable[[Any], Any]
    serve: Callable[[Any], object]
    transport: str
    patience: float
    options: dict[str, Any]

    def unharmed(self) -> tuple[object, list[bytes]]:
        """Run the client as it should be; return what it returned, and what the server said, reply by reply."""
        said: list[bytes] = []

        def listen(data: bytes) -> bytes:
            said.append(data)
            return data

        healthy = Fault("none", lambda server: server.inject(listen, times=(0, None)))
        fault_result = self.examined(healthy, None, failures_count=True)
        if fault_result.outcome != RETURNED:
            text = f"the client has to work when nothing is wrong, and {fault_result.told}"
            raise RuntimeError(text) from (fault_result.value if fault_result.outcome == RAISED else None)
        return fault_result.value, said

    def examined(self, fault: Fault, result: object, *, failures_count: bool = False) -> FaultResult:
        """Run the client under a fault; what goes wrong on the server's side is the fault's doing."""
        server = self._server()
        server.start()
        try:
            self.serve(server)
            fault.put(server)
            began = original.monotonic()
            future = server.in_thread(self._run, server)
            with contextlib.suppress(FutureTimeout):
                Future.exception(future, self.patience)
            outcome, value = _outcome(future)
            seconds = original.monotonic() - began
        finally:
            server.stop_timeout = _GRACE
            server.stop()  # which accepts whoever is queued, and joins the client's thread
        connections = _count(server)
        ended = outcome != HUNG or future.done()
        if failures_count:
            failures = [each for each in server.service.verdict.take_failures() if each.error is not value]
            if failures:
                raise RuntimeError("the server fails when nothing is wrong") from failures[0].error
            if outcome == RETURNED and not connections:
                raise RuntimeError(
                    "the client has to connect when nothing is wrong, and it did not: see server.address"
                )
        is_same = outcome == RETURNED and _equal(value, result)
        traceback = _let_go(value) if outcome == RAISED and not failures_count else ""
        return FaultResult(fault.name, fault.sound, outcome, value, seconds, is_same, ended, connections, traceback)

    def _server(self) -> StreamTestServer | DatagramTestServer:
        options = {"timeout": self.patience + _GRACE, **self.options}
        if self.transport in DATAGRAMS:
            return DatagramTestServer(transport=self.transport, **options)
        return StreamTestServer(transport=self.transport, **options)

    def _run(self, server: Any) -> Any:
        if not inspect.iscoroutinefunction(self.client):
            return self.client(server)
        import asyncio

        return asyncio.run(self.client(server))


def _let_go(error: BaseException) -> str:
    """Return what Python prints of an exception, and let go of the frames that it holds."""
    printed = "".join(format_exception(error))
    chain: list[BaseException | None] = [error]
    while chain:
        one = chain.pop()
        if one is not None and one.__traceback__ is not None:
            one.__traceback__ = None
            chain += [one.__cause__, one.__context__]
    return printed


def _count(server: StreamTestServer | DatagramTestServer) -> int:
    return len(server.requests if isinstance(server, DatagramTestServer) else server.connections)


def _outcome(future: Future[Any]) -> tuple[str, Any]:
    if not future.done():
        return HUNG, None
    error = future.exception()
    return (RAISED, error) if error is not None else (RETURNED, future.result())


def _equal(one: object, other: object) -> bool:
    try:
        return bool(one == other)
    except Exception:
        return False  # what cannot be compared, is not known to be the same
