"""What a test session makes is removed by a process of its own: when the session ends, or dies, however.

By one name it knows what belongs to a session: that of its directory, which is TMPDIR for all that runs there.

    processes    have TMPDIR in their environment, descend from such, live in a namespace or a root tree of the session
    namespaces   /run/netns/NAME-…
    labs         have a name that begins so, a topology file below the directory, or a daemon of the session
    cgroups      are those of runtimes whose root is below the directory
    mounts, files are below the directory

An orderly session leaves nothing of it but what pytest keeps for its tests; what else is found is a fault, and told.
Executed as a file, isolated, in a session of its own. It ends within `BOUND_S` of what it waits for.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import json
import os
import re
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PREFIX = "hwt"
PINS = "/run/netns"
LABS = "/run/hawse"
KEPT = "tmp"
"""What pytest's `tmp_path` is below: its own to keep until the session is over."""
DEPTH = 4
"""How deep below a session's directory a runtime's root may be: `tmp/TEST/place/run`."""
GRACE_S = 15.0
"""What a stopped daemon has started may end a little later than the daemon."""
BOUND_S = 60
ROUNDS = 10
PAUSE_S = 0.1


def session_name() -> str:
    """Of the session that this process belongs to; what has no place in a file system is named `NAME-…`."""
    name = os.path.basename(tempfile.gettempdir())
    return name if name.startswith(f"{PREFIX}-") else PREFIX


class Janitor:
    """The session's side: from here on all temporary files are in its directory."""

    def __init__(self) -> None:
        self._before = tempfile.gettempdir(), os.environ.get("TMPDIR")
        self.directory = Path(self._before[0]) / f"{session_name()}-{secrets.token_hex(4)}"
        self._process = subprocess.Popen(
            [sys.executable, "-I", __file__, str(self.directory), str(os.getpid())],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            start_new_session=True, cwd="/",
        )  # fmt: skip
        self.directory.mkdir(mode=0o711)  # some tests let others in, below
        os.environ["TMPDIR"] = tempfile.tempdir = str(self.directory)

    def end(self) -> list[str]:
        """The session is over. Returns: what should have been gone by then, in words; now it is. Twice is fine."""
        if self._process.returncode is not None:
            return []
        told, _ = self._process.communicate("over\n", BOUND_S + 2 * GRACE_S)
        tempfile.tempdir = None
        os.environ.pop("TMPDIR")
        if self._before[1] is not None:
            os.environ["TMPDIR"] = self._before[1]
        lines = told.splitlines()
        return lines if self._process.returncode == 0 else [*lines, "the janitor itself failed: look what is there"]


@dataclasses.dataclass(frozen=True)
class Found:
    """What there is of a session. `files`: in its directory, but for what pytest keeps."""

    processes: dict[int, str]
    labs: list[str]
    cgroups: list[str]
    namespaces: list[str]
    mounts: list[str]
    files: list[str]

    def told(self) -> list[str]:
        """A line for each thing."""
        lines = [f"process {pid}: {command}" for pid, command in self.processes.items()]
        lines += [f"lab {path}" for path in self.labs] + [f"cgroup {path}" for path in self.cgroups]
        lines += [f"namespace {path}" for path in self.namespaces] + [f"mount {path}" for path in self.mounts]
        return lines + [f"file {path}" for path in self.files]


class Session:
    """A session as the janitor sees it. `pytest`: its first process where that lives, which itself does not count."""

    def __init__(self, directory: str, pytest: int = 0) -> None:
        self.directory = os.path.realpath(directory)
        self.name = os.path.basename(directory)
        self._spared = {os.getpid(), pytest}
        self._pytest = pytest

    def find(self) -> Found:
        """Look at everything."""
        namespaces = [path for path in glob.glob(f"{PINS}/{self.name}*") if self._is_named(os.path.basename(path))]
        marked = {pid for pid in pids() if self._is_marked(pid)}
        labs = [path for path in glob.glob(f"{LABS}/*") if self._is_lab(path, marked)]
        pins = [
            *namespaces,
            *(pin for lab in labs for part in ("ns/*", "*/netns/*") for pin in glob.glob(f"{lab}/{part}")),
        ]
        marked |= set(inside(pins))
        with contextlib.suppress(FileNotFoundError):
            files = [f"{self.directory}/{name}" for name in os.listdir(self.directory) if name != KEPT]
            return Found(self._described(marked), labs, self._cgroups(), namespaces, mounts(self.directory), files)
        return Found(self._described(marked), labs, [], namespaces, [], [])

    def remove(self) -> list[str]:
        """Take it all away. Returns: what could not be, in words."""
        sys.path.insert(0, str(REPOSITORY))
        from plugin.kernel import namespace
        from runtime.cgroup import Hierarchies, sweep
        from sdn.model.errors import HawseError
        from topologies import processes
        from topologies.cleanup import destroy
        from topologies.record import Directory

        problems: list[str] = []
        for _ in range(ROUNDS):
            problems, found = [], self.find()
            for act in (
                lambda found=found: processes.end(filter(None, map(processes.identify, found.processes))),
                *(lambda path=path: destroy(Directory(Path(path))) for path in found.labs),
                *(lambda path=path: sweep(Hierarchies.detect(), path, ()) for path in found.cgroups),
                *(lambda path=path: namespace.remove(Path(path)) for path in (*found.namespaces, *found.mounts)),
            ):
                try:
                    act()
                except (HawseError, OSError) as error:
                    problems.append(str(error))
            if not mounts(self.directory):  # or else it would go on in what is mounted there
                shutil.rmtree(self.directory, ignore_errors=True)
            if not self.find().told() and not os.path.exists(self.directory):
                return []
        return problems + self.find().told()

    def _is_named(self, name: str) -> bool:
        return name == self.name or name.startswith(f"{self.name}-")

    def _is_below(self, path: str) -> bool:
        return path == self.directory or path.startswith(f"{self.directory}/")

    def _is_marked(self, pid: int) -> bool:
        """By its environment; or by its root, for a container that nobody has control of any more."""
        for entry in content(f"/proc/{pid}/environ").split("\0"):
            if entry.startswith("TMPDIR="):
                return self._is_below(entry.removeprefix("TMPDIR="))
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{pid}/ns/mnt") != os.readlink("/proc/self/ns/mnt"):
                lines = [line.split(" ") for line in content(f"/proc/{pid}/mountinfo").splitlines()]
                return any(line[4] == "/" and f"/{self.name}/" in " ".join(line) for line in lines)
        return False

    def _is_lab(self, path: str, marked: Iterable[int]) -> bool:
        if not re.fullmatch(r"[0-9a-f]{8}", os.path.basename(path)):
            return False
        if any(f"{path}/" in content(f"/proc/{pid}/cmdline") for pid in marked):
            return True
        try:
            record = json.loads(content(f"{path}/lab.json"))
            return self._is_named(record["name"]) or self._is_below(record["file"])
        except (ValueError, KeyError):
            return False

    def _described(self, marked: set[int]) -> dict[int, str]:
        """With all that descend from them, but for the dead; and each with its command."""
        parents = {pid: stat for pid in pids() if (stat := parent_of(pid)) is not None}
        ours = marked | ({self._pytest} & parents.keys())
        while more := {pid for pid, parent in parents.items() if parent in ours} - ours - self._spared:
            ours |= more
        living = sorted((ours & parents.keys()) - self._spared)
        return {pid: content(f"/proc/{pid}/cmdline").replace("\0", " ").strip() for pid in living}

    def _cgroups(self) -> list[str]:
        places = glob.glob("/sys/fs/cgroup/hawse/*/") + glob.glob("/sys/fs/cgroup/*/hawse/*/")
        there = {f"hawse/{os.path.basename(path.rstrip('/'))}" for path in places}
        if not there:
            return []
        sys.path.insert(0, str(REPOSITORY))
        from runtime.cgroup import prefix_of

        return sorted(there & {prefix_of(path) for path in directories(self.directory, DEPTH)})


def pids() -> list[int]:
    """Of every process."""
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def content(path: str) -> str:
    """Of a file; empty where it is gone, or not for us."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""


def parent_of(pid: int) -> int | None:
    """None: it is dead."""
    fields = content(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return None if not fields or fields[0] in "ZX" else int(fields[1])


def inside(pins: Iterable[str]) -> Iterator[int]:
    """The processes that live in one of these pinned network namespaces."""
    wanted: set[tuple[int, int]] = set()
    for path in pins:
        with contextlib.suppress(OSError):
            wanted.add((os.stat(path).st_dev, os.stat(path).st_ino))
    for pid in pids() if wanted else ():
        with contextlib.suppress(OSError):
            status = os.stat(f"/proc/{pid}/ns/net")
            if (status.st_dev, status.st_ino) in wanted:
                yield pid


def mounts(below: str) -> list[str]:
    """Mount points below a directory, the latest first."""
    points = (line.split(" ")[4] for line in content("/proc/self/mountinfo").splitlines())
    plain = [re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), point) for point in points]
    return [point for point in reversed(plain) if point.startswith(f"{below}/")]


def directories(top: str, depth: int) -> Iterator[str]:
    """A directory and those below it."""
    yield top
    if depth:
        with contextlib.suppress(OSError), os.scandir(top) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield from directories(entry.path, depth - 1)


def _wait(pytest: int) -> bool:
    """Until the session is over, or dead. Returns: whether it said so. A fork of it may hold the pipe longer."""
    poll = select.poll()
    poll.register(0, select.POLLIN)
    with contextlib.suppress(ProcessLookupError):
        poll.register(os.pidfd_open(pytest), select.POLLIN)
        poll.poll()
    os.set_blocking(0, False)
    with contextlib.suppress(BlockingIOError):
        return os.read(0, 16) == b"over\n"
    return False


def main(directory: str, pytest: int) -> int:
    """Returns: the exit code; 1: something could not be removed."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    orderly = _wait(pytest)
    signal.alarm(BOUND_S)
    session = Session(directory, pytest if orderly else 0)
    deadline = time.monotonic() + (GRACE_S if orderly else 0)
    while (left := session.find().told()) and time.monotonic() < deadline:
        time.sleep(PAUSE_S)  # between two looks at the kernel, which tells nobody of most of this
    if not left:
        shutil.rmtree(directory, ignore_errors=True)
    problems = session.remove() if left or os.path.exists(directory) else []
    with contextlib.suppress(BrokenPipeError):
        for line in (*left, *(f"not removed: {problem}" for problem in problems)):
            print(line, flush=True)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
