"""The completion scripts in real shells at real terminals: a line is typed, TAB is pressed, the line is looked at.

`hawse` is a program that answers from a list and writes down what it was asked, so this is about the scripts alone.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import termios
import time
from pathlib import Path

import pytest

from sdn.cli.completion import SCRIPTS

PATIENCE_S = 20.0
PROMPT = "READY>"
START = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "--no-config", "-i"],
}
SETTING = {
    "bash": "bind 'set bell-style none' 'set enable-bracketed-paste off'; source {script}; PS1='{prompt}'\n",
    "zsh": "autoload -U compinit && compinit -D -u; source {script}; unset zle_bracketed_paste; PS1='{prompt}'\n",
    "fish": "source {script}; function fish_prompt; echo -n '{prompt}'; end\n",
}
PROGRAM = """\
#!/bin/sh
shift
printf '[%s]' "$@" >>{asked}
echo >>{asked}
for last; do :; done
for candidate in network net:work web:1.2 web:1.3 name=value; do
    case $candidate in "$last"*) echo "$candidate";; esac
done
"""


class Shell:
    """One at a terminal of its own."""

    def __init__(self, name: str, folder: Path) -> None:
        script = folder / "completion"
        script.write_text(SCRIPTS[name])
        self._asked = folder / "asked"
        program = folder / "hawse"
        program.write_text(PROGRAM.format(asked=self._asked))
        program.chmod(0o755)
        self._terminal, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (50, 200))
        environment = {"PATH": f"{folder}:{os.environ['PATH']}", "HOME": str(folder), "TERM": "dumb"}
        self._process = subprocess.Popen(
            ["setsid", "--ctty", *START[name]], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
        )
        os.close(theirs)
        half = len(PROMPT) // 2  # so that the echo of what sets the prompt is not the prompt
        self.type(SETTING[name].format(script=script, prompt=f"{PROMPT[:half]}''{PROMPT[half:]}"))
        self.until(PROMPT)

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._terminal, text.encode())

    def until(self, wanted: str) -> str:
        """What the terminal shows, up to and with this."""
        shown, deadline = "", time.monotonic() + PATIENCE_S
        while wanted not in shown:
            ready, _, _ = select.select([self._terminal], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{wanted!r} did not come; this did: {shown!r}"
            shown += os.read(self._terminal, 4096).decode(errors="replace")
        return shown

    def complete(self, line: str) -> str:
        """The line after TAB, with END behind; it is not executed."""
        self.type(f"{line}\t")
        deadline = time.monotonic() + PATIENCE_S
        while not self._asked.exists():
            assert time.monotonic() < deadline, "the script asked nobody"
            time.sleep(0.01)
        self.type("END")
        return line_of(self.until("END"))

    def asked(self) -> str:
        """What the program was asked."""
        return self._asked.read_text().splitlines()[0]

    def close(self) -> None:
        """It is over."""
        self._process.send_signal(signal.SIGHUP)
        os.close(self._terminal)
        self._process.wait(PATIENCE_S)


def line_of(shown: str) -> str:
    """What is on the screen when all that was written."""
    line: list[str] = []
    column = 0
    for key in re.sub(r"\x1b[\[(][0-9;?>=]*[a-zA-Z]|\x1b[=>]", "", shown):
        if key in "\b\r":
            column = max(0, column - 1) if key == "\b" else 0
        else:
            line[column : column + 1] = [key]
            column += 1
    return "".join(line)


def at(name: str, folder: Path) -> contextlib.closing[Shell]:
    return contextlib.closing(Shell(name, folder))


CASES = [
    ("hawse netw", "hawse network END", "[netw]"),
    ("hawse run net:w", "hawse run net:work END", "[run][net:w]"),
    ("hawse run net:", "hawse run net:work END", "[run][net:]"),
    ("hawse run web", "hawse run web:1.END", "[run][web]"),
    ("hawse run web:1.2", "hawse run web:1.2 END", "[run][web:1.2]"),
    ("hawse run --env=x name=v", "hawse run --env=x name=value END", "[run][--env=x][name=v]"),
    ("hawse ls   netw", "hawse ls   network END", "[ls][netw]"),
]


@pytest.mark.parametrize(("line", "completed", "asked"), CASES)
def test_in_bash(line, completed, asked, tmp_path):
    with at("bash", tmp_path) as shell:
        assert completed in shell.complete(line)
        assert shell.asked() == asked


OTHERS = [name for name in ("zsh", "fish") if shutil.which(name)]


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize(("line", "completed", "asked"), [case for case in CASES if case[0] != "hawse run web"])
def test_in_another_shell(name, line, completed, asked, tmp_path):
    """But for a choice between several, which each shows in its own way."""
    with at(name, tmp_path) as shell:
        assert completed in shell.complete(line)
        assert shell.asked() == asked
