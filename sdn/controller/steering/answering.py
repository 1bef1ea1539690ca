"""What is asked about packets at a switch without an agent, answered from its flows and ports. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sdn.controller.steering.flows import Naming
from sdn.controller.steering.ports import PortTable
from sdn.controller.switches import PortCounts
from sdn.model.errors import HawseError, invalid
from sdn.model.explanation import QUESTIONS_MAX, Explanation, FlowFilter, FlowTable, Question, flow_table
from sdn.model.ids import EndpointId
from sdn.model.resources import Network
from sdn.openflow.decode import Entry
from sdn.openflow.explain import Ground, PortState, SwitchSight
from sdn.openflow.rows import Names, rows_of
from sdn.reconcile.datapath import DropCount
from sdn.reconcile.explain import explain_all


class Answering:
    """What is known of a switch at one moment. `bound`: endpoint -> its port, as it was given."""

    def __init__(
        self,
        entries: Sequence[Entry],
        ports: PortTable,
        tunnel: str,
        bound: Mapping[EndpointId, str],
        networks: Iterable[Network],
    ) -> None:
        self._entries = entries
        self._ports = ports
        self._tunnel = tunnel
        self._bound = dict(sorted(bound.items()))  # ids grow with time
        numbers = Naming(ports, self._bound.values(), tunnel).names
        self._names = Names(
            ports={name: number for number, name in numbers.items()},
            endpoints={port: endpoint for endpoint, port in self._bound.items()},
            networks={network.vni: (network.id, network.tenant) for network in networks},
        )

    def flows(self, wanted: FlowFilter | None) -> FlowTable:
        """Of `hawse flow ls`."""
        return flow_table(rows_of(self._entries, self._names), wanted or FlowFilter())

    def explanation(
        self, questions: Sequence[Question], counts: Sequence[PortCounts], drops: Iterable[DropCount]
    ) -> Explanation:
        """Of `hawse why`. `counts`: of the ports. Raises: INVALID."""
        if len(questions) > QUESTIONS_MAX:
            raise invalid(f"{len(questions)} questions at once", f"ask up to {QUESTIONS_MAX}")
        counted = {count.number: count for count in counts}

        def state(name: str) -> PortState:
            number = self._ports.number_of(name)
            count = counted.get(number) if number is not None else None
            if count is None:
                return PortState(f"its port {name} is not there")
            return PortState("" if count.up else f"its port {name} is down", count.tx_packets, count.tx_bytes)

        sight = SwitchSight(self._entries, Ground(self._names, self._port_name, state, self._tunnel_trouble))
        return explain_all(questions, lambda _: sight, drops)

    def _port_name(self, endpoint: EndpointId) -> str:
        return self._bound.get(endpoint, endpoint)  # what is not bound has no port, by whatever name

    def _tunnel_trouble(self, _vni: int) -> str:
        try:
            self._ports.require_tunnel(self._tunnel)
        except HawseError as error:
            return error.message
        return ""
