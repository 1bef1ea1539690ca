"""Holding a container in the foreground: its output, our input, our terminal and our signals, until it ends."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from typing import Any

from sdn.cli.attached import CopiedInput, Copying, Detached, FollowedLog, HungUp, write_chunks
from sdn.cli.container_ending import code_of
from sdn.cli.exits import Exit, UsageError
from sdn.cli.output import complain
from sdn.cli.runtime_socket import Patience, attach, socket_of
from sdn.cli.signal_forwarding import Abandoned, SignalForwarding
from sdn.cli.terminal import STDIN, fill_standard_descriptors, raw_for, resize, window_size
from sdn.model.errors import HawseError, Kind
from sdn.service.container_log import LogReader
from sdn.service.contract_client import Connection

SILENT_S = 1.0
"""A bell that fell silent while the container runs on was a supervisor's that died: the next one has another."""


class Session:
    """One container in the foreground. `hold` starts it and returns the exit code to end with."""

    def __init__(self, args: argparse.Namespace, tty: bool, stdin: bool, keys: bytes) -> None:
        """`stdin`: ours is passed on; with `tty` it has to be a terminal. Raises: UsageError."""
        fill_standard_descriptors()
        self._args = args
        self._tty = tty
        self._stdin = stdin
        self._keys = keys if tty and stdin else b""
        self._raw = tty and stdin
        check_terminal(tty, stdin)

    def hold(self, message: dict[str, Any], since_ns: int | None = None) -> int:
        """Send RUN or START, and stay until the container's output ends or we leave.

        `since_ns`: its log has output of earlier times, which is not shown again.
        """
        sys.stdout.flush()
        rows, columns = window_size() if self._tty else (0, 0)
        with SignalForwarding(socket_of(self._args), self._tty) as signals:
            result: dict[str, Any] = {}
            try:
                result, descriptors = attach(self._args, {**message, "attach": True, "rows": rows, "columns": columns})
                signals.name(result["id"])
                with contextlib.ExitStack() as stack:
                    end = self._copy(stack, signals, result, descriptors, since_ns)
                return code_of(end)
            except Detached:
                complain(f"detached from {result['name']}", f"'hawse start -ai {result['name']}' attaches again")
                return Exit.OK
            except HungUp:
                return 128 + signal.SIGHUP
            except Abandoned as left:
                if result:
                    complain(
                        f"{result['name']} does not end and is left alone", f"'hawse kill {result['name']}' ends it"
                    )
                return 128 + left.number

    def _copy(
        self,
        stack: contextlib.ExitStack,
        signals: SignalForwarding,
        result: dict[str, Any],
        descriptors: dict[str, int],
        since_ns: int | None,
    ) -> dict[str, Any]:
        """Until it has ended; how it did."""
        copying = Copying()
        reader = LogReader(descriptors["log"], descriptors["index"])
        if since_ns is not None:
            reader.seek_since(since_ns)
        target = descriptors.get("input", -1)
        if self._tty and target >= 0:
            signals.resized = lambda: resize(target, *window_size())
            resize(target, *window_size())  # it may have changed since it was asked for
        raw = raw_for(self._raw and target >= 0) if self._tty else None
        if raw is not None:
            signals.continued = stack.enter_context(raw).again
        if self._stdin and target >= 0:
            CopiedInput(copying, STDIN, target, self._keys, self._raw)
        bell = descriptors["bell"]
        patience = Patience()
        while True:
            log = FollowedLog(copying, reader, bell, write_chunks)
            while not log.ended:
                copying.turn()
                log.copy()
            os.close(bell)
            found = self._ended_or_bell(result, patience)
            if isinstance(found, dict):
                return found
            bell = found

    def _ended_or_bell(self, result: dict[str, Any], patience: Patience) -> dict[str, Any] | int:
        """How it ended; or, where it did not, the bell of the supervisor that has it now."""
        while True:
            try:
                with Connection(socket_of(self._args), SILENT_S) as connection:
                    return connection.request({"verb": "WAIT", "container": result["id"], "run": result.get("run", 0)})
            except HawseError as error:
                if error.kind is not Kind.UNAVAILABLE:
                    raise
            try:
                _, found = attach(self._args, {"verb": "LOGS", "container": result["id"], "follow": True})
            except HawseError as error:
                patience.lose(error)
                continue
            patience.regain()
            for name in ("log", "index"):
                os.close(found[name])
            return found["bell"]


def check_terminal(tty: bool, stdin: bool) -> None:
    """Who wants to type into a container's terminal has to have one. Raises: UsageError."""
    if tty and stdin and not os.isatty(STDIN):
        raise UsageError("standard input is not a terminal", "leave -t out: -i alone passes it on")
