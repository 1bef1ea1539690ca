"""`hawse certificate ls|rotate|retire`."""

from __future__ import annotations

import argparse
import time
from typing import Any

from sdn.cli.connection import client_of
from sdn.cli.exits import Exit
from sdn.cli.output import print_json, print_table
from sdn.client.client import with_query

PATH = "/v1/certificates"
TIMEOUT_S = 60.0
"""Hosts are told of an authority before the answer comes."""


def ls_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `certificate ls`: none."""


def ls(args: argparse.Namespace) -> int:
    """List what the controller is known by."""
    return _print(args, client_of(args).get(PATH).body)


def rotate_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `certificate rotate`."""
    parser.add_argument("--server", action="store_true", help="only what the controller shows, of the same authority")


def rotate(args: argparse.Namespace) -> int:
    """Replace the authority, or what it has signed; nobody is cut off."""
    path = with_query(f"{PATH}/rotate", {"server": True if args.server else None})
    return _print(args, client_of(args).post(path, timeout_s=TIMEOUT_S).body)


def retire_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `certificate retire`."""
    parser.add_argument("--force", action="store_true", help="also where hosts are cut off by it")


def retire(args: argparse.Namespace) -> int:
    """End the authority before the newest; tokens and logins from before it was replaced end with it."""
    path = with_query(f"{PATH}/retire", {"force": True if args.force else None})
    return _print(args, client_of(args).post(path, timeout_s=TIMEOUT_S).body)


def _print(args: argparse.Namespace, found: dict[str, Any]) -> int:
    if args.output == "json":
        print_json(found)
        return Exit.OK
    rows = [(one["part"], one["fingerprint"], _day(one["begins_s"]), _day(one["ends_s"])) for one in found["items"]]
    print_table(("CERTIFICATE", "SHA-256", "FROM", "UNTIL"), rows)
    if found["lacking"]:
        print(f"\nnot known to trust the newest authority: {', '.join(found['lacking'])}")
    return Exit.OK


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))
