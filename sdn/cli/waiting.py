"""`--wait[=SECONDS]`: block until every host concerned is in step, and show a table of how each one is."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from sdn.cli.connection import client_of
from sdn.cli.exits import Exit
from sdn.cli.output import print_json, print_table
from sdn.model.errors import invalid

WAIT_DEFAULT_S = 30.0
WAIT_MAX_S = 3600.0


def wait_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--wait`."""
    parser.add_argument(
        "--wait",
        metavar="SECONDS",
        nargs="?",
        const=WAIT_DEFAULT_S,
        default=None,
        type=_seconds,
        help="until every host concerned is in step (default 30; write --wait=SECONDS)",
    )


def finish(args: argparse.Namespace, revision: int, value: Any, text: str) -> int:
    """Print what a write gave, then wait if asked to; the exit code."""
    if args.wait is None:
        if args.output == "json":
            print_json(value)
        elif text:
            print(text)
        return Exit.OK
    client = client_of(args, timeout_s=args.wait + 10)
    status = client.get("/v1/status", revision=revision, wait=f"{args.wait:g}").body
    hosts = status["hosts"]
    if args.output == "json":
        print_json({"result": value, "revision": revision, "settled": status["settled"], "hosts": hosts})
    else:
        if text:
            print(text)
        rows = [(host["name"], host["state"], "; ".join(host.get("failures", {}).values())) for host in hosts]
        if rows:
            print_table(("HOST", "STATE", "WHY"), rows, fold={"WHY": 80})
        else:
            print("no host is concerned: nothing to wait for")
    if any(host["state"] == "failed" for host in hosts):
        print("hawse: a host could not apply the change: see the table; it goes on trying", file=sys.stderr)
        return Exit.FAILED
    if status["settled"]:
        return Exit.OK
    print(
        f"hawse: not every host was in step after {args.wait:g} s\n"
        "       the change is made; a host that is away follows when it is back",
        file=sys.stderr,
    )
    return Exit.TIMED_OUT


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= WAIT_MAX_S:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds between 0 and {WAIT_MAX_S:g}")
    return seconds


def parse_labels(pairs: list[str]) -> dict[str, str]:
    """`["k=v", …]` as a mapping. Raises: INVALID."""
    labels: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise invalid(f"{pair!r} is not a label", "write it as key=value")
        labels[key] = value
    return labels
