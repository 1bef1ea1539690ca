"""`hawse tenant create|ls|inspect|rm`."""

from __future__ import annotations

import argparse

from sdn.cli.connection import client_of, get, revision_of
from sdn.cli.exits import Exit
from sdn.cli.network import remove_each
from sdn.cli.output import print_json, print_properties, print_table
from sdn.cli.waiting import finish, parse_labels, wait_argument


def create_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `tenant create`."""
    parser.add_argument("name", metavar="NAME", help="up to 63 letters, digits, '-', '_' and '.'")
    parser.add_argument("--label", action="append", default=[], metavar="K=V", help="repeatable")
    wait_argument(parser)


def create(args: argparse.Namespace) -> int:
    """Make a tenant."""
    body = {"name": args.name, "labels": parse_labels(args.label)}
    reply = client_of(args).post("/v1/tenants", body)
    return finish(args, revision_of(reply), reply.body, reply.body["name"])


def ls_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `tenant ls`."""
    parser.add_argument("--label", action="append", default=[], metavar="K=V", help="only those with it")


def ls(args: argparse.Namespace) -> int:
    """List tenants."""
    tenants = list(client_of(args).items("/v1/tenants", label=args.label))
    if args.output == "json":
        print_json(tenants)
    else:
        print_table(("TENANT", "ID", "LABELS"), [(t["name"], t["id"], t.get("labels")) for t in tenants])
    return Exit.OK


def inspect_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `tenant inspect`."""
    parser.add_argument("tenant", metavar="TENANT", help="name or id")


def inspect(args: argparse.Namespace) -> int:
    """Show all of a tenant."""
    tenant = get(args, "tenants", args.tenant)
    if args.output == "json":
        print_json(tenant)
        return Exit.OK
    networks = client_of(args).items("/v1/networks", tenant=tenant["id"])
    print_properties({**tenant, "networks": [network["name"] for network in networks]})
    return Exit.OK


def rm_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `tenant rm`."""
    parser.add_argument("tenants", metavar="TENANT", nargs="+", help="name or id")
    wait_argument(parser)


def rm(args: argparse.Namespace) -> int:
    """Remove tenants."""
    return remove_each(args, "tenants", args.tenants)
