"""The runtimes of a lab's hosts, with the image that the rows run, and what is asked of them."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from runtime.cgroup import prefix_of
from sdn.service.contract_client import Connection
from sdn.service.roots import find_root
from tests.bench.janitor import Janitor
from tests.bench.measure import PeerMissingError
from tests.bench.programs import make_tree
from tests.bench.stand import HAWSE, Inside, Lab, lab, scratch

IMAGE = "bench"
NETWORK = "web"
TIMEOUT_S = 120.0
TOPOLOGY = """\
name: NAME
hosts:
  h1: {}
  h2: {}
networks:
  web: {subnets: [10.200.0.0/16]}
"""


class Runtime:
    """One host's."""

    def __init__(self, root: Path) -> None:
        self._directory = root
        self._socket = find_root(os.fspath(root)).runtime_socket

    def command(self, *words: str) -> list[str]:
        """A command line as a user of the host types it."""
        return [HAWSE, "--root", str(self._directory), *words]

    def connect(self) -> Connection:
        """A connection, for many requests."""
        return Connection(self._socket, TIMEOUT_S)

    def ask(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """One request, and its result."""
        with self.connect() as connection:
            return connection.request(message)

    def keeper(self) -> int:
        """Of its supervisor: the process that all of it hangs on."""
        supervisor = self.ask({"verb": "STATUS"})["supervisor_pid"]
        found = re.search(r"^PPid:\s+(\d+)$", Path(f"/proc/{supervisor}/status").read_text(), re.MULTILINE)
        assert found
        return int(found[1])

    def remove_all(self) -> None:
        """Every container."""
        with self.connect() as connection:
            for container in connection.request({"verb": "PS", "all": True})["items"]:
                connection.request({"verb": "RM", "container": container["id"], "force": True})

    def start_idle(self) -> str:
        """An idle container on the network; its address."""
        made = self.ask({"verb": "RUN", "container": idle()})
        info = self.ask({"verb": "INSPECT", "container": made["id"]})
        return address_of(info)


def idle() -> dict[str, Any]:
    """The specification of an idle container on the network."""
    return {"image": IMAGE, "command": ["/bin/idle"], "networks": [{"network": NETWORK}]}


def address_of(info: Mapping[str, Any]) -> str:
    """A container's IPv4 address."""
    return str(info["interfaces"][0]["addresses"][0]).partition("/")[0]


@contextmanager
def two_hosts(janitor: Janitor) -> Iterator[tuple[Lab, Runtime, Runtime]]:
    """A lab of two hosts whose runtimes have the image; all gone afterwards."""
    with scratch(janitor) as directory, lab(janitor, TOPOLOGY) as one, ExitStack() as stack:
        tree = make_tree(directory / "tree")
        found = []
        for host in ("h1", "h2"):
            found.append(stack.enter_context(_runtime(one, host, janitor)))
            subprocess.run(
                found[-1].command("image", "import", "-q", IMAGE, str(tree)), check=True, capture_output=True
            )
        yield one, found[0], found[1]


@contextmanager
def _runtime(one: Lab, host: str, janitor: Janitor) -> Iterator[Runtime]:
    """The host's runtime: the lab's own, or one that is started here."""
    directory = one.directory / host
    runtime = Runtime(directory)
    with janitor.keep("cgroup", prefix_of(os.fspath(directory))):
        if find_root(os.fspath(directory)).runtime_socket.exists():
            yield runtime
            runtime.remove_all()
            return
        process = _start(one, host)
        try:
            with janitor.keep("process", process.pid), janitor.keep("process", runtime.keeper()):
                yield runtime
                runtime.remove_all()
                process.terminate()
                process.wait(TIMEOUT_S)
        finally:
            process.wait()


def _start(one: Lab, host: str) -> subprocess.Popen[bytes]:
    """Start it in the host's namespace; it serves when this returns. Raises: PeerMissingError (the row says why)."""
    reading, writing = os.pipe()
    log = one.directory / host / "runtime.log"
    words = ["runtime", "--root", str(one.directory / host), "--log", str(log), "--ready-fd", str(writing)]
    inside = Inside(one.host_namespace(host))
    try:
        process = inside.do(lambda: subprocess.Popen([HAWSE, *words], pass_fds=[writing], start_new_session=True))
        os.close(writing)
        if os.read(reading, 1) != b"1":
            process.wait()
            raise PeerMissingError(f"the runtime of {host} does not start")
    finally:
        os.close(reading)
        inside.close()
    return process
