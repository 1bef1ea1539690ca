"""The last steps of a container's process: its directory, its limits, its command, and execve."""

from __future__ import annotations

import errno
import os
import resource
import stat

from runtime.supervisor.failure import LaunchError, failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from runtime.plan import ProcessPlan

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where the environment has no PATH: as Docker's."""


def environment(process: ProcessPlan, home: str) -> dict[str, str]:
    values = dict(entry.split("=", 1) for entry in process["env"] if "=" in entry)
    values.setdefault("HOME", home)
    return values


def change_directory(path: str) -> None:
    """Into the working directory, made if it is missing. One that lies outside the root is refused (CVE-2024-21626)."""
    try:
        try:
            os.chdir(path or "/")
        except FileNotFoundError:
            os.makedirs(path, mode=0o755, exist_ok=True)
            os.chdir(path)
        here = os.getcwd()
    except OSError as error:
        raise failed("workdir", f"the working directory {path} cannot be entered", error) from error
    if not here.startswith("/"):
        raise LaunchError("workdir", errno.EXDEV, f"the working directory {path} is outside the container")


def set_limits(limits: dict[str, list[int]]) -> None:
    """Clamped to the present hard limits: raising them takes CAP_SYS_RESOURCE, which not every host gives."""
    for name, (soft, hard) in limits.items():
        number = getattr(resource, name, None)
        if number is None:
            raise LaunchError("rlimit", errno.EINVAL, f"the limit {name!r} is not one of this kernel")
        present = resource.getrlimit(number)[1]
        hard = _smaller(hard, present)
        try:
            resource.setrlimit(number, (_smaller(soft, hard), hard))
        except OSError as error:
            raise failed("rlimit", f"setting {name} failed", error) from error


def _smaller(one: int, other: int) -> int:
    if one < 0 or other < 0:  # RLIM_INFINITY is -1
        return max(one, other)
    return min(one, other)


def find(argv: list[str], values: dict[str, str]) -> str:
    """The file that `argv[0]` names, by PATH where it has no slash. Raises LaunchError."""
    name = argv[0] if argv else ""
    if "/" in name:
        return name
    if "\0" in name:
        raise LaunchError("command-not-found", errno.EINVAL, f"the command {name!r} is no file name")
    refused = False
    for directory in (values.get("PATH", _PATH) or _PATH).split(":") if name else ():
        path = f"{directory or '.'}/{name}"
        try:
            mode = os.stat(path).st_mode
        except OSError:
            continue
        if stat.S_ISREG(mode) and mode & 0o111:
            return path
        refused = True
    if refused:
        raise LaunchError("command-not-executable", errno.EACCES, f"the command {name!r} is not executable")
    raise LaunchError("command-not-found", errno.ENOENT, f"the command {name!r} is not in the container's PATH")


def execute(path: str, argv: list[str], values: dict[str, str]) -> NoReturn:
    """Raises LaunchError, or never returns."""
    try:
        os.execve(path, argv, values)  # noqa: S606 - the container's command is what is wanted, and no shell
    except (OSError, ValueError) as error:
        raise explained(path, error) from error


def explained(path: str, error: OSError | ValueError) -> LaunchError:
    """Why it could not be executed, of what execve said; ValueError: there is a zero byte in it."""
    if isinstance(error, ValueError):
        return LaunchError("command-not-executable", errno.EINVAL, f"the command {path!r}: {error}")
    number = error.errno or 0
    if number == errno.ENOENT and os.path.lexists(path):
        text = f"{path} is there, but the interpreter that it names (#! line or dynamic loader) is not"
        return LaunchError("command-not-found", number, text)
    if number in (errno.ENOENT, errno.ENOTDIR):
        return LaunchError("command-not-found", number, f"{path} does not exist in the container")
    if number == errno.ENOEXEC:
        return LaunchError("wrong-architecture", number, f"{path} {_kind_of(path)}")
    return failed("command-not-executable", f"{path} cannot be executed", error)


def _kind_of(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        head = os.read(fd, 20)
        os.close(fd)
    except OSError:
        head = b""
    if head[:4] == b"\x7fELF" and len(head) == 20:
        machine = int.from_bytes(head[18:20], "big" if head[5] == 2 else "little")
        return f"is a program for another kind of machine (ELF machine {machine}, this is {os.uname().machine})"
    return "is neither a program nor a script with a #! line"
