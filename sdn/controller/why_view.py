"""The answer to why, as REST shows it."""

from __future__ import annotations

import msgspec


class PartyView(msgspec.Struct, frozen=True, kw_only=True):
    """One end: an endpoint, all by name beside its id."""

    endpoint: str
    name: str
    tenant: str
    network: str
    host: str
    container: str
    ifname: str
    addresses: tuple[str, ...]
    mac: str


class VerdictView(msgspec.Struct, frozen=True, kw_only=True):
    """What should become of the packet, by what is desired alone. `cause`: what it is counted under where dropped."""

    arrives: bool
    reason: str
    cause: str


class PathView(msgspec.Struct, frozen=True, kw_only=True):
    """The way: one host, or two and the tunnel between them. `family`: of the underlay, 0 where not told."""

    hosts: tuple[str, ...]
    vteps: tuple[str, ...]
    family: int
    vni: int
    mtu_bytes: int


class StageView(msgspec.Struct, frozen=True, kw_only=True):
    """What one stage on one host does: `outcome` is `pass`, `drop` or `astray`, by the entry `table` `match` `action`.

    `missing`: there is no such entry. `packets` (None: not counted) count what `counts` says, or what met the entry.
    """

    host: str
    stage: str
    outcome: str
    says: str
    table: str
    match: str
    action: str
    missing: bool
    cause: str
    packets: int | None
    bytes: int | None
    counts: str


class LegView(msgspec.Struct, frozen=True, kw_only=True):
    """One packet, one way: `there`, or `back`. `arrives`: None where a host on the way could not be asked."""

    direction: str
    source: str
    destination: str
    arrives: bool | None
    stages: list[StageView]


class AwayView(msgspec.Struct, frozen=True, kw_only=True):
    """A host that could not be asked, and why."""

    host: str
    why: str


class DroppedView(msgspec.Struct, frozen=True, kw_only=True):
    """What a host on the way has dropped in these networks, whoever sent it."""

    host: str
    network: str
    cause: str
    packets: int


class WhyView(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a packet arrives and why. `arrives` is what was found; `agrees`: it is what should be.

    `verdict` is the oracle's, `legs` are what the hosts' own tables say; `conclusion` and `hint` put them into words.
    """

    source: PartyView
    destination: PartyView | None
    to: str
    protocol: str
    arrives: bool
    agrees: bool
    conclusion: str
    hint: str
    verdict: VerdictView
    path: PathView
    legs: list[LegView]
    drops: list[DroppedView]
    away: list[AwayView]


class FlowView(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of a host's tables, with the names of whose it is; see StageView for the counts."""

    table: str
    match: str
    action: str
    owner: str
    tenant: str
    network: str
    cause: str
    packets: int | None
    bytes: int | None
    counts: str


class FlowsView(msgspec.Struct, frozen=True, kw_only=True):
    """`omitted`: how many more there are than are shown."""

    items: list[FlowView]
    omitted: int
