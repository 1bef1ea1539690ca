"""The OpenFlow datapath as the loop sees it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from plugin.datapath.openflow import objects
from plugin.datapath.openflow.explain import ground, names_of
from plugin.datapath.openflow.links import HostLinks
from plugin.datapath.openflow.lower import lower
from plugin.datapath.openflow.memory import Memory
from plugin.datapath.openflow.objects import Port
from plugin.datapath.openflow.read import read
from plugin.datapath.openflow.vswitch import DATABASE, Vswitch
from plugin.datapath.openflow.vswitch import Place as SwitchPlace
from plugin.datapath.openflow.watch import PortWatch
from plugin.datapath.openflow.write import Place, Write
from plugin.datapath.veth import inside
from plugin.datapath.veth.announcement import FormerMacs
from plugin.datapath.veth.batch import Batch
from plugin.datapath.veth.inside import Offers
from plugin.datapath.veth.ports import doom, parse_port_alias
from plugin.datapath.veth.removal import Removal
from plugin.kernel.netlink import NetlinkError
from sdn.model.errors import HawseError, Kind
from sdn.model.explanation import Explanation, FlowRow, Question
from sdn.model.ids import TenantId
from sdn.model.resources import Endpoint
from sdn.openflow import cookies
from sdn.openflow.decode import Entry
from sdn.openflow.explain import SwitchSight
from sdn.openflow.rows import rows_of
from sdn.reconcile.datapath import DropCount, Key, LocalPort, Object, Operation, Sandbox
from sdn.reconcile.explain import explain_all
from sdn.reconcile.unit import Context, Unit

_READY_S = 5.0
"""How long a switch may take to answer when the agent starts."""
_PURGE_S = 60.0
_DROPS = cookies.make(cookies.Kind.DROP, 0)
_DROPS_MASK = cookies.TAG_MASK | 0xFF << 40
_MALFORMED = "malformed-tunnel"


class OpenflowDatapath:
    """A `sdn.reconcile.datapath.Datapath`.

    `run_dir`: the agent's run directory, by which what is ours in the switch is known again. `here_ns_fd`: the
    namespace that the switch is in, of which a copy is kept (None: this process's). `database`: the switch's database.
    Raises: UNAVAILABLE where there is no switch, CONFLICT where a name of ours is somebody else's.
    """

    def __init__(self, run_dir: Path, here_ns_fd: int | None = None, database: Path = DATABASE) -> None:
        self._offers: Offers = {}
        self._closed = False
        self._watch: PortWatch | None = None
        with contextlib.ExitStack() as undo:
            self._here_fd = None if here_ns_fd is None else os.dup(here_ns_fd)
            if self._here_fd is not None:
                undo.callback(os.close, self._here_fd)
            self._switch = Vswitch(SwitchPlace(database, str(run_dir), self._here_fd))
            undo.callback(self._switch.close)
            self._switch.wait_ready(_READY_S)
            self._links = HostLinks(self._here_fd)
            undo.callback(self._links.close)
            self._removal = Removal()
            undo.callback(self._removal.close)
            self._undo = undo.pop_all()
        self._memory = Memory()
        self._place = Place(
            self._switch, self._links, self._removal, self._offers, FormerMacs(objects.locate), self._memory
        )

    def lower(self, unit: Unit, context: Context) -> dict[Key, Object]:
        """See Datapath."""
        return lower(unit, context)

    def rank(self, key: Key) -> int:
        """See Datapath."""
        return objects.rank(key)

    def in_place(self, before: Object, after: Object) -> bool:
        """See Datapath. A veth that is not there can only be made anew; flows can always be written over."""
        return not isinstance(before, Port) or before.link

    def read(self, tenants: Sequence[TenantId] | None = None) -> dict[Key, Object]:
        """See Datapath. Raises: OSError, HawseError. What belongs to no unit is looked at, too, and mended."""
        mark = self._memory.mark()
        if self._switch.intact():
            self._switch.mend()
        try:
            seen = read(self._switch, self._links, self._memory, tenants)
        except NetlinkError as error:
            raise HawseError(Kind.INTERNAL, f"cannot read the kernel's network state: {error}") from error
        self._removal.schedule(self._links, seen.doomed)
        if tenants is None:
            self._memory.replace(seen.objects, mark)
        return seen.objects

    def write(self, operations: Sequence[Operation]) -> dict[Key, Exception]:
        """See Datapath."""
        ports = [operation for operation in operations if operation.key[0] == "port"]
        changed = any(operation.before is not None and operation.after is not None for operation in ports)
        with self._watch.own(learn=changed) if ports and self._watch else contextlib.nullcontext():
            return Write(self._place, operations).run()

    def offer(self, endpoint: Endpoint, sandbox: Sandbox | None) -> None:
        """See Datapath."""
        if sandbox is None:
            self._offers.pop(endpoint.id, None)
        else:
            self._offers[endpoint.id] = endpoint, sandbox

    def check(self, endpoint: Endpoint, mtu_bytes: int, sandbox: Sandbox) -> list[str]:
        """See Datapath."""
        try:
            return inside.faults(sandbox, endpoint, mtu_bytes, checksums=True)
        except (OSError, NetlinkError) as error:
            return [f"the container's namespace cannot be read: {error}"]

    def local_ports(self, objects: Mapping[Key, Object]) -> list[LocalPort]:
        """See Datapath. By the link's alias; what only a row is left of is no port."""
        ports = (parse_port_alias(port.alias) for port in objects.values() if isinstance(port, Port))
        return [port for port in ports if port is not None]

    def drops(self) -> list[DropCount]:
        """See Datapath. By the cookies of what drops; tunnel packets that do not say their VNI are nobody's."""
        return self._counted(self._switch.counters(_DROPS, _DROPS_MASK))

    def _counted(self, entries: Iterable[Entry]) -> list[DropCount]:
        """What entries that drop have counted."""
        names = self._switch.networks()
        counts: dict[tuple[str, int], tuple[int, int]] = {}
        for entry in entries:
            if entry.cookie & _DROPS_MASK != _DROPS:
                continue
            where = cookies.cause_of(cookies.split(entry.cookie)[1])
            packets, octets = counts.get(where, (0, 0))
            counts[where] = packets + entry.packets, octets + entry.bytes
        packets, octets = counts.get((_MALFORMED, 0), (0, 0))
        more, more_octets = self._switch.malformed()
        counts[_MALFORMED, 0] = packets + more, octets + more_octets
        found = []
        for (cause, vni), (packets, octets) in counts.items():
            network, tenant = names.get(vni, ("", ""))
            found.append(DropCount(tenant, network, cause, packets, octets))
        return found

    def explain(self, questions: Sequence[Question]) -> Explanation:
        """See Datapath. Raises: HawseError. Counts may be half a second old: the switch is not made to gather them."""
        entries = self._switch.dump()
        sight = SwitchSight(entries, ground(self._switch, self._links))
        try:
            return explain_all(questions, lambda _: sight, self._counted(entries))
        except NetlinkError as error:
            raise HawseError(Kind.INTERNAL, f"cannot look into the kernel's network state: {error}") from error

    def flows(self) -> list[FlowRow]:
        """See Datapath. Raises: HawseError."""
        return rows_of(self._switch.dump(), names_of(self._switch))

    def notify(self, drifted: Callable[[Sequence[TenantId] | None], None]) -> None:
        """See Datapath. What the switch tells, and what the kernel tells of veths."""
        self._switch.notify(drifted)
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.close()
        self._watch = PortWatch(self._here_fd, drifted)

    def wait_removed(self, timeout_s: float) -> bool:
        """Wait until what was deleted is gone from the kernel too; False: it took longer."""
        return self._removal.wait_idle(timeout_s)

    def purge(self) -> int:
        """See Datapath. Ports, flows, bridges, the way out, and the host ends of veths."""
        tenants = {tenant for _, tenant in self._switch.networks().values()}
        ports, doomed = self._links.read()
        tenants |= {port.tenant for port in map(parse_port_alias, (found.alias for found in ports.values())) if port}
        self._switch.purge()
        batch = Batch()
        for name, found in ports.items():
            doom(batch, ("port", name), found.index, rename=False)
        batch.send(self._links.writer)
        self._removal.schedule(self._links, [*doomed, *(found.index for found in ports.values())])
        self._removal.wait_idle(_PURGE_S)
        return len(tenants)

    def close(self) -> None:
        """See Datapath. Waits, in bounded time, for deletions that were begun."""
        if self._closed:
            return
        self._closed = True
        if self._watch is not None:
            self._watch.close()
        self._undo.close()
