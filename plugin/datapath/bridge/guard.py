"""The guard of a tenant's namespace: what each container port may send, and a named counter for every refusal.

Rules: guard_table.py. Elements: guard_elements.py. Keys are port names, so a port is guarded before its link exists.
"""

from __future__ import annotations

import errno
import struct
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from plugin.datapath.bridge.guard_elements import (
    SETS,
    GuardPort,
    Raw,
    SetElement,
    elements_by_port,
    elements_of,
    ifname_key,
    mark_key,
    ports_of,
)
from plugin.datapath.bridge.guard_table import (
    ARRIVAL_CAUSES,
    FRAME_CAUSES,
    TABLE,
    VERSION,
    counter_name,
    counter_of,
    guard_text,
    network_text,
    port_text,
)
from plugin.kernel.nftables import (
    Counter,
    Element,
    Family,
    Message,
    NetfilterError,
    Nftables,
    add_counter,
    add_elements,
    delete_counter,
    delete_elements,
)
from sdn.model.errors import HawseError, Kind, not_found

__all__ = ["GuardPort", "TenantGuard"]

_PORTS_PER_BATCH: Final = 500  # about 200 kB of netlink message
_TABLES: Final = ((Family.BRIDGE, FRAME_CAUSES), (Family.INET, ARRIVAL_CAUSES))

Change = tuple[str, GuardPort | None, GuardPort | None]
"""(port name, before, after); None: not there."""
Exchange = tuple[str, set[SetElement], set[SetElement]]
"""(port name, elements to delete, elements to add)."""


class TenantGuard:
    """The two tables of one tenant's namespace (a descriptor of it, which stays the caller's).

    Calls come from any thread; one at a time writes.
    """

    def __init__(self, ns_fd: int) -> None:
        self._rules = Nftables(ns_fd)
        self._writing = threading.Lock()
        self._damaged: set[str] = set()

    def ensure(self) -> bool:
        """Load the tables if they are absent or of another version, in one transaction; True if it had to.

        What an older version held is carried over as far as this one can read it. Raises: UNAVAILABLE, DENIED.
        """
        with self._writing:
            if self.present():
                return False
            try:
                self._rules.load(self._salvaged())
            except HawseError:  # what was salvaged may be nonsense: the rules matter, the caller rewrites the rest
                self._rules.load(guard_text({}))
            return True

    def present(self) -> bool:
        """Whether both tables are loaded, in this version."""
        return all(self._rules.has_chain(family, TABLE, VERSION) for family, _ in _TABLES)

    def ensure_network(self, vni: int, bridge: str) -> None:
        """Make the network's counters; those that are there keep their numbers. Raises: NOT_FOUND without tables."""
        with self._writing:
            self._make_network(vni, bridge)

    def remove_network(self, vni: int) -> None:
        """Remove the network's counters; absent ones are no error."""
        with self._writing:
            messages: list[Message] = []
            try:
                for family, causes in _TABLES:
                    there = {counter.name for counter in self._rules.counters(family, TABLE)}
                    for cause in causes:
                        messages += self._without_counter(family, cause, vni, there)
                self._rules.transact(messages)
            except NetfilterError as error:
                if error.errno != errno.ENOENT:
                    raise _failed(f"cannot remove the counters of network {vni}", error) from error

    def networks(self) -> set[int]:
        """The VNIs that have all their counters."""
        frames, arrivals = (self._complete(family, causes) for family, causes in _TABLES)
        return frames & arrivals

    def write(self, changes: Sequence[Change]) -> dict[str, Exception]:
        """Let ports send what `after` says and nothing else; the errors by port.

        One transaction for all. What is refused so (an element to delete was absent), or was read as damaged, is
        compared with what the kernel really holds, and tried again together and at last port by port.
        """
        errors: dict[str, Exception] = {}
        with self._writing:
            mended = [change for change in changes if change[0] in self._damaged or (change[1] and change[1].damaged)]
            names = {name for name, _, _ in mended}
            plain = [change for change in changes if change[0] not in names]
            for start in range(0, len(plain), _PORTS_PER_BATCH):
                chunk = plain[start : start + _PORTS_PER_BATCH]
                try:
                    self._rules.transact(_messages(chunk))
                except NetfilterError:
                    mended += chunk
            if mended:
                self._mend(mended, errors)
        return errors

    def read(self) -> dict[str, GuardPort]:
        """What each port may send, by name; a port with contradictory elements reads as damaged (empty MAC)."""
        with self._writing:  # four dumps: a write between them would make a port look damaged
            try:
                dumped = self._dump()
            except NetfilterError as error:
                if error.errno == errno.ENOENT:
                    return {}
                raise _failed("cannot read the guard's sets", error) from error
            ports = ports_of(dumped)
            self._damaged = {name for name, port in ports.items() if port.damaged}
            return ports

    def holds(self, name: str, key: bytes) -> bool:
        """Whether the frames' table has an element in a set or map now. Raises: INTERNAL."""
        try:
            return self._rules.find(Family.BRIDGE, TABLE, name, key) is not None
        except NetfilterError as error:
            raise _failed("cannot look into the guard's sets", error) from error

    def drops(self) -> list[tuple[int, str, int, int]]:
        """(VNI, cause, packets, bytes) of every counter; VNI 0 for what belongs to no network."""
        return [
            (*counter_of(counter.name), counter.packets, counter.bytes)
            for family, _ in _TABLES
            for counter in self._counters(family)
        ]

    def close(self) -> None:
        """Let go of the namespace; the tables stay."""
        self._rules.close()

    def _dump(self) -> dict[str, list[Raw]]:
        return {name: self._rules.elements(Family.BRIDGE, TABLE, name) for name in SETS}

    def _salvaged(self) -> str:
        """The commands for the tables, with all in them that those hold that they replace, as far as it can be read."""
        try:
            ports = ports_of(self._dump())
            bridges = self._rules.elements(Family.INET, TABLE, f"count-{ARRIVAL_CAUSES[0]}")
            counted = {c.name: (c.packets, c.bytes) for family, _ in _TABLES for c in self._counters(family)}
        except (NetfilterError, ValueError, struct.error):  # absent, or of a layout that this version does not know
            return guard_text({})
        networks = (
            network_text(counter_of(name.decode())[0], key.rstrip(b"\0").decode(), counted) for key, name in bridges
        )
        sound = (port_text(name, port) for name, port in ports.items() if not port.damaged)
        return "".join([guard_text(counted), *networks, *sound])

    def _without_counter(self, family: Family, cause: str, vni: int, there: set[str]) -> Iterator[Message]:
        """Messages that remove a counter and the elements that refer to it."""
        name, counts = counter_name(cause, vni), f"count-{cause}"
        held = [Element(key) for key, data in self._rules.elements(family, TABLE, counts) if data == name.encode()]
        yield from delete_elements(family, TABLE, counts, held)
        if name in there:
            yield delete_counter(family, TABLE, name)

    def _counters(self, family: Family) -> list[Counter]:
        try:
            return self._rules.counters(family, TABLE)
        except NetfilterError as error:
            if error.errno == errno.ENOENT:
                return []
            raise _failed("cannot read the guard's counters", error) from error

    def _complete(self, family: Family, causes: Iterable[str]) -> set[int]:
        found: dict[int, set[str]] = defaultdict(set)
        for counter in self._counters(family):
            vni, cause = counter_of(counter.name)
            found[vni].add(cause)
        return {vni for vni, seen in found.items() if vni and seen.issuperset(causes)}

    def _make_network(self, vni: int, bridge: str) -> None:
        messages: list[Message] = []
        for family, causes in _TABLES:
            key = mark_key(vni) if family is Family.BRIDGE else ifname_key(bridge)
            for cause in causes:
                name = counter_name(cause, vni)
                messages.append(add_counter(family, TABLE, name))
                messages += add_elements(family, TABLE, f"count-{cause}", [Element(key, counter=name)])
        self._transact(messages, f"cannot make the counters of network {vni}")

    def _mend(self, changes: Sequence[Change], errors: dict[str, Exception]) -> None:
        """Bring ports from whatever the kernel holds for them to what is wanted."""
        try:
            dumped = elements_by_port(self._dump())
        except NetfilterError as error:
            errors.update((name, _failed(f"cannot guard port {name}", error)) for name, _, _ in changes)
            return
        pending = []
        for name, _, after in changes:
            wanted, held = elements_of(name, after) if after else set(), dumped.get(ifname_key(name), set())
            pending.append((name, held - wanted, wanted - held))
        for start in range(0, len(pending), _PORTS_PER_BATCH):
            self._exchange(pending[start : start + _PORTS_PER_BATCH], errors)
        self._damaged -= {name for name, _, _ in changes} - errors.keys()

    def _exchange(self, pending: Sequence[Exchange], errors: dict[str, Exception]) -> None:
        """Elements for others, in one transaction, or in one per port if that is refused."""
        deleted = {element for _, gone, _ in pending for element in gone}
        added = {element for _, _, new in pending for element in new}
        try:
            self._rules.transact(_set_messages(deleted, added))
        except NetfilterError as error:
            if len(pending) == 1:
                errors[pending[0][0]] = _failed(f"cannot guard port {pending[0][0]}", error)
                return
            for one in pending:
                self._exchange([one], errors)

    def _transact(self, messages: Iterable[Message], attempt: str) -> None:
        try:
            self._rules.transact(messages)
        except NetfilterError as error:
            raise _failed(attempt, error) from error


def _messages(changes: Iterable[Change]) -> Iterator[Message]:
    deleted: set[SetElement] = set()
    added: set[SetElement] = set()
    for name, before, after in changes:
        old = elements_of(name, before) if before else set()
        new = elements_of(name, after) if after else set()
        deleted |= old - new
        added |= new  # all of it: what is there already is no error, and what has gone missing comes back
    return _set_messages(deleted, added)


def _set_messages(deleted: Iterable[SetElement], added: Iterable[SetElement]) -> Iterator[Message]:
    """Deletions first: a port that changes its network has one key in the map before and after."""
    for encode, elements in ((delete_elements, deleted), (add_elements, added)):
        by_set: dict[str, list[Element]] = defaultdict(list)
        for name, element in elements:
            by_set[name].append(element)
        for name, members in by_set.items():
            yield from encode(Family.BRIDGE, TABLE, name, members)


def _failed(attempt: str, error: NetfilterError) -> HawseError:
    if error.errno == errno.ENOENT:
        return not_found(f"{attempt}: its nftables tables are gone", "the next reconcile loads them again")
    return HawseError(Kind.INTERNAL, f"{attempt}: {error}", facts={"errno": error.errno})
