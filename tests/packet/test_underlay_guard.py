"""Tunnel packets of our networks are taken from members only, and nobody else's tunnels are touched."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from plugin.datapath.bridge.underlay_guard import UnderlayGuard
from plugin.kernel.nftables import run_libnftables
from sdn.model.errors import HawseError
from tests.packet.frames import Station, udp4, vxlan
from tests.packet.lab import WAIT_S
from tests.packet.namespaces import Tap, TestNamespace, namespaces

pytestmark = [pytest.mark.root, pytest.mark.bridge]

HOST_MAC, PEER_MAC = "02:00:00:00:00:05", "02:00:00:00:00:06"
HOST = {4: "10.0.0.5", 6: "fd0a::5"}
MEMBER = {4: "10.0.0.1", 6: "fd0a::1"}
FOREIGN = {4: "10.0.0.9", 6: "fd0a::9"}
OURS, SECOND, USERS = 100, 101, 300
INSIDE = Station("0a:51:0a:01:00:02", "10.1.0.2", "fd01::2"), Station("0a:51:0a:01:00:03", "10.1.0.3", "fd01::3")
DEVICES = {
    (4, OURS): "hwx100",
    (6, OURS): "hwy100",
    (4, SECOND): "hwx101",
    (4, USERS): "docker300",
    (6, USERS): "docker306",
}
Counts = dict[tuple[int, str], int]
FOREIGN_DROP = {(OURS, "foreign-vtep"): 1}


def inner(text: str) -> bytes:
    return udp4(*INSIDE, text.encode().ljust(40, b"."))


def tunnel(source: str, vni: int, payload: bytes, destination: str = "") -> Packet:
    to = destination or HOST[6 if ":" in source else 4]
    return vxlan(source, to, vni, payload, (PEER_MAC, HOST_MAC))


@dataclasses.dataclass(frozen=True, slots=True)
class Underlay:
    """The host under test, a wire to it, and a tap on each of its VXLAN devices."""

    host: TestNamespace
    peer: TestNamespace
    guard: UnderlayGuard
    wire: Tap
    taps: dict[tuple[int, int], Tap]

    def counts(self) -> Counts:
        return {(vni, cause): packets for vni, cause, packets, _ in self.guard.drops()}

    def refused(self, frames: list[bytes], family: int, expected: Counts) -> None:
        """The frames raise the counters as expected, and nothing comes out of the tunnel before a control frame."""
        before, tap, control = self.counts(), self.taps[(family, OURS)], inner("control")
        tap.drain()
        for frame in frames:
            self.wire.send(frame)
        self.wire.send(bytes(tunnel(MEMBER[family], OURS, control)))
        assert tap.until(lambda seen: seen == control, "the control frame") == [control]
        deadline = time.monotonic() + WAIT_S
        while True:
            risen = {key: count - before[key] for key, count in self.counts().items() if count != before[key]}
            if risen == expected or time.monotonic() > deadline:
                break
        assert risen == expected

    def taken(self, frames: list[bytes], device: tuple[int, int], payload: bytes) -> None:
        """The frames bring the payload out of the tunnel and no counter rises."""
        before = self.counts()
        for frame in frames:
            self.wire.send(frame)
        self.taps[device].until(lambda seen: seen == payload, "what the tunnel carries")
        assert self.counts() == before


@pytest.fixture(scope="module")
def wired() -> Iterator[Underlay]:
    with namespaces(2) as (host, peer):
        host.ip(
            f"link add eth0 address {HOST_MAC} type veth peer name eth0 address {PEER_MAC} netns {peer.name}\n"
            "link set eth0 up\n"
            f"address add {HOST[4]}/24 dev eth0\n"
            f"address add {HOST[6]}/64 dev eth0 nodad\n"
            + "\n".join(
                f"link add {name} type vxlan id {vni} local {HOST[family]} dstport 4789 nolearning\nlink set {name} up"
                for (family, vni), name in DEVICES.items()
                for family in [4 if family == 4 else 6]
            )
        )
        peer.ip(
            "link set eth0 up\n"
            f"address add {MEMBER[4]}/24 dev eth0\n"
            f"address add {MEMBER[6]}/64 dev eth0 nodad\n"
            f"link add real4 type vxlan id {OURS} local {MEMBER[4]} remote {HOST[4]} dstport 4789\n"
            f"link add real6 type vxlan id {OURS} local {MEMBER[6]} remote {HOST[6]} dstport 4789\n"
            "link set real4 up\nlink set real6 up\n"
        )
        guard = UnderlayGuard(host.fd)
        taps = {key: Tap(host, name) for key, name in DEVICES.items()}
        wire = Tap(peer, "eth0")
        yield Underlay(host, peer, guard, wire, taps)
        for tap in (wire, *taps.values()):
            tap.close()
        guard.close()


@pytest.fixture
def underlay(wired: Underlay) -> Iterator[Underlay]:
    """The table as new: both members of network 100, another one of 101."""
    assert wired.guard.ensure()
    wired.guard.ensure_network(OURS)
    wired.guard.ensure_network(SECOND)
    wired.guard.write([(OURS, MEMBER[4]), (OURS, MEMBER[6]), (SECOND, "10.0.0.2")], [])
    yield wired
    wired.guard.remove_table()


@pytest.mark.parametrize("family", [4, 6])
def test_a_member_is_heard_and_a_foreign_vtep_is_not(underlay: Underlay, family: int) -> None:
    underlay.refused([bytes(tunnel(FOREIGN[family], OURS, inner("forged")))], family, FOREIGN_DROP)
    payload = inner("honest")
    underlay.taken([bytes(tunnel(MEMBER[family], OURS, payload))], (family, OURS), payload)


@pytest.mark.parametrize("family", [4, 6])
def test_a_kernel_that_is_a_member_is_heard(underlay: Underlay, family: int) -> None:
    device, payload = Tap(underlay.peer, f"real{family}"), inner("from a kernel")
    before = underlay.counts()
    try:
        device.send(payload)
        underlay.taps[(family, OURS)].until(lambda seen: seen == payload, "the kernel's tunnel frame")
    finally:
        device.close()
    assert underlay.counts() == before


@pytest.mark.parametrize("family", [4, 6])
def test_other_tunnels_on_the_port_are_left_alone(underlay: Underlay, family: int) -> None:
    payload = inner("somebody's overlay")
    underlay.taken([bytes(tunnel(FOREIGN[family], USERS, payload))], (family, USERS), payload)


def test_a_member_of_one_network_is_foreign_to_another(underlay: Underlay) -> None:
    frame = bytes(tunnel(MEMBER[4], SECOND, inner("wrong network")))
    underlay.refused([frame], 4, {(SECOND, "foreign-vtep"): 1})
    payload = inner("right network")
    underlay.taken([bytes(tunnel("10.0.0.2", SECOND, payload))], (4, SECOND), payload)


def test_what_is_not_for_this_machine_is_left_alone(underlay: Underlay) -> None:
    passing = bytes(tunnel(FOREIGN[4], OURS, inner("passing by"), destination="10.9.9.9"))
    forged = bytes(tunnel(FOREIGN[4], OURS, inner("forged")))
    underlay.refused([passing, forged], 4, FOREIGN_DROP)


def test_a_fragment_too_small_to_say_its_network_is_dropped(underlay: Underlay) -> None:
    whole = tunnel(FOREIGN[4], OURS, inner("in pieces"))
    whole[IP].id = 77
    pieces = [bytes(piece) for piece in fragment(whole, fragsize=8)]
    assert len(pieces) > 2
    underlay.refused(pieces, 4, {(0, "malformed-tunnel"): 1})


def test_small_fragments_of_ipv6_are_dropped(underlay: Underlay) -> None:
    datagram = bytes(tunnel(FOREIGN[6], OURS, inner("in pieces"))[IPv6].payload)
    ethernet, network = Ether(src=PEER_MAC, dst=HOST_MAC), IPv6(src=FOREIGN[6], dst=HOST[6])
    first = IPv6ExtHdrFragment(nh=17, offset=0, m=1, id=5) / Raw(datagram[:8])
    rest = IPv6ExtHdrFragment(nh=17, offset=1, m=0, id=5) / Raw(datagram[8:])
    pieces = [bytes(ethernet / network / part) for part in (first, rest)]
    underlay.refused(pieces, 6, {(0, "malformed-tunnel"): 1})
    # Here the first piece does not even say that it is UDP: the kernel itself refuses it (RFC 7112).
    first = IPv6ExtHdrFragment(nh=60, offset=0, m=1, id=6) / Raw(bytes(IPv6ExtHdrDestOpt(nh=17)))
    rest = IPv6ExtHdrFragment(nh=60, offset=1, m=0, id=6) / Raw(datagram)
    underlay.refused([bytes(ethernet / network / part) for part in (first, rest)], 6, {})


def test_later_fragments_are_not_taken_for_tunnels(underlay: Underlay) -> None:
    """Where their bytes look like one: IPv4 by its data, IPv6 by its flow label and source (see guard_table.py)."""
    ethernet, datagram = Ether(src=PEER_MAC, dst=HOST_MAC), bytes(tunnel(FOREIGN[4], OURS, inner("data"))[IP].payload)
    later = ethernet / IP(src=FOREIGN[4], dst=HOST[4], proto=17, frag=9, id=9) / Raw(datagram[:64])
    underlay.refused([bytes(later)], 4, {})
    network = IPv6(src="fd0a:0:0:6400::9", dst=HOST[6], fl=4789)
    later = ethernet / network / IPv6ExtHdrFragment(nh=17, offset=9, m=0, id=9) / Raw(bytes(64))
    underlay.refused([bytes(later)], 6, {})


def test_fragments_of_a_member_are_put_together(underlay: Underlay) -> None:
    payload = inner("x" * 2000)
    whole = tunnel(MEMBER[4], OURS, payload)
    whole[IP].id = 78
    pieces = [bytes(piece) for piece in fragment(whole, fragsize=1200)]
    assert len(pieces) == 2
    underlay.taken(pieces, (4, OURS), payload)


def test_a_removed_member_is_foreign_and_a_removed_network_is_left_alone(underlay: Underlay) -> None:
    underlay.guard.write([(OURS, "10.0.0.7")], [(OURS, MEMBER[4]), (OURS, "10.0.0.250"), (777, "10.0.0.1")])
    assert underlay.guard.read() == {(OURS, "10.0.0.7"), (OURS, MEMBER[6]), (SECOND, "10.0.0.2")}
    before = underlay.counts()
    control = inner("control")
    underlay.wire.send(bytes(tunnel(MEMBER[4], OURS, inner("too late"))))
    underlay.wire.send(bytes(tunnel("10.0.0.7", OURS, control)))
    assert underlay.taps[(4, OURS)].until(lambda seen: seen == control, "the control frame")[-1:] == [control]
    assert underlay.counts() == {**before, **FOREIGN_DROP}
    underlay.guard.remove_network(OURS)
    underlay.guard.remove_network(OURS)
    assert underlay.guard.networks() == {SECOND}
    assert underlay.guard.read() == {(SECOND, "10.0.0.2")}
    payload = inner("not ours any more")
    underlay.taken([bytes(tunnel(MEMBER[4], OURS, payload))], (4, OURS), payload)


def test_another_version_is_replaced_without_a_loss(underlay: Underlay) -> None:
    guard = underlay.guard
    networks, members = guard.networks(), guard.read()
    assert guard.present()
    assert not guard.ensure()
    listed = run_libnftables("list table inet hawse", underlay.host.fd)
    version = next(word for word in listed.split() if word.startswith("version-1-"))
    run_libnftables(f"delete chain inet hawse {version}", underlay.host.fd)
    assert not guard.present()
    assert guard.ensure()
    assert (guard.networks(), guard.read()) == (networks, members)
    underlay.refused([bytes(tunnel(FOREIGN[4], OURS, inner("forged")))], 4, FOREIGN_DROP)


def test_a_table_that_went_away_is_said(wired: Underlay) -> None:
    guard = wired.guard
    guard.remove_table()
    assert (guard.present(), guard.read(), guard.networks(), guard.drops()) == (False, set(), set(), [])
    guard.remove_network(OURS)
    with pytest.raises(HawseError, match="table is gone"):
        guard.ensure_network(OURS)
    with pytest.raises(HawseError, match="table is gone"):
        guard.write([(OURS, MEMBER[4])], [])
    with pytest.raises(HawseError, match="table is gone"):
        guard.write([(OURS, MEMBER[4])], [(OURS, MEMBER[6])])


def test_many_networks_and_members_are_read_as_they_were_written(wired: Underlay) -> None:
    guard = wired.guard
    guard.ensure()
    vnis = [1, 255, 256, 65536, (1 << 24) - 1]
    members = {(vni, f"10.0.{n}.{vni & 255}") for vni in vnis for n in range(100)} | {(vni, "fd0a::7") for vni in vnis}
    for vni in vnis:
        guard.ensure_network(vni)
    guard.write(members, [])
    guard.write(members, [])
    assert guard.networks() == set(vnis)
    assert guard.read() == members
    guard.write([], members)
    assert guard.read() == set()
    guard.remove_table()
