"""The keeper's start: `main([RUN, STATE, "--ready", FD])`, as `runtime.supervisor_connection` calls it."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import socket

from runtime.supervisor import ending, keeper, memory_killer, stage
from runtime.supervisor.held import Held
from runtime.supervisor.own_log import say
from runtime.supervisor.supervise import Places

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

BACKLOG = 128


def main(arguments: list[str]) -> NoReturn:
    """Become the keeper of a root, in a process of its own. What goes wrong is one line on the descriptor `--ready`.

    There, "ready" means that clients may connect, "busy" that somebody else has the lock. `--held FD`: an upgrade.
    """
    run, state = arguments[:2]
    options = dict(zip(arguments[2::2], arguments[3::2], strict=True))
    ready = int(options.get("--ready", -1))
    try:
        os.makedirs(f"{run}/containers", mode=0o700, exist_ok=True)
        stage.enter(f"{run}/stage")
        _raise_descriptor_limit()
        memory_killer.go_last()
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE, signal.SIGXFSZ}:
            signal.signal(number, signal.SIG_DFL)  # whoever started us may have ignored some
        if "--held" in options:
            keeper.load(int(options["--held"]), run, state).run()
        lock = _lock(f"{run}/supervisor.pid")
        if lock < 0:
            _tell(ready, "busy")
            os._exit(0)
        listener = _listen(f"{run}/supervisor.sock")
        if os.fork():
            os._exit(0)
        os.setsid()
        places = Places(run, state, listener, lock)
        places.write_pid()
        _tell(ready, "ready")
    except OSError as error:
        say(f"cannot start: {error}")
        _tell(ready, f"{error}")
        os._exit(1)
    keeper.Keeper(places, Held()).run()


def _tell(ready: int, word: str) -> None:
    if ready >= 0:
        os.write(ready, word.encode())
        os.close(ready)


def _lock(path: str) -> int:
    """The lock's descriptor; -1: somebody has it."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.stat(path).st_ino == os.fstat(fd).st_ino:
                return fd
        except OSError as error:
            os.close(fd)
            if error.errno == errno.EWOULDBLOCK:
                return -1
            if error.errno != errno.ENOENT:
                raise
        else:
            os.close(fd)  # whoever had it removed it between our open and our lock


def _listen(path: str) -> int:
    ending.remove_entry(path)  # what a killed pair left of it
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)  # from its first moment nobody else may open it
    try:
        listener.bind(path)
    finally:
        os.umask(mask)
    listener.listen(BACKLOG)
    return listener.detach()


def _raise_descriptor_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
