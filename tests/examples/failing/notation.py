import socket

import pytest


def test_every_kind_of_line(tcp_server, udp_server):
    @tcp_server.handler
    def talk(conn):
        conn.send(b"220 ready\r\n")
        conn.recv_line()
        conn.send(b"250 half a reply")
        conn.recv_exactly(6)
        conn.send(b"\x00\x01\xfe\xff")
        conn.send_eof()
        conn.expect_eof()

    with socket.create_connection(tcp_server.address) as client:
        client.sendall(b"HELO caf\xc3\xa9\ttab \r\n")
        while not client.recv(1024).endswith(b"half a reply"):
            pass
        client.sendall(b"\x00\x00\x00\x02\x80\x81")
        while client.recv(1024):
            pass

    for _ in range(2):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"hits:1|c", udp_server.address)
    udp_server.wait_for(count=2)

    pytest.fail("look at the sections below")
