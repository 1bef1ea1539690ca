"""`hawse top` and `hawse stats`: what containers do and use."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

from sdn.cli.exits import Exit
from sdn.cli.output import print_json, print_table
from sdn.cli.quantities import show_size
from sdn.cli.runtime_socket import ask

PERIOD_S = 1.0
CLEAR = "\x1b[H\x1b[J"
HEADER = ("CONTAINER", "CPU", "MEMORY", "LIMIT", "PIDS", "RECEIVED", "SENT", "READ", "WRITTEN")
Sample = tuple[float, dict[str, dict[str, Any]]]
"""When, and what each container used, by id."""


def top_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `top`."""
    parser.add_argument("container", metavar="CONTAINER", help="name or id")


def top(args: argparse.Namespace) -> int:
    """Show a container's processes."""
    items = ask(args, "TOP", container=args.container)["items"]
    if args.output == "json":
        print_json(items)
        return Exit.OK
    rows = [
        (
            item["pid"],
            item.get("ppid"),
            item.get("user"),
            f"{item.get('cpu_s', 0):.2f}s",
            show_size(item.get("resident_bytes", 0)),
            item.get("command"),
        )
        for item in items
    ]
    print_table(("PID", "PPID", "USER", "CPU", "MEMORY", "COMMAND"), rows)
    return Exit.OK


def stats_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `stats`."""
    parser.add_argument("containers", metavar="CONTAINER", nargs="*", help="name or id (default: all that run)")
    parser.add_argument("--no-stream", dest="stream", action="store_false", help="once, after a second")
    note = "CPU is of one processor: two that are busy are 200%. The rest of the amounts is since its start."
    parser.epilog = f"{note}\n\n{parser.epilog or ''}"


def stats(args: argparse.Namespace) -> int:
    """Show what containers use, each second anew."""
    before = _sample(args)
    while True:
        time.sleep(PERIOD_S)  # what is measured
        now = _sample(args)
        items = used(before, now)
        if args.output == "json":
            print(json.dumps(items, ensure_ascii=False), flush=True) if args.stream else print_json(items)
        else:
            if args.stream and sys.stdout.isatty():
                print(CLEAR, end="")
            print_table(HEADER, [_row(item) for item in items])
            sys.stdout.flush()
        if not args.stream:
            return Exit.OK
        before = now


def _sample(args: argparse.Namespace) -> Sample:
    items = ask(args, "STATS", containers=args.containers)["items"]
    return time.monotonic(), {item["id"]: item for item in items}


def used(before: Sample, now: Sample) -> list[dict[str, Any]]:
    """What each uses, with `cpu_percent` over the time between; None for one that was not there before."""
    elapsed_ns = max(now[0] - before[0], 1e-3) * 1e9
    items: list[dict[str, Any]] = []
    for identity, item in now[1].items():
        earlier = before[1].get(identity)
        spent_ns = item.get("cpu_ns", 0) - (earlier.get("cpu_ns", 0) if earlier else 0)
        known = earlier is not None and spent_ns >= 0  # less: it was started anew meanwhile
        items.append({**item, "cpu_percent": round(100 * spent_ns / elapsed_ns, 2) if known else None})
    return items


def _row(item: dict[str, Any]) -> tuple[Any, ...]:
    cpu = item["cpu_percent"]
    limit = item.get("memory_max_bytes", 0)
    pids_max = item.get("pids_max", 0)
    amounts = (item.get(f"{key}_bytes", 0) for key in ("received", "sent", "read", "written"))
    return (
        item["name"],
        None if cpu is None else f"{cpu:.1f}%",
        show_size(item.get("memory_bytes", 0)),
        show_size(limit) if limit else None,
        f"{item.get('pids', 0)}/{pids_max}" if pids_max else item.get("pids", 0),
        *map(show_size, amounts),
    )
