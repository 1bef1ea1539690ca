"""/etc/hosts, /etc/hostname and /etc/resolv.conf of a container: pure texts, and writing them in place.

In place: they are bind-mounted, so a file that took the old one's name would not be seen inside.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from sdn.model.container import Interface

NAMES = ("hosts", "hostname", "resolv.conf")
RESOLV_BYTES_MAX = 1 << 16
LOCAL_HOSTS = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nff02::1\tip6-allnodes\n"


def hosts_text(hostname: str, name: str, interfaces: Iterable[Interface]) -> str:
    """Its own names, at each of its addresses; where it has none, at the loopback."""
    names = " ".join(dict.fromkeys((hostname, name)))
    addresses = [address.partition("/")[0] for interface in interfaces for address in interface.addresses]
    return LOCAL_HOSTS + "".join(f"{address}\t{names}\n" for address in addresses or ["127.0.1.1"])


def resolv_text(of_the_host: str) -> str:
    """The host's, without name servers that only the host can reach (its loopback)."""
    kept = [line for line in of_the_host.splitlines() if not _is_loopback_server(line)]
    return "".join(f"{line}\n" for line in kept)


def _is_loopback_server(line: str) -> bool:
    words = line.split()
    if len(words) < 2 or words[0] != "nameserver":
        return False
    return words[1].startswith("127.") or words[1].partition("%")[0] == "::1"


def read_resolv(path: str = "/etc/resolv.conf") -> str:
    """The host's file; a host without one has containers without."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(RESOLV_BYTES_MAX)
    except OSError:
        return ""


def write_in_place(path: str, text: str) -> None:
    """The same inode with new content."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
