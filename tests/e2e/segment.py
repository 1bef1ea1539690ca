"""Machines on one segment: network namespaces whose one link goes to a bridge in another one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from tests.packet.namespaces import TestNamespace, namespaces


@contextlib.contextmanager
def segment(count: int, *subnets: str, gateway: bool = False) -> Iterator[list[TestNamespace]]:
    """Some machines, the first at address 1 of each subnet (as `10.77.0./24`), and so on.

    `gateway`: the bridge has address 254 of each, and is the way out of the machines, which goes nowhere.
    """
    with namespaces(1 + count) as (wire, *places):
        # It knows multicast groups by flooding: nobody on it asks who is in them, as a router would.
        wire.ip("link set lo up\nlink add br0 type bridge mcast_snooping 0\nlink set br0 up")
        if gateway:
            wire.ip("\n".join(f"address add {_at(subnet, 254)} dev br0" for subnet in subnets))
        for number, place in enumerate(places, 1):
            wire.ip(f"link add w{number} type veth peer name eth0 netns {place.name}")
            wire.ip(f"link set w{number} master br0 up")
            place.ip("link set lo up\nlink set eth0 up\n" + _addresses(subnets, number))
            if gateway:
                place.ip("\n".join(f"route add default via {_at(subnet, 254).split('/')[0]}" for subnet in subnets))
        yield places


def _addresses(subnets: Sequence[str], number: int) -> str:
    return "\n".join(f"address add {_at(subnet, number)} dev eth0" for subnet in subnets)


def _at(subnet: str, number: int) -> str:
    return subnet.replace("/", f"{number}/")
