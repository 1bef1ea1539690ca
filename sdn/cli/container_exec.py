"""`hawse exec`: another process in a container that runs."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from typing import Any

from sdn.cli.attached import CopiedInput, Copying, HungUp, PipeOutput
from sdn.cli.container_ending import code_of, wait_for_end
from sdn.cli.container_options import read_environment
from sdn.cli.container_session import check_terminal
from sdn.cli.exits import Exit, UsageError
from sdn.cli.output import print_json
from sdn.cli.runtime_socket import attach, ends_as_container, socket_of, with_containers_code
from sdn.cli.signal_forwarding import Abandoned, leave
from sdn.cli.terminal import STDIN, fill_standard_descriptors, raw_for, resize, window_size
from sdn.model.errors import HawseError
from sdn.service.contract_client import Connection

NOTES = """\
Options end at CONTAINER: what follows is the command. Ctrl-C reaches it through its terminal (-t); without one it ends
'hawse exec' alone, and the process goes on."""


def execute_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `exec`."""
    parser.usage = "hawse exec [options] CONTAINER COMMAND …"
    ends_as_container(parser, NOTES)
    parser.add_argument("words", metavar="CONTAINER", nargs=argparse.REMAINDER, help="name or id, then the command")
    parser.add_argument("-i", "--interactive", action="store_true", help="pass our standard input on")
    parser.add_argument("-t", "--tty", action="store_true", help="give it a terminal")
    parser.add_argument("-d", "--detach", action="store_true", help="leave it to itself")
    parser.add_argument(
        "-e", "--env", action="append", default=[], metavar="K[=V]", help="a further variable; repeatable"
    )
    parser.add_argument("--env-file", action="append", default=[], metavar="FILE", help="variables, a line each")
    parser.add_argument("-u", "--user", default="", metavar="USER[:GROUP]", help="default: the container's")
    parser.add_argument("-w", "--workdir", default="", metavar="DIR", help="default: the container's")


@with_containers_code
def execute(args: argparse.Namespace) -> int:
    """Run another process in a container."""
    container, command = split_words(args.words)
    rows, columns = window_size() if args.tty else (0, 0)
    message: dict[str, Any] = {
        "verb": "EXEC", "container": container, "command": command, "user": args.user, "workdir": args.workdir,
        "env": read_environment(args.env_file, args.env, os.environ), "tty": args.tty, "detach": args.detach,
        "stdin": args.interactive and not args.detach, "rows": rows, "columns": columns,
    }  # fmt: skip
    if args.detach:
        result, _ = attach(args, message)
        if args.output == "json":
            print_json({"execution": result["execution"]})
        return Exit.OK
    fill_standard_descriptors()
    check_terminal(args.tty, args.interactive)
    sys.stdout.flush()
    result, descriptors = attach(args, message)
    question = {"verb": "WAIT", "container": container, "execution": result["execution"]}
    try:
        return code_of(_Execution(args, question, descriptors).attend())
    except HungUp:
        return 128 + signal.SIGHUP
    except Abandoned as left:
        return 128 + left.number


def split_words(words: list[str]) -> tuple[str, list[str]]:
    """The container and the command; `--` before either is left out. Raises: UsageError."""
    words = words[1:] if words[:1] == ["--"] else words
    command = words[2:] if words[1:2] == ["--"] else words[1:]
    if not words or not words[0]:
        raise UsageError("no container is named", "hawse exec [options] CONTAINER COMMAND …")
    if not command:
        raise UsageError(f"no command for container {words[0]!r}", f"e.g. hawse exec -it {words[0]} sh")
    return words[0], command


class _Execution:
    """One process, and what it is attached by. Its end is asked for at once: a child of it may keep the pipes open."""

    def __init__(self, args: argparse.Namespace, question: dict[str, Any], descriptors: dict[str, int]) -> None:
        self._args = args
        self._question = question
        self._copying = Copying()
        self._terminal = descriptors.get("terminal", -1)
        self._input = os.dup(self._terminal) if self._terminal >= 0 else descriptors.get("input", -1)
        sources = [("terminal", 0), ("output", 0), ("errors", 1)]
        self._outputs = [
            PipeOutput(self._copying, descriptors[name], stream) for name, stream in sources if name in descriptors
        ]
        self._over = False

    def attend(self) -> dict[str, Any]:
        """Copy until it has ended and nothing more comes; how it ended."""
        with contextlib.ExitStack() as stack:
            connection = self._begin_waiting(stack)
            if self._terminal >= 0:
                self._hold_terminal(stack)
                raw = raw_for(self._args.interactive)
                if raw is not None:
                    stack.enter_context(raw)
            if self._args.interactive:
                CopiedInput(self._copying, STDIN, self._input, b"", self._terminal >= 0)
            while not self._over and not all(output.ended for output in self._outputs):
                self._copying.turn()
            for output in self._outputs:
                output.drain()
            if connection is not None:
                with contextlib.suppress(HawseError):  # the daemon went away meanwhile: asked anew below
                    return connection.finish()
            return wait_for_end(self._args, self._question)

    def _begin_waiting(self, stack: contextlib.ExitStack) -> Connection | None:
        try:
            connection = stack.enter_context(Connection(socket_of(self._args)))
            connection.begin(self._question)
        except HawseError:
            return None

        def answered() -> None:
            self._copying.forget(connection.fileno())
            self._over = connection.answered()

        self._copying.watch(connection.fileno(), answered)
        return connection

    def _hold_terminal(self, stack: contextlib.ExitStack) -> None:
        """Its size follows ours, and ours is put in order whatever ends us."""

        def resized(_number: int, _frame: object) -> None:
            resize(self._terminal, *window_size())

        for number, handler in ((signal.SIGWINCH, resized), (signal.SIGHUP, leave), (signal.SIGTERM, leave)):
            stack.callback(signal.signal, number, signal.signal(number, handler))
        resize(self._terminal, *window_size())
