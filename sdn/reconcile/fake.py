"""The fake datapath: a kernel in memory with the bridge datapath's structure, strict where the kernel is.

It is verified: the laws and the conformance kit run on it and on the real datapaths alike. `FakeKernel` is the host's
kernel and outlives any number of `FakeDatapath`s, as the real one outlives agents.
"""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Callable, Mapping, Sequence
from typing import assert_never

from sdn.model.explanation import Explanation, FlowRow, Question
from sdn.model.ids import EndpointId, TenantId
from sdn.model.resources import Endpoint
from sdn.reconcile import fake_objects
from sdn.reconcile.datapath import DropCount, Key, LocalPort, Operation, Sandbox, SandboxGoneError, Verb
from sdn.reconcile.explain import explain_all
from sdn.reconcile.fake_explain import FakeSight, flow_rows
from sdn.reconcile.fake_objects import FakeObject, Frame, Port, Vxlan
from sdn.reconcile.fake_text import print_objects
from sdn.reconcile.unit import Context, Unit

Drifted = Callable[[Sequence[TenantId] | None], None]


@dataclasses.dataclass(frozen=True, slots=True)
class Inside:
    """The container's end of an endpoint."""

    endpoint: EndpointId
    mac: str
    addresses: tuple[str, ...]
    mtu_bytes: int


class FakeKernel:
    """What is there. `insides`: (sandbox cookie, interface name) -> the end in it. `operations`: writes ever done."""

    def __init__(self) -> None:
        self.objects: dict[Key, FakeObject] = {}
        self.insides: dict[tuple[int, str], Inside] = {}
        self.drop_counts: list[DropCount] = []
        self.operations = 0
        self._listeners: list[Drifted] = []

    def text(self) -> str:
        """All that is there, for a person (or a golden file) to review."""
        return print_objects(self.objects)

    def create(self, key: Key, object_: FakeObject, offered: Sandbox | None) -> None:
        """Raises: OSError (EEXIST, or ENODEV where what it hangs on is missing); SandboxGoneError."""
        if key in self.objects:
            raise OSError(errno.EEXIST, f"cannot create {' '.join(key)}: it is there already")
        self._put(key, object_)
        if isinstance(object_, Port):
            endpoint = fake_objects.endpoint_of(key)
            if offered is None:
                del self.objects[key]
                raise SandboxGoneError(f"endpoint {endpoint} has no namespace to be made in")
            inside = Inside(endpoint, object_.mac, object_.addresses, object_.mtu_bytes)
            self.insides[offered.cookie, object_.ifname] = inside

    def replace(self, key: Key, object_: FakeObject) -> None:
        """Replaces or makes. Raises: OSError (EOPNOTSUPP where a live thing cannot be changed so)."""
        before = self.objects.get(key)
        if before is None and isinstance(object_, Port):
            raise OSError(errno.ENODEV, f"cannot change {' '.join(key)}: it is not there")
        if before is not None and not fake_objects.in_place(before, object_):
            raise OSError(errno.EOPNOTSUPP, f"cannot change {' '.join(key)} while it lives")
        self._put(key, object_)

    def delete(self, key: Key) -> None:
        """Removes a thing and what hangs on it, unasked and unseen, as a kernel does; absent is fine."""
        if self.objects.pop(key, None) is None:
            return
        for other, object_ in list(self.objects.items()):
            if isinstance(object_, Port) and key == ("bridge", other[1], object_.network):
                self.objects[other] = dataclasses.replace(object_, bridged=False)
            elif fake_objects.hangs_on(other, object_, key):
                self.delete(other)
        if key[0] == "port":
            endpoint = fake_objects.endpoint_of(key)
            self.insides = {where: end for where, end in self.insides.items() if end.endpoint != endpoint}

    def _put(self, key: Key, object_: FakeObject) -> None:
        for base in fake_objects.needs(key, object_):
            if base not in self.objects:
                raise OSError(errno.ENODEV, f"cannot make {' '.join(key)}: {' '.join(base)} is not there")
        if isinstance(object_, Frame) and object_.to[0] == "port":
            port = self.objects[object_.to]
            if not isinstance(port, Port) or not port.bridged or port.network != key[2]:
                raise OSError(errno.EINVAL, f"cannot make {' '.join(key)}: its port is not on the bridge")
        if isinstance(object_, Vxlan):
            for other, taken in self.objects.items():
                if other != key and isinstance(taken, Vxlan) and (taken.vni, other[3]) == (object_.vni, key[3]):
                    raise OSError(errno.EEXIST, f"a VXLAN device with VNI {object_.vni} exists: {' '.join(other)}")
        self.objects[key] = object_

    # What others do to it -------------------------------------------------------------------------------------------

    def listen(self, drifted: Drifted) -> None:
        """Tell of changes that were not written by a datapath."""
        self._listeners.append(drifted)

    def disturb(self, key: Key, object_: FakeObject | None = None) -> None:
        """Somebody else changes (or with None removes) a thing."""
        if object_ is None:
            self.delete(key)
        else:
            self.objects[key] = object_
        for drifted in self._listeners:
            drifted([TenantId(key[1])])

    def lose_sandbox(self, cookie: int) -> None:
        """A container's namespace dies, and the host ends of its endpoints with it."""
        endpoints = {end.endpoint for (where, _), end in self.insides.items() if where == cookie}
        for key in list(self.objects):
            if key[0] == "port" and fake_objects.endpoint_of(key) in endpoints:
                self.disturb(key)


class FakeDatapath:
    """See `sdn.reconcile.datapath.Datapath`."""

    def __init__(self, kernel: FakeKernel | None = None) -> None:
        self.kernel = kernel if kernel is not None else FakeKernel()
        self._offers: dict[EndpointId, Sandbox] = {}

    def lower(self, unit: Unit, context: Context) -> dict[Key, FakeObject]:
        """See Datapath."""
        return fake_objects.lower(unit, context)

    def rank(self, key: Key) -> int:
        """See Datapath."""
        return fake_objects.RANKS[key[0]]

    def in_place(self, before: FakeObject, after: FakeObject) -> bool:
        """See Datapath."""
        return fake_objects.in_place(before, after)

    def read(self, tenants: Sequence[TenantId] | None = None) -> dict[Key, FakeObject]:
        """See Datapath."""
        objects = self.kernel.objects.copy()
        return {key: object_ for key, object_ in objects.items() if tenants is None or key[1] in tenants}

    def write(self, operations: Sequence[Operation]) -> dict[Key, Exception]:
        """See Datapath."""
        errors: dict[Key, Exception] = {}
        for operation in operations:
            self.kernel.operations += 1
            try:
                self._write(operation)
            except (OSError, SandboxGoneError) as error:
                errors[operation.key] = error
        return errors

    def _write(self, operation: Operation) -> None:
        key = operation.key
        match operation.verb:
            case Verb.CREATE:
                assert operation.after is not None
                offered = self._offers.get(fake_objects.endpoint_of(key)) if key[0] == "port" else None
                self.kernel.create(key, operation.after, offered)
            case Verb.REPLACE:
                assert operation.after is not None
                self.kernel.replace(key, operation.after)
            case Verb.DELETE:
                self.kernel.delete(key)
            case _:
                assert_never(operation.verb)

    def offer(self, endpoint: Endpoint, sandbox: Sandbox | None) -> None:
        """See Datapath."""
        if sandbox is None:
            self._offers.pop(endpoint.id, None)
        else:
            self._offers[endpoint.id] = sandbox

    def check(self, endpoint: Endpoint, mtu_bytes: int, sandbox: Sandbox) -> list[str]:
        """See Datapath."""
        inside = self.kernel.insides.get((sandbox.cookie, endpoint.ifname))
        if inside is None:
            return [f"there is no {endpoint.ifname} in the namespace"]
        wanted = Inside(endpoint.id, endpoint.mac, endpoint.addresses, mtu_bytes)
        return [
            f"{field.name} of {endpoint.ifname} is {getattr(inside, field.name)}, not {getattr(wanted, field.name)}"
            for field in dataclasses.fields(Inside)
            if getattr(inside, field.name) != getattr(wanted, field.name)
        ]

    def local_ports(self, objects: Mapping[Key, FakeObject]) -> list[LocalPort]:
        """See Datapath."""
        return [
            LocalPort(fake_objects.endpoint_of(key), key[1], object_.container, object_.ifname)
            for key, object_ in objects.items()
            if isinstance(object_, Port)
        ]

    def drops(self) -> list[DropCount]:
        """See Datapath."""
        return list(self.kernel.drop_counts)

    def explain(self, questions: Sequence[Question]) -> Explanation:
        """See Datapath."""
        return explain_all(questions, lambda _: FakeSight(self.kernel.objects.copy()), self.kernel.drop_counts)

    def flows(self) -> list[FlowRow]:
        """See Datapath."""
        return list(flow_rows(self.kernel.objects.copy()))

    def notify(self, drifted: Drifted) -> None:
        """See Datapath."""
        self.kernel.listen(drifted)

    def purge(self) -> int:
        """See Datapath."""
        tenants = {key[1] for key in self.kernel.objects}
        self.kernel.objects.clear()
        return len(tenants)

    def close(self) -> None:
        """See Datapath."""
        self._offers.clear()

    def text(self) -> str:
        """See FakeKernel.text."""
        return self.kernel.text()


class FakeSite:
    """One host's fake kernel, as the laws need it."""

    def __init__(self) -> None:
        self.kernel = FakeKernel()

    def datapath(self) -> FakeDatapath:
        """A new datapath object on the same kernel, as a restarted agent has it."""
        return FakeDatapath(self.kernel)

    def sandbox(self, endpoint: Endpoint) -> Sandbox:
        """The namespace of the endpoint's container; there is no descriptor to hold."""
        return Sandbox(-1, endpoint.sandbox)

    def close(self) -> None:
        """Nothing is held."""
