"""The oracle of the seccomp profile: containers-common's default profile, compiled by libseccomp."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pyseccomp  # type: ignore[import-untyped]

PROFILE = Path("/usr/share/containers/seccomp.json")
"""Of the Debian package golang-github-containers-common, which `.ci/install test` installs."""
OPERATORS = {
    "SCMP_CMP_NE": pyseccomp.NE,
    "SCMP_CMP_EQ": pyseccomp.EQ,
    "SCMP_CMP_MASKED_EQ": pyseccomp.MASKED_EQ,
}
ARCHES = {"x86_64": "amd64", "aarch64": "arm64"}


def names() -> set[str]:
    """Every call that the profile names."""
    return {name for entry in _profile()["syscalls"] for name in entry["names"]}


def compile_profile(capabilities: set[str], machine: str, architectures: tuple[int, ...]) -> bytes:
    """Its filter for a container with these capabilities (with `CAP_`), for AUDIT_ARCH architectures."""
    profile = _profile()
    default = pyseccomp.ERRNO(profile["defaultErrnoRet"])
    compiled = pyseccomp.SyscallFilter(default)
    native = pyseccomp.system_arch()
    for architecture in architectures:
        if architecture != native:
            compiled.add_arch(architecture)
    if native not in architectures:
        compiled.remove_arch(native)
    for entry in profile["syscalls"]:
        if not _applies(entry, capabilities, ARCHES[machine]):
            continue
        action = pyseccomp.ALLOW if entry["action"] == "SCMP_ACT_ALLOW" else pyseccomp.ERRNO(entry["errnoRet"])
        arguments = [
            pyseccomp.Arg(arg["index"], OPERATORS[arg["op"]], arg["value"], arg["valueTwo"])
            for arg in entry["args"] or ()
        ]
        for name in entry["names"]:
            if action != default and pyseccomp.resolve_syscall(native, name) != -1:
                compiled.add_rule(action, name, *arguments)
    with tempfile.TemporaryFile() as file:
        compiled.export_bpf(file)
        file.seek(0)
        return file.read()


def _profile() -> Any:
    return json.loads(PROFILE.read_text())


def _applies(entry: Any, capabilities: set[str], arch: str) -> bool:
    includes, excludes = entry["includes"] or {}, entry["excludes"] or {}
    return (
        set(includes.get("caps", ())) <= capabilities
        and not set(excludes.get("caps", ())) & capabilities
        and arch in includes.get("arches", [arch])
        and arch not in excludes.get("arches", ())
    )
