"""Operations to the kernel, the database and the switch, whatever their number: one batch, one transaction, one bundle.

The order of an attachment: the veth, then, while the database tells the switch of the port, the flows; the port's
confirmation; at last the inside, so that nothing a container says is lost. The order of a detachment: the host end
down, which is silence, its name inside free; the flows and the row together; the link goes in its own time. A port
that the switch refuses is taken back with what was made for it: nothing half-made stays.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, ParamSpec

from plugin.datapath.openflow.links import HostLinks
from plugin.datapath.openflow.memory import Memory
from plugin.datapath.openflow.objects import Name, Port, Uplink, external_ids
from plugin.datapath.openflow.veths import Veths
from plugin.datapath.openflow.vswitch import BRIDGE, TUNNEL_PORT, Change, NewPort, Vswitch
from plugin.datapath.veth.announcement import FormerMacs, announcement, recipients
from plugin.datapath.veth.batch import Errors, explain
from plugin.datapath.veth.inside import Offers
from plugin.datapath.veth.ports import parse_port_alias
from plugin.datapath.veth.removal import Removal
from plugin.kernel.netlink import NetlinkError
from sdn.model.errors import HawseError, conflict, unavailable
from sdn.openflow.expand import changes_of
from sdn.openflow.objects import TUNNEL, Speaker, Station
from sdn.reconcile.datapath import Operation, Verb

_INDEX_ATTEMPTS = 4
"""Numbers tried for a veth before giving up: each refusal skips further."""
_INDEX_SKIP = 1000
_REMOVAL_S = 5.0
"""How long a name may stay taken by a veth of ours that is being deleted."""
_OWN: Final = ("name", "uplink", "port")
"""The kinds that are no flows."""
Arguments = ParamSpec("Arguments")


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """What a write works on: this host's side of the datapath."""

    switch: Vswitch
    links: HostLinks
    removal: Removal
    offers: Offers
    former: FormerMacs
    memory: Memory


class Write:
    """One call of the datapath's `write`."""

    def __init__(self, place: Place, operations: Sequence[Operation]) -> None:
        self._place = place
        self.errors: Errors = {}
        self._gone: dict[str, list[Operation]] = {}
        self._put: dict[str, list[Operation]] = {}
        for operation in operations:
            kinds = self._gone if operation.verb is Verb.DELETE else self._put
            kinds.setdefault(operation.key[0], []).append(operation)
        gone, put = self._gone.get("port", ()), self._put.get("port", ())
        self._veths = Veths(place.links, place.removal, place.offers, gone, put, self.errors)

    def run(self) -> Errors:
        """Do all."""
        self._open_ways()
        old = self._numbers()  # before the database is told: it forgets them
        self._veths.remove()
        self._veths.make()
        change = self._submit()
        new = old if change is None else {**old, **change.numbers}
        self._write_flows(old, new)
        if change is not None:
            self._confirm(change)
        self._veths.finish()
        self._take_back(new)
        self._close_ways()
        self._veths.delete()
        self._announce()
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
                told = explain(operation.key, error) if isinstance(error, NetlinkError) else error
                self.errors.setdefault(operation.key, told)

    # The way out ----------------------------------------------------------------------------------------------------

    def _open_ways(self) -> None:
        """Before the flows that need them."""
        switch, memory = self._place.switch, self._place.memory
        uplinks = self._put.get("uplink", [])
        if uplinks:
            wanted = _after(uplinks[-1])
            assert isinstance(wanted, Uplink)
            self._guarded(uplinks, switch.uplink, wanted.vtep4, wanted.vtep6)
            taken = memory.turn((int(operation.key[1]) for operation in uplinks), taken=True)
            self._guarded(uplinks, switch.guard_networks, taken)
        members = [operation for operation in self._put.get("member", []) if operation.verb is Verb.CREATE]
        new = memory.enter(operation.key[2] for operation in members)
        if new:
            self._guarded(members, switch.reaches, new, ())

    def _close_ways(self) -> None:
        """After the flows that needed them."""
        switch, memory = self._place.switch, self._place.memory
        members = self._gone.get("member", [])
        left = memory.leave(operation.key[2] for operation in members)
        if left:
            self._guarded(members, switch.reaches, (), left)
        uplinks = self._gone.get("uplink", [])
        if uplinks:
            taken = memory.turn((int(operation.key[1]) for operation in uplinks), taken=False)
            self._guarded(uplinks, switch.guard_networks, taken)

    # The database ---------------------------------------------------------------------------------------------------

    def _submit(self) -> Change | None:
        """Ports and names in one transaction; None: nothing is to be told, or nothing can."""
        add: dict[str, NewPort] = {}
        for operation in self._put.get("port", ()):
            port, before = _after(operation), operation.before
            if operation.key not in self.errors and (before is None or _row(before) != _row(port)):
                owner = parse_port_alias(port.row)
                assert owner is not None
                add[operation.key[1]] = NewPort(external_ids(owner))
        self._leave_out(add, self._place.switch.strangers(add))
        remove = [operation.key[1] for operation in self._gone.get("port", ())]
        names: dict[int, tuple[str, str] | None] = {int(op.key[1]): None for op in self._gone.get("name", ())}
        given = {int(op.key[1]): _name(_after(op)) for op in self._put.get("name", ())}
        names |= given
        self._place.memory.note_owners(given)
        if not (add or remove or names):
            return None
        try:
            return self._place.switch.change(add=add, remove=remove, networks=names)
        except HawseError as error:
            self._refuse(error)
            self._veths.take_back(list(self._veths.made))
            return None

    def _leave_out(self, add: dict[str, NewPort], strangers: Collection[str]) -> None:
        """One of them would have the whole transaction refused."""
        for name in strangers:
            del add[name]
            self.errors["port", name] = conflict(
                f"cannot make {name} a port of {BRIDGE}: Open vSwitch has a port of that name in another bridge",
                f"ovs-vsctl del-port {name}, if nobody needs it",
                port=name,
            )
        self._veths.take_back([key for key in self._veths.made if key[1] in strangers])

    def _refuse(self, error: HawseError) -> None:
        """The database has done nothing of what it was told."""
        for kinds in (self._gone, self._put):
            for kind in ("port", "name"):
                for operation in kinds.get(kind, ()):
                    self.errors.setdefault(operation.key, error)

    def _confirm(self, change: Change) -> None:
        """Wait for the switch."""
        try:
            for name, error in change.wait().items():
                self.errors.setdefault(("port", name), error)
        except HawseError as error:
            self._refuse(error)

    def _take_back(self, numbers: Mapping[str, int]) -> None:
        """What was made for a port that the switch refused, or whose inside could not be finished."""
        failed = [key for key in self._veths.made if key in self.errors]
        if not failed:
            return
        names = {key[1] for key in failed}
        with contextlib.suppress(HawseError):  # the next read shows what is left
            dependent = [operation for operation in self._flow_operations(self._put) if _port(operation) in names]
            groups = [changes_of(operation.key, operation.after, None, numbers) for operation in dependent]
            if groups:
                self._place.switch.flows(groups)
            for operation in dependent:
                self.errors.setdefault(operation.key, self.errors["port", _port(operation)])
            self._place.switch.change(add={}, remove=sorted(names), networks={}).wait()
        self._veths.take_back(failed)

    # Flows ----------------------------------------------------------------------------------------------------------

    def _numbers(self) -> dict[str, int]:
        """Of the ports that flows may name, as they are now."""
        rows = self._place.switch.ports()
        numbers = {TUNNEL: TUNNEL_PORT}
        for operation in (*self._flow_operations(self._gone), *self._flow_operations(self._put)):
            for port in _ports(operation):
                row = rows.get(port)
                if row is not None and row.number:
                    numbers[port] = row.number
        return numbers

    def _flow_operations(self, kinds: dict[str, list[Operation]]) -> list[Operation]:
        return [operation for kind, found in kinds.items() if kind not in _OWN for operation in found]

    def _write_flows(self, old: Mapping[str, int], new: Mapping[str, int]) -> None:
        """All in one bundle, removals first; what hangs on a port that could not be made fails with it."""
        groups: list[list[bytes]] = []
        owners: list[Operation] = []
        for operation in (*self._flow_operations(self._gone), *self._flow_operations(self._put)):
            without = self.errors.get(("port", _port(operation)))
            if without is not None and operation.after is not None:
                self.errors.setdefault(operation.key, without)
                continue
            try:
                groups.append(_messages(operation, old, new))
            except KeyError as error:
                self.errors.setdefault(operation.key, _without_number(str(error.args[0])))
            else:
                owners.append(operation)
        if not groups:
            return
        try:
            verdicts = self._place.switch.flows(groups)
        except HawseError as error:
            verdicts = [error] * len(groups)
        for operation, verdict in zip(owners, verdicts, strict=True):
            if verdict is not None:
                self.errors.setdefault(operation.key, verdict)
            elif operation.key[0] == "speaker":
                after = operation.after
                self._place.memory.note_speaker(operation.key[1], after if isinstance(after, Speaker) else None)

    # Who has to be told ---------------------------------------------------------------------------------------------

    def _announce(self) -> None:
        former = self._place.former
        gone = {int(operation.key[1]) for operation in self._gone.get("name", ())}
        former.remember(self._gone.get("neighbour", ()), gone)
        frames: list[tuple[str, bytes]] = []
        for change in former.changes(self._put.get("neighbour", ()), self.errors.keys()):
            stations = self._place.memory.stations(change.vni)
            told = set(map(id, recipients(change, [speaker for _, speaker in stations])))
            frames += [
                (port, announcement(change.address, change.mac, speaker.mac))
                for port, speaker in stations
                if id(speaker) in told
            ]
        if frames:
            # What was wanted is written already; a peer that is not told finds out when its neighbour entry fails.
            with contextlib.suppress(HawseError):
                self._place.switch.packet_out(frames)


def _after(operation: Operation) -> Any:
    """What a creation or replacement wants."""
    assert operation.after is not None
    return operation.after


def _messages(operation: Operation, old: Mapping[str, int], new: Mapping[str, int]) -> list[bytes]:
    """An operation's flow-mods. Raises: KeyError, for a port without a number."""
    key, before, after = operation.key, operation.before, operation.after
    if before is None or after is None or all(new.get(port) == old.get(port) for port in _ports(operation)):
        return changes_of(key, before, after, old if after is None else new)
    return [*changes_of(key, before, None, old), *changes_of(key, None, after, new)]


def _without_number(port: str) -> HawseError:
    return unavailable(f"Open vSwitch has no port {port} yet", "the next reconcile makes it")


def _name(name: Name) -> tuple[str, str]:
    return name.network, name.tenant


def _row(port: Port) -> tuple[str, str]:
    return port.row, port.error


def _port(operation: Operation) -> str:
    """The port that what is wanted hangs on; "": on none."""
    after = operation.after
    if isinstance(after, Station):
        return after.port
    return operation.key[1] if operation.key[0] == "speaker" else ""


def _ports(operation: Operation) -> Iterator[str]:
    """The ports that an operation's flows may name."""
    if operation.key[0] == "speaker":
        yield operation.key[1]
    for value in (operation.before, operation.after):
        if isinstance(value, Station) and value.port:
            yield value.port
