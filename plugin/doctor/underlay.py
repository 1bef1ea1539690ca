"""The way out of this host: which link has the VTEP, in what state it is, and where the routes to the others lead."""

from __future__ import annotations

import dataclasses
import fcntl
import socket
import struct
from collections.abc import Sequence

from plugin.agent.facts import OWN_PREFIX
from plugin.doctor.finding import Finding, ok, problem, warning
from plugin.kernel import link, namespace, route
from plugin.kernel.netlink import NetlinkError, NetlinkSocket
from plugin.kernel.route import Uplink

CHECK = "uplink"
_SIOCGIFFLAGS = 0x8913
_IFF_UP, _IFF_LOOPBACK, _IFF_RUNNING = 0x1, 0x8, 0x40
_FOREIGN_BRIDGES = ("docker", "br-", "virbr", "cni", "podman", "lxcbr", "lxdbr", "incusbr", "cbr", "hwb")
"""How bridges that other programs make for containers and machines are called."""


@dataclasses.dataclass(frozen=True, slots=True)
class UplinkFacts:
    """The link that has a VTEP. `kind`: veth, bridge, … ("" of hardware); `master`: the bridge that it is a port of."""

    vtep: str
    ifname: str
    up: bool
    running: bool
    loopback: bool
    kind: str
    mac: str
    mtu_bytes: int
    master: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Way:
    """Where the route to another host leads; None: there is none."""

    peer: str
    vtep: str
    target: str
    uplink: Uplink | None


@dataclasses.dataclass(frozen=True, slots=True)
class UnderlayFacts:
    """`uplinks`: by VTEP, None where no link has it. `settings`: of /proc/sys/net, as far as they are there."""

    uplinks: dict[str, UplinkFacts | None]
    ways: tuple[Way, ...]
    settings: dict[str, str]


def read_underlay(vteps: Sequence[str], targets: Sequence[tuple[str, str, str]]) -> UnderlayFacts:
    """Of the calling thread's namespace. `targets`: (peer, this host's VTEP, the peer's of that family)."""
    netlink = NetlinkSocket.open()
    try:
        links = {found.index: found for found in link.dump(netlink)}
        holders = {
            interface.rpartition("/")[0]: index
            for index, interface in route.dump_addresses(netlink)
            if index in links and not links[index].name.startswith(OWN_PREFIX)
        }
        uplinks = {vtep: _uplink(vtep, links, holders.get(vtep)) for vtep in vteps}
        ways = tuple(Way(peer, vtep, target, _way(netlink, target)) for peer, vtep, target in targets)
    finally:
        netlink.close()
    names = sorted({found.ifname for found in uplinks.values() if found})
    settings = namespace.read_sysctls(
        ["ipv4/conf/all/rp_filter", *(f"ipv4/conf/{name}/rp_filter" for name in names), *_BRIDGE_SETTINGS]
    )
    return UnderlayFacts(uplinks, ways, settings)


_BRIDGE_SETTINGS = ("bridge/bridge-nf-call-iptables", "bridge/bridge-nf-call-ip6tables")


def _uplink(vtep: str, links: dict[int, link.Link], index: int | None) -> UplinkFacts | None:
    found = links.get(index) if index is not None else None
    if found is None:
        return None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asking:
        try:
            answer = fcntl.ioctl(asking, _SIOCGIFFLAGS, struct.pack("16sH14x", found.name.encode(), 0))
            (flags,) = struct.unpack_from("H", answer, 16)
        except OSError:  # gone meanwhile
            return None
    master = links.get(found.master)
    return UplinkFacts(
        vtep=vtep,
        ifname=found.name,
        up=bool(flags & _IFF_UP),
        running=bool(flags & _IFF_RUNNING),
        loopback=bool(flags & _IFF_LOOPBACK),
        kind=found.kind,
        mac=found.mac,
        mtu_bytes=found.mtu_bytes,
        master=master.name if master else "",
    )


def _way(netlink: NetlinkSocket, target: str) -> Uplink | None:
    try:
        return route.uplink_to(netlink, target)
    except NetlinkError:
        return None


def judge_uplinks(facts: UnderlayFacts, *, alone: bool = False) -> list[Finding]:
    """The links of the VTEPs, and the routes. `alone`: the controller is here, and no other machine can reach it."""
    if not facts.uplinks and alone:
        return [
            warning(
                CHECK, "this machine is alone: its controller listens where no other machine reaches it",
                "containers here reach each other; no other machine can join",
                "hawse down --keep-containers; hawse up -d --listen ADDRESS:PORT     # 'ip address' shows what it has",
            )
        ]  # fmt: skip
    if not facts.uplinks:
        return [
            problem(
                CHECK, "this host has no VTEP: no route leads to a controller's address",
                "no tunnel to it can be made",
                "ip route     # give it an address on the underlay, or set vtep4 or vtep6 in agent.json",
            )
        ]  # fmt: skip
    findings = [finding for vtep, uplink in facts.uplinks.items() for finding in _judge_uplink(vtep, uplink)]
    for way in facts.ways:
        uplink = facts.uplinks.get(way.vtep)
        if uplink is not None:
            findings += _judge_way(way, uplink, facts.settings)
    if not findings:
        shown = (f"{vtep} on {uplink.ifname}" for vtep, uplink in facts.uplinks.items() if uplink)
        return [ok(CHECK, ", ".join(shown), ways=len(facts.ways))]
    return findings


def _judge_uplink(vtep: str, uplink: UplinkFacts | None) -> list[Finding]:
    lost = "no tunnel packet comes to this host"
    if uplink is None:
        return [
            problem(
                CHECK, f"no link of this host has its VTEP {vtep}", lost,
                f"ip address add {vtep}/PREFIX dev LINK", "or remove vtep4/vtep6 from agent.json and restart the agent",
                vtep=vtep,
            )
        ]  # fmt: skip
    name = uplink.ifname
    if uplink.loopback:
        choose = "hawse agent --config with vtep4/vtep6 set to an address that other hosts reach"
        text = f"the VTEP {vtep} is on the loopback link {name}"
        return [problem(CHECK, text, "no other host reaches it", choose, vtep=vtep, link=name)]
    if not uplink.up:
        text = f"the VTEP {vtep} is on {name}, which is down"
        return [problem(CHECK, text, lost, f"ip link set {name} up", vtep=vtep, link=name)]
    if not uplink.running:
        text = f"the VTEP {vtep} is on {name}, which has no carrier"
        return [problem(CHECK, text, lost, f"ip -s link show {name}     # cable, switch, or its other end", link=name)]
    if uplink.kind == "bridge" and name.startswith(_FOREIGN_BRIDGES):
        return [
            warning(
                CHECK,
                f"the VTEP {vtep} is on {name}, a bridge that is made for containers or virtual machines",
                "other machines have a bridge of that name with the same address: tunnels lead nowhere",
                "set vtep4/vtep6 in agent.json to an address of the link that leads to the other hosts",
                vtep=vtep,
                link=name,
            )
        ]
    return []


def _judge_way(way: Way, uplink: UplinkFacts, settings: dict[str, str]) -> list[Finding]:
    facts = {"peer": way.peer, "target": way.target}
    if way.uplink is None:
        return [
            problem(
                CHECK, f"there is no route to host {way.peer} at {way.target}",
                f"containers here and on {way.peer} do not reach each other",
                f"ip route add {way.target}/{32 if '.' in way.target else 128} via GATEWAY dev {uplink.ifname}",
                **facts,
            )
        ]  # fmt: skip
    if way.uplink.ifname == uplink.ifname:
        return []
    text = (
        f"the route to host {way.peer} ({way.target}) leads out of {way.uplink.ifname}, and the VTEP {way.vtep} is on"
    )
    text += f" {uplink.ifname}"
    # The kernel takes the larger number of the two (ip-sysctl.rst): 1 is strict, 2 is loose.
    rule = max(settings.get(f"ipv4/conf/{name}/rp_filter", "0") for name in ("all", uplink.ifname))
    asks = f"ip route get {way.target} from {way.vtep}"
    if rule == "1" and "." in way.target:
        return [
            problem(
                CHECK, f"{text}; rp_filter is strict there",
                "packets of that host are dropped where they come in, for its route is another",
                f"sysctl -w net.ipv4.conf.all.rp_filter=2 net.ipv4.conf.{uplink.ifname}.rp_filter=2", asks, **facts,
            )
        ]  # fmt: skip
    return [
        warning(
            CHECK, text, "tunnels take a way that answers do not come back by; firewalls on it may drop them", asks,
            **facts,
        )
    ]  # fmt: skip


def judge_settings(facts: UnderlayFacts) -> list[Finding]:
    """Settings of /proc/sys/net that hurt."""
    bridged = sorted(
        {uplink.master or uplink.ifname for uplink in facts.uplinks.values() if uplink and _is_bridged(uplink)}
    )
    calling = [name for name in _BRIDGE_SETTINGS if facts.settings.get(name, "0") != "0"]
    if bridged and calling:
        names = [f"net.{name.replace('/', '.')}" for name in calling]
        return [
            warning(
                "sysctls",
                f"the uplink is on the bridge {', '.join(bridged)}, and {' and '.join(names)} is on",
                "tunnel packets that cross the bridge also pass the host's FORWARD rules, which may drop them",
                "sysctl -w " + " ".join(f"{name}=0" for name in names),
            )
        ]
    strict = facts.settings.get("ipv4/conf/all/rp_filter", "0") == "1"
    return [ok("sysctls", "rp_filter is strict, and routes are symmetric" if strict else "none that hurts")]


def _is_bridged(uplink: UplinkFacts) -> bool:
    return uplink.kind == "bridge" or bool(uplink.master)
