"""Hosts whose Open vSwitch has no agent: set up as anybody sets up such a switch, by its own tools, and bound by REST.

With the userspace datapath the uplink is a port of a bridge `br-phy`, whose own device has the host's address; that is
where tunnels end. The kernel's stack does not look at the uplink's frames, nor at containers' (`plugin.datapath`'s
guard of ports). Containers are run by the host's runtime without a network; their wires are made here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from plugin.datapath.openflow.guard import PortGuard
from plugin.datapath.veth import inside
from plugin.kernel import ethtool, link, namespace, route
from plugin.kernel.netlink import NetlinkError, NetlinkSocket, Request
from plugin.kernel.nftables import run_libnftables
from sdn.client.client import Client, resource
from sdn.model.errors import HawseError, Kind
from sdn.model.resources import Endpoint
from sdn.reconcile.datapath import Sandbox
from topologies.containers import namespace_path
from topologies.record import UNDERLAY, Directory
from topologies.underlay import FIRST_PORT
from topologies.values import ContainerSpec, HostSpec, Topology
from topologies.vswitch import environment, run_tool

CONTAINER_LABEL, IFNAME_LABEL = "lab-container", "lab-ifname"
"""Of an endpoint that is bound to a switch's port: whose it is, and what it is called inside."""
OPENFLOW_PORT = 6653
INTEGRATION, PHYSICAL, TUNNEL = "br-int", "br-phy", "hwvxlan"
UPLINK = "eth0"
FIRST_INDEX = 2001
"""Of containers' wires, at both ends: nothing else in a lab counts so far."""
SHUT = """\
table netdev lab
delete table netdev lab
table netdev lab {
 chain uplink {
  type filter hook ingress device "eth0" priority 0; policy drop;
 }
}
"""
"""The switch has the uplink's frames; the kernel, which has them too, would answer a second time."""


@dataclasses.dataclass(frozen=True, slots=True)
class Wire:
    """One container's interface on a switch. `number` among all of the lab's: what its port is called after."""

    host: str
    container: str
    number: int
    network: str
    ifname: str
    addresses: tuple[str, ...]
    mac: str
    name: str
    """The endpoint's: the container's, for its first interface, so that `hawse why` finds it."""

    @property
    def port(self) -> str:
        """On the switch; the guard of ports goes by the name's beginning."""
        return f"hwv{self.number}"


def wires_of(topology: Topology) -> Iterator[Wire]:
    """All that hang on switches without an agent."""
    switches = {host.name for host in topology.hosts if not host.datapath.has_agent}
    wishes = ((c, wish) for c in topology.containers if c.host in switches for wish in c.attachments)
    for number, (container, wish) in enumerate(wishes):
        name = container.name if wish is container.attachments[0] else ""
        yield Wire(container.host, container.name, number, wish.network, wish.ifname, wish.addresses, wish.mac, name)


def without_wires(container: ContainerSpec) -> ContainerSpec:
    """What the runtime is to run: it has nobody to ask for interfaces."""
    return dataclasses.replace(container, attachments=())


def listening(controllers: Sequence[str]) -> list[str]:
    """The controller's options, so that switches may connect."""
    return [word for address in controllers for word in ("--openflow", f"tcp:{_bracketed(address)}:{OPENFLOW_PORT}")]


def spec_of(host: HostSpec, position: int) -> dict[str, Any]:
    """What the controller is told of a switch."""
    vteps = {f"vtep{family}": _plain(interface) for family, interface in _interfaces(host).items()}
    return {"name": host.name, "datapath_id": _datapath_id(position), "mtu_bytes": host.mtu_bytes, **vteps}


def _interfaces(host: HostSpec) -> dict[int, str]:
    both = {4: host.interface4, 6: host.interface6}
    return {family: interface for family, interface in both.items() if interface is not None}


def _plain(interface: str) -> str:
    return interface.partition("/")[0]


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _datapath_id(position: int) -> str:
    return f"{0x48570000_00000001 + position:016x}"


def set_up(directory: Directory, topology: Topology, position: int) -> None:
    """A host's switch: bridges, tunnel port, uplink, controller. Raises: UNAVAILABLE, with what could not be done."""
    host = topology.hosts[position]
    with _told(f"the switch of {host.name} cannot be set up"), _namespace(directory, host.name) as fd:
        with contextlib.closing(NetlinkSocket.open(fd)) as netlink:
            uplink = link.get(netlink, name=UPLINK)
            netlink.execute([route.remove_address(uplink.index, at) for at in _interfaces(host).values()])
            run_libnftables(SHUT, fd)
            with contextlib.closing(PortGuard(fd)) as guard:
                guard.ensure()
            _vsctl(directory, host, _bridges(uplink.mac, host.mtu_bytes, _datapath_id(position)))
            physical = link.get(netlink, name=PHYSICAL).index
            addresses = [route.add_address(physical, interface) for interface in _interfaces(host).values()]
            _done(netlink, [link.change(physical, b"", up=True), *addresses])
        with (
            _namespace(directory, UNDERLAY) as underlay_fd,
            contextlib.closing(NetlinkSocket.open(underlay_fd)) as wires,
        ):
            # Other hosts' kernels leave segmenting and checksums to the last wire, and the switch does neither.
            port = link.get(wires, index=FIRST_PORT + position).name
            ethtool.write_features(wires, port, {"tx": False, "tso": False, "gso": False})
        _introduce(directory, topology, host)
        targets = [f"tcp:{_bracketed(address)}:{OPENFLOW_PORT}" for address in topology.underlay.controllers]
        _vsctl(directory, host, ["set-controller", INTEGRATION, targets[0]])


def _bridges(mac: str, mtu_bytes: int, datapath_id: str) -> list[str]:
    return [
        *("add-br", PHYSICAL, "--", "set", "bridge", PHYSICAL, "datapath_type=netdev", f'other_config:hwaddr="{mac}"'),
        *("--", "set", "interface", PHYSICAL, f"mtu_request={mtu_bytes}", "--", "add-port", PHYSICAL, UPLINK),
        *("--", "add-br", INTEGRATION, "--", "set", "bridge", INTEGRATION, "datapath_type=netdev", "fail_mode=secure"),
        *("protocols=OpenFlow13", f"other_config:datapath-id={datapath_id}"),
        *("--", "add-port", INTEGRATION, TUNNEL, "--", "set", "interface", TUNNEL, "type=vxlan"),
        *("options:remote_ip=flow", "options:key=flow", "options:df_default=false"),
    ]


def _introduce(directory: Directory, topology: Topology, host: HostSpec) -> None:
    """To the other hosts: a switch that has to ask for a neighbour first loses the packet that made it ask."""
    for other in topology.hosts:
        if other.name == host.name:
            continue
        with _namespace(directory, other.name) as fd, contextlib.closing(NetlinkSocket.open(fd)) as netlink:
            mac = link.get(netlink, name=UPLINK).mac
        for interface in _interfaces(other).values():
            _appctl(directory, host, ["tnl/neigh/set", PHYSICAL, _plain(interface), mac])


def plug(directory: Directory, client: Client, wire: Wire) -> None:
    """Bind a port and hang the container on it. Raises: HawseError."""
    body = {
        "port": wire.port,
        "network": wire.network,
        "addresses": wire.addresses,
        "mac": wire.mac,
        "name": wire.name,
        "labels": {CONTAINER_LABEL: wire.container, IFNAME_LABEL: wire.ifname},
    }
    bound = client.post(f"{resource('switches', wire.host)}/ports", body).body
    endpoint = msgspec.structs.replace(msgspec.convert(bound, Endpoint), ifname=wire.ifname)
    mtu_bytes = int(client.get(resource("networks", wire.network)).body["mtu_bytes"])
    with (
        _told(f"{wire.ifname} of the container {wire.container} cannot be hung on the switch of {wire.host}"),
        _open(namespace_path(directory, wire.host, wire.container)) as inside_fd,
        _namespace(directory, wire.host) as fd,
        contextlib.closing(NetlinkSocket.open(fd)) as netlink,
    ):
        index, mtu = FIRST_INDEX + wire.number, link.encode_mtu(mtu_bytes)
        veth = link.create_veth(
            wire.port, index, mtu, peer=wire.ifname, peer_attributes=mtu + link.encode_mac(endpoint.mac),
            peer_ns_fd=inside_fd,
        )  # fmt: skip
        quiet = link.change(index, link.encode_no_address_generation())
        _done(netlink, [veth, quiet, link.change(index, b"", up=True)])
        error = inside.finish(Sandbox(inside_fd, namespace.cookie(inside_fd)), endpoint, index, checksums=True)
        if error is not None:
            raise error
        run_tool("ovs-vsctl", ["add-port", INTEGRATION, wire.port], environment(directory.vswitch(wire.host)))


def awaited(client: Client, host: str, wires: int) -> str:
    """What a switch is still waited for; "": nothing, it is there and all of its ports are programmed."""
    switch = client.get(resource("switches", host)).body
    if not switch["connected"]:
        return f"the switch of {host} has not connected"
    ready = [port for port in switch["ports"] if port["endpoint"] and port["number"]]
    failures = "; ".join(switch["failures"].values())
    return failures or (
        "" if len(ready) == wires else f"{wires - len(ready)} ports of the switch of {host} are not there"
    )


def _vsctl(directory: Directory, host: HostSpec, words: Sequence[str]) -> None:
    run_tool("ovs-vsctl", words, environment(directory.vswitch(host.name)))


def _appctl(directory: Directory, host: HostSpec, words: Sequence[str]) -> None:
    run_tool("ovs-appctl", words, environment(directory.vswitch(host.name)))


def _done(netlink: NetlinkSocket, requests: Sequence[Request]) -> None:
    for error in netlink.execute(requests):
        if error is not None:
            raise error


@contextlib.contextmanager
def _open(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _namespace(directory: Directory, name: str) -> contextlib.AbstractContextManager[int]:
    return _open(directory.namespace(name))


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """The kernel's errors, in words."""
    try:
        yield
    except (NetlinkError, OSError) as error:
        raise HawseError(Kind.UNAVAILABLE, f"{what}: {error}", hint="the lab was taken down again") from None


def endpoint_names(item: Mapping[str, Any]) -> tuple[str, str]:
    """Whose an endpoint is and what it is called inside: of a switch's port its labels say it."""
    labels = item.get("labels") or {}
    return labels.get(CONTAINER_LABEL, item["container"]), labels.get(IFNAME_LABEL, item["ifname"])
