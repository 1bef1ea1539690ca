"""The `expect:` part of a topology file: who reaches whom, who does not, and which lies die under which name."""

from __future__ import annotations

from sdn.model.address import family_of
from topologies.document import Place
from topologies.references import resolve_network
from topologies.values import CAUSES, ContainerSpec, Expectation, Forgery, Lie, NetworkSpec, Protocol

FIELDS = ("from", "to", "protocol", "via", "verdict", "spoof", "dropped")
VERDICTS = ("reach", "drop")


def parse_expectations(
    place: Place | None, containers: tuple[ContainerSpec, ...], networks: tuple[NetworkSpec, ...]
) -> tuple[tuple[Expectation, ...], tuple[Forgery, ...]]:
    """The list under `expect:`, spread out to single pairs. Raises: INVALID."""
    expectations: list[Expectation] = []
    forgeries: list[Forgery] = []
    for at in place.items() if place else []:
        fields = at.fields(FIELDS)
        for key in ("from", "to"):
            if key not in fields:
                raise at.refuse(f"an expectation needs {key!r}", "write {from: a, to: b, verdict: reach}")
        senders = _names(fields["from"], containers)
        receivers = _names(fields["to"], containers)
        pairs = [(a, b) for a in senders for b in receivers if a != b]
        if not pairs:
            raise at.refuse("sender and receiver are the same container")
        if "spoof" in fields:
            forgeries += _forgeries(at, fields, pairs)
        else:
            expectations += _expectations(at, fields, pairs, containers, networks)
    return tuple(expectations), tuple(forgeries)


def _names(at: Place, containers: tuple[ContainerSpec, ...]) -> list[str]:
    known = [container.name for container in containers]
    return [item.choice("container", known) for item in at.items()]


def _forgeries(at: Place, fields: dict[str, Place], pairs: list[tuple[str, str]]) -> list[Forgery]:
    for key in ("protocol", "via", "verdict"):
        if key in fields:
            raise fields[key].refuse(f"{key!r} does not go with 'spoof'", allowed=("from", "to", "spoof", "dropped"))
    lies = [Lie(item.choice("lie", list(Lie))) for item in fields["spoof"].items()]
    cause = fields["dropped"].choice("cause", CAUSES) if "dropped" in fields else None
    return [
        Forgery(sender=a, receiver=b, lie=lie, cause=cause or lie.cause, line=at.line) for a, b in pairs for lie in lies
    ]


def _expectations(
    at: Place,
    fields: dict[str, Place],
    pairs: list[tuple[str, str]],
    containers: tuple[ContainerSpec, ...],
    networks: tuple[NetworkSpec, ...],
) -> list[Expectation]:
    if "dropped" in fields:
        raise fields["dropped"].refuse("'dropped' names what happens to a 'spoof'", "did you mean 'verdict: drop'?")
    reach = (fields["verdict"].choice("verdict", VERDICTS) if "verdict" in fields else "reach") == "reach"
    via = resolve_network(fields["via"], networks).reference if "via" in fields else None
    families = {network.reference: _families(network) for network in networks}
    by_name = {container.name: container for container in containers}
    listed = fields["protocol"].items() if "protocol" in fields else None
    expectations: list[Expectation] = []
    for sender, receiver in pairs:
        if via and via not in (a.network for a in by_name[receiver].attachments):
            raise fields["via"].refuse(f"{receiver} has no interface in {via}")
        common = _has(by_name[sender], families) & {
            family for a in by_name[receiver].attachments if via in (None, a.network) for family in families[a.network]
        }
        possible = [p for p in Protocol if _needs(p) & common]
        wanted = [Protocol(item.choice("protocol", list(Protocol))) for item in listed] if listed else possible
        for protocol in wanted:
            if protocol not in possible:
                raise at.refuse(
                    f"{sender} cannot try {protocol.value} to {receiver}: they have no addresses of one family for it",
                    allowed=[p.value for p in possible],
                )
            expectations.append(
                Expectation(sender=sender, receiver=receiver, protocol=protocol, via=via, reach=reach, line=at.line)
            )
        if not wanted:
            raise at.refuse(f"{sender} and {receiver} have no addresses of one family: nothing can be tried")
    return expectations


def _families(network: NetworkSpec) -> frozenset[int]:
    if network.subnets:
        return frozenset(family_of(subnet.prefix) for subnet in network.subnets)
    return frozenset(family for family, wanted in ((4, network.ipv4), (6, network.ipv6)) if wanted)


def _has(container: ContainerSpec, families: dict[str, frozenset[int]]) -> set[int]:
    return {family for attachment in container.attachments for family in families[attachment.network]}


def _needs(protocol: Protocol) -> set[int]:
    match protocol:
        case Protocol.PING:
            return {4}
        case Protocol.PING6:
            return {6}
        case _:
            return {4, 6}
