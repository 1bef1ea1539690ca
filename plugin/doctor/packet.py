"""Synthetic packets: what must pass this host's firewalls, as far as it is known of them.

Source: libnftables-json(5) for the names of fields.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True, slots=True)
class Packet:
    """What passes. Fields that are not named are not known.

    `what`: for people; `hooks`: the base chains that it passes; `fields`: as libnftables names them, `meta iifname`,
    `udp dport`, `ip saddr`, `ct state` …; `accept`: the condition that lets it in, as nft takes it.
    """

    what: str
    family: int
    hooks: tuple[str, ...]
    fields: Mapping[str, Any]
    accept: str


_FOR_THIS_HOST = {"fib daddr type": "local", "fib saddr type": "unicast"}


def tunnels_in(family: int, uplink: str, target: str, sources: Sequence[str], port: int = 4789) -> list[Packet]:
    """Tunnel packets as they come from each other host (or from anybody, where none is known)."""
    ip = "ip" if family == 4 else "ip6"
    return [
        Packet(
            what=f"tunnel packets (UDP {port}) from {source or 'other hosts'}",
            family=family,
            hooks=("prerouting", "input"),
            fields=_fields("udp", port, family)
            | _FOR_THIS_HOST
            | {"meta iifname": uplink, "meta iif": uplink, f"{ip} daddr": target}
            | ({f"{ip} saddr": source} if source else {}),
            accept=f"udp dport {port}",
        )
        for source in (sources or [""])
    ]


def tunnels_out(family: int, uplink: str, source: str, targets: Sequence[str], port: int = 4789) -> list[Packet]:
    """Tunnel packets as this host sends them to each other one."""
    ip = "ip" if family == 4 else "ip6"
    return [
        Packet(
            what=f"tunnel packets (UDP {port}) to {target or 'other hosts'}",
            family=family,
            hooks=("output", "postrouting"),
            fields=_fields("udp", port, family)
            | {"meta oifname": uplink, "meta oif": uplink, f"{ip} saddr": source}
            | ({f"{ip} daddr": target} if target else {}),
            accept=f"udp dport {port}",
        )
        for target in (targets or [""])
    ]


def controller_out(family: int, target: str, port: int) -> Packet:
    """This host's connection to the controller."""
    ip = "ip" if family == 4 else "ip6"
    return Packet(
        what=f"the connection to the controller at {target} port {port}",
        family=family,
        hooks=("output", "postrouting"),
        fields=_fields("tcp", port, family) | {f"{ip} daddr": target},
        accept=f"tcp dport {port}",
    )


def controller_in(family: int, port: int, uplink: str = "") -> Packet:
    """Other hosts' connections to the controller on this machine."""
    return Packet(
        what=f"connections of other hosts to the controller here (TCP {port})",
        family=family,
        hooks=("prerouting", "input"),
        fields=_fields("tcp", port, family)
        | _FOR_THIS_HOST
        | ({"meta iifname": uplink, "meta iif": uplink} if uplink else {}),
        accept=f"tcp dport {port}",
    )


def _fields(protocol: str, port: int, family: int) -> dict[str, Any]:
    named = {"meta nfproto": "ipv4" if family == 4 else "ipv6", "meta protocol": "ip" if family == 4 else "ip6"}
    header = {"ip protocol": protocol} if family == 4 else {"ip6 nexthdr": protocol}
    return named | header | {"meta l4proto": protocol, f"{protocol} dport": port, "ct state": "new"}
