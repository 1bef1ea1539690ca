"""`hawse host rotate`."""

from __future__ import annotations

import argparse

from sdn.cli.connection import client_of
from sdn.cli.exits import Exit
from sdn.cli.output import print_json
from sdn.client.client import resource


def rotate_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `host rotate`."""
    parser.add_argument("hosts", metavar="HOST", nargs="+", help="name or id")


def rotate(args: argparse.Namespace) -> int:
    """Give connected hosts another secret; each one's before is void when its name is printed."""
    client, done = client_of(args), []
    for reference in args.hosts:
        done.append(client.post(f"{resource('hosts', reference)}/rotate").body)
        if args.output != "json":
            print(done[-1]["name"])
    if args.output == "json":
        print_json(done)
    return Exit.OK
