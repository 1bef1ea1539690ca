"""Flow statistics to entries, by slicing alone, and an entry to a flow where somebody wants to read it.

Entries are compared by their bytes: what `encode` makes is what Open vSwitch tells, so nothing has to be understood to
know whether a switch has what it should have.

Source: OpenFlow 1.3.5, section 7.3.5.2.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from sdn.openflow.encode import MATCH_AT
from sdn.openflow.fields import BY_HEADER, BY_HEADER_MASKED, BY_MOVE_HEADER
from sdn.openflow.flow import Action, CheckLarger, Flow, Move, Output, Resubmit, SetField, Term, Track

_SMALLEST: Final = 56
_CT: Final = 35
_SAFE_OF_NICIRA: Final = {1, 6, 7, 14, 33, 34, _CT, 36, 43}
"""Its actions that os-ken reads without a loop of its own: resubmit, move, load, conjunction, ct, nat, ct_clear."""
_Octets = bytes
_head = struct.Struct("!HBx8xH10xQQQ2xH").unpack_from
_flow_mod = struct.Struct("!2xH4xQ8xB5xH").unpack_from
_short = struct.Struct("!H").unpack_from
_pair = struct.Struct("!HH").unpack_from
_long = struct.Struct("!I").unpack_from
_move = struct.Struct("!HHHII").unpack_from
_check_larger = struct.Struct("!HHI").unpack_from


class Entry(NamedTuple):
    """One entry of a switch's tables. `match` has its padding; (table, priority, match) is unique in a switch."""

    table: int
    priority: int
    cookie: int
    packets: int
    bytes: int
    match: _Octets
    instructions: _Octets


class Unknown(NamedTuple):
    """An entry that says more than `flow` has words for, as somebody else's flows may. `text`: what it says."""

    table: int
    priority: int
    text: str
    cookie: int


def decode_entries(body: bytes) -> list[Entry]:
    """The entries of one part of a reply. Raises ValueError where it is cut short or does not add up."""
    entries: list[Entry] = []
    append, at, end = entries.append, 0, len(body)
    while at < end:
        if end - at < _SMALLEST:
            raise ValueError(f"flow statistics end amid an entry, {end - at} bytes after its beginning")
        length, table, priority, cookie, packets, octets, match = _head(body, at)
        start = at + MATCH_AT
        middle = start + (match + 7 & ~7)
        at += length
        if at > end or middle > at or match < 4:
            raise ValueError(f"an entry of flow statistics does not add up: {length} bytes, a match of {match}")
        append(Entry(table, priority, cookie, packets, octets, body[start:middle], body[middle:at]))
    return entries


def entry_of(flow_mod: bytes) -> Entry:
    """What a switch that did this ADD (of `encode`) tells of it, before any packet came."""
    length, cookie, table, priority = _flow_mod(flow_mod)
    middle = MATCH_AT + (_short(flow_mod, MATCH_AT + 2)[0] + 7 & ~7)
    return Entry(table, priority, cookie, 0, 0, flow_mod[MATCH_AT:middle], flow_mod[middle:length])


def flow_of(entry: Entry) -> Flow | Unknown:
    """The flow that an entry is of; Unknown where this version has no words for a part of it."""
    try:
        actions, goto = _instructions(entry.instructions)
        return Flow(entry.table, entry.priority, _terms(entry.match), actions, goto, entry.cookie)
    except (KeyError, ValueError, struct.error):
        return Unknown(entry.table, entry.priority, _told_by_others(entry), entry.cookie)


def _terms(match: bytes) -> tuple[Term, ...]:
    kind, length = _pair(match)
    if kind != 1:
        raise ValueError(f"a match of type {kind}")
    terms, at = [], 4
    while at < length:
        header, start = _long(match, at)[0], at + 4
        if header & 0x100:
            field = BY_HEADER_MASKED[header]
            middle = start + field.size
            at = middle + field.size
            terms.append(Term(field, match[start:middle], match[middle:at]))
        else:
            field = BY_HEADER[header]
            at = start + field.size
            terms.append(Term(field, match[start:at]))
    return tuple(terms)


def _instructions(instructions: bytes) -> tuple[tuple[Action, ...], int | None]:
    """Nothing, actions, a table, or both in this order: what Open vSwitch tells of a flow that has nothing else."""
    actions: tuple[Action, ...] = ()
    goto = None
    for number, each in enumerate(_pieces(instructions)):
        kind = _short(each)[0]
        if kind == 4 and number == 0:
            actions = _actions(each[8:])
        elif kind == 1 and len(each) == 8 and goto is None:
            goto = each[4]
        else:
            raise ValueError(f"an instruction of type {kind}")
    return actions, goto


def _actions(body: bytes) -> tuple[Action, ...]:
    return tuple(_action(each) for each in _pieces(body))


def _action(action: bytes) -> Action:
    kind = _short(action)[0]
    if kind == 0:
        return Output(_long(action, 4)[0])
    if kind == 25:
        field = BY_HEADER[_long(action, 4)[0]]
        return SetField(field, action[8 : 8 + field.size])
    if kind == 0xFFFF and action[4:10] == b"\x00\x00\x23\x20\x00\x06":
        bits, source_at, target_at, source, target = _move(action, 10)
        if source_at == target_at == 0:
            return Move(BY_MOVE_HEADER[source], BY_MOVE_HEADER[target], bits)
    if kind == 0xFFFF and action[4:12] == b"\x00\x00\x23\x20\x00\x0e\xff\xf8":
        return Resubmit(action[12])
    if kind == 0xFFFF and action[4:18] == b"\x00\x00\x23\x20\x00\x23" + bytes(8) and not any(action[19:]):
        return Track(action[18])
    if kind == 0xFFFF and action[4:10] == b"\x00\x00\x23\x20\x00\x31":
        size, bit, target = _check_larger(action, 10)
        if bit == 0:
            return CheckLarger(size, BY_MOVE_HEADER[target])
    raise ValueError(f"an action of type {kind}")


def _told_by_others(entry: Entry) -> str:
    """What os-ken makes of it; the bytes where it is not installed or does not know it either."""
    if not _adds_up(entry):
        return _hexadecimal(entry)
    try:
        from os_ken.ofproto import ofproto_v1_3_parser as parser  # 150 ms and 30 MB, which hardly anybody needs
    except ImportError:
        return f"{_hexadecimal(entry)} ('pip install hawse[openflow]' has it in words)"
    try:
        match = parser.OFPMatch.parser(entry.match, 0)
        instructions = [parser.OFPInstruction.parser(each, 0) for each in _pieces(entry.instructions)]
    except Exception:  # noqa: BLE001 - it raises whatever comes up inside where it does not know a thing
        return _hexadecimal(entry)
    return f"{match} {instructions}"


def _adds_up(entry: Entry) -> bool:
    """Whether os-ken comes to an end with it: given a length of zero, it reads the same thing for ever."""
    try:
        at, length = 4, _pair(entry.match)[1]
        while at < length:
            at += 4 + entry.match[at + 3]
        return at == length and all(
            _actions_add_up(each[8:]) if _short(each)[0] in (3, 4) else True for each in _pieces(entry.instructions)
        )
    except (ValueError, IndexError, struct.error):
        return False


def _actions_add_up(body: bytes) -> bool:
    for action in _pieces(body):
        if _short(action)[0] == 0xFFFF:
            known = action[4:8] == b"\x00\x00\x23\x20" and _short(action, 8)[0] in _SAFE_OF_NICIRA
            if not known or (_short(action, 8)[0] == _CT and not _actions_add_up(action[24:])):
                return False
    return True


def _pieces(body: bytes) -> list[bytes]:
    """Instructions or actions, one by one: each begins with its type and its length, a multiple of 8."""
    pieces, at = [], 0
    while at < len(body):
        length = _pair(body, at)[1]
        if length < 8 or length % 8 or at + length > len(body):
            raise ValueError(f"{length} bytes where {len(body) - at} are left")
        pieces.append(body[at : at + length])
        at += length
    return pieces


def _hexadecimal(entry: Entry) -> str:
    return f"match {entry.match.hex()} instructions {entry.instructions.hex()}"
