"""A packet's journey from host to host: what to ask each of them, told what should be there. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from sdn.model.address import address_bytes, family_of, link_local
from sdn.model.explanation import Arrival, Decision, Departure, Question, arrives, passes
from sdn.model.ids import HostId
from sdn.model.resources import Endpoint, Network
from sdn.reconcile.reach import HasVteps, address_of, underlay_family


@dataclasses.dataclass(frozen=True, slots=True)
class Journey:
    """One packet, one way. `questions`: by host, in the order of the way; one, or two through a tunnel.

    `target` None: the gateway, or nobody has the address.
    """

    source: Endpoint
    target: Endpoint | None
    address: str
    to: str
    questions: tuple[tuple[HostId, Question], ...]

    def walk(self, answers: Sequence[Sequence[Decision]]) -> list[tuple[HostId, Decision]]:
        """What the hosts said, up to where the packet ends."""
        found: list[tuple[HostId, Decision]] = []
        for (host, _), decisions in zip(self.questions, answers, strict=True):
            found += [(host, decision) for decision in decisions]
            if not passes(decisions) or arrives(decisions):
                break
        return found


def journey(
    source: Endpoint,
    network: Network,
    hosts: Mapping[HostId, HasVteps],
    *,
    address: str,
    to: str,
    to_mac: str = "",
    target: Endpoint | None = None,
    gateway: bool = False,
    protocol: str = "",
) -> Journey:
    """A packet of `source` from its `address` to an address (or, `to` "", to a MAC) of its network.

    `target` is who has it there; `to_mac` its MAC, or the one that is asked about.
    """
    here, there = hosts[source.host], hosts.get(target.host) if target is not None else None
    apart = target is not None and target.host != source.host
    family = underlay_family(here, there) if there is not None else None
    vteps = tuple(vtep for vtep in (there.vtep4, there.vtep6) if vtep) if there is not None and family else ()
    mac = target.mac if target is not None else to_mac
    where = {"tenant": source.tenant, "network": network.id, "vni": network.vni}
    departure = Departure(
        **where,  # type: ignore[arg-type]  # ids and a number, each under its own name
        target=target.id if target is not None and not apart else "",
        endpoint=source.id,
        mac=source.mac,
        address=address,
        to=to,
        to_mac=mac,
        vteps=vteps if apart else (),
        gateway=gateway,
        protocol=protocol,
    )
    questions: list[tuple[HostId, Question]] = [(source.host, departure)]
    if apart and target is not None and family is not None:
        vtep = (here.vtep4 if family == 4 else here.vtep6) or ""
        arrival = Arrival(**where, target=target.id, vtep=vtep, mac=mac)  # type: ignore[arg-type]  # as above
        questions.append((target.host, arrival))
    return Journey(source, target, address, to, tuple(questions))


def address_pairs(source: Endpoint, target: Endpoint) -> list[tuple[str, str]]:
    """The addresses by which the two reach each other, one pair a family: those that share a subnet."""
    pairs: dict[int, tuple[str, str]] = {}
    for mine in source.addresses:
        for theirs in target.addresses:
            if _subnet(mine) == _subnet(theirs):
                pairs.setdefault(family_of(mine), (address_of(mine), address_of(theirs)))
    return [pairs[family] for family in sorted(pairs)]


def source_address(source: Endpoint, to: str) -> str | None:
    """The address from which an endpoint sends to another address; None: it has none of the family."""
    if to.startswith("fe80:"):
        return link_local(source.mac)
    family = family_of(to)
    mine = [address for address in source.addresses if family_of(address) == family]
    length = {address: _subnet(address) == _subnet(f"{to}/{address.rpartition('/')[2]}") for address in mine}
    return next((address_of(address) for address in sorted(mine, key=lambda a: not length[a])), None)


def _subnet(interface: str) -> tuple[int, int, int]:
    """(family, length, network's bits) of an address with prefix length."""
    address, _, length = interface.partition("/")
    packed = address_bytes(address)
    bits = len(packed) * 8
    return bits, int(length), int.from_bytes(packed, "big") >> (bits - int(length))
