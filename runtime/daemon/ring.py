"""The last so many values of a kind, in memory and in a file: one JSON value a line, bounded, survives the daemon."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from pathlib import Path
from typing import Generic, TypeVar

from sdn.model.codec import Decoder, encode_json
from sdn.model.errors import HawseError

T = TypeVar("T")
SLACK = 2
"""The file is written anew when it has so many times what is kept."""


class Ring(Generic[T]):
    """Remembers; a line that a killed daemon left half-written is dropped. A disk that is full costs the file only."""

    def __init__(self, path: Path, decoder: Decoder[T], keep: int) -> None:
        self._path = path
        self._keep = keep
        self.values: deque[T] = deque(maxlen=keep)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            for line in path.read_bytes().splitlines():
                with contextlib.suppress(HawseError):
                    self.values.append(decoder.json(line))
        self._fd = -1
        self._lines = 0
        self._rewrite()

    def add(self, value: T) -> None:
        """The newest; the oldest may go."""
        self.values.append(value)
        if self._lines >= SLACK * self._keep or self._fd < 0:
            self._rewrite()
            return
        self._lines += 1
        with contextlib.suppress(OSError):
            os.write(self._fd, encode_json(value) + b"\n")

    def _rewrite(self) -> None:
        self.close()
        draft = self._path.with_name(f".{self._path.name}")
        try:
            fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self._fd = fd
            os.write(fd, b"".join(encode_json(value) + b"\n" for value in self.values))
            os.rename(draft, self._path)
            self._lines = len(self.values)
        except OSError:  # a full disk: tried again with the next value
            self.close()

    def close(self) -> None:
        """Let go of the file; twice is fine."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
