"""What the kernel must be able to do, tried in a namespace of its own before anything is served."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from plugin.kernel import link, namespace
from plugin.kernel.netlink import NetlinkError, NetlinkSocket
from plugin.kernel.nftables import run_libnftables
from sdn.model.errors import HawseError, unavailable
from sdn.model.resources import Datapath

PROBE = "probe"
"""In the run directory: where the namespace is pinned meanwhile."""
Trial = Callable[[int], None]
"""Does something in a namespace, by its descriptor. Raises: what it met."""

_TABLES = """
add table bridge probe
add chain bridge probe c { type filter hook prerouting priority 0; }
add table inet probe
add chain inet probe c { type filter hook prerouting priority -300; }
"""
_FORWARDING_TABLES = """
add table inet probe
add chain inet probe c { type filter hook prerouting priority -300; }
add table arp probe
add chain arp probe c { type filter hook input priority 0; }
add table netdev probe
add chain netdev probe c { type filter hook ingress device "lo" priority 0; }
add rule netdev probe c fwd to "lo"
"""


def _try_link(kind: str, data: bytes) -> Trial:
    def trial(ns_fd: int) -> None:
        netlink = NetlinkSocket.open(ns_fd)
        try:
            netlink.do(link.create(f"probe-{kind}", kind, data))  # it goes with the namespace, in the kernel's own time
        finally:
            netlink.close()

    return trial


def _try_text(commands: str) -> Trial:
    def trial(ns_fd: int) -> None:
        run_libnftables(commands, ns_fd)

    return trial


TRIALS: tuple[tuple[str, str, Trial], ...] = (
    ("veth pairs", "veth", _try_link("veth", b"")),
    ("bridges", "bridge", _try_link("bridge", b"")),
    ("VXLAN devices", "vxlan", _try_link("vxlan", link.vxlan_data(1, 4789, "", True))),
    ("nftables in the bridge and inet families", "nf_tables", _try_text(_TABLES)),
)
"""What, the kernel's module for it, and how it is tried: for the bridge datapath."""
OPENFLOW_TRIALS: tuple[tuple[str, str, Trial], ...] = (
    TRIALS[0],
    ("nftables that forward in the netdev family", "nft_fwd_netdev", _try_text(_FORWARDING_TABLES)),
)
"""The same for the openflow datapath: Open vSwitch has tunnels and switches of its own."""


def trials_of(kind: Datapath) -> tuple[tuple[str, str, Trial], ...]:
    """What a datapath needs."""
    return OPENFLOW_TRIALS if kind is Datapath.OPENFLOW else TRIALS


def require_features(place: Path, trials: tuple[tuple[str, str, Trial], ...] = TRIALS) -> None:
    """Raises: UNAVAILABLE, naming what is missing and why. `place`: where the namespace is pinned meanwhile."""
    missing: list[str] = []
    modules: list[str] = []
    try:
        namespace.remove(place)  # of one that was killed here
        namespace.create(place)
    except OSError as error:
        raise unavailable(
            f"cannot make a network namespace: {error}", "run the agent as root, on the machine itself"
        ) from None
    try:
        ns_fd = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
        try:
            for what, module, trial in trials:
                try:
                    trial(ns_fd)
                except (OSError, NetlinkError, HawseError) as error:
                    missing.append(f"{what} ({error})")
                    modules.append(module)
        finally:
            os.close(ns_fd)
    finally:
        namespace.remove(place)
    if missing:
        raise unavailable(
            f"this machine cannot make {', '.join(missing)}",
            f"load {', '.join(modules)} or use a kernel that has it, and install libnftables1",
            missing=missing,
        )
