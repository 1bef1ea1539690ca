"""A session of tests that is killed leaves nothing and harms no other; an interrupted one removes all by itself."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import session_janitor
from topologies import processes
from topologies.record import BASE, Process

pytestmark = pytest.mark.root

REPOSITORY = Path(__file__).parents[2]
SCENE = "tests/e2e/whole_session.py"
BOUND_S = 60.0
TOLD = "left behind by the tests"


def started(test: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-s", f"{SCENE}::{test}"]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=REPOSITORY, start_new_session=True
    )


@dataclasses.dataclass
class Standing:
    """A session in which one of everything stands."""

    process: subprocess.Popen[str]
    paths: list[str]
    mount: str
    members: list[Process]

    @classmethod
    def read(cls, process: subprocess.Popen[str]) -> Standing:
        """When it says so."""
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if line.startswith("{"):
                facts: dict[str, Any] = json.loads(line)
                members = [processes.identify(pid) for pid in facts["pids"]]
                assert None not in members, facts
                return cls(process, facts["paths"], facts["mount"], [member for member in members if member])
        raise AssertionError("".join(said))

    def there(self) -> list[str]:
        """What of it there is."""
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        return [
            *(path for path in self.paths if os.path.lexists(path)),
            *(line for line in lines if line.split()[4] == self.mount),
            *(str(member.pid) for member in self.members if processes.is_alive(member)),
        ]

    @property
    def whole(self) -> int:
        """How much stands when nothing is missing."""
        return len(self.paths) + 1 + len(self.members)


@contextlib.contextmanager
def sessions(count: int) -> Iterator[list[Standing]]:
    """Side by side; killed at the end where they are still there."""
    children = [started("test_one_of_everything") for _ in range(count)]
    try:
        yield [Standing.read(child) for child in children]
    finally:
        for child in children:
            child.kill()
            child.wait()
            if child.stdout is not None:
                child.stdout.close()  # not read to its end: that is as long as anybody lives whom the session started


def test_a_killed_session_leaves_nothing_and_another_one_stays_whole() -> None:
    with sessions(2) as (killed, other):
        assert [len(one.there()) for one in (killed, other)] == [killed.whole, other.whole]
        killed.process.kill()
        deadline = time.monotonic() + BOUND_S
        while left := killed.there():
            assert time.monotonic() < deadline, left
            time.sleep(0.05)  # nobody is left who could tell
        assert len(other.there()) == other.whole

        os.killpg(other.process.pid, signal.SIGINT)  # Ctrl-C: fixtures do it all
        said, _ = other.process.communicate(timeout=BOUND_S)
        assert other.process.returncode == pytest.ExitCode.INTERRUPTED, said
        assert TOLD not in said
        assert other.there() == []


def test_what_an_orderly_session_leaves_fails_it_and_goes() -> None:
    child = started("test_a_careless_one")
    said, _ = child.communicate(timeout=BOUND_S)
    assert child.returncode == pytest.ExitCode.TESTS_FAILED, said
    assert "1 passed" in said
    told = said.partition(TOLD)[2]
    kinds = re.findall(r"^(process \d+: sleep|namespace|file) ?(.*)", told, re.MULTILINE)
    assert [kind.split()[0] for kind, _ in kinds] == ["process", "namespace", "file"], said
    assert not os.path.exists(f"/proc/{told.split('process ')[1].split(':')[0]}/exe")
    assert [path for _, path in kinds[1:] if os.path.lexists(path)] == []


def test_the_janitor_knows_where_labs_are() -> None:
    assert Path(session_janitor.LABS) == BASE
