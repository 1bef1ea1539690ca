"""The diff: applied to the mirror it gives what is desired, in an order that depends on nothing but the values."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from sdn.reconcile.datapath import Key, Operation, Verb
from sdn.reconcile.diff import diff

KINDS = ("base", "middle", "top")
objects = st.dictionaries(st.tuples(st.sampled_from(KINDS), st.sampled_from("abcd")), st.integers(0, 5), max_size=9)


class Order:
    """Ranks by kind; numbers of one parity replace each other in place."""

    def rank(self, key: Key) -> int:
        """See Datapath."""
        return KINDS.index(key[0])

    def in_place(self, before: int, after: int) -> bool:
        """See Datapath."""
        return before % 2 == after % 2


def play(mirror: dict[Key, int], operations: list[Operation]) -> dict[Key, int]:
    """What the operations make of a mirror; strict as a kernel."""
    result = dict(mirror)
    for operation in operations:
        assert result.get(operation.key) == operation.before
        if operation.verb is Verb.DELETE:
            del result[operation.key]
        else:
            assert (operation.verb is Verb.CREATE) == (operation.key not in result)
            if operation.verb is Verb.REPLACE:
                assert Order().in_place(result[operation.key], int(operation.after or 0))
            result[operation.key] = int(operation.after or 0)
    return result


@given(objects, objects)
def test_it_leads_to_what_is_desired(desired: dict[Key, int], mirror: dict[Key, int]) -> None:
    """And a second one has nothing to do."""
    operations = diff(desired, mirror, desired.keys() | mirror.keys(), Order())
    after = play(mirror, operations)
    assert after == desired
    assert diff(desired, after, desired.keys() | mirror.keys(), Order()) == []


@given(objects, objects, st.randoms())
def test_the_order_is_by_rank_and_depends_on_the_values_alone(
    desired: dict[Key, int], mirror: dict[Key, int], chance: random.Random
) -> None:
    """Deletions downward first, then all else upward."""
    keys = list(desired.keys() | mirror.keys())
    operations = diff(desired, mirror, keys, Order())
    chance.shuffle(keys)
    assert diff(desired, mirror, keys * 2, Order()) == operations
    places = [
        (0, -Order().rank(o.key), o.key) if o.verb is Verb.DELETE else (1, Order().rank(o.key), o.key)
        for o in operations
    ]
    assert places == sorted(places)


@given(objects, objects, st.sets(st.tuples(st.sampled_from(KINDS), st.sampled_from("abcd"))))
def test_only_the_keys_that_were_named(desired: dict[Key, int], mirror: dict[Key, int], keys: set[Key]) -> None:
    """Differences elsewhere are not looked at."""
    operations = diff(desired, mirror, keys, Order())
    assert {o.key for o in operations} == {k for k in keys if desired.get(k) != mirror.get(k)}


@given(objects, objects)
def test_without_pruning_nothing_undesired_goes(desired: dict[Key, int], mirror: dict[Key, int]) -> None:
    """What cannot be replaced in place is still made anew."""
    operations = diff(desired, mirror, desired.keys() | mirror.keys(), Order(), prune=False)
    assert play(mirror, operations) == mirror | desired


def test_what_cannot_be_replaced_is_deleted_before_everything() -> None:
    """An example of the order."""
    desired: dict[Key, int] = {("base", "a"): 1, ("top", "a"): 1, ("middle", "b"): 2}
    mirror: dict[Key, int] = {("base", "a"): 2, ("top", "b"): 1, ("middle", "b"): 4}
    assert [(o.verb, o.key) for o in diff(desired, mirror, desired.keys() | mirror.keys(), Order())] == [
        (Verb.DELETE, ("top", "b")),
        (Verb.DELETE, ("base", "a")),
        (Verb.CREATE, ("base", "a")),
        (Verb.REPLACE, ("middle", "b")),
        (Verb.CREATE, ("top", "a")),
    ]
