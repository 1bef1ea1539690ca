"""The limits that every store enforces before it looks at its data."""

from __future__ import annotations

from sdn.model.errors import invalid
from sdn.store.interface import KEY_BYTES_MAX, OPERATIONS_MAX, VALUE_BYTES_MAX, Put, Transaction


def check_transaction(transaction: Transaction) -> None:
    """Raises: INVALID, naming the limit that the transaction breaks."""
    operations = len(transaction.compares) + len(transaction.writes)
    if operations > OPERATIONS_MAX:
        raise invalid(
            f"a transaction of {operations} operations is above the limit of {OPERATIONS_MAX}",
            "split it into a sequence of transactions that can be resumed",
            operations=operations,
            limit=OPERATIONS_MAX,
        )
    for compare in transaction.compares:
        check_key(compare.key)
    written: set[str] = set()
    for write in transaction.writes:
        check_key(write.key)
        if write.key in written:
            raise invalid(f"a transaction writes {write.key!r} twice", "write a key at most once", key=write.key)
        written.add(write.key)
        if isinstance(write, Put):
            check_value(write.key, write.value)
    check_value("the note", transaction.note)


def check_key(key: str) -> None:
    """Raises: INVALID if the key is empty, too long, or not text that has a UTF-8 form."""
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise invalid(f"{key!r} has no UTF-8 form, so it cannot be a key", "use printable text") from None
    if not 0 < size <= KEY_BYTES_MAX:
        raise invalid(
            f"a key of {size} bytes is not allowed: {key[:40]!r}",
            f"use 1 to {KEY_BYTES_MAX} bytes",
            bytes=size,
            limit=KEY_BYTES_MAX,
        )


def check_value(what: str, value: bytes) -> None:
    """Raises: INVALID if the value of key `what` (or the note) is too long."""
    if len(value) > VALUE_BYTES_MAX:
        raise invalid(
            f"the value of {what} has {len(value)} bytes, above the limit of {VALUE_BYTES_MAX}",
            "split it over several keys",
            bytes=len(value),
            limit=VALUE_BYTES_MAX,
        )
