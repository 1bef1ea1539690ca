"""The supervisor's client for the daemon's loop. Who has none uses `supervisor_connection`.

Methods are named after the protocol's words. Descriptors that come with an answer are the caller's, and close-on-exec.
"""

from __future__ import annotations

import asyncio
import collections
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from runtime.plan import LaunchPlan, ProcessPlan
from runtime.supervisor_answers import (
    Event,
    Executed,
    Followed,
    Launched,
    Listed,
    away,
    event_of,
    receive_header,
    result_of,
)
from runtime.supervisor_connection import ANSWER_TIMEOUT_S, PACKAGES, ensure_running
from sdn.model.errors import HawseError, unavailable
from sdn.service.framing import LENGTH, frame
from sdn.service.roots import Root

CONNECT_TIMEOUT_S = 15.0
"""After a supervisor's death the next one is there in milliseconds, unless it died several times in a row."""
CONNECT_PAUSE_S = 0.02


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
