"""A read compared with what was known and what is wanted, so that the loop's thread gets only what differs. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from sdn.reconcile.datapath import Key, Object


@dataclasses.dataclass(frozen=True, slots=True)
class Survey:
    """`changed`: what is not as the mirror says (None: gone). `keys`: all that needs another look."""

    changed: dict[Key, Object | None]
    keys: set[Key]


def survey(
    found: Mapping[Key, Object], mirror: Mapping[Key, Object], desired: Mapping[Key, Object], scope: Iterable[Key]
) -> Survey:
    """`scope`: the keys that the read would have shown if they were there, beside those that it did show."""
    keys = {*scope, *found}
    changed = {key: found.get(key) for key in keys if found.get(key) != mirror.get(key)}
    return Survey(changed, {key for key in keys if key in changed or found.get(key) != desired.get(key)})
