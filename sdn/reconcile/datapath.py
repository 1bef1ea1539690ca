"""What a datapath is: four functions over objects. The loop knows nothing else of it.

Objects are frozen, hashable values; they name each other by key, never by ifindex or ofport. A key is a tuple of
strings, kind first, and says all that is needed to find the thing in the kernel.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from sdn.model.explanation import Explanation, FlowRow, Question
from sdn.model.ids import TenantId
from sdn.model.resources import Endpoint
from sdn.reconcile.unit import Context, Unit

Key = tuple[str, ...]
Object = Any
"""A frozen, hashable dataclass of the datapath; compared by ==, never looked into by the loop."""


class Verb(enum.Enum):
    """What to do with a key."""

    CREATE = "create"
    REPLACE = "replace"
    DELETE = "delete"


@dataclasses.dataclass(frozen=True, slots=True)
class Operation:
    """One write. `before` is None for CREATE, `after` is None for DELETE."""

    verb: Verb
    key: Key
    before: Object | None
    after: Object | None


class Door(Protocol):
    """Whatever a datapath reaches the inside of a namespace by."""

    def close(self) -> None:
        """Let go of it; twice is fine."""


@dataclasses.dataclass(frozen=True, slots=True)
class Sandbox:
    """A container's namespace that an ADD has handed over: an open descriptor and its cookie.

    `door`: a socket that lives inside, for the datapath that knows how to speak through it; closed by who opened it.
    """

    fd: int
    cookie: int
    door: Door | None = dataclasses.field(default=None, compare=False)


class SandboxGoneError(Exception):
    """The inside of an endpoint cannot be made: no descriptor of its namespace is held. The text names the endpoint."""


@dataclasses.dataclass(frozen=True, slots=True)
class DropCount:
    """Frames that the guard dropped for one cause: `tenant`, `network` are ids (network "" where not known)."""

    tenant: str
    network: str
    cause: str
    packets: int
    bytes: int


@dataclasses.dataclass(frozen=True, slots=True)
class LocalPort:
    """What the kernel remembers of an endpoint of this host by itself: enough to detach without the controller."""

    endpoint: str
    tenant: str
    container: str
    ifname: str


class Datapath(Protocol):
    """One per host. Calls of one datapath never overlap, except `read`, `drops`, `explain`, `flows` with anything.

    `write` does its operations in the order given and goes on after an error; deletions that are slow in the kernel
    may be finished in the background once the thing is out of service and its name is free.
    """

    def lower(self, unit: Unit, context: Context) -> dict[Key, Object]:
        """Pure: the objects of one unit. Two units never lower to the same key, but one after the other may."""

    def rank(self, key: Key) -> int:
        """Creations and replacements go by ascending rank, deletions before them by descending rank."""

    def in_place(self, before: Object, after: Object) -> bool:
        """Whether REPLACE can do it; otherwise the loop deletes and creates."""

    def read(self, tenants: Sequence[TenantId] | None = None) -> dict[Key, Object]:
        """What is there and belongs to Hawse: everything, or what belongs to some tenants. Works from any thread."""

    def write(self, operations: Sequence[Operation]) -> dict[Key, Exception]:
        """Do them; the errors by key (SandboxGoneError where an inside cannot be made)."""

    def offer(self, endpoint: Endpoint, sandbox: Sandbox | None) -> None:
        """Hand over (or, with None, take back) the namespace that the endpoint's inside is to be made in.

        The descriptor stays the caller's; it is valid until taken back.
        """

    def check(self, endpoint: Endpoint, mtu_bytes: int, sandbox: Sandbox) -> list[str]:
        """What is wrong inside the sandbox, as sentences; empty: nothing."""

    def local_ports(self, objects: Mapping[Key, Object]) -> list[LocalPort]:
        """The endpoints of this host that some objects (a read, or the mirror) show to be wired."""

    def drops(self) -> list[DropCount]:
        """Every counter of the guard. Works from any thread."""

    def explain(self, questions: Sequence[Question]) -> Explanation:
        """What becomes of packets here, by what is really there; see `reconcile.explain`. Works from any thread."""

    def flows(self) -> Sequence[FlowRow]:
        """Every entry that decides about packets, in the datapath's words. Works from any thread."""

    def notify(self, drifted: Callable[[Sequence[TenantId] | None], None]) -> None:
        """Call `drifted` (from any thread) when the kernel tells of a change not ours, with its tenants (None: all)."""

    def purge(self) -> int:
        """Remove everything of Hawse's on this host, until it is gone; how many tenants were here. Twice is fine."""

    def close(self) -> None:
        """Stop workers and let go of descriptors; the kernel's state stays."""
