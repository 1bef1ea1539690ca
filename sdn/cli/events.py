"""`hawse events`: what happened, and what happens."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

from sdn.cli.connection import client_of
from sdn.cli.exits import Exit
from sdn.cli.output import printable
from sdn.client.events import Event
from sdn.model.errors import HawseError, Kind

AWAY_MAX_S = 60.0
"""How long a controller that went away may take to come back; a restart takes a second."""
RETRY_S = 0.5


def events_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `events`."""
    parser.add_argument(
        "--since", default=None, metavar="REVISION", help="what came after a revision or an event's id (default: now)"
    )
    parser.add_argument(
        "--containers",
        action="store_true",
        help="instead: what happens to this host's containers; --since is a time then, as of 'hawse logs'",
    )
    parser.add_argument("--no-follow", dest="follow", action="store_false", help="end after what is there")


def events(args: argparse.Namespace) -> int:
    """Print events, a line each."""
    if args.containers:
        from sdn.cli.container_events import container_events  # another daemon's

        return container_events(args)
    for event in _followed(args) if args.follow else client_of(args).events(since=args.since or "0", follow=False):
        print(json.dumps(event, ensure_ascii=False) if args.output == "json" else _line(event), flush=True)
    return Exit.OK


def _followed(args: argparse.Namespace) -> Iterator[Event]:
    """Events for ever, without gap and without repetition over a restart of the controller."""
    client = client_of(args)
    since: Any = args.since or client.get("/v1/status").body["revision"]
    away_since_s: float | None = None
    while True:
        try:
            for event in client.events(since=since):
                since, away_since_s = event["id"], None
                yield event
        except HawseError as error:
            now_s = time.monotonic()
            away_since_s = away_since_s or now_s
            if error.kind is not Kind.UNAVAILABLE or now_s - away_since_s > AWAY_MAX_S:
                raise
            if away_since_s == now_s:
                print(f"hawse: {error.message}; waiting for it", file=sys.stderr)
            time.sleep(RETRY_S)  # nobody tells when the controller is back


def _line(event: Event) -> str:
    """For people: names instead of ids, which `-o json` has."""
    data = dict(event["data"])
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(data.pop("time_s", time.time())))
    data.pop("id", None)
    for key in [key for key in data if key.endswith("_name")]:
        data[key.removesuffix("_name")] = data.pop(key)
    fields = "  ".join(f"{key}={_text(value)}" for key, value in data.items() if value not in ("", None))
    return f"{stamp}  {event['id']:<8}  {event['event']:<18}  {fields}"


def _text(value: Any) -> str:
    return printable(",".join(map(str, value)) if isinstance(value, list) else str(value))
