"""What is executed in a container: a specification and an image's configuration, merged as Docker merges them. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from runtime.daemon.signals import parse_signal
from runtime.plan import ProcessPlan, TerminalSize
from sdn.model.container import ContainerSpec
from sdn.model.errors import invalid

ARGUMENT_SHOWN = 30
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
RLIMITS = {"RLIMIT_NOFILE": [1024, 524288]}
"""systemd's own: programs that close every possible descriptor stay quick, and who needs many raises the soft limit."""
ARGUMENTS_BYTES_MAX = 1 << 20
"""Of command and environment together; the kernel takes a quarter of the stack's limit, mostly 2 MiB."""
ARGUMENT_BYTES_MAX = (1 << 17) - 1
"""Of one of them: MAX_ARG_STRLEN of execve(2), without the zero at its end."""


@dataclasses.dataclass(frozen=True, slots=True)
class Confinement:
    """What is the same for every process of a container: capabilities by number, the compiled filter's file."""

    capabilities: tuple[int, ...]
    seccomp: str


@dataclasses.dataclass(frozen=True, slots=True)
class Terminal:
    """Characters; 0: not known."""

    rows: int = 0
    columns: int = 0


UNSIZED = Terminal()


def command_of(spec: ContainerSpec, config: Mapping[str, Any]) -> tuple[str, ...]:
    """What is run: an entrypoint that is given takes the image's command away with the image's entrypoint.

    Raises: INVALID where nothing is left to run.
    """
    if spec.entrypoint is None:
        entrypoint = tuple(config.get("Entrypoint") or ())
        command = spec.command or tuple(config.get("Cmd") or ())
    else:
        entrypoint, command = spec.entrypoint, spec.command
    if not (entrypoint + command):
        raise invalid(
            f"there is no command: neither was one given, nor does image {spec.image} have one",
            f"hawse run {spec.image} COMMAND",
        )
    return entrypoint + command


def environment_of(hostname: str, tty: bool, image: Iterable[str], more: Iterable[str]) -> list[str]:
    """Defaults, the image's, then what is given; the last of a name counts. HOME is its user's, known only inside.

    Raises: INVALID (no `=`).
    """
    merged = {"PATH": PATH, "HOSTNAME": hostname}
    if tty:
        merged["TERM"] = "xterm"
    for entry in (*image, *more):
        name, equals, value = entry.partition("=")
        if not name or not equals:
            raise invalid(f"{entry!r} is no variable of an environment", "write NAME=VALUE")
        merged[name] = value
    return [f"{name}={value}" for name, value in merged.items()]


def check_arguments(command: Sequence[str], env: Sequence[str]) -> None:
    """Raises: INVALID for what execve could not take."""
    for text in (*command, *env):
        if "\0" in text:
            raise invalid(f"{text!r} holds a zero byte", "an argument or a variable cannot have one")
        if len(text.encode()) > ARGUMENT_BYTES_MAX:
            begin = f"{text[:ARGUMENT_SHOWN]}…"
            raise invalid(f"{begin!r} has more than {ARGUMENT_BYTES_MAX} bytes", "pass it in a file")
    if sum(len(text.encode()) + 1 for text in (*command, *env)) > ARGUMENTS_BYTES_MAX:
        raise invalid(f"command and environment have more than {ARGUMENTS_BYTES_MAX} bytes", "give less")


def working_directory(spec_workdir: str, image_workdir: str) -> str:
    """Raises: INVALID where it is relative."""
    path = spec_workdir or image_workdir or "/"
    if "\0" in path:
        raise invalid(f"the working directory {path!r} holds a zero byte", "no directory has one")
    if not path.startswith("/"):
        raise invalid(f"the working directory {path!r} is relative", "give one that begins with /")
    return path


def process_plan(
    spec: ContainerSpec, config: Mapping[str, Any], hostname: str, confinement: Confinement, terminal: Terminal
) -> ProcessPlan:
    """A container's first process. Raises: INVALID."""
    user = spec.user or str(config.get("User") or "")
    command = list(command_of(spec, config))
    env = environment_of(hostname, spec.tty, config.get("Env") or (), spec.env)
    check_arguments(command, env)
    return ProcessPlan(
        argv=command,
        env=env,
        cwd=working_directory(spec.workdir, str(config.get("WorkingDir") or "")),
        user=user or "0",
        capabilities=list(confinement.capabilities),
        no_new_privileges=True,
        seccomp=confinement.seccomp,
        rlimits=RLIMITS,
        tty=TerminalSize(rows=terminal.rows, columns=terminal.columns) if spec.tty else None,
        stdin=spec.stdin,
    )


def stop_signal_of(spec: ContainerSpec, config: Mapping[str, Any]) -> int:
    """Raises: INVALID."""
    return parse_signal(spec.stop_signal or str(config.get("StopSignal") or "SIGTERM"))
