"""The MTU is exact to the byte, and a smaller uplink is said to who sends, not suffered in silence."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import select
import socket
import struct
from collections.abc import Iterator

import pytest

from sdn.model.resources import VXLAN_OVERHEAD_BYTES
from tests.packet.lab import WAIT_S, Lab
from tests.packet.talk import (
    FAMILIES,
    TEN_MEGABYTES,
    Capture,
    digest,
    free_port,
    outer_of,
    ping,
    read_all,
    tcp_server,
    udp_echo,
)

pytestmark = [pytest.mark.root, pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])]

UNDERLAY_MTU = 1500
LOWERED_MTU = 1400
HEADERS = {4: 20 + 8, 6: 40 + 8}
_IP_MTU_DISCOVER, _IP_MTU = 10, 14
_IPV6_MTU_DISCOVER, _IPV6_MTU, _IPV6_DONTFRAG = 23, 24, 62
_PMTUDISC_DO = 2


def whole_datagrams(lab: Lab, place: str, family: int) -> socket.socket:
    """A UDP socket that sends a datagram in one piece or not at all."""
    made = lab.socket(place, FAMILIES[family], socket.SOCK_DGRAM)
    if family == 4:
        made.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_DO)
    else:
        made.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_DO)
        made.setsockopt(socket.IPPROTO_IPV6, _IPV6_DONTFRAG, 1)
    return made


def path_mtu(connected: socket.socket, family: int) -> int:
    """What the kernel knows of the path of a connected socket."""
    if family == 4:
        return connected.getsockopt(socket.IPPROTO_IP, _IP_MTU)
    return connected.getsockopt(socket.IPPROTO_IPV6, _IPV6_MTU)


@pytest.mark.parametrize("receiver", ["a2", "b1"], ids=["same-host", "cross-host"])
def test_the_largest_packet_passes_and_one_byte_more_is_refused_at_home(
    pair: Lab, underlay_family: int, receiver: str, family: int
) -> None:
    mtu, port = UNDERLAY_MTU - VXLAN_OVERHEAD_BYTES[underlay_family], free_port()
    largest = os.urandom(mtu - HEADERS[family])
    with (
        udp_echo(pair, receiver, family, port),
        whole_datagrams(pair, "a1", family) as sender,
        Capture(pair, "underlay") as wire,
    ):
        sender.connect((pair.address(receiver, family), port))
        assert path_mtu(sender, family) == mtu
        sender.send(largest)
        assert sender.recv(65536) == largest
        with pytest.raises(OSError, match="Message too long") as refused:
            sender.send(largest + b"!")
        assert refused.value.errno == errno.EMSGSIZE
        sizes = {len(outer_of(packet)) for packet in wire.tunnel_packets() if largest in bytes(packet)}
    # Not a byte of the underlay is given away.
    assert sizes == ({UNDERLAY_MTU} if receiver == "b1" else set())


def test_the_same_with_ping(pair: Lab, underlay_family: int, family: int) -> None:
    mtu = UNDERLAY_MTU - VXLAN_OVERHEAD_BYTES[underlay_family]
    address, size = pair.address("b1", family), mtu - HEADERS[family]
    assert ping(pair, "a1", address, "-M", "do", "-s", str(size))
    assert not ping(pair, "a1", address, "-M", "do", "-s", str(size + 1), wait_s=0.5)


@contextlib.contextmanager
def uplink_of_h1(lab: Lab, mtu_bytes: int) -> Iterator[None]:
    """The host's own uplink carries less, for a while."""
    lab.run("h1", "ip", "link", "set", "eth0", "mtu", str(mtu_bytes))
    try:
        yield
    finally:
        lab.run("h1", "ip", "link", "set", "eth0", "mtu", str(UNDERLAY_MTU))
        for place in ("a1", "b1"):
            lab.run(place, "ip", "-4", "route", "flush", "cache")
            lab.run(place, "ip", "-6", "route", "flush", "cache")
        lab.settle()


@pytest.mark.bridge  # the tunnels of the kernel say it; those of Open vSwitch drop what does not fit
def test_a_smaller_uplink_is_said_to_the_sender(pair: Lab, underlay_family: int, family: int) -> None:
    mtu, port = UNDERLAY_MTU - VXLAN_OVERHEAD_BYTES[underlay_family], free_port()
    lowered = LOWERED_MTU - VXLAN_OVERHEAD_BYTES[underlay_family]
    answer_type = struct.pack("!BB", 3, 4) if family == 4 else struct.pack("!BB", 2, 0)
    with (
        uplink_of_h1(pair, LOWERED_MTU),
        udp_echo(pair, "b1", family, port),
        whole_datagrams(pair, "a1", family) as sender,
        Capture(pair, "a1") as heard,
    ):
        sender.connect((pair.address("b1", family), port))
        sender.send(bytes(mtu - HEADERS[family]))
        offset = 14 + HEADERS[family] - 8
        # Fragmentation Needed (RFC 1191: the MTU in the last two bytes), Packet Too Big (RFC 4443: in four).
        heard.until(
            lambda frame: (
                frame[offset : offset + 2] == answer_type
                and struct.unpack_from("!I", frame, offset + 4)[0] & 0xFFFF == lowered
            ),
            "what says that the packet was too big",
        )
        assert path_mtu(sender, family) == lowered
        fitting = os.urandom(lowered - HEADERS[family])
        with contextlib.suppress(OSError):  # the error of the first one is reported by the next call
            sender.send(fitting)
        sender.setblocking(False)
        drain(sender)
        sender.setblocking(True)
        sender.settimeout(WAIT_S)
        sender.send(fitting)
        assert sender.recv(65536) == fitting


def drain(sender: socket.socket) -> None:
    """Forget what is there, errors too."""
    while select.select([sender], [], [], 0.2)[0]:
        with contextlib.suppress(OSError):
            sender.recv(65536)


@pytest.mark.bridge  # the tunnels of the kernel say it; those of Open vSwitch drop what does not fit
def test_a_stream_goes_on_over_a_smaller_uplink(pair: Lab, underlay_family: int, family: int) -> None:
    port, data = free_port(), os.urandom(TEN_MEGABYTES)
    lowered = LOWERED_MTU - VXLAN_OVERHEAD_BYTES[underlay_family]
    with (
        tcp_server(pair, "b1", family, port, digest),
        pair.socket("a1", FAMILIES[family], socket.SOCK_STREAM) as stream,
    ):
        stream.settimeout(60)
        stream.connect((pair.address("b1", family), port))
        stream.sendall(data[:100_000])
        assert path_mtu(stream, family) > lowered
        with uplink_of_h1(pair, LOWERED_MTU):
            stream.sendall(data[100_000:])
            stream.shutdown(socket.SHUT_WR)
            assert read_all(stream) == hashlib.sha256(data).digest()
            assert path_mtu(stream, family) == lowered
