"""What a disk has of a container when the power is cut: what was flushed, and nothing else."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from runtime.daemon.records import FILE
from sdn.model.container import ContainerSpec, Restart
from sdn.model.runtime import RemoveRequest, RunRequest, StopRequest
from tests.unit.runtime_fakes import FakeAgent, FakeSupervisor, World
from tests.unit.test_runtime_life import ask


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = await World(tmp_path, FakeSupervisor(), FakeAgent()).begin()
    yield made
    await made.close()


class Disk:
    """A file is there once its directory was flushed, with what was flushed of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.files: dict[int, bytes] = {}
        self.directories: dict[str, dict[str, bytes]] = {}
        fsync = os.fsync

        def observed(fd: int) -> None:
            fsync(fd)
            path = os.readlink(f"/proc/self/fd/{fd}")
            if os.path.isdir(path):
                with os.scandir(path) as entries:
                    self.directories[path] = {entry.name: self.files.get(entry.inode(), b"") for entry in entries}
            else:
                self.files[os.fstat(fd).st_ino] = Path(path).read_bytes()

        monkeypatch.setattr(os, "fsync", observed)

    def record(self, world: World, identity: str) -> dict[str, Any] | None:
        path = world.around.records.path(identity)
        if identity not in self.directories.get(str(path.parent), {}):
            return None
        found = self.directories.get(str(path), {}).get(FILE, b"")
        return dict(json.loads(found)) if found else None


@pytest.mark.parametrize("policy", [Restart.ALWAYS, Restart.UNLESS_STOPPED, Restart.ON_FAILURE])
async def test_one_that_is_to_start_again_is_on_the_disk_before_the_answer(
    world: World, monkeypatch: pytest.MonkeyPatch, policy: Restart
) -> None:
    disk = Disk(monkeypatch)
    made = await ask(world, RunRequest(container=ContainerSpec(image="base", name="c", restart=policy)))
    found = disk.record(world, made["id"])
    assert found is not None
    assert (found["state"], found["wish"], found["spec"]["restart"]) == ("running", "running", policy)
    await ask(world, StopRequest(container="c", timeout_s=0))
    found = disk.record(world, made["id"])
    assert found is not None
    assert (found["state"], found.get("wish", "stopped")) == ("exited", "stopped"), (
        "it would come back, though it was stopped"
    )
    await ask(world, RemoveRequest(container="c"))
    assert disk.record(world, made["id"]) is None, "it would come back, though it was removed"


async def test_others_cost_the_disk_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)
    await ask(world, RunRequest(container=ContainerSpec(image="base", name="c")))
    await ask(world, RemoveRequest(container="c", force=True))
    assert (disk.files, disk.directories) == ({}, {})
