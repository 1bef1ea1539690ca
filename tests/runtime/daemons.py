"""`hawse runtime` on a root of its own: started, asked, killed, and at the end proof that nothing is left."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from runtime.cgroup import Hierarchies, prefix_of
from sdn.model.errors import HawseError
from sdn.service.container_log import LogReader
from sdn.service.contract_client import Connection, request
from sdn.service.roots import Root, find_root

T = TypeVar("T")
BOUND_S = 60.0
"""For what takes milliseconds on a machine that has nothing else to do."""
COMMAND = [sys.executable, "-m", "sdn.cli.main"]


def eventually(look: Callable[[], T], wanted: Callable[[T], bool], what: str) -> T:
    """What `look` sees as soon as it is wanted; fails with the last sight when it does not become so."""
    deadline = time.monotonic() + BOUND_S
    while True:
        seen = look()
        if wanted(seen):
            return seen
        assert time.monotonic() < deadline, f"{what} did not come true; last seen: {seen}"
        time.sleep(0.01)  # between two looks at a daemon or a kernel, neither of which tells


class RunningDaemon:
    """One daemon and its root. `start` and `kill` as often as wished."""

    def __init__(self, root: Root, enter: tuple[str, ...] = ()) -> None:
        """`enter`: a command that it is started by, in a namespace."""
        self.root = root
        self._enter = enter
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Until it serves."""
        reading, writing = os.pipe()
        try:
            command = [*self._enter, *COMMAND, "runtime", "--root", str(self.root.run)]
            with open(self.root.run / "runtime.log", "ab") as log:
                self.process = subprocess.Popen(
                    [*command, "--ready-fd", str(writing)], pass_fds=(writing,), stdout=log, stderr=log
                )
            os.close(writing)
            writing = -1
            assert select.select([reading], [], [], BOUND_S)[0], f"it does not serve: {self.log()}"
            assert os.read(reading, 1) == b"1", f"it ended: {self.log()}"
        finally:
            os.close(reading)
            if writing >= 0:
                os.close(writing)

    def kill(self) -> None:
        """SIGKILL; only the daemon."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(BOUND_S)
        self.process = None

    def stop(self) -> int:
        """An orderly stop; its exit code."""
        assert self.process is not None
        self.process.terminate()
        code = self.process.wait(BOUND_S)
        self.process = None
        return code

    def ask(self, verb: str, **fields: Any) -> dict[str, Any]:
        """One request."""
        return request(self.root.runtime_socket, {"verb": verb, **fields}, timeout_s=BOUND_S)

    def run(self, *command: str, attach: bool = False, **spec: Any) -> dict[str, Any]:
        """RUN a command in the machine's own image."""
        return self.ask("RUN", container={"image": "host", "command": list(command), **spec})

    def attached(self, verb: str, **fields: Any) -> tuple[dict[str, Any], dict[str, int]]:
        """A request with its descriptors, by name."""
        with Connection(self.root.runtime_socket, BOUND_S) as connection:
            result, descriptors = connection.exchange({"verb": verb, **fields})
        return result, dict(zip(result.get("descriptors", ()), descriptors, strict=True))

    def info(self, container: str) -> dict[str, Any]:
        """INSPECT."""
        return self.ask("INSPECT", container=container)

    def wait(self, container: str, **more: Any) -> int:
        """WAIT's exit code."""
        return int(self.ask("WAIT", container=container, **more)["code"])

    def output(self, container: str) -> bytes:
        """All of its log."""
        _, descriptors = self.attached("LOGS", container=container)
        try:
            return read_log(descriptors["log"], descriptors["index"])
        finally:
            for descriptor in descriptors.values():
                os.close(descriptor)

    def refusal(self, verb: str, **fields: Any) -> HawseError:
        """The error of a request that must fail."""
        try:
            result = self.ask(verb, **fields)
        except HawseError as error:
            return error
        raise AssertionError(f"{verb} {fields} was not refused: {result}")

    def supervisor_pid(self) -> int:
        """The supervisor's."""
        return int(self.ask("STATUS")["supervisor_pid"])

    def log(self) -> str:
        """What the daemon said."""
        return (self.root.run / "runtime.log").read_text(errors="replace")

    def left(self) -> dict[str, Any]:
        """What there is of containers: directories, cgroups, entries of the supervisor, processes, mounts."""
        prefix = prefix_of(os.fspath(self.root.run))
        cgroups = {
            entry.name
            for mount in Hierarchies.detect().all
            for entry in Path(mount, prefix).glob("*")
            if entry.is_dir()
        }
        entries = self.root.run / "containers"
        return {
            "directories": sorted(path.name for path in self.root.containers.glob("*")),
            "cgroups": sorted(cgroups),
            "entries": sorted(path.name for path in entries.glob("*")) if entries.is_dir() else [],
            "mounts": [line for line in Path("/proc/mounts").read_text().splitlines() if str(self.root.run) in line],
        }

    def close(self) -> None:
        """End everything, however it is."""
        with contextlib.suppress(AssertionError, HawseError):
            if self.process is None:
                self.start()
            for item in self.ask("PS", all=True)["items"]:
                with contextlib.suppress(HawseError):
                    self.ask("RM", container=item["id"], force=True)
        if self.process is not None:
            self.stop()
        try:  # a supervisor with no container ends after its daemon, and removes its cgroups' directory first
            eventually(lambda: processes_of(self.root), lambda found: not found, "the supervisor's end")
        finally:
            for pid in processes_of(self.root):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


NOTHING: dict[str, Any] = {"directories": [], "cgroups": [], "entries": [], "mounts": []}


def read_log(log: int, index: int) -> bytes:
    """All that there is in a log."""
    reader, parts = LogReader(log, index), []
    while chunks := reader.read():
        parts += [chunk.data for chunk in chunks]
    return b"".join(parts)


def processes_of(root: Root) -> list[int]:
    """Supervisors, keepers and daemons of a root that are there, by their command lines."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if os.fsencode(root.run) in words and any(b"runtime" in word for word in words):  # and not a lab's agent
                found.append(int(entry.name))
    return found


@contextlib.contextmanager
def running_daemon() -> Iterator[RunningDaemon]:
    """One for a while; afterwards neither a process nor a cgroup of it is there, and it met no fault of its own."""
    directory = tempfile.mkdtemp(prefix="hwd-")
    daemon = RunningDaemon(find_root(directory))
    try:
        daemon.start()
        yield daemon
        said = daemon.log()
        assert "Traceback" not in said, said
        assert "internal error" not in said, said
    finally:
        daemon.close()
        shutil.rmtree(directory)
    assert (processes_of(daemon.root), cgroups_of(daemon.root)) == ([], [])


def cgroups_of(root: Root) -> list[str]:
    """The directories of a root's containers' cgroups, in whatever hierarchy: with the runtime they go."""
    prefix = prefix_of(os.fspath(root.run))
    return [path for mount in Hierarchies.detect().all if os.path.exists(path := f"{mount}/{prefix}")]


def events_of(daemon: RunningDaemon, container: str) -> list[str]:
    """What happened to a container, in words."""
    with Connection(daemon.root.runtime_socket, BOUND_S) as connection:
        message = {"verb": "EVENTS", "since_s": 0.0, "follow": False, "container": container}
        return [str(event["what"]) for event in connection.converse(message)]


def record_of(daemon: RunningDaemon, container: str) -> dict[str, Any]:
    """The container's record on the disk."""
    return dict(json.loads((daemon.root.containers / container / "container.json").read_text()))
