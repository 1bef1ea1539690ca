"""System call numbers by name, of libseccomp's tables: for each architecture that a machine's kernel runs.

libseccomp is asked for numbers alone, and loaded at the first question. Not through the binding pyseccomp (the tests
use it): importing that starts ldconfig twice, and it does not tell the library's version, which the cache's key needs.
Source: seccomp_syscall_resolve_name(3), linux/audit.h.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterable, Mapping

from sdn.model.errors import HawseError, Kind

LIBRARY = "libseccomp.so.2"

I386 = 0x40000003
X86_64 = 0xC000003E
ARM = 0x40000028
AARCH64 = 0xC00000B7
ARCHITECTURES: Mapping[str, tuple[int, ...]] = {"x86_64": (X86_64, I386), "aarch64": (AARCH64, ARM)}
"""What the kernel of a machine (as uname(2) says) runs, its own first, as AUDIT_ARCH numbers. Not x32: its calls are
x86-64's with bit 30 set, beyond every known number."""

DIRECT_I386 = {
    name: first + position
    for first, names in (
        (337, "recvmmsg"),
        (345, "sendmmsg"),
        (
            359,
            "socket socketpair bind connect listen accept4 getsockopt setsockopt getsockname getpeername sendto sendmsg"
            " recvfrom recvmsg shutdown",
        ),
        (393, "semget semctl shmget shmctl shmat shmdt msgget msgsnd msgrcv msgctl"),
    )
    for position, name in enumerate(names.split())
}
"""libseccomp answers with socketcall and ipc for these; their own calls are there since Linux 4.3 and 5.1
(the two at the front since 3.0)."""

_RECENT = """
    cachestat fchmodat2 map_shadow_stack futex_wake futex_wait futex_requeue statmount listmount lsm_get_self_attr
    lsm_set_self_attr lsm_list_modules mseal setxattrat getxattrat listxattrat removexattrat
"""
RECENT = {name: 451 + position for position, name in enumerate(_RECENT.split())}
"""For a libseccomp that does not know them yet; the same on every architecture."""


class _Version(ctypes.Structure):
    """struct scmp_version."""

    _fields_ = [("major", ctypes.c_uint), ("minor", ctypes.c_uint), ("micro", ctypes.c_uint)]


@functools.cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise HawseError(
            Kind.UNAVAILABLE,
            f"cannot make a seccomp filter: {error}",
            hint="install libseccomp (Debian: apt install libseccomp2)",
        ) from None
    library.seccomp_syscall_resolve_name_arch.argtypes = (ctypes.c_uint32, ctypes.c_char_p)
    library.seccomp_version.restype = ctypes.POINTER(_Version)
    return library


def version() -> str:
    """`major.minor.micro` of the library that is loaded. Raises: UNAVAILABLE (there is none)."""
    found = _library().seccomp_version().contents
    return f"{found.major}.{found.minor}.{found.micro}"


def resolve(names: Iterable[str], architecture: int) -> dict[str, int]:
    """The numbers of those calls that the architecture has. Raises: UNAVAILABLE (no libseccomp)."""
    found = {}
    for name in names:
        number = _library().seccomp_syscall_resolve_name_arch(architecture, name.encode())
        if number < 0 and architecture == I386:
            number = DIRECT_I386.get(name, number)
        if number == -1:  # not of this libseccomp; other negative ones are not of this architecture
            number = RECENT.get(name, number)
        if number >= 0:
            found[name] = number
    return found
