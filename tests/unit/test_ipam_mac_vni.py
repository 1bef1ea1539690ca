"""Default MACs are stable and unique; VNIs go round and respect what is held."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sdn.ipam.mac import default_mac
from sdn.ipam.vni import VNI_FIRST_DEFAULT, VniSource
from sdn.model.address import format_address, parse_mac
from sdn.model.errors import HawseError, Kind

ADDRESSES_4 = st.integers(0, (1 << 32) - 1).map(lambda number: format_address(4, number))
ADDRESSES_6 = st.integers(0, (1 << 128) - 1).map(lambda number: format_address(6, number))


@given(st.text(), ADDRESSES_4, ADDRESSES_6)
def test_a_mac_is_stable_and_valid(network: str, four: str, six: str) -> None:
    for one, other in ((four, None), (four, six), (None, six)):
        mac = default_mac(network, one, other)
        assert mac == default_mac(network, one, other) == parse_mac(mac)
        assert mac.startswith("0a:")
        assert len({default_mac(network, one, other, salt) for salt in range(4)}) > 1
    assert default_mac(network, four, six) == default_mac(network, four, None)
    assert bytes.fromhex(default_mac(network, four).replace(":", ""))[2:] == bytes(map(int, four.split(".")))


@given(ADDRESSES_6, ADDRESSES_6)
def test_a_mac_tells_ipv6_addresses_apart(one: str, other: str) -> None:
    assert (default_mac("n", None, one) == default_mac("n", None, other)) == (one == other)


def test_macs_stay_what_they_are() -> None:
    """A change of the recipe would change the MAC of every address: these are written down."""
    assert default_mac("01hzy", "10.1.0.2", None) == MAC_4
    assert default_mac("01hzy", None, "fd00::2") == MAC_6
    assert default_mac("01hzy", None, "fd00::2", salt=1) == MAC_6_SALT_1


MAC_4 = "0a:2c:0a:01:00:02"
MAC_6 = "0a:b8:ea:9a:c9:ce"
MAC_6_SALT_1 = "0a:2e:86:eb:3a:ab"


class VnisAgainstModel(RuleBasedStateMachine):
    """A small range: it is full often."""

    def __init__(self) -> None:
        super().__init__()
        self.source = VniSource(10, 17)
        self.taken: set[int] = set()
        self.held: set[int] = set()
        self.last = 9

    @rule()
    def take(self) -> None:
        busy = self.taken | self.held
        order = [10 + (self.last + 1 - 10 + step) % 8 for step in range(8)]
        expected = next((vni for vni in order if vni not in busy), None)
        if expected is None:
            with pytest.raises(HawseError) as caught:
                self.source.take()
            assert caught.value.kind is Kind.EXHAUSTED
            assert caught.value.facts == {"first": 10, "last": 17, "used": 8 - len(self.held), "held": len(self.held)}
        else:
            assert self.source.take() == expected
            self.taken.add(expected)
            self.last = expected

    @rule(vni=st.integers(10, 17))
    def hold(self, vni: int) -> None:
        if vni in self.taken:
            self.taken.remove(vni)
            self.held.add(vni)
            self.source.hold(vni)

    @rule(vni=st.integers(10, 17))
    def release(self, vni: int) -> None:
        self.source.release(vni)
        self.taken.discard(vni)
        self.held.discard(vni)

    @invariant()
    def agrees(self) -> None:
        assert self.source.held == self.held
        assert {vni for vni in range(10, 18) if vni in self.source} == self.taken | self.held


TestVnisAgainstModel = VnisAgainstModel.TestCase
TestVnisAgainstModel.settings = settings(max_examples=50, deadline=None)


def test_vnis_go_on_from_the_state() -> None:
    source = VniSource(taken=[VNI_FIRST_DEFAULT, 7], held=[VNI_FIRST_DEFAULT + 2], latest=VNI_FIRST_DEFAULT)
    assert source.take() == VNI_FIRST_DEFAULT + 1
    assert source.take() == VNI_FIRST_DEFAULT + 3
    assert 7 in source
    assert VniSource(latest=(1 << 24) - 1).take() == VNI_FIRST_DEFAULT
    assert VniSource().take() == VNI_FIRST_DEFAULT


def test_a_vni_by_wish() -> None:
    source = VniSource(taken=[5000], held=[5001])
    assert source.take_static(100) == 100
    for vni, kind, sentence in (
        (5000, Kind.CONFLICT, "is taken"),
        (5001, Kind.CONFLICT, "held back"),
        (100, Kind.CONFLICT, "is taken"),
        (0, Kind.INVALID, "not a VNI"),
        (1 << 24, Kind.INVALID, "not a VNI"),
    ):
        with pytest.raises(HawseError, match=sentence) as caught:
            source.take_static(vni)
        assert caught.value.kind is kind


@pytest.mark.parametrize("bounds", [(0, 5), (9, 8), (1, 1 << 24)])
def test_a_range_that_is_none(bounds: tuple[int, int]) -> None:
    with pytest.raises(HawseError, match="not a range of VNIs"):
        VniSource(*bounds)
