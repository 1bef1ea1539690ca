"""A device's offloads, switched by ioctl: what netlink could do too, in a family of its own that older kernels lack.

Source: include/uapi/linux/ethtool.h, ethtool(8) -K.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import struct
from collections.abc import Mapping
from typing import Final, Protocol

_SIOCETHTOOL: Final = 0x8946
FEATURES: Final = {"tx": (0x16, 0x17), "tso": (0x1E, 0x1F), "gso": (0x23, 0x24)}
"""Name as `ethtool -K` has it -> (the command that reads it, the one that writes it). `tx`: checksums when sending."""


class Descriptor(Protocol):
    """A socket of the namespace that the device is in, of any kind."""

    def fileno(self) -> int:
        """Its descriptor."""


def read_feature(there: Descriptor, device: str, feature: str) -> bool:
    """Whether it is on. Raises: OSError (ENODEV)."""
    return bool(_do(there, device, FEATURES[feature][0], 0))


def write_features(there: Descriptor, device: str, wanted: Mapping[str, bool]) -> None:
    """Switch some. One that the device does not have is off. Raises: OSError (ENODEV)."""
    for feature, on in wanted.items():
        try:
            _do(there, device, FEATURES[feature][1], on)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP or on:
                raise


def _do(there: Descriptor, device: str, command: int, value: int) -> int:
    argument = (ctypes.c_uint32 * 2)(command, value)  # struct ethtool_value
    fcntl.ioctl(there.fileno(), _SIOCETHTOOL, struct.pack("16sP", device.encode(), ctypes.addressof(argument)))
    return argument[1]
