"""`hawse endpoint ls|inspect`."""

from __future__ import annotations

import argparse

from sdn.cli.connection import client_of, get
from sdn.cli.exits import Exit
from sdn.cli.output import print_json, print_properties, print_table


def ls_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `endpoint ls`."""
    parser.add_argument("--tenant", default=None, metavar="TENANT", help="only this tenant's")
    parser.add_argument("--network", default=None, metavar="NETWORK", help="only this network's")
    parser.add_argument("--host", default=None, metavar="HOST", help="only this host's")
    parser.add_argument("--label", action="append", default=[], metavar="K=V", help="only those with it")


def ls(args: argparse.Namespace) -> int:
    """List endpoints."""
    filters = {"tenant": args.tenant, "network": args.network, "host": args.host, "label": args.label}
    endpoints = list(client_of(args).items("/v1/endpoints", **filters))
    if args.output == "json":
        print_json(endpoints)
        return Exit.OK
    rows = [
        (
            e["id"],
            e.get("tenant_name"),
            e.get("network_name"),
            e.get("host_name"),
            e["container"],
            e["ifname"],
            e["addresses"],
            e["mac"],
            e.get("name"),
        )
        for e in endpoints
    ]
    print_table(("ENDPOINT", "TENANT", "NETWORK", "HOST", "CONTAINER", "IFNAME", "ADDRESSES", "MAC", "NAME"), rows)
    return Exit.OK


def inspect_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `endpoint inspect`."""
    parser.add_argument("endpoint", metavar="ENDPOINT", help="tenant/name, id, or name where that is unique")


def inspect(args: argparse.Namespace) -> int:
    """Show all of an endpoint."""
    endpoint = get(args, "endpoints", args.endpoint)
    if args.output == "json":
        print_json(endpoint)
    else:
        print_properties(endpoint)
    return Exit.OK
