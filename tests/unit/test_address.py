"""Addresses, prefixes, MACs, ids and names: what is parsed is canonical, what is not valid is refused."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Callable

import hypothesis.strategies as st
import pytest
from hypothesis import given

from sdn.model.address import (
    BITS,
    Family,
    Prefix,
    address_bytes,
    address_number,
    family_of,
    format_address,
    format_mac,
    link_local,
    mac_bytes,
    parse_address,
    parse_interface,
    parse_mac,
    parse_prefix,
)
from sdn.model.errors import HawseError, Kind
from sdn.model.ids import ALPHABET, NAME_LENGTH_MAX, IdSource, encode_id, is_id, parse_name

FAMILIES: st.SearchStrategy[Family] = st.sampled_from((4, 6))


@st.composite
def addresses(draw: st.DrawFn) -> tuple[Family, int]:
    family = draw(FAMILIES)
    return family, draw(st.integers(0, (1 << BITS[family]) - 1))


@st.composite
def prefixes(draw: st.DrawFn) -> Prefix:
    family, number = draw(addresses())
    length = draw(st.integers(0, BITS[family]))
    shift = BITS[family] - length
    return Prefix(family, number >> shift << shift, length)


@given(addresses())
def test_an_address_comes_back(address: tuple[Family, int]) -> None:
    family, number = address
    text = format_address(family, number)
    assert parse_address(text) == text
    assert family_of(text) == family
    assert address_number(text) == number == int.from_bytes(address_bytes(text), "big")
    assert ipaddress.ip_address(text) == (ipaddress.IPv4Address if family == 4 else ipaddress.IPv6Address)(number)


@given(addresses())
def test_every_way_to_write_an_ipv6_address_is_one(address: tuple[Family, int]) -> None:
    number = address[1]
    long = ipaddress.IPv6Address(number).exploded
    assert parse_address(long) == parse_address(long.upper()) == format_address(6, number)


@given(prefixes())
def test_a_prefix_comes_back(prefix: Prefix) -> None:
    assert parse_prefix(str(prefix)) == prefix
    oracle = ipaddress.ip_network(str(prefix))
    assert (prefix.size, prefix.last) == (oracle.num_addresses, int(oracle.broadcast_address))
    assert prefix.first in prefix
    assert prefix.last in prefix
    assert prefix.first - 1 not in prefix
    assert prefix.last + 1 not in prefix


@given(prefixes(), prefixes())
def test_overlap_is_sharing_an_address(one: Prefix, other: Prefix) -> None:
    expected = one.family == other.family and ipaddress.ip_network(str(one)).overlaps(ipaddress.ip_network(str(other)))
    assert one.overlaps(other) == other.overlaps(one) == expected
    assert one.overlaps(one)


@given(addresses(), st.data())
def test_host_bits_are_refused_with_what_was_meant(address: tuple[Family, int], data: st.DataObject) -> None:
    family, number = address
    length = data.draw(st.integers(0, BITS[family] - 1))
    shift = BITS[family] - length
    text = f"{format_address(family, number | 1)}/{length}"
    with pytest.raises(HawseError) as caught:
        parse_prefix(text)
    assert caught.value.facts["meant"] == str(Prefix(family, number >> shift << shift, length))
    assert parse_interface(text) == (format_address(family, number | 1), length)


PARSERS: tuple[Callable[[str], object], ...] = (
    parse_address,
    parse_prefix,
    parse_interface,
    parse_mac,
    lambda text: parse_name(text, "network"),
)
NEARLY = st.text("0123456789abcdef:./-_ \x00١é", max_size=30)


@given(st.sampled_from(PARSERS), st.text() | NEARLY)
def test_any_text_is_parsed_or_refused(parse: Callable[[str], object], text: str) -> None:
    try:
        value = parse(text)
    except HawseError as error:
        refusal = error
    else:
        assert isinstance(value, Prefix | tuple) or parse(str(value)) == value
        return
    assert refusal.kind is Kind.INVALID


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_address, "10.1.0"),
        (parse_address, "10.1.0.256"),
        (parse_address, "010.1.0.2"),
        (parse_address, "fe80::1%eth0"),
        (parse_address, "10.1.0.2/24"),
        (parse_address, ""),
        (parse_address, "10.1.0.2\x00"),
        (parse_prefix, "10.0.0.0/٨"),
        (parse_prefix, "10.0.0.0/-8"),
        (parse_prefix, "10.0.0.0/+8"),
        (parse_prefix, "10.0.0.0/255.0.0.0"),
        (parse_prefix, "10.0.0.0/" + "9" * 5000),
        (parse_prefix, "fd00::/129"),
        (parse_interface, "10.1.0.2"),
        (parse_interface, "10.1.0.2/33"),
        (parse_interface, "10.1.0.2/" + "9" * 5000),
        (parse_mac, "0a:00:00:00:00"),
        (parse_mac, "01:00:5e:00:00:01"),
        (parse_mac, "ff:ff:ff:ff:ff:ff"),
        (parse_mac, "00:00:00:00:00:00"),
        (parse_mac, "0a:00:00:00:00:00:00:01"),
        (parse_mac, ""),
    ],
)
def test_what_is_not_valid(parse: Callable[[str], object], text: str) -> None:
    with pytest.raises(HawseError) as caught:
        parse(text)
    assert caught.value.kind is Kind.INVALID


@given(st.binary(min_size=6, max_size=6).filter(lambda raw: not raw[0] & 1 and any(raw)))
def test_a_mac_comes_back(raw: bytes) -> None:
    text = format_mac(raw)
    assert mac_bytes(text) == raw
    assert parse_mac(text) == parse_mac(text.upper().replace(":", "-")) == text
    assert link_local(text).startswith("fe80::")
    assert address_bytes(link_local(text))[8:] == bytes([raw[0] ^ 2]) + raw[1:3] + b"\xff\xfe" + raw[3:]


def test_link_local_of_the_standard() -> None:
    """RFC 4291, appendix A, with RFC 2464's example."""
    assert link_local("34:56:78:9a:bc:de") == "fe80::3656:78ff:fe9a:bcde"


@given(st.lists(st.floats(0, 4e9), min_size=2, max_size=50), st.integers(0, 1 << 32))
def test_ids_rise_whatever_the_clock_does(times: list[float], seed: int) -> None:
    clock = iter(times)
    source = IdSource(lambda: next(clock), random.Random(seed).getrandbits)
    made = [source() for _ in times]
    assert made == sorted(set(made))
    assert all(is_id(text) for text in made)


@given(st.integers(0, (1 << 128) - 1))
def test_an_id_is_its_number(number: int) -> None:
    text = encode_id(number)
    assert is_id(text)
    value = 0
    for character in text:
        value = value << 5 | ALPHABET.index(character)
    assert value == number


@given(st.text("abcxyzABC019", min_size=1, max_size=1), st.text("abcXYZ019-_.", max_size=NAME_LENGTH_MAX - 1))
def test_names(first: str, rest: str) -> None:
    name = first + rest
    if is_id(name):
        with pytest.raises(HawseError):
            parse_name(name, "network")
    else:
        assert parse_name(name, "network") == name


@pytest.mark.parametrize("name", ["", "-a", ".a", "a b", "a/b", "é", "a" * 64, "0" * 26, encode_id(12345)])
def test_what_is_not_a_name(name: str) -> None:
    with pytest.raises(HawseError, match="network") as caught:
        parse_name(name, "network")
    assert caught.value.kind is Kind.INVALID
