"""`hawse network attach` and `detach`: the attach contract, spoken by hand."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from sdn.cli.connection import root_of
from sdn.cli.exits import Exit
from sdn.cli.output import print_json
from sdn.cli.waiting import finish, parse_labels, wait_argument
from sdn.model.errors import invalid, not_found, unavailable
from sdn.service.contract_client import request

REPLY_TIMEOUT_S = 30.0


def _container_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", metavar="NETWORK", help="name, tenant/name or id")
    parser.add_argument(
        "container", metavar="CONTAINER", nargs="?", default=None, help="a lab's container on this host"
    )
    parser.add_argument("--pid", type=int, default=None, metavar="N", help="the namespace of a process")
    parser.add_argument("--netns", default=None, metavar="PATH", help="a namespace by its path")
    parser.add_argument("--ifname", default="", help="the interface inside (default: the next free ethN)")


def attach_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `network attach`."""
    _container_arguments(parser)
    parser.add_argument("--ip", action="append", default=[], metavar="ADDRESS", help="a wished address; repeatable")
    parser.add_argument("--mac", default="", metavar="MAC")
    parser.add_argument("--name", default="", help="the endpoint's name")
    parser.add_argument("--alias", action="append", default=[], metavar="NAME")
    parser.add_argument("--label", action="append", default=[], metavar="K=V")
    wait_argument(parser)


def attach(args: argparse.Namespace) -> int:
    """Give a container an interface in a network."""
    container, fd = _open_container(args)
    body: dict[str, Any] = {
        "verb": "ADD",
        "client": "cli",
        "network": args.network,
        "container": container,
        "ifname": args.ifname,
        "addresses": args.ip,
        "mac": args.mac,
        "name": args.name,
        "aliases": args.alias,
        "labels": parse_labels(args.label),
    }
    try:
        result = request(root_of(args).agent_socket, body, fd, timeout_s=REPLY_TIMEOUT_S)
    finally:
        os.close(fd)
    late = f"\nnot yet acknowledged by: {', '.join(result['late'])}" if result.get("late") else ""
    text = f"{result['ifname']}  {' '.join(result['addresses'])}  {result['mac']}  MTU {result['mtu_bytes']}{late}"
    return finish(args, result["revision"], result, text)


def detach_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `network detach`."""
    _container_arguments(parser)


def detach(args: argparse.Namespace) -> int:
    """Take an interface away; nothing there is fine."""
    container, fd = _open_container(args)
    body = {
        "verb": "DEL",
        "client": "cli",
        "network": args.network,
        "container": container,
        "ifname": args.ifname,
    }
    try:
        request(root_of(args).agent_socket, body, fd, timeout_s=REPLY_TIMEOUT_S)
    finally:
        os.close(fd)
    if args.output == "json":
        print_json({})
    return Exit.OK


def _open_container(args: argparse.Namespace) -> tuple[str, int]:
    """The container's id ("" where the namespace itself names it) and an open descriptor of its namespace."""
    given = [value for value in (args.container, args.pid, args.netns) if value is not None]
    if len(given) != 1:
        raise invalid("name one container", "a lab's CONTAINER, --pid N or --netns PATH")
    if args.container is not None:
        record = _lab_container(root_of(args).run, args.container)
        return str(record["id"]), _open_namespace(str(record["netns"]), f"container {args.container!r}")
    if args.pid is not None:
        return "", _open_namespace(f"/proc/{args.pid}/ns/net", f"process {args.pid}")
    return "", _open_namespace(args.netns, "namespace")


def _lab_container(run: Path, name: str) -> dict[str, Any]:
    from sdn.cli.nearest import nearest_hint

    path = run / "containers.json"
    try:
        containers: dict[str, dict[str, Any]] = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise not_found(
            f"there is no record of containers in {run}",
            "run this on a lab's host (hawse lab exec HOST -- …), or use --pid or --netns",
        ) from None
    except (OSError, ValueError) as error:
        raise unavailable(f"the record of containers {path} cannot be read: {error}", "take the lab down") from None
    if name not in containers:
        hint = nearest_hint(name, containers) or f"there are: {', '.join(sorted(containers)) or 'none'}"
        raise not_found(f"there is no container {name!r} on this host", hint)
    return containers[name]


def _open_namespace(path: str, what: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise not_found(f"the {what} has no namespace at {path}", "is it still running?") from None
    except OSError as error:
        raise invalid(f"the namespace {path} of the {what} cannot be opened: {error.strerror}", "run as root") from None
