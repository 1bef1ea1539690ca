"""The address space against a naive model, and each of its refusals."""

from __future__ import annotations

import random

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sdn.ipam import pool
from sdn.ipam.pool import AddressSpace
from sdn.ipam.subnet import broadcast_address, gateway_default, network_address, validate_subnet
from sdn.model.address import Prefix, address_number, format_address, parse_prefix
from sdn.model.errors import HawseError, Kind


def number(text: str) -> int:
    return address_number(text)


class SpaceAgainstModel(RuleBasedStateMachine):
    """The model: a list of what is free in the order in which it is to come, and a set of what is taken."""

    @initialize(
        length=st.integers(26, 32), chance=st.randoms(use_true_random=False), ranged=st.booleans(), fresh=st.booleans()
    )
    def start(self, length: int, chance: random.Random, ranged: bool, fresh: bool) -> None:
        self.prefix = prefix = Prefix(4, number("10.9.8.0"), length)
        numbers = range(prefix.first, prefix.last + 1)
        gateway = gateway_default(prefix) if prefix.size > 1 else None
        reserved = chance.sample(numbers, min(3, prefix.size - 1))
        first, last = sorted(chance.choices(numbers, k=2)) if ranged else (prefix.first, prefix.last)
        latest = None if fresh else chance.choice(numbers)
        self.space = AddressSpace(prefix, gateway=gateway, bounds=(first, last), reserved=reserved, latest=latest)
        self.fixed = {gateway, network_address(prefix), broadcast_address(prefix), *reserved} - {None}
        self.queue = [n for n in range(first, last + 1) if n not in self.fixed]
        if latest is not None and first <= latest <= last:
            self.queue.sort(key=lambda n: (n <= latest, n))
        self.range = range(first, last + 1)
        self.taken: set[int] = set()
        self.waiting: list[int] = []

    @rule()
    def take_next(self) -> None:
        if self.queue or self.waiting:
            expected = (self.queue or self.waiting).pop(0)
            assert self.space.take() == expected
            assert expected not in self.taken
            self.taken.add(expected)
        else:
            with pytest.raises(HawseError) as caught:
                self.space.take()
            assert caught.value.kind is Kind.EXHAUSTED
            assert caught.value.facts["used"] == len(self.taken)
            assert caught.value.facts["reserved"] == len(self.fixed)
            assert caught.value.facts["free"] == self.prefix.size - len(self.taken) - len(self.fixed)

    @rule(offset=st.integers(-1, 64))
    def take_static(self, offset: int) -> None:
        address = self.prefix.first + offset
        if address in self.prefix and address not in self.fixed and address not in self.taken:
            assert self.space.take(address) == address
            self.taken.add(address)
            for free in (self.queue, self.waiting):
                if address in free:
                    free.remove(address)
        else:
            with pytest.raises(HawseError) as caught:
                self.space.take(address)
            assert caught.value.kind is (Kind.CONFLICT if address in self.taken else Kind.INVALID)

    @rule(offset=st.integers(-1, 64))
    def release(self, offset: int) -> None:
        address = self.prefix.first + offset
        self.space.release(address)
        if address in self.taken:
            self.taken.remove(address)
            if address in self.range:
                self.waiting.append(address)

    @invariant()
    def counts_and_members_agree(self) -> None:
        assert list(self.space.taken()) == sorted(self.taken)
        assert all((n in self.space) == (n in self.taken) for n in range(self.prefix.first - 1, self.prefix.last + 2))
        usage = self.space.usage()
        assert (usage.used, usage.reserved) == (len(self.taken), len(self.fixed))
        assert usage.size == self.prefix.size == usage.used + usage.reserved + usage.free


TestSpaceAgainstModel = SpaceAgainstModel.TestCase
TestSpaceAgainstModel.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)


@given(st.lists(st.integers(0, 252), min_size=1, max_size=40, unique=True), st.integers(1, 252))
def test_a_freed_address_comes_back_last(freed: list[int], count: int) -> None:
    """In the order of freeing, after every address that was never used, wherever the cursor is."""
    space = AddressSpace.of(validate_subnet("10.0.0.0/24"))
    taken = [space.take() for _ in range(count)]
    gone = [taken[index] for index in freed if index < count]
    for address in gone:
        space.release(address)
    rest = [space.take() for _ in range(space.free)]
    assert rest[: len(rest) - len(gone)] == [number("10.0.0.2") + index for index in range(count, 253)]
    assert rest[len(rest) - len(gone) :] == gone


def test_only_so_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "WAITING_MAX", 2)
    space = AddressSpace.of(validate_subnet("10.0.0.0/29"))
    addresses = [space.take() for _ in range(5)]
    for address in addresses[:3]:
        space.release(address)
    assert space.free == 3
    assert [space.take() for _ in range(3)] == addresses[:3]


def test_the_search_goes_on_after_the_latest() -> None:
    """After a restart, with what the store holds: the allocations that are none of an endpoint here are passed over."""
    subnet = validate_subnet("10.0.0.0/24", reserved=["10.0.0.9"])
    held = ["10.0.0.1", "10.0.0.7", "10.0.0.8", "10.0.0.9", "10.0.1.5", "fd00::7"]
    space = AddressSpace.of(subnet, taken=held, latest="10.0.0.7")
    assert space.usage().used == 2
    assert format_address(4, space.take()) == "10.0.0.10"
    assert format_address(4, AddressSpace.of(subnet, latest="10.0.0.254").take()) == "10.0.0.2"


def test_a_range_bounds_the_choice_but_not_the_wish() -> None:
    space = AddressSpace.of(validate_subnet("10.0.0.0/24", range_text="10.0.0.10-10.0.0.11"))
    assert [format_address(4, space.take()) for _ in range(2)] == ["10.0.0.10", "10.0.0.11"]
    with pytest.raises(HawseError, match=r"the range 10\.0\.0\.10-10\.0\.0\.11 of the subnet 10\.0\.0\.0/24 is full"):
        space.take()
    outside = number("10.0.0.200")
    assert space.take(outside) == outside
    space.release(outside)
    with pytest.raises(HawseError) as caught:
        space.take()
    assert caught.value.facts == {
        "prefix": "10.0.0.0/24",
        "size": 256,
        "used": 2,
        "reserved": 3,
        "free": 251,
        "range": ["10.0.0.10", "10.0.0.11"],
    }


def test_a_full_subnet_says_how_full() -> None:
    space = AddressSpace.of(validate_subnet("10.0.0.0/29", reserved=["10.0.0.6"]))
    for _ in range(4):
        space.take()
    with pytest.raises(HawseError, match="is full: 4 used, 4 reserved, 0 free of 8") as caught:
        space.take()
    assert caught.value.kind is Kind.EXHAUSTED
    assert caught.value.facts == {"prefix": "10.0.0.0/29", "size": 8, "used": 4, "reserved": 4, "free": 0}


@pytest.mark.parametrize(
    ("address", "kind", "sentence"),
    [
        ("10.0.1.0", Kind.INVALID, "outside of the subnet 10.0.0.0/24"),
        ("10.0.0.0", Kind.INVALID, "10.0.0.0 is the network address of 10.0.0.0/24"),
        ("10.0.0.255", Kind.INVALID, "10.0.0.255 is the broadcast address of 10.0.0.0/24"),
        ("10.0.0.1", Kind.INVALID, "10.0.0.1 is the gateway of 10.0.0.0/24"),
        ("10.0.0.9", Kind.INVALID, "10.0.0.9 is a reserved address of 10.0.0.0/24"),
        ("10.0.0.2", Kind.CONFLICT, "10.0.0.2 of 10.0.0.0/24 is taken"),
    ],
)
def test_a_wish_that_cannot_be_met(address: str, kind: Kind, sentence: str) -> None:
    space = AddressSpace.of(validate_subnet("10.0.0.0/24", reserved=["10.0.0.9"]))
    space.take()
    before = space.usage()
    with pytest.raises(HawseError) as caught:
        space.take(number(address))
    assert caught.value.kind is kind
    assert sentence in caught.value.message
    assert caught.value.hint
    assert space.usage() == before


@pytest.mark.parametrize(
    ("prefix", "gateway", "usable"),
    [
        ("10.0.0.0/30", "10.0.0.1", ["10.0.0.2"]),
        ("10.0.0.0/31", "10.0.0.0", ["10.0.0.1"]),
        ("10.0.0.7/32", None, ["10.0.0.7"]),
        ("fd00::/126", "fd00::1", ["fd00::2", "fd00::3"]),
        ("fd00::/127", "fd00::", ["fd00::1"]),
        ("fd00::7/128", None, ["fd00::7"]),
    ],
)
def test_the_smallest_subnets(prefix: str, gateway: str | None, usable: list[str]) -> None:
    net = parse_prefix(prefix)
    space = AddressSpace(net, gateway=None if gateway is None else number(gateway))
    assert [format_address(net.family, space.take()) for _ in range(space.free)] == usable
    with pytest.raises(HawseError):
        space.take()


def test_large_subnets_begin_small_and_give_each_address_once() -> None:
    for prefix in ("10.0.0.0/8", "10.16.0.0/12", "fd00:1::/64"):
        space = AddressSpace.of(validate_subnet(prefix))
        addresses = [space.take() for _ in range(3000)]
        assert addresses == list(range(space.prefix.first + 2, space.prefix.first + 3002))
        assert sum(len(words) for words in space._busy._levels) <= 6
