"""`hawse leave`: the controller forgets this host, and the machine forgets that it was one.

Each step can be done twice, and agent.json, which says that there is something to leave, goes last: whoever is killed
in the middle types it again.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

from sdn.machine import units
from sdn.machine.identity import read_identity
from sdn.machine.local_runtime import containers, count, named, remove_all, supervisor_lives
from sdn.machine.monitor import READY_S
from sdn.machine.process import Process, wait_serving
from sdn.machine.record import AGENT, FIRST, RUNTIME, Machine, Place, daemon_environment, datapath_words, read_machine
from sdn.machine.stop import stop_daemons
from sdn.machine.teller import Teller
from sdn.model.errors import HawseError, Kind, conflict, not_found, unavailable

LEAVE_S = 15.0
CLEAN_S = 120.0


def leave(place: Place, teller: Teller, *, force: bool, everything: bool) -> str:
    """Leave; the name of the host that this was. `everything`: images, volumes, logs and a controller's state, too.

    Raises: NOT_FOUND (there is nothing to leave); CONFLICT (containers run, or other hosts need this controller);
    UNAVAILABLE (the controller is away), and nothing has been changed; with `force` all but the first are done with.
    """
    machine = _read(place, force=force)
    identity = _identity(place, force=force)
    if machine is None and identity is None and not force:
        raise not_found(
            "this machine is no host: there is nothing to leave",
            f"{place.typed('leave --force --all')} removes what is kept in {place.root.state}",
        )
    name = identity["name"] if identity else machine.name if machine else "this machine"
    if machine is not None and machine.is_first:
        _refuse_needed(place, identity, force=force)
    _end_containers(place, teller, force=force)
    if identity is not None:
        _tell_controller(place, identity, machine, teller, force=force)
    stop_daemons(place, teller)
    _clean_kernel(place, machine)
    _forget(place, everything=everything)
    return str(name)


def _read(place: Place, *, force: bool) -> Machine | None:
    try:
        return read_machine(place.root)
    except HawseError:
        if not force:
            raise
        return None


def _identity(place: Place, *, force: bool) -> dict[str, Any] | None:
    if not place.root.agent_file.exists():
        return None
    try:
        return read_identity(place.root)
    except HawseError:
        if not force:
            raise
        return None


def _refuse_needed(place: Place, identity: dict[str, Any] | None, *, force: bool) -> None:
    """A controller whose other hosts would be left alone. Raises: CONFLICT."""
    from sdn.client.client import Client

    if force:
        return
    try:
        hosts = list(Client(f"unix:{place.root.controller_socket}").items("/v1/hosts"))
    except HawseError as error:
        raise _away(
            error, "its controller", f"start it: {place.typed('up -d')}; or {place.typed('leave --force')}"
        ) from None
    others = [str(host["name"]) for host in hosts if identity is None or host["id"] != identity["host"]]
    if others:
        raise conflict(
            f"this machine runs the controller of {named(others)}",
            f"let them leave first; {place.typed('leave --force')} leaves them without one",
            hosts=others,
        )


def _end_containers(place: Place, teller: Teller, *, force: bool) -> None:
    """All containers are removed while there is somebody to give their addresses back to."""
    kept = place.root.containers.is_dir() and any(place.root.containers.iterdir())
    if not kept and not supervisor_lives(place):
        return
    with _some_runtime(place):
        living = containers(place) or []
        if living and not force:
            raise conflict(
                f"{count(living)} on this machine: {named(living)}",
                f"stop them, or have {place.typed('leave --force')} end and remove them",
                containers=living,
            )
        every = containers(place, every=True) or []
        if every:
            teller.say(f"removing {named(every)}")
            remove_all(place, every)


@contextlib.contextmanager
def _some_runtime(place: Place) -> Iterator[None]:
    """The runtime that runs, else one for this while."""
    if containers(place) is not None:
        yield
        return
    place.root.logs.mkdir(mode=0o700, exist_ok=True)
    process = Process.start(place, RUNTIME, [RUNTIME])
    try:
        wait_serving([process], READY_S)
        yield
    finally:
        process.stop()


def _tell_controller(
    place: Place, identity: dict[str, Any], machine: Machine | None, teller: Teller, *, force: bool
) -> None:
    """The controller forgets the host, by the host's own credential. Raises: UNAVAILABLE, DENIED."""
    from sdn.client.client import Client

    problem: HawseError | None = None
    for url in identity["controllers"]:
        word = f"{identity['host']}:{identity['secret']}"
        try:
            Client(url, LEAVE_S, authority=identity["authority"], token=word).post("/v1/leave")
        except HawseError as error:
            problem = error
            continue
        return
    assert problem is not None  # read_identity: there is a controller at least
    if _forgotten(problem):
        return
    forget = f"hawse host forget {identity['name']}"
    if not force:
        raise _away(
            problem, f"the controller of host {identity['name']}", f"{place.typed('leave --force')} leaves without it"
        )
    if machine is None or not machine.is_first:
        teller.say(f"the controller could not be told ({problem.message})")
        teller.say(f"  type on its machine: {forget}")


def _forgotten(error: HawseError) -> bool:
    """Whether the controller no longer knows the host: it was told already, or somebody forgot it there."""
    return error.kind is Kind.NOT_FOUND or (error.kind is Kind.DENIED and "pinned" not in error.facts)


def _away(error: HawseError, who: str, hint: str) -> HawseError:
    return HawseError(error.kind, f"{who} cannot be told: {error.message}", hint=hint, facts=error.facts)


def _clean_kernel(place: Place, machine: Machine | None) -> None:
    """By the agent, which knows what it has made. Raises: UNAVAILABLE."""
    words = [AGENT, "--clean", *(datapath_words(machine) if machine is not None else ())]
    done = subprocess.run(
        place.command(*words), capture_output=True, text=True, check=False, timeout=CLEAN_S,
        env=daemon_environment(), cwd="/", stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("hawse: ")]
        raise unavailable(
            f"what is Hawse's could not be removed from the kernel: "
            f"{said[-1].removeprefix('hawse: ') if said else f'the agent ended with {done.returncode}'}",
            f"try again: {place.typed('leave')}",
        )


def _forget(place: Place, *, everything: bool) -> None:
    """The files, the one that says that this is a host at last. Images and volumes stay unless everything goes."""
    root = place.root
    if not place.option and any((units.DIRECTORY / units.unit_name(daemon)).exists() for daemon in FIRST):
        units.disable()
        units.remove(units.DIRECTORY)
        units.reload()
    for path in (root.client_file, root.journal, root.controller_file):
        path.unlink(missing_ok=True)
    for tree in (root.containers, root.netns):
        shutil.rmtree(tree, ignore_errors=True)
    if everything:
        for tree in (root.images, root.volumes, root.logs, root.tls, root.state / "runtime"):
            shutil.rmtree(tree, ignore_errors=True)
        for path in (*root.state.glob(f"{root.database.name}*"), root.state / "supervisor.log"):
            path.unlink(missing_ok=True)
    root.machine_file.unlink(missing_ok=True)
    root.agent_file.unlink(missing_ok=True)
