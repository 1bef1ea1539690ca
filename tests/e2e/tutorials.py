"""README.md's tutorials, executed: machines are namespaces on one bridge, and a line is what stands behind a prompt.

A block of a tutorial has prompts (`first# `, `second# `, or `# ` for the first) and below each line what it prints, in
which `…` stands for what differs from run to run: within a line for any text, alone on a line for any lines; in a
command the token that was printed last. Blanks count as one, since columns are as wide as what is in them.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sdn.service.roots import find_root
from tests.e2e.machines import environment
from tests.e2e.segment import segment
from tests.packet.namespaces import TestNamespace

README = Path(__file__).parents[2] / "README.md"
BEGIN = "<!-- tutorial: {name}, executed line by line by tests/e2e/test_tutorials.py -->"
END = "<!-- end -->"
PROMPT = re.compile(r"^(?P<machine>[a-z]*)# (?P<command>.*)$")
TOKEN = re.compile(r"hawse-join-[0-9a-z]+")
TOKEN_SHOWN = "hawse-join-…"
NAMES = ("first", "second")
PATIENCE_S = 60.0


class Line(NamedTuple):
    """A command, where it runs, and what is to be seen then."""

    machine: str
    command: str
    output: list[str]


def tutorial(name: str) -> list[Line]:
    """Its lines, in order."""
    page = README.read_text(encoding="utf-8")
    _, _, rest = page.partition(BEGIN.format(name=name))
    text, end, _ = rest.partition(END)
    assert end, f"README.md has no tutorial {name!r} between its markers"
    lines: list[Line] = []
    for block in re.findall(r"^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        for row in block.splitlines():
            match = PROMPT.match(row)
            if match:
                lines.append(Line(match["machine"] or NAMES[0], match["command"].partition(" # ")[0].rstrip(), []))
            else:
                lines[-1].output.append(row)
    return lines


def differs(wanted: list[str], seen: str) -> str:
    """What is wrong with an output, or nothing."""
    rows = [re.sub(r"\s+", " ", row.strip()) for row in wanted]
    parts = [r"(?:.*\n)*?" if row == "…" else re.escape(row).replace("…", ".*") + r"\n" for row in rows]
    text = "".join(re.sub(r"\s+", " ", row.strip()) + "\n" for row in seen.splitlines())
    if re.fullmatch("".join(parts), text):
        return ""
    return f"--- the page says\n{chr(10).join(wanted)}\n--- it was\n{seen}"


class Machines:
    """Some machines with a root each. Their lines run as typed there: the page's commands and no others."""

    def __init__(self, folder: Path, places: dict[str, TestNamespace]) -> None:
        self._folder = folder
        self._places = places
        self.token = ""
        """The one that was printed last."""

    def run(self, line: Line) -> str:
        """What it printed. It must end well."""
        command = line.command.replace(TOKEN_SHOWN, self.token)
        done = self.shell(line.machine, command)
        said = (done.stdout + done.stderr).replace(f" --root {self._folder / line.machine}", "")
        assert done.returncode == 0, f"{line.machine}# {command} ended with {done.returncode}:\n{said}"
        found = TOKEN.search(said)
        self.token = found[0] if found else self.token
        return said

    def shell(self, machine: str, command: str) -> subprocess.CompletedProcess[str]:
        """Run a shell's line on a machine, whatever becomes of it."""
        variables = environment() | {
            "HAWSE_ROOT": str(self._folder / machine),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        where = ["nsenter", f"--net=/proc/{os.getpid()}/fd/{self._places[machine].fd}", "unshare", "--uts"]
        named = ["sh", "-c", f'hostname {machine} && exec bash -c "$1"', "sh", command]
        return subprocess.run(
            [*where, *named], capture_output=True, text=True, env=variables, timeout=PATIENCE_S, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def end(self) -> None:
        """Whatever is left of them goes."""
        for machine in reversed(self._places):
            root = find_root(str(self._folder / machine))
            if root.machine_file.exists() or root.agent_file.exists() or list(root.run.glob("*.pid")):
                self.shell(machine, "hawse leave --force --all")


@contextlib.contextmanager
def machines(*names: str) -> Iterator[Machines]:
    """Machines on one segment, 10.0.0.1 and so on, in namespaces that have nothing else."""
    folder = Path(tempfile.mkdtemp())
    with segment(len(names), "10.0.0./24", gateway=True) as places:
        made = Machines(folder, dict(zip(names, places, strict=True)))
        try:
            yield made
        finally:
            made.end()
            shutil.rmtree(folder, ignore_errors=True)
