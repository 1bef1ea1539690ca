"""What the supervisor answers, as values: for its clients, whether they have a loop or not."""

from __future__ import annotations

import array
import os
import socket
from typing import Any, NamedTuple

from runtime.plan import ExitRecord
from sdn.model.errors import HawseError, Kind, unavailable
from sdn.service.framing import LENGTH
from sdn.service.roots import Root

LOG = "supervisor.log"
"""In the state directory: what keeper and supervisor have to say."""
DESCRIPTORS_MAX = 8
"""That come with one answer."""

KINDS = {
    "unknown": Kind.NOT_FOUND,
    "exists": Kind.CONFLICT,
    "state": Kind.CONFLICT,
    "ending": Kind.UNAVAILABLE,
    "descriptors": Kind.EXHAUSTED,
    "command-not-found": Kind.INVALID,
    "command-not-executable": Kind.INVALID,
    "wrong-architecture": Kind.INVALID,
    "user": Kind.INVALID,
    "workdir": Kind.INVALID,
    "cgroup": Kind.INVALID,
    "rlimit": Kind.INVALID,
}


class SupervisorError(HawseError):
    """What the supervisor refused or could not do. `stage`: of `runtime.supervisor.failure.STAGES`, or a protocol's."""

    def __init__(self, stage: str, number: int, message: str) -> None:
        super().__init__(KINDS.get(stage, Kind.INTERNAL), message, facts={"stage": stage, "errno": number})
        self.stage = stage
        self.errno = number


class Launched(NamedTuple):
    """`netns`: the network namespace of one that waits, the caller's to close, else -1; it has no process then (0)."""

    pid: int
    start: int
    netns: int = -1


class Executed(NamedTuple):
    """`descriptors`: terminal, or output, errors[, input]."""

    pid: int
    descriptors: tuple[int, ...]


class Followed(NamedTuple):
    """Descriptors of a log that is read with `LogReader`, and the bell."""

    log: int
    log_index: int
    bell: int


class Event(NamedTuple):
    """`what`: exited, executed, oom; `facts`: the rest of it."""

    what: str
    id: str
    facts: dict[str, Any]


class Listed(NamedTuple):
    """One container of `list`."""

    id: str
    pid: int
    start: int
    run: int
    state: str
    log_lost_bytes: int = 0
    exit: ExitRecord | None = None


def receive_header(connection: socket.socket, count: int = LENGTH.size) -> tuple[bytes, tuple[int, ...]]:
    """Part of a frame's header, with the descriptors that came with it. Raises: OSError (the end, too)."""
    size = socket.CMSG_SPACE(DESCRIPTORS_MAX * array.array("i").itemsize)
    data, ancillary, _, _ = connection.recvmsg(count, size, socket.MSG_CMSG_CLOEXEC)
    if not data:
        raise ConnectionResetError("it closed the connection")
    fds = array.array("i")
    for _, _, rights in ancillary:
        fds.frombytes(rights)
    return data, tuple(fds)


def result_of(reply: dict[str, Any], fds: tuple[int, ...]) -> dict[str, Any]:
    """An answer's result. Raises: SupervisorError; the descriptors are closed then."""
    if "error" in reply:
        for fd in fds:
            os.close(fd)
        error = reply["error"]
        raise SupervisorError(error["stage"], error["errno"], error["message"])
    return dict(reply["result"])


def event_of(reply: dict[str, Any]) -> Event:
    """A frame that is one."""
    facts = dict(reply)
    return Event(facts.pop("event"), facts.pop("id", ""), facts)


def away(root: Root, error: OSError) -> HawseError:
    """Nobody answers."""
    return unavailable(
        f"the supervisor does not answer on {root.supervisor_socket} ({error.strerror or error})",
        f"look at {root.state / LOG}",
    )
