"""The fields of a packet and of the pipeline that flows match and set, with their OXM headers.

Source: OpenFlow 1.3.5, section 7.2.3; ovs-fields(7) for the tunnel's, the registers and what ND responders set.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

_OPENFLOW_BASIC = 0x8000
_NXM_1 = 0x0001


class Shape(NamedTuple):
    """How a field is on the wire: OXM class and number, bytes of a value, experimenter (0: none)."""

    oxm_class: int
    number: int
    size: int
    experimenter: int = 0


class Field(enum.Enum):
    """In the order in which Open vSwitch tells them back, which is the canonical one."""

    IN_PORT = Shape(_OPENFLOW_BASIC, 0, 4)
    ETH_DST = Shape(_OPENFLOW_BASIC, 3, 6)
    ETH_SRC = Shape(_OPENFLOW_BASIC, 4, 6)
    ETH_TYPE = Shape(_OPENFLOW_BASIC, 5, 2)
    IP_PROTO = Shape(_OPENFLOW_BASIC, 10, 1)
    IPV4_SRC = Shape(_OPENFLOW_BASIC, 11, 4)
    IPV4_DST = Shape(_OPENFLOW_BASIC, 12, 4)
    TUN_ID = Shape(_OPENFLOW_BASIC, 38, 8)
