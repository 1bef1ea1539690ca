"""`hawse ps`, `inspect`, `start`, `stop`, `restart`, `kill`, `rm`, `wait`, `pause` and `unpause`."""

from __future__ import annotations

import argparse
import shlex
import time
from collections.abc import Callable, Iterable
from typing import Any

from sdn.cli.detach_keys import detach_keys_argument
from sdn.cli.exits import Exit, UsageError, exit_of
from sdn.cli.output import complain, print_json, print_properties, print_table
from sdn.cli.quantities import parse_seconds, show_age, show_time
from sdn.cli.runtime_socket import CODES, REFUSED, ask, ask_patiently, with_containers_code
from sdn.model.errors import HawseError, Kind

Arguments = argparse.ArgumentParser
COMMAND_SHOWN = 30
PARALLEL_MAX = 64
"""Containers that are stopped or waited for side by side; the daemon takes 512 connections."""


def _several(parser: Arguments) -> None:
    parser.add_argument("containers", metavar="CONTAINER", nargs="+", help="name, id or the beginning of an id")


# --- looking ---


def ps_arguments(parser: Arguments) -> None:
    """Arguments of `ps`."""
    parser.add_argument("-a", "--all", action="store_true", help="those that do not run as well")
    parser.add_argument("-l", "--label", action="append", default=[], metavar="K[=V]", help="only those with it")
    parser.add_argument("-q", "--quiet", action="store_true", help="ids alone")


def ps(args: argparse.Namespace) -> int:
    """List containers."""
    items = ask(args, "PS", all=args.all, labels=args.label)["items"]
    if args.output == "json":
        print_json([item["id"] for item in items] if args.quiet else items)
    elif args.quiet:
        print("".join(f"{item['id']}\n" for item in items), end="")
    else:
        now_s = time.time()
        header = ("CONTAINER", "NAME", "IMAGE", "COMMAND", "STATE", "CREATED", "ADDRESSES")
        print_table(header, [_row(item, now_s) for item in items])
    return Exit.OK


def _row(item: dict[str, Any], now_s: float) -> tuple[Any, ...]:
    command = shlex.join(item.get("command", ()))
    if len(command) > COMMAND_SHOWN:
        command = command[: COMMAND_SHOWN - 1] + "…"
    addresses = [address for interface in item.get("interfaces", ()) for address in interface.get("addresses", ())]
    created = f"{show_age(now_s - item['created_s'])} ago" if item.get("created_s") else None
    return (item["id"], item["name"], item["spec"]["image"], command, state_text(item, now_s), created, addresses)


def state_text(item: dict[str, Any], now_s: float) -> str:
    """`running 3 minutes`, `exited (137) 2 hours ago, out of memory`."""
    state = str(item["state"])
    if state in ("running", "paused") and item.get("started_s"):
        return f"{state} {show_age(now_s - item['started_s'])}"
    if state in ("exited", "dead") and item.get("finished_s"):
        memory = ", out of memory" if item.get("oom_killed") else ""
        return f"{state} ({item.get('exit_code', 0)}) {show_age(now_s - item['finished_s'])} ago{memory}"
    return state


def inspect_arguments(parser: Arguments) -> None:
    """Arguments of `inspect`."""
    _several(parser)


def inspect(args: argparse.Namespace) -> int:
    """Show all of containers; as JSON one is an object and several are a list."""
    found: list[dict[str, Any]] = []

    def show(name: str) -> None:
        item = ask(args, "INSPECT", container=name)
        if args.output != "json":
            if found:
                print()
            print_properties(_readable(item))
        found.append(item)

    code = _each(args.containers, show)
    if args.output == "json" and (found or len(args.containers) > 1):
        print_json(found[0] if len(args.containers) == 1 else found)
    return code


def _readable(item: dict[str, Any]) -> dict[str, Any]:
    """Times as people read them; what was wished follows what is."""
    shown = {key: value for key, value in item.items() if key != "spec"}
    for key in ("created", "started", "finished"):
        if f"{key}_s" in shown:
            shown[f"{key}_s"] = show_time(shown[f"{key}_s"])
    if "command" in shown:
        shown["command"] = shlex.join(shown["command"])
    wished = {key: value for key, value in item["spec"].items() if key not in ("name", "command")}
    return {key.removesuffix("_s"): value for key, value in shown.items()} | wished


# --- acting ---


def start_arguments(parser: Arguments) -> None:
    """Arguments of `start`."""
    _several(parser)
    parser.add_argument("-a", "--attach", action="store_true", help="hold it in the foreground, as 'hawse run' does")
    parser.add_argument("-i", "--interactive", action="store_true", help="and pass our standard input on")
    detach_keys_argument(parser)
    note = "One that runs already is left alone; with -a it is attached to from now on.\nWith -a: " + CODES
    parser.epilog = f"{note}\n\n{parser.epilog or ''}"


def start(args: argparse.Namespace) -> int:
    """Start containers that are there."""
    if not args.attach and not args.interactive:
        return _tell_each(args, "started", lambda name: ask_patiently(args, "START", container=name))
    if len(args.containers) != 1:
        raise UsageError("only one container can have our terminal", "start one, or leave -a and -i out")
    return _start_attached(args)


@with_containers_code
def _start_attached(args: argparse.Namespace) -> int:
    from sdn.cli.container_session import Session  # the others need none

    name = args.containers[0]
    spec = ask(args, "INSPECT", container=name)["spec"]
    if args.interactive and not spec.get("stdin"):
        raise UsageError(f"container {name} was made without -i: it has no standard input", "leave -i out")
    session = Session(args, bool(spec.get("tty")), args.interactive, args.detach_keys)
    return session.hold({"verb": "START", "container": name}, time.time_ns())


def stop_arguments(parser: Arguments) -> None:
    """Arguments of `stop`."""
    _several(parser)
    parser.add_argument(
        "-t", "--time", type=parse_seconds, default=None, metavar="SECONDS", help="then SIGKILL (default: its own, 10)"
    )


def stop(args: argparse.Namespace) -> int:
    """Their stop signal, then SIGKILL; ends when they have."""
    return _tell_each(args, "stopped", _timed(args, "STOP"), parallel=True)


def restart_arguments(parser: Arguments) -> None:
    """Arguments of `restart`."""
    stop_arguments(parser)


def restart(args: argparse.Namespace) -> int:
    """Stop containers, then start them."""
    return _tell_each(args, "restarted", _timed(args, "RESTART"), parallel=True)


def _timed(args: argparse.Namespace, verb: str) -> Callable[[str], Any]:
    bound = {} if args.time is None else {"timeout_s": args.time}
    return lambda name: ask_patiently(args, verb, container=name, **bound)


def kill_arguments(parser: Arguments) -> None:
    """Arguments of `kill`."""
    _several(parser)
    parser.add_argument("-s", "--signal", default="SIGKILL", metavar="SIGNAL", help="name or number (default SIGKILL)")


def kill(args: argparse.Namespace) -> int:
    """Send a signal to their first process."""
    return _tell_each(args, "signalled", lambda name: ask(args, "KILL", container=name, signal=args.signal))


def pause_arguments(parser: Arguments) -> None:
    """Arguments of `pause`."""
    _several(parser)


def pause(args: argparse.Namespace) -> int:
    """Freeze containers."""
    return _tell_each(args, "paused", lambda name: ask(args, "PAUSE", container=name))


def unpause_arguments(parser: Arguments) -> None:
    """Arguments of `unpause`."""
    _several(parser)


def unpause(args: argparse.Namespace) -> int:
    """Let them go on."""
    return _tell_each(args, "unpaused", lambda name: ask(args, "UNPAUSE", container=name))


def rm_arguments(parser: Arguments) -> None:
    """Arguments of `rm`."""
    _several(parser)
    parser.add_argument("-f", "--force", action="store_true", help="kill those that run")


def rm(args: argparse.Namespace) -> int:
    """Remove containers with what they wrote; what is absent is removed already."""
    removed: list[str] = []
    absent: list[str] = []

    def remove(name: str) -> None:
        told = name
        try:
            ask_patiently(args, "RM", container=name, force=args.force)
            removed.append(name)
        except HawseError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise
            absent.append(name)
            told = f"{error.message}: nothing to remove" + (f"; {error.hint}" if error.hint else "")
        if args.output != "json":
            print(told)

    code = _each(args.containers, remove)
    if args.output == "json":
        print_json({"removed": removed, "absent": absent})
    return code


def wait_arguments(parser: Arguments) -> None:
    """Arguments of `wait`."""
    _several(parser)
    note = "Prints how each ended, and ends with the first code that is not 0; 125 where it cannot be told."
    parser.epilog = f"{note}\n\n{parser.epilog or ''}"


@with_containers_code
def wait(args: argparse.Namespace) -> int:
    """Until they have ended; print their exit codes."""
    code = 0
    told: list[dict[str, Any]] = []
    ends = _side_by_side(args.containers, lambda name: ask_patiently(args, "WAIT", container=name))
    for name, end in zip(args.containers, ends, strict=True):
        if isinstance(end, HawseError):
            complain(end.message, end.hint)
            code = code or REFUSED
            continue
        ended = int(end["code"])
        code = code or (ended if 0 <= ended < 256 else REFUSED)
        told.append({"container": name, **end})
        if args.output != "json":
            print(ended)
    if args.output == "json":
        print_json(told)
    return code


def _tell_each(args: argparse.Namespace, done: str, action: Callable[[str], Any], parallel: bool = False) -> int:
    """Do it to each, print the names of those that it was done to; `done` is their key in JSON."""
    names: list[str] = []
    results = iter(_side_by_side(args.containers, action)) if parallel else None

    def tell(name: str) -> None:
        if results is None:
            action(name)
        elif isinstance(result := next(results), HawseError):
            raise result
        names.append(name)
        if args.output != "json":
            print(name, flush=True)

    code = _each(args.containers, tell)
    if args.output == "json":
        print_json({done: names})
    return code


def _each(names: Iterable[str], action: Callable[[str], None]) -> int:
    """One after the other; go on after an error, tell each, end with the first one's code."""
    code: int = Exit.OK
    for name in names:
        try:
            action(name)
        except HawseError as error:
            complain(error.message, error.hint)
            code = code or exit_of(error)
    return code


def _side_by_side(names: list[str], action: Callable[[str], dict[str, Any]]) -> list[dict[str, Any] | HawseError]:
    """What each gives, in their order: ten that take ten seconds to stop take ten seconds."""
    results: list[dict[str, Any] | HawseError] = [HawseError(Kind.INTERNAL, "not asked")] * len(names)

    def act(place: int) -> None:
        try:
            results[place] = action(names[place])
        except HawseError as error:
            results[place] = error

    if len(names) == 1:
        act(0)
        return results
    import threading  # only for several

    for begin in range(0, len(names), PARALLEL_MAX):
        places = range(begin, min(begin + PARALLEL_MAX, len(names)))
        threads = [threading.Thread(target=act, args=(place,), daemon=True) for place in places]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return results
