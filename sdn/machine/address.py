"""Which address a machine is reached by, as its routes say."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import NamedTuple

from sdn.model.address import is_loopback, parse_address
from sdn.model.errors import invalid

PORT_DEFAULT = 4780
LOOPBACK = "127.0.0.1"
SOMEWHERE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
"""Documentation's addresses (RFC 5737, RFC 3849): only the default route leads there. Nothing is sent."""
_UP, _FIELDS, _FIELDS6 = 1, 8, 10


class Listen(NamedTuple):
    """`why`: for people. `alone`: other machines cannot reach it."""

    text: str
    why: str
    alone: bool


def choose_listen() -> Listen:
    """The address of the default route's link; of the loopback where there is no such route."""
    for family, somewhere in SOMEWHERE:
        link = default_link(family)
        address = source_towards(somewhere, family) if link else None
        if address is not None:
            text = f"[{address}]:{PORT_DEFAULT}" if ":" in address else f"{address}:{PORT_DEFAULT}"
            return Listen(text, f"the address of {link}, the link of the default route", False)
    return Listen(f"{LOOPBACK}:{PORT_DEFAULT}", "there is no default route: no other machine can join", True)


def default_link(family: int) -> str | None:
    """The name of the link that the best default route leaves by; None: there is none."""
    found: list[tuple[int, str]] = []
    if family == socket.AF_INET:
        for line in _lines("/proc/net/route")[1:]:
            words = line.split()
            if len(words) > _FIELDS and words[1] == words[7] == "00000000" and int(words[3], 16) & _UP:
                found.append((int(words[6]), words[0]))
    else:
        for line in _lines("/proc/net/ipv6_route"):
            words = line.split()
            if len(words) == _FIELDS6 and words[0] == "0" * 32 and words[1] == "00" and words[9] != "lo":
                found.append((int(words[5], 16), words[9]))
    return min(found)[1] if found else None


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:  # a kernel without that family
        return []


def source_towards(address: str, family: int | None = None) -> str | None:
    """The address that this machine would send from; None: there is no way there. Nothing is sent."""
    chosen = family or (socket.AF_INET6 if ":" in address else socket.AF_INET)
    try:
        with socket.socket(chosen, socket.SOCK_DGRAM) as probe:
            probe.connect((address, PORT_DEFAULT))
            source = str(probe.getsockname()[0])
    except OSError:
        return None
    return None if source in ("0.0.0.0", "::") or source.startswith("fe80:") else source  # noqa: S104 compared with


def parse_vteps(texts: list[str]) -> dict[str, str]:
    """`--vtep` to `vtep4` and `vtep6`. Raises: INVALID."""
    found: dict[str, str] = {}
    for text in texts:
        address = parse_address(text)
        key = "vtep6" if ":" in address else "vtep4"
        if key in found:
            raise invalid(f"--vtep {text}: there is {found[key]} already", "give one of each family at most")
        found[key] = address
    return found


def is_here(address: str) -> bool:
    """Whether it is one of this machine's own addresses."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def require_here(vteps: dict[str, str]) -> None:
    """Tunnels end where the address is. Raises: INVALID where this machine does not have it."""
    for vtep in vteps.values():
        if not is_here(vtep):
            raise invalid(
                f"--vtep {vtep}: this machine does not have that address", "see 'ip address' for those it has"
            )


def vteps_towards(host: str) -> dict[str, str]:
    """The VTEPs that this machine will have: the sources of its ways to a controller's addresses."""
    found: dict[str, str] = {}
    try:
        rows = socket.getaddrinfo(host, PORT_DEFAULT, type=socket.SOCK_STREAM)
    except OSError:
        return found
    for family, _, _, _, name in rows:
        key = "vtep6" if family == socket.AF_INET6 else "vtep4"
        source = source_towards(str(name[0]), family)
        if key not in found and source is not None and not is_loopback(source):
            found[key] = source
    return found
