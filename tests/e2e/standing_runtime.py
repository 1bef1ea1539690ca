"""A runtime that many tests share, with an image of busybox, and proof that nothing is left of what they start."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sdn.service.contract_client import Connection
from sdn.service.roots import find_root
from tests.e2e.standing_lab import COMMAND, PATIENCE_S, environment
from tests.runtime.daemons import cgroups_of
from tests.runtime.rootfs import make_root

IMAGE = "busybox:test"


class Runtime:
    """Commands run on its root, as a user types them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.daemon: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """The daemon; it serves when this returns."""
        reading, writing = os.pipe()
        try:
            self.daemon = subprocess.Popen(
                [*COMMAND, "runtime", "--root", str(self.root), "--log", str(self.root / "log"), "--ready-fd",
                 str(writing)],
                pass_fds=[writing], env=environment(), start_new_session=True,
            )  # fmt: skip
            os.close(writing)
            writing = -1
            assert os.read(reading, 1) == b"1", self.log()
        finally:
            os.close(reading)
            if writing >= 0:
                os.close(writing)

    def end(self, number: int = signal.SIGTERM) -> None:
        """Of the daemon; containers live on."""
        if self.daemon is not None:
            self.daemon.send_signal(number)
            self.daemon.wait(PATIENCE_S)
            self.daemon = None

    def log(self) -> str:
        """The daemon's."""
        path = self.root / "log"
        return path.read_text() if path.exists() else ""

    def words(self, *arguments: str) -> list[str]:
        """A command line."""
        return [*COMMAND, "--root", str(self.root), *arguments]

    def done(self, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """A command that ended, however; never with a traceback."""
        done = subprocess.run(
            self.words(*arguments), input=stdin, capture_output=True, timeout=PATIENCE_S, check=False, env=environment()
        )
        assert b"Traceback" not in done.stdout + done.stderr, done.stderr
        return done

    def run(self, *arguments: str, code: int = 0, stdin: bytes = b"") -> str:
        """What it says: its output; with a code, its complaint, which is a sentence and what to do."""
        done = self.done(*arguments, stdin=stdin)
        said = f"{arguments} ended with {done.returncode}:\n{done.stdout!r}\n{done.stderr!r}\n{self.log()[-3000:]}"
        assert done.returncode == code, said
        return (done.stderr if code else done.stdout).decode()

    def refused(self, *arguments: str, code: int) -> str:
        """A complaint: one sentence, and what to do."""
        complaint = self.run(*arguments, code=code)
        assert re.match(r"hawse: \S", complaint), complaint
        assert len(complaint.splitlines()) <= 2, complaint
        return complaint

    def json(self, *arguments: str) -> Any:
        """What a command prints for programs."""
        return json.loads(self.run(*arguments, "-o", "json"))

    def inspect(self, name: str) -> Any:
        """A container."""
        return self.json("inspect", name)

    def ids(self) -> list[str]:
        """Of all containers."""
        return self.run("ps", "-aq").split()

    def left(self) -> tuple[list[str], list[str]]:
        """What containers are there, and what of them is in the file system."""
        return self.ids(), sorted(path.name for path in (self.root / "state" / "containers").glob("*"))

    @contextlib.contextmanager
    def tidied(self) -> Iterator[None]:
        """No test leaves a container to the next; one that does fails for it."""
        yield
        left = self.left()
        for identity in left[0]:
            self.run("rm", "-f", identity)
        assert left == ([], [])

    @contextlib.contextmanager
    def unchanged(self) -> Iterator[None]:
        """No container comes or goes inside."""
        before = self.left()
        yield
        assert self.left() == before

    @contextlib.contextmanager
    def container(self, *arguments: str) -> Iterator[str]:
        """A container in the background, for a while; its id."""
        made = self.run("run", "-d", *arguments).strip()
        try:
            yield made
        finally:
            self.run("rm", "-f", made)


@contextlib.contextmanager
def ended(runtime: Runtime) -> Iterator[None]:
    """Afterwards none of its processes is left, also where the test took the daemon away."""
    try:
        yield
    finally:
        if runtime.daemon is None:
            runtime.start()
        _empty(runtime)


@contextlib.contextmanager
def standing_runtime() -> Iterator[Runtime]:
    """One that runs, on a root of its own. At the end nothing is left: no process, no file, no control group."""
    root = Path(tempfile.mkdtemp(prefix="hwr-"))
    runtime = Runtime(root)
    try:
        runtime.start()
        with ended(runtime):
            _import(runtime, make_root(root / "tree"))
            yield runtime
    finally:
        shutil.rmtree(root)
    assert cgroups_of(find_root(str(root))) == []


def _import(runtime: Runtime, tree: Path) -> None:
    """The image `IMAGE`, of a root tree."""
    fd = os.open(tree, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with Connection(runtime.root / "runtime.sock", PATIENCE_S) as connection:
            message = {"verb": "IMAGE_IMPORT", "name": IMAGE, "command": ["sh"], "env": ["FROM=image"]}
            for _ in connection.converse(message, fd):
                pass
    finally:
        os.close(fd)


def _empty(runtime: Runtime) -> None:
    """Everything that the runtime has started ends: with no container left the supervisor goes with the daemon."""
    left = runtime.ids()
    if left:
        runtime.run("rm", "-f", *left)
    with Connection(runtime.root / "runtime.sock") as connection:
        supervisor = os.pidfd_open(connection.request({"verb": "STATUS"})["supervisor_pid"])
    try:
        runtime.end()
        if not select.select([supervisor], [], [], PATIENCE_S)[0]:
            signal.pidfd_send_signal(supervisor, signal.SIGKILL)
            raise AssertionError("the supervisor did not end with the last container")
    finally:
        os.close(supervisor)
