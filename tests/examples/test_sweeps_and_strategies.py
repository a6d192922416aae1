"""Show a client every cut of a reply, every break of a conversation, and faults that hypothesis thinks of."""

import re
import socket

import pytest
from hypothesis import find, given, settings

from pytest_sockserver import Close, Cut, Script, StreamTestServer
from pytest_sockserver.strategies import faults, segmentations, truncations
from pytest_sockserver.sweeps import cuts, resets, splits

# The client under test


class BadReply(Exception):
    """What a client says of a thermometer that talks nonsense, or not at all."""


def read_temperature(address):
    try:
        with socket.create_connection(address, timeout=1) as sock, sock.makefile("rb") as file:
            sock.sendall(b"TEMP?\r\n")
            line = file.readline(80)
    except OSError as error:
        raise BadReply("no thermometer") from error
    found = re.fullmatch(rb"(-?\d+\.\d) C\r\n", line)
    if found is None:
        raise BadReply(line)
    return float(found[1])


# Sweeps

REPLY = b"21.5 C\r\n"


@pytest.mark.parametrize("cut", cuts(REPLY))
def test_part_of_a_reply_is_none(tcp_server, cut):
    tcp_server.on(b"TEMP?\r\n").reply(cut, Close())

    with pytest.raises(BadReply):
        read_temperature(tcp_server.address)


@pytest.mark.parametrize("split", splits(REPLY))
def test_reply_may_come_in_two_pieces(tcp_server, split):
    tcp_server.on(b"TEMP?\r\n").reply(split)

    assert read_temperature(tcp_server.address) == 21.5


CONVERSATION = Script().expect(b"TEMP?\r\n").send(REPLY[:4]).send(REPLY[4:])


@pytest.mark.parametrize("script", resets(CONVERSATION)[:-1])
def test_reset_is_a_bad_reply_at_any_step(tcp_server, script):
    tcp_server.script().extend(script)

    with pytest.raises(BadReply):
        read_temperature(tcp_server.address)


# Strategies


@pytest.fixture(scope="module")
def thermometer(sockserver_module):
    return sockserver_module.tcp(name="thermometer")


@settings(deadline=None)
@given(parts=faults(REPLY))
def test_client_knows_what_to_say_of_any_fault(thermometer, parts):
    thermometer.clear()  # what the example before declared and recorded
    thermometer.on(b"TEMP?\r\n").reply(*parts)

    try:
        assert isinstance(read_temperature(thermometer.address), float)
    except BadReply:
        pass  # and no other exception

    thermometer.verify()  # what went wrong in the server belongs to this example


@settings(deadline=None, max_examples=50)
@given(part=segmentations(REPLY))
def test_reply_may_come_in_any_pieces(part):
    with StreamTestServer() as server:
        server.on(b"TEMP?\r\n").reply(part)

        assert read_temperature(server.address) == 21.5


# What is found


def read_carelessly(address):
    """A client that takes whatever comes before the end for the reply."""
    with socket.create_connection(address, timeout=1) as sock, sock.makefile("rb") as file:
        sock.sendall(b"TEMP?\r\n")
        return float(file.readline().split()[0])


def test_the_smallest_that_deceives_a_careless_client(thermometer):
    def deceives(parts):
        thermometer.clear()
        thermometer.on(b"TEMP?\r\n").reply(*parts)
        try:
            return read_carelessly(thermometer.address) != 21.5
        except (OSError, IndexError, ValueError):
            return False

    found = find(truncations(REPLY), deceives)

    assert found == (Cut(REPLY, 1), Close())  # 2 degrees
