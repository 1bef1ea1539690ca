"""A lab that many tests share: commands as a user types them, and proof that a refused one has changed nothing."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from plugin.kernel import namespace
from sdn.cli.attach import inspect
from sdn.client.client import Client
from tests.runtime.daemons import cgroups_of
from tests.session_janitor import session_name
from topologies.cleanup import roots_of
from topologies.containers import place_of
from topologies.record import Directory, Process, Record, labs

COMMAND = [sys.executable, "-m", "sdn.cli.main"]
PATIENCE_S = 60.0

TOPOLOGY = """\
hosts: [h1, h2]
tenants: [default, blue, red]
networks:
  web: {subnets: 10.1.0.0/24}
  blue/web: {subnets: 10.1.0.0/24}
  red/web: {subnets: 10.1.0.0/24}
containers:
  a1: {host: h1}
  a2: {host: h1}
  a3: {host: h1}
  b1: {host: h2}
  b2: {host: h2}
"""


def environment(**more: str) -> dict[str, str]:
    """This process's, without what would lead a command to other daemons."""
    return {key: value for key, value in os.environ.items() if not key.startswith("HAWSE_")} | more


def hawse(*arguments: str, code: int = 0, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command; it must end with this exit code, and never with a traceback."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True, text=True, timeout=PATIENCE_S, check=False, env=environment(**(env or {})),
    )  # fmt: skip
    said = f"{arguments} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    assert done.returncode == code, said
    assert "Traceback" not in done.stdout + done.stderr, said
    if code:
        assert re.match(r"hawse: \S", done.stderr), said
    return done


class Lab:
    """A lab that is up. Commands run with a host's root: sockets and namespaces are found by path."""

    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        self.client = Client(directory.controller_url)

    def root(self, place: str) -> str:
        """For `--root`."""
        return str(self.directory.root(place).run)

    def run(self, place: str, *arguments: str, code: int = 0) -> str:
        """What a command says on a host: its output, or with a code its complaint."""
        done = hawse("--root", self.root(place), *arguments, code=code)
        return done.stderr if code else done.stdout

    def json(self, place: str, *arguments: str) -> Any:
        """What a command prints for programs."""
        return json.loads(self.run(place, *arguments, "-o", "json"))

    def record(self) -> Record:
        """What the lab has noted of itself."""
        record = self.directory.read()
        assert record is not None
        return record

    def daemon(self, place: str) -> Process:
        """The agent of a host, or the controller; `runtime_of` a host: its runtime."""
        return self.record().processes[place]

    def place(self, name: str) -> Path:
        """Where the network namespace of a host or container is."""
        return place_of(self.directory, self.record().containers, name)

    def info(self, container: str) -> dict[str, Any]:
        """A container as its host's runtime has it."""
        return inspect(self.directory.root(self.record().containers[container]), container)

    def inside(self, container: str, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the machine in a container's network namespace: it may there what a container may not."""
        enter = ["nsenter", f"--net={self.place(container)}"]
        return subprocess.run([*enter, *command], capture_output=True, text=True, timeout=PATIENCE_S, check=False)

    def cookie(self, container: str) -> int:
        """Of its namespace."""
        with open(self.place(container)) as opened:
            return namespace.cookie(opened.fileno())

    def interfaces(self) -> dict[str, list[str]]:
        """Every interface in every namespace of the lab, by place: hosts, containers, and the agents' tenants."""
        places = {str(pin): pin for pin in (*self.directory.path.glob("ns/*"), *self.directory.path.glob("*/netns/*"))}
        places |= {container: self.place(container) for container in self.record().containers}
        return {name: _interfaces(places[name]) for name in sorted(places)}

    def revision(self) -> int:
        """The controller's."""
        return int(self.client.get("/v1/status").body["revision"])

    def state(self) -> Any:
        """All that a refused request must leave alone."""
        endpoints = sorted(endpoint["id"] for endpoint in self.client.items("/v1/endpoints"))
        return self.revision(), endpoints, self.interfaces()

    @contextlib.contextmanager
    def unchanged(self) -> Iterator[None]:
        """Neither a revision nor an endpoint nor an interface may come or go inside."""
        before = self.state()
        yield
        assert self.state() == before

    @contextlib.contextmanager
    def network(self, reference: str, *options: str) -> Iterator[str]:
        """A network for a while; whatever is attached to it goes before it."""
        self.run("h1", "network", "create", reference, *options)
        try:
            yield reference
        finally:
            for endpoint in self.client.items("/v1/endpoints", network=reference):
                self.client.delete(f"/v1/endpoints/{endpoint['id']}")
            self.run("h1", "network", "rm", reference, "--wait")

    def log(self) -> str:
        """Everything that daemons and containers have said."""
        return "".join(path.read_text(errors="replace") for path in self.directory.path.glob("log/*.log"))


def _interfaces(place: Path) -> list[str]:
    try:
        with open(place) as opened:
            return sorted(name for _, name in namespace.run_in(opened.fileno(), socket.if_nameindex))
    except OSError:
        return []  # on its way out


@contextlib.contextmanager
def standing_lab(topology: str = TOPOLOGY) -> Iterator[Lab]:
    """Up for a while; down afterwards, and no daemon may have met a fault of its own."""
    name = f"{session_name()}-{secrets.token_hex(4)}"
    try:
        with tempfile.TemporaryDirectory() as place:
            file = Path(place) / "lab.yaml"
            file.write_text(topology)
            hawse("lab", "up", str(file), "--name", name, "--quiet")
        lab = Lab(next(found for found in labs() if found.name == name))
        yield lab
        log = lab.log()
        assert "Traceback" not in log, log
        assert "internal error" not in log, log
    finally:
        for left in labs():
            if left.name == name:
                roots = [left.root(path.name) for path in roots_of(left)]
                hawse("lab", "down", name)
                assert [path for root in roots for path in cgroups_of(root)] == []
