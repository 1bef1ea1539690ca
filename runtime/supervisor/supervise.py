"""The supervisor: loop, socket and containers put together, from adoption to one of its ends."""

from __future__ import annotations

import gc
import os
import signal

from runtime.supervisor import adoption, ending, requests
from runtime.supervisor.containers import Containers
from runtime.supervisor.held import PACKET_BYTES_MAX, Held, Link
from runtime.supervisor.loop import Loop
from runtime.supervisor.own_log import say
from runtime.supervisor.server import Answer, Server

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ENDED, UPGRADE, ORPHANED = 0, 75, 76
"""How it ends: for good; for a new program; because the keeper was killed."""


class Places:
    """Where this pair of processes is: directories, and the two descriptors that both have."""

    __slots__ = ("listener", "lock", "run", "state")

    def __init__(self, run: str, state: str, listener: int, lock: int) -> None:
        self.run = run
        self.state = state
        self.listener = listener
        self.lock = lock

    @property
    def entries(self) -> str:
        """A file for each container that is not forgotten."""
        return f"{self.run}/containers"

    def write_pid(self) -> None:
        """The keeper's, for people; the lock is what counts."""
        os.ftruncate(self.lock, 0)
        os.pwrite(self.lock, b"%d\n" % os.getpid(), 0)

    def remove(self) -> None:
        """At the end: nobody is here any more."""
        for name in ("supervisor.sock", "supervisor.pid"):
            ending.remove_entry(f"{self.run}/{name}")


class Supervisor:
    """What the requests work on."""

    __slots__ = ("_code", "_loop", "_run", "_server", "containers", "ending", "keeper")

    def __init__(self, places: Places, held: Held, link: Link) -> None:
        self._loop = Loop()
        self._code = 1
        self.ending = False
        self.keeper = os.getppid()
        self._run = places.run
        self._server = Server(self._loop, places.listener, self._serve, self._gone)
        self.containers = Containers(self._loop, link, places.entries, self._server.tell, held.codes)
        self._loop.watch(link.socket.fileno(), self)
        adoption.adopt(self.containers, held, places.run)

    def run(self) -> int:
        """Until an end. Returns: which."""
        gc.collect()
        gc.freeze()
        gc.disable()
        self._loop.run()
        self._server.close()
        if self._code != ORPHANED:
            self._loop.finish()
        if self._code == ENDED:
            adoption.clear_cgroups(self.containers, self._run)
        return self._code

    def _serve(self, request: dict[str, Any], answer: Answer) -> None:
        requests.serve(self, request, answer)

    def _gone(self, connection: Any) -> None:
        if self._code == 1:
            self.containers.abandon(connection)

    def ready(self, _fd: int, _events: int) -> None:
        """The keeper: a code, or its end."""
        try:
            packet = self.containers.link.socket.recv(PACKET_BYTES_MAX)
        except OSError:
            packet = b""
        if not packet:
            self._stop(ORPHANED)
            return
        verb, *numbers = packet.split()
        if verb == b"reaped":
            self.containers.reaped(int(numbers[0]), int(numbers[1]))
        elif verb == b"terminate" and not self.containers.living:
            self._stop(ENDED)

    def _stop(self, code: int) -> None:
        self._code = code
        self._loop.stop()

    def upgrade(self) -> None:
        """End, so that the keeper becomes the new program."""
        self._stop(UPGRADE)

    def end(self, answer: Answer) -> None:
        """End as soon as the last container has."""
        self.ending = True

        def finish() -> None:
            self.containers.on_idle = None
            answer.result({})
            self._stop(ENDED)

        self.containers.on_idle = finish
        self.containers.idle()

    def hand_over(self, held: Held) -> None:
        """What a keeper in our place has to hold; everything else is closed: the next supervisor opens its own.

        Of a process whose parent was the keeper that was killed only a descriptor from before its end tells the code.
        """
        for container in self.containers.by_id.values():
            names = {"out": container.out, "err": container.err, "in": container.input, "terminal": container.terminal}
            names["process"] = container.pidfd
            names.update({f"bell/{number}": ringing for ringing, number in container.log.bells.items()})
            for name, fd in names.items():
                if fd >= 0:
                    held.hold(f"{container.id}/{name}", os.dup(fd))
            container.close()
        for execution in self.containers.executions.values():
            code = "" if execution.code is None else f" {execution.code}"
            notes = held.notes.setdefault(execution.container, {})
            notes[f"exec/{execution.id}"] = f"{execution.pid} {execution.start}{code}"
            if execution.pidfd >= 0:
                held.hold(f"{execution.container}/process/{execution.id}", os.dup(execution.pidfd))
            execution.close()
        self._loop.close()


def supervise(places: Places, held: Held, link: Link) -> int:
    """Be the supervisor. Returns: how it ended. After `ORPHANED` `held` has what a keeper needs, the rest is closed."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the keeper decides
    supervisor = Supervisor(places, held, link)
    supervisor.containers.spawners.start()  # now: who ended while nobody supervised has been seen to first
    say(f"supervises {len(supervisor.containers.living)} containers in {places.run}")
    code = supervisor.run()
    if code != ORPHANED:
        supervisor.containers.spawners.stop()
    if code == ORPHANED:
        supervisor.containers.spawners.leave()
        supervisor.hand_over(held)
    return code
