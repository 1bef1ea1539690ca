"""Who may reach whom: the oracle that packets are judged by. Pure, and written without a look at any datapath.

The whole policy: endpoints of one network reach each other and that network's gateway addresses; nothing else reaches
anything. Two hosts reach each other over the underlay when they have a VTEP of the same family and the path is up.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from sdn.model.address import Family, family_of
from sdn.model.ids import EndpointId, HostId
from sdn.model.resources import Endpoint, Network


class HasVteps(Protocol):
    """A host, a member or `Here`."""

    @property
    def vtep4(self) -> str | None: ...
    @property
    def vtep6(self) -> str | None: ...


def underlay_family(one: HasVteps, other: HasVteps) -> Family | None:
    """What two hosts carry their frames over: IPv4 where both have it, else IPv6; None: they cannot."""
    if one.vtep4 is not None and other.vtep4 is not None:
        return 4
    if one.vtep6 is not None and other.vtep6 is not None:
        return 6
    return None


class Reach(enum.Enum):
    """The verdict for a packet and why."""

    SAME_NETWORK = "same network"
    GATEWAY = "the network's gateway"
    ITSELF = "itself"
    OTHER_TENANT = "another tenant"
    OTHER_NETWORK = "another network"
    HOSTS_APART = "no path between the hosts"
    NO_COMMON_FAMILY = "no address family in common"
    NOBODY = "nobody has the address"

    @property
    def allowed(self) -> bool:
        """Whether the packet arrives."""
        return self in (Reach.SAME_NETWORK, Reach.GATEWAY, Reach.ITSELF)


Connected = Callable[[HostId, HostId], bool]


def everyone_connected(_one: HostId, _other: HostId) -> bool:
    """An underlay without faults."""
    return True


def address_of(address: str) -> str:
    """`10.1.0.2/24` without its prefix length."""
    return address.partition("/")[0]


def families(endpoint: Endpoint) -> frozenset[Family]:
    """The address families that an endpoint has addresses of."""
    return frozenset(family_of(address) for address in endpoint.addresses)


def reach(source: Endpoint, target: Endpoint, connected: Connected = everyone_connected) -> Reach:
    """Whether packets of `source` to the addresses of `target`, meant for `target` itself, arrive.

    Equal addresses elsewhere do not matter: across networks the answer is no, whoever else may answer.
    """
    if source.id == target.id:
        return Reach.ITSELF
    if source.tenant != target.tenant:
        return Reach.OTHER_TENANT
    if source.network != target.network:
        return Reach.OTHER_NETWORK
    if not families(source) & families(target):
        return Reach.NO_COMMON_FAMILY
    if source.host != target.host and not connected(source.host, target.host):
        return Reach.HOSTS_APART
    return Reach.SAME_NETWORK


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """Who gets a packet sent to an address: an endpoint, or None (the gateway, or nobody); and the verdict."""

    endpoint: EndpointId | None
    reach: Reach


def reach_address(
    source: Endpoint,
    address: str,
    network: Network,
    endpoints: Iterable[Endpoint],
    connected: Connected = everyone_connected,
) -> Answer:
    """Who answers `source` (an endpoint of `network`) at an address, given without prefix length."""
    if family_of(address) not in families(source):
        return Answer(None, Reach.NO_COMMON_FAMILY)
    if any(subnet.gateway == address for subnet in network.subnets):
        return Answer(None, Reach.GATEWAY)
    for endpoint in endpoints:
        if endpoint.network == source.network and address in map(address_of, endpoint.addresses):
            verdict = reach(source, endpoint, connected)
            return Answer(endpoint.id if verdict.allowed else None, verdict)
    return Answer(None, Reach.NOBODY)


def matrix(
    endpoints: Iterable[Endpoint], connected: Connected = everyone_connected
) -> Iterator[tuple[Endpoint, Endpoint, Reach]]:
    """Every ordered pair of two endpoints, with its verdict."""
    everyone = tuple(endpoints)
    for source in everyone:
        for target in everyone:
            if source.id != target.id:
                yield source, target, reach(source, target, connected)
