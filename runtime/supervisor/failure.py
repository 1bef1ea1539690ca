"""Why a launch failed: a stage that the daemon maps to an exit code, an errno, a sentence."""

from __future__ import annotations

import errno
import os


class LaunchError(Exception):
    """`stage`: a word of a closed set, see `STAGES`. `errno`: 0 where no system call failed. `message`: a sentence."""

    def __init__(self, stage: str, errno: int, message: str) -> None:
        super().__init__(stage, errno, message)
        self.stage = stage
        self.errno = errno
        self.message = message

    def encode(self) -> bytes:
        return f"{self.stage}\n{self.errno}\n{self.message}".encode("utf-8", "surrogateescape")


STAGES = (
    "clone",  # no process could be made
    "pids",  # it has as many processes as it may have
    "ended",  # the container that was to be joined has ended, or is about to
    "cgroup",  # it could not enter its cgroup
    "mount",  # the root file system, or a mount in it
    "terminal",
    "user",  # the user or group is not in the image
    "workdir",
    "rlimit",
    "command-not-found",
    "command-not-executable",
    "wrong-architecture",
    "seccomp",
    "prepare",  # anything else before the command
)


def failed(stage: str, what: str, error: OSError) -> LaunchError:
    """The error of a system call, as a sentence: what was tried, why it failed."""
    number = error.errno or 0
    return LaunchError(stage, number, f"{what}: {os.strerror(number)}")


def clone_failed(error: OSError) -> LaunchError:
    """No further process in a container: of its own limit the kernel says EAGAIN (clone(2))."""
    if error.errno == errno.EAGAIN:
        return LaunchError("pids", errno.EAGAIN, "the container has as many processes as it may have")
    return failed("clone", "making a process in the container failed", error)


def decode(message: bytes) -> LaunchError:
    stage, number, text = message.decode("utf-8", "surrogateescape").split("\n", 2)
    return LaunchError(stage, int(number), text)
