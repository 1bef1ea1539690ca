"""`hawse image load|import|ls|inspect|rm|save`."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import stat
import sys
import time
from collections.abc import Iterator
from typing import Any

from sdn.cli.exits import Exit, UsageError, exit_of
from sdn.cli.output import complain, print_json, print_properties, print_table, printable
from sdn.cli.quantities import show_age, show_size, show_time
from sdn.cli.runtime_socket import ask_patiently, socket_of
from sdn.model.errors import HawseError, denied, invalid, not_found
from sdn.service.contract_client import Connection

STDIN, STDOUT = 0, 1
ID_SHOWN = 12
BAR_WIDTH = 28


# --- bringing ---


def load_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `image load`."""
    _source_argument(parser, "an archive (plain, gzip, zstd), an OCI layout's directory, or - for standard input")
    parser.add_argument("--name", default="", metavar="NAME", help="what it is called, where it is one image")
    _quiet_argument(parser)


def load(args: argparse.Namespace) -> int:
    """Bring images from an archive."""
    with _opened(args.file) as fd:
        result = _converse(args, {"verb": "IMAGE_LOAD", "name": args.name}, fd)
    return _show_loaded(args, result["items"])


def import_tree_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `image import`."""
    parser.add_argument("name", metavar="NAME", help="what it is called, repository:tag")
    _source_argument(parser, "a tar archive (plain, gzip, zstd), a directory, or - for standard input")
    parser.add_argument("--command", default="", metavar="COMMAND", help="what is run, in a shell's words")
    parser.add_argument("-e", "--env", action="append", default=[], metavar="K=V", help="an environment variable")
    parser.add_argument("-w", "--workdir", default="", metavar="DIR", help="where it is run")
    parser.add_argument("-u", "--user", default="", metavar="USER[:GROUP]", help="as whom")
    _quiet_argument(parser)


def import_tree(args: argparse.Namespace) -> int:
    """Make an image of a root file system."""
    for pair in args.env:
        if not pair.partition("=")[0] or "=" not in pair:
            raise UsageError(f"{pair!r} is no environment variable", "write it as NAME=value")
    message = {
        "verb": "IMAGE_IMPORT",
        "name": args.name,
        "command": _words(args.command),
        "env": args.env,
        "workdir": args.workdir,
        "user": args.user,
    }
    with _opened(args.file) as fd:
        result = _converse(args, message, fd)
    return _show_loaded(args, result["items"])


def _source_argument(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("file", metavar="FILE", nargs="?", default="-", help=text)


def _quiet_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress")


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError as error:
        raise UsageError(f"--command {command!r} is no command: {error}", "quote it as in a shell") from None


def _show_loaded(args: argparse.Namespace, items: list[dict[str, Any]]) -> int:
    if args.output == "json":
        print_json(items)
        return Exit.OK
    for item in items:
        for name in item.get("names") or ["without a name (give it one with --name)"]:
            print(f"{_short(item['id'])}  {printable(name)}")
    return Exit.OK


# --- looking ---


def ls_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `image ls`."""
    parser.add_argument("-q", "--quiet", action="store_true", help="ids alone")


def ls(args: argparse.Namespace) -> int:
    """List images."""
    items = ask_patiently(args, "IMAGE_LS")["items"]
    if args.output == "json":
        print_json([item["id"] for item in items] if args.quiet else items)
    elif args.quiet:
        print("".join(f"{_short(item['id'])}\n" for item in items), end="")
    else:
        now_s = time.time()
        rows = [_row(item, name, now_s) for item in items for name in item.get("names") or [None]]
        print_table(("IMAGE", "ID", "CREATED", "SIZE"), rows)
    return Exit.OK


def _row(item: dict[str, Any], name: str | None, now_s: float) -> tuple[Any, ...]:
    created = f"{show_age(now_s - item['created_s'])} ago" if item.get("created_s") else None
    size = show_size(item["size_bytes"]) if item.get("size_bytes") else None
    return (name, _short(item["id"]), created, size)


def _short(identity: str) -> str:
    return identity.removeprefix("sha256:")[:ID_SHOWN]


def inspect_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `image inspect`."""
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="name, id or the beginning of an id")


def inspect(args: argparse.Namespace) -> int:
    """Show all of images; as JSON one is an object and several are a list."""
    found = [ask_patiently(args, "IMAGE_INSPECT", image=reference) for reference in args.images]
    if args.output == "json":
        print_json(found[0] if len(found) == 1 else found)
        return Exit.OK
    for number, item in enumerate(found):
        if number:
            print()
        config = item.pop("config", {})
        shown = {key.removesuffix("_s"): value for key, value in item.items()}
        if "created" in shown:
            shown["created"] = show_time(item["created_s"])
        print_properties(shown | {key: value for key, value in config.items() if value})
    return Exit.OK


# --- removing, saving ---


def rm_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `image rm`."""
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="name, id or the beginning of an id")
    parser.add_argument("-f", "--force", action="store_true", help="all names of an id, and of one that is used")


def rm(args: argparse.Namespace) -> int:
    """Take names away; goes on after one that fails, and ends with the first one's code."""
    code: int = Exit.OK
    removed: list[str] = []
    for reference in args.images:
        try:
            gone = ask_patiently(args, "IMAGE_RM", image=reference, force=args.force)["removed"]
        except HawseError as error:
            complain(error.message, error.hint)
            code = code or exit_of(error)
            continue
        removed += gone
        if args.output != "json":
            print("".join(f"removed {printable(one)}\n" for one in gone), end="")
    if args.output == "json":
        print_json({"removed": removed})
    return code


def save_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `image save`."""
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="name, id or the beginning of an id")
    parser.add_argument("--to", default="-", metavar="FILE", help="where to (default: standard output)")
    _quiet_argument(parser)


def save(args: argparse.Namespace) -> int:
    """Write images into an archive."""
    with _destination(args.to) as fd:
        _converse(args, {"verb": "IMAGE_SAVE", "images": args.images}, fd)
    if args.to != "-" and args.output == "json":
        print_json({"file": args.to, "images": args.images})
    return Exit.OK


@contextlib.contextmanager
def _destination(path: str) -> Iterator[int]:
    """Where an archive is written to; a file gets its name once it is whole. Raises: UsageError, DENIED, INVALID."""
    if path == "-":
        if os.isatty(STDOUT):
            raise UsageError("an archive is nothing for a terminal", "write it to a file with --to FILE, or a pipe")
        yield STDOUT
        return
    special = os.path.exists(path) and not stat.S_ISREG(os.stat(path).st_mode)
    part = path if special else f"{path}.part-{os.getpid()}"
    try:
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (0 if special else os.O_EXCL), 0o644)
    except PermissionError as error:
        raise denied(f"{path!r} cannot be written: {error.strerror}", "choose another --to FILE") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in it
        raise invalid(f"{path!r} cannot be written: {_reason(error)}", "choose another --to FILE") from None
    try:
        yield fd
        if not special:
            os.rename(part, path)
    finally:
        os.close(fd)
        if not special:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(part)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    """An archive or directory to read. Raises: UsageError, NOT_FOUND, DENIED, INVALID."""
    if path == "-":
        if os.isatty(STDIN) or sys.stdin is None:
            what = "closed" if sys.stdin is None else "a terminal"
            raise UsageError(f"no archive is named, and standard input is {what}", "name a FILE, or pipe one in")
        yield STDIN
        return
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise not_found(f"there is no file {path!r}", "name an archive or a directory") from None
    except PermissionError as error:
        raise denied(f"{path!r} cannot be read: {error.strerror}", "run as root") from None
    except (OSError, ValueError) as error:
        raise invalid(f"{path!r} cannot be read: {_reason(error)}", "name an archive or a directory") from None
    try:
        yield fd
    finally:
        os.close(fd)


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


# --- progress ---


def _converse(args: argparse.Namespace, message: dict[str, Any], fd: int) -> dict[str, Any]:
    """One request; its items are progress, on stderr."""
    try:
        json.dumps(message, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{error.object[error.start - 20 : error.end]!r} is not UTF-8", "write it in UTF-8") from None
    shown = _Progress(quiet=args.quiet, terminal=sys.stderr.isatty())
    try:
        with Connection(socket_of(args)) as connection:
            conversation = connection.converse(message, fd)
            while True:
                try:
                    shown.update(next(conversation))
                except StopIteration as end:
                    result: dict[str, Any] = end.value
                    return result
    finally:
        shown.close()


class _Progress:
    """A bar for what is on its way on a terminal; elsewhere a line for what is done."""

    def __init__(self, quiet: bool, terminal: bool) -> None:
        self._quiet = quiet
        self._terminal = terminal
        self._open = False

    def update(self, item: dict[str, Any]) -> None:
        """An item, `Progress`."""
        if self._quiet:
            return
        what, done, finished = printable(str(item["what"])), item.get("done_bytes", 0), item.get("finished", False)
        if finished:
            self._line(f"{what}  {show_size(done) if done else 'is here already'}", end="\n")
        elif self._terminal:
            self._line(f"{what}  {bar(done, item.get('total_bytes', 0))}", end="")

    def _line(self, text: str, end: str) -> None:
        print(f"\r\x1b[K{text}" if self._terminal else text, end=end, file=sys.stderr, flush=True)
        self._open = not end

    def close(self) -> None:
        """Leave the terminal's line as it was."""
        if self._open:
            self._line("", end="")


def bar(done: int, total: int) -> str:
    """`[=====     ] 12MiB of 30MiB`; the amount alone where the total is not known."""
    if not total:
        return show_size(done)
    full = min(BAR_WIDTH, BAR_WIDTH * done // total)
    return f"[{'=' * full}{' ' * (BAR_WIDTH - full)}] {show_size(done)} of {show_size(total)}"
