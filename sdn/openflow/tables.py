"""The tables of the pipeline: their numbers, which never change, what they are for, and the registers between them.

A frame's walk. CLASSIFY knows the port that it came by, and so its network: `tun_id` is the VNI from there on. What a
container sends is looked up in SOURCE (its MAC), SHAPE (can it be checked at all), ADDRESS (its IP or ARP source) and
CONTENT (what it claims); neighbour discovery also in OPTION and LENGTH. CONNTRACK and POLICY pass everything on, for
now. ANSWER knows who is asked for, REPLY answers in his name, ADVERTISE ends it for IPv6. What is for the gateway goes
through GATEWAY, everything else to FORWARD. What is refused ends in DROP, its cause in a register, where each cause and
network has a flow that counts. What comes out of a tunnel is of a member, whose host has checked it: after POLICY it
goes to FORWARD, where only a port of this switch is left for it.

What a flow cannot do, a kernel's bridge can. These differences to the bridge datapath are known, and harmless:

* A flow does not see IPv6's extension headers, only what is behind them. Neighbour discovery behind them shows by its
  length, if nothing else is wrong with it; of what follows a fragment header, only what a first fragment hides shows.
  (A later fragment of such a packet passes, and comes to nothing without its first.)
* Of a packet that is longer than its frame nothing is known, its source neither: its cause is `protocol` in any case.
* What follows a header of LLC and SNAP (IEEE 802) is seen as if it came without, and checked as such.
* The gateway answers ARP, neighbour discovery and echo; other packets for its addresses end without an answer.
* Who asks for an IPv6 address without telling his own MAC is answered without a MAC. (Only who knows it may ask so.)
* A question for an address that is there is answered, even if it was sent to a MAC that is not.
* A subnet's broadcast address, sent to the gateway's MAC, is `no-router` and not `not-here`.

Limits: Open vSwitch 2.12 is the oldest that has all of it. Fragments are seen with their ports only where the switch's
fragment handling is `nx-match` (OFPT_SET_CONFIG with flags 3): whoever programs a switch sets it first.
"""

from __future__ import annotations

import enum
from typing import Final

from sdn.openflow.cookies import CAUSES
from sdn.openflow.fields import Field
from sdn.openflow.flow import SetField

UNSPECIFIED: Final = "0.0.0.0"  # noqa: S104 - a source address, nothing is bound to it
FRAGMENTS_WITH_PORTS: Final = 3
"""The flags of OFPT_SET_CONFIG that the pipeline needs (OFPC_FRAG_NX_MATCH of Open vSwitch)."""


class Table(enum.IntEnum):
    """A table, in the order in which frames go through them. There is room between them."""

    CLASSIFY = 0
    SOURCE = 10
    SHAPE = 20
    ADDRESS = 30
    CONTENT = 40
    OPTION = 50
    LENGTH = 60
    CONNTRACK = 70
    POLICY = 80
    ANSWER = 90
    REPLY = 100
    ADVERTISE = 105
    GATEWAY = 110
    FORWARD = 120
    DROP = 130


TEXTS: Final = {
    Table.CLASSIFY: "which network a frame belongs to, by its port or its tunnel",
    Table.SOURCE: "whether its MAC is the port's",
    Table.SHAPE: "whether it is something that can be checked",
    Table.ADDRESS: "whether its IPv4, IPv6 or ARP source is the port's",
    Table.CONTENT: "whether a container may say such a thing",
    Table.OPTION: "whether neighbour discovery tells the port's own MAC",
    Table.LENGTH: "whether neighbour discovery says more than it should",
    Table.CONNTRACK: "its connection (everything passes)",
    Table.POLICY: "the policy (everything passes)",
    Table.ANSWER: "whether somebody is asked for, and who",
    Table.REPLY: "the answer in his name",
    Table.ADVERTISE: "his MAC in a neighbour advertisement",
    Table.GATEWAY: "what is for the gateway",
    Table.FORWARD: "the port or the tunnel that a MAC is behind",
    Table.DROP: "what is refused, by cause and network",
}
"""What each is for, for people."""

CAUSE: Final = Field.REG0
"""Why a frame is dropped: the cause's number."""
TUNNELLED: Final = Field.REG1
"""1: it came out of a tunnel."""
TENANT: Final = Field.REG2
"""The number of the tenant, of a frame for a gateway."""
TOO_LONG: Final = Field.REG3
"""1: there is more of it than was looked at."""
SPARE: Final = Field.REG4
"""What two fields are exchanged by."""
ANSWERER: Final = Field.METADATA
"""The MAC of who was asked for."""


def because_of(cause: str) -> SetField:
    """What notes a cause, on the way to DROP."""
    return SetField(CAUSE, CAUSES.index(cause).to_bytes(4, "big"))


def name_of(table: int) -> str:
    """`classify`; the number as text where it is none of ours."""
    try:
        return Table(table).name.lower()
    except ValueError:
        return str(table)
