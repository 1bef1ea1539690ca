"""The plan of an attachment: one transaction that holds everything, or a sentence why not."""

from __future__ import annotations

import dataclasses

import msgspec

from sdn.controller import keys
from sdn.controller.addresses import full_subnet
from sdn.controller.labels import parse_labels
from sdn.controller.plan import Draft, Plan, nothing
from sdn.controller.plan_release import release
from sdn.controller.references import DEFAULT_TENANT
from sdn.controller.state import State
from sdn.controller.underlay import check_carries
from sdn.ipam.mac import default_mac
from sdn.model.address import address_number, family_of, format_address, parse_address, parse_mac, parse_prefix
from sdn.model.errors import HawseError, Kind, conflict, exhausted, invalid
from sdn.model.ids import EndpointId, parse_name
from sdn.model.resources import (
    ENDPOINTS_PER_NETWORK_AND_HOST_MAX,
    Allocation,
    Endpoint,
    Holder,
    Host,
    Network,
    Subnet,
)
from sdn.model.stream import AttachRequest

CONTAINER_CHARACTERS_MAX = 128
IFNAME_CHARACTERS_MAX = 15
ALIASES_MAX = 16
MAC_SALTS_MAX = 64
"""Default MACs that are tried; a network in which all of these are taken has been arranged so."""


@dataclasses.dataclass(frozen=True, slots=True)
class Attachment:
    """What an agent asks for, checked and canonical."""

    key: tuple[str, str]
    """(container, interface name)."""
    sandbox: int
    network: str
    addresses: tuple[str, ...]
    mac: str
    name: str
    aliases: tuple[str, ...]
    labels: dict[str, str]
    client: str
    scope: str

    @classmethod
    def parse(cls, request: AttachRequest) -> Attachment:
        """Raises: INVALID."""
        _check_text("container id", request.container, CONTAINER_CHARACTERS_MAX)
        _check_text("interface name", request.ifname, IFNAME_CHARACTERS_MAX)
        if len(request.aliases) > ALIASES_MAX:
            raise invalid(f"{len(request.aliases)} aliases are too many", f"use at most {ALIASES_MAX}")
        return cls(
            key=(request.container, request.ifname),
            sandbox=request.sandbox,
            network=request.network,
            addresses=tuple(map(parse_address, request.addresses)),
            mac=parse_mac(request.mac) if request.mac else "",
            name=parse_name(request.name, "endpoint") if request.name else "",
            aliases=tuple(parse_name(alias, "endpoint") for alias in request.aliases),
            labels=parse_labels(request.labels),
            client=request.client,
            scope=request.scope,
        )


def attach(state: State, host: Host, wished: Attachment, id_: EndpointId, actor: str) -> Plan[Endpoint]:
    """The endpoint that exists, or a new one, in the place of what is left of an earlier container.

    Raises: NOT_FOUND (network); CONFLICT (key, another wish for the same key, address, MAC, name, MTU, a drained host);
    EXHAUSTED (subnet, endpoints); INVALID.
    """
    network = state.resolve_network(wished.network)
    older = _older(state, host, wished, network)
    if older and older.sandbox == wished.sandbox and older.incarnation == host.incarnation:
        _check_same(wished, older)
        return nothing(older, state.revision_of("endpoint", older.id))
    _check_drained(host)
    _check_room(state, host, network, older)
    addresses = _choose_addresses(state, network, wished.addresses, older)
    endpoint = Endpoint(
        id=id_,
        host=host.id,
        incarnation=host.incarnation,
        sandbox=wished.sandbox,
        container=wished.key[0],
        ifname=wished.key[1],
        tenant=network.tenant,
        network=network.id,
        mac=_choose_mac(state, network, wished.mac, addresses, older),
        addresses=addresses,
        name=_free_name(state, network, wished.name, older),
        aliases=wished.aliases,
        labels=wished.labels,
        client=wished.client,
        scope=wished.scope,
    )
    draft = Draft(state, actor)
    if older:
        release(draft, state, older, "replaced: the container was made again")
    _write(draft, state, endpoint, network, host)
    return draft.plan(endpoint)


def _older(state: State, host: Host, wished: Attachment, network: Network) -> Endpoint | None:
    known = state.attachments.get((host.id, *wished.key))
    if known is None:
        return None
    older = state.endpoints[known]
    if older.network != network.id:
        container, ifname = wished.key
        other = _reference(state, state.networks[older.network])
        raise conflict(
            f"interface {ifname} of container {container} is attached to network {other}, "
            f"not {_reference(state, network)}",
            "detach it first, or use another interface name",
            endpoint=older.id,
            network=other,
        )
    return older


def _reference(state: State, network: Network) -> str:
    tenant = state.tenants[network.tenant].name
    return network.name if tenant == DEFAULT_TENANT else f"{tenant}/{network.name}"


def _check_same(wished: Attachment, older: Endpoint) -> None:
    """Who asks again with another wish must not believe that it was granted. Raises: CONFLICT."""
    has = {interface.partition("/")[0] for interface in older.addresses}
    wishes = [address for address in wished.addresses if address not in has]
    wishes += [wish for wish, is_ in ((wished.mac, older.mac), (wished.name, older.name)) if wish and wish != is_]
    if wishes:
        container, ifname = wished.key
        is_so = [*older.addresses, older.mac, *([older.name] if older.name else [])]
        raise conflict(
            f"interface {ifname} of container {container} is attached already, as {', '.join(is_so)}: "
            f"it cannot become {', '.join(wishes)}",
            "detach it first, or use another interface name",
            endpoint=older.id,
            wishes=wishes,
        )


def _check_drained(host: Host) -> None:
    if host.drained_by:
        raise conflict(
            f"host {host.name} takes no further attachments: {host.drained_by} drains it",
            f"use another host; to end this: hawse host drain {host.name} --undo",
            host=host.name,
            drained_by=host.drained_by,
        )


def _check_room(state: State, host: Host, network: Network, older: Endpoint | None) -> None:
    check_carries(host, network)
    count = state.count(network.id, host.id) - (1 if older else 0)
    if count >= ENDPOINTS_PER_NETWORK_AND_HOST_MAX:
        raise exhausted(
            f"host {host.name} has {count} endpoints in network {network.name}, which is as many as a bridge takes",
            "use another host, or a further network",
            endpoints=count,
            limit=ENDPOINTS_PER_NETWORK_AND_HOST_MAX,
        )


# --- addresses ---


def _choose_addresses(
    state: State, network: Network, wishes: tuple[str, ...], older: Endpoint | None
) -> tuple[str, ...]:
    """For each family the wishes, or else an address of the first subnet with room; in the order of the subnets."""
    given = _place_wishes(state, network, wishes, older)
    chosen: dict[str, str] = dict(given)
    for family in (4, 6):
        subnets = [subnet for subnet in network.subnets if family_of(subnet.prefix) == family]
        if subnets and not any(subnet.prefix in given for subnet in subnets):
            prefix, address = _first_with_room(state, network, subnets, older)
            chosen[prefix] = address
    ordered = [subnet.prefix for subnet in network.subnets if subnet.prefix in chosen]
    return tuple(f"{chosen[prefix]}/{prefix.partition('/')[2]}" for prefix in ordered)


def _place_wishes(state: State, network: Network, wishes: tuple[str, ...], older: Endpoint | None) -> dict[str, str]:
    placed: dict[str, str] = {}
    for address in wishes:
        subnet = _subnet_of(network, address)
        if subnet.prefix in placed:
            raise invalid(
                f"{placed[subnet.prefix]} and {address} are both of the subnet {subnet.prefix}",
                "ask for one address per subnet",
                prefix=subnet.prefix,
            )
        holder = state.addresses.holder(network.id, address)
        if holder is not None and (older is None or holder != older.id):
            raise _taken(state, network, f"the address {address}", holder, address=address)
        if holder is None:
            state.addresses.space(network.id, subnet).check(address_number(address))
        placed[subnet.prefix] = address
    return placed


def _subnet_of(network: Network, address: str) -> Subnet:
    number, family = address_number(address), family_of(address)
    for subnet in network.subnets:
        prefix = parse_prefix(subnet.prefix)
        if prefix.family == family and number in prefix:
            return subnet
    prefixes = [subnet.prefix for subnet in network.subnets]
    raise invalid(
        f"the address {address} is outside of network {network.name}, which has {', '.join(prefixes)}",
        "choose an address of one of its subnets, or leave the choice to Hawse",
        address=address,
        subnets=prefixes,
    )


def _first_with_room(state: State, network: Network, subnets: list[Subnet], older: Endpoint | None) -> tuple[str, str]:
    refused: HawseError | None = None
    for subnet in subnets:
        space = state.addresses.space(network.id, subnet)
        try:
            return subnet.prefix, format_address(space.prefix.family, space.peek())
        except HawseError as error:
            if error.kind is not Kind.EXHAUSTED:
                raise
            refused = refused or error
    for interface in older.addresses if older else ():
        address = interface.partition("/")[0]  # full, but for what the container had before
        subnet = _subnet_of(network, address)
        if subnet in subnets:
            return subnet.prefix, address
    assert refused is not None
    holders = state.addresses.holders_in(network.id, subnets[0].prefix)
    raise full_subnet(refused, (state.hosts[state.endpoints[id_].host].name for id_ in holders))


def _taken(state: State, network: Network, what: str, holder: EndpointId, **facts: str) -> HawseError:
    endpoint = state.endpoints[holder]
    host = state.hosts[endpoint.host].name
    who = endpoint.name or f"{endpoint.container}:{endpoint.ifname}"
    return conflict(
        f"{what} of network {network.name} is taken by endpoint {who} on host {host}",
        "choose another one, or leave the choice to Hawse",
        holder=holder,
        holder_name=who,
        host=host,
        **facts,
    )


# --- MAC and name ---


def _choose_mac(state: State, network: Network, wish: str, addresses: tuple[str, ...], older: Endpoint | None) -> str:
    def free(mac: str) -> EndpointId | None:
        holder = state.addresses.mac_holder(network.id, mac)
        return None if older is not None and holder == older.id else holder

    if wish:
        if holder := free(wish):
            raise _taken(state, network, f"the MAC {wish}", holder, mac=wish)
        return wish
    plain = [interface.partition("/")[0] for interface in addresses]
    four = next((address for address in plain if family_of(address) == 4), None)
    six = next((address for address in plain if family_of(address) == 6), None)
    for salt in range(MAC_SALTS_MAX):
        mac = default_mac(network.id, four, six, salt)
        if free(mac) is None:
            return mac
    raise exhausted(f"no default MAC is free in network {network.name}", "ask for a MAC of your own")


def _free_name(state: State, network: Network, name: str, older: Endpoint | None) -> str:
    holder = state.names.endpoints.get(name, {}).get(network.tenant) if name else None
    if holder is not None and (older is None or holder != older.id):
        endpoint = state.endpoints[holder]
        raise conflict(
            f"tenant {state.tenants[network.tenant].name} has an endpoint {name} already, "
            f"on host {state.hosts[endpoint.host].name}",
            "choose another name",
            name=name,
            holder=holder,
        )
    return name


def _check_text(what: str, text: str, characters_max: int) -> None:
    if (
        not text
        or len(text) > characters_max
        or not text.isprintable()
        or "/" in text
        or " " in text
        or text in (".", "..")
    ):
        raise invalid(
            f"{text[:characters_max]!r} is not a usable {what}",
            f"use 1 to {characters_max} characters without blanks and slashes",
        )


# --- the transaction ---


def _write(draft: Draft, state: State, endpoint: Endpoint, network: Network, host: Host) -> None:
    draft.unchanged("network", network.id)
    draft.unchanged("host", host.id)
    draft.create(keys.endpoint(endpoint.id), endpoint)
    draft.create(keys.attachment(host.id, endpoint.container, endpoint.ifname), endpoint.id)
    if host.id in state.switches:
        draft.create(keys.port(host.id, endpoint.ifname), endpoint.id)
    draft.create(keys.mac(network.id, endpoint.mac), endpoint.id)
    for interface in endpoint.addresses:
        address = interface.partition("/")[0]
        allocation = Allocation(network=network.id, address=address, holder=Holder.ENDPOINT, holder_id=endpoint.id)
        draft.create(keys.allocation(network.id, address), allocation)
    if endpoint.name:
        draft.create(keys.endpoint_name(network.tenant, endpoint.name), endpoint.id)
    record = state.vnis[network.vni]
    if host.id not in record.hosts:
        draft.unchanged("vni", str(network.vni))
        draft.put(keys.vni(network.vni), msgspec.structs.replace(record, hosts=(*record.hosts, host.id)))
    draft.happen(
        "endpoint.attached",
        id=endpoint.id,
        name=endpoint.name,
        tenant=network.tenant,
        tenant_name=state.tenants[network.tenant].name,
        network=network.id,
        network_name=network.name,
        host=host.id,
        host_name=host.name,
        container=endpoint.container,
        ifname=endpoint.ifname,
        mac=endpoint.mac,
        addresses=endpoint.addresses,
    )
