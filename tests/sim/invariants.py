"""What must hold: of the disk after every commit, and of everything when it has become quiet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from sdn.controller.ledger import load_state
from sdn.controller.state import State
from sdn.controller.topics import items_of
from sdn.model.codec import encode_msgpack
from sdn.model.ids import HostId
from sdn.model.resources import Allocation, Endpoint, Network
from sdn.model.stream import Delta, Sync
from sdn.reconcile.datapath import Key, Object
from sdn.reconcile.fake import FakeDatapath
from sdn.reconcile.fake_forwarding import reaches
from sdn.reconcile.fake_objects import Vxlan
from sdn.reconcile.laws import difference, lower_all
from sdn.reconcile.reach import matrix, underlay_family
from sdn.reconcile.world import World
from sdn.store.interface import Record
from sdn.store.memory import Disk, MemoryStore
from tests.sim.machine import Machine

_endpoint = msgspec.msgpack.Decoder(Endpoint).decode
_network = msgspec.msgpack.Decoder(Network).decode
_allocation = msgspec.msgpack.Decoder(Allocation).decode
_id = msgspec.msgpack.Decoder(str).decode


class Disks:
    """Looks at what is on the disk. `endpoints`: by id; `holders`: network -> host -> since which revision."""

    def __init__(self, disk: Disk) -> None:
        self.endpoints: dict[str, Endpoint] = {}
        self.networks: dict[str, Network] = {}
        self.holders: dict[str, dict[str, int]] = {}
        self._disk = disk
        self._vnis: dict[str, int] = {}

    def judge(self, machines: Iterable[Machine]) -> Iterator[str]:
        """After a commit: what is wrong, as sentences."""
        records = self._disk.records
        known = self.endpoints
        self.endpoints = {
            key[9:]: known.get(key[9:]) or _endpoint(record.value)
            for key, record in records.items()
            if key.startswith("endpoint/")
        }
        self.networks = {
            key[8:]: _network(record.value) for key, record in records.items() if key.startswith("network/")
        }
        self._note_holders()
        yield from self._judge_indexes(records)
        yield from self._judge_vnis(machines)

    def _note_holders(self) -> None:
        now: dict[str, dict[str, int]] = {}
        for endpoint in self.endpoints.values():
            since = self.holders.get(endpoint.network, {}).get(endpoint.host, self._disk.head)
            now.setdefault(endpoint.network, {})[endpoint.host] = since
        self.holders = now

    def _judge_indexes(self, records: Mapping[str, Record]) -> Iterator[str]:
        """Every endpoint has all that is its own, and nobody has anything else: nothing twice, nothing leaked."""
        wanted: dict[str, str] = {}
        for id_, endpoint in self.endpoints.items():
            keys = [
                f"attachment/{endpoint.host}/{endpoint.container}/{endpoint.ifname}",
                f"mac/{endpoint.network}/{endpoint.mac}",
                *(f"allocation/{endpoint.network}/{address.partition('/')[0]}" for address in endpoint.addresses),
            ]
            if endpoint.name:
                keys.append(f"name/endpoint/{endpoint.tenant}/{endpoint.name}")
            for key in keys:
                if key in wanted:
                    yield f"{key} is of {wanted[key]} and of {id_}"
                wanted[key] = id_
            if endpoint.network not in self.networks:
                yield f"endpoint {id_} is in a network that is not there"
        found = {
            key: _allocation(record.value).holder_id if key.startswith("allocation/") else _id(record.value)
            for key, record in records.items()
            if key.startswith(("attachment/", "mac/", "allocation/", "name/endpoint/"))
        }
        if found != wanted:
            yield f"the store's indexes are {found}, the endpoints say {wanted}"

    def _judge_vnis(self, machines: Iterable[Machine]) -> Iterator[str]:
        """A new network's VNI is in no kernel that still has the old one."""
        for id_, network in self.networks.items():
            if id_ in self._vnis:
                continue
            self._vnis[id_] = network.vni
            for machine in machines:
                for key, device in machine.kernel.objects.items():
                    if isinstance(device, Vxlan) and device.vni == network.vni and key[2] != id_:
                        yield f"VNI {network.vni} is given to {network.name} while {machine.name} has it as {key}"


async def judge_quiet(disk: Disk, live: State, machines: Mapping[HostId, Machine]) -> list[str]:
    """When nothing is under way any more: what is wrong, as sentences."""
    state = await load_state(MemoryStore(disk))
    wrong = list(_judge_copy(live, state))
    for host, machine in machines.items():
        wanted = wanted_objects(state, machine)
        if machine.kernel.objects != wanted:
            lines = difference(wanted, machine.kernel.objects)
            wrong.append(f"the kernel of {machine.name} ({host}) is not what is wanted:\n{lines}")
    wrong += _judge_reach(state, machines)
    return wrong


def _judge_copy(live: State, state: State) -> Iterator[str]:
    for what in ("revision", "tenants", "networks", "hosts", "endpoints", "vnis", "held", "attachments", "forgetting"):
        if getattr(live, what) != getattr(state, what):
            yield f"{what} in memory: {getattr(live, what)}, on the disk: {getattr(state, what)}"
    for network in state.networks:
        if list(live.allocations(network)) != list(state.allocations(network)):
            yield f"allocations of {network} in memory and on the disk differ"


def wanted_objects(state: State, machine: Machine) -> dict[Key, Object]:
    """What the state lowers to on a host."""
    world = World(machine.host)
    world.set_here(machine.facts.vtep4, machine.facts.vtep6)
    world.apply(*_deltas(state, machine.host), Sync(revision=1))
    return lower_all(FakeDatapath(), world.units(), world.context())


def _deltas(state: State, host: HostId) -> Iterator[Delta]:
    for topic in state.topics_of(host):
        puts = {key: msgspec.Raw(encode_msgpack(value)) for key, value in items_of(topic, state)}
        yield Delta(topic=topic, previous=0, revision=1, puts=puts)


def _judge_reach(state: State, machines: Mapping[HostId, Machine]) -> Iterator[str]:
    kernels = {host: machine.kernel for host, machine in machines.items()}

    def connected(one: HostId, other: HostId) -> bool:
        return underlay_family(machines[one].facts, machines[other].facts) is not None

    for source, target, verdict in matrix(state.endpoints.values(), connected):
        if reaches(kernels, source, target, connected) != verdict.allowed:
            yield f"{source.container} to {target.container}: {verdict.value} is the verdict, but not on the wire"
