"""The addresses of one subnet: next-fit over a bitmap, with the freed ones waiting at the end of the queue.

The search goes on from the cursor, so an address that was given out just now comes last. Those that were freed wait in
a queue of their own until nothing else is left: a late packet, a peer's cached neighbour or a connection that was never
closed then meets nobody instead of a stranger.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any

from sdn.ipam.bitmap import Bitmap
from sdn.ipam.subnet import broadcast_address, network_address
from sdn.model.address import Prefix, address_number, family_of, format_address, parse_prefix
from sdn.model.errors import HawseError, conflict, exhausted, invalid
from sdn.model.resources import Subnet

WAITING_MAX = 4096
"""Freed addresses that wait: above, the one that has waited longest is ordinary again. Bounds memory, some 0.4 MB."""


@dataclasses.dataclass(frozen=True, slots=True)
class Usage:
    """Counts of addresses: `size` = `used` + `reserved` (those never given out) + `free`."""

    prefix: str
    size: int
    used: int
    reserved: int
    free: int


class AddressSpace:
    """The addresses of one subnet, as integers.

    `gateway` and `reserved` are never given out; `bounds` (first and last, inclusive) is where automatic choice takes
    place; `latest` is the address that was allocated most recently, found from revisions at start: the search goes on
    after it.
    """

    def __init__(
        self,
        prefix: Prefix,
        *,
        gateway: int | None = None,
        bounds: tuple[int, int] | None = None,
        reserved: Iterable[int] = (),
        latest: int | None = None,
    ) -> None:
        self.prefix = prefix
        first, last = bounds or (prefix.first, prefix.last)
        self._first, self._end = first - prefix.first, last - prefix.first + 1
        self._fixed = _fixed(prefix, gateway, reserved)
        self._busy = Bitmap(prefix.size)
        """Offsets that the cursor passes over: taken, fixed, or waiting."""
        for number in self._fixed:
            self._busy.add(number - prefix.first)
        self._waiting: OrderedDict[int, None] = OrderedDict()
        """Freed offsets in the order in which they were freed."""
        self._cursor = self._after(self._first - 1 if latest is None else latest - prefix.first)

    @classmethod
    def of(cls, subnet: Subnet, *, taken: Iterable[str] = (), latest: str | None = None) -> AddressSpace:
        """The space of a resource.

        `taken`: addresses of the store's allocations, without prefix length; those of the gateway, of reservations and
        of other subnets are passed over. `latest`: the one of the newest allocation, or None.
        """
        bounds = subnet.range and (address_number(subnet.range[0]), address_number(subnet.range[1]))
        space = cls(
            parse_prefix(subnet.prefix),
            gateway=address_number(subnet.gateway),
            bounds=bounds,
            reserved=map(address_number, subnet.reserved),
            latest=None if latest is None else address_number(latest),
        )
        for address in taken:
            number = address_number(address)
            if family_of(address) == space.prefix.family and number in space.prefix and number not in space._fixed:
                space._hold(number)
        return space

    @property
    def used(self) -> int:
        """How many addresses are taken."""
        return len(self._busy) - len(self._fixed) - len(self._waiting)

    @property
    def reserved(self) -> int:
        """How many addresses are never given out."""
        return len(self._fixed)

    @property
    def free(self) -> int:
        """How many addresses can be had, those outside of the range included (by asking for them)."""
        return self.prefix.size - self.used - self.reserved

    def usage(self) -> Usage:
        """All counts."""
        return Usage(str(self.prefix), self.prefix.size, self.used, self.reserved, self.free)

    def __contains__(self, address: int) -> bool:
        """Whether the address is taken."""
        if address not in self.prefix or address in self._fixed:
            return False
        offset = address - self.prefix.first
        return offset in self._busy and offset not in self._waiting

    def taken(self) -> Iterator[int]:
        """The addresses that are taken, in ascending order."""
        return (number for offset in self._busy if (number := offset + self.prefix.first) in self)

    def take(self, address: int | None = None) -> int:
        """Take this address, or the next one. Raises: INVALID, CONFLICT (taken), EXHAUSTED (full; see facts)."""
        return self._take_next() if address is None else self._take_static(address)

    def release(self, address: int) -> None:
        """Give it back; it will be the last to be taken. One that is not taken is left as it is."""
        if address not in self:
            return
        offset = address - self.prefix.first
        if not self._first <= offset < self._end:
            self._busy.discard(offset)
            return
        self._waiting[offset] = None
        if len(self._waiting) > WAITING_MAX:
            self._busy.discard(self._pop_waiting())

    def _take_next(self) -> int:
        offset = self._busy.next_absent(self._cursor, self._end)
        if offset is None:
            offset = self._busy.next_absent(self._first, self._cursor)
        if offset is not None:
            self._busy.add(offset)
            self._cursor = self._after(offset)
        elif self._waiting:
            offset = self._pop_waiting()
        else:
            raise self._full()
        return offset + self.prefix.first

    def _take_static(self, address: int) -> int:
        text = format_address(self.prefix.family, address)
        if address not in self.prefix:
            raise invalid(
                f"the address {text} is outside of the subnet {self.prefix}",
                "choose one of its addresses, or leave the choice to Hawse",
                address=text,
                prefix=str(self.prefix),
            )
        if address in self._fixed:
            raise invalid(
                f"the address {text} is {self._fixed[address]} of {self.prefix}",
                "choose another one, or leave the choice to Hawse",
                address=text,
                prefix=str(self.prefix),
            )
        if address in self:
            raise conflict(
                f"the address {text} of {self.prefix} is taken",
                "choose another one, or leave the choice to Hawse",
                address=text,
                prefix=str(self.prefix),
            )
        self._hold(address)
        return address

    def _hold(self, address: int) -> None:
        assert address in self.prefix, (address, self.prefix)
        assert address not in self._fixed, (address, self.prefix)
        offset = address - self.prefix.first
        self._waiting.pop(offset, None)
        self._busy.add(offset)

    def _pop_waiting(self) -> int:
        return self._waiting.popitem(last=False)[0]

    def _after(self, offset: int) -> int:
        """Where the search goes on after this offset."""
        return offset + 1 if self._first <= offset + 1 < self._end else self._first

    def _full(self) -> HawseError:
        facts: dict[str, Any] = dataclasses.asdict(self.usage())
        counts = "{used} used, {reserved} reserved, {free} free of {size}".format(**facts)
        first, last = (
            format_address(self.prefix.family, offset + self.prefix.first) for offset in (self._first, self._end - 1)
        )
        if not self.free:
            return exhausted(f"the subnet {self.prefix} is full: {counts}", "add a subnet to the network", **facts)
        return exhausted(
            f"the range {first}-{last} of the subnet {self.prefix} is full: {counts}",
            "ask for an address outside of the range, or add a subnet to the network",
            range=[first, last],
            **facts,
        )


def _fixed(prefix: Prefix, gateway: int | None, reserved: Iterable[int]) -> dict[int, str]:
    """The addresses that are never given out, with what they are; the weightiest reason wins."""
    fixed: dict[int | None, str] = dict.fromkeys(reserved, "a reserved address")
    fixed[gateway] = "the gateway"
    fixed[broadcast_address(prefix)] = "the broadcast address"
    fixed[network_address(prefix)] = "the network address"
    return {number: what for number, what in fixed.items() if number is not None}
