"""Not collected: what `test_killed_session` runs as sessions of their own. In the first one of everything stands."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import tempfile
from pathlib import Path

from runtime.cgroup import Cgroup, Hierarchies, prefix_of, sweep
from runtime.plan import CgroupPlan
from sdn.service.contract_client import Connection
from tests.e2e.standing_lab import standing_lab
from tests.e2e.standing_runtime import IMAGE, standing_runtime
from tests.packet.namespaces import TestNamespace, namespaces
from topologies.cleanup import roots_of

TOPOLOGY = "hosts: h1\nnetworks: {web: {subnets: 10.1.0.0/24}}\ncontainers: {a: {networks: web}}\n"


def test_one_of_everything(tmp_path: Path) -> None:
    """Says in a line of JSON what there is, and waits for whoever ends it."""
    hierarchies = Hierarchies.detect()
    with contextlib.ExitStack() as stack:
        (pinned,) = stack.enter_context(namespaces(1))
        lab = stack.enter_context(standing_lab(TOPOLOGY))
        runtime = stack.enter_context(standing_runtime())
        container = runtime.inspect(stack.enter_context(runtime.container(IMAGE, "sleep", "1000")))
        place = stack.enter_context(tempfile.TemporaryDirectory())
        plan: CgroupPlan = {"path": f"{prefix_of(place)}/c", "memory_bytes": 0, "cpus": 0.0, "pids": 0}
        cgroup = Cgroup.create(hierarchies, plan)
        stack.callback(sweep, hierarchies, prefix_of(place), ())
        stack.callback(cgroup.close)
        subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path], check=True)
        stack.callback(lambda: subprocess.run(["umount", tmp_path], check=True))
        with Connection(runtime.root / "runtime.sock") as connection:
            supervisor = connection.request({"verb": "STATUS"})["supervisor_pid"]
        prefixes = [prefix_of(str(root)) for root in (place, runtime.root, *roots_of(lab.directory))]
        groups = [
            path for prefix in prefixes for mount in hierarchies.all for path in Path(mount).glob(f"{prefix}/**/")
        ]
        assert runtime.daemon is not None
        facts = {
            "paths": [*map(str, groups), str(lab.directory.path), f"/run/netns/{pinned.name}", tempfile.gettempdir()],
            "pids": [runtime.daemon.pid, supervisor, container["pid"], lab.info("a")["pid"],
                     *(process.pid for process in lab.record().processes.values())],
            "mount": str(tmp_path),
        }  # fmt: skip
        signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a shell's background job ignores it
        print(f"\n{json.dumps(facts)}", flush=True)
        signal.pause()


def test_a_careless_one() -> None:
    """Forgets what it has made."""
    subprocess.Popen(["sleep", "1000"], start_new_session=True)
    TestNamespace()
    tempfile.mkdtemp()
