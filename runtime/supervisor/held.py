"""What the keeper holds for the supervisor, and the packets by which it comes to hold it.

`fds`: descriptors by owner and name; `notes`: short texts likewise; `codes`: how children of the keeper ended, until
`seen`. A key is an owner (a container's id), a slash and a name: `ID/out`, `ID/err`, `ID/in`, `ID/terminal`,
`ID/bell/3`, `ID/exec/9`; `ID/process` and `ID/process/9` of those whose parent, a keeper, was killed. All of an owner
goes at once.

Packets (SOCK_SEQPACKET, words with blanks between; keys have none): `hold KEY…` with the descriptors in the same
order, `note KEY TEXT`, `drop KEY…` (a bare owner: all that it has), `seen PID`, `upgrade PYTHON\\0PACKAGE`. Back come
`reaped PID CODE`, and `terminate`: somebody wishes the end.
"""

from __future__ import annotations

import array
import os
import socket

PACKET_BYTES_MAX = 4096
FDS_MAX = 8
KNOCK_AFTER = 48
"""Packets that may lie in the socket before the keeper is woken: it need not run for each container. What lies there is
held as well."""


class Held:
    """The keeper's tables. The supervisor that it forks begins with the same."""

    __slots__ = ("codes", "fds", "notes", "upgrade")

    def __init__(self) -> None:
        self.fds: dict[str, dict[str, int]] = {}
        self.notes: dict[str, dict[str, str]] = {}
        self.codes: dict[int, int] = {}
        self.upgrade: tuple[str, str] | None = None

    def apply(self, packet: bytes, fds: list[int]) -> None:
        """One packet of the supervisor's."""
        verb, _, rest = packet.decode().partition(" ")
        if verb == "hold":
            for key, fd in zip(rest.split(), fds, strict=False):
                self.hold(key, fd)
        elif verb == "note":
            key, _, text = rest.partition(" ")
            owner, _, name = key.partition("/")
            self.notes.setdefault(owner, {})[name] = text
        elif verb == "drop":
            for key in rest.split():
                self.drop(key)
        elif verb == "seen":
            self.codes.pop(int(rest), None)
        elif verb == "upgrade":
            python, _, package = rest.partition("\0")
            self.upgrade = (python, package)

    def hold(self, key: str, fd: int) -> None:
        """A descriptor, from now on ours."""
        owner, _, name = key.partition("/")
        names = self.fds.setdefault(owner, {})
        if name in names:
            os.close(names[name])
        names[name] = fd

    def take(self, key: str) -> int:
        """A descriptor that is the caller's from now on; -1: there is none."""
        owner, _, name = key.partition("/")
        return self.fds.get(owner, {}).pop(name, -1)

    def drop(self, key: str) -> None:
        """The key, or all that an owner has."""
        owner, _, name = key.partition("/")
        names, notes = self.fds.get(owner, {}), self.notes.get(owner, {})
        for gone in [name] if name else list(names):
            if gone in names:
                os.close(names.pop(gone))
        for gone in [name] if name else list(notes):
            notes.pop(gone, None)
        if not names:
            self.fds.pop(owner, None)
        if not notes:
            self.notes.pop(owner, None)

    def drain(self, link: socket.socket) -> None:
        """All packets that lie in the socket."""
        while True:
            try:
                packet, ancillary, _, _ = link.recvmsg(
                    PACKET_BYTES_MAX, socket.CMSG_SPACE(FDS_MAX * 4), socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
                )
            except (BlockingIOError, ConnectionResetError):
                return
            if not packet:
                return
            fds = array.array("i")
            for _, _, data in ancillary:
                fds.frombytes(data)
            self.apply(packet, list(fds))


class Link:
    """The supervisor's end: what it says is held from when the call returns, even if it dies then."""

    __slots__ = ("_knock", "_lying", "socket")

    def __init__(self, link: socket.socket, knock: int) -> None:
        self.socket = link
        self._knock = knock
        self._lying = 0

    def hold(self, keys: list[str], fds: list[int]) -> None:
        """Descriptors, in the keys' order; they stay the supervisor's as well."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        self._send(f"hold {' '.join(keys)}", rights)

    def note(self, key: str, text: str) -> None:
        """A text."""
        self._send(f"note {key} {text}")

    def drop(self, key: str, *, at_once: bool = False) -> None:
        """The key, or all that an owner has. `at_once`: somebody waits for the end of file."""
        self._send(f"drop {key}")
        if at_once:
            self.knock()

    def seen(self, pid: int) -> None:
        """A code has been written down."""
        self._send(f"seen {pid}")

    def upgrade(self, python: str, package: str) -> None:
        """With what to begin anew once the supervisor ends with `UPGRADE`."""
        self._send(f"upgrade {python}\0{package}")

    def knock(self) -> None:
        """Wake the keeper."""
        self._lying = 0
        os.eventfd_write(self._knock, 1)

    def _send(self, text: str, rights: list[tuple[int, int, array.array[int]]] = []) -> None:  # noqa: B006 never changed
        try:
            self.socket.sendmsg([text.encode()], rights)
        except (BrokenPipeError, ConnectionError):
            return  # the keeper is gone: the loop learns that from the same socket
        self._lying += 1
        if self._lying >= KNOCK_AFTER:
            self.knock()
