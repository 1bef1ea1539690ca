"""`hawse down`: the daemons end, what they keep stays."""

from __future__ import annotations

from sdn.machine import units
from sdn.machine.local_runtime import containers, count, named, stop_all, supervisor_lives
from sdn.machine.monitor import END_ORDER
from sdn.machine.process import STOP_S, Process
from sdn.machine.record import MONITOR, Place
from sdn.machine.teller import Teller
from sdn.model.errors import conflict


def down(place: Place, teller: Teller, *, force: bool, keep_containers: bool) -> bool:
    """Stop what runs; False: nothing did. Raises: CONFLICT while containers run, naming them; UNAVAILABLE."""
    living = containers(place)
    if living is None and supervisor_lives(place) and not keep_containers:
        raise conflict(
            "containers may be running: their supervisor lives, though the runtime does not",
            f"start it: {place.typed('up -d')}; or let them go on: {place.typed('down --keep-containers')}",
        )
    if living and force:
        teller.say(f"stopping {named(living)}")
        stop_all(place, living)
    elif living and not keep_containers:
        raise conflict(
            f"{count(living)} on this machine: {named(living)}",
            f"{place.typed('down --force')} stops them first; {place.typed('down --keep-containers')} lets them go on",
            containers=living,
        )
    return stop_daemons(place, teller)


def stop_daemons(place: Place, teller: Teller) -> bool:
    """End monitor and daemons, whoever started them; False: there were none. Raises: UNAVAILABLE."""
    units.stop_active(place)
    stopped = False
    monitor = Process.find(place, MONITOR)
    if monitor is not None:
        monitor.stop(STOP_S * (len(END_ORDER) + 1))  # it ends the daemons first
        stopped = True
    for name in END_ORDER:
        process = Process.find(place, name)
        if process is None:
            continue
        stopped = True
        if not process.stop():
            teller.say(f"the {name} did not end when it was told to, and was killed")
    return stopped
