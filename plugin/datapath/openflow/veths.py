"""The host ends of one write: taken out of service, made, finished inside, taken back."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Sequence
from typing import NamedTuple

from plugin.datapath.openflow.links import HostLinks
from plugin.datapath.openflow.objects import Port
from plugin.datapath.veth import inside
from plugin.datapath.veth.batch import Batch, Errors, explain, name_taken
from plugin.datapath.veth.inside import Offers
from plugin.datapath.veth.ports import doom, parse_port_alias
from plugin.datapath.veth.removal import Removal
from plugin.kernel import link
from plugin.kernel.netlink import NetlinkError
from sdn.model.errors import HawseError, Kind
from sdn.model.ids import EndpointId
from sdn.model.resources import Endpoint
from sdn.reconcile.datapath import Key, Operation, Sandbox, SandboxGoneError, Verb

_INDEX_ATTEMPTS = 4
"""Numbers tried for a veth before giving up: each refusal skips further."""
_INDEX_SKIP = 1000
_REMOVAL_S = 5.0
"""How long a name may stay taken by a veth of ours that is being deleted."""


class Made(NamedTuple):
    """A new veth."""

    endpoint: Endpoint
    sandbox: Sandbox
    number: int


class Veths:
    """Of one write: operations of the kind "port". `errors` are the write's; `made` are the new ones that are there."""

    def __init__(
        self,
        links: HostLinks,
        removal: Removal,
        offers: Offers,
        gone: Sequence[Operation],
        put: Sequence[Operation],
        errors: Errors,
    ) -> None:
        self.made: dict[Key, Made] = {}
        self.errors = errors
        self._links = links
        self._removal = removal
        self._offers = offers
        self._gone = gone
        self._put = put
        self._doomed: list[int] = []

    def remove(self) -> None:
        """Out of service at once; their names inside are free."""
        batch, links = Batch(), self._links
        remade = {operation.key for operation in self._put}
        doomed: dict[Key, int] = {}
        for operation in self._gone:
            index = links.index(operation.key[1])
            if index is not None:
                doomed[operation.key] = index
                doom(batch, operation.key, index, rename=operation.key in remade)
        self._send(batch)
        for operation in self._gone:
            if operation.key in doomed:
                self._free_inside(operation, doomed[operation.key])
                links.indexes.pop(operation.key[1], None)
        self._doomed += [index for key, index in doomed.items() if key not in self.errors]

    def _free_inside(self, operation: Operation, index: int) -> None:
        port = operation.before
        owner = parse_port_alias(port.alias) if isinstance(port, Port) else None
        offer = self._offers.get(EndpointId(owner.endpoint)) if owner else None
        if owner is not None and offer is not None:
            # A namespace that is going down has nothing to be freed: the host's side is what counts.
            with contextlib.suppress(OSError, NetlinkError):
                inside.free(offer[1], owner.ifname, index)

    def make(self) -> None:
        """New veths, and what differs of old ones, in one batch."""
        batch = Batch()
        for operation in self._put:
            if operation.verb is Verb.CREATE:
                self._make_link(batch, operation)
            else:
                _change_link(batch, operation)
        refused = self._send(batch)
        for key in [key for key in self.made if key in refused]:
            self._again(key, refused[key])

    def _make_link(self, batch: Batch, operation: Operation) -> None:
        key, port = operation.key, operation.after
        assert isinstance(port, Port)
        owner = parse_port_alias(port.alias)
        offer = self._offers.get(EndpointId(owner.endpoint)) if owner else None
        if offer is None:
            whose = owner.endpoint if owner else key[1]
            self.errors[key] = SandboxGoneError(f"endpoint {whose} cannot be wired: its container's namespace is gone")
            return
        endpoint, sandbox = offer
        index = self._links.make(batch, key, port.alias, port.mtu_bytes, endpoint, sandbox.fd)
        self.made[key] = Made(endpoint, sandbox, index)

    def _again(self, key: Key, refusal: NetlinkError) -> None:
        """Try a refused veth with other numbers if that may be why."""
        made = self.made.pop(key)
        links = self._links
        links.indexes.pop(key[1], None)
        del self.errors[key]
        operation = next(operation for operation in self._put if operation.key == key)
        for attempt in range(1, _INDEX_ATTEMPTS + 1):
            if refusal.errno == errno.EBUSY:
                links.skip(_INDEX_SKIP * attempt)
            elif refusal.errno != errno.EEXIST or attempt > 1 or not self._removal.wait_idle(_REMOVAL_S):
                break  # a name may be that of a veth of ours on its way out, once
            batch = Batch()
            self._make_link(batch, operation)
            refused = batch.send(links.writer)
            if key not in refused:
                return
            self.made.pop(key)
            links.indexes.pop(key[1], None)
            refusal = refused[key]
        taken = refusal.errno == errno.EEXIST
        self.errors[key] = name_taken(key, made.endpoint.ifname) if taken else explain(key, refusal)

    def finish(self) -> None:
        """Inside, last of all: from then on the container is heard, and answered."""
        for key, made in self.made.items():
            if key in self.errors:
                continue
            try:
                error = inside.finish(made.sandbox, made.endpoint, made.number, checksums=True)
            except OSError as failure:
                error = NetlinkError(failure.errno or errno.EIO, str(failure))
            if error is None:
                link.settle_carrier(self._links.writer, key[1])
                continue
            self.errors[key] = HawseError(
                Kind.INTERNAL,
                f"cannot configure {made.endpoint.ifname} in container {made.endpoint.container}: {error}",
                facts={"key": list(key), "errno": error.errno},
            )

    def take_back(self, keys: Sequence[Key]) -> None:
        """Doom new veths."""
        batch = Batch()
        for key in keys:
            index = self.made.pop(key).number
            doom(batch, key, index, rename=True)
            self._links.indexes.pop(key[1], None)
            self._doomed.append(index)
        batch.send(self._links.writer)

    def _send(self, batch: Batch) -> dict[Key, NetlinkError]:
        refused = batch.send(self._links.writer)
        for key, error in refused.items():
            self.errors.setdefault(key, explain(key, error))
            if error.errno == errno.ENODEV:
                self._links.indexes.clear()  # somebody has exchanged a link: look all of them up again
        return refused

    def delete(self) -> None:
        """Have the worker delete what is out of service."""
        self._removal.schedule(self._links, self._doomed)


def _change_link(batch: Batch, operation: Operation) -> None:
    """A host end as it should be."""
    key, port, before = operation.key, operation.after, operation.before
    assert isinstance(port, Port)
    assert isinstance(before, Port)
    if before.mtu_bytes != port.mtu_bytes:
        batch.add(key, link.change_named(key[1], link.encode_mtu(port.mtu_bytes)))
    if before.alias != port.alias or before.up != port.up:
        batch.add(key, link.change_named(key[1], link.encode_alias(port.alias), up=port.up))
