"""A daemon's life: root, directories, pid file, log, signals, readiness, and an orderly end."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import resource
import signal
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from sdn.model.errors import HawseError, denied, invalid
from sdn.service.libc import keep_memory_private
from sdn.service.log import FORMATS, get_logger, one_line, set_up_log
from sdn.service.pid_file import PidFile, running_pid
from sdn.service.roots import Root, find_root

__all__ = [
    "Daemon",
    "PidFile",
    "Readiness",
    "add_arguments",
    "raise_descriptor_limit",
    "run_daemon",
    "running_pid",
    "tune_collector",
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that all daemons have."""
    parser.add_argument("--root", metavar="DIR", default=None, help="where state and sockets are (HAWSE_ROOT)")
    parser.add_argument("--ready-fd", metavar="N", type=int, default=None, help="write '1' there when serving")
    parser.add_argument("--log", metavar="FILE", default=None, help="log there and not on stderr")
    parser.add_argument("--log-format", choices=FORMATS, default="text", help="one line per event, as text or JSON")


class Readiness:
    """Tells whoever started the daemon, once, that it serves: systemd's protocol, and a byte on a descriptor."""

    def __init__(self, ready_fd: int | None, notify_socket: str | None) -> None:
        self._ready_fd = ready_fd
        self._notify_socket = notify_socket

    def __call__(self) -> None:
        """Tell; only the first call does."""
        ready_fd, self._ready_fd = self._ready_fd, None
        notify_socket, self._notify_socket = self._notify_socket, None
        if ready_fd is not None:
            with contextlib.suppress(OSError):  # whoever waited is gone
                os.write(ready_fd, b"1")
                os.close(ready_fd)
        if notify_socket:
            # sd_notify(3): a leading @ means an abstract socket
            address = "\0" + notify_socket[1:] if notify_socket.startswith("@") else notify_socket
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifier:
                notifier.sendto(b"READY=1", address)


class Daemon:
    """What a daemon's coroutine is given: its root, the wish to stop, and the way to say that it serves."""

    def __init__(self, name: str, root: Root, ready: Callable[[], None]) -> None:
        self.name = name
        self.root = root
        self.ready = ready
        self.stopping = asyncio.Event()
        self.log: Any = get_logger(name)


def run_daemon(
    name: str,
    options: argparse.Namespace,
    serve: Callable[[Daemon], Awaitable[None]],
    *,
    needs_root: bool = True,
    quick_loop: bool = False,
) -> int:
    """Run `serve` until it returns; it should when `stopping` is set (SIGTERM, SIGINT). Returns the exit code.

    `options` come from `add_arguments`; `quick_loop`: see `_new_quick_loop`. Raises: DENIED (not root), CONFLICT
    (already running), INVALID, UNAVAILABLE, and whatever HawseError `serve` raises.
    """
    if needs_root and os.geteuid() != 0:
        raise denied(f"hawse {name} needs root: it makes network namespaces and interfaces", f"sudo hawse {name} …")
    root = find_root(options.root)
    root.create()
    raise_descriptor_limit()
    keep_memory_private()
    ready = Readiness(_checked_ready_fd(options.ready_fd), os.environ.pop("NOTIFY_SOCKET", None))
    pid_file = PidFile(root, name)
    pid_file.take()
    try:
        set_up_log(options.log, options.log_format)
        with asyncio.Runner(loop_factory=_new_quick_loop if quick_loop else None) as runner:
            runner.run(_live(Daemon(name, root, ready), serve))
    except BaseExceptionGroup as group:
        raise _first_sentence(group) from None
    finally:
        pid_file.release()
    return 0


def _new_quick_loop() -> asyncio.AbstractEventLoop:
    """For who answers while somebody waits: an attachment costs a tenth less on it, the process 3 MB more."""
    import uvloop

    return uvloop.new_event_loop()


def _first_sentence(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """A task group wraps what its tasks raise; a user wants the sentence inside."""
    sentences = group.subgroup(HawseError)
    error: BaseException = group if sentences is None else sentences
    while isinstance(error, BaseExceptionGroup):
        if error is group and sentences is None:
            return error
        error = error.exceptions[0]
    return error


def _checked_ready_fd(ready_fd: int | None) -> int | None:
    if ready_fd is None:
        return None
    try:
        os.fstat(ready_fd)
    except OSError:
        raise invalid(f"--ready-fd {ready_fd} is not an open descriptor", "pass one that was inherited") from None
    os.set_inheritable(ready_fd, False)
    return ready_fd


async def _live(daemon: Daemon, serve: Callable[[Daemon], Awaitable[None]]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop, daemon, number)
    loop.set_exception_handler(lambda _, context: _lost(daemon, context))
    tune_collector()
    daemon.log.info("starting", pid=os.getpid(), run=str(daemon.root.run))
    await serve(daemon)
    daemon.log.info("stopped")


def _stop(daemon: Daemon, number: int) -> None:
    daemon.log.info("stopping", signal=signal.Signals(number).name)
    daemon.stopping.set()
    # back to the default: a second signal of the same kind ends it the hard way
    asyncio.get_running_loop().remove_signal_handler(number)


def _lost(daemon: Daemon, context: dict[str, Any]) -> None:
    error = context.get("exception")
    daemon.log.error("internal error", what=context.get("message"), reason=one_line(error) if error else None)


def raise_descriptor_limit() -> None:
    """As many descriptors as may be had: the usual 1024 are 150 tenants on a host, or 1000 hosts on a controller."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def tune_collector() -> None:
    """What is imported never becomes garbage: the collector need not walk it, nor run after every 700 allocations."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
