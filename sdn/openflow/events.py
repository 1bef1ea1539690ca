"""What a session tells its user: requests' ends, what the switch says unasked, and that it is over."""

from __future__ import annotations

import dataclasses
from typing import Any

from sdn.model.errors import HawseError
from sdn.openflow.errors import Error
from sdn.openflow.framing import Type
from sdn.openflow.messages import Experimenter, Features
from sdn.openflow.notices import FlowRemoved, PacketIn, PortStatus


@dataclasses.dataclass(frozen=True, slots=True)
class Opened:
    """The handshake is done. `features`: the switch's."""

    features: Features


@dataclasses.dataclass(frozen=True, slots=True)
class Answered:
    """A request's answer: a message; of a multipart request the parts' bodies; of a bundle its verdicts."""

    xid: int
    answer: Any


@dataclasses.dataclass(frozen=True, slots=True)
class Failed:
    """A request was refused (RefusedError), or not answered in time."""

    xid: int
    error: HawseError


@dataclasses.dataclass(frozen=True, slots=True)
class Complaint:
    """An error about something that waits for no answer (a packet-out; at the switch's end anything)."""

    xid: int
    error: Error


@dataclasses.dataclass(frozen=True, slots=True)
class Unasked:
    """An answer to nothing that is still waited for: it came too late, or the switch is confused."""

    xid: int
    type: Type


@dataclasses.dataclass(frozen=True, slots=True)
class Update:
    """A multipart reply of xid 0: what a flow monitor tells."""

    part: int
    data: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """At the switch's end: what the controller wants."""

    xid: int
    message: Any


@dataclasses.dataclass(frozen=True, slots=True)
class Ended:
    """The session is over. `error`: why; None: this end wanted it."""

    error: HawseError | None


Event = (
    Opened
    | Answered
    | Failed
    | Complaint
    | Unasked
    | Update
    | Asked
    | Ended
    | PacketIn
    | FlowRemoved
    | PortStatus
    | Experimenter
)
"""What a session gives. PacketIn, FlowRemoved, PortStatus and Experimenter are the messages themselves."""
