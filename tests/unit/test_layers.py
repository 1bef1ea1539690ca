"""What import-linter cannot see: who may touch the kernel by system calls of its own."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KERNEL = ROOT / "plugin" / "kernel"
LIBC = ROOT / "sdn" / "service" / "libc.py"
FORBIDDEN = {"ctypes", "pyroute2"}
PACKAGES = ("sdn", "plugin", "topologies")


@pytest.mark.parametrize("package", PACKAGES)
def test_two_places_call_libraries_of_c(package):
    found = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / package).rglob("*.py"))
        if KERNEL not in path.parents and path != LIBC and FORBIDDEN & imported(path)
    ]
    assert found == []


def test_nothing_but_plugin_kernel_opens_netlink():
    found = [
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        if KERNEL not in path.parents and "socket.AF_NETLINK" in path.read_text()
    ]
    assert found == []


@pytest.mark.parametrize("package", [*PACKAGES, "runtime"])
def test_every_package_says_what_it_is_for(package):
    """A package's `__init__` is its theory statement and holds no code."""
    for path in sorted((ROOT / package).rglob("__init__.py")):
        body = ast.parse(path.read_text()).body
        assert len(body) == 1, f"{path.relative_to(ROOT)} holds code"
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path.relative_to(ROOT)} says nothing"


def imported(path: Path) -> set[str]:
    """The top-level names of what a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names
