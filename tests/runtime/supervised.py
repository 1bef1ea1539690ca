"""A supervisor of a root of its own, for tests: started, spoken to, killed, ended; and nothing of it may be left."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from runtime.cgroup import Cgroup, Hierarchies, prefix_of
from runtime.plan import LaunchPlan, ProcessPlan
from runtime.supervisor import exits
from runtime.supervisor_answers import Event
from runtime.supervisor_connection import Connection, ensure_running
from sdn.model.errors import HawseError
from sdn.service.container_log import LogReader
from sdn.service.roots import Root
from tests.runtime.rootfs import make_root, plan_for

PATIENCE_S = 30.0


def wait_until(condition: Callable[[], Any], what: str, bound_s: float = PATIENCE_S) -> Any:
    """Until it is true; returns its value."""
    deadline = time.monotonic() + bound_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {bound_s:g} s: {what}"
        time.sleep(0.005)
    return value


def process_of(plan: LaunchPlan, argv: list[str], **changes: Any) -> ProcessPlan:
    """A further process, as the plan's first but for its command."""
    return {**plan["process"], "argv": argv, **changes}  # type: ignore[typeddict-item]


def ended(pid: int) -> bool:
    """Whether it is gone, or only waits to be reaped by somebody else."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except OSError:
        return True


class Supervised:
    """One root. Connections that are made here are closed at the end."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.root = Root(base / "state", base / "run")
        self.rootfs = make_root(base / "rootfs")
        self.hierarchies = Hierarchies.detect()
        self.prefix = prefix_of(os.fspath(self.root.run))
        self.processes: set[int] = set()
        self._connections: list[Connection] = []

    def start(self) -> Connection:
        """Start it unless it runs, and connect."""
        ensure_running(self.root)
        connection = self.connect()
        self.pids(connection)
        return connection

    def connect(self) -> Connection:
        """A further client."""
        connection = Connection(self.root, PATIENCE_S)
        self._connections.append(connection)
        return connection

    def reconnect(self) -> Connection:
        """After a kill: as soon as somebody answers."""

        def attempt() -> Connection | None:
            with contextlib.suppress(HawseError):
                connection = self.start()
                connection.request("status")
                return connection
            return None

        found: Connection = wait_until(attempt, "a supervisor answers")
        return found

    def pids(self, connection: Connection) -> tuple[int, int]:
        """(supervisor, keeper)."""
        status, _ = connection.request("status")
        assert status["keeper"] != 1, "it was forked by a keeper"
        self.processes |= {status["pid"], status["keeper"]}
        return status["pid"], status["keeper"]

    def kill(self, *pids: int) -> None:
        """SIGKILL, and see them end. They are pids that `pids` told."""
        pidfds = []
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                pidfds.append(os.pidfd_open(pid))
        for pidfd in pidfds:
            exits.send(pidfd, signal.SIGKILL)
        for pid, pidfd in zip(pids, pidfds, strict=False):
            wait_until(partial(ended, pid), f"{pid} ends")
            os.close(pidfd)

    def plan(self, name: str, argv: list[str] | str, **options: Any) -> LaunchPlan:
        """A container's plan; a string is a script."""
        directory = self.root.containers / name
        command = ["sh", "-c", argv] if isinstance(argv, str) else argv
        cgroup = f"{self.prefix}/{name}"
        return plan_for(self.rootfs, directory, command, container=name, cgroup=cgroup, **options)

    def run(self, connection: Connection, name: str, argv: list[str] | str, **options: Any) -> dict[str, Any]:
        """Launch and let go."""
        return connection.request("launch", plan=self.plan(name, argv, **options), go=True)[0]

    def directory(self, name: str) -> Path:
        return self.root.containers / name

    def output(self, name: str) -> tuple[bytes, bytes]:
        """Its two streams, whole, as its log has them."""
        streams = [b"", b""]
        if not (self.directory(name) / "log.index").exists():  # made with the first byte
            return b"", b""
        with open(self.directory(name) / "log", "rb") as log, open(self.directory(name) / "log.index", "rb") as index:
            reader = LogReader(log.fileno(), index.fileno())
            while chunks := reader.read():
                for chunk in chunks:
                    streams[chunk.stream] += chunk.data
        return streams[0], streams[1]

    def state(self, connection: Connection, name: str) -> dict[str, Any] | None:
        """What `list` says of it."""
        found = connection.request("list")[0]["containers"]
        return next((each for each in found if each["id"] == name), None)

    def wait_exit(self, connection: Connection, name: str) -> dict[str, Any]:
        """Its exit, as `list` tells it."""
        found = wait_until(lambda: (self.state(connection, name) or {}).get("exit"), f"{name} has exited")
        return dict(found)

    def cgroups(self) -> list[str]:
        """What there is below this root's prefix, in any hierarchy."""
        found = []
        for mount in self.hierarchies.all:
            with contextlib.suppress(OSError):
                found += [entry.path for entry in os.scandir(f"{mount}/{self.prefix}") if entry.is_dir()]
        return found

    def entries(self) -> list[str]:
        return sorted(os.listdir(self.root.run / "containers"))

    def close(self) -> None:
        """End it, whatever became of it, and see that nothing is left."""
        try:
            with contextlib.suppress(HawseError):
                self.reconnect().request("end", force=True)
            for pid in self.processes:
                wait_until(partial(ended, pid), f"process {pid} ends")
        finally:
            for connection in self._connections:
                connection.close()
            left = self._left()
            for pid in self.processes:
                if not ended(pid):
                    os.kill(pid, signal.SIGKILL)
            for path in self.cgroups():
                cgroup = Cgroup(self.hierarchies, f"{self.prefix}/{Path(path).name}")
                cgroup.kill()
                cgroup.remove()
            shutil.rmtree(self.base, ignore_errors=True)
        assert not left

    def _left(self) -> list[str]:
        left = [path for mount in self.hierarchies.all if os.path.exists(path := f"{mount}/{self.prefix}")]
        left += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if os.fspath(self.base) in line]
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                command = (process / "cmdline").read_bytes()
                if os.fspath(self.root.run).encode() in command and not ended(int(process.name)):
                    left.append(f"process {process.name}: {command!r}")
        return left


@pytest.fixture
def supervised() -> Iterator[Supervised]:
    """A root whose supervisor has not been started yet."""
    one = Supervised(Path(tempfile.mkdtemp(prefix="supervised-")))
    try:
        yield one
    finally:
        one.close()


def events_until(connection: Connection, what: str, name: str) -> list[Event]:
    """Events up to the first such, which is the last."""
    found = []
    while True:
        found.append(connection.next_event())
        if found[-1].what == what and found[-1].id == name:
            return found
