"""`hawse support`: a file to attach to a bug report."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from sdn.cli.connection import client_of
from sdn.cli.exits import Exit


def support_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `support`."""
    parser.add_argument("file", metavar="FILE", nargs="?", help="default: hawse-support-TIME.tar.gz, here")


def support(args: argparse.Namespace) -> int:
    """Collect what says how this machine is."""
    from sdn.machine.bundle import write_bundle
    from sdn.machine.record import place_of

    path = Path(args.file or time.strftime("hawse-support-%Y%m%dT%H%M%SZ.tar.gz", time.gmtime()))
    shown = sys.stderr.isatty()

    def say(part: str) -> None:
        if shown:
            print(f"\r\x1b[K{part}", end="", file=sys.stderr, flush=True)

    size = write_bundle(place_of(args.root), client_of(args, 10.0), path, say)
    say("")
    if args.output == "json":
        print(json.dumps({"file": str(path), "bytes": size}))
    else:
        print(f"{path} ({size >> 10} KiB): credentials, tokens and keys are not in it; names and addresses are")
    return Exit.OK
