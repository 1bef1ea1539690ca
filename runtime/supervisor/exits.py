"""How a process ended: the code, where it can be learned, and the record in the file `exit`.

The record is in its place before the process is reaped and before anybody is told: whoever dies in between finds either
a process that can still be waited for, or the record.
"""

from __future__ import annotations

import errno
import json
import os
import signal

from runtime import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.plan import ExitRecord

FILE = "exit"
UNKNOWN = -1


def wait(pidfd: int, *, reap: bool) -> int | None:
    """The code of a child that ended (0 to 255, 128 + signal); None while it runs.

    Without `reap` it can be waited for again. Raises: ChildProcessError (it is not ours; or `pidfd` is -1).
    """
    if pidfd < 0:
        raise ChildProcessError
    options = os.WEXITED | os.WNOHANG | (0 if reap else os.WNOWAIT)
    found = os.waitid(os.P_PIDFD, pidfd, options)
    return None if found is None else code_of(found)


def code_of(found: os.waitid_result) -> int:
    """The code, as a shell has it."""
    return found.si_status if found.si_code == os.CLD_EXITED else 128 + found.si_status


def read_foreign(pid: int, start: int, pidfd: int) -> int | None:
    """The code of somebody else's child that ended: from its entry in /proc while nobody reaped it, else of its pidfd.

    None: not yet, or never. The pidfd tells on Linux 6.15 or newer, once it was reaped.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b") ")[2].split()
        if fields[0] == b"Z" and int(fields[19]) == start:
            return _decode(int(fields[-1]))
    except OSError:
        pass  # reaped: the pidfd may know
    status = syscall.exit_status(pidfd) if pidfd >= 0 else None
    return None if status is None else _decode(status)


def _decode(status: int) -> int:
    return 128 + (status & 0x7F) if status & 0x7F else status >> 8


def read_start(pid: int) -> int:
    """When it started (clock ticks since boot): with the pid, what names a process. 0: there is none.

    Source: proc_pid_stat(5), field 22.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b") ")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return 0


def send(pidfd: int, number: int) -> None:
    """A signal to a process; one that ended is fine."""
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return  # it ended


def write_record(directory: str, record: ExitRecord) -> None:
    """Whole or not at all. Raises: OSError."""
    temporary = f"{directory}/{FILE}.new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        data = json.dumps(record).encode()
        if os.write(fd, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), temporary)
    finally:
        os.close(fd)
    os.rename(temporary, f"{directory}/{FILE}")


def read_record(directory: str) -> ExitRecord | None:
    """The record of the last run that ended, or None."""
    try:
        with open(f"{directory}/{FILE}", "rb") as file:
            record: ExitRecord = json.load(file)
    except (OSError, ValueError):
        return None
    return record
