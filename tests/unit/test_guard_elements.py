"""Ports as elements and back; anything but a whole port reads as something else."""

from __future__ import annotations

from socket import AF_INET, AF_INET6, inet_ntop

from hypothesis import given
from hypothesis import strategies as st

from plugin.datapath.bridge.guard_elements import (
    SETS,
    GuardPort,
    Raw,
    SetElement,
    elements_by_port,
    elements_of,
    ifname_key,
    ports_of,
)
from sdn.model.address import format_mac, link_local

_NAMES = st.text("abcdefghijklmnopqrstuvwxyz234567", min_size=12, max_size=12).map(lambda tail: f"hwv{tail}")
_MACS = st.binary(min_size=5, max_size=5).map(lambda low: format_mac(b"\x0a" + low))
_IP4 = st.binary(min_size=4, max_size=4).map(lambda raw: inet_ntop(AF_INET, raw))
_IP6 = st.binary(min_size=16, max_size=16).map(lambda raw: inet_ntop(AF_INET6, raw))
_PORTS = st.builds(
    GuardPort,
    mac=_MACS,
    addresses=st.lists(st.one_of(_IP4, _IP6), max_size=6).map(tuple),
    vni=st.integers(1, (1 << 24) - 1),
)


def dump(*elements: set[SetElement]) -> dict[str, list[Raw]]:
    found: dict[str, list[Raw]] = {name: [] for name in SETS}
    for name, element in set().union(*elements):
        found[name].append((element.key, element.data))
    return found


@given(st.dictionaries(_NAMES, _PORTS, max_size=8))
def test_ports_are_read_as_they_were_written(ports: dict[str, GuardPort]) -> None:
    assert ports_of(dump(*(elements_of(name, port) for name, port in ports.items()))) == ports


@given(_NAMES, _PORTS, st.data())
def test_a_port_with_an_element_missing_reads_differently(name: str, port: GuardPort, data: st.DataObject) -> None:
    elements = elements_of(name, port)
    lost = data.draw(st.sampled_from(sorted(elements)))
    assert ports_of(dump(elements - {lost})).get(name) != port


@given(_NAMES, _PORTS, _PORTS, st.data())
def test_a_port_with_an_element_too_many_reads_differently(
    name: str, port: GuardPort, other: GuardPort, data: st.DataObject
) -> None:
    elements = elements_of(name, port)
    more = {one for one in elements_of(name, other) - elements if one[0] != "network"}  # a map holds one value a key
    if more:
        stray = data.draw(st.sampled_from(sorted(more)))
        assert ports_of(dump(elements, {stray})).get(name) != port


@given(_NAMES, _PORTS)
def test_what_is_dumped_of_a_port_is_found_by_its_name(name: str, port: GuardPort) -> None:
    elements = elements_of(name, port)
    others = elements_of("hwvzzzzzzzzzzzz", GuardPort("0a:00:00:00:00:01", ("10.0.0.1",), 1))
    found = elements_by_port(dump(elements, others))
    assert found[ifname_key(name)] == elements | (others if name == "hwvzzzzzzzzzzzz" else set())


@given(_PORTS)
def test_the_order_of_addresses_says_nothing(port: GuardPort) -> None:
    assert GuardPort(port.mac, port.addresses[::-1], port.vni) == port


def test_the_link_local_address_is_allowed_and_never_listed() -> None:
    mac = "0a:51:0a:01:00:02"
    assert GuardPort(mac, (link_local(mac), "10.1.0.2"), 1) == GuardPort(mac, ("10.1.0.2",), 1)
    keys = {element.key[24:] for name, element in elements_of("hwv1", GuardPort(mac, (), 1)) if name == "e6"}
    assert keys == {bytes.fromhex("fe8000000000000008510afffe010002")}


def test_the_bytes_are_those_of_the_kernel() -> None:
    name = b"hwv1".ljust(16, b"\0")
    mac = bytes.fromhex("0a510a010002") + b"\0\0"
    elements = elements_of("hwv1", GuardPort("0a:51:0a:01:00:02", ("10.1.0.2", "fd01::2"), 100))
    assert {(kind, element.key) for kind, element in elements} == {
        ("e4", name + mac + bytes([10, 1, 0, 2])),
        ("e6", name + mac + bytes.fromhex("fd010000000000000000000000000002")),
        ("e6", name + mac + bytes.fromhex("fe8000000000000008510afffe010002")),
        ("mac", name + mac),
        ("network", name),
    }
    assert {element.data for kind, element in elements if kind == "network"} == {(100).to_bytes(4, "little")}
