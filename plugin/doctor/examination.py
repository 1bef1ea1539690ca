"""The examination: everything gathered side by side, then judged."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from plugin.agent.configuration import Configuration, controller_address
from plugin.agent.facts import HostFacts, KernelUnderlay, read_facts, resolve_host
from plugin.doctor import (
    controllers,
    duplicates,
    fabric,
    features,
    firewall,
    machine,
    packet,
    path,
    path_findings,
    underlay,
    vswitch,
)
from plugin.doctor.finding import Finding, unknown
from plugin.doctor.packet import Packet
from plugin.kernel import clock, namespace
from plugin.kernel.netlink import DumpInterruptedError, NetlinkError
from sdn.model.address import family_of, is_loopback
from sdn.model.contract import ExamineResult
from sdn.model.errors import HawseError
from sdn.model.stream import Peer
from sdn.service.roots import Root

T = TypeVar("T")
THREADS = 12
PACKETS_PEERS_MAX = 64
"""Rules are walked for so many peers, each by its address."""


@dataclasses.dataclass(frozen=True, slots=True)
class Examined:
    """`host`: its name in the fabric; empty where it is of none."""

    host: str
    findings: list[Finding]


def examine(root: Root, hosts: Sequence[str], url: str = "") -> Examined:
    """Examine this machine and its place in the fabric.

    `hosts`: probe the paths to these alone; `url`: a controller to look at, too, of a machine that has not joined yet.
    """
    agent = fabric.ask_agent(root)
    findings = fabric.judge_agent(agent)
    findings += _enter_namespace(agent.result)
    with ThreadPoolExecutor(THREADS) as pool:
        doing = _Doing(pool, root, agent, hosts, url)
        findings += doing.of_fabric() + doing.of_underlay() + doing.of_machine()
    name = agent.result.name if agent.result else agent.configuration.name if agent.configuration else ""
    return Examined(name, findings)


def _enter_namespace(result: ExamineResult | None) -> list[Finding]:
    """Go where the agent is: before any thread is started, for threads inherit it."""
    if result is None:
        return []
    try:
        if namespace.cookie() == result.namespace:
            return []
        fd = os.open(f"/proc/{result.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            namespace.enter(fd)
        finally:
            os.close(fd)
    except OSError as error:
        text = f"the agent is in another network namespace, which cannot be entered ({error.strerror})"
        return [unknown("agent", text, f"nsenter --net=/proc/{result.pid}/ns/net hawse doctor")]
    return []


class _Doing:
    """What is gathered, each matter in a thread, and judged as it comes."""

    def __init__(
        self, pool: ThreadPoolExecutor, root: Root, agent: fabric.AgentFacts, hosts: Sequence[str], url: str
    ) -> None:
        self._root = root
        self._hosts = hosts
        self._result = agent.result
        configuration = agent.configuration
        urls = self._result.controllers if self._result else configuration.controllers if configuration else ()
        urls += (url,) if url.startswith("https:") and url not in urls else ()
        bundle = self._result.authority if self._result else configuration.authority if configuration else ""
        self._urls = tuple(url for url in urls if not url.startswith("unix:"))  # no network is between
        self._pool = pool
        live = self._result is not None and not self._result.away
        self._asked = pool.submit(fabric.ask_peers, root, hosts) if live else None
        self._local = pool.submit(fabric.read_local_controller, root)
        self._features = pool.submit(features.read_features)
        self._limits = pool.submit(machine.read_limits, self._result.pid if self._result else None)
        self._disks = pool.submit(machine.read_disks, root)
        self._leftovers = pool.submit(machine.read_leftovers, root)
        self._versions = pool.submit(fabric.read_versions, root)
        self._ports = pool.submit(fabric.controller_ports, root)
        self._firewall = pool.submit(firewall.read_firewall)
        self._vswitch = pool.submit(vswitch.judge_vswitch, root)
        self._controllers = [pool.submit(controllers.read_controller, url, bundle) for url in urls]
        self._vteps = self._own_vteps(configuration)
        self._probed, self._why = self._asked.result() if self._asked else (None, "")
        self._underlay = pool.submit(underlay.read_underlay, self._vteps, self._pairs())

    def _own_vteps(self, configuration: Configuration | None) -> list[str]:
        """As the agent has them, or as it would find them."""
        facts: ExamineResult | HostFacts | None = self._result
        if facts is None and configuration is not None:
            with (
                contextlib.suppress(OSError, NetlinkError, DumpInterruptedError),
                contextlib.closing(KernelUnderlay()) as kernel,
            ):
                facts = read_facts(configuration, kernel, resolve_host)
        return [vtep for vtep in (facts.vtep4, facts.vtep6) if vtep] if facts else []

    def _pairs(self) -> list[tuple[str, str, str]]:
        """(peer, this host's VTEP, the peer's) of each family that both have."""
        result = self._result
        if result is None:
            return []
        return [
            (peer.name, mine, theirs)
            for peer in self._peers()
            for mine, theirs in ((result.vtep4, peer.vtep4), (result.vtep6, peer.vtep6))
            if mine and theirs
        ]

    def _peers(self) -> tuple[Peer, ...]:
        return self._probed.peers if self._probed else ()

    # Matters ----------------------------------------------------------------------------------------------------------

    def of_fabric(self) -> list[Finding]:
        """Controllers, clock, versions, units."""
        facts = [future.result() for future in self._controllers]
        findings = [finding for one in facts for finding in controllers.judge_controller(one)]
        if facts:
            findings += controllers.judge_clock(facts, clock.is_synchronised())
        local = self._local.result()
        findings += fabric.judge_local_controller(local)
        versions = self._versions.result() | ({"controller here": local.version} if local else {})
        if self._result:
            versions["agent"] = self._result.version
            findings += fabric.judge_failures(self._result)
        findings += self._vswitch.result()
        versions |= {f"controller {one.url}": one.version for one in facts if one.version}
        return findings + fabric.judge_versions(versions, self._probed)

    def of_underlay(self) -> list[Finding]:
        """Uplinks, routes, duplicates, paths, firewalls."""
        if self._result is None and not self._vteps:
            return self._judge_firewall([], probed=False)
        try:
            facts = self._underlay.result()
        except (OSError, NetlinkError, DumpInterruptedError) as error:
            return [unknown(underlay.CHECK, f"the links and routes cannot be read: {error}")]
        links = [uplink for uplink in facts.uplinks.values() if uplink is not None]
        asking = [self._pool.submit(duplicates.read_duplicates, uplink) for uplink in links]
        limits = {uplink.vtep: uplink.mtu_bytes for uplink in links}
        paths, measured = self._measure(limits)
        findings = underlay.judge_uplinks(facts, alone=self._is_alone()) + underlay.judge_settings(facts)
        for asked in asking:
            findings += duplicates.judge_duplicates(asked.result())
        return findings + self._judge_firewall(links, probed=path_findings.all_pass(measured)) + paths

    def _is_alone(self) -> bool:
        """Whether every controller of this machine is reached within it."""
        return all(is_loopback(controller_address(url)[0]) for url in self._urls)

    def _measure(self, limits: dict[str, int]) -> tuple[list[Finding], list[path.Measured]]:
        result, probed = self._result, self._probed
        if result is None:
            return [], []
        if not self._vteps and not self._hosts:  # the uplink's finding says it
            return [], []
        if probed is None:
            return (fabric.judge_probe_problem(self._why, bool(self._hosts)) if self._why else []), []
        findings = path_findings.judge_peers(probed)
        try:
            with contextlib.closing(
                path.Prober(path.paths_of(result, probed.peers, limits), bytes.fromhex(probed.cookie))
            ) as prober:
                measured = prober.measure()
        except OSError as error:
            return [*findings, unknown(path_findings.CHECK, f"no probe can be sent: {error.strerror}")], []
        passing = any(one.backward_bytes for one in measured)
        for one in measured:
            findings += path_findings.judge_path(one, passing)
        return findings, measured

    def _judge_firewall(self, links: Sequence[underlay.UplinkFacts], *, probed: bool) -> list[Finding]:
        packets: list[Packet] = []
        pairs = self._pairs()[:PACKETS_PEERS_MAX]
        for link in links:
            family = family_of(link.vtep)
            others = [target for _, mine, target in pairs if mine == link.vtep]
            packets += packet.tunnels_in(family, link.ifname, link.vtep, others)
            packets += packet.tunnels_out(family, link.ifname, link.vtep, others)
        for url in self._urls:
            with contextlib.suppress(HawseError):
                host, port = controller_address(url)
                packets += [packet.controller_out(family_of(one), one, port) for one in resolve_host(host)]
        packets += [packet.controller_in(family, port) for port in self._ports.result() for family in (4, 6)]
        if not packets:  # no VTEP is known: what would become of a tunnel packet anyway
            for family, any_address in ((4, ""), (6, "")):
                packets += packet.tunnels_in(family, "", any_address, ())
                packets += packet.tunnels_out(family, "", any_address, ())
        return firewall.judge_firewall(self._firewall.result(), packets, probed=probed)

    def of_machine(self) -> list[Finding]:
        """Kernel, limits, disks, leftovers."""
        result = self._result
        knows = result is not None and not result.away
        wanted = frozenset(network.tenant for network in result.networks) if result and knows else None
        return [
            *features.judge_features(self._features.result()),
            *machine.judge_limits(self._limits.result(), result.endpoints if result else 0),
            *machine.judge_disks(self._disks.result()),
            *(machine.judge_leftovers(self._leftovers.result(), wanted) if knows or result is None else []),
        ]
