"""`hawse token create|ls|revoke`."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from sdn.cli.connection import client_of
from sdn.cli.exits import Exit, UsageError
from sdn.cli.network import remove_each
from sdn.cli.output import print_json, print_table
from sdn.cli.quantities import parse_seconds, show_time

LOOPBACK = ("127.", "[::1]", "localhost")


def create_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `token create`."""
    parser.add_argument("--join", action="store_true", help="for a machine that is to join, once (the default)")
    parser.add_argument(
        "--role", choices=("admin", "tenant"), default=None, help="for a user, who may all, or a tenant's"
    )
    parser.add_argument("--tenant", default=None, metavar="TENANT", help="with --role tenant: whose networks")
    parser.add_argument("--name", default="", help="who is to have it: what they do is told under this name")
    parser.add_argument(
        "--ttl",
        type=parse_seconds,
        default=None,
        metavar="TIME",
        help="how long it can be used, e.g. 30m, 8h, 90d (default: 1h to join; a user's until it is revoked)",
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="print the token alone")


def create(args: argparse.Namespace) -> int:
    """Make a token, and print it this once."""
    if args.join and args.role:
        raise UsageError("--join and --role are two sorts of tokens", "give one of them")
    if args.tenant and args.role != "tenant":
        raise UsageError("--tenant goes with --role tenant", "hawse token create --role tenant --tenant TENANT")
    if args.role == "tenant" and not args.tenant:
        raise UsageError("--role tenant needs --tenant TENANT", "'hawse tenant ls' lists them")
    spec: dict[str, Any] = {"kind": "user" if args.role else "join", "name": args.name}
    spec |= {"role": args.role, "tenant": args.tenant} if args.tenant else {"role": args.role} if args.role else {}
    made = client_of(args).post("/v1/tokens", spec if args.ttl is None else spec | {"ttl_s": args.ttl}).body
    if args.output == "json":
        print_json(made)
    elif args.quiet:
        print(made["word"])
    else:
        _tell(made)
    return Exit.OK


def _tell(made: dict[str, Any]) -> None:
    """What is to be typed goes to stdout, so that it can be piped there; what is to be known to stderr."""
    address = made["controllers"][0].removeprefix("https://") if made["controllers"] else "ADDRESS"
    end = f"until {show_time(made['expires_s'])}" if made["expires_s"] else "until it is revoked"
    if made["kind"] == "join":
        print(f"hawse join {address} {made['word']}", flush=True)
        notes = [f"run this on the machine that is to join; it is good for one machine, {end}"]
    else:
        print(made["word"], flush=True)
        notes = [f"this is shown once; to use it: hawse login {address}, and paste it there; it is good {end}"]
    notes.append(f"to end it: hawse token revoke {made['id']}")
    if address.startswith(LOOPBACK):
        notes.append(f"only this machine reaches the controller at {address}: have it listen on another address")
    print("\n".join(notes), file=sys.stderr)


def ls_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `token ls`."""
    parser.add_argument("-q", "--quiet", action="store_true", help="ids alone")


def ls(args: argparse.Namespace) -> int:
    """List tokens; the words themselves are nowhere."""
    tokens = list(client_of(args).items("/v1/tokens"))
    if args.output == "json":
        print_json(tokens)
    elif args.quiet:
        print("".join(f"{token['id']}\n" for token in tokens), end="")
    else:
        header = ("ID", "NAME", "KIND", "ROLE", "TENANT", "STATE", "EXPIRES", "USED BY", "MADE BY")
        print_table(header, [_row(token) for token in tokens])
    return Exit.OK


def _row(token: dict[str, Any]) -> tuple[Any, ...]:
    expires = show_time(token["expires_s"])
    names = ("id", "name", "kind", "role", "tenant_name", "state")
    return (*(token[name] for name in names), expires, token["used_by"], token["created_by"])


def revoke_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `token revoke`."""
    parser.add_argument("tokens", metavar="TOKEN", nargs="+", help="id or name; not the word itself")
    parser.set_defaults(wait=None)


def revoke(args: argparse.Namespace) -> int:
    """End tokens, and what they have open."""
    from sdn.model.token import PREFIX

    if any(token.startswith(PREFIX) for token in args.tokens):
        raise UsageError("this is a token's word, which is a secret", "give its id: 'hawse token ls' shows it")
    return remove_each(args, "tokens", args.tokens)
