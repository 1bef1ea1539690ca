"""A datapath that fails on purpose: any datapath, its n-th operation failing once, or the agent dying before it."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence

from sdn.model.explanation import Explanation, FlowRow, Question
from sdn.model.ids import TenantId
from sdn.model.resources import Endpoint
from sdn.reconcile.datapath import Datapath, DropCount, Key, LocalPort, Object, Operation, Sandbox
from sdn.reconcile.unit import Context, Unit


class KilledError(BaseException):
    """The agent was killed here. Not an Exception: nothing may catch it and go on, as nothing survives a SIGKILL."""


class Faulty:
    """Passes everything on. Operations are counted from 0 over all calls of `write`.

    `fail_at`: this operation is not done and answered with EIO, once. `die_at`: everything before this operation is
    done, then KilledError is raised, also by every later call.
    """

    def __init__(self, datapath: Datapath, *, fail_at: int | None = None, die_at: int | None = None) -> None:
        self.operations = 0
        self._inner = datapath
        self._fail_at = fail_at
        self._die_at = die_at

    def write(self, operations: Sequence[Operation]) -> dict[Key, Exception]:
        """See Datapath."""
        first, self.operations = self.operations, self.operations + len(operations)
        if self._die_at is not None and self._die_at < self.operations:
            alive = operations[: max(0, self._die_at - first)]
            if alive:
                self._inner.write(alive)
            raise KilledError
        errors: dict[Key, Exception] = {}
        if self._fail_at is not None and first <= self._fail_at < self.operations:
            failing = operations[self._fail_at - first]
            # A thing that could not be deleted is not made anew either: its key fails as a whole.
            operations = [operation for operation in operations if operation.key != failing.key]
            errors[failing.key] = OSError(errno.EIO, f"cannot {failing.verb.value} {' '.join(failing.key)}")
        if operations:
            errors |= self._inner.write(operations)
        return errors

    def lower(self, unit: Unit, context: Context) -> dict[Key, Object]:
        """See Datapath."""
        return self._inner.lower(unit, context)

    def rank(self, key: Key) -> int:
        """See Datapath."""
        return self._inner.rank(key)

    def in_place(self, before: Object, after: Object) -> bool:
        """See Datapath."""
        return self._inner.in_place(before, after)

    def read(self, tenants: Sequence[TenantId] | None = None) -> dict[Key, Object]:
        """See Datapath."""
        return self._inner.read(tenants)

    def offer(self, endpoint: Endpoint, sandbox: Sandbox | None) -> None:
        """See Datapath."""
        self._inner.offer(endpoint, sandbox)

    def check(self, endpoint: Endpoint, mtu_bytes: int, sandbox: Sandbox) -> list[str]:
        """See Datapath."""
        return self._inner.check(endpoint, mtu_bytes, sandbox)

    def local_ports(self, objects: Mapping[Key, Object]) -> list[LocalPort]:
        """See Datapath."""
        return self._inner.local_ports(objects)

    def drops(self) -> list[DropCount]:
        """See Datapath."""
        return self._inner.drops()

    def explain(self, questions: Sequence[Question]) -> Explanation:
        """See Datapath."""
        return self._inner.explain(questions)

    def flows(self) -> Sequence[FlowRow]:
        """See Datapath."""
        return self._inner.flows()

    def notify(self, drifted: Callable[[Sequence[TenantId] | None], None]) -> None:
        """See Datapath."""
        self._inner.notify(drifted)

    def purge(self) -> int:
        """See Datapath."""
        return self._inner.purge()

    def close(self) -> None:
        """See Datapath."""
        self._inner.close()
