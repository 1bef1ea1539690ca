"""The wiring: what the controller wants of this host, and the reconciler that makes it so. Nothing here awaits.

Three things are laid over the stream's world: the sandboxes that ADDs in progress have handed over, the releases that
the controller has not confirmed, and, until the first snapshot, what the kernel remembers by itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator

from sdn.model.errors import HawseError, Kind
from sdn.model.ids import EndpointId, HostId
from sdn.model.resources import Endpoint, Network
from sdn.model.stream import Delta, Drop, Sync
from sdn.reconcile.datapath import Datapath, LocalPort, Sandbox
from sdn.reconcile.loop import Reconciler
from sdn.reconcile.unit import NetworkUnit, UnitKey, endpoint_key, key_text
from sdn.reconcile.world import World
from sdn.service.log import get_logger

AttachmentKey = tuple[str, str]
"""(container, ifname)."""


@dataclasses.dataclass(slots=True)
class Expected:
    """A sandbox that waits for its endpoint, and the endpoint that it was offered for."""

    sandbox: Sandbox
    endpoint: Endpoint | None = None


class Wiring:
    """One per agent; everything on the event loop's thread.

    `make_reconciler` is given `on_gone`; `released`: the endpoints whose release is undelivered; `on_gone`: told of an
    endpoint of this host that cannot be wired and has to be released.
    """

    def __init__(
        self,
        host: HostId,
        datapath: Datapath,
        make_reconciler: Callable[[Callable[[EndpointId], None]], Reconciler],
        *,
        released: Callable[[], Iterable[EndpointId]],
        on_gone: Callable[[Endpoint], None],
    ) -> None:
        self.world = World(host)
        self.reconciler = make_reconciler(self._found_gone)
        self._datapath = datapath
        self._released = released
        self._on_gone = on_gone
        self._expected: dict[AttachmentKey, Expected] = {}
        self._log = get_logger("wiring")

    # What the stream says -------------------------------------------------------------------------------------------

    def take(self, message: Delta | Drop | Sync) -> bool:
        """Apply; at a Sync also wire. Returns whether a transaction took effect. Raises: StreamBrokenError."""
        applied = self.world.apply(message)
        if applied is None:
            return False
        dirty = applied.dirty
        for endpoint in self._released():
            dirty |= self.world.withdraw(endpoint)
        if self._expected:
            self._offer(dirty)
        self._reconcile(dirty)
        return True

    def set_vteps(self, vtep4: str | None, vtep6: str | None) -> bool:
        """This host's VTEPs; whether that changed what is wired."""
        dirty = self.world.set_here(vtep4, vtep6)
        self._reconcile(dirty)
        return bool(dirty)

    def failures(self) -> dict[str, str]:
        """What is not as it should be, by unit, as a report says it."""
        return {key_text(unit): failure.text for unit, failure in self.reconciler.failures.items()}

    def _reconcile(self, dirty: set[UnitKey]) -> None:
        result = self.reconciler.reconcile(dirty, self.world)
        for unit, text in result.failures.items():
            self._log.warning("not wired", unit=key_text(unit), reason=text)

    # ADDs in progress -----------------------------------------------------------------------------------------------

    def expect(self, key: AttachmentKey, sandbox: Sandbox) -> None:
        """An ADD holds this sandbox for the endpoint of that key, which may be there already."""
        self._expected[key] = Expected(sandbox)
        endpoint = self.world.local_endpoint(*key)
        if endpoint is not None and endpoint.sandbox == sandbox.cookie:
            unit = endpoint_key(endpoint.id)
            self._offer({unit})
            if unit in self.reconciler.failures:
                self._reconcile({unit})

    def unexpect(self, key: AttachmentKey) -> None:
        """The ADD is over: its descriptor is about to be closed."""
        expected = self._expected.pop(key, None)
        if expected is not None and expected.endpoint is not None:
            self._datapath.offer(expected.endpoint, None)

    def _offer(self, dirty: set[UnitKey]) -> None:
        for kind, id_ in dirty:
            endpoint = self.world.endpoint(EndpointId(id_)) if kind == "endpoint" else None
            expected = self._expectation(endpoint) if endpoint is not None else None
            if endpoint is not None and expected is not None:
                self._datapath.offer(endpoint, expected.sandbox)
                expected.endpoint = endpoint

    def _expectation(self, endpoint: Endpoint) -> Expected | None:
        if endpoint.host != self.world.here.host:
            return None
        expected = self._expected.get((endpoint.container, endpoint.ifname))
        return expected if expected is not None and expected.sandbox.cookie == endpoint.sandbox else None

    def _found_gone(self, id_: EndpointId) -> None:
        endpoint = self.world.endpoint(id_)
        # That of an ADD in progress is released by the ADD, which also says why.
        if endpoint is not None and self._expectation(endpoint) is None:
            self._on_gone(endpoint)

    def problem(self, endpoint: Endpoint) -> str:
        """Why an endpoint of this host is not usable, as a sentence; empty: it is."""
        if self.world.endpoint(endpoint.id) is None:
            return "it was released meanwhile"
        units: tuple[UnitKey, ...] = (
            endpoint_key(endpoint.id),
            ("network", endpoint.network),
            ("tenant", endpoint.tenant),
        )
        for unit in units:
            failure = self.reconciler.failures.get(unit)
            if failure is not None:
                return failure.text
        return ""

    def made(self, key: AttachmentKey) -> EndpointId | None:
        """The endpoint of that key, if its interface is there; whatever else may be wrong with it."""
        endpoint = self.world.local_endpoint(*key)
        if endpoint is None or not self.problem(endpoint):
            return None if endpoint is None else endpoint.id
        return endpoint.id if any(port.endpoint == endpoint.id for port in self.ports()) else None

    def other_hosts(self, network: Network) -> tuple[str, ...]:
        """The names of the other hosts that have the network."""
        unit = self.world.unit(("network", network.id))
        if not isinstance(unit, NetworkUnit):
            return ()
        return tuple(member.name for member in unit.members if member.host != self.world.here.host)

    # Releases -------------------------------------------------------------------------------------------------------

    def release(self, endpoints: Iterable[Endpoint], sandbox: Sandbox | None = None) -> None:
        """Take endpoints of this host out of service at once. `sandbox`: where their inside ends can be reached."""
        dirty: set[UnitKey] = set()
        offered: list[Endpoint] = []
        for endpoint in endpoints:
            dirty |= self.world.withdraw(endpoint.id)
            if sandbox is not None and sandbox.cookie == endpoint.sandbox:
                self._datapath.offer(endpoint, sandbox)
                offered.append(endpoint)
        try:
            self._reconcile(dirty)
        finally:
            for endpoint in offered:
                self._datapath.offer(endpoint, None)

    def ports(self) -> list[LocalPort]:
        """What the kernel remembers of this host's endpoints, for when the world is not known yet."""
        return self._datapath.local_ports(self.reconciler.mirror)

    def sever(self, port: LocalPort) -> None:
        """Take a port out of service by what the kernel remembers alone. Raises: HawseError, the first failure.

        What else was made for its endpoint lies idle then, and goes with the first snapshot.
        """
        mirror = self.reconciler.mirror
        keys = [key for key, object_ in mirror.items() if port in self._datapath.local_ports({key: object_})]
        for error in self.reconciler.discard(keys).values():
            raise error if isinstance(error, HawseError) else _severed_badly(port, error)

    # Looking --------------------------------------------------------------------------------------------------------

    def attachments(self, container: str) -> Iterator[Endpoint]:
        """The endpoints of one container on this host."""
        for endpoint in self.world.local_endpoints():
            if endpoint.container == container:
                yield endpoint

    def is_network(self, endpoint: Endpoint, reference: str) -> bool:
        """Whether a reference (id, `tenant/name`, or a name of tenant `default`) means the endpoint's network."""
        context = self.world.context()
        network = context.networks.get(endpoint.network)
        tenant = context.tenants.get(endpoint.tenant)
        if network is None or tenant is None:
            return False
        names = {network.id, f"{tenant.name}/{network.name}", f"{tenant.id}/{network.name}"}
        if tenant.name == "default":
            names.add(network.name)
        return reference in names


def _severed_badly(port: LocalPort, error: Exception) -> HawseError:
    return HawseError(
        Kind.INTERNAL,
        f"cannot take {port.ifname} of container {port.container} out of service: {error}",
        hint="try again; see the agent's log",
    )
