"""What a host tells its own containers when an address has another MAC: the frames, and when there are any."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6NDOptDstLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether

from plugin.datapath.bridge.announce import locate
from plugin.datapath.bridge.guard import GuardPort
from plugin.datapath.bridge.objects import Neighbour
from plugin.datapath.veth import announcement as announcement_module
from plugin.datapath.veth.announcement import Change, FormerMacs, announcement, frames
from sdn.model.address import format_address, format_mac
from sdn.reconcile.datapath import Operation, Verb

OLD, NEW, PEER, MINE = (f"0a:00:00:00:00:{number:02x}" for number in range(1, 5))
ADDRESSES = ("10.1.0.5", "fd00:1::5")
macs = st.binary(min_size=6, max_size=6).map(lambda raw: format_mac(bytes([raw[0] & 0xFE]) + raw[1:]))


@given(st.integers(1, 2**32 - 2), macs, macs)
def test_an_ipv4_address_is_announced_by_a_gratuitous_reply(number: int, mac: str, to_mac: str) -> None:
    address = format_address(4, number)
    wanted = Ether(dst=to_mac, src=mac) / ARP(op="is-at", hwsrc=mac, psrc=address, hwdst=mac, pdst=address)
    assert announcement(address, mac, to_mac) == bytes(wanted)


@given(st.integers(1, 2**128 - 1), macs, macs)
def test_an_ipv6_address_is_announced_by_an_overriding_advertisement(number: int, mac: str, to_mac: str) -> None:
    address = format_address(6, number)
    advertisement = ICMPv6ND_NA(R=0, S=0, O=1, tgt=address) / ICMPv6NDOptDstLLAddr(lladdr=mac)
    wanted = Ether(dst=to_mac, src=mac) / IPv6(src=address, dst="ff02::1", hlim=255) / advertisement
    assert announcement(address, mac, to_mac) == bytes(wanted)


def test_stations_are_told_of_others_in_their_own_families() -> None:
    stations = [
        GuardPort(mac=PEER, addresses=("10.1.0.6",), vni=7),
        GuardPort(mac=MINE, addresses=("10.1.0.7", "fd00:1::7"), vni=7),
        GuardPort(mac=NEW, addresses=ADDRESSES, vni=7),
        GuardPort(mac="", addresses=ADDRESSES, vni=7),
    ]
    told = [Ether(frame) for frame in frames([Change(7, address, NEW) for address in ADDRESSES], stations)]
    assert [(frame.dst, frame.type) for frame in told] == [(PEER, 0x0806), (MINE, 0x0806), (MINE, 0x86DD)]


def create(address: str, mac: str, device: str = "hwx7") -> Operation:
    return Operation(Verb.CREATE, ("neighbour", "t", device, address), None, Neighbour(mac))


def delete(address: str, mac: str, device: str = "hwx7") -> Operation:
    return Operation(Verb.DELETE, ("neighbour", "t", device, address), Neighbour(mac), None)


def replace(address: str, before: str, after: str) -> Operation:
    return Operation(Verb.REPLACE, ("neighbour", "t", "hwx7", address), Neighbour(before), Neighbour(after))


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_that_comes_back_with_another_mac_has_changed(address: str) -> None:
    former = FormerMacs(locate)
    former.remember([delete(address, OLD)], ())
    assert former.changes([create(address, NEW)], ()) == [Change(7, address, NEW)]
    assert former.changes([create(address, NEW)], ()) == []


def test_an_address_whose_mac_is_replaced_has_changed() -> None:
    assert FormerMacs(locate).changes([replace(ADDRESSES[0], OLD, NEW)], ()) == [Change(7, ADDRESSES[0], NEW)]


def test_nothing_has_changed() -> None:
    former = FormerMacs(locate)
    former.remember([delete(address, OLD) for address in (*ADDRESSES, "fe80::1", "10.1.0.6")], ())
    former.remember([delete("10.2.0.5", OLD, "hwx8")], {8})
    assert former.changes([create(ADDRESSES[0], OLD)], ()) == []
    assert former.changes([create(ADDRESSES[1], OLD, "hwy7")], ()) == []  # by the other carrier
    assert former.changes([create("fe80::1", NEW)], ()) == []
    assert former.changes([create("10.1.0.6", NEW, "hwx9")], ()) == []  # another network's
    assert former.changes([create("10.1.0.9", NEW)], ()) == []  # nobody's before
    assert former.changes([create("10.2.0.5", NEW, "hwx8")], ()) == []  # the network had left the host


def test_what_could_not_be_written_is_announced_once_it_is() -> None:
    former = FormerMacs(locate)
    former.remember([delete(ADDRESSES[0], OLD)], ())
    operation = create(ADDRESSES[0], NEW)
    assert former.changes([operation], {operation.key}) == []
    assert former.changes([operation], ()) == [Change(7, ADDRESSES[0], NEW)]


def test_the_oldest_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcement_module, "FORMER_MAX", 2)
    former = FormerMacs(locate)
    former.remember([delete("10.1.0.1", OLD), delete("10.1.0.2", OLD)], ())
    former.remember([delete("10.1.0.1", OLD), delete("10.1.0.3", OLD)], ())
    came_back = [create(f"10.1.0.{number}", NEW) for number in (1, 2, 3)]
    assert [change.address for change in former.changes(came_back, ())] == ["10.1.0.1", "10.1.0.3"]
