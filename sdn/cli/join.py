"""`hawse join`: a token makes this machine a host."""

from __future__ import annotations

import argparse
import sys

from sdn.cli.exits import Exit, UsageError
from sdn.cli.machine import detach_argument, ovsdb_argument, serve, vtep_argument
from sdn.model.errors import HawseError

STANDARD_INPUT = "-"
TOKEN_CHARACTERS_MAX = 4096
DISCOVER_S = 5.0


def join_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `join`."""
    parser.add_argument("address", metavar="ADDRESS", nargs="?", help="of the controller; also with :PORT or https://")
    parser.add_argument(
        "token", metavar="TOKEN", nargs="?", help="what 'hawse token create' has printed there; -: from standard input"
    )
    detach_argument(parser)
    parser.add_argument("--name", default="", help="this host's name; default: the machine's")
    vtep_argument(parser)
    parser.add_argument("--label", metavar="K=V", action="append", default=[], help="of the host; repeatable")
    parser.add_argument("--datapath", choices=("bridge", "openflow"), default="bridge", help="what is programmed")
    ovsdb_argument(parser)
    parser.add_argument(
        "--discover", action="store_true", help="find the controller on the local segment; then TOKEN is all to give"
    )


def join(args: argparse.Namespace) -> int:
    """Join the fabric of a controller."""
    from sdn.service.libc import keep_memory_private, wipe_title

    word = _word(args)
    wipe_title(word)  # before anything takes its time
    keep_memory_private()
    from sdn.cli.waiting import parse_labels
    from sdn.client.trust import controller_url
    from sdn.machine.address import parse_vteps
    from sdn.machine.join import Joining, join, require_fresh
    from sdn.machine.record import place_of
    from sdn.machine.start import host_name, require_root
    from sdn.model.token import TokenKind, parse_token

    word = _read() if word == STANDARD_INPUT else word
    token = parse_token(word, TokenKind.JOIN)
    require_root()
    place = place_of(args.root)
    require_fresh(place, token)
    joining = Joining(
        url=_discovered(token.fingerprint) if args.discover else controller_url(args.address),
        token=token,
        name=args.name or host_name(),
        vteps=parse_vteps(args.vtep),
        labels=parse_labels(args.label),
        datapath=args.datapath,
        ovsdb=args.ovsdb,
    )
    code = serve(args, place, lambda teller: join(place, joining, teller))
    return Exit(code)


def _word(args: argparse.Namespace) -> str:
    """The token, as it was given."""
    given = [word for word in (args.address, args.token) if word]
    wanted = 1 if args.discover else 2
    if len(given) != wanted:
        raise UsageError(
            "join needs the token alone where it discovers the controller"
            if args.discover
            else "join needs the controller's address and a token",
            "hawse join ADDRESS TOKEN; 'hawse token create' on the controller's machine prints the whole line",
        )
    return str(given[-1])


def _read() -> str:
    """From standard input, without an echo where that is a terminal."""
    if sys.stdin.isatty():
        import getpass

        return getpass.getpass("token: ")
    return sys.stdin.read(TOKEN_CHARACTERS_MAX)


def _discovered(fingerprint: str) -> str:
    """The first announced controller that proves to be the one that the token means. Raises: as `discover`, DENIED."""
    from sdn.client.trust import controller_url, fetch_authority
    from sdn.service.discovery import discover

    problem: HawseError | None = None
    for address in discover(fingerprint, DISCOVER_S):
        try:
            fetch_authority(address, fingerprint)
            return controller_url(address)
        except HawseError as error:
            problem = error
    assert problem is not None  # discover raises where it finds none
    raise problem
