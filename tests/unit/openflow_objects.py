"""Made-up objects of a switch, and a switch that is nothing but its tables."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import strategies as st

from sdn.model.address import format_address, format_mac, link_local
from sdn.openflow import cookies
from sdn.openflow.decode import Entry, entry_of
from sdn.openflow.objects import TUNNEL, Gateway, Member, Neighbour, NetworkFlows, Speaker, Station, gateway_mac
from sdn.reconcile.datapath import Key, Object

PORTS = {TUNNEL: 1} | {f"hwv{number}": 16 + number for number in range(6)}
FOREIGN = Entry(0, 1, 0xF00, 7, 7, bytes.fromhex("0001000400000000"), b"")

_vnis = st.integers(1, (1 << 24) - 1)
_macs = st.integers(1, (1 << 40) - 1).map(lambda number: format_mac(b"\x0a" + number.to_bytes(5, "big")))
_four = st.integers(1, (1 << 32) - 1).map(lambda number: format_address(4, number))
_six = st.integers(1, (1 << 128) - 1).map(lambda number: format_address(6, number))
_addresses = _four | _six
_endpoints = st.integers(0, (1 << 40) - 1).map(lambda number: cookies.make(cookies.Kind.ENDPOINT, number))
_tenants = st.integers(0, (1 << 32) - 1)
_locals = st.sampled_from([name for name in PORTS if name != TUNNEL])


def _speaker(vni: int, mac: str, addresses: Iterable[str], cookie: int) -> Speaker:
    return Speaker(vni, mac, tuple(sorted(set(addresses) - {link_local(mac)})), cookie)


def _networks() -> st.SearchStrategy[tuple[Key, Object]]:
    return st.one_of(
        st.builds(lambda vni, tenant: (("network", str(vni)), NetworkFlows(tenant)), _vnis, _tenants),
        st.builds(
            lambda vni, address, tenant: (("gateway", str(vni), address), Gateway(gateway_mac(vni), tenant)),
            _vnis, _addresses, _tenants,
        ),
        st.builds(lambda vni, vtep: (("member", str(vni), vtep), Member()), _vnis, _addresses),
    )  # fmt: skip


def _speaks() -> st.SearchStrategy[tuple[Key, Object]]:
    speakers = st.builds(_speaker, _vnis, _macs, st.lists(_addresses, max_size=4), _endpoints)
    return st.tuples(_locals.map(lambda name: ("speaker", name)), speakers)


def _others() -> st.SearchStrategy[tuple[Key, Object]]:
    ways = st.one_of(
        st.builds(lambda port, cookie: Station(port, "", cookie), _locals, _endpoints),
        st.builds(lambda vtep, cookie: Station("", vtep, cookie), _addresses, _endpoints),
    )
    return st.one_of(
        st.builds(lambda vni, mac, way: (("station", str(vni), mac), way), _vnis, _macs, ways),
        st.builds(
            lambda vni, address, mac, cookie: (("neighbour", str(vni), address), Neighbour(mac, cookie)),
            _vnis, _addresses, _macs, _endpoints,
        ),
    )  # fmt: skip


def _apart(objects: dict[Key, Object]) -> dict[Key, Object]:
    """A tenant has each gateway's address once."""
    taken, kept = set(), {}
    for key, value in objects.items():
        if isinstance(value, Gateway):
            if (value.tenant, key[2]) in taken:
                continue
            taken.add((value.tenant, key[2]))
        kept[key] = value
    return kept


one_object = st.one_of(_networks(), _speaks(), _others())
many_objects = st.lists(one_object, max_size=20).map(dict).map(_apart)
"""Of one switch, as they may be there together."""


class Tables:
    """A switch's tables, and what flow-mods do to them. Only what is sent to it: ADD and DELETE_STRICT."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self.entries = {(entry.table, entry.priority, entry.match): entry for entry in entries}

    def take(self, messages: Iterable[bytes]) -> None:
        """As Open vSwitch does: an ADD keeps the counts of the flow that it replaces."""
        for message in messages:
            entry, command = entry_of(message), message[25]
            identity = (entry.table, entry.priority, entry.match)
            there = self.entries.get(identity)
            if command == 0:
                if there is not None:
                    entry = entry._replace(packets=there.packets, bytes=there.bytes)
                self.entries[identity] = entry
            else:
                assert command == 4, "a deletion of one flow"
                mask = int.from_bytes(message[16:24], "big")
                if there is not None and (there.cookie ^ entry.cookie) & mask == 0:
                    del self.entries[identity]

    def told(self) -> list[Entry]:
        """In an order that means nothing."""
        return sorted(self.entries.values(), key=lambda entry: hash((entry.match, entry.table)))
