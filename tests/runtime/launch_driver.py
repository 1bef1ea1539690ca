"""A supervisor reduced to launching, as a process of its own: one thread, plain interpreter, requests line by line.

Run by `launching.Driver`. A request is `{"do": …}` in JSON on a line of standard input, the answer a line of output.
"""

from __future__ import annotations

import json
import os
import select
import sys
from typing import Any

from runtime.supervisor import channel, child, launch, memory_killer, signals, stage
from runtime.supervisor.failure import LaunchError, decode
from runtime.supervisor.launch import Launched
from runtime.supervisor.spawner import Order, Spawner, launch_order, network_order


class Streams:
    """The supervisor's ends of a process's standard streams, or its terminal."""

    def __init__(self, process: dict[str, Any]) -> None:
        self.theirs: tuple[int, int, int] | None = None
        self.fds: dict[int, bytearray] = {}
        self.input = -1
        if process["tty"] is None:
            stdin, self.input = os.pipe() if process["stdin"] else (-1, -1)
            out, out_write = os.pipe()
            errors, errors_write = os.pipe()
            self.theirs = (stdin, out_write, errors_write)
            self.fds = {out: bytearray(), errors: bytearray()}

    def started(self, terminal: int) -> None:
        self.close_theirs()
        if terminal >= 0:
            self.fds[terminal] = bytearray()
            self.input = os.dup(terminal)

    def close_theirs(self) -> None:
        for fd in self.theirs or ():
            if fd >= 0:
                os.close(fd)
        self.theirs = None

    def read(self) -> list[str]:
        """Everything until nobody writes any more."""
        waiting = set(self.fds)
        while waiting:
            for fd in select.select(list(waiting), [], [], 30)[0] or [next(iter(waiting))]:
                try:
                    data = os.read(fd, 65536)
                except OSError:  # EIO: the terminal has no slave any more
                    data = b""
                self.fds[fd] += data
                if not data:
                    waiting.discard(fd)
        return [bytes(data).decode("utf-8", "replace") for data in self.fds.values()]

    def close(self) -> None:
        self.close_theirs()
        for fd in (*self.fds, *([self.input] if self.input >= 0 else [])):
            os.close(fd)
        self.fds, self.input = {}, -1


class Cgroup:
    """Descriptors by the directories that a test made; no limits, no cleaning."""

    def __init__(self, request: dict[str, Any]) -> None:
        v2, v1 = request.get("v2", ""), request.get("v1", [])
        self.v2_fd = os.open(v2, os.O_RDONLY | os.O_DIRECTORY) if v2 else -1
        self.procs_fds = tuple(os.open(f"{path}/cgroup.procs", os.O_WRONLY) for path in v1)

    def close(self) -> None:
        for fd in (self.v2_fd, *self.procs_fds):
            if fd >= 0:
                os.close(fd)


class Server:
    """The containers that were started and not yet waited for, by number."""

    def __init__(self) -> None:
        self.held: dict[int, tuple[Launched, Streams]] = {}
        self.number = 0
        self.spawner = Spawner()

    def serve(self, request: dict[str, Any]) -> dict[str, Any]:
        return getattr(self, f"do_{request['do']}")(request)  # type: ignore[no-any-return]

    def do_launch(self, request: dict[str, Any]) -> dict[str, Any]:
        """By the spawner, in a network namespace that it gave away before."""
        plan = request["plan"]
        filter_bytes = launch.filter_of(plan["process"]["seccomp"])
        streams, cgroup = Streams(plan["process"]), Cgroup(request)
        ours, theirs = channel.pair()
        _, network = self.answer(network_order())
        place = child.Inheritance(theirs.fileno(), streams.theirs, cgroup.procs_fds, filter_bytes, stage.directory)
        place.v2_fd, place.network_fd = cgroup.v2_fd, network
        try:
            pid, pidfd = self.answer(launch_order(plan, place))
            launched = Launched(int(pid), pidfd)
            launched.start = launch.start_time(launched.pid)
            theirs.close()
            try:
                message, launched.terminal = channel.receive(ours)
                if message:
                    channel.receive(ours)
            except LaunchError:
                launch.abandon(launched)
                raise
        except LaunchError:
            streams.close()
            raise
        finally:
            cgroup.close()
            for end in (ours, theirs):
                end.close()
            os.close(network)
        streams.started(launched.terminal)
        self.number += 1
        self.held[self.number] = launched, streams
        return {"number": self.number, "pid": launched.pid, "start": launched.start}

    def answer(self, order: Order) -> tuple[bytes, int]:
        self.spawner.send(order)
        answer, fd = self.spawner.receive()
        order.close()
        if answer[:1] == channel.ERROR:
            raise decode(answer[1:])
        return answer, fd

    def do_execute(self, request: dict[str, Any]) -> dict[str, Any]:
        container = self.held[request["container"]][0]
        streams, cgroup = Streams(request["process"]), Cgroup(request)
        try:
            launched = launch.execute(
                container.pidfd, request["process"], streams.theirs, cgroup.v2_fd, cgroup.procs_fds
            )
        except LaunchError:
            streams.close()
            raise
        finally:
            cgroup.close()
        streams.started(launched.terminal)
        self.number += 1
        self.held[self.number] = launched, streams
        return {"number": self.number, "pid": launched.pid}

    def do_input(self, request: dict[str, Any]) -> dict[str, Any]:
        streams = self.held[request["number"]][1]
        os.write(streams.input, request["text"].encode())
        if request["last"]:
            os.close(streams.input)
            streams.input = -1
        return {}

    def do_read(self, request: dict[str, Any]) -> dict[str, Any]:
        """Standard output until `until` is in it."""
        streams = self.held[request["number"]][1]
        fd = next(iter(streams.fds))
        while request["until"].encode() not in streams.fds[fd]:
            data = os.read(fd, 65536)
            if not data:
                break
            streams.fds[fd] += data
        return {"output": streams.fds[fd].decode("utf-8", "replace")}

    def do_wait(self, request: dict[str, Any]) -> dict[str, Any]:
        launched, streams = self.held.pop(request["number"])
        output = streams.read()
        result = os.waitid(os.P_PIDFD, launched.pidfd, os.WEXITED)
        assert result is not None
        os.close(launched.pidfd)
        streams.close()
        code = result.si_status if result.si_code == os.CLD_EXITED else 128 + result.si_status
        return {"code": code, "output": output[0], "errors": "".join(output[1:])}

    def do_kill(self, request: dict[str, Any]) -> dict[str, Any]:
        signals.kill(self.held[request["number"]][0].pidfd)
        return {}

    def do_residue(self, request: dict[str, Any]) -> dict[str, Any]:
        """What would be left over: descriptors of this process, and its children."""
        with open(f"/proc/self/task/{os.getpid()}/children") as children:
            return {"fds": len(os.listdir("/proc/self/fd")), "children": children.read().split()}


def main() -> None:
    stage.enter(sys.argv[1])
    memory_killer.go_last()
    os.dup2(0, 63)  # descriptors that a careless library left open and inheritable
    os.open("/", os.O_RDONLY)
    os.set_inheritable(os.open("/etc", os.O_RDONLY), True)
    server = Server()
    for line in sys.stdin:
        try:
            answer = {"result": server.serve(json.loads(line))}
        except LaunchError as error:
            answer = {"error": {"stage": error.stage, "errno": error.errno, "message": error.message}}
        print(json.dumps(answer), flush=True)
    for launched, _ in reversed(list(server.held.values())):  # executions before their container: it waits for them
        signals.kill(launched.pidfd)
        os.waitid(os.P_PIDFD, launched.pidfd, os.WEXITED)
    server.spawner.close()
