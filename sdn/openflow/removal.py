"""Deletions: of exactly one flow, and only where it is ours."""

from __future__ import annotations

import struct
from typing import Final

from sdn.openflow.cookies import TAG, TAG_MASK
from sdn.openflow.encode import DELETE_STRICT, MATCH_AT, encode_delete
from sdn.openflow.flow import Flow

_OURS: Final = struct.pack("!QQ", TAG, TAG_MASK)
_head = struct.Struct("!BBHI").pack
_place = struct.Struct("!BBHHH").pack
_REST: Final = encode_delete(Flow(0, 0, ()))[32:MATCH_AT]


def remove(table: int, priority: int, match: bytes) -> bytes:
    """The flow-mod that deletes the flow of ours that a switch tells of by these. None there: nothing."""
    head = _head(4, 14, MATCH_AT + len(match), 0)
    return head + _OURS + _place(table, DELETE_STRICT, 0, 0, priority) + _REST + match


def ours(deletion: bytes) -> bytes:
    """An encoded deletion, made to touch only what is ours."""
    return deletion[:8] + _OURS + deletion[24:]


def identity(flow_mod: bytes) -> bytes:
    """What two flow-mods have in common that are about the same flow: table, priority and match."""
    length = int.from_bytes(flow_mod[MATCH_AT + 2 : MATCH_AT + 4], "big")
    return flow_mod[24:25] + flow_mod[30:32] + flow_mod[MATCH_AT : MATCH_AT + length]
