"""Capabilities and system-call filter of a specification, remembered: compiling a filter takes milliseconds."""

from __future__ import annotations

from pathlib import Path

from runtime.capabilities import read_bounding, resolve
from runtime.daemon.processes import Confinement
from sdn.model.container import ContainerSpec


class Confinements:
    """`directory`: where compiled filters are kept."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._bounding = read_bounding()
        self._known: dict[tuple[int, ...], Path] = {}

    def __call__(self, spec: ContainerSpec) -> Confinement:
        """Raises: INVALID, DENIED (a capability), UNAVAILABLE (no filter can be made)."""
        capabilities = tuple(resolve(spec.cap_add, spec.cap_drop, self._bounding))
        path = self._known.get(capabilities)
        if path is None or not path.exists():
            from runtime.seccomp.filters import compiled  # what it imports is needed once per set

            path = self._known[capabilities] = compiled(self._directory, capabilities)
        return Confinement(capabilities, str(path))
