"""agent.json: who this host is, and by what it proves it."""

from __future__ import annotations

import json
from typing import Any

from sdn.model.errors import HawseError, invalid, unavailable
from sdn.service.durable import write_durably
from sdn.service.roots import Root

FIELDS = ("host", "name", "secret", "authority", "fingerprint", "controllers")


def read_identity(root: Root) -> dict[str, Any]:
    """agent.json. Raises: INVALID where it is damaged or absent."""
    try:
        identity = json.loads(root.agent_file.read_bytes())
    except FileNotFoundError:
        raise invalid(f"{root.agent_file} is not there: this machine is no host", "join a controller first") from None
    except (OSError, ValueError) as error:
        raise _damaged(root, str(error)) from None
    missing = [name for name in FIELDS if not isinstance(identity, dict) or not identity.get(name)]
    if missing:
        raise _damaged(root, f"{', '.join(missing)} missing")
    return dict(identity)


def _damaged(root: Root, why: str) -> HawseError:
    return invalid(
        f"{root.agent_file} is damaged: {why}",
        "leave with 'hawse leave --force', and join again with a new token",
    )


def write_identity(root: Root, identity: dict[str, Any]) -> None:
    """Write agent.json: from now on this machine is that host. Whole and durable. Raises: UNAVAILABLE."""
    try:
        write_durably(root.agent_file, json.dumps(identity, indent=2).encode() + b"\n")
    except OSError as error:
        raise unavailable(f"cannot write {root.agent_file}: {error.strerror}", "look at the disk") from None
