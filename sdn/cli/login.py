"""`hawse login|logout`: use a controller from another machine."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from pathlib import Path

from sdn.cli.exits import Exit, UsageError
from sdn.cli.output import print_json
from sdn.client.client import Client
from sdn.model.errors import unavailable
from sdn.model.token import TokenKind, parse_token
from sdn.service.login import Controller, login_file, remove_login, write_login

TOKEN_BYTES_MAX = 4096
"""Of what is pasted; a token has a twentieth of it."""


def login_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `login`."""
    parser.add_argument("address", metavar="ADDRESS", help="of the controller: 10.0.0.1, name:4780, [fd00::1]:4780")


def login(args: argparse.Namespace) -> int:
    """Keep a controller's address, its authority and a token, once the controller has said yes to them."""
    from sdn.client.trust import controller_url, fetch_authority

    url, path = controller_url(args.address), _file()
    token = parse_token(_ask_token(), TokenKind.USER)
    pinned = fetch_authority(url, token.fingerprint)
    client = Client(url, authority=pinned, token=str(token))
    revision = client.get("/readyz").body["revision"]
    authority = client.get("/v1/identity").body["authority"]  # from a verified controller: all that it trusts
    write_login(path, Controller(url, authority=authority, token=str(token)))
    if args.output == "json":
        print_json({"controller": url, "file": str(path), "revision": revision})
    else:
        print(f"logged in to {url}; {path} holds the token: hawse logout removes it")
    return Exit.OK


def logout_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `logout`: none."""


def logout(args: argparse.Namespace) -> int:
    """Forget the controller and the token. There being none is fine."""
    path = _file()
    found = remove_login(path)
    if args.output == "json":
        print_json({"file": str(path), "removed": found})
    else:
        print(f"{path} is removed; the token is good until it is revoked" if found else "nobody was logged in")
    return Exit.OK


def _file() -> Path:
    path = login_file(os.environ)
    if path is None:
        raise unavailable("there is no place to keep a login: HOME is not set", "set HOME, or use HAWSE_TOKEN")
    return path


def _ask_token() -> str:
    """From the terminal without echo, or the first line of standard input; never from the command line."""
    if sys.stdin is not None and sys.stdin.isatty():
        try:
            return getpass.getpass("token: ")
        except EOFError:
            raise UsageError("no token was given", "paste it, or write it to standard input") from None
    line = sys.stdin.readline(TOKEN_BYTES_MAX) if sys.stdin is not None else ""
    if not line.strip():
        raise UsageError("no token was given", "write it to standard input: hawse login ADDRESS < FILE")
    return line
