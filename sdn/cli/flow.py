"""`hawse flow ls`: the entries of a host's tables."""

from __future__ import annotations

import argparse

from sdn.cli.connection import client_of
from sdn.cli.exits import Exit
from sdn.cli.output import print_json, print_table
from sdn.client.client import resource

MATCH_COLUMNS = 44
"""Most are shorter."""


def ls_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `flow ls`."""
    parser.add_argument("host", metavar="HOST", help="whose tables")
    parser.add_argument("--network", default=None, metavar="NETWORK", help="only this network's")
    parser.add_argument(
        "--endpoint", default=None, metavar="ENDPOINT", help="only a container's: its name, HOST:container, or an id"
    )
    parser.add_argument("--drops", action="store_true", help="only what counts drops, by cause")


def ls(args: argparse.Namespace) -> int:
    """List a host's entries, by name, with counts."""
    answer = client_of(args).get(
        f"{resource('hosts', args.host)}/flows", network=args.network, endpoint=args.endpoint, drops=args.drops or None
    )
    items = answer.body["items"]
    if args.output == "json":
        print_json(answer.body)
        return Exit.OK
    rows = [
        (
            item["table"],
            f"{item['tenant']}/{item['network']}" if item["network"] else item["tenant"],
            item["owner"] or item["cause"],
            item["packets"],
            item["bytes"],
            item["match"],
            item["action"],
        )
        for item in items
    ]
    header = ("TABLE", "NETWORK", "OWNER", "PACKETS", "BYTES", "MATCH", "ACTION")
    print_table(header, rows, narrow={"MATCH": MATCH_COLUMNS})
    if answer.body["omitted"]:
        print(f"\n{answer.body['omitted']} more: --network and --endpoint choose")
    return Exit.OK
