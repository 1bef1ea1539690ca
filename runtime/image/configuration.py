"""The image configuration: which layers, for which machine, and what is run by default. Pure.

Source: OCI image specification, "Image Configuration"; Docker's is the same with more fields.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import os
from typing import Any

from runtime.image.reference import is_digest
from sdn.model.errors import HawseError, invalid

CONFIGURATION_BYTES_MAX = 8 << 20
"""The largest seen in the wild (generated, thousands of labels) have some 100 kB."""
LAYERS_MAX = 250
"""Docker makes at most 125 of them; overlayfs takes 500."""

_MACHINES = {
    "x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "armv6l": "arm", "i686": "386", "i386": "386",
}  # fmt: skip
_LISTS = ("Entrypoint", "Cmd", "Env", "Shell", "OnBuild")
_TEXTS = ("User", "WorkingDir", "StopSignal", "Hostname", "Domainname", "Image")
_OBJECTS = ("Labels", "ExposedPorts", "Volumes")


def machine_architecture() -> str:
    """This machine's, as images name it (GOARCH)."""
    machine = os.uname().machine
    return _MACHINES.get(machine, machine)


@dataclasses.dataclass(frozen=True, slots=True)
class Configuration:
    """`id`: the digest of the bytes. `diff_ids`: the layers' uncompressed digests, lowest first."""

    id: str
    architecture: str
    created_s: float
    diff_ids: tuple[str, ...]
    config: dict[str, Any]

    @property
    def chain_ids(self) -> tuple[str, ...]:
        """Names of the layers that are unique with all that is below them. Source: OCI image-spec, "Layer ChainID"."""
        chain: list[str] = []
        for diff_id in self.diff_ids:
            text = f"{chain[-1]} {diff_id}" if chain else diff_id
            chain.append(f"sha256:{hashlib.sha256(text.encode()).hexdigest()}" if chain else diff_id)
        return tuple(chain)


def parse_object(data: bytes, what: str) -> dict[str, Any]:
    """A JSON object. Raises: INVALID."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise invalid(f"{what} is no JSON: {error}", "the archive is damaged or no image") from None
    if not isinstance(value, dict):
        raise invalid(f"{what} is no JSON object", "the archive is damaged or no image")
    return value


def parse_configuration(data: bytes) -> Configuration:
    """Raises: INVALID, for what this machine could not run as well."""
    value = parse_object(data, "the image's configuration")
    rootfs = value.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(diff_ids, list) or not all(map(is_digest, diff_ids)):
        raise _odd("rootfs.diff_ids is no list of sha256 digests")
    if len(diff_ids) > LAYERS_MAX:
        raise _odd(f"there are {len(diff_ids)} layers; at most {LAYERS_MAX} are taken")
    if value.get("os", "linux") != "linux":
        raise invalid(f"the image is for {str(value['os'])[:40]!r}, this machine runs linux", "load one for linux")
    config = value.get("config") or {}
    if not isinstance(config, dict):
        raise _odd("config is no object")
    _check_fields(config)
    return Configuration(
        id=f"sha256:{hashlib.sha256(data).hexdigest()}",
        architecture=str(value.get("architecture", "")),
        created_s=_seconds(value.get("created")),
        diff_ids=tuple(diff_ids),
        config=config,
    )


def check_architecture(architecture: str) -> None:
    """Raises: INVALID, where the image is for another machine."""
    mine = machine_architecture()
    if architecture not in ("", mine):
        raise invalid(
            f"the image is for {architecture[:40]!r}, this machine is {mine!r}",
            f"save or build the image for linux/{mine}",
            image=architecture,
            machine=mine,
        )


def _check_fields(config: dict[str, Any]) -> None:
    for field in _LISTS:
        value = config.get(field)
        if value is not None and not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
            raise _odd(f"config.{field} is no list of texts")
    for field in _TEXTS:
        if not isinstance(config.get(field) or "", str):
            raise _odd(f"config.{field} is no text")
    for field in _OBJECTS:
        if not isinstance(config.get(field) or {}, dict):
            raise _odd(f"config.{field} is no object")


def _odd(reason: str) -> HawseError:
    return invalid(f"the image's configuration is not as it should be: {reason}", "build or save the image again")


def _seconds(created: object) -> float:
    try:
        return datetime.datetime.fromisoformat(str(created)).timestamp()
    except (ValueError, OverflowError):
        return 0.0
