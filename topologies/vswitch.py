"""Open vSwitch on hosts of a lab: database and switch daemon as a machine has them, but inside of the host's namespace.

Everything of it is below the host's own directory (`Directory.vswitch`), and ovs-vsctl finds it by `environment`.
"""

from __future__ import annotations

import concurrent.futures
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from plugin.kernel import namespace
from sdn.model.errors import invalid, unavailable
from topologies import processes
from topologies.births import daemons_environment
from topologies.record import OVS_VSWITCHD, OVSDB_SERVER, Directory, Process, vswitch_of

PACKAGE = "openvswitch-switch"
SYSTEM_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"
"""Where its daemons are, whatever PATH says: a user's own need not have them."""
SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
ROOT_ROW = '["Open_vSwitch", {"op": "insert", "table": "Open_vSwitch", "row": {}}]'
"""What `ovs-vsctl init` does: without that row nothing can be added."""
HOST_NAME_MAX = 56
"""A socket's path has at most 107 bytes: `/run/hawse/<8>/HOST/ovs/ovs-vswitchd.<pid>.ctl`."""
START_S = 20.0
"""It takes a tenth of a second; on a machine that is all busy a good deal more."""


def require(hosts: Sequence[str]) -> None:
    """That hosts can have one. Raises: UNAVAILABLE (it is not installed), INVALID (a name is too long)."""
    for host in hosts:
        if len(host) > HOST_NAME_MAX:
            raise invalid(
                f"the name of the host {host} is too long for Open vSwitch, whose sockets are below its directory",
                f"give it one of at most {HOST_NAME_MAX} characters",
            )
    if not hosts:
        return
    missing = [name for name in (OVSDB_SERVER, OVS_VSWITCHD, "ovsdb-tool") if _found(name) is None]
    if not os.path.exists(SCHEMA):
        missing.append(SCHEMA)
    if missing:
        raise unavailable(
            f"Open vSwitch is not installed here: {', '.join(missing)} not found",
            f"install it: apt-get install {PACKAGE}; or use another datapath: hawse lab up --datapath bridge",
        )


def environment(directory: Path) -> dict[str, str]:
    """What makes the tools of Open vSwitch use a host's own."""
    return {f"OVS_{kind}DIR": str(directory) for kind in ("RUN", "LOG", "DB", "SYSCONF")}


class Vswitches:
    """Those of a lab's hosts, started side by side. A context: at its end nothing is being started any more."""

    def __init__(self, directory: Directory, hosts: Sequence[str]) -> None:
        """Begin."""
        self._pool = concurrent.futures.ThreadPoolExecutor(len(hosts) + 1, thread_name_prefix="vswitch")
        database = self._pool.submit(_make_database, directory.path / "vswitch.db") if hosts else None
        self._starting = {
            host: self._pool.submit(_start, directory, host, database) for host in hosts if database is not None
        }

    def wait(self) -> dict[str, Process]:
        """Until all serve: what goes into the record. Raises: UNAVAILABLE."""
        return {
            vswitch_of(host, name): process
            for host, future in self._starting.items()
            for name, process in future.result().items()
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)


def _found(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}")


def _make_database(path: Path) -> Path:
    """An empty one, which hosts copy."""
    path.unlink(missing_ok=True)
    for arguments in (["create", str(path), SCHEMA], ["transact", str(path), ROOT_ROW]):
        run_tool("ovsdb-tool", arguments, {})
    return path


def _start(directory: Directory, host: str, database: concurrent.futures.Future[Path]) -> Mapping[str, Process]:
    place = directory.vswitch(host)
    place.mkdir(mode=0o700, parents=True)
    shutil.copyfile(database.result(), place / "conf.db")
    with open(directory.namespace(host), "rb") as pinned:
        namespace.enter(pinned.fileno())  # this thread's own namespace; its children are born there
    socket = place / "db.sock"
    common = ["--detach", "--no-chdir", "-vconsole:off", f"--log-file={directory.log(vswitch_of(host, 'vswitch'))}"]
    return {
        name: _daemon(name, [*arguments, f"--pidfile={place / name}.pid", *common], place)
        for name, arguments in (
            (OVSDB_SERVER, [str(place / "conf.db"), f"--remote=punix:{socket}"]),
            (OVS_VSWITCHD, [f"unix:{socket}"]),
        )
    }


def _daemon(name: str, arguments: Sequence[str], place: Path) -> Process:
    """Returns when it serves: only then does the process that was started end, and leave the daemon behind."""
    run_tool(name, arguments, environment(place))
    process = processes.identify(int((place / f"{name}.pid").read_text()))
    if process is None:
        raise unavailable(f"{name} ended as soon as it served", f"see the log beside {place.parent}")
    return process


def run_tool(name: str, arguments: Sequence[str], variables: dict[str, str]) -> None:
    """A program of Open vSwitch. `variables`: see `environment`. Raises: UNAVAILABLE, with what it said."""
    try:
        done = subprocess.run(
            [_found(name) or name, *arguments], env=daemons_environment() | variables, cwd="/", text=True,
            stdin=subprocess.DEVNULL, capture_output=True, timeout=START_S, check=False, start_new_session=True,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise unavailable(f"{name} cannot be started: {error}", "is the machine very busy?") from None
    if done.returncode:
        raise unavailable(f"{name} {arguments[0]} fails: {done.stderr.strip() or done.stdout.strip()}")
