"""The objects of a host's own, beside those of the switch (`sdn.openflow.objects`), and the order of all of them.

("name", VNI)      Name      what Open vSwitch's database remembers of a VNI: whose it is
("uplink", VNI)    Uplink    tunnel packets of that VNI arrive, and leave from this host's VTEPs
("port", name)     Port      the host end of an endpoint's veth, and the switch's port of it
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

from plugin.datapath.veth.ports import port_alias
from sdn.model.resources import Endpoint
from sdn.reconcile.datapath import Key, LocalPort


@dataclasses.dataclass(frozen=True, slots=True)
class Name:
    """Whose a VNI is, in the database. ("name", VNI)"""

    network: str
    tenant: str


@dataclasses.dataclass(frozen=True, slots=True)
class Uplink:
    """The way out and in of a network's tunnels. ("uplink", VNI)"""

    vtep4: str | None
    vtep6: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class Port:
    """The host end of a veth, whose alias says whose it is, and its row, which says the same. ("port", name)

    `row`: what the database says ("": there is none). `error`: why the switch has no port of it. `link`: the veth is
    there.
    """

    mtu_bytes: int
    alias: str
    row: str
    error: str = ""
    link: bool = True
    up: bool = True


def port_of(endpoint: Endpoint, mtu_bytes: int) -> Port:
    """An endpoint's port as it should be."""
    alias = port_alias(endpoint)
    return Port(mtu_bytes=mtu_bytes, alias=alias, row=alias)


_IDS: Final = ("hawse-endpoint", "hawse-tenant", "hawse-container", "hawse-ifname")


def external_ids(owner: LocalPort) -> dict[str, str]:
    """What a port's row remembers of its endpoint."""
    return dict(zip(_IDS, (owner.endpoint, owner.tenant, owner.container, owner.ifname), strict=True))


def owner_of(ids: Mapping[str, str]) -> LocalPort | None:
    """The endpoint of a row; None: it does not say all."""
    values = [ids.get(name) for name in _IDS]
    endpoint, tenant, container, ifname = values
    if endpoint is None or tenant is None or container is None or ifname is None:
        return None
    return LocalPort(endpoint, tenant, container, ifname)


RANKS: Final = ("name", "uplink", "network", "member", "gateway", "port", "speaker", "station", "neighbour", "stray")
"""Kinds in the order of their creation."""
_PLACES: Final = {kind: place for place, kind in enumerate(RANKS)}


def rank(key: Key) -> int:
    """The place of a key's kind."""
    return _PLACES[key[0]]


def locate(key: Key) -> tuple[int, str]:
    """The VNI and the address of a neighbour's key."""
    return int(key[1]), key[2]
