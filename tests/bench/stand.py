"""What rows measure on: a lab of production daemons, namespaces made ahead of the clock, threads inside of them."""

from __future__ import annotations

import concurrent.futures
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from plugin.kernel.namespace import run_in
from sdn.service.contract_client import Connection, request
from tests.bench.janitor import Janitor

T = TypeVar("T")

TOPOLOGY = """\
name: NAME
hosts:
  h1: {}
  h2: {}
networks:
  web: {subnets: [10.200.0.0/16]}
  alone: {subnets: [10.201.0.0/16]}
containers:
  c1: {host: h1, networks: [web]}
  c2: {host: h2, networks: [web]}
  c3: {host: h1, networks: [web]}
  c4: {host: h1, networks: [alone]}
"""


HAWSE = str(Path(sys.executable).with_name("hawse"))


def hawse(*arguments: str) -> str:
    """Run the command; its output."""
    done = subprocess.run([HAWSE, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"hawse {' '.join(arguments)} ended with {done.returncode}: {done.stderr}")
    return done.stdout


@contextmanager
def scratch(janitor: Janitor, parent: str = "/var/tmp") -> Iterator[Path]:
    """A directory, on disk unless a parent is given, removed afterwards."""
    directory = tempfile.mkdtemp(prefix="hawse-bench-", dir=parent)
    with janitor.keep("directory", directory):
        yield Path(directory)


class Inside:
    """A thread that lives in a network namespace: processes that it starts are in it, at no cost of their own."""

    def __init__(self, path: str) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._pool = concurrent.futures.ThreadPoolExecutor(1, initializer=_enter_for_good, initargs=(os.dup(fd),))
            self.do(lambda: None)
        finally:
            os.close(fd)

    def do(self, action: Callable[[], T]) -> T:
        """Do it inside; what it returns or raises."""
        return self._pool.submit(action).result()

    def close(self) -> None:
        """End the thread."""
        self._pool.shutdown()


def _enter_for_good(fd: int) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, 0x40000000):
        raise OSError(ctypes.get_errno(), "cannot enter a namespace")
    os.close(fd)


class Lab:
    """A lab that is up. `directory` is its run directory."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.directory = next(
            path.parent
            for path in Path("/run/hawse").glob("*/lab.json")
            if json.loads(path.read_text()).get("name") == name
        )

    def host_namespace(self, host: str) -> str:
        """The path of a host's namespace."""
        return str(self.directory / "ns" / host)

    def container(self, host: str, name: str) -> dict[str, Any]:
        """A container's id, pid and the path of its namespace."""
        found = request(self.directory / host / "runtime.sock", {"verb": "INSPECT", "container": name})
        return {"id": found["id"], "pid": found["pid"], "netns": f"/proc/{found['pid']}/ns/net"}

    def rest(self, *arguments: str) -> Any:
        """A command's JSON, asked of this lab's controller."""
        return json.loads(hawse("--root", str(self.directory / "h1"), "-o", "json", *arguments))


@contextmanager
def lab(janitor: Janitor, topology: str = TOPOLOGY) -> Iterator[Lab]:
    """A lab of its own, gone afterwards."""
    name = f"bench-{os.urandom(3).hex()}"
    number = janitor.add("command", [HAWSE, "lab", "down", name])
    with tempfile.TemporaryDirectory(prefix="hawse-bench-") as folder:
        file = Path(folder) / "topology.yaml"
        file.write_text(topology.replace("NAME", name))
        try:
            hawse("lab", "up", "-q", str(file))
            yield Lab(name)
        finally:
            hawse("lab", "down", name)
            janitor.forget(number)


class Attacher:
    """Speaks the attach contract to one agent, one connection for all."""

    def __init__(self, agent_socket: Path, network: str) -> None:
        self._connection = Connection(agent_socket)
        self._network = network
        self._count = 0

    def add(self, fd: int, settle_ms: int) -> dict[str, Any]:
        """One ADD."""
        self._count += 1
        return self._connection.request(
            {
                "verb": "ADD",
                "client": "bench",
                "container": f"{self._network}-{self._count}",
                "ifname": "eth0",
                "network": self._network,
                "settle_ms": settle_ms,
            },
            fd,
        )

    def remove_all(self) -> None:
        """Release every one of them."""
        self._connection.request({"verb": "GC", "client": "bench", "valid": []})

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


class Sandboxes:
    """Network namespaces that only descriptors hold: made ahead of the clock, gone when closed."""

    def __init__(self) -> None:
        self._open: list[int] = []

    def make(self) -> int:
        """A descriptor of a new namespace."""
        fd = run_in_new_namespace()
        self._open.append(fd)
        return fd

    def remove(self) -> None:
        """All of them."""
        while self._open:
            os.close(self._open.pop())


def run_in_new_namespace() -> int:
    """A descriptor of a namespace made for it."""
    import plugin.kernel.namespace as namespace

    return namespace._thread.run(None, lambda: os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))


__all__ = [
    "HAWSE",
    "Attacher",
    "Inside",
    "Lab",
    "Sandboxes",
    "hawse",
    "lab",
    "run_in",
    "run_in_new_namespace",
    "scratch",
]
