"""The daemons' logs as a person reads them: followed in their files, a name in front, in colour on a terminal."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from sdn.service import libc

ROTATE_BYTES = 16 << 20
"""A log that has grown so large begins anew; one older part is kept."""
EVENTS_BYTES = 16 << 10
_LINE = re.compile(
    r"timestamp='[^T']*T(?P<time>\d\d:\d\d:\d\d)[^']*' level='(?P<level>\w+)' "
    r"""event=(?P<event>'[^']*'|"[^"]*"|\S+) ?(?P<rest>.*)"""
)
_PART = re.compile(r"\bpart='[^']*' ?")
_COLOURS = {"controller": "36", "agent": "32", "runtime": "35", "machine": "34"}
_LEVELS = {"warning": "33", "error": "31", "critical": "31"}
_WIDTH = max(map(len, _COLOURS))


def pretty(daemon: str, line: str, *, colour: bool) -> str:
    """One line of a daemon's log; what is no event of ours is shown as it is."""
    found = _LINE.fullmatch(line)
    name = f"{daemon:<{_WIDTH}}"
    if found is None:
        text, time, level = line, " " * 8, "error" if line.startswith("hawse: ") else ""
    else:
        rest = _PART.sub("", found["rest"]).rstrip()
        level, time = found["level"], found["time"]
        event = found["event"].strip("'\"")
        text = f"{event}{'  ' + rest if rest else ''}"
    text = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    if not colour:
        mark = {"warning": "! ", "error": "!! "}.get(level, "")
        return f"{time}  {name}  {mark}{text}"
    shade = _LEVELS.get(level)
    shown = f"\x1b[{shade}m{text}\x1b[0m" if shade else text
    return f"\x1b[2m{time}\x1b[0m  \x1b[{_COLOURS.get(daemon, '0')}m{name}\x1b[0m  {shown}"


class Follower:
    """Follows files as they grow, from where they end now. `fileno` is readable when one has."""

    def __init__(self, files: Mapping[str, Path], tell: Callable[[str, str], None]) -> None:
        """`tell(name, line)` is called for each whole line. Raises: OSError."""
        self._fd = libc.open_watch()
        self._tell = tell
        self._open: dict[str, int] = {}
        self._rest: dict[str, bytes] = {}
        for name, path in files.items():
            fd = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.lseek(fd, 0, os.SEEK_END)
            self._open[name], self._rest[name] = fd, b""
            libc.watch(self._fd, path)

    def fileno(self) -> int:
        """To wait on."""
        return self._fd

    def read(self) -> None:
        """Tell what is new."""
        with contextlib.suppress(BlockingIOError):  # asked although nothing was said
            os.read(self._fd, EVENTS_BYTES)
        for name, fd in self._open.items():
            if os.lseek(fd, 0, os.SEEK_CUR) > os.fstat(fd).st_size:
                os.lseek(fd, 0, os.SEEK_SET)  # it was cut
            while part := os.read(fd, 1 << 16):
                *lines, self._rest[name] = (self._rest[name] + part).split(b"\n")
                for line in lines:
                    self._tell(name, line.decode(errors="replace"))

    def close(self) -> None:
        """Let go of the files."""
        for fd in (self._fd, *self._open.values()):
            os.close(fd)
        self._open.clear()


def cut_large(paths: Iterable[Path], limit: int = ROTATE_BYTES) -> None:
    """Begin large logs anew. Their writers append, so they need not be told; a line may fall between."""
    for path in paths:
        try:
            if path.stat().st_size > limit:
                older = path.with_name(path.name + ".1")
                older.touch(0o600)
                shutil.copyfile(path, older)
                os.truncate(path, 0)
        except OSError:
            continue  # a full disk must not end what keeps daemons going
