"""Releases on their way: into the journal and up the stream, at the same time; out of the journal when confirmed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from plugin.agent.channel import Cancellable, Clock, wait_bounded
from plugin.agent.journal import Journal
from plugin.agent.session import Pending, Session
from sdn.model.errors import HawseError
from sdn.model.ids import EndpointId
from sdn.model.stream import DetachRequest
from sdn.service.log import get_logger

CONFIRM_S = 5.0
"""How long a DEL waits for the controller; then the journal's promise must do."""
AGAIN_S = 5.0
"""After the controller could not take a release (its disk was full for a moment) it is told again."""
CHUNK = 100
"""Endpoints in one request: what fits the store's transactions without making one of them slow for others."""


class Releases:
    """`release` for what just happened, `replay` after each welcome."""

    def __init__(self, session: Session, journal: Journal, clock: Clock) -> None:
        self._session = session
        self._journal = journal
        self._clock = clock
        self._again: Cancellable | None = None
        self._log = get_logger("releases")

    async def release(self, endpoints: Sequence[EndpointId], reason: str = "") -> None:
        """Give endpoints back. Returns when the controller has confirmed, or it is away and the journal holds them.

        Raises: UNAVAILABLE when neither could be had.
        """
        pending = self._send(endpoints, reason) if self._session.live else []
        unwritten: HawseError | None = None
        try:
            await self._journal.release(endpoints, reason)
        except HawseError as error:
            self._log.error("not journalled", reason=error.message)
            unwritten = error
        confirmed = bool(pending)
        for one in pending:
            done = await wait_bounded(self._clock, one.reply, CONFIRM_S)
            confirmed = confirmed and done and one.reply.exception() is None
        if unwritten is not None and not confirmed:
            raise unwritten
        if confirmed:  # once more: the journal may have noted them after the reply had come
            self._journal.delivered(endpoints)

    def replay(self) -> None:
        """Send everything that is undelivered: a channel has just come up, or something was not taken."""
        by_reason: dict[str, list[EndpointId]] = {}
        for endpoint, reason in self._journal.pending.items():
            by_reason.setdefault(reason, []).append(endpoint)
        if by_reason:
            self._log.info("replaying releases", count=len(self._journal.pending))
        for reason, endpoints in by_reason.items():
            self._send(endpoints, reason)

    def _send(self, endpoints: Sequence[EndpointId], reason: str) -> list[Pending]:
        sent: list[Pending] = []
        for start in range(0, len(endpoints), CHUNK):
            chunk = tuple(endpoints[start : start + CHUNK])
            try:
                pending = self._session.request(
                    lambda session, request, chunk=chunk: DetachRequest(  # type: ignore[misc] # mypy: default of a lambda
                        session=session, request=request, endpoints=chunk, reason=reason
                    )
                )
            except HawseError as error:  # too many requests are open: they stay in the journal
                self._log.warning("releases wait", count=len(chunk), reason=error.message)
                self._send_again_soon()
                continue
            pending.reply.add_done_callback(lambda reply, chunk=chunk: self._replied(reply, chunk))  # type: ignore[misc]
            sent.append(pending)
        return sent

    def _replied(self, reply: asyncio.Future[object], endpoints: tuple[EndpointId, ...]) -> None:
        error = None if reply.cancelled() else reply.exception()
        if error is None and not reply.cancelled():
            self._journal.delivered(endpoints)
        elif self._session.live:
            self._log.warning("not released by the controller", count=len(endpoints), reason=str(error))
            self._send_again_soon()

    def hurry(self) -> None:
        """An attachment is about to be asked for: what was not taken goes before it, for it may be in its place."""
        if self._again is not None:
            self._again.cancel()
            self._send_again()

    def _send_again_soon(self) -> None:
        if self._again is None:
            self._again = self._clock.call_later(AGAIN_S, self._send_again)

    def _send_again(self) -> None:
        self._again = None
        if self._session.live:  # else the next welcome does it
            self.replay()
