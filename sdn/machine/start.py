"""`hawse up`: whatever this machine is, it serves; on the first run it becomes something."""

from __future__ import annotations

import dataclasses
import os
import re
import socket
from collections.abc import Sequence
from typing import Any

import msgspec

from sdn.machine import units
from sdn.machine.address import Listen, choose_listen, is_here, require_here
from sdn.machine.identity import read_identity, write_identity
from sdn.machine.local_runtime import containers, named
from sdn.machine.monitor import Monitor
from sdn.machine.record import (
    AGENT,
    CONTROLLER,
    FIRST,
    JOINED,
    MONITOR,
    Machine,
    Place,
    read_machine,
    write_machine,
)
from sdn.machine.teller import Teller
from sdn.model.errors import HawseError, Kind, conflict, denied, invalid
from sdn.service.pid_file import running_pid

AUTOMATIC = ("auto",)
"""`--listen auto`: by the default route, though something else is remembered."""
ABLE_S = 30.0
"""For an agent to import and to try the kernel."""
ASK_S = 2.0


@dataclasses.dataclass(frozen=True, slots=True)
class Wishes:
    """What was given on the command line; empty: as it is remembered, or as it is usual."""

    listen: tuple[str, ...] = ()
    advertise: tuple[str, ...] = ()
    pool: tuple[str, ...] = ()
    openflow: tuple[str, ...] = ()
    discoverable: bool | None = None
    name: str = ""
    datapath: str = ""
    ovsdb: str = ""
    vteps: dict[str, str] = dataclasses.field(default_factory=dict)


def require_root() -> None:
    """Raises: DENIED."""
    if os.geteuid() != 0:
        raise denied("this needs root: it makes network namespaces and interfaces, and runs containers", "use sudo")


def host_name() -> str:
    """A host's name that comes of the machine's."""
    text = re.sub(r"[^a-z0-9-]+", "-", socket.gethostname().partition(".")[0].lower()).strip("-")
    return text[:63].rstrip("-") or "host"


def decide(place: Place, wishes: Wishes) -> Machine:
    """What the machine is to be. Raises: INVALID where that is not what it is."""
    known = read_machine(place.root)
    if known is None and place.root.agent_file.exists():
        identity = read_identity(place.root)  # who joined it was killed at the last step
        known = Machine(daemons=JOINED, name=identity["name"], url=identity["controllers"][0])
    if known is None:
        fresh = Machine(daemons=FIRST, name=wishes.name or host_name())
        return _wished(fresh, wishes)
    check_wishes(place, known, wishes)
    if wishes.vteps and place.root.agent_file.exists():
        write_identity(place.root, read_identity(place.root) | wishes.vteps)
    return _wished(known, wishes)


def check_wishes(place: Place, known: Machine, wishes: Wishes) -> None:
    """Raises: INVALID where a machine cannot become what is wished for."""
    if wishes.name and wishes.name != known.name:
        raise invalid(
            f"this machine is host {known.name} already: it cannot become {wishes.name}",
            f"leave first: {place.typed('leave')}",
        )
    if not known.is_first and (
        wishes.listen or wishes.advertise or wishes.pool or wishes.openflow or wishes.discoverable
    ):
        raise invalid(
            f"this machine is host {known.name} of {known.url}: it has no controller that could listen",
            f"give no such option, or leave first: {place.typed('leave')}",
        )


def _wished(machine: Machine, wishes: Wishes) -> Machine:
    return msgspec.structs.replace(
        machine,
        listen=() if wishes.listen == AUTOMATIC else wishes.listen or machine.listen,
        advertise=wishes.advertise or machine.advertise,
        pool=wishes.pool or machine.pool,
        openflow=wishes.openflow or machine.openflow,
        discoverable=machine.discoverable if wishes.discoverable is None else wishes.discoverable,
        datapath=wishes.datapath or machine.datapath,
        ovsdb=wishes.ovsdb or machine.ovsdb,
    )


def differs(place: Place, wishes: Wishes) -> bool:
    """Whether something is wished for that the machine, which is up, is not. Raises: INVALID."""
    known = read_machine(place.root)
    if known is None:
        return wishes != Wishes()
    check_wishes(place, known, wishes)
    if wishes.vteps and not wishes.vteps.items() <= read_identity(place.root).items():
        return True
    return _wished(known, wishes) != known


def already_up(place: Place) -> str:
    """Who keeps this machine up, in words; empty: nobody does."""
    pid = running_pid(place.root, MONITOR)
    if pid is not None:
        return f"pid {pid}"
    unit = units.active(place)
    return f"systemd: {unit}" if unit else ""


def up(place: Place, wishes: Wishes, teller: Teller) -> None:
    """Start all that this machine runs and keep it going until it is told to stop. Raises: HawseError."""
    require_here(wishes.vteps)
    machine = decide(place, wishes)
    chosen = choose_listen() if machine.is_first and not machine.listen else None
    listen = (chosen.text,) if chosen else machine.listen
    with Monitor(place, teller) as monitor:
        fresh = read_machine(place.root) is None
        if fresh:  # so that who is killed from here on begins again as what this is to be
            write_machine(place.root, machine)
        try:
            _start(place, machine, listen, wishes, monitor)
        except BaseException:
            if fresh:
                _take_back(place, machine)
            raise
        machine = _remembered(place, machine)
        _tell(place, machine, teller, chosen)
        serve(place, machine, listen, monitor, teller)


def _take_back(place: Place, machine: Machine) -> None:
    """Of a first start that failed nothing is remembered: the next one is the first again. Who has joined stays so."""
    if machine.is_first:
        place.root.agent_file.unlink(missing_ok=True)
    place.root.machine_file.unlink(missing_ok=True)


def _start(place: Place, machine: Machine, listen: Sequence[str], wishes: Wishes, monitor: Monitor) -> None:
    """Until all serve."""
    for name in machine.daemons:
        monitor.start(machine, name, listen, held=machine.is_first and name == AGENT)
    if machine.is_first:
        _be_own_host(place, machine, listen, wishes, monitor)
    monitor.wait(*machine.daemons)


def serve(place: Place, machine: Machine, listen: Sequence[str], monitor: Monitor, teller: Teller) -> None:
    """All is up: say so, and keep it so until a signal comes."""
    teller.done(describe(place, machine))
    monitor.keep(machine, listen)
    teller.note("info", "stopping")
    living = containers(place)
    if living:
        teller.say(
            f"{named(living)}: still running; {place.typed('up')} takes up again, {place.typed('down')} ends all"
        )


def _be_own_host(place: Place, machine: Machine, listen: Sequence[str], wishes: Wishes, monitor: Monitor) -> None:
    """The controller serves; this very machine is one of its hosts, and its agent finds it where it listens now."""
    agent = monitor.process(AGENT)
    monitor.wait(CONTROLLER)
    if agent.held is None:  # it runs already
        return
    from sdn.client.trust import controller_url

    agent.wait_able(ABLE_S)
    urls = [controller_url(text) for text in machine.advertise or listen if not text.endswith(":0")]
    if not place.root.agent_file.exists() or not urls:
        write_identity(place.root, _own_host(place, machine.name) | wishes.vteps)
    elif read_identity(place.root)["controllers"] != urls:
        write_identity(place.root, read_identity(place.root) | {"controllers": urls})
    agent.release()


def _own_host(place: Place, name: str) -> dict[str, Any]:
    """The credential of this machine's own host, which is made unless it is there from a start that was killed."""
    from sdn.client.client import Client, resource

    client = Client(f"unix:{place.root.controller_socket}")
    try:
        client.post("/v1/hosts", {"name": name})
    except HawseError as error:
        if error.kind is not Kind.CONFLICT:
            raise
        host = client.get(resource("hosts", name)).body
        vteps = [vtep for vtep in (host.get("vtep4"), host.get("vtep6")) if vtep]
        if host.get("connected") or (host.get("incarnation") and not any(map(is_here, vteps))):
            raise conflict(
                f"the controller of this machine has a host {name} already, which is another machine"
                f" ({', '.join(vteps) or 'not connected'})",
                "give this one another name: --name NAME",
            ) from None
    credential: dict[str, Any] = client.post(resource("hosts", name, "credential")).body
    return credential


def _remembered(place: Place, machine: Machine) -> Machine:
    """The machine with its controller's first address, written where the next `up` looks."""
    machine = msgspec.structs.replace(machine, url=str(read_identity(place.root)["controllers"][0]))
    if machine != read_machine(place.root):
        write_machine(place.root, machine)
    return machine


def away(place: Place) -> tuple[str, ...]:
    """Why the agent, which serves, has no controller, and what to do; nothing where it has one or cannot be asked."""
    from sdn.service.contract_client import request

    try:
        found = request(place.root.agent_socket, {"verb": "EXAMINE", "client": "cli"}, timeout_s=ASK_S)
    except HawseError:
        return ()
    return (f"but without its controller: {found['away']}", str(found["away_hint"])) if found["away"] else ()


def describe(place: Place, machine: Machine) -> dict[str, Any]:
    """For programs."""
    pids = {name: running_pid(place.root, name) for name in machine.daemons}
    return {"host": machine.name, "controller": machine.url, "first": machine.is_first, "pids": pids}


def _tell(place: Place, machine: Machine, teller: Teller, chosen: Listen | None) -> None:
    """What is there now, and what to type next."""
    if not machine.is_first:
        teller.say(f"host {machine.name} of {machine.url} is up")
        for line in away(place):
            teller.say(f"  {line}")
        return
    teller.say(f"host {machine.name} is up, and its controller listens on {machine.url.removeprefix('https://')}")
    if chosen is not None:
        teller.say(f"  ({chosen.why}; to choose another: {place.typed('up --listen ADDRESS:PORT')})")
    rows = [
        *([] if chosen is not None and chosen.alone else [("another machine joins:", "token create")]),
        ("a network:", "network create web"),
        ("a container in it:", "run --rm -it --network web host"),
    ]
    for what, words in rows:
        teller.say(f"  {what:<24}{place.typed(words)}")
