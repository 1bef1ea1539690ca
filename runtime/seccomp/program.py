"""Verdicts by number become classic BPF: for each architecture a binary search over ranges of equal verdict.

Pure. Neighbouring numbers mostly share their verdict, so the 450 calls of an architecture are 75 to 130 ranges: the
program is small (its size is what loading costs, for each container) and a call meets about seven comparisons.
It is laid out from its end: jumps go forward only, so what a test jumps to is always there already, and equal
returns are shared.
Source: linux/filter.h, linux/seccomp.h (struct seccomp_data), Documentation/userspace-api/seccomp_filter.rst.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from runtime.seccomp.profile import ALLOW, OTHERWISE, OneOf, Verdict, Without

LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS
JUMP = 0x05  # BPF_JMP | BPF_JA
JUMP_EQUAL = 0x15
JUMP_AT_LEAST = 0x35
JUMP_BITS = 0x45
RETURN = 0x06  # BPF_RET | BPF_K
NUMBER, ARCHITECTURE, ARGUMENT = 0, 4, 16
"""Offsets in struct seccomp_data; both architectures are little-endian, so the argument's low half comes first."""
RET_ALLOW = 0x7FFF0000
RET_ERRNO = 0x00050000
EPERM = 1
OFFSET_MAX = 255
"""A conditional jump has 8 bits for each way."""
SHARED_DISTANCE_MAX = 150
"""A return further away than this is put anew rather than reached by a jump."""


Range = tuple[int, Verdict]
"""Where it starts, and what holds up to the next one."""


def assemble(verdicts: Mapping[int, Mapping[int, Verdict]]) -> bytes:
    """The program for verdicts by number, by architecture (AUDIT_ARCH). Calls of other architectures give OTHERWISE."""
    program = _Program()
    entry = program.leaf(OTHERWISE)
    for architecture, table in reversed(list(verdicts.items())):
        section = program.search(_ranges(table, OTHERWISE))
        entry = program.branch(JUMP_EQUAL, architecture, program.load(NUMBER, section), entry)
    program.load(ARCHITECTURE, entry)
    return program.bytes()


class _Program:
    """Instructions from the last to the first. A place in it is how many come after."""

    def __init__(self) -> None:
        self._reversed: list[bytes] = []
        self._returns: dict[int, int] = {}

    def bytes(self) -> bytes:
        return b"".join(reversed(self._reversed))

    def search(self, ranges: Sequence[Range]) -> int:
        """The place of code that finds the range of what is loaded."""
        if len(ranges) == 1:
            return self.leaf(ranges[0][1])
        middle = len(ranges) // 2
        high = self.search(ranges[middle:])
        return self.branch(JUMP_AT_LEAST, ranges[middle][0], high, self.search(ranges[:middle]))

    def leaf(self, verdict: Verdict) -> int:
        """The place of code for what becomes of one call."""
        match verdict:
            case OneOf(values):
                allowed: dict[int, Verdict] = dict.fromkeys(values, ALLOW)
                return self.load(ARGUMENT, self.search(_ranges(allowed, EPERM)))
            case Without(flags):
                return self.load(ARGUMENT, self.branch(JUMP_BITS, flags, self.leaf(EPERM), self.leaf(ALLOW)))
        operand = RET_ERRNO | verdict if verdict else RET_ALLOW
        place = self._returns.get(operand)
        if place is None or len(self._reversed) - place > SHARED_DISTANCE_MAX:
            place = self._returns[operand] = self._put(RETURN, 0, 0, operand)
        return place

    def load(self, offset: int, then: int) -> int:
        """Load a word of the call's data, then go on at `then`."""
        self._within(then, 0)
        return self._put(LOAD, 0, 0, offset)

    def branch(self, test: int, operand: int, if_true: int, if_false: int) -> int:
        """A test of what is loaded, and the places where it leads."""
        if_true, if_false = self._within(if_true, OFFSET_MAX - 1), self._within(if_false, OFFSET_MAX)
        here = len(self._reversed)
        return self._put(test, here - 1 - if_true, here - 1 - if_false, operand)

    def _within(self, place: int, distance: int) -> int:
        """`place`, or that of a jump to it where it is more than `distance` instructions away."""
        away = len(self._reversed) - 1 - place
        return place if away <= distance else self._put(JUMP, 0, 0, away)

    def _put(self, code: int, if_true: int, if_false: int, operand: int) -> int:
        self._reversed.append(struct.pack("=HBBI", code, if_true, if_false, operand))
        return len(self._reversed) - 1


def _ranges(table: Mapping[int, Verdict], otherwise: Verdict) -> list[Range]:
    """All numbers from 0 on, as few ranges as possible."""
    points: dict[int, Verdict] = {0: otherwise}
    for number in sorted(table):
        points[number] = table[number]
        if number + 1 not in table and number < 0xFFFFFFFF:
            points[number + 1] = otherwise
    ranges: list[Range] = []
    for start in sorted(points):
        if not ranges or ranges[-1][1] != points[start]:
            ranges.append((start, points[start]))
    return ranges
