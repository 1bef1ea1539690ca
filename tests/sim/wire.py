"""The connection between an agent and the controller: a stream that is slow, lags, and breaks.

Nothing is ever reordered within a stream. Each end learns of a cut in its own time, as with TCP: until then it goes on
talking to nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sdn.controller.session import HostStream, Phase
from tests.sim.virtual_time import Life

WINDOW_MESSAGES = 6
"""What a connection holds; the sender waits then, and the core coalesces behind it."""
TICK_S = 1e-6


class Pipe:
    """One direction. `delay_s`: how long the next message takes."""

    def __init__(self, delay_s: Callable[[], float]) -> None:
        self.torn = False
        self._delay_s = delay_s
        self._arrived: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._last_s = 0.0
        self._under_way = 0
        self._room = asyncio.Event()

    def put(self, message: bytes | None) -> None:
        """None: the sender has closed; what it sent before arrives before."""
        loop = asyncio.get_running_loop()
        self._last_s = max(self._last_s + TICK_S, loop.time() + self._delay_s())
        self._under_way += 1
        loop.call_at(self._last_s, self._arrive, message)

    async def room(self) -> None:
        """Wait until another message fits."""
        while self._under_way >= WINDOW_MESSAGES:
            self._room.clear()
            await self._room.wait()

    async def get(self) -> bytes | None:
        """The next one; None: there is no more."""
        return await self._arrived.get()

    def end(self) -> None:
        """The receiver learns that nothing will come any more."""
        self._arrived.put_nowait(None)

    def _arrive(self, message: bytes | None) -> None:
        self._under_way -= 1
        self._room.set()
        if not self.torn:
            self._arrived.put_nowait(message)


class Wire:
    """One connection; the agent's end is a `plugin.agent.channel.Channel`. `whole` until it is cut or closed."""

    def __init__(
        self, stream: HostStream, agent: Life, centre: Life, delay_s: Callable[[], float], ended: Callable[[], None]
    ) -> None:
        self.whole = True
        self._agent = agent
        self._centre = centre
        self._stream = stream
        self._closed = False
        self._up, self._down = Pipe(delay_s), Pipe(delay_s)
        self._ended = ended
        self._writer = centre.spawn(self._write())
        centre.spawn(self._read())

    # The agent's end --------------------------------------------------------------------------------------------------

    async def send(self, message: bytes) -> None:
        """See plugin.agent.channel.Channel."""
        if self._closed or self._agent.dead:
            raise ConnectionResetError("closed")
        self._up.put(message)
        await self._up.room()

    async def receive(self) -> bytes | None:
        """See plugin.agent.channel.Channel."""
        return await self._down.get()

    async def close(self) -> None:
        """See plugin.agent.channel.Channel."""
        self.hang_up()

    # The controller's end ---------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        while (message := await self._up.get()) is not None:
            await self._stream.receive(message)
        self._writer.cancel()
        self._stream.closed()
        self._end()
        self._down.put(None)

    async def _write(self) -> None:
        while (message := await self._stream.outgoing()) is not None:
            self._down.put(message)
            await self._down.room()
        self._end()
        self._down.put(None)
        self._up.end()

    # What happens to it -----------------------------------------------------------------------------------------------

    def hang_up(self) -> None:
        """The agent closes its end, or its process has died: what it sent arrives before the news."""
        self._end()
        if not self._closed:
            self._closed = True
            self._up.put(None)
            self._down.end()

    def drop(self) -> None:
        """The controller's process has died: what it sent arrives before the news."""
        self._end()
        self._down.put(None)

    @property
    def heard(self) -> bool:
        """Whether the controller takes what the agent says; that it refused, the agent may not know yet."""
        return self.whole and self._stream.phase is Phase.LIVE

    def cut(self, agent_learns_s: float, centre_learns_s: float) -> None:
        """What is under way is lost, both ways; each end learns of it after some time."""
        if self.whole:
            self._end()
            self._up.torn = self._down.torn = True
            loop = asyncio.get_running_loop()
            loop.call_later(agent_learns_s, self._agent_learns)
            loop.call_later(centre_learns_s, self._up.end)

    def _agent_learns(self) -> None:
        self._closed = True
        self._down.end()

    def _end(self) -> None:
        if self.whole:
            self.whole = False
            self._ended()
