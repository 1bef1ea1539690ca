"""OpenFlow over asyncio: a session on a unix socket, TCP or TLS, with a future for each request.

One event loop owns a connection; a program with threads hands calls over with `run_coroutine_threadsafe`. Nothing waits
without a bound: each request has a time, after which it fails with UNAVAILABLE. Events are handed to a function as they
arrive; nothing of them is queued, so nothing grows.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from typing import Any

Event = Any
Features = Any
Refusal = Any
Port = Any
Error = Any


class Connection:
    """The controller's end of a connection to a switch, after the handshake.

    Every coroutine raises HawseError (UNAVAILABLE) when the switch is gone, or does not answer in `timeout_s`.
    """

    peer: str
    """Where it is, as a person writes it: `unix:/run/openvswitch/hwint.mgmt`, `tcp:192.0.2.1:6653`."""
    features: Features
    """What the switch says of itself: datapath_id, tables, buffers, capabilities."""

    async def bundle(self, groups: Sequence[Sequence[bytes]], timeout_s: float | None = None) -> list[Refusal | None]:
        """Have groups of encoded messages (flow-mods; whatever xid) done at once; a verdict for each group.

        A group of which a message is refused is left out as a whole, the others are done without it. `Refusal.text` says
        what the switch's error was, `Refusal.message` which of the group's messages.
        """
        raise NotImplementedError

    async def barrier(self, timeout_s: float | None = None) -> None:
        """Wait until everything sent before has been done."""
        raise NotImplementedError

    async def multipart(self, kind: int, body: bytes = b"", timeout_s: float | None = None) -> list[bytes]:
        """Ask for a multipart reply; the bodies of its parts, each a whole number of entries."""
        raise NotImplementedError

    async def flow_stats(self, cookie: int = 0, cookie_mask: int = 0, timeout_s: float | None = None) -> list[bytes]:
        """The flows of all tables with a cookie: bodies of ofp_flow_stats, for `decode`."""
        raise NotImplementedError

    async def port_desc(self, timeout_s: float | None = None) -> list[Port]:
        """The ports: number, name, mac, …"""
        raise NotImplementedError

    async def request(self, message: Any, timeout_s: float | None = None) -> Any:
        """Ask something (a value of `messages`), and wait for the value that answers it. Raises: what the switch says."""
        raise NotImplementedError

    def post(self, *messages: bytes) -> None:
        """Send encoded messages that nothing answers (their xid is replaced); an error becomes an event (Complaint)."""
        raise NotImplementedError

    def packet_out(self, port: int, frame: bytes) -> None:
        """Send a frame out of a port. An error becomes an event (Complaint)."""
        raise NotImplementedError

    def close(self) -> None:
        """End it in order: what is written is sent, every waiting request fails. Twice is fine."""
        raise NotImplementedError

    async def wait_closed(self) -> None:
        """Wait until it is closed, by whomever."""
        raise NotImplementedError


async def connect(
    address: str,
    *,
    events: Callable[[Event], None],
    tls: ssl.SSLContext | None = None,
    timeout_s: float = 2.0,
) -> Connection:
    """Connect to a switch (`unix:/path`, `tcp:host:port`, `ssl:host:port`), handshake included.

    `events` is called in the loop with PacketIn, FlowRemoved, PortStatus, Complaint, Unasked, Update, and as the last
    thing, once, Ended (whose `error` says why, None after `close`). It must not block.
    """
    raise NotImplementedError


class Listener:
    """A place where switches connect to."""

    address: str
    """With the port that was given, if 0 was asked for."""

    async def close(self) -> None:
        """Take no more; connections made live on, those amid their handshake end."""
        raise NotImplementedError


async def listen(
    address: str,
    accepted: Callable[[Connection], Callable[[Event], None]],
    *,
    refused: Callable[[str, Exception], None],
    tls: ssl.SSLContext | None = None,
    handshake_s: float = 5.0,
    most: int = 64,
) -> Listener:
    """Take connections of switches. After each handshake `accepted` is called, and says who gets its events.

    `refused` is told (peer, why) of each that did not get that far. More than `most` handshakes at once are not begun.
    """
    raise NotImplementedError
