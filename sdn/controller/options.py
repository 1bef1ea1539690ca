"""What an operator may set of the controller's core; every bound has its reason beside it."""

from __future__ import annotations

import dataclasses

from sdn.model.resources import VNI_MAX


@dataclasses.dataclass(frozen=True, slots=True)
class Pool:
    """Automatic subnets are cut from `prefix`, each of `length` bits."""

    prefix: str
    length: int


DEFAULT_POOLS = (
    Pool("10.64.0.0/10", 24),  # 16 384 networks, away from the 10.0.0.0/16 and 10.244.0.0/16 that others start with
    Pool("fd68:6177:7365::/48", 64),  # RFC 4193; the global id spells the name
)


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """`pools`: in order of preference, per family. VNIs are taken from `vni_first` to `vni_last`, cyclically.

    `settle_s`: how long an attachment's Settled is held back for hosts that have not reported (they are named late).
    `lag_transactions`: a host with more transactions waiting than this is brought up to date by one coalesced
    transaction instead, so that its queue is bounded by the state and not by time. `resume_changes`: a host that has
    missed more changes than this gets its topics anew: replaying would cost more.
    """

    pools: tuple[Pool, ...] = DEFAULT_POOLS
    vni_first: int = 1
    vni_last: int = VNI_MAX
    settle_s: float = 1.0
    lag_transactions: int = 128
    resume_changes: int = 1000
