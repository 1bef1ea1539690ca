"""One container in memory: its record, who may write it, and who waits for its end."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from runtime.daemon.records import Record, Records, with_state
from runtime.daemon.states import LIVING
from sdn.model.errors import HawseError, not_found
from sdn.model.runtime import Exit


class Container:
    """`record` is written under `lock` alone, and is on the disk before it is here. `gone`: it was removed."""

    __slots__ = ("_namespace_fd", "_records", "_waiters", "gone", "keep", "lock", "record", "timer")

    def __init__(self, record: Record, records: Records) -> None:
        self.record = record
        self.lock = asyncio.Lock()
        self.timer: asyncio.TimerHandle | None = None
        self.gone = False
        self.keep = False
        """It is being restarted by a user: though it is to be removed when it ends, it is not now."""
        self._namespace_fd = -1
        self._records = records
        self._waiters: set[asyncio.Future[Exit]] = set()

    @property
    def id(self) -> str:
        """Its id."""
        return self.record.id

    @property
    def living(self) -> bool:
        """Whether it runs or is paused."""
        return self.record.state in LIVING

    def change(self, **changes: Any) -> None:
        """Write another record. Raises: UNAVAILABLE (the disk); then nothing is different."""
        record = with_state(self.record, **changes)
        self._records.write(record)
        self.record = record

    def happened(self, log: Any, **changes: Any) -> None:
        """What is so whatever the disk says: known here, logged where it cannot be written; the next record has it."""
        self.record = with_state(self.record, **changes)
        try:
            self._records.write(self.record)
        except HawseError as error:
            log.error("not recorded", container=self.id, reason=error.message)

    def hold_namespace(self, descriptor: int) -> None:
        """Keep its network namespace, whose descriptor this is, until its attachments are given back.

        A namespace that dies with the container takes its interfaces along before the agent is told: it then finds
        them missing and looks at the whole tenant, which costs more the more containers there are.
        """
        self.let_namespace_go()
        self._namespace_fd = descriptor

    def let_namespace_go(self) -> None:
        """Twice is fine, and so is one that a daemon before this one started."""
        descriptor, self._namespace_fd = self._namespace_fd, -1
        if descriptor >= 0:
            os.close(descriptor)

    def ending(self) -> asyncio.Future[Exit]:
        """The next end of it: of the run that there is, or of the next one. Raises there: NOT_FOUND (removed)."""
        future: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._waiters.add(future)
        future.add_done_callback(self._waiters.discard)
        return future

    def tell(self, exit_: Exit) -> None:
        """It has ended."""
        for future in list(self._waiters):
            if not future.done():
                future.set_result(exit_)

    def tell_gone(self) -> None:
        """It will never end: it was removed."""
        error: HawseError = not_found(f"container {self.record.name} was removed", "", container=self.record.name)
        for future in list(self._waiters):
            if not future.done():
                future.set_exception(error)
                future.exception()  # whoever waited may have left

    def cancel_timer(self) -> None:
        """A restart that was to come does not."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
