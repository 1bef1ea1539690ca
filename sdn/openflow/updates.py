"""What a flow monitor tells (`multipart.monitor_request`), in multipart replies of xid 0.

Source: ONF EXT-187, as Open vSwitch does it on OpenFlow 1.3.
"""

from __future__ import annotations

import struct
from typing import Final

from sdn.openflow import cookies

_BEGIN: Final = 8
"""Behind the experimenter's header."""
_UPDATE: Final = struct.Struct("!HH12xQ")
_ABBREVIATED: Final = 3


def tells_of_ours(updates: bytes) -> bool:
    """Whether it is about a flow of ours: one that others have added, changed or deleted.

    Of what the asker did itself it tells by its request's number alone.
    """
    at = _BEGIN
    while at + 4 <= len(updates):
        length, event = struct.unpack_from("!HH", updates, at)
        whole = event != _ABBREVIATED and at + _UPDATE.size <= len(updates)
        if whole and cookies.is_ours(_UPDATE.unpack_from(updates, at)[2]):
            return True
        at += max(length, 4)
    return False
