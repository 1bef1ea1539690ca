"""The ports of a connected switch: what number a name has now, and what is said where there is none."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence

from sdn.controller.switches import PortCounts
from sdn.model.errors import HawseError, conflict, not_found
from sdn.openflow.multipart import MultipartRequest, Part
from sdn.openflow.notices import Port, PortChange, PortState, PortStatus

PORTS_MAX = 65_536
"""More than that no switch numbers; who says more of them is not believed."""
SHOWN = 5
_STATS = struct.Struct(">I4xQQQQ72x")
"""ofp_port_stats (OpenFlow 1.3.5, section 7.3.5.6): number, packets and bytes received and sent; errors, duration."""
_EVERY_PORT = struct.pack(">I4x", 0xFFFFFFFF)
_DOWN_BY_HAND = 1


class PortTable:
    """By number; a reference is a name, or a number in text, as it was bound."""

    def __init__(self, switch: str, ports: Iterable[Port] = ()) -> None:
        """`switch`: whom errors name."""
        self.by_number: dict[int, Port] = {}
        self._numbers: dict[str, int] = {}
        self._switch = switch
        for port in ports:
            self.put(port)

    def apply(self, status: PortStatus) -> None:
        """Take in what the switch says of one of them."""
        self._drop(status.port.number)
        if status.change is not PortChange.DELETED:
            self.put(status.port)

    def put(self, port: Port) -> None:
        """It is there, as this says."""
        if len(self.by_number) < PORTS_MAX:
            self.by_number[port.number] = port
            self._numbers[port.name] = port.number

    def _drop(self, number: int) -> None:
        gone = self.by_number.pop(number, None)
        if gone is not None and self._numbers.get(gone.name) == number:
            del self._numbers[gone.name]

    def number_of(self, reference: str) -> int | None:
        """None: it is not there."""
        if reference.isascii() and reference.isdecimal():
            number = int(reference)
            return number if number in self.by_number else None
        return self._numbers.get(reference)

    def names(self, bound: Iterable[str]) -> dict[int, str]:
        """What each number is called: as it is bound, else by the number itself. Of two that mean one the first has it.

        `bound`: from the oldest on, so that who binds a port under its other name takes it from nobody.
        """
        names = {number: str(number) for number in self.by_number}
        for reference in reversed(list(bound)):
            if (number := self.number_of(reference)) is not None:
                names[number] = reference
        return names

    def clash(self, bound: Iterable[str]) -> bool:
        """Whether two of these references mean one port."""
        numbers = [number for reference in bound if (number := self.number_of(reference)) is not None]
        return len(set(numbers)) < len(numbers)

    def require(self, reference: str, names: Mapping[int, str], tunnel: str) -> int:
        """The number of a bound port; `names` as they are. Raises: NOT_FOUND; CONFLICT: another name of it is bound."""
        number = self.number_of(reference)
        if number is None:
            raise self._missing(reference)
        if number == self.number_of(tunnel):
            raise conflict(
                f"port {reference} of switch {self._switch} is its tunnel",
                f"unbind it: hawse switch unbind {self._switch} {reference}",
            )
        holder = names.get(number, reference)
        if holder != reference:
            raise conflict(
                f"port {reference} of switch {self._switch} is its port {holder}, which is bound already",
                f"unbind one of them: hawse switch unbind {self._switch} {reference}",
            )
        return number

    def require_tunnel(self, reference: str) -> int:
        """The tunnel's number. Raises: NOT_FOUND."""
        number = self.number_of(reference)
        if number is not None:
            return number
        raise not_found(
            f"switch {self._switch} has no port {reference} for its tunnels",
            f"there: ovs-vsctl add-port BRIDGE {reference} -- set interface {reference} type=vxlan "
            "options:remote_ip=flow options:key=flow",
        )

    def _missing(self, reference: str) -> HawseError:
        there = sorted(self._numbers)
        shown = f"{', '.join(there[:SHOWN])}{', …' if len(there) > SHOWN else ''}" if there else "none"
        return not_found(
            f"switch {self._switch} has no port {reference} (yet); it has {shown}",
            f"it is programmed when it appears; there: ovs-vsctl add-port BRIDGE {reference}",
        )

    def counted(self, bodies: Sequence[bytes]) -> list[PortCounts]:
        """All of them, by number, with what an answer to `counters_request` says."""
        counts: dict[int, tuple[int, ...]] = {}
        for body in bodies:
            for at in range(0, len(body) - _STATS.size + 1, _STATS.size):
                number, rx_packets, tx_packets, rx_bytes, tx_bytes = _STATS.unpack_from(body, at)
                counts[number] = (rx_packets, rx_bytes, tx_packets, tx_bytes)
        return [
            PortCounts(number, port.name, _is_up(port), *counts.get(number, ()))
            for number, port in sorted(self.by_number.items())
        ]


def counters_request() -> MultipartRequest:
    """Ask for the counters of every port."""
    return MultipartRequest(Part.PORT_STATS, _EVERY_PORT)


def _is_up(port: Port) -> bool:
    return not (port.config & _DOWN_BY_HAND or port.state & PortState.LINK_DOWN)
