"""The system calls that Python's standard library lacks, but for those of `vfork`. Linux on x86-64 and aarch64.

Every function raises `OSError` with the call's errno. The functions hold the interpreter's lock while they run (PyDLL):
`clone3` must, because its child inherits the lock's state, and the supervisor has one thread anyway. Sources:
include/uapi/linux/{sched,mount,openat2,seccomp,capability,pidfd,keyctl}.h of the kernel.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_PARENT = 0x00008000
CLONE_PIDFD = 0x00001000
CLONE_INTO_CGROUP = 0x200000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_MOVE = 8192
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MNT_DETACH = 2

OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
AT_RECURSIVE = 0x8000
AT_EMPTY_PATH = 0x1000
AT_FDCWD = -100
MOVE_MOUNT_F_EMPTY_PATH = 4
MOVE_MOUNT_T_EMPTY_PATH = 0x40
MOUNT_ATTR_RDONLY = 1
MOUNT_ATTR_NOSUID = 2
MOUNT_ATTR_NODEV = 4
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_IN_ROOT = 0x10

CLOSE_RANGE_CLOEXEC = 4
FALLOC_FL_KEEP_SIZE = 1
FALLOC_FL_PUNCH_HOLE = 2
SPLICE_F_MOVE = 1
SPLICE_F_NONBLOCK = 2

PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4

_PIDFD_GET_INFO = 0xC040FF0B
_PIDFD_INFO_EXIT = 8
_CAPABILITY_VERSION_3 = 0x20080522
_KEYCTL_JOIN_SESSION_KEYRING = 1
_SECCOMP_SET_MODE_FILTER = 1
_SIGCHLD = 17
_PROT_READ, _PROT_EXEC = 1, 4

# (clone, pivot_root, capget, capset, keyctl, seccomp, rt_sigaction): the newer calls have one number on every machine.
_NUMBERS = {"x86_64": (56, 155, 125, 126, 250, 317, 13), "aarch64": (220, 41, 90, 91, 219, 277, 134)}
_CLONE, _PIVOT_ROOT, _CAPGET, _CAPSET, _KEYCTL, _SECCOMP, _SIGACTION = _NUMBERS.get(os.uname().machine, (-1,) * 7)
_OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT = 428, 429, 430, 431, 432
_CLONE3, _CLOSE_RANGE, _OPENAT2, _MOUNT_SETATTR = 435, 436, 437, 442

_libc = ctypes.PyDLL(None, use_errno=True)
_int, _long, _text, _pointer = ctypes.c_int, ctypes.c_long, ctypes.c_char_p, ctypes.c_void_p


def _checked(result: int, function: object, arguments: object) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _function(name: str, *argtypes: Any) -> Any:
    """A function of libc that raises. Each caller has its own object, since the prototypes of syscall(2) differ."""
    function: Any = _libc[name]
    function.argtypes = argtypes
    function.restype = _long
    function.errcheck = _checked
    return function


def _integer_function(name: str, *argtypes: Any) -> Any:
    function = _function(name, *argtypes)
    function.restype = _int
    return function


class _CloneArguments(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint64)
        for name in ("flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size", "tls")
    ] + [(name, ctypes.c_uint64) for name in ("set_tid", "set_tid_size", "cgroup")]


class _OpenHow(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


class _MountAttributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns_fd")]


class _Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", _text)]


_call_clone3 = _function("syscall", _long, _pointer, _long)
_call_clone = _function("syscall", _long, _long, _long, _long, _long, _long)
_call_openat2 = _function("syscall", _long, _long, _text, _pointer, _long)
_call_open_tree = _function("syscall", _long, _long, _text, _long)
_call_move_mount = _function("syscall", _long, _long, _text, _long, _text, _long)
_call_mount_setattr = _function("syscall", _long, _long, _text, _long, _pointer, _long)
_call_fsopen = _function("syscall", _long, _text, _long)
_call_fsconfig = _function("syscall", _long, _long, _long, _text, _text, _long)
_call_fsmount = _function("syscall", _long, _long, _long, _long)
_call_pivot_root = _function("syscall", _long, _text, _text)
_call_close_range = _function("syscall", _long, _long, _long, _long)
_call_caps = _function("syscall", _long, _text, _text)
_call_keyctl = _function("syscall", _long, _long, _long)
_call_seccomp = _function("syscall", _long, _long, _long, _pointer)
_call_sigaction = _function("syscall", _long, _long, _text, _pointer, _long)
_call_mount = _integer_function("mount", _text, _text, _text, ctypes.c_ulong, _text)
_call_umount2 = _integer_function("umount2", _text, _int)
_call_unshare = _integer_function("unshare", _int)
_call_setns = _integer_function("setns", _int, _int)
_call_prctl = _integer_function("prctl", _int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)
_call_mprotect = _integer_function("mprotect", _pointer, ctypes.c_size_t, _int)
_call_fallocate = _integer_function("fallocate", _int, _int, ctypes.c_int64, ctypes.c_int64)
_call_tee = _function("tee", _int, _int, ctypes.c_size_t, ctypes.c_uint)
_call_memset = _libc["memset"]
_call_memset.argtypes = (_pointer, _int, ctypes.c_size_t)

# Made once: a launch only changes their numbers.
_pidfd = _int(-1)
_clone_arguments = _CloneArguments(pidfd=ctypes.addressof(_pidfd))
_clone_pointer, _clone_size = ctypes.addressof(_clone_arguments), ctypes.sizeof(_clone_arguments)
_how = _OpenHow()
_how_pointer, _how_size = ctypes.addressof(_how), ctypes.sizeof(_how)
_attributes = _MountAttributes()
_attributes_pointer, _attributes_size = ctypes.addressof(_attributes), ctypes.sizeof(_attributes)


def clone3(flags: int, cgroup_fd: int = -1) -> tuple[int, int]:
    """Fork into new namespaces and, where given, a v2 cgroup: (pid, pidfd), in the child (0, -1).

    With CLONE_PARENT it is a child of the caller's parent, with the caller's own exit signal. The child runs without
    the interpreter's or libc's fork handlers: for a single-threaded process, whose child goes straight to exec or
    `os._exit`.
    """
    pid = _call_clone3(_CLONE3, *clone_arguments(flags, cgroup_fd))
    return (pid, _pidfd.value) if pid else (0, -1)


def clone_arguments(flags: int, cgroup_fd: int) -> tuple[int, int]:
    """(address, size) of what clone3(2) takes: for `clone3`, and for who makes the call by other means."""
    _clone_arguments.exit_signal = 0 if flags & CLONE_PARENT else _SIGCHLD
    _clone_arguments.flags = flags | CLONE_PIDFD | (CLONE_INTO_CGROUP if cgroup_fd >= 0 else 0)
    _clone_arguments.cgroup = max(cgroup_fd, 0)
    return _clone_pointer, _clone_size


def cloned_pidfd() -> int:
    """The descriptor of the process that the last call made."""
    return int(_pidfd.value)


def make_executable(address: int, length: int) -> None:
    """Of memory that could be written: from now on it can be executed, and not written. Whole pages."""
    _call_mprotect(address, length, _PROT_READ | _PROT_EXEC)


def clone_sibling() -> int:
    """Fork a child of one's own parent (CLONE_PARENT): its pid as the caller's namespace has it, 0 in it."""
    return int(_call_clone(_CLONE, CLONE_PARENT | _SIGCHLD, 0, 0, 0, 0))


def clone_child() -> int:
    """Fork as `clone3` does, without any namespace: what the clone3-refusing seccomp filters of containers allow."""
    return int(_call_clone(_CLONE, _SIGCHLD, 0, 0, 0, 0))


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    _call_mount(os.fsencode(source), os.fsencode(target), kind.encode(), flags, os.fsencode(data) or None)


def umount2(target: str, flags: int) -> None:
    _call_umount2(os.fsencode(target), flags)


def pivot_root(new: str, old: str) -> None:
    _call_pivot_root(_PIVOT_ROOT, os.fsencode(new), os.fsencode(old))


def unshare(flags: int) -> None:
    _call_unshare(flags)


def setns(fd: int, flags: int) -> None:
    """With a pidfd, several namespaces at once (Linux 5.8)."""
    _call_setns(fd, flags)


def openat2(directory_fd: int, path: str, flags: int, resolve: int) -> int:
    """Open; with RESOLVE_IN_ROOT `directory_fd` is what `/`, `..` and every symbolic link mean."""
    _how.flags, _how.resolve = flags | os.O_CLOEXEC, resolve
    return int(_call_openat2(_OPENAT2, directory_fd, os.fsencode(path), _how_pointer, _how_size))


def open_tree(path: str, flags: int) -> int:
    return int(_call_open_tree(_OPEN_TREE, AT_FDCWD, os.fsencode(path), flags | OPEN_TREE_CLOEXEC))


def move_mount(mount_fd: int, target_fd: int) -> None:
    """Attach a detached mount on what `target_fd` (O_PATH) names."""
    _call_move_mount(_MOVE_MOUNT, mount_fd, b"", target_fd, b"", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH)


def mount_setattr(fd: int, path: str, flags: int, attributes: int, propagation: int = 0) -> None:
    """Set MOUNT_ATTR_* of a mount; with AT_RECURSIVE of all below it too (Linux 5.12)."""
    _attributes.set, _attributes.propagation = attributes, propagation
    _call_mount_setattr(_MOUNT_SETATTR, fd, os.fsencode(path), flags, _attributes_pointer, _attributes_size)


def fsopen(kind: str) -> int:
    return int(_call_fsopen(_FSOPEN, kind.encode(), 1))


def fsconfig_string(fd: int, key: str, value: str) -> None:
    _call_fsconfig(_FSCONFIG, fd, FSCONFIG_SET_STRING, key.encode(), os.fsencode(value), 0)


def fsconfig_flag(fd: int, key: str) -> None:
    _call_fsconfig(_FSCONFIG, fd, FSCONFIG_SET_FLAG, key.encode(), None, 0)


def fsmount(fd: int, attributes: int) -> int:
    """Create what `fsopen` and `fsconfig_…` described: the descriptor of a mount that `move_mount` attaches."""
    _call_fsconfig(_FSCONFIG, fd, FSCONFIG_CMD_CREATE, None, None, 0)
    return int(_call_fsmount(_FSMOUNT, fd, 1, attributes))


def prctl(option: int, first: int = 0, second: int = 0) -> int:
    return int(_call_prctl(option, first, second, 0, 0))


def close_range(first: int, last: int = 0xFFFFFFFF, flags: int = 0) -> None:
    _call_close_range(_CLOSE_RANGE, first, last, flags)


def permitted_capabilities() -> int:
    """The calling process's permitted set, as bits."""
    header = struct.pack("<Ii", _CAPABILITY_VERSION_3, 0)
    data = ctypes.create_string_buffer(24)
    _call_caps(_CAPGET, header, data)
    words: tuple[int, ...] = struct.unpack("<6I", data.raw)
    return words[1] | words[4] << 32


def capset(bits: int) -> None:
    """Make `bits` the permitted and effective set; the inheritable set becomes empty."""
    low, high = bits & 0xFFFFFFFF, bits >> 32
    header = struct.pack("<Ii", _CAPABILITY_VERSION_3, 0)
    _call_caps(_CAPSET, header, struct.pack("<6I", low, low, 0, high, high, 0))


def join_new_session_keyring() -> None:
    _call_keyctl(_KEYCTL, _KEYCTL_JOIN_SESSION_KEYRING, 0)


def seccomp(instructions: bytes) -> None:
    """Load a filter: an array of `struct sock_filter`, 8 bytes each."""
    filter_program = _Filter(len(instructions) // 8, instructions)
    _call_seccomp(_SECCOMP, _SECCOMP_SET_MODE_FILTER, 0, ctypes.addressof(filter_program))


def default_signal(number: int) -> None:
    """The default disposition, of signals too that libc keeps for itself and will not touch (32, 33)."""
    _call_sigaction(_SIGACTION, number, bytes(32), None, 8)


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    _call_fallocate(fd, mode, offset, length)


def tee(source_fd: int, target_fd: int, length: int, flags: int) -> int:
    return int(_call_tee(source_fd, target_fd, length, flags))


def fill_memory(address: int, length: int, value: bytes) -> None:
    """Overwrite memory of this process: `value`, then zeros, `length` in all."""
    _call_memset(address, 0, length)
    ctypes.memmove(address, value, min(len(value), length))


def exit_status(pidfd: int) -> int | None:
    """The wait status of a process that was never our child, by PIDFD_GET_INFO; None while it is not known.

    The kernel keeps it (Linux 6.15) once whoever was its parent has reaped it, for descriptors opened before that.
    """
    info = bytearray(struct.pack("<Q56x", _PIDFD_INFO_EXIT))
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, info)
    except OSError:
        return None
    mask, status = struct.unpack_from("<Q", info)[0], struct.unpack_from("<i", info, 60)[0]
    return int(status) if mask & _PIDFD_INFO_EXIT else None
