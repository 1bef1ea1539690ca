"""The spawner: a child of the supervisor that makes containers' first processes, and their surroundings beforehand.

Three things make a launch dear, and none is done while somebody waits for one. To copy a process: the first process of
a container borrows the spawner's memory until it executes its command (`vfork`), and nothing is copied. To make
namespaces: the spawner stands in the network and IPC namespaces that the *next* container is born into, with that
container's /dev mounted beside (`surroundings`); as soon as one is born it makes new ones. And the interpreter's first
times: it does all of this over and over in one process.

Containers are the supervisor's children all the same (CLONE_PARENT): it alone waits for them. A spawner serves one
order after the other, and ends when the supervisor does, by the end of file. An order is `NETWORK`: its network
namespace, given away before there is a process; or a launch, answered with the process once it has executed its command
or told its gate why not. Where memory cannot be borrowed, and for a process that stays what it is (`--init`), the
process is a fork, and the answer comes at once.
"""

from __future__ import annotations

import _socket
import gc
import marshal
import os
import struct

from runtime import vfork
from runtime.supervisor import channel, child, signals, stage, surroundings
from runtime.supervisor.failure import failed
from runtime.supervisor.own_log import say
from runtime.syscall import CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUTS, CLONE_PARENT, clone3, close_range

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from runtime.plan import LaunchPlan

ORDER_FD = 3
ORDER_BYTES_MAX = 65536
"""A longer one, with a huge environment, comes in a file in memory."""
_NETWORK = b"network"
_LONG = b"long"
_FDS_MAX = 16
_NAMESPACES = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWPID


class Order:
    """A message, and the descriptors that go along: the caller's, and open until there is an answer."""

    __slots__ = ("_long", "fds", "message")

    def __init__(self, message: bytes, fds: tuple[int, ...]) -> None:
        self.message = message
        self.fds = fds
        self._long = -1
        if len(message) > ORDER_BYTES_MAX:
            self._long = os.memfd_create("order")
            os.write(self._long, message)
            self.message, self.fds = _LONG, (self._long, *fds)

    def close(self) -> None:
        """There is an answer. Twice is fine."""
        if self._long >= 0:
            os.close(self._long)
            self._long = -1


def network_order() -> Order:
    """For a network namespace; the answer comes with its descriptor."""
    return Order(_NETWORK, ())


def launch_order(plan: LaunchPlan, inheritance: child.Inheritance) -> Order:
    """For a container's first process; the answer is its pid, and comes with its pidfd. Raises: OSError."""
    places = (*inheritance.stdio, inheritance.v2_fd, inheritance.network_fd)
    given = tuple([fd >= 0 for fd in places])
    fds = (inheritance.channel_fd, *[fd for fd in places if fd >= 0], *inheritance.procs_fds)
    return Order(marshal.dumps((dict(plan), given, inheritance.filter_bytes)), fds)


class Spawner:
    """The supervisor's side of one. Its socket is ready when there is an answer, or when it is gone."""

    __slots__ = ("_orders", "pid")

    def __init__(self) -> None:
        """Fork it: early, while there is little to be copied. Raises: OSError."""
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
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

    def fileno(self) -> int:
        """To be watched."""
        return self._orders.fileno()

    def send(self, order: Order) -> None:
        """To one that has no order. Raises: OSError; BrokenPipeError, ConnectionResetError: it is gone."""
        rights = struct.pack(f"{len(order.fds)}i", *order.fds)
        ancillary = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)] if rights else []
        self._orders.sendmsg([order.message], ancillary)

    def receive(self) -> tuple[bytes, int]:
        """Its answer, waited for, and the descriptor that came with it, or -1; b"": it is gone."""
        try:
            answer, ancillary, _, _ = self._orders.recvmsg(4096, 64, _socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            return b"", -1
        return answer, struct.unpack_from("<i", ancillary[0][2])[0] if ancillary else -1

    def kill(self) -> None:
        """Its socket tells when it is gone."""
        os.kill(self.pid, signals.KILL)

    def close(self) -> None:
        """End it, and wait for that. It has nothing that is worth keeping."""
        self._orders.close()
        self.kill()
        os.waitpid(self.pid, 0)

    def leave(self) -> None:
        """Let it end by itself: for who has no time to wait, and reaps all children anyway."""
        self._orders.close()


def _be(theirs: _socket.socket) -> NoReturn:
    """The process itself; all signals are blocked and as they are by default, here and in what it makes."""
    try:
        gc.disable()
        signals.default()
        os.dup2(theirs.fileno(), ORDER_FD, inheritable=False)
        close_range(ORDER_FD + 1)
        _serve(_socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, ORDER_FD))
    except (BrokenPipeError, ConnectionResetError):  # the supervisor was killed amid its order
        os._exit(0)
    except BaseException as error:  # noqa: BLE001 - a copy of the supervisor: nothing may get out of it
        say(f"the spawner ends: {error!r}")
    finally:
        os._exit(1)


def _serve(orders: _socket.socket) -> None:
    surroundings.enter()
    borrowing = vfork.make()
    room = _socket.CMSG_SPACE(_FDS_MAX * 4)
    network = True
    while True:
        try:
            surroundings.prepare(stage.directory, network=network)
        except OSError as error:
            orders.recv(1)
            orders.send(channel.ERROR + failed("clone", "making its namespaces failed", error).encode())
            os._exit(1)
        order, ancillary, _, _ = orders.recvmsg(ORDER_BYTES_MAX, room, _socket.MSG_CMSG_CLOEXEC)
        while order == _NETWORK:
            _give_network(orders)
            order, ancillary, _, _ = orders.recvmsg(ORDER_BYTES_MAX, room, _socket.MSG_CMSG_CLOEXEC)
        if not order:
            os._exit(0)
        rights = ancillary[0][2]
        fds = struct.unpack(f"{len(rights) // 4}i", rights)
        network = _launch(orders, order, fds, borrowing)
        for fd in fds:
            os.close(fd)
        surroundings.leave(stage.directory)


def _give_network(orders: _socket.socket) -> None:
    namespace = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    _answer(orders, b"network", namespace)
    surroundings.make_network()


def _launch(orders: _socket.socket, order: bytes, fds: tuple[int, ...], borrowing: vfork.Vfork | None) -> bool:
    """Whether our own network namespace was used."""
    if order == _LONG:
        order = os.pread(fds[0], os.fstat(fds[0]).st_size, 0)
        fds = fds[1:]
    plan, given, filter_bytes = marshal.loads(order)  # noqa: S302 - of our own parent, over a socket pair
    rest = iter(fds[1:])
    *stdio, v2_fd, network_fd = [next(rest) if one else -1 for one in given]
    inheritance = child.Inheritance(fds[0], (stdio[0], stdio[1], stdio[2]), tuple(rest), filter_bytes, stage.directory)
    inheritance.v2_fd, inheritance.network_fd = v2_fd, network_fd
    first = child.First(plan, inheritance)
    try:
        if borrowing is not None and not plan["init"]:
            pid, pidfd = borrowing.spawn(first, _NAMESPACES | CLONE_PARENT, v2_fd)
        else:
            pid, pidfd = clone3(_NAMESPACES | CLONE_PARENT, v2_fd)
            if pid == 0:
                first.run()
    except OSError as error:
        orders.send(channel.ERROR + failed("clone", "making the process failed", error).encode())
    else:
        _answer(orders, b"%d" % pid, pidfd)
    return network_fd < 0


def _answer(orders: _socket.socket, answer: bytes, fd: int) -> None:
    orders.sendmsg([answer], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("<i", fd))])
    os.close(fd)
