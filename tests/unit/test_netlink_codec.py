"""Requests byte for byte as pyroute2 encodes them; attributes and errors as the kernel lays them out."""

from __future__ import annotations

import errno
import socket
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg

from plugin.kernel import link, neighbour, route
from plugin.kernel.netlink import (
    F_ACK_TLVS,
    F_CAPPED,
    HEADER,
    DumpInterruptedError,
    attribute,
    attribute_text,
    attribute_u8,
    attribute_u16,
    attribute_u32,
    attributes,
    decode_error,
    messages,
    number,
    taken,
    text,
)
from sdn.model.address import address_bytes, mac_bytes

MAC = "0a:51:0a:01:00:02"
NESTED = 0x8000


def oracle(message: Any, attrs: list[Any], **fields: int) -> bytes:
    """The body that pyroute2 makes."""
    for name, value in fields.items():
        message[name] = value
    message["attrs"] = attrs
    message.encode()
    return without_nested_flag(bytes(message.data[16:]), 16 if isinstance(message, ifinfmsg) else 12)


def without_nested_flag(body: bytes, header: int) -> bytes:
    """pyroute2 marks nested attributes, which the kernel does not ask for."""
    found = bytearray(body)

    def clear(offset: int, end: int) -> None:
        while offset + 4 <= end:
            length, kind = struct.unpack_from("=HH", found, offset)
            if kind & NESTED:
                struct.pack_into("=H", found, offset + 2, kind & ~NESTED)
                clear(offset + 4, offset + length)
            offset += (length + 3) & ~3

    clear(header, len(found))
    return bytes(found)


def tree(body: bytes, header: int, nested: dict[int, Any]) -> dict[int, Any]:
    """Attributes as values, nested ones by the shape given, so that their order and padding do not count."""

    def parse(offset: int, end: int, shape: dict[int, Any]) -> dict[int, Any]:
        flat = attributes(body[:end], offset, end)
        return {
            kind: inner(payload, shape[kind]) if kind in shape else payload.rstrip(b"\0")
            for kind, payload in flat.items()
        }

    def inner(payload: bytes, shape: dict[int, Any]) -> dict[int, Any]:
        return tree(payload, 0, shape)

    return parse(header, len(body), nested)


INFO: dict[int, Any] = {18: {2: {}, 5: {}}}


def test_a_bridge_is_made_as_pyroute2_makes_it() -> None:
    """Name, kind."""
    ours = link.create("hwb100", "bridge", b"")
    theirs = oracle(
        ifinfmsg(),
        [("IFLA_IFNAME", "hwb100"), ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "bridge")]})],
    )
    ours_tree, theirs_tree = tree(ours.body, 16, INFO), tree(theirs, 16, INFO)
    assert ours_tree.pop(18)[1] == theirs_tree.pop(18)[1] == b"bridge"
    assert ours_tree == theirs_tree
    assert ours.body[:16] == theirs[:16]


@pytest.mark.parametrize(("local", "name"), [("192.0.2.1", "IFLA_VXLAN_LOCAL"), ("2001:db8::1", "IFLA_VXLAN_LOCAL6")])
def test_a_carrier_is_made_as_pyroute2_makes_it(local: str, name: str) -> None:
    """Every attribute of the device, by value."""
    ours = link.create("hwx100", "vxlan", link.vxlan_data(100, 4789, local, True), link.encode_target_namespace(7))
    data = [
        ("IFLA_VXLAN_ID", 100),
        (name, local),
        ("IFLA_VXLAN_LEARNING", 0),
        ("IFLA_VXLAN_PROXY", 1),
        ("IFLA_VXLAN_PORT", 4789),
    ]
    theirs = oracle(
        ifinfmsg(),
        [
            ("IFLA_IFNAME", "hwx100"),
            ("IFLA_NET_NS_FD", 7),
            ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "vxlan"), ("IFLA_INFO_DATA", {"attrs": data})]}),
        ],
    )
    assert tree(ours.body, 16, INFO) == tree(theirs, 16, INFO)


def test_a_veth_is_made_as_pyroute2_makes_it() -> None:
    """With its other end in another namespace, both with an index and one queue each way."""
    ours = link.create_veth(
        "hwv1",
        101,
        link.encode_mtu(1450) + link.encode_master(3),
        peer="eth0",
        peer_attributes=link.encode_mac(MAC) + link.encode_mtu(1450),
        peer_ns_fd=9,
    )
    queues = [("IFLA_NUM_TX_QUEUES", 1), ("IFLA_NUM_RX_QUEUES", 1)]
    inside = [("IFLA_IFNAME", "eth0"), ("IFLA_ADDRESS", MAC), ("IFLA_MTU", 1450), ("IFLA_NET_NS_FD", 9)]
    peer = {"index": 101, "attrs": [*inside, *queues]}
    info = [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", {"attrs": [("VETH_INFO_PEER", peer)]})]
    theirs = oracle(
        ifinfmsg(),
        [("IFLA_IFNAME", "hwv1"), ("IFLA_MTU", 1450), ("IFLA_MASTER", 3), *queues, ("IFLA_LINKINFO", {"attrs": info})],
        index=101,
    )
    ours_tree, theirs_tree = tree(ours.body, 16, INFO), tree(theirs, 16, INFO)
    (ours_peer,), (theirs_peer,) = ours_tree[18][2].values(), theirs_tree[18][2].values()
    assert ours_peer[:16].ljust(16, b"\0") == theirs_peer[:16].ljust(16, b"\0")
    padded = [peer + bytes(-len(peer) & 3) for peer in (ours_peer, theirs_peer)]
    assert attributes(padded[0], 16, len(padded[0])) == attributes(padded[1], 16, len(padded[1]))
    del ours_tree[18], theirs_tree[18]
    assert ours_tree == theirs_tree
    assert ours.body[:16] == theirs[:16]


def test_port_switches_are_encoded_as_pyroute2_encodes_them() -> None:
    """All of them, on or off."""
    ours = link.change_named("hwv1", link.encode_port_flags(frozenset({"mcast_flood", "bcast_flood"})), up=True)
    names = {
        "IFLA_BRPORT_MODE": 0,
        "IFLA_BRPORT_LEARNING": 0,
        "IFLA_BRPORT_UNICAST_FLOOD": 0,
        "IFLA_BRPORT_PROXYARP": 0,
        "IFLA_BRPORT_MCAST_FLOOD": 1,
        "IFLA_BRPORT_BCAST_FLOOD": 1,
        "IFLA_BRPORT_NEIGH_SUPPRESS": 0,
    }
    info = [("IFLA_INFO_SLAVE_KIND", "bridge"), ("IFLA_INFO_SLAVE_DATA", {"attrs": list(names.items())})]
    theirs = oracle(ifinfmsg(), [("IFLA_IFNAME", "hwv1"), ("IFLA_LINKINFO", {"attrs": info})], flags=1, change=1)
    assert tree(ours.body, 16, INFO) == tree(theirs, 16, INFO)
    assert ours.body[:16] == theirs[:16]


@pytest.mark.parametrize("address", ["10.1.0.2", "fd00::2"])
def test_neighbours_are_encoded_as_pyroute2_encodes_them(address: str) -> None:
    """Byte for byte."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    ours = neighbour.neighbour(5, address_bytes(address), mac_bytes(MAC))
    attrs = [("NDA_DST", address), ("NDA_LLADDR", MAC)]
    assert ours.body == oracle(ndmsg(), attrs, family=family, ifindex=5, state=0x80)
    gone = neighbour.remove_neighbour(5, address_bytes(address))
    assert gone.body == oracle(ndmsg(), attrs[:1], family=family, ifindex=5)


@pytest.mark.parametrize("vtep", ["192.0.2.7", "2001:db8::7"])
def test_forwarding_entries_are_encoded_as_pyroute2_encodes_them(vtep: str) -> None:
    """The bridge's entry and the carrier's, byte for byte."""
    mac = mac_bytes(MAC)
    lladdr = [("NDA_LLADDR", MAC)]
    master, own = {"family": 7, "ifindex": 5, "flags": 4}, {"family": 7, "ifindex": 5, "flags": 2}
    learnt = {**master, "flags": 0x14}
    assert neighbour.forward(5, mac).body == oracle(ndmsg(), lladdr, state=0x40, **learnt)
    assert neighbour.remove_forward(5, mac).body == oracle(ndmsg(), lladdr, **master)
    ours = neighbour.tunnel(5, mac, address_bytes(vtep)).body
    assert ours[:24] == oracle(ndmsg(), lladdr, state=0x80, **own)[:24]
    assert attributes(ours, 12, len(ours)) == {2: mac, 1: address_bytes(vtep)}
    assert neighbour.remove_tunnel(5, mac).body == oracle(ndmsg(), lladdr, **own)
    assert neighbour.with_index(ours, 9) == neighbour.tunnel(9, mac, address_bytes(vtep)).body


@pytest.mark.parametrize(
    ("interface", "family", "scope", "flags"),
    [("10.1.0.2/24", 2, 0, None), ("fd00::2/64", 10, 0, 2), ("fe80::1/64", 10, 253, 2)],
)
def test_addresses_are_encoded_as_pyroute2_encodes_them(
    interface: str, family: int, scope: int, flags: int | None
) -> None:
    """An IPv6 one without duplicate detection."""
    address, _, length = interface.partition("/")
    attrs = [("IFA_LOCAL", address), ("IFA_ADDRESS", address)] + ([("IFA_FLAGS", flags)] if flags else [])
    message = ifaddrmsg()
    for name, value in {"family": family, "prefixlen": int(length), "scope": scope, "index": 4}.items():
        message[name] = value
    message["attrs"] = attrs
    message.encode()
    assert route.add_address(4, interface).body == bytes(message.data[16:])


@given(st.lists(st.tuples(st.integers(1, 0x3FFF), st.binary(max_size=40)), unique_by=lambda pair: pair[0]))
def test_attributes_come_back_as_they_were_written(pairs: list[tuple[int, bytes]]) -> None:
    """Whatever their lengths; the padding is nobody's."""
    body = b"".join(attribute(kind, payload) for kind, payload in pairs)
    assert len(body) % 4 == 0
    assert attributes(body, 0, len(body)) == dict(pairs)


@given(st.binary(max_size=200))
def test_no_bytes_hang_or_crash_the_decoder(junk: bytes) -> None:
    """A kernel of another version may send anything."""
    attributes(junk, 0, len(junk))
    list(messages(junk))


def test_numbers_and_text() -> None:
    """In the machine's order, of any width; text without its end."""
    body = attribute_u8(1, 7) + attribute_u16(2, 70_00) + attribute_u32(3, 70_000) + attribute_text(4, "eth0")
    found = attributes(body, 0, len(body))
    assert [number(found[kind]) for kind in (1, 2, 3)] == [7, 7000, 70_000]
    assert text(found[4]) == "eth0"
    assert number(None, 5) == 5
    assert text(None) == ""


@pytest.mark.parametrize("capped", [True, False])
def test_an_error_has_the_kernels_own_words(capped: bool) -> None:
    """With or without the refused request in it."""
    request = HEADER.pack(20, 16, 5, 1, 0) + b"abcd"
    original = request[:16] if capped else request
    body = struct.pack("=i", -errno.EEXIST) + original + attribute_text(1, "it is there")
    error = decode_error(body, F_ACK_TLVS | (F_CAPPED if capped else 0), 0, len(body))
    assert error is not None
    assert (error.errno, str(error)) == (errno.EEXIST, "it is there")


def test_an_error_without_words_has_those_of_its_number() -> None:
    """And zero is an acknowledgement."""
    error = decode_error(struct.pack("=i", -errno.ENODEV) + bytes(16), F_CAPPED, 0, 20)
    assert str(error) == "No such device"
    assert decode_error(bytes(20), F_CAPPED, 0, 20) is None


def test_an_interrupted_dump_is_repeated_and_the_last_attempt_counts() -> None:
    """It ends, however often it is interrupted."""
    attempts = []

    def dump() -> Any:
        attempts.append(1)
        yield len(attempts)
        if len(attempts) < 3:
            raise DumpInterruptedError

    assert taken(dump) == [3]

    def never() -> Any:
        yield "row"
        raise DumpInterruptedError

    assert taken(never) == ["row"]
