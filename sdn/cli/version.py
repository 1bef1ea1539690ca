"""`hawse version`."""

from __future__ import annotations

import argparse

from sdn.cli.connection import client_of
from sdn.cli.exits import Exit
from sdn.cli.output import print_json, print_table
from sdn.model.errors import HawseError
from sdn.model.version import VERSION


def version_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `version`: none."""


def version(args: argparse.Namespace) -> int:
    """Show this command's version, and those of the daemons that can be reached."""
    rows = [("hawse", "", VERSION)]
    try:
        client = client_of(args, timeout_s=5.0)
        status = client.get("/v1/status").body
        rows.append(("controller", "", status.get("version", "unknown")))
        rows += [("agent", host["name"], host.get("version") or "unknown") for host in client.items("/v1/hosts")]
    except HawseError as error:
        rows.append(("controller", "", f"not reached: {error.message}"))
    if args.output == "json":
        print_json([{"part": part, "host": host, "version": text} for part, host, text in rows])
    else:
        print_table(("PART", "HOST", "VERSION"), rows)
    return Exit.OK
