"""The bridge datapath as the loop sees it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from plugin.datapath.bridge import objects
from plugin.datapath.bridge.explain import BridgeSight
from plugin.datapath.bridge.lower import lower
from plugin.datapath.bridge.objects import Port
from plugin.datapath.bridge.read import read_tenant, read_underlay, underlay_objects
from plugin.datapath.bridge.rows import Counted, flow_rows
from plugin.datapath.bridge.tenant import TenantNamespace, Tenants
from plugin.datapath.bridge.underlay_guard import UnderlayGuard
from plugin.datapath.bridge.write import Place, Write
from plugin.datapath.veth import inside
from plugin.datapath.veth.inside import Offers
from plugin.datapath.veth.ports import parse_port_alias
from plugin.datapath.veth.removal import Removal
from plugin.kernel.link import Traffic, dump_traffic
from plugin.kernel.netlink import NetlinkError, NetlinkSocket
from sdn.model.errors import HawseError, Kind
from sdn.model.explanation import Explanation, FlowRow, Question
from sdn.model.ids import TenantId
from sdn.model.resources import Endpoint
from sdn.reconcile.datapath import DropCount, Key, LocalPort, Object, Operation, Sandbox
from sdn.reconcile.explain import explain_all
from sdn.reconcile.unit import Context, Unit

_PURGE_S = 60.0


class BridgeDatapath:
    """A `sdn.reconcile.datapath.Datapath`.

    `run_dir`: the agent's run directory. `here_ns_fd`: the host's namespace, of which a copy is kept (None: this
    process's); in it are the VXLAN devices' sockets and the underlay's guard.
    """

    def __init__(self, run_dir: Path, here_ns_fd: int | None = None) -> None:
        self._here_fd = None if here_ns_fd is None else os.dup(here_ns_fd)
        self._tenants = Tenants(run_dir / "netns")
        self._removal = Removal()
        self._offers: Offers = {}
        self._owners: dict[int, str] = {}
        self._underlay = UnderlayGuard(self._here_fd)
        self._here = NetlinkSocket.open(self._here_fd)
        self._place = Place(self._tenants, self._here, self._underlay, self._removal, self._offers, self._owners)
        self._closed = False

    def lower(self, unit: Unit, context: Context) -> dict[Key, Object]:
        """See Datapath."""
        return lower(unit, context)

    def rank(self, key: Key) -> int:
        """See Datapath."""
        return objects.rank(key)

    def in_place(self, before: Object, after: Object) -> bool:
        """See Datapath. What the kernel cannot change is made anew inside of `write`, with all that hangs on it."""
        return type(before) is type(after)

    def read(self, tenants: Sequence[TenantId] | None = None) -> dict[Key, Object]:
        """See Datapath. Raises: OSError, HawseError.

        The underlay's guard comes first: creation begins with it and removal ends with it, so that a VNI that is being
        written meanwhile is never taken for an orphan that is there.
        """
        found: dict[Key, Object] = {}
        try:
            underlay = read_underlay(self._underlay)
            for tenant in self._tenants.names() if tenants is None else tenants:
                opened = self._tenants.get(tenant)
                if opened is None:
                    continue
                rows, doomed = read_tenant(opened)
                found |= rows
                self._owners.update(dict.fromkeys(opened.networks, opened.tenant))
                self._removal.schedule(opened, doomed)
        except NetlinkError as error:
            raise HawseError(Kind.INTERNAL, f"cannot read the kernel's network state: {error}") from error
        return found | underlay_objects(underlay, self._owners, tenants)

    def write(self, operations: Sequence[Operation]) -> dict[Key, Exception]:
        """See Datapath."""
        return Write(self._place).run(operations)

    def offer(self, endpoint: Endpoint, sandbox: Sandbox | None) -> None:
        """See Datapath."""
        if sandbox is None:
            self._offers.pop(endpoint.id, None)
        else:
            self._offers[endpoint.id] = endpoint, sandbox

    def check(self, endpoint: Endpoint, mtu_bytes: int, sandbox: Sandbox) -> list[str]:
        """See Datapath."""
        try:
            return inside.faults(sandbox, endpoint, mtu_bytes)
        except (OSError, NetlinkError) as error:
            return [f"the container's namespace cannot be read: {error}"]

    def local_ports(self, objects: Mapping[Key, Object]) -> list[LocalPort]:
        """See Datapath."""
        ports = (parse_port_alias(port.alias) for port in objects.values() if isinstance(port, Port))
        return [port for port in ports if port is not None]

    def drops(self) -> list[DropCount]:
        """See Datapath."""
        found: list[DropCount] = []
        owners: dict[int, TenantNamespace] = {}
        for tenant in self._tenants.names():
            opened = self._tenants.get(tenant)
            if opened is None:
                continue
            if not opened.networks:
                read_tenant(opened)
            owners.update(dict.fromkeys(opened.networks, opened))
            for vni, cause, packets, size in opened.guard.drops():
                found.append(DropCount(tenant, opened.networks.get(vni, ""), cause, packets, size))
        for vni, cause, packets, size in self._underlay.drops():
            owner = owners.get(vni)
            where = (owner.tenant, owner.networks.get(vni, "")) if owner else ("", "")
            found.append(DropCount(*where, cause, packets, size))
        return found

    def explain(self, questions: Sequence[Question]) -> Explanation:
        """See Datapath. Raises: HawseError."""
        drops = self.drops()
        try:
            with contextlib.ExitStack() as stack:
                tenants = {
                    tenant: self._tenants.get(tenant) for tenant in sorted({asked.tenant for asked in questions})
                }
                for opened in tenants.values():
                    if opened is not None:
                        stack.enter_context(opened.reading)
                sights = {tenant: BridgeSight(opened, self._underlay) for tenant, opened in tenants.items()}
                return explain_all(questions, lambda asked: sights[asked.tenant], drops)
        except NetlinkError as error:
            raise HawseError(Kind.INTERNAL, f"cannot look into the kernel's network state: {error}") from error

    def flows(self) -> list[FlowRow]:
        """See Datapath. Raises: OSError, HawseError."""
        traffic: dict[tuple[str, str], Traffic] = {}
        for tenant in self._tenants.names():
            opened = self._tenants.get(tenant)
            if opened is not None:
                with opened.reading:
                    found = dump_traffic(opened.reader)
                traffic |= {(tenant, name): counts for name, counts in found.items()}
        return flow_rows(self.read(), Counted(traffic, self.drops()))

    def notify(self, drifted: Callable[[Sequence[TenantId] | None], None]) -> None:
        """See Datapath."""
        self._tenants.listen(drifted)

    def wait_removed(self, timeout_s: float) -> bool:
        """Wait until what was deleted is gone from the kernel too; False: it took longer."""
        return self._removal.wait_idle(timeout_s)

    def purge(self) -> int:
        """See Datapath. Every tenant's namespace, and the underlay's guard."""
        tenants = self._tenants.names()
        for tenant in tenants:
            opened = self._tenants.take_away(tenant)
            if opened is not None:
                self._removal.retire(opened)
        self._underlay.remove_table()
        self._removal.wait_idle(_PURGE_S)
        return len(tenants)

    def close(self) -> None:
        """See Datapath. Waits, in bounded time, for deletions that were begun."""
        if self._closed:
            return
        self._closed = True
        self._removal.close()
        self._tenants.close()
        self._here.close()
        self._underlay.close()
        if self._here_fd is not None:
            os.close(self._here_fd)
