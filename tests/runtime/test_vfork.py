"""Memory that is borrowed until a program is executed: by what becomes of the lender."""

from __future__ import annotations

import gc
import os
import signal
import sys
from pathlib import Path

import pytest

from runtime import vfork

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="elsewhere processes are forked"),
]


class Command:
    """A job; `told`: what the child made known, in memory that is ours too."""

    def __init__(self, *argv: str, signal_: int = 0) -> None:
        self.argv = list(argv)
        self.signal = signal_
        self.told: list[object] = []

    def prepare(self) -> tuple[str, list[str], dict[str, str]]:
        self.told.append(os.getpid())
        os.chdir("/proc")
        if self.signal:
            os.kill(os.getpid(), self.signal)
        return self.argv[0], self.argv, {"NAME": "välue"}

    def refuse(self, error: BaseException) -> None:
        self.told.append(error)


@pytest.fixture
def lender() -> vfork.Vfork:
    found = vfork.make()
    assert found is not None
    return found


def wait(pidfd: int) -> int:
    found = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    os.close(pidfd)
    assert found is not None
    return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status


def test_the_program_gets_what_was_prepared(lender: vfork.Vfork, tmp_path: Path):
    here, script = os.getcwd(), f'[ "$NAME $1 $PWD" = "välue wörd /proc" ] && echo $$ > {tmp_path}/pid'
    command = Command("/bin/sh", "-c", script, "sh", "wörd")
    pid, pidfd = lender.spawn(command, 0)
    assert wait(pidfd) == 0
    assert (tmp_path / "pid").read_text() == f"{pid}\n"
    assert command.told == [pid]
    assert os.getcwd() == here, "the directory is the child's own"


@pytest.mark.parametrize(
    ("argv", "error"),
    [(["/no/such/file"], FileNotFoundError), (["/etc/passwd"], PermissionError), (["a\0b"], ValueError)],
)
def test_what_cannot_be_executed_is_told_in_the_child(lender: vfork.Vfork, argv: list[str], error: type[Exception]):
    command = Command(*argv)
    pid, pidfd = lender.spawn(command, 0)
    assert wait(pidfd) == 127
    assert [type(one) for one in command.told] == [int, error]
    assert command.told[0] == pid != os.getpid()


def test_the_lender_is_as_before_though_it_happens_often(lender: vfork.Vfork):
    command = Command("/bin/true")
    references, blocks = sys.getrefcount(None), 0
    for number in range(200):
        assert wait(lender.spawn(command, 0)[1]) == 0
        if number == 100:
            gc.collect()
            command.told.clear()
            references, blocks = sys.getrefcount(None), sys.getallocatedblocks()
    command.told.clear()
    gc.collect()
    assert abs(sys.getallocatedblocks() - blocks) < 100
    assert abs(sys.getrefcount(None) - references) < 100


def test_a_child_that_is_killed_in_the_middle_takes_the_lender_along(lender: vfork.Vfork):
    """It leaves an interpreter that nobody may use."""
    pid = os.fork()
    if pid == 0:
        lender.spawn(Command("/bin/true", signal_=signal.SIGKILL), 0)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 1 << 8


def test_no_process_can_be_made(lender: vfork.Vfork):
    with pytest.raises(OSError, match="Bad file descriptor"):
        lender.spawn(Command("/bin/true"), 0, 10**6)
