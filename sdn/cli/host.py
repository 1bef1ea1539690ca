"""`hawse host ls|inspect|forget`."""

from __future__ import annotations

import argparse

from sdn.cli.connection import client_of, get
from sdn.cli.exits import Exit
from sdn.cli.network import remove_each
from sdn.cli.output import print_json, print_properties, print_table
from sdn.cli.waiting import wait_argument


def ls_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `host ls`."""
    parser.add_argument("--label", action="append", default=[], metavar="K=V", help="only those with it")


def ls(args: argparse.Namespace) -> int:
    """List hosts and how far they are."""
    hosts = list(client_of(args).items("/v1/hosts", label=args.label))
    if args.output == "json":
        print_json(hosts)
        return Exit.OK
    rows = [
        (
            h["name"],
            "connected" if h.get("connected") else "away",
            [vtep for vtep in (h.get("vtep4"), h.get("vtep6")) if vtep],
            h.get("mtu_bytes"),
            h.get("datapath", "bridge"),
            h.get("applied_revision"),
            len(h.get("failures") or {}),
        )
        for h in hosts
    ]
    print_table(("HOST", "STATE", "VTEP", "MTU", "DATAPATH", "APPLIED", "FAILURES"), rows)
    return Exit.OK


def inspect_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `host inspect`."""
    parser.add_argument("host", metavar="HOST", help="name or id")


def inspect(args: argparse.Namespace) -> int:
    """Show all of a host."""
    host = get(args, "hosts", args.host)
    if args.output == "json":
        print_json(host)
    else:
        print_properties(host)
    return Exit.OK


def forget_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `host forget`."""
    parser.add_argument("hosts", metavar="HOST", nargs="+", help="name or id")
    parser.add_argument("--force", action="store_true", help="even while it is connected")
    wait_argument(parser)


def forget(args: argparse.Namespace) -> int:
    """Drop hosts for good; their endpoints are released."""
    return remove_each(args, "hosts", args.hosts, force=True if args.force else None)
