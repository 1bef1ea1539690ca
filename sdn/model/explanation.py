"""Why a packet arrives or does not: what a host is asked about one packet, and what it finds in its own tables.

Both datapaths answer in the same five stages and the same words; the entries are each one's own. A host tells what is
really there, not what should be, and is told what should be, so that it recognises an entry that leads elsewhere.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence

from sdn.model.address import address_bytes
from sdn.model.resources import Value

ROWS_MAX = 5000
"""Of one answer: a message of the stream is 4 MiB at most."""


QUESTIONS_MAX = 16
"""Of one query: two families, there and back, are four."""


class Stage(enum.StrEnum):
    """Where a packet may end. The first three are the sender's host's, the last three the receiver's."""

    SOURCE = "source"  # the port may speak for this MAC and address
    RESOLVE = "resolve"  # what is answered to ARP or neighbour discovery
    FORWARD = "forward"  # to a port here, or into the tunnel to a VTEP
    ADMIT = "admit"  # tunnel packets of the network are taken from this VTEP
    DELIVER = "deliver"  # the port at the end


class Outcome(enum.StrEnum):
    """What a stage does with the packet."""

    PASSES = "pass"
    DROP = "drop"
    ASTRAY = "astray"  # it goes on, to somebody that it is not for


class FlowRow(Value, frozen=True, kw_only=True):
    """An entry of a host's tables, in the words of its datapath.

    `subject`: the MAC, address or VTEP that it is about; with `cookie` (OpenFlow's) it says whose it is. `tenant`,
    `network`, `endpoint`: ids, as far as the host knows. `packets` and `bytes` count what `counts` says, or ("") what
    has met this entry; None: nobody counts that.
    """

    table: str
    match: str
    action: str
    subject: str = ""
    tenant: str = ""
    network: str = ""
    endpoint: str = ""
    cause: str = ""
    cookie: int = 0
    packets: int | None = None
    bytes: int | None = None
    counts: str = ""


class Decision(Value, frozen=True, kw_only=True):
    """What one stage does, by which entry. `missing`: there is no such entry, though it decides by that."""

    stage: Stage
    outcome: Outcome
    says: str
    row: FlowRow
    missing: bool = False
    cause: str = ""


class Packet(Value, frozen=True, kw_only=True):
    """What all questions say. `vni` is the network's; `target`: the endpoint here that it is for, "" if none."""

    tenant: str
    network: str
    vni: int
    target: str = ""


class Departure(Packet, frozen=True, kw_only=True, tag="departure"):
    """An endpoint of this host sends a packet as `mac` and `address`, to an address (`to`) or, where "", to a MAC.

    What should be: the MAC of the address (`to_mac`, "": nobody has it), and the VTEPs of the target's host where that
    is another one. `gateway`: the network's own address. `protocol`: `tcp/80`, `udp/53`, `icmp` or "".
    """

    endpoint: str
    mac: str
    address: str
    to: str = ""
    to_mac: str = ""
    vteps: tuple[str, ...] = ()
    gateway: bool = False
    protocol: str = ""


class Arrival(Packet, frozen=True, kw_only=True, tag="arrival"):
    """A tunnel packet comes from a VTEP, for a MAC."""

    vtep: str
    mac: str


Question = Departure | Arrival


class DropsHere(Value, frozen=True, kw_only=True):
    """What a host's guard has dropped of a network, for one cause."""

    network: str
    cause: str
    packets: int


class Explanation(Value, frozen=True, kw_only=True):
    """A host's answer: the decisions on each question, in order, and what was dropped of these networks so far."""

    decisions: tuple[tuple[Decision, ...], ...]
    drops: tuple[DropsHere, ...] = ()


class FlowOwner(Value, frozen=True, kw_only=True):
    """An endpoint, as rows may know it: by its id, its cookie, or its MAC and addresses in its network."""

    endpoint: str
    network: str
    subjects: tuple[str, ...]
    cookie: int = 0

    def owns(self, row: FlowRow) -> bool:
        """Whether a row is there because of it."""
        if row.endpoint or row.cookie:
            return self.endpoint == row.endpoint or self.cookie == row.cookie != 0
        return row.network == self.network and row.subject in self.subjects


class FlowFilter(Value, frozen=True, kw_only=True):
    """Which rows: of a network (id), of some endpoints, of those that count drops; what is empty limits nothing."""

    network: str = ""
    owners: tuple[FlowOwner, ...] = ()
    drops: bool = False

    def takes(self, row: FlowRow) -> bool:
        """Whether a row is one of them."""
        if self.drops and not row.cause:
            return False
        if self.network and row.network != self.network:
            return False
        return not self.owners or any(owner.owns(row) for owner in self.owners)


class FlowTable(Value, frozen=True, kw_only=True):
    """A host's rows, the first ROWS_MAX of them, and how many more there are."""

    rows: tuple[FlowRow, ...]
    omitted: int = 0


def flow_table(rows: Iterable[FlowRow], chosen: FlowFilter) -> FlowTable:
    """The rows that a filter takes."""
    taken = [row for row in rows if chosen.takes(row)]
    return FlowTable(rows=tuple(taken[:ROWS_MAX]), omitted=max(0, len(taken) - ROWS_MAX))


def arrives(decisions: Sequence[Decision]) -> bool:
    """Whether the decisions of all hosts on a packet's way end with its delivery."""
    return bool(decisions) and decisions[-1].stage is Stage.DELIVER and passes(decisions)


def passes(decisions: Iterable[Decision]) -> bool:
    """Whether no stage ends or diverts the packet."""
    return all(decision.outcome is Outcome.PASSES for decision in decisions)


def refused_cause(to: str, protocol: str) -> str:
    """The cause for which each guard drops such packets, whoever sends them; "": it does not."""
    if to and is_group(to):
        return "multicast"
    client = "udp/546" if ":" in to else "udp/68"
    return "dhcp-server" if protocol == client else ""


def is_group(address: str) -> bool:
    """Whether an address is a multicast, or IPv4's broadcast."""
    packed = address_bytes(address)
    return packed[0] == 0xFF if len(packed) == 16 else packed[0] >> 4 == 0xE or packed == b"\xff\xff\xff\xff"
