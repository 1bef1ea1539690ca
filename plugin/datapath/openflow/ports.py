"""The ports of hwint that containers are behind: as the database tells of them, as they should be, and what they get.

Pure but for what it remembers. Numbers are ours to choose, so that flows can be sent while the database works; one that
was given up comes back last, for flows that mention it may be on their way out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from plugin.datapath.openflow import infrastructure
from plugin.datapath.openflow.infrastructure import BRIDGE, TUNNEL, VNI_KEY, Rows, networks_of
from plugin.kernel.ovsdb import (
    Operation,
    Row,
    RowChange,
    elements,
    encode_map,
    encode_set,
    insert,
    mutate,
    named,
    reference,
    update,
)
from sdn.model.errors import HawseError, conflict, exhausted, unavailable
from sdn.model.ids import TenantId

FIRST_NUMBER: Final = 16
LAST_NUMBER: Final = 0xFE00
TENANT_KEY: Final = "hawse-tenant"
_INFRASTRUCTURE: Final = frozenset({BRIDGE, TUNNEL})


@dataclasses.dataclass(frozen=True, slots=True)
class PortRow:
    """A port of hwint that a container is behind. `number`: 0 while the switch has none; `error`: why it has none."""

    number: int
    external_ids: Mapping[str, str]
    error: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class NewPort:
    """A device of the host's namespace that is to be a port; its number is chosen by `change`."""

    external_ids: Mapping[str, str]


def row_of(interface: Row) -> PortRow:
    """Of an interface's columns."""
    number, error = interface["ofport"], elements(interface["error"])
    there = number if isinstance(number, int) and number > 0 else 0
    if there and interface["mac_in_use"] == ():
        error = ("its device is gone",)
    return PortRow(there, interface["external_ids"], str(error[0]) if error else "")


class Ports:
    """What the database says now (`there`, `networks`), and what we have last wanted of it."""

    def __init__(self, rows: Rows, owner: str) -> None:
        self._rows = rows
        self._owner = owner
        self.there: dict[str, PortRow] = {}
        self.networks: dict[int, tuple[str, str]] = {}
        self._uuids: dict[str, str] = {}
        self._known: dict[str, tuple[str, str]] = {}
        self._interfaces: dict[str, str] = {}
        self._wanted: dict[str, tuple[int, Mapping[str, str]]] = {}
        self._wanted_networks: dict[int, tuple[str, str]] = {}
        self._undecided: set[str] = set()
        self._left: set[str] = set()
        self._last = FIRST_NUMBER - 1
        self._read()
        self.accept()

    def accept(self) -> None:
        """What is there is as it should be: of an agent before us, or after a mending."""
        self._wanted = {name: (row.number, row.external_ids) for name, row in self.there.items() if row.number}
        self._wanted_networks = dict(self.networks)

    def _bridge(self) -> tuple[str, Row] | None:
        try:
            return infrastructure.bridge_row(self._rows, BRIDGE, self._owner)
        except HawseError:
            return None

    def _read(self) -> None:
        """By uuid: of a port its name and its interface, of an interface its name; by name: the port, what it is."""
        self._uuids, self._known, self._interfaces, self.there = {}, {}, {}, {}
        found = self._bridge()
        self.networks = networks_of(found[1]) if found else {}
        for uuid in elements(found[1]["ports"]) if found else ():
            self._enter(uuid)

    def _enter(self, uuid: str) -> str:
        """Note a port that has come; its name, "" where it is no container's."""
        port = self._rows["Port"].get(uuid)
        interface_uuid = elements(port["interfaces"])[0] if port else ""
        interface = self._rows["Interface"].get(interface_uuid)
        if interface is None or interface["name"] in _INFRASTRUCTURE:
            return ""
        name: str = interface["name"]
        self._known[uuid], self._uuids[name], self._interfaces[interface_uuid] = (name, interface_uuid), uuid, name
        self.there[name] = row_of(interface)
        return name

    def _leave(self, uuid: str) -> str:
        """Note a port that has gone; its name."""
        name, interface_uuid = self._known.pop(uuid)
        self._interfaces.pop(interface_uuid, None)
        if self._uuids.get(name) == uuid:
            del self._uuids[name], self.there[name]
        return name

    def note(self, changes: Iterable[RowChange]) -> set[str]:
        """Follow what has changed; the names of ports that are not as wanted any more, "" for a network's."""
        touched: set[str] = set()
        news: set[str] = set()
        for change in changes:
            if change.table == "Open_vSwitch":
                self._note_done(change)
            elif change.table == "Bridge":
                touched |= self._note_bridge(change)
                news |= {""} if self.networks != self._wanted_networks else set()
            elif change.table == "Interface" and change.uuid in self._interfaces and change.after is not None:
                name = self._interfaces[change.uuid]
                self.there[name] = row_of(change.after)
                touched.add(name)
        return news | {name for name in touched if not self._is_as_wanted(name)}

    def _note_done(self, change: RowChange) -> None:
        """The switch has let go of the devices of ports that are gone."""
        row = change.after
        if row is not None and row["cur_cfg"] >= row["next_cfg"]:
            self._left &= self._uuids.keys()

    def _note_bridge(self, change: RowChange) -> set[str]:
        row = change.after or change.before
        if row is None or row["name"] != BRIDGE:
            return set()
        known = self._bridge()
        now = set(elements(known[1]["ports"])) if known else set()
        self.networks = networks_of(known[1]) if known else {}
        gone = {self._leave(uuid) for uuid in self._known.keys() - now}
        return (gone | {self._enter(uuid) for uuid in now - self._known.keys()}) - {""}

    def _is_as_wanted(self, name: str) -> bool:
        if name in self._undecided:  # whoever waits for it is told
            return True
        there, wanted = self.there.get(name), self._wanted.get(name)
        if there is None or wanted is None:
            return wanted is None and (there is None or TENANT_KEY not in there.external_ids)
        return not there.error and there.number in (0, wanted[0]) and there.external_ids == wanted[1]

    def tenants(self, names: Collection[str]) -> list[TenantId] | None:
        """Whose ports they are, as far as that is known of each; None: it is not."""
        found: set[str] = set()
        for name in names:
            wanted, there = self._wanted.get(name), self.there.get(name)
            ids = wanted[1] if wanted else there.external_ids if there else {}
            if TENANT_KEY not in ids:
                return None
            found.add(ids[TENANT_KEY])
        return sorted(map(TenantId, found))

    def strangers(self, names: Collection[str]) -> set[str]:
        """Those of some names that are ports of somebody else's. In any thread."""
        rows = list(self._rows["Interface"].values())
        return {row["name"] for row in rows if row["name"] in names and row["name"] not in self.there}

    def again(self, add: Collection[str], remove: Collection[str]) -> list[str]:
        """New ports whose name the switch has, or had a moment ago, for another device."""
        known = set(remove) | self._left
        return [name for name in add if name in known or (name in self.there and not self._is_sound(name))]

    def _is_sound(self, name: str) -> bool:
        there = self.there[name]
        return bool(there.number) and not there.error

    def plan(
        self,
        add: Mapping[str, NewPort],
        remove: Collection[str],
        networks: Mapping[int, tuple[str, str] | None],
    ) -> tuple[list[Operation], dict[str, int]]:
        """The operations of a change, and the numbers of the ports; it counts as wanted from now on.

        Raises: UNAVAILABLE (the bridge is not there), EXHAUSTED (no number is left).
        """
        found = self._bridge()
        if found is None:
            raise unavailable(f"Open vSwitch has no bridge {BRIDGE} that is ours", "the next reconcile makes it")
        gone = {self._uuids[name] for name in remove if name in self._uuids}
        new: dict[str, tuple[int, NewPort]] = {}
        kept: list[Operation] = []
        taken = {number for number, _ in self._wanted.values()} | {row.number for row in self.there.values()}
        for name, port in add.items():
            there = self.there.get(name)
            if there is not None and there.number and not there.error and name not in remove:
                uuid = self._known[self._uuids[name]][1]
                kept.append(update("Interface", uuid, {"external_ids": encode_map(port.external_ids)}))
                self._wanted[name] = there.number, port.external_ids
                continue
            new[name] = self._number(taken), port
        for name in remove:
            self._wanted.pop(name, None)
        self._left = (self._left | {name for name in remove if name in self._uuids}) - new.keys()
        self._wanted |= {name: (number, port.external_ids) for name, (number, port) in new.items()}
        self._undecided |= new.keys()
        operations = [*kept, *_inserts(new), *self._mutations(found[0], new, gone, networks)]
        return operations, {name: self._wanted[name][0] for name in add}

    def _mutations(
        self,
        bridge: str,
        new: Collection[str],
        gone: Collection[str],
        networks: Mapping[int, tuple[str, str] | None],
    ) -> list[Operation]:
        mutations: list[tuple[str, str, Any]] = []
        if gone:
            mutations.append(("ports", "delete", encode_set(map(reference, gone))))
        if new:
            mutations.append(("ports", "insert", encode_set(named(f"p{place}") for place in range(len(new)))))
        if networks:
            mutations.append(("external_ids", "delete", encode_set(f"{VNI_KEY}{vni}" for vni in networks)))
            kept = {f"{VNI_KEY}{vni}": " ".join(names) for vni, names in networks.items() if names is not None}
            mutations.append(("external_ids", "insert", encode_map(kept)))
        for vni, names in networks.items():
            if names is None:
                self._wanted_networks.pop(vni, None)
            else:
                self._wanted_networks[vni] = names
        return [mutate("Bridge", bridge, *mutations)] if mutations else []

    def _number(self, taken: set[int]) -> int:
        for step in range(1, LAST_NUMBER - FIRST_NUMBER + 2):
            number = FIRST_NUMBER + (self._last - FIRST_NUMBER + step) % (LAST_NUMBER - FIRST_NUMBER + 1)
            if number not in taken:
                self._last = number
                taken.add(number)
                return number
        raise exhausted(f"the bridge {BRIDGE} has a port for each of {len(taken)} numbers: it is full")

    def is_decided(self, name: str) -> bool:
        """Whether the switch has given a number to a new port, or refused to."""
        row = self.there.get(name)
        return row is None or bool(row.number or row.error)

    def verdict(self, name: str, number: int) -> HawseError | None:
        """What has become of a new port."""
        row = self.there.get(name)
        if row is None:
            return conflict(f"the port {name} of {BRIDGE} was removed by others as it was made", port=name)
        if row.error:
            return unavailable(f"Open vSwitch cannot make {name} a port of {BRIDGE}: {row.error}", port=name)
        if row.number != number:
            return conflict(
                f"Open vSwitch gave port {name} of {BRIDGE} the number {row.number} and not {number}: somebody else's"
                " port has it",
                f"remove it (ovs-vsctl list-ports {BRIDGE} shows all)",
                port=name,
            )
        return None

    def decided(self, names: Collection[str], failed: Collection[str]) -> None:
        """A change of these has ended; of those that failed it is no news that they are not so."""
        self._undecided -= set(names)
        for name in failed:
            self._wanted.pop(name, None)

    def give_up(self) -> None:
        """Nothing is wanted any more."""
        self._wanted, self._wanted_networks = {}, {}


def _inserts(new: Mapping[str, tuple[int, NewPort]]) -> list[Operation]:
    found: list[Operation] = []
    for place, (name, (number, port)) in enumerate(new.items()):
        row = {"name": name, "ofport_request": number, "external_ids": encode_map(port.external_ids)}
        found.append(insert("Interface", row, f"i{place}"))
        found.append(insert("Port", {"name": name, "interfaces": named(f"i{place}")}, f"p{place}"))
    return found
