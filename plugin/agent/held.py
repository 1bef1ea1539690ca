"""`--start-fd N`: an agent that is started before it is known who this host is.

Who joins a fabric starts the agent at once: it imports, and tries what the kernel can do, while the controller is
asked. On the socket it says `1` when this machine could be a host, and waits for one byte: from then on there is an
agent.json. So a machine that lacks something uses up no token, and joining takes no longer than the slower of both.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket

from sdn.model.errors import invalid

WORD = b"1"


def checked_start_fd(number: int | None) -> socket.socket | None:
    """The socket that was inherited. Raises: INVALID."""
    if number is None:
        return None
    try:
        os.set_inheritable(number, False)
        there = socket.socket(fileno=number)
    except OSError:
        raise invalid(f"--start-fd {number} is not an open socket", "pass one that was inherited") from None
    there.setblocking(False)
    return there


async def wait_told(there: socket.socket | None, stopping: asyncio.Event) -> bool:
    """Say that we are able; whether we are to begin. False: whoever started us is gone, or we are to stop."""
    if there is None:
        return True
    with there:
        with contextlib.suppress(OSError):  # who has told us already need not listen any more
            there.send(WORD)
        loop = asyncio.get_running_loop()
        word = asyncio.ensure_future(loop.sock_recv(there, 1))
        stop = asyncio.ensure_future(stopping.wait())
        try:
            await asyncio.wait((word, stop), return_when=asyncio.FIRST_COMPLETED)
            return word.done() and word.exception() is None and word.result() == WORD
        finally:
            word.cancel()
            stop.cancel()
            await asyncio.gather(word, stop, return_exceptions=True)
