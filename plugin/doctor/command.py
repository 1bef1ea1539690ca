"""`hawse doctor`."""

from __future__ import annotations

import argparse
import collections
import json
import sys
import textwrap
from collections.abc import Sequence

from plugin.doctor.finding import Finding, Verdict, document, worst
from sdn.service.roots import find_root

PROBLEMS = 10
"""The exit code where something does not work: that of an expectation that failed (`sdn.cli.exits`)."""
MARKS = {Verdict.OK: "✓", Verdict.UNKNOWN: "?", Verdict.WARNING: "!", Verdict.PROBLEM: "✗"}
COLOURS = {Verdict.OK: "32", Verdict.UNKNOWN: "2", Verdict.WARNING: "33", Verdict.PROBLEM: "31"}
WIDTH = 120
CHECK_WIDTH = 18
ALIKE_MAX = 6
"""So many that are well are shown of one check: a fleet has many paths."""

DESCRIPTION = """\
Look at this machine and its place in the fabric: what is wrong, what follows from it, and what to type.

  agent, controller, clock, versions, wiring   the daemons: reachable, in step, of one version, without failures
  vswitch                                      the Open vSwitch of a host with that datapath: its two daemons
  uplink, sysctls, duplicate address           the way out of this machine, and whether another one has its address
  firewall                                     rules of other programs that drop tunnels (UDP 4789) or the controller
  path                                         to each other host, by real probes of all sizes, both ways
  kernel, neighbours, limits, disk, leftovers  the machine itself

Nothing is changed. Without daemons the machine alone is examined; without root, what needs no root.

  ✓ is well    ! works, but look at it    ✗ does not work    ? could not be looked at

Ends with 0 where nothing is worse than a warning, and with 10 where there is a problem.\
"""


def doctor_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `doctor`."""
    parser.description = DESCRIPTION
    parser.add_argument(
        "--host", action="append", default=[], metavar="NAME", help="probe the path to this host only; repeatable"
    )


def doctor(args: argparse.Namespace) -> int:
    """Examine, print, and say by the exit code whether there is a problem."""
    from plugin.doctor.examination import examine

    examined = examine(find_root(args.root), args.host, args.controller or "")
    if args.output == "json":
        text = json.dumps(document(examined.host, examined.findings), indent=2, ensure_ascii=False)
    else:
        text = table(examined.host, examined.findings, sys.stdout.isatty())
    sys.stdout.write(text + "\n")
    return PROBLEMS if worst(examined.findings) is Verdict.PROBLEM else 0


def table(host: str, findings: Sequence[Finding], coloured: bool = False) -> str:
    """For people: a line a finding, then for those that need it what follows and what to type."""
    lines: list[str] = []
    alike: collections.Counter[str] = collections.Counter()
    for finding in findings:
        alike[finding.check] += finding.verdict is Verdict.OK
        if finding.verdict is Verdict.OK and alike[finding.check] > ALIKE_MAX:
            continue
        told = textwrap.wrap(printable(finding.found), WIDTH - CHECK_WIDTH - 3, break_long_words=False) or [""]
        lines.append(f"{_mark(finding, coloured)}  {finding.check:<{CHECK_WIDTH}}{told[0]}")
        lines += [" " * (CHECK_WIDTH + 3) + line for line in told[1:]]
    more = [(check, count - ALIKE_MAX) for check, count in alike.items() if count > ALIKE_MAX]
    lines += [f"{MARKS[Verdict.OK]}  {check:<{CHECK_WIDTH}}and {count} more" for check, count in more]
    wanting = [finding for finding in findings if finding.verdict in (Verdict.WARNING, Verdict.PROBLEM)]
    wanting.sort(key=lambda finding: finding.verdict is not Verdict.PROBLEM)
    unseen = [finding for finding in findings if finding.verdict is Verdict.UNKNOWN and finding.remedy]
    if wanting or unseen:
        lines += ["", "what to do:"]
    for finding in (*wanting, *unseen):
        head = f"{finding.check}: {finding.follows or finding.found}"
        lines.append(f"{_mark(finding, coloured)}  {printable(head)}")
        lines += [f"       {printable(line)}" for line in finding.remedy]
    counts = {verdict: sum(finding.verdict is verdict for finding in findings) for verdict in Verdict}
    summary = [f"{counts[verdict]} {word}" for verdict, word in _WORDS.items() if counts[verdict]]
    return "\n".join([*lines, "", f"{host or 'this machine'}: {', '.join(summary)}"])


_WORDS = {
    Verdict.PROBLEM: "✗ do not work",
    Verdict.WARNING: "! to look at",
    Verdict.UNKNOWN: "? not looked at",
    Verdict.OK: "✓ well",
}


def _mark(finding: Finding, coloured: bool) -> str:
    mark = MARKS[finding.verdict]
    return f"\x1b[{COLOURS[finding.verdict]}m{mark}\x1b[0m" if coloured else mark


def printable(text: str) -> str:
    """Text with control characters made visible: what is read from elsewhere must not steer a terminal."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
