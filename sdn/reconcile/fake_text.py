"""The fake's objects as indented text, the order fixed, so that a person can review a state and a diff of two."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sdn.reconcile.datapath import Key
from sdn.reconcile.fake_objects import (
    Bridge,
    FakeObject,
    Frame,
    Guard,
    Namespace,
    Neighbour,
    Peer,
    Port,
    Tunnel,
    Vxlan,
)

_INDENT = {"tenant": 0, "bridge": 1, "guard": 1, "port": 1}
_PLACE = ("tenant", "guard", "port", "bridge", "vxlan", "peer", "frame", "tunnel", "neighbour")
"""Per tenant: what belongs to its containers, then network by network."""


def print_objects(objects: Mapping[Key, FakeObject]) -> str:
    """One line per object, by tenant and network; "(nothing)" for nothing."""
    lines = [f"{'  ' * _INDENT.get(key[0], 2)}{' '.join(_describe(key, objects[key]))}" for key in _ordered(objects)]
    return "".join(f"{line}\n" for line in lines) or "(nothing)\n"


def _ordered(objects: Mapping[Key, FakeObject]) -> list[Key]:
    def place(key: Key) -> tuple[str, bool, str, int, Key]:
        of_network = key[0] not in ("tenant", "guard", "port")
        return key[1], of_network, key[2] if of_network else "", _PLACE.index(key[0]), key

    return sorted(objects, key=place)


def _describe(key: Key, object_: FakeObject) -> Iterator[str]:
    yield key[0]
    yield key[3] if len(key) > 3 else key[-1]
    match object_:
        case Namespace() | Peer():
            pass
        case Bridge(vni, mtu_bytes, gateways):
            yield f"vni {vni} mtu {mtu_bytes} gateways {', '.join(gateways)}"
        case Vxlan(_, local, proxy):
            yield f"local {local or 'none'}{' proxy' if proxy else ''}"
        case Guard(mac, addresses):
            yield f"sends as {mac} {', '.join(addresses)}"
        case Port(network, container, ifname, mac, addresses, mtu_bytes, bridged):
            yield f"of {container} {ifname} {mac} {', '.join(addresses)} mtu {mtu_bytes}"
            yield f"on {network}" if bridged else "on nothing"
        case Frame(to):
            yield f"to {to[0]} {to[-1]}"
        case Tunnel(family, vtep):
            yield f"by vxlan {family} to {vtep}"
        case Neighbour(family, mac):
            yield f"is {mac} by vxlan {family}"
