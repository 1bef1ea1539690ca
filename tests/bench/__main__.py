"""`python -m tests.bench [SLUG …]`: all rows, or those named (or whose names begin so: `six-hundred`)."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from tests.bench import (
    attach,
    binding,
    edges,
    fill,
    flows,
    images,
    launching,
    machines,
    running,
    six_hundred,
    switching,
    traffic,
    whole,
)
from tests.bench.janitor import Janitor
from tests.bench.measure import Missing, PeerMissingError, Result, print_results, progress, write_results
from tests.bench.stand import Lab, lab

OUTPUT = Path("build/bench.json")
Rows = Callable[[Janitor], Iterator[Result]]
"""Rows that need no lab, or bring their own."""
ON_THEIR_OWN: dict[tuple[str, ...], Rows] = {
    ("api-reads",): edges.reads,
    ("attach-openflow-vs-bridge",): switching.against_bridge,
    ("resync",): switching.resync,
    ("attach-tls-vs-unix",): edges.attach_over_tls,
    ("bind-vs-ovn-0", "bind-vs-ovn-1000", "bind-vs-ovn-5000", "bind-5000-vs-0"): binding.against_ovn,
    ("encode-vs-os-ken",): flows.encoding,
    ("flows-vs-ovs-ofctl",): flows.against_ovs_ofctl,
    ("join-seconds",): machines.join_seconds,
    ("launch-vs-bwrap",): launching.against_bwrap,
    ("launch-vs-crun",): launching.against_crun,
    ("launches-vs-bwrap",): launching.rate,
    ("load-vs-umoci",): images.against_umoci,
    ("run-vs-docker",): running.against_docker,
    ("run-to-first-ping",): running.to_first_ping,
    ("supervisor-bytes-per-container",): six_hundred.supervisor_bytes,
    ("six-hundred-start", "six-hundred-reached", "six-hundred-remove"): six_hundred.six_hundred,
}


def daemon_pid(one: Lab) -> Callable[[str], int]:
    """Where to look a daemon's process up: `controller`, or a host's name for its agent."""

    def find(place: str) -> int:
        daemon = "controller" if place == "controller" else "agent"
        return int((one.directory / place / f"{daemon}.pid").read_text().split()[0])

    return find


def results(wanted: Callable[..., bool], janitor: Janitor) -> Iterator[Result | Missing]:
    """The rows, each group on a lab of its own where it needs one."""
    if wanted("lab-up", "lab-down"):
        yield from whole.lab_up_and_down()
    if wanted("network-ls-vs-python", "attach-vs-go-bridge", "attach-acked-vs-go-bridge", "attach-200-vs-ip-batch",
              "tcp-vs-underlay", "rtt-vs-underlay", "same-host-rtt-vs-veth", "agent-rss", "controller-rss",
              "attach-at-1000-vs-0"):  # fmt: skip
        with lab(janitor) as one:
            yield from on_one_lab(wanted, one)
    if wanted("agent-rss"):
        with lab(janitor) as fresh:
            yield next(whole.memory(fresh, daemon_pid(fresh)))
    for slugs, rows in ON_THEIR_OWN.items():
        if wanted(*slugs):
            try:
                yield from rows(janitor)
            except PeerMissingError as missing:
                yield from (Missing(slug, str(missing)) for slug in slugs)


def on_one_lab(wanted: Callable[..., bool], one: Lab) -> Iterator[Result]:
    """The rows that share a lab."""
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


def chosen(slugs: list[str]) -> Callable[..., bool]:
    """Whether one of some rows is wanted."""

    def wanted(*names: str) -> bool:
        return not slugs or any(name == slug or name.startswith(f"{slug}-") for name in names for slug in slugs)

    return wanted


def end(_number: int, _frame: object) -> NoReturn:
    """SIGTERM: what is under way is taken down as after a Ctrl-C."""
    raise KeyboardInterrupt


def main(argv: list[str]) -> int:
    """Measure, print, write; a missed target is said, it is no failure."""
    signal.signal(signal.SIGTERM, end)
    wanted = chosen(argv)
    found: list[Result | Missing] = []
    janitor = Janitor()
    try:
        for result in results(wanted, janitor):
            if wanted(result.slug):
                found.append(result)
                progress(json.dumps(result.row()))
    finally:
        janitor.close()
    print_results(found)
    write_results(found, OUTPUT)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
