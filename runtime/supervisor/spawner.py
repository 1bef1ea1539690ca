"""The spawner: a child of the supervisor that clones the containers, and has their surroundings ready before.

Two things make a launch dear, and neither is done while somebody waits for one. Cloning a process makes every page that
it writes afterwards a page to be copied: the spawner writes few, the supervisor, which works on, none. And namespaces
take long to make: the spawner stands in the network and IPC namespaces that the *next* container is born into, with
that container's /dev and /sys mounted beside (`surroundings`); as soon as one is born it makes new ones.

Containers are the supervisor's children all the same (CLONE_PARENT): it alone waits for them. One spawner serves one
order after the other, and ends when the supervisor does, by the end of file. One that was killed is replaced.
"""

from __future__ import annotations

import _socket
import errno
import gc
import marshal
import os
import struct

from runtime.supervisor import channel, child, signals, stage, surroundings
from runtime.supervisor.failure import LaunchError, decode, failed
from runtime.supervisor.own_log import say
from runtime.syscall import CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUTS, CLONE_PARENT, clone3, close_range

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from runtime.plan import LaunchPlan

ORDER_FD = 3
ORDER_BYTES_MAX = 65536
"""A longer one, with a huge environment, comes in a file in memory."""
_LONG = b"long"
_FDS_MAX = 16
_NAMESPACES = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWPID
_TIMEOUT = struct.pack("<qq", channel.TIMEOUT_S, 0)


class Spawner:
    """The supervisor's side."""

    __slots__ = ("_orders", "pid")

    def __init__(self) -> None:
        self.pid = 0
        self._orders: _socket.socket | None = None

    def start(self) -> None:
        """Fork it, unless it is there: early, while there is little to be copied. Raises: OSError."""
        if self._orders is not None:
            return
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
        ours.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVTIMEO, _TIMEOUT)
        mask = signals.block()
        try:
            self.pid = os.fork()
            if self.pid == 0:
                _be(theirs)
        except OSError:
            ours.close()
            raise
        finally:
            signals.restore(mask)
            theirs.close()
        self._orders = ours

    def stop(self) -> None:
        """End it, and wait for that; absent is fine. It has nothing that is worth keeping."""
        if self._orders is not None:
            self._orders.close()
            os.kill(self.pid, signals.KILL)
            os.waitpid(self.pid, 0)
            self.pid, self._orders = 0, None

    def leave(self) -> None:
        """Let it end by itself: for who has no time to wait, and reaps all children anyway."""
        if self._orders is not None:
            self._orders.close()
            self.pid, self._orders = 0, None

    def spawn(self, plan: LaunchPlan, inheritance: child.Inheritance, v2_fd: int) -> tuple[int, int]:
        """Clone a container's first process: (pid, pidfd). Raises: LaunchError."""
        places = (*inheritance.stdio, v2_fd)
        given = tuple([fd >= 0 for fd in places])
        fds = [inheritance.channel_fd, *[fd for fd in places if fd >= 0], *inheritance.procs_fds]
        order = marshal.dumps((dict(plan), given, inheritance.filter_bytes))
        long = -1
        try:
            if len(order) > ORDER_BYTES_MAX:
                long = os.memfd_create("order")
                os.write(long, order)
                fds.insert(0, long)
                order = _LONG
            for last in (False, True):
                self.start()
                answer, pidfd = self._ask(order, fds)
                if answer:
                    break
                self.stop()
                if last:
                    raise LaunchError("clone", 0, "the spawner ended twice: the supervisor's log may say why")
        except OSError as error:
            self.stop()  # an answer that came too late would be taken for the next order's
            raise failed("clone", "asking the spawner failed", error) from error
        finally:
            if long >= 0:
                os.close(long)
        if answer[:1] == channel.ERROR:
            raise decode(answer[1:])
        if pidfd < 0:  # it was too much for our table of descriptors: nobody can watch this process
            os.kill(int(answer), signals.KILL)
            os.waitpid(int(answer), 0)
            raise LaunchError("clone", errno.EMFILE, "there is no descriptor left for the process")
        return int(answer), pidfd

    def _ask(self, order: bytes, fds: list[int]) -> tuple[bytes, int]:
        """Its answer; b"": it is gone."""
        assert self._orders is not None
        try:
            rights = struct.pack(f"{len(fds)}i", *fds)
            self._orders.sendmsg([order], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])
            answer, ancillary, _, _ = self._orders.recvmsg(4096, 64, _socket.MSG_CMSG_CLOEXEC)
        except (BrokenPipeError, ConnectionResetError):
            return b"", -1
        return answer, struct.unpack_from("<i", ancillary[0][2])[0] if ancillary else -1


def _be(theirs: _socket.socket) -> NoReturn:
    """The process itself; all signals are blocked, here and in what it clones."""
    try:
        gc.disable()
        os.dup2(theirs.fileno(), ORDER_FD, inheritable=False)
        close_range(ORDER_FD + 1)
        _serve(_socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, ORDER_FD))
    except BaseException as error:  # noqa: BLE001 - a copy of the supervisor: nothing may get out of it
        say(f"the spawner ends: {error!r}")
    finally:
        os._exit(1)


def _serve(orders: _socket.socket) -> None:
    surroundings.enter()
    room = _socket.CMSG_SPACE(_FDS_MAX * 4)
    while True:
        try:
            surroundings.prepare(stage.directory)
        except OSError as error:
            orders.recv(1)
            orders.send(channel.ERROR + failed("clone", "making its namespaces failed", error).encode())
            os._exit(1)
        order, ancillary, _, _ = orders.recvmsg(ORDER_BYTES_MAX, room, _socket.MSG_CMSG_CLOEXEC)
        if not order:
            os._exit(0)
        rights = ancillary[0][2]
        fds = struct.unpack(f"{len(rights) // 4}i", rights)
        _clone(orders, order, fds)
        for fd in fds:
            os.close(fd)
        surroundings.leave(stage.directory)


def _clone(orders: _socket.socket, order: bytes, fds: tuple[int, ...]) -> None:
    if order == _LONG:
        order = os.pread(fds[0], os.fstat(fds[0]).st_size, 0)
        fds = fds[1:]
    plan, given, filter_bytes = marshal.loads(order)  # noqa: S302 - of our own parent, over a socket pair
    channel_fd = fds[0]
    rest = iter(fds[1:])
    standard_input, output, errors, v2_fd = [next(rest) if one else -1 for one in given]
    stdio = (standard_input, output, errors)
    inheritance = child.Inheritance(channel_fd, stdio, tuple(rest), filter_bytes, stage.directory)
    try:
        pid, pidfd = clone3(_NAMESPACES | CLONE_PARENT, v2_fd)
    except OSError as error:
        orders.send(channel.ERROR + failed("clone", "making the process failed", error).encode())
        return
    if pid == 0:
        child.run(plan, inheritance, cgroup_view=v2_fd >= 0)
    rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("<i", pidfd))]
    orders.sendmsg([b"%d" % pid], rights)
    os.close(pidfd)


spawner = Spawner()
"""This process's."""
