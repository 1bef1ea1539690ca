"""This machine's containers, as far as stopping and leaving have to do with them."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sdn.machine.record import Place
from sdn.model.errors import HawseError, Kind, unavailable
from sdn.service.contract_client import Connection, request

AT_ONCE = 16
"""Containers that are stopped side by side."""
NAMED_MAX = 8
PS_S = 10.0


def containers(place: Place, *, every: bool = False) -> list[str] | None:
    """The names of containers that run (or of `every` one); None: the runtime does not run."""
    try:
        found = request(place.root.runtime_socket, {"verb": "PS", "all": every}, timeout_s=PS_S)["items"]
    except HawseError as error:
        if error.kind is not Kind.UNAVAILABLE:
            raise
        return None
    return [str(one["name"]) for one in found]


def supervisor_lives(place: Place) -> bool:
    """Whether there is a supervisor: without a runtime's daemon there is one only while containers live."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
        probe.connect(str(place.root.supervisor_socket))
        return True
    return False


def stop_all(place: Place, names: Iterable[str]) -> None:
    """Stop them, each with its own signal and patience. Raises: UNAVAILABLE, with all that went wrong."""
    _each(place, names, lambda name: {"verb": "STOP", "container": name}, "stopped")


def remove_all(place: Place, names: Iterable[str]) -> None:
    """Kill and remove them. Raises: UNAVAILABLE, with all that went wrong."""
    _each(place, names, lambda name: {"verb": "RM", "container": name, "force": True}, "removed")


def _each(place: Place, names: Iterable[str], message: Any, done: str) -> None:
    def do(name: str) -> str:
        try:
            with Connection(place.root.runtime_socket) as connection:
                for _ in connection.converse(message(name)):
                    pass
        except HawseError as error:
            return "" if error.kind is Kind.NOT_FOUND else f"{name}: {error.message}"
        return ""

    with ThreadPoolExecutor(AT_ONCE) as pool:
        problems = [problem for problem in pool.map(do, names) if problem]
    if problems:
        raise unavailable(f"not all containers could be {done}: {'; '.join(problems)}", "look at the runtime's log")


def named(names: list[str]) -> str:
    """`a, b and 3 more`."""
    shown = ", ".join(names[:NAMED_MAX])
    return f"{shown} and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else shown


def count(names: list[str]) -> str:
    """`1 container runs`, `2 containers run`."""
    return "1 container runs" if len(names) == 1 else f"{len(names)} containers run"
