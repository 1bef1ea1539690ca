"""Keeper and supervisor of a root, started; and a connection for whoever has no loop.

Descriptors that come with an answer are the caller's, and close-on-exec.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import select
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from runtime.supervisor_answers import LOG, Event, away, event_of, receive_header, result_of
from sdn.model.errors import unavailable
from sdn.service.framing import LENGTH, frame
from sdn.service.roots import Root, check_socket_path

PACKAGES = Path(__file__).resolve().parents[1]
BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from runtime.supervisor.main import main; main(sys.argv[2:])"
START_TIMEOUT_S = 20.0
"""An interpreter on a machine that is busy starting hundreds of others."""
ANSWER_TIMEOUT_S = 90.0
"""More than the supervisor gives a launch (`channel.TIMEOUT_S`)."""


def ensure_running(root: Root, python: str = sys.executable) -> None:
    """Start keeper and supervisor of a root unless they run. Raises: UNAVAILABLE, with what the keeper said.

    Blocks (some 100 ms) where it starts them.
    """
    check_socket_path(root.supervisor_socket)
    root.create()
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
        probe.connect(os.fspath(root.supervisor_socket))
        return
    log = os.open(root.state / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    reading, writing = os.pipe()
    try:
        arguments = [os.fspath(root.run), os.fspath(root.state), "--ready", str(writing)]
        starter = subprocess.Popen(
            [python, "-I", "-S", "-c", BOOT, os.fspath(PACKAGES), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(writing,),
            cwd="/",
            start_new_session=True,
        )
        os.close(writing)
        writing = -1
        word = _read_word(reading)
        starter.wait(START_TIMEOUT_S)
    except (OSError, subprocess.SubprocessError) as error:
        raise unavailable(f"the supervisor could not be started: {error}", f"look at {root.state / LOG}") from None
    finally:
        for fd in (log, reading, writing):
            if fd >= 0:
                os.close(fd)
    if word not in ("ready", "busy"):
        raise unavailable(f"the supervisor did not start: {word or 'it ended at once'}", f"look at {root.state / LOG}")


def _read_word(fd: int) -> str:
    ready = select.poll()
    ready.register(fd, select.POLLIN)
    if not ready.poll(START_TIMEOUT_S * 1000):
        return f"no word of it within {START_TIMEOUT_S:g} s"
    return os.read(fd, 4096).decode(errors="replace")


class Connection:
    """One connection, for one request after another, or several at once (`send`, then as often `receive`)."""

    def __init__(self, root: Root, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout_s)
        self.events: collections.deque[Event] = collections.deque()
        try:
            self._socket.connect(os.fspath(root.supervisor_socket))
        except OSError as error:
            self._socket.close()
            raise away(root, error) from None

    def request(self, do: str, **fields: Any) -> tuple[dict[str, Any], tuple[int, ...]]:
        """One request; its result and descriptors. Raises: SupervisorError, UNAVAILABLE."""
        self.send(do, **fields)
        return self.receive()

    def send(self, do: str, **fields: Any) -> None:
        """Only the request. Raises: UNAVAILABLE."""
        try:
            self._socket.sendall(frame(json.dumps({"do": do, **fields}).encode()))
        except OSError as error:
            raise unavailable(f"the conversation with the supervisor broke: {error}", "try again") from None

    def receive(self) -> tuple[dict[str, Any], tuple[int, ...]]:
        """The next answer; events that come before it are kept in `events`."""
        while True:
            reply, fds = self._frame()
            if "event" not in reply:
                return result_of(reply, fds), fds
            self.events.append(event_of(reply))

    def next_event(self) -> Event:
        """The next event, after `subscribe`. Raises: UNAVAILABLE (time-out, broken)."""
        while not self.events:
            reply, _ = self._frame()
            assert "event" in reply, "an answer that nobody asked for"
            self.events.append(event_of(reply))
        return self.events.popleft()

    def _frame(self) -> tuple[dict[str, Any], tuple[int, ...]]:
        try:
            header, fds = receive_header(self._socket)
            (length,) = LENGTH.unpack(header if len(header) == LENGTH.size else header + self._exactly(4 - len(header)))
            return json.loads(self._exactly(length)), fds
        except OSError as error:
            raise unavailable(f"the conversation with the supervisor broke: {error}", "try again") from None

    def _exactly(self, count: int) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            part = self._socket.recv(count - len(parts))
            if not part:
                raise ConnectionResetError("it closed the connection")
            parts += part
        return bytes(parts)

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
