"""The keeper: parent of supervisors, and what is below them when they fall.

It forks the supervisor, holds what the supervisor tells it to hold, and sleeps. When the supervisor ends, however, its
containers become the keeper's children (PR_SET_CHILD_SUBREAPER): it forks the next one, which has all that was held by
the fork itself. What ends meanwhile it reaps, and keeps the code until a supervisor has seen it.

An upgrade is the same way round: the supervisor ends with `UPGRADE`, the keeper executes the new program in its own
place, its tables in a memfd, its descriptors inherited, and forks anew. When the keeper itself is killed, the
supervisor takes its place in the very same way: it begins to keep, and forks.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import sys
import time

from runtime import syscall
from runtime.supervisor import exits
from runtime.supervisor.held import Held, Link
from runtime.supervisor.own_log import say
from runtime.supervisor.supervise import ENDED, ORPHANED, UPGRADE, Places, supervise

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from runtime.supervisor.main import main; main(sys.argv[2:])"
BACKOFF_S = (0.0, 0.1, 0.5, 2.0, 10.0)
"""Before the next supervisor, by how many failed (were not killed) in a row within `SHORT_S` of their start."""
KILLED = 128 + signal.SIGKILL
SHORT_S = 5.0


class Keeper:
    """One process's loop: `run` does not return."""

    __slots__ = ("_failures", "_held", "_knock", "_link", "_places", "_started", "_supervisor", "_unsent", "_wake")

    def __init__(self, places: Places, held: Held) -> None:
        self._places = places
        self._held = held
        self._supervisor = 0
        self._started = 0.0
        self._failures = 0
        self._unsent: list[int] = []
        self._link: socket.socket | None = None
        self._knock = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._wake: tuple[int, int] = (-1, -1)

    def run(self) -> NoReturn:
        """Keep."""
        syscall.prctl(syscall.PR_SET_CHILD_SUBREAPER, 1)
        self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(self._wake[1], warn_on_full_buffer=False)
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, _wake_only)
        poll = select.poll()
        poll.register(self._wake[0], select.POLLIN)
        poll.register(self._knock, select.POLLIN)
        while True:
            self._reap()
            if not self._supervisor:
                self._spawn()
            for fd, _ in poll.poll(100 if self._unsent else None):
                if SIGTERM in os.read(fd, 4096) and fd == self._wake[0]:
                    self._forward()
            if self._link is not None:
                self._held.drain(self._link)
            self._tell()

    def _reap(self) -> None:
        """Who ended: told and kept before it is reaped, so that a code is always somewhere."""
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None:
                return
            if found.si_pid == self._supervisor:
                os.waitid(os.P_PID, found.si_pid, os.WEXITED)
                self._ended(exits.code_of(found))
            else:
                self._held.codes[found.si_pid] = exits.code_of(found)
                self._unsent.append(found.si_pid)
                self._tell()
                os.waitid(os.P_PID, found.si_pid, os.WEXITED)

    def _tell(self) -> None:
        while self._unsent and self._link is not None:
            pid = self._unsent[0]
            if pid in self._held.codes:
                try:
                    self._link.send(f"reaped {pid} {self._held.codes[pid]}".encode(), socket.MSG_DONTWAIT)
                except OSError:  # full, or its end is known in a moment
                    return
            self._unsent.pop(0)

    def _ended(self, code: int) -> None:
        if self._link is not None:
            self._held.drain(self._link)
            self._link.close()
        self._link, self._supervisor = None, 0
        if code == ENDED:
            self._places.remove()
            os._exit(0)
        if code == UPGRADE and self._held.upgrade is not None:
            self._execute(*self._held.upgrade)
        short = time.monotonic() - self._started < SHORT_S
        self._failures = self._failures + 1 if short and code not in (UPGRADE, KILLED) else 0
        say(f"the supervisor ended with {code}; the next one takes over {len(self._held.fds)} containers")

    def _spawn(self) -> None:
        if self._failures:
            # One that fails at its start must not burn the machine; what comes meanwhile waits in our sockets.
            time.sleep(BACKOFF_S[min(self._failures, len(BACKOFF_S) - 1)])
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._unsent.clear()  # it begins with all codes
        self._started = time.monotonic()
        gc.freeze()
        pid = os.fork()
        if pid:
            theirs.close()
            self._link, self._supervisor = ours, pid
            return
        code = 1
        try:
            code = self._be_supervisor(ours, theirs)
        finally:  # an exception is written by the interpreter only if it leaves; here it must not
            if sys.exc_info()[0] is not None:
                sys.excepthook(*sys.exc_info())
            os._exit(code)

    def _be_supervisor(self, ours: socket.socket, theirs: socket.socket) -> int:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        ours.close()
        for fd in self._wake:
            os.close(fd)
        link = Link(theirs, self._knock)
        code = supervise(self._places, self._held, link)
        if code == ORPHANED:
            theirs.close()
            os.close(self._knock)
            self._places.write_pid()
            say(f"the keeper was killed; pid {os.getpid()} keeps in its place")
            Keeper(self._places, self._held).run()
        return code

    def _forward(self) -> None:
        """A wish to end: the supervisor knows whether containers live."""
        if self._link is not None:
            try:
                self._link.send(b"terminate", socket.MSG_DONTWAIT)
            except OSError:
                return  # whoever wishes may wish again

    def _execute(self, python: str, package: str) -> None:
        """Become the new program. Returns only if that cannot be started."""
        self._held.upgrade = None
        try:
            table = os.memfd_create("hawse-held", 0)
            os.write(table, self._dump())
            for fd in self._all_fds():
                os.set_inheritable(fd, True)
            arguments = [self._places.run, self._places.state, "--held", str(table)]
            os.execv(python, [python, "-I", "-S", "-c", BOOT, package, *arguments])  # noqa: S606 no shell is wanted
        except OSError as error:
            say(f"cannot execute {python}: {error.strerror}; the old program goes on")
            for fd in self._all_fds():
                os.set_inheritable(fd, False)

    def _all_fds(self) -> list[int]:
        held = [fd for names in self._held.fds.values() for fd in names.values()]
        return [*held, self._places.listener, self._places.lock]

    def _dump(self) -> bytes:
        held, places = self._held, self._places
        codes = {str(pid): code for pid, code in held.codes.items()}
        table = {"fds": held.fds, "notes": held.notes, "codes": codes}
        return json.dumps({**table, "listener": places.listener, "lock": places.lock}).encode()


SIGTERM = signal.SIGTERM.value


def _wake_only(_number: int, _frame: object) -> None:
    """The wake-up descriptor has what matters."""


def load(table: int, run: str, state: str) -> Keeper:
    """The keeper that an upgrade left in a memfd."""
    with os.fdopen(table, "rb") as file:
        file.seek(0)
        saved = json.load(file)
    held = Held()
    held.fds, held.notes = saved["fds"], saved["notes"]
    held.codes = {int(pid): code for pid, code in saved["codes"].items()}
    places = Places(run, state, saved["listener"], saved["lock"])
    keeper = Keeper(places, held)
    for fd in keeper._all_fds():
        os.set_inheritable(fd, False)
    return keeper
