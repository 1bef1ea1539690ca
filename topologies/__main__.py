"""`python -m topologies VERB …` is `hawse lab VERB …`."""

from __future__ import annotations

import sys

from sdn.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["lab", *sys.argv[1:]]))
