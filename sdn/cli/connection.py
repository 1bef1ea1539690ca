"""The one rule for finding the daemons, applied to a command's options."""

from __future__ import annotations

import argparse
import urllib.parse
from typing import Any

from sdn.client.client import Client, find_controller
from sdn.service.roots import Root

REQUEST_TIMEOUT_S = 30.0


def root_of(args: argparse.Namespace) -> Root:
    """The root that `--root` or HAWSE_ROOT names, or the machine's."""
    return Root.find(args.root)


def client_of(args: argparse.Namespace, timeout_s: float = REQUEST_TIMEOUT_S) -> Client:
    """A client of the controller that the options lead to."""
    return Client(find_controller(args.controller, root_of(args).run), timeout_s=timeout_s)


def path(*parts: str) -> str:
    """`/v1/…` with each part quoted: references contain slashes."""
    return "/v1/" + "/".join(urllib.parse.quote(part, safe="") for part in parts)


def get(args: argparse.Namespace, *parts: str) -> dict[str, Any]:
    """One resource."""
    _, _, value = client_of(args).get(path(*parts))
    assert isinstance(value, dict)
    return value
