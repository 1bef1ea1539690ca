"""What Open vSwitch's database says of the bridges that are ours: as it should be, what differs, and how to mend it.

Pure: rows in, operations and sentences out. What is not marked with our owner's id is nobody's business of ours; a name
that we need and somebody else has is an error.

Source: ovs-vswitchd.conf.db(5).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

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
from plugin.kernel.route import COPIES
from sdn.model.errors import HawseError, conflict

BRIDGE: Final = "hwint"
TUNNEL: Final = "hwvxlan"
TUNNEL_PORT: Final = 1
"""The number of hwvxlan in hwint."""
PHYSICAL: Final = COPIES
UPLINK_PORT: Final = 1
"""The number of the splice in hwphy."""
SWITCH_END: Final = "hwu1"
"""The switch's end of the splice."""
_NAMES: Final = frozenset({BRIDGE, TUNNEL, PHYSICAL, SWITCH_END})
OWNER: Final = "hawse"
"""The key of a bridge's `external_ids` that marks it as ours."""
VNI_KEY: Final = "hawse-vni-"

COLUMNS: Final[dict[str, list[str]]] = {
    "Open_vSwitch": ["bridges", "cur_cfg", "next_cfg", "datapath_types"],
    "Bridge": ["name", "ports", "external_ids", "datapath_type", "fail_mode", "controller"],
    "Port": ["name", "interfaces"],
    "Interface": [
        "name",
        "type",
        "options",
        "external_ids",
        "ofport",
        "ofport_request",
        "mtu_request",
        "error",
        "mac_in_use",
    ],
}
Rows = Mapping[str, Mapping[str, Row]]


@dataclasses.dataclass(frozen=True, slots=True)
class WantedPort:
    """A port that the infrastructure has. `number` 0: the switch's own (LOCAL). `mtu_bytes` 0: whatever it has."""

    type: str = ""
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    number: int = 0
    mtu_bytes: int = 0

    def row(self, name: str) -> dict[str, Any]:
        """Its interface's columns."""
        row: dict[str, Any] = {"name": name, "type": self.type, "options": encode_map(self.options)}
        if self.number:
            row["ofport_request"] = self.number
        if self.mtu_bytes:
            row["mtu_request"] = self.mtu_bytes
        return row

    def is_met(self, row: Row) -> bool:
        """Whether an interface is so."""
        return (
            row["type"] == self.type
            and row["options"] == self.options
            and (not self.number or row["ofport_request"] == self.number)
            and (not self.mtu_bytes or row["mtu_request"] == self.mtu_bytes)
        )


@dataclasses.dataclass(frozen=True, slots=True)
class WantedBridge:
    """A bridge of ours and the ports in it that belong to nobody."""

    name: str
    datapath_type: str
    ports: Mapping[str, WantedPort]


def wanted_bridges(datapath_type: str, mtu_bytes: int) -> list[WantedBridge]:
    """With the userspace datapath the way out is spliced; the kernel's needs none."""
    tunnel = {"remote_ip": "flow", "key": "flow", "dst_port": "4789", "df_default": "false"}
    ports = {BRIDGE: WantedPort("internal"), TUNNEL: WantedPort("vxlan", tunnel, TUNNEL_PORT)}
    bridges = [WantedBridge(BRIDGE, datapath_type, ports)]
    if datapath_type == "netdev":
        ports = {PHYSICAL: WantedPort("internal", mtu_bytes=mtu_bytes), SWITCH_END: WantedPort(number=UPLINK_PORT)}
        bridges.append(WantedBridge(PHYSICAL, datapath_type, ports))
    return bridges


def find(rows: Rows, table: str, name: str) -> tuple[str, Row] | None:
    """(uuid, columns) of the row of a name."""
    return next(((uuid, row) for uuid, row in rows[table].items() if row["name"] == name), None)


def ports_of(rows: Rows, bridge: Row) -> Iterator[tuple[str, Row]]:
    """(uuid of the port, columns of its interface) of a bridge; bonds are none of ours."""
    for uuid in elements(bridge["ports"]):
        port = rows["Port"].get(uuid)
        if port is not None:
            interface = rows["Interface"].get(elements(port["interfaces"])[0])
            if interface is not None:
                yield uuid, interface


def bridge_row(rows: Rows, name: str, owner: str) -> tuple[str, Row] | None:
    """Our bridge of that name; None: it is not there. Raises: CONFLICT where it is not ours."""
    found = find(rows, "Bridge", name)
    if found is None:
        return None
    mark = found[1]["external_ids"].get(OWNER)
    if mark == owner:
        return found
    whose = f"another installation's of Hawse ({mark})" if mark else "not Hawse's"
    raise conflict(
        f"Open vSwitch has a bridge {name} that is {whose}",
        f"rename or remove it (ovs-vsctl del-br {name}), if nobody needs it",
        bridge=name,
    )


def faults(rows: Rows, owner: str, wanted: list[WantedBridge]) -> list[str]:
    """What differs, as sentences. Empty: nothing."""
    found: list[str] = []
    for bridge in wanted:
        try:
            there = bridge_row(rows, bridge.name, owner)
        except HawseError as error:
            found.append(str(error))
            continue
        if there is None:
            found.append(f"Open vSwitch has no bridge {bridge.name}")
            continue
        if _bridge_columns(bridge, there[1]):
            found.append(f"the bridge {bridge.name} of Open vSwitch has other settings")
        interfaces = {interface["name"]: interface for _, interface in ports_of(rows, there[1])}
        found += [text for name in bridge.ports if (text := _port_fault(bridge, name, interfaces.get(name)))]
    return found


def _port_fault(bridge: WantedBridge, name: str, interface: Row | None) -> str:
    wanted = bridge.ports[name]
    if interface is None:
        return f"the bridge {bridge.name} of Open vSwitch has no port {name}"
    if error := elements(interface["error"]):
        return f"the port {name} of {bridge.name} does not work: {error[0]}"
    if not wanted.is_met(interface):
        return f"the port {name} of {bridge.name} has other settings"
    if interface["ofport"] != () and interface["mac_in_use"] == () and name != BRIDGE:  # whose device nobody uses
        return f"the device of the port {name} of {bridge.name} is gone"
    number = interface["ofport"]
    if wanted.number and number not in (wanted.number, ()):
        return f"the port {name} of {bridge.name} has the number {number} instead of {wanted.number}"
    return ""


def _bridge_columns(wanted: WantedBridge, row: Row) -> dict[str, Any]:
    """The columns that are to be written."""
    columns: dict[str, Any] = {}
    if row["datapath_type"] != wanted.datapath_type:
        columns["datapath_type"] = wanted.datapath_type
    if row["fail_mode"] != "secure":
        columns["fail_mode"] = "secure"
    if elements(row["controller"]):  # the flows are ours; and when the last one goes, the switch forgets them all
        columns["controller"] = encode_set(())
    return columns


def operations(rows: Rows, owner: str, wanted: list[WantedBridge]) -> list[Operation]:
    """What makes it so; empty: it is. Raises: CONFLICT where a name is taken."""
    root = next(iter(rows["Open_vSwitch"]))
    found: list[Operation] = []
    for bridge in wanted:
        there = bridge_row(rows, bridge.name, owner)
        taken = _names_elsewhere(rows, bridge, there)
        if taken:
            raise conflict(
                f"Open vSwitch has a port {taken} that is not in {bridge.name}, where Hawse needs one of that name",
                f"remove it (ovs-vsctl del-port {taken}), if nobody needs it",
                port=taken,
            )
        if there is None:
            found += _new_bridge(bridge, owner, root)
        else:
            found += _mended_bridge(rows, bridge, there)
    return [*found, mutate("Open_vSwitch", root, ("next_cfg", "+=", 1))] if found else []


def _names_elsewhere(rows: Rows, bridge: WantedBridge, there: tuple[str, Row] | None) -> str:
    """A port's name that we need and that another bridge has, or ""."""
    ours = set(elements(there[1]["ports"])) if there else set()
    for uuid, port in rows["Port"].items():
        if port["name"] in bridge.ports and uuid not in ours:
            return str(port["name"])
    return ""


def _new_bridge(bridge: WantedBridge, owner: str, root: str) -> list[Operation]:
    found, label = [], f"{bridge.name}_bridge"
    for name, port in bridge.ports.items():
        found += _new_port(name, port)
    ports = encode_set(named(f"{name}_port") for name in bridge.ports)
    row = {
        "name": bridge.name, "datapath_type": bridge.datapath_type, "fail_mode": "secure", "ports": ports,
        "external_ids": encode_map({OWNER: owner}),
    }  # fmt: skip
    return [*found, insert("Bridge", row, label), mutate("Open_vSwitch", root, ("bridges", "insert", named(label)))]


def _mended_bridge(rows: Rows, bridge: WantedBridge, there: tuple[str, Row]) -> list[Operation]:
    uuid, row = there
    columns = _bridge_columns(bridge, row)
    found = [update("Bridge", uuid, columns)] if columns else []
    interfaces = {interface["name"]: (port, interface) for port, interface in ports_of(rows, row)}
    new: list[str] = []
    for name, wanted in bridge.ports.items():
        port, interface = interfaces.get(name, ("", None))
        if interface is not None and not _port_fault(bridge, name, interface):
            continue
        if interface is not None and not wanted.is_met(interface) and not elements(interface["error"]):
            changed = {key: value for key, value in wanted.row(name).items() if key != "name"}
            found.append(update("Interface", elements(rows["Port"][port]["interfaces"])[0], changed))
            continue
        if interface is not None:  # made anew: what has failed is not tried again by itself, nor renumbered
            found.append(mutate("Bridge", uuid, ("ports", "delete", reference(port))))
        found += _new_port(name, wanted)
        new.append(name)
    if new:
        found.append(mutate("Bridge", uuid, ("ports", "insert", encode_set(named(f"{name}_port") for name in new))))
    return found


def is_touched(change: RowChange) -> bool:
    """Whether a change is of what is ours and belongs to nobody. Ports of containers and VNIs come and go."""
    row, before, after = change.after or change.before or {}, change.before, change.after
    if change.table == "Bridge" and before is not None and after is not None:
        same = all(before[name] == after[name] for name in ("datapath_type", "fail_mode", "controller"))
        marked = before["external_ids"].get(OWNER) == after["external_ids"].get(OWNER)
        return row["name"] in _NAMES and not (same and marked)
    return row.get("name") in _NAMES


def port_removal(rows: Rows, owner: str, bridge: str, name: str) -> list[Operation]:
    """What removes a port of a bridge of ours. The switch lets go of a device only when it has seen it gone."""
    there = bridge_row(rows, bridge, owner)
    port = find(rows, "Port", name)
    if there is None or port is None or port[0] not in elements(there[1]["ports"]):
        return []
    root = next(iter(rows["Open_vSwitch"]))
    return [
        mutate("Bridge", there[0], ("ports", "delete", reference(port[0]))),
        mutate("Open_vSwitch", root, ("next_cfg", "+=", 1)),
    ]


def _new_port(name: str, port: WantedPort) -> list[Operation]:
    return [
        insert("Interface", port.row(name), f"{name}_interface"),
        insert("Port", {"name": name, "interfaces": named(f"{name}_interface")}, f"{name}_port"),
    ]


def removal(rows: Rows, owner: str, names: Collection[str] = (BRIDGE, PHYSICAL)) -> list[Operation]:
    """What removes bridges of ours with all that is in them."""
    ours = [
        uuid for uuid, row in rows["Bridge"].items() if row["name"] in names and row["external_ids"].get(OWNER) == owner
    ]
    if not ours:
        return []
    root = next(iter(rows["Open_vSwitch"]))
    gone = encode_set(reference(uuid) for uuid in ours)
    return [mutate("Open_vSwitch", root, ("bridges", "delete", gone), ("next_cfg", "+=", 1))]


def networks_of(bridge: Row) -> dict[int, tuple[str, str]]:
    """What a bridge remembers of VNIs: (network, tenant)."""
    found: dict[int, tuple[str, str]] = {}
    for key, value in bridge["external_ids"].items():
        number, words = key.removeprefix(VNI_KEY), value.split(" ")
        if key != number and number.isdigit() and len(words) == 2:
            found[int(number)] = words[0], words[1]
    return found
