"""The controller's core: requests in, transactions out, and what follows from them for every host.

No socket, no clock and no chance of its own: the store, the clock and the source of random bits are arguments, and
the transport (`HostStream`) is bytes in and bytes out.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import msgspec

from sdn.controller import plan_hosts, plan_networks, plan_tenants
from sdn.controller.admission import Admission
from sdn.controller.custody import Custody
from sdn.controller.desk import AgentDesk
from sdn.controller.events import Event, EventLog
from sdn.controller.fleet import Fleet
from sdn.controller.ledger import Ledger, load_state
from sdn.controller.options import Options
from sdn.controller.plan import Plan
from sdn.controller.plan_credentials import new_secret
from sdn.controller.plan_release import release_chunk
from sdn.controller.references import DEFAULT_TENANT
from sdn.controller.session import HostStream
from sdn.controller.specs import NetworkSpec, SubnetSpec, TenantSpec
from sdn.controller.state import State, SubnetUsage
from sdn.controller.status import HostState, Status, Step
from sdn.controller.switches import Switches, not_connected
from sdn.model.errors import HawseError, Kind, conflict, denied, invalid, unavailable
from sdn.model.ids import HostId, IdSource, NetworkId, Revision, TenantId, is_id
from sdn.model.resources import Endpoint, Host, Network, Tenant
from sdn.model.stream import Query
from sdn.store.interface import Store

T = TypeVar("T")
SELF = "controller"
"""The actor of what the controller does by itself."""


class Core:
    """One per controller process. Every method raises HawseError only; references are names, `tenant/name` or ids.

    `within` confines what a request's references may mean to one tenant; None: to nothing.
    """

    def __init__(
        self,
        store: Store,
        state: State,
        clock: Callable[[], float],
        random_bits: Callable[[int], int],
        options: Options,
    ) -> None:
        """Not to be called: see `start`."""
        self._random_bits = random_bits
        self._ids = ids = IdSource(clock, random_bits)
        self._options = options
        self._ledger = Ledger(store, state)
        self.admission = Admission(self._ledger, clock, random_bits, ids)
        self._events = EventLog(store, clock)
        self._fleet = Fleet(self._ledger, self._events, options.resume_changes)
        self.custody = Custody(self._ledger, self._fleet, self._events, random_bits, self._cut_others)
        self._desk = AgentDesk(
            self._ledger, self._fleet, self._events, ids, options.settle_s, random_bits, self.custody
        )
        self.switches = Switches(self._ledger, ids, self._cut, self._forget_begun)
        self._numbers = itertools.count(1)
        self._open: dict[HostStream, None] = {}
        """In the order in which they came, so that the same requests have the same effects in the same order."""
        self._closed = False

    @property
    def state(self) -> State:
        """The decoded copy, as of `revision`. Read it, do not keep it; only the core changes it."""
        return self._ledger.state

    @property
    def revision(self) -> Revision:
        """The revision of the last transaction."""
        return self._ledger.state.revision

    @classmethod
    async def start(
        cls,
        store: Store,
        *,
        clock: Callable[[], float],
        random_bits: Callable[[int], int],
        options: Options,
    ) -> Core:
        """Load the state, make tenant `default` if absent, finish sequences that were cut short.

        `clock`: seconds since the epoch; `random_bits`: n -> n random bits. The store stays the caller's to close,
        after `close`.
        """
        core = cls(store, await load_state(store), clock, random_bits, options)
        core._events.committed(core.revision)
        if DEFAULT_TENANT not in core.state.names.tenants:
            await core.create_tenant(TenantSpec(name=DEFAULT_TENANT), SELF)
        for host in sorted(core.state.forgetting):
            await core._finish_forgetting(host, SELF)
        return core

    async def close(self) -> None:
        """End every stream and every wait. Calling it twice is fine."""
        self._closed = True
        self.custody.close()
        for stream in list(self._open):
            stream.refuse(unavailable("the controller is stopping", "connect again"))
        self._events.close()
        self._ledger.close()
        self._fleet.progressed.ring()

    async def _write(self, planner: Callable[[State], Plan[T]], actor: str) -> tuple[T, Revision]:
        return await self._ledger.write(planner, actor)

    # --- tenants ---

    async def create_tenant(self, spec: TenantSpec, actor: str) -> tuple[Tenant, Revision]:
        """Raises: INVALID; CONFLICT when the name is taken."""
        id_ = TenantId(self._ids())
        return await self._write(lambda state: plan_tenants.create_tenant(state, spec, id_, actor), actor)

    async def put_tenant(
        self, reference: str, spec: TenantSpec, if_match: Revision | None, actor: str
    ) -> tuple[Tenant, Revision, bool]:
        """Make it so: (tenant, its revision, whether it was created). See `put_network`."""
        if spec.name and spec.name != reference and not is_id(reference):
            raise _other_name("tenant", reference, spec.name)
        id_ = TenantId(self._ids())

        def plan(state: State) -> Plan[Tenant]:
            if not is_id(reference) and reference not in state.names.tenants:
                _check_absent("tenant", reference, if_match)
                return plan_tenants.create_tenant(state, TenantSpec(name=reference, labels=spec.labels), id_, actor)
            tenant = state.resolve_tenant(reference)
            if spec.name and spec.name != tenant.name:
                raise _other_name("tenant", tenant.name, spec.name)
            return plan_tenants.update_tenant(state, tenant, spec.labels, if_match, actor)

        tenant, revision = await self._write(plan, actor)
        return tenant, revision, tenant.id == id_

    async def update_tenant(
        self, reference: str, labels: dict[str, str], if_match: Revision | None, actor: str
    ) -> tuple[Tenant, Revision]:
        """Replace the labels. Raises: NOT_FOUND; CONFLICT when `if_match` is not its revision, or is None."""
        return await self._write(
            lambda state: plan_tenants.update_tenant(state, state.resolve_tenant(reference), labels, if_match, actor),
            actor,
        )

    async def delete_tenant(self, reference: str, actor: str) -> tuple[Tenant | None, Revision]:
        """Absent is fine (None); its tokens end. Raises: CONFLICT while it has networks, and for tenant `default`."""

        def plan(state: State) -> Plan[Tenant]:
            return plan_tenants.delete_tenant(state, state.resolve_tenant(reference), actor)

        removed = await self._delete(plan, actor)
        if removed[0] is not None:
            self.admission.tenant_removed(removed[0].id)
        return removed

    async def _delete(self, planner: Callable[[State], Plan[T]], actor: str) -> tuple[T | None, Revision]:
        try:
            return await self._write(planner, actor)
        except HawseError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise
            return None, self.revision

    # --- networks ---

    async def create_network(
        self, spec: NetworkSpec, actor: str, within: TenantId | None = None
    ) -> tuple[Network, Revision]:
        """Raises: INVALID; NOT_FOUND (tenant); CONFLICT (name, overlap); EXHAUSTED (pools, VNIs)."""
        id_ = NetworkId(self._ids())

        def plan(state: State) -> Plan[Network]:
            tenant = state.resolve_tenant(spec.tenant or within or DEFAULT_TENANT, within)
            return plan_networks.create_network(state, spec, tenant, id_, self._options, actor)

        return await self._write(plan, actor)

    async def put_network(
        self,
        reference: str,
        spec: NetworkSpec,
        if_match: Revision | None,
        actor: str,
        within: TenantId | None = None,
    ) -> tuple[Network, Revision, bool]:
        """Make it so: (network, its revision, whether it was created).

        Absent: created. Equal: nothing is written. Different: CONFLICT with `facts.difference`, unless `if_match` is
        its revision: then labels are replaced and subnets added; what else differs is a CONFLICT still.
        """
        id_ = NetworkId(self._ids())

        def plan(state: State) -> Plan[Network]:
            found = state.resolve_network(reference, within) if is_id(reference) else None  # no name looks like an id
            owner, name = (found.tenant, found.name) if found else state.names.split(reference, state.tenants, within)
            tenant = state.resolve_tenant(owner, within)
            id_there = state.names.networks.get((owner, name))
            if id_there is None:
                _check_absent("network", reference, if_match)
            _check_names(state, spec, tenant, name, within)
            if id_there is None:
                named = msgspec.structs.replace(spec, name=name)
                return plan_networks.create_network(state, named, tenant, id_, self._options, actor)
            return plan_networks.put_network(state, state.networks[id_there], spec, if_match, actor)

        network, revision = await self._write(plan, actor)
        return network, revision, network.id == id_

    async def add_subnet(
        self, reference: str, spec: SubnetSpec, actor: str, within: TenantId | None = None
    ) -> tuple[Network, Revision]:
        """Add a subnet to a live network; its endpoints keep their addresses. The same again is fine."""
        return await self._write(
            lambda state: plan_networks.add_subnet(state, state.resolve_network(reference, within), spec, actor), actor
        )

    async def delete_network(
        self, reference: str, actor: str, within: TenantId | None = None
    ) -> tuple[Network | None, Revision]:
        """Absent is fine (None). Raises: CONFLICT while it has endpoints, naming them."""
        return await self._delete(
            lambda state: plan_networks.delete_network(state, state.resolve_network(reference, within), actor), actor
        )

    def usage(self, network: Network) -> list[SubnetUsage]:
        """How full each subnet is, in the network's order."""
        return self.state.addresses.usage(network)

    # --- hosts and endpoints ---

    async def create_host(self, name: str, labels: dict[str, str], actor: str) -> tuple[Host, Revision]:
        """A host that may now be given a credential and connect. Raises: INVALID; CONFLICT when the name is taken."""
        id_ = HostId(self._ids())
        return await self._write(lambda state: plan_hosts.create_host(state, name, labels, id_, actor), actor)

    async def forget_host(self, reference: str, force: bool, actor: str) -> tuple[Host | None, Revision]:
        """Release its endpoints and remove it. Absent is fine. Raises: CONFLICT while connected unless `force`."""

        def begin(state: State) -> Plan[Host]:
            host = state.resolve_host(reference)
            return plan_hosts.begin_forgetting(state, host, host.id in self._fleet.streams, force, actor)

        try:
            host, _ = await self._write(begin, actor)
        except HawseError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise
            return None, self.revision
        return host, await self._forget_begun(host.id, actor)

    async def _forget_begun(self, id_: HostId, actor: str) -> Revision:
        self._cut(id_, conflict("this host was forgotten", "create it again and give it a new credential"))
        return await self._finish_forgetting(id_, actor)

    @contextlib.asynccontextmanager
    async def leaving(self, id_: HostId, actor: str) -> AsyncIterator[Revision]:
        """A host forgets itself: within, it is told so, and afterwards it is cut off and its endpoints are released."""
        _, revision = await self._write(
            lambda state: plan_hosts.begin_forgetting(state, state.resolve_host(id_), False, True, actor), actor
        )
        try:
            yield revision
        finally:
            await self._forget_begun(id_, actor)

    async def drain_host(self, reference: str, undo: bool, actor: str) -> tuple[Host, Revision]:
        """No further attachments on it, or (`undo`) again. Raises: NOT_FOUND."""
        return await self._write(
            lambda state: plan_hosts.drain_host(state, state.resolve_host(reference), undo, actor), actor
        )

    def _cut(self, host: HostId, why: HawseError, but_for: HostStream | None = None) -> None:
        for stream in [stream for stream in self._open if stream.host == host and stream is not but_for]:
            stream.refuse(why)

    def _cut_others(self, stream: HostStream) -> None:
        """What the host's secret has opened is over, but for the stream over which it was replaced."""
        self._cut(stream.host, _voided(), stream)

    async def _finish_forgetting(self, id_: HostId, actor: str) -> Revision:
        """As many transactions as it takes; one of them may have been the last of an earlier controller."""
        over = False
        while not over:
            over, revision = await self._write(lambda state: plan_hosts.go_on_forgetting(state, id_, actor), actor)
        await self._desk.release_vnis()
        return revision

    async def mint_credential(self, reference: str, actor: str) -> str:
        """A new secret of the host, which voids the one before; only its hash is kept."""
        secret = new_secret(self._random_bits)
        id_ = self.state.resolve_host(reference).id
        await self._write(lambda state: plan_hosts.set_credential(state, state.resolve_host(id_), secret, actor), actor)
        self._cut(id_, _voided())
        return secret

    async def delete_endpoint(
        self, reference: str, actor: str, within: TenantId | None = None
    ) -> tuple[Endpoint | None, Revision]:
        """Forced release. Absent is fine (None)."""

        def plan(state: State) -> Plan[Endpoint]:
            endpoint = state.resolve_endpoint(reference, within)
            released = release_chunk(state, [endpoint], f"removed by {actor}", actor)
            return Plan(endpoint, released.transaction, released.happened)

        return await self._delete(plan, actor)

    # --- streams ---

    def connect(self, host: HostId) -> HostStream:
        """A new conversation with an authenticated host. Its hello supersedes the session before."""
        stream = HostStream(host, self._desk, self._options.lag_transactions, self._ended, next(self._numbers))
        self._open[stream] = None
        if self._closed:
            stream.refuse(unavailable("the controller is stopping", "connect again"))
        return stream

    def _ended(self, stream: HostStream) -> None:
        self._open.pop(stream, None)

    async def query(self, host: HostId, what: str, timeout_s: float, **more: Any) -> object:
        """Ask a connected agent; `more`: what else the Query says.

        Raises: UNAVAILABLE (not connected, too slow); what the agent answered with.
        """
        stream = self._fleet.streams.get(host)
        if stream is None:
            raise not_connected(self.state, host)
        return await stream.ask(lambda number: Query(request=number, what=what, **more), timeout_s)

    # --- status and events ---

    def status(self) -> Status:
        """Every host, by name: connected, the revision it has attempted, its failures."""
        return self._fleet.status()

    async def wait_settled(
        self, revision: Revision, timeout_s: float, within: TenantId | None = None
    ) -> list[HostState]:
        """Wait until every host concerned by `revision` has attempted it, or the time is up; the table of them.

        `settled` is: every state is `applied` or `failed`. `within`: only what of the revision concerns that tenant.
        """
        deadline = asyncio.get_running_loop().time() + timeout_s
        while True:
            ring = self._fleet.progressed.next
            table = self._fleet.table(revision, within)
            left_s = deadline - asyncio.get_running_loop().time()
            if self._closed or left_s <= 0 or all(host.state in (Step.APPLIED, Step.FAILED) for host in table):
                return table
            try:
                await asyncio.wait_for(ring.wait(), left_s)
            except TimeoutError:
                return self._fleet.table(revision, within)

    def events(self, since: Revision, number: int = -1, follow: bool = True) -> AsyncIterator[Event]:
        """Events after (since, number), oldest first, then, with `follow`, what happens, until `close`.

        `number` -1: all of revision `since` was seen. Raises (at the first step): NOT_FOUND (CompactedError) where
        the log no longer reaches back to `since`.
        """
        return self._events.follow(since, number, follow)


def _check_names(state: State, spec: NetworkSpec, tenant: Tenant, name: str, within: TenantId | None) -> None:
    if spec.name and spec.name != name:
        raise _other_name("network", name, spec.name)
    if spec.tenant and state.resolve_tenant(spec.tenant, within).id != tenant.id:
        raise invalid(
            f"the path is about tenant {tenant.name}, the body about {spec.tenant}",
            "leave the tenant out of the body",
        )


def _voided() -> HawseError:
    return denied("this host was given another secret, which voids the one before", "give the agent the new one")


def _check_absent(kind: str, reference: str, if_match: Revision | None) -> None:
    if if_match is not None:
        raise conflict(f"stale revision: {kind} {reference} is not there", "leave If-Match out to create it")


def _other_name(kind: str, path: str, body: str) -> HawseError:
    return invalid(f"the path is about {kind} {path}, the body about {body}", "a name cannot be changed", name=body)
