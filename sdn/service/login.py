"""A user's login: the controller that they use from another machine, whom to trust there, and their token."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from sdn.model.errors import HawseError, denied, invalid, unavailable

FILE_BYTES_MAX = 1 << 20


class Controller(NamedTuple):
    """Where a controller is, and for `https:` whom to trust there (`authority` in PEM) and what to show (`token`).

    `fingerprint`: of the authority, where only that is known.
    """

    url: str
    authority: str = ""
    fingerprint: str = ""
    token: str = ""

    def __repr__(self) -> str:
        return f"Controller({self.url!r})"  # the token stays out of logs


def login_file(environ: Mapping[str, str]) -> Path | None:
    """Where the login is kept; None for who has no home."""
    if base := environ.get("XDG_CONFIG_HOME"):
        return Path(base) / "hawse" / "client.json"
    home = environ.get("HOME")
    return Path(home) / ".config" / "hawse" / "client.json" if home else None


def read_login(path: Path) -> Controller | None:
    """The login; None: there is none. Raises: DENIED (others can read it, or it is another's), INVALID."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            text = file.read(FILE_BYTES_MAX)
    except OSError:
        return None
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise denied(
            f"{path} holds a token and can be read or written by others (mode {stat.S_IMODE(status.st_mode):04o})",
            f"if nobody has: chmod 600 {path}; else revoke the token and log in with another",
        )
    if status.st_uid not in (0, os.geteuid()):
        raise denied(
            f"{path} belongs to another user (uid {status.st_uid})", "remove it, and log in: hawse login ADDRESS"
        )
    try:
        found = json.loads(text)
        fields = {name: found[name] for name in ("controller", "authority", "token")}
    except (ValueError, KeyError, TypeError, RecursionError):
        fields = {}
    if not fields or not all(isinstance(value, str) and value for value in fields.values()):
        raise invalid(
            f"{path} is damaged: it does not hold a controller, its authority and a token",
            "log in again: hawse login ADDRESS",
        )
    return Controller(fields["controller"], authority=fields["authority"], token=fields["token"])


def write_login(path: Path, login: Controller) -> None:
    """Keep it, for this user alone. Raises: UNAVAILABLE."""
    from sdn.service.durable import write_durably

    content = {"controller": login.url, "authority": login.authority, "token": login.token}
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_durably(path, json.dumps(content).encode() + b"\n")
    except OSError as error:
        raise _unwritable(path, error) from None


def remove_login(path: Path) -> bool:
    """Forget it; whether there was one. Raises: UNAVAILABLE."""
    try:
        path.unlink()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise _unwritable(path, error) from None
    return True


def _unwritable(path: Path, error: OSError) -> HawseError:
    return unavailable(f"{path} cannot be changed: {error.strerror or error}", "look at its directory's permissions")
