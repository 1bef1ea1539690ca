"""`hawse drops`: why packets died."""

from __future__ import annotations

import argparse

from sdn.cli.connection import client_of
from sdn.cli.exits import Exit
from sdn.cli.output import print_json, print_table

NOTE = """\
Counted here is every drop by the guard. A frame for a target that nobody has (an unknown address or MAC) dies in the
VXLAN device or the bridge, which keep no counter for it.
"""


def drops_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `drops`."""
    parser.add_argument("host", metavar="HOST", nargs="?", default=None, help="only this host's (default: all)")
    parser.add_argument("--all", action="store_true", help="causes that never struck as well")
    parser.epilog = NOTE + "\n" + (parser.epilog or "")


def drops(args: argparse.Namespace) -> int:
    """Show the guard's counters by name."""
    value = client_of(args).get("/v1/drops", host=args.host).body
    items = [item for item in value["items"] if args.all or item["packets"]]
    if args.output == "json":
        print_json(items)
        return Exit.OK
    rows = [(i["host"], i["tenant"], i["network"], i["cause"], i["packets"], i["bytes"]) for i in items]
    print_table(("HOST", "TENANT", "NETWORK", "CAUSE", "PACKETS", "BYTES"), rows)
    for name in value.get("away", []):
        print(f"{name} is away: its counters are not in this table")
    return Exit.OK
