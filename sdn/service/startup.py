"""Libraries imported without what they do at their import and daemons never need: half of a daemon's start.

structlog looks for rich, for coloured tracebacks on a terminal (50 ms and 5 MB); aiohttp reads every CA certificate
of the system for clients that verify by them (90 ms), where ours pin a fingerprint. Both do without when it is absent.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

_NO_CERTIFICATES = {"SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": os.devnull}


@contextlib.contextmanager
def lean_imports() -> Iterator[None]:
    """What is imported inside finds neither rich nor CA certificates; afterwards both are as they were."""
    modules: dict[str, Any] = sys.modules
    absent = [name for name in ("rich",) if name not in modules]
    before = {name: os.environ.get(name) for name in _NO_CERTIFICATES}
    modules.update(dict.fromkeys(absent))
    os.environ.update(_NO_CERTIFICATES)
    try:
        yield
    finally:
        for name in absent:
            del modules[name]
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
