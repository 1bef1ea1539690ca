"""A plan: what a request comes to, as a value. Made by pure functions of the state, committed by the core."""

from __future__ import annotations

import dataclasses
from typing import Any, Generic, TypeVar

from sdn.controller.note import Happening, Note
from sdn.controller.state import State
from sdn.model.codec import encode_msgpack
from sdn.model.errors import conflict
from sdn.model.ids import Revision
from sdn.store.interface import OPERATIONS_MAX, Compare, Delete, Put, Transaction

T = TypeVar("T")
NO_REVISION = Revision(0)


@dataclasses.dataclass(frozen=True, slots=True)
class Plan(Generic[T]):
    """`result` is what the caller gets once `transaction` is committed; None: nothing is to be written.

    `revision` is then the one that the result has already.
    """

    result: T
    transaction: Transaction | None
    happened: tuple[Happening, ...] = ()
    revision: Revision = NO_REVISION


class Draft:
    """A transaction in the making. A key is written once: what is said last of it holds."""

    def __init__(self, state: State, actor: str) -> None:
        self._state = state
        self._actor = actor
        self._compares: dict[str, Revision] = {}
        self._writes: dict[str, Put | Delete] = {}
        self._happened: list[Happening] = []

    @property
    def room(self) -> int:
        """How many operations the transaction may still take."""
        return OPERATIONS_MAX - len(self._compares) - len(self._writes)

    def unchanged(self, kind: str, id_: str) -> None:
        """What was decided from this resource holds only while it is as it was (0: absent)."""
        self._compares[f"{kind}/{id_}"] = self._state.revision_of(kind, id_)

    def create(self, key: str, value: object) -> None:
        """Write a key that must be absent, or that this very transaction deletes."""
        if key not in self._writes:
            self._compares[key] = Revision(0)
        self.put(key, value)

    def put(self, key: str, value: object) -> None:
        """Write a key; `value` becomes msgpack."""
        self._writes[key] = Put(key, encode_msgpack(value))

    def delete(self, key: str) -> None:
        """Remove a key."""
        self._writes[key] = Delete(key)

    def happen(self, kind: str, **data: Any) -> None:
        """An event; empty data is left out."""
        self._happened.append(Happening(kind=kind, data={key: value for key, value in data.items() if value}))

    def plan(self, result: T) -> Plan[T]:
        """The plan of what was said."""
        happened = tuple(self._happened)
        note = encode_msgpack(Note(actor=self._actor, happened=happened))
        compares = tuple(Compare(key, revision) for key, revision in self._compares.items())
        return Plan(result, Transaction(compares, tuple(self._writes.values()), note), happened)


def nothing(result: T, revision: Revision) -> Plan[T]:
    """A plan that writes nothing: it is so already."""
    return Plan(result, None, (), revision)


def check_match(what: str, if_match: Revision | None, revision: Revision) -> None:
    """Raises: CONFLICT when the caller has read another revision than the one that is there."""
    if if_match is not None and if_match != revision:
        raise conflict(
            f"stale revision: {what} is at revision {revision}, not {if_match}",
            "read it again and repeat the change",
            expected=if_match,
            found=revision,
        )


def different(what: str, difference: dict[str, Any], hint: str) -> Exception:
    """The CONFLICT error of a PUT that asks for something else than what is there."""
    return conflict(f"{what} exists and differs in {', '.join(sorted(difference))}", hint, difference=difference)
