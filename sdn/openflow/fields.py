"""The fields of a packet and of the pipeline that flows match and set, with their OXM headers.

Source: OpenFlow 1.3.5, section 7.2.3; ovs-fields(7) for the tunnel's, the registers, connection tracking and what ND
responders set. The order was read from what Open vSwitch 3.1 tells in flow statistics; a test asks a real one.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

_OPENFLOW_BASIC: Final = 0x8000
_NXM_1: Final = 0x0001
_ERICSSON: Final = 0x1000


class Form(enum.Enum):
    """How a field's value is written."""

    NUMBER = "number"
    HEX = "hex"
    PORT = "port"
    MAC = "mac"
    IPV4 = "ipv4"
    IPV6 = "ipv6"


class Shape(NamedTuple):
    """How a field is on the wire: OXM class and number, bytes of a value; and in text: its form and its name."""

    oxm_class: int
    number: int
    size: int
    form: Form
    text: str
    bits: int = 0
    """How many of the value's lowest bits count (0: all)."""


class Field(enum.Enum):
    """In the order in which Open vSwitch tells them back, which is the canonical one."""

    IN_PORT = Shape(_OPENFLOW_BASIC, 0, 4, Form.PORT, "in_port")
    ETH_SRC = Shape(_OPENFLOW_BASIC, 4, 6, Form.MAC, "eth_src")
    ETH_DST = Shape(_OPENFLOW_BASIC, 3, 6, Form.MAC, "eth_dst")
    ETH_TYPE = Shape(_OPENFLOW_BASIC, 5, 2, Form.HEX, "eth_type")
    VLAN_VID = Shape(_OPENFLOW_BASIC, 6, 2, Form.HEX, "vlan_vid", 13)
    VLAN_PCP = Shape(_OPENFLOW_BASIC, 7, 1, Form.NUMBER, "vlan_pcp", 3)
    IPV4_SRC = Shape(_OPENFLOW_BASIC, 11, 4, Form.IPV4, "ip_src")
    IPV4_DST = Shape(_OPENFLOW_BASIC, 12, 4, Form.IPV4, "ip_dst")
    IPV6_SRC = Shape(_OPENFLOW_BASIC, 26, 16, Form.IPV6, "ipv6_src")
    IPV6_DST = Shape(_OPENFLOW_BASIC, 27, 16, Form.IPV6, "ipv6_dst")
    IP_FRAG = Shape(_NXM_1, 26, 1, Form.NUMBER, "ip_frag", 2)
    IPV6_LABEL = Shape(_OPENFLOW_BASIC, 28, 4, Form.HEX, "ipv6_label", 20)
    IP_DSCP = Shape(_OPENFLOW_BASIC, 8, 1, Form.NUMBER, "ip_dscp", 6)
    IP_ECN = Shape(_OPENFLOW_BASIC, 9, 1, Form.NUMBER, "nw_ecn", 2)
    IP_TTL = Shape(_NXM_1, 29, 1, Form.NUMBER, "nw_ttl")
    IP_PROTO = Shape(_OPENFLOW_BASIC, 10, 1, Form.NUMBER, "nw_proto")
    TCP_SRC = Shape(_OPENFLOW_BASIC, 13, 2, Form.NUMBER, "tcp_src")
    TCP_DST = Shape(_OPENFLOW_BASIC, 14, 2, Form.NUMBER, "tcp_dst")
    UDP_SRC = Shape(_OPENFLOW_BASIC, 15, 2, Form.NUMBER, "udp_src")
    UDP_DST = Shape(_OPENFLOW_BASIC, 16, 2, Form.NUMBER, "udp_dst")
    SCTP_SRC = Shape(_OPENFLOW_BASIC, 17, 2, Form.NUMBER, "sctp_src")
    SCTP_DST = Shape(_OPENFLOW_BASIC, 18, 2, Form.NUMBER, "sctp_dst")
    ICMPV4_TYPE = Shape(_OPENFLOW_BASIC, 19, 1, Form.NUMBER, "icmp_type")
    ICMPV4_CODE = Shape(_OPENFLOW_BASIC, 20, 1, Form.NUMBER, "icmp_code")
    ICMPV6_TYPE = Shape(_OPENFLOW_BASIC, 29, 1, Form.NUMBER, "icmpv6_type")
    ICMPV6_CODE = Shape(_OPENFLOW_BASIC, 30, 1, Form.NUMBER, "icmpv6_code")
    ND_RESERVED = Shape(_ERICSSON, 1, 4, Form.HEX, "nd_reserved")
    ND_TARGET = Shape(_OPENFLOW_BASIC, 31, 16, Form.IPV6, "nd_target")
    ND_OPTIONS_TYPE = Shape(_ERICSSON, 2, 1, Form.NUMBER, "nd_options_type")
    ND_SLL = Shape(_OPENFLOW_BASIC, 32, 6, Form.MAC, "nd_sll")
    ND_TLL = Shape(_OPENFLOW_BASIC, 33, 6, Form.MAC, "nd_tll")
    ARP_OP = Shape(_OPENFLOW_BASIC, 21, 2, Form.NUMBER, "arp_op")
    ARP_SPA = Shape(_OPENFLOW_BASIC, 22, 4, Form.IPV4, "arp_spa")
    ARP_TPA = Shape(_OPENFLOW_BASIC, 23, 4, Form.IPV4, "arp_tpa")
    ARP_SHA = Shape(_OPENFLOW_BASIC, 24, 6, Form.MAC, "arp_sha")
    ARP_THA = Shape(_OPENFLOW_BASIC, 25, 6, Form.MAC, "arp_tha")
    TUN_ID = Shape(_OPENFLOW_BASIC, 38, 8, Form.HEX, "tun_id")
    TUN_FLAGS = Shape(_NXM_1, 104, 2, Form.HEX, "tun_flags")
    TUN_IPV4_SRC = Shape(_NXM_1, 31, 4, Form.IPV4, "tun_src")
    TUN_IPV4_DST = Shape(_NXM_1, 32, 4, Form.IPV4, "tun_dst")
    TUN_IPV6_SRC = Shape(_NXM_1, 109, 16, Form.IPV6, "tun_ipv6_src")
    TUN_IPV6_DST = Shape(_NXM_1, 110, 16, Form.IPV6, "tun_ipv6_dst")
    REG0 = Shape(_NXM_1, 0, 4, Form.HEX, "reg0")
    REG1 = Shape(_NXM_1, 1, 4, Form.HEX, "reg1")
    REG2 = Shape(_NXM_1, 2, 4, Form.HEX, "reg2")
    REG3 = Shape(_NXM_1, 3, 4, Form.HEX, "reg3")
    REG4 = Shape(_NXM_1, 4, 4, Form.HEX, "reg4")
    REG5 = Shape(_NXM_1, 5, 4, Form.HEX, "reg5")
    REG6 = Shape(_NXM_1, 6, 4, Form.HEX, "reg6")
    REG7 = Shape(_NXM_1, 7, 4, Form.HEX, "reg7")
    CT_STATE = Shape(_NXM_1, 105, 4, Form.HEX, "ct_state")
    CT_ZONE = Shape(_NXM_1, 106, 2, Form.HEX, "ct_zone")
    CT_MARK = Shape(_NXM_1, 107, 4, Form.HEX, "ct_mark")
    CT_LABEL = Shape(_NXM_1, 108, 16, Form.HEX, "ct_label")
    METADATA = Shape(_OPENFLOW_BASIC, 2, 8, Form.HEX, "metadata")

    # members are single: their place in memory is a hash that costs nothing
    __hash__ = object.__hash__

    def __init__(self, oxm_class: int, number: int, size: int, form: Form, text: str, bits: int = 0) -> None:
        self.place = len(type(self).__members__)
        self.header = oxm_class << 16 | number << 9 | size
        self.header_masked = oxm_class << 16 | number << 9 | 0x100 | size * 2
        self.size = size
        self.bits = bits or size * 8
        self.form = form
        self.text = text
        self.all_bits = ((1 << self.bits) - 1).to_bytes(size, "big")


BY_HEADER: Final = {field.header: field for field in Field}
"""A field by its OXM header, without a mask."""

BY_HEADER_MASKED: Final = {field.header_masked: field for field in Field}
"""The same, with one."""

_OLDER: Final = {
    0x0000: "- ETH_DST ETH_SRC ETH_TYPE - - IP_PROTO IPV4_SRC IPV4_DST TCP_SRC TCP_DST UDP_SRC UDP_DST"
    " ICMPV4_TYPE ICMPV4_CODE ARP_OP ARP_SPA ARP_TPA",
    _NXM_1: "- - - - - - - - - - - - - - - - TUN_ID ARP_SHA ARP_THA IPV6_SRC IPV6_DST ICMPV6_TYPE ICMPV6_CODE ND_TARGET"
    " ND_SLL ND_TLL - IPV6_LABEL IP_ECN",
}

MOVE_HEADER: Final = {field: field.header for field in Field} | {
    Field[name]: oxm_class << 16 | number << 9 | Field[name].size
    for oxm_class, names in _OLDER.items()
    for number, name in enumerate(names.split())
    if name != "-"
}
"""A field's header where it is copied from or to: Open vSwitch tells the older one (NXM) where a field has two."""

BY_MOVE_HEADER: Final = {header: field for field, header in MOVE_HEADER.items()}
