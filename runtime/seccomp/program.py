"""Verdicts by number become classic BPF: for each architecture a binary search over ranges of equal verdict.

Pure. Neighbouring numbers mostly share their verdict, so the 450 calls of an architecture are some 60 ranges: the
program is small (its size is what loading costs, for each container) and a call meets about seven comparisons.
Source: linux/filter.h, linux/seccomp.h (struct seccomp_data), Documentation/userspace-api/seccomp_filter.rst.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

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


class Instruction(NamedTuple):
    """struct sock_filter."""

    code: int
    if_true: int
    if_false: int
    operand: int


Code = list[Instruction]
Range = tuple[int, Verdict]
"""Where it starts, and what holds up to the next one."""


def assemble(verdicts: Mapping[int, Mapping[int, Verdict]]) -> bytes:
    """The program for verdicts by number, by architecture (AUDIT_ARCH). Calls of other architectures give OTHERWISE."""
    code = _leaf(OTHERWISE)
    for architecture, table in reversed(list(verdicts.items())):
        search = [Instruction(LOAD, 0, 0, NUMBER), *_search(_ranges(table, OTHERWISE))]
        code = _branch(JUMP_EQUAL, architecture, search, code)
    code = [Instruction(LOAD, 0, 0, ARCHITECTURE), *code]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


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


def _search(ranges: Sequence[Range]) -> Code:
    """Code that finds the range of what is loaded."""
    if len(ranges) == 1:
        return _leaf(ranges[0][1])
    middle = len(ranges) // 2
    return _branch(JUMP_AT_LEAST, ranges[middle][0], _search(ranges[middle:]), _search(ranges[:middle]))


def _leaf(verdict: Verdict) -> Code:
    match verdict:
        case OneOf(values):
            allowed: dict[int, Verdict] = dict.fromkeys(values, ALLOW)
            return [Instruction(LOAD, 0, 0, ARGUMENT), *_search(_ranges(allowed, EPERM))]
        case Without(flags):
            return [Instruction(LOAD, 0, 0, ARGUMENT), *_branch(JUMP_BITS, flags, _leaf(EPERM), _leaf(ALLOW))]
    return [Instruction(RETURN, 0, 0, RET_ERRNO | verdict if verdict else RET_ALLOW)]


def _branch(test: int, operand: int, if_true: Code, if_false: Code) -> Code:
    """A test of what is loaded; both ways end in a return, so what follows is laid out one after the other."""
    if len(if_false) <= OFFSET_MAX:
        return [Instruction(test, len(if_false), 0, operand), *if_false, *if_true]
    far = Instruction(JUMP, 0, 0, len(if_false))
    return [Instruction(test, 0, 1, operand), far, *if_false, *if_true]
