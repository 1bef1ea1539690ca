"""The one rule for finding the daemons, applied to a command's options."""

from __future__ import annotations

import argparse
from typing import Any

from sdn.client.client import Client, Reply, resource
from sdn.service.roots import Root, find_controller, find_root

REQUEST_TIMEOUT_S = 30.0


def root_of(args: argparse.Namespace) -> Root:
    """The root that `--root` or HAWSE_ROOT names, or the machine's."""
    return find_root(args.root)


def client_of(args: argparse.Namespace, timeout_s: float = REQUEST_TIMEOUT_S) -> Client:
    """A client of the controller that the options lead to."""
    found = find_controller(args.controller, root_of(args))
    return Client(found.url, timeout_s, authority=found.authority, fingerprint=found.fingerprint, token=found.token)


def get(args: argparse.Namespace, kind: str, reference: str) -> dict[str, Any]:
    """One resource."""
    value: dict[str, Any] = client_of(args).get(resource(kind, reference)).body
    return value


def revision_of(reply: Reply) -> int:
    """The revision at which a write was committed; 0 where nothing was written."""
    return reply.revision or 0
