"""`hawse install`: this machine's daemons as systemd units."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from sdn.cli.exits import Exit, UsageError
from sdn.machine.record import Place
from sdn.model.errors import not_found


def install_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `install`."""
    parser.add_argument("--now", action="store_true", help="have systemd run them from now on; containers go on")
    parser.add_argument("--remove", action="store_true", help="stop and remove the units instead")
    parser.add_argument(
        "--directory", metavar="DIR", default=None, help="write them there, and tell nobody (for packages and a look)"
    )


def install(args: argparse.Namespace) -> int:
    """Write a unit for each daemon that this machine runs."""
    from sdn.machine import units
    from sdn.machine.record import place_of
    from sdn.machine.start import require_root

    if args.directory is None:
        require_root()
    elif args.now:
        raise UsageError("--now has systemd run what is in its own directory", "leave out --directory")
    place = place_of(args.root)
    directory = units.DIRECTORY if args.directory is None else Path(args.directory)
    if args.remove:
        if args.directory is None:
            units.disable()
        written = units.remove(directory)
        if args.directory is None and written:
            units.reload()
        _tell(args, written, "removed")
        return Exit.OK
    written = _install(args, place, directory)
    _tell(args, written, "written")
    if args.output == "table" and not args.now:
        names = " ".join(path.name for path in written)
        print(f"  from the next start on, and now:  {place.typed('install --now')}\n  later:  systemctl enable {names}")
    return Exit.OK


def _install(args: argparse.Namespace, place: Place, directory: Path) -> list[Path]:
    from sdn.cli.machine import front_of
    from sdn.machine import units
    from sdn.machine.address import choose_listen
    from sdn.machine.record import read_machine
    from sdn.machine.stop import stop_daemons

    machine = read_machine(place.root)
    if machine is None:
        raise not_found(
            "this machine runs nothing of Hawse yet: there is nothing to install",
            f"first {place.typed('up -d')}, or {place.typed('join -d ADDRESS TOKEN')}",
        )
    if args.now:
        units.require_systemd()  # before anything is stopped
    listen = machine.listen or ((choose_listen().text,) if machine.is_first else ())
    written = units.install(place, machine, listen, directory)
    if args.directory is None:
        units.reload()
    if args.now:
        if not units.active(place):
            stop_daemons(place, front_of(args, place))
        units.systemctl("enable", "--now", *(path.name for path in written))
    return written


def _tell(args: argparse.Namespace, paths: list[Path], done: str) -> None:
    if args.output == "json":
        print(json.dumps({done: [str(path) for path in paths]}))
        return
    for path in paths:
        print(f"{done}: {path}")
    if not paths:
        print("there are no units of Hawse")
