"""The verbs of a server that block, awaitable: for tests whose client lives in an asyncio or trio loop.

A wait here is the same query as in a thread, asked again whenever something has changed; the recorder then wakes the
loop.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from ..connection.aio import AsyncConnection
from ..connection.deadline import Deadline
from ..connection.loops import arrive, look_until, run_in_loop
from ..connection.request import Request
from ..errors.location import hide_frame
from ..errors.messages import old_attributes
from ..recording.failures import Expected, combined
from ..scripting.matching import ANY, Match
from ..scripting.parts import Part
from . import queries
from .datagram_service import DatagramService
from .idle import DRAIN_BOUND
from .stream_service import StreamService

if TYPE_CHECKING:
    from .service import Service

__tracebackhide__ = hide_frame


class AsyncServer:
    """The waits of a server, awaitable.  Arguments, results and errors are those of the server's own."""

    def __init__(self, service: Service) -> None:
        self._service = service

    if not TYPE_CHECKING:  # which would take any name for a known one
        __getattr__ = old_attributes("server.aio")

    async def wait_for(self, match: Match = ANY, count: int = 1, *, timeout: float | None = None) -> Request:
        """Return the ``count``-th request that matches; wait for it if need be."""
        return await arrive(queries.request(self._service, match, count, timeout))

    async def next_request(self, match: Match = ANY, *, timeout: float | None = None) -> Request:
        """Return the earliest request that matches and that no call has returned yet; wait for it if need be.

        It is MockWebServer's ``takeRequest``.
        """
        return await arrive(queries.untaken_request(self._service, match, timeout))

    async def assert_no_traffic(self, seconds: float) -> None:
        """Assert that for ``seconds`` from now on no byte, no datagram and no connection arrives."""
        with self._service.traffic.reading_all():
            # What was sent before this call is no noise.
            await look_until(self._service.verdict.has_handled_all, Deadline(DRAIN_BOUND).left, 0.001)
            await arrive(queries.quiet(self._service, seconds))

    async def wait_connection(self, index: int = 0, *, timeout: float | None = None) -> AsyncConnection:
        """Return the connection with this index; wait for it if need be."""
        conversation = await arrive(queries.connection(self._streams("wait_connection"), index, timeout))
        return AsyncConnection(conversation.face)

    async def accept(self, *, timeout: float | None = None) -> AsyncConnection:
        """Return the earliest connection not taken yet, to be driven by the test; its verbs are awaitable."""
        service = self._streams("accept")
        conversation = service.connections.accepted(await arrive(queries.untaken_connection(service, timeout)))
        return AsyncConnection(conversation.face)

    async def send_to(self, peer: Any, *parts: Part) -> None:
        """Say parts to an address that has not asked, from a datagram server."""
        service = self._service
        if not isinstance(service, DatagramService):
            raise AttributeError(f"a {service.transport} server has no send_to(): its connections have send()")
        outlet = service.peers.unasked_peer(peer, parts)
        await run_in_loop(outlet.unasked(parts), outlet)

    async def verify(self) -> None:
        """Wait until the handlers are done or idle, at most a second, and raise what went wrong so far."""
        # Idleness is partly the kernel's, which rings no bell.
        await look_until(self._service.verdict.is_settled, Deadline(DRAIN_BOUND).left, 0.001)
        failures = self._service.verdict.take_failures()
        if failures:
            raise combined(failures)

    @asynccontextmanager
    async def raises(
        self, type: type[BaseException] | tuple[type[BaseException], ...], match: str | None = None
    ) -> AsyncIterator[Expected]:
        """Expect a failure on the server's side: ``async with server.aio.raises(ValueError): ...``."""
        expected = self._service.expect_failure(type, match)
        try:
            yield expected
            await arrive(queries.failure(self._service, expected))
        finally:
            self._service.context.failures.unexpect(expected)

    def _streams(self, verb: str) -> StreamService:
        service = self._service
        if not isinstance(service, StreamService):
            raise AttributeError(f"a {service.transport} server has no {verb}(): it has datagrams, and next_request()")
        return service
