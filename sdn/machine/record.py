"""machine.json: which daemons this machine runs, and how; and the command that starts each."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from sdn.model.codec import Decoder
from sdn.model.errors import HawseError, invalid
from sdn.model.resources import Value
from sdn.service.durable import write_durably
from sdn.service.roots import Root, find_root

CONTROLLER, AGENT, RUNTIME = "controller", "agent", "runtime"
FIRST = (CONTROLLER, AGENT, RUNTIME)
JOINED = (AGENT, RUNTIME)
MONITOR = "machine"
"""The monitor's name, of its pid file and its log."""
KEPT_VARIABLES = ("HAWSE_TRACEBACK",)


class Machine(Value, frozen=True, kw_only=True):
    """`listen`: as it was chosen; empty: by the default route, at each start. `url`: where a joined machine's is."""

    daemons: tuple[str, ...]
    name: str
    listen: tuple[str, ...] = ()
    advertise: tuple[str, ...] = ()
    pool: tuple[str, ...] = ()
    openflow: tuple[str, ...] = ()
    discoverable: bool = False
    datapath: str = "bridge"
    ovsdb: str = ""
    url: str = ""

    @property
    def is_first(self) -> bool:
        """Whether it has a controller of its own."""
        return CONTROLLER in self.daemons


class Place(NamedTuple):
    """A root, and how it was named (None: it is the machine's own)."""

    root: Root
    option: str | None

    @property
    def log_directory(self) -> Path:
        """Of all daemons, and of the monitor."""
        return self.root.logs

    def log(self, daemon: str) -> Path:
        """One daemon's."""
        return self.root.logs / f"{daemon}.log"

    def command(self, *words: str) -> list[str]:
        """The command line of `hawse WORDS` on this root."""
        return [*hawse_command(), *words, *(["--root", os.fspath(self.root.run)] if self.option else [])]

    def typed(self, words: str) -> str:
        """A command as a person types it for this root."""
        return f"hawse --root {self.option} {words}" if self.option else f"hawse {words}"


_decoder: Decoder[Machine] = Decoder(Machine, "the machine's record")


def place_of(option: str | None) -> Place:
    """Of `--root` or HAWSE_ROOT."""
    named = option or os.environ.get("HAWSE_ROOT")
    return Place(find_root(named), named)


def hawse_command() -> list[str]:
    """How this very installation is started."""
    script = Path(sys.executable).with_name("hawse")
    return [sys.executable, os.fspath(script)] if script.exists() else [sys.executable, "-m", "sdn.cli.main"]


def daemon_environment() -> dict[str, str]:
    """What daemons are given: nothing of what leads commands to other daemons, and no token."""
    return {
        key: value
        for key, value in os.environ.items()
        if key in KEPT_VARIABLES or not (key.startswith("HAWSE_") or key in ("NOTIFY_SOCKET", "LISTEN_FDS"))
    }


def read_machine(root: Root) -> Machine | None:
    """What is remembered; None: nothing. Raises: INVALID where it is damaged."""
    try:
        content = root.machine_file.read_bytes()
    except FileNotFoundError:
        return None
    try:
        machine = _decoder.json(content)
    except HawseError as error:
        raise invalid(
            f"{root.machine_file}: {error.message}", "correct it, or remove it: 'hawse up' makes a new one"
        ) from None
    if not machine.daemons or any(name not in FIRST for name in machine.daemons):
        raise invalid(f"{root.machine_file} names no daemons of Hawse", "remove it: 'hawse up' makes a new one")
    return machine


def write_machine(root: Root, machine: Machine) -> None:
    """Remember it: whole, and durably."""
    write_durably(root.machine_file, msgspec.json.format(msgspec.json.encode(machine)) + b"\n")


def datapath_words(machine: Machine) -> list[str]:
    """The agent's options that say what it programs."""
    return ["--datapath", machine.datapath, *(["--ovsdb", machine.ovsdb] if machine.ovsdb else [])]


def daemon_words(machine: Machine, daemon: str, listen: Sequence[str]) -> list[str]:
    """The command of a daemon and its options, but for the root and what is each start's own."""
    if daemon == AGENT:
        return [AGENT, *datapath_words(machine)]
    if daemon != CONTROLLER:
        return [daemon]
    given = (
        ("--listen", listen),
        ("--advertise", machine.advertise),
        ("--pool", machine.pool),
        ("--openflow", machine.openflow),
    )
    words = [word for option, values in given for value in values for word in (option, value)]
    return [CONTROLLER, *words, *(["--discoverable"] if machine.discoverable else [])]
