"""`/v1/hosts`."""

from __future__ import annotations

import msgspec

from sdn.controller.query import LABEL, PAGE, Parameter
from sdn.controller.route import Call, Reply, Route
from sdn.controller.specs import HostSpec
from sdn.controller.status import HostState
from sdn.controller.view import HostView, Page, has_labels, host_view, page_of
from sdn.model.resources import Host


class Credential(msgspec.Struct, frozen=True, kw_only=True):
    """What a host needs to connect. `secret` is shown this once.

    `authority`: certificates in PEM that the controllers' are verified by; `fingerprint`: SHA-256 of the newest.
    """

    host: str
    name: str
    secret: str
    authority: str
    fingerprint: str
    controllers: tuple[str, ...]


async def list_hosts(call: Call) -> Reply:
    """Every host."""
    labels, states = call.query.labels(), _states(call)
    found = [host for host in call.core.state.hosts.values() if has_labels(host.labels, labels)]
    return Reply(page_of(call.core, call.query, found, lambda host: host_view(call.core, host, states.get(host.id))))


async def create_host(call: Call) -> Reply:
    """A new one, not connected yet."""
    host, revision = await call.core.create_host(call.body.name, call.body.labels, call.actor)
    return Reply(host_view(call.core, host, None), 201, revision)


async def get_host(call: Call) -> Reply:
    """One."""
    host = call.core.state.resolve_host(call.reference)
    view = host_view(call.core, host, _states(call).get(host.id))
    return Reply(view, etag=call.core.state.revision_of("host", host.id))


async def forget_host(call: Call) -> Reply:
    """Release its endpoints, then remove it."""
    _, revision = await call.core.forget_host(call.reference, call.query.flag("force", False), call.actor)
    return Reply(None, 204, revision)


async def mint_credential(call: Call) -> Reply:
    """A new secret, which voids the one before."""
    host = call.core.state.resolve_host(call.reference)
    secret = await call.core.mint_credential(host.id, call.actor)
    return Reply(credential_of(call, host, secret), 201, call.core.revision)


async def drain_host(call: Call) -> Reply:
    """No further attachments on it."""
    return await _drain(call, undo=False)


async def undrain_host(call: Call) -> Reply:
    """Attachments again."""
    return await _drain(call, undo=True)


async def _drain(call: Call, undo: bool) -> Reply:
    host, revision = await call.core.drain_host(call.reference, undo, call.actor)
    return Reply(host_view(call.core, host, _states(call).get(host.id)), 200, revision)


def credential_of(call: Call, host: Host, secret: str) -> Credential:
    """What a host is told, this once."""
    return Credential(
        host=host.id,
        name=host.name,
        secret=secret,
        authority=call.edge.authority,
        fingerprint=call.edge.fingerprint,
        controllers=call.edge.controllers,
    )


def _states(call: Call) -> dict[str, HostState]:
    return {state.id: state for state in call.core.status().hosts}


FORCE = Parameter("force", "1: even while it is connected", {"type": "integer", "enum": [0, 1]})
ONE = "/v1/hosts/{reference}"
ROUTES = (
    Route("GET", "/v1/hosts", list_hosts, "list hosts and how far they are", Page[HostView], query=(LABEL, *PAGE)),
    Route("POST", "/v1/hosts", create_host, "make a host that may join", HostView, HostSpec, statuses=(201,)),
    Route("GET", ONE, get_host, "show a host", HostView),
    Route("DELETE", ONE, forget_host, "forget a host, with its endpoints", query=(FORCE,), statuses=(204,)),
    Route("POST", f"{ONE}/credential", mint_credential, "give a host a new secret", Credential, statuses=(201,)),
    Route("PUT", f"{ONE}/drain", drain_host, "take no further attachments on a host", HostView),
    Route("DELETE", f"{ONE}/drain", undrain_host, "take attachments on a host again", HostView),
)
