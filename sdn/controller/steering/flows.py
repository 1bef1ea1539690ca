"""Objects and flows, as a switch without an agent has them: what is bound names its ports, its tunnel has any name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sdn.controller.steering.ports import PortTable
from sdn.model.errors import not_found
from sdn.model.resources import Endpoint
from sdn.openflow import lower as lowering
from sdn.openflow.decode import Entry
from sdn.openflow.expand import changes_of
from sdn.openflow.objects import TUNNEL, Member, Speaker, Station
from sdn.openflow.recognise import recognise
from sdn.reconcile.datapath import Key, Object, Operation
from sdn.reconcile.unit import Context, Unit

NO_TUNNEL = 0xFEFF
"""Taken for the tunnel's number where there is none: the greatest, which no switch gives out by itself."""


class Numbers(dict[str, int]):
    """The ports' numbers by what they are called, and by what else they may have been called when flows were written.

    A number in text is itself, though there is no such port any more.
    """

    def __init__(self, numbers: Mapping[str, int], ports: PortTable) -> None:
        super().__init__(numbers)
        self._ports = ports

    def __missing__(self, name: str) -> int:
        if name.isascii() and name.isdecimal():
            return int(name)
        number = self._ports.number_of(name)
        if number is None:
            raise KeyError(name)
        return number


class Naming:
    """What each port is called at one moment, and the other way round. Made anew for each read and write."""

    def __init__(self, ports: PortTable, bound: Iterable[str], tunnel: str) -> None:
        """`tunnel`: the port that is it, as it was given."""
        self._ports = ports
        self._tunnel = tunnel
        found = ports.number_of(tunnel)
        self.tunnel_number = NO_TUNNEL if found is None else found
        self.names = ports.names(bound) | {self.tunnel_number: TUNNEL}
        self._numbers = Numbers({name: number for number, name in self.names.items()}, ports)

    def messages(self, operation: Operation) -> list[bytes]:
        """What makes it so. Raises: HawseError where a port that it needs is not there, or is another's."""
        self._require(operation.key, operation.after)
        try:
            return changes_of(operation.key, operation.before, operation.after, self._numbers)
        except KeyError as error:
            raise not_found(f"port {error.args[0]} has gone", "it is looked at again") from None

    def _require(self, key: Key, after: Object | None) -> None:
        if isinstance(after, Speaker):
            self._ports.require(key[1], self.names, self._tunnel)
        elif isinstance(after, Station) and after.port:
            self._ports.require(after.port, self.names, self._tunnel)
        elif isinstance(after, Member | Station):
            self._ports.require_tunnel(self._tunnel)

    def recognised(self, entries: Iterable[Entry]) -> dict[Key, Object]:
        """The objects that some flows are of."""
        return recognise(entries, self._numbers)


def lower(unit: Unit, context: Context) -> dict[Key, Object]:
    """The objects of one unit."""
    return lowering.lower(unit, context, _port_name)


def _port_name(endpoint: Endpoint) -> str:
    return endpoint.ifname
