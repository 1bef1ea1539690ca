"""The nursery as `lab up` sees it: started first of all, so that it imports while the lab is read and wired."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Self

from sdn.model.errors import HawseError, unavailable
from topologies.record import Process

OWN_VARIABLES = ("HAWSE_ROOT", "HAWSE_CONTROLLER", "NOTIFY_SOCKET")
"""What whoever calls `lab up` may have set for another controller."""
ROOM = " " * 1024
"""A word that means nothing: there the daemons write their command lines."""
BIRTH_S = 20.0
"""A second's imports, on a machine that is all busy a good deal more."""

Birth = Callable[[], Process]
"""Waits until it is born. Raises: UNAVAILABLE."""


def daemons_environment() -> dict[str, str]:
    """What daemons of a lab are given."""
    return {key: value for key, value in os.environ.items() if key not in OWN_VARIABLES}


class Nursery:
    """Forks daemons in the order of their orders. They are children of this process, once the nursery has ended.

    A context: at its end the nursery is ended, if it has not done so itself.
    """

    def __init__(self) -> None:
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._orders.settimeout(BIRTH_S)
        self._answers: list[Process] = []
        self._asked = 0
        with theirs:
            module = "topologies.nursery"
            self._process = subprocess.Popen(
                # -P: what lies about in the working directory is not imported, whoever it is from
                [sys.executable, "-P", "-m", module, str(theirs.fileno()), str(os.getpid()), ROOM],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=daemons_environment(),
                cwd="/",
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # Ctrl-C is for us: we end it
            )

    def order(self, command: Sequence[str], words: Sequence[str], fds: tuple[int, int, int]) -> Birth:
        """A daemon. `command`: what starts `hawse`; `fds`: namespace, log, and whom to tell; they stay the caller's.

        Raises: UNAVAILABLE.
        """
        if not self._asked:
            _adopt_orphans(True)
        message = json.dumps({"command": list(command), "words": list(words)}).encode()
        try:
            socket.send_fds(self._orders, [message], fds)
        except OSError as error:
            raise self._away(error) from None
        self._asked += 1
        number = self._asked

        def birth() -> Process:
            while len(self._answers) < number:
                self._answers.append(self._answer())
            return self._answers[number - 1]

        return birth

    def no_more(self) -> None:
        """Let it end with the last of the orders."""
        self._orders.shutdown(socket.SHUT_WR)

    def _answer(self) -> Process:
        try:
            message = self._orders.recv(4096)
        except OSError as error:
            raise self._away(error) from None
        if not message:
            raise self._away(ConnectionError("it ended"))
        answer = json.loads(message)
        if "error" in answer:
            raise unavailable(f"a daemon cannot be started: {answer['error']}")
        return Process(pid=answer["pid"], start=answer["start"])

    def _away(self, error: Exception) -> HawseError:
        return unavailable(f"the nursery (pid {self._process.pid}), which is to start the daemons, is away: {error}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End it; twice is fine."""
        self._orders.close()
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
        if self._asked:
            _adopt_orphans(False)


def _adopt_orphans(on: bool) -> None:
    """Whether descendants whose parents end become children of this process, which reaps what it kills."""
    from runtime.syscall import (
        PR_SET_CHILD_SUBREAPER,
        prctl,
    )  # here: the nursery is to start soon, and needs none of it

    prctl(PR_SET_CHILD_SUBREAPER, on)
