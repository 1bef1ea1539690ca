"""Forged frames die under their own name, honest ones pass; what is written is read back.

The tenant's namespace is built with plain `ip` and `bridge`, as the reference of the datapath has it: a container's
frame meets the guard in the bridge, and the VXLAN device's proxy answers ARP and neighbour discovery.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from plugin.datapath.bridge import guard as guard_module
from plugin.datapath.bridge.guard import GuardPort, TenantGuard
from plugin.datapath.bridge.guard_elements import elements_of
from plugin.datapath.bridge.guard_table import ARRIVAL_CAUSES, FRAME_CAUSES, VERSION, port_text
from plugin.kernel import namespace
from plugin.kernel.nftables import Element, Family, Nftables, add_elements, delete_elements, run_libnftables
from sdn.model.errors import HawseError
from tests.packet.frames import Station, arp_request, forgeries, is_answer, listener_report, solicitation, udp4, udp6
from tests.packet.lab import WAIT_S
from tests.packet.namespaces import Tap, TestNamespace, namespaces

pytestmark = [pytest.mark.root, pytest.mark.bridge]

ALICE = Station("0a:51:0a:01:00:02", "10.1.0.2", "fd01::2")
BOB = Station("0a:51:0a:01:00:03", "10.1.0.3", "fd01::3")
MALLORY = Station("0a:51:0a:01:00:04", "10.1.0.4", "fd01::4")
GATEWAY = Station("02:00:00:00:00:01", "10.1.0.1", "fd01::1")
PORTS = {"hwvalice": ALICE, "hwvbob": BOB, "hwvmallory": MALLORY}
VNI, OTHER_VNI = 100, 200
CASES = forgeries(ALICE, BOB)
Counts = dict[tuple[int, str], int]


def port_of(station: Station) -> GuardPort:
    return GuardPort(station.mac, (station.ip4, station.ip6), VNI)


@dataclasses.dataclass(frozen=True, slots=True)
class Tenant:
    """The namespace under test, its guard, and a tap inside each container."""

    inside: TestNamespace
    guard: TenantGuard
    taps: dict[str, Tap]

    def counts(self) -> Counts:
        return {(vni, cause): packets for vni, cause, packets, _ in self.guard.drops()}

    def rise(self, before: Counts, expected: Counts) -> Counts:
        """What the counters rose by, once that is `expected` or the time is up."""
        deadline = time.monotonic() + WAIT_S
        while True:
            risen = {key: count - before[key] for key, count in self.counts().items() if count != before[key]}
            if risen == expected or time.monotonic() > deadline:
                return risen


def build(tenant: TestNamespace, containers: list[TestNamespace]) -> None:
    lines = []
    for vni, gateway4, gateway6 in ((VNI, "10.1.0.1/24", "fd01::1/64"), (OTHER_VNI, "10.2.0.1/24", "fd02::1/64")):
        lines += [
            f"link add hwb{vni} address {GATEWAY.mac} type bridge ageing_time 0 mcast_snooping 0 stp_state 0",
            f"link add hwx{vni} type vxlan id {vni} local 127.0.0.1 dstport 4789 nolearning proxy",
            f"link set hwx{vni} master hwb{vni}",
            f"link set hwb{vni} up",
            f"link set hwx{vni} up",
            f"address add {gateway4} dev hwb{vni}",
            f"address add {gateway6} dev hwb{vni} nodad",
        ]
    flags = [f"link set dev hwx{VNI} learning off flood off mcast_flood on bcast_flood on"]
    for (port, station), container in zip(PORTS.items(), containers, strict=True):
        lines += [
            f"link add {port} type veth peer name eth0 address {station.mac} netns {container.name}",
            f"link set {port} master hwb{VNI}",
        ]
        lines += [
            f"neighbour replace {address} lladdr {station.mac} dev hwx{VNI} nud permanent"
            for address in (station.ip4, station.ip6, station.fe80)
        ]
        flags += [
            f"link set dev {port} learning off flood off mcast_flood off bcast_flood off",
            f"fdb replace {station.mac} dev {port} master static",
        ]
    tenant.ip("\n".join([*lines, "link set lo up"]))
    tenant.bridge("\n".join(flags))
    tenant.ip("\n".join(f"link set {port} up" for port in PORTS))
    for container in containers:
        container.ip("link set eth0 up")


@pytest.fixture(scope="module")
def tenant() -> Iterator[Tenant]:
    """Alice and Bob are guarded; Mallory's port has no elements."""
    with namespaces(4) as (inside, *containers):
        guard = TenantGuard(inside.fd)
        assert guard.ensure()
        for vni in (VNI, OTHER_VNI):
            guard.ensure_network(vni, f"hwb{vni}")
        build(inside, containers)
        written = guard.write([(port, None, port_of(PORTS[port])) for port in ("hwvalice", "hwvbob")])
        assert written == {}
        taps = {port: Tap(container, "eth0") for port, container in zip(PORTS, containers, strict=True)}
        yield Tenant(inside, guard, taps)
        for tap in taps.values():
            tap.close()
        guard.close()


@pytest.fixture
def empty() -> Iterator[tuple[TestNamespace, TenantGuard]]:
    """A namespace with nothing in it but the tables."""
    with namespaces(1) as (inside,):
        guard = TenantGuard(inside.fd)
        guard.ensure()
        guard.ensure_network(VNI, f"hwb{VNI}")
        yield inside, guard
        guard.close()


def test_every_cause_of_a_frame_has_a_forgery() -> None:
    assert {case.cause for case in CASES} == set(FRAME_CAUSES)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_forged_frame_dies_by_name_and_its_twin_passes(tenant: Tenant, case: Any) -> None:
    alice, bob = tenant.taps["hwvalice"], tenant.taps["hwvbob"]
    alice.drain()
    bob.drain()
    before = tenant.counts()
    control = udp4(ALICE, BOB, f"control of {case.name}".encode())
    alice.send(case.frame)
    alice.send(control)
    arrived = bob.until(lambda frame: frame == control, "the control frame")
    assert arrived == [control], "nothing but the control frame reaches the victim"
    assert tenant.rise(before, {(VNI, case.cause): 1}) == {(VNI, case.cause): 1}
    before = tenant.counts()
    alice.drain()
    alice.send(case.twin)
    if case.answered:
        alice.until(lambda frame: is_answer(case.twin, frame), "the answer")
    else:
        bob.until(lambda frame: frame == case.twin, "the twin")
    assert tenant.counts() == before


def test_a_port_that_nobody_programmed_may_send_nothing(tenant: Tenant) -> None:
    mallory, bob = tenant.taps["hwvmallory"], tenant.taps["hwvbob"]
    bob.drain()
    before = tenant.counts()
    frames = [udp4(MALLORY, BOB), udp6(MALLORY, BOB), arp_request(MALLORY, BOB.ip4), solicitation(MALLORY, BOB.ip6)]
    frames.append(MALLORY.mac.encode().ljust(60, b"\0"))  # nothing that is a protocol
    for frame in frames:
        mallory.send(frame)
    expected = {(0, "unknown-port"): len(frames)}
    assert tenant.rise(before, expected) == expected
    control = udp4(ALICE, BOB, b"after mallory")
    tenant.taps["hwvalice"].send(control)
    assert bob.until(lambda frame: frame == control, "the control frame") == [control]


def test_a_port_may_send_from_the_moment_it_is_written_until_it_is_deleted(tenant: Tenant) -> None:
    mallory, bob = tenant.taps["hwvmallory"], tenant.taps["hwvbob"]
    frame = udp4(MALLORY, BOB, b"here I am")
    assert tenant.guard.write([("hwvmallory", None, port_of(MALLORY))]) == {}
    try:
        mallory.send(frame)
        bob.until(lambda seen: seen == frame, "mallory's frame")
    finally:
        assert tenant.guard.write([("hwvmallory", port_of(MALLORY), None)]) == {}
    assert "hwvmallory" not in tenant.guard.read()
    assert not any(b"hwvmallory" in key for name in ("e4", "e6", "mac", "network") for key in keys(tenant.inside, name))
    before = tenant.counts()
    mallory.send(frame)
    assert tenant.rise(before, {(0, "unknown-port"): 1}) == {(0, "unknown-port"): 1}


def keys(inside: TestNamespace, name: str) -> set[bytes]:
    rules = Nftables(inside.fd)
    try:
        return {key for key, _ in rules.elements(Family.BRIDGE, "hawse", name)}
    finally:
        rules.close()


@pytest.mark.parametrize(
    ("name", "frame", "cause"),
    [
        ("another network's gateway", udp4(ALICE, dataclasses.replace(GATEWAY, ip4="10.2.0.1")), "not-here"),
        ("another network's gateway, IPv6", udp6(ALICE, dataclasses.replace(GATEWAY, ip6="fd02::1")), "not-here"),
        ("beyond the network", udp4(ALICE, dataclasses.replace(GATEWAY, ip4="10.2.0.9")), "no-router"),
        ("beyond the network, IPv6", udp6(ALICE, dataclasses.replace(GATEWAY, ip6="fd02::9")), "no-router"),
    ],
)
def test_the_gateway_takes_in_only_what_is_for_it(tenant: Tenant, name: str, frame: bytes, cause: str) -> None:
    before = tenant.counts()
    tenant.taps["hwvalice"].send(frame)
    assert tenant.rise(before, {(VNI, cause): 1}) == {(VNI, cause): 1}, name


@pytest.mark.parametrize(
    "question", [arp_request(ALICE, GATEWAY.ip4), solicitation(ALICE, GATEWAY.ip6)], ids=["ARP", "ND"]
)
def test_the_gateway_answers_for_itself(tenant: Tenant, question: bytes) -> None:
    alice = tenant.taps["hwvalice"]
    before = tenant.counts()
    alice.send(question)
    alice.until(lambda frame: is_answer(question, frame), "the gateway's answer")
    assert tenant.counts() == before


@pytest.mark.parametrize("family", [4, 6])
def test_the_gateway_answers_ping(tenant: Tenant, family: int) -> None:
    alice = tenant.taps["hwvalice"]
    before = tenant.counts()
    alice.send(echo_request(family))
    alice.until(lambda frame: b"ping the gateway" in frame, "the echo reply")
    assert tenant.counts() == before


def test_what_the_bridge_says_to_a_group_reaches_no_container(tenant: Tenant) -> None:
    """The gateway's questions and reports go to the carrier, which answers; what it says to one station arrives."""
    questions = [arp_request(GATEWAY, BOB.ip4), solicitation(GATEWAY, BOB.ip6), listener_report(GATEWAY)]
    control = udp4(GATEWAY, BOB, b"from the gateway")
    bob = tenant.taps["hwvbob"]
    bob.drain()
    before = tenant.counts()
    with contextlib.closing(Tap(tenant.inside, f"hwb{VNI}")) as bridge:
        for question in questions:
            bridge.send(question)
        for question in questions[:2]:
            bridge.until(lambda frame, asked=question: is_answer(asked, frame), "the carrier's answer")  # type: ignore[misc]
        bridge.send(control)
    assert bob.until(lambda frame: frame == control, "the control frame") == [control]
    assert tenant.counts() == before, "it is no drop of a container"


def later_fragments() -> Iterator[Any]:
    """Honest fragments, whose bytes look like a port or an ICMPv6 type where there is none."""
    from scapy.layers.inet import IP
    from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment
    from scapy.packet import Raw

    dhcp4, dhcp6 = bytes([0, 67, 0, 68, 0, 24, 0, 0]) * 3, bytes([2, 35, 2, 34, 0, 24, 0, 0]) * 3
    advert = bytes([134, 0, 0, 0, 0, 0, 0, 0]) * 3
    yield "UDP, IPv4", IP(src=ALICE.ip4, dst=BOB.ip4, proto=17, frag=5, id=3) / Raw(dhcp4)
    network = IPv6(src=ALICE.ip6, dst=BOB.ip6, fl=546)
    yield "UDP, IPv6", network / IPv6ExtHdrFragment(nh=17, offset=5, id=3) / Raw(dhcp6)
    yield "ICMPv6", network / IPv6ExtHdrFragment(nh=58, offset=5, id=3) / Raw(advert)


@pytest.mark.parametrize(("name", "packet"), list(later_fragments()))
def test_a_later_fragment_is_not_taken_for_what_it_is_not(tenant: Tenant, name: str, packet: Any) -> None:
    from scapy.layers.l2 import Ether

    before = tenant.counts()
    frame = bytes(Ether(src=ALICE.mac, dst=BOB.mac) / packet)
    tenant.taps["hwvalice"].send(frame)
    tenant.taps["hwvbob"].until(lambda seen: seen == frame, name)
    assert tenant.counts() == before


def test_fragments_of_an_honest_ping_pass(tenant: Tenant) -> None:
    from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrFragment, fragment6
    from scapy.layers.l2 import Ether

    whole = IPv6(src=ALICE.ip6, dst=BOB.ip6) / IPv6ExtHdrFragment(id=11) / ICMPv6EchoRequest(cksum=1, data=bytes(3000))
    before = tenant.counts()
    frames = [bytes(Ether(src=ALICE.mac, dst=BOB.mac) / part) for part in fragment6(whole, 1280)]
    assert len(frames) == 3
    for frame in frames:
        tenant.taps["hwvalice"].send(frame)
    seen = tenant.taps["hwvbob"].until(lambda seen: seen == frames[-1], "the last fragment")
    assert seen[-3:] == frames
    assert tenant.counts() == before


def test_the_namespace_itself_reaches_its_gateway_address(tenant: Tenant) -> None:
    with (
        namespace.socket_in(tenant.inside.fd, socket.AF_INET, socket.SOCK_DGRAM, 0) as one,
        namespace.socket_in(tenant.inside.fd, socket.AF_INET, socket.SOCK_DGRAM, 0) as other,
    ):
        one.bind((GATEWAY.ip4, 0))
        one.settimeout(5)
        other.sendto(b"inside", one.getsockname())
        assert one.recv(100) == b"inside"


def echo_request(family: int) -> bytes:
    from scapy.layers.inet import ICMP, IP
    from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
    from scapy.layers.l2 import Ether

    ethernet, data = Ether(src=ALICE.mac, dst=GATEWAY.mac), b"ping the gateway"
    if family == 4:
        return bytes(ethernet / IP(src=ALICE.ip4, dst=GATEWAY.ip4) / ICMP(id=9) / data)
    return bytes(ethernet / IPv6(src=ALICE.ip6, dst=GATEWAY.ip6) / ICMPv6EchoRequest(id=9, data=data))


def many_ports(count: int) -> dict[str, GuardPort]:
    return {
        f"hwv{n:012d}": GuardPort(
            f"0a:00:00:00:{n >> 8:02x}:{n & 255:02x}", (f"10.1.{n >> 8}.{n & 255}", f"fd00::{n:x}", f"fd01::{n:x}"), VNI
        )
        for n in range(1, count + 1)
    }


def test_a_thousand_ports_are_read_as_they_were_written(empty: tuple[TestNamespace, TenantGuard]) -> None:
    _, guard = empty
    ports = many_ports(1000)
    assert guard.write([(name, None, port) for name, port in ports.items()]) == {}
    assert guard.read() == ports
    assert guard.write([(name, None, port) for name, port in ports.items()]) == {}, "again is no error"
    assert guard.read() == ports
    assert guard.write([(name, port, None) for name, port in ports.items()]) == {}
    assert guard.read() == {}


def test_deleting_what_is_absent_is_no_error(empty: tuple[TestNamespace, TenantGuard]) -> None:
    _, guard = empty
    ports = many_ports(10)
    half = dict(list(ports.items())[:5])
    guard.write([(name, None, port) for name, port in half.items()])
    assert guard.write([(name, port, None) for name, port in ports.items()]) == {}
    assert guard.read() == {}


def test_a_port_is_replaced_even_where_the_caller_is_mistaken(empty: tuple[TestNamespace, TenantGuard]) -> None:
    _, guard = empty
    one, two = GuardPort(ALICE.mac, ("10.1.0.2",), 100), GuardPort(BOB.mac, ("10.1.0.3", "fd01::3"), 200)
    assert guard.write([("hwv1", None, one)]) == {}
    assert guard.write([("hwv1", one, two)]) == {}
    assert guard.read() == {"hwv1": two}
    # It says that nothing was there: the map still holds the other network, the kernel refuses, the guard looks.
    assert guard.write([("hwv1", None, GuardPort(BOB.mac, ("10.1.0.3",), 300))]) == {}
    assert guard.read() == {"hwv1": GuardPort(BOB.mac, ("10.1.0.3",), 300)}


def test_one_bad_port_does_not_stop_the_others(empty: tuple[TestNamespace, TenantGuard]) -> None:
    _, guard = empty
    port = GuardPort(ALICE.mac, ("10.1.0.2",), VNI)
    errors = guard.write([("hwv1", None, port), ("a-name-beyond-fifteen", None, port), ("hwv2", None, port)])
    assert list(errors) == ["a-name-beyond-fifteen"]
    assert isinstance(errors["a-name-beyond-fifteen"], HawseError)
    assert guard.read() == {"hwv1": port, "hwv2": port}


def spoil(inside: TestNamespace, make: Callable[[], Any]) -> None:
    rules = Nftables(inside.fd)
    try:
        rules.transact(make())
    finally:
        rules.close()


@pytest.mark.parametrize("lost", range(5))
def test_a_half_written_port_reads_differently_and_is_mended(
    empty: tuple[TestNamespace, TenantGuard], lost: int
) -> None:
    inside, guard = empty
    port = GuardPort(ALICE.mac, (ALICE.ip4, ALICE.ip6), VNI)
    guard.write([("hwv1", None, port)])
    set_name, element = sorted(elements_of("hwv1", port))[lost]
    spoil(inside, lambda: delete_elements(Family.BRIDGE, "hawse", set_name, [Element(element.key)]))
    read = guard.read()
    assert read.get("hwv1") != port
    assert guard.write([("hwv1", read.get("hwv1"), port)]) == {}
    assert guard.read() == {"hwv1": port}


def test_a_foreign_element_reads_differently_and_is_removed(empty: tuple[TestNamespace, TenantGuard]) -> None:
    inside, guard = empty
    port = GuardPort(ALICE.mac, (ALICE.ip4,), VNI)
    guard.write([("hwv1", None, port), ("hwv2", None, port)])
    stray = [
        (name, element) for name, element in elements_of("hwv1", GuardPort(BOB.mac, (BOB.ip4,), VNI)) if name == "e4"
    ]
    spoil(inside, lambda: add_elements(Family.BRIDGE, "hawse", "e4", [element for _, element in stray]))
    read = guard.read()
    assert read["hwv1"].damaged
    assert read["hwv2"] == port
    assert guard.write([("hwv1", read["hwv1"], port)]) == {}
    assert guard.read() == {"hwv1": port, "hwv2": port}
    spoil(inside, lambda: add_elements(Family.BRIDGE, "hawse", "e4", [element for _, element in stray]))
    damaged = guard.read()["hwv1"]
    assert guard.write([("hwv1", damaged, None)]) == {}
    assert guard.read() == {"hwv2": port}


def listing(inside: TestNamespace) -> dict[str, list[Any]]:
    printed = json.loads(run_libnftables("list table bridge hawse", inside.fd, json=True))["nftables"]
    found = [entry.get("set") or entry.get("map") for entry in printed]
    return {one["name"]: sorted(map(json.dumps, one.get("elem", []))) for one in found if one}


def test_raw_elements_are_what_libnftables_makes_of_the_text(empty: tuple[TestNamespace, TenantGuard]) -> None:
    inside, guard = empty
    ports = many_ports(20)
    guard.write([(name, None, port) for name, port in ports.items()])
    raw = listing(inside)
    guard.write([(name, port, None) for name, port in ports.items()])
    run_libnftables("".join(port_text(name, port) for name, port in ports.items()), inside.fd)
    assert listing(inside) == raw
    assert [len(raw[name]) for name in ("e4", "e6", "mac", "network")] == [20, 60, 20, 20]
    assert guard.read() == ports


def test_counters_of_a_network_come_and_go(empty: tuple[TestNamespace, TenantGuard]) -> None:
    _, guard = empty
    guard.ensure_network(7, "hwb7")
    guard.ensure_network(7, "hwb7")
    assert guard.networks() == {7, VNI}
    assert {cause for vni, cause, _, _ in guard.drops() if vni == 7} == {*FRAME_CAUSES, *ARRIVAL_CAUSES}
    guard.remove_network(7)
    guard.remove_network(7)
    assert guard.networks() == {VNI}
    assert not [cause for vni, cause, _, _ in guard.drops() if vni == 7]


def test_another_version_is_replaced_without_a_loss(tenant: Tenant) -> None:
    counts, ports, networks = tenant.counts(), tenant.guard.read(), tenant.guard.networks()
    assert sum(counts.values())
    assert not tenant.guard.ensure(), "the same version is left as it is"
    run_libnftables(
        f"delete chain bridge hawse {VERSION}; add chain bridge hawse version-0-old; delete chain inet hawse {VERSION}",
        tenant.inside.fd,
    )
    assert not tenant.guard.present()
    assert tenant.guard.ensure()
    assert tenant.guard.present()
    assert (tenant.counts(), tenant.guard.read(), tenant.guard.networks()) == (counts, ports, networks)


def test_a_table_that_went_away_is_said_and_loaded_again(empty: tuple[TestNamespace, TenantGuard]) -> None:
    inside, guard = empty
    run_libnftables("flush ruleset", inside.fd)
    port = GuardPort(ALICE.mac, (ALICE.ip4,), VNI)
    assert not guard.present()
    assert guard.read() == {}
    assert guard.networks() == set()
    assert guard.drops() == []
    guard.remove_network(VNI)
    assert "tables are gone" in str(guard.write([("hwv1", None, port)])["hwv1"])
    with pytest.raises(HawseError, match="tables are gone"):
        guard.ensure_network(VNI, "hwb100")
    assert guard.ensure()
    assert guard.write([("hwv1", None, port)]) == {}
    assert guard.read() == {"hwv1": port}


def test_nonsense_in_an_older_table_does_not_stop_the_new_one() -> None:
    with namespaces(1) as (inside,):
        run_libnftables("table bridge hawse { set e4 { type inet_service; elements = { 80 }; }\n }", inside.fd)
        guard = guard_module.TenantGuard(inside.fd)
        assert guard.ensure()
        assert guard.present()
        assert guard.read() == {}
        guard.close()
