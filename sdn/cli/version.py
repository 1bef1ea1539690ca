"""`hawse version`."""

from __future__ import annotations

import argparse
import sys

from sdn.cli.connection import REQUEST_TIMEOUT_S, client_of
from sdn.cli.exits import Exit
from sdn.cli.output import print_json, print_table
from sdn.model.errors import HawseError
from sdn.model.version import VERSION


def version_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `version`: none."""


def version(args: argparse.Namespace) -> int:
    """Show the version of this command and of every daemon that can be reached, and where they differ."""
    from sdn.machine.record import place_of
    from sdn.machine.versions import Part, differing, versions

    place = place_of(args.root)
    try:
        parts = versions(place, client_of(args, min(REQUEST_TIMEOUT_S, 5.0)))
    except HawseError as error:  # where the controller is cannot be told
        parts = [Part("client", "here", VERSION), Part("controller", "", "", error.message)]
    if args.output == "json":
        print_json([part._asdict() for part in parts])
    else:
        rows = [(part.part, part.where, part.version or f"not reached: {part.problem}") for part in parts]
        print_table(("PART", "WHERE", "VERSION"), rows)
    for part in differing(parts):
        print(
            f"hawse: the {part.part} of {part.where} is {part.version}, and this is {VERSION}: "
            "restart it, or upgrade what is older",
            file=sys.stderr,
        )
    return Exit.OK
