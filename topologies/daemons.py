"""Starting what lives in a lab: its daemons, each born inside its namespace.

Who starts a process, the nursery or a thread here, is in the namespace already, so the child is there from its first
instruction, and whoever looks for processes by namespace finds it at any moment.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from plugin.kernel import namespace
from sdn.model.errors import unavailable
from topologies import processes
from topologies.births import Birth, Nursery, daemons_environment
from topologies.record import RUNTIME, Directory, Process, runtime_of, write_whole

READY_S = 20.0
"""A daemon needs half a second; on a machine that is all busy a good deal more."""
LOG_TAIL_BYTES = 4096
GONE = "the lab was taken down again"

Say = Callable[[str], None]


def count(number: int, what: str) -> str:
    """`1 host`, `2 hosts`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def hawse_command() -> list[str]:
    """How this very installation is started."""
    script = Path(sys.executable).with_name("hawse")
    return [sys.executable, str(script)] if script.exists() else [sys.executable, "-m", "sdn.cli.main"]


class Daemon:
    """One that was started; `wait_ready` says when it serves."""

    def __init__(
        self, directory: Directory, name: str, where: str, arguments: Sequence[str], nursery: Nursery | None = None
    ) -> None:
        """`name`: its root below the lab's directory; `where`: the namespace it is born in; `arguments`: word first.

        Without a nursery it is executed. Raises: UNAVAILABLE.
        """
        self.name = runtime_of(name) if arguments[0] == RUNTIME else name
        """Among the record's processes."""
        self._what = f"the {arguments[0]} of {name}" if name != arguments[0] else f"the {name}"
        self._log = directory.log(self.name)
        self._ready, child_ready = os.pipe2(os.O_CLOEXEC)
        words = [*arguments, "--root", str(directory.path / name)]
        try:
            self._birth = start(directory, where, words, self._log, child_ready, nursery)
        except BaseException:
            self.close()
            raise
        finally:
            os.close(child_ready)

    @property
    def process(self) -> Process:
        """Waits until it is born. Raises: UNAVAILABLE."""
        return self._birth()

    async def wait_ready(self) -> None:
        """Until it serves. Raises: UNAVAILABLE, with what it said last."""
        import asyncio  # here: what starts daemons is to start them soon, and needs none of it

        loop = asyncio.get_running_loop()
        spoken: asyncio.Future[bytes] = loop.create_future()

        def heard() -> None:
            loop.remove_reader(self._ready)
            if not spoken.done():
                spoken.set_result(os.read(self._ready, 1))

        loop.add_reader(self._ready, heard)
        try:
            async with asyncio.timeout(READY_S):
                if await spoken:
                    return
            raise unavailable(f"{self._what} ended: {self._last_words()}", GONE)
        except TimeoutError:
            raise unavailable(f"{self._what} does not serve after {READY_S:g} s: {self._last_words()}", GONE) from None
        finally:
            loop.remove_reader(self._ready)

    def _last_words(self) -> str:
        try:
            with open(self._log, "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - LOG_TAIL_BYTES))
                lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
        except OSError as error:
            return f"its log cannot be read ({error.strerror})"
        return " / ".join(lines[-2:]) if lines else "it said nothing"

    def close(self) -> None:
        """Let go of the pipe; the daemon goes on."""
        os.close(self._ready)


def start(
    directory: Directory, where: str, words: Sequence[str], log: Path, ready_fd: int, nursery: Nursery | None
) -> Birth:
    """A daemon in a namespace of the lab, in a session of its own. Raises: UNAVAILABLE."""
    namespace_fd = os.open(directory.namespace(where), os.O_RDONLY | os.O_CLOEXEC)
    log_fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def spawn() -> Process:
        child = subprocess.Popen(
            [*hawse_command(), *words, "--ready-fd", str(ready_fd)],
            stdin=subprocess.DEVNULL,
            stdout=log_fd,
            stderr=log_fd,
            env=daemons_environment(),
            cwd="/",
            pass_fds=(ready_fd,),
            start_new_session=True,
        )
        return processes.child(child.pid)  # while `child` is held: letting go of it may reap it

    try:
        if nursery is not None:
            return nursery.order(hawse_command(), words, (namespace_fd, log_fd, ready_fd))
        process = namespace.run_in(namespace_fd, spawn)
        return lambda: process
    except OSError as error:
        raise unavailable(f"the {words[0]} of {where} cannot be started: {error}") from None
    finally:
        os.close(namespace_fd)
        os.close(log_fd)


@dataclasses.dataclass(frozen=True, slots=True)
class Started:
    """A lab's daemons on their way; by host, but for the controller. `configurations`: what agents wait for."""

    controller: Daemon
    agents: dict[str, Daemon]
    runtimes: dict[str, Daemon]
    configurations: dict[str, LateFile]

    @property
    def processes(self) -> dict[str, Process]:
        """For the record. Waits until all are born. Raises: UNAVAILABLE."""
        daemons = (self.controller, *self.agents.values(), *self.runtimes.values())
        return {daemon.name: daemon.process for daemon in daemons}


class LateFile:
    """A file whose content comes later, for a reader that may open it already now.

    At first the path is a pipe: who opens it waits. `fill` puts the real file in the pipe's place and then writes the
    same content into the pipe, so whoever comes before or after reads the same. If the writer dies first, a reader
    that waits gets an empty file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        os.mkfifo(path, 0o600)
        # Both directions: a pipe without a reader may not be opened for writing alone.
        self._pipe: int | None = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def fill(self, content: bytes) -> None:
        """Give the content, at most what a pipe holds (64 kB)."""
        assert self._pipe is not None
        write_whole(self._path, content)
        written = os.write(self._pipe, content)
        assert written == len(content)
        self.close()

    def close(self) -> None:
        """Let go of the pipe; twice is fine."""
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None
