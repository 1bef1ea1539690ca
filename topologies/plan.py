"""Every question of a check, from who has which address: pure.

The rule for pairs that nobody named: two containers reach each other where they share a network, and nowhere else;
and even there only if their hosts have a family of the underlay in common.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from sdn.model.address import Family, family_of
from topologies.values import Expectation, Protocol

Transport = Literal["ping", "tcp", "udp"]
TRANSPORTS: tuple[Transport, ...] = ("ping", "tcp", "udp")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """One endpoint, as the check needs it. `network` is `tenant/name`; addresses are without prefix length."""

    ifname: str
    network: str
    mac: str
    addresses: tuple[str, ...]
    gateways: tuple[str, ...]

    def address_of(self, family: Family) -> str | None:
        """Its first address of a family."""
        return next((address for address in self.addresses if family_of(address) == family), None)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Station:
    """One container: where it is and what it has. `netns` is the path of its namespace."""

    name: str
    host: str
    netns: str
    interfaces: tuple[Interface, ...]

    def families(self) -> set[Family]:
        """Which it has addresses of."""
        return {family_of(address) for interface in self.interfaces for address in interface.addresses}

    def interface_in(self, network: str) -> Interface | None:
        """Its interface in a network."""
        return next((interface for interface in self.interfaces if interface.network == network), None)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Does `sender` reach `receiver` at `address` (which is in `network`) by `transport`? `line`: its place, or 0."""

    number: int
    sender: str
    receiver: str
    network: str
    address: str
    transport: Transport
    shared: bool
    reach: bool
    line: int

    @property
    def family(self) -> Family:
        """Of the address."""
        return family_of(self.address)

    @property
    def label(self) -> str:
        """`ping6`, `tcp`, `tcp6` …"""
        return self.transport + ("6" if self.family == 6 else "")


Connected = Callable[[str, str], bool]


def everyone_connected(_one: str, _other: str) -> bool:
    """An underlay that all hosts share."""
    return True


def plan_probes(
    stations: Sequence[Station], expectations: Iterable[Expectation], connected: Connected = everyone_connected
) -> list[Probe]:
    """Every ordered pair, each address of the receiver that the sender has the family of, each transport.

    `connected`: whether two hosts, by name, can carry each other's frames.
    """
    named: dict[tuple[str, str], list[Expectation]] = {}
    for expectation in expectations:
        named.setdefault((expectation.sender, expectation.receiver), []).append(expectation)
    probes: list[Probe] = []
    for sender in stations:
        networks = {interface.network for interface in sender.interfaces}
        families = sender.families()
        for receiver in stations:
            if receiver is sender:
                continue
            about = named.get((sender.name, receiver.name), [])
            common = any(interface.network in networks for interface in receiver.interfaces)
            carried = sender.host == receiver.host or connected(sender.host, receiver.host)
            for interface in receiver.interfaces:
                shared = interface.network in networks
                for address in interface.addresses:
                    if family_of(address) not in families:
                        continue
                    for transport in TRANSPORTS:
                        expectation_ = _about(
                            about, interface.network, address, transport, elsewhere=common and not shared
                        )
                        probes.append(
                            Probe(
                                number=len(probes) + 1,
                                sender=sender.name,
                                receiver=receiver.name,
                                network=interface.network,
                                address=address,
                                transport=transport,
                                shared=shared,
                                reach=expectation_.reach if expectation_ else shared and carried,
                                line=expectation_.line if expectation_ else 0,
                            )
                        )
    return probes


def unasked(probes: Iterable[Probe], expectations: Iterable[Expectation]) -> list[Expectation]:
    """Expectations that no probe is about: an address that they need is not there."""
    asked = {(probe.sender, probe.receiver, protocol) for probe in probes for protocol in _protocols(probe)}
    return [e for e in expectations if (e.sender, e.receiver, e.protocol) not in asked]


def _protocols(probe: Probe) -> tuple[Protocol, ...]:
    if probe.transport == "ping":
        return (Protocol.PING6,) if probe.family == 6 else (Protocol.PING,)
    return (Protocol.TCP,) if probe.transport == "tcp" else (Protocol.UDP,)


def _about(
    about: list[Expectation], network: str, address: str, transport: Transport, *, elsewhere: bool
) -> Expectation | None:
    """The expectation that names this probe; one with `via` is more particular than one without, the last one wins.

    A "reach" without `via` is about the addresses in networks that the two share, if there are any (`elsewhere`: this
    address is not in one of them); a "drop" is about every address.
    """
    protocol = Protocol.TCP if transport == "tcp" else Protocol.UDP
    if transport == "ping":
        protocol = Protocol.PING6 if family_of(address) == 6 else Protocol.PING
    found: Expectation | None = None
    for expectation in about:
        if expectation.protocol is not protocol or expectation.via not in (None, network):
            continue
        if expectation.reach and expectation.via is None and elsewhere:
            continue
        if found is None or expectation.via is not None or found.via is None:
            found = expectation
    return found


def may_hear(probe: Probe, listener: Station, sender: Station, target_macs: Iterable[str] = ()) -> bool:
    """Whether it is right that a packet for the probe's address arrives at `listener` (overlapping tenants!).

    Right is: it has that address, or a MAC that the packet was sent to, in a network that it shares with the sender.
    """
    networks = {interface.network for interface in sender.interfaces}
    macs = set(target_macs)
    return any(
        interface.network in networks and (probe.address in interface.addresses or interface.mac in macs)
        for interface in listener.interfaces
    )
