"""Unix sockets: what their paths, their queues and their ancillary data can do to a client."""

from __future__ import annotations

import ast
import atexit
import os
import socket
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from pytest_sockserver.faults import Descriptors

from .client import END, Client, named, read
from .listeners import (
    BACK,
    answering,
    one_script,
    refused_and_back,
    refused_from_the_start,
    script_is_for_clients,
    talk,
)
from .rows import ASK, BYE, NEXT, SAID, Row, in_places


def wrong_type(client: Client) -> object:
    kind = socket.SOCK_STREAM if client.is_datagram else socket.SOCK_DGRAM
    sock = client.kept(socket.socket(socket.AF_UNIX, kind))
    try:
        sock.connect(client.server.address)
    except OSError as error:
        return named(error)
    return "connected"


def replaced(client: Client) -> object:
    """While the path is gone somebody else's file is there: that is no socket, and is not removed."""
    sock, path = client.connected(), client.server.path
    with client.server.unlink():
        gone = client.attempt()
        with open(path, "w") as file:
            file.write("somebody else's")
        theirs = client.attempt()
        os.unlink(path)
        sock.sendall(ASK)
        live = read(sock, len(SAID))
    return gone, theirs, live, talk(client)


FILE = tempfile.TemporaryFile()  # noqa: SIM115  # each client gets descriptors of its own
atexit.register(FILE.close)
FILE.write(b"from the file")
FILE.flush()


def descriptors(client: Client) -> object:
    sock = client.connected()
    sock.sendall(ASK)
    data, files, flags, _ = socket.recv_fds(sock, 100, 4)
    contents = [os.pread(each, 100, 0) for each in files]
    for each in files:
        os.close(each)
    sock.sendall(BYE)
    more, end = client.rest(sock)
    return data + more, end, contents, bool(flags & socket.MSG_CTRUNC)


def truncated_descriptors(client: Client) -> object:
    """A client that has room for one gets one, and is told that it lost the other (MSG_CTRUNC)."""
    sock = client.connected()
    sock.sendall(ASK)
    # Not CMSG_SPACE, whose padding has room for two.
    data, ancillary, flags, _ = sock.recvmsg(100, socket.CMSG_LEN(4))
    numbers = [int.from_bytes(each[2][:4], "little") for each in ancillary]
    for each in numbers:
        os.close(each)
    return data, len(numbers), bool(flags & socket.MSG_CTRUNC)


def no_descriptors_wanted(client: Client) -> object:
    sock = client.connected()
    sock.sendall(ASK)
    return read(sock, 8)


# Permissions, which root may pass by

ROOT = Path(__file__).parents[2]
NOBODY = 65534
CHILD = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]
from faults.unix import as_nobody
print(as_nobody())
"""


def forbidden(client: Client) -> object:
    """Of a process of root's a child does this, as another user."""
    if os.geteuid() != 0:
        return refused_and_back(client, "forbid")
    child = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, timeout=60, check=False)
    return ast.literal_eval(child.stdout) if child.returncode == 0 else child.stderr


def as_nobody() -> object:
    """Become nobody, once all is imported that nobody may be forbidden to read; return what a client of his sees."""
    Row("U4", "", ("unix",), answering, partial(refused_and_back, shut="refuse"), ()).run("unix")
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    return FORBIDDEN.run("unix")[0]


FORBIDDEN = Row(
    "U6",
    "the path is forbidden",
    ("unix",),
    answering,
    forbidden,
    (True, ["EACCES", "EACCES"], SAID, BACK),
)

ROWS = [
    FORBIDDEN,
    Row(
        "U2",
        "the queue is full",
        ("unix",),
        answering,
        partial(refused_and_back, shut="overflow"),
        (True, ["EAGAIN", "EAGAIN"], SAID, BACK),
    ),
    Row(
        "U2",
        "the queue is full, before a script",
        ("unix",),
        one_script,
        partial(script_is_for_clients, shut="overflow"),
        ("EAGAIN", BACK),
    ),
    Row(
        "U3",
        "the path is gone",
        ("unix",),
        answering,
        partial(refused_and_back, shut="unlink"),
        (True, ["ENOENT", "ENOENT"], SAID, BACK),
    ),
    Row("U4", "nobody listens behind the path", ("unix",), refused_from_the_start, Client.attempt, "ECONNREFUSED"),
    Row("U5", "a socket of the wrong type", ("unix", "unix_datagram"), lambda server: None, wrong_type, "EPROTOTYPE"),
    Row(
        "U7",
        "the path is somebody else's for a while",
        ("unix",),
        answering,
        replaced,
        ("ENOENT", "ECONNREFUSED", SAID, BACK),
    ),
    *in_places(
        "U9",
        "descriptors",
        lambda data: (Descriptors(SAID, FILE, FILE.fileno()), NEXT),
        descriptors,
        (SAID + NEXT, END, [b"from the file", b"from the file"], False),
        transports=("unix",),
    ),
    *in_places(
        "U10",
        "more descriptors than there is room for",
        lambda data: (Descriptors(SAID, FILE, FILE),),
        truncated_descriptors,
        (SAID, 1, True),
        transports=("unix",),
        open=False,
    ),
    *in_places(
        "U10",
        "descriptors for a client that wants none",
        lambda data: (Descriptors(b"for none", FILE),),
        no_descriptors_wanted,
        b"for none",
        transports=("unix",),
        open=False,
    ),
    Row(
        "U12",
        "an abstract name, refused and back",
        ("unix",),
        answering,
        partial(refused_and_back, shut="refuse"),
        (True, ["ECONNREFUSED", "ECONNREFUSED"], SAID, BACK),
        options={"path": "\0"},
    ),
]
