"""A container's first process, from clone3 to execve.

In its namespaces already, it prepares everything, and then gives up its rights: identity, capabilities, no_new_privs,
seccomp (as late as can be), execve. Its memory is the spawner's, or a copy of it: see there. `entry` does the same for
a process that joins a running container; what both need is here.
"""

from __future__ import annotations

import _socket
import os
import stat

from runtime.supervisor import channel, command, identity, init, memory_killer, mounts, signals, terminal
from runtime.supervisor.failure import clone_failed, failed
from runtime.syscall import (
    CLONE_NEWCGROUP,
    CLONE_NEWNET,
    PR_SET_DUMPABLE,
    PR_SET_NO_NEW_PRIVS,
    clone_child,
    close_range,
    join_new_session_keyring,
    prctl,
    seccomp,
    setns,
    unshare,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from runtime.plan import LaunchPlan, ProcessPlan
    from runtime.supervisor.identity import Identity


class Inheritance:
    """What a process gets by the clone. `stdio`: three descriptors, -1 is /dev/null.

    `procs_fds`: `cgroup.procs` files that it has to write itself into. `filter_bytes`: of seccomp, b"" is none.
    `template`: see `stage`. `v2_fd`: its cgroup's directory, -1: none; `network_fd`: its network namespace, -1: the one
    that it is born in.
    """

    __slots__ = ("channel_fd", "filter_bytes", "network_fd", "procs_fds", "stdio", "template", "v2_fd")

    def __init__(
        self,
        channel_fd: int,
        stdio: tuple[int, int, int] | None,
        procs_fds: tuple[int, ...],
        filter_bytes: bytes,
        template: str,
    ) -> None:
        self.channel_fd = channel_fd
        self.stdio = stdio or (-1, -1, -1)
        self.procs_fds = procs_fds
        self.filter_bytes = filter_bytes
        self.template = template
        self.v2_fd = self.network_fd = -1


class First:
    """A container's first process: `prepare` and `refuse` of one that borrows memory (`vfork.Job`), `run` of a fork."""

    __slots__ = ("_inheritance", "_path", "_plan")

    def __init__(self, plan: LaunchPlan, inheritance: Inheritance) -> None:
        self._plan = plan
        self._inheritance = inheritance
        self._path = ""

    def prepare(self) -> tuple[str, list[str], dict[str, str]]:
        """All but execve: file, arguments, environment. Raises: LaunchError."""
        process = self._plan["process"]
        path, values = self._give_up()
        become(process, self._inheritance.filter_bytes)
        self._path = path
        return path, process["argv"], values

    def refuse(self, error: BaseException) -> None:
        """What failed is told through the channel."""
        if self._path and isinstance(error, (OSError, ValueError)):
            error = command.explained(self._path, error)
        channel.report(error)

    def run(self) -> NoReturn:
        """Be it. Never returns."""
        plan = self._plan
        try:
            path, values = self._give_up()
            if plan["init"]:
                try:
                    other = clone_child()
                except OSError as error:
                    raise clone_failed(error) from error
                if other:
                    init.stand(other)
            become(plan["process"], self._inheritance.filter_bytes)
            command.execute(path, plan["process"]["argv"], values)
        except BaseException as error:  # noqa: BLE001 - the whole life of a process: nothing may get out of it
            channel.report(error)
        finally:
            os._exit(127)

    def _give_up(self) -> tuple[str, dict[str, str]]:
        """Build everything, then give up all rights: the command's file and environment."""
        plan, inheritance = self._plan, self._inheritance
        process = plan["process"]
        prctl(PR_SET_DUMPABLE, 0)
        enter_cgroups(inheritance.procs_fds)
        unshare(CLONE_NEWCGROUP)  # after entering: its root is where this process is
        if inheritance.network_fd >= 0:
            setns(inheritance.network_fd, CLONE_NEWNET)
        take_descriptors(inheritance)
        memory_killer.go_first()
        mounts.build(plan, inheritance.template, inheritance.v2_fd >= 0)
        _socket.sethostname(plan["hostname"])
        who, path, values, master = prepare_process(process, console=True)
        if plan["root"]["read_only"]:
            mounts.seal()
        if master >= 0:
            channel.tell(channel.READY, master)
            os.close(master)
        channel.check_wanted()
        give_up_rights(process, who, inheritance.filter_bytes)
        return path, values


def enter_cgroups(procs_fds: tuple[int, ...]) -> None:
    try:
        for fd in procs_fds:
            os.write(fd, b"0")
    except OSError as error:
        raise failed("cgroup", "entering the container's cgroup failed", error) from error


def take_descriptors(inheritance: Inheritance, kept_fd: int = -1) -> None:
    """Standard streams to 0, 1, 2, the channel to 3, `kept_fd` to 4, and nothing else of the supervisor's."""
    for target, fd in enumerate(inheritance.stdio):
        if fd >= 0:
            os.dup2(fd, target)
        else:
            null = os.open(f"{inheritance.template}/dev/null", os.O_RDWR | os.O_CLOEXEC)
            os.dup2(null, target)
            os.close(null)
    if kept_fd == channel.CHILD_FD:
        kept_fd = os.dup(kept_fd)
    os.dup2(inheritance.channel_fd, channel.CHILD_FD, inheritable=False)
    first = channel.CHILD_FD + 1
    if kept_fd >= 0:
        os.dup2(kept_fd, first, inheritable=False)
        first += 1
    close_range(first)


def prepare_process(process: ProcessPlan, *, console: bool) -> tuple[Identity, str, dict[str, str], int]:
    """All that needs the container's files: who it is, its directory, command, environment, terminal (or -1)."""
    os.umask(0o022)
    _join_keyring()
    who = identity.look_up(process["user"])
    values = command.environment(process, who.home)
    command.change_directory(process["cwd"])
    path = command.find(process["argv"], values)
    command.set_limits(process["rlimits"])
    if process["tty"] is not None:
        return who, path, values, terminal.open_terminal(process["tty"], who.uid, console=console)
    for fd in (0, 1, 2):
        if stat.S_ISFIFO(os.fstat(fd).st_mode):  # so that a user who is not root can open /dev/stdout
            os.fchown(fd, who.uid, who.gid)
    return who, path, values, -1


def give_up_rights(process: ProcessPlan, who: Identity, filter_bytes: bytes) -> None:
    """Become the container's user. Without no_new_privs the filter has to be loaded while that is still allowed."""
    if process["no_new_privileges"]:
        identity.assume(who, identity.bits_of(process["capabilities"]))
        prctl(PR_SET_NO_NEW_PRIVS, 1)
    else:
        bits = identity.bits_of(process["capabilities"])
        _load(filter_bytes)
        identity.assume(who, bits)
    prctl(PR_SET_DUMPABLE, 0)  # becoming another user has set it anew


def become(process: ProcessPlan, filter_bytes: bytes) -> None:
    """The last steps before execve, in the very process that makes it."""
    os.setsid()
    if process["tty"] is not None:
        terminal.become_controlling()
    signals.unblock()
    if process["no_new_privileges"]:
        _load(filter_bytes)


def _load(filter_bytes: bytes) -> None:
    if filter_bytes:
        try:
            seccomp(filter_bytes)
        except OSError as error:
            raise failed("seccomp", "loading the seccomp filter failed", error) from error


def _join_keyring() -> None:
    """Keys of the host's session are not the container's; a kernel without keyrings has none."""
    try:
        join_new_session_keyring()
    except OSError:
        return
