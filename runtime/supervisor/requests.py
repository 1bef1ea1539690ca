"""What may be asked of the supervisor: one function for each word of the protocol."""

from __future__ import annotations

import os
import sys

from runtime.cgroup import CgroupError
from runtime.supervisor import ending, executions, exits, journal, launching
from runtime.supervisor.container import EXITED, FROZEN, RUNNING, WAITING
from runtime.supervisor.failure import LaunchError
from sdn.model.version import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime.supervisor.server import Answer
    from runtime.supervisor.supervise import Supervisor

PROBE = "import sys; sys.path.insert(0, sys.argv[1]); import runtime.supervisor.main"
"""Whether a program can be executed at all is tried before the keeper becomes it: there is no way back."""


def serve(supervisor: Supervisor, request: dict[str, Any], answer: Answer) -> None:
    """Do what is asked. Raises: LaunchError, KeyError and friends where it is not understood."""
    function = _FUNCTIONS.get(request.get("do", ""))
    if function is None:
        raise LaunchError("request", 0, f"{request.get('do')!r} is not known here; known are {', '.join(_FUNCTIONS)}")
    function(supervisor, request, answer)


def _launch(supervisor: Supervisor, request: dict[str, Any], answer: Answer) -> None:
    if supervisor.ending:
        raise LaunchError("ending", 0, "the supervisor is ending: it launches nothing any more")
    launching.begin(supervisor.containers, request["plan"], answer, go=bool(request.get("go")))


def _go(supervisor: Supervisor, request: dict[str, Any], answer: Answer) -> None:
    launching.let_go(supervisor.containers.find(request["id"]), answer)


def _exec(supervisor: Supervisor, request: dict[str, Any], answer: Answer) -> None:
    container = supervisor.containers.find_running(request["id"])
    executions.execute(supervisor.containers, container, request["execution"], request["process"], answer)


def _execution(supervisor: Supervisor, request: dict[str, Any], answer: Answer) -> None:
    home = supervisor.containers
    execution = home.executions.get(request["execution"])
    if execution is None:
        raise LaunchError("unknown", 0, f"there is no execution {request['execution']!r} here")
    if execution.code is not None:
        del home.executions[execution.id]
        home.link.drop(execution.key)
    answer.result({"id": execution.container, "pid": execution.pid, "code": execution.code})


def _signal(supervisor: Supervisor, request: dict[str, Any], answer: Answer) -> None:
    container, number = supervisor.containers.find_running(request["id"]), int(request["signal"])
    if request.get("all") and container.cgroup is not None:
        for pid in container.cgroup.pids():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
    else:
        exits.send(container.pidfd, number)
    if number == ending.KILL and container.state == FROZEN:
        _set_frozen(supervisor, request["id"], on=False)  # v1 lets nobody die who is frozen
    answer.result({})


def _freeze(supervisor: Supervisor, request: dict[str, Any], answer: Answer) -> None:
    _set_frozen(supervisor, request["id"], on=bool(request["on"]))
    answer.result({})


def _set_frozen(supervisor: Supervisor, name: str, *, on: bool) -> None:
    home = supervisor.containers
    container = home.find_running(name)
    if container.cgroup is None or (container.state == FROZEN) == on:
        return
    try:
        container.cgroup.freeze(on)
    except CgroupError as error:
        raise LaunchError("cgroup", error.errno, error.message) from None
    container.state = FROZEN if on else RUNNING
    journal.add(home.entry_path(name), "frozen" if on else "thawed")


def _input(supervisor: Supervisor, request: dict[str, Any], answer: Answer) -> None:
    home = supervisor.containers
    container = home.find(request["id"])
    fd = container.terminal if container.tty else container.input
    if fd < 0:
        raise LaunchError("state", 0, f"the container {container.id} has no standard input to write to (any more)")
    if container.tty or request.get("keep", True):
        answer.result({}, (fd,), close=False)
        return
    container.input = -1
    home.link.drop(f"{container.id}/in", at_once=True)
    answer.result({}, (fd,))


def _follow(supervisor: Supervisor, request: dict[str, Any], answer: Answer) -> None:
    home = supervisor.containers
    container = home.find(request["id"])
    log, index = container.log.reader_fds()
    try:
        number, ringing, listening = container.log.follow()
    except OSError:
        os.close(log)
        os.close(index)
        raise
    if container.state == EXITED:
        container.log.bells.pop(ringing)
        os.close(ringing)
        container.log.close()
    else:
        home.link.hold([f"{container.id}/bell/{number}"], [ringing])
        home.loop.watch(ringing, container, 0)
    answer.result({}, (log, index, listening))


def _forget(supervisor: Supervisor, request: dict[str, Any], answer: Answer) -> None:
    supervisor.containers.forget(request["id"])
    answer.result({})


def _list(supervisor: Supervisor, _request: dict[str, Any], answer: Answer) -> None:
    found = []
    for container in supervisor.containers.by_id.values():
        facts: dict[str, Any] = {"id": container.id, "pid": container.pid, "start": container.start}
        facts.update(run=container.run, state=container.state, log_lost_bytes=container.log.lost_bytes)
        if container.exit is not None:
            facts["exit"] = container.exit
        found.append(facts)
    answer.result({"containers": found})


def _usage(supervisor: Supervisor, request: dict[str, Any], answer: Answer) -> None:
    found = {}
    for name in request["ids"]:
        container = supervisor.containers.by_id.get(name)
        if container is not None and container.cgroup is not None and container.pidfd >= 0:
            found[name] = container.cgroup.usage()
    answer.result({"usage": found})


def _status(supervisor: Supervisor, _request: dict[str, Any], answer: Answer) -> None:
    states: dict[str, int] = {}
    for container in supervisor.containers.by_id.values():
        states[container.state] = states.get(container.state, 0) + 1
    facts = {"version": VERSION, "pid": os.getpid(), "keeper": supervisor.keeper}
    spawners = supervisor.containers.spawners.pids
    descriptors = len(os.listdir("/proc/self/fd")) - 1
    answer.result(
        {
            **facts,
            "spawners": spawners,
            "descriptors": descriptors,
            "containers": states,
            "executions": len(supervisor.containers.executions),
        }
    )


def _subscribe(supervisor: Supervisor, _request: dict[str, Any], answer: Answer) -> None:
    answer.owner.subscribed = True
    answer.result({})
    for container in list(supervisor.containers.by_id.values()):
        if container.exit is not None:
            answer.owner.tell_value(ending.exited_event(container))
    for execution in list(supervisor.containers.executions.values()):
        if execution.code is not None:
            event = {"event": "executed", "id": execution.container, "execution": execution.id}
            answer.owner.tell_value({**event, "code": execution.code})


def _upgrade(supervisor: Supervisor, request: dict[str, Any], answer: Answer) -> None:
    python, package = request.get("python") or sys.executable, request.get("package") or sys.path[0]
    for container in supervisor.containers.living:
        if container.state not in (RUNNING, FROZEN):
            raise LaunchError("state", 0, f"the container {container.id} is {container.state}: upgrade when it runs")
    _probe(python, package)
    supervisor.containers.link.upgrade(python, package)
    answer.result({})
    supervisor.upgrade()


def _probe(python: str, package: str) -> None:
    devnull = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    actions = [(os.POSIX_SPAWN_DUP2, devnull, 0), (os.POSIX_SPAWN_DUP2, devnull, 1)]
    try:
        pid = os.posix_spawn(python, [python, "-I", "-S", "-c", PROBE, package], {}, file_actions=actions)
    except OSError as error:
        raise LaunchError("upgrade", error.errno or 0, f"cannot execute {python}: {error.strerror}") from None
    finally:
        os.close(devnull)
    if os.waitpid(pid, 0)[1] != 0:
        raise LaunchError("upgrade", 0, f"the supervisor in {package} does not start with {python}: see the log")


def _end(supervisor: Supervisor, request: dict[str, Any], answer: Answer) -> None:
    living = supervisor.containers.living
    if living and not request.get("force"):
        raise LaunchError("state", 0, f"{len(living)} containers live: end them first, or use force")
    for container in living:
        if container.cgroup is not None:
            try:
                container.cgroup.kill()
            except (CgroupError, OSError) as error:
                raise LaunchError("cgroup", error.errno or 0, str(error)) from None
        if container.state == WAITING:
            supervisor.containers.forget(container.id)
        elif container.pidfd >= 0:
            exits.send(container.pidfd, ending.KILL)
    supervisor.end(answer)


_FUNCTIONS = {
    "launch": _launch,
    "go": _go,
    "exec": _exec,
    "execution": _execution,
    "signal": _signal,
    "freeze": _freeze,
    "input": _input,
    "follow": _follow,
    "forget": _forget,
    "list": _list,
    "usage": _usage,
    "status": _status,
    "subscribe": _subscribe,
    "upgrade": _upgrade,
    "end": _end,
}
