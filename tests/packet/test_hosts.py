"""Real packets through what each datapath makes: on one host, and between two, of one kind or of both."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import ICMPv6MLReport2, ICMPv6ND_NS
from scapy.layers.l2 import ARP, Ether
from scapy.layers.vxlan import VXLAN

from plugin.agent.facts import KernelUnderlay
from plugin.datapath.bridge.datapath import BridgeDatapath
from plugin.datapath.bridge.objects import bridge_name
from plugin.datapath.veth.ports import port_name
from plugin.doctor.underlay import read_underlay
from plugin.kernel import namespace, neighbour, route
from plugin.kernel.netlink import NetlinkSocket
from sdn.model.address import address_bytes, link_local, mac_bytes
from sdn.model.resources import Endpoint, Subnet
from sdn.reconcile.laws import Agent, expect_quiet
from sdn.reconcile.state import State
from sdn.reconcile.unit import Here
from tests.conformance.bridge_site import BridgeSite
from tests.conformance.host_site import HostSite
from tests.conformance.openflow_site import OpenflowSite
from tests.packet.lab import eventually
from tests.packet.namespaces import Tap, TestNamespace
from tests.states.states import BLUE, RED, endpoint, host, member, network

pytestmark = pytest.mark.root

NET4 = Subnet(prefix="10.1.0.0/24", gateway="10.1.0.1")
NET6 = Subnet(prefix="fd00:1::/64", gateway="fd00:1::1")
MTU = 1430  # what an IPv6 underlay of 1500 carries
BLUE_NET = network(1, BLUE, NET4, NET6, mtu_bytes=MTU)
RED_NET = network(2, RED, NET4, NET6, mtu_bytes=MTU)
A = endpoint(1, 1, BLUE_NET, "10.1.0.2/24", "fd00:1::2/64")
B = endpoint(2, 1, BLUE_NET, "10.1.0.3/24", "fd00:1::3/64")
B_AGAIN = endpoint(9, 1, BLUE_NET, "10.1.0.3/24", "fd00:1::3/64")
B_OTHER = endpoint(12, 1, BLUE_NET, "10.1.0.3/24", "fd00:1::3/64", mac="0a:77:00:00:00:03")
FAR = endpoint(3, 2, BLUE_NET, "10.1.0.4/24", "fd00:1::4/64")
RED_A = endpoint(4, 1, RED_NET, "10.1.0.2/24", "fd00:1::2/64")
RED_FAR = endpoint(5, 2, RED_NET, "10.1.0.5/24", "fd00:1::5/64")
ALONE = State("alone", Here(host(1), None, None), (BLUE,), (BLUE_NET,), ((BLUE_NET.id, member(1, four=False)),), (A, B))
BRIEFLY = ("-W1",)
"""Options of a ping that nobody is to answer."""
NOISE = ("multicast", "dad")
"""What a healthy container says by itself."""
UNDERLAYS = {"ipv4": (True, False), "ipv6": (False, True), "both": (True, True)}


def ping(inside: TestNamespace, address: str, *options: str) -> bool:
    """Whether the first echo request is answered."""
    return ping_from(Path("/run/netns") / inside.name, address, *options)


def ping_from(place: Path, address: str, *options: str) -> bool:
    """The same, from wherever a namespace is pinned."""
    command = ["nsenter", f"--net={place}", "ping", "-c1", "-W10", *options, address]
    return subprocess.run(command, capture_output=True, check=False, timeout=30).returncode == 0


@contextlib.contextmanager
def pinging(inside: TestNamespace, address: str) -> Iterator[None]:
    """A ping every 5 ms meanwhile; each but those that are under way at the end must be answered."""
    command = ["nsenter", f"--net=/run/netns/{inside.name}", "ping", "-i0.005", address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield
        finally:
            process.send_signal(signal.SIGINT)
            said, _ = process.communicate(timeout=10)
    answered = {int(number) for number in re.findall(r"icmp_seq=(\d+)", said)}
    assert len(answered) > 3, "too few to say anything"
    assert set(range(1, max(answered))) - answered == set()


def plain(which: Endpoint) -> list[str]:
    """Its addresses without prefix lengths."""
    return [address.partition("/")[0] for address in which.addresses]


@pytest.fixture
def bridge_site() -> Iterator[BridgeSite]:
    with contextlib.closing(BridgeSite()) as made:
        yield made


async def test_two_containers_of_one_host_reach_each_other_and_their_gateway(site: HostSite) -> None:
    """By IPv4, IPv6 and link-local address, at the first packet; an address that nobody has answers nobody."""
    with contextlib.closing(Agent(site, ALONE)) as agent:
        await agent.start(ALONE)
        a, b = site.container(A), site.container(B)
        for address in (*plain(B), f"{link_local(B.mac)}%eth0", "10.1.0.1", "fd00:1::1"):
            assert ping(a, address), address
        for address in (*plain(A), f"{link_local(A.mac)}%eth0"):
            assert ping(b, address), address
        assert not ping(a, "10.1.0.77", *BRIEFLY)
        assert not ping(a, "fd00:1::77", *BRIEFLY)
        expect_quiet(agent, "after traffic")


def ear(ns_fd: int) -> socket.socket:
    """Of every frame at every interface of a namespace, from now on."""
    made = namespace.socket_in(ns_fd, socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.htons(3))
    made.settimeout(20)
    return made


async def test_the_gateway_reaches_containers_and_no_container_hears_what_it_says_to_a_group(
    bridge_site: BridgeSite,
) -> None:
    """From the network's creation on: its ARP questions, solicitations and MLD reports go to the proxy alone."""
    site = bridge_site  # the gateway of the others is some flows, which say nothing of themselves
    containers = {site.container(A): plain(A), site.container(B): plain(B)}
    bridge = bridge_name(BLUE_NET.vni)
    with contextlib.ExitStack() as stack:
        ears = [stack.enter_context(ear(container.fd)) for container in containers]
        agent = stack.enter_context(contextlib.closing(Agent(site, ALONE)))
        await agent.start(ALONE)
        gateway = namespace.open_pinned(site.tenant(BLUE.id))
        assert gateway is not None
        stack.callback(os.close, gateway)
        own = stack.enter_context(ear(gateway))
        for address in [address for addresses in containers.values() for address in addresses]:
            assert ping_from(site.tenant(BLUE.id), address), address
        join_group(site.tenant(BLUE.id), bridge)
        said = set[type]()
        while said != {ARP, ICMPv6ND_NS, ICMPv6MLReport2}:
            frame, (ifname, *_) = own.recvfrom(2048)
            if ifname == bridge and frame[0] & 1:
                said |= {kind for kind in (ARP, ICMPv6ND_NS, ICMPv6MLReport2) if kind in Ether(frame)}
        for container, heard in zip(containers, ears, strict=True):
            assert ping(container, "10.1.0.1")
            assert [Ether(frame).summary() for frame in came_in(heard) if frame[0] & 1] == []


def join_group(place: Path, device: str) -> None:
    """By an address more, which has a group of its own; the kernel reports it at once."""
    command = ["nsenter", f"--net={place}", "ip", "address", "add", "fd00:1::77/64", "dev", device]
    subprocess.run(command, check=True, timeout=10)


def came_in(heard: socket.socket) -> list[bytes]:
    """What another has sent, up to now; there must be something."""
    frames = []
    heard.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            frame, (ifname, _, kind, *_) = heard.recvfrom(2048)
            if ifname != "lo" and kind < socket.PACKET_OUTGOING:
                frames.append(frame)
    assert frames
    return frames


async def test_drops_are_told_by_tenant_and_network(site: HostSite) -> None:
    """A frame from a foreign MAC dies with a name; one from the own MAC arrives."""
    with contextlib.closing(Agent(site, ALONE)) as agent:
        await agent.start(ALONE)
        with (
            contextlib.closing(Tap(site.container(A), "eth0")) as a,
            contextlib.closing(Tap(site.container(B), "eth0")) as b,
        ):
            honest, forged = (
                bytes(Ether(src=mac, dst=B.mac) / IP(src="10.1.0.2", dst="10.1.0.3") / UDP(dport=9) / (b"x" * 30))
                for mac in (A.mac, "0a:66:66:66:66:66")
            )
            before = _packets(agent)
            a.send(forged)
            a.send(honest)
            assert b.until(lambda frame: Ether(frame).haslayer(UDP) == 1, "the honest frame")[-1] == honest

        def risen() -> set[tuple[str, str, str]]:
            counted = _packets(agent).items()
            return {cause for cause, count in counted if count > before.get(cause, 0) and cause[2] not in NOISE}

        assert eventually(risen, bool, "the counter") == {(BLUE.id, BLUE_NET.id, "mac-spoof")}


def _packets(agent: Agent) -> dict[tuple[str, str, str], int]:
    return {(drop.tenant, drop.network, drop.cause): drop.packets for drop in agent.inner.drops()}


async def test_the_largest_packet_passes_and_one_byte_more_is_refused_by_the_sender(site: HostSite) -> None:
    """The network's MTU is that of the inside; the gateway answers in pieces that fit."""
    with contextlib.closing(Agent(site, ALONE)) as agent:
        await agent.start(ALONE)
        a = site.container(A)
        assert ping(a, "10.1.0.3", "-Mdo", "-s", str(MTU - 28))
        assert not ping(a, "10.1.0.3", "-Mdo", "-s", str(MTU - 27), *BRIEFLY)
        assert ping(a, "10.1.0.1", "-s", "4000")
        assert ping(a, "fd00:1::1", "-s", "4000")


async def test_a_detached_container_is_silent_and_its_name_is_free_at_once(site: HostSite) -> None:
    """What it still sends reaches nobody, what is sent to it is not answered, and a new ADD meets nothing dying."""
    with contextlib.closing(Agent(site, ALONE)) as agent:
        await agent.start(ALONE)
        a, b = site.container(A), site.container(B)
        assert ping(b, "10.1.0.2")
        agent.datapath.offer(B, site.sandbox(B))
        await agent.enter(State("left", ALONE.here, ALONE.tenants, ALONE.networks, ALONE.members, (A,)))
        agent.datapath.offer(B, None)
        with contextlib.closing(Tap(a, "eth0")) as tap:  # before, its kernel may have had something to say
            assert not ping(a, "10.1.0.3", *BRIEFLY)
            assert not ping(b, "10.1.0.2", *BRIEFLY)
            assert ping(a, "10.1.0.1")
            seen = tap.until(lambda frame: bool(Ether(frame).haslayer("ICMP")), "the gateway's answer")
        assert {Ether(frame).src for frame in seen} == {"02:48:57:00:00:65"}
        site.adopt(B_AGAIN, b)
        await agent.enter(State("again", ALONE.here, ALONE.tenants, ALONE.networks, ALONE.members, (A, B_AGAIN)))
        assert not agent.reconciler.failures
        assert ping(a, "10.1.0.3")
        assert ping(b, "fd00:1::2")


async def test_an_address_with_another_mac_is_announced(site: HostSite) -> None:
    """Who talked to the old one goes on without a pause; his neighbour entry says the new one at once."""
    with contextlib.closing(Agent(site, ALONE)) as agent:
        await agent.start(ALONE)
        a = site.container(A)
        for address in plain(B):
            assert ping(a, address), address
        await agent.enter(State("left", ALONE.here, ALONE.tenants, ALONE.networks, ALONE.members, (A,)))
        await agent.enter(State("other", ALONE.here, ALONE.tenants, ALONE.networks, ALONE.members, (A, B_OTHER)))
        with contextlib.closing(NetlinkSocket.open(a.fd)) as netlink:
            for address in plain(B_OTHER):
                family = socket.AF_INET6 if ":" in address else socket.AF_INET
                wanted = address_bytes(address), mac_bytes(B_OTHER.mac)

                def known(family: int = family) -> set[tuple[bytes, bytes]]:
                    return {(held, mac) for _, _, held, mac in neighbour.dump_neighbours(netlink, family)}

                eventually(known, lambda found, wanted=wanted: wanted in found, address)  # type: ignore[misc]
                assert ping(a, address), address


def underlay(first: HostSite, second: HostSite) -> None:
    """A wire between the namespaces of two hosts."""
    first.here.ip(f"link add under type veth peer name under netns {second.here.name}")
    for number, place in ((1, first), (2, second)):
        place.here.ip(
            f"link set under up\naddr add 192.0.2.{number}/24 dev under\naddr add 2001:db8::{number}/64 dev under nodad"
        )


KINDS: dict[str, Callable[[], HostSite]] = {"bridge": BridgeSite, "openflow": OpenflowSite}
PAIRS = ("bridge-bridge", "openflow-openflow", "bridge-openflow")


@contextlib.contextmanager
def two_hosts(kinds: str = PAIRS[0]) -> Iterator[tuple[HostSite, HostSite]]:
    """Two hosts on one underlay."""
    make_first, make_second = (KINDS[kind] for kind in kinds.split("-"))
    with contextlib.closing(make_first()) as first, contextlib.closing(make_second()) as second:
        underlay(first, second)
        yield first, second


def shared_state(four: bool, six: bool) -> State:
    """Two tenants with equal subnets, an address and a MAC in common, on two hosts; as host 1 sees it."""
    members = [member(number, four=four, six=six) for number in (1, 2)]
    nets = (BLUE_NET, RED_NET)
    return State(
        "shared",
        Here(host(1), members[0].vtep4, members[0].vtep6),
        (BLUE, RED),
        nets,
        tuple((net.id, one) for net in nets for one in members),
        (A, FAR, RED_A, RED_FAR),
    )


async def test_the_uplink_is_the_kernels_though_the_switch_has_the_address_too(site: HostSite) -> None:
    """What the agent reports and what the doctor looks at is the wire, not the switch's end of the way out."""
    one, other = member(1, six=True), member(2, six=True)
    here = Here(host(1), one.vtep4, one.vtep6)
    members = ((BLUE_NET.id, one), (BLUE_NET.id, other))
    state = State("uplink", here, (BLUE,), (BLUE_NET,), members, (A, FAR))
    site.here.ip("link add under type veth peer name wire\nlink set wire up")
    site.here.ip("link set under up\naddr add 192.0.2.1/24 dev under\naddr add 2001:db8::1/64 dev under nodad")
    try:
        with contextlib.closing(Agent(site, state)) as agent:
            await agent.start(state)
            assert not agent.reconciler.failures
            vteps = ("192.0.2.1", "2001:db8::1")
            found = namespace.run_in(site.here.fd, lambda: read_underlay(vteps, ())).uplinks
            assert [found[vtep].ifname if found[vtep] else None for vtep in vteps] == ["under", "under"]  # type: ignore[union-attr]
            for vtep in vteps:
                assert namespace.run_in(site.here.fd, functools.partial(_uplink_of, vtep)) == "under"
    finally:
        site.here.ip("link del under")


def _uplink_of(vtep: str) -> str:
    with contextlib.closing(KernelUnderlay()) as underlay:
        uplink = underlay.uplink_of(vtep)
        return uplink.ifname if uplink else ""


@pytest.mark.parametrize("family", UNDERLAYS)
@pytest.mark.parametrize("kinds", PAIRS)
async def test_containers_of_two_hosts_reach_each_other(kinds: str, family: str) -> None:
    """By both families over each underlay, at the first packet; equal tenants stay apart; no ARP or ND in a tunnel."""
    state = shared_state(*UNDERLAYS[family])
    with two_hosts(kinds) as (first, second):
        other = state.seen_from(host(2), *((state.members[1][1].vtep4, state.members[1][1].vtep6)))
        with (
            contextlib.closing(Agent(first, state)) as one,
            contextlib.closing(Agent(second, other)) as two,
            contextlib.closing(Tap(second.here, "under")) as wire,
        ):
            await one.start(state)
            await two.start(other)
            a, far = first.container(A), second.container(FAR)
            for address in (*plain(FAR), f"{link_local(FAR.mac)}%eth0"):
                assert ping(a, address), address
            for address in (*plain(A), "10.1.0.1", "fd00:1::1"):
                assert ping(far, address), address
            assert ping(first.container(RED_A), "10.1.0.5")
            assert not ping(first.container(RED_A), "10.1.0.4", *BRIEFLY)
            assert not ping(a, "10.1.0.5", *BRIEFLY)
            assert ping(a, plain(FAR)[0], "-Mdo", "-s", str(MTU - 28))
            control = bytes(Ether(src=A.mac, dst="02:00:00:00:00:01", type=0x88B5) / b"control".ljust(50))
            with contextlib.closing(Tap(first.here, "under")) as sender:
                sender.send(control)
            tunnelled = list(_tunnelled(wire, control))
            assert tunnelled
            assert not [one.summary() for one in tunnelled if "ARP" in one or "ICMPv6ND_NS" in one]
            expect_quiet(one, "after traffic")
            expect_quiet(two, "after traffic")


@pytest.mark.parametrize("kinds", PAIRS)
async def test_who_comes_and_goes_costs_the_others_no_packet(kinds: str) -> None:
    """Links of hosts come and go with containers; meanwhile those that are there talk, host to host and on one."""
    crowd = tuple(
        endpoint(100 + n, 1 + n % 2, BLUE_NET, f"10.1.0.{100 + n}/24", f"fd00:1::{100 + n:x}/64") for n in range(12)
    )
    state = shared_state(four=True, six=False)
    few = State("few", state.here, state.tenants, state.networks, state.members, (A, B, FAR))
    with two_hosts(kinds) as (first, second):
        vteps = state.members[1][1].vtep4, state.members[1][1].vtep6
        with (
            contextlib.closing(Agent(first, few)) as one,
            contextlib.closing(Agent(second, few.seen_from(host(2), *vteps))) as two,
        ):
            await one.start(few)
            await two.start(few.seen_from(host(2), *vteps))
            far, near = plain(FAR)[0], plain(B)[0]
            assert ping(first.container(A), far)
            assert ping(first.container(A), near)
            with pinging(first.container(A), far), pinging(first.container(A), near):
                for number in (*range(1, 13), *range(11, -1, -1)) * 2:
                    now = State(
                        f"{number}", few.here, few.tenants, few.networks, few.members, (A, B, FAR, *crowd[:number])
                    )
                    await one.enter(now)
                    await two.enter(now.seen_from(host(2), *vteps))


def _tunnelled(wire: Tap, control: bytes) -> Iterator[Ether]:
    """The inner frames that came in before a control frame."""
    for frame in wire.until(lambda seen: seen == control, "the control frame"):
        outer = Ether(frame)
        if VXLAN in outer:
            yield outer[VXLAN].payload


def test_how_a_host_reaches_another_is_read_from_its_routes() -> None:
    """Source address, link, MTU, and the prefixes that it reaches by itself."""
    with two_hosts() as (first, _), contextlib.closing(NetlinkSocket.open(first.here.fd)) as netlink:
        assert route.uplink_to(netlink, "192.0.2.2") == route.Uplink("192.0.2.1", "under", 1500)
        assert route.uplink_to(netlink, "2001:db8::2") == route.Uplink("2001:db8::1", "under", 1500)
        assert route.prefixes(netlink) == ("192.0.2.0/24", "2001:db8::/64")


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_thousand_containers_on_one_network_and_host(bridge_site: BridgeSite) -> None:
    """The first and the last reach each other; all of them go again."""
    wide = network(1, BLUE, Subnet(prefix="10.1.0.0/16", gateway="10.1.0.1"))
    crowd = tuple(endpoint(n, 1, wide, f"10.1.{n // 250 + 1}.{n % 250 + 1}/16") for n in range(1, 1001))
    members = ((wide.id, member(1)),)
    state = State("crowd", Here(host(1), "192.0.2.1", None), (BLUE,), (wide,), members, crowd)
    site = bridge_site
    one = State("one", state.here, (BLUE,), (wide,), members, crowd[:1])
    with contextlib.closing(Agent(site, one)) as agent:
        await agent.start(one)
        await agent.enter(state)
        expect_quiet(agent, "a thousand")
        assert ping(site.container(crowd[0]), plain(crowd[-1])[0])
        await agent.enter(one)
        datapath = agent.inner
        assert isinstance(datapath, BridgeDatapath)
        assert datapath.wait_removed(60)
        assert [port.endpoint for port in datapath.local_ports(datapath.read())] == [crowd[0].id]
        assert port_name(crowd[-1].id) not in str(datapath.read())
