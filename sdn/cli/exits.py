"""Exit codes: the one table from kinds of errors to what a shell sees."""

from __future__ import annotations

import enum

from sdn.model.errors import HawseError, Kind


class Exit(enum.IntEnum):
    """What a command ends with."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 4
    INVALID = 5
    EXHAUSTED = 6
    UNAVAILABLE = 7
    DENIED = 8
    TIMED_OUT = 9
    EXPECTATION = 10
    INTERRUPTED = 130


EXITS: dict[Kind, Exit] = {
    Kind.INVALID: Exit.INVALID,
    Kind.NOT_FOUND: Exit.NOT_FOUND,
    Kind.CONFLICT: Exit.CONFLICT,
    Kind.EXHAUSTED: Exit.EXHAUSTED,
    Kind.UNAVAILABLE: Exit.UNAVAILABLE,
    Kind.DENIED: Exit.DENIED,
    Kind.INTERNAL: Exit.FAILED,
}


class UsageError(HawseError):
    """The command line is wrong, whatever is there."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(Kind.INVALID, message, hint=hint)


MEANINGS = (
    "exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 conflict, 5 invalid, 6 exhausted,\n"
    "            7 a daemon is away, 8 denied, 9 a wait timed out, 10 an expectation failed, 130 interrupted"
)


def exit_of(error: HawseError) -> Exit:
    """The code for an error."""
    return Exit.USAGE if isinstance(error, UsageError) else EXITS[error.kind]
