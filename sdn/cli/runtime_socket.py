"""Asking this host's runtime."""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sdn.cli.exits import MEANINGS, UsageError
from sdn.cli.output import complain
from sdn.model.errors import HawseError, Kind
from sdn.service.contract_client import Connection
from sdn.service.roots import find_root

START_TIMEOUT_S = 130.0
"""Of what starts something; the daemon has nearer bounds of its own."""
AWAY_MAX_S = 60.0
"""How long a daemon that went away may take to come back; a restart takes a second."""
RETRY_S = 0.1
REFUSED = 125
"""As Docker's: the daemon refused, or how the container ended cannot be told."""

CODES = """\
Ends with the container's exit code (128 + N where signal N ended it), or with 125 where the runtime refuses or the
options are wrong, 126 where the command cannot be executed and 127 where there is no such command.\
"""


def socket_of(args: argparse.Namespace) -> Path:
    """The runtime's socket on the root that the options lead to."""
    return find_root(args.root).runtime_socket


def ask(args: argparse.Namespace, verb: str, **fields: Any) -> dict[str, Any]:
    """One request and its result. Raises: HawseError."""
    with Connection(socket_of(args)) as connection:
        return connection.request({"verb": verb, **fields})


def ask_patiently(args: argparse.Namespace, verb: str, **fields: Any) -> dict[str, Any]:
    """The same where the answer may take any time: somebody is waited for."""
    with Connection(socket_of(args)) as connection:
        return last_of(connection, {"verb": verb, **fields})


def last_of(connection: Connection, message: Mapping[str, Any]) -> dict[str, Any]:
    """The result of a request whose items do not matter."""
    conversation = connection.converse(message)
    while True:
        try:
            next(conversation)
        except StopIteration as end:
            result: dict[str, Any] = end.value
            return result


def attach(args: argparse.Namespace, message: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, int]]:
    """One request and its result, with the descriptors that came with it, by name.

    Raises: UsageError (bytes that JSON cannot carry), HawseError.
    """
    try:
        json.dumps(message, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{error.object[error.start - 20 : error.end]!r} is not UTF-8", "pass it in a file") from None
    with Connection(socket_of(args), START_TIMEOUT_S) as connection:
        result, descriptors = connection.exchange(message)
    names = result.get("descriptors") or ()
    if len(names) != len(descriptors):
        for descriptor in descriptors:
            os.close(descriptor)
        raise HawseError(Kind.INTERNAL, f"{len(descriptors)} descriptors came where {len(names)} were told")
    return result, dict(zip(names, descriptors, strict=True))


class Patience:
    """How long a daemon that is away is waited for. It is told once."""

    def __init__(self, away_max_s: float = AWAY_MAX_S) -> None:
        self._away_max_s = away_max_s
        self._away_since_s: float | None = None

    def lose(self, error: HawseError) -> None:
        """It is away: wait a little. Raises: the error, where it is another one or was away for too long."""
        if error.kind is not Kind.UNAVAILABLE:
            raise error
        now_s = time.monotonic()
        if self._away_since_s is None:
            self._away_since_s = now_s
            print(f"hawse: {error.message}; waiting for it", file=sys.stderr)
        elif now_s - self._away_since_s > self._away_max_s:
            raise error
        time.sleep(RETRY_S)  # nobody tells when the runtime is back

    def regain(self) -> None:
        """It answered."""
        self._away_since_s = None


def ends_as_container(parser: argparse.ArgumentParser, notes: str) -> None:
    """For the same commands: their help, and wrong options, which are no code that a container has of its own."""
    parser.set_defaults(usage_code=REFUSED)
    examples = (parser.epilog or "").removesuffix(MEANINGS)
    parser.epilog = f"{notes}\n{CODES}\n\n{examples}".rstrip()


def with_containers_code(function: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """For commands that end with a container's exit code: what is refused is 125 to 127 there."""

    @functools.wraps(function)
    def wrapped(args: argparse.Namespace) -> int:
        try:
            return function(args)
        except HawseError as error:
            complain(error.message, error.hint)
            code = error.facts.get("exit_code")
            return code if isinstance(code, int) and 0 < code < 256 else REFUSED

    return wrapped
