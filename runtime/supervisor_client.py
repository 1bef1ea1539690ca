"""The supervisor's clients: `SupervisorClient` for the daemon's loop, `Connection` for whoever has none.

Methods are named after the protocol's words. Descriptors that come with an answer are the caller's, and close-on-exec.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from runtime.plan import LaunchPlan, ProcessPlan
from runtime.supervisor_answers import (
    LOG,
    Event,
    Executed,
    Followed,
    Launched,
    Listed,
    SupervisorError,
    away,
    event_of,
    receive_header,
    result_of,
)
from sdn.model.errors import HawseError, unavailable
from sdn.service.framing import LENGTH, frame
from sdn.service.roots import Root, check_socket_path

__all__ = [
    "Connection",
    "Event",
    "Executed",
    "Followed",
    "Launched",
    "Listed",
    "SupervisorClient",
    "SupervisorError",
    "ensure_running",
]

PACKAGES = Path(__file__).resolve().parents[1]
BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from runtime.supervisor.main import main; main(sys.argv[2:])"
START_TIMEOUT_S = 20.0
"""An interpreter on a machine that is busy starting hundreds of others."""
ANSWER_TIMEOUT_S = 90.0
"""More than the supervisor gives a launch (`channel.TIMEOUT_S`)."""
CONNECT_TIMEOUT_S = 15.0
"""After a supervisor's death the next one is there in milliseconds, unless it died several times in a row."""
CONNECT_PAUSE_S = 0.02


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


class SupervisorClient:
    """One connection of the daemon's, held up: after the supervisor's death it is made anew, and events go on.

    `async with SupervisorClient(root) as client`. Requests in flight when it breaks fail with UNAVAILABLE: what became
    of them is asked with `list`. Exits not forgotten come again as events after each (re)connection, so none is missed;
    `reconnected` is called then, before them.
    """

    def __init__(self, root: Root, *, reconnected: Callable[[], None] | None = None) -> None:
        self._root = root
        self._reconnected = reconnected
        self._socket: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop
        self._pending: collections.deque[asyncio.Future[tuple[dict[str, Any], tuple[int, ...]]]] = collections.deque()
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._connected = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._header = b""
        self._fds: tuple[int, ...] = ()
        self._body = bytearray()
        self._output = bytearray()

    async def __aenter__(self) -> SupervisorClient:
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(ensure_running, self._root)
        await self._connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Drop the connection; the supervisor goes on. Launches not let go yet are undone by it."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._drop(ConnectionAbortedError("closed"))
        self._events.put_nowait(None)

    async def events(self) -> AsyncIterator[Event]:
        """Every event from now on, and first the exits that nobody forgot; ends with `close`."""
        while (event := await self._events.get()) is not None:
            yield event

    async def launch(self, plan: LaunchPlan, *, go: bool = False) -> Launched:
        """Launch; without `go` it waits for `go()`, as long as this client lives. Raises: SupervisorError."""
        result, fds = await self._request("launch", plan=plan, go=go)
        return Launched(result.get("pid", 0), result.get("start", 0), fds[0] if fds else -1)

    async def go(self, name: str) -> Launched:
        """Let it execute its command; returns once it has. Raises: SupervisorError with the launch's stage."""
        result, _ = await self._request("go", id=name)
        return Launched(result["pid"], result["start"])

    async def execute(self, name: str, execution: str, process: ProcessPlan) -> Executed:
        """A further process. Raises: SupervisorError."""
        result, fds = await self._request("exec", id=name, execution=execution, process=process)
        return Executed(result["pid"], fds)

    async def execution(self, execution: str) -> int | None:
        """Its code, which is forgotten then; None while it runs. Raises: SupervisorError (NOT_FOUND)."""
        result, _ = await self._request("execution", execution=execution)
        return None if result["code"] is None else int(result["code"])

    async def signal(self, name: str, number: int, *, all_processes: bool = False) -> None:
        """To its first process, or to all."""
        await self._request("signal", id=name, signal=number, all=all_processes)

    async def freeze(self, name: str, *, on: bool) -> None:
        """Freeze, or let go on."""
        await self._request("freeze", id=name, on=on)

    async def input(self, name: str, *, keep: bool = True) -> int:
        """The terminal's master, or the writing end of standard input; without `keep` the supervisor has none then."""
        _, fds = await self._request("input", id=name, keep=keep)
        return fds[0]

    async def follow(self, name: str) -> Followed:
        """Its log."""
        _, fds = await self._request("follow", id=name)
        return Followed(*fds)

    async def forget(self, name: str) -> None:
        """Its exit is known here, or it waits and is given up; absent is fine. Raises: SupervisorError (it lives)."""
        await self._request("forget", id=name)

    async def list(self) -> list[Listed]:
        """All that live or ended and were not forgotten."""
        result, _ = await self._request("list")
        return [Listed(**facts) for facts in result["containers"]]

    async def usage(self, names: tuple[str, ...]) -> dict[str, dict[str, int]]:
        """cgroup numbers of those that live."""
        result, _ = await self._request("usage", ids=list(names))
        return dict(result["usage"])

    async def status(self) -> dict[str, Any]:
        """{pid, keeper, spawners, descriptors, containers: {state: number}, executions}."""
        result, _ = await self._request("status")
        return result

    async def upgrade(self, package: Path = PACKAGES, python: str = sys.executable) -> None:
        """Become the program in `package`, containers alive; this client reconnects. Raises: SupervisorError."""
        await self._request("upgrade", package=os.fspath(package), python=python)

    async def end(self, *, force: bool = False) -> None:
        """End both processes. Raises: SupervisorError (containers live, and no `force`)."""
        await self._request("end", force=force)
        self._closed = True

    async def _request(self, do: str, **fields: Any) -> tuple[dict[str, Any], tuple[int, ...]]:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self._connected.wait()
        except TimeoutError:
            raise away(self._root, TimeoutError("it did not come back")) from None
        future = self._send(do, **fields)
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                return await future
        except TimeoutError:
            raise unavailable(f"the supervisor did not answer {do!r} within {ANSWER_TIMEOUT_S:g} s") from None

    def _send(self, do: str, **fields: Any) -> asyncio.Future[tuple[dict[str, Any], tuple[int, ...]]]:
        future: asyncio.Future[tuple[dict[str, Any], tuple[int, ...]]] = self._loop.create_future()
        self._pending.append(future)
        self._output += frame(json.dumps({"do": do, **fields}).encode())
        self._write()
        return future

    def _write(self) -> None:
        if self._socket is None:
            return
        try:
            while self._output:
                del self._output[: self._socket.send(self._output)]
            self._loop.remove_writer(self._socket)
        except BlockingIOError:
            self._loop.add_writer(self._socket, self._write)
        except OSError as error:
            self._lost(error)

    async def _connect(self) -> None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            await self._loop.sock_connect(connection, os.fspath(self._root.supervisor_socket))
        except OSError as error:
            connection.close()
            raise away(self._root, error) from None
        self._socket = connection
        self._header, self._fds = b"", ()
        self._body.clear()
        self._loop.add_reader(connection, self._readable)
        subscribed = self._send("subscribe")
        subscribed.add_done_callback(_heed)
        self._connected.set()

    def _readable(self) -> None:
        assert self._socket is not None
        try:
            while self._socket is not None:
                self._read_some(self._socket)
        except BlockingIOError:
            return
        except OSError as error:
            self._lost(error)

    def _read_some(self, connection: socket.socket) -> None:
        """A header with its descriptors, or a body: two calls, so that descriptors belong to one frame for certain."""
        if len(self._header) < LENGTH.size:
            part, fds = receive_header(connection, LENGTH.size - len(self._header))
            self._header += part
            self._fds += fds
            return
        (length,) = LENGTH.unpack(self._header)
        part = connection.recv(length - len(self._body))
        if not part:
            raise ConnectionResetError("it closed the connection")
        self._body += part
        if len(self._body) == length:
            reply, fds = json.loads(self._body), self._fds
            self._header, self._fds = b"", ()
            self._body.clear()
            self._take(reply, fds)

    def _take(self, reply: dict[str, Any], fds: tuple[int, ...]) -> None:
        if "event" in reply:
            self._events.put_nowait(event_of(reply))
            return
        future = self._pending.popleft()
        if future.done():  # whoever asked went away
            for fd in fds:
                os.close(fd)
            return
        try:
            future.set_result((result_of(reply, fds), fds))
        except HawseError as error:
            future.set_exception(error)

    def _lost(self, error: OSError) -> None:
        self._drop(error)
        if not self._closed:
            self._task = self._loop.create_task(self._reconnect())

    def _drop(self, error: OSError) -> None:
        self._connected.clear()
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket.close()
            self._socket = None
        for fd in self._fds:
            os.close(fd)
        self._fds = ()
        self._output.clear()
        while self._pending:
            future = self._pending.popleft()
            if not future.done():
                future.set_exception(unavailable(f"the supervisor ended amid the request: {error}", "try again"))

    async def _reconnect(self) -> None:
        """Until it succeeds: containers live there, and nobody else can reach them. Requests meanwhile are bounded."""
        while True:
            try:
                await asyncio.to_thread(ensure_running, self._root)
                await self._connect()
            except HawseError:
                await asyncio.sleep(CONNECT_PAUSE_S)
                continue
            if self._reconnected is not None:
                self._reconnected()
            return


def _heed(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()
