"""`hawse host ls|inspect|drain|forget`."""

from __future__ import annotations

import argparse
import time
from typing import Any

from sdn.cli.connection import client_of, get
from sdn.cli.exits import Exit, UsageError
from sdn.cli.network import remove_each
from sdn.cli.output import print_json, print_properties, print_table
from sdn.cli.quantities import parse_seconds
from sdn.cli.waiting import wait_argument
from sdn.client.client import Client, resource

WAIT_DEFAULT_S = 300.0
LOOK_S = 0.5
SHOWN = 5
"""Of what is attached still, by name."""


def ls_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `host ls`."""
    parser.add_argument("--label", action="append", default=[], metavar="K=V", help="only those with it")


def ls(args: argparse.Namespace) -> int:
    """List hosts and how far they are."""
    hosts = sorted(client_of(args).items("/v1/hosts", label=args.label), key=lambda host: str(host["name"]))
    if args.output == "json":
        print_json(hosts)
        return Exit.OK
    rows = [
        (
            h["name"],
            _state(h),
            [vtep for vtep in (h.get("vtep4"), h.get("vtep6")) if vtep],
            h.get("mtu_bytes"),
            h.get("datapath", "bridge"),
            h.get("applied_revision"),
            len(h.get("failures") or {}),
        )
        for h in hosts
    ]
    print_table(("HOST", "STATE", "VTEP", "MTU", "DATAPATH", "APPLIED", "FAILURES"), rows)
    return Exit.OK


def _state(host: dict[str, Any]) -> str:
    if not host.get("drained_by"):
        return "connected" if host.get("connected") else "away"
    return "draining" if host.get("connected") else "draining, away"


def inspect_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `host inspect`."""
    parser.add_argument("host", metavar="HOST", help="name or id")


def inspect(args: argparse.Namespace) -> int:
    """Show all of a host."""
    host = get(args, "hosts", args.host)
    if args.output == "json":
        print_json(host)
    else:
        print_properties(host)
    return Exit.OK


def drain_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `host drain`."""
    parser.add_argument("host", metavar="HOST", help="name or id")
    parser.add_argument("--undo", action="store_true", help="let it take attachments again")
    parser.add_argument(
        "--wait",
        metavar="TIME",
        nargs="?",
        const=WAIT_DEFAULT_S,
        default=None,
        type=parse_seconds,
        help="until nothing is attached on it any more (default 5m; write --wait=TIME)",
    )


def drain(args: argparse.Namespace) -> int:
    """Have a host take no further attachments; what is there goes on until it is stopped."""
    if args.undo and args.wait is not None:
        raise UsageError("--undo and --wait do not go together", "leave one of them out")
    client = client_of(args)
    path = f"{resource('hosts', args.host)}/drain"
    host = (client.delete(path) if args.undo else client.put(path)).body
    left = _attached(client, host) if args.wait is None else _wait_empty(client, host, args.wait)
    if args.output == "json":
        print_json(host if args.wait is None else {"result": host, "endpoints": left})
    elif args.undo:
        print(f"{host['name']} takes attachments again")
    else:
        rest = f": {', '.join(left[:SHOWN])}{', …' if len(left) > SHOWN else ''}" if left else ""
        print(f"{host['name']} takes no further attachments; {len(left) or 'nothing'} left on it{rest}")
    return Exit.TIMED_OUT if left and args.wait is not None else Exit.OK


def _attached(client: Client, host: dict[str, Any]) -> list[str]:
    return [one["name"] or one["container"] for one in client.items("/v1/endpoints", host=host["id"])]


def _wait_empty(client: Client, host: dict[str, Any], timeout_s: float) -> list[str]:
    """What is left when the time is up. Containers are stopped by people or by programs like this: a look now and then
    is cheaper than to follow all events of the fabric."""
    deadline_s = time.monotonic() + timeout_s
    while (left := _attached(client, host)) and (rest_s := deadline_s - time.monotonic()) > 0:
        time.sleep(min(LOOK_S, rest_s))
    return left


def forget_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `host forget`."""
    parser.add_argument("hosts", metavar="HOST", nargs="+", help="name or id")
    parser.add_argument("--force", action="store_true", help="even while it is connected")
    wait_argument(parser)


def forget(args: argparse.Namespace) -> int:
    """Drop hosts for good; their endpoints are released."""
    return remove_each(args, "hosts", args.hosts, force=True if args.force else None)
