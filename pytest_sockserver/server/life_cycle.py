"""Start a server, and stop it: each is one function that reads from top to bottom, for streams and for datagrams.

To start is: bind and listen; publish the address; make what accepts; start its loop.

To stop is, in order: end the accept loop; accept what is queued; let the handlers take what has arrived;
close the listener; cut every live connection; join every thread, all against one deadline; name the rest.

A stop may be interrupted at any line, by Ctrl-C or a time limit, and is then done again, in haste: so each of its steps
may be done twice.
"""

from __future__ import annotations

import contextlib
import socket
import sys
from typing import TYPE_CHECKING, Final, cast

from ..connection.deadline import Deadline
from ..errors.exceptions import ServerStopping
from ..errors.location import hide_frame
from ..originals import Thread, current_thread, original
from ..recording.demands import adopt
from ..transport.address import bind_datagram, enlarge
from ..transport.tapped_socket import ready
from . import forgotten
from .idle import drain_bound, end_of_patience, join, wait_idle
from .leaving import Haste
from .loop import AcceptingServer, PreparedLoop
from .service import Service

if TYPE_CHECKING:
    from .datagram_service import DatagramService
    from .stream_service import StreamService

__tracebackhide__ = hide_frame

# The state is one string, `context.state`.  It is written here and in `outages`, and only by the thread that holds
# `life` (but for a forked child and an interpreter that ends); any thread may read it without a lock.  `stopped` has no
# descriptor.  All states between `new` and `stopped` keep the address, and differ only in what a client meets there.
#
# Rules of a stop, and what goes wrong in another order:
#
# - The loop ends before anything is drained.  The stopping thread then takes the queue itself, so that exactly one
#   thread accepts at any time.
# - The queue is taken before the listener is closed.  To close a listener resets the connections in its queue, and a
#   message that has arrived would be lost.
# - The drain comes before the cut.  A handler that is cut first never takes what its client sent in time.
# - Probes are judged before the cut.  Afterwards no socket shows any more that its client left by itself.
# - A socket is shut down and not closed while its thread runs: close() wakes no thread that blocks in recv(), and frees
#   a number that may belong to another file a moment later.
# - Helpers are closed before anything is joined, since a thread that is not asked to end is waited for in vain.
# - Threads are joined before the remaining sockets are finished, since until then their owner is that thread.
# - The name of the socket file goes after the joins.  A stuck thread is reported last of all, since a stop that was
#   interrupted runs again, and what it has reported is reported twice.
#
# Each step may be done twice.  Therefore each looks at what is there (a descriptor of -1, a list, a flag) instead of
# relying on the step before, and the state becomes `stopped` only after the last of them.
#
# A thread of the server may stop it.  That thread never waits for `life`, since the holder may be joining it, and
# nobody joins the thread that calls.  It is kept in `left_over`, and a later stop from another thread joins it.
#
# Not done: a stop kills no thread, and does not wait for a connection that the test itself drives.


#: Seconds.  A stop takes what is queued for so long at most: clients that come back, or send on, would not let it end.
_ACCEPTING: Final = 0.25


def one_at_a_time(service: Service, seconds: float | None = None) -> contextlib.AbstractContextManager[object]:
    """Hold the life cycle for a block.  A thread of this server does not wait: its holder may be joining it.

    Args:
        seconds: How long to wait; ``None`` for no limit.

    Raises:
        ServerStopping: It was not to be had: another thread starts or stops the server.
    """
    own = service.is_in_own_thread()
    if seconds is None and not own:
        # Itself: Ctrl-C between an acquire() and its try would leave it locked.
        return service.life  # type: ignore[no-any-return]
    if not service.life.acquire(timeout=0 if own or seconds is None else seconds):
        raise ServerStopping("the server is being started or stopped by another thread, which waits for this one")
    held = contextlib.ExitStack()
    held.callback(service.life.release)
    return held


# Starting


def start(service: Service) -> None:
    """Bind, listen and serve; return when clients can connect."""
    context = service.context
    with one_at_a_time(service):
        if context.state == "started":
            return
        if context.state not in ("new", "stopped"):
            listen_again(service)
            return
        try:
            if service.has_datagrams:
                _begin_datagrams(cast("DatagramService", service))
            else:
                _begin_streams(cast("StreamService", service))
        except BaseException:
            if service.published.place is not None:
                service.published.place.release()
            raise
        # Only now, so that a start which fails leaves the state as it was, and can be tried again.
        context.state = "started"
        context.is_over = service.is_stopping = False
        forgotten.note_start(service)
        if not context.demands.are_judged_by_hooks:
            adopt(service)


def _begin_streams(service: StreamService) -> None:
    bound, service.bound = service.bound, None
    service.connections.begin()
    serve_streams(service, service.listener.listen(bound))


def serve_streams(service: StreamService, listening: socket.socket) -> None:
    """Accept from a socket that listens."""
    connections = service.connections
    before = connections.framework
    connections.framework = framework = AcceptingServer(connections, listening, service.options.backlog)
    if before is not None and service.context.state not in ("new", "stopped"):
        # Handlers of connections from before an outage still run: the new framework has to join them as well.
        framework.go_on_from(before)
    _start_loop(service, framework)


def _begin_datagrams(service: DatagramService) -> None:
    bound, service.bound = service.bound, None
    service.peers.begin()
    serve_datagrams(service, bound if bound is not None else bind_for_datagrams(service))


def bind_for_datagrams(service: DatagramService, *, beside: bool = False) -> socket.socket:
    """Return a bound socket, at once beside the one that held its port."""
    published, rcvbuf = service.published, service.options.rcvbuf
    if published.place is not None:
        return published.place.bind(socket.SOCK_DGRAM, rcvbuf)
    return bind_datagram(published.family, *published.to_bind(), rcvbuf, reuse=beside)


def serve_datagrams(service: DatagramService, bound: socket.socket) -> None:
    """Receive on a socket."""
    service.published.publish(bound)
    if service.options.rcvbuf is None:
        enlarge(bound)
    _start_loop(service, service.peers.receive_on(bound))


def _start_loop(service: Service, framework: PreparedLoop) -> None:
    # The loop's wake-up exists before its thread does: all descriptors are there when start() returns.
    framework.prepare_loop()
    name = f"sockserver {service.published.label}"
    service.loop = Thread(target=service.run_loop, args=(framework.serve_forever,), name=name, daemon=True)
    try:
        service.loop.start()
    except BaseException:
        framework.server_close()
        raise


def listen_again(service: Service) -> None:
    """Accept, or receive, again on the same address, in whichever way nobody could connect."""
    context = service.context
    if context.state == "started":
        return
    if service.has_datagrams:
        _receive_again(cast("DatagramService", service))
    else:
        _accept_again(cast("StreamService", service))
    context.state = "started"


def _accept_again(service: StreamService) -> None:
    listener, state = service.listener, service.context.state
    if state == "forbidden":
        listener.permit()
        return
    if state == "unlinked":
        end_accepting(service, Deadline(service.stop_timeout))
        listener.refuse()
    elif state in ("a black hole", "overflowing"):
        drain_queue(service)
    serve_streams(service, listener.listen_again())


def _receive_again(service: DatagramService) -> None:
    assert service.peers.framework is not None
    holder = service.peers.framework.socket
    holds = holder.fileno() >= 0
    if holds:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # The new socket is bound while the old one, if there is one, holds the port: no other process can take the number
    # in between.
    bound = bind_for_datagrams(service, beside=holds)
    if holds:
        service.peers.replace(holder)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    serve_datagrams(service, bound)


# Stopping


def stop(service: Service, haste: Haste | None) -> None:
    """Stop; in haste if there is cause.

    An exception from a signal's handler (Ctrl-C, a time limit) may come at any line.  What it has interrupted is
    done again, each step of which may be done twice, in haste; then it goes on its way.
    """
    interrupt: BaseException | None = None
    while True:
        try:
            _stop_once(service, haste)
            break
        except Exception:
            raise
        except BaseException as error:
            interrupt, haste = interrupt or error, haste or Haste()
            if not haste.left:
                break
    if interrupt is not None:
        raise interrupt


def _stop_once(service: Service, haste: Haste | None) -> None:
    context = service.context
    # These two come before any lock: in both cases no other thread runs any more, and a lock that one of them holds is
    # never released.
    if original.getpid() != service.pid:
        # In a forked child, before any lock: another thread of the parent may have held it at the fork.
        service.close_descriptors()
        context.state = "stopped"
        return
    if sys.is_finalizing():
        # A generator that was never closed is closed now.  No daemon thread runs any more: none can be waited for.
        service.close_descriptors()
        service.release_place()
        context.state = "stopped"
        return
    deadline = Deadline(service.stop_timeout) if haste is None else haste.deadline(service.stop_timeout)
    try:
        with haste or contextlib.nullcontext(), one_at_a_time(service, None if haste is None else deadline.left()):
            if context.state not in ("new", "stopped"):
                service.is_stopping = True
                if service.is_in_own_thread():
                    service.left_over.append(current_thread())
                if service.has_datagrams:
                    _end_datagrams(cast("DatagramService", service), deadline)
                else:
                    _end_streams(cast("StreamService", service), deadline)
                # One step with the change that is counted: a wait that wakes sees the stop, and none sleeps over it.
                with context.recorder.lock:
                    context.state, service.is_stopping = "stopped", False
                    context.recorder.changed()
                forgotten.note_stop(service)
            _join_left_over(service, deadline)
    except ServerStopping:
        return  # another thread is stopping it, and waits for this very one


def _end_streams(service: StreamService, deadline: Deadline) -> None:
    connections, framework = service.connections, service.connections.framework
    assert framework is not None
    if service.context.state == "started":
        end_accepting(service, deadline)
    wait_idle(connections.is_drained, drain_bound(deadline))  # the handlers take what has arrived
    service.context.probes.look()  # what is cut below has not left by itself
    with contextlib.suppress(OSError):
        framework.socket.shutdown(socket.SHUT_RDWR)
    connections.wait_no_longer()
    clients = service.cut_clients()
    live = connections.cut_off()
    peers = {each.thread: each.peer for each in live if each.thread is not None}
    helpers = connections.close_helpers()
    service.listener.close_fillers()
    for connection in live:
        connection.end_frames()
    until = end_of_patience(deadline)
    # server_close() joins with the time that is left; the join after it only finds out which threads live on.
    framework.close_timeout = until - original.monotonic()
    handlers = framework.request_threads()
    framework.server_close()  # which joins them
    stuck = join([*handlers, *helpers, *clients, *connections.framers], until)
    for connection in live:
        connection.finish()
    connections.let_go_of_live()
    if service.trust is not None:
        service.trust.release()
    service.release_place()
    service.name_stuck(stuck, peers, deadline)  # last: what is interrupted is done again, and this only once


def _end_datagrams(service: DatagramService, deadline: Deadline) -> None:
    peers = service.peers
    if service.context.state == "started":
        end_receiving(service, deadline)
    # The answering thread cannot drain itself: the reply that it is in would never be over.
    if current_thread() is not peers.outbox.answerer:
        wait_idle(peers.all_answered, drain_bound(deadline))
    answering = peers.say_no_more()
    answerer = peers.outbox.answerer
    names = {answerer: answering.peer} if answering is not None and answerer is not None else {}
    until = end_of_patience(deadline)
    stuck = join([answerer, *service.cut_clients()], until)
    peers.close()
    service.release_place()
    service.name_stuck(stuck, names, deadline)  # last, as above


def end_accepting(service: StreamService, deadline: Deadline) -> None:
    """End the accept loop, and accept what is queued."""
    connections, framework = service.connections, service.connections.framework
    assert framework is not None
    framework.shutdown()
    join([service.loop], end_of_patience(deadline))
    if framework.socket.fileno() < 0:
        return  # closed by an earlier stop that was interrupted, or by a handler
    framework.socket.setblocking(False)
    before, until = -1, original.monotonic() + min(_ACCEPTING, deadline.left() or 0.0)
    while before < connections.admitted and original.monotonic() < until and ready(framework.socket, False, 0):
        before = connections.admitted  # an accept that fails (EMFILE) leaves the socket readable
        framework.take_one()


def drain_queue(service: StreamService) -> None:
    """Accept whoever has come between, and drop our own connections, which fill the queue."""
    framework, until = service.connections.framework, original.monotonic() + _ACCEPTING
    assert framework is not None
    while ready(framework.socket, False, 0) and original.monotonic() < until:
        framework.take_one()
    service.listener.close_fillers()


def end_receiving(service: DatagramService, deadline: Deadline) -> None:
    """End the loop, and receive what is queued."""
    framework, recorder = service.peers.framework, service.context.recorder
    assert framework is not None
    framework.shutdown()
    join([service.loop], end_of_patience(deadline))
    before, until = -1 if framework.socket.fileno() >= 0 else recorder.arrivals, original.monotonic() + _ACCEPTING
    while before < recorder.arrivals and original.monotonic() < until and ready(framework.socket, False, 0):
        before = recorder.arrivals
        framework.take_one()


def _join_left_over(service: Service, deadline: Deadline) -> None:
    """Join the threads that have stopped the server themselves, and so could not be joined by that stop."""
    threads = [each for each in service.left_over if each is not current_thread()]
    service.left_over = [each for each in service.left_over if each is current_thread()]
    if threads:
        service.name_stuck(join(threads, end_of_patience(deadline)), {}, deadline)
