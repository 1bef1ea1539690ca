"""A daemon as a process: started by us, or found running; what it said when it ended."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from sdn.machine.record import Place, daemon_environment
from sdn.model.errors import HawseError, Kind, unavailable
from sdn.service.pid_file import running_pid

KINDS: dict[int, Kind] = {
    3: Kind.NOT_FOUND,
    4: Kind.CONFLICT,
    5: Kind.INVALID,
    6: Kind.EXHAUSTED,
    7: Kind.UNAVAILABLE,
    8: Kind.DENIED,
}
"""What the exit codes of `hawse` mean (`sdn.cli.exits`, which is above us)."""
COMPLAINT = "hawse: "
STOP_S = 20.0
"""A controller that ends its streams and a runtime that ends its supervisor take milliseconds."""
KILL_S = 5.0
ANSWERING_PAUSE_S = 0.05
TAIL_BYTES = 16 << 10


class Process:
    """One daemon. `ready` becomes readable once it serves; `fd` is a pidfd: readable once it has ended."""

    def __init__(self, name: str, pid: int, log: Path, offset: int = 0) -> None:
        self.name = name
        self.pid = pid
        self.fd = os.pidfd_open(pid)
        self.serves = True
        self.ready: int | None = None
        self.held: socket.socket | None = None
        self._log = log
        self._offset = offset
        self._child: subprocess.Popen[bytes] | None = None

    @classmethod
    def find(cls, place: Place, name: str) -> Process | None:
        """The one that runs in this root, whoever started it."""
        pid = running_pid(place.root, name)
        if pid is None:
            return None
        try:
            found = cls(name, pid, place.log(name))
        except ProcessLookupError:
            return None
        if running_pid(place.root, name) == pid:  # and so it was when the descriptor was made
            return found
        found.close()
        return None

    @classmethod
    def start(cls, place: Place, name: str, words: Sequence[str], *, held: bool = False) -> Process:
        """Start one; `held`: it waits for `release`. Raises: UNAVAILABLE."""
        log = place.log(name)
        ready, child_ready = os.pipe2(os.O_CLOEXEC)
        ours, theirs = socket.socketpair() if held else (None, None)
        passed = [child_ready, *([theirs.fileno()] if theirs is not None else [])]
        options = ["--log", os.fspath(log), "--ready-fd", str(child_ready)]
        options += ["--start-fd", str(theirs.fileno())] if theirs is not None else []
        try:
            with open(log, "ab") as file:
                offset = file.tell()
                child = subprocess.Popen(
                    [*place.command(*words), *options],
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=file,
                    env=daemon_environment(),
                    cwd="/",
                    pass_fds=passed,
                    start_new_session=True,  # Ctrl-C is for the monitor, which ends daemons in their order
                )
        except OSError as error:
            os.close(ready)
            if ours is not None:
                ours.close()
            raise unavailable(f"the {name} cannot be started: {error}") from None
        finally:
            os.close(child_ready)
            if theirs is not None:
                theirs.close()
        started = cls(name, child.pid, log, offset)
        started._child, started.ready, started.held, started.serves = child, ready, ours, False
        return started

    @property
    def is_alive(self) -> bool:
        """Whether it still runs."""
        return not _readable(self.fd, 0)

    def wait_answering(self, path: Path, timeout_s: float) -> bool:
        """Until one that was found takes connections on its socket; False: it ended. Raises: UNAVAILABLE."""
        deadline = time.monotonic() + timeout_s
        while not _takes_connections(path):
            if _readable(self.fd, ANSWERING_PAUSE_S):  # nobody tells when somebody else's daemon serves
                return False
            if time.monotonic() > deadline:
                raise unavailable(
                    f"the {self.name} (pid {self.pid}) runs, but does not serve after {timeout_s:g} s",
                    f"see {self._log}",
                )
        return True

    def heard_ready(self) -> None:
        """The other end of `ready` has spoken, or is gone."""
        assert self.ready is not None
        self.serves = os.read(self.ready, 1) == b"1"
        os.close(self.ready)
        self.ready = None

    def wait_able(self, timeout_s: float) -> None:
        """Until a held one has tried the kernel. Raises: its own error where it ended; UNAVAILABLE."""
        assert self.held is not None
        self.held.settimeout(timeout_s)
        try:
            if self.held.recv(1):
                return
        except TimeoutError:
            raise unavailable(f"the {self.name} does not begin within {timeout_s:g} s", f"see {self._log}") from None
        except OSError:
            pass  # it ended
        raise self.wait_error()

    def release(self) -> None:
        """Let a held one begin. One that ended meanwhile is noticed as such."""
        assert self.held is not None
        with contextlib.suppress(OSError):
            self.held.send(b"1")
        self.held.close()
        self.held = None

    def wait_error(self) -> HawseError:
        """Why it ended, in its own words; waits for the end."""
        _readable(self.fd, KILL_S)
        code = None if self._child is None else self._child.poll()
        message, hint = _last_words(self._log, self._offset)
        if not message:
            how = "ended" if code is None else f"was ended by signal {-code}" if code < 0 else f"ended with {code}"
            return unavailable(f"the {self.name} {how} and did not say why", f"see {self._log}", exit_code=code)
        return HawseError(KINDS.get(code or 0, Kind.INTERNAL), message, hint=hint, facts={"daemon": self.name})

    @property
    def exit_code(self) -> int | None:
        """Of one that we started and that has ended."""
        return None if self._child is None else self._child.poll()

    def signal(self, number: int) -> None:
        """Send one; gone is fine."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.fd, number)

    def stop(self, timeout_s: float = STOP_S) -> bool:
        """End it in good order; False: it had to be killed. Raises: UNAVAILABLE where not even that ends it."""
        self.signal(signal.SIGTERM)
        orderly = _readable(self.fd, timeout_s)
        if not orderly:
            self.signal(signal.SIGKILL)
            if not _readable(self.fd, KILL_S):
                raise unavailable(f"the {self.name} (pid {self.pid}) does not end: it hangs in the kernel")
        self.close()
        return orderly

    def close(self) -> None:
        """Let go of it, and reap it if it has ended; it goes on otherwise."""
        if self._child is not None:
            self._child.poll()
        if self.ready is not None:
            os.close(self.ready)
            self.ready = None
        if self.held is not None:
            self.held.close()
            self.held = None
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _takes_connections(path: Path) -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
        probe.connect(os.fspath(path))
        return True
    return False


def _readable(fd: int, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))


class Reader(Protocol):
    """Something to look at meanwhile."""

    def fileno(self) -> int:
        """Readable when there is something."""

    def read(self) -> None:
        """Look."""


def wait_serving(processes: Iterable[Process], timeout_s: float, meanwhile: Reader | None = None) -> None:
    """Until all serve. Raises: the error of the first that ended; UNAVAILABLE after that time."""
    waiting = {process.ready: process for process in processes if process.ready is not None}
    poll = select.poll()
    for fd in waiting:
        poll.register(fd, select.POLLIN)
    if meanwhile is not None:
        poll.register(meanwhile, select.POLLIN)
    deadline = time.monotonic() + timeout_s
    while waiting:
        left_s = deadline - time.monotonic()
        ready = poll.poll(left_s * 1000) if left_s > 0 else []
        if not ready:
            names = " and ".join(sorted(process.name for process in waiting.values()))
            raise unavailable(f"{names}: not serving after {timeout_s:g} s", "see the logs, in the state directory")
        for fd, _ in ready:
            process = waiting.pop(fd, None)
            if process is None:
                continue
            poll.unregister(fd)
            process.heard_ready()
            if not process.serves:
                raise process.wait_error()
        if meanwhile is not None:
            meanwhile.read()


def _last_words(log: Path, offset: int) -> tuple[str, str]:
    """The complaint that a daemon's log ends with since it was started: what, and what to do."""
    try:
        with open(log, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(min(offset, size), size - TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return "", ""
    for number in range(len(lines) - 1, -1, -1):
        if lines[number].startswith(COMPLAINT):
            following = lines[number + 1] if number + 1 < len(lines) else ""
            hint = following.strip() if following.startswith(" " * len(COMPLAINT)) else ""
            return lines[number].removeprefix(COMPLAINT), hint
    return "", ""
