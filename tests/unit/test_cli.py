"""The command's shell: finding commands, mistakes, tables, completion. What commands do is tested end to end."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import shlex
import subprocess
import sys

import pytest

from plugin.datapath.bridge.guard_table import ARRIVAL_CAUSES, FRAME_CAUSES, UNKNOWN_PORT
from plugin.datapath.bridge.underlay_guard import FOREIGN, MALFORMED
from sdn.cli import main as cli
from sdn.cli.commands import COMMANDS, GROUPS, find
from sdn.cli.completion import complete
from sdn.cli.drops import CAUSES
from sdn.cli.exits import EXITS, Exit
from sdn.cli.output import print_properties, print_table, printable
from sdn.cli.waiting import parse_labels
from sdn.model.errors import HawseError, Kind
from sdn.model.token import Token, TokenKind, token_id


def run(*argv: str) -> int:
    try:
        return cli.main(list(argv))
    except SystemExit as end:  # argparse ends a wrong command line this way
        return int(end.code or 0)


@pytest.mark.parametrize("command", [c for c in COMMANDS if not c.raw], ids=lambda c: "-".join(c.words))
def test_every_command_has_a_parser_and_a_function(command, capsys):
    assert run(*command.words, "--help") == 0
    assert "usage: hawse " + " ".join(command.words) in capsys.readouterr().out
    module, _, name = command.target.partition(":")
    assert callable(getattr(importlib.import_module(module), name))


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: "-".join(c.words))
def test_every_help_teaches_by_an_example_and_tells_the_exit_codes(command, capsys):
    assert run(*command.words, "--help") == 0
    text = capsys.readouterr().out
    assert command.examples
    assert all(example in text for example in command.examples)
    assert "7 a daemon is away" in text or "127 where there is no such command" in text


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: "-".join(c.words))
def test_every_option_is_explained(command):
    for action in cli.build_parser(command)._actions:
        assert action.help, f"{command.words}: {action.option_strings or action.dest}"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: "-".join(c.words))
def test_every_example_is_one_that_its_parser_takes(command):
    """But for what the shell takes away: comments, redirections, substitutions."""
    for example in command.examples:
        words = shlex.split(example.partition("#")[0].partition(">")[0].replace("<(", "").replace(")", ""))
        assert tuple(words[words.index("hawse") + 1 :][: len(command.words)]) == command.words
        cli.build_parser(command).parse_args(words[words.index("hawse") + 1 + len(command.words) :])


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (["-o"], "no command after -o"),
        (["--root"], "no command after --root"),
        (["-x"], "no option '-x'"),
        (["--rot", "x", "network", "ls"], "no option '--rot'"),
        (["network", "frobnicate"], "'hawse network --help' lists all"),
        (["xyzzy"], "'hawse --help' lists all"),
        (["help", "frobnicate"], "no topic and no command 'frobnicate'"),
        (["network", "attach", "web"], "no container is named"),
        (["network", "attach", "web", "b1", "--pid", "1"], "more than one container"),
        (["network", "attach", "web", "--pid", "-1"], "not the id of a process"),
        (["network", "attach", "web", "--pid", "1" * 30], "not the id of a process"),
        (["network", "create", "blue/web", "--tenant", "red"], "name it once"),
        (["agent", "--settle-ms", "soon"], "invalid int value"),
        (["controller", "--listen"], "expected one argument"),
        (["completion", "tcsh"], "invalid choice"),
    ],
)
def test_a_wrong_command_line_is_a_sentence_and_code_2(typed, says, capsys):
    assert run(*typed) == Exit.USAGE
    error = capsys.readouterr().err
    assert says in error
    assert error.startswith("hawse: ")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["netwrk", "create"], "hawse network create"),
        (["network", "list"], "hawse network ls"),
        (["network", "delete", "web"], "hawse network rm"),
        (["network", "connect", "web"], "hawse network attach"),
        (["nodes", "ls"], "hawse host ls"),
        (["drop"], "hawse drops"),
        (["lab", "upp"], "hawse lab up"),
    ],
)
def test_a_typo_is_told_what_to_type(typed, meant, capsys):
    assert run(*typed) == Exit.USAGE
    assert f"did you mean '{meant}" in capsys.readouterr().err


def test_a_wrong_option_is_told_the_nearest(capsys):
    assert run("network", "create", "web", "--subnets", "10.0.0.0/8") == Exit.USAGE
    assert "did you mean --subnet?" in capsys.readouterr().err


def test_a_group_alone_lists_its_commands(capsys):
    for group in GROUPS:
        assert run(group) == Exit.USAGE
        assert f"{group} ls" in capsys.readouterr().out


def test_help_lists_every_command(capsys):
    assert run("--help") == 0
    text = capsys.readouterr().out
    assert all(" ".join(command.words) in text for command in COMMANDS)


def test_global_options_may_come_first(tmp_path, capsys):
    assert run("--root", str(tmp_path), "-o", "json", "network", "ls") == Exit.UNAVAILABLE
    assert str(tmp_path) in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["network", "ls"], ["network", "attach", "web", "--pid", str(os.getpid())], ["drops"], ["events"]]
)
def test_without_a_daemon_one_sentence_says_what_to_start(words, tmp_path, capsys):
    assert run(*words, "--root", str(tmp_path)) == Exit.UNAVAILABLE
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert "hawse up -d" in error


def test_every_kind_has_an_exit_code_of_its_own_sentence():
    assert set(EXITS) == set(Kind)


def test_errors_become_a_sentence_and_a_hint(monkeypatch, capsys):
    def fail(_args: argparse.Namespace) -> int:
        raise HawseError(Kind.CONFLICT, "it is taken", hint="choose another")

    monkeypatch.setattr("sdn.cli.network.ls", fail)
    assert run("network", "ls") == Exit.CONFLICT
    assert capsys.readouterr().err == "hawse: it is taken\n       choose another\n"


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (RuntimeError("it broke"), "hawse: RuntimeError: it broke\n       this is a fault of hawse; HAWSE_TRACEBACK=1"),
        (OSError(28, "No space left on device"), "hawse: No space left on device\n"),
        (OSError(13, "Permission denied", "/x"), "hawse: /x: Permission denied\n"),
    ],
)
def test_what_nobody_expected_is_a_sentence_too(error, says, monkeypatch, capfd):
    def fail(_args: argparse.Namespace) -> int:
        raise error

    monkeypatch.setattr("sdn.cli.network.ls", fail)
    with open(os.devnull, "w") as nowhere:  # what it gives up is not this test's own output
        monkeypatch.setattr("sys.stdout", nowhere)
        assert run("network", "ls") == Exit.FAILED
        assert capfd.readouterr().err.startswith(says)
        monkeypatch.setenv("HAWSE_TRACEBACK", "1")
        with pytest.raises(type(error)):
            run("network", "ls")


OUTPUTS = {
    "an ASCII terminal": ("PYTHONIOENCODING=ascii:strict {hawse} --help", 0, ""),
    "a full disk": ("{hawse} --help >/dev/full", 1, "hawse: No space left on device\n"),
    "nowhere": ("{hawse} --help >&-", 0, ""),
    "nowhere at all": ("{hawse} frobnicate >&- 2>&-", 2, ""),
    "a reader that leaves": ("{hawse} --help | true; exit ${{PIPESTATUS[0]}}", 0, ""),
}


@pytest.mark.parametrize("line", OUTPUTS.values(), ids=OUTPUTS)
def test_wherever_the_output_goes(line):
    command, code, says = line
    shell = command.format(hawse=f"{sys.executable} -m sdn.cli.main")
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (code, says)


def test_an_interrupt_ends_with_130(monkeypatch, capsys):
    def interrupt(_args: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("sdn.cli.network.ls", interrupt)
    assert run("network", "ls") == Exit.INTERRUPTED
    assert "Traceback" not in capsys.readouterr().err


def test_tables_align_and_show_what_is_absent(capsys):
    print_table(("NAME", "LABELS", "N"), [("web", {"a": "1"}, 3), ("日本", None, True)])
    assert capsys.readouterr().out.splitlines() == ["NAME  LABELS  N", "web   a=1     3", "日本  -       yes"]


def test_a_long_cell_is_folded_or_pushes_its_own_row(capsys):
    rows = [("a", "one two,three four", "x"), ("b", "y" * 12, "z")]
    print_table(("N", "WHY", "END"), rows, fold={"WHY": 9})
    folded = ["N  WHY        END", "a  one two,   x", "   three", "   four", "b  yyyyyyyyy  z", "   yyy"]
    assert capsys.readouterr().out.splitlines() == folded
    print_table(("N", "WHY", "END"), rows, narrow={"WHY": 4})
    assert capsys.readouterr().out.splitlines()[1:] == ["a  one two,three four  x", "b  yyyyyyyyyyyy  z"]


def test_properties_show_lists_of_resources(capsys):
    print_properties({"name": "web", "subnets": [{"prefix": "10.0.0.0/24", "gateway": "10.0.0.1"}]})
    out = capsys.readouterr().out
    assert "name:" in out
    assert "  - prefix=10.0.0.0/24  gateway=10.0.0.1" in out


def test_properties_name_what_an_id_means(capsys):
    print_properties({"tenant": "01m8", "tenant_name": "blue", "name": "web"})
    assert capsys.readouterr().out == "tenant: blue (01m8)\nname:   web\n"


def test_every_cause_of_a_drop_is_explained():
    assert set(CAUSES) == {*FRAME_CAUSES, *ARRIVAL_CAUSES, UNKNOWN_PORT, FOREIGN, MALFORMED}


def test_a_name_cannot_steer_the_terminal():
    assert printable("a\x1b[2Jb") == "a\\x1b[2Jb"


def test_labels_are_pairs():
    assert parse_labels(["a=1", "b=x=y"]) == {"a": "1", "b": "x=y"}
    with pytest.raises(HawseError, match="not a label"):
        parse_labels(["a"])


@pytest.mark.parametrize("bad", ["0", "-1", "soon", "1e9"])
def test_wait_takes_seconds(bad, capsys):
    assert run("tenant", "create", "x", f"--wait={bad}") == Exit.USAGE
    assert "number of seconds" in capsys.readouterr().err


def test_completion_knows_commands_and_options(capsys):
    complete(["net"])
    assert capsys.readouterr().out == "network\n"
    complete(["network", "a"])
    assert capsys.readouterr().out == "attach\n"
    complete(["network", "create", "web", "--sub"])
    assert capsys.readouterr().out == "--subnet\n"
    complete(["network", "ls", "-o", ""])
    assert capsys.readouterr().out == "json\ntable\n"


@pytest.mark.parametrize("shell", ["bash"])
def test_a_completion_script_is_one_that_its_shell_reads(shell, capsys):
    assert run("completion", shell) == 0
    script = capsys.readouterr().out
    done = subprocess.run([shell, "-n"], input=script, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_listing_imports_nothing_heavy():
    """What `hawse network ls` may cost is decided by what it imports."""
    code = "import sys; from sdn.cli import main, network; print([m for m in HEAVY if m in sys.modules])"
    heavy = ["msgspec", "aiohttp", "asyncio", "rich", "netaddr", "email", "http.client", "difflib", "yaml"]
    done = subprocess.run(
        [sys.executable, "-c", code.replace("HEAVY", repr(heavy))], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_find_takes_the_longest_command():
    command = find(("network", "ls"))
    assert command is not None
    assert command.words == ("network", "ls")
    assert find(("nothing",)) is None


@pytest.mark.parametrize("line", ["{}", "--controller {} host ls", "join {} {} {}"])
def test_a_tokens_word_at_the_wrong_place_is_not_repeated(line, capsys):
    word = str(Token(TokenKind.JOIN, "ab" * 32, token_id(5), "cd" * 16))
    with contextlib.suppress(SystemExit):
        assert cli.main(line.format(word, word, word).split()) != Exit.OK
    said = "".join(capsys.readouterr())
    assert "hawse-join-…" in said
    assert word[20:32] not in said
