"""The addresses and MACs of all networks: who holds which, and which comes next."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator

from sdn.ipam.pool import AddressSpace
from sdn.model.address import address_bytes, address_number, format_address, parse_prefix
from sdn.model.errors import HawseError, Kind
from sdn.model.ids import EndpointId, NetworkId
from sdn.model.resources import Allocation, Endpoint, Holder, Network, Subnet, Value


class SubnetUsage(Value, frozen=True, kw_only=True):
    """How full a subnet is, in addresses: `size` = `used` + `reserved` (never given out) + `free`."""

    prefix: str
    size: int
    used: int
    reserved: int
    free: int


class Space(AddressSpace):
    """An address space that can be asked before it is changed: a plan that is not committed must leave no trace."""

    @classmethod
    def of(cls, subnet: Subnet, *, taken: Iterable[str] = (), latest: str | None = None) -> Space:
        """See AddressSpace.of."""
        space = super().of(subnet, taken=taken, latest=latest)
        assert isinstance(space, cls)
        return space

    def peek(self) -> int:
        """What `take` would take. Raises: EXHAUSTED."""
        offset = self._busy.next_absent(self._cursor, self._end)
        if offset is None:
            offset = self._busy.next_absent(self._first, self._cursor)
        if offset is None:
            offset = next(iter(self._waiting), None)
        if offset is None:
            raise self._full()
        return offset + self.prefix.first

    def check(self, address: int) -> None:
        """Raises what `take` of this address would."""
        if address not in self.prefix or address in self._fixed or address in self:
            self.take(address)  # refused, so nothing changes

    def hold(self, address: int) -> None:
        """Take an address that was chosen here; the cursor moves on if it was its choice."""
        if self._is_next(address):
            self.take()
        else:
            self.take(address)

    def _is_next(self, address: int) -> bool:
        try:
            return self.peek() == address
        except HawseError:  # the range is full, this one lies outside of it
            return False


class AddressBook:
    """For each network: its spaces, address -> endpoint, MAC -> endpoint."""

    def __init__(self) -> None:
        self._spaces: dict[NetworkId, dict[str, Space]] = {}
        self._holders: dict[NetworkId, dict[str, EndpointId]] = {}
        self._macs: dict[NetworkId, dict[str, EndpointId]] = {}
        self._networks: dict[NetworkId, Network] = {}

    # --- in ---

    def put_network(self, network: Network) -> None:
        """A network is new, or has more subnets."""
        self._networks[network.id] = network
        spaces = self._spaces.setdefault(network.id, {})
        for subnet in network.subnets:
            if subnet.prefix not in spaces:
                spaces[subnet.prefix] = Space.of(subnet)

    def remove_network(self, network: Network) -> None:
        """A network without endpoints is gone."""
        for index in (self._spaces, self._holders, self._macs, self._networks):
            index.pop(network.id, None)

    def put_endpoint(self, endpoint: Endpoint) -> None:
        """An endpoint holds its addresses and its MAC."""
        self._macs.setdefault(endpoint.network, {})[endpoint.mac] = endpoint.id
        holders = self._holders.setdefault(endpoint.network, {})
        for interface in endpoint.addresses:
            address = interface.partition("/")[0]
            holders[address] = endpoint.id
            self.space_of(endpoint.network, address).hold(address_number(address))

    def remove_endpoint(self, endpoint: Endpoint) -> None:
        """What an endpoint held is free."""
        holders = self._holders[endpoint.network]
        for interface in endpoint.addresses:
            address = interface.partition("/")[0]
            assert holders[address] == endpoint.id, (address, endpoint)
            del holders[address]
            self.space_of(endpoint.network, address).release(address_number(address))
        if self._macs[endpoint.network].get(endpoint.mac) == endpoint.id:
            del self._macs[endpoint.network][endpoint.mac]

    def seek(self, endpoints: Iterable[Endpoint]) -> None:
        """After a start: the search goes on after what was allocated last. `endpoints`: in the order of creation."""
        latest: dict[tuple[NetworkId, str], str] = {}
        for endpoint in endpoints:
            for interface in endpoint.addresses:
                address = interface.partition("/")[0]
                prefix = str(self.space_of(endpoint.network, address).prefix)
                latest[(endpoint.network, prefix)] = address
        for (network, prefix), address in latest.items():
            subnet = next(subnet for subnet in self._networks[network].subnets if subnet.prefix == prefix)
            space = self._spaces[network][prefix]
            taken = [format_address(space.prefix.family, number) for number in space.taken()]
            self._spaces[network][prefix] = Space.of(subnet, taken=taken, latest=address)

    # --- out ---

    def space(self, network: NetworkId, subnet: Subnet) -> Space:
        """The space of a subnet."""
        return self._spaces[network][subnet.prefix]

    def space_of(self, network: NetworkId, address: str) -> Space:
        """The space that an address of the network is in."""
        number, family = address_number(address), 6 if ":" in address else 4
        spaces = self._spaces[network].values()
        return next(space for space in spaces if space.prefix.family == family and number in space.prefix)

    def holder(self, network: NetworkId, address: str) -> EndpointId | None:
        """The endpoint that holds an address."""
        return self._holders.get(network, {}).get(address)

    def mac_holder(self, network: NetworkId, mac: str) -> EndpointId | None:
        """The endpoint that has a MAC."""
        return self._macs.get(network, {}).get(mac)

    def usage(self, network: Network) -> list[SubnetUsage]:
        """How full each subnet is."""
        counts = [self.space(network.id, subnet).usage() for subnet in network.subnets]
        return [
            SubnetUsage(prefix=one.prefix, size=one.size, used=one.used, reserved=one.reserved, free=one.free)
            for one in counts
        ]

    def holders_in(self, network: NetworkId, prefix: str) -> Iterator[EndpointId]:
        """Who holds the addresses of a subnet, an endpoint once for each."""
        parsed = parse_prefix(prefix)
        for address, holder in self._holders.get(network, {}).items():
            if (":" in address) == (parsed.family == 6) and address_number(address) in parsed:
                yield holder

    def allocations(self, network: NetworkId) -> Iterator[Allocation]:
        """Every address that is held, IPv4 first, ascending."""
        held = {address: (Holder.ENDPOINT, str(id_)) for address, id_ in self._holders.get(network, {}).items()}
        for subnet in self._networks[network].subnets:
            held[subnet.gateway] = (Holder.GATEWAY, network)
            held.update(dict.fromkeys(subnet.reserved, (Holder.RESERVATION, network)))
        for address in sorted(held, key=lambda text: (":" in text, address_bytes(text))):
            holder, holder_id = held[address]
            yield Allocation(network=network, address=address, holder=holder, holder_id=holder_id)


def full_subnet(error: HawseError, hosts: Iterable[str]) -> HawseError:
    """An EXHAUSTED error of a space, and by whom its addresses are held. `hosts`: a name for each address."""
    counts = collections.Counter(hosts)
    top = counts.most_common(3)
    by_whom = ", ".join(f"{host} ({count})" for host, count in top)
    more = f" and {len(counts) - len(top)} more hosts" if len(counts) > len(top) else ""
    message = f"{error.message}; held by endpoints on {by_whom}{more}" if top else error.message
    return HawseError(Kind.EXHAUSTED, message, hint=error.hint, facts={**error.facts, "holders": dict(top)})
