"""The nursery imports what daemons need, all of it, and nothing that a fork must not copy."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import plugin.agent.main
import runtime.daemon.main
import sdn.controller.main
from topologies.nursery import MODULES

MAINS = {
    "agent": plugin.agent.main.__file__,
    "controller": sdn.controller.main.__file__,
    "runtime": runtime.daemon.main.__file__,
}
OPTIONAL = {"plugin.agent.cleaning", "sdn.service.discovery"}
"""For options that no lab gives to its daemons."""
PREPARE = """
import json, os, sys
from topologies import nursery
for word in sys.argv[1:]:
    nursery.prepare(word)
listed = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd") if int(fd) > 2]
opened = [os.readlink(path) for path in listed if os.path.lexists(path)]
print(json.dumps([sorted(sys.modules), len(os.listdir("/proc/self/task")), opened]))
"""


def prepared(*words: str) -> tuple[set[str], int, list[str]]:
    """Modules, threads and open descriptors (but that of the listing) after preparing."""
    done = subprocess.run([sys.executable, "-c", PREPARE, *words], capture_output=True, text=True, check=True)
    modules, threads, descriptors = json.loads(done.stdout)
    return set(modules), threads, descriptors


@pytest.mark.parametrize("word", MODULES)
def test_all_that_a_daemon_imports_until_it_serves_is_there(word: str) -> None:
    """Also what its functions import; what only type checkers do is not meant."""
    tree = ast.parse(Path(MAINS[word]).read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    needed = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            needed.add(node.module)
        elif isinstance(node, ast.Import):
            needed.update(alias.name for alias in node.names)
    modules, _, _ = prepared(word)
    assert needed - modules <= OPTIONAL


def test_nothing_is_there_that_a_fork_must_not_copy() -> None:
    modules, threads, descriptors = prepared(*MODULES)
    assert threads == 1
    assert set(descriptors) <= {os.devnull}  # the number that is kept free for libnftables
    assert "topologies.commands" not in modules
