"""A topology file's text to a `Topology`. README.md beside this file is the reference for who writes one.

Pure. Every refusal is INVALID with `file`, `line` and, where there is a choice, `allowed` and `nearest` as facts.
"""

from __future__ import annotations

import dataclasses
import os

from sdn.model.address import Prefix, address_number, family_of, format_address, parse_address, parse_mac, parse_prefix
from sdn.model.errors import HawseError, invalid, not_found
from sdn.model.ids import parse_name
from sdn.model.resources import MTU_MIN_BYTES
from topologies.document import FILE_BYTES_MAX, Place, parse_document
from topologies.expectations import parse_expectations
from topologies.references import resolve_network
from topologies.values import (
    DEFAULT_TENANT,
    UNDERLAY_MTU_BYTES,
    UNDERLAY_PREFIX4,
    UNDERLAY_PREFIX6,
    AttachmentSpec,
    ContainerSpec,
    Datapath,
    HostSpec,
    NetworkSpec,
    SubnetSpec,
    Topology,
    Underlay,
)
from topologies.workload import WORKLOAD_FIELDS, parse_workload

TOP = ("name", "underlay", "hosts", "tenants", "networks", "containers", "expect")
RESERVED = ("controller", "underlay", "ns", "log")
"""What a lab's own directory has below it, so that no host or container can be called so."""
HOSTS_MAX = 64
CONTAINERS_MAX = 1000
MTU_MAX_BYTES = 65535
"""A veth's."""
IFNAME_BYTES_MAX = 15
HOST_OFFSET = 11
"""The first host's underlay address is the prefix's eleventh; the controller has the first."""


def load_topology(path: str) -> Topology:
    """Read and parse a file. Raises: NOT_FOUND, INVALID."""
    try:
        with open(path, "rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        raise not_found(f"there is no topology {path}", "the shipped ones are in topologies/", path=path) from None
    except OSError as error:
        raise invalid(f"the topology {path} cannot be read: {error.strerror}", path=path) from None
    if len(raw) > FILE_BYTES_MAX:
        raise invalid(f"the topology {path} is larger than {FILE_BYTES_MAX} bytes", path=path)
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise invalid(f"{path}:{line}: this is not UTF-8 text", file=path, line=line) from None
    return parse_topology(text, path)


def parse_topology(text: str, file: str = "topology") -> Topology:
    """A file's text as a topology. Raises: INVALID."""
    root = parse_document(text, file)
    fields = root.fields(TOP)
    if "hosts" not in fields:
        raise root.refuse("a topology needs hosts", "write hosts: [h1, h2]", allowed=TOP)
    stem = os.path.splitext(os.path.basename(file))[0]
    name = fields["name"].valid(lambda t: parse_name(t, "lab")) if "name" in fields else parse_name(stem, "lab")
    underlay = _underlay(fields.get("underlay"))
    hosts = _hosts(fields["hosts"], underlay)
    networks, tenants = _networks(fields.get("networks"), fields.get("tenants"))
    containers = _containers(fields.get("containers"), hosts, networks)
    expectations, forgeries = parse_expectations(fields.get("expect"), containers, networks)
    return Topology(
        name=name,
        underlay=underlay,
        hosts=hosts,
        tenants=tenants,
        networks=networks,
        containers=containers,
        expectations=expectations,
        forgeries=forgeries,
    )


def _underlay(place: Place | None) -> Underlay:
    fields = place.fields(("prefix4", "prefix6", "mtu")) if place else {}
    mtu = fields["mtu"].integer(MTU_MIN_BYTES, MTU_MAX_BYTES) if "mtu" in fields else UNDERLAY_MTU_BYTES
    prefixes: dict[int, Prefix | None] = {4: None, 6: None}
    for family, default in ((4, UNDERLAY_PREFIX4), (6, UNDERLAY_PREFIX6)):
        at = fields.get(f"prefix{family}")
        if at is None:
            continue
        prefix = parse_prefix(default) if at.text() == "auto" else at.valid(parse_prefix)
        if prefix.family != family:
            raise at.refuse(f"{prefix} is not an IPv{family} prefix")
        if prefix.size < 128:
            raise at.refuse(f"{prefix} has {prefix.size} addresses, fewer than the 128 that a lab plans with")
        prefixes[family] = prefix
    if prefixes[4] is None and prefixes[6] is None:
        prefixes[4] = parse_prefix(UNDERLAY_PREFIX4)
    first, second = prefixes[4], prefixes[6]
    return Underlay(
        prefix4=str(first) if first else None,
        prefix6=str(second) if second else None,
        controller4=format_address(4, first.first + 1) if first else None,
        controller6=format_address(6, second.first + 1) if second else None,
        mtu_bytes=mtu,
    )


def _hosts(place: Place, underlay: Underlay) -> tuple[HostSpec, ...]:
    places = place.names()
    if not 1 <= len(places) <= HOSTS_MAX:
        raise place.refuse(f"a topology has from 1 to {HOSTS_MAX} hosts, this one {len(places)}")
    hosts: list[HostSpec] = []
    taken = dict.fromkeys(underlay.controllers, "the controller")
    for index, (name, at) in enumerate(places.items()):
        _check_name(at, name, "host", ())
        fields = at.fields(("address4", "address6", "mtu", "datapath"))
        mtu = fields["mtu"].integer(MTU_MIN_BYTES, underlay.mtu_bytes) if "mtu" in fields else underlay.mtu_bytes
        datapath = (
            Datapath(fields["datapath"].choice("datapath", list(Datapath))) if "datapath" in fields else Datapath.BRIDGE
        )
        interface4 = _host_address(fields.get("address4"), at, underlay.prefix4, index, taken)
        interface6 = _host_address(fields.get("address6"), at, underlay.prefix6, index, taken)
        if interface4 is None and interface6 is None:
            raise at.refuse("a host needs an address on the underlay", "leave out one of the two `none`")
        hosts.append(
            HostSpec(name=name, interface4=interface4, interface6=interface6, mtu_bytes=mtu, datapath=datapath)
        )
    return tuple(hosts)


def _host_address(at: Place | None, host: Place, text: str | None, index: int, taken: dict[str, str]) -> str | None:
    """The address with prefix length: as given, or the host's own by its place in the file."""
    if at is not None and at.text() == "none":
        return None
    if text is None:
        if at is not None:
            raise at.refuse("the underlay has no prefix of this family", "give it one: underlay: {prefix4: auto}")
        return None
    prefix = parse_prefix(text)
    address = at.valid(parse_address) if at else format_address(prefix.family, prefix.first + HOST_OFFSET + index)
    if at is not None and (family_of(address) != prefix.family or address_number(address) not in prefix):
        raise at.refuse(f"{address} is not in the underlay's prefix {prefix}")
    if address in taken:
        raise (at or host).refuse(f"the underlay address {address} is taken by {taken[address]}", "choose another")
    taken[address] = host.path.removeprefix("hosts.")
    return f"{address}/{prefix.length}"


def _networks(place: Place | None, tenants_at: Place | None) -> tuple[tuple[NetworkSpec, ...], tuple[str, ...]]:
    declared: dict[str, Place] | None = tenants_at.names() if tenants_at else None
    for name, at in (declared or {}).items():
        _check_name(at, name, "tenant", ())
        at.fields(())
    networks: dict[str, NetworkSpec] = {}
    prefixes: dict[str, list[tuple[Prefix, str]]] = {}
    for key, at in (place.names() if place else {}).items():
        network = _network(key, at, declared)
        if network.reference in networks:
            raise at.refuse(f"the network {network.reference} is there twice")
        for subnet in network.subnets:
            prefix = parse_prefix(subnet.prefix)
            seen = prefixes.setdefault(network.tenant, [])
            clash = next((other for other in seen if other[0].overlaps(prefix)), None)
            if clash:
                raise at.refuse(
                    f"its subnet {prefix} overlaps {clash[0]} of {clash[1]}",
                    "within a tenant no two subnets overlap: change one, or use another tenant",
                )
            seen.append((prefix, network.reference))
        networks[network.reference] = network
    used = [network.tenant for network in networks.values()]
    names = tuple(dict.fromkeys([*(declared or {}), *used]))
    return tuple(networks.values()), tuple(name for name in names if name != DEFAULT_TENANT)


def _network(key: str, at: Place, declared: dict[str, Place] | None) -> NetworkSpec:
    fields = at.fields(("tenant", "subnets", "ipv4", "ipv6", "mtu"))
    tenant, slash, name = key.rpartition("/")
    if slash and "tenant" in fields:
        raise fields["tenant"].refuse(f"the network's key {key!r} names the tenant already")
    tenant_at = fields.get("tenant", at)
    if not slash:
        tenant = tenant_at.text() if "tenant" in fields else DEFAULT_TENANT
    _check_name(at, name, "network", None)
    _check_name(tenant_at, tenant, "tenant", None)
    if declared is not None and tenant != DEFAULT_TENANT and tenant not in declared:
        raise tenant_at.unknown(tenant, "tenant", [*declared, DEFAULT_TENANT])
    subnets_at = fields.get("subnets")
    automatic = subnets_at is None or (subnets_at.is_text() and subnets_at.text() == "auto")
    subnets = () if automatic or subnets_at is None else tuple(_subnet(item) for item in subnets_at.items())
    if not automatic:
        for family in ("ipv4", "ipv6"):
            if family in fields:
                raise fields[family].refuse("only automatic subnets need it", "leave it out, or say subnets: auto")
    families = {family_of(subnet.prefix) for subnet in subnets}
    ipv4 = fields["ipv4"].boolean() if "ipv4" in fields else (4 in families if subnets else True)
    ipv6 = fields["ipv6"].boolean() if "ipv6" in fields else 6 in families
    if not (ipv4 or ipv6):
        raise at.refuse("a network needs IPv4 or IPv6")
    mtu = fields["mtu"].integer(MTU_MIN_BYTES, MTU_MAX_BYTES) if "mtu" in fields else None
    return NetworkSpec(tenant=tenant, name=name, subnets=subnets, ipv4=ipv4, ipv6=ipv6, mtu_bytes=mtu)


def _subnet(at: Place) -> SubnetSpec:
    if at.is_text():
        return SubnetSpec(prefix=str(at.valid(parse_prefix)))
    fields = at.fields(("prefix", "gateway", "range", "reserved"))
    if "prefix" not in fields:
        raise at.refuse("a subnet needs a prefix", "write {prefix: 10.1.0.0/24}")
    prefix = fields["prefix"].valid(parse_prefix)
    reserved = fields["reserved"].items() if "reserved" in fields else []
    return SubnetSpec(
        prefix=str(prefix),
        gateway=_inside(fields["gateway"], prefix) if "gateway" in fields else None,
        range=fields["range"].text() if "range" in fields else None,
        reserved=tuple(_inside(item, prefix) for item in reserved),
    )


def _inside(at: Place, prefix: Prefix) -> str:
    address = at.valid(parse_address)
    if family_of(address) != prefix.family or address_number(address) not in prefix:
        raise at.refuse(f"{address} is not in {prefix}")
    return address


def _containers(
    place: Place | None, hosts: tuple[HostSpec, ...], networks: tuple[NetworkSpec, ...]
) -> tuple[ContainerSpec, ...]:
    places = place.names() if place else {}
    if place and len(places) > CONTAINERS_MAX:
        raise place.refuse(f"a topology has at most {CONTAINERS_MAX} containers, this one {len(places)}")
    host_names = [host.name for host in hosts]
    containers: list[ContainerSpec] = []
    taken: dict[tuple[str, str], str] = {}
    for name, at in places.items():
        _check_name(at, name, "container", host_names)
        fields = at.fields(("host", "networks", *WORKLOAD_FIELDS))
        if "host" not in fields and len(hosts) > 1:
            raise at.refuse("a container needs a host", allowed=host_names)
        host = fields["host"].choice("host", host_names) if "host" in fields else host_names[0]
        attachments = _attachments(fields.get("networks"), networks)
        for attachment in attachments:
            for value in (*attachment.addresses, attachment.mac):
                other = taken.setdefault((attachment.network, value), name) if value else name
                if other != name:
                    raise fields["networks"].refuse(f"{value} in {attachment.network} is {other}'s already")
        workload = parse_workload(fields)
        containers.append(ContainerSpec(name=name, host=host, attachments=attachments, workload=workload))
    return tuple(containers)


def _attachments(place: Place | None, networks: tuple[NetworkSpec, ...]) -> tuple[AttachmentSpec, ...]:
    attachments: list[AttachmentSpec] = []
    for at in place.items() if place else []:
        attachment = _attachment(at, networks)
        if any(attachment.network == other.network for other in attachments):
            raise at.refuse(f"it is in {attachment.network} already")
        if attachment.ifname and any(attachment.ifname == other.ifname for other in attachments):
            raise at.refuse(f"it has an interface {attachment.ifname} already")
        attachments.append(attachment)
    given = {attachment.ifname for attachment in attachments}
    free = iter(name for name in (f"eth{n}" for n in range(2 * len(attachments) + 1)) if name not in given)
    return tuple(dataclasses.replace(a, ifname=next(free)) if not a.ifname else a for a in attachments)


def _attachment(at: Place, networks: tuple[NetworkSpec, ...]) -> AttachmentSpec:
    if at.is_text():
        return AttachmentSpec(network=resolve_network(at, networks).reference, ifname="")
    fields = at.fields(("network", "ip", "ip6", "mac", "ifname"))
    if "network" not in fields:
        raise at.refuse("an attachment needs a network", allowed=[network.reference for network in networks])
    network = resolve_network(fields["network"], networks)
    addresses: list[str] = []
    for key in ("ip", "ip6"):
        for item in fields[key].items() if key in fields else []:
            address = item.valid(parse_address)
            prefixes = [parse_prefix(subnet.prefix) for subnet in network.subnets]
            if not any(p.family == family_of(address) and address_number(address) in p for p in prefixes):
                having = ", ".join(map(str, prefixes)) or "chosen by the controller"
                raise item.refuse(f"{address} is in no subnet of {network.reference} ({having})")
            addresses.append(address)
    ifname = fields["ifname"].text() if "ifname" in fields else ""
    if len(ifname.encode()) > IFNAME_BYTES_MAX or any(c in "/: \t\n" for c in ifname) or ifname in (".", "..", "lo"):
        raise fields["ifname"].refuse(f"{ifname!r} is no interface's name", "up to 15 bytes without '/', ':', blanks")
    mac = fields["mac"].valid(parse_mac) if "mac" in fields else ""
    return AttachmentSpec(network=network.reference, ifname=ifname, addresses=tuple(addresses), mac=mac)


def _check_name(at: Place, name: str, what: str, taken: list[str] | tuple[str, ...] | None) -> None:
    """A name as the model takes it; `taken`: names it must differ from (None: not a place of the lab's directory)."""
    try:
        parse_name(name, what)
    except HawseError as error:
        raise at.refuse(error.message, error.hint) from None
    if taken is not None and (name in taken or (what in ("host", "container") and name in RESERVED)):
        why = "a host has this name" if name in taken else "the lab uses this name itself"
        raise at.refuse(f"{name!r} cannot be a {what}'s name: {why}", "choose another")
