"""The plan of a join: the token is used up, the host exists, its credential is good; or nothing of it."""

from __future__ import annotations

import msgspec

from sdn.controller import keys, plan_tokens
from sdn.controller.labels import parse_labels
from sdn.controller.plan import Draft, Plan
from sdn.controller.plan_hosts import parse_vteps, parse_word, secret_record
from sdn.controller.specs import JoinSpec
from sdn.controller.state import State
from sdn.model.errors import conflict
from sdn.model.ids import HostId, parse_name
from sdn.model.resources import Host
from sdn.model.token import Token


def join(
    state: State, spec: JoinSpec, token: Token, id_: HostId, secret: str, now_s: float, fingerprint: str
) -> Plan[Host]:
    """A new host by a join token.

    Raises: UnprovenError, DENIED (see plan_tokens.prove); INVALID; CONFLICT where the name or a VTEP is another host's.
    """
    record = plan_tokens.prove(state, token, now_s, fingerprint)
    host = _host(spec, id_)
    check_alone(state, host)
    draft = Draft(state, plan_tokens.actor_of_token(record))
    draft.create(keys.host(id_), host)
    draft.create(keys.host_name(host.name), id_)
    draft.create(keys.credential(id_), msgspec.Raw(secret_record(secret)))
    plan_tokens.use_token(draft, record, id_, host.name, now_s)
    draft.happen("host.created", id=id_, name=host.name, vtep4=host.vtep4, vtep6=host.vtep6)
    return draft.plan(host)


def _host(spec: JoinSpec, id_: HostId) -> Host:
    vtep4, vtep6 = parse_vteps(spec.vtep4, spec.vtep6)
    return Host(
        id=id_,
        name=parse_name(spec.name, "host"),
        labels=parse_labels(spec.labels),
        vtep4=vtep4,
        vtep6=vtep6,
        version=parse_word(spec.version, "a version"),
    )


def check_alone(state: State, host: Host, *, by_itself: bool = True) -> None:
    """Raises: CONFLICT where another host has the name or a VTEP of this new one; both are named.

    `by_itself`: it joins, and is not a switch that somebody adds.
    """
    who, comes, otherwise = ("host", "joins", "with --name") if by_itself else ("switch", "is added", "name")
    same = state.names.hosts.get(host.name)
    if same is not None:
        raise conflict(
            f"the {who} that {comes} as {described(host)} finds {described(state.hosts[same])} here already: "
            "two hosts cannot have one name",
            f"choose another {otherwise}; {_removal(state, state.hosts[same])}",
            name=host.name,
            hosts=[host.name, host.name],
            host=same,
        )
    for other in state.hosts.values():
        for vtep, theirs in ((host.vtep4, other.vtep4), (host.vtep6, other.vtep6)):
            if vtep is not None and vtep == theirs:
                raise conflict(
                    f"{who} {host.name} {comes} with the VTEP {vtep}, which is the VTEP of {_kind(state, other)} "
                    f"{other.name}",
                    f"give each its own underlay address, or name another with --vtep; {_removal(state, other)}",
                    vtep=vtep,
                    hosts=[host.name, other.name],
                )


def _kind(state: State, host: Host) -> str:
    return "switch" if host.id in state.switches else "host"


def _removal(state: State, host: Host) -> str:
    """What to type to be rid of one that is not there any more."""
    kind = _kind(state, host)
    return f"if that {kind} is gone: hawse {'switch rm' if kind == 'switch' else 'host forget'} {host.name}"


def described(host: Host) -> str:
    """A host as it is told apart from another one: `h1 (192.0.2.1)`."""
    vteps = [vtep for vtep in (host.vtep4, host.vtep6) if vtep]
    return f"{host.name} ({', '.join(vteps) or f'id {host.id}'})"
