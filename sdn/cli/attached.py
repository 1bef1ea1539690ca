"""Copying between our standard streams and a container's descriptors.

Output is bytes and is never decoded. Nothing here talks to a daemon: while it is away, copying goes on.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
from collections.abc import Callable

from sdn.cli.detach_keys import match
from sdn.service.container_log import Chunk, LogReader

READ_BYTES = 64 << 10
Write = Callable[[int, bytes], None]
"""(stream, bytes): 0 is standard output, 1 standard error, as in the log."""


class Leaving(Exception):  # noqa: N818 - it is none: who is attached goes
    """We leave, and the container goes on."""


class Detached(Leaving):
    """The detach keys were typed."""


class HungUp(Leaving):
    """Our terminal is gone."""


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """All of it, also where somebody who shares our output made it non-blocking.

    Raises: BrokenPipeError (nobody reads), HungUp, OSError (a full disk).
    """
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            select.select([], [descriptor], [])
        except OSError as error:
            if error.errno == errno.EIO:
                raise HungUp from None
            raise


def write_stream(stream: int, data: bytes) -> None:
    """To our standard output or standard error."""
    write_all(stream + 1, data)


def merge(chunks: list[Chunk]) -> list[tuple[int, bytes]]:
    """Chunks in their order, neighbours of one stream joined: one write each."""
    merged: list[tuple[int, list[bytes]]] = []
    for chunk in chunks:
        if merged and merged[-1][0] == chunk.stream:
            merged[-1][1].append(chunk.data)
        else:
            merged.append((chunk.stream, [chunk.data]))
    return [(stream, b"".join(parts)) for stream, parts in merged]


class Copying:
    """Descriptors, and what to do when one is ready: it can be read or written, or its other end is gone."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._actions: dict[int, Callable[[], None]] = {}
        self.busy = False  # somebody has more to do without waiting

    def watch(self, descriptor: int, action: Callable[[], None], writing: bool = False) -> None:
        """From now on, in place of what was done before with this descriptor."""
        self._poll.register(descriptor, select.POLLOUT if writing else select.POLLIN)
        self._actions[descriptor] = action

    def forget(self, descriptor: int) -> None:
        """No more; twice is fine."""
        if self._actions.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)

    def turn(self) -> None:
        """Wait until something is ready, and do it."""
        timeout_ms = 0 if self.busy else None
        for descriptor, _ in self._poll.poll(timeout_ms):
            action = self._actions.get(descriptor)
            if action is not None:  # else an earlier action of this turn has forgotten it
                action()


class FollowedLog:
    """A container's log, copied as it grows; `ended` once the bell says that nothing will come any more."""

    def __init__(self, copying: Copying, reader: LogReader, bell: int, write: Callable[[list[Chunk]], None]) -> None:
        self._copying = copying
        self._reader = reader
        self._bell = bell
        self._write = write
        self._silent = False
        self.ended = False
        copying.busy = True
        copying.watch(bell, self._rung)

    def _rung(self) -> None:
        if os.read(self._bell, READ_BYTES):
            self._copying.busy = True
        else:
            self._silent = True
            self._copying.forget(self._bell)

    def copy(self) -> None:
        """What there is, one portion; input is not kept waiting by a container that talks all the time."""
        last = self._silent  # what was written before the bell fell silent is read after it did
        chunks = self._reader.read(READ_BYTES)
        if chunks:
            self._write(chunks)
        self._copying.busy = bool(chunks) or self._silent
        self.ended = last and not chunks


def write_chunks(chunks: list[Chunk]) -> None:
    """As they are."""
    for stream, data in merge(chunks):
        write_stream(stream, data)


class PipeOutput:
    """A pipe's or terminal's output, copied until its other end is closed."""

    def __init__(self, copying: Copying, source: int, stream: int) -> None:
        self._copying = copying
        self._source = source
        self._stream = stream
        self.ended = False
        copying.watch(source, self.copy)

    def copy(self) -> None:
        """What there is."""
        try:
            data = os.read(self._source, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:  # EIO: the last process on the terminal is gone
            data = b""
        if data:
            write_stream(self._stream, data)
        else:
            self.ended = True
            self._copying.forget(self._source)

    def drain(self) -> None:
        """What is there already, without waiting: whoever still holds the other end may hold it for ever."""
        while not self.ended and select.select([self._source], [], [], 0)[0]:
            self.copy()


class CopiedInput:
    """Our standard input to a container's. The target is ours to close: a pipe's end is what the container sees."""

    def __init__(self, copying: Copying, source: int, target: int, keys: bytes = b"", tty: bool = False) -> None:
        self._copying = copying
        self._source = source
        self._target = target
        self._keys = keys
        self._tty = tty
        self._held = 0
        self._pending = b""
        self._last = False
        os.set_blocking(target, False)  # a container that does not read must not keep us from its output
        copying.watch(source, self._read)

    def _read(self) -> None:
        try:
            typed = os.read(self._source, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:  # EIO: the terminal hung up
            typed = b""
        if not typed:
            if self._tty:
                raise HungUp
            self._last = True
        self._pending, self._held, detached = match(self._keys, self._held, typed)
        self._copying.forget(self._source)
        self._write()
        if detached:
            raise Detached

    def _write(self) -> None:
        try:
            while self._pending:
                self._pending = self._pending[os.write(self._target, self._pending) :]
        except BlockingIOError:
            self._copying.watch(self._target, self._write, writing=True)
            return
        except OSError:  # nobody reads it any more: there is nothing to copy to
            self._last = True
        self._copying.forget(self._target)
        if not self._last:
            self._copying.watch(self._source, self._read)
        elif not self._tty:
            self.close()

    def close(self) -> None:
        """End of file for the container; twice is fine."""
        self._copying.forget(self._source)
        self._copying.forget(self._target)
        if self._target >= 0:
            with contextlib.suppress(OSError):
                os.close(self._target)
            self._target = -1
