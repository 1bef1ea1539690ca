"""What the agent needs of a transport and of a clock; the simulator brings its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol


class Channel(Protocol):
    """One connection to the controller. Messages arrive whole and in order, or the channel ends."""

    async def send(self, message: bytes) -> None:
        """Raises: OSError when the connection is gone."""

    async def receive(self) -> bytes | None:
        """The next message; None: the conversation is over. Does not suspend while messages are waiting."""

    async def close(self) -> None:
        """End it, in bounded time even if nobody hears of it; `receive` gives None. Calling it twice is fine."""


Dial = Callable[[], Awaitable[Channel]]
"""Opens a channel. Raises: UNAVAILABLE (nobody there), DENIED (not with this credential)."""


class Cancellable(Protocol):
    """A timer that was set."""

    def cancel(self) -> None:
        """It will not fire."""


class Clock(Protocol):
    """An event loop has these two; the simulator's has no relation to real time."""

    def time(self) -> float:
        """Seconds from some moment on; never goes back."""

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> Cancellable:
        """Call it on the loop's thread after `delay` seconds."""


async def sleep(clock: Clock, delay_s: float) -> None:
    """Wait for some time of that clock."""
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    timer = clock.call_later(delay_s, _resolve, done)
    try:
        await done
    finally:
        timer.cancel()


async def wait_bounded(clock: Clock, future: asyncio.Future[Any], timeout_s: float) -> bool:
    """Wait until a future is done (its result or error is not touched) or the time is up; whether it is done."""
    if future.done():
        return True
    woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake(_: object = None) -> None:
        _resolve(woken)

    future.add_done_callback(wake)
    timer = clock.call_later(timeout_s, wake)
    try:
        await woken
    finally:
        timer.cancel()
        future.remove_done_callback(wake)
    return future.done()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
