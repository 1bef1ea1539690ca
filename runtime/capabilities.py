"""Capabilities by name and number, and which of them a container gets.

The usual set is Docker's: enough for an ordinary image's root, nothing that reaches the machine outside its namespaces.
Source: capabilities(7), include/uapi/linux/capability.h.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from sdn.model.errors import HawseError, Kind, invalid

_NAMES = """
    CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
    NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT
    SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL
    SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""
NAMES = tuple(_NAMES.split())
"""Without `CAP_`; the position is the number."""
NUMBERS = {name: number for number, name in enumerate(NAMES)}
_USUAL = """
    AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE NET_RAW SETFCAP SETGID SETPCAP
    SETUID SYS_CHROOT
"""
USUAL = frozenset(_USUAL.split())
ALL = "ALL"
PREFIX = "CAP_"


def resolve(cap_add: Iterable[str], cap_drop: Iterable[str], bounding: frozenset[int] | None = None) -> list[int]:
    """The numbers that a container gets, ascending: the usual ones without `cap_drop`, then with `cap_add`.

    `ALL` in one of them means every capability that can be given. A name in both is given, as Docker does.
    `bounding`: what this process could give at most (its own bounding set); what is usual but not in it is left out.

    Raises: INVALID (no such capability, ALL in both), DENIED (a wished one is not in the bounding set).
    """
    can_give = read_bounding() if bounding is None else bounding
    added, dropped = {parse(name) for name in cap_add}, {parse(name) for name in cap_drop}
    if ALL in added and ALL in dropped:
        raise invalid("all capabilities cannot be both added and dropped", "give ALL in one of the two")
    for name in sorted(added - {ALL}, key=NUMBERS.__getitem__):
        if NUMBERS[name] not in can_give:
            raise HawseError(
                Kind.DENIED,
                f"cannot give the capability {PREFIX}{name}: the runtime itself does not have it",
                hint="leave it out, or start the runtime with it",
                facts={"capability": PREFIX + name},
            )
    if ALL in added:
        return sorted(can_give - {NUMBERS[name] for name in dropped})
    kept = set() if ALL in dropped else USUAL - dropped
    return sorted({NUMBERS[name] for name in kept | added} & can_give)


def parse(text: str) -> str:
    """A capability's name without its prefix, or `ALL`, of a name in any case. Raises: INVALID, with the nearest."""
    name = text.strip().upper().removeprefix(PREFIX)
    if name == ALL or name in NUMBERS:
        return name
    near = difflib.get_close_matches(name, NAMES, n=1)
    hint = f"did you mean {PREFIX}{near[0]}?" if near else "see capabilities(7), or give ALL"
    raise invalid(f"there is no capability {text!r}", hint, capability=text)


def read_bounding() -> frozenset[int]:
    """This process's bounding set, as numbers (those of a newer kernel without a name here too)."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        mask = next(int(line.split()[1], 16) for line in file if line.startswith("CapBnd:"))
    return frozenset(number for number in range(mask.bit_length()) if mask >> number & 1)
