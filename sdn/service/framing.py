"""Frames on a local socket: a 4-byte big-endian length, then JSON. Imports only the standard library."""

from __future__ import annotations

import struct

LENGTH = struct.Struct(">I")
MESSAGE_BYTES_MAX = 1 << 20
"""Generous: the largest request, a GC with 1000 attachments, has about 100 kB."""


def frame(payload: bytes) -> bytes:
    """A payload as it is sent."""
    return LENGTH.pack(len(payload)) + payload
