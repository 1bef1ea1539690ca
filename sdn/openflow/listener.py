"""Where switches connect to: each becomes a Connection once its handshake is done."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable

from sdn.model.errors import HawseError, exhausted, unavailable
from sdn.openflow.address import Address
from sdn.openflow.connection import Connection, Receiver
from sdn.openflow.requests import Limits


class Listener:
    """A place where switches connect to. Made by `listen`."""

    def __init__(self, server: asyncio.Server, address: str, shaking: set[Connection]) -> None:
        self.address = address
        """With the port that was given, if 0 was asked for."""
        self._server = server
        self._shaking = shaking

    async def close(self) -> None:
        """Take no more; connections made live on, those amid their handshake end."""
        self._server.close()
        for connection in list(self._shaking):
            connection.close()
        for connection in list(self._shaking):
            await connection.wait_closed()


async def listen(
    address: str,
    accepted: Callable[[Connection], Receiver],
    *,
    refused: Callable[[str, HawseError], None],
    tls: ssl.SSLContext | None = None,
    limits: Limits | None = None,
    most: int = 64,
) -> Listener:
    """Take connections of switches (`tcp:host:port`, `ssl:host:port`, `unix:/path`).

    After each handshake `accepted` is called, and says who gets its events (see `connect`). `refused` is told (peer,
    why) of each that did not get that far. More than `most` handshakes at once are not begun; each has
    `limits.handshake_s`.
    Raises: HawseError, UNAVAILABLE (it cannot be listened there), INVALID (address).
    """
    loop = asyncio.get_running_loop()
    bounds = limits or Limits()
    shaking: set[Connection] = set()
    place = Address.parse(address)

    def opened(connection: Connection) -> Receiver:
        shaking.discard(connection)
        return accepted(connection)

    def ended(connection: Connection, error: HawseError | None) -> None:
        if connection in shaking:
            shaking.discard(connection)
            refused(connection.peer, error or unavailable("this end was closed"))

    class Accepted(Connection):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            shaking.add(self)
            super().connection_made(transport)
            if len(shaking) > most:
                self.close(exhausted(f"{most} switches are connecting already"))

    def factory() -> Connection:
        return Accepted(limits=bounds, opened=opened, ended=ended)

    try:
        if place.path:
            server: asyncio.Server = await loop.create_unix_server(factory, place.path)
        else:
            context = place.context(tls)
            within_s = bounds.handshake_s if context else None  # asyncio's own is a minute
            server = await loop.create_server(
                factory, place.host, place.port, ssl=context, ssl_handshake_timeout=within_s
            )
    except OSError as error:
        raise unavailable(f"switches cannot be listened for at {address}: {error.strerror or error}") from None
    if not place.path:
        place = place.at(server.sockets[0].getsockname()[1])
    return Listener(server, str(place), shaking)
