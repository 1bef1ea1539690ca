"""`python -m tests.bench [SLUG …]`: all rows, or those named."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench import attach, fill, traffic, whole
from tests.bench.measure import Result, print_results, progress, write_results
from tests.bench.stand import Lab, lab

OUTPUT = Path("build/bench.json")


def daemon_pid(one: Lab) -> Callable[[str], int]:
    """Where to look a daemon's process up: `controller`, or a host's name for its agent."""

    def find(place: str) -> int:
        daemon = "controller" if place == "controller" else "agent"
        return int((one.directory / place / f"{daemon}.pid").read_text().split()[0])

    return find


def results(slugs: set[str]) -> Iterator[Result]:
    """The rows, each group on a lab of its own where it needs one."""

    def wanted(*names: str) -> bool:
        return not slugs or bool(slugs & set(names))

    if wanted("lab-up", "lab-down"):
        yield from whole.lab_up_and_down()
    with lab() as one:
        if wanted("network-ls-vs-python"):
            yield from whole.command_start(one)
        if wanted("attach-vs-go-bridge", "attach-acked-vs-go-bridge"):
            yield from attach.against_go(one)
        if wanted("attach-200-vs-ip-batch"):
            yield from attach.row_of_200(one)
        if wanted("tcp-vs-underlay", "rtt-vs-underlay"):
            yield from traffic.across(one)
        if wanted("same-host-rtt-vs-veth"):
            yield from traffic.same_host(one)
        if wanted("agent-rss", "controller-rss", "attach-at-1000-vs-0"):
            with fill.filled(one):
                _, controller = whole.memory(one, daemon_pid(one))
                yield controller
                yield from attach.among_many(one)
    if wanted("agent-rss"):
        with lab() as fresh:
            yield next(whole.memory(fresh, daemon_pid(fresh)))


def main(argv: list[str]) -> int:
    """Measure, print, write; a missed target is said, it is no failure."""
    slugs = set(argv)
    found: list[Result] = []
    for result in results(slugs):
        if not slugs or result.slug in slugs:
            found.append(result)
            progress(json.dumps(result.row()))
    print_results(found)
    write_results(found, OUTPUT)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
