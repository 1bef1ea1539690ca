"""Plans for hosts: creation, credential, hello, facts, draining, forgetting."""

from __future__ import annotations

import msgspec

from sdn.controller import keys
from sdn.controller.labels import parse_labels
from sdn.controller.plan import Draft, Plan, nothing
from sdn.controller.plan_credentials import note_kept, require_agent, secret_sha256
from sdn.controller.plan_release import release_some
from sdn.controller.state import State
from sdn.model.address import parse_address, parse_prefix
from sdn.model.codec import encode_msgpack
from sdn.model.errors import conflict, invalid
from sdn.model.ids import HostId, parse_name
from sdn.model.resources import Datapath, Endpoint, Host
from sdn.model.stream import Facts, Hello

ROUTES_MAX = 4096
"""A host that speaks BGP has far more; automatic subnets need not avoid each of those."""
UNDERLAY_MTU_MAX_BYTES = 65_535
WORD_CHARACTERS_MAX = 128
"""Of a host's version, and of its incarnation: both are kept, and shown on terminals."""


def create_host(state: State, name: str, labels: dict[str, str], id_: HostId, actor: str) -> Plan[Host]:
    """Raises: INVALID; CONFLICT when the name is taken."""
    parse_name(name, "host")
    if name in state.names.hosts:
        raise conflict(f"there is a host {name} already", "choose another name, or forget that host", name=name)
    host = Host(id=id_, name=name, labels=parse_labels(labels))
    draft = Draft(state, actor)
    draft.create(keys.host(id_), host)
    draft.create(keys.host_name(name), id_)
    draft.happen("host.created", id=id_, name=name)
    return draft.plan(host)


def secret_record(secret: str) -> bytes:
    """What the store has of a host's secret: the hash of it."""
    return encode_msgpack(secret_sha256(secret))


def set_credential(state: State, host: Host, secret: str, actor: str) -> Plan[None]:
    """Keep the hash of a new secret, which voids the one before, and all that were offered.

    Raises: INVALID for a switch without an agent.
    """
    require_agent(state, host)
    draft = Draft(state, actor)
    draft.unchanged("host", host.id)
    draft.put(keys.credential(host.id), msgspec.Raw(secret_record(secret)))
    draft.delete(keys.trust(host.id))
    draft.happen("host.credential", id=host.id, name=host.name)
    return draft.plan(None)


def hello(state: State, host: Host, message: Hello, actor: str) -> Plan[Host]:
    """Take in what the agent says of its host, and raise the session. Raises: INVALID."""
    if message.datapath is Datapath.SWITCH:
        raise invalid("no agent programs a switch without an agent", "start it with --datapath bridge or openflow")
    changed = msgspec.structs.replace(
        host,
        incarnation=parse_word(message.incarnation, "an incarnation"),
        session=host.session + 1,
        datapath=message.datapath,
        version=parse_word(message.version, "a version"),
        **_underlay(message),
    )
    draft = Draft(state, actor)
    draft.unchanged("host", host.id)
    draft.put(keys.host(host.id), changed)
    note_kept(draft, state, host, message.authorities, message.secret_sha256)
    draft.happen("host.connected", id=host.id, name=host.name, session=changed.session)
    return draft.plan(changed)


def facts(state: State, host: Host, message: Facts, actor: str) -> Plan[Host]:
    """Take in what changed about the host: one write, whatever the number of its networks."""
    changed = msgspec.structs.replace(host, **_underlay(message))
    if changed == host:
        return nothing(host, state.revision_of("host", host.id))
    draft = Draft(state, actor)
    draft.unchanged("host", host.id)
    draft.put(keys.host(host.id), changed)
    draft.happen("host.updated", id=host.id, name=host.name, vtep4=changed.vtep4, vtep6=changed.vtep6)
    return draft.plan(changed)


def _underlay(message: Hello | Facts) -> dict[str, object]:
    if not 0 < message.mtu_bytes <= UNDERLAY_MTU_MAX_BYTES:
        raise invalid(f"an underlay MTU of {message.mtu_bytes} cannot be", "", mtu_bytes=message.mtu_bytes)
    if len(message.routes) > ROUTES_MAX:
        raise invalid(f"{len(message.routes)} routes are too many", f"send at most {ROUTES_MAX}")
    vtep4, vtep6 = parse_vteps(message.vtep4, message.vtep6)
    routes = tuple(str(parse_prefix(route)) for route in message.routes)
    return {"vtep4": vtep4, "vtep6": vtep6, "mtu_bytes": message.mtu_bytes, "routes": routes}


def parse_word(text: str, what: str) -> str:
    """What a machine says of itself, in a word that can be kept. Raises: INVALID."""
    if len(text) > WORD_CHARACTERS_MAX or not text.isprintable():
        raise invalid(f"{text[:WORD_CHARACTERS_MAX]!r} is not {what}", "")
    return text


def parse_vteps(vtep4: str | None, vtep6: str | None) -> tuple[str | None, str | None]:
    """Both in canonical text. Raises: INVALID, also for an address of the other family."""
    vteps = [None if vtep is None else parse_address(vtep) for vtep in (vtep4, vtep6)]
    for vtep, colon in zip(vteps, (False, True), strict=True):
        if vtep is not None and (":" in vtep) is not colon:
            raise invalid(f"{vtep} is not a VTEP of the family it is given for", "", vtep=vtep)
    return vteps[0], vteps[1]


def drain_host(state: State, host: Host, undo: bool, actor: str) -> Plan[Host]:
    """Take no further attachments on a host, or (`undo`) take them again. What is there stays."""
    if bool(host.drained_by) is not undo:
        return nothing(host, state.revision_of("host", host.id))
    changed = msgspec.structs.replace(host, drained_by="" if undo else actor)
    draft = Draft(state, actor)
    draft.unchanged("host", host.id)
    draft.put(keys.host(host.id), changed)
    draft.happen("host.undrained" if undo else "host.drained", id=host.id, name=host.name)
    return draft.plan(changed)


def begin_forgetting(state: State, host: Host, connected: bool, force: bool, actor: str) -> Plan[Host]:
    """The first of the sequence: from here on the host is refused, and the rest is finished whatever happens."""
    if host.id in state.switches and not force:
        raise conflict(f"{host.name} is a switch", f"hawse switch rm {host.name}", host=host.name)
    if connected and not force:
        raise conflict(
            f"host {host.name} is connected",
            f"there: hawse leave; or force it: hawse host forget --force {host.name}",
            host=host.name,
        )
    if host.id in state.forgetting:
        return nothing(host, state.revision_of("forget", host.id))
    draft = Draft(state, actor)
    draft.unchanged("host", host.id)
    draft.put(keys.forget(host.id), host.id)
    draft.delete(keys.credential(host.id))
    draft.delete(keys.trust(host.id))
    return draft.plan(host)


def go_on_forgetting(state: State, id_: HostId, actor: str) -> Plan[bool]:
    """One more of the sequence: release some endpoints, or, when none is left, the host. True: it is over."""
    host = state.hosts.get(id_)
    if host is None:
        return nothing(True, state.revision)
    draft = Draft(state, actor)
    left: list[Endpoint] = list(state.endpoints_of(host=host.id))
    if left:
        release_some(draft, state, left, "host forgotten")
        return draft.plan(False)
    draft.unchanged("host", host.id)
    draft.delete(keys.host(host.id))
    draft.delete(keys.host_name(host.name))
    draft.delete(keys.credential(host.id))
    draft.delete(keys.trust(host.id))
    draft.delete(keys.forget(host.id))
    if switch := state.switches.get(host.id):
        draft.delete(keys.switch(host.id))
        draft.delete(keys.datapath(switch.datapath_id))
    draft.happen("host.forgotten", id=host.id, name=host.name)
    return draft.plan(True)


def name_of(state: State, host: HostId) -> str:
    """A host's name, or its id where it was forgotten."""
    return state.hosts[host].name if host in state.hosts else host
