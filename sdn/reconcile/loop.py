"""The loop: makes the datapath be what the world wants, touching only what may differ.

Two ways in. `reconcile` is the short way of a change: synchronous, no task switch, no read; it lowers the dirty units,
compares them with the mirror and writes. `run` is the patient way: after a failed write, a drift that the kernel told
of, or simply time, it reads (in a thread, so that attachments go on) and repairs, in a bounded number of rounds.

What a read saw of a key that was written while it ran is older than the mirror and does not count.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

from sdn.model.errors import HawseError
from sdn.model.ids import EndpointId, TenantId
from sdn.reconcile.datapath import Datapath, Key, Object, Operation, SandboxGoneError, Verb
from sdn.reconcile.desired import Desired, tenant_of
from sdn.reconcile.diff import diff
from sdn.reconcile.failures import LEFTOVER, Failure, Failures, text_of
from sdn.reconcile.survey import Survey, survey
from sdn.reconcile.unit import Context, Unit, UnitKey

T = TypeVar("T")
READ_AGAIN_S = 5.0
"""How long after a read that failed as a whole the next one is tried."""
DRIFT_PAUSE_S = 0.1
"""The least time between two reads for drift: a device that flaps must not keep the agent reading."""


class Offload(Protocol):
    """Runs a blocking read elsewhere: `asyncio.to_thread`, or in tests at once."""

    def __call__(self, read: Callable[[], T], /) -> Awaitable[T]: ...


class Source(Protocol):
    """What the loop needs of the world."""

    @property
    def complete(self) -> bool:
        """Whether a whole snapshot has been applied: nothing is deleted before."""

    def unit(self, key: UnitKey) -> Unit | None:
        """One unit, or None when it is not there."""

    def unit_keys(self) -> Iterable[UnitKey]:
        """The key of every unit."""

    def context(self) -> Context:
        """What lowering may look at."""


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """`written`: operations that succeeded. `failures`: of the units that were attempted, as sentences."""

    written: int
    failures: dict[UnitKey, str]


class Reconciler:
    """One per host. Everything but `drifted` is called on the event loop's thread.

    `on_gone` is called once for each endpoint of this host whose inside cannot be made (its namespace is gone): it is
    to be released. `on_failures` is called when `run` changed what `failures` says. `clock` is monotonic, in seconds.
    """

    def __init__(
        self,
        datapath: Datapath,
        *,
        on_gone: Callable[[EndpointId], None],
        rounds_max: int = 3,
        offload: Offload = asyncio.to_thread,
        clock: Callable[[], float] = time.monotonic,
        full_read_every_s: float = 300.0,
        on_failures: Callable[[], None] = lambda: None,
    ) -> None:
        self.mirror: dict[Key, Object] = {}
        self.desired = Desired()
        self.keys_looked_at = 0
        """How many keys were ever compared: the cost, which follows the change (a test counts it)."""
        self._datapath = datapath
        self._offload = offload
        self._clock = clock
        self._full_read_every_s = full_read_every_s
        self._on_gone = on_gone
        self._on_failures = on_failures
        self._failures = Failures(rounds_max)
        self._gone: set[EndpointId] = set()
        self._left: dict[Key, tuple[UnitKey, TenantId | None]] = {}
        self._pruned = False
        self._started = False
        self._written_meanwhile: set[Key] | None = None
        self._reading = asyncio.Lock()
        self._wake = asyncio.Event()
        self._drift: set[TenantId] = set()
        self._full_due_s = math.inf
        self._drift_due_s = -math.inf

    # The short way --------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Read everything once, so only differences are written; drift counts from before that on. Raises: OSError."""
        loop = asyncio.get_running_loop()
        self._started = True
        self._full_due_s = self._clock() + self._full_read_every_s
        self._datapath.notify(lambda tenants: self._from_thread(loop, tenants))
        self._note_survey(*await self._survey(None))

    def reconcile(self, dirty: Iterable[UnitKey], world: Source) -> Result:
        """Make some units so, now. Looks only at the keys that they have or had.

        The first call with a complete world also removes what belongs to Hawse and is not wanted.
        """
        assert self._started, "start() reads what is there; without it everything would be written again"
        touched: set[Key] = set()
        if world.complete and not self._pruned:
            self._pruned = True
            touched |= self.mirror.keys() - self.desired.objects.keys()
        return self._attempt(dirty, touched, world, retry=False)

    def discard(self, keys: Iterable[Key]) -> dict[Key, Exception]:
        """Remove things now, whatever is wanted (which is not known before the first snapshot); the errors by key.

        What is wanted after all comes back with the next reconcile or repair that looks at it.
        """
        operations = diff({}, self.mirror, keys, self._datapath)
        errors = self._datapath.write(operations) if operations else {}
        self._patch(operations, errors)
        return errors

    @property
    def failures(self) -> Mapping[UnitKey, Failure]:
        """What is not as it should be, by unit."""
        return self._failures.by_unit

    def _attempt(self, dirty: Iterable[UnitKey], touched: set[Key], world: Source, *, retry: bool) -> Result:
        units = set(dirty)
        had, broken = self._lower(units, world, touched)
        self.keys_looked_at += len(touched)
        # Until the first complete world was lowered, `desired` says nothing about what is not wanted.
        operations = diff(self.desired.objects, self.mirror, touched, self._datapath, prune=self._pruned)
        errors = self._datapath.write(operations) if operations else {}
        written = self._patch(operations, errors)
        self._share(units)
        failing = self._blame(operations, errors, had) | broken
        self._remember(units, failing, retry=retry)
        newly_gone = self._find_gone(units, failing)
        result = Result(written, {unit: text_of(error) for unit, error in failing.items()})
        # Last: whoever is told may reconcile again from inside the call.
        for endpoint in newly_gone:
            self._on_gone(endpoint)
        return result

    def _lower(
        self, units: set[UnitKey], world: Source, touched: set[Key]
    ) -> tuple[dict[Key, UnitKey], dict[UnitKey, Exception]]:
        """Bring `desired` up to date and add the keys to `touched`. Returns who had a key before, and what failed."""
        had: dict[Key, UnitKey] = {}
        broken: dict[UnitKey, Exception] = {}
        context = world.context()
        for unit_key in units:
            before = self.desired.keys(unit_key)
            had.update(dict.fromkeys(before, unit_key))
            touched.update(before)
            unit = world.unit(unit_key)
            if unit is None:
                self._leave(unit_key)
                self.desired.remove(unit_key)
                continue
            try:
                objects = self._datapath.lower(unit, context)
            # One unit's fault must not stop the others; it is not lost, for it becomes the unit's failure.
            except Exception as error:  # noqa: BLE001
                broken[unit_key] = error
                continue
            self.desired.put(unit_key, tenant_of(unit), objects)
            touched.update(objects)
        # What could not be deleted before is tried with its unit, or nothing would say any more that it is there.
        touched.update(key for key, (owner, _) in self._left.items() if owner in units)
        return had, broken

    def _leave(self, unit: UnitKey) -> None:
        """Remember whose a key was until it is really gone: a failed deletion has to be tried again."""
        lowered = self.desired.units.get(unit)
        if lowered is not None:
            self._left.update((key, (unit, lowered.tenant)) for key in lowered.keys)

    def _patch(self, operations: Sequence[Operation], errors: Mapping[Key, Exception]) -> int:
        """Let the mirror follow what was written; returns how many operations succeeded."""
        written = 0
        recreated: set[Key] = set()
        for operation in operations:
            key = operation.key
            if self._written_meanwhile is not None:
                self._written_meanwhile.add(key)
            if key in errors:
                continue
            written += 1
            if operation.verb is Verb.DELETE:
                self.mirror.pop(key, None)
                recreated.add(key)
            else:
                self.mirror[key] = operation.after
                if key in recreated:
                    self._suspect(key)
        for key in [key for key in self._left if key not in self.mirror or key in self.desired.objects]:
            del self._left[key]
        return written

    def _share(self, units: Iterable[UnitKey]) -> None:
        """Keep one copy of what is wanted and there: with 10 000 endpoints a read's copy is tens of megabytes."""
        for unit in units:
            for key in self.desired.keys(unit):
                wanted, there = self.desired.objects[key], self.mirror.get(key)
                if there is not wanted and there == wanted:
                    del self.mirror[key]  # so that the key is shared too
                    self.mirror[key] = wanted

    def _suspect(self, key: Key) -> None:
        """A thing was deleted and made again: what hung on it went with it unseen, so its tenant is read again."""
        owner = self.desired.owners[key]
        self._drift.add(self.desired.units[owner].tenant)
        self._wake.set()

    def _blame(
        self, operations: Sequence[Operation], errors: Mapping[Key, Exception], had: Mapping[Key, UnitKey]
    ) -> dict[UnitKey, Exception]:
        """The first error of each unit in the order of writing; a namespace that is gone explains all the others."""
        failing: dict[UnitKey, Exception] = {}
        for key in dict.fromkeys(operation.key for operation in operations) if errors else ():
            error = errors.get(key)
            if error is None:
                continue
            left = self._left.get(key)
            unit = self.desired.owners.get(key) or had.get(key) or (left[0] if left else LEFTOVER)
            if unit not in failing or isinstance(error, SandboxGoneError):
                failing[unit] = error
            if key not in self.desired.objects and key not in self._left:
                lowered = self.desired.units.get(unit)
                self._left[key] = (unit, lowered.tenant if lowered else None)
        return failing

    def _remember(self, units: set[UnitKey], failing: Mapping[UnitKey, Exception], *, retry: bool) -> None:
        now_s = self._clock()
        for unit in units - failing.keys():
            self._failures.clear(unit)
        if LEFTOVER not in failing and not any(unit == LEFTOVER for unit, _ in self._left.values()):
            self._failures.clear(LEFTOVER)
        for unit, error in failing.items():
            last = isinstance(error, SandboxGoneError)
            self._failures.note(unit, text_of(error), now_s, retry=retry, last=last)
        if self._failures.due_s < math.inf:
            self._wake.set()

    def _find_gone(self, units: set[UnitKey], failing: Mapping[UnitKey, Exception]) -> list[EndpointId]:
        self._gone.difference_update(EndpointId(unit[1]) for unit in units if unit not in failing)
        newly: list[EndpointId] = []
        for unit, error in failing.items():
            endpoint = EndpointId(unit[1])
            if unit[0] == "endpoint" and isinstance(error, SandboxGoneError) and endpoint not in self._gone:
                self._gone.add(endpoint)
                newly.append(endpoint)
        return newly

    # The patient way ------------------------------------------------------------------------------------------------

    async def full(self, world: Source) -> Result:
        """Read everything and reconcile every unit; writes only differences, removes only with a complete world."""
        async with self._reading:
            keys = self._note_survey(*await self._survey(None))
            self._full_due_s = self._clock() + self._full_read_every_s
            self._drift.clear()
            units = {*world.unit_keys(), *self.desired.units, *self.failures}
            self._pruned = self._pruned or world.complete
            return self._attempt(units, keys, world, retry=False)

    async def run(self, world: Source) -> None:
        """Repair for ever: what failed, what drifted, and everything every few minutes. Ends by cancellation."""
        while True:
            self._wake.clear()
            delay_s = await self.work(world)
            try:
                async with asyncio.timeout(None if delay_s == math.inf else delay_s):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def work(self, world: Source, now_s: float | None = None) -> float:
        """One turn of `run`: do what is due (at `now_s`, by default now); seconds until something is due again."""
        if now_s is None:
            now_s = self._clock()
        async with self._reading:
            due = self._failures.due(now_s)
            tenants = {tenant for unit in due for tenant in self._tenants_of(unit, world)}
            if now_s >= self._drift_due_s:
                tenants |= self._drift
                if self._drift:
                    self._drift_due_s = self._clock() + DRIFT_PAUSE_S
                self._drift.clear()
            if tenants and not self._pruned:  # what nobody wants yet is of no unit: only a read of everything shows it
                tenants.add(None)
            if now_s >= self._full_due_s or None in tenants:
                await self._repair(None, world)
            elif tenants:
                await self._repair({tenant for tenant in tenants if tenant is not None}, world)
        drift_s = self._drift_due_s if self._drift else math.inf
        return max(0.0, min(self._full_due_s, self._failures.due_s, drift_s) - self._clock())

    async def settle(self, world: Source, turns_max: int = 20) -> None:
        """Work until nothing is pending, without waiting out the pauses: for tests and for a daemon's orderly end."""
        for _ in range(turns_max):
            if not self._drift and self._failures.due_s == math.inf and self._full_due_s > self._clock():
                return
            self._drift_due_s = -math.inf
            await self.work(world, now_s=max(self._clock(), min(self._failures.latest_due_s, self._full_due_s - 1e-6)))
        raise AssertionError(f"not quiet after {turns_max} turns: {dict(self.failures)}")

    def drifted(self, tenants: Sequence[TenantId] | None) -> None:
        """Something changed in the kernel that we did not do, in some tenants or (None) anywhere."""
        if tenants is None:
            self._full_due_s = -math.inf
        else:
            self._drift.update(tenants)
        self._wake.set()

    def _from_thread(self, loop: asyncio.AbstractEventLoop, tenants: Sequence[TenantId] | None) -> None:
        try:
            loop.call_soon_threadsafe(self.drifted, tenants)
        except RuntimeError:  # the loop is closed: the agent is ending, and its successor will read everything
            return

    async def _repair(self, tenants: set[TenantId] | None, world: Source) -> None:
        before = dict(self.failures)
        if tenants is None:
            self._full_due_s = self._clock() + self._full_read_every_s
        try:
            seen, written = await self._survey(None if tenants is None else sorted(tenants))
        except (OSError, HawseError):
            # What the kernel does not tell now is asked again soon; until then what was known stays.
            self._full_due_s = self._clock() + READ_AGAIN_S
            return
        again = {unit for unit in before if tenants is None or self._tenants_of(unit, world) & tenants}
        self._attempt(again, self._note_survey(seen, written), world, retry=True)
        if dict(self.failures) != before:
            self._on_failures()

    def _tenants_of(self, unit: UnitKey, world: Source) -> set[TenantId | None]:
        """What to read to see a unit again; {None}: everything, for nothing else is known of it."""
        there = world.unit(unit)
        if there is not None:
            return {tenant_of(there)}
        return {tenant for owner, tenant in self._left.values() if owner == unit} or {None}

    async def _survey(self, tenants: Sequence[TenantId] | None) -> tuple[Survey, set[Key]]:
        """Read elsewhere; with what was written meanwhile."""
        written: set[Key] = set()
        self._written_meanwhile = written
        try:
            return await self._offload(functools.partial(self._look, tenants)), written
        finally:
            self._written_meanwhile = None

    def _look(self, tenants: Sequence[TenantId] | None) -> Survey:
        """In a thread. Each table is copied in one step under the interpreter's lock; that the copies may be of
        different moments is harmless, for the loop's thread compares again what is named here.
        """
        found = self._datapath.read(tenants)
        mirror, desired, left = self.mirror.copy(), self.desired.objects.copy(), self._left.copy()
        if tenants is None:
            scope = {*mirror, *desired}
        else:
            scope = {key for key, (_, tenant) in left.items() if tenant in tenants}
            for lowered in self.desired.units.copy().values():
                if lowered.tenant in tenants:
                    scope.update(lowered.keys)
        return survey(found, mirror, desired, scope)

    def _note_survey(self, seen: Survey, written: set[Key]) -> set[Key]:
        """Let the mirror follow a read, but for what was written meanwhile; the keys to look at again."""
        for key, object_ in seen.changed.items():
            if key in written:
                continue
            if object_ is None:
                self.mirror.pop(key, None)
            else:
                self.mirror[key] = object_
        return seen.keys
