"""What a check found, for people (a matrix, what died under which name, what is wrong) and for programs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from topologies.check import CheckReport, Finding

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

REACHED, APART, SELF = "✓", "✗", "·"


def cells(report: CheckReport) -> dict[tuple[str, str], list[Finding]]:
    """The findings of each ordered pair."""
    pairs: dict[tuple[str, str], list[Finding]] = {}
    for finding in report.findings:
        pairs.setdefault((finding.probe.sender, finding.probe.receiver), []).append(finding)
    return pairs


def cell_text(findings: Iterable[Finding]) -> str:
    """One cell: ✓ if every way that is expected works and ✗ if none is; wrong ones by name (`!tcp`)."""
    found = list(findings)
    wrong = list(dict.fromkeys(f"!{finding.probe.label}" for finding in found if not finding.ok))
    if wrong:
        return " ".join(wrong)
    if not found:
        return "–"
    return REACHED if any(finding.reached for finding in found) else APART


def print_report(report: CheckReport, console: Console) -> None:
    """The matrix, the lies, and what is wrong."""
    from rich.table import Table

    console.print("who reaches whom, from the left to the top:")
    table = Table(show_edge=False)
    table.add_column("")
    for station in report.stations:
        table.add_column(station.name, justify="center", overflow="fold")
    pairs = cells(report)
    for sender in report.stations:
        row = [
            SELF if other is sender else _styled(pairs.get((sender.name, other.name), [])) for other in report.stations
        ]
        table.add_row(f"{sender.name} @{sender.host}", *row)
    console.print(table)
    if report.forgeries:
        _print_forgeries(report, console)
    _print_wrong(report, console)


def _styled(findings: list[Finding]) -> Text:
    from rich.text import Text

    text = cell_text(findings)
    if any(not finding.ok for finding in findings):
        return Text(text, style="bold red")
    return Text(text, style="green" if text == REACHED else "dim")


def _print_forgeries(report: CheckReport, console: Console) -> None:
    from rich.table import Table

    console.print("\nforged frames:")
    table = Table(show_edge=False)
    for column in ("from", "to", "the lie", "died as", "counted on"):
        table.add_column(column)
    for finding in report.forgeries:
        forgery = finding.forgery
        fate = finding.forgery.cause if finding.ok else f"[bold red]{finding.why}[/]"
        counted = f"{finding.host} (+{finding.counted})" if finding.counted else "-"
        table.add_row(forgery.sender, forgery.receiver, forgery.lie.value, fate, counted)
    console.print(table)


def _print_wrong(report: CheckReport, console: Console) -> None:
    for finding in report.findings:
        if not finding.ok:
            probe = finding.probe
            place = f" (expected on line {probe.line})" if probe.line else " (by the rule: one network, or none)"
            console.print(
                f"[bold red]{probe.sender} → {probe.receiver}[/] {probe.label} to {probe.address}: {finding.why}{place}"
            )
    for expectation in report.missing:
        console.print(
            f"[bold red]{expectation.sender} → {expectation.receiver}[/] {expectation.protocol.value}: nothing to try, "
            f"an address is missing (expected on line {expectation.line})"
        )


def summary(report: CheckReport) -> str:
    """One line."""
    reaching = sum(finding.reached for finding in report.findings)
    apart = len(report.findings) - reaching
    text = f"{reaching} paths proved, {apart} proved shut, {sum(f.ok for f in report.forgeries)} lies died with a name"
    wrong = report.mismatches
    return f"{text}; {'all as expected' if not wrong else f'{wrong} NOT as expected'} ({report.seconds:.2f} s)"


def as_json(report: CheckReport) -> dict[str, Any]:
    """For programs; names as in the schema."""
    return {
        "lab": report.lab,
        "ok": report.mismatches == 0,
        "mismatches": report.mismatches,
        "seconds": round(report.seconds, 3),
        "probes": [
            {
                "from": finding.probe.sender,
                "to": finding.probe.receiver,
                "network": finding.probe.network,
                "address": finding.probe.address,
                "protocol": finding.probe.label,
                "expected": "reach" if finding.probe.reach else "drop",
                "found": "reach" if finding.reached else "drop",
                "line": finding.probe.line,
                "sent": finding.sent,
                "ok": finding.ok,
                "why": finding.why,
            }
            for finding in report.findings
        ],
        "spoofs": [
            {
                "from": finding.forgery.sender,
                "to": finding.forgery.receiver,
                "spoof": finding.forgery.lie.value,
                "dropped": finding.forgery.cause,
                "host": finding.host,
                "counted": finding.counted,
                "ok": finding.ok,
                "why": finding.why,
            }
            for finding in report.forgeries
        ],
        "missing": [
            {"from": e.sender, "to": e.receiver, "protocol": e.protocol.value, "line": e.line} for e in report.missing
        ],
    }
