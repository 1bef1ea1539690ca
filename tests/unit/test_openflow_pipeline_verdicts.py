"""What the pipeline does with frames, run by hand: lies die under their names, honest frames arrive, oracles agree."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
)
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

from sdn.model.address import address_number, link_local
from sdn.model.ids import HostId
from sdn.model.resources import Endpoint, Member
from sdn.openflow import pipeline
from sdn.openflow.cookies import Kind, cause_of, split
from sdn.openflow.expand import flows_of
from sdn.openflow.fields import Field
from sdn.openflow.objects import gateway_mac
from sdn.reconcile.reach import Reach, address_of, matrix, reach_address, underlay_family
from sdn.reconcile.state import State
from sdn.reconcile.unit import Here
from tests.conformance.flow_interpreter import FlowTables, Verdict
from tests.conformance.frame_oracle import fate
from tests.conformance.random_fabrics import random_frames, random_state, station
from tests.conformance.traced_switch import TUNNEL_PORT, lowered, numbers_of, port_name
from tests.packet.frames import (
    BROADCAST_MAC,
    Forgery,
    Station,
    arp_request,
    forgeries,
    is_answer,
    solicitation,
    udp4,
    udp6,
)
from tests.states.states import BLUE, DUAL, RED, RED_WEB, WEB, endpoint, host, member

ETH_ARP = 0x0806

TWO = tuple((where.id, member(number)) for where in (DUAL, WEB, RED_WEB) for number in (1, 2))
STATE = State(
    "two-hosts",
    Here(host(1), "192.0.2.1", None),
    (BLUE, RED),
    (DUAL, WEB, RED_WEB),
    TWO,
    (
        endpoint(31, 1, DUAL, "10.2.0.31/24", "fd00:1::31/64"),
        endpoint(32, 1, DUAL, "10.2.0.32/24", "fd00:1::32/64"),
        endpoint(33, 2, DUAL, "10.2.0.33/24", "fd00:1::33/64"),
        endpoint(34, 1, WEB, "10.1.0.34/24"),
        endpoint(35, 1, RED_WEB, "10.1.0.34/24"),
    ),
)
ALICE, BOB, CAROL = (station(each) for each in STATE.endpoints[:3])
NAMES = ("alice", "bob", "carol", "walter", "rita")
GATEWAY = Station(gateway_mac(DUAL.vni), "10.2.0.1", "fd00:1::1")


class Host:
    """A switch with all that a state has it have."""

    def __init__(self, state: State) -> None:
        self.ports = numbers_of(state)
        objects = lowered(state)
        flows = [flow for key, value in objects.items() for flow in flows_of(key, value, self.ports)]
        self.tables = FlowTables([*pipeline.pipeline(TUNNEL_PORT), *flows], tunnels=[TUNNEL_PORT])

    def sends(self, sender: Endpoint, frame: bytes) -> Verdict:
        return self.tables.run(frame, self.ports[port_name(sender)])

    def hears(self, vni: int, vtep: str, frame: bytes) -> Verdict:
        """Out of a tunnel from a VTEP."""
        source = Field.TUN_IPV6_SRC if ":" in vtep else Field.TUN_IPV4_SRC
        return self.tables.run(frame, TUNNEL_PORT, {Field.TUN_ID: vni, source: address_number(vtep)})


@functools.cache
def first() -> Host:
    """Host 1 of the state above."""
    return Host(STATE)


def cause_in(verdict: Verdict) -> str:
    """What counts it; "": nothing does."""
    kind, number = split(verdict.cookie)
    return cause_of(number)[0] if kind == Kind.DROP else ""


def fate_of(verdict: Verdict) -> str:
    """A cause, `alice` and so on for whoever gets the frame, `tunnel`, or `nothing`."""
    assert len(verdict.leaving) <= 1
    if cause := cause_in(verdict):
        assert not verdict.leaving
        return cause
    names = {
        first().ports[port_name(each)]: name
        for each, name in zip(STATE.endpoints, NAMES, strict=True)
        if each.host == host(1)
    }
    names[TUNNEL_PORT] = "tunnel"
    return names[verdict.leaving[0].port] if verdict.leaving else "nothing"


# Lies and their twins -----------------------------------------------------------------------------------------------

LIES = [(lie, victim) for victim in (BOB, CAROL) for lie in forgeries(ALICE, victim)]


@pytest.mark.parametrize(("lie", "victim"), LIES, ids=[f"{lie.name}-{victim.ip4[-2:]}" for lie, victim in LIES])
def test_a_lie_dies_under_its_name_and_its_twin_passes(lie: Forgery, victim: Station) -> None:
    told = fate_of(first().sends(STATE.endpoints[0], lie.frame))
    way = "bob" if victim is BOB else "tunnel"
    assert told == (way if lie.futile else lie.cause)
    verdict = first().sends(STATE.endpoints[0], lie.twin)
    if victim is CAROL and Ether(lie.twin).type == ETH_ARP and not lie.answered:
        assert not verdict.leaving, "nobody there has asked: its own host answers for us"
        return
    (leaving,) = verdict.leaving
    if lie.answered:
        assert fate_of(verdict) == "alice"
        assert is_answer(lie.twin, leaving.frame)
    elif victim is BOB:
        assert (fate_of(verdict), leaving.frame) == ("bob", lie.twin)
    else:
        assert (fate_of(verdict), leaving.frame, leaving.tun_id) == ("tunnel", lie.twin, DUAL.vni)
        assert leaving.tunnel == address_number("192.0.2.2")


def test_every_cause_of_a_frame_has_a_lie() -> None:
    causes = {lie.cause for lie, _ in LIES}
    assert causes == {"mac-spoof", "ip4-spoof", "ip6-spoof", "arp-spoof", "nd-spoof", "router-advert", "dhcp-server",
                      "multicast", "dad", "protocol"}  # fmt: skip


# What is odd, and who gets it ---------------------------------------------------------------------------------------


def _to(target: Station, me: Station = ALICE) -> Any:
    return Ether(src=me.mac, dst=target.mac)


def _six(target: Station, **more: Any) -> Any:
    return IPv6(src=ALICE.ip6, dst=target.ip6, hlim=255, **more)


def _first(protocol: int = 58) -> Any:
    return IPv6ExtHdrFragment(offset=0, m=1, id=9, nh=protocol)


def odd_frames() -> Iterator[tuple[str, bytes, str]]:
    own_mac, own_target = ICMPv6NDOptSrcLLAddr(lladdr=ALICE.mac), ICMPv6NDOptDstLLAddr(lladdr=ALICE.mac)
    question, answer = ICMPv6ND_NS(tgt=BOB.ip6), ICMPv6ND_NA(tgt=ALICE.ip6, R=0, S=1, O=1)
    yield "a question in a fragment", bytes(_to(BOB) / _six(BOB) / _first() / question / own_mac), "nd-spoof"
    own = ICMPv6ND_NS(tgt=ALICE.ip6)
    yield "a question for its own in a fragment", bytes(_to(BOB) / _six(BOB) / _first() / own), "nd-spoof"
    to_all = Ether(src=ALICE.mac, dst="33:33:00:00:00:01") / IPv6(src=ALICE.ip6, dst="ff02::1", hlim=255)
    yield "an answer to all in a fragment", bytes(to_all / _first() / answer / own_target), "nd-spoof"
    yield "an answer in a fragment", bytes(_to(BOB) / _six(BOB) / _first() / answer / own_target), "nd-spoof"
    hidden = _to(BOB) / _six(BOB) / _first(60) / Raw(bytes(IPv6ExtHdrDestOpt(nh=6)))
    yield "a first fragment that hides its TCP", bytes(hidden), "protocol"
    cut = bytes(_to(BOB) / IPv6(src=ALICE.ip6, dst=BOB.ip6, hlim=255, nh=58) / Raw(bytes([135]) + bytes(15)))
    yield "a question without what is asked for", cut, "nd-spoof"
    yield "a question of another code", bytes(_to(BOB) / _six(BOB) / ICMPv6ND_NS(tgt=BOB.ip6, code=1)), "nd-spoof"
    nonce = Raw(bytes([14, 1, 0, 0, 0, 0, 0, 0]))
    yield "a question with an option more", bytes(_to(BOB) / _six(BOB) / question / own_mac / nonce), "nd-spoof"
    yield "an answer with an option more", bytes(_to(BOB) / _six(BOB) / answer / own_target / nonce), "nd-spoof"
    short = _to(BOB) / IPv6(src=ALICE.ip6, dst=BOB.ip6, nh=60, plen=4) / Raw(bytes(4))
    yield "an extension header that is cut short", bytes(short), "protocol"
    yield "protocol 255", bytes(_to(BOB) / IP(src=ALICE.ip4, dst=BOB.ip4, proto=255) / Raw(b"x")), "protocol"
    yield "protocol 255, IPv6", bytes(_to(BOB) / IPv6(src=ALICE.ip6, dst=BOB.ip6, nh=255) / Raw(b"x")), "protocol"
    yield "protocol 0, IPv4", bytes(_to(BOB) / IP(src=ALICE.ip4, dst=BOB.ip4, proto=0) / Raw(b"x")), "bob"
    first_udp = IP(src=ALICE.ip4, dst=BOB.ip4, flags="MF", proto=17) / Raw(
        bytes(UDP(sport=67, dport=68, len=40)) + bytes(16)
    )
    yield "a DHCP answer's first fragment", bytes(_to(BOB) / first_udp), "dhcp-server"
    later = IP(src=ALICE.ip4, dst=BOB.ip4, frag=3, proto=17) / Raw(bytes([0, 67, 0, 68]) * 6)
    yield "a later fragment that looks like one", bytes(_to(BOB) / later), "bob"
    whole = _to(BOB) / _six(BOB) / IPv6ExtHdrFragment(offset=3, m=0, id=9, nh=17) / Raw(bytes([2, 34, 2, 34]) * 6)
    yield "a later fragment that looks like DHCPv6", bytes(whole), "bob"
    extended = _to(BOB) / _six(BOB) / IPv6ExtHdrDestOpt() / TCP(dport=80, flags="S")
    yield "TCP behind a header", bytes(extended), "bob"
    yield "to itself", udp4(ALICE, ALICE), "nothing"
    yield "to nobody", udp4(ALICE, dataclasses.replace(BOB, mac="0a:66:00:00:00:01")), "nothing"


def questions() -> Iterator[tuple[str, bytes, str]]:
    everyone = {"bob": BOB, "carol": CAROL, "the gateway": GATEWAY}
    for name, who in everyone.items():
        yield f"who is {name}", arp_request(ALICE, who.ip4), "alice"
        asked = solicitation(ALICE, who.ip6)
        yield f"who is {name}, IPv6", asked, "alice"
        head = IPv6(src=ALICE.ip6, dst=Ether(asked)[IPv6].dst, hlim=255)
        without = Ether(src=ALICE.mac, dst=Ether(asked).dst) / head / ICMPv6ND_NS(tgt=who.ip6)
        yield f"who is {name}, IPv6, not saying who asks", bytes(without), "alice"
    yield "who is nobody", arp_request(ALICE, "10.2.0.99"), "nothing"
    yield "who is nobody, IPv6", solicitation(ALICE, "fd00:1::99"), "nothing"
    yield "who is of another network", arp_request(ALICE, "10.1.0.34"), "nothing"
    yield "another network's gateway", arp_request(ALICE, "10.1.0.1"), "nothing"
    for name, who, gets in (("bob", BOB, "bob"), ("carol", CAROL, "alice"), ("the gateway", GATEWAY, "alice")):
        asked = ARP(op=1, hwsrc=ALICE.mac, psrc=ALICE.ip4, hwdst=who.mac, pdst=who.ip4)
        yield f"asking {name} itself", bytes(_to(who) / asked), gets
        asked6 = ICMPv6ND_NS(tgt=who.ip6) / ICMPv6NDOptSrcLLAddr(lladdr=ALICE.mac)
        yield f"asking {name} itself, IPv6", bytes(_to(who) / _six(who) / asked6), gets
    stray = ICMPv6ND_NS(tgt="fd00:1::99") / ICMPv6NDOptSrcLLAddr(lladdr=ALICE.mac)
    yield "asking carol for nobody", bytes(_to(CAROL) / _six(CAROL) / stray), "nothing"
    told = ARP(op=2, hwsrc=ALICE.mac, psrc=ALICE.ip4, hwdst=CAROL.mac, pdst=CAROL.ip4)
    yield "an answer that nobody there waits for", bytes(_to(CAROL) / told), "nothing"


def gateway_frames() -> Iterator[tuple[str, bytes, str]]:
    def to(address: str) -> bytes:
        make = udp6 if ":" in address else udp4
        return make(ALICE, dataclasses.replace(GATEWAY, ip4=address, ip6=address))

    yield "for the gateway, and no ping", to(GATEWAY.ip4), "nothing"
    yield "for the gateway, and no ping, IPv6", to(GATEWAY.ip6), "nothing"
    echo = IP(src=ALICE.ip4, dst=GATEWAY.ip4) / ICMP(id=7) / Raw(b"x")
    yield "a ping", bytes(_to(GATEWAY) / echo), "alice"
    later = IP(src=ALICE.ip4, dst=GATEWAY.ip4, proto=1, frag=9) / Raw(b"x" * 16)
    yield "a later fragment of a ping", bytes(_to(GATEWAY) / later), "alice"
    later6 = IPv6ExtHdrFragment(offset=9, m=0, id=9, nh=58) / Raw(b"x" * 16)
    yield "a later fragment of a ping, IPv6", bytes(_to(GATEWAY) / _six(GATEWAY) / later6), "alice"
    yield "a ping, IPv6", bytes(_to(GATEWAY) / _six(GATEWAY) / ICMPv6EchoRequest(data=b"x")), "alice"
    yield "another network's gateway", to("10.1.0.1"), "not-here"
    for address in ("0.0.0.0", "127.0.0.1", "224.0.0.251", "255.255.255.255", "::1", "ff02::1"):
        yield f"for {address}", to(address), "not-here"
    for address in ("10.1.0.34", "10.2.0.99", "192.0.2.77", "2001:db8::77", CAROL.ip6):
        yield f"for {address}", to(address), "no-router"
    asked = IPv6(src=ALICE.ip6, dst="ff02::1:ff00:99", hlim=255) / ICMPv6ND_NS(tgt="fd00:1::99")
    yield "a question to it for nobody", bytes(_to(GATEWAY) / asked / ICMPv6NDOptSrcLLAddr(lladdr=ALICE.mac)), "nothing"
    arp = ARP(op=1, hwsrc=ALICE.mac, psrc=ALICE.ip4, hwdst=GATEWAY.mac, pdst=BOB.ip4)
    yield "a question to it for bob", bytes(_to(GATEWAY) / arp), "nothing"


FRAMES = [*odd_frames(), *questions(), *gateway_frames()]


@pytest.mark.parametrize(("frame", "wanted"), [each[1:] for each in FRAMES], ids=[each[0] for each in FRAMES])
def test_what_is_odd_ends_as_on_bridges(frame: bytes, wanted: str) -> None:
    assert fate_of(first().sends(STATE.endpoints[0], frame)) == wanted


def test_a_port_that_nobody_programmed_may_send_nothing() -> None:
    assert cause_in(first().tables.run(udp4(ALICE, BOB), 99)) == "unknown-port"


def arrivals() -> Iterator[tuple[str, int, str, bytes, str]]:
    vni, theirs = DUAL.vni, "192.0.2.2"
    yield "for bob", vni, theirs, udp4(CAROL, BOB), "bob"
    yield "an ARP answer for bob", vni, theirs, bytes(Ether(src=CAROL.mac, dst=BOB.mac) / ARP(op=2)), "bob"
    yield "for whoever is elsewhere", vni, theirs, udp4(BOB, CAROL), "nothing"
    yield "for nobody", vni, theirs, udp4(CAROL, dataclasses.replace(BOB, mac="0a:66:00:00:00:01")), "nothing"
    yield "for the gateway", vni, theirs, udp4(CAROL, GATEWAY), "nothing"
    beyond = dataclasses.replace(GATEWAY, ip4="192.0.2.77")
    yield "for somebody beyond, by the gateway's MAC", vni, theirs, udp4(CAROL, beyond), "nothing"
    yield "to all", vni, theirs, udp4(CAROL, dataclasses.replace(BOB, mac=BROADCAST_MAC)), "nothing"
    yield "a question", vni, theirs, arp_request(CAROL, BOB.ip4), "nothing"
    yield "a question, IPv6", vni, theirs, solicitation(CAROL, BOB.ip6), "nothing"
    yield "of a stranger", vni, "192.0.2.99", udp4(CAROL, BOB), "foreign-vtep"
    yield "of a stranger, IPv6", vni, "2001:db8::2", udp4(CAROL, BOB), "foreign-vtep"
    yield "of nobody's network", 0xABCDEF, theirs, udp4(CAROL, BOB), "nothing"
    yield "for bob's address in another network", WEB.vni, theirs, udp4(CAROL, BOB), "nothing"


ARRIVING = list(arrivals())


@pytest.mark.parametrize(
    ("vni", "vtep", "frame", "wanted"), [each[1:] for each in ARRIVING], ids=[each[0] for each in ARRIVING]
)
def test_a_tunnel_is_taken_from_members_for_stations_of_this_host(
    vni: int, vtep: str, frame: bytes, wanted: str
) -> None:
    assert fate_of(first().hears(vni, vtep, frame)) == wanted


# Random states ------------------------------------------------------------------------------------------------------


def _members(state: State, families: dict[HostId, tuple[bool, bool]]) -> State:
    """The same networks, on hosts whose underlays are of these families."""

    def member_of(number: int) -> Member:
        four, six = families[host(number)]
        return member(number, four=four, six=six)

    members = tuple((where, member_of(1 if one.host == host(1) else 2)) for where, one in state.members)
    return dataclasses.replace(state, members=members)


def _views(state: State) -> dict[HostId, Host]:
    seen = {one.host: one for _, one in state.members}
    return {id_: Host(state.seen_from(id_, one.vtep4, one.vtep6)) for id_, one in seen.items()}


def _arrives(state: State, hosts: dict[HostId, Host], sender: Endpoint, target: Endpoint, frame: bytes) -> bool:
    """Whether a frame comes out of the target's port, however many switches it goes through."""
    here, vteps = sender.host, {one.host: one for _, one in state.members}
    verdict = hosts[here].sends(sender, frame)
    for _ in range(2):
        if not verdict.leaving:
            return False
        (leaving,) = verdict.leaving
        assert leaving.frame == frame
        if leaving.port != TUNNEL_PORT:
            return here == target.host and leaving.port == hosts[here].ports.get(port_name(target))
        numbers = {
            address_number(vtep): (id_, vtep)
            for id_, one in vteps.items()
            for vtep in (one.vtep4, one.vtep6)
            if vtep is not None
        }
        there, _ = numbers[leaving.tunnel]
        family = underlay_family(vteps[here], vteps[there])
        source = vteps[here].vtep4 if family == 4 else vteps[here].vtep6
        assert source is not None
        assert there != here
        verdict, here = hosts[there].hears(leaving.tun_id, source, frame), there
    raise AssertionError("a frame goes from tunnel to tunnel")


_FAMILIES = st.sampled_from([(True, False), (False, True), (True, True), (False, False)])


@given(st.integers(0, 1 << 20), _FAMILIES, _FAMILIES)
@settings(max_examples=8, deadline=None)
def test_who_reaches_whom_is_what_the_oracle_says(seed: int, one: tuple[bool, bool], other: tuple[bool, bool]) -> None:
    state = _members(random_state(seed), {host(1): one, host(2): other})
    hosts, vteps = _views(state), {each.host: each for _, each in state.members}

    def connected(here: HostId, there: HostId) -> bool:
        return underlay_family(vteps[here], vteps[there]) is not None

    for sender, target, verdict in matrix(state.endpoints, connected):
        me, to = station(sender), station(target)
        plain = dataclasses.replace(me, ip6=link_local(me.mac)), dataclasses.replace(to, ip6=link_local(to.mac))
        frames = [udp6(*plain)]
        mine, theirs = (" ".join(each.addresses) for each in (sender, target))
        frames += [udp4(me, to)] if "." in mine and "." in theirs else []
        frames += [udp6(me, to)] if "::" in mine and "::" in theirs else []
        for frame in frames:
            allowed = verdict.allowed or (verdict is Reach.NO_COMMON_FAMILY and frame is frames[0])
            if verdict is Reach.NO_COMMON_FAMILY and sender.host != target.host:
                allowed = allowed and connected(sender.host, target.host)
            assert _arrives(state, hosts, sender, target, frame) == allowed, (sender, target, verdict)


@given(st.integers(0, 1 << 20))
@settings(max_examples=8, deadline=None)
def test_who_is_answered_for_is_what_the_oracle_says(seed: int) -> None:
    state = random_state(seed)
    hosts = _views(state)
    networks = {network.id: network for network in state.networks}
    addresses = {address_of(text) for each in state.endpoints for text in each.addresses}
    addresses |= {subnet.gateway for network in state.networks for subnet in network.subnets}
    for sender in state.endpoints:
        own = set(map(address_of, sender.addresses))
        for address in addresses - own:
            make = solicitation if ":" in address else arp_request
            verdict = hosts[sender.host].sends(sender, make(station(sender), address))
            told = reach_address(sender, address, networks[sender.network], state.endpoints)
            assert bool(verdict.leaving) == told.reach.allowed, (sender, address, told)


@pytest.mark.parametrize("seed", range(200, 202))
def test_random_frames_end_as_the_oracle_of_frames_says(seed: int) -> None:
    """Without a switch: `tests/conformance` has the same with one, and says what a flow cannot see."""
    state = random_state(seed)
    hosts = _views(state)
    for one in random_frames(state, seed, 60):
        wanted, verdict = fate(state, one.sender, one.frame), hosts[one.sender.host].sends(one.sender, one.frame)
        seen = (cause_in(verdict), len(verdict.leaving))
        if seen != (wanted.cause, len(wanted.heard) + len(wanted.answers)):
            packet = Ether(one.frame)
            longer = IPv6 in packet and packet[IPv6].plen > len(packet) - 54
            if IP in packet:
                longer = packet[IP].len > len(packet[IP])
            assert (longer, seen[0]) == (True, "protocol"), f"{one.what}: {packet.summary()}: {wanted} {seen}"
