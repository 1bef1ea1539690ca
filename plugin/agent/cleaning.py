"""`hawse agent --clean`: everything of Hawse's on this host goes from the kernel; what the agent is told by stays.

With the bridge datapath: tenants' namespaces are found by their pins in the root's run directory; with them go bridges,
VXLAN devices, guards and the containers' interfaces. The underlay's guard is a table of the namespace that the agent
serves, of which there is one agent. With openflow: what bears this root's mark in Open vSwitch, and what is named after
it beside. What another datapath has wired before (see `predecessor`) goes, too. Twice is fine.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from sdn.model.resources import Datapath as DatapathName
from sdn.service.log import get_logger, set_up_log
from sdn.service.pid_file import PidFile
from sdn.service.roots import Root, find_root


def clean(options: argparse.Namespace) -> int:
    """The command. Returns the exit code. Raises: CONFLICT while the agent runs; INTERNAL, UNAVAILABLE."""
    root = find_root(options.root)
    root.create()
    running = PidFile(root, "agent")
    running.take()
    try:
        set_up_log(options.log, options.log_format)
        names = purge(root, DatapathName(options.datapath), Path(options.ovsdb) if options.ovsdb else None)
        get_logger("agent").info("cleaned", tenants=names)
    finally:
        running.release()
    return 0


def purge(root: Root, kind: DatapathName, ovsdb: Path | None = None) -> int:
    """Remove all; the number of tenants that were here. Raises: HawseError, OSError."""
    from plugin.agent.features import PROBE
    from plugin.agent.predecessor import Choice, Predecessor
    from plugin.kernel import namespace

    namespace.remove(root.run / PROBE)
    return Predecessor(root).clean(Choice(kind, ovsdb))
