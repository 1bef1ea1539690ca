"""Operations to the kernel: for each tenant one batch of deletions, then creations in few, whatever their number.

The order of an attachment: guard, host side, inside. The order of a detachment: host side, inside, guard. A veth whose
inside could not be finished is doomed again: nothing half-made stays.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ParamSpec

from plugin.datapath.bridge import carriers, requests
from plugin.datapath.bridge.announce import announce
from plugin.datapath.bridge.objects import Port, vni_of
from plugin.datapath.bridge.tenant import TenantNamespace, Tenants
from plugin.datapath.bridge.underlay_guard import UnderlayGuard
from plugin.datapath.veth import inside
from plugin.datapath.veth.batch import Batch, Errors, explain, name_taken
from plugin.datapath.veth.inside import Offers
from plugin.datapath.veth.ports import doom, parse_port_alias
from plugin.datapath.veth.removal import Removal
from plugin.kernel import link
from plugin.kernel.netlink import NetlinkError, NetlinkSocket
from sdn.model.errors import HawseError, Kind, unavailable
from sdn.model.ids import EndpointId
from sdn.model.resources import Endpoint
from sdn.reconcile.datapath import Key, Operation, Sandbox, SandboxGoneError, Verb

_INDEX_ATTEMPTS = 4
"""Numbers tried for a veth before giving up: each refusal skips further."""
_INDEX_SKIP = 1000
_REMOVAL_S = 5.0
"""How long a name may stay taken by a veth of ours that is being deleted."""
Arguments = ParamSpec("Arguments")
_UNDERLAY = ("underlay-network", "member")


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """What a write works on: this host's side of the datapath."""

    tenants: Tenants
    here: NetlinkSocket
    underlay: UnderlayGuard
    removal: Removal
    offers: Offers
    owners: dict[int, str]
    """Whose a VNI of the underlay's guard is, by its bridge or as it was written."""


class Write:
    """One call of the datapath's `write`."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.errors: Errors = {}

    def run(self, operations: Sequence[Operation]) -> Errors:
        """Do all: deletions of all tenants, then the rest."""
        deletions = [operation for operation in operations if operation.verb is Verb.DELETE]
        others = [operation for operation in operations if operation.verb is not Verb.DELETE]
        for tenant, group in _by_tenant(deletions):
            self._guarded(group, self._remove, tenant, group)
        self._underlay_removals([operation for operation in deletions if operation.key[0] in _UNDERLAY])
        self._underlay_additions([operation for operation in others if operation.key[0] in _UNDERLAY])
        for tenant, group in _by_tenant(others):
            self._guarded(group, self._put, tenant, group)
        return self.errors

    def _guarded(
        self,
        operations: Iterable[Operation],
        task: Callable[Arguments, object],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> None:
        """Do a task for some operations; if it fails as a whole, all of them have failed that have no error yet."""
        try:
            task(*args, **kwargs)
        except (OSError, NetlinkError, HawseError) as error:
            for operation in operations:
                self.errors.setdefault(operation.key, _as_hawse(operation.key, error))

    # Deletions ------------------------------------------------------------------------------------------------------

    def _remove(self, tenant: str, operations: list[Operation]) -> None:
        opened = self._place.tenants.get(tenant)
        if opened is None:
            return
        kinds = _by_kind(operations)
        with self._place.tenants.own(opened, learn=False):
            self._remove_links(opened, kinds)
            if "namespace" in kinds:
                self._place.tenants.take_away(tenant)
                self._place.removal.retire(opened)
                return
            self._remove_guards(opened, kinds)

    def _remove_links(self, opened: TenantNamespace, kinds: dict[str, list[Operation]]) -> None:
        batch = Batch()
        doomed: dict[Key, int] = {}
        for operation in kinds.get("neighbour", ()):
            requests.remove_neighbour(batch, operation.key, opened)
        for operation in kinds.get("station", ()):
            requests.remove_station(batch, operation, opened)
        for operation in kinds.get("gateway", ()):
            requests.remove_gateway(batch, operation.key, opened)
        for kind in ("port", "vxlan", "bridge"):
            for operation in kinds.get(kind, ()):
                index = opened.known_index(operation.key[2])
                if index is not None:
                    doomed[operation.key] = index
                    doom(batch, operation.key, index, rename=kind != "port")
        self._send(batch, opened)
        for operation in kinds.get("port", ()):
            if operation.key in doomed:
                self._free_inside(operation, doomed[operation.key])
        for key in doomed:
            opened.indexes.pop(key[2], None)
            if key[0] == "bridge":
                opened.networks.pop(vni_of(key[2]), None)
        opened.former.remember(
            kinds.get("neighbour", ()), {vni_of(operation.key[2]) for operation in kinds.get("bridge", ())}
        )
        self._place.removal.schedule(opened, [index for key, index in doomed.items() if key not in self.errors])

    def _free_inside(self, operation: Operation, index: int) -> None:
        port = operation.before
        owner = parse_port_alias(port.alias) if isinstance(port, Port) else None
        offer = self._place.offers.get(EndpointId(owner.endpoint)) if owner else None
        if owner is not None and offer is not None:
            # A namespace that is going down has nothing to be freed: the host's side is what counts.
            with contextlib.suppress(OSError, NetlinkError):
                inside.free(offer[1], owner.ifname, index)

    def _remove_guards(self, opened: TenantNamespace, kinds: dict[str, list[Operation]]) -> None:
        guards = kinds.get("guard", [])
        if guards:
            refused = opened.guard.write([(op.key[2], op.before, None) for op in guards])
            self._note_guards(opened, refused)
        for operation in kinds.get("counters", ()):
            vni = int(operation.key[2])
            self._guarded([operation], opened.guard.remove_network, vni)

    def _underlay_removals(self, operations: list[Operation]) -> None:
        """A VNI without a tenant is removed only if it still has none: it may have got one since it was read."""
        underlay, owners = self._place.underlay, self._place.owners
        mine = [op for op in operations if op.key[1] or int(op.key[2]) not in owners]
        members = [op for op in mine if op.key[0] == "member"]
        if members:
            gone = [(int(op.key[2]), op.key[3]) for op in members]
            self._guarded(members, underlay.write, [], gone)
        for operation in mine:
            if operation.key[0] == "underlay-network":
                vni = int(operation.key[2])
                self._guarded([operation], underlay.remove_network, vni)
                if operation.key not in self.errors and owners.get(vni) == operation.key[1]:
                    del owners[vni]

    # Creations and replacements -------------------------------------------------------------------------------------

    def _underlay_additions(self, operations: list[Operation]) -> None:
        if not operations:
            return
        underlay = self._place.underlay
        self._guarded(operations, underlay.ensure)
        for operation in operations:
            if operation.key[0] == "underlay-network":
                vni = int(operation.key[2])
                self._place.owners[vni] = operation.key[1]
                self._guarded([operation], underlay.ensure_network, vni)
        members = [op for op in operations if op.key[0] == "member"]
        if members:
            new = [(int(op.key[2]), op.key[3]) for op in members]
            self._guarded(members, underlay.write, new, [])

    def _put(self, tenant: str, operations: list[Operation]) -> None:
        kinds = _by_kind(operations)
        opened = self._namespace(tenant, kinds)
        changed = {"namespace", "bridge", "vxlan"} & kinds.keys()
        replaced = any(operation.verb is Verb.REPLACE for operation in kinds.get("port", ()))
        with self._place.tenants.own(opened, learn=replaced or bool(changed)):
            if "guard-table" in kinds:
                self._guarded(kinds["guard-table"], opened.guard.ensure)
            self._put_bridges(opened, kinds.get("bridge", []))
            for operation in kinds.get("counters", ()):
                vni = int(operation.key[2])
                self._guarded([operation], opened.guard.ensure_network, vni, f"hwb{vni}")
            for operation in kinds.get("vxlan", ()):
                self._guarded([operation], carriers.put, operation, opened, self._place.here, self._place.removal)
            touched = {operation.key[2] for operation in kinds.get("bridge", ())}
            for bridge in touched | {_after(operation).bridge for operation in kinds.get("vxlan", ())}:
                link.settle_carrier(opened.writer, bridge)
            guards = kinds.get("guard", [])
            if guards:
                refused = opened.guard.write([(op.key[2], op.before, op.after) for op in guards])
                self._note_guards(opened, refused)
            self._put_rest(opened, kinds)

    def _namespace(self, tenant: str, kinds: dict[str, list[Operation]]) -> TenantNamespace:
        opened = self._place.tenants.get(tenant)
        if "namespace" not in kinds:
            if opened is None:
                raise unavailable(f"the namespace of tenant {tenant} is not there", "the next reconcile makes it")
            return opened
        if opened is None:
            return self._place.tenants.create(tenant)
        self._place.tenants.mend(opened)
        return opened

    def _put_bridges(self, opened: TenantNamespace, operations: list[Operation]) -> None:
        batch = Batch()
        for operation in operations:
            if operation.verb is Verb.CREATE:
                opened.indexes.pop(operation.key[2], None)
                requests.make_bridge(batch, operation.key)
            requests.set_bridge(batch, operation.key, _after(operation))
        self._send(batch, opened)
        for operation in operations:
            if operation.key not in self.errors:
                opened.networks[vni_of(operation.key[2])] = _after(operation).network

    def _put_rest(self, opened: TenantNamespace, kinds: dict[str, list[Operation]]) -> None:
        """Gateways, ports, stations, neighbours: one batch, then the insides, then who has to be told."""
        batch = Batch()
        made: dict[Key, tuple[Endpoint, Sandbox, int]] = {}
        for operation in kinds.get("gateway", ()):
            self._guarded([operation], requests.set_gateway, batch, operation.key, opened)
        for operation in kinds.get("port", ()):
            self._guarded([operation], self._put_port, batch, operation, opened, made)
        for operation in kinds.get("station", ()):
            self._guarded([operation], requests.set_station, batch, operation, opened)
        for operation in kinds.get("neighbour", ()):
            self._guarded([operation], requests.set_neighbour, batch, operation.key, _after(operation), opened)
        refused = self._send(batch, opened)
        failed: list[Key] = []
        for key, (endpoint, sandbox, index) in made.items():
            number = index
            if key in refused:
                opened.indexes.pop(key[2], None)
                again = self._again(opened, key, endpoint, sandbox, kinds, refused[key])
                if again is None:
                    continue
                number = again
            if self._finish(key, endpoint, sandbox, number):
                link.settle_carrier(opened.writer, key[2])
            else:
                failed.append(key)
        if failed:
            self._doom(opened, failed)
        announce(opened.fd, opened.guard, opened.former.changes(kinds.get("neighbour", ()), self.errors.keys()))

    def _put_port(
        self,
        batch: Batch,
        operation: Operation,
        opened: TenantNamespace,
        made: dict[Key, tuple[Endpoint, Sandbox, int]],
    ) -> None:
        key, port = operation.key, _after(operation)
        if operation.before is not None:
            requests.change_port(batch, key, port, operation.before, opened)
            return
        unguarded = self.errors.get(("guard", *key[1:]))
        if unguarded is not None:
            self.errors[key] = unguarded
            return
        owner = parse_port_alias(port.alias)
        offer = self._place.offers.get(EndpointId(owner.endpoint)) if owner else None
        if offer is None:
            whose = owner.endpoint if owner else key[2]
            self.errors[key] = SandboxGoneError(f"endpoint {whose} cannot be wired: its container's namespace is gone")
            return
        endpoint, sandbox = offer
        made[key] = endpoint, sandbox, requests.make_port(batch, key, port, endpoint, sandbox.fd, opened)

    def _again(
        self,
        opened: TenantNamespace,
        key: Key,
        endpoint: Endpoint,
        sandbox: Sandbox,
        kinds: dict[str, list[Operation]],
        refusal: NetlinkError,
    ) -> int | None:
        """Try a refused port with other numbers if that may be why; its index, or None."""
        del self.errors[key]
        port = next(_after(operation) for operation in kinds["port"] if operation.key == key)
        for attempt in range(1, _INDEX_ATTEMPTS + 1):
            if refusal.errno in requests.INDEX_TAKEN:
                self._place.tenants.indexes.skip(_INDEX_SKIP * attempt)
            elif refusal.errno != errno.EEXIST or attempt > 1 or not self._place.removal.wait_idle(_REMOVAL_S):
                break  # a name may be that of a veth of ours on its way out, once
            batch = Batch()
            index = requests.make_port(batch, key, port, endpoint, sandbox.fd, opened)
            for operation in kinds.get("station", ()):
                if _after(operation).port == key[2]:
                    self.errors.pop(operation.key, None)
                    requests.set_station(batch, operation, opened)
            refused = self._send(batch, opened)
            if key not in refused:
                return index
            opened.indexes.pop(key[2], None)
            del self.errors[key]
            refusal = refused[key]
        taken = refusal.errno == errno.EEXIST
        self.errors[key] = name_taken(key, endpoint.ifname) if taken else explain(key, refusal)
        return None

    def _finish(self, key: Key, endpoint: Endpoint, sandbox: Sandbox, index: int) -> bool:
        """Finish the inside of a new veth."""
        try:
            error = inside.finish(sandbox, endpoint, index)
        except OSError as failure:
            error = NetlinkError(failure.errno or errno.EIO, str(failure))
        if error is None:
            return True
        self.errors[key] = HawseError(
            Kind.INTERNAL,
            f"cannot configure {endpoint.ifname} in container {endpoint.container}: {error}",
            facts={"key": list(key), "errno": error.errno},
        )
        return False

    def _doom(self, opened: TenantNamespace, keys: list[Key]) -> None:
        batch = Batch()
        indexes = [opened.indexes.pop(key[2]) for key in keys]
        for key, index in zip(keys, indexes, strict=True):
            doom(batch, key, index, rename=True)
        batch.send(opened.writer)
        self._place.removal.schedule(opened, indexes)

    def _note_guards(self, opened: TenantNamespace, refused: dict[str, Exception]) -> None:
        for name, error in refused.items():
            self.errors[("guard", opened.tenant, name)] = error

    def _send(self, batch: Batch, opened: TenantNamespace) -> dict[Key, NetlinkError]:
        refused = batch.send(opened.writer)
        for key, error in refused.items():
            self.errors.setdefault(key, explain(key, error))
            if error.errno == errno.ENODEV:
                opened.indexes.clear()  # somebody has exchanged a link: look all of them up again
        return refused


def _after(operation: Operation) -> Any:
    """What a creation or replacement wants."""
    assert operation.after is not None
    return operation.after


def _as_hawse(key: Key, error: Exception) -> Exception:
    return explain(key, error) if isinstance(error, NetlinkError) else error


def _by_tenant(operations: Iterable[Operation]) -> list[tuple[str, list[Operation]]]:
    groups: dict[str, list[Operation]] = {}
    for operation in operations:
        if operation.key[0] not in _UNDERLAY:
            groups.setdefault(operation.key[1], []).append(operation)
    return list(groups.items())


def _by_kind(operations: Iterable[Operation]) -> dict[str, list[Operation]]:
    groups: dict[str, list[Operation]] = {}
    for operation in operations:
        groups.setdefault(operation.key[0], []).append(operation)
    return groups
