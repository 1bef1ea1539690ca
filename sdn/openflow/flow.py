"""A flow as a value: what an entry of a switch's tables says, readable, comparable and hashable.

Values of fields are big-endian bytes of the field's full width, as they are on the wire. Named tuples, not dataclasses:
ten thousand of them are made at once. `match` has what makes terms of readable values.

Source: OpenFlow 1.3.5, section 7.2; ovs-fields(7), ovs-actions(7) for what is Open vSwitch's own.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from sdn.openflow.fields import Field

IN_PORT: Final = 0xFFFFFFF8
CONTROLLER: Final = 0xFFFFFFFD
LOCAL: Final = 0xFFFFFFFE


class Term(NamedTuple):
    """One condition of a match. `mask` None: all bits."""

    field: Field
    value: bytes
    mask: bytes | None = None


class Output(NamedTuple):
    """Send to a port (a number, IN_PORT, LOCAL, or CONTROLLER: the whole frame)."""

    port: int


class SetField(NamedTuple):
    """Overwrite a field."""

    field: Field
    value: bytes


class Move(NamedTuple):
    """Copy `bits` bits from one field, beginning at its lowest, to another (NXAST_REG_MOVE)."""

    source: Field
    target: Field
    bits: int


class Resubmit(NamedTuple):
    """Look the frame up in another table and come back for the actions that follow (NXAST_RESUBMIT_TABLE)."""

    table: int


class CheckLarger(NamedTuple):
    """Set the lowest bit of a register to whether the frame, its Ethernet header included, has more bytes than `size`.

    (NXAST_CHECK_PKT_LARGER, subtype 49: the size, the bit's number (0) and the register's header in 24 bytes.)
    """

    size: int
    target: Field


class Track(NamedTuple):
    """Go on from a table with the frame's connection known (NXAST_CT, zone 0, nothing is noted).

    The frame comes there anew, registers and all: what counts there counts those that really came, and not those that
    Open vSwitch considered on the way (after a `CheckLarger` it follows both branches, and counts both).
    """

    table: int


Action = Output | SetField | Move | Resubmit | CheckLarger | Track


class Flow(NamedTuple):
    """One entry. `match` is in the canonical order of `fields`; without actions and `goto` it drops."""

    table: int
    priority: int
    match: tuple[Term, ...]
    actions: tuple[Action, ...] = ()
    goto: int | None = None
    cookie: int = 0
