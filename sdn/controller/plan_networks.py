"""Plans for networks: creation, change, removal, and the VNIs that are held back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from sdn.controller import keys
from sdn.controller.inside import InsideError
from sdn.controller.labels import parse_labels
from sdn.controller.options import Options
from sdn.controller.plan import Draft, Plan, check_match, different, nothing
from sdn.controller.plan_subnets import automatic_subnets, check_subnets, subnet_difference, validate
from sdn.controller.specs import NetworkSpec, SubnetSpec
from sdn.controller.state import State
from sdn.controller.underlay import check_mtu, default_mtu
from sdn.ipam.vni import VniSource
from sdn.model.errors import HawseError, conflict, exhausted
from sdn.model.ids import HostId, NetworkId, Revision, parse_name
from sdn.model.resources import Network, Subnet, Tenant

NAMED_MAX = 5
"""How many names a sentence lists."""
VNIS_RELEASED_MAX = 40
"""Two operations each: a transaction's worth."""


def create_network(
    state: State, spec: NetworkSpec, tenant: Tenant, id_: NetworkId, options: Options, actor: str
) -> Plan[Network]:
    """Raises: INVALID; CONFLICT (name, overlap); EXHAUSTED (pools, VNIs)."""
    name = parse_name(spec.name, "network")
    if (tenant.id, name) in state.names.networks:
        raise conflict(f"tenant {tenant.name} has a network {name} already", "choose another name", name=name)
    subnets = tuple(map(validate, spec.subnets)) or automatic_subnets(state, tenant, spec, options)
    check_subnets(state, tenant, subnets)
    mtu_bytes = default_mtu(state) if spec.mtu_bytes is None else check_mtu(state, spec.mtu_bytes, name)
    vni = _next_vni(state, options)
    network = Network(
        id=id_,
        tenant=tenant.id,
        name=name,
        vni=vni,
        subnets=subnets,
        mtu_bytes=mtu_bytes,
        labels=parse_labels(spec.labels),
    )
    draft = Draft(state, actor)
    draft.unchanged("tenant", tenant.id)
    draft.create(keys.network(id_), network)
    draft.create(keys.network_name(tenant.id, name), id_)
    draft.create(keys.vni(vni), keys.VniRecord(network=id_))
    draft.put(keys.VNI_CURSOR, vni)
    _touch_subnets(draft, tenant.id)
    draft.happen("network.created", **_facts(state, network), subnets=[subnet.prefix for subnet in subnets])
    return draft.plan(network)


def put_network(
    state: State, network: Network, spec: NetworkSpec, if_match: Revision | None, actor: str
) -> Plan[Network]:
    """Equal: nothing. Different: with `if_match` labels are replaced and subnets added, without it a CONFLICT."""
    revision = state.revision_of("network", network.id)
    what = f"network {network.name}"
    check_match(what, if_match, revision)
    wanted = tuple(map(validate, spec.subnets))
    labels = parse_labels(spec.labels)
    difference: dict[str, Any] = subnet_difference(network, wanted, spec)
    if spec.mtu_bytes is not None and spec.mtu_bytes != network.mtu_bytes:
        difference["mtu_bytes"] = {"have": network.mtu_bytes, "want": spec.mtu_bytes}
    changeable: dict[str, Any] = {}
    if labels != network.labels:
        changeable["labels"] = {"have": network.labels, "want": labels}
    have = {subnet.prefix for subnet in network.subnets}
    added = tuple(subnet for subnet in wanted if subnet.prefix not in have)
    if added:
        changeable["subnets"] = {"have": sorted(have), "want": [subnet.prefix for subnet in wanted]}
    if not difference and not changeable:
        return nothing(network, revision)
    if if_match is None:
        hint = f"labels and more subnets: send If-Match: {revision}; for the rest make another network"
        raise different(what, changeable | difference, hint)
    if difference:
        raise different(what, difference, "this cannot be changed while the network lives: make another network")
    return _change(state, network, added, labels, actor)


def add_subnet(state: State, network: Network, spec: SubnetSpec, actor: str) -> Plan[Network]:
    """Raises: INVALID; CONFLICT (overlap). The same subnet again changes nothing."""
    subnet = validate(spec)
    if subnet in network.subnets:
        return nothing(network, state.revision_of("network", network.id))
    return _change(state, network, (subnet,), network.labels, actor)


def _change(
    state: State, network: Network, added: tuple[Subnet, ...], labels: dict[str, str], actor: str
) -> Plan[Network]:
    draft = Draft(state, actor)
    draft.unchanged("network", network.id)
    if added:
        check_subnets(state, state.tenants[network.tenant], added, network)
        _touch_subnets(draft, network.tenant)
    changed = msgspec.structs.replace(network, subnets=network.subnets + added, labels=labels)
    draft.put(keys.network(network.id), changed)
    draft.happen("network.updated", **_facts(state, network), subnets=[subnet.prefix for subnet in added])
    return draft.plan(changed)


def delete_network(state: State, network: Network, actor: str) -> Plan[Network]:
    """Raises: CONFLICT while it has endpoints. Its VNI is held back; see keys.VniRecord."""
    endpoints = list(state.endpoints_of(network.id))
    if endpoints:
        names = [endpoint.name or f"{endpoint.container}:{endpoint.ifname}" for endpoint in endpoints]
        more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
        raise conflict(
            f"network {network.name} has {len(names)} endpoint{'' if len(names) == 1 else 's'}: "
            f"{', '.join(names[:NAMED_MAX])}{more}",
            "detach them first",
            endpoints=names[:100],
            count=len(names),
        )
    draft = Draft(state, actor)
    draft.unchanged("network", network.id)
    draft.unchanged("vni", str(network.vni))  # a host that another controller adds meanwhile is in this record
    draft.delete(keys.network(network.id))
    draft.delete(keys.network_name(network.tenant, network.name))
    record = state.vnis[network.vni]
    if any(host in state.hosts for host in record.hosts):
        draft.put(keys.vni(network.vni), msgspec.structs.replace(record, removed=True))
    else:
        draft.delete(keys.vni(network.vni))
    _touch_subnets(draft, network.tenant)
    draft.happen("network.removed", **_facts(state, network))
    return draft.plan(network)


def release_vnis(state: State, removed: Callable[[HostId, NetworkId, Revision], bool], actor: str) -> Plan[int]:
    """Free the VNIs of networks that each host that had them has removed, or was forgotten; how many.

    `removed`: whether a host has removed a network, which went at that revision.
    """
    draft = Draft(state, actor)
    freed = 0
    for vni in sorted(state.held):
        gone, record = state.revision_of("vni", str(vni)), state.vnis[vni]
        waiting = any(host in state.hosts and not removed(host, record.network, gone) for host in record.hosts)
        if not waiting and freed < VNIS_RELEASED_MAX:
            draft.unchanged("vni", str(vni))
            draft.delete(keys.vni(vni))
            freed += 1
    return draft.plan(freed) if freed else nothing(0, state.revision)


def _next_vni(state: State, options: Options) -> int:
    taken = state.vnis.keys() - state.held
    latest = state.vni_cursor or None
    source = VniSource(options.vni_first, options.vni_last, latest=latest, taken=taken, held=state.held)
    try:
        return source.take()
    except HawseError as error:
        outside = exhausted("no more networks can be made now", "ask the administrators: they see why")
        raise InsideError(error, outside) from None


def _touch_subnets(draft: Draft, tenant: str) -> None:
    """Two networks that are made at the same time by two controllers must not overlap unseen."""
    draft.unchanged("subnets", tenant)
    draft.put(f"subnets/{tenant}", None)


def _facts(state: State, network: Network) -> dict[str, object]:
    return {
        "id": network.id,
        "name": network.name,
        "tenant": network.tenant,
        "tenant_name": state.tenants[network.tenant].name,
        "vni": network.vni,
    }
