"""When somebody asks why: who sends to whom, what should become of it, and which journeys to look at. Pure.

The verdict is the oracle's (`reconcile.reach`), by the controller's state alone; the journeys are what the hosts are
then asked about.
"""

from __future__ import annotations

import dataclasses

from sdn.controller.finding import Destination
from sdn.controller.state import State
from sdn.model.address import address_number, family_of, link_local, parse_prefix
from sdn.model.explanation import is_group, refused_cause
from sdn.model.ids import HostId
from sdn.model.resources import Endpoint, Network
from sdn.reconcile.journey import Journey, address_pairs, journey, source_address
from sdn.reconcile.reach import Reach, address_of, reach, underlay_family


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """What should become of the packet: whether it arrives, why, and what to do about it where it does not."""

    arrives: bool
    reason: str
    hint: str = ""
    cause: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Trip:
    """One question of a person's. `there` and `back`: a journey for each address family.

    `target` None: the gateway, or nobody. `diverted`: who gets it in the sender's network though it was not meant.
    """

    source: Endpoint
    target: Endpoint | None
    network: Network
    verdict: Verdict
    there: tuple[Journey, ...] = ()
    back: tuple[Journey, ...] = ()
    diverted: Endpoint | None = None


def plan_trip(state: State, sources: tuple[Endpoint, ...], to: Destination, protocol: str) -> Trip:
    """The trip from one of a container's endpoints (the one that fits best) to a destination."""
    if to.endpoints:
        return _to_endpoint(state, *_best_pair(sources, to.endpoints), protocol)
    return _to_mac(state, sources, to.mac, protocol) if to.mac else _to_address(state, sources, to.address, protocol)


def _best_pair(sources: tuple[Endpoint, ...], targets: tuple[Endpoint, ...]) -> tuple[Endpoint, Endpoint]:
    """Those that share a network, and there a subnet; before that, one and the same."""
    pairs = [(source, target) for source in sources for target in targets]

    def distance(pair: tuple[Endpoint, Endpoint]) -> int:
        source, target = pair
        if source.id == target.id:
            return 0 if len(sources) == len(targets) else 3
        if source.network == target.network:
            return 1 if address_pairs(source, target) else 2
        return 4

    return min(pairs, key=distance)


def _to_endpoint(state: State, source: Endpoint, target: Endpoint, protocol: str) -> Trip:
    network = state.networks[source.network]
    verdict = judge(state, source, target)
    if verdict is Reach.ITSELF:
        return Trip(source, target, network, Verdict(True, "it is the container itself, and never leaves it"))
    if verdict in (Reach.OTHER_NETWORK, Reach.OTHER_TENANT):
        return _to_stranger(state, source, target, verdict, protocol)
    pairs = address_pairs(source, target)
    if verdict is Reach.SAME_NETWORK and not pairs:
        hint = "give one of them an address in the other's subnet: nothing routes between subnets"
        return Trip(source, target, network, Verdict(False, "they have no subnet in common", hint))
    there = tuple(
        journey(source, network, state.hosts, address=mine, to=theirs, target=target, protocol=protocol)
        for mine, theirs in pairs
    )
    back = tuple(
        journey(target, network, state.hosts, address=theirs, to=mine, target=source) for mine, theirs in pairs
    )
    return Trip(source, target, network, _verdict(state, source, target, verdict, there, protocol), there, back)


def _to_stranger(state: State, source: Endpoint, target: Endpoint, verdict: Reach, protocol: str) -> Trip:
    """To somebody beyond the network: what the sender's own network does with the address."""
    network = state.networks[source.network]
    told = _verdict(state, source, target, verdict, (), protocol)
    for to in map(address_of, target.addresses):
        address = source_address(source, to)
        if address is not None:
            twin = holder(state, source, to)
            gateway = _is_gateway(network, to)
            way = journey(
                source, network, state.hosts, address=address, to=to, target=twin, gateway=gateway, protocol=protocol
            )
            return Trip(source, target, network, told, (way,), diverted=twin)
    return Trip(source, target, network, told)


def _to_address(state: State, sources: tuple[Endpoint, ...], to: str, protocol: str) -> Trip:
    source = next((each for each in sources if _covers(state.networks[each.network], to)), sources[0])
    network = state.networks[source.network]
    target = holder(state, source, to)
    address = source_address(source, to)
    if address is None:
        family = f"it has no IPv{family_of(to)} address"
        hint = f"hawse network update {_spelled(state, network)} --subnet …, then attach it anew"
        return Trip(source, target, network, Verdict(False, family, hint))
    gateway = _is_gateway(network, to)
    reached = Reach.GATEWAY if gateway else Reach.NOBODY if target is None else judge(state, source, target)
    if reached is Reach.ITSELF:
        return Trip(source, target, network, Verdict(True, "it is the container itself, and never leaves it"))
    way = journey(
        source, network, state.hosts, address=address, to=to, target=target, gateway=gateway, protocol=protocol
    )
    back = () if target is None else (journey(target, network, state.hosts, address=to, to=address, target=source),)
    return Trip(source, target, network, _verdict(state, source, target, reached, (way,), protocol), (way,), back)


def _to_mac(state: State, sources: tuple[Endpoint, ...], mac: str, protocol: str) -> Trip:
    held = ((each, found) for each in sources for found in state.endpoints_of(each.network) if found.mac == mac)
    source, target = next(held, (sources[0], None))
    network = state.networks[source.network]
    reached = Reach.NOBODY if target is None else judge(state, source, target)
    if reached is Reach.ITSELF:
        return Trip(source, target, network, Verdict(True, "it is the container itself, and never leaves it"))
    address = address_of(source.addresses[0])
    way = journey(source, network, state.hosts, address=address, to="", to_mac=mac, target=target, protocol=protocol)
    return Trip(source, target, network, _verdict(state, source, target, reached, (way,), protocol), (way,))


def judge(state: State, source: Endpoint, target: Endpoint) -> Reach:
    """The oracle's verdict; two hosts reach each other where both have a VTEP of one family."""

    def connected(one: HostId, other: HostId) -> bool:
        return underlay_family(state.hosts[one], state.hosts[other]) is not None

    return reach(source, target, connected)


def holder(state: State, source: Endpoint, address: str) -> Endpoint | None:
    """Who has an address in an endpoint's network, its link-local one included."""
    for endpoint in state.endpoints_of(source.network):
        if address in map(address_of, endpoint.addresses) or address == link_local(endpoint.mac):
            return endpoint
    return None


def _verdict(
    state: State, source: Endpoint, target: Endpoint | None, reached: Reach, there: tuple[Journey, ...], protocol: str
) -> Verdict:
    network = _spelled(state, state.networks[source.network])
    for way in there:
        cause = refused_cause(way.to, protocol)
        if cause == "multicast":
            return Verdict(False, "networks carry no broadcast and no multicast", "'hawse help networks'", cause)
        if cause and reached.allowed:
            hint = "containers get their addresses from Hawse, not by DHCP; 'hawse drops' counts these"
            return Verdict(False, "nobody may speak as a DHCP server", hint, cause)
    match reached:
        case Reach.SAME_NETWORK:
            return Verdict(True, f"both are in network {network}")
        case Reach.GATEWAY:
            return Verdict(True, f"it is the gateway of {network}, which answers on every host and forwards nothing")
        case Reach.OTHER_TENANT:
            hint = "tenants never meet: put both into a network of one tenant"
            return Verdict(False, "they belong to different tenants", hint)
        case Reach.OTHER_NETWORK:
            assert target is not None, "there is one in the other network"
            hint = f"put both into one network: {_joining(state, target, network)}"
            return Verdict(False, "they are in different networks", hint)
        case Reach.HOSTS_APART:
            hint = "give both hosts an underlay address of one family; 'hawse host ls' shows them"
            return Verdict(False, "their hosts have no underlay family in common", hint)
        case Reach.NO_COMMON_FAMILY:
            hint = f"give {network} a subnet of the other family, and attach anew"
            return Verdict(False, "they have no address family in common", hint)
        case _:
            return _nobody(state.networks[source.network], network, there)


def _joining(state: State, target: Endpoint, network: str) -> str:
    """What to type; a switch's port is in one network at a time."""
    if target.host not in state.switches:
        return f"hawse network attach {network} {target.container}"
    port = f"{state.hosts[target.host].name} {target.ifname}"
    return f"hawse switch unbind {port} && hawse switch bind {port} {network}"


def _nobody(network: Network, name: str, there: tuple[Journey, ...]) -> Verdict:
    if there and there[0].to and not _covers(network, there[0].to):
        return Verdict(
            False, f"it is outside of {name}, and networks are internal", "'hawse help networks'", "no-router"
        )
    return Verdict(False, f"nobody in {name} has it", f"'hawse endpoint ls --network {name}' lists who is there")


def _covers(network: Network, address: str) -> bool:
    """Whether a packet to an address stays within the network."""
    if address.startswith("fe80:") or is_group(address):
        return True
    prefixes = (parse_prefix(subnet.prefix) for subnet in network.subnets)
    return any(prefix.family == family_of(address) and address_number(address) in prefix for prefix in prefixes)


def _is_gateway(network: Network, address: str) -> bool:
    return any(subnet.gateway == address for subnet in network.subnets)


def _spelled(state: State, network: Network) -> str:
    tenant = state.tenants[network.tenant].name
    return network.name if tenant == "default" else f"{tenant}/{network.name}"
