"""Where a lab is: `/run/hawse/<8 hex>`, with a record that says who is in it, written before each thing is made.

    lab.json        the record            topology.yaml   the file, as it was
    ns/NAME         pinned namespaces: `underlay` and hosts
    controller/     the controller's root HOST/           a host's root: sockets, state, `netns/` of its tenants
    log/NAME.log    what a daemon wrote on stderr: the controller, an agent (its host's name), HOST+runtime, and
                    HOST+vswitch: of Open vSwitch, whose database and sockets are in HOST/ovs

Finding what to remove needs no record: everything lives in the lab's namespaces, in the cgroups of its hosts'
runtimes, or below its directory.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from sdn.model.codec import Decoder, encode_json
from sdn.model.errors import HawseError, conflict, denied, invalid, not_found, unavailable
from sdn.service.roots import Root

BASE = Path("/run/hawse")
_DIRECTORY = re.compile(r"[0-9a-f]{8}")
UNDERLAY = "underlay"
CONTROLLER = "controller"
RUNTIME = "runtime"
OVSDB_SERVER, OVS_VSWITCHD = "ovsdb-server", "ovs-vswitchd"


def runtime_of(host: str) -> str:
    """What a host's runtime daemon is called among processes and logs: no host's or container's name has a `+`."""
    return f"{host}+runtime"


def vswitch_of(host: str, daemon: str) -> str:
    """The same of a daemon of a host's Open vSwitch."""
    return f"{host}+{daemon}"


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """A process, safe against a pid that is used again: `start` is its start time in ticks since boot (proc(5))."""

    pid: int
    start: int


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """`phase`: `building`, `up` or `going`. `builder` is the `lab up` that makes it, while it does.

    `containers`: the host of each. `processes`: the daemons: `controller`, an agent by its host's name, a runtime by
    `runtime_of` it, those of Open vSwitch by `vswitch_of` it. `datapaths`: of hosts whose is not `bridge`.
    """

    name: str
    file: str
    phase: str
    since_s: float
    hosts: tuple[str, ...]
    containers: dict[str, str]
    builder: Process | None = None
    processes: dict[str, Process] = {}
    datapaths: dict[str, str] = {}


_decoder: Decoder[Record] = Decoder(Record, "a lab's record")


class Directory:
    """One lab's directory; it need not be complete, nor its record readable."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def id(self) -> str:
        """Eight hexadecimal digits."""
        return self.path.name

    @property
    def topology_file(self) -> Path:
        """The copy of the file."""
        return self.path / "topology.yaml"

    def namespace(self, name: str) -> Path:
        """Where a namespace is pinned."""
        return self.path / "ns" / name

    def root(self, name: str) -> Root:
        """A host's root, or the controller's."""
        return Root(self.path / name / "state", self.path / name)

    def vswitch(self, host: str) -> Path:
        """Where a host's Open vSwitch has its sockets: short enough for their names (unix(7) has room for 107)."""
        return self.path / host / "ovs"

    def log(self, name: str) -> Path:
        """What a daemon says."""
        return self.path / "log" / f"{name}.log"

    @property
    def controller_url(self) -> str:
        """For the REST client."""
        return f"unix:{self.root(CONTROLLER).controller_socket}"

    def read(self) -> Record | None:
        """The record; None where a crash left none."""
        try:
            return _decoder.json((self.path / "lab.json").read_bytes())
        except (OSError, HawseError):
            return None

    def write(self, record: Record) -> None:
        """Replace the record: all of it or nothing."""
        write_whole(self.path / "lab.json", encode_json(record))

    @property
    def name(self) -> str:
        """The lab's name; its id where the record is lost."""
        record = self.read()
        return record.name if record else self.id


def write_whole(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replace a file: a reader sees the old content or the new."""
    draft = path.with_name(f".{path.name}.draft")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
    os.replace(draft, path)


def labs() -> list[Directory]:
    """Every lab of this machine, by name; half-made ones too."""
    try:
        found = [Directory(path) for path in BASE.iterdir() if _DIRECTORY.fullmatch(path.name) and path.is_dir()]
    except FileNotFoundError:
        return []
    except PermissionError:
        raise denied(f"you may not look into {BASE}", "labs are made by root: run as root") from None
    return sorted(found, key=lambda directory: directory.name)


def find_lab(name: str | None) -> Directory:
    """The lab of a name (or id); without one, the only lab. Raises: NOT_FOUND, INVALID (several)."""
    all_labs = labs()
    names = ", ".join(lab.name for lab in all_labs)
    if name is not None:
        for lab in all_labs:
            if name in (lab.name, lab.id):
                return lab
        raise not_found(f"there is no lab {name!r}", f"there are: {names}" if names else "none is up", lab=name)
    if not all_labs:
        raise not_found("no lab is up", "bring one up: hawse lab up topologies/two-hosts.yaml")
    if len(all_labs) > 1:
        raise invalid(f"{len(all_labs)} labs are up: {names}", "name one of them", labs=[lab.name for lab in all_labs])
    return all_labs[0]


@contextlib.contextmanager
def _claiming() -> Iterator[None]:
    """One claim at a time, so that two labs of one name cannot both begin."""
    try:
        BASE.mkdir(mode=0o755, parents=True, exist_ok=True)
        fd = os.open(BASE, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        raise denied(f"you may not write below {BASE}", "a lab makes network namespaces: run as root") from None
    except OSError as error:
        raise unavailable(f"cannot make {BASE}: {error.strerror}", "labs live there") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def claim(record: Record, text: bytes) -> Directory:
    """Make a lab's directory, with its record and the topology's text. Raises: CONFLICT (the name is up), DENIED."""
    with _claiming():
        for lab in labs():
            if record.name in (lab.name, lab.id):
                raise conflict(
                    f"a lab {record.name!r} is there already",
                    f"take it down with 'hawse lab down {record.name}', or choose another name with --name",
                    lab=record.name,
                )
        directory = Directory(BASE / os.urandom(4).hex())
        directory.path.mkdir(mode=0o700)
        directory.write(record)
        directory.topology_file.write_bytes(text)
        for name in ("ns", "log"):
            (directory.path / name).mkdir()
    return directory
