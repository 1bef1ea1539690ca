"""`python -m tests.sim SEED|FIRST-LAST [STEPS]`: worlds again; of a single one, all that happened in it.

The order of a set of texts is part of a world: Python's hashes are therefore always the same here.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from tests.sim.happenings import STEPS, simulate
from tests.sim.world import BrokenWorldError

MEMORY = Path("/dev/shm")


def main() -> int:
    """The exit code: 1 for a broken world."""
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.execve(
            sys.executable, [sys.executable, "-m", "tests.sim", *sys.argv[1:]], {**os.environ, "PYTHONHASHSEED": "0"}
        )
    first, dash, last = sys.argv[1].partition("-")
    steps = int(sys.argv[2]) if len(sys.argv) > 2 else STEPS
    broken, added = 0, 0
    for seed in range(int(first), int(last if dash else first) + 1):
        with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as directory:
            try:
                world = simulate(seed, Path(directory), steps)
            except BrokenWorldError as error:
                print(error)
                broken += 1
                continue
        added += world.clients.added
        if not dash:
            print("\n".join(world.trace))
    print(f"{broken} broken, {added} attachments", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
