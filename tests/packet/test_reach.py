"""Containers of one network reach each other: on one host, across two, by every protocol and in both families."""

from __future__ import annotations

import os

import pytest

from tests.packet.lab import Lab
from tests.packet.talk import TEN_MEGABYTES, digest, free_port, ping, send_intact, tcp_server, udp_ask, udp_echo

pytestmark = [
    pytest.mark.root,
    pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"]),
    pytest.mark.parametrize("receiver", ["a2", "b1"], ids=["same-host", "cross-host"]),
]


def test_every_ping_is_answered_from_the_first_on(pair: Lab, receiver: str, family: int) -> None:
    assert ping(pair, "a1", pair.address(receiver, family), count=20)
    assert ping(pair, receiver, pair.address("a1", family), count=20)


def test_a_stream_arrives_intact(pair: Lab, receiver: str, family: int) -> None:
    port, data = free_port(), os.urandom(TEN_MEGABYTES)
    with tcp_server(pair, receiver, family, port, digest):
        send_intact(pair, "a1", pair.address(receiver, family), port, family, data)


def test_datagrams_are_answered(pair: Lab, receiver: str, family: int) -> None:
    port = free_port()
    with udp_echo(pair, receiver, family, port):
        for size in (0, 1, 512, 1300, 9000):  # the last one in fragments
            data = os.urandom(size)
            assert udp_ask(pair, "a1", pair.address(receiver, family), port, family, data) == data
