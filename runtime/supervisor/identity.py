"""Who a container's process is: its user looked up in the container's own files, and the rights that it keeps."""

from __future__ import annotations

import os
import stat

from runtime.supervisor.failure import LaunchError
from runtime.syscall import (
    PR_CAP_AMBIENT,
    PR_CAP_AMBIENT_CLEAR_ALL,
    PR_CAPBSET_DROP,
    capset,
    permitted_capabilities,
    prctl,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_FILE_BYTES_MAX = 1 << 20
"""Of an image's passwd and group only so much is read: they are somebody else's."""
_ID_MAX = 2**31 - 1
_CAPABILITIES = 41
"""Linux 5.9 to 6.18; dropping one that the kernel lacks is an error that is no error."""


class Identity:
    """Who a process will be."""

    __slots__ = ("gid", "groups", "home", "uid")

    def __init__(self, uid: int, gid: int, groups: list[int], home: str) -> None:
        self.uid = uid
        self.gid = gid
        self.groups = groups
        self.home = home


def look_up(user: str) -> Identity:
    """`name|uid[:group|gid]` by /etc/passwd and /etc/group of the present root; "" is root. Raises LaunchError.

    As Docker does it: a number that has no entry is taken as it is, with group 0; supplementary groups come from the
    user's name, unless a group is given.
    """
    name, _, group = user.partition(":")
    name = name or "0"
    entry = _find_user(name)
    if entry is None:
        if not _is_id(name):
            raise LaunchError("user", 0, f"the user {name!r} is not in the image's /etc/passwd")
        login, uid, gid, home = "", int(name), 0, "/"
    else:
        login, uid, gid, home = entry
    if group:
        return Identity(uid, _find_group(group), [], home)
    return Identity(uid, gid, _groups_of(login) if login else [], home)


def _find_user(name: str) -> tuple[str, int, int, str] | None:
    by_number = None
    for fields in _entries("/etc/passwd"):
        if len(fields) >= 6 and _is_id(fields[2]) and _is_id(fields[3]):
            if fields[0] == name:
                return fields[0], int(fields[2]), int(fields[3]), fields[5] or "/"
            if by_number is None and fields[2] == name:
                by_number = fields[0], int(fields[2]), int(fields[3]), fields[5] or "/"
    return by_number


def _find_group(name: str) -> int:
    for fields in _entries("/etc/group"):
        if fields[0] == name and len(fields) >= 3 and _is_id(fields[2]):
            return int(fields[2])
    if _is_id(name):
        return int(name)
    raise LaunchError("user", 0, f"the group {name!r} is not in the image's /etc/group")


def _groups_of(login: str) -> list[int]:
    return [
        int(fields[2])
        for fields in _entries("/etc/group")
        if len(fields) >= 4 and _is_id(fields[2]) and login in fields[3].split(",")
    ][:65536]


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= _ID_MAX


def _entries(path: str) -> Iterator[list[str]]:
    """The lines of a file that may be absent, huge, no text, or a pipe that never ends."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        status = os.fstat(fd)
        content = os.read(fd, min(status.st_size, _FILE_BYTES_MAX)) if stat.S_ISREG(status.st_mode) else b""
    except OSError:
        return
    finally:
        os.close(fd)
    for line in content.decode("utf-8", "surrogateescape").splitlines():
        yield line.strip().split(":")


def bits_of(capabilities: list[int]) -> int:
    """Those of them that we have ourselves: none can be given that is not held."""
    bits = 0
    for number in capabilities:
        bits |= 1 << number
    return bits & permitted_capabilities()


def assume(identity: Identity, bits: int) -> None:
    """Become it for good. Root keeps `bits`; another user has them as its bounding set alone. Raises OSError."""
    for number in range(_CAPABILITIES):
        if not bits >> number & 1:
            prctl(PR_CAPBSET_DROP, number)
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    os.setgroups(identity.groups)
    os.setresgid(identity.gid, identity.gid, identity.gid)
    os.setresuid(identity.uid, identity.uid, identity.uid)
    capset(0 if identity.uid else bits)
