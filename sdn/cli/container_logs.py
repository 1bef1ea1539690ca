"""`hawse logs`: what a container has written, and what it writes."""

from __future__ import annotations

import argparse
import json
import os
import select
import sys
import time
from collections.abc import Callable

from sdn.cli.attached import READ_BYTES, write_chunks, write_stream
from sdn.cli.exits import Exit
from sdn.cli.quantities import parse_since
from sdn.cli.runtime_socket import RETRY_S, Patience, ask, attach
from sdn.model.errors import HawseError, Kind
from sdn.service.container_log import Chunk, LogReader

LIVING = ("running", "paused")
STREAMS = ("stdout", "stderr")


def logs_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `logs`."""
    parser.add_argument("container", metavar="CONTAINER", help="name or id")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until it ends")
    parser.add_argument(
        "--since", type=parse_since, default=None, metavar="TIME", help="a duration ago (10m) or a time (RFC 3339)"
    )
    parser.add_argument("-n", "--tail", type=_lines, default=None, metavar="N", help="the last N lines (default: all)")
    parser.add_argument("-t", "--timestamps", action="store_true", help="begin each line with its time (UTC)")


def _lines(text: str) -> int | None:
    if text == "all":
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of lines, nor 'all'")
    return int(text)


def logs(args: argparse.Namespace) -> int:
    """Print a container's log: its standard output to ours, its standard error to ours."""
    result, found = attach(args, {"verb": "LOGS", "container": args.container, "follow": args.follow})
    reader = LogReader(found["log"], found["index"])
    since_ns = int((args.since or 0) * 1e9)
    if args.tail is not None:
        reader.seek_tail(args.tail)
    elif since_ns:
        reader.seek_since(since_ns)
    sys.stdout.flush()
    write = _writer(args)

    def copy() -> None:
        while chunks := reader.read(READ_BYTES):
            write([chunk for chunk in chunks if chunk.time_ns >= since_ns])

    copy()
    if args.follow:
        _follow(args, str(result["id"]), found["bell"], copy)
    return Exit.OK


def _writer(args: argparse.Namespace) -> Callable[[list[Chunk]], None]:
    if args.output == "json":
        return JsonLines().write
    return Stamper().write if args.timestamps else write_chunks


def rung(bell: int) -> bool:
    """Wait for the bell; whether it rang. Else nothing will come any more. It may be non-blocking."""
    ready = select.poll()
    ready.register(bell, select.POLLIN)
    ready.poll()
    return bool(os.read(bell, READ_BYTES))


def _follow(args: argparse.Namespace, container: str, bell: int, copy: Callable[[], None]) -> None:
    """Until it runs no more. Over restarts of the container, of the daemon and of the supervisor, too."""
    patience = Patience()
    while True:
        while rung(bell):
            copy()
        copy()
        os.close(bell)
        while True:
            time.sleep(RETRY_S)  # of a supervisor that died: the next one is not there yet
            try:
                if ask(args, "INSPECT", container=container)["state"] not in LIVING:
                    return
                _, found = attach(args, {"verb": "LOGS", "container": container, "follow": True})
                break
            except HawseError as error:
                if error.kind is Kind.NOT_FOUND:  # it was removed with its end
                    return
                patience.lose(error)
        patience.regain()
        bell = found["bell"]
        for name in ("log", "index"):
            os.close(found[name])
        copy()


class Stamper:
    """Begins each line with the time at which its first byte came; a line may come in parts, amid the other stream."""

    def __init__(self) -> None:
        self._within = [False, False]
        self._second = -1
        self._stamp = ""

    def write(self, chunks: list[Chunk]) -> None:
        """One write for each run of chunks of one stream."""
        write_chunks([chunk._replace(data=self.stamped(chunk)) for chunk in chunks])

    def stamped(self, chunk: Chunk) -> bytes:
        """The chunk's bytes with stamps before the lines that begin in it."""
        if not chunk.data:
            return b""
        stamp = self._text(chunk.time_ns)
        lines = chunk.data.split(b"\n")
        within = self._within[chunk.stream]
        whole = lines[-1] == b""
        self._within[chunk.stream] = not whole
        body = (b"\n" + stamp).join(lines[:-1] if whole else lines)
        return (b"" if within else stamp) + body + (b"\n" if whole else b"")

    def _text(self, time_ns: int) -> bytes:
        second, rest_ns = divmod(time_ns, 1_000_000_000)
        if second != self._second:
            self._second = second
            self._stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return b"%s.%09dZ " % (self._stamp.encode(), rest_ns)


class JsonLines:
    """For programs: an object for each chunk. Bytes that are no UTF-8 become `\\xNN`."""

    def write(self, chunks: list[Chunk]) -> None:
        """A line each."""
        lines = [
            json.dumps(
                {
                    "time_ns": chunk.time_ns,
                    "stream": STREAMS[chunk.stream],
                    "text": chunk.data.decode(errors="backslashreplace"),
                },
                ensure_ascii=False,
            )
            for chunk in chunks
        ]
        if lines:
            write_stream(0, ("\n".join(lines) + "\n").encode())
