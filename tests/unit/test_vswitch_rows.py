"""What the database of an Open vSwitch should say, what it says, and the way from one to the other; no daemon runs."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from plugin.datapath.openflow import infrastructure, splice_table
from plugin.datapath.openflow.infrastructure import BRIDGE, PHYSICAL, wanted_bridges
from plugin.datapath.openflow.ports import FIRST_NUMBER, LAST_NUMBER, NewPort, Ports
from plugin.kernel.ovsdb import Operation, RowChange, decode_value, elements
from plugin.kernel.route import NextHop
from sdn.model.errors import HawseError, Kind
from sdn.openflow import cookies
from sdn.openflow.updates import tells_of_ours

OWNER = "me"
DEFAULTS: dict[str, dict[str, Any]] = {
    "Bridge": {"external_ids": {}, "datapath_type": "", "fail_mode": (), "controller": (), "ports": ()},
    "Port": {},
    "Interface": {
        "type": "", "options": {}, "external_ids": {}, "ofport": (), "ofport_request": (), "mtu_request": (),
        "error": (), "mac_in_use": (),
    },
}  # fmt: skip


class Rowbook:
    """A database that does what it is told, and a switch that numbers ports; as much of both as is needed here."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, dict[str, Any]]] = {
            "Open_vSwitch": {"root": {"bridges": (), "cur_cfg": 0, "next_cfg": 0, "datapath_types": "netdev"}},
            "Bridge": {}, "Port": {}, "Interface": {},
        }  # fmt: skip
        self._count = itertools.count()
        self.devices_missing: set[str] = set()

    def transact(self, operations: list[Operation]) -> list[RowChange]:
        """Do them; what has changed."""
        before = {table: {uuid: dict(row) for uuid, row in rows.items()} for table, rows in self.rows.items()}
        named = {each["uuid-name"]: f"u{next(self._count)}" for each in operations if each["op"] == "insert"}
        for each in operations:
            if each["op"] == "insert":
                row = {key: self._value(value, named) for key, value in each["row"].items()}
                self.rows[each["table"]][named[each["uuid-name"]]] = DEFAULTS[each["table"]] | row
                continue
            uuid = each["where"][0][2][1]
            row = self.rows[each["table"]][uuid]
            if each["op"] == "update":
                row.update({key: self._value(value, named) for key, value in each["row"].items()})
            for column, mutator, value in each.get("mutations", ()):
                row[column] = _mutated(row[column], mutator, self._value(value, named))
        self._collect()
        self._number()
        changes = []
        for table, rows in self.rows.items():
            for uuid in before[table].keys() | rows.keys():
                old, new = before[table].get(uuid), rows.get(uuid)
                if old != new:
                    changes.append(RowChange(table, uuid, old, None if new is None else dict(new)))
        return changes

    def _value(self, value: Any, named: dict[str, str]) -> Any:
        if isinstance(value, list) and value and value[0] == "named-uuid":
            return named[value[1]]
        if isinstance(value, list) and value and value[0] == "set":
            found = tuple(self._value(each, named) for each in value[1])
            return found[0] if len(found) == 1 else found
        return decode_value(value)

    def _collect(self) -> None:
        bridges = set(elements(self.rows["Open_vSwitch"]["root"]["bridges"]))
        self.rows["Bridge"] = {uuid: row for uuid, row in self.rows["Bridge"].items() if uuid in bridges}
        ports = {uuid for row in self.rows["Bridge"].values() for uuid in elements(row["ports"])}
        self.rows["Port"] = {uuid: row for uuid, row in self.rows["Port"].items() if uuid in ports}
        interfaces = {row["interfaces"] for row in self.rows["Port"].values()}
        self.rows["Interface"] = {uuid: row for uuid, row in self.rows["Interface"].items() if uuid in interfaces}

    def _number(self) -> None:
        for row in self.rows["Interface"].values():
            if row["name"] in self.devices_missing:
                row["error"] = "no such device"
            elif row["ofport"] == ():
                row["ofport"], row["mac_in_use"] = row["ofport_request"] or 65534, "02:00:00:00:00:01"


def _mutated(value: Any, mutator: str, argument: Any) -> Any:
    if mutator == "+=":
        return value + argument
    if isinstance(value, dict):
        if mutator == "insert":
            return value | argument
        return {key: each for key, each in value.items() if key not in elements(argument)}
    kept = [each for each in elements(value) if each not in elements(argument)]
    found = (*kept, *elements(argument)) if mutator == "insert" else tuple(kept)
    return found[0] if len(found) == 1 else found


def _made(kind: str = "netdev", mtu_bytes: int = 1500) -> Rowbook:
    book = Rowbook()
    book.transact(infrastructure.operations(book.rows, OWNER, wanted_bridges(kind, mtu_bytes)))
    return book


class TestInfrastructure:
    @pytest.mark.parametrize(("kind", "bridges"), [("netdev", {BRIDGE, PHYSICAL}), ("system", {BRIDGE})])
    def test_made_it_is_whole(self, kind: str, bridges: set[str]):
        book = _made(kind)
        wanted = wanted_bridges(kind, 1500)
        assert {row["name"] for row in book.rows["Bridge"].values()} == bridges
        assert infrastructure.faults(book.rows, OWNER, wanted) == []
        assert infrastructure.operations(book.rows, OWNER, wanted) == []

    @pytest.mark.parametrize(
        ("table", "name", "column", "value"),
        [
            ("Bridge", BRIDGE, "datapath_type", "system"),
            ("Bridge", BRIDGE, "fail_mode", ()),
            ("Bridge", PHYSICAL, "controller", "c"),
            ("Interface", "hwvxlan", "options", {"remote_ip": "192.0.2.1"}),
            ("Interface", "hwvxlan", "type", "gre"),
            ("Interface", "hwvxlan", "ofport", 9),
            ("Interface", "hwvxlan", "error", "could not"),
            ("Interface", "hwu1", "ofport_request", ()),
            ("Interface", PHYSICAL, "mtu_request", 1400),
        ],
    )
    def test_what_differs_is_told_and_mended(self, table: str, name: str, column: str, value: Any):
        book, wanted = _made(), wanted_bridges("netdev", 1500)
        next(row for row in book.rows[table].values() if row["name"] == name)[column] = value
        (told,) = infrastructure.faults(book.rows, OWNER, wanted)
        assert name in told
        book.transact(infrastructure.operations(book.rows, OWNER, wanted))
        assert infrastructure.faults(book.rows, OWNER, wanted) == []

    def test_a_change_of_mtu_keeps_the_ports(self):
        book = _made()
        before = book.rows["Port"].keys()
        book.transact(infrastructure.operations(book.rows, OWNER, wanted_bridges("netdev", 9000)))
        assert book.rows["Port"].keys() == before

    @pytest.mark.parametrize("missing", ["hwvxlan", "hwu1"])
    def test_a_port_that_is_gone_is_made_again(self, missing: str):
        book, wanted = _made(), wanted_bridges("netdev", 1500)
        bridge = PHYSICAL if missing == "hwu1" else BRIDGE
        book.transact(infrastructure.port_removal(book.rows, OWNER, bridge, missing))
        assert f"no port {missing}" in infrastructure.faults(book.rows, OWNER, wanted)[0]
        assert infrastructure.port_removal(book.rows, OWNER, bridge, missing) == []
        book.transact(infrastructure.operations(book.rows, OWNER, wanted))
        assert infrastructure.faults(book.rows, OWNER, wanted) == []

    def test_what_is_not_ours_is_not_touched(self):
        book, wanted = _made(), wanted_bridges("netdev", 1500)
        with pytest.raises(HawseError, match="another installation") as caught:
            infrastructure.operations(book.rows, "somebody", wanted)
        assert caught.value.kind is Kind.CONFLICT
        assert infrastructure.removal(book.rows, "somebody") == []
        assert len(infrastructure.faults(book.rows, "somebody", wanted)) == 2
        book.transact(infrastructure.removal(book.rows, OWNER))
        assert book.rows["Bridge"] == book.rows["Interface"] == {}


def _ports(*names: str) -> tuple[Rowbook, Ports]:
    book = _made()
    ports = Ports(book.rows, OWNER)
    if names:
        _change(book, ports, add=names)
    return book, ports


def _change(book: Rowbook, ports: Ports, add: tuple[str, ...] = (), remove: tuple[str, ...] = ()) -> dict[str, int]:
    operations, numbers = ports.plan({name: NewPort({"hawse-tenant": f"t-{name}"}) for name in add}, remove, {})
    assert ports.note(book.transact(operations)) == set(), "our own doing is no news"
    ports.decided(numbers, [name for name, number in numbers.items() if ports.verdict(name, number)])
    return numbers


class TestPorts:
    def test_they_come_and_go(self):
        book, ports = _ports("a", "b")
        assert {name: row.number for name, row in ports.there.items()} == {"a": FIRST_NUMBER, "b": FIRST_NUMBER + 1}
        _change(book, ports, add=("c",), remove=("a",))
        assert ports.there.keys() == {"b", "c"}
        assert Ports(book.rows, OWNER).there == ports.there

    def test_a_name_that_comes_again_waits_for_the_switch(self):
        book, ports = _ports("a", "b")
        assert ports.again(("a",), ()) == [], "it is there and sound: what it remembers changes"
        assert ports.again(("a",), ("a",)) == ["a"]
        _change(book, ports, remove=("a",))
        assert ports.again(("a", "c"), ()) == ["a"]
        root = book.rows["Open_vSwitch"]["root"]
        root["cur_cfg"] = root["next_cfg"]
        ports.note([RowChange("Open_vSwitch", "root", root, root)])
        assert ports.again(("a", "c"), ()) == []

    def test_numbers_run_out_with_a_sentence(self):
        _, ports = _ports()
        ports._wanted = {str(number): (number, {}) for number in range(FIRST_NUMBER, LAST_NUMBER + 1)}
        with pytest.raises(HawseError, match="it is full") as caught:
            ports.plan({"a": NewPort({})}, (), {})
        assert caught.value.kind is Kind.EXHAUSTED

    def test_one_that_fails_is_told_to_who_waits(self):
        book, ports = _ports()
        book.devices_missing = {"b"}
        numbers = _change(book, ports, add=("a", "b"))
        assert ports.verdict("a", numbers["a"]) is None
        assert "no such device" in str(ports.verdict("b", numbers["b"]))
        assert "removed by others" in str(ports.verdict("c", 5))

    def test_others_hands_are_news_of_the_tenant(self):
        book, ports = _ports("a", "b")
        (uuid,) = (uuid for uuid, row in book.rows["Interface"].items() if row["name"] == "a")
        book.rows["Interface"][uuid]["mac_in_use"] = ()
        changed = RowChange("Interface", uuid, None, book.rows["Interface"][uuid])
        assert ports.note([changed]) == {"a"}
        assert ports.there["a"].error == "its device is gone"
        (port,) = (uuid for uuid, row in book.rows["Port"].items() if row["name"] == "b")
        (bridge,) = (uuid for uuid, row in book.rows["Bridge"].items() if row["name"] == BRIDGE)
        removal: Operation = {
            "op": "mutate", "table": "Bridge", "where": [["_uuid", "==", ["uuid", bridge]]],
            "mutations": [["ports", "delete", ["uuid", port]]],
        }  # fmt: skip
        assert "b" in ports.note(book.transact([removal]))
        assert ports.tenants({"a", "b"}) == ["t-a", "t-b"]
        assert ports.tenants({"a", ""}) is None

    def test_networks_are_remembered(self):
        book, ports = _ports()
        operations, _ = ports.plan({}, (), {5: ("web", "blue"), 6: ("db", "red")})
        assert ports.note(book.transact(operations)) == set()
        operations, _ = ports.plan({}, (), {5: None})
        assert ports.note(book.transact(operations)) == set()
        assert ports.networks == {6: ("db", "red")}


class TestSplice:
    def test_its_sets(self):
        ways = {"192.0.2.2": NextHop("192.0.2.254", 7), "2001:db8::2": NextHop("fe80::1", 7)}
        found = splice_table.wanted_elements({5}, ("192.0.2.1", "2001:db8::1"), ways)
        assert found["vni"] == {b"\0\0\5": b""}
        assert found["own4"].keys() == {bytes((192, 0, 2, 1))}
        assert found["next4"] == {bytes((192, 0, 2, 2)): bytes((192, 0, 2, 254))}
        assert len(found["next6"]) == len(found["link6"]) == 1

    def test_what_cannot_be_said_is_left_out(self):
        found = splice_table.wanted_elements((), (), {"192.0.2.2": NextHop("fe80::1", 7)})
        assert not any(found.values())

    def test_a_link_made_anew_is_another(self):
        versions = {splice_table.version_of({"hwu0": 3, **links}) for links in ({}, {"eth0": 2}, {"eth0": 4})}
        assert len(versions) == 3
        assert "chain down" not in splice_table.text_of({"hwu0": 3}, (0, 0), {})


@pytest.mark.parametrize(
    ("entries", "ours"),
    [
        (b"", False),
        (bytes.fromhex("0028 0000 0000 8000 0000 0000 000c 00 00") + cookies.of_network(5).to_bytes(8, "big"), True),
        (bytes.fromhex("0028 0000 0000 8000 0000 0000 000c 00 00") + bytes(8), False),
        (bytes.fromhex("0008 0003 00000001") + bytes(8), False),
        (bytes.fromhex("0008 0003 00000001 0028 0001 0002 8000 0000 0000 000c 00 00 48570200 00000005"), True),
        (bytes.fromhex("0000 0000"), False),
        (b"\0", False),
    ],
    ids=["none", "ours", "theirs", "own-doing", "behind", "zero-length", "cut"],
)
def test_what_a_flow_monitor_tells(entries: bytes, ours: bool):
    assert tells_of_ours(bytes.fromhex("4f4e46000000074e") + entries) is ours
