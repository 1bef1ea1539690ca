"""A switch's entries as rows for people: tables, ports, causes and owners by name."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Final

from sdn.model.explanation import FlowRow
from sdn.openflow import cookies
from sdn.openflow.decode import Entry, flow_of
from sdn.openflow.fields import Field
from sdn.openflow.flow import Flow, SetField
from sdn.openflow.tables import ANSWERER, CAUSE, Table, name_of
from sdn.openflow.text import actions_text, match_text

_NUMBERS: Final = re.compile(
    rf"\b(?:(?P<port>in_port=|output:)(?P<number>\d+)|goto_table:(?P<table>\d+)"
    rf"|set_field:(?P<because>\w+)->{CAUSE.text}\b|{CAUSE.text}=(?P<cause>\w+)"
    rf"|set_field:0x(?P<answer>\w+)->{ANSWERER.text}\b)"
)
"""Where a flow's text has a number that has a name."""


@dataclasses.dataclass(frozen=True, slots=True)
class Names:
    """What numbers mean. `ports`: name -> number, the tunnel's included; `endpoints`: a port's name -> endpoint's id.

    `networks`: VNI -> (network, tenant), ids. `vnis`: a port's number -> the VNI that its frames get, as flows say it.
    """

    ports: Mapping[str, int]
    endpoints: Mapping[str, str]
    networks: Mapping[int, tuple[str, str]]
    vnis: Mapping[int, int] = dataclasses.field(default_factory=dict)
    _names: dict[int, str] = dataclasses.field(init=False, default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        self._names.update((number, name) for name, number in self.ports.items())

    def port(self, number: int) -> str:
        """A port's name; its number as text where it has none."""
        return self._names.get(number) or str(number)

    def endpoint_at(self, number: int) -> str:
        """The endpoint behind a port, by id; "" where none is known."""
        return self.endpoints.get(self.port(number), "")


def vnis_of(entries: Iterable[Entry]) -> dict[int, int]:
    """Which port's frames belong to which VNI."""
    found: dict[int, int] = {}
    for entry in entries:
        if entry.table != Table.CLASSIFY:
            continue
        flow = flow_of(entry)
        port, vni = _port_of(flow), None
        if isinstance(flow, Flow):
            vni = next((a.value for a in flow.actions if isinstance(a, SetField) and a.field is Field.TUN_ID), None)
        if port is not None and vni is not None:
            found[port] = int.from_bytes(vni, "big")
    return found


def row_of(entry: Entry, names: Names) -> FlowRow:
    """An entry in words, with what it has counted."""
    flow = flow_of(entry)
    kind, number = cookies.split(entry.cookie)
    match, action = (match_text(flow.match), actions_text(flow)) if isinstance(flow, Flow) else (flow.text, "?")
    port, vni = _port_of(flow), _vni_of(flow)
    cause = ""
    if kind == cookies.Kind.DROP:
        cause, vni = cookies.cause_of(number)
    elif kind == cookies.Kind.NETWORK:
        vni = number
    elif vni is None and port is not None:
        vni = names.vnis.get(port)
    network, tenant = names.networks.get(vni or 0, ("", ""))
    return FlowRow(
        table=name_of(entry.table),
        match=_named(match, names) or "everything",
        action=_named(action, names),
        tenant=tenant,
        network=network,
        endpoint=names.endpoint_at(port) if port is not None and kind == cookies.Kind.ENDPOINT else "",
        cause=cause,
        cookie=entry.cookie if kind == cookies.Kind.ENDPOINT else 0,
        packets=entry.packets,
        bytes=entry.bytes,
    )


def rows_of(entries: Iterable[Entry], names: Names) -> list[FlowRow]:
    """All of a switch's entries, in the order in which frames go through them."""
    ordered = sorted(entries, key=lambda entry: (entry.table, -entry.priority, entry.match))
    known = dataclasses.replace(names, vnis=vnis_of(ordered))
    return [row_of(entry, known) for entry in ordered]


def _named(text: str, names: Names) -> str:
    """With names for numbers of ports, tables and causes."""

    def name(found: re.Match[str]) -> str:
        if found["port"]:
            return f"{found['port']}{names.port(int(found['number']))}"
        if found["table"]:
            return f"goto {name_of(int(found['table']))}"
        if found["answer"]:
            return f"answer:{int(found['answer'], 16).to_bytes(8, 'big')[-6:].hex(':')}"
        return f"cause:{_cause_name(found['because'])}" if found["because"] else f"cause={_cause_name(found['cause'])}"

    return _NUMBERS.sub(name, text)


def _cause_name(number: str) -> str:
    place = int(number, 0)
    return cookies.CAUSES[place] if place < len(cookies.CAUSES) else number


def _port_of(flow: object) -> int | None:
    return _value(flow, Field.IN_PORT)


def _vni_of(flow: object) -> int | None:
    return _value(flow, Field.TUN_ID)


def _value(flow: object, field: Field) -> int | None:
    """What a flow's match says of a field, where it says all of it."""
    if not isinstance(flow, Flow):
        return None
    found = next((term for term in flow.match if term.field is field and term.mask is None), None)
    return None if found is None else int.from_bytes(found.value, "big")
