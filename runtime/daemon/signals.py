"""Signals by name or number, as people write them."""

from __future__ import annotations

import signal

from sdn.model.errors import invalid

SIGNAL_MAX = 64


def parse_signal(text: str) -> int:
    """`SIGTERM`, `term`, `15`, `RTMIN+3`. Raises: INVALID."""
    word = text.strip().upper().removeprefix("SIG")
    if word.isdecimal() and word.isascii():
        number = int(word)
    else:
        base, plus, offset = word.partition("+")
        known = signal.Signals.__members__.get(f"SIG{base}")
        number = 0 if known is None else known.value
        if plus:
            number = number + int(offset) if number and base == "RTMIN" and offset.isdecimal() else 0
    if not 1 <= number <= SIGNAL_MAX:
        raise invalid(f"{text!r} is not a signal", "give a name (SIGTERM) or a number from 1 to 64", signal=text)
    return number
