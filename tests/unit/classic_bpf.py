"""A classic BPF interpreter: what the kernel does with a seccomp filter, as a function of bytes.

Source: linux/filter.h, net/core/filter.c (seccomp_check_filter names the instructions that there can be).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

ALLOW = 0
KILL = -1


class Call(NamedTuple):
    """A system call as a filter sees it: struct seccomp_data, without the instruction pointer."""

    architecture: int
    number: int
    arguments: tuple[int, ...] = (0,) * 6


def load(program: bytes) -> Callable[[Call], int]:
    """A function from a call to what becomes of it: 0 allowed, an errno, or KILL."""
    instructions = list(struct.iter_unpack("=HBBI", program))

    def run(call: Call) -> int:
        data = struct.pack("=IIQ6Q", call.number, call.architecture, 0, *call.arguments)
        accumulator = index = 0
        while True:
            code, if_true, if_false, operand = instructions[index]
            index += 1
            match code:
                case 0x20:  # ld [k]
                    (accumulator,) = struct.unpack_from("=I", data, operand)
                case 0x05:  # ja
                    index += operand
                case 0x15:  # jeq
                    index += if_true if accumulator == operand else if_false
                case 0x25:  # jgt
                    index += if_true if accumulator > operand else if_false
                case 0x35:  # jge
                    index += if_true if accumulator >= operand else if_false
                case 0x45:  # jset
                    index += if_true if accumulator & operand else if_false
                case 0x54:  # and
                    accumulator &= operand
                case 0x06:  # ret
                    return _verdict(operand)
                case _:
                    raise AssertionError(f"no such instruction: {code:#x}")

    return run


def _verdict(returned: int) -> int:
    action, number = returned & 0xFFFF0000, returned & 0xFFFF
    if action == 0x7FFF0000:
        return ALLOW
    if action == 0x00050000:
        return number
    return KILL
