"""`hawse join`: a token makes this machine a host. The package tells how; here is the order in which it is done."""

from __future__ import annotations

import dataclasses
import os
import time
from typing import Any

import msgspec

from sdn.machine.address import require_here, vteps_towards
from sdn.machine.identity import read_identity, write_identity
from sdn.machine.monitor import Monitor
from sdn.machine.record import AGENT, JOINED, MONITOR, RUNTIME, Machine, Place, read_machine, write_machine
from sdn.machine.start import ABLE_S, serve
from sdn.machine.teller import Teller
from sdn.model.errors import HawseError, Kind, conflict
from sdn.model.token import Token
from sdn.model.version import VERSION
from sdn.service.pid_file import running_pid

CLOCKS_DIFFER_S = 60.0
JOIN_S = 30.0


@dataclasses.dataclass(frozen=True, slots=True)
class Joining:
    """What was asked for. `url`: https; `vteps`: as they were given (`vtep4`, `vtep6`)."""

    url: str
    token: Token
    name: str
    vteps: dict[str, str]
    labels: dict[str, str]
    datapath: str
    ovsdb: str = ""


def require_fresh(place: Place, token: Token) -> None:
    """Raises: CONFLICT where this machine is something already, or is about to be.

    A join by this very fabric's token that was killed after the machine had become a host is no such case: it goes on.
    """
    known = read_machine(place.root)
    if known is not None and known.is_first:
        raise conflict(
            f"this machine is host {known.name} of its own controller ({known.url})",
            f"leave first, if it is to be another's: {place.typed('leave')}",
        )
    if place.root.agent_file.exists():
        identity = read_identity(place.root)
        if known is not None or identity["fingerprint"] != token.fingerprint:
            raise conflict(
                f"this machine is host {identity['name']} of {identity['controllers'][0]} already",
                f"{place.typed('up')} starts it; {place.typed('leave')} ends that, and it can join again",
                host=identity["name"],
                controller=identity["controllers"][0],
            )
    pids = {running_pid(place.root, name) for name in (MONITOR, AGENT)} - {None, os.getpid()}
    if pids:
        raise conflict(
            f"daemons of Hawse run on this machine already (pid {pids.pop()})", f"end them: {place.typed('down')}"
        )


def join(place: Place, joining: Joining, teller: Teller) -> None:
    """Become a host, and serve as one until a signal comes. Raises: HawseError; then the machine is as it was."""
    require_here(joining.vteps)
    machine = Machine(
        daemons=JOINED, name=joining.name, datapath=joining.datapath, ovsdb=joining.ovsdb, url=joining.url
    )
    with Monitor(place, teller) as monitor:
        require_fresh(place, joining.token)
        agent = monitor.start(machine, AGENT, held=True)
        monitor.start(machine, RUNTIME)
        if not place.root.agent_file.exists():
            _become_host(place, joining, monitor, teller)
        identity = read_identity(place.root)
        machine = msgspec.structs.replace(machine, name=identity["name"], url=str(identity["controllers"][0]))
        write_machine(place.root, machine)
        agent.release()
        try:
            monitor.wait(AGENT, RUNTIME)
        except HawseError as error:
            raise _half_way(error, machine, place) from None
        teller.say(f"joined: this machine is host {machine.name} of {machine.url}")
        teller.say(f"  a container in a network:  {place.typed('run --rm -it --network web host')}")
        serve(place, machine, (), monitor, teller)


def _become_host(place: Place, joining: Joining, monitor: Monitor, teller: Teller) -> None:
    """Use the token, once all that can be known before has been looked at; the credential is kept at once."""
    from sdn.client.client import Client
    from sdn.client.trust import fetch_authority

    authority = fetch_authority(joining.url, joining.token.fingerprint)
    client = Client(joining.url, JOIN_S, authority=authority)
    _compare_clocks(float(client.get("/v1/identity").body["time_s"]) - time.time(), joining.url, teller)
    monitor.process(AGENT).wait_able(ABLE_S)
    monitor.wait(RUNTIME)
    host = joining.url.removeprefix("https://").rpartition(":")[0].strip("[]")
    body: dict[str, Any] = {
        "token": str(joining.token),
        "name": joining.name,
        "labels": joining.labels,
        "version": VERSION,
        **(vteps_towards(host) | joining.vteps),
    }
    try:
        credential = client.post("/v1/join", body).body
    except HawseError as error:
        raise _told(error, place) from None
    controllers = dict.fromkeys([*credential["controllers"], joining.url])  # where it was found counts, too
    write_identity(place.root, credential | joining.vteps | {"controllers": list(controllers)})


def _half_way(error: HawseError, machine: Machine, place: Place) -> HawseError:
    """The token is used, and rightly so: what is left to do is to start what did not."""
    message = f"this machine has become host {machine.name} of {machine.url}, but does not serve: {error.message}"
    return HawseError(error.kind, message, hint=f"{error.hint or 'mend that'}; then: {place.typed('up')}")


def _told(error: HawseError, place: Place) -> HawseError:
    """A refusal, with what a person on this machine can do about it."""
    if error.kind is Kind.UNAVAILABLE:
        hint = (
            "if the token was used all the same, the next try says so: then make another token, after "
            "'hawse host forget' of this host's name, on the controller's machine"
        )
        return HawseError(error.kind, error.message, hint=error.hint or hint, facts=error.facts)
    return error


def _compare_clocks(ahead_s: float, url: str, teller: Teller) -> None:
    """Say it where they differ: certificates and tokens have an end, and logs are compared."""
    if abs(ahead_s) < CLOCKS_DIFFER_S:
        return
    how = "ahead of" if ahead_s > 0 else "behind"
    amount = abs(ahead_s)
    text = (
        f"{amount / 3600:.1f} h" if amount >= 5400 else f"{amount / 60:.0f} min" if amount >= 90 else f"{amount:.0f} s"
    )
    teller.say(f"the clock of {url} is {text} {how} this machine's: set the one that is wrong")
