"""Whole frames, sent out of a device of a namespace. Nothing is received.

Source: packet(7).
"""

from __future__ import annotations

import socket
from collections.abc import Iterable

from plugin.kernel import namespace


def send_frames(ns_fd: int, device: str, frames: Iterable[bytes]) -> None:
    """Send Ethernet frames by a device's name, in order. Raises: OSError at the first one that cannot be sent."""
    with namespace.socket_in(ns_fd, socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as out:
        out.bind((device, 0))  # protocol 0: no packet is ever queued for it
        for frame in frames:
            out.send(frame)
