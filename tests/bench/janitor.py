"""What a bench leaves is removed by a process of its own: when it is let go of, or when the bench dies, however.

Executed as a file by a bare interpreter (standard library only), in a session of its own; its standard input tells it
what there is. Processes with a pid namespace of their own take everything in it along. All of it is idempotent.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

WAIT_S = 10.0
PAUSE_S = 0.01


class Janitor:
    """The bench's side. `keep` names a thing that is to be removed when the block ends, or the bench."""

    def __init__(self) -> None:
        self._count = 0
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            cwd="/",
        )

    def add(self, what: str, name: Any) -> int:
        """`what`: a key of `REMOVERS`; `name`: its argument. Returns: what `remove` takes."""
        self._count += 1
        self._say({"number": self._count, "what": what, "name": name})
        return self._count

    def remove(self, number: int) -> None:
        """Remove it now; returns when it is gone."""
        self._say({"remove": number})
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def forget(self, number: int) -> None:
        """It is gone already."""
        self._say({"forget": number})

    @contextmanager
    def keep(self, what: str, name: Any) -> Iterator[None]:
        """For the length of a block."""
        number = self.add(what, name)
        try:
            yield
        finally:
            self.remove(number)

    def close(self) -> None:
        """Remove what is left."""
        self._process.communicate()

    def _say(self, line: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(line) + "\n")
        self._process.stdin.flush()


def end_process(pid: int) -> None:
    """SIGKILL to a child of the bench and to its children; wait for them all. Their pid namespaces end with them."""
    fds = []
    for number in (pid, *_children(pid)):
        try:
            fds.append(os.pidfd_open(number))
        except ProcessLookupError:
            continue
    for number in (signal.SIGSTOP, signal.SIGKILL):  # stopped first: a supervisor whose keeper dies begins another pair
        for fd in fds:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(fd, number)
    for fd in fds:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        poll.poll(WAIT_S * 1000)
        os.close(fd)


def _children(pid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(word) for word in file.read().split()]
    except FileNotFoundError:
        return []


def remove_cgroup(name: str) -> None:
    """Kill what is in it, in every hierarchy; then remove it, with those below it."""
    deadline = time.monotonic() + WAIT_S
    for top in glob.glob(f"/sys/fs/cgroup/{name}") + glob.glob(f"/sys/fs/cgroup/*/{name}"):
        while os.path.isdir(top) and time.monotonic() < deadline:
            for directory, _, _ in os.walk(top, topdown=False):
                _kill_all(f"{directory}/cgroup.procs")
                try:
                    os.rmdir(directory)
                except OSError:
                    time.sleep(PAUSE_S)  # a killed process is in its cgroup until it is gone


def _kill_all(procs: str) -> None:
    try:
        with open(procs) as file:
            pids = [int(line) for line in file]
    except OSError:
        return
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def remove_directory(path: str) -> None:
    """With all that is in it."""
    shutil.rmtree(path, ignore_errors=True)


def run_command(argv: list[str]) -> None:
    """A command that removes something, and may find nothing to remove."""
    subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


REMOVERS: dict[str, Callable[[Any], None]] = {
    "process": end_process,
    "cgroup": remove_cgroup,
    "directory": remove_directory,
    "command": run_command,
}


def _serve() -> None:
    """Until the end of file: then the rest, the newest first."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    things: dict[int, tuple[str, Any]] = {}
    for line in sys.stdin:
        order = json.loads(line)
        if "remove" in order:
            what, name = things.pop(order["remove"])
            REMOVERS[what](name)
            print("removed", flush=True)
        elif "forget" in order:
            del things[order["forget"]]
        else:
            things[order["number"]] = (order["what"], order["name"])
    for what, name in reversed(things.values()):
        REMOVERS[what](name)


if __name__ == "__main__":
    _serve()
