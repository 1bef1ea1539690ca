"""`hawse run`: make a container and start it, in the foreground or not."""

from __future__ import annotations

import argparse
import os
from typing import Any

from sdn.cli.container_options import (
    Networking,
    parse_label,
    parse_networks,
    parse_restart,
    parse_tmpfs,
    parse_volume,
    read_environment,
)
from sdn.cli.container_session import Session
from sdn.cli.detach_keys import detach_keys_argument
from sdn.cli.exits import Exit, UsageError
from sdn.cli.output import print_json
from sdn.cli.quantities import parse_count, parse_cpus, parse_positive_size, parse_seconds
from sdn.cli.runtime_socket import attach, ends_as_container, with_containers_code
from sdn.cli.terminal import window_size

Arguments = argparse.ArgumentParser
NOTES = """\
Options end at IMAGE: what follows is the command. --ip, --ip6, --mac and --alias are for the --network before them, or
for the only one. Without --network there is only the loopback.

In the foreground the container's output is ours, signals go to it (the third Ctrl-C leaves it alone), and with -it it
has our terminal; the detach keys leave it running."""


def run_arguments(parser: Arguments) -> None:
    """Arguments of `run`."""
    parser.usage = "hawse run [options] IMAGE [COMMAND …]"
    ends_as_container(parser, NOTES)
    parser.add_argument("words", metavar="IMAGE", nargs=argparse.REMAINDER, help="its name, and a command with words")
    parser.add_argument("-d", "--detach", action="store_true", help="print its id and leave it to itself")
    parser.add_argument("-i", "--interactive", action="store_true", help="pass our standard input on")
    parser.add_argument("-t", "--tty", action="store_true", help="give it a terminal")
    parser.add_argument("--rm", action="store_true", help="remove it once it has ended")
    parser.add_argument("--name", default="", help="default: one is made up")
    detach_keys_argument(parser)
    _network_arguments(parser)
    _process_arguments(parser)
    _file_arguments(parser)
    _limit_arguments(parser)


def _network_arguments(parser: Arguments) -> None:
    def wish(option: str, field: str, metavar: str, text: str) -> None:
        parser.add_argument(
            option, action=Networking, dest="networking", const=field, default=(), metavar=metavar, help=text
        )

    wish("--network", "network", "NETWORK", "an interface in a network; NETWORK:IFNAME names it; repeatable")
    wish("--ip", "addresses", "ADDRESS", "a wished IPv4 address there")
    wish("--ip6", "addresses", "ADDRESS", "a wished IPv6 address there")
    wish("--mac", "mac", "MAC", "a wished MAC there (default: made from the address)")
    wish("--alias", "aliases", "NAME", "a further name there; repeatable")
    parser.add_argument("--hostname", default="", metavar="NAME", help="default: the beginning of its id")


def _process_arguments(parser: Arguments) -> None:
    def repeatable(*options: str, metavar: str, text: str, **more: Any) -> None:
        parser.add_argument(*options, action="append", default=[], metavar=metavar, help=f"{text}; repeatable", **more)

    repeatable("-e", "--env", metavar="K[=V]", text="a variable; K alone passes ours on")
    repeatable("--env-file", metavar="FILE", text="variables, a line each")
    parser.add_argument("-u", "--user", default="", metavar="USER[:GROUP]", help="name or number")
    parser.add_argument("-w", "--workdir", default="", metavar="DIR", help="where it starts")
    parser.add_argument("--entrypoint", default=None, metavar="PROGRAM", help="instead of the image's; '' is none")
    repeatable("-l", "--label", metavar="K=V", text="a label", type=parse_label)
    parser.add_argument("--init", action="store_true", help="a small init as process 1, which reaps and passes signals")
    parser.add_argument(
        "--restart", type=parse_restart, default="no", metavar="POLICY",
        help="no, on-failure[:N], always, unless-stopped",
    )  # fmt: skip
    repeatable("--cap-add", metavar="CAPABILITY", text="e.g. NET_ADMIN, or ALL")
    repeatable("--cap-drop", metavar="CAPABILITY", text="e.g. CHOWN, or ALL")
    parser.add_argument("--stop-signal", default="", metavar="SIGNAL", help="what 'hawse stop' sends first")
    parser.add_argument(
        "--stop-timeout", type=parse_seconds, default=None, metavar="SECONDS", help="then SIGKILL (default 10)"
    )


def _file_arguments(parser: Arguments) -> None:
    parser.add_argument(
        "-v", "--volume", action="append", default=[], metavar="SRC:DST[:ro]",
        help="a directory or file of the host, or a volume by name; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--tmpfs", action="append", default=[], metavar="DST[:size=64m]", help="memory as a directory; repeatable"
    )
    parser.add_argument("--read-only", action="store_true", help="its root file system cannot be written")


def _limit_arguments(parser: Arguments) -> None:
    parser.add_argument("-m", "--memory", type=parse_positive_size, default=None, metavar="SIZE", help="e.g. 512m")
    parser.add_argument("--cpus", type=parse_cpus, default=None, metavar="N", help="e.g. 1.5")
    parser.add_argument("--pids", type=parse_count, default=None, metavar="N", help="processes and threads at most")
    parser.add_argument(
        "--log-size", type=parse_positive_size, default=None, metavar="SIZE", help="output that is kept (default 64m)"
    )


@with_containers_code
def run(args: argparse.Namespace) -> int:
    """Make a container and start it."""
    spec = spec_of(args, os.environ, os.getcwd())
    if args.detach:
        rows, columns = window_size() if args.tty else (0, 0)
        result, _ = attach(args, {"verb": "RUN", "container": spec, "rows": rows, "columns": columns})
        if args.output == "json":
            print_json({"id": result["id"], "name": result["name"]})
        else:
            print(result["id"])
        return Exit.OK
    session = Session(args, args.tty, args.interactive, args.detach_keys)
    return session.hold({"verb": "RUN", "container": spec})


def spec_of(args: argparse.Namespace, environ: Any, directory: str) -> dict[str, Any]:
    """The specification, without what is as it is by default. Raises: UsageError."""
    image, command = split_words(args.words)
    restart = args.restart
    if args.rm and restart["restart"] != "no":
        raise UsageError("--rm removes what --restart would start again", "leave one of them out")
    labels = dict(args.label)
    mounts = [parse_volume(text, directory) for text in args.volume] + [parse_tmpfs(text) for text in args.tmpfs]
    targets = [os.path.normpath(mount["target"]) for mount in mounts]
    for target in targets:
        if targets.count(target) > 1:
            raise UsageError(f"two mounts go to {target}", "give each a directory of its own")
    entrypoint = None if args.entrypoint is None else [args.entrypoint] if args.entrypoint else []
    wished = {
        "name": args.name, "networks": parse_networks(args.networking), "hostname": args.hostname,
        "env": read_environment(args.env_file, args.env, environ), "user": args.user, "workdir": args.workdir,
        "labels": labels, "mounts": mounts, "read_only": args.read_only, "init": args.init, "tty": args.tty,
        "stdin": args.interactive, "remove": args.rm, "memory_bytes": args.memory, "cpus": args.cpus,
        "pids": args.pids, "cap_add": args.cap_add, "cap_drop": args.cap_drop, "stop_signal": args.stop_signal,
        "log_bytes_max": args.log_size, "command": command,
    }  # fmt: skip
    spec = {"image": image, **{field: value for field, value in wished.items() if value}, **restart}
    if entrypoint is not None:
        spec["entrypoint"] = entrypoint
    if args.stop_timeout is not None:
        spec["stop_timeout_s"] = args.stop_timeout
    return spec


def split_words(words: list[str]) -> tuple[str, list[str]]:
    """The image and the command. Raises: UsageError."""
    words = words[1:] if words[:1] == ["--"] else words
    if not words or not words[0]:
        raise UsageError("no image is named", "hawse run [options] IMAGE [COMMAND …]; 'hawse image ls' lists images")
    return words[0], words[1:]
