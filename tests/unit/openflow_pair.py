"""A controller's session and a model of a switch, wired without sockets; or the first alone."""

from __future__ import annotations

from typing import Any

from sdn.model.errors import HawseError
from sdn.openflow.events import Asked, Failed, Opened
from sdn.openflow.messages import (
    Hello,
    encode,
)
from sdn.openflow.requests import Limits
from sdn.openflow.session import End, Session
from tests.unit.openflow_switch import FEATURES, ModelSwitch
from tests.unit.test_openflow_framing import pieces


class Pair:
    """A controller and a model of a switch; bytes go to and fro until nobody has anything to say."""

    def __init__(self, switch: ModelSwitch | None = None, *, limits: Limits | None = None, places=()) -> None:
        self.now = 0.0
        self.model = switch or ModelSwitch()
        self.controller: Any = Session(End.CONTROLLER, now=0.0, peer="the switch", limits=limits)
        self.switch: Any = Session(End.SWITCH, now=0.0, peer="the controller", limits=limits, own=FEATURES)
        self.places = list(places)
        self.events: list[Any] = []
        self.complaints: list[Any] = []
        self.run()

    def run(self) -> list[Any]:
        """The controller's events since the last time."""
        before = len(self.events)
        while True:
            up, down = b"".join(self.switch.take()), b"".join(self.controller.take())
            if not up and not down:
                return self.events[before:]
            for piece in pieces(down, self.places):
                for event in self.switch.receive(piece, self.now):
                    if isinstance(event, Asked):
                        for message, xid in self.model.answers(event):
                            self.switch.send(message, xid)
                    else:
                        self.complaints.append(event)
            for piece in pieces(up, self.places):
                self.events += self.controller.receive(piece, self.now)


def opened(**arguments) -> Any:
    """A controller's end after its handshake, with nothing to send."""
    session: Any = Session(End.CONTROLLER, now=0.0, peer="the switch", **arguments)
    assert session.receive(encode(Hello(), 9) + encode(FEATURES, 2), 0.0) == [Opened(FEATURES)]
    list(session.take())
    return session


def failure(events) -> HawseError:
    """Of the one request that failed."""
    (event,) = events
    assert isinstance(event, Failed)
    return event.error


HEADERS: list[tuple[int, int]] = []
"""(xid, type) of each of the messages that `frames_of` was last given."""


def frames_of(data: bytes) -> list[bytes]:
    """The messages that some bytes are."""
    HEADERS.clear()
    frames = []
    while data:
        length = int.from_bytes(data[2:4], "big")
        HEADERS.append((int.from_bytes(data[4:8], "big"), data[1]))
        frames.append(data[:length])
        data = data[length:]
    return frames
