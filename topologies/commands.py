"""`hawse lab …`. Progress goes to stderr, results to stdout; the options are in `arguments`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import Any

from sdn.cli.exits import Exit
from sdn.cli.output import print_json, print_table
from sdn.model.errors import HawseError, denied, invalid, not_found
from topologies.record import CONTROLLER, UNDERLAY, Directory, Record, find_lab, labs

DEMO = "two-hosts"
SHELL = "/bin/sh"


class _Progress:
    """Lines with the time since the start."""

    def __init__(self, quiet: bool = False) -> None:
        self._began = time.monotonic()
        self._quiet = quiet

    def __call__(self, text: str) -> None:
        if not self._quiet:
            print(f"{self.seconds:6.2f} s  {text}", file=sys.stderr, flush=True)

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._began


def _need_root() -> None:
    if os.geteuid() != 0:
        raise denied("a lab needs root: it makes network namespaces", "run it with sudo")


def up(args: argparse.Namespace) -> int:
    """Bring a topology to life."""
    _need_root()
    say = _Progress(args.quiet)
    directory = _bring_up(args.file, args.name, args.datapath, say)
    say(f"lab {directory.name} is up")
    if args.output == "json":
        print_json({"name": directory.name, "id": directory.id, "directory": str(directory.path)})
    elif not args.quiet:
        print(
            f"check it:  hawse lab check {directory.name}\nlook:      hawse lab ps {directory.name}\n"
            f"enter:     hawse lab exec --lab {directory.name} HOST -- hawse network ls\n"
            f"remove it: hawse lab down {directory.name}",
            file=sys.stderr,
        )
    return Exit.OK


def _bring_up(file: str, name: str | None, datapath: str | None, say: _Progress) -> Directory:
    import gc

    from topologies.births import Nursery

    gc.disable()  # half of the way up is importing, among which there is no garbage
    with Nursery() as nursery:  # before anything else is imported here: it has more to import
        import dataclasses

        from sdn.model.ids import parse_name
        from topologies.lab import bring_up
        from topologies.schema import load_topology
        from topologies.values import Datapath

        topology = load_topology(file)
        if name is not None:
            topology = dataclasses.replace(topology, name=parse_name(name, "lab"))
        if datapath is not None:
            topology = topology.on(Datapath(datapath))
        with open(file, "rb") as opened:
            text = opened.read()
        return bring_up(topology, file, text, say, nursery)


def check(args: argparse.Namespace) -> int:
    """Prove who reaches whom."""
    _need_root()
    return _check(find_lab(args.name), args.output)


def _check(directory: Directory, output: str) -> int:
    from topologies.check import run_check
    from topologies.matrix import as_json, print_report, summary

    report = run_check(directory)
    if output == "json":
        print_json(as_json(report))
    else:
        from rich.console import Console

        console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
        print_report(report, console)
        console.print(f"\n{summary(report)}")
    return Exit.EXPECTATION if report.mismatches else Exit.OK


def exec(args: argparse.Namespace) -> int:  # noqa: A001 - named after its command
    """Run a command in a container, or become one in a host or the underlay; then it returns only where that fails."""
    _need_root()
    directory = find_lab(args.lab)
    record = directory.read()
    place = UNDERLAY if args.place == CONTROLLER else args.place
    known = [UNDERLAY, *(record.hosts if record else ()), *(record.containers if record else ())]
    if place not in known:
        from sdn.cli.nearest import nearest_hint

        hint = nearest_hint(place, known) or f"there are: {', '.join(known)}"
        raise not_found(f"there is no host or container {place!r} in the lab {directory.name}", hint)
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    host = record.containers.get(place) if record else None
    return _enter(directory, record, place, command) if host is None else _exec_inside(directory, host, place, command)


def _exec_inside(directory: Directory, host: str, container: str, command: list[str]) -> int:
    """As `hawse exec` does it; with a terminal where there is one."""
    from sdn.cli.container_exec import execute

    wish = argparse.Namespace(
        root=str(directory.root(host).run), controller=None, output="table", words=[container, *(command or [SHELL])],
        interactive=True, tty=sys.stdin.isatty() and sys.stdout.isatty(), detach=False, env=[], env_file=[],
        user="", workdir="",
    )  # fmt: skip
    return execute(wish)


def _enter(directory: Directory, record: Record | None, place: str, command: list[str]) -> int:
    from pathlib import Path

    from plugin.kernel import namespace
    from topologies.vswitch import environment as vswitch_environment

    command = command or [os.environ.get("SHELL", SHELL)]
    environment = dict(os.environ)
    for variable in ("HAWSE_ROOT", "HAWSE_CONTROLLER"):
        environment.pop(variable, None)
    environment["HAWSE_ROOT"] = str(directory.root(CONTROLLER if place == UNDERLAY else place).run)
    if record is not None and place in record.datapaths:
        environment.update(vswitch_environment(directory.vswitch(place)))  # ovs-vsctl and others find the host's own
    # `hawse` itself is to be found inside, wherever it is installed.
    environment["PATH"] = f"{environment.get('PATH', '/usr/bin:/bin')}:{Path(sys.executable).parent}"
    fd = namespace.open_pinned(directory.namespace(place))
    if fd is None:
        raise not_found(f"the namespace of {place} is gone", f"look at it: hawse lab ps {directory.name}")
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        # The thread that is inside becomes the command; execve(2) ends all the others.
        namespace.run_in(fd, lambda: os.execvpe(command[0], command, environment))  # noqa: S606 - the user's command
    except OSError as error:
        raise not_found(f"{command[0]!r} cannot be run: {error.strerror}", "name an installed command") from None
    raise AssertionError("execve returned")


def ls(args: argparse.Namespace) -> int:
    """List labs."""
    _need_root()  # whose records would read as broken
    items = [_lab_item(directory) for directory in labs()]
    if args.output == "json":
        print_json(items)
    else:
        rows = [(i["name"], i["id"], i["phase"], i["hosts"], i["containers"], i["age"], i["file"]) for i in items]
        print_table(("LAB", "ID", "PHASE", "HOSTS", "CONTAINERS", "AGE", "FILE"), rows)
    return Exit.OK


def _lab_item(directory: Directory) -> dict[str, Any]:
    record = directory.read()
    if record is None:
        return {
            "name": directory.id, "id": directory.id, "phase": "broken", "hosts": None, "containers": None,
            "age": None, "file": None,
        }  # fmt: skip
    return {
        "name": record.name,
        "id": directory.id,
        "phase": _phase(record),
        "hosts": len(record.hosts),
        "containers": len(record.containers),
        "age": _duration(time.time() - record.since_s),
        "file": record.file,
    }


def _phase(record: Record) -> str:
    """`broken` where whoever was building it is gone."""
    from topologies.processes import is_alive

    if record.phase == "building" and not (record.builder and is_alive(record.builder)):
        return "broken"
    return record.phase


def ps(args: argparse.Namespace) -> int:
    """Show daemons and containers of a lab."""
    from topologies.status import lab_status

    status = lab_status(find_lab(args.name))
    if args.output == "json":
        print_json(status)
        return Exit.OK
    rows = [
        (d["name"], d["daemon"], d["pid"], d["state"], f"{d['resident_bytes'] / 1e6:.0f} MB", _duration(d["uptime_s"]))
        for d in status["daemons"]
    ]
    print_table(("WHERE", "DAEMON", "PID", "STATE", "MEMORY", "UPTIME"), rows)
    print()
    containers = [
        (c["name"], c["host"], c["image"], c["pid"], _state(c), i.get("network"), i.get("ifname"), i.get("addresses"))
        for c in status["containers"]
        for i in (c["interfaces"] or [{}])
    ]
    print_table(("CONTAINER", "HOST", "IMAGE", "PID", "STATE", "NETWORK", "INTERFACE", "ADDRESSES"), containers)
    for problem in status["problems"]:
        print(f"hawse: {problem}", file=sys.stderr)
    return Exit.OK


def _state(container: dict[str, Any]) -> str:
    code = container["exit_code"]
    return str(container["state"]) if code is None else f"{container['state']} ({code})"


def _duration(seconds: float) -> str:
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{seconds:.1f} s" if whole < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def down(args: argparse.Namespace) -> int:
    """Remove one lab, or all."""
    _need_root()
    from topologies.cleanup import destroy

    if args.all and args.name:
        raise invalid("--all and a name are two different wishes", "leave out one")
    chosen = labs() if args.all else [find_lab(args.name)]
    problems: list[HawseError] = []
    for directory in chosen:
        name = directory.name
        try:
            destroy(directory)
        except HawseError as error:
            problems.append(error)
        else:
            print(f"lab {name} is gone", file=sys.stderr)
    if problems:
        for problem in problems[:-1]:
            print(f"hawse: {problem}", file=sys.stderr)
        raise problems[-1]
    if args.output == "json":
        print_json([directory.id for directory in chosen])
    return Exit.OK


def demo(args: argparse.Namespace) -> int:
    """Up, check, down, and a table that says what was proved."""
    _need_root()
    from topologies.cleanup import destroy
    from topologies.lab import shipped

    say = _Progress()
    name = f"demo-{os.getpid()}"
    directory = _bring_up(str(shipped(DEMO)), name, args.datapath, say)
    say("two hosts with six containers, two tenants with the same subnet and the same addresses; now real packets")
    try:
        code = _check(directory, args.output)
    finally:
        if args.keep:
            say(f"kept: hawse lab ps {name}; remove it with hawse lab down {name}")
        else:
            destroy(directory)
            say("gone again, without a trace")
    return code
