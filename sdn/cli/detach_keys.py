"""The keys that leave an attached container without ending it."""

from __future__ import annotations

import argparse

KEYS_DEFAULT = "ctrl-p,ctrl-q"
CONTROLS = {letter: ord(letter) & 31 for letter in "abcdefghijklmnopqrstuvwxyz@[\\]^_"}


def detach_keys_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--detach-keys`."""
    parser.add_argument(
        "--detach-keys",
        type=parse_detach_keys,
        default=KEYS_DEFAULT,
        metavar="KEYS",
        help=f"leave with these (default {KEYS_DEFAULT}; '' has none)",
    )


def parse_detach_keys(text: str) -> bytes:
    """`ctrl-p,ctrl-q` as the bytes that a terminal sends; "" is none. Raises: ArgumentTypeError."""
    keys = bytearray()
    for word in text.split(",") if text else ():
        control = word.lower().removeprefix("ctrl-")
        if len(word) == 1 and word.isascii() and word.isprintable():
            keys.append(ord(word))
        elif control != word.lower() and control in CONTROLS:
            keys.append(CONTROLS[control])
        else:
            raise argparse.ArgumentTypeError(f"{word!r} is not a key: write single letters and ctrl-X, with commas")
    return bytes(keys)


def match(keys: bytes, held: int, typed: bytes) -> tuple[bytes, int, bool]:
    """What to pass on, how many of the keys are held back at the end, and whether all of them were typed.

    `held`: as the call before gave it. What follows the keys is dropped: nobody is attached any more.
    """
    if not keys:
        return typed, 0, False
    text = keys[:held] + typed
    place = text.find(keys)
    if place >= 0:
        return text[:place], 0, True
    held = next(count for count in range(min(len(keys) - 1, len(text)), -1, -1) if text.endswith(keys[:count]))
    return text[: len(text) - held], held, False
