"""The options of `hawse run` as fields of a container's specification: pure, but for the files of `--env-file`."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from sdn.cli.exits import UsageError
from sdn.cli.quantities import parse_size

RETRIES_MAX = 1_000_000
POLICIES = ("no", "always", "unless-stopped", "on-failure")
VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")


class Networking(argparse.Action):
    """Keeps `--network` and what belongs to one in the order in which they were given."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        """Append (field, value, option)."""
        given = [*(getattr(namespace, self.dest) or ()), (self.const, values, option or "")]
        setattr(namespace, self.dest, given)


def parse_networks(given: Sequence[tuple[str, str, str]]) -> list[dict[str, Any]]:
    """Interfaces, of `Networking`'s list: what is wished belongs to the network before it, or to the only one.

    Raises: UsageError.
    """
    networks: list[dict[str, Any]] = []
    early: list[tuple[str, str, str]] = []
    for field, value, option in given:
        if field == "network":
            networks.append(_network(value))
        elif networks:
            _wish(networks[-1], field, value, option)
        else:
            early.append((field, value, option))
    if early and len(networks) != 1:
        option, value = early[0][2], early[0][1]
        if not networks:
            raise UsageError(f"{option} {value} is for an interface, and there is none", "give a --network as well")
        raise UsageError(
            f"{option} {value} comes before the first of {len(networks)} networks",
            "write it after the --network that it is for",
        )
    for wish in early:
        _wish(networks[0], *wish)
    return networks


def _network(text: str) -> dict[str, Any]:
    reference, colon, ifname = text.partition(":")
    if not reference or (colon and not ifname):
        raise UsageError(f"{text!r} is not a network", "write NETWORK or NETWORK:IFNAME, e.g. blue/web:eth1")
    return {"network": reference, **({"ifname": ifname} if ifname else {})}


def _wish(network: dict[str, Any], field: str, value: str, option: str) -> None:
    if field == "mac":
        if network.get("mac"):
            raise UsageError(f"network {network['network']} is given two MACs", "an interface has one")
        network["mac"] = value
        return
    if option in ("--ip", "--ip6") and (":" in value) != (option == "--ip6"):
        raise UsageError(f"{option} {value} is of the other family", "--ip takes IPv4, --ip6 takes IPv6")
    network.setdefault(field, []).append(value)


def parse_volume(text: str, directory: str) -> dict[str, Any]:
    """`SRC:DST[:ro]` as a mount. A source with a slash is a path, relative to `directory`; else it names a volume.

    Raises: UsageError.
    """
    parts = text.split(":")
    hint = "write SRC:DST or SRC:DST:ro, e.g. ./data:/data or cache:/var/cache"
    if not 2 <= len(parts) <= 3 or not all(parts):
        raise UsageError(f"{text!r} is not a volume", hint)
    source, target, mode = parts[0], parts[1], parts[2] if len(parts) == 3 else "rw"
    if mode not in ("ro", "rw"):
        raise UsageError(f"volume {text!r} has the mode {mode!r}", "ro and rw are those that there are")
    _check_target(target, f"volume {text!r}", hint)
    mount: dict[str, Any] = {"kind": "bind", "target": target}
    if "/" in source or source in (".", ".."):
        mount["source"] = os.path.abspath(os.path.join(directory, source))
    elif VOLUME_NAME.fullmatch(source):
        mount |= {"kind": "volume", "source": source}
    else:
        raise UsageError(f"{source!r} is no name for a volume", "letters, digits, '-', '_' and '.'; a path has a slash")
    return mount | ({"read_only": True} if mode == "ro" else {})


def parse_tmpfs(text: str) -> dict[str, Any]:
    """`DST[:size=64m][,ro]` as a mount. Raises: UsageError."""
    target, _, options = text.partition(":")
    hint = "write DST or DST:size=64m"
    _check_target(target, f"tmpfs {text!r}", hint)
    mount: dict[str, Any] = {"kind": "tmpfs", "target": target}
    for option in options.split(",") if options else ():
        key, equals, value = option.partition("=")
        if key == "size" and equals:
            try:
                mount["size_bytes"] = parse_size(value)
            except argparse.ArgumentTypeError as error:
                raise UsageError(f"tmpfs {text!r}: {error}") from None
        elif option in ("ro", "rw"):
            mount |= {"read_only": True} if option == "ro" else {}
        else:
            raise UsageError(f"tmpfs {text!r} has the option {option!r}", "size=, ro and rw are those that there are")
    return mount


def _check_target(target: str, what: str, hint: str) -> None:
    if not target.startswith("/"):
        raise UsageError(f"{what} goes to {target!r}, which is not an absolute path in the container", hint)
    if os.path.normpath(target).strip("/") == "":
        raise UsageError(f"{what} would cover the container's root", "choose a directory below it")


def read_environment(files: Sequence[str], given: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """`K=V`, the files' before the options'; a later one of a name replaces an earlier. `K` alone: ours, if set.

    Raises: UsageError.
    """
    merged: dict[str, str] = {}
    for path in files:
        for number, line in enumerate(_lines(path), 1):
            text = line.lstrip()
            if text and not text.startswith("#"):
                _add_variable(merged, text, environ, f"{path}, line {number}: ")
    for text in given:
        _add_variable(merged, text, environ, "")
    return [f"{key}={value}" for key, value in merged.items()]


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as opened:
            text = opened.read()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"the environment file {path!r} cannot be read: {reason}") from None
    return text.replace("\r\n", "\n").split("\n")


def _add_variable(merged: dict[str, str], text: str, environ: Mapping[str, str], where: str) -> None:
    key, equals, value = text.partition("=")
    if not key or any(c.isspace() for c in key) or "\0" in text:
        raise UsageError(f"{where}{text!r} is not a variable", "write NAME=VALUE, or NAME to pass on our own")
    merged.pop(key, None)
    if equals:
        merged[key] = value
    elif key in environ:
        merged[key] = environ[key]


def parse_restart(text: str) -> dict[str, Any]:
    """`on-failure:3` as fields. Raises: ArgumentTypeError."""
    policy, colon, retries = text.partition(":")
    counted = retries.isascii() and retries.isdecimal() and int(retries[:9]) <= RETRIES_MAX
    if policy not in POLICIES or (colon and (policy != "on-failure" or not counted)):
        raise argparse.ArgumentTypeError(f"{text!r} is none of no, always, unless-stopped, on-failure and on-failure:N")
    return {"restart": policy, **({"restart_retries": int(retries)} if colon else {})}


def parse_label(text: str) -> tuple[str, str]:
    """`K=V`. Raises: ArgumentTypeError."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not a label: write it as key=value")
    return key, value
