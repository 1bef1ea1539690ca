"""One container: what it has, and what becomes of its output.

waiting ──go──▶ starting ──execve──▶ running ◀──▶ frozen ──▶ exited ──forget──▶ (gone)
   └───────────────┴── failed: nothing is left of it
Who waits has no process, but a network namespace.
"""

from __future__ import annotations

import os

from runtime.supervisor.log_pump import Log
from runtime.supervisor.loop import READ, WENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.cgroup import Cgroup
    from runtime.plan import ExitRecord
    from runtime.supervisor import journal
    from runtime.supervisor.containers import Containers
    from runtime.supervisor.launching import Launch
    from runtime.supervisor.server import Answer, Connection

WAITING, STARTING, RUNNING, FROZEN, EXITED = "waiting", "starting", "running", "frozen", "exited"
TERMINAL_BYTES = 65536
TERMINAL_PAUSE_S = 0.1
"""A terminal that nobody inside has open is at its end for now; so often it is looked at again."""
DRAIN_MAX = 256
"""Reads of a pipe whose container has ended: whoever else holds its other end may write for ever."""


class Container:
    """One. Descriptors are -1 where there is none."""

    __slots__ = (
        "answer", "cgroup", "directory", "err", "exit", "home", "id", "input", "launch", "log",
        "out", "owner", "pid", "pidfd", "run", "start", "state", "terminal", "tries", "tty",
    )  # fmt: skip

    def __init__(self, home: Containers, entry: journal.Entry, cgroup: Cgroup) -> None:
        self.home = home
        self.id = entry.id
        self.run = entry.run
        self.directory = entry.directory
        self.tty = entry.tty
        self.pid = entry.pid
        self.start = entry.start
        self.cgroup: Cgroup | None = cgroup
        self.log = Log(entry.directory, entry.log_bytes_max)
        self.state = WAITING
        self.pidfd = self.out = self.err = self.terminal = self.input = -1
        self.exit: ExitRecord | None = None
        self.tries = 0
        # while it is launched
        self.launch: Launch | None = None
        self.owner: Connection | None = None
        self.answer: Answer | None = None

    @property
    def gate_fd(self) -> int:
        """Where news of its launch come from."""
        return self.launch.gate.fileno() if self.launch is not None and self.launch.gate is not None else -1

    def answered(self, answer: bytes, fd: int) -> None:
        """A spawner's word."""
        self.home.answered(self, answer, fd)

    def lost(self, *, late: bool) -> None:
        """A spawner ended instead."""
        self.home.lost(self, late=late)

    def watch(self) -> None:
        """Its process, output and followers are from now on the loop's."""
        loop = self.home.loop
        for fd in (self.out, self.err, self.terminal):
            if fd >= 0:
                os.set_blocking(fd, False)
                loop.watch(fd, self)
        for fd in self.log.bells:
            loop.watch(fd, self, 0)
        if self.pidfd >= 0:
            loop.watch(self.pidfd, self, READ)

    def ready(self, fd: int, events: int) -> None:
        """The loop's word: output, the end, news of the launch, or a follower that went."""
        if fd == self.out or fd == self.err:
            if events & READ:
                self._pump(fd)
            else:
                self.close_pipe(fd)
        elif fd == self.terminal:
            self._pump_terminal()
        elif fd == self.pidfd:
            self.home.ended(self)
        elif fd == self.gate_fd:
            self.home.progress(self)
        elif events & WENT and fd in self.log.bells:
            self.silence(fd)

    def _pump(self, fd: int) -> bool:
        try:
            if self.log.splice(fd, int(fd == self.err)):
                return True
        except BlockingIOError:
            return False
        self.close_pipe(fd)
        return False

    def _pump_terminal(self) -> bool:
        try:
            data = os.read(self.terminal, TERMINAL_BYTES)
        except BlockingIOError:
            return False
        except OSError:  # EIO: the last process closed it; only a process of the container could open it again
            if self.state == EXITED or self.exit is not None:
                return False
            self.home.loop.unwatch(self.terminal)
            self.home.loop.after(TERMINAL_PAUSE_S, self._listen_again, None)
            return False
        self.log.write(data, 0)
        return bool(data)

    def _listen_again(self, _: None) -> None:
        if self.terminal >= 0:
            self.home.loop.watch(self.terminal, self)

    def close_pipe(self, fd: int) -> None:
        """It is at its end."""
        self.home.loop.unwatch(fd)
        os.close(fd)
        if fd == self.out:
            self.out = -1
        else:
            self.err = -1

    def drain(self) -> None:
        """What is still in the pipes, after the last process has gone."""
        for fd in (self.out, self.err):
            if fd >= 0:
                for _ in range(DRAIN_MAX):
                    if not self._pump(fd):
                        break
        if self.terminal >= 0:
            for _ in range(DRAIN_MAX):
                if not self._pump_terminal():
                    break

    def silence(self, ringing: int) -> None:
        """A follower went."""
        self.home.loop.unwatch(ringing)
        number = self.log.bells.pop(ringing)
        os.close(ringing)
        self.home.link.drop(f"{self.id}/bell/{number}")

    def close(self) -> None:
        """Every descriptor; those of the keeper too."""
        loop = self.home.loop
        awaited = bool(self.log.bells) or self.input >= 0 or self.terminal >= 0
        for fd in (self.out, self.err, self.terminal, self.input, self.pidfd, *self.log.bells):
            if fd >= 0:
                loop.unwatch(fd)
                os.close(fd)
        self.log.bells.clear()
        self.log.close()
        self.out = self.err = self.terminal = self.input = self.pidfd = -1
        self.close_launch()
        self.home.link.drop(self.id, at_once=awaited)

    def close_launch(self) -> None:
        """What only the launch needed."""
        if self.launch is not None:
            self.home.loop.unwatch(self.gate_fd)
            self.launch.close()
            self.launch = None
        self.owner = self.answer = None
