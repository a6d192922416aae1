"""ntplib: 48 bytes to the server and 48 back, with the client's own time among them."""

from __future__ import annotations

import struct

import ntplib
import pytest

from pytest_sockserver import DatagramTestServer, Request, SockServer

FROM_1900_TO_1970 = 2_208_988_800  # seconds: NTP's epoch and Unix's (RFC 5905 section 6)


def time_to(request: bytes, seconds: int, *, stratum: int = 2, ref_id: bytes = b"TEST") -> bytes:
    """Answer in mode 4, a server's: the client's time of sending, then ours of receiving and of sending."""
    ours = struct.pack(">II", seconds + FROM_1900_TO_1970, 0)
    return bytes([0x24, stratum, 0, 0xEC]) + bytes(8) + ref_id + ours + request[40:48] + ours + ours


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_servers_time_is_read(sockserver: SockServer, host: str) -> None:
    server = sockserver.udp(host=host)

    @server.handler
    def be_in_2020(request: Request) -> bytes:
        return time_to(request, 1_577_836_800)

    stats = ntplib.NTPClient().request(host, version=4, port=server.port)

    assert stats.tx_time == 1_577_836_800
    assert stats.offset < 0
    assert stats.stratum == 2
    request = server.requests[0]
    assert len(request) == 48
    assert request[0] == (4 << 3 | 3)  # version 4, mode 3: a client's


def test_a_lost_request_is_an_error_after_the_timeout(udp_server: DatagramTestServer) -> None:
    with pytest.raises(ntplib.NTPException, match=r"^No response received from 127\.0\.0\.1\.$"):
        ntplib.NTPClient().request(udp_server.host, port=udp_server.port, timeout=0.05)

    udp_server.wait_for()


def test_a_kiss_of_death_is_told_by_stratum_and_reference(udp_server: DatagramTestServer) -> None:
    @udp_server.handler
    def deny(request: Request) -> bytes:
        return time_to(request, 0, stratum=0, ref_id=b"DENY")

    stats = ntplib.NTPClient().request(udp_server.host, port=udp_server.port)

    assert stats.stratum == 0
    assert stats.ref_id == int.from_bytes(b"DENY", "big")
