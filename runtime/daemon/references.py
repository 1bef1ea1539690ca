"""Which container is meant: by name, id, or a prefix of an id, of four characters or more, that only one has."""

from __future__ import annotations

from collections.abc import Mapping

from sdn.model.errors import conflict, invalid, not_found

SHOWN_MAX = 5
PREFIX_LENGTH_MIN = 4
"""A short name that is not there (`b1`, `db`) must not hit a container whose id happens to begin so."""


def find(reference: str, names: Mapping[str, str], ids: Mapping[str, object]) -> str:
    """The id that is meant. `names`: name to id; `ids`: all of them.

    Raises: NOT_FOUND, with the nearest name; CONFLICT where a prefix has several; INVALID.
    """
    if not reference:
        raise invalid("no container was named", "give a name or an id")
    if reference in names:
        return names[reference]
    if reference in ids:
        return reference
    begun = sorted(one for one in ids if one.startswith(reference)) if len(reference) >= PREFIX_LENGTH_MIN else []
    if len(begun) == 1:
        return begun[0]
    if begun:
        shown = ", ".join(begun[:SHOWN_MAX]) + (", …" if len(begun) > SHOWN_MAX else "")
        raise conflict(
            f"{reference!r} begins the ids of {len(begun)} containers: {shown}", "give more of it", matches=len(begun)
        )
    raise not_found(f"there is no container {reference!r}", _hint(reference, names), container=reference)


def _hint(reference: str, names: Mapping[str, str]) -> str:
    import difflib  # only after a mistake: 5 ms

    meant = difflib.get_close_matches(reference, list(names), n=1, cutoff=0.55)
    return f"did you mean {meant[0]}?" if meant else "'hawse ps --all' lists them"
