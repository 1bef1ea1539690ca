"""Signals that we get, passed on to the container that we stand for."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType

from sdn.cli.attached import HungUp, Leaving
from sdn.cli.output import complain
from sdn.model.errors import HawseError, Kind
from sdn.service.contract_client import Connection

FORWARDED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
ENDING = (signal.SIGINT, signal.SIGTERM)
ENDING_MAX = 3
"""So many of these, and we go without the container: its process 1 may ignore them."""
TIMEOUT_S = 5.0


class Abandoned(Leaving):
    """Asked to end, again and again where it is the container's matter, we leave it alone."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def leave(number: int, _frame: FrameType | None) -> None:
    """A handler for who forwards nothing but has a terminal to put in order. Raises: Abandoned."""
    raise Abandoned(number)


class SignalForwarding:
    """While inside, signals go to a container. What comes before its id is known goes there once it is.

    `tty`: the container has our terminal; a hang-up is then ours alone. The handlers act at once, in the middle of a
    write that blocks, too; `resized` is called when the terminal has another size, `continued` after a stop.
    """

    def __init__(self, socket_path: Path, tty: bool) -> None:
        self._socket_path = socket_path
        self._tty = tty
        self._container = ""
        self._early: list[int] = []
        self._ending = 0
        self._before: dict[int, object] = {}
        self.resized: Callable[[], None] | None = None
        self.continued: Callable[[], None] | None = None

    def __enter__(self) -> SignalForwarding:
        for number in FORWARDED:
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup's and the shell's wish for background jobs
                self._before[number] = signal.signal(number, self._forward)
        if self._tty:
            self._before[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, self._window)
            self._before[signal.SIGCONT] = signal.signal(signal.SIGCONT, self._window)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal has returned

    def name(self, container: str) -> None:
        """From now on they go to this container, and those that came before, too."""
        self._container = container
        for number in self._early:
            self._send(number)

    def _forward(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP and self._tty:
            raise HungUp
        self._ending += number in ENDING
        if self._ending >= ENDING_MAX:
            raise Abandoned(number)
        if self._container:
            self._send(number)
        else:
            self._early.append(number)

    def _send(self, number: int) -> None:
        message = {"verb": "KILL", "container": self._container, "signal": str(number)}
        try:
            with Connection(self._socket_path, TIMEOUT_S) as connection:
                connection.request(message)
        except HawseError as error:
            if error.kind not in (Kind.NOT_FOUND, Kind.CONFLICT):  # it has ended meanwhile
                complain(f"signal {number} did not reach the container: {error.message}", error.hint)

    def _window(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGCONT and self.continued is not None:
            self.continued()
        if self.resized is not None:
            self.resized()
