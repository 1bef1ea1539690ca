"""systemd units: one a daemon, hardened as far as what it does allows."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from sdn.machine.record import AGENT, CONTROLLER, FIRST, RUNTIME, Machine, Place, daemon_words
from sdn.model.errors import invalid, unavailable
from sdn.service.pid_file import running_pid

DIRECTORY = Path("/etc/systemd/system")
SYSTEMCTL_S = 120.0

_DESCRIPTIONS = {
    CONTROLLER: "Hawse: the controller of the fabric",
    AGENT: "Hawse: wires this host's containers",
    RUNTIME: "Hawse: runs this host's containers",
}

_HARDENED = """\
# No right is gained by executing anything, and nothing is written but below the state and run directories.
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
PrivateDevices=yes
PrivateTmp=yes
PrivateMounts=yes
ProtectSystem=strict
ProtectHome=read-only
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProcSubset=pid
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources @mount @swap @reboot @raw-io @module @debug @cpu-emulation @obsolete @clock
SystemCallErrorNumber=EPERM
DevicePolicy=closed
LimitCORE=0
ReadWritePaths=STATE RUN
"""

_AGENT = """\
# What it pins below the run directory is mounted for the whole machine and outlives it: it shares the machine's mount
# namespace, so options that would give it one of its own (ProtectSystem=, PrivateTmp= and their like) are not here.
NoNewPrivileges=yes
CapabilityBoundingSet=CAP_NET_ADMIN CAP_SYS_ADMIN CAP_NET_RAW
AmbientCapabilities=
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK AF_PACKET
RestrictNamespaces=net
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service @mount setns unshare
SystemCallFilter=~@swap @reboot @raw-io @module @debug @cpu-emulation @obsolete @clock
SystemCallErrorNumber=EPERM
DevicePolicy=closed
LimitCORE=0
"""

_RUNTIME = """\
# Containers and their supervisor are born here and outlive it: a restart ends the daemon alone. What is forbidden to
# the unit would be forbidden to every container, whose own limits and filters are set for each of them.
KillMode=process
Delegate=yes
TasksMax=infinity
LimitNOFILE=1048576
"""

_HARDENING = {CONTROLLER: _HARDENED, AGENT: _AGENT, RUNTIME: _RUNTIME}
_AFTER = {CONTROLLER: "", AGENT: " hawse-controller.service", RUNTIME: " hawse-agent.service"}


def unit_name(daemon: str) -> str:
    """Of its file."""
    return f"hawse-{daemon}.service"


def unit_text(place: Place, machine: Machine, daemon: str, listen: Sequence[str]) -> str:
    """A unit's file."""
    command = " ".join(_quoted(word) for word in place.command(*daemon_words(machine, daemon, listen)))
    hardening = (
        _HARDENING[daemon].replace("STATE", _quoted(str(place.root.state))).replace("RUN", _quoted(str(place.root.run)))
    )
    return f"""\
# Written by 'hawse install'; 'hawse install --remove' takes it away. Changes belong in a drop-in: systemctl edit.
[Unit]
Description={_DESCRIPTIONS[daemon]}
After=network-online.target{_AFTER[daemon]}
Wants=network-online.target
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={command}
WorkingDirectory=/
UMask=0077
Restart=on-failure
RestartSec=1
TimeoutStartSec=90
TimeoutStopSec=30
{_directories(place)}{hardening}
[Install]
WantedBy=multi-user.target
"""


def _directories(place: Place) -> str:
    """The machine's own directories are systemd's to make, kept over restarts."""
    if place.option:
        return ""
    return (
        "StateDirectory=hawse\nStateDirectoryMode=0700\nRuntimeDirectory=hawse\nRuntimeDirectoryMode=0700\n"
        "RuntimeDirectoryPreserve=yes\n"
    )


def _quoted(word: str) -> str:
    """A word of ExecStart= (systemd.service(5), systemd.syntax(7)). Raises: INVALID."""
    if not word.isprintable():
        raise invalid(f"{word!r} cannot be part of a unit", "choose another --root DIR")
    plain = word.replace("%", "%%").replace("$", "$$")
    if all(c.isalnum() or c in "/._-:@=+,%$[]" for c in plain):
        return plain
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'


def install(place: Place, machine: Machine, listen: Sequence[str], directory: Path) -> list[Path]:
    """Write the units; those that are there are replaced. Raises: UNAVAILABLE."""
    written: list[Path] = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for daemon in machine.daemons:
            path = directory / unit_name(daemon)
            draft = path.with_name(f".{path.name}.{os.getpid()}")
            draft.write_text(unit_text(place, machine, daemon, listen))
            draft.chmod(0o644)
            draft.replace(path)
            written.append(path)
    except OSError as error:
        raise unavailable(f"cannot write {error.filename}: {error.strerror}", "choose another --directory") from None
    return written


def remove(directory: Path) -> list[Path]:
    """Take the units away, whichever are there."""
    gone: list[Path] = []
    for daemon in FIRST:
        with contextlib.suppress(FileNotFoundError):
            path = directory / unit_name(daemon)
            path.unlink()
            gone.append(path)
    return gone


def runs_here() -> bool:
    """Whether systemd runs this machine (sd_booted(3))."""
    return Path("/run/systemd/system").is_dir()


def require_systemd() -> str:
    """The path of systemctl. Raises: UNAVAILABLE."""
    command = shutil.which("systemctl")
    if command is None or not runs_here():
        raise unavailable("this machine is not run by systemd", "start it with: hawse up -d")
    return command


def systemctl(*words: str) -> None:
    """Have systemd do it. Raises: UNAVAILABLE, with what it said."""
    command = require_systemd()
    done = subprocess.run(
        [command, *words], capture_output=True, text=True, check=False, timeout=SYSTEMCTL_S, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"it ended with {done.returncode}"
        raise unavailable(f"systemctl {' '.join(words)}: {said}", "see journalctl -u 'hawse-*'")


def active(place: Place) -> str:
    """The unit that one of this root's daemons runs in; empty: none does."""
    for daemon in FIRST:
        pid = running_pid(place.root, daemon)
        if pid is None:
            continue
        with contextlib.suppress(OSError):
            groups = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
            if any(line.rstrip().endswith(f"/{unit_name(daemon)}") for line in groups):
                return unit_name(daemon)
    return ""


def stop_active(place: Place) -> None:
    """Have systemd stop the daemons that run in its units."""
    running = [unit_name(daemon) for daemon in FIRST if running_pid(place.root, daemon) is not None]
    if active(place):
        systemctl("stop", *running)


def reload() -> None:
    """Have systemd read what was written; where it does not run there is nobody to tell."""
    if runs_here():
        systemctl("daemon-reload")


def disable() -> None:
    """Stop the units, and start them no more; containers go on."""
    installed = [unit_name(daemon) for daemon in FIRST if (DIRECTORY / unit_name(daemon)).exists()]
    if installed and runs_here():
        systemctl("disable", "--now", *installed)
