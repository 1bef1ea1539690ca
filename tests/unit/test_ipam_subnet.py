"""Subnets of a request: each mistake has a sentence; the automatic choice overlaps nothing."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from sdn.ipam.choice import LENGTH_DEFAULT, POOLS_DEFAULT_4, choose_subnet, unique_local_pool
from sdn.ipam.subnet import check_disjoint, find_overlap, gateway_default, parse_range, validate_subnet
from sdn.model.address import Prefix, address_number, format_address, parse_prefix
from sdn.model.errors import HawseError, Kind
from sdn.model.resources import Subnet


def test_a_subnet_is_made_complete_and_canonical() -> None:
    assert validate_subnet("10.1.0.0/24") == Subnet(prefix="10.1.0.0/24", gateway="10.1.0.1")
    assert validate_subnet("FD00:0:0:1::/64", "fd00:0:0:1::FF", "fd00:0:0:1:1::/80", ["fd00:0:0:1::0009"]) == Subnet(
        prefix="fd00:0:0:1::/64",
        gateway="fd00:0:0:1::ff",
        range=("fd00:0:0:1:1::", "fd00::1:1:ffff:ffff:ffff"),
        reserved=("fd00:0:0:1::9",),
    )
    twice = validate_subnet("10.1.0.0/24", None, "10.1.0.9 - 10.1.0.9", ["10.1.0.200", "10.1.0.20", "10.1.0.20"])
    assert twice.range == ("10.1.0.9", "10.1.0.9")
    assert twice.reserved == ("10.1.0.20", "10.1.0.200")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("10.1.0.0",), "is not a prefix"),
        (("10.1.0.0/",), "is not a prefix"),
        (("10.1.0.0/33",), "prefix length above 32"),
        (("10.1.0.0/" + "9" * 5000,), "prefix length above 32"),
        (("10.1.0/24",), "is not an IP address"),
        (("10.1.0.5/24",), "did you mean 10.1.0.0/24?"),
        (("0.0.0.0/0",), "too large"),
        (("16.0.0.0/7",), "below 8"),
        (("fd00::/16",), "below 32"),
        (("10.1.0.0/32",), "no room"),
        (("fd00::1/128",), "no room"),
        (("127.1.0.0/16",), "loopback"),
        (("169.254.1.0/24",), "link-local"),
        (("224.1.0.0/24",), "multicast"),
        (("250.0.0.0/24",), "set aside"),
        (("0.1.0.0/16",), "this host"),
        (("fe80::/64",), "link-local"),
        (("ff02::/64",), "multicast"),
        (("::/64",), "loopback"),
        (("::ffff:10.0.0.0/120",), "written as IPv6"),
        (("10.1.0.0/24", "10.2.0.1"), "the gateway 10.2.0.1 is outside of the subnet 10.1.0.0/24"),
        (("10.1.0.0/24", "fd00::1"), "the gateway fd00::1 is outside"),
        (("10.1.0.0/24", "10.1.0.0"), "the gateway 10.1.0.0 is the network address"),
        (("10.1.0.0/24", "10.1.0.255"), "the gateway 10.1.0.255 is the broadcast address"),
        (("10.1.0.0/24", "gw"), "is not an IP address"),
        (("10.1.0.0/24", None, "10.1.0.9"), "is not a range"),
        (("10.1.0.0/24", None, ""), "is not a range"),
        (("10.1.0.0/24", None, "10.1.0.20-10.1.0.10"), "did you mean 10.1.0.10-10.1.0.20?"),
        (("10.1.0.0/24", None, "10.1.0.20-10.1.1.10"), "the range 10.1.1.10 is outside"),
        (("10.1.0.0/24", None, "10.1.0.0/23"), "the range 10.1.0.0/23 is outside"),
        (("10.1.0.0/24", None, "10.1.0.1-"), "is not an IP address"),
        (("10.1.0.0/24", None, None, ["10.3.0.1"]), "the reserved address 10.3.0.1 is outside"),
        (("10.1.0.0/24", None, None, ["10.1.0.1"]), "10.1.0.1 is the gateway"),
        (("10.1.0.0/16", None, None, [f"10.1.{n // 250}.{n % 250 + 2}" for n in range(1025)]), "limit of 1024"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_each_mistake_has_a_sentence(arguments: tuple[Any, ...], sentence: str) -> None:
    with pytest.raises(HawseError) as caught:
        validate_subnet(*arguments)
    assert caught.value.kind is Kind.INVALID
    assert sentence in str(caught.value)


@given(st.integers(8, 31), st.integers(0, (1 << 32) - 1))
def test_the_default_gateway_is_usable(length: int, number: int) -> None:
    prefix = Prefix(4, number >> (32 - length) << (32 - length), length)
    gateway = gateway_default(prefix)
    assert gateway in prefix
    assert gateway not in {prefix.first, prefix.last} or length == 31


def test_ranges() -> None:
    net = parse_prefix("10.1.0.0/24")
    assert parse_range("10.1.0.128/25", net) == (address_number("10.1.0.128"), address_number("10.1.0.255"))
    with pytest.raises(HawseError):
        parse_range("fd00::/120", net)


def test_overlaps() -> None:
    others = [parse_prefix("10.2.0.0/16"), parse_prefix("fd00::/48")]
    assert find_overlap(parse_prefix("10.2.3.0/24"), others) == others[0]
    assert find_overlap(parse_prefix("10.0.0.0/8"), others) == others[0]
    assert find_overlap(parse_prefix("fd00::/64"), others) == others[1]
    assert find_overlap(parse_prefix("10.3.0.0/16"), others) is None
    check_disjoint([parse_prefix("10.3.0.0/16"), *others])
    with pytest.raises(HawseError, match=r"10\.2\.0\.0/16 and 10\.2\.9\.0/24 of one network overlap") as caught:
        check_disjoint([*others, parse_prefix("10.2.9.0/24")])
    assert caught.value.kind is Kind.CONFLICT


BLOCK = parse_prefix("10.128.0.0/20")


@st.composite
def prefixes_about(draw: st.DrawFn, block: Prefix) -> Prefix:
    length = draw(st.integers(14, 30))
    number = block.first - 4096 + draw(st.integers(0, 3 * block.size))
    return Prefix(4, number >> (32 - length) << (32 - length), length)


@given(st.lists(prefixes_about(BLOCK), max_size=25), st.integers(20, 28))
def test_the_choice_is_the_first_that_overlaps_nothing(avoid: list[Prefix], length: int) -> None:
    size = 1 << (32 - length)
    candidates = (Prefix(4, first, length) for first in range(BLOCK.first, BLOCK.last, size))
    expected = next((c for c in candidates if find_overlap(c, avoid) is None), None)
    if expected is None:
        with pytest.raises(HawseError) as caught:
            choose_subnet([BLOCK], length, avoid)
        assert caught.value.kind is Kind.EXHAUSTED
    else:
        assert choose_subnet([BLOCK], length, avoid) == expected


def test_the_choice_from_the_default_pools() -> None:
    everything = [parse_prefix("0.0.0.0/0"), parse_prefix("::/0")]
    assert str(choose_subnet(POOLS_DEFAULT_4, LENGTH_DEFAULT[4], everything)) == "10.128.0.0/24"
    office = [*everything, parse_prefix("10.0.0.0/8"), parse_prefix("192.168.0.0/23"), parse_prefix("fd00::/8")]
    assert str(choose_subnet(POOLS_DEFAULT_4, 24, office)) == "192.168.2.0/24"
    pool = unique_local_pool("an installation")
    assert pool == unique_local_pool("an installation")
    assert pool != unique_local_pool("another")
    assert pool.length == 48
    assert pool.overlaps(parse_prefix("fd00::/8"))
    first = choose_subnet([pool], LENGTH_DEFAULT[6], [])
    assert str(first) == f"{format_address(6, pool.first)}/64"
    assert choose_subnet([pool], 64, [first]) == Prefix(6, first.last + 1, 64)


def test_a_choice_that_is_not_there() -> None:
    avoid = [parse_prefix("10.128.0.0/21"), parse_prefix("10.128.8.0/21"), parse_prefix("10.1.0.0/16")]
    with pytest.raises(HawseError, match=r"no /24 is left in the pools 10\.128\.0\.0/20: in the way are") as caught:
        choose_subnet([BLOCK], 24, avoid)
    assert caught.value.facts["in_the_way"] == ["10.128.0.0/21", "10.128.8.0/21"]
    for pools, length in (([BLOCK], 16), ([], 24), ([BLOCK], 33)):
        with pytest.raises(HawseError, match="does not fit") as caught:
            choose_subnet(pools, length, [])
        assert caught.value.kind is Kind.INVALID
