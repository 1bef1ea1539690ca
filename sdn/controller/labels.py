"""Labels: a few short texts by key."""

from __future__ import annotations

from sdn.model.errors import invalid

LABELS_MAX = 64
LABEL_CHARACTERS_MAX = 256


def parse_labels(labels: dict[str, str]) -> dict[str, str]:
    """The labels, by key. Raises: INVALID when there are too many or one is too long or has no key."""
    if len(labels) > LABELS_MAX:
        raise invalid(f"{len(labels)} labels are too many", f"use at most {LABELS_MAX}", labels=len(labels))
    for key, value in labels.items():
        if not key or "=" in key or len(key) > LABEL_CHARACTERS_MAX or len(value) > LABEL_CHARACTERS_MAX:
            raise invalid(
                f"the label {key[:40]!r} cannot be kept",
                f"keys need a character and no '='; keys and values have at most {LABEL_CHARACTERS_MAX}",
                label=key[:LABEL_CHARACTERS_MAX],
            )
    return dict(sorted(labels.items()))
