"""One host's stream: the agent's messages in, the controller's messages out."""

from __future__ import annotations


class HostStream:
    """A conversation with one agent. Transport: one task calls `receive`, one calls `outgoing`, then `closed`."""

    async def receive(self, message: bytes) -> None:
        """Handle one whole message of the agent. A message that is not understood ends the stream with Refused."""

    async def outgoing(self) -> bytes | None:
        """The next message for the agent; waits for one. None: the conversation is over, close the connection."""

    def closed(self) -> None:
        """The connection is gone. Calling it twice is fine."""
