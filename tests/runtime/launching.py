"""Containers for tests, launched by `launch_driver` in a process of its own; each test gets a directory of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runtime.plan import LaunchPlan, ProcessPlan
from tests.runtime.rootfs import make_root, plan_for

REPOSITORY = Path(__file__).parents[2]
PROGRAM = "import sys; sys.path.insert(0, {!r}); from tests.runtime.launch_driver import main; main()"


class RefusedError(Exception):
    """A LaunchError, as the driver told it."""

    def __init__(self, stage: str, errno: int, message: str) -> None:
        super().__init__(stage, errno, message)
        self.stage, self.errno, self.message = stage, errno, message


@dataclass(frozen=True)
class Ended:
    """How a process ended: `code` is 128 + signal where one ended it. With a terminal all output is `output`."""

    code: int
    output: str
    errors: str

    @property
    def lines(self) -> list[str]:
        return self.output.splitlines()


class Driver:
    """The client of `launch_driver`."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.root = make_root(base / "root")
        self.count = 0
        command = [sys.executable, "-I", "-S", "-c", PROGRAM.format(str(REPOSITORY)), str(base / "stage")]
        environment = {**os.environ, "SECRET": "of the host"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd="/tmp"
        )

    def ask(self, **request: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "the driver died"
        answer = json.loads(line)
        if "error" in answer:
            raise RefusedError(**answer["error"])
        return answer["result"]

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)
        shutil.rmtree(self.base)

    def plan(self, *argv: str, **wishes: Any) -> LaunchPlan:
        """The plan of a new container; the keywords are those of `rootfs.plan_for`."""
        self.count += 1
        return plan_for(wishes.pop("root", self.root), self.base / f"c{self.count}", list(argv), **wishes)

    def start(self, plan: LaunchPlan, **cgroup: Any) -> int:
        number: int = self.ask(do="launch", plan=plan, **cgroup)["number"]
        return number

    def wait(self, number: int) -> Ended:
        return Ended(**self.ask(do="wait", number=number))

    def run(self, plan: LaunchPlan, stdin: str | None = None, **cgroup: Any) -> Ended:
        number = self.start(plan, **cgroup)
        if stdin is not None:
            self.ask(do="input", number=number, text=stdin, last=plan["process"]["tty"] is None)
        return self.wait(number)

    def sh(self, script: str, **wishes: Any) -> Ended:
        """Run a shell script in a new container."""
        return self.run(self.plan("sh", "-c", script, **wishes))

    def begin_execution(self, container: int, process: ProcessPlan, **cgroup: Any) -> int:
        number: int = self.ask(do="execute", container=container, process=process, **cgroup)["number"]
        return number

    def execute(self, container: int, process: ProcessPlan, stdin: str | None = None, **cgroup: Any) -> Ended:
        number = self.begin_execution(container, process, **cgroup)
        if stdin is not None:
            self.ask(do="input", number=number, text=stdin, last=process["tty"] is None)
        return self.wait(number)

    def residue(self) -> Any:
        return self.ask(do="residue")

    @contextmanager
    def running(self, plan: LaunchPlan | None = None, **cgroup: Any) -> Iterator[int]:
        """A container that runs meanwhile, by default one that sleeps."""
        number = self.start(plan or self.plan("sleep", "1000"), **cgroup)
        try:
            yield number
        finally:
            self.ask(do="kill", number=number)
            self.wait(number)


@pytest.fixture(scope="module")
def driver() -> Iterator[Driver]:
    made = Driver(Path(tempfile.mkdtemp(prefix="hawse-launch-")))
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def leaves_nothing(driver: Driver) -> Iterator[None]:
    """Whatever the test does, no descriptor, child or mount of it is left."""
    before = driver.residue()
    yield
    assert driver.residue() == before
    assert str(driver.base) not in Path("/proc/self/mountinfo").read_text()
