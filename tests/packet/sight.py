"""What a host knows of a tenant's containers, by whatever its datapath keeps it in: kernel or switch, from outside.

Read with the tools that an administrator has, never with the product's own eyes.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from typing import Any

from sdn.client.client import resource
from sdn.openflow import cookies
from tests.packet.lab import Lab
from topologies.values import Datapath
from topologies.vswitch import environment

_TENANT = (
    ("ip", "-d", "link"),
    ("ip", "address"),
    ("bridge", "fdb"),
    ("ip", "neigh", "show", "nud", "all"),
    ("ip", "route", "show", "table", "all"),
    ("ip", "-6", "route", "show", "table", "all"),
    ("nft", "list", "ruleset"),
)
_COUNTED = re.compile(r" (duration|n_packets|n_bytes|idle_age|hard_age)=[^ ,]*,?")


def is_openflow(lab: Lab, host: str) -> bool:
    """Whether a host's frames are carried by Open vSwitch."""
    record = lab.directory.read()
    assert record is not None
    return record.datapaths.get(host) == Datapath.OPENFLOW


def ovs(lab: Lab, host: str, *command: str) -> str:
    """What a tool of Open vSwitch prints of a host's own."""
    place = lab.directory.vswitch(host)
    variables = [f"{name}={value}" for name, value in environment(place).items()]
    return lab.run(host, "env", *variables, *command).stdout


def flows(lab: Lab, host: str) -> list[str]:
    """The flows of a host's switch, without what they have counted."""
    dumped = ovs(lab, host, "ovs-ofctl", "-OOpenFlow13", "--no-stats", "dump-flows", "hwint")
    return sorted(_COUNTED.sub("", line).strip() for line in dumped.splitlines() if "cookie=" in line)


def interfaces(lab: Lab, host: str) -> dict[str, dict[str, Any]]:
    """The rows of a host's interfaces in OVSDB, by name."""
    columns = "name,external_ids,ofport,link_state,error"
    table = json.loads(ovs(lab, host, "ovs-vsctl", "-f", "json", f"--columns={columns}", "list", "Interface"))
    rows = (dict(zip(table["headings"], row, strict=True)) for row in table["data"])
    return {row["name"]: {**row, "external_ids": dict(row["external_ids"][1])} for row in rows}


def traces(lab: Lab, host: str, tenant: str) -> str:
    """All that a host has of a tenant (of an openflow host: of all tenants), as text; empty: nothing."""
    if is_openflow(lab, host):
        rows = [str(row) for row in interfaces(lab, host).values()]
        bridges = ovs(lab, host, "ovs-vsctl", "list", "bridge")
        return "\n".join([*flows(lab, host), *rows, bridges, lab.run(host, "ip", "-o", "link").stdout])
    if not lab.tenant_pin(host, tenant).exists():
        return ""
    return "\n".join(lab.run_tenant(host, tenant, *command) for command in _TENANT)


def traces_of_network(lab: Lab, host: str, network: str) -> list[str]:
    """What is in `traces` as long as a network is there, and must not be afterwards."""
    vni = lab.client.get(resource("networks", network)).body["vni"]
    found = [f"hwv{endpoint['id'][-12:]}" for endpoint in lab.endpoints(network=network)]
    if is_openflow(lab, host):
        own = [
            f"cookie={cookies.of_network(vni):#x}",
            f"hawse-vni-{vni}=",
            f"tun_id={vni:#x},",
            f"set_field:{vni:#x}->tun_id",
        ]
        return found + own + [f"cookie={cookies.of_endpoint(e['id']):#x}" for e in lab.endpoints(network=network)]
    own = [f"hwb{vni}", f"hwx{vni}", f"hwy{vni}", f"-spoof.{vni} ", f'-spoof.{vni}"']
    prefixes = [subnet["prefix"] for subnet in lab.client.get(resource("networks", network)).body["subnets"]]
    own += [prefix.partition("/")[0].removesuffix("0") for prefix in prefixes]
    return found + own + [endpoint["mac"] for endpoint in lab.endpoints(network=network)]


def identity(lab: Lab, host: str, tenant: str, networks: Iterable[str]) -> object:
    """Something that stays the same as long as nobody touches what a host has of a tenant's networks."""
    if is_openflow(lab, host):
        vnis = [lab.client.get(resource("networks", network)).body["vni"] for network in networks]
        wanted = [re.compile(rf"tun_id={vni:#x}\b|set_field:{vni:#x}->tun_id") for vni in vnis]
        return [line for line in flows(lab, host) if any(one.search(line) for one in wanted)]
    return os.stat(lab.tenant_pin(host, tenant)).st_ino


def wired(lab: Lab, host: str, tenant: str) -> dict[str, tuple[str, bool]]:
    """Endpoint id -> container, and whether its port is in service, of all that a host has ports of."""
    found: dict[str, tuple[str, bool]] = {}
    if is_openflow(lab, host):
        for row in interfaces(lab, host).values():
            known = row["external_ids"]
            if "hawse-endpoint" in known:
                up = isinstance(row["ofport"], int) and row["ofport"] > 0 and row["link_state"] == "up"
                found[known["hawse-endpoint"]] = (known["hawse-container"], up)
        return found
    for line in json.loads(lab.run_tenant(host, tenant, "ip", "-j", "link")):
        words = line.get("ifalias", "").removeprefix("hawse:").split(" ")
        if line["ifname"].startswith("hwv") and len(words) == 4:
            found[words[0]] = (words[2], bool(line.get("master")) and "UP" in line["flags"])
    return found


def guarded(lab: Lab, host: str, tenant: str) -> set[str]:
    """The ports that may say anything."""
    if is_openflow(lab, host):
        names = {row["ofport"]: name for name, row in interfaces(lab, host).items()}
        first = [line for line in flows(lab, host) if " table=" not in line]  # number 0 is not said
        ports = {int(number) for line in first for number in re.findall(r"in_port=(\d+)", line)}
        return {names[port] for port in ports if names.get(port, "").startswith("hwv") and names[port] != "hwvxlan"}
    guard = lab.run_tenant(host, tenant, "nft", "list", "map", "bridge", "hawse", "network")
    return {word.strip('"') for word in guard.split() if word.startswith('"hwv')}


def answered(lab: Lab, host: str, tenant: str) -> set[str]:
    """The addresses of containers for which a host answers who has them; none of a link."""
    if is_openflow(lab, host):
        told = r"(?:arp_tpa|nd_target)=([0-9a-f.:]+)"
        owned = [
            line
            for line in flows(lab, host)
            if re.search(rf"cookie={cookies.make(cookies.Kind.ENDPOINT, 0) >> 40:#x}", line)
        ]
        return {a for line in owned if " table=90," in line for a in re.findall(told, line) if not a.startswith("fe80")}
    neighbours = lab.run_tenant(host, tenant, "ip", "neigh")
    return {line.split()[0] for line in neighbours.splitlines() if "PERMANENT" in line and "fe80" not in line}


def snapshot(lab: Lab, host: str, tenant: str) -> list[str]:
    """All that a write would change: links with their numbers, entries, flows with whose they are."""
    if is_openflow(lab, host):
        rows = [str(row) for row in interfaces(lab, host).values()]
        return [*flows(lab, host), *sorted(rows), *sorted(lab.run(host, "ip", "-o", "link").stdout.splitlines())]
    found: list[str] = []
    for command in (("ip", "-o", "link"), ("bridge", "fdb"), ("ip", "neigh", "show", "nud", "permanent")):
        found += sorted(lab.run_tenant(host, tenant, *command).splitlines())
    return found


def members(lab: Lab, host: str) -> str:
    """Whose tunnel packets a host takes, as text that has their addresses."""
    if is_openflow(lab, host):
        return "\n".join(flows(lab, host))
    return lab.run(host, "nft", "list", "table", "inet", "hawse").stdout
