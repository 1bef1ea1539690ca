"""Sizes, durations and moments, as people write and read them."""

from __future__ import annotations

import argparse
import time

UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
AGES = ((86400 * 365, "year"), (86400 * 30, "month"), (86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))
DIGITS = "0123456789."


def parse_size(text: str) -> int:
    """`512m`, `1.5g`, `64KiB`, `100` as bytes; a letter is a power of 1024. Raises: ArgumentTypeError."""
    number, unit = _split(text.strip().lower())
    unit = unit.strip().removesuffix("ib") or "b" if unit.endswith("ib") else unit.strip()
    if len(unit) == 2 and unit.endswith("b"):
        unit = unit[0]
    size = _decimal(number)
    if size is None or unit not in UNITS or size * UNITS[unit] >= 1 << 63:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size: write 64k, 512m or 1.5g")
    return int(size * UNITS[unit])


def parse_positive_size(text: str) -> int:
    """A size above 0. Raises: ArgumentTypeError."""
    size = parse_size(text)
    if size <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no size to live with: give more than 0, or leave it out")
    return size


def parse_duration(text: str) -> float:
    """`90s`, `1h30m`, `500ms`, `2d` as seconds. Raises: ArgumentTypeError."""
    seconds, rest = 0.0, text.strip().lower()
    while rest:
        number, rest = _split(rest)
        length = 2 if rest[:2] == "ms" else 1
        amount, unit, rest = _decimal(number), rest[:length], rest[length:]
        if amount is None or unit not in SECONDS:
            break
        seconds += amount * SECONDS[unit]
        if not rest:
            return seconds
    raise argparse.ArgumentTypeError(f"{text!r} is not a duration: write 90s, 10m or 1h30m")


def parse_since(text: str) -> float:
    """A moment, as seconds since the epoch: a duration ago, or RFC 3339 (local without a zone).

    Raises: ArgumentTypeError.
    """
    try:
        return time.time() - parse_duration(text)
    except argparse.ArgumentTypeError:
        pass
    from datetime import datetime  # only where it is needed: 3 ms

    try:
        if not text[:4].isdecimal() or text[4:5] != "-":
            raise ValueError
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a duration (10m, 1h30m) nor a time (2030-01-31T12:00:00Z)"
        ) from None


def parse_seconds(text: str) -> float:
    """Seconds from 0 on, a bare number or a duration. Raises: ArgumentTypeError."""
    amount = _decimal(text)
    if amount is not None:
        return amount
    try:
        return parse_duration(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None


def parse_count(text: str) -> int:
    """A number from 1 on. Raises: ArgumentTypeError."""
    if not (text.isascii() and text.isdecimal() and 0 < int(text[:20]) < 1 << 31):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)


def parse_cpus(text: str) -> float:
    """`1.5`: one and a half. Raises: ArgumentTypeError."""
    cpus = _decimal(text)
    if not cpus:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of CPUs: write 2 or 0.5")
    return cpus


def _split(text: str) -> tuple[str, str]:
    """The digits that it begins with, and the rest."""
    rest = text.lstrip(DIGITS)
    return text[: len(text) - len(rest)], rest


def _decimal(text: str) -> float | None:
    if not text or text.strip(DIGITS) or text.count(".") > 1 or text == "." or len(text) > 20:
        return None
    return float(text)


def show_size(size: float) -> str:
    """`12.3MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.4g}{unit}"
        size /= 1024
    return f"{size:.4g}TiB"


def show_age(seconds: float) -> str:
    """`3 minutes`: the largest unit, rounded down."""
    for length, unit in AGES:
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return "less than a second"


def show_time(moment_s: float) -> str:
    """Local, as people read it; nothing for "not yet"."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(moment_s)) if moment_s else ""
