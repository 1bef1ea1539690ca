"""How a container, or a command in it, ended: as an exit code of ours."""

from __future__ import annotations

import argparse
from typing import Any

from sdn.cli.output import complain
from sdn.cli.runtime_socket import REFUSED, Patience, last_of, socket_of
from sdn.model.errors import HawseError
from sdn.service.contract_client import Connection


def wait_for_end(args: argparse.Namespace, question: dict[str, Any]) -> dict[str, Any]:
    """The answer to WAIT, also over a restart of the daemon. Raises: HawseError (it is away for too long …)."""
    patience = Patience()
    while True:
        try:
            with Connection(socket_of(args)) as connection:
                return last_of(connection, question)
        except HawseError as error:
            patience.lose(error)


def code_of(end: dict[str, Any]) -> int:
    """The exit code to end with; what else is to be known of the end is told."""
    code = int(end["code"])
    if end.get("error"):
        complain(str(end["error"]))
    if end.get("oom_killed"):
        complain("the container used up its memory, and the kernel ended a process of it", "give it more: --memory")
    if 0 <= code < 256:
        return code
    complain("how it ended is not known: nobody was there to see it")
    return REFUSED
