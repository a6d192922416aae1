"""sdnotify: tells a service manager about a service, over a unix datagram socket that is bound to no address."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import pytest
import sdnotify

from pytest_sockserver import DatagramTestServer, SockServer

MakeNotifier = Callable[[str], sdnotify.SystemdNotifier]


@pytest.fixture
def notifier_for(monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeNotifier]:
    """Make a notifier for an address, which it looks up in its environment as services do."""
    notifiers: list[sdnotify.SystemdNotifier] = []

    def make(address: str) -> sdnotify.SystemdNotifier:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        notifiers.append(sdnotify.SystemdNotifier(debug=True))
        return notifiers[-1]

    yield make
    for notifier in notifiers:
        notifier.socket.close()  # it has no close() of its own


def test_states_are_datagrams_from_nobody(unix_datagram_server: DatagramTestServer, notifier_for: MakeNotifier) -> None:
    notifier = notifier_for(str(unix_datagram_server.path))
    notifier.notify("READY=1")
    notifier.notify("STATUS=a\nMAINPID=1")

    ready = unix_datagram_server.next_request()
    assert ready == b"READY=1"
    assert ready.peer is None
    assert unix_datagram_server.next_request() == b"STATUS=a\nMAINPID=1"


def test_nobody_can_be_answered(unix_datagram_server: DatagramTestServer, notifier_for: MakeNotifier) -> None:
    notifier_for(str(unix_datagram_server.path)).notify("READY=1")

    with pytest.raises(ValueError) as caught:
        unix_datagram_server.next_request().reply(b"thank you")

    assert str(caught.value) == (
        "the datagram b'thank you' cannot be sent: its client's socket is not bound to a path, "
        "so it has no address to answer to; return () for no reply"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="abstract names are Linux's")
def test_an_abstract_name(sockserver: SockServer, notifier_for: MakeNotifier) -> None:
    server = sockserver.unix_datagram(path="\0")

    notifier_for("@" + server.path[1:].decode()).notify("READY=1")

    assert server.next_request() == b"READY=1"


def test_a_manager_that_is_gone_is_noticed_in_debug_mode(
    unix_datagram_server: DatagramTestServer, notifier_for: MakeNotifier
) -> None:
    notifier = notifier_for(str(unix_datagram_server.path))
    unix_datagram_server.stop()

    with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
        notifier.notify("STOPPING=1")
