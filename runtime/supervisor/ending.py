"""How a container ends: its output drained, the exit recorded, then told; its cgroup and descriptors gone.

The order is the promise. Before the process is reaped its record is in place: who dies in between finds either a
process that can still be waited for, or the record.
"""

from __future__ import annotations

import os
import time

from runtime.cgroup import Cgroup, CgroupError
from runtime.supervisor import exits, journal
from runtime.supervisor.container import EXITED, Container
from runtime.supervisor.failure import LaunchError
from runtime.supervisor.own_log import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

KILL = 9
CODE_TRIES = 100
CODE_PAUSE_S = 0.02
"""Somebody else's child: it may take its parent this long to reap it, and until then nobody may know the code."""


def ended(container: Container) -> None:
    """Its first process ended, it seems, and with it all of its pid namespace."""
    home = container.home
    if container.exit is not None:
        return
    try:
        code = exits.wait(container.pidfd, reap=False)
    except ChildProcessError:
        code = _foreign_code(container)
    if code is None:
        return
    container.drain()
    record(container, code, time.time_ns())
    _reap(container)
    container.close()
    announce(container)
    home.loop.later(remove_cgroup, container)
    home.idle()


def _foreign_code(container: Container) -> int | None:
    """Of one that an earlier supervisor launched: the keeper reaps it and tells. None: not known yet."""
    home = container.home
    code = home.codes.get(container.pid)
    if code is None:
        code = exits.read_foreign(container.pid, container.start, container.pidfd)
    if code is not None:
        return code
    container.tries += 1
    home.loop.unwatch(container.pidfd)
    if container.tries <= CODE_TRIES:
        home.loop.after(CODE_PAUSE_S, ended, container)
        return None
    say(f"nobody can tell how {container.id} (pid {container.pid}) ended")
    return exits.UNKNOWN


def _reap(container: Container) -> None:
    try:
        exits.wait(container.pidfd, reap=True)
    except ChildProcessError:
        container.home.seen(container.pid)


def record(container: Container, code: int, time_ns: int) -> None:
    """Write down how it ended: in its file, or, where there is no room, in its entry."""
    oom_killed = container.cgroup is not None and container.cgroup.oom_killed()
    container.exit = {"run": container.run, "code": code, "oom_killed": oom_killed, "time_ns": time_ns}
    container.state = EXITED
    write_record(container)


def write_record(container: Container) -> bool:
    """Whether the record is where it belongs."""
    assert container.exit is not None
    try:
        exits.write_record(container.directory, container.exit)
    except OSError as error:
        say(f"cannot write {container.directory}/{exits.FILE} ({error.strerror}): {container.exit}")
    else:
        return True
    try:
        journal.add_exit(container.home.entry_path(container.id), container.exit)
    except OSError as error:
        say(f"nor its entry ({error.strerror})")
    return False


def announce(container: Container) -> None:
    """To whoever subscribed."""
    assert container.exit is not None
    if container.exit["oom_killed"]:
        container.home.tell({"event": "oom", "id": container.id})
    container.home.tell(exited_event(container))


def exited_event(container: Container) -> dict[str, Any]:
    """As subscribers get it."""
    return {"event": "exited", "id": container.id, **(container.exit or {}), "log_lost_bytes": container.log.lost_bytes}


def discard(container: Container, failure: LaunchError) -> None:
    """One that never ran: nothing is left of it."""
    home, answer = container.home, container.answer
    if container.pidfd >= 0:
        exits.send(container.pidfd, KILL)
        os.waitid(os.P_PIDFD, container.pidfd, os.WEXITED)  # our child: what was launched by another is not discarded
    container.close()
    remove_cgroup(container)
    remove_entry(home.entry_path(container.id))
    home.by_id.pop(container.id, None)
    if answer is not None:
        answer.error(failure)
    home.idle()


def remove_cgroup(container: Container) -> None:
    """After the answer: nobody waits for it. Once is enough."""
    cgroup, container.cgroup = container.cgroup, None
    if cgroup is not None:
        remove(cgroup)


def remove(cgroup: Cgroup) -> None:
    """Remove a cgroup, with whoever is still in it."""
    cgroup.close()
    try:
        cgroup.remove(0.0)
    except CgroupError:
        try:
            cgroup.kill()
            cgroup.remove()
        except (CgroupError, OSError) as error:
            say(f"the cgroup {cgroup.path} stays: {error}")


def remove_entry(path: str) -> None:
    """Absent is fine."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return  # it is gone already
