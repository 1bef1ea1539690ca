"""The automatic choice of a subnet from pools, clear of everything that is known to be elsewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from sdn.model.address import BITS, Prefix, parse_prefix
from sdn.model.errors import exhausted, invalid

LENGTH_DEFAULT = {4: 24, 6: 64}
POOLS_DEFAULT_4: tuple[Prefix, ...] = (
    parse_prefix("10.128.0.0/9"),
    parse_prefix("192.168.0.0/16"),
    parse_prefix("172.16.0.0/12"),
)
"""Private addresses (RFC 1918). 172.16.0.0/12 is last: Docker takes its own networks from there."""
IN_THE_WAY_MAX = 10
"""Prefixes that an error names; the rest is a number."""


def unique_local_pool(seed: str) -> Prefix:
    """The IPv6 pool of one installation: `fd`, 40 bits of a hash of a seed of its own, /48 (RFC 4193, section 3.2)."""
    chance = hashlib.blake2s(seed.encode(), digest_size=5, person=b"hawsepoo").digest()
    return Prefix(6, int.from_bytes(b"\xfd" + chance, "big") << 80, 48)


def choose_subnet(pools: Sequence[Prefix], length: int, avoid: Iterable[Prefix]) -> Prefix:
    """The first prefix of this length, pool by pool, that overlaps nothing in `avoid`. All pools are of one family.

    A prefix of length 0 in `avoid` is passed over: a default route leads everywhere, and clear of it is nothing.
    Takes n log n in the number of prefixes to avoid, whatever the size of the pools.

    Raises: EXHAUSTED; INVALID (no pool is as large as that).
    """
    if not any(pool.length <= length <= BITS[pool.family] for pool in pools):
        raise invalid(
            f"a /{length} does not fit into any pool ({', '.join(map(str, pools)) or 'there is none'})",
            "name a subnet, or configure a larger pool",
            length=length,
        )
    obstacles = sorted({other for other in avoid if other.length}, key=lambda other: (other.family, other.first))
    for pool in pools:
        found = _first_clear(pool, length, obstacles)
        if found is not None:
            return found
    blocking = [str(other) for other in obstacles if any(other.overlaps(pool) for pool in pools)]
    named = ", ".join(blocking[:IN_THE_WAY_MAX])
    more = f" and {len(blocking) - IN_THE_WAY_MAX} more" if len(blocking) > IN_THE_WAY_MAX else ""
    raise exhausted(
        f"no /{length} is left in the pools {', '.join(map(str, pools))}: in the way are {named}{more}",
        "name a subnet that you know to be unused, remove networks, or configure another pool",
        pools=[str(pool) for pool in pools],
        length=length,
        in_the_way=blocking[:IN_THE_WAY_MAX],
        in_the_way_count=len(blocking),
    )


def _first_clear(pool: Prefix, length: int, obstacles: Iterable[Prefix]) -> Prefix | None:
    """`obstacles` in ascending order. Each one moves the candidate behind itself, or is behind the candidate."""
    if not pool.length <= length <= BITS[pool.family]:
        return None
    candidate = Prefix(pool.family, pool.first, length)
    for other in obstacles:
        if other.family != pool.family or other.last < candidate.first:
            continue
        if other.first > candidate.last:
            break
        behind = -(-(other.last + 1) // candidate.size) * candidate.size
        candidate = Prefix(pool.family, behind, length)
    return candidate if candidate.last <= pool.last else None
