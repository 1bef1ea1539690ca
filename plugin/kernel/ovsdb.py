"""Open vSwitch's database: a copy of some columns that is kept up to date, and transactions.

A value is what a person would expect: a uuid and an atom as such, a set as a tuple (of one element: that element, as
the database itself writes it), a map as a dict.

Source: RFC 7047; ovs-vswitchd.conf.db(5).
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from plugin.kernel.jsonrpc import JsonRpc, RefusedError, connect
from sdn.model.errors import HawseError, Kind, conflict, denied, exhausted, unavailable

DATABASE: Final = "Open_vSwitch"
Value = Any
Row = Mapping[str, Value]
Operation = dict[str, Any]
_INSTALL: Final = "install it (Debian, Ubuntu: apt-get install openvswitch-switch) and start it"
_START: Final = "'systemctl status openvswitch-switch' tells why; 'systemctl restart openvswitch-switch' starts it"


@dataclasses.dataclass(frozen=True, slots=True)
class RowChange:
    """A row that is another now. `before` None: it is new; `after` None: it is gone."""

    table: str
    uuid: str
    before: Row | None
    after: Row | None


def elements(value: Value) -> tuple[Value, ...]:
    """Of a set, however many."""
    return value if isinstance(value, tuple) else (value,)


def named(name: str) -> list[str]:
    """A row that the same transaction inserts, in an operation."""
    return ["named-uuid", name]


def reference(uuid: str) -> list[str]:
    """A row that is there, in an operation."""
    return ["uuid", uuid]


def encode_map(values: Mapping[str, str]) -> list[Any]:
    """A map, in an operation."""
    return ["map", [[key, value] for key, value in values.items()]]


def encode_set(values: Iterable[Any]) -> list[Any]:
    """A set, in an operation."""
    return ["set", list(values)]


def insert(table: str, row: Mapping[str, Any], name: str) -> Operation:
    """A new row, which others of the transaction refer to by `named(name)`."""
    return {"op": "insert", "table": table, "row": row, "uuid-name": name}


def update(table: str, uuid: str, row: Mapping[str, Any]) -> Operation:
    """Other values of some columns."""
    return {"op": "update", "table": table, "where": [["_uuid", "==", reference(uuid)]], "row": row}


def mutate(table: str, uuid: str, *mutations: Sequence[Any]) -> Operation:
    """(column, mutator, value) of one row."""
    where = [["_uuid", "==", reference(uuid)]]
    return {"op": "mutate", "table": table, "where": where, "mutations": [list(mutation) for mutation in mutations]}


def decode_value(value: Any) -> Value:
    """A value of the wire. Raises: ValueError."""
    if not isinstance(value, list):
        return value
    match value:
        case ["uuid" | "named-uuid", str(uuid)]:
            return uuid
        case ["set", list(members)]:
            if len(members) == 1:
                return decode_value(members[0])
            if members and decode_value(members[0]) is not members[0]:  # references: all of a set are of one kind
                return tuple([uuid for _, uuid in members])
            return tuple(members)
        case ["map", list(pairs)]:
            return {decode_value(key): decode_value(worth) for key, worth in pairs}
    raise ValueError(f"{value!r} is no value of a database")


class Database:
    """A connection with its copy of the rows: table -> uuid -> columns. One event loop owns it.

    `changed` is called after each update with all rows that it changed; `ended(error)` once, when it is over.
    Of a transaction of ours the changes come before its answer.
    """

    def __init__(self, changed: Callable[[list[RowChange]], None], ended: Callable[[HawseError | None], None]) -> None:
        self.rows: dict[str, dict[str, Row]] = {}
        self._changed = changed
        self._ended = ended
        self._client: JsonRpc | None = None
        self._early: list[Any] | None = []

    @classmethod
    async def connect(
        cls,
        path: Path,
        columns: Mapping[str, Sequence[str]],
        changed: Callable[[list[RowChange]], None],
        ended: Callable[[HawseError | None], None],
        timeout_s: float = 2.0,
    ) -> Database:
        """Connect, and copy these columns of these tables.

        Raises: UNAVAILABLE (nobody there, too slow, nonsense, a schema without these columns), DENIED.
        """
        database = cls(changed, ended)
        try:
            database._client = await connect(path, "Open vSwitch's database", database._told, ended, timeout_s)
        except HawseError as error:
            if error.kind is Kind.UNAVAILABLE:
                error.hint = _remedy(path)
            raise
        wanted = {table: [{"columns": list(names)}] for table, names in columns.items()}
        try:
            first = await database._client.ask("monitor", [DATABASE, None, wanted], timeout_s)
            database.rows = {table: {} for table in columns}
            early, database._early = database._early or [], None
            for updates in (first, *early):
                database._apply(updates)
        except RefusedError as error:
            database.close()
            raise unavailable(
                f"the database at {path} is not of an Open vSwitch that Hawse can use: {_words(error.value)}",
                "Open vSwitch 2.10 or newer is needed",
            ) from None
        except (ValueError, TypeError, AttributeError, LookupError) as error:
            database.close()
            raise unavailable(f"the database at {path} answers what it should not: {error}") from None
        except HawseError:
            database.close()
            raise
        return database

    def find(self, table: str, name: str) -> tuple[str, Row] | None:
        """(uuid, columns) of the row with that name."""
        return next(((uuid, row) for uuid, row in self.rows[table].items() if row.get("name") == name), None)

    def begin(self, operations: Sequence[Operation]) -> asyncio.Future[Any]:
        """Send a transaction (all of it or nothing) at once; `results_of` makes sense of what the future gives."""
        assert self._client is not None
        return self._client.call("transact", [DATABASE, *operations])

    def close(self) -> None:
        """Hang up. Twice is fine."""
        if self._client is not None:
            self._client.close()

    def _told(self, method: str, params: Any) -> None:
        if method != "update":
            return
        try:
            if self._early is not None:  # behind the first answer, whose future is done and not looked at yet
                self._early.append(params[1])
                return
            changes = self._apply(params[1])
        except (ValueError, TypeError, AttributeError, LookupError):
            self.close()
            self._ended(unavailable("Open vSwitch's database sends updates that make no sense"))
            return
        if changes:
            self._changed(changes)

    def _apply(self, updates: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[RowChange]:
        changes: list[RowChange] = []
        for table, rows in updates.items():
            copied = self.rows[table]
            for uuid, told in rows.items():
                new = told.get("new")
                after = None if new is None else {name: decode_value(value) for name, value in new.items()}
                before = copied.pop(uuid, None)
                if after is not None:
                    copied[uuid] = after
                changes.append(RowChange(table, uuid, before, after))
        return changes


def results_of(answer: Any, attempt: str) -> list[Any]:
    """The result of each operation.

    Raises: CONFLICT (against a rule of the database, or what it was to wait for), EXHAUSTED, DENIED, INTERNAL.
    """
    if not isinstance(answer, list):
        raise HawseError(Kind.INTERNAL, f"{attempt}: the database answers {answer!r}")
    for result in answer:
        if isinstance(result, dict) and "error" in result:
            text = f"{attempt}: {_words(result)}"
            match result["error"]:
                case "constraint violation" | "timed out" | "referential integrity violation":
                    raise conflict(text)
                case "resources exhausted":
                    raise exhausted(text)
                case "permission error":
                    raise denied(text)
            raise HawseError(Kind.INTERNAL, text)
    return answer


def _remedy(path: Path) -> str:
    return _START if path.exists() else _INSTALL


def _words(error: Any) -> str:
    """What an error of the database says."""
    if not isinstance(error, dict):
        return str(error)
    details = error.get("details")
    return f"{error.get('error')} ({details})" if details else str(error.get("error"))
