"""The attach contract: what a front end asks of the agent on its local socket. Verbs and codes are those of CNI 1.1.

Framing (`sdn.service.contract`): a 4-byte big-endian length, then JSON; the container's namespace travels as a file
descriptor (SCM_RIGHTS) with the first byte of the request. One reply per request: `{"result": …}` or `{"error": …}`.

Whose: every request names `client` (cni, docker, runtime, cli) and `scope`; GC never leaves its (client, scope).
"""

from __future__ import annotations

import enum
from typing import Any

from sdn.model.codec import Decoder
from sdn.model.errors import HawseError, Kind
from sdn.model.resources import Value
from sdn.model.stream import Peer

MESSAGE_BYTES_MAX = 1 << 20


class Handover(enum.StrEnum):
    """Where the inside end is left: finished in the namespace that was passed, or bare in it for an engine to move."""

    NAMESPACE = "namespace"
    HOST = "host"


class AddRequest(Value, frozen=True, kw_only=True, tag_field="verb", tag="ADD"):
    """Attach. `network` is a reference (name of tenant `default`, `tenant/name`, or id).

    `addresses` are wished ones, at most one per subnet, without prefix length. `settle_ms` bounds the wait for the
    other hosts' acknowledgement (None: the agent's default of 20; 0: does not wait). Without a `container` the
    namespace names it (`netns-` and its cookie); without an `ifname` the first free `ethN` inside is taken.
    """

    client: str
    scope: str = ""
    container: str = ""
    ifname: str = ""
    network: str
    addresses: tuple[str, ...] = ()
    mac: str = ""
    name: str = ""
    aliases: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    gateway_priority: int = 0
    handover: Handover = Handover.NAMESPACE
    settle_ms: int | None = None


class DelRequest(Value, frozen=True, kw_only=True, tag_field="verb", tag="DEL"):
    """Detach; succeeds when there is nothing. A namespace descriptor is optional.

    Without a `container` the descriptor names it (`netns-` and its cookie); without an `ifname` the container's only
    attachment to `network` is meant. With both, an interface that is in another network is left alone.
    """

    client: str
    scope: str = ""
    container: str = ""
    ifname: str = ""
    network: str = ""


class CheckRequest(Value, frozen=True, kw_only=True, tag_field="verb", tag="CHECK"):
    """Verify what ADD made, inside (with the namespace's descriptor) and outside."""

    client: str
    scope: str = ""
    container: str
    ifname: str


class GcRequest(Value, frozen=True, kw_only=True, tag_field="verb", tag="GC"):
    """Release every attachment of (client, scope) but the valid ones: (container, ifname)."""

    client: str
    scope: str = ""
    valid: tuple[tuple[str, str], ...] = ()


class StatusRequest(Value, frozen=True, kw_only=True, tag_field="verb", tag="STATUS"):
    """Is the agent ready for ADD?"""

    client: str
    scope: str = ""


class ExamineRequest(Value, frozen=True, kw_only=True, tag_field="verb", tag="EXAMINE"):
    """Tell how this host is, for `hawse doctor`. Answered though the controller is away.

    With `probe` the other hosts (`hosts`: those only, by name) are made to answer probes for some seconds.
    """

    client: str
    probe: bool = False
    hosts: tuple[str, ...] = ()


Request = AddRequest | DelRequest | CheckRequest | GcRequest | StatusRequest | ExamineRequest
request_decoder: Decoder[Request] = Decoder(Request, "a request of the attach contract")


class AddResult(Value, frozen=True, kw_only=True):
    """What ADD made. `late`: names of hosts that had not acknowledged in time. `sandbox`: the namespace's cookie."""

    endpoint: str
    network: str
    tenant: str
    revision: int
    ifname: str
    mac: str
    mtu_bytes: int
    sandbox: int
    addresses: tuple[str, ...]
    gateways: tuple[str, ...]
    late: tuple[str, ...] = ()


class DelResult(Value, frozen=True, kw_only=True):
    """What DEL took away; empty where there was nothing. `addresses` are unknown while the controller is."""

    endpoint: str = ""
    ifname: str = ""
    addresses: tuple[str, ...] = ()


class NetworkHere(Value, frozen=True, kw_only=True):
    """A network that this host is a member of. `name`: `tenant/name`; `peers`: names of the other members."""

    name: str
    tenant: str
    vni: int
    mtu_bytes: int
    endpoints: int
    peers: tuple[str, ...] = ()


class Probed(Value, frozen=True, kw_only=True):
    """The hosts that answer probes now (see stream.Peer), and what a probe has to carry (hex)."""

    cookie: str
    peers: tuple[Peer, ...]
    omitted: int = 0


class ExamineResult(Value, frozen=True, kw_only=True):
    """This host as its agent knows it.

    `namespace`: the cookie of the network namespace it runs in. `authority`: PEM of all that it trusts. `away`: why the
    controller is not there (empty: it is). `failures`: unit -> sentence. `endpoints`: of all networks here, wherever
    they are. `probed`: absent where it was not asked for, or where `probe_problem` says why it could not be.
    """

    host: str
    name: str
    version: str
    pid: int
    namespace: int
    controllers: tuple[str, ...]
    authority: str
    away: str
    away_hint: str = ""
    session: int
    revision: int
    vtep4: str | None
    vtep6: str | None
    mtu_bytes: int
    endpoints: int
    networks: tuple[NetworkHere, ...] = ()
    failures: dict[str, str] = {}
    probed: Probed | None = None
    probe_problem: str = ""


class ContractError(Value, frozen=True, kw_only=True):
    """An error on the wire: CNI's `code`, `msg` and `details`, and the kind, hint and facts of the house."""

    code: int
    msg: str
    details: str = ""
    kind: str = Kind.INTERNAL.value
    facts: dict[str, Any] = {}


CODE_INVALID = 7
CODE_UNKNOWN_CONTAINER = 3
CODE_TRY_LATER = 11
CODE_NOT_AVAILABLE = 50
CODE_LIMITED = 51
CODES: dict[Kind, int] = {
    Kind.INVALID: CODE_INVALID,
    Kind.NOT_FOUND: 100,
    Kind.CONFLICT: 101,
    Kind.EXHAUSTED: 102,
    Kind.UNAVAILABLE: CODE_TRY_LATER,
    Kind.DENIED: 103,
    Kind.INTERNAL: 199,
}
"""The one table from kinds to codes of this edge (CNI 1.1: below 100 well known, from 100 our own)."""


def contract_error(error: HawseError) -> ContractError:
    """An error as this edge sends it."""
    return ContractError(
        code=CODES[error.kind],
        msg=error.message,
        details=error.hint,
        kind=error.kind.value,
        facts=error.facts,
    )
