"""The small init of `--init`: process 1 passes signals on, reaps what is left to it, and ends as its child ends.

It is the container's first process itself, which forks instead of executing the command: no program of ours has to be
compiled or be in the image. It costs about 0.3 MB per container that asks for it. It keeps no descriptor, cannot be
dumped or traced, and has the container's rights and no more.
"""

from __future__ import annotations

import os

from runtime.supervisor import signals
from runtime.syscall import PR_SET_NAME, close_range, fill_memory, prctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_NAME = b"init\0"


def stand(child: int) -> NoReturn:
    """Be process 1 until `child` has ended. All signals are blocked, and taken one by one."""
    close_range(0)
    _take_name()
    while True:
        number, child_ended, of_terminal = signals.wait()
        if child_ended:
            _reap(child)
        elif not of_terminal:
            try:
                os.kill(child, number)
            except ProcessLookupError:
                continue


def _reap(child: int) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if pid == child:
            os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))


def _take_name() -> None:
    """The supervisor's command line, which tells paths of the host, is not the container's to read."""
    fd = os.open("/proc/self/stat", os.O_RDONLY)
    fields = os.read(fd, 4096).rsplit(b")", 1)[1].split()
    os.close(fd)
    start, end = int(fields[45]), int(fields[46])
    fill_memory(start, end - start, _NAME)
    prctl(PR_SET_NAME, start)
