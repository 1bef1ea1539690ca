"""Roots: where a daemon's state and sockets are, and the one rule for finding the controller.

Imports next to nothing: every `hawse` command comes through here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from sdn.model.errors import HawseError, Kind, invalid
from sdn.service.login import Controller, login_file, read_login

SOCKET_PATH_BYTES_MAX = 107
"""unix(7): sun_path has 108 bytes, the last of them a zero."""
DEFAULT_STATE = Path("/var/lib/hawse")
DEFAULT_RUN = Path("/run/hawse")
DIRECTORY_MODE = 0o700


class Root(NamedTuple):
    """One host's (or controller's) directories; every path of a file in them is named here."""

    state: Path
    run: Path

    @property
    def controller_socket(self) -> Path:
        """REST (mode 0600)."""
        return self.run / "controller.sock"

    @property
    def agent_socket(self) -> Path:
        """The attach contract (mode 0600)."""
        return self.run / "agent.sock"

    @property
    def runtime_socket(self) -> Path:
        """The runtime's local protocol (mode 0600)."""
        return self.run / "runtime.sock"

    @property
    def supervisor_socket(self) -> Path:
        """The supervisor, for the runtime's daemon alone (mode 0600)."""
        return self.run / "supervisor.sock"

    @property
    def containers(self) -> Path:
        """A directory for each container of this host, by id."""
        return self.state / "containers"

    @property
    def images(self) -> Path:
        """Images and their layers."""
        return self.state / "images"

    @property
    def volumes(self) -> Path:
        """Named volumes."""
        return self.state / "volumes"

    @property
    def client_file(self) -> Path:
        """Where the controller of this root is: `{"controller": URL}`."""
        return self.run / "client.json"

    @property
    def agent_file(self) -> Path:
        """The agent's configuration: who this host is (mode 0600)."""
        return self.state / "agent.json"

    @property
    def wired_file(self) -> Path:
        """Which datapath the agent wires this host with."""
        return self.state / "datapath.json"

    @property
    def machine_file(self) -> Path:
        """Which daemons this machine runs, and how."""
        return self.state / "machine.json"

    @property
    def logs(self) -> Path:
        """The logs of daemons that run detached."""
        return self.state / "log"

    @property
    def controller_file(self) -> Path:
        """The controller's configuration."""
        return self.run / "controller.json"

    @property
    def netns(self) -> Path:
        """Namespaces that outlive the agent, as bind mounts."""
        return self.run / "netns"

    @property
    def database(self) -> Path:
        """The controller's SQLite file."""
        return self.state / "controller.db"

    @property
    def tls(self) -> Path:
        """The controller's certificate and key."""
        return self.state / "tls"

    @property
    def journal(self) -> Path:
        """The agent's undelivered releases."""
        return self.state / "journal"

    def pid_file(self, daemon: str) -> Path:
        """The file whose lock the running daemon of that name holds."""
        return self.run / f"{daemon}.pid"

    def create(self) -> None:
        """Make the directories (0700) and refuse a root whose sockets could not be bound.

        Raises: INVALID (path too long), DENIED, UNAVAILABLE (a read-only or full disk …).
        """
        for socket_path in (self.controller_socket, self.supervisor_socket):
            check_socket_path(socket_path)
        for directory in (self.run, self.state):
            try:
                directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
            except PermissionError as error:
                raise HawseError(
                    Kind.DENIED, f"cannot make {directory}: {error.strerror}", hint="run as root, or choose --root DIR"
                ) from None
            except OSError as error:
                raise HawseError(
                    Kind.UNAVAILABLE, f"cannot make {directory}: {error.strerror}", hint="choose another --root DIR"
                ) from None


def check_socket_path(path: Path | str) -> None:
    """Refuse a path that no unix socket can have. Raises: INVALID, with the length."""
    length = len(os.fsencode(path))
    if length > SOCKET_PATH_BYTES_MAX:
        raise invalid(
            f"the socket's path {path} has {length} bytes; a unix socket's path has at most {SOCKET_PATH_BYTES_MAX}",
            f"choose a root that is at least {length - SOCKET_PATH_BYTES_MAX} bytes shorter",
            length=length,
            limit=SOCKET_PATH_BYTES_MAX,
        )


def find_root(option: str | None = None, environ: Mapping[str, str] | None = None) -> Root:
    """The root: `--root`, else `HAWSE_ROOT`, else the machine's own."""
    chosen = option or (os.environ if environ is None else environ).get("HAWSE_ROOT")
    if not chosen:
        return Root(DEFAULT_STATE, DEFAULT_RUN)
    directory = Path(os.path.abspath(chosen))
    return Root(directory / "state", directory)


def find_controller(option: str | None, root: Root, environ: Mapping[str, str] | None = None) -> Controller:
    """Where the controller is: as `--controller` says, `HAWSE_CONTROLLER`, the root's client.json, the user's login.

    The first of them counts; where there is none, it is the root's socket. Whom to trust and what to show on `https:`
    comes from `HAWSE_TOKEN` or the file `HAWSE_TOKEN_FILE`, else from the login, if that is of the same address.

    Raises: INVALID (client.json, a token or the login is not what it should be), DENIED (others can read the login).
    """
    environ = os.environ if environ is None else environ
    url = option or environ.get("HAWSE_CONTROLLER") or _told_by(root)
    if url and not url.startswith("https:"):
        return Controller(url)
    path = login_file(environ)
    login = None if path is None else read_login(path)
    if not url and login is None:
        return Controller(f"unix:{root.controller_socket}")
    known = login if login is not None and (not url or _same(url, login.url)) else Controller(url or "")
    word = _token(environ)
    if not word:
        return known
    from sdn.model.token import TokenKind, parse_token

    fingerprint = "" if known.authority else parse_token(word, TokenKind.USER).fingerprint
    return known._replace(token=word, fingerprint=fingerprint)


def _same(url: str, other: str) -> bool:
    return url.rstrip("/") in (other, other.removesuffix(":4780"))  # a login's has its port


def _token(environ: Mapping[str, str]) -> str:
    """Raises: INVALID where its file cannot be read."""
    if word := environ.get("HAWSE_TOKEN"):
        return word.strip()
    path = environ.get("HAWSE_TOKEN_FILE")
    if not path:
        return ""
    try:
        return Path(path).read_text("ascii").strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise invalid(f"the token in HAWSE_TOKEN_FILE={path} cannot be read: {reason}", "correct its path") from None


def _told_by(root: Root) -> str:
    """What client.json says, or whom the machine has joined; nothing where there is neither."""
    try:
        text = root.client_file.read_text()
    except OSError:
        return _joined(root)
    try:
        return str(json.loads(text)["controller"])
    except (ValueError, KeyError, TypeError):
        raise invalid(
            f'{root.client_file} does not hold {{"controller": URL}}', "correct or remove it, or give --controller URL"
        ) from None


def _joined(root: Root) -> str:
    """The controller that a machine without one of its own has joined. A damaged record is refused elsewhere."""
    try:
        machine = json.loads(root.machine_file.read_text())
        return "" if "controller" in machine["daemons"] else str(machine["url"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
