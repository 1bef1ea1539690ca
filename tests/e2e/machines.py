"""Machines as network namespaces on one segment, each with a root of its own; commands as a user types them there."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sdn.client.client import Client
from sdn.machine.process import Process
from sdn.machine.record import place_of
from sdn.service.pid_file import running_pid
from sdn.service.roots import Root, find_root
from tests.e2e.segment import segment
from tests.packet.namespaces import TestNamespace
from tests.runtime.daemons import eventually

COMMAND = [sys.executable, "-m", "sdn.cli.main"]
PATIENCE_S = 90.0
SUBNET = "10.77.0./24"
DAEMONS = ("machine", "controller", "agent", "runtime")
"""The monitor first: it would start the others again."""


def environment() -> dict[str, str]:
    """This process's, without what would lead a command elsewhere."""
    return {key: value for key, value in os.environ.items() if not key.startswith("HAWSE_")}


@dataclasses.dataclass(slots=True)
class Machine:
    """One: `here` is its network, `address` its underlay's."""

    here: TestNamespace
    address: str
    directory: Path
    name: str

    @property
    def root(self) -> Root:
        """Its directories."""
        return find_root(str(self.directory))

    @property
    def client(self) -> Client:
        """Its own controller's."""
        return Client(f"unix:{self.root.controller_socket}")

    def words(self, *arguments: str, before: tuple[str, ...] = ()) -> list[str]:
        """A command line, inside."""
        enter = ["nsenter", f"--net=/run/netns/{self.here.name}"]
        return [*enter, *before, *COMMAND, "--root", str(self.directory), *arguments]

    def done(self, *arguments: str, stdin: str = "", before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """A command that has ended, however; never with a traceback."""
        done = subprocess.run(
            self.words(*arguments, before=before),
            input=stdin, capture_output=True, text=True, timeout=PATIENCE_S, check=False, env=environment(),
        )  # fmt: skip
        assert "Traceback" not in done.stdout + done.stderr, done.stderr
        return done

    def hawse(self, *arguments: str, stdin: str = "") -> str:
        """Its output; it must do what it is told."""
        done = self.done(*arguments, stdin=stdin)
        assert done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}\n{self.logs()}"
        return done.stdout

    def refused(self, *arguments: str, code: int, stdin: str = "", before: tuple[str, ...] = ()) -> str:
        """Its complaint: a sentence, and what to do."""
        done = self.done(*arguments, stdin=stdin, before=before)
        assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}\n{self.logs()}"
        complaint = [line for line in done.stderr.splitlines() if line]
        assert re.match(r"hawse: \S", complaint[0]), complaint
        assert len(complaint) <= 2, complaint
        return done.stderr

    def json(self, *arguments: str) -> Any:
        """What a command prints for programs."""
        return json.loads(self.hawse(*arguments, "-o", "json"))

    def up(self, *arguments: str) -> str:
        """`hawse up -d` on this machine's own address and under its own name."""
        return self.hawse("up", "-d", "--name", self.name, *arguments)

    def token(self) -> str:
        """A new one of this machine's controller, for one join."""
        return str(self.client.post("/v1/tokens", {"kind": "join"}).body["word"])

    def host(self, name: str) -> dict[str, Any]:
        """A host, as this machine's controller knows it."""
        body: dict[str, Any] = self.client.get(f"/v1/hosts/{name}").body
        return body

    def pids(self) -> dict[str, int]:
        """Of the daemons and the monitor that run."""
        found = {name: running_pid(self.root, name) for name in DAEMONS}
        return {name: pid for name, pid in found.items() if pid is not None}

    def logs(self) -> str:
        """The ends of all."""
        return "\n".join(f"{path.name}: {path.read_text()[-1500:]}" for path in self.root.logs.glob("*.log"))

    def kill_amid(self, path: Path, *arguments: str) -> None:
        """Begin a command, and kill it and whatever of Hawse runs here as soon as `path` is there."""
        process = subprocess.Popen(
            self.words(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=environment(), start_new_session=True,
        )  # fmt: skip
        try:
            eventually(path.exists, bool, f"{path} is there")
            for name in DAEMONS:
                found = Process.find(place_of(str(self.directory)), name)
                if found is not None:
                    found.signal(signal.SIGKILL)
                    found.close()
        finally:
            process.kill()
            process.wait(PATIENCE_S)

    def forget(self) -> None:
        """Take it away, whatever state it is in."""
        for name in DAEMONS:
            pid = running_pid(self.root, name)
            if pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.root.create()
        self.root.machine_file.unlink(missing_ok=True)
        done = self.done("leave", "--force", "--all")
        assert done.returncode == 0, f"{done.stderr}\n{self.logs()}"
        assert self.pids() == {}
        assert not self.root.agent_file.exists()


@contextlib.contextmanager
def machines(count: int) -> Iterator[list[Machine]]:
    """Some on one segment, each with a default route; whatever they have become, they are gone afterwards."""
    with contextlib.ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="m"))
        stack.callback(shutil.rmtree, directory)
        made = []
        for number, here in enumerate(stack.enter_context(segment(count, SUBNET, gateway=True)), 1):
            place = directory / f"m{number}"
            place.mkdir(mode=0o700)
            one = Machine(here, f"10.77.0.{number}", place, f"m{number}")
            stack.callback(one.forget)
            made.append(one)
        yield made


def pings(machine: Machine, container: str, address: str) -> bool:
    """Whether a container's ping is answered."""
    return machine.done("exec", container, "ping", "-c1", "-W10", address).returncode == 0
