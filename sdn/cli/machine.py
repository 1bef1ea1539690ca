"""`hawse up`, `hawse down` and `hawse leave`: this machine as a whole."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable

from sdn.cli.exits import Exit
from sdn.machine.record import Place, place_of
from sdn.machine.teller import Foreground, Teller, detach
from sdn.model.errors import conflict


def front_of(args: argparse.Namespace, place: Place) -> Foreground:
    """Whom a machine's command speaks to."""
    return Foreground(place, sys.stdout, quiet=args.output == "json")


def serve(args: argparse.Namespace, place: Place, work: Callable[[Teller], None]) -> int:
    """Do what keeps daemons going, here or detached."""
    front = front_of(args, place)
    if args.detach:
        detach(place, work, front)
    else:
        work(front)
    return Exit.OK


def detach_argument(parser: argparse.ArgumentParser) -> None:
    """-d."""
    parser.add_argument("-d", "--detach", action="store_true", help="return once everything serves, and go on behind")


def up_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `up`."""
    detach_argument(parser)
    parser.add_argument(
        "--listen", metavar="ADDRESS[:PORT]", action="append", default=[],
        help="where other machines find it; repeatable; default: auto, the address of the default route's link",
    )  # fmt: skip
    parser.add_argument(
        "--advertise", metavar="URL", action="append", default=[],
        help="what hosts are told instead, https://ADDRESS:PORT; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--pool", metavar="PREFIX", action="append", default=[], help="automatic subnets are cut from it; repeatable"
    )
    parser.add_argument(
        "--openflow", metavar="ssl:ADDRESS[:PORT]", action="append", default=[],
        help="where switches without an agent find it; repeatable; see 'hawse help switches'",
    )  # fmt: skip
    parser.add_argument(
        "--discoverable", action=argparse.BooleanOptionalAction, default=None,
        help="announce the controller on the local segment, for 'join --discover'",
    )  # fmt: skip
    parser.add_argument("--name", default="", help="this host's name; default: the machine's")
    vtep_argument(parser)
    parser.add_argument("--datapath", choices=("bridge", "openflow"), default="", help="what is programmed")
    ovsdb_argument(parser)


def ovsdb_argument(parser: argparse.ArgumentParser) -> None:
    """--ovsdb."""
    parser.add_argument(
        "--ovsdb", metavar="PATH", default="",
        help="the socket of Open vSwitch's database, for --datapath openflow; default: /run/openvswitch/db.sock",
    )  # fmt: skip


def vtep_argument(parser: argparse.ArgumentParser) -> None:
    """--vtep."""
    parser.add_argument(
        "--vtep", metavar="ADDRESS", action="append", default=[],
        help="this host's address for tunnels, one of each family; default: that of the route to the controller",
    )  # fmt: skip


def up(args: argparse.Namespace) -> int:
    """Start this machine's daemons, and keep them going."""
    from sdn.machine.address import parse_vteps
    from sdn.machine.start import Wishes, already_up, differs, require_root, up

    require_root()
    place = place_of(args.root)
    wishes = Wishes(
        listen=tuple(args.listen),
        advertise=tuple(args.advertise),
        pool=tuple(args.pool),
        openflow=tuple(args.openflow),
        discoverable=args.discoverable,
        name=args.name,
        datapath=args.datapath,
        ovsdb=args.ovsdb,
        vteps=parse_vteps(args.vtep),
    )
    keeper = already_up(place)
    if not keeper:
        return serve(args, place, lambda teller: up(place, wishes, teller))
    if differs(place, wishes):
        raise conflict(
            f"this machine is up already ({keeper}), with the options that it was started with",
            f"stop it first: {place.typed('down --keep-containers')}",
        )
    if not args.detach:
        raise conflict(f"this machine is up already ({keeper})", f"its logs are in {place.root.logs}")
    _tell_up(args, place, keeper)
    return Exit.OK


def _tell_up(args: argparse.Namespace, place: Place, keeper: str) -> None:
    from sdn.machine.record import read_machine
    from sdn.machine.start import describe

    front = front_of(args, place)
    front.say(f"this machine is up already ({keeper})")
    machine = read_machine(place.root)
    if machine is not None:
        front.done(describe(place, machine))


def down_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `down`."""
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--force", action="store_true", help="stop the containers first")
    choice.add_argument("--keep-containers", action="store_true", help="let the containers go on, for an upgrade")


def down(args: argparse.Namespace) -> int:
    """Stop this machine's daemons."""
    from sdn.machine.start import require_root
    from sdn.machine.stop import down

    require_root()
    place = place_of(args.root)
    stopped = down(place, front_of(args, place), force=args.force, keep_containers=args.keep_containers)
    if args.output == "json":
        print(json.dumps({"stopped": stopped}))
    else:
        print(f"stopped; {place.typed('up')} starts it again" if stopped else "nothing of Hawse runs here")
    return Exit.OK


def leave_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `leave`."""
    parser.add_argument(
        "--force", action="store_true", help="remove running containers, and leave even if the controller is away"
    )
    parser.add_argument("--all", action="store_true", help="remove images, volumes, logs and a controller's state, too")


def leave(args: argparse.Namespace) -> int:
    """Be no host any more."""
    from sdn.machine.leave import leave
    from sdn.machine.start import require_root

    require_root()
    place = place_of(args.root)
    name = leave(place, front_of(args, place), force=args.force, everything=args.all)
    if args.output == "json":
        print(json.dumps({"left": name}))
    else:
        print(f"left: {name} is no host any more")
    return Exit.OK
