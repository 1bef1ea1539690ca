"""Whole frames, sent out of a device of a namespace, and what a socket takes in.

Source: packet(7), socket(7).
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Iterable, Sequence

from plugin.kernel import namespace

_SO_ATTACH_FILTER = 26
_STEP = struct.Struct("=HBBI")
Step = tuple[int, int, int, int]
"""An instruction (struct sock_filter): code, how many to skip if true and if false, operand."""


def send_frames(ns_fd: int, device: str, frames: Iterable[bytes]) -> None:
    """Send Ethernet frames by a device's name, in order. Raises: OSError at the first one that cannot be sent."""
    with namespace.socket_in(ns_fd, socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as out:
        out.bind((device, 0))  # protocol 0: no packet is ever queued for it
        for frame in frames:
            out.send(frame)


def attach_filter(receiver: socket.socket, program: Sequence[Step]) -> None:
    """Let a socket take in what a classic BPF program lets through, and nothing else. Raises: OSError."""
    steps = ctypes.create_string_buffer(b"".join(_STEP.pack(*step) for step in program))
    head = struct.pack("HP", len(program), ctypes.addressof(steps))
    receiver.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, head)
