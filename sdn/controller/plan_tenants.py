"""Plans for tenants."""

from __future__ import annotations

from sdn.controller import keys
from sdn.controller.labels import parse_labels
from sdn.controller.plan import Draft, Plan, check_match, different, nothing
from sdn.controller.references import DEFAULT_TENANT
from sdn.controller.specs import TenantSpec
from sdn.controller.state import State
from sdn.model.errors import conflict
from sdn.model.ids import Revision, TenantId, parse_name
from sdn.model.resources import Tenant


def create_tenant(state: State, spec: TenantSpec, id_: TenantId, actor: str) -> Plan[Tenant]:
    """Raises: INVALID; CONFLICT when the name is taken."""
    name = parse_name(spec.name, "tenant")
    if name in state.names.tenants:
        raise conflict(f"there is a tenant {name} already", "choose another name", name=name)
    tenant = Tenant(id=id_, name=name, labels=parse_labels(spec.labels))
    draft = Draft(state, actor)
    draft.create(keys.tenant(id_), tenant)
    draft.create(keys.tenant_name(name), id_)
    draft.happen("tenant.created", id=id_, name=name)
    return draft.plan(tenant)


def update_tenant(
    state: State, tenant: Tenant, labels: dict[str, str], if_match: Revision | None, actor: str
) -> Plan[Tenant]:
    """Replace the labels. Without `if_match` only what is there already may be asked for."""
    revision = state.revision_of("tenant", tenant.id)
    check_match(f"tenant {tenant.name}", if_match, revision)
    wanted = parse_labels(labels)
    if wanted == tenant.labels:
        return nothing(tenant, revision)
    if if_match is None:
        difference = {"labels": {"have": tenant.labels, "want": wanted}}
        raise different(f"tenant {tenant.name}", difference, f"to replace them send If-Match: {revision}")
    changed = Tenant(id=tenant.id, name=tenant.name, labels=wanted)
    draft = Draft(state, actor)
    draft.unchanged("tenant", tenant.id)
    draft.put(keys.tenant(tenant.id), changed)
    draft.happen("tenant.updated", id=tenant.id, name=tenant.name)
    return draft.plan(changed)


def delete_tenant(state: State, tenant: Tenant, actor: str) -> Plan[Tenant]:
    """Raises: CONFLICT while it has networks, and for tenant `default`."""
    if tenant.name == DEFAULT_TENANT:
        raise conflict("tenant default cannot be removed", "it is where references without a tenant lead")
    networks = sorted(name for owner, name in state.names.networks if owner == tenant.id)
    if networks:
        raise conflict(
            f"tenant {tenant.name} has {len(networks)} network{'' if len(networks) == 1 else 's'}: "
            f"{', '.join(networks[:5])}{', …' if len(networks) > 5 else ''}",
            "remove them first",
            networks=networks[:100],
        )
    draft = Draft(state, actor)
    draft.unchanged("tenant", tenant.id)
    draft.unchanged("subnets", tenant.id)  # a network that another controller adds meanwhile touches it
    draft.delete(keys.tenant(tenant.id))
    draft.delete(keys.tenant_name(tenant.name))
    draft.delete(keys.subnets(tenant.id))
    draft.happen("tenant.removed", id=tenant.id, name=tenant.name)
    return draft.plan(tenant)
