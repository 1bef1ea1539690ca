"""`hawse network attach` and `detach`: the attach contract, spoken by hand."""

from __future__ import annotations

import argparse
import os
from typing import Any

from sdn.cli.connection import root_of
from sdn.cli.exits import Exit, UsageError
from sdn.cli.output import print_json
from sdn.cli.waiting import finish, parse_labels, wait_argument
from sdn.model.errors import conflict, denied, invalid, not_found
from sdn.service.contract_client import request
from sdn.service.roots import Root

REPLY_TIMEOUT_S = 30.0
ASK_TIMEOUT_S = 5.0


def _container_arguments(parser: argparse.ArgumentParser, ifname_help: str) -> None:
    parser.add_argument("network", metavar="NETWORK", help="name, tenant/name or id")
    parser.add_argument(
        "container", metavar="CONTAINER", nargs="?", default=None, help="a container of this host's runtime"
    )
    parser.add_argument("--pid", type=_pid, default=None, metavar="N", help="the namespace of a process")
    parser.add_argument("--netns", default=None, metavar="PATH", help="a namespace by its path")
    parser.add_argument("--ifname", default="", metavar="NAME", help=ifname_help)


def attach_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `network attach`."""
    _container_arguments(parser, "the interface inside (default: the next free ethN)")
    parser.add_argument(
        "--ip", action="append", default=[], metavar="ADDRESS", help="a wished address; repeatable, one per subnet"
    )
    parser.add_argument("--mac", default="", metavar="MAC", help="a wished MAC (default: made from the address)")
    parser.add_argument("--name", default="", help="the endpoint's name, unique in its tenant")
    parser.add_argument("--alias", action="append", default=[], metavar="NAME", help="a further name; repeatable")
    parser.add_argument("--label", action="append", default=[], metavar="K=V", help="repeatable")
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
    _container_arguments(parser, "the interface inside (default: the only one in the network)")


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
        result = request(root_of(args).agent_socket, body, fd, timeout_s=REPLY_TIMEOUT_S)
    finally:
        os.close(fd)
    if args.output == "json":
        print_json(result)
    elif result.get("ifname"):
        print("  ".join([result["ifname"], *result.get("addresses", []), "detached"]))
    else:
        what = f"interface {args.ifname}" if args.ifname else "interface"
        print(f"nothing to detach: the container has no {what} in {args.network}")
    return Exit.OK


def _open_container(args: argparse.Namespace) -> tuple[str, int]:
    """The container's id ("" where the namespace itself names it) and an open descriptor of its namespace."""
    given = [value for value in (args.container, args.pid, args.netns) if value is not None]
    if len(given) != 1:
        what = "no container is named" if not given else "more than one container is named"
        raise UsageError(what, "name one: a CONTAINER, --pid N or --netns PATH")
    if args.container is not None:
        info = inspect(root_of(args), args.container)
        return str(info["id"]), _open_namespace(namespace_of(info), f"container {info['name']}")
    if args.pid is not None:
        return "", _open_namespace(f"/proc/{args.pid}/ns/net", f"process {args.pid}")
    return "", _open_namespace(args.netns, "--netns")


def containers(args: argparse.Namespace) -> list[str]:
    """The names of this host's containers that run. Raises: HawseError."""
    found = request(root_of(args).runtime_socket, {"verb": "PS"}, timeout_s=ASK_TIMEOUT_S)
    return [str(info["name"]) for info in found["items"]]


def inspect(root: Root, reference: str) -> dict[str, Any]:
    """A container of this host's runtime (`ContainerInfo`), by name or id. Raises: NOT_FOUND, UNAVAILABLE, DENIED."""
    return request(root.runtime_socket, {"verb": "INSPECT", "container": reference}, timeout_s=ASK_TIMEOUT_S)


def namespace_of(info: dict[str, Any]) -> str:
    """Where its network namespace is now. Raises: CONFLICT where it does not run."""
    if not info.get("pid"):
        raise conflict(
            f"container {info['name']} has no network namespace: it is {info['state']}",
            f"start it: hawse start {info['name']}",
            container=info["name"],
            state=info["state"],
        )
    return f"/proc/{info['pid']}/ns/net"


def _open_namespace(path: str, whose: str) -> int:
    """An open descriptor. Raises: NOT_FOUND, DENIED, INVALID."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError, ValueError):  # ValueError: a NUL byte in it
        raise not_found(f"there is no network namespace {path!r} ({whose})", "is its process still running?") from None
    except PermissionError as error:
        raise denied(
            f"the network namespace {path!r} ({whose}) cannot be opened: {error.strerror}", "run as root"
        ) from None
    except OSError as error:
        raise invalid(f"{path!r} ({whose}) cannot be opened: {error.strerror}", "name a namespace's file") from None


def _pid(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 0 < int(text[:20]) < 1 << 22:
        raise argparse.ArgumentTypeError(f"{text!r} is not the id of a process")
    return int(text)
