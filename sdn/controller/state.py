"""The decoded copy of the store: one per controller, kept by applying each transaction's writes.

Loading the records and applying the same writes one by one give equal states; there is no other way in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

import msgspec

from sdn.controller import keys
from sdn.controller.addresses import AddressBook, SubnetUsage
from sdn.controller.effects import Effects, Topic
from sdn.controller.references import Names
from sdn.model.ids import EndpointId, HostId, NetworkId, Revision, TenantId
from sdn.model.resources import Allocation, Endpoint, Host, Network, Switch, Tenant
from sdn.store.interface import Delete, Put, Record

_tenant = msgspec.msgpack.Decoder(Tenant).decode
_network = msgspec.msgpack.Decoder(Network).decode
_host = msgspec.msgpack.Decoder(Host).decode
_switch = msgspec.msgpack.Decoder(Switch).decode
_endpoint = msgspec.msgpack.Decoder(Endpoint).decode
_vni = msgspec.msgpack.Decoder(keys.VniRecord).decode
_trust = msgspec.msgpack.Decoder(keys.HostTrust).decode
_token = msgspec.msgpack.Decoder(keys.TokenRecord).decode
_number = msgspec.msgpack.Decoder(int).decode

K = TypeVar("K")
V = TypeVar("V")
SHARED_FIELDS = ("host", "incarnation", "container", "ifname", "tenant", "network", "client", "scope")
"""Of an endpoint: texts that many have in common are kept once. What is decoded is new text each time."""


class State:
    """All resources by id, and the indexes that the plans and topics need. Only `apply` and `load` change it."""

    def __init__(self) -> None:
        self.revision = Revision(0)
        self.tenants: dict[TenantId, Tenant] = {}
        self.networks: dict[NetworkId, Network] = {}
        self.hosts: dict[HostId, Host] = {}
        self.switches: dict[HostId, Switch] = {}
        """Hosts that are switches without an agent."""
        self.datapaths: dict[str, HostId] = {}
        """By datapath id."""
        self.endpoints: dict[EndpointId, Endpoint] = {}
        self.vnis: dict[int, keys.VniRecord] = {}
        self.vni_cursor = 0
        self.credentials: dict[HostId, bytes] = {}
        self.trusts: dict[HostId, keys.HostTrust] = {}
        self.forgetting: set[HostId] = set()
        self.tokens: dict[str, keys.TokenRecord] = {}
        self.addresses = AddressBook()
        self.names = Names()
        self.held: set[int] = set()
        """VNIs of removed networks, held back."""
        self.attachments: dict[tuple[HostId, str, str], EndpointId] = {}
        self.bound: dict[tuple[HostId, str], EndpointId] = {}
        """What is bound to the ports of switches."""
        self._revisions: dict[str, dict[str, Revision]] = {}
        self._holds: dict[HostId, dict[Topic, int]] = {}
        self._holders: dict[Topic, set[HostId]] = {}
        self._by_network: dict[NetworkId, set[EndpointId]] = {}
        self._by_host: dict[HostId, set[EndpointId]] = {}
        self._shared: dict[str, str] = {}

    # --- in ---

    @classmethod
    def load(cls, records: Iterable[Record], revision: Revision) -> State:
        """The state of these records (in any order of keys, endpoints after networks and switches)."""
        state = cls()
        effects = Effects()
        for record in records:
            state._put(record.key, record.value, record.modified, effects)
        state.revision = revision
        state.addresses.seek(
            sorted(state.endpoints.values(), key=lambda endpoint: state.revision_of("endpoint", endpoint.id))
        )
        return state

    def apply(self, writes: Iterable[Put | Delete], revision: Revision) -> Effects:
        """Take in what a transaction wrote at `revision`."""
        effects = Effects()
        for write in writes:
            if isinstance(write, Put):
                self._put(write.key, write.value, revision, effects)
            else:
                self._delete(write.key, effects)
        self.revision = revision
        return effects

    def _put(self, key: str, value: bytes, revision: Revision, effects: Effects) -> None:
        kind, _, rest = key.partition("/")
        match kind:
            case "tenant":
                self._put_tenant(_tenant(value))
                effects.tenants[TenantId(rest)] = value
            case "network":
                self._put_network(_network(value))
                effects.networks[NetworkId(rest)] = value
            case "host":
                host = _host(value)
                effects.hosts[host.id] = (self.hosts.get(host.id), value)
                self.hosts[host.id] = host
                self.names.hosts[host.name] = host.id
            case "endpoint":
                endpoint = self._put_endpoint(_endpoint(value), effects)
                effects.endpoints[endpoint.id] = value
                rest = endpoint.id
            case "vni":
                self._put_vni(int(rest), _vni(value))
            case "switch" | "credential" | "trust" | "forget" | "token":
                self._put_beside(kind, rest, value)
            case "cursor":
                self.vni_cursor = _number(value)
            case "subnets":
                pass
            case _:  # indexes: what they say is known
                return
        self._revisions.setdefault(kind, {})[rest] = revision

    def _put_beside(self, kind: str, rest: str, value: bytes) -> None:
        """What is kept beside the resources, or tells more of a host."""
        match kind:
            case "switch":
                switch = self.switches[HostId(rest)] = _switch(value)
                self.datapaths[switch.datapath_id] = switch.host
            case "credential":
                self.credentials[HostId(rest)] = value
            case "trust":
                self.trusts[HostId(rest)] = _trust(value)
            case "forget":
                self.forgetting.add(HostId(rest))
            case "token":
                self.tokens[rest] = _token(value)

    def _delete(self, key: str, effects: Effects) -> None:
        kind, _, rest = key.partition("/")
        match kind:
            case "tenant":
                if tenant := self.tenants.pop(TenantId(rest), None):
                    self.names.tenants.pop(tenant.name, None)
            case "network":
                if network := self.networks.pop(NetworkId(rest), None):
                    self.names.networks.pop((network.tenant, network.name), None)
                    self.addresses.remove_network(network)
                    effects.networks_gone.append(network)
            case "host":
                if host := self.hosts.pop(HostId(rest), None):
                    self.names.hosts.pop(host.name, None)
                    effects.hosts_gone.append(host.id)
            case "endpoint":
                if endpoint := self.endpoints.pop(EndpointId(rest), None):
                    self._delete_endpoint(endpoint, effects)
                    effects.endpoints_gone.append(endpoint)
            case "vni":
                self.vnis.pop(int(rest), None)
                self.held.discard(int(rest))
            case "switch" | "credential" | "trust" | "forget" | "token":
                self._delete_beside(kind, rest)
            case _:
                return
        self._revisions.get(kind, {}).pop(rest, None)

    def _delete_beside(self, kind: str, rest: str) -> None:
        match kind:
            case "switch":
                if switch := self.switches.pop(HostId(rest), None):
                    self.datapaths.pop(switch.datapath_id, None)
            case "credential":
                self.credentials.pop(HostId(rest), None)
            case "trust":
                self.trusts.pop(HostId(rest), None)
            case "forget":
                self.forgetting.discard(HostId(rest))
            case "token":
                self.tokens.pop(rest, None)

    def _put_tenant(self, tenant: Tenant) -> None:
        self.tenants[tenant.id] = tenant
        self.names.tenants[tenant.name] = tenant.id

    def _put_network(self, network: Network) -> None:
        self.networks[network.id] = network
        self.names.networks[(network.tenant, network.name)] = network.id
        self.addresses.put_network(network)

    def _put_vni(self, number: int, record: keys.VniRecord) -> None:
        self.vnis[number] = record
        if record.removed:
            self.held.add(number)

    def _put_endpoint(self, endpoint: Endpoint, effects: Effects) -> Endpoint:
        for field in SHARED_FIELDS:  # sharing text changes no value, so the endpoint is as frozen as before
            text = getattr(endpoint, field)
            msgspec.structs.force_setattr(endpoint, field, self._shared.setdefault(text, text))
        known = endpoint.id in self.endpoints
        self.endpoints[endpoint.id] = endpoint
        if known:  # neither its host nor its network nor its addresses ever change
            return endpoint
        self.attachments[(endpoint.host, endpoint.container, endpoint.ifname)] = endpoint.id
        if endpoint.host in self.switches:
            self.bound[endpoint.host, endpoint.ifname] = endpoint.id
        if endpoint.name:
            self.names.endpoints.setdefault(endpoint.name, {})[endpoint.tenant] = endpoint.id
        self._by_network.setdefault(endpoint.network, set()).add(endpoint.id)
        self._by_host.setdefault(endpoint.host, set()).add(endpoint.id)
        self.addresses.put_endpoint(endpoint)
        for topic in (f"network/{endpoint.network}", f"tenant/{endpoint.tenant}"):
            holds = self._holds.setdefault(endpoint.host, {})
            holds[topic] = holds.get(topic, 0) + 1
            if holds[topic] == 1:
                self._holders.setdefault(topic, set()).add(endpoint.host)
                effects.gain(topic, endpoint.host)
        return endpoint

    def _delete_endpoint(self, endpoint: Endpoint, effects: Effects) -> None:
        key = (endpoint.host, endpoint.container, endpoint.ifname)
        if self.attachments.get(key) == endpoint.id:  # its replacement may have been put before
            del self.attachments[key]
        if self.bound.get((endpoint.host, endpoint.ifname)) == endpoint.id:
            del self.bound[endpoint.host, endpoint.ifname]
        if endpoint.name and self.names.endpoints.get(endpoint.name, {}).get(endpoint.tenant) == endpoint.id:
            _discard_inner(self.names.endpoints, endpoint.name, endpoint.tenant)
        _discard(self._by_network, endpoint.network, endpoint.id)
        _discard(self._by_host, endpoint.host, endpoint.id)
        self.addresses.remove_endpoint(endpoint)
        holds = self._holds[endpoint.host]
        for topic in (f"network/{endpoint.network}", f"tenant/{endpoint.tenant}"):
            holds[topic] -= 1
            if not holds[topic]:
                del holds[topic]
                _discard(self._holders, topic, endpoint.host)
                effects.lose(topic, endpoint.host)

    # --- out ---

    def revision_of(self, kind: str, id_: str) -> Revision:
        """The revision at which a resource was last modified; 0: it is not there.

        `kind`: tenant, network, host, switch, endpoint, vni, subnets, credential, trust, forget, token.
        """
        return self._revisions.get(kind, {}).get(id_, Revision(0))

    def topics_of(self, host: HostId) -> list[Topic]:
        """What the host holds: its own topic, and each tenant and network that it has endpoints of."""
        return [f"host/{host}", *sorted(self._holds.get(host, ()), reverse=True)] if host in self.hosts else []

    def holders_of(self, topic: Topic) -> set[HostId]:
        """The hosts that hold a topic. Do not change the set."""
        if topic.startswith("host/"):
            return {HostId(topic[5:])}
        return self._holders.get(topic, set())

    def tenant_of(self, topic: Topic) -> TenantId | None:
        """Whose a topic is; None: a host's, or a network's that is gone."""
        kind, _, id_ = topic.partition("/")
        if kind == "tenant":
            return TenantId(id_)
        network = self.networks.get(NetworkId(id_)) if kind == "network" else None
        return network.tenant if network is not None else None

    def networks_of(self, host: HostId) -> list[NetworkId]:
        """The networks that a host has endpoints of."""
        return [NetworkId(topic[8:]) for topic in self._holds.get(host, ()) if topic.startswith("network/")]

    def count(self, network: NetworkId, host: HostId) -> int:
        """How many endpoints of a network a host has."""
        return self._holds.get(host, {}).get(f"network/{network}", 0)

    def endpoints_of(self, network: NetworkId | None = None, host: HostId | None = None) -> Iterator[Endpoint]:
        """The endpoints of a network, of a host, or of both, oldest first; without either, all."""
        if network is not None:
            chosen: Iterable[EndpointId] = self._by_network.get(network, ())
        elif host is not None:
            chosen = self._by_host.get(host, ())
        else:
            chosen = self.endpoints
        for id_ in sorted(chosen):
            endpoint = self.endpoints[id_]
            if host is None or endpoint.host == host:
                yield endpoint

    def has_endpoints(self, network: NetworkId) -> bool:
        """Whether a network has any."""
        return network in self._by_network

    def allocations(self, network: NetworkId) -> Iterator[Allocation]:
        """Every address of a network that is held, in the order of addresses, IPv4 first."""
        return self.addresses.allocations(network)

    def resolve_tenant(self, reference: str, within: TenantId | None = None) -> Tenant:
        """By name or id; `within`: as `references` says. Raises: NOT_FOUND, with the nearest name."""
        return self.tenants[self.names.tenant(reference, self.tenants, within)]

    def resolve_network(self, reference: str, within: TenantId | None = None) -> Network:
        """By name (tenant `default`), `tenant/name` or id. Raises: NOT_FOUND, with the nearest name."""
        return self.networks[self.names.network(reference, self.networks, self.tenants, within)]

    def resolve_host(self, reference: str) -> Host:
        """By name or id. Raises: NOT_FOUND, with the nearest name."""
        return self.hosts[self.names.host(reference, self.hosts)]

    def resolve_endpoint(self, reference: str, within: TenantId | None = None) -> Endpoint:
        """By id, name or `tenant/name`. Raises: NOT_FOUND; CONFLICT when several tenants have the name."""
        return self.endpoints[self.names.endpoint(reference, self.endpoints, self.tenants, within)]


def _discard(index: dict[K, set[V]], key: K, member: V) -> None:
    members = index[key]
    members.remove(member)
    if not members:
        del index[key]


def _discard_inner(index: dict[str, dict[TenantId, EndpointId]], key: str, inner: TenantId) -> None:
    del index[key][inner]
    if not index[key]:
        del index[key]


__all__ = ["State", "SubnetUsage"]
