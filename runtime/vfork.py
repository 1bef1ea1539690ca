"""A child that borrows its parent's memory until it executes a program: vfork(2), for Python. Linux on x86-64.

fork(2) copies the page tables of the interpreter, then one page after the other that either of the two writes, which
is every one with a reference count that changes: hundreds of page faults; and execve throws all of it away. Here
nothing is copied: the child runs in the parent's memory, while the parent stands still. What it prepares in Python is
as if the parent had called a function, but for what the kernel keeps by process: namespaces, descriptors, rights.

What vfork(2) forbids is to return from the function that called it, for its frame is the parent's too. So that function
is neither Python's nor libc's, but the instructions below. In the child they call `prepare`, whose frames are gone
again when it returns, and then make the system call execve themselves; the parent goes on behind them with an
interpreter in which one call was made. A child that was killed within `prepare` leaves one in the middle of something:
then the instructions end the parent, too.
"""

from __future__ import annotations

import ctypes
import mmap
import os

from runtime import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Job(Protocol):
        """What is done in the child."""

        def prepare(self) -> tuple[str, list[str], dict[str, str]]:
            """Everything that comes before execve: file, arguments, environment. May raise anything."""

        def refuse(self, error: BaseException) -> None:
            """`prepare` raised this; or an OSError of execve. Tell it: the child ends when this returns."""


_CLONE_VM, _CLONE_VFORK = 0x100, 0x4000
_MACHINE = "x86_64"
_ARGUMENTS, _SIZE, _PREPARE, _PATH, _ARGV, _ENVIRONMENT, _REFUSE, _DONE = range(8)
"""The words of the block that the instructions are called with."""
_PROGRAM = """
    53                      | push rbx
    48 89 fb                | mov rbx, rdi              the block
    48 8b 3b                | mov rdi, [rbx]            ARGUMENTS
    48 8b 73 08             | mov rsi, [rbx+8]          SIZE
    b8 b3 01 00 00          | mov eax, 435
    0f 05                   | syscall                   clone3
    48 85 c0                | test rax, rax
    75 44                   | jnz parent
    ff 53 10                | call [rbx+16]             PREPARE
    85 c0                   | test eax, eax
    75 29                   | jnz leave
    48 c7 43 38 01 00 00 00 | mov qword [rbx+56], 1     DONE: Python's frames are gone
    48 8b 7b 18             | mov rdi, [rbx+24]         PATH
    48 8b 73 20             | mov rsi, [rbx+32]         ARGV
    48 8b 53 28             | mov rdx, [rbx+40]         ENVIRONMENT
    b8 3b 00 00 00          | mov eax, 59
    0f 05                   | syscall                   execve; it returns where it failed
    48 c7 43 38 00 00 00 00 | mov qword [rbx+56], 0     DONE no more
    48 89 c7                | mov rdi, rax
    ff 53 30                | call [rbx+48]             REFUSE
    48 c7 43 38 01 00 00 00 | leave: mov qword [rbx+56], 1
    bf 7f 00 00 00          | mov edi, 127
    b8 e7 00 00 00          | mov eax, 231
    0f 05                   | syscall                   exit_group
    78 13                   | parent: js out            no child was made
    48 83 7b 38 00          | cmp qword [rbx+56], 0
    75 0c                   | jne out
    bf 01 00 00 00          | mov edi, 1                it was killed in the middle
    b8 e7 00 00 00          | mov eax, 231
    0f 05                   | syscall                   exit_group
    5b                      | out: pop rbx
    c3                      | ret
"""


class Vfork:
    """The instructions in memory, and the one job that is under way. For a process with one thread."""

    def __init__(self) -> None:
        """Raises: OSError where memory may not be executed."""
        code = bytes.fromhex("".join(line.partition("|")[0] for line in _PROGRAM.splitlines()))
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)
        self._memory.write(code)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        syscall.make_executable(address, mmap.PAGESIZE)
        self._run = ctypes.PYFUNCTYPE(ctypes.c_long, ctypes.c_void_p)(address)
        self._callbacks = (
            ctypes.PYFUNCTYPE(ctypes.c_int)(self._prepare),
            ctypes.PYFUNCTYPE(None, ctypes.c_long)(self._refuse),
        )
        self._block = (ctypes.c_void_p * 8)()
        self._block[_PREPARE], self._block[_REFUSE] = [
            ctypes.cast(one, ctypes.c_void_p).value for one in self._callbacks
        ]
        self._job: Job | None = None
        self._kept: tuple[object, ...] = ()

    def spawn(self, job: Job, flags: int, cgroup_fd: int = -1) -> tuple[int, int]:
        """As `syscall.clone3`, in the parent alone: (pid, pidfd) once the child has executed, or has refused.

        Raises: OSError (no child could be made). Ends this process where the child was killed before it could execute.
        """
        block = self._block
        block[_ARGUMENTS], block[_SIZE] = syscall.clone_arguments(flags | _CLONE_VM | _CLONE_VFORK, cgroup_fd)
        block[_DONE] = 0
        self._job = job
        try:
            pid = self._run(ctypes.addressof(block))
        finally:
            self._job, self._kept = None, ()
        if pid < 0:
            raise OSError(-pid, os.strerror(-pid))
        return pid, syscall.cloned_pidfd()

    def _prepare(self) -> int:
        """In the child. What it makes is the parent's as well: pointers stay good until execve has read them."""
        assert self._job is not None
        try:
            path, argv, environment = self._job.prepare()
            file = ctypes.c_char_p(_bytes(path))
            words = _array([_bytes(word) for word in argv])
            values = _array([_bytes(f"{name}={value}") for name, value in environment.items()])
            self._kept = (file, words, values)
            self._block[_PATH] = ctypes.cast(file, ctypes.c_void_p).value
            self._block[_ARGV], self._block[_ENVIRONMENT] = ctypes.addressof(words), ctypes.addressof(values)
        except BaseException as error:  # noqa: BLE001 - the whole life of a process: nothing may get out of it
            self._job.refuse(error)
            return 1
        return 0

    def _refuse(self, number: int) -> None:
        """In the child: execve failed."""
        assert self._job is not None
        self._job.refuse(OSError(-number, os.strerror(-number)))


def make() -> Vfork | None:
    """None where there is no such thing: on another machine, or where memory may not be executed (SELinux)."""
    if os.uname().machine != _MACHINE:
        return None
    try:
        return Vfork()
    except OSError:
        return None


def _bytes(text: str) -> bytes:
    """As execve takes it. Raises: ValueError (a zero byte)."""
    data = os.fsencode(text)
    if b"\0" in data:
        raise ValueError("embedded null byte")
    return data


def _array(texts: list[bytes]) -> ctypes.Array[ctypes.c_char_p]:
    return (ctypes.c_char_p * (len(texts) + 1))(*texts)
