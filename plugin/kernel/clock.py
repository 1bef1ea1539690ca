"""What the kernel knows of its clock.

Source: adjtimex(2).
"""

from __future__ import annotations

import ctypes

STA_UNSYNC = 0x40
STATUS_AT = 40
"""Of `struct timex`, where longs have 8 bytes."""
TIMEX_BYTES = 256
"""More than it has."""


def is_synchronised() -> bool | None:
    """Whether something (NTP or the like) keeps the clock right; None: the kernel does not say."""
    timex = ctypes.create_string_buffer(TIMEX_BYTES)  # all zero: nothing is set
    if ctypes.sizeof(ctypes.c_long) != 8 or ctypes.CDLL(None).adjtimex(timex) < 0:
        return None
    return not int.from_bytes(timex.raw[STATUS_AT : STATUS_AT + 4], "little") & STA_UNSYNC
