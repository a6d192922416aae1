"""Let the test say when: gates instead of sleeps."""

import asyncio
import socket
import subprocess
import sys

import pytest

from pytest_sockserver import Gate, lines


def ask(address, question):
    """Ask, and wait for the answer."""
    with socket.create_connection(address) as sock, sock.makefile("rb") as answers:
        sock.sendall(question)
        return answers.readline()


class Job:
    """A client that says at once that its job is begun, and later what came of it."""

    def __init__(self):
        self.state = "new"

    def run(self, address):
        self.state = "running"
        answer = ask(address, b"RUN\n")
        self.state = "done" if answer == b"OK\n" else "failed"


def test_state_while_the_server_takes_its_time(tcp_server):
    tcp_server.script().expect(b"RUN\n").send(Gate("finish"), b"OK\n")
    job = Job()

    run = tcp_server.in_thread(job.run, tcp_server.address)
    tcp_server.wait_for(b"RUN\n")
    assert job.state == "running"

    tcp_server.open_gate("finish")
    run.result()
    assert job.state == "done"


def test_cached_answer_is_given_while_the_first_question_is_open(tcp_server):
    tcp_server.framing = lines(b"\n")
    tcp_server.on(b"SLOW\n").reply(Gate("slow"), b"slow\n")
    tcp_server.on(b"QUICK\n").reply(b"quick\n")

    slow = tcp_server.in_thread(ask, tcp_server.address, b"SLOW\n")
    tcp_server.wait_for(b"SLOW\n")
    assert ask(tcp_server.address, b"QUICK\n") == b"quick\n"
    assert not slow.done()

    tcp_server.open_gate("slow")
    assert slow.result() == b"slow\n"


# One connection waits for another


def test_first_connection_is_answered_after_the_second(tcp_server):
    tcp_server.script().expect(b"1\n").send(Gate("second"), b"first\n")
    tcp_server.script().expect(b"2\n").send(b"second\n").open_gate("second")

    with socket.create_connection(tcp_server.address) as first:
        first.sendall(b"1\n")
        assert ask(tcp_server.address, b"2\n") == b"second\n"
        assert first.recv(100) == b"first\n"


def test_first_connection_is_answered_after_the_second_in_a_dialogue(tcp_server):
    tcp_server.dialogue(r"""
        % eol lf
        == 0
        C: 1
        S! wait second
        S: first
        == 1
        C: 2
        S: second
        S! open second
    """)

    with socket.create_connection(tcp_server.address) as first:
        first.sendall(b"1\n")
        assert ask(tcp_server.address, b"2\n") == b"second\n"
        assert first.recv(100) == b"first\n"


def test_gate_of_a_dialogue_is_opened_by_the_test(tcp_server):
    tcp_server.dialogue(r"""
        % eol lf
        C: RUN
        S: begun
        S! wait finish
        S: OK
    """)

    with socket.create_connection(tcp_server.address) as sock, sock.makefile("rb") as answers:
        sock.sendall(b"RUN\n")
        assert answers.readline() == b"begun\n"
        tcp_server.open_gate("finish")
        assert answers.readline() == b"OK\n"


# Datagrams


def test_answers_to_datagrams_overtake_each_other(udp_server):
    udp_server.on(b"1").reply(Gate("second"), b"first")
    udp_server.on(b"2").reply(b"second")

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(udp_server.address)
        client.send(b"1")
        client.send(b"2")
        assert client.recv(100) == b"second"
        udp_server.open_gate("second")
        assert client.recv(100) == b"first"


# Other kinds of client

CLIENT = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as sock, sock.makefile("rb") as answers:
    sock.sendall(b"RUN\\n")
    print(answers.readline())
"""


def test_client_in_another_process(tcp_server):
    tcp_server.script().expect(b"RUN\n").send(Gate("finish"), b"OK\n")

    command = [sys.executable, "-S", "-c", CLIENT, tcp_server.host, str(tcp_server.port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        tcp_server.wait_for(b"RUN\n")
        assert process.poll() is None
        tcp_server.open_gate("finish")
        assert process.stdout.read().strip() == b"b'OK\\n'"


@pytest.mark.asyncio
async def test_coroutine(tcp_server):
    tcp_server.script().expect(b"RUN\n").send(Gate("finish"), b"OK\n")
    reader, writer = await asyncio.open_connection(*tcp_server.address)
    answer = asyncio.create_task(reader.readline())

    writer.write(b"RUN\n")
    await tcp_server.aio.wait_for(b"RUN\n")
    assert not answer.done()

    tcp_server.open_gate("finish")  # never blocks
    assert await answer == b"OK\n"
    writer.close()
    await writer.wait_closed()


# What a gate is


def test_gate_stays_open(tcp_server):
    tcp_server.framing = lines(b"\n")
    tcp_server.on(b"RUN\n").reply(Gate("ready"), b"OK\n")

    tcp_server.open_gate("ready")  # before anybody waits for it

    assert ask(tcp_server.address, b"RUN\n") == b"OK\n"
    assert ask(tcp_server.address, b"RUN\n") == b"OK\n"


def test_gate_for_each_turn(tcp_server):
    tcp_server.framing = lines(b"\n")
    tcp_server.on(b"RUN\n").reply(Gate("1st"), b"1\n").then(Gate("2nd"), b"2\n")

    with socket.create_connection(tcp_server.address) as sock, sock.makefile("rb") as answers:
        for gate, answer in (("1st", b"1\n"), ("2nd", b"2\n")):
            sock.sendall(b"RUN\n")
            tcp_server.open_gate(gate)
            assert answers.readline() == answer


def test_gate_that_nobody_opens(sockserver):
    server = sockserver.tcp(timeout=0.05)
    server.script().send(Gate("finish"), b"OK\n")

    with server.raises(TimeoutError, match=r"the gate 'finish' was not opened within 0.05 s"):
        with pytest.raises(ConnectionResetError):
            ask(server.address, b"")
