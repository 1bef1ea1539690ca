"""`hawse events`: what happened, and what happens."""

from __future__ import annotations

import argparse
import json
import time

from sdn.cli.connection import client_of
from sdn.cli.exits import Exit
from sdn.cli.output import printable


def events_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `events`."""
    parser.add_argument("--since", type=int, default=None, metavar="REVISION", help="from there on (default: now)")
    parser.add_argument("--no-follow", dest="follow", action="store_false", help="end after what is there")


def events(args: argparse.Namespace) -> int:
    """Print events, a line each."""
    since = args.since if args.since is not None else (None if args.follow else 0)
    for event in client_of(args).events(since=since, follow=None if args.follow else False):
        if args.output == "json":
            print(json.dumps(event, ensure_ascii=False), flush=True)
            continue
        data = dict(event["data"])
        stamp = time.strftime("%H:%M:%S", time.localtime(data.pop("time_s", time.time())))
        fields = "  ".join(f"{key}={printable(str(value))}" for key, value in data.items() if value not in ("", None))
        print(f"{stamp}  {event['id']:<8}  {event['event']:<22}  {fields}", flush=True)
    return Exit.OK
