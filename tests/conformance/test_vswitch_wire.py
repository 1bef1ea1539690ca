"""The way out and in, by packets: a container behind the switch, another on a host whose kernel ends the tunnels."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from plugin.kernel import ethtool, namespace
from sdn.openflow import cookies
from sdn.openflow.encode import encode_add
from sdn.openflow.fields import Field
from sdn.openflow.flow import Flow, Output, SetField
from sdn.openflow.match import in_port, match, tun_id
from tests.conformance.vswitch_process import wait_until
from tests.conformance.vswitch_site import MTU_BYTES, VswitchSite, segment, vswitch_site
from tests.packet.namespaces import TestNamespace, namespaces

pytestmark = pytest.mark.root

VNI = 100
HERE, PEER = {4: "192.0.2.1", 6: "2001:db8::1"}, {4: "192.0.2.2", 6: "2001:db8::2"}
FAR = {4: "198.51.100.2", 6: "2001:db8:1::2"}
LENGTH = {4: 24, 6: 64}
BYTES = 3_000_000


class Wire:
    """`here` has the switch and a container `inside`; `peer` is a host of the kernel's, its container itself."""

    def __init__(self, family: int, site: VswitchSite, peer: TestNamespace, inside: TestNamespace) -> None:
        self.family, self.site, self.peer, self.inside = family, site, peer, inside

    def bind(self, vtep: str) -> None:
        """Connect the containers, the peer's VTEP being this one."""
        family, site = self.family, self.site
        site.vswitch.uplink(*(HERE[each] if each == family else None for each in (4, 6)))
        site.vswitch.reaches({vtep}, ())
        site.vswitch.guard_networks({VNI})
        self.peer.ip(
            f"link add vx type vxlan id {VNI} local {vtep} remote {HERE[family]} dstport 4789 nolearning\n"
            "link set vx address 0a:00:00:00:00:02 mtu 1450 up\naddr add 10.0.0.2/24 dev vx\n"
            "neigh add 10.0.0.1 lladdr 0a:00:00:00:00:01 dev vx"
        )
        site.here.ip(f"link add hwv1 mtu 1450 type veth peer name eth0 netns {self.inside.name}\nlink set hwv1 up")
        self.inside.ip(
            "link set eth0 address 0a:00:00:00:00:01 mtu 1450 up\naddr add 10.0.0.1/24 dev eth0\n"
            "neigh add 10.0.0.2 lladdr 0a:00:00:00:00:02 dev eth0"
        )
        with namespace.socket_in(self.inside.fd, socket.AF_INET, socket.SOCK_DGRAM, 0) as there:
            ethtool.write_features(there, "eth0", {"tx": False})
        number = site.add("hwv1")["hwv1"]
        target = SetField(Field.TUN_IPV6_DST if family == 6 else Field.TUN_IPV4_DST, _packed(vtep))
        tunnel = SetField(Field.TUN_ID, VNI.to_bytes(8, "big"))
        flows = [
            Flow(0, 100, match(in_port(number)), (tunnel, target, Output(1))),
            Flow(0, 100, match(in_port(1), tun_id(VNI)), (Output(number),)),
        ]
        flows = [flow._replace(cookie=cookies.of_network(VNI)) for flow in flows]
        assert site.vswitch.flows([[encode_add(flow) for flow in flows]]) == [None]

    def ping(self, *options: str) -> str:
        """What the first ping of all prints: one packet, none may be lost."""
        return self.site.process.run(
            "nsenter", f"--net=/run/netns/{self.inside.name}", "ping", "-c1", "-W10", *options, "10.0.0.2"
        )


def _packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


@pytest.fixture(params=[4, 6], ids=["underlay4", "underlay6"])
def wire(request: pytest.FixtureRequest) -> Iterator[Wire]:
    """Both hosts on one segment."""
    family: int = request.param
    with vswitch_site() as site, segment() as lan, namespaces(2) as (peer, inside):
        site.uplink(lan, "h1", f"{HERE[family]}/{LENGTH[family]}")
        peer.ip(f"link add eth0 mtu {MTU_BYTES} type veth peer name h2 netns {lan.name}\nlink set eth0 up")
        peer.ip(f"addr add {PEER[family]}/{LENGTH[family]} dev eth0 {'nodad' if family == 6 else ''}")
        lan.ip(f"link set h2 mtu {MTU_BYTES} master lan up")
        yield Wire(family, site, peer, inside)


def _transfer(source: TestNamespace, target: TestNamespace, address: str) -> int:
    """Bytes that one TCP connection brings over."""
    with contextlib.ExitStack() as undo:
        listener = undo.enter_context(namespace.socket_in(target.fd, socket.AF_INET, socket.SOCK_STREAM, 0))
        listener.bind((address, 5301))
        listener.listen()
        listener.settimeout(20)
        sender = undo.enter_context(namespace.socket_in(source.fd, socket.AF_INET, socket.SOCK_STREAM, 0))
        sender.settimeout(20)
        sender.connect((address, 5301))
        taken, _ = listener.accept()
        undo.enter_context(taken)
        taken.settimeout(20)

        def send() -> None:
            sender.sendall(bytes(BYTES))
            sender.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=send)
        thread.start()
        got = 0
        while data := taken.recv(1 << 16):
            got += len(data)
        thread.join()
        return got


def test_no_packet_is_lost_not_even_the_first(wire: Wire):
    wire.bind(PEER[wire.family])
    assert "1 received" in wire.ping()
    assert "1 received" in wire.ping("-M", "do", "-s", str(1450 - 28))


def test_super_packets_of_a_kernel_arrive(wire: Wire):
    """What a kernel sends is segmented late, in the way in; what the container sends is checksummed by itself."""
    wire.bind(PEER[wire.family])
    assert _transfer(wire.peer, wire.inside, "10.0.0.1") == BYTES
    assert _transfer(wire.inside, wire.peer, "10.0.0.2") == BYTES


def test_behind_a_router(wire: Wire):
    """A member that is not on the segment: the first packet goes to the router that the host's routes name."""
    family = wire.family
    with namespaces(1) as (far,):
        peer = wire.peer
        peer.ip(f"link add far mtu {MTU_BYTES} type veth peer name eth0 netns {far.name}\nlink set far up")
        options = "nodad" if family == 6 else ""
        peer.ip(f"addr add {FAR[family][:-1]}1/{LENGTH[family]} dev far {options}")
        far.ip(f"link set eth0 mtu {MTU_BYTES} up\naddr add {FAR[family]}/{LENGTH[family]} dev eth0 {options}")
        far.ip(f"route add default via {FAR[family][:-1]}1")
        for name in ("eth0", "far"):  # a router asks for neighbours from its link-local address
            peer.ip(f"addr add fe80::1/64 dev {name} nodad")
        forwarding = {"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1"}
        namespace.run_in(peer.fd, lambda: namespace.write_sysctls(forwarding))
        wire.site.here.ip(f"route add default via {PEER[family]}")
        behind = Wire(family, wire.site, far, wire.inside)
        behind.bind(FAR[family])
        assert "1 received" in behind.ping()


def test_tunnels_that_are_not_ours_are_the_hosts(wire: Wire):
    """Another overlay on the same port, whose tunnels the host's own kernel ends."""
    wire.bind(PEER[wire.family])
    for here, vtep, remote, number in (
        (wire.site.here, HERE[wire.family], PEER[wire.family], 1),
        (wire.peer, PEER[wire.family], HERE[wire.family], 2),
    ):
        here.ip(
            f"link add theirs type vxlan id 7 local {vtep} remote {remote} dstport 4789\n"
            f"link set theirs address 0a:00:00:00:07:0{number} up\naddr add 10.7.0.{number}/24 dev theirs"
        )
    ping = ("nsenter", f"--net=/run/netns/{wire.peer.name}", "ping", "-c1", "-W10", "10.7.0.1")
    assert "1 received" in wire.site.process.run(*ping)
    assert "1 received" in wire.ping()


def test_what_does_not_say_its_vni_is_dropped_and_counted(wire: Wire):
    wire.bind(PEER[wire.family])
    kind = socket.AF_INET6 if wire.family == 6 else socket.AF_INET
    with namespace.socket_in(wire.peer.fd, kind, socket.SOCK_DGRAM, 0) as sender:
        for size in (0, 4, 6):
            sender.sendto(bytes(size), (HERE[wire.family], 4789))
        sender.sendto(bytes(8), (HERE[wire.family], 4790))
        sender.sendto(bytes(8), (HERE[wire.family], 4789))  # VNI 0: says it, and is the kernel's
    wait_until(lambda: wire.site.vswitch.malformed()[0] >= 3, "they are counted")
    assert wire.site.vswitch.malformed()[0] == 3
    # The count goes on when the table is loaded anew.
    wire.site.process.run("ip", "-n", wire.site.here.name, "link", "del", "hwu0")
    wire.site.vswitch.mend()
    wire.site.wait_intact()
    assert wire.site.vswitch.malformed()[0] == 3
    wait_until(lambda: "1 received" in _tried(wire), "packets pass again")


def _tried(wire: Wire) -> str:
    with contextlib.suppress(AssertionError):
        return wire.ping("-W1")
    return ""


def test_fragments_of_our_tunnels_are_dropped_and_counted(wire: Wire):
    wire.bind(PEER[wire.family])
    kind = socket.AF_INET6 if wire.family == 6 else socket.AF_INET
    vxlan = bytes((8, 0, 0, 0, 0, 0, VNI, 0))
    with namespace.socket_in(wire.peer.fd, kind, socket.SOCK_DGRAM, 0) as sender:
        sender.sendto(vxlan + bytes(4000), (HERE[wire.family], 4789))
    wait_until(lambda: wire.site.vswitch.malformed()[0] == 1, "the first fragment is counted")
