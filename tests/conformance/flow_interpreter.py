"""Flow tables that are run by hand: which frames leave, where and changed how, and which flows decided it.

A switch that does nothing but what OpenFlow 1.3 and ovs-actions(7) say, so that Open vSwitch and our flows have a third
opinion. Fragments are seen with their ports (`nx-match`). Where Open vSwitch counts both outcomes of a comparison of a
frame's length (see `Track`), this counts the one that is true.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Collection, Iterable, Mapping

from sdn.openflow.fields import Field
from sdn.openflow.flow import CONTROLLER, IN_PORT, Action, CheckLarger, Flow, Move, Output, Resubmit, SetField, Track
from tests.conformance.packet_fields import Places, Values, extract, write

_DEPTH_MAX = 64


@dataclasses.dataclass(frozen=True, slots=True)
class Leaving:
    """A frame on its way out. `tun_id`, `tunnel`: of one that leaves by a tunnel, the VNI and to whom (as a number)."""

    port: int
    frame: bytes
    tun_id: int = 0
    tunnel: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a frame: what leaves, and the flows that it met, the last of which decided."""

    leaving: tuple[Leaving, ...]
    path: tuple[Flow, ...]

    @property
    def cookie(self) -> int:
        """Of who decided; 0 where a table had no flow for it from the beginning."""
        return self.path[-1].cookie if self.path else 0


@dataclasses.dataclass(slots=True)
class _Run:
    """One frame's way."""

    frame: bytes
    before: Values
    places: Places
    values: Values
    leaving: list[Leaving] = dataclasses.field(default_factory=list)
    path: list[Flow] = dataclasses.field(default_factory=list)

    def again(self) -> _Run:
        """The same frame as it is now, that goes another way; what becomes of it is told with the first."""
        return dataclasses.replace(self, values=dict(self.values))


class FlowTables:
    """The tables of a switch. `tunnels`: its ports that are tunnels, whose targets the flows say."""

    def __init__(self, flows: Iterable[Flow], tunnels: Collection[int] = ()) -> None:
        self._tables: dict[int, list[Flow]] = collections.defaultdict(list)
        for flow in sorted(flows, key=lambda flow: -flow.priority):
            self._tables[flow.table].append(flow)
        self._tunnels = frozenset(tunnels)
        self.packets: collections.Counter[Flow] = collections.Counter()
        self.bytes: collections.Counter[Flow] = collections.Counter()

    def run(self, frame: bytes, in_port: int, metadata: Mapping[Field, int] | None = None) -> Verdict:
        """What becomes of a frame that comes in by a port. `metadata`: of its tunnel, if that is one."""
        values, places = extract(frame)
        values |= {Field.IN_PORT: in_port, **(metadata or {})}
        run = _Run(frame, dict(values), places, values)
        self._look_up(run, 0, 0)
        return Verdict(tuple(run.leaving), tuple(run.path))

    def _look_up(self, run: _Run, table: int | None, depth: int) -> None:
        assert depth < _DEPTH_MAX, "frames go round in circles"
        while table is not None:
            flow = self._best(table, run.values)
            if flow is None:
                return
            run.path.append(flow)
            self.packets[flow] += 1
            self.bytes[flow] += len(run.frame)
            for action in flow.actions:
                self._do(run, action, depth)
            assert flow.goto is None or flow.goto > flow.table, f"back from {flow.table} to {flow.goto}"
            table = flow.goto

    def _best(self, table: int, values: Values) -> Flow | None:
        found = [flow for flow in self._tables[table] if matches(flow, values)]
        assert len(found) < 2 or found[0].priority > found[1].priority, f"two flows for one frame: {found[:2]}"
        return found[0] if found else None

    def _do(self, run: _Run, action: Action, depth: int) -> None:
        values = run.values
        match action:
            case Output(port):
                self._send(run, port)
            case SetField(field, value):
                values[field] = int.from_bytes(value, "big")
            case Move(source, target, bits):
                low = (1 << bits) - 1
                values[target] = values.get(target, 0) & ~low | values.get(source, 0) & low
            case CheckLarger(size, target):
                values[target] = values.get(target, 0) & ~1 | (len(run.frame) > size)
            case Resubmit(table):
                self._look_up(run, table, depth + 1)
            case Track(table):
                self._look_up(run.again(), table, depth + 1)

    def _send(self, run: _Run, port: int) -> None:
        arrived = run.before[Field.IN_PORT]
        if port == arrived:
            return  # OpenFlow 1.3.5, section 5.9: only IN_PORT goes back
        port = arrived if port == IN_PORT else port
        frame = write(run.frame, run.before, run.values, run.places)
        if port not in self._tunnels or port == CONTROLLER:
            run.leaving.append(Leaving(port, frame))
            return
        tunnel = run.values.get(Field.TUN_IPV4_DST, 0) or run.values.get(Field.TUN_IPV6_DST, 0)
        if tunnel:
            run.leaving.append(Leaving(port, frame, run.values.get(Field.TUN_ID, 0), tunnel))


def matches(flow: Flow, values: Values) -> bool:
    """Whether a frame with these fields is one of a flow's."""
    for field, value, mask in flow.match:
        seen = values.get(field, 0)
        if mask is not None:
            seen &= int.from_bytes(mask, "big")
        if seen != int.from_bytes(value, "big"):
            return False
    return True
