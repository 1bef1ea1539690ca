"""The difference between what is wanted and what is there, as ordered operations. Pure and deterministic."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from sdn.reconcile.datapath import Key, Object, Operation, Verb


class Order(Protocol):
    """What the diff asks of a datapath."""

    def rank(self, key: Key) -> int:
        """See Datapath."""

    def in_place(self, before: Object, after: Object) -> bool:
        """See Datapath."""


def diff(
    desired: Mapping[Key, Object],
    mirror: Mapping[Key, Object],
    keys: Iterable[Key],
    order: Order,
    *,
    prune: bool = True,
) -> list[Operation]:
    """The operations that make `mirror` equal `desired` under `keys`.

    Deletions come first, by descending rank, then creations and replacements by ascending rank; equal ranks by key.
    What cannot be replaced in place is deleted and created. Without `prune`, what is not desired is left alone.
    """
    deletions: list[tuple[int, Key, Operation]] = []
    writes: list[tuple[int, Key, Operation]] = []
    for key in set(keys):
        before, after = mirror.get(key), desired.get(key)
        if before == after:
            continue
        rank = order.rank(key)
        if after is None:
            if prune:
                deletions.append((-rank, key, Operation(Verb.DELETE, key, before, None)))
        elif before is None:
            writes.append((rank, key, Operation(Verb.CREATE, key, None, after)))
        elif order.in_place(before, after):
            writes.append((rank, key, Operation(Verb.REPLACE, key, before, after)))
        else:
            deletions.append((-rank, key, Operation(Verb.DELETE, key, before, None)))
            writes.append((rank, key, Operation(Verb.CREATE, key, None, after)))
    deletions.sort(key=_place)
    writes.sort(key=_place)
    return [operation for _, _, operation in (*deletions, *writes)]


def _place(entry: tuple[int, Key, Operation]) -> tuple[int, Key]:
    return entry[0], entry[1]
