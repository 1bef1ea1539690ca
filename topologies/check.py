"""`lab check`: read from the controller who has which address, ask every question, judge the answers."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sdn.cli.attach import namespace_of
from sdn.client.client import Client
from sdn.model.address import address_number, family_of, parse_interface, parse_prefix
from sdn.model.errors import not_found
from sdn.reconcile.reach import underlay_family
from topologies.containers import containers_of
from topologies.plan import Connected, Interface, Probe, Station, may_hear, plan_probes, unasked
from topologies.post import open_posts
from topologies.probe import Heard, Prober
from topologies.record import Directory
from topologies.schema import parse_topology
from topologies.switches import endpoint_names
from topologies.values import Expectation, Forgery, Topology


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One probe's outcome. `reached`: it arrived and was answered; `why`: what is wrong, "" if all is as expected."""

    probe: Probe
    reached: bool
    sent: int
    why: str

    @property
    def ok(self) -> bool:
        """Whether it is as expected."""
        return not self.why


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ForgeryFinding:
    """One lie's outcome. `counted`: by how much the named counter rose on the sender's host."""

    forgery: Forgery
    host: str
    counted: int
    why: str

    @property
    def ok(self) -> bool:
        """Whether it died under its name."""
        return not self.why


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """All of one check. `missing`: expectations that there was nothing to try for."""

    lab: str
    stations: tuple[Station, ...]
    findings: tuple[Finding, ...]
    forgeries: tuple[ForgeryFinding, ...]
    missing: tuple[Expectation, ...]
    seconds: float

    @property
    def mismatches(self) -> int:
        """How many things are not as expected."""
        wrong = sum(not f.ok for f in self.findings) + sum(not f.ok for f in self.forgeries)
        return wrong + len(self.missing)


def judge(probe: Probe, heard: Heard, stations: Mapping[str, Station]) -> Finding:
    """Compare what came of a probe with what was expected. Pure."""
    arrived = probe.receiver in heard.listeners
    reached = arrived and heard.answered
    strangers = sorted(
        name
        for name in heard.listeners
        if name != probe.receiver
        and not may_hear(probe, stations[name], stations[probe.sender], _macs(probe, stations))
    )
    why = ""
    if probe.reach and not reached:
        why = "arrived, but no answer came back" if arrived else "did not arrive"
    elif not probe.reach and arrived and not _is_shared_twin(probe, stations):
        why = "arrived, though it must not"
    elif strangers:
        why = f"was heard by {', '.join(strangers)}, whom it was not for"
    elif not probe.reach and not heard.controlled:
        why = "not proved: no later packet of this sender arrived anywhere either"
    return Finding(probe=probe, reached=reached if probe.reach else arrived, sent=heard.sent, why=why)


def _macs(probe: Probe, stations: Mapping[str, Station]) -> list[str]:
    interface = stations[probe.receiver].interface_in(probe.network)
    return [interface.mac] if interface else []


def _is_shared_twin(probe: Probe, stations: Mapping[str, Station]) -> bool:
    """Whether the receiver has the same address in a network that it does share with the sender.

    Then a packet to that address is right to arrive, and says nothing of the other network.
    """
    return not probe.shared and may_hear(probe, stations[probe.receiver], stations[probe.sender])


def judge_forgery(forgery: Forgery, heard: Heard, stations: Mapping[str, Station], counted: int) -> ForgeryFinding:
    """Compare what came of a lie with what was expected. Pure."""
    listeners = sorted(heard.listeners - {forgery.sender})
    why = ""
    if not heard.sent:
        why = "could not be sent: the two have no addresses of the family that this lie takes"
    elif listeners:
        why = f"was delivered to {', '.join(listeners)}"
    elif counted < 1:
        why = f"the counter {forgery.cause} did not rise"
    elif not heard.controlled:
        why = "not proved: no later packet of this sender arrived anywhere either"
    return ForgeryFinding(forgery=forgery, host=stations[forgery.sender].host, counted=counted, why=why)


def read_stations(client: Client, directory: Directory, topology: Topology) -> list[Station]:
    """What each container of the lab has now, as the controller knows it (attached by hand since, too).

    Raises: CONFLICT where one does not run; UNAVAILABLE.
    """
    roots = {host.name: directory.root(host.name) for host in topology.hosts}
    known = {host: {info["name"]: info for info in containers_of(root)} for host, root in roots.items()}
    networks = {item["id"]: item for item in client.items("/v1/networks")}
    interfaces: dict[tuple[str, str], list[Interface]] = {}
    for item in client.items("/v1/endpoints"):
        network = networks[item["network"]]
        whose, ifname = endpoint_names(item)
        found = interfaces.setdefault((item["host_name"], whose), [])
        found.append(_interface(item, network, ifname))
    stations: list[Station] = []
    for container in topology.containers:
        info = known[container.host].get(container.name, {"name": container.name, "id": "", "state": "gone"})
        # By its id where an agent has attached it, by its name where it hangs on a switch.
        own = [i for name in (info["id"], container.name) for i in interfaces.get((container.host, name), [])]
        stations.append(
            Station(
                name=container.name,
                host=container.host,
                netns=namespace_of(info),
                interfaces=tuple(sorted(own, key=lambda i: i.ifname)),
            )
        )
    return stations


@dataclasses.dataclass(frozen=True, slots=True)
class _Vteps:
    vtep4: str | None
    vtep6: str | None


def read_connections(client: Client) -> Connected:
    """Which hosts can carry each other's frames, by the VTEPs that they have reported."""
    vteps = {item["name"]: _Vteps(item.get("vtep4"), item.get("vtep6")) for item in client.items("/v1/hosts")}
    return lambda one, other: underlay_family(vteps[one], vteps[other]) is not None


def _interface(endpoint: Mapping[str, Any], network: Mapping[str, Any], ifname: str) -> Interface:
    addresses = [parse_interface(text)[0] for text in endpoint["addresses"]]
    gateways = []
    for subnet in network["subnets"]:
        prefix = parse_prefix(subnet["prefix"])
        if any(family_of(a) == prefix.family and address_number(a) in prefix for a in addresses) and subnet["gateway"]:
            gateways.append(subnet["gateway"])
    return Interface(
        ifname=ifname,
        network=f"{network['tenant_name']}/{network['name']}",
        mac=endpoint["mac"],
        addresses=tuple(addresses),
        gateways=tuple(gateways),
    )


def run_check(directory: Directory) -> CheckReport:
    """Check a lab that is up. Raises: NOT_FOUND (its topology is lost), UNAVAILABLE (its controller is away)."""
    began = time.monotonic()
    try:
        topology = parse_topology(directory.topology_file.read_text(), str(directory.topology_file))
    except OSError as error:
        raise not_found(f"the lab's topology cannot be read: {error}", "take the lab down and up again") from None
    client = Client(directory.controller_url)
    stations = read_stations(client, directory, topology)
    by_name = {station.name: station for station in stations}
    probes = plan_probes(stations, topology.expectations, read_connections(client))

    def count() -> dict[tuple[str, str], int]:
        return count_drops(client.get("/v1/drops").body["items"])

    heard, lies = asyncio.run(_ask(stations, probes, topology.forgeries, count))
    return CheckReport(
        lab=directory.name,
        stations=tuple(stations),
        findings=tuple(judge(probe, heard[probe.number], by_name) for probe in probes),
        forgeries=tuple(
            judge_forgery(forgery, told, by_name, counted)
            for forgery, (told, counted) in zip(topology.forgeries, lies, strict=True)
        ),
        missing=tuple(unasked(probes, topology.expectations)),
        seconds=time.monotonic() - began,
    )


def count_drops(items: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], int]:
    """Packets by (host, cause), over all networks."""
    counted: dict[tuple[str, str], int] = {}
    for item in items:
        key = (item["host"], item["cause"])
        counted[key] = counted.get(key, 0) + int(item["packets"])
    return counted


async def _ask(
    stations: Sequence[Station],
    probes: Sequence[Probe],
    forgeries: Sequence[Forgery],
    count: Callable[[], dict[tuple[str, str], int]],
) -> tuple[dict[int, Heard], list[tuple[Heard, int]]]:
    posts = open_posts(list(stations))
    hosts = {station.name: station.host for station in stations}
    try:
        prober = Prober(posts)
        heard = await prober.run(probes)
        lies: list[tuple[Heard, int]] = []
        # Each cause by itself: only then does a counter that rose say which lie it was.
        for batch in _batches(forgeries, hosts):
            before = await asyncio.to_thread(count)
            told = await prober.forge(batch)
            after = await asyncio.to_thread(count)
            for index, forgery in enumerate(batch):
                key = (hosts[forgery.sender], forgery.cause)
                lies.append((told[index], after.get(key, 0) - before.get(key, 0)))
        return heard, lies
    finally:
        for post in posts:
            post.close()


def _batches(forgeries: Sequence[Forgery], hosts: Mapping[str, str]) -> list[list[Forgery]]:
    """In order, as few as can be, none with two lies that would raise the same counter of the same host."""
    batches: list[list[Forgery]] = []
    keys: set[tuple[str, str]] = set()
    for forgery in forgeries:
        key = (hosts[forgery.sender], forgery.cause)
        if not batches or key in keys:
            batches.append([])
            keys = set()
        batches[-1].append(forgery)
        keys.add(key)
    return batches
