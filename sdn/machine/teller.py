"""What a machine's command tells: sentences to whoever typed it, events to whoever reads the log."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol, TextIO

from sdn.machine.log_lines import pretty
from sdn.machine.record import MONITOR, Place
from sdn.model.errors import HawseError, Kind, unavailable


class Teller(Protocol):
    """Where words go."""

    detached: bool

    def say(self, text: str) -> None:
        """A sentence for who typed the command."""

    def note(self, level: str, event: str) -> None:
        """Something that happened, for the log."""

    def line(self, daemon: str, line: str) -> None:
        """A line of a daemon's log."""

    def done(self, result: dict[str, Any]) -> None:
        """All is up: what there is, for programs."""


class MachineLog:
    """The monitor's own log, in the form of the daemons'."""

    def __init__(self, place: Place) -> None:
        self._path = place.log(MONITOR)

    def write(self, level: str, event: str) -> str:
        """Append one event; the line. A full disk ends nothing."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        line = f"timestamp='{stamp}' level='{level}' event={event!r} part='{MONITOR}' pid={os.getpid()}"
        with contextlib.suppress(OSError):
            fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, line.encode(errors="replace") + b"\n")
            finally:
                os.close(fd)
        return line


class Foreground:
    """Everything on the terminal. `quiet`: sentences go to standard error, since the result is for a program."""

    detached = False

    def __init__(self, place: Place, output: TextIO, *, quiet: bool = False) -> None:
        self._log = MachineLog(place)
        self._output = output
        self._colour = output.isatty() and "NO_COLOR" not in os.environ
        self._quiet = quiet

    def say(self, text: str) -> None:
        """See Teller."""
        with contextlib.suppress(OSError, ValueError):  # a terminal that has hung up
            print(text, file=sys.stderr if self._quiet else self._output, flush=True)

    def note(self, level: str, event: str) -> None:
        """See Teller."""
        self.line(MONITOR, self._log.write(level, event))

    def line(self, daemon: str, line: str) -> None:
        """See Teller."""
        self.say(pretty(daemon, line, colour=self._colour))

    def done(self, result: dict[str, Any]) -> None:
        """See Teller."""
        if self._quiet:
            print(json.dumps(result, indent=2, ensure_ascii=False), file=self._output, flush=True)


class Relay:
    """The detached monitor's: sentences go through a pipe to the command that waits, until all is up."""

    detached = True

    def __init__(self, place: Place, fd: int) -> None:
        self._log = MachineLog(place)
        self._fd = fd

    def _send(self, **message: Any) -> None:
        if self._fd >= 0:
            with contextlib.suppress(OSError):  # whoever waited is gone
                os.write(self._fd, json.dumps(message).encode() + b"\n")

    def say(self, text: str) -> None:
        """See Teller."""
        self._send(say=text)

    def note(self, level: str, event: str) -> None:
        """See Teller."""
        self._log.write(level, event)

    def line(self, daemon: str, line: str) -> None:
        """See Teller. It is in its file."""

    def done(self, result: dict[str, Any]) -> None:
        """See Teller."""
        self._send(done=result)
        self.close()

    def fail(self, error: HawseError) -> None:
        """It could not be done."""
        self._send(error={"kind": error.kind, "message": error.message, "hint": error.hint})
        self.close()

    def close(self) -> None:
        """Nothing more will be said."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def detach(place: Place, work: Callable[[Teller], None], front: Foreground) -> None:
    """Do `work` in a process of its own session, and return once it has called `done`; it goes on then.

    Its sentences are said here. Raises: what it raises until then.
    """
    import signal

    reading, writing = os.pipe2(os.O_CLOEXEC)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _live_detached(place, work, Relay(place, writing))
    os.close(writing)
    try:
        with open(reading, encoding="utf-8") as messages:
            for text in messages:
                message = json.loads(text)
                if "done" in message:
                    front.done(message["done"])
                    return
                if "error" in message:
                    os.waitpid(pid, 0)  # it has taken away what it made
                    error = message["error"]
                    raise HawseError(Kind(error["kind"]), error["message"], hint=error["hint"])
                front.say(message["say"])
    except KeyboardInterrupt:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)  # our child, that nobody has waited for: it is still the same process
        os.waitpid(pid, 0)
        raise
    os.waitpid(pid, 0)
    raise unavailable("the monitor ended before the daemons served", f"see {place.log(MONITOR)}")


def _live_detached(place: Place, work: Callable[[Teller], None], relay: Relay) -> None:
    """The child's life; never returns."""
    code = 1
    try:
        os.setsid()
        os.chdir("/")
        nothing = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(nothing, fd)
        os.close(nothing)
        work(relay)
        code = 0
    except HawseError as error:
        relay.note("error", error.message)
        relay.fail(error)
    except KeyboardInterrupt:
        relay.note("warning", "interrupted")
    except BaseException as error:  # noqa: BLE001 - the edge of a process: what is not told here nobody would learn
        relay.note("error", f"{type(error).__name__}: {error}")
        relay.fail(HawseError(Kind.INTERNAL, f"{type(error).__name__}: {error}", hint="this is a fault of hawse"))
    finally:
        os._exit(code)
