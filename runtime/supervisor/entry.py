"""A process that joins a running container: from clone3 to execve.

Two processes. The first, a child of the supervisor that the container cannot see (its pid namespace is the host's),
joins the namespaces, does all that needs rights and files, and gives its rights up. It then clones a sibling, born in
the container's pid namespace and child of the supervisor, which only has execve left to do: a process of the container
that looked into it would find no right that it lacks itself.
"""

from __future__ import annotations

import errno
import os

from runtime.supervisor import channel, child, command, memory_killer, signals
from runtime.supervisor.failure import LaunchError, clone_failed, failed
from runtime.syscall import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUTS,
    PR_SET_DUMPABLE,
    clone_sibling,
    prctl,
    setns,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from runtime.plan import ProcessPlan
    from runtime.supervisor.child import Inheritance

_NAMESPACES = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET


def run(pidfd: int, process: ProcessPlan, inheritance: Inheritance) -> NoReturn:
    """Be the first of the two. Never returns: what fails is told through the channel."""
    try:
        _run(pidfd, process, inheritance)
    except BaseException as error:  # noqa: BLE001 - this is the whole life of a process: nothing may get out of it
        channel.report(error)
    finally:
        os._exit(127)


def _run(pidfd: int, process: ProcessPlan, inheritance: Inheritance) -> None:
    prctl(PR_SET_DUMPABLE, 0)
    child.enter_cgroups(inheritance.procs_fds)
    child.take_descriptors(inheritance, pidfd)
    memory_killer.go_first()
    container = channel.CHILD_FD + 1
    try:
        setns(container, _NAMESPACES)
    except ProcessLookupError as error:
        raise LaunchError("ended", errno.ESRCH, "the container has ended this moment") from error
    except OSError as error:
        raise failed("clone", "joining the container failed", error) from error
    os.close(container)
    who, path, values, master = child.prepare_process(process, console=False)
    child.give_up_rights(process, who, inheritance.filter_bytes)
    try:
        sibling = clone_sibling()
    except OSError as error:
        if error.errno == errno.ENOMEM:  # so says a pid namespace whose first process has ended (pid_namespaces(7))
            raise LaunchError("ended", error.errno, "the container is ending this moment") from error
        raise clone_failed(error) from error
    if sibling == 0:
        if master >= 0:
            os.close(master)
        signals.default()
        child.become(process, inheritance.filter_bytes)
        command.execute(path, process["argv"], values)
    channel.tell(channel.SIBLING + str(sibling).encode(), master)
    os._exit(0)
