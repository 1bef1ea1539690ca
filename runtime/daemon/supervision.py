"""What the daemon asks of the supervisor, as a protocol with two sides: the process, and a fake in the tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from runtime.plan import LaunchPlan, ProcessPlan
from sdn.model.errors import HawseError, Kind

EXIT_DAEMON = 125
EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127
EXIT_UNKNOWN = -1
"""Nobody saw how it ended."""


class SupervisorLostError(HawseError):
    """UNAVAILABLE: it ended amid the request. What became of that, its successor's list says."""


class Launched(NamedTuple):
    """A container's first process, 0 where it waits; then `namespace_fd` is its network namespace, the caller's."""

    pid: int
    namespace_fd: int | None = None


class Executed(NamedTuple):
    """A further process; descriptors by what they are (`output`, `errors`, `input`, or `terminal`)."""

    pid: int
    descriptors: dict[str, int]


class Ending(NamedTuple):
    """How a run ended; see `runtime.plan.ExitRecord`."""

    container: str
    run: int
    code: int
    oom_killed: bool
    time_s: float
    log_lost_bytes: int = 0


class Held(NamedTuple):
    """A container as the supervisor knows it. `state`: waiting, starting, running, frozen, exited (with `ending`)."""

    container: str
    run: int
    pid: int
    state: str
    ending: Ending | None


class Listener(Protocol):
    """Who is told what the supervisor sees."""

    def ended(self, ending: Ending) -> None:
        """A run has ended; told again at each connection until it is forgotten."""

    def out_of_memory(self, container: str) -> None:
        """The kernel killed a process of it for want of memory."""

    def executed(self, container: str, execution: str, code: int) -> None:
        """A further process has ended."""


class Supervisor(Protocol):
    """Every call raises UNAVAILABLE where the supervisor cannot be reached, and what else it says."""

    async def launch(self, plan: LaunchPlan, *, go: bool) -> Launched:
        """See the protocol. Raises: HawseError of a start (`launch_error`); nothing is left then."""

    async def go(self, container: str) -> int:
        """Let it exec; its pid. Raises: as launch."""

    async def abandon(self, container: str) -> None:
        """Undo a start, however far it had come: when this returns nothing of it is left. Absent is fine."""

    async def execute(self, container: str, execution: str, process: ProcessPlan) -> Executed:
        """Raises: as launch; CONFLICT where it does not run."""

    async def execution(self, execution: str) -> int | None:
        """The exit code of a further process, None: it runs. Raises: NOT_FOUND."""

    async def signal(self, container: str, number: int, *, every: bool = False) -> None:
        """To its first process, or to all. Raises: NOT_FOUND where it does not run."""

    async def freeze(self, container: str, *, on: bool) -> None:
        """Raises: NOT_FOUND; INTERNAL (the cgroup's)."""

    async def input(self, container: str, *, keep: bool) -> int:
        """The terminal's master, or the write end of standard input, the caller's to close; the only one, or not.

        Raises: CONFLICT where it was given away.
        """

    async def follow(self, container: str) -> tuple[int, int, int]:
        """log, index, bell: the caller's to close. Raises: NOT_FOUND."""

    async def forget(self, container: str) -> None:
        """Its exit is known; absent is fine."""

    async def list(self) -> Sequence[Held]:
        """All that it holds."""

    async def usage(self, containers: Sequence[str]) -> dict[str, dict[str, int]]:
        """What they use, by id, as `sdn.model.container.Usage` names it; who does not run is left out."""

    async def status(self) -> dict[str, Any]:
        """Its pid and numbers."""


_STAGES: dict[str, tuple[int, Kind, str]] = {
    "command-not-found": (EXIT_NOT_FOUND, Kind.NOT_FOUND, "look at the command, the image and its PATH"),
    "command-not-executable": (EXIT_NOT_EXECUTABLE, Kind.INVALID, "look at its mode, and what it is"),
    "wrong-architecture": (EXIT_NOT_EXECUTABLE, Kind.INVALID, "use an image for this machine"),
    "user": (EXIT_DAEMON, Kind.INVALID, "give a number, or a name that the image has"),
    "workdir": (EXIT_DAEMON, Kind.INVALID, "give another --workdir"),
    "mount": (EXIT_DAEMON, Kind.INVALID, "look at the mounts and the image"),
    "rlimit": (EXIT_DAEMON, Kind.INVALID, ""),
    "cgroup": (EXIT_DAEMON, Kind.INVALID, "give other limits"),
    "pids": (EXIT_DAEMON, Kind.EXHAUSTED, "give it more --pids, or end processes in it"),
    "ended": (EXIT_DAEMON, Kind.CONFLICT, "start it first"),
    "clone": (EXIT_DAEMON, Kind.INTERNAL, "look at what this machine allows"),
    "terminal": (EXIT_DAEMON, Kind.INTERNAL, ""),
    "seccomp": (EXIT_DAEMON, Kind.INTERNAL, ""),
    "prepare": (EXIT_DAEMON, Kind.INTERNAL, ""),
    "descriptors": (EXIT_DAEMON, Kind.EXHAUSTED, "end containers"),
}
"""Stage of a launch: exit code, kind, what to do."""


def knows_stage(stage: str) -> bool:
    """Whether it is a start that failed, and not a request."""
    return stage in _STAGES


def launch_error(stage: str, message: str) -> HawseError:
    """Why a container or a further process did not start; `facts` has `stage` and `exit_code`."""
    code, kind, hint = _STAGES[stage]
    return HawseError(kind, message, hint=hint, facts={"stage": stage, "exit_code": code})
