"""The runtime's end of its protocol, played by a test: one container whose every move the test makes itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sdn.model.errors import HawseError, not_found
from sdn.service.container_log import pack
from sdn.service.contract_server import Answer, ContractServer, Frames, item_reply, result_reply

PATIENCE_S = 20.0
COMMAND = [sys.executable, "-m", "sdn.cli.main"]


class StandIn:
    """Serves `runtime.sock` in a thread. `asked` has every request; `answers` overrides an answer, by verb."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.asked: queue.Queue[dict[str, Any]] = queue.Queue()
        self.answers: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {}
        self.events: list[dict[str, Any]] = []
        self.state = "running"
        self.exit: dict[str, Any] | None = None
        self.terminal = -1  # the container's end
        self.stdin = -1  # where it reads
        self._log = os.open(root / "log", os.O_RDWR | os.O_CREAT, 0o600)
        self._index = os.open(root / "log.index", os.O_RDWR | os.O_CREAT, 0o600)
        self._bells: list[int] = []
        self._outputs: dict[int, int] = {}
        self._loop = asyncio.new_event_loop()
        self._ended = asyncio.Event()
        self._server = ContractServer(root / "runtime.sock", self._handle)
        self._thread = threading.Thread(target=self._loop.run_forever)

    # --- the daemon ---

    def start(self) -> None:
        """Serve."""
        if not self._thread.is_alive():
            self._thread.start()
        asyncio.run_coroutine_threadsafe(self._server.start(), self._loop).result(PATIENCE_S)

    def stop(self) -> None:
        """As a daemon that is killed, but what was handed out stays."""
        asyncio.run_coroutine_threadsafe(self._server.close(), self._loop).result(PATIENCE_S)

    def close(self) -> None:
        """End of the test."""
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        self._loop.close()
        for descriptor in (self._log, self._index, self.terminal, self.stdin, *self._bells, *self._outputs.values()):
            if descriptor >= 0:
                os.close(descriptor)

    def next(self, verb: str) -> dict[str, Any]:
        """The next request of this kind; others before it are dropped."""
        while True:
            message = self.asked.get(timeout=PATIENCE_S)
            if message["verb"] == verb:
                return message

    async def _handle(self, payload: bytes, fd: int | None) -> bytes | Answer | Frames:
        message = json.loads(payload)
        try:
            return self._answer(message)
        finally:
            self.asked.put(message)  # by now what it was given is there

    def _answer(self, message: dict[str, Any]) -> bytes | Answer | Frames:
        verb = message["verb"]
        if verb in self.answers:
            return result_reply(self.answers[verb](message))
        match verb:
            case "RUN" | "START" | "LOGS":
                return self._attached(message)
            case "EXEC":
                return self._executed(message)
            case "WAIT":
                return self._waited()
            case "EVENTS":
                return self._told(message)
            case "INSPECT":
                return result_reply(self.info())
        return result_reply({})

    def info(self) -> dict[str, Any]:
        """A ContainerInfo."""
        return {"id": "01c1", "name": "c1", "state": self.state, "spec": {"image": "busybox", "tty": False}}

    def _attached(self, message: dict[str, Any]) -> Answer:
        result: dict[str, Any] = {"id": "01c1", "name": "c1", "run": 1, "pid": 1}
        if not (message.get("attach") or message["verb"] == "LOGS"):
            return Answer(result_reply(result))
        given = {"log": os.dup(self._log), "index": os.dup(self._index)}
        if message.get("attach") or message.get("follow"):
            given["bell"], bell = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            self._bells.append(bell)
        spec = message.get("container", {}) if message["verb"] == "RUN" else {}
        if spec.get("tty"):
            given["input"], self.terminal = pty.openpty()
        elif spec.get("stdin"):
            self.stdin, given["input"] = os.pipe()
        if self.exit is not None:
            self.silence()
        result["descriptors"] = list(given)
        return Answer(result_reply(result), tuple(given.values()))

    def _executed(self, message: dict[str, Any]) -> Answer:
        result: dict[str, Any] = {"execution": "e1", "pid": 2}
        given: dict[str, int] = {}
        if message["tty"]:
            given["terminal"], self.terminal = pty.openpty()
        elif not message["detach"]:
            for stream, name in enumerate(("output", "errors")):
                given[name], self._outputs[stream] = os.pipe()
            if message["stdin"]:
                self.stdin, given["input"] = os.pipe()
        result["descriptors"] = list(given)
        return Answer(result_reply(result), tuple(given.values()))

    async def _waited(self) -> Frames:
        await self._ended.wait()
        assert self.exit is not None
        yield result_reply(self.exit)

    async def _told(self, message: dict[str, Any]) -> Frames:
        for event in self.events:
            if message["since_s"] is None or event["time_s"] >= message["since_s"]:
                yield item_reply(event)
        if message["follow"]:
            await asyncio.Event().wait()
        yield result_reply({})

    # --- the container ---

    def say(self, data: bytes, stream: int = 0, time_ns: int | None = None) -> None:
        """Output into the log, and the bell."""
        end = os.fstat(self._log).st_size
        os.pwrite(self._index, pack(end, time_ns or time.time_ns(), stream), os.fstat(self._index).st_size)
        os.pwrite(self._log, data, end)
        for bell in self._bells:
            os.write(bell, b"!")

    def tell(self, data: bytes, stream: int = 0) -> None:
        """Output of an execution."""
        os.write(self._outputs[stream], data)

    def silence(self) -> None:
        """The supervisor lets go of the bells."""
        while self._bells:
            os.close(self._bells.pop())

    def close_outputs(self) -> None:
        """Nobody holds an execution's output any more."""
        while self._outputs:
            os.close(self._outputs.popitem()[1])

    def end(self, code: int = 0, silent: bool = True, **more: Any) -> None:
        """It ended, and who waits is told."""
        self.exit = {"code": code, **more}
        self.state = "exited"
        self._loop.call_soon_threadsafe(self._ended.set)
        if silent:
            self.silence()

    def refuse(self, verb: str, error: HawseError) -> None:
        """From now on this is what is answered."""

        def answer(_message: Mapping[str, Any]) -> dict[str, Any]:
            raise error

        self.answers[verb] = answer


def absent(message: Mapping[str, Any]) -> dict[str, Any]:
    """As the runtime answers for containers that are not there: those with `no` in their names."""
    if "no" in message["container"]:
        raise not_found(f"there is no container {message['container']!r}", "'hawse ps --all' lists them")
    return {}


@contextlib.contextmanager
def stand_in(root: Path) -> Iterator[StandIn]:
    """One that serves."""
    played = StandIn(root)
    played.start()
    try:
        yield played
    finally:
        played.close()


@contextlib.contextmanager
def typed(root: Path, *words: str, **more: Any) -> Iterator[Any]:
    """A command that runs while inside, a `Popen` with pipes."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("HAWSE_")}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | more
    process = subprocess.Popen([*COMMAND, "--root", str(root), *words], env=environ, **pipes)
    try:
        with process:
            try:
                yield process
            except BaseException:
                process.kill()
                raise
            process.wait(PATIENCE_S)
    finally:
        if process.poll() is None:
            process.kill()
