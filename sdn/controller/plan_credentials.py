"""Plans for what hosts hold: secrets that are offered to them, and what they say that they keep."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import msgspec

from sdn.controller import keys
from sdn.controller.keys import HostTrust
from sdn.controller.plan import Draft, Plan, nothing
from sdn.controller.state import State
from sdn.model.certificate import SHA256_HEX_LENGTH
from sdn.model.errors import exhausted, invalid
from sdn.model.ids import HostId
from sdn.model.resources import Host

SECRET_BITS = 256
OFFERED_MAX = 8
"""Secrets that a host may have written down and not acknowledged. Each is good until it acknowledges a later one."""
AUTHORITIES_MAX = 4
"""That a host is remembered to trust; there are never more than two."""


def new_secret(random_bits: Callable[[int], int]) -> str:
    """A host's secret: SECRET_BITS of chance, in hex."""
    return f"{random_bits(SECRET_BITS):0{SECRET_BITS // 4}x}"


def secret_sha256(secret: str) -> bytes:
    """What is kept of a host's secret. It has 256 random bits, so that neither salt nor stretching adds anything."""
    return hashlib.sha256(secret.encode()).digest()


def require_agent(state: State, host: Host) -> None:
    """Raises: INVALID for a switch without an agent: nobody there could keep a secret."""
    if host.id in state.switches:
        raise invalid(
            f"{host.name} is a switch without an agent, which has no secret",
            f"give it a certificate: hawse switch certificate {host.name}",
            host=host.name,
        )


def offer_secret(state: State, host: Host, secret: str, actor: str) -> Plan[None]:
    """A further secret is good from now on. Raises: EXHAUSTED where the host acknowledges none; INVALID."""
    require_agent(state, host)
    trust = state.trusts.get(host.id, HostTrust())
    if len(trust.offered) == OFFERED_MAX:
        raise exhausted(
            f"host {host.name} has acknowledged none of the last {OFFERED_MAX} secrets",
            "look at its agent's log, then give it one by hand: POST /v1/hosts/NAME/credential",
            limit=OFFERED_MAX,
        )
    draft = Draft(state, actor)
    draft.unchanged("host", host.id)
    draft.unchanged("trust", host.id)
    draft.put(keys.trust(host.id), msgspec.structs.replace(trust, offered=(*trust.offered, secret_sha256(secret))))
    return draft.plan(None)


def keep(state: State, id_: HostId, authorities: tuple[str, ...], digest: bytes, actor: str) -> Plan[None]:
    """Take in that a host keeps these authorities, and the secret with this hash (none: as it was)."""
    host = state.hosts.get(id_)
    draft = Draft(state, actor)
    if host is None or not note_kept(draft, state, host, authorities, digest):
        return nothing(None, state.revision)
    return draft.plan(None)


def note_kept(draft: Draft, state: State, host: Host, authorities: tuple[str, ...], digest: bytes) -> bool:
    """As part of a transaction; whether it says anything new. Of the secrets offered, only later ones stay good."""
    trust = state.trusts.get(host.id, HostTrust())
    told = tuple(one[:SHA256_HEX_LENGTH] for one in authorities[:AUTHORITIES_MAX])
    offered = trust.offered
    if digest in offered:
        draft.unchanged("credential", host.id)
        draft.put(keys.credential(host.id), digest)
        draft.happen("host.rotated", id=host.id, name=host.name)
        offered = offered[offered.index(digest) + 1 :]
    changed = HostTrust(authorities=told or trust.authorities, offered=offered)
    if changed == trust:
        return False
    draft.unchanged("trust", host.id)
    draft.put(keys.trust(host.id), changed)
    return True
