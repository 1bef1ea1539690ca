"""A lab's nursery: one process that imports what daemons need, once for all, and forks each of them.

Five interpreters that import the same modules are most of what a lab's way up costs. Each child is what
`hawse DAEMON …` would be: born inside its namespace, in a session of its own, its log as output, its command where
ps(1) looks; it calls the very function that the command calls. Nothing is here before a fork that two must not have: no
threads, no loop, no open file or database, no secret.

An order is a datagram of JSON, `{"command", "words"}`, with three descriptors: the namespace, the log, and whom to tell
that it serves. It is answered `{"pid", "start"}` or `{"error"}`. The nursery ends with its orders, or with its parent.

Source: fork(2), setns(2), prctl(2) PR_SET_PDEATHSIG, proc(5) `arg_start`.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from runtime.syscall import CLONE_NEWNET, fill_memory, prctl, setns
from sdn.service.startup import lean_imports

PR_SET_PDEATHSIG = 1
ORDER_BYTES_MAX = 65536
DESCRIPTORS = 3
ARG_START, ARG_END = 45, 46
"""Among the fields of /proc/PID/stat that follow the command's name."""

MODULES = {
    "runtime": (
        "sdn.cli.main",
        "runtime.daemon.main",
        "runtime.daemon.assembly",
        "runtime.daemon.supervisor_link",
        "runtime.seccomp.filters",
        "sdn.service.contract_server",
    ),
    "controller": (
        "aiohttp",
        "uvloop",
        "sdn.controller.main",
        "sdn.controller.core",
        "sdn.controller.edge",
        "sdn.controller.listen",
        "sdn.controller.measured",
        "sdn.controller.metrics",
        "sdn.controller.options",
        "sdn.controller.server",
        "sdn.controller.tls",
        "sdn.store.sqlite",
    ),
    "agent": (
        "plugin.agent.main",
        "plugin.agent.configuration",
        "plugin.agent.core",
        "plugin.agent.examination",
        "plugin.agent.facts",
        "plugin.agent.features",
        "plugin.agent.held",
        "plugin.agent.journal",
        "plugin.agent.predecessor",
        "plugin.agent.responder",
        "plugin.agent.sandboxes",
        "plugin.agent.stream",
        "plugin.datapath.registry",
        "plugin.datapath.bridge.datapath",
        "sdn.service.contract",
        "sdn.service.contract_server",
    ),
}
"""By a daemon's word, what it imports until it serves; those first that are to be born first."""


def main(arguments: Sequence[str]) -> int:
    """`[SOCKET, PARENT, …]`: bear until there are no more orders. In each child: its daemon's life and exit code."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(arguments[1]):  # it died before we could ask to be told
        return 0
    gc.disable()  # what is imported stays; collecting meanwhile finds nothing, and takes a fifth of the time
    words = _serve(socket.socket(fileno=int(arguments[0])))
    if words is None:
        os._exit(0)  # a second's imports need not be taken apart
    from sdn.cli.main import main as hawse

    return hawse(words)


def prepare(word: str) -> None:
    """Import what a daemon needs. What fails, however, is left to the daemon, which tries again: its log says why."""
    with contextlib.suppress(Exception), lean_imports():
        for module in MODULES[word]:
            importlib.import_module(module)


def _serve(orders: socket.socket) -> list[str] | None:
    """None: that was all. In a child: the words of its command."""
    prepare(next(iter(MODULES)))
    while True:
        message, fds, _, _ = socket.recv_fds(orders, ORDER_BYTES_MAX, DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
        if not message:
            return None
        order = json.loads(message)
        prepare(order["words"][0])
        try:
            pid = _fork_in(fds[0])
        except OSError as error:
            answer: dict[str, object] = {"error": str(error)}
        else:
            if pid == 0:
                orders.close()
                return _settle(order["command"], order["words"], *fds)
            answer = {"pid": pid, "start": _start_time(pid)}
        for fd in fds:
            os.close(fd)
        orders.send(json.dumps(answer).encode())


def _fork_in(namespace_fd: int) -> int:
    """Fork inside of a network namespace: whoever looks for a lab's processes there finds child and parent alike."""
    setns(namespace_fd, CLONE_NEWNET)
    assert len(os.listdir("/proc/self/task")) == 1, "a fork copies one thread, and the locks of all"
    gc.freeze()
    return os.fork()


def _settle(command: list[str], words: list[str], namespace_fd: int, log_fd: int, ready_fd: int) -> list[str]:
    """In the child, before anything of the daemon: as fork(2) and execve(2) of its command would have left it."""
    os.setsid()
    os.dup2(log_fd, 1)
    os.dup2(log_fd, 2)
    os.close(log_fd)
    os.close(namespace_fd)
    words = [*words, "--ready-fd", str(ready_fd)]
    sys.argv = [command[-1], *words]
    retitle([*command, *words])
    gc.enable()
    return words


def _start_time(pid: int) -> int:
    """Of a child that nobody has waited for, in ticks since boot."""
    return int(_stat(pid)[19])


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def retitle(command: Sequence[str]) -> None:
    """Make a command line what /proc/PID/cmdline holds of this process, as far as its own line leaves room.

    Words end with NUL, as ever; NULs to the end of the room follow, which ps(1) does not show.
    """
    fields = _stat(os.getpid())
    start, end = int(fields[ARG_START]), int(fields[ARG_END])
    if start:
        line = b"".join(os.fsencode(word) + b"\0" for word in command)
        fill_memory(start, end - start, line[: end - start - 1])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
