"""libnftables waits with select(2): a process with more than 1024 descriptors open must not be aborted by it."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import os, resource
from plugin.kernel import nftables
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
for _ in range(3):
    nftables.run_libnftables("add table inet hwt; delete table inet hwt")
    held.append(os.open(os.devnull, os.O_RDONLY))
assert max(held) > 1024
print("done")
"""


@pytest.mark.root
def test_many_descriptors_are_no_end():
    command = ["unshare", "-n", sys.executable, "-c", CODE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
