"""A supervisor of its own, and launches by it, by the plan that the daemon makes of `hawse run IMAGE PROGRAM`."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.cgroup import prefix_of
from runtime.daemon.confinement import Confinements
from runtime.daemon.ground import lay_ground
from runtime.daemon.plans import ImageView, Start, launch_plan
from runtime.daemon.processes import Confinement
from runtime.daemon.system_files import NAMES
from runtime.plan import LaunchPlan
from runtime.supervisor_connection import Connection, ensure_running
from sdn.model.container import ContainerSpec
from sdn.service.roots import Root
from tests.bench.janitor import Janitor
from tests.bench.stand import scratch

MEMORY = "/dev/shm"
"""Where the run directory is, as /run is in memory on a machine of one's own; the containers' state is on disk."""


class Launcher:
    """One client of a supervisor: containers of one program, made ahead of the clock. In each process one."""

    def __init__(self, root: Root, tree: Path, program: str, confinement: Confinement, name: str) -> None:
        self._root = root
        self._tree = tree
        self._ground = lay_ground(root.state / "ground")
        self._spec = ContainerSpec(image="bench", command=(program,), remove=True)
        self._confinement = confinement
        self._name = name
        self._count = 0
        self._connection = Connection(root)
        self._connection.request("subscribe")

    def plan(self) -> LaunchPlan:
        """The plan of a further container, whose directory is made."""
        self._count += 1
        container = f"{self._name}{self._count:06d}"
        directory = self._root.containers / container
        for part in ("upper", "work"):
            (directory / part).mkdir(parents=True)
        for file in NAMES:
            (directory / file).write_text("")
        start = Start(container, 1, str(directory), str(self._root.volumes), prefix_of(str(self._root.run)))
        view = ImageView("bench", {}, (str(self._tree), self._ground))
        return launch_plan(self._spec, view, start, self._confinement)

    def start(self, plan: LaunchPlan) -> None:
        """Launch; returns once it has been executed."""
        self._connection.request("launch", plan=plan, go=True)

    def run(self, plan: LaunchPlan) -> None:
        """Launch, and wait until it has ended and is forgotten: nothing of it is left but its directory."""
        self.start(plan)
        while self._connection.next_event().id != plan["id"]:
            continue  # another client's
        self._connection.request("forget", id=plan["id"])

    def first_instruction_ms(self) -> float:
        """From the request, written to the socket, to the moment that the program has printed (into its log)."""
        plan = self.plan()
        start = time.monotonic_ns()
        self.run(plan)
        told = int(Path(plan["directory"], "log").read_text())
        shutil.rmtree(plan["directory"])
        return (told - start) / 1e6

    def pids(self) -> list[int]:
        """Of the supervisor, the keeper and the spawners."""
        status, _ = self._connection.request("status")
        return [status["pid"], status["keeper"], *status["spawners"]]

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


@contextmanager
def supervisor(directory: Path, janitor: Janitor) -> Iterator[tuple[Root, Confinement]]:
    """A supervisor with its state in `directory`, and what every container is confined by; all gone afterwards."""
    with scratch(janitor, MEMORY) as run, janitor.keep("cgroup", prefix_of(os.fspath(run))):
        root = Root(directory, run)
        root.create()
        confinement = Confinements(root.state / "seccomp")(ContainerSpec(image="bench"))
        ensure_running(root)
        with Connection(root) as connection:
            status, _ = connection.request("status")
        with janitor.keep("process", status["keeper"]):  # and its child, the supervisor
            yield root, confinement
