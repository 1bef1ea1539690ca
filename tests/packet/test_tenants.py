"""Two tenants that are the same to the byte, subnets, MACs and addresses, and never hear of each other."""

from __future__ import annotations

import contextlib
import errno
import socket

import pytest

from tests.packet.lab import Lab
from tests.packet.talk import FAMILIES, Capture, free_port, tcp_ask, tcp_server, tell, udp_ask, udp_echo

pytestmark = [pytest.mark.root, pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])]

TWINS = {"a1": "r1", "a2": "r2", "b1": "r3"}


def test_the_twins_are_twins(pair: Lab, family: int) -> None:
    for blue, red in TWINS.items():
        assert pair.endpoint(blue)["mac"] == pair.endpoint(red)["mac"]
        assert pair.address(blue, family) == pair.address(red, family)
        assert pair.endpoint(blue)["tenant"] != pair.endpoint(red)["tenant"]


@pytest.mark.parametrize("server", ["a2", "b1"], ids=["same-host", "cross-host"])
def test_each_hears_its_own(pair: Lab, server: str, family: int) -> None:
    port, address = free_port(), pair.address(server, family)
    with contextlib.ExitStack() as stack:
        for place in (server, TWINS[server]):
            stack.enter_context(tcp_server(pair, place, family, port, tell(place)))
            stack.enter_context(udp_echo(pair, place, family, port, place))
        for client, wanted in (("a1", server), ("r1", TWINS[server])):
            assert tcp_ask(pair, client, address, port, family) == wanted.encode()
            assert udp_ask(pair, client, address, port, family) == wanted.encode()


@pytest.mark.parametrize("server", ["a2", "b1"], ids=["same-host", "cross-host"])
def test_where_the_own_one_does_not_serve_nobody_does(pair: Lab, server: str, family: int) -> None:
    port, address = free_port(), pair.address(server, family)
    with (
        tcp_server(pair, server, family, port, tell(server)),
        pair.socket("r1", FAMILIES[family], socket.SOCK_STREAM) as client,
    ):
        with pytest.raises(ConnectionRefusedError):  # its own twin says so: the stranger's server is not asked
            client.connect((address, port))
        assert tcp_ask(pair, "a1", address, port, family) == server.encode()


def test_an_address_that_only_the_other_tenant_has_does_not_exist(pair: Lab, family: int) -> None:
    port, address = free_port(), pair.address("b2", family)  # red has no such one
    for protocol in ("ipv4", "ipv6"):  # asked in vain three times, a second each, unless told otherwise
        pair.run("r1", "sysctl", "-q", "-w", f"net.{protocol}.neigh.eth0.retrans_time_ms=50")
    with udp_echo(pair, "b2", family, port), Capture(pair, "b2") as ear:
        with (
            pair.socket("r1", FAMILIES[family], socket.SOCK_STREAM) as client,
            pytest.raises(OSError, match="No route") as refused,
        ):
            client.connect((address, port))
        assert refused.value.errno == errno.EHOSTUNREACH
        assert udp_ask(pair, "a1", address, port, family, b"from blue") == b"from blue"
        ear.until(lambda frame: b"from blue" in frame, "what blue sent")
        assert not any(port.to_bytes(2, "big") in frame[34:40] and frame[47:48] == b"\x02" for frame in ear.frames())
