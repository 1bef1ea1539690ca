"""`container.json`: what is known of a container and must outlive the daemon. Written whole, read at the start."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec

from runtime.daemon.restarts import Wish
from sdn.model.codec import Decoder, encode_json
from sdn.model.container import ContainerInfo, ContainerSpec, Interface, Restart, State
from sdn.model.errors import HawseError, unavailable
from sdn.model.resources import Value

FILE = "container.json"
GONE_PREFIX = ".gone-"
"""A directory on its way out: it is no container any more, whatever of it is still there."""


class Attachment(Value, frozen=True, kw_only=True):
    """An interface that was asked of the agent: it is there, or may be."""

    network: str
    ifname: str


class Record(Value, frozen=True, kw_only=True):
    """A container. `starting`: a start was begun and has not come to its exec. `streak`: short runs in a row.

    `attachments`: of the last run; they are to be there while it lives or is starting.
    """

    id: str
    name: str
    spec: ContainerSpec
    image_id: str = ""
    command: tuple[str, ...] = ()
    created_s: float = 0.0
    state: State = State.CREATED
    wish: Wish = Wish.STOPPED
    run: int = 0
    starting: bool = False
    pid: int = 0
    started_s: float = 0.0
    finished_s: float = 0.0
    exit_code: int = 0
    oom_killed: bool = False
    error: str = ""
    restarts: int = 0
    streak: int = 0
    attachments: tuple[Attachment, ...] = ()
    interfaces: tuple[Interface, ...] = ()
    log_lost_bytes: int = 0

    @property
    def lasting(self) -> bool:
        """Whether somebody counts on it after a power cut: a policy is to start it again."""
        return self.spec.restart is not Restart.NO

    @property
    def damaged(self) -> bool:
        """Whether this only stands for a record that could not be read."""
        return not self.spec.image

    def info(self) -> ContainerInfo:
        """As clients see it."""
        return ContainerInfo(
            id=self.id,
            name=self.name,
            state=self.state,
            spec=self.spec,
            image_id=self.image_id,
            command=self.command,
            pid=self.pid,
            created_s=self.created_s,
            started_s=self.started_s,
            finished_s=self.finished_s,
            exit_code=self.exit_code,
            oom_killed=self.oom_killed,
            error=self.error,
            restarts=self.restarts,
            interfaces=self.interfaces,
            log_lost_bytes=self.log_lost_bytes,
        )


_decoder: Decoder[Record] = Decoder(Record, "a container's record")


class Records:
    """All containers' directories below one. `write`, `load`, `discard`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, container: str) -> Path:
        """A container's directory."""
        return self._directory / container

    def create(self, container: str) -> None:
        """Make its directory. Raises: UNAVAILABLE (a full disk …)."""
        try:
            for part in ("", "upper", "work"):
                os.mkdir(self._directory / container / part, 0o755 if part == "upper" else 0o700)
        except OSError as error:
            raise unavailable(
                f"cannot make the directory of container {container}: {error.strerror}", "look at the disk"
            ) from None

    def write(self, record: Record) -> None:
        """Whole or not at all. Raises: UNAVAILABLE.

        A lasting one is on the disk afterwards, and not only in the kernel; but for one that is starting: who asked for
        that has no answer yet, and the next one is.
        """
        directory = self._directory / record.id
        draft = os.fspath(directory / f".{FILE}")
        flush = record.lasting and not record.starting
        try:
            fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, encode_json(record))
                if flush:
                    os.fsync(fd)
            finally:
                os.close(fd)
            os.rename(draft, directory / FILE)
            if flush:
                for written in (directory, self._directory):
                    _flush(written)
        except OSError as error:
            raise unavailable(
                f"cannot write the record of container {record.name}: {error.strerror}", "look at the disk"
            ) from None

    def load(self) -> Iterator[Record]:
        """Every container that there is; in place of a record that is damaged one that says so."""
        for entry in sorted(self._directory.iterdir()):
            if not entry.is_dir() or entry.name.startswith("."):
                continue
            if not any((entry / name).exists() for name in (FILE, "hosts", "log", "exit")):
                self.discard(entry.name)  # its daemon died between making the directory and writing the record
                continue
            yield self._read(entry)

    def _read(self, directory: Path) -> Record:
        try:
            record = _decoder.json((directory / FILE).read_bytes())
            if record.id == directory.name:
                return record
            reason = f"it is the record of {record.id}"
        except HawseError as error:
            reason = error.message
        except OSError as error:
            reason = error.strerror or str(error)
        return Record(
            id=directory.name,
            name=directory.name,
            spec=ContainerSpec(image=""),
            state=State.DEAD,
            error=f"its record {directory / FILE} cannot be read: {reason}; remove it",
        )

    def discard(self, container: str, lasting: bool = False) -> Path | None:
        """It is no container any more, at once; what is returned is to be deleted (`delete`), some time.

        `lasting`: after a power cut, too.
        """
        gone = self._directory / f"{GONE_PREFIX}{container}"
        try:
            os.rename(self._directory / container, gone)
        except FileNotFoundError:
            return None
        if lasting:
            with contextlib.suppress(OSError):  # gone it is; a disk that cannot say so refuses the next start, too
                _flush(self._directory)
        return gone

    def leftovers(self) -> list[Path]:
        """What a daemon that died had no time to delete."""
        return [entry for entry in self._directory.iterdir() if entry.name.startswith(GONE_PREFIX)]


def _flush(directory: Path) -> None:
    """What was renamed or made in it, to the disk."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def delete(directory: Path) -> str:
    """A directory with all that is in it. Returns what could not be deleted, or ""."""
    problems: list[str] = []

    def note(_: object, path: str, failure: tuple[object, BaseException, object]) -> None:
        if not isinstance(failure[1], FileNotFoundError):
            problems.append(f"{path}: {failure[1]}")

    shutil.rmtree(directory, onerror=note)
    return "; ".join(problems)


def with_state(record: Record, **changes: object) -> Record:
    """A record with other fields."""
    return msgspec.structs.replace(record, **changes)
