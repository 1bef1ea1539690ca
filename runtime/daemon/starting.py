"""One start of one container: written down, its network namespace attached, let go; or undone whole."""

from __future__ import annotations

import os

from runtime.daemon.attaching import attach, planned, requests_of
from runtime.daemon.container import Container
from runtime.daemon.plans import ImageView, Start, hostname_of, interface_names, launch_plan
from runtime.daemon.processes import UNSIZED, Terminal
from runtime.daemon.restarts import Wish
from runtime.daemon.states import Act, next_state
from runtime.daemon.supervision import EXIT_DAEMON, Launched, SupervisorLostError
from runtime.daemon.surroundings import Surroundings
from runtime.daemon.system_files import hosts_text, read_resolv, resolv_text, write_in_place
from runtime.plan import LaunchPlan
from sdn.model.container import Interface
from sdn.model.errors import HawseError, conflict, unavailable


async def start(around: Surroundings, container: Container, terminal: Terminal = UNSIZED) -> None:
    """Start it; the caller has its lock. When this returns, exec has succeeded and the wish is that it runs.

    Raises: CONFLICT (its state), and why it could not be started, with `exit_code` in the facts; then it is as it was
    before, but for `error` and `exit_code`, and neither process nor attachment is left.
    """
    record = container.record
    before = record.wish
    following = next_state(record.state, Act.START, record.name)
    if record.damaged:
        raise conflict(f"container {record.name} cannot be started: {record.error}", f"hawse rm {record.name}")
    container.cancel_timer()
    try:
        if record.spec.networks:
            await _clear(around, container)
        image = around.images.resolve(record.image_id)
        pid, interfaces, began_s = await _launch_again(around, container, image, terminal)
    except BaseException as error:
        _note_failure(around, container, error, before)
        raise
    container.happened(
        around.log,
        state=following,
        starting=False,
        pid=pid,
        started_s=began_s,
        finished_s=0.0,
        exit_code=0,
        oom_killed=False,
        error="",
        interfaces=interfaces,
    )
    around.events.note("start", container.id, record.name)


def _plan(around: Surroundings, container: Container, image: ImageView, terminal: Terminal) -> LaunchPlan:
    record = container.record
    directory = around.records.path(record.id)
    return launch_plan(
        record.spec,
        image,
        Start(record.id, record.run + 1, os.fspath(directory), os.fspath(around.root.volumes), around.cgroup),
        around.confine(record.spec),
        terminal,
    )


async def _clear(around: Surroundings, container: Container) -> None:
    """What is left of its attachments goes before there are new ones."""
    try:
        await around.releases.finish(container.id)
    except HawseError as error:
        networks = ", ".join(wish.network for wish in container.record.spec.networks)
        message = f"cannot attach container {container.record.name} to network {networks}: {error.message}"
        raise HawseError(error.kind, message, hint=error.hint, facts={**error.facts, "network": networks}) from None


async def _launch_again(
    around: Surroundings, container: Container, image: ImageView, terminal: Terminal
) -> tuple[int, tuple[Interface, ...], float]:
    """A supervisor that died amid the start is no reason to refuse it: the next one is there in milliseconds."""
    try:
        return await _launch(around, container, _plan(around, container, image, terminal))
    except SupervisorLostError as lost:
        around.log.warning("started once more", container=container.id, reason=lost.message)
        return await _launch(around, container, _plan(around, container, image, terminal))


async def _launch(
    around: Surroundings, container: Container, plan: LaunchPlan
) -> tuple[int, tuple[Interface, ...], float]:
    """The process's pid, its interfaces, and when it was begun."""
    spec = container.record.spec
    attachments = planned(spec, interface_names(spec))
    if attachments:
        await around.releases.until_free()  # no wait between this and the record: a collection sees what is to come
    began_s = around.clock()
    container.change(run=plan["run"], wish=Wish.RUNNING, starting=True, attachments=attachments)
    _write_files(around, container, ())
    try:
        launched = await around.supervisor.launch(plan, go=not attachments)
        if not attachments:
            return launched.pid, (), began_s
        interfaces = await _attach(around, container, launched)
        return await around.supervisor.go(container.id), interfaces, began_s
    except BaseException:
        await _undo(around, container)
        raise


async def _attach(around: Surroundings, container: Container, launched: Launched) -> tuple[Interface, ...]:
    """Wire the namespace that it will be born into."""
    record = container.record
    assert launched.namespace_fd is not None
    container.hold_namespace(launched.namespace_fd)
    requests = requests_of(record.spec, record.id, record.name, interface_names(record.spec))
    interfaces = await attach(around.agent, requests, launched.namespace_fd)
    _write_files(around, container, interfaces)
    return interfaces


def _write_files(around: Surroundings, container: Container, interfaces: tuple[Interface, ...]) -> None:
    record = container.record
    hostname = hostname_of(record.spec, record.id)
    texts = {
        "hosts": hosts_text(hostname, record.name, interfaces),
        "hostname": f"{hostname}\n",
        "resolv.conf": resolv_text(read_resolv()),
    }
    directory = around.records.path(record.id)
    for name, text in texts.items():
        try:
            write_in_place(f"{directory}/{name}", text)
        except OSError as error:
            message = f"cannot write {name} of container {record.name}: {error.strerror}"
            raise unavailable(message, "look at the disk") from None


async def _undo(around: Surroundings, container: Container) -> None:
    """No process, no attachment. What cannot be reached now is undone when it can: by releases, by recovery."""
    try:
        await around.supervisor.abandon(container.id)
    except HawseError as error:  # it is away: what it still has is found in its list when it is back
        around.log.warning("not undone yet", container=container.id, reason=error.message)
    await around.releases.release(container.id, container.record.attachments)
    container.let_namespace_go()


def _note_failure(around: Surroundings, container: Container, error: BaseException, wish: Wish) -> None:
    reason = error.message if isinstance(error, HawseError) else "its start was interrupted"
    code = int(error.facts.setdefault("exit_code", EXIT_DAEMON)) if isinstance(error, HawseError) else EXIT_DAEMON
    container.happened(around.log, wish=wish, starting=False, interfaces=(), error=reason, exit_code=code)
