"""`hawse events --containers`: what happens to this host's containers."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from typing import Any

from sdn.cli.exits import Exit, UsageError
from sdn.cli.output import printable
from sdn.cli.quantities import parse_since
from sdn.cli.runtime_socket import Patience, socket_of
from sdn.model.errors import HawseError
from sdn.service.contract_client import Connection


def container_events(args: argparse.Namespace) -> int:
    """Print events, a line each."""
    for event in _events(args, _since(args)):
        print(json.dumps(event, ensure_ascii=False) if args.output == "json" else line(event), flush=True)
    return Exit.OK


def _since(args: argparse.Namespace) -> float | None:
    """None: from now on. `0` is all that is kept, as it is of the controller's events."""
    if args.since is None:
        return None if args.follow else 0.0
    try:
        return 0.0 if args.since == "0" else parse_since(args.since)
    except argparse.ArgumentTypeError as error:
        raise UsageError(
            f"--since: {error}", "of containers' events, --since is a time; 0 is all that is kept"
        ) from None


def _events(args: argparse.Namespace, since_s: float | None) -> Iterator[dict[str, Any]]:
    """Without gap and without repetition over a restart of the daemon, as far as it keeps them."""
    patience: Patience | None = None  # of a daemon that was there
    seen: list[dict[str, Any]] = []  # of the moment `since_s`, which is asked for again
    if since_s is None and args.follow:
        since_s = time.time()
    while True:
        try:
            with Connection(socket_of(args)) as connection:
                patience = patience or Patience()
                message = {"verb": "EVENTS", "since_s": since_s, "follow": args.follow}
                for event in connection.converse(message):
                    patience.regain()
                    if event in seen:
                        continue
                    seen = [*seen, event] if event["time_s"] == since_s else [event]
                    since_s = event["time_s"]
                    yield event
            return
        except HawseError as error:
            if not args.follow or patience is None:
                raise
            patience.lose(error)


def line(event: dict[str, Any]) -> str:
    """For people."""
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event["time_s"]))
    facts = "  ".join(f"{key}={printable(str(value))}" for key, value in event.get("facts", {}).items())
    name = printable(str(event.get("name") or event["id"]))
    return f"{stamp}  {event['what']:<12}  {name:<24}  {facts}".rstrip()
