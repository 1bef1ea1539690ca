"""The supervisor's own log: its standard error, a file in the state directory that stays small."""

from __future__ import annotations

import os
import sys
import time

LOG_BYTES_MAX = 1 << 20
"""It begins anew then."""


def say(text: str) -> None:
    """One line."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    try:
        if os.fstat(2).st_size > LOG_BYTES_MAX:
            os.ftruncate(2, 0)
        sys.stderr.write(f"{stamp} supervisor {os.getpid()}: {text}\n")
        sys.stderr.flush()
    except OSError:
        pass  # a full disk must not stop a supervisor
