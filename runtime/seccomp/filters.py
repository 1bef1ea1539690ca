"""Compiled filters as files, each made once."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from runtime.seccomp import numbers, profile
from runtime.seccomp.program import assemble
from sdn.model.errors import HawseError, Kind

INSTRUCTION_BYTES = 8
"""struct sock_filter."""
FORMAT = 1
"""Raised when `program` or `numbers` make other bytes of the same verdicts."""


def compiled(directory: Path, capabilities: Iterable[int]) -> Path:
    """The file with the filter for a container with these capabilities (numbers), compiled if it is not there yet.

    Its name follows from all that the bytes depend on: a new profile, libseccomp or kernel makes a new file.
    Raises: UNAVAILABLE (no libseccomp, an architecture without a profile, a directory that cannot be written).
    """
    system = os.uname()
    if system.machine not in numbers.ARCHITECTURES:
        raise HawseError(
            Kind.UNAVAILABLE,
            f"cannot make a seccomp filter: there is no profile for the architecture {system.machine}",
            hint=f"known: {', '.join(numbers.ARCHITECTURES)}",
        )
    verdicts = profile.verdicts(capabilities, system.machine)
    made_of = (FORMAT, sorted(verdicts.items(), key=repr), numbers.version(), system.release, system.machine)
    path = directory / f"{hashlib.sha256(repr(made_of).encode()).hexdigest()[:32]}.bpf"
    try:
        if _is_whole(path):
            return path
        program = compile_verdicts(verdicts, system.machine)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(path, program)
    except OSError as error:
        raise HawseError(
            Kind.UNAVAILABLE,
            f"cannot keep the compiled seccomp filter {path}: {error.strerror}",
            hint="see that the directory can be written and the disk is not full",
        ) from None
    return path


def compile_verdicts(verdicts: Mapping[str, profile.Verdict], machine: str) -> bytes:
    """The BPF program for verdicts by name, for all architectures of a machine. Raises: UNAVAILABLE (no libseccomp)."""
    tables = {}
    for architecture in numbers.ARCHITECTURES[machine]:
        found = numbers.resolve(verdicts, architecture)
        tables[architecture] = {number: verdicts[name] for name, number in found.items()}
    return assemble(tables)


def _is_whole(path: Path) -> bool:
    """Whether there is a program: a crash of the machine may leave an empty file behind a rename."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return False
    return size > 0 and size % INSTRUCTION_BYTES == 0


def _write(path: Path, program: bytes) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with open(descriptor, "wb") as file:
            file.write(program)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
