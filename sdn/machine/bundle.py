"""`hawse support`: what somebody needs who looks for a fault from afar, in one file, with nothing secret in it.

Each part is collected by itself: what cannot be is told in its place. Everything goes through `redact`, where parts are
added.
"""

from __future__ import annotations

import functools
import io
import json
import os
import platform
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sdn.client.client import Client
from sdn.machine.record import Place, daemon_environment
from sdn.machine.redaction import redact, secrets_of
from sdn.machine.versions import versions
from sdn.model.errors import HawseError, unavailable
from sdn.service.contract_client import request

TOOL_S = 20.0
DOCTOR_S = 90.0
LOG_BYTES = 256 << 10
OUTPUT_BYTES_MAX = 4 << 20
ABOUT = """\
What 'hawse support' has collected. Names of hosts, networks and containers, and addresses are in it; credentials,
tokens, keys, and what containers are given (commands, environments) or write are not. Look at it before you pass it on.
"""
LOOKS = (
    ("links", ("ip", "-d", "link")),
    ("addresses", ("ip", "address")),
    ("routes", ("ip", "route", "show", "table", "all")),
    ("neighbours", ("ip", "neighbour")),
    ("forwarding", ("bridge", "fdb")),
    ("nftables", ("nft", "list", "ruleset")),
)
SYSCTLS = ("net.ipv4.ip_forward", "net.ipv4.neigh.default.gc_thresh3", "net.ipv6.neigh.default.gc_thresh3")
CONTAINER_FIELDS = (
    "id", "name", "image_id", "state", "created_s", "started_s", "finished_s", "exit_code", "oom_killed", "error",
    "restarts", "pid", "interfaces", "log_lost_bytes",
)  # fmt: skip
Part = tuple[str, Callable[[], str]]
"""A file's name in the bundle, and what gives its text."""


def write_bundle(place: Place, client: Client, path: Path, say: Callable[[str], None]) -> int:
    """Collect and write it (mode 0600); its bytes. Raises: UNAVAILABLE where it cannot be written."""
    secrets = secrets_of(place.root)
    top = path.name.partition(".")[0]
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file, tarfile.open(fileobj=file, mode="w:gz", compresslevel=6) as archive:
            for name, collect in _parts(place, client):
                say(name)
                content = redact(_collected(collect), secrets).encode(errors="replace")
                entry = tarfile.TarInfo(f"{top}/{name}")
                entry.size, entry.mode, entry.mtime = len(content), 0o600, int(time.time())
                archive.addfile(entry, io.BytesIO(content))
        return path.stat().st_size
    except OSError as error:
        raise unavailable(f"cannot write {path}: {error.strerror}", "choose another FILE") from None


def _collected(collect: Callable[[], str]) -> str:
    try:
        return collect()
    except HawseError as error:
        return f"not collected: {error}\n"
    except subprocess.TimeoutExpired as error:
        return f"not collected: {error.cmd[0]} did not end within {error.timeout:g} s\n"
    except (OSError, ValueError, LookupError) as error:
        return f"not collected: {type(error).__name__}: {error}\n"


def _parts(place: Place, client: Client) -> Iterator[Part]:
    yield "about.txt", lambda: ABOUT
    yield "versions.json", lambda: _json([part._asdict() for part in versions(place, client)])
    yield "system.txt", _system
    for path in (place.root.machine_file, place.root.agent_file, place.root.client_file):
        yield f"configuration/{path.name}", path.read_text
    yield "directories.txt", lambda: _tree(place)
    for name, where in (("status", "/v1/status"), ("drops", "/v1/drops")):
        yield f"controller/{name}.json", functools.partial(_got, client, where)
    for kind in ("hosts", "tenants", "networks"):
        yield f"controller/{kind}.json", functools.partial(_listed, client, f"/v1/{kind}")
    yield "containers.json", lambda: _containers(place)
    yield "doctor.json", lambda: _run(place.command("doctor", "-o", "json"), DOCTOR_S)
    for look, command in LOOKS:
        yield f"network/host/{look}.txt", functools.partial(_run, command)
    for pin in sorted(place.root.netns.glob("t-*")):
        for look, command in LOOKS:
            words = ("nsenter", f"--net={pin}", *command)
            yield f"network/{pin.name}/{look}.txt", functools.partial(_run, words)
    for log in (*sorted(place.root.logs.glob("*.log*")), place.root.state / "supervisor.log"):
        yield f"logs/{log.name}", functools.partial(_tail, log)


def _got(client: Client, path: str) -> str:
    return _json(client.get(path).body)


def _listed(client: Client, path: str) -> str:
    return _json(list(client.items(path)))


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _run(command: tuple[str, ...] | list[str], timeout_s: float = TOOL_S) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", check=False, timeout=timeout_s,
        env=daemon_environment(), stdin=subprocess.DEVNULL,
    )  # fmt: skip
    said = f"\n{command[0]} ended with {done.returncode}: {done.stderr}" if done.returncode else ""
    return done.stdout[:OUTPUT_BYTES_MAX] + said


def _tail(path: Path) -> str:
    with open(path, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - LOG_BYTES))
        return file.read().decode(errors="replace")


def _system() -> str:
    lines = [
        f"time: {time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime())}",
        f"system: {platform.platform()} {platform.machine()}",
        f"python: {platform.python_version()}",
        f"processors: {os.cpu_count()}",
    ]
    for name in SYSCTLS:
        try:
            lines.append(f"{name}: {Path('/proc/sys', *name.split('.')).read_text().strip()}")
        except OSError as error:
            lines.append(f"{name}: {error.strerror}")
    for name in ("/etc/os-release", "/proc/meminfo", "/proc/cgroups", "/proc/uptime"):
        try:
            lines += [f"--- {name}", Path(name).read_text()[:4096].rstrip()]
        except OSError as error:
            lines.append(f"{name}: {error.strerror}")
    return "\n".join(lines) + "\n"


def _tree(place: Place) -> str:
    """What is in the root's directories, two levels deep: sizes and modes, no contents."""
    lines = []
    for top in dict.fromkeys((place.root.state, place.root.run)):
        for path in sorted([*top.glob("*"), *top.glob("*/*")]):
            found = path.lstat()
            lines.append(f"{found.st_mode & 0o7777:04o} {found.st_uid:>6} {found.st_size:>12} {path}")
    return "\n".join(lines) + "\n"


def _containers(place: Place) -> str:
    """Without their commands and environments: people put secrets there."""
    items = request(place.root.runtime_socket, {"verb": "PS", "all": True})["items"]
    return _json([{name: item[name] for name in CONTAINER_FIELDS if name in item} for item in items])
