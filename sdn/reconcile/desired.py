"""What is wanted: objects by key, the unit that wants each, and the keys of each unit."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from sdn.model.ids import TenantId
from sdn.reconcile.datapath import Key, Object
from sdn.reconcile.unit import EndpointUnit, NetworkUnit, TenantUnit, Unit, UnitKey


@dataclasses.dataclass(frozen=True, slots=True)
class Lowered:
    """The keys of one unit, and its tenant (what a read can be limited to)."""

    tenant: TenantId
    keys: tuple[Key, ...]


def tenant_of(unit: Unit) -> TenantId:
    """The tenant that a unit belongs to."""
    match unit:
        case TenantUnit(tenant):
            return tenant.id
        case NetworkUnit(network):
            return network.tenant
        case EndpointUnit(endpoint):
            return endpoint.tenant


class Desired:
    """Two units want the same key only while an address passes from one to the other and their news come apart.

    Then the greater unit key wins (ids sort by time: the newer endpoint), whatever the order in which they came, and
    when it goes the other has the key again: what is wanted depends on the units alone, never on their order.
    """

    def __init__(self) -> None:
        self.objects: dict[Key, Object] = {}
        self.owners: dict[Key, UnitKey] = {}
        self.units: dict[UnitKey, Lowered] = {}
        self._contested: dict[Key, dict[UnitKey, Object]] = {}

    def put(self, unit: UnitKey, tenant: TenantId, objects: Mapping[Key, Object]) -> None:
        """Replace what a unit wants."""
        for key in self.keys(unit):
            if key not in objects:
                self._release(key, unit)
        for key, object_ in objects.items():
            self._claim(key, unit, object_)
        lowered = Lowered(tenant, tuple(objects))
        if self.units.get(unit) != lowered:  # else the keys of old are kept: they are shared with the other tables
            self.units[unit] = lowered

    def remove(self, unit: UnitKey) -> None:
        """The unit wants nothing any more."""
        for key in self.keys(unit):
            self._release(key, unit)
        self.units.pop(unit, None)

    def keys(self, unit: UnitKey) -> tuple[Key, ...]:
        """The keys that a unit wants."""
        lowered = self.units.get(unit)
        return lowered.keys if lowered else ()

    def _claim(self, key: Key, unit: UnitKey, object_: Object) -> None:
        owner = self.owners.get(key)
        claims = self._contested.get(key)
        if claims is None:
            if owner is None or owner == unit:
                self.objects[key] = object_
                self.owners[key] = unit
                return
            claims = self._contested[key] = {owner: self.objects[key]}
        claims[unit] = object_
        self._decide(key, claims)

    def _release(self, key: Key, unit: UnitKey) -> None:
        claims = self._contested.get(key)
        if claims is None:
            del self.objects[key]
            del self.owners[key]
            return
        del claims[unit]
        self._decide(key, claims)
        if len(claims) == 1:
            del self._contested[key]

    def _decide(self, key: Key, claims: Mapping[UnitKey, Object]) -> None:
        winner = max(claims)
        self.objects[key] = claims[winner]
        self.owners[key] = winner
