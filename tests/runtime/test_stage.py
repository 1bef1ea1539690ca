"""What a supervisor prepares once, on a host where others make and remove namespaces meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.runtime.launching import REPOSITORY

pytestmark = pytest.mark.root

RACE = """
import sys; sys.path.insert(0, {!r})
import os
from runtime.supervisor import stage
from runtime.syscall import umount2 as real
def late(path, flags):
    os.write(1, path.encode() + b"\\n")
    sys.stdin.readline()
    real(path, flags)
stage.umount2 = late
stage.enter(sys.argv[1])
print("in")
"""


@contextmanager
def pinned(directory: Path, count: int) -> Iterator[list[Path]]:
    """Files that our own network namespace is mounted on."""
    pins = [directory / f"pin{number}" for number in range(count)]
    try:
        for pin in pins:
            pin.touch()
            subprocess.run(["mount", "--bind", "/proc/self/ns/net", pin], check=True)
        yield pins
    finally:
        for pin in pins:
            subprocess.run(["umount", "-l", pin], check=False, capture_output=True)
            pin.unlink(missing_ok=True)


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hawse-stage-") as made:
        yield Path(made)


@pytest.mark.parametrize("unlinked", [False, True])
def test_a_namespace_that_goes_meanwhile_is_gone_as_it_should_be(directory: Path, unlinked: bool) -> None:
    """Between its look at the mounts and its unmounting, the host unmounts them."""
    with pinned(directory, 2) as pins:
        command = [sys.executable, "-I", "-S", "-c", RACE.format(str(REPOSITORY)), str(directory / "stage")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            while (line := process.stdout.readline().strip()) not in ("in", ""):
                if Path(line) in pins:
                    subprocess.run(["umount", line], check=True)
                    if unlinked:
                        os.unlink(line)
                process.stdin.write("\n")
                process.stdin.flush()
            assert line == "in"
        assert process.returncode == 0
